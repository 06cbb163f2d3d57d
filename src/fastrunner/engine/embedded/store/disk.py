"""Stage 3, journal: how much room the disk of the data directory has left.

Rule: admission closes while there is still room to finish what was accepted.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fastrunner.base import limits
from fastrunner.errors import StorageFull

__all__ = ["Room", "room", "shortage"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """What the disk of a folder looked like."""

    free_bytes: int
    """What may still be written."""
    reserve_bytes: int
    """With less than this free nothing new is taken."""
    files_bytes: int
    """The files of the folder, without those of folders in it."""


def room(folder: Path) -> Room | None:
    """How a folder's disk is now; None, with a line in the log, where that cannot be found out."""
    try:
        disk = shutil.disk_usage(folder)
        files_bytes = sum(map(_size_bytes, os.scandir(folder)))
    except OSError as error:
        _log.error("the data directory cannot be inspected: %s", error)
        return None
    reserve_bytes = min(limits.DISK_FREE_SIZE_BYTES_MIN, int(disk.total * limits.DISK_FREE_SHARE_MIN))
    return Room(disk.free, reserve_bytes, files_bytes)


def _size_bytes(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size if entry.is_file() else 0
    except FileNotFoundError:
        return 0


def shortage(found: Room | None, known: StorageFull | None, what: str = "executions") -> StorageFull | None:
    """Why nothing new (of `what`) is taken; None while there is room. What was `known` at the last look is not logged
    again, and stays where nothing was found out."""
    if found is None:
        return known
    if found.free_bytes >= found.reserve_bytes:
        return None
    if known is None:
        _log.error("the data directory has %d bytes left: new %s are refused", found.free_bytes, what)
    wanted_mib = found.reserve_bytes / (1 << 20)
    sentence = f"the disk of the data directory is nearly full: less than {wanted_mib:.3g} MiB are free"
    return StorageFull(sentence, retry_after_s=10.0)
