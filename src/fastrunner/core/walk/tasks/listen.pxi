"""Stage 4, walk: `listen`: events are waited for, one after the other, and each may have tasks of its own.

Theory of operation. The task has one subscription as long as it lasts. What the driver looks events up by matches at
least what the task would take; here it is decided. While the tasks of `foreach` run no event is wanted, so that events
wait outside and neither memory nor snapshots have a queue. What has been consumed is kept for the output and for
`until`; where that is `${ false }` nothing is, because the task has no output.

Rules: the output is an array, in the order of arrival. `until` is asked after each event that was consumed, once the
tasks for it are done. An event that also ends the listen is consumed first. `exit` in the body ends the listen.
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
cdef class ListenFrame(TaskFrame):
    cdef Strategy strategy
    """None after a restore, until an event arrives."""
    cdef Heard heard
    cdef object context
    """`$context` as it was at the beginning, for the strategy."""
    cdef list events
    """What was read, for `until`; None if it sees the output, or nothing."""
    cdef list output
    cdef object item
    """What the body runs for."""
    cdef long long count
    """Of events consumed."""
    cdef long long size
    """Bytes of what is kept."""
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
    cdef ListenNode task = <ListenNode> frame.task
    frame.count += 1
    if task.iterator is not None:
        frame.scope = make_scope(frame.parent.scope, item, frame.count - 1)
    if frame.events is not None:
        frame.events.append(kept(at, frame, len(frame.events), item))
    if task.iterator is None or task.iterator.body is None:
        return end_item(walk, at, strand, frame, item)
    frame.item = item
    begin_list(frame, task.iterator.body, item)
    return make_ready(walk, strand)


cdef int end_item(Walk walk, Place at, Strand strand, ListenFrame frame, object output) except -1:
    """An event is done with: what it gives, and whether another one is waited for. Raises WalkFault."""
    cdef ListenNode task = <ListenNode> frame.task
    at.own_scope = frame.scope
    if task.iterator is not None:
        output = item_output(at, strand, task.iterator, output)
    if not task.is_forever:
        frame.output.append(kept(at, frame, len(frame.output), output))
    at.own_scope = at.scope
    frame.item = None
    frame.scope = frame.parent.scope
    if frame.is_last or frame.position == POSITION_EXIT or is_until_met(at, task, frame):
        return end_listen(walk, strand, frame)
    frame.position = POSITION_BLOCKED
    frame.data = frame.input
    return block(walk, strand)


cdef object item_output(Place at, Strand strand, IteratorPlan plan, object output):
    """`foreach.output` and `foreach.export`, in their order."""
    cdef object context
    at.raw_output = at.output = output
    if plan.output_as is not None:
        output = fill(at, plan.output_as, output, 0)
    if plan.output_schema is not None:
        match_schema(at, plan.output_schema, output, "the output of foreach")
    at.output = output
    context = at.context
    if plan.export_as is not None:
        context = fill(at, plan.export_as, output, 0)
    if plan.export_schema is not None:
        match_schema(at, plan.export_schema, context, "context")
    if plan.export_as is not None:
        strand.context, strand.has_exported = context, True
        at.context = context
    at.raw_output = at.output = None
    return output


cdef bint is_until_met(Place at, ListenNode task, ListenFrame frame) except -1:
    if task.strategy.condition is None or task.is_forever:
        return False
    return holds(at, task.strategy.condition, frame.output if frame.events is None else frame.events)


cdef object kept(Place at, ListenFrame frame, Py_ssize_t count, object value):
    """A value that is kept with others until the listen ends, within the bounds of the whole. Raises WalkFault."""
    cdef Behaviour behaviour = at.facts.behaviour
    cdef Measure* measure = at.measure
    allow_data(measure)
    try:
        # A level less than a value of its own.
        value = safe_part(measure, value, measure.depth_max - 1)
    except Unkept as error:
        raise fault_here(at, "runtime", f"an event that cannot be kept: {error}") from None
    frame.size += measure.size_bytes_max - measure.size_left
    if count >= behaviour.iterations_max:
        raise fault_here(at, "runtime", f"the listen has consumed {count} events, and keeps no more for its output: "
                         "end it sooner, or say `until: ${ false }`, which keeps none")
    if frame.size > behaviour.data_size_bytes_max:
        raise fault_here(at, "runtime", f"the events consumed are larger than {behaviour.data_size_bytes_max} bytes: "
                         "end the listen sooner, or make less of each with `foreach.output.as`")
    return value


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
        writer.value(listen.output),
        writer.value(listen.item),
        listen.count,
        listen.size,
        listen.is_last,
    ]
    return 0


cdef int read_listen(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    cdef ListenFrame listen = <ListenFrame> frame
    cdef ListenNode task = <ListenNode> frame.task
    (satisfied, ended, learnt, context, events, output, item, count, size, listen.is_last) = fields
    listen.heard = new_heard()
    listen.heard.satisfied = numbers_of(satisfied, task.strategy)
    listen.heard.ended = numbers_of(ended, task.strategy.until)
    listen.heard.learnt = dict(<dict?> reader.value(learnt))
    listen.context = reader.value(context)
    listen.output = list(<list?> reader.value(output))
    if keeps_events(task):
        listen.events = list(<list?> reader.value(events))
    listen.item = reader.value(item)
    listen.count, listen.size = count_of(count), count_of(size)
    if frame.position == POSITION_BLOCKED:
        return 0
    if task.iterator is None or task.iterator.body is None or listen.count == 0:
        raise ValueError("a listen runs tasks for no event")
    frame.body = task.iterator.body
    frame.scope = make_scope(frame.parent.scope, listen.item, listen.count - 1)
    return 0


cdef list numbers_of(object written, StrategyPlan strategy):
    """Which filters have their event."""
    cdef list numbers = <list?> written
    cdef Py_ssize_t count = 0 if strategy is None or strategy.kind != "all" else len(strategy.filters)
    if len(set(numbers)) != len(numbers) or any([count_of(number) >= count for number in numbers]):
        raise ValueError("not the filters of the listen")
    return list(numbers)
