"""Stage 4, expressions: the dispatch of instructions. See run.pxi for the rules."""

from cpython.dict cimport PyDict_GetItemWithError
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject

from fastrunner._jq cimport State

# Natives that may give the very value they got; all others make a new one, however equal.
cdef frozenset HANDING_ON = frozenset((
    "abs", "length", "ltrim", "ltrimstr", "rtrim", "rtrimstr", "toarray", "tonumber", "tostring", "trim", "trimstr",
))


cdef list results_of(Run run, Unit unit, object input):
    """All results of the main unit, whose frame is pushed and its arguments stored."""
    run.unit = unit
    run.pc = 0
    run.current = input
    run.outputs = []
    while True:
        try:
            loop(run)
            return run.outputs
        except BudgetExceeded:
            raise
        except ExpressionError as error:
            value = error.value
        if not catch_error(run, value):
            raise ExpressionError(value)


cdef int loop(Run run) except -1:
    """Runs until nothing is left to go back to."""
    cdef State* state = run.state
    cdef Stack stack = run.stack
    cdef Op* op
    cdef int code
    cdef bint forward
    while True:
        op = &run.unit.code[run.pc]
        code = op.code
        if step_free(run, op):
            continue
        state.steps_left -= 1
        if state.steps_left < 0:
            raise BudgetExceeded("expression ran out of steps")
        forward = True
        if code == OP_EVALUATE:
            if stack.path == NULL or op.a:
                run.current = evaluate(stack, state, <Node>op.p, run.current)
                stack.at_path = False
            else:
                evaluate_off_path(run, <Node>op.p)
            run.pc += 1
        elif code == OP_BRANCH:
            if truthy(evaluate(stack, state, <Node>op.p, run.current)):
                run.pc += 1
            else:
                run.pc = op.a
        elif code == OP_FORK:
            stack.push_fork(F_PLAIN, op.a, None if op.b else run.current)
            run.pc += 1
        elif code == OP_UPDATE:
            if stack.path == NULL:
                update_current(run, <Node>op.p)
            else:
                evaluate_off_path(run, <Node>op.p)
            run.pc += 1
        elif code == OP_BACKTRACK:
            forward = False
        elif code == OP_ITERATE:
            run.pc += 1
            forward = start_iteration(run, run.current, op.a) == 1
        elif code == OP_APPEND:
            append_to(run, op.a)
            forward = False
        elif code == OP_FIELD:
            forward = step_field(run, op)
        elif code == OP_CALL:
            call_function(run, op)
        elif code == OP_CALL_CLOSURE:
            call_closure(run, op)
        elif code == OP_RETURN:
            if stack.frame == 0:
                put_out(run)
                forward = False
            else:
                leave_unit(run)
        elif code == OP_DIRECT:
            if stack.path == NULL:
                evaluate_current(run, <Node>op.p)
                run.pc = op.a
            else:
                run.pc += 1
        else:
            forward = step_control(run, op)
        if not forward and not backtrack(run):
            return 0


cdef inline bint step_free(Run run, Op* op) except -1:
    """The instructions that are no steps: what only moves values is part of what it moves them for."""
    cdef int code = op.code
    if code == OP_STORE:
        run.stack.store_current(op.a, run.current)
    elif code == OP_LOAD:
        load_cell(run, op)
    elif code == OP_TAKE:
        take_cell(run, op.a)
    elif code == OP_JUMP:
        run.pc = op.a
        return True
    else:
        return False
    run.pc += 1
    return True


cdef bint step_control(Run run, Op* op) except -1:
    """The rarer instructions; False to go back."""
    cdef int code = op.code
    if code == OP_JUMP_FALSE:
        run.pc = run.pc + 1 if truthy(run.current) else op.a
        return True
    if code == OP_BREAK:
        return take_break(run, run.stack.load(op.a, op.b))
    if code == OP_RANGE:
        run.pc += 1
        return start_range(run, op.a, op.b) == 1
    if code == OP_RECURSE:
        run.pc += 1
        start_descent(run, run.current)
        return True
    if code == OP_FOUND:
        if not truthy(run.current):
            return False
        run.stack.store(op.b, True)
    elif code == OP_INDEX or code == OP_SLICE:
        return step_index(run, op)
    elif code == OP_COLLECT:
        run.stack.store(op.a, [])
        push_collect(run, op)
    elif code == OP_TRY:
        run.stack.push_fork(F_TRY, op.a, run.current)
    elif code == OP_TRY_END:
        end_try(run)
    elif code == OP_LABEL:
        set_label(run, op.a)
    elif code == OP_CLEAR:
        clear_cell(run, op.a)
    elif code == OP_LAST:
        if run.stack.cell(0, op.a).value == NULL:
            return False
        take_cell(run, op.a)
    elif code == OP_CUT:
        unwind_to(run, run.stack.load(0, op.a))
    elif code == OP_ALTERNATIVE:
        clear_cell(run, op.b)
        run.stack.push_fork(F_ALTERNATIVE, op.a, run.current).index = op.b
    elif code == OP_PATTERN_FORK:
        run.stack.push_fork(F_PATTERN, op.a, run.current)
    else:
        step_path(run, op)
    run.pc += 1
    return True


cdef int step_path(Run run, Op* op) except -1:
    cdef int code = op.code
    cdef Cell* cell
    if code == OP_PATH:
        start_path(run, op.a)
    elif code == OP_PATH_END:
        end_path(run, op.a)
    elif code == OP_SUBEXPRESSION:
        save_path(run, op.a)
        run.stack.set_path(NULL, NULL)
    elif code == OP_SUBEXPRESSION_END:
        restore_path(run, op.a)
    elif code == OP_OFF_PATH:
        refuse_update(run)
    elif code == OP_GETPATH:
        get_path(run, run.stack.load(0, op.a))
    elif code == OP_SETPATH:
        set_path_in(run, op)
    elif code == OP_VALUE_AT:
        cell = run.stack.cell(0, op.a)
        if op.c:
            run.current = path_take(&run.stack.own, &cell.value, run.stack.load(0, op.b))
        else:
            run.current = path_get(<object>cell.value, run.stack.load(0, op.b))
        run.stack.at_path = False
    elif code == OP_DELETE_LATER:
        if run.stack.load(0, op.a) is None:
            run.stack.store(op.a, [])
        (<list>run.stack.load(0, op.a)).append(run.stack.load(0, op.b))
    else:
        raise SystemError(f"unknown instruction {code}")
    return 0


cdef int evaluate_off_path(Run run, Node node) except -1:
    """What comes about here is no path, even where Python shares one object for equal values."""
    cdef bint at_path = node.kind == N_VARIABLE and run.stack.holds_path(run.stack.cell(node.level, node.slot))
    cdef object value = evaluate(run.stack, run.state, node, run.current)
    if node.kind == N_NATIVE and (<Native>node.key).name in HANDING_ON:
        at_path = run.stack.at_path and value is run.current
    run.current = value
    run.stack.at_path = at_path
    return 0


cdef inline int evaluate_current(Run run, Node node) except -1:
    """Replaces the current value by that of a node, where no path is tracked."""
    if node.consumes:
        return update_current(run, node)
    run.current = evaluate(run.stack, run.state, node, run.current)
    return 0


cdef int update_current(Run run, Node node) except -1:
    """As `evaluate_current` for a node that may change the current value, which the run gives up."""
    cdef Stack stack = run.stack
    replace(&stack.held, run.current)
    run.current = None
    run.current = evaluate_last(stack, run.state, node, &stack.held)
    drop(&stack.held)
    stack.at_path = False
    return 0


cdef int set_path_in(Run run, Op* op) except -1:
    """Puts the current value at a path of the value in a cell."""
    cdef Cell* cell = run.stack.cell(0, op.a)
    return run.stack.store(op.a, path_set(&run.stack.own, &cell.value, run.stack.load(0, op.b), run.current))


cdef inline int load_cell(Run run, Op* op) except -1:
    """Makes the value in a cell current; on its last use it leaves the cell, unless a fork may come back for it."""
    cdef Cell* cell = run.stack.cell(0, op.a)
    if op.b and run.stack.fork_top - (op.b - 1) <= cell.forks:
        return take_cell(run, op.a)
    run.current = run.stack.load(0, op.a)
    run.stack.at_path = run.stack.holds_path(cell)
    return 0


cdef int refuse_update(Run run) except -1:
    """An update in the middle of a path; the text shows jq's own way of folding one."""
    if run.stack.path != NULL:
        raise ExpressionError(
            f"Invalid path expression near attempt to access element 0 of {dump_short([run.current, []])}"
        )
    return 0


cdef int put_out(Run run) except -1:
    if len(run.outputs) >= running().bounds.outputs:
        raise BudgetExceeded("expression yields too many results")
    run.outputs.append(run.current)
    return 0


cdef int append_to(Run run, int slot) except -1:
    cdef list values = <list>(<object>run.stack.cell(0, slot).value)
    if PyList_GET_SIZE(values) >= running().bounds.array_size:
        raise BudgetExceeded("expression built an array that is too long")
    values.append(run.current)
    return 0


cdef int push_collect(Run run, Op* op) except -1:
    """The fork that ends a collection: it comes back with the array."""
    run.stack.push_fork(F_PLAIN, op.b, run.stack.load(0, op.a)).at_path = False
    return 0


cdef int take_cell(Run run, int slot) except -1:
    """Makes the value in a cell current and leaves the cell empty."""
    cdef Cell* cell = run.stack.cell(0, slot)
    run.stack.at_path = run.stack.holds_path(cell)
    run.current = run.stack.load(0, slot)
    run.stack.fill(cell, NULL, NULL)
    return 0


cdef int clear_cell(Run run, int slot) except -1:
    run.stack.fill(run.stack.cell(0, slot), NULL, NULL)
    return 0


cdef int end_try(Run run) except -1:
    """Leaves a `try`: without a fork inside it is over, else errors from here on must pass it by."""
    if run.stack.forks[run.stack.fork_top - 1].kind == F_TRY:
        run.stack.drop_fork()
    else:
        run.stack.push_fork(F_TRY_END, 0, None)
    return 0


cdef bint step_field(Run run, Op* op) except -1:
    cdef Stack stack = run.stack
    cdef object value = run.current
    cdef object found
    cdef PyObject* item
    cdef object key = <object>op.p
    if stack.path != NULL:
        check_path(run, key)
    if type(value) is dict:
        item = PyDict_GetItemWithError(value, key)
        found = <object>item if item != NULL else missing(run.state, value, key)
    elif value is None:
        found = None
    elif op.a:
        return False
    else:
        index_error(value, key)
    if stack.path != NULL:
        append_path(run, stack.path, key, found)
    run.current = found
    run.pc += 1
    return True


cdef bint step_index(Run run, Op* op) except -1:
    cdef object value = run.current
    cdef object key, found
    if op.code == OP_SLICE:
        key = {"start": run.stack.load(0, op.a), "end": run.stack.load(0, op.a + 1)}
    else:
        key = run.stack.load(0, op.a)
    if run.stack.path != NULL:
        check_path(run, key)
    try:
        found = index_value(value, key)
    except BudgetExceeded:
        raise
    except ExpressionError:
        if op.b:
            charge(ERROR_STEPS)
            return False
        raise
    if run.stack.path != NULL:
        append_path(run, run.stack.path, key, found)
    run.current = found
    run.pc += 1
    return True
