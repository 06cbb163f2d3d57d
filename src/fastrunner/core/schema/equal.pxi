"""Stage 4, walk: equality as JSON Schema has it, by keys: equal values have equal keys, others different ones.

Rules: 1 and 1.0 are equal, true and 1 are not, members have no order. A container's key is text, because Python keeps
it secret how it hashes text: nobody makes two thousand values whose hashes collide. Work is counted by size.
"""

from decimal import Decimal as _Decimal

cdef bytes KEY_NULL = b"n"
cdef bytes KEY_TRUE = b"t"
cdef bytes KEY_FALSE = b"f"


cdef object equality_key(SchemaRun run, object value):
    cdef type kind = type(value)
    cdef list parts
    if kind is str:
        spend(run, 1 + (len(<str> value) >> 6))
        return value
    spend(run, 1)
    if kind is int or kind is float:
        return value
    if value is None:
        return KEY_NULL
    if kind is bool:
        return KEY_TRUE if value else KEY_FALSE
    parts = []
    add_key(run, value, parts)
    return "".join(parts).encode("utf-8", "surrogatepass")


cdef int add_key(SchemaRun run, object value, list parts) except -1:
    """Adds the text of a value's key. Recurses over the value, whose depth is bounded."""
    cdef type kind = type(value)
    cdef str text
    if kind is str:
        text = <str> value
        spend(run, 6 + (len(text) >> 3))
        parts.append(f"{len(text)}:{text}")
    elif kind is float:
        spend(run, 15)
        parts.append(str(int(value)) if value.is_integer() else repr(value))
    elif kind is dict:
        add_object_key(run, <dict> value, parts)
    elif kind is list:
        spend(run, 4)
        parts.append("[")
        for item in <list> value:
            add_key(run, item, parts)
            parts.append(",")
        parts.append("]")
    else:
        spend(run, 6)
        parts.append("n" if value is None else "t" if value is True else "f" if value is False else str(value))
    return 0


cdef int add_object_key(SchemaRun run, dict value, list parts) except -1:
    cdef int levels = 1
    while len(value) >> levels:
        levels += 1
    spend(run, 4 + len(value) * levels)
    parts.append("{")
    for name in sorted(value):
        add_key(run, name, parts)
        parts.append("=")
        add_key(run, value[name], parts)
        parts.append(",")
    parts.append("}")
    return 0


cdef bint are_unique(SchemaRun run, list values) except -1:
    cdef set seen = set()
    cdef Py_ssize_t count = 0
    for value in values:
        spend(run, 3)
        seen.add(equality_key(run, value))
        count += 1
        if len(seen) < count:
            return False
    return True


cdef tuple fraction_of(object number):
    """A number as it is written, as a fraction."""
    return (number, 1) if type(number) is int else _Decimal(repr(number)).as_integer_ratio()


cdef bint is_multiple(SchemaRun run, SchemaNumbers numbers, object value) except -1:
    """Exact: 0.3 is a multiple of 0.1."""
    if type(value) is int and numbers.multiple_below == 1:
        spend(run, 2)
        return value % numbers.multiple_above == 0
    # Numbers of up to 600 digits.
    spend(run, 100)
    above, below = fraction_of(value)
    return above * numbers.multiple_below % (numbers.multiple_above * below) == 0
