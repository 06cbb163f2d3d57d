"""Stage 4, walk: a task with extensions around it: their `before`, the task, their `after`.

Theory of operation. The frame here runs one list after the other: for each extension, outermost first, its `when` is
asked and its `before` runs; then a list that is the task alone; then `after` of those whose `when` held, innermost
first. The task begins when the frame does, as far as events and `$task.startedAt` tell, and completes before the first
`after`; where it leads on waits in the frame until all is done.

Rules: no list's output goes anywhere but with `exit` in `before`: that skips the task and the extensions within, and is
the task's raw output; what the task does with an output it does with that one, and extensions around are told. What
fails before the task has ended fails the task. A timeout of the task is for the task alone.
"""

cimport cython

cdef enum:
    EXTENDED_BEFORE
    EXTENDED_TASK
    EXTENDED_AFTER


@cython.final
@cython.internal
cdef class ExtendedFrame(TaskFrame):
    cdef int phase
    cdef int number
    """The extension that it is at; -1 at first."""
    cdef list entered
    """Numbers of those whose `when` held, as far as their `after` has not begun."""
    cdef int then
    """Position that follows, once the task has completed."""
    cdef object output
    """Of the task."""
    cdef object raw_output


cdef TaskNode never_built(PlanBuilder builder, dict definition, Siblings siblings):
    """What extensions surround has been built before."""
    raise AssertionError("no document names a task that is extended")


cdef TaskFrame extended_frame():
    return ExtendedFrame.__new__(ExtendedFrame)


cdef Scope extension_scope(ExtendedFrame frame):
    """`$task` of the extensions: the DSL's facts of the task, and beside them what its definition has. The indices of
    loops go on."""
    cdef dict facts = facts_of_task(frame.task, frame.raw_input, frame.raw_output, frame.started_at_ms)
    cdef Scope scope = make_scope(None, {**frame.task.definition, **facts}, None)
    if frame.parent.scope is not None:
        scope.iteration = frame.parent.scope.iteration
    return scope


cdef int begin_extended(Walk walk, Place at, object data) except -1:
    cdef ExtendedFrame frame = <ExtendedFrame> push(walk, at, data)
    frame.phase = EXTENDED_BEFORE
    frame.number = -1
    frame.entered = []
    frame.scope = extension_scope(frame)
    frame.position = POSITION_DONE
    return 0


cdef int leave_extended(Walk walk, Strand strand, TaskFrame frame) except -1:
    """A list has ended."""
    cdef ExtendedFrame extended = <ExtendedFrame> frame
    if extended.phase == EXTENDED_AFTER:
        return begin_after(walk, strand, extended)
    if extended.phase == EXTENDED_BEFORE:
        if frame.position == POSITION_EXIT:
            return take_over(walk, strand, extended)
        return begin_before(walk, strand, extended)
    extended.then = POSITION_EXTENDED - frame.position
    extended.output = frame.data
    extended.phase = EXTENDED_AFTER
    frame.scope = extension_scope(extended)
    return begin_after(walk, strand, extended)


cdef int begin_before(Walk walk, Strand strand, ExtendedFrame frame) except -1:
    """The next extension, or the task."""
    cdef ExtendedNode task = <ExtendedNode> frame.task
    cdef Extension extension
    cdef Place at
    frame.number += 1
    if frame.number == len(task.extensions):
        return begin_inner(walk, strand, frame)
    frame.position = POSITION_DONE
    extension = <Extension> task.extensions[frame.number]
    if extension.when is not None:
        at = return_to(walk, strand, frame)
        at.own_scope = frame.scope
        try:
            if not holds(at, extension.when, frame.raw_input):
                return 0
        except WalkFault as fault:
            return fail_frame(walk, strand, frame, fault.error)
    frame.entered.append(frame.number)
    return begin_list(frame, list_of(task, frame.number, EXTENDED_BEFORE), frame.raw_input)


cdef TaskList list_of(ExtendedNode task, int number, int phase):
    """`before` or `after` of an extension."""
    cdef Extension extension = <Extension> task.extensions[number]
    cdef TaskList body = extension.before if phase == EXTENDED_BEFORE else extension.after
    return NO_TASKS if body is None else body


cdef Place enter_inner(Walk walk, Strand strand, ExtendedFrame frame):
    """The place of the task itself, as if it began now; only that it began with its extensions."""
    cdef Place at = walk.work.place
    frame.phase = EXTENDED_TASK
    frame.scope = frame.parent.scope
    begin_list(frame, (<ExtendedNode> frame.task).body, frame.raw_input)
    enter_task(walk, at, strand, frame, (<ExtendedNode> frame.task).inner)
    at.started_at_ms = frame.started_at_ms
    return at


cdef int begin_inner(Walk walk, Strand strand, ExtendedFrame frame) except -1:
    cdef Place at = enter_inner(walk, strand, frame)
    try:
        begin_work(walk, at, at.task, frame.raw_input)
    except WalkFault as fault:
        fail_task(walk, at, fault.error)
    return 0


cdef int take_over(Walk walk, Strand strand, ExtendedFrame frame) except -1:
    """`exit` in `before`: what that list made is the task's raw output. Its extension has left, and has no `after`."""
    cdef object output = frame.data
    cdef Place at = enter_inner(walk, strand, frame)
    frame.entered.pop()
    at.input = frame.raw_input
    try:
        complete(walk, at, output, at.task.then)
    except WalkFault as fault:
        fail_task(walk, at, fault.error)
    return 0


cdef int end_extended(Place at, object output) except -1:
    """The task has completed; `after` sees its raw output."""
    (<ExtendedFrame?> at.frame).raw_output = output if at.task.is_plain else at.raw_output
    return 0


cdef int begin_after(Walk walk, Strand strand, ExtendedFrame frame) except -1:
    """The next `after`, or what follows the task."""
    cdef TaskFrame parent = frame.parent
    if frame.entered:
        frame.number = frame.entered.pop()
        return begin_list(frame, list_of(<ExtendedNode> frame.task, frame.number, EXTENDED_AFTER), frame.output)
    strand.top = parent
    parent.data, parent.position = frame.output, frame.then
    return end_workflow(walk, strand, frame.output) if frame.then == POSITION_END else 0


# --- snapshots ---

cdef int write_extended(SnapshotWriter writer, TaskFrame frame, list fields) except -1:
    cdef ExtendedFrame extended = <ExtendedFrame> frame
    fields += [
        extended.phase,
        extended.number,
        list(extended.entered),
        extended.then,
        writer.value(extended.output),
        writer.value(extended.raw_output),
    ]
    return 0


cdef int read_extended(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    cdef ExtendedFrame extended = <ExtendedFrame> frame
    cdef ExtendedNode task = <ExtendedNode> frame.task
    extended.phase, extended.number, entered, extended.then, output, raw_output = fields
    extended.entered = [count_of(number) for number in <list?> entered]
    extended.output, extended.raw_output = reader.value(output), reader.value(raw_output)
    if not EXTENDED_BEFORE <= extended.phase <= EXTENDED_AFTER:
        raise ValueError("no phase of an extended task")
    if extended.phase == EXTENDED_TASK:
        frame.body = task.body
        return check_entered(extended, len(task.extensions))
    frame.scope = extension_scope(extended)
    return read_extension(task, extended)


cdef int read_extension(ExtendedNode task, ExtendedFrame frame) except -1:
    """The extension whose list runs; before the first one, and of one that does not apply, there is none."""
    cdef list entered = frame.entered
    cdef bint is_before = frame.phase == EXTENDED_BEFORE
    if not -is_before <= frame.number < len(task.extensions):
        raise ValueError("no extension of the task")
    if is_before and (not entered or entered[len(entered) - 1] != frame.number):
        if frame.position != POSITION_DONE:
            raise ValueError("an extension runs that does not apply")
    else:
        frame.body = list_of(task, frame.number, frame.phase)
    if not is_before and not POSITION_END <= frame.then < frame.parent.body.count:
        raise ValueError("a task leads where its list has none")
    return check_entered(frame, frame.number + is_before)


cdef int check_entered(ExtendedFrame frame, object end) except -1:
    """Extensions are entered in their order."""
    cdef list entered = frame.entered
    if entered != sorted(set(entered)) or (entered and entered[len(entered) - 1] >= end):
        raise ValueError("not the extensions of the task")
    return 0
