"""Support: `fastrunner data`: what operators do with a data directory: check, compact, export and seal it.

Copying it is `backup.py`'s.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from fastrunner.base.printable import escaped_json, printable
from fastrunner.cli.serve import EXIT_CONFIGURATION
from fastrunner.progress.names import STATUSES

if TYPE_CHECKING:
    from fastrunner.access.sealing import DataKeys
    from fastrunner.config import DataSettings
    from fastrunner.data.cloud_events import CloudEventsFile
    from fastrunner.data.inspection import ShardFile
    from fastrunner.engine.embedded.store.proofs import Damage

EXIT_DAMAGED = 1

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="The data directory.  [FASTRUNNER_DATA_DIR]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of text.")
_time = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def data() -> None:
    """Check, back up, restore, compact, export or rekey a data directory, and make keys for one.

    check, backup and export only read, and work beside a running runner; compact and rekey need the runner stopped.
    What is sealed needs the file that FASTRUNNER_DATA_KEY_FILE names.
    """


def settings_of(data_dir: Path | None) -> "DataSettings":
    from fastrunner.config import ConfigurationError, load_data_settings

    try:
        return load_data_settings(data_dir)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def refusals() -> Iterator[None]:
    """A directory or file that cannot be used is one line on stderr and exit code 2."""
    import apsw

    from fastrunner.access.sealing import KeyFileRefused
    from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused

    try:
        yield
    except BrokenPipeError:
        raise
    except apsw.FullError:
        # Where a copy is made SQLite calls it "not an error".
        click.echo("fastrunner: no space is left on the disk", err=True)
        sys.exit(EXIT_CONFIGURATION)
    except (DataDirectoryRefused, KeyFileRefused, apsw.Error, OSError) as error:
        click.echo(printable(f"fastrunner: {error}"), err=True)
        sys.exit(EXIT_CONFIGURATION)


def _keys(settings: "DataSettings") -> "DataKeys | None":
    from fastrunner.access.sealing import DataKeys

    return None if settings.data_key_file is None else DataKeys.read(settings.data_key_file)


def _shards(settings: "DataSettings", *, needs_keys: bool = False) -> "list[ShardFile]":
    """The shards of a directory, opened with the keys at hand. Raises DataDirectoryRefused, KeyFileRefused."""
    from fastrunner.data.inspection import shard_files
    from fastrunner.engine.embedded.store.manifest import check_keys, read_sealing_keys, read_shard_count

    folder, keys = settings.data_dir, _keys(settings)
    if needs_keys or keys is not None:
        check_keys(folder, read_sealing_keys(folder), {} if keys is None else keys.fingerprints())
    return shard_files(folder, read_shard_count(folder), keys)


def _events(settings: "DataSettings") -> "list[CloudEventsFile]":
    """The events' file, if there is one; of the directory whose `_shards` have been taken. Raises KeyFileRefused."""
    from fastrunner.data.cloud_events import cloud_events_file

    return cloud_events_file(settings.data_dir, _keys(settings))


def line(fields: dict[str, Any]) -> str:
    import orjson

    return escaped_json(orjson.dumps(fields).decode())


# --- check ---


@data.command()
@data_dir_option
@json_option
def check(data_dir: Path | None, as_json: bool) -> None:
    """Look for damage in shards, events, schedules and the registry of workflows: pages, checksums, what must hold
    between rows, and executions that live in several shards.

    Exits with 0 if everything is what was written, 1 with a list of what is not. Beside a running runner it holds back
    the folding of the journal for as long as it reads a shard. Without the keys of a sealed directory it checks
    checksums, and says so.
    """
    from fastrunner.data.inspection import doubled
    from fastrunner.data.schedules import schedule_rows
    from fastrunner.engine.embedded.store.manifest import read_sealing_keys
    from fastrunner.registry import inspection as registry

    settings = settings_of(data_dir)
    with refusals():
        shards = _shards(settings)
        others = [*_events(settings), *schedule_rows(settings.data_dir, _keys(settings))]
        is_closed = settings.data_key_file is None and bool(read_sealing_keys(settings.data_dir))
        rows = sum(file.count_rows() for file in (*shards, *others)) + registry.count_rows(settings.data_dir)
        found = 0
        findings: list[tuple[str, Damage]] = []
        with progress(rows, "checking", hidden=as_json) as advance:
            findings += [(file.path.name, damage) for file in (*shards, *others) for damage in file.check(advance)]
            findings += [(shard.path.name, damage) for shard, damage in doubled(shards)]
            findings += [(registry.FILE_NAME, damage) for damage in registry.check(settings.data_dir, advance)]
    for file, damage in findings:
        found += 1
        if as_json:
            fields = {"file": file, "table": damage.table, "execution_id": damage.execution_id}
            click.echo(line({**fields, "detail": damage.detail}))
        else:
            whose = f" execution {damage.execution_id}:" if damage.execution_id else ""
            click.echo(printable(f"{file} {damage.table}:{whose} {damage.detail}"))
    click.echo(f"{len(shards)} shards, {rows} rows: {found or 'nothing'} damaged", err=True)
    if is_closed:
        click.echo("of sealed values only the checksums were checked: FASTRUNNER_DATA_KEY_FILE is not set", err=True)
    sys.exit(EXIT_DAMAGED if found else 0)


@contextmanager
def progress(length: int, label: str, hidden: bool) -> Iterator[Callable[[int], None]]:
    if hidden or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update


# --- compact ---


@data.command()
@data_dir_option
@json_option
def compact(data_dir: Path | None, as_json: bool) -> None:
    """Give free space within the files back to the disk; rebuilds indexes.

    Refused while a runner uses the directory. Needs room for the largest shard twice.
    """
    from fastrunner.engine.embedded.store.manifest import open_data_directory, read_shard_count

    settings = settings_of(data_dir)
    with refusals():
        held = open_data_directory(settings.data_dir, read_shard_count(settings.data_dir))
        try:
            for shard in (*_shards(settings), *_events(settings)):
                sizes = shard.compact()
                if as_json:
                    fields = {"shard": shard.path.name, "before_bytes": sizes.before, "after_bytes": sizes.after}
                    click.echo(line(fields))
                else:
                    click.echo(f"{shard.path.name}  {in_mib(sizes.before)} -> {in_mib(sizes.after)}")
        finally:
            held.close()


def in_mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"


# --- sealing ---


@data.command()
@data_dir_option
@json_option
def rekey(data_dir: Path | None, as_json: bool) -> None:
    """Seal everything with the first key of FASTRUNNER_DATA_KEY_FILE, whatever it was sealed with, or was not.

    Refused while a runner uses the directory. May be broken off and started again. Needs room for the largest shard
    twice. Afterwards the other keys are needed no more; exits with 1, and keeps them needed, if rows were damaged.
    """
    from fastrunner.data.resealing import reseal as reseal_shard
    from fastrunner.engine.embedded.store.manifest import keep_only_key, open_data_directory, read_shard_count
    from fastrunner.events.schedules.file import SchedulesFile

    settings = settings_of(data_dir)
    folder = settings.data_dir
    found = 0
    with refusals():
        keys = _keys(settings)
        if keys is None:
            raise click.UsageError("FASTRUNNER_DATA_KEY_FILE is not set: set it to the file whose first key is to seal")
        held = open_data_directory(folder, read_shard_count(folder), keys.fingerprints())
        try:
            shards, others = _shards(settings), _events(settings)
            rows = sum(file.count_rows() for file in (*shards, *others))
            findings: list[tuple[str, Damage]] = []
            with progress(rows, "sealing", hidden=as_json) as advance:
                findings += [(shard.path.name, each) for shard in shards for each in reseal_shard(shard, advance)]
                findings += [(file.path.name, each) for file in others for each in file.reseal(advance)]
            with closing(SchedulesFile(folder, keys)) as schedules:
                findings += [(schedules.path.name, each) for each in schedules.reseal()]
            if not findings:
                keep_only_key(folder, keys.first_id)
        finally:
            held.close()
    for name, damage in findings:
        found += 1
        if as_json:
            click.echo(line({"shard": name, "table": damage.table, "detail": damage.detail}))
        else:
            click.echo(printable(f"{name} {damage.table}: {damage.detail}"))
    click.echo(f"{len(shards)} shards sealed with the key {keys.first_id}, {found or 'no'} rows left out", err=True)
    sys.exit(EXIT_DAMAGED if found else 0)


@data.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--id", "key_id", default=None, help="Its id; default: the date, as in 2026-11-29.")
def key(file: Path, key_id: str | None) -> None:
    """Make a key that seals data directories, as the first one of FILE; those that are there stay, to open what they
    have sealed.

    FILE is made if need be; nobody but its owner may read it. Keep a copy: without the key nothing that was sealed with
    it can be had again.
    """
    from fastrunner.access.sealing import add_key
    from fastrunner.base.clock import wall_ms

    key_id = key_id or datetime.fromtimestamp(wall_ms() / 1000, UTC).date().isoformat()
    with refusals():
        add_key(file, key_id)
    click.echo(f"{file}: new values are sealed with the key {key_id} once a runner is started with this file", err=True)


# --- export ---


@data.command()
@data_dir_option
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
    with refusals():
        for shard in _shards(settings_of(data_dir), needs_keys=True):
            for fields in shard.export(query, with_events):
                if with_events:
                    fields["events"] = [_event(message) for message in fields["events"]]
                output.write(line(fields) + "\n")
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
