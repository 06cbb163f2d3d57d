"""Support: the commands of the registry: `workflow register`, `get`, `list`, `delete`."""

from pathlib import Path
from typing import Any

import click

from fastrunner.base.printable import printable
from fastrunner.cli.arguments import WorkflowName, document_path
from fastrunner.cli.remote import client_of, connection_options, json_option, text_of, workflow_ref

_NAME_METAVAR = "NAMESPACE/NAME[:VERSION]"


@click.group()
def workflow() -> None:
    """Register workflows with a runner: `run: workflow` and `submit --workflow` name them.

    A version never changes once it is registered. Without a version the latest one is meant, in SemVer's order: a
    release comes after its pre-releases.
    """


@workflow.command()
@click.argument("files", nargs=-1, required=True, type=document_path)
@json_option
@connection_options
def register(files: tuple[Path, ...], as_json: bool, **connection: Any) -> None:
    """Register documents under the namespace, name and version that each says.

    They are durable, and known to every worker, when this returns. The same text again changes nothing; another text
    under a version that is taken is refused.
    """
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2
    from fastrunner.cli.present import json_line, say

    client = client_of(**connection)
    for file in files:
        reply = client.call("RegisterWorkflow", registry_pb2.RegisterWorkflowRequest(workflow_yaml=text_of(file)))
        for warning in reply.warnings:
            say(f"{file}:{warning}")
        if as_json:
            json_line(reply)
        else:
            click.echo(f"{_full_name(reply.workflow)}{'' if reply.created else ' (was registered)'}")


@workflow.command()
@click.argument("name", type=WorkflowName(), metavar=_NAME_METAVAR)
@json_option
@connection_options
def get(name: tuple[str, str, str], as_json: bool, **connection: Any) -> None:
    """Print a registered document."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2
    from fastrunner.cli.present import json_line, say

    request = registry_pb2.GetWorkflowRequest(workflow_ref=workflow_ref(name))
    found = client_of(**connection).call("GetWorkflow", request).workflow
    if as_json:
        json_line(found)
        return
    say(_full_name(found))
    click.echo(found.workflow_yaml, nl=not found.workflow_yaml.endswith("\n"))


@workflow.command("list")
@click.option("--namespace", default="", help="Only workflows of this namespace.")
@click.option("--name", default="", help="Only workflows of this name.")
@json_option
@connection_options
def list_workflows(namespace: str, name: str, as_json: bool, **connection: Any) -> None:
    """List registered workflows, one line each, the latest version of each first; `*` marks it."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2
    from fastrunner.cli.present import json_line

    client = client_of(**connection)
    request = registry_pb2.ListWorkflowsRequest(namespace=namespace, name=name)
    while True:
        page = client.call("ListWorkflows", request)
        for found in page.workflows:
            if as_json:
                json_line(found)
            else:
                click.echo(f"{_full_name(found)}{' *' if found.latest else ''}")
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


@workflow.command()
@click.argument("name", type=WorkflowName(), metavar="NAMESPACE/NAME:VERSION")
@connection_options
def delete(name: tuple[str, str, str], **connection: Any) -> None:
    """Remove one version. Executions that have begun with it go on."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2
    from fastrunner.cli.present import say

    if not name[2]:
        raise click.UsageError("say which version: NAMESPACE/NAME:VERSION")
    client_of(**connection).call("DeleteWorkflow", registry_pb2.DeleteWorkflowRequest(workflow_ref=workflow_ref(name)))
    say(f"{'/'.join(name[:2])}:{name[2]}: deleted")


def _full_name(found: Any) -> str:
    return printable(f"{found.namespace}/{found.name}:{found.version}")
