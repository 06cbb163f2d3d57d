"""Stage 4, walk: outcomes by their kind; pause, resume and cancel.

Rules: a command comes after the deadlines that have passed. While paused nothing begins and no time is met; waits go on
and timeouts stand still. A graceful cancel waits for effects in flight and for nothing else.
"""


cdef int take_outcome(Walk walk, object outcome) except -1:
    if isinstance(outcome, MoreSteps):
        # How many slices a moment has changes nothing: what it brings has been met, or is met after them.
        return expire(walk, walk.now_ms if walk.work.is_later else walk.now_ms - 1)
    if isinstance(outcome, TimerDue):
        return expire(walk, walk.now_ms)
    if isinstance(outcome, (EffectResult, EffectFailure)):
        return take_effect_outcome(walk, outcome)
    if isinstance(outcome, EventArrived):
        return take_event(walk, <EventArrived> outcome)
    if isinstance(outcome, Cancel):
        return cancel(walk, <Cancel> outcome)
    if isinstance(outcome, Pause):
        expire(walk, walk.now_ms)
        return pause(walk, <Pause> outcome)
    if isinstance(outcome, Resume):
        return resume(walk, <Resume> outcome)
    raise TypeError(f"not an outcome: {type(outcome).__name__}")


cdef int pause(Walk walk, Pause command) except -1:
    if walk.state != STATUS_RUNNING or walk.grace_until_ms:
        return 0
    walk.state = STATUS_PAUSED
    walk.paused_at_ms = walk.now_ms
    return emit(walk, walk.plan.event_paused, 0, None, reason_field(command.reason, walk.plan.event_paused))


cdef int resume(Walk walk, Resume command) except -1:
    """Goes on: timeouts move by the time paused, waits keep their time, held outcomes are taken in their order."""
    cdef list held = walk.held
    if walk.state != STATUS_PAUSED or walk.grace_until_ms:
        return 0
    walk.state = STATUS_RUNNING
    walk.held = NO_ITEMS
    shift_timeouts(walk, walk.now_ms - walk.paused_at_ms)
    emit(walk, walk.plan.event_resumed, 0, None, reason_field(command.reason, walk.plan.event_resumed))
    for resource, value, error in held:
        if (<Resource> resource).id in walk.resources and walk.state == STATUS_RUNNING:
            answer(walk, <Resource> resource, value, error)
    return expire(walk, walk.now_ms)


cdef bytes reason_field(str reason, EventParts parts):
    """The event's message with the caller's reason; None leaves the message as it is."""
    if not reason:
        return None
    return text_field(FIELD_MESSAGE, f"{parts.message[2:].decode()}: {reason}")


cdef int cancel(Walk walk, Cancel command) except -1:
    if not walk.cancel_reason:
        walk.cancel_reason = command.reason
    if command.force or command.grace_ms <= 0 or not waits_for_effects(walk):
        return end_cancelled(walk)
    if walk.grace_until_ms == 0:
        walk.grace_until_ms = walk.now_ms + command.grace_ms
    return 0
