"""Stage 3, journal: what an error of a shard's file means: the disk is at fault, or what was to be written.

Rules: an error of the disk refuses new work and is tried again until it goes; an error of a row concerns that row's
execution alone, because trying again would only stall every other one of the shard.
"""

import errno
import os
from pathlib import Path
from typing import Final

import apsw

from fastrunner.base import limits
from fastrunner.errors import ShardDamaged, StorageFailed, StorageFull

__all__ = ["is_corrupt", "opening_trouble", "refusal_of"]

_CORRUPT: Final = frozenset((apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB))
_OF_ROWS: Final = frozenset(
    (
        apsw.SQLITE_TOOBIG,
        apsw.SQLITE_CONSTRAINT,
        apsw.SQLITE_MISMATCH,
        apsw.SQLITE_RANGE,
        apsw.SQLITE_MISUSE,
    )
)

_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0 if it has none."""
    return int(getattr(error, "result", 0)) if isinstance(error, apsw.Error) else 0


def is_corrupt(error: BaseException) -> bool:
    """Whether SQLite finds the file itself damaged."""
    return _code(error) in _CORRUPT


def refusal_of(error: BaseException, file: str, retry_after_s: float) -> StorageFull | StorageFailed | None:
    """What callers are told while `file` cannot be written; None if the rows are at fault and not the disk."""
    code = _code(error)
    if code == apsw.SQLITE_FULL:
        return StorageFull(f"the disk of the data directory is full: {file} cannot grow", retry_after_s)
    if code in _CORRUPT:
        sentence = f"{file} is damaged: `fastrunner data check` tells where; stop the runner and restore a backup"
        return ShardDamaged(sentence, retry_after_s)
    if code == apsw.SQLITE_READONLY:
        return StorageFailed(f"the data directory is read-only: {file} cannot be written", retry_after_s)
    if code in _OF_ROWS:
        return None
    if isinstance(error, OSError) or code:
        return StorageFailed(f"{file} cannot be written: {error}", retry_after_s)
    return None


def opening_trouble(error: BaseException, path: Path) -> StorageFull | StorageFailed | None:
    """Why a shard's file cannot be opened for now; None if waiting for the disk would not help."""
    code, number = _code(error), getattr(error, "errno", None)
    may_lack_room = code in (apsw.SQLITE_IOERR, apsw.SQLITE_CANTOPEN)
    if code == apsw.SQLITE_FULL or number in _NO_ROOM or (may_lack_room and _is_full(path)):
        return StorageFull(f"the disk of the data directory is full: {path.name} cannot be opened")
    if code == apsw.SQLITE_IOERR or number == errno.EIO:
        return StorageFailed(f"{path.name} cannot be opened: {error}")
    return None


def _is_full(path: Path) -> bool:
    """Whether a disk has no room, or none for another file: some have a number of those from the start."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    has_no_room = found.f_bavail * found.f_frsize < limits.SHARD_OPENING_SIZE_BYTES_MAX
    return has_no_room or (found.f_files > 0 and not found.f_favail)
