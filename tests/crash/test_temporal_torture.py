"""Support: a short torture of two replicas on Temporal: either is killed, and the server, and all that was promised is
there afterwards."""

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.crash.temporal_torture import TemporalTorture
from tests.integration.engines import folder
from tests.outside import require, require_tool

require(find_spec("temporalio"), "temporalio", module=True)

_SEED = 20_261_129


@pytest.mark.slow
def test_short_temporal_torture() -> None:
    """Two kills of a replica and one of the server; `make torture-temporal` goes on for as long as one likes."""
    require_tool("temporal")
    path: Path = folder()
    report = asyncio.run(TemporalTorture(_SEED, 2, path, server_kills=1).run())
    print(*report.lines(), sep="\n")
    assert not report.violations, "\n".join(report.lines())
    assert report.executions > 12
    assert report.faults["kill server"] == 1
    assert report.faults.total() == 3
