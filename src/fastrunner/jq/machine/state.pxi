"""Stage 4, expressions: the machine of an execution: its bounds, its budget and its clock.

Rules: nothing that decides an outcome or its cost lives outside the state of the machine that evaluates, so that
threads do not disturb each other and equal calls have equal results and costs. An evaluation that ran out of steps has
spent its whole budget and no more, whatever its last piece of work would have cost.
"""

from fastrunner.base import limits as _limits
from fastrunner._jq cimport Bounds, Machine, State, settle

# Without it nothing is made of a class whose objects come from functions.
cdef object KEY = object()
cdef Bounds DEFAULT_BOUNDS

DEFAULT_BOUNDS.steps = _limits.EXPRESSION_STEPS_MAX
DEFAULT_BOUNDS.depth = _limits.EXPRESSION_DEPTH_MAX
DEFAULT_BOUNDS.outputs = _limits.EXPRESSION_OUTPUTS_MAX
DEFAULT_BOUNDS.array_size = _limits.EXPRESSION_ARRAY_SIZE_MAX
DEFAULT_BOUNDS.string_size = _limits.EXPRESSION_STRING_SIZE_MAX
DEFAULT_BOUNDS.error_size = _limits.EXPRESSION_ERROR_SIZE_MAX
DEFAULT_BOUNDS.regex_size = _limits.REGEX_SIZE_CHARS_MAX
DEFAULT_BOUNDS.regex_depth = _limits.REGEX_DEPTH_MAX
DEFAULT_BOUNDS.regex_instructions = _limits.REGEX_INSTRUCTIONS_MAX
DEFAULT_BOUNDS.regex_stack = _limits.REGEX_STACK_MAX


cdef Bounds default_bounds() noexcept:
    return DEFAULT_BOUNDS


cdef inline void begin(State* state, const Bounds* bounds) noexcept:
    """Fills in a state that has evaluated nothing; the bounds must outlive it."""
    state.bounds = bounds
    state.steps_left = bounds.steps
    state.steps_spent = 0
    state.now_ms = 0
    state.met_nan = False
    state.met_special = False
    state.busy = False
    state.matcher = NULL
    state.guarded = NULL


cdef inline void* enter(State* state) noexcept:
    """The state runs in this thread from here on; gives what ran before, for `leave`."""
    global _running
    cdef void* before = _running
    state.busy = True
    _running = <void*>state
    return before


cdef inline void leave(State* state, void* before) noexcept:
    global _running
    state.busy = False
    _running = before
    if state.matcher != NULL:
        let_go_of_matcher(state)


cdef class Machine:

    def __cinit__(self, key=None):
        if key is not KEY:
            raise TypeError("machines belong to executions and cannot be made")

    cdef Bounds bounds(self) noexcept:
        return self.own_bounds

    cdef int set_bounds(self, const Bounds* bounds) except -1:
        """Other bounds from the next evaluation on, which begins with a whole budget."""
        if self.state.busy:
            raise RuntimeError("the machine is evaluating an expression")
        settle(&self.state)
        self.own_bounds = bounds[0]
        self.state.steps_left = bounds.steps
        return 0


cdef Machine new_machine(const Bounds* bounds):
    """A machine with the given bounds, or those of `fastrunner.base.limits` for NULL."""
    cdef Machine machine = Machine.__new__(Machine, KEY)
    machine.own_bounds = bounds[0] if bounds != NULL else DEFAULT_BOUNDS
    begin(&machine.state, &machine.own_bounds)
    return machine
