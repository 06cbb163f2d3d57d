"""Support: what libraries log, cut down to what cannot hold anybody's data, paced and counted.

A library logs what it likes: gRPC a call's metadata with a traceback, asyncio a task with its arguments, once for each
call of whoever provokes it. So of their records only what is written in code stays: the text before its arguments are
put in, the class of the exception and where it went. Rules: everything a library says passes here, because the filter
is on the one handler there is; a record of the runner's own passes as it is.
"""

import logging
import re
import traceback
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePath
from threading import Lock
from typing import Final

from fastrunner.base import clock, limits
from fastrunner.base.printable import printable

__all__ = ["LIBRARIES", "LibraryFilter"]

LIBRARIES: Final = ("aiohttp", "asyncio", "grpc", "opentelemetry", "other")
"""The libraries whose records are counted by name."""
_OURS: Final = ("fastrunner", "__main__", "py.warnings")
_FRAMES_MAX: Final = 6
_WORDS: Final = re.compile(r"[\w .,-]*")


class LibraryFilter(logging.Filter):
    """For a handler: lets records of libraries pass without what they are about, each kind of them now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Callable[[str], object] = len
        """Told the library of every record, whether it passes or not."""
        self._lock = Lock()
        self._kinds: OrderedDict[tuple[str, str, int, str], tuple[float, int]] = OrderedDict()
        """When a record from a place of the code passed last, and how many have not since; the latest ones last."""

    def forget(self) -> None:
        """Begins anew: nothing has passed yet."""
        with self._lock:
            self._kinds.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        library = record.name.partition(".")[0]
        if record.name in _OURS or library in _OURS:
            return True
        self.count(library if library in LIBRARIES else "other")
        error = record.exc_info[1] if record.exc_info else None
        before = self._held_back((record.name, record.pathname, record.lineno, type(error).__name__))
        if before is None:
            return False
        record.msg = _said(record) + ("" if error is None else f": {_went(error)}")
        if before:
            record.msg += f" ({before} more like it before)"
        record.args = record.exc_info = record.exc_text = record.stack_info = None
        return True

    def _held_back(self, kind: tuple[str, str, int, str]) -> int | None:
        """How many of a kind have been held back before this one passes; None if it does not."""
        now_s = clock.monotonic_s()
        with self._lock:
            passed_s, count = self._kinds.get(kind, (float("-inf"), 0))
            passes = now_s - passed_s >= limits.LIBRARY_LOG_INTERVAL_S
            self._kinds[kind] = (now_s, 0) if passes else (passed_s, count + 1)
            self._kinds.move_to_end(kind)
            if len(self._kinds) > limits.LIBRARY_LOG_KINDS_MAX:
                self._kinds.popitem(last=False)
        return count if passes else None


def _said(record: logging.LogRecord) -> str:
    """The text as it is written in the library's code, or where that is."""
    text = record.msg if isinstance(record.msg, str) else ""
    if record.args:
        return printable(text[: limits.LIBRARY_LOG_SIZE_CHARS_MAX])
    if record.name == "asyncio":
        # Put together beforehand: words, then what it is about.
        words = _WORDS.match(text)
        text = words.group().strip() if words else ""
        return text[: limits.LIBRARY_LOG_SIZE_CHARS_MAX] or _place(record.pathname, record.lineno)
    return f"something at {_place(record.pathname, record.lineno)}"


def _went(error: BaseException) -> str:
    """Class of an exception and the last places it came through, the innermost first; nothing of its text."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-_FRAMES_MAX:]
    places = [f"{_place(frame.f_code.co_filename, frame.f_lineno)} ({frame.f_code.co_name})" for frame in frames]
    return " < ".join([type(error).__name__, *reversed(places)])


def _place(path: str, line: int) -> str:
    return f"{'/'.join(PurePath(path).parts[-2:])}:{line}"
