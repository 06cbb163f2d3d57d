"""Stage 4, walk: what became of the tasks of a turn, for the metrics: kind, outcome, duration.

Rules: a turn carries a record for each task that ended and each expression whose budget ended, so that the driver
counts them when the turn's commit has landed. None of it is part of an execution's state.
"""

cimport cython

from libc.string cimport memset

cdef enum:
    TALLY_COMPLETED
    TALLY_FAILED
    TALLY_OUTCOMES

    TALLY_OVER_BUDGET = 15
    TALLY_KINDS = KIND_CALL_HTTP + 1

TALLIED_KINDS = ("set", "do", "switch", "for", "fork", "try", "raise", "wait", "call_http")
TALLIED_OUTCOMES = ("completed", "failed")

# Records of the turn under way: duration in milliseconds << 8 | kind << 4 | outcome.
cdef long long *tally_records = NULL
cdef Py_ssize_t tally_count = 0
cdef Py_ssize_t tally_capacity = 0


cdef int tally(int kind, int outcome, long long duration_ms) except -1:
    global tally_records, tally_count, tally_capacity
    cdef long long *grown
    if tally_count == tally_capacity:
        grown = <long long *> PyMem_Realloc(tally_records, (2 * tally_capacity + 64) * sizeof(long long))
        if grown == NULL:
            raise MemoryError
        tally_records, tally_capacity = grown, 2 * tally_capacity + 64
    tally_records[tally_count] = duration_ms << 8 | kind << 4 | outcome
    tally_count += 1
    return 0


cdef void begin_tally() noexcept:
    global tally_count
    tally_count = 0


cdef bytes take_tally():
    """The records since `begin_tally`."""
    if tally_count == 0:
        return b""
    return PyBytes_FromStringAndSize(<char *> tally_records, tally_count * sizeof(long long))


@cython.final
cdef class TaskTally:
    """Sums of tallies; `_core.pyi` has the contract."""

    cdef long long *bounds_ms
    cdef long long *cells
    cdef Py_ssize_t buckets
    cdef readonly Py_ssize_t cells_per_kind

    def __cinit__(self, object bounds_ms not None):
        cdef Py_ssize_t index
        self.buckets = len(bounds_ms) + 1
        self.cells_per_kind = TALLY_OUTCOMES + self.buckets + 1
        self.bounds_ms = <long long *> PyMem_Malloc(self.buckets * sizeof(long long))
        self.cells = <long long *> PyMem_Malloc(self.size() * sizeof(long long))
        if self.bounds_ms == NULL or self.cells == NULL:
            raise MemoryError
        memset(self.cells, 0, self.size() * sizeof(long long))
        for index in range(self.buckets - 1):
            self.bounds_ms[index] = bounds_ms[index]

    def __dealloc__(self):
        PyMem_Free(self.bounds_ms)
        PyMem_Free(self.cells)

    cdef Py_ssize_t size(self) noexcept:
        return TALLY_KINDS * self.cells_per_kind + 1

    def add(self, bytes tally not None):
        cdef Py_ssize_t count = PyBytes_GET_SIZE(tally) // sizeof(long long)
        cdef const char *records = PyBytes_AS_STRING(tally)
        cdef long long record, duration_ms
        cdef long long *cells
        cdef Py_ssize_t index, bucket, low, high
        for index in range(count):
            memcpy(&record, records + index * sizeof(long long), sizeof(long long))
            if record & 15 == TALLY_OVER_BUDGET:
                self.cells[self.size() - 1] += 1
                continue
            if record >> 4 & 15 >= TALLY_KINDS or record & 15 >= TALLY_OUTCOMES:
                raise ValueError("not a tally of a turn")
            cells = self.cells + (record >> 4 & 15) * self.cells_per_kind
            duration_ms = record >> 8
            low, high = 0, self.buckets - 1
            while low < high:
                bucket = (low + high) // 2
                if duration_ms <= self.bounds_ms[bucket]:
                    high = bucket
                else:
                    low = bucket + 1
            cells[record & 15] += 1
            cells[TALLY_OUTCOMES + low] += 1
            cells[self.cells_per_kind - 1] += duration_ms

    def take(self):
        cdef Py_ssize_t index
        cdef list taken = []
        for index in range(self.size()):
            if self.cells[index]:
                taken.append((index, self.cells[index]))
                self.cells[index] = 0
        return taken
