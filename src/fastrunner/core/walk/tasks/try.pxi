"""Stage 4, walk: `try`: a body, what catches its errors, retries, a handler.

Rules: the limits of a retry policy see what surrounds the `try`, everything else in `catch` sees the error as well. An
attempt begins with the task's original input. An error in the handler, in a filter or in the policy is the task's own.
"""

cimport cython

# More retries than anyone waits for, and far from the end of the integers that count them.
cdef int RETRIES_MAX = 1_000_000_000
cdef TaskList NO_TASKS = TaskList.__new__(TaskList)
NO_TASKS.tasks = ()

cdef enum:
    TRY_BODY
    TRY_DELAY
    TRY_HANDLER

cdef enum:
    BACKOFF_CONSTANT
    BACKOFF_LINEAR
    BACKOFF_EXPONENTIAL


@cython.final
@cython.internal
cdef class RetryPolicy:
    cdef Expression when
    cdef Expression except_when
    cdef Duration delay
    cdef int backoff
    cdef Duration jitter_from
    cdef Duration jitter_to
    cdef long long count_max
    """Retries, not executions; -1: unlimited."""
    cdef Duration attempt_duration
    cdef Duration total_duration


@cython.final
@cython.internal
cdef class TryNode(TaskNode):
    cdef TaskList body
    cdef tuple filter
    """Pairs of member and wanted value; all must be equal."""
    cdef Expression when
    cdef Expression except_when
    cdef RetryPolicy retry
    cdef TaskList handler
    """None without `catch.do`."""
    cdef bint has_catch_then
    cdef int catch_then


@cython.final
@cython.internal
cdef class TryFrame(TaskFrame):
    cdef int phase
    cdef dict error
    """What was caught last, while delaying or handling."""
    cdef long long attempt_until_ms
    """When the attempt that runs has taken too long; 0: never."""
    cdef long long total_until_ms
    """When all attempts have taken too long; 0: never."""


# --- building ---

cdef TaskNode build_try(PlanBuilder builder, dict definition, Siblings siblings):
    cdef TryNode task = TryNode.__new__(TryNode)
    cdef dict section = definition["catch"]
    cdef Bindings bindings = bind(siblings.bindings, BINDS_ERROR, section)
    task.body = builder.tasks(AT_TRY, definition["try"], siblings.reference + "/try", siblings.bindings)
    task.filter = error_filter((section.get("errors") or {}).get("with") or {})
    task.when = builder.condition(AT_CATCH_WHEN, section.get("when"), bindings)
    task.except_when = builder.condition(AT_CATCH_EXCEPT_WHEN, section.get("exceptWhen"), bindings)
    task.retry = build_retry(builder, section.get("retry"), bindings)
    if section.get("do") is not None:
        task.handler = builder.tasks(AT_CATCH_DO, section["do"], siblings.reference + "/catch/do", bindings)
    task.has_catch_then = section.get("then") is not None
    task.catch_then = siblings.target(section.get("then"))
    return task


cdef tuple error_filter(dict wanted):
    """`details` is the name released schemas of 1.0 have for `detail`."""
    return tuple([("detail" if key == "details" else key, value) for key, value in wanted.items()])


cdef RetryPolicy build_retry(PlanBuilder builder, object definition, Bindings bindings):
    cdef RetryPolicy retry
    cdef dict limit, attempt, jitter, backoff
    if definition is None:
        return None
    if isinstance(definition, str):
        definition = builder.use["retries"][definition]
    retry = RetryPolicy.__new__(RetryPolicy)
    retry.when = builder.condition(AT_RETRY_WHEN, definition.get("when"), bindings)
    retry.except_when = builder.condition(AT_RETRY_EXCEPT_WHEN, definition.get("exceptWhen"), bindings)
    retry.delay = builder.duration(AT_RETRY_DELAY, definition.get("delay"), bindings)
    backoff = definition.get("backoff") or {}
    if "exponential" in backoff:
        retry.backoff = BACKOFF_EXPONENTIAL
    elif "linear" in backoff:
        retry.backoff = BACKOFF_LINEAR
    else:
        retry.backoff = BACKOFF_CONSTANT
    jitter = definition.get("jitter") or {}
    retry.jitter_from = builder.duration(AT_RETRY_JITTER, jitter.get("from"), bindings)
    retry.jitter_to = builder.duration(AT_RETRY_JITTER, jitter.get("to"), bindings)
    limit = definition.get("limit") or {}
    attempt = limit.get("attempt") or {}
    retry.count_max = -1
    if attempt.get("count") is not None:
        retry.count_max = min(max(0, int(attempt["count"])), <object> RETRIES_MAX)
    retry.attempt_duration = builder.duration(AT_RETRY_ATTEMPT_DURATION, attempt.get("duration"), bindings)
    retry.total_duration = builder.duration(AT_RETRY_DURATION, limit.get("duration"), bindings)
    return retry


# --- walking ---

cdef TaskFrame try_frame():
    return TryFrame.__new__(TryFrame)


cdef int begin_try(Walk walk, Place at, object data) except -1:
    cdef TryNode task = <TryNode> at.task
    cdef long long attempt_until_ms = 0, total_until_ms = 0
    cdef TryFrame frame
    if task.retry is not None:
        total_until_ms = deadline_of(at, task.retry.total_duration, data)
        attempt_until_ms = deadline_of(at, task.retry.attempt_duration, data)
    frame = <TryFrame> push(walk, at, data)
    frame.total_until_ms = total_until_ms
    return begin_attempt(frame, attempt_until_ms)


cdef int begin_attempt(TryFrame frame, long long until_ms) except -1:
    """The body begins, again with the original input."""
    frame.attempt_until_ms = until_ms
    frame.phase = TRY_BODY
    frame.error = None
    begin_list(frame, (<TryNode> frame.task).body, frame.input)
    frame.scope = frame.parent.scope
    frame.body_attempt = frame.attempt
    return set_limit(frame)


cdef int set_limit(TryFrame frame) noexcept:
    """Limits bind attempts; delays and handlers are free of them."""
    frame.limit_at_ms = 0
    if frame.phase == TRY_BODY:
        frame.limit_at_ms = earlier(frame.attempt_until_ms, frame.total_until_ms)
    return 0


cdef int begin_next_attempt(Place at, TryFrame frame) except -1:
    """Raises WalkFault if the attempt's limit does not evaluate."""
    return begin_attempt(frame, deadline_of(at, (<TryNode> frame.task).retry.attempt_duration, frame.input))


cdef int wake_try(Walk walk, Strand strand, TaskFrame frame) except -1:
    """The delay of a retry is over."""
    try:
        begin_next_attempt(return_to(walk, strand, frame), <TryFrame> frame)
    except WalkFault as fault:
        return fail_frame(walk, strand, frame, fault.error)
    return make_ready(walk, strand)


cdef int leave_try(Walk walk, Strand strand, TaskFrame frame) except -1:
    """The body or the handler has ended."""
    cdef TryNode task = <TryNode> frame.task
    if (<TryFrame> frame).phase == TRY_HANDLER and task.has_catch_then:
        return finish(walk, strand, frame, frame.data, task.catch_then)
    return finish(walk, strand, frame, frame.data, task.then)


cdef int shift_try(TaskFrame frame, long long paused_ms) except -1:
    cdef TryFrame attempt = <TryFrame> frame
    if attempt.attempt_until_ms:
        attempt.attempt_until_ms += paused_ms
    if attempt.total_until_ms:
        attempt.total_until_ms += paused_ms
    return 0


# --- catching ---

cdef bint catch(Walk walk, Strand strand, TryFrame frame, dict error) except -1:
    """Catches an error of the body if the filter lets it; then a retry, the handler, or nothing follows."""
    cdef TryNode task = <TryNode> frame.task
    cdef Place at
    if frame.phase != TRY_BODY:
        return False
    at = return_to(walk, strand, frame)
    at.own_scope = make_scope(at.scope, error, None)
    if not filter_matches(task.filter, error):
        return False
    if task.when is not None and not holds(at, task.when, error):
        return False
    if task.except_when is not None and holds(at, task.except_when, error):
        return False
    frame.attempt_until_ms = frame.limit_at_ms = 0
    if task.retry is not None:
        if retry(walk, at, frame, error):
            return True
        if task.handler is None and not task.has_catch_then:
            return False
    frame.phase = TRY_HANDLER
    frame.error = error
    frame.total_until_ms = 0
    begin_list(frame, NO_TASKS if task.handler is None else task.handler, frame.input)
    frame.scope = at.own_scope
    frame.body_attempt = frame.parent.body_attempt
    return True


cdef bint filter_matches(tuple wanted, dict error) except -1:
    for key, value in wanted:
        if key == "type":
            if not same_error_type(value, error["type"]):
                return False
        elif key not in error or error[key] != value:
            return False
    return True


cdef bint retry(Walk walk, Place at, TryFrame frame, dict error) except -1:
    """Schedules the next attempt if the policy allows one."""
    cdef RetryPolicy policy = (<TryNode> frame.task).retry
    cdef long long delay_ms
    if policy.when is not None and not holds(at, policy.when, error):
        return False
    if policy.except_when is not None and holds(at, policy.except_when, error):
        return False
    if 0 <= policy.count_max < frame.attempt:
        return False
    delay_ms = retry_delay(walk, at, policy, frame)
    if frame.total_until_ms and walk.now_ms + delay_ms >= frame.total_until_ms:
        return False
    frame.attempt = min(frame.attempt + 1, RETRIES_MAX)
    if delay_ms == 0:
        begin_next_attempt(at, frame)
    else:
        frame.phase = TRY_DELAY
        frame.error = error
        frame.position = POSITION_BLOCKED
        at.strand.wake_at_ms = walk.now_ms + delay_ms
    emit(
        walk,
        frame.task.event_retry,
        frame.attempt,
        frame.parent.scope,
        text_field(FIELD_MESSAGE, f"Task {frame.task.name} is retried in {delay_ms} ms after "
                                  f"{error_message(error, walk.facts.behaviour.event_error_size_max)}"),
        error,
    )
    return True


cdef long long retry_delay(Walk walk, Place at, RetryPolicy policy, TryFrame frame) except? -1:
    """Delay before the next attempt: back-off over the delay, plus jitter; no less than the failed effect asks for."""
    cdef int number = frame.attempt
    cdef double delay_ms = 0 if policy.delay is None else <double> duration_of(at, policy.delay, frame.input)
    cdef long long low, high
    if policy.backoff == BACKOFF_LINEAR:
        delay_ms *= number
    elif policy.backoff == BACKOFF_EXPONENTIAL:
        delay_ms *= 2.0 ** min(number - 1, 60)
    if policy.jitter_from is not None:
        low = duration_of(at, policy.jitter_from, frame.input)
        high = max(low, duration_of(at, policy.jitter_to, frame.input))
        delay_ms += low + <long long> (next_random(walk) % <unsigned long long> (high - low + 1))
    return max(bounded_ms(delay_ms), walk.work.retry_after_ms)


cdef unsigned long long next_random(Walk walk) noexcept:
    """splitmix64: small state, and equal seeds give equal executions."""
    cdef unsigned long long value
    walk.random_state += 0x9E3779B97F4A7C15ULL
    value = walk.random_state
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL
    return value ^ (value >> 31)


# --- snapshots ---

cdef int write_try(SnapshotWriter writer, TaskFrame frame, list fields) except -1:
    cdef TryFrame attempt = <TryFrame> frame
    fields += [attempt.phase, writer.value(attempt.error), attempt.attempt_until_ms, attempt.total_until_ms]
    return 0


cdef int read_try(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    cdef TryFrame attempt = <TryFrame> frame
    cdef TryNode task = <TryNode> frame.task
    attempt.phase, error, attempt_until_ms, total_until_ms = fields
    attempt.attempt_until_ms, attempt.total_until_ms = count_of(attempt_until_ms), count_of(total_until_ms)
    attempt.error = reader.error(error)
    frame.body = task.body
    if attempt.phase == TRY_HANDLER:
        frame.body = NO_TASKS if task.handler is None else task.handler
        frame.scope = make_scope(frame.parent.scope, attempt.error, None)
    elif not TRY_BODY <= attempt.phase <= TRY_DELAY or (attempt.phase == TRY_DELAY and task.retry is None):
        raise ValueError("no phase of the try")
    if (attempt.phase == TRY_DELAY) != (frame.position == POSITION_BLOCKED):
        raise ValueError("a try waits for nothing but its delay")
    return set_limit(attempt)
