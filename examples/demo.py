"""The demo: a real runner, real callbacks, a killed worker, and a check that every execution ended as it should.

    python -m examples.demo [--workers 2] [--scale 1.0] [--plain]

Starts the orders service, the reference receiver and the runner on free ports of this machine with a temporary data
directory; submits the workflows of `catalog.py` over gRPC; pauses and resumes some; kills one worker half-way; and
exits with 0 only if every execution ended as its example says and the receiver saw every event once and in order.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import orjson

from examples.catalog import EXAMPLES, Example, secrets_for
from examples.demo_view import DemoView
from examples.orders_service import OrdersService
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

COMMANDS = "/ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController/"
START_TIMEOUT_S = 30.0
RUN_TIMEOUT_S = 180.0
REPLY_TIMEOUT_S = 30.0
SUBMISSIONS_IN_FLIGHT = 16


@dataclass(slots=True)
class Run:
    """One execution of the demo."""

    example: Example
    """What it executes."""
    number: int
    """Its number among the executions of its example."""
    execution_id: str
    """Its id."""
    status: str = "pending"
    """As its last event says."""
    result: Any = None
    """Output or error, once it has ended."""
    events: int = 0
    """Events received."""

    @property
    def ended(self) -> bool:
        """Whether its terminal event has arrived."""
        return self.status in ("completed", "failed", "cancelled")

    @property
    def right(self) -> bool:
        """Whether it ended as its example says."""
        return self.status == self.example.status and self.example.check(self.number, self.result)


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


def read_ports(file: Path) -> dict[str, int]:
    """What the runner wrote about its ports; empty before it has."""
    try:
        ports: dict[str, int] = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    return ports


@asynccontextmanager
async def process(
    *arguments: str, log: Path, stdout: int = DEVNULL, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """A child of the demo, stopped (SIGTERM, later SIGKILL) at the end; what it logs goes to a file."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FASTRUNNER_", "STIGMER_"))}
    with log.open("ab") as errors:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *arguments, stdout=stdout, stderr=errors, env={**inherited, **(settings or {})}
        )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), 40)
            except TimeoutError:
                child.kill()
                await child.wait()


NEXT = """\
next: `make serve` starts a runner; then, in another terminal,
  .venv/bin/fastrunner submit examples/routing.yaml --input '{"topic": "api", "severity": 3}' --follow
README.md goes on from there"""


class Demo:
    """One run of the demo."""

    def __init__(self, folder: Path, workers: int, scale: float, view: DemoView) -> None:
        self.folder = folder
        self.workers = workers
        self.view = view
        self.token = secrets.token_hex(8)
        self.runs = {
            execution_id: Run(example, number, execution_id)
            for example in EXAMPLES
            for number in range(max(1, round(example.count * scale)))
            for execution_id in [f"{example.name}-{number}"]
        }
        self.killed_pid = 0
        self.submitted_s = 0.0
        self.ended_s = 0.0
        self._half_way = asyncio.Event()
        self._paused: dict[str, asyncio.Event] = {
            run.execution_id: asyncio.Event() for run in self.runs.values() if run.example.paused
        }
        self._waiting: dict[str, asyncio.Event] = {execution_id: asyncio.Event() for execution_id in self._paused}

    @property
    def events(self) -> int:
        """Events received so far."""
        return sum(run.events for run in self.runs.values())

    async def run(self) -> bool:
        """Runs it all; whether everything was right."""
        data_dir = self.folder / "data"
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(OrdersService())
            arguments = ("fastrunner", "receiver", "--port", "0", "--json")
            log = self.folder / "receiver.log"
            key = {"FASTRUNNER_RECEIVER_TOKEN": self.token}
            receiver = await stack.enter_async_context(process(*arguments, log=log, stdout=PIPE, settings=key))
            settings = {
                "GRPC_PORT": "0",
                "FASTRUNNER_GRPC_HOST": "127.0.0.1",
                "FASTRUNNER_HTTP_PORT": "0",
                "FASTRUNNER_HTTP_HOST": "127.0.0.1",
                "FASTRUNNER_WORKERS": str(self.workers),
                "FASTRUNNER_DATA_DIR": str(data_dir),
                "STIGMER_SERVICE_ENDPOINT": await self._listening(receiver),
                "STIGMER_SERVICE_API_KEY": self.token,
                "STIGMER_SERVICE_USE_TLS": "false",
            }
            for name, value in secrets_for(service.url).items():
                settings[f"FASTRUNNER_SECRET_{name.upper()}"] = json.dumps(value)
            log = self.folder / "runner.log"
            runner = await stack.enter_async_context(process("fastrunner", "serve", log=log, settings=settings))
            reading = asyncio.create_task(self._read(receiver))
            try:
                grpc_port, http_port = await self._ready(runner, data_dir / "ports.json")
                self.view.say(f"the runner is ready: {self.workers} workers, gRPC on port {grpc_port}")
                async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                    await self._drive(channel, service.url, http_port)
            finally:
                receiver.terminate()
                await receiver.wait()
                reading.cancel()
            return self._verdict(receiver.returncode)

    async def _listening(self, receiver: Process) -> str:
        """Where the receiver listens, as its first line says."""
        assert receiver.stdout is not None
        line = await asyncio.wait_for(receiver.stdout.readline(), START_TIMEOUT_S)
        if not line:
            raise DemoFailed(f"the receiver ended; see {self.folder / 'receiver.log'}")
        return str(orjson.loads(line)["listening"])

    async def _ready(self, runner: Process, ports_file: Path) -> tuple[int, int]:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if runner.returncode is not None:
                raise DemoFailed(f"the runner ended with {runner.returncode}; see {self.folder / 'runner.log'}")
            ports = read_ports(ports_file)
            if ports and (await self._readiness(ports["http_port"]))["ready"]:
                return ports["grpc_port"], ports["http_port"]
            await asyncio.sleep(0.05)
        raise DemoFailed(f"the runner was not ready within {START_TIMEOUT_S:.0f} s; see {self.folder / 'runner.log'}")

    async def _readiness(self, http_port: int) -> Any:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{http_port}/readyz") as reply:
                return orjson.loads(await reply.read())
        except aiohttp.ClientError:
            return {"ready": False, "workers": []}

    async def _drive(self, channel: grpc.aio.Channel, url: str, http_port: int) -> None:
        self.submitted_s = time.monotonic()
        tasks = [asyncio.create_task(self._pause_and_resume(channel, execution_id)) for execution_id in self._paused]
        tasks.append(asyncio.create_task(self._kill_half_way(http_port)))
        await self._submit_all(channel, url)
        self.view.say(f"{len(self.runs)} executions submitted in {time.monotonic() - self.submitted_s:.1f} s")
        deadline_s = time.monotonic() + RUN_TIMEOUT_S
        try:
            while not all(run.ended for run in self.runs.values()):
                if time.monotonic() > deadline_s:
                    raise DemoFailed(f"not all executions ended within {RUN_TIMEOUT_S:.0f} s")
                self.view.refresh(self.runs.values(), self.events, time.monotonic() - self.submitted_s)
                await asyncio.sleep(0.1)
            self.ended_s = time.monotonic()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            self.view.refresh(self.runs.values(), self.events, time.monotonic() - self.submitted_s)

    async def _call(self, channel: grpc.aio.Channel, method: str, request: Any) -> None:
        """One call, repeated while the worker behind the connection is away: every method here may be repeated."""
        call = channel.unary_unary(
            COMMANDS + method, request_serializer=type(request).SerializeToString, response_deserializer=bytes
        )
        deadline_s = time.monotonic() + REPLY_TIMEOUT_S
        while True:
            try:
                await call(request, timeout=REPLY_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline_s:
                    raise DemoFailed(f"{method}: {error.code().name}: {error.details()}") from None
                await asyncio.sleep(0.1)
            else:
                return

    async def _submit_all(self, channel: grpc.aio.Channel, url: str) -> None:
        places = asyncio.Semaphore(SUBMISSIONS_IN_FLIGHT)

        async def submit(run: Run) -> None:
            request = messages_pb2.WorkflowExecuteInput(
                workflow_execution_id=run.execution_id,
                workflow_yaml=run.example.document(),
                input_json=orjson.dumps(run.example.input(run.number, url)).decode(),
            )
            async with places:
                await self._call(channel, "ExecuteAsync", request)
                self.view.refresh(self.runs.values(), self.events, time.monotonic() - self.submitted_s)

        # Round robin over the examples, so that all of them are under way when the worker is killed.
        await asyncio.gather(*(submit(run) for run in sorted(self.runs.values(), key=lambda run: run.number)))

    async def _pause_and_resume(self, channel: grpc.aio.Channel, execution_id: str) -> None:
        await self._waiting[execution_id].wait()
        pause = messages_pb2.PauseExecutionRequest(execution_id=execution_id, reason="the demo pauses it")
        await self._call(channel, "PauseExecution", pause)
        await self._paused[execution_id].wait()
        resume = messages_pb2.ResumeExecutionRequest(execution_id=execution_id, reason="the demo resumes it")
        await self._call(channel, "ResumeExecution", resume)

    async def _kill_half_way(self, http_port: int) -> None:
        await self._half_way.wait()
        self.killed_pid = (await self._readiness(http_port))["workers"][0]["pid"]
        unfinished = sum(not run.ended for run in self.runs.values())
        os.kill(self.killed_pid, signal.SIGKILL)
        self.view.say(f"killed worker 0 (process {self.killed_pid}) while {unfinished} executions were unfinished")

    async def _read(self, receiver: Process) -> None:
        assert receiver.stdout is not None
        while line := await receiver.stdout.readline():
            event = orjson.loads(line)
            run = self.runs.get(event.get("workflowExecutionId", ""))
            if run is None:
                continue
            self._take(run, event)

    def _take(self, run: Run, event: dict[str, Any]) -> None:
        run.events += 1
        if not event.get("taskName"):
            run.status = event["status"]
        kind = event["eventType"]
        self.view.step(event)
        if run.execution_id in self._paused:
            if kind == "task_started" and event["taskName"] == "objectionPeriod":
                self._waiting[run.execution_id].set()
            elif kind == "workflow_paused":
                self._paused[run.execution_id].set()
        if kind == "workflow_completed":
            run.result = orjson.loads(event["outputJson"])
        elif kind == "workflow_failed":
            error = event["error"]
            run.result = {key: error[key] for key in ("type", "status", "title", "detail", "instance") if key in error}
        if run.ended and sum(run.ended for run in self.runs.values()) >= len(self.runs) // 2:
            self._half_way.set()

    def _verdict(self, receiver_code: int | None) -> bool:
        wrong = [run for run in self.runs.values() if not run.right]
        self.view.summary(self.runs.values(), self.events, self.ended_s - self.submitted_s, self.killed_pid)
        for run in wrong[:10]:
            self.view.say(f"{run.execution_id} ended {run.status} with {run.result}: not as {run.example.file} says")
        if receiver_code:
            self.view.say(f"the receiver found violations; see {self.folder / 'receiver.log'}")
        return not wrong and not receiver_code


def main() -> None:
    """Runs the demo; exits with 0 if everything was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of executions")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live display")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fastrunner-demo-"))
    right = False
    try:
        with DemoView(live=not options.plain) as view:
            try:
                right = asyncio.run(Demo(folder, options.workers, options.scale, view).run())
            except DemoFailed as failure:
                view.say(f"the demo failed: {failure}")
            except KeyboardInterrupt:
                view.say("interrupted; everything the demo started is stopped")
            view.say(f"data and logs: {folder}" + (" (removed now)" if right else ""))
            if right:
                view.say(NEXT)
    finally:
        if right:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
