"""Support: whole files as of a known place in their journals: with what a generation of the copy begins.

Rules: each file is copied as of one read transaction, of which it is known where in the journal it stands. They begin
in the order of a backup's. Descriptors of an index stay open until the connections are closed (see `journals.py`). A
shard is opened only beside its owner, who looks at the journal as a crash has left it before anybody else does.
"""

import fcntl
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from fastrunner.base import limits
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect, connect_to_still_file
from fastrunner.engine.embedded.store.kept_journals import FOLDER_NAME
from fastrunner.engine.embedded.store.statements import named
from fastrunner.engine.embedded.store.wal_check import read_mark
from fastrunner.replica.journals import START, NotNow, Position
from fastrunner.replica.parts import FilePages

__all__ = ["Snapshot", "discard", "discard_all", "take_snapshots"]

_QUERIES: Final = named("inspect")
_PREFIX: Final = "snapshots-"
_PAGES_AT_ONCE: Final = 1024
_LOOKS_MAX: Final = 100
_FLOCK: Final = struct.Struct("hhqqi")
_OPENED_BYTE: Final = 128
"""Of an index: whoever has the file open holds a lock on it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of a file."""

    name: str
    """The file's."""
    path: Path
    """Where the copy is."""
    position: Position
    """What it is as of."""
    page_size_bytes: int
    """Of its pages."""
    pages_count: int
    """How many they are."""

    def pieces(self) -> Iterator[FilePages]:
        """Its pages, in their order. Raises OSError."""
        at_once = max(1, limits.REPLICA_PART_SIZE_BYTES_MAX // self.page_size_bytes)
        size = self.page_size_bytes
        with self.path.open("rb") as file:
            for first in range(1, self.pages_count + 1, at_once):
                data = file.read(at_once * size)
                pages = {first + at // size: data[at : at + size] for at in range(0, len(data), size)}
                yield FilePages(size, pages, self.pages_count, is_whole=first == 1)


def discard_all(folder: Path) -> None:
    """Deletes what was left of copies of a data directory's files. Call when none is under way."""
    for place in (folder / FOLDER_NAME).glob(f"{_PREFIX}*"):
        shutil.rmtree(place, ignore_errors=True)


def discard(snapshots: Sequence[Snapshot]) -> None:
    """Deletes copies that were taken at once."""
    for place in {each.path.parent for each in snapshots}:
        shutil.rmtree(place, ignore_errors=True)


def take_snapshots(paths: Sequence[Path]) -> list[Snapshot]:
    """Copies of files as of one moment, which differs by some milliseconds between them. Raises NotNow, apsw.Error,
    OSError."""
    folder = paths[0].parent
    size_bytes = sum(_size_of(path) for path in paths)
    free_bytes = shutil.disk_usage(folder).free - limits.DISK_FREE_SIZE_BYTES_MIN
    if size_bytes > free_bytes:
        raise NotNow(f"the disk of {folder} has no room for a copy of {size_bytes} bytes, with which the copy begins")
    place = Path(mkdtemp(prefix=_PREFIX, dir=folder / FOLDER_NAME))
    try:
        with ExitStack() as held:
            sources = [_Source(path, held) for path in paths]
            return [source.copied(place) for source in sources]
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _size_of(path: Path) -> int:
    journal = path.with_name(f"{path.name}-wal")
    return path.stat().st_size + (journal.stat().st_size if journal.exists() else 0)


class _Source:
    """A file on which a read transaction has begun, which lasts as long as `held`."""

    def __init__(self, path: Path, held: ExitStack) -> None:
        self._path = path
        self._state = path.stat()
        journal = path.with_name(f"{path.name}-wal")
        if path.with_name(f"{path.name}-journal").exists():
            raise NotNow(f"{path.name} is just being made")
        self._is_still = not journal.exists() or not journal.stat().st_size
        if self._is_still:
            self._db = held.enter_context(closing(connect_to_still_file(path)))
            self._begin()
            self._position = START
            return
        if path.name.startswith("shard-") and not _is_open(path, held):
            raise NotNow(f"{path.name} has no owner at the moment")
        # Its descriptors of the index are closed after the connection.
        indexes = held.enter_context(ExitStack())
        self._db = held.enter_context(closing(connect(path, READ_ONLY)))
        self._position = self._known_begin(indexes)

    def _begin(self) -> None:
        self._db.execute(_QUERIES["begin"])
        self.pages_count = int(self._db.execute(_QUERIES["page_count"]).get)

    def _known_begin(self, indexes: ExitStack) -> Position:
        """Begins; gives the place in the journal. Raises NotNow."""
        # The first look has the index made, should there be none.
        self._begin()
        for _ in range(_LOOKS_MAX):
            self._db.execute(_QUERIES["rollback"])
            before = read_mark(self._path, indexes)
            self._begin()
            after = read_mark(self._path, indexes)
            if before is not None and before == after:
                return Position(before.salts, before.frames, before.sums) if before.frames else START
        raise NotNow(f"{self._path.name} is written too fast to tell its place")

    def copied(self, place: Path) -> Snapshot:
        """Copies it into a folder. Raises NotNow if it was opened by somebody meanwhile."""
        target = place / self._path.name
        with closing(connect(target)) as db, db.backup("main", self._db, "main") as copying:
            while not copying.done:
                copying.step(_PAGES_AT_ONCE)
        now = self._path.stat()
        if self._is_still and (now.st_mtime_ns, now.st_size) != (self._state.st_mtime_ns, self._state.st_size):
            raise NotNow(f"{self._path.name} was opened by a runner just when its copy began")
        page_size = target.stat().st_size // self.pages_count
        return Snapshot(self._path.name, target, self._position, page_size, self.pages_count)


def _is_open(path: Path, held: ExitStack) -> bool:
    """Whether another process has a file open, which is asked without taking any lock."""
    try:
        index = held.enter_context(path.with_name(f"{path.name}-shm").open("rb"))
    except FileNotFoundError:
        return False
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _OPENED_BYTE, 1, 0)
    answer = _FLOCK.unpack(fcntl.fcntl(index, fcntl.F_GETLK, question))
    return bool(answer[0] != fcntl.F_UNLCK)
