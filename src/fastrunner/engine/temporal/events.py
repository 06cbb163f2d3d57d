"""Stage 3, journal: a replica's door to the bus that Temporal keeps (see `bus`), and the activities of events.

    emit, SendEvents, POST /events, what executions listen for -> gathered -> one update of the bus at a time -> answers

Rules: whoever publishes hears once the bus has its events. What comes while an update is under way is the next one, so
a replica's events keep their order, and many cost the bus little more than one. Publishing once more what a crash has
cut off is harmless: the bus knows duplicates.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self

import orjson
from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from fastrunner.access.sealing import DataKeys, Sealer
from fastrunner.base import clock, limits
from fastrunner.base.sinks import Mode, SinkAddress
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.temporal.activities import AT_ONCE, beating
from fastrunner.engine.temporal.bus_workflow import EventsWorkflow
from fastrunner.engine.temporal.client import Connection, sentence_of, unavailable
from fastrunner.engine.temporal.codec import converter_of
from fastrunner.engine.temporal.event_messages import (
    BUS_SEMANTICS,
    DELIVER,
    EVENTS,
    HEAR_SIGNAL,
    LISTEN,
    PUBLISH_UPDATE,
    SEND,
    SINK,
    BusStart,
    Delivery,
    Heard,
    HeardEvent,
    Published,
    Publishing,
    Receipt,
    Registration,
    Sending,
    SinkStart,
    Target,
    bus_id_of,
    sink_id_of,
)
from fastrunner.engine.temporal.messages import TASK_QUEUE
from fastrunner.errors import AtCapacity, RunnerError, Stopping, TooLarge, Unavailable
from fastrunner.events.attributes import checked
from fastrunner.events.sinks.delivery import Delivery as SinkDelivery
from fastrunner.events.sinks.delivery import Post

__all__ = ["EventActivities", "TemporalEvents"]

_log = logging.getLogger(__name__)

_ANSWER: Final = timedelta(seconds=limits.TEMPORAL_ANSWER_S_MAX)


@dataclass(slots=True, eq=False)
class _Pending:
    """A call that awaits its answer."""

    call: Published
    size_bytes: int
    answer: "asyncio.Future[Receipt]"


class TemporalEvents:
    """The events of all executions of a task queue, as one replica has them."""

    def __init__(
        self,
        retention_s: float,
        metrics: Metrics,
        *,
        sinks: Sequence[SinkAddress] = (),
        post: Post | None = None,
        history_events_max: int = limits.TEMPORAL_HISTORY_EVENTS_MAX,
    ) -> None:
        """Not connected yet: until then, nothing is taken. `sinks` have what is emitted, by `post`, which is closed
        with this."""
        self.sinks = {address.name: address for address in sinks}
        """Who has what is emitted, by name."""
        self.post = post
        """Sends to sinks; None: nothing is sent."""
        self.sent = {outcome: metrics.events_sent.labels(outcome) for outcome in ("delivered", "retried", "dropped")}
        """What became of events for sinks."""
        self.delivery = None if post is None else SinkDelivery(post, self.sent, metrics.event_sinks_failing)
        """Sends to them; None where none are configured."""
        self._begun = BusStart(history_events_max=history_events_max, semantics=BUS_SEMANTICS)
        self._retention_ms = int(retention_s * 1000)
        self._outcomes = {outcome: metrics.events_published.labels(outcome) for outcome in ("new", "duplicate")}
        self._connection: Connection | None = None
        self._task_queue = TASK_QUEUE
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._publishing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def connect(self, connection: Connection, task_queue: str = TASK_QUEUE) -> None:
        """Sees to it that there is a bus; from here on events are taken. Raises
        RPCError."""
        self._task_queue = task_queue
        await self._open(connection.client)
        self._connection = connection

    async def _open(self, client: Client) -> None:
        await client.start_workflow(
            EVENTS,
            self._begun,
            id=bus_id_of(self._task_queue),
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="CloudEvents and who listens for them: leave it running",
            rpc_timeout=_ANSWER,
        )

    # --- publishing ---

    async def publish(self, events: Sequence[Mapping[str, Any]], namespaces: frozenset[str] | None) -> Sequence[int]:
        """Each event's number; a duplicate's is that of its first. All are durable, or none is known to be.

        `namespaces`: whose workflows they reach; None: everybody's. Raises InvalidRequest, TooLarge, AtCapacity,
        Unavailable.
        """
        texts: list[str] = []
        began_s = clock.monotonic_s()
        for at, event in enumerate(events):
            texts.append(checked(event, f"events[{at}]").decode())
            # Others have the loop in between.
            if clock.monotonic_s() - began_s > limits.BATCH_TURN_S_MAX:
                await asyncio.sleep(0)
                began_s = clock.monotonic_s()
        if not texts:
            return []
        call = Published(texts, None if namespaces is None else sorted(namespaces))
        return (await self._told(call)).keys

    async def emit(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Publishes one event to everybody; gives it as it is kept: a duplicate's is the first one. Raises
        InvalidRequest, TooLarge, AtCapacity; ApplicationError if the worker stops."""
        text = checked(event, "event").decode()
        delay_s = limits.COMMIT_RETRY_DELAY_S_MIN
        while True:
            try:
                receipt = await self._told(Published([text], wants_first=True, sinks=list(self.sinks)))
            except Stopping as stopping:
                # Another worker takes the activity, and publishes the event, maybe again.
                raise ApplicationError(stopping.message, type="Stopping", next_retry_delay=AT_ONCE) from None
            except Unavailable as trouble:
                # It may have been published: that must not be taken for refused.
                _log.warning("an event cannot be published now: %s", trouble.message)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, limits.COMMIT_RETRY_DELAY_S_MAX)
                continue
            published: Mapping[str, Any] = orjson.loads(receipt.first or text)
            return published

    async def listen(self, registration: Registration) -> int:
        """Has the bus know what somebody waits for; the number of its latest event. Raises AtCapacity, Unavailable."""
        receipt = await self._told(Published(registration=registration))
        # A build of before tells none.
        return receipt.keys[0] if receipt.keys else 0

    async def _told(self, call: Published) -> Receipt:
        size_bytes = sum(len(text.encode()) for text in call.events)
        size_bytes += len(call.events) * limits.TEMPORAL_BUS_OVERHEAD_SIZE_BYTES
        bound = limits.TEMPORAL_BUS_EVENTS_SIZE_BYTES_MAX
        if size_bytes > bound:
            raise TooLarge(
                f"the events have {size_bytes} bytes together: at most {bound} are taken at once where Temporal keeps "
                "executions; send several requests"
            )
        if self._is_closed:
            raise Stopping("the worker is stopping: try again")
        if self._connection is None:
            raise Unavailable("the runner is not connected to Temporal: try again")
        if self._pending_bytes + size_bytes > limits.EVENTS_PENDING_SIZE_BYTES_MAX:
            raise AtCapacity("more events wait to be written than may: try again")
        pending = _Pending(call, size_bytes, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._pending_bytes += size_bytes
        if self._publishing is None:
            self._publishing = asyncio.create_task(self._publish_pending(self._connection))
        receipt = await asyncio.shield(pending.answer)
        if receipt.refusal:
            raise AtCapacity(receipt.refusal)
        return receipt

    async def _publish_pending(self, connection: Connection) -> None:
        try:
            while self._pending:
                taken = self._taken()
                try:
                    receipts = await self._update(connection.client, [each.call for each in taken])
                except asyncio.CancelledError:
                    self._answer(taken, Stopping("the worker is stopping: try again"))
                    raise
                except Exception as error:
                    if not isinstance(error, RunnerError):
                        _log.exception("events could not be published")
                    self._answer(taken, error)
                else:
                    self._answer(taken, receipts)
        finally:
            self._publishing = None

    def _taken(self) -> list[_Pending]:
        """What goes into the next update: one call at least."""
        taken: list[_Pending] = []
        size_bytes = 0
        while self._pending:
            size_bytes += self._pending[0].size_bytes
            if taken and (
                size_bytes > limits.TEMPORAL_BUS_EVENTS_SIZE_BYTES_MAX or len(taken) >= limits.TEMPORAL_BUS_CALLS_MAX
            ):
                break
            taken.append(self._pending.popleft())
        return taken

    def _answer(self, taken: Sequence[_Pending], answer: Sequence[Receipt] | Exception) -> None:
        for at, each in enumerate(taken):
            self._pending_bytes -= each.size_bytes
            if not isinstance(answer, Exception):
                for is_new in answer[at].are_new:
                    self._outcomes["new" if is_new else "duplicate"].inc()
            if each.answer.done():
                continue
            if isinstance(answer, Exception):
                each.answer.set_exception(answer)
                # Whoever asked may be gone.
                each.answer.exception()
            else:
                each.answer.set_result(answer[at])

    async def _update(self, client: Client, calls: list[Published]) -> list[Receipt]:
        """Raises Unavailable: nobody knows, then, whether the bus has them."""
        publishing = Publishing(calls, self._retention_ms)
        for is_last in (False, True):
            handle = client.get_workflow_handle_for(EventsWorkflow.run, bus_id_of(self._task_queue))
            try:
                # The library asks again and again, however long one request may take.
                async with asyncio.timeout(limits.TEMPORAL_PUBLISH_S_MAX):
                    receipts: list[Receipt] = await handle.execute_update(
                        PUBLISH_UPDATE, publishing, result_type=list[Receipt]
                    )
                return receipts
            except WorkflowUpdateFailedError as error:
                raise Unavailable(f"the bus of events has not taken them ({error.cause}): try again") from None
            except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
                raise Unavailable("no worker of the runner has answered in time: try again") from None
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND or is_last:
                    raise unavailable(error) from None
                # Somebody has ended it.
                await self._open(client)
        raise AssertionError("the last attempt answers")

    @classmethod
    async def connected(cls, config: Config, keys: DataKeys | None, metrics: Metrics) -> Self:
        """One that publishes and does nothing else, of a process that has no engine; `keys` seal histories. Raises
        Unavailable."""
        events = cls(config.event_retention_s, metrics)
        connection = Connection(config, converter_of(None if keys is None else Sealer(keys), None))
        try:
            await connection.connect()
            await events.connect(connection)
        except (OSError, RPCError, RuntimeError, ValueError) as error:
            trouble = sentence_of(error, config)
            _log.warning("events cannot be taken: %s", trouble)
            raise Unavailable(f"events cannot be taken now: {trouble}") from None
        connection.watch(lambda _: None)
        return events

    async def close(self) -> None:
        """Takes nothing more, and waits for what is being published, but not for long. Call while workers work."""
        self._is_closed = True
        publishing = self._publishing
        if publishing is not None:
            await asyncio.wait({publishing}, timeout=limits.TEMPORAL_ANSWER_S_MAX)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
        self._answer(list(self._pending), Stopping("the worker is stopping: try again"))
        self._pending.clear()

    async def close_sinks(self) -> None:
        """Closes what sends to sinks. Call when workers work no more."""
        if self.post is not None:
            await self.post.close()


class EventActivities:
    """The activities of events, of one worker."""

    def __init__(self, connection: Connection, events: TemporalEvents) -> None:
        self._connection = connection
        self._events = events

    @activity.defn(name=LISTEN)
    async def listen(self, registration: Registration) -> None:
        """Tells the bus what an execution waits for. Raises ApplicationError, for Temporal to try again."""
        try:
            await beating(self._events.listen(registration))
        except RunnerError as refusal:
            raise ApplicationError(refusal.message, type=type(refusal).__name__) from None

    @activity.defn(name=DELIVER)
    async def deliver(self, delivery: Delivery) -> list[str]:
        """Tells listeners of events; gives those that are not there any more. Raises RPCError."""
        return await beating(self._deliver(delivery))

    async def _start_sink(self, name: str, heard: Heard) -> None:
        """Has the workflow of a sink hear of events, and be there. Raises RPCError."""
        task_queue = activity.info().task_queue
        await self._connection.client.start_workflow(
            SINK,
            SinkStart(name),
            id=sink_id_of(task_queue, name),
            task_queue=task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=HEAR_SIGNAL,
            start_signal_args=[heard],
            rpc_timeout=_ANSWER,
        )

    @activity.defn(name=SEND)
    async def send(self, sending: Sending) -> None:
        """Sends events to a sink until it has taken them."""
        await beating(self._send(sending))

    async def _send(self, sending: Sending) -> None:
        address, delivery = self._events.sinks.get(sending.name), self._events.delivery
        if sending.dropped_count:
            self._events.sent["dropped"].inc(sending.dropped_count)
            _log.error("%d events for a sink are given up: there is no room for more", sending.dropped_count)
        if address is None or delivery is None:
            self._events.sent["dropped"].inc(len(sending.events))
            _log.error("%d events are given up: their sink is not in FASTRUNNER_EVENT_SINKS", len(sending.events))
            return
        events = [orjson.loads(text) for text in sending.events]
        is_batch = address.mode is Mode.BATCH and len(events) > 1
        if is_batch and await delivery.deliver(address, events, is_last=False):
            return
        # One of them is at fault, or the sink takes them one by one.
        for each in events:
            await delivery.deliver(address, [each], is_last=True)

    async def _deliver(self, delivery: Delivery) -> list[str]:
        room = asyncio.Semaphore(limits.TEMPORAL_SIGNALS_AT_ONCE_MAX)

        async def tell(target: Target) -> bool:
            async with room:
                return await self._tell(target, delivery)

        are_there = await asyncio.gather(*map(tell, delivery.targets))
        return [
            target.listener_id for target, is_there in zip(delivery.targets, are_there, strict=True) if not is_there
        ]

    async def _tell(self, target: Target, delivery: Delivery) -> bool:
        """Whether somebody is there."""
        events = []
        for key, subscriptions in target.events:
            received_ms = delivery.received_ms.get(str(key), 0)
            events.append(HeardEvent(key, subscriptions, delivery.events[str(key)], received_ms))
        heard = Heard(events, delivery.oldest_key)
        if target.sink:
            await self._start_sink(target.listener_id, heard)
            return True
        try:
            handle = self._connection.client.get_workflow_handle(target.listener_id)
            await handle.signal(HEAR_SIGNAL, heard, rpc_timeout=_ANSWER)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True
