"""Support: `fastrunner data backup` and `restore`."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

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
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_dir_option
@json_option
def restore(source: Path, data_dir: Path | None, as_json: bool) -> None:
    """Put a backup where a runner will look for it: into a data directory that is not there, or empty.

    Then check it (`fastrunner data check`) and start the runner. Executions go on where the backup has them: effects
    performed since then are performed again with the same idempotency keys, and events sent since are sent again.
    Broken off, start it again: until it has ended no runner starts there.
    """
    from fastrunner.data.backup import restore as copy

    settings = settings_of(data_dir)
    with refusals(), ExitStack() as shown:
        copied = copy(source, settings.data_dir, _begun(shown, "restoring", as_json))
    _tell(settings.data_dir, copied.files, copied.size_bytes, as_json)


def _begun(shown: ExitStack, label: str, hidden: bool) -> Callable[[int], Callable[[int], None]]:
    return lambda length: shown.enter_context(progress(length, label, hidden))


def _tell(folder: Path, files: int, size_bytes: int, as_json: bool) -> None:
    if as_json:
        click.echo(line({"folder": str(folder), "files": files, "size_bytes": size_bytes}))
    else:
        click.echo(f"{folder}: {files} files, {in_mib(size_bytes)}")
