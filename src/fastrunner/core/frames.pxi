"""Stage 4, walk: what a walk remembers between two calls, as objects on the heap.

A *strand* is one line of control: the workflow itself, and each branch of a running fork. It has a stack of *frames*,
linked by `parent`: one for each task that has begun and not ended, except those that begin and end in one step; at the
bottom of a strand lies a frame without a task, which runs the root list or the branch. A *scope* holds the variables of
a loop or a handler; scopes are linked too, and never modified.

Rule: nothing here refers to the stack of C or Python, so that a walk can stop after any step, be written down, and go
on elsewhere.
"""

cimport cython


@cython.final
cdef class Scope:
    cdef Scope parent
    cdef object first
    cdef object second


cdef class TaskFrame:
    """A running task: a list of subtasks (`do`, or the bottom of a strand), or a task that waits for something."""

    cdef TaskFrame parent
    cdef TaskNode task
    """None at the bottom of a strand."""
    cdef TaskList body
    cdef int position
    """The subtask that comes next, or a negative POSITION."""
    cdef object data
    """What flows into the next subtask."""
    cdef object raw_input
    cdef object input
    cdef long long started_at_ms
    cdef long long timeout_at_ms
    """0: no timeout."""
    cdef Scope scope
    """The variables of the body."""
    cdef int attempt
    """Of the task itself, for its events."""
    cdef int body_attempt
    """Of subtasks: how often the nearest `try` around them has begun."""


@cython.final
cdef class ForFrame(TaskFrame):
    cdef list items
    cdef Py_ssize_t iteration
    """The iteration that runs; -1 before the first."""


cdef enum:
    TRY_BODY
    TRY_DELAY
    TRY_HANDLER


@cython.final
cdef class TryFrame(TaskFrame):
    cdef int phase
    cdef dict error
    """What was caught last, while delaying or handling."""
    cdef long long attempt_until_ms
    """When the attempt that runs has taken too long; 0: never."""
    cdef long long total_until_ms
    """When all attempts have taken too long; 0: never."""


@cython.final
cdef class ForkFrame(TaskFrame):
    cdef Strand strand
    """The strand this frame is on."""
    cdef list branches
    """Strands by branch; None for a branch that has ended."""
    cdef list outputs
    """By branch; None until the branch has ended."""
    cdef list contexts
    """By branch: a one-element list with the context it exported, or None."""
    cdef int running


@cython.final
cdef class Strand:
    cdef long long id
    cdef ForkFrame owner
    """The fork this strand is a branch of; None for the workflow's own."""
    cdef int branch
    cdef TaskFrame top
    cdef object context
    cdef bint has_exported
    cdef long long wake_at_ms
    """When the top frame goes on; 0 unless it waits for a time."""
    cdef PerformEffect effect
    """What the top frame waits for, if it is an effect."""
    cdef bint is_ready
    """It can take a step, and is in the walk's queue."""
    cdef int steps_left
    """Steps until it lets other strands go first."""


cdef Scope make_scope(Scope parent, object first, object second):
    cdef Scope scope = Scope.__new__(Scope)
    scope.parent, scope.first, scope.second = parent, first, second
    return scope


cdef TaskFrame bottom_frame(TaskList body, object data, Scope scope, int attempt):
    """The frame a strand begins with."""
    cdef TaskFrame frame = TaskFrame.__new__(TaskFrame)
    frame.body = body
    frame.position = 0 if body.count else POSITION_DONE
    frame.data = data
    frame.scope = scope
    frame.body_attempt = attempt
    return frame
