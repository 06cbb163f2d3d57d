"""Stages 4 and 5: `call: asyncapi`: a message is published, or messages are consumed, one after the other.

Theory of operation. A publication is one effect. A subscription is a sequence of them: each says how many messages of
the one before are done with, which the performer acknowledges to whoever keeps messages until then, and asks for
further ones. An effect starts once the turn that asked for it is committed, so what is acknowledged is sure to have
counted. What an effect brings waits in the frame, and each message is a step of its own. The last effect of a
subscription asks for none: it acknowledges, and ends what the performer has open. One that brings none says that the
time is up.

Rules: `filter` decides which messages are meant; `until` is asked before one of them is accepted, `while` once it is
consumed. Where messages have tasks they are asked for one at a time, so that all others wait outside. What ends the
task by an error, `end` or a timeout leaves the message at hand unacknowledged.
"""

cimport cython


@cython.final
@cython.internal
cdef class CallAsyncapiNode(CallProtocolNode):
    cdef bint subscribes
    cdef Expression filter
    cdef object amount
    """None: as many as the conditions say."""
    cdef Duration lasts
    """`for`."""
    cdef Expression goes_on
    """`while`."""
    cdef Expression ends
    """`until`."""
    cdef bint is_forever
    """Neither a condition nor time ends it."""
    cdef IteratorPlan iterator
    """None without `foreach`."""


@cython.final
@cython.internal
cdef class SubscriptionFrame(ConsumingFrame):
    cdef long long ends_at_ms
    """When `for` ends; 0: never."""
    cdef list queue
    """Messages that came and are not done with, the next one first."""
    cdef object after
    """What the latest effect called the messages that it brought."""
    cdef long long taken
    """How many of those are done with."""
    cdef bint is_ending
    """No message is wanted any more."""


cdef TaskNode build_call_asyncapi(PlanBuilder builder, dict definition, Siblings siblings):
    cdef CallAsyncapiNode task = CallAsyncapiNode.__new__(CallAsyncapiNode)
    cdef dict arguments = dict(definition["with"])
    cdef dict subscription = arguments.pop("subscription", None)
    proven = {"authentication": arguments.pop("authentication", None)}
    fill_protocol(task, builder, arguments, "document", proven, None, siblings)
    if subscription is not None:
        task.subscribes = True
        add_subscription(task, builder, subscription, siblings)
    return task


cdef int add_subscription(CallAsyncapiNode task, PlanBuilder builder, dict subscription, Siblings siblings) except -1:
    cdef dict consume = subscription["consume"]
    cdef Bindings bindings = siblings.bindings
    task.filter = builder.condition(AT_SUBSCRIPTION_FILTER, subscription.get("filter"), bindings)
    task.amount = consume.get("amount")
    task.lasts = builder.duration(AT_CALL_DURATION, consume.get("for"), bindings)
    task.goes_on = builder.condition(AT_SUBSCRIPTION_CONSUME, consume.get("while"), bindings)
    task.ends = builder.condition(AT_SUBSCRIPTION_CONSUME, consume.get("until"), bindings)
    task.is_forever = task.lasts is None and (
        (task.goes_on is not None and task.goes_on.program.text == "true")
        or (task.ends is not None and task.ends.program.text == "false")
    )
    if "foreach" in subscription:
        reference = siblings.reference + "/with/subscription"
        task.iterator = build_iterator(builder, subscription["foreach"], reference, bindings)
    return 0


cdef TaskFrame subscription_frame():
    """A publication's has nothing in it."""
    return SubscriptionFrame.__new__(SubscriptionFrame)


cdef int begin_call_asyncapi(Walk walk, Place at, object data) except -1:
    cdef CallAsyncapiNode task = <CallAsyncapiNode> at.task
    cdef long long ends_at_ms
    cdef SubscriptionFrame frame
    if not task.subscribes:
        return begin_effect(walk, at, data)
    ends_at_ms = deadline_of(at, task.lasts, data)
    if (task.amount is not None and task.amount <= 0) or (task.lasts is not None and ends_at_ms <= walk.now_ms):
        return complete(walk, at, [], task.then)
    frame = <SubscriptionFrame> push(walk, at, data)
    frame.output, frame.queue = [], []
    frame.ends_at_ms = ends_at_ms
    return ask_messages(walk, at, frame)


cdef int ask_messages(Walk walk, Place at, SubscriptionFrame frame) except -1:
    """Acknowledges what is done with and asks for more, unless the subscription is ending."""
    cdef Resource resource = ask_effect(walk, at, frame)
    (<PerformEffect> resource.action).capsule.asked = wanted_of(at.strand, frame)
    return wait_for_more(walk, at.strand, frame)


cdef dict wanted_of(Strand strand, SubscriptionFrame frame):
    """amount of messages wanted at most, None: as many as there are, 0: none, it ends; ends_at_ms or None; taken: how
    many of the messages that came as `after` are done with; consumer: whose subscription it is."""
    cdef CallAsyncapiNode task = <CallAsyncapiNode> frame.task
    cdef object amount = None if task.amount is None else task.amount - frame.count
    if frame.is_ending:
        amount = 0
    elif task.iterator is not None and task.iterator.body is not None:
        amount = 1
    return {
        "amount": amount,
        "ends_at_ms": frame.ends_at_ms or None,
        "after": frame.after,
        "taken": frame.taken,
        # Branches that call one function have the same task at a time.
        "consumer": f"{task.reference}/{strand.id}",
    }


cdef dict render_call_asyncapi(Place at):
    """As other protocols; `subscription` says what is wanted of it and done with. Raises WalkFault."""
    cdef dict arguments = render_protocol(at)
    if at.asked is not None:
        arguments["subscription"] = {**at.asked, "consumer": at.facts.execution_id + at.asked["consumer"]}
    return arguments


# --- messages ---

cdef int answer_call_asyncapi(Walk walk, Resource resource, object value, dict error) except -1:
    """A publication has ended, or messages have come."""
    cdef SubscriptionFrame frame = <SubscriptionFrame> resource.frame
    cdef Strand strand = resource.strand
    cdef object messages
    if not (<CallAsyncapiNode> frame.task).subscribes:
        return end_with_answer(walk, resource, value, error)
    if frame.position != POSITION_BLOCKED:
        return 0
    if error is not None:
        return fail_frame(walk, strand, frame, error)
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        error = make_error("runtime", "what a subscription brought are no messages", frame.task.reference)
        return fail_frame(walk, strand, frame, error)
    if frame.is_ending or not messages:
        finish(walk, strand, frame, frame.output, frame.task.then)
    else:
        frame.queue, frame.after, frame.taken = list(<list> messages), value.get("position"), 0
        frame.position = POSITION_DONE
    return make_ready(walk, strand)


cdef int leave_call_asyncapi(Walk walk, Strand strand, TaskFrame frame) except -1:
    """A message more is due, or the tasks for one have ended."""
    cdef SubscriptionFrame subscription = <SubscriptionFrame> frame
    cdef Place at = return_to(walk, strand, frame)
    try:
        if subscription.item is not None:
            return end_message(walk, at, strand, subscription, subscription.item, frame.data)
        return next_message(walk, at, strand, subscription)
    except WalkFault as fault:
        return fail_frame(walk, strand, frame, fault.error)


cdef int next_message(Walk walk, Place at, Strand strand, SubscriptionFrame frame) except -1:
    """Raises WalkFault."""
    cdef CallAsyncapiNode task = <CallAsyncapiNode> frame.task
    cdef object message
    if not frame.queue:
        frame.is_ending = 0 < frame.ends_at_ms <= walk.now_ms
        return ask_messages(walk, at, frame)
    message = frame.queue[0]
    if task.filter is None or holds(at, task.filter, message):
        if task.ends is not None and holds(at, task.ends, message):
            return end_subscription(walk, at, frame)
        take_message(frame)
        if begin_item(frame, task.iterator, message):
            return 0
        return end_message(walk, at, strand, frame, message, message)
    return take_message(frame)


cdef int take_message(SubscriptionFrame frame) except -1:
    frame.queue.pop(0)
    frame.taken += 1
    return 0


cdef int end_message(Walk walk, Place at, Strand strand, SubscriptionFrame frame, object message,
                     object output) except -1:
    """A message is done with: what it gives, and whether another one is wanted. Raises WalkFault."""
    cdef CallAsyncapiNode task = <CallAsyncapiNode> frame.task
    put_output(at, strand, frame, task.iterator, output, None if task.is_forever else THE_SUBSCRIPTION)
    if (
        frame.position == POSITION_EXIT
        or (task.amount is not None and frame.count >= task.amount)
        or (task.goes_on is not None and not holds(at, task.goes_on, message))
    ):
        return end_subscription(walk, at, frame)
    frame.position = POSITION_DONE
    return 0


cdef bint waits_for_messages(SubscriptionFrame frame) noexcept:
    """Whether the effect of a task does nothing but wait: a cancel waits for none of those."""
    return (<CallAsyncapiNode> frame.task).subscribes and not frame.is_ending


cdef int end_subscription(Walk walk, Place at, SubscriptionFrame frame) except -1:
    frame.queue = []
    frame.is_ending = True
    return ask_messages(walk, at, frame)


# --- snapshots ---

cdef int write_call_asyncapi(SnapshotWriter writer, TaskFrame frame, list fields) except -1:
    cdef SubscriptionFrame subscription = <SubscriptionFrame> frame
    if (<CallAsyncapiNode> frame.task).subscribes:
        fields += [
            *written_consumed(writer, subscription),
            subscription.ends_at_ms,
            writer.values(subscription.queue),
            writer.value(subscription.after),
            subscription.taken,
            subscription.is_ending,
        ]
    return 0


cdef int read_call_asyncapi(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    cdef SubscriptionFrame subscription = <SubscriptionFrame> frame
    cdef CallAsyncapiNode task = <CallAsyncapiNode> frame.task
    if not task.subscribes:
        if frame.position != POSITION_BLOCKED:
            raise ValueError("a publication has a list that goes on")
        return nothing_to_read(reader, frame, fields)
    read_consumed(reader, subscription, fields[:4])
    ends_at_ms, queue, after, taken, subscription.is_ending = fields[4:]
    subscription.ends_at_ms, subscription.taken = count_of(ends_at_ms), count_of(taken)
    subscription.queue = reader.values(<list?> queue)
    subscription.after = reader.value(after)
    if subscription.item is not None:
        return return_to_item(subscription, task.iterator)
    if frame.position not in (POSITION_BLOCKED, POSITION_DONE):
        raise ValueError("a subscription runs tasks for no message")
    return 0
