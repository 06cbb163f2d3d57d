"""`call: asyncapi` by a real Redis: channels, which keep nothing, and streams, which keep what is not acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from fastrunner.base import extras, limits
from fastrunner.base.clock import monotonic_s
from tests.integration.asyncapi_calls import Calls, asyncapi_3, calls, publishing, redis_server, soon, subscribing

STREAM = {"x-type": "stream", "x-group": "billing"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server() as found:
        yield found


@pytest.fixture
async def redis(port: int) -> AsyncIterator[Any]:
    client = Redis(port=port, protocol=2)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def called() -> AsyncIterator[Calls]:
    async with calls() as made:
        yield made


class Anew:
    """Performs by a function."""

    def __init__(self, perform: Any) -> None:
        self.perform = perform

    async def close(self) -> None:
        """Nothing is open."""


def described(port: int, **more: Any) -> dict[str, Any]:
    return asyncapi_3("redis", f"127.0.0.1:{port}", **more)


async def until(condition: Any) -> None:
    deadline_s = monotonic_s() + 30
    while not await condition():
        assert monotonic_s() < deadline_s, "not so within 30 s"
        await asyncio.sleep(0.01)


# --- channels ---


async def test_a_message_reaches_who_is_subscribed(called: Calls, redis: Any, port: int) -> None:
    document = described(port)

    async def is_subscribed() -> bool:
        return bool((await redis.pubsub_numsub("orders"))[0][1])

    listening = asyncio.create_task(called.output(document, subscribing({"amount": 2})))
    await until(is_subscribed)
    async with calls() as publisher:
        for number in (1, 2):
            await publisher.output(document, publishing({"n": number}))
    assert [each["payload"] for each in await soon(listening)] == [{"n": 1}, {"n": 2}]

    async def is_left() -> bool:
        return not await is_subscribed()

    await until(is_left)


# --- streams ---


async def test_an_entry_has_all_of_a_message(called: Calls, redis: Any, port: int) -> None:
    message = {"correlationId": {"location": "$message.payload#/id"}}
    document = described(port, bindings=STREAM, message=message)
    await redis.xgroup_create("orders", "billing", id="$", mkstream=True)
    await called.output(document, publishing({"id": "a"}, headers={"h": "x", "n": 1}))
    [(_, entry)] = await redis.xrange("orders")
    assert entry[b"body"] == b'{"id":"a"}'
    assert entry[b"key"] == b"test-execution/do/0/m/1/1"
    await redis.xadd("orders", {"n": "2"})
    assert await called.output(document, subscribing({"amount": 2})) == [
        {"payload": {"id": "a"}, "headers": {"h": "x", "n": "1"}, "correlationId": "a"},
        {"payload": {"n": "2"}, "headers": {}, "correlationId": None},
    ]
    # All is acknowledged, and nobody is left in the group.
    assert (await redis.xpending("orders", "billing"))["pending"] == 0
    assert await redis.xinfo_consumers("orders", "billing") == []


async def test_what_is_not_done_with_stays_unacknowledged(called: Calls, redis: Any, port: int) -> None:
    document = described(port, bindings=STREAM)
    await redis.xgroup_create("orders", "billing", id="$", mkstream=True)
    for number in range(3):
        await redis.xadd("orders", {"body": f"{number}"})
    raising = {"if": "${ .payload == 1 }", "raise": {"error": {"type": "https://x.test/odd", "status": 400}}}
    execution = await called.run(document, subscribing({"amount": 9}, foreach={"do": [{"r": raising}]}))
    assert execution.status == "failed"
    assert (await redis.xpending("orders", "billing"))["pending"] == 1
    # The same consumer, as after a crash or in another attempt: first what it has not acknowledged.
    found = await called.output(document, subscribing({"amount": 2}))
    assert [each["payload"] for each in found] == [1, 2]
    assert (await redis.xpending("orders", "billing"))["pending"] == 0


async def test_what_ends_a_subscription_without_being_consumed(called: Calls, redis: Any, port: int) -> None:
    document = described(port, bindings=STREAM)
    await redis.xgroup_create("orders", "billing", id="$", mkstream=True)
    for number in range(4):
        await redis.xadd("orders", {"body": f"{number}"})
    found = await called.output(document, subscribing({"until": "${ .payload == 2 }"}))
    assert [each["payload"] for each in found] == [0, 1]
    (pending,) = [each["message_id"] for each in (await redis.xpending_range("orders", "billing", "-", "+", 9))][:1]
    assert (await redis.xrange("orders", pending, pending))[0][1] == {b"body": b"2"}


async def test_what_others_leave_lying_is_taken_over(
    called: Calls, redis: Any, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = described(port, bindings=STREAM)
    await redis.xgroup_create("orders", "billing", id="$", mkstream=True)
    for body in ("1", "2"):
        await redis.xadd("orders", {"body": body})
    await redis.xreadgroup("billing", "gone", {"orders": ">"})
    nothing = await called.output(document, subscribing({"amount": 1, "for": "PT0.2S"}))
    monkeypatch.setattr(limits, "ASYNCAPI_CLAIM_S", 0.05)
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGES_AHEAD_MAX", 1)
    await asyncio.sleep(0.1)
    found = await called.output(document, subscribing({"amount": 1}))
    assert (nothing, [each["payload"] for each in found]) == ([], [1])
    # So many at a time; the rest is left to others.
    assert (await redis.xpending("orders", "billing"))["consumers"] == [{"name": b"gone", "pending": 1}]


@pytest.mark.parametrize("ends", [False, True])
async def test_another_worker_acknowledges_what_one_had(redis: Any, port: int, ends: bool) -> None:
    """As after a crash: each effect is performed by a worker that knows nothing of those before."""
    await redis.xgroup_create("orders", "billing", id="$", mkstream=True)
    for number in range(4):
        await redis.xadd("orders", {"body": f"{number}"})
    iterator = {"do": [{"s": {"set": {"n": "${ .payload }"}}}], "output": {"as": "${ .n }"}}
    consume = {"amount": 3} if ends else {"while": "${ .payload < 2 }"}
    async with calls() as first:
        performed = 0

        async def anew(effect: Any, arguments: Any) -> Any:
            nonlocal performed
            performed += 1
            async with calls() as other:
                first.share(other)
                return await other.performers["call_asyncapi"].perform(effect, arguments)

        performers = {**first.performers, "call_asyncapi": Anew(anew)}
        found = await Calls(performers, first.given).output(
            described(port, bindings=STREAM), subscribing(consume, foreach=iterator)
        )
    assert (found, performed) == ([0, 1, 2], 4)
    assert (await redis.xpending("orders", "billing"))["pending"] == 0


async def test_an_interrupted_wait_leaves_nobody_in_the_group(called: Calls, redis: Any, port: int) -> None:
    document = described(port, bindings=STREAM)
    execution = await called.run(document, subscribing({"amount": 1}), timeout={"after": "PT0.3S"})
    assert execution.status == "failed"

    async def is_alone() -> bool:
        return not await redis.xinfo_consumers("orders", "billing")

    await until(is_alone)


# --- what goes wrong ---


async def test_bindings_and_paths_that_are_refused(called: Calls, port: int) -> None:
    for more, said in (
        ({"bindings": {"x-type": "stream"}}, "x-group"),
        ({"bindings": {"x-type": "list"}}, "neither `channel` nor `stream`"),
        ({"server": {"pathname": "/first"}}, "number of a database"),
    ):
        error = await called.error(described(port, **more), subscribing({"amount": 1}))
        assert error["type"].endswith("/configuration")
        assert said in error["detail"]


async def test_a_server_that_is_not_there(called: Calls) -> None:
    error = await called.error(described(1), publishing({}))
    assert (error["type"].rpartition("/")[2], error["title"]) == ("communication", "Connection Failed")


async def test_a_password() -> None:
    with redis_server("--requirepass", "right") as port:
        async with calls() as called:
            for password, status in (("wrong", "failed"), ("right", "completed")):
                policy = {"basic": {"username": "default", "password": password}}
                execution = await called.run(described(port), publishing({}, authentication=policy))
                assert execution.status == status
                if execution.error is not None:
                    assert execution.error["status"] == 401
                    assert "wrong" not in str(execution.error)


async def test_a_connection_that_ends(called: Calls) -> None:
    with redis_server() as port:
        redis = Redis(port=port, protocol=2)

        async def is_subscribed() -> bool:
            return bool((await redis.pubsub_numsub("orders"))[0][1])

        listening = asyncio.create_task(called.error(described(port), subscribing({"amount": 1})))
        await until(is_subscribed)
        await redis.aclose()
    assert (await soon(listening))["type"].endswith("/communication")


async def test_libraries_that_are_not_installed(called: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda _: False)
    error = await called.error(described(1), publishing({}))
    assert (error["type"].rpartition("/")[2], error["title"]) == ("configuration", "Not Installed")
    assert "pip install 'fastrunner[redis]'" in error["detail"]
