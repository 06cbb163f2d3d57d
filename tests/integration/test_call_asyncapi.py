"""`call: asyncapi` by real servers: documents of both versions, HTTP, server-sent events, long polls, WebSocket."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import WSMsgType, web

from fastrunner.access.egress import Egress
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.config import Environment
from tests.integration.asyncapi_calls import Calls, asyncapi_2, asyncapi_3, calls, publishing, subscribing
from tests.integration.http_calls import Remote, serve


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    remote = Remote()
    server = await serve(remote)
    yield remote
    await server.cleanup()


@pytest.fixture
async def called(remote: Remote) -> AsyncIterator[Calls]:
    """Closed before the server, which waits for its connections."""
    async with calls() as made:
        yield made


def host(remote: Remote) -> str:
    return f"127.0.0.1:{remote.port}"


# --- documents ---


async def test_an_operation_of_version_3(called: Calls, remote: Remote) -> None:
    document = asyncapi_3("http", host(remote), server={"pathname": "/v1"})
    sent = await called.output(document, publishing({"n": "${ .n }"}, headers={"X-A": "1"}), {"n": 7})
    assert sent == {"payload": {"n": 7}, "headers": {"X-A": "1"}, "correlationId": None}
    assert (remote.last.method, remote.last.path) == ("POST", "/v1/orders")
    assert (remote.last.headers["Content-Type"], remote.last.headers["X-A"]) == ("application/json", "1")
    assert remote.last.headers["Idempotency-Key"] == "test-execution/do/0/m/1/1"
    assert remote.bodies == [b'{"n":7}']


async def test_a_channel_of_version_2_in_yaml(called: Calls, remote: Remote) -> None:
    document = """
asyncapi: '2.6.0'
info: {title: t, version: '1'}
defaultContentType: application/vnd.a+json
servers:
  other: {url: 'ws://nowhere.test', protocol: ws}
  main:
    url: http://127.0.0.1:{port}/{stage}
    protocol: http
    variables: {port: {default: '1'}, stage: {default: live, enum: [live, test]}}
channels:
  shop/{shopId}/orders:
    parameters: {shopId: {location: '$message.payload#/shop', schema: {type: string}}}
    publish:
      bindings: {http: {type: request, method: PUT}}
      message: {$ref: '#/components/messages/order'}
components:
  messages:
    order: {correlationId: {location: '$message.header#/trace'}}
"""
    arguments = {
        "channel": "shop/{shopId}/orders",
        "protocol": "http",
        "message": {"payload": {"shop": 12}, "headers": {"trace": "t-1"}},
    }
    # The server is chosen by its protocol, so that its variables have their defaults.
    assert (await called.error(document, arguments))["type"].endswith("/communication")
    chosen = {"server": {"name": "main", "variables": {"port": f"{remote.port}", "stage": "test"}}}
    assert (await called.output(document, arguments | chosen))["correlationId"] == "t-1"
    assert (remote.last.method, remote.last.path) == ("PUT", "/test/shop/12/orders")
    assert remote.last.headers["Content-Type"] == "application/vnd.a+json"
    chosen["server"]["variables"]["stage"] = "elsewhere"  # type: ignore[index]
    assert "none of those" in (await called.error(document, arguments | chosen))["detail"]


REFUSED: list[tuple[str, Any, dict[str, Any], str]] = [
    ("configuration", "a: [", publishing({}), "neither YAML nor JSON"),
    ("configuration", {"openapi": "3.0.0"}, publishing({}), "no AsyncAPI document"),
    ("configuration", {"asyncapi": "1.2.0"}, publishing({}), "of version 2 or 3"),
    ("configuration", asyncapi_3("http", "h"), publishing({}, operation="sned"), "it has receive, send"),
    ("configuration", asyncapi_3("http", "h"), publishing({}, server={"name": "x"}), "has no server 'x'; it has s"),
    ("configuration", asyncapi_3("http", "h"), publishing({}, protocol="ws"), "no server of protocol 'ws'"),
    ("configuration", asyncapi_3("stomp", "h"), publishing({}), "those that are: http, https, ws"),
    ("configuration", asyncapi_2("http", "http://h"), publishing({}), "name the `channel`"),
    ("configuration", asyncapi_3("http", "h"), {"channel": "c", "message": {}}, "name the `operation`"),
    ("configuration", asyncapi_3("http", "h", channel={"address": None}), publishing({}), "is not known"),
    ("configuration", asyncapi_3("http", "u:p@h"), publishing({}), "belong into the task's `authentication`"),
    ("configuration", asyncapi_3("http", "h", servers={"s": {"$ref": "other.json"}}), publishing({}), "no reference"),
    ("configuration", asyncapi_3("http", "h", servers={"s": {"$ref": "#/servers/s"}}), publishing({}), "32 references"),
    ("configuration", asyncapi_3("http", "h", message={"contentType": "avro/binary"}), publishing({}), "only JSON"),
    ("configuration", asyncapi_3("http", "h"), subscribing({"amount": 1}), "`x-subscribe: sse`"),
    ("validation", asyncapi_3("http", "h", address="a/{id}"), publishing({}), "the channel's parameter 'id'"),
    ("validation", asyncapi_3("http", "{a}"), publishing({}), "the server's variable 'a'"),
    ("validation", asyncapi_3("http", "h"), publishing({}, operation="${ 7 }"), "`operation` is a number"),
]


@pytest.mark.parametrize(("type_", "document", "arguments", "said"), REFUSED, ids=[each[3] for each in REFUSED])
async def test_what_leads_to_no_call(
    called: Calls, type_: str, document: Any, arguments: dict[str, Any], said: str
) -> None:
    error = await called.error(document, arguments)
    assert error["type"].endswith(f"/{type_}"), error
    assert said in error["detail"]


PROTOCOLS = ("http", "ws", "kafka", "mqtt", "mqtt5", "nats", "amqp", "redis")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "host", ["a..b", ".com", "a b", "[1:2]", "[::1%lo]", "[v1.x]", f"{'a' * 64}.org", f"{'ü' * 70}"]
)
async def test_hosts_that_cannot_be(called: Calls, protocol: str, host: str) -> None:
    """Nothing is looked up, and nobody calls it an internal error."""
    error = await called.error(asyncapi_3(protocol, f"{host}:1"), publishing({}))
    assert (error["type"].rpartition("/")[2], error["title"]) == ("configuration", "Not As Described")
    assert "servers/s has no host and port that there can be" in error["detail"]


SHOPS = {"parameters": {"shop": {"location": "$message.payload#/shop"}}}


@pytest.mark.parametrize("shop", ["../x?y#z", "a/b", "%2f%2e%2e", "ü \\;&=+", "...", "\0\t"])
async def test_a_parameter_is_one_segment_of_a_path(called: Calls, remote: Remote, shop: str) -> None:
    await called.output(asyncapi_3("http", host(remote), "a/{shop}/o", channel=SHOPS), publishing({"shop": shop}))
    assert remote.last.rel_url.raw_path_qs == f"/a/{quote(shop, safe='')}/o"
    in_query = asyncapi_3("http", host(remote), "a?shop={shop}", channel=SHOPS)
    await called.output(in_query, publishing({"shop": shop}))
    assert list(remote.last.query.items()) == [("shop", shop)]


async def test_a_parameter_is_one_segment_of_a_sockets_path(called: Calls, remote: Remote) -> None:
    room = remote.answer = Room()
    document = asyncapi_3("ws", host(remote), "a/{shop}/o", channel=SHOPS)
    await called.output(document, publishing({"shop": "../x?y"}))
    assert room.handshakes[0].rel_url.raw_path_qs == "/a/..%2Fx%3Fy/o"


@pytest.mark.parametrize(
    ("protocol", "address", "shop", "said"),
    [
        ("http", "a/{shop}/o", "..", "'.' or '..', which would lead to another path"),
        ("ws", "a/{shop}", ".", "'.' or '..', which would lead to another path"),
        ("http", "a/.{shop}/o", ".", "'.' or '..', which would lead to another path"),
        ("http", "a/%2e{shop}?q", ".", "'.' or '..', which would lead to another path"),
        ("http", "a/{shop}/o", "", "'shop' is empty"),
        ("mqtt", "a/{shop}/o", "b/c", "'shop' holds one of / + #"),
        ("mqtt5", "a/{shop}", "#", "which would lead to another address of mqtt, or to several"),
        ("mqtt", "a/{shop}", "+", "'shop' holds one of / + #"),
        ("mqtt", "a/{shop}/o", "", "'shop' is empty"),
        ("mqtt", "{shop}/b/o", "$share", "parameter begins with '$'"),
        ("nats", "a.{shop}.o", "b.c", "'shop' holds one of . * >"),
        ("nats", "a.{shop}", ">", "'shop' holds one of . * >"),
        ("nats", "a.{shop}", "*", "'shop' holds one of . * >"),
        ("nats", "{shop}.API", "$JS", "parameter begins with '$'"),
        ("amqp", "a.{shop}.o", "b.c", "'shop' holds one of . * #"),
        ("amqps", "a.{shop}", "#", "'shop' holds one of . * #"),
    ],
)  # fmt: skip
async def test_a_parameter_leads_nowhere_else(
    called: Calls, remote: Remote, protocol: str, address: str, shop: str, said: str
) -> None:
    """Neither who publishes nor who subscribes."""
    by = {"x-subscribe": "poll"}
    document = asyncapi_3(protocol, host(remote), address, channel=SHOPS, by=by)
    in_variables = {"server": {"name": "s", "variables": {"shop": shop}}}
    for arguments in (publishing({"shop": shop}), subscribing({"amount": 1}, **in_variables)):
        error = await called.error(document, arguments)
        assert (error["type"].rpartition("/")[2], error["status"]) == ("validation", 400)
        assert said in error["detail"]
    assert remote.requests == []


@pytest.mark.parametrize("protocol", ["http", "ws"])
@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X": "a\r\nY: b"}, "header X has a control character"),
        ({"X": "\0"}, "header X has a control character"),
        ({"a\nb": "x"}, "no HTTP token"),
        ({"": "x"}, "no HTTP token"),
        ({"Content-Length": "5"}, "header Content-Length is the runner's to set"),
        ({"Transfer-Encoding": "chunked"}, "header Transfer-Encoding is the runner's to set"),
        ({"expect": "100-continue"}, "header expect is the runner's to set"),
        ({"X": "y" * limits.HTTP_HEADERS_SIZE_BYTES_MAX}, "send large data as the body"),
    ],
)
async def test_headers_that_no_request_may_have(
    called: Calls, remote: Remote, protocol: str, headers: dict[str, str], said: str
) -> None:
    error = await called.error(asyncapi_3(protocol, host(remote)), publishing({}, headers=headers))
    assert (error["type"].rpartition("/")[2], error["status"]) == ("configuration", 400)
    assert said in error["detail"]
    assert remote.requests == []


async def test_a_message_says_itself_what_it_is(called: Calls, remote: Remote) -> None:
    headers = {"content-type": "application/vnd.a+json", "IDEMPOTENCY-KEY": "own"}
    await called.output(asyncapi_3("http", host(remote)), publishing({}, headers=headers))
    assert remote.last.headers.getall("Content-Type") == ["application/vnd.a+json"]
    assert remote.last.headers.getall("Idempotency-Key") == ["own"]


async def test_a_channel_without_the_operation(called: Calls) -> None:
    document = asyncapi_2("http", "http://h", channels={"orders": {"subscribe": {}}})
    error = await called.error(document, {"channel": "orders", "message": {"payload": {}}})
    assert "has no `publish`" in error["detail"]


async def test_a_destination_that_is_refused() -> None:
    async with calls(Egress(environment=Environment.PROD)) as called:
        for protocol in ("http", "ws", "redis"):
            error = await called.error(asyncapi_3(protocol, "127.0.0.1:9"), publishing({}))
            assert (error["status"], error["type"].rpartition("/")[2]) == (403, "configuration")


async def test_documents_are_read_once_and_few_are_kept(
    called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_DOCUMENTS_KEPT_MAX", 2)
    for number in (1, 2, 3, 3):
        await called.output(asyncapi_3("http", host(remote), f"o{number}"), publishing({}))
    (performer,) = [each._performer for each in [called.performers["call_asyncapi"]]]  # type: ignore[attr-defined]
    assert len(performer._documents) == 2


# --- credentials ---


@pytest.mark.parametrize(
    ("policy", "scheme", "expected"),
    [
        ({"basic": {"username": "u", "password": "p"}}, {"type": "userPassword"}, ("Authorization", "Basic dTpw")),
        ({"bearer": {"token": "t"}}, {"type": "http", "scheme": "bearer"}, ("Authorization", "Bearer t")),
        ({"bearer": {"token": "t"}}, {"type": "httpApiKey", "in": "header", "name": "X-Key"}, ("X-Key", "t")),
        ({"bearer": {"token": "t"}}, {"type": "httpApiKey", "in": "cookie", "name": "k"}, ("Cookie", "k=t")),
    ],
)
async def test_what_proves_who_calls(
    called: Calls, remote: Remote, policy: Any, scheme: Any, expected: tuple[str, str]
) -> None:
    components = {"securitySchemes": {"k": scheme}}
    document = asyncapi_3(
        "http", host(remote), server={"security": [{"$ref": "#/components/securitySchemes/k"}]}, components=components
    )
    await called.output(document, publishing({}, authentication=policy))
    assert remote.last.headers[expected[0]] == expected[1]


async def test_a_key_in_the_query_and_a_policy_that_no_broker_has(called: Calls, remote: Remote) -> None:
    document = asyncapi_2(
        "http", remote.url, components={"securitySchemes": {"k": {"type": "httpApiKey", "in": "query", "name": "key"}}}
    )
    document["servers"]["s"]["security"] = [{"k": []}]
    arguments = {"channel": "orders", "message": {}, "authentication": {"bearer": {"token": "t"}}}
    await called.output(document, arguments)
    assert remote.last.query == {"key": "t"}
    arguments["authentication"] = {"digest": {"username": "u", "password": "p"}}
    assert "digest" in (await called.error(document, arguments))["detail"]


# --- HTTP ---


async def test_http_failures(called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    document = asyncapi_3("http", host(remote))
    remote.answers(status=503)
    error = await called.error(document, publishing({}))
    assert (error["status"], error["type"].rpartition("/")[2]) == (503, "communication")
    assert error["detail"] == f"asyncapi http {host(remote)}: the server answered with status 503"
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGE_SIZE_BYTES_MAX", 10)
    assert (await called.error(document, publishing({"a": "b" * 10})))["status"] == 413


async def test_a_publication_has_a_time(remote: Remote) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    remote.answer = never
    async with calls(http_timeout_s=0.2) as called:
        error = await called.error(asyncapi_3("http", host(remote)), publishing({}))
    assert "nothing within 0.2 s" in error["detail"]


async def test_server_sent_events(called: Calls, remote: Remote) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for text in (
            ": hello\n\n",
            'id: 1\nevent: made\ndata: {"n":\ndata: 1}\n\n',
            "data: no json\r\n\r\n",
            "data: 3\n\n",
        ):
            for part in (text[:5], text[5:]):
                await response.write(part.encode())
        return response

    remote.answer = stream
    document = asyncapi_3("http", host(remote), by={"x-subscribe": "sse"})
    found = await called.output(document, subscribing({"amount": 3}))
    assert found[0] == {"payload": {"n": 1}, "headers": {"id": "1", "event": "made"}, "correlationId": None}
    assert [each["payload"] for each in found[1:]] == ["no json", 3]
    assert remote.last.headers["Accept"] == "text/event-stream"
    error = await called.error(document, subscribing({"amount": 4}))
    assert "ended the stream" in error["detail"]


async def test_long_polls(called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_POLL_INTERVAL_S", 0.01)
    answers = [
        web.Response(status=204),
        web.json_response({"n": 1}, headers={"X-Trace": "t"}),
        web.Response(status=304),
    ]

    async def answer(_: web.Request) -> web.StreamResponse:
        return answers.pop(0) if answers else web.json_response({"n": 2})

    remote.answer = answer
    message = {"correlationId": {"location": "$message.header#/x-trace"}}
    document = asyncapi_3("http", host(remote), by={"x-subscribe": "poll"}, message=message)
    found = await called.output(document, subscribing({"amount": 2}))
    assert [each["payload"]["n"] for each in found] == [1, 2]
    assert [each["correlationId"] for each in found] == ["t", None]
    assert remote.last.method == "GET"


async def test_a_poll_without_a_message_is_not_repeated_at_once(
    called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_POLL_INTERVAL_S", 60.0)
    remote.answers(status=204)
    document = asyncapi_3("http", host(remote), by={"x-subscribe": "poll"})
    assert await called.output(document, subscribing({"amount": 1, "for": "PT0.3S"})) == []
    assert len(remote.requests) == 1


@pytest.mark.parametrize("form", ["poll", "sse"])
async def test_messages_in_a_content_coding(called: Calls, remote: Remote, form: str) -> None:
    """None is asked for, and what is sent all the same is no message."""
    body = gzip.compress(b'data: {"n": 1}\n\n' if form == "sse" else b'{"n": 1}')
    remote.answers(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
    error = await called.error(asyncapi_3("http", host(remote), by={"x-subscribe": form}), subscribing({"amount": 1}))
    assert (error["type"].rpartition("/")[2], error["title"]) == ("communication", "Malformed Response")
    assert remote.last.headers["Accept-Encoding"] == "identity"


async def test_messages_that_are_too_large(called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGE_SIZE_BYTES_MAX", 100)
    remote.answers(text="x" * 101)
    document = asyncapi_3("http", host(remote), by={"x-subscribe": "poll"})
    assert "exceeds 100 bytes" in (await called.error(document, subscribing({"amount": 1})))["detail"]
    remote.answers(text="data: " + "x" * 300)
    document = asyncapi_3("http", host(remote), by={"x-subscribe": "sse"})
    assert "exceeds 100 bytes" in (await called.error(document, subscribing({"amount": 1})))["detail"]


# --- WebSocket ---


class Room:
    """A WebSocket server: what it hears, and what it says to whoever connects."""

    def __init__(self, *says: Any) -> None:
        self.heard: list[Any] = []
        self.says = says
        self.open_count = 0
        self.handshakes: list[web.Request] = []
        self.changed = asyncio.Condition()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.handshakes.append(request)
        server = web.WebSocketResponse()
        await server.prepare(request)
        await self.change(1)
        for each in self.says:
            await (server.send_bytes(each) if isinstance(each, bytes) else server.send_str(each))
        async for frame in server:
            if frame.type is WSMsgType.TEXT:
                self.heard.append(json.loads(frame.data))
        await self.change(-1)
        return server

    async def change(self, count: int) -> None:
        async with self.changed:
            self.open_count += count
            self.changed.notify_all()

    async def until_open(self, count: int) -> None:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: self.open_count == count)


async def test_a_frame_is_a_message(called: Calls, remote: Remote) -> None:
    room = remote.answer = Room()
    document = asyncapi_3("ws", host(remote), "/chat/{room}", channel={"parameters": {"room": {"default": "r1"}}})
    arguments = publishing({"hi": 1}, headers={"X-A": "1"}, authentication={"bearer": {"token": "t"}})
    await called.output(document, arguments)
    assert room.heard == [{"hi": 1}]
    (handshake,) = room.handshakes
    assert (handshake.path, handshake.headers["X-A"]) == ("/chat/r1", "1")
    assert handshake.headers["Authorization"] == "Bearer t"
    await room.until_open(0)


async def test_frames_are_consumed_one_after_the_other(called: Calls, remote: Remote) -> None:
    room = remote.answer = Room('{"n": 1}', '{"n": 2}', b'{"n": 3}', b"\xff\x00", '{"n": 4}')
    document = asyncapi_3("ws", host(remote), "/")
    iterator = {"do": [{"s": {"set": {"n": "${ .payload.n * 10 }"}}}], "output": {"as": "${ .n }"}}
    wrapped = '${ .payload | type == "object" }'
    found = await called.output(document, subscribing({"amount": 4}, foreach=iterator, filter=wrapped))
    assert found == [10, 20, 30, 40]
    # All of it over one connection, which is closed at the end.
    assert len(room.handshakes) == 1
    await room.until_open(0)


async def test_the_time_for_messages_is_up(called: Calls, remote: Remote) -> None:
    room = remote.answer = Room("1", "2")
    document = asyncapi_3("ws", host(remote), "/")
    found = await called.output(document, subscribing({"while": "${ true }", "for": "PT0.3S"}))
    assert [each["payload"] for each in found] == [1, 2]
    await room.until_open(0)


async def test_a_timeout_closes_the_connection(called: Calls, remote: Remote) -> None:
    room = remote.answer = Room()
    execution = await called.run(
        asyncapi_3("ws", host(remote), "/"), subscribing({"amount": 1}), timeout={"after": "PT0.3S"}
    )
    assert execution.error is not None
    assert execution.error["type"].endswith("/timeout")
    await room.until_open(0)


async def test_a_subscription_that_is_left_is_closed(
    called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_IDLE_S", 0.1)
    room = remote.answer = Room("1")
    iterator = {"do": [{"r": {"raise": {"error": {"type": "https://x.test/odd", "status": 400}}}}]}
    execution = await called.run(asyncapi_3("ws", host(remote), "/"), subscribing({"amount": 2}, foreach=iterator))
    assert execution.status == "failed"
    await room.until_open(0)


async def test_idle_subscriptions_are_few(called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_SUBSCRIPTIONS_IDLE_MAX", 0)
    room = remote.answer = Room("1")
    iterator = {"do": [{"r": {"raise": {"error": {"type": "https://x.test/odd", "status": 400}}}}]}
    await called.run(asyncapi_3("ws", host(remote), "/"), subscribing({"amount": 2}, foreach=iterator))
    await room.until_open(0)


async def test_a_worker_that_stops_closes_its_subscriptions(remote: Remote) -> None:
    room = remote.answer = Room("1")
    iterator = {"do": [{"r": {"raise": {"error": {"type": "https://x.test/odd", "status": 400}}}}]}
    async with calls() as called:
        await called.run(asyncapi_3("ws", host(remote), "/"), subscribing({"amount": 2}, foreach=iterator))
        assert room.open_count == 1
    await room.until_open(0)


async def test_a_server_that_hangs_holds_no_stopping_worker(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_SUBSCRIPTION_CLOSE_S_MAX", 0.1)
    ended = asyncio.Event()

    async def hanging(request: web.Request) -> web.StreamResponse:
        server = web.WebSocketResponse(autoclose=False)
        await server.prepare(request)
        await server.send_str("1")
        await ended.wait()
        return server

    remote.answer = hanging
    iterator = {"do": [{"r": {"raise": {"error": {"type": "https://x.test/odd", "status": 400}}}}]}
    began_s = monotonic_s()
    async with calls() as called:
        await called.run(asyncapi_3("ws", host(remote), "/"), subscribing({"amount": 2}, foreach=iterator))
    # The library would wait for the answer to its close for ten seconds.
    assert monotonic_s() - began_s < 8
    ended.set()


async def test_a_task_that_is_tried_again_has_one_connection(called: Calls, remote: Remote) -> None:
    room = remote.answer = Room('{"n": 1}')
    iterator = {"do": [{"r": {"raise": {"error": {"type": "https://x.test/odd", "status": 400}}}}]}
    document = asyncapi_3("ws", host(remote), "/")
    for _ in range(3):
        await called.run(document, subscribing({"amount": 2}, foreach=iterator))
    await room.until_open(1)
    assert len(room.handshakes) == 3


async def test_messages_that_come_together_are_taken_together(
    called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a bound, and as long as others follow within a moment."""
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGES_PER_EFFECT_MAX", 4)
    monkeypatch.setattr(limits, "ASYNCAPI_LINGER_S", 5.0)
    remote.answer = Room(*["1"] * 10)
    found: list[int] = []
    inner = called.performers["call_asyncapi"].perform

    async def counted(effect: Any, arguments: Any) -> Any:
        outcome: Any = await inner(effect, arguments)
        found.append(len(outcome.value["messages"]))
        return outcome

    monkeypatch.setattr(called.performers["call_asyncapi"], "perform", counted)
    await called.output(asyncapi_3("ws", host(remote), "/"), subscribing({"amount": 10}))
    assert found == [4, 4, 2, 0]


async def test_websocket_failures(called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    document = asyncapi_3("ws", host(remote), "/")
    remote.answers(status=401)
    error = await called.error(document, subscribing({"amount": 1}))
    assert (error["status"], error["type"].rpartition("/")[2]) == (401, "communication")

    async def closing(request: web.Request) -> web.StreamResponse:
        server = web.WebSocketResponse()
        await server.prepare(request)
        await server.close(code=1013)
        return server

    remote.answer = closing
    assert "closed with code 1013" in (await called.error(document, subscribing({"amount": 1})))["detail"]
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGE_SIZE_BYTES_MAX", 10)
    remote.answer = Room("x" * 11)
    assert "exceeds 10 bytes" in (await called.error(document, subscribing({"amount": 1})))["detail"]


async def test_a_peer_that_answers_no_ping_is_gone(
    called: Calls, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_HEARTBEAT_S", 0.1)

    async def deaf(request: web.Request) -> web.StreamResponse:
        server = web.WebSocketResponse(autoping=False)
        await server.prepare(request)
        async for _ in server:
            pass
        return server

    remote.answer = deaf
    error = await called.error(asyncapi_3("ws", host(remote), "/"), subscribing({"amount": 1}))
    assert error["type"].endswith("/communication")
