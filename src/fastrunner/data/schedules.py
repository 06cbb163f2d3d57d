"""Support: the schedules' file read whole and checked for `fastrunner data`, as shards are.

Rules: as of shards. A directory without the file has had no schedules, and lacks nothing.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

from fastrunner.data.files import SharedDataFile
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


class ScheduleRows(SharedDataFile):
    """The file, looked at from outside."""

    schema_version = len(SCHEMA)
    tables = ("schedules",)
    count_statement = QUERIES["count"]

    def check_table(self, db: apsw.Connection, table: str, advance: Callable[[int], None]) -> Iterator[Damage]:
        """See SharedDataFile."""
        for row in read_each(db, QUERIES["all"]):
            advance(1)
            try:
                row_of(row, self.seals.looked_at)
            except Damaged as damage:
                yield Damage(table, "", damage.message)
