"""Stage 3, journal: what turns tell of their tasks, as the metrics have it; the same for every engine."""

from typing import Final

from fastrunner._core import KINDS, TALLIED_OUTCOMES, TaskTally
from fastrunner.counts.definitions import EXECUTION_SECONDS, Metrics

__all__ = ["TaskSums"]

_BOUNDS_MS: Final = [round(bound * 1000) for bound in EXECUTION_SECONDS]


class TaskSums:
    """Sums of tallies, on their way to the metrics of one process."""

    def __init__(self, metrics: Metrics) -> None:
        self._tally = TaskTally(_BOUNDS_MS)
        self._cells = _cells_of(metrics)

    def add(self, tallies: bytes) -> None:
        """Adds tallies of turns, one behind the other. Raises ValueError if they are none."""
        self._tally.add(tallies)

    def take(self) -> list[tuple[int, float]]:
        """Cells of the metrics, and what is to be added to each, since it was taken last."""
        return [(self._cells[cell][0], amount * self._cells[cell][1]) for cell, amount in self._tally.take()]


def _cells_of(metrics: Metrics) -> list[tuple[int, float]]:
    """The cell of the metrics, and the factor, for each cell of a TaskTally."""
    cells: list[tuple[int, float]] = [(metrics.expressions_over_budget.at, 1)]
    for kind in KINDS:
        cells += [(metrics.tasks.labels(kind.name, outcome).at, 1) for outcome in TALLIED_OUTCOMES]
        duration = metrics.task_duration.labels(kind.name)
        cells += [(duration.at + bucket, 1) for bucket in range(len(EXECUTION_SECONDS) + 1)]
        cells.append((duration.sum_at, 0.001))
    return cells
