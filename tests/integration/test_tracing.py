"""Traces of executions, at a real collector: one tree over accept, forward, effect, callback, children and kills."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as r
from fastrunner.stigmer.receiver import Receiver, ReceiverOptions
from tests.integration.callbacks import TOKEN, receiving
from tests.integration.engines import SET
from tests.integration.otlp import Collector, collecting
from tests.integration.runner_process import SERVE, RunnerProcess, running
from tests.integration.stigmer import WRITE
from tests.integration.test_placement_runner import Connection

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("tracestate", "vendor=a"))
UNSAMPLED = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),)
KEY = "a-key-of-the-collector"


class TracedReceiver(Receiver):
    """Keeps where in a trace each call says that it is."""

    def __init__(self) -> None:
        super().__init__(ReceiverOptions(port=0, token=TOKEN))
        self.parents: list[str] = []
        self.requests: list[bytes] = []

    async def report_batch(self, request: bytes, context: Any) -> bytes:
        self.requests.append(request)
        self.parents += [value for key, value in context.invocation_metadata() if key == "traceparent"]
        return await super().report_batch(request, context)


@dataclass
class World:
    """A collector, a receiver, a service that answers when it may, and runners on one data directory."""

    folder: Path
    collector: Collector
    receiver: TracedReceiver
    receiver_port: int
    service_port: int
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[dict[str, str]] = field(default_factory=list)
    """Headers of the requests to the service."""
    answer: Callable[[web.Request], Awaitable[web.Response]] | None = None
    """What the service does instead of answering when it may."""

    def runner(self, **settings: str) -> Any:
        given = {
            "STIGMER_SERVICE_ENDPOINT": f"127.0.0.1:{self.receiver_port}",
            "STIGMER_SERVICE_API_KEY": TOKEN,
            "STIGMER_SERVICE_USE_TLS": "false",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={KEY}",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=tests",
            "GRPC_DNS_RESOLVER": "native",
            "FASTRUNNER_SECRET_TOKEN": "a-secret-of-a-workflow",
        }
        return running(self.folder, SERVE, **{**given, **settings})

    def call(self, task: str) -> str:
        return f"- {task}: {{call: http, with: {{method: get, endpoint: 'http://127.0.0.1:{self.service_port}/'}}}}\n"


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    receiver = TracedReceiver()
    with collecting() as collector:
        async with receiving(receiver) as (_, receiver_port):
            found = World(folder, collector, receiver, receiver_port, 0)

            async def answer(request: web.Request) -> web.Response:
                found.asked.append({name.lower(): value for name, value in request.headers.items()})
                if found.answer is not None:
                    return await found.answer(request)
                await found.gate.wait()
                return web.json_response({"n": 1})

            application = web.Application()
            application.router.add_get("/", answer)
            server = web.AppRunner(application)
            await server.setup()
            site = web.TCPSite(server, "127.0.0.1", 0)
            await site.start()
            found.service_port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
            try:
                yield found
            finally:
                found.gate.set()
                await server.cleanup()


async def until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (value := condition()):  # noqa: ASYNC110 - threads and other processes change it
            await asyncio.sleep(0.02)
    return value


async def ready(runner: RunnerProcess) -> Connection:
    await asyncio.to_thread(runner.wait_ready)
    return Connection(runner.target)


async def execute(
    connection: Connection, execution_id: str, text: str, metadata: tuple[tuple[str, str], ...] = (), **fields: Any
) -> None:
    request = m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=text, **fields)
    path = "/ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController/ExecuteAsync"
    await connection.channel.unary_unary(path)(request.SerializeToString(), timeout=60, metadata=metadata)


async def ended(connection: Connection, execution_id: str) -> q.Execution:
    request = q.GetExecutionRequest(execution_id=execution_id)
    async with asyncio.timeout(60):
        while True:
            found = (await connection.call("GetExecution", request, q.GetExecutionResponse)).execution
            if found.status in ("completed", "failed"):
                return found  # type: ignore[no-any-return]
            await asyncio.sleep(0.02)


def parent_of(header: str) -> str:
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", header), header
    return header.split("-")[2]


async def test_an_execution_is_one_tree_whatever_dies(tmp_path: Path) -> None:
    async with world(tmp_path) as around, asyncio.timeout(180):
        collector = around.collector
        child = "document: {dsl: 1.0.3, namespace: shop, name: child, version: 1.0.0}\ndo:\n" + around.call("inner")
        parent = (
            "document: {dsl: 1.0.3, namespace: shop, name: parent, version: 1.0.0}\ndo:\n"
            + around.call("outer")
            + "- sub: {run: {workflow: {namespace: shop, name: child, version: latest}}}\n"
        )
        with around.runner() as runner:
            connection = await ready(runner)
            await connection.call(
                "RegisterWorkflow", r.RegisterWorkflowRequest(workflow_yaml=child), r.RegisterWorkflowResponse
            )
            await execute(connection, "order", parent, SAMPLED)
            await until(lambda: around.asked and "accept" in collector.of("order"))
            # The effect is open, and so is the execution.
            runner.process.kill()
            await connection.channel.close()
        with around.runner() as runner:
            connection = await ready(runner)
            await until(lambda: len(around.asked) == 2)
            collector.refuses = True
            around.gate.set()
            await ended(connection, "order")
            assert "execute" not in collector.of("order")
            # All has ended, and nothing of that has reached the collector.
            runner.process.kill()
            await connection.channel.close()
        with around.runner() as runner:
            connection = await ready(runner)
            await execute(connection, "late", SET, SAMPLED)
            await ended(connection, "late")
            await until(lambda: any(b"late" in request for request in around.receiver.requests))
            # One that is stopped in order leaves everything to its successor.
            code, _, logged = await asyncio.to_thread(runner.stop)
            assert code == 0, logged
            await connection.channel.close()
        collector.refuses = False
        with around.runner() as runner:
            await ready(runner)
            await until(lambda: all("execute" in collector.of(each) for each in ("order", "order~2")))
            await until(lambda: {"accept", "callback", "execute"} <= set(collector.of("late")))
            assert runner.metric('workflow_runner_spans_total{outcome="dropped"}') == 0
            code, _, logged = await asyncio.to_thread(runner.stop)
            assert code == 0, logged
        _assert_tree(around)


def _assert_tree(around: World) -> None:
    collector = around.collector
    order, sub = collector.of("order"), collector.of("order~2")
    root = order["execute"]
    assert {span.trace_id for span in collector.spans()} == {TRACE}
    assert {span.state for span in collector.spans()} == {"vendor=a"}
    assert (root.parent_id, root.name, root.error) == (CALLER, "execute shop/parent", "")
    assert root.attributes["fastrunner.execution.status"] == "completed"
    assert root.resource["service.name"] == "fastrunner"
    assert root.resource["deployment.environment"] == "tests"
    assert {"accept", "call_http outer", "run_workflow sub", "execute"} <= set(order)
    assert {"call_http inner", "execute"} <= set(sub)
    assert {order[name].parent_id for name in ("accept", "call_http outer", "run_workflow sub")} == {root.span_id}
    assert sub["execute"].parent_id == order["run_workflow sub"].span_id
    assert order["call_http outer"].attributes["fastrunner.effect.resumed"] is True
    assert sub["call_http inner"].attributes["fastrunner.effect.resumed"] is False
    roots = {root.span_id, sub["execute"].span_id, collector.of("late")["execute"].span_id}
    assert {parent_of(parent) for parent in around.receiver.parents} <= roots
    # Both attempts of the effect that a kill cut short are the same span to whom they called.
    outer, inner = order["call_http outer"].span_id, sub["call_http inner"].span_id
    assert [parent_of(asked["traceparent"]) for asked in around.asked] == [outer, outer, inner]
    assert {asked["tracestate"] for asked in around.asked} == {"vendor=a"}
    assert collector.orphans({CALLER}) == []
    assert collector.repeated() == []


async def test_callbacks_are_in_the_tree_and_what_is_not_sampled_is_nowhere(tmp_path: Path) -> None:
    async with world(tmp_path) as around, asyncio.timeout(180):
        around.gate.set()
        collector = around.collector
        call = "document: {dsl: 1.0.3, namespace: shop, name: one, version: 1.0.0}\n"
        call += "use: {secrets: [TOKEN]}\ndo:\n" + around.call("ask").replace(
            "/'", "/', headers: {x-token: '${ $secrets.TOKEN }'}, query: {q: '${ .input }'}"
        )
        failing = SET.partition("do:")[0] + (
            "do: [{fail: {raise: {error: {type: '${ .secret }', status: 400, title: t}}}}]\n"
        )
        with around.runner(
            ENV="staging", OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0"
        ) as runner:
            connection = await ready(runner)
            await execute(connection, "unsampled", call, UNSAMPLED)
            await execute(connection, "alone", call)
            for execution_id in ("unsampled", "alone"):
                assert (await ended(connection, execution_id)).status in ("completed", "failed")
            await execute(
                connection, "sampled", call, SAMPLED, config={"debug_enabled": True}, input_json='{"input": "private"}'
            )
            await execute(connection, "failed", failing, SAMPLED, input_json='{"secret": "https://a.test/private"}')
            await ended(connection, "sampled")
            assert (await ended(connection, "failed")).status == "failed"
            for execution_id in ("sampled", "failed"):
                await until(lambda each=execution_id: {"callback", "execute"} <= set(collector.of(each)))  # type: ignore[misc]
            of_callbacks = collector.spans()
            await _forwarded(runner, connection, collector)
            code, _, logged = await asyncio.to_thread(runner.stop)
            assert code == 0
        assert {span.attributes["fastrunner.execution.id"] for span in of_callbacks} == {"sampled", "failed"}
        assert collector.orphans({CALLER}) == []
        roots = {span.span_id for span in collector.spans() if span.name.startswith("execute")}
        sampled = [parent for parent in around.receiver.parents if parent != UNSAMPLED[0][1]]
        assert sampled
        assert {parent_of(parent) for parent in sampled} <= roots
        of = collector.of("sampled")
        root = of["execute"]
        for name in ("accept", "call_http ask"):
            assert root.began_ns <= of[name].began_ns <= of[name].ended_ns
        assert of["call_http ask"].ended_ns <= root.ended_ns
        failed = collector.of("failed")["execute"]
        assert failed.error == failed.attributes["error.type"] == "custom"
        _assert_correlated(logged, collector)
        assert collector.metadata[0]["x-key"] == KEY
        for private in (KEY, TOKEN, "a-secret-of-a-workflow", "private"):
            assert private not in collector.text
            assert private == "private" or private not in logged


def _assert_correlated(logged: str, collector: Collector) -> None:
    """Lines about an execution that is traced say where."""
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    about = [line for line in lines if line.get("execution_id") == "sampled"]
    assert about
    assert {(line["trace_id"], line["span_id"]) for line in about} == {
        (TRACE, collector.of("sampled")["execute"].span_id)
    }


async def _batch(connection: Connection, name: str, count: int) -> None:
    request = m.ExecuteAsyncBatchRequest(
        executions=[
            m.WorkflowExecuteInput(workflow_execution_id=f"{name}-{number}", workflow_yaml=SET)
            for number in range(count)
        ]
    )
    path = "/ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController/ExecuteAsyncBatch"
    await connection.channel.unary_unary(path)(request.SerializeToString(), timeout=60, metadata=SAMPLED)


async def _forwarded(runner: RunnerProcess, connection: Connection, collector: Collector) -> None:
    """What has come by another process says so: by the HTTP API, and from a busy worker."""
    small = "document: {dsl: 1.0.3, namespace: shop, name: small, version: 1.0.0}\ndo: [{s: {set: {b: 2}}}]\n"
    await connection.call(
        "RegisterWorkflow", r.RegisterWorkflowRequest(workflow_yaml=small), r.RegisterWorkflowResponse
    )
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{runner.ports['http_port']}/api/v1/executions"
        definition = {"namespace": "shop", "name": "small", "version": "1.0.0"}
        started = {"id": "by-http", "workflow": definition}
        async with session.post(url, json=started, headers={**WRITE, **dict(SAMPLED)}) as reply:
            assert reply.status in (200, 201, 202), await reply.text()
    # Of two batches at once on one connection the second goes to the other worker.
    for attempt in range(20):
        await asyncio.gather(_batch(connection, f"a-{attempt}", 300), _batch(connection, f"b-{attempt}", 20))
        await until(lambda at=attempt: "execute" in collector.of(f"b-{at}-19"))  # type: ignore[misc]
        if "forward" in collector.of(f"b-{attempt}-0"):
            break
    await until(lambda: "execute" in collector.of("by-http"))
    for execution_id in ("by-http", f"b-{attempt}-0"):
        spans = collector.of(execution_id)
        assert spans["execute"].parent_id == CALLER
        assert spans["accept"].parent_id == spans["execute"].span_id
        assert spans["forward"].parent_id == spans["accept"].span_id
