"""Stage 1, service: calls that wait for their deadline.

Theory of operation: nearly every call has a deadline, and hardly any meets it. So they wait in groups of those that end
at about the same time, which takes one timer each; a call that is over leaves its group by itself. The longer a call
may take the coarser is its group: there are some dozens for each doubling of the time, whatever clients choose.
"""

import asyncio
import heapq
import logging
import math
from typing import Final

from fastrunner._http2 import Call
from fastrunner.base.clock import monotonic_s, wall_ms

__all__ = ["Deadlines"]

_log = logging.getLogger(__name__)
_FINEST_S: Final = 0.0625
_PARTS: Final = 64
"""A call may end later than its deadline by one part of so many of its time."""
_NEVER_S: Final = 1e9
"""A deadline so far away is none."""


class Deadlines:
    """The deadlines of one worker's calls."""

    def __init__(self) -> None:
        self._groups: dict[float, dict[Call, None]] = {}
        self._due_s: list[float] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, call: Call) -> None:
        """Ends a call when its time is over, unless it is over before."""
        if not call.timeout_s < _NEVER_S:
            return
        call.deadline_s = wall_ms() / 1000 + call.timeout_s
        step_s = _FINEST_S
        if call.timeout_s > _FINEST_S * _PARTS:
            step_s = math.ldexp(_FINEST_S, math.frexp(call.timeout_s / (_FINEST_S * _PARTS))[1])
        due_s = math.ceil((monotonic_s() + call.timeout_s) / step_s) * step_s
        group = self._groups.get(due_s)
        if group is None:
            group = self._groups[due_s] = {}
            heapq.heappush(self._due_s, due_s)
            self._wake()
        group[call] = None
        call.deadlines = group

    def close(self) -> None:
        """Ends no more calls."""
        self._due_s.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(self._due_s[0] - monotonic_s(), 0.0), self._end)

    def _end(self) -> None:
        self._timer = None
        now_s = monotonic_s()
        while self._due_s and self._due_s[0] <= now_s:
            for call in list(self._groups.pop(heapq.heappop(self._due_s))):
                try:
                    call.expire()
                except Exception:
                    # Others have their deadlines too.
                    _log.exception("a call failed inside the transport")
        if self._due_s:
            self._wake()
