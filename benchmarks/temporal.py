"""Support: workflows per second on one Temporal server: the runner with and without a receiver, and its peers.

    python -m benchmarks.temporal --rounds 5 --count 200 [--memory] [--peer PROGRAM]

All are there at once, each in a namespace of its own, and take turns: a round starts COUNT workflows, and ends when
visibility counts as many as completed. Beside each rate stands what a workflow costs in processor time, of the server
and of the worker: on a busy machine that is the steadier figure, and it shows which of them is the limit.

    empty      a workflow of the Python SDK that does nothing: the most that the server lets anybody have
    python     `temporal_python.py`, Python's SDK by hand: what the runner asks of Temporal for calls, without the
               runner
    peer       `temporal_peer/`, Go's SDK: a side effect for each task that computes, an activity for each call: the
               least that an interpreter of documents on that SDK does; needs Go, which fetches the SDK
    silent     the runner without a receiver
    detached   the runner, where another workflow reports what is left when one ends (FASTRUNNER_TEMPORAL_REPORT)
    reported   the runner, whose workflows end when the receiver has all events

The receiver is a process that counts: what a real one costs is on other machines. Nobody else reports.
`--peer` is another program to compare with; it is called with address, namespace and the URL of calls.
"""

import argparse
import asyncio
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.servers import ROOT, http, processor_s, runner, sink
from benchmarks.workflows import set_tasks
from fastrunner.base.clock import monotonic_s
from fastrunner.engine.temporal.messages import REPORT_REST, WALK
from tests.integration.temporal_server import TemporalServer
from tests.integration.test_placement_runner import Connection

if TYPE_CHECKING:
    from temporalio.client import Client

_PEER = ROOT / "benchmarks" / "temporal_peer"
_QUEUE = "peer"
_AT_ONCE = 32
_LOOK_INTERVAL_S = 0.05
_ROUND_S_MAX = 120.0
_CALLS = 5


def call_tasks(url: str, tasks: int) -> str:
    """A JSON document of so many calls."""
    head = {"dsl": "1.0.3", "namespace": "bench", "name": f"calls-{tasks}", "version": "1.0.0"}
    call = {"call": "http", "with": {"method": "get", "endpoint": url}}
    return orjson.dumps({"document": head, "do": [{f"call{number}": call} for number in range(tasks)]}).decode()


@dataclass
class Shape:
    """A kind of workflow."""

    name: str
    document: str
    peer: str
    """The name of the peer's workflow."""
    tasks: int


@dataclass
class Entrant:
    """Somebody who executes workflows in a namespace."""

    name: str
    start: Callable[[str, Shape], Awaitable[None]]
    client: "Client"
    """Of its namespace."""
    pid: int
    """Of its worker."""
    is_for_calls: bool = False
    """Whether it executes nothing but calls."""
    rates: dict[str, list[float]] = field(default_factory=dict)
    """Workflows per second, by shape."""
    server_ms: dict[str, list[float]] = field(default_factory=dict)
    """Processor time of the server for a workflow."""
    worker_ms: dict[str, list[float]] = field(default_factory=dict)
    """That of its worker."""

    def takes(self, shape: Shape) -> bool:
        """Whether it executes workflows of a kind."""
        return shape.peer == "calls" or not self.is_for_calls


_numbers = count()


async def measure(entrant: Entrant, shape: Shape, workflows: int, server_pid: int) -> None:
    """One round."""
    before = await _completed(entrant.client)
    used_s = processor_s(server_pid), processor_s(entrant.pid)
    began_s = monotonic_s()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with gate:
            await entrant.start(f"{shape.name}-{next(_numbers)}", shape)

    await asyncio.gather(*(one() for _ in range(workflows)))
    while await _completed(entrant.client) < before + workflows:
        if monotonic_s() > began_s + _ROUND_S_MAX:
            raise RuntimeError(f"{entrant.name}: {shape.name} has not ended within {_ROUND_S_MAX:.0f} s")
        await asyncio.sleep(_LOOK_INTERVAL_S)
    entrant.rates.setdefault(shape.name, []).append(workflows / (monotonic_s() - began_s))
    # What is left to others counts as what it costs, and is not in the way of the next round.
    await _until_all_ended(entrant.client)
    for times, pid, then_s in ((entrant.server_ms, server_pid, used_s[0]), (entrant.worker_ms, entrant.pid, used_s[1])):
        times.setdefault(shape.name, []).append(1000 * (processor_s(pid) - then_s) / workflows)


async def _until_all_ended(client: "Client") -> None:
    # The runner's other workflows have no end.
    query = f"ExecutionStatus = 'Running' AND WorkflowType IN ('{WALK}', '{REPORT_REST}', 'empty', 'sets', 'calls')"
    while True:
        if not (await client.count_workflows(query)).count:
            return
        await asyncio.sleep(_LOOK_INTERVAL_S)


async def _completed(client: "Client") -> int:
    query = f"ExecutionStatus = 'Completed' AND WorkflowType != '{REPORT_REST}'"
    return (await client.count_workflows(query)).count


# --- who takes part ---


@contextlib.asynccontextmanager
async def _runner(name: str, address: str, **settings: str) -> AsyncIterator[Entrant]:
    from temporalio.client import Client

    with runner(1, TEMPORAL_SERVICE_ADDRESS=address, TEMPORAL_NAMESPACE=name, **settings) as process:
        connection = Connection(process.target)

        async def start(execution_id: str, shape: Shape) -> None:
            await connection.execute(execution_id, shape.document)

        try:
            yield Entrant(name, start, await Client.connect(address, namespace=name), process.process.pid)
        finally:
            await connection.channel.close()


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[int]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextlib.asynccontextmanager
async def _peer(name: str, address: str, command: Sequence[str]) -> AsyncIterator[Entrant]:
    from temporalio.client import Client

    client = await Client.connect(address, namespace=name)

    async def start(workflow_id: str, shape: Shape) -> None:
        workflow = "empty" if name == "empty" else shape.peer
        await client.start_workflow(workflow, shape.tasks, id=workflow_id, task_queue=_QUEUE)

    with _process(command) as pid:
        yield Entrant(name, start, client, pid)


@contextlib.asynccontextmanager
async def _python(name: str, address: str, url: str) -> AsyncIterator[Entrant]:
    command = [sys.executable, "-m", "benchmarks.temporal_python", address, name, _QUEUE, url]
    async with _peer(name, address, command) as entrant:
        entrant.is_for_calls = name != "empty"
        yield entrant


def _built_peer() -> str | None:
    """The peer's program; None without Go."""
    if shutil.which("go") is None:
        return None
    program = str(ROOT / ".cache" / "temporal_peer")
    subprocess.run(["go", "build", "-o", program, "."], cwd=_PEER, check=True)
    return program


# --- the run ---


async def run(arguments: argparse.Namespace) -> None:
    """Measures, and prints."""
    peer = arguments.peer or await asyncio.to_thread(_built_peer)
    names = ["silent", "detached", "reported", "empty", "python", *(["peer"] if peer else [])]
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        server = TemporalServer(None if arguments.memory else Path(folder) / "temporal.db", names)
        server.start()
        try:
            async with contextlib.AsyncExitStack() as stack:
                url = stack.enter_context(http())
                target = stack.enter_context(sink()).target
                receiver = {"STIGMER_SERVICE_ENDPOINT": target, "STIGMER_SERVICE_USE_TLS": "false"}
                entrants = [
                    await stack.enter_async_context(_python("empty", server.address, url)),
                    await stack.enter_async_context(_python("python", server.address, url)),
                    await stack.enter_async_context(_runner("silent", server.address)),
                    await stack.enter_async_context(
                        _runner("detached", server.address, FASTRUNNER_TEMPORAL_REPORT="detached", **receiver)
                    ),
                    await stack.enter_async_context(_runner("reported", server.address, **receiver)),
                ]
                if peer:
                    command = [peer, server.address, "peer", url]
                    entrants.append(await stack.enter_async_context(_peer("peer", server.address, command)))
                await _rounds(arguments, entrants, url, server.pid)
        finally:
            server.stop()


async def _rounds(arguments: argparse.Namespace, entrants: Sequence[Entrant], url: str, server_pid: int) -> None:
    shapes = [
        Shape("20 set", set_tasks(20), "sets", 20),
        Shape("100 set", set_tasks(100), "sets", 100),
        Shape(f"{_CALLS} calls", call_tasks(url, _CALLS), "calls", _CALLS),
    ]
    for entrant in entrants:
        # Once, for everything to be loaded.
        for shape in shapes:
            if entrant.takes(shape):
                await measure(entrant, shape, 5, server_pid)
        for figures in (entrant.rates, entrant.server_ms, entrant.worker_ms):
            figures.clear()
    for number in range(arguments.rounds):
        for shape in shapes:
            # Whoever is first in one round is last in another.
            for entrant in entrants if number % 2 else reversed(entrants):
                if entrant.takes(shape):
                    await measure(entrant, shape, arguments.count, server_pid)
    where = "in memory" if arguments.memory else "on a file"
    console = Console()
    for shape in shapes:
        console.print(_table(f"{shape.name}, Temporal's server {where}", entrants, shape.name))


def _table(title: str, entrants: Sequence[Entrant], shape: str) -> Table:
    table = Table(title=title)
    for column in ("", "workflows/s", "of peer's", "of empty's", "server ms", "worker ms"):
        table.add_column(column, justify="left" if not column else "right")
    measured = [entrant for entrant in entrants if shape in entrant.rates]
    rates = {entrant.name: statistics.median(entrant.rates[shape]) for entrant in measured}
    for entrant in measured:
        rate = rates[entrant.name]
        ratios = [f"{rate / rates[other]:.2f}" if other in rates else "" for other in ("peer", "empty")]
        spent = [f"{statistics.median(times[shape]):.1f}" for times in (entrant.server_ms, entrant.worker_ms)]
        table.add_row(entrant.name, f"{rate:.1f}", *ratios, *spent)
    return table


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds for each shape and entrant (5)")
    parser.add_argument("--count", type=int, default=100, help="workflows of a round (100)")
    parser.add_argument("--memory", action="store_true", help="Temporal's server keeps everything in memory")
    parser.add_argument("--peer", default=None, help="a program to compare with, in place of benchmarks/temporal_peer")
    arguments = parser.parse_args()
    asyncio.run(run(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
