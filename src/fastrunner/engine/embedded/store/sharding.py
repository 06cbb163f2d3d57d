"""Stage 3, journal: which shard an execution lives in, and which worker owns a shard.

Rule: the shard count is fixed with the data directory, the worker count is not; so an id decides its shard for ever,
and the owner only as long as the process tree lives.
"""

from zlib import crc32

__all__ = ["owner_of", "shard_of", "shards_owned"]


def shard_of(execution_id: str, shard_count: int) -> int:
    """The shard of an execution, 0 to `shard_count` - 1."""
    return crc32(execution_id.encode()) % shard_count


def owner_of(shard: int, worker_count: int) -> int:
    """The worker that owns a shard, 0 to `worker_count` - 1."""
    return shard % worker_count


def shards_owned(worker: int, worker_count: int, shard_count: int) -> tuple[int, ...]:
    """The shards a worker owns, ascending; empty for workers beyond the shard count."""
    return tuple(range(worker, shard_count, worker_count))
