"""Support: what the benchmarks count, and what they call met."""

import os
import subprocess
import sys

from benchmarks.goals.measuring import Bound, Goal, Rounds
from benchmarks.servers import processor_s

BURN = "import time\nwhile time.process_time() < 0.4: pass\n"


def test_processor_time_counts_what_lives_and_what_has_ended() -> None:
    """A child that burns time counts while its parent lives, reaped or not."""
    run = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
    parent = f"{run}print('reaped', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reaped\n"
        assert processor_s(process.pid) >= 0.3  # the kernel counts in ticks, and cuts them off
        process.communicate("\n")
    before_s = processor_s(os.getpid())
    with subprocess.Popen([sys.executable, "-c", BURN + "print('burnt', flush=True)\ninput()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "burnt\n"
        assert processor_s(os.getpid()) - before_s >= 0.3
        child.communicate("\n")


def test_goal_is_met_by_its_bound_and_never_with_refusals() -> None:
    """Of both kinds of bounds; the median of the rounds is what counts."""
    rounds = Rounds()
    for over, under in ((10.0, 20.0), (12.0, 20.0), (90.0, 20.0)):
        rounds.add("over", over)
        rounds.add("under", under)
    least = Bound(0.65, 0.45, at_most=True)
    assert rounds.ratio("cost", "over", "under", least, "us").state == "met"
    assert rounds.ratio("cost", "over", "under", Bound(0.65, 0.6, at_most=True), "us").state == "stretch"
    assert rounds.ratio("rate", "over", "under", Bound(0.65), "us").state == "missed"
    assert Goal("figure", 1.0, "", Bound()).state == ""
    rounds.refused_count = 1
    assert rounds.ratio("cost", "over", "under", least, "us").state == "missed"
