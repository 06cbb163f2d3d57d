"""Support: how the command shows executions and events, to people (rich) and to scripts (JSON lines)."""

from collections.abc import Iterable

import click
import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2, query_pb2

_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "paused": "cyan", "running": "blue"}


def json_line(message: Message) -> None:
    """One message as one line of JSON on stdout."""
    click.echo(orjson.dumps(MessageToDict(message)))


def error_line(message: Message) -> None:
    """One message as one line of JSON on stderr."""
    click.echo(orjson.dumps(MessageToDict(message)), err=True)


def styled(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=_STYLES.get(status, ""))


class EventPrinter:
    """Prints progress events as lines: sequence, seconds since the first, what happened, where."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._first_ms = 0

    def show(self, event: messages_pb2.WorkflowProgressEvent) -> None:
        """Prints one event."""
        self._first_ms = self._first_ms or event.timestamp_ms
        line = Text(f"{event.sequence_number:>5} {(event.timestamp_ms - self._first_ms) / 1000:>9.3f}s  ", style="dim")
        line.append(event.event_type, style=_STYLES.get(event.status, ""))
        if event.task_reference:
            line.append(f"  {event.task_reference}")
            if event.attempt > 1:
                line.append(f"  attempt {event.attempt}", style="yellow")
        if event.error.message:
            line.append(f"  {event.error.message}", style="red")
        elif event.message:
            line.append(f"  {event.message}", style="dim")
        self._console.print(line, soft_wrap=True)


def show_execution(execution: query_pb2.Execution, console: Console) -> None:
    """One execution, field by field."""
    table = Table.grid(padding=(0, 2))
    table.add_row("id", execution.execution_id)
    table.add_row("workflow", f"{execution.workflow_namespace}/{execution.workflow_name}:{execution.workflow_version}")
    table.add_row("status", styled(execution.status))
    table.add_row("accepted", _time(execution.accepted_ms))
    table.add_row("finished", _time(execution.finished_ms))
    table.add_row("events", f"{execution.last_sequence_number} ({execution.acknowledged_sequence_number} acknowledged)")
    if execution.output_json:
        table.add_row("output", execution.output_json)
    if execution.HasField("error"):
        error = execution.error
        table.add_row("error", Text(f"{error.status} {error.type}\n{error.message}\nat {error.instance}", style="red"))
    console.print(table)


def show_executions(executions: Iterable[query_pb2.Execution], console: Console) -> None:
    """Executions as a table, and below it why the runner itself has paused some."""
    executions = list(executions)
    table = Table(box=None, header_style="bold")
    for column in ("id", "workflow", "status", "accepted", "finished", "events"):
        table.add_column(column, overflow="fold")
    for execution in executions:
        table.add_row(
            execution.execution_id,
            f"{execution.workflow_namespace}/{execution.workflow_name}:{execution.workflow_version}",
            styled(execution.status),
            _time(execution.accepted_ms),
            _time(execution.finished_ms),
            str(execution.last_sequence_number),
        )
    console.print(table)
    for execution in executions:
        if execution.status == "paused" and execution.HasField("error"):
            reason = execution.error.message.splitlines()[0]
            console.print(Text(f"{execution.execution_id}: {reason}", style="dim"), soft_wrap=True)


def say(text: str) -> None:
    """A sentence on stderr, so that stdout holds results only."""
    click.echo(text, err=True)


def _time(epoch_ms: int) -> str:
    if not epoch_ms:
        return "-"
    from datetime import UTC, datetime

    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")
