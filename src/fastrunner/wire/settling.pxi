"""Stage 1, routing: all entries of one shard at once: made to be exactly some ids', and read.

A stripe at a time, each under its lock for as long as its part takes, so that others go on meanwhile. An entry that is
right is never touched: whoever looks for it finds it at any moment.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdlib cimport free, malloc, qsort


# Numbers in memory that grows.
ctypedef struct Words:
    uint64_t* items
    Py_ssize_t count
    Py_ssize_t capacity


# What a settlement did.
ctypedef struct Settled:
    Py_ssize_t added
    Py_ssize_t removed
    bint is_full


cdef int push(Words* words, uint64_t word) except -1:
    cdef Py_ssize_t capacity
    cdef void* items
    if words.count == words.capacity:
        capacity = max(1024, 2 * words.capacity)
        items = PyMem_Realloc(words.items, capacity * sizeof(uint64_t))
        if items == NULL:
            raise MemoryError
        words.items = <uint64_t*>items
        words.capacity = capacity
    words.items[words.count] = word
    words.count += 1
    return 0


cdef int compared(const void* left, const void* right) noexcept nogil:
    cdef uint64_t first = (<uint64_t*>left)[0]
    cdef uint64_t second = (<uint64_t*>right)[0]
    return (first > second) - (first < second)


cdef Py_ssize_t lower_bound(const uint64_t* items, Py_ssize_t count, uint64_t word) noexcept nogil:
    """How many of the ascending numbers are less."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = count
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) >> 1
        if items[middle] < word:
            low = middle + 1
        else:
            high = middle
    return low


cdef Settled settle_stripe(
    Held* held, int shard, const uint64_t* wanted, Py_ssize_t count, char* found
) noexcept nogil:
    """Makes a shard's entries of a stripe exactly the wanted hashes, which ascend; `found`: zeros, one for each."""
    cdef Settled settled
    cdef uint64_t at, slot
    cdef Py_ssize_t place
    settled.added = settled.removed = settled.is_full = 0
    # What was never used is not looked at: even that would take memory.
    for at in range(held.mask + 1 if held.stripe.live else 0):
        slot = held.slots[at]
        if shard_in(slot) != shard:
            continue
        place = lower_bound(wanted, count, slot >> 16)
        while place < count and found[place] and wanted[place] == slot >> 16:
            place += 1
        if place < count and wanted[place] == slot >> 16:
            found[place] = 1
        else:
            take_away(held, at)
            settled.removed += 1
    for place in range(count):
        if not found[place]:
            if not add(held, entry_of(wanted[place], shard), -1):
                settled.is_full = True
                return settled
            settled.added += 1
    shrink(held)
    return settled


cdef tuple settle_table(char* base, int shard, Words* wanted):
    """Makes a shard's entries exactly the wanted hashes; (added, removed). Raises TableBusy, TableFull."""
    cdef Held held
    cdef Settled settled
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t last, added = 0, removed = 0
    cdef int number
    qsort(wanted.items, wanted.count, sizeof(uint64_t), compared)
    cdef char* found = <char*>PyMem_Malloc(wanted.count + 1)
    if found == NULL:
        raise MemoryError
    memset(found, 0, wanted.count)
    try:
        for number in range(STRIPES):
            last = first + lower_bound(
                wanted.items + first, wanted.count - first, <uint64_t>(number + 1) << STRIPE_SHIFT
            )
            if not hold(base, number, &held):
                refuse_busy(TABLE)
            settled = settle_stripe(&held, shard, wanted.items + first, last - first, found + first)
            let_go(&held)
            if settled.is_full:
                refuse_full(number)
            added += settled.added
            removed += settled.removed
            first = last
    finally:
        PyMem_Free(found)
    return added, removed


cdef bytes packed_stripe(char* base, int number, int shard):
    """A shard's hashes of one stripe, ascending, little-endian. Raises TableBusy."""
    cdef Held held
    cdef uint64_t at
    cdef Py_ssize_t count = 0
    if not hold(base, number, &held):
        refuse_busy(TABLE)
    # Not Python's: under the lock, nothing of Python runs.
    cdef uint64_t* hashes = <uint64_t*>malloc((held.stripe.live + 1) * sizeof(uint64_t))
    if hashes != NULL:
        for at in range(held.mask + 1 if held.stripe.live else 0):
            if shard_in(held.slots[at]) == shard:
                hashes[count] = held.slots[at] >> 16
                count += 1
    let_go(&held)
    if hashes == NULL:
        raise MemoryError
    qsort(hashes, count, sizeof(uint64_t), compared)
    for place in range(count):
        hashes[place] = htole64(hashes[place])
    try:
        return (<char*>hashes)[:count * sizeof(uint64_t)]
    finally:
        free(hashes)
