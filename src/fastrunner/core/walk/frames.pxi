"""Stage 4, walk: what a walk remembers between two calls, as objects on the heap. `_core.pxd` has the fields.

A *strand* is one line of control: the workflow itself, and each branch of a running fork. It has a stack of *frames*,
linked by `parent`: one for each task that has begun and not ended, except those that begin and end in one step; at the
bottom of a strand lies a frame without a task, which runs the root list or the branch. A *scope* holds the variables of
a loop or a handler; scopes are linked too, and never modified.

Rule: nothing here refers to the stack of C or Python, so that a walk can stop after any step, be written down, and go
on elsewhere.
"""

cimport cython

# What most walks have none of, most of the time, shared between them: a walk that gets the first entry gets a dict or a
# list of its own. Nobody puts anything into these.
cdef dict NO_ENTRIES = {}
cdef list NO_ITEMS = []


cdef class TaskFrame:
    """A running task."""


@cython.final
cdef class Resource:
    """Something outside that an execution waits for or holds."""


@cython.final
cdef class Strand:
    """One line of control."""


cdef TaskFrame bottom_frame(TaskList body, object data, Scope scope, int attempt):
    """The frame a strand begins with."""
    cdef TaskFrame frame = TaskFrame.__new__(TaskFrame)
    begin_list(frame, body, data)
    frame.scope = scope
    frame.body_attempt = attempt
    return frame


cdef int begin_list(TaskFrame frame, TaskList body, object data) noexcept:
    """The frame runs a list of tasks from its first one on."""
    frame.body = body
    frame.position = 0 if body.count else POSITION_DONE
    frame.data = data
    return 0


cdef TaskFrame plain_frame():
    """For kinds that remember nothing but what all do."""
    return TaskFrame.__new__(TaskFrame)


cdef TaskFrame push(Walk walk, Place at, object data):
    """Puts the frame of the task at a place on its strand: blocked, until its kind says what it does."""
    cdef TaskFrame parent = at.frame
    cdef TaskFrame frame = at.task.kind.frame()
    frame.parent = parent
    frame.task = at.task
    frame.position = POSITION_BLOCKED
    frame.data = frame.input = data
    frame.raw_input = at.raw_input
    frame.started_at_ms = at.started_at_ms
    frame.timeout_at_ms = at.timeout_at_ms
    frame.scope = parent.scope
    frame.attempt = at.attempt
    frame.body_attempt = parent.body_attempt
    at.strand.top = frame
    return frame


# --- strands ---

cdef Strand new_strand(Walk walk, TaskList body, object data, Scope scope, int attempt):
    cdef Strand strand = Strand.__new__(Strand)
    strand.id = walk.next_strand_id
    walk.next_strand_id += 1
    strand.top = bottom_frame(body, data, scope, attempt)
    walk.strands[strand.id] = strand
    return strand


cdef int make_ready(Walk walk, Strand strand) except -1:
    """Lets a strand take steps again, unless it has ended meanwhile or waits for something else."""
    if not strand.is_ready and strand.id in walk.strands and strand.top.position != POSITION_BLOCKED:
        strand.is_ready = True
        strand.steps_left = <int> walk.facts.behaviour.strand_steps_max
        walk.ready.append(strand)
    return 0


cdef int block(Walk walk, Strand strand) except -1:
    if strand.is_ready:
        strand.is_ready = False
        walk.ready.remove(strand)
    return 0


# --- places in a walk ---

cdef int enter_task(Walk walk, Place at, Strand strand, TaskFrame frame, TaskNode task) except -1:
    """Expressions of a task that begins follow; `frame` is the one its list runs in."""
    at.task = task
    at.instance = task.reference
    at.scope = at.own_scope = frame.scope
    at.context = strand.context
    at.raw_input = frame.data
    at.input = at.raw_output = at.output = None
    at.started_at_ms = walk.now_ms
    at.timeout_at_ms = 0
    at.attempt = 1 if task.kind.counts_attempts else frame.body_attempt
    at.strand = strand
    at.frame = frame
    return 0


cdef Place return_to(Walk walk, Strand strand, TaskFrame frame):
    """The place of a task that has a frame."""
    cdef Place at = walk.work.place
    at.task = frame.task
    at.instance = frame.task.reference
    at.scope = at.own_scope = frame.parent.scope
    at.context = strand.context
    at.raw_input = frame.raw_input
    at.input = frame.input
    at.raw_output = at.output = None
    at.started_at_ms = frame.started_at_ms
    at.attempt = frame.attempt
    at.strand = strand
    at.frame = frame.parent
    return at
