"""Stage 5, tasks: effects are rendered when they start, the same after every restart, and small while they wait."""

import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from fastrunner.base import crash, limits
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import Damaged
from tests.integration.calls import CAUGHT, FAN_OUT, FAN_OUT_COUNT, ORDER, ORDER_JSON, UNRENDERABLE
from tests.integration.engines import (
    CALL,
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


def _snapshot_sizes(path: Path) -> list[int]:
    """What each execution's state takes in the file, its pieces stored elsewhere included."""
    query = """
        select length(snapshot) + coalesce((
            select sum(length(value)) from claims join large_values using (hash)
            where claims.execution_key = snapshots.execution_key
        ), 0) from snapshots
    """
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        return [size for (size,) in db.execute(query)]


async def _failed_task(engine: EmbeddedEngine, execution_id: str) -> Any:
    [event] = [each for each in await all_events(engine, execution_id) if each.event_type == "task_failed"]
    return event


# --- arguments that cannot be rendered ---


async def test_arguments_that_cannot_be_rendered_fail_their_task() -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("one", UNRENDERABLE))
        view = await until_status(engine, "one", "failed")
        assert view.error is not None
        assert (view.error["type"].rpartition("/")[2], view.error["instance"]) == ("expression", "/do/0/ask")
        assert "no body" in view.error["detail"]
        event = await _failed_task(engine, "one")
        assert (event.task_reference, event.error.instance) == ("/do/0/ask", "/do/0/ask")
        assert event.error.type == view.error["type"]
        await assert_whole(engine, "one", "workflow_failed")
    assert performer.performed == []


async def test_arguments_that_cannot_be_rendered_can_be_caught() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", CAUGHT))
        view = await until_status(engine, "one", "completed")
        assert json.loads(view.output_json) == {"at": "/do/0/careful/try/0/ask"}


@pytest.mark.parametrize(("text", "status"), [(UNRENDERABLE, "failed"), (CAUGHT, "completed")])
async def test_restart_between_the_commit_and_the_start_of_such_an_effect(
    text: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder()
    with monkeypatch.context() as patch:
        patch.setattr(limits, "EFFECTS_IN_FLIGHT_PER_WORKER_MAX", 0)
        async with engine_on(path) as engine:
            assert await engine.submit(submission("one", text)) == "running"
    performer = Performer()
    async with engine_on(path, performer) as engine:
        view = await until_status(engine, "one", status)
        assert "task_failed" in await assert_whole(engine, "one", f"workflow_{status}")
        assert (view.error is not None) == (status == "failed")
    assert performer.performed == []


async def test_such_an_outcome_is_held_while_paused_and_dropped_when_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with engine_on(folder()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(limits, "EFFECTS_IN_FLIGHT_PER_WORKER_MAX", 0)
            for execution_id in ("paused", "cancelled"):
                await engine.submit(submission(execution_id, UNRENDERABLE))
            await engine.pause("paused", "")
            await engine.cancel("cancelled", "", True)
        engine._effects._plan_pass()
        await until(lambda: not engine._shards.by_number[0].live["paused"].effects_unstarted, "the effect to start")
        assert (await engine.get("paused")).status == "paused"
        assert (await engine.get("cancelled")).status == "cancelled"
        await engine.resume("paused", "")
        await until_status(engine, "paused", "failed")
        await assert_whole(engine, "paused", "workflow_failed")
        assert "task_failed" not in await assert_whole(engine, "cancelled", "workflow_cancelled")


@pytest.mark.parametrize("point", ["before-effect-start", "before-effect-end", "after-effect-end"])
async def test_such_an_effect_reaches_the_crash_points_of_any_other(
    point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []
    monkeypatch.setattr(crash, "reach", reached.append)
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", UNRENDERABLE))
        await until_status(engine, "one", "failed")
    assert reached.count(point) == 1


async def test_render_that_breaks_fails_its_task_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a performer that raises does."""

    def broken(capsule: object, secrets: object) -> None:
        raise KeyError("defect")

    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        walk = SimpleNamespace(plan=SimpleNamespace(render=broken))
        begin = engine._effects._begin

        def begin_broken(execution: Any, effect_id: int) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(execution, "walk", walk)
                begin(execution, effect_id)

        monkeypatch.setattr(engine._effects, "_begin", begin_broken)
        await engine.submit(submission("one", FAN_OUT.partition("          - ask1:")[0], input_json=ORDER_JSON))
        view = await until_status(engine, "one", "failed")
        assert view.error is not None
        assert (view.error["status"], view.error["title"]) == (500, "Internal error")
        assert "defect" not in str(view.error)
    assert performer.performed == []


# --- what waits is small ---


async def test_fan_out_does_not_write_its_order_for_every_call() -> None:
    path, first, second = folder(), Performer(), Performer()
    async with engine_on(path, first) as engine:
        await engine.submit(submission("fan", FAN_OUT, input_json=ORDER_JSON))
        await until(lambda: len(first.performed) == FAN_OUT_COUNT, "every call to start")
        [size] = _snapshot_sizes(path)
        assert len(ORDER_JSON) > 20_000
        # The order is the input, which is stored with the request: the state only says where it is.
        assert size < 20_000
    second.gate.set()
    async with engine_on(path, second) as engine:
        await until_status(engine, "fan", "completed")
        await assert_whole(engine, "fan", "workflow_completed")
    for performer in (first, second):
        assert all(arguments["body"] == ORDER for arguments in performer.arguments)
        keys = [effect.idempotency_key for effect in performer.performed]
        assert keys == [f"fan/do/0/all/fork/branches/{n}/ask{n}/1/1" for n in range(FAN_OUT_COUNT)]


async def test_data_that_is_no_input_is_written_once() -> None:
    path, performer = folder(), Performer()
    made = FAN_OUT.replace(
        "do:\n",
        "do:\n  - make:\n      set: {lines: '${ [range(400) | {number: ., text: \"a line of the order\"}] }'}\n",
        1,
    )
    async with engine_on(path, performer) as engine:
        await engine.submit(submission("fan", made))
        await until(lambda: len(performer.performed) == FAN_OUT_COUNT, "every call to start")
        order_size = len(json.dumps(performer.arguments[0]["body"]))
        assert order_size > 15_000
        [size] = _snapshot_sizes(path)
        assert size < order_size + 25_000


# --- what the engine fails on ---


LISTEN = "  - hear:\n      listen: {to: {any: []}}\n"


def _deaf(*_: object) -> None:
    raise ValueError("nobody can be entered")


async def test_who_waits_for_an_execution_that_cannot_listen_hears_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_on(folder()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("fastrunner.engine.embedded.listeners.registry.Registry.add", _deaf)
            with pytest.raises(RuntimeError, match="failed on this execution"):
                await engine.submit(submission("one", document(LISTEN)))
        assert await engine.submit(submission("two")) == "running"


async def test_one_that_cannot_listen_later_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays as its last commit has it, and whoever commands it hears so."""
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("one", CALL.partition("  - keep")[0] + LISTEN))
        await until(lambda: performer.performed, "the call to start")
        with monkeypatch.context() as patch:
            patch.setattr("fastrunner.engine.embedded.listeners.registry.Registry.add", _deaf)
            performer.gate.set()
            await until(lambda: engine._shards.by_number[0].live["one"].broken, "it to be set aside")
        with pytest.raises(Damaged, match="out of service"):
            await engine.cancel("one", "", True)
        assert (await engine.get("one")).status == "running"


async def test_effect_of_an_execution_that_is_set_aside_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(limits, "EFFECTS_IN_FLIGHT_PER_WORKER_MAX", 0)
            await engine.submit(submission("one", CALL))
            shard = engine._shards.by_number[0]
            await until(lambda: engine._effects.waiting_count, "the effect to wait")
            shard.quarantine(shard.live["one"])
        await engine.submit(submission("two", CALL))
        await until(lambda: performer.performed, "another's effect to start")
    assert [effect.idempotency_key.partition("/")[0] for effect in performer.performed] == ["two"]


# --- who starts when ---


async def test_effects_of_clients_start_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fan-out of one client is not in the way of another's single call."""
    performer = Performer()
    one = FAN_OUT.partition("          - ask1:")[0]
    async with engine_on(folder(), performer) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(limits, "EFFECTS_IN_FLIGHT_PER_WORKER_MAX", 0)
            await engine.submit(submission("fan", FAN_OUT, client="many"))
            await engine.submit(submission("single", one, client="one"))
        engine._effects._plan_pass()
        await until(lambda: len(performer.performed) == FAN_OUT_COUNT + 1, "every call to start")
    names = [effect.idempotency_key.partition("/")[0] for effect in performer.performed]
    assert names.index("single") == 1
    numbers = [
        effect.reference.rpartition("/ask")[2] for effect in performer.performed if "fan/" in effect.idempotency_key
    ]
    assert numbers == [str(n) for n in range(FAN_OUT_COUNT)]
