"""Support: how long a disk takes to keep something, as a commit of the runner has it keep something."""

import os
import tempfile
from pathlib import Path
from typing import Final

from fastrunner.base.clock import monotonic_s

__all__ = ["fsync_times_s"]

_WRITTEN_SIZE_BYTES: Final = 8192


def fsync_times_s(folder: Path, count: int) -> list[float]:
    """Times of syncs in a folder, each of 8 KiB more of one file, in seconds, ascending. Raises OSError."""
    spent_s = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            os.write(file.fileno(), bytes(_WRITTEN_SIZE_BYTES))
            begun_s = monotonic_s()
            os.fdatasync(file.fileno())
            spent_s.append(monotonic_s() - begun_s)
    return sorted(spent_s)
