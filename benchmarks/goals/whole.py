"""Support: the whole way, from a call to the last event acknowledged by a receiver."""

import subprocess
import sys

from benchmarks.goals.measuring import TASKS, Bound, Goal, Rounds, Run, client_cores, own_calls
from benchmarks.servers import ROOT, empty, runner, sink
from fastrunner.base.clock import monotonic_s

__all__ = ["whole"]

_EVENTS = 2 * TASKS + 4
"""Events of an execution of `TASKS` tasks."""


def whole(run: Run) -> list[Goal]:
    """From accept to the last callback acknowledged, over the empty method and over empty client calls."""
    return [
        _whole(run, "ReportProgressBatch", "empty on grpc.aio", Bound(0.8), "workflows/s"),
        _whole(run, "ReportProgress", "empty client calls", Bound(1.2), "events/s"),
    ]


def _whole(run: Run, method: str, below: str, bound: Bound, unit: str) -> Goal:
    batches = method == "ReportProgressBatch"
    rounds = Rounds()
    with (
        empty("aio", 1, 0) as aio,
        sink(*client_cores(1), batches=batches) as receiver,
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
            run.advance(f"whole, {method}")
            begun_s = monotonic_s()
            figures = own_calls(run, tree.target, part, cores=client_cores(1))
            workflows_per_s = part / (receiver.wait_for(figures.count * _EVENTS) - begun_s)
            if warm:
                continue
            rounds.add("whole", workflows_per_s if batches else workflows_per_s * _EVENTS, figures.errors_count)
            if batches:
                rounds.add(below, own_calls(run, aio.target, part, cores=client_cores(1)).rate_per_s)
            else:
                rounds.add(below, _client_calls(run.calls // 4))
    return rounds.ratio(f"whole, {method}, 1 worker, over {below}", "whole", below, bound, unit)


def _client_calls(count: int) -> float:
    """Empty calls per second of a grpc.aio client on core 0; the server has the other cores."""
    with empty("queue", 1, *client_cores(1)) as server:
        done = subprocess.run(
            ["taskset", "-c", "0", sys.executable, "-m", "benchmarks.client_calls", server.target, str(count)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
    return float(done.stdout)
