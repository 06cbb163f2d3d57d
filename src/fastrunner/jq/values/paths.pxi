"""Stage 4, expressions: getpath, setpath, delpaths.

Rules: an update copies only the containers on its path, and of those not the ones it may change (own.pxi); everything
else is shared with the input. Paths are at most 10,000 steps deep, as jq has it; they are followed by loops, not by
recursion.
"""

from cpython.dict cimport PyDict_Copy
from cpython.object cimport PyObject
from libc cimport math as libm
from libc.math cimport isnan

cdef double ARRAY_INDEX_MAX = 536870911.0


cdef list checked_path(object path):
    if type(path) is not list:
        fail("Path must be specified as an array")
    if len(<list>path) > VALUE_DEPTH_MAX:
        fail("Path too deep")
    charge(1 + (len(<list>path) >> 1))
    return <list>path


cdef object path_get(object value, object path):
    """The value at a path; null where the way there ends in null."""
    for step in checked_path(path):
        value = index_value(value, step)
    return value


cdef object path_take(Owned* own, PyObject** held, object path):
    """As `path_get` for an update that will set the place again: the value is taken out where that may be."""
    cdef object parent = None
    cdef object value = <object>held[0]
    cdef bint free = True
    for step in checked_path(path):
        free = free and is_free(own, <PyObject*>value, 2)
        parent = value
        value = index_value(parent, step)
    if free and <list>path:
        take_out(parent, (<list>path)[len(<list>path) - 1])
    return value


cdef object path_set(Owned* own, PyObject** held, object path, object new):
    """The value in `held` with `new` at `path`."""
    cdef list steps = checked_path(path)
    cdef list parents = []
    cdef object value = <object>held[0]
    cdef Py_ssize_t i
    # Of the containers on the way, so many from the first on may be changed.
    cdef Py_ssize_t free_count = 0
    for i in range(len(steps)):
        # What refers to it: its place, and `value`.
        if free_count == i and is_free(own, <PyObject*>value, 2):
            free_count += 1
        parents.append(value)
        value = child_for_update(value, steps[i])
    value = None
    for i in range(len(steps) - 1, -1, -1):
        new = put_child(own, parents[i], i < free_count, steps[i], new)
    return new


cdef object child_for_update(object value, object step):
    if type(value) is dict or type(value) is list or value is None or type(value) is str:
        if type(step) is list:
            if type(value) is list:
                fail("Cannot update field at array index of array")
            return index_error(value, step)
        if is_number(step) and (type(value) is list or value is None):
            # jq takes the element out of its place before it goes on, so a place that cannot be is found first.
            check_position(0 if value is None else len(<list>value), to_double(step))
        return index_value(value, step)
    return index_error(value, step)


cdef int take_out(object value, object step) except -1:
    """Leaves null where a child was that only an update of this container goes on with."""
    cdef double position
    if type(value) is dict and step in <dict>value:
        (<dict>value)[step] = None
    elif type(value) is list and is_number(step):
        position = libm.trunc(to_double(step))
        if position < 0:
            position += len(<list>value)
        if 0 <= position < len(<list>value):
            (<list>value)[<Py_ssize_t>position] = None
    return 0


cdef object put_child(Owned* own, object value, bint free, object step, object new):
    """A container with one element replaced, or left out for NOTHING: itself if it is free, else a copy."""
    if new is NOTHING:
        return value if value is None else note_changed(own, without_children(value, [step]))
    if not free:
        return note_changed(own, with_child(value, step, new))
    if type(value) is dict and type(step) is str:
        charge(2)
        charge_text(<str>step)
        (<dict>value)[step] = new
        return value
    if type(value) is list and is_number(step):
        put_element(<list>value, to_double(step), new)
        return value
    return note_changed(own, with_child(value, step, new))


cdef inline object note_changed(Owned* own, object value):
    note(own, value)
    return value


cdef int put_element(list value, double at, object new) except -1:
    """Sets an element in place; null fills up to it."""
    cdef Py_ssize_t size = len(value)
    cdef Py_ssize_t index = <Py_ssize_t>check_position(size, at)
    charge(1)
    if index >= size:
        grow_by(value, index + 1 - size)
        value.extend([None] * (index + 1 - size))
    value[index] = new
    return 0


cdef int grow_by(list value, Py_ssize_t count) except -1:
    """Before `count` elements are added in place."""
    if len(value) + count > running().bounds.array_size:
        raise BudgetExceeded("expression built an array that is too long")
    return charge_elements(count)


cdef object with_child(object value, object step, object new):
    """A copy of a container with one element replaced."""
    cdef dict changed
    if type(step) is str and (type(value) is dict or value is None):
        if value is None:
            return {step: new}
        charge(4 + (len(<dict>value) >> 1))
        charge_text(<str>step)
        changed = PyDict_Copy(value)
        changed[step] = new
        return changed
    if is_number(step) and (type(value) is list or value is None):
        return with_element([] if value is None else <list>value, to_double(step), new)
    if type(step) is dict and (type(value) is list or value is None):
        return with_slice([] if value is None else <list>value, <dict>step, new)
    if type(step) is dict and type(value) is str:
        fail("Cannot update string slices")
    if type(step) is list and type(value) is list:
        fail("Cannot update field at array index of array")
    return index_error(value, step)


cdef double check_position(Py_ssize_t size, double position) except? -1:
    """The index at which an element may be set in an array of `size`."""
    if isnan(position):
        fail("Cannot set array element at NaN index")
    position = libm.trunc(position)
    if position < 0:
        position += size
        if position < 0:
            fail("Out of bounds negative array index")
    if position > ARRAY_INDEX_MAX:
        fail("Array index too large")
    return position


cdef list with_element(list value, double at, object new):
    cdef Py_ssize_t size = len(value)
    cdef double position = check_position(size, at)
    cdef Py_ssize_t index
    cdef list result
    if position >= size:
        check_array(position + 1)
    charge_elements(size)
    index = <Py_ssize_t>position
    result = list(value)
    if index >= size:
        result.extend([None] * (index - size + 1))
    result[index] = new
    return result


cdef list with_slice(list value, dict step, object new):
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t end = 0
    cdef list result
    check_slice(step)
    slice_bounds(len(value), step.get("start"), step.get("end"), &start, &end)
    if type(new) is not list:
        fail("A slice of an array can only be assigned another array")
    check_array(len(value) + len(<list>new))
    result = list(value)
    result[start:end] = <list>new
    return result


cdef object path_delete(Owned* own, PyObject** held, object paths):
    """The value in `held` without the elements at `paths`, all of which address the value as it was."""
    cdef list ordered
    cdef object value = <object>held[0]
    cdef bint free
    cdef list keys
    if type(paths) is not list:
        fail("Paths must be specified as an array")
    if not paths:
        return value
    if all_are_keys(<list>paths, type(value)):
        free = type(value) is dict and is_free(own, held[0], 2)
        keys = [(<list>path)[0] for path in <list>paths]
        return remove_names(<dict>value, keys) if free else note_changed(own, without_children(value, keys))
    ordered = in_order(<list>paths)
    if not (<list>ordered[0]):
        return None
    value = delete_sorted(value, ordered, 0, len(ordered), 0)
    if value is not <object>held[0] and (type(value) is list or type(value) is dict):
        note(own, value)
    return value


cdef bint all_are_keys(list paths, type of) except -1:
    """Whether each path is a single key for a container of that type: then their order makes no difference."""
    cdef object key
    for path in paths:
        charge(1)
        if type(path) is not list or len(<list>path) != 1:
            return False
        key = (<list>path)[0]
        if not (is_number(key) if of is list else type(key) is str and of is dict):
            return False
    return True


cdef list in_order(list paths):
    """The paths sorted, which those of one generator often are."""
    cdef Py_ssize_t i
    for i in range(1, len(paths)):
        if compare(paths[i - 1], paths[i]) > 0:
            paths = [paths[index] for index in sorted_order(paths)]
            break
    for path in paths:
        if type(path) is not list:
            fail(f"Path must be specified as array, not {kind_name(path)}")
        checked_path(path)
    return paths


cdef dict remove_names(dict value, list names):
    """Deletes keys in place."""
    charge(2 * len(names))
    for name in names:
        charge_text(<str>name)
        value.pop(name, None)
    return value


cdef object delete_sorted(object value, list paths, Py_ssize_t low, Py_ssize_t high, Py_ssize_t depth):
    """Deletes the sorted paths `low` to `high`, which agree in their first `depth` steps and are longer than that."""
    cdef list parents = []
    cdef list gone = []
    cdef Py_ssize_t at, end
    # Whether `new` is a copy already.
    cdef bint made = False
    cdef object key, child, new, step
    # An array as a step finds places, but nothing can be put back there.
    cdef bint searched = False
    # Steps all paths share are followed by a loop; only where they part is there recursion.
    while value is not None and len(<list>paths[low]) > depth + 1 and equal(
        (<list>paths[low])[depth], (<list>paths[high - 1])[depth]
    ):
        parents.append(value)
        step = (<list>paths[low])[depth]
        if type(step) is list and type(value) is list:
            searched = True
        value = index_value(value, step)
        depth += 1
    if value is None and len(<list>paths[low]) > depth + 1:
        # The way ends here, but not before the next step is found to be one.
        index_value(value, (<list>paths[low])[depth])
    new = value
    at = low
    while at < high and value is not None:
        key = (<list>paths[at])[depth]
        end = at + 1
        charge(2)
        while end < high and equal((<list>paths[end])[depth], key):
            end += 1
        if len(<list>paths[at]) == depth + 1:
            gone.append(key)
        else:
            child = index_value(value, key)
            if child is not None:
                new = put_child(NULL, new, made, key, delete_sorted(child, paths, at, end, depth + 1))
                made = True
        at = end
    if gone:
        new = without_children(new, gone)
    if new is value and not searched:
        return parents[0] if parents else value
    while parents:
        depth -= 1
        new = with_child(parents.pop(), (<list>paths[low])[depth], new)
    return new


cdef object without_children(object value, list keys):
    cdef dict changed
    cdef list kept
    cdef set positions
    if type(value) is dict:
        for key in keys:
            charge(2)
            if type(key) is not str:
                fail(f"Cannot delete {kind_name(key)} field of object")
            charge_text(<str>key)
        charge(3 + (len(<dict>value) >> 1))
        changed = PyDict_Copy(value)
        for key in keys:
            changed.pop(key, None)
        return changed
    if type(value) is list:
        charge(4 + 2 * len(<list>value))
        positions = deleted_positions(<list>value, keys)
        kept = []
        for i in range(len(<list>value)):
            if i not in positions:
                kept.append((<list>value)[i])
        return kept
    return fail(f"Cannot delete fields from {kind_name(value)}")


cdef set deleted_positions(list value, list keys):
    cdef set positions = set()
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t end = 0
    cdef double position
    for key in keys:
        charge(3)
        if is_number(key):
            position = to_double(key)
            if isnan(position):
                continue
            position = libm.trunc(position) + (len(value) if position < 0 else 0)
            if 0 <= position < len(value):
                positions.add(<Py_ssize_t>position)
        elif type(key) is dict:
            check_slice(<dict>key)
            slice_bounds(len(value), (<dict>key).get("start"), (<dict>key).get("end"), &start, &end)
            charge(2 * (end - start))
            positions.update(range(start, end))
        else:
            fail(f"Cannot delete {kind_name(key)} element of array")
    return positions
