"""Stage 3, journal: what one commit writes, as plain data.

A Change is one execution's row set in one commit, however many turns of its walk it merges. The shard builds it on the
loop, the store writes it, and after the commit the shard acts on what it carries besides rows: effects that may start
now, and callers that wait.

Rule: nobody changes any of it; it is not frozen because every frozen field costs a call for each execution.
"""

from asyncio import Future
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastrunner.engine import Parent, UnacknowledgedEvents
from fastrunner.engine.embedded.store.large_values import Claims
from fastrunner.errors import RunnerError
from fastrunner.tracing.span import Span

if TYPE_CHECKING:
    from fastrunner.engine.embedded.admit.plans import CachedPlan

__all__ = [
    "FAMILY_ENDS",
    "Accepted",
    "Batch",
    "Change",
    "Deletion",
    "FamilyChange",
    "InboxChange",
    "InboxRow",
    "ListeningChange",
    "SpansChange",
    "Started",
    "Waiter",
]


@dataclass(slots=True)
class Accepted:
    """What is written once, when an execution is accepted."""

    request_digest: bytes
    """Tells a repeated request from a different one."""
    plan: "CachedPlan"
    """The compiled document."""
    accepted_ms: int
    """When, in milliseconds since the epoch."""
    metadata: bytes
    """The request's WorkflowMetadata, serialized."""
    input_json: bytes
    """Exact JSON text of the input."""
    env_json: bytes
    """The request's env_vars as JSON."""
    debug: bool
    """Whether every step is logged."""
    client: str = ""
    """Who submitted it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the caller calls it."""
    silent: bool = False
    """Whether its events are for no receiver."""
    parent: Parent | None = None
    """Which execution has started it, if one has."""
    trace: str = ""
    """What is traced of it, as `ExecutionTrace.text` has it; empty: nothing."""


FAMILY_ENDS: Final = "kill"
"""The order to end at once, because nobody waits any more."""


@dataclass(slots=True)
class FamilyChange:
    """What an execution has for those that it has started, and has done for the one that has started it."""

    orders: Sequence[tuple[str, str]] = ()
    """(execution id, what it is to do), in order."""
    released: Sequence[str] = ()
    """Ids of those that it does not wait for any more."""
    order_taken: int = -1
    """Number of the order that it has done; -1: none."""
    is_all: bool = False
    """Set where it ends without its walk: whatever it waited for is released, and to end."""
    number: int = 0
    """Of the orders: those that are written later have higher ones."""


@dataclass(slots=True)
class Started:
    """What an execution has begun to wait for, or waits for otherwise than before."""

    subscription_id: int
    """The walk's number of it."""
    filter_json: bytes
    """Which events, as JSON."""
    started_sequence: int
    """The execution's last sequence number when it began."""
    offered_key: int = 0
    """Up to which key events have been offered to it; the engine sets it when the commit is gathered."""
    is_live: bool = False
    """Whether it gets events as they come; set in the same way."""


@dataclass(slots=True)
class ListeningChange:
    """What has become of an execution's waiting for events."""

    started: Sequence[Started] = ()
    """What it waits for now."""
    ended: Sequence[int] = ()
    """Subscriptions it has given up."""
    taken: Sequence[tuple[int, int, int]] = ()
    """(subscription, key of the event, sequence number before) of the events it has taken, in order."""
    dropped: Sequence[tuple[int, int]] = ()
    """(subscription, key of the event) of what was offered and is not wanted any more."""
    kept_from_key: int = 0
    """Older events cannot be offered any more, so that it need not be remembered which of them were taken."""


class InboxRow(NamedTuple):
    """An event for a listener."""

    execution_key: int
    """Whose, by number in the shard."""
    subscription_id: int
    """For which of its subscriptions."""
    event_key: int
    """The event's number."""


@dataclass(slots=True)
class InboxChange:
    """What the events of this moment mean to a shard's listeners."""

    rows: list[InboxRow] = field(default_factory=list)
    """Who is to have which event."""
    events: dict[int, bytes] = field(default_factory=dict)
    """Those events by key, as JSON."""
    offered: dict[tuple[int, int], tuple[int, bool]] = field(default_factory=dict)
    """By (execution, subscription): up to which key it has been offered events, and whether it is live."""
    position: int = 0
    """Up to which key all events have been looked at; 0: not said."""

    def __bool__(self) -> bool:
        return bool(self.rows or self.offered or self.position)

    def only(self, row: InboxRow) -> "InboxChange":
        """One row of it, with its event."""
        return InboxChange([row], {row.event_key: self.events[row.event_key]})


@dataclass(slots=True)
class Waiter:
    """A caller who hears after the commit."""

    future: "Future[Any]"
    """What the caller awaits."""
    answer: Any = None
    """The result."""
    refusal: RunnerError | None = None
    """The refusal, instead of a result."""

    def settle(self) -> None:
        """Answers, unless the caller has left."""
        if self.future.done():
            return
        if self.refusal is not None:
            self.future.set_exception(self.refusal)
        else:
            self.future.set_result(self.answer)

    def fail(self, error: BaseException) -> None:
        """Answers with an error, unless the caller has left."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True)
class Change:
    """One execution's row set in one commit."""

    execution_key: int
    """The execution's number in its shard."""
    execution_id: str
    """The caller's id."""
    accepted: Accepted | None
    """Set in the execution's first commit."""
    status: str
    """The walk's status."""
    finished_ms: int
    """When it ended; 0 while it has not."""
    wake_at_ms: int
    """The walk's earliest deadline; 0: none."""
    parked: bool
    """Whether it only waits: for a timer, or paused."""
    last_sequence: int
    """Sequence number of its latest event."""
    snapshot: bytes | None
    """The walk's state as it is to be stored; None once it has finished."""
    output_json: str | None
    """JSON text of the output once completed."""
    error_json: str | None
    """JSON text of the DSL error once failed."""
    events: UnacknowledgedEvents | None
    """The events since the commit before."""
    effects: Sequence[int]
    """Ids of the effects this commit schedules."""
    waiters: Sequence[Waiter]
    """Who hears after it."""
    claims: Claims | None = None
    """How the snapshot's claims to values stored elsewhere change."""
    tallies: Sequence[bytes] = ()
    """What became of the tasks of its turns, for the metrics."""
    family: FamilyChange | None = None
    """What concerns its parent and its children."""
    listening: ListeningChange | None = None
    """What concerns the events it waits for."""
    spans: Sequence[Span] = ()
    """What has ended with it of what is traced."""
    keeps_state: bool = False
    """Set where an execution ends because it is damaged: what is left of its request and state stays until retention
    ends."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A finished execution whose retention has ended."""

    execution_key: int
    """The execution's number in its shard."""
    plan_key: int
    """Its document's number in the shard."""
    execution_id: str
    """The caller's id."""
    events_lost_count: int
    """Events no receiver ever acknowledged."""
    unsent_count: int = 0
    """Events that some lifecycle sink was never sent."""


class Settled(NamedTuple):
    """Up to which sequence number an execution's events are not sent any more, and why."""

    acknowledged: int = 0
    """The receiver has everything up to here."""
    given_up: int = 0
    """No receiver will have what follows, up to here."""


@dataclass(slots=True)
class SpansChange:
    """What becomes of the spans of a shard that end with no step of an execution."""

    kept: list[tuple[int, Span]] = field(default_factory=list)
    """(execution key, span) of those that are to be kept."""
    settled: list[tuple[int, str]] = field(default_factory=list)
    """(execution key, id) of those that need not be any longer."""
    told_key: int = 0
    """The row of events up to which none of the spans that executions' rows tell is needed any longer; 0: as before."""


@dataclass(slots=True)
class Batch:
    """Everything one commit writes."""

    changes: list[Change] = field(default_factory=list)
    """At most one per execution."""
    acknowledgements: dict[str, Settled] = field(default_factory=dict)
    """What need not be sent any more, by execution id."""
    deletions: list[Deletion] = field(default_factory=list)
    """What retention removes."""
    inbox: InboxChange = field(default_factory=InboxChange)
    """What listeners are to have."""
    spans: SpansChange | None = None
    """What becomes of spans beside those that the changes have."""
    probe: bool = False
    """Whether something is to be written in any case, to learn whether the disk takes it."""

    def __bool__(self) -> bool:
        parts = (self.changes, self.acknowledgements, self.deletions, self.inbox, self.spans, self.probe)
        return any(parts)
