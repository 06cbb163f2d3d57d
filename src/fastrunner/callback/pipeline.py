"""Stage 7, callback: takes committed events from the engine and keeps deliveries going.

Rules: everything runs on the worker's loop; at most a bounded number of deliveries at once, each of other executions; a
batch leaves when it is full or its first event has waited long enough; while the breaker is open only its probe leaves.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from fastrunner.base import clock, limits
from fastrunner.callback.breaker import Breaker
from fastrunner.callback.catchup import CatchUp
from fastrunner.callback.client import ProgressClient, Reporter
from fastrunner.callback.delivery import Courier
from fastrunner.callback.queue import EventQueue, Parcel
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Outbox, UnacknowledgedEvents
from fastrunner.tracing.tracer import Tracer

__all__ = ["CallbackPipeline"]

log = logging.getLogger(__name__)

_TICK_S = 1.0
"""How often gauges are set."""
_EXPIRY_TICKS = 60
"""How many ticks pass between looks for events that are too old."""


class CallbackPipeline:
    """Delivers one engine's outbox to one receiver.

    Make it before the engine starts (it registers as the outbox's listener) and only if a receiver is configured;
    `start` it once the engine has started; `drain` it before the engine closes its store, so that acknowledgements are
    still written. `wall_ms` is the engine's clock: by another one, what the engine wrote a moment ago may be old.
    `tracer` has spans of deliveries; None: nothing is traced.
    Raises ValueError if STIGMER_SERVICE_ENDPOINT is not set.
    """

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        metrics: Metrics,
        *,
        wall_ms: Callable[[], int] | None = None,
        queue_events_max: int = limits.CALLBACK_QUEUE_EVENTS_MAX,
        make_client: Callable[[Config, Metrics], Reporter] = ProgressClient,
        tracer: Tracer | None = None,
    ) -> None:
        if not config.stigmer_service_endpoint:
            raise ValueError("callbacks need STIGMER_SERVICE_ENDPOINT; without it there is nothing to deliver to")
        self._config = config
        self._outbox = outbox
        self._metrics = metrics
        self._queue = EventQueue(queue_events_max)
        self._breaker = Breaker(random.random)
        self._wall_ms = wall_ms or clock.SteadyClock()
        self._catch_up = CatchUp(self._queue, outbox, metrics, self._pump, self._wall_ms)
        self._deliveries: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []
        self._courier: Courier | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._draining = False
        self._make_client = make_client
        self._tracer = tracer
        self._idle = asyncio.Event()
        outbox.listen(self._offer)

    @property
    def events_in_memory(self) -> int:
        """Events held for sending, in flight included."""
        return self._queue.events

    @property
    def suspended(self) -> bool:
        """Whether the breaker holds deliveries back."""
        return not self._breaker.closed

    async def start(self) -> None:
        """Opens the channel and begins to deliver, first of all what the outbox holds from before."""
        self._client = self._make_client(self._config, self._metrics)
        self._courier = Courier(self._client, self._queue, self._breaker, self._outbox, self._metrics, self._tracer)
        self._background = [
            asyncio.create_task(self._catch_up.run(), name="callback catch-up"),
            asyncio.create_task(self._tick(), name="callback gauges"),
        ]
        self._pump()

    async def drain(self, timeout_s: float) -> None:
        """Delivers what is in memory within a time, then closes. What is left stays in the outbox for the next start;
        a receiver that is away is not waited for."""
        if self._courier is None:
            return
        self._draining = True
        for task in self._background:
            task.cancel()
        self._pump()
        if not self._finished():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)
        self._courier = None
        if self._timer is not None:
            self._timer.cancel()
        for task in self._deliveries:
            task.cancel()
        await asyncio.gather(*self._background, *self._deliveries, return_exceptions=True)
        await self._client.close()
        self._set_gauges()

    # --- scheduling ---

    def _offer(self, row: UnacknowledgedEvents) -> None:
        """Takes one committed row: called by the engine on the loop."""
        self._queue.offer(row, clock.monotonic_s(), self._wall_ms())
        if self._courier is None:
            return
        full = self._queue.ready_events >= limits.CALLBACK_BATCH_EVENTS_MAX
        # While no delivery can start there is nothing to decide: one that ends, or the timer, will look again.
        if full and self._breaker.closed and len(self._deliveries) < limits.CALLBACK_BATCHES_IN_FLIGHT_MAX:
            self._pump()
        elif self._timer is None:
            self._pump_at(clock.monotonic_s() + limits.CALLBACK_BATCH_AGE_MS_MAX / 1000)

    def _pump(self) -> None:
        """Starts the deliveries that may start now, and sees to it that it is called again when others may."""
        if self._courier is None:
            return
        now_s = clock.monotonic_s()
        wake_s = self._queue.wake(now_s)
        while self._courier is not None:  # Ends at the first of: nothing due, no place for a flight, breaker open.
            single = self._courier.single_until_s > now_s
            in_flight_max = limits.CALLBACK_IN_FLIGHT_MAX if single else limits.CALLBACK_BATCHES_IN_FLIGHT_MAX
            due_s = self._due_s(single, now_s)
            if due_s is None or len(self._deliveries) >= in_flight_max:
                break
            if due_s > now_s:
                wake_s = due_s if wake_s is None else min(wake_s, due_s)
                break
            if not self._breaker.admit(now_s):
                retry_s = self._breaker.retry_at_s
                if retry_s > now_s:
                    wake_s = retry_s if wake_s is None else min(wake_s, retry_s)
                break
            take = self._queue.take_lane if single else self._queue.take
            parcels = take(limits.CALLBACK_BATCH_EVENTS_MAX, limits.CALLBACK_BATCH_SIZE_BYTES_MAX)
            self._start_delivery(self._courier, parcels, single)
        if wake_s is not None:
            self._pump_at(wake_s)
        self._catch_up.wake(self._breaker.closed)
        if self._finished():
            self._idle.set()

    def _due_s(self, single: bool, now_s: float) -> float | None:
        """When the next delivery may leave; None if nothing waits."""
        since_s = self._queue.ready_since_s()
        if since_s is None:
            return None
        full = (
            self._queue.ready_events >= limits.CALLBACK_BATCH_EVENTS_MAX
            or self._queue.ready_size_bytes >= limits.CALLBACK_BATCH_SIZE_BYTES_MAX
        )
        if single or full or self._draining:
            return now_s
        return since_s + limits.CALLBACK_BATCH_AGE_MS_MAX / 1000

    def _pump_at(self, when_s: float) -> None:
        if self._timer is not None:
            if self._timer_s <= when_s:
                return
            self._timer.cancel()
        self._timer_s = when_s
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, when_s - clock.monotonic_s()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _start_delivery(self, courier: Courier, parcels: list[Parcel], single: bool) -> None:
        task = asyncio.create_task(courier.deliver(parcels, single))
        self._deliveries.add(task)
        task.add_done_callback(self._on_delivered)

    def _on_delivered(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a callback delivery ended unexpectedly", exc_info=error)
        self._pump()

    def _finished(self) -> bool:
        """Whether draining has nothing left to wait for."""
        return self._draining and not self._deliveries and (not self._queue.ready_events or not self._breaker.closed)

    # --- housekeeping ---

    async def _tick(self) -> None:
        ticks = 0
        while True:  # Until drained.
            self._set_gauges()
            ticks += 1
            if ticks % _EXPIRY_TICKS == 0:
                self._expire()
            await asyncio.sleep(_TICK_S)

    def _set_gauges(self) -> None:
        self._metrics.callback_queue_events.set(self._queue.events)
        self._metrics.callback_breaker_open.set(not self._breaker.closed)
        oldest_ms = self._queue.oldest_ms()
        age_s = 0.0 if oldest_ms is None else max(0.0, (self._wall_ms() - oldest_ms) / 1000)
        self._metrics.callback_oldest_age.set(age_s)

    def _expire(self) -> None:
        before_ms = self._wall_ms() - limits.OUTBOX_AGE_S_MAX * 1000
        for execution_id, sequence, events in self._queue.expire(before_ms, clock.monotonic_s()):
            self._catch_up.give_up(execution_id, sequence, events)
