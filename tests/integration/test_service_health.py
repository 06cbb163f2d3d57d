"""Health, overall and per service, and what it says while a worker drains."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from fastrunner.service.methods import SERVICES
from tests.integration.wire import DEADLINE_S, MemoryWire, refusal, served

SERVING, NOT_SERVING, UNKNOWN = (
    HealthCheckResponse.SERVING,
    HealthCheckResponse.NOT_SERVING,
    HealthCheckResponse.SERVICE_UNKNOWN,
)


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[MemoryWire]:
    async with served() as wire:
        yield wire


async def check(wire: MemoryWire, service: str) -> Any:
    reply = await wire.raw("/grpc.health.v1.Health/Check", HealthCheckRequest(service=service).SerializeToString())
    return HealthCheckResponse.FromString(reply).status


def watch(wire: MemoryWire, service: str) -> Any:
    call = wire.channel.unary_stream("/grpc.health.v1.Health/Watch")
    return call(HealthCheckRequest(service=service).SerializeToString())


async def next_status(call: Any) -> Any:
    return HealthCheckResponse.FromString(await asyncio.wait_for(call.read(), DEADLINE_S)).status


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_a_draining_worker_is_not_serving(wire: MemoryWire, service: str) -> None:
    assert await check(wire, service) == SERVING
    wire.server.set_serving(False)
    assert await check(wire, service) == NOT_SERVING
    wire.server.set_serving(True)
    assert await check(wire, service) == SERVING


async def test_an_unknown_service_is_not_found(wire: MemoryWire) -> None:
    code, message, _ = await refusal(check(wire, "nobody.Service"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "nobody.Service" in message


async def test_watchers_are_told_of_every_change(wire: MemoryWire) -> None:
    call, unknown = watch(wire, ""), watch(wire, "nobody.Service")
    assert await next_status(call) == SERVING
    assert await next_status(unknown) == UNKNOWN
    wire.server.set_serving(False)
    assert await next_status(call) == NOT_SERVING
    wire.server.set_serving(True)
    assert await next_status(call) == SERVING
    call.cancel()
    unknown.cancel()
