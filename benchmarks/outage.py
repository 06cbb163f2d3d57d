"""Support: a receiver that stays away while events queue, and comes back: memory, catching up, new events meanwhile.

    python -m benchmarks.outage --events 1000000 --out outage.json

Two workers. The receiver checks that the events of every execution come in sequence without a gap, and tells when new
executions ended for it; new executions are submitted at a steady rate, before the outage and while it catches up.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import uvloop
from rich.progress import Progress

from benchmarks.loads import BATCH, CALL
from benchmarks.servers import ROOT, memory_mib, runner, take_calls
from benchmarks.workflows import set_tasks
from fastrunner._http2 import Call
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ExecuteAsyncBatchRequest,
    ReportProgressBatchRequest,
    ReportProgressBatchResponse,
    WorkflowExecuteInput,
)
from fastrunner.base.clock import monotonic_s
from tests.integration.runner_process import RunnerProcess

TASKS = 10
EVENTS = 2 * TASKS + 4
NEW_PER_S = 50
CALM_S = 5.0
BATCH_SIZE = 100


# --- the receiver, in a process of its own ---


class _Receiver:
    """Takes every event, in sequence; knows when new executions ended."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._told = {"events": 0, "repeated": 0, "gaps": 0}
        self._first_s = 0.0
        self._ends: dict[str, float] = {}

    def answer(self, call: Call) -> None:
        call.receive(lambda payload: self._received(call, payload or b""))

    def _received(self, call: Call, payload: bytes) -> None:
        self._first_s = self._first_s or monotonic_s()
        response, last = ReportProgressBatchResponse(), {}
        for event in ReportProgressBatchRequest.FromString(payload).events:
            execution_id, sequence = event.workflow_execution_id, event.sequence_number
            before = self._last.get(execution_id, 0)
            if sequence <= before:
                self._told["repeated"] += 1
                continue
            self._told["gaps"] += sequence != before + 1
            self._told["events"] += 1
            self._last[execution_id] = last[execution_id] = sequence
            if sequence == EVENTS and execution_id.startswith("new"):
                self._ends[execution_id] = monotonic_s()
        for execution_id, sequence in last.items():
            response.acknowledgements.add(workflow_execution_id=execution_id, sequence_number=sequence)
        call.reply(response.SerializeToString())

    def tell(self) -> None:
        if sys.stdin.readline():
            print(json.dumps(self._told | {"ends": self._ends, "first_s": self._first_s}), flush=True)


async def _receive(port: int) -> None:
    receiver = _Receiver()
    asyncio.get_running_loop().add_reader(sys.stdin, receiver.tell)
    await take_calls(port, receiver.answer)


class Receiver:
    """The process, seen from outside."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def report(self) -> dict[str, Any]:
        """`events`, `repeated`, `gaps` so far; when the first event came and new executions ended, on the monotonic
        clock."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told


@contextmanager
def receiving(port: int) -> Iterator[Receiver]:
    """A receiver on a port, gone afterwards."""
    command = [sys.executable, "-m", "benchmarks.outage", "--receive", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Receiver(process)
        finally:
            process.kill()


# --- load ---


def _submission(execution_id: str, document: str) -> WorkflowExecuteInput:
    return WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=document, input_json='{"counter": 1}')


async def _new(target: str, prefix: str, stop: asyncio.Event) -> dict[str, float]:
    """Submits new executions at a steady rate; when each was due."""
    due: dict[str, float] = {}
    document = set_tasks(TASKS)
    opened: Any = grpc.aio.insecure_channel(target)
    async with opened as channel:
        call = channel.unary_unary(CALL)
        begun_s, number = monotonic_s(), 0
        while not stop.is_set():
            number += 1
            due_s = begun_s + number / NEW_PER_S
            await asyncio.sleep(max(0.0, due_s - monotonic_s()))
            due[f"new-{prefix}-{number}"] = due_s
            await call(_submission(f"new-{prefix}-{number}", document).SerializeToString())
    return due


async def _queue(target: str, count: int, watch: "_Memory") -> None:
    """Submits `count` executions in batches."""
    document = set_tasks(TASKS)
    opened: Any = grpc.aio.insecure_channel(target)
    async with opened as channel:
        call = channel.unary_unary(BATCH)
        with Progress(disable=not sys.stderr.isatty(), transient=True) as progress:
            bar = progress.add_task("queueing events", total=count)
            for first in range(0, count, BATCH_SIZE):
                items = [
                    _submission(f"old-{number}", document) for number in range(first, min(first + BATCH_SIZE, count))
                ]
                await call(ExecuteAsyncBatchRequest(executions=items).SerializeToString())
                progress.advance(bar, len(items))
                watch.look()


class _Memory:
    """What the workers take, looked at now and then."""

    def __init__(self, tree: RunnerProcess) -> None:
        self._pids = [each["pid"] for each in tree.workers()]
        self._looked_s = 0.0
        self.seen_mib: list[float] = []

    def look(self) -> None:
        """Notes the resident memory of all workers, at most twice a second."""
        if monotonic_s() - self._looked_s >= 0.5:
            self._looked_s = monotonic_s()
            self.seen_mib.append(sum(memory_mib(pid, "Rss") for pid in self._pids))


def _delays(due: dict[str, float], ends: dict[str, float]) -> dict[str, float]:
    delays = sorted(1000 * (ends[each] - at) for each, at in due.items() if each in ends)
    quantiles = {f"p{share}_ms": delays[share * (len(delays) - 1) // 100] for share in (50, 99)}
    return {"count": len(delays), "missing": len(due) - len(delays), **quantiles}


async def _calm(target: str, receiver: Receiver) -> dict[str, float]:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(CALM_S, stop.set)
    due = await _new(target, "calm", stop)
    deadline_s = monotonic_s() + 10
    while True:
        ends = receiver.report()["ends"]
        if due.keys() <= ends.keys() or monotonic_s() > deadline_s:
            return _delays(due, ends)
        await asyncio.sleep(0.1)


async def _catch_up(tree: RunnerProcess, receiver: Receiver, count: int, memory: _Memory) -> dict[str, Any]:
    """Waits until everything has come, with new executions all along."""
    begun_s, stop = monotonic_s(), asyncio.Event()
    new = asyncio.ensure_future(_new(tree.target, "back", stop))
    caught_s = 0.0
    while True:
        await asyncio.sleep(0.25)
        memory.look()
        told = receiver.report()
        if not caught_s and told["events"] - EVENTS * len(told["ends"]) >= count * EVENTS:
            caught_s = monotonic_s() - begun_s
            stop.set()
            due = await new
        if caught_s and (due.keys() <= told["ends"].keys() or monotonic_s() - begun_s > 3 * caught_s + 30):
            break
    silent = {each: at for each, at in due.items() if at < told["first_s"]}
    return {
        "first_event_s": told["first_s"] - begun_s,
        "caught_up_s": caught_s,
        "repeated": told["repeated"],
        "gaps": told["gaps"],
        "new, due before the first event": len(silent),
        "new": _delays({each: at for each, at in due.items() if each not in silent}, told["ends"]),
    }


async def measure(events_count: int, port: int) -> dict[str, Any]:
    """The whole outage; figures as plain data."""
    count = events_count // EVENTS
    environment = {
        "STIGMER_SERVICE_ENDPOINT": f"127.0.0.1:{port}",
        "STIGMER_SERVICE_USE_TLS": "false",
        "STIGMER_SERVICE_API_KEY": "benchmark",
    }
    with runner(2, **environment) as tree:
        with receiving(port) as receiver:
            calm = await _calm(tree.target, receiver)
        memory = _Memory(tree)
        memory.look()
        begun_s = monotonic_s()
        await _queue(tree.target, count, memory)
        queued_s, before = monotonic_s() - begun_s, memory.seen_mib[:]
        with receiving(port) as receiver:
            back = await _catch_up(tree, receiver, count, memory)
    return {
        "events": count * EVENTS,
        "queued_s": queued_s,
        "memory_mib": {"at first": before[0], "most while queueing": max(before), "most in all": max(memory.seen_mib)},
        "calm": calm,
        "back": back,
        "events_per_s": count * EVENTS / back["caught_up_s"],
    }


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="that queue while nobody takes them (1000000)")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--receive", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.receive:
        uvloop.run(_receive(given.receive))
        return
    begun = time.strftime("%Y-%m-%d")
    figures = asyncio.run(measure(given.events, _free_port())) | {"when": begun}
    print(json.dumps(figures, indent=1))
    if given.out:
        given.out.write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
