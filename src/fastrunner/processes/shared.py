"""Support: the memory that the workers of one runner share: where executions live, and what each has to do.

Rules: the supervisor makes it before it forks, and it outlives every worker: what a killed one has claimed is there for
its successor. No grpc, no thread and no event loop here.
"""

from dataclasses import dataclass
from typing import Self

from fastrunner._wire import Loads, Placement
from fastrunner.access.sealing import DataKeys
from fastrunner.routing.placement import Places


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
    data_keys: DataKeys | None = None
    """What seals what is stored there; None if it is not sealed."""

    @classmethod
    def create(cls, workers: int, shard_count: int, key: bytes, data_keys: DataKeys | None = None) -> Self:
        """New memory, for so many workers. Raises OSError."""
        return cls(Placement.create(), Loads.create(workers), key, shard_count, data_keys)

    def places(self, worker: int, worker_count: int) -> Places:
        """What one worker sees of it."""
        table = Placement(self.placement, self.key)
        return Places(worker, worker_count, self.shard_count, table, Loads(self.loads), self.key)
