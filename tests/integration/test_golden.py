"""Files of released versions: they open, everything in them goes on, and this version still writes its own format."""

import asyncio
import gzip
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import clock
from fastrunner.engine import ExecutionQuery
from fastrunner.engine.embedded.store import proofs
from fastrunner.engine.embedded.store.file import Store
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused
from fastrunner.engine.embedded.store.statements import SCHEMA_VERSION
from fastrunner.tracing.span import Span
from tests.golden import make
from tests.integration.engines import Performer, all_events, assert_whole, engine_on, folder, send, until_status

VERSIONS = sorted(int(path.name.split("-v")[1].split(".")[0]) for path in make.FOLDER.glob("shard-v*.db.gz"))


_CALLED = {"method": "GET", "uri": "http://127.0.0.1:1/x", "output": "content", "redirect": False}
_POSTED = _CALLED | {"method": "POST", "uri": "http://127.0.0.1:1/y"}
ASKED = [
    ("calling/do/0/ask/1/1", _CALLED),
    ("posting/do/0/each/do/0/send/1/1", _POSTED | {"body": {"item": 1, "all": {"a": [1, 2.5], "x": "y"}}}),
    (
        "posting/do/0/each/do/0/send/2/1",
        _POSTED | {"uri": "http://127.0.0.1:1/", "body": {"item": 2.5, "all": {"answer": 42}}},
    ),
]
"""What is performed after a start on a file: key and arguments."""


def _asked(performer: Performer) -> list[tuple[str, Any]]:
    keys = [effect.idempotency_key for effect in performer.performed]
    return sorted(zip(keys, performer.arguments, strict=True))


def _unpacked(version: int) -> Path:
    path = folder()
    with gzip.open(make.FOLDER / f"shard-v{version}.db.gz") as source, (path / "shard-0000.db").open("wb") as target:
        shutil.copyfileobj(source, target)
    return path


_KILLED = """
import os, signal, sqlite3, sys
golden, path = map(sqlite3.connect, sys.argv[1:])
path.execute("pragma page_size = %d" % golden.execute("pragma page_size").fetchone())
path.execute("pragma journal_mode = wal")
path.execute("pragma wal_autocheckpoint = 0")
golden.backup(path)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _left_in_the_journal(version: int) -> Path:
    """The same, all of it in the journal that Python's own SQLite has written and could not fold in: it was killed."""
    golden, path = _unpacked(version), folder()
    command = [sys.executable, "-c", _KILLED, str(golden / "shard-0000.db"), str(path / "shard-0000.db")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    size_bytes = (golden / "shard-0000.db").stat().st_size
    assert (path / "shard-0000.db-wal").stat().st_size > size_bytes > (path / "shard-0000.db").stat().st_size
    assert (path / "shard-0000.db-shm").exists()
    return path


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        return db.execute(query).fetchall()


def test_every_version_has_a_golden_file() -> None:
    assert list(range(1, SCHEMA_VERSION + 1)) == VERSIONS


@pytest.mark.parametrize("left", [_unpacked, _left_in_the_journal])
@pytest.mark.parametrize("version", VERSIONS)
async def test_file_of_any_version_opens_and_everything_in_it_goes_on(
    version: int, left: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = left(version)
    performer = Performer()
    performer.gate.set()
    ahead_ms = make.NOW_MS - clock.wall_ms()
    async with engine_on(
        path, performer, listener=lambda row: None, wall_ms=lambda: clock.wall_ms() + ahead_ms
    ) as engine:
        finished = await engine.get("finished")
        assert (finished.status, finished.output_json, finished.acknowledged_sequence) == ("completed", '{"b":2}', 3)
        assert finished.metadata == b"\x0a\x00"
        assert (await engine.get("failed")).error is not None
        assert (await until_status(engine, "calling", "completed")).output_json == '{"kept":true}'
        if version >= 8:
            assert (await until_status(engine, "parent", "completed")).output_json == '{"kept":true}'
            assert (await engine.get("parent~1")).parent_id == "parent"
        if version >= 9:
            assert (await until_status(engine, "far", "completed")).output_json == '{"far":true}'
        await until_status(engine, "waiting", "completed")
        assert (await engine.get("paused")).status == "paused"
        if version >= 7:
            labelled = (await engine.list(ExecutionQuery(labels=(("order", "7"), ("team", "a"))))).items
            assert [view.execution_id for view in labelled] == ["paused"]
            assert labelled[0].document_metadata_json == '{"owner":{"name":"Ada"}}'
            assert (await engine.get("waiting")).given_up_events > 0
        await engine.resume("paused", "")
        await until_status(engine, "paused", "completed")
        if version >= 11:
            assert (await engine.get("told")).status == "paused"
            await engine.resume("told", "")
            assert (await until_status(engine, "told", "completed")).output_json == '[{"n":1}]'
            await send(engine, {"id": "later", "data": {"n": 2}})
            assert (await until_status(engine, "hearing", "completed")).output_json == '[{"n":2}]'
        if version >= 12:
            assert _rows(path, "select trace from executions where execution_id = 'traced'") == [
                (f"{make.TRACED.parent} {make.NOW_MS} {make.TRACED.state}",)
            ]
            spans = [Span.decoded(row[0]) for row in _rows(path, "select span from spans")]
            told = [] if version >= 13 else ["execute tests/test"]
            assert sorted(span.name for span in spans) == ["accept", *told]
            # What has no row, the execution's own tells; what was written by an earlier version has one.
            rows = _rows(path, "select coalesce(max(event_key), 0) from spans_told")
            assert rows == [(0,)] if version >= 13 else rows > [(0,)]
        if version >= 4:
            await until_status(engine, "posting", "completed")
        if version >= 3:
            large = await until_status(engine, "large", "completed")
            assert large.output_json == (await engine.get("result")).output_json
            await assert_whole(engine, "large", "workflow_completed")
        for execution_id in ("finished", "calling", "waiting", "paused", "last"):
            await assert_whole(engine, execution_id, "workflow_completed")
        await assert_whole(engine, "failed", "workflow_failed")
        assert not any("damaged" in event.event_type for event in await all_events(engine, "finished"))
        if version >= 4:
            await assert_whole(engine, "posting", "workflow_completed")
        asked = [each for each in _asked(performer) if not each[0].startswith("parent~")]
        assert asked == ASKED[: len(ASKED) if version >= 4 else 1]
    assert "journal" not in caplog.text
    assert _rows(path, "pragma user_version") == [(SCHEMA_VERSION,)]
    assert _rows(path, "pragma integrity_check") == [("ok",)]


COMPARED = (
    "select * from plans order by plan_key",
    "select * from executions order by execution_key",
    "select * from requests order by execution_key",
    "select * from snapshots order by execution_key",
    "select * from large_values order by hash",
    "select * from claims order by execution_key, hash",
    "select * from labels order by name, value, execution_key",
    "select * from orders order by execution_key",
    "select * from events order by event_key",
    "select * from feed",
    "select * from spans order by span_id",
    "select sql from sqlite_schema order by name",
)


def test_rows_of_this_version_are_written_as_its_golden_file_has_them(tmp_path: Path) -> None:
    """Snapshots, events and checksums byte for byte: a change of a format needs a version and a file of its own.

    On a busy machine a commit may come between two slices of `large`, whose state is then divided otherwise.
    """
    golden = _unpacked(SCHEMA_VERSION)
    wanted = [_rows(golden, query) for query in COMPARED]
    for attempt in range(3):
        path = tmp_path / str(attempt)
        path.mkdir()
        asyncio.run(make.fill(path))
        written = [_rows(path, query) for query in COMPARED]
        if written == wanted:
            break
    assert written == wanted


def test_checksums_are_what_they_were() -> None:
    assert proofs.events_checksum(7, 1, 2, b"\x0a\x00\x0a\x00") == 304386875
    assert proofs.request_checksum(7, True, b'{"a":1}', b"{}", "") == 2628846248
    assert proofs.execution_checksum(7, "completed", 5, 9, None, "{}") == 1076529185


def test_killed_migration_leaves_the_version_before(tmp_path: Path) -> None:
    path = _unpacked(1) / "shard-0000.db"
    with closing(apsw.Connection(str(path))) as db:
        # What the script of version 2 has to add is there already, so it fails half way.
        db.execute("alter table requests add column format integer not null default 0")
    with pytest.raises(DataDirectoryRefused, match="cannot be opened: duplicate column name: format"):
        Store(path, outbox=True).open()
    assert _rows(path.parent, "pragma user_version") == [(1,)]
    assert "checksum" not in {row[1] for row in _rows(path.parent, "pragma table_info(events)")}


def test_stand_ins_are_the_same_whenever_they_are_made() -> None:
    facts = proofs.EventFacts("failed", 1, 2, 3, "w", '{"type":"t","status":418,"title":"T","detail":"D"}')
    one, two = proofs.stand_in_events("a", facts, 2, 3), proofs.stand_in_events("a", facts, 2, 3)
    assert one == two
    last = WorkflowProgressEvent.FromString(one[one.rindex(b"\x0a\x01a") :])
    assert (last.event_type, last.sequence_number, last.error.status) == ("workflow_failed", 3, 418)
