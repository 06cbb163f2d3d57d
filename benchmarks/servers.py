"""Support: the servers that benchmarks load: the runner, and empty ones to compare it with, on the same cores.

    python -m benchmarks.servers aio 2 PORT      the empty method on grpc.aio and uvloop, two processes on one port
    python -m benchmarks.servers queue 1 PORT    the same on the runner's own transport
    python -m benchmarks.servers http 1 PORT     an HTTP server that answers every request at once

An empty server answers every method with an empty message. `Sink` is a receiver of callbacks that only counts.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import uvloop
from prometheus_client import CollectorRegistry

from fastrunner._http2 import Call
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ProgressAckResponse,
    ReportProgressBatchRequest,
    ReportProgressBatchResponse,
)
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.counts.definitions import Metrics
from fastrunner.service.transport.connection import Connection
from fastrunner.service.transport.listener import Connections, Listener
from fastrunner.service.transport.turns import Turns
from fastrunner.service.transport.unpacking import Unpacking
from tests.integration.runner_process import RunnerProcess, running, until

__all__ = [
    "ROOT", "Served", "children", "empty", "http", "memory_mib", "pinned", "processor_s", "runner", "sink",
    "take_calls",
]  # fmt: skip

ROOT = Path(__file__).parent.parent
_TAKEN = ProgressAckResponse(success=True).SerializeToString()
_WAIT_S_MAX = 120.0
_PROCESSOR_CLOCK = 2
"""Of the clocks that a process has."""
_LISTENING = "0A"
"""State of a socket in /proc/net."""
_OPTIONS = (("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", 64 << 20))
_HTTP_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{"counter": 2}'
_HTTP_END = b"\r\n\r\n"


# --- processes under test ---


def pinned(*cores: int) -> Sequence[str]:
    """Prefix of a command that may use these cores only; none: all."""
    return ("taskset", "-c", ",".join(map(str, cores))) if cores else ()


@contextlib.contextmanager
def runner(workers: int, *cores: int, **environment: str) -> Iterator[RunnerProcess]:
    """A real runner on a data directory of its own, on these cores."""
    settings = {
        "FASTRUNNER_WORKERS": str(workers),
        "FASTRUNNER_CLIENT_EXECUTIONS_PER_S": "1000000",
        "LOG_LEVEL": "warn",
        **environment,
    }
    before = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        if cores:
            # Inherited by the tree; this process goes back to where it was.
            os.sched_setaffinity(0, cores)
        try:
            process = running(Path(folder) / "data", ("-m", "fastrunner", "serve"), **settings)
            tree = process.__enter__()
        finally:
            os.sched_setaffinity(0, before)
        with contextlib.ExitStack() as stack:
            stack.push(process)
            tree.wait_ready()
            until(tree.ready)
            yield tree


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is up."""

    target: str
    pid: int
    """Of the process that started the others."""


@contextlib.contextmanager
def empty(kind: str, workers: int, *cores: int) -> Iterator[Served]:
    """A server of the empty method."""
    with _serving([kind, str(workers)], cores) as (port, process):
        until(lambda: _listening_count(port) >= workers)
        yield Served(f"127.0.0.1:{port}", process.pid)


@contextlib.contextmanager
def http(*cores: int) -> Iterator[str]:
    """A server that answers any HTTP request without a body at once; its URL."""
    with _serving(["http", "1"], cores) as (port, _):
        yield f"http://127.0.0.1:{port}/"


def _listening_count(port: int) -> int:
    """Sockets of this machine that listen on a port; gRPC's are of IPv6, whatever address they are bound to."""
    tables = (Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return sum(row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port for row in rows)


class SinkProcess:
    """A receiver in a process of its own."""

    def __init__(self, port: int, process: "subprocess.Popen[str]") -> None:
        self.target = f"127.0.0.1:{port}"
        self._process = process

    def wait_for(self, events_count: int) -> float:
        """When it had taken so many events since the last call, on the monotonic clock."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{events_count}\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], _WAIT_S_MAX)[0]:
            raise RuntimeError(f"{events_count} events have not come within {_WAIT_S_MAX} s")
        return float(self._process.stdout.readline())


@contextlib.contextmanager
def sink(*cores: int, batches: bool = True) -> Iterator[SinkProcess]:
    """A receiver that counts events; without `batches` it knows ReportProgress only."""
    with _serving(["sink" if batches else "sink-single", "1"], cores) as (port, process):
        yield SinkProcess(port, process)


@contextlib.contextmanager
def _serving(arguments: Sequence[str], cores: Sequence[int]) -> "Iterator[tuple[int, subprocess.Popen[str]]]":
    with socket.socket() as reserved:
        # Bound and not listening: nobody else gets the port, and no connection comes here.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        process = subprocess.Popen(
            [*pinned(*cores), sys.executable, "-m", "benchmarks.servers", *arguments, str(port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield port, process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


# --- memory and processor time ---


def processor_s(pid: int) -> float:
    """Processor time of a process and of all it has started, also of those that have ended: user and system."""
    took_s, pids = 0.0, [pid]
    for each in pids:
        with contextlib.suppress(OSError):
            pids += children(each)
            # The clock of the process `each`, as the kernel numbers it: to the nanosecond.
            took_s += time.clock_gettime(~each << 3 | _PROCESSOR_CLOCK)
            # After the name, which may hold anything: cutime and cstime, of reaped children, in ticks.
            ticks = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[13:15]
            took_s += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return took_s


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def memory_mib(pid: int, field: str) -> float:
    """`Rss`, `Pss` or `Private_Dirty` of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


# --- empty servers: the processes themselves ---


async def _serve_aio(port: int) -> None:
    async def answer(request: bytes, context: object) -> bytes:  # noqa: ARG001 - a handler of grpc.aio
        return b""

    class Everything(grpc.GenericRpcHandler):  # type: ignore[type-arg] # not generic at run time
        def service(self, handler_call_details: object) -> Any:  # noqa: ARG002 - answers any method
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((Everything(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


class _Calls:
    """Hands every call of the transport to `answer`."""

    def __init__(self, answer: Callable[[Call], None]) -> None:
        self.turns, self.unpacking = Turns(lambda _: None), Unpacking()
        self.take_up = answer

    def ended(self, connection: Connection) -> None:
        """See Host."""


async def take_calls(port: int, answer: Callable[[Call], None]) -> None:
    """Serves calls on the runner's own transport, says so on stdout, and never returns."""
    listener = Listener()
    listener.listen(f"127.0.0.1:{port}")
    Connections(
        listener, _Calls(answer), limits.GRPC_CONNECTIONS_MAX, Metrics(CollectorRegistry()).connections_cut
    ).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def _answer_empty(call: Call) -> None:
    call.receive(lambda _: call.reply(b""))


async def _serve_queue(port: int) -> None:
    await take_calls(port, _answer_empty)


class _HttpAnswers(asyncio.Protocol):
    """A connection whose every request, which has no body, gets the same answer."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *requests, self._rest = (self._rest + data).split(_HTTP_END)
        self._transport.write(_HTTP_ANSWER * len(requests))


async def _serve_http(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_HttpAnswers, "127.0.0.1", port, reuse_port=True)
    print("ready", flush=True)
    await server.serve_forever()


class _Counter:
    """Counts events and tells when as many have come as somebody waits for."""

    def __init__(self, batches: bool) -> None:
        self._batches = batches
        self._count = 0
        self._wanted_count = 0

    def answer(self, call: Call) -> None:
        single = call.path.endswith("/ReportProgress")
        if not single and not self._batches:
            call.receive(lambda _: call.finish(12, b""))
        else:
            call.receive(partial(self._received, call, single))

    def _received(self, call: Call, single: bool, payload: bytes | None) -> None:
        if single:
            call.reply(_TAKEN)
            self._count += 1
        else:
            events = ReportProgressBatchRequest.FromString(payload or b"").events
            # Of each execution the last one counts: they come in sequence.
            last = {event.workflow_execution_id: event.sequence_number for event in events}
            response = ReportProgressBatchResponse()
            for execution_id, sequence in last.items():
                response.acknowledgements.add(workflow_execution_id=execution_id, sequence_number=sequence)
            call.reply(response.SerializeToString())
            self._count += len(events)
        self._tell()

    def want(self) -> None:
        asked = sys.stdin.readline()
        if not asked:
            # Whoever started it is gone.
            sys.exit()
        self._wanted_count = int(asked)
        self._tell()

    def _tell(self) -> None:
        if 0 < self._wanted_count <= self._count:
            self._count -= self._wanted_count
            self._wanted_count = 0
            print(monotonic_s(), flush=True)


async def _serve_sink(port: int, batches: bool) -> None:
    counter = _Counter(batches)
    asyncio.get_running_loop().add_reader(sys.stdin, counter.want)
    await take_calls(port, counter.answer)


def _main(kind: str, workers: int, port: int) -> None:
    servers: dict[str, Callable[[int], Coroutine[Any, Any, None]]] = {
        "aio": _serve_aio,
        "queue": _serve_queue,
        "http": _serve_http,
        "sink": partial(_serve_sink, batches=True),
        "sink-single": partial(_serve_sink, batches=False),
    }
    for _ in range(workers - 1):
        if os.fork() == 0:
            # Only the first one says that it is ready; whoever started them waits until all listen.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            break
    uvloop.run(servers[kind](port))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
