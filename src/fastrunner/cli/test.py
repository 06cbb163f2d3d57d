"""Support: `fastrunner test`, which executes documents as their scenarios have it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastrunner.base.printable import printable

if TYPE_CHECKING:
    from fastrunner._core import Plan
    from fastrunner.scenarios.files import ScenarioFile
    from fastrunner.scenarios.report import Verdict

__all__ = ["test"]

_ENDINGS = (".test.yaml", ".test.yml", ".test.json")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="FILE...")
@click.option("--only", default="", metavar="TEXT", help="Only scenarios whose names contain this.")
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdicts to this file as XML."
)
@click.option("--quiet", is_flag=True, help="Print only what has failed.")
def test(paths: tuple[Path, ...], only: str, junit: Path | None, quiet: bool) -> None:
    """Execute documents as scenarios say, in virtual time, and compare what comes of it.

    FILE is a file of scenarios (NAME.test.yaml), a document with one beside it, or a folder of such files. Nothing is
    connected to: stubs answer for calls, runs and subflows, and a wait of 30 days passes at once. docs/testing.md has
    the form of the files.

    Exits with 0 if every scenario has passed, 1 if one has failed, 2 if a file cannot be used.
    """
    from fastrunner.scenarios.files import ScenarioRefused
    from fastrunner.scenarios.report import junit as as_junit
    from fastrunner.scenarios.report import lines

    verdicts: list[Verdict] = []
    try:
        for verdict in _verdicts(list(_files(paths)), only):
            verdicts.append(verdict)
            if verdict.faults or not quiet:
                for line in lines(verdict):
                    click.echo(printable(line))
        if verdicts and junit is not None:
            junit.write_bytes(as_junit(verdicts))
    except BrokenPipeError:
        raise
    except (ScenarioRefused, OSError) as error:
        click.echo(printable(f"fastrunner: {error}"), err=True)
        sys.exit(2)
    if not verdicts:
        click.echo(f"fastrunner: no scenario's name contains {only!r}", err=True)
        sys.exit(2)
    failed = sum(bool(verdict.faults) for verdict in verdicts)
    click.echo(f"{len(verdicts)} scenarios, {failed or 'none'} failed", err=True)
    sys.exit(1 if failed else 0)


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    """The files of scenarios. Raises ScenarioRefused."""
    from fastrunner.scenarios.files import ScenarioRefused

    for path in paths:
        if path.is_dir():
            found = sorted(each for each in path.rglob("*") if each.name.endswith(_ENDINGS))
            if not found:
                raise ScenarioRefused(f"{path} has no file of scenarios: their names end with .test.yaml")
            yield from found
        elif path.name.endswith(_ENDINGS):
            yield path
        else:
            yield _beside(path)


def _beside(path: Path) -> Path:
    from fastrunner.scenarios.files import ScenarioRefused

    for ending in _ENDINGS:
        candidate = path.with_name(path.stem + ending)
        if candidate.exists():
            return candidate
    raise ScenarioRefused(f"{path} has no scenarios: write them to {path.stem}.test.yaml beside it")


def _verdicts(files: list[Path], only: str) -> "Iterator[Verdict]":
    """Executes one scenario after the other. Raises ScenarioRefused."""
    from fastrunner.base.clock import monotonic_s
    from fastrunner.base.redaction import hide, redact
    from fastrunner.scenarios.drive import execute
    from fastrunner.scenarios.files import read_scenarios
    from fastrunner.scenarios.report import Verdict
    from fastrunner.scenarios.verdict import faults

    for file in files:
        read = read_scenarios(file)
        plan = _plan(file, read)
        for scenario in read.scenarios:
            if only in scenario.name:
                begun_s = monotonic_s()
                outcome = execute(plan, scenario)
                hide(scenario.secrets)
                found = [redact(fault) for fault in faults(scenario.expect, outcome)]
                yield Verdict(str(file), scenario.name, found, outcome.lasted_ms, monotonic_s() - begun_s)


def _plan(file: Path, read: "ScenarioFile") -> "Plan":
    """Compiles the document. Raises ScenarioRefused, OSError."""
    from fastrunner._core import InvalidWorkflow, ResourcesMissing
    from fastrunner._core import compile as compiled
    from fastrunner.cli.problems import show_problems
    from fastrunner.scenarios.files import ScenarioRefused, read_file

    document = Path(read.workflow)
    text = read_file(document)
    resources = {}
    for url, name in read.resources.items():
        try:
            resources[url] = read_file(file.parent / name).decode()
        except UnicodeDecodeError:
            raise ScenarioRefused(f"{file.parent / name}: is not UTF-8 text") from None
    try:
        return compiled(text, resources=resources)
    except InvalidWorkflow as error:
        show_problems(document, error.problems, text)
        raise ScenarioRefused(f"{document} is no valid document") from None
    except ResourcesMissing as error:
        missing = error.resources[0].reference
        raise ScenarioRefused(
            f"{file}: {document} has {missing} from elsewhere: name a file for it in `resources`"
        ) from None
