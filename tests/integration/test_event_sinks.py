"""Sinks of emitted events: real servers in every mode, that are away, slow, full, refuse, die; and who sends."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from fastrunner.access.egress import Egress
from fastrunner.base import limits
from fastrunner.base.sinks import Mode, SinkAddress
from fastrunner.config import ConfigurationError, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.seals import DataKeys, Seals
from fastrunner.events.bus import EventBus
from fastrunner.events.sinks.formats import request_of
from fastrunner.events.sinks.sender import Sinks
from fastrunner.tasks.emit.sinks import HttpPost

LEAST = {"specversion": "1.0", "source": "/shop", "type": "order.placed"}


def event(number: int | str, **more: Any) -> dict[str, Any]:
    return {**LEAST, "id": f"{number}", **more}


class Receiver:
    """A server that takes events."""

    def __init__(self) -> None:
        self.port = 0
        self.answer: Callable[[list[str]], int] = lambda _: 202
        """Status of the answer to a request, by the ids in it."""
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.attempts: list[list[str]] = []
        """Ids of each request."""
        self.answers: list[int] = []
        """Status of the answer to each request."""
        self.taken: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        media_type = request.headers.get("Content-Type", "")
        if media_type.startswith("application/cloudevents-batch+json"):
            ids = [each["id"] for each in json.loads(body)]
        elif media_type.startswith("application/cloudevents+json"):
            ids = [json.loads(body)["id"]]
        else:
            ids = [request.headers["ce-id"]]
        self.requests.append((dict(request.headers), body))
        self.attempts.append(ids)
        status = self.answer(ids)
        self.answers.append(status)
        if status < 300:
            self.taken += ids
        return web.Response(status=status)


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.add_routes([web.post("/in", receiver.take)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the other side is another process or server
            await asyncio.sleep(0.01)


class Emitting:
    """A bus and those who send, of one process."""

    def __init__(self, folder: Path, sinks: str, keys: DataKeys | None = None, **settings: Any) -> None:
        self.now_ms = 1_800_000_000_000
        self.metrics = Metrics()
        config = load_config(data_dir=folder, event_sinks=sinks, **settings)
        assert config.event_sinks is not None
        addresses = SinkAddress.parse_all(config.event_sinks.get_secret_value())
        self.bus = EventBus(
            folder, lambda: None, Seals(keys), 600.0, has_sinks=True, metrics=self.metrics, wall_ms=lambda: self.now_ms
        )
        post = HttpPost(config, self.metrics, Egress.of(config))
        self.sinks = Sinks(folder, addresses, Seals(keys), post, self.metrics, wall_ms=lambda: self.now_ms)

    async def emit(self, *events: dict[str, Any]) -> None:
        for each in events:
            await self.bus.emit(each)

    async def begin(self) -> None:
        """Sends, and waits until it is known how far the sinks have come."""
        self.sinks.start()
        await until(lambda: self.sinks._positions)

    async def close(self) -> None:
        await self.sinks.close()
        await self.bus.close()

    def count(self, outcome: str) -> float:
        return self.metrics.events_sent.labels(outcome).value

    def waiting(self) -> list[int]:
        return [each.position for each in self.sinks._reading.after(0, 1_000)]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_LOOK_INTERVAL_S", 0.02)
    monkeypatch.setattr(limits, "EVENT_SINK_LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(limits, "EVENT_SINK_PAUSE_S_MIN", 0.01)
    monkeypatch.setattr(limits, "EVENT_SINK_PAUSE_S_MAX", 0.1)


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


ALL = [
    event(1, data={"a": "ä €"}, subject='say "ä" 100%', flag=True, count=-5, time="2026-01-31T12:00:00Z"),
    event(2, data="<a>ä</a>", datacontenttype="text/xml"),
    event(3, data_base64="AP8=", datacontenttype="application/octet-stream"),
    event(4, data="a text", datacontenttype="application/json"),
    event(5),
    event(6, data=None),
]


@pytest.mark.parametrize("mode", list(Mode))
def test_sinks_in_every_mode(tmp_path: Path, mode: Mode) -> None:
    """The SDK reads what we send; events from outside go to no sink."""

    async def main() -> None:
        async with receiving() as receiver:
            given = Emitting(tmp_path, f"{mode}:http://127.0.0.1:{receiver.port}/in")
            await given.begin()
            await given.bus.publish([event("outside")], None)
            await given.emit(*ALL)
            await until(lambda: len(receiver.taken) == len(ALL))
            assert receiver.taken == [each["id"] for each in ALL]
            await until(lambda: given.count("delivered") == len(ALL))
            await until(lambda: not given.waiting())
            if mode is Mode.BATCH:
                assert [each for _, body in receiver.requests for each in json.loads(body)] == ALL
            else:
                for (headers, body), sent in zip(receiver.requests, ALL, strict=True):
                    read = from_http_event(HTTPMessage(headers, body))
                    assert (read.get_id(), read.get_source(), read.get_type()) == (sent["id"], "/shop", "order.placed")
                    assert read.get_subject() == sent.get("subject")
                headers, body = receiver.requests[0]
                if mode is Mode.BINARY:
                    shown = {name: headers[name] for name in ("ce-subject", "ce-flag", "ce-count", "Content-Type")}
                    assert shown == {
                        "ce-subject": "say%20%22%C3%A4%22%20100%25",
                        "ce-flag": "true",
                        "ce-count": "-5",
                        "Content-Type": "application/json",
                    }
                    bodies = [body for _, body in receiver.requests]
                    expected = ['{"a":"ä €"}', "<a>ä</a>", b"\x00\xff", '"a text"', "", "null"]
                    assert bodies == [each.encode() if isinstance(each, str) else each for each in expected]
                else:
                    assert [json.loads(body) for _, body in receiver.requests] == ALL
            await given.close()

    run(main)


def test_types_that_are_no_ascii_are_still_headers() -> None:
    headers, _ = request_of(Mode.BINARY, [event(1, datacontenttype="text/plain; name=ä", data="x")])
    assert headers["Content-Type"] == "text/plain; name=%C3%A4"


def test_what_a_sink_does_not_take_is_kept_for_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In order, through restarts of either; another sink is not held up, and nothing is sent twice."""
    caplog.set_level("INFO")

    async def main() -> None:
        async with receiving() as well, receiving() as failing:
            sinks = f"http://127.0.0.1:{well.port}/in batch:http://user:secret@127.0.0.1:{failing.port}/in"
            failing.answer = lambda _: 503
            given = Emitting(tmp_path, sinks)
            await given.begin()
            await given.emit(*(event(number) for number in range(5)))
            await until(lambda: well.taken == [*"01234"] and len(failing.attempts) > 3)
            assert given.metrics.event_sinks_failing.value == 1
            assert len(given.waiting()) == 5
            await given.close()
            again = Emitting(tmp_path, sinks)
            await again.emit(event(5))
            failing.answer = lambda _: 204
            await again.begin()
            await until(lambda: failing.taken == [*"012345"] and well.taken == [*"012345"])
            await until(lambda: not again.waiting())
            assert failing.requests[-1][0]["Authorization"].startswith("Basic ")
            await until(lambda: again.metrics.event_sinks_failing.value == 0)
            assert given.count("retried") > 0
            await again.close()

    run(main)
    told = [record.message for record in caplog.records if record.name.startswith("fastrunner.events.sinks")]
    assert [line.partition(" at ")[2].partition(" takes no ")[1] for line in told] == [" takes no "]
    assert "it answers with status 503" in told[0]
    assert "secret" not in caplog.text


def test_a_sink_that_is_not_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with receiving() as receiver:
            port = receiver.port
        given = Emitting(tmp_path, f"http://127.0.0.1:{port}/in")
        await given.begin()
        await given.emit(event(1))
        await until(lambda: given.count("retried") > 1)
        async with receiving(port) as receiver:
            await until(lambda: receiver.taken == ["1"])
            await given.close()

    run(main)


def test_a_sink_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_SINK_TIMEOUT_S", 0.05)

    async def main() -> None:
        accepted = []
        server = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
        given = Emitting(tmp_path, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in")
        await given.begin()
        await given.emit(event(1))
        await until(lambda: given.count("retried") > 1)
        assert len(accepted) > 1
        await given.close()
        for writer in accepted:
            writer.close()
        server.close()

    run(main)


@pytest.mark.parametrize("mode", list(Mode))
def test_an_event_that_a_sink_refuses_is_passed_over(tmp_path: Path, mode: Mode) -> None:
    """After a few attempts, with it alone; the others arrive in order."""

    async def main() -> None:
        async with receiving() as receiver:
            given = Emitting(tmp_path, f"{mode}:http://127.0.0.1:{receiver.port}/in")
            receiver.answer = lambda ids: 413 if "bad" in ids else 200
            await given.emit(event(0))
            await given.begin()
            await given.emit(event(1), event(2), event("bad"), event(3), event(4))
            await until(lambda: receiver.taken == [*"1234"])
            alone = [ids for ids in receiver.attempts if ids == ["bad"]]
            assert len(alone) == limits.EVENT_SINK_REFUSALS_MAX
            await until(lambda: (given.count("dropped"), given.count("delivered")) == (1, 4))
            await given.close()

    run(main)


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500])
def test_other_answers_are_no_refusals_of_the_event(tmp_path: Path, status: int) -> None:
    async def main() -> None:
        async with receiving() as receiver:
            given = Emitting(tmp_path, f"http://127.0.0.1:{receiver.port}/in")
            receiver.answer = lambda _: status if len(receiver.attempts) < 6 else 200
            await given.begin()
            await given.emit(event(1))
            await until(lambda: receiver.taken == ["1"])
            assert (given.count("retried"), given.count("dropped")) == (5, 0)
            await given.close()

    run(main)


def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_SINK_BATCH_COUNT_MAX", 4)

    async def main() -> None:
        async with receiving() as receiver:
            given = Emitting(tmp_path, f"batch:http://127.0.0.1:{receiver.port}/in")
            receiver.answer = lambda _: 200 if len(receiver.attempts) > 1 else 503
            await given.begin()
            await given.emit(*(event(number) for number in range(10)))
            await until(lambda: len(receiver.taken) == 10)
            assert max(map(len, receiver.attempts)) <= 4
            await given.close()

    run(main)


def test_pauses_double_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    sleep = asyncio.sleep

    async def noting(delay_s: float, *_: Any) -> None:
        paused.append(delay_s)
        await sleep(0)

    async def main() -> None:
        async with receiving() as receiver:
            given = Emitting(tmp_path, f"http://127.0.0.1:{receiver.port}/in")
            receiver.answer = lambda _: 500
            await given.begin()
            monkeypatch.setattr(limits, "EVENT_SINK_PAUSE_S_MIN", 5.0)
            monkeypatch.setattr(limits, "EVENT_SINK_PAUSE_S_MAX", 12.0)
            monkeypatch.setattr("fastrunner.events.sinks.delivery.asyncio.sleep", noting)
            await given.emit(event(1))
            async with asyncio.timeout(30):
                while paused.count(12.0) < 2:
                    await sleep(0.01)
            await given.close()

    run(main)
    assert [each for each in paused if each >= 5.0][:4] == [5.0, 10.0, 12.0, 12.0]


def test_events_for_sinks_are_given_up_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When they have become too old, or take too much room."""
    monkeypatch.setattr(limits, "EVENT_SINKS_SIZE_BYTES_MAX", 1_500)
    monkeypatch.setattr(limits, "EVENTS_PRUNED_PER_COMMIT_MAX", 1)

    async def main() -> None:
        async with receiving() as receiver:
            receiver.answer = lambda _: 500
            given = Emitting(tmp_path, f"http://127.0.0.1:{receiver.port}/in")
            await given.begin()
            await given.emit(*(event(number, data="x" * 300) for number in range(9)))
            assert len(given.waiting()) == 3
            assert given.count("dropped") == 6
            await until(lambda: given.metrics.event_sinks_oldest_age.value == 0)
            given.now_ms += limits.OUTBOX_AGE_S_MAX * 1000 - 1000
            await until(lambda: given.metrics.event_sinks_oldest_age.value == limits.OUTBOX_AGE_S_MAX - 1)
            assert len(given.waiting()) == 3
            given.now_ms += 2000
            await until(lambda: not given.waiting())
            await until(lambda: given.count("dropped") == 9)
            receiver.answer = lambda _: 200
            await given.emit(event("later"))
            await until(lambda: "later" in receiver.taken)
            await given.close()

    run(main)


def test_sinks_that_come_and_go(tmp_path: Path) -> None:
    """A new one gets what is emitted from then on; one that is gone keeps nothing; a password may change."""

    async def main() -> None:
        async with receiving() as first, receiving() as second:
            one, two = f"http://127.0.0.1:{first.port}/in", f"http://127.0.0.1:{second.port}/in"
            first.answer = lambda _: 500
            given = Emitting(tmp_path, one)
            await given.begin()
            await given.emit(event(1))
            await until(lambda: first.attempts)
            await given.close()
            given = Emitting(tmp_path, f"batch:{one.replace('127', 'me:new@127')} {two}")
            await given.begin()
            first.answer = lambda _: 200
            await given.emit(event(2))
            await until(lambda: first.taken == ["1", "2"] and second.taken == ["2"])
            first.answer = lambda _: 500
            await given.emit(event(3))
            await until(lambda: second.taken == ["2", "3"])
            await given.close()
            given = Emitting(tmp_path, two)
            await given.begin()
            await given.emit(event(4))
            await until(lambda: second.taken == ["2", "3", "4"] and not given.waiting())
            await given.close()

    run(main)


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


def test_sealed_events_for_sinks(tmp_path: Path) -> None:
    keys = DataKeys({"one": bytes(32)})

    async def main() -> None:
        async with receiving() as receiver:
            receiver.answer = lambda _: 500
            given = Emitting(tmp_path, f"http://127.0.0.1:{receiver.port}/in", keys)
            await given.begin()
            await given.emit(event(1, data="a secret"))
            assert not any(b"a secret" in each for each in contents(tmp_path))
            receiver.answer = lambda _: 200
            await until(lambda: receiver.taken == ["1"])
            assert json.loads(receiver.requests[-1][1])["data"] == "a secret"
            await given.close()

    run(main)


def test_where_workflows_may_not_go_no_event_goes(tmp_path: Path) -> None:
    async def main() -> None:
        async with receiving() as receiver:
            given = Emitting(tmp_path, f"http://127.0.0.1:{receiver.port}/in", egress_deny="127.0.0.1")
            await given.begin()
            await given.emit(event(1))
            await until(lambda: given.count("retried") > 1)
            assert not receiver.attempts
            await given.close()

    run(main)


SENDING = """
import asyncio, sys
from pathlib import Path
from fastrunner.base import limits
from tests.integration.test_event_sinks import Emitting

async def main(folder, sinks):
    limits.EVENT_SINK_LOOK_INTERVAL_S = 0.01
    given = Emitting(Path(folder), sinks)
    given.sinks.start()
    print("begun", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


def is_held(lock_path: Path) -> bool:
    """Whether another process has a lock."""
    with lock_path.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_one_process_sends_and_another_takes_over(tmp_path: Path) -> None:
    """From where the first was when it was killed: none is missing, and what is sent twice comes at once."""

    async def main() -> None:
        async with receiving() as receiver:
            sinks = f"http://127.0.0.1:{receiver.port}/in"
            command = [sys.executable, "-c", SENDING, str(tmp_path), sinks]
            given = Emitting(tmp_path, sinks)
            # The sink is known before anything is emitted.
            await given.begin()
            await given.sinks.close()
            sender = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            await until(lambda: is_held(tmp_path / "event-sinks.lock"))
            successor = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            assert successor.stdout is not None
            await successor.stdout.readline()
            ids = [f"{number}" for number in range(60)]
            for event_id in ids[:30]:
                await given.emit(event(event_id))
            await until(lambda: len(set(receiver.taken)) >= 10)
            sender.send_signal(signal.SIGKILL)
            await sender.wait()
            for event_id in ids[30:]:
                await given.emit(event(event_id))
            await until(lambda: set(receiver.taken) == set(ids))
            successor.send_signal(signal.SIGKILL)
            await successor.wait()
            firsts = list(dict.fromkeys(receiver.taken))
            assert firsts == ids
            await given.bus.close()

    run(main)


@pytest.mark.parametrize(
    "value",
    [
        "events.example/in",
        "ftp://secret@events.example/in",
        "http://",
        "http://host:port/",
        "json:http://secret@events.example/",
        "http://secret@events.example/ä",
        "http://events.example/#secret",
        "http://a:secret@events.example/in batch:http://events.example:80/in",
    ],
)
def test_sinks_that_are_none(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match="FASTRUNNER_EVENT_SINKS: expected ") as refused:
        load_config(data_dir=tmp_path, event_sinks=value)
    assert "secret" not in str(refused.value)


def test_nothing_is_kept_where_there_is_no_sink(tmp_path: Path) -> None:
    async def main() -> None:
        bus = EventBus(tmp_path, lambda: None, Seals(), 600.0)
        await bus.emit(event(1))
        await bus.close()
        given = Emitting(tmp_path, "http://127.0.0.1:1/in")
        assert given.waiting() == []
        await given.close()

    run(main)
    assert os.listdir(tmp_path)
