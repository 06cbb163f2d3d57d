"""Support: what came of a torture, and its command: a bar while it lasts, a summary, an exit code."""

import asyncio
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Report", "Torment", "shown"]


@dataclass
class Report:
    """What came of it."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    duration_s: float = 0.0
    executions: int = 0
    by_end: Counter[str] = field(default_factory=Counter)
    children_by_end: Counter[str] = field(default_factory=Counter)
    events: int = 0
    resent: int = 0
    cloud_events: int = 0
    heard: int = 0
    """Of these, once for each execution."""
    performed: Counter[str] = field(default_factory=Counter)
    """Effects by kind."""
    performed_again: Counter[str] = field(default_factory=Counter)
    """How often, before their commit."""
    notes: list[str] = field(default_factory=list)
    """What else is worth knowing."""
    violations: list[str] = field(default_factory=list)

    def count_effects(self, performed: dict[str, dict[str, list[float]]]) -> None:
        """`performed`: when, by kind and idempotency key."""
        for kind, times in performed.items():
            self.performed[kind] = len(times)
            self.performed_again[kind] = sum(len(each) - 1 for each in times.values())

    def lines(self) -> list[str]:
        """The summary, for people."""
        return [
            f"seed {self.seed}, {self.duration_s / 60:.1f} minutes",
            f"faults: {_listed(self.faults)}",
            f"executions: {self.executions} ({_listed(self.by_end)})",
            f"children of theirs: {self.children_by_end.total()} ({_listed(self.children_by_end)})",
            f"events: {self.events}, received again since the receiver's last start {self.resent}",
            f"CloudEvents: {self.cloud_events}, heard by executions {self.heard}",
            f"effects: {_listed(self.performed)}; performed again before their commit: {_listed(self.performed_again)}",
            *self.notes,
            f"violations: {len(self.violations)}",
            *self.violations[:50],
        ]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))


class Torment(Protocol):
    """Something that tortures."""

    stopping: asyncio.Event
    """Ends it early."""

    @property
    def done_ratio(self) -> float:
        """How much of it is over, from 0 to 1."""

    def state(self) -> str:
        """One line on what has happened so far."""

    async def run(self) -> Report:
        """Tortures, lets everything come to rest, and compares."""


async def shown(torture: Torment, seed: int, path: Path) -> int:
    """Runs it before people's eyes; the exit code."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, torture.stopping.set)
    console = Console()
    console.print(f"seed {seed}, files in {path}; Ctrl-C stops the torture and compares")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("torturing", total=1.0, state="starting")
        running = asyncio.create_task(torture.run())
        while not running.done():
            await asyncio.wait([running], timeout=0.5)
            resting = torture.stopping.is_set()
            progress.update(
                bar, completed=torture.done_ratio, state=torture.state(),
                description="coming to rest" if resting else "torturing",
            )  # fmt: skip
    report = running.result()
    for line in report.lines():
        console.print(line, soft_wrap=True, highlight=False)
    return 1 if report.violations else 0
