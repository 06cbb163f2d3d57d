"""The embedded engine under SIGKILL: what was promised holds, wherever the process died."""

import asyncio
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import apsw
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest
from fastrunner.engine.embedded.store.event_rows import unpacked
from tests.crash.engine_child import STEPS
from tests.integration.calls import FAN_OUT_COUNT, ORDER
from tests.integration.engines import (
    CALL,
    Performer,
    all_events,
    assert_whole,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)

_ROOT = Path(__file__).parents[2]


async def _run_until_it_dies(path: Path, document: str, crash_point: str) -> None:
    """Runs the child with one execution, `one-1`, and another, until it kills itself."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.engine_child", str(path), "one", "2", document, crash_point,
        cwd=_ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await asyncio.wait_for(child.wait(), 30) == -signal.SIGKILL


async def _run_and_kill(path: Path, prefix: str, count: int, promises_count: int) -> list[str]:
    """Runs the child until it has given so many promises, kills it, and gives every promise it printed."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.engine_child", str(path), prefix, str(count),
        cwd=_ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    promises: list[str] = []
    try:
        while len(promises) < promises_count:
            line = await asyncio.wait_for(child.stdout.readline(), 30)
            assert line, "the child ended by itself"
            promises.append(line.decode().strip())
    finally:
        child.kill()
    promises += (await child.stdout.read()).decode().splitlines()
    await child.wait()
    return [promise for promise in promises if promise != "started"]


def _durable_events(path: Path) -> dict[str, bytes]:
    """The encoded events of every execution in the files, in sequence."""
    events: dict[str, bytes] = {}
    for file in sorted(path.glob("shard-*.db")):
        db = apsw.Connection(str(file))
        query = (
            "select execution_id, messages, events.format from events join executions using (execution_key)"
            " order by event_key"
        )
        for execution_id, messages, row_format in db.execute(query):
            events[execution_id] = events.get(execution_id, b"") + unpacked(messages, row_format)
        db.close()
    return events


def _by_verb(promises: list[str]) -> dict[str, set[str]]:
    """Execution ids by what was promised of them."""
    ids: dict[str, set[str]] = {"accepted": set(), "paused": set(), "cancelled": set()}
    for promise in promises:
        verb, execution_id = promise.split()
        ids[verb].add(execution_id)
    return ids


@pytest.mark.parametrize("seed", range(3))
async def test_promises_hold_over_three_kills(seed: int) -> None:
    chance = random.Random(seed)
    path = folder()
    promises: list[str] = []
    for number in range(3):
        promises += await _run_and_kill(path, f"round{number}", 60, chance.randrange(1, 70))
    before = _durable_events(path)
    performer = Performer()
    performer.gate.set()
    async with engine_on(path, performer, shards=2, drain_timeout_s=5) as engine:
        by_verb = _by_verb(promises)
        for execution_id in by_verb["paused"]:
            assert (await engine.get(execution_id)).status == "paused"
            await engine.resume(execution_id, "")
        # What was accepted without the caller ever hearing of it runs to its end as well.
        for execution_id in before:
            status = (await until_status(engine, execution_id, "completed", "cancelled", "paused")).status
            if status == "paused":
                await engine.resume(execution_id, "")
                status = (await until_status(engine, execution_id, "completed")).status
            assert (status == "cancelled") >= (execution_id in by_verb["cancelled"])
            await assert_whole(engine, execution_id, f"workflow_{status}")
        assert by_verb["accepted"] <= set(before)
    after = _durable_events(path)
    assert set(after) == set(before)
    for execution_id, messages in before.items():
        assert after[execution_id].startswith(messages)
    _assert_effects(path, performer, before)


def _assert_effects(path: Path, performer: Performer, executions: dict[str, bytes]) -> None:
    """Only effects in flight at a kill were performed again: at most one per execution and kill."""
    done = Counter((path / "effects").read_text().split())
    done.update(effect.idempotency_key for effect in performer.performed)
    repeated = Counter(key.split("/")[0] for key, count in done.items() for _ in range(count - 1))
    assert all(repeated[execution_id] <= 3 for execution_id in executions)
    assert set(repeated) <= set(executions)


async def test_completed_effects_are_not_repeated() -> None:
    path = folder()
    await _run_and_kill(path, "one", 40, 30)
    completed = {
        execution_id: sum(
            event.event_type == "task_completed" and event.task_name.startswith("ask")
            for event in ReportProgressBatchRequest.FromString(messages).events
        )
        for execution_id, messages in _durable_events(path).items()
    }
    performer = Performer()
    performer.gate.set()
    async with engine_on(path, performer, shards=2, drain_timeout_s=5) as engine:
        for execution_id in completed:
            status = (await until_status(engine, execution_id, "completed", "cancelled", "paused")).status
            if status == "paused":
                await engine.resume(execution_id, "")
                await until_status(engine, execution_id, "completed")
    performed = Counter(effect.idempotency_key.split("/")[0] for effect in performer.performed)
    for execution_id, count in completed.items():
        assert performed[execution_id] <= 10 - count


async def test_effect_in_flight_is_performed_again_with_the_same_key() -> None:
    path = folder()
    await _run_and_kill(path, "one", 5, 1)
    before = (path / "effects").read_text().split() if (path / "effects").exists() else []
    performer = Performer()
    performer.gate.set()
    async with engine_on(path, performer, shards=2, drain_timeout_s=5) as engine:
        assert await engine.submit(submission("one-1", STEPS)) == "running"
        await until_status(engine, "one-1", "completed")
        await assert_whole(engine, "one-1", "workflow_completed")
    keys = {key for key in before if key.startswith("one-1/")}
    keys |= {effect.idempotency_key for effect in performer.performed if effect.idempotency_key.startswith("one-1/")}
    assert len(keys) == 10


@pytest.mark.parametrize("point", ["before-effect-start", "before-effect-end", "after-effect-end"])
@pytest.mark.parametrize(("document", "status"), [("unrenderable", "failed"), ("caught", "completed")])
async def test_effect_that_cannot_be_rendered_fails_its_task_whenever_it_starts(
    document: str, status: str, point: str
) -> None:
    path = folder()
    await _run_until_it_dies(path, document, point)
    performer = Performer()
    async with engine_on(path, performer, shards=2) as engine:
        view = await until_status(engine, "one-1", status)
        assert "task_failed" in await assert_whole(engine, "one-1", f"workflow_{status}")
        [failed] = [each for each in await all_events(engine, "one-1") if each.event_type == "task_failed"]
        assert failed.error.type.endswith("/expression")
        assert failed.error.instance == failed.task_reference
        assert view.error is None or view.error["instance"] == failed.task_reference
    assert performer.performed == []


async def test_calls_of_a_fan_out_are_performed_again_with_the_same_arguments() -> None:
    path = folder()
    await _run_until_it_dies(path, "fan-out", f"before-effect-end:{FAN_OUT_COUNT // 2}")
    before = [key for key in (path / "effects").read_text().split() if key.startswith("one-1/")]
    performer = Performer()
    performer.gate.set()
    async with engine_on(path, performer, shards=2, drain_timeout_s=5) as engine:
        await until_status(engine, "one-1", "completed")
        await assert_whole(engine, "one-1", "workflow_completed")
    again = {
        effect.idempotency_key: arguments["body"]
        for effect, arguments in zip(performer.performed, performer.arguments, strict=True)
        if effect.idempotency_key.startswith("one-1/")
    }
    assert set(before) | set(again) == {f"one-1/do/0/all/fork/branches/{n}/ask{n}/1/1" for n in range(FAN_OUT_COUNT)}
    assert all(body == ORDER for body in again.values())


async def test_kill_before_any_promise_leaves_a_directory_that_opens() -> None:
    path = folder()
    await _run_and_kill(path, "one", 200, 1)
    performer = Performer()
    async with engine_on(path, performer, shards=2) as engine:
        await engine.submit(submission("fresh", CALL))
        await until(lambda: performer.performed, "an effect to start")
