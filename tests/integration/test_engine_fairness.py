"""Nobody starves anybody: one client's many executions, one endless loop, and another client's only execution."""

import asyncio

import pytest

from fastrunner._core import PerformEffect
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.errors import AtCapacity
from tests.integration.engines import (
    CALL,
    ENDLESS,
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

LONG = document("  - loop:\n      for: {in: '[range(400)]'}\n      do:\n        - one:\n            set: {a: 1}\n")
"""Takes some slices."""


async def test_many_executions_of_one_client_delay_another_by_little() -> None:
    async with engine_on(folder()) as engine:
        many = [
            asyncio.ensure_future(engine.submit(submission(f"many-{n}", LONG, client="many"))) for n in range(1_500)
        ]
        await asyncio.sleep(0)
        await engine.submit(submission("one", LONG, client="one"))
        await until_status(engine, "one", "completed", timeout_s=30)
        views = [await engine.get(f"many-{n}") for n in range(1_500) if many[n].done()]
        assert sum(view.status == "completed" for view in views) < 750
        await asyncio.gather(*many)


async def test_shares_of_clients_are_the_same_after_a_restart() -> None:
    path = folder()
    loop = "  - loop:\n      for: {in: '[range(3000)]'}\n      do:\n        - one:\n            set: {a: 1}\n"
    text = CALL + loop
    many = [f"many-{number}" for number in range(40)]
    performer = Performer()
    async with engine_on(path, performer) as engine:
        for each in many:
            await engine.submit(submission(each, text, client="many"))
        await engine.submit(submission("one", text, client="one"))
        await until(lambda: len(performer.performed) == 41, "the effects to start")
    performer.gate.set()
    async with engine_on(path, performer) as engine:
        await until_status(engine, "one", "completed", timeout_s=30)
        end_ms = (await engine.get("one")).finished_ms
        # Turn by turn among executions, all of them would end together.
        ended = [each for each in many if 0 < (await engine.get(each)).finished_ms < end_ms]
        assert len(ended) < 10


async def test_client_of_an_evicted_execution_is_known_when_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_on(folder(), parked_resident_max=0) as engine:
        await engine.submit(submission("a", WAIT.replace("milliseconds: 200", "hours: 1"), client="one"))
        await until(lambda: "a" not in engine._shards.by_number[0].live, "eviction")
        clients, restored = [], engine.restored

        def back(execution: Execution, effects: list[PerformEffect]) -> None:
            clients.append(execution.client)
            restored(execution, effects)

        monkeypatch.setattr(engine, "restored", back)
        await engine.pause("a", "")
        assert clients == ["one"]


async def test_endless_loops_share_an_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.LONG_EVENTS_SIZE_BYTES", 100_000)
    monkeypatch.setattr("fastrunner.base.limits.LONG_EVENTS_SIZE_BYTES_PER_S_MAX", 200_000)
    loops = [f"loop-{number}" for number in range(5)]
    async with engine_on(folder()) as engine:
        for each in loops:
            await engine.submit(submission(each, ENDLESS))
        live = engine._shards.by_number[0].live
        await until(lambda: all(live[each].is_long for each in loops), "the loops to be long ones", 30)
        await until(lambda: len(engine._scheduler._resting) == 5, "the loops to rest", 30)
        began_s, before = monotonic_s(), sum(live[each].events_told_size_bytes for each in loops)
        for number in range(50):
            await engine.submit(submission(f"set-{number}", SET))
            await asyncio.sleep(0.01)  # time that passes is what this test is about
        told = sum(live[each].events_told_size_bytes for each in loops) - before
        slice_size_bytes = 2 * 250 * 250
        assert told <= (monotonic_s() - began_s + 1) * 200_000 + 5 * slice_size_bytes
        paused = (await engine.get("loop-3")).last_sequence
        await engine.pause("loop-3", "")
        await engine.resume("loop-3", "")
        assert (await engine.get("loop-3")).last_sequence >= paused + 2
        for each in loops:
            await asyncio.wait_for(engine.cancel(each, "", False), 5)
            await until_status(engine, each, "cancelled")
        assert not engine._scheduler._resting


async def test_endless_loop_ends_at_the_bound_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.EVENTS_PER_EXECUTION_MAX", 10_000)
    async with engine_on(folder()) as engine:
        await engine.submit(submission("loop", ENDLESS))
        view = await until_status(engine, "loop", "failed")
        assert view.error is not None
        assert "has 10000 events" in view.error["detail"]


async def test_execution_whose_events_take_too_much_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.EVENTS_PER_EXECUTION_SIZE_BYTES_MAX", 1_000_000)
    async with engine_on(folder()) as engine:
        await engine.submit(submission("loop", ENDLESS))
        await until_status(engine, "loop", "cancelled")
        await assert_whole(engine, "loop", "workflow_cancelled")


async def test_client_beyond_its_rate_is_refused_and_another_is_not() -> None:
    # At one per second, no moment in which the machine is slow gains the client another.
    async with engine_on(folder(), client_executions_per_s=1) as engine:
        await engine.submit(submission("fast-0", client="fast"))
        with pytest.raises(AtCapacity) as refusal:
            await engine.submit(submission("fast-1", client="fast"))
        assert 0 < refusal.value.retry_after_s <= 1
        await engine.submit(submission("other", client="other"))
        # What is known already is no new execution.
        await engine.submit(submission("fast-0", client="fast"))
        # What the refusal says; timers of the loop may be early by as much as its clock tells apart.
        await asyncio.sleep(refusal.value.retry_after_s + 0.05)
        await engine.submit(submission("fast-1", client="fast"))


async def test_new_executions_that_wait_for_their_commit_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.ADMISSION_EXECUTIONS_MIN", 10)
    monkeypatch.setattr("fastrunner.base.limits.UNCOMMITTED_EXECUTIONS_MAX", 20)
    async with engine_on(folder()) as engine:
        answers = await asyncio.gather(
            *(engine.submit(submission(f"execution-{n}", client="many")) for n in range(50)), return_exceptions=True
        )
        assert [type(each) for each in answers] == [str] * 20 + [AtCapacity] * 30
        assert engine._active_count == 0
        await engine.submit(submission("later", client="many"))
        assert not engine._admission._waiting


def test_a_pass_leaves_the_loop_to_others_in_time_for_a_call() -> None:
    """A call takes some five turns of the loop: endless loops may not make it wait longer than a refusal may take."""
    assert 5 * limits.ENGINE_PASS_MS / 1000 < 2 * limits.OVERLOAD_DELAY_S_MAX
