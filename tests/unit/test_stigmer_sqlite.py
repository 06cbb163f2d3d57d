"""The Stigmer Service's store on SQLite: its file, its commits, and hands in it that are not the service's."""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner.base import limits
from fastrunner.engine.embedded.store.shared_file import SharedFile
from fastrunner.errors import AtCapacity, Damaged, IdTaken
from fastrunner.stigmer.store import Filter, Taken, WorkflowKey
from fastrunner.stigmer.store.sqlite import FILE_NAME, SqliteStore
from tests.unit.stigmer_stores import counted, findings, new, whole


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path, retention_s=3600.0)
    yield store
    await store.close()


def changed(folder: Path, *statements: str) -> None:
    """Has a hand in the file that is not the service's."""
    db = apsw.Connection(str(folder / FILE_NAME))
    for statement in statements:
        db.execute(statement)
    db.close()


async def test_a_damaged_document_is_told(store: SqliteStore, tmp_path: Path) -> None:
    await store.add_workflow(WorkflowKey("shop", "order", "1.9.0"), "text", 5)
    changed(tmp_path, "update workflows set document = 'damaged' where version = '1.9.0'")
    with pytest.raises(Damaged, match="restore a backup"):
        await store.find_workflow(WorkflowKey("shop", "order", "1.9.0"))


async def test_verify_finds_what_is_wrong(store: SqliteStore, tmp_path: Path) -> None:
    await store.take([*whole("lost"), *whole("status"), *whole("counted"), *whole("mixed"), *whole("torn")])
    changed(
        tmp_path,
        "delete from events where execution_id = 'lost' and sequence = 3",
        "update executions set status = 'running' where id = 'status'",
        "update counters set executions = executions + 1 where status = 'completed'",
        "update events set message = (select message from events where execution_id = 'torn' and sequence = 2)"
        " where execution_id = 'mixed' and sequence = 2",
        "update events set message = x'ff' where execution_id = 'torn' and sequence = 4",
        "insert into events values ('stray', 1, x'')",
    )
    found = await findings(store)
    assert {"gap lost", "fold status", "unreadable mixed", "unreadable torn", "stray stray"} <= set(found)
    assert "counter /order//completed" in found


async def test_a_commit_takes_what_waits_up_to_a_bound(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused write takes none of the others of its commit with it."""
    monkeypatch.setattr(limits, "STIGMER_COMMIT_EVENTS_MAX", 20)
    commits: list[int] = []
    written = SharedFile.written

    def counting(file: SharedFile, action: Any) -> Any:
        commits.append(1)
        return written(file, action)

    monkeypatch.setattr(SharedFile, "written", counting)
    await store.record(new("taken"))
    outcomes = await asyncio.gather(
        *(store.take(whole(f"e{number}")) for number in range(10)),
        store.record(new("taken", asked=b"other")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[-1], IdTaken)
    assert all(isinstance(each, Taken) for each in outcomes[:-1])
    # Two takes of eight events fit into a commit; the first one went alone.
    assert 5 <= len(commits) - 1 <= 7
    assert await counted(store) == {"pending": 1, "completed": 10}
    assert await findings(store) == []


@pytest.mark.parametrize("limit", ["STIGMER_WAITING_EVENTS_MAX", "STIGMER_WAITING_SIZE_BYTES_MAX"])
async def test_more_than_may_wait_is_refused(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    await store.take(whole("first"))
    monkeypatch.setattr(limits, limit, 20)
    with (tmp_path / FILE_NAME).with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # However many they are, those who come first are taken.
        waiting = asyncio.create_task(store.take(whole("second", 20)))
        await asyncio.sleep(0)
        with pytest.raises(AtCapacity, match="send it again later"):
            await store.take(whole("third"))
    assert (await waiting).stored == 44
    assert (await store.take(whole("third"))).stored == 8


async def test_a_store_of_the_first_schema_opens_and_lists_by_the_new_index(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, retention_s=3600.0)
    await store.take([*whole("e"), *whole("f")])
    await store.close()
    changed(
        tmp_path,
        "drop index executions_by_group",
        "create index executions_by_namespace on executions (namespace, number)",
        "pragma user_version = 1",
    )
    store = SqliteStore(tmp_path, retention_s=3600.0)
    assert [each.id for each in await store.page(Filter(name="order"), 0, 10)] == ["f", "e"]
    assert await findings(store) == []
    await store.close()
    db = apsw.Connection(str(tmp_path / FILE_NAME))
    [names] = zip(*db.execute("select name from sqlite_schema where name like 'executions_by_%'"), strict=True)
    assert set(names) == {"executions_by_group", "executions_by_status"}
    db.close()
