"""Stage 7, callback: one delivery: its attempts, what the answer means for each lane, and the search for a bad event.

Rules: three quick attempts with back-off and jitter, one while the breaker is half open; a delivery ends with every
lane it took settled, delayed or rewound, also when it is cancelled; the outbox hears of an execution once per delivery.
"""

import asyncio
import logging
import random

from fastrunner.base import clock, crash, limits
from fastrunner.base.crash import CrashPoint
from fastrunner.callback.breaker import Breaker, BreakerState
from fastrunner.callback.client import DeliveryFailed, Reaction, Reporter
from fastrunner.callback.queue import EventQueue, Lane, Parcel
from fastrunner.callback.traces import TracedDelivery
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Outbox
from fastrunner.progress.wire import frames
from fastrunner.tracing.tracer import Tracer

__all__ = ["Courier"]

log = logging.getLogger(__name__)


class Courier:
    """Performs deliveries; shares queue and breaker with the pipeline that starts them."""

    def __init__(
        self,
        client: Reporter,
        queue: EventQueue,
        breaker: Breaker,
        outbox: Outbox,
        metrics: Metrics,
        tracer: Tracer | None = None,
    ) -> None:
        """`tracer` has spans of deliveries; None: nothing is traced."""
        self._tracer = tracer
        self.single_until_s = 0.0
        """Until when events are sent one by one, because the receiver has no ReportProgressBatch."""
        self._client = client
        self._queue = queue
        self._breaker = breaker
        self._outbox = outbox
        self._metrics = metrics
        self._suspended_for = ""

    async def deliver(self, parcels: list[Parcel], single: bool) -> None:
        """Delivers the flights of one or more lanes, one event per call if `single` (then of one lane)."""
        taken: dict[Lane, int] = {parcel.lane: parcel.first - 1 for parcel in reversed(parcels)}
        refused: set[Lane] = set()
        traced = None if self._tracer is None else TracedDelivery(self._tracer, self._outbox, parcels)
        try:
            if single:
                await self._deliver_single(parcels, taken)
            else:
                await self._deliver_batch(parcels, taken, refused)
        except DeliveryFailed as failure:
            self._react(failure, single, taken, refused)
        except ValueError:
            # A row that is no sequence of events: nothing a retry or another receiver changes.
            log.exception("the outbox holds a row that cannot be sent")
            refused.update(taken)
        except Exception:
            # A fault of ours would come again at once, for ever: the next attempt waits as if the receiver were away.
            if self._breaker.failed(clock.monotonic_s()):
                log.exception("callbacks suspended: a delivery ended unexpectedly")
        finally:
            self._breaker.abandoned()
            if traced is not None:
                traced.ended(taken)
            self._settle(taken, refused)

    # --- batches ---

    async def _deliver_batch(self, parcels: list[Parcel], taken: dict[Lane, int], refused: set[Lane]) -> None:
        try:
            answer = await self._attempts(parcels)
        except DeliveryFailed as failure:
            if failure.reaction not in (Reaction.SPLIT, Reaction.RETRY_THEN_SPLIT):
                raise
            log.warning("the receiver refuses a batch (%s): looking for the event it refuses", failure)
            await self._search(parcels, taken, refused)
            return
        self._apply(parcels, answer, taken, refused)

    async def _attempts(self, parcels: list[Parcel]) -> dict[str, int]:
        request = b"".join([parcel.messages for parcel in parcels])
        attempts = self._attempts_max()
        for attempt in range(1, attempts + 1):
            try:
                return await self._client.report_batch(request, self._breaker.state is BreakerState.HALF_OPEN)
            except DeliveryFailed as failure:
                if not self._again(failure, attempt, attempts):
                    raise
            await self._pause(attempt, sum(parcel.events for parcel in parcels))
        raise AssertionError("the last attempt returns or raises")

    def _apply(self, parcels: list[Parcel], answer: dict[str, int], taken: dict[Lane, int], refused: set[Lane]) -> None:
        """Notes how far the receiver took each lane of an answered batch; one it took nothing of is refused."""
        last = {parcel.lane: parcel.last for parcel in parcels}
        progress = False
        for lane, last_sent in last.items():
            sequence = min(answer.get(lane.execution_id, taken[lane]), last_sent)
            lost = sequence < taken[lane] and not lane.rewound
            progress = progress or sequence > taken[lane] or lost
            if sequence < last_sent and sequence <= taken[lane]:
                refused.add(lane)
                if not lost and lane.failures + 1 >= limits.CALLBACK_ATTEMPTS_QUICK_MAX:
                    self._count_refusal()
            taken[lane] = sequence
        if progress:
            self._recovered()
        elif self._breaker.state is BreakerState.HALF_OPEN:
            self._breaker.failed(clock.monotonic_s())

    async def _search(self, parcels: list[Parcel], taken: dict[Lane, int], refused: set[Lane]) -> None:
        """Sends ever smaller parts, so that everything but the refused events gets through."""
        parts = [parcels]
        while parts:
            part = [parcel for parcel in parts.pop() if parcel.lane not in refused]
            if not part:
                continue
            try:
                answer = await self._client.report_batch(b"".join([parcel.messages for parcel in part]), patient=False)
            except DeliveryFailed as failure:
                if failure.reaction not in (Reaction.SPLIT, Reaction.RETRY_THEN_SPLIT):
                    raise
                halves = _halves(part)
                parts += halves
                if not halves:
                    self._refuse(part[0].lane, part[0].first, failure, refused)
                    if not self._breaker.closed:
                        return
            else:
                self._apply(part, answer, taken, refused)

    def _refuse(self, lane: Lane, sequence: int, failure: DeliveryFailed, refused: set[Lane]) -> None:
        log.error(
            "the receiver refuses event %d (%s): this execution's events wait and are tried again, others go on",
            sequence, failure, extra={"execution_id": lane.execution_id},
        )  # fmt: skip
        # No quick attempts for what was refused for its content.
        lane.failures = max(lane.failures, limits.CALLBACK_ATTEMPTS_QUICK_MAX - 1)
        refused.add(lane)
        self._count_refusal()

    def _count_refusal(self) -> None:
        if self._breaker.refused(clock.monotonic_s()):
            log.error("callbacks suspended: the receiver refuses one execution after the other")

    # --- one event per call ---

    async def _deliver_single(self, parcels: list[Parcel], taken: dict[Lane, int]) -> None:
        lane = parcels[0].lane
        for parcel in parcels:
            for offset, (start, end) in enumerate(frames(parcel.messages)):
                await self._attempts_single(parcel.messages[start:end])
                taken[lane] = parcel.first + offset
                self._recovered()

    async def _attempts_single(self, event: bytes) -> None:
        attempts = self._attempts_max()
        for attempt in range(1, attempts + 1):
            try:
                await self._client.report(event, self._breaker.state is BreakerState.HALF_OPEN)
            except DeliveryFailed as failure:
                if not self._again(failure, attempt, attempts):
                    raise
            else:
                return
            await self._pause(attempt, 1)

    # --- attempts ---

    def _attempts_max(self) -> int:
        return limits.CALLBACK_ATTEMPTS_QUICK_MAX if self._breaker.closed else 1

    def _again(self, failure: DeliveryFailed, attempt: int, attempts: int) -> bool:
        """Whether a failed attempt is followed by another: not if it is the last or pointless, nor once other
        deliveries have found the receiver unwell."""
        if failure.reaction is Reaction.RETRY:
            # Behind the address there may be another receiver next.
            self.single_until_s = 0.0
        retryable = failure.reaction in (Reaction.RETRY, Reaction.RETRY_THEN_SPLIT)
        return retryable and attempt < attempts and self._breaker.closed

    async def _pause(self, attempt: int, events: int) -> None:
        self._metrics.callback_events.labels("retried").inc(events)
        pause_ms = limits.CALLBACK_BACKOFF_MS_MIN * 2 ** (attempt - 1) * (0.5 + random.random())
        await asyncio.sleep(pause_ms / 1000)

    # --- outcomes ---

    def _react(self, failure: DeliveryFailed, single: bool, taken: dict[Lane, int], refused: set[Lane]) -> None:
        """Draws the conclusion of a delivery that failed as a whole."""
        now_s = clock.monotonic_s()
        if failure.reaction is Reaction.FALL_BACK and not single:
            if self.single_until_s < now_s:
                log.info("the receiver has no ReportProgressBatch: sending one event per call")
            self.single_until_s = now_s + limits.CALLBACK_BATCH_RETRY_S
            return
        if failure.reaction in (Reaction.SPLIT, Reaction.RETRY_THEN_SPLIT):
            for lane, sequence in taken.items():
                self._refuse(lane, sequence + 1, failure, refused)
            return
        self._metrics.callback_events.labels("failed").inc(sum(p.events for lane in taken for p in lane.flight))
        if self._breaker.failed(now_s):
            log.warning("callbacks suspended (%s); events wait in the outbox until the receiver is back", failure)
        elif failure.reaction is not Reaction.RETRY and str(failure) != self._suspended_for:
            log.warning("callbacks still suspended (%s)", failure)
        self._suspended_for = str(failure)

    def _recovered(self) -> None:
        if self._breaker.succeeded():
            log.info("callbacks go on: the receiver is back")

    def _settle(self, taken: dict[Lane, int], refused: set[Lane]) -> None:
        """Ends every flight and tells the outbox, in one step, so that a cancelled delivery leaves nothing behind."""
        now_s = clock.monotonic_s()
        acknowledged = 0
        for lane, sequence in taken.items():
            first = lane.flight[0].first
            if sequence >= first:
                crash.reach(CrashPoint.BEFORE_CALLBACK_ACK)
                self._outbox.acknowledge(lane.execution_id, sequence)
            if lane in refused:
                waiting = lane.flight[-1].last - max(sequence, first - 1)
                self._metrics.callback_events.labels("failed").inc(waiting)
            if lane not in refused:
                acknowledged += self._queue.settle(lane, sequence, now_s)
            elif sequence < first - 1 and not lane.rewound:
                log.warning(
                    "the receiver lacks events from %d on that it had acknowledged: sending them again",
                    sequence + 1, extra={"execution_id": lane.execution_id},
                )  # fmt: skip
                self._queue.rewind(lane, max(sequence, 0), now_s)
            else:
                acknowledged += self._delay(lane, sequence, now_s)
        if acknowledged:
            self._metrics.callback_events.labels("acknowledged").inc(acknowledged)

    def _delay(self, lane: Lane, sequence: int, now_s: float) -> int:
        """Lets a refused execution wait: two quick attempts more, then ever longer, its events left to the outbox."""
        failures = lane.failures = lane.failures + 1
        quick = failures < limits.CALLBACK_ATTEMPTS_QUICK_MAX
        if quick:
            pause_s = limits.CALLBACK_BACKOFF_MS_MIN * 2 ** (failures - 1) / 1000
        else:
            doublings = min(failures - limits.CALLBACK_ATTEMPTS_QUICK_MAX, 16)
            pause_s = min(limits.CALLBACK_SUSPENSION_S_MIN * 2**doublings, limits.CALLBACK_SUSPENSION_S_MAX)
        acknowledged = self._queue.delay(lane, sequence, now_s + pause_s * (0.5 + random.random()), quick)
        if acknowledged:
            # It got further than last time: the count starts again.
            lane.failures = 1
        return acknowledged


def _halves(parcels: list[Parcel]) -> list[list[Parcel]]:
    """Two parts, the later one first; none if there is only one event."""
    if len(parcels) > 1:
        middle = len(parcels) // 2
        return [parcels[middle:], parcels[:middle]]
    first, rest = parcels[0].cut(max(1, parcels[0].events // 2), len(parcels[0].messages))
    return [] if rest is None else [[rest], [first]]
