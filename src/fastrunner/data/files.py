"""Support: files of a data directory, read whole from outside for `fastrunner data`: shards, and events.

Rules: a file is read in one read-only transaction, so a running owner does not notice and nothing half-written is seen.
One without a journal is read without making one, and its state tells whether it was written meanwhile.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import apsw

from fastrunner.engine.embedded.store.connection import (
    READ_ONLY,
    READ_WRITE,
    connect,
    connect_to_still_file,
    read_each,
)
from fastrunner.engine.embedded.store.faults import is_corrupt
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.engine.embedded.store.statements import named

__all__ = ["DataFile", "SharedDataFile", "Sizes", "check_integrity", "guarded", "naming"]

_QUERIES = named("inspect")


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a file takes on disk, journal included, in bytes."""

    before: int
    """Before it was compacted."""
    after: int
    """Afterwards."""


class DataFile(ABC):
    """One file, looked at from outside."""

    schema_version: ClassVar[int]
    """The one that is read."""

    def __init__(self, path: Path, seals: Seals) -> None:
        self.path = path
        self.seals = seals

    @abstractmethod
    def count_rows(self) -> int:
        """How many rows `check` goes through; 0 if they cannot be counted. Raises DataDirectoryRefused."""

    @abstractmethod
    def check(self, advance: Callable[[int], None]) -> Iterator[Damage]:
        """Everything wrong with the file; `advance` hears of each row. Raises DataDirectoryRefused."""

    def open(self, flags: int, *, still: bool = False) -> apsw.Connection:
        """A connection. Raises DataDirectoryRefused for another schema version, apsw.Error."""
        db = connect_to_still_file(self.path) if still else connect(self.path, flags)
        try:
            version = int(db.execute(_QUERIES["schema_version"]).get)
            if version > self.schema_version:
                raise DataDirectoryRefused(
                    f"{self.path} has schema version {version}, this version of fastrunner reads up to "
                    f"{self.schema_version}: use the version that wrote it, or a newer one"
                )
            if version < self.schema_version:
                raise DataDirectoryRefused(
                    f"{self.path} has schema version {version}, this version of fastrunner has {self.schema_version}: "
                    "start the runner on it once, which brings it up to date"
                )
        except BaseException:
            db.close()
            raise
        return db

    def state(self) -> tuple[int, int] | None:
        """Of a file without a journal its time and size: as long as they stay, nobody writes it. None with a journal.

        To read such a file as any other would leave an empty journal beside it, or fail where nothing can be written.
        """
        if self.path.with_name(f"{self.path.name}-wal").exists():
            return None
        state = self.path.stat()
        return state.st_mtime_ns, state.st_size

    def snapshot(self, *, still: bool) -> apsw.Connection:
        """A connection on which a read transaction has begun. Raises as `open`."""
        db = self.open(READ_ONLY, still=still)
        db.execute(_QUERIES["begin"])
        return db

    def compact(self) -> Sizes:
        """Writes the file anew without its free space. Hold the directory's lock. Raises as `export`."""
        before = self.size_bytes()
        with naming(self.path), closing(self.open(READ_WRITE)) as db:
            db.execute(_QUERIES["vacuum"])
            db.execute(_QUERIES["checkpoint"])
        return Sizes(before, self.size_bytes())

    def size_bytes(self) -> int:
        """What the file and its journal take."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


class SharedDataFile(DataFile):
    """One that all workers write: its tables are checked one after the other."""

    tables: ClassVar[Sequence[str]]
    """What they are called in findings."""
    count_statement: ClassVar[str]
    """Counts what `check` goes through."""

    @abstractmethod
    def check_table(self, db: apsw.Connection, table: str, advance: Callable[[int], None]) -> Iterator[Damage]:
        """Everything wrong with the rows of one."""

    def count_rows(self) -> int:
        """See DataFile."""
        try:
            with closing(self.snapshot(still=self.state() is not None)) as db:
                return int(db.execute(self.count_statement).get)
        except (apsw.Error, FileNotFoundError):
            return 0

    def check(self, advance: Callable[[int], None]) -> Iterator[Damage]:
        """See DataFile."""
        try:
            db = self.snapshot(still=self.state() is not None)
        except (apsw.Error, FileNotFoundError) as error:
            yield Damage("file", "", f"cannot be read: {error}")
            return
        with closing(db):
            yield from guarded("file", check_integrity(db))
            for table in self.tables:
                yield from guarded(table, self.check_table(db, table, advance))


def guarded(table: str, findings: Iterator[Damage]) -> Iterator[Damage]:
    """Findings, the last of them that the rest cannot be read."""
    try:
        yield from findings
    except apsw.Error as error:
        yield Damage(table, "", f"the rest cannot be read: {error}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has it said which file is damaged where SQLite finds one. Raises DataDirectoryRefused, apsw.Error."""
    try:
        yield
    except apsw.Error as error:
        if not is_corrupt(error):
            raise
        raise DataDirectoryRefused(f"{path} is damaged, `fastrunner data check` tells where: {error}") from error


def check_integrity(db: apsw.Connection) -> Iterator[Damage]:
    """What SQLite itself finds."""
    for (sentence,) in read_each(db, _QUERIES["integrity"]):
        if sentence != "ok":
            yield Damage("file", "", str(sentence).replace("\n", "; "))
