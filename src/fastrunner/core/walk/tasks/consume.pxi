"""Stage 4, walk: what `listen` and subscriptions of calls have in common: one thing after the other is consumed, each
may have tasks of its own, and what is made of each is kept.

Rules: the output is an array, in the order of arrival. What is kept is bounded, in number and as a whole. While the
tasks of `foreach` run for one thing, no other is consumed.
"""

cimport cython


@cython.internal
cdef class ConsumingFrame(TaskFrame):
    """A task that consumes; `begin_consuming` makes it one."""

    cdef list output
    cdef object item
    """What the body runs for."""
    cdef long long count
    """Of what was consumed."""
    cdef long long size
    """Bytes of what is kept."""


# Who consumes, what, and how nothing of it is kept.
cdef tuple THE_LISTEN = ("listen", "an event", "events", "`until: ${ false }`")
cdef tuple THE_SUBSCRIPTION = ("subscription", "a message", "messages", "`while: ${ true }` without `for`")


cdef bint begin_item(ConsumingFrame frame, IteratorPlan plan, object item) except -1:
    """One more is consumed; False if no tasks begin for it."""
    frame.count += 1
    if plan is not None:
        frame.scope = make_scope(frame.parent.scope, item, frame.count - 1)
    if plan is None or plan.body is None:
        return False
    frame.item = item
    begin_list(frame, plan.body, item)
    return True


cdef int put_output(Place at, Strand strand, ConsumingFrame frame, IteratorPlan plan, object output,
                    tuple words) except -1:
    """What was consumed is done with; without words nothing is kept of it. Raises WalkFault."""
    at.own_scope = frame.scope
    if plan is not None:
        output = item_output(at, strand, plan, output)
    if words is not None:
        frame.output.append(kept(at, frame, len(frame.output), output, words))
    at.own_scope = at.scope
    frame.item = None
    frame.scope = frame.parent.scope
    return 0


cdef int wait_for_more(Walk walk, Strand strand, ConsumingFrame frame) except -1:
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


cdef object kept(Place at, ConsumingFrame frame, Py_ssize_t count, object value, tuple words):
    """A value that is kept with others until the task ends, within the bounds of the whole. Raises WalkFault."""
    cdef Behaviour behaviour = at.facts.behaviour
    cdef Measure* measure = at.measure
    who, one, many, none_kept = words
    allow_data(measure)
    try:
        # A level less than a value of its own.
        value = safe_part(measure, value, measure.depth_max - 1)
    except Unkept as error:
        raise fault_here(at, "runtime", f"{one} that cannot be kept: {error}") from None
    frame.size += measure.size_bytes_max - measure.size_left
    if count >= behaviour.iterations_max:
        raise fault_here(at, "runtime", f"the {who} has consumed {count} {many}, and keeps no more for its output: "
                         f"end it sooner, or say {none_kept}, which keeps none")
    if frame.size > behaviour.data_size_bytes_max:
        raise fault_here(at, "runtime", f"the {many} consumed are larger than {behaviour.data_size_bytes_max} bytes: "
                         f"end the {who} sooner, or make less of each with `foreach.output.as`")
    return value


# --- snapshots ---

cdef list written_consumed(SnapshotWriter writer, ConsumingFrame frame):
    return [writer.value(frame.output), writer.value(frame.item), frame.count, frame.size]


cdef int read_consumed(SnapshotReader reader, ConsumingFrame frame, list fields) except -1:
    output, item, count, size = fields
    frame.output = list(<list?> reader.value(output))
    frame.item = reader.value(item)
    frame.count, frame.size = count_of(count), count_of(size)
    return 0


cdef int return_to_item(ConsumingFrame frame, IteratorPlan plan) except -1:
    """The body runs, for the item."""
    if plan is None or plan.body is None or frame.count == 0:
        raise ValueError("a task runs tasks for nothing that it consumed")
    frame.body = plan.body
    frame.scope = make_scope(frame.parent.scope, frame.item, frame.count - 1)
    return 0
