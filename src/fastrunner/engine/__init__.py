"""Stage 3, journal: engines accept executions durably and drive their walks.

An engine performs the core's actions and hands outcomes back; it has no task semantics of its own. Everything here is
called on the worker's event loop and never blocks it.
"""

from asyncio import Future
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from fastrunner._core import EffectFailure, EffectResult, ExternalResource, PerformEffect, Plan, Problem
from fastrunner.access.principal import Principal
from fastrunner.engine.pages import Page
from fastrunner.tracing.context import TraceContext
from fastrunner.tracing.span import Span

__all__ = [
    "LATEST",
    "Authorizer",
    "Beginner",
    "Definition",
    "DefinitionRef",
    "Definitions",
    "EffectPerformer",
    "EncodedEvents",
    "Engine",
    "EventSource",
    "EventsListener",
    "ExecutionPage",
    "ExecutionQuery",
    "ExecutionView",
    "KeepingPerformer",
    "KeptEvent",
    "LingeringPerformer",
    "Outbox",
    "Parent",
    "Report",
    "ReportRefused",
    "Resources",
    "SecretSource",
    "Settled",
    "Submission",
    "UnacknowledgedEvents",
    "WorkerEngine",
]


LATEST: Final = "latest"
"""In the place of a version: the highest one that is registered."""


@dataclass(frozen=True, slots=True)
class DefinitionRef:
    """Names a registered workflow."""

    namespace: str
    """The namespace of its document."""
    name: str
    """The name of its document."""
    version: str
    """The version of its document; empty: the highest one."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.version or LATEST}"


@dataclass(frozen=True, slots=True)
class Definition:
    """A registered workflow."""

    ref: DefinitionRef
    """Which one, with its version."""
    registered_ms: int
    """When it was registered, in milliseconds since the epoch."""
    is_latest: bool
    """Whether its version is the highest one."""
    document: str = ""
    """Its text; empty in lists."""
    pinned: str = ""
    """The texts from elsewhere that it was registered with; see `engine/pinned.py`."""


class Definitions(Protocol):
    """Where registered workflows are found (see `registry/`)."""

    def find(self, ref: DefinitionRef) -> Definition:
        """One version, or the highest one. Raises UnknownWorkflow, Damaged, StorageFailed, StorageFull."""


class Lookups(Protocol):
    """The same for whoever may wait: registered workflows that other replicas see, too."""

    async def look_up(self, ref: DefinitionRef) -> Definition:
        """One version, or the highest one. Raises UnknownWorkflow, Damaged, StorageFailed, StorageFull."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The execution that has started another one by `run: workflow`."""

    execution_id: str
    """Its id."""
    effect_id: int
    """The number of the effect that has started it."""
    shard_number: int
    """Where both live."""
    depth: int
    """How many generations of executions are above the one that is started."""
    awaits_end: bool
    """Whether the effect waits for its end, and not only for its acceptance."""


@dataclass(slots=True)
class Submission:
    """A request to execute, decoded and within its size bounds."""

    execution_id: str
    """The caller's id."""
    document: str
    """The workflow document's text; of one that is registered the engine finds it."""
    input_json: bytes
    """Exact JSON text of the input; `null` if there is none."""
    input_value: Any
    """The same, decoded by orjson."""
    env_vars: Mapping[str, str]
    """Values for `$runtime.metadata.env`."""
    metadata: bytes
    """The request's WorkflowMetadata, serialized; empty if absent."""
    timeout_s_max: int
    """Upper bound on the execution's duration in seconds; 0: none."""
    debug: bool
    """Log every step at level info."""
    client: str = ""
    """Who submits, for fair shares; no part of the request."""
    on_elsewhere: "Callable[[int, Future[Any]], None] | None" = field(default=None, compare=False)
    """Told which worker has the id, and what to settle with its answer; None: Elsewhere is raised instead."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the caller calls it."""
    silent: bool = False
    """Send none of its events to the receiver."""
    ref: DefinitionRef | None = None
    """The registered workflow to execute, instead of a document."""
    principal: Principal | None = field(default=None, compare=False)
    """Who submits, where callers are told apart: its namespaces must have the document's among them."""
    parent: Parent | None = None
    """Who starts it, if no client does."""
    warnings: Sequence[Problem] = field(default=(), compare=False)
    """What the document may do and hardly means to; known once the submission is accepted."""
    pinned: str = field(default="", compare=False)
    """The texts from elsewhere that a registered document has; those of others are fetched."""
    temporal_workflow_id: str = field(default="", compare=False)
    """Its workflow in Temporal, where that keeps executions; known once the submission is accepted."""
    trace: TraceContext | None = field(default=None, compare=False)
    """Where whoever submits it is in a trace; None: nowhere."""
    received_s: float = field(default=0.0, compare=False)
    """When the request arrived, on the monotonic clock; 0: when the engine has it."""
    taken_s: float = field(default=0.0, compare=False)
    """When the worker took it up that it was forwarded to; 0: it was not."""


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """An execution as queries show it."""

    execution_id: str
    """The caller's id."""
    status: str
    """One of `pending running completed failed cancelled paused`."""
    namespace: str
    """The workflow's namespace."""
    name: str
    """The workflow's name."""
    version: str
    """The workflow's version."""
    accepted_ms: int
    """When it was accepted, in milliseconds since the epoch."""
    finished_ms: int
    """When it ended; 0 while it has not."""
    last_sequence: int
    """Sequence number of its latest durable event."""
    acknowledged_sequence: int
    """Sequence number up to which the receiver has acknowledged."""
    given_up_events: int
    """How many events after that one are not sent any more: no receiver took them in time, or there was none."""
    output_json: str
    """JSON text of its output once completed; empty otherwise and in lists."""
    error: Mapping[str, Any] | None
    """Its DSL error once failed; of a paused one, why the runner has paused it."""
    metadata: bytes
    """The request's WorkflowMetadata, serialized."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the caller calls it."""
    document_metadata_json: str = ""
    """JSON text of the document's `metadata`; empty without one, and in lists if it is large."""
    parent_id: str = ""
    """Who has started it; empty if a client has."""
    waiting: str = ""
    """What it waits for, in one sentence; empty if it has work to do, and in lists."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """An execution has been accepted, paused, resumed, or has ended."""

    definition: "DefinitionRef"
    """The workflow."""
    execution_id: str
    """The caller's id."""
    status: str
    """What it is now."""
    sequence: int
    """Sequence number of the event that says so."""
    at_ms: int
    """When that was, in milliseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class FeedItem:
    """A step of a feed of changes."""

    positions: Mapping[int, int]
    """From where on it goes on after this: a position for each shard of the worker."""
    change: StateChange | None = None
    """What has changed; None where only the positions are to be told."""
    missed: bool = False
    """Whether something before this is forgotten that has not been told."""


@dataclass(frozen=True, slots=True)
class ExecutionQuery:
    """Which executions to list, newest first; absent filters match all."""

    statuses: frozenset[str] = frozenset()
    """Only these states."""
    name: str = ""
    """Only workflows of this name."""
    namespace: str = ""
    """Only workflows of this namespace."""
    version: str = ""
    """Only workflows of this version."""
    labels: Sequence[tuple[str, str]] = ()
    """Only executions with each of these labels."""
    namespaces: frozenset[str] | None = None
    """Only workflows of these namespaces; None: of all."""
    accepted_from_ms: int = 0
    """Only accepted at or after."""
    accepted_until_ms: int = 0
    """Only accepted before; 0: no bound."""
    parent_id: str = ""
    """Only those that this execution has started."""
    before: tuple[int, str] | None = None
    """Only after this (accepted_ms, execution_id) in the listing's order: the page token."""
    count_max: int = 100
    """At most so many."""


EncodedEvents = list[bytes]
"""WorkflowProgressEvents in wire form, in sequence."""


ExecutionPage = Page[ExecutionView]
"""Executions as queries show them, newest first."""


class Engine(Protocol):
    """What the service needs of an engine; it answers for the executions this worker owns."""

    async def start(self) -> None:
        """Opens the store and re-queues what was unfinished."""

    async def quiesce(self, timeout_s: float) -> None:
        """Accepts nothing more, lets steps in flight reach their commit; whoever sends events may still send them."""

    async def drain(self, timeout_s: float) -> None:
        """Accepts nothing more, lets steps in flight reach their commit, closes the store."""

    @property
    def is_late(self) -> bool:
        """Whether new executions wait longer for their acceptance than they should: fewer should be submitted."""

    def submit(self, submission: Submission) -> "Future[str]":
        """Accepts durably; gives the status (`running` or `pending`) after the commit.

        Raises DocumentRefused, ResourceUnavailable, PermissionDenied, IdTaken, AtCapacity, Unavailable. The same
        request again gives the first answer again.
        """

    def validate(self, document: str, client: str, *, fetches: bool = True) -> Awaitable[Sequence[Problem]]:
        """Every problem of a document, in its order, or the warnings of one that would be executed. Without `fetches`
        what it needs from elsewhere is not looked at, which is a warning then.

        Raises ResourceUnavailable, AtCapacity, Unavailable.
        """

    def plan_of(self, document: str, client: str) -> Awaitable[Plan]:
        """A document compiled. Raises DocumentRefused, ResourceUnavailable, AtCapacity, Unavailable."""

    def cancel(self, execution_id: str, reason: str, force: bool) -> Awaitable[None]:
        """Durable when it returns. Raises UnknownExecution, WrongState."""

    def pause(self, execution_id: str, reason: str) -> Awaitable[None]:
        """Durable when it returns. Raises UnknownExecution, WrongState."""

    def resume(self, execution_id: str, reason: str) -> Awaitable[None]:
        """Durable when it returns. Raises UnknownExecution, WrongState."""

    def delete(self, execution_id: str) -> Awaitable[None]:
        """Forgets a finished execution; durable when it returns. Raises UnknownExecution; WrongState if it has not
        ended, or a receiver is still to have events of it."""

    def get(self, execution_id: str) -> Awaitable[ExecutionView]:
        """Raises UnknownExecution."""

    def list(self, query: ExecutionQuery) -> Awaitable[ExecutionPage]:
        """Newest first; a page may hold fewer than there are, even none, and says how far it got. Raises AtCapacity."""

    def count(self, query: ExecutionQuery) -> Awaitable[Mapping[str, int]]:
        """How many there are in each state, of those that match states, workflow and namespaces of a query; states
        without any may be left out. Raises AtCapacity."""

    def document(self, execution_id: str) -> Awaitable[str]:
        """The text that it executes, as it was accepted. Raises UnknownExecution, Damaged."""

    def events(self, execution_id: str, from_sequence: int, count_max: int) -> Awaitable[EncodedEvents]:
        """Encoded WorkflowProgressEvents in sequence. Raises UnknownExecution."""

    @property
    def feed(self) -> "ChangeFeed":
        """What becomes of all executions of this worker."""

    def subscribe(self, execution_id: str, from_sequence: int) -> AsyncGenerator[bytes, None]:
        """Encoded events, replayed from the store and then followed; ends after the terminal one.

        Raises UnknownExecution at the first step.
        """


class ChangeFeed(Protocol):
    """What becomes of all executions of a worker."""

    def follow(self, after: Mapping[int, int]) -> AsyncGenerator[FeedItem, None]:
        """Changes after given positions, in the order of each shard's commits, without end.

        `after` has positions by shard; a shard that it does not have is followed from now on. The first item has no
        change. Raises Stopping when the worker stops.
        """


class EventRows(Protocol):
    """The rows of events of one shard, for whoever sends all of them elsewhere."""

    @property
    def number(self) -> int:
        """The shard's."""

    def last_key(self) -> int:
        """The number of the last row there has been. Raises StorageFailed."""

    def after(self, key: int, rows_max: int, size_bytes_max: int) -> Sequence[tuple[int, DefinitionRef, str, bytes]]:
        """Rows after one, in the order of their commits, until a bound is passed: (number, document, execution id,
        encoded events; none if they are damaged). Raises StorageFailed."""

    def sent(self, key: int) -> None:
        """Everybody has the rows up to one: they are not kept for this any longer."""


class WorkerFeed(ChangeFeed, Protocol):
    """The same for the worker itself."""

    def rows(self) -> Sequence[EventRows]:
        """Those of each shard that is open."""


class EffectPerformer(Protocol):
    """One kind of effect (see `tasks/`). Cancelling the coroutine interrupts the effect for real."""

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Performs the effect with its arguments as rendered; never raises for what the remote side did."""

    async def close(self) -> None:
        """Releases what the performer holds."""


@runtime_checkable
class Authorizer(EffectPerformer, Protocol):
    """A performer whose calls prove who calls, for kinds whose tasks may have a policy."""

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """What a policy as rendered resolves to, for arguments that name `$authorization`: scheme and parameter."""


@runtime_checkable
class LingeringPerformer(EffectPerformer, Protocol):
    """A performer of which something may go on after the outcome."""

    async def linger(self, effect: PerformEffect) -> None:
        """Waits for what goes on of an effect that has had an outcome; cancelling it ends that."""


@runtime_checkable
class KeepingPerformer(EffectPerformer, Protocol):
    """A performer that may have something open, in its process, for the next effect of the same task."""

    def keeps(self, outcome: EffectResult) -> bool:
        """Whether it has, after such an outcome. Without it that effect has to open it anew, as after a crash."""


@runtime_checkable
class Beginner(EffectPerformer, Protocol):
    """A performer that has something to do before its first effect."""

    def begin(self) -> None:
        """Called on the loop, once; nobody waits for what it starts."""


class Resources(Protocol):
    """Where texts from elsewhere come from (see `resources/`)."""

    async def fetch(self, wanted: Sequence[ExternalResource]) -> Mapping[str, str | None]:
        """The texts by reference; None for a description that cannot be had now, because its call can ask for it.
        Raises DocumentRefused where there is none of another kind to be had, ResourceUnavailable where there may be
        one later."""

    async def close(self) -> None:
        """Ends what is under way."""


class KeptEvent(Protocol):
    """A CloudEvent as it is kept."""

    @property
    def key(self) -> int:
        """Its number: later ones have higher ones."""

    @property
    def namespaces(self) -> frozenset[str] | None:
        """Whose workflows it reaches; None: everybody's."""

    @property
    def event(self) -> dict[str, Any]:
        """In CloudEvents' JSON format."""


class EventSource(Protocol):
    """Where CloudEvents are kept (see `events/`). What reads raises StorageFailed, StorageFull."""

    def after(self, key: int, count_max: int) -> Sequence[KeptEvent]:
        """Events after a number, in their order. Empty: there are no more."""

    def retained(self, type: str | None, after_key: int, up_to_key: int, count_max: int) -> Sequence[KeptEvent]:
        """The same up to another number, of a type or (None) of all."""

    def last_key(self) -> int:
        """The last number given."""

    def reached(self, follower: str, key: int | None) -> None:
        """How far a follower has come: what it has not seen is kept for it."""


class SecretSource(Protocol):
    """Where secrets come from (see `access/secrets.py`)."""

    def read(self, names: Sequence[str]) -> Mapping[str, Any]:
        """The current values of those that have one."""


@dataclass(slots=True)
class UnacknowledgedEvents:
    """Durable events of one execution that no receiver has acknowledged, as one row of the store."""

    execution_id: str
    """The execution."""
    first_sequence: int
    """Sequence number of the first event."""
    last_sequence: int
    """Sequence number of the last event."""
    messages: bytes
    """The events, each a length-delimited field 1: rows concatenate to a ReportProgressBatchRequest."""
    trace: str = ""
    """What is traced of the execution, as `ExecutionTrace.text` has it; empty: nothing."""


EventsListener = Callable[[UnacknowledgedEvents], None]
"""Told on the loop, after the commit, in sequence per execution."""


Settled = Callable[[str], None]
"""Told the id of a span that need not be kept any longer."""


class Outbox(Protocol):
    """What the callback pipeline needs of the engine."""

    def listen(self, listener: EventsListener) -> None:
        """Registers the one listener; call before the engine starts. Rows unacknowledged at start are not announced:
        read them with `unacknowledged`."""

    async def unacknowledged(self, after: tuple[str, int] | None, rows_max: int) -> list[UnacknowledgedEvents]:
        """Rows beyond each execution's acknowledged sequence number, ordered by (execution_id, first_sequence),
        strictly after the given pair."""

    async def unacknowledged_of(
        self, execution_id: str, from_sequence: int, size_bytes_max: int
    ) -> list[UnacknowledgedEvents]:
        """Rows of one execution that hold events from `from_sequence` on, in order."""

    def acknowledge(self, execution_id: str, sequence: int) -> None:
        """The receiver has everything up to `sequence`; written with the next commit."""

    def give_up(self, execution_id: str, sequence: int) -> None:
        """Nothing up to `sequence` is sent any more, whether or not a receiver has it; written with the next commit."""

    def keep_span(self, execution_id: str, span: Span) -> Settled | None:
        """A span of a delivery is kept, with the commit that has the acknowledgement, until it is settled; None where
        the execution is not there any more."""


class ReportRefused(Exception):
    """No event of a report was taken; the text says why, and holds no secret."""


Report = Callable[[str, bytes, int], Awaitable[int]]
"""Sends events of an execution, as one row, up to a sequence number; gives the one up to which the receiver has them
now. Raises ReportRefused."""


class WorkerEngine(Engine, Protocol):
    """What the worker around an engine needs of it: its life, in the order of these methods."""

    @property
    def outbox(self) -> Outbox | None:
        """What the callbacks read; None: executions report by themselves."""

    @property
    def feed(self) -> "WorkerFeed":
        """See Engine."""

    def watch_storage(self, listener: Callable[[str], None]) -> None:
        """Has `listener` told on the loop why executions are not taken, and with an empty text when they are again.

        Call before `open`.
        """

    def watch_workers(self, is_short_handed: Callable[[], bool]) -> None:
        """Asks `is_short_handed` whether there may be too much to do only because a worker is being replaced."""

    async def open(self) -> None:
        """Opens what is stored; from here on executions are taken, and commands.

        Raises DataDirectoryRefused, Unavailable.
        """

    def events_came(self) -> None:
        """There are CloudEvents that have not been looked at, perhaps."""

    def go_on(self) -> None:
        """Begins to bring back what runs."""
