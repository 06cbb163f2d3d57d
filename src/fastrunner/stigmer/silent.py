"""Support: executions of which no event has come for long: does the runner have them at all?

    store: pending, no event, old -> GetExecution -> it has it: its events are to come
                                                  -> it does not know it, twice -> failed, code LOST

Theory of operation: whoever was accepted reports, and is sent again until it is acknowledged, so this finds what nobody
will ever report: executions of a runner whose data was lost, or restored from before it took them; and records that a
commit has made which died before its first event. The request is not kept once the runner has it, so nothing is started
again here: its caller hears that it has failed, and why.

Rules: a runner that cannot be asked says nothing. Events of one that was given up count as ever.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.counts.definitions import StigmerMetrics
from fastrunner.errors import RunnerError, UnknownExecution
from fastrunner.stigmer.runner import RunnerClient
from fastrunner.stigmer.store import Refusal, Silent, Store

__all__ = ["SilentExecutions"]

_log = logging.getLogger(__name__)
_LOST: Final = Refusal(
    UnknownExecution.grpc_code,
    "the runner does not have it, and nothing of it was ever reported: its data was lost or restored from a backup, or "
    "it is another runner's; start it again, under another id",
    "LOST",
)


class SilentExecutions:
    """Those of one service."""

    def __init__(
        self, store: Store, runner: RunnerClient, metrics: StigmerMetrics, tell: Callable[[str], object]
    ) -> None:
        """`tell` hears of each execution that is given up, once that is kept."""
        self._store = store
        self._runner = runner
        self._metrics = metrics
        self._tell = tell
        self._after = 0
        self._unknown: set[int] = set()
        self._unknown_before: set[int] = set()
        """Numbers of those that the runner did not know, in this round through all, and in the one before."""

    async def keep_looking(self) -> None:
        """Again and again, until cancelled."""
        while True:
            await asyncio.sleep(limits.STIGMER_SILENT_INTERVAL_S)
            try:
                await self._look()
            except RunnerError as error:
                # It is asked again.
                _log.info("whether the runner has what is silent cannot be said: %s", error.message)

    async def _look(self) -> None:
        """Asks for some, after those of the last time; from the first one on again after the last. Raises
        RunnerError."""
        before_ms = wall_ms() - int(limits.STIGMER_SILENT_AFTER_S * 1000)
        found = await self._store.silent(before_ms, self._after, limits.STIGMER_SILENT_BATCH_MAX)
        for each in found:
            await self._ask(each)
            self._after = each.number
        if len(found) < limits.STIGMER_SILENT_BATCH_MAX:
            self._after = 0
            self._unknown_before, self._unknown = self._unknown, set()

    async def _ask(self, silent: Silent) -> None:
        try:
            await self._runner.find(silent.id, limits.STIGMER_RUNNER_CALL_S_MAX)
        except UnknownExecution:
            if silent.number not in self._unknown_before:
                self._unknown.add(silent.number)
            elif await self._store.lose(silent.id, _LOST, wall_ms()):
                _log.warning("an execution is lost: %s", _LOST.message, extra={"execution_id": silent.id})
                self._metrics.executions_lost.inc()
                self._tell(silent.id)
