"""Support: the commands that talk to a running runner over gRPC."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrunner.cli.arguments import EXIT_BY_STATUS, EXIT_INTERRUPTED, read_input, read_pairs
from fastrunner.progress.names import STATUSES

if TYPE_CHECKING:
    from fastrunner.cli.client import Client


def _connection(command: Any) -> Any:
    for option in (
        click.option("--deadline-s", default=30.0, show_default=True, help="Give up on a call after so long."),
        click.option("--tls", is_flag=True, help="Connect with TLS."),
        click.option("--target", default="localhost:9090", show_default=True, help="host:port of the runner."),
    ):
        command = option(command)
    return command


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def _client(target: str, tls: bool, deadline_s: float) -> "Client":
    from fastrunner.cli.client import Client

    return Client(target, tls, deadline_s)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "execution_id", default=None, help="Execution id; default: a new UUID.")
@click.option("--input", "input_text", default=None, metavar="JSON|@FILE", help="The workflow's input.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="For $runtime.metadata.env; repeatable.")
@click.option("--timeout-s", default=0, type=click.IntRange(0), help="Upper bound on the execution; 0: none.")
@click.option("--follow", is_flag=True, help="Watch until it ends; exits 0 completed, 1 failed, 3 cancelled.")
@_json
@_connection
def submit(
    file: Path,
    execution_id: str | None,
    input_text: str | None,
    env: tuple[str, ...],
    timeout_s: int,
    follow: bool,
    as_json: bool,
    **connection: Any,
) -> None:
    """Send a workflow document to a runner. It is durable when this returns."""
    import uuid

    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2
    from fastrunner.cli.present import json_line, say

    request = messages_pb2.WorkflowExecuteInput(
        workflow_execution_id=execution_id or str(uuid.uuid4()),
        workflow_yaml=file.read_text(encoding="utf-8"),
        env_vars=read_pairs(env),
        input_json=read_input(input_text),
    )
    if timeout_s:
        request.config.max_timeout_seconds = timeout_s
    client = _client(**connection)
    reply = client.call("ExecuteAsync", request)
    if as_json:
        json_line(reply)
    elif not follow:
        click.echo(reply.workflow_execution_id)
    if follow:
        say(f"{reply.workflow_execution_id}: {reply.message}")
        _watch(client, reply.workflow_execution_id, 1, as_json)


@click.command()
@click.argument("execution_id")
@_json
@_connection
def get(execution_id: str, as_json: bool, **connection: Any) -> None:
    """Show one execution."""
    from rich.console import Console

    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
    from fastrunner.cli.present import json_line, show_execution

    request = query_pb2.GetExecutionRequest(execution_id=execution_id)
    execution = _client(**connection).call("GetExecution", request).execution
    if as_json:
        json_line(execution)
    else:
        show_execution(execution, Console())


@click.command("list")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeatable.")
@click.option("--name", default="", help="Only workflows of this name.")
@click.option("--namespace", default="", help="Only workflows of this namespace.")
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 1000), help="At most so many.")
@_json
@_connection
def list_executions(
    statuses: tuple[str, ...], name: str, namespace: str, count: int, as_json: bool, **connection: Any
) -> None:
    """List executions, newest first."""
    from rich.console import Console

    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
    from fastrunner.cli.present import json_line, say, show_executions

    request = query_pb2.ListExecutionsRequest(
        statuses=statuses, workflow_name=name, workflow_namespace=namespace, page_size=count
    )
    reply = _client(**connection).call("ListExecutions", request)
    if as_json:
        for execution in reply.executions:
            json_line(execution)
        return
    show_executions(reply.executions, Console())
    if reply.next_page_token:
        say(f"(more than {count}: raise --count or filter)")


@click.command()
@click.argument("execution_id")
@click.option("--from", "from_sequence", default=1, type=click.IntRange(1), help="First sequence number.")
@click.option("--follow", is_flag=True, help="Go on until the execution ends.")
@_json
@_connection
def events(execution_id: str, from_sequence: int, follow: bool, as_json: bool, **connection: Any) -> None:
    """Show the progress events of one execution."""
    from rich.console import Console

    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
    from fastrunner.cli.present import EventPrinter, json_line

    client = _client(**connection)
    if follow:
        _watch(client, execution_id, from_sequence, as_json)
        return
    printer = EventPrinter(Console())
    while True:
        request = query_pb2.GetEventsRequest(execution_id=execution_id, from_sequence_number=from_sequence)
        page = client.call("GetEvents", request).events
        for event in page:
            json_line(event) if as_json else printer.show(event)
        if not page:
            return
        from_sequence = page[-1].sequence_number + 1


@click.command()
@click.argument("execution_id")
@click.option("--reason", default="", help="Carried in the event.")
@click.option("--force", is_flag=True, help="Interrupt running effects now.")
@_connection
def cancel(execution_id: str, reason: str, force: bool, **connection: Any) -> None:
    """End an execution early."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

    request = messages_pb2.CancelExecutionRequest(execution_id=execution_id, reason=reason, force=force)
    _client(**connection).call("CancelExecution", request)


@click.command()
@click.argument("execution_id")
@click.option("--reason", default="", help="Carried in the event.")
@_connection
def pause(execution_id: str, reason: str, **connection: Any) -> None:
    """Stop an execution before its next task."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

    request = messages_pb2.PauseExecutionRequest(execution_id=execution_id, reason=reason)
    _client(**connection).call("PauseExecution", request)


@click.command()
@click.argument("execution_id")
@click.option("--reason", default="", help="Carried in the event.")
@_connection
def resume(execution_id: str, reason: str, **connection: Any) -> None:
    """Let a paused execution go on."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

    request = messages_pb2.ResumeExecutionRequest(execution_id=execution_id, reason=reason)
    _client(**connection).call("ResumeExecution", request)


def _watch(client: "Client", execution_id: str, from_sequence: int, as_json: bool) -> None:
    """Follows an execution and leaves with the exit code of its end. Ctrl-C stops watching, not the execution."""
    from rich.console import Console

    from fastrunner.cli.present import EventPrinter, json_line, say

    printer = EventPrinter(Console())
    status = ""
    try:
        for event in client.follow(execution_id, from_sequence):
            json_line(event) if as_json else printer.show(event)
            status = event.status
    except KeyboardInterrupt:
        say(f"stopped watching; the execution goes on: fastrunner events {execution_id} --follow")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_BY_STATUS.get(status, 1))
