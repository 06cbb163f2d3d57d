"""Support: the goals of the runner, each as a ratio measured in one run, as a table and as JSON.

    python -m benchmarks.goals --out goals.json [--only accept,walk] [--rounds 5] [--calls 10000]

Sides of a comparison take turns, round by round, with the same client, message, cores and number of workers; a figure
is the median of its rounds, so what disturbs the machine disturbs both. Servers get the cores 0 to workers - 1, the
client and the receiver the others, or all if there are no others.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import loads
from benchmarks.servers import ROOT, empty, memory_mib, runner, sink
from benchmarks.workflows import THREE_TASKS_YAML, set_tasks
from fastrunner import _core
from fastrunner._jq import compile_expression
from fastrunner.base.clock import monotonic_s
from tests.integration.runner_process import RunnerProcess, until

TASKS = 10
EVENTS = 2 * TASKS + 4
"""Events of an execution of `TASKS` tasks."""
IN_FLIGHT = 64
BATCH_SIZE = 100
BATCHES_IN_FLIGHT = 2
"""For each worker: more would wait longer than an overloaded runner lets calls wait."""
ARRIVALS_PER_S = 150
EXECUTIONS_IN_FLIGHT = 5_000

Goal = dict[str, Any]
"""`name`, `goal`, `measured` (text), `met`, and the figures it comes from."""


class Run:
    """How much to measure, and with what."""

    def __init__(self, rounds: int, calls: int, advance: Callable[[str], None]) -> None:
        self.rounds = rounds
        self.calls = calls
        self.advance = advance
        """Told what is done next."""
        self._number = 0

    def prefix(self) -> str:
        """A new one for execution ids."""
        self._number += 1
        return f"g{self._number}"


def _server_cores(workers: int) -> tuple[int, ...]:
    return tuple(range(min(workers, os.cpu_count() or 1)))


def _client_cores(workers: int) -> tuple[int, ...]:
    return tuple(range(workers, os.cpu_count() or 1))


def _call(run: Run, target: str, workers: int, count: int) -> float:
    message = loads.body(run.prefix(), TASKS)
    figures = loads.closed(target, loads.CALL, message, count=count, in_flight=IN_FLIGHT, cores=_client_cores(workers))
    assert not figures.errors_count, f"{figures.errors_count} calls failed"
    return figures.rate_per_s


def _batches(run: Run, target: str, workers: int, count: int, cores: tuple[int, ...]) -> float:
    """Executions per second."""
    figures = loads.closed(
        target,
        loads.BATCH,
        loads.body(run.prefix(), TASKS, BATCH_SIZE),
        count=_batches_count(workers, count),
        in_flight=BATCHES_IN_FLIGHT * workers,
        cores=cores,
    )
    assert not figures.errors_count, f"{figures.errors_count} batches failed"
    return figures.rate_per_s * BATCH_SIZE


def _batches_count(workers: int, executions_count: int) -> int:
    return max(BATCHES_IN_FLIGHT * workers, executions_count // BATCH_SIZE)


def _has_finished(tree: RunnerProcess, count: float) -> bool:
    return _finished(tree) >= count


def _finished(tree: RunnerProcess) -> float:
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in tree.get("/metrics")[1].splitlines()
        if line.startswith("workflow_runner_executions_finished_total{")
    )


def _ratio(name: str, goal: float, sides: dict[str, list[float]], above: str, below: str, unit: str) -> Goal:
    ratios = [over / under for over, under in zip(sides[above], sides[below], strict=True)]
    measured = statistics.median(ratios)
    return {
        "name": name,
        "goal": f">= {goal:g}",
        "measured": f"{measured:.2f}",
        "met": measured >= goal,
        "ratios": ratios,
        "figures": {side: statistics.median(values) for side, values in sides.items()},
        "unit": unit,
    }


# --- accept, batch, scaling ---


def accept(run: Run) -> list[Goal]:
    """ExecuteAsync against the empty method, on both transports, with 1 and with 2 workers."""
    goals = []
    for workers in (1, 2):
        sides = _accept_sides(run, workers)
        plural = "" if workers == 1 else "s"
        for name, goal, above, below, unit in (
            ("accept", 1.5, "runner", "empty on grpc.aio", "calls/s"),
            ("accept", 0.5, "runner", "empty on our transport", "calls/s"),
            (f"batch of {BATCH_SIZE}", 3.0, "batch", "empty on grpc.aio", "executions/s"),
        ):
            goals.append(_ratio(f"{name}, {workers} worker{plural}, over {below}", goal, sides, above, below, unit))
    return goals


def _accept_sides(run: Run, workers: int) -> dict[str, list[float]]:
    cores, client_cores = _server_cores(workers), _client_cores(workers)
    with (
        runner(workers, *cores) as tree,
        empty("aio", workers, *cores) as aio,
        empty("queue", workers, *cores) as queue,
    ):
        targets = {"runner": tree.target, "empty on grpc.aio": aio, "empty on our transport": queue}
        sides: dict[str, list[float]] = {side: [] for side in (*targets, "batch")}
        for target in targets.values():
            _call(run, target, workers, run.calls // 10)
        accepted = run.calls // 10
        for _ in range(run.rounds):
            for side, target in targets.items():
                run.advance(f"accept, {workers} workers: {side}")
                sides[side].append(_call(run, target, workers, run.calls))
            run.advance(f"batches, {workers} workers")
            sides["batch"].append(_batches(run, tree.target, workers, run.calls, client_cores))
            accepted += run.calls + _batches_count(workers, run.calls) * BATCH_SIZE
        until(partial(_has_finished, tree, accepted))
    return sides


def scaling(run: Run) -> list[Goal]:
    """Two workers against one, in batches so that the client is not the limit; everybody may use all cores."""
    sides: dict[str, list[float]] = {"1 worker": [], "2 workers": []}
    with runner(1, 0) as one, runner(2) as two:
        trees = {"1 worker": (one, 1), "2 workers": (two, 2)}
        for tree, workers in trees.values():
            _batches(run, tree.target, workers, run.calls // 2, ())
        for _ in range(run.rounds):
            for side, (tree, workers) in trees.items():
                run.advance(f"scaling: {side}")
                sides[side].append(_batches(run, tree.target, workers, run.calls, ()))
    return [_ratio("scaling: 2 workers over 1, batches", 1.8, sides, "2 workers", "1 worker", "executions/s")]


# --- whole ---


def whole(run: Run) -> list[Goal]:
    """From accept to the last callback acknowledged, over the empty method and over empty client calls."""
    goals = []
    for batches, name, goal in ((True, "whole, ReportProgressBatch", 0.8), (False, "whole, ReportProgress", 1.2)):
        sides: dict[str, list[float]] = {"whole": [], "empty on grpc.aio": [], "empty client calls": []}
        with (
            empty("aio", 1, 0) as target,
            sink(*_client_cores(1), batches=batches) as receiver,
            runner(
                1,
                0,
                STIGMER_SERVICE_ENDPOINT=receiver.target,
                STIGMER_SERVICE_USE_TLS="false",
                STIGMER_SERVICE_API_KEY="benchmark",
            ) as tree,
        ):
            count = run.calls if batches else run.calls // 5
            for warm in (True, *[False] * run.rounds):
                part = count // 5 if warm else count
                run.advance(name)
                begun_s = monotonic_s()
                figures = loads.closed(
                    tree.target,
                    loads.CALL,
                    loads.body(run.prefix(), TASKS),
                    count=part,
                    in_flight=IN_FLIGHT,
                    cores=_client_cores(1),
                )
                assert not figures.errors_count
                workflows_per_s = part / (receiver.wait_for(part * EVENTS) - begun_s)
                empties_per_s = _call(run, target, 1, part)
                if not warm:
                    sides["whole"].append(workflows_per_s if batches else workflows_per_s * EVENTS)
                    sides["empty on grpc.aio"].append(empties_per_s)
                    sides["empty client calls"].append(_client_calls(run.calls // 4))
        below = "empty on grpc.aio" if batches else "empty client calls"
        unit = "workflows/s" if batches else "events/s"
        goals.append(_ratio(f"{name}, 1 worker, over {below}", goal, sides, "whole", below, unit))
    return goals


def _client_calls(count: int) -> float:
    """Empty calls per second of a grpc.aio client on core 0; the server has the other cores."""
    with empty("queue", 1, *_client_cores(1)) as target:
        done = subprocess.run(
            ["taskset", "-c", "0", sys.executable, "-m", "benchmarks.client_calls", target, str(count)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
    return float(done.stdout)


# --- latency ---


def latency(run: Run) -> list[Goal]:
    """Open arrivals: at half of saturation, and durable workflows at a steady rate."""
    goals = []
    cores = _client_cores(1)
    with empty("aio", 1, 0) as target, runner(1, 0) as tree:
        _call(run, tree.target, 1, run.calls // 5)
        rate_per_s = _call(run, tree.target, 1, run.calls) / 2
        sides: dict[str, list[dict[str, float]]] = {"runner": [], "empty on grpc.aio": []}
        for _ in range(run.rounds):
            for side, where in (("runner", tree.target), ("empty on grpc.aio", target)):
                run.advance(f"latency at half of saturation: {side}")
                message = loads.body(run.prefix(), TASKS)
                figures = loads.open_load(where, loads.CALL, message, rate_per_s=rate_per_s, seconds=3, cores=cores)
                assert not figures.errors_count
                sides[side].append(figures.latency_ms)
        p50 = {side: statistics.median(each["p50"] for each in values) for side, values in sides.items()}
        p99_ms = statistics.median(each["p99"] for each in sides["runner"])
        ratio = p50["runner"] / p50["empty on grpc.aio"]
        goals.append(
            {
                "name": f"ExecuteAsync at half of saturation ({rate_per_s:.0f}/s): p50 over the empty method's, p99",
                "goal": "<= 2, <= 10 ms",
                "measured": f"{ratio:.2f} ({p50['runner']:.2f} ms), {p99_ms:.1f} ms",
                "met": ratio <= 2 and p99_ms <= 10,
                "figures": sides,
                "unit": "ms",
            }
        )
        for tasks, mean_ms_max in ((20, 2.0), (50, 3.0), (100, 4.0)):
            rounds = []
            for _ in range(run.rounds):
                run.advance(f"durable workflows of {tasks} tasks at {ARRIVALS_PER_S}/s")
                before = _finished(tree)
                message = loads.body(run.prefix(), tasks)
                figures = loads.open_load(
                    tree.target, loads.CALL, message, rate_per_s=ARRIVALS_PER_S, seconds=4, cores=cores
                )
                assert not figures.errors_count
                until(partial(_has_finished, tree, before + figures.count))
                rounds.append(figures.latency_ms)
            mean_ms = statistics.median(each["mean"] for each in rounds)
            p95_ms = statistics.median(each["p95"] for each in rounds)
            goals.append(
                {
                    "name": f"durable workflow of {tasks} tasks at {ARRIVALS_PER_S}/s, none dropped: mean, p95",
                    "goal": f"<= {mean_ms_max:g} ms mean",
                    "measured": f"{mean_ms:.2f} ms, {p95_ms:.2f} ms",
                    "met": mean_ms <= mean_ms_max,
                    "figures": {"rounds": rounds},
                    "unit": "ms",
                }
            )
    return goals


# --- the core ---


def _best_us(run: Run, function: Callable[[], object], number: int) -> float:
    return min(timeit.repeat(function, number=number, repeat=max(5, run.rounds * 2))) / number * 1e6


def core(run: Run) -> list[Goal]:
    """Walks, expressions, compiles, in process: the best of several repeats."""
    walk_us = {}
    for tasks in (10, 20, 100, 200):
        run.advance(f"walk of {tasks} tasks")
        plan = _core.compile(set_tasks(tasks))
        walk_us[tasks] = _best_us(run, partial(_core.Walk.start, plan, "bench-1", {"counter": 0}, 1), 40_000 // tasks)
    further_us = {tasks: (walk_us[2 * tasks] - walk_us[tasks]) / tasks for tasks in (10, 100)}
    spread = max(further_us.values()) / min(further_us.values()) - 1
    goals = [
        {
            "name": "walk: one `set` task with its two events, in 10 and in 100 tasks (each further task)",
            "goal": "<= 4 us, within 10 %",
            "measured": f"{walk_us[10] / 10:.2f} and {walk_us[100] / 100:.2f} us "
            f"({further_us[10]:.2f} and {further_us[100]:.2f} us, {100 * spread:.0f} % apart)",
            "met": walk_us[10] / 10 <= 4 and walk_us[100] / 100 <= 4 and spread <= 0.1,
            "figures": {str(tasks): us / tasks for tasks, us in walk_us.items()},
            "unit": "us",
        }
    ]
    prices = [{"price": number % 25, "name": f"item {number}"} for number in range(100)]
    for text, value, us_max in (
        (".counter + 1", {"counter": 41}, 0.5),
        ("map(select(.price > 10)) | length", prices, 40.0),
    ):
        run.advance(f"expression {text}")
        program = compile_expression(text)
        goals.append(_most(f"expression `{text}`", us_max, _best_us(run, partial(program.first, value), 10_000)))
    three = json.dumps(_core.load(THREE_TASKS_YAML))
    for form, text, us_max in (("JSON", three, 40.0), ("YAML", THREE_TASKS_YAML, 200.0)):
        run.advance(f"cold compile, {form}")
        compile_us = _best_us(run, partial(_core.compile, text), 500)
        goals.append(_most(f"cold compile of 3 tasks, {form}", us_max, compile_us))
    goals.append(_most("hit in the plan cache", 2.0, _plan_cache_us(run)))
    return goals


def _plan_cache_us(run: Run) -> float:
    from fastrunner.counts.definitions import Metrics
    from fastrunner.engine.embedded.admit.plans import PlanCache

    run.advance("hit in the plan cache")
    cache = PlanCache(Metrics())
    cache.keep(_core.compile(THREE_TASKS_YAML), THREE_TASKS_YAML)
    return _best_us(run, lambda: cache.find(THREE_TASKS_YAML), 10_000)


def _most(name: str, us_max: float, us: float) -> Goal:
    return {
        "name": name,
        "goal": f"<= {us_max:g} us",
        "measured": f"{us:.2f} us",
        "met": us <= us_max,
        "figures": {"best": us},
        "unit": "us",
    }


# --- memory ---

SLEEPER = {
    "document": {"dsl": "1.0.3", "namespace": "bench", "name": "sleeper", "version": "1.0.0"},
    "do": [{"rest": {"wait": "PT1H"}}],
}


def memory(run: Run) -> list[Goal]:
    """An idle worker, and executions that are in flight in it."""
    with runner(1, FASTRUNNER_PARKED_RESIDENT_MAX=str(2 * EXECUTIONS_IN_FLIGHT)) as tree:
        run.advance("memory")
        (worker,) = (each["pid"] for each in tree.workers())
        idle = {field: memory_mib(worker, field) for field in ("Rss", "Pss", "Private_Dirty")}
        _sleep(run, tree, BATCH_SIZE * 5)
        before_mib = memory_mib(worker, "Private_Dirty")
        _sleep(run, tree, EXECUTIONS_IN_FLIGHT)
        grown_kib = 1024 * (memory_mib(worker, "Private_Dirty") - before_mib) / EXECUTIONS_IN_FLIGHT
    return [
        {
            "name": "memory of an idle worker: its proportional share (resident with everything shared)",
            "goal": "<= 60 MB",
            "measured": f"{idle['Pss']:.0f} MiB ({idle['Rss']:.0f} MiB)",
            "met": idle["Rss"] * 1.048576 <= 60,
            "figures": idle,
            "unit": "MiB",
        },
        {
            "name": "memory of an execution in flight, resident",
            "goal": "<= 4 KB",
            "measured": f"{grown_kib:.1f} KiB",
            "met": grown_kib * 1.024 <= 4,
            "figures": {"KiB": grown_kib},
            "unit": "KiB",
        },
    ]


def _sleep(run: Run, tree: RunnerProcess, count: int) -> None:
    message = loads.execution(run.prefix(), json.dumps(SLEEPER), BATCH_SIZE)
    done = loads.closed(tree.target, loads.BATCH, message, count=count // BATCH_SIZE, in_flight=2, cores=())
    assert not done.errors_count


# --- the machine ---


def machine() -> dict[str, Any]:
    """What the figures were measured on, and with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cpu": f"{len(cpus)} x {cpus[0]}" if cpus else platform.machine(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("grpcio", "protobuf", "uvloop", "orjson")},
        "load_before": round(os.getloadavg()[0], 1),
        "client": loads.CLIENT,
        "fsync_ms": fsync_ms(Path("/var/tmp")),
    }


def fsync_ms(folder: Path) -> dict[str, float]:
    """What it takes this disk to make 8 KiB durable."""
    spans = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(200):
            os.write(file.fileno(), b"x" * 8192)
            begun_s = monotonic_s()
            os.fdatasync(file.fileno())
            spans.append(1000 * (monotonic_s() - begun_s))
    spans.sort()
    return {"p50": round(spans[100], 3), "p99": round(spans[197], 3)}


# --- the table ---

SECTIONS: dict[str, Callable[[Run], list[Goal]]] = {
    "accept": accept,
    "scaling": scaling,
    "whole": whole,
    "latency": latency,
    "core": core,
    "memory": memory,
}


def measure(only: list[str], rounds: int, calls: int) -> Iterator[Goal]:
    """The goals of the sections asked for, as they are measured."""
    with Progress(disable=not sys.stderr.isatty(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=None)
        run = Run(rounds, calls, lambda what: progress.update(bar, description=what))
        for name in only:
            yield from SECTIONS[name](run)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=5, help="of every comparison (5)")
    parser.add_argument("--calls", type=int, default=10_000, help="in a round (10000)")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "rounds": arguments.rounds, "calls": arguments.calls, "goals": []}
    table = Table("what", "goal", "measured", "", "medians")
    for goal in measure(arguments.only.split(","), arguments.rounds, arguments.calls):
        result["goals"].append(goal)
        figures = goal["figures"]
        medians = ", ".join(f"{side} {value:.0f}" for side, value in figures.items() if isinstance(value, float))
        table.add_row(goal["name"], goal["goal"], goal["measured"], "met" if goal["met"] else "missed", medians)
    Console(width=170).print(table)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
