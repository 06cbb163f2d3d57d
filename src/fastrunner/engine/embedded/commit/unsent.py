"""Stage 3, journal: what lifecycle sinks are still to be sent keeps its executions from being deleted, for a while.

Theory of operation: whoever sends (`events/lifecycle`) tells up to which row of events every sink has everything. An
execution with a later row stays; one that ended longer ago than the outbox keeps events goes all the same, and what is
lost with it is counted.

Rule: where no sink is configured nothing is asked of the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson

from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.engine.embedded.store.changes import Deletion
from fastrunner.engine.embedded.store.file import Store
from fastrunner.errors import ShardDamaged

__all__ = ["Unsent"]


class Unsent:
    """The rows of events of one shard that some lifecycle sink does not have."""

    def __init__(self, store: Store, config: Config) -> None:
        self.sent_key: int | None = None if config.lifecycle_sinks is None else 0
        """Every sink has the rows up to this one; None: there are no sinks."""
        self._store = store
        self._age_ms_max = int(max(config.retention_s, limits.OUTBOX_AGE_S_MAX) * 1000)

    def without_wanted(self, deletions: Sequence[Deletion], now_ms: int) -> list[Deletion]:
        """Those of them that may go, with what sinks lose by it. Raises Unavailable."""
        if self.sent_key is None or not deletions:
            return [*deletions]
        wanted = self._wanted([each.execution_key for each in deletions])
        oldest_ms = now_ms - self._age_ms_max
        found = []
        for deletion in deletions:
            finished_ms, count = wanted.get(deletion.execution_key, (0, 0))
            if not count:
                found.append(deletion)
            elif finished_ms < oldest_ms:
                found.append(replace(deletion, unsent_count=count))
        return found

    def _wanted(self, execution_keys: Sequence[int]) -> Mapping[int, tuple[int, int]]:
        """When those ended of which some sink lacks events, and how many those are."""
        assert self.sent_key is not None, "there are sinks"
        try:
            rows = self._store.unsent(orjson.dumps(execution_keys).decode(), self.sent_key)
        except ShardDamaged:
            # What cannot be read is not sent either, and must not stay for ever.
            return {}
        return {key: (finished_ms, count) for key, finished_ms, count in rows}
