"""Support: the schedules' file read whole and checked for `fastrunner data`, as shards are.

Rules: as of shards. A directory without the file has had no schedules, and lacks nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw

from fastrunner.data.files import DataFile, check_integrity, guarded
from fastrunner.engine.embedded.store.connection import read_each
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.engine.embedded.store.seals import DataKeys, Seals
from fastrunner.errors import Damaged
from fastrunner.events.schedules.file import FILE_NAME, QUERIES, SCHEMA, row_of

__all__ = ["ScheduleRows", "schedule_rows"]


def schedule_rows(folder: Path, keys: DataKeys | None = None) -> "list[ScheduleRows]":
    """The schedules' file of a data directory, if there is one; `keys` open what is sealed."""
    path = folder / FILE_NAME
    return [ScheduleRows(path, Seals(keys))] if path.exists() else []


class ScheduleRows(DataFile):
    """The file, looked at from outside."""

    schema_version = len(SCHEMA)

    def count_rows(self) -> int:
        """How many rows `check` goes through; 0 if they cannot be counted. Raises DataDirectoryRefused."""
        try:
            with closing(self.snapshot(still=self.state() is not None)) as db:
                return int(db.execute(QUERIES["count"]).get)
        except (apsw.Error, FileNotFoundError):
            return 0

    def check(self, advance: Callable[[int], None]) -> Iterator[Damage]:
        """Everything wrong with the file; `advance` hears of each row. Raises DataDirectoryRefused."""
        try:
            db = self.snapshot(still=self.state() is not None)
        except (apsw.Error, FileNotFoundError) as error:
            yield Damage("file", "", f"cannot be read: {error}")
            return
        with closing(db):
            yield from guarded("file", check_integrity(db))
            yield from guarded("schedules", self._check(db, advance))

    def _check(self, db: apsw.Connection, advance: Callable[[int], None]) -> Iterator[Damage]:
        for row in read_each(db, QUERIES["all"]):
            advance(1)
            try:
                row_of(row, self.seals.looked_at)
            except Damaged as damage:
                yield Damage("schedules", "", damage.message)
