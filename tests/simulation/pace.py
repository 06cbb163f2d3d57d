"""Support: an engine and a callback pipeline on a virtual clock where nothing fails unless the test says so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
from prometheus_client import CollectorRegistry

from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Definitions
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.changes import Batch
from fastrunner.engine.embedded.store.file import Store
from tests.integration.engines import Performer
from tests.simulation.run import bury
from tests.simulation.virtual import VirtualLoop, VirtualTime

__all__ = ["Disk", "engine_at", "live"]


def live(clock: VirtualTime, main: Coroutine[Any, Any, None]) -> None:
    """Runs a test's coroutine on the virtual clock."""
    loop = VirtualLoop(clock)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        bury(loop)
        asyncio.set_event_loop(None)


@dataclass
class Disk:
    """What the engine's stores are on."""

    clock: VirtualTime
    commit_s: float = 0.001
    """How long a commit takes."""
    fails: bool = False
    writes: list[tuple[float, Batch]] = field(default_factory=list)
    """Every attempt to write: when, in virtual seconds, and what."""

    def store(self, path: Path, *, outbox: bool) -> Store:
        return _WatchedStore(path, outbox=outbox, disk=self)

    def writer(
        self, name: str, commit: Callable[[], None], landed: Callable[[BaseException | None], None]
    ) -> "_PacedWriter":
        return _PacedWriter(self, commit, landed)

    def changes(self) -> list[int]:
        """How many executions each commit has written."""
        return [len(batch.changes) for _, batch in self.writes]


class _WatchedStore(Store):
    def __init__(self, path: Path, *, outbox: bool, disk: Disk) -> None:
        super().__init__(path, outbox=outbox)
        self._disk = disk

    def write(self, batch: Batch) -> None:
        self._disk.writes.append((self._disk.clock.now_ns / 1e9, batch))
        if self._disk.fails:
            error = apsw.exception_for(apsw.SQLITE_FULL)
            raise error
        super().write(batch)


class _PacedWriter:
    """Commits on the loop, after a while."""

    def __init__(self, disk: Disk, commit: Callable[[], None], landed: Callable[[BaseException | None], None]) -> None:
        self._disk = disk
        self._commit = commit
        self._landed = landed

    def request(self) -> None:
        asyncio.get_running_loop().call_later(self._disk.commit_s, self._run)

    def stop(self) -> None:
        """Nothing is under way that would not land."""

    def _run(self) -> None:
        self._commit()
        self._landed(None)


@asynccontextmanager
async def engine_at(
    disk: Disk, path: Path, performer: Performer | None = None, *, listener: Callable[[Any], None] | None = None,
    wall_ms: Callable[[], int] | None = None, definitions: Definitions | None = None, **settings: Any,
) -> AsyncIterator[EmbeddedEngine]:  # fmt: skip
    """A started engine with one shard on a disk; drained at the end."""
    engine = EmbeddedEngine(
        Config(data_dir=path, **settings),
        Metrics(CollectorRegistry()),
        {"call_http": performer or Performer()},
        definitions=definitions,
        wall_ms=wall_ms,
        make_store=disk.store,
        make_writer=disk.writer,
    )
    if listener is not None:
        engine.outbox.listen(listener)
    await engine.start()
    try:
        yield engine
    finally:
        disk.fails, disk.commit_s = False, 0.001
        await engine.drain(0.0)
