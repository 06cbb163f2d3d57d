"""Stage 1, routing: where executions live, as one worker sees it, and which worker takes a new one.

An execution lives in a shard of the worker that accepted it. A table in memory that all workers share says in which
shards an id may live; whether it does, only the shard's owner can say. What the workers tell each other about
themselves lies beside it.

Rules: an id is claimed before its execution is written and released when it is refused or deleted; who loses a claim
asks the one who has it. Nothing here is durable: a shard's owner settles the table by its file when it opens it.
"""

import os
from typing import Final, Self

from fastrunner._wire import Loads, Placement
from fastrunner.base import limits

__all__ = ["ACTIVE", "BACKLOG", "Places"]

ACTIVE: Final = 0
"""Cell of a worker: executions it has accepted that have not ended."""
BACKLOG: Final = 1
"""Cell of a worker: executions it has taken up whose first commit has not landed."""

_KEY_ALONE: Final = bytes(16)


class Places:
    """What one worker knows of where executions live."""

    def __init__(
        self, worker: int, worker_count: int, shard_count: int, table: Placement, loads: Loads, key: bytes
    ) -> None:
        """There are at least as many shards as workers; `key` is the table's."""
        self.worker = worker
        """Number of this worker."""
        self.worker_count = worker_count
        """Of the runner."""
        self.shard_count = shard_count
        """Of the data directory."""
        self.shards = tuple(range(worker, shard_count, worker_count))
        """This worker's shards; it accepts into the first."""
        self.table = table
        """Shards by execution id."""
        self.key = key
        """What ids are hashed with in the table."""
        self.loads = loads
        """Cells of every worker."""

    @classmethod
    def alone(cls, shard_count: int = 1) -> Self:
        """Those of a runner with one worker."""
        placement, loads = Placement.create(), Loads.create(1)
        try:
            return cls(0, 1, shard_count, Placement(placement, _KEY_ALONE), Loads(loads), _KEY_ALONE)
        finally:
            # What is mapped stays; nobody else maps it.
            os.close(placement)
            os.close(loads)

    def owner_of(self, shard: int) -> int:
        """The worker that owns a shard."""
        return shard % self.worker_count

    def owners_of(self, execution_id: str) -> tuple[int, ...]:
        """The workers to ask about an execution, hardly ever more than one, this one first; none if nobody has it."""
        shards = self.table.find(execution_id)
        if not shards:
            # What the table does not know may be where it has not been told of yet.
            shards = self.table.unknown(self.shard_count)
            if not shards:
                return ()
        if len(shards) == 1:
            return (shards[0] % self.worker_count,)
        return tuple(
            sorted({self.owner_of(shard) for shard in shards}, key=lambda owner: (owner != self.worker, owner))
        )

    def choose(self, count: int) -> int:
        """The worker that takes `count` new executions: this one, unless it has much to do and another far less."""
        if self.worker_count == 1:
            return self.worker
        backlogs = self.loads.row(BACKLOG)
        own = backlogs[self.worker]
        least = min(backlogs)
        if own < limits.PLACEMENT_BACKLOG_MIN or least + count > own:
            return self.worker
        return backlogs.index(least)
