"""Stages 2 and 4 of the data path: compile a document, walk it. The contract of the compiled core.

The core does no I/O and knows no clock: time (`now_ms`, milliseconds since the epoch), ids and seeds are arguments.
JSON values are Python objects as orjson gives them. No method modifies a value it was given.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, final

Json = Any
Status = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]

# --- problems of documents ---

@final
class Problem:
    """One problem of a document, or a warning. Line and column count from 1 and point at the offending key or value."""

    code: str
    pointer: str
    line: int
    column: int
    message: str
    severity: Literal["error", "warning"]

    def __init__(
        self,
        code: str,
        pointer: str,
        line: int,
        column: int,
        message: str,
        severity: Literal["error", "warning"] = "error",
    ) -> None: ...

class InvalidWorkflow(ValueError):
    """A document that does not parse or validate; carries all problems in document order."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Sequence[Problem]) -> None: ...

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
        """Whose scoped variables it sees beside those around: its for, foreach, catch or extension; empty if none."""

POSITIONS: tuple[Position, ...]
"""Every place of a document that holds something to evaluate, in the order of the documentation."""

def load(text: str | bytes) -> Json:
    """The data of a YAML (1.2 core schema) or JSON document. Raises InvalidWorkflow; positions are in its problems."""

def load_in_steps(text: str | bytes, budget: int, takes_any_key: bool = False) -> Generator[None, None, Json]:
    """Loads as `load` does and returns what it returns, but yields after each step of about `budget` units of reading:
    half a microsecond each. JSON, and one scalar, is one step whatever its size. Raises InvalidWorkflow.

    `takes_any_key`: a key that is no string, such as the status codes of OpenAPI, is its text.
    """

def validate(text: str | bytes, warnings: bool = False) -> tuple[Problem, ...]:
    """All problems of a document by itself, `unsupported` ones included; empty if it would compile, or would with texts
    from elsewhere, and where there is a default catalog.

    `warnings`: those of what compiles and is hardly meant stand among them; their `severity` tells them apart.
    """

def validate_in_steps(text: str | bytes, budget: int) -> Generator[None, None, tuple[Problem, ...]]:
    """Validates as `validate` does and returns what it returns, but yields after each step of about `budget` tasks."""

class TaskPlace:
    """Where one task stands in the text of a document."""

    __slots__ = ("column", "end_line", "kind", "line", "name", "reference")
    reference: str
    """Its JSON pointer, as events have it."""
    name: str
    """Its name."""
    kind: str
    """The key that says what it does, such as `set` or `call`."""
    line: int
    """Where its name stands, from 1."""
    column: int
    """The same."""
    end_line: int
    """Its last line."""

    def __init__(self, reference: str, name: str, kind: str, line: int, column: int, end_line: int) -> None: ...

def outline_in_steps(text: str | bytes, budget: int) -> Generator[None, None, list[TaskPlace]]:
    """Where the tasks of a document stand that validates, in its order; yields after each step of about `budget` units
    of reading: half a microsecond each. Raises InvalidWorkflow for text that does not parse."""

@final
class ExternalResource:
    """A text from elsewhere that a document needs."""

    kind: str
    """What it has to be: `function`, a document with one task; `schema`, a JSON Schema; or `description`, of a service,
    which a plan can do without."""
    reference: str
    """How the document names it; what its text is given by."""
    location_reference: str
    """What the URL of a description is given by, if that is another one after redirects."""
    url: str
    """Where it is: https, http or file, without user information and fragment."""
    authentication: Mapping[str, Json] | None
    """How to prove who asks: a scheme and its fields, no expressions; `use` in them names a secret."""
    pointer: str
    """JSON pointer of what needs it; of what a function from elsewhere needs, the call of that."""
    line: int
    column: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: they come from `ResourcesMissing`."""

class ResourcesMissing(Exception):
    """A document without problems of its own needs texts that were not given."""

    resources: tuple[ExternalResource, ...]
    """Those known so far; their texts may need further ones."""

    def __init__(self, resources: Sequence[ExternalResource]) -> None: ...

def compile(text: str | bytes, stored: bool = False, resources: Mapping[str, str] | None = None) -> Plan:
    """A document as an immutable plan. Raises InvalidWorkflow, ResourcesMissing.

    `stored`: an execution of it was accepted before, and rules that came later are not asked of it. `resources`: texts
    from elsewhere by reference; those that it does not need make no difference.
    """

@final
class Compilation:
    """A document on its way to a plan, so that a large one does not hold whoever else needs the processor."""

    def __init__(
        self,
        text: str | bytes,
        stored: bool = False,
        resources: Mapping[str, str | None] | None = None,
        refuse: Callable[[str, str | None], str] | None = None,
        default_catalog: str | None = None,
        pins: bool = False,
    ) -> None:
        """Raises InvalidWorkflow for text that is too large or no text.

        A text among `resources` that is None cannot be had, and is not asked for again: for kinds that a plan can do
        without. `default_catalog` is the root of the catalog `default` where the document has none of that name. With
        `pins`, descriptions are among the resources that are missing.

        `refuse` says why the runner does not perform something; empty if it does. It is asked of what documents run,
        `shell`, `script`, `container` or `mcp`, with the language, the image or the server's command, None if an
        expression makes it; and of `call` with a protocol. Default: everything is performed.
        """

    def step(self, budget: int) -> Plan | None:
        """Goes on for about `budget` tasks or expressions, 20 us each; the plan once it is there.

        Raises InvalidWorkflow, ResourcesMissing.
        """

# --- JSON Schema ---

class InvalidSchema(ValueError):
    """A JSON Schema that cannot be used: invalid by its draft, or a reference that leads nowhere within it."""

    pointer: str
    """Where in the schema."""
    reason: str

    def __init__(self, pointer: str, reason: str) -> None: ...

@final
class Schema:
    """A compiled JSON Schema of draft 4, 6, 7, 2019-09 or 2020-12. Immutable, shared between executions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: schemas come from `compile_schema`."""

    def check(self, value: Json, steps_max: int = ...) -> tuple[str | None, int]:
        """What is wrong with a value, None if it matches; and the steps that took, by schema and data alone.

        A check that would take more steps than it may ends, and that is what is wrong.
        """

def compile_schema(document: Json) -> Schema:
    """A schema as its draft has it: that of `$schema`, else 2020-12. Fetches nothing. Raises InvalidSchema."""

@final
class Plan:
    """A compiled document: everything that can be computed once. Immutable, shared between executions."""

    dsl: str
    namespace: str
    name: str
    version: str
    document: Mapping[str, Json]
    digest: bytes
    """SHA-256 of the document's text, or over the hashes of all texts and of their references, sorted by those; what
    snapshots and capsules know the document by."""
    resources: Mapping[str, str]
    """The texts from elsewhere that it was made of, by reference; also where descriptions were found, by
    `location_reference`."""
    is_pinned: bool
    """Whether all descriptions that constant URLs name are among them."""
    warnings: tuple[Problem, ...]
    """What is allowed and hardly meant, in document order, at most 100; of a stored document none."""
    submission_warnings: tuple[Problem, ...]
    """The same for whoever has it executed now: a `schedule` starts nothing by that."""
    secrets: tuple[str, ...]
    """The names of `use.secrets`; no others are seen by its expressions, whatever is given."""
    namespaces_run: frozenset[str | None]
    """The namespaces of the workflows that its tasks run in turn; None among them: one that an expression tells."""

    def __init__(self) -> None:
        """Raises TypeError: plans come from `compile`."""

    def schedule(self, now_ms: int) -> dict[str, Json] | None:
        """What starts it again and again: those of `every_ms`, `after_ms`, `cron`, `on` and `read` that its `schedule`
        has; None without one. Expressions are evaluated as of `now_ms`. Raises RenderFault."""

    def render(
        self,
        capsule: Capsule,
        secrets: Mapping[str, Json] | None = None,
        authorization: Mapping[str, Json] | None = None,
    ) -> dict[str, Json]:
        """The arguments of an effect: the same each time, in this process or another. Raises RenderFault.

        For `call_http`: method, uri, headers, query, body, output, redirect; of a task with a policy also
        authentication: the scheme, and its fields below it. `authorization` is what `$authorization` is. For
        `run_workflow`: namespace, name, version, await, and input unless the task gives none. For `emit`: event, a
        CloudEvent as JSON has it; whoever publishes it adds `id` and `time` where it has none, and answers with it.
        """

    def render_policy(self, capsule: Capsule, secrets: Mapping[str, Json] | None = None) -> dict[str, Json] | None:
        """Only the `authentication` of an effect whose other arguments name `$authorization`, None of all others: what
        it resolves to is needed before `render`. Raises RenderFault."""

    def dump_capsule(self, capsule: Capsule) -> bytes:
        """A capsule for another process: the values its arguments read, and nothing that is secret."""

    def load_capsule(self, data: bytes) -> Capsule:
        """A dumped capsule. Raises ValueError for one that is damaged or belongs to another document."""

class RenderFault(Exception):
    """Arguments that could not be made: hand `EffectFailure.whole(effect_id, error)` to the walk, which fails the
    task."""

    error: dict[str, Json]
    """The DSL error."""

    def __init__(self, error: dict[str, Json]) -> None: ...

# --- kinds of tasks ---

@final
class TaskKind:
    """A row of the table of kinds of tasks."""

    number: int
    """Stands in snapshots and tallies."""
    name: str
    """Of the kind in metrics, and of its effect."""
    feature: str
    """What validation knows it by: the key of a task, or `call: <protocol>`."""
    has_effect: bool
    """Something outside is performed for it, by the performer of that name."""
    counts_attempts: bool
    """Its events count attempts of its own; those of others count those of the `try` around them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: kinds are rows of the core's own table."""

    @property
    def has_frame(self) -> bool:
        """Its tasks may last longer than the step they begin in."""

KINDS: tuple[TaskKind, ...]
"""The table, by number."""

BOUND_NAMES: tuple[str, ...]
"""Limits that decide outcomes; an execution keeps those that its plan was made under."""

# --- the walk: actions out, outcomes in ---

@final
class Capsule:
    """What an effect's arguments are made of, as it was when the effect was scheduled; `Plan.render` makes them."""

    task_index: int
    """Number of the task in the document."""
    now_ms: int
    """When it was scheduled: the time its expressions see."""

    def __init__(self) -> None:
        """Raises TypeError: capsules come from a walk, or from `Plan.load_capsule`."""

@final
class PerformEffect:
    """Render the capsule, perform the effect and hand its outcome back with the same `effect_id`.

    `effect_id` and `idempotency_key` are stable over restarts; a retry of the task gets new ones.
    """

    effect_id: int
    kind: str
    """Name of the task's kind; one performer each."""
    capsule: Capsule
    idempotency_key: str
    """`<execution id>/<task reference>/<iteration>/<attempt>`."""
    reference: str
    """JSON pointer of the task."""

    def __init__(self, effect_id: int, kind: str, capsule: Capsule, idempotency_key: str, reference: str) -> None: ...

@final
class InterruptEffect:
    """Abort an effect whose outcome is no longer wanted (timeout, lost race, forced cancel)."""

    effect_id: int

    def __init__(self, effect_id: int) -> None: ...

@final
class Subscribe:
    """Hand in an EventArrived for each event that matches the filter, until Unsubscribe; one at a time, as
    `Walk.wants_event` says. One with a number that is known puts its filter in the place of the one before."""

    subscription_id: int
    """Stable over restarts; shares its numbers with effects."""
    filter: Json
    """For an EventMatcher; it matches each event that the walk would take, and may match more."""
    reference: str
    """JSON pointer of the task."""

    def __init__(self, subscription_id: int, filter: Json, reference: str) -> None: ...

@final
class Unsubscribe:
    """No further event is wanted."""

    subscription_id: int

    def __init__(self, subscription_id: int) -> None: ...

Action = PerformEffect | InterruptEffect | Subscribe | Unsubscribe

@final
class EffectResult:
    """An effect succeeded with `value`."""

    effect_id: int
    value: Json
    authorization: Mapping[str, Json] | None
    """`$authorization` (scheme, parameter) of what comes after it in its task; the walk writes it nowhere."""

    def __init__(self, effect_id: int, value: Json, authorization: Mapping[str, Json] | None = None) -> None: ...

@final
class EffectFailure:
    """An effect failed with a DSL error; `type` is a short name such as `communication`, or a URI."""

    effect_id: int
    type: str
    status: int
    title: str
    detail: str

    error: Mapping[str, Json] | None
    """The whole error (type, status, title, detail, instance) of one made by `whole`."""
    retry_after_ms: int
    """How long the other side asks to be left alone: the least delay of a retry that follows; 0: not at all."""

    def __init__(
        self, effect_id: int, type: str, status: int, title: str, detail: str, *, retry_after_ms: int = 0
    ) -> None: ...
    @staticmethod
    def whole(effect_id: int, error: dict[str, Json]) -> EffectFailure:
        """A failure with an error as it is; without `instance` it gets that of its task. Raises ValueError for what
        is no error."""

@final
class EventArrived:
    """An event for a subscription."""

    subscription_id: int
    event: Json

    def __init__(self, subscription_id: int, event: Json) -> None: ...

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

Outcome = EffectResult | EffectFailure | EventArrived | TimerDue | MoreSteps | Cancel | Pause | Resume

# --- events ---

@final
class EventMatcher:
    """The filter of a Subscribe, compiled: what an index of listeners asks of an event, a CloudEvent as JSON has it."""

    probes: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    """For each alternative the names of what an event must have, and the values as `extract_probe` gives them. Names
    are attributes, `type` and `source` before others, or `from:` and an expression. ((), ()) tells nothing: only
    `matches` does."""

    def __init__(self, filter: Json) -> None:
        """Raises ValueError for what is no filter."""

    def matches(self, event: dict[str, Json]) -> bool:
        """Whether the walk may take the event: False only if it would not."""

def extract_probe(event: dict[str, Json], names: tuple[str, ...]) -> tuple[str, ...] | None:
    """What an event has for names of probes, as canonical JSON text; None if it lacks one of them."""

@final
class EventStrategy:
    """Which events start a workflow (`schedule.on`); immutable, its state is the caller's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: strategies come from `compile_strategy`."""

    def filter(self, state: Json) -> Json:
        """A filter for an EventMatcher: it matches each event that changes something, and may match more."""

    def take(self, state: Json, event: dict[str, Json], now_ms: int = 0) -> tuple[Json, list[Json] | None]:
        """The state after an event, and once the strategy is satisfied what it was satisfied by, as `read` has it.

        The first state, and the one after that, is None; others are plain JSON, without what the strategy itself says.
        Raises ValueError for an event that is larger, or nested deeper, than data may be.
        """

def compile_strategy(
    definition: dict[str, Json], read: str = "data", variables: Mapping[str, Json] | None = None
) -> EventStrategy:
    """The strategy of a checked document's `schedule.on`, read as `schedule.read` says: data, envelope or raw.

    `variables`: what `$workflow`, `$runtime` and `$secrets` are in its expressions, by name; null otherwise. Raises
    ValueError for a strategy that no checked document has.
    """

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: turns come from walks."""

TALLIED_OUTCOMES: tuple[str, ...]
"""How tasks end, in the order a TaskTally has them; those that are interrupted have no outcome."""

@final
class TaskTally:
    """Sums of turns' tallies, by the number of the kind of task: how many ended how, and how long they took by the
    walk's clock."""

    cells_per_kind: int
    """Cells of one kind: one per outcome, one per bucket (the last has no bound), the sum in milliseconds."""

    def __new__(cls, bounds_ms: Sequence[int]) -> TaskTally:
        """`bounds_ms` are the buckets' upper bounds, ascending."""

    def add(self, tally: bytes) -> None:
        """Adds a turn's tally. Raises ValueError if it is none."""

    def take(self) -> list[tuple[int, int]]:
        """What is in the cells that are not 0, and empties them. Before the cells of all kinds comes one that counts
        expressions whose budget ended."""

@final
class Wait:
    """One thing that an execution waits for."""

    kind: Literal["time", "retry", "effect", "events"]
    task: str
    """Name of the task."""
    reference: str
    """JSON pointer of the task."""
    until_ms: int
    """When it goes on, for `time` and `retry`; else when the earliest timeout around it ends it, 0: never."""
    retry: int
    """For `retry`: its number, from 1."""
    retries_max: int
    """For `retry`: how many there may be; -1: any number."""
    action: PerformEffect | Subscribe | None
    """What it has asked for, for `effect` and `events`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError: waits come from walks."""

@final
class Walk:
    """One execution. Deterministic: equal calls give equal turns, snapshots and event bytes."""

    plan: Plan
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

    def __init__(self) -> None:
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
        bounds: Mapping[str, int] | None = None,
        secrets: Mapping[str, Json] | None = None,
    ) -> tuple[Walk, Turn]:
        """Starts an execution and walks its first slice. `seed` feeds jitter; `timeout_ms_max` 0: no bound.

        `bounds` are those of BOUND_NAMES that this execution has otherwise. Raises ValueError for others.
        `secrets` is what `$secrets` may hold; it is in no snapshot, and its texts in no error. Nor are those of entries
        of `env` that have the name of a secret.
        """

    @staticmethod
    def restore(
        plan: Plan,
        execution_id: str,
        input: Json,
        snapshot: bytes,
        *,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, Json] | None = None,
    ) -> Walk:
        """The walk as it was when `snapshot` was taken. Raises ValueError for a damaged or foreign snapshot."""

    def resume(self, outcome: Outcome, now_ms: int) -> Turn:
        """Hands an outcome in. Outcomes of unknown or interrupted effects and commands to an ended walk do nothing."""

    def pending(self) -> list[PerformEffect | Subscribe]:
        """Effects performed and not yet answered, and subscriptions, to be asked for again after a restore."""

    def waits(self) -> list[Wait]:
        """What it waits for now, by its lines of control in their order; empty while it can take a step."""

    def wants_event(self, subscription_id: int) -> bool:
        """Whether an event for this subscription would be taken now: not while the tasks for the last one run, nor
        while the execution is paused or being cancelled, nor for a subscription that is not there. One that is handed
        in all the same changes nothing, or waits for Resume."""

    def snapshot(self) -> bytes:
        """The walk's state but for plan, input and env, with a format version and a checksum.

        It carries the document's digest, and the behaviour the execution was started with: the version of the
        semantics, the bounds that decide outcomes, the runner's version.
        """

@final
class TimerHeap:
    """Things with a time, the earliest first; of those at the same time, any."""

    first_ms: int
    """When the first comes; 0 without any."""
    first: Any
    """What comes then; None without any."""

    def __new__(cls) -> TimerHeap: ...
    def __len__(self) -> int: ...
    def push(self, due_ms: int, item: object) -> None:
        """Adds something that is not None. Raises TypeError."""

    def pop(self) -> tuple[int, Any]:
        """Takes the first out: (when, what). Raises IndexError without any."""

    def retain(self, lives: Callable[[int, Any], bool]) -> None:
        """Forgets everything that `lives`, called with when and what, says no to."""
