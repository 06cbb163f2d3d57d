"""Stage 4, expressions: jq's view of JSON values held as Python objects.

Rules: null, false, true, numbers, strings, arrays and objects are None, bool, int or float, str, list and dict as
orjson gives them. Numbers are doubles to all that looks at them; an integral result below 2^63 becomes an int, and an
int beyond what doubles tell apart keeps its digits as long as it is only handed on. Nothing here modifies a value it
was given. Recursion is bounded by jq's own depth limit of 10,000 levels, so it never reaches the end of the C stack.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.list cimport PyList_GET_SIZE
from cpython.long cimport PyLong_AsDouble, PyLong_FromLongLong
from cpython.object cimport PyObject
from libc.float cimport DBL_MAX
from libc.math cimport fabs as c_fabs
from libc.math cimport floor as c_floor
from libc.math cimport isnan, signbit

from fastrunner._jq cimport State

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    int PyUnicode_Compare(object left, object right) except? -1
    PyObject* PyTuple_GET_ITEM(object values, Py_ssize_t index)

cdef enum Kind:
    K_NULL = 0
    K_FALSE = 1
    K_TRUE = 2
    K_NUMBER = 3
    K_STRING = 4
    K_ARRAY = 5
    K_OBJECT = 6

cdef long long EXACT_INT_MAX_I = 9007199254740992
# Integral doubles below it are ints.
cdef double INT_END = 9223372036854775808.0
cdef int VALUE_DEPTH_MAX = 10_000
cdef Py_ssize_t ERROR_DUMP_SIZE_BYTES = 30
# A problem quotes the expression, whose names may be long.
cdef Py_ssize_t PROBLEM_TEXT_SIZE_MAX = 500

cdef tuple KIND_NAMES = ("null", "boolean", "boolean", "number", "string", "array", "object")


class ExpressionProblem(ValueError):
    """An expression that does not compile; `offset` counts code points from 0, `line` and `column` from 1."""

    def __init__(self, message, offset, text=""):
        if len(message) > PROBLEM_TEXT_SIZE_MAX:
            message = message[:PROBLEM_TEXT_SIZE_MAX] + "..."
        super().__init__(message, offset, text)
        self.message = message
        self.offset = offset
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - text.rfind("\n", 0, offset)

    def __str__(self):
        return f"{self.message} (at line {self.line}, column {self.column})"


class ExpressionError(Exception):
    """An evaluation that failed; `value` is what jq's `catch` would see, the message is its text."""

    def __init__(self, value):
        super().__init__(value)
        self.value = value
        self._text_size_max = error_size_max()

    def __str__(self):
        return error_text(self.value, self._text_size_max)


class BudgetExceeded(ExpressionError):
    """The evaluation used up its budget; `try` does not catch it, so that no expression outlives its bound."""


class MissingMember(BudgetExceeded):
    """A member was asked for that a guarded object has not; `value` is its name. No `try` and no `//` catches it."""


cdef object fail(str message):
    raise ExpressionError(message)


cdef inline Kind kind_of(object value) except *:
    cdef type of = type(value)
    if of is str:
        return K_STRING
    if of is int or of is float:
        return K_NUMBER
    if of is dict:
        return K_OBJECT
    if of is list:
        return K_ARRAY
    if value is None:
        return K_NULL
    if value is True:
        return K_TRUE
    if value is False:
        return K_FALSE
    raise ExpressionError(f"a value of type {of.__name__} is no JSON value")


cdef inline str kind_name(object value):
    return <str>KIND_NAMES[<int>kind_of(value)]


cdef inline bint is_number(object value):
    return type(value) is int or type(value) is float


cdef inline bint truthy(object value):
    return value is not None and value is not False


cdef double to_double(object value):
    """The double of an int or float; ints beyond its range are infinite."""
    if type(value) is float:
        return PyFloat_AS_DOUBLE(value)
    try:
        return PyLong_AsDouble(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


cdef inline object from_double(double value):
    if c_floor(value) == value and c_fabs(value) < INT_END and not (value == 0.0 and signbit(value)):
        return PyLong_FromLongLong(<long long>value)
    if value == 0.0 or not c_fabs(value) <= DBL_MAX:
        running().met_special = True
    return value


cdef inline bint is_exact(object value):
    """Whether an int is one that doubles hold exactly."""
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    return not overflow and -EXACT_INT_MAX_I <= number <= EXACT_INT_MAX_I


# --- errors that name a value ---

cdef Py_ssize_t error_size_max() noexcept:
    """The bound of the machine that evaluates, or the usual one where none does."""
    cdef State* state = running()
    return DEFAULT_BOUNDS.error_size if state == NULL else state.bounds.error_size


cdef str error_text(object value, Py_ssize_t size_max):
    """An uncaught error's message, cut: it travels in events. Needs no budget, for it is read after the evaluation."""
    cdef Py_ssize_t room = size_max
    cdef State scratch
    cdef void* before = _running
    cdef list parts = []
    cdef str text
    if type(value) is str:
        text = <str>value
        room -= len(text)
    else:
        begin(&scratch, &DEFAULT_BOUNDS)
        enter(&scratch)
        try:
            dump_parts(parts, value, 0, &room)
        finally:
            leave(&scratch, before)
        text = "".join(parts)
    if room < 0:
        return text[:size_max] + "..."
    return text if type(value) is str else text + " (not a string)"


cdef str dump_short(object value):
    """A value's JSON for a message, cut to jq's 30-byte buffer at a character boundary."""
    charge(ERROR_STEPS)
    cdef str text = dump_text_bounded(value, 64)
    cdef bytes raw = text.encode("utf-8", "surrogatepass")
    if len(raw) < ERROR_DUMP_SIZE_BYTES:
        return text
    # An ellipsis replaces the end; a string keeps its closing quote, an array or object its bracket.
    cdef str end = "..."
    if text.startswith('"'):
        end = '..."'
    elif text.startswith("["):
        end = "...]"
    elif text.startswith("{"):
        end = "...}"
    return raw[: ERROR_DUMP_SIZE_BYTES - 1 - len(end)].decode("utf-8", "ignore") + end


cdef object type_error(object value, str message):
    raise ExpressionError(f"{kind_name(value)} ({dump_short(value)}) {message}")


cdef object type_error2(object left, object right, str message):
    raise ExpressionError(
        f"{kind_name(left)} ({dump_short(left)}) and {kind_name(right)} ({dump_short(right)}) {message}"
    )


# --- equality and order ---

cdef inline int compare_numbers(object left, object right):
    cdef double a, b
    if left is right and type(left) is int:
        return 0
    a = to_double(left)
    b = to_double(right)
    if isnan(a):
        running().met_nan = True
        return -1
    if isnan(b):
        return 1
    return -1 if a < b else (0 if a == b else 1)


cdef bint equal(object left, object right, int depth=0) except -1:
    cdef Kind kind
    cdef Py_ssize_t i, position
    cdef PyObject* key
    cdef PyObject* value
    cdef PyObject* other
    if left is right and type(left) is not float:
        # As in jq, a container equals itself, whatever it holds.
        return True
    kind = kind_of(left)
    if kind != kind_of(right):
        return False
    if kind == K_NUMBER:
        return compare_numbers(left, right) == 0
    if kind == K_STRING:
        if len(<str>left) != len(<str>right):
            return False
        charge_text(<str>left)
        return <str>left == <str>right
    if kind == K_ARRAY:
        if PyList_GET_SIZE(left) != PyList_GET_SIZE(right):
            return False
        if depth > VALUE_DEPTH_MAX:
            fail("Equality check too deep")
        for i in range(PyList_GET_SIZE(left)):
            charge(1)
            if not equal((<list>left)[i], (<list>right)[i], depth + 1):
                return False
        return True
    if kind == K_OBJECT:
        if len(<dict>left) != len(<dict>right):
            return False
        if depth > VALUE_DEPTH_MAX:
            fail("Equality check too deep")
        position = 0
        while PyDict_Next(left, &position, &key, &value):
            charge(2)
            charge_text(<str>key)
            other = PyDict_GetItemWithError(right, <object>key)
            if other == NULL or not equal(<object>value, <object>other, depth + 1):
                return False
        return True
    return True


cdef int compare(object left, object right, int depth=0) except -2:
    """Negative, zero or positive in jq's order of all values."""
    cdef Kind kind = kind_of(left)
    cdef Kind other = kind_of(right)
    cdef Py_ssize_t i, size, size_right
    cdef int result
    if kind != other:
        return -1 if kind < other else 1
    if kind == K_NUMBER:
        return compare_numbers(left, right)
    if kind == K_STRING:
        charge_text(<str>left if len(<str>left) < len(<str>right) else <str>right)
        return PyUnicode_Compare(left, right)
    if kind == K_ARRAY:
        if depth > VALUE_DEPTH_MAX:
            fail("Comparison too deep")
        size = PyList_GET_SIZE(left)
        size_right = PyList_GET_SIZE(right)
        for i in range(min(size, size_right)):
            charge(1)
            result = compare((<list>left)[i], (<list>right)[i], depth + 1)
            if result != 0:
                return result
        return -1 if size < size_right else (0 if size == size_right else 1)
    if kind == K_OBJECT:
        return compare_objects(<dict>left, <dict>right, depth)
    return 0


cdef int compare_objects(dict left, dict right, int depth) except -2:
    cdef list keys = sorted_texts(left)
    cdef list others = sorted_texts(right)
    cdef int result
    charge(6)
    if depth > VALUE_DEPTH_MAX:
        fail("Comparison too deep")
    result = compare(keys, others, depth + 1)
    if result != 0:
        return result
    for key in keys:
        charge_text(<str>key)
        result = compare(left[key], right[key], depth + 1)
        if result != 0:
            return result
    return 0


@cython.internal
@cython.final
cdef class SortKey:
    """Wraps a value for Python's stable sort, which only asks for `<`."""

    cdef object value

    def __cinit__(self, object value):
        self.value = value

    def __lt__(self, SortKey other):
        cdef State* state = running()
        charge(3)
        state.met_nan = False
        if compare(self.value, other.value) >= 0:
            return False
        return not state.met_nan or compare(other.value, self.value) >= 0


cdef list sorted_order(list keys):
    """Indices of `keys` in jq's order, stable; plain comparison where all keys are strings or plain numbers."""
    cdef bint strings = True
    cdef bint numbers = True
    cdef Py_ssize_t size = 0
    charge(2 * len(keys))
    for key in keys:
        if type(key) is str:
            size += len(<str>key)
        else:
            strings = False
        if numbers:
            numbers = type(key) is int and is_exact(key) or type(key) is float and key == key
        if not strings and not numbers:
            return sorted(range(len(keys)), key=[SortKey(key) for key in keys].__getitem__)
    charge_sort(len(keys), size)
    return sorted(range(len(keys)), key=keys.__getitem__)
