"""Stage 4, walk: what an execution waits for, for people who ask.

Rules: it is read off the stacks and changes nothing. Each strand waits for what its top frame waits for; a fork waits
for its branches, which tell for themselves.
"""

cimport cython


@cython.final
cdef class Wait:
    """One thing that an execution waits for; `_core.pyi` has the contract."""

    cdef readonly str kind
    cdef readonly str task
    cdef readonly str reference
    cdef readonly long long until_ms
    cdef readonly int retry
    cdef readonly long long retries_max
    cdef readonly object action

    def __init__(self):
        raise TypeError("waits come from walks")


cdef Wait wait_of(str kind, TaskFrame frame, long long until_ms, object action):
    cdef Wait wait = Wait.__new__(Wait)
    wait.kind, wait.until_ms, wait.action = kind, until_ms, action
    wait.task, wait.reference = frame.task.name, frame.task.reference
    wait.retries_max = -1
    if isinstance(frame, TryFrame) and (<TryNode> frame.task).retry is not None:
        wait.retry = frame.attempt - 1
        wait.retries_max = (<TryNode> frame.task).retry.count_max
    return wait


cdef list waits_of(Walk walk):
    cdef list waits = []
    cdef Strand strand
    for strand in [walk.lone] if walk.lone is not None else list(walk.strands.values()):
        add_waits(walk, waits, strand)
    return waits


cdef int add_waits(Walk walk, list waits, Strand strand) except -1:
    cdef TaskFrame frame = strand.top
    cdef Resource resource
    if frame.task is None:
        return 0
    if strand.wake_at_ms:
        waits.append(wait_of("retry" if isinstance(frame, TryFrame) else "time", frame, strand.wake_at_ms, None))
    for resource in frame.resources or NO_ITEMS:
        if not resource.is_answered:
            kind = "events" if isinstance(resource.action, Subscribe) else "effect"
            waits.append(wait_of(kind, frame, deadline_around(walk, strand), resource.action))
    return 0


cdef long long deadline_around(Walk walk, Strand strand) noexcept:
    """The earliest timeout of all that runs on a strand and of what surrounds it."""
    cdef long long earliest = walk.timeout_at_ms
    cdef TaskFrame frame = strand.top
    while frame is not None:
        earliest = earlier(earliest, earlier(frame.timeout_at_ms, frame.limit_at_ms))
        frame = frame.parent
        if frame is None and strand.owner is not None:
            frame, strand = strand.owner, strand.owner_strand
    return earliest
