"""How many connections a worker holds, and how long one may do nothing that HTTP/2 asks of it."""

import asyncio

import pytest

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from tests.integration.test_service_limits import lower
from tests.integration.wire import served
from tests.transport.frames import PING, PREFACE, Connection, frame, settings


def end_s(port: int, hello: bytes) -> float:
    """When the server closes a connection whose client says no more than this, in seconds."""
    began_s = monotonic_s()
    with Connection(port, hello) as connection:
        while connection.read_only() is not None:
            pass
    return monotonic_s() - began_s


async def test_connection_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, server_handshake_timeout_ms=(limits.GRPC_GREETING_TIMEOUT_MS, 500))
    async with served() as wire:
        for hello in (b"", PREFACE[:10], PREFACE):
            assert 0.3 < await asyncio.to_thread(end_s, wire.server.port, hello) < 5
        assert await wire.execute_async("e-1")


async def test_settings_that_are_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, http2_settings_timeout=(limits.GRPC_GREETING_TIMEOUT_MS, 500))
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
    lower(monkeypatch, max_allowed_incoming_connections=(limits.GRPC_CONNECTIONS_MAX, 20))
    async with served() as wire:
        await wire.execute_async("e-1")
        assert await asyncio.to_thread(answered, wire.server.port, 40) == 19
        assert await wire.execute_async("e-2")
        assert await asyncio.to_thread(answered, wire.server.port, 15) == 15
