"""Stage 1, service: one connection of a client (RFC 9113): frames taken apart, streams, windows, and when to part.

Theory of operation: bytes go in as they come, and lead to calls that have begun, have got a message or are lost; who
gave the bytes lets each of them have its turn then, so nothing of the service runs while frames are taken apart.

Rules: a client that breaks the protocol loses its connection and nobody else anything. Whatever is kept for a client
has a bound: a header block, what it has announced, answers it does not read, frames that ask for nothing.
"""

cdef class Session(_Output):
    """See _http2.pyi."""

    cdef public str peer
    cdef public object certificate_names
    cdef readonly bint is_over, is_acknowledged, is_retiring, has_more
    cdef Bounds _bounds
    cdef _HeaderDecoder _decoder
    cdef object _on_packed, _new_future
    cdef dict _calls
    cdef list _ready
    cdef bytes _rest
    cdef object _block
    cdef uint32_t _block_stream, _highest
    cdef int _block_flags
    cdef uint32_t _ended[32]
    cdef int _ended_count
    cdef bint _has_preface, _has_settings, _is_leaving
    cdef int64_t _first_window, _taken

    def __init__(self, Bounds bounds, on_output, on_packed, new_future):
        self._bounds = bounds
        self._on_output, self._on_packed, self._new_future = on_output, on_packed, new_future
        self._decoder = _HeaderDecoder()
        self._calls, self._blocked = {}, {}
        self._output, self._ready = [], []
        self._rest = b""
        self.peer = ""
        self.certificate_names = ()
        self._window = self._first_window = WINDOW_SIZE_BYTES
        # Whoever makes it fetches what it says first.
        self._is_told = True
        self._emit(_settings_frame([
            (MAX_CONCURRENT_STREAMS, bounds.streams_max),
            (INITIAL_WINDOW_SIZE, STREAM_WINDOW_SIZE_BYTES),
            (MAX_HEADER_LIST_SIZE, bounds.header_list_size_bytes_max),
        ]))
        self._emit(_number_frame(WINDOW_UPDATE, 0, <uint32_t>(CONNECTION_WINDOW_SIZE_BYTES - WINDOW_SIZE_BYTES)))

    @property
    def is_idle(self):
        return not self._calls

    @property
    def is_done(self):
        return self.is_over or (self._is_leaving and not self._calls and not self._output)

    def receive(self, bytes data):
        cdef list ready
        if self.is_over:
            return []
        self._is_receiving = True
        try:
            self._parse(self._rest + data if self._rest else data)
        except _Broken as broken:
            self._break(broken.args[0], broken.args[1])
        finally:
            self._is_receiving = False
        ready, self._ready = self._ready, []
        # What is left may be nothing.
        self.has_more = len(ready) >= CALLS_PER_TURN_MAX and not self.is_over
        return ready

    def ping(self):
        self._emit(_frame(PING, 0, 0, b"still on"))

    def forgive(self):
        self._annoyance = 0

    def retire(self):
        if not self.is_retiring and not self.is_over:
            self.is_retiring = True
            self._emit(_goaway(LAST_STREAM, NO_ERROR, b"") + _frame(PING, 0, 0, RETIRING))

    def leave(self):
        if not self._is_leaving and not self.is_over:
            self.is_retiring = self._is_leaving = True
            self._emit(_goaway(self._highest, NO_ERROR, b""))

    def lose(self):
        self.is_over = True
        # Its owner, which has it: else they would wait for the cycle's collector.
        self._on_output = _nothing
        self._lose_all()
        ready, self._ready = self._ready, []
        return ready

    # --- what comes ---

    cdef void _parse(self, bytes data) except *:
        cdef const unsigned char* at = <const unsigned char*>PyBytes_AS_STRING(data)
        cdef const unsigned char* end = at + PyBytes_GET_SIZE(data)
        cdef Py_ssize_t size
        if not self._has_preface:
            size = min(<Py_ssize_t>(end - at), PREFACE_SIZE)
            if data[:size] != PREFACE[:size]:
                raise _Broken(PROTOCOL_ERROR, b"this port speaks HTTP/2 with prior knowledge")
            if size < PREFACE_SIZE:
                self._rest = data
                return
            self._has_preface = True
            at += PREFACE_SIZE
        # What follows a call's headers comes with them: its request is there.
        while end - at >= HEAD_SIZE and (len(self._ready) < CALLS_PER_TURN_MAX or at[3] != HEADERS):
            size = (<Py_ssize_t>at[0] << 16) | (<Py_ssize_t>at[1] << 8) | at[2]
            if size > FRAME_SIZE_BYTES_MAX:
                raise _Broken(FRAME_SIZE_ERROR, b"a frame is larger than the settings allow")
            if end - at - HEAD_SIZE < size:
                break
            self._take_frame(at[3], at[4], _uint32(at + 5) & LAST_STREAM, at + HEAD_SIZE, size)
            if self.is_over:
                return
            at += HEAD_SIZE + size
        self._rest = PyBytes_FromStringAndSize(<const char*>at, end - at)

    cdef void _take_frame(
        self, int kind, int flags, uint32_t stream, const unsigned char* at, Py_ssize_t size
    ) except *:
        if self._block is not None and (kind != CONTINUATION or stream != self._block_stream):
            raise _Broken(PROTOCOL_ERROR, b"a header block is cut off by another frame")
        if not self._has_settings and (kind != SETTINGS or flags & ACK):
            raise _Broken(PROTOCOL_ERROR, b"settings come first")
        if kind == DATA:
            self._take_data(flags, stream, at, size)
        elif kind == HEADERS:
            self._take_headers(flags, stream, at, size)
        elif kind == CONTINUATION:
            self._take_continuation(flags, at, size)
        elif kind == WINDOW_UPDATE:
            self._take_window(stream, at, size)
        elif kind == RST_STREAM:
            self._take_reset(stream, size)
        elif kind == PING:
            self._take_ping(flags, stream, at, size)
        elif kind == SETTINGS:
            self._take_settings(flags, stream, at, size)
        elif kind == PUSH_PROMISE:
            raise _Broken(PROTOCOL_ERROR, b"clients push nothing")
        elif kind == GOAWAY and stream:
            raise _Broken(PROTOCOL_ERROR, b"GOAWAY on a stream")
        else:
            if kind == PRIORITY:
                self._check_priority(stream, at, size)
            self._annoy(1)

    cdef void _check_priority(self, uint32_t stream, const unsigned char* at, Py_ssize_t size) except *:
        """It means nothing here (RFC 9113, section 5.3.2), but it has to be right."""
        if size < 5:
            raise _Broken(FRAME_SIZE_ERROR, b"a priority has 5 bytes")
        if stream == 0 or _uint32(at) & LAST_STREAM == stream:
            raise _Broken(PROTOCOL_ERROR, b"a stream depends on another one")

    cdef void _annoy(self, int by) except *:
        """Notes a frame that asks for nothing, or one that does."""
        self._annoyance = max(self._annoyance + by, 0)
        if self._annoyance > IDLE_FRAMES_MAX or (by > 0 and self.output_size_bytes > UNREAD_SIZE_BYTES_MAX):
            raise _Broken(ENHANCE_YOUR_CALM, b"too many frames that ask for nothing")

    cdef void _take_settings(self, int flags, uint32_t stream, const unsigned char* at, Py_ssize_t size) except *:
        cdef Py_ssize_t place
        cdef int64_t first_window = self._first_window
        if stream:
            raise _Broken(PROTOCOL_ERROR, b"settings on a stream")
        if flags & ACK:
            if size:
                raise _Broken(FRAME_SIZE_ERROR, b"an acknowledgement is empty")
            self.is_acknowledged = True
            self._annoy(1)
            return
        if size % 6:
            raise _Broken(FRAME_SIZE_ERROR, b"a setting has 6 bytes")
        self._has_settings = True
        for place in range(0, size, 6):
            first_window = self._checked((at[place] << 8) | at[place + 1], _uint32(at + place + 2), first_window)
        self._annoy(1)
        self._emit(_frame(SETTINGS, ACK, 0, b""))
        # Once, for it looks at every call.
        if first_window != self._first_window:
            self._annoy(<int>(len(self._calls) // CALLS_PER_FRAME))
            self._set_first_window(first_window)

    cdef int64_t _checked(self, int number, int64_t value, int64_t first_window) except -1:
        """The first window of streams after a setting."""
        if number == HEADER_TABLE_SIZE and value < TABLE_SIZE_BYTES_MAX:
            self._owes_resize = True
        if number == ENABLE_PUSH and value > 1:
            raise _Broken(PROTOCOL_ERROR, b"a switch is 0 or 1")
        if number == MAX_FRAME_SIZE and not FRAME_SIZE_BYTES_MAX <= value <= 0xFFFFFF:
            raise _Broken(PROTOCOL_ERROR, b"no frame may be so large, or must be so small")
        if number != INITIAL_WINDOW_SIZE:
            return first_window
        if value > WINDOW_SIZE_BYTES_MAX:
            raise _Broken(FLOW_CONTROL_ERROR, b"no window is so large")
        return value

    cdef void _set_first_window(self, int64_t value) except *:
        cdef Call call
        for call in self._calls.values():
            call._window += value - self._first_window
            if call._window > WINDOW_SIZE_BYTES_MAX:
                raise _Broken(FLOW_CONTROL_ERROR, b"no window is so large")
            if call._parts is not None and call._window > 0:
                self._blocked[call] = None
        self._first_window = value
        self._pump()

    cdef void _take_window(self, uint32_t stream, const unsigned char* at, Py_ssize_t size) except *:
        cdef int64_t by
        cdef Call call
        if size != 4:
            raise _Broken(FRAME_SIZE_ERROR, b"an increment has 4 bytes")
        by = _uint32(at) & LAST_STREAM
        if stream == 0:
            self._window += by
            if not by or self._window > WINDOW_SIZE_BYTES_MAX:
                raise _Broken(FLOW_CONTROL_ERROR if by else PROTOCOL_ERROR, b"no window grows so")
            self._pump()
            if by < 16:
                self._annoy(1)
            return
        call = self._calls.get(stream)
        if call is None:
            if stream > self._highest:
                raise _Broken(PROTOCOL_ERROR, b"a window of a stream that nobody opened")
            return
        call._window += by
        if not by or call._window > WINDOW_SIZE_BYTES_MAX:
            self._reset(call, FLOW_CONTROL_ERROR if by else PROTOCOL_ERROR)
        elif call._parts is not None and call._window > 0:
            self._blocked[call] = None
            self._pump()
        elif by < 16:
            self._annoy(1)

    cdef void _take_reset(self, uint32_t stream, Py_ssize_t size) except *:
        cdef Call call
        if size != 4:
            raise _Broken(FRAME_SIZE_ERROR, b"a reset has 4 bytes")
        if stream == 0 or stream > self._highest:
            raise _Broken(PROTOCOL_ERROR, b"a reset of a stream that nobody opened")
        self._annoy(RESET_COST)
        self._note_ended(stream)
        call = self._calls.get(stream)
        if call is not None:
            self._lost(call)

    cdef void _take_ping(self, int flags, uint32_t stream, const unsigned char* at, Py_ssize_t size) except *:
        cdef bytes content
        if stream:
            raise _Broken(PROTOCOL_ERROR, b"a ping on a stream")
        if size != 8:
            raise _Broken(FRAME_SIZE_ERROR, b"a ping has 8 bytes")
        content = PyBytes_FromStringAndSize(<const char*>at, 8)
        if not flags & ACK:
            self._emit_along(_frame(PING, ACK, 0, content))
        elif self.is_retiring and content == RETIRING:
            self.leave()
        self._annoy(1)

    # --- headers ---

    cdef void _take_headers(self, int flags, uint32_t stream, const unsigned char* at, Py_ssize_t size) except *:
        cdef Py_ssize_t padding = 0
        if stream == 0:
            raise _Broken(PROTOCOL_ERROR, b"headers of no stream")
        if flags & PADDED:
            if size < 1:
                raise _Broken(FRAME_SIZE_ERROR, b"the padding has no size")
            padding = at[0]
            at += 1
            size -= 1
        if flags & HAS_PRIORITY:
            self._check_priority(stream, at, size)
            at += 5
            size -= 5
        if padding > size:
            raise _Broken(PROTOCOL_ERROR, b"more padding than there is")
        size -= padding
        self._block_stream, self._block_flags = stream, flags
        if flags & END_HEADERS:
            self._take_block(PyBytes_FromStringAndSize(<const char*>at, size))
        else:
            self._block = bytearray(at[:size])

    cdef void _take_continuation(self, int flags, const unsigned char* at, Py_ssize_t size) except *:
        cdef bytes block
        if self._block is None:
            raise _Broken(PROTOCOL_ERROR, b"a continuation of nothing")
        self._block += at[:size]
        self._annoy(1)
        if len(self._block) > HEADER_BLOCK_SIZE_BYTES_MAX:
            raise _Broken(ENHANCE_YOUR_CALM, b"headers without end")
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._take_block(block)

    cdef void _take_block(self, bytes block) except *:
        cdef uint32_t stream = self._block_stream
        cdef list headers = self._decoder.decode(block, self._bounds.header_list_size_bytes_max)
        cdef Call call
        if headers is None:
            raise _Broken(COMPRESSION_ERROR, b"a header block that cannot be unpacked")
        call = self._calls.get(stream)
        if call is not None:
            self._take_trailers(call)
        elif stream > self._highest:
            self._open(stream, headers)
        else:
            self._check_ended(stream)
            # Else trailers of a call that was ended here meanwhile.
            if self._decoder.kind != TRAILERS:
                raise _Broken(PROTOCOL_ERROR, b"a stream is opened once")

    cdef void _take_trailers(self, Call call) except *:
        if call._has_ended:
            raise _Broken(STREAM_CLOSED, b"headers after the end of a request")
        if not self._block_flags & END_STREAM or self._decoder.kind != TRAILERS:
            self._reset(call, PROTOCOL_ERROR)
        else:
            self._end_of(call)

    cdef void _open(self, uint32_t stream, list headers) except *:
        if not stream & 1:
            raise _Broken(PROTOCOL_ERROR, b"streams of clients have odd numbers")
        self._annoy(-1)
        self._highest = stream
        if self._is_leaving or len(self._calls) >= self._bounds.streams_max:
            self._refuse(stream, REFUSED_STREAM)
        else:
            self._begin(stream, headers)

    cdef void _begin(self, uint32_t stream, list headers) except *:
        cdef Call call = Call.__new__(Call)
        call._session = self
        call._stream = stream
        call._headers = headers
        call._window = self._first_window
        call._room = STREAM_WINDOW_SIZE_BYTES
        call._is_new = True
        call._length = -1
        call.path = call.client = ""
        call.timeout_s = call.deadline_s = INFINITE_S
        call._has_ended = self._block_flags & END_STREAM
        if self._decoder.kind == TOO_LARGE:
            size_max = self._bounds.header_list_size_bytes_max
            call.fault = (RESOURCE_EXHAUSTED, f"the metadata size is more than {size_max}")
        elif self._decoder.kind != REQUEST or not self._read_headers(call, headers):
            self._refuse(stream, PROTOCOL_ERROR)
            return
        call.is_malformed = call.fault is not None
        self._calls[stream] = call
        self._ready.append(call)

    cdef bint _read_headers(self, Call call, list headers) except -1:
        """Notes what concerns gRPC, and who does not speak it; whether the body can be as long as they say."""
        cdef tuple entry
        cdef bytes name, value, method = None, content_type = b""
        cdef Py_ssize_t size
        for entry in headers:
            name, value = <bytes>entry[0], <bytes>entry[1]
            size = PyBytes_GET_SIZE(name)
            if size == 5 and name == b":path":
                call.path = value.decode("utf-8", "replace")
            elif size == 7 and name == b":method":
                method = value
            elif size == 12 and name == b"content-type":
                content_type = value
            elif size == 14 and name == b"content-length":
                if not value.isdigit() or len(value) > LENGTH_DIGITS_MAX:
                    return False
                call._length = int(value)
            elif size == 12 and name == b"grpc-timeout":
                try:
                    call.timeout_s = _timeout_s(value)
                except ValueError:
                    call.fault = (INTERNAL, "grpc-timeout is no time")
            elif size == 13 and name == b"grpc-encoding":
                call._encoding = value
            elif name.endswith(b"-bin"):
                try:
                    _from_base64(value)
                except ValueError:
                    call.fault = (INTERNAL, "a binary header is not base64")
        if method != b"POST":
            call.http_status, call._is_head = 405, method == b"HEAD"
        elif content_type != GRPC and not content_type.startswith((GRPC + b"+", GRPC + b";")):
            call.http_status = 415
        return not (call._has_ended and call._length > 0)

    # --- messages ---

    cdef void _take_data(self, int flags, uint32_t stream, const unsigned char* at, Py_ssize_t size) except *:
        cdef Py_ssize_t whole = size, padding
        cdef Call call
        if stream == 0 or stream > self._highest:
            raise _Broken(PROTOCOL_ERROR, b"data of a stream that nobody opened")
        if flags & PADDED:
            padding = at[0] if size else 0
            if not size or padding >= size:
                raise _Broken(PROTOCOL_ERROR, b"more padding than there is")
            at += 1
            size -= 1 + padding
        self._taken += whole
        if self._taken >= CONNECTION_WINDOW_SIZE_BYTES // 2:
            self._emit(_number_frame(WINDOW_UPDATE, 0, <uint32_t>self._taken))
            self._taken = 0
        self._annoy(-1 if size else 1)
        call = self._calls.get(stream)
        if call is None:
            self._check_ended(stream)
            return
        if call._has_ended:
            raise _Broken(STREAM_CLOSED, b"data after the end of a request")
        call._room -= whole
        call._taken += whole
        if call._room < 0:
            self._reset(call, FLOW_CONTROL_ERROR)
            return
        if call._length >= 0:
            if size > call._length:
                self._reset(call, PROTOCOL_ERROR)
                return
            call._length -= size
        if size and call.fault is None and not call._is_deaf and not call.http_status:
            self._take_content(call, at, size)
        if flags & END_STREAM:
            self._end_of(call)
        elif call._messages is None:
            self._give_room(call)

    cdef void _give_room(self, Call call) except *:
        """Lets the client send on."""
        if call._taken < STREAM_WINDOW_SIZE_BYTES // 2 or call._has_ended or call._is_deaf:
            return
        if not call.is_over:
            call._room += call._taken
            self._emit(_number_frame(WINDOW_UPDATE, call._stream, <uint32_t>call._taken))
            call._taken = 0

    cdef void _take_content(self, Call call, const unsigned char* at, Py_ssize_t size) except *:
        """Messages, or parts of them."""
        cdef Py_ssize_t length
        cdef bytearray partial
        while size and call.fault is None:
            if call._partial is None and size >= PREFIX_SIZE:
                length = _uint32(at + 1)
                if length <= size - PREFIX_SIZE:
                    self._arrived(call, at[0], PyBytes_FromStringAndSize(<const char*>at + PREFIX_SIZE, length))
                    at += PREFIX_SIZE + length
                    size -= PREFIX_SIZE + length
                    continue
            if call._partial is None:
                call._partial = bytearray()
            partial = <bytearray>call._partial
            length = self._missing_of(call, partial)
            if call.fault is not None:
                return
            length = min(length, size)
            partial += at[:length]
            at += length
            size -= length
            if len(partial) >= PREFIX_SIZE and not self._missing_of(call, partial) and call.fault is None:
                call._partial = None
                self._arrived(call, partial[0], bytes(memoryview(partial)[PREFIX_SIZE:]))

    cdef Py_ssize_t _missing_of(self, Call call, bytearray partial) except -1:
        """How much of a message's prefix, or of the message, has not come; one that is too large is at fault."""
        cdef Py_ssize_t have = len(partial), length, size_max = self._bounds.message_size_bytes_max
        if have < PREFIX_SIZE:
            return PREFIX_SIZE - have
        length = _uint32(<const unsigned char*>(<char*>partial) + 1)
        if length > size_max:
            call._fail(RESOURCE_EXHAUSTED, f"the message is larger than max ({length} vs. {size_max})")
            return 0
        return PREFIX_SIZE + length - have

    cdef void _arrived(self, Call call, int flag, bytes message) except *:
        """A whole message, as it was sent."""
        if call._is_unpacking:
            call._waiting.append((flag, message))
        elif flag == 0:
            call._put(message)
            self._tell(call)
        elif flag != 1:
            call._fail(INVALID_ARGUMENT, f"a message cannot begin with the byte {flag}")
        elif call._encoding is None or call._encoding == b"identity":
            call._fail(INTERNAL, "a message is said to be compressed, and grpc-encoding does not say how")
        else:
            call._is_unpacking = True
            call._waiting = deque()
            self._on_packed(call, call._encoding, message)

    cdef void _end_of(self, Call call) except *:
        """The caller sends no more."""
        if call._length > 0:
            self._reset(call, PROTOCOL_ERROR)
            return
        call._has_ended = True
        if call._partial is not None:
            call._partial = None
            if call._messages is None and call.fault is None:
                call._fail(INVALID_ARGUMENT, "the message is shorter than it says")
        self._tell(call)

    cdef void _tell(self, Call call) except *:
        """Lets a call have its turn: while frames are taken apart, after that."""
        if self._is_receiving:
            # A new one has its turn anyway.
            if not call._is_new and call._receiver is not None:
                self._ready.append(call)
        else:
            call._deliver()

    # --- what ends ---

    cdef void _note_ended(self, uint32_t stream) noexcept:
        """The client has ended it: it may send nothing more of it."""
        self._ended[self._ended_count & (ENDED_KEPT - 1)] = stream
        self._ended_count += 1

    cdef void _check_ended(self, uint32_t stream) except *:
        cdef int at
        for at in range(ENDED_KEPT):
            if self._ended[at] == stream:
                raise _Broken(STREAM_CLOSED, b"a stream that is closed")

    cdef void _refuse(self, uint32_t stream, uint32_t code) except *:
        """Resets it. Clients that have this done again and again are a nuisance, as if they did it themselves."""
        self._emit(_number_frame(RST_STREAM, stream, code))
        self._annoy(RESET_COST)

    cdef void _reset(self, Call call, uint32_t code) except *:
        self._lost(call)
        self._refuse(call._stream, code)

    cdef void _lost(self, Call call) except *:
        self._calls.pop(call._stream, None)
        self._blocked.pop(call, None)
        call.is_over = call._is_lost = True
        self._ready.append(call)

    cdef void _lose_all(self) except *:
        cdef Call call
        for call in list(self._calls.values()):
            self._lost(call)

    cdef void _break(self, uint32_t code, bytes reason) except *:
        self._emit(_goaway(self._highest, code, reason))
        self.is_over = True
        self._rest = b""
        self._block = None
        self._lose_all()

    cdef void _end_with(self, Call call, bytes block) except *:
        if not call._is_begun:
            block = call._first_block() + block
        self._emit(_header_frames(call._stream, block, END_STREAM))
        self._end(call)

    cdef void _end(self, Call call) except *:
        """All of the answer is on its way."""
        if call._has_ended:
            self._note_ended(call._stream)
        else:
            self._emit(_number_frame(RST_STREAM, call._stream, NO_ERROR))
        self._calls.pop(call._stream, None)
        self._blocked.pop(call, None)
        self._annoyance = max(self._annoyance - 1, 0)
        call._drop()
