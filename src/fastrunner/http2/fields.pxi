"""Stage 1, service: what a header block may say (RFC 9113, sections 8.2 and 8.3): a request's headers, or trailers."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

cdef enum Said:
    MALFORMED
    REQUEST
    TRAILERS
    TOO_LARGE

cdef int PATH_BIT = 4
cdef dict PSEUDO_BIT = {b":method": 1, b":scheme": 2, b":path": PATH_BIT, b":authority": 8}
cdef int PSEUDO_BITS_REQUIRED = 7
cdef frozenset OF_CONNECTIONS = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)

# By byte: 1 where a name may not have it, 2 where a value may not.
cdef unsigned char _forbidden[256]


cdef void _fill_forbidden() noexcept:
    cdef int byte
    for byte in range(256):
        _forbidden[byte] = 1 if byte <= 0x20 or 0x41 <= byte <= 0x5A or byte >= 0x7F or byte == 0x3A else 0
    for byte in (0x00, 0x0A, 0x0D):
        _forbidden[byte] |= 2


_fill_forbidden()


cdef inline bint _is_free_of(bytes text, int forbidden) noexcept:
    cdef const unsigned char* at = <const unsigned char*>PyBytes_AS_STRING(text)
    cdef Py_ssize_t place
    for place in range(PyBytes_GET_SIZE(text)):
        if _forbidden[at[place]] & forbidden:
            return False
    return True


cdef int _kind_of(list headers) except -1:
    """What headers are together."""
    cdef tuple entry
    cdef bytes name, value
    cdef int seen = 0, bit
    cdef bint is_regular = False
    for entry in headers:
        name, value = <bytes>entry[0], <bytes>entry[1]
        if not _is_free_of(value, 2):
            return MALFORMED
        # What ends Python's bytes can be read where there are none.
        if PyBytes_AS_STRING(name)[0] == b":":
            bit = PSEUDO_BIT.get(name, 0)
            # Each once, ahead of all others.
            if not bit or seen & bit or is_regular or (bit == PATH_BIT and not value):
                return MALFORMED
            seen |= bit
            continue
        is_regular = True
        if not name or not _is_free_of(name, 1) or name in OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
            return MALFORMED
    if not seen:
        return TRAILERS
    return REQUEST if seen & PSEUDO_BITS_REQUIRED == PSEUDO_BITS_REQUIRED else MALFORMED
