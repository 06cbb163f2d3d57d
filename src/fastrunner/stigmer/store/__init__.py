"""Support: what the Stigmer Service keeps, as protocols and records; each kind of store implements `Store`.

    events -> take (durable) -> acknowledgement -> followers, who read `events_after`
    start  -> record (durable) -> the runner    -> launched

Rules that every store keeps:
- What a method has written is durable when it returns.
- Events are keyed by (execution, sequence). Equal bytes again change nothing; other bytes are a violation, which is
  counted, and the first ones stay. They come in any order; what is shown is the prefix without a gap.
- What an execution is follows from its events alone (`fold`), and only goes forward: it changes where the sequence
  folded so far is lower. What the launch says counts only while there is no event.
- A counter moves once for each change of an execution, whatever happens between the two. No list counts rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, runtime_checkable

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent

__all__ = [
    "ACCEPTED",
    "RECORDED",
    "REFUSED",
    "REPORTED",
    "VIOLATIONS",
    "Arrived",
    "Drift",
    "EventsPage",
    "Execution",
    "Filter",
    "Inspected",
    "Launch",
    "NewExecution",
    "Refusal",
    "SharedStore",
    "Silent",
    "Standing",
    "Store",
    "Taken",
    "Told",
    "Unlaunched",
    "Violation",
    "Workflow",
    "WorkflowKey",
    "error_of",
]

Launch = Literal["recorded", "accepted", "refused", "reported"]
RECORDED: Final[Launch] = "recorded"
"""The service is to have it started by the runner, which may have happened."""
ACCEPTED: Final[Launch] = "accepted"
"""The runner has it."""
REFUSED: Final[Launch] = "refused"
"""The runner does not want it, or has lost it."""
REPORTED: Final[Launch] = "reported"
"""Others have started it: a caller of the runner, a schedule, another execution."""

VIOLATIONS: Final = ("changed", "after_end")
"""What a sender must not do: other bytes for an event that is there; an event after the one that ends the execution."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event as it came."""

    event: WorkflowProgressEvent
    """Decoded."""
    message: bytes
    """Its bytes, which are kept."""


@dataclass(frozen=True, slots=True)
class Told:
    """An execution that shows more events than before."""

    execution_id: str
    """Which."""
    last_sequence: int
    """How far it is shown now."""


@dataclass(slots=True)
class Taken:
    """What became of some events."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    """Of each execution among them: up to which number all events are there."""
    told: list[Told] = field(default_factory=list)
    """Those that show more than before."""
    stored: int = 0
    """Events that were not there before."""
    duplicates: int = 0
    """Events that were, with the same bytes."""
    violations: dict[str, int] = field(default_factory=dict)
    """How many there were, by kind."""
    ended: dict[str, int] = field(default_factory=dict)
    """Executions that have ended with them, by status."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the events of an execution say up to a number: the fold's state. Times are ms since the epoch, 0 before."""

    status: str = "pending"
    """One of `progress.names.STATUSES`."""
    last_sequence: int = 0
    """Up to which number."""
    started_ms: int = 0
    """When it began."""
    updated_ms: int = 0
    """When the latest event happened."""
    ended_ms: int = 0
    """When it ended."""
    message: str = ""
    """What the latest event about the whole execution says, for people."""
    error_json: str = ""
    """The error that it failed with, as a JSON object; empty if it has not failed."""
    output_json: str = ""
    """Exact JSON text of its output; empty while it has none, and where the event leaves it out."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution as it stands."""

    number: int
    """Its place in the order in which the service heard of executions."""
    id: str
    """The caller's id."""
    namespace: str
    """Its workflow's; empty, as the version is, where others have started it: events have only the name."""
    name: str
    """Its workflow's name."""
    version: str
    """Its workflow's version."""
    labels: Mapping[str, str]
    """What its caller calls it."""
    created_ms: int
    """When the service heard of it."""
    launch: Launch
    """Who has it started, and whether the runner has it."""
    standing: Standing
    """What its events say."""
    stored_sequence: int
    """The highest number of its events; beyond `standing.last_sequence` where one before it is missing."""
    gap_since_ms: int
    """Since when an event is missing; 0 if none is."""


@dataclass(frozen=True, slots=True)
class NewExecution:
    """An execution that the service is to have started."""

    id: str
    """Made before anything else, so that asking twice is asking once."""
    namespace: str
    """Of the workflow."""
    name: str
    """Of the workflow."""
    version: str
    """Of the workflow: the one that `latest` was."""
    labels: Mapping[str, str]
    """What the caller calls it."""
    created_ms: int
    """Now."""
    asked_hash: bytes
    """Of what the caller asked for; another one under the same id is refused."""
    request: bytes
    """A WorkflowExecuteInput; these very bytes go to the runner, however often, which tells a repetition by them."""


@dataclass(frozen=True, slots=True)
class Unlaunched:
    """A recorded execution that the runner is to have."""

    number: int
    """Its place among all."""
    id: str
    """Which."""
    request: bytes
    """What to send."""


@dataclass(frozen=True, slots=True)
class Silent:
    """An execution of which no event has come."""

    number: int
    """Its place among all."""
    id: str
    """Which."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the runner does not want an execution, or does not have it."""

    code: int
    """A gRPC status code: NOT_FOUND where it does not have it."""
    message: str
    """In its words."""
    kind: str = "REFUSED"
    """What the error of the execution has as its code: `REFUSED`, or `LOST`."""


def error_of(refusal: Refusal) -> dict[str, str]:
    """The error that an execution has failed with."""
    return {"code": refusal.kind, "message": refusal.message}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which executions a list shows; what is empty lets all through."""

    status: str = ""
    """One of `progress.names.STATUSES`."""
    namespace: str = ""
    """Of the workflow."""
    name: str = ""
    """Of the workflow."""
    version: str = ""
    """Of the workflow."""
    within: frozenset[str] | None = None
    """The namespaces that the caller may see; None: all."""

    @property
    def is_within_status(self) -> bool:
        """Whether it asks for nothing but a status, or for nothing at all."""
        return not (self.namespace or self.name or self.version) and self.within is None


@dataclass(frozen=True, slots=True)
class EventsPage:
    """Events of one execution in their order, of the prefix without a gap."""

    messages: Sequence[bytes]
    """As they came."""
    last_sequence: int
    """Up to which number the execution is shown; more than these where the page was full."""
    has_ended: bool
    """Whether none comes after that."""


@dataclass(frozen=True, slots=True)
class WorkflowKey:
    """Names a workflow; without a version, the latest."""

    namespace: str
    """Of its document."""
    name: str
    """Of its document."""
    version: str = ""
    """Of its document."""


@dataclass(frozen=True, slots=True)
class Workflow:
    """One version of a workflow."""

    key: WorkflowKey
    """Its names."""
    created_ms: int
    """When it was created."""
    is_latest: bool
    """Whether no version of it is higher."""
    document: str = ""
    """Its text; lists leave it out."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What a sender did."""

    execution_id: str
    """To which execution."""
    sequence: int
    """With which event."""
    kind: str
    """One of `VIOLATIONS`."""
    times: int
    """How often."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """An execution with all its events, read as one state of the store."""

    execution: Execution
    """As it is stored."""
    events: Sequence[tuple[int, bytes]]
    """Number and bytes of each, those behind a gap included, in their order."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter that is not what there is."""

    group: tuple[str, str, str, str]
    """Namespace, name, version, status."""
    counted: int
    """What the counter says."""
    there: int
    """Executions that there are."""


class Store(Protocol):
    """Everything the service keeps. Every method raises StorageFailed or StorageFull where it cannot be read or
    written."""

    @property
    def waiting_events(self) -> int:
        """Events that wait to be kept."""

    async def open(self) -> None:
        """Makes what it is kept in, if need be, before anybody is answered."""

    async def take(self, events: Sequence[Arrived]) -> Taken:
        """Keeps events, folds what follows what is folded, and moves the counters. Executions that are not known come
        into being as reported ones. Raises AtCapacity, having kept none, where more wait to be kept than may."""

    async def record(self, execution: NewExecution) -> bool:
        """Keeps an execution that is to be started; false if the same is recorded already. Raises IdTaken, and
        AtCapacity as `take` does."""

    async def launched(self, execution_id: str, refusal: Refusal | None, now_ms: int) -> None:
        """The runner has a recorded execution, or does not want it; said again, it changes nothing."""

    async def unlaunched(self, after: int, count_max: int) -> Sequence[Unlaunched]:
        """Recorded executions with numbers above `after`, in their order."""

    async def silent(self, before_ms: int, after: int, count_max: int) -> Sequence[Silent]:
        """Executions with numbers above `after`, in their order, that the runner should have since before `before_ms`,
        and of which no event has come."""

    async def lose(self, execution_id: str, why: Refusal, now_ms: int) -> bool:
        """Nobody has an execution of which no event has come: it has failed, unless events of it say otherwise; false
        if one has come."""

    async def find(self, execution_id: str) -> Execution:
        """One execution. Raises UnknownExecution."""

    async def page(self, which: Filter, before: int, count_max: int) -> Sequence[Execution]:
        """Executions with numbers below `before` (0: any), the newest first."""

    async def counts(self, which: Filter) -> Mapping[str, int]:
        """How many executions there are by status. Exact for every field of a filter."""

    async def events_after(self, execution_id: str, after: int, count_max: int, size_bytes_max: int) -> EventsPage:
        """Events with numbers above `after`, at least one if there is one. Raises UnknownExecution."""

    async def oldest_gap_ms(self) -> int:
        """Since when the oldest missing event is, in ms since the epoch; 0 if none is."""

    async def add_workflow(self, key: WorkflowKey, document: str, now_ms: int) -> bool:
        """Keeps a version; false if it is there with this text. Raises AlreadyRegistered if it is with another."""

    async def find_workflow(self, key: WorkflowKey) -> Workflow:
        """One version, or the latest. Raises UnknownWorkflow, and Damaged if it is not what was kept."""

    async def page_workflows(
        self, namespace: str, name: str, within: frozenset[str] | None, after: WorkflowKey | None, count_max: int
    ) -> Sequence[Workflow]:
        """Versions after one, without documents, by namespace and name, the highest first; what is empty lets all
        through."""

    async def expire(self, now_ms: int, count_max: int) -> int:
        """Forgets executions, with their events, whose time is over; how many."""

    async def inspect(self, after: int) -> Sequence[Inspected]:
        """Executions with the next numbers after one, in their order; none after the last."""

    async def inspect_counters(self) -> Sequence[Drift]:
        """Counters that are wrong."""

    async def inspect_violations(self) -> Sequence[Violation]:
        """Everything that senders did wrong."""

    async def inspect_strays(self) -> Mapping[str, int]:
        """Events of executions that are not there, by execution: how many."""

    async def close(self) -> None:
        """Waits for what is being written, and gives everything back."""


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store of several services at once."""

    async def settle(self) -> Taken:
        """Finishes some of what a service that is dead, or whose commit has failed, has left between two writes; what
        became of it, all of which is to be told. To be called again and again."""

    async def settle_all(self) -> None:
        """Finishes all that is left, for whoever wants to look at the store."""

    async def last_sequences(self, execution_ids: Sequence[str]) -> Mapping[str, int]:
        """How far executions are shown, of those that are there."""

    async def session_key(self, new: bytes) -> bytes:
        """What browsers' cookies are sealed with, the same for all services: `new` if there is none yet."""
