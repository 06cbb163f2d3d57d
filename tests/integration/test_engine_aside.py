"""The embedded engine and executions that are set aside: what their walks make up for when they come back."""

import asyncio
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from fastrunner.base import clock, limits
from fastrunner.base.deaths import Death
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.marks import Marks, Standing
from tests.integration.engines import (
    CALL,
    WAIT,
    Performer,
    all_events,
    assert_whole,
    document,
    engine_on,
    events_of,
    folder,
    submission,
    until,
    until_status,
)

SLOW = document("  - rest:\n      wait: {milliseconds: 1}\n  - again:\n      wait: {hours: 1}\n")
LIMITED = document("  - rest:\n      wait: {hours: 1}\n      timeout: {after: {milliseconds: 1500}}\n")


def condemn(path: Path, key: int = 1) -> None:
    """Workers have died in turns of an execution of a shard that nobody has open, as often as they may."""
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        row = db.execute(
            "select execution_id, accepted_ms, last_sequence from executions where execution_key = ?", (key,)
        ).get
    marks = Marks(path / "shard-0000.marks")
    marks.open()
    for _ in range(limits.DEATHS_IN_TURN_MAX):
        marks.begin(key, 0.0)
        assert marks.judge(Death("SIGSEGV", 0.0), lambda _: Standing(*row)) is not None


def figures(engine: EmbeddedEngine) -> tuple[int, int]:
    return engine._active_count, engine._parked_count


async def test_walk_makes_up_for_what_was_told_in_its_place() -> None:
    """However often: numbers go on without a gap, and every step is taken once."""
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", SLOW))
        await until_status(engine, "x", "running")
        await until(lambda: figures(engine) == (1, 1), "the long wait")
    for _ in range(3):
        condemn(path)
        async with engine_on(path) as engine:
            view = await until_status(engine, "x", "paused")
            assert view.error is not None
            assert view.error["title"] == "Paused by the runner"
            assert figures(engine) == (1, 1)
            assert "x" not in engine._shards.by_number[0].live
            await engine.pause("x", "")
            await engine.resume("x", "try again")
            assert (await engine.get("x")).error is None
            await until(lambda: "x" in engine._shards.by_number[0].live, "it to come back")
            await until(lambda: figures(engine) == (1, 1), "it to wait again")
    async with engine_on(path) as engine:
        await engine.cancel("x", "", force=False)
        types = await assert_whole(engine, "x", "workflow_cancelled")
    assert types.count("workflow_paused") == types.count("workflow_resumed") == 3
    assert types.count("task_completed") == 1


async def test_time_aside_counts_for_no_timeout() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", LIMITED))
    condemn(path)
    async with engine_on(path) as engine:
        await until_status(engine, "x", "paused")
        await asyncio.sleep(1.6)
        await engine.resume("x", "")
        await asyncio.sleep(1.0)
        assert (await engine.get("x")).status == "running"
        await until_status(engine, "x", "failed")
        await assert_whole(engine, "x", "workflow_failed")


async def test_wait_that_ended_meanwhile_goes_on_at_once() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", WAIT))
    condemn(path)
    async with engine_on(path, wall_ms=lambda: clock.wall_ms() + 300) as engine:
        await until_status(engine, "x", "paused")
        await engine.resume("x", "")
        await until_status(engine, "x", "completed")
        types = await assert_whole(engine, "x", "workflow_completed")
        assert types[3:7] == ["task_started", "workflow_paused", "workflow_resumed", "task_completed"]
        await until(lambda: figures(engine) == (0, 0), "its end")


async def test_effect_in_flight_is_performed_again_after_the_resume() -> None:
    path, performer = folder(), Performer()
    async with engine_on(path, performer) as engine:
        await engine.submit(submission("x", CALL))
        await until(lambda: performer.performed, "the effect")
    condemn(path)
    again = Performer()
    again.gate.set()
    async with engine_on(path, again) as engine:
        await until_status(engine, "x", "paused")
        assert not again.performed
        await engine.resume("x", "")
        await until_status(engine, "x", "completed")
        await assert_whole(engine, "x", "workflow_completed")
    [first], [second] = performer.performed, again.performed
    assert first.idempotency_key == second.idempotency_key


async def test_cancel_that_was_promised_ends_it_when_it_is_resumed() -> None:
    """It does not pause while it is being cancelled, so its walk has no part in what was told."""
    path, performer = folder(), Performer()
    async with engine_on(path, performer, cancel_grace_s=3600) as engine:
        await engine.submit(submission("x", CALL))
        await until(lambda: performer.performed, "the effect")
        await engine.cancel("x", "enough", force=False)
    condemn(path)
    async with engine_on(path, performer) as engine:
        await until_status(engine, "x", "paused")
        await engine.resume("x", "")
        await until_status(engine, "x", "cancelled")
        types = await assert_whole(engine, "x", "workflow_cancelled")
        assert types[-3:] == ["workflow_paused", "workflow_resumed", "workflow_cancelled"]
        assert (await engine.get("x")).last_sequence == len(types)
        await until(lambda: figures(engine) == (0, 0), "its end")


@pytest.mark.parametrize("force", [False, True])
async def test_commands_wait_for_one_another(force: bool) -> None:
    """The one that comes while another is being committed is judged by what that leaves."""
    path, told = folder(), list[str]()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", SLOW))
    condemn(path)
    async with engine_on(path, listener=lambda row: told.append(row.execution_id)) as engine:
        await asyncio.gather(engine.resume("x", ""), engine.cancel("x", "", force=force))
        await until_status(engine, "x", "cancelled")
        types = await assert_whole(engine, "x", "workflow_cancelled")
        assert types.index("workflow_resumed") == types.index("workflow_paused") + 1
        assert told


async def test_what_cannot_be_loaded_is_cancelled_all_the_same() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", SLOW))
    condemn(path)
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        db.execute("update snapshots set snapshot = x'00'")
    async with engine_on(path) as engine:
        await until_status(engine, "x", "paused")
        await engine.cancel("x", "", force=False)
        assert (await events_of(engine, "x"))[-2:] == ["workflow_paused", "workflow_cancelled"]
        assert (await all_events(engine, "x"))[-1].status == "cancelled"
