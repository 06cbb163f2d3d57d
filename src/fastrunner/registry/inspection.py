"""Support: the registry's file, read and checked for `fastrunner data check`, without anybody who uses it.

Rules: it is read in one read-only transaction, so a running owner does not notice. Damage is a finding, never an
exception. A directory in which nothing was ever registered has no such file, and nothing wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw

from fastrunner.engine.embedded.store.columns import are_sound
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect, connect_to_still_file, read_each
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.registry.file import FILE_NAME, QUERIES, SCHEMA_VERSION, is_whole
from fastrunner.registry.versions import rank_of

__all__ = ["FILE_NAME", "check", "count_rows"]

_TABLE: Final = "definitions"
_TYPES: Final = "sssbibsBs"


def count_rows(folder: Path) -> int:
    """How many rows `check` goes through; 0 if they cannot be counted. Raises DataDirectoryRefused."""
    path = folder / FILE_NAME
    try:
        if path.exists():
            with closing(_opened(path)) as db:
                return int(db.execute(QUERIES["count_definitions"]).get)
    except apsw.Error:
        pass
    return 0


def check(folder: Path, advance: Callable[[int], None]) -> Iterator[Damage]:
    """Everything wrong with the file; `advance` hears of each row. Raises DataDirectoryRefused."""
    path = folder / FILE_NAME
    if not path.exists():
        return
    state = _state(path)
    findings = list(_check(path, advance))
    if state is not None and _state(path) != state:
        # Somebody has begun to write it: what was found then may be their unfinished work.
        findings = list(_check(path, advance))
    yield from findings


def _state(path: Path) -> tuple[int, int] | None:
    """Of a file without a journal its time and size; None with one."""
    if path.with_name(f"{path.name}-wal").exists():
        return None
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def _opened(path: Path) -> apsw.Connection:
    """A connection within a transaction. Raises DataDirectoryRefused for another schema version, apsw.Error."""
    db = connect(path, READ_ONLY) if _state(path) is None else connect_to_still_file(path)
    try:
        version = int(db.execute(QUERIES["schema_version"]).get)
        if version != SCHEMA_VERSION:
            remedy = (
                "use the version that wrote it, or a newer one"
                if version > SCHEMA_VERSION
                else "start the runner on it once, which brings it up to date"
            )
            raise DataDirectoryRefused(
                f"{path} has schema version {version}, this version of fastrunner has {SCHEMA_VERSION}: {remedy}"
            )
        db.execute(QUERIES["begin"])
    except BaseException:
        db.close()
        raise
    return db


def _check(path: Path, advance: Callable[[int], None]) -> Iterator[Damage]:
    try:
        with closing(_opened(path)) as db:
            for (sentence,) in read_each(db, QUERIES["integrity"]):
                if sentence != "ok":
                    yield Damage("file", "", str(sentence).replace("\n", "; "))
            for row in read_each(db, QUERIES["inspect_definitions"]):
                advance(1)
                yield from _check_definition(row)
    except apsw.Error as error:
        yield Damage("file", "", f"cannot be read to its end: {error}")


def _check_definition(row: tuple[Any, ...]) -> Iterator[Damage]:
    if not are_sound(_TYPES, row):
        yield Damage(_TABLE, "", f"the row of {row[0]!r}/{row[1]!r}:{row[2]!r} has values of wrong types")
        return
    namespace, name, version, rank, _, *texts = row
    shown = f"{namespace}/{name}:{version}"
    if not is_whole(*texts):
        yield Damage(_TABLE, "", f"{shown} does not match its hash: register it again")
    try:
        is_ranked = rank_of(version) == rank
    except ValueError:
        is_ranked = False
    if not is_ranked:
        yield Damage(_TABLE, "", f"{shown} is not where its version belongs: delete it, and register it again")
