"""Stage 3, journal: what a schedule fires, and when it is to be looked at again: of moments that are arguments.

    progress, now -> due -> fires (in order), moments missed, progress, the next look
    fires, is an execution going on -> admitted -> what starts, what waits, what is left out

Theory of operation: each trigger remembers the latest moment that is settled. What lies between it and now is either
on time or missed; the policy says what becomes of the missed ones. A moment is settled when its execution has been
accepted, so after a crash the same moments come again, with the same ids.

Rules: nothing here reads a clock or a file. Moments of `every` lie on a grid that begins when the schedule was added,
and goes on before that where the clock does. A clock that goes back repeats moments: those of cron have the ids they
had, so what ran runs no more; those of `every` get another generation, so that there is no gap until the clock is where
it was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple
from zlib import crc32

from fastrunner.base import limits
from fastrunner.engine.schedules import Misfire, Overlap, Schedule
from fastrunner.errors import InvalidRequest
from fastrunner.events.schedules.cron import CronMoments, cron_moments

__all__ = [
    "Admitted",
    "Due",
    "Fire",
    "Progress",
    "admitted",
    "backfilled",
    "begun",
    "dropped",
    "due",
    "ended",
    "resumed",
    "settled",
]

_EVERY: Final = "every"
_CRON: Final = "cron"
_AFTER: Final = "after"


@dataclass(frozen=True, slots=True)
class Fire:
    """A moment that starts an execution."""

    trigger: str
    """Which of the schedule's triggers it belongs to."""
    moment_ms: int
    """In milliseconds since the epoch."""
    generation: int = 0
    """How often the clock had gone back before it."""

    def execution_id(self, schedule_id: str) -> str:
        """The id of what it starts."""
        at = datetime.fromtimestamp(self.moment_ms / 1000, UTC).replace(tzinfo=None)
        precision = "milliseconds" if self.moment_ms % 1000 else "seconds"
        suffix = f"~{self.generation}" if self.generation else ""
        return f"{schedule_id}~{at.isoformat(timespec=precision)}Z{suffix}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a schedule has come; all it remembers."""

    every_ms: int = 0
    """The latest settled moment of `every`."""
    generation: int = 0
    """How often the clock has gone back so far that `every` had to begin again."""
    cron_ms: int = 0
    """The latest settled moment of `cron`."""
    after_due_ms: int = 0
    """When `after` fires next; 0: not known while its execution goes on."""
    after_id: str = ""
    """The execution whose end `after` waits for."""
    running: tuple[str, ...] = ()
    """Executions that may be going on, where the overlap policy asks."""
    queue: tuple[Fire, ...] = ()
    """Moments that wait for the end of an execution."""
    last_ms: int = 0
    """The latest moment that has started something."""
    last_execution_id: str = ""
    """What it has started."""
    last_error: str = ""
    """Why the latest moment has started nothing."""
    events_key: int = 0
    """The latest event that is settled."""
    counts: dict[str, int] = field(default_factory=dict)
    """What became of moments."""

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> "Progress":
        """What was written."""
        queue = tuple(Fire(**each) for each in values.pop("queue"))
        return cls(queue=queue, running=tuple(values.pop("running")), **values)

    def counted(self, outcome: str, count: int = 1) -> "Progress":
        """The same, with so many more moments of an outcome."""
        return replace(self, counts={**self.counts, outcome: self.counts.get(outcome, 0) + count}) if count else self


class Due(NamedTuple):
    """What a look at a schedule comes to."""

    fires: Sequence[Fire]
    """What is to start, in order."""
    missed_count: int
    """Moments that start nothing, because they are missed."""
    progress: Progress
    """How far it has come once those are settled."""
    next_ms: int
    """The moment that comes next, put off as it is; 0: none does, or none is known."""
    before: Progress
    """How far it has come before they are settled, by the clock as it is now."""


class _Looked(NamedTuple):
    """The same of one trigger."""

    fires: Sequence[Fire]
    missed_count: int
    progress: Progress
    next_ms: int


def begun(schedule: Schedule, events_key: int = 0) -> Progress:
    """Of a new schedule: `after` starts at once, others at their first moment, or by events after one."""
    at = schedule.added_ms
    return Progress(every_ms=at, cron_ms=at, after_due_ms=at if schedule.trigger.after_ms else 0, events_key=events_key)


def resumed(progress: Progress, now_ms: int, events_key: int = 0) -> Progress:
    """After a pause, whose moments do not count."""
    after_due_ms = max(progress.after_due_ms, now_ms) if progress.after_due_ms else 0
    every_ms, cron_ms = max(progress.every_ms, now_ms), max(progress.cron_ms, now_ms)
    events_key = max(progress.events_key, events_key)
    return replace(progress, every_ms=every_ms, cron_ms=cron_ms, after_due_ms=after_due_ms, events_key=events_key)


def due(schedule: Schedule, progress: Progress, now_ms: int) -> Due:
    """What a schedule has to fire now."""
    progress = before = _with_clock(schedule, progress, now_ms)
    fires: list[Fire] = []
    next_ms: list[int] = []
    missed_count = 0
    for kind in _kinds(schedule):
        looked = _after(schedule, progress, now_ms) if kind == _AFTER else _timed(schedule, kind, progress, now_ms)
        fires += looked.fires
        missed_count += looked.missed_count
        progress = looked.progress
        if looked.next_ms:
            next_ms.append(looked.next_ms)
    fires.sort(key=lambda fire: fire.moment_ms)
    return Due(_distinct(schedule, fires), missed_count, progress, min(next_ms, default=0), before)


def settled(progress: Progress, fire: Fire, execution_id: str) -> Progress:
    """After a fire whose execution has been accepted, or waits for the end of another one."""
    if fire.trigger == _EVERY:
        return replace(progress, every_ms=max(progress.every_ms, fire.moment_ms))
    if fire.trigger == _CRON:
        return replace(progress, cron_ms=max(progress.cron_ms, fire.moment_ms))
    return replace(progress, after_due_ms=0, after_id=execution_id)


def dropped(schedule: Schedule, progress: Progress, fire: Fire, now_ms: int) -> Progress:
    """After a fire that starts nothing: `after` counts from now."""
    if fire.trigger == _AFTER:
        return ended(schedule, progress, now_ms)
    return settled(progress, fire, "")


def ended(schedule: Schedule, progress: Progress, end_ms: int) -> Progress:
    """After the end of the execution that `after` waits for."""
    return replace(progress, after_id="", after_due_ms=end_ms + schedule.trigger.after_ms)


class Admitted(NamedTuple):
    """What becomes of fires under the overlap policy."""

    starts: Sequence[Fire]
    """Those that start now, in order."""
    queue: tuple[Fire, ...]
    """Those that wait."""
    overlapped: Sequence[Fire]
    """Those that start nothing."""


def admitted(schedule: Schedule, queue: tuple[Fire, ...], fires: Sequence[Fire], is_busy: bool) -> Admitted:
    """What starts of the fires that wait and those that come; `is_busy`: whether an execution is going on."""
    options = schedule.options
    if options.overlap is Overlap.ALLOW:
        return Admitted((*queue, *fires), (), ())
    waiting = (*queue, *fires)
    starts = () if is_busy else waiting[:1]
    waiting = waiting[len(starts) :]
    if options.overlap is Overlap.SKIP:
        return Admitted(starts, (), waiting)
    return Admitted(starts, waiting[: options.queue_count_max], waiting[options.queue_count_max :])


def backfilled(schedule: Schedule, from_ms: int, until_ms: int) -> Sequence[Fire]:
    """The moments of a range, its end not included. Raises InvalidRequest if there are too many."""
    fires: list[Fire] = []
    for kind in _kinds(schedule):
        if kind != _AFTER:
            after_ms = from_ms - 1 if kind == _CRON else max(from_ms - 1, schedule.added_ms)
            moments = _moments(schedule, kind, after_ms)
            for moment in islice(moments, limits.SCHEDULE_BACKFILL_MAX + 1):
                if moment >= until_ms:
                    break
                fires.append(Fire(kind, moment))
    fires.sort(key=lambda fire: fire.moment_ms)
    if len(fires) > limits.SCHEDULE_BACKFILL_MAX:
        latest = datetime.fromtimestamp(fires[limits.SCHEDULE_BACKFILL_MAX].moment_ms / 1000, UTC)
        raise InvalidRequest(
            "until_ms",
            f"the range has more than {limits.SCHEDULE_BACKFILL_MAX} moments: end it at {latest.isoformat()} at the "
            "latest, and begin another one there",
        )
    return _distinct(schedule, fires)


# --- triggers ---


def _kinds(schedule: Schedule) -> Iterator[str]:
    trigger = schedule.trigger
    for kind, has in ((_EVERY, trigger.every_ms), (_CRON, trigger.cron), (_AFTER, trigger.after_ms)):
        if has:
            yield kind


def _distinct(schedule: Schedule, fires: Sequence[Fire]) -> Sequence[Fire]:
    """Two triggers that come at the same moment fire once."""
    distinct: dict[str, Fire] = {}
    for fire in fires:
        distinct.setdefault(fire.execution_id(schedule.schedule_id), fire)
    return list(distinct.values())


def _with_clock(schedule: Schedule, progress: Progress, now_ms: int) -> Progress:
    """The progress of a schedule whose clock may have gone back."""
    every_ms = schedule.trigger.every_ms
    if every_ms and progress.every_ms - now_ms >= every_ms:
        progress = replace(progress, every_ms=now_ms, generation=progress.generation + 1)
    if progress.cron_ms - now_ms > limits.SCHEDULE_CLOCK_BACK_MS:
        progress = replace(progress, cron_ms=now_ms)
    if schedule.trigger.after_ms and progress.after_due_ms - now_ms > schedule.trigger.after_ms:
        progress = replace(progress, after_due_ms=now_ms + schedule.trigger.after_ms)
    return progress


def _after(schedule: Schedule, progress: Progress, now_ms: int) -> _Looked:
    """`after` has one moment at most."""
    if not progress.after_due_ms:
        return _Looked((), 0, progress, 0)
    fire = Fire(_AFTER, progress.after_due_ms)
    fires_ms = fire.moment_ms + _jitter_ms(schedule, fire)
    if fires_ms > now_ms:
        return _Looked((), 0, progress, fires_ms)
    if schedule.options.misfire is Misfire.SKIP and now_ms - fires_ms > limits.SCHEDULE_LATE_MS_MAX:
        progress = ended(schedule, progress, now_ms)
        return _Looked((), 1, progress, progress.after_due_ms)
    return _Looked((fire,), 0, progress, 0)


def _timed(schedule: Schedule, kind: str, progress: Progress, now_ms: int) -> _Looked:
    """`every` and `cron`: all moments since the latest settled one."""
    at = progress.every_ms if kind == _EVERY else progress.cron_ms
    generation = progress.generation if kind == _EVERY else 0
    on_time_ms = now_ms - limits.SCHEDULE_LATE_MS_MAX
    # Whatever it is put off by, what lies before is missed.
    missed, missed_count = _missed(schedule, kind, at, on_time_ms - schedule.options.jitter_ms - 1)
    at = max(at, on_time_ms - schedule.options.jitter_ms - 1)
    fires: list[Fire] = []
    next_ms = 0
    for moment in _moments(schedule, kind, at):
        fire = Fire(kind, moment, generation)
        fires_ms = moment + _jitter_ms(schedule, fire)
        if fires_ms > now_ms:
            next_ms = fires_ms
            break
        at = moment
        if fires_ms < on_time_ms:
            missed.append(moment)
            missed_count += 1
        else:
            fires.append(fire)
    made_up = _made_up(schedule, missed)
    progress = replace(progress, every_ms=at) if kind == _EVERY else replace(progress, cron_ms=at)
    return _Looked(
        [*(Fire(kind, moment, generation) for moment in made_up), *fires],
        missed_count - len(made_up),
        progress,
        next_ms,
    )


def _made_up(schedule: Schedule, missed: Sequence[int]) -> Sequence[int]:
    """Which of the missed moments start something after all."""
    options = schedule.options
    if options.misfire is Misfire.ALL:
        return missed[-options.misfire_count_max :]
    return missed[-1:] if options.misfire is Misfire.ONCE else ()


def _missed(schedule: Schedule, kind: str, after_ms: int, up_to_ms: int) -> tuple[list[int], int]:
    """The latest moments after one and up to another, and how many there are, as far as they are counted."""
    if up_to_ms <= after_ms:
        return [], 0
    if kind == _CRON:
        found = _cron(schedule).last(after_ms, up_to_ms, limits.SCHEDULE_MISFIRES_MAX)
        return found, len(found)
    step_ms, first_ms = schedule.trigger.every_ms, next(_moments(schedule, kind, after_ms))
    count = (up_to_ms - first_ms) // step_ms + 1 if up_to_ms >= first_ms else 0
    kept = min(count, limits.SCHEDULE_MISFIRES_MAX)
    return [first_ms + step_ms * (count - kept + at) for at in range(kept)], count


def _moments(schedule: Schedule, kind: str, after_ms: int) -> Iterator[int]:
    """The moments after one, in order."""
    if kind == _CRON:
        yield from _cron(schedule).after(after_ms)
        return
    step_ms, begin_ms = schedule.trigger.every_ms, schedule.added_ms
    moment = begin_ms + ((after_ms - begin_ms) // step_ms + 1) * step_ms
    while True:
        yield moment
        moment += step_ms


def _cron(schedule: Schedule) -> CronMoments:
    return cron_moments(schedule.trigger.cron, schedule.options.timezone)


def _jitter_ms(schedule: Schedule, fire: Fire) -> int:
    """By how much a fire is put off: always the same."""
    if not schedule.options.jitter_ms:
        return 0
    return crc32(fire.execution_id(schedule.schedule_id).encode()) % (schedule.options.jitter_ms + 1)
