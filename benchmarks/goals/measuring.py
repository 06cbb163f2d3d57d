"""Support: what the sections of the goals share: rounds by turns, ratios, bounds, and waiting until all is done.

Rules: sides of a comparison take turns, round by round and with the order reversed every second time, so what disturbs
the machine disturbs both; a figure is the median of its rounds; what a server refused is counted, and a goal with
refusals is not met, however fast the rest was.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks import loads
from benchmarks.workflows import set_tasks
from fastrunner.base.clock import monotonic_s
from tests.integration.runner_process import RunnerProcess

__all__ = [
    "BATCH_SIZE", "DOCUMENT", "IN_FLIGHT", "TASKS", "Bound", "Durable", "Goal", "Rounds", "Run", "client_cores",
    "own_batches", "own_calls", "plural", "server_cores",
]  # fmt: skip

TASKS = 10
DOCUMENT = set_tasks(TASKS)
IN_FLIGHT = 64
BATCH_SIZE = 100
_SETTLE_S_MAX = 60.0
_SETTLE_INTERVAL_S = 0.05
"""Between looks: each costs the web process a few milliseconds, which count as the runner's."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What is asked for."""

    floor: float | None = None
    """Met if reached; none: the figure is shown and nothing is asked."""
    stretch: float | None = None
    at_most: bool = False
    """Less is better."""

    def reached(self, value: float, wanted: float | None) -> bool:
        """Whether a value is as good as one of the two."""
        return wanted is not None and (value <= wanted if self.at_most else value >= wanted)


@dataclass(slots=True)
class Goal:
    """A figure, and what is asked of it."""

    name: str
    value: float
    unit: str
    """Of the value; empty: a ratio."""
    bound: Bound
    rounds: list[float] = field(default_factory=list)
    """The value of each round."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What the value was made of: medians by side."""
    figures_unit: str = ""
    refused_count: int = 0
    """Calls that were not answered with OK."""
    note: str = ""
    """Further figures, as text."""
    group: str = "goals"
    """The table that it stands in."""
    runs: list[float] = field(default_factory=list)
    """The value in each of several whole runs."""

    @property
    def state(self) -> str:
        """`stretch`, `met`, `missed`, or nothing if nothing is asked."""
        if self.bound.floor is None:
            return ""
        if self.refused_count or not self.bound.reached(self.value, self.bound.floor):
            return "missed"
        return "stretch" if self.bound.reached(self.value, self.bound.stretch) else "met"


class Run:
    """How much to measure."""

    def __init__(self, rounds: int, calls: int, advance: Callable[[str], None]) -> None:
        self.rounds = rounds
        self.calls = calls
        """In a round of unary calls; other loads take a part of it."""
        self.advance = advance
        """Told what is done next."""
        self._number = 0

    def prefix(self) -> str:
        """A new one for execution ids."""
        self._number += 1
        return f"g{self._number}"

    def turns(self, sides: Iterable[str]) -> Iterator[str]:
        """Each side once in every round."""
        order = list(sides)
        for _ in range(self.rounds):
            yield from order
            order.reverse()


class Rounds:
    """What the sides of a comparison reached, round by round."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.refused_count = 0

    def add(self, side: str, value: float, refused_count: int = 0) -> None:
        """One round of a side."""
        self.values.setdefault(side, []).append(value)
        self.refused_count += refused_count

    def median(self, side: str) -> float:
        """Of a side's rounds."""
        return statistics.median(self.values[side])

    def ratio(self, name: str, above: str, below: str, bound: Bound, unit: str) -> Goal:
        """One side over another; `unit` is that of the sides."""
        ratios = [over / under for over, under in zip(self.values[above], self.values[below], strict=True)]
        return Goal(
            name,
            statistics.median(ratios),
            "",
            bound,
            ratios,
            {side: self.median(side) for side in (above, below)},
            unit,
            self.refused_count,
        )


class Durable:
    """A runner, and how much it has been given to do."""

    def __init__(self, tree: RunnerProcess) -> None:
        self.tree = tree
        self._accepted = 0.0

    def finish(self, count: int) -> None:
        """Waits until `count` more executions have completed and none is unfinished. Raises RuntimeError."""
        self._accepted += count
        deadline_s = monotonic_s() + _SETTLE_S_MAX
        while True:
            metrics = self.metrics()
            completed = metrics['workflow_runner_executions_finished_total{status="completed"}']
            if completed >= self._accepted and not metrics["workflow_runner_active_executions"]:
                break
            if monotonic_s() > deadline_s:
                raise RuntimeError(f"{completed:.0f} of {self._accepted:.0f} executions completed: {metrics}")
            time.sleep(_SETTLE_INTERVAL_S)

    def metrics(self) -> Mapping[str, float]:
        """Of executions and of requests between workers."""
        lines = (line.rpartition(" ") for line in self.tree.get("/metrics")[1].splitlines())
        wanted = ("workflow_runner_executions_", "workflow_runner_active_", "workflow_runner_router_forwards_")
        return {name: float(value) for name, _, value in lines if name.startswith(wanted)}

    def forwards(self) -> float:
        """Requests that workers have handed to each other."""
        return sum(value for name, value in self.metrics().items() if name.startswith("workflow_runner_router_"))


def own_calls(run: Run, target: str, count: int, connections: int = 16, cores: tuple[int, ...] = ()) -> loads.Figures:
    """ExecuteAsync from our own client."""
    message = loads.body(run.prefix(), TASKS)
    return loads.closed(
        target, loads.CALL, message, count=count, in_flight=IN_FLIGHT, cores=cores, connections=connections
    )


def own_batches(
    run: Run, target: str, executions: int, in_flight: int, connections: int = 16, cores: tuple[int, ...] = ()
) -> loads.Figures:
    """ExecuteAsyncBatch from our own client; the rate is that of batches."""
    message = loads.body(run.prefix(), TASKS, BATCH_SIZE)
    count = max(in_flight, executions // BATCH_SIZE)
    return loads.closed(
        target, loads.BATCH, message, count=count, in_flight=in_flight, cores=cores, connections=connections
    )


def server_cores(workers: int) -> tuple[int, ...]:
    """The first ones, one for each worker."""
    return tuple(range(min(workers, os.cpu_count() or 1)))


def client_cores(workers: int) -> tuple[int, ...]:
    """What the servers leave; none: all."""
    return tuple(range(workers, os.cpu_count() or 1))


def plural(workers: int) -> str:
    """`1 worker`, `2 workers`."""
    return f"{workers} worker{'' if workers == 1 else 's'}"
