"""Stage 4, expressions: the compiled program and its evaluation, the surface the rest of the core uses.

Rules: a program is immutable and shared; each evaluation has a budget of its own. Machines are reused, one per
evaluation in progress.
"""

cimport cython

cdef extern from "Python.h":
    int PyGC_Disable()
    int PyGC_Enable()

cdef list idle_machines = []


@cython.final
cdef class Program:
    """A compiled jq expression; immutable, shared between executions."""

    cdef readonly str text
    cdef readonly tuple arguments
    cdef dict offsets
    cdef Unit unit
    cdef int argument_count
    # Set if the whole expression yields exactly one value by construction.
    cdef Node direct
    # A direct expression without variables needs no frame.
    cdef bint bare
    cdef list slots

    def __init__(self):
        raise TypeError("use compile_expression()")

    cdef object evaluate_first(self, object input, tuple arguments, long long now_ms):
        """`first` for the other parts of the core, on what is left of the budget that `allow_steps` set."""
        global evaluation_now_ms
        cdef list outputs
        if self.bare:
            evaluation_now_ms = now_ms
            return evaluate(SCRATCH, self.direct, input)
        outputs = self.run(input, arguments, now_ms)
        if PyList_GET_SIZE(outputs) == 1:
            return outputs[0]
        return outputs if outputs else None

    cdef list run(self, object input, tuple arguments, long long now_ms):
        global evaluation_now_ms
        cdef Evaluator machine
        cdef int i
        if len(arguments) != self.argument_count:
            raise ValueError(f"the expression takes {self.argument_count} arguments, not {len(arguments)}")
        machine = idle_machines.pop() if idle_machines else Evaluator()
        evaluation_now_ms = now_ms
        # Values have no cycles; looking for some while an evaluation builds them can double its time.
        cdef bint collecting = PyGC_Disable()
        try:
            machine.reset()
            machine.push_frame(self.unit, -1, 0)
            for i in range(self.argument_count):
                machine.store(self.slots[i], arguments[i])
            if self.direct is not None:
                return [evaluate(machine, self.direct, input)]
            return machine.run(self.unit, input)
        finally:
            machine.reset()
            machine.current = None
            machine.outputs = None
            if not machine.is_large():
                idle_machines.append(machine)
            if collecting:
                PyGC_Enable()

    def first(self, input, arguments=(), now_ms=0):
        """The expression's one value: no result gives None, one result itself, several results a list of them."""
        allow_steps()
        return self.evaluate_first(input, tuple(arguments), now_ms)

    def outputs(self, input, arguments=(), now_ms=0):
        """All results in order."""
        allow_steps()
        return self.run(input, tuple(arguments), now_ms)

    def argument_offset(self, name):
        """Code point offset of the first use of a free variable, for problems."""
        return self.offsets[name]

    def __repr__(self):
        return f"Program({self.text!r})"


cdef Evaluator SCRATCH = Evaluator()


cpdef Program compile_expression(str text):
    """Compiles jq text (without `${ }`). Raises ExpressionProblem."""
    global steps_left
    if len(text) > _limits.EXPRESSION_SIZE_BYTES_MAX:
        raise ExpressionProblem(
            f"the expression has {len(text)} characters, at most {_limits.EXPRESSION_SIZE_BYTES_MAX} are allowed", 0
        )
    steps_left = _limits.EXPRESSION_COMPILE_STEPS_MAX
    try:
        return compiled_program(text)
    except BudgetExceeded:
        raise ExpressionProblem("the expression takes too long to compile", 0) from None
    except ExpressionProblem as problem:
        raise ExpressionProblem(problem.message, problem.offset, text) from None


cdef Program compiled_program(str text):
    cdef Program program
    cdef Emitter compiler
    cdef Node node = Parser().parse(text)
    compiler = Emitter()
    compiler.root = compiler.new_unit(None)
    compiler.walk(node, compiler.root, None, False)
    compiler.finish(compiler.root)
    program = Program.__new__(Program)
    program.text = text
    program.arguments = tuple(compiler.arguments)
    program.offsets = compiler.argument_offsets
    program.argument_count = len(compiler.arguments)
    program.slots = [compiler.argument_slots[name] for name in compiler.arguments]
    program.unit = compiler.root
    if node.single == S_YES:
        program.direct = node
        program.bare = compiler.root.cell_count == 0
    return program
