"""Stage 3, journal: the moments of a cron expression in a time zone.

Theory of operation: cronsim finds the next match on a clock without a zone. Between two changes of its offset a zone is
such a clock, so the search goes from change to change. Two kinds of expressions meet a change differently, as in the
cron of Debian: one whose minutes or hours begin with `*` follows the wall: it skips what a change leaps over, and fires
twice as often in an hour that comes twice. Others fire once a day what they name: what is leapt over at the end of the
gap, what comes twice the first time.

cronsim has zones of its own, but loses moments where a zone changes by half an hour (Australia/Lord_Howe).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

__all__ = ["CronMoments", "cron_moments", "zone_of"]

_MINUTE: Final = timedelta(minutes=1)
_PROBE: Final = timedelta(days=7)
"""No zone changes its offset and changes it back within so short a time."""


def zone_of(name: str) -> ZoneInfo:
    """A time zone of the IANA database. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError):
        raise ValueError(
            f"there is no time zone {name!r}: give a name of the IANA database, as Europe/Berlin"
        ) from None


class CronMoments:
    """Moments of one expression, in milliseconds since the epoch."""

    def __init__(self, expression: str, timezone: str) -> None:
        """Raises ValueError for an expression that never comes, or a zone that there is not."""
        self._expression = expression
        self._zone = zone_of(timezone)
        minute, hour, *_ = expression.split()
        self._follows_wall = minute.startswith("*") or hour.startswith("*")
        try:
            next(CronSim(expression, datetime(2000, 1, 1)))
        except (CronSimError, StopIteration):
            raise ValueError(f"the cron expression {expression!r} names a day that no year has") from None

    def after(self, moment_ms: int) -> Iterator[int]:
        """The moments after one, in order; ends when none comes for fifty years."""
        at = datetime.fromtimestamp(moment_ms // 1000, UTC)
        moments = self._of_wall(at) if self._follows_wall else self._of_day(at)
        return (int(each.timestamp()) * 1000 for each in moments)

    def last(self, after_ms: int, up_to_ms: int, count_max: int) -> list[int]:
        """The latest of those after one moment and not after another, in order."""
        span_ms = 3_600_000
        while True:
            from_ms = max(after_ms, up_to_ms - span_ms)
            found = list(self._between(from_ms, up_to_ms))
            if len(found) >= count_max or from_ms == after_ms:
                return found[-count_max:]
            span_ms *= 2

    def first(self, from_ms: int, until_ms: int, count_max: int) -> list[int]:
        """The first of those from one moment on and before another, in order."""
        return list(islice(self._between(from_ms - 1, until_ms - 1), count_max))

    def _between(self, after_ms: int, up_to_ms: int) -> Iterator[int]:
        for each in self.after(after_ms):
            if each > up_to_ms:
                return
            yield each

    def _local(self, at: datetime) -> datetime:
        """What the wall shows."""
        return at.astimezone(self._zone).replace(tzinfo=None, fold=0)

    def _offset(self, at: datetime) -> timedelta:
        return at.astimezone(self._zone).utcoffset() or timedelta()

    def _of_wall(self, at: datetime) -> Iterator[datetime]:
        while True:
            offset = self._offset(at)
            for local in CronSim(self._expression, self._local(at)):
                moment = (local - offset).replace(tzinfo=UTC)
                change = self._change(at, moment)
                if change is not None:
                    # Nothing comes before it; from it on the wall shows something else.
                    if self._is_match(change):
                        yield change
                    at = change
                    break
                at = moment
                yield moment
            else:
                return

    def _is_match(self, at: datetime) -> bool:
        local = self._local(at)
        return next(CronSim(self._expression, local - _MINUTE), None) == local

    def _change(self, after: datetime, up_to: datetime) -> datetime | None:
        """The first change of the zone's offset after one moment and not after another, to the minute."""
        before = self._offset(after)
        low = after.replace(second=0)
        while self._offset(high := min(low + _PROBE, up_to)) == before:
            if high == up_to:
                return None
            low = high
        while high - low > _MINUTE:
            middle = low + timedelta(minutes=(high - low) // _MINUTE // 2)
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def _of_day(self, at: datetime) -> Iterator[datetime]:
        for local in CronSim(self._expression, self._local(at)):
            moment = local.replace(tzinfo=self._zone).astimezone(UTC)
            if self._local(moment) != local:
                # It is leapt over: the gap ends where the offset changes.
                changed = self._change(moment - timedelta(days=1), moment)
                moment = moment if changed is None else changed
            if moment > at:
                at = moment
                yield moment


@lru_cache(maxsize=1024)
def cron_moments(expression: str, timezone: str) -> CronMoments:
    """The same object for the same arguments; as the constructor."""
    return CronMoments(expression, timezone)
