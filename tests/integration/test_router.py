"""Support: routers of several workers over real Unix sockets: forwarding, streams, successors, bounds.

A `ScriptedOwner` stands in for a worker where the wrong moment has to be met: it speaks the links' frames, and does
what a process does that is about to end, or hangs.
"""

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from math import inf
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Frame, Request
from fastrunner.base import clock, limits
from fastrunner.counts.definitions import Metrics
from fastrunner.errors import (
    AtCapacity,
    ForwardedError,
    RunnerError,
    ShardDamaged,
    ShortHanded,
    Stopping,
    StorageFailed,
    TooLarge,
    Unavailable,
    UnknownExecution,
)
from fastrunner.processes.folder import RuntimeFolder
from fastrunner.processes.shared import Shared
from fastrunner.routing.facts import CallFacts
from fastrunner.routing.peers import Router
from fastrunner.routing.placement import BACKLOG, Places
from fastrunner.service.status import status_of

PEER = "ipv4:127.0.0.1:1"


class EchoHandler:
    """Answers with what it was asked; some methods refuse, wait or stream."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple[str, bytes, CallFacts]] = []
        self.sent = 0
        self.refusal: RunnerError | None = None
        self.closed = asyncio.Event()
        self.gate = asyncio.Event()

    def handle_unary(self, method: str, payload: bytes, facts: CallFacts) -> bytes | Awaitable[bytes]:
        self.calls.append((method, payload, facts))
        if method == "Refuse":
            raise UnknownExecution("x")
        if method == "RefuseLater":
            return self._refuse_later()
        if self.refusal is not None:
            raise self.refusal
        if method == "Large":
            return bytes(int(payload))
        if method in ("Wait", "GetEvents", "PauseExecution", "ResumeExecution"):
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
                yield bytes(65_536) if method == "Large" else b"%d" % number
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
        self.shared = Shared.create(count, count, bytes(16))

    def places(self, worker: int) -> Places:
        return self.shared.places(worker, self.count)

    async def start(self, worker: int) -> Router:
        router = Router(self.places(worker), self.folder.socket_of, self.metrics, status_of)
        self.handlers[worker] = EchoHandler(f"worker {worker}")
        self.routers[worker] = router
        await router.start(self.handlers[worker])
        return router

    async def stop(self, worker: int) -> None:
        await self.routers.pop(worker).close(0.1)

    async def restart(self, worker: int) -> Router:
        await self.stop(worker)
        return await self.start(worker)


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
    router, deadline_ms = workers.routers[0], clock.wall_ms() + 3_600_000
    assert await router.forward(2, "GetExecution", b"abc", CallFacts(PEER, deadline_ms, local=False)) == b"worker 2:abc"
    ((method, payload, facts),) = workers.handlers[2].calls
    assert (method, payload, facts.peer, facts.local) == ("GetExecution", b"abc", PEER, True)
    assert abs(facts.deadline_ms - deadline_ms) < 60_000
    assert workers.registry.get_sample_value("workflow_runner_router_forwards_total", {"code": "OK"}) == 1
    assert await router.forward(2, "GetExecution", b"", CallFacts(PEER, 0, local=False)) == b"worker 2:"
    assert workers.handlers[2].calls[1][2] == CallFacts(PEER, 0, local=True)


async def test_clock_that_is_set_cuts_no_call(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits for its owner keeps its time when the clock is set an hour forward; so does the owner's."""
    await workers.stop(1)
    began_ms = clock.wall_ms()
    forward = asyncio.ensure_future(
        workers.routers[0].forward(1, "Echo", b"late", CallFacts(PEER, began_ms + 60_000, local=False))
    )
    await asyncio.sleep(0)
    for module in ("calls", "answering"):
        monkeypatch.setattr(f"fastrunner.routing.{module}.wall_ms", lambda: began_ms + 3_600_000)
    await workers.start(1)
    assert await forward == b"worker 1:late"
    left_ms = workers.handlers[1].calls[0][2].deadline_ms - began_ms - 3_600_000
    assert 0 < left_ms <= 60_000


async def test_many_requests_share_a_link_and_keep_their_answers(workers: Workers) -> None:
    """A thousand requests in both directions at once each get their own answer."""
    forwards = [
        asyncio.ensure_future(
            workers.routers[source].forward(target, "Echo", b"%d" % number, CallFacts(PEER, 0, local=False))
        )
        for number in range(1000)
        for source, target in ((0, 1), (1, 0))
    ]
    answers = await asyncio.gather(*forwards)
    expected = [f"worker {target}:{number}".encode() for number in range(1000) for target in (1, 0)]
    assert answers == expected


async def test_large_payloads_pass(workers: Workers) -> None:
    """A request of the largest size the service takes passes unharmed, a reply beyond the frame is refused."""
    payload = bytes(limits.REQUEST_SIZE_BYTES_MAX)
    reply = await workers.routers[0].forward(1, "Echo", payload, CallFacts(PEER, 0, local=False))
    assert len(reply) == len(payload) + len(b"worker 1:")


async def test_reply_too_large_for_a_frame_is_refused(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit a frame becomes a refusal, not a broken link."""
    monkeypatch.setattr(limits, "ROUTER_FRAME_SIZE_BYTES_MAX", limits.ROUTER_FLUSH_SIZE_BYTES + 100)
    with pytest.raises(ForwardedError) as refused:
        await workers.routers[0].forward(1, "Echo", bytes(200), CallFacts(PEER, 0, local=False))
    assert refused.value.code == TooLarge.grpc_code
    assert await workers.routers[0].forward(1, "Echo", b"1", CallFacts(PEER, 0, local=False)) == b"worker 1:1"


@pytest.mark.parametrize(("method", "code"), [("Refuse", 5), ("RefuseLater", 8), ("Break", 13)])
async def test_refusals_pass_unchanged(workers: Workers, method: str, code: int) -> None:
    """The owner's refusal arrives with code and details, now or later; a defect arrives as INTERNAL."""
    with pytest.raises(ForwardedError) as refused:
        await workers.routers[0].forward(1, method, b"", CallFacts(PEER, 0, local=False))
    assert refused.value.code == code
    status = status_of(refused.value)
    assert status.code == code
    assert bool(status.details) == (code != 13)


async def test_stream_arrives_whole_and_ends(workers: Workers) -> None:
    """A stream longer than its window arrives complete and in order."""
    count = limits.ROUTER_STREAM_CREDITS_MAX * 5 + 7
    stream = workers.routers[0].forward_stream(1, "Count", b"%d" % count, CallFacts(PEER, 0, local=False))
    assert [message async for message in stream] == [b"%d" % number for number in range(count)]


async def test_stream_ends_with_the_owners_refusal(workers: Workers) -> None:
    """Messages before a refusal are delivered, then it is raised."""
    stream = workers.routers[0].forward_stream(1, "CountAndRefuse", b"3", CallFacts(PEER, 0, local=False))
    assert [await anext(stream) for _ in range(3)] == [b"0", b"1", b"2"]
    with pytest.raises(ForwardedError) as refused:
        await anext(stream)
    assert refused.value.code == 14


async def test_unread_stream_stops_its_owner(workers: Workers) -> None:
    """An owner sends no more than the window to a reader that does not read."""
    stream = workers.routers[0].forward_stream(1, "Count", b"100000", CallFacts(PEER, 0, local=False))
    assert await anext(stream) == b"0"
    handler = workers.handlers[1]
    await until(lambda: handler.sent > limits.ROUTER_STREAM_CREDITS_MAX)
    await workers.routers[0].forward(1, "Echo", b"", CallFacts(PEER, 0, local=False))
    assert handler.sent == limits.ROUTER_STREAM_CREDITS_MAX + 1
    await stream.aclose()
    await asyncio.wait_for(handler.closed.wait(), 10)


async def test_closing_a_stream_closes_the_owners(workers: Workers) -> None:
    """A reader that goes away while nothing is sent ends the owner's stream."""
    stream = workers.routers[0].forward_stream(1, "CountAndWait", b"1", CallFacts(PEER, 0, local=False))
    assert await anext(stream) == b"0"
    await stream.aclose()
    await asyncio.wait_for(workers.handlers[1].closed.wait(), 10)


async def bounded(workers: Workers, monkeypatch: pytest.MonkeyPatch, **bounds: int) -> Router:
    """A new router of worker 0 with other bounds."""
    for name, value in bounds.items():
        monkeypatch.setattr(limits, name, value)
    return await workers.restart(0)


async def test_abandoned_wait_frees_its_place(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests in flight are bounded; a cancelled wait makes room."""
    router = await bounded(workers, monkeypatch, ROUTER_REQUESTS_MAX=2, ROUTER_CLIENT_PARTS=1)
    waiting = [
        asyncio.ensure_future(router.forward(1, "Wait", b"%d" % n, CallFacts(PEER, 0, local=False))) for n in range(2)
    ]
    with pytest.raises(AtCapacity) as refused:
        router.forward(1, "Echo", b"", CallFacts(PEER, 0, local=False))
    assert refused.value.retry_after_s > 0
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert await router.forward(1, "Echo", b"", CallFacts(PEER, 0, local=False)) == b"worker 1:"
    workers.handlers[1].gate.set()
    assert await waiting[1] == b"1"


async def test_client_has_a_part_of_a_link(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client's requests do not take what others need, and it has its part again when they are answered."""
    router = await bounded(workers, monkeypatch, ROUTER_REQUESTS_MAX=4)
    waiting = [
        asyncio.ensure_future(router.forward(1, "Wait", b"", CallFacts("greedy", 0, local=False))) for _ in range(2)
    ]
    with pytest.raises(AtCapacity):
        router.forward(1, "Echo", b"", CallFacts("greedy", 0, local=False))
    assert await router.forward(1, "Echo", b"", CallFacts("modest", 0, local=False)) == b"worker 1:"
    workers.handlers[1].gate.set()
    await asyncio.gather(*waiting)
    assert await router.forward(1, "Echo", b"", CallFacts("greedy", 0, local=False)) == b"worker 1:"


async def test_commands_have_a_reserve(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every place taken an execution can still be cancelled and looked at, by whoever fills them too."""
    bounds = {"ROUTER_REQUESTS_MAX": 2, "ROUTER_RESERVE_REQUESTS_MAX": 2}
    router = await bounded(workers, monkeypatch, **bounds)
    waiting = [
        asyncio.ensure_future(router.forward(1, "Wait", b"", CallFacts(client, 0, local=False)))
        for client in ("a", "b")
    ]
    for method in ("CancelExecution", "GetExecution"):
        assert await router.forward(1, method, b"x", CallFacts("a", 0, local=False)) == b"worker 1:x"
    waiting.append(asyncio.ensure_future(router.forward(1, "PauseExecution", b"", CallFacts("a", 0, local=False))))
    with pytest.raises(AtCapacity):
        router.forward(1, "CancelExecution", b"", CallFacts("a", 0, local=False))
    assert await router.forward(1, "CancelExecution", b"x", CallFacts("b", 0, local=False)) == b"worker 1:x"
    workers.handlers[1].gate.set()
    await asyncio.gather(*waiting)


async def test_streams_take_no_place_of_requests(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many followers as there may be, of all clients or of one, leave requests alone; what ends makes room."""
    router = await bounded(workers, monkeypatch, ROUTER_STREAMS_MAX=4, ROUTER_REQUESTS_MAX=2)
    streams = [
        router.forward_stream(1, "CountAndWait", b"1", CallFacts(client, 0, local=False))
        for client in ("a", "a", "b", "b")
    ]
    for stream in streams:
        assert await anext(stream) == b"0"
    for client in ("a", "c"):
        with pytest.raises(AtCapacity):
            await anext(router.forward_stream(1, "CountAndWait", b"1", CallFacts(client, 0, local=False)))
    assert await router.forward(1, "Echo", b"", CallFacts("a", 0, local=False)) == b"worker 1:"
    await streams.pop().aclose()
    again = router.forward_stream(1, "Count", b"1", CallFacts("c", 0, local=False))
    assert [message async for message in again] == [b"0"]
    for stream in streams:
        await stream.aclose()


async def test_bytes_that_wait_for_an_owner_are_bounded(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to an owner that is down are refused when they are too large together, and all others arrive."""
    router = await bounded(workers, monkeypatch, ROUTER_REQUESTS_SIZE_BYTES_MAX=1_000_000)
    await workers.stop(1)
    large = bytes(200_000)
    clients = ["a", "a", "b", "b"]
    waiting = [
        asyncio.ensure_future(router.forward(1, "Echo", large, CallFacts(client, 0, local=False))) for client in clients
    ]
    await asyncio.sleep(0)
    with pytest.raises(AtCapacity):
        router.forward(1, "Echo", large, CallFacts("a", 0, local=False))
    waiting.append(asyncio.ensure_future(router.forward(1, "Echo", large, CallFacts("c", 0, local=False))))
    with pytest.raises(AtCapacity):
        router.forward(1, "Echo", large, CallFacts("d", 0, local=False))
    await workers.start(1)
    assert await asyncio.gather(*waiting) == [b"worker 1:" + large] * 5


@pytest.mark.parametrize(
    ("method", "bound"), [("CancelExecution", "ROUTER_RESERVE_SIZE_BYTES_MAX"), ("", "ROUTER_STREAMS_SIZE_BYTES_MAX")]
)
async def test_bytes_of_commands_and_streams_are_bounded(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, method: str, bound: str
) -> None:
    """Neither the reserve nor the streams are a way around."""
    router = await bounded(workers, monkeypatch, **{"ROUTER_REQUESTS_MAX": 0, bound: 100})
    stream = router.forward_stream(1, "Count", b"1".zfill(51), CallFacts(PEER, 0, local=False))
    with pytest.raises(AtCapacity):
        await (router.forward(1, method, bytes(51), CallFacts(PEER, 0, local=False)) if method else anext(stream))


async def test_request_waits_for_an_owner_that_is_down(workers: Workers) -> None:
    """A request to a worker that is not there is answered by its successor."""
    await workers.stop(1)
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Echo", b"late", CallFacts(PEER, 0, local=False)))
    await asyncio.sleep(0)
    await workers.start(1)
    assert await forward == b"worker 1:late"


async def test_sent_request_goes_to_the_successor(workers: Workers) -> None:
    """A request without an answer when its owner goes is sent to the successor; a stream that began is not."""
    forward = asyncio.ensure_future(
        workers.routers[0].forward(1, "GetEvents", b"again", CallFacts(PEER, 0, local=False))
    )
    stream = workers.routers[0].forward_stream(1, "CountAndWait", b"1", CallFacts(PEER, 0, local=False))
    assert await anext(stream) == b"0"
    await until(lambda: len(workers.handlers[1].calls) == 2)
    await workers.restart(1)
    await until(lambda: len(workers.handlers[1].calls) == 1)
    workers.handlers[1].gate.set()
    assert await forward == b"again"
    with pytest.raises(Unavailable):
        await anext(stream)


@pytest.mark.parametrize("method", ["ResumeExecution", "PauseExecution", "NotNamed"])
async def test_command_is_not_repeated(folder: RuntimeFolder, method: str) -> None:
    """One that may have been carried out is not sent again: it would undo what came after it. One never sent is."""
    async with ScriptedOwner(folder) as owner, asking(folder) as router:
        forward = router.forward(1, method, b"", CallFacts(PEER, 0, local=False))
        await owner.requests.get()
        later = asyncio.ensure_future(router.forward(1, method, b"later", CallFacts(PEER, 0, local=False)))
        await owner.close()
        with pytest.raises(Unavailable) as refused:
            await forward
        assert method in refused.value.message
        assert "look at the execution" in refused.value.message
        await asyncio.gather(later, return_exceptions=True)
        unsent = asyncio.ensure_future(router.forward(1, method, b"unsent", CallFacts(PEER, 0, local=False)))
        await asyncio.sleep(0)
        await owner.open(2)
        request = await owner.requests.get()
        assert request.payload == b"unsent"
        owner.answer(Answer(request_id=request.request_id, payload=b"done", end=True))
        assert await unsent == b"done"
        assert owner.requests.empty()


async def test_dying_owner_is_not_sent_a_request(folder: RuntimeFolder) -> None:
    """A process that is about to end takes connections and says nothing: its successor is the one that is asked."""
    async with ScriptedOwner(folder) as owner, asking(folder) as router:
        forward = router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False))
        await owner.requests.get()
        await owner.open(0)
        dropped = owner.connections
        await until(lambda: owner.connections >= dropped + 3)
        await owner.open(2)
        request = await owner.requests.get()
        owner.answer(Answer(request_id=request.request_id, payload=b"successor", end=True))
        assert await forward == b"successor"


async def test_same_owner_again_is_no_successor(folder: RuntimeFolder) -> None:
    """A request survives broken links to one process and one successor; when that goes too, it is refused."""
    async with ScriptedOwner(folder) as owner, asking(folder) as router:
        forward = asyncio.ensure_future(router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False)))
        for incarnation in (1, 1, 2):
            await owner.requests.get()
            await owner.open(incarnation)
        await owner.requests.get()
        assert not forward.done()
        await owner.open(3)
        with pytest.raises(Unavailable):
            await forward


async def test_stopped_process_bounds_a_call(folder: RuntimeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung owner's calls fail within the bound, sent or not; a killed one's go to its successor."""
    monkeypatch.setattr(limits, "ROUTER_OWNER_WAIT_S_MAX", 1.5)
    async with asking(folder) as router:
        owner = await owner_process(folder)
        assert await router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False)) == b"%d" % owner.pid
        owner.send_signal(signal.SIGSTOP)
        sent = router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False))
        with pytest.raises(Unavailable, match="silent"):
            await sent
        with pytest.raises(Unavailable):
            await router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False))
        owner.send_signal(signal.SIGCONT)
        monkeypatch.undo()
        waiting = asyncio.ensure_future(router.forward(1, "GetEvents", b"", CallFacts(PEER, 0, local=False)))
        assert await router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False)) == b"%d" % owner.pid
        owner.kill()
        await owner.wait()
        successor = await owner_process(folder)
        assert await router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False)) == b"%d" % successor.pid
        assert not waiting.done()
        waiting.cancel()
        successor.kill()
        await successor.wait()


async def test_owner_that_takes_its_time_is_not_silent(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that takes longer than the bound goes on while the owner answers pings."""
    monkeypatch.setattr(limits, "ROUTER_OWNER_WAIT_S_MAX", 0.5)
    monkeypatch.setattr(limits, "ROUTER_RETRY_INTERVAL_S", 0.1)
    monkeypatch.setattr(limits, "ROUTER_PING_LOOKS", 1)
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Wait", b"slow", CallFacts(PEER, 0, local=False)))
    done, _ = await asyncio.wait([forward], timeout=1.2)
    assert not done
    workers.handlers[1].gate.set()
    assert await forward == b"slow"


async def test_pings_are_rare(folder: RuntimeFolder) -> None:
    """An owner that has nothing to say is asked for a sign of life, at the pace of the bound."""
    async with ScriptedOwner(folder) as owner, asking(folder) as router:
        began_s = clock.monotonic_s()
        forward = asyncio.ensure_future(router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False)))
        await until(lambda: owner.pings == 1)
        assert clock.monotonic_s() - began_s >= limits.ROUTER_PING_LOOKS * limits.ROUTER_RETRY_INTERVAL_S
        forward.cancel()


async def test_stopping_owner_hands_over_to_its_successor(workers: Workers) -> None:
    """A request that an owner refuses because it is stopping is asked of its successor."""
    workers.handlers[1].refusal = Stopping("stopping")
    forward = asyncio.ensure_future(
        workers.routers[0].forward(1, "PauseExecution", b"p", CallFacts(PEER, 0, local=False))
    )
    await until(lambda: len(workers.handlers[1].calls) == 1)
    await workers.restart(1)
    workers.handlers[1].gate.set()
    assert await forward == b"p"
    assert len(workers.handlers[1].calls) == 1


async def test_refusal_for_now_is_asked_again(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that refuses because it is stopping but stays is asked until it answers, or its refusal is passed on."""
    workers.handlers[1].refusal = Stopping("stopping")
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Echo", b"", CallFacts(PEER, 0, local=False)))
    await until(lambda: len(workers.handlers[1].calls) >= 2)
    workers.handlers[1].refusal = None
    assert await forward == b"worker 1:"
    workers.handlers[1].refusal = Stopping("stopping")
    monkeypatch.setattr(limits, "ROUTER_OWNER_WAIT_S_MAX", 0.1)
    with pytest.raises(ForwardedError) as refused:
        await workers.routers[0].forward(1, "Echo", b"", CallFacts(PEER, 0, local=False))
    assert (refused.value.code, refused.value.message) == (14, "stopping")


@pytest.mark.parametrize(
    "refusal", [ShardDamaged("damaged"), StorageFailed("no disk"), ShortHanded(), Unavailable("x")]
)
async def test_refusal_of_the_request_is_the_answer(workers: Workers, refusal: RunnerError) -> None:
    """What its owner says of a request is not asked again, whatever its code."""
    workers.handlers[1].refusal = refusal
    with pytest.raises(ForwardedError) as refused:
        await workers.routers[0].forward(1, "Echo", b"", CallFacts(PEER, 0, local=False))
    assert (refused.value.code, refused.value.message) == (14, refusal.message)
    assert len(workers.handlers[1].calls) == 1


async def test_waiting_ends_at_the_deadline(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that stays away makes requests fail with Unavailable after the bound, and at once when stopping."""
    monkeypatch.setattr(limits, "ROUTER_OWNER_WAIT_S_MAX", 0.1)
    await workers.stop(1)
    with pytest.raises(Unavailable):
        await workers.routers[0].forward(1, "Echo", b"", CallFacts(PEER, 0, local=False))
    monkeypatch.undo()
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Echo", b"", CallFacts(PEER, 0, local=False)))
    await asyncio.sleep(0)
    workers.routers[0].stop_waiting()
    with pytest.raises(Unavailable):
        await forward


async def test_closing_router_lets_answers_out(workers: Workers) -> None:
    """A worker that closes its links first answers what it can."""
    forward = asyncio.ensure_future(workers.routers[0].forward(1, "Wait", b"last", CallFacts(PEER, 0, local=False)))
    await until(lambda: len(workers.handlers[1].calls) == 1)
    workers.handlers[1].gate.set()
    await workers.stop(1)
    assert await forward == b"last"


async def test_garbage_closes_the_link_only(workers: Workers) -> None:
    """A frame beyond the bound ends its connection; others go on."""
    reader, writer = await asyncio.open_unix_connection(str(workers.folder.socket_of(1)))
    writer.write(b"\xff\xff\xff\xff")
    with contextlib.suppress(ConnectionError):
        assert Frame.FromString((await reader.read())[4:]).incarnation
    writer.close()
    assert await workers.routers[0].forward(1, "Echo", b"ok", CallFacts(PEER, 0, local=False)) == b"worker 1:ok"


async def test_every_worker_knows_who_has_an_execution(workers: Workers) -> None:
    """What one worker claims all of them find; what nobody has any worker may take."""
    for shard in range(workers.count):
        places = workers.places(shard)
        assert places.table.claim(f"execution-{shard}", shard) == -1
        places.table.set_known(shard, True)
    for router in workers.routers.values():
        assert [list(router.owners_of(f"execution-{shard}")) for shard in range(workers.count)] == [
            [shard] for shard in range(workers.count)
        ]
        assert list(router.owners_of("nobody's")) == []
        assert router.choose(1) == router.worker


async def test_new_work_is_placed_at_an_idle_worker_that_answers(workers: Workers) -> None:
    """A busy worker places at one that has less to do, once it is linked to it, and never at one that is gone."""
    router = workers.routers[0]
    loads = workers.places(0).loads
    for worker, backlog in ((0, 1000.0), (1, 10.0), (2, inf)):
        loads.set(worker, BACKLOG, backlog)
    await until(lambda: router.choose(100) == 1)
    assert router.choose(991) == 0
    loads.set(1, BACKLOG, inf)
    assert router.choose(1) == 0
    loads.set(1, BACKLOG, 0.0)
    await workers.stop(1)
    await until(lambda: router.choose(1) == 0)


# --- the wrong moment, and the wrong pace ---


class ScriptedOwner:
    """A worker that speaks the links' frames and does what it is told."""

    def __init__(self, folder: RuntimeFolder) -> None:
        self._path = folder.socket_of(1)
        self._incarnation = 1
        self._server: asyncio.AbstractServer | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.requests: asyncio.Queue[Request] = asyncio.Queue()
        self.connections = self.pings = 0
        self.reading = asyncio.Event()
        self.reading.set()

    async def __aenter__(self) -> "ScriptedOwner":
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        assert self._server is not None
        self._server.close()
        self._path.unlink(missing_ok=True)

    async def open(self, incarnation: int) -> None:
        """Breaks the link; the next ones lead to another incarnation, 0: one that is about to end."""
        self._incarnation = incarnation
        await self.close()

    async def close(self) -> None:
        """Breaks the link."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def answer(self, *answers: Answer) -> None:
        """Sends one frame."""
        self._write(Frame(answers=answers))

    def _write(self, frame: Frame) -> None:
        assert self._writer is not None
        body = frame.SerializeToString()
        self._writer.write(len(body).to_bytes(4, "big") + body)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self._incarnation:
            writer.close()
            return
        self._writer = writer
        self._write(Frame(incarnation=self._incarnation))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.reading.wait()
                size_bytes = int.from_bytes(await reader.readexactly(4), "big")
                frame = Frame.FromString(await reader.readexactly(size_bytes))
                self.pings += frame.ping
                for request in frame.requests:
                    self.requests.put_nowait(request)


@contextlib.asynccontextmanager
async def asking(folder: RuntimeFolder) -> AsyncGenerator[Router, None]:
    """Worker 0 of two."""
    router = Router(
        Shared.create(2, 2, bytes(16)).places(0, 2), folder.socket_of, Metrics(CollectorRegistry()), status_of
    )
    try:
        yield router
    finally:
        await router.close(0)


async def owner_process(folder: RuntimeFolder) -> asyncio.subprocess.Process:
    """Worker 1 of two as a process."""
    module = "tests.integration.router_process"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, str(folder.path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
    return process


class Asker:
    """A worker that asks worker 1 by hand, and reads when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def of(cls, folder: RuntimeFolder) -> "Asker":
        """Connected, with hello read. Its buffer takes little, so that what it does not read stays with the owner."""
        return cls(*await asyncio.open_unix_connection(str(folder.socket_of(1)), limit=1))

    def ask(self, *requests: Request) -> None:
        """Sends one frame."""
        body = Frame(requests=requests).SerializeToString()
        self._writer.write(len(body).to_bytes(4, "big") + body)

    async def frame(self) -> tuple[Frame, int]:
        """The next frame, and its size."""
        async with asyncio.timeout(10):
            size_bytes = int.from_bytes(await self._reader.readexactly(4), "big")
            return Frame.FromString(await self._reader.readexactly(size_bytes)), size_bytes

    def close(self) -> None:
        """Breaks the link."""
        self._writer.close()


@pytest.fixture
async def asker(workers: Workers) -> AsyncGenerator[Asker, None]:
    asker = await Asker.of(workers.folder)
    await asker.frame()
    yield asker
    asker.close()


async def test_frame_that_is_full_leaves_at_once(asker: Asker) -> None:
    """However much is answered in one turn, a frame is not much larger than its bound, and all of it arrives."""
    asker.ask(*(Request(request_id=n + 1, method="Large", payload=b"10000") for n in range(100)))
    answers: list[int] = []
    sizes: list[int] = []
    while len(answers) < 100:
        frame, size_bytes = await asker.frame()
        answers += [answer.request_id for answer in frame.answers]
        sizes.append(size_bytes)
    assert answers == list(range(1, 101))
    assert max(sizes) < limits.ROUTER_FLUSH_SIZE_BYTES + 11_000
    assert max(sizes) > limits.ROUTER_FLUSH_SIZE_BYTES / 2


async def test_damaged_frame_closes_the_link_only(workers: Workers, asker: Asker) -> None:
    """What is no frame at all ends its connection; others go on."""
    asker._writer.write(b"\x00\x00\x00\x04\xff\xff\xff\xff")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asker.frame()
    assert await workers.routers[0].forward(1, "Echo", b"ok", CallFacts(PEER, 0, local=False)) == b"worker 1:ok"


async def test_stream_that_is_cancelled_before_it_starts_leaves_nothing(workers: Workers, asker: Asker) -> None:
    """Opened and cancelled in one frame, or by the end of its link: nothing is started, nothing is kept."""
    handler = workers.handlers[1]
    for number in range(1, 1001):
        asker.ask(Request(request_id=number, method="Count", payload=b"1", credit=8), Request(request_id=number))
    asker.ask(Request(request_id=2000, method="Echo", payload=b"1"))
    frame, _ = await asker.frame()
    assert [answer.request_id for answer in frame.answers] == [2000]
    assert not handler.sent
    (incoming,) = (channel for channel in workers.routers[1]._incoming if channel.is_heard)
    await until(lambda: not incoming.unanswered)
    asker.ask(*(Request(request_id=n, method="Count", payload=b"1", credit=8) for n in range(3000, 3064)))
    asker.close()
    await until(lambda: incoming not in workers.routers[1]._incoming)
    await until(lambda: not incoming.unanswered)


async def test_large_messages_cost_more_credit(workers: Workers) -> None:
    """An owner sends no more bytes ahead of a reader than messages of a KiB would be, and one message."""
    stream = workers.routers[0].forward_stream(1, "Large", b"100", CallFacts(PEER, 0, local=False))
    assert len(await anext(stream)) == 65_536
    ahead = limits.ROUTER_STREAM_CREDITS_MAX * limits.ROUTER_CREDIT_SIZE_BYTES // 65_536
    await until(lambda: workers.handlers[1].sent > ahead)
    await workers.routers[0].forward(1, "Echo", b"", CallFacts(PEER, 0, local=False))
    assert workers.handlers[1].sent <= ahead + 2
    assert len([message async for message in stream]) == 99


async def test_streams_of_a_link_share_its_credit(folder: RuntimeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more streams there are the less each new one is granted, down to a floor."""
    monkeypatch.setattr(limits, "ROUTER_LINK_CREDITS", 4 * limits.ROUTER_STREAM_CREDITS_MIN)
    async with ScriptedOwner(folder) as owner, asking(folder) as router:
        streams = [router.forward_stream(1, "Count", b"", CallFacts(PEER, 0, local=False)) for _ in range(6)]
        reads = [asyncio.ensure_future(anext(stream)) for stream in streams]
        granted = [(await owner.requests.get()).credit for _ in reads]
        assert granted == [32, 16, 10, 8, 8, 8]
        for read in reads:
            read.cancel()


async def test_answers_of_a_worker_that_does_not_read_are_bounded(workers: Workers, asker: Asker) -> None:
    """What would pile up is refused with a time to retry; its small answers all come, and nothing else is held up."""
    size, count = 8_000_000, 40
    asker.ask(*(Request(request_id=n + 1, method="Large", payload=b"%d" % size) for n in range(count)))
    asker.ask(Request(request_id=1000, method="Echo", payload=b"1"))
    await until(lambda: len(workers.handlers[1].calls) == count + 1)
    assert await workers.routers[0].forward(1, "Echo", b"2", CallFacts(PEER, 0, local=False)) == b"worker 1:2"
    answers: list[Answer] = []
    while len(answers) <= count:
        answers += (await asker.frame())[0].answers
    whole = [answer for answer in answers if len(answer.payload) == size]
    refused = [answer for answer in answers if answer.code == AtCapacity.grpc_code]
    assert 1 <= len(whole) <= limits.ROUTER_ANSWERS_SIZE_BYTES_MAX // size + 2
    assert len(whole) + len(refused) == count
    assert answers[-1].payload == b"worker 1:1"


async def test_streams_of_a_worker_that_does_not_read_stand_still(workers: Workers, asker: Asker) -> None:
    """Credit is no leave to fill the owner's memory: however many streams have it, they wait, and then go on."""
    asker.ask(*(Request(request_id=n + 1, method="Large", payload=b"3", credit=200) for n in range(500)))
    await until(lambda: len(workers.handlers[1].calls) == 500)
    await workers.routers[0].forward(1, "Echo", b"", CallFacts(PEER, 0, local=False))
    (incoming,) = (channel for channel in workers.routers[1]._incoming if len(channel.unanswered) > 100)
    assert incoming.outbox_size_bytes < limits.ROUTER_FLUSH_SIZE_BYTES + 65 * 65_600
    answers = 0
    while answers < 2000:
        answers += len((await asker.frame())[0].answers)


async def test_messages_of_a_frame_are_spread_over_turns(folder: RuntimeFolder) -> None:
    """An event's thousand followers are not all woken in one turn: what else the worker does goes on between them."""
    async with ScriptedOwner(folder) as owner, asking(folder) as router:
        forwards = [
            asyncio.ensure_future(router.forward(1, "Echo", b"", CallFacts(f"{n % 4}", 0, local=False)))
            for n in range(1000)
        ]
        ids = [(await owner.requests.get()).request_id for _ in forwards]
        owner.answer(*(Answer(request_id=request_id, end=True) for request_id in ids))
        per_turn, done = [0], 0
        async with asyncio.timeout(10):
            while done < 1000:
                await asyncio.sleep(0)
                before, done = done, sum(forward.done() for forward in forwards)
                per_turn.append(done - before)
        assert max(per_turn) == limits.ROUTER_MESSAGES_PER_TURN_MAX


async def test_urgent_requests_leave_first(folder: RuntimeFolder) -> None:
    """When the owner comes, a command is sent before whatever has waited longer."""
    async with asking(folder) as router:
        requests: list[Awaitable[bytes]] = [
            router.forward(1, "ExecuteAsync", b"", CallFacts(PEER, 0, local=False)) for _ in range(10)
        ]
        requests.append(router.forward(1, "CancelExecution", b"", CallFacts(PEER, 0, local=False)))
        async with ScriptedOwner(folder) as owner:
            assert (await owner.requests.get()).method == "CancelExecution"
            await router.close(0)
            await asyncio.gather(*requests, return_exceptions=True)


async def test_requests_wait_while_the_owner_does_not_read(folder: RuntimeFolder) -> None:
    """What the owner has no room for is not sent, so that a command that was not sent may still go to its successor."""
    async with ScriptedOwner(folder) as owner, asking(folder) as router:
        await asyncio.wait_for(_first(router, owner), 10)
        owner.reading.clear()
        bulk = [
            asyncio.ensure_future(router.forward(1, "ExecuteAsync", bytes(1_000_000), CallFacts(PEER, 0, local=False)))
            for _ in range(8)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        paused = asyncio.ensure_future(router.forward(1, "PauseExecution", b"p", CallFacts(PEER, 0, local=False)))
        await owner.open(2)
        owner.reading.set()
        requests = [await owner.requests.get() for _ in range(9)]
        request = next(request for request in requests if request.method == "PauseExecution")
        owner.answer(Answer(request_id=request.request_id, payload=b"paused", end=True))
        assert await paused == b"paused"
        for forward in bulk:
            forward.cancel()


async def _first(router: Router, owner: ScriptedOwner) -> None:
    """One call, after which there is a link."""
    forward = asyncio.ensure_future(router.forward(1, "GetExecution", b"", CallFacts(PEER, 0, local=False)))
    request = await owner.requests.get()
    owner.answer(Answer(request_id=request.request_id, end=True))
    await forward
