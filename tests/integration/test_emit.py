"""The performer of `emit` over a real bus: what it fills in, what a repetition comes to, what is refused."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.api import (
    GetExecutionRequest,
    GetExecutionResponse,
    WorkflowExecuteInput,
    WorkflowExecuteResponse,
)
from fastrunner.base import limits
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE
from fastrunner.tasks import build_performers
from fastrunner.tasks.emit.perform import Emit
from tests.integration.engines import document
from tests.integration.http_calls import effect as any_effect
from tests.integration.runner_process import SERVE, running, until

GIVEN = {"source": "/shop/order/1.0.0", "type": "order.placed", "data": {"order": 7}}


def effect(key: str) -> PerformEffect:
    asked = any_effect()
    return PerformEffect(asked.effect_id, "emit", asked.capsule, key, "/do/0/tell")


def run(folder: Path, main: Callable[[EventBus, EffectPerformer, Metrics], Awaitable[None]]) -> None:
    async def live() -> None:
        bus, metrics = EventBus(folder, lambda: None, Seals(), 600.0), Metrics(CollectorRegistry())
        performers = build_performers(load_config(), metrics, event_sink=bus)
        try:
            await main(bus, performers["emit"], metrics)
        finally:
            for performer in performers.values():
                await performer.close()
            await bus.close()

    asyncio.run(live())


async def emitted(performer: EffectPerformer, key: str, **more: Any) -> dict[str, Any]:
    outcome = await performer.perform(effect(key), {"event": GIVEN | more})
    assert isinstance(outcome, EffectResult), outcome
    event: dict[str, Any] = outcome.value
    return event


def test_the_output_is_the_event_as_it_was_published(tmp_path: Path) -> None:
    async def main(bus: EventBus, performer: EffectPerformer, metrics: Metrics) -> None:
        event = await emitted(performer, "order-1/do/0/tell//1")
        assert event == {"specversion": "1.0", "id": event["id"], "time": event["time"], **GIVEN}
        given = await emitted(performer, "order-1/do/1/tell//1", id="own", time="2026-01-31T12:00:00Z", subject="x")
        expected = {"specversion": "1.0", "id": "own", "time": "2026-01-31T12:00:00Z", "subject": "x", **GIVEN}
        assert given == expected
        stored = bus.after(0, 10)
        assert [each.event for each in stored] == [event, given]
        assert [each.namespaces for each in stored] == [None, None]
        assert metrics.effects.labels("emit", "completed").value == 2

    run(tmp_path, main)


def test_what_is_repeated_after_a_crash_is_published_once(tmp_path: Path) -> None:
    """Its output is the event of the first time; another task, iteration or attempt publishes another event."""

    async def main(bus: EventBus, performer: EffectPerformer, metrics: Metrics) -> None:
        later = Emit(bus, metrics, wall_ms=lambda: 1_900_000_000_000)
        first = await emitted(performer, "order-1/do/0/tell//1")
        assert await emitted(later, "order-1/do/0/tell//1") == first
        other = await emitted(later, "order-1/do/0/tell//2")
        assert (other["time"], other["id"] == first["id"]) == ("2030-03-17T17:46:40.000Z", False)
        assert [each.event for each in bus.after(0, 10)] == [first, other]

    run(tmp_path, main)


def test_what_is_published_is_not_told_as_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt would publish another event: where the file is written but cannot be read, that is waited for."""
    monkeypatch.setattr(limits, "COMMIT_RETRY_DELAY_S_MAX", 0.01)

    async def main(bus: EventBus, performer: EffectPerformer, metrics: Metrics) -> None:
        trouble = iter([True] * 3)
        bus._reading._db().set_progress_handler(lambda: next(trouble, False), 1)
        first = await emitted(performer, "order-1/do/0/tell//1")
        assert len(list(trouble)) == 3, "a new one is not read"
        trouble = iter([True] * 3)
        assert await emitted(performer, "order-1/do/0/tell//1") == first
        assert not list(trouble), "the first one is read as soon as it can be"
        assert [each.event for each in bus.after(0, 10)] == [first]
        assert metrics.effects.labels("emit", "failed").value == 0

    run(tmp_path, main)


def test_what_was_published_before_a_crash_is_not_refused_after_it(tmp_path: Path) -> None:
    async def main(bus: EventBus, performer: EffectPerformer, metrics: Metrics) -> None:
        first = await emitted(performer, "order-1/do/0/tell//1")
        bus._writing._db().set_progress_handler(lambda: True, 1)
        assert await emitted(performer, "order-1/do/0/tell//1") == first
        failure = await performer.perform(effect("order-1/do/1/tell//1"), {"event": GIVEN})
        assert isinstance(failure, EffectFailure)
        assert (failure.type, failure.status) == ("communication", 503)

    run(tmp_path, main)


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"time": "yesterday"}, 400, "emit: event.time is 'yesterday'"),
        ({"type": ""}, 400, "emit: event.type is missing"),
        ({"data": "x" * limits.EVENT_SIZE_BYTES_MAX}, 413, "put what is large elsewhere"),
    ],
)
def test_events_that_are_refused(tmp_path: Path, more: dict[str, Any], status: int, words: str) -> None:
    async def main(bus: EventBus, performer: EffectPerformer, metrics: Metrics) -> None:
        failure = await performer.perform(effect("x"), {"event": GIVEN | more})
        assert isinstance(failure, EffectFailure)
        assert (failure.type, failure.status, failure.title) == ("communication", status, "Event Not Published")
        assert words in failure.detail
        assert metrics.effects.labels("emit", "failed").value == 1
        assert bus.after(0, 10) == []

    run(tmp_path, main)


def test_events_that_find_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt may do, after a while that is told."""
    monkeypatch.setattr(limits, "EVENTS_RETAINED_COUNT_MAX", 1)

    async def main(bus: EventBus, performer: EffectPerformer, _: Metrics) -> None:
        first = await emitted(performer, "1")
        bus.reached("shard 0", bus.last_key() - 1)
        await bus.prune()
        failure = await performer.perform(effect("2"), {"event": GIVEN})
        assert isinstance(failure, EffectFailure)
        assert (failure.type, failure.status, failure.retry_after_ms) == ("communication", 503, 1_000)
        assert [each.event for each in bus.after(0, 10)] == [first]

    run(tmp_path, main)


EMITS = document(
    "  - tell:\n      emit: {event: {with: {type: order.placed, subject: '${ .order }', data: '${ . }'}}}\n", "emits"
)


async def _receive(requests: list[dict[str, Any]], port: "asyncio.Future[int]") -> None:
    async def take(request: web.Request) -> web.Response:
        requests.append(await request.json())
        return web.Response(status=202)

    app = web.Application()
    app.add_routes([web.post("/in", take)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port.set_result(runner.addresses[0][1])
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _call(channel: grpc.Channel, path: str, request: Any, reply: Any) -> Any:
    invoke = channel.unary_unary(f"/{path}", type(request).SerializeToString, response_deserializer=reply.FromString)
    return invoke(request, timeout=10)


@pytest.mark.parametrize("point", ["after-events-commit", "after-effect-end", "before-outcome-commit"])
async def test_a_workflow_emits_once_whenever_its_worker_dies(tmp_path: Path, point: str) -> None:
    """Its output is the event that everybody gets, sinks as well."""
    received: list[dict[str, Any]] = []
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    receiving = asyncio.create_task(_receive(received, port))
    settings = {
        "FASTRUNNER_WORKERS": "1",
        "FASTRUNNER_CRASH_POINT": point,
        "FASTRUNNER_EVENT_SINKS": f"http://127.0.0.1:{await port}/in",
    }

    def live() -> dict[str, Any]:
        with running(tmp_path / "data", SERVE, **settings) as runner:
            runner.wait_ready()
            [worker] = runner.workers()
            with grpc.insecure_channel(runner.target) as channel:
                asked = WorkflowExecuteInput(
                    workflow_execution_id="order-1", workflow_yaml=EMITS, input_json='{"order": "o-7"}'
                )

                def ended() -> Any:
                    with suppress(grpc.RpcError):
                        _call(channel, f"{COMMAND_SERVICE}/ExecuteAsync", asked, WorkflowExecuteResponse)
                        request = GetExecutionRequest(execution_id="order-1")
                        found = _call(channel, f"{QUERY_SERVICE}/GetExecution", request, GetExecutionResponse).execution
                        return found if found.status == "completed" else None
                    return None

                output: dict[str, Any] = json.loads(until(ended, 60.0).output_json)
            until(lambda: runner.replaced(worker["pid"]))
            until(lambda: received)
            assert runner.stop()[0] == 0
            return output

    try:
        output = await asyncio.to_thread(live)
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
    expected = {"source": "/tests/emits/1.0.0", "type": "order.placed", "subject": "o-7", "data": {"order": "o-7"}}
    assert output == {"specversion": "1.0", "id": output["id"], "time": output["time"], **expected}
    bus = EventBus(tmp_path / "data", lambda: None, Seals(), 600.0)
    assert [each.event for each in bus.after(0, 10)] == [output]
    await bus.close()
    # A note of what has been sent may be lost with its worker.
    assert received == [output] * len(received)
