"""Stage 4, walk: an error looks for a `try` outwards.

Rules: an error goes from its task to the frames around it, from a branch to its fork, and ends the workflow if nothing
catches it. Every task it passes has failed, says so, and gives up what it holds outside; an extended task whose `after`
fails has completed. An error in a handler, in a
filter or in a retry policy is the `try` task's own and goes outwards from there.
"""


cdef int fail_task(Walk walk, Place at, dict error) except -1:
    """The task at a place has failed."""
    error = without_secrets(walk, error)
    # Of the task that failed; what catches it has none.
    at.authorization = None
    emit_failed(walk, at.task, at.attempt, at.scope, error, at.started_at_ms)
    return raise_from(walk, at.strand, at.frame, error)


cdef int fail_frame(Walk walk, Strand strand, TaskFrame frame, dict error) except -1:
    """A task with a frame has failed by itself."""
    cut(walk, strand, frame)
    return fail_task(walk, return_to(walk, strand, frame), error)


cdef int raise_from(Walk walk, Strand strand, TaskFrame frame, dict error) except -1:
    """Lets an error go outwards, beginning with a frame that may catch it."""
    while True:
        strand.top = frame
        if frame.task is None:
            if strand.owner is None:
                return fail_workflow(walk, error)
            if not branch_failed(walk, strand):
                return 0
            frame = strand.owner
            strand = strand.owner_strand
        elif isinstance(frame, TryFrame):
            try:
                if catch(walk, strand, <TryFrame> frame, error):
                    return block(walk, strand) if frame.position == POSITION_BLOCKED else make_ready(walk, strand)
            except WalkFault as fault:
                error = without_secrets(walk, fault.error)
                walk.work.retry_after_ms = 0
        elif isinstance(frame, ExtendedFrame) and (<ExtendedFrame> frame).phase != EXTENDED_BEFORE:
            # The task in it has told itself what became of it.
            frame = frame.parent
            continue
        let_go(walk, frame)
        emit_failed(walk, frame.task, frame.attempt, frame.parent.scope, error, frame.started_at_ms)
        frame = frame.parent


cdef dict without_secrets(Walk walk, dict error):
    """An error without the values of secrets."""
    cdef dict shown_error
    if not walk.hidden:
        return error
    shown_error = dict(error)
    for key, text in error.items():
        if isinstance(text, str):
            for hidden in walk.hidden:
                text = text.replace(hidden, HIDDEN)
            shown_error[key] = text
    return shown_error
