"""Support: `fastrunner watch`: what becomes of all executions of a runner, as it happens.

Rules: a line per change, on stdout; what is to be known of the watching itself is on stderr. A cursor that is kept in a
file is written after its line, so a change may be shown again after an interruption, and none is left out.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrunner.cli.arguments import EXIT_INTERRUPTED
from fastrunner.cli.remote import client_of, connection_options, json_option
from fastrunner.progress.names import STATUSES

if TYPE_CHECKING:
    from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import StateChange

_WATCHED = tuple(status for status in STATUSES if status != "pending")


@click.command()
@click.option("--status", "statuses", multiple=True, type=click.Choice(_WATCHED), help="Only to these; repeatable.")
@click.option("--name", default="", help="Only workflows of this name.")
@click.option("--namespace", default="", help="Only workflows of this namespace.")
@click.option(
    "--cursor-file",
    default=None,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Go on from where this file says, and keep it up to date; without one: from now on.",
)
@json_option
@connection_options
def watch(
    statuses: tuple[str, ...], name: str, namespace: str, cursor_file: Path | None, as_json: bool, **connection: Any
) -> None:
    """Show what becomes of all executions: accepted, paused, resumed, ended. Ctrl-C ends it.

    It goes on through restarts of the runner. Where changes are forgotten that have not been shown (their retention has
    ended), that is said.
    """
    from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import SubscribeAllRequest
    from fastrunner.cli.present import json_line, say, show_change

    client = client_of(**connection)
    cursor = cursor_file.read_text().strip() if cursor_file is not None and cursor_file.exists() else ""
    request = SubscribeAllRequest(workflow_namespace=namespace, workflow_name=name, statuses=statuses, cursor=cursor)
    try:
        for change in client.follow_all(request):
            if change.missed:
                say("fastrunner: some changes are forgotten that were not shown: `fastrunner list` shows what is there")
            if change.execution_id:
                json_line(change) if as_json else show_change(change)
            if cursor_file is not None:
                _keep(cursor_file, change)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _keep(path: Path, change: "StateChange") -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(change.cursor + "\n")
    new.replace(path)
