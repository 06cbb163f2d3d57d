"""Stage 3, journal: connections to a shard's file, through apsw, which brings an SQLite of its own.

Rules:
- Nothing else in this process opens a shard: two copies of SQLite would drop each other's file locks.
- A connection commits by itself unless told to begin, and belongs to one thread at a time; `interrupt` alone may come
  from another one. COMMIT gives up the interpreter lock for as long as it takes.
- Text that is no longer UTF-8 is for the checksums to find: it is read with replacement characters.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

import apsw

from fastrunner.engine.embedded.store.statements import named

__all__ = ["READ_ONLY", "READ_WRITE", "connect", "connect_to_still_file", "read_all", "read_each"]

READ_ONLY: Final = apsw.SQLITE_OPEN_READONLY
"""For `connect`: a file that exists, to be read."""

READ_WRITE: Final = apsw.SQLITE_OPEN_READWRITE
"""For `connect`: a file that exists, to be written."""

_TEMPLATES: Final = named("text")

_BUSY_TIMEOUT_MS: Final = 5_000
"""A predecessor that is closing may hold the file for a moment."""

_Parameters = tuple[Any, ...] | Mapping[str, Any]


def connect(path: Path, flags: int = READ_WRITE | apsw.SQLITE_OPEN_CREATE) -> apsw.Connection:
    """A new connection; by default the file is created if need be. Raises apsw.Error."""
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
    return connection


def connect_to_still_file(path: Path) -> apsw.Connection:
    """A connection that reads a file which nobody writes, and which has no journal: none is made. Raises apsw.Error."""
    address = f"{path.absolute().as_uri()}?immutable=1"
    return apsw.Connection(address, flags=READ_ONLY | apsw.SQLITE_OPEN_URI)


def read_all(db: apsw.Connection, statement: str, parameters: _Parameters = ()) -> list[Any]:
    """Every row of a query as a tuple. Raises apsw.Error."""
    cursor = db.execute(statement, parameters)
    try:
        return cursor.fetchall()
    except UnicodeDecodeError:
        return list(_replaced(db, statement, parameters, len(cursor.description)))


def read_each(db: apsw.Connection, statement: str, parameters: _Parameters = ()) -> Generator[Any]:
    """The same one by one. Its read transaction lasts until the iterator has ended or is closed."""
    with closing(db.execute(statement, parameters)) as cursor:
        count = 0
        try:
            for row in cursor:
                yield row
                count += 1
        except UnicodeDecodeError:
            yield from islice(_replaced(db, statement, parameters, len(cursor.description)), count, None)


def _replaced(db: apsw.Connection, statement: str, parameters: _Parameters, columns_count: int) -> Iterator[Any]:
    """The rows of a query, with replacement characters where text is not UTF-8. Takes twice as long."""
    names = [f"c{number}" for number in range(columns_count)]
    columns = ", ".join(_TEMPLATES["column"].format(name=name) for name in names)
    query = _TEMPLATES["query"].format(names=", ".join(names), statement=statement, columns=columns)
    for row in db.execute(query, parameters):
        yield tuple(
            value.decode("utf-8", "replace") if is_text else value
            for is_text, value in zip(row[::2], row[1::2], strict=True)
        )
