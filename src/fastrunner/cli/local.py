"""Support: the commands that need no server: `run` and `validate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastrunner.base.printable import escaped_json, printable
from fastrunner.cli.arguments import (
    EXIT_BY_STATUS,
    EXIT_INTERRUPTED,
    document_path,
    outputs_option,
    read_document,
    read_input,
    read_pairs,
)

if TYPE_CHECKING:
    from fastrunner._core import Problem


def print_problems(file: Path, problems: Sequence["Problem"]) -> None:
    for problem in problems:
        line = f"{file}:{problem.line}:{problem.column}: {problem.code}: {problem.message}"
        click.echo(printable(line), err=True)


@click.command()
@click.argument("files", nargs=-1, required=True, type=document_path)
@click.option("--json", "as_json", is_flag=True, help="Print problems as JSON lines on stdout.")
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Check workflow documents; prints every problem as file:line:column and exits with 1 if there is one."""
    import orjson

    from fastrunner._core import validate as problems_of

    bad = 0
    for file in files:
        problems = problems_of(read_document(file))
        bad += bool(problems)
        if not as_json:
            print_problems(file, problems)
            continue
        for problem in problems:
            row = {name: getattr(problem, name) for name in ("code", "pointer", "line", "column", "message")}
            click.echo(escaped_json(orjson.dumps({"file": str(file), **row}).decode()))
    if bad:
        if not as_json:
            click.echo(f"{bad} of {len(files)} documents have problems", err=True)
        sys.exit(1)
    if not as_json:
        click.echo(f"{len(files)} valid", err=True)


@click.command()
@click.argument("file", type=document_path)
@click.option("--input", "input_text", default=None, metavar="JSON|@FILE", help="The workflow's input; @-: from stdin.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="For $runtime.metadata.env; repeatable.")
@click.option("--timeout-s", default=0, type=click.IntRange(0), help="Upper bound on the execution; 0: none.")
@outputs_option
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines on stderr.")
@click.option("--quiet", is_flag=True, help="Print no progress, only the result.")
def run(
    file: Path,
    input_text: str | None,
    env: tuple[str, ...],
    timeout_s: int,
    outputs: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Execute one document here, without a server.

    Progress goes to stderr, as a tree on a terminal, else a line per step; the output (or the error) as JSON to stdout.
    Exits with 0 completed, 1 failed, 2 invalid document, 3 cancelled, 130 interrupted.
    """
    from fastrunner.cli.inprocess import LocalRun, execute
    from fastrunner.config import ConfigurationError
    from fastrunner.errors import DocumentRefused

    local = LocalRun(
        document=read_document(file).decode("utf-8", "replace"),
        input_json=read_input(input_text, file).encode() or b"null",
        env_vars=read_pairs(env),
        timeout_s_max=timeout_s,
        as_json=as_json,
        quiet=quiet,
        outputs=outputs,
    )
    try:
        status = execute(local)
    except DocumentRefused as refusal:
        print_problems(file, refusal.problems)
        sys.exit(2)
    except ConfigurationError as error:
        click.echo(printable(f"fastrunner: {error}"), err=True)
        sys.exit(2)
    sys.exit(EXIT_BY_STATUS.get(status, EXIT_INTERRUPTED))
