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
from fastrunner.base.clock import monotonic_s

__all__ = ["ACTIVE", "BACKLOG", "BACKLOG_PEAK", "BACKLOG_PEAK_AT_S", "BATCHED", "Anywhere", "Places"]

ACTIVE: Final = 0
"""Cell of a worker: executions it has accepted that have not ended."""
BACKLOG: Final = 1
"""Cell of a worker: executions it has taken up whose first commit has not landed."""

BACKLOG_PEAK: Final = 2
"""Cell of a worker: the most of those in the last some milliseconds; each commit that lands takes most of them away."""
BACKLOG_PEAK_AT_S: Final = 3
"""Cell of a worker: when that was, on the monotonic clock."""
BATCHED: Final = 4
"""Cell of a worker: executions of batches that it has been given and has not answered."""

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
        self._assigned = [0] * worker_count
        """Executions of batches that this worker has given to each, itself included, and that are not answered."""

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

    @property
    def workers(self) -> tuple[int, ...]:
        """Who has a part of the executions."""
        return tuple(range(self.worker_count))

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

    def are_new(self, messages: list[bytes]) -> bool:
        """Whether nobody has any of the executions that messages are about; of some that are new it may say no."""
        return not self.table.unknown(self.shard_count) and self.table.has_none(messages)

    def choose(self, count: int) -> int:
        """The worker that takes `count` new executions: this one, unless it has much to do and another far less.

        To hand a single one on takes a third of what it takes to accept it, and makes commits smaller; so that is for
        clients that reach one worker only, and hardly happens between workers that are all busy.
        """
        if self.worker_count == 1:
            return self.worker
        if count >= limits.PLACEMENT_BATCH_COUNT_MIN:
            return self._choose_for_batch(count)
        backlogs = self.loads.row(BACKLOG)
        own = backlogs[self.worker]
        if own < limits.PLACEMENT_BACKLOG_MIN:
            return self.worker
        # A commit that has just landed makes a busy worker look idle.
        peaks, ends_s = self.loads.row(BACKLOG_PEAK), self.loads.row(BACKLOG_PEAK_AT_S)
        since_s = monotonic_s() - limits.PLACEMENT_PEAK_AGE_S_MAX
        others = [
            max(backlog, peak) if at_s > since_s else backlog
            for backlog, peak, at_s in zip(backlogs, peaks, ends_s, strict=True)
        ]
        least = min(others)
        if own < limits.PLACEMENT_BACKLOG_MIN + 2 * least:
            return self.worker
        return others.index(least)

    def _choose_for_batch(self, count: int) -> int:
        """To hand on a batch takes one request: that is worth it whenever another has less by as much."""
        loads = [
            max(each) for each in zip(self.loads.row(BACKLOG), self.loads.row(BATCHED), self._assigned, strict=True)
        ]
        least = min(loads)
        if least + count > loads[self.worker]:
            return self.worker
        return loads.index(least)

    def assign(self, worker: int, count: int) -> None:
        """So many executions of a batch go to a worker; with a negative number they have been answered."""
        self._assigned[worker] += count
        if worker == self.worker:
            self.loads.set(worker, BATCHED, self._assigned[worker])


class Anywhere(Places):
    """Where executions are kept outside of the runner: every worker has all of them, and asks no other one."""

    @property
    def workers(self) -> tuple[int, ...]:
        """See Places."""
        return (self.worker,)

    def owners_of(self, execution_id: str) -> tuple[int, ...]:  # noqa: ARG002 - see Places
        """See Places."""
        return (self.worker,)

    def choose(self, count: int) -> int:  # noqa: ARG002 - see Places
        """See Places."""
        return self.worker
