"""Stage 4, expressions: the numbers of results as they leave an evaluation.

Rules: an evaluation may come by nan, infinities and a zero below zero, which JSON does not have; they leave as null, as
the largest double with their sign, and as 0. Only results of evaluations that met such a number are looked through,
which is charged by their size; what they hold is then copied, for it may be part of the input. Values may be deeper
than the C stack allows and hold one another many times: they are gone through by a loop, each once.
"""

from cpython.float cimport PyFloat_AS_DOUBLE
from libc.float cimport DBL_MAX
from libc.math cimport isnan


cdef object plain(object value):
    """The value without numbers that JSON does not have."""
    cdef dict copies
    cdef list waiting
    if type(value) is not list and type(value) is not dict:
        return plain_number(value) if type(value) is float else value
    copies = {}
    waiting = []
    result = plain_copy(value, copies, waiting)
    while waiting:
        make_plain(waiting.pop(), copies, waiting)
    return result


cdef object plain_number(object value):
    cdef double number = PyFloat_AS_DOUBLE(value)
    if isnan(number):
        return None
    if number > DBL_MAX:
        return DBL_MAX
    if number < -DBL_MAX:
        return -DBL_MAX
    return 0 if number == 0.0 else value


cdef object plain_copy(object value, dict copies, list waiting):
    """The copy of a container, which is made plain later; what it holds is still the container's."""
    cdef object copy = copies.get(id(value))
    if copy is None:
        charge(4 + 2 * len(value))
        copy = value.copy()
        copies[id(value)] = copy
        waiting.append(copy)
    return copy


cdef int make_plain(object container, dict copies, list waiting) except -1:
    keys = range(len(<list>container)) if type(container) is list else list(<dict>container)
    for key in keys:
        value = container[key]
        if type(value) is float:
            container[key] = plain_number(value)
        elif type(value) is list or type(value) is dict:
            container[key] = plain_copy(value, copies, waiting)
    return 0
