"""Stage 3, journal: spans of one shard for the next commit, or for one of its own after a while: those that are to be
kept until the collector has them, and those that need not be any longer.

What ends with a step of an execution is in that step's change; here is what ends otherwise: acceptances and callbacks.
"""

import asyncio
from collections.abc import Callable

from fastrunner.base import limits
from fastrunner.engine.embedded.store.changes import SpansChange
from fastrunner.tracing.span import Span

__all__ = ["ShardSpans"]


class ShardSpans:
    """Those of one shard that no commit has taken along yet."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        """`on_due` is called when some of them have waited for long enough."""
        self._on_due = on_due
        self._change: SpansChange | None = None
        self._handle: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return self._change is not None

    def keep(self, execution_key: int, span: Span) -> None:
        """One that has ended, of an execution."""
        self._next().kept.append((execution_key, span))

    def settled(self, execution_key: int, span_id: str) -> None:
        """One that is on its way to the collector no more."""
        self._next().settled.append((execution_key, span_id))

    def take(self) -> SpansChange | None:
        """All of them, for a commit."""
        taken, self._change = self._change, None
        return taken

    def _next(self) -> SpansChange:
        if self._change is None:
            self._change = SpansChange()
        if self._handle is None:
            delay_s = limits.ACKNOWLEDGEMENT_DELAY_MS_MAX / 1000
            self._handle = asyncio.get_running_loop().call_later(delay_s, self._due)
        return self._change

    def _due(self) -> None:
        self._handle = None
        if self._change is not None:
            self._on_due()

    def close(self) -> None:
        """Nothing is due any more."""
        if self._handle is not None:
            self._handle.cancel()
