"""Support: a short torture: every fault once, and everything that was promised is there afterwards."""

import asyncio
from pathlib import Path

import pytest

from tests.crash.torture import Torture
from tests.integration.engines import folder

_SEED = 20_261_123


@pytest.mark.slow
def test_short_torture() -> None:
    """About fifteen seconds of faults; `make torture` goes on for as long as one likes, with seeds of its own."""
    path: Path = folder()
    report = asyncio.run(Torture(_SEED, 15, path).run())
    print(*report.lines(), sep="\n")
    assert not report.violations, "\n".join(report.lines())
    assert report.executions > 50
    assert report.faults["kill worker"] > 0
