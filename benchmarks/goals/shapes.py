"""Support: whole workflows of shapes that others measure, too: two, ten and a hundred steps in a row, ten side by side;
once as `set` tasks, once as calls of a local server that answers at once.

A call of Execute ends when its workflow has ended and is durable, so its latency is that of the whole workflow.
"""

from benchmarks import loads
from benchmarks.goals.measuring import IN_FLIGHT, Bound, Durable, Goal, Run
from benchmarks.servers import http, runner
from benchmarks.workflows import shape

__all__ = ["shapes"]

_STEPS = {"seq_2": 2, "seq_10": 10, "seq_100": 100, "fan_out_10": 10}
_STEPS_PER_CALL = {"set": 25, "call": 1}
"""So many steps take about as long as one unary call: what a round of the run's calls is cut down to."""


def shapes(run: Run) -> list[Goal]:
    """One worker; client, receiver of calls and runner share all cores."""
    goals = []
    with http() as url, runner(1) as tree:
        durable = Durable(tree)
        for kind, endpoint in (("set", ""), ("call", url)):
            for name, steps in _STEPS.items():
                run.advance(f"{name} with `{kind}`")
                document = shape(name, steps, endpoint)
                count = max(20, run.calls // (4 + 2 * steps // _STEPS_PER_CALL[kind]))
                busy = _executed(run, durable, document, count, IN_FLIGHT)
                alone = _executed(run, durable, document, max(20, count // 8), 1)
                goals.append(
                    Goal(
                        f"{name}, `{kind}`",
                        busy.rate_per_s,
                        "workflows/s",
                        Bound(),
                        figures={
                            "steps/s": steps * busy.rate_per_s,
                            "p50 ms, one at a time": alone.latency_ms["p50"],
                            "p99 ms, one at a time": alone.latency_ms["p99"],
                            f"p50 ms, {IN_FLIGHT} at a time": busy.latency_ms["p50"],
                        },
                        refused_count=busy.errors_count + alone.errors_count,
                        group="shapes",
                    )
                )
    return goals


def _executed(run: Run, durable: Durable, document: str, count: int, in_flight: int) -> loads.Figures:
    message = loads.execution(run.prefix(), document)
    figures = loads.closed(
        durable.tree.target, loads.STREAM, message, count=count, in_flight=in_flight, cores=(), connections=16
    )
    durable.finish(figures.count)
    return figures
