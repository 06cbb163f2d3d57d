"""Stage 3, journal: what goes into Temporal's histories: inputs of workflows, orders and outcomes of activities.

Rules: histories outlive versions, so fields are added with a default and never change their meaning. Bytes are base64,
so that Temporal's own tools show the rest. Nothing here is secret: arguments are made where an effect is performed.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from fastrunner._core import EffectFailure, EffectResult, PerformEffect, Plan
from fastrunner.base import limits

__all__ = [
    "ANSWER_QUERY",
    "CONTROL_SIGNAL",
    "EVENTS_QUERY",
    "FAMILY_SIGNAL",
    "OUTPUT_TOO_LARGE",
    "PERFORM",
    "PREPARE",
    "REPORT",
    "REPORT_REST",
    "SEMANTICS",
    "TASK_QUEUE",
    "VIEW_QUERY",
    "WALK",
    "Control",
    "EffectOrder",
    "EffectOutcome",
    "Prepared",
    "WalkStart",
    "no_room",
    "order_of",
    "outcome_of",
    "packed",
    "told",
    "unpacked",
]

TASK_QUEUE: Final = "fastrunner"
"""Of workflows and activities: all replicas take from it."""
WALK: Final = "fastrunner.Walk"
"""The type of workflow that is an execution."""
SEMANTICS: Final = 2
"""By which rules a workflow drives its walk: a change that replays otherwise makes another one of it. 1: the first turn
has the time of its workflow task. 2: it has that at which the workflow began, and what ends with it is told at once."""
REPORT_REST: Final = "fastrunner.Report"
"""The type of workflow that reports what an execution has left."""
PERFORM: Final = "fastrunner.perform"
"""The activity that is an effect."""
PREPARE: Final = "fastrunner.prepare"
"""The activity that finds the workflow that `run: workflow` names."""
REPORT: Final = "fastrunner.report"
"""The activity that sends events to the receiver."""
CONTROL_SIGNAL: Final = "control"
"""Pauses, resumes, or cancels by force."""
ANSWER_QUERY: Final = "answer"
"""What a command came to."""
FAMILY_SIGNAL: Final = "family"
"""What a parent has its child do."""
VIEW_QUERY: Final = "view"
EVENTS_QUERY: Final = "events"
OUTPUT_TOO_LARGE: Final = "OutputTooLarge"
"""The type of an error: the execution is completed, and no payload has room for its output."""


def packed(data: bytes) -> str:
    """Bytes as text."""
    return b64encode(data).decode()


def unpacked(text: str) -> bytes:
    """The bytes again. Raises ValueError."""
    return b64decode(text, validate=True)


@dataclass(frozen=True)
class WalkStart:
    """The input of the workflow; of one that goes on with what came before it."""

    document: str
    """The workflow document's text."""
    pinned: str
    """The texts from elsewhere that it was accepted with; see `engine/pinned.py`."""
    input_json: str
    """JSON text of the input."""
    env: dict[str, str]
    """Values for `$runtime.metadata.env`."""
    timeout_ms_max: int
    """Upper bound on the duration in milliseconds; 0: none."""
    seed: int
    """Feeds the walk's jitter."""
    reports: bool
    """Whether a receiver has its events."""
    grace_ms: int
    """How long a graceful cancel lets running effects go on, in milliseconds."""
    history_events_max: int
    """How many events a history has when it is continued."""
    debug: bool = False
    """Log every step at level info."""
    detached: bool = False
    """Whether another workflow reports what is left when the walk has ended."""
    depth: int = 0
    """How many generations of executions are above it."""
    parent_id: str = ""
    """Who has started it; empty if a client has."""
    snapshot: str = ""
    """The walk, packed; empty for one that begins."""
    events: str = ""
    """Its latest events, packed: those that nobody has acknowledged, and some before."""
    events_last: int = 0
    """Sequence number of the last of them."""
    acknowledged: int = 0
    """Sequence number up to which the receiver has everything."""
    rested_ms: int = 0
    """For how long the walk's clock has stood still."""
    accepted_ms: int = 0
    """When the execution was accepted, in milliseconds since the epoch; 0: when its workflow began."""
    is_pinned: bool = False
    """Whether it stays with its version of the runner until its history is continued, which a new version asks for."""
    semantics: int = SEMANTICS
    """By which rules it began; those of the snapshot are in the snapshot."""
    has_blobs: bool = False
    """Whether large values have room, in a blob store; what is decided by it must be decided alike in every replay."""
    answers: dict[str, str] = field(default_factory=dict)
    """What the latest commands came to, by id: why they were refused, or nothing."""
    listening: str = ""
    """What it has heard and taken of events; see `Listening.state`."""
    kept_by: dict[str, str] = field(default_factory=dict)
    """By reference of a task, the task queue of the one worker that has something open for it."""
    lifecycle: dict[str, int] = field(default_factory=dict)
    """By lifecycle sink: the sequence number up to which it has been told."""
    trace: str = ""
    """What is traced of it, as `ExecutionTrace.text` has it; empty: nothing."""

    @property
    def size_bytes(self) -> int:
        """About what its payload takes."""
        texts = (self.document, self.pinned, self.input_json, self.snapshot, self.events, self.listening)
        size_bytes = sum(len(orjson.dumps(text)) for text in texts)
        return size_bytes + len(orjson.dumps(self.env))


@dataclass(frozen=True)
class EffectOrder:
    """An effect to perform."""

    effect_id: int
    """Its number in the walk."""
    kind: str
    """Names its performer."""
    capsule: str
    """`Plan.dump_capsule`, packed."""
    idempotency_key: str
    """See `PerformEffect`."""
    reference: str
    """JSON pointer of the task."""
    events: str = ""
    """Events for the receiver, packed, which whoever performs the effect sends meanwhile."""
    events_last: int = 0
    """Sequence number of the last of them."""


@dataclass(frozen=True)
class EffectOutcome:
    """What an effect came to."""

    value: Any = None
    """The result of one that succeeded."""
    failure: dict[str, Any] | None = None
    """type, status, title, detail and retry_after_ms of one that failed, or `error`, a whole DSL error."""
    acknowledged: int = 0
    """Sequence number up to which the receiver is known to have everything; 0: nothing is known."""
    kept_by: str = ""
    """Task queue of the one worker that has something open for the next effect of the task; empty: none has."""
    is_again: bool = False
    """Whether it was performed again, because a worker that performed it was lost or stopped."""


@dataclass(frozen=True)
class Prepared:
    """A child to start, or why there is none."""

    start: WalkStart | None = None
    """Its workflow's input; None if there is none."""
    memo: dict[str, Any] = field(default_factory=dict)
    """Its workflow's memo."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Search attributes by name."""
    awaits_end: bool = True
    """Whether the effect waits for its end."""
    failure: dict[str, Any] | None = None
    """As `EffectOutcome` has it."""


@dataclass(frozen=True)
class Control:
    """A command."""

    verb: str
    """pause, resume or kill."""
    reason: str
    """Why, for events."""
    command_id: str
    """By which its answer is asked for."""


def order_of(plan: Plan, effect: PerformEffect) -> EffectOrder:
    """An effect for another process."""
    capsule = packed(plan.dump_capsule(effect.capsule))
    return EffectOrder(effect.effect_id, effect.kind, capsule, effect.idempotency_key, effect.reference)


def no_room(effect_id: int, size_bytes: int) -> EffectFailure:
    """The failure of an effect whose data nothing has room for."""
    bound = limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX
    detail = (
        f"the data of the task have {size_bytes} bytes: at most {bound} are kept where Temporal keeps them without a "
        "blob store (FASTRUNNER_BLOB_URL)"
    )
    return EffectFailure(effect_id, "runtime", 0, "Data Too Large", detail)


def told(outcome: EffectResult | EffectFailure, has_blobs: bool) -> EffectOutcome:
    """An outcome for the history; a result that nothing has room for is a failure."""
    if isinstance(outcome, EffectResult):
        size_bytes = 0 if has_blobs else len(orjson.dumps(outcome.value))
        if size_bytes <= limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX:
            return EffectOutcome(outcome.value)
        detail = (
            f"the result has {size_bytes} bytes: at most {limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX} are kept where "
            "Temporal keeps them without a blob store (FASTRUNNER_BLOB_URL)"
        )
        outcome = EffectFailure(outcome.effect_id, "runtime", 0, "Result Too Large", detail)
    if outcome.error is not None:
        return EffectOutcome(failure={"error": dict(outcome.error)})
    names = ("type", "status", "title", "detail", "retry_after_ms")
    return EffectOutcome(failure={name: getattr(outcome, name) for name in names})


def outcome_of(effect_id: int, outcome: EffectOutcome) -> EffectResult | EffectFailure:
    """An outcome for the walk."""
    failure = outcome.failure
    if failure is None:
        return EffectResult(effect_id, outcome.value)
    if "error" in failure:
        return EffectFailure.whole(effect_id, failure["error"])
    return EffectFailure(effect_id, **failure)
