"""Support: `call: http` against servers that answer with any bytes: what is sent is exact, and whatever comes back or
does not is an output or a clear error."""

import asyncio
import errno
import gzip
import logging
import os
import resource
import socket
import struct
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from aiohttp.abc import AbstractResolver
from prometheus_client import CollectorRegistry

from fastrunner import tasks
from fastrunner._core import EffectFailure, EffectResult
from fastrunner.base import limits
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks.call_http.perform import CallHttp
from tests.integration.http_calls import RawServer, arguments_of, call_http, effect, failure_of, raw_server, value_of

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
OK_STAYS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ANSWER_S = 20.0


@pytest.fixture
async def http() -> AsyncIterator[CallHttp]:
    performer = call_http()
    yield performer
    await performer.close()


def answer(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str | bytes, status: str = "302 Found") -> bytes:
    encoded = location.encode() if isinstance(location, str) else location
    return (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n".encode()
        + b"Location: "
        + encoded
        + b"\r\n\r\n"
    )


def targets(raw: RawServer) -> list[str]:
    return [head.split(" ")[1] for head in raw.heads]


def names(head: str) -> set[str]:
    return {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}


# --- what is sent ---


async def test_a_call_without_a_body_has_no_content_type(http: CallHttp) -> None:
    async with raw_server(OK) as raw:
        for method in ("POST", "PUT", "PATCH", "DELETE", "GET"):
            await value_of(http, raw.url, method)
    assert not [head for head in raw.heads if "content-type" in names(head)]
    assert "accept-encoding: gzip, deflate\r\n" in raw.heads[0].lower()


@pytest.mark.parametrize("name", ["Expect", "expect", "Keep-Alive", "Transfer-Encoding", "TE", "Connection"])
async def test_headers_that_are_the_runners_are_refused(http: CallHttp, name: str) -> None:
    """`Expect: 100-continue` would wait for as long as a server that does not know it says nothing."""
    async with raw_server(OK) as raw:
        failure = await failure_of(http, raw.url, "post", headers={name: "100-continue"}, body="x")
        assert (failure.type, failure.status) == ("configuration", 400)
        assert "leave it out" in failure.detail
        assert raw.heads == []


@pytest.mark.parametrize(
    "uri",
    [
        "http://a..b/",
        "http://.com/",
        "http://a./b/../../..",
        "http://a../",
        "http:///x",
        "http://:80/",
        "http://@/",
        "http://a b/",
        "http://a:99999/",
        "http://a:0/",
        "http://a:-1/",
        "http://a:x/",
        "http://a:1:2/",
        "http://[::1/",
        "http://[1:2]/",
        "http://[::1%25lo]/",
        "http://[::1%lo]/",
        "http://[v1.x]/",
        "http://[::1]x/",
        "http://[]/",
        "http://exa%6dple.org/",
        f"http://{'a' * 64}.org/",
        f"http://{'a.' * 127}org/",
        f"http://{'ü' * 70}/",
        "http://\u2024com/",
        "http://xn--\u00ad/",
        "http://a\u0000b/",
        "http://user:pass word@/",
    ],
)
async def test_hosts_that_cannot_be(http: CallHttp, uri: str) -> None:
    """Nothing is looked up, and nobody calls it an internal error; nor when a server sends a call there."""
    direct = await http.perform(effect(), arguments_of(uri))
    assert isinstance(direct, EffectFailure)
    if uri == "http://a./b/../../..":
        # The one name of these that there might be.
        assert (direct.type, direct.title) == ("communication", "Host Not Found")
        return
    assert (direct.type, direct.status, direct.title) == ("configuration", 400, "Invalid HTTP Call")
    async with raw_server(redirect(uri.encode().replace(b"\x00", b"%00"))) as raw:
        failure = await failure_of(http, raw.url, redirect=True)
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "Bad Redirect")


async def test_hosts_that_can_be(http: CallHttp) -> None:
    async with raw_server(OK) as raw:
        assert await value_of(http, f"http://localhost:{raw.port}/", output="raw")
        assert await value_of(http, f"HTTP://LOCALHOST:{raw.port}", output="raw")


async def test_request_heads_are_bounded(http: CallHttp) -> None:
    async with raw_server(OK) as raw:
        large = "x" * limits.HTTP_HEADERS_SIZE_BYTES_MAX
        variants: list[dict[str, Any]] = [{"headers": {"X": large}}, {"query": {"q": large}}]
        for arguments in variants:
            failure = await failure_of(http, raw.url, **arguments)
            assert (failure.type, failure.status) == ("configuration", 400)
            assert "as the body" in failure.detail
        failure = await failure_of(http, raw.url, "A" * 100_000)
        assert failure.type == "configuration"
        failure = await failure_of(http, raw.url, headers={"X" * 100_000: "\r\n"})
        assert failure.type == "configuration"
        assert len(failure.detail) < 300
        assert raw.heads == []
        await value_of(http, raw.url, headers={"X": large[:60_000]}, output="raw")


@pytest.mark.parametrize("charset", ["punycode", "idna", "zip", "unheard-of"])
async def test_codecs_that_are_no_charsets_encode_nothing(http: CallHttp, charset: str) -> None:
    async with raw_server(OK) as raw:
        await value_of(
            http, raw.url, "post", body="ü" * 100_000, headers={"Content-Type": f"text/x; charset={charset}"}
        )
    assert raw.bodies == [("ü" * 100_000).encode()]


# --- redirects ---


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/x?t=%2F%3A%40%7E%41", "/x?t=%2F%3A%40%7E%41"),
        ("{URL}/%7e%2f?a=%41+b&&c", "/%7e%2f?a=%41+b&&c"),
        ("//{HOST}/y", "/y"),
        ("z?w", "/a/z?w"),
        ("../z/./w/..", "/z/"),
        ("?only=%20", "/a/b?only=%20"),
        ("", "/a/b?q=1"),
        ("#part", "/a/b?q=1"),
        ("/a/../b/./c", "/a/../b/./c"),
        ("/x;p=1,2/a:b@c", "/x;p=1,2/a:b@c"),
        ("/a b|ü", "/a%20b%7C%C3%BC"),
        (b"/\xfc", "/%FC"),
        ("HTTP://{HOST}/CASE", "/CASE"),
    ],
)
async def test_locations_are_followed_as_sent(http: CallHttp, location: str | bytes, target: str) -> None:
    async with raw_server(OK) as raw:
        if isinstance(location, str):
            location = location.replace("{URL}", raw.url).replace("{HOST}", raw.url.removeprefix("http://"))
        raw.answers = [redirect(location), OK]
        response = await value_of(http, f"{raw.url}/a/b?q=1", redirect=True, output="response")
    assert targets(raw) == ["/a/b?q=1", target]
    assert response["request"]["uri"] == f"{raw.url}/a/b?q=1"


@pytest.mark.parametrize(
    ("status", "method", "followed"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"),
        (302, "DELETE", "DELETE"),
        (307, "POST", "POST"),
        (308, "PATCH", "PATCH"),
    ],
)
async def test_method_and_body_after_a_redirect(http: CallHttp, status: int, method: str, followed: str) -> None:
    headers = {"Content-Language": "de", "Content-Type": "text/x", "X-Kept": "1"}
    async with raw_server(redirect("/there", f"{status} Go"), answer()) as raw:
        body = None if method == "HEAD" else "hello"
        await value_of(http, raw.url, method, body=body, headers=headers, redirect=True)
    assert [head.split(" ")[0] for head in raw.heads] == [method, followed]
    has_body = followed == method
    assert raw.bodies[1] == (raw.bodies[0] if has_body else b"")
    assert ({"content-type", "content-language"} <= names(raw.heads[1])) == has_body
    assert "x-kept" in names(raw.heads[1])


async def test_what_proves_the_caller_stays_in_its_origin(http: CallHttp) -> None:
    """Also when a further redirect leads back; within the origin it is sent on."""
    secrets = {"Authorization": "Bearer x", "Cookie": "a=b", "Proxy-Authorization": "y", "Host": "internal"}
    async with raw_server(OK) as raw, raw_server(OK) as other:
        raw.answers = [redirect("/same"), redirect(f"{other.url}/away"), OK]
        other.answers = [redirect(f"{raw.url}/back")]
        await value_of(http, raw.url, headers=secrets | {"X-Kept": "1"}, redirect=True, output="raw")
    assert targets(raw) == ["/", "/same", "/back"]
    assert {"authorization", "cookie", "proxy-authorization"} <= names(raw.heads[1])
    for head in (other.heads[0], raw.heads[2]):
        assert not {"authorization", "cookie", "proxy-authorization"} & names(head)
        assert "x-kept" in names(head)
        assert "Host: internal" not in head


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://a/", "javascript:alert(1)", "http:", "http:/x", "mailto:a@b", "https:///x", "://x"],
)
async def test_redirects_that_lead_nowhere(http: CallHttp, location: str) -> None:
    async with raw_server(redirect(location)) as raw:
        failure = await failure_of(http, raw.url, redirect=True)
        assert (failure.type, failure.status) == ("communication", 500)
        assert failure.title == ("Bad Redirect" if location != "://x" else "Too Many Redirects")


async def test_redirects_in_a_circle_end(http: CallHttp) -> None:
    async with raw_server(redirect("/again")) as raw:
        failure = await failure_of(http, raw.url, redirect=True)
    assert (failure.status, failure.title) == (500, "Too Many Redirects")
    assert len(raw.heads) == limits.HTTP_REDIRECTS_MAX + 1


async def test_failures_after_a_redirect_name_the_host_that_failed(http: CallHttp) -> None:
    async with raw_server(redirect("http://no-such-host.invalid/s3cret")) as raw:
        failure = await failure_of(http, raw.url, redirect=True)
    assert failure.title == "Host Not Found"
    assert failure.detail.startswith("GET no-such-host.invalid: ")
    assert "s3cret" not in failure.detail


async def test_several_locations_are_an_error(http: CallHttp) -> None:
    async with raw_server(b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n") as raw:
        assert (await failure_of(http, raw.url, redirect=True)).title == "Bad Redirect"


# --- headers that come back ---


async def test_headers_of_a_response(http: CallHttp) -> None:
    """Ten kilobytes in one, or three hundred of them, are fine; the bounds are told by their name."""
    async with raw_server(OK) as raw:
        raw.answers = [answer(b"", "X-Long: " + "x" * 10_000, *[f"X-{number}: 1" for number in range(300)])]
        response = await value_of(http, raw.url, output="response")
        assert len(response["headers"]["x-long"]) == 10_000
        assert response["headers"]["x-299"] == "1"
        for headers in (
            ["X: " + "x" * (limits.HTTP_HEADERS_SIZE_BYTES_MAX + 1)],
            [f"X-{number}: {'x' * 40_000}" for number in range(2)],
            [f"X-{number}: 1" for number in range(limits.HTTP_HEADERS_COUNT_MAX + 1)],
        ):
            raw.answers = [answer(b"", *headers)]
            failure = await failure_of(http, raw.url)
            assert (failure.type, failure.status, failure.title) == (
                "communication",
                500,
                "Response Headers Too Large",
            )
            assert str(limits.HTTP_HEADERS_SIZE_BYTES_MAX) in failure.detail


# --- bodies that come back ---


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
async def test_a_compressed_body_is_whole_or_an_error(http: CallHttp, coding: str) -> None:
    text = b'{"a": "' + bytes(range(65, 91)) * 3_000 + b'"}'
    body = zlib.compress(text) if coding == "deflate" else gzip.compress(text)
    headers = [f"Content-Encoding: {coding}", "Content-Type: application/json"]
    async with raw_server(OK) as raw:
        raw.answers = [answer(body, *headers)]
        assert (await value_of(http, raw.url))["a"].startswith("ABC")
        for size_bytes in (1, 5, 12, len(body) // 2, len(body) - 8, len(body) - 1):
            raw.answers = [answer(body[:size_bytes], *headers)]
            for output in ("content", "raw", "response"):
                failure = await failure_of(http, raw.url, output=output)
                assert (failure.type, failure.status, failure.title) == ("communication", 500, "Malformed Response")


async def test_bodies_in_several_codings(http: CallHttp) -> None:
    async with raw_server(OK) as raw:
        body = gzip.compress(zlib.compress(b"text"))
        raw.answers = [answer(body, "Content-Encoding: deflate, gzip", "Content-Type: text/x")]
        assert await value_of(http, raw.url) == "text"
        raw.answers = [answer(body, "Content-Encoding: deflate", "Content-Encoding: x-gzip", "Content-Type: text/x")]
        assert await value_of(http, raw.url) == "text"
        for codings in ("gzip, br", "br", "zstd", "gzip, gzip, gzip, gzip"):
            raw.answers = [answer(body, f"Content-Encoding: {codings}")]
            failure = await failure_of(http, raw.url, output="raw")
            assert (failure.status, failure.title) == (500, "Unsupported Content Coding")
        chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        raw.answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: deflate, gzip, chunked\r\n\r\n" + chunk]
        assert await value_of(http, raw.url, output="raw") == "dGV4dA=="


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
async def test_no_body_in_a_coding(http: CallHttp, status: str) -> None:
    async with raw_server(answer(b"", "Content-Encoding: gzip", status=status)) as raw:
        assert await value_of(http, raw.url) is None
        assert await value_of(http, raw.url, "head") is None
        raw.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\nContent-Encoding: br, gzip\r\n\r\n"]
        failure = await failure_of(http, raw.url)
        assert failure.title == "Response Too Large"


async def test_a_body_that_is_announced_too_large_is_not_read(http: CallHttp) -> None:
    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"
    async with raw_server(announced) as raw:
        raw.keeps_open = True
        async with asyncio.timeout(ANSWER_S):
            assert (await failure_of(http, raw.url)).title == "Response Too Large"
            raw.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"]
            assert (await value_of(http, raw.url, "head", output="response"))["content"] is None


@pytest.mark.parametrize(
    ("sent", "title"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "Malformed Response"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "Malformed Response"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "Malformed Response"),
        (b"HTTP/3.0 200 OK\r\n\r\n", "Malformed Response"),
        (b"\x16\x03\x01\x00\x05hello", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "Connection Lost"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "Connection Lost"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "Switching Protocols"),
        (b"", "Connection Lost"),
    ],
)
async def test_responses_that_are_none(http: CallHttp, sent: bytes, title: str) -> None:
    async with raw_server(sent) as raw, asyncio.timeout(ANSWER_S):
        failure = await failure_of(http, raw.url)
    assert (failure.type, failure.title) == ("communication", title)
    assert failure.detail.startswith(f"GET 127.0.0.1:{raw.port}: ")


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nok", "b2s="),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok", "b2s="),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "b2s="),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, "b2s="),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", None),
        (b"HTTP/1.1 200 OK\r\nX-Fold: a\r\n b\r\nContent-Length: 2\r\n\r\nok", "b2s="),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "b2s="),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n", "b2s="),
        (OK + b"and more that nobody asked for", None),
    ],
)
async def test_odd_responses_are_read_or_refused(http: CallHttp, sent: bytes, content: str | None) -> None:
    """None: either is right, as long as it is one of them."""
    async with raw_server(sent) as raw, asyncio.timeout(ANSWER_S):
        outcome = await http.perform(effect(), arguments_of(raw.url, output="raw"))
    if content is not None:
        assert isinstance(outcome, EffectResult)
        assert outcome.value == content
    elif isinstance(outcome, EffectFailure):
        assert (outcome.type, outcome.title) == ("communication", "Malformed Response")
    else:
        assert outcome.value == "b2s="


async def test_a_connection_reset_within_a_body(http: CallHttp) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
        await writer.drain()
        # Closing sends a reset instead of an end.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await failure_of(http, f"http://127.0.0.1:{port}/")
    assert (failure.type, failure.status) == ("communication", 500)
    assert failure.title in ("Malformed Response", "Connection Lost")


@pytest.mark.parametrize(("method", "is_sent_again"), [("get", True), ("put", True), ("post", False), ("patch", False)])
async def test_a_pooled_connection_that_the_server_closes(http: CallHttp, method: str, is_sent_again: bool) -> None:
    """Nobody knows whether the server saw the request: only what may be repeated is sent again, once."""
    async with raw_server(OK_STAYS, b"", OK_STAYS) as raw, asyncio.timeout(ANSWER_S):
        raw.keeps_open = True
        await value_of(http, raw.url, "get", output="raw")
        outcome = await http.perform(effect(), arguments_of(raw.url, method, body="x", output="raw"))
    assert isinstance(outcome, EffectResult) == is_sent_again
    if isinstance(outcome, EffectFailure):
        assert (outcome.type, outcome.status, outcome.title) == ("communication", 500, "Connection Lost")
    assert len(raw.heads) == 2 + is_sent_again


async def test_a_connection_whose_end_is_on_its_way_is_not_used(http: CallHttp) -> None:
    """A POST does not go into a connection that the server has closed, though the loop has not read of it yet."""
    closed, heads = threading.Event(), list[bytes]()

    def serve(listening: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            with connection:
                heads.append(connection.recv(65_536))
                connection.sendall(OK_STAYS)
            closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=serve, args=(listening,), daemon=True)
        serving.start()
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        assert await value_of(http, uri, output="raw") == "b2s="
        # The loop stands still until the server has closed.
        assert closed.wait(ANSWER_S)
        assert await value_of(http, uri, "post", output="raw") == "b2s="
        serving.join(ANSWER_S)
    assert [head[:4] for head in heads] == [b"GET ", b"POST"]


# --- what the loop and the memory bear ---


async def _turns_during(http: CallHttp, url: str, output: str) -> tuple[int, int]:
    """Turns the loop makes while a call is performed, and the size of its value as JSON."""
    task = asyncio.create_task(value_of(http, url, output=output))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return turns, len(orjson.dumps(await task))


@pytest.mark.parametrize(
    ("content_type", "part", "output", "piece_size_bytes"),
    [
        ("application/json", b'{"id": 1, "name": "some name", "tags": ["a", "b"]},', "content", 24_000),
        ("text/plain; charset=euc-kr", b"\xff\xb0\xa1", "content", 32_768),
        ("text/plain; charset=iso-8859-6", b"\xff", "content", 32_768),
        ("text/plain", b"a\xff", "content", 32_768),
        ("application/octet-stream", b"\x00\x01\x02", "raw", 196_608),
    ],
)
async def test_large_bodies_leave_the_loop_to_others(
    http: CallHttp,
    monkeypatch: pytest.MonkeyPatch,
    content_type: str,
    part: bytes,
    output: str,
    piece_size_bytes: int,
) -> None:
    """A body is decompressed and converted in pieces: with slices of no time, there is a turn between any two."""
    body = part * (6_000_000 // len(part))
    if content_type == "application/json":
        body = b"[" + body + b"0]"
    packed = gzip.compress(body, 1)
    async with raw_server(answer(packed, f"Content-Type: {content_type}", "Content-Encoding: gzip")) as raw:
        _, size_at_ease = await _turns_during(http, raw.url, output)
        monkeypatch.setattr(limits, "HTTP_SLICE_MS", 0)
        turns, size = await _turns_during(http, raw.url, output)
    assert size == size_at_ease > 1_000_000
    assert turns > len(body) // 65_536 + len(body) // piece_size_bytes


async def test_room_for_bodies_is_bounded_and_small_ones_do_not_wait(
    http: CallHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large bodies that come at a time are read one after the other once there is no room, and all of them arrive."""
    monkeypatch.setattr(limits, "HTTP_RESPONSES_SIZE_BYTES_MAX", 3_000_000)
    room = http.room
    most, sampled = 0, True

    async def sample() -> None:
        nonlocal most
        while sampled:
            most = max(most, room.used_size_bytes)
            await asyncio.sleep(0)

    sampling = asyncio.create_task(sample())
    async with raw_server(answer(bytes(2_000_000))) as raw, raw_server(OK) as small, asyncio.timeout(ANSWER_S):
        large = [asyncio.create_task(value_of(http, raw.url, output="raw")) for _ in range(12)]
        while room.used_size_bytes < 2_900_000:  # noqa: ASYNC110 - within the deadline above
            await asyncio.sleep(0)
        assert await value_of(http, small.url, output="raw") == "b2s="
        sizes = {len(value) for value in await asyncio.gather(*large)}
    sampled = False
    await sampling
    assert sizes == {(2_000_000 + 2) // 3 * 4}
    # The bound, and one body beyond it.
    assert 2_000_000 < most <= 3_000_000 + 2_000_000
    assert room.used_size_bytes == 0


async def test_small_bodies_do_not_wait_for_large_ones_to_be_converted(
    http: CallHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_SLICE_MS", 0)
    item = b'{"id": 1, "name": "some name", "tags": ["a", "b"]},'
    body = b"[" + item * (7_000_000 // len(item)) + b"0]"
    async with (
        raw_server(answer(body, "Content-Type: application/json")) as raw,
        raw_server(answer(b'{"a": [1]}', "Content-Type: application/json")) as small,
        asyncio.timeout(ANSWER_S),
    ):
        large = [asyncio.create_task(value_of(http, raw.url)) for _ in range(2)]
        # One is converted while the other waits for its turn with all of its body.
        while http.room.used_size_bytes < 2 * len(body) - 2 * limits.HTTP_RESPONSE_SMALL_SIZE_BYTES:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await value_of(http, small.url) == {"a": [1]}
        assert not all(task.done() for task in large)
        assert len({len(value) for value in await asyncio.gather(*large)}) == 1


async def test_calls_that_wait_for_room_can_be_interrupted(http: CallHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what they held is free again."""
    monkeypatch.setattr(limits, "HTTP_RESPONSES_SIZE_BYTES_MAX", 500_000)
    gate = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(bytes(1_000_000))[:-1])
        await gate.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(ANSWER_S):
        uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        calls = [asyncio.create_task(value_of(http, uri, output="raw")) for _ in range(4)]
        while http.room.used_size_bytes < 900_000:  # noqa: ASYNC110 - within the deadline above
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert http.room.used_size_bytes == 0
        async with raw_server(answer(bytes(1_000_000))) as raw:
            assert len(await value_of(http, raw.url, output="raw")) > 1_000_000
        gate.set()


# --- a machine that is short of things ---


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No further file or socket can be opened by this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = [os.dup(0) for _ in range(highest + 1 - len(os.listdir("/proc/self/fd")))]
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
async def test_no_descriptor_is_an_error_to_be_retried(
    http: CallHttp, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    async with raw_server(OK) as raw:
        uri = f"http://{host}:{raw.port}/s3cret"
        with caplog.at_level(logging.WARNING):
            with no_descriptors():
                for _ in range(3):
                    failure = await failure_of(http, uri)
                    assert (failure.type, failure.status) == ("communication", 503)
                    assert failure.title == "Runner Out Of Resources"
                    assert failure.detail == f"GET {host}:{raw.port}: no connection could be made (Too many open files)"
            assert len([record for record in caplog.records if "want of resources" in record.message]) == 1
            assert await value_of(http, raw.url, output="raw") == "b2s="
            with no_descriptors():
                await failure_of(http, uri)
            assert len([record for record in caplog.records if "want of resources" in record.message]) == 2


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL])
async def test_other_things_a_machine_can_be_short_of(number: int) -> None:
    class Short(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
            raise OSError(number, os.strerror(number))

        async def close(self) -> None:
            pass

    http = call_http(http_timeout_s=5.0, resolver=Short())
    failure = await failure_of(http, "http://example.org/")
    assert (failure.type, failure.status, failure.title) == ("communication", 503, "Runner Out Of Resources")
    assert os.strerror(number) in failure.detail
    await http.close()


async def test_the_client_is_loaded_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without descriptors at its first call cannot even load the client."""
    performer = tasks.build_performers(load_config(), Metrics(CollectorRegistry()))["call_http"]
    loaded = {name: module for name, module in sys.modules.items() if name.startswith("fastrunner.tasks.call_http")}
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    async with raw_server(OK) as raw:
        with no_descriptors():
            outcome = await performer.perform(effect(), arguments_of(raw.url, output="raw"))
        assert isinstance(outcome, EffectFailure)
        assert (outcome.type, outcome.status) == ("communication", 503)
        assert "could not be loaded" in outcome.detail
        outcome = await performer.perform(effect(), arguments_of(raw.url, output="raw"))
        assert isinstance(outcome, EffectResult)
        await performer.close()
