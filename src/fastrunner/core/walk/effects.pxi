"""Stage 4, walk: what an execution asks for outside: effects, subscriptions; their outcomes, and giving them up.

Rules: what is asked for belongs to a frame and is given up with it, whether the frame ends, is cut or is dropped with
its branch; an effect that belongs to no frame goes on whatever the workflow does, until the workflow is cancelled. What
is given up in the very turn that asked for it is not asked for at all. While the walk is paused outcomes are held, in
their order. What is interrupted sends no event of its own.
"""


cdef Resource hold(Walk walk, Strand strand, TaskFrame frame):
    """Room for something outside that a frame has; without a frame nothing gives it up."""
    cdef Resource resource = Resource.__new__(Resource)
    resource.id = walk.next_resource_id
    walk.next_resource_id += 1
    resource.strand, resource.frame = strand, frame
    keep_resource(walk, resource)
    if frame is not None:
        if frame.resources is None:
            frame.resources = []
        frame.resources.append(resource)
    return resource


cdef int keep_resource(Walk walk, Resource resource) except -1:
    if walk.resources is NO_ENTRIES:
        walk.resources = {}
    walk.resources[resource.id] = resource
    return 0


cdef Resource ask_effect(Walk walk, Place at, TaskFrame frame):
    """Asks for the effect of the task at a place; `frame` is the task's own, None for one that nobody waits for."""
    cdef Resource resource = hold(walk, None if frame is None else at.strand, frame)
    cdef str key = effect_key(walk, at.task, at.attempt)
    resource.action = PerformEffect(resource.id, at.task.kind.name, make_capsule(at), key, at.task.reference)
    walk.work.actions.append(resource.action)
    walk.effects_in_flight += 1
    return resource


cdef Resource ask_events(Walk walk, Place at, TaskFrame frame, object filter):
    """Asks for the events that match a filter, for as long as the frame lasts."""
    cdef Resource resource = hold(walk, at.strand, frame)
    resource.action = Subscribe(resource.id, filter, at.task.reference)
    walk.work.actions.append(resource.action)
    return resource


cdef int ask_other_events(Walk walk, Resource resource, object filter) except -1:
    """Puts another filter in the place of a subscription's."""
    cdef Subscribe before = <Subscribe> resource.action
    cdef Subscribe action = Subscribe(resource.id, filter, before.reference)
    resource.action = action
    if before in walk.work.actions:
        action.replaces = before.replaces
        walk.work.actions[walk.work.actions.index(before)] = action
    else:
        action.replaces = True
        walk.work.actions.append(action)
    return 0


cdef str effect_key(Walk walk, TaskNode task, int attempt):
    """An idempotency key no other effect of the execution has: a visit is a new iteration unless it is a retry."""
    cdef list visit = walk.visits.get(task.index)
    if visit is None:
        visit = [1, attempt]
        keep_visit(walk, task, visit)
    else:
        if attempt <= visit[1]:
            visit[0] += 1
        visit[1] = attempt
    return f"{walk.facts.execution_id}{task.reference}/{visit[0]}/{attempt}"


cdef int keep_visit(Walk walk, TaskNode task, list visit) except -1:
    if walk.visits is NO_ENTRIES:
        walk.visits = {}
    walk.visits[task.index] = visit
    return 0


# --- outcomes ---

cdef int take_effect_outcome(Walk walk, object outcome) except -1:
    """An effect has ended; of one that is not in flight (any more) nothing is wanted."""
    cdef Resource resource = walk.resources.get(outcome.effect_id)
    cdef EffectFailure failed
    if resource is None or resource.is_answered or not isinstance(resource.action, PerformEffect):
        return expire(walk, walk.now_ms)
    if walk.grace_until_ms:
        walk.effects_in_flight -= 1
        detach(walk, resource)
        return expire(walk, walk.now_ms) if waits_for_effects(walk) else end_cancelled(walk)
    # It has ended, whatever becomes of its outcome: a deadline that comes first has nothing to interrupt.
    resource.is_answered = True
    walk.effects_in_flight -= 1
    if not is_wanted(walk, resource):
        return 0
    if isinstance(outcome, EffectFailure):
        failed = <EffectFailure> outcome
        return arrive(walk, resource, failed.retry_after_ms or None, effect_error(failed, resource.action.reference))
    resource.authorization = (<EffectResult> outcome).authorization
    return arrive(walk, resource, (<EffectResult> outcome).value, None)


cdef int take_event(Walk walk, EventArrived outcome) except -1:
    """An event for a subscription; nobody wants one that comes after its end, or during a cancel."""
    cdef Resource resource = walk.resources.get(outcome.subscription_id)
    if resource is None or not isinstance(resource.action, Subscribe) or walk.grace_until_ms:
        return expire(walk, walk.now_ms)
    return arrive(walk, resource, outcome.event, None) if is_wanted(walk, resource) else 0


cdef bint is_wanted(Walk walk, Resource resource) except -1:
    """Meets the deadlines before an outcome; whether anybody still waits for it."""
    expire(walk, walk.now_ms - 1)
    if resource.id in walk.resources:
        return True
    expire(walk, walk.now_ms)
    return False


cdef int arrive(Walk walk, Resource resource, object value, dict error) except -1:
    """Hands an outcome to the task, or holds it while the walk is paused.

    What comes from outside is made plain JSON here; what cannot be kept fails the effect. The value beside an error is
    the least delay of its retry in ms, or None.
    """
    try:
        value = json_safe(&walk.work.measure, value)
        error = json_safe(&walk.work.measure, error)
    except (Unkept, TypeError) as problem:
        value, error = None, make_error("runtime", str(problem), resource.action.reference)
    if walk.state == STATUS_PAUSED:
        hold_outcome(walk, resource, value, error)
        return 0
    answer(walk, resource, value, error)
    return expire(walk, walk.now_ms)


cdef int hold_outcome(Walk walk, Resource resource, object value, dict error) except -1:
    if walk.held is NO_ITEMS:
        walk.held = []
    walk.held.append((resource, value, error))
    return 0


cdef int answer(Walk walk, Resource resource, object value, dict error) except -1:
    """The task goes on; nobody waits for the outcome of an effect without a frame."""
    if resource.is_answered:
        detach(walk, resource)
    if resource.frame is None:
        return 0
    walk.work.place.authorization = resource.authorization
    if error is not None and value is not None:
        # The error looks for its retry within this very call.
        walk.work.retry_after_ms, value = value, None
    resource.frame.task.kind.answer(walk, resource, value, error)
    walk.work.retry_after_ms = 0
    walk.work.place.authorization = None
    return 0


cdef int end_with_answer(Walk walk, Resource resource, object value, dict error) except -1:
    """For kinds whose effect is their whole work."""
    cdef TaskFrame frame = resource.frame
    cdef Strand strand = resource.strand
    if error is None:
        finish(walk, strand, frame, value, frame.task.then)
        return make_ready(walk, strand)
    return fail_frame(walk, strand, frame, error)


cdef int never_answered(Walk walk, Resource resource, object value, dict error) except -1:
    """For kinds that ask for nothing outside."""
    raise AssertionError("a task of this kind asks for nothing outside")


cdef dict never_rendered(Place at):
    """For kinds without an effect."""
    raise AssertionError("a task of this kind has no effect")


# --- giving up ---

cdef int detach(Walk walk, Resource resource) except -1:
    """Nobody holds it any more."""
    walk.resources.pop(resource.id, None)
    if not walk.resources:
        walk.resources = NO_ENTRIES
    if resource.frame is not None and resource.frame.resources is not None:
        resource.frame.resources.remove(resource)
        if not resource.frame.resources:
            resource.frame.resources = None
    return 0


cdef int give_up(Walk walk, Resource resource) except -1:
    """Aborts an effect, or ends a subscription."""
    cdef object action = resource.action
    if walk.resources.pop(resource.id, None) is None or resource.is_answered:
        return 0
    if isinstance(action, PerformEffect):
        walk.effects_in_flight -= 1
    if action in walk.work.actions and not (isinstance(action, Subscribe) and (<Subscribe> action).replaces):
        walk.work.actions.remove(action)
    elif isinstance(action, PerformEffect):
        walk.work.actions.append(InterruptEffect(resource.id))
    else:
        if action in walk.work.actions:
            # It stands for one that was asked for in an earlier turn.
            walk.work.actions.remove(action)
        walk.work.actions.append(Unsubscribe(resource.id))
    return 0


cdef int give_back(Walk walk, Resource resource) except -1:
    """Gives up one thing of a frame that goes on."""
    give_up(walk, resource)
    return detach(walk, resource)


cdef int release(Walk walk, TaskFrame frame) except -1:
    """Gives up what a frame holds."""
    cdef list resources = frame.resources
    if resources is not None:
        frame.resources = None
        for resource in resources:
            give_up(walk, <Resource> resource)
    return 0


cdef int cut(Walk walk, Strand strand, TaskFrame frame) except -1:
    """Interrupts all that runs above a frame, and what the frame itself waits for."""
    cdef TaskFrame above = strand.top
    strand.wake_at_ms = 0
    while above is not None:
        let_go(walk, above)
        if above is frame:
            break
        above = above.parent
    strand.top = frame
    return 0


cdef int let_go(Walk walk, TaskFrame frame) except -1:
    """Ends what a frame has outside itself: resources, branches."""
    release(walk, frame)
    return 0 if frame.task is None else frame.task.kind.cut(walk, frame)


cdef int drop_strand(Walk walk, Strand strand) except -1:
    """A line of control ends, with all that runs on it."""
    cdef TaskFrame frame = strand.top
    block(walk, strand)
    walk.strands.pop(strand.id, None)
    while frame is not None:
        let_go(walk, frame)
        frame = frame.parent
    return 0


cdef bint waits_for_effects(Walk walk) except -1:
    """Whether an effect is in flight that a task waits for, and that is more than waiting for messages."""
    cdef Resource resource
    for resource in walk.resources.values():
        if resource.frame is None or resource.is_answered or not isinstance(resource.action, PerformEffect):
            continue
        if not (isinstance(resource.frame, SubscriptionFrame) and waits_for_messages(resource.frame)):
            return True
    return False


cdef int nothing_cut(Walk walk, TaskFrame frame) except -1:
    """For kinds that have nothing but what is released anyway."""
    return 0
