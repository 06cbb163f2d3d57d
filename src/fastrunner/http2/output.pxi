"""Stage 1, service: what a connection sends: what is ready to be written, and bodies that wait for it.

Theory of operation: what is to be sent gathers until it is fetched. Bodies wait in their calls while their caller's
windows are closed, or while what has been fetched does not leave; calls take turns, a frame each.
"""

# Of all connections.
cdef Py_ssize_t _waiting_size_bytes = 0
cdef Py_ssize_t CALL_SIZE_BYTES = 2048
"""What a call takes that is kept because its caller does not read."""


def waiting_size_bytes():
    return _waiting_size_bytes


cdef Py_ssize_t OUTPUT_SIZE_BYTES_MAX = _limits.HTTP2_OUTPUT_SIZE_BYTES_MAX


cdef class _Output:
    """The sending half of a Session; see _http2.pyi."""

    cdef readonly Py_ssize_t output_size_bytes, waiting_size_bytes
    cdef object _on_output
    cdef dict _blocked
    cdef list _output
    cdef readonly bint is_urgent
    cdef bint _is_receiving, _is_told, _is_paused, _owes_resize
    cdef int64_t _window
    cdef int _annoyance

    def output(self):
        cdef bytes output = self._output[0] if len(self._output) == 1 else b"".join(self._output)
        self._output = []
        self.output_size_bytes = 0
        self._is_told = self.is_urgent = False
        return output

    def pause(self):
        self._is_paused = True

    def resume(self):
        self._is_paused = False
        self._pump()

    def pump(self):
        self._pump()

    @property
    def has_blocked(self):
        return bool(self._blocked) and self._window > 0 and not self._is_paused

    cdef void _emit(self, bytes chunk) except *:
        self._output.append(chunk)
        self.output_size_bytes += PyBytes_GET_SIZE(chunk)
        self.is_urgent = True
        if not self._is_receiving and not self._is_told:
            self._is_told = True
            self._on_output()

    cdef void _emit_along(self, bytes chunk) except *:
        """Has it sent with what is next; only while something is received."""
        self._output.append(chunk)
        self.output_size_bytes += PyBytes_GET_SIZE(chunk)

    cdef inline void _note_waiting(self, Py_ssize_t by) noexcept:
        global _waiting_size_bytes
        _waiting_size_bytes += by
        self.waiting_size_bytes += by

    cdef inline bint _is_full(self) noexcept:
        return self._is_paused or self.output_size_bytes >= OUTPUT_SIZE_BYTES_MAX

    cdef void _pump(self) except *:
        """Sends of what waits, a frame of each call in turn."""
        cdef Call call
        while self._blocked and self._window > 0 and not self._is_full():
            call = next(iter(self._blocked))
            del self._blocked[call]
            self._send_frame(call)
            if call._parts is not None and call._window > 0:
                self._blocked[call] = None

    cdef void _pump_one(self, Call call) except *:
        """Sends of what a call has to say."""
        while call._parts is not None and call._window > 0:
            if self._window <= 0 or self._is_full():
                self._blocked[call] = None
                return
            self._send_frame(call)

    cdef void _send_frame(self, Call call) except *:
        cdef Py_ssize_t room = <Py_ssize_t>min(call._window, self._window, <int64_t>FRAME_SIZE_BYTES_MAX)
        cdef Py_ssize_t size = 0, count
        cdef list chunks = []
        cdef bytes part
        cdef object sent
        while call._parts and size < room:
            part = call._parts[0]
            count = min(PyBytes_GET_SIZE(part) - call._gone, room - size)
            chunks.append(part if count == PyBytes_GET_SIZE(part) else part[call._gone:call._gone + count])
            size += count
            call._gone += count
            if call._gone == PyBytes_GET_SIZE(part):
                call._parts.popleft()
                call._gone = 0
        self._note_waiting(-size)
        call._window -= size
        self._window -= size
        # Clients measure the line by a ping for what they get.
        self._annoyance = max(self._annoyance - 1, 0)
        self._emit(_frame(DATA, 0, call._stream, b"".join(chunks)))
        if call._parts:
            return
        call._parts = None
        self._note_waiting(-CALL_SIZE_BYTES)
        sent, call._sent = call._sent, None
        if sent is not None and not sent.done():
            sent.set_result(None)
        if call._trailers is not None:
            call._session._end_with(call, call._trailers)
