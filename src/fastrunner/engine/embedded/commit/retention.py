"""Stage 3, journal: which finished executions a shard deletes, and when.

Rules: what somebody asks for comes first; else by age and by count, oldest first. A commit deletes a bounded number
beyond as many as it finishes, so that deleting keeps up with any load and never shows in anybody's latency. One with
events that no receiver has acknowledged, or that a lifecycle sink was not sent, is kept until the outbox's own bound on
age; what is lost then is counted and logged.
"""

import asyncio
import logging
from collections.abc import Sequence

from fastrunner.base import crash, limits
from fastrunner.base.crash import CrashPoint
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.commit.unsent import Unsent
from fastrunner.engine.embedded.store.changes import Deletion, Waiter
from fastrunner.engine.embedded.store.file import Store
from fastrunner.errors import Damaged, RunnerError, Unavailable, UnknownExecution, WrongState

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
        self.unsent = Unsent(store, config)
        """What lifecycle sinks are still to be sent."""
        self._store = store
        self._count_max = config.retention_count
        self._age_ms_max = int(config.retention_s * 1000)
        self._undelivered_age_ms_max = max(self._age_ms_max, limits.OUTBOX_AGE_S_MAX * 1000)
        self._dropped = metrics.callback_events.labels("dropped")
        self._dropped_for_sinks = metrics.lifecycle_events.labels("dropped")
        self._taken: list[Deletion] = []
        self._skipped: set[int] = set()
        self._asked: dict[int, tuple[Deletion, list[Waiter]]] = {}
        """What callers want deleted, by execution key, until that is durable."""

    @property
    def asked_count(self) -> int:
        """Deletions that callers wait for."""
        return len(self._asked)

    def ask(self, execution_id: str, settled_sequence: int, now_ms: int) -> "asyncio.Future[None]":
        """Deletes an execution with the next commits, for a caller; done when that is durable.

        `settled_sequence`: up to which its events need not be sent any more once the next commit has landed. Raises
        UnknownExecution, WrongState, Damaged.
        """
        row = self._store.ended(execution_id)
        if row is None:
            raise UnknownExecution(execution_id)
        execution_key, plan_key, last_sequence, acknowledged, finished_ms, awaited = row
        if not finished_ms:
            raise WrongState(f"execution {execution_id!r} has not ended: cancel it first, or wait for its end")
        if awaited:
            raise WrongState(f"execution {execution_id!r} has ended, but its parent has not taken it up yet: try again")
        undelivered = last_sequence - max(acknowledged, settled_sequence)
        if undelivered > 0:
            raise WrongState(
                f"execution {execution_id!r} has {undelivered} events that its receiver is still to have: delete it "
                "once they are delivered or given up"
            )
        deletions = self.unsent.without_wanted([Deletion(execution_key, plan_key, execution_id, 0)], now_ms)
        if not deletions:
            raise WrongState(
                f"execution {execution_id!r} has events that lifecycle sinks are still to have: delete it once they "
                "are sent or given up"
            )
        [deletion] = deletions
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Retention may have it in the commit under way: then that is the one to wait for.
        self._asked.setdefault(execution_key, (deletion, []))[1].append(Waiter(future))
        self.due = True
        return future

    def fail(self, error: RunnerError) -> None:
        """Nothing is deleted any more: tells the callers."""
        for _, waiters in self._asked.values():
            for waiter in waiters:
                waiter.fail(error)
        self._asked.clear()

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
        asked = [deletion for deletion, _ in self._asked.values()][:count_max]
        found = [each for each in self._find(now_ms, count_max) if each.execution_key not in self._asked]
        self._taken = (asked + found)[:count_max]
        self.due = len(self._taken) == count_max
        if self._taken:
            crash.reach(CrashPoint.BEFORE_RETENTION_DELETE)
        return self._taken

    def skip(self, deletions: Sequence[Deletion]) -> None:
        """Leaves alone what cannot be deleted because its rows are damaged."""
        for deletion in deletions:
            _log.error("execution number %d cannot be deleted: its rows are damaged", deletion.execution_key)
            self._skipped.add(deletion.execution_key)
            for waiter in self._waiters(deletion):
                waiter.fail(Damaged(f"execution {deletion.execution_id!r} cannot be deleted: its rows are damaged"))

    def deleted(self, deletions: list[Deletion]) -> None:
        """The deletions are durable."""
        self._taken = []
        self.finished_count -= len(deletions)
        for deletion in deletions:
            for waiter in self._waiters(deletion):
                waiter.settle()
        if deletions:
            crash.reach(CrashPoint.AFTER_RETENTION_DELETE)
        lost = sum(deletion.events_lost_count for deletion in deletions)
        if lost:
            self._dropped.inc(lost)
            _log.warning("dropped %d events that no receiver acknowledged in time", lost)
        unsent = sum(deletion.unsent_count for deletion in deletions)
        if unsent:
            self._dropped_for_sinks.inc(unsent)
            _log.warning("dropped %d events that a lifecycle sink did not take in time", unsent)

    def _waiters(self, deletion: Deletion) -> Sequence[Waiter]:
        """Who has waited for a deletion that has come to an end."""
        return self._asked.pop(deletion.execution_key, (deletion, ()))[1]

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
        return self.unsent.without_wanted(found, now_ms)
