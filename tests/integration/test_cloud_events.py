"""CloudEvents into a real runner: over gRPC, over HTTP in all modes, by real senders, the command, through deaths."""

import asyncio
import base64
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import events_pb2 as e
from fastrunner.access.callers import line_of
from fastrunner.access.sealing import add_key
from fastrunner.base import limits
from fastrunner.engine.embedded.store.seals import DataKeys, Seals
from fastrunner.events.bus import EventBus, StoredEvent
from fastrunner.service.methods import COMMAND_SERVICE, spellings
from tests.integration.commands import fastrunner
from tests.integration.runner_process import SERVE, RunnerProcess, running, until
from tests.outside import require_tool

SEND = f"/{COMMAND_SERVICE}/SendEvents"
LEAST = {"specversion": "1.0", "source": "/orders", "type": "order.placed"}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("cloud_events") / "data", SERVE) as runner:
        yield runner.wait_ready()


def stored(folder: Path, keys: DataKeys | None = None) -> dict[tuple[str, str], StoredEvent]:
    """What a runner keeps, by source and id, in its order; read as another process of it does."""
    found = {}
    bus = EventBus(folder, lambda: None, Seals(keys), 600.0)
    after = 0
    while page := bus.after(after, 1_000):
        for each in page:
            assert (each.event["source"], each.event["id"]) not in found
            found[each.event["source"], each.event["id"]] = each
        after = page[-1].key
    asyncio.run(bus.close())
    return found


def kept(runner: RunnerProcess, event_id: str, source: str = "/orders") -> dict[str, Any]:
    return stored(runner.data_dir)[source, event_id].event


def send(target: str, events: list[e.CloudEvent], path: str = SEND, token: str = "") -> int:
    with grpc.insecure_channel(target) as channel:
        invoke = channel.unary_unary(
            path, e.SendEventsRequest.SerializeToString, response_deserializer=e.SendEventsResponse.FromString
        )
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        reply: e.SendEventsResponse = invoke(e.SendEventsRequest(events=events), timeout=30, metadata=metadata)
        return reply.accepted_count


def message(event_id: str, **more: Any) -> e.CloudEvent:
    return e.CloudEvent(id=event_id, source="/orders", spec_version="1.0", type="order.placed", **more)


def refusal(target: str, events: list[e.CloudEvent]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refused:
        send(target, events)
    return refused.value.code(), str(refused.value.details())


def post(
    runner: RunnerProcess, body: bytes, headers: dict[str, str], path: str = "/events"
) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers of an answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{runner.ports['http_port']}{path}", data=body, headers=headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode(), dict(reply.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


# --- gRPC ---


def test_every_type_of_attribute_and_of_data(runner: RunnerProcess) -> None:
    when = Timestamp()
    when.FromJsonString("2026-01-31T12:00:00.5Z")
    values = {
        "flag": e.CloudEventAttributeValue(ce_boolean=False),
        "count": e.CloudEventAttributeValue(ce_integer=-5),
        "subject": e.CloudEventAttributeValue(ce_string="ä"),
        "raw": e.CloudEventAttributeValue(ce_bytes=b"\x00\xff"),
        "dataschema": e.CloudEventAttributeValue(ce_uri="https://schema.example/x"),
        "link": e.CloudEventAttributeValue(ce_uri_ref="/x"),
        "time": e.CloudEventAttributeValue(ce_timestamp=when),
    }

    def typed(media_type: str) -> dict[str, e.CloudEventAttributeValue]:
        return {"datacontenttype": e.CloudEventAttributeValue(ce_string=media_type)}

    packed = AnyMessage(type_url="type.googleapis.com/shop.Order", value=b"\x08\x01")
    events = [
        message("g-1", attributes=values),
        message("g-2", text_data='{"a": [1, 2.5]}'),
        message("g-3", text_data="no JSON"),
        message("g-4", text_data="<a/>", attributes=typed("application/xml")),
        message("g-5", binary_data=b'{"a": 1}', attributes=typed("application/vnd.x+json")),
        message("g-6", binary_data=b"\x00\x01"),
        message("g-7", binary_data="ä".encode(), attributes=typed("text/plain")),
        message("g-8", proto_data=packed),
        message("g-9", proto_data=packed, attributes=typed("application/x-protobuf")),
        message("g-10", text_data="5", attributes=typed("text/plain")),
    ]
    assert send(runner.target, events) == 10
    found = {key[1]: each.event for key, each in stored(runner.data_dir).items()}
    assert found["g-1"] == LEAST | {
        "id": "g-1",
        "flag": False,
        "count": -5,
        "subject": "ä",
        "raw": "AP8=",
        "link": "/x",
        "dataschema": "https://schema.example/x",
        "time": "2026-01-31T12:00:00.500Z",
    }
    contents = {
        event_id: {name: event[name] for name in event if name not in ("id", *LEAST)}
        for event_id, event in found.items()
    }
    assert contents["g-2"] == {"data": {"a": [1, 2.5]}}
    assert contents["g-3"] == {"data": "no JSON"}
    assert contents["g-4"] == {"datacontenttype": "application/xml", "data": "<a/>"}
    assert contents["g-5"] == {"datacontenttype": "application/vnd.x+json", "data": {"a": 1}}
    assert contents["g-6"] == {"data_base64": "AAE="}
    assert contents["g-7"] == {"datacontenttype": "text/plain", "data": "ä"}
    schema = {"data_base64": "CAE=", "dataschema": "https://type.googleapis.com/shop.Order"}
    assert contents["g-8"] == schema | {"datacontenttype": "application/protobuf"}
    assert contents["g-9"] == schema | {"datacontenttype": "application/x-protobuf"}
    assert contents["g-10"] == {"datacontenttype": "text/plain", "data": "5"}


def test_every_spelling(runner: RunnerProcess) -> None:
    for number, name in enumerate(spellings("SendEvents")):
        assert send(runner.target, [message(f"s-{number}")], f"/{COMMAND_SERVICE}/{name}") == 1
    assert send(runner.target, []) == 0


Value = e.CloudEventAttributeValue
JSON_TYPE = {"datacontenttype": Value(ce_string="text/json")}
NEVER = Value(ce_timestamp=Timestamp(seconds=2**50))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (e.CloudEvent(), "events[1].specversion is ''"),
        (message(""), "events[1].id is missing"),
        (message("x", attributes={"id": Value(ce_string="y")}), "'id', which is a field of its own"),
        (message("x", attributes={"subject": Value()}), "events[1].attributes['subject'] has no value"),
        (message("x", attributes={"time": NEVER}), "events[1].attributes['time'] is no time"),
        (message("x", text_data="{", attributes=JSON_TYPE), "is not JSON, though its datacontenttype is text/json"),
    ],
)
def test_what_is_no_event_is_refused(runner: RunnerProcess, event: e.CloudEvent, words: str) -> None:
    """And takes the others of its request along."""
    code, text = refusal(runner.target, [message("r-0"), event])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in text
    assert ("/orders", "r-0") not in stored(runner.data_dir)


def test_requests_over_their_bounds(runner: RunnerProcess) -> None:
    events = [message(f"b-{number}") for number in range(limits.EVENTS_BATCH_COUNT_MAX + 1)]
    code, text = refusal(runner.target, events)
    assert (code, text) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"{len(events)} events at once: at most {limits.EVENTS_BATCH_COUNT_MAX} are taken; send several requests",
    )
    assert send(runner.target, events[1:]) == limits.EVENTS_BATCH_COUNT_MAX
    code, text = refusal(runner.target, [message("large", text_data="x" * limits.EVENT_SIZE_BYTES_MAX)])
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "put what is large elsewhere" in text
    # One of several that are too many over HTTP, too.
    batch = json.dumps([LEAST | {"id": f"b-{number}"} for number in range(len(events))]).encode()
    status, text, _ = post(runner, batch, {"Content-Type": "application/cloudevents-batch+json"})
    assert (status, f"at most {limits.EVENTS_BATCH_COUNT_MAX} are taken" in text) == (413, True)


def test_grpcurl_sends_events(runner: RunnerProcess) -> None:
    request = {"events": [{"id": "u-1", "source": "/orders", "spec_version": "1.0", "type": "order.placed"}]}
    command = [require_tool("grpcurl"), "-plaintext", "-d", json.dumps(request), runner.target, SEND[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout) == {"acceptedCount": 1}, done.stderr
    assert kept(runner, "u-1") == LEAST | {"id": "u-1"}


# --- HTTP ---


def sdk_event(event_id: str, data: Any = None, **more: Any) -> SdkEvent:
    return SdkEvent({**LEAST, "id": event_id, "time": datetime(2026, 1, 31, 12, tzinfo=UTC), **more}, data)


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize(
    ("data", "media_type", "expected"),
    [
        ({"order": 7, "note": "ä €"}, "application/json", {"data": {"order": 7, "note": "ä €"}}),
        ("<a/>", "text/xml", {"data": "<a/>"}),
        (b"\x00\xff", "application/octet-stream", {"data_base64": "AP8="}),
    ],
)
def test_the_sdk_sends_events(
    runner: RunnerProcess, mode: str, data: Any, media_type: str, expected: dict[str, Any]
) -> None:
    event_id = f"sdk-{mode}-{media_type}"
    event = sdk_event(event_id, data, datacontenttype=media_type, subject="a b ä%", ordernumber="12")
    sent = to_binary_event(event) if mode == "binary" else to_structured_event(event)
    body = sent.body if isinstance(sent.body, bytes) else sent.body.encode()
    status, text, headers = post(runner, body, dict(sent.headers))
    assert (status, json.loads(text), headers["Content-Type"]) == (202, {"accepted_count": 1}, "application/json")
    assert kept(runner, event_id) == LEAST | expected | {
        "id": event_id,
        "datacontenttype": media_type,
        "subject": "a b ä%",
        "ordernumber": "12",
        "time": "2026-01-31T12:00:00Z",
    }


def test_the_sdk_sends_a_batch(runner: RunnerProcess) -> None:
    events = [json.loads(JSONFormat().write(sdk_event(f"batch-{number}", {"n": number}))) for number in range(5)]
    headers = {"Content-Type": "application/cloudevents-batch+json; charset=UTF-8"}
    assert post(runner, json.dumps(events).encode(), headers)[:2] == (202, '{"accepted_count":5}\n')
    found = stored(runner.data_dir)
    numbers = [found["/orders", f"batch-{number}"] for number in range(5)]
    assert [each.event["data"] for each in numbers] == [{"n": number} for number in range(5)]
    assert [each.key for each in numbers] == sorted(each.key for each in numbers)
    assert post(runner, b"[]", headers)[:2] == (202, '{"accepted_count":0}\n')


CURL = {
    "binary": [
        *("-H", "ce-specversion: 1.0", "-H", "CE-ID: curl-binary", "-H", "ce-source: /orders"),
        *("-H", "ce-type: order.placed"),
        *("-H", "ce-subject: Euro%20%E2%82%AC", "-H", "Content-Type: application/json", "-d", '{"a": 1}'),
    ],
    "structured": [
        *("-H", "Content-Type: application/cloudevents+json", "-d"),
        json.dumps(LEAST | {"id": "curl-structured", "subject": "Euro €", "data": {"a": 1}}),
    ],
    "batch": [
        *("-H", "Content-Type: application/cloudevents-batch+json", "-d"),
        json.dumps([LEAST | {"id": "curl-batch", "subject": "Euro €", "data": {"a": 1}}]),
    ],
}


@pytest.mark.parametrize("mode", CURL)
@pytest.mark.parametrize("more", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]])
def test_curl_sends_events(runner: RunnerProcess, mode: str, more: list[str]) -> None:
    """The same again is a duplicate."""
    url = f"http://127.0.0.1:{runner.ports['http_port']}/events"
    command = [require_tool("curl"), "-sS", "-w", " %{http_code}", *more, *CURL[mode], url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == '{"accepted_count":1}\n 202', done.stderr
    media_type = {"datacontenttype": "application/json"} if mode == "binary" else {}
    assert kept(runner, f"curl-{mode}") == LEAST | media_type | {
        "id": f"curl-{mode}",
        "subject": "Euro €",
        "data": {"a": 1},
    }


BINARY = {"ce-specversion": "1.0", "ce-id": "h-1", "ce-source": "/orders", "ce-type": "order.placed"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        ({"Content-Type": "application/json"}, b"{}", 415, "this is no CloudEvent: send an event with Content-Type"),
        (
            {"Content-Type": "application/cloudevents+avro"},
            b"",
            415,
            "Content-Type application/cloudevents+avro is not",
        ),
        (STRUCTURED, b"{", 400, "the body is not JSON"),
        (STRUCTURED, b"[]", 400, "events[0] is no CloudEvent: expected a JSON object"),
        (STRUCTURED, b"{}", 400, "events[0].specversion is None: it must be"),
        ({"Content-Type": "application/cloudevents-batch+json"}, b"{}", 400, "the body is no batch"),
        ({"Content-Type": "application/cloudevents+json; charset=iso-8859-1"}, b"{}", 415, "charset iso-8859-1"),
        (STRUCTURED | {"Content-Encoding": "gzip"}, b"{}", 415, "Content-Encoding gzip is not taken"),
        (BINARY | {"ce-time": "yesterday"}, b"", 400, "events[0].time is 'yesterday'"),
        (BINARY | {"ce-data": "x"}, b"", 400, "the header ce-data is not taken"),
        (BINARY | {"ce-subject": "%ff"}, b"", 400, "the header ce-subject is not UTF-8"),
        (BINARY | {"ce-some_thing": "x"}, b"", 400, "has an attribute 'some_thing'"),
        (BINARY | {"Content-Type": "application/json"}, b"{", 400, "events[0].data is not JSON"),
        (BINARY, b"x" * limits.EVENT_SIZE_BYTES_MAX, 413, "put what is large elsewhere"),
        (BINARY, b"x" * (limits.EVENTS_REQUEST_SIZE_BYTES_MAX + 1), 413, "the body is larger than"),
    ],
)
def test_requests_that_are_refused(
    runner: RunnerProcess, headers: dict[str, str], body: bytes, status: int, words: str
) -> None:
    try:
        answered, text, _ = post(runner, body, headers)
    except urllib.error.URLError:
        # The answer came, and the end of the connection, while the body was still being sent.
        assert len(body) > limits.EVENTS_REQUEST_SIZE_BYTES_MAX
        return
    assert answered == status
    assert words in text
    assert text.count("\n") == 1
    assert ("/orders", "h-1") not in stored(runner.data_dir)


def test_other_requests(runner: RunnerProcess) -> None:
    assert runner.get("/events")[0] == 405
    assert "/events" in json.loads(runner.get("/")[1])["paths"]


def raw(runner: RunnerProcess, request: bytes) -> bytes:
    """What is answered until the connection ends."""
    with socket.create_connection(("127.0.0.1", runner.ports["http_port"]), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def test_bodies_that_do_not_end(tmp_path: Path) -> None:
    """One that is larger than may be, or never comes, is given up; those that are on their way are bounded; and probes
    are answered meanwhile."""
    script = (
        "import runpy\nfrom fastrunner.base import limits\nlimits.EVENTS_REQUEST_S_MAX = 1.0\n"
        "limits.EVENTS_REQUESTS_SIZE_BYTES_MAX = limits.EVENTS_REQUEST_SIZE_BYTES_MAX + 100\n"
        "runpy.run_module('fastrunner', run_name='__main__')\n"
    )
    head = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/cloudevents+json\r\n"
    with running(tmp_path / "data", ("-c", script, "serve")) as runner:
        runner.wait_ready()
        endless = b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        assert b" 413 " in raw(runner, head + endless + (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 4)
        with socket.create_connection(("127.0.0.1", runner.ports["http_port"]), timeout=30) as slow:
            slow.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            until(lambda: post(runner, json.dumps(LEAST | {"data": "x" * 200}).encode(), STRUCTURED)[0] == 503)
            assert runner.get("/healthz")[0] == 200
            assert b" 408 " in slow.recv(65536)
        status, _, _ = post(runner, json.dumps(LEAST | {"id": "1", "data": "x" * 200}).encode(), STRUCTURED)
        assert status == 202


# --- who may ---


def test_whose_workflows_events_reach(tmp_path: Path) -> None:
    """A caller that is confined to namespaces sends to those; others must have the role. Each request is told."""
    callers, audit = tmp_path / "callers", tmp_path / "audit"
    callers.write_text(
        "\n".join(
            [
                line_of("shop", "submit", "shop,bank", "shop-token"),
                line_of("all", "submit", "", "all-token"),
                line_of("reader", "read,control", "", "read-token"),
            ]
        )
        + "\n"
    )
    settings = {"FASTRUNNER_CALLERS_FILE": str(callers), "FASTRUNNER_AUDIT_FILE": str(audit)}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        runner.wait_ready()
        body = json.dumps(LEAST | {"id": "http"}).encode()
        assert send(runner.target, [message("shop"), message("other")], token="shop-token") == 2
        assert send(runner.target, [message("all")], token="all-token") == 1
        with pytest.raises(grpc.RpcError) as refused:
            send(runner.target, [message("read")], token="read-token")
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        statuses = [
            post(runner, body, STRUCTURED | authorization)[0]
            for authorization in (
                {},
                {"Authorization": "Bearer nobody"},
                {"Authorization": "Bearer read-token"},
                {"Authorization": "Bearer shop-token"},
            )
        ]
        assert statuses == [401, 401, 403, 202]
        assert post(runner, b"{}", STRUCTURED | {"Authorization": "Bearer all-token"})[0] == 400
        found = stored(runner.data_dir)
        reached = {event_id: each.namespaces for (_, event_id), each in found.items()}
        confined = frozenset(("shop", "bank"))
        assert reached == {"shop": confined, "other": confined, "all": None, "http": confined}
        until(lambda: len(audit.read_text().splitlines()) == 5)
    told = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [[line["caller"], line["method"], line.get("events"), line["outcome"]] for line in told] == [
        ["token:shop", "SendEvents", 2, "OK"],
        ["token:all", "SendEvents", 1, "OK"],
        ["token:reader", "SendEvents", None, "PERMISSION_DENIED"],
        ["token:shop", "POST /events", 1, "OK"],
        ["token:all", "POST /events", 1, "400"],
    ]


# --- deaths and seals ---


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_that_dies_before_it_answers(tmp_path: Path, workers: str) -> None:
    """What it has written is there; the sender sends it again, and it is there once."""
    settings = {"FASTRUNNER_WORKERS": workers, "FASTRUNNER_CRASH_POINT": "after-events-commit:2"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        runner.wait_ready()
        codes: list[grpc.StatusCode] = []

        def sent(number: int) -> bool:
            try:
                return send(runner.target, [message(f"{number}"), message(f"{number}b")]) == 2
            except grpc.RpcError as error:
                codes.append(error.code())
                return False

        for number in range(40):
            until(lambda number=number: sent(number))  # type: ignore[misc]
        assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
        found = [event_id for _, event_id in stored(runner.data_dir)]
        assert found == [event_id for number in range(40) for event_id in (f"{number}", f"{number}b")]
        assert runner.metric('workflow_runner_cloud_events_published_total{outcome="duplicate"}') >= 2
        assert runner.stop()[0] == 0
    assert len(stored(tmp_path / "data")) == 80


def test_a_sealed_runner(tmp_path: Path) -> None:
    """Nothing of an event is readable on disk, whichever way it came."""
    add_key(tmp_path / "key", "first")
    with running(tmp_path / "data", SERVE, FASTRUNNER_DATA_KEY_FILE=str(tmp_path / "key")) as runner:
        runner.wait_ready()
        send(runner.target, [message("secret-1", text_data="secret data")])
        event = LEAST | {"id": "secret-2", "data": "secret data", "type": "secret.type"}
        assert post(runner, json.dumps(event).encode(), STRUCTURED)[0] == 202
        assert not [path for path in runner.data_dir.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
        found = stored(runner.data_dir, DataKeys.read(tmp_path / "key"))
    assert [each.event["data"] for each in found.values()] == ["secret data", "secret data"]


# --- the command ---


def command(runner: RunnerProcess, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return fastrunner("send-event", *arguments, "--target", runner.target, text=stdin)


def test_the_command_sends_an_event(runner: RunnerProcess) -> None:
    options = ["--type", "order.placed", "--source", "/cli", "--id", "c-1", "--subject", "x", "--attribute", "who=me"]
    done = command(runner, *options, "--data", '{"order": 7}')
    assert (done.returncode, done.stdout) == (0, "c-1\n"), done.stderr
    event = kept(runner, "c-1", "/cli")
    assert abs((datetime.fromisoformat(event.pop("time")) - datetime.now(UTC)).total_seconds()) < 60
    expected = {**LEAST, "source": "/cli", "id": "c-1", "subject": "x", "who": "me", "data": {"order": 7}}
    assert event == expected
    made = command(runner, "--type", "order.placed", "--json")
    assert made.returncode == 0, made.stderr
    shown = json.loads(made.stdout)
    assert kept(runner, shown["id"], "/fastrunner/cli") == shown


def test_the_command_sends_what_is_in_a_file(runner: RunnerProcess, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = [
        {"type": "order.placed", "id": "f-1", "data": "text", "count": 5, "flag": True, "subject": None},
        {"type": "order.placed", "id": "f-2", "data": "<a/>", "datacontenttype": "application/xml"},
        {"type": "order.placed", "id": "f-3", "data_base64": base64.b64encode(b"\x00").decode()},
        {"id": "f-4", "data": None, "time": "2026-01-31T12:00:00Z", "source": "/own"},
    ]
    file = tmp_path / "events.json"
    file.write_text(json.dumps(events))
    done = command(runner, str(file), "--source", "/file", "--type", "order.filed")
    assert (done.returncode, done.stdout) == (0, "f-1\nf-2\nf-3\nf-4\n"), done.stderr
    found = {key[1]: each.event for key, each in stored(runner.data_dir).items()}
    for event in (found["f-1"], found["f-2"], found["f-3"]):
        assert event.pop("time")
    filed = {"specversion": "1.0", "source": "/file"}
    assert found["f-1"] == {name: value for name, value in events[0].items() if value is not None} | filed
    assert found["f-2"] == events[1] | filed
    assert found["f-3"] == events[2] | filed
    assert found["f-4"] == events[3] | {"specversion": "1.0", "type": "order.filed"}
    piped = command(runner, "-", stdin=json.dumps(events[3] | {"id": "f-5", "type": "x"}))
    assert (piped.returncode, piped.stdout) == (0, "f-5\n"), piped.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        ([], "", 2, "say what happened: --type, or the FILE of an event"),
        (["--type", "x", "--data", "{"], "", 2, "--data: not JSON"),
        (["-"], "{", 2, "not JSON"),
        (["-"], "[5]", 2, "event 0 is no JSON object"),
        (["-", "--id", "1"], "[{}, {}]", 2, "several events cannot have one id"),
        (["-"], '{"data_base64": "?"}', 2, "data_base64 of event 0 is no base64"),
        (["-"], '{"type": 5}', 2, "type of event 0 is no text"),
        (["-"], '{"count": 4294967296}', 2, "count of event 0 has more than 32 bits"),
        (["-"], '{"id": "1"}', 4, "events[0].type is missing"),
        (["--type", "x", "--source", "a b"], "", 4, "events[0].source is 'a b': it must be a URI reference"),
    ],
)
def test_what_the_command_refuses(
    runner: RunnerProcess, arguments: list[str], stdin: str, code: int, words: str
) -> None:
    done = command(runner, *arguments, stdin=stdin)
    assert done.returncode == code
    assert words in done.stderr.replace("\n", " ")
