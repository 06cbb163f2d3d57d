"""Stage 4, walk: a step. A task begins, or a list of tasks has ended.

Rules: what a kind of task does stands in its row of the table of kinds; here is what all have in common. A task that
needs nothing but the processor begins and ends in one step, without a frame. Everything that can fail is evaluated
before a frame is pushed, so that a fault in a `begin` finds the stack as it was.
"""

cimport cython


@cython.cdivision(True)
cdef int run(Walk walk) except -1:
    """Takes steps until nothing can go on or the slice is over. Strands take turns, whatever the slices are."""
    cdef Behaviour behaviour = walk.facts.behaviour
    cdef Workspace work = walk.work
    cdef Machine machine = work.machine
    cdef Measure* measure = &work.measure
    cdef list ready = walk.ready
    cdef long long budget = behaviour.steps_per_slice_max
    cdef long long expression_steps_per_step = behaviour.expression_steps_per_step
    cdef long long data_bytes_per_step = behaviour.data_bytes_per_step
    cdef long long events_max = behaviour.events_max, steps_max = behaviour.steps_max
    cdef long long spent
    cdef Strand strand
    cdef TaskFrame frame
    if work.has_due:
        return 0
    # Who ends the execution gives the walk another list, and another state.
    while budget > 0 and walk.state == STATUS_RUNNING and walk.grace_until_ms == 0 and len(ready) > 0:
        strand = <Strand> ready[0]
        frame = strand.top
        if walk.last_sequence >= events_max or walk.steps_taken >= steps_max:
            return end_runaway(walk, frame)
        walk.steps_taken += 1
        if frame.position >= 0:
            begin(walk, strand, frame)
        else:
            leave(walk, strand, frame)
        # Long evaluations and large data end a slice early, so that others get their turn between them.
        budget -= 1
        spent = machine.take_spent()
        if spent >= expression_steps_per_step:
            budget -= spent / expression_steps_per_step
        spent = take_measured(measure) + work.bytes_spent
        if spent >= data_bytes_per_step:
            budget -= spent / data_bytes_per_step
        work.bytes_spent = 0
        strand.steps_left -= 1
        if strand.steps_left <= 0 and strand.is_ready:
            strand.steps_left = <int> behaviour.strand_steps_max
            ready.remove(strand)
            ready.append(strand)
    return 0


cdef int end_runaway(Walk walk, TaskFrame frame) except -1:
    """A bound of the whole execution is reached. Nothing catches that: a `try` in an endless loop would go on."""
    cdef Behaviour behaviour = walk.facts.behaviour
    cdef str detail = f"the execution has {behaviour.events_max} events, two for each task: no more are allowed"
    if walk.steps_taken >= behaviour.steps_max:
        detail = f"the execution has taken {walk.steps_taken} steps: no more are allowed"
    return fail_workflow(walk, make_error("runtime", detail, "/do" if frame.task is None else frame.task.reference))


cdef int begin(Walk walk, Strand strand, TaskFrame frame) except -1:
    """The task at the frame's position begins; many end here as well."""
    cdef TaskNode task = <TaskNode> frame.body.tasks[frame.position]
    cdef Place at = walk.work.place
    cdef object data = frame.data
    cdef bint has_started = False
    enter_task(walk, at, strand, frame, task)
    try:
        if task.condition is not None and not holds(at, task.condition, data):
            frame.position = task.following
            return 0
        emit(walk, task.event_started, at.attempt, at.scope)
        has_started = True
        begin_work(walk, at, task, data)
    except WalkFault as fault:
        if not has_started:
            emit(walk, task.event_started, at.attempt, at.scope)
        fail_task(walk, at, fault.error)
    return 0


cdef inline int begin_work(Walk walk, Place at, TaskNode task, object data) except -1:
    """A task that is to run: its input, its timeout, and what its kind does. Raises WalkFault."""
    if not task.is_plain:
        if task.input_schema is not None:
            match_schema(at, task.input_schema, data, "input")
        if task.input_from is not None:
            data = fill(at, task.input_from, data, 0)
        at.input = data
        at.timeout_at_ms = deadline_of(at, task.timeout, data)
    at.input = data
    return task.kind.begin(walk, at, data)


cdef int leave(Walk walk, Strand strand, TaskFrame frame) except -1:
    """A list of tasks has ended, at its end or by `exit`."""
    if frame.task is not None:
        return frame.task.kind.leave(walk, strand, frame)
    if strand.owner is None:
        return end_workflow(walk, strand, frame.data)
    return branch_done(walk, strand, frame.data)


cdef int complete(Walk walk, Place at, object output, int then) except -1:
    """A task's work is done: its output and export, its last event, and what follows in its list's frame."""
    cdef TaskNode task = at.task
    cdef Strand strand = at.strand
    cdef TaskFrame frame = at.frame
    cdef object context
    if not task.is_plain:
        at.raw_output = at.output = output
        if task.output_as is not None:
            output = fill(at, task.output_as, output, 0)
        if task.output_schema is not None:
            match_schema(at, task.output_schema, output, "output")
        at.output = output
        context = at.context
        if task.export_as is not None:
            context = fill(at, task.export_as, output, 0)
        if task.export_schema is not None:
            match_schema(at, task.export_schema, context, "context")
        if task.export_as is not None:
            strand.context, strand.has_exported = context, True
    emit(walk, task.event_completed, at.attempt, at.scope, None, None, output_text(walk, output))
    walk.work.tally.add(task.kind.number, TALLY_COMPLETED, walk.now_ms - at.started_at_ms)
    frame.data = output
    frame.position = then
    return lead_out(walk, at, output, then) if then <= POSITION_END else 0


cdef int lead_out(Walk walk, Place at, object output, int then) except -1:
    """What follows a task is none of its list: the workflow ends, or extensions have the word first."""
    return end_workflow(walk, at.strand, output) if then == POSITION_END else end_extended(at, output)


cdef int finish(Walk walk, Strand strand, TaskFrame frame, object output, int then) except -1:
    """A task with a frame has done its work, whatever still runs in it or is waited for."""
    cdef Place at
    if strand.top is not frame:
        cut(walk, strand, frame)
    strand.wake_at_ms = 0
    release(walk, frame)
    strand.top = frame.parent
    at = return_to(walk, strand, frame)
    try:
        complete(walk, at, output, then)
    except WalkFault as fault:
        fail_task(walk, at, fault.error)
    return 0
