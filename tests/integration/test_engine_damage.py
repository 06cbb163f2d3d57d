"""The embedded engine over a damaged file: what is damaged is named and ends, nothing else notices, no event is
missing."""

import asyncio
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.data.inspection import shard_files
from fastrunner.engine import ExecutionQuery, UnacknowledgedEvents
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.store.changes import Change
from fastrunner.errors import Damaged, RunnerError, ShardDamaged, WrongState
from fastrunner.progress.wire import split
from tests.integration.engines import (
    CALL,
    SET,
    WAIT,
    Performer,
    all_events,
    assert_whole,
    document,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)

OTHER = document("  - rest:\n      wait: {milliseconds: 300}\n", name="other")


def _damage(path: Path, statement: str) -> None:
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        db.execute(statement)
        assert db.changes() == 1


def _sequences(rows: list[UnacknowledgedEvents]) -> list[int]:
    return [
        WorkflowProgressEvent.FromString(message).sequence_number for row in rows for message in split(row.messages)
    ]


def _damage_types(path: Path, table: str, change: str) -> None:
    """Changes the first row of a table as no statement could: to values of types its columns do not have."""
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        strict = db.execute("select sql from sqlite_schema where name = ?", (table,)).get
    for schema in (strict.replace(" strict", "").replace(" not null", ""), strict):
        with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
            if schema is strict:
                db.execute(f"update {table} set {change} where rowid = 1")
                assert db.changes() == 1
            db.execute("pragma writable_schema = on")
            db.execute("update sqlite_schema set sql = ? where name = ?", (schema, table))


async def _damaged_count(engine: EmbeddedEngine, table: str) -> float:
    return float(engine._metrics.damaged_records.labels(table).value)


@pytest.mark.parametrize(
    ("table", "statement"),
    [
        ("snapshots", "update snapshots set snapshot = cast(snapshot || x'00' as blob) where execution_key = 1"),
        ("snapshots", "delete from snapshots where execution_key = 1"),
        ("requests", "update requests set input_json = '{\"a\":2}' where execution_key = 1"),
        ("requests", "delete from requests where execution_key = 1"),
        ("plans", "update plans set document = document || ' ' where plan_key = 1"),
        ("plans", "delete from plans where plan_key = 1"),
    ],
)
async def test_execution_that_is_damaged_fails_and_the_others_go_on(
    table: str, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder()
    async with engine_on(path, listener=lambda row: None) as engine:
        await engine.submit(submission("damaged", WAIT, input_json=b'{"a":1}'))
        await engine.submit(submission("whole", OTHER))
    _damage(path, statement.replace("'{\"a\":2}'", "cast('{\"a\":2}' as blob)"))
    async with engine_on(path, listener=lambda row: None) as engine:
        view = await until_status(engine, "damaged", "failed")
        assert view.error is not None
        assert (view.error["status"], view.error["title"]) == (500, "Runtime Error")
        assert "damaged" in view.error["detail"]
        await assert_whole(engine, "damaged", "workflow_failed")
        assert (await all_events(engine, "damaged"))[-1].error.code == "SYSTEM_ERROR"
        await until(lambda: "damaged" not in engine._shards.by_number[0].live, "its end to be told")
        with pytest.raises(WrongState):
            await engine.cancel("damaged", "", True)
        await until_status(engine, "whole", "completed")
        assert await _damaged_count(engine, table) == 1
        assert await engine.submit(submission("after", WAIT)) == "running"
    assert f"table {table}" in caplog.text
    if table == "plans":
        # The document has come again with a new request.
        async with engine_on(path) as engine:
            await until_status(engine, "after", "completed")


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("executions", "plan_key = null"),
        ("executions", "accepted_ms = 'long ago'"),
        ("executions", "request_digest = 7"),
        ("executions", "status = x'00'"),
        ("executions", "last_sequence = 'many'"),
        ("executions", "finished_ms = null"),
        ("executions", "error_json = '{'"),
        ("executions", "error_json = cast(x'ff' as text)"),
        ("executions", "metadata = null"),
        ("executions", "format = 0"),
        ("executions", "format = 2, output_json = 'x'"),
        ("requests", "client = null"),
        ("requests", "client = cast(x'ff' as text)"),
        ("requests", "input_json = 'text'"),
        ("requests", "env_json = null"),
        ("snapshots", "snapshot = 7"),
        ("plans", "document = x'00'"),
        ("plans", "version = x'00'"),
        ("plans", "hash = null"),
    ],
)
async def test_row_with_values_of_wrong_types_is_damage_to_it_alone(
    table: str, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder()
    async with engine_on(path, listener=lambda row: None) as engine:
        await engine.submit(submission("damaged", WAIT))
        await engine.submit(submission("whole", OTHER))
    _damage_types(path, table, change)
    findings = list(shard_files(path, 1)[0].check(lambda count: None))
    assert any(finding.table in (table, "file") for finding in findings)
    exported = {fields["execution_id"] for fields in shard_files(path, 1)[0].export(ExecutionQuery(), True)}
    assert {"whole"} <= exported <= {"whole", "damaged"}
    async with engine_on(path, listener=lambda row: None) as engine:
        await until_status(engine, "whole", "completed")
        await engine.outbox.unacknowledged(None, 100)
        for asked in (
            engine.get("damaged"),
            engine.events("damaged", 1, 100),
            engine.submit(submission("damaged", WAIT)),
            engine.cancel("damaged", "", True),
        ):
            with suppress(RunnerError):
                await asyncio.wait_for(asked, 10)
        listed = {view.execution_id for view in (await engine.list(ExecutionQuery())).items}
        assert {"whole"} <= listed <= {"whole", "damaged"}
        assert await engine.submit(submission("after", WAIT)) == "running"
        await assert_whole(engine, "whole", "workflow_completed")
    assert "Traceback" not in caplog.text


async def test_execution_that_cannot_be_read_is_refused_as_damaged() -> None:
    path = folder()
    async with engine_on(path, listener=lambda row: None) as engine:
        await engine.submit(submission("damaged", WAIT))
    _damage_types(path, "executions", "accepted_ms = 'long ago'")
    async with engine_on(path, listener=lambda row: None) as engine:
        for command in (engine.cancel("damaged", "", True), engine.pause("damaged", "")):
            with pytest.raises(Damaged, match=r"what is stored of execution 'damaged' is damaged: restore"):
                await command


@pytest.mark.parametrize(
    "statement",
    [
        "update events set messages = zeroblob(length(messages)) where event_key = 1",
        "update events set messages = x'' where event_key = 1",
        "update events set checksum = checksum + 1 where event_key = 1",
        "delete from events where event_key = 1",
        "update events set last_sequence = 1000000000 where event_key = 1",
        "update events set first_sequence = 1000000000 where event_key = 1",
        "update events set format = 0 where event_key = 1",
    ],
)
async def test_events_that_are_damaged_leave_no_gap(statement: str) -> None:
    path = folder()
    async with engine_on(path, listener=lambda row: None) as engine:
        await engine.submit(submission("a", CALL))
        await engine.submit(submission("b", SET))
    _damage(path, statement)
    performer = Performer()
    performer.gate.set()
    async with engine_on(path, performer, listener=lambda row: None) as engine:
        await until_status(engine, "a", "completed")
        types = await assert_whole(engine, "a", "workflow_completed")
        assert "event_damaged" in types
        await assert_whole(engine, "b", "workflow_completed")
        last = (await engine.get("a")).last_sequence
        rows = await engine.outbox.unacknowledged(None, 100)
        assert _sequences([row for row in rows if row.execution_id == "a"]) == list(range(1, last + 1))
        assert _sequences(await engine.outbox.unacknowledged_of("a", 1, 10**6)) == list(range(1, last + 1))
        followed = [WorkflowProgressEvent.FromString(each) async for each in engine.subscribe("a", 1)]
        assert [event.sequence_number for event in followed] == list(range(1, last + 1))
        assert await _damaged_count(engine, "events") >= 1


async def test_last_event_that_is_damaged_still_tells_how_it_ended() -> None:
    path = folder()
    async with engine_on(path, listener=lambda row: None) as engine:
        await engine.submit(submission("a", SET))
    _damage(path, "update events set messages = x'00' where event_key = 1")
    async with engine_on(path, listener=lambda row: None) as engine:
        types = await assert_whole(engine, "a", "workflow_completed")
        assert set(types[:-1]) == {"event_damaged"}
        assert await all_events(engine, "a") == await all_events(engine, "a")


async def test_result_that_is_damaged_is_not_handed_out() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("a", SET))
    _damage(path, "update executions set output_json = '{}' where execution_key = 1")
    async with engine_on(path) as engine:
        with pytest.raises(Damaged, match="'a' is damaged"):
            await engine.get("a")


def _spoiling(key: int, spoil: Callable[[Change], Change]) -> Callable[[Execution, int], Change]:
    gather = Execution.gather

    def spoiled(execution: Execution, now_ms: int) -> Change:
        change = gather(execution, now_ms)
        return spoil(change) if execution.execution_key == key else change

    return spoiled


async def test_change_that_no_disk_would_take_fails_its_execution_only(monkeypatch: pytest.MonkeyPatch) -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("poison", CALL))
        await engine.submit(submission("whole", CALL))
        await until(lambda: len(performer.performed) == 2, "the effects to start")
        spoiled = _spoiling(1, lambda change: replace(change, output_json="\ud800", status="completed"))
        monkeypatch.setattr(Execution, "gather", spoiled)
        performer.gate.set()
        view = await until_status(engine, "poison", "failed")
        assert view.error is not None
        assert "cannot store" in view.error["detail"]
        await assert_whole(engine, "poison", "workflow_failed")
        await until_status(engine, "whole", "completed")
        await until(lambda: engine._shards.by_number[0].unfinished_count == 0, "the last commit to be told")
        assert await engine.submit(submission("after")) == "running"


async def test_request_that_no_disk_would_take_is_refused_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with engine_on(folder()) as engine:
        spoiled = _spoiling(2, lambda change: replace(change, snapshot="not bytes"))  # type: ignore[arg-type]
        monkeypatch.setattr(Execution, "gather", spoiled)
        futures = [engine.submit(submission(f"execution-{number}", WAIT)) for number in range(1, 4)]
        assert await futures[0] == "running"
        with pytest.raises(RuntimeError, match="cannot store"):
            await futures[1]
        assert await futures[2] == "running"
        assert engine._shards.by_number[0].unfinished_count == 2
        assert engine._shards.by_number[0].refusal is None


async def test_nobody_waits_for_a_shard_that_cannot_be_written() -> None:
    """No disk that comes back has it written: commands and deletions are answered as new executions are."""
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("waits", WAIT.replace("200", "3600000")))
        await engine.submit(submission("ended", SET))
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        page = db.execute("select rootpage from sqlite_schema where name = 'events_sequence'").get
    with (path / "shard-0000.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    async with engine_on(path) as engine:
        asked = [engine.pause("waits", ""), engine.submit(submission("new", SET)), engine.delete("ended")]
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
        assert [*map(type, answers)] == [ShardDamaged] * 3
        again = [engine.pause("waits", ""), engine.resume("waits", ""), engine.cancel("waits", "", True)]
        for each in [*again, engine.delete("ended"), engine.submit(submission("new", SET))]:
            with pytest.raises(ShardDamaged, match=r"shard-0000\.db is damaged"):
                await asyncio.wait_for(each, 10)
        assert (await engine.get("ended")).status == "completed"
