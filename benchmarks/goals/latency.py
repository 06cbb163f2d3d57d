"""Support: latencies under open arrivals, which wait for no answers: at half of saturation, and at a steady rate."""

import statistics

from benchmarks import loads
from benchmarks.goals.measuring import TASKS, Bound, Durable, Goal, Run, client_cores, own_calls
from benchmarks.servers import empty, runner

__all__ = ["latency"]

_ARRIVALS_PER_S = 150
_HALF_S = 3.0
_STEADY_S = 4.0
_MEANS = ((20, 2.0), (50, 3.0), (100, 4.0))
"""Tasks, and milliseconds."""


def latency(run: Run) -> list[Goal]:
    """One worker on a core of its own."""
    cores = client_cores(1)
    with empty("aio", 1, 0) as aio, runner(1, 0) as tree:
        durable = Durable(tree)
        for count in (run.calls // 5, run.calls):
            figures = own_calls(run, tree.target, count, cores=cores)
            durable.finish(figures.count)
            empty_figures = own_calls(run, aio.target, count, cores=cores)
        half_per_s, empty_half_per_s = figures.rate_per_s / 2, empty_figures.rate_per_s / 2
        return [
            _p50(run, durable, aio.target, min(half_per_s, empty_half_per_s)),
            _p99(run, durable, half_per_s),
            *(_steady(run, durable, tasks, mean_ms_max) for tasks, mean_ms_max in _MEANS),
        ]


def _p50(run: Run, durable: Durable, empty_target: str, rate_per_s: float) -> Goal:
    """Both at the same rate, which both can take: half of the lower saturation."""
    targets = {"runner": durable.tree.target, "empty on grpc.aio": empty_target}
    seen: dict[str, list[loads.Figures]] = {side: [] for side in targets}
    for side in run.turns(targets):
        run.advance(f"latency at half of the lower saturation: {side}")
        seen[side].append(_open(run, targets[side], TASKS, rate_per_s, _HALF_S))
        if side == "runner":
            durable.finish(seen[side][-1].count)
    refused_count = sum(each.errors_count for rounds in seen.values() for each in rounds)
    p50s_ms = {side: [each.latency_ms["p50"] for each in rounds] for side, rounds in seen.items()}
    ratios = [over / under for over, under in zip(*p50s_ms.values(), strict=True)]
    medians_ms = {side: statistics.median(values) for side, values in p50s_ms.items()}
    what = f"ExecuteAsync at half of the lower saturation ({rate_per_s:.0f}/s): p50 over the empty method's"
    return Goal(what, statistics.median(ratios), "", Bound(2.5, at_most=True), ratios, medians_ms, "ms", refused_count)


def _p99(run: Run, durable: Durable, rate_per_s: float) -> Goal:
    """The runner alone, at half of its own saturation, whatever another can take."""
    rounds = []
    for _ in range(run.rounds):
        run.advance("latency at half of saturation")
        rounds.append(_open(run, durable.tree.target, TASKS, rate_per_s, _HALF_S))
        durable.finish(rounds[-1].count)
    p99s_ms = [each.latency_ms["p99"] for each in rounds]
    return Goal(
        f"ExecuteAsync at half of saturation ({rate_per_s:.0f}/s): p99",
        statistics.median(p99s_ms),
        "ms",
        Bound(8.0, at_most=True),
        p99s_ms,
        refused_count=sum(each.errors_count for each in rounds),
        note=f"p50 {statistics.median(each.latency_ms['p50'] for each in rounds):.2f} ms",
    )


def _steady(run: Run, durable: Durable, tasks: int, mean_ms_max: float) -> Goal:
    rounds = []
    for _ in range(run.rounds):
        run.advance(f"durable workflows of {tasks} tasks at {_ARRIVALS_PER_S}/s")
        rounds.append(_open(run, durable.tree.target, tasks, _ARRIVALS_PER_S, _STEADY_S))
        durable.finish(rounds[-1].count)
    means_ms = [each.latency_ms["mean"] for each in rounds]
    p95_ms = statistics.median(each.latency_ms["p95"] for each in rounds)
    return Goal(
        f"durable workflow of {tasks} tasks at {_ARRIVALS_PER_S}/s, none dropped: mean",
        statistics.median(means_ms),
        "ms",
        Bound(mean_ms_max, at_most=True),
        means_ms,
        refused_count=sum(each.errors_count for each in rounds),
        note=f"p95 {p95_ms:.2f} ms",
    )


def _open(run: Run, target: str, tasks: int, rate_per_s: float, seconds: float) -> loads.Figures:
    message = loads.body(run.prefix(), tasks)
    return loads.open_load(target, loads.CALL, message, rate_per_s=rate_per_s, seconds=seconds, cores=client_cores(1))
