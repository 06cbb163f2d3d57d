"""Stage 4, expressions: the compiled program and its evaluation, the surface the rest of the core uses.

Rules: a program is immutable and shared; whoever evaluates it brings a machine. Runs are memory only: each is one
evaluation's own while it is in use, and is emptied afterwards.
"""

from cpython.list cimport PyList_GET_SIZE

from fastrunner.base import limits as _limits
from fastrunner._jq cimport Machine, Program, State

cdef extern from "Python.h":
    int PyGC_Disable()
    int PyGC_Enable()

cdef list idle_runs = []


cdef class Program:
    """A compiled jq expression; immutable, shared between executions."""

    def __cinit__(self, key=None):
        if key is not KEY:
            raise TypeError("use compile_expression()")

    cdef object evaluate(self, Machine machine, object input, tuple arguments, long long now_ms):
        """`first` on what is left of the budget that `Machine.allow` set."""
        if machine.state.busy:
            raise RuntimeError("the machine is evaluating another expression")
        return self.evaluate_in(&machine.state, input, arguments, now_ms)

    cdef object evaluate_in(self, State* state, object input, tuple arguments, long long now_ms):
        cdef list outputs
        cdef void* before
        cdef object value
        if self.bare:
            state.now_ms = now_ms
            state.met_special = self.special
            before = enter(state)
            try:
                value = evaluate(None, state, <Node>self.direct, input)
                return plain(value) if state.met_special else value
            finally:
                leave(state, before)
        value = self.run_in(state, input, arguments, now_ms)
        if self.direct is not None:
            return value
        outputs = <list>value
        if PyList_GET_SIZE(outputs) == 1:
            return outputs[0]
        return outputs if outputs else None

    cdef object run_in(self, State* state, object input, tuple arguments, long long now_ms):
        """The one result of a direct expression, or else the list of all results in order."""
        cdef Run run
        cdef void* before
        cdef bint collecting
        cdef object value
        if len(arguments) != self.argument_count:
            raise ValueError(f"the expression takes {self.argument_count} arguments, not {len(arguments)}")
        run = idle_runs.pop() if idle_runs else Run()
        state.now_ms = now_ms
        before = enter(state)
        # Values have no cycles; looking for some while an evaluation builds them can double its time.
        collecting = PyGC_Disable()
        try:
            run.state = state
            state.met_special = self.special
            value = run_with(run, self, input, arguments)
            return plain(value) if state.met_special else value
        finally:
            leave(state, before)
            forget(run)
            if not run.stack.is_large():
                idle_runs.append(run)
            if collecting:
                PyGC_Enable()

    def first(self, input, arguments=(), now_ms=0):
        """The expression's one value: no result gives None, one result itself, several results a list of them."""
        cdef State state
        begin(&state, &DEFAULT_BOUNDS)
        return self.evaluate_in(&state, input, tuple(arguments), now_ms)

    def outputs(self, input, arguments=(), now_ms=0):
        """All results in order."""
        cdef State state
        begin(&state, &DEFAULT_BOUNDS)
        value = self.run_in(&state, input, tuple(arguments), now_ms)
        return <list>value if self.direct is None else [value]

    def argument_offset(self, name):
        """Code point offset of the first use of a free variable, for problems."""
        return self.offsets[name]

    def __repr__(self):
        return f"Program({self.text!r})"


cdef object run_with(Run run, Program program, object input, tuple arguments):
    cdef int i
    run.stack.push_frame(<Unit>program.unit, -1, 0)
    for i in range(program.argument_count):
        run.stack.store(program.slots[i], arguments[i])
    if program.direct is not None:
        return evaluate(run.stack, run.state, <Node>program.direct, input)
    return results_of(run, <Unit>program.unit, input)


cpdef Program compile_expression(str text):
    """Compiles jq text (without `${ }`). Raises ExpressionProblem."""
    cdef long long steps_left = _limits.EXPRESSION_COMPILE_STEPS_MAX
    return compile_within(text, &steps_left, True)


cdef Program compile_within(str text, long long* steps_left, bint hinting):
    """The same on steps that others share; below zero afterwards where they did not suffice. Hints take time."""
    cdef State state
    cdef void* before
    if text is None:
        raise TypeError("the expression must be a str")
    if len(text) > _limits.EXPRESSION_SIZE_BYTES_MAX:
        raise ExpressionProblem(
            f"the expression has {len(text)} characters, at most {_limits.EXPRESSION_SIZE_BYTES_MAX} are allowed", 0
        )
    begin(&state, &DEFAULT_BOUNDS)
    state.steps_left = steps_left[0]
    before = enter(&state)
    try:
        return compiled_program(text, hinting)
    except BudgetExceeded:
        raise ExpressionProblem("the expression takes too long to compile", 0) from None
    except ExpressionProblem as problem:
        raise ExpressionProblem(problem.message, problem.offset, text) from None
    finally:
        steps_left[0] = state.steps_left
        leave(&state, before)


cdef Program compiled_program(str text, bint hinting):
    cdef Program program
    cdef Emitter emitter = Emitter()
    cdef Names names = emitter.names
    cdef Node node = Parser().parse(text)
    # Before names are resolved: that makes other trees of some calls.
    cdef Truth truth = <Truth>truth_of(node)
    cdef bint is_doubtful = "=" in text and selects_by_update(node)
    names.hinting = hinting
    names.root = new_unit(None)
    emitter.walk(node, names.root, None, False)
    finish(names.root)
    program = Program.__new__(Program, KEY)
    program.text = text
    program.truth = truth
    program.is_doubtful = is_doubtful
    program.arguments = tuple(names.arguments)
    program.offsets = names.argument_offsets
    program.argument_count = len(names.arguments)
    program.slots = [names.argument_slots[name] for name in names.arguments]
    program.unit = names.root
    if node.single == S_YES:
        program.direct = node
        program.bare = names.root.cell_count == 0
    else:
        program.is_generator = generates_results(node)
    program.special = running().met_special
    return program


cdef set input_members(Program program):
    """The members of the input itself that an expression reads, those of its own functions aside."""
    cdef State state
    cdef void* before
    cdef set names = set()
    begin(&state, &DEFAULT_BOUNDS)
    before = enter(&state)
    try:
        find_members(Parser().parse(program.text), names)
    finally:
        leave(&state, before)
    return names


cdef int compile_library() except -1:
    cdef State state
    cdef void* before
    cdef str name, arity
    begin(&state, &DEFAULT_BOUNDS)
    before = enter(&state)
    try:
        for key in LIBRARY:
            name, _, arity = key.rpartition("/")
            library_unit(name, int(arity))
    finally:
        leave(&state, before)
    return 0


compile_library()
