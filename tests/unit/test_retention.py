"""Which finished executions a shard deletes, and how many at a time."""

from pathlib import Path
from typing import Any, cast

from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.commit.retention import Retention
from fastrunner.engine.embedded.store.changes import Deletion
from fastrunner.engine.embedded.store.file import Store


class _Finished:
    """A store of finished executions, oldest first, all acknowledged."""

    def __init__(self, count: int) -> None:
        self.keys = list(range(count))

    def deletable(self, finished_before_ms: int, count_max: int) -> list[Deletion]:
        return [Deletion(key, 1, f"execution-{key}", 0) for key in self.keys if key < finished_before_ms][:count_max]

    def undeliverable(self, finished_before_ms: int, count_max: int) -> list[Deletion]:
        return []


def _retention(store: Any, **settings: Any) -> Retention:
    return Retention(cast(Store, store), Config(data_dir=Path("/nowhere"), **settings), Metrics())


def test_deletions_keep_up_with_what_finishes() -> None:
    store = _Finished(10_000)
    retention = _retention(store, retention_count=1_000)
    retention.finished_count = 10_000
    assert retention.wake(0)
    for finishing in (0, 400):
        taken = retention.take(0, finishing)
        assert len(taken) == finishing + limits.RETENTION_BATCH_EXECUTIONS_MAX
        retention.deleted(taken)
        del store.keys[: len(taken)]
    while taken := retention.take(0, 0):
        retention.deleted(taken)
        del store.keys[: len(taken)]
    assert retention.finished_count == len(store.keys) == 1_000
    assert not retention.wake(0)


def test_age_deletes_before_the_count_does() -> None:
    store = _Finished(50)
    retention = _retention(store, retention_count=100, retention_s=1.0)
    retention.finished_count = 50
    assert not retention.wake(1_000)
    assert retention.wake(1_020)
    assert [deletion.execution_key for deletion in retention.take(1_020, 0)] == list(range(20))
