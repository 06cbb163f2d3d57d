"""Support: the connections of the HTTP port: half heads, idle ones, slow readers, more than there may be."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.web.app import build_app
from fastrunner.web.connections import CONNECTIONS, Connections

ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
SEND = b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
LARGE_SIZE_BYTES = 64 << 20


async def _large(_request: web.Request) -> web.Response:
    return web.Response(body=bytes(LARGE_SIZE_BYTES))


async def _size(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(await request.read())}\n")


async def _talk(request: web.Request) -> web.WebSocketResponse:
    socket_ = web.WebSocketResponse()
    await socket_.prepare(request)
    async for message in socket_:
        await socket_.send_str(message.data)
    return socket_


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[int, Connections]]:
    """The application on a free port, and its connections."""
    app = build_app(Config(data_dir=tmp_path), [])
    app.router.add_get("/large", _large)
    app.router.add_post("/size", _size)
    app.router.add_get("/talk", _talk)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    connections = app[CONNECTIONS]
    factory = connections.serve(runner.server)
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()
        connections.close()
        await runner.cleanup()


async def until_cut(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def ask(port: int) -> bool:
    """Whether a new connection is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ASK)
    head = await reader.readuntil(b"ok\n")
    writer.close()
    return head.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", ASK[:30], ASK[:-2]])
async def test_head_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """However slowly its bytes come."""
    monkeypatch.setattr(limits, "HTTP_HEAD_S_MAX", 0.3)
    monkeypatch.setattr(limits, "HTTP_LOOK_INTERVAL_S", 0.05)
    async with served(tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        ended = asyncio.ensure_future(until_cut(reader))
        while not ended.done():
            if sent:
                writer.write(b"x")
            await asyncio.sleep(0.02)
        assert await ended == b""
        assert await ask(port)
        writer.close()


async def test_head_that_does_not_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request of a connection has no more time than the first."""
    monkeypatch.setattr(limits, "HTTP_LOOK_INTERVAL_S", 0.05)
    async with served(tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK)
        await reader.readuntil(b"ok\n")
        monkeypatch.setattr(limits, "HTTP_HEAD_S_MAX", 0.1)
        writer.write(ASK[:20])
        assert await until_cut(reader) == b""
        writer.close()


async def test_body_that_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may come slowly, but something of it has to come; one that is cut is no failure of the server."""
    monkeypatch.setattr(limits, "HTTP_BODY_S_MAX", 0.5)
    monkeypatch.setattr(limits, "HTTP_LOOK_INTERVAL_S", 0.05)
    async with served(tmp_path) as (port, connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SEND)
        for _ in range(8):
            writer.write(b"x")
            await asyncio.sleep(0.1)
        writer.write(b"xx")
        assert (await reader.readuntil(b"10\n")).startswith(b"HTTP/1.1 200")
        writer.write(SEND + b"x")
        assert await until_cut(reader) == b""
        writer.close()
        assert not connections._busy
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_half_bodies_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; one whose body is whole is served."""
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_MAX", 3)
    async with served(tmp_path) as (port, connections):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        for _, writer in held:
            writer.write(SEND + b"x" * 9)
        assert await ask(port)
        held[-1][1].write(b"x")
        assert (await held[-1][0].readuntil(b"10\n")).startswith(b"HTTP/1.1 200")
        assert not connections._busy
        for _, writer in held:
            writer.close()


async def test_socket_on_which_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WebSocket is no request whose body has yet to come."""
    monkeypatch.setattr(limits, "HTTP_BODY_S_MAX", 0.1)
    monkeypatch.setattr(limits, "HTTP_HEAD_S_MAX", 0.1)
    monkeypatch.setattr(limits, "HTTP_LOOK_INTERVAL_S", 0.05)
    async with (
        served(tmp_path) as (port, connections),
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/talk") as talk,
    ):
        for _ in range(3):
            await asyncio.sleep(0.2)
            await talk.send_str("x")
            assert await talk.receive_str(timeout=5) == "x"
        assert len(connections._busy) == 1


async def test_connection_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves request after request, and is cut when none comes."""
    monkeypatch.setattr(limits, "HTTP_IDLE_S_MAX", 0.5)
    monkeypatch.setattr(limits, "HTTP_LOOK_INTERVAL_S", 0.05)
    async with served(tmp_path) as (port, connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(ASK)
            assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
        assert await until_cut(reader) == b""
        writer.close()
        assert not connections._idle
        assert not connections._busy


async def test_answer_that_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_IDLE_S_MAX", 0.3)
    monkeypatch.setattr(limits, "HTTP_LOOK_INTERVAL_S", 0.05)
    async with served(tmp_path) as (port, connections):
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(10):
                while not connections._idle:  # noqa: ASYNC110 - the answer begins unheard
                    await asyncio.sleep(0.01)
                while connections._idle:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert await ask(port)


async def test_more_connections_than_there_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has been idle for longest gives way, so whoever asks is answered."""
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_MAX", 3)
    async with served(tmp_path) as (port, connections):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in held:
            writer.write(ASK[:20])
        # The oldest asks, so the next one is the oldest that is idle.
        held[0][1].write(ASK[20:])
        await held[0][0].readuntil(b"ok\n")
        for gone in (1, 2, 0):
            another = await asyncio.open_connection("127.0.0.1", port)
            held.append(another)
            assert await until_cut(held[gone][0]) == b""
        assert len(connections._idle) == 3
        assert await ask(port)
        for _, writer in held:
            writer.close()


async def test_stop_waits_for_who_has_been_accepted(tmp_path: Path) -> None:
    """Not for a connection that is only kept, and not for long for one that says nothing."""
    async with served(tmp_path) as (port, connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK)
        await reader.readuntil(b"ok\n")
        async with asyncio.timeout(10):
            await connections.settle(3600)
            writer.write(ASK[:20])
            settled = asyncio.ensure_future(connections.settle(3600))
            await asyncio.wait([settled], timeout=3 * limits.HTTP_SETTLE_INTERVAL_S)
            assert not settled.done()
            writer.write(ASK[20:])
            assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
            await settled
            writer.write(ASK[:20])
            await connections.settle(limits.HTTP_SETTLE_S_MAX)
        writer.close()
