"""The gRPC service that examples/calls/stock.yaml calls: `python -m examples.calls.stock_service --port 7071`.

Its first answer to each reservation is UNAVAILABLE, so that there is something to repeat; what is asked again with the
idempotency key of before is not taken out twice.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

__all__ = ["StockService", "serve"]

_PROTO = "examples/calls/stock.proto"


class StockService:
    """Counts items."""

    def __init__(self, messages: Any) -> None:
        self.messages = messages
        self.items: dict[str, int] = {}
        self.movements: dict[str, list[int]] = {}
        self.reservations: dict[str, Any] = {}
        """Answers by idempotency key."""
        self.refused = 0

    async def Reserve(self, request: Any, context: Any) -> Any:
        """Takes items out of the stock."""
        key = dict(context.invocation_metadata()).get("idempotency-key", "")
        if key.endswith("/1"):
            self.refused += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "just a moment")
        if key not in self.reservations:
            if self.items.get(request.item, 0) < request.count:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"there are not so many of {request.item}")
            self._move(request.item, -request.count)
            left = self.items[request.item]
            self.reservations[key] = self.messages.ReserveResponse(reservation=f"r-{request.item}", left=left)
        return self.reservations[key]

    async def Deliver(self, requests: AsyncIterator[Any], _: Any) -> Any:
        """Puts items into the stock."""
        async for request in requests:
            self._move(request.item, request.count)
        return self.messages.Level(items=self.items)

    async def ListMovements(self, request: Any, _: Any) -> AsyncIterator[Any]:
        """What has come and gone."""
        for count in self.movements.get(request.item, ()):
            yield self.messages.Movement(count=count)

    def _move(self, item: str, count: int) -> None:
        self.items[item] = self.items.get(item, 0) + count
        self.movements.setdefault(item, []).append(count)


async def serve(port: int) -> tuple[grpc.aio.Server, StockService, int]:
    """A server that has been started, its service and its port."""
    messages, services = grpc.protos_and_services(_PROTO)
    service = StockService(messages)
    server = grpc.aio.server()
    services.add_StockServicer_to_server(service, server)
    names = (messages.DESCRIPTOR.services_by_name["Stock"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, service, port


async def _main() -> None:
    parser = argparse.ArgumentParser(description=f"Serves {Path(_PROTO).name}.")
    parser.add_argument("--port", type=int, default=7071)
    server, _, port = await serve(parser.parse_args().port)
    print(f"serving on 127.0.0.1:{port}")
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main())
