"""Stage 3, journal: a schedule and how far it has come, as whoever keeps schedules hands it to whoever fires.

Rule: what is kept of a schedule is made of JSON here, and read again, wherever it is kept.
"""

from dataclasses import dataclass
from typing import Any

from fastrunner.access.principal import Principal, Role
from fastrunner.engine.schedules import Misfire, Overlap, Schedule, ScheduleOptions, ScheduleView
from fastrunner.events.schedules.planner import Progress

__all__ = ["Note", "Row", "options_of", "principal_of", "principal_values"]


@dataclass(frozen=True, slots=True)
class Row:
    """A schedule and how far it has come."""

    schedule: Schedule
    """What was added."""
    is_paused: bool
    """Whether it fires nothing."""
    reason: str
    """Why."""
    revision: int
    """Counts what people have done to it."""
    next_ms: int
    """When it fires next; 0: not known, or never."""
    progress: Progress
    """How far it has come."""
    events_state: Any = None
    """What the core remembers of events."""

    def view(self) -> ScheduleView:
        """As lists show it."""
        progress = self.progress
        return ScheduleView(
            schedule=self.schedule,
            is_paused=self.is_paused,
            reason=self.reason,
            next_ms=self.next_ms,
            last_ms=progress.last_ms,
            last_execution_id=progress.last_execution_id,
            last_error=progress.last_error,
            queued_count=len(progress.queue),
            counts=progress.counts,
        )


@dataclass(frozen=True, slots=True)
class Note:
    """What a look at a schedule came to."""

    row: Row
    """As it was looked at."""
    progress: Progress
    """How far it is now."""
    due_ms: int
    """When it is to be looked at again."""
    next_ms: int
    """When it fires next; 0: not known, or never."""
    events_state: Any = None
    """What the core remembers of events."""


def principal_values(principal: Principal | None) -> Any:
    """JSON of whoever has added a schedule."""
    if principal is None:
        return None
    namespaces = None if principal.namespaces is None else sorted(principal.namespaces)
    return {"name": principal.name, "roles": sorted(principal.roles), "namespaces": namespaces}


def principal_of(values: Any) -> Principal | None:
    """The same again. Raises LookupError, TypeError, ValueError."""
    if values is None:
        return None
    namespaces = values["namespaces"]
    roles = frozenset(map(Role, values["roles"]))
    return Principal(values["name"], roles, None if namespaces is None else frozenset(namespaces))


def options_of(values: dict[str, Any]) -> ScheduleOptions:
    """Options that were JSON. Raises LookupError, TypeError, ValueError."""
    return ScheduleOptions(**{**values, "misfire": Misfire(values["misfire"]), "overlap": Overlap(values["overlap"])})
