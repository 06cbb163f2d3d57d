"""Bounds of the engine that are times, or the work of a turn, to the virtual millisecond."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from fastrunner.base import clock, limits
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.file import Store
from fastrunner.errors import StorageFull, Unavailable, UnknownExecution
from tests.integration.engines import CALL, ENDLESS, SET, WAIT, Performer, document, folder, submission
from tests.simulation.pace import Disk, engine_at, live
from tests.simulation.virtual import VirtualTime

READ_S = 20e-6
"""What reading the virtual clock costs."""
HOUR = WAIT.replace("milliseconds: 200", "hours: 1")
TEN_SECONDS = WAIT.replace("milliseconds: 200", "seconds: 10")
FAN_OUT_COUNT = 500
FAN_OUT = document(
    "  - fan:\n      fork:\n        branches:\n"
    + "".join(
        f"        - b{n}:\n            call: http\n            with: {{method: get, endpoint: 'http://127.0.0.1:1/x'}}\n"
        for n in range(FAN_OUT_COUNT)
    )
)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    virtual = VirtualTime()
    monkeypatch.setattr(clock, "time", virtual)
    return virtual


@pytest.fixture
def disk(time: VirtualTime) -> Disk:
    return Disk(time)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], Any], timeout_s: float = 100.0) -> float:
    """When a condition came to hold, in virtual seconds."""
    end_s = now_s() + timeout_s
    while not condition():
        assert now_s() < end_s
        await asyncio.sleep(0.001)
    return now_s()


def is_live(engine: EmbeddedEngine, execution_id: str) -> bool:
    return execution_id in engine._shards.by_number[0].live


# --- commits ---


@pytest.mark.parametrize("bound", ["time", "count"])
def test_what_one_commit_gathers(disk: Disk, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one commit takes its time, others pile up for the next."""
    most = int(limits.COMMIT_GATHER_MS_MAX / 1000 / READ_S)
    assert most < limits.COMMIT_EXECUTIONS_MAX
    if bound == "count":
        monkeypatch.setattr(limits, "COMMIT_GATHER_MS_MAX", 10_000)
        most = limits.COMMIT_EXECUTIONS_MAX

    async def main() -> None:
        disk.commit_s = 3.0
        async with engine_at(disk, folder()) as engine:
            await asyncio.gather(*(engine.submit(submission(f"e-{n}", HOUR)) for n in range(1_500)))
            assert sum(disk.changes()) == 1_500
            # The end of the time is read once more.
            assert 0.9 * most <= max(disk.changes()) <= most + (2 if bound == "time" else 0)

    live(disk.clock, main())


@pytest.mark.parametrize("turns", [0, limits.COMMIT_TURNS_MIN, limits.COMMIT_TURNS_MIN + 3])
def test_what_comes_within_some_turns_comes_along(disk: Disk, turns: int) -> None:
    """A commit begins so many turns of the loop after the first change that it takes, unless many come."""

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            disk.writes.clear()
            first = asyncio.ensure_future(engine.submit(submission("e-0", HOUR)))
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.gather(first, engine.submit(submission("e-1", HOUR)))
            assert disk.changes() == ([2] if turns <= limits.COMMIT_TURNS_MIN else [1, 1])

    live(disk.clock, main())


@pytest.mark.parametrize("at_once", [limits.COMMIT_GROWTH_MIN, limits.COMMIT_GROWTH_MIN - 1])
def test_a_commit_waits_for_as_long_as_many_come(disk: Disk, at_once: int) -> None:
    """Until it has enough; of fewer it has those that came within the usual turns."""

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            disk.writes.clear()
            waiting: list[asyncio.Future[str]] = []
            while len(waiting) < 300:
                waiting += [
                    asyncio.ensure_future(engine.submit(submission(f"e-{len(waiting) + n}", HOUR)))
                    for n in range(at_once)
                ]
                for _ in range(1 + limits.COMMIT_TURNS_MIN):
                    await asyncio.sleep(0)
            await asyncio.gather(*waiting)
            first = disk.changes()[0]
            if at_once == limits.COMMIT_GROWTH_MIN:
                assert limits.COMMIT_GATHERED_MIN <= first < limits.COMMIT_GATHERED_MIN + 2 * at_once
            else:
                assert at_once <= first <= 2 * at_once

    live(disk.clock, main())


def test_pauses_between_attempts_to_commit(disk: Disk) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            await engine.submit(submission("e-0", TEN_SECONDS))
            disk.fails = True
            disk.writes.clear()
            with pytest.raises(StorageFull):
                await engine.submit(submission("e-1"))
            await until(lambda: len(disk.writes) == 10)
        times = [at_s for at_s, _ in disk.writes[:10]]
        pauses = [after - before for before, after in pairwise(times)]
        shortest_s, longest_s = limits.COMMIT_RETRY_DELAY_S_MIN, limits.COMMIT_RETRY_DELAY_S_MAX
        assert pauses == pytest.approx([min(shortest_s * 2**n, longest_s) for n in range(9)], abs=0.01)

    live(disk.clock, main())


def test_acknowledgement_waits_for_a_commit_to_travel_with(disk: Disk) -> None:
    async def main() -> None:
        async with engine_at(disk, folder(), listener=lambda row: None) as engine:
            await engine.submit(submission("e-0", SET))
            await until(lambda: not is_live(engine, "e-0"))
            disk.writes.clear()
            began_s = now_s()
            engine.outbox.acknowledge("e-0", 1)
            await until(lambda: disk.writes)
            [(at_s, batch)] = disk.writes
            assert batch.acknowledgements == {"e-0": (1, 0)}
            assert at_s - began_s == pytest.approx(limits.ACKNOWLEDGEMENT_DELAY_MS_MAX / 1000, abs=0.002)

    live(disk.clock, main())


def test_events_of_a_loop_that_await_their_commit(disk: Disk) -> None:
    """However long the disk takes, the loop waits for it."""

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            await engine.submit(submission("loop", ENDLESS))
            disk.commit_s = 20.0
            execution = engine._shards.by_number[0].live["loop"]
            await asyncio.sleep(5)
            most = limits.EXECUTION_EVENTS_UNCOMMITTED_SIZE_BYTES_MAX
            slice_size_bytes = 2 * limits.WALK_STEPS_PER_SLICE_MAX * 300
            assert most <= execution.events_size_bytes < most + slice_size_bytes
            told_size_bytes = execution.events_told_size_bytes
            await asyncio.sleep(5)
            assert execution.events_told_size_bytes == told_size_bytes

    live(disk.clock, main())


# --- turns ---


def test_turns_of_executions_between_two_turns_of_the_loop(disk: Disk) -> None:
    counts: Counter[str] = Counter()

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            take_turn = engine._scheduler._take_turn

            def counted(execution: Any) -> None:
                counts["turns"] += 1
                take_turn(execution)

            engine._scheduler._take_turn = counted
            accepted = [engine.submit(submission(f"e-{n}", HOUR)) for n in range(500)]
            steps = []
            while counts["turns"] < 500:
                before = counts["turns"]
                await asyncio.sleep(0)
                steps.append(counts["turns"] - before)
            # A turn reads the clock once, at least.
            assert 10 < max(steps) <= limits.ENGINE_PASS_MS / 1000 / READ_S
            await asyncio.gather(*accepted)

    live(disk.clock, main())


def test_effects_started_between_two_turns_of_the_loop(disk: Disk) -> None:
    """A fan-out lets others have the loop, and its effects keep their order."""
    performer = Performer()

    async def main() -> None:
        async with engine_at(disk, folder(), performer) as engine:
            await engine.submit(submission("fan", FAN_OUT))
            steps = []
            while len(performer.performed) < FAN_OUT_COUNT:
                before = len(performer.performed)
                await asyncio.sleep(0)
                steps.append(len(performer.performed) - before)
            assert 10 < max(steps) <= limits.ENGINE_PASS_MS / 1000 / READ_S
            names = [effect.reference.rpartition("/")[2] for effect in performer.performed]
            assert names == [f"b{n}" for n in range(FAN_OUT_COUNT)]

    live(disk.clock, main())


def test_costly_arguments_have_half_of_the_loop(disk: Disk) -> None:
    cost_s = 0.03
    began_s: list[float] = []

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            begin = engine._effects._begin

            def costly(execution: Any, effect_id: int) -> None:
                began_s.append(now_s())
                disk.clock.now_ns += int(cost_s * 1e9)
                begin(execution, effect_id)

            engine._effects._begin = costly  # type: ignore[method-assign]
            await engine.submit(submission("fan", FAN_OUT))
            await until(lambda: len(began_s) == FAN_OUT_COUNT)
            least_s = 2 * cost_s - limits.ENGINE_PASS_MS / 1000
            assert all(after - before >= least_s for before, after in pairwise(began_s))

    live(disk.clock, main())


def test_step_of_the_wall_clock_is_noticed(disk: Disk) -> None:
    """An execution in memory whose deadline a step brings nearer does not sleep on towards it."""

    async def main() -> None:
        async with engine_at(disk, folder(), wall_ms=clock.wall_ms) as engine:
            await engine.submit(submission("e-0", HOUR))
            await asyncio.sleep(10.3)
            assert is_live(engine, "e-0")
            disk.clock.wall_step_ns += 3_600 * 10**9
            began_s = now_s()
            ended_s = await until(lambda: not is_live(engine, "e-0"), 3_000)
            assert ended_s - began_s <= limits.TIMER_RECHECK_S_MAX + 0.01

    live(disk.clock, main())


# --- who is in memory ---


def test_deadline_brings_an_execution_back_shortly_before(disk: Disk) -> None:
    async def main() -> None:
        async with engine_at(disk, folder(), parked_resident_max=0) as engine:
            began_s = now_s()
            await engine.submit(submission("e-0", TEN_SECONDS))
            await until(lambda: not is_live(engine, "e-0"))
            back_s = await until(lambda: is_live(engine, "e-0")) - began_s
            lookahead_s = limits.TIMER_LOOKAHEAD_MS / 1000
            assert 10 - lookahead_s - 0.01 <= back_s <= 10 - lookahead_s + limits.LOAD_INTERVAL_S + 0.01
            assert await until(lambda: not is_live(engine, "e-0")) - began_s == pytest.approx(10, abs=0.05)

    live(disk.clock, main())


def test_deadlines_are_looked_for_at_intervals(disk: Disk) -> None:
    """Also those that somebody who sets the clock brings near."""

    async def main() -> None:
        async with engine_at(disk, folder(), parked_resident_max=0, wall_ms=clock.wall_ms) as engine:
            await engine.submit(submission("e-0", HOUR))
            await until(lambda: not is_live(engine, "e-0"))
            await asyncio.sleep(7.77)
            disk.clock.wall_step_ns += 3_599 * 10**9
            began_s = now_s()
            back_s = await until(lambda: is_live(engine, "e-0"), 1_000) - began_s
            assert 0 < back_s <= limits.LOAD_INTERVAL_S + 0.01

    live(disk.clock, main())


def test_backlog_without_room_is_looked_at_again_soon(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EFFECTS_IN_FLIGHT_PER_WORKER_MAX", 1)
    monkeypatch.setattr(limits, "EFFECTS_WAITING_RESIDENT_MAX", 1)
    monkeypatch.setattr(limits, "LOAD_EXECUTIONS_PER_PASS_MAX", 1)
    performer = Performer()

    async def main() -> None:
        async with engine_at(disk, folder(), performer) as engine:
            await asyncio.gather(*(engine.submit(submission(f"e-{n}", CALL)) for n in range(20)))
            await until(lambda: engine._shards.by_number[0].loader.backlog)
            await asyncio.sleep(1)
            assert len(performer.performed) == 1
            began_s = now_s()
            performer.gate.set()
            ended_s = await until(lambda: not engine._active_count)
            assert ended_s - began_s <= 20 * (limits.BACKLOG_INTERVAL_S + 0.01)

    live(disk.clock, main())


def test_ended_retention_is_looked_for_at_intervals(disk: Disk) -> None:
    async def main() -> None:
        async with engine_at(disk, folder(), retention_s=5.0) as engine:
            await engine.submit(submission("e-0", SET))
            ended_s = await until(lambda: not is_live(engine, "e-0"))
            while True:
                try:
                    await engine.get("e-0")
                except UnknownExecution:
                    break
                assert now_s() < ended_s + 100
                await asyncio.sleep(0.01)
            assert 5 <= now_s() - ended_s <= 5 + limits.RETENTION_INTERVAL_S + 0.05

    live(disk.clock, main())


def test_predecessor_that_does_not_let_go_of_a_shard(disk: Disk) -> None:
    path = folder()
    predecessor = Store(path / "shard-0000.db", outbox=False)
    assert predecessor.try_lock()

    async def main() -> None:
        began_s = now_s()
        with pytest.raises(Unavailable, match="still held by another worker"):
            async with engine_at(disk, path):
                pass
        assert now_s() - began_s == pytest.approx(limits.SHARD_OWNER_WAIT_S_MAX, abs=0.1)

    try:
        live(disk.clock, main())
    finally:
        predecessor.unlock()


# --- what is kept ---


def test_documents_that_a_shard_finds_again(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of a stored document and by the hash of a new one: neither grows, and both are right."""
    monkeypatch.setattr(limits, "PLANS_BY_KEY_MAX", 3)
    monkeypatch.setattr(limits, "PLAN_KEYS_KNOWN_MAX", 4)
    texts = [document("  - rest:\n      wait: {hours: 1}\n", name=f"plan-{n}") for n in range(10)]

    async def main() -> None:
        async with engine_at(disk, folder(), parked_resident_max=0) as engine:
            shard = engine._shards.by_number[0]
            for turn in range(2):
                for n, text in enumerate(texts):
                    await engine.submit(submission(f"e-{turn}-{n}", text))
                    assert len(shard.store._plan_keys) <= 4
            await until(lambda: not shard.live)
            for n in range(10):
                await engine.pause(f"e-0-{n}", "")
                assert 1 <= len(shard.plans._by_key) <= 3
                assert (await engine.get(f"e-1-{n}")).name == f"plan-{n}"

    live(disk.clock, main())


def test_pages_that_are_read_for_a_subscriber(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_REPLAY_SIZE_BYTES_MAX", 5_000)
    waits = document(
        "  - loop:\n      for: {in: '[range(100)]'}\n      do:\n        - rest: {wait: {milliseconds: 1}}\n"
    )

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            await engine.submit(submission("e-0", waits))
            await until(lambda: not is_live(engine, "e-0"))
            store, pages = engine._shards.by_number[0].store, []
            read = store.events

            def watched(*arguments: Any) -> Any:
                rows = read(*arguments)
                pages.append([len(row.messages) for row in rows])
                return rows

            monkeypatch.setattr(store, "events", watched)
            messages = [message async for message in engine.subscribe("e-0", 1)]
            assert len(messages) == (await engine.get("e-0")).last_sequence
            # The row that goes beyond is still read.
            assert all(sum(page[:-1]) < 5_000 for page in pages)
            assert len(pages) > 3

    live(disk.clock, main())
