"""Stage 4, walk: `listen`: events are waited for, one after the other, and each may have tasks of its own.

Theory of operation. The task has one subscription as long as it lasts. What the driver looks events up by matches at
least what the task would take; here it is decided. While the tasks of `foreach` run no event is wanted, so that events
wait outside and neither memory nor snapshots have a queue. What has been consumed is kept for the output and for
`until`; where that is `${ false }` nothing is, because the task has no output.

Rules: `consume.pxi` has what becomes of an event. `until` is asked after each event that was consumed, once the tasks
for it are done. An event that also ends the listen is consumed first. `exit` in the body ends the listen.
"""

cimport cython

from fastrunner._jq import MissingMember


@cython.final
@cython.internal
cdef class ListenNode(TaskNode):
    cdef StrategyPlan strategy
    cdef str read
    cdef bint is_forever
    """`until` is false whatever comes."""
    cdef IteratorPlan iterator
    """None without `foreach`."""


@cython.final
@cython.internal
cdef class ListenFrame(ConsumingFrame):
    cdef Strategy strategy
    """None after a restore, until an event arrives."""
    cdef Heard heard
    cdef object context
    """`$context` as it was at the beginning, for the strategy."""
    cdef list events
    """What was read, for `until`; None if it sees the output, or nothing."""
    cdef bint is_last
    """The strategy is satisfied; the listen ends with the body."""


cdef TaskNode build_listen(PlanBuilder builder, dict definition, Siblings siblings):
    cdef ListenNode task = ListenNode.__new__(ListenNode)
    task.strategy = build_strategy(builder, definition["listen"]["to"], siblings.bindings)
    task.read = definition["listen"].get("read") or "data"
    task.is_forever = task.strategy.condition is not None and task.strategy.condition.program.text == "false"
    if "foreach" in definition:
        task.iterator = build_iterator(builder, definition["foreach"], siblings.reference, siblings.bindings)
    return task


cdef TaskFrame listen_frame():
    return ListenFrame.__new__(ListenFrame)


cdef bint keeps_events(ListenNode task) noexcept:
    """Whether `until` sees something else than the output."""
    return task.iterator is not None and task.strategy.condition is not None and not task.is_forever


cdef int begin_listen(Walk walk, Place at, object data) except -1:
    cdef ListenNode task = <ListenNode> at.task
    cdef Strategy strategy = strategy_at(at, task.strategy)
    cdef ListenFrame frame
    if is_met_at_once(strategy):
        return complete(walk, at, [], task.then)
    frame = <ListenFrame> push(walk, at, data)
    frame.strategy, frame.heard = strategy, new_heard()
    frame.context = at.context
    frame.output = []
    frame.events = [] if keeps_events(task) else None
    ask_events(walk, at, frame, outside_filter(strategy, frame.heard))
    return block(walk, at.strand)


cdef int answer_listen(Walk walk, Resource resource, object value, dict error) except -1:
    """An event; one that comes while nobody wants it changes nothing."""
    cdef ListenFrame frame = <ListenFrame> resource.frame
    if frame.position != POSITION_BLOCKED or (error is None and not isinstance(value, dict)):
        return 0
    if error is not None:
        return fail_frame(walk, resource.strand, frame, error)
    try:
        return listen_to(walk, resource, frame, value)
    except WalkFault as fault:
        return fail_frame(walk, resource.strand, frame, fault.error)


cdef int listen_to(Walk walk, Resource resource, ListenFrame frame, dict event) except -1:
    cdef ListenNode task = <ListenNode> frame.task
    cdef Strand strand = resource.strand
    cdef Place at = return_to(walk, strand, frame)
    cdef int found
    if frame.strategy is None:
        at.context = frame.context
        frame.strategy = strategy_at(at, task.strategy)
        at.context = strand.context
    try:
        found = hear(frame.strategy, frame.heard, walk.work, event, walk.now_ms)
    except MissingMember as error:
        raise fault_here(at, "authorization", secret_fault(at, error.value)) from None
    walk.steps_taken += 1
    frame.is_last = found & HEARD_ENDED != 0
    if found & HEARD_CHANGED and not frame.is_last:
        ask_other_events(walk, resource, outside_filter(frame.strategy, frame.heard))
    if found & HEARD_TAKEN:
        return consume(walk, at, strand, frame, read_event(event, task.read))
    return end_listen(walk, strand, frame) if frame.is_last else 0


cdef int consume(Walk walk, Place at, Strand strand, ListenFrame frame, object item) except -1:
    """One event more: its tasks begin, or it is done with."""
    if frame.events is not None:
        frame.events.append(kept(at, frame, len(frame.events), item, THE_LISTEN))
    if begin_item(frame, (<ListenNode> at.task).iterator, item):
        return make_ready(walk, strand)
    return end_item(walk, at, strand, frame, item)


cdef int end_item(Walk walk, Place at, Strand strand, ListenFrame frame, object output) except -1:
    """An event is done with: what it gives, and whether another one is waited for. Raises WalkFault."""
    cdef ListenNode task = <ListenNode> frame.task
    put_output(at, strand, frame, task.iterator, output, None if task.is_forever else THE_LISTEN)
    if frame.is_last or frame.position == POSITION_EXIT or is_until_met(at, task, frame):
        return end_listen(walk, strand, frame)
    return wait_for_more(walk, strand, frame)


cdef bint is_until_met(Place at, ListenNode task, ListenFrame frame) except -1:
    if task.strategy.condition is None or task.is_forever:
        return False
    return holds(at, task.strategy.condition, frame.output if frame.events is None else frame.events)


cdef int end_listen(Walk walk, Strand strand, ListenFrame frame) except -1:
    finish(walk, strand, frame, frame.output, frame.task.then)
    return make_ready(walk, strand)


cdef int leave_listen(Walk walk, Strand strand, TaskFrame frame) except -1:
    """The tasks for an event have ended."""
    try:
        return end_item(walk, return_to(walk, strand, frame), strand, <ListenFrame> frame, frame.data)
    except WalkFault as fault:
        return fail_frame(walk, strand, frame, fault.error)


# --- snapshots ---

cdef int write_listen(SnapshotWriter writer, TaskFrame frame, list fields) except -1:
    cdef ListenFrame listen = <ListenFrame> frame
    fields += [
        listen.heard.satisfied,
        listen.heard.ended,
        writer.value(listen.heard.learnt),
        writer.value(listen.context),
        writer.value(listen.events),
        *written_consumed(writer, listen),
        listen.is_last,
    ]
    return 0


cdef int read_listen(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    cdef ListenFrame listen = <ListenFrame> frame
    cdef ListenNode task = <ListenNode> frame.task
    (satisfied, ended, learnt, context, events, *consumed, listen.is_last) = fields
    listen.heard = new_heard()
    listen.heard.satisfied = numbers_of(satisfied, task.strategy)
    listen.heard.ended = numbers_of(ended, task.strategy.until)
    listen.heard.learnt = dict(<dict?> reader.value(learnt))
    listen.context = reader.value(context)
    read_consumed(reader, listen, consumed)
    if keeps_events(task):
        listen.events = list(<list?> reader.value(events))
    return 0 if frame.position == POSITION_BLOCKED else return_to_item(listen, task.iterator)


cdef list numbers_of(object written, StrategyPlan strategy):
    """Which filters have their event."""
    cdef list numbers = <list?> written
    cdef Py_ssize_t count = 0 if strategy is None or strategy.kind != "all" else len(strategy.filters)
    if len(set(numbers)) != len(numbers) or any([count_of(number) >= count for number in numbers]):
        raise ValueError("not the filters of the listen")
    return list(numbers)
