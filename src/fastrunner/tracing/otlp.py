"""Support: spans to a collector by OTLP over gRPC: the one module that knows OpenTelemetry's library.

Rules: everything that the settings say is handed over, so that the library reads none of it by itself; the headers,
which may hold a key, are shown nowhere.
"""

import os
import socket
from collections.abc import Sequence
from typing import Final

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from fastrunner import __version__
from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.tracing.context import NO_SPAN
from fastrunner.tracing.span import Span

__all__ = ["OtlpExporter"]

_KINDS: Final = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_SCOPE: Final = InstrumentationScope("fastrunner", __version__)


class OtlpExporter:
    """The exporter of one worker; see `tracer.Exporter`."""

    def __init__(self, config: Config) -> None:
        assert config.otel_endpoint is not None, "nobody exports without an endpoint"
        is_secure = config.otel_endpoint.startswith("https:")
        authorities = None if config.otel_certificate is None else config.otel_certificate.read_bytes()
        self._resource = Resource(
            {
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}/{os.getpid()}",
                **config.otel_resource,
                "service.name": config.otel_service_name,
            }
        )
        self._exporter = OTLPSpanExporter(
            endpoint=config.otel_endpoint,
            insecure=not is_secure,
            credentials=grpc.ssl_channel_credentials(authorities) if is_secure else None,
            headers=config.otel_header_pairs,
            timeout=limits.TRACE_EXPORT_S_MAX,
        )

    def export(self, spans: Sequence[Span]) -> bool:
        """See Exporter."""
        return self._exporter.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """See Exporter."""
        self._exporter.shutdown()

    def _readable(self, span: Span) -> ReadableSpan:
        state = TraceState.from_header([span.state]) if span.state else TraceState()
        links = []
        if span.link is not None:
            links.append(Link(_context(*span.link, TraceState())))
        attributes = {**span.attributes, "error.type": span.error} if span.error else span.attributes
        return ReadableSpan(
            span.name,
            context=_context(span.trace_id, span.span_id, state),
            parent=None if span.parent_id == NO_SPAN else _context(span.trace_id, span.parent_id, state),
            resource=self._resource,
            attributes=attributes,
            links=links,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.began_ms * 1_000_000,
            end_time=span.ended_ms * 1_000_000,
            instrumentation_scope=_SCOPE,
        )


def _context(trace_id: str, span_id: str, state: TraceState) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(TraceFlags.SAMPLED), state)
