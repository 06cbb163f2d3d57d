"""Promises hold whatever fails: hundreds of seeds of a simulated runner of one or several workers.

A failing seed is run again, alone, by `python -m tests.simulation --first SEED --seeds 1`.
"""

from collections import Counter

import pytest

from tests.integration.engines import folder
from tests.simulation.run import simulate

_SEEDS = 800
_CHUNK = 100


@pytest.mark.parametrize("first", range(0, _SEEDS, _CHUNK))
def test_promises_hold_under_faults(first: int) -> None:
    """Nothing accepted is lost, no event is missing or changed, no done effect repeats, no command is forgotten; an id
    has one execution, in one shard, and everybody who asks for it gets the same answer at every worker; whoever listens
    has each event once."""
    base = folder()
    faults: Counter[str] = Counter()
    cloud_events: Counter[str] = Counter()
    for seed in range(first, first + _CHUNK):
        verdict = simulate(seed, base / str(seed))
        assert not verdict.violations, f"seed {seed}"
        assert verdict.executions > 0
        faults += verdict.faults
        cloud_events += verdict.cloud_events
    assert len(faults) >= 10, "faults are injected"
    assert cloud_events["taken"] > 100
    assert cloud_events["inbox rows again"] + cloud_events["taken again"] > 0, "workers die on the way of events"


@pytest.mark.parametrize("seed", [3, 144])
def test_a_seed_happens_the_same_way_again(seed: int) -> None:
    base = folder()
    first, second = (simulate(seed, base / str(number)) for number in range(2))
    assert first == second
    assert first.faults
