"""Stage 2, compile: what a document's `schedule` says, for whoever starts executions by it.

Rule: a submission runs its document once, now; its `schedule` is for `AddSchedule`, and the submission is told so.
"""


cdef dict render_schedule(Plan plan, long long now_ms):
    """The schedule with its durations in milliseconds; None without one. Raises RenderFault."""
    cdef dict section = plan.document.get("schedule")
    cdef dict rendered
    cdef Workspace work
    cdef Facts facts
    if not section:
        return None
    rendered = {key: section[key] for key in ("cron", "on", "read") if key in section}
    facts = Facts.__new__(Facts)
    facts.execution_id = ""
    facts.env = {}
    facts.document = plan.document
    facts.started_at_ms = now_ms
    facts.behaviour = plan.behaviour
    work = borrow_workspace(facts.behaviour)
    work.place.facts = facts
    work.place.now_ms = now_ms
    show_secrets(work.place, NO_SECRETS)
    try:
        for key, duration in (("every", plan.schedule_every), ("after", plan.schedule_after)):
            if duration is not None:
                enter_workflow(work.place, f"/schedule/{key}", None)
                rendered[f"{key}_ms"] = duration_of(work.place, <Duration> duration, None)
    except WalkFault as fault:
        return_workspace(work)
        raise RenderFault(fault.error) from None
    return_workspace(work)
    return rendered


cdef Problem schedule_warning(Document document):
    """That a submission does not schedule anything."""
    line, column = document.position("/schedule", True)
    return Problem("schedule-once", "/schedule", line, column,
                   "the document is executed once, now: `schedule` starts it again only once it is added as a schedule "
                   "(AddSchedule, `fastrunner schedule add`)", "warning")
