"""Support: `call: http` against real servers on the loopback, one test per promise of docs/http.md."""

import asyncio
import base64
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fastrunner import __version__
from fastrunner._core import EffectResult
from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks.call_http.perform import CallHttp
from tests.integration.http_calls import KEY, Remote, arguments_of, call_http, effect, failure_of, serve, value_of

CERTIFICATES = Path(__file__).parent.parent / "certificates"
ANSWER_S = 5.0


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    remote = Remote()
    runner = await serve(remote)
    yield remote
    await runner.cleanup()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def http(registry: CollectorRegistry) -> AsyncIterator[CallHttp]:
    performer = call_http(Metrics(registry))
    yield performer
    await performer.close()


# --- what is sent ---


async def test_sends_method_path_and_the_runners_headers(http: CallHttp, remote: Remote) -> None:
    assert await value_of(http, f"{remote.url}/orders/1") == {"ok": True}
    assert (remote.last.method, remote.last.raw_path) == ("GET", "/orders/1")
    assert remote.last.headers["User-Agent"] == f"fastrunner/{__version__}"
    assert remote.last.headers["Idempotency-Key"] == KEY
    assert remote.bodies == [b""]


async def test_authors_headers_win(http: CallHttp, remote: Remote) -> None:
    headers = {"idempotency-key": "mine", "USER-AGENT": "me", "X-Count": 3, "X-None": None, "X-Many": ["a", True]}
    await value_of(http, remote.url, headers=headers)
    sent = remote.last.headers
    assert (sent.getall("Idempotency-Key"), sent.getall("User-Agent")) == (["mine"], ["me"])
    assert (sent["X-Count"], sent.getall("X-Many")) == ("3", ["a", "true"])
    assert "X-None" not in sent


@pytest.mark.parametrize("method", ["POST", "put", "Patch", "DELETE", "options"])
async def test_every_method(http: CallHttp, remote: Remote, method: str) -> None:
    await value_of(http, remote.url, method, body={"a": 1})
    assert remote.last.method == method.upper()
    assert remote.bodies == [b'{"a":1}']


async def test_head_has_no_content(http: CallHttp, remote: Remote) -> None:
    remote.answers(text="twelve bytes")
    response = await value_of(http, remote.url, "head", output="response")
    assert (response["content"], response["headers"]["content-length"]) == (None, "12")


@pytest.mark.parametrize(
    ("given", "query", "sent"),
    [
        ("/a", {"q": "x y&z=ü", "page": 2}, "/a?q=x%20y%26z%3D%C3%BC&page=2"),
        ("/a?x=1", {"y": ["b", 2, None], "gone": None}, "/a?x=1&y=b&y=2"),
        ("/a", {"on": True, "off": False, "half": 0.5, "two": 2.0}, "/a?on=true&off=false&half=0.5&two=2"),
        ("?x=%2F", {"y": "/"}, "/?x=%2F&y=%2F"),
        ("/a%2Fb%20c/%7Euser", None, "/a%2Fb%20c/%7Euser"),
        ("/Zürich 50%/[x]|y", {}, "/Z%C3%BCrich%2050%25/[x]%7Cy"),
        ("/a/../b//c", None, "/a/../b//c"),
        ("/a?#part", {"x": "1"}, "/a?x=1"),
        ("/a?q=a+b%2Bc", None, "/a?q=a+b%2Bc"),
        ("", None, "/"),
    ],
)
async def test_uri_is_sent_as_expanded_and_the_query_appended(
    http: CallHttp, remote: Remote, given: str, query: dict[str, Any] | None, sent: str
) -> None:
    response = await value_of(http, remote.url + given, query=query, output="response")
    assert remote.last.raw_path == sent
    assert response["request"]["uri"] == remote.url + sent


@pytest.mark.parametrize(
    ("body", "headers", "content_type", "sent"),
    [
        ({"a": [1, None]}, None, "application/json", b'{"a":[1,null]}'),
        ([1, "ü"], {}, "application/json", '[1,"ü"]'.encode()),
        ({"a": 1}, {"content-type": "application/vnd.x+json"}, "application/vnd.x+json", b'{"a":1}'),
        ({"big": 2**70}, None, "application/json", b'{"big":1180591620717411303424}'),
        ("hi ü", None, "text/plain; charset=utf-8", "hi ü".encode()),
        ("hi ü", {"Content-Type": "text/plain; charset=iso-8859-1"}, "text/plain; charset=iso-8859-1", b"hi \xfc"),
        ("<a/>", {"Content-Type": "application/xml"}, "application/xml", b"<a/>"),
        ('say "x"', {"Content-Type": "application/json"}, "application/json", rb'"say \"x\""'),
        (False, None, "application/json", b"false"),
        (0, None, "application/json", b"0"),
        (
            {"grant": "a b", "n": [1, 2], "none": None},
            {"Content-Type": "application/x-www-form-urlencoded"},
            "application/x-www-form-urlencoded",
            b"grant=a+b&n=1&n=2",
        ),
    ],
)
async def test_body_by_its_json_type_and_content_type(
    http: CallHttp, remote: Remote, body: Any, headers: dict[str, Any] | None, content_type: str, sent: bytes
) -> None:
    await value_of(http, remote.url, "post", body=body, headers=headers)
    assert remote.last.headers.getall("Content-Type") == [content_type]
    assert remote.bodies == [sent]


async def test_null_body_sends_none(http: CallHttp, remote: Remote) -> None:
    await value_of(http, remote.url, "post", body=None)
    assert remote.bodies == [b""]
    assert remote.last.headers.get("Content-Length", "0") == "0"


async def test_large_body(http: CallHttp, remote: Remote) -> None:
    await value_of(http, remote.url, "post", body="x" * 3_000_000)
    assert len(remote.bodies[0]) == 3_000_000


async def test_user_information_becomes_basic_authorization(http: CallHttp, remote: Remote) -> None:
    uri = f"http://jo:p%40ss@127.0.0.1:{remote.port}/x"
    response = await value_of(http, uri, output="response")
    assert remote.last.headers["Authorization"] == "Basic " + base64.b64encode(b"jo:p@ss").decode()
    assert response["request"]["uri"] == f"{remote.url}/x"


async def test_idempotency_key_of_any_id_fits_a_header(http: CallHttp, remote: Remote) -> None:
    odd = effect("ü 1%\n/do/0/a/0/1")
    assert isinstance(await http.perform(odd, arguments_of(remote.url)), EffectResult)
    assert remote.last.headers["Idempotency-Key"] == "%C3%BC%201%25%0A/do/0/a/0/1"


@pytest.mark.parametrize(
    ("arguments", "type_"),
    [
        ({"uri": "ftp://127.0.0.1/x"}, "configuration"),
        ({"uri": "/relative"}, "configuration"),
        ({"uri": "http://"}, "configuration"),
        ({"uri": "http://host:port/"}, "configuration"),
        ({"uri": "http://127.0.0.1:1/\ud800"}, "configuration"),
        ({"uri": 5}, "expression"),
        ({"method": "CONNECT"}, "configuration"),
        ({"method": "GE T"}, "configuration"),
        ({"method": None}, "expression"),
        ({"headers": {"a b": "x"}}, "configuration"),
        ({"headers": {"X": "a\r\nY: b"}}, "configuration"),
        ({"headers": {"X": "\ud800"}}, "configuration"),
        ({"headers": {"Content-Length": "5"}}, "configuration"),
        ({"headers": {"X": {"a": 1}}}, "expression"),
        ({"headers": "X: y"}, "expression"),
        ({"query": ["a"]}, "expression"),
        ({"query": {"a": {"b": 1}}}, "expression"),
        ({"query": {"a": float("nan")}}, "expression"),
    ],
)
async def test_what_cannot_be_sent_is_refused_without_its_values(
    http: CallHttp, remote: Remote, arguments: dict[str, Any], type_: str
) -> None:
    call = {"method": "get", "uri": f"{remote.url}/secret", **arguments}
    failure = await failure_of(http, **call)
    assert (failure.type, failure.status) == (type_, 400)
    assert "secret" not in failure.detail
    assert remote.requests == []


# --- what comes back ---


@pytest.mark.parametrize(
    ("content_type", "body", "content"),
    [
        ("application/json", b'{"a": 12345678901234567, "b": 0.1}', {"a": 12345678901234567, "b": 0.1}),
        ("application/problem+json; charset=utf-8", b'"x"', "x"),
        ("APPLICATION/JSON", b"\xef\xbb\xbf[]", []),
        ("application/json; charset=utf-16", '{"ü":1}'.encode("utf-16"), {"ü": 1}),
        ("application/json", b" \n", None),
        ("text/plain", "ü".encode(), "ü"),
        ('text/html; charset="iso-8859-1"', b"\xfc", "ü"),
        ("text/plain; charset=unheard-of", "ü".encode(), "ü"),
        ("text/plain; charset=unicode_escape", b"\\ud800", "\\ud800"),
        ("text/plain", b"a\xffb", "a\ufffdb"),
        ("text/csv", b"", None),
        ("application/octet-stream", b"\x00\xff", "AP8="),
        ("image/png", b"PNG", "UE5H"),
    ],
)
async def test_content_by_media_type(
    http: CallHttp, remote: Remote, content_type: str, body: bytes, content: Any
) -> None:
    remote.answers(body=body, headers={"Content-Type": content_type})
    assert await value_of(http, remote.url, output="content") == content
    assert await value_of(http, remote.url) == content
    assert await value_of(http, remote.url, output="raw") == base64.b64encode(body).decode()


async def test_no_content(http: CallHttp, remote: Remote) -> None:
    remote.answers(status=204)
    assert await value_of(http, remote.url) is None
    assert await value_of(http, remote.url, output="raw") == ""
    assert (await value_of(http, remote.url, output="response"))["statusCode"] == 204


async def test_compressed_body(http: CallHttp, remote: Remote) -> None:
    body = gzip.compress(b'{"a":1}')
    remote.answers(body=body, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
    assert await value_of(http, remote.url) == {"a": 1}


async def test_response_object_hides_credentials(http: CallHttp, remote: Remote) -> None:
    async def answer(_: web.Request) -> web.Response:
        response = web.json_response([1], status=201, headers={"X-Mine": "a"})
        response.headers.add("X-Mine", "b")
        return response

    remote.answer = answer
    secrets = {"Authorization": "Bearer s3cret", "Cookie": "s3cret", "Proxy-Authorization": "s3cret"}
    value = await value_of(http, f"{remote.url}/x?y=1", "POST", headers=secrets | {"X-A": "1"}, output="response")
    assert value["statusCode"] == 201
    assert value["content"] == [1]
    assert value["headers"]["x-mine"] == "a, b"
    request = value["request"]
    assert (request["method"], request["uri"]) == ("POST", f"{remote.url}/x?y=1")
    assert {request["headers"][name.lower()] for name in secrets} == {"***"}
    assert (request["headers"]["x-a"], request["headers"]["host"]) == ("1", f"127.0.0.1:{remote.port}")
    assert remote.last.headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 409, 429, 500, 503, 599])
async def test_status_outside_the_range_is_a_communication_error(http: CallHttp, remote: Remote, status: int) -> None:
    remote.answers(status=status, text="s3cret" if status != 304 else None, reason="Because Of It")
    failure = await failure_of(http, f"{remote.url}/path/s3cret?token=s3cret", headers={"X": "s3cret"})
    assert (failure.type, failure.status, failure.title) == ("communication", status, "Because Of It")
    assert failure.detail == f"GET 127.0.0.1:{remote.port}: the response has status {status}"


async def test_a_failure_says_how_long_the_service_asks_to_be_left_alone(http: CallHttp, remote: Remote) -> None:
    """Whatever its status; a success asks for nothing."""
    for status in (429, 503, 500, 413, 302, 401):
        remote.answers(status=status, headers={"Retry-After": "7"})
        failure = await failure_of(http, remote.url)
        assert (failure.status, failure.retry_after_ms) == (status, 7_000)
    date = {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:35 GMT"}
    remote.answers(status=503, headers=date)
    assert (await failure_of(http, remote.url)).retry_after_ms == 2_000
    remote.answers(status=503)
    assert (await failure_of(http, remote.url)).retry_after_ms == 0


async def test_malformed_json_is_an_error_unless_raw(http: CallHttp, remote: Remote) -> None:
    remote.answers(body=b'{"s3cret": ', headers={"Content-Type": "application/json"})
    for output in ("content", "response"):
        failure = await failure_of(http, remote.url, output=output)
        assert (failure.type, failure.status, failure.title) == ("communication", 500, "Malformed Response")
        assert "s3cret" not in failure.detail
    assert await value_of(http, remote.url, output="raw") == base64.b64encode(b'{"s3cret": ').decode()


@pytest.mark.parametrize("body", [b"[" * 200 + b"]" * 200, b'{"a":' * 129 + b"1" + b"}" * 129])
async def test_too_deep_json_is_an_error(http: CallHttp, remote: Remote, body: bytes) -> None:
    remote.answers(body=body, headers={"Content-Type": "application/json"})
    assert (await failure_of(http, remote.url)).title == "Malformed Response"


async def test_brackets_in_strings_and_breadth_are_no_depth(http: CallHttp, remote: Remote) -> None:
    value = ["[" * 300, '\\"[' * 300, *([{}] * 300)]
    remote.answers(text=json.dumps(value), headers={"Content-Type": "application/json"})
    assert await value_of(http, remote.url) == value


# --- redirects ---


def _redirects(remote: Remote, count: int, status: int = 302) -> None:
    async def answer(request: web.Request) -> web.Response:
        step = int(request.query.get("step", "0"))
        if step < count:
            return web.Response(status=status, headers={"Location": f"/x?step={step + 1}"})
        return web.json_response({"step": step, "method": request.method})

    remote.answer = answer


async def test_redirect_is_not_followed_by_default(http: CallHttp, remote: Remote) -> None:
    _redirects(remote, 1)
    variants: list[dict[str, Any]] = [{}, {"redirect": False}]
    for arguments in variants:
        failure = await failure_of(http, remote.url, **arguments)
        assert (failure.type, failure.status, failure.title) == ("communication", 302, "Found")
    assert len(remote.requests) == 2


async def test_redirects_are_followed_up_to_the_bound(http: CallHttp, remote: Remote) -> None:
    _redirects(remote, limits.HTTP_REDIRECTS_MAX)
    response = await value_of(http, f"{remote.url}/first", redirect=True, output="response")
    assert response["content"] == {"step": limits.HTTP_REDIRECTS_MAX, "method": "GET"}
    assert response["request"]["uri"] == f"{remote.url}/first"
    _redirects(remote, limits.HTTP_REDIRECTS_MAX + 1)
    failure = await failure_of(http, remote.url, redirect=True)
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "Too Many Redirects")


@pytest.mark.parametrize(("status", "method"), [(303, "GET"), (307, "POST"), (308, "POST")])
@pytest.mark.parametrize("size", [3, 2_000_000])
async def test_redirect_keeps_or_drops_the_body(
    http: CallHttp, remote: Remote, status: int, method: str, size: int
) -> None:
    _redirects(remote, 1, status)
    assert (await value_of(http, remote.url, "post", body="x" * size, redirect=True))["method"] == method
    assert [len(body) for body in remote.bodies] == [size, size if method == "POST" else 0]


@pytest.mark.parametrize("status", [300, 302, 304])
async def test_with_redirect_a_3xx_that_leads_nowhere_is_a_result(http: CallHttp, remote: Remote, status: int) -> None:
    remote.answers(status=status)
    assert (await value_of(http, remote.url, redirect=True, output="response"))["statusCode"] == status


async def test_redirect_to_another_host_drops_credentials(http: CallHttp, remote: Remote) -> None:
    other = Remote()
    runner = await serve(other)
    remote.answers(status=302, headers={"Location": f"{other.url}/there"})
    secrets = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Kept": "1"}
    await value_of(http, remote.url, headers=secrets, redirect=True)
    await runner.cleanup()
    assert other.last.headers["X-Kept"] == "1"
    assert not {"Authorization", "Cookie"} & set(other.last.headers)


async def test_redirect_to_another_scheme_is_an_error(http: CallHttp, remote: Remote) -> None:
    remote.answers(status=302, headers={"Location": "file:///etc/passwd?s3cret"})
    failure = await failure_of(http, remote.url, redirect=True)
    assert (failure.status, failure.title) == (500, "Bad Redirect")
    assert "s3cret" not in failure.detail


async def test_cookies_do_not_travel_between_calls(http: CallHttp, remote: Remote) -> None:
    remote.answers(headers={"Set-Cookie": "session=1; Path=/"})
    await value_of(http, remote.url)
    await value_of(http, remote.url)
    assert "Cookie" not in remote.last.headers


# --- failures without a response ---


async def test_refused_connection(http: CallHttp, unused_tcp_port: int) -> None:
    failure = await failure_of(http, f"http://127.0.0.1:{unused_tcp_port}/s3cret")
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "Connection Failed")
    assert failure.detail.startswith(f"GET 127.0.0.1:{unused_tcp_port}: ")
    assert "s3cret" not in failure.detail


async def test_unknown_host(http: CallHttp) -> None:
    failure = await failure_of(http, "http://no-such-host.invalid/")
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "Host Not Found")


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        (b"NONSENSE\r\n\r\n", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "Malformed Response"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "Malformed Response"),
        (b"", "Connection Lost"),
    ],
)
async def test_broken_responses(http: CallHttp, answer: bytes, title: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await failure_of(http, f"http://127.0.0.1:{port}/")
    assert (failure.type, failure.status, failure.title) == ("communication", 500, title)


async def test_header_bytes_that_are_no_utf8_become_text(http: CallHttp) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Odd: a\xffb\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        response = await value_of(http, f"http://127.0.0.1:{port}/", output="response")
    assert response["headers"]["x-odd"] == "a\ufffdb"


@pytest.mark.parametrize("compressed", [False, True])
async def test_too_large_response(http: CallHttp, remote: Remote, compressed: bool) -> None:
    body = b" " * (limits.HTTP_RESPONSE_SIZE_BYTES_MAX + 1)
    if compressed:
        remote.answers(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
    else:
        remote.answers(body=body)
    failure = await failure_of(http, remote.url, output="raw")
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "Response Too Large")
    remote.answers(body=body[:-1])
    assert len(await value_of(http, remote.url, output="raw")) > limits.HTTP_RESPONSE_SIZE_BYTES_MAX


async def test_decompression_bomb(http: CallHttp, remote: Remote) -> None:
    remote.answers(body=gzip.compress(bytes(100_000_000), 9), headers={"Content-Encoding": "gzip"})
    failure = await failure_of(http, remote.url)
    assert (failure.type, failure.status) == ("communication", 500)


async def test_timeout(remote: Remote) -> None:
    gone = asyncio.Event()
    remote.answer = _never(gone)
    http = call_http(http_timeout_s=0.05)
    failure = await failure_of(http, remote.url)
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "No Response In Time")
    assert "0.05 s" in failure.detail
    await asyncio.wait_for(gone.wait(), ANSWER_S)
    await http.close()


async def test_tls_is_verified(remote: Remote, http: CallHttp) -> None:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(CERTIFICATES / "server.pem")
    secure = Remote()
    runner = await serve(secure, server_context)
    uri = f"https://localhost:{secure.port}/x"
    failure = await failure_of(http, uri)
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "TLS Failed")
    trusting = call_http(
        http_timeout_s=5.0,
        ssl_context=ssl.create_default_context(cafile=CERTIFICATES / "ca.pem"),
    )
    assert await value_of(trusting, uri) == {"ok": True}
    failure = await failure_of(trusting, f"https://127.0.0.1:{remote.port}/x")
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "TLS Failed")
    await trusting.close()
    await runner.cleanup()


# --- interruption, pooling, metrics ---


def _never(
    gone: asyncio.Event, come: asyncio.Event | None = None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Never answers; sets `come` with the request and `gone` once the client has left."""

    async def answer(_: web.Request) -> web.StreamResponse:
        if come is not None:
            come.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    return answer


async def test_cancelling_aborts_the_request(http: CallHttp, remote: Remote, registry: CollectorRegistry) -> None:
    come, gone = asyncio.Event(), asyncio.Event()
    remote.answer = _never(gone, come)
    task = asyncio.create_task(http.perform(effect(), arguments_of(remote.url)))
    async with asyncio.timeout(ANSWER_S):
        await come.wait()
        assert _sample(registry, "effects_in_flight", kind="call_http") == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
    assert _sample(registry, "effects_in_flight", kind="call_http") == 0
    assert _sample(registry, "effects_total", kind="call_http", outcome="interrupted") == 1


async def test_connections_are_reused(http: CallHttp, remote: Remote) -> None:
    for _ in range(3):
        await value_of(http, remote.url)
    assert len({request.transport for request in remote.requests}) == 1


async def test_connections_to_one_host(http: CallHttp, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further calls wait for one of them."""
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_PER_HOST_MAX", 3)
    gate, most = asyncio.Semaphore(0), 0

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal most
        most = max(most, len(remote.requests) - answered)
        await gate.acquire()
        return web.json_response({})

    remote.answer, answered = answer, 0
    calls = [asyncio.ensure_future(value_of(http, remote.url)) for _ in range(10)]
    async with asyncio.timeout(ANSWER_S):
        while len(remote.requests) < limits.HTTP_CONNECTIONS_PER_HOST_MAX:  # noqa: ASYNC110 - within the deadline above
            await asyncio.sleep(0)
        while calls:
            gate.release()
            done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            answered += len(done)
            calls = list(pending)
    assert most == 3


async def test_host_that_drops_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reaching it takes no longer than that may, however slowly it might have answered."""
    monkeypatch.setattr(limits, "HTTP_CONNECT_TIMEOUT_S_MAX", 0.2)
    http = call_http(http_timeout_s=60.0)
    with socket.socket() as deaf, ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        # Whatever does not fit its backlog hears nothing.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        async with asyncio.timeout(ANSWER_S):
            failure = await failure_of(http, f"http://127.0.0.1:{deaf.getsockname()[1]}/")
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "No Response In Time")
    await http.close()


async def test_metrics_by_outcome(http: CallHttp, remote: Remote, registry: CollectorRegistry) -> None:
    await value_of(http, remote.url)
    await failure_of(http, "ftp://x/")
    assert _sample(registry, "effects_total", kind="call_http", outcome="completed") == 1
    assert _sample(registry, "effects_total", kind="call_http", outcome="failed") == 1
    assert _sample(registry, "effect_duration_seconds_count", kind="call_http") == 2


def _sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"workflow_runner_{name}", labels)
