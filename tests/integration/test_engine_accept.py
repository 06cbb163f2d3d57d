"""The embedded engine accepts: durability, idempotency, refusals, group commit, queries."""

import asyncio
from contextlib import closing

import apsw
import pytest

from fastrunner.base import limits
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.errors import AtCapacity, DocumentRefused, IdTaken, Unavailable, UnknownExecution
from tests.integration.engines import (
    CALL,
    SET,
    WAIT,
    Performer,
    assert_whole,
    engine_on,
    events_of,
    folder,
    submission,
    until_status,
)


async def test_workflow_without_effects_is_accepted_executed_and_finished_in_one_commit() -> None:
    path = folder()
    async with engine_on(path) as engine:
        assert await engine.submit(submission("one")) == "running"
        view = await engine.get("one")
    assert (view.status, view.output_json, view.finished_ms > 0) == ("completed", '{"b":2}', True)
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        assert db.execute("select count(*) from events").fetchone() == (1,)
        assert db.execute("select count(*) from snapshots").fetchone() == (0,)
        assert db.execute("select count(*) from requests").fetchone() == (0,)


async def test_view_shows_names_metadata_and_times() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", metadata=b"\x0a\x01x"))
        view = await engine.get("one")
    assert (view.namespace, view.name, view.version, view.metadata) == ("tests", "test", "1.0.0", b"\x0a\x01x")
    assert view.accepted_ms <= view.finished_ms
    # Nobody listens: nothing is acknowledged, and nothing is still to be sent.
    assert view.last_sequence == view.given_up_events > 0
    assert view.acknowledged_sequence == 0


async def test_same_request_again_gets_the_first_answer_again() -> None:
    path = folder()
    performer = Performer()
    first = submission("one", CALL, input_json=b'{"a": 1, "b": 2}')
    async with engine_on(path, performer) as engine:
        again = submission("one", CALL, input_json=b'{"b":2,"a":1}')
        assert list(await asyncio.gather(engine.submit(first), engine.submit(again))) == ["running", "running"]
        performer.gate.set()
        await until_status(engine, "one", "completed")
        assert await engine.submit(first) == "running"
        assert len(performer.performed) == 1
        await assert_whole(engine, "one", "workflow_completed")
    async with engine_on(path, performer) as engine:
        assert await engine.submit(first) == "running"
        assert len(performer.performed) == 1


async def test_same_id_with_another_request_is_refused() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", CALL))
        for other in (
            submission("one", SET),
            submission("one", CALL, input_json=b"1"),
            submission("one", CALL, env_vars={"a": "b"}),
            submission("one", CALL, timeout_s_max=9),
        ):
            with pytest.raises(IdTaken):
                await engine.submit(other)
        await engine.submit(submission("two"))
        with pytest.raises(IdTaken):
            await engine.submit(submission("two", CALL))


async def test_document_that_does_not_validate_is_refused_and_leaves_nothing() -> None:
    async with engine_on(folder()) as engine:
        with pytest.raises(DocumentRefused) as refusal:
            await engine.submit(submission("one", "document: {}\n"))
        assert refusal.value.problems
        with pytest.raises(UnknownExecution):
            await engine.get("one")
        assert await engine.submit(submission("one")) == "running"


async def test_more_unfinished_executions_than_the_bound_are_refused() -> None:
    performer = Performer()
    async with engine_on(folder(), performer, executions_max=2) as engine:
        await engine.submit(submission("one", CALL))
        await engine.submit(submission("two", CALL))
        with pytest.raises(AtCapacity) as refusal:
            await engine.submit(submission("three", CALL))
        assert refusal.value.retry_after_s > 0
        performer.gate.set()
        await until_status(engine, "one", "completed")
        await until_status(engine, "two", "completed")
        assert await engine.submit(submission("three")) == "running"


async def test_draining_engine_refuses_new_executions_and_commits_what_it_has() -> None:
    path = folder()
    performer = Performer()
    async with engine_on(path, performer, drain_timeout_s=10) as engine:
        await engine.submit(submission("one", CALL))
        draining = asyncio.ensure_future(engine.drain(10))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await engine.submit(submission("two"))
        performer.gate.set()
        await draining
        assert performer.closed
        with pytest.raises(Unavailable):
            await engine.submit(submission("two"))
    async with engine_on(path) as engine:
        await until_status(engine, "one", "completed")


async def test_a_thousand_executions_are_committed_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder()
    # However slow the machine is.
    monkeypatch.setattr(limits, "ADMISSION_BURST_COUNT_MAX", 1_001)
    announced: list[UnacknowledgedEvents] = []
    async with engine_on(path, shards=2, listener=announced.append) as engine:
        ids = [f"execution-{number}" for number in range(1_000)]
        answers = await asyncio.gather(*(engine.submit(submission(each)) for each in ids))
        assert set(answers) == {"running"}
        metrics = engine._metrics
        assert metrics.commit_executions.count < 500
        assert len(announced) == 1_000
        for each in ids[::100]:
            await assert_whole(engine, each, "workflow_completed")
        assert metrics.executions_accepted.value == 1_000


async def test_events_are_given_from_a_sequence_number_on() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", WAIT))
        await until_status(engine, "one", "completed")
        every = await engine.events("one", 0, 1_000)
        assert await engine.events("one", 1, 1_000) == every
        for start in range(1, len(every) + 2):
            assert await engine.events("one", start, 1_000) == every[start - 1 :]
        assert await engine.events("one", 3, 2) == every[2:4]
        assert (await events_of(engine, "one"))[:3] == ["workflow_started", "workflow_validating", "workflow_validated"]
        with pytest.raises(UnknownExecution):
            await engine.events("nobody", 1, 10)
