"""Stage 4, walk: an error looks for a `try` outwards; what catches it, retries or handles.

Rules: an error goes from its task to the frames around it, from a branch to its fork, and ends the workflow if nothing
catches it. Every task it passes has failed, and says so. An error in a handler, in a filter or in a retry policy is
the `try` task's own and goes outwards from there.
"""


cdef int fail_task(Walk walk, Strand strand, TaskFrame frame, TaskNode task, int attempt, dict error,
                   long long started_at_ms) except -1:
    """A task has failed; `frame` is the one its list runs in."""
    emit_failed(walk, task, attempt, error, started_at_ms)
    return raise_from(walk, strand, frame, error)


cdef int raise_from(Walk walk, Strand strand, TaskFrame frame, dict error) except -1:
    """Lets an error go outwards, beginning with a frame that may catch it."""
    cdef ForkFrame owner
    while True:
        strand.top = frame
        if frame.task is None:
            owner = strand.owner
            if owner is None:
                return fail_workflow(walk, error)
            if not branch_failed(walk, strand):
                return 0
            strand = owner.strand
            frame = owner
        elif frame.task.kind == KIND_TRY and (<TryFrame> frame).phase == TRY_BODY:
            try:
                if catch(walk, strand, <TryFrame> frame, error):
                    return block(walk, strand) if frame.position == POSITION_BLOCKED else make_ready(walk, strand)
            except WalkFault as fault:
                error = fault.error
        emit_failed(walk, frame.task, frame.attempt, error, frame.started_at_ms)
        frame = frame.parent


cdef bint branch_failed(Walk walk, Strand branch) except -1:
    """Whether the fork fails with its branch: a race goes on while anyone runs."""
    cdef ForkFrame frame = branch.owner
    frame.branches[branch.branch] = None
    frame.running -= 1
    drop_strand(walk, branch)
    if (<ForkNode> frame.task).compete and frame.running > 0:
        return False
    drop_branches(walk, frame)
    return True


# --- try ---

cdef TryFrame try_frame(Walk walk, TaskFrame parent, TryNode task, object data, long long timeout_at_ms):
    cdef TryFrame frame = TryFrame.__new__(TryFrame)
    fill_frame(walk, frame, parent, task, data, 1, timeout_at_ms)
    if task.retry is not None:
        frame.total_until_ms = timeout_at(walk, task.retry.total_duration, data)
    start_attempt(walk, frame)
    return frame


cdef int start_attempt(Walk walk, TryFrame frame) except -1:
    """The body begins, again with the original input. Raises WalkFault if the attempt's limit does not evaluate."""
    cdef TryNode task = <TryNode> frame.task
    frame.attempt_until_ms = 0
    if task.retry is not None:
        frame.attempt_until_ms = timeout_at(walk, task.retry.attempt_duration, frame.input)
    frame.phase = TRY_BODY
    frame.error = None
    frame.body = task.body
    frame.position = 0 if task.body.count else POSITION_DONE
    frame.data = frame.input
    frame.scope = frame.parent.scope
    frame.body_attempt = frame.attempt
    return 0


cdef int go_on_after_delay(Walk walk, Strand strand, TryFrame frame) except -1:
    """The delay of a retry is over."""
    at_place(walk, frame.task, strand, frame.parent.scope, frame.raw_input, frame.input, frame.started_at_ms)
    try:
        start_attempt(walk, frame)
    except WalkFault as fault:
        return fail_task(walk, strand, frame.parent, frame.task, frame.attempt, fault.error, frame.started_at_ms)
    return make_ready(walk, strand)


cdef bint catch(Walk walk, Strand strand, TryFrame frame, dict error) except -1:
    """Catches an error if the filter lets it; then a retry, the handler, or nothing follows."""
    cdef TryNode task = <TryNode> frame.task
    cdef Scope scope = make_scope(frame.parent.scope, error, None)
    at_place(walk, task, strand, scope, frame.raw_input, frame.input, frame.started_at_ms)
    if not filter_matches(task.filter, error):
        return False
    if task.when is not None and not is_true(evaluate_here(walk, task.when, error, 0)):
        return False
    if task.except_when is not None and is_true(evaluate_here(walk, task.except_when, error, 0)):
        return False
    frame.attempt_until_ms = 0
    if task.retry is not None:
        if retry(walk, strand, frame, error):
            return True
        if task.handler is None and not task.has_catch_then:
            return False
    frame.phase = TRY_HANDLER
    frame.error = error
    frame.total_until_ms = 0
    frame.body = NO_TASKS if task.handler is None else task.handler
    frame.position = 0 if frame.body.count else POSITION_DONE
    frame.data = frame.input
    frame.scope = scope
    frame.body_attempt = frame.parent.body_attempt
    return True


cdef bint filter_matches(tuple wanted, dict error):
    for key, value in wanted:
        if key == "type":
            if not same_error_type(value, error["type"]):
                return False
        elif key not in error or error[key] != value:
            return False
    return True


cdef bint retry(Walk walk, Strand strand, TryFrame frame, dict error) except -1:
    """Schedules the next attempt if the policy allows one."""
    cdef RetryPolicy policy = (<TryNode> frame.task).retry
    cdef long long delay_ms
    if policy.when is not None and not is_true(evaluate_here(walk, policy.when, error, 0)):
        return False
    if policy.except_when is not None and is_true(evaluate_here(walk, policy.except_when, error, 0)):
        return False
    if 0 <= policy.count_max < frame.attempt:
        return False
    delay_ms = retry_delay(walk, policy, frame)
    if frame.total_until_ms and walk.now_ms + delay_ms >= frame.total_until_ms:
        return False
    frame.attempt = min(frame.attempt + 1, RETRIES_MAX)
    if delay_ms == 0:
        start_attempt(walk, frame)
    else:
        frame.phase = TRY_DELAY
        frame.error = error
        frame.position = POSITION_BLOCKED
        strand.wake_at_ms = walk.now_ms + delay_ms
    emit(
        walk,
        frame.task.event_retry,
        frame.attempt,
        text_field(FIELD_MESSAGE, f"Task {frame.task.name} is retried in {delay_ms} ms after {error_message(error)}"),
        error,
    )
    return True


cdef long long retry_delay(Walk walk, RetryPolicy policy, TryFrame frame) except? -1:
    """Delay before the next attempt: back-off over the delay, plus jitter."""
    cdef int number = frame.attempt
    cdef double delay_ms = 0 if policy.delay is None else <double> duration_of(walk, policy.delay, frame.input)
    cdef long long low, high
    if policy.backoff == BACKOFF_LINEAR:
        delay_ms *= number
    elif policy.backoff == BACKOFF_EXPONENTIAL:
        delay_ms *= 2.0 ** min(number - 1, 60)
    if policy.jitter_from is not None:
        low = duration_of(walk, policy.jitter_from, frame.input)
        high = max(low, duration_of(walk, policy.jitter_to, frame.input))
        delay_ms += low + <long long> (next_random(walk) % <unsigned long long> (high - low + 1))
    return <long long> min(delay_ms, <double> DURATION_MS_MAX)


cdef unsigned long long next_random(Walk walk):
    """splitmix64: small state, and equal seeds give equal executions."""
    cdef unsigned long long value
    walk.random_state += 0x9E3779B97F4A7C15ULL
    value = walk.random_state
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL
    return value ^ (value >> 31)
