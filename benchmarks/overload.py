"""Support: a runner at half, once, twice and three times what it can take, and one restarted under half of it.

    python -m benchmarks.overload --workers 1 2 --seconds 6

The load is open: it does not wait for answers, and a latency counts from the time a call was due. It runs on this
machine: a single worker gets a CPU of its own; more workers share theirs with the load. What can be taken is measured
first, with 64 callers that wait for their answers. The first second of each load is told apart: a burst is no overload
yet, and is taken.
"""

import argparse
import asyncio
import os
import signal
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any, Final

from benchmarks.open_calls import Answers, OpenCalls
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from tests.crash.tree import Tree, until
from tests.integration.open_loop import Load, Tally, channel
from tests.integration.wire import path

CONNECTIONS: Final = 16
CALLERS: Final = 64
SHARES: Final = (0.5, 1.0, 2.0, 3.0)
BURST_S: Final = 1.0
SAMPLES_PER_S: Final = 20.0
DOCUMENT: Final = """\
document: {dsl: 1.0.3, namespace: load, name: work, version: 1.0.0}
do:
- each:
    for: {each: item, in: "${ [range(%d)] }"}
    do:
    - step: {set: {value: "${ $item }", text: some words of output}}
"""


def _memory_mib(tree: Tree) -> float:
    """Resident memory of the workers and the web process, shared pages counted once each."""
    total_kib = 0
    for pid in tree.children():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total_kib += int(line.split()[1])
    return total_kib / 1024


def _metric(tree: Tree, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{tree.ports['http_port']}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


class _Memory:
    """Memory, once a second."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.mib: list[float] = []

    def __call__(self, passed_s: float) -> None:
        if passed_s >= len(self.mib):
            self.mib.append(_memory_mib(self._tree))


class _Sample(threading.Thread):
    """An ordinary client beside the load, which reads what refusals say."""

    def __init__(self, target: str, document: str, prefix: str, span_s: float) -> None:
        super().__init__()
        self._facts = (target, document, prefix, span_s)
        self.tally = Tally()

    def run(self) -> None:
        asyncio.run(self._sample())

    async def _sample(self) -> None:
        target, document, prefix, span_s = self._facts
        connection = channel(target)
        self.tally = await Load([connection], document, prefix).open(SAMPLES_PER_S, span_s)
        await connection.close()


class _Bench:
    """One runner under several loads."""

    def __init__(self, tree: Tree, document: str, seconds: float) -> None:
        self._tree = tree
        self._document = document
        self._seconds = seconds
        self._saturation_per_s = 0.0

    def _calls(self, prefix: str) -> OpenCalls:
        def message(number: int) -> bytes:
            execution_id = f"{prefix}-{number}"
            request = WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=self._document)
            return request.SerializeToString()

        return OpenCalls(int(self._tree.ports["grpc_port"]), path("ExecuteAsync"), message, CONNECTIONS)

    async def saturate(self) -> None:
        calls = self._calls("saturated")
        calls.saturate(CALLERS, 1.0)
        answers = calls.saturate(CALLERS, self._seconds / 2)
        calls.close()
        self._saturation_per_s = answers.per_s("OK")
        quantiles = "/".join(f"{answers.quantile_ms('OK', share):.0f}" for share in (0.5, 0.95, 0.99))
        print(f"saturation: {self._saturation_per_s:.0f} executions/s with {CALLERS} callers, p50/95/99 {quantiles} ms")
        await self._rest()

    async def _rest(self) -> float:
        """Waits until everything accepted has ended; for how long."""
        began_s = monotonic_s()
        active = "workflow_runner_active_executions"
        await until(lambda: _metric(self._tree, active) == 0, "everything accepted to end", 120.0)
        return monotonic_s() - began_s

    async def load(self, share: float) -> None:
        prefix = f"x{share:g}"
        memory, calls = _Memory(self._tree), self._calls(prefix)
        sample = _Sample(self._tree.target, self._document, f"{prefix}-sample", self._seconds)
        sample.start()
        answers = calls.run(share * self._saturation_per_s, self._seconds, memory)
        calls.close()
        sample.join()
        rest_s = await self._rest()
        print(f"| {share:g}x | {share * self._saturation_per_s:.0f} | {_cells(answers)} | {memory.mib[0]:.0f} → "
              f"{max(memory.mib):.0f} → {_memory_mib(self._tree):.0f} | {rest_s:.1f} |")  # fmt: skip
        others = {code: answers.count(code) for code in answers.latencies_s} | {"OK": 0, "RESOURCE_EXHAUSTED": 0}
        refused = sample.tally.count("RESOURCE_EXHAUSTED")
        if any(others.values()):
            print(f"    ended otherwise: { {code: count for code, count in others.items() if count} }")
        if refused:
            print(f"    {sample.tally.retry_infos} of {refused} refusals of an ordinary client said when to come again")
        lags = sorted(answers.lags_s)
        print(f"    the load was late: p99 {1000 * lags[int(0.99 * len(lags))]:.1f} ms", flush=True)

    async def restart(self) -> None:
        """SIGHUP under half of the saturation, for ordinary clients that retry UNAVAILABLE up to five times."""
        connections: list[Any] = [channel(self._tree.target, retrying=True) for _ in range(CONNECTIONS // 2)]
        await asyncio.gather(*(each.channel_ready() for each in connections))
        # For so long after an overload the runner refuses what it would take otherwise.
        await asyncio.sleep(limits.ADMISSION_STRICT_S)
        load = Load(connections, self._document, "restart").open(self._saturation_per_s / 2, 2 * self._seconds)
        task = asyncio.ensure_future(load)
        await asyncio.sleep(0.5)
        before, began_s = set(self._tree.children()), monotonic_s()
        self._tree.signal(signal.SIGHUP)

        def replaced() -> bool:
            now = set(self._tree.children())
            return len(now) == len(before) and not before & now

        await until(replaced, "the restart")
        restart_s = monotonic_s() - began_s
        tally = await task
        codes = ", ".join(f"{code} {tally.count(code)}" for code in sorted(tally.latencies_s))
        print(f"SIGHUP at 0.5x, every process replaced within {restart_s:.1f} s, calls: {codes}; OK p50 "
              f"{tally.quantile_ms('OK', 0.5):.0f} ms, p99 {tally.quantile_ms('OK', 0.99):.0f} ms, at most "
              f"{tally.quantile_ms('OK', 1.0):.0f} ms")  # fmt: skip
        for message, count in tally.messages.most_common(3):
            print(f"    {count} x {message}")
        for each in connections:
            await each.close()


def _cells(answers: Answers) -> str:
    cells = []
    for code, shares in (("OK", (0.5, 0.95, 0.99)), ("RESOURCE_EXHAUSTED", (0.5, 0.99))):
        quantiles = "/".join(f"{answers.quantile_ms(code, share, BURST_S):.0f}" for share in shares)
        first = answers.quantile_ms(code, 0.99)
        none = not answers.count(code)
        cells += [f"{answers.per_s(code, BURST_S):.0f}", "–" if none else f"{quantiles} ({first:.0f})"]
    return " | ".join(cells)


async def _main(arguments: argparse.Namespace) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    for workers in arguments.workers:
        with tempfile.TemporaryDirectory(dir=arguments.data_dir) as folder:
            tree = Tree(Path(folder) / "data", Path(folder) / "log", FASTRUNNER_WORKERS=str(workers))
            alone = len(cpus) > 1 and workers < len(cpus)
            os.sched_setaffinity(0, cpus[:workers] if alone else cpus)
            try:
                await tree.start()
                os.sched_setaffinity(0, cpus[workers:] if alone else cpus)
                where = "CPUs of their own" if alone else "CPUs shared with the load"
                print(f"\n{workers} worker(s), {where}; documents of {arguments.items} iterations")
                bench = _Bench(tree, DOCUMENT % arguments.items, arguments.seconds)
                await bench.saturate()
                print("| load | offered/s | accepted/s | p50/95/99 ms (p99 with the burst) | refused/s | p50/99 ms "
                      "(p99 with the burst) | MiB before → most → after | all ended after s |")  # fmt: skip
                print("|---|---|---|---|---|---|---|---|")
                for share in SHARES:
                    await bench.load(share)
                await bench.restart()
            finally:
                await tree.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="one runner after the other")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load")
    parser.add_argument("--items", type=int, default=200, help="iterations of a document, so that executing takes time")
    parser.add_argument("--data-dir", type=Path, default=Path("/var/tmp"))
    asyncio.run(_main(parser.parse_args()))
