"""Stage 7, callback: reports of executions that are kept elsewhere: one call, and what the receiver has after it.

Rules: whoever calls keeps the events and tries again, so nothing is queued here and no attempt repeated. A batch that
the receiver refuses, or does not know, is sent event by event: what comes before a refused event gets through. How long
the oldest event has waited is shown by whoever has tried it: all workers together have tried all of them lately.
"""

import asyncio
from collections.abc import Callable

from fastrunner.base import clock, limits
from fastrunner.callback.client import DeliveryFailed, ProgressClient, Reaction, Reporter
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import ReportRefused
from fastrunner.progress.wire import first_timestamp_ms, frames

__all__ = ["DirectReports"]

_BY_ONE = (Reaction.FALL_BACK, Reaction.SPLIT, Reaction.RETRY_THEN_SPLIT)


class DirectReports:
    """The receiver, for one worker; connects with the first report."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        make_client: Callable[[Config, Metrics], Reporter] = ProgressClient,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._make_client = make_client
        self._client: Reporter | None = None
        self._refused: dict[str, tuple[int, float]] = {}
        """By execution: the time of the first event that was refused, and until when this worker answers for it."""
        self._showing: asyncio.Task[None] | None = None

    async def send(self, execution_id: str, messages: bytes, last: int) -> int:
        """See `engine.Report`."""
        try:
            taken = await self._sent(execution_id, messages, last)
        except ReportRefused:
            self._note_refused(execution_id, messages)
            raise
        self._refused.pop(execution_id, None)
        return taken

    async def _sent(self, execution_id: str, messages: bytes, last: int) -> int:
        if self._client is None:
            self._client = self._make_client(self._config, self._metrics)
        events = frames(messages)
        first = last - len(events) + 1
        try:
            answer = await self._client.report_batch(messages, True)
            taken = min(answer.get(execution_id, first - 1), last)
            why = f"the receiver has taken none of the events from {first} on"
        except DeliveryFailed as failure:
            if failure.reaction not in _BY_ONE:
                self._metrics.callback_events.labels("failed").inc(len(events))
                raise ReportRefused(str(failure)) from None
            taken, why = await self._by_one(self._client, messages, first)
        if taken < first:
            self._metrics.callback_events.labels("failed").inc(len(events))
            raise ReportRefused(why)
        self._metrics.callback_events.labels("acknowledged").inc(taken - first + 1)
        return taken

    async def _by_one(self, client: Reporter, messages: bytes, first: int) -> tuple[int, str]:
        """Up to where the receiver has them, and why no further."""
        taken = first - 1
        for start, end in frames(messages):
            try:
                await client.report(messages[start:end], True)
            except DeliveryFailed as failure:
                return taken, str(failure)
            taken += 1
        return taken, ""

    # --- what waits ---

    def _note_refused(self, execution_id: str, messages: bytes) -> None:
        # Whoever takes the next attempt, which comes by then, answers for it.
        until_s = clock.monotonic_s() + 2 * limits.TEMPORAL_REPORT_RETRY_S_MAX + self._config.callback_timeout_s
        self._refused[execution_id] = (first_timestamp_ms(messages), until_s)
        self._show()
        if self._showing is None:
            self._showing = asyncio.create_task(self._go_on_showing())

    async def _go_on_showing(self) -> None:
        while self._refused:
            await asyncio.sleep(limits.TEMPORAL_AGE_INTERVAL_S)
            now_s = clock.monotonic_s()
            self._refused = {each: known for each, known in self._refused.items() if known[1] > now_s}
            self._show()
        self._showing = None

    def _show(self) -> None:
        oldest_ms = min((at_ms for at_ms, _ in self._refused.values()), default=0)
        age_s = (clock.wall_ms() - oldest_ms) / 1000 if oldest_ms else 0.0
        self._metrics.callback_oldest_age.set(max(0.0, age_s))

    async def close(self) -> None:
        """Ends the connection; another worker shows the same."""
        if self._showing is not None:
            self._showing.cancel()
            await asyncio.gather(self._showing, return_exceptions=True)
            self._metrics.callback_oldest_age.set(0.0)
        if self._client is not None:
            await self._client.close()
