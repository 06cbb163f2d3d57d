"""Stages 2 and 4 of the data path: compile a document, walk it. The contract of the compiled core.

The core does no I/O and knows no clock: time (`now_ms`, milliseconds since the epoch), ids and seeds are arguments.
JSON values are Python objects as orjson gives them. No method modifies a value it was given.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal, final

Json = Any
Status = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]

# --- problems of documents and expressions ---

@final
class Problem:
    """One problem of a document. Line and column count from 1 and point at the offending key or value."""

    code: str
    pointer: str
    line: int
    column: int
    message: str

    def __init__(self, code: str, pointer: str, line: int, column: int, message: str) -> None: ...

class InvalidWorkflow(ValueError):
    """A document that does not parse or validate; carries all problems in document order."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Sequence[Problem]) -> None: ...

class ExpressionProblem(ValueError):
    """An expression that does not compile; `offset` counts code points from 0, `line` and `column` from 1."""

    message: str
    offset: int
    line: int
    column: int

    def __init__(self, message: str, offset: int, text: str = "") -> None: ...

class ExpressionError(Exception):
    """An evaluation that failed; `value` is what jq's `catch` would see, the message is its text."""

    value: Json

    def __init__(self, value: Json) -> None: ...

# --- expressions ---

@final
class Program:
    """A compiled jq expression; immutable, shared between executions."""

    text: str
    arguments: tuple[str, ...]
    """Free variables without `$`, in order of first use; evaluation takes their values in this order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: programs come from `compile_expression`."""

    def first(self, input: Json, arguments: Sequence[Json] = (), now_ms: int = 0) -> Json:
        """The expression's one value: no result gives None, one result itself, several results a list of them.

        Raises ExpressionError.
        """

    def outputs(self, input: Json, arguments: Sequence[Json] = (), now_ms: int = 0) -> list[Json]:
        """All results in order. Raises ExpressionError; results before the error are lost."""

    def argument_offset(self, name: str) -> int:
        """Code point offset of the first use of a free variable, for problems."""

def compile_expression(text: str) -> Program:
    """Compiles jq text (without `${ }`). Raises ExpressionProblem."""

# --- documents ---

@final
class Position:
    """A place of a document that holds something to evaluate; immutable."""

    where: str
    dot: str
    """What `.` is there; empty where nothing is evaluated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: positions come from `POSITIONS`."""

    @property
    def form(self) -> str:
        """What stands there: expression, wrapped, text, slot, template, duration, endpoint, uri, tasks or plain."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments with a value there, without `$`."""

    @property
    def sees(self) -> str:
        """Whose scoped variables it sees beside those around: those of its for, foreach or catch; empty if of none."""

POSITIONS: tuple[Position, ...]
"""Every place of a document that holds something to evaluate, in the order of the documentation."""

def load(text: str | bytes) -> Json:
    """The data of a YAML (1.2 core schema) or JSON document. Raises InvalidWorkflow; positions are in its problems."""

def validate(text: str | bytes) -> tuple[Problem, ...]:
    """All problems of a document, `unsupported` ones included; empty if it would compile."""

def validate_in_steps(text: str | bytes, budget: int) -> Generator[None, None, tuple[Problem, ...]]:
    """Validates as `validate` does and returns what it returns, but yields after each step of about `budget` tasks."""

def compile(text: str | bytes) -> Plan:
    """A document as an immutable plan. Raises InvalidWorkflow."""

@final
class Plan:
    """A compiled document: everything that can be computed once. Immutable, shared between executions."""

    dsl: str
    namespace: str
    name: str
    version: str
    document: Mapping[str, Json]

# --- the walk: actions out, outcomes in ---

@final
class PerformEffect:
    """Perform an effect and hand its outcome back with the same `effect_id`.

    `effect_id` and `idempotency_key` are stable over restarts; a retry of the task gets new ones.
    """

    effect_id: int
    kind: str
    """`call_http` for now; one performer each."""
    arguments: Mapping[str, Json]
    """Evaluated arguments; for `call_http`: method, uri, headers, query, body, output, redirect."""
    idempotency_key: str
    """`<execution id>/<task reference>/<iteration>/<attempt>`."""
    reference: str
    """JSON pointer of the task."""

    def __init__(
        self, effect_id: int, kind: str, arguments: Mapping[str, Json], idempotency_key: str, reference: str
    ) -> None: ...

@final
class InterruptEffect:
    """Abort an effect whose outcome is no longer wanted (timeout, lost race, forced cancel)."""

    effect_id: int

    def __init__(self, effect_id: int) -> None: ...

Action = PerformEffect | InterruptEffect

@final
class EffectResult:
    """An effect succeeded with `value`."""

    effect_id: int
    value: Json

    def __init__(self, effect_id: int, value: Json) -> None: ...

@final
class EffectFailure:
    """An effect failed with a DSL error; `type` is a short name such as `communication`, or a URI."""

    effect_id: int
    type: str
    status: int
    title: str
    detail: str

    def __init__(self, effect_id: int, type: str, status: int, title: str, detail: str) -> None: ...

@final
class TimerDue:
    """`Walk.wake_at_ms` has come."""

    def __init__(self) -> None: ...

@final
class MoreSteps:
    """The slice that answers a turn with `more`."""

    def __init__(self) -> None: ...

@final
class Cancel:
    """Cancel. Graceful: running effects may end until `now_ms + grace_ms`. Forced: they are interrupted."""

    reason: str
    force: bool
    grace_ms: int

    def __init__(self, reason: str, force: bool, grace_ms: int) -> None: ...

@final
class Pause:
    """Start nothing new; outcomes of running effects are kept until Resume."""

    reason: str

    def __init__(self, reason: str) -> None: ...

@final
class Resume:
    """Go on after Pause; deadlines of timeouts move by the time spent paused."""

    reason: str

    def __init__(self, reason: str) -> None: ...

Outcome = EffectResult | EffectFailure | TimerDue | MoreSteps | Cancel | Pause | Resume

@final
class Turn:
    """What one call of the walk yielded."""

    actions: list[Action]
    events: bytes
    """Encoded WorkflowProgressEvents, each as a length-delimited field 1 (so concatenation is a
    ReportProgressBatchRequest); empty without events."""
    first_sequence: int
    """Sequence number of the first event; 0 without events."""
    last_sequence: int
    """Sequence number of the last event; 0 without events."""
    more: bool
    """The slice's step budget ended first: call `resume(MoreSteps(), now_ms)` after letting others run."""
    tally: bytes
    """What became of its tasks, for a TaskTally; empty if none ended."""

TALLIED_KINDS: tuple[str, ...]
"""Kinds of tasks, in the order a TaskTally has them."""
TALLIED_OUTCOMES: tuple[str, ...]
"""How tasks end, in the order a TaskTally has them; those that are interrupted have no outcome."""

@final
class TaskTally:
    """Sums of turns' tallies, by kind of task: how many ended how, and how long they took by the walk's clock."""

    cells_per_kind: int
    """Cells of one kind: one per outcome, one per bucket (the last has no bound), the sum in milliseconds."""

    def __new__(cls, bounds_ms: Sequence[int]) -> TaskTally:
        """`bounds_ms` are the buckets' upper bounds, ascending."""

    def add(self, tally: bytes) -> None:
        """Adds a turn's tally. Raises ValueError if it is none."""

    def take(self) -> list[tuple[int, int]]:
        """What is in the cells that are not 0, and empties them. After the cells of all kinds comes one that counts
        expressions whose budget ended."""

@final
class Walk:
    """One execution. Deterministic: equal calls give equal turns, snapshots and event bytes."""

    status: Status
    wake_at_ms: int
    """When the driver must resume with TimerDue; 0: no timer."""
    last_sequence: int
    """Sequence number of the latest event; 0 before the first."""
    output: Json
    """The workflow's output once `status` is completed."""
    error: Mapping[str, Json] | None
    """The DSL error (type, status, title, detail, instance) once `status` is failed."""
    effects_in_flight: int
    """Effects performed and not yet answered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: walks come from `start` and `restore`."""

    @staticmethod
    def start(
        plan: Plan,
        execution_id: str,
        input: Json,
        now_ms: int,
        *,
        seed: int = 0,
        env: Mapping[str, str] | None = None,
        timeout_ms_max: int = 0,
    ) -> tuple[Walk, Turn]:
        """Starts an execution and walks its first slice. `seed` feeds jitter; `timeout_ms_max` 0: no bound."""

    @staticmethod
    def restore(
        plan: Plan,
        execution_id: str,
        input: Json,
        snapshot: bytes,
        *,
        env: Mapping[str, str] | None = None,
    ) -> Walk:
        """The walk as it was when `snapshot` was taken. Raises ValueError for a damaged or foreign snapshot."""

    def resume(self, outcome: Outcome, now_ms: int) -> Turn:
        """Hands an outcome in. Outcomes of unknown or interrupted effects and commands to an ended walk do nothing."""

    def pending(self) -> list[PerformEffect]:
        """Effects performed and not yet answered, to be performed again after a restore."""

    def snapshot(self) -> bytes:
        """The walk's state but for plan, input and env, with a format version and a checksum."""
