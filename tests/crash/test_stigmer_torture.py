"""Support: a short torture of two Stigmer Services, and everything that was promised is there afterwards."""

import asyncio
from pathlib import Path

import pytest

from tests.crash.stigmer_torture import StigmerTorture
from tests.integration.engines import folder

_SEED = 20_261_129


@pytest.mark.slow
def test_short_torture_of_services() -> None:
    """Some seconds of faults; `make torture-stigmer` goes on for as long as one likes."""
    path: Path = folder()
    report = asyncio.run(StigmerTorture(_SEED, 5, path).run())
    print(*report.lines(), sep="\n")
    assert not report.violations, "\n".join(report.lines())
    assert report.executions > 4
    assert report.events > 20
