"""Support: spans to a collector by OTLP over gRPC: the one module that knows OpenTelemetry's messages.

Theory of operation: OpenTelemetry's own definitions of the messages, filled here, and one call for each batch. Its SDK
is not used: it takes six times as long for a span as filling a message does, reads settings of its own, and treats what
a collector refuses for good as what it refuses for now.

Rules: a batch is one request within a size that collectors take as they are shipped. The headers, which may hold a key,
are shown nowhere; a collector's words are cut short, and shown on one line.
"""

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from fastrunner import __version__
from fastrunner.base import limits
from fastrunner.base.printable import printable
from fastrunner.config import Config
from fastrunner.tracing.context import NO_SPAN
from fastrunner.tracing.span import Attributes, Span
from fastrunner.tracing.tracer import ALL, TAKEN, Answer

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

__all__ = ["OtlpExporter"]

_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_KINDS: Final = {
    "internal": trace_pb2.Span.SPAN_KIND_INTERNAL,
    "server": trace_pb2.Span.SPAN_KIND_SERVER,
    "client": trace_pb2.Span.SPAN_KIND_CLIENT,
}
_NS_PER_MS: Final = 1_000_000
_SAMPLED: Final = 1
_REASON_SIZE_CHARS_MAX: Final = 200
_FOR_NOW: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
        # OTLP has these three end for good. They say nothing of the spans, but that somebody has to see to a key, a
        # right or an address: until then spans wait, as for a collector that is away.
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""What another attempt may mend."""
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.primary_user_agent", f"fastrunner/{__version__}"),
    # Left alone, gRPC waits up to two minutes before it connects again; the tracer already paces attempts.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class OtlpExporter:
    """The exporter of one worker; see `tracer.Exporter`."""

    def __init__(self, config: Config) -> None:
        assert config.otel_endpoint is not None, "nobody exports without an endpoint"
        scheme, _, address = config.otel_endpoint.partition("://")
        if scheme == "https":
            authorities = None if config.otel_certificate is None else config.otel_certificate.read_bytes()
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(authorities), _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address, _OPTIONS)
        self._call = self._channel.unary_unary(_METHOD, request_serializer=None, response_deserializer=None)
        self._headers = config.otel_header_pairs
        self._resource = Resource()
        _put(
            self._resource.attributes,
            {
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}/{os.getpid()}",
                **config.otel_resource,
                "service.name": config.otel_service_name,
            },
        )
        self._scope = InstrumentationScope(name="fastrunner", version=__version__)

    def export(self, spans: Sequence[Span]) -> Answer:
        """See Exporter."""
        message = ExportTraceServiceRequest()
        part = message.resource_spans.add(resource=self._resource).scope_spans.add(scope=self._scope)
        for span in spans:
            _fill(part.spans.add(), span)
        if message.ByteSize() > limits.TRACE_BATCH_SIZE_BYTES_MAX and len(spans) > 1:
            return self._in_halves(spans)
        return self._sent(message.SerializeToString())

    def _in_halves(self, spans: Sequence[Span]) -> Answer:
        """Those of the first half go again if the second one is not taken: as the same ones."""
        middle = len(spans) // 2
        first = self.export(spans[:middle])
        if not first.is_final:
            return first
        second = self.export(spans[middle:])
        if not second.is_final:
            return second
        refused_counts = (
            len(half) if answer.refused_count == ALL else answer.refused_count
            for half, answer in ((spans[:middle], first), (spans[middle:], second))
        )
        return Answer(True, sum(refused_counts), first.reason or second.reason)

    def _sent(self, data: bytes) -> Answer:
        try:
            reply = self._call(data, timeout=limits.TRACE_EXPORT_S_MAX, metadata=self._headers)
        except grpc.RpcError as error:
            # The errors of calls are calls, too.
            return _answer_of(cast("grpc.Call", error))
        try:
            refused = ExportTraceServiceResponse.FromString(reply).partial_success
        except DecodeError:
            # Whoever answers so has said that the call went well.
            return TAKEN
        count = max(0, refused.rejected_spans)
        return Answer(True, count, _words(refused.error_message)) if count else TAKEN

    def close(self) -> None:
        """See Exporter."""
        self._channel.close()


def _answer_of(error: grpc.Call) -> Answer:
    """What a call says that was not answered with OK."""
    code = error.code()
    reason = f"{code.name} {_words(error.details() or '')}".rstrip()
    pause_s = _pause_s(error)
    # What a collector has no room for may be its own load, and then it says when to come again, or the request's size.
    is_for_now = code in _FOR_NOW or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and pause_s > 0)
    return Answer(False, 0, reason, pause_s) if is_for_now else Answer(True, ALL, reason)


def _pause_s(error: grpc.Call) -> float:
    """How long a collector asks to be left alone; 0: it does not."""
    try:
        info = RetryInfo()
        status = rpc_status.from_call(error)
        if status is not None and any(detail.Unpack(info) for detail in status.details):
            return max(0.001, float(info.retry_delay.ToTimedelta().total_seconds()))
    except (DecodeError, ValueError, OverflowError):
        # Not what it should be: as if nothing were said.
        pass
    return 0.0


def _words(text: str) -> str:
    return printable(text[:_REASON_SIZE_CHARS_MAX])


def _fill(message: trace_pb2.Span, span: Span) -> None:
    message.trace_id = bytes.fromhex(span.trace_id)
    message.span_id = bytes.fromhex(span.span_id)
    if span.parent_id != NO_SPAN:
        message.parent_span_id = bytes.fromhex(span.parent_id)
    if span.state:
        message.trace_state = span.state
    message.flags = _SAMPLED
    message.name = span.name
    message.kind = _KINDS[span.kind]
    message.start_time_unix_nano = span.began_ms * _NS_PER_MS
    message.end_time_unix_nano = span.ended_ms * _NS_PER_MS
    _put(message.attributes, span.attributes)
    if span.error:
        _put(message.attributes, {"error.type": span.error})
        message.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        message.status.message = span.error
    if span.link is not None:
        trace_id, span_id = map(bytes.fromhex, span.link)
        message.links.add(trace_id=trace_id, span_id=span_id, flags=_SAMPLED)


def _put(attributes: "RepeatedCompositeFieldContainer[KeyValue]", given: Attributes) -> None:
    for name, value in given.items():
        # In place: a message that is made apart and copied takes twice as long.
        kept = attributes.add(key=name).value
        if isinstance(value, str):
            kept.string_value = value
        elif isinstance(value, bool):
            kept.bool_value = value
        else:
            kept.int_value = value
