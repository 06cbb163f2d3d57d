"""Support: the events' file read whole, checked and resealed for `fastrunner data`, as shards are.

Rules: as of shards. A directory without the file has had no runner that knows events, and lacks nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw
import orjson

from fastrunner.base import limits
from fastrunner.data.files import SharedDataFile
from fastrunner.engine.embedded.store.connection import READ_WRITE, read_all
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.engine.embedded.store.seals import DataKeys, NotOpened, Seals
from fastrunner.events.file import FILE_NAME, QUERIES, SCHEMA, checksum_of, digest_of, event_place, proven, type_hash_of

__all__ = ["CloudEventsFile", "cloud_events_file"]

_TABLES: Final = {"cloud_events": ("all_events", "reseal_event"), "sink_events": ("all_outgoing", "reseal_outgoing")}
"""What tables are called in findings, with the queries of each."""


def cloud_events_file(folder: Path, keys: DataKeys | None = None) -> "list[CloudEventsFile]":
    """The events' file of a data directory, if there is one; `keys` open what is sealed."""
    path = folder / FILE_NAME
    return [CloudEventsFile(path, Seals(keys))] if path.exists() else []


class CloudEventsFile(SharedDataFile):
    """The file, looked at from outside."""

    schema_version = len(SCHEMA)
    tables = tuple(_TABLES)
    count_statement = QUERIES["count_rows"]

    def check_table(self, db: apsw.Connection, table: str, advance: Callable[[int], None]) -> Iterator[Damage]:
        """See SharedDataFile."""
        for row in _rows(db, table):
            advance(1)
            try:
                text = proven(row, self.seals)
                if text is not None and not _is_named(row, text, has_type=table == "cloud_events"):
                    yield Damage(table, "", f"event number {row[0]} is found by what it is not called")
            except NotOpened as trouble:
                yield Damage(table, "", f"event number {row[0]} {trouble}")

    def reseal(self, advance: Callable[[int], None]) -> Iterator[Damage]:
        """Seals all events with the first of the keys; gives what could not be. Hold the directory's lock. Raises
        DataDirectoryRefused, apsw.Error."""
        with closing(self.open(READ_WRITE)) as db:
            for table, (_, statement) in _TABLES.items():
                yield from self._reseal(db, table, statement, advance)
        self.compact()

    def _reseal(
        self, db: apsw.Connection, table: str, statement: str, advance: Callable[[int], None]
    ) -> Iterator[Damage]:
        sealer = self.seals.sealer
        assert sealer is not None, "whoever reseals has a key"
        for rows in _pages(db, table):
            renewed = []
            for row in rows:
                key, received_ms, namespaces, digest, type_hash, _, event = row
                try:
                    text = proven(row, self.seals)
                except NotOpened as trouble:
                    yield Damage(table, "", f"event number {key} {trouble}")
                    continue
                if text is not None and not sealer.is_current(event):
                    sealed = sealer.seal(text, event_place(digest))
                    renewed.append((key, sealed, checksum_of(received_ms, namespaces, digest, type_hash, sealed)))
            _write(db, statement, renewed)
            advance(len(rows))


def _is_named(row: Sequence[Any], text: bytes, *, has_type: bool) -> bool:
    """Whether what finds an event is made of what it says."""
    try:
        event = orjson.loads(text)
        if has_type and row[4] != type_hash_of(event["type"]):
            return False
        return bool(row[3] == digest_of(event["source"], event["id"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return False


def _rows(db: apsw.Connection, table: str) -> Iterator[Sequence[Any]]:
    for rows in _pages(db, table):
        yield from rows


def _pages(db: apsw.Connection, table: str) -> Iterator[list[Sequence[Any]]]:
    after = -(2**63)
    while rows := read_all(db, QUERIES[_TABLES[table][0]], (after, limits.RESEAL_ROWS_PER_COMMIT)):
        after = rows[-1][0]
        yield rows


def _write(db: apsw.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    # One transaction, which is rolled back whatever goes wrong.
    if rows:
        with db:
            db.executemany(QUERIES[statement], rows)
