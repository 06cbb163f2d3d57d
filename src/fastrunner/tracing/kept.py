"""Support: spans of one process that wait for the collector, in a file that outlives the process.

    told -> a line, written by a thread -> settled, the last of them -> the file is empty again
    a process starts -> files that nobody holds -> the spans of processes that were killed

Theory of operation: for engines whose executions are kept elsewhere, and spans with them nowhere. Each process has a
file of its own in a folder, and holds it by a lock that goes with the process, so whoever starts can tell what others
have left. It has that in its own file before it deletes theirs.

Rules: nothing is synced: this is for processes that are killed, not for machines that are lost. What cannot be written
is in memory alone, which is logged once. A line that is torn or damaged is no span, and nothing depends on it.
"""

import asyncio
import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastrunner.base import limits
from fastrunner.tracing.span import Span

__all__ = ["SpanFile"]

_log = logging.getLogger(__name__)
_LINES_RATIO_MAX: Final = 2


class SpanFile:
    """What waits in one process. Call on its loop."""

    def __init__(self, folder: Path) -> None:
        """`folder` is for such files alone, and made if it is not there."""
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "fastrunner-spans")
        self._waiting: dict[str, bytes] = {}
        """Lines by the ids of their spans; the tracer bounds how many."""
        self._line_count = 0
        # Of the thread alone.
        self._path = folder
        self._descriptor = -1
        self._size_bytes = 0
        self._is_in_trouble = False

    async def open(self) -> Sequence[Span]:
        """Takes over what processes before this one have left, and gives it; it is kept until it is settled."""
        found: list[Span] = []
        work = self._thread.submit(self._try, lambda: self._take_over(found))
        await asyncio.wrap_future(work)
        self._waiting.update((span.span_id, _line_of(span)) for span in found)
        self._line_count = len(found)
        return found

    def keep(self, spans: Sequence[Span]) -> None:
        """Spans that are on their way to the collector."""
        lines = {span.span_id: _line_of(span) for span in spans}
        self._waiting.update(lines)
        self._line_count += len(lines)
        if self._line_count > _LINES_RATIO_MAX * limits.TRACE_QUEUE_SPANS_MAX:
            self._write_anew()
        elif lines:
            data = b"".join(lines.values())
            self._submit(lambda: self._append(data))

    def settled(self, span_id: str) -> None:
        """One that is on its way no more."""
        self._waiting.pop(span_id, None)
        if not self._waiting and self._line_count:
            self._write_anew()

    def close(self) -> None:
        """Lets go of the file: whoever starts next has what is in it."""
        self._submit(self._let_go)
        self._thread.shutdown()

    def _write_anew(self) -> None:
        self._line_count = len(self._waiting)
        data = b"".join(self._waiting.values())
        self._submit(lambda: self._replace(data))

    def _submit(self, work: Callable[[], None]) -> None:
        # What comes after the end is in memory alone.
        with suppress(RuntimeError):
            self._thread.submit(self._try, work)

    # --- in the thread ---

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            if not self._is_in_trouble:
                self._is_in_trouble = True
                _log.warning("spans that wait cannot be kept in %s, only in memory: %s", self._folder, error)

    def _take_over(self, found: list[Span]) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # One after the other: a file that nobody holds yet must not pass for one that is left.
            fcntl.flock(folder, fcntl.LOCK_EX)
            left = {path: spans for path in sorted(self._folder.iterdir()) if (spans := _left_in(path)) is not None}
            self._descriptor, name = tempfile.mkstemp(dir=self._folder)
            self._path = Path(name)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found += {span.span_id: span for spans in left.values() for span in spans}.values()
            self._append(b"".join(map(_line_of, found)))
            for path in left:
                path.unlink()
        finally:
            os.close(folder)

    def _append(self, data: bytes) -> None:
        if self._descriptor >= 0:
            self._size_bytes += os.pwrite(self._descriptor, data, self._size_bytes)

    def _replace(self, data: bytes) -> None:
        # In this order: what is killed in between leaves some that are settled, but none that waits is missing.
        self._size_bytes = 0
        self._append(data)
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, self._size_bytes)

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if not self._size_bytes:
                self._path.unlink()
        finally:
            os.close(descriptor)


def _line_of(span: Span) -> bytes:
    return span.encoded() + b"\n"


def _left_in(path: Path) -> list[Span] | None:
    """What a process has left; None: it is there, or the file is none of ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return list(_spans_in(file))


def _spans_in(lines: Iterable[bytes]) -> Iterable[Span]:
    for line in lines:
        with suppress(ValueError):
            yield Span.decoded(line)
