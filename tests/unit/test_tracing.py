"""What is traced, piece by piece: headers, decisions, ids, the queue to the collector, settings; and what is not, costs
nothing."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner.base import limits
from fastrunner.config import ConfigurationError, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.tracing.context import CURRENT, TraceContext, current_headers
from fastrunner.tracing.execution import ExecutionTrace
from fastrunner.tracing.span import Span
from fastrunner.tracing.tracer import Sampler, Tracer, new_tracer

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


def test_a_span_that_is_damaged_is_none() -> None:
    for data in (b"", b"[]", b"{}", b'{"trace_id": 1}'):
        with pytest.raises(ValueError, match=r".+"):
            Span.decoded(data)


def test_attributes_are_bounded() -> None:
    trace = ExecutionTrace("e" * 2 * limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX, TraceContext(TRACE, PARENT, True), 0)
    trace.ended("completed", None, 1)
    [span] = trace.gather()
    assert len(str(span.attributes["fastrunner.execution.id"])) == limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX


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

    def export(self, spans: Sequence[Span]) -> bool:
        if not self.is_away:
            self.batches.append(len(spans))
        return not self.is_away

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
        ({"otel_headers": "a key=a-very-secret-thing"}, "gRPC can send"),
        ({"otel_protocol": "http/protobuf"}, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf: expected 'grpc'"),
        ({"otel_traces_sampler": "jaeger_remote"}, "OTEL_TRACES_SAMPLER=jaeger_remote"),
        ({"otel_traces_sampler_arg": "2"}, "OTEL_TRACES_SAMPLER_ARG=2"),
        ({"temporal_service_address": "t:7233", "otel_endpoint": ENDPOINT}, "executions are not traced there"),
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
sys.modules["opentelemetry.exporter"] = None
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
