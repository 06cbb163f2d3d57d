"""Support: what a durable ExecuteAsync costs the server, as processor time of its whole tree per call.

The client's cost is no property of a server, so the first measure is what all processes of the server took, user and
system, from the kernel's accounts. The runner's counts until everything it accepted has been executed, so nothing is
put off beyond the end of the measure but what retention deletes days later. Nobody is bound to cores: servers and
clients share them all, which the rates of the same rounds tell.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import ghz, loads
from benchmarks.goals.measuring import DOCUMENT, TASKS, Bound, Durable, Goal, Rounds, Run, own_calls, plural
from benchmarks.servers import empty, processor_s, runner

__all__ = ["processor"]

_PACED_S = 2.0
_RUNNER, _EMPTY = "runner", "empty on grpc.aio"
_COSTS = {1: Bound(0.65, 0.45, True), 2: Bound(0.70, 0.50, True), 8: Bound(0.90, 0.65, True)}
_RATES = {1: Bound(1.3, 1.5), 2: Bound(1.0, 1.2), 8: Bound()}


@dataclass(frozen=True, slots=True)
class _Side:
    target: str
    pid: int
    durable: Durable | None


_Load = Callable[[Run, str, int], loads.Figures]


def _ghz(run: Run, target: str, count: int) -> loads.Figures:
    return ghz.closed(target, DOCUMENT, run.prefix(), count=count)


def _cost_us(run: Run, side: _Side, load: _Load, count: int) -> tuple[float, loads.Figures]:
    """Processor time per answered call, and what the client saw."""
    before_s = processor_s(side.pid)
    figures = load(run, side.target, count)
    if side.durable:
        side.durable.finish(figures.count)
    return 1e6 * (processor_s(side.pid) - before_s) / max(1, figures.count), figures


def processor(run: Run) -> list[Goal]:
    """Processor time per call with 1, 2 and 8 workers, and the rates that ghz saw meanwhile."""
    goals: list[Goal] = []
    for workers in _COSTS:
        with ExitStack() as stack:
            tree = stack.enter_context(runner(workers))
            aio = stack.enter_context(empty("aio", workers))
            sides = {
                _RUNNER: _Side(tree.target, tree.process.pid, Durable(tree)),
                _EMPTY: _Side(aio.target, aio.pid, None),
            }
            goals += _compared(run, workers, sides)
    return goals


def _compared(run: Run, workers: int, sides: dict[str, _Side]) -> list[Goal]:
    goals, slowest_per_s = [], float("inf")
    for client, load in (("ghz", _ghz), ("own client", own_calls)):
        what = f"{plural(workers)}, {client}"
        for side in sides.values():
            _cost_us(run, side, load, run.calls // 5)
        costs, rates = Rounds(), Rounds()
        for name in run.turns(sides):
            run.advance(f"processor time, {what}: {name}")
            cost_us, figures = _cost_us(run, sides[name], load, run.calls)
            costs.add(name, cost_us, figures.errors_count)
            rates.add(name, figures.rate_per_s, figures.errors_count)
            slowest_per_s = min(slowest_per_s, figures.rate_per_s)
        bound = _COSTS[workers] if client == "ghz" else Bound()
        goals.append(costs.ratio(f"processor time of a call, {what}", _RUNNER, _EMPTY, bound, "us"))
        if client == "ghz":
            goals.append(rates.ratio(f"accept, {what}", _RUNNER, _EMPTY, _RATES[workers], "calls/s"))
    goals.append(_paced(run, workers, sides, slowest_per_s / 2))
    return goals


def _paced(run: Run, workers: int, sides: dict[str, _Side], rate_per_s: float) -> Goal:
    """The cost when both sides get as many calls per second, at half of what the slowest round took."""

    def load(run: Run, target: str, count: int) -> loads.Figures:
        message = loads.body(run.prefix(), TASKS)
        return loads.open_load(target, loads.CALL, message, rate_per_s=rate_per_s, seconds=count / rate_per_s, cores=())

    costs = Rounds()
    for name in run.turns(sides):
        run.advance(f"processor time at {rate_per_s:.0f}/s, {plural(workers)}: {name}")
        cost_us, figures = _cost_us(run, sides[name], load, int(rate_per_s * _PACED_S))
        costs.add(name, cost_us, figures.errors_count)
    name = f"processor time of a call, {plural(workers)}, own client, {rate_per_s:.0f}/s to both"
    return costs.ratio(name, _RUNNER, _EMPTY, Bound(), "us")
