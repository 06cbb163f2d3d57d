"""Support: why a worker takes no new work: the reasons of its parts as one, told when it changes.

Rule: each reason is logged when it comes and when it is gone, however often it is found meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable

from fastrunner.base import descriptors, limits

__all__ = ["Troubles"]

_SHORT = "file descriptors are short: raise the limit on open files (ulimit -n), or see what holds them"

log = logging.getLogger(__name__)


class Troubles:
    """The reasons of one worker."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell` gets all reasons as one text whenever they change; empty: there is none."""
        self._tell = tell
        self._reasons: dict[str, str] = {}
        self._look: asyncio.TimerHandle | None = None

    def storage(self, reason: str) -> None:
        """Why executions cannot be stored; empty if they can."""
        self._set("storage", reason)

    def watch_descriptors(self) -> None:
        """Looks from now on whether there are any left, until `close`."""
        self._set("descriptors", _SHORT if descriptors.are_short() else "")
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(limits.DESCRIPTORS_LOOK_INTERVAL_S, self.watch_descriptors)

    def close(self) -> None:
        """Looks no more."""
        if self._look is not None:
            self._look.cancel()

    def _set(self, part: str, reason: str) -> None:
        if self._reasons.get(part, "") == reason:
            return
        self._reasons[part] = reason
        if reason:
            log.error("not ready: %s", reason)
        else:
            log.info("ready again: no trouble with %s any more", part)
        self._tell("; ".join(each for each in self._reasons.values() if each))
