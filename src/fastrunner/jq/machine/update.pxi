"""Stage 4, expressions: updates: `.a[$i] = v`, `.[] |= f`, `. + [x]` in a fold, and evaluation on a value's last use.

Rules: a row of steps - names, indices, `.[]` - is followed and updated by recursion, whose depth is that of the syntax
tree. Whoever evaluates on the last use of a value has it in a place of its own, `held`, with the one reference that
nothing needs afterwards; so what is not free to be changed there is seen by somebody else. On its way down an update
takes each child out of a parent that is free, for the same reason. Where an error ends it half-way, nobody sees
what is left. Order of evaluation, errors and results are those of the instructions the rows stand for.
"""

from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from fastrunner._jq cimport State

# What an update puts where the place itself is to go.
cdef object NOTHING = object()


# --- what the compiler asks ---

cdef list row_of(Node path):
    """The steps of a path that goes from the input on by single steps and `.[]`, or None."""
    cdef list row = []
    while path is not None and path.kind != N_IDENTITY:
        if path.optional or (path.kind != N_FIELD and path.kind != N_INDEX and path.kind != N_ITERATE):
            return None
        row.append(path)
        path = path.a
    row.reverse()
    return row


cdef bint is_place(Node path):
    """Whether a path leads to exactly one place."""
    cdef Node step
    cdef list row = row_of(path)
    if row is None:
        return False
    for step in row:
        if step.kind == N_ITERATE:
            return False
    return True


cdef bint may_leave_out(list row):
    """Whether places at the row's end can be left out one by one, and not only after all were visited."""
    cdef Node last = <Node>row[len(row) - 1] if row else None
    return last is not None and last.kind != N_INDEX


cdef bint consumes_input(Node node):
    """Whether a single-valued node ends in an update of its input, or of something made of it."""
    cdef int kind = node.kind
    if kind == N_BINARY:
        return node.op == O_ADD and (node.a.kind == N_IDENTITY or node.a.consumes)
    if kind == N_PIPE:
        return node.a.consumes or node.b.consumes
    if kind == N_IF:
        return node.b.consumes or node.c is not None and node.c.consumes
    if kind == N_BIND:
        return node.b.consumes
    if kind == N_REDUCE:
        return node.b.kind == N_IDENTITY and node.c.consumes
    if kind == N_NATIVE:
        return node.key is SETPATH or node.key is DELPATHS
    return kind == N_ASSIGN


# --- evaluation on the last use of a value ---

cdef inline void replace(PyObject** held, object value) noexcept:
    cdef PyObject* old = held[0]
    Py_INCREF(value)
    held[0] = <PyObject*>value
    Py_XDECREF(old)


cdef inline void drop(PyObject** held) noexcept:
    cdef PyObject* old = held[0]
    held[0] = NULL
    Py_XDECREF(old)


cdef object evaluate_last(Stack stack, State* state, Node node, PyObject** held):
    """As `evaluate` on the value in `held`, which nothing needs afterwards."""
    cdef int kind = node.kind
    cdef object right
    if not node.consumes:
        return evaluate(stack, state, node, <object>held[0])
    state.steps_left -= 1
    if kind == N_BINARY:
        right = node.b.key if node.b.kind == N_CONST else evaluate(stack, state, node.b, <object>held[0])
        if node.a.kind != N_IDENTITY:
            replace(held, evaluate_last(stack, state, node.a, held))
        return add_last(&stack.own, held, right)
    if kind == N_ASSIGN:
        return assign_last(stack, state, node, held, &stack.own)
    if kind == N_PIPE:
        replace(held, evaluate_last(stack, state, node.a, held))
        return evaluate_last(stack, state, node.b, held)
    if kind == N_IF:
        if truthy(evaluate(stack, state, node.a, <object>held[0])):
            return evaluate_last(stack, state, node.b, held)
        return <object>held[0] if node.c is None else evaluate_last(stack, state, node.c, held)
    if kind == N_BIND:
        right = evaluate(stack, state, node.a, <object>held[0])
        bind_pattern(stack, state, <Node>node.kids[0], right)
        right = None
        return evaluate_last(stack, state, node.b, held)
    if kind == N_REDUCE:
        return reduce_last(stack, state, node, held)
    return native_last(stack, state, node, held)


cdef object native_last(Stack stack, State* state, Node node, PyObject** held):
    """`setpath` and `delpaths`."""
    cdef object new
    if node.key is SETPATH:
        new = evaluate(stack, state, <Node>node.kids[1], <object>held[0])
        return path_set(&stack.own, held, evaluate(stack, state, <Node>node.kids[0], <object>held[0]), new)
    return path_delete(&stack.own, held, evaluate(stack, state, <Node>node.kids[0], <object>held[0]))


cdef object reduce_directly(Stack stack, State* state, Node node, object input):
    """`reduce .[] as $x (init; update)`."""
    cdef PyObject* held = <PyObject*>input
    Py_INCREF(input)
    try:
        return reduce_last(stack, state, node, &held)
    finally:
        Py_XDECREF(held)


cdef object reduce_last(Stack stack, State* state, Node node, PyObject** held):
    cdef Node pattern = <Node>node.kids[0]
    cdef object folded = evaluate(stack, state, node.b, <object>held[0])
    cdef list values = elements(
        <object>held[0] if node.a.a is None else evaluate(stack, state, node.a.a, <object>held[0])
    )
    if not node.c.consumes:
        drop(held)
        for value in values:
            charge(2)
            bind_pattern(stack, state, pattern, value)
            folded = evaluate(stack, state, node.c, folded)
        return folded
    replace(held, folded)
    folded = None
    for value in values:
        charge(2)
        bind_pattern(stack, state, pattern, value)
        replace(held, evaluate_last(stack, state, node.c, held))
    return <object>held[0]


cdef object add_last(Owned* own, PyObject** held, object right):
    """`+` to the value in `held`."""
    cdef object left = <object>held[0]
    cdef object result
    if type(left) is list and type(right) is list and <list>right:
        if not is_free(own, held[0], 2):
            result = add(left, right)
            note(own, result)
            return result
        grow_by(<list>left, PyList_GET_SIZE(right))
        (<list>left).extend(<list>right)
        return left
    if type(left) is dict and type(right) is dict and <dict>right:
        if not is_free(own, held[0], 2):
            result = add(left, right)
            note(own, result)
            return result
        charge_update(<dict>right)
        (<dict>left).update(<dict>right)
        return left
    return add(left, right)


# --- updates ---

cdef object assign_directly(Stack stack, State* state, Node node, object input):
    """An update of all places a row leads to, of a value that others may need."""
    cdef PyObject* held = <PyObject*>input
    cdef Node step
    cdef object new
    if PyList_GET_SIZE(node.kids) == 1 and node.b.single == S_YES:
        step = <Node>PyList_GET_ITEM(node.kids, 0)
        if step.kind == N_FIELD:
            # The usual case: there is nothing to go down to.
            charge(2)
            if node.op == A_MODIFY:
                new = evaluate(stack, state, node.b, child_for_update(input, step.key))
            else:
                new = evaluate(stack, state, node.b, input)
                if node.op != A_SET:
                    new = operate(node.op, child_for_update(input, step.key), new)
            return with_child(input, step.key, new)
    Py_INCREF(input)
    try:
        return assign_last(stack, state, node, &held, NULL)
    finally:
        Py_XDECREF(held)


cdef object assign_last(Stack stack, State* state, Node node, PyObject** held, Owned* own):
    cdef list keys
    cdef object operand = None
    if node.op != A_MODIFY:
        operand = evaluate(stack, state, node.b, <object>held[0])
    keys = computed_keys(stack, state, node.kids, <object>held[0]) if node.level else None
    return update_from(stack, state, node, own, held, own != NULL, keys, operand, 0)


cdef list computed_keys(Stack stack, State* state, list row, object input):
    """The key of each step, all computed from the input and the last one first; None for a row of names."""
    cdef Py_ssize_t i
    cdef list keys = None
    cdef Node step
    for i in range(PyList_GET_SIZE(row) - 1, -1, -1):
        step = <Node>PyList_GET_ITEM(row, i)
        if step.kind == N_INDEX:
            if keys is None:
                keys = [(<Node>other).key for other in row]
            keys[i] = step.b.key if step.b.kind == N_CONST else evaluate(stack, state, step.b, input)
    return keys


cdef list path_directly(Stack stack, State* state, Node node, object input):
    """`path` of a row that leads to one place."""
    cdef list result = computed_keys(stack, state, node.kids, input)
    if result is None:
        result = [(<Node>step).key for step in node.kids]
    charge(2)
    for key in result:
        charge(1)
        input = index_value(input, key)
    return result


cdef object update_from(
    Stack stack, State* state, Node node, Owned* own, PyObject** held, bint free, list keys, object operand,
    Py_ssize_t at,
):
    """What the value in `held` becomes where the row goes on with step `at`; `free`: nobody sees what is around it."""
    cdef object value, key
    cdef PyObject* child
    cdef Node step
    if at == PyList_GET_SIZE(node.kids):
        return assigned(stack, state, node, own, held, operand)
    step = <Node>PyList_GET_ITEM(node.kids, at)
    free = free and is_free(own, held[0], 1)
    if step.kind == N_ITERATE:
        return update_each(stack, state, node, own, held, free, keys, operand, at)
    key = step.key if keys is None else <object>PyList_GET_ITEM(keys, at)
    value = <object>held[0]
    charge(2)
    child = NULL
    replace(&child, child_for_update(value, key))
    try:
        if free:
            take_out(value, key)
        key_value = update_from(stack, state, node, own, &child, free, keys, operand, at + 1)
    finally:
        Py_XDECREF(child)
    return put_child(own, value, free, key, key_value)


cdef object update_each(
    Stack stack, State* state, Node node, Owned* own, PyObject** held, bint free, list keys, object operand,
    Py_ssize_t at,
):
    """As `update_from` for `.[]`: a new container of what the elements become."""
    cdef object value = <object>held[0]
    cdef object result, new
    cdef PyObject* child = NULL
    cdef bint is_object = type(value) is dict
    cdef Py_ssize_t index = 0
    if not value and (is_object or type(value) is list):
        return value
    result = {} if is_object else []
    values = elements(value)
    names = list(<dict>value) if is_object else None
    try:
        for index in range(len(values)):
            charge(5 if is_object else 2)
            replace(&child, values[index])
            if free:
                (<list>values)[index] = None
                if is_object:
                    (<dict>value)[names[index]] = None
            new = update_from(stack, state, node, own, &child, free, keys, operand, at + 1)
            if new is not NOTHING:
                if is_object:
                    (<dict>result)[names[index]] = new
                else:
                    (<list>result).append(new)
    finally:
        Py_XDECREF(child)
    note(own, result)
    return result


cdef object assigned(Stack stack, State* state, Node node, Owned* own, PyObject** held, object operand):
    """What an update puts where the value in `held` was; NOTHING where the place is to go."""
    cdef bint present = True
    cdef object value
    if node.op == A_SET:
        return operand
    if node.op == O_ADD:
        return add_last(own, held, operand)
    if node.op != A_MODIFY:
        return operate(node.op, <object>held[0], operand)
    if node.b.consumes and own != NULL:
        return evaluate_last(stack, state, node.b, held)
    value = evaluate_optional(stack, state, node.b, <object>held[0], &present)
    return value if present else NOTHING
