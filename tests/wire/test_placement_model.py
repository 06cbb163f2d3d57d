"""Stage 1, routing: every order of the steps of a stripe's operations, with a kill before any of them, in a model.

The model is checked, too: it must find the mistakes that the real table could have been written with.
"""

import pytest

from tests.wire.placement_model import Broken, Run, Scenario, Shape, claim, release, search

TWO_CLAIMERS = Scenario({"a": 1}, [[(claim, "a")], [(claim, "a")]])
TWO_CLAIMERS_THAT_GROW = Scenario({"a": 1, "b": 5}, [[(claim, "a")], [(claim, "a")]], idle=[(0, 9), (5, 9), (2, 8)])
RELEASED_AND_CLAIMED = Scenario(
    {"a": 1, "b": 5}, [[(release, "a")], [(claim, "a"), (claim, "b")]], committed={0: ["a"]}, idle=[(9, 9)]
)
GROWN_WHILE_OTHERS_LIVE = Scenario(
    {"a": 1, "b": 5, "c": 13, "d": 3},
    [[(claim, "d"), (release, "c")], [(claim, "a")]],
    committed={0: ["c"]},
    idle=[(0, 9), (5, 8)],
)
DROPPED = Scenario({"a": 1, "b": 5}, [[(claim, "a")], [(release, "b")]], committed={1: ["b"]}, gone=[2, 3])
PASSED_OVER = Scenario(
    {"a": 1, "b": 5}, [[(claim, "a")], [(release, "a"), (claim, "b")]], committed={1: ["a"]}, gone=[1]
)
SAME_HASH = Scenario(
    {"a": 1, "b": 1}, [[(release, "a"), (claim, "a")], [(release, "b")]], committed={0: ["a"], 1: ["b"]}, idle=[(2, 9)]
)
THREE_WITHOUT_KILLS = Scenario({"a": 1}, [[(claim, "a")], [(claim, "a")], [(claim, "a")]], gone=[1], kills=0)
KILLED_TWICE = Scenario({"a": 1}, [[(claim, "a")], [(release, "b")]], idle=[(0, 9)], kills=2)
KILLED_TWICE.hashes["b"] = 5
KILLED_TWICE.committed[1] = ["b"]

SCENARIOS = {name.lower(): value for name, value in list(vars().items()) if isinstance(value, Scenario)}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_no_order_of_steps_breaks_a_promise(scenario: Scenario) -> None:
    """One winner, what lives is found at every moment, others' entries stay, and in the end the table is exact."""
    assert search(scenario) > 100


def test_orders_have_what_they_are_for() -> None:
    """Winners of either side, and a region that was left."""
    winners: set[int] = set()
    shapes: set[Shape] = set()

    def seen(run: Run) -> None:
        winners.update(shard for shard, names in run.stripe.committed.items() if "a" in names)
        shapes.add(run.stripe.shape)

    search(TWO_CLAIMERS_THAT_GROW, seen=seen)
    assert winners == {0, 1}
    assert shapes == {(3, 0)}


@pytest.mark.parametrize("fault", ["no repair", "flip first", "always empty", "early reuse", "no lock"])
def test_mistakes_are_found(fault: str) -> None:
    """Each of them by some scenario."""
    found = []
    for scenario in SCENARIOS.values():
        try:
            search(scenario, frozenset([fault]))
        except Broken as broken:
            found.append(str(broken))
            break
    assert found
