"""Support: the audit log: who asked for what, about which execution, why, and what came of it.

Each line is a JSON object. What changes something is told, whatever came of it, and whatever is refused to a caller who
is known; what only looks is not, and neither are strangers, who could fill the disk.

Rules: lines are written at the end of the turn of the loop in which the outcome is known, all workers appending to one
file, each line in one piece. A file that was renamed is made anew. A line that cannot be written holds no call back:
the log says that there is trouble, and afterwards how many are missing.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from fastrunner.access.files import signature_of
from fastrunner.base.clock import wall_ms

__all__ = ["AuditLog"]

_log = logging.getLogger(__name__)


class AuditLog:
    """Appends to one file, on the running loop."""

    def __init__(self, file: Path) -> None:
        """Raises ValueError, naming the variable, if it cannot be written."""
        self._file = file
        self._lines: list[bytes] = []
        self._missing_count = 0
        try:
            self._open()
        except OSError as error:
            raise ValueError(f"FASTRUNNER_AUDIT_FILE={file}: cannot be written: {error.strerror}") from None

    def _open(self) -> None:
        self._descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        facts = os.fstat(self._descriptor)
        self._identity = (facts.st_dev, facts.st_ino)

    def tell(self, *, caller: str, address: str, method: str, about: Sequence[dict[str, Any]]) -> None:
        """A line for each of what a call was about: `execution` or `workflow`, `reason`, `outcome`, `detail`."""
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        now = datetime.fromtimestamp(wall_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        head = {"time": now, "caller": caller, "address": address, "method": method}
        self._lines += [orjson.dumps(head | each, option=orjson.OPT_APPEND_NEWLINE) for each in about]

    def flush(self) -> None:
        """Writes what has been told."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            _write_all(self._descriptor, b"".join(lines))
        except OSError as error:
            if not self._missing_count:
                _log.error("the audit log cannot be written: %s", error.strerror)
            self._missing_count += len(lines)
            return
        if self._missing_count:
            _log.error("the audit log is written again; %d lines are missing", self._missing_count)
            self._missing_count = 0

    def look(self) -> None:
        """Goes on in a new file, if the one of before has been renamed or removed."""
        (signature,) = signature_of(self._file)
        if signature is not None and signature[:2] == self._identity:
            return
        before = self._descriptor
        try:
            self._open()
        except OSError as error:
            _log.error("FASTRUNNER_AUDIT_FILE=%s: cannot be made anew: %s", self._file, error.strerror)
            return
        os.close(before)

    def close(self) -> None:
        """Writes what is left."""
        self.flush()
        os.close(self._descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    """Raises OSError."""
    while data:
        data = data[os.write(descriptor, data) :]
