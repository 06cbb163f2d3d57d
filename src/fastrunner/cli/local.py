"""Support: the commands that need no server: `run` and `validate`."""

import sys
from pathlib import Path

import click

from fastrunner.base.printable import printable
from fastrunner.cli.arguments import (
    EXIT_BY_STATUS,
    EXIT_INTERRUPTED,
    document_path,
    outputs_option,
    read_document,
    read_input,
    read_pairs,
    strict_option,
)


@click.command()
@click.argument("files", nargs=-1, required=True, type=document_path)
@strict_option
@click.option("--json", "as_json", is_flag=True, help="Print problems and warnings as JSON lines on stdout.")
@click.option("--fix", is_flag=True, help="Rewrite what is often wrong and safely put right; stdin goes to stdout.")
@click.option("--diff", is_flag=True, help="Print what --fix would change as a diff, and change nothing.")
def validate(files: tuple[Path, ...], strict: bool, as_json: bool, fix: bool, diff: bool) -> None:
    """Check workflow documents.

    Prints every problem and warning as file:line:column with the line itself; exits with 1 if there is a problem.

    --fix keeps comments, quotes and layout, and changes no document without problems, but for arguments of a run in the
    form of DSL 1.0.2; what it cannot fix is shown.
    Nothing is fetched: a function that is called by its URL is warned of, and --strict does not count that.
    """
    from fastrunner._core import validate as problems_of
    from fastrunner.cli.problems import json_row, refuses, show_problems

    bad = 0
    for file in files:
        document = read_document(file)
        if fix or diff:
            document = _fixed(file, document, diff, as_json)
        problems = problems_of(document, True)
        bad += any(refuses(problem, strict=strict) for problem in problems)
        if not as_json:
            show_problems(file, problems, document)
            continue
        for problem in problems:
            click.echo(json_row(file, problem))
    if bad:
        if not as_json:
            click.echo(f"{bad} of {len(files)} documents have problems", err=True)
        sys.exit(1)
    if not as_json:
        click.echo(f"{len(files)} valid", err=True)


def _fixed(file: Path, document: bytes, diff: bool, as_json: bool) -> bytes:
    """Fixes a document in its file, or shows how; gives what is to be judged."""
    from difflib import unified_diff

    from fastrunner.cli.fixes import fixed

    after, count = fixed(document)
    if diff:
        old, new = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (document, after))
        for line in unified_diff(old, new, str(file), str(file)):
            click.echo(printable(line.rstrip("\r\n")))
        return document
    if str(file) == "-":
        sys.stdout.buffer.write(after)
    elif count:
        file.write_bytes(after)
    if count and not as_json:
        click.echo(printable(f"{file}: fixed {count} problems"), err=True)
    return after


@click.command()
@click.argument("file", type=document_path)
@click.option("--input", "input_text", default=None, metavar="JSON|@FILE", help="The workflow's input; @-: from stdin.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="For $runtime.metadata.env; repeatable.")
@click.option("--timeout-s", default=0, type=click.IntRange(0), help="Upper bound on the execution; 0: none.")
@outputs_option
@strict_option
@click.option("--json", "as_json", is_flag=True, help="Print progress and warnings as JSON lines on stderr.")
@click.option("--quiet", is_flag=True, help="Print neither progress nor warnings, only the result.")
def run(
    file: Path,
    input_text: str | None,
    env: tuple[str, ...],
    timeout_s: int,
    outputs: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Execute one document here, without a server.

    `run: workflow` finds the documents of the folder that FASTRUNNER_WORKFLOWS_DIR names. Functions that are called by
    their URLs are fetched.

    Progress goes to stderr, as a tree on a terminal, else a line per step; the output (or the error) as JSON to stdout.
    Exits with 0 completed, 1 failed, 2 invalid document, 3 cancelled, 130 interrupted.
    """
    from fastrunner.cli.inprocess import LocalRun, execute
    from fastrunner.cli.problems import show_problems
    from fastrunner.config import ConfigurationError
    from fastrunner.errors import DocumentRefused, ResourceUnavailable

    document = read_document(file)
    _check(file, document, strict, as_json, quiet)
    local = LocalRun(
        document=document.decode(),
        input_json=read_input(input_text, file).encode() or b"null",
        env_vars=read_pairs(env),
        timeout_s_max=timeout_s,
        as_json=as_json,
        quiet=quiet,
        outputs=outputs,
    )
    try:
        status = execute(local)
    except ConfigurationError as error:
        click.echo(printable(f"fastrunner: {error}"), err=True)
        sys.exit(2)
    except DocumentRefused as refused:
        # For what only shows once the functions from elsewhere are there.
        show_problems(file, refused.problems, document)
        sys.exit(2)
    except ResourceUnavailable as refused:
        click.echo(printable(f"fastrunner: {refused.message}"), err=True)
        sys.exit(2)
    sys.exit(EXIT_BY_STATUS.get(status, EXIT_INTERRUPTED))


def _check(file: Path, document: bytes, strict: bool, as_json: bool, quiet: bool) -> None:
    """Shows what is wrong with a document, and leaves with 2 if it is not to be executed."""
    from fastrunner._core import validate as problems_of
    from fastrunner.cli.problems import NOT_FETCHED, json_row, refuses, show_problems

    problems = [problem for problem in problems_of(document, True) if problem.code != NOT_FETCHED]
    if any(refuses(problem, strict=strict) for problem in problems):
        show_problems(file, problems, document)
        sys.exit(2)
    if as_json and not quiet:
        for warning in problems:
            click.echo(json_row(file, warning), err=True)
    elif not quiet:
        show_problems(file, problems, document)
