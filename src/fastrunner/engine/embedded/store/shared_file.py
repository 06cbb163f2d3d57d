"""Stage 3, journal: a file of the data directory that all processes of a runner read and write.

Rules:
- Writers take turns by a lock file, in the order in which they come: SQLite alone would have them try again and again,
  and one would starve. The lock goes with its process, so nobody waits for a killed one.
- A write transaction is durable when it returns; it blocks for its fsync, so nobody calls it on the loop. Look-ups are
  short keyed reads of the last commit.
- A connection is opened when it is first needed, and again after it could not be: a disk that fails for a while refuses
  what needs the file, and nothing else.
- What is written into a file that is not where it was is lost with the process: it is refused. The lock file says
  whether the file has been made: where it is missing then, it is not begun anew in silence.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import apsw

from fastrunner.base import limits
from fastrunner.base.folders import GONE, Identity, identity_of
from fastrunner.engine.embedded.store import faults
from fastrunner.engine.embedded.store.connection import connect
from fastrunner.engine.embedded.store.journal_keeper import JournalKeeper
from fastrunner.engine.embedded.store.statements import named
from fastrunner.errors import StorageFailed, StorageFull

__all__ = ["SharedFile", "identity_of_database", "missing"]

T = TypeVar("T")

_QUERIES: Final[Mapping[str, str]] = named("shared")
_IS_MADE: Final = b"made"
_HEADER_SIZE_BYTES: Final = 100
"""SQLite takes a shorter file for a new one."""


def identity_of_database(path: Path) -> Identity | None:
    """As `identity_of`; None for a file that has been emptied, too."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return None if facts.st_size < _HEADER_SIZE_BYTES else (facts.st_dev, facts.st_ino)


def missing(path: Path) -> str:
    """Why such a file is not begun anew, in words; empty if it is there, or has never been."""
    lock = path.with_suffix(".lock")
    try:
        has_been = lock.stat().st_size > 0
    except OSError:
        return ""
    if identity_of_database(path) is not None or not has_been:
        return ""
    return (
        f"{path} is {'empty' if path.exists() else 'missing'}, and {lock.name} beside it says that there was more: "
        f"stop the runner and restore it from a backup, or remove {lock.name} to go on without what it held"
    )


class SharedFile:
    """One connection to such a file; it belongs to one thread. Every method raises StorageFailed or StorageFull."""

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        """`schema` are scripts; the n-th makes schema version n of version n - 1."""
        self.path = path
        self._schema = schema
        self._connection: apsw.Connection | None = None
        self._lock: BinaryIO | None = None
        self._keeper: JournalKeeper | None = None
        self._identities = {each: identity_of(each) for each in (path.parent,) if each.exists()}
        """Of the folder, and of the files that the connection has open."""

    def tried(self, action: Callable[[apsw.Connection], T]) -> T:
        """What an action on the file gives."""
        try:
            return action(self._db())
        except (apsw.Error, OSError) as error:
            raise self._refusal(error) from error

    def written(self, action: Callable[[apsw.Connection], T]) -> T:
        """The same of one whose writes are one transaction, durable now."""
        return self.tried(lambda db: self._written(db, action))

    def close(self) -> None:
        """Gives the file back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            # Its journal goes with the last connection.
            for path in self._files:
                self._identities.pop(path, None)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def journal_pages_max(self) -> int:
        """From how many pages on its journal is folded into it."""
        return limits.SHARED_JOURNAL_PAGES_MAX

    @property
    def may_be_lost(self) -> bool:
        """Whether a new file may take the place of one that is missing."""
        return False

    def prepare(self, db: apsw.Connection) -> None:
        """What a file needs beside its schema, within the lock; for whoever has such."""

    def _db(self) -> apsw.Connection:
        self._look()
        if self._connection is None:
            if self._lock is None:
                self._lock = self.path.with_suffix(".lock").open("ab")
            # One after the other: who makes the file a journal of its kind waits for nobody who does the same.
            with _turn(self._lock):
                if lost := missing(self.path):
                    raise StorageFailed(lost, limits.COMMIT_RETRY_DELAY_S_MAX)
                self._connection = self._prepared(connect(self.path))
                self._identities |= {path: identity_of(path) for path in self._files if path.exists()}
                if not self.may_be_lost and not self._lock.tell():
                    self._lock.write(_IS_MADE)
                    self._lock.flush()
        return self._connection

    def _look(self) -> None:
        """Raises StorageFailed if something is not where it was."""
        for path, identity in self._identities.items():
            found = identity_of_database(path) if path == self.path else identity_of(path)
            if found != identity:
                raise StorageFailed(GONE.format(path), limits.COMMIT_RETRY_DELAY_S_MAX)

    @property
    def _files(self) -> list[Path]:
        return [self.path.with_name(f"{self.path.name}{ending}") for ending in ("", "-wal", "-shm")]

    def _prepared(self, connection: apsw.Connection) -> apsw.Connection:
        try:
            connection.set_busy_timeout(limits.SHARED_FILE_WAIT_MS_MAX)
            version = int(connection.execute(_QUERIES["schema_version"]).get)
            if version > len(self._schema):
                raise StorageFailed(
                    f"{self.path} has schema version {version}, this version of fastrunner reads up to "
                    f"{len(self._schema)}: run the version that wrote it, or a newer one"
                )
            connection.execute(_QUERIES["journal"]).fetchall()
            connection.execute(_QUERIES["durable"]).fetchall()
            self._keeper = JournalKeeper.of(self.path, connection, self.journal_pages_max)
            for script in self._schema[version:]:
                connection.execute(script).fetchall()
            self.prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _written(self, db: apsw.Connection, action: Callable[[apsw.Connection], T]) -> T:
        assert self._lock is not None, "it is opened with the connection"
        with _turn(self._lock):
            db.execute(_QUERIES["begin"])
            try:
                outcome = action(db)
                db.execute(_QUERIES["commit"])
                if self._keeper is not None:
                    self._keeper.committed()
            except BaseException:
                if db.in_transaction:
                    db.execute(_QUERIES["rollback"])
                raise
        return outcome

    def _refusal(self, error: Exception) -> StorageFailed | StorageFull:
        refusal = faults.refusal_of(error, self.path.name, limits.COMMIT_RETRY_DELAY_S_MAX)
        return refusal or StorageFailed(f"{self.path.name} cannot be used: {error}")


@contextmanager
def _turn(lock: BinaryIO) -> Iterator[None]:
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)
