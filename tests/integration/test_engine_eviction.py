"""The embedded engine keeps what only waits on disk: eviction, timers, control, restarts, all without memory."""

import asyncio
import gc
from typing import Any

import pytest

from fastrunner._core import EffectFailure
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import clock
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.store.reader import Unfinished
from fastrunner.errors import IdTaken, WrongState
from tests.integration.engines import (
    CALL,
    SET,
    WAIT,
    Performer,
    assert_whole,
    document,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)

COUNT = 40
HOUR = WAIT.replace("milliseconds: 200", "hours: 1")
TIMED_OUT = HOUR + "timeout: {after: {seconds: 3}}\n"
RETRYING = document(
    "  - attempt:\n      try:\n        - ask:\n            call: http\n"
    "            with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
    "      catch:\n        errors: {}\n        retry:\n"
    "          delay: {hours: 1}\n          limit: {attempt: {count: 5}}\n"
)
"""A call that fails, then another attempt an hour later."""


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that tests move is noticed soon."""
    monkeypatch.setattr("fastrunner.base.limits.LOAD_INTERVAL_S", 0.05)
    monkeypatch.setattr("fastrunner.base.limits.TIMER_RECHECK_S_MAX", 0.05)


class Clock:
    """A wall clock that tests move."""

    def __init__(self) -> None:
        self.start_ms = clock.wall_ms()
        self.offset_ms = 0
        self._begun_s = clock.monotonic_s()

    def __call__(self) -> int:
        return self.start_ms + self.offset_ms + int((clock.monotonic_s() - self._begun_s) * 1000)


def in_memory(engine: EmbeddedEngine) -> list[str]:
    """Ids of the executions that are in memory."""
    return [execution_id for shard in engine._shards for execution_id in shard.live]


async def until_evicted(engine: EmbeddedEngine, count_max: int = 0) -> None:
    """Waits until no more than so many executions are in memory."""
    await until(lambda: len(in_memory(engine)) <= count_max, f"at most {count_max} executions in memory")


async def park(engine: EmbeddedEngine, text: str = HOUR, count: int = COUNT) -> list[str]:
    """Accepts executions that go to sleep; gives their ids."""
    ids = [f"execution-{number}" for number in range(count)]
    await asyncio.gather(*(engine.submit(submission(each, text)) for each in ids))
    return ids


async def test_what_only_waits_leaves_memory_and_comes_back_at_its_time() -> None:
    now = Clock()
    async with engine_on(folder(), shards=2, parked_resident_max=0, wall_ms=now) as engine:
        ids = await park(engine)
        await until_evicted(engine)
        assert engine._parked_count == engine._active_count == COUNT
        engine._scheduler._timers.retain(lambda _, execution: execution.walk is not None)
        assert not engine._scheduler._timers
        now.offset_ms = 3_590_000
        await asyncio.sleep(0.3)  # looks for deadlines several times: too early for any
        assert not in_memory(engine)
        now.offset_ms = 3_600_000
        for each in ids:
            view = await until_status(engine, each, "completed")
            assert view.finished_ms >= view.accepted_ms + 3_600_000
            await assert_whole(engine, each, "workflow_completed")
        await until_evicted(engine)
        assert engine._parked_count == engine._active_count == 0
        assert sum(shard.unfinished_count for shard in engine._shards) == 0


async def test_parked_executions_take_no_objects() -> None:
    async with engine_on(folder(), shards=2, parked_resident_max=10) as engine:
        counts = []
        for part in range(3):
            ids = [f"part-{part}-{number}" for number in range(500)]
            await asyncio.gather(*(engine.submit(submission(each, HOUR)) for each in ids))
            await until_evicted(engine, 10)
            gc.collect()
            counts.append(len(gc.get_objects()))
        assert engine._parked_count == 1_500
        # The first part fills caches and free lists.
        assert counts[2] - counts[1] < 100


async def test_most_recently_parked_stay_in_memory_up_to_the_bound() -> None:
    async with engine_on(folder(), parked_resident_max=5) as engine:
        for number in range(20):
            await engine.submit(submission(f"execution-{number}", HOUR))
        await until_evicted(engine, 5)
        assert in_memory(engine) == [f"execution-{number}" for number in range(15, 20)]


async def test_large_states_leave_memory_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.PARKED_RESIDENT_SIZE_BYTES_MAX", 50_000)
    async with engine_on(folder()) as engine:
        text = b'{"text": "' + b"x" * 10_000 + b'"}'
        await asyncio.gather(*(engine.submit(submission(f"execution-{n}", HOUR, input_json=text)) for n in range(20)))
        await until_evicted(engine, 4)
        assert in_memory(engine)


async def test_short_waits_do_not_leave_memory() -> None:
    async with engine_on(folder(), parked_resident_max=0) as engine:
        ids = await park(engine, WAIT)
        assert sorted(in_memory(engine)) == sorted(ids)
        for each in ids:
            await until_status(engine, each, "completed")


async def test_commands_and_queries_reach_what_is_not_in_memory() -> None:
    async with engine_on(folder(), parked_resident_max=0) as engine:
        ids = await park(engine)
        await until_evicted(engine)
        assert (await engine.get("execution-0")).status == "running"
        assert len(await engine.events("execution-0", 1, 100)) == (await engine.get("execution-0")).last_sequence
        assert not in_memory(engine)
        assert await engine.submit(submission("execution-0", HOUR)) == "running"
        with pytest.raises(IdTaken):
            await engine.submit(submission("execution-0", SET))
        await asyncio.gather(*(engine.cancel(each, "enough", False) for each in ids[:10]))
        await asyncio.gather(*(engine.pause(each, "lunch") for each in ids[10:20]))
        await asyncio.gather(*(engine.resume(each, "nothing to do") for each in ids[20:]))
        await until_evicted(engine)
        for each in ids[:10]:
            await assert_whole(engine, each, "workflow_cancelled")
            with pytest.raises(WrongState):
                await engine.resume(each, "")
        for each in ids[10:20]:
            assert (await engine.get(each)).status == "paused"
            await engine.pause(each, "lunch")
            await engine.cancel(each, "", True)
            await assert_whole(engine, each, "workflow_cancelled")
        await until_evicted(engine)
        assert engine._parked_count == engine._active_count == COUNT - 20


async def test_subscriber_follows_an_execution_out_of_memory_and_back() -> None:
    now = Clock()
    async with engine_on(folder(), parked_resident_max=0, wall_ms=now) as engine:
        await park(engine, count=1)
        await until_evicted(engine)

        async def follow() -> list[int]:
            messages = engine.subscribe("execution-0", 1)
            return [WorkflowProgressEvent.FromString(message).sequence_number async for message in messages]

        following = asyncio.ensure_future(follow())
        await asyncio.sleep(0)
        now.offset_ms = 3_600_000
        last = (await until_status(engine, "execution-0", "completed")).last_sequence
        assert await following == list(range(1, last + 1))


async def test_restart_leaves_what_waits_on_disk_and_goes_on_at_its_time() -> None:
    path, now = folder(), Clock()
    async with engine_on(path, shards=2, parked_resident_max=0, wall_ms=now) as engine:
        ids = await park(engine)
        await engine.pause(ids[0], "")
        await until_evicted(engine)
    async with engine_on(path, shards=2, parked_resident_max=0, wall_ms=now) as engine:
        assert engine._parked_count == engine._active_count == COUNT
        await asyncio.sleep(0.3)  # recovery takes less: it must not bring anything back
        assert not in_memory(engine)
        now.offset_ms = 3_600_000
        for each in ids[1:]:
            await until_status(engine, each, "completed")
        assert (await engine.get(ids[0])).status == "paused"
        await engine.resume(ids[0], "")
        for each in ids:
            await until_status(engine, each, "completed")
            await assert_whole(engine, each, "workflow_completed")


async def test_deadlines_that_passed_while_the_runner_was_down_are_met_at_once() -> None:
    path, now = folder(), Clock()
    async with engine_on(path, parked_resident_max=0, wall_ms=now) as engine:
        ids = await park(engine)
    now.offset_ms = 7_200_000
    async with engine_on(path, parked_resident_max=0, wall_ms=now) as engine:
        for each in ids:
            await until_status(engine, each, "completed")


async def test_paused_time_out_of_memory_does_not_count_for_a_timeout() -> None:
    path, now = folder(), Clock()
    async with engine_on(path, parked_resident_max=0, wall_ms=now) as engine:
        ids = await park(engine, TIMED_OUT, 3)
        await asyncio.gather(*(engine.pause(each, "") for each in ids))
        await until_evicted(engine)
        now.offset_ms = 1_000_000
        await asyncio.sleep(0.3)  # deadlines are looked for several times meanwhile
        assert {(await engine.get(each)).status for each in ids} == {"paused"}
        await asyncio.gather(*(engine.resume(each, "") for each in ids))
        assert {(await engine.get(each)).status for each in ids} == {"running"}
        now.offset_ms = 1_004_000
        for each in ids:
            await until_status(engine, each, "failed")
            await assert_whole(engine, each, "workflow_failed")


async def test_clock_set_back_leaves_every_deadline_findable() -> None:
    now = Clock()
    async with engine_on(folder(), parked_resident_max=0, wall_ms=now) as engine:
        now.offset_ms = -1_800_000
        await asyncio.sleep(0.3)  # the loader follows the clock within an interval
        ids = await park(engine)
        await until_evicted(engine)
        now.offset_ms = 1_800_000
        for each in ids:
            await until_status(engine, each, "completed")


async def test_retry_delay_is_waited_for_on_disk() -> None:
    now = Clock()
    performer = Performer(failure=EffectFailure(0, "communication", 503, "Unavailable", ""))
    performer.gate.set()
    async with engine_on(folder(), performer, parked_resident_max=0, wall_ms=now) as engine:
        ids = await park(engine, RETRYING, 5)
        await until(lambda: len(performer.performed) == 5, "the first attempts")
        await until_evicted(engine)
        performer.failure = None
        now.offset_ms = 3_600_000
        for each in ids:
            await until_status(engine, each, "completed")
        assert len({effect.idempotency_key for effect in performer.performed}) == 10


async def test_executions_without_a_place_for_their_effect_wait_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX", 3)
    monkeypatch.setattr("fastrunner.base.limits.EFFECTS_WAITING_RESIDENT_MAX", 4)
    path = folder()
    for restarted in (False, True):
        performer = Performer()
        async with engine_on(path, performer) as engine:
            if not restarted:
                await park(engine, CALL)
                await until(lambda: len(in_memory(engine)) <= 7, "the crowd to be on disk")
            await until(lambda: len(performer.performed) == 3, "the first effects")  # noqa: B023
            await engine.cancel(f"execution-{COUNT - 1 - restarted}", "", True)
            if restarted:
                performer.gate.set()
                for number in range(COUNT - 2):
                    await until_status(engine, f"execution-{number}", "completed")
                    await assert_whole(engine, f"execution-{number}", "workflow_completed")
                keys = [effect.idempotency_key for effect in performer.performed]
                assert len(set(keys)) == len(keys) == COUNT - 2


@pytest.mark.parametrize("timeout_ms", [300, 1_500])
async def test_timeouts_hold_while_an_effect_waits_for_a_place(
    timeout_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastrunner.base.limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX", 3)
    monkeypatch.setattr("fastrunner.base.limits.EFFECTS_WAITING_RESIDENT_MAX", 4)
    hasty = f"{CALL}timeout: {{after: {{milliseconds: {timeout_ms}}}}}\n"
    async with engine_on(folder()) as engine:
        for each in await park(engine, hasty):
            view = await until_status(engine, each, "failed")
            assert timeout_ms <= view.finished_ms - view.accepted_ms < timeout_ms + 1_500
            await assert_whole(engine, each, "workflow_failed")


async def test_recovery_brings_back_no_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder()
    async with engine_on(path) as engine:
        await park(engine, CALL)
    monkeypatch.setattr("fastrunner.base.limits.RESIDENT_EXECUTIONS_MAX", 10)
    monkeypatch.setattr("fastrunner.base.limits.LOAD_EXECUTIONS_PER_PASS_MAX", 5)
    performer = Performer()
    async with engine_on(path, performer) as engine:
        await until(lambda: len(performer.performed) == 10, "recovery to fill the room")
        assert await engine.submit(submission("new", SET)) == "running"
        await asyncio.sleep(0.3)  # several intervals of the loader
        assert len(in_memory(engine)) == 10
        performer.gate.set()
        for number in range(COUNT):
            await until_status(engine, f"execution-{number}", "completed")
        assert len(performer.performed) == COUNT


@pytest.mark.parametrize("text", [CALL, HOUR])
async def test_costly_executions_are_brought_back_one_by_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one takes as long as a pass may, others have the loop before the next, at a start and for deadlines."""
    path, now = folder(), Clock()
    async with engine_on(path, wall_ms=now) as engine:
        await park(engine, text)
    monkeypatch.setattr("fastrunner.base.limits.LOAD_PASS_S_MAX", 0.0)
    restored = []
    restore = Shard._restore

    def counted(shard: Shard, row: Unfinished) -> Execution:
        restored.append(row.execution_id)
        return restore(shard, row)

    monkeypatch.setattr(Shard, "_restore", counted)
    performer = Performer()
    performer.gate.set()
    now.offset_ms = 3_600_000
    async with engine_on(path, performer, wall_ms=now) as engine:
        most = 0
        while len(restored) < COUNT:
            before = len(restored)
            await asyncio.sleep(0)
            most = max(most, len(restored) - before)
        assert most <= 2
        for number in range(COUNT):
            await until_status(engine, f"execution-{number}", "completed")
        assert sorted(restored) == sorted(f"execution-{number}" for number in range(COUNT))


async def test_a_crowd_of_deadlines_is_met_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.RESIDENT_EXECUTIONS_MAX", 10)
    monkeypatch.setattr("fastrunner.base.limits.LOAD_EXECUTIONS_PER_PASS_MAX", 5)
    now = Clock()
    most = 0

    def watch(row: Any) -> None:
        nonlocal most
        most = max(most, len(in_memory(engine)))

    async with engine_on(folder(), parked_resident_max=0, wall_ms=now, listener=watch) as engine:
        ids = await park(engine)
        await until_evicted(engine)
        most, now.offset_ms = 0, 3_600_000
        for each in ids:
            await until_status(engine, each, "completed")
            await assert_whole(engine, each, "workflow_completed")
        assert most <= 15


async def test_what_has_just_been_asked_something_is_not_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_on(folder(), parked_resident_max=10) as engine:
        [asked, *_] = await park(engine, count=3)
        await until(lambda: len(engine._residents._parked) == 3, "all are parked")
        monkeypatch.setattr(engine._residents, "_count_max", 0)
        pausing = asyncio.ensure_future(engine.pause(asked, ""))
        await asyncio.sleep(0)  # the command is in its inbox, and its turn has not come
        engine.landed()
        assert in_memory(engine) == [asked]
        await pausing
        assert (await engine.get(asked)).status == "paused"
