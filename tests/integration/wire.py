"""A served service and a raw client, for tests of the wire."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from prometheus_client import CollectorRegistry

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Engine
from fastrunner.service.handlers import Service
from fastrunner.service.methods import COMMAND_SERVICE, METHOD_OF_PATH, QUERY_SERVICE, REGISTRY_SERVICE, STREAMING
from fastrunner.service.transport.server import Server, serve
from tests.integration.memory_engine import MemoryEngine
from tests.local_router import LocalRouter

R = TypeVar("R", bound=Message)
DOCUMENT = "orders"
DEADLINE_S = 10.0


class Wire:
    """A served service and a raw client."""

    def __init__(self, server: Server, registry: CollectorRegistry) -> None:
        self.server = server
        self.registry = registry
        self.channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")

    async def raw(self, path: str, payload: bytes) -> bytes:
        """One unary call."""
        return await self.channel.unary_unary(path)(payload, timeout=DEADLINE_S)  # type: ignore[no-any-return]

    async def call(self, method: str, request: Message, reply: type[R]) -> R:
        """One unary call under the canonical path."""
        return reply.FromString(await self.raw(path(method), request.SerializeToString()))

    def stream(self, method: str, request: Message) -> Any:
        """One streaming call under the canonical path."""
        return self.channel.unary_stream(path(method))(request.SerializeToString(), timeout=DEADLINE_S)

    async def execute_async(self, execution_id: str, document: str = DOCUMENT) -> m.WorkflowExecuteResponse:
        """ExecuteAsync."""
        return await self.call("ExecuteAsync", execution(execution_id, document), m.WorkflowExecuteResponse)

    def handled(self, service: str, method: str, code: str) -> float | None:
        """What the metric of completed calls says."""
        kind = "server_stream" if method in STREAMING else "unary"
        labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method, "grpc_code": code}
        return self.registry.get_sample_value("grpc_server_handled_total", labels)


class MemoryWire(Wire):
    """A served service whose engine the test moves."""

    def __init__(self, wire: Wire, engine: MemoryEngine) -> None:
        self.server, self.registry, self.channel = wire.server, wire.registry, wire.channel
        self.engine = engine


def path(method: str) -> str:
    for service in (COMMAND_SERVICE, QUERY_SERVICE, REGISTRY_SERVICE):
        if f"/{service}/{method}" in METHOD_OF_PATH:
            return f"/{service}/{method}"
    raise AssertionError(method)


def execution(execution_id: str, document: str = DOCUMENT) -> m.WorkflowExecuteInput:
    return m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=document)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """Code, message and details of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    details: dict[str, Any] = {}
    trailers: Any = error.trailing_metadata()
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            status = Status.FromString(value)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for detail in status.details:
                for kind in (BadRequest, ErrorInfo, ResourceInfo, RetryInfo):
                    message = kind()
                    if detail.Unpack(message):
                        details[kind.__name__] = message
    return error.code(), error.details() or "", details


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is told to nobody
            await asyncio.sleep(0.005)


async def rest_of(call: Any) -> list[m.WorkflowProgressEvent]:
    """The events of a stream until it ends with OK."""
    events = []
    while (event := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        events.append(m.WorkflowProgressEvent.FromString(event))
    assert await call.code() is grpc.StatusCode.OK
    return events


async def pages(wire: Wire, request: q.ListExecutionsRequest) -> list[list[str]]:
    """Ids page by page until the token is empty."""
    found = []
    asked = q.ListExecutionsRequest()
    asked.CopyFrom(request)
    # Ends with the pages: every token is further back in time.
    while True:
        reply = await wire.call("ListExecutions", asked, q.ListExecutionsResponse)
        found.append([execution.execution_id for execution in reply.executions])
        if not reply.next_page_token:
            return found
        asked.page_token = reply.next_page_token


@asynccontextmanager
async def serving(engine: Engine, port: int = 0) -> AsyncIterator[Wire]:
    """One worker on a given engine; on a port that others listen on, too, if it is told one."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    server = await serve(Service(engine, LocalRouter(), metrics), metrics, f"127.0.0.1:{port}")
    wire = Wire(server, registry)
    try:
        yield wire
    finally:
        await wire.channel.close()
        await server.stop(0)


@asynccontextmanager
async def served(port: int = 0) -> AsyncIterator["MemoryWire"]:
    """One worker on an engine in memory."""
    engine = MemoryEngine()
    async with serving(engine, port) as wire:
        yield MemoryWire(wire, engine)
