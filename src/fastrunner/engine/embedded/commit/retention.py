"""Stage 3, journal: which finished executions a shard deletes, and when.

Rules: by age and by count, oldest first; a commit deletes a bounded number beyond as many as it finishes, so that
deleting keeps up with any load and never shows in anybody's latency. An execution with events that no receiver has
acknowledged is kept until the outbox's own bound on age; what is lost then is counted and logged.
"""

import logging
from collections.abc import Sequence

from fastrunner.base import crash, limits
from fastrunner.base.crash import CrashPoint
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.changes import Deletion
from fastrunner.engine.embedded.store.file import Store
from fastrunner.errors import Unavailable

__all__ = ["Retention"]

_log = logging.getLogger(__name__)

_FOREVER_MS = 2**62


class Retention:
    """The finished executions of one shard."""

    def __init__(self, store: Store, config: Config, metrics: Metrics) -> None:
        self.finished_count = 0
        """Finished executions in the file."""
        self.due = False
        """Whether the next commit should look for deletions."""
        self._store = store
        self._count_max = config.retention_count
        self._age_ms_max = int(config.retention_s * 1000)
        self._undelivered_age_ms_max = max(self._age_ms_max, limits.OUTBOX_AGE_S_MAX * 1000)
        self._dropped = metrics.callback_events.labels("dropped")
        self._taken: list[Deletion] = []
        self._skipped: set[int] = set()

    def wake(self, now_ms: int) -> bool:
        """Whether there is something to delete now."""
        if not self._taken and not self.due:
            self.due = bool(self._find(now_ms, 1))
        return self.due

    def take(self, now_ms: int, finishing_count: int) -> list[Deletion]:
        """The next deletions, for a commit in which so many executions finish."""
        if not self.due:
            return []
        count_max = finishing_count + limits.RETENTION_BATCH_EXECUTIONS_MAX
        self._taken = self._find(now_ms, count_max)
        self.due = len(self._taken) == count_max
        if self._taken:
            crash.reach(CrashPoint.BEFORE_RETENTION_DELETE)
        return self._taken

    def skip(self, deletions: Sequence[Deletion]) -> None:
        """Leaves alone what cannot be deleted because its rows are damaged."""
        for deletion in deletions:
            _log.error("execution number %d cannot be deleted: its rows are damaged", deletion.execution_key)
            self._skipped.add(deletion.execution_key)

    def deleted(self, deletions: list[Deletion]) -> None:
        """The deletions are durable."""
        self._taken = []
        self.finished_count -= len(deletions)
        if deletions:
            crash.reach(CrashPoint.AFTER_RETENTION_DELETE)
        lost = sum(deletion.events_lost_count for deletion in deletions)
        if lost:
            self._dropped.inc(lost)
            _log.warning("dropped %d events that no receiver acknowledged in time", lost)

    def _find(self, now_ms: int, count_max: int) -> list[Deletion]:
        try:
            found = self._oldest(now_ms, count_max + len(self._skipped))
            return [deletion for deletion in found if deletion.execution_key not in self._skipped][:count_max]
        except Unavailable:
            # Retention can wait for the disk; the commit that asked cannot.
            return []

    def _oldest(self, now_ms: int, count_max: int) -> list[Deletion]:
        excess = min(count_max, max(0, self.finished_count - self._count_max))
        by_age = self._store.deletable(now_ms - self._age_ms_max, count_max)
        # Both are oldest first, so one is the beginning of the other.
        by_count = self._store.deletable(_FOREVER_MS, excess) if excess > len(by_age) else []
        found = max(by_age, by_count, key=len)
        if len(found) < count_max:
            found += self._store.undeliverable(now_ms - self._undelivered_age_ms_max, count_max - len(found))
        return found
