"""Stage 3, journal: what goes into Temporal's histories about schedules, and what their memos say of them.

Rules: those of `messages`. A schedule's first input has all of it; orders have how far it has come.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson

from fastrunner.base import limits
from fastrunner.engine.schedules import Schedule, ScheduleView, Trigger
from fastrunner.events.schedules.planner import Progress
from fastrunner.events.schedules.rows import options_of, principal_of, principal_values

__all__ = [
    "COME_SO_FAR",
    "LOOK",
    "SCHEDULE",
    "SCHEDULE_SIGNAL",
    "WHAT_IT_IS",
    "ScheduleCommand",
    "ScheduleLook",
    "ScheduleLooked",
    "ScheduleStart",
    "memo_of",
    "plain",
    "schedule_id_of",
    "schedule_of",
    "shown_progress",
    "values_of",
    "view_of",
]

SCHEDULE: Final = "fastrunner.Schedule"
"""The type of the workflows that are schedules."""
LOOK: Final = "fastrunner.look"
"""The activity that starts what is due of a schedule."""
SCHEDULE_SIGNAL: Final = "schedule"
"""Pauses, or resumes."""
WHAT_IT_IS: Final = "schedule"
"""Entry of a schedule's memo: what was added, and its request's digest."""
COME_SO_FAR: Final = "progress"
"""Entry of a schedule's memo: how far it has come."""


def schedule_id_of(task_queue: str, schedule_id: str) -> str:
    """The id of the workflow that is a schedule."""
    return f"{task_queue}-schedule-{schedule_id}"


@dataclass(frozen=True)
class ScheduleStart:
    """The input of the workflow; of one that goes on with what came before it."""

    schedule: dict[str, Any]
    """What was added; see `values_of`."""
    progress: dict[str, Any]
    """How far it has come; see Progress."""
    filter: Any = None
    """Which events change anything, for an EventMatcher; None where none do."""
    events_state: Any = None
    """What the core remembers of events."""
    heard_key: int = 0
    """It has had all events up to this one."""
    generation: int = 0
    """How often it has begun to listen: what is delivered names it."""
    is_paused: bool = False
    """Whether it fires nothing."""
    reason: str = ""
    """Why."""
    next_ms: int = 0
    """When it fires next; 0: not known, or never."""
    due_ms: int = 0
    """When it is to be looked at, in milliseconds since the epoch."""
    queue: list[list[Any]] = field(default_factory=list)
    """Events that it has heard and not looked at: number, time of receipt, JSON text."""
    is_behind: bool = False
    """Whether it was told of events for which there was no room."""
    history_events_max: int = limits.TEMPORAL_HISTORY_EVENTS_MAX
    """How many events a history has when it is continued."""


@dataclass(frozen=True)
class ScheduleLook:
    """A schedule to look at."""

    progress: dict[str, Any]
    """How far it has come."""
    events_state: Any
    """What the core remembers of events."""
    next_ms: int
    """When it fires next."""
    events: list[list[Any]]
    """Events to look at, as ScheduleStart has them; empty: what is due by the clock."""


@dataclass(frozen=True)
class ScheduleLooked:
    """What a look has come to."""

    progress: dict[str, Any]
    """How far it has come."""
    events_state: Any
    """What the core remembers of events."""
    next_ms: int
    """When it fires next; 0: not known, or never."""
    wait_ms: int
    """After how long it is to be looked at again."""


@dataclass(frozen=True)
class ScheduleCommand:
    """What somebody has a schedule do."""

    verb: str
    """pause or resume."""
    reason: str = ""
    """Why, for lists."""
    now_ms: int = 0
    """When it is resumed, in milliseconds since the epoch."""
    events_key: int = 0
    """Of the latest event then."""


# --- what is kept of a schedule ---


def values_of(schedule: Schedule) -> dict[str, Any]:
    """A schedule as JSON."""
    values: dict[str, Any] = {
        name: getattr(schedule, name) for name in ("schedule_id", "namespace", "name", "version", "added_ms")
    }
    return values | {
        "trigger": asdict(schedule.trigger),
        "options": asdict(schedule.options),
        "request": b64encode(schedule.request).decode(),
        "principal": principal_values(schedule.principal),
    }


def schedule_of(values: Mapping[str, Any]) -> Schedule:
    """The schedule again. Raises LookupError, TypeError, ValueError."""
    return Schedule(
        **{
            **values,
            "trigger": Trigger(**values["trigger"]),
            "options": options_of(values["options"]),
            "request": b64decode(values["request"]),
            "principal": principal_of(values["principal"]),
        }
    )


def memo_of(schedule: Schedule, digest: bytes, start: ScheduleStart) -> dict[str, Any]:
    """The memo of a new one: without what is executed, which may be large."""
    shown = values_of(schedule) | {"request": ""}
    progress = Progress.of_json(dict(start.progress))
    return {
        WHAT_IT_IS: {"digest": digest.hex(), "schedule": shown},
        COME_SO_FAR: shown_progress(progress, 0, is_paused=False, reason=""),
    }


def shown_progress(progress: Progress, next_ms: int, *, is_paused: bool, reason: str) -> dict[str, Any]:
    """What lists show of how far a schedule has come."""
    return {
        "is_paused": is_paused,
        "reason": reason,
        "next_ms": next_ms,
        "last_ms": progress.last_ms,
        "last_execution_id": progress.last_execution_id,
        "last_error": progress.last_error,
        "queued_count": len(progress.queue),
        "counts": dict(progress.counts),
    }


def view_of(memo: Mapping[str, Any]) -> ScheduleView:
    """A schedule as lists show it. Raises LookupError, TypeError, ValueError for a memo of something else."""
    return ScheduleView(schedule=schedule_of(memo[WHAT_IT_IS]["schedule"]), **memo[COME_SO_FAR])


def plain(progress: Progress) -> dict[str, Any]:
    """Progress as JSON has it."""
    values: dict[str, Any] = orjson.loads(orjson.dumps(progress))
    return values
