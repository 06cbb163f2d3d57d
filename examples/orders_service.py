"""Support: the small HTTP service the example workflows call.

Deterministic: what a request gets depends on its own text and on how often the same order tried before, never on
chance. It remembers `Idempotency-Key`s: a request that is sent again with its key gets the first answer again, does
nothing twice, and is counted as a replay.

    python -m examples.orders_service --port 0        prints its URL and serves until it is stopped
    async with OrdersService() as service: ...        the same inside a program
"""

import argparse
import asyncio
import base64
import contextlib
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from aiohttp import web

__all__ = ["CLIENT", "OrdersService"]

FAILED_PAYMENTS = 2
"""Payments of one order that fail before one succeeds."""

PAGES = 4
"""Pages of one day's sales."""

SALES_PER_PAGE = 3
"""Sales on each of them."""

SLOW_S = 60.0
"""Delay of what is slow: far longer than any caller waits, whatever the pace."""

CLIENT = {"id": "orders", "secret": "example-client-secret"}
"""Who may ask for tokens, and how it proves that: no secret, for it stands here."""

_TOKEN = "example-access-token"
_DESCRIPTION = Path(__file__).parent / "orders_api.json"
_MIRROR_DELAYS_S = {"frankfurt": 0.02, "virginia": 0.4, "singapore": 0.8}
_ANSWER_DELAY_S = 0.02

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class OrdersService:
    """The service on a port of the loopback; `pace` stretches its delays (0: answer at once)."""

    def __init__(self, port: int = 0, pace: float = 1.0) -> None:
        self._port = port
        self._pace = pace
        self._runner: web.AppRunner | None = None
        self._answers: dict[str, asyncio.Task[tuple[int, Any]]] = {}
        self._payment_attempts: Counter[str] = Counter()
        self.charges: Counter[str] = Counter()
        """Successful payments by order id: 1 for each, however often requests were sent again."""
        self.replays = 0
        """Requests answered from memory because their Idempotency-Key was known."""
        self.requests = 0
        """All requests."""
        self.notified: list[Any] = []
        """What it was notified of, in the order of the notifications."""

    @property
    def url(self) -> str:
        """Where it answers, without a final slash."""
        assert self._runner is not None, "the service is not started"
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.post("/orders/{order}/payments", self._once(self._pay)),
                web.get("/shops/{shop}/price", self._price),
                web.get("/mirrors/{mirror}/packages/{package}", self._download),
                web.get("/sales", self._sales),
                web.post("/bookings/{order}/{step}", self._once(self._book)),
                web.delete("/bookings/{order}/{step}", self._once(self._unbook)),
                web.post("/oauth2/token", self._token),
                web.post("/payouts/{order}", self._once(self._pay_out)),
                web.post("/notifications", self._once(self._notify)),
                web.get("/rates/slow", self._slow_rate),
                web.get("/counts", self._counts),
                web.get("/openapi.json", self._describe),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        for answer in self._answers.values():
            answer.cancel()

    def _once(self, work: Callable[[web.Request], Awaitable[tuple[int, Any]]]) -> _Handler:
        """A handler that does its work once per Idempotency-Key, also if the first caller has gone meanwhile."""

        async def handle(request: web.Request) -> web.Response:
            self.requests += 1
            await request.read()
            key = request.headers.get("Idempotency-Key")
            answer = self._answers.get(key) if key else None
            if answer is None:
                answer = asyncio.ensure_future(work(request))
                if key:
                    self._answers[key] = answer
            else:
                self.replays += 1
            # The work goes on when its caller hangs up: its key may come again.
            status, body = await asyncio.shield(answer)
            return web.json_response(body, status=status)

        return handle

    async def _delay(self, seconds: float = _ANSWER_DELAY_S) -> None:
        await asyncio.sleep(seconds * self._pace)

    async def _pay(self, request: web.Request) -> tuple[int, Any]:
        """503 the first times an order tries, then the payment."""
        order = request.match_info["order"]
        amount = (await request.json())["amount"]
        self._payment_attempts[order] += 1
        attempts = self._payment_attempts[order]
        await self._delay()
        if attempts <= FAILED_PAYMENTS:
            return 503, {"message": "the bank does not answer"}
        self.charges[order] += 1
        return 201, {"paymentId": f"pay-{order}", "amount": amount, "attempts": attempts}

    async def _price(self, request: web.Request) -> web.Response:
        self.requests += 1
        shop, item = request.match_info["shop"], request.query["item"]
        await self._delay()
        return web.json_response({"shop": shop, "item": item, "price": 100 + _number(shop, item) % 100})

    async def _download(self, request: web.Request) -> web.Response:
        """Mirrors differ in how far away they are, and in nothing else."""
        self.requests += 1
        mirror, package = request.match_info["mirror"], request.match_info["package"]
        if mirror not in _MIRROR_DELAYS_S:
            raise web.HTTPNotFound
        await self._delay(_MIRROR_DELAYS_S[mirror])
        return web.json_response({"package": package, "mirror": mirror, "checksum": f"{_number(package):08x}"})

    async def _sales(self, request: web.Request) -> web.Response:
        self.requests += 1
        page = int(request.query["page"])
        await self._delay()
        sales = [{"id": f"{page}-{n}", "amount": page * 10 + n} for n in range(SALES_PER_PAGE)]
        return web.json_response({"sales": sales, "nextPage": page + 1 if page < PAGES else None})

    async def _book(self, request: web.Request) -> tuple[int, Any]:
        """Reserving and charging work; there is nothing to ship."""
        step = request.match_info["step"]
        await self._delay()
        if step == "shipment":
            return 409, {"message": "out of stock"}
        return 201, {"done": step}

    async def _unbook(self, request: web.Request) -> tuple[int, Any]:
        await self._delay()
        return 200, {"undone": request.match_info["step"]}

    async def _token(self, request: web.Request) -> web.Response:
        """A token for a client that proves itself (RFC 6749, 4.4)."""
        self.requests += 1
        pair = base64.b64encode(":".join(CLIENT.values()).encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response({"access_token": _TOKEN, "token_type": "Bearer", "expires_in": 60})

    async def _pay_out(self, request: web.Request) -> tuple[int, Any]:
        if request.headers.get("Authorization") != f"Bearer {_TOKEN}":
            return 401, {"message": "who are you?"}
        amount = (await request.json())["amount"]
        await self._delay()
        return 201, {"orderId": request.match_info["order"], "paidOut": amount}

    async def _notify(self, request: web.Request) -> tuple[int, Any]:
        about = (await request.json())["about"]
        self.notified.append(about)
        number = len(self.notified)
        await self._delay()
        return 202, {"about": about, "number": number}

    async def _slow_rate(self, _: web.Request) -> web.Response:
        self.requests += 1
        await asyncio.sleep(SLOW_S)
        return web.json_response({"rate": 3})

    async def _describe(self, _: web.Request) -> web.Response:
        return web.json_response(text=_DESCRIPTION.read_text(encoding="utf-8"))

    async def _counts(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": self.requests,
                "replays": self.replays,
                "charges": sum(self.charges.values()),
                "chargedTwice": [order for order, count in self.charges.items() if count > 1],
            }
        )


def _number(*parts: str) -> int:
    """A number that looks random and is always the same."""
    return zlib.crc32("/".join(parts).encode())


async def _serve(port: int, pace: float) -> None:
    async with OrdersService(port, pace) as service:
        print(service.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serves until interrupted; prints its URL first."""
    parser = argparse.ArgumentParser(description="The service the example workflows call.")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--pace", type=float, default=1.0, help="stretches its delays; 0: answer at once")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments.port, arguments.pace))


if __name__ == "__main__":
    main()
