"""Stage 4, walk: what became of the tasks of a turn, for the metrics: kind, outcome, duration.

Rules: a turn carries a record for each task that ended and each expression whose budget ended, so that the driver
counts them when the turn's commit has landed. None of it is part of an execution's state.
"""

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memcpy, memset

cdef enum:
    TALLY_COMPLETED
    TALLY_FAILED
    TALLY_OUTCOMES

    TALLY_OVER_BUDGET = 15
    TALLY_KINDS = 64
    # Records kept for the next turn; more are given back.
    TALLY_RECORDS_KEPT_MAX = 1024

TALLIED_OUTCOMES = ("completed", "failed")


@cython.final
cdef class TallyRecords:
    """What became of the tasks of one turn: records of duration in milliseconds << 10 | kind << 4 | outcome."""

    def __dealloc__(self):
        PyMem_Free(self.records)

    cdef int add(self, int kind, int outcome, long long duration_ms) except -1:
        cdef long long *grown
        if self.count == self.capacity:
            grown = <long long *> PyMem_Realloc(self.records, (2 * self.capacity + 64) * sizeof(long long))
            if grown == NULL:
                raise MemoryError
            self.records, self.capacity = grown, 2 * self.capacity + 64
        self.records[self.count] = duration_ms << 10 | kind << 4 | outcome
        self.count += 1
        return 0

    cdef bytes take(self):
        """The records so far; there are none afterwards."""
        cdef bytes taken = b""
        if self.count:
            taken = PyBytes_FromStringAndSize(<char *> self.records, self.count * sizeof(long long))
            self.count = 0
        if self.capacity > TALLY_RECORDS_KEPT_MAX:
            PyMem_Free(self.records)
            self.records = NULL
            self.capacity = 0
        return taken


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
        return 1 + TALLY_KINDS * self.cells_per_kind

    def add(self, bytes tally not None):
        cdef Py_ssize_t count = PyBytes_GET_SIZE(tally) // sizeof(long long)
        cdef const char *records = PyBytes_AS_STRING(tally)
        cdef long long record, duration_ms
        cdef long long *cells
        cdef Py_ssize_t index, bucket, low, high
        for index in range(count):
            memcpy(&record, records + index * sizeof(long long), sizeof(long long))
            if record & 15 == TALLY_OVER_BUDGET:
                self.cells[0] += 1
                continue
            if record & 15 >= TALLY_OUTCOMES:
                raise ValueError("not a tally of a turn")
            cells = self.cells + 1 + (record >> 4 & (TALLY_KINDS - 1)) * self.cells_per_kind
            duration_ms = record >> 10
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
