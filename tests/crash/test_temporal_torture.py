"""Support: a short torture of two replicas on Temporal: one is killed, and the server, and all that was promised is
there afterwards; and the look at histories with which it compares finds what is wrong."""

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from tests.crash.temporal_histories import difference
from tests.crash.temporal_torture import TemporalTorture
from tests.integration.engines import folder
from tests.outside import require, require_tool

require(find_spec("temporalio"), "temporalio", module=True)

_SEED = 20_261_129


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_short_temporal_torture() -> None:
    """A kill of a replica and one of the server; `make torture-temporal` goes on for as long as one likes."""
    require_tool("temporal")
    path: Path = folder()
    report = asyncio.run(TemporalTorture(_SEED, 1, path, server_kills=1, callers=8).run())
    print(*report.lines(), sep="\n")
    assert not report.violations, "\n".join(report.lines())
    assert report.executions >= 8
    assert report.faults["kill server"] == 1
    assert report.faults.total() == 2


def messages(*times_ms: int) -> list[bytes]:
    """Events from the first on, made at these times."""
    return [
        WorkflowProgressEvent(event_type="task_started", sequence_number=number, timestamp_ms=at_ms).SerializeToString()
        for number, at_ms in enumerate(times_ms, 1)
    ]


def test_events_that_differ_are_found() -> None:
    """By their numbers: a workflow may hold the latest alone, and may have been asked before it had all."""
    received = messages(10, 20, 30)
    assert (
        difference(received, received) == difference(received[1:], received) == difference(received[:2], received) == ""
    )
    assert difference(messages(10, 20, 30, 40)[2:], received) == "event 4 (task_started) has not arrived"
    assert difference(messages(10, 21, 30), received) == (
        "event 2 is task_started at 21, and arrived as task_started at 20"
    )
