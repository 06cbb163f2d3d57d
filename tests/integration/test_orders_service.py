"""Support: the examples' service does what the demo relies on: the same answer for the same key, and exact counts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from examples.orders_service import FAILED_PAYMENTS, OrdersService


@pytest.fixture
async def service() -> AsyncIterator[OrdersService]:
    async with OrdersService(pace=0.5) as service:
        yield service


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


async def _pay(client: aiohttp.ClientSession, service: OrdersService, key: str) -> tuple[int, Any]:
    headers = {"Idempotency-Key": key}
    async with client.post(f"{service.url}/orders/1/payments", json={"amount": 5}, headers=headers) as response:
        return response.status, await response.json()


async def test_payments_fail_first_and_a_known_key_gets_its_answer_again(
    client: aiohttp.ClientSession, service: OrdersService
) -> None:
    for attempt in range(FAILED_PAYMENTS):
        assert (await _pay(client, service, f"key-{attempt}"))[0] == 503
        assert (await _pay(client, service, f"key-{attempt}"))[0] == 503
    paid = await _pay(client, service, "key-paid")
    assert paid == (201, {"paymentId": "pay-1", "amount": 5, "attempts": FAILED_PAYMENTS + 1})
    assert await _pay(client, service, "key-paid") == paid
    assert service.charges == {"1": 1}
    assert service.replays == FAILED_PAYMENTS + 1


async def test_a_key_is_worked_on_once_also_while_the_first_request_is_open_or_gone(
    client: aiohttp.ClientSession, service: OrdersService
) -> None:
    for attempt in range(FAILED_PAYMENTS):
        await _pay(client, service, f"key-{attempt}")
    gone = asyncio.ensure_future(_pay(client, service, "key"))
    for _ in range(5_000):
        if service.requests > FAILED_PAYMENTS:
            break
        await asyncio.sleep(0.001)
    gone.cancel()
    answers = await asyncio.gather(_pay(client, service, "key"), _pay(client, service, "key"))
    assert [status for status, _ in answers] == [201, 201]
    assert service.charges == {"1": 1}
    async with client.get(f"{service.url}/counts") as response:
        counts = await response.json()
    assert counts == {"requests": FAILED_PAYMENTS + 3, "replays": 2, "charges": 1, "chargedTwice": []}


async def test_what_is_slow_does_not_hold_up_the_end(client: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(5):
        async with OrdersService() as service:
            with pytest.raises(TimeoutError):
                await client.get(f"{service.url}/rates/slow", timeout=aiohttp.ClientTimeout(total=0.05))
