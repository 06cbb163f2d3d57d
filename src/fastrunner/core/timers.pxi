"""Stage 4, walk: what comes at a time, the earliest first: a binary heap in two rows, of times and of what comes then.

Executions that wait are many, and an entry takes sixteen bytes here; as a tuple in a list it takes a hundred and forty.
What comes at the same time comes in any order.
"""

cimport cython

from cpython.mem cimport PyMem_Free, PyMem_Realloc

cdef enum:
    TIMERS_KEPT_MIN = 64


@cython.final
cdef class TimerHeap:
    """Things with a time; `_core.pyi` has the contract."""

    cdef long long *times
    cdef Py_ssize_t capacity
    cdef list items

    def __cinit__(self):
        self.items = []

    def __dealloc__(self):
        PyMem_Free(self.times)

    def __len__(self):
        return len(self.items)

    @property
    def first_ms(self):
        return self.times[0] if self.items else 0

    @property
    def first(self):
        return self.items[0] if self.items else None

    def push(self, long long due_ms, object item not None):
        cdef Py_ssize_t at = len(self.items)
        if at == self.capacity:
            self.resize(max(TIMERS_KEPT_MIN, 2 * at))
        self.items.append(item)
        self.times[at] = due_ms
        self.rise(at)

    def pop(self):
        cdef object item, last
        cdef Py_ssize_t count = len(self.items) - 1
        if count < 0:
            raise IndexError("there are no timers")
        cdef long long due_ms = self.times[0]
        last = self.items.pop()
        item = last
        if count:
            item = self.items[0]
            self.items[0] = last
            self.times[0] = self.times[count]
            self.sink(0)
        self.give_back(count)
        return due_ms, item

    def retain(self, object lives not None):
        cdef Py_ssize_t at
        cdef list kept = [at for at in range(len(self.items)) if lives(self.times[at], self.items[at])]
        cdef list items = [self.items[at] for at in kept]
        for at in range(len(kept)):
            self.times[at] = self.times[<Py_ssize_t> kept[at]]
        self.items = items
        for at in range(len(kept) // 2 - 1, -1, -1):
            self.sink(at)
        self.give_back(len(kept))

    cdef int rise(self, Py_ssize_t at) except -1:
        """Moves an entry up until the one above is not later."""
        cdef Py_ssize_t above
        while at:
            above = (at - 1) // 2
            if self.times[above] <= self.times[at]:
                break
            self.swap(at, above)
            at = above
        return 0

    cdef int sink(self, Py_ssize_t at) except -1:
        """Moves an entry down until none of the two below is earlier."""
        cdef Py_ssize_t count = len(self.items)
        cdef Py_ssize_t below = 2 * at + 1
        while below < count:
            if below + 1 < count and self.times[below + 1] < self.times[below]:
                below += 1
            if self.times[at] <= self.times[below]:
                break
            self.swap(at, below)
            at, below = below, 2 * below + 1
        return 0

    cdef int swap(self, Py_ssize_t one, Py_ssize_t other) except -1:
        self.times[one], self.times[other] = self.times[other], self.times[one]
        self.items[one], self.items[other] = self.items[other], self.items[one]
        return 0

    cdef int give_back(self, Py_ssize_t count) except -1:
        """Keeps no more memory than twice what is needed."""
        if self.capacity > TIMERS_KEPT_MIN and count < self.capacity // 4:
            self.resize(max(TIMERS_KEPT_MIN, 2 * count))
        return 0

    cdef int resize(self, Py_ssize_t capacity) except -1:
        cdef long long *times = <long long *> PyMem_Realloc(self.times, capacity * sizeof(long long))
        if times == NULL:
            raise MemoryError
        self.times, self.capacity = times, capacity
        return 0
