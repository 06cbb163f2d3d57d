"""Support: a flame graph of one worker under load: where the time of an accepted and executed workflow goes.

    python -m benchmarks.flame --out flame.svg [--seconds 8]
    python -m benchmarks.flame --out flame.svg --target 127.0.0.1:9090 --pid 4711    a worker that is up already

Needs the `bench` dependency group (py-spy, matplotlib). The width of a box is the share of samples in which its
function was on the stack, of the thread that runs the worker's loop and of those that commit; what gRPC's and SQLite's
own code takes is in the box of the function that called it. Threads of gRPC's library are not in it. Being sampled
takes time, so the rate in the title is from before.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "fastrunner"

from matplotlib import pyplot  # noqa: E402 - the backend comes first

from benchmarks import loads  # noqa: E402
from benchmarks.servers import runner  # noqa: E402

_TASKS = 10
_IN_FLIGHT = 64
_CALLS = 5_000
_SAMPLES_PER_S = 500
_SHARE_MIN = 0.004
"""Boxes that are narrower are not drawn."""
_LABEL_CHARS = 230
"""So many characters fit the whole width."""
_FRAME = re.compile(r"^(.*) \((?:.*/)?([^/:()]+)(?::\d+)?\)$")
_LOOP_ROOTS = ("Runner.run (runners.py)", "run (__init__.py)")
_COLOURS = {"service": "#e8a33d", "engine": "#d9603b", "wait": "#c9c9c9", "other": "#e9d06c"}
_SERVICE = (
    "connection.py",
    "_http2",
    "transport.py",
    "handlers.py",
    "decode.py",
    "overload.py",
    "routing.py",
    "server.py",
)
_ENGINE = (
    "embedded.py", "shard.py", "store.py", "execution.py", "scheduler.py", "admission.py", "batch.py", "counting.py",
    "reader.py", "records.py", "plans.py", "writer.py",
)  # fmt: skip


class Box:
    """A function on one kind of stack."""

    def __init__(self) -> None:
        self.count = 0
        """Samples."""
        self.callees: dict[str, Box] = {}
        """By name, in the order in which they were seen."""

    def add(self, frames: list[str], count: int) -> None:
        """Counts samples of a stack, outermost function first."""
        self.count += count
        if frames:
            self.callees.setdefault(frames[0], Box()).add(frames[1:], count)

    @property
    def depth(self) -> int:
        """How many boxes lie on one another."""
        return 1 + max((callee.depth for callee in self.callees.values()), default=0)


@contextmanager
def _worker(target: str, pid: int) -> Iterator[tuple[str, int]]:
    if target:
        yield target, pid
        return
    with runner(1, 0) as tree:
        yield tree.target, next(each["pid"] for each in tree.workers())


def sample(target: str, pid: int, seconds: int) -> tuple[Box, float]:
    """Stacks of a worker under a closed load, and the executions it took per second before it was sampled."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as stacks:
        spy = ["py-spy", "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(_SAMPLES_PER_S)]
        command = [str(Path(sys.executable).with_name(spy[0])), *spy[1:], "--format", "raw", "--output", stacks.name]
        numbers = itertools.count()
        _load(target, next(numbers))
        rate_per_s = _load(target, next(numbers))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spying:
            while spying.poll() is None:
                _load(target, next(numbers))
        if spying.returncode:
            raise RuntimeError(f"py-spy failed: may this user trace process {pid}?")
        return _stacks(Path(stacks.name).read_text()), rate_per_s


def _load(target: str, number: int) -> float:
    message = loads.body(f"fl{number}", _TASKS)
    figures = loads.closed(target, loads.CALL, message, count=_CALLS, in_flight=_IN_FLIGHT, cores=(1,))
    if figures.errors_count:
        raise RuntimeError(f"{figures.errors_count} calls failed")
    return figures.rate_per_s


def _stacks(collapsed: str) -> Box:
    root = Box()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_FRAME.sub(r"\1 (\2)", frame) for frame in stack.split(";")]
        shown = _of_loop(frames) or _of_commit(frames)
        if shown:
            root.add(shown, int(count))
    return root


def _of_loop(frames: list[str]) -> list[str]:
    for root in _LOOP_ROOTS:
        if root in frames:
            return ["loop", *frames[frames.index(root) + 1 :]] if frames[-1] != root else ["loop"]
    return []


def _of_commit(frames: list[str]) -> list[str]:
    """Of a writer thread, without its waiting for the next commit."""
    for at, frame in enumerate(frames):
        if frame == "Store.commit (store.py)":
            return ["writer thread", *frames[at:]]
    return []


def draw(root: Box, title: str, out: Path) -> None:
    """Writes the graph as SVG, the outermost function at the top."""
    figure, axes = pyplot.subplots(figsize=(12, 0.26 * root.depth + 0.7))
    total = root.count

    def box(name: str, node: Box, left: float, level: int) -> None:
        width = node.count / total
        if width < _SHARE_MIN:
            return
        axes.barh(-level, width, left=left, height=1, align="edge", color=_colour(name), edgecolor="white", lw=0.4)
        label = _label(name, width)
        axes.text(left + width / 2, -level + 0.5, label, ha="center", va="center", fontsize=6, clip_on=True)
        for callee, child in sorted(node.callees.items(), key=lambda item: -item[1].count):
            box(callee, child, left, level + 1)
            left += child.count / total

    left = 0.0
    for name, node in sorted(root.callees.items(), key=lambda item: -item[1].count):
        box(name, node, left, 0)
        left += node.count / total
    axes.set(title=title, xlim=(0, 1))
    axes.axis("off")
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)


def _label(name: str, width: float) -> str:
    """As much of a name as a box has room for."""
    room = int(_LABEL_CHARS * width)
    share = f"{100 * width:.0f} %"
    function = name.partition(" (")[0]
    for label in (f"{name} {share}", f"{function} {share}", function, function.rpartition(".")[2]):
        if len(label) <= room:
            return label
    return function.rpartition(".")[2][:room] if room > 2 else ""


def _colour(name: str) -> str:
    file = name.rpartition("(")[2].rstrip(")")
    if file in _SERVICE:
        return _COLOURS["service"]
    if file in _ENGINE:
        return _COLOURS["engine"]
    return _COLOURS["wait" if name in ("loop", "writer thread") else "other"]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the SVG")
    parser.add_argument("--seconds", type=int, default=8, help="for how long to sample (8)")
    parser.add_argument("--target", default="", help="host:port of a runner with one worker; default: a temporary one")
    parser.add_argument("--pid", type=int, default=0, help="its worker's process")
    arguments = parser.parse_args()
    if bool(arguments.target) != bool(arguments.pid):
        parser.error("--target and --pid go together")
    with _worker(arguments.target, arguments.pid) as (target, pid):
        root, rate_per_s = sample(target, pid, arguments.seconds)
    title = f"One worker on one core while it takes {rate_per_s:,.0f} executions/s of {_TASKS} `set` tasks"
    draw(root, title, arguments.out)


if __name__ == "__main__":
    _main()
