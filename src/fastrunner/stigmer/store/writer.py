"""Support: writes of many callers as few commits: what comes while one commit becomes durable is the next one.

Theory of operation: those that wait are handed over together, and nobody is answered before all of it is durable. On
a file a write is a function of the connection, performed in the writer's thread: all in one transaction, each within a
savepoint, so that one which is refused takes none of the others with it. Where the store itself fails, all of them are
told so.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import apsw

from fastrunner.base import limits
from fastrunner.engine.embedded.store.shared_file import SharedFile
from fastrunner.errors import AtCapacity, RunnerError

__all__ = ["FileWriter", "GroupWriter"]

T = TypeVar("T")


@dataclass(slots=True)
class _Write:
    work: Any
    done: "asyncio.Future[Any]"
    count: int
    size_bytes: int


class GroupWriter(ABC):
    """Commits one after the other; made and used on one loop."""

    def __init__(self) -> None:
        self._waiting: deque[_Write] = deque()
        self._working: asyncio.Task[None] | None = None
        self.waiting_count = 0
        """What waits or is being written, in events or other rows."""
        self.waiting_size_bytes = 0
        """The same in bytes."""

    @abstractmethod
    async def commit(self, works: Sequence[Any]) -> Sequence[Any]:
        """What each of several pieces of work gives, or the RunnerError that refuses it, once they are durable."""

    async def submit(self, work: Any, count: int, size_bytes: int) -> Any:
        """What a piece of work gives, once it is durable. `count` and `size_bytes` are what it writes.

        Raises AtCapacity, having done nothing, where too much waits; what refuses the work; what `commit` raises.
        """
        if self.waiting_count and (
            self.waiting_count + count > limits.STIGMER_WAITING_EVENTS_MAX
            or self.waiting_size_bytes + size_bytes > limits.STIGMER_WAITING_SIZE_BYTES_MAX
        ):
            raise AtCapacity(
                f"{self.waiting_count} events ({self.waiting_size_bytes} bytes) wait to be kept, and no more may: send "
                "it again later"
            )
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Write(work, done, count, size_bytes))
        self.waiting_count += count
        self.waiting_size_bytes += size_bytes
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        # Whoever asked may leave; what has begun is finished.
        return await asyncio.shield(done)

    async def close(self) -> None:
        """Waits for what is being written."""
        if self._working is not None:
            await self._working

    async def _work(self) -> None:
        while self._waiting:
            writes = [self._waiting.popleft()]
            count = writes[0].count
            while self._waiting and count + self._waiting[0].count <= limits.STIGMER_COMMIT_EVENTS_MAX:
                writes.append(self._waiting.popleft())
                count += writes[-1].count
            outcomes: Sequence[Any]
            try:
                outcomes = await self.commit([write.work for write in writes])
            except Exception as error:
                outcomes = [error] * len(writes)
            for write, outcome in zip(writes, outcomes, strict=True):
                self.waiting_count -= write.count
                self.waiting_size_bytes -= write.size_bytes
                _settle(write.done, outcome)
        self._working = None


class FileWriter(GroupWriter):
    """The only writer of a file."""

    def __init__(self, file: SharedFile, statements: tuple[str, str, str]) -> None:
        """`statements` begin a savepoint, release it, and roll back to it."""
        super().__init__()
        self._file = file
        self._savepoint, self._release, self._undo = statements
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stigmer-write")

    async def write(self, action: Callable[[apsw.Connection], T], count: int = 1, size_bytes: int = 0) -> T:
        """What an action on the connection gives, once it is durable. Raises as `submit`, StorageFailed,
        StorageFull."""
        outcome: T = await self.submit(action, count, size_bytes)
        return outcome

    async def commit(self, works: Sequence[Any]) -> Sequence[Any]:
        """See GroupWriter."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, works)

    async def close(self) -> None:
        """Gives the file back, too."""
        await super().close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    def _commit(self, actions: Sequence[Callable[[apsw.Connection], Any]]) -> Sequence[Any]:
        return self._file.written(lambda db: [self._perform(db, action) for action in actions])

    def _perform(self, db: apsw.Connection, action: Callable[[apsw.Connection], Any]) -> Any:
        db.execute(self._savepoint)
        try:
            outcome = action(db)
        except RunnerError as refusal:
            db.execute(self._undo)
            outcome = refusal
        db.execute(self._release)
        return outcome


def _settle(done: "asyncio.Future[Any]", outcome: Any) -> None:
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
        # Nobody may wait any more.
        done.exception()
    else:
        done.set_result(outcome)
