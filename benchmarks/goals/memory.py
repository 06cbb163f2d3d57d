"""Support: memory of an idle worker, and of executions that are in flight in it."""

import json
import statistics

from benchmarks import loads
from benchmarks.goals.measuring import BATCH_SIZE, Bound, Goal, Run
from benchmarks.servers import memory_mib, runner
from tests.integration.runner_process import RunnerProcess

__all__ = ["SLEEPER", "memory"]

SLEEPER = {
    "document": {"dsl": "1.0.3", "namespace": "bench", "name": "sleeper", "version": "1.0.0"},
    "do": [{"rest": {"wait": "PT1H"}}],
}
_EXECUTIONS = 5_000


def memory(run: Run) -> list[Goal]:
    """An idle worker, and executions that are in flight in it."""
    rounds = []
    with runner(1, FASTRUNNER_PARKED_RESIDENT_MAX=str(10 * _EXECUTIONS)) as tree:
        run.advance("memory")
        (worker,) = (each["pid"] for each in tree.workers())
        idle = {field: memory_mib(worker, field) for field in ("Rss", "Pss", "Private_Dirty")}
        _sleep(run, tree, BATCH_SIZE * 5)
        for _ in range(min(3, run.rounds)):
            before_mib = memory_mib(worker, "Private_Dirty")
            _sleep(run, tree, _EXECUTIONS)
            rounds.append(1024 * (memory_mib(worker, "Private_Dirty") - before_mib) / _EXECUTIONS)
    grown_kib = statistics.median(rounds)
    return [
        Goal(
            "an idle worker, resident with everything shared",
            idle["Rss"],
            "MiB",
            Bound(57.2, at_most=True),
            figures=idle,
            figures_unit="MiB",
            note=f"its proportional share is {idle['Pss']:.0f} MiB",
        ),
        Goal(
            "an execution in flight",
            grown_kib,
            "KiB",
            Bound(3.0, at_most=True),
            rounds,
            {"KiB": grown_kib},
            "KiB",
        ),
    ]


def _sleep(run: Run, tree: RunnerProcess, count: int) -> None:
    message = loads.execution(run.prefix(), json.dumps(SLEEPER), BATCH_SIZE)
    done = loads.closed(tree.target, loads.BATCH, message, count=count // BATCH_SIZE, in_flight=2, cores=())
    if done.errors_count:
        raise RuntimeError(f"{done.errors_count} batches were refused")
