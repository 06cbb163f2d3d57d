"""The performer of `emit` over a real bus: what it fills in, what a repetition comes to, what is refused."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import limits
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from fastrunner.tasks import build_performers
from fastrunner.tasks.emit.perform import Emit
from tests.integration.http_calls import effect as any_effect

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
