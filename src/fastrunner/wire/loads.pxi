"""Stage 1, routing: what the workers of a runner tell each other about themselves, and the limits they share.

A cell is one double, stored at once and read by whoever wants; its worker alone writes it. A client's bucket is one
double, too: the moment at which it is full again. So there is nothing to repair when somebody is killed meanwhile.

    page 0: Head | a row of cells for each worker, 128 bytes | sets of buckets, each with a lock

Rule: when a set is full, the bucket that is or will be full first gives way. A client that has not been seen for long
has the fullest, and to forget a full one changes nothing.
"""

cdef enum:
    CELLS = 16
    ROWS_AT = 4096
    SETS = 256
    LOCK_SIZE_BYTES = 64
    WORKERS_MAX = 4096

cdef uint64_t LOADS_MAGIC = 0x3130_5344_4c5f_5246
cdef Py_ssize_t BUCKETS_PER_SET = max(1, _limits.CLIENTS_KNOWN_MAX // SETS)


# The bucket of one client.
ctypedef struct Bucket:
    uint64_t client
    double full_at_s


cdef size_t SET_SIZE_BYTES = (LOCK_SIZE_BYTES + BUCKETS_PER_SET * sizeof(Bucket) + 63) // 64 * 64


cdef inline size_t sets_at(uint64_t workers) noexcept nogil:
    return ROWS_AT + workers * CELLS * sizeof(double)


cdef double take_from(Bucket* buckets, uint64_t client, double cost_s, double burst_s, double now_s) noexcept nogil:
    """Takes from a client's bucket what takes `cost_s` to come; 0, or how long until that much is there."""
    cdef Bucket* bucket = buckets
    cdef Py_ssize_t place
    cdef double full_at_s
    for place in range(BUCKETS_PER_SET):
        if buckets[place].client == client:
            bucket = buckets + place
            break
        if buckets[place].full_at_s < bucket.full_at_s:
            bucket = buckets + place
    full_at_s = now_s
    if bucket.client == client and bucket.full_at_s > now_s:
        full_at_s = bucket.full_at_s
    # A microsecond of grace: who waits as long as it was told must not be told to wait for a rounding error.
    if full_at_s + cost_s - now_s > burst_s + 1e-6:
        return full_at_s + cost_s - now_s - burst_s
    if bucket.client != client:
        # Whoever dies in between leaves a full bucket.
        bucket.full_at_s = 0
        store(&bucket.client, client)
    bucket.full_at_s = full_at_s + cost_s
    return 0


@cython.final
cdef class Loads:
    """The cells and buckets, mapped; `_wire.pyi` has the contract."""

    cdef char* base
    cdef size_t size_bytes
    cdef Head* head

    @staticmethod
    def create(int workers):
        cdef size_t size_bytes
        cdef char* base = NULL
        cdef Head* head
        if not 1 <= workers <= WORKERS_MAX:
            raise ValueError(f"workers is {workers}: it must be 1 to {WORKERS_MAX}")
        size_bytes = sets_at(workers) + SETS * SET_SIZE_BYTES
        cdef int descriptor = make_memory("fastrunner-loads", size_bytes)
        try:
            base = map_memory(descriptor, size_bytes)
            make_locks(base + sets_at(workers), SET_SIZE_BYTES, SETS)
            head = <Head*>base
            head.size_bytes = size_bytes
            head.count = workers
            key = _os.urandom(KEY_SIZE_BYTES)
            memcpy(head.key, <char*>key, KEY_SIZE_BYTES)
            store(&head.magic, LOADS_MAGIC)
        except BaseException:
            _os.close(descriptor)
            raise
        finally:
            if base != NULL:
                munmap(base, size_bytes)
        return descriptor

    def __init__(self, int descriptor):
        if self.base != NULL:
            raise ValueError("the cells are mapped already")
        self.base = map_made(descriptor, LOADS_MAGIC, "memory of loads")
        self.head = <Head*>self.base
        self.size_bytes = self.head.size_bytes

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size_bytes)

    cdef double* cell_at(self, int worker, int cell) except NULL:
        if self.base == NULL:
            raise ValueError("the cells are closed")
        if not 0 <= worker < <int>self.head.count:
            raise ValueError(f"worker {worker} is none: there are {self.head.count}")
        if not 0 <= cell < CELLS:
            raise ValueError(f"cell {cell} is none: a worker has {CELLS}")
        return <double*>(self.base + ROWS_AT) + worker * CELLS + cell

    def set(self, int worker, int cell, double value):
        self.cell_at(worker, cell)[0] = value

    def get(self, int worker, int cell):
        return self.cell_at(worker, cell)[0]

    def total(self, int cell):
        cdef const double* cells = self.cell_at(0, cell)
        cdef double total = 0
        for worker in range(<Py_ssize_t>self.head.count):
            total += cells[worker * CELLS]
        return total

    def row(self, int cell):
        cdef const double* cells = self.cell_at(0, cell)
        return tuple([cells[worker * CELLS] for worker in range(<Py_ssize_t>self.head.count)])

    def take(self, str client not None, double count, double rate_per_s, double burst, double now_s):
        cdef uint64_t hashed
        cdef char* chosen
        cdef Taken taken
        cdef double wait_s
        self.cell_at(0, 0)
        if not (rate_per_s > 0 and 0 <= count <= burst):
            raise ValueError(
                f"count is {count}, burst {burst}, rate_per_s {rate_per_s}: "
                "count must be 0 to burst, and the rate more than 0, or that much would never be there"
            )
        hash_text(client, self.head.key, &hashed)
        # 0 is nobody.
        hashed = hashed or 1
        chosen = self.base + sets_at(self.head.count) + hashed % SETS * SET_SIZE_BYTES
        taken = acquire(<pthread_mutex_t*>chosen)
        if taken == NOT_TAKEN:
            refuse_busy("the bucket of the client")
        if taken == TAKEN_OVER:
            made_consistent(<pthread_mutex_t*>chosen)
        wait_s = take_from(
            <Bucket*>(chosen + LOCK_SIZE_BYTES), hashed, count / rate_per_s, burst / rate_per_s, now_s
        )
        release_lock(<pthread_mutex_t*>chosen)
        return wait_s

    def close(self):
        if self.base != NULL:
            munmap(self.base, self.size_bytes)
            self.base = NULL
            self.head = NULL
