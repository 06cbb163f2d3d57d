"""Support: how commands show the progress of one execution: a live tree on a terminal, else a plain line per step.

Rules: a step is told once. A task's start is told on its own only when nothing has come of it for half a second, and
once however often it runs; what came of it is one line, with how long it took. What is no terminal gets no colours, and
ids and texts whole.
"""

import sys
import threading
from collections.abc import Mapping
from typing import Any, Protocol, Self

import click
import orjson
from rich.console import Console
from rich.live import Live

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2
from fastrunner.base.clock import wall_ms
from fastrunner.base.printable import escaped_json, printable
from fastrunner.cli.present import error_line, json_line, span
from fastrunner.cli.tree import Event, ExecutionTree

__all__ = ["Display", "display", "error_fields", "print_end"]

_QUIET_S = 0.5
"""After so long without an outcome, a task's start is worth a line."""
_REFRESHES_PER_S = 8
_TREE_LINES_MAX = 1000
"""Of a tree that stays on the screen; `--json` has everything."""
_OUTPUT_CHARS_MAX = 200
"""Of an output beside its task in a line."""
_ERROR_FIELDS = ("type", "status", "title", "detail", "instance")
_WORDS = {
    "workflow_started": "started",
    "workflow_paused": "paused",
    "workflow_resumed": "resumed",
    "workflow_completed": "completed",
    "workflow_failed": "failed",
    "workflow_cancelled": "cancelled",
    "task_retry": "retrying",
    "task_completed": "completed",
    "task_failed": "failed",
    "event_damaged": "damaged",
}


class Display(Protocol):
    """Shows events, one after the other."""

    def __enter__(self) -> Self:
        """Begins."""

    def __exit__(self, *_: object) -> None:
        """Shows what is left, and leaves the screen as a line of text would."""

    def show(self, event: Event) -> None:
        """Takes an event."""


def display(
    *,
    err: bool,
    as_json: bool = False,
    outputs: bool = False,
    live: bool = True,
    quiet: bool = False,
    begun_ms: int = 0,
) -> Display:
    """What suits the stream (stderr with `err`); not `live`: all events are there already.

    `begun_ms`: when the execution's first event happened, if that is not among those to come.
    """
    if quiet or as_json:
        return _Messages(err, quiet)
    if (sys.stderr if err else sys.stdout).isatty():
        return _Live(ExecutionTree(begun_ms), err, outputs, live)
    return _Lines(ExecutionTree(begun_ms), err, outputs, live)


class _Messages:
    """JSON lines, or nothing."""

    def __init__(self, err: bool, quiet: bool) -> None:
        self._print = error_line if err else json_line
        self._quiet = quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        if not self._quiet:
            self._print(event)


class _Live:
    """The tree, redrawn while it grows; whole at the end."""

    def __init__(self, tree: ExecutionTree, err: bool, outputs: bool, live: bool) -> None:
        self._tree = tree
        self._outputs = outputs
        self._console = Console(stderr=err, highlight=False)
        self._lock = threading.Lock()
        self._live = (
            Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=_REFRESHES_PER_S,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            if live
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._tree.workflow:
            self._console.print(self._tree.shown(wall_ms(), _TREE_LINES_MAX, self._outputs))

    def show(self, event: Event) -> None:
        with self._lock:
            self._tree.take(event)

    def _render(self) -> Any:
        with self._lock:
            return self._tree.shown(wall_ms(), max(self._console.height - 2, 3), self._outputs)


class _Lines:
    """Sequence number, seconds since the first event, what happened, where, how long it took, and why."""

    def __init__(self, tree: ExecutionTree, err: bool, outputs: bool, live: bool) -> None:
        self._tree = tree
        self._err = err
        self._outputs = outputs
        self._live = live
        self._lock = threading.Lock()
        self._started: dict[str, tuple[int, int]] = {}
        """Number and time of starts that nothing has come of yet, by reference."""
        self._told_running: set[str] = set()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tell_started()

    def show(self, event: Event) -> None:
        with self._lock:
            interrupted = self._tree.take(event)
            for node in interrupted:
                number, _ = self._started.pop(node.reference, (0, 0))
                self._line(number, event.timestamp_ms, "interrupted", node.reference, self._details(node.reference))
            if event.event_type == "task_started":
                self._started[event.task_reference] = event.sequence_number, event.timestamp_ms
                self._tell_later()
                return
            self._started.pop(event.task_reference, None)
            word = _WORDS.get(event.event_type)
            if word is None:
                return
            where = event.task_reference or event.workflow_name
            self._line(event.sequence_number, event.timestamp_ms, word, where, self._told(event))

    def _tell_later(self) -> None:
        if self._live and (self._timer is None or not self._timer.is_alive()):
            self._timer = threading.Timer(_QUIET_S, self._tell_started)
            self._timer.daemon = True
            self._timer.start()

    def _tell_started(self) -> None:
        with self._lock:
            started, self._started = self._started, {}
            for reference, (number, at_ms) in started.items():
                if reference in self._told_running:
                    continue
                self._told_running.add(reference)
                self._line(number, at_ms, "running", reference, self._details(reference, running=True))

    def _told(self, event: Event) -> list[str]:
        if event.task_reference:
            return self._details(event.task_reference)
        reason = event.error.message or (event.message if event.status in ("paused", "cancelled") else "")
        took = span(event.timestamp_ms - self._tree.begun_ms) if self._tree.ended else ""
        return [took, reason]

    def _details(self, reference: str, running: bool = False) -> list[str]:
        node = self._tree.nodes.get(reference)
        if node is None:
            return []
        output = node.output_json if self._outputs else ""
        if len(output) > _OUTPUT_CHARS_MAX:
            output = output[: _OUTPUT_CHARS_MAX - 1] + "…"
        return [
            span(node.at_ms - node.begun_ms) if node.begun_ms and node.state in ("completed", "failed") else "",
            f"attempt {node.attempt}" if node.attempt > 1 else "",
            node.indices,
            f"run {node.run}" if node.run > 1 else "",
            node.error if node.state != "completed" and not running else "",
            output,
        ]

    def _line(self, number: int, at_ms: int, word: str, where: str, details: list[str]) -> None:
        passed_s = max(at_ms - self._tree.begun_ms, 0) / 1000
        parts = [f"{number or '-':>5} {passed_s:>9.3f}s  {word:<11}  {where}", *filter(None, details)]
        click.echo(printable("  ".join(parts)), err=self._err)


def error_fields(error: messages_pb2.ErrorDetails) -> dict[str, Any]:
    """The DSL's error, as a workflow sees it."""
    return {name: getattr(error, name) for name in _ERROR_FIELDS if getattr(error, name)}


def print_end(output_json: str, error: Mapping[str, Any] | None) -> None:
    """What an execution came to, as JSON on stdout: its output, or its error; nothing if it has neither."""
    if error:
        click.echo(escaped_json(orjson.dumps(error).decode()))
    elif output_json:
        click.echo(escaped_json(output_json))
