"""Support: memory that a worker has had and needs no more goes back to the system.

What came for a moment (large requests, readers that did not read) leaves the C library's heap full of holes, which it
keeps for itself. It gives them back when asked to, which costs the time to look through them; so it is asked only when
they are many and something has been taken since it was asked last, and once when a worker has started: loading modules
leaves some MiB. Only glibc, from 2.33 on, can be asked; elsewhere a worker keeps what its C library keeps.

Rule: the heap is looked through in a thread, because that takes tens of milliseconds for a gigabyte.
"""

import asyncio
import ctypes
import logging
import resource
from pathlib import Path
from typing import Any, Final

from fastrunner.base import limits

__all__ = ["MemoryReturn", "give_back"]

_STATM: Final = Path("/proc/self/statm")

log = logging.getLogger(__name__)


class _HeapInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    ] + [("keepcost", ctypes.c_size_t)]


def give_back() -> None:
    """Gives back what is free now, where the C library can be asked. Takes a millisecond for some MiB."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


def _libc() -> Any:
    """The C library, if it can be asked."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = _HeapInfo
        _ = libc.malloc_trim
    except (AttributeError, OSError):
        return None
    return libc


class MemoryReturn:
    """Asks the C library, now and then, to give back what is free."""

    def __init__(self) -> None:
        self._libc = _libc()
        self._left_size_bytes = 0
        """What the process had when it was asked last."""
        self._look: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Looks from now on, until `close`."""
        if self._libc is not None and _STATM.exists():
            self._look_later()

    def close(self) -> None:
        """Looks no more."""
        if self._look is not None:
            self._look.cancel()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(
            limits.MEMORY_LOOK_INTERVAL_S, lambda: loop.run_in_executor(None, self._give_back).add_done_callback(again)
        )

        def again(done: "asyncio.Future[None]") -> None:
            if not done.cancelled() and done.exception() is None:
                self._look_later()

    def _give_back(self) -> None:
        free_size_bytes = self._libc.mallinfo2().fordblks
        grown_size_bytes = _resident_size_bytes() - self._left_size_bytes
        least = limits.MEMORY_FREE_SIZE_BYTES_MIN
        if free_size_bytes >= least and grown_size_bytes >= least // 2:
            self._libc.malloc_trim(0)
            self._left_size_bytes = _resident_size_bytes()
            log.debug("gave memory back: %d MiB are left", self._left_size_bytes >> 20)


def _resident_size_bytes() -> int:
    return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
