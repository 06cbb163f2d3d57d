"""Support: the commands that talk to a running runner over gRPC."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fastrunner.base.clock import wall_ms
from fastrunner.base.printable import printable
from fastrunner.cli.access import Access, access_options
from fastrunner.cli.arguments import (
    EXIT_BY_STATUS,
    EXIT_INTERRUPTED,
    Number,
    Since,
    WorkflowName,
    document_path,
    outputs_option,
    read_document,
    read_input,
    read_pairs,
    strict_option,
)
from fastrunner.cli.bulk import bulk_of, bulk_options, perform
from fastrunner.progress.names import STATUSES, TERMINAL_EVENTS

if TYPE_CHECKING:
    from fastrunner.cli.client import Client
    from fastrunner.cli.follow import Display

COLUMNS = (
    *("id", "workflow", "status", "accepted", "age", "finished", "took", "events", "acknowledged"),
    *("labels", "metadata", "what"),
)
"""Columns of a list, as `present.py` fills them."""


_TARGET_HELP = "The runner; default: localhost:9090.  [FASTRUNNER_TARGET]"


def connection_options(command: Any) -> Any:
    for option in (
        click.option(
            "--deadline-s",
            default=30.0,
            show_default=True,
            type=Number(0, 31_536_000, min_open=True),
            help="Give up on a call after so long.",
        ),
        access_options,
        click.option("--target", default=None, metavar="HOST:PORT", help=_TARGET_HELP),
    ):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def client_of(target: str | None, deadline_s: float, **access: Any) -> "Client":
    from fastrunner.cli.client import Client

    return Client(target, Access(**access), deadline_s)


@click.command()
@click.argument("file", type=document_path, required=False)
@click.option(
    "--workflow", type=WorkflowName(), default=None, metavar="NAME", help="A registered one instead of a file."
)
@click.option("--id", "execution_id", default=None, help="Execution id; default: a new UUID.")
@click.option("--input", "input_text", default=None, metavar="JSON|@FILE", help="The workflow's input; @-: from stdin.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="For $runtime.metadata.env; repeatable.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="To find it by; repeatable.")
@click.option("--timeout-s", default=0, type=click.IntRange(0), help="Upper bound on the execution; 0: none.")
@click.option("--follow", is_flag=True, help="Watch until it ends, then print its output.")
@outputs_option
@strict_option
@json_option
@connection_options
def submit(
    file: Path | None,
    workflow: tuple[str, str, str] | None,
    execution_id: str | None,
    input_text: str | None,
    env: tuple[str, ...],
    labels: tuple[str, ...],
    timeout_s: int,
    follow: bool,
    outputs: bool,
    strict: bool,
    as_json: bool,
    **connection: Any,
) -> None:
    """Send a workflow document to a runner, or name a registered one. It is durable when this returns.

    --workflow takes NAMESPACE/NAME for the latest version, or NAMESPACE/NAME:VERSION.

    With --follow, progress goes to stderr, the output (or the error) as JSON to stdout; restarts of the runner are
    waited for. It exits with 0 completed, 1 failed, 3 cancelled. Ctrl-C leaves the execution running. With --json,
    every event is a line of JSON on stdout.
    """
    import uuid

    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2
    from fastrunner.cli.follow import display
    from fastrunner.cli.present import json_line, say

    if (file is None) is (workflow is None):
        raise click.UsageError("give the FILE of a document, or --workflow NAMESPACE/NAME[:VERSION]; not both")
    request = messages_pb2.WorkflowExecuteInput(
        workflow_execution_id=execution_id or str(uuid.uuid4()),
        workflow_yaml="" if file is None else text_of(file),
        workflow_ref=workflow_ref(workflow),
        env_vars=read_pairs(env),
        labels=read_pairs(labels, "--label"),
        input_json=read_input(input_text, file),
    )
    if timeout_s:
        request.config.max_timeout_seconds = timeout_s
    client = client_of(**connection)
    if strict and file is not None:
        _check(client, file, request.workflow_yaml)
    reply = client.call("ExecuteAsync", request)
    for warning in reply.warnings:
        say(f"{file or 'registered document'}:{warning}")
    if as_json:
        json_line(reply)
    elif not follow:
        click.echo(printable(reply.workflow_execution_id))
        say(f"to watch it: {client.hint('events', reply.workflow_execution_id, '--follow')}")
    if follow:
        say(f"{reply.workflow_execution_id}: {reply.message}")
        _watch(
            client, reply.workflow_execution_id, 1, display(err=not as_json, as_json=as_json, outputs=outputs), as_json
        )


def workflow_ref(name: tuple[str, str, str] | None) -> Any:
    """A WorkflowRef of a name; None if there is none."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

    return None if name is None else messages_pb2.WorkflowRef(namespace=name[0], name=name[1], version=name[2])


def _check(client: "Client", file: Path, document: str) -> None:
    """Leaves with 2 if the runner has a problem with a document or warns of it."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
    from fastrunner.cli.problems import show_problems

    request = query_pb2.ValidateWorkflowRequest(workflow_yaml=document, strict=True)
    verdict = client.call("ValidateWorkflow", request)
    if not verdict.valid:
        show_problems(file, verdict.problems, document.encode())
        sys.exit(2)


def text_of(file: Path) -> str:
    try:
        return read_document(file).decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter(
            f"{file} is not UTF-8: {error.reason} at byte {error.start}", param_hint="FILE"
        ) from None


@click.command()
@click.argument("execution_id")
@json_option
@connection_options
def get(execution_id: str, as_json: bool, **connection: Any) -> None:
    """Show one execution."""
    from fastrunner.cli.present import json_line, show_execution

    client = client_of(**connection)
    execution = _execution(client, execution_id)
    if as_json:
        json_line(execution)
    else:
        show_execution(execution, wall_ms(), partial(_last_event, client))


def _execution(client: "Client", execution_id: str) -> Any:
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2

    request = query_pb2.GetExecutionRequest(execution_id=execution_id)
    return client.call("GetExecution", request).execution


def _last_event(client: "Client", execution: Any) -> str:
    """What an unfinished execution did last, and how long ago: that is what it waits for."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
    from fastrunner.cli.present import event_note

    request = query_pb2.GetEventsRequest(
        execution_id=execution.execution_id, from_sequence_number=execution.last_sequence_number, count_max=1
    )
    events = client.ask("GetEvents", request)
    return event_note(events.events[0], wall_ms()) if events is not None and events.events else ""


@click.command("list")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeatable.")
@click.option("--name", default="", help="Only workflows of this name.")
@click.option("--namespace", default="", help="Only workflows of this namespace.")
@click.option("--version", default="", help="Only this version of workflows.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only with this label; repeatable.")
@click.option("--failed", is_flag=True, help="Only failed ones; as --status failed.")
@click.option("--since", "since_ms", default=None, type=Since(), metavar="10m|TIME", help="Only accepted since then.")
@click.option("--parent", default="", metavar="ID", help="Only what this execution has started by `run: workflow`.")
@click.option("--columns", default=None, metavar="NAMES", help=f"Which, with commas, of: {' '.join(COLUMNS)}.")
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 1000), help="At most so many.")
@json_option
@connection_options
def list_executions(
    statuses: tuple[str, ...],
    name: str,
    namespace: str,
    version: str,
    labels: tuple[str, ...],
    failed: bool,
    since_ms: int | None,
    parent: str,
    columns: str | None,
    count: int,
    as_json: bool,
    **connection: Any,
) -> None:
    """List executions, newest first, one line each.

    `took` ends with + while it goes on; `what` is the error, why the runner has paused it, or what it did last and how
    long ago. On a terminal `what` is cut at the edge.
    """
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
    from fastrunner.cli.present import json_line, say, show_executions

    shown = _columns(columns)
    client = client_of(**connection)
    request = query_pb2.ListExecutionsRequest(
        statuses={*statuses, *(["failed"] if failed else [])},
        workflow_name=name,
        workflow_namespace=namespace,
        workflow_version=version,
        labels=read_pairs(labels, "--label", is_filter=True),
        accepted_from_ms=since_ms or 0,
        parent_execution_id=parent,
        page_size=count,
    )
    reply = client.call("ListExecutions", request)
    if as_json:
        for execution in reply.executions:
            json_line(execution)
        return
    show_executions(reply.executions, shown, wall_ms(), partial(_last_event, client))
    if reply.next_page_token:
        say(f"(more than {count}: raise --count or filter)")


def _columns(given: str | None) -> tuple[str, ...]:
    from fastrunner.cli.present import COLUMNS_DEFAULT

    if given is None:
        return COLUMNS_DEFAULT
    names = tuple(given.split(","))
    for name in names:
        if name not in COLUMNS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(COLUMNS)}", param_hint="--columns")
    return names


@click.command()
@click.argument("execution_id")
@click.option("--from", "from_sequence", default=1, type=click.IntRange(1), help="First sequence number.")
@click.option("--follow", is_flag=True, help="Go on until the execution ends, through restarts of the runner.")
@outputs_option
@json_option
@connection_options
def events(
    execution_id: str, from_sequence: int, follow: bool, outputs: bool, as_json: bool, **connection: Any
) -> None:
    """Show what one execution has done: as a tree on a terminal, else a line per step; --json: every event whole.

    Of one that has ended, the output (or the error) comes last, as JSON. With --follow it exits with 0 completed, 1
    failed, 3 cancelled.
    """
    from fastrunner.cli.follow import display

    client = client_of(**connection)
    begun_ms = _begun_ms(client, execution_id, from_sequence)
    shown = display(err=False, as_json=as_json, outputs=outputs, live=follow, begun_ms=begun_ms)
    if follow:
        _watch(client, execution_id, from_sequence, shown, as_json)
    with shown:
        last = _show_pages(client, execution_id, from_sequence, shown)
    if last is not None and not as_json:
        _print_end(client, last)


def _show_pages(client: "Client", execution_id: str, from_sequence: int, shown: "Display") -> Any:
    """Shows what there is; gives the last event, if there is one."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2

    last = None
    while True:
        request = query_pb2.GetEventsRequest(execution_id=execution_id, from_sequence_number=from_sequence)
        page = client.call("GetEvents", request).events
        for last in page:
            shown.show(last)
        if not page:
            return last
        from_sequence = page[-1].sequence_number + 1


def _begun_ms(client: "Client", execution_id: str, from_sequence: int) -> int:
    """When the first event of an execution happened, if it is not among those to come."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2

    if from_sequence <= 1:
        return 0
    request = query_pb2.GetEventsRequest(execution_id=execution_id, from_sequence_number=1, count_max=1)
    first = client.call("GetEvents", request).events
    return int(first[0].timestamp_ms) if first else 0


@click.command()
@click.argument("execution_id", required=False)
@click.option("--reason", default="", help="Carried in the event.")
@click.option("--force", is_flag=True, help="Interrupt running effects now.")
@bulk_options
@connection_options
def cancel(execution_id: str | None, reason: str, force: bool, **options: Any) -> None:
    """End an execution early, or with --where all that it finds.

    \b
    fastrunner cancel --where name=order --where label=tenant=acme          counts them
    fastrunner cancel --where name=order --where since=10m --rate 50 --yes  cancels them
    """
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

    request = messages_pb2.CancelExecutionRequest(reason=reason, force=force)
    _command("cancel", "CancelExecution", request, execution_id, options)


@click.command()
@click.argument("execution_id", required=False)
@click.option("--reason", default="", help="Carried in the event.")
@bulk_options
@connection_options
def pause(execution_id: str | None, reason: str, **options: Any) -> None:
    """Stop an execution before its next task, or with --where all that it finds."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

    _command("pause", "PauseExecution", messages_pb2.PauseExecutionRequest(reason=reason), execution_id, options)


@click.command()
@click.argument("execution_id", required=False)
@click.option("--reason", default="", help="Carried in the event.")
@bulk_options
@connection_options
def resume(execution_id: str | None, reason: str, **options: Any) -> None:
    """Let a paused execution go on, or with --where all that it finds."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

    _command("resume", "ResumeExecution", messages_pb2.ResumeExecutionRequest(reason=reason), execution_id, options)


def _command(command: str, method: str, request: Any, execution_id: str | None, options: dict[str, Any]) -> None:
    """Has a command carried out for one execution, or for all that are meant."""
    bulk = bulk_of(execution_id, options)
    client = client_of(**options)
    if bulk is not None:

        def invoke(each: str) -> None:
            request.execution_id = each
            client.invoke(method, request)

        perform(client, command, bulk, invoke)
        return
    assert execution_id is not None
    request.execution_id = execution_id
    client.call(method, request)
    _tell(client, command, execution_id)


@click.command()
@click.argument("execution_ids", metavar="ID...", nargs=-1, required=True)
@connection_options
def delete(execution_ids: tuple[str, ...], **connection: Any) -> None:
    """Forget finished executions for good, with their events.

    Their ids are free again. One that has not ended, or whose events the callback receiver is still to have, is
    refused; the others are deleted all the same, and the exit code is 4.
    """
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
    from fastrunner.cli.client import EXIT_RPC
    from fastrunner.cli.present import say

    client = client_of(**connection)
    refused = 0
    for execution_id in execution_ids:
        if client.attempt("DeleteExecution", query_pb2.DeleteExecutionRequest(execution_id=execution_id)):
            say(f"{execution_id}: deleted")
        else:
            refused += 1
    if refused:
        sys.exit(EXIT_RPC)


def _tell(client: "Client", command: str, execution_id: str) -> None:
    """Says what a command led to."""
    from fastrunner.cli.present import say

    status = _execution(client, execution_id).status
    text = f"{execution_id}: {status}"
    if command == "cancel" and status not in EXIT_BY_STATUS:
        text += "; it ends once its running effects have, or after the runner's grace (--force: now)"
    say(text)


def _watch(client: "Client", execution_id: str, from_sequence: int, shown: "Display", as_json: bool) -> NoReturn:
    """Follows an execution and leaves with the exit code of its end. Ctrl-C stops watching, not the execution."""
    from fastrunner.cli.present import say

    event = None
    try:
        with shown:
            for event in client.follow(execution_id, from_sequence):
                shown.show(event)
    except KeyboardInterrupt:
        say(f"stopped watching; the execution goes on: {client.hint('events', execution_id, '--follow')}")
        say(f"to end it: {client.hint('cancel', execution_id)}")
        sys.exit(EXIT_INTERRUPTED)
    if event is not None and not as_json:
        _print_end(client, event)
    ended = _execution(client, execution_id) if event is None else event
    sys.exit(EXIT_BY_STATUS.get(ended.status, 1))


def _print_end(client: "Client", last: Any) -> None:
    """What an execution came to, if that is its terminal event. An event leaves out a large output."""
    from fastrunner.cli.follow import error_fields, print_end

    if last.event_type not in TERMINAL_EVENTS:
        return
    output_json = last.output_json
    if last.status == "completed" and not output_json:
        output_json = _execution(client, last.workflow_execution_id).output_json
    print_end(output_json, error_fields(last.error) if last.HasField("error") else None)
