"""Support: `fastrunner data`: what operators do with a data directory: check it, compact it, export what is in it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from fastrunner.base.printable import escaped_json, printable
from fastrunner.cli.serve import EXIT_CONFIGURATION
from fastrunner.progress.names import STATUSES

if TYPE_CHECKING:
    from fastrunner.data.inspection import ShardFile

EXIT_DAMAGED = 1
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE, as of a command that knows nothing of pipes."""

_data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="The data directory.  [FASTRUNNER_DATA_DIR]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of text.")
_time = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def data() -> None:
    """Check, compact or export a data directory.

    check and export only read, and work beside a running runner; compact needs the runner stopped.
    """


def _folder(data_dir: Path | None) -> Path:
    from fastrunner.config import ConfigurationError, load_data_dir

    try:
        return load_data_dir(data_dir)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def _refusals() -> Iterator[None]:
    """A directory or file that cannot be used is one line on stderr and exit code 2."""
    import apsw

    from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused

    try:
        yield
    except BrokenPipeError:
        # Whoever reads has enough, as in `fastrunner data export | head`. Nothing is left to flush at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except (DataDirectoryRefused, apsw.Error, OSError) as error:
        click.echo(printable(f"fastrunner: {error}"), err=True)
        sys.exit(EXIT_CONFIGURATION)


def _shards(folder: Path) -> "list[ShardFile]":
    from fastrunner.data.inspection import shard_files
    from fastrunner.engine.embedded.store.manifest import read_shard_count

    return shard_files(folder, read_shard_count(folder))


def _line(fields: dict[str, Any]) -> str:
    import orjson

    return escaped_json(orjson.dumps(fields).decode())


# --- check ---


@data.command()
@_data_dir
@_json
def check(data_dir: Path | None, as_json: bool) -> None:
    """Look for damage: pages, checksums, what must hold between rows, and executions that live in several shards.

    Exits with 0 if everything is what was written, 1 with a list of what is not. Beside a running runner it holds back
    the folding of the journal for as long as it reads a shard.
    """
    from fastrunner.data.inspection import doubled

    with _refusals():
        shards = _shards(_folder(data_dir))
        rows = sum(shard.count_rows() for shard in shards)
        found = 0
        with _progress(rows, "checking", hidden=as_json) as advance:
            findings = [(shard, damage) for shard in shards for damage in shard.check(advance)]
            findings += doubled(shards)
    for shard, damage in findings:
        found += 1
        if as_json:
            fields = {"shard": shard.path.name, "table": damage.table, "execution_id": damage.execution_id}
            click.echo(_line({**fields, "detail": damage.detail}))
        else:
            whose = f" execution {damage.execution_id}:" if damage.execution_id else ""
            click.echo(printable(f"{shard.path.name} {damage.table}:{whose} {damage.detail}"))
    click.echo(f"{len(shards)} shards, {rows} rows: {found or 'nothing'} damaged", err=True)
    sys.exit(EXIT_DAMAGED if found else 0)


@contextmanager
def _progress(length: int, label: str, hidden: bool) -> Iterator[Callable[[int], None]]:
    if hidden or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update


# --- compact ---


@data.command()
@_data_dir
@_json
def compact(data_dir: Path | None, as_json: bool) -> None:
    """Give free space within the files back to the disk; rebuilds indexes.

    Refused while a runner uses the directory. Needs room for the largest shard twice.
    """
    from fastrunner.engine.embedded.store.manifest import open_data_directory, read_shard_count

    folder = _folder(data_dir)
    with _refusals():
        held = open_data_directory(folder, read_shard_count(folder))
        try:
            for shard in _shards(folder):
                sizes = shard.compact()
                if as_json:
                    fields = {"shard": shard.path.name, "before_bytes": sizes.before, "after_bytes": sizes.after}
                    click.echo(_line(fields))
                else:
                    click.echo(f"{shard.path.name}  {_mib(sizes.before)} -> {_mib(sizes.after)}")
        finally:
            held.close()


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"


# --- export ---


@data.command()
@_data_dir
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeatable.")
@click.option("--name", default="", help="Only workflows of this name.")
@click.option("--namespace", default="", help="Only workflows of this namespace.")
@click.option("--accepted-from", type=_time, default=None, help="Only accepted at or after this time, UTC.")
@click.option("--accepted-until", type=_time, default=None, help="Only accepted before this time, UTC.")
@click.option("--events", "with_events", is_flag=True, help="With the progress events of each.")
@click.option("--output", type=click.File("w", encoding="utf-8"), default="-", help="File to write; default: stdout.")
def export(
    data_dir: Path | None,
    statuses: tuple[str, ...],
    name: str,
    namespace: str,
    accepted_from: datetime | None,
    accepted_until: datetime | None,
    with_events: bool,
    output: TextIO,
) -> None:
    """Write executions as JSON lines, shard by shard in the order of acceptance.

    Each line has execution_id, status, workflow, accepted_ms, finished_ms (0: not yet), sequence numbers, and error or
    output; with --events also events. A line with "damaged": true lacks what cannot be trusted; exits with 1 then.
    """
    from fastrunner.engine import ExecutionQuery

    query = ExecutionQuery(
        statuses=frozenset(statuses),
        name=name,
        namespace=namespace,
        accepted_from_ms=_epoch_ms(accepted_from),
        accepted_until_ms=_epoch_ms(accepted_until),
    )
    damaged = count = 0
    with _refusals():
        for shard in _shards(_folder(data_dir)):
            for fields in shard.export(query, with_events):
                if with_events:
                    fields["events"] = [_event(message) for message in fields["events"]]
                output.write(_line(fields) + "\n")
                count += 1
                damaged += "damaged" in fields
        output.flush()
    click.echo(f"{count} executions, {damaged} of them damaged", err=True)
    sys.exit(EXIT_DAMAGED if damaged else 0)


def _event(message: bytes) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent

    fields: dict[str, Any] = MessageToDict(WorkflowProgressEvent.FromString(message))
    return fields


def _epoch_ms(time: datetime | None) -> int:
    return 0 if time is None else int(time.replace(tzinfo=UTC).timestamp() * 1000)
