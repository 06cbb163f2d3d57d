"""Support: workflows with one `call: asyncapi`, AsyncAPI documents for it, and a Redis of the test's own."""

import asyncio
import hashlib
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from fastrunner.access.egress import Egress
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.tasks import build_performers
from fastrunner.tasks.descriptions import Description
from tests.driver import Execution, run
from tests.integration.runner_process import until
from tests.ports import free_port

__all__ = [
    "Calls",
    "Given",
    "asyncapi_2",
    "asyncapi_3",
    "calls",
    "publishing",
    "redis_server",
    "soon",
    "subscribing",
    "workflow",
]

URL = "https://documents.test/asyncapi.json"


class Given:
    """Descriptions that a test gives."""

    def __init__(self) -> None:
        self.text = ""

    async def get(self, resource: Mapping[str, Any]) -> Description:
        assert resource["uri"] == URL
        return Description(URL, self.text, hashlib.sha256(self.text.encode()).digest())


class Calls:
    """The performers of a worker, and documents for them."""

    def __init__(self, performers: Mapping[str, EffectPerformer], given: Given) -> None:
        self.performers = performers
        self.given = given

    def share(self, other: "Calls") -> None:
        """Gives another worker the document."""
        other.given.text = self.given.text

    async def run(self, described: Any, arguments: Mapping[str, Any], input_: Any = None, **task: Any) -> Execution:
        """A workflow of one task `m`, restored after every turn."""
        self.given.text = described if isinstance(described, str) else json.dumps(described)
        return await run(workflow(arguments, **task), input_, self.performers, restoring=True)

    async def output(self, described: Any, arguments: Mapping[str, Any], input_: Any = None, **task: Any) -> Any:
        execution = await self.run(described, arguments, input_, **task)
        assert execution.status == "completed", execution.error
        return execution.output

    async def error(self, described: Any, arguments: Mapping[str, Any], input_: Any = None) -> Mapping[str, Any]:
        execution = await self.run(described, arguments, input_)
        assert execution.status == "failed", execution.output
        assert execution.error is not None
        return execution.error


@asynccontextmanager
async def calls(egress: Egress | None = None, **settings: Any) -> AsyncIterator[Calls]:
    """Closed at the end."""
    given = Given()
    config = load_config(**settings)
    performers = build_performers(config, Metrics(CollectorRegistry()), egress, descriptions=given)
    try:
        yield Calls(performers, given)
    finally:
        for performer in performers.values():
            await performer.close()


def workflow(arguments: Mapping[str, Any], uri: str = URL, **task: Any) -> str:
    header = {"dsl": "1.0.3", "namespace": "a", "name": "b", "version": "1.0.0"}
    call = {"call": "asyncapi", "with": {"document": {"endpoint": uri}, **arguments}}
    return json.dumps({"document": header, "do": [{"m": {**call, **task}}]})


def publishing(payload: Any, **more: Any) -> dict[str, Any]:
    """Arguments of a publication by the operation `send` of a 3.0 document."""
    headers = more.pop("headers", None)
    return {"operation": "send", "message": {"payload": payload, **({"headers": headers} if headers else {})}, **more}


def subscribing(consume: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Arguments of a subscription by the operation `receive` of a 3.0 document."""
    subscription = {key: more.pop(key) for key in ("filter", "foreach") if key in more}
    return {"operation": "receive", "subscription": {"consume": consume, **subscription}, **more}


def asyncapi_3(protocol: str, host: str, address: str = "orders", **more: Any) -> dict[str, Any]:
    """A document with one server and one channel; `bindings` are the channel's, `by` the operation's."""
    bindings, by = {protocol: more.pop("bindings", {})}, {protocol: more.pop("by", {})}
    channel = {"address": address, "bindings": bindings, "messages": {"m": more.pop("message", {})}}
    channel |= more.pop("channel", {})
    operation = {"channel": {"$ref": "#/channels/c"}, "bindings": by}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "t", "version": "1"},
        "servers": {"s": {"host": host, "protocol": protocol, **more.pop("server", {})}},
        "channels": {"c": channel},
        "operations": {"send": {"action": "receive", **operation}, "receive": {"action": "send", **operation}},
        **more,
    }


def asyncapi_2(protocol: str, url: str, **more: Any) -> dict[str, Any]:
    """A document with one server and the channel `orders`."""
    return {
        "asyncapi": "2.6.0",
        "info": {"title": "t", "version": "1"},
        "servers": {"s": {"url": url, "protocol": protocol}},
        "channels": {"orders": {"publish": {"message": {}}, "subscribe": {"message": {}}}},
        **more,
    }


@contextmanager
def redis_server(*options: str) -> Iterator[int]:
    """The port of a Redis that keeps nothing on disk."""
    port = free_port()
    given = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning"]
    process = subprocess.Popen(["redis-server", *given, *options], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


async def soon(task: "asyncio.Task[Any]") -> Any:
    """What a task gives, within a deadline."""
    async with asyncio.timeout(30):
        return await task
