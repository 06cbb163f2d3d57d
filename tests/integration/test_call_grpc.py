"""Support: `call: grpc` against real servers: messages there and back, the four kinds of methods, what is sent along,
errors, deadlines, cancels, connections and where they go, reflection."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2, descriptor_pool, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from fastrunner._core import EffectFailure, EffectResult
from fastrunner.access.egress import Egress
from fastrunner.base import clock, limits
from fastrunner.config import Environment
from tests.driver import run
from tests.integration.grpc_calls import (
    GREETER,
    KINDS,
    Calls,
    Greeter,
    Texts,
    calling,
    described,
    files_of,
    reflecting,
    serving,
)
from tests.integration.http_calls import KEY, Remote, serve
from tests.integration.test_egress import Resolver, came, closed_port

KINDS_OF_CALLS: list[tuple[str, Any]] = [
    ("SayHello", {}),
    ("Collect", {"messages": [{}]}),
    ("Spread", {}),
    ("Chat", {"messages": [{}]}),
]
CERTIFICATES = Path(__file__).parent.parent / "certificates"


@pytest.fixture
async def greeter() -> AsyncIterator[Greeter]:
    async with serving(Greeter()) as served:
        yield served


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    async with calling() as calls:
        yield calls


async def until(condition: Callable[[], object], what: str) -> None:
    deadline_s = clock.monotonic_s() + 30
    while not condition():
        assert clock.monotonic_s() < deadline_s, f"waited 30 s for: {what}"
        await asyncio.sleep(0.01)


# --- messages ---


async def test_json_becomes_a_message_and_a_message_json(greeter: Greeter, calls: Calls) -> None:
    """By protobuf's JSON mapping: names in camel case, 64 bits as text, bytes in base64, what has no value left out."""
    asked = {
        "name": "Ada",
        "big": "9007199254740993",
        "raw": "AAE=",
        "colour": "GREEN",
        "rail": 3,
        "any": {"@type": "type.googleapis.com/app.greet.Hello", "name": "within"},
        "open": {"a": [1, None, {"b": True}]},
        "at": "2020-01-01T00:00:00Z",
        "others": {"x": {"name": "y"}},
        "numbers": [1, 2.5, "NaN"],
        "politeForm": False,
        "boxed": "5",
        "old": {"must": "m", "size": "LARGE", "[app.greet.more]": "extended"},
    }
    value = await calls.value(greeter.port, arguments=asked)
    assert value == asked
    assert greeter.asked == [asked]
    assert type(value["any"]) is dict
    assert type(value["open"]["a"][0]) is int
    given = {"polite_form": True, "big": 7, "colour": 3, "name": "", "road": None, "numbers": []}
    assert await calls.value(greeter.port, arguments=given) == {"politeForm": True, "big": "7", "colour": "GREEN"}
    assert await calls.value(greeter.port) == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": {"canary": 1}}, "arguments.name holds what string does not take"),
        ({"big": "canary"}, "arguments.big holds what int64 does not take"),
        ({"big": 1.5}, "arguments.big holds what int64 does not take"),
        ({"rail": 2**31}, "arguments.rail holds what int32 does not take"),
        ({"colour": "canary"}, "arguments.colour holds what app.greet.Colour does not take"),
        ({"at": "canary"}, "arguments.at holds what google.protobuf.Timestamp does not take"),
        ({"others": {"x": {"big": "canary"}}}, "arguments.others.big holds what int64 does not take"),
        ({"numbers": ["canary"]}, "arguments.numbers holds what double does not take"),
        ({"any": {"@type": "canary"}}, "arguments.any holds what google.protobuf.Any does not take"),
        ({"any": {"name": "canary"}}, "arguments.any holds what google.protobuf.Any does not take"),
        ({"road": "canary", "rail": 1}, "arguments holds what app.greet.Hello does not take"),
        ({"nom": "canary"}, "arguments has 'nom', which is no field of app.greet.Hello"),
        ({"old": {"number": 1}}, "arguments has not all that app.greet.Hello requires: old.must"),
        ({"others": "canary"}, "arguments.others holds what a map does not take"),
        ({"name": "\ud800"}, "arguments.name holds what string does not take"),
    ],
)
async def test_arguments_that_are_no_message(greeter: Greeter, calls: Calls, arguments: Any, told: str) -> None:
    """The field is named, and no value shown; nothing is sent."""
    failure = await calls.failure(greeter.port, arguments=arguments)
    assert (failure.type, failure.status, failure.title) == ("validation", 400, "Invalid gRPC Call")
    assert failure.detail.startswith(f"app.greet.Greeter/SayHello at 127.0.0.1:{greeter.port}: {told}"), failure.detail
    assert "canary" not in failure.detail
    assert greeter.asked == []


async def test_what_came_from_expressions_is_checked(greeter: Greeter, calls: Calls) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"arguments": [1]}, "expression"),
        ({"method": 3}, "expression"),
        ({"method": "Say/Hello"}, "configuration"),
        ({"service": {"name": None}}, "expression"),
        ({"service": {"name": "app.greet.Greeter/x"}}, "configuration"),
        ({"service": {"host": "h:1"}}, "configuration"),
        ({"service": {"host": "unix"}, "proto": {"uri": 3}}, "expression"),
        ({"service": {"port": 0}}, "configuration"),
        ({"service": {"port": "80"}}, "configuration"),
        ({"service": {"port": True}}, "configuration"),
        ({"service": {"name": "Other"}}, "configuration"),
        ({"method": "sayHello"}, "configuration"),
        ({"proto": {"uri": "grpc://h:1/path"}}, "configuration"),
        ({"proto": {"uri": "grpc://u@h:1"}}, "configuration"),
        ({"proto": {"uri": "grpc://:1"}}, "configuration"),
        ({"proto": {"uri": "grpc://h:99999"}}, "configuration"),
        ({"proto": {"uri": "grpc://a..b:1"}}, "configuration"),
        ({"proto": {"uri": "grpc://[1:2]:1"}}, "configuration"),
        ({"service": {"host": "a..b"}}, "configuration"),
        ({"service": {"host": f"{'a' * 64}.org"}}, "configuration"),
        ({"service": {"host": "[1:2]"}}, "configuration"),
    ]
    for changed, kind in cases:
        failure = await calls.failure(greeter.port, **{"method": "SayHello", **changed})
        assert (failure.type, failure.status) == (kind, 400), described(failure)
    unknown = await calls.failure(greeter.port, "sayHello")
    assert "app.greet.Greeter has no method sayHello; it has SayHello, Collect, Spread, Chat, Shout" in unknown.detail
    assert greeter.asked == []


async def test_services_are_named_whole_or_by_their_end(greeter: Greeter, calls: Calls) -> None:
    for name in ("app.greet.Greeter", ".app.greet.Greeter", "greet.Greeter", "Greeter"):
        assert await calls.value(greeter.port, service={"name": name}, arguments={"name": name}) == {"name": name}
    failure = await calls.failure(greeter.port, service={"name": "reeter"})
    assert "the proto has no service reeter; it has app.greet.Greeter" in failure.detail


# --- the four kinds ---


async def test_streams_of_messages(greeter: Greeter, calls: Calls) -> None:
    messages = [{"name": str(number)} for number in range(100)]
    given = {"messages": messages}
    collected = await calls.value(greeter.port, "Collect", arguments=given)
    assert collected == {"others": {str(number): each for number, each in enumerate(messages)}}
    assert await calls.value(greeter.port, "Chat", arguments=given) == messages
    assert await calls.value(greeter.port, "Spread", arguments={"name": "one"}) == [{"name": "one"}]
    assert await calls.value(greeter.port, "Chat", arguments={"messages": []}) == []
    assert await calls.value(greeter.port, "Collect", arguments={"messages": []}) == {}
    assert greeter.asked[:2] == [messages, messages]


async def test_a_request_whose_json_is_no_object(greeter: Greeter, calls: Calls) -> None:
    assert await calls.value(greeter.port, "Shout", arguments={"value": "text"}) == "text"
    failure = await calls.failure(greeter.port, "Shout", arguments={"text": "text"})
    assert failure.type == "configuration"
    assert "Shout takes a google.protobuf.StringValue: arguments has to be `value` alone" in failure.detail


@pytest.mark.parametrize("arguments", [None, {}, {"name": "a"}, {"messages": 1}, {"messages": [], "name": "a"}])
async def test_arguments_that_are_no_stream(greeter: Greeter, calls: Calls, arguments: Any) -> None:
    failure = await calls.failure(greeter.port, "Collect", arguments=arguments)
    assert failure.type == "configuration"
    assert "Collect takes a stream: arguments has to be `messages` alone, an array" in failure.detail
    wrong = await calls.failure(greeter.port, "Collect", arguments={"messages": [{}, {"big": "canary"}]})
    assert wrong.type == "validation"
    assert "arguments.messages[1].big holds what int64 does not take" in wrong.detail


async def test_a_stream_without_an_end_is_given_up(
    greeter: Greeter, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the number of its messages, or by their size; the server is told."""

    async def endless(_: Any, __: Any) -> Any:
        return ({"name": "x" * 1000} for _ in iter(int, 1))

    greeter.answer = endless
    failure = await calls.failure(greeter.port, "Spread")
    assert (failure.type, failure.title) == ("communication", "Response Too Large")
    assert f"streams more than {limits.GRPC_STREAM_SIZE_BYTES_MAX} bytes" in failure.detail
    monkeypatch.setattr(limits, "GRPC_STREAM_MESSAGES_MAX", 50)
    failure = await calls.failure(greeter.port, "Spread")
    assert "streams more than 50 messages" in failure.detail
    await until(lambda: greeter.cancelled == 2, "the server is told")
    sent = await calls.failure(greeter.port, "Collect", arguments={"messages": [{}] * 51})
    assert (sent.type, "50 messages at most" in sent.detail) == ("configuration", True)


async def test_sizes_of_messages(greeter: Greeter, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    size = limits.GRPC_MESSAGE_SIZE_BYTES_MAX
    fits = {"name": "x" * (size - 100)}
    assert await calls.value(greeter.port, arguments=fits) == fits
    sent = await calls.failure(greeter.port, arguments={"name": "x" * size})
    assert sent.type == "configuration"
    assert f"{size} may be sent" in sent.detail

    async def large(_: Any, __: Any) -> Any:
        return {"name": "x" * size}

    greeter.answer = large
    failure = await calls.failure(greeter.port)
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "Response Too Large")
    monkeypatch.setattr(limits, "GRPC_STREAM_SIZE_BYTES_MAX", 1000)
    stream = await calls.failure(greeter.port, "Collect", arguments={"messages": [{"name": "x" * 600}] * 2})
    assert "all messages of a stream may have 1000 bytes" in stream.detail


async def test_a_compressed_answer_is_unpacked_within_its_bound(calls: Calls) -> None:
    greeter = Greeter()

    async def large(asked: Any, _: Any) -> Any:
        return {"name": "x" * int(asked["name"])}

    greeter.answer = large
    async with serving(greeter, compression=grpc.Compression.Gzip):
        assert await calls.value(greeter.port, arguments={"name": "100000"}) == {"name": "x" * 100_000}
        failure = await calls.failure(greeter.port, arguments={"name": str(limits.GRPC_MESSAGE_SIZE_BYTES_MAX * 10)})
        assert failure.title == "Response Too Large", described(failure)


async def test_values_of_a_response_are_bounded(
    greeter: Greeter, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_RESPONSE_CONTAINERS_MAX", 15)

    async def answer(asked: Any, _: Any) -> Any:
        value: Any = {}
        for _ in range(int(asked["name"])):
            value = {"a": value}
        return {"open": value}

    greeter.answer = answer
    assert await calls.value(greeter.port, arguments={"name": "2"}) == {"open": {"a": {"a": {}}}}
    failure = await calls.failure(greeter.port, arguments={"name": "15"})
    assert "more than 15 arrays and objects" in failure.detail
    monkeypatch.setattr(limits, "HTTP_RESPONSE_DEPTH_MAX", 10)
    failure = await calls.failure(greeter.port, arguments={"name": "9"})
    assert "deeper than 10 levels" in failure.detail


async def test_what_is_no_message_is_told(greeter: Greeter, calls: Calls) -> None:
    """Bytes that are none, and one that holds what its description does not have."""
    unknown = any_pb2.Any(type_url="type.googleapis.com/un.known", value=b"x").SerializeToString()
    replies = [b"\x0a\xff", b"\x3a" + bytes([len(unknown)]) + unknown]

    async def answer(_: Any, context: Any) -> Any:
        return b""

    greeter.answer = answer
    service = "app.greet.Greeter"
    for reply in replies:

        async def raw(_: bytes, __: Any, reply: bytes = reply) -> bytes:
            return reply

        handler = grpc.method_handlers_generic_handler(service, {"SayHello": grpc.unary_unary_rpc_method_handler(raw)})
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        failure = await calls.failure(port)
        assert (failure.type, failure.title) == ("communication", "Malformed Response"), described(failure)
        await server.stop(None)


async def test_large_messages_leave_the_loop_to_others(greeter: Greeter, calls: Calls) -> None:
    asked = {"numbers": [float(number) + 0.5 for number in range(200_000)]}
    turns = 0

    async def turning() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(turning())
    value = await calls.value(greeter.port, arguments=asked)
    other.cancel()
    assert value == asked
    # Converted by the loop's own thread it would have a handful, those of the network.
    assert turns > 50


# --- what goes along ---


async def test_what_is_sent_along(greeter: Greeter, calls: Calls) -> None:
    await calls.value(greeter.port)
    [metadata] = greeter.metadata
    assert metadata["idempotency-key"] == KEY
    assert metadata["user-agent"].startswith("fastrunner/")
    assert "authorization" not in metadata
    [left_s] = greeter.time_left_s
    assert left_s is not None
    assert 200 < left_s <= 300


async def test_policies_are_sent_as_authorization(greeter: Greeter, calls: Calls) -> None:
    basic = await calls.outcome(greeter.port, authentication={"basic": {"username": "u", "password": "p"}})
    bearer = await calls.outcome(greeter.port, authentication={"bearer": {"token": "canary-token"}})
    assert [each["authorization"] for each in greeter.metadata] == ["Basic dTpw", "Bearer canary-token"]
    assert isinstance(basic, EffectResult)
    assert isinstance(bearer, EffectResult)
    assert bearer.authorization == {"scheme": "Bearer", "parameter": "canary-token"}
    remote = Remote()
    server = await serve(remote)
    remote.answers(
        text='{"access_token": "given", "token_type": "Bearer", "expires_in": 3600}', content_type="application/json"
    )
    policy = {"authority": remote.url, "grant": "client_credentials", "client": {"id": "a", "secret": "b"}}
    await calls.value(greeter.port, authentication={"oauth2": policy})
    assert greeter.metadata[-1]["authorization"] == "Bearer given"
    remote.answers(status=400, text='{"error": "invalid_client"}', content_type="application/json")
    other = {**policy, "client": {"id": "x", "secret": "y"}}
    refused = await calls.failure(greeter.port, authentication={"oauth2": other})
    assert refused.title != "UNAUTHENTICATED", described(refused)
    digest = await calls.failure(greeter.port, authentication={"digest": {"username": "u", "password": "p"}})
    assert (digest.type, "Digest answers challenges" in digest.detail) == ("configuration", True)
    foreign = await calls.failure(greeter.port, authentication={"bearer": {"token": "canary-\u00e9"}})
    assert (foreign.type, "canary" in foreign.detail) == ("configuration", False)
    assert len(greeter.metadata) == 3
    await server.cleanup()


# --- errors ---


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("CANCELLED", 499),
        ("UNKNOWN", 500),
        ("INVALID_ARGUMENT", 400),
        ("DEADLINE_EXCEEDED", 504),
        ("NOT_FOUND", 404),
        ("ALREADY_EXISTS", 409),
        ("PERMISSION_DENIED", 403),
        ("RESOURCE_EXHAUSTED", 429),
        ("FAILED_PRECONDITION", 400),
        ("ABORTED", 409),
        ("OUT_OF_RANGE", 400),
        ("UNIMPLEMENTED", 501),
        ("INTERNAL", 500),
        ("UNAVAILABLE", 503),
        ("DATA_LOSS", 500),
        ("UNAUTHENTICATED", 401),
    ],
)
async def test_codes_are_errors(greeter: Greeter, calls: Calls, code: str, status: int) -> None:
    async def refuse(_: Any, context: Any) -> Any:
        await context.abort(getattr(grpc.StatusCode, code), "no\nsuch \x1b[31m thing")

    greeter.answer = refuse
    for method, arguments in KINDS_OF_CALLS[::3]:
        failure = await calls.failure(greeter.port, method, arguments=arguments)
        assert (failure.type, failure.status, failure.title) == ("communication", status, code)
        where = f"app.greet.Greeter/{method} at 127.0.0.1:{greeter.port}"
        assert failure.detail == f"{where}: {code}: no\\nsuch \\x1b[31m thing"
        assert failure.retry_after_ms == 0


async def test_a_server_that_does_not_read_on_is_heard(calls: Calls) -> None:
    """Its status is the task's, and not that nothing more could be sent; also where it is content with what it has."""

    async def refuse(requests: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    async def enough(requests: Any, context: Any) -> Any:
        async for request in requests:
            yield request
            return

    def handlers(method: str, handler: Any) -> Any:
        return grpc.method_handlers_generic_handler("app.greet.Greeter", {method: handler})

    refusing = grpc.stream_unary_rpc_method_handler(refuse)
    content = grpc.stream_stream_rpc_method_handler(enough)
    large = {"messages": [{"name": "x" * 100_000}] * 50}
    for _ in range(5):
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers("Collect", refusing), handlers("Chat", content)))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        failure = await calls.failure(port, "Collect", arguments=large)
        assert (failure.title, failure.status) == ("UNAUTHENTICATED", 401), described(failure)
        assert len(await calls.value(port, "Chat", arguments=large)) == 1
        unknown = await calls.failure(port, "Spread", arguments=large["messages"][0])
        assert unknown.title == "UNIMPLEMENTED", described(unknown)
        await server.stop(None)


async def test_how_long_a_server_asks_to_be_left_alone(greeter: Greeter, calls: Calls) -> None:
    trailers: list[tuple[str, Any]] = []

    async def refuse(_: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later", tuple(trailers))

    def details(**delay: int) -> tuple[str, bytes]:
        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(**delay)))
        return "grpc-status-details-bin", status_pb2.Status(code=8, details=[packed]).SerializeToString()

    greeter.answer = refuse
    cases: list[tuple[list[tuple[str, Any]], int]] = [
        ([details(seconds=2, nanos=500_000_000)], 2500),
        ([details(seconds=10**9)], int(limits.HTTP_RETRY_AFTER_S_MAX * 1000)),
        ([details(seconds=-5)], 0),
        ([("grpc-status-details-bin", b"\xff\xff")], 0),
        ([("grpc-retry-pushback-ms", "1200")], 1200),
        ([("grpc-retry-pushback-ms", "-1")], 0),
        ([details(seconds=1), ("grpc-retry-pushback-ms", "400")], 1000),
    ]
    for given, asked_ms in cases:
        trailers[:] = given
        assert (await calls.failure(greeter.port)).retry_after_ms == asked_ms, given


async def test_a_servers_words_are_cut_and_hold_no_secret(greeter: Greeter, calls: Calls) -> None:
    async def repeat(_: Any, context: Any) -> Any:
        token = dict(context.invocation_metadata())["authorization"]
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"not with {token} {'x' * 5000}")

    greeter.answer = repeat
    failure = await calls.failure(greeter.port, authentication={"bearer": {"token": "canary-of-a-token"}})
    assert "not with Bearer *** xxx" in failure.detail
    assert len(failure.detail) < limits.GRPC_STATUS_SHOWN_SIZE_CHARS_MAX + 200


async def test_metadata_without_an_end_is_an_error(greeter: Greeter, calls: Calls) -> None:
    async def tell(asked: Any, context: Any) -> Any:
        context.set_trailing_metadata([("much", "x" * int(asked["name"]))])
        return asked

    greeter.answer = tell
    assert await calls.value(greeter.port, arguments={"name": "30000"}) == {"name": "30000"}
    failure = await calls.failure(greeter.port, arguments={"name": str(limits.GRPC_METADATA_SIZE_BYTES_MAX * 2)})
    assert failure.type == "communication", described(failure)


# --- time ---


async def test_no_answer_in_time_and_the_server_knows(greeter: Greeter) -> None:
    async def sleep(_: Any, __: Any) -> Any:
        await asyncio.Event().wait()

    greeter.answer = sleep
    async with calling(http_timeout_s=1) as calls:
        for method, arguments in KINDS_OF_CALLS:
            failure = await calls.failure(greeter.port, method, arguments=arguments)
            assert (failure.type, failure.status, failure.title) == ("communication", 504, "DEADLINE_EXCEEDED")
    await until(lambda: greeter.cancelled == 4, "the server has given up")
    assert all(left_s is not None and left_s <= 2 for left_s in greeter.time_left_s)


def count_is(greeter: Greeter, name: str, count: int) -> bool:
    found = getattr(greeter, name)
    return bool((found if isinstance(found, int) else len(found)) == count)


async def test_a_task_timeout_and_a_cancel_end_the_call_on_the_wire(greeter: Greeter, calls: Calls) -> None:
    async def sleep(_: Any, __: Any) -> Any:
        await asyncio.Event().wait()

    greeter.answer = sleep
    for number, (method, arguments) in enumerate(KINDS_OF_CALLS):
        task = asyncio.create_task(calls.outcome(greeter.port, method, arguments=arguments))
        await until(partial(count_is, greeter, "asked", number + 1), "the call is there")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(partial(count_is, greeter, "cancelled", number + 1), "the server knows")
    document = f"""
document: {{dsl: 1.0.3, namespace: a, name: b, version: 1.0.0}}
do:
  - ask:
      call: grpc
      timeout: {{after: {{milliseconds: 500}}}}
      with:
        proto: {{endpoint: 'file://app/greet.proto'}}
        service: {{name: Greeter, host: 127.0.0.1, port: {greeter.port}}}
        method: SayHello
"""
    execution = await run(document, {}, calls.performers)
    assert execution.error is not None
    assert execution.error["status"] == 408
    await until(lambda: greeter.cancelled == 5, "the server knows of the timeout")


async def test_calls_in_flight_fail_when_the_performer_is_closed(greeter: Greeter) -> None:
    async def sleep(_: Any, __: Any) -> Any:
        await asyncio.Event().wait()

    greeter.answer = sleep
    async with calling() as calls:
        tasks = [
            asyncio.create_task(calls.outcome(greeter.port, method, arguments=arguments))
            for method, arguments in KINDS_OF_CALLS
        ]
        await until(partial(count_is, greeter, "asked", 4), "the calls are there")
    for failure in await asyncio.gather(*tasks):
        assert isinstance(failure, EffectFailure)
        assert (failure.type, failure.title) == ("communication", "Connection Lost"), described(failure)
    await until(partial(count_is, greeter, "cancelled", 4), "the server knows")


# --- connections ---


async def test_a_connection_is_kept_for_the_next_call_and_not_for_ever(
    greeter: Greeter, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await calls.value(greeter.port)
    assert len(greeter.peers) == 1
    monkeypatch.setattr(limits, "GRPC_CHANNEL_IDLE_S", 0.05)
    await calls.value(greeter.port)
    await until(lambda: not calls.grpc.channels._kept, "the idle one is closed")
    await calls.value(greeter.port)
    assert len(greeter.peers) == 2


async def test_idle_connections_are_bounded(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRPC_CHANNELS_IDLE_MAX", 2)
    greeter = Greeter()
    async with serving(greeter) as first, serving(Greeter()) as second, serving(Greeter()) as third:
        for each in (first, second, first, third):
            await calls.value(each.port)
        kept = [target.port for target in calls.grpc.channels._kept]
        assert kept == [first.port, third.port]


async def test_a_server_that_is_busy_keeps_its_connection(greeter: Greeter, calls: Calls) -> None:
    async def refuse(_: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    greeter.answer = refuse
    for _ in range(5):
        assert (await calls.failure(greeter.port)).status == 503
    assert len(greeter.peers) == 1


async def test_a_server_that_comes_back_is_found_at_once(calls: Calls) -> None:
    async with serving(Greeter()) as first:
        port = first.port
        await calls.value(port)
    assert (await calls.failure(port)).title == "UNAVAILABLE"
    async with serving(Greeter(), port=port):
        assert await calls.value(port, arguments={"name": "again"}) == {"name": "again"}


async def test_each_address_of_a_name_is_tried() -> None:
    """Also of both families; and another look-up leads elsewhere."""
    resolver = Resolver(["127.0.0.3", "127.0.0.1"])
    async with serving(Greeter()) as greeter, calling(around={"resolver": resolver}) as calls:
        asked = {"service": {"host": "greeter.example"}, "arguments": {"name": "here"}}
        assert await calls.value(greeter.port, **asked) == {"name": "here"}
        assert greeter.metadata[0].keys() & {"host", ":authority"} == set()
    resolver = Resolver(["::1", "127.0.0.1"])
    async with serving(Greeter()) as greeter, calling(around={"resolver": resolver}) as calls:
        assert await calls.value(greeter.port, **asked) == {"name": "here"}


async def test_addresses_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(["127.0.0.1"], ["127.0.0.1"], ["127.0.0.2"])
    asked = {"service": {"host": "greeter.example"}}
    async with serving(Greeter()) as greeter, calling(around={"resolver": resolver}) as calls:
        await calls.value(greeter.port, **asked)
        await calls.value(greeter.port, **asked)
        assert len(resolver.asked) == 1
        monkeypatch.setattr(limits, "GRPC_ADDRESSES_S_MAX", 0)
        await calls.value(greeter.port, **asked)
        assert len(greeter.peers) == 1
        assert (await calls.failure(greeter.port, **asked)).title == "UNAVAILABLE"


async def test_calls_go_where_they_may_and_nowhere_else() -> None:
    egress = Egress(environment=Environment.PROD)
    resolver = Resolver(["10.0.0.1", "127.0.0.1"])
    async with calling(around={"egress": egress, "resolver": resolver}) as calls:
        with closed_port() as listener:
            port = listener.getsockname()[1]
            for host in ("127.0.0.1", "localhost", "greeter.example", "169.254.169.254", "2130706433"):
                failure = await calls.failure(port, service={"host": host})
                assert (failure.type, failure.status, failure.title) == ("configuration", 403, "Destination Refused")
                reflection = await calls.failure(1, proto={"uri": f"grpc://{host}:{port}"})
                assert (reflection.type, reflection.status) == ("configuration", 403), described(reflection)
            assert not came(listener)
        assert calls.registry.get_sample_value("workflow_runner_egress_refused_total", {"reason": "loopback"})


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as listener:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
        async with serving(Greeter()) as greeter, calling() as calls:
            await calls.value(greeter.port)
        assert not came(listener)


async def test_tls_proves_the_name() -> None:
    """At port 443, with a `grpcs:` URI, and where the operator says so."""
    whole = (CERTIFICATES / "server.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(whole, whole)])
    trust = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    resolver = Resolver(["127.0.0.1"])
    async with serving(Greeter(), credentials=credentials) as greeter:
        tls = f"localhost:{greeter.port},other.example:{greeter.port}"
        around = {"ssl_context": trust, "resolver": resolver}
        async with calling(around=around, grpc_tls=tls) as calls:
            asked = {"arguments": {"name": "sealed"}}
            assert await calls.value(greeter.port, service={"host": "localhost"}, **asked) == {"name": "sealed"}
            other = await calls.failure(greeter.port, service={"host": "other.example"}, **asked)
            assert other.title == "UNAVAILABLE", described(other)
            plain = await calls.failure(greeter.port, **asked)
            assert plain.title == "UNAVAILABLE", described(plain)
        async with calling(around={"resolver": resolver}, grpc_tls=tls) as calls:
            untrusted = await calls.failure(greeter.port, service={"host": "localhost"}, **asked)
            assert untrusted.title == "UNAVAILABLE", described(untrusted)
    assert len(greeter.asked) == 1


async def test_without_a_port_it_is_443() -> None:
    resolver = Resolver(["127.0.0.1"])
    async with calling(around={"resolver": resolver, "egress": Egress(deny="127.0.0.1:443")}) as calls:
        document = """
document: {dsl: 1.0.3, namespace: a, name: b, version: 1.0.0}
do:
  - ask:
      call: grpc
      with:
        proto: {endpoint: 'file://app/greet.proto'}
        service: {name: Greeter, host: greeter.example}
        method: SayHello
"""
        execution = await run(document, {}, calls.performers)
    assert execution.error is not None
    assert execution.error["detail"].startswith("Greeter/SayHello at greeter.example:443: greeter.example at 127.0.0.1")


# --- reflection ---


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("name", ["app.greet.Greeter", "Greeter"])
async def test_a_server_is_asked_for_its_description(calls: Calls, version: str, name: str) -> None:
    files = files_of("greet.proto", ("greet.proto", GREETER), ("kinds.proto", KINDS))
    reflection = reflecting(files, version)
    async with serving(Greeter(), more=[reflection.handler]) as greeter:
        asked = {"proto": {"uri": f"grpc://127.0.0.1:{greeter.port}"}, "service": {"name": name}}
        value = {"name": "Ada", "old": {"must": "m"}, "at": "2020-01-01T00:00:00Z"}
        for _ in range(3):
            assert await calls.value(greeter.port, arguments=value, **asked) == value
        assert reflection.asked == 1
    assert calls.texts.asked == []


async def test_reflection_is_believed_for_a_while(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when a method turns out not to be there."""
    files = files_of("greet.proto", ("greet.proto", GREETER), ("kinds.proto", KINDS))
    reflection = reflecting(files)

    async def unimplemented(_: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "gone")

    async with serving(Greeter(), more=[reflection.handler]) as greeter:
        asked = {"proto": {"uri": f"grpc://127.0.0.1:{greeter.port}/"}}
        await calls.value(greeter.port, **asked)
        greeter.answer = unimplemented
        assert (await calls.failure(greeter.port, **asked)).status == 501
        greeter.answer = None
        await calls.value(greeter.port, **asked)
        assert reflection.asked == 2
        monkeypatch.setattr(limits, "GRPC_REFLECTED_S_MAX", 0)
        await calls.value(greeter.port, **asked)
        assert reflection.asked == 3


async def test_reflection_that_fails(calls: Calls) -> None:
    files = files_of("greet.proto", ("greet.proto", GREETER), ("kinds.proto", KINDS))
    async with serving(Greeter()) as greeter:
        uri = f"grpc://127.0.0.1:{greeter.port}"
        without = await calls.failure(greeter.port, proto={"uri": uri})
        assert (without.type, without.status, without.title) == ("configuration", 501, "No Reflection")
    async with serving(Greeter(), more=[reflecting(files).handler]) as greeter:
        uri = f"grpc://127.0.0.1:{greeter.port}"
        unknown = await calls.failure(greeter.port, proto={"uri": uri}, service={"name": "un.known"})
        assert unknown.type == "configuration"
        assert "the server has no service un.known; it has app.greet.Greeter" in unknown.detail
    away = await calls.failure(1, proto={"uri": uri})
    assert (away.type, away.status) == ("communication", 503)
    assert f"reflection of 127.0.0.1:{greeter.port}" in away.detail


@pytest.mark.parametrize("lie", ["nothing", "garbage", "endless", "circle", "unrelated", "silent", "own"])
async def test_servers_that_lie_about_themselves(lie: str) -> None:
    files = files_of("greet.proto", ("greet.proto", GREETER), ("kinds.proto", KINDS))
    async with (
        serving(Greeter(), more=[reflecting(files, lie=lie).handler]) as greeter,
        calling(http_timeout_s=20) as calls,
    ):
        proto = {"uri": f"grpc://127.0.0.1:{greeter.port}"}
        failure = await calls.failure(greeter.port, proto=proto, arguments={"at": "2020-01-01T00:00:00Z"})
        assert failure.type in ("configuration", "communication", "validation")
        assert failure.title in ("Malformed Response", "Invalid Proto", "Invalid gRPC Call"), described(failure)


async def test_who_asks_by_reflection_proves_it_as_the_call_does(calls: Calls) -> None:
    """Unless the resource has a policy of its own, or it is another server."""
    files = files_of("greet.proto", ("greet.proto", GREETER), ("kinds.proto", KINDS))
    reflection = reflecting(files)
    async with serving(Greeter(), more=[reflection.handler]) as greeter, serving(Greeter()) as other:
        uri = f"grpc://127.0.0.1:{greeter.port}"
        policy = {"bearer": {"token": "token-of-task"}}
        await calls.value(greeter.port, proto={"uri": uri}, authentication=policy)
        await calls.value(other.port, proto={"uri": uri}, authentication=policy)
        own = {"uri": uri, "authentication": {"bearer": {"token": "token-of-proto"}}}
        await calls.value(greeter.port, proto=own, authentication=policy)
        assert reflection.authorizations == ["Bearer token-of-task", None, "Bearer token-of-proto"]
        assert other.metadata[-1]["authorization"] == "Bearer token-of-task"


async def test_reflection_over_tls() -> None:
    whole = (CERTIFICATES / "server.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(whole, whole)])
    trust = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    files = files_of("greet.proto", ("greet.proto", GREETER), ("kinds.proto", KINDS))
    around = {"ssl_context": trust, "resolver": Resolver(["127.0.0.1"])}
    server = serving(Greeter(), credentials=credentials, more=[reflecting(files).handler])
    async with server as greeter, calling(around=around) as calls:
        asked = {"service": {"host": "localhost"}, "arguments": {"name": "sealed"}}
        uri = f"grpcs://localhost:{greeter.port}"
        assert await calls.value(greeter.port, proto={"uri": uri}, **asked) == {"name": "sealed"}


# --- pools ---


async def test_descriptions_share_no_names_with_each_other_or_with_the_runner(greeter: Greeter) -> None:
    other = GREETER.replace("string name = 1;", "int32 name = 1;")
    async with calling(Texts(**{"file://other/greet.proto": other, "file://other/kinds.proto": KINDS})) as calls:
        await calls.value(greeter.port, arguments={"name": "text"})
        files = files_of("greet.proto", ("greet.proto", other), ("kinds.proto", KINDS))
        async with serving(Greeter(), files) as second:
            proto = {"uri": "file://other/greet.proto"}
            assert await calls.value(second.port, proto=proto, arguments={"name": 3}) == {"name": 3}
        await calls.value(greeter.port, arguments={"name": "text"})
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("greet.proto")
