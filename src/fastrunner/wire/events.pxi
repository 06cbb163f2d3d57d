"""Stage 6, events: where the events of a row lie: each a length-delimited field 1, as the core encoded it.

Rule: nothing here looks into an event. A row that is not such a sequence is damaged, and says where.
"""

cdef enum:
    EVENT_TAG = 1 << 3 | 2
    LENGTH_SHIFT_MAX = 28


cdef Py_ssize_t event_end(const unsigned char* row, Py_ssize_t size, Py_ssize_t at, Py_ssize_t* start) except -1:
    """Where the event whose tag is at `at` ends; `start` is told where its message starts. Raises ValueError."""
    cdef uint64_t length = 0
    cdef int shift = 0
    cdef unsigned char byte
    if row[at] != EVENT_TAG:
        raise ValueError(f"a row of events is damaged: no event starts at byte {at}")
    at += 1
    # Ends at the first byte without the continuation bit.
    while True:
        if at >= size or shift > LENGTH_SHIFT_MAX:
            raise ValueError(f"a row of events is damaged: the length before byte {at} is cut short")
        byte = row[at]
        at += 1
        length |= <uint64_t>(byte & 0x7f) << shift
        if byte < 0x80:
            break
        shift += 7
    if length > <uint64_t>(size - at):
        raise ValueError(f"a row of events is damaged: the event at byte {at} is cut short")
    start[0] = at
    return at + <Py_ssize_t>length


def frames(bytes messages not None):
    cdef const unsigned char* row = <const unsigned char*>PyBytes_AS_STRING(messages)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(messages)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t start = 0
    cdef list found = []
    while at < size:
        at = event_end(row, size, at, &start)
        found.append((start, at))
    return found


def split(bytes messages not None):
    cdef const unsigned char* row = <const unsigned char*>PyBytes_AS_STRING(messages)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(messages)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t start = 0
    cdef list found = []
    while at < size:
        at = event_end(row, size, at, &start)
        found.append(PyBytes_FromStringAndSize(<const char*>row + start, at - start))
    return found


def offset_after(bytes messages not None, Py_ssize_t count, Py_ssize_t size_bytes_max):
    cdef const unsigned char* row = <const unsigned char*>PyBytes_AS_STRING(messages)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(messages)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t end
    cdef Py_ssize_t taken = 0
    while at < size and taken != count:
        end = event_end(row, size, at, &start)
        if taken and end > size_bytes_max:
            break
        at = end
        taken += 1
    return taken, at
