"""Stage 4, expressions: the containers that an evaluation may change in place.

Rules: an update copies a container, unless an earlier update of the same evaluation made it and nothing but the update
can see it any more. The first is a fact of this table, which holds every container that updates made, so that no other
one can lie where such a one lay; what entered the evaluation, its constants and what it gave out before are never
here. The second is the count of references: those to a container in the table are the evaluation's own cells, forks
and values alone, so the count does not depend on who else holds what came in. Both are the same for equal evaluations,
and so is the cost.

What nobody but the table holds is let go of whenever the table has doubled.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

cdef extern from "Python.h":
    Py_ssize_t count_of_references "Py_REFCNT"(PyObject* value) noexcept

cdef struct Owned:
    # In the order they were made, which also decides the order in which they go.
    PyObject** made
    Py_ssize_t count, capacity
    # Open addressing by address: 1 + the index in `made`, or 0. The size is a power of two, twice the capacity.
    int* places

cdef Py_ssize_t OWNED_SIZE_MIN = 64
# A larger table is not kept for the next evaluation.
cdef Py_ssize_t OWNED_SIZE_KEPT_MAX = 4_096


cdef inline Py_ssize_t place_of(const Owned* own, PyObject* value) noexcept:
    """Where a container is noted, or would be."""
    cdef Py_ssize_t mask = 2 * own.capacity - 1
    cdef Py_ssize_t place = <Py_ssize_t>((<uintptr_t>value >> 4) * 0x9E3779B1u) & mask
    while own.places[place] and own.made[own.places[place] - 1] != value:
        place = (place + 1) & mask
    return place


cdef inline bint is_free(const Owned* own, PyObject* value, Py_ssize_t references) noexcept:
    """Whether an update may change a container to which its caller has that many references."""
    if own == NULL or own.count == 0 or count_of_references(value) != references + 1:
        return False
    return own.places[place_of(own, value)] != 0


cdef inline int note(Owned* own, object value) except -1:
    """Notes a container that an update has just made; NULL for an update after which no other one comes."""
    if own == NULL:
        return 0
    if own.count == own.capacity:
        sweep(own)
    Py_INCREF(value)
    own.places[place_of(own, <PyObject*>value)] = <int>own.count + 1
    own.made[own.count] = <PyObject*>value
    own.count += 1
    return 0


cdef int sweep(Owned* own) except -1:
    """Lets go of what nobody else holds, and makes room for as much again as is left."""
    cdef Py_ssize_t i
    cdef Py_ssize_t kept = 0
    for i in range(own.count):
        if count_of_references(own.made[i]) == 1:
            Py_DECREF(<object>own.made[i])
        else:
            own.made[kept] = own.made[i]
            kept += 1
    own.count = kept
    if 2 * kept >= own.capacity:
        resize_owned(own, max(OWNED_SIZE_MIN, 2 * own.capacity))
    memset(own.places, 0, 2 * own.capacity * sizeof(int))
    for i in range(kept):
        own.places[place_of(own, own.made[i])] = <int>i + 1
    return 0


cdef int resize_owned(Owned* own, Py_ssize_t capacity) except -1:
    cdef PyObject** made = <PyObject**>realloc(own.made, capacity * sizeof(PyObject*))
    cdef int* places
    if made == NULL:
        raise MemoryError
    own.made = made
    places = <int*>realloc(own.places, 2 * capacity * sizeof(int))
    if places == NULL:
        raise MemoryError
    own.places = places
    own.capacity = capacity
    return 0


cdef void forget_owned(Owned* own) noexcept:
    """Leaves the table empty."""
    cdef Py_ssize_t count = own.count
    if count == 0:
        return
    own.count = 0
    memset(own.places, 0, 2 * own.capacity * sizeof(int))
    while count > 0:
        count -= 1
        Py_DECREF(<object>own.made[count])
    if own.capacity > OWNED_SIZE_KEPT_MAX:
        free_owned(own)


cdef void free_owned(Owned* own) noexcept:
    free(own.made)
    free(own.places)
    memset(own, 0, sizeof(Owned))
