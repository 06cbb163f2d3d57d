"""Support: a service whose prices fall: it sends them over WebSocket, and takes alerts by HTTP.

python -m examples.calls.prices_service --port 7072
"""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

__all__ = ["Prices", "serve"]

DESCRIPTION = Path(__file__).parent / "prices_asyncapi.yaml"


class Prices:
    """What has happened."""

    def __init__(self) -> None:
        self.alerts: list[Any] = []
        self.keys: set[str] = set()
        """An alert that is published again after a crash has the same key."""

    async def describe(self, _: web.Request) -> web.Response:
        return web.Response(text=DESCRIPTION.read_text(), content_type="application/yaml")

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"open": True})
        for price in (14, 12, 11, 9, 8):
            await socket.send_json({"item": request.match_info["item"], "price": price})
        await socket.receive()
        return socket

    async def alert(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        if key not in self.keys:
            self.keys.add(key)
            self.alerts.append({**await request.json(), "trace": request.headers["trace"]})
        return web.Response(status=202)


async def serve(port: int) -> tuple[web.AppRunner, Prices, int]:
    """Starts it on the loopback; gives what ends it, and its port."""
    prices = Prices()
    app = web.Application()
    app.add_routes(
        [
            web.get("/asyncapi.yaml", prices.describe),
            web.get("/prices/{item}", prices.stream),
            web.post("/alerts", prices.alert),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, prices, runner.addresses[0][1]


async def main() -> None:
    parser = argparse.ArgumentParser(description="Serves prices that fall.")
    parser.add_argument("--port", type=int, default=7072)
    await serve(parser.parse_args().port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
