"""Stage 4, walk: how an execution ends: completed, failed or cancelled.

Rules: an end interrupts everything that somebody waits for; an effect that nobody waits for goes on unless the
execution is cancelled. The last event is the end's, and nothing follows it.
"""


cdef int drop_everything(Walk walk, bint detached) except -1:
    """Gives up what is held outside, also what belongs to no frame if asked to, and forgets what is not needed."""
    cdef list resources = list(walk.resources.values())
    for resource in resources:
        if detached or (<Resource> resource).frame is not None:
            give_up(walk, <Resource> resource)
    for strand in walk.ready:
        (<Strand> strand).is_ready = False
    walk.ready = []
    walk.strands = {}
    walk.resources = walk.visits = NO_ENTRIES
    walk.effects_in_flight = 0
    walk.held = NO_ITEMS
    walk.timeout_at_ms = walk.grace_until_ms = 0
    return 0


cdef int end_workflow(Walk walk, Strand strand, object output) except -1:
    """All tasks are done, or one said `end`: the workflow's own output."""
    cdef Plan plan = walk.plan
    cdef Place at = walk.work.place
    drop_everything(walk, False)
    enter_workflow(at, "/output", strand.context)
    try:
        if plan.output_as is not None:
            output = fill(at, plan.output_as, output, 0)
        if plan.output_schema is not None:
            match_schema(at, plan.output_schema, output, "output")
    except WalkFault as fault:
        return fail_workflow(walk, fault.error)
    walk.state = STATUS_COMPLETED
    walk.output = output
    return emit(walk, plan.event_completed, 0, None, None, None, output_text(walk, output))


cdef int fail_workflow(Walk walk, dict error) except -1:
    drop_everything(walk, False)
    error = without_secrets(walk, error)
    walk.state = STATUS_FAILED
    walk.error = error
    return emit(walk, walk.plan.event_failed, 0, None, message_field(walk, error), error)


cdef int end_cancelled(Walk walk) except -1:
    drop_everything(walk, True)
    walk.state = STATUS_CANCELLED
    return emit(
        walk, walk.plan.event_cancelled, 0, None, reason_field(walk.cancel_reason, walk.plan.event_cancelled)
    )
