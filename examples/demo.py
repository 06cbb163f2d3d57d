"""The demo: a real runner, a real Stigmer Service with its console, a killed worker, and a check that all ended well.

    python -m examples.demo [--store sqlite|mongo] [--workers 2] [--scale 1.0] [--only NAME ...] [--plain] [--stay]

Starts the orders service, the reference Stigmer Service and the runner on free ports of this machine with temporary
data directories; starts the workflows of `catalog.py` over the HTTP API and follows them; pauses and resumes some;
kills one worker half-way; and is right only if every execution ended as its example says and the service's store is
whole. On a terminal it then stays, with the console, until Ctrl-C. Exits with 0 if all was right. With `--store mongo`
two services share a MongoDB and a Redis (see `demo_store.py`), and the demo follows what one takes at both.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from examples.catalog import EXAMPLES, Example, secrets_for
from examples.demo_store import STORES, DemoFailed, DemoStore, store_of
from examples.demo_view import DemoView
from examples.orders_service import OrdersService

WRITE = {"X-Requested-By": "demo"}
"""What the HTTP API wants of requests that change something."""
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

    def __init__(self, folder: Path, options: argparse.Namespace, store: DemoStore, view: DemoView) -> None:
        self.stays = bool(options.stay)
        self.is_right = False
        self.folder = folder
        self.workers = int(options.workers)
        self.store = store
        self.view = view
        self.token = secrets.token_hex(8)
        self.examples = [example for example in EXAMPLES if not options.only or example.name in options.only]
        self.runs = {
            execution_id: Run(example, number, execution_id)
            for example in self.examples
            for number in range(max(1, round(example.count * options.scale)))
            for execution_id in [f"{example.name}-{number}{store.suffix}"]
        }
        self._apis: Sequence[aiohttp.ClientSession] = ()
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

    async def run(self) -> None:
        """Runs it all; `is_right` tells how it went."""
        data_dir = self.folder / "data"
        async with AsyncExitStack() as stack:
            orders = await stack.enter_async_context(OrdersService())
            runner_port = free_port()
            services = [await self._start_service(stack, runner_port) for _ in range(self.store.services)]
            ports = services[0][1]
            settings = {
                "GRPC_PORT": str(runner_port),
                "FASTRUNNER_GRPC_HOST": "127.0.0.1",
                "FASTRUNNER_HTTP_PORT": "0",
                "FASTRUNNER_HTTP_HOST": "127.0.0.1",
                "FASTRUNNER_WORKERS": str(self.workers),
                "FASTRUNNER_DATA_DIR": str(data_dir),
                "STIGMER_SERVICE_ENDPOINT": f"127.0.0.1:{ports['grpc_port']}",
                "STIGMER_SERVICE_API_KEY": self.token,
                "STIGMER_SERVICE_USE_TLS": "false",
            }
            for name, value in secrets_for(orders.url).items():
                settings[f"FASTRUNNER_SECRET_{name.upper()}"] = json.dumps(value)
            log = self.folder / "runner.log"
            runner = await stack.enter_async_context(process("fastrunner", "serve", log=log, settings=settings))
            grpc_port, http_port = await self._ready(runner, data_dir / "ports.json")
            consoles = [f"http://127.0.0.1:{ports['http_port']}" for _, ports in services]
            self.view.say(f"the runner is ready: {self.workers} workers, gRPC on port {grpc_port}")
            self.view.say(f"the console is at {'/ and at '.join(consoles)}/")
            await self._drive_at(consoles, orders.url, http_port)
            are_there = all(service.returncode is None for service, _ in services)
            self.is_right = self._verdict(await self._verify() and are_there)
            if self.is_right and self.stays:
                self.view.say(f"all is right; look at it in the console: {consoles[0]}/ (Ctrl-C ends the demo)")
                await asyncio.Event().wait()

    async def _drive_at(self, consoles: Sequence[str], orders_url: str, http_port: int) -> None:
        """Drives the first of the services, and follows at all of them."""
        async with AsyncExitStack() as stack:
            self._apis = [
                await stack.enter_async_context(
                    aiohttp.ClientSession(f"{console}/api/v1/", connector=aiohttp.TCPConnector(limit=0))
                )
                for console in consoles
            ]
            await self._drive(self._apis[0], orders_url, http_port)

    async def _start_service(self, stack: AsyncExitStack, runner_port: int) -> tuple[Process, dict[str, int]]:
        """A Stigmer Service, and its ports, as its first line says."""
        arguments = ["fastrunner", "stigmer", "serve", *self.store.flags]
        arguments += ["--runner", f"127.0.0.1:{runner_port}", "--grpc-port", "0", "--http-port", "0"]
        log = self.folder / "service.log"
        settings = {"FASTRUNNER_RECEIVER_TOKEN": self.token, **self.store.settings}
        service = await stack.enter_async_context(process(*arguments, log=log, stdout=PIPE, settings=settings))
        assert service.stdout is not None
        line = await asyncio.wait_for(service.stdout.readline(), START_TIMEOUT_S)
        if not line:
            raise DemoFailed(f"the service ended; see {log}")
        ports: dict[str, int] = orjson.loads(line)["serving"]
        return service, ports

    async def _verify(self) -> bool:
        """Whether the services' store is whole: nothing missing, nothing twice, one end each."""
        arguments = ("fastrunner", "stigmer", "verify", *self.store.flags)
        log = self.folder / "verify.log"
        async with process(*arguments, log=log, stdout=PIPE, settings=self.store.settings) as verifying:
            said, _ = await verifying.communicate()
        self.view.say(f"the service's store: {said.decode().strip()}")
        return verifying.returncode == 0

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

    async def _drive(self, api: aiohttp.ClientSession, url: str, http_port: int) -> None:
        self.submitted_s = time.monotonic()
        tasks = [asyncio.create_task(self._pause_and_resume(api, execution_id)) for execution_id in self._paused]
        tasks.append(asyncio.create_task(self._kill_half_way(http_port)))
        following: list[asyncio.Task[None]] = []
        try:
            following = await self._start_all(api, url)
            self.view.say(f"{len(self.runs)} executions started in {time.monotonic() - self.submitted_s:.1f} s")
            deadline_s = time.monotonic() + RUN_TIMEOUT_S
            while not all(run.ended for run in self.runs.values()):
                if time.monotonic() > deadline_s:
                    raise DemoFailed(f"not all executions ended within {RUN_TIMEOUT_S:.0f} s")
                self.view.refresh(self.runs.values(), self.events, time.monotonic() - self.submitted_s)
                await asyncio.sleep(0.1)
            self.ended_s = time.monotonic()
            await asyncio.gather(*tasks, *following)
        finally:
            for task in (*tasks, *following):
                task.cancel()
            self.view.refresh(self.runs.values(), self.events, time.monotonic() - self.submitted_s)

    async def _post(self, api: aiohttp.ClientSession, path: str, body: Any) -> Any:
        """One request, repeated while the worker it leads to is away: every one here may be repeated."""
        deadline_s = time.monotonic() + REPLY_TIMEOUT_S
        while True:
            async with api.post(path, json=body, headers=WRITE) as reply:
                text = await reply.read()
            if reply.status < 400:
                return orjson.loads(text) if text else None
            if reply.status not in (429, 503) or time.monotonic() > deadline_s:
                raise DemoFailed(f"{path}: {reply.status}: {text.decode()}")
            await asyncio.sleep(0.1)

    async def _start_all(self, api: aiohttp.ClientSession, url: str) -> list[asyncio.Task[None]]:
        """Creates the workflows, starts all executions; gives who follows them."""
        workflows: dict[str, Any] = {}
        for example in self.examples:
            kept = await self._post(api, "workflows", {"document": example.document()})
            workflows[example.name] = {key: kept[key] for key in ("namespace", "name", "version")}
        places = asyncio.Semaphore(SUBMISSIONS_IN_FLIGHT)

        async def start(run: Run) -> asyncio.Task[None]:
            body = {
                "id": run.execution_id,
                "workflow": workflows[run.example.name],
                "input": run.example.input(run.number, url),
                "labels": {"example": run.example.name},
            }
            async with places:
                await self._post(api, "executions", body)
                self.view.refresh(self.runs.values(), self.events, time.monotonic() - self.submitted_s)
            return asyncio.create_task(self._follow(self._apis[run.number % len(self._apis)], run))

        # Round robin over the examples, so that all of them are under way when the worker is killed.
        return await asyncio.gather(*(start(run) for run in sorted(self.runs.values(), key=lambda run: run.number)))

    async def _follow(self, api: aiohttp.ClientSession, run: Run) -> None:
        """Reads an execution's events as they come; a stream that ends early goes on after the last one."""
        while not run.ended:
            path = f"executions/{run.execution_id}/events/stream?after={run.events}"
            async with api.get(path, timeout=aiohttp.ClientTimeout(total=None)) as reply:
                is_event = False
                async for line in reply.content:
                    if line.startswith(b"event: "):
                        is_event = line == b"event: progress\n"
                    elif is_event and line.startswith(b"data: "):
                        self._take(run, orjson.loads(line[len(b"data: ") :]))

    async def _pause_and_resume(self, api: aiohttp.ClientSession, execution_id: str) -> None:
        await self._waiting[execution_id].wait()
        await self._post(api, f"executions/{execution_id}/pause", {"reason": "the demo pauses it"})
        await self._paused[execution_id].wait()
        await self._post(api, f"executions/{execution_id}/resume", {"reason": "the demo resumes it"})

    async def _kill_half_way(self, http_port: int) -> None:
        await self._half_way.wait()
        self.killed_pid = (await self._readiness(http_port))["workers"][0]["pid"]
        unfinished = sum(not run.ended for run in self.runs.values())
        os.kill(self.killed_pid, signal.SIGKILL)
        self.view.say(f"killed worker 0 (process {self.killed_pid}) while {unfinished} executions were unfinished")

    def _take(self, run: Run, event: dict[str, Any]) -> None:
        run.events += 1
        if not event.get("task_name"):
            run.status = event["status"]
        kind = event["event_type"]
        self.view.step(event)
        if run.execution_id in self._paused:
            if kind == "task_started" and event["task_name"] == "objectionPeriod":
                self._waiting[run.execution_id].set()
            elif kind == "workflow_paused":
                self._paused[run.execution_id].set()
        if kind == "workflow_completed":
            run.result = orjson.loads(event["output_json"])
        elif kind == "workflow_failed":
            error = event["error"]
            run.result = {key: error[key] for key in ("type", "status", "title", "detail", "instance") if key in error}
        if run.ended and sum(run.ended for run in self.runs.values()) >= len(self.runs) // 2:
            self._half_way.set()

    def _verdict(self, is_whole: bool) -> bool:
        wrong = [run for run in self.runs.values() if not run.right]
        self.view.summary(self.runs.values(), self.events, self.ended_s - self.submitted_s, self.killed_pid)
        for run in wrong[:10]:
            self.view.say(f"{run.execution_id} ended {run.status} with {run.result}: not as {run.example.file} says")
        if not is_whole:
            self.view.say(f"the service's store is not whole; see {self.folder}")
        return not wrong and is_whole


def free_port() -> int:
    """A port that nobody has: the service is told of the runner's before there is a runner."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def main() -> None:
    """Runs the demo; exits with 0 if everything was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=STORES, default=STORES[0], help="what the services keep it in")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of executions")
    names = [example.name for example in EXAMPLES]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="this example; may be repeated")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live display")
    is_watched = sys.stdout.isatty() and sys.stdin.isatty()
    parser.add_argument("--stay", action="store_true", default=is_watched, help="until Ctrl-C, as on a terminal")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fastrunner-demo-"))
    is_right = False

    async def run() -> None:
        nonlocal is_right
        async with store_of(options.store, folder) as store:
            if store.words:
                view.say(store.words)
            demo = Demo(folder, options, store, view)
            try:
                await demo.run()
            finally:
                is_right = demo.is_right

    with DemoView(live=not options.plain) as view:
        try:
            asyncio.run(run())
        except DemoFailed as failure:
            view.say(f"the demo failed: {failure}")
        except KeyboardInterrupt:
            view.say("everything the demo started is stopped")
        view.say(f"data and logs: {folder}" + (" (removed now)" if is_right else ""))
        if is_right:
            view.say(NEXT)
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
