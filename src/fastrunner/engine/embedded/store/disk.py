"""Stage 3, journal: how much room the disk of the data directory has left.

Rule: admission closes while there is still room to finish what was accepted.
"""

import logging
import shutil
from pathlib import Path

from fastrunner.base import limits
from fastrunner.errors import StorageFull

__all__ = ["shortage"]

_log = logging.getLogger(__name__)


def shortage(folder: Path, known: StorageFull | None, what: str = "executions") -> StorageFull | None:
    """Why nothing new (of `what`) is taken; None while there is room. What was `known` at the last look is not logged
    again, and stays where nothing can be found out."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError as error:
        _log.error("the data directory cannot be inspected: %s", error)
        return known
    wanted_bytes = min(limits.DISK_FREE_SIZE_BYTES_MIN, int(disk.total * limits.DISK_FREE_SHARE_MIN))
    if disk.free >= wanted_bytes:
        return None
    if known is None:
        _log.error("the data directory has %d bytes left: new %s are refused", disk.free, what)
    sentence = f"the disk of the data directory is nearly full: less than {wanted_bytes / (1 << 20):.3g} MiB are free"
    return StorageFull(sentence, retry_after_s=10.0)
