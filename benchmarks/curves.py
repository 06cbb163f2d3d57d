"""Support: how figures change: throughput with workers, latency with load, cost with tasks, memory with parked ones.

    python -m benchmarks.curves --out benchmarks/results/curves.json [--quick]

Closed loads for throughput, open ones for latency; `benchmarks.report` draws the result.
"""

import argparse
import json
import os
import statistics
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import loads
from benchmarks.goals.machine import machine
from benchmarks.goals.memory import SLEEPER
from benchmarks.servers import empty, memory_mib, runner
from benchmarks.workflows import set_tasks
from fastrunner import _core
from fastrunner.base.clock import monotonic_s

__all__ = ["measure"]

_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_TASKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_BATCH = 100
_numbers = count()


def _prefix() -> str:
    return f"c{next(_numbers)}"


def _closed(target: str, calls: int, in_flight: int = 64) -> float:
    message = loads.body(_prefix(), 10)
    return loads.closed(target, loads.CALL, message, count=calls, in_flight=in_flight, cores=()).rate_per_s


def throughput(calls: int, rounds: int) -> list[dict[str, Any]]:
    """Calls per second with 1, 2, ... workers, up to the number of cores: the runner and the empty methods."""
    rows = []
    for workers in range(1, (os.cpu_count() or 1) + 1):
        with runner(workers) as tree, empty("aio", workers) as aio, empty("queue", workers) as queue:
            targets = {"runner": tree.target, "empty on grpc.aio": aio.target, "empty on our transport": queue.target}
            found: dict[str, list[float]] = {side: [] for side in targets}
            for _ in range(rounds + 1):
                for side, target in targets.items():
                    found[side].append(_closed(target, calls))
        rows.append({"workers": workers, **{side: statistics.median(rates[1:]) for side, rates in found.items()}})
    return rows


def latency(calls: int, seconds: float) -> list[dict[str, Any]]:
    """Latencies of ExecuteAsync at parts of what one worker takes."""
    rows = []
    with runner(1) as tree:
        _closed(tree.target, calls)
        peak_per_s = _closed(tree.target, calls)
        for share in _SHARES:
            message = loads.body(_prefix(), 10)
            rate = share * peak_per_s
            figures = loads.open_load(tree.target, loads.CALL, message, rate_per_s=rate, seconds=seconds, cores=())
            rows.append({"share": share, "rate_per_s": rate, "errors": figures.errors_count, **figures.latency_ms})
    return rows


def cost(rounds: int) -> list[dict[str, Any]]:
    """Microseconds per `set` task in the core, by the number of tasks."""
    rows = []
    for tasks in _TASKS:
        plan = _core.compile(set_tasks(tasks))
        spent_us = []
        for _ in range(rounds):
            repeats = max(1, 5_000 // tasks)
            begun_s = monotonic_s()
            for _ in range(repeats):
                walk, turn = _core.Walk.start(plan, "bench-1", {"counter": 0}, 1)
                while turn.more:
                    turn = walk.resume(_core.MoreSteps(), 1)
            spent_us.append(1e6 * (monotonic_s() - begun_s) / repeats / tasks)
        rows.append({"tasks": tasks, "us_per_task": statistics.median(spent_us)})
    return rows


def parked(most: int) -> list[dict[str, Any]]:
    """Memory of a worker by the executions that wait in it."""
    rows = []
    with runner(1, FASTRUNNER_EXECUTIONS_MAX=str(10 * most)) as tree:
        (worker,) = (each["pid"] for each in tree.workers())
        there = 0
        for executions in (0, most // 8, most // 4, most // 2, most):
            if executions:
                message = loads.execution(_prefix(), json.dumps(SLEEPER), _BATCH)
                batches = (executions - there) // _BATCH
                done = loads.closed(tree.target, loads.BATCH, message, count=batches, in_flight=1, cores=())
                assert not done.errors_count
                there += batches * _BATCH
            rows.append({"executions": there, **{each: memory_mib(worker, each) for each in ("Rss", "Pss")}})
    return rows


def measure(quick: bool) -> dict[str, Any]:
    """All curves."""
    calls, rounds = (3_000, 2) if quick else (10_000, 5)
    return {
        "machine": machine(),
        "throughput": throughput(calls, rounds),
        "latency": latency(calls, 2.0 if quick else 6.0),
        "cost": cost(rounds * 3),
        "parked": parked(8_000 if quick else 40_000),
    }


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute instead of four")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(measure(arguments.quick), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
