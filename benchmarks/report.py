"""Support: docs/performance.md and its plots, made from what was measured.

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

from benchmarks.published import PUBLISHED  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
MARK = "<!-- written by hand from here on -->"

_METHOD = """\
## How it is measured

- `make bench` measures everything and writes this page from `benchmarks/results/*.json`, which hold every round. One
  part: `python -m benchmarks.goals --only processor` (or `accept`, `scaling`, `placing`, `whole`, `latency`, `core`,
  `memory`, `shapes`); `--quick` for a first look, `--runs 3` for three whole runs.
- **Ratios in one run.** Both sides of a comparison are up at the same time on the same cores and are loaded in turns,
  round by round, the order reversed every second time; a figure is the median of its rounds, so what disturbs the
  machine disturbs both.
- **Processor time of a call** is what all processes of the server took, user and system, over the calls that were
  answered: the kernel's accounts (`/proc/PID/stat`) before and after a round, of the processes that live and of those
  that have ended. It is no property of the client's, so it comes first. The runner's counts until everything that it
  accepted has been executed and nothing is unfinished. Not in it: what retention deletes days later.
- **The opponent** is an empty unary method: on `grpc.aio` with uvloop, bytes in and bytes out, and on this runner's
  own transport, as processes that share a port, as many as the runner has workers.
- **Two clients.** `ghz` is a stock gRPC client in Go that makes, encodes and decodes every message; it shares the
  cores with the server, 64 calls in flight on 16 connections. Our own is one process that writes HTTP/2 frames made
  beforehand (`benchmarks/h2.py`). For `accept`, `whole` and `latency` servers have the first cores, one for each
  worker, and our client the others, if there are others; elsewhere everybody may use all cores.
  `ghz --insecure --protoset service.protoset --call
  ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController/ExecuteAsync -n 8000 -c 64 --connections 16
  -D data.json HOST:PORT`, with `"workflow_execution_id": "run1-{{.RequestNumber}}"` in `data.json`; see
  `benchmarks/ghz.py`.
- Both send the same document, and every execution has an id of its own. A call that is refused is a failure: a goal
  with refusals is missed, and says how many.
- **Closed loads** (so many calls in flight) give rates. **Open loads** (seeded random arrivals) give latencies, each
  counted from when the call was due, so that a slow answer delays no later call.
- **Durable** means durable: full fsync, real SQLite files on the disk. Everything accepted in a round must have been
  counted as completed by the runner before the next one, and for `whole` by the receiver.
- A comparison begins after a warm-up of a fifth of a round's calls, which is not counted.
- **Events, effects and followers** are cases of pytest-benchmark, each on a runner of its file; setting up (executions
  that begin to wait, connections) is not counted.
- **Memory of an execution in flight**: how much more the worker has written to for itself (`Private_Dirty`) after
  5,000 more executions that wait, divided by their number; pages of the file that SQLite keeps are in it.
"""


def _number(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{f' {unit}' if unit else ''}"


def _asked(goal: dict[str, Any]) -> str:
    bound, unit = goal["bound"], f" {goal['unit']}" if goal["unit"] else ""
    if bound["floor"] is None:
        return ""
    floor = f"{'<=' if bound['at_most'] else '>='} {bound['floor']:g}{unit}"
    return floor if bound["stretch"] is None else f"{floor}; {bound['stretch']:g}"


def _spread(goal: dict[str, Any]) -> str:
    runs, rounds = goal["runs"], goal["rounds"]
    if len(runs) > 1:
        return "runs: " + ", ".join(_number(value, "") for value in runs)
    return f"{_number(min(rounds), '')} to {_number(max(rounds), '')}" if rounds else ""


def _of(goals: list[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    return [goal for goal in goals if goal["group"] == group]


def _goals(goals: list[dict[str, Any]]) -> str:
    lines = [
        "## Goals",
        "",
        "Floor, and what was hoped for beyond it. Without a goal: figures that explain the others.",
        "",
        "| what | goal | measured | rounds | |",
        "|---|---|---|---|---|",
    ]
    for goal in _of(goals, "goals"):
        name = goal["name"].replace("|", "\\|")
        measured = _number(goal["value"], goal["unit"])
        measured += f", **{goal['refused_count']} refused**" if goal["refused_count"] else ""
        measured += f" ({goal['note']})" if goal["note"] else ""
        state = {"missed": "**missed**", "stretch": "met, and beyond"}.get(goal["state"], goal["state"])
        lines.append(f"| {name} | {_asked(goal)} | {measured} | {_spread(goal)} | {state} |")
    return "\n".join(lines)


def _medians(goals: list[dict[str, Any]]) -> str:
    """What the ratios were made of."""
    lines = ["## Behind the ratios", "", "| what | medians |", "|---|---|"]
    for goal in _of(goals, "goals"):
        if not goal["unit"]:
            sides = (f"{side} {_number(value, goal['figures_unit'])}" for side, value in goal["figures"].items())
            lines.append(f"| {goal['name']} | {', '.join(sides)} |")
    return "\n".join(lines)


def _shapes(goals: list[dict[str, Any]]) -> str:
    """Whole workflows, and what others say of theirs."""
    shapes = _of(goals, "shapes")
    if not shapes:
        return ""
    columns = list(shapes[0]["figures"])
    lines = [
        "## Whole workflows",
        "",
        "From the call of `Execute` to its stream's end, which is durable by then: steps in a row or side by side, "
        "as `set` tasks or as HTTP calls of a local server that answers at once. One worker; client, server and "
        "runner share the cores.",
        "",
        f"| what | workflows/s | {' | '.join(columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for goal in shapes:
        figures = " | ".join(_number(goal["figures"][column], "") for column in columns)
        lines.append(f"| {goal['name']} | {_number(goal['value'], '')} | {figures} |")
    lines += [
        "",
        "What others publish of theirs, with their workloads on their machines. No comparison: steps there run in "
        "workers, databases are elsewhere, and what is durable when differs.",
        "",
        "| what | their workload and machine | their figures | source |",
        "|---|---|---|---|",
        *(f"| {each.engine} | {each.workload} | {each.figures} | {each.source} |" for each in PUBLISHED),
    ]
    return "\n".join(lines)


def _cases(results: dict[str, Any]) -> str:
    """Events, effects and followers, as pytest-benchmark has measured them."""
    lines = [
        "## Events, effects and followers",
        "",
        "One worker, real sockets, a real disk; client, server and runner share the cores. Times are of the whole: all "
        "calls made, all executions ended and durable, all followers with the last event. `make bench` measures "
        "them with pytest-benchmark "
        "(`benchmarks/test_events.py`, `test_effects.py`, `test_followers.py`).",
        "",
        "| what | median ms | best ms | of it each, at the median | rounds |",
        "|---|---|---|---|---|",
    ]
    for case in results["benchmarks"]:
        stats, name = case["stats"], case["name"].removeprefix("test_").replace("_", " ")
        each = ", ".join(
            f"{1e6 * stats['median'] / count:,.0f} us ({count} {what})" for what, count in case["extra_info"].items()
        )
        median, best = (_number(1e3 * stats[which], "") for which in ("median", "min"))
        lines.append(f"| {name} | {median} | {best} | {each} | {stats['rounds']} |")
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
    """Makes the page from goals.json, curves.json and cases.json."""
    goals = json.loads((results / "goals.json").read_text())
    curves = json.loads((results / "curves.json").read_text())
    cases = json.loads((results / "cases.json").read_text())
    kept = PAGE.read_text().partition(MARK)[2].strip() if PAGE.exists() else ""
    parts = [
        "# Performance",
        "Made by `make bench`; the rest of this page follows the machine it was made on. Run it on yours.",
        _machine(goals["machine"]),
        _goals(goals["goals"]),
        _medians(goals["goals"]),
        _shapes(goals["goals"]),
        _cases(cases),
        "## Plots",
        *_plots(curves),
        _METHOD.strip(),
        MARK,
        *([kept] if kept else []),
    ]
    PAGE.write_text("\n\n".join(filter(None, parts)) + "\n")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON")
    write(parser.parse_args().results)


if __name__ == "__main__":
    _main()
