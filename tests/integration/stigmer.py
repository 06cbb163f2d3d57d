"""Support: a Stigmer Service in a test's loop or as a process, what calls it, and a runner with a will of its own."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    ExecuteAsyncBatchResult,
    ReportProgressBatchRequest,
    ReportProgressBatchResponse,
    WorkflowExecuteInput,
    WorkflowExecuteResponse,
    WorkflowProgressEvent,
)
from fastrunner.stigmer.reports import SERVICE
from fastrunner.stigmer.server import ServiceOptions, StigmerService
from tests.integration.runner_process import ROOT

TOKEN = "report-secret"
REGISTRY = "ai.stigmer.workflow.runner.v1.WorkflowRegistryController"
QUERY = "ai.stigmer.workflow.runner.v1.WorkflowRunnerQueryController"
WRITE = {"X-Requested-By": "tests"}
SMALL = "document: {dsl: 1.0.0, namespace: tests, name: small, version: 1.0.0}\ndo: [{one: {set: {a: 1}}}]\n"
LONG = (
    "document: {dsl: 1.0.0, namespace: tests, name: long, version: 1.0.0}\n"
    "do: [{first: {set: {a: 1}}}, {second: {wait: {seconds: 3600}}}, {third: {set: {b: 2}}}]\n"
)


def event(execution_id: str, sequence: int, event_type: str = "task_started", **more: Any) -> WorkflowProgressEvent:
    """One as a runner sends them."""
    more = {"status": "running", "timestamp_ms": time.time_ns() // 1_000_000, "workflow_name": "small", **more}
    return WorkflowProgressEvent(
        workflow_execution_id=execution_id, sequence_number=sequence, event_type=event_type, **more
    )


class ScriptedRunner:
    """Answers ExecuteAsyncBatch as it is told to, and notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[WorkflowExecuteInput]] = []
        self.answers: list[Callable[[WorkflowExecuteInput], ExecuteAsyncBatchResult] | grpc.StatusCode] = []
        """One for each call to come: of an execution, or of the whole call; then everything is accepted."""
        self.commands: list[tuple[str, bytes]] = []
        self.known: dict[str, str] | None = None
        """What executions wait for, of those that it has; None: it has all, and says nothing."""
        self.refusals: dict[str, grpc.StatusCode] = {}
        """What commands are refused with, by method."""
        self.port = 0

    @property
    def ids(self) -> list[str]:
        return [each.workflow_execution_id for call in self.calls for each in call]

    async def _execute(self, request: bytes, context: Any) -> bytes:
        asked = list(ExecuteAsyncBatchRequest.FromString(request).executions)
        self.calls.append(asked)
        answer = self.answers.pop(0) if self.answers else _accepted
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "as scripted")
        assert callable(answer)
        return ExecuteAsyncBatchResponse(results=map(answer, asked)).SerializeToString()

    def _command(self, method: str) -> Callable[[bytes, Any], Any]:
        async def take(request: bytes, context: Any) -> bytes:
            self.commands.append((method, request))
            if method in self.refusals:
                await context.abort(self.refusals[method], f"{method}: as scripted")
            return b""

        return take

    async def _find(self, request: bytes, context: Any) -> bytes:
        execution_id = query_pb2.GetExecutionRequest.FromString(request).execution_id
        if "GetExecution" in self.refusals:
            await context.abort(self.refusals["GetExecution"], "as scripted")
        if self.known is not None and execution_id not in self.known:
            await context.abort(grpc.StatusCode.NOT_FOUND, "as scripted")
        found = query_pb2.Execution(execution_id=execution_id, waiting=(self.known or {}).get(execution_id, ""))
        return query_pb2.GetExecutionResponse(execution=found).SerializeToString()

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["ScriptedRunner"]:
        methods: dict[str, Any] = {"ExecuteAsyncBatch": self._execute}
        methods |= {f"{name}Execution": self._command(name) for name in ("Cancel", "Pause", "Resume")}
        methods["SendEvents"] = self._command("SendEvents")
        names = ("AddSchedule", "ListSchedules", "PauseSchedule", "ResumeSchedule", "DeleteSchedule", "FireSchedule")
        of_registry = {name: grpc.unary_unary_rpc_method_handler(self._command(name)) for name in names}
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, handlers),
                grpc.method_handlers_generic_handler(REGISTRY, of_registry),
                grpc.method_handlers_generic_handler(
                    QUERY, {"GetExecution": grpc.unary_unary_rpc_method_handler(self._find)}
                ),
            )
        )
        self.port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)


def _accepted(asked: WorkflowExecuteInput) -> ExecuteAsyncBatchResult:
    accepted = WorkflowExecuteResponse(workflow_execution_id=asked.workflow_execution_id, status="running")
    return ExecuteAsyncBatchResult(accepted=accepted)


class Reporter:
    """Reports as a runner does."""

    def __init__(self, channel: grpc.aio.Channel, token: str | None = TOKEN) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def send(self, *events: WorkflowProgressEvent, method: str = "ReportProgressBatch") -> dict[str, int]:
        """What is acknowledged."""
        call = self._channel.unary_unary(f"/{SERVICE}/{method}", None, None)
        request = ReportProgressBatchRequest(events=events).SerializeToString()
        reply = ReportProgressBatchResponse.FromString(await call(request, metadata=self._metadata))
        return {ack.workflow_execution_id: ack.sequence_number for ack in reply.acknowledgements}

    async def raw(self, method: str, request: bytes) -> bytes:
        """Any bytes."""
        call = self._channel.unary_unary(f"/{SERVICE}/{method}", None, None)
        reply: bytes = await call(request, metadata=self._metadata)
        return reply


class Client:
    """A client of the HTTP API."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session = session
        self.base = f"http://127.0.0.1:{port}"

    async def get(self, path: str, **more: Any) -> tuple[int, Any]:
        """Status and body."""
        async with self.session.get(f"{self.base}/api/v1{path}", **more) as reply:
            return reply.status, await _body(reply)

    async def post(self, path: str, body: Any = None, headers: dict[str, str] = WRITE) -> tuple[int, Any]:
        """Status and body."""
        async with self.session.post(f"{self.base}/api/v1{path}", json=body, headers=headers) as reply:
            return reply.status, await _body(reply)

    async def follow(
        self, execution_id: str, after: int = 0, count: int = 10**6, last_id: str = ""
    ) -> list[dict[str, Any]]:
        """What the stream sends, up to its end, or so many events: `event`, `id` if there is one, `data`."""
        path = f"/api/v1/executions/{execution_id}/events/stream?after={after}"
        async with self.session.get(self.base + path, headers={"Last-Event-ID": last_id} if last_id else None) as reply:
            if reply.status != 200:
                return [{"status": reply.status}]
            found: list[dict[str, Any]] = []
            async for each in messages(reply):
                found.append(each)
                if len(found) >= count:
                    break
            return found

    @contextlib.asynccontextmanager
    async def feed(self, query: str = "") -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What the feed of changes sends: `event`, `id`, `data`."""
        async with self.session.get(f"{self.base}/api/v1/feed{query}") as reply:
            assert reply.status == 200, await reply.text()
            yield messages(reply)


async def messages(reply: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Server-sent events as they come: `event`, `id` if there is one, `data`."""
    current: dict[str, Any] = {}
    async for line in reply.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            current[name] = json.loads(value) if name == "data" else value
        else:
            if "data" in current:
                yield current
            current = {}


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """The first true value of a coroutine function; connection errors count as not yet."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while True:
        value = None
        with contextlib.suppress(aiohttp.ClientError, OSError):
            value = await condition()
        if value:
            return value
        assert loop.time() < deadline_s, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.05)


async def _body(reply: aiohttp.ClientResponse) -> Any:
    text = await reply.text()
    return json.loads(text) if reply.content_type.endswith("json") else text


@contextlib.asynccontextmanager
async def service(
    folder: Path, runner_port: int = 1, **changes: Any
) -> AsyncIterator[tuple[StigmerService, Reporter, Client]]:
    """A service on this loop, and what talks to its ports."""
    options = ServiceOptions(
        data_dir=folder,
        runner=f"127.0.0.1:{runner_port}",
        **{"grpc_port": 0, "http_port": 0, "report_token": TOKEN, "drain_timeout_s": 2.0, **changes},
    )
    served = StigmerService(options)
    async with (
        served.serving(),
        grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel,
        aiohttp.ClientSession() as session,
    ):
        yield served, Reporter(channel), Client(session, served.http_port)


class ServiceProcess:
    """`fastrunner stigmer serve` as a process; `settings` are variables."""

    def __init__(
        self, folder: Path, runner: str, *flags: str, grpc_port: int = 0, http_port: int = 0, **settings: Any
    ) -> None:
        command = [
            sys.executable,
            "-m",
            "fastrunner",
            "stigmer",
            "serve",
            "--data-dir",
            str(folder),
            "--runner",
            runner,
        ]
        command += ["--grpc-port", str(grpc_port), "--http-port", str(http_port), *flags]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "FASTRUNNER_RECEIVER_TOKEN": TOKEN, **settings},
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it did not begin: {self.process.wait()}"
        said = json.loads(line)["serving"]
        self.grpc_port, self.http_port = int(said["grpc_port"]), int(said["http_port"])

    def kill(self) -> None:
        """Without a word."""
        self.process.kill()
        self.process.communicate(timeout=30)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode


@contextlib.contextmanager
def service_process(folder: Path, runner: str, *flags: str, **more: Any) -> Iterator[ServiceProcess]:
    """Gone afterwards, however the test ends; `more` are ports and variables."""
    served = ServiceProcess(folder, runner, *flags, **more)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.kill()


def verified(folder: Path, **settings: str) -> tuple[int, dict[str, int], list[dict[str, Any]]]:
    """What `fastrunner stigmer verify` says of a store: exit code, summary, findings; `settings` are variables."""
    command = [sys.executable, "-m", "fastrunner", "stigmer", "verify", "--data-dir", str(folder), "--json"]
    environment = {**os.environ, **settings}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return done.returncode, lines[-1]["summary"], [line["finding"] for line in lines[:-1]]
