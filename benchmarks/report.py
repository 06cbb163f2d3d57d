"""Support: docs/performance.md and its plots, made from what `benchmarks.goals` and `benchmarks.curves` measured.

    python -m benchmarks.report --results benchmarks/results

Needs the `bench` dependency group (matplotlib). Nothing in the page names a host or a folder of the machine. What
stands in the page after the line of `MARK` is written by hand and kept.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "fastrunner"

from matplotlib import pyplot  # noqa: E402 - the backend comes first

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
MARK = "<!-- written by hand from here on -->"

_METHOD = """\
## How it is measured

- `make bench` measures everything and writes this page from `benchmarks/results/*.json`, which hold every round.
- **Ratios in one run.** Both sides of a comparison are up at the same time on the same cores and are loaded in turns,
  round by round; a ratio is the median of its rounds, so what disturbs the machine disturbs both.
- **The opponent** is an empty unary method: on `grpc.aio` with uvloop, and on this runner's own transport, as processes
  that share a port, as many as the runner has workers.
- **The client** is one process that writes HTTP/2 frames made beforehand (`benchmarks/h2.py`). With more cores than
  workers it has cores of its own; else it shares them, alike for both sides.
- **Closed loads** (so many calls in flight) give rates. **Open loads** (seeded random arrivals) give latencies, each
  counted from when the call was due, so that a slow answer delays no later call.
- **Durable** means durable: full fsync, real SQLite files on the disk. For accept, batches and the durable workflows at
  150/s, everything accepted must have been counted as finished by the runner, and for whole by the receiver; scaling,
  latency at half of saturation and the plots do not count them.
- A comparison begins after a warm-up of a tenth to a half of a round's calls, which is not counted.
"""


def _goals(goals: list[dict[str, Any]]) -> str:
    lines = ["## Goals", "", "| what | goal | measured | |", "|---|---|---|---|"]
    for goal in goals:
        name = goal["name"].replace("|", "\\|")
        lines.append(f"| {name} | {goal['goal']} | {goal['measured']} | {'met' if goal['met'] else '**missed**'} |")
    return "\n".join(lines)


def _medians(goals: list[dict[str, Any]]) -> str:
    """The rates that the ratios were made of."""
    lines = ["## Rates behind the ratios", "", "| what | medians |", "|---|---|"]
    for goal in goals:
        if "ratios" in goal:
            sides = ", ".join(f"{side} {value:,.0f} {goal['unit']}" for side, value in goal["figures"].items())
            lines.append(f"| {goal['name']} | {sides} |")
    return "\n".join(lines)


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"Measured {machine['when'][:10]} at commit {machine['commit']} on {machine['cpu']}, "
        f"{machine['memory_gib']} GiB, Python {machine['python']}, {versions}. An fsync of this disk takes "
        f"{machine['fsync_ms']['p50']} ms (p50), {machine['fsync_ms']['p99']} ms (p99). "
        f"The load average before was {machine['load_before']}: much above 0, others used the machine as well."
    )


def _plot(name: str, title: str, x: str, y: str, lines: dict[str, tuple[list[float], list[float]]], log: bool) -> str:
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for label, (xs, ys) in lines.items():
        axes.plot(xs, ys, marker="o", label=label)
    axes.set(title=title, xlabel=x, ylabel=y)
    if log:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
    return f"![{title}](performance/{name}.svg)"


def _column(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def _plots(curves: dict[str, Any]) -> list[str]:
    """Draws the four plots; their places in the page."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    rows = curves["throughput"]
    sides = [name for name in rows[0] if name != "workers"]
    workers = {side: (_column(rows, "workers"), _column(rows, side)) for side in sides}
    rows = curves["latency"]
    shares = ("p50", "p95", "p99", "p99.9")
    latencies = {name: (_column(rows, "rate_per_s"), _column(rows, name)) for name in shares}
    costs = {"one set task": (_column(curves["cost"], "tasks"), _column(curves["cost"], "us_per_task"))}
    rows = curves["parked"]
    memory = {name.upper(): (_column(rows, "executions"), _column(rows, name)) for name in ("Rss", "Pss")}
    return [
        _plot("workers", "Throughput against workers", "workers", "calls/s", workers, False),
        _plot("latency", "ExecuteAsync: latency against load, 1 worker", "calls/s", "ms", latencies, False),
        _plot("tasks", "Cost against number of tasks", "tasks in the document", "µs per task", costs, True),
        _plot("parked", "Memory against parked executions", "executions that wait", "MiB, one worker", memory, False),
    ]


def write(results: Path) -> None:
    """Makes the page from goals.json and curves.json."""
    goals = json.loads((results / "goals.json").read_text())
    curves = json.loads((results / "curves.json").read_text())
    kept = PAGE.read_text().partition(MARK)[2].strip() if PAGE.exists() else ""
    parts = [
        "# Performance",
        "Made by `make bench`; the rest of this page follows the machine it was made on. Run it on yours.",
        _machine(goals["machine"]),
        _goals(goals["goals"]),
        _medians(goals["goals"]),
        "## Plots",
        *_plots(curves),
        _METHOD.strip(),
        MARK,
        *([kept] if kept else []),
    ]
    PAGE.write_text("\n\n".join(parts) + "\n")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON")
    write(parser.parse_args().results)


if __name__ == "__main__":
    _main()
