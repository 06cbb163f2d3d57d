"""Stage 7, callback: reports of executions that are kept elsewhere: one call, and what the receiver has after it.

Rules: whoever calls keeps the events and tries again, so nothing is queued here and no attempt repeated. A batch that
the receiver refuses, or does not know, is sent event by event: what comes before a refused event gets through.
"""

from collections.abc import Callable

from fastrunner.callback.client import DeliveryFailed, ProgressClient, Reaction, Reporter
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import ReportRefused
from fastrunner.progress.wire import frames

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

    async def send(self, execution_id: str, messages: bytes, last: int) -> int:
        """See `engine.Report`."""
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

    async def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            await self._client.close()
