"""Callbacks of a real engine over its real store: what runs is reported, also over restarts of either side."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.callback import CallbackPipeline
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.routing.placement import Places
from tests.integration.callbacks import TOKEN, receiving, until
from tests.integration.engines import CALL, SET, WAIT, Performer, folder, submission
from tests.ports import free_port

SHARDS = 2


@asynccontextmanager
async def reporting_engine(
    path: Path, port: int, performer: Performer | None = None
) -> AsyncIterator[tuple[EmbeddedEngine, CallbackPipeline]]:
    """An engine and its callbacks, started and stopped in the order a worker does it."""
    config = load_config(
        data_dir=path,
        stigmer_service_endpoint=f"127.0.0.1:{port}",
        stigmer_service_api_key=TOKEN,
        stigmer_service_use_tls=False,
    )
    metrics = Metrics(CollectorRegistry())
    engine = EmbeddedEngine(config, metrics, {"call_http": performer or Performer()}, places=Places.alone(SHARDS))
    pipeline = CallbackPipeline(config, engine.outbox, metrics)
    await engine.start()
    await pipeline.start()
    try:
        yield engine, pipeline
    finally:
        await engine.quiesce(1.0)
        await pipeline.drain(2.0)
        await engine.drain(1.0)


async def until_reported(engine: EmbeddedEngine, count: int) -> None:
    """Waits until every execution has ended and its last event is acknowledged durably."""
    async with asyncio.timeout(20):
        for number in range(count):
            view = await engine.get(f"e-{number}")
            while not view.finished_ms or view.acknowledged_sequence < view.last_sequence:
                await asyncio.sleep(0.01)
                view = await engine.get(view.execution_id)


async def test_every_event_is_reported_and_acknowledged() -> None:
    async with receiving() as (receiver, port), reporting_engine(folder(), port) as (engine, _):
        for number in range(100):
            await engine.submit(submission(f"e-{number}", WAIT if number % 2 else SET))
        await until_reported(engine, 100)
        stored = await engine.events("e-1", 1, 100)
        assert receiver.ledger.encoded("e-1") == stored
        assert await engine.outbox.unacknowledged(None, 1) == []
    assert receiver.ledger.violations == []
    assert receiver.ledger.summary().finished == 100


async def test_what_was_not_reported_is_after_a_restart() -> None:
    path, port = folder(), free_port()
    async with reporting_engine(path, port) as (engine, pipeline):
        for number in range(50):
            await engine.submit(submission(f"e-{number}"))
        for number in range(50, 60):
            await engine.submit(submission(f"e-{number}", WAIT))
        await until(lambda: pipeline.suspended, "nobody receives")
    async with receiving(port=port) as (receiver, _), reporting_engine(path, port) as (engine, _):
        for number in range(60, 80):
            await engine.submit(submission(f"e-{number}", WAIT))
        await until_reported(engine, 80)
    assert receiver.ledger.violations == []
    assert receiver.ledger.summary().finished == 80


async def test_what_ends_while_the_engine_drains_is_still_reported() -> None:
    performer = Performer()
    async with receiving() as (receiver, port):
        async with reporting_engine(folder(), port, performer) as (engine, _):
            await engine.submit(submission("e", CALL))
            await until(lambda: performer.performed, "an effect to start")
            asyncio.get_running_loop().call_later(0.1, performer.gate.set)
        stored = [WorkflowProgressEvent.FromString(message) for message in receiver.ledger.encoded("e")]
        assert "ask" in [event.task_name for event in stored if event.event_type == "task_completed"]


async def test_a_receiver_restarted_in_between_misses_nothing(tmp_path: Path) -> None:
    port, store = free_port(), tmp_path / "received.jsonl"
    async with reporting_engine(folder(), port) as (engine, pipeline):
        async with receiving(port=port, store=store):
            for number in range(30):
                await engine.submit(submission(f"e-{number}", WAIT))
        await until(lambda: pipeline.suspended, "nobody receives")
        for number in range(30, 60):
            await engine.submit(submission(f"e-{number}", WAIT))
        async with receiving(port=port, store=store) as (receiver, _):
            await until_reported(engine, 60)
    assert receiver.ledger.violations == []
    assert receiver.ledger.summary().finished == 60
