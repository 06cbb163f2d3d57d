"""Stage 4, walk: what a turn or a render borrows, and gives back as it was.

Rules: whoever has a workspace has it alone, so that walks in several threads do not disturb each other; what it had
before never shows. Idle ones are kept, because making one costs as much as a short turn.
"""

from fastrunner._jq cimport new_machine

cdef list idle_workspaces = []
cdef Py_ssize_t IDLE_WORKSPACES_MAX = 8


cdef Workspace borrow_workspace(Behaviour behaviour):
    """A workspace that evaluates by an execution's bounds."""
    cdef Workspace work
    try:
        # One operation, so that no other thread can take the same.
        work = <Workspace> idle_workspaces.pop()
    except IndexError:
        work = Workspace.__new__(Workspace)
        work.machine = new_machine(&behaviour.expressions)
        work.place = Place.__new__(Place)
        work.place.work = work
        work.place.machine = work.machine
        work.place.measure = &work.measure
        work.events = EventBuffer.__new__(EventBuffer)
        work.tally = TallyRecords.__new__(TallyRecords)
    if work.behaviour is not behaviour:
        work.behaviour = behaviour
        work.machine.set_bounds(&behaviour.expressions)
        work.measure.depth_max = <int> behaviour.data_depth_max
        work.measure.size_bytes_max = behaviour.data_size_bytes_max
        work.measure.is_plain = behaviour.version >= PLAIN_NUMBERS_SINCE
    work.measure.size_left = work.measure.size_bytes_max
    work.measure.size_spent = 0
    work.has_due = False
    work.bytes_spent = 0
    work.retry_after_ms = 0
    work.actions = []
    work.first_sequence = 0
    work.dumped = None
    work.dumped_text = b"null"
    work.machine.take_spent()
    return work


cdef int return_workspace(Workspace work) except -1:
    """Lets go of everything of the turn. One that was left by an error is never returned."""
    cdef Place at = work.place
    enter_workflow(at, "", None)
    at.facts = None
    show_secrets(at, NO_SECRETS)
    at.authorization = at.asked = None
    work.actions = None
    work.dumped = None
    work.id_field = work.time_field = None
    work.events.take()
    work.tally.take()
    if len(idle_workspaces) < IDLE_WORKSPACES_MAX:
        idle_workspaces.append(work)
    return 0
