"""Stage 4, expressions: builtins in C over containers and general values.

Rules: a native takes the input and up to three arguments and gives one result or raises ExpressionError with jq's
text. Work that grows with the data is charged to the step budget.
"""

from cpython.dict cimport PyDict_GetItemWithError, PyDict_SetItem
from cpython.object cimport PyObject
from libc.math cimport fabs as c_fabs
from libc.math cimport isnan


cdef object f_not(object input, object a, object b, object c):
    return not truthy(input)


cdef object f_type(object input, object a, object b, object c):
    return kind_name(input)


cdef object f_error0(object input, object a, object b, object c):
    raise ExpressionError(input)


cdef object f_error1(object input, object a, object b, object c):
    raise ExpressionError(a)


cdef object f_now(object input, object a, object b, object c):
    return from_double(running().now_ms / 1000.0)


cdef object f_length(object input, object a, object b, object c):
    cdef Kind kind = kind_of(input)
    if kind == K_STRING:
        return len(<str>input)
    if kind == K_ARRAY:
        return len(<list>input)
    if kind == K_OBJECT:
        return len(<dict>input)
    if kind == K_NULL:
        return 0
    if kind == K_NUMBER:
        return abs(input) if type(input) is int and is_exact(input) else from_double(c_fabs(to_double(input)))
    return type_error(input, "has no length")


cdef object f_abs(object input, object a, object b, object c):
    if is_number(input):
        return abs(input) if type(input) is int and is_exact(input) else from_double(c_fabs(to_double(input)))
    if input is None or input is True or input is False:
        return type_error(input, "cannot be negated")
    return input


cdef object f_toarray(object input, object a, object b, object c):
    return input if type(input) is list else [input]


cdef object f_keys(object input, object a, object b, object c):
    if type(input) is dict:
        return sorted_texts(<dict>input)
    if type(input) is list:
        check_array(len(<list>input))
        charge(len(<list>input) >> 1)
        return list(range(len(<list>input)))
    return type_error(input, "has no keys")


cdef object f_keys_unsorted(object input, object a, object b, object c):
    if type(input) is dict:
        check_array(len(<dict>input))
        return list(<dict>input)
    return f_keys(input, a, b, c)


cdef object f_has(object input, object a, object b, object c):
    cdef double position
    if type(input) is dict and type(a) is str:
        charge_text(<str>a)
        return a in <dict>input
    if type(input) is list and is_number(a):
        position = to_double(a)
        # The index is cut to a whole number first.
        return position > -1 and position < len(<list>input)
    if input is None:
        return False
    raise ExpressionError(f"Cannot check whether {kind_name(input)} has a {kind_name(a)} key")


cdef bint contains(object left, object right, int depth) except -1:
    if depth > VALUE_DEPTH_MAX:
        fail("Containment check too deep")
    if type(left) is dict and type(right) is dict:
        for key, value in (<dict>right).items():
            charge(2)
            charge_text(<str>key)
            if key not in <dict>left or not contains((<dict>left)[key], value, depth + 1):
                return False
        return True
    if type(left) is list and type(right) is list:
        for value in <list>right:
            charge(1)
            for other in <list>left:
                charge(1)
                if contains(other, value, depth + 1):
                    break
            else:
                return False
        return True
    if type(left) is str and type(right) is str:
        charge_search(len(<str>left), len(<str>right))
        return <str>right in <str>left
    return equal(left, right)


cdef object f_contains(object input, object a, object b, object c):
    cdef Kind left = kind_of(input)
    cdef Kind right = kind_of(a)
    if left != right:
        return type_error2(input, a, "cannot have their containment checked")
    return contains(input, a, 0)


cdef object f_inside(object input, object a, object b, object c):
    return f_contains(a, input, None, None)


cdef object f_in(object input, object a, object b, object c):
    return f_has(a, input, None, None)


cdef object f_add(object input, object a, object b, object c):
    cdef object total = None
    cdef object sum
    cdef list values = elements(input)
    # Whether the total is a container made here.
    cdef bint made = False
    charge_elements(len(values))
    if all_are(values, str):
        return joined(values, "")
    for value in values:
        charge(1)
        if made and type(total) is dict and type(value) is dict:
            charge_update(<dict>value)
            (<dict>total).update(<dict>value)
        elif made and type(total) is list and type(value) is list:
            grow_by(<list>total, len(<list>value))
            (<list>total).extend(<list>value)
        else:
            sum = add(total, value)
            made = sum is not total and sum is not value
            total = sum
    return total


cdef bint all_are(list values, type of) except -1:
    """Whether there are values and all are of one type; stops at the first that is not."""
    charge_elements(len(values))
    for value in values:
        if type(value) is not of:
            return False
    return len(values) > 0


# --- order ---

cdef list sortable(object input):
    if type(input) is not list:
        raise ExpressionError(f"{kind_name(input)} ({dump_short(input)}) cannot be sorted, as it is not an array")
    return <list>input


cdef object f_sort(object input, object a, object b, object c):
    cdef list values = sortable(input)
    return [values[index] for index in sorted_order(values)]


cdef list keyed(object input, object keys, object single):
    if type(input) is not list:
        type_error2(input, wrapped(keys, single), "cannot be sorted, as they are not both arrays")
    return <list>input


cdef object wrapped(object keys, object single):
    """Keys as jq's messages show them, each an array."""
    return [[key] for key in keys] if single is True else keys


cdef list lone(list keys, object single):
    """Keys of one element each stand for that element: the same order, compared faster."""
    if single:
        return keys
    charge(len(keys))
    for key in keys:
        if len(<list>key) != 1:
            return keys
    return [(<list>key)[0] for key in keys]


cdef object f_sort_by(object input, object a, object b, object c):
    cdef list values = keyed(input, a, b)
    return [values[index] for index in sorted_order(lone(<list>a, b))]


cdef object f_group_by(object input, object a, object b, object c):
    cdef list values = keyed(input, a, b)
    cdef list keys = lone(<list>a, b)
    cdef list groups = []
    cdef object last = None
    for index in sorted_order(keys):
        charge(3)
        if groups and equal(keys[index], last):
            (<list>groups[len(groups) - 1]).append(values[index])
        else:
            charge(2)
            groups.append([values[index]])
            last = keys[index]
    return groups


cdef object f_unique_by(object input, object a, object b, object c):
    return first_of_equals(keyed(input, a, b), lone(<list>a, b))


cdef object f_unique(object input, object a, object b, object c):
    cdef list values = sortable(input)
    return first_of_equals(values, values)


cdef list first_of_equals(list values, list keys):
    """In order of their keys, the values without those whose key is that of the one before."""
    cdef list result = []
    cdef object last = None
    for index in sorted_order(keys):
        charge(2)
        if not result or not equal(keys[index], last):
            last = keys[index]
            result.append(values[index])
    return result


cdef object extreme(object input, object keys, bint largest):
    cdef list values
    cdef Py_ssize_t i
    cdef Py_ssize_t best = 0
    cdef int order
    if type(input) is not list:
        # The argument of `min_by` and `max_by` has gone over it before.
        return type_error(input, f"has no {'maximum' if largest else 'minimum'}, as it is not an array")
    values = <list>input
    if not values:
        return None
    for i in range(1, len(values)):
        charge(1)
        order = compare((<list>keys)[i], (<list>keys)[best])
        if order >= 0 if largest else order < 0:
            best = i
    return values[best]


cdef object f_min(object input, object a, object b, object c):
    return extreme(input, input, False)


cdef object f_max(object input, object a, object b, object c):
    return extreme(input, input, True)


cdef object f_min_by(object input, object a, object b, object c):
    return extreme(input, a, False)


cdef object f_max_by(object input, object a, object b, object c):
    return extreme(input, a, True)


cdef object f_reverse(object input, object a, object b, object c):
    if input is None:
        return []
    if type(input) is str:
        return [] if not input else index_error(input, len(<str>input) - 1)
    if type(input) is list:
        check_array(len(<list>input))
        return (<list>input)[::-1]
    if type(input) is dict:
        return [] if not input else index_error(input, len(<dict>input) - 1)
    if is_number(input):
        return [] if to_double(input) == 0 else index_error(input, from_double(c_fabs(to_double(input)) - 1))
    return type_error(input, "has no length")


cdef int flatten_into(list result, list values, double depth, int level) except -1:
    if level > VALUE_DEPTH_MAX:
        raise BudgetExceeded("expression is nested too deeply")
    charge(1)
    for value in values:
        charge(1)
        if type(value) is list and depth != 0:
            flatten_into(result, <list>value, depth - 1, level + 1)
        elif len(result) >= running().bounds.array_size:
            raise BudgetExceeded("expression built an array that is too long")
        else:
            result.append(value)
    return 0


cdef object flattened(object input, double depth):
    cdef list result = []
    flatten_into(result, elements(input), depth, 0)
    return result


cdef object f_flatten0(object input, object a, object b, object c):
    return flattened(input, -1)


cdef object f_flatten1(object input, object a, object b, object c):
    if compare(a, 0) < 0:
        fail("flatten depth must not be negative")
    if not is_number(a) and any([type(value) is list for value in elements(input)]):
        return subtract(a, 1)
    return flattened(input, to_double(a) if is_number(a) else -1)


cdef list elements(object value):
    """What `.[]` yields."""
    if type(value) is list:
        return <list>value
    if type(value) is dict:
        check_array(len(<dict>value))
        return list((<dict>value).values())
    raise ExpressionError(f"Cannot iterate over {kind_name(value)} ({dump_short(value)})")


cdef object f_transpose(object input, object a, object b, object c):
    cdef list rows = elements(input)
    cdef list result = []
    cdef double length
    cdef double width = float("nan") if rows else 0
    cdef Py_ssize_t i = 0
    for row in rows:
        charge(1)
        length = to_double(f_length(row, None, None, None))
        width = length if isnan(width) or length > width else width
    if isnan(width):
        # A range up to nan does not end before nan's row is asked for an element.
        index_value(rows[0], 0)
    check_array(width)
    while i < width:
        charge(2 + 2 * len(rows))
        result.append([index_value(row, i) for row in rows])
        i += 1
    return result


# --- objects ---

cdef object f_to_entries(object input, object a, object b, object c):
    if type(input) is not dict:
        return f_keys(input, a, b, c) if type(input) is not list else index_entries(<list>input)
    check_array(len(<dict>input))
    charge(5 * len(<dict>input))
    return [{"key": key, "value": value} for key, value in (<dict>input).items()]


cdef list index_entries(list values):
    check_array(len(values))
    charge(5 * len(values))
    return [{"key": i, "value": values[i]} for i in range(len(values))]


cdef object f_from_entries(object input, object a, object b, object c):
    cdef dict result = {}
    cdef object key
    cdef PyObject* found
    for entry in elements(input):
        charge(4)
        found = PyDict_GetItemWithError(entry, "key") if type(entry) is dict else NULL
        key = <object>found if found != NULL else None
        if type(key) is not str:
            for name in ("key", "Key", "name", "Name"):
                key = index_value(entry, name)
                if truthy(key):
                    break
        if type(key) is not str:
            fail(f"Cannot use {kind_name(key)} ({dump_short(key)}) as object key")
        charge_text(<str>key)
        found = PyDict_GetItemWithError(entry, "value")
        PyDict_SetItem(result, key, <object>found if found != NULL else (<dict>entry).get("Value"))
    return result


cdef object f_getpath(object input, object a, object b, object c):
    return path_get(input, a)


cdef object f_setpath(object input, object a, object b, object c):
    cdef PyObject* held = <PyObject*>input
    return path_set(NULL, &held, a, b)


cdef object f_delpaths(object input, object a, object b, object c):
    cdef PyObject* held = <PyObject*>input
    return path_delete(NULL, &held, a)


cdef object f_delete_later(object input, object a, object b, object c):
    """An update's deletions: null where it deleted nothing."""
    return input if a is None else f_delpaths(input, a, None, None)


cdef object f_check_key(object input, object a, object b, object c):
    """Refuses a key of an object under construction before the parts behind it are computed."""
    checked_key(a)
    return input


cdef object f_bsearch(object input, object a, object b, object c):
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high, middle
    cdef int order
    if type(input) is not list:
        return type_error(input, "cannot be searched from")
    high = len(<list>input)
    while low < high:
        middle = (low + high) >> 1
        charge(2)
        order = compare((<list>input)[middle], a)
        if order == 0:
            return middle
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return -1 - low
