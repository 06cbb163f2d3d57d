"""Support: how the command shows executions and events, to people (lines of text) and to scripts (JSON lines).

Rules: ids, names, outputs and error texts are other people's words: they are never read as markup, never begin a line,
and reach no terminal as commands (`base/printable.py`). An id is never cut nor folded; only the last column of a list
is cut, at the edge of a terminal. What is not a terminal gets the same lines, whole and without colours.
"""

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import click
import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.cells import cell_len, set_cell_size

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2, query_pb2
from fastrunner.base.printable import escaped_json, printable

__all__ = [
    "COLUMNS_DEFAULT",
    "Note",
    "error_line",
    "event_note",
    "json_line",
    "say",
    "show_change",
    "show_execution",
    "show_executions",
    "span",
]

COLUMNS_DEFAULT = ("id", "workflow", "status", "age", "took", "events", "what")
Note = Callable[[query_pb2.Execution], str]
"""Says what an unfinished execution is at; empty if that is not known."""

_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "paused": "cyan", "running": "blue"}
_GAP = "  "
_WHAT_CELLS_MIN = 20
_MS_OF = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))


def json_line(message: Message) -> None:
    """One message as one line of JSON on stdout."""
    click.echo(_json(message))


def error_line(message: Message) -> None:
    """One message as one line of JSON on stderr."""
    click.echo(_json(message), err=True)


def say(text: str) -> None:
    """A sentence on stderr, so that stdout holds results only."""
    click.echo(printable(text), err=True)


def _json(message: Message) -> str:
    return escaped_json(orjson.dumps(MessageToDict(message)).decode())


def show_execution(execution: query_pb2.Execution, now_ms: int, note: Note) -> None:
    """One execution, field by field."""
    rows = [
        ("id", printable(execution.execution_id)),
        ("workflow", _workflow(execution)),
        ("status", _status(execution.status, execution.status)),
        ("accepted", f"{_time(execution.accepted_ms)} ({_age(execution, now_ms)})"),
        ("finished", _time(execution.finished_ms)),
        ("took", _took(execution, now_ms)),
        ("events", f"{execution.last_sequence_number} ({_delivery(execution)})"),
    ]
    if not execution.finished_ms and (at := note(execution)):
        rows.append(("at", at))
    if execution.waiting:
        rows.append(("waiting", printable(execution.waiting)))
    if execution.parent_execution_id:
        rows.append(("parent", printable(execution.parent_execution_id)))
    if execution.labels:
        rows.append(("labels", _labels(execution)))
    if execution.document_metadata_json:
        rows.append(("metadata", printable(execution.document_metadata_json)))
    if execution.output_json:
        rows.append(("output", printable(execution.output_json)))
    if execution.HasField("error"):
        error = execution.error
        parts = (f"{error.status} {error.type}", *error.message.split("\n"), error.instance and f"at {error.instance}")
        rows += [("error" if not index else "", click.style(printable(part), fg="red"))
                 for index, part in enumerate(filter(None, parts))]  # fmt: skip
    for name, value in rows:
        click.echo(f"{name:<9} {value}")


def show_change(change: query_pb2.StateChange) -> None:
    """A change of an execution's state as a line."""
    workflow = f"{change.workflow_namespace}/{change.workflow_name}:{change.workflow_version}"
    status = _status(f"{change.status:<9}", change.status)
    click.echo(f"{_time(change.timestamp_ms)}  {status}  {printable(change.execution_id)}  {printable(workflow)}")


def event_note(event: messages_pb2.WorkflowProgressEvent, now_ms: int) -> str:
    """An event in a few words: what happened, where, how long ago."""
    where = f" {event.task_reference}" if event.task_reference else ""
    return printable(f"{event.event_type}{where} {span(now_ms - event.timestamp_ms, parts=1)} ago")


def show_executions(executions: Iterable[query_pb2.Execution], columns: Sequence[str], now_ms: int, note: Note) -> None:
    """Executions as lines under a header, one each."""
    rows = [[_CELLS[column](execution, now_ms, note) for column in columns] for execution in executions]
    statuses = [execution.status for execution in executions]
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    last_cells_max = _room(sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)) if columns[-1] == "what" else None
    for index, row in enumerate([list(columns), *rows]):
        cells = [set_cell_size(cell, width) for cell, width in zip(row[:-1], widths, strict=False)]
        cells.append(_cut(row[-1], last_cells_max))
        if not index:
            cells = [click.style(cell, bold=True) for cell in cells]
        elif "status" in columns:
            place = columns.index("status")
            cells[place] = _status(cells[place], statuses[index - 1])
        click.echo(_GAP.join(cells).rstrip())


def _room(used_cells: int) -> int | None:
    """How much of a terminal's line is left; None where there is no edge."""
    return max(shutil.get_terminal_size().columns - used_cells, _WHAT_CELLS_MIN) if sys.stdout.isatty() else None


def _cut(text: str, cells_max: int | None) -> str:
    if cells_max is None or cell_len(text) <= cells_max:
        return text
    return set_cell_size(text, cells_max - 1) + "…"


def _what(execution: query_pb2.Execution, note: Note) -> str:
    if execution.HasField("error"):
        return printable(execution.error.message.split("\n", 1)[0])
    return "" if execution.finished_ms else note(execution)


_CELLS: dict[str, Callable[[query_pb2.Execution, int, Note], str]] = {
    "id": lambda execution, _, __: printable(execution.execution_id),
    "workflow": lambda execution, _, __: _workflow(execution),
    "status": lambda execution, _, __: execution.status,
    "accepted": lambda execution, _, __: _time(execution.accepted_ms),
    "age": lambda execution, now_ms, _: _age(execution, now_ms),
    "finished": lambda execution, _, __: _time(execution.finished_ms),
    "took": lambda execution, now_ms, _: _took(execution, now_ms),
    "events": lambda execution, _, __: str(execution.last_sequence_number),
    "acknowledged": lambda execution, _, __: str(execution.acknowledged_sequence_number),
    "labels": lambda execution, _, __: _labels(execution),
    "metadata": lambda execution, _, __: printable(execution.document_metadata_json),
    "what": lambda execution, _, note: _what(execution, note),
}


def _status(text: str, status: str) -> str:
    return click.style(printable(text), fg=_COLOURS.get(status))


def _delivery(execution: query_pb2.Execution) -> str:
    text = f"{execution.acknowledged_sequence_number} acknowledged"
    if execution.given_up_events:
        text += f", {execution.given_up_events} given up: no receiver took them, or there was none"
    return text


def _workflow(execution: query_pb2.Execution) -> str:
    return printable(f"{execution.workflow_namespace}/{execution.workflow_name}:{execution.workflow_version}")


def _labels(execution: query_pb2.Execution) -> str:
    return printable(" ".join(f"{name}={value}" for name, value in sorted(execution.labels.items())))


def _age(execution: query_pb2.Execution, now_ms: int) -> str:
    return f"{span(now_ms - execution.accepted_ms, parts=1)} ago"


def _took(execution: query_pb2.Execution, now_ms: int) -> str:
    """How long it has been going on, or went on: a `+` says that it still does."""
    if execution.finished_ms:
        return span(execution.finished_ms - execution.accepted_ms)
    return span(now_ms - execution.accepted_ms) + "+"


def span(span_ms: int, parts: int = 2) -> str:
    """A duration in its two largest units, or in its largest."""
    span_ms = max(span_ms, 0)
    if span_ms < 1000:
        return f"{span_ms} ms" if parts > 1 else "0 s"
    if span_ms < 60_000 and parts > 1:
        return f"{span_ms / 1000:.1f} s"
    found: list[str] = []
    for unit, unit_ms in _MS_OF:
        count, span_ms = divmod(span_ms, unit_ms)
        if count or found:
            found.append(f"{count} {unit}")
    return " ".join(found[:parts])


def _time(epoch_ms: int) -> str:
    if not epoch_ms:
        return "-"
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")
