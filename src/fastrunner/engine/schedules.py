"""Stage 3, journal: schedules as the service and whoever fires them see them.

A schedule starts executions of one workflow at moments that its trigger tells. What it may be is said here; when it
fires is for `events/schedules`.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from fastrunner.access.principal import Principal
from fastrunner.base import limits

__all__ = ["Backfilled", "Misfire", "Overlap", "Schedule", "ScheduleBook", "ScheduleOptions", "ScheduleView", "Trigger"]


class Misfire(StrEnum):
    """What becomes of moments at which nobody could fire."""

    SKIP = "skip"
    """Nothing."""
    ONCE = "once"
    """One execution, for the latest of them."""
    ALL = "all"
    """One for each of the latest `misfire_count_max`."""


class Overlap(StrEnum):
    """What becomes of a moment while the execution before is still going on."""

    ALLOW = "allow"
    """It starts another one."""
    SKIP = "skip"
    """Nothing."""
    QUEUE = "queue"
    """It waits, with at most `queue_count_max` others."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts executions; each of them by itself, where a schedule has several."""

    every_ms: int = 0
    """Once in so many milliseconds; 0: not so."""
    after_ms: int = 0
    """So many milliseconds after the end of the execution before; 0: not so."""
    cron: str = ""
    """At the minutes that a cron expression of five fields names; empty: not so."""
    on: Mapping[str, Any] | None = None
    """Whenever events satisfy it: `schedule.on` of a document; None: not so."""
    read: str = "data"
    """What its executions get of those events: data, envelope or raw."""


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """How a schedule deals with moments."""

    timezone: str = "UTC"
    """Whose clock cron expressions read, as the IANA database calls it."""
    misfire: Misfire = Misfire.ONCE
    """What becomes of missed moments."""
    misfire_count_max: int = limits.SCHEDULE_MISFIRES_DEFAULT
    """How many of them are made up for at most, with `all`."""
    overlap: Overlap = Overlap.ALLOW
    """What becomes of moments while an execution is going on."""
    queue_count_max: int = limits.SCHEDULE_QUEUE_DEFAULT
    """How many wait at most, with `queue`."""
    jitter_ms: int = 0
    """Each moment is put off by so many milliseconds at most, the same ones whenever it is asked."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as somebody has added it."""

    schedule_id: str
    """The caller's id."""
    namespace: str
    """The namespace of its workflow."""
    name: str
    """The name of its workflow."""
    version: str
    """The version of its workflow; empty: the highest one when it fires."""
    trigger: Trigger
    """What starts executions."""
    options: ScheduleOptions
    """How moments are dealt with."""
    request: bytes = field(repr=False)
    """What is executed: a WorkflowExecuteInput without an id, serialized."""
    added_ms: int
    """When it was added, in milliseconds since the epoch."""
    principal: Principal | None = None
    """Who has added it, and on whose behalf it fires; None where callers were not told apart."""


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule as lists show it."""

    schedule: Schedule
    """What was added; without `request`."""
    is_paused: bool = False
    """Whether somebody has paused it."""
    reason: str = ""
    """Why."""
    next_ms: int = 0
    """When it fires next, in milliseconds since the epoch; 0: not known, or never."""
    last_ms: int = 0
    """The moment it has fired for last; 0: none yet."""
    last_execution_id: str = ""
    """What that has started."""
    last_error: str = ""
    """Why the latest moment has started nothing; empty if it has."""
    queued_count: int = 0
    """Moments that wait for the end of an execution."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What became of its moments so far: `started`, `failed`, `missed`, `overlapped`."""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """A moment that was made up for."""

    moment_ms: int
    """In milliseconds since the epoch."""
    execution_id: str
    """What has been started for it, now or before."""


class ScheduleBook(Protocol):
    """What the service needs of the schedules (see `events/schedules`): every worker has one, and all see the same."""

    async def add(self, schedule: Schedule, digest: bytes) -> tuple[ScheduleView, bool]:
        """Also whether this call has added it; `digest` tells the same request from another one. Durable when it
        returns. Raises ScheduleExists, AtCapacity, StorageFailed, StorageFull."""

    async def page(
        self, namespace: str, within: frozenset[str] | None, after: str, count_max: int
    ) -> Sequence[ScheduleView]:
        """Schedules with ids after one, of some namespaces (None: of all). Raises StorageFailed, StorageFull."""

    async def get(self, schedule_id: str) -> ScheduleView:
        """One. Raises UnknownSchedule, StorageFailed, StorageFull."""

    async def pause(self, schedule_id: str, reason: str) -> ScheduleView:
        """Its moments start nothing from now on. Durable when it returns. Raises UnknownSchedule, StorageFailed,
        StorageFull."""

    async def resume(self, schedule_id: str) -> ScheduleView:
        """They start executions again; those that have passed meanwhile do not count. Durable when it returns. Raises
        UnknownSchedule, StorageFailed, StorageFull."""

    async def delete(self, schedule_id: str) -> None:
        """What it has started goes on. Durable when it returns. Raises UnknownSchedule, StorageFailed, StorageFull."""

    def fire(self, schedule_id: str, key: str) -> Awaitable[str]:
        """Starts an execution now; its id, which is the same for the same key. Raises UnknownSchedule, and what
        refuses an execution."""

    def backfill(self, schedule_id: str, from_ms: int, until_ms: int) -> Awaitable[Sequence[Backfilled]]:
        """Starts what a range of moments, its end not included, has not started yet. Raises UnknownSchedule,
        InvalidRequest, and what refuses an execution."""
