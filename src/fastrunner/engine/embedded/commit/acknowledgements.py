"""Stage 3, journal: what need not be sent any more, for the next commit, or for one of its own after a while."""

import asyncio
from collections.abc import Callable

from fastrunner.base import limits
from fastrunner.engine.embedded.store.changes import Settled

__all__ = ["Acknowledgements"]


class Acknowledgements:
    """Those of one shard that no commit has taken along yet."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        """`on_due` is called when some of them have waited for long enough."""
        self._on_due = on_due
        self._settled: dict[str, Settled] = {}
        self._handle: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._settled)

    def note(self, execution_id: str, acknowledged: int, given_up: int) -> None:
        """Up to which sequence number the receiver has an execution's events, and up to which they are given up."""
        before = self.of(execution_id)
        self._settled[execution_id] = Settled(max(before.acknowledged, acknowledged), max(before.given_up, given_up))
        if self._handle is None:
            delay_s = limits.ACKNOWLEDGEMENT_DELAY_MS_MAX / 1000
            self._handle = asyncio.get_running_loop().call_later(delay_s, self._due)

    def of(self, execution_id: str) -> Settled:
        """Those of one execution."""
        return self._settled.get(execution_id, Settled())

    def take(self) -> dict[str, Settled]:
        """All of them, for a commit."""
        taken, self._settled = self._settled, {}
        return taken

    def _due(self) -> None:
        self._handle = None
        if self._settled:
            self._on_due()

    def close(self) -> None:
        """Nothing is due any more."""
        if self._handle is not None:
            self._handle.cancel()
