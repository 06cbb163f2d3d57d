"""Stage 1, service: one call: what has come of it, and what is on its way to its caller.

Rules: methods return at once, what they send travels on its own. A call that is over (answered, reset, its connection
gone) takes whatever is still said to it and does nothing. One message at a time is on its way out of a stream.
"""

from binascii import a2b_base64, b2a_base64
from collections import deque

cdef bytes CONTENT_TYPE = b"\x0f\x10\x10application/grpc"
"""Literal, by its number in the static table."""
cdef bytes STATUS_200 = b"\x88"
cdef bytes ANSWER_BLOCK = STATUS_200 + CONTENT_TYPE
cdef bytes OK_BLOCK = header(b"grpc-status", b"0")
cdef bytes NO_TABLE = b"\x20"
"""The table of what follows has no room (RFC 7541, section 6.3)."""
cdef Py_ssize_t PREFIX_SIZE = 5
"""Of a message: whether it is compressed, and its size."""
cdef double INFINITE_S = float("inf")
cdef dict UNIT_S = {72: 3600.0, 77: 60.0, 83: 1.0, 109: 1e-3, 117: 1e-6, 110: 1e-9}

INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 3, 4, 8, 12, 13


cdef class Call:
    """See _http2.pyi."""

    cdef readonly str path
    cdef readonly double timeout_s
    cdef public double deadline_s
    cdef public str client
    cdef public object principal, admitted, audit
    cdef public dict deadlines
    cdef readonly object fault
    cdef readonly bint is_malformed, is_over
    cdef readonly int http_status
    cdef Session _session
    cdef uint32_t _stream
    cdef list _headers
    cdef bytes _encoding
    cdef bint _is_new, _is_lost, _is_begun, _has_ended, _is_unpacking, _is_deaf, _is_head
    # What has come: messages nobody has asked for yet, and the one that is not whole.
    cdef object _messages, _partial, _waiting
    cdef object _receiver, _closed
    # What is to be sent: parts of messages, how much of the first has gone, and the trailers after them.
    cdef object _parts
    cdef Py_ssize_t _gone
    cdef bytes _trailers
    cdef object _sent
    cdef int64_t _window, _room, _taken
    # What is to come of a body that has said how long it is; else below zero.
    cdef int64_t _length

    def __init__(self, *_):
        raise TypeError("calls are made by a Session")

    @property
    def peer(self):
        return self._session.peer

    @property
    def certificate_names(self):
        return self._session.certificate_names

    @property
    def metadata(self):
        named = [(name, value) for name, value in self._headers if name[:1] != b":"]
        return tuple([(name.decode("latin-1"), _value_of(name, value)) for name, value in named])

    def header(self, bytes name):
        cdef tuple entry
        for entry in self._headers:
            if <bytes>entry[0] == name:
                return _value_of(name, <bytes>entry[1])
        return None

    def forget_metadata(self):
        # The list may be that of other calls as well.
        self._headers = [entry for entry in self._headers if <bytes>entry[0] == b"authorization"]

    def turn(self, on_call):
        if self._is_lost:
            self._lose()
        elif self._is_new:
            self._is_new = False
            if not self.is_over:
                on_call(self)
        else:
            self._deliver()

    @property
    def has_message(self):
        return self._messages is not None or (self._has_ended and not self._is_unpacking) or self.fault is not None

    def take(self):
        cdef object message = None
        if self._messages is not None:
            if type(self._messages) is bytes:
                message, self._messages = self._messages, None
            else:
                message = self._messages.popleft()
                if not self._messages:
                    self._messages = None
            if self._messages is None:
                self._session._give_room(self)
        return message

    def hear_no_more(self):
        self._is_deaf = True
        self._messages = self._partial = self._waiting = None

    def receive(self, received):
        self._receiver = received
        self._deliver()

    def watch(self, closed):
        self._closed = closed

    def reply(self, bytes message):
        cdef Session session = self._session
        cdef Py_ssize_t size = PyBytes_GET_SIZE(message) + PREFIX_SIZE
        if self.is_over:
            return
        if (
            self._is_begun
            or size > FRAME_SIZE_BYTES_MAX
            or size > self._window
            or size > session._window
            or session._is_full()
            or session._owes_resize
        ):
            self.send(message)
            self.finish()
            return
        self._window -= size
        session._window -= size
        session._emit(_whole_answer(self._stream, message))
        session._end(self)

    def send(self, bytes message):
        cdef unsigned char prefix[5]
        if self.is_over or self._trailers is not None:
            return None
        prefix[0] = 0
        _put_uint32(prefix + 1, <uint32_t>PyBytes_GET_SIZE(message))
        self._say(<bytes>(<char*>prefix)[:5], message)
        if self._parts is None:
            return None
        if self._sent is None:
            self._sent = self._session._new_future()
        return self._sent

    def finish(self, int code=0, bytes message=b"", trailers=None):
        cdef bytes block
        if self.is_over or self._trailers is not None:
            return
        if self.http_status and not self._is_begun and not self._is_head:
            self._say(message + b"\n")
        block = OK_BLOCK if not code and not trailers else _trailers_block(code, message, trailers)
        if self._parts is None:
            self._session._end_with(self, block)
        else:
            self._trailers = block

    def expire(self):
        cdef object closed = self._closed, sent = self._sent
        if not self.is_over:
            self._session._end_with(self, _trailers_block(DEADLINE_EXCEEDED, b"the deadline has passed", None))
            self._tell_gone(closed, sent)

    def unpacked(self, message, fault):
        cdef object waiting = self._waiting
        cdef int flag
        cdef bytes next_one
        self._is_unpacking = False
        self._waiting = None
        if fault is not None:
            self._fail(<int>fault[0], <str>fault[1])
        elif self.fault is None and not self.is_over and not self._is_deaf:
            self._put(message)
            while waiting and not self._is_deaf:
                flag, next_one = waiting.popleft()
                self._session._arrived(self, flag, next_one)
        self._session._tell(self)

    cdef void _fail(self, int code, str message) except *:
        """Nothing of what comes after this counts any more."""
        if self.fault is None:
            self.fault = (code, message)
        self._partial = self._waiting = None
        self._session._tell(self)

    cdef void _deliver(self) except *:
        """Tells whoever waits for a message."""
        cdef object receiver = self._receiver
        if receiver is not None and (self.has_message or self.is_over):
            self._receiver = None
            receiver(self.take())

    cdef void _say(self, bytes first, bytes second=b"") except *:
        """Sends of an answer's body, after its headers."""
        cdef bytes part
        if not self._is_begun:
            self._is_begun = True
            self._session._emit(_frame(HEADERS, END_HEADERS, self._stream, self._first_block()))
        if self._parts is None:
            self._parts = deque()
            self._session._note_waiting(CALL_SIZE_BYTES)
        for part in (first, second):
            if part:
                self._parts.append(part)
                self._session._note_waiting(PyBytes_GET_SIZE(part))
        self._session._pump_one(self)

    cdef bytes _first_block(self):
        """The headers of its answer."""
        cdef bytes block = _http_block(self.http_status) if self.http_status else ANSWER_BLOCK
        if self._session._owes_resize:
            # No table is used for answers, of whatever size: so it has none.
            self._session._owes_resize = False
            block = NO_TABLE + block
        return block

    cdef void _put(self, bytes message) except *:
        """Another message has come."""
        if self._messages is None:
            self._messages = message
        elif type(self._messages) is bytes:
            self._messages = deque((self._messages, message))
        else:
            self._messages.append(message)

    cdef void _lose(self) except *:
        """The caller is gone."""
        cdef object closed = self._closed, sent = self._sent
        self._drop()
        self._tell_gone(closed, sent)

    cdef void _tell_gone(self, closed, sent) except *:
        """Tells all who wait for something of it."""
        if sent is not None and not sent.done():
            sent.set_result(None)
        if closed is not None:
            closed(True)
        self._deliver()

    cdef void _drop(self) except *:
        """It is over: nothing of it is needed any more."""
        self.is_over = True
        if self._parts is not None:
            self._session._note_waiting(self._gone - sum([len(part) for part in self._parts]) - CALL_SIZE_BYTES)
        self._parts = self._trailers = self._partial = self._messages = self._waiting = None
        self._closed = self._sent = None
        if self.deadlines is not None:
            self.deadlines.pop(self, None)
            self.deadlines = None


cdef object _value_of(bytes name, bytes value):
    """As it is told: bytes where the name says so, or where it is no text."""
    if name.endswith(b"-bin"):
        return _from_base64(value)
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        return value


cdef bytes _from_base64(bytes value):
    """Several values of one name, or one; padded or not. Raises ValueError."""
    if b"," in value:
        return b",".join([_from_base64(part) for part in value.split(b",")])
    return a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=bool(value))


cdef double _timeout_s(bytes value) except -1:
    """How long a caller waits, in seconds. Raises ValueError."""
    if not 2 <= len(value) <= 9 or not value[:len(value) - 1].isdigit() or value[len(value) - 1] not in UNIT_S:
        raise ValueError
    return int(value[:len(value) - 1]) * <double>UNIT_S[value[len(value) - 1]]


cdef bytes _whole_answer(uint32_t stream, bytes message):
    """Headers, one message, and OK."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(message), begun = PyBytes_GET_SIZE(ANSWER_BLOCK)
    cdef Py_ssize_t ended = PyBytes_GET_SIZE(OK_BLOCK)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 3 * HEAD_SIZE + begun + PREFIX_SIZE + size + ended)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(made)
    _put_head(at, begun, HEADERS, END_HEADERS, stream)
    at += HEAD_SIZE
    memcpy(at, PyBytes_AS_STRING(ANSWER_BLOCK), begun)
    at += begun
    _put_head(at, PREFIX_SIZE + size, DATA, 0, stream)
    at += HEAD_SIZE
    at[0] = 0
    _put_uint32(at + 1, <uint32_t>size)
    at += PREFIX_SIZE
    memcpy(at, PyBytes_AS_STRING(message), size)
    at += size
    _put_head(at, ended, HEADERS, END_HEADERS | END_STREAM, stream)
    memcpy(at + HEAD_SIZE, PyBytes_AS_STRING(OK_BLOCK), ended)
    return made


cdef bytes _http_block(int status):
    """Headers for who does not speak gRPC; `:status` has number 8 in the static table."""
    cdef bytes block = b"\x08" + _text_of(b"%d" % status) + header(b"content-type", b"text/plain; charset=utf-8")
    return block + header(b"allow", b"POST") if status == 405 else block


cdef bytes _trailers_block(int code, bytes message, trailers):
    cdef list block = [header(b"grpc-status", b"%d" % code)]
    if message:
        block.append(header(b"grpc-message", _percent_encoded(message)))
    for name, value in trailers or ():
        if name.endswith("-bin"):
            value = b2a_base64(value, newline=False)
        block.append(header(name.encode("ascii"), value if isinstance(value, bytes) else value.encode("ascii")))
    return b"".join(block)


cdef bytes _percent_encoded(bytes message):
    cdef unsigned char byte
    return b"".join([
        b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in message
    ])
