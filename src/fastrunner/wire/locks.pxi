"""Stage 1, routing: locks within shared memory, which survive whoever holds them.

A lock is a robust mutex: when its holder is killed, the kernel hands it on, and says so. Whoever takes it then looks
after what it guards, and the lock is as any other again; nobody has to learn who died.

Rules: between `acquire` and `release_lock` no Python runs, so that no signal handler and no finalizer wants the same
lock. Waiting is bounded, on the monotonic clock: a holder may have been stopped.
"""

from fastrunner.base import limits as _limits
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_mutexattr_t:
        pass
    enum: PTHREAD_PROCESS_SHARED
    enum: PTHREAD_MUTEX_ROBUST
    int pthread_mutexattr_init(pthread_mutexattr_t*)
    int pthread_mutexattr_setpshared(pthread_mutexattr_t*, int)
    int pthread_mutexattr_setrobust(pthread_mutexattr_t*, int)
    int pthread_mutexattr_destroy(pthread_mutexattr_t*)
    int pthread_mutex_init(pthread_mutex_t*, const pthread_mutexattr_t*)
    int pthread_mutex_trylock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_consistent(pthread_mutex_t*)

cdef extern from "<errno.h>" nogil:
    enum: EOWNERDEAD

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef double LOCK_WAIT_S_MAX = _limits.SHARED_LOCK_WAIT_S_MAX
# Attempts that only let others run: what a lock guards takes less than a microsecond.
cdef int YIELDS = 50
cdef long PAUSE_NS = 50_000

cdef enum Taken:
    NOT_TAKEN = -1
    TAKEN = 0
    # Its holder was killed: look after what it guards, then call `made_consistent`.
    TAKEN_OVER = 1


class TableBusy(Exception):
    """A lock was not to be had in time."""


cdef int make_locks(char* first, size_t distance_bytes, Py_ssize_t count) except -1:
    """Makes locks in new memory. Raises OSError."""
    cdef pthread_mutexattr_t attributes
    cdef int trouble = pthread_mutexattr_init(&attributes)
    cdef Py_ssize_t number
    trouble = trouble or pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED)
    trouble = trouble or pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST)
    for number in range(count):
        trouble = trouble or pthread_mutex_init(<pthread_mutex_t*>(first + number * distance_bytes), &attributes)
    pthread_mutexattr_destroy(&attributes)
    if trouble:
        raise OSError(trouble, f"robust locks cannot be made: {_os.strerror(trouble)}")
    return 0


cdef Taken acquire(pthread_mutex_t* lock) noexcept nogil:
    """Takes a lock, within the bound."""
    cdef int result = pthread_mutex_trylock(lock)
    if result == 0:
        return TAKEN
    if result != EOWNERDEAD:
        result = acquire_slowly(lock)
    if result == 0:
        return TAKEN
    return TAKEN_OVER if result == EOWNERDEAD else NOT_TAKEN


cdef double monotonic_s() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef int acquire_slowly(pthread_mutex_t* lock) noexcept nogil:
    cdef timespec pause
    cdef double until_s = monotonic_s() + LOCK_WAIT_S_MAX
    cdef int attempt = 0
    cdef int result
    pause.tv_sec = 0
    pause.tv_nsec = PAUSE_NS
    while True:
        result = pthread_mutex_trylock(lock)
        if result == 0 or result == EOWNERDEAD:
            return result
        attempt += 1
        if attempt <= YIELDS:
            sched_yield()
            continue
        if monotonic_s() > until_s:
            return result
        nanosleep(&pause, NULL)


cdef inline void made_consistent(pthread_mutex_t* lock) noexcept nogil:
    pthread_mutex_consistent(lock)


cdef inline void release_lock(pthread_mutex_t* lock) noexcept nogil:
    pthread_mutex_unlock(lock)


cdef int refuse_busy(str what) except -1:
    raise TableBusy(f"{what} is locked for longer than {LOCK_WAIT_S_MAX} s by a process that does not go on: try again")
