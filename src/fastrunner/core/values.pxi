"""Support of stage 4, walk: values that enter a walk are made plain JSON, once, at the door.

Everything a walk keeps must survive a snapshot unchanged, or a restored execution would go another way. So results of
expressions and effects are checked as they come in: NaN becomes null and an infinity the largest double, as jq prints
them; integral numbers below 2^63 become integers, so that they are written as plain ones; no integer beyond 64 bits
(they become doubles, as in jq), no lone surrogates (U+FFFD, as jq reads them), no nesting and no size
beyond the execution's bounds: a value may hold another one many times at no cost, which a loop that doubles its data
would turn into gigabytes of text. A value that is clean already is passed on as the same object; nothing is ever
modified in place.
"""

from cpython.dict cimport PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject
from libc.float cimport DBL_MAX
from libc.math cimport floor, isfinite, isnan

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    bint PyUnicode_IS_ASCII(object text)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef object UINT64_MAX = (1 << 64) - 1
cdef double PLAIN_MAX = 9223372036854775808.0
# The version of the behaviour from which on numbers are plain.
cdef int PLAIN_NUMBERS_SINCE = 2


class Unkept(ValueError):
    """A value is nested deeper, or larger, than a walk keeps."""


cdef inline bint is_true(object value):
    """Truth as in jq: everything but null and false."""
    return value is not None and value is not False


cdef inline void allow_data(Measure* measure) noexcept:
    """Another value is going to be checked, in parts."""
    measure.size_spent += measure.size_bytes_max - max(measure.size_left, 0)
    measure.size_left = measure.size_bytes_max


cdef inline long long take_measured(Measure* measure) noexcept:
    """Bytes checked since this was asked last."""
    cdef long long spent
    allow_data(measure)
    spent = measure.size_spent
    measure.size_spent = 0
    return spent


cdef inline int take_data(Measure* measure, Py_ssize_t size) except -1:
    """Takes what a part of the value would take, roughly, as JSON text."""
    measure.size_left -= size
    if measure.size_left < 0:
        raise Unkept(f"data larger than {measure.size_bytes_max} bytes")
    return 0


cdef object json_safe(Measure* measure, object value):
    """The value itself if it is plain JSON, else a clean copy. Raises Unkept, or TypeError for foreign types."""
    allow_data(measure)
    return safe_part(measure, value, measure.depth_max)


cdef object safe_part(Measure* measure, object value, int depth_left):
    """`json_safe` for a part of the value that `allow_data` announced."""
    cdef type kind = type(value)
    cdef int overflow = 0
    take_data(measure, 2)
    if value is None or kind is bool:
        return value
    if kind is str:
        take_data(measure, len(<str> value))
        return value if PyUnicode_IS_ASCII(value) else _safe_text(value)
    if kind is int:
        PyLong_AsLongLongAndOverflow(value, &overflow)
        return value if overflow == 0 else _safe_integer(value)
    if kind is float:
        return _safe_float(measure.is_plain, value)
    if depth_left <= 0:
        raise Unkept(f"data nested deeper than {measure.depth_max} levels")
    if kind is dict:
        return _safe_object(measure, <dict> value, depth_left - 1)
    if kind is list:
        return _safe_array(measure, <list> value, depth_left - 1)
    raise TypeError(f"not a JSON value: {kind.__name__}")


cdef object _safe_text(str text):
    cdef Py_ssize_t size
    try:
        PyUnicode_AsUTF8AndSize(text, &size)
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


cdef object _safe_float(bint is_plain, object value):
    """Executions of behaviour 1 keep integral doubles as they are, and have null for an infinity."""
    cdef double number = PyFloat_AS_DOUBLE(value)
    if not is_plain:
        return value if isfinite(number) else None
    if isnan(number):
        return None
    if not isfinite(number):
        return DBL_MAX if number > 0 else -DBL_MAX
    if number == floor(number) and -PLAIN_MAX < number < PLAIN_MAX:
        return <long long> number
    return value


cdef object _safe_integer(object value):
    if 0 <= value <= UINT64_MAX:
        return value
    try:
        return float(value)
    except OverflowError:
        return None


cdef object _safe_array(Measure* measure, list values, int depth_left):
    cdef list copy = None
    cdef Py_ssize_t index
    cdef object value, safe
    for index in range(PyList_GET_SIZE(values)):
        value = <object> PyList_GET_ITEM(values, index)
        safe = safe_part(measure, value, depth_left)
        if safe is not value and copy is None:
            copy = values[:]
        if copy is not None:
            copy[index] = safe
    return values if copy is None else copy


cdef object _safe_object(Measure* measure, dict values, int depth_left):
    cdef dict copy = None
    cdef PyObject *key
    cdef PyObject *value
    cdef Py_ssize_t position = 0
    cdef object safe
    while PyDict_Next(values, &position, &key, &value):
        if type(<object> key) is not str:
            raise TypeError("not a JSON value: an object with a key that is no string")
        take_data(measure, len(<str> key) + 4)
        safe = safe_part(measure, <object> value, depth_left)
        if safe is not <object> value or _safe_key(<str> key) is not <object> key:
            copy = {}
            break
    if copy is None:
        return values
    for name, item in values.items():
        copy[_safe_key(name)] = safe_part(measure, item, depth_left)
    return copy


cdef inline object _safe_key(str key):
    return key if PyUnicode_IS_ASCII(key) else _safe_text(key)
