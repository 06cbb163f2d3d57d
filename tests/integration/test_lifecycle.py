"""Lifecycle CloudEvents: real servers in every mode, that are away, refuse, come back; restarts, deaths, retention."""

import asyncio
import json
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from fastrunner.access.egress import Egress
from fastrunner.access.sealing import DataKeys
from fastrunner.base import clock, limits
from fastrunner.base.sinks import Mode, SinkAddress
from fastrunner.config import ConfigurationError, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import UnknownExecution, WrongState
from fastrunner.events.lifecycle.sender import Lifecycle
from fastrunner.tasks.emit.sinks import HttpPost
from tests.integration.engines import SET, all_events, document, engine_on, folder, submission, until, until_status
from tests.integration.runner_process import SERVE, running
from tests.integration.runner_process import until as until_blocking
from tests.integration.test_event_sinks import Receiver, receiving
from tests.integration.test_placement_runner import connections

PREFIX = "io.serverlessworkflow."
HOUR = document("  - rest:\n      wait: {hours: 1}\n")
FAULTY = document(
    "  - attempt:\n"
    "      try:\n"
    "        - boom:\n"
    "            raise: {error: {type: https://example.com/full, status: 507, title: Full, detail: no room}}\n"
    "      catch:\n"
    "        errors: {with: {status: 507}}\n"
    "        retry: {delay: {milliseconds: 1}, limit: {attempt: {count: 1}}}\n",
    "faulty",
)
OF_SET = ["1", "4-created", "4", "5", "6-created", "6", "7", "8"]
"""What is behind the execution's id in the ids of its events."""


class Told:
    """What a receiver has taken, as CloudEvents' own library reads it."""

    def __init__(self, receiver: Receiver) -> None:
        self.of: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        """Events by execution and id, the first ones first."""
        for (headers, body), status in zip(receiver.requests, receiver.answers, strict=True):
            if status >= 300:
                continue
            if headers["Content-Type"].startswith("application/cloudevents-batch+json"):
                structured = {"Content-Type": "application/cloudevents+json"}
                messages = [HTTPMessage(structured, json.dumps(each).encode()) for each in json.loads(body)]
            else:
                messages = [HTTPMessage(headers, body)]
            for event in map(from_http_event, messages):
                same = self.of[str(event.get_subject())].setdefault(event.get_id(), event)
                assert (same.get_data(), same.get_type(), same.get_time()) == (
                    event.get_data(),
                    event.get_type(),
                    event.get_time(),
                )

    def ids(self, execution_id: str) -> list[str]:
        return [each.removeprefix(f"{execution_id}-") for each in self.of[execution_id]]

    def types(self, execution_id: str) -> list[str]:
        return [event.get_type().removeprefix(PREFIX).removesuffix(".v1") for event in self.of[execution_id].values()]


class Sending:
    """Who sends for an engine."""

    def __init__(self, path: Path, sinks: str, **settings: Any) -> None:
        config = load_config(data_dir=path, lifecycle_sinks=sinks, **settings)
        assert config.lifecycle_sinks is not None
        self.metrics = Metrics()
        post = HttpPost(config, self.metrics, Egress.of(config))
        addresses = SinkAddress.parse_all(config.lifecycle_sinks.get_secret_value())
        self.lifecycle = Lifecycle(path, addresses, post, self.metrics, wall_ms=clock.wall_ms)

    def count(self, outcome: str) -> float:
        return self.metrics.lifecycle_events.labels(outcome).value


@asynccontextmanager
async def telling(
    path: Path, sinks: str, *, shards: int = 1, **settings: Any
) -> AsyncIterator[tuple[EmbeddedEngine, Sending]]:
    """An engine whose lifecycle goes to sinks."""
    async with engine_on(path, shards=shards, lifecycle_sinks=sinks, **settings) as engine:
        for name in ("wall_ms", "data_keys"):
            settings.pop(name, None)
        sending = Sending(path, sinks, **settings)
        await sending.lifecycle.begin(engine.feed.rows())
        try:
            yield engine, sending
        finally:
            await sending.lifecycle.close()


def at(port: int) -> str:
    return f"http://127.0.0.1:{port}/in"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_LOOK_INTERVAL_S", 0.02)
    monkeypatch.setattr(limits, "EVENT_SINK_LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(limits, "EVENT_SINK_PAUSE_S_MIN", 0.01)
    monkeypatch.setattr(limits, "EVENT_SINK_PAUSE_S_MAX", 0.1)


@pytest.mark.parametrize("mode", list(Mode))
async def test_what_sinks_are_told(mode: Mode) -> None:
    async with receiving() as receiver, telling(folder(), f"{mode}:{at(receiver.port)}") as (engine, sending):
        await engine.submit(submission("fine", SET))
        await engine.submit(submission("bad", FAULTY))
        await engine.submit(submission("stopped", HOUR))
        await engine.pause("stopped", "")
        await engine.resume("stopped", "")
        await engine.cancel("stopped", "", force=True)
        await until_status(engine, "bad", "failed")
        events = {name: await all_events(engine, name) for name in ("fine", "bad", "stopped")}
        await until(lambda: sending.count("delivered") == 8 + 12 + 6, "all of them to be taken")
    told = Told(receiver)
    assert told.ids("fine") == OF_SET
    task = ["task.created", "task.started"]
    done = [*task, "task.completed"]
    assert told.types("fine") == ["workflow.started", *done, *done, "workflow.completed"]
    tried = [*task, "task.faulted", "task.retried", *task, "task.faulted"]
    assert told.types("bad") == ["workflow.started", *task, *tried, "task.faulted", "workflow.faulted"]
    paused = ["workflow.suspended", "workflow.resumed"]
    assert told.types("stopped") == ["workflow.started", *task, *paused, "workflow.cancelled"]
    for execution_id, found in told.of.items():
        name = "faulty" if execution_id == "bad" else "test"
        times = {event.sequence_number: event.timestamp_ms for event in events[execution_id]}
        for event_id, event in found.items():
            assert event.get_source() == f"/tests/{name}/1.0.0"
            sequence = int(event_id.removeprefix(f"{execution_id}-").removesuffix("-created"))
            assert event.get_time() == datetime.fromisoformat(_moment(event))
            assert round(event.get_time().timestamp() * 1000) == times[sequence]
            assert "outputUri" not in event.get_data()
    data = [_without_moment(event) for event in told.of["fine"].values()]
    definition = {"namespace": "tests", "name": "test", "version": "1.0.0"}
    assert data[0] == {"name": "test-fine.tests", "definition": definition}
    assert data[1:4] == [{"workflow": "test-fine.tests", "task": "/do/0/one"}] * 3
    assert data[-1] == {"name": "test-fine.tests"}
    error = {"type": "https://example.com/full", "status": 507, "title": "Full", "detail": "no room"}
    *_, fault = (_without_moment(event) for event in told.of["bad"].values())
    instance = fault["error"].pop("instance")
    assert fault == {"name": "faulty-bad.tests", "error": error}
    assert instance == "/do/0/attempt/try/0/boom"


def _moment(event: Any) -> str:
    [moment] = [value for name, value in event.get_data().items() if name.endswith("At")]
    return str(moment)


def _without_moment(event: Any) -> dict[str, Any]:
    return {name: value for name, value in event.get_data().items() if not name.endswith("At")}


async def test_a_sink_that_is_down_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """It gets all in order for each execution, through restarts; the other sink is not held up."""
    caplog.set_level("INFO")
    path = folder()
    async with receiving() as well, receiving() as failing:
        failing.answer = lambda _: 503
        sinks = f"{at(well.port)} batch:http://user:secret@127.0.0.1:{failing.port}/in"
        async with telling(path, sinks, shards=2) as (engine, sending):
            for number in range(5):
                await engine.submit(submission(f"early-{number}", SET))
            await until(lambda: sending.count("delivered") == 40 and len(failing.attempts) > 2, "one to have all")
            assert sending.metrics.lifecycle_sinks_failing.value == 1
            await until(lambda: sending.metrics.lifecycle_oldest_age.value > 0, "the age of the oldest")
        failing.answer = lambda _: 204
        async with telling(path, sinks, shards=2) as (engine, sending):
            for number in range(5):
                await engine.submit(submission(f"late-{number}", SET))
            await until(lambda: len(set(failing.taken)) == 80 and len(set(well.taken)) == 80, "both to have all")
            await until(lambda: sending.metrics.lifecycle_oldest_age.value == 0, "nothing to wait")
            assert sending.metrics.lifecycle_sinks_failing.value == 0
        for receiver in (well, failing):
            told = Told(receiver)
            assert len(told.of) == 10
            assert all(told.ids(execution_id) == OF_SET for execution_id in [*told.of])
        assert len(well.taken) == 80
    assert "it answers with status 503" in caplog.text
    assert "secret" not in caplog.text


async def test_what_a_sink_lacks_is_not_deleted(caplog: pytest.LogCaptureFixture) -> None:
    """But not kept for ever: it goes when it is as old as what the outbox gives up, and is counted."""
    path = folder()
    later_ms = 0
    async with receiving() as receiver:
        receiver.answer = lambda _: 503
        settings: dict[str, Any] = {"retention_count": 0, "wall_ms": lambda: clock.wall_ms() + later_ms}
        async with telling(path, at(receiver.port), **settings) as (engine, _):
            await engine.submit(submission("one", SET))
            await engine.submit(submission("two", SET))
            shard = engine._shards.by_number[0]
            await until(lambda: receiver.attempts, "a request")
            for _ in range(3):
                shard.retain()
                await engine.submit(submission("waits", HOUR))
            assert shard.retention.finished_count == 2
            with pytest.raises(WrongState, match="'one' has events that lifecycle sinks are still to have"):
                await engine.delete("one")
            later_ms = int(limits.OUTBOX_AGE_S_MAX * 1000) + 60_000

            def gone() -> bool:
                shard.retain()
                return shard.retention.finished_count == 0

            await until(gone, "what is too old to be deleted")
            assert "dropped 16 events that a lifecycle sink did not take in time" in caplog.text
            assert engine._metrics.lifecycle_events.labels("dropped").value == 16
            receiver.answer = lambda _: 200
            await until(lambda: any("waits-" in each for each in receiver.taken), "what is still there")


async def test_what_sinks_have_is_deleted() -> None:
    async with receiving() as receiver:
        async with telling(folder(), at(receiver.port), retention_count=1) as (engine, sending):
            for number in range(3):
                await engine.submit(submission(f"e-{number}", SET))
            shard = engine._shards.by_number[0]

            def gone() -> bool:
                shard.retain()
                return shard.retention.finished_count == 1

            await until(gone, "two of them to be deleted")
            await until(lambda: sending.count("delivered") == 24, "all to be sent")
            await engine.delete("e-2")
            with pytest.raises(UnknownExecution):
                await engine.get("e-2")
        told = Told(receiver)
        assert [told.ids(f"e-{number}") for number in range(3)] == [OF_SET] * 3


async def test_sinks_that_come_and_go() -> None:
    """A new one begins there; one that was away goes on where it was; a new shard is sent from its beginning."""
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("before", SET))
    async with receiving() as first, receiving() as second:
        async with telling(path, at(first.port)) as (engine, sending):
            await engine.submit(submission("one", SET))
            await until(lambda: sending.count("delivered") == 8, "the first sink to have it")
        async with telling(path, at(second.port)) as (engine, sending):
            await engine.submit(submission("two", SET))
            await until(lambda: sending.count("delivered") == 8, "the second sink to have it")
        async with telling(path, f"{at(first.port)} {at(second.port)}", shards=2) as (engine, sending):
            await until(lambda: sending.count("delivered") == 8, "the first sink to have what came meanwhile")
            await engine.submit(submission("three", SET))
            await until(lambda: sending.count("delivered") == 24, "both to have what is new")
        assert [*Told(first).of] == ["one", "two", "three"]
        assert [*Told(second).of] == ["two", "three"]


async def test_a_shard_that_is_restored_to_what_it_was_before() -> None:
    """What it executes then has numbers that a sink has had, and is sent all the same."""
    path, backup = folder(), folder()
    async with receiving() as receiver:
        for execution_id in ("one", "two"):
            async with telling(path, at(receiver.port)) as (engine, sending):
                await engine.submit(submission(execution_id, SET))
                await until(lambda: sending.count("delivered") == 8, "the sink to have it")
            if execution_id == "one":
                shutil.copytree(path, backup, dirs_exist_ok=True)
        for file in path.glob("shard-*"):
            file.unlink()
        for file in backup.glob("shard-*"):
            shutil.copy(file, path)
        async with telling(path, at(receiver.port)) as (engine, sending):
            await engine.submit(submission("three", SET))
            await until(lambda: sending.count("delivered") == 8, "the sink to have what is new")
        assert [*Told(receiver).of] == ["one", "two", "three"]


async def test_sealed_events_are_sent_open() -> None:
    async with receiving() as receiver:
        keys = DataKeys({"one": bytes(32)})
        async with telling(folder(), at(receiver.port), data_keys=keys) as (engine, sending):
            await engine.submit(submission("one", FAULTY))
            await until(lambda: sending.count("delivered") == 12, "all to be taken")
        assert [*Told(receiver).of["one"].values()][-1].get_data()["error"]["detail"] == "no room"


@pytest.mark.parametrize("mode", [Mode.STRUCTURED, Mode.BATCH])
async def test_an_event_that_a_sink_refuses_is_passed_over(mode: Mode) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda ids: 413 if "one-4" in ids else 200
        async with telling(folder(), f"{mode}:{at(receiver.port)}") as (engine, sending):
            await engine.submit(submission("one", SET))
            await engine.submit(submission("two", SET))
            await until(lambda: "two-8" in receiver.taken, "the last one")
            assert sending.count("dropped") == 1
        assert Told(receiver).ids("one") == [each for each in OF_SET if each != "4"]
        assert Told(receiver).ids("two") == OF_SET


async def test_what_is_damaged_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    path = folder()
    async with receiving() as receiver:
        receiver.answer = lambda _: 503
        async with telling(path, at(receiver.port)) as (engine, _):
            await engine.submit(submission("one", SET))
            await engine.submit(submission("two", SET))
        with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
            db.execute("update events set checksum = checksum + 1 where event_key = 1")
        receiver.answer = lambda _: 200
        async with telling(path, at(receiver.port)) as (_, sending):
            await until(lambda: "two-8" in receiver.taken, "the other one")
            assert sending.count("dropped") == 1
        assert [*Told(receiver).of] == ["two"]
    assert "are damaged, and passed over" in caplog.text


async def test_positions_that_cannot_be_read_for_a_while() -> None:
    """What is executed meanwhile is sent later, and nothing of it deleted."""
    path = folder()
    (path / "lifecycle.db").mkdir()
    async with receiving() as receiver, telling(path, at(receiver.port), retention_count=0) as (engine, sending):
        await engine.submit(submission("one", SET))
        engine._shards.by_number[0].retain()
        await engine.submit(submission("two", SET))
        (path / "lifecycle.db").rmdir()
        await until(lambda: sending.count("delivered") == 16, "both to be sent")
        assert [*Told(receiver).of] == ["one", "two"]


async def test_where_workflows_may_not_go_no_event_goes() -> None:
    async with receiving() as receiver, telling(folder(), at(receiver.port), egress_deny="127.0.0.1") as (engine, sent):
        await engine.submit(submission("one", SET))
        await until(lambda: sent.count("retried") > 1, "attempts")
        assert not receiver.attempts


async def test_nothing_is_done_without_a_sink() -> None:
    path = folder()
    async with engine_on(path, retention_count=0) as engine:
        await engine.submit(submission("one", SET))
        shard = engine._shards.by_number[0]
        assert shard.retention.unsent.sent_key is None

        def gone() -> bool:
            shard.retain()
            return shard.retention.finished_count == 0

        await until(gone, "it to be deleted")
    assert "lifecycle.db" not in os.listdir(path)


@pytest.mark.parametrize("value", ["events.example/in", "json:http://secret@events.example/"])
def test_sinks_that_are_none(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match="FASTRUNNER_LIFECYCLE_SINKS: expected ") as refused:
        load_config(data_dir=tmp_path, lifecycle_sinks=value)
    assert "secret" not in str(refused.value)


async def test_a_runner_tells_all_through_deaths_and_restarts(tmp_path: Path) -> None:
    """Two workers, one of which is killed; the sink is away for a time; then the whole runner is restarted."""
    ids = [f"e-{number}" for number in range(24)]
    async with receiving() as receiver:
        settings = {"FASTRUNNER_LIFECYCLE_SINKS": at(receiver.port)}

        async def run(some: Sequence[str], kills: bool) -> None:
            with running(tmp_path / "data", SERVE, **settings) as runner:
                await asyncio.to_thread(runner.wait_ready)
                async with connections(runner, 2) as opened:
                    for number, execution_id in enumerate(some):
                        await opened[number % len(opened)].execute(execution_id)
                if kills:
                    await until(lambda: len(receiver.taken) > 10, "some to be taken")
                    pid = (await asyncio.to_thread(runner.workers))[0]["pid"]
                    os.kill(pid, signal.SIGKILL)
                    await asyncio.to_thread(until_blocking, lambda: runner.replaced(pid), 60.0)
                    receiver.answer = lambda _: 200
                    await until(lambda: len(set(receiver.taken)) == 8 * len(some), "all to be taken", 60.0)
                    receiver.answer = lambda _: 503
                code, _, log = await asyncio.to_thread(runner.stop)
                assert code == 0, log

        receiver.answer = lambda _: 200 if len(receiver.attempts) < 30 else 503
        await run(ids[:12], True)
        # Nobody takes these before the next start.
        await run(ids[12:], False)
        receiver.answer = lambda _: 200
        with running(tmp_path / "data", SERVE, **settings) as runner:
            await asyncio.to_thread(runner.wait_ready)
            await until(lambda: len(set(receiver.taken)) == 8 * len(ids), "all to be taken", 60.0)
            assert await asyncio.to_thread(lambda: 'sent_total{outcome="delivered"}' in runner.get("/metrics")[1])
            assert (await asyncio.to_thread(runner.stop))[0] == 0
        told = Told(receiver)
        assert sorted(told.of) == sorted(ids)
        assert all(told.ids(execution_id) == OF_SET for execution_id in ids)
