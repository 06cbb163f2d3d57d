"""What the demo shows: a bar per example, the tasks of one execution as a tree, throughput; and the summary."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol, Self

from google.protobuf.json_format import ParseDict
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2
from fastrunner.base.clock import wall_ms
from fastrunner.cli.tree import ExecutionTree

TREE_LINES_MAX = 15


class ShownExample(Protocol):
    """What the view needs of an example."""

    @property
    def name(self) -> str:
        """Its name."""


class ShownRun(Protocol):
    """What the view needs of an execution."""

    @property
    def example(self) -> ShownExample:
        """What it executes."""

    @property
    def status(self) -> str:
        """As its last event says."""

    @property
    def ended(self) -> bool:
        """Whether its terminal event has arrived."""

    @property
    def right(self) -> bool:
        """Whether it ended as expected."""


class DemoView:
    """The demo's display; plain lines when not live or when the output is no terminal."""

    def __init__(self, live: bool) -> None:
        self.console = Console()
        self._live = Live(console=self.console, refresh_per_second=8, transient=True) if live else None
        self._tree = ExecutionTree()
        self._watched = ""

    def __enter__(self) -> Self:
        if self._live is not None and self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line above the display."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, event: dict[str, Any]) -> None:
        """An event has arrived; the view watches one execution at a time, the next when that has ended."""
        execution_id = event["workflow_execution_id"]
        if not self._watched and event["sequence_number"] == 1:
            self._watched, self._tree = execution_id, ExecutionTree()
        if execution_id == self._watched:
            self._tree.take(ParseDict(event, messages_pb2.WorkflowProgressEvent()))
            if self._tree.ended:
                self._watched = ""

    def refresh(self, runs: Iterable[ShownRun], events: int, elapsed_s: float) -> None:
        """Shows the state of everything."""
        if self._live is not None:
            self._live.update(Group(self._bars(runs), self._panel(), self._rate(events, elapsed_s)))

    def _bars(self, runs: Iterable[ShownRun]) -> Table:
        totals: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        states: dict[str, Counter[str]] = {}
        for run in runs:
            name = run.example.name
            totals[name] += 1
            ended[name] += run.ended
            states.setdefault(name, Counter())[run.status] += 1
        table = Table.grid(padding=(0, 1))
        for name, total in totals.items():
            others = ", ".join(f"{count} {status}" for status, count in sorted(states[name].items()))
            table.add_row(
                name, ProgressBar(total, ended[name], width=32), f"{ended[name]:>3}/{total}", Text(others, style="dim")
            )
        return table

    def _panel(self) -> Panel:
        tree = self._tree.shown(wall_ms(), TREE_LINES_MAX)
        return Panel(tree, title="one execution", title_align="left", height=TREE_LINES_MAX + 2)

    def _rate(self, events: int, elapsed_s: float) -> Text:
        return Text(f"{events} callbacks, {events / max(elapsed_s, 0.001):,.0f} per second", style="dim")

    def summary(self, runs: Iterable[ShownRun], events: int, elapsed_s: float, killed_pid: int) -> None:
        """The end of it all."""
        if self._live is not None:
            self._live.stop()
        runs = list(runs)
        table = Table(title="every execution", title_justify="left", box=None, header_style="bold")
        for column in ("example", "executions", "as expected", "ended"):
            table.add_column(column, justify="left" if column in ("example", "ended") else "right")
        for name in dict.fromkeys(run.example.name for run in runs):
            mine = [run for run in runs if run.example.name == name]
            right = sum(run.right for run in mine)
            ends = ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in mine).items())
            table.add_row(name, str(len(mine)), Text(str(right), style="green" if right == len(mine) else "red"), ends)
        self.console.print(table)
        self.console.print(
            f"{len(runs)} executions, {events} callbacks in {elapsed_s:.1f} s "
            f"({len(runs) / max(elapsed_s, 0.001):,.1f} executions/s, waits and retries included); "
            f"worker process {killed_pid} was killed half-way",
            highlight=False,
        )
