"""Stage 4, walk: one execution, its public face, and what happens around a slice of steps.

    walk.pxi       start, restore, resume; the turn
    frames.pxi     strands and frames; entering and returning to places
    step.pxi       a step: a task begins, a list ends
    tasks/         what each kind of task does, and what extensions do around one
    kinds.pxi      the table of kinds
    faults.pxi     an error finds its `try`
    deadlines.pxi  waits and timeouts
    effects.pxi    what is asked for outside, and outcomes
    commands.pxi   pause, resume, cancel
    waits.pxi      what it waits for, for people
    ends.pxi       how an execution ends
    snapshot.pxi   a walk as bytes and back; sharing.pxi, earlier.pxi: values within values, earlier formats

Rules: nothing recurses over the workflow but over its nesting, which is bounded, and nothing is kept but what
`frames.pxi` and the class here hold. What a turn works with it borrows, so equal calls give equal turns whatever else
the process does.
"""

cimport cython

from cpython.bytes cimport PyBytes_GET_SIZE

from typing import Any as _Any
from typing import Literal as _Literal
from typing import Union as _Union

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef tuple STATUS_NAMES = ("running", "paused", "completed", "failed", "cancelled")


@cython.final
cdef class Turn:
    """What one call of the walk yielded; `_core.pyi` has the contract."""

    cdef readonly list actions
    cdef readonly bytes events
    cdef readonly long long first_sequence
    cdef readonly long long last_sequence
    cdef readonly bint more
    cdef readonly bytes tally

    def __init__(self):
        raise TypeError("turns come from walks")


@cython.final
cdef class Walk:
    """One execution; `_core.pyi` has the contract."""

    def __cinit__(self, key=None):
        if key is not KEY:
            raise TypeError("use Walk.start or Walk.restore")

    @property
    def status(self):
        return STATUS_NAMES[self.state]

    @staticmethod
    def start(Plan plan not None, str execution_id not None, object input, long long now_ms, *, object seed=0,
              object env=None, long long timeout_ms_max=0, object bounds=None, object secrets=None):
        cdef Walk walk = make_walk(plan, execution_id, env, with_bounds(plan.behaviour, bounds))
        take_secrets(walk, secrets)
        walk.facts.input = input
        walk.random_state = <unsigned long long> (seed & 0xFFFFFFFFFFFFFFFF)
        walk.facts.started_at_ms = now_ms
        begin_turn(walk, now_ms)
        start_workflow(walk, timeout_ms_max)
        run(walk)
        return walk, end_turn(walk)

    @staticmethod
    def restore(Plan plan not None, str execution_id not None, object input, bytes snapshot not None, *,
                object env=None, object secrets=None):
        cdef Walk walk = read_snapshot(plan, execution_id, input, snapshot, env)
        take_secrets(walk, secrets)
        return walk

    def resume(self, object outcome not None, long long now_ms):
        begin_turn(self, now_ms)
        if self.state <= STATUS_PAUSED:
            take_outcome(self, outcome)
            run(self)
        return end_turn(self)

    def pending(self):
        return [
            (<Resource> resource).action
            for resource in self.resources.values() if not (<Resource> resource).is_answered
        ]

    def waits(self):
        return waits_of(self)

    def wants_event(self, long long subscription_id):
        cdef Resource resource = self.resources.get(subscription_id)
        if resource is None or not isinstance(resource.action, Subscribe):
            return False
        return (
            self.state == STATUS_RUNNING and self.grace_until_ms == 0 and resource.frame.position == POSITION_BLOCKED
        )

    def snapshot(self):
        return write_snapshot(self)


cdef Walk make_walk(Plan plan, str execution_id, object env, Behaviour behaviour):
    cdef Walk walk = Walk.__new__(Walk, KEY)
    cdef Facts facts = Facts.__new__(Facts)
    facts.execution_id = execution_id
    facts.env = checked_env(env) if env else NO_ENTRIES
    facts.document = plan.document
    facts.behaviour = behaviour
    walk.plan = plan
    walk.facts = facts
    walk.next_strand_id = walk.next_resource_id = 1
    walk.strands = {}
    walk.ready = []
    walk.resources = walk.visits = NO_ENTRIES
    walk.held = NO_ITEMS
    return walk


cdef int take_secrets(Walk walk, object secrets) except -1:
    walk.secrets = known_secrets(walk.plan, secrets)
    cdef dict env = walk.facts.env
    # A driver that takes env_vars under the name of a secret keeps them from people, too.
    walk.hidden = hidden_texts([walk.secrets, [env[name] for name in walk.plan.secrets if name in env]])
    return 0


cdef dict checked_env(object env):
    """Names and values as UTF-8 can have them. Raises TypeError or ValueError."""
    cdef Py_ssize_t size
    for text in [*env.keys(), *env.values()]:
        if not isinstance(text, str):
            raise TypeError(f"names and values of env are str, not {type(text).__name__}")
        try:
            PyUnicode_AsUTF8AndSize(text, &size)
        except UnicodeEncodeError:
            raise ValueError("a name or value of env has an unpaired surrogate: it is no text") from None
    return dict(env)


cdef int start_workflow(Walk walk, long long timeout_ms_max) except -1:
    """The first events, the workflow's own input, and the strand that runs its tasks."""
    cdef Plan plan = walk.plan
    cdef Place at = walk.work.place
    cdef object data
    emit(walk, plan.event_started, 0, None)
    emit(walk, plan.event_validating, 0, None)
    emit(walk, plan.event_validated, 0, None)
    try:
        enter_workflow(at, "/input", None)
        data = take_input(walk, at)
        if plan.input_schema is not None:
            match_schema(at, plan.input_schema, data, "input")
        if plan.input_from is not None:
            data = fill(at, plan.input_from, data, 0)
        enter_workflow(at, "/timeout", None)
        walk.timeout_at_ms = deadline_of(at, plan.timeout, data)
    except WalkFault as fault:
        return fail_workflow(walk, fault.error)
    if timeout_ms_max > 0 and (walk.timeout_at_ms == 0 or walk.now_ms + timeout_ms_max < walk.timeout_at_ms):
        walk.timeout_at_ms = walk.now_ms + timeout_ms_max
    return make_ready(walk, new_strand(walk, plan.root, data, None, 1))


cdef object take_input(Walk walk, Place at):
    try:
        walk.facts.input = json_safe(&walk.work.measure, walk.facts.input)
    except Unkept as error:
        walk.facts.input = None
        raise fault_here(at, "validation", str(error)) from None
    return walk.facts.input


# --- the turn ---

cdef int begin_turn(Walk walk, long long now_ms) except -1:
    cdef Workspace work = borrow_workspace(walk.facts.behaviour)
    leave_rest(walk)
    work.is_later = now_ms > walk.now_ms
    # A clock that was set back must not make deadlines move or events older than those before them.
    walk.now_ms = max(now_ms, walk.now_ms)
    # Made again each turn: executions that wait are many.
    work.id_field = text_field(FIELD_EXECUTION_ID, walk.facts.execution_id)
    work.time_field = varint_field(FIELD_TIMESTAMP_MS, walk.now_ms)
    work.place.facts = walk.facts
    work.place.now_ms = walk.now_ms
    show_secrets(work.place, walk.secrets)
    walk.work = work
    return 0


cdef Turn end_turn(Walk walk):
    cdef Turn turn = Turn.__new__(Turn)
    cdef Workspace work = walk.work
    turn.actions = work.actions
    turn.events = work.events.take()
    turn.tally = work.tally.take()
    turn.first_sequence = work.first_sequence
    turn.last_sequence = walk.last_sequence if work.first_sequence else 0
    turn.more = walk.state == STATUS_RUNNING and walk.grace_until_ms == 0 and len(walk.ready) > 0 and not work.has_due
    find_wake(walk)
    come_to_rest(walk)
    walk.work = None
    return_workspace(work)
    return turn


cdef int come_to_rest(Walk walk) except -1:
    """Between turns most walks are one strand that waits: without the dict and the list those take a tenth less."""
    if len(walk.strands) == 1:
        walk.lone = <Strand> next(iter(walk.strands.values()))
        walk.strands = NO_ENTRIES
    if not walk.ready:
        walk.ready = NO_ITEMS
    return 0


cdef int leave_rest(Walk walk) except -1:
    """Before a turn, or a snapshot."""
    if walk.lone is not None:
        walk.strands = {walk.lone.id: walk.lone}
        walk.lone = None
    if walk.ready is NO_ITEMS:
        walk.ready = []
    return 0


cdef int emit(Walk walk, EventParts parts, int attempt, Scope scope, bytes message=None, dict error=None,
              bytes output=None) except -1:
    """Appends one event; `scope` surrounds its task, `message` is an encoded field, `output` JSON text."""
    cdef Workspace work = walk.work
    walk.last_sequence += 1
    if work.first_sequence == 0:
        work.first_sequence = walk.last_sequence
    return work.events.add(
        work.id_field,
        parts,
        parts.message if message is None else message,
        work.time_field,
        b"" if error is None else error_field(error, walk.facts.behaviour.event_error_size_max),
        walk.last_sequence,
        attempt,
        output,
        None if scope is None else scope.iteration,
    )


cdef int emit_failed(Walk walk, TaskNode task, int attempt, Scope scope, dict error,
                     long long started_at_ms) except -1:
    walk.work.tally.add(task.kind.number, TALLY_FAILED, walk.now_ms - started_at_ms)
    return emit(walk, task.event_failed, attempt, scope, message_field(walk, error), error)


cdef bytes message_field(Walk walk, dict error):
    """The message of an event that tells of an error."""
    return text_field(FIELD_MESSAGE, error_message(error, walk.facts.behaviour.event_error_size_max))


cdef bytes output_text(Walk walk, object value):
    """JSON text of an output; None beyond the bound. Outputs often pass through unchanged: those are not repeated."""
    cdef Workspace work = walk.work
    if value is not work.dumped:
        work.dumped = value
        work.dumped_text = dump_json(value)
        work.bytes_spent += PyBytes_GET_SIZE(work.dumped_text)
        if PyBytes_GET_SIZE(work.dumped_text) > walk.facts.behaviour.output_json_size_bytes_max:
            work.dumped_text = None
    return work.dumped_text


# --- names of the contract that are only types ---

Json = _Any
# As a union of its members, which is how type checkers read a Literal of several.
Status = _Union[
    tuple([_Literal[name] for name in ("pending", "running", "paused", "completed", "failed", "cancelled")])
]
Action = PerformEffect | InterruptEffect | Subscribe | Unsubscribe
Outcome = EffectResult | EffectFailure | EventArrived | TimerDue | MoreSteps | Cancel | Pause | Resume
