"""Support: routers of several workers over real Unix sockets: forwarding, streams, successors, bounds."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Frame
from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.errors import AtCapacity, ForwardedError, TooLarge, Unavailable, UnknownExecution
from fastrunner.processes.folder import RuntimeFolder
from fastrunner.routing.facts import CallFacts
from fastrunner.routing.links import Channel
from fastrunner.routing.peers import Router
from fastrunner.service.status import status_of

PEER = "ipv4:127.0.0.1:1"


class EchoHandler:
    """Answers with what it was asked; some methods refuse, wait or stream."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple[str, bytes, CallFacts]] = []
        self.sent = 0
        self.draining = False
        self.closed = asyncio.Event()
        self.gate = asyncio.Event()

    def handle_unary(self, method: str, payload: bytes, facts: CallFacts) -> bytes | Awaitable[bytes]:
        self.calls.append((method, payload, facts))
        if method == "Refuse":
            raise UnknownExecution("x")
        if method == "RefuseLater":
            return self._refuse_later()
        if method == "Draining" and self.draining:
            raise Unavailable("stopping")
        if method == "Wait":
            return self._wait(payload)
        if method == "Break":
            raise ValueError("a defect")
        return self.name.encode() + b":" + payload

    def handle_stream(self, method: str, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        self.calls.append((method, payload, facts))
        return self._count(int(payload), method)

    async def _refuse_later(self) -> bytes:
        await asyncio.sleep(0)
        raise AtCapacity("full", retry_after_s=2.0)

    async def _wait(self, payload: bytes) -> bytes:
        await self.gate.wait()
        return payload

    async def _count(self, count: int, method: str) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(count):
                self.sent += 1
                yield b"%d" % number
            if method == "CountAndRefuse":
                raise Unavailable("later")
            if method == "CountAndWait":
                await self.gate.wait()
        finally:
            self.closed.set()


class Workers:
    """Routers by worker number, with their handlers."""

    def __init__(self, folder: RuntimeFolder, count: int) -> None:
        self.folder, self.count = folder, count
        self.routers: dict[int, Router] = {}
        self.handlers: dict[int, EchoHandler] = {}
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    async def start(self, worker: int) -> Router:
        router = Router(worker, self.count, 8, self.folder.socket_of, self.metrics, status_of)
        self.handlers[worker] = EchoHandler(f"worker {worker}")
        self.routers[worker] = router
        await router.start(self.handlers[worker])
        return router

    async def stop(self, worker: int) -> None:
        await self.routers.pop(worker).close(0.1)


@pytest.fixture
def folder() -> Iterator[RuntimeFolder]:
    with tempfile.TemporaryDirectory(prefix="fr-") as path:
        yield RuntimeFolder(Path(path))


@pytest.fixture
async def workers(folder: RuntimeFolder) -> AsyncGenerator[Workers, None]:
    workers = Workers(folder, 3)
    for worker in range(3):
        await workers.start(worker)
    yield workers
    for worker in list(workers.routers):
        await workers.stop(worker)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.005)


async def test_owner_answers_with_the_callers_facts(workers: Workers) -> None:
    """A forwarded request reaches the owner's handler with peer and deadline, marked as local."""
    router = workers.routers[0]
    assert await router.forward(2, "GetExecution", b"abc", PEER, 12_345_678_901_234) == b"worker 2:abc"
    assert workers.handlers[2].calls == [("GetExecution", b"abc", CallFacts(PEER, 12_345_678_901_234, local=True))]
    assert workers.registry.get_sample_value("workflow_runner_router_forwards_total", {"code": "OK"}) == 1


async def test_many_requests_share_a_link_and_keep_their_answers(workers: Workers) -> None:
    """A thousand requests in both directions at once each get their own answer."""
    forwards = [
        asyncio.ensure_future(workers.routers[source].forward(target, "Echo", b"%d" % number, PEER, 0))
        for number in range(1000)
        for source, target in ((0, 1), (1, 0))
    ]
    answers = await asyncio.gather(*forwards)
    expected = [f"worker {target}:{number}".encode() for number in range(1000) for target in (1, 0)]
    assert answers == expected


async def test_large_payloads_pass(workers: Workers) -> None:
    """A request of the largest size the service takes passes unharmed, a reply beyond the frame is refused."""
    payload = bytes(limits.REQUEST_SIZE_BYTES_MAX)
    reply = await workers.routers[0].forward(1, "Echo", payload, PEER, 0)
    assert len(reply) == len(payload) + len(b"worker 1:")


async def test_reply_too_large_for_a_frame_is_refused(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit a frame becomes a refusal, not a broken link."""
    monkeypatch.setattr(limits, "ROUTER_FRAME_SIZE_BYTES_MAX", limits.ROUTER_FLUSH_SIZE_BYTES + 100)
    with pytest.raises(ForwardedError) as refused:
        await workers.routers[0].forward(1, "Echo", bytes(200), PEER, 0)
    assert refused.value.code == TooLarge.grpc_code
    assert await workers.routers[0].forward(1, "Echo", b"1", PEER, 0) == b"worker 1:1"


@pytest.mark.parametrize(("method", "code"), [("Refuse", 5), ("RefuseLater", 8), ("Break", 13)])
async def test_refusals_pass_unchanged(workers: Workers, method: str, code: int) -> None:
    """The owner's refusal arrives with code and details, now or later; a defect arrives as INTERNAL."""
    with pytest.raises(ForwardedError) as refused:
        await workers.routers[0].forward(1, method, b"", PEER, 0)
    assert refused.value.code == code
    status = status_of(refused.value)
    assert status.code == code
    assert bool(status.details) == (code != 13)


async def test_stream_arrives_whole_and_ends(workers: Workers) -> None:
    """A stream longer than its window arrives complete and in order."""
    count = limits.ROUTER_STREAM_WINDOW_MESSAGES * 5 + 7
    stream = workers.routers[0].forward_stream(1, "Count", b"%d" % count, PEER, 0)
    assert [message async for message in stream] == [b"%d" % number for number in range(count)]


async def test_stream_ends_with_the_owners_refusal(workers: Workers) -> None:
    """Messages before a refusal are delivered, then it is raised."""
    stream = workers.routers[0].forward_stream(1, "CountAndRefuse", b"3", PEER, 0)
    assert [await anext(stream) for _ in range(3)] == [b"0", b"1", b"2"]
    with pytest.raises(ForwardedError) as refused:
        await anext(stream)
    assert refused.value.code == 14


async def test_unread_stream_stops_its_owner(workers: Workers) -> None:
    """An owner sends no more than the window to a reader that does not read."""
    stream = workers.routers[0].forward_stream(1, "Count", b"100000", PEER, 0)
    assert await anext(stream) == b"0"
    handler = workers.handlers[1]
    await until(lambda: handler.sent > limits.ROUTER_STREAM_WINDOW_MESSAGES)
    await workers.routers[0].forward(1, "Echo", b"", PEER, 0)
    assert handler.sent == limits.ROUTER_STREAM_WINDOW_MESSAGES + 1
    await stream.aclose()
    await asyncio.wait_for(handler.closed.wait(), 10)


async def test_closing_a_stream_closes_the_owners(workers: Workers) -> None:
    """A reader that goes away while nothing is sent ends the owner's stream."""
    stream = workers.routers[0].forward_stream(1, "CountAndWait", b"1", PEER, 0)
    assert await anext(stream) == b"0"
    await stream.aclose()
    await asyncio.wait_for(workers.handlers[1].closed.wait(), 10)


async def test_abandoned_wait_frees_its_place(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests in flight are bounded; a cancelled wait makes room."""
    monkeypatch.setattr(limits, "ROUTER_REQUESTS_IN_FLIGHT_MAX", 2)
    router = workers.routers[0]
    waiting = [asyncio.ensure_future(router.forward(1, "Wait", b"%d" % n, PEER, 0)) for n in range(2)]
    with pytest.raises(AtCapacity):
        router.forward(1, "Echo", b"", PEER, 0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert await router.forward(1, "Echo", b"", PEER, 0) == b"worker 1:"
    workers.handlers[1].gate.set()
    assert await waiting[1] == b"1"


async def test_request_waits_for_an_owner_that_is_down(workers: Workers) -> None:
    """A request to a worker that is not there is answered by its successor."""
    await workers.stop(1)
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Echo", b"late", PEER, 0))
    await asyncio.sleep(0)
    await workers.start(1)
    assert await forward == b"worker 1:late"


async def test_sent_request_goes_to_the_successor(workers: Workers) -> None:
    """A request without an answer when its owner goes is sent to the successor; a stream that began is not."""
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Wait", b"again", PEER, 0))
    stream = workers.routers[0].forward_stream(1, "CountAndWait", b"1", PEER, 0)
    assert await anext(stream) == b"0"
    await until(lambda: len(workers.handlers[1].calls) == 2)
    await workers.stop(1)
    await workers.start(1)
    await until(lambda: len(workers.handlers[1].calls) == 1)
    workers.handlers[1].gate.set()
    assert await forward == b"again"
    with pytest.raises(Unavailable):
        await anext(stream)


async def test_stopping_owner_hands_over_to_its_successor(workers: Workers) -> None:
    """A request that a stopping owner refuses as unavailable is asked of its successor."""
    workers.handlers[1].draining = True
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Draining", b"", PEER, 0))
    await until(lambda: len(workers.handlers[1].calls) == 1)
    await workers.stop(1)
    await workers.start(1)
    assert await forward == b"worker 1:"
    assert len(workers.handlers[1].calls) == 1


async def test_refusal_for_now_is_asked_again(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that refuses as unavailable but stays is asked until it answers, or its refusal is passed on."""
    workers.handlers[1].draining = True
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Draining", b"", PEER, 0))
    await until(lambda: len(workers.handlers[1].calls) >= 2)
    workers.handlers[1].draining = False
    assert await forward == b"worker 1:"
    workers.handlers[1].draining = True
    monkeypatch.setattr(limits, "ROUTER_OWNER_WAIT_S_MAX", 0.1)
    with pytest.raises(ForwardedError) as refused:
        await workers.routers[0].forward(1, "Draining", b"", PEER, 0)
    assert (refused.value.code, refused.value.message) == (14, "stopping")


async def test_waiting_ends_at_the_deadline(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that stays away makes requests fail with Unavailable after the bound, and at once when stopping."""
    monkeypatch.setattr(limits, "ROUTER_OWNER_WAIT_S_MAX", 0.1)
    await workers.stop(1)
    with pytest.raises(Unavailable):
        await workers.routers[0].forward(1, "Echo", b"", PEER, 0)
    monkeypatch.undo()
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Echo", b"", PEER, 0))
    await asyncio.sleep(0)
    workers.routers[0].stop_waiting()
    with pytest.raises(Unavailable):
        await forward


async def test_closing_router_lets_answers_out(workers: Workers) -> None:
    """A worker that closes its links first answers what it can."""
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Wait", b"last", PEER, 0))
    await until(lambda: len(workers.handlers[1].calls) == 1)
    workers.handlers[1].gate.set()
    await workers.stop(1)
    assert await forward == b"last"


async def test_garbage_closes_the_link_only(workers: Workers) -> None:
    """A frame beyond the bound ends its connection; others go on."""
    reader, writer = await asyncio.open_unix_connection(str(workers.folder.socket_of(1)))
    writer.write(b"\xff\xff\xff\xff")
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert await workers.routers[0].forward(1, "Echo", b"ok", PEER, 0) == b"worker 1:ok"


def test_every_worker_agrees_on_owners(folder: RuntimeFolder) -> None:
    """All workers name the same owner for an id."""
    routers = [Router(n, 3, 8, folder.socket_of, Metrics(CollectorRegistry()), status_of) for n in range(3)]
    for number in range(100):
        assert len({router.owner_of(f"execution-{number}") for router in routers}) == 1


class _Ends:
    """What one end of a link writes, and what arrives at the other."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.arrived: list[Answer] = []
        self.sender, self.receiver = _Link(self), _Link(self)
        self.sender.connection_made(self)  # type: ignore[arg-type]

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written.append(len(data))
        self.receiver.data_received(data)


class _Link(Channel):
    def __init__(self, ends: _Ends) -> None:
        super().__init__()
        self._ends = ends

    def on_frame(self, frame: Frame) -> None:
        self._ends.arrived.extend(frame.answers)


async def test_frame_that_is_full_leaves_at_once() -> None:
    """However much is added in one turn, a frame is not much larger than its bound, and nothing waits."""
    ends, payload = _Ends(), bytes(1_000)
    for number in range(1_000):
        ends.sender.add_answer(Answer(request_id=number + 1, payload=payload))
    assert len(ends.written) == 1_000 * (len(payload) + 64) // limits.ROUTER_FLUSH_SIZE_BYTES
    assert max(ends.written) <= limits.ROUTER_FLUSH_SIZE_BYTES
    await asyncio.sleep(0)
    assert [answer.request_id for answer in ends.arrived] == list(range(1, 1_001))
