"""Schedules that Temporal keeps: each moment once; what people do to them; events; their histories.

All of it is against a real server, with a runner that does as the test says; `test_temporal_runner` has real ones.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from fastrunner.base import clock, limits
from fastrunner.engine.schedules import Overlap, Schedule, ScheduleOptions, ScheduleView, Trigger
from fastrunner.errors import AtCapacity, ScheduleExists, UnknownSchedule
from tests.integration.engines import document, submission
from tests.integration.temporal_engines import Cluster, cluster_on, serving_temporal
from tests.integration.temporal_replays import replayable
from tests.integration.test_temporal_events import event
from tests.outside import require
from tests.unit.test_schedule_leader import Runner
from tests.unit.test_schedule_leader import until as soon

if TYPE_CHECKING:
    from fastrunner.engine.temporal.engine import TemporalEngine
    from fastrunner.engine.temporal.schedules import TemporalSchedules

require(find_spec("temporalio"), "temporalio", module=True)

DEADLINE_S = 60.0
ENDLESS_WAIT = document("  - rest:\n      wait: {hours: 1}\n")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


@asynccontextmanager
async def scheduling(
    cluster: Cluster, runner: Runner, history_events_max: int = 20
) -> "AsyncIterator[tuple[TemporalSchedules, TemporalEngine]]":
    async with cluster.engine(works=False, history_events_max=history_events_max) as engine:
        schedules = engine.schedules(runner.call)
        engine.go_on()
        yield schedules, engine


def schedule(schedule_id: str, options: ScheduleOptions | None = None, **trigger: Any) -> Schedule:
    of, given = Trigger(**trigger), options or ScheduleOptions()
    return Schedule(schedule_id, "test", "w", "1.0.0", of, given, b"", clock.wall_ms() // 1000 * 1000)


def moments_ms(ids: list[str], schedule_id: str) -> list[int]:
    """When its executions were due, in order, in milliseconds since the epoch."""
    found = []
    for each in ids:
        of, _, moment = each.partition("~")
        if of == schedule_id:
            found.append(int(datetime.fromisoformat(moment).timestamp() * 1000))
    return sorted(found)


async def replayed(engine: "TemporalEngine", schedule_id: str) -> tuple[int, list[float]]:
    """Replays all histories of a schedule; how many there are, and how long timers were, in seconds."""
    from temporalio.worker import Replayer

    from fastrunner.engine.temporal.schedule_messages import schedule_id_of
    from fastrunner.engine.temporal.schedule_workflow import ScheduleWorkflow

    workflow_id = schedule_id_of(engine._task_queue, schedule_id)
    replayer = Replayer(workflows=[ScheduleWorkflow], data_converter=engine._client.data_converter)
    timers: list[float] = []
    run_id, count = "", 0
    while True:
        handle = engine._client.get_workflow_handle(workflow_id, run_id=run_id or None)
        history = await replayable(handle)
        await replayer.replay_workflow(history)
        for each in history.events:
            if each.HasField("timer_started_event_attributes"):
                timers.append(each.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta().total_seconds())
        begun = history.events[0].workflow_execution_started_event_attributes
        run_id, count = begun.continued_execution_run_id, count + 1
        if not run_id:
            return count, timers


async def test_schedules_go_on_in_other_histories(address: str) -> None:
    """No moment is lost or repeated when a history is continued, and each can be replayed; what people do counts at
    once, and lists and replies have it; one that comes seldom is looked at each hour."""
    runner = Runner()
    async with cluster_on(address) as cluster, scheduling(cluster, runner) as (schedules, engine):
        view, created = await schedules.add(schedule("often", every_ms=100), b"1")
        assert (created, view.schedule.name) == (True, "w")
        await schedules.add(schedule("seldom", cron="0 3 1 1 *"), b"1")
        again, created = await schedules.add(schedule("often", every_ms=100), b"1")
        assert (created, again.schedule.added_ms) == (False, view.schedule.added_ms)
        with pytest.raises(ScheduleExists):
            await schedules.add(schedule("often", every_ms=200), b"2")
        await soon(lambda: len(runner.started) > 12)
        paused = await schedules.pause("often", "stocktaking")
        assert (paused.is_paused, paused.reason, paused.next_ms) == (True, "stocktaking", 0)
        fired = await schedules.fire("often", "k")
        assert (fired, runner.started[-1]) == ("often~fire-k", fired)
        runner.started.remove(fired)
        before = len(runner.started)
        resumed = await schedules.resume("often")
        assert (resumed.is_paused, resumed.reason) == (False, "")
        await soon(lambda: len(runner.started) > before + 5)
        moments = moments_ms(runner.started, "often")
        gaps = [after - at for at, after in pairwise(moments)]
        assert moments[0] == view.schedule.added_ms + 100
        assert set(gaps[: before - 2]) == {100}
        assert set(gaps[before + 1 :]) == {100}
        listed = await until_listed(schedules, {"often", "seldom"})
        assert listed["seldom"].next_ms > clock.wall_ms()
        assert [each.schedule.schedule_id for each in await schedules.page("", None, "often", 10)] == ["seldom"]
        assert await schedules.page("", frozenset({"other"}), "", 10) == []
        count, _ = await replayed(engine, "often")
        assert count > 1
        _, timers = await replayed(engine, "seldom")
        assert limits.TEMPORAL_SCHEDULE_LOOK_S_MAX - 1 < max(timers) <= limits.TEMPORAL_SCHEDULE_LOOK_S_MAX
        await asyncio.gather(*map(schedules.delete, ("often", "seldom")))
        for refused in (schedules.delete("often"), schedules.get("often"), schedules.fire("often", "")):
            with pytest.raises(UnknownSchedule):
                await refused


async def until_listed(schedules: "TemporalSchedules", ids: set[str]) -> "dict[str, ScheduleView]":
    """All schedules, once visibility has them, and that each has been looked at."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = {each.schedule.schedule_id: each for each in await schedules.page("test", None, "", 10)}
            if set(found) == ids and all(each.next_ms for each in found.values()):
                return found
            await asyncio.sleep(0.05)


async def test_commands_are_durable_without_a_worker(address: str) -> None:
    """Whoever asks waits a moment for one to show it, and for no more."""
    runner = Runner()
    async with cluster_on(address) as cluster:
        async with cluster.engine(works=False) as engine:
            schedules = engine.schedules(runner.call)
            await schedules.add(schedule("often", every_ms=100), b"1")
            began_s = clock.monotonic_s()
            assert (await schedules.pause("often", "now")).reason == "now"
            assert clock.monotonic_s() - began_s >= limits.TEMPORAL_SCHEDULE_SHOWN_S_MAX - 0.1
        async with scheduling(cluster, runner) as (schedules, _):
            async with asyncio.timeout(DEADLINE_S):
                while not (await schedules.get("often")).is_paused:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert runner.started == []
            await schedules.resume("often")
            await soon(lambda: runner.started)
            await schedules.delete("often")


async def test_what_is_open_is_counted(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executions and schedules of the task queue, whoever took them, by one worker of a replica."""
    monkeypatch.setattr(limits, "TEMPORAL_COUNT_INTERVAL_S", 0.1)
    async with (
        cluster_on(address) as cluster,
        scheduling(cluster, Runner()) as (schedules, engine),
        cluster.engine(shows_open=False) as other,
    ):
        await other.submit(submission(f"{cluster.queue}-1", ENDLESS_WAIT))
        await schedules.add(schedule("seldom", cron="0 3 1 1 *"), b"1")
        shown = engine._metrics
        await soon(lambda: (shown.active_executions.value, shown.schedules.value) == (1, 1))
        assert (other._metrics.active_executions.value, other._metrics.schedules.value) == (0, 0)
        await engine.cancel(f"{cluster.queue}-1", "", False)
        await soon(lambda: shown.active_executions.value == 0)
        await schedules.delete("seldom")


async def test_events_start_executions(address: str) -> None:
    """Those that come after a schedule was added, or resumed, in their order, each once, also where more come than lie
    there; while the runner takes nothing they wait."""
    runner = Runner()
    taken = asyncio.Event()

    async def answer(_: str) -> None:
        if not taken.is_set():
            raise AtCapacity("full")

    runner.answer = answer
    async with cluster_on(address) as cluster, scheduling(cluster, runner) as (schedules, engine):
        name = cluster.queue
        await engine.events_door.publish([event(0, name)], None)
        await schedules.add(schedule("each", on={"one": {"with": {"type": name}}}), b"1")
        both = {"all": [{"with": {"type": name}}, {"with": {"type": f"{name}-b"}}]}
        await schedules.add(schedule("both", on=both), b"1")
        large = "x" * (limits.TEMPORAL_INBOX_SIZE_BYTES_MAX // 2)
        keys = [*await engine.events_door.publish([event(1, name)], None)]
        for number in range(2, 6):
            keys += await engine.events_door.publish([event(number, name, data=large)], None)
        await soon(lambda: len(runner.asked) > 1)
        assert runner.started == []
        taken.set()
        wanted = [f"each~event-{key}" for key in keys]
        await soon(lambda: len(runner.started) == 5)
        assert runner.started == wanted
        [key] = await engine.events_door.publish([event(1, f"{name}-b")], None)
        await soon(lambda: len(runner.started) == 6)
        assert runner.started[5:] == [f"both~event-{key}"]
        await schedules.pause("each", "")
        await engine.events_door.publish([event(6, name)], None)
        await schedules.resume("each")
        [key] = await engine.events_door.publish([event(7, name)], None)
        await soon(lambda: len(runner.started) == 7)
        assert runner.started[6:] == [f"each~event-{key}"]
        await replayed(engine, "each")
        await asyncio.gather(*map(schedules.delete, ("each", "both")))


async def test_an_execution_that_goes_on_is_waited_for(address: str) -> None:
    """Under `skip` moments start nothing meanwhile; who waits for an end looks in one activity, and not in many."""
    runner = Runner()
    async with cluster_on(address) as cluster, scheduling(cluster, runner, 2000) as (schedules, engine):
        options = ScheduleOptions(overlap=Overlap.SKIP)
        await schedules.add(schedule("skips", options, every_ms=100), b"1")
        await schedules.add(schedule("after", after_ms=100), b"1")
        await soon(lambda: len(runner.started) == 2 and len(runner.asked) > 10)
        _, timers = await replayed(engine, "after")
        assert len(timers) <= 2
        runner.ended_ms = clock.wall_ms()
        await soon(lambda: len(moments_ms(runner.started, "after")) > 2)
        await soon(lambda: len(moments_ms(runner.started, "skips")) > 2)
        assert moments_ms(runner.started, "after")[1] == runner.ended_ms + 100
        async with asyncio.timeout(DEADLINE_S):
            while not (await schedules.get("skips")).counts.get("overlapped"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.gather(*map(schedules.delete, ("skips", "after")))
