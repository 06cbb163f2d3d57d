"""Stage 1, routing: memory that the processes of one runner share: made once, mapped by each, never resized.

It is a memfd, larger than ever needed: a page of it exists when something was written there, and no longer once it was
given back. So it grows after the fork without another descriptor, and nobody learns of it but by a word within it.

Rule: no descriptor is kept. A mapping outlives its descriptor, and a number that somebody closed may be another file,
in which to give pages back would be to destroy it.
"""

import fcntl as _fcntl
import os as _os

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EINTR, EINVAL, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.mman cimport (
    MADV_DONTDUMP, MADV_REMOVE, MAP_FAILED, MAP_NORESERVE, MAP_SHARED, PROT_READ, PROT_WRITE, madvise, mmap, munmap,
)

cdef extern from * nogil:
    """
    #include <signal.h>
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23
    #endif
    #ifdef FASTRUNNER_DEBUG
    static long long stores_left = 0;
    static inline void between_stores(void) {
        if (stores_left > 0 && --stores_left == 0) raise(SIGKILL);
    }
    static inline int die_after(long long count) { stores_left = count; return 1; }
    #else
    #define between_stores()
    static inline int die_after(long long count) { (void)count; return 0; }
    #endif
    """
    enum: MADV_POPULATE_WRITE
    int __ATOMIC_ACQUIRE
    int __ATOMIC_RELEASE
    int __ATOMIC_ACQ_REL
    uint64_t __atomic_load_n(const uint64_t*, int)
    void __atomic_store_n(uint64_t*, uint64_t, int)
    uint64_t __atomic_fetch_or(uint64_t*, uint64_t, int)
    uint64_t __atomic_fetch_and(uint64_t*, uint64_t, int)
    # Where a process may die; in a debug build it does, where a test wants it to.
    void between_stores()
    int die_after(long long count)


# The begin of any such memory.
ctypedef struct Head:
    uint64_t magic
    uint64_t size_bytes
    uint64_t count
    uint64_t key[2]


cdef inline uint64_t load(const uint64_t* word) noexcept nogil:
    return __atomic_load_n(word, __ATOMIC_ACQUIRE)


cdef inline void store(uint64_t* word, uint64_t value) noexcept nogil:
    """One store of eight bytes: whoever dies, dies before or after it."""
    between_stores()
    __atomic_store_n(word, value, __ATOMIC_RELEASE)
    between_stores()


cdef int make_memory(str name, size_t size_bytes) except -1:
    """A descriptor of memory full of zeros, which nobody can cut off below others' feet. Raises OSError."""
    cdef int descriptor = _os.memfd_create(name, _os.MFD_CLOEXEC | _os.MFD_ALLOW_SEALING)
    try:
        _os.ftruncate(descriptor, size_bytes)
        _fcntl.fcntl(
            descriptor, _fcntl.F_ADD_SEALS, _fcntl.F_SEAL_SHRINK | _fcntl.F_SEAL_GROW | _fcntl.F_SEAL_SEAL
        )
    except BaseException:
        _os.close(descriptor)
        raise
    return descriptor


cdef char* map_memory(int descriptor, size_t size_bytes) except NULL:
    """Maps it. Raises OSError."""
    cdef void* base = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0)
    if base == MAP_FAILED:
        PyErr_SetFromErrno(OSError)
    # A core dump of a worker is no place for it.
    madvise(base, size_bytes, MADV_DONTDUMP)
    return <char*>base


cdef char* map_made(int descriptor, uint64_t magic, str what) except NULL:
    """Maps what `make_memory` made and somebody filled in. Raises ValueError if it is something else, and OSError."""
    cdef object found = _os.fstat(descriptor).st_size
    cdef size_t size_bytes
    cdef char* base
    cdef Head* head
    if found >= <int>sizeof(Head):
        size_bytes = found
        base = map_memory(descriptor, size_bytes)
        head = <Head*>base
        if head.magic == magic and head.size_bytes == size_bytes:
            return base
        munmap(base, size_bytes)
    raise ValueError(f"descriptor {descriptor} is no {what}: pass what create() returned")


cdef bint take_pages(void* begin, size_t size_bytes) noexcept nogil:
    """Makes pages exist, so that a lack of memory is an answer here and no signal at the first store; False then."""
    while madvise(begin, size_bytes, MADV_POPULATE_WRITE) != 0:
        if errno == EINVAL:
            # A kernel before 5.14.
            memset(begin, 0, size_bytes)
            return True
        if errno != EINTR:
            return False
    return True


cdef void give_back_pages(void* begin, size_t size_bytes) noexcept nogil:
    """What lies there is zeros afterwards."""
    if madvise(begin, size_bytes, MADV_REMOVE) != 0:
        memset(begin, 0, size_bytes)
