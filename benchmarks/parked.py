"""Support: what executions that only wait cost a running tree: memory, admission beside them, late timers, recovery.

    python -m benchmarks.parked --executions 1000000 --data-dir /var/tmp/parked

Starts `fastrunner serve`, fills it over gRPC, wakes some at a steady rate, kills the whole tree and starts it again.
"""

import argparse
import asyncio
import operator
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import grpc
import orjson
from rich.progress import Progress

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    WorkflowExecuteInput,
    WorkflowExecuteResponse,
    WorkflowProgressEvent,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import GetEventsRequest, GetEventsResponse, SubscribeRequest

SLEEPER = """\
document: {dsl: 1.0.3, namespace: bench, name: sleeper, version: 1.0.0}
do:
- rest: {wait: "${ .for }"}
- then: {set: {rested: true}}
"""
CALLER = """\
document: {dsl: 1.0.3, namespace: bench, name: caller, version: 1.0.0}
do:
- ask: {call: http, with: {method: get, endpoint: "%s"}}
"""
BATCH = 500
_CONTROLLERS = ("Command", "Query")
_wire = operator.methodcaller("SerializeToString")
SAMPLE = 1_000


class Tree:
    """One process tree."""

    def __init__(self, data_dir: Path, workers: int) -> None:
        self._data_dir = data_dir
        self._environment = {
            **os.environ,
            "GRPC_PORT": "0",
            "FASTRUNNER_HTTP_PORT": "0",
            "FASTRUNNER_GRPC_HOST": "127.0.0.1",
            "FASTRUNNER_HTTP_HOST": "127.0.0.1",
            "FASTRUNNER_DATA_DIR": str(data_dir),
            "FASTRUNNER_WORKERS": str(workers),
            "FASTRUNNER_EXECUTIONS_MAX": "10000000",
        }
        self._process: asyncio.subprocess.Process

    async def start(self) -> float:
        """Starts it; how long it took to be ready, in seconds."""
        begun_s = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fastrunner", "serve", env=self._environment, start_new_session=True,
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        while True:
            with suppress(OSError, orjson.JSONDecodeError):
                ports = orjson.loads((self._data_dir / "ports.json").read_bytes())
                if ports["pid"] == self._process.pid:
                    break
            assert self._process.returncode is None, "the runner ended"
            await asyncio.sleep(0.005)
        ready_s = time.monotonic() - begun_s
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc_port']}")
        commands, queries = (f"/ai.stigmer.workflow.runner.v1.WorkflowRunner{each}Controller/" for each in _CONTROLLERS)
        one, many = self.channel.unary_unary, self.channel.unary_stream
        self.accept: Any = one(f"{commands}ExecuteAsync", _wire, WorkflowExecuteResponse.FromString)
        self.accept_batch: Any = one(f"{commands}ExecuteAsyncBatch", _wire, ExecuteAsyncBatchResponse.FromString)
        self.events: Any = one(f"{queries}GetEvents", _wire, GetEventsResponse.FromString)
        self.follow: Any = many(f"{queries}Subscribe", _wire, WorkflowProgressEvent.FromString)
        return ready_s

    async def end(self, signum: signal.Signals) -> None:
        """Ends every process of it with a signal."""
        await self.channel.close(None)
        os.killpg(self._process.pid, signum)
        await self._process.wait()

    def memory(self) -> str:
        """Memory of the tree: the sum of what its processes have resident, and of their shares."""
        pids = [self._process.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return f"rss {_mib(pids, 'Rss'):.0f} MiB, pss {_mib(pids, 'Pss'):.0f} MiB"

    def rss_bytes(self) -> float:
        """Resident bytes of all its processes."""
        pids = [self._process.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return _mib(pids, "Rss") * 2**20


def _mib(pids: Sequence[int], field: str) -> float:
    total_kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{field}:"):
                total_kib += int(line.split()[1])
    return total_kib / 1024


def quantiles(values: Sequence[float]) -> str:
    """Median, p99 and maximum of durations in milliseconds."""
    ordered = sorted(values)
    if not ordered:
        return "nothing measured"
    last = len(ordered) - 1
    return f"p50 {ordered[last // 2]:.1f} ms, p99 {ordered[last * 99 // 100]:.1f} ms, max {ordered[-1]:.1f} ms"


async def accept_all(tree: Tree, inputs: Sequence[WorkflowExecuteInput]) -> None:
    """Accepts a batch; what an overloaded runner refuses is asked for again."""
    while inputs:
        try:
            reply = await tree.accept_batch(ExecuteAsyncBatchRequest(executions=inputs))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
        else:
            answers = list(zip(inputs, reply.results, strict=True))
            inputs = [each for each, result in answers if not result.HasField("accepted")]
            codes = {result.refused.code for _, result in answers if not result.HasField("accepted")}
            assert codes <= {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}, codes
        if inputs:
            await asyncio.sleep(0.2)


async def submit(tree: Tree, inputs: Sequence[WorkflowExecuteInput], what: str) -> None:
    """Accepts executions in batches, a few at a time."""
    batches = [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
    begun_s = time.monotonic()
    with Progress(disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task(what, total=len(inputs))

        async def work() -> None:
            while batches:
                batch = batches.pop()
                await accept_all(tree, batch)
                progress.advance(bar, len(batch))

        await asyncio.gather(*(work() for _ in range(8)))
    spent_s = time.monotonic() - begun_s
    print(f"{what}: {len(inputs)} in {spent_s:.1f} s, {len(inputs) / spent_s:.0f}/s; {tree.memory()}", flush=True)


def sleepers(prefix: str, waits: Sequence[str]) -> list[WorkflowExecuteInput]:
    """Executions that wait for ISO 8601 durations."""
    return [
        WorkflowExecuteInput(
            workflow_execution_id=f"{prefix}-{number}", workflow_yaml=SLEEPER, input_json=f'{{"for": "{wait}"}}'
        )
        for number, wait in enumerate(waits)
    ]


async def accept_latency(tree: Tree, prefix: str, rate: int, seconds: float) -> str:
    """Latency of single accepts at a steady rate, each measured from when it was due."""
    latencies: list[float] = []
    refused_count = 0
    template = sleepers(prefix, ["PT12H"])[0]
    begun_s = time.monotonic()

    async def one(number: int) -> None:
        nonlocal refused_count
        request = WorkflowExecuteInput()
        request.CopyFrom(template)
        request.workflow_execution_id = f"{prefix}-{number}"
        due_s = begun_s + number / rate
        await asyncio.sleep(due_s - time.monotonic())
        try:
            await tree.accept(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refused_count += 1
        else:
            latencies.append((time.monotonic() - due_s) * 1000)

    await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))
    return f"accept at {rate}/s: {quantiles(latencies)}, {refused_count} refused"


async def wakes(tree: Tree, rate: int, seconds: int, lead_s: float) -> None:
    """Wakes executions at a steady rate, in an order that is not that of their acceptance."""
    count = rate * seconds
    start_ms = int(_now_ms() + lead_s * 1000)
    offsets = list(range(count))
    random.Random(1).shuffle(offsets)
    deadlines_ms = [start_ms + offset * 1000 // rate for offset in offsets]
    prefix = f"wake-{start_ms}"
    for first in range(0, count, BATCH):
        part = deadlines_ms[first : first + BATCH]
        now_ms = _now_ms()
        inputs = sleepers(prefix, [f"PT{(deadline_ms - now_ms) / 1000:.3f}S" for deadline_ms in part])
        for number, each in enumerate(inputs):
            each.workflow_execution_id = f"{prefix}-{first + number}"
        await accept_all(tree, inputs)
    left_s = (start_ms - _now_ms()) / 1000
    print(f"{count} to wake accepted {left_s:.1f} s before the first is due; {tree.memory()}", flush=True)
    sample = random.Random(2).sample(range(count), min(SAMPLE, count))
    seen: list[float] = []
    followers = [asyncio.create_task(_follow(tree, f"{prefix}-{number}", seen)) for number in sample[: SAMPLE // 5]]
    await asyncio.sleep(left_s + seconds / 2)
    print(f"while {rate}/s wake: {await accept_latency(tree, f'beside-{start_ms}', 200, seconds / 3)}; {tree.memory()}")
    await asyncio.sleep(seconds / 6 + 5)
    late = [each for number in sample for each in await _lateness(tree, f"{prefix}-{number}")]
    await asyncio.wait_for(asyncio.gather(*followers), 60)
    print(f"late at {rate} wakes/s: turn {quantiles(late)}; durable and seen by a subscriber {quantiles(seen)}")
    if len(late) < len(sample):
        print(f"{len(sample) - len(late)} of {len(sample)} had not ended")


async def _lateness(tree: Tree, execution_id: str) -> list[float]:
    """By how many milliseconds the wait of an execution ended late; nothing if it has not ended."""
    reply = await tree.events(GetEventsRequest(execution_id=execution_id, from_sequence_number=1))
    started, *ended = [event for event in reply.events if event.task_name == "rest"]
    return [event.timestamp_ms - started.timestamp_ms - _wait_ms(event) for event in ended]


async def _follow(tree: Tree, execution_id: str, seen: list[float]) -> None:
    """Notes how long after its deadline a subscriber heard of the end of an execution's wait."""
    started_ms = 0
    async for event in tree.follow(SubscribeRequest(execution_id=execution_id, from_sequence_number=1)):
        if event.task_name == "rest" and event.event_type == "task_started":
            started_ms = event.timestamp_ms
        elif event.task_name == "rest":
            seen.append(_now_ms() - started_ms - _wait_ms(event))


def _wait_ms(ended: WorkflowProgressEvent) -> float:
    """The wait an execution was given: its task hands its input on."""
    return float(orjson.loads(ended.output_json)["for"][2:-1]) * 1000


def _now_ms() -> float:
    return datetime.now(UTC).timestamp() * 1000


async def restart(tree: Tree, signum: signal.Signals, prefix: str) -> None:
    """Ends the tree and starts it again: how soon it takes new work."""
    await tree.end(signum)
    begun_s = time.monotonic()
    ready_s = await tree.start()
    await tree.accept(sleepers(prefix, ["PT12H"])[0])
    served_s = time.monotonic() - begun_s
    latency = await accept_latency(tree, f"{prefix}-more", 200, 5)
    print(f"after {signum.name}: ready in {ready_s:.2f} s, new work after {served_s:.2f} s; {latency}; {tree.memory()}")


class Silent(asyncio.Protocol):
    """Takes HTTP requests and never answers."""

    requests = 0
    held: ClassVar[list[asyncio.BaseTransport]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the connection open."""
        self.held.append(transport)

    def data_received(self, data: bytes) -> None:
        """Counts requests."""
        Silent.requests += data.count(b"\r\n\r\n")


async def callers(tree: Tree, count: int) -> None:
    """Executions that all have a call to make, over a kill: the calls never end."""
    server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0, backlog=4096)
    text = CALLER % f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    inputs = [WorkflowExecuteInput(workflow_execution_id=f"call-{n}", workflow_yaml=text) for n in range(count)]
    await submit(tree, inputs, "callers")
    await tree.end(signal.SIGKILL)
    Silent.requests = 0
    begun_s = time.monotonic()
    await tree.start()
    await tree.accept(sleepers("after-callers", ["PT12H"])[0])
    served_s = time.monotonic() - begun_s
    latency = await accept_latency(tree, "after-callers-more", 200, 5)
    calls = Silent.requests
    print(f"{count} callers, SIGKILL: new work after {served_s:.2f} s; {latency}; {calls} calls; {tree.memory()}")
    server.close()


async def run(options: argparse.Namespace) -> None:
    """All phases."""
    shutil.rmtree(options.data_dir, ignore_errors=True)
    options.data_dir.mkdir(parents=True)
    tree = Tree(options.data_dir, options.workers)
    try:
        print(f"empty: ready in {await tree.start():.2f} s; load {os.getloadavg()[0]:.1f}")
        await submit(tree, sleepers("warm", ["PT12H"] * BATCH), "warm-up")
        empty_bytes = tree.rss_bytes()
        print(f"{await accept_latency(tree, 'first', 200, 5)}", flush=True)
        await submit(tree, sleepers("parked", ["PT12H"] * options.executions), "parked")
        await asyncio.sleep(2)
        per_execution = (tree.rss_bytes() - empty_bytes) / max(1, options.executions)
        print(f"{per_execution:.0f} bytes resident per parked execution; {tree.memory()}; {_size(options.data_dir)}")
        print(f"beside them: {await accept_latency(tree, 'then', 200, 10)}; load {os.getloadavg()[0]:.1f}", flush=True)
        if options.rate:
            await wakes(tree, options.rate, options.seconds, options.lead_s)
        await restart(tree, signal.SIGKILL, "killed")
        await restart(tree, signal.SIGTERM, "drained")
        if options.callers:
            await callers(tree, options.callers)
    finally:
        await tree.end(signal.SIGKILL)
        if not options.keep:
            shutil.rmtree(options.data_dir, ignore_errors=True)


def _size(folder: Path) -> str:
    size_bytes = sum(path.stat().st_size for path in folder.glob("shard-*"))
    return f"{size_bytes / 2**20:.0f} MiB on disk"


def main() -> None:
    """Reads the options and runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--executions", type=int, default=100_000, help="executions to park")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=int, default=1_000, help="wakes per second; 0: none")
    parser.add_argument("--seconds", type=int, default=20, help="how long they wake")
    parser.add_argument("--lead-s", type=float, default=20.0, help="time to accept those that will wake")
    parser.add_argument("--callers", type=int, default=0, help="executions with a call under way over a kill")
    parser.add_argument("--data-dir", type=Path, required=True, help="emptied first")
    parser.add_argument("--keep", action="store_true", help="leave the data directory")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
