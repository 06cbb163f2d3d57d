"""Support: a data directory copied while a runner uses it, and put back, for `fastrunner data backup` and `restore`.

Rules: every file is copied as of one read transaction, and all of those begin within some milliseconds, before the
first page is copied. What may be older than the shards begins before them, and what may be newer after them: a
schedule that fired once more asks for an execution that is there, an event that was read is there to be read again.
A copy without a manifest is none: the manifest comes last, and a folder has its name only when it is whole on disk.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastrunner.data.files import naming
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect, connect_to_still_file
from fastrunner.engine.embedded.store.manifest import (
    LOCK_NAME,
    MANIFEST_NAME,
    DataDirectoryRefused,
    locked,
    read_shard_count,
)
from fastrunner.engine.embedded.store.shared_file import identity_of_database
from fastrunner.engine.embedded.store.statements import named
from fastrunner.events.file import FILE_NAME as EVENTS
from fastrunner.events.lifecycle.positions import FILE_NAME as POSITIONS
from fastrunner.events.schedules.file import FILE_NAME as SCHEDULES
from fastrunner.registry.file import FILE_NAME as REGISTRY

__all__ = ["Copied", "backup", "files_in", "restore"]

_QUERIES: Final = named("inspect")
_BEFORE: Final = (SCHEDULES, POSITIONS)
_AFTER: Final = (REGISTRY, EVENTS)
_PAGES_AT_ONCE: Final = 1024
_PARTIAL: Final = ".partial"
_LEFT: Final = re.compile(
    rf"shard-\d{{4,}}\.db|{re.escape(MANIFEST_NAME)}\.new|" + "|".join(map(re.escape, (*_BEFORE, *_AFTER)))
)
"""What a restore that was broken off may have left."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """What has been copied."""

    files: int
    """How many files, the manifest included."""
    size_bytes: int
    """What they take."""


def backup(folder: Path, target: Path, begun: Callable[[int], Advance]) -> Copied:
    """Copies a data directory, also of a running runner, to a folder that is not there yet, with all that was
    acknowledged before it was called.

    `begun` is told how many pages there are, and gives whom to tell of those that are copied. Raises
    DataDirectoryRefused, apsw.Error, OSError; there is no such folder then.
    """
    shard_count = read_shard_count(folder)
    if target.exists():
        raise DataDirectoryRefused(f"{target} is there already: name a folder that is not, or delete it")
    if target.resolve().is_relative_to(folder.resolve()):
        raise DataDirectoryRefused(f"{target} is in the data directory, and would be lost with it: name one elsewhere")
    manifest = (folder / MANIFEST_NAME).read_bytes()
    draft = target.with_name(target.name + _PARTIAL)
    if draft.exists():
        # Of a backup that was broken off.
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700, parents=True)
    try:
        with ExitStack() as held:
            sources = [held.enter_context(_Source(path)) for path in files_in(folder, shard_count)]
            advance = begun(sum(source.page_count for source in sources))
            for source in sources:
                source.copy(draft / source.path.name, advance)
        _write(draft / MANIFEST_NAME, manifest)
        _sync(draft)
        draft.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return _copied(target)


def files_in(folder: Path, shard_count: int) -> Iterator[Path]:
    """The files of a data directory, in the order in which they are to be looked at, so that what is found in them
    belongs together. Raises DataDirectoryRefused for a shard that is missing."""
    yield from (folder / name for name in _BEFORE if (folder / name).exists())
    for number in range(shard_count):
        path = folder / f"shard-{number:04d}.db"
        if identity_of_database(path) is None:
            what = "empty" if path.exists() else "missing"
            raise DataDirectoryRefused(f"{path} is {what}: `fastrunner data check` tells what else is wrong")
        yield path
    yield from (folder / name for name in _AFTER if (folder / name).exists())


class _Source:
    """A file on which a read transaction has begun. A context manager. Raises apsw.Error, OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # To open a file that nobody writes as any other would leave an empty journal beside it.
        self._is_still = not path.with_name(f"{path.name}-wal").exists()
        self._stat = path.stat()
        self._db = connect_to_still_file(path) if self._is_still else connect(path, READ_ONLY)

    def __enter__(self) -> "_Source":
        with naming(self.path):
            self._db.execute(_QUERIES["begin"])
            # The transaction takes its snapshot with the first page that it reads.
            self.page_count = int(self._db.execute(_QUERIES["page_count"]).get)
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def copy(self, target: Path, advance: Advance) -> None:
        """Copies page by page, as of the transaction, and syncs. Raises DataDirectoryRefused too."""
        with naming(self.path), closing(connect(target)) as db:
            target.chmod(0o600)
            with db.backup("main", self._db, "main") as copying:
                left = self.page_count
                while not copying.done:
                    copying.step(_PAGES_AT_ONCE)
                    advance(left - copying.remaining)
                    left = copying.remaining
        stat = self.path.stat()
        if self._is_still and (stat.st_mtime_ns, stat.st_size) != (self._stat.st_mtime_ns, self._stat.st_size):
            raise DataDirectoryRefused(f"{self.path} was written while it was copied: try again")
        _sync(target)


def restore(source: Path, folder: Path, begun: Callable[[int], Advance]) -> Copied:
    """Copies a backup to where a runner will look for it: a folder that is not there, is empty, or is what a restore
    that was broken off has left.

    `begun` is told how many bytes there are. Raises DataDirectoryRefused, OSError.
    """
    shard_count = read_shard_count(source)
    files = [path.name for path in files_in(source, shard_count)]
    for name in files:
        journal = source / f"{name}-wal"
        if journal.exists() and journal.stat().st_size:
            raise DataDirectoryRefused(f"{source} is no backup: {journal.name} shows that a runner has worked on it")
    if folder.resolve().is_relative_to(source.resolve()):
        raise DataDirectoryRefused(f"{folder} is the backup itself, or in it: name another folder with --data-dir")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(folder):
        if (folder / MANIFEST_NAME).exists():
            raise DataDirectoryRefused(f"{folder} is a data directory already: move it away, or name another folder")
        for path in folder.iterdir():
            if path.name != LOCK_NAME and not _LEFT.fullmatch(path.name):
                raise DataDirectoryRefused(f"{folder} is not empty ({path.name} is in it): name a folder that is")
        for path in folder.glob("*.db"):
            path.unlink()
        advance = begun(sum((source / name).stat().st_size for name in files))
        for name in files:
            shutil.copyfile(source / name, folder / name)
            (folder / name).chmod(0o600)
            _sync(folder / name)
            advance((folder / name).stat().st_size)
        _sync(folder)
        _write(folder / MANIFEST_NAME, (source / MANIFEST_NAME).read_bytes())
        _sync(folder)
    return _copied(folder)


def _copied(folder: Path) -> Copied:
    paths = [folder / MANIFEST_NAME, *folder.glob("*.db")]
    return Copied(len(paths), sum(path.stat().st_size for path in paths))


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    _sync(draft)
    draft.rename(path)


def _sync(path: Path) -> None:
    """Has a file, or a folder's list of names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
