"""Support: what counting costs an accepted execution: by itself, and as a share of what a worker takes for one.

    python -m benchmarks.metrics_cost

Counting is timed alone, because a share this small drowns in the noise of a whole runner: everything that is counted
for one ExecuteAsync whose execution ends in the same commit, its part of what is counted for the commit included. Then
a runner of one worker is loaded, and what its process takes of the processor for each call is what the share is of.
"""

import argparse
import os
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

import uvloop
from google.rpc.code_pb2 import OK

from fastrunner._core import Walk
from fastrunner._core import compile as compile_document
from fastrunner.counts.cells import Segment
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.engine.embedded.admit.plans import PlanCache
from fastrunner.engine.embedded.commit.counting import CommitCounts
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.store.changes import Accepted, Batch, Change
from fastrunner.service.methods import COMMAND_SERVICE, Method
from fastrunner.service.transport import server
from tests.integration.open_loop import Load, channel, work
from tests.integration.runner_process import running

CALLERS = 64
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _us(call: Callable[[], object], times: int) -> float:
    """Microseconds of one call, undisturbed: of several tries the best."""
    return min(timeit.repeat(call, number=times, repeat=15)) / times * 1e6


def _batch(executions: int, tasks: int) -> tuple[Batch, dict[str, Execution]]:
    """A commit in which so many executions are accepted and end."""
    plan, batch, live = PlanCache(Metrics()).keep(compile_document(work(tasks)), work(tasks)), Batch(), {}
    for number in range(executions):
        execution_id = f"execution-{number}"
        walk, turn = Walk.start(plan.plan, execution_id, {}, 1_000)
        live[execution_id] = Execution(0, number, execution_id, 1_000, b"", False)
        batch.changes.append(
            Change(
                execution_key=number,
                execution_id=execution_id,
                accepted=Accepted(b"", plan, 1_000, b"", b"{}", b"{}", False),
                status=walk.status,
                finished_ms=1_001,
                wake_at_ms=0,
                parked=False,
                last_sequence=turn.last_sequence,
                snapshot=None,
                output_json="{}",
                error_json=None,
                events=UnacknowledgedEvents(execution_id, 1, turn.last_sequence, turn.events),
                effects=(),
                waiters=(),
                tallies=[turn.tally],
            )
        )
    return batch, live


def counting_us(executions: int, tasks: int) -> dict[str, float]:
    """Microseconds for each execution, of commits of so many."""
    metrics = Metrics(segment=Segment(notes=1))
    measure = server._Measure(metrics, Method(COMMAND_SERVICE, "ExecuteAsync", streams=False))
    counts = CommitCounts(metrics, 0)
    batch, live = _batch(executions, tasks)

    def call() -> None:
        measure.started.inc()
        measure(OK, 0.0)
        metrics.plan_cache_hits.inc()

    def commit() -> None:
        counts.begin(batch, live)
        counts.landed()
        metrics.commit_executions.observe(executions)
        metrics.commit_duration.observe(0.001)
        for gauge in (metrics.active_executions, metrics.parked_executions, metrics.resident_executions):
            gauge.set(1)

    return {"the call": _us(call, 20_000), "the commit": _us(commit, 2_000) / executions}


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


async def _accept(target: str, pid: int, tasks: int, span_s: float) -> tuple[float, float]:
    """Microseconds of the worker's processor for each call, and calls per second."""
    load = Load([channel(target) for _ in range(8)], work(tasks), "cost")
    await load.closed(CALLERS, 1)
    began_s = _processor_s(pid)
    tally = await load.closed(CALLERS, span_s)
    return (_processor_s(pid) - began_s) / tally.count("OK") * 1e6, tally.count("OK") / tally.span_s


def _main(arguments: argparse.Namespace) -> None:
    with (
        tempfile.TemporaryDirectory(dir=arguments.data_dir) as folder,
        running(Path(folder) / "data", ("-m", "fastrunner", "serve"), FASTRUNNER_WORKERS="1") as runner,
    ):
        pid = runner.wait_ready().workers()[0]["pid"]
        accept_us, rate = uvloop.run(_accept(runner.target, pid, arguments.tasks, arguments.seconds))
        commits = runner.metric("workflow_runner_commit_executions_count")
        executions = max(1, round(runner.metric("workflow_runner_executions_accepted_total") / commits))
        runner.stop()
    parts = counting_us(executions, arguments.tasks)
    total_us = sum(parts.values())
    print(f"ExecuteAsync of {arguments.tasks} tasks, {rate:.0f}/s: {accept_us:.1f} us of the worker's processor each")
    print(f"    {executions} executions in a commit")
    for name, took_us in parts.items():
        print(f"    counting for {name:<10} {took_us:6.2f} us")
    print(f"    together {100 * total_us / accept_us:.2f} % of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load")
    parser.add_argument("--data-dir", type=Path, default=Path("/var/tmp"))
    _main(parser.parse_args())
