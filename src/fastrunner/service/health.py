"""Stage 1, service: the standard health protocol, overall and per service, free of any transport.

Rules: a draining worker is NOT_SERVING for every service from the moment the drain begins; so is one that takes no new
executions because it cannot store them, for as long as that lasts.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from fastrunner.errors import UnknownService
from fastrunner.service.decode import parse
from fastrunner.service.methods import SERVICES

HEALTH_SERVICE: Final = "grpc.health.v1.Health"
_NAMES: Final = frozenset(("", *SERVICES))


class Health:
    """Answers Check and Watch."""

    def __init__(self) -> None:
        self._serving = self._troubled = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Whether the worker takes new work; watchers are told."""
        self._serving = serving
        self._tell()

    def set_troubled(self, troubled: bool) -> None:
        """Whether something else keeps the worker from taking new work."""
        self._troubled = troubled
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def check(self, payload: bytes) -> bytes:
        """Answers Check. Raises UnknownService."""
        service = parse(HealthCheckRequest, payload).service
        if service not in _NAMES:
            raise UnknownService(f"this runner has no service {service!r}")
        return self._response(service)

    async def watch(self, payload: bytes) -> AsyncGenerator[bytes, None]:
        """Answers Watch: the state now and after every change, SERVICE_UNKNOWN for a service that does not exist."""
        service = parse(HealthCheckRequest, payload).service
        last = b""
        # Ends when the transport closes it: a watcher watches for as long as it likes.
        while True:
            changed = self._changed
            response = self._response(service)
            if response != last:
                last = response
                yield response
            await changed.wait()

    def _response(self, service: str) -> bytes:
        if service not in _NAMES:
            status = HealthCheckResponse.SERVICE_UNKNOWN
        elif self._serving and not self._troubled:
            status = HealthCheckResponse.SERVING
        else:
            status = HealthCheckResponse.NOT_SERVING
        return bytes(HealthCheckResponse(status=status).SerializeToString())
