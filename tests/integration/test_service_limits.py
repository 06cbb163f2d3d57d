"""Bounds of the wire: what is larger, more or sooner than its limit allows is refused, cut, or waits."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from fastrunner._core import Problem
from fastrunner._http2 import waiting_size_bytes
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.errors import DocumentRefused
from fastrunner.service.methods import COMMAND_SERVICE
from tests.integration.wire import DEADLINE_S, MemoryWire, execution, path, refusal, served, until
from tests.transport import frames
from tests.transport.frames import Connection, frame, message

DATA, SETTINGS, PING, GOAWAY = 0, 4, 6, 7
ACK = 1


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[MemoryWire]:
    async with served() as wire:
        yield wire


class Turns:
    """What a number has grown by from turn to turn of the loop."""

    def __init__(self, count: Any) -> None:
        self._count = count
        self._before = count()
        self.steps: list[int] = []
        self._handle = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        now = self._count()
        self.steps.append(now - self._before)
        self._before = now
        self._handle = asyncio.get_running_loop().call_soon(self._look)

    def stop(self) -> int:
        """The most in one turn."""
        self._handle.cancel()
        return max(self.steps)


# --- sizes and counts ---


@pytest.mark.parametrize("method", ["CancelExecution", "PauseExecution", "ResumeExecution"])
async def test_reason_of_a_command(wire: MemoryWire, method: str) -> None:
    await wire.execute_async("e-1")
    longest = "é" * (limits.REASON_SIZE_BYTES_MAX // 2)
    request = m.PauseExecutionRequest(execution_id="e-1", reason=longest + "r")
    code, message, _ = await refusal(wire.call(method, request, Empty))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert message == f"reason has {limits.REASON_SIZE_BYTES_MAX + 1} bytes: at most 4096 are allowed"
    request.reason = longest
    await wire.call(method, request, Empty)


async def test_events_of_a_reply(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_REPLAY_COUNT_MAX", 5)
    await wire.execute_async("e-1")
    for _ in range(10):
        wire.engine.executions["e-1"].report("task_started", "running")
    for count in (0, 6, 2**31 - 1):
        request = q.GetEventsRequest(execution_id="e-1", count_max=count)
        reply = await wire.call("GetEvents", request, q.GetEventsResponse)
        assert [event.sequence_number for event in reply.events] == [1, 2, 3, 4, 5]


async def test_executions_of_a_page(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIST_PAGE_SIZE_MAX", 3)
    for at in range(5):
        await wire.execute_async(f"e-{at}")
    for size in (0, 4, 2**31 - 1):
        reply = await wire.call("ListExecutions", q.ListExecutionsRequest(page_size=size), q.ListExecutionsResponse)
        assert [each.execution_id for each in reply.executions] == ["e-4", "e-3", "e-2"]
        assert reply.next_page_token


async def test_reply_larger_than_a_message(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to a client that would take it."""
    monkeypatch.setattr(limits, "REPLY_MESSAGE_SIZE_BYTES_MAX", 100_000)
    async with served() as bounded:
        options = [("grpc.max_receive_message_length", -1)]
        channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{bounded.server.port}", options=options)
        async with channel:
            call = channel.unary_unary(path("GetExecution"))
            for size, fits in ((90_000, True), (100_001, False)):
                await bounded.execute_async(f"e-{size}", "x" * size)
                request = q.GetExecutionRequest(execution_id=f"e-{size}").SerializeToString()
                if fits:
                    assert len(await call(request, timeout=DEADLINE_S)) > size
                else:
                    code, _, _ = await refusal(call(request, timeout=DEADLINE_S))
                    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_large_replies_that_nobody_reads(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones are refused, small ones are not, and all is well when their clients are gone."""
    monkeypatch.setattr(limits, "GRPC_REPLIES_SIZE_BYTES_MAX", 450_000)
    await wire.execute_async("large", "x" * 140_000)
    await wire.execute_async("small")
    ask = {name: message(q.GetExecutionRequest(execution_id=name).SerializeToString()) for name in ("large", "small")}

    def crowd() -> list[str]:
        closed = frames.PREFACE + frames.settings(table_1=0, window_4=0)
        with Connection(wire.server.port, closed) as reader, Connection(wire.server.port) as other:
            for stream in (1, 3, 5):
                reader.call(stream, path("GetExecution"), ask["large"])
            reader.settle()
            for stream, name in ((1, "large"), (3, "small")):
                other.call(stream, path("GetExecution"), ask[name])
            return [other.answer(stream).outcome for stream in (1, 3)]

    assert await asyncio.to_thread(crowd) == ["status 8", "status 0"]
    await until(lambda: waiting_size_bytes() == 0)
    assert len(await wire.raw(path("GetExecution"), ask["large"][5:])) > 140_000


async def test_details_of_a_refusal_in_a_batch(wire: MemoryWire) -> None:
    """A document with many problems tells fewer of them there than it does alone."""
    problems = [Problem("unknown-key", f"/do/{at}", at, 1, "long " * 60) for at in range(1, 101)]
    wire.engine.refusal = DocumentRefused(problems)
    request = m.ExecuteAsyncBatchRequest(executions=[execution("e-1")])
    reply = await wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    in_batch = sum(len(detail.value) for detail in reply.results[0].refused.details)
    _, _, alone = await refusal(wire.execute_async("e-1"))
    assert limits.BATCH_STATUS_DETAILS_SIZE_BYTES_MAX // 2 < in_batch <= limits.BATCH_STATUS_DETAILS_SIZE_BYTES_MAX
    assert alone["BadRequest"].ByteSize() > limits.BATCH_STATUS_DETAILS_SIZE_BYTES_MAX


async def test_warnings_of_an_answer(wire: MemoryWire) -> None:
    """As many as fit; the last one counts the others. Without warnings the answer has not one byte more."""
    plain = await wire.execute_async("e-1")
    assert list(plain.warnings) == []
    wire.engine.warnings = [Problem("text", f"/do/{at}", at, 1, "long " * 20, "warning") for at in range(1, 101)]
    reply = await wire.execute_async("e-2")
    assert sum(map(len, reply.warnings)) <= limits.REPLY_WARNINGS_SIZE_BYTES_MAX + 100
    assert reply.warnings[0].startswith("1:1: text: long")
    assert reply.warnings[-1] == f"{101 - len(reply.warnings)} more warnings: ValidateWorkflow lists them all"
    reply.ClearField("warnings")
    reply.workflow_execution_id = "e-1"
    assert reply == plain


async def test_name_of_a_client(wire: MemoryWire) -> None:
    """A longer one is not taken for a name: the address counts."""
    names = ("n" * limits.CLIENT_NAME_SIZE_BYTES_MAX, "n" * (limits.CLIENT_NAME_SIZE_BYTES_MAX + 1))
    for at, name in enumerate(names):
        call = wire.channel.unary_unary(path("ExecuteAsync"))
        request = execution(f"e-{at}").SerializeToString()
        await call(request, metadata=(("fastrunner-client", name),), timeout=DEADLINE_S)
    clients = [wire.engine.executions[f"e-{at}"].submission.client for at in range(2)]
    assert clients == [names[0], "ipv4:127.0.0.1"]


# --- turns of the loop ---


async def test_executions_of_a_batch_between_two_turns(wire: MemoryWire) -> None:
    request = m.ExecuteAsyncBatchRequest(executions=[execution(f"e-{at}") for at in range(200)])
    turns = Turns(lambda: wire.engine.asked)
    await wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    assert 1 < turns.stop() <= limits.BATCH_EXECUTIONS_PER_TURN_MAX


async def test_large_executions_of_a_batch_between_two_turns(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each takes longer than the turn may, there is one in each."""
    monkeypatch.setattr(limits, "BATCH_TURN_S_MAX", 0.0)
    request = m.ExecuteAsyncBatchRequest(executions=[execution(f"e-{at}") for at in range(20)])
    turns = Turns(lambda: wire.engine.asked)
    await wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    assert turns.stop() == 1


async def _in_order(wire: MemoryWire, *sizes: int) -> str:
    """Which of some batches that are sent at once each execution was submitted for, in order."""
    requests = [
        m.ExecuteAsyncBatchRequest(executions=[execution(f"{name}-{at}") for at in range(size)])
        for name, size in zip("abc", sizes, strict=False)
    ]
    await asyncio.gather(
        *(wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse) for request in requests)
    )
    return "".join(execution_id[0] for execution_id in wire.engine.executions)


async def test_batches_go_one_after_the_other_and_a_long_one_lets_others_go(wire: MemoryWire) -> None:
    go = limits.BATCH_EXECUTIONS_PER_GO
    order = await _in_order(wire, 2 * go, 2 * go, 2 * go)
    gos = [order[at : at + go] for at in range(0, len(order), go)]
    assert [set(each) for each in gos] == [{each[0]} for each in gos]
    assert {each[0] for each in gos[:3]} == set("abc")
    assert gos[3:] == gos[:3]


async def test_batches_whose_executions_take_their_time_take_turns(
    wire: MemoryWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BATCH_TURN_S_MAX", 0.0)
    order = await _in_order(wire, 2, 2, 2)
    assert set(order[:3]) == set("abc")
    assert order[3:] == order[:3]


async def test_submissions_beyond_the_pace_are_refused_before_they_are_read(wire: MemoryWire) -> None:
    await wire.execute_async("before")
    overload = wire.server._service.overload
    overload.rate_per_s = limits.OVERLOAD_EXECUTIONS_PER_S_MIN
    overload._too_fast_per_s, overload._is_late = overload.rate_per_s, lambda: True
    call = wire.channel.unary_unary(path("ExecuteAsync"))
    # Nothing of these could be decoded.
    ends = await asyncio.gather(*(call(b"\xff", timeout=DEADLINE_S) for _ in range(50)), return_exceptions=True)
    refused = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    codes = [end.code() for end in refused]
    assert len(refused) == 50
    assert set(codes) <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) > 40
    last = next(end for end in reversed(refused) if end.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
    trailers: Any = last.trailing_metadata()
    status = Status.FromString(dict(trailers)["grpc-status-details-bin"])
    assert any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)
    service, method = COMMAND_SERVICE, "ExecuteAsync"
    await until(
        lambda: wire.handled(service, method, "ResourceExhausted") == codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)
    )
    # Whoever ends work is not refused.
    await wire.call("CancelExecution", m.CancelExecutionRequest(execution_id="before"), Empty)


# --- calls and connections ---


async def test_calls_open_on_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is not taken, on another connection it is."""
    monkeypatch.setattr(limits, "GRPC_STREAMS_PER_CONNECTION_MAX", 3)
    async with served() as wire:
        await wire.execute_async("e-1")
        streams = [wire.stream("Subscribe", q.SubscribeRequest(execution_id="e-1")) for _ in range(3)]
        for stream in streams:
            await stream.read()
        call = wire.channel.unary_unary(path("ExecuteAsync"))
        code, _, _ = await refusal(call(execution("e-2").SerializeToString(), timeout=0.5))
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert set(wire.engine.executions) == {"e-1"}
        # Channels of one process share connections unless told not to.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{wire.server.port}", options=options)
        async with channel as other:
            await other.unary_unary(path("ExecuteAsync"))(execution("e-3").SerializeToString(), timeout=DEADLINE_S)
        for stream in streams:
            stream.cancel()


async def full(call: Any) -> str:
    """Why a call is refused that finds no room, and may come again in a second."""
    code, message, details = await refusal(call)
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "AT_CAPACITY")
    assert details["RetryInfo"].retry_delay.seconds == 1
    return message


async def test_calls_that_are_not_answered_yet(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, and calls that wait for a commit; commands find room beyond them, and health is told in any case."""
    monkeypatch.setattr(limits, "GRPC_CALLS_OPEN_MAX", 5)
    monkeypatch.setattr(limits, "GRPC_CALLS_RESERVED", 1)
    await wire.execute_async("e-1")
    streams = [wire.stream("Subscribe", q.SubscribeRequest(execution_id="e-1")) for _ in range(2)]
    for stream in streams:
        await stream.read()
    wire.engine.gate.clear()
    waiting = [asyncio.ensure_future(wire.execute_async(f"e-{at}")) for at in (2, 3)]
    await until(lambda: wire.engine.asked == 3)
    assert "too many calls" in await full(wire.execute_async("e-4"))
    batch = m.ExecuteAsyncBatchRequest(executions=[execution("e-4")])
    assert "too many calls" in await full(wire.call("ExecuteAsyncBatch", batch, m.ExecuteAsyncBatchResponse))
    await wire.call("PauseExecution", m.PauseExecutionRequest(execution_id="e-1"), Empty)
    monkeypatch.setattr(limits, "GRPC_CALLS_OPEN_MAX", 4)
    command = wire.call("PauseExecution", m.PauseExecutionRequest(execution_id="e-1"), Empty)
    assert "too many calls" in await full(command)
    assert await wire.raw("/grpc.health.v1.Health/Check", b"")
    monkeypatch.setattr(limits, "GRPC_CALLS_OPEN_MAX", 5)
    wire.engine.gate.set()
    await asyncio.gather(*waiting)
    streams[0].cancel()
    await until(lambda: len(wire.server._streams) == 1)
    assert (await wire.execute_async("e-4")).status == "running"


async def test_streams_of_a_worker_and_of_a_client(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones are refused, whoever follows another client's find room, and other calls go on."""
    monkeypatch.setattr(limits, "GRPC_STREAMS_OPEN_MAX", 5)
    monkeypatch.setattr(limits, "GRPC_STREAMS_PER_CLIENT_MAX", 3)
    await wire.execute_async("e-1")
    request = q.SubscribeRequest(execution_id="e-1").SerializeToString()

    def follow(client: str) -> Any:
        call = wire.channel.unary_stream(path("Subscribe"))
        return call(request, metadata=(("fastrunner-client", client),), timeout=DEADLINE_S)

    streams = [follow(client) for client in ("one", "one", "one", "other")]
    for stream in streams:
        assert await stream.read()
    assert "one client" in await full(follow("one").read())
    streams.append(follow("other"))
    assert await streams[4].read()
    assert "too many calls" in await full(follow("other").read())
    assert (await wire.execute_async("e-2")).status == "running"
    for stream in streams:
        stream.cancel()
    await until(lambda: not wire.server._streams)
    assert not wire.server._capacity.streams_count
    assert await follow("one").read()


async def test_conversations_of_a_worker(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRPC_CONVERSATIONS_MAX", 2)
    name = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    question = ServerReflectionRequest(list_services="").SerializeToString()
    talks = [wire.channel.stream_stream(name)(timeout=DEADLINE_S) for _ in range(2)]
    for talk in talks:
        await talk.write(question)
        assert await talk.read()
    assert "too many streams of requests" in await full(wire.channel.stream_stream(name)(timeout=DEADLINE_S).read())
    talks[0].cancel()
    await until(lambda: len(wire.server._streams) == 1)
    another = wire.channel.stream_stream(name)(timeout=DEADLINE_S)
    await another.write(question)
    assert await another.read()


async def test_requests_that_wait_for_their_answers(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones find no room while others wait; commands do, and so does everybody when they are answered."""
    monkeypatch.setattr(limits, "GRPC_REQUESTS_SIZE_BYTES_MAX", 100_000)
    large = "x" * 60_000
    wire.engine.gate.clear()
    waiting = asyncio.ensure_future(wire.execute_async("e-1", large))
    await until(lambda: wire.engine.asked == 1)
    assert "too large together" in await full(wire.execute_async("e-2", large))
    assert "too large together" in await full(wire.stream("Execute", execution("e-2", large)).read())
    small = asyncio.ensure_future(wire.execute_async("e-3"))
    await until(lambda: wire.engine.asked == 2)
    command = m.PauseExecutionRequest(execution_id="e-9", reason=large)
    code, message, _ = await refusal(wire.call("PauseExecution", command, Empty))
    assert (code, "reason has" in message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    wire.engine.gate.set()
    await asyncio.gather(waiting, small)
    # An execution that has begun holds no request, however long it is followed.
    for at in range(3):
        stream = wire.stream("Execute", execution(f"f-{at}", large))
        assert await stream.read()
        await until(lambda: not wire.server._capacity.size_bytes)
    assert (await wire.execute_async("e-2", large)).status == "running"


async def test_requests_on_their_way(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many that do not come, the client that has most of them loses its oldest; others are answered."""
    monkeypatch.setattr(limits, "GRPC_REQUESTS_COMING_MAX", 3)
    monkeypatch.setattr(limits, "GRPC_REQUEST_LATE_S", 0.1)
    monkeypatch.setattr(limits, "GRPC_REQUESTS_REFUSED_SLICE", 5)
    await asyncio.gather(*(wire.execute_async(f"at-once-{at}") for at in range(100)))

    def halves(name: str) -> tuple[bytes, bytes]:
        whole = message(execution(name, "x" * 1_000).SerializeToString())
        return whole[:500], whole[500:]

    def crowd() -> list[str]:
        with Connection(wire.server.port) as few, Connection(wire.server.port) as many:
            for connection, client, count in ((few, "few", 1), (many, "many", 10)):
                for stream in range(1, 2 * count, 2):
                    headers = {"fastrunner_client": client}
                    half, _ = halves(f"{client}-{stream}")
                    connection.call(stream, path("ExecuteAsync"), half, end=False, headers=headers)
            ends = [many.answer(stream).outcome for stream in range(1, 17, 2)]
            few.send(frame(DATA, frames.END_STREAM, 1, halves("few-1")[1]))
            for stream in (17, 19):
                many.send(frame(DATA, frames.END_STREAM, stream, halves(f"many-{stream}")[1]))
            return [*ends, few.answer(1).outcome, many.answer(17).outcome, many.answer(19).outcome]

    assert await asyncio.to_thread(crowd) == ["status 8"] * 8 + ["status 0"] * 3
    await until(lambda: not wire.server._intake._coming)
    assert (await wire.execute_async("e-1")).status == "running"


async def test_pause_of_a_stopping_server(wire: MemoryWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of a client that has not heard yet that it should go is taken up, and answered."""
    monkeypatch.setattr(limits, "GRPC_STOP_PAUSE_S", 0.3)
    await wire.execute_async("e-1")
    with frames.Connection(wire.server.port) as late:
        await asyncio.to_thread(late.settle)
        began_s = monotonic_s()
        stopped = asyncio.ensure_future(wire.server.stop(5))
        await asyncio.sleep(0)
        late.call(1, path("ExecuteAsync"), frames.message(execution("e-2").SerializeToString()))
        assert (await asyncio.to_thread(late.answer, 1)).outcome == "status 0"
        await stopped
    assert 0.3 <= monotonic_s() - began_s < 10


# --- HTTP/2 as such ---


class RawConnection:
    """A client that knows frames only."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self._frame(SETTINGS, 0, b""))

    @staticmethod
    def _frame(kind: int, flags: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4) + payload

    def ping(self) -> None:
        self._socket.sendall(self._frame(PING, 0, bytes(8)))

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and payload of what comes, until the server closes."""
        file = self._socket.makefile("rb")
        while header := file.read(9):
            kind, flags = header[3], header[4]
            payload = file.read(int.from_bytes(header[:3], "big"))
            if kind == SETTINGS and not flags & ACK:
                self._socket.sendall(self._frame(SETTINGS, ACK, b""))
            yield kind, flags, payload

    def close(self) -> None:
        self._socket.close()


@contextmanager
def connected(port: int) -> Iterator[RawConnection]:
    connection = RawConnection(port)
    try:
        yield connection
    finally:
        connection.close()


def first_ping_and_end_s(port: int) -> tuple[float, float]:
    """When a silent client is asked whether it is there, and when it is given up."""
    with connected(port) as connection:
        began_s = monotonic_s()
        asked_s = 0.0
        for kind, flags, _ in connection.frames():
            if kind == PING and not flags & ACK:
                asked_s = asked_s or monotonic_s() - began_s
        return asked_s, monotonic_s() - began_s


async def test_silent_connection_is_asked_and_then_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRPC_KEEPALIVE_TIME_MS", 400)
    monkeypatch.setattr(limits, "GRPC_KEEPALIVE_TIMEOUT_MS", 300)
    async with served() as wire:
        asked_s, ended_s = await asyncio.to_thread(first_ping_and_end_s, wire.server.port)
    assert 0.3 <= asked_s < 2
    assert 0.6 <= ended_s < 4
