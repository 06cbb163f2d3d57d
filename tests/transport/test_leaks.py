"""What is left of connections and calls that are over: nothing, and at once, without a search for garbage."""

import asyncio
import gc
from collections import Counter

from fastrunner._http2 import Call, Session
from fastrunner.service.transport.connection import Connection as Served
from tests.integration.wire import MemoryWire, path, served, until
from tests.transport.frames import RST_STREAM, Connection, frame, message

KINDS = (Call, Session, Served, asyncio.Task, asyncio.TimerHandle, asyncio.Future)
FIRST = message(b"\x0a\x05first")
CONNECTIONS = 400
CALLS = 20


def alive() -> Counter[str]:
    """How many there are of what a call or a connection is made of."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS))


def visit(port: int, number: int) -> None:
    """Calls that are answered, refused, reset, late, and left alone; now and then a broken frame at the end."""
    with Connection(port) as connection:
        for stream in range(1, 2 * CALLS, 2):
            connection.call(stream, path("GetExecution"), FIRST)
        connection.call(101, path("Subscribe"), FIRST)
        connection.send(frame(RST_STREAM, 0, 101, bytes(4)))
        connection.call(103, path("Subscribe"), FIRST, headers={"grpc_timeout": "1m"})
        connection.call(105, path("Subscribe"), FIRST)
        connection.call(107, path("ExecuteAsync"), FIRST[:7], end=False)
        connection.call(109, "/x/y", FIRST)
        assert connection.answer(109).outcome == "status 12"
        if number % 3 == 0:
            connection.send(b"\xff" * 30)


def visits(port: int, count: int) -> None:
    for number in range(count):
        visit(port, number)


def is_quiet(wire: MemoryWire) -> bool:
    """Whether nothing goes on but what the channel of the test does."""
    server = wire.server
    return server._connections.count <= 1 and not server._streams and not server._pending


async def test_nothing_is_left() -> None:
    async with served() as wire:
        await wire.execute_async("first")
        await asyncio.to_thread(visits, wire.server.port, 50)
        await until(lambda: is_quiet(wire))
        gc.collect()
        before = alive()
        gc.disable()
        try:
            await asyncio.to_thread(visits, wire.server.port, CONNECTIONS)
            await until(lambda: is_quiet(wire))
            # Those of the last connections end with the turn.
            await until(lambda: sum((alive() - before).values()) < 50)
        finally:
            gc.enable()
