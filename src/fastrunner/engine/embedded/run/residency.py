"""Stage 3, journal: which unfinished executions are in memory, and when the others come back.

Theory of operation. An execution that only waits needs no memory: its last commit is all of it. `Residents` keeps the
most recently parked ones, because a retry or a short wait soon asks for them again, and names the surplus for eviction.
`Loader`, one per shard, brings executions back: those whose deadline comes within the lookahead, found by the file's
index of deadlines, and the backlog, which is what runs but is not in memory: everything at a start, and later what
found no place among the effects.

Rules:
- The loader's horizon divides deadlines: an execution out of memory has no deadline up to the horizon, so nothing that
  ends before the horizon may be evicted, and one that comes later is found when the horizon reaches it.
- Loading takes a few milliseconds at a time, or one execution whose large document is compiled anew, and stops while
  too many executions are in memory: a million deadlines at the same moment are a queue, not a burst. The backlog goes
  at half the loop's time at most.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Protocol

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.store.file import Store
from fastrunner.engine.embedded.store.reader import Unfinished
from fastrunner.errors import StorageFailed

__all__ = ["Loader", "Residents", "Vacancies"]

_log = logging.getLogger(__name__)

_LAST_KEY = 2**62


class Residents:
    """The parked executions of one worker that are still in memory, least recently parked first."""

    def __init__(self, count_max: int, size_bytes_max: int) -> None:
        self._count_max = count_max
        self._size_bytes_max = size_bytes_max
        # Not an OrderedDict, which takes another hundred bytes for each.
        self._parked: dict[Execution, int] = {}
        self._size_bytes = 0

    def park(self, execution: Execution) -> None:
        """The execution has nothing to do until a timer or a command comes, and its last commit has landed."""
        self.leave(execution)
        size_bytes = execution.state_size_bytes
        self._parked[execution] = size_bytes
        self._size_bytes += size_bytes

    def leave(self, execution: Execution) -> None:
        """The execution has something to do again, or is gone."""
        if self._parked:
            self._size_bytes -= self._parked.pop(execution, 0)

    def surplus(self) -> Iterator[Execution]:
        """Takes out what exceeds a bound, the least recently parked first."""
        # Found in one pass: to look for the first one costs as much as have been taken out before it.
        count, size_bytes, first = len(self._parked), self._size_bytes, []
        for execution, each_size_bytes in self._parked.items():
            if count <= self._count_max and size_bytes <= self._size_bytes_max:
                break
            count -= 1
            size_bytes -= each_size_bytes
            first.append(execution)
        for execution in first:
            self.leave(execution)
            yield execution


class Vacancies(Protocol):
    """What a loader asks of the worker about room."""

    def for_timers(self) -> bool:
        """Whether another execution may come into memory because its deadline comes."""

    def for_backlog(self) -> bool:
        """Whether another execution may come into memory to go on, and would find a place for its effects."""


class Loader:
    """Brings executions of one shard back into memory."""

    def __init__(
        self,
        store: Store,
        vacancies: Vacancies,
        is_live: Callable[[str], bool],
        restore: Callable[[Unfinished], object],
        wall_ms: Callable[[], int],
        on_failure: Callable[[], None],
    ) -> None:
        """`on_failure` is called when `failure` comes or goes."""
        self.failure: StorageFailed | None = None
        """Why the file cannot be read; None while it can."""
        self._on_failure = on_failure
        self._store = store
        self._vacancies = vacancies
        self._is_live = is_live
        self._restore = restore
        self._wall_ms = wall_ms
        self._horizon = (0, _LAST_KEY)
        self._front: deque[int] = deque()
        """Of the backlog: what is brought back next."""
        self._requeued: deque[int] = deque()
        self._recalled: dict[int, None] = {}
        """Of the backlog: those that have events to take, if they may."""
        self._woken = asyncio.Event()
        self._recovered_key = self._recover_until_key = 0

    def begin(self, until_key: int) -> None:
        """The file has just been opened: whatever runs there, up to an execution key, is backlog."""
        self._recover_until_key = until_key

    @property
    def backlog(self) -> bool:
        """Whether executions wait to be brought back to go on."""
        return bool(self._front or self._requeued or self._recalled) or self._recovered_key < self._recover_until_key

    def may_evict(self, execution: Execution) -> bool:
        """Whether an execution, were it evicted, would be found again in time for its deadline."""
        assert execution.walk is not None
        wake_at_ms = execution.walk.wake_at_ms
        return wake_at_ms == 0 or wake_at_ms > self._horizon[0]

    def requeue(self, execution_key: int) -> None:
        """An execution that runs has left memory: it comes back in its turn."""
        self._requeued.append(execution_key)

    def recall(self, execution_key: int) -> None:
        """There is an event for an execution: it comes back soon, unless it has ended or is paused."""
        self._recalled[execution_key] = None
        self._woken.set()

    async def run(self) -> None:
        """Loads until cancelled."""
        while True:
            self._woken.clear()
            begun_s = monotonic_s()
            try:
                timers_left = self._load_timers()
                backlog_left = self._load_backlog()
            except StorageFailed as failure:
                self._note(failure)
                await asyncio.sleep(limits.COMMIT_RETRY_DELAY_S_MAX)
                continue
            self._note(None)
            if timers_left:
                await asyncio.sleep(0)
            elif backlog_left:
                await asyncio.sleep(monotonic_s() - begun_s)
            else:
                await self._rest(limits.BACKLOG_INTERVAL_S if self.backlog else limits.LOAD_INTERVAL_S)

    async def _rest(self, rest_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await self._woken.wait()

    def _note(self, failure: StorageFailed | None) -> None:
        if self.failure is not failure:
            self.failure = failure
            self._on_failure()

    def _load_timers(self) -> bool:
        """Loads a few executions whose deadline comes soon; whether more may be waiting that have room."""
        target = (self._wall_ms() + limits.TIMER_LOOKAHEAD_MS, _LAST_KEY)
        # Where a clock was set back the horizon follows: what lies between is in memory already.
        self._horizon = min(self._horizon, target)
        if not self._vacancies.for_timers():
            return False
        deadlines = self._store.deadlines(*self._horizon, target[0], limits.LOAD_EXECUTIONS_PER_PASS_MAX)
        end_s = monotonic_s() + limits.LOAD_PASS_S_MAX
        for wake_at_ms, execution_key, execution_id in deadlines:
            if not self._is_live(execution_id):
                self._load(execution_key)
            self._horizon = (wake_at_ms, execution_key)
            if monotonic_s() >= end_s:
                return True
        if len(deadlines) == limits.LOAD_EXECUTIONS_PER_PASS_MAX:
            return True
        self._horizon = target
        return False

    def _load_backlog(self) -> bool:
        """Loads a few executions that run; whether more are waiting that have room."""
        if not self.backlog or not self._vacancies.for_backlog():
            return False
        keys = self._front
        if not keys:
            keys.extend(self._next_keys())
        end_s = monotonic_s() + limits.LOAD_PASS_S_MAX
        while keys:
            # It stays at the front if the file cannot be read.
            self._load(keys[0])
            keys.popleft()
            if monotonic_s() >= end_s:
                break
        return self.backlog

    def _next_keys(self) -> list[int]:
        """The front of the backlog: first what a restart left, then what was put back."""
        count_max = limits.LOAD_EXECUTIONS_PER_PASS_MAX
        if self._recovered_key < self._recover_until_key:
            keys = self._store.running(self._recovered_key, self._recover_until_key, count_max)
            self._recovered_key = keys[-1] if len(keys) == count_max else self._recover_until_key
            return keys
        if self._requeued:
            return [self._requeued.popleft() for _ in range(min(count_max, len(self._requeued)))]
        recalled = list(islice(self._recalled, count_max))
        keys = [key for key in recalled if self._store.may_take(key)]
        for key in recalled:
            del self._recalled[key]
        return keys

    def _load(self, execution_key: int) -> None:
        try:
            row = self._store.unfinished(execution_key)
            # It may have come back, and even have ended, for another reason since its key was noted.
            # What the runner has set aside comes back when it is resumed.
            if row is not None and not row.aside and not self._is_live(row.execution_id):
                self._restore(row)
        except StorageFailed:
            raise
        except Exception:
            # A defect with one execution must not keep the others from coming back.
            _log.exception("execution number %d of a shard could not be brought back", execution_key)
