"""Stage 3, journal: spans of one shard for the next commit, or for one of its own after a while: those that are to be
kept until the collector has them, and those that need not be any longer.

What ends with a step of an execution is in that step's change; here is what ends otherwise: acceptances and callbacks.
Nothing hangs on those but a `forward`, so they are written only when the collector has been given the time to take
them: while it takes what comes, none of them is ever in the file. What need not be kept goes with what is written next.

The span of an execution that was accepted and completed in one commit is told by its row. Up to which row of events
nobody needs those any longer is written now and then; what comes after it, the next start tells once more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine.embedded.store.changes import SpansChange
from fastrunner.tracing.span import Span

__all__ = ["ShardSpans", "Told"]


@dataclass(slots=True)
class Told:
    """Spans that rows tell, offered together."""

    event_key: int
    """The last row of events of the last commit that has any of those rows."""
    waiting_count: int
    """How many of them are on their way to the collector."""


class ShardSpans:
    """Those of one shard that no commit has taken along yet."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        """`on_due` is called when some of them have waited for long enough."""
        self._on_due = on_due
        self._waiting: dict[tuple[int, str], tuple[Span, float]] = {}
        """What ends otherwise, the oldest first, with the time from which on it is to be written."""
        self._settled: list[tuple[int, str]] = []
        self._told: deque[Told] = deque()
        """Those of which some are needed still, and those after them."""
        self._told_key = 0
        """Up to where none is, if that is to be written."""
        self._is_ending = False
        self._handle: asyncio.TimerHandle | None = None

    @property
    def _has_any(self) -> bool:
        return bool(self._waiting or self._settled or self._told_key)

    def keep(self, execution_key: int, span: Span) -> None:
        """One that has ended, of an execution."""
        self._waiting[execution_key, span.span_id] = span, monotonic_s() + limits.TRACE_UNKEPT_S_MAX
        self._plan()

    def settled(self, execution_key: int, span_id: str) -> None:
        """One that is on its way to the collector no more."""
        if self._waiting.pop((execution_key, span_id), None) is None:
            self._settled.append((execution_key, span_id))
            self._plan()

    def told(self, event_key: int, count: int) -> Told:
        """So many rows tell spans that are now on their way: all that have come since the last time, up to the commit
        whose last row of events this is."""
        told = Told(event_key, count)
        self._told.append(told)
        return told

    def settled_told(self, told: Told) -> None:
        """One of those is on its way to the collector no more."""
        told.waiting_count -= 1
        while self._told and not self._told[0].waiting_count:
            self._told_key = self._told.popleft().event_key
            self._plan()

    def take(self) -> SpansChange | None:
        """What is to be written now, for a commit."""
        if not self._has_any:
            return None
        now_s = monotonic_s()
        change = SpansChange(settled=self._settled, told_key=self._told_key)
        for (execution_key, _), (span, due_s) in self._waiting.items():
            if due_s > now_s and not self._is_ending:
                break
            change.kept.append((execution_key, span))
        for execution_key, span in change.kept:
            del self._waiting[execution_key, span.span_id]
        self._settled, self._told_key = [], 0
        return change if change.kept or change.settled or change.told_key else None

    def end(self) -> bool:
        """Has the next commit take everything, for there is no collector any more; whether there is anything."""
        self._is_ending = True
        return self._has_any

    def _plan(self) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(limits.TRACE_UNKEPT_S_MAX, self._due)

    def _due(self) -> None:
        self._handle = None
        if self._has_any:
            self._on_due()
            # What has come meanwhile is not due yet.
            self._plan()

    def close(self) -> None:
        """Nothing is due any more."""
        if self._handle is not None:
            self._handle.cancel()
