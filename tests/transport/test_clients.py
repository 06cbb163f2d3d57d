"""The official Python client, both kinds: deadlines, cancellation, metadata, compression, streams, drain."""

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base import limits
from fastrunner.service.health import HEALTH_SERVICE
from fastrunner.service.methods import METHOD_OF_PATH, STREAMING
from fastrunner.service.reflection import REFLECTION_SERVICES
from tests.integration.wire import MemoryWire, execution, path, refusal, served, until
from tests.transport import server_process
from tests.transport.frames import Connection
from tests.transport.server_process import EXECUTE_ASYNC, REFLECTION, SUBSCRIBE, ServerProcess

DEADLINE_S = 10.0
LIST_SERVICES = ServerReflectionRequest(list_services="").SerializeToString()


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[MemoryWire]:
    async with served() as wire:
        yield wire


def idle(wire: MemoryWire) -> bool:
    """Whether nothing is left of any call."""
    server = wire.server
    connections = server._connections._connections
    return not server._streams and not server._pending and all(each.session.is_idle for each in connections)


# --- every path, both clients ---


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)
async def test_every_path_answers_whatever_the_compression(wire: MemoryWire, compression: grpc.Compression) -> None:
    """An empty request is refused by every method that needs more, but never as unknown."""
    channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{wire.server.port}", compression=compression)
    refused: dict[str, tuple[grpc.StatusCode, str]] = {}
    async with channel:
        for name, method in METHOD_OF_PATH.items():
            try:
                if method.streams:
                    call = channel.unary_stream(name)(b"", timeout=DEADLINE_S)
                    # One that follows without end is an answer by its first message.
                    await call.read()
                    call.cancel()
                else:
                    await channel.unary_unary(name)(b"", timeout=DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                refused[name] = error.code(), error.details() or ""
    allowed = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
    wrong = {name: said for name, said in refused.items() if said[0] not in allowed or "no method" in said[1]}
    assert refused
    assert not wrong
    assert {method.name for method in METHOD_OF_PATH.values() if method.streams} == STREAMING


def test_synchronous_client(server: ServerProcess) -> None:
    """Unary, stream, bidirectional and refusal."""
    server.submit("sync", "quiet")
    stream = server.channel.unary_stream(SUBSCRIBE)(
        q.SubscribeRequest(execution_id="sync").SerializeToString(), timeout=DEADLINE_S
    )
    assert b"workflow_started" in next(stream)
    stream.cancel()
    for service in REFLECTION_SERVICES:
        answers = server.channel.stream_stream(f"/{service}/ServerReflectionInfo")(
            iter([LIST_SERVICES] * 500), timeout=DEADLINE_S
        )
        assert len(set(answers)) == 1
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary(server_process.GET)(b"", timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    server_process.until(lambda: server.open() == 0, "the stream goes on")


def test_many_callers_at_once(server: ServerProcess) -> None:
    """Threads with a channel each, mixing all kinds of calls, each get their own answers."""
    wrong: list[object] = []

    def call(number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        opened: Any = grpc.insecure_channel(server.target, options)
        with opened as channel:
            for at in range(25):
                execution_id = f"many-{number}-{at}"
                request = execution(execution_id, "quiet").SerializeToString()
                if execution_id.encode() not in channel.unary_unary(EXECUTE_ASYNC)(request, timeout=DEADLINE_S):
                    wrong.append(execution_id)
                request = q.SubscribeRequest(execution_id=execution_id).SerializeToString()
                stream = channel.unary_stream(SUBSCRIBE)(request, timeout=DEADLINE_S)
                if execution_id.encode() not in next(stream):
                    wrong.append(execution_id)
                stream.cancel()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    server_process.until(lambda: server.open() == 0, "a stream goes on")


# --- deadlines and cancellation ---


async def test_deadline_of_a_unary_call(wire: MemoryWire) -> None:
    """The caller hears of it in time; what was asked for is still done, and nothing is left of the call."""
    wire.engine.gate.clear()
    call = wire.channel.unary_unary(EXECUTE_ASYNC)
    code, _, _ = await refusal(call(execution("late").SerializeToString(), timeout=0.2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not wire.engine.executions
    wire.engine.gate.set()
    await until(lambda: "late" in wire.engine.executions and idle(wire))


async def test_cancelled_unary_calls(wire: MemoryWire) -> None:
    """Accepting is not undone by who no longer listens; a hundred of them leave nothing behind."""
    wire.engine.gate.clear()
    calls = [
        wire.channel.unary_unary(EXECUTE_ASYNC)(execution(f"gone-{at}").SerializeToString(), timeout=DEADLINE_S)
        for at in range(100)
    ]
    await until(lambda: wire.engine.asked == 100)
    for call in calls:
        call.cancel()
    wire.engine.gate.set()
    await until(lambda: len(wire.engine.executions) == 100 and idle(wire))


@pytest.mark.parametrize("how", ["deadline", "cancel", "close"])
async def test_end_of_a_stream_nobody_reads_any_more(wire: MemoryWire, how: str) -> None:
    """Deadline, cancellation and a closed channel all end what serves it."""
    await wire.execute_async("e-1")
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{wire.server.port}", options=options)
    request = q.SubscribeRequest(execution_id="e-1").SerializeToString()
    stream = channel.unary_stream(SUBSCRIBE)(request, timeout=0.3 if how == "deadline" else DEADLINE_S)
    assert await stream.read()
    assert len(wire.server._streams) == 1
    if how == "cancel":
        stream.cancel()
    elif how == "close":
        await channel.close()
    await until(lambda: idle(wire))
    await channel.close()


async def test_execute_whose_client_goes_is_cancelled(wire: MemoryWire) -> None:
    stream = wire.stream("Execute", execution("e-1"))
    await stream.read()
    stream.cancel()
    await until(lambda: wire.engine.executions["e-1"].status == "cancelled" and idle(wire))


@pytest.mark.parametrize("service", REFLECTION_SERVICES)
async def test_conversation(wire: MemoryWire, service: str) -> None:
    """Question and answer in turns, many on one stream; cancelled in the middle, nothing is left."""
    talk = wire.channel.stream_stream(f"/{service}/ServerReflectionInfo")(timeout=DEADLINE_S)
    for _ in range(200):
        await talk.write(LIST_SERVICES)
        answer = ServerReflectionResponse.FromString(await talk.read())
        assert len(answer.list_services_response.service) > 4
    await talk.write(b"\xff\xff")
    code, _, details = await refusal(talk.read())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "ErrorInfo" in details
    other = wire.channel.stream_stream(REFLECTION)(timeout=DEADLINE_S)
    await other.write(LIST_SERVICES)
    await other.read()
    other.cancel()
    await until(lambda: idle(wire))


# --- metadata and sizes ---


async def test_metadata(wire: MemoryWire) -> None:
    """Binary keys, repeated keys and what fits 8 KiB are taken; more is refused, not cut."""
    call = wire.channel.unary_unary(EXECUTE_ASYNC)
    request = execution("e-1").SerializeToString()
    taken = (("trace-bin", bytes(range(256)) * 4), ("again", "one"), ("again", "two"), ("large", "x" * 4_000))
    assert await call(request, metadata=taken, timeout=DEADLINE_S)
    code, message, _ = await refusal(call(request, metadata=(("large", "x" * 40_000),), timeout=DEADLINE_S))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "metadata size" in message


async def test_message_at_and_beyond_its_limit(wire: MemoryWire) -> None:
    """Compressed or not, what counts is the size unpacked."""
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        call = wire.channel.unary_unary(path("ValidateWorkflow"))
        for size, limited in (
            (limits.REQUEST_SIZE_BYTES_MAX, "document"),
            (limits.REQUEST_SIZE_BYTES_MAX + 1, "larger"),
        ):
            code, message, _ = await refusal(call(bytes(size), compression=compression, timeout=DEADLINE_S))
            if limited == "larger":
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "larger than max" in message
            else:
                assert code is grpc.StatusCode.INVALID_ARGUMENT


# --- health and drain ---


@pytest.fixture
def draining() -> Iterator[ServerProcess]:
    with server_process.server_process() as server:
        yield server


def test_drain_with_open_streams(draining: ServerProcess) -> None:
    """Watchers hear NOT_SERVING or that it stops, streams end as UNAVAILABLE, the process ends in time with 0."""
    server = draining
    server.submit("open", "quiet")
    server.submit("endless", "flood")
    follow = server.channel.unary_stream(SUBSCRIBE)
    quiet = follow(q.SubscribeRequest(execution_id="open").SerializeToString(), timeout=30)
    flood = follow(q.SubscribeRequest(execution_id="endless").SerializeToString(), timeout=30)
    watch = server.channel.unary_stream(f"/{HEALTH_SERVICE}/Watch")(
        HealthCheckRequest().SerializeToString(), timeout=30
    )
    talk = server.channel.stream_stream(REFLECTION)(iter(threading.Event().wait, True), timeout=30)
    next(quiet)
    next(flood)
    assert HealthCheckResponse.FromString(next(watch)).status == HealthCheckResponse.SERVING
    server.drain()
    for stream in (quiet, flood, watch):
        with pytest.raises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    talk.cancel()
    assert server.process.wait(10) == 0


def test_drain_tells_idle_connections_to_go(draining: ServerProcess) -> None:
    """GOAWAY, or the end of the connection, without anybody having called."""
    with Connection(draining.port) as connection:
        connection.settle()
        draining.drain()
        assert not connection.pongs(b"never...")
    assert draining.process.wait(10) == 0
