"""Support: what all processes have counted, as prometheus_client's metrics.

Rule: whoever counts does not import this, nor prometheus_client.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fastrunner.counts.cells import Key, Segment
from fastrunner.counts.definitions import Definition, Metrics

__all__ = ["TreeCollector", "encoded", "families"]

Counted = Sequence[tuple[Key, Sequence[float]]]
"""What one process has counted."""


class TreeCollector:
    """Everything the processes of a runner have counted; a prometheus_client Collector."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._segments = tuple(segments)
        self._definitions = Metrics().definitions

    def collect(self) -> Iterator[Metric]:
        """One metric per definition, over all processes."""
        counts = [segment.read_counts() for segment in self._segments]
        return families(self._definitions, counts, [segment.read_gauges() for segment in self._segments])


def families(
    definitions: Mapping[str, Definition], counts: Iterable[Counted], gauges: Iterable[Counted]
) -> Iterator[Metric]:
    """One metric per definition, of what several processes have counted."""
    merged: dict[str, dict[tuple[str, ...], list[float]]] = defaultdict(dict)
    for counted in (*counts, *gauges):
        for key, values in counted:
            known = merged[key.name].setdefault(key.labels, [0.0] * key.width)
            merge = max if definitions[key.name].oldest else _sum
            known[:] = map(merge, known, values)
    for name, definition in definitions.items():
        yield _metric(definition, merged[name])


def _sum(one: float, other: float) -> float:
    return one + other


def _shown(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(bound)


def _metric(definition: Definition, series: Mapping[tuple[str, ...], Sequence[float]]) -> Metric:
    name = definition.name
    metric = Metric(name.removesuffix("_total"), definition.text, definition.kind)
    for values, cells in series.items():
        labels = dict(zip(definition.labels, values, strict=True))
        if definition.kind != "histogram":
            metric.add_sample(name, labels, cells[0])
            continue
        *buckets, total = cells
        cumulated = list(accumulate(buckets))
        for bound, count in zip((*definition.bounds, float("inf")), cumulated, strict=True):
            metric.add_sample(f"{name}_bucket", {**labels, "le": _shown(bound)}, count)
        metric.add_sample(f"{name}_count", labels, cumulated[-1])
        metric.add_sample(f"{name}_sum", labels, total)
    return metric


def encoded(collector: Collector, accept: str) -> tuple[bytes, str]:
    """What a collector has, in the form that an Accept header asks for, and that form's name."""
    registry = CollectorRegistry()
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
