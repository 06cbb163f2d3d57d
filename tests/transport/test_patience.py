"""How many connections a worker holds, how long one may do nothing that HTTP/2 asks of it or be idle, and its age."""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest

from fastrunner._http2 import Bounds, Call, Session, waiting_size_bytes
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import GetExecutionRequest, SubscribeRequest
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.service.transport import connection as under_test
from fastrunner.service.transport.deadlines import Deadlines
from tests.integration.wire import Wire, execution, path, served, until
from tests.transport.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    frame,
    message,
    request_block,
    settings,
)


def end_s(port: int, hello: bytes) -> float:
    """When the server closes a connection whose client says no more than this, in seconds."""
    began_s = monotonic_s()
    with Connection(port, hello) as connection:
        while connection.read_only() is not None:
            pass
    return monotonic_s() - began_s


async def test_connection_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRPC_GREETING_TIMEOUT_MS", 500)
    async with served() as wire:
        for hello in (b"", PREFACE[:10], PREFACE):
            assert 0.3 < await asyncio.to_thread(end_s, wire.server.port, hello) < 5
        assert await wire.execute_async("e-1")


async def test_settings_that_are_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRPC_GREETING_TIMEOUT_MS", 500)
    async with served() as wire:
        assert 0.3 < await asyncio.to_thread(end_s, wire.server.port, PREFACE + settings()) < 5
        assert await wire.execute_async("e-1")


def answered(port: int, count: int) -> int:
    """How many of so many connections, open at once, are served."""
    connections = [Connection(port) for _ in range(count)]
    for connection in connections:
        connection.give_up_after(2)
    pings = frame(PING, 0, 0, b"are you?")
    served = 0
    for connection in connections:
        try:
            connection.send(pings)
            served += connection.pongs(b"are you?")
        except (ConnectionError, TimeoutError):
            continue
    for connection in connections:
        connection.close()
    return served


async def test_connections_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones are closed; those that are there go on, and room is used again."""
    monkeypatch.setattr(limits, "GRPC_CONNECTIONS_MAX", 20)
    async with served() as wire:
        await wire.execute_async("e-1")
        assert await asyncio.to_thread(answered, wire.server.port, 40) == 19
        assert await wire.execute_async("e-2")
        assert await asyncio.to_thread(answered, wire.server.port, 15) == 15


def is_open(connection: Connection) -> bool:
    """Whether the server has not closed it."""
    connection.give_up_after(10)
    try:
        connection.send(frame(PING, 0, 0, b"are you?"))
    except ConnectionError:
        return False
    return connection.pongs(b"are you?")


def kinds_until_silence(connection: Connection) -> list[int]:
    """The kinds of frames that come until nothing does for a while."""
    connection.give_up_after(0.3)
    kinds = []
    with contextlib.suppress(TimeoutError):
        while (got := connection.read()) is not None:
            kinds.append(got[0])
    return kinds


def ping_then_call(port: int) -> tuple[list[int], list[int]]:
    """What comes after a ping, and what after the call that follows."""
    with Connection(port) as connection:
        assert kinds_until_silence(connection)
        connection.send(frame(PING, 0, 0, b"are you?"))
        pinged = kinds_until_silence(connection)
        connection.call(1, path("GetExecution"), message(GetExecutionRequest(execution_id="e-1").SerializeToString()))
        return pinged, kinds_until_silence(connection)


async def test_answer_to_a_ping_goes_with_what_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as wire:
        await wire.execute_async("e-1")
        answer = [HEADERS, DATA, HEADERS]
        assert await asyncio.to_thread(ping_then_call, wire.server.port) == ([PING], answer)
        monkeypatch.setattr(limits, "GRPC_PING_DELAY_S_MAX", 30.0)
        assert await asyncio.to_thread(ping_then_call, wire.server.port) == ([], [PING, *answer])


def cut_count(wire: Wire) -> float:
    return wire.registry.get_sample_value("workflow_runner_connections_cut_total") or 0


async def test_idle_connections_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have been idle for longest, so whoever comes is served; none that has a call under way."""
    monkeypatch.setattr(limits, "GRPC_CONNECTIONS_MAX", 20)
    monkeypatch.setattr(limits, "GRPC_CONNECTIONS_LOOK_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "GRPC_CONNECTION_QUIET_MS_MIN", 100)
    async with served() as wire:
        await wire.execute_async("e-1")
        stream = wire.stream("Subscribe", SubscribeRequest(execution_id="e-1"))
        await stream.read()
        slow = Connection(wire.server.port)
        slow.call(1, path("ExecuteAsync"), end=False)
        # With these two it is one less than there may be.
        strangers = []
        for number in range(17):
            strangers.append(Connection(wire.server.port, None if number % 2 else b""))
            await asyncio.sleep(0.02)
        for number in range(1, 10):
            newcomer = Connection(wire.server.port)
            assert await asyncio.to_thread(is_open, newcomer)
            strangers.append(newcomer)
            # A tenth is free again, in one go.
            await until(partial(lambda count: cut_count(wire) == count, number + number % 2))
        are_open = [await asyncio.to_thread(is_open, stranger) for stranger in strangers[10:]]
        assert all(are_open[1::2])
        assert not any([await asyncio.to_thread(is_open, stranger) for stranger in strangers[:10]])
        slow.send(frame(DATA, END_STREAM, 1, message(execution("e-2").SerializeToString())))
        assert (await asyncio.to_thread(slow.answer, 1)).outcome == "status 0"
        wire.engine.executions["e-1"].report("task_started", "running")
        assert b"task_started" in await stream.read()
        for connection in (slow, *strangers):
            connection.close()


async def test_connections_that_have_just_been_used_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, even if there is no room for another."""
    monkeypatch.setattr(limits, "GRPC_CONNECTIONS_MAX", 20)
    monkeypatch.setattr(limits, "GRPC_CONNECTIONS_LOOK_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "GRPC_CONNECTION_QUIET_MS_MIN", 3_600_000)
    async with served() as wire:
        connections = [Connection(wire.server.port) for _ in range(20)]
        for _ in range(3):
            await asyncio.sleep(limits.GRPC_CONNECTIONS_LOOK_INTERVAL_S)
            for connection in connections:
                assert await asyncio.to_thread(is_open, connection)
        for connection in connections:
            connection.close()
    assert cut_count(wire) == 0


async def test_connection_without_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client is asked to go; a call it has at that moment, and the next one, are answered."""
    monkeypatch.setattr(limits, "GRPC_CONNECTION_IDLE_MS_MAX", 300)
    async with served() as wire:
        with Connection(wire.server.port) as connection:
            assert await asyncio.to_thread(until_goaway, connection)
        for pause_s in (0.29, 0.3, 0.31, 0.5):
            await asyncio.sleep(pause_s)
            assert await wire.execute_async(f"e-{pause_s}")


async def test_connection_that_does_not_say_that_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers no ping, and says something now and then: it is closed after the time that a greeting has."""
    monkeypatch.setattr(limits, "GRPC_CONNECTION_IDLE_MS_MAX", 300)
    monkeypatch.setattr(limits, "GRPC_GREETING_TIMEOUT_MS", 1_000)

    def talks(port: int) -> bool:
        with Connection(port) as connection:
            connection.settle()
            connection.give_up_after(10)
            said_s = monotonic_s()
            while connection.read_only() is not None:
                if monotonic_s() > said_s + 8:
                    return True
        return False

    async with served() as wire:
        assert not await asyncio.to_thread(talks, wire.server.port)


def until_goaway(connection: Connection) -> bool:
    """Whether the server asks to go."""
    while (got := connection.read()) is not None:
        if got[0] == GOAWAY:
            return True
    return False


async def busy_one(wire: Wire) -> under_test.Connection:
    """The connection that has a call, as soon as it has."""
    busy: list[under_test.Connection] = []

    def is_there() -> bool:
        busy[:] = [each for each in wire.server._connections._connections if not each.session.is_idle]
        return bool(busy)

    await until(is_there)
    return busy[0]


class Calling(threading.Thread):
    """A client with a connection of its own that calls without a pause.

    It has gRPC's usual settings, with which the library sends again what it knows to have reached no server: a call may
    meet a connection in the instant in which that is told to go.
    """

    def __init__(self, number: int, port: int) -> None:
        super().__init__(daemon=True)
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel: Any = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self.number, self.stopped = number, threading.Event()
        self.failed: list[grpc.RpcError] = []

    def call(self, at: int) -> None:
        request = execution(f"e-{self.number}-{at}").SerializeToString()
        self.channel.unary_unary(path("ExecuteAsync"))(request, timeout=10)

    def run(self) -> None:
        at = 0
        while not self.stopped.is_set():
            at += 1
            try:
                self.call(at)
            except grpc.RpcError as error:
                self.failed.append(error)


async def test_old_connections_move_to_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lie on one of two workers: load spreads, no call fails, and a stream goes on where it is."""
    monkeypatch.setattr(limits, "GRPC_CONNECTION_AGE_MS_MAX", 500)
    async with served() as wire:
        await wire.execute_async("e-1")
        stream = wire.stream("Subscribe", SubscribeRequest(execution_id="e-1"))
        await stream.read()
        callers = [Calling(number, wire.server.port) for number in range(8)]
        for caller in callers:
            await asyncio.to_thread(caller.call, 0)
        async with served(wire.server.port) as other:
            for caller in callers:
                caller.start()
            await until(lambda: other.engine.asked > 100 and wire.engine.asked > 100)
            before = other.engine.asked, wire.engine.asked
            await until(lambda: other.engine.asked > before[0] + 100 and wire.engine.asked > before[1] + 100)
            for caller in callers:
                caller.stopped.set()
            for caller in callers:
                await asyncio.to_thread(caller.join)
                assert not caller.failed
                caller.channel.close()
            wire.engine.executions["e-1"].report("task_started", "running")
            assert b"task_started" in await stream.read()


async def test_old_connection_with_a_stream_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its client has been told, a clock is looked at for it no more often than before."""
    monkeypatch.setattr(limits, "GRPC_CONNECTION_AGE_MS_MAX", 100)
    monkeypatch.setattr(limits, "GRPC_GREETING_TIMEOUT_MS", 200)
    looks = 0

    class Watched(under_test.Connection):
        def _look(self) -> None:
            nonlocal looks
            looks += 1
            super()._look()

    monkeypatch.setattr("fastrunner.service.transport.listener.Connection", Watched)
    async with served() as wire:
        await wire.execute_async("e-1")
        with Connection(wire.server.port) as connection:
            connection.call(1, path("Subscribe"), message(b"\x0a\x03e-1"))
            watched = await busy_one(wire)
            connection.send(frame(SETTINGS, ACK, 0))
            await until(lambda: watched.session.is_retiring)
            # It does not answer the ping, so it is left without.
            await asyncio.sleep(0.3)
            before = looks
            await asyncio.sleep(0.5)
            assert looks - before < 10
            wire.engine.executions["e-1"].report("task_started", "running")
            seen = b""
            while b"task_started" not in seen:
                got = await asyncio.to_thread(connection.read_only)
                assert got is not None
                seen = got[3]


async def test_who_holds_most_of_the_unread_replies_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small they are: a call that waits takes room. Another client that is slow stays, and gets its own."""
    monkeypatch.setattr(limits, "GRPC_REPLIES_UNREAD_SIZE_BYTES_MAX", 150_000)
    monkeypatch.setattr(limits, "GRPC_REPLIES_LOOK_INTERVAL_S", 0.05)
    closed = PREFACE + settings(table_1=0, window_4=0)
    async with served() as wire:
        await wire.execute_async("e-1")
        ask = message(GetExecutionRequest(execution_id="e-1").SerializeToString())
        with Connection(wire.server.port, closed) as slow, Connection(wire.server.port, closed) as worst:
            for connection, count in ((slow, 10), (worst, 100)):
                for stream in range(1, 2 * count, 2):
                    connection.call(stream, path("GetExecution"), ask)

            def is_cut() -> bool:
                try:
                    while worst.read_only() is not None:
                        pass
                except ConnectionError:
                    pass
                return True

            assert await asyncio.to_thread(is_cut)
            assert cut_count(wire) == 1
            slow.send(settings(window_4=65_535))
            outcomes = [(await asyncio.to_thread(slow.answer, stream)).outcome for stream in range(1, 21, 2)]
            assert outcomes == ["status 0"] * 10
        await until(lambda: waiting_size_bytes() == 0)


async def test_last_answer_of_a_connection_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client reads slowly: the connection waits for it."""
    monkeypatch.setattr(under_test, "_CLOSING_S_MAX", 0.05)
    monkeypatch.setattr(limits, "GRPC_CONNECTION_AGE_MS_MAX", 100)
    monkeypatch.setattr(limits, "GRPC_UNSENT_SIZE_BYTES_MAX", 16 << 20)
    wide = PREFACE + settings(table_1=0, window_4=2**30) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30))
    async with served() as wire:
        await wire.execute_async("e-1", "x" * 1_000_000)
        ask = message(GetExecutionRequest(execution_id="e-1").SerializeToString())
        with Connection(wire.server.port, wide, receive_buffer_size_bytes=4096) as connection:
            connection.call(1, path("GetExecution"), end=False)
            watched = await busy_one(wire)
            connection.send(frame(SETTINGS, ACK, 0))
            await until(lambda: watched.session.is_retiring)
            for stream in range(3, 21, 2):
                connection.call(stream, path("GetExecution"), ask)
            connection.send(frame(DATA, END_STREAM, 1, ask) + frame(PING, ACK, 0, b"retiring"))
            await until(lambda: watched.session.is_idle)
            # Longer than one that is cut has.
            await asyncio.sleep(0.2)
            answer = await asyncio.to_thread(connection.answer, 19)
            assert (answer.outcome, len(answer.data) > 1_000_000) == ("status 0", True)


async def test_fault_of_the_server_itself(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The call it concerns ends, and no other."""
    async with served() as wire:
        take_up = wire.server.take_up

        def broken(call: Call) -> None:
            if call.path == "/broken/Call":
                raise ZeroDivisionError
            take_up(call)

        monkeypatch.setattr(wire.server, "take_up", broken)
        with Connection(wire.server.port) as connection:
            connection.call(1, "/broken/Call", message(b""))
            connection.call(3, path("ExecuteAsync"), message(execution("e-1").SerializeToString()))
            outcomes = [(await asyncio.to_thread(connection.answer, stream)).outcome for stream in (1, 3)]
        assert outcomes == ["status 13", "status 0"]
        assert "ZeroDivisionError" in caplog.text


async def test_deadline_that_somebody_cannot_take() -> None:
    """Those of other calls are kept, now and later."""
    loop = asyncio.get_running_loop()
    session = Session(Bounds(16_384, 1_000, 10), lambda: None, lambda *_: None, loop.create_future)
    session.receive(PREFACE + settings())
    deadlines = Deadlines()
    told: list[bool] = []

    def broken(_: bool) -> None:
        raise ZeroDivisionError

    def call(stream: int, closed: Callable[[bool], None], timeout: str) -> None:
        block = request_block("/a.B/C", grpc_timeout=timeout)
        [begun] = session.receive(frame(HEADERS, END_HEADERS, stream, block))
        begun.watch(closed)
        deadlines.begin(begun)

    call(1, broken, "1m")
    call(3, told.append, "1m")
    await until(lambda: told == [True])
    call(5, told.append, "2m")
    await until(lambda: told == [True, True])
    deadlines.close()
