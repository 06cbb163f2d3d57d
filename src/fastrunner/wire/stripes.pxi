"""Stage 1, routing: a stripe of the placement table: an open-addressing region of eight-byte slots below a lock.

    slot: 0: empty | GONE: was taken away | 48 bits of hash, 16 bits of shard + 1, which are never 0

A stripe has a range of addresses to itself, with a place for each capacity and two sides of each: to grow, to shrink
and to drop what was taken away is to copy what lives to another place, and to store one word, the shape. (If stripes
took places from one range, they would share an allocator, and what somebody took and died before using would be lost.)

Rules:
- Whoever holds the lock may be killed between any two stores, so each of them leaves a valid stripe: the counts are
  counted again by the next holder, and whatever lies outside the region that the shape names is garbage.
- A slot that was in use is empty again only if the one behind it is; no probe for another entry can end early there.
"""


cdef enum:
    STRIPES = 256
    # Regions begin and end with pages.
    LOG2_MIN = 9
    STRIPES_AT = 16384
    STRIPE_SIZE_BYTES = 128
    ARENAS_AT = 65536

cdef uint64_t GONE = 0x10000
cdef uint64_t HASH_MAX = (<uint64_t>1 << 48) - 1
cdef int LOG2_MAX = _limits.PLACEMENT_STRIPE_LOG2_MAX
cdef size_t ARENA_SIZE_BYTES = <size_t>8 << (LOG2_MAX + 2)
cdef size_t TABLE_SIZE_BYTES = ARENAS_AT + STRIPES * ARENA_SIZE_BYTES


# What lies in the shared memory of each stripe.
ctypedef struct Stripe:
    pthread_mutex_t lock
    uint64_t shape
    uint64_t live
    uint64_t used
    uint64_t takeovers


# A stripe whose lock this process holds.
ctypedef struct Held:
    Stripe* stripe
    char* arena
    uint64_t* slots
    uint64_t mask


class TableFull(Exception):
    """The placement table takes no more ids."""


cdef inline uint64_t entry_of(uint64_t hash48, int shard) noexcept nogil:
    return hash48 << 16 | <uint64_t>(shard + 1)


cdef inline bint lives(uint64_t slot) noexcept nogil:
    return slot & 0xffff != 0


cdef inline int shard_in(uint64_t slot) noexcept nogil:
    return <int>(slot & 0xffff) - 1


cdef inline uint64_t region_size_bytes(uint64_t shape) noexcept nogil:
    return <uint64_t>8 << (shape >> 1)


cdef inline uint64_t* region_at(char* arena, uint64_t shape) noexcept nogil:
    """Where the region of a shape lies: shape is twice the binary logarithm of the capacity, plus the side."""
    cdef uint64_t capacity = <uint64_t>1 << (shape >> 1)
    return <uint64_t*>arena + 2 * capacity + (shape & 1) * capacity


cdef inline Stripe* stripe_at(char* base, int number) noexcept nogil:
    return <Stripe*>(base + STRIPES_AT + number * STRIPE_SIZE_BYTES)


cdef inline void look_at_region(Held* held) noexcept nogil:
    cdef uint64_t shape = load(&held.stripe.shape)
    held.slots = region_at(held.arena, shape)
    held.mask = (<uint64_t>1 << (shape >> 1)) - 1


# --- locking ---


cdef bint hold(char* base, int number, Held* held) noexcept nogil:
    """Takes the lock of a stripe; False if it is not to be had."""
    cdef Taken taken
    held.stripe = stripe_at(base, number)
    held.arena = base + ARENAS_AT + number * ARENA_SIZE_BYTES
    taken = acquire(&held.stripe.lock)
    if taken == NOT_TAKEN:
        return False
    look_at_region(held)
    if taken == TAKEN_OVER:
        repair(held)
        made_consistent(&held.stripe.lock)
    between_stores()
    return True


cdef inline void let_go(Held* held) noexcept nogil:
    between_stores()
    release_lock(&held.stripe.lock)


cdef void repair(Held* held) noexcept nogil:
    """Makes a stripe whose holder was killed as good as any."""
    cdef uint64_t size_bytes = region_size_bytes(held.stripe.shape)
    cdef char* region = <char*>held.slots
    give_back_pages(held.arena, region - held.arena)
    give_back_pages(region + size_bytes, held.arena + ARENA_SIZE_BYTES - region - size_bytes)
    held.stripe.takeovers += 1
    count_again(held)


cdef void count_again(Held* held) noexcept nogil:
    cdef uint64_t live = 0
    cdef uint64_t used = 0
    cdef uint64_t at, slot
    for at in range(held.mask + 1):
        slot = held.slots[at]
        used += slot != 0
        live += lives(slot)
    store(&held.stripe.live, live)
    store(&held.stripe.used, used)


# --- room ---


cdef bint reshape(Held* held) noexcept nogil:
    """Moves a stripe to a region that fits what lives in it; False if that is no better, or there is no memory."""
    cdef uint64_t old_shape = held.stripe.shape
    cdef uint64_t* old = held.slots
    cdef uint64_t live = held.stripe.live
    cdef uint64_t log2 = LOG2_MIN
    cdef uint64_t shape
    # At most three eighths full: as much comes before it grows as lives.
    while log2 < <uint64_t>LOG2_MAX and 8 * live > <uint64_t>3 << log2:
        log2 += 1
    if log2 == old_shape >> 1 and 8 * (held.stripe.used - live) < held.mask + 1:
        return False
    shape = log2 << 1
    if log2 == old_shape >> 1:
        shape |= (old_shape & 1) ^ 1
    if not take_pages(region_at(held.arena, shape), region_size_bytes(shape)):
        give_back_pages(region_at(held.arena, shape), region_size_bytes(shape))
        return False
    copy_living(held, region_at(held.arena, shape), (<uint64_t>1 << log2) - 1)
    store(&held.stripe.shape, shape)
    look_at_region(held)
    give_back_pages(old, region_size_bytes(old_shape))
    store(&held.stripe.used, live)
    return True


cdef void copy_living(Held* held, uint64_t* slots, uint64_t mask) noexcept nogil:
    cdef uint64_t at, slot, to
    for at in range(held.mask + 1):
        slot = held.slots[at]
        if lives(slot):
            to = slot >> 16 & mask
            while slots[to]:
                to = (to + 1) & mask
            store(slots + to, slot)


cdef bint add(Held* held, uint64_t entry, int64_t at) noexcept nogil:
    """Adds an entry; `at`: a slot to which a probe for its hash leads, -1: look for one. False if there is no room."""
    cdef uint64_t capacity = held.mask + 1
    if at < 0:
        at = free_slot(held, entry)
    if held.slots[at] == 0:
        if 4 * (held.stripe.used + 1) > 3 * capacity:
            if reshape(held):
                at = free_slot(held, entry)
            elif 16 * (held.stripe.used + 1) > 15 * capacity:
                return False
        if held.slots[at] == 0:
            store(&held.stripe.used, held.stripe.used + 1)
    store(held.slots + at, entry)
    store(&held.stripe.live, held.stripe.live + 1)
    return True


cdef int64_t free_slot(Held* held, uint64_t entry) noexcept nogil:
    """Where an entry may be stored. There is always one: slots that are not empty are at most fifteen of sixteen."""
    cdef uint64_t at = entry >> 16 & held.mask
    while lives(held.slots[at]):
        at = (at + 1) & held.mask
    return at


cdef int64_t find_entry(Held* held, uint64_t entry) noexcept nogil:
    """The slot of an entry, -1 if there is none."""
    cdef uint64_t at = entry >> 16 & held.mask
    cdef uint64_t slot = held.slots[at]
    while slot:
        if slot == entry:
            return at
        at = (at + 1) & held.mask
        slot = held.slots[at]
    return -1


cdef void take_away(Held* held, uint64_t at) noexcept nogil:
    """Takes the entry of a slot away."""
    cdef uint64_t emptied = 0
    if held.slots[(at + 1) & held.mask]:
        store(held.slots + at, GONE)
    else:
        # Nothing lies behind it, so nothing is missed when a probe ends here, nor at what was taken away before it.
        while True:
            store(held.slots + at, 0)
            emptied += 1
            at = (at - 1) & held.mask
            if held.slots[at] != GONE:
                break
    store(&held.stripe.live, held.stripe.live - 1)
    store(&held.stripe.used, held.stripe.used - emptied)


cdef void shrink(Held* held) noexcept nogil:
    """Gives memory back when little of it is in use."""
    if held.mask + 1 > 1 << LOG2_MIN and 16 * held.stripe.live < held.mask + 1:
        reshape(held)
