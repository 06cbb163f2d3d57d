"""Stage 4, walk: waits, delays and timeouts: the earliest deadline, and what happens when it comes.

Rules: a deadline that has passed comes before an outcome that arrives after it; an outcome that arrives at the very
moment of a deadline comes in time. Deadlines are met in their order; of equal ones waits come first, then the outermost
timeout. Time spent paused counts for waits and for no timeout. What begins again at a deadline takes a step before the
next one of that very moment, so that a limit of no time is a limit and not an endless loop; and the moment is not over
while there are more slices of it.
"""


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
                earliest = earlier(earliest, earlier(frame.timeout_at_ms, frame.limit_at_ms))
                frame = frame.parent
    elif walk.state <= STATUS_PAUSED:
        earliest = walk.grace_until_ms
    walk.wake_at_ms = earliest
    return 0


cdef inline long long earlier(long long one, long long other) noexcept:
    """The earlier of two deadlines, where 0 is none."""
    return one if other == 0 or 0 < one < other else other


cdef int expire(Walk walk, long long until_ms) except -1:
    """Meets every deadline up to a time, earliest first."""
    cdef list begun = []
    if walk.grace_until_ms:
        return end_cancelled(walk) if walk.grace_until_ms <= until_ms else 0
    while walk.state == STATUS_RUNNING and expire_earliest(walk, until_ms, begun):
        pass
    return 0


cdef long long deadline_of_frame(Walk walk, TaskFrame frame, list begun) except -1:
    """When a frame has taken too long; what has begun again just now is spared a limit of no time."""
    if frame.limit_at_ms == walk.now_ms and frame in begun:
        return frame.timeout_at_ms
    return earlier(frame.timeout_at_ms, frame.limit_at_ms)


cdef bint expire_earliest(Walk walk, long long until_ms, list begun) except -1:
    """Meets the earliest deadline if it is not after a time; `begun` are frames that deadlines let go on."""
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
            deadline = deadline_of_frame(walk, frame, begun)
            # Going outwards, the last of equal timeouts is the outermost.
            if 0 < deadline < best or (deadline == best and timed is not None and found is strand):
                best, timed, found, is_workflow = deadline, frame, strand, False
            frame = frame.parent
    if best > until_ms:
        return False
    if is_workflow:
        fail_workflow(walk, make_error("timeout", "the workflow took longer than its timeout", "/timeout"))
    elif timed is None:
        found.wake_at_ms = 0
        begun.append(found.top)
        found.top.task.kind.wake(walk, found, found.top)
    else:
        begun.append(timed)
        time_out(walk, found, timed)
    return True


cdef int time_out(Walk walk, Strand strand, TaskFrame frame) except -1:
    """A task took too long: its own `try` does not catch that, but one attempt's limit it does."""
    cdef TaskNode task = frame.task
    cdef bint is_task = earlier(frame.timeout_at_ms, frame.limit_at_ms) == frame.timeout_at_ms
    cdef str what = "task" if is_task else "attempt"
    cdef dict error = make_error("timeout", f"the {what} took longer than its timeout", task.reference)
    cut(walk, strand, frame)
    if is_task:
        return fail_frame(walk, strand, frame, error)
    return raise_from(walk, strand, frame, error)


cdef int shift_timeouts(Walk walk, long long paused_ms) except -1:
    """Moves every timeout by the time spent paused."""
    cdef Strand strand
    cdef TaskFrame frame
    if walk.timeout_at_ms:
        walk.timeout_at_ms += paused_ms
    for strand in walk.strands.values():
        frame = strand.top
        while frame is not None:
            if frame.timeout_at_ms:
                frame.timeout_at_ms += paused_ms
            if frame.limit_at_ms:
                frame.limit_at_ms += paused_ms
            if frame.task is not None:
                frame.task.kind.shift(frame, paused_ms)
            frame = frame.parent
    return 0


cdef int never_wakes(Walk walk, Strand strand, TaskFrame frame) except -1:
    """For kinds that wait for no time."""
    raise AssertionError("a task of this kind waits for no time")


cdef int no_times(TaskFrame frame, long long paused_ms) except -1:
    """For kinds without times of their own."""
    return 0
