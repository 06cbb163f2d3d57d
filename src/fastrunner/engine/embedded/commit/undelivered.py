"""Stage 3, journal: what of a worker's shards no receiver has, as one sequence.

Rule: a shard that cannot be read holds up the callbacks of no other.
"""

import asyncio
import heapq
from collections.abc import Sequence

from fastrunner.engine import UnacknowledgedEvents
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.errors import ShardDamaged

__all__ = ["undelivered"]


async def undelivered(shards: Sequence[Shard], after: tuple[str, int], rows_max: int) -> list[UnacknowledgedEvents]:
    """A page of rows that are still to be sent, by (execution id, first sequence), strictly after such a pair."""
    pages = []
    for shard in shards:
        try:
            pages.append(shard.store.unacknowledged(after, rows_max))
        except ShardDamaged:
            # Logged by the store.
            continue
        await asyncio.sleep(0)
    merged = heapq.merge(*pages, key=lambda row: (row.execution_id, row.first_sequence))
    return [row for row, _ in zip(merged, range(rows_max), strict=False)]
