"""Stage 4, expressions: loops that need no machine: `[.[] | f]`, `any`, `..`; folds and updates are in update.pxi.

Rules: the compiler marks them only where every part yields at most one value by construction, so that nothing could ask
to go back into them. Order of evaluation, errors and budget are those of the instructions they stand for.
"""

from cpython.list cimport PyList_GET_SIZE

from fastrunner._jq cimport State

cdef bint generates(Node node) noexcept:
    """Whether a node is a generator that `collect` can follow: `.[]` of a single value, or `..`."""
    return node.kind == N_RECURSE or (node.kind == N_ITERATE and not node.optional)


cdef object evaluate_optional(Stack stack, State* state, Node node, object input, bint* present):
    """A node that yields at most one value; `present` becomes false where it yields none."""
    cdef int kind = node.kind
    cdef object value
    if node.single == S_YES:
        return evaluate(stack, state, node, input)
    if kind == N_IF:
        if truthy(evaluate(stack, state, node.a, input)):
            return evaluate_optional(stack, state, node.b, input, present)
        return input if node.c is None else evaluate_optional(stack, state, node.c, input, present)
    if kind == N_PIPE:
        value = evaluate_optional(stack, state, node.a, input, present)
        return evaluate_optional(stack, state, node.b, value, present) if present[0] else None
    present[0] = False
    return None


cdef object collect(Stack stack, State* state, Node node, object input):
    """The array of what a generator, or a generator and a node behind it, yield."""
    cdef Node source = node if generates(node) else node.a
    cdef Node body = None if source is node else node.b
    cdef list result = []
    cdef list values
    if source.kind == N_RECURSE:
        return collect_descent(stack, state, body, input)
    values = elements(input if source.a is None else evaluate(stack, state, source.a, input))
    if body is None:
        check_array(len(values))
        return list(values)
    for value in values:
        collect_one(stack, state, body, value, result)
    return result


cdef object first_directly(Stack stack, State* state, Node node, object input):
    """The first of what a generator and a node behind it yield, or else a value: `any`, `all`, `isempty`."""
    cdef Node source = <Node>(<Node>node.a.kids[0]).a
    cdef Node body = <Node>(<Node>node.a.kids[0]).b
    cdef object found
    cdef bint present
    for value in elements(input if source.a is None else evaluate(stack, state, source.a, input)):
        charge(3)
        present = True
        found = evaluate_optional(stack, state, body, value, &present)
        if present:
            return found
    return evaluate(stack, state, <Node>node.a.kids[1], input)


cdef int collect_one(Stack stack, State* state, Node body, object value, list result) except -1:
    cdef bint present = True
    charge(2)
    if body is not None:
        value = evaluate_optional(stack, state, body, value, &present)
        if not present:
            return 0
    if PyList_GET_SIZE(result) >= running().bounds.array_size:
        raise BudgetExceeded("expression built an array that is too long")
    result.append(value)
    return 0


cdef list collect_descent(Stack stack, State* state, Node body, object input):
    """As `collect` for `..`: a value comes before what it holds."""
    cdef list result = []
    cdef list waiting = [input]
    cdef Py_ssize_t first
    while waiting:
        value = waiting.pop()
        collect_one(stack, state, body, value, result)
        if type(value) is list:
            charge_elements(2 * len(<list>value))
            waiting.extend(reversed(<list>value))
        elif type(value) is dict:
            charge_elements(2 * len(<dict>value))
            first = len(waiting)
            waiting.extend((<dict>value).values())
            waiting[first:] = waiting[first:][::-1]
    return result
