"""Subscriptions of `call: asyncapi` on Temporal: the worker that has one open goes on with it, and another after it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from fastrunner.base import limits
from tests.integration.asyncapi_calls import asyncapi_3, calls, subscribing, workflow
from tests.integration.engines import all_events, submission, until_status
from tests.integration.http_calls import Remote, serve
from tests.integration.temporal_engines import Cluster, cluster_on, serving_temporal
from tests.outside import require

if TYPE_CHECKING:
    from fastrunner.engine.temporal.engine import TemporalEngine

require(find_spec("temporalio"), "temporalio", module=True)

TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


class Feed:
    """A WebSocket server that says something to whoever has connected last."""

    def __init__(self) -> None:
        self.opened: list[web.WebSocketResponse] = []
        self.said = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        server = web.WebSocketResponse()
        await server.prepare(request)
        self.opened.append(server)
        async for _ in server:
            pass
        return server

    async def say(self, connection: int) -> None:
        """The next message, to the one that has connected so many times."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.opened) < connection:  # noqa: ASYNC110 - another side connects
                await asyncio.sleep(0.02)
        self.said += 1
        await self.opened[connection - 1].send_str(json.dumps({"n": self.said}))


@asynccontextmanager
async def replica(cluster: Cluster, feed: Remote) -> "AsyncIterator[TemporalEngine]":
    async with calls() as made:
        made.given.text = json.dumps(asyncapi_3("ws", f"127.0.0.1:{feed.port}", "/"))
        async with cluster.engine({"call_asyncapi": made.performers["call_asyncapi"]}) as engine:
            yield engine


async def seen(engine: Any, execution_id: str, count: int) -> None:
    """Waits until so many messages have been through the body of the subscription."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            events = await all_events(engine, execution_id)
            if sum(each.event_type == "task_completed" and bool(each.iteration) for each in events) >= count:
                return
            await asyncio.sleep(0.05)


async def test_whoever_has_a_subscription_open_goes_on_with_it(address: str) -> None:
    """Of two replicas; when that one stops, the other one opens it anew, and no message that was taken is lost."""
    feed, remote = Feed(), Remote()
    remote.answer = feed
    each = {"item": "m", "do": [{"note": {"set": {"n": "${ $m.payload.n }"}}}], "output": {"as": "${ .n }"}}
    text = workflow(subscribing({"amount": 8}, foreach=each))
    async with cluster_on(address) as cluster, AsyncExitStack() as stack:
        stack.push_async_callback((await serve(remote)).cleanup)
        async with AsyncExitStack() as first_life, AsyncExitStack() as second_life:
            first = await first_life.enter_async_context(replica(cluster, remote))
            second = await second_life.enter_async_context(replica(cluster, remote))
            execution_id = f"{cluster.queue}-1"
            await first.submit(submission(execution_id, text))
            for number in range(1, 6):
                await feed.say(1)
                await seen(second, execution_id, number)
            assert len(feed.opened) == 1
            keepers = [engine for engine in (first, second) if engine._keeper is not None]
            assert len(keepers) == 1
            if keepers == [second]:
                await second_life.aclose()
                rest: Any = first
            else:
                await first_life.aclose()
                rest = second
            for number in range(6, 9):
                await feed.say(2)
                await seen(rest, execution_id, number)
            view = await until_status(rest, execution_id, "completed", timeout_s=TIMEOUT_S)
            history = await rest._client.get_workflow_handle(execution_id).fetch_history()
        orders = [
            each.activity_task_scheduled_event_attributes
            for each in history.events
            if each.HasField("activity_task_scheduled_event_attributes")
        ]
        waits = {
            each.schedule_to_start_timeout.ToTimedelta().total_seconds()
            for each in orders
            if each.task_queue.name != cluster.queue
        }
        assert waits == {limits.TEMPORAL_KEEPER_S_MAX}
        assert json.loads(view.output_json) == [*range(1, 9)]
        assert len(feed.opened) == 2
