"""Stage 1, routing: the placement table: in which shards the execution with an id may live.

It is a multiset of (hash of an id, shard), one for each execution, and never the truth, which each shard's unique index
keeps: a hash may be another id's, and an id may be of an execution that was never committed. What it promises is that
of all who claim an id one wins, and that whoever looks for an id that lives finds its shard.

    page 0: Head | at 4096: a bit for each shard: known | stripes: locks, shapes, counts | their regions
"""

cimport cython

cdef enum:
    KNOWN_AT = 4096
    SHARD_MAX = 65534
    # The first eight of 48 bits choose the stripe.
    STRIPE_SHIFT = 40
    KEY_SIZE_BYTES = 16
    SHARDS_FOUND_AT_FIRST = 16
    ADDED = -1
    NO_ROOM = -2

cdef uint64_t PLACEMENT_MAGIC = 0x3130_4354_4c50_5246
cdef str TABLE = "the placement table"


cdef int refuse_full(int number) except -1:
    raise TableFull(
        f"the placement table takes no more ids in stripe {number}, which has at most {1 << LOG2_MAX} places: "
        "let retention remove executions, or give the runner more memory"
    )


cdef int check_shard(int shard) except -1:
    if not 0 <= shard <= SHARD_MAX:
        raise ValueError(f"shard {shard} is none: shards are numbered from 0 to {SHARD_MAX}")
    return 0


cdef int claim_in(
    Held* held, uint64_t hash48, int shard, const int* excluded, Py_ssize_t count
) noexcept nogil:
    """The shard that has the hash and is not excluded; ADDED if it was added now, NO_ROOM if it could not be."""
    cdef uint64_t at = hash48 & held.mask
    cdef int64_t free_at = -1
    cdef uint64_t slot = held.slots[at]
    cdef Py_ssize_t place
    while slot:
        if slot == GONE:
            if free_at < 0:
                free_at = at
        elif slot >> 16 == hash48:
            place = 0
            while place < count and excluded[place] != shard_in(slot):
                place += 1
            if place == count:
                return shard_in(slot)
        at = (at + 1) & held.mask
        slot = held.slots[at]
    return ADDED if add(held, entry_of(hash48, shard), at if free_at < 0 else free_at) else NO_ROOM


cdef Py_ssize_t shards_of(Held* held, uint64_t hash48, int* shards, Py_ssize_t room) noexcept nogil:
    """Shards of the entries with a hash, each as often as it has entries; how many, which may be more than had room."""
    cdef uint64_t at = hash48 & held.mask
    cdef uint64_t slot = held.slots[at]
    cdef Py_ssize_t count = 0
    while slot:
        if slot >> 16 == hash48 and lives(slot):
            if count < room:
                shards[count] = shard_in(slot)
            count += 1
        at = (at + 1) & held.mask
        slot = held.slots[at]
    return count


@cython.final
cdef class Placement:
    """The table, mapped; `_wire.pyi` has the contract."""

    cdef char* base
    cdef size_t size_bytes
    cdef uint64_t[2] key
    cdef uint64_t hash_mask

    @staticmethod
    def create():
        cdef int descriptor = make_memory("fastrunner-placement", TABLE_SIZE_BYTES)
        cdef char* base = NULL
        cdef Head* head
        cdef int number
        try:
            base = map_memory(descriptor, TABLE_SIZE_BYTES)
            make_locks(base + STRIPES_AT, STRIPE_SIZE_BYTES, STRIPES)
            for number in range(STRIPES):
                stripe_at(base, number).shape = LOG2_MIN << 1
            head = <Head*>base
            head.size_bytes = TABLE_SIZE_BYTES
            store(&head.magic, PLACEMENT_MAGIC)
        except BaseException:
            _os.close(descriptor)
            raise
        finally:
            if base != NULL:
                munmap(base, TABLE_SIZE_BYTES)
        return descriptor

    def __init__(self, int descriptor, bytes key, *, int hash_bits=48):
        if len(key) != KEY_SIZE_BYTES:
            raise ValueError(f"the key has {len(key)} bytes: it must have {KEY_SIZE_BYTES}")
        if not 1 <= hash_bits <= 48:
            raise ValueError(f"hash_bits is {hash_bits}: it must be 1 to 48")
        if self.base != NULL:
            raise ValueError("the placement table is mapped already")
        self.key[0] = word_at(<char*>key, 8)
        self.key[1] = word_at(<char*>key + 8, 8)
        self.hash_mask = HASH_MAX >> (48 - hash_bits)
        self.base = map_made(descriptor, PLACEMENT_MAGIC, "placement table")
        self.size_bytes = TABLE_SIZE_BYTES

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size_bytes)

    cdef inline int check_open(self) except -1:
        if self.base == NULL:
            raise ValueError("the placement table is closed")
        return 0

    cdef inline int hash_into(self, str execution_id, uint64_t* hash48) except -1:
        self.check_open()
        hash_text(execution_id, self.key, hash48)
        hash48[0] = hash48[0] >> 16 & self.hash_mask
        return 0

    cdef inline int hold_for(self, uint64_t hash48, Held* held) except -1:
        if not hold(self.base, <int>(hash48 >> STRIPE_SHIFT), held):
            refuse_busy(TABLE)
        return 0

    def hash_of(self, str execution_id not None):
        cdef uint64_t hash48
        self.hash_into(execution_id, &hash48)
        return hash48

    def find(self, str execution_id not None):
        cdef Held held
        cdef uint64_t hash48
        cdef int[SHARDS_FOUND_AT_FIRST] some
        cdef Py_ssize_t count
        self.hash_into(execution_id, &hash48)
        self.hold_for(hash48, &held)
        count = shards_of(&held, hash48, some, SHARDS_FOUND_AT_FIRST)
        let_go(&held)
        if count == 0:
            return ()
        if count == 1:
            return (some[0],)
        if count <= SHARDS_FOUND_AT_FIRST:
            return tuple(sorted({some[place] for place in range(count)}))
        return self.find_many(hash48, count)

    def has_none(self, list messages not None):
        cdef Held held
        cdef uint64_t hash48
        cdef Py_ssize_t count
        cdef str execution_id
        for message in messages:
            execution_id = read_execution_id(message)
            if execution_id is None:
                return False
            self.hash_into(execution_id, &hash48)
            self.hold_for(hash48, &held)
            count = shards_of(&held, hash48, NULL, 0)
            let_go(&held)
            if count:
                return False
        return True

    cdef tuple find_many(self, uint64_t hash48, Py_ssize_t count):
        cdef Held held
        cdef Py_ssize_t room = 0
        cdef int* shards = NULL
        try:
            # They may become more between two looks.
            while count > room:
                room = 2 * count
                PyMem_Free(shards)
                shards = <int*>PyMem_Malloc(room * sizeof(int))
                if shards == NULL:
                    raise MemoryError
                self.hold_for(hash48, &held)
                count = shards_of(&held, hash48, shards, room)
                let_go(&held)
            return tuple(sorted({shards[place] for place in range(count)}))
        finally:
            PyMem_Free(shards)

    def claim(self, str execution_id not None, int shard, tuple excluded not None=()):
        cdef Held held
        cdef uint64_t hash48
        cdef int found
        cdef Py_ssize_t count = len(excluded)
        cdef Py_ssize_t place
        cdef int* others = NULL
        check_shard(shard)
        self.hash_into(execution_id, &hash48)
        try:
            if count:
                others = <int*>PyMem_Malloc(count * sizeof(int))
                if others == NULL:
                    raise MemoryError
                for place in range(count):
                    others[place] = excluded[place]
                    check_shard(others[place])
            self.hold_for(hash48, &held)
            found = claim_in(&held, hash48, shard, others, count)
            let_go(&held)
        finally:
            PyMem_Free(others)
        if found == NO_ROOM:
            refuse_full(<int>(hash48 >> STRIPE_SHIFT))
        return found

    def release(self, str execution_id not None, int shard):
        cdef Held held
        cdef uint64_t hash48
        cdef int64_t at
        check_shard(shard)
        self.hash_into(execution_id, &hash48)
        self.hold_for(hash48, &held)
        at = find_entry(&held, entry_of(hash48, shard))
        if at >= 0:
            take_away(&held, at)
            shrink(&held)
        let_go(&held)
        return at >= 0

    def settle(self, int shard, object execution_ids):
        cdef Words wanted
        cdef uint64_t hash48
        check_shard(shard)
        self.check_open()
        memset(&wanted, 0, sizeof(wanted))
        try:
            for execution_id in execution_ids:
                self.hash_into(execution_id, &hash48)
                push(&wanted, hash48)
            self.check_open()
            return settle_table(self.base, shard, &wanted)
        finally:
            PyMem_Free(wanted.items)

    def settle_hashes(self, int shard, bytes hashes not None):
        cdef Words wanted
        cdef const char* content = hashes
        cdef Py_ssize_t place
        cdef uint64_t hash48
        check_shard(shard)
        self.check_open()
        if len(hashes) % sizeof(uint64_t):
            raise ValueError(f"hashes has {len(hashes)} bytes: it must have 8 for each hash")
        memset(&wanted, 0, sizeof(wanted))
        try:
            for place in range(len(hashes) // <Py_ssize_t>sizeof(uint64_t)):
                hash48 = word_at(content + place * sizeof(uint64_t), sizeof(uint64_t))
                if hash48 > HASH_MAX:
                    raise ValueError(f"hashes[{place}] is {hash48}: hashes have 48 bits")
                push(&wanted, hash48)
            return settle_table(self.base, shard, &wanted)
        finally:
            PyMem_Free(wanted.items)

    def hashes(self, int shard):
        check_shard(shard)
        self.check_open()
        return b"".join([packed_stripe(self.base, number, shard) for number in range(STRIPES)])

    def set_known(self, int shard, bint known):
        cdef uint64_t bit = <uint64_t>1 << (shard & 63)
        check_shard(shard)
        self.check_open()
        cdef uint64_t* word = <uint64_t*>(self.base + KNOWN_AT) + (shard >> 6)
        if known:
            __atomic_fetch_or(word, bit, __ATOMIC_ACQ_REL)
        else:
            __atomic_fetch_and(word, ~bit, __ATOMIC_ACQ_REL)

    def unknown(self, int shard_count):
        cdef int shard
        self.check_open()
        if not 0 <= shard_count <= SHARD_MAX + 1:
            raise ValueError(f"shard_count is {shard_count}: it must be 0 to {SHARD_MAX + 1}")
        cdef const uint64_t* words = <uint64_t*>(self.base + KNOWN_AT)
        cdef list found = []
        for shard in range(shard_count):
            if not load(words + (shard >> 6)) >> (shard & 63) & 1:
                found.append(shard)
        return tuple(found)

    def usage(self):
        cdef Stripe* stripe
        cdef uint64_t live = 0
        cdef uint64_t size_bytes = 0
        cdef uint64_t takeovers = 0
        cdef int number
        self.check_open()
        for number in range(STRIPES):
            stripe = stripe_at(self.base, number)
            live += load(&stripe.live)
            size_bytes += region_size_bytes(load(&stripe.shape))
            takeovers += load(&stripe.takeovers)
        return live, size_bytes, takeovers

    def close(self):
        if self.base != NULL:
            munmap(self.base, self.size_bytes)
            self.base = NULL


def _die_after(long long stores):
    """Kills this process at one of its next stores; only a debug build can. Raises RuntimeError."""
    if not die_after(stores):
        raise RuntimeError("only a debug build dies where it is told to: `make debug`")
