"""Support: a collector of spans: a gRPC server that speaks OTLP, and what it has been sent."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass
class Received:
    """A span as it was sent."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    began_ns: int
    ended_ns: int
    error: str
    state: str
    attributes: dict[str, Any]
    links: list[str] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What it has, and whether it takes more."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.refuses = False
        self.says: Callable[[Any, Any], Any] | None = None
        """What it answers to a request and its context, other than that it takes it."""
        self.port = 0

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Takes spans."""
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refuses:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if self.says is not None:
            return self.says(request, context)
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def endpoint(self) -> str:
        """Its address, as OTEL_EXPORTER_OTLP_ENDPOINT has it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def text(self) -> str:
        """All that was sent, for whoever looks for something in it."""
        return "".join(map(str, self.requests))

    def spans(self) -> list[Received]:
        """All spans, those that came twice too."""
        return [
            _received(resource.resource, span)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of(self, execution_id: str) -> dict[str, Received]:
        """The spans of an execution by what they are about: `execute`, `accept`, the names of others."""
        found = {}
        for span in self.spans():
            if span.attributes["fastrunner.execution.id"] == execution_id:
                found[span.name.partition(" ")[0] if span.name.startswith("execute") else span.name] = span
        return found

    def orphans(self, known: set[str]) -> list[str]:
        """Names of spans whose parent is neither there nor one of those."""
        spans = self.spans()
        there = {span.span_id for span in spans} | known | {""}
        return [span.name for span in spans if span.parent_id not in there]

    def repeated(self) -> list[str]:
        """Names of spans that are there under several ids, or with several contents under one."""
        contents: dict[str, set[str]] = {}
        for span in self.spans():
            contents.setdefault(span.span_id, set()).add(f"{span.name} {span.parent_id} {span.began_ns}")
        about = Counter(
            (span.attributes["fastrunner.execution.id"], span.name, span.began_ns, span.ended_ns)
            for span in {span.span_id: span for span in self.spans()}.values()
            if span.name in ("accept",) or span.name.startswith("execute")
        )
        return [next(iter(each)) for each in contents.values() if len(each) > 1] + [
            name for (_, name, _, _), count in about.items() if count > 1
        ]


def _received(resource: Any, span: Any) -> Received:
    return Received(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        error=span.status.message if span.status.code == 2 else "",
        state=span.trace_state,
        attributes=_attributes(span),
        links=[link.span_id.hex() for link in span.links],
        resource=_attributes(resource),
    )


def _attributes(owner: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in owner.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of loopback."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
