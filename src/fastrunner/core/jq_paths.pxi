"""Stage 4, expressions: getpath, setpath, delpaths.

Rules: an update copies only the containers on its path; everything else is shared with the input. Paths are at most
10,000 steps deep, as jq has it; they are followed by loops, not by recursion.
"""

cdef double ARRAY_INDEX_MAX = 536870911.0


cdef list checked_path(object path):
    if type(path) is not list:
        fail("Path must be specified as an array")
    if len(<list>path) > VALUE_DEPTH_MAX:
        fail("Path too deep")
    return <list>path


cdef object path_get(object value, object path):
    """The value at a path; null where the way there ends in null."""
    for step in checked_path(path):
        if value is None:
            return None
        value = index_value(value, step)
    return value


cdef object path_set(object value, object path, object new):
    """A copy of `value` with `new` at `path`."""
    cdef list steps = checked_path(path)
    cdef Py_ssize_t i
    cdef Py_ssize_t size = len(steps)
    cdef list parents = []
    for i in range(size):
        parents.append(value)
        value = child_for_update(value, steps[i])
    for i in range(size - 1, -1, -1):
        new = with_child(parents[i], steps[i], new)
    return new


cdef object child_for_update(object value, object step):
    if type(value) is dict or type(value) is list or value is None or type(value) is str:
        if type(step) is list:
            if type(value) is list:
                fail("Cannot update field at array index of array")
            return index_error(value, step)
        return index_value(value, step)
    return index_error(value, step)


cdef object with_child(object value, object step, object new):
    """A copy of a container with one element replaced."""
    cdef dict changed
    if type(step) is str and (type(value) is dict or value is None):
        if value is None:
            return {step: new}
        charge(len(<dict>value) >> 3)
        changed = PyDict_Copy(value)
        changed[step] = new
        return changed
    if is_number(step) and (type(value) is list or value is None):
        return with_element([] if value is None else <list>value, to_double(step), new)
    if type(step) is dict and (type(value) is list or value is None):
        return with_slice([] if value is None else <list>value, <dict>step, new)
    if type(step) is dict and type(value) is str:
        fail("Cannot update string slices")
    return index_error(value, step)


cdef list with_element(list value, double position, object new):
    cdef Py_ssize_t size = len(value)
    cdef Py_ssize_t index
    cdef list result
    if isnan(position):
        fail("Cannot set array element at NaN index")
    position = c_floor(position)
    if position < 0:
        position += size
        if position < 0:
            fail("Out of bounds negative array index")
    if position > ARRAY_INDEX_MAX:
        fail("Array index too large")
    if position >= ARRAY_SIZE_MAX and position >= size:
        raise BudgetExceeded("expression built an array that is too long")
    index = <Py_ssize_t>position
    charge(max(size, index) >> 4)
    result = list(value)
    if index >= size:
        result.extend([None] * (index - size + 1))
    result[index] = new
    return result


cdef list with_slice(list value, dict step, object new):
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t end = 0
    cdef list result
    slice_bounds(len(value), step.get("start"), step.get("end"), &start, &end)
    if type(new) is not list:
        fail("A slice of an array can only be assigned another array")
    charge((len(value) + len(<list>new)) >> 4)
    result = list(value)
    result[start:end] = <list>new
    return result


cdef object path_delete(object value, object paths):
    """A copy of `value` without the elements at `paths`; the last ones go first, so that indices stay right."""
    if type(paths) is not list:
        fail("Paths must be specified as an array")
    for path in <list>paths:
        if type(path) is not list:
            fail("Path must be specified as an array")
    order = sorted_order(<list>paths)
    for index in reversed(order):
        value = delete_one(value, <list>(<list>paths)[index])
    return value


cdef object delete_one(object value, list path):
    cdef list steps = checked_path(path)
    cdef list parents = []
    cdef Py_ssize_t i
    cdef object new
    if not steps:
        return None
    for i in range(len(steps) - 1):
        if value is None:
            return parents[0] if parents else None
        parents.append(value)
        value = child_for_update(value, steps[i])
    new = without_child(value, steps[len(steps) - 1])
    if new is value:
        return parents[0] if parents else value
    for i in range(len(steps) - 2, -1, -1):
        new = with_child(parents[i], steps[i], new)
    return new


cdef object without_child(object value, object step):
    cdef dict changed
    cdef list result
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t end = 0
    cdef double position
    if value is None:
        return None
    if type(value) is dict and type(step) is str:
        if step not in <dict>value:
            return value
        charge(len(<dict>value) >> 3)
        changed = PyDict_Copy(value)
        del changed[step]
        return changed
    if type(value) is list and is_number(step):
        position = to_double(step)
        if isnan(position):
            return value
        position = c_floor(position)
        if position < 0:
            position += len(<list>value)
        if position < 0 or position >= len(<list>value):
            return value
        start = <Py_ssize_t>position
        end = start + 1
    elif type(value) is list and type(step) is dict:
        slice_bounds(len(<list>value), (<dict>step).get("start"), (<dict>step).get("end"), &start, &end)
    else:
        return delete_error(value, step)
    charge(len(<list>value) >> 4)
    result = list(<list>value)
    del result[start:end]
    return result


cdef object delete_error(object value, object step):
    if type(value) is dict:
        fail(f"Cannot delete {kind_name(step)} field of object")
    if type(value) is list:
        fail(f"Cannot delete {kind_name(step)} element of array")
    fail(f"Cannot delete fields from {kind_name(value)}")
