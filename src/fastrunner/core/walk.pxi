"""Stage 4, walk: one execution, its public face, and what happens around a slice of steps.

    walk.pxi          start, restore, resume; the turn
    walk_evaluate.pxi expressions, templates, durations, schemas: values in the place a task is at
    walk_run.pxi      a step: a task begins, a list ends
    walk_fault.pxi    an error finds its `try`; retries
    tally.pxi         what became of the tasks of a turn, for the metrics
    walk_control.pxi  timers, pause, resume, cancel; how an execution ends
    snapshot.pxi      a walk as bytes and back

Rules: nothing recurses over the workflow, and nothing is kept but what `frames.pxi` and the class below hold. The
fields `at_*` say which task is being evaluated; they are set before each evaluation and mean nothing between turns.
"""

cimport cython

from typing import Any as _Any
from typing import Literal as _Literal
from typing import Union as _Union

from fastrunner import limits as _limits
from fastrunner._jq cimport Machine, new_machine
from fastrunner._version import __version__ as _runner_version

cdef enum:
    STATUS_RUNNING
    STATUS_PAUSED
    STATUS_COMPLETED
    STATUS_FAILED
    STATUS_CANCELLED

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


@cython.final
cdef class Walk:
    """One execution; `_core.pyi` has the contract."""

    cdef Plan plan
    cdef str execution_id
    cdef bytes id_field
    cdef object input
    cdef dict env
    cdef int state
    cdef readonly object output
    cdef readonly object error
    cdef readonly long long wake_at_ms
    cdef readonly long long last_sequence
    cdef long long now_ms
    cdef long long started_at_ms
    cdef long long timeout_at_ms
    cdef long long paused_at_ms
    cdef long long grace_until_ms
    """When a graceful cancel stops waiting for effects; 0 unless one is under way."""
    cdef str cancel_reason
    cdef unsigned long long random_state
    cdef long long next_strand_id
    cdef long long next_effect_id
    cdef dict strands
    """By id, in the order of their ids."""
    cdef list ready
    """Strands that can take a step; the first one does."""
    cdef dict effects
    """Effects in flight: id -> strand."""
    cdef list held
    """Outcomes that arrived while paused, in order: (strand id, value, error or None)."""
    cdef dict visits
    """Index of a calling task -> [iteration, attempt] of its latest effect."""
    cdef Machine machine
    cdef dict workflow_facts
    """`$workflow`, once something asked for it."""
    cdef dict runtime_facts
    """`$runtime`, once something asked for it."""
    cdef dict input_paths
    """For snapshots: where in the input values are, by identity."""

    cdef TaskNode at_task
    cdef str at_instance
    cdef Scope at_scope
    cdef object at_context
    cdef object at_raw_input
    cdef object at_input
    cdef object at_raw_output
    cdef object at_output
    cdef long long at_started_at_ms

    cdef EventBuffer buffer
    cdef bytes time_field
    cdef list actions
    cdef long long first_sequence
    cdef object dumped
    cdef bytes dumped_text

    def __init__(self):
        raise TypeError("use Walk.start or Walk.restore")

    @property
    def status(self):
        return STATUS_NAMES[self.state]

    @property
    def effects_in_flight(self):
        return len(self.effects)

    @staticmethod
    def start(Plan plan not None, str execution_id not None, object input, long long now_ms, *, object seed=0,
              object env=None, long long timeout_ms_max=0):
        cdef Walk walk = make_walk(plan, execution_id, env)
        walk.input = input
        walk.random_state = <unsigned long long> (seed & 0xFFFFFFFFFFFFFFFF)
        walk.started_at_ms = now_ms
        begin_turn(walk, now_ms)
        start_workflow(walk, timeout_ms_max)
        run(walk)
        return walk, end_turn(walk)

    @staticmethod
    def restore(Plan plan not None, str execution_id not None, object input, bytes snapshot not None, *,
                object env=None):
        cdef Walk walk = make_walk(plan, execution_id, env)
        walk.input = clean_input(input)
        read_snapshot(walk, snapshot)
        find_wake(walk)
        return walk

    def resume(self, object outcome not None, long long now_ms):
        begin_turn(self, now_ms)
        if self.state <= STATUS_PAUSED:
            take_outcome(self, outcome)
            run(self)
        return end_turn(self)

    def pending(self):
        return [(<Strand> strand).effect for strand in self.effects.values()]

    def snapshot(self):
        return write_snapshot(self)


cdef Walk make_walk(Plan plan, str execution_id, object env):
    cdef Walk walk = Walk.__new__(Walk)
    walk.plan = plan
    walk.execution_id = execution_id
    walk.id_field = text_field(FIELD_EXECUTION_ID, execution_id)
    walk.env = dict(env) if env else {}
    walk.next_strand_id = walk.next_effect_id = 1
    walk.strands = {}
    walk.ready = []
    walk.effects = {}
    walk.held = []
    walk.visits = {}
    walk.machine = new_machine(NULL)
    walk.buffer = EventBuffer.__new__(EventBuffer)
    return walk


cdef object clean_input(object input):
    """The input as plain JSON; None if it is nested too deeply (then the walk has failed at its start)."""
    try:
        return json_safe(input, DATA_DEPTH_MAX)
    except _Unkept:
        return None


cdef int start_workflow(Walk walk, long long timeout_ms_max) except -1:
    """The first events, the workflow's own input, and the strand that runs its tasks."""
    cdef Plan plan = walk.plan
    cdef object data
    cdef long long timeout_ms
    cdef Strand strand
    emit(walk, plan.event_started, 0)
    emit(walk, plan.event_validating, 0)
    emit(walk, plan.event_validated, 0)
    try:
        at_workflow(walk, "/input", None)
        data = take_input(walk)
        match_schema(walk, plan.input_schema, data, "input")
        if plan.input_from is not None:
            data = render(walk, plan.input_from, data, 0)
        at_workflow(walk, "/timeout", None)
        walk.timeout_at_ms = timeout_at(walk, plan.timeout, data)
    except WalkFault as fault:
        return fail_workflow(walk, fault.error)
    if timeout_ms_max > 0 and (walk.timeout_at_ms == 0 or walk.now_ms + timeout_ms_max < walk.timeout_at_ms):
        walk.timeout_at_ms = walk.now_ms + timeout_ms_max
    strand = new_strand(walk, plan.root, data, None, 1)
    make_ready(walk, strand)
    return 0


cdef object take_input(Walk walk):
    try:
        walk.input = json_safe(walk.input, DATA_DEPTH_MAX)
    except _Unkept as error:
        walk.input = None
        raise WalkFault(make_error("validation", str(error), walk.at_instance)) from None
    return walk.input


cdef Strand new_strand(Walk walk, TaskList body, object data, Scope scope, int attempt):
    cdef Strand strand = Strand.__new__(Strand)
    strand.id = walk.next_strand_id
    walk.next_strand_id += 1
    strand.top = bottom_frame(body, data, scope, attempt)
    walk.strands[strand.id] = strand
    return strand


cdef int make_ready(Walk walk, Strand strand) except -1:
    """Lets a strand take steps again, unless it has ended meanwhile or waits for something else."""
    if not strand.is_ready and strand.id in walk.strands and strand.top.position != POSITION_BLOCKED:
        strand.is_ready = True
        strand.steps_left = STRAND_STEPS_MAX
        walk.ready.append(strand)
    return 0


cdef int block(Walk walk, Strand strand) except -1:
    if strand.is_ready:
        strand.is_ready = False
        walk.ready.remove(strand)
    return 0


# --- the turn ---

cdef int begin_turn(Walk walk, long long now_ms) except -1:
    # A clock that was set back must not make deadlines move or events older than those before them.
    walk.now_ms = max(now_ms, walk.now_ms)
    walk.time_field = varint_field(FIELD_TIMESTAMP_MS, walk.now_ms)
    walk.actions = []
    walk.first_sequence = 0
    begin_tally()
    walk.dumped = None
    walk.dumped_text = b"null"
    return 0


cdef Turn end_turn(Walk walk):
    cdef Turn turn = Turn.__new__(Turn)
    turn.actions = walk.actions
    turn.events = walk.buffer.take()
    turn.tally = take_tally()
    turn.first_sequence = walk.first_sequence
    turn.last_sequence = walk.last_sequence if walk.first_sequence else 0
    turn.more = walk.state == STATUS_RUNNING and walk.grace_until_ms == 0 and len(walk.ready) > 0
    find_wake(walk)
    walk.actions = None
    walk.dumped = None
    at_workflow(walk, "", None)
    return turn


cdef int emit(Walk walk, EventParts parts, int attempt, bytes message=None, dict error=None,
              bytes output=None) except -1:
    """Appends one event; `message` is an encoded field, `output` JSON text."""
    walk.last_sequence += 1
    if walk.first_sequence == 0:
        walk.first_sequence = walk.last_sequence
    return walk.buffer.add(
        walk.id_field,
        parts,
        parts.message if message is None else message,
        walk.time_field,
        b"" if error is None else error_field(error),
        walk.last_sequence,
        attempt,
        output,
    )


cdef int emit_failed(Walk walk, TaskNode task, int attempt, dict error, long long started_at_ms) except -1:
    tally(task.kind, TALLY_FAILED, walk.now_ms - started_at_ms)
    return emit(walk, task.event_failed, attempt, text_field(FIELD_MESSAGE, error_message(error)), error)


cdef bytes output_text(Walk walk, object value):
    """JSON text of an output; None beyond the bound. Outputs often pass through unchanged: those are not repeated."""
    if value is not walk.dumped:
        walk.dumped = value
        walk.dumped_text = dump_json(value)
        if PyBytes_GET_SIZE(walk.dumped_text) > OUTPUT_JSON_SIZE_BYTES_MAX:
            walk.dumped_text = None
    return walk.dumped_text


# --- names of the contract that are only types ---

Json = _Any
# As a union of its members, which is how type checkers read a Literal of several.
Status = _Union[
    tuple([_Literal[name] for name in ("pending", "running", "paused", "completed", "failed", "cancelled")])
]
Action = PerformEffect | InterruptEffect
Outcome = EffectResult | EffectFailure | TimerDue | MoreSteps | Cancel | Pause | Resume
