"""Stage 4, expressions: the run loop.

Rules: one current value; forks are the only way back. Going back pops the topmost fork and restores frames, cells
and path as they were. An error unwinds forks until a `try` takes it; a break unwinds to its label. Each instruction
is a step, but for those that only move values or the run itself, of which no loop can be made.
"""

cimport cython
from cpython.dict cimport PyDict_Next
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XINCREF
from libc.math cimport isnan

from fastrunner._jq cimport State

cdef enum ForkKind:
    F_PLAIN
    F_ITERATE_ARRAY
    F_ITERATE_OBJECT
    F_RANGE
    F_RECURSE
    F_TRY
    F_TRY_END
    F_LABEL
    F_ALTERNATIVE
    F_PATTERN


cdef inline bint range_ended(double number, double limit, double step, bint has_step) noexcept:
    """Whether a range ends before `number`; nan is below all numbers, but a range without a step counts on from it."""
    if not has_step:
        return number >= limit
    if step > 0:
        return not (isnan(number) or number < limit)
    return step == 0 or isnan(number) or number <= limit


@cython.internal
@cython.final
cdef class Run:
    """Where the run of a program is."""

    cdef Stack stack
    cdef State* state
    # The current value and program counter live here while an error is handled.
    cdef object current
    cdef int pc
    cdef Unit unit
    cdef list outputs

    def __cinit__(self):
        self.stack = Stack.__new__(Stack)


cdef void forget(Run run) noexcept:
    """Leaves nothing of a run."""
    run.stack.reset()
    run.current = None
    run.outputs = None
    run.unit = None


cdef bint throws_current(Run run, object value):
    """Whether the instruction that failed is `error` of its very input."""
    cdef Op* op = &run.unit.code[run.pc]
    cdef Node node
    if op.code != OP_EVALUATE or op.a or value is not run.current:
        return False
    node = <Node>op.p
    if node.kind != N_NATIVE or (<Native>node.key).name != "error":
        return False
    return not node.kids or (<Node>node.kids[0]).kind == N_IDENTITY


cdef bint catch_error(Run run, object value) except -1:
    """Unwinds to the handler of an error; False if there is none."""
    cdef Fork* fork
    cdef int ended = 0
    # Compared with paths of forks that are older than it, never followed.
    cdef PyObject* thrown = run.stack.path if run.stack.at_path and throws_current(run, value) else NULL
    drop(&run.stack.held)
    charge(ERROR_STEPS)
    while run.stack.fork_top > 0:
        fork = &run.stack.forks[run.stack.fork_top - 1]
        if fork.kind == F_TRY_END:
            # The error comes from behind that `try`, which therefore does not see it.
            ended += 1
        elif fork.kind == F_TRY:
            if ended == 0:
                run.stack.rewind(fork)
                run.unit = <Unit>run.stack.frames[run.stack.frame].unit
                run.pc = fork.pc
                run.current = value
                run.stack.at_path = thrown != NULL and thrown == run.stack.path
                run.stack.drop_fork()
                return True
            ended -= 1
        elif fork.kind == F_PATTERN:
            run.stack.rewind(fork)
            run.unit = <Unit>run.stack.frames[run.stack.frame].unit
            run.pc = fork.pc
            run.current = <object>fork.value
            run.stack.drop_fork()
            return True
        run.stack.drop_fork()
    return False


cdef bint backtrack(Run run) except -1:
    """Goes back to the topmost fork that has something left; False if there is none."""
    cdef Fork* fork
    while run.stack.fork_top > 0:
        fork = &run.stack.forks[run.stack.fork_top - 1]
        run.stack.rewind(fork)
        run.pc = fork.pc
        run.unit = <Unit>run.stack.frames[fork.frame].unit
        if fork.kind == F_PLAIN:
            run.current = <object>fork.value
            run.stack.drop_fork()
            return True
        if fork.kind == F_ITERATE_ARRAY or fork.kind == F_ITERATE_OBJECT:
            next_element(run, fork)
            return True
        if fork.kind == F_RANGE:
            next_number(run, fork)
            return True
        if fork.kind == F_RECURSE:
            next_descendant(run, fork)
            return True
        if fork.kind == F_ALTERNATIVE and not alternative_found(run, fork):
            run.current = <object>fork.value
            run.stack.drop_fork()
            return True
        run.stack.drop_fork()
    return False


cdef bint alternative_found(Run run, Fork* fork):
    return run.stack.cells[run.stack.frames[fork.frame].cells + fork.index].value != NULL


# --- generators ---

cdef int start_iteration(Run run, object value, bint optional) except -1:
    """Starts `.[]`; 0: nothing to yield, 1: the first element is current."""
    cdef Fork* fork
    cdef int kind
    if run.stack.path != NULL and not leads_here(run):
        raise ExpressionError(
            f"Invalid path expression near attempt to iterate through {dump_short(value)}"
        )
    if type(value) is list:
        if PyList_GET_SIZE(value) == 0:
            return 0
        kind = F_ITERATE_ARRAY
    elif type(value) is dict:
        if not <dict>value:
            return 0
        kind = F_ITERATE_OBJECT
    elif optional:
        return 0
    else:
        raise ExpressionError(f"Cannot iterate over {kind_name(value)} ({dump_short(value)})")
    fork = run.stack.push_fork(kind, run.pc, value)
    fork.index = 0
    next_element(run, fork)
    return 1


cdef int next_element(Run run, Fork* fork) except -1:
    """Makes the next element current; the fork goes with the last one."""
    cdef PyObject* key = NULL
    cdef PyObject* value = NULL
    cdef Py_ssize_t index = fork.index
    cdef object element
    cdef object step = None
    cdef bint last = False
    if fork.kind == F_ITERATE_ARRAY:
        element = <object>PyList_GET_ITEM(<object>fork.value, index)
        if fork.path != NULL:
            step = index
        fork.index = index + 1
        last = fork.index >= PyList_GET_SIZE(<object>fork.value)
    else:
        PyDict_Next(<object>fork.value, &index, &key, &value)
        element = <object>value
        step = <object>key
        fork.index = index
        last = PyDict_Next(<object>fork.value, &index, &key, &value) == 0
    if fork.path != NULL:
        append_path(run, fork.path, step, element)
    run.current = element
    if last:
        run.stack.drop_fork()
    return 0


cdef int append_path(Run run, PyObject* parent, object step, object value) except -1:
    cdef tuple chain = (<object>parent, step)
    run.stack.set_path(<PyObject*>chain, <PyObject*>value)
    run.stack.at_path = True
    return 0


cdef int start_range(Run run, int slot, bint has_step) except -1:
    """0: nothing to yield, 1: the first number is current."""
    cdef object low = run.stack.load(0, slot)
    cdef object high = run.stack.load(0, slot + 1)
    cdef object step = run.stack.load(0, slot + 2) if has_step else 1
    cdef Fork* fork
    if not is_number(low) or not is_number(high) or not is_number(step):
        fail("Range bounds must be numeric")
    cdef double number = to_double(low)
    cdef double limit = to_double(high)
    cdef double by = to_double(step)
    if range_ended(number, limit, by, has_step):
        return 0
    fork = run.stack.push_fork(F_RANGE, run.pc, None)
    fork.number = number
    fork.limit = limit
    fork.step = by
    fork.index = has_step
    next_number(run, fork)
    return 1


cdef int next_number(Run run, Fork* fork) except -1:
    cdef double number = fork.number
    run.current = from_double(number)
    run.stack.at_path = False
    number += fork.step
    fork.number = number
    if range_ended(number, fork.limit, fork.step, fork.index == 1):
        run.stack.drop_fork()
    return 0


cdef int start_descent(Run run, object value) except -1:
    """Starts `..`: the value, then all below it, depth first."""
    cdef Fork* fork
    cdef list pending = []
    if run.stack.path != NULL and not leads_here(run):
        # The value itself passes; what is below it is refused when asked for.
        run.stack.push_fork(F_RECURSE, run.pc, value).index = 1
        return 0
    pending.append(value if run.stack.path == NULL else (<object>run.stack.path, value))
    fork = run.stack.push_fork(F_RECURSE, run.pc, pending)
    fork.index = 0
    next_descendant(run, fork)
    return 0


cdef int next_descendant(Run run, Fork* fork) except -1:
    cdef list pending
    cdef object value
    cdef object path = None
    if fork.index:
        raise ExpressionError(
            f"Invalid path expression near attempt to iterate through {dump_short(<object>fork.value)}"
        )
    pending = <list>fork.value
    value = pending.pop()
    if fork.path != NULL:
        path, value = <tuple>value
        run.stack.set_path(<PyObject*>path, <PyObject*>value)
        run.stack.at_path = True
        if type(value) is list:
            charge(5 * len(<list>value))
            for index in range(len(<list>value) - 1, -1, -1):
                pending.append(((path, index), (<list>value)[index]))
        elif type(value) is dict:
            charge(5 * len(<dict>value))
            for key in reversed(<dict>value):
                pending.append(((path, key), (<dict>value)[key]))
    elif type(value) is list:
        charge_elements(len(<list>value))
        pending.extend(reversed(<list>value))
    elif type(value) is dict:
        charge_elements(len(<dict>value))
        pending.extend(reversed((<dict>value).values()))
    run.current = value
    charge(1)
    if not pending:
        run.stack.drop_fork()
    return 0


# --- paths ---

cdef bint leads_here(Run run) noexcept:
    """Whether the tracked path leads to the current value. Of null, false and true there is only one each."""
    cdef PyObject* value = <PyObject*>run.current
    if run.stack.at_path:
        return True
    return value == run.stack.path_value and (run.current is None or run.current is True or run.current is False)


cdef int check_path(Run run, object key) except -1:
    """Refuses a step from a value that is not the one the tracked path leads to."""
    if not leads_here(run):
        raise ExpressionError(
            f"Invalid path expression near attempt to access element {dump_short(key)} of {dump_short(run.current)}"
        )
    return 0


cdef int start_path(Run run, int slot) except -1:
    save_path(run, slot)
    root = []
    run.stack.set_path(<PyObject*>root, <PyObject*>run.current)
    run.stack.at_path = True
    return 0


cdef int save_path(Run run, int slot) except -1:
    """Keeps path and value in two cells; an empty cell stands for NULL."""
    cdef Cell* cells = run.stack.cell(0, slot)
    Py_XINCREF(run.stack.path)
    Py_XINCREF(run.stack.path_value)
    run.stack.fill(cells, run.stack.path, NULL)
    run.stack.fill(cells + 1, run.stack.path_value, NULL)
    return 0


cdef int restore_path(Run run, int slot) except -1:
    """What was evaluated without tracking has come no tracked way. The cells stay filled for forks inside only."""
    cdef Cell* cells = run.stack.cell(0, slot)
    run.stack.set_path(cells[0].value, cells[1].value)
    run.stack.at_path = False
    if run.stack.fork_top <= cells.forks:
        run.stack.fill(cells, NULL, NULL)
        run.stack.fill(cells + 1, NULL, NULL)
    return 0


cdef int end_path(Run run, int slot) except -1:
    if not leads_here(run):
        raise ExpressionError(f"Invalid path expression with result {dump_short(run.current)}")
    run.current = path_list(<object>run.stack.path)
    restore_path(run, slot)
    return 0


cdef int get_path(Run run, object steps) except -1:
    """`getpath` where paths may be tracked: its steps become part of the path."""
    cdef object found
    cdef object chain
    if run.stack.path == NULL:
        run.current = path_get(run.current, steps)
        return 0
    found = path_get(run.current, steps)
    if leads_here(run):
        chain = <object>run.stack.path
        for step in steps:
            chain = (chain, step)
        run.stack.set_path(<PyObject*>chain, <PyObject*>found)
        run.stack.at_path = True
    run.current = found
    return 0


# --- calls ---

cdef int call_function(Run run, Op* op) except -1:
    """Enters a function: its frame's closures are those of the arguments that follow the instruction."""
    cdef Unit unit = <Unit>op.p
    cdef int env = -1
    cdef int level = op.a
    cdef int i
    cdef Op* argument
    cdef Py_ssize_t base = run.stack.closure_top
    cdef Closure* known
    if level >= 0:
        env = run.stack.frame
        while level > 0:
            env = run.stack.frames[env].env
            level -= 1
    for i in range(op.b):
        argument = op + 1 + i
        if argument.p != NULL:
            run.stack.push_closure(argument.p, run.stack.frame)
        else:
            known = closure_at(run, argument.a, argument.b)
            run.stack.push_closure(known.unit, known.env)
    enter_unit(run, unit, env, run.pc + 1 + op.b, op.c and may_replace(run, env, base))
    return 0


cdef Closure* closure_at(Run run, int level, int index) noexcept:
    cdef int frame = run.stack.frame
    while level > 0:
        frame = run.stack.frames[frame].env
        level -= 1
    return &run.stack.closures[run.stack.frames[frame].closures + index]


cdef int call_closure(Run run, Op* op) except -1:
    cdef Closure closure = closure_at(run, op.a, op.b)[0]
    cdef Unit unit = <Unit>closure.unit
    if unit.direct is not None and run.stack.path == NULL:
        run.stack.push_frame(unit, closure.env, 0)
        evaluate_current(run, unit.direct)
        run.stack.frame_top -= 1
        run.stack.frame = run.stack.frames[run.stack.frame_top].return_frame
        run.pc += 1
        return 0
    enter_unit(run, unit, closure.env, run.pc + 1, op.c and may_replace(run, closure.env, run.stack.closure_top))
    return 0


cdef bint may_replace(Run run, int env, Py_ssize_t base):
    """Whether a tail call may take the current frame's place: nothing else needs that frame."""
    cdef Py_ssize_t i
    if env == run.stack.frame or run.stack.frame + 1 != run.stack.frame_top:
        return False
    if run.stack.fork_top > 0 and run.stack.forks[run.stack.fork_top - 1].frame_top > run.stack.frame:
        return False
    for i in range(base, run.stack.closure_top):
        if run.stack.closures[i].env == run.stack.frame:
            return False
    return True


cdef int enter_unit(Run run, Unit unit, int env, int return_pc, bint replace) except -1:
    cdef Frame frame
    cdef Py_ssize_t i
    cdef Py_ssize_t kept = run.stack.closure_top - unit.parameter_count
    if replace:
        frame = run.stack.frames[run.stack.frame]
        run.stack.release_cells(frame.cells)
        for i in range(unit.parameter_count):
            run.stack.closures[frame.closures + i] = run.stack.closures[kept + i]
        run.stack.closure_top = frame.closures + unit.parameter_count
        run.stack.frame_top -= 1
        run.stack.frame = frame.return_frame
        return_pc = frame.return_pc
    run.stack.push_frame(unit, env, return_pc)
    run.unit = unit
    run.pc = 0
    return 0


cdef int leave_unit(Run run) except -1:
    """Returns from a function; its frame goes unless a fork may come back into it."""
    cdef Frame* frame = &run.stack.frames[run.stack.frame]
    cdef int index = run.stack.frame
    run.pc = frame.return_pc
    run.stack.frame = frame.return_frame
    if index + 1 == run.stack.frame_top and (
        run.stack.fork_top == 0 or run.stack.forks[run.stack.fork_top - 1].frame_top <= index
    ):
        run.stack.release_cells(frame.cells)
        run.stack.closure_top = frame.closures
        run.stack.frame_top = index
    run.unit = <Unit>run.stack.frames[run.stack.frame].unit
    return 0


# --- labels ---

cdef int set_label(Run run, int slot) except -1:
    cdef Fork* fork
    run.stack.next_label += 1
    run.stack.store(slot, run.stack.next_label)
    fork = run.stack.push_fork(F_LABEL, 0, None)
    fork.index = run.stack.next_label
    return 0


cdef bint take_break(Run run, Py_ssize_t label) except -1:
    """Leaves a label, unless a `try` in between takes it for an error, as jq's does."""
    cdef Py_ssize_t i = run.stack.fork_top - 1
    cdef int ended = 0
    while i >= 0 and not (run.stack.forks[i].kind == F_LABEL and run.stack.forks[i].index == label):
        if run.stack.forks[i].kind == F_TRY_END:
            ended += 1
        elif run.stack.forks[i].kind == F_PATTERN or run.stack.forks[i].kind == F_TRY and ended == 0:
            return catch_error(run, {"__jq": label - 1})
        elif run.stack.forks[i].kind == F_TRY:
            ended -= 1
        i -= 1
    unwind_to(run, label)
    return False


cdef int unwind_to(Run run, Py_ssize_t label) except -1:
    """Forgets all forks down to a label's, that one included."""
    while run.stack.fork_top > 0:
        run.stack.drop_fork()
        if run.stack.forks[run.stack.fork_top].kind == F_LABEL and run.stack.forks[run.stack.fork_top].index == label:
            return 0
    raise SystemError("label without a fork")


cdef list path_list(object chain):
    cdef list result = []
    while type(chain) is tuple:
        result.append((<tuple>chain)[1])
        chain = (<tuple>chain)[0]
    charge(1 + (len(result) >> 1))
    result.reverse()
    return result
