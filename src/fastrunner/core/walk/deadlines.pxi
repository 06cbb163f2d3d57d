"""Stage 4, walk: waits, delays and timeouts: the earliest deadline, and what happens when it comes.

Rules: a deadline that has passed comes before an outcome that arrives after it; an outcome that arrives at the very
moment of a deadline comes in time. Deadlines are met in their order; of equal ones waits come first, then the outermost
timeout. Time spent paused counts for waits and for no timeout. What begins again at a deadline takes a step before the
next one of that very moment, so that a limit of no time is a limit and not an endless loop; and the moment is not over
while there are more slices of it. What is new at a deadline is due later, or at the very moment: so all that are due
are found in one look and met in their order.
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
    """Meets every deadline up to a time, earliest first. If they are too many for one slice the rest is left, due, for
    the next one, and nothing else goes on before."""
    cdef set begun = set()
    cdef list due
    cdef int left = DEADLINES_PER_SLICE_MAX
    if walk.grace_until_ms:
        return end_cancelled(walk) if walk.grace_until_ms <= until_ms else 0
    while walk.state == STATUS_RUNNING:
        due = due_deadlines(walk, until_ms, begun)
        if not due:
            return 0
        for at_ms, _, _, _, strand, frame in due:
            if left == 0:
                walk.work.has_due = True
                return 0
            left -= meet(walk, at_ms, <Strand> strand, <TaskFrame> frame, begun)
            if walk.state != STATUS_RUNNING:
                return 0
    return 0


# More than a workflow that people write has at one moment; each takes about a microsecond.
cdef int DEADLINES_PER_SLICE_MAX = 1000


cdef list due_deadlines(Walk walk, long long until_ms, set begun):
    """Deadlines up to a time in their order: (time, waits before the workflow's before tasks', strand, outermost
    first, strand, frame)."""
    cdef list due = []
    cdef Strand strand
    cdef TaskFrame frame
    cdef long long at_ms
    cdef int distance
    if 0 < walk.timeout_at_ms <= until_ms:
        due.append((walk.timeout_at_ms, 1, 0, 0, None, None))
    for strand in walk.strands.values():
        if 0 < strand.wake_at_ms <= until_ms:
            due.append((strand.wake_at_ms, 0, strand.id, 0, strand, None))
        frame, distance = strand.top, 0
        while frame is not None:
            at_ms = deadline_of_frame(walk, frame, begun)
            if 0 < at_ms <= until_ms:
                due.append((at_ms, 2, strand.id, -distance, strand, frame))
            frame, distance = frame.parent, distance + 1
    due.sort()
    return due


cdef long long deadline_of_frame(Walk walk, TaskFrame frame, set begun) except -1:
    """When a frame has taken too long; what has begun again just now is spared a limit of no time."""
    if frame.limit_at_ms == walk.now_ms and frame in begun:
        return frame.timeout_at_ms
    return earlier(frame.timeout_at_ms, frame.limit_at_ms)


cdef int meet(Walk walk, long long at_ms, Strand strand, TaskFrame frame, set begun) except -1:
    """Meets a deadline unless one before it has changed that; how many it met. `begun` are frames that go on."""
    if strand is None:
        return 1 + fail_workflow(walk, make_error("timeout", "the workflow took longer than its timeout", "/timeout"))
    if strand.id not in walk.strands:
        return 0
    if frame is None:
        if strand.wake_at_ms != at_ms:
            return 0
        strand.wake_at_ms = 0
        begun.add(strand.top)
        return 1 + strand.top.task.kind.wake(walk, strand, strand.top)
    if not stands_on(strand, frame) or deadline_of_frame(walk, frame, begun) != at_ms:
        return 0
    begun.add(frame)
    return 1 + time_out(walk, strand, frame)


cdef bint stands_on(Strand strand, TaskFrame frame) noexcept:
    """Whether a frame is still on its strand."""
    cdef TaskFrame above = strand.top
    while above is not None and above is not frame:
        above = above.parent
    return above is not None


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
