"""Support: what events that were taken are to the metrics, whoever took them: a report, or who finishes one."""

from fastrunner.counts.definitions import StigmerMetrics
from fastrunner.stigmer.store import Taken

__all__ = ["count_taken"]


def count_taken(metrics: StigmerMetrics, taken: Taken) -> None:
    """Counts it."""
    metrics.events_stored.inc(taken.stored)
    metrics.events_duplicate.inc(taken.duplicates)
    for kind, count in taken.violations.items():
        metrics.violations.labels(kind).inc(count)
    for status, count in taken.ended.items():
        metrics.executions_ended.labels(status).inc(count)
