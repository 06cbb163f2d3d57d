"""Stage 1, routing: the placement table between real processes, which race, are killed and are stopped."""

import subprocess
import sys

import pytest

from fastrunner import _wire

ROUNDS_S_MAX = 100


def peers(*arguments: object) -> list[int]:
    """What `tests.wire.peers` printed."""
    completed = subprocess.run(
        [sys.executable, "-m", "tests.wire.peers", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=ROUNDS_S_MAX,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return [int(word) for word in completed.stdout.split()]


def test_one_of_four_wins_each_id() -> None:
    assert sum(peers("race", 4, 10_000)) == 10_000


def test_killed_at_any_moment_nothing_is_lost() -> None:
    """Peers are killed at random, until some of them held a lock: what they and all others had is there."""
    (rounds,) = peers("kill", 40)
    assert rounds >= 40


def test_killed_at_any_store_nothing_is_lost() -> None:
    """Before and after each store of a claim, a release, a settlement, and of stripes that grow and shrink."""
    try:
        vars(_wire)["_die_after"](0)
    except RuntimeError as error:
        pytest.skip(str(error))
    (kills,) = peers("die")
    assert kills > 500


def test_lock_of_a_stopped_process() -> None:
    """Whoever waits for it is told after a while; when it goes on, or is killed, all is well."""
    peers("stop")
