"""Stage 3, journal: folds a file's journal (`-wal`) where the copy elsewhere follows it.

SQLite writes a journal from its beginning once everything in it is in the file. With a copy elsewhere nobody lets it
fold by itself: who writes a file folds its journal, between two commits, and copies it just before. So a round of a
journal that is over has a kept journal with every frame of it, and whoever follows the frames misses none.

Rules: nobody waits for the copy: what is kept is bounded, and goes, as a whole, where the bound or the disk's is
reached. Whoever follows finds that its frames are gone, and begins anew.
"""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import apsw

from fastrunner.base import limits
from fastrunner.engine.embedded.store.disk import room
from fastrunner.engine.embedded.store.kept_journals import FOLDER_NAME, KeptJournal, is_kept, kept_journals, name_of

__all__ = ["JournalKeeper"]

_log = logging.getLogger(__name__)

_HEADER: Final = struct.Struct(">III4x8s")
_HEADER_SIZE_BYTES: Final = 32
_FRAME_HEADER_SIZE_BYTES: Final = 24
_COPIED_AT_ONCE_BYTES: Final = 1 << 20


class JournalKeeper:
    """Folds the journal of one file for a connection that writes it. Belongs to the thread that commits."""

    def __init__(self, path: Path, db: apsw.Connection, pages_max: int) -> None:
        """Has SQLite fold nothing by itself any more. Raises apsw.Error."""
        self._path = path
        self._db = db
        self.pages_max = pages_max
        """From how many pages on the journal is folded."""
        db.wal_autocheckpoint(0)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._since = -self._frames()

    @classmethod
    def of(cls, path: Path, db: apsw.Connection, pages_max: int) -> Self | None:
        """None if the journal is not kept: then SQLite folds it. Raises apsw.Error."""
        if is_kept(path):
            return cls(path, db, pages_max)
        db.wal_autocheckpoint(pages_max)
        return None

    def committed(self) -> None:
        """Call after each commit, while nobody else can begin one. A journal that cannot be folded is folded later."""
        written = self._written()
        if written - self._since < self.pages_max:
            return
        self._since = written
        try:
            frames = self._frames()
            if frames:
                self._keep(frames)
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            _log.warning("the journal of %s cannot be folded now: %s", self._path.name, error)

    def _written(self) -> int:
        """Pages that this connection has written into journals."""
        return int(self._db.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0])

    def _frames(self) -> int:
        """Frames in the journal; -1 is SQLite's for a file without one."""
        return max(0, self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0])

    def _keep(self, frames: int) -> None:
        """Copies the journal's frames that are not kept yet, or drops what is kept."""
        kept = kept_journals(self._path)
        try:
            if self._has_room(kept):
                self._copy(frames, kept)
                return
            if kept:
                _log.warning("journals of %s are kept no longer: the copy elsewhere is too far behind", self._path.name)
        except OSError as error:
            _log.warning("the journal of %s cannot be kept: %s", self._path.name, error.strerror)
        for each in kept_journals(self._path):
            each.path.unlink(missing_ok=True)

    def _has_room(self, kept: list[KeptJournal]) -> bool:
        # The copy deletes what it has read.
        size_bytes = sum(size for each in kept for size in _size_of(each.path))
        if size_bytes > limits.REPLICA_KEPT_SIZE_BYTES_MAX:
            return False
        found = room(self._path.parent)
        return found is None or found.free_bytes >= found.reserve_bytes

    def _copy(self, frames: int, kept: list[KeptJournal]) -> None:
        with self._path.with_name(f"{self._path.name}-wal").open("rb") as journal:
            _, _, page_size, salts = _HEADER.unpack(journal.read(_HEADER.size))
            frame_size = _FRAME_HEADER_SIZE_BYTES + page_size
            before = next((each for each in kept if each.salts == salts), None)
            target = self._path.parent / FOLDER_NAME / name_of(self._path, salts, frames)
            source = target.with_suffix(".new") if before is None else before.path
            start = 0 if before is None else _HEADER_SIZE_BYTES + before.frames * frame_size
            journal.seek(start)
            left = _HEADER_SIZE_BYTES + frames * frame_size - start
            with source.open("wb" if before is None else "r+b") as file:
                file.seek(start)
                while left > 0:
                    data = journal.read(min(left, _COPIED_AT_ONCE_BYTES))
                    if not data:
                        raise OSError(0, "it is shorter than its index says")
                    file.write(data)
                    left -= len(data)
        # The name comes last: it says what is whole.
        source.rename(target)


def _size_of(path: Path) -> Iterator[int]:
    try:
        yield path.stat().st_size
    except FileNotFoundError:
        return
