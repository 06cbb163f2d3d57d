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


def shortage(folder: Path, known: StorageFull | None) -> StorageFull | None:
    """Why nothing new is taken; None while there is room. What was `known` at the last look is not logged again, and
    stays where nothing can be found out."""
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        _log.error("the data directory cannot be inspected: %s", error)
        return known
    if free_bytes >= limits.DISK_FREE_SIZE_BYTES_MIN:
        return None
    if known is None:
        _log.error("the data directory has %d bytes left: new executions are refused", free_bytes)
    wanted_mib = limits.DISK_FREE_SIZE_BYTES_MIN >> 20
    sentence = f"the disk of the data directory is nearly full: less than {wanted_mib} MiB are free"
    return StorageFull(sentence, retry_after_s=10.0)
