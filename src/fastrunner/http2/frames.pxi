"""Stage 1, service: frames (RFC 9113, section 4 and 6): their kinds, flags and codes, and how they are written."""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from fastrunner.base import limits as _limits

cdef enum Kind:
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9

cdef enum Flag:
    ACK = 0x1
    END_STREAM = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    HAS_PRIORITY = 0x20

cdef enum Code:
    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB

cdef enum Setting:
    HEADER_TABLE_SIZE = 0x1
    MAX_CONCURRENT_STREAMS = 0x3
    ENABLE_PUSH = 0x2
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6

cdef bytes PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
cdef Py_ssize_t PREFACE_SIZE = 24
cdef Py_ssize_t HEAD_SIZE = 9
"""Of a frame."""
cdef Py_ssize_t FRAME_SIZE_BYTES_MAX = 16_384
"""Of a frame's content, both ways: what everybody takes unasked."""
cdef int64_t WINDOW_SIZE_BYTES = 65_535
"""Of a connection, and of a stream, until somebody says otherwise."""
cdef int64_t WINDOW_SIZE_BYTES_MAX = 0x7FFFFFFF
cdef uint32_t LAST_STREAM = 0x7FFFFFFF


cdef inline uint32_t _uint32(const unsigned char* at) noexcept:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]


cdef inline void _put_uint32(unsigned char* at, uint32_t number) noexcept:
    at[0] = <unsigned char>(number >> 24)
    at[1] = <unsigned char>(number >> 16)
    at[2] = <unsigned char>(number >> 8)
    at[3] = <unsigned char>number


cdef inline void _put_head(unsigned char* at, Py_ssize_t size, int kind, int flags, uint32_t stream) noexcept:
    at[0] = <unsigned char>(size >> 16)
    at[1] = <unsigned char>(size >> 8)
    at[2] = <unsigned char>size
    at[3] = <unsigned char>kind
    at[4] = <unsigned char>flags
    _put_uint32(at + 5, stream)


cdef bytes _frame(int kind, int flags, uint32_t stream, bytes content):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(content)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, HEAD_SIZE + size)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(made)
    _put_head(at, size, kind, flags, stream)
    memcpy(at + HEAD_SIZE, PyBytes_AS_STRING(content), size)
    return made


cdef bytes _number_frame(int kind, uint32_t stream, uint32_t number):
    """A frame whose content is one number: a window's increment, or why a stream is reset."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, HEAD_SIZE + 4)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(made)
    _put_head(at, 4, kind, 0, stream)
    _put_uint32(at + HEAD_SIZE, number)
    return made


cdef bytes _header_frames(uint32_t stream, bytes block, int flags):
    """A header block as HEADERS and as many CONTINUATION as it takes."""
    cdef list made = []
    cdef Py_ssize_t at = 0, size = PyBytes_GET_SIZE(block), end
    cdef int kind = HEADERS
    while True:
        end = min(at + FRAME_SIZE_BYTES_MAX, size)
        if end == size:
            flags |= END_HEADERS
        made.append(_frame(kind, flags, stream, block[at:end]))
        if end == size:
            return made[0] if len(made) == 1 else b"".join(made)
        at, kind, flags = end, CONTINUATION, 0


cdef bytes _settings_frame(list pairs):
    cdef bytes content = b"".join([number.to_bytes(2, "big") + value.to_bytes(4, "big") for number, value in pairs])
    return _frame(SETTINGS, 0, 0, content)


cdef bytes _goaway(uint32_t last, uint32_t code, bytes reason):
    return _frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + reason)
