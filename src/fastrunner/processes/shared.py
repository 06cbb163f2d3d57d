"""Support: what the processes of one runner share: where executions live, what each worker has to do, what wakes it.

Rules: the supervisor makes it before it forks, and it outlives every worker: what a killed one has claimed is there for
its successor, and what has been called to it. No grpc, no thread and no event loop here.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from fastrunner._wire import Loads, Placement
from fastrunner.access.sealing import DataKeys
from fastrunner.base.clock import steady_ms
from fastrunner.base.folders import Identity
from fastrunner.routing.placement import Anywhere, Places


class Wakes:
    """An eventfd for each worker, which says that there are new CloudEvents."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = descriptors

    def wake(self) -> None:
        """Has every worker look."""
        for descriptor in self._descriptors:
            # One that has been told 2^64 times and not looked needs no further word.
            with suppress(BlockingIOError):
                os.eventfd_write(descriptor, 1)

    def fileno(self, worker: int) -> int:
        """What becomes readable for a worker, for its loop; a successor is told what its predecessor was not."""
        return self._descriptors[worker]

    def heard(self, worker: int) -> None:
        """Takes what a worker has been told; call before looking."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptors[worker])


@dataclass(frozen=True, slots=True)
class Shared:
    """Descriptors of the memory, inherited by every child, and what it is about."""

    placement: int
    """Of the table of places."""
    loads: int
    """Of the workers' cells."""
    key: bytes
    """What ids are hashed with in the table."""
    shard_count: int
    """Shards of the data directory."""
    wakes: Wakes
    """What tells workers of new events."""
    begun_ms: int
    """When the runner was started, by the steady clock."""
    folder: Identity | None
    """What the data directory was then."""
    data_keys: DataKeys | None = None
    """What seals what is stored there; None if it is not sealed."""
    temporal_keys: DataKeys | None = None
    """What seals Temporal's histories; None if nothing does."""

    @classmethod
    def create(
        cls,
        workers: int,
        shard_count: int,
        key: bytes,
        data_keys: DataKeys | None = None,
        *,
        folder: Identity | None = None,
        temporal_keys: DataKeys | None = None,
    ) -> Self:
        """New memory, for so many workers. Raises OSError."""
        wakes = Wakes([os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(workers)])
        memory = (Placement.create(), Loads.create(workers))
        return cls(*memory, key, shard_count, wakes, steady_ms(), folder, data_keys, temporal_keys)

    def places(self, worker: int, worker_count: int, *, anywhere: bool = False) -> Places:
        """What one worker sees of it; `anywhere`: executions are kept outside of the runner."""
        table = Placement(self.placement, self.key)
        kind = Anywhere if anywhere else Places
        return kind(worker, worker_count, self.shard_count, table, Loads(self.loads), self.key)
