"""Stage 3, journal: what goes into Temporal's histories about CloudEvents: what is published, heard, and listened for.

Rules: those of `messages`. An event is its JSON text everywhere: whoever needs more of it than its size reads it.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from fastrunner.base import limits

__all__ = [
    "BUS_SEMANTICS",
    "DELIVER",
    "EVENTS",
    "HEAR_SIGNAL",
    "LISTEN",
    "PUBLISH_UPDATE",
    "SEND",
    "SINK",
    "BusStart",
    "Change",
    "Delivery",
    "Heard",
    "HeardEvent",
    "Published",
    "Publishing",
    "Receipt",
    "Registration",
    "Sending",
    "SinkStart",
    "Target",
    "bus_id_of",
    "sink_id_of",
]

EVENTS: Final = "fastrunner.Events"
"""The type of the workflow that is the bus."""
BUS_SEMANTICS: Final = 2
"""By which rules a bus that begins counts: 1: from the time of its first workflow task, which replays may take for that
of the second one; 2: from the time at which it began, and that task leaves something in the history."""
SINK: Final = "fastrunner.Sink"
"""The type of the workflows that send to sinks."""
SEND: Final = "fastrunner.send"
"""The activity that sends events to a sink."""
DELIVER: Final = "fastrunner.deliver"
"""The activity that tells listeners of events."""
LISTEN: Final = "fastrunner.listen"
"""The activity that tells the bus what an execution waits for."""
PUBLISH_UPDATE: Final = "publish"
"""What a replica has for the bus; answers with what has become of it."""
HEAR_SIGNAL: Final = "hear"
"""To a listener: events for it."""


def bus_id_of(task_queue: str) -> str:
    """The id of the bus of the executions of a task queue."""
    return f"{task_queue}-events"


def sink_id_of(task_queue: str, name: str) -> str:
    """The id of the workflow that sends to a sink."""
    return f"{task_queue}-sink-{name}"


@dataclass(frozen=True)
class Change:
    """What an execution begins to wait for, waits for in the place of something else, or does not any more."""

    subscription_id: int
    """The walk's number."""
    filter: Any = None
    """For an EventMatcher; None: it waits no more."""
    after_key: int = 0
    """It has had all events up to this one; only where it begins."""
    generation: int = 0
    """How often it has begun: what is delivered names it."""


@dataclass(frozen=True)
class Registration:
    """What is new of an execution that listens."""

    listener_id: str
    """Its workflow."""
    namespace: str
    """Of its document."""
    changes: list[Change]
    """In their order."""


@dataclass(frozen=True)
class Published:
    """Events that are published together, or not at all; or what somebody listens for."""

    events: list[str] = field(default_factory=list)
    """JSON text of each."""
    namespaces: list[str] | None = None
    """Whose workflows they reach; None: everybody's."""
    wants_first: bool = False
    """Whether the answer has the first one of a duplicate."""
    sinks: list[str] = field(default_factory=list)
    """Names of the sinks that are to have them."""
    registration: Registration | None = None
    """What somebody listens for."""


@dataclass(frozen=True)
class Publishing:
    """What a replica has for the bus at once."""

    calls: list[Published]
    """Of those who have called meanwhile, in their order."""
    retention_ms: int
    """For how long they are kept."""


@dataclass(frozen=True)
class Receipt:
    """What has become of the events of one call."""

    keys: list[int] = field(default_factory=list)
    """Number of each; a duplicate's is that of its first. Of what somebody listens for that of the latest event."""
    are_new: list[bool] = field(default_factory=list)
    """Whether each is no duplicate."""
    first: str = ""
    """What was published first in the place of a duplicate, if it is kept, and the call wants to know."""
    refusal: str = ""
    """Why none was taken, or not all of it."""


@dataclass(frozen=True)
class HeardEvent:
    """An event for some subscriptions of one execution."""

    key: int
    """Its number."""
    subscriptions: list[list[int]]
    """Number and generation of each."""
    event: str
    """Its JSON text."""
    received_ms: int = 0
    """When the bus took it, in milliseconds since the epoch."""


@dataclass(frozen=True)
class Heard:
    """Events for one execution, in their order."""

    events: list[HeardEvent]
    """At least one."""
    oldest_key: int = 0
    """The bus keeps nothing that is older: nobody gets that any more."""


@dataclass(frozen=True)
class Target:
    """What one workflow is to hear."""

    listener_id: str
    """The workflow, or the name of a sink."""
    events: list[list[Any]]
    """Number of each event, and the subscriptions it is for."""
    sink: bool = False
    """Whether it is a sink: its workflow is started where there is none."""


@dataclass(frozen=True)
class Delivery:
    """Events to deliver."""

    events: dict[str, str]
    """JSON text by number."""
    targets: list[Target]
    """Who hears what."""
    oldest_key: int
    """See Heard."""
    received_ms: dict[str, int] = field(default_factory=dict)
    """When the bus took each, by number."""


@dataclass(frozen=True)
class BusStart:
    """The input of the bus; of one that goes on with what came before it."""

    state: str = ""
    """What it remembers, packed; empty for one that begins."""
    history_events_max: int = limits.TEMPORAL_HISTORY_EVENTS_MAX
    """How many events a history has when it is continued."""
    semantics: int = 1
    """By which rules it began."""


@dataclass(frozen=True)
class SinkStart:
    """The input of the workflow of a sink; of one that goes on with what came before it."""

    name: str
    """Which sink; see SinkAddress."""
    events: list[str] = field(default_factory=list)
    """JSON text of what waits."""
    last_key: int = 0
    """The last event that it has had."""
    dropped_count: int = 0
    """Events that were given up for want of room, and not told yet."""


@dataclass(frozen=True)
class Sending:
    """Events for a sink."""

    name: str
    """Which sink."""
    events: list[str]
    """JSON text of each, in order."""
    dropped_count: int
    """Events before them that were given up."""
