"""Stage 4, walk: outcomes of effects, timers, pause, resume and cancel; how an execution ends.

Rules: a deadline that has passed comes before an outcome that arrives after it; an outcome that arrives at the very
moment of a deadline comes in time. Deadlines are met in their order; of equal ones waits come first, then the outermost
timeout. What is interrupted sends no event of its own.
"""


cdef int take_outcome(Walk walk, object outcome) except -1:
    if isinstance(outcome, (MoreSteps, TimerDue)):
        return expire(walk, walk.now_ms)
    if isinstance(outcome, (EffectResult, EffectFailure)):
        return take_effect_outcome(walk, outcome)
    if isinstance(outcome, Cancel):
        return cancel(walk, <Cancel> outcome)
    if isinstance(outcome, Pause):
        expire(walk, walk.now_ms)
        return pause(walk, <Pause> outcome)
    if isinstance(outcome, Resume):
        return resume(walk, <Resume> outcome)
    raise TypeError(f"not an outcome: {type(outcome).__name__}")


# --- effects ---

cdef int take_effect_outcome(Walk walk, object outcome) except -1:
    """An effect has ended; of one that is not in flight (any more) nothing is wanted."""
    cdef Strand strand = walk.effects.pop(outcome.effect_id, None)
    cdef object value = None
    cdef dict error = None
    if strand is None:
        return expire(walk, walk.now_ms)
    if walk.grace_until_ms:
        strand.effect = None
        return expire(walk, walk.now_ms) if walk.effects else end_cancelled(walk)
    expire(walk, walk.now_ms - 1)
    if strand.effect is None:
        return expire(walk, walk.now_ms)
    if isinstance(outcome, EffectFailure):
        error = json_safe(effect_error(<EffectFailure> outcome, strand.top.task.reference), DATA_DEPTH_MAX)
    else:
        try:
            value = json_safe((<EffectResult> outcome).value, DATA_DEPTH_MAX)
        except _Unkept as problem:
            error = make_error("runtime", str(problem), strand.top.task.reference)
    strand.effect = None
    if walk.state == STATUS_PAUSED:
        walk.held.append((strand.id, value, error))
        return 0
    apply_outcome(walk, strand, value, error)
    return expire(walk, walk.now_ms)


cdef int apply_outcome(Walk walk, Strand strand, object value, dict error) except -1:
    cdef TaskFrame frame = strand.top
    if error is None:
        finish(walk, strand, frame, value, frame.task.then)
        return make_ready(walk, strand)
    return fail_task(walk, strand, frame.parent, frame.task, frame.attempt, error, frame.started_at_ms)


# --- timers ---

cdef int find_wake(Walk walk) except -1:
    """Sets `wake_at_ms` to the earliest deadline."""
    cdef long long earliest = 0
    cdef Strand strand
    cdef TaskFrame frame
    if walk.state == STATUS_RUNNING and walk.grace_until_ms == 0:
        earliest = walk.timeout_at_ms
        for strand in walk.strands.values():
            earliest = earlier(earliest, strand.wake_at_ms)
            frame = strand.top
            while frame is not None:
                earliest = earlier(earliest, frame_deadline(frame))
                frame = frame.parent
    elif walk.state <= STATUS_PAUSED:
        earliest = walk.grace_until_ms
    walk.wake_at_ms = earliest
    return 0


cdef inline long long earlier(long long one, long long other) noexcept:
    """The earlier of two deadlines, where 0 is none."""
    return one if other == 0 or 0 < one < other else other


cdef long long frame_deadline(TaskFrame frame) except -1:
    """The earliest timeout of a frame itself; 0 without one."""
    cdef TryFrame attempt
    if frame.task is None or frame.task.kind != KIND_TRY:
        return frame.timeout_at_ms
    attempt = <TryFrame> frame
    if attempt.phase != TRY_BODY:
        return frame.timeout_at_ms
    return earlier(frame.timeout_at_ms, earlier(attempt.attempt_until_ms, attempt.total_until_ms))


cdef int expire(Walk walk, long long until_ms) except -1:
    """Meets every deadline up to a time, earliest first."""
    if walk.grace_until_ms:
        return end_cancelled(walk) if walk.grace_until_ms <= until_ms else 0
    while walk.state == STATUS_RUNNING and expire_earliest(walk, until_ms):
        pass
    return 0


cdef bint expire_earliest(Walk walk, long long until_ms) except -1:
    """Meets the earliest deadline if it is not after a time."""
    cdef long long best = until_ms + 1, deadline
    cdef Strand strand, found = None
    cdef TaskFrame frame, timed = None
    cdef bint is_workflow = False
    for strand in walk.strands.values():
        if 0 < strand.wake_at_ms < best:
            best, found = strand.wake_at_ms, strand
    if 0 < walk.timeout_at_ms < best:
        best, is_workflow = walk.timeout_at_ms, True
    for strand in walk.strands.values():
        frame = strand.top
        while frame is not None:
            deadline = frame_deadline(frame)
            # Going outwards, the last of equal timeouts is the outermost.
            if 0 < deadline < best or (deadline == best and timed is not None and found is strand):
                best, timed, found, is_workflow = deadline, frame, strand, False
            frame = frame.parent
    if best > until_ms:
        return False
    if is_workflow:
        fail_workflow(walk, make_error("timeout", "the workflow took longer than its timeout", "/timeout"))
    elif timed is None:
        wake(walk, found)
    else:
        time_out(walk, found, timed)
    return True


cdef int wake(Walk walk, Strand strand) except -1:
    """A wait or the delay of a retry is over."""
    cdef TaskFrame frame = strand.top
    strand.wake_at_ms = 0
    if frame.task.kind == KIND_TRY:
        return go_on_after_delay(walk, strand, <TryFrame> frame)
    finish(walk, strand, frame, frame.input, frame.task.then)
    return make_ready(walk, strand)


cdef int time_out(Walk walk, Strand strand, TaskFrame frame) except -1:
    """A task took too long: its own `try` does not catch that, but one attempt's limit it does."""
    cdef TaskNode task = frame.task
    cdef bint is_task = frame_deadline(frame) == frame.timeout_at_ms
    cdef str what = "task" if is_task else "attempt"
    cdef dict error = make_error("timeout", f"the {what} took longer than its timeout", task.reference)
    cut(walk, strand, frame)
    if is_task:
        return fail_task(walk, strand, frame.parent, task, frame.attempt, error, frame.started_at_ms)
    return raise_from(walk, strand, frame, error)


cdef int cut(Walk walk, Strand strand, TaskFrame frame) except -1:
    """Interrupts all that runs above a frame, and what the frame itself waits for."""
    cdef TaskFrame above = strand.top
    interrupt(walk, strand)
    strand.wake_at_ms = 0
    while above is not None:
        if isinstance(above, ForkFrame):
            drop_branches(walk, <ForkFrame> above)
        if above is frame:
            break
        above = above.parent
    strand.top = frame
    return 0


cdef int interrupt(Walk walk, Strand strand) except -1:
    """Aborts the effect a strand waits for; one asked for in this very turn is not asked for at all."""
    cdef PerformEffect effect = strand.effect
    if effect is None:
        return 0
    strand.effect = None
    if walk.effects.pop(effect.effect_id, None) is None:
        return 0
    if effect in walk.actions:
        walk.actions.remove(effect)
    else:
        walk.actions.append(InterruptEffect(effect.effect_id))
    return 0


cdef int drop_strand(Walk walk, Strand strand) except -1:
    block(walk, strand)
    interrupt(walk, strand)
    walk.strands.pop(strand.id, None)
    return 0


cdef int drop_branches(Walk walk, ForkFrame fork_frame) except -1:
    """Ends what still runs of a fork, forks within it included."""
    cdef list forks = [fork_frame]
    cdef TaskFrame frame
    while forks:
        for branch in (<ForkFrame> forks.pop()).branches:
            if branch is None:
                continue
            drop_strand(walk, <Strand> branch)
            frame = (<Strand> branch).top
            while frame is not None:
                if isinstance(frame, ForkFrame):
                    forks.append(frame)
                frame = frame.parent
    return 0


# --- commands ---

cdef int pause(Walk walk, Pause command) except -1:
    if walk.state != STATUS_RUNNING or walk.grace_until_ms:
        return 0
    walk.state = STATUS_PAUSED
    walk.paused_at_ms = walk.now_ms
    return emit(walk, walk.plan.event_paused, 0, reason_field(command.reason, walk.plan.event_paused))


cdef int resume(Walk walk, Resume command) except -1:
    """Goes on: timeouts move by the time paused, waits keep their time, held outcomes are taken in their order."""
    cdef list held = walk.held
    cdef Strand strand
    if walk.state != STATUS_PAUSED or walk.grace_until_ms:
        return 0
    walk.state = STATUS_RUNNING
    walk.held = []
    shift_timeouts(walk, walk.now_ms - walk.paused_at_ms)
    emit(walk, walk.plan.event_resumed, 0, reason_field(command.reason, walk.plan.event_resumed))
    for strand_id, value, error in held:
        strand = walk.strands.get(strand_id)
        if strand is not None and walk.state == STATUS_RUNNING:
            apply_outcome(walk, strand, value, error)
    return expire(walk, walk.now_ms)


cdef int shift_timeouts(Walk walk, long long paused_ms) except -1:
    cdef Strand strand
    cdef TaskFrame frame
    cdef TryFrame attempt
    if walk.timeout_at_ms:
        walk.timeout_at_ms += paused_ms
    for strand in walk.strands.values():
        frame = strand.top
        while frame is not None:
            if frame.timeout_at_ms:
                frame.timeout_at_ms += paused_ms
            if isinstance(frame, TryFrame):
                attempt = <TryFrame> frame
                if attempt.attempt_until_ms:
                    attempt.attempt_until_ms += paused_ms
                if attempt.total_until_ms:
                    attempt.total_until_ms += paused_ms
            frame = frame.parent
    return 0


cdef bytes reason_field(str reason, EventParts parts):
    """The event's message with the caller's reason; None leaves the message as it is."""
    if not reason:
        return None
    return text_field(FIELD_MESSAGE, f"{parts.message[2:].decode()}: {reason}")


cdef int cancel(Walk walk, Cancel command) except -1:
    if not walk.cancel_reason:
        walk.cancel_reason = command.reason
    if command.force or command.grace_ms <= 0 or not walk.effects:
        return end_cancelled(walk)
    if walk.grace_until_ms == 0:
        walk.grace_until_ms = walk.now_ms + command.grace_ms
    return 0


# --- ends ---

cdef int drop_everything(Walk walk) except -1:
    """Interrupts what runs and forgets what the walk no longer needs."""
    cdef list strands = list(walk.effects.values())
    for strand in strands:
        interrupt(walk, <Strand> strand)
    for strand in walk.ready:
        (<Strand> strand).is_ready = False
    walk.ready = []
    walk.strands = {}
    walk.held = []
    walk.visits = {}
    walk.timeout_at_ms = walk.grace_until_ms = 0
    return 0


cdef int end_workflow(Walk walk, Strand strand, object output) except -1:
    """All tasks are done, or one said `end`: the workflow's own output."""
    cdef Plan plan = walk.plan
    drop_everything(walk)
    at_workflow(walk, "/output", strand.context)
    try:
        if plan.output_as is not None:
            output = render(walk, plan.output_as, output, 0)
        match_schema(walk, plan.output_schema, output, "output")
    except WalkFault as fault:
        return fail_workflow(walk, fault.error)
    walk.state = STATUS_COMPLETED
    walk.output = output
    return emit(walk, plan.event_completed, 0, None, None, output_text(walk, output))


cdef int fail_workflow(Walk walk, dict error) except -1:
    drop_everything(walk)
    walk.state = STATUS_FAILED
    walk.error = error
    return emit(walk, walk.plan.event_failed, 0, text_field(FIELD_MESSAGE, error_message(error)), error)


cdef int end_cancelled(Walk walk) except -1:
    drop_everything(walk)
    walk.state = STATUS_CANCELLED
    return emit(
        walk, walk.plan.event_cancelled, 0, reason_field(walk.cancel_reason, walk.plan.event_cancelled)
    )
