"""Support: what makers and users of comparable engines have published of them: theirs, on their machines.

Rules: only figures that the named source states, with the workload and the machine that it states; none is computed
from others, and none is a comparison.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["PUBLISHED", "Published"]


@dataclass(frozen=True, slots=True)
class Published:
    """One source."""

    engine: str
    workload: str
    """And the machine."""
    figures: str
    source: str
    """Title and site."""


PUBLISHED: Final = (
    Published(
        "Temporal",
        "a payment workflow, 16 threads that each wait for theirs (2021); its author describes a workstation with 16 "
        "cores and PostgreSQL",
        "p50 156 ms, mean 187 ms",
        "M. Bernhardt, temporal-throughput-quick-bench (gist.github.com); Tour of Temporal: Performance "
        "(manuel.bernhardt.io)",
    ),
    Published(
        "Restate",
        "a handler of three durable steps, invoke to result; a network disk with an fsync for every step (2024)",
        "around 50 ms",
        "S. Ewen, Show HN: Restate (news.ycombinator.com)",
    ),
    Published(
        "DBOS",
        "workflows on one PostgreSQL server of 96 vCPUs and 384 GB with 120,000 provisioned IOPS",
        "43,000 workflows/s",
        "Benchmarking workflow execution scalability on Postgres (dbos.dev)",
    ),
    Published(
        "Hatchet",
        "event-triggered runs, engine v0.55.26 with a database of 8 vCPUs",
        "100 runs/s: 40 ms to execute, 2.5 ms to write; 2,000 runs/s: 220 and 5.7 ms",
        "Benchmarking Hatchet (docs.hatchet.run)",
    ),
    Published(
        "Conductor",
        "a workflow of 13 steps with a sub-workflow, one node on a laptop, tuned build (2022)",
        "sustained load of 200 workflows/s",
        "Running a Billion Workflows a Month with Netflix Conductor (orkes.io)",
    ),
    Published(
        "Tasker",
        "four steps in a row, HTTP call to finalization, a cluster of 10 instances with RabbitMQ (2026)",
        "p50 257 ms",
        "E2E Benchmark Scenarios (docs.tasker.systems)",
    ),
)
