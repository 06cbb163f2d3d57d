"""Support: `fastrunner data backup` and `restore`."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click

from fastrunner.base.printable import printable
from fastrunner.cli.data import data_dir_option, in_mib, json_option, line, progress, refusals, settings_of

__all__ = ["backup", "restore"]


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@data_dir_option
@json_option
def backup(target: Path, data_dir: Path | None, as_json: bool) -> None:
    """Copy a data directory, also of a running runner, to the folder TARGET, which is not there yet.

    Everything that was acknowledged before is in it, as of one moment over all shards. Meanwhile the journals are not
    folded in, so they grow by what is written. Broken off, it leaves no TARGET. Sealed values stay sealed: keep the
    file of keys, too, elsewhere.
    """
    from fastrunner.data.backup import backup as copy

    settings = settings_of(data_dir)
    with refusals(), ExitStack() as shown:
        copied = copy(settings.data_dir, target, _begun(shown, "copying", as_json))
    _tell(target, copied.files, copied.size_bytes, as_json)


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@data_dir_option
@click.option("--from", "url", default=None, help="Restore the copy at this FASTRUNNER_REPLICA_URL.")
@click.option("--generation", default="", help="With --from: which generation; default: the one written last.")
@json_option
def restore(folder: Path | None, data_dir: Path | None, url: str | None, generation: str, as_json: bool) -> None:
    """Put the backup FOLDER where a runner will look for it: into a data directory that is not there, or empty.

    With --from URL, make a data directory, FOLDER or the runner's own, of the copy that a runner has sent there, as of
    the last moment that is in it, and say when that was.

    Then check it (`fastrunner data check`) and start the runner. Executions go on where the backup has them: effects
    performed since then are performed again with the same idempotency keys, and events sent since are sent again.
    Broken off, start it again: until it has ended no runner starts there.
    """
    from fastrunner.data.backup import restore as copy

    if url is not None:
        target = folder or data_dir
        _restore_from(url, generation, settings_of(target).data_dir, as_json)
        return
    if generation:
        raise click.UsageError("--generation is of a copy elsewhere: give --from, too")
    if folder is None:
        raise click.UsageError("name the folder of a backup, or a copy elsewhere with --from")
    if not folder.is_dir():
        raise click.UsageError(f"{folder} is no folder: name that of a backup")
    settings = settings_of(data_dir)
    with refusals(), ExitStack() as shown:
        copied = copy(folder, settings.data_dir, _begun(shown, "restoring", as_json))
    _tell(settings.data_dir, copied.files, copied.size_bytes, as_json)


def _restore_from(url: str, generation: str, folder: Path, as_json: bool) -> None:
    from fastrunner.base.stores import checked_url
    from fastrunner.blobs import open_store
    from fastrunner.errors import StorageFailed
    from fastrunner.replica.restoring import restore_copy

    try:
        store = open_store(checked_url(url))
    except ValueError as error:
        raise click.UsageError(f"--from {url}: {error}") from None
    with refusals(), ExitStack() as shown:
        try:
            restored = asyncio.run(restore_copy(store, folder, _begun(shown, "restoring", as_json), generation))
        except StorageFailed as error:
            raise OSError(str(error)) from None
    until = _moment(restored.until_ms)
    if as_json:
        fields = {"folder": str(folder), "generation": restored.generation, "until": until}
        changed = {name: _moment(time_ms) for name, time_ms in sorted(restored.changed_ms.items())}
        click.echo(
            line({**fields, "changed": changed, "size_bytes": restored.size_bytes, "left_out": restored.left_out})
        )
        return
    click.echo(f"{folder}: {len(restored.changed_ms)} files, {in_mib(restored.size_bytes)}, of {restored.generation}")
    click.echo(f"everything that was acknowledged before {until} is there")
    for name, time_ms in sorted(restored.changed_ms.items()):
        click.echo(f"  {name}  last changed in what was sent at {_moment(time_ms)}")
    for sentence in restored.left_out:
        click.echo(printable(f"left out: {sentence}"))


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _begun(shown: ExitStack, label: str, hidden: bool) -> Callable[[int], Callable[[int], None]]:
    return lambda length: shown.enter_context(progress(length, label, hidden))


def _tell(folder: Path, files: int, size_bytes: int, as_json: bool) -> None:
    if as_json:
        click.echo(line({"folder": str(folder), "files": files, "size_bytes": size_bytes}))
    else:
        click.echo(f"{folder}: {files} files, {in_mib(size_bytes)}")
