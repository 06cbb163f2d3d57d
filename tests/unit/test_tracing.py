"""What is traced, piece by piece: headers, decisions, ids, the queue to the collector, settings; and what is not, costs
nothing."""

import asyncio
import dataclasses
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from fastrunner.base import limits
from fastrunner.base.redaction import hide
from fastrunner.config import ConfigurationError, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.commit.spans import ShardSpans
from fastrunner.tracing.context import CURRENT, TraceContext, current_headers
from fastrunner.tracing.execution import ExecutionTrace
from fastrunner.tracing.kept import SpanFile
from fastrunner.tracing.span import Span
from fastrunner.tracing.tracer import TAKEN, Answer, Sampler, Tracer, new_tracer
from tests.integration.otlp import Collector, collecting

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"
ENDPOINT = "http://127.0.0.1:4317"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        HEADER[:-1],
        HEADER.upper(),
        HEADER + "-more",
        "ff" + HEADER[2:],
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        HEADER.replace("4bf", "4bg"),
    ],
)
def test_what_is_no_place_in_a_trace_is_none(header: str) -> None:
    assert TraceContext.read(header, "a=b") is None


def test_a_place_in_a_trace_is_read_and_passed_on() -> None:
    context = TraceContext.read(HEADER, "a=b,c=d")
    assert context == TraceContext(TRACE, PARENT, True, "a=b,c=d")
    assert context is not None
    assert dict(context.headers) == {"traceparent": HEADER, "tracestate": "a=b,c=d"}
    # A later version may say more, after what this one knows.
    later = TraceContext.read(f"01-{TRACE}-{PARENT}-03-more", "a\x00")
    assert later == TraceContext(TRACE, PARENT, True)
    long = TraceContext.read(HEADER, "a=" + "b" * limits.TRACE_STATE_SIZE_CHARS_MAX)
    assert long is not None
    assert long.state == ""
    assert current_headers() == ()
    assert TraceContext.sent([HEADER], ["a=b", "c=d"]) == context
    assert TraceContext.sent([HEADER, HEADER], []) is None
    assert TraceContext.sent([], ["a=b"]) is None
    CURRENT.set(context)
    assert current_headers() == context.headers


@given(st.text(max_size=30), st.booleans(), st.integers(0, 2**40), st.sampled_from(["", "a=b c,d=e"]), st.booleans())
def test_what_is_stored_comes_back(name: str, sampled: bool, at_ms: int, state: str, has_caller: bool) -> None:
    context = TraceContext(TRACE, PARENT if has_caller else "0" * 16, sampled, state)
    trace = ExecutionTrace(name, context, at_ms)
    back = ExecutionTrace.stored(trace.text, name)
    assert back is not None
    assert (back.context, back.root_id, back.text) == (context, trace.root_id, trace.text)
    assert ExecutionTrace.stored(trace.text[1:], name) is None
    trace.workflow = back.workflow = ("n", "w", "1")
    for each in (trace, back):
        each.ended("failed", {"type": "https://a.test/made/of/data", "status": 400}, at_ms + 5)
        each.ended("failed", None, at_ms + 9)
    spans = trace.gather()
    assert spans == back.gather()
    assert len(spans) == sampled
    assert [Span.decoded(span.encoded()) for span in spans] == list(spans)
    assert [span.error for span in spans] == ["custom"] * sampled


def test_an_effect_of_a_walk_whose_clock_is_behind() -> None:
    """It began when it did by the clock of others, and one that was performed in vain before is resumed."""
    trace = ExecutionTrace("e", TraceContext(TRACE, PARENT, True), 0)
    effect = SimpleNamespace(effect_id=1, kind="call_http", reference="/do/0/ask", capsule=SimpleNamespace(now_ms=5))
    trace.asked(effect, is_again=False, behind_ms=7)
    trace.resumed(1)
    trace.resumed(2)
    trace.answered(1, None, 20)
    [span] = trace.gather()
    assert (span.began_ms, span.ended_ms, span.attributes["fastrunner.effect.resumed"]) == (12, 20, True)


def test_one_whose_row_tells_its_span_tells_what_it_had_asked_for() -> None:
    trace = ExecutionTrace("some", TraceContext(TRACE, PARENT, True), 1_000)
    effect = SimpleNamespace(
        effect_id=3, kind="call_http", reference="/do/0/slow", capsule=SimpleNamespace(now_ms=1_001)
    )
    trace.asked(effect, is_again=False)
    trace.ended_by_row(1_002)
    (given_up,) = trace.gather()
    assert (given_up.name, given_up.error, given_up.ended_ms) == ("call_http slow", "interrupted", 1_002)
    trace.ended("completed", None, 1_002)
    assert trace.gather() == ()
    ((told, *rest),) = ExecutionTrace.unpacked(trace.packed(7, 1_003, 1_002))
    assert rest == [7, 1_003, 1_002]
    told.ended("completed", None, 1_002)
    (root,) = told.gather()
    assert (root.span_id, root.name) == (trace.root_id, "execute")


def test_deliveries_of_the_same_events_are_one_unless_they_are_told_apart() -> None:
    trace = ExecutionTrace("e", TraceContext(TRACE, PARENT, True), 0)
    ids = [trace.callback(first, 9, 0, 1, None, attempt).span_id for first, attempt in ((1, ""), (1, ""), (1, "2"))]
    assert ids[0] == ids[1] != ids[2]


def test_a_span_that_is_damaged_is_none() -> None:
    for data in (b"", b"[]", b"{}", b'{"trace_id": 1}'):
        with pytest.raises(ValueError, match=r".+"):
            Span.decoded(data)


def test_attributes_are_bounded() -> None:
    trace = ExecutionTrace("e" * 2 * limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX, TraceContext(TRACE, PARENT, True), 0)
    trace.ended("completed", None, 1)
    [span] = trace.gather()
    assert len(str(span.attributes["fastrunner.execution.id"])) == limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX


@pytest.mark.parametrize(
    ("type_", "is_shown"),
    [
        ("https://open-workflow-specification.org/spec/1.0.0/errors/timeout", True),
        ("https://serverlessworkflow.io/dsl/errors/types/communication", True),
        ("communication", True),
        ("hunter", False),
        ("https://serverlessworkflow.io/hunter", False),
        ("https://open-workflow-specification.org/spec/1.0.0/errors/timeout/hunter", False),
    ],
)
def test_types_of_errors_that_may_be_made_of_data_are_not_shown(type_: str, is_shown: bool) -> None:
    trace = ExecutionTrace("e", TraceContext(TRACE, PARENT, True), 0)
    trace.ended("failed", {"type": type_, "status": 400}, 1)
    assert [span.error for span in trace.gather()] == [type_ if is_shown else "custom"]


def test_what_is_secret_is_hidden_before_it_is_cut() -> None:
    """In names, too; a secret that lies across the bound is not shown in part."""
    secret = "a-secret-that-must-not-be-shown"
    hide(secret)
    long = "e" * (limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX - 5) + secret
    for execution_id in (long, secret):
        trace = ExecutionTrace(execution_id, TraceContext(TRACE, PARENT, True), 0)
        trace.workflow = ("n", f"{secret}-{'x' * limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX}", "1")
        trace.ended("completed", None, 1)
        [span] = trace.gather()
        assert secret[:5] not in span.name + str(span.attributes)
        assert len(span.name) <= limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX


def test_decisions() -> None:
    on, off = TraceContext(TRACE, PARENT, True), TraceContext(TRACE, PARENT, False)
    by_parent, by_ratio = Sampler(ratio=0.0, is_parent_based=True), Sampler(ratio=0.0, is_parent_based=False)
    assert by_parent.decide(None) is None
    assert by_parent.decide(on) == on
    assert by_parent.decide(off) == off
    assert by_ratio.decide(on) == off
    assert Sampler(ratio=1.0, is_parent_based=False).decide(off) == on
    # From the trace's id alone, as OpenTelemetry's own sampler decides.
    bound = int(TRACE[16:], 16) / 2**64
    assert Sampler(ratio=bound + 0.001, is_parent_based=False).decide(off) == on
    assert Sampler(ratio=bound - 0.001, is_parent_based=False).decide(on) == off
    alone = [Sampler(ratio=0.25, is_parent_based=True).decide(None) for _ in range(4000)]
    assert 800 < sum(each is not None for each in alone) < 1200
    assert all(each.is_sampled and int(each.trace_id[16:], 16) < 2**62 for each in alone if each is not None)


class Exports:
    """Takes spans, unless it is away."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.is_away = False

    def export(self, spans: Sequence[Span]) -> Answer:
        if self.is_away:
            return Answer(False, 0, "away")
        self.batches.append(len(spans))
        return TAKEN

    def close(self) -> None:
        self.is_away = True


def spans(count: int) -> list[Span]:
    return [Span(TRACE, f"{number + 1:016x}", PARENT, "", "s", "internal", 0, 1) for number in range(count)]


async def test_the_queue_is_bounded_and_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRACE_EXPORT_DELAY_S", 0.01)
    monkeypatch.setattr(limits, "TRACE_RETRY_PAUSE_S", 0.01)
    exports, metrics = Exports(), Metrics()
    settled: list[str] = []
    exports.is_away = True
    tracer = Tracer(Sampler(ratio=1, is_parent_based=True), lambda: exports, metrics)
    tracer.offer(spans(limits.TRACE_QUEUE_SPANS_MAX + 7), settled.append)
    assert len(settled) == metrics.spans.labels("dropped").value == 7
    await _until(lambda: metrics.spans.labels("failed").value > limits.TRACE_BATCH_SPANS_MAX)
    assert metrics.spans_queued.value == limits.TRACE_QUEUE_SPANS_MAX
    exports.is_away = False
    await _until(lambda: metrics.spans.labels("exported").value == limits.TRACE_QUEUE_SPANS_MAX)
    assert max(exports.batches) == limits.TRACE_BATCH_SPANS_MAX
    assert len(set(settled)) == len(settled) == limits.TRACE_QUEUE_SPANS_MAX + 7
    await tracer.close(5)


async def test_a_worker_that_stops_exports_at_once_and_waits_for_nobody_for_long() -> None:
    exports, metrics = Exports(), Metrics()
    tracer = Tracer(Sampler(ratio=1, is_parent_based=True), lambda: exports, metrics)
    tracer.offer(spans(3))
    async with asyncio.timeout(limits.TRACE_EXPORT_DELAY_S * 30):
        await tracer.close(60)
    assert exports.batches == [3]
    away = Tracer(Sampler(ratio=1, is_parent_based=True), lambda: exports, metrics)
    exports.is_away = True
    away.offer(spans(3))
    async with asyncio.timeout(30):
        await away.close(60)
    assert metrics.spans.labels("failed").value == 3


async def test_a_collector_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRACE_EXPORT_DELAY_S", 0.01)
    metrics = Metrics()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = load_config(otel_endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracer = new_tracer(config, metrics)
        assert tracer is not None
        with monkeypatch.context() as changed:
            changed.setattr(limits, "TRACE_EXPORT_S_MAX", 0.2)
            tracer.offer(spans(2))
            await _until(lambda: metrics.spans.labels("failed").value >= 2)
            await tracer.close(60)
        tracer = new_tracer(config, metrics)
        assert tracer is not None
        changed.setattr(limits, "TRACE_DRAIN_S_MAX", 0.2)
        tracer.offer(spans(2))
        async with asyncio.timeout(limits.TRACE_EXPORT_S_MAX - 1):
            await tracer.close(60)


@contextmanager
def tracing(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Tracer, Metrics]]:
    monkeypatch.setattr(limits, "TRACE_EXPORT_DELAY_S", 0.01)
    metrics = Metrics()
    tracer = new_tracer(load_config(otel_endpoint=collector.endpoint), metrics)
    assert tracer is not None
    yield tracer, metrics


def with_details(context: Any, code: grpc.StatusCode, detail: Any) -> None:
    status = Status(code=code.value[0], message="busy")
    status.details.add().Pack(detail)
    context.abort_with_status(rpc_status.to_status(status))


def partly(**said: Any) -> ExportTraceServiceResponse:
    return ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(**said))


def aborts(code: grpc.StatusCode) -> Callable[[Any, Any], Any]:
    return lambda _, context: context.abort(code, "no\n" + "x" * 1000)


@pytest.mark.parametrize(
    ("says", "dropped_count"),
    [
        (aborts(grpc.StatusCode.INVALID_ARGUMENT), 3),
        (aborts(grpc.StatusCode.INTERNAL), 3),
        # Without a word of when to come again: as a request that is too large is answered.
        (aborts(grpc.StatusCode.RESOURCE_EXHAUSTED), 3),
        (lambda *_: partly(rejected_spans=2, error_message="two"), 2),
        (lambda *_: partly(rejected_spans=-7), 0),
        (lambda *_: partly(rejected_spans=1 << 60), 3),
        # A warning, says OTLP: nothing is refused.
        (lambda *_: partly(error_message="deprecated"), 0),
    ],
)
async def test_what_is_refused_for_good_keeps_nothing_from_its_way(
    says: Callable[[Any, Any], Any], dropped_count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[str] = []
    with collecting() as collector, tracing(collector, monkeypatch) as (tracer, metrics):
        collector.says = says
        tracer.offer(spans(3), settled.append)
        await _until(lambda: len(settled) == 3)
        collector.says = None
        tracer.offer(spans(4), settled.append)
        await _until(lambda: len(settled) == 7)
        await tracer.close(5)
    counts = {outcome: metrics.spans.labels(outcome).value for outcome in ("exported", "dropped", "failed")}
    assert counts == {"exported": 7 - dropped_count, "dropped": dropped_count, "failed": 0}


@pytest.mark.parametrize(
    "says",
    [
        aborts(grpc.StatusCode.UNAVAILABLE),
        aborts(grpc.StatusCode.UNAUTHENTICATED),
        aborts(grpc.StatusCode.UNIMPLEMENTED),
        lambda _, context: with_details(
            context, grpc.StatusCode.RESOURCE_EXHAUSTED, RetryInfo(retry_delay={"nanos": 1_000_000})
        ),
    ],
)
async def test_what_cannot_be_taken_for_now_waits(
    says: Callable[[Any, Any], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That it does is told once, in few words, and so is its end."""
    with collecting() as collector, tracing(collector, monkeypatch) as (tracer, metrics):
        collector.says = says
        with caplog.at_level("INFO", "fastrunner.tracing.tracer"):
            tracer.offer(spans(3))
            await _until(lambda: metrics.spans.labels("failed").value >= 9)
            collector.says = None
            await _until(lambda: metrics.spans.labels("exported").value == 3)
        await tracer.close(5)
        assert len(collector.spans()) == 3
    told = [record.getMessage() for record in caplog.records]
    heads = [text.partition(":")[0] for text in told]
    assert heads == ["spans cannot be exported, and wait", "spans are exported again"]
    assert len(told[0]) < 300
    assert "\n" not in told[0]


@pytest.mark.parametrize(("asked_s", "at_least_s"), [(0.3, 0.3), (86_400, 0.4)])
async def test_a_collector_is_left_alone_for_as_long_as_it_asks(
    asked_s: float, at_least_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not for ever."""
    monkeypatch.setattr(limits, "TRACE_RETRY_PAUSE_ASKED_S_MAX", 0.4)
    delay = Duration(seconds=int(asked_s), nanos=round(asked_s % 1 * 1e9))
    asked: list[float] = []

    def say(_: Any, context: Any) -> Any:
        asked.append(time.monotonic())
        if len(asked) == 1:
            with_details(context, grpc.StatusCode.UNAVAILABLE, RetryInfo(retry_delay=delay))
        return ExportTraceServiceResponse()

    with collecting() as collector, tracing(collector, monkeypatch) as (tracer, metrics):
        collector.says = say
        tracer.offer(spans(1))
        await _until(lambda: metrics.spans.labels("exported").value == 1)
        await tracer.close(5)
    assert asked[1] - asked[0] >= at_least_s


async def test_requests_are_of_a_size_that_collectors_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's own bound, 4 MiB, is that of most; the longest there is in every attribute of every span."""
    count = limits.TRACE_BATCH_SPANS_MAX
    long = "\U0001f600" * limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX
    given = {f"a{number}": long for number in range(6)}
    large = [dataclasses.replace(span, name=long, attributes=given) for span in spans(count)]
    with collecting() as collector, tracing(collector, monkeypatch) as (tracer, metrics):
        tracer.offer(large)
        await _until(lambda: metrics.spans.labels("exported").value == count)
        await tracer.close(5)
    assert len(collector.requests) > 1
    assert max(request.ByteSize() for request in collector.requests) <= limits.TRACE_BATCH_SIZE_BYTES_MAX
    assert {span.span_id for span in collector.spans()} == {span.span_id for span in large}


async def test_what_nothing_hangs_on_is_written_only_if_the_collector_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An acceptance that the collector takes in time is never in the file; one that it does not is written once."""
    monkeypatch.setattr(limits, "TRACE_UNKEPT_S_MAX", 0.1)
    due: list[float] = []
    waiting = ShardSpans(lambda: due.append(time.monotonic()))
    quick, slow = spans(2)
    waiting.keep(1, quick)
    assert waiting.take() is None
    waiting.settled(1, quick.span_id)
    assert waiting.take() is None
    began_s = time.monotonic()
    waiting.keep(2, slow)
    assert waiting.take() is None
    await _until(lambda: due and due[-1] - began_s >= 0.1)
    written = waiting.take()
    assert written is not None
    assert (written.kept, written.settled) == ([(2, slow)], [])
    assert waiting.take() is None
    # It is in the file, so the file has to hear that it need not be.
    waiting.settled(2, slow.span_id)
    written = waiting.take()
    assert written is not None
    assert (written.kept, written.settled) == ([], [(2, slow.span_id)])
    waiting.close()


async def test_what_cannot_be_encoded_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector, tracing(collector, monkeypatch) as (tracer, metrics):
        tracer.offer([dataclasses.replace(spans(1)[0], name="\ud800")])
        await _until(lambda: metrics.spans.labels("dropped").value == 1)
        tracer.offer(spans(2))
        await _until(lambda: metrics.spans.labels("exported").value == 2)
        await tracer.close(5)


async def test_what_answers_is_no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """But a program that speaks something else: spans wait, and whoever stops waits for nobody."""
    with socket.create_server(("127.0.0.1", 0)) as garbage:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = garbage.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        collector = Collector()
        collector.port = garbage.getsockname()[1]
        with tracing(collector, monkeypatch) as (tracer, metrics):
            tracer.offer(spans(2))
            await _until(lambda: metrics.spans.labels("failed").value >= 4)
            async with asyncio.timeout(10):
                await tracer.close(60)
        garbage.shutdown(socket.SHUT_RDWR)
        thread.join(10)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - threads change it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"otel_endpoint": "collector:4317"}, "expected http://host:port"),
        ({"otel_endpoint": "http://collector:4317/v1/traces"}, "without a path"),
        ({"otel_headers": "a-very-secret-thing"}, "OTEL_EXPORTER_OTLP_HEADERS: expected name=value pairs"),
        ({"otel_endpoint": "http://collector:4317?x"}, "without a path"),
        ({"otel_endpoint": "http://col\nlector:4317"}, "expected http://host:port"),
        ({"otel_headers": "a key=a-very-secret-thing"}, "gRPC can send"),
        ({"otel_headers": "key-bin=a-very-secret-thing"}, "key-bin is a name that gRPC keeps for itself"),
        ({"otel_headers": "Content-Type=a-very-secret-thing"}, "content-type is a name that gRPC keeps"),
        (
            {"otel_endpoint": ENDPOINT, "otel_certificate": str(Path(__file__))},
            "OTEL_EXPORTER_OTLP_CERTIFICATE=",
        ),
        ({"otel_protocol": "http/protobuf"}, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf: expected 'grpc'"),
        ({"otel_traces_sampler": "jaeger_remote"}, "OTEL_TRACES_SAMPLER=jaeger_remote"),
        ({"otel_traces_sampler_arg": "2"}, "OTEL_TRACES_SAMPLER_ARG=2"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_config(**settings)
    assert told in str(refused.value)
    assert "very-secret" not in str(refused.value)


def test_settings() -> None:
    config = load_config(
        otel_endpoint=ENDPOINT,
        otel_headers="Authorization=Bearer%20a%2Cb, x=1",
        otel_resource_attributes="a=b%20c",
        otel_traces_sampler="PARENTBASED_TRACEIDRATIO",
        otel_traces_sampler_arg="0.01",
    )
    assert config.otel_header_pairs == (("authorization", "Bearer a,b"), ("x", "1"))
    assert config.otel_resource == {"a": "b c"}
    assert (config.traces, config.traces_ratio) == (True, 0.01)
    assert not load_config(otel_endpoint=ENDPOINT, otel_traces_exporter="none").traces
    assert not load_config(otel_endpoint=ENDPOINT, otel_sdk_disabled=True).traces
    assert not load_config().traces
    assert load_config(otel_traces_sampler="always_off").traces_ratio == 0


MISSING = """
import sys
sys.modules["opentelemetry.proto"] = None
from fastrunner.cli import main
sys.argv = ["fastrunner", "serve"]
main()
"""


def test_without_the_extra_the_start_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING],
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "HOME": "/nonexistent", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "pip install 'fastrunner[otel]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_the_library_is_loaded_before_the_first_span() -> None:
    code = (
        "import sys, fastrunner.processes.worker, fastrunner.processes.web, fastrunner.tracing.tracer\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# --- what outlives a process ---


def _numbered(*numbers: int) -> list[Span]:
    return [Span(TRACE, f"{number:016x}", PARENT, "", "n", "internal", 0, 0) for number in numbers]


async def test_what_a_process_has_not_exported_the_next_one_has(tmp_path: Path) -> None:
    """But nothing of one that is still there, and no line that is damaged."""
    folder = tmp_path / "spans"
    first, second = SpanFile(folder), SpanFile(folder)
    assert (await first.open(), await second.open()) == ([], [])
    first.keep(_numbered(1, 2, 3))
    second.keep(_numbered(4))
    first.settled(_numbered(2)[0].span_id)
    second.settled(_numbered(4)[0].span_id)
    first.close()
    # What is settled is there for as long as something is not.
    third = SpanFile(folder)
    assert await third.open() == _numbered(1, 2, 3)
    second.keep(_numbered(5))
    third.close()
    for path in folder.iterdir():
        with path.open("ab") as file:
            file.write(b'{"trace_id": "torn')
    fourth = SpanFile(folder)
    assert await fourth.open() == _numbered(1, 2, 3)
    for span in _numbered(1, 2, 3):
        fourth.settled(span.span_id)
    fourth.close()
    second.settled(_numbered(5)[0].span_id)
    second.close()
    # Somebody was late.
    second.keep(_numbered(6))
    assert list(folder.iterdir()) == []


def _line_counts(folder: Path) -> list[int]:
    return [len(path.read_bytes().splitlines()) for path in folder.iterdir()]


async def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though something always waits."""
    monkeypatch.setattr(limits, "TRACE_QUEUE_SPANS_MAX", 10)
    kept = SpanFile(tmp_path)
    await kept.open()
    for number in range(200):
        kept.keep(_numbered(number))
        if number:
            kept.settled(_numbered(number - 1)[0].span_id)
    kept.close()
    assert _line_counts(tmp_path) <= [20]
    after = SpanFile(tmp_path)
    assert (await after.open())[-1:] == _numbered(199)
    after.close()


async def test_what_cannot_be_written_is_in_memory_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    kept = SpanFile(tmp_path / "file")
    assert await kept.open() == []
    kept.keep(_numbered(1))
    kept.settled(_numbered(1)[0].span_id)
    kept.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_variables_for_traces_alone_say_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other exporters would go by them."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ENDPOINT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
    assert load_config().traces
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    with pytest.raises(ConfigurationError, match="TRACES_PROTOCOL is not read: say it by OTEL_EXPORTER_OTLP_PROTOCOL"):
        load_config()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not load_config().traces
