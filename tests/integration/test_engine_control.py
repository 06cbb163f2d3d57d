"""The embedded engine obeys: cancel, pause and resume, in every state, and over restarts."""

import asyncio
import json

import pytest

from fastrunner._core import Compilation, EffectFailure
from fastrunner.engine.embedded.admit import compiling
from fastrunner.errors import DocumentRefused, UnknownExecution, WrongState
from tests.integration.engines import (
    CALL,
    ENDLESS,
    SET,
    WAIT,
    Performer,
    assert_whole,
    document,
    engine_on,
    events_of,
    folder,
    submission,
    until,
    until_status,
)

LONG_WAIT = document("  - rest:\n      wait: {hours: 1}\n  - then:\n      set: {rested: true}\n")
RETRYING = document(
    "  - attempt:\n      try:\n        - ask:\n            call: http\n"
    "            with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
    "      catch:\n        errors: {}\n        retry:\n"
    "          delay: {hours: 1}\n          limit: {attempt: {count: 5}}\n"
)
FORKED = document(
    "  - both:\n      fork:\n        branches:\n"
    "          - left:\n              wait: {hours: 1}\n"
    "          - right:\n              call: http\n"
    "              with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
)


async def test_unknown_execution_is_not_found() -> None:
    async with engine_on(folder()) as engine:
        for command in (engine.cancel("x", "", False), engine.pause("x", ""), engine.resume("x", ""), engine.get("x")):
            with pytest.raises(UnknownExecution):
                await command


async def test_commands_to_a_finished_execution() -> None:
    path = folder()
    for _ in range(2):  # in memory just before, then only in the file
        async with engine_on(path) as engine:
            await engine.submit(submission("one", SET))
            for command in (engine.cancel("one", "", True), engine.pause("one", ""), engine.resume("one", "")):
                with pytest.raises(WrongState):
                    await command
            await assert_whole(engine, "one", "workflow_completed")


async def test_commands_to_a_cancelled_execution() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", LONG_WAIT))
        await engine.cancel("one", "enough", False)
        assert (await until_status(engine, "one", "cancelled")).finished_ms > 0
        await engine.cancel("one", "enough", False)
        await engine.cancel("one", "enough", True)
        for command in (engine.pause("one", ""), engine.resume("one", "")):
            with pytest.raises(WrongState):
                await command
        await assert_whole(engine, "one", "workflow_cancelled")


@pytest.mark.parametrize("text", [LONG_WAIT, ENDLESS], ids=["waiting", "endless"])
async def test_execution_is_cancelled_whatever_it_does(text: str) -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", text))
        await engine.cancel("one", "enough", False)
        await until_status(engine, "one", "cancelled")
        await assert_whole(engine, "one", "workflow_cancelled")


async def test_graceful_cancel_lets_the_effect_end() -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("one", CALL))
        await until(lambda: performer.performed, "the effect to start")
        await engine.cancel("one", "enough", False)
        assert (await engine.get("one")).finished_ms == 0
        performer.gate.set()
        await until_status(engine, "one", "cancelled")
        assert not performer.interrupted
        types = await assert_whole(engine, "one", "workflow_cancelled")
        assert types.count("task_started") == 1


async def test_graceful_cancel_interrupts_after_the_grace_period() -> None:
    performer = Performer()
    async with engine_on(folder(), performer, cancel_grace_s=0.1) as engine:
        await engine.submit(submission("one", CALL))
        await until(lambda: performer.performed, "the effect to start")
        await engine.cancel("one", "enough", False)
        await until_status(engine, "one", "cancelled")
        await until(lambda: performer.interrupted, "the effect to be aborted")


async def test_forced_cancel_interrupts_the_effect_now() -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("one", CALL))
        await until(lambda: performer.performed, "the effect to start")
        await engine.cancel("one", "enough", False)
        await engine.cancel("one", "enough now", True)
        assert (await engine.get("one")).status == "cancelled"
        await until(lambda: performer.interrupted, "the effect to be aborted")
        await assert_whole(engine, "one", "workflow_cancelled")


async def test_execution_between_retries_is_cancelled() -> None:
    performer = Performer(failure=EffectFailure(0, "communication", 503, "Unavailable", ""))
    performer.gate.set()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("one", RETRYING))
        await until(lambda: performer.performed, "the first attempt")
        await engine.pause("one", "")
        await engine.resume("one", "")
        await engine.cancel("one", "enough", False)
        await until_status(engine, "one", "cancelled")
        assert len(performer.performed) == 1
        await assert_whole(engine, "one", "workflow_cancelled")


async def test_forked_execution_is_paused_resumed_and_cancelled() -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("one", FORKED))
        await until(lambda: performer.performed, "the branch's effect to start")
        await engine.pause("one", "")
        performer.gate.set()
        await until(lambda: not engine._effects._tasks, "the effect to end")
        await engine.resume("one", "")
        assert (await engine.get("one")).status == "running"
        await engine.cancel("one", "enough", True)
        await until_status(engine, "one", "cancelled")
        await assert_whole(engine, "one", "workflow_cancelled")


async def test_paused_execution_starts_nothing_and_repeats_nothing() -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("one", CALL))
        await until(lambda: performer.performed, "the effect to start")
        await engine.pause("one", "lunch")
        await engine.pause("one", "lunch")
        assert (await engine.get("one")).status == "paused"
        performer.gate.set()
        await until(lambda: not engine._effects._tasks, "the effect to end")
        assert (await engine.get("one")).status == "paused"
        await engine.resume("one", "back")
        await until_status(engine, "one", "completed")
        with pytest.raises(WrongState):
            await engine.resume("one", "back")
        types = await assert_whole(engine, "one", "workflow_completed")
        assert (types.count("workflow_paused"), types.count("workflow_resumed")) == (1, 1)
        assert types.count("task_started") == 2
        assert len(performer.performed) == 1


async def test_resume_of_a_running_execution_does_nothing() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", LONG_WAIT))
        await engine.resume("one", "")
        assert "workflow_resumed" not in await events_of(engine, "one")


async def test_pause_survives_a_restart() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("wait", WAIT))
        await engine.submit(submission("loop", ENDLESS))
        await engine.pause("wait", "")
        await engine.pause("loop", "")
    async with engine_on(path) as engine:
        before = {each: (await engine.get(each)).last_sequence for each in ("wait", "loop")}
        await asyncio.sleep(0.3)  # longer than the wait lasts: time that passes is what this test is about
        for each in ("wait", "loop"):
            view = await engine.get(each)
            assert (view.status, view.last_sequence) == ("paused", before[each])
        await engine.resume("wait", "")
        await engine.resume("loop", "")
        await until_status(engine, "wait", "completed")
        await engine.cancel("loop", "", False)
        await until_status(engine, "loop", "cancelled")
        for each, terminal in (("wait", "workflow_completed"), ("loop", "workflow_cancelled")):
            types = await assert_whole(engine, each, terminal)
            assert (types.count("workflow_paused"), types.count("workflow_resumed")) == (1, 1)


async def test_executions_of_earlier_versions_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their documents met fewer rules; submissions of the same ones meet all."""
    path = folder()
    old = document("  - rest:\n      wait: {milliseconds: 200}\n  - end:\n      set: {text: '${ .a } and ${ .b }'}\n")
    with monkeypatch.context() as earlier:
        earlier.setattr(compiling, "Compilation", lambda text, **given: Compilation(text, stored=True, **given))
        async with engine_on(path) as engine:
            await engine.submit(submission("one", old))
            await engine.pause("one", "")
    async with engine_on(path) as engine:
        await engine.resume("one", "")
        await until_status(engine, "one", "completed")
        await assert_whole(engine, "one", "workflow_completed")
        view = await engine.get("one")
        assert json.loads(view.output_json) == {"text": "${ .a } and ${ .b }"}
        with pytest.raises(DocumentRefused) as refused:
            await engine.submit(submission("two", old))
        assert [problem.code for problem in refused.value.problems] == ["reserved-name", "invalid-expression"]


async def test_endless_loop_does_not_starve_others_and_obeys() -> None:
    async with engine_on(folder()) as engine:
        for number in range(3):
            await engine.submit(submission(f"loop-{number}", ENDLESS))
        for number in range(20):
            await asyncio.wait_for(engine.submit(submission(f"set-{number}")), 5)
            assert (await engine.get(f"set-{number}")).status == "completed"
        loop = engine._shards.by_number[0].live["loop-0"]
        before = (await engine.get("loop-0")).last_sequence
        await engine.pause("loop-0", "")
        paused_at = (await engine.get("loop-0")).last_sequence
        assert paused_at > before
        assert loop.events_size_bytes == 0
        await engine.submit(submission("after"))
        assert (await engine.get("loop-0")).last_sequence == paused_at
        await engine.resume("loop-0", "")
        for number in range(3):
            await asyncio.wait_for(engine.cancel(f"loop-{number}", "", number == 1), 5)
            await until_status(engine, f"loop-{number}", "cancelled")
