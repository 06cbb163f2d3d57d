"""Support: measures the goals, as a table and as JSON.

    python -m benchmarks.goals --out goals.json [--quick] [--only processor,accept] [--runs 3]

Full it takes about twelve minutes for one run, quick about four. A run starts every server anew; with several, a figure
is the median of theirs. ghz must be installed (`make tools`). What a section cannot measure stops everything, with the
reason; what a server refuses is counted in the table.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import ghz
from benchmarks.goals.core import core
from benchmarks.goals.latency import latency
from benchmarks.goals.machine import machine
from benchmarks.goals.measuring import Goal, Run
from benchmarks.goals.memory import memory
from benchmarks.goals.processor import processor
from benchmarks.goals.rates import accept, placing, scaling
from benchmarks.goals.shapes import shapes
from benchmarks.goals.whole import whole

_SECTIONS: dict[str, Callable[[Run], list[Goal]]] = {
    "processor": processor,
    "accept": accept,
    "scaling": scaling,
    "placing": placing,
    "whole": whole,
    "latency": latency,
    "core": core,
    "memory": memory,
    "shapes": shapes,
}
_FULL, _QUICK = (5, 8_000), (3, 2_500)
"""Rounds, and calls in a round."""


def measure(only: list[str], run: Run, runs: int) -> list[Goal]:
    """The goals of the sections asked for, each the median of so many runs."""
    found: dict[tuple[str, str], list[Goal]] = {}
    for _ in range(runs):
        for name in only:
            for number, goal in enumerate(_SECTIONS[name](run)):
                # Names hold rates that differ from run to run.
                found.setdefault((name, str(number)), []).append(goal)
    return [_merged(goals) for goals in found.values()]


def _merged(goals: list[Goal]) -> Goal:
    """The one in the middle, with what the others measured."""
    ordered = sorted(goals, key=lambda goal: goal.value)
    middle = ordered[(len(ordered) - 1) // 2]
    middle.runs = [goal.value for goal in goals]
    middle.value = statistics.median(middle.runs)
    middle.refused_count = sum(goal.refused_count for goal in goals)
    return middle


def written(goal: Goal) -> dict[str, Any]:
    """A goal as JSON holds it."""
    return {**asdict(goal), "state": goal.state}


def _table(goals: list[Goal]) -> Table:
    table = Table("what", "floor; stretch", "measured", "rounds", "", "medians")
    for goal in goals:
        bound, unit = goal.bound, f" {goal.unit}" if goal.unit else ""
        sign = "<=" if bound.at_most else ">="
        asked = "" if bound.floor is None else f"{sign} {bound.floor:g}{unit}"
        asked += "" if bound.stretch is None else f"; {bound.stretch:g}"
        spread = f"{min(goal.rounds):.2f} to {max(goal.rounds):.2f}" if goal.rounds else ""
        figures = ", ".join(f"{side} {value:.4g} {goal.figures_unit}".rstrip() for side, value in goal.figures.items())
        refused = f", {goal.refused_count} refused" if goal.refused_count else ""
        notes = "; ".join(filter(None, (figures, goal.note)))
        table.add_row(goal.name, asked, f"{goal.value:.2f}{unit}{refused}", spread, goal.state, notes)
    return table


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(_SECTIONS), help=f"some of {','.join(_SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help=f"of every comparison ({_FULL[0]}, quick {_QUICK[0]})")
    parser.add_argument("--calls", type=int, help=f"in a round ({_FULL[1]}, quick {_QUICK[1]})")
    parser.add_argument("--runs", type=int, default=1, help="whole runs, each with servers of its own (1)")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    if unknown := set(only) - set(_SECTIONS):
        parser.error(f"--only names {', '.join(sorted(unknown))}: sections are {', '.join(_SECTIONS)}")
    if "processor" in only:
        # Better now than after minutes of measuring.
        ghz.program()
    rounds, calls = _QUICK if arguments.quick else _FULL
    rounds, calls = arguments.rounds or rounds, arguments.calls or calls
    about = {"machine": machine(), "rounds": rounds, "calls": calls, "runs": arguments.runs}
    with Progress(disable=not sys.stderr.isatty(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=None)
        run = Run(rounds, calls, lambda what: progress.update(bar, description=what))
        goals = measure(only, run, arguments.runs)
    Console(width=200).print(_table(goals))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        result = {**about, "goals": [written(goal) for goal in goals]}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
