"""Bounds of the callback pipeline that are times, or what is under way at once, to the virtual millisecond."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowProgressEvent
from fastrunner.base import clock, limits
from fastrunner.callback import CallbackPipeline
from fastrunner.callback.client import DeliveryFailed, Reaction
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EventsListener, UnacknowledgedEvents
from fastrunner.progress.wire import split
from fastrunner.tracing.span import Span
from tests.simulation.pace import live
from tests.simulation.virtual import VirtualTime


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    virtual = VirtualTime()
    monkeypatch.setattr(clock, "time", virtual)
    return virtual


def now_s() -> float:
    return asyncio.get_running_loop().time()


def row(execution_id: str, events: int = 1, filler: str = "") -> UnacknowledgedEvents:
    """A whole execution."""
    messages = [
        WorkflowProgressEvent(
            workflow_execution_id=execution_id,
            event_type="workflow_completed" if number == events else "task_completed",
            sequence_number=number,
            timestamp_ms=clock.wall_ms(),
            message=filler,
        )
        for number in range(1, events + 1)
    ]
    return UnacknowledgedEvents(
        execution_id, 1, events, ReportProgressBatchRequest(events=messages).SerializeToString()
    )


class Outbox:
    """Rows in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, UnacknowledgedEvents] = {}
        self.pages: list[int] = []
        self._listener: EventsListener | None = None

    def listen(self, listener: EventsListener) -> None:
        self._listener = listener

    def commit(self, *rows: UnacknowledgedEvents) -> None:
        self.rows.update((each.execution_id, each) for each in rows)
        assert self._listener is not None
        for each in rows:
            self._listener(each)

    async def unacknowledged(self, after: tuple[str, int] | None, rows_max: int) -> list[UnacknowledgedEvents]:
        found = [self.rows[name] for name in sorted(self.rows) if (name, 1) > (after or ("", 0))][:rows_max]
        self.pages.append(len(found))
        return found

    async def unacknowledged_of(
        self, execution_id: str, from_sequence: int, size_bytes_max: int
    ) -> list[UnacknowledgedEvents]:
        return [self.rows[execution_id]] if execution_id in self.rows else []

    def acknowledge(self, execution_id: str, sequence: int) -> None:
        if execution_id in self.rows and self.rows[execution_id].last_sequence <= sequence:
            del self.rows[execution_id]

    def give_up(self, execution_id: str, sequence: int) -> None:
        self.acknowledge(execution_id, sequence)

    def keep_span(self, execution_id: str, span: Span) -> None:
        """Nothing is traced here."""


class Receiver:
    """Takes everything, unless told otherwise; notes when it was asked."""

    def __init__(self) -> None:
        self.delay_s = 0.001
        self.refusal: DeliveryFailed | None = None
        self.batches = True
        self.batch_times: list[float] = []
        self.batch_sizes: list[tuple[int, int]] = []
        """Events and bytes of each batch."""
        self.at_once = self.at_once_max = 0

    async def report_batch(self, request: bytes, patient: bool) -> dict[str, int]:
        self.batch_times.append(now_s())
        messages = list(split(request))
        self.batch_sizes.append((len(messages), len(request)))
        await self._take()
        if not self.batches:
            raise DeliveryFailed(Reaction.FALL_BACK, "UNIMPLEMENTED", "simulated")
        events = map(WorkflowProgressEvent.FromString, messages)
        return {event.workflow_execution_id: event.sequence_number for event in events}

    async def report(self, event: bytes, patient: bool) -> None:
        await self._take()

    async def _take(self) -> None:
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        await asyncio.sleep(self.delay_s)
        self.at_once -= 1
        if self.refusal is not None:
            raise self.refusal

    async def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def delivering(outbox: Outbox, receiver: Receiver) -> AsyncIterator[CallbackPipeline]:
    """A started pipeline that has seen that the outbox held nothing before, or has read what it held."""
    config = Config(data_dir=Path("/nowhere"), stigmer_service_endpoint="localhost:1")
    pipeline = CallbackPipeline(config, outbox, Metrics(CollectorRegistry()), make_client=lambda *_: receiver)
    await pipeline.start()
    await asyncio.sleep(0.1)
    try:
        yield pipeline
    finally:
        receiver.refusal, receiver.delay_s = None, 0.0
        await pipeline.drain(1.0)


async def until_delivered(outbox: Outbox) -> None:
    end_s = now_s() + 1_000
    while outbox.rows:
        assert now_s() < end_s
        await asyncio.sleep(0.001)


def test_event_waits_for_company(time: VirtualTime) -> None:
    async def main() -> None:
        outbox, receiver = Outbox(), Receiver()
        async with delivering(outbox, receiver):
            began_s = now_s()
            outbox.commit(row("e-0"))
            await until_delivered(outbox)
            [sent_s] = receiver.batch_times
            assert sent_s - began_s == pytest.approx(limits.CALLBACK_BATCH_AGE_MS_MAX / 1000, abs=0.001)

    live(time, main())


@pytest.mark.parametrize(("events", "filler"), [(7, ""), (1_200, ""), (3, "x" * 60_000), (40, "x" * 60_000)])
def test_what_one_batch_holds(time: VirtualTime, events: int, filler: str) -> None:
    """Many small rows, rows beyond a batch, and large events: a batch is as full as it may be, and no fuller."""

    async def main() -> None:
        outbox, receiver = Outbox(), Receiver()
        async with delivering(outbox, receiver):
            outbox.commit(*(row(f"e-{number}", events, filler) for number in range(12 if events > 7 else 200)))
            await until_delivered(outbox)
        counts, sizes = zip(*receiver.batch_sizes, strict=True)
        count_max, size_bytes_max = limits.CALLBACK_BATCH_EVENTS_MAX, limits.CALLBACK_BATCH_SIZE_BYTES_MAX
        assert max(counts) <= count_max
        assert max(sizes) <= size_bytes_max
        assert max(sizes) > 0.8 * size_bytes_max if filler else max(counts) > 0.8 * count_max

    live(time, main())


def test_batches_under_way_at_once(time: VirtualTime) -> None:
    async def main() -> None:
        outbox, receiver = Outbox(), Receiver()
        receiver.delay_s = 0.5
        async with delivering(outbox, receiver):
            outbox.commit(*(row(f"e-{number}", 100) for number in range(100)))
            await until_delivered(outbox)
        assert receiver.at_once_max == limits.CALLBACK_BATCHES_IN_FLIGHT_MAX

    live(time, main())


def test_single_events_under_way_at_once(time: VirtualTime) -> None:
    async def main() -> None:
        outbox, receiver = Outbox(), Receiver()
        receiver.batches = False
        async with delivering(outbox, receiver):
            outbox.commit(row("first"))
            await until_delivered(outbox)
            receiver.delay_s = 0.5
            outbox.commit(*(row(f"e-{number}") for number in range(300)))
            await until_delivered(outbox)
        assert receiver.at_once_max == limits.CALLBACK_IN_FLIGHT_MAX

    live(time, main())


def test_batches_are_tried_again_after_a_while(time: VirtualTime) -> None:
    async def main() -> None:
        outbox, receiver = Outbox(), Receiver()
        receiver.batches = False
        async with delivering(outbox, receiver):
            for number in range(200):
                outbox.commit(row(f"e-{number}"))
                await asyncio.sleep(1)
            pauses = [after - before for before, after in pairwise(receiver.batch_times)]
        assert len(pauses) == 3
        assert all(limits.CALLBACK_BATCH_RETRY_S <= pause <= limits.CALLBACK_BATCH_RETRY_S + 1.1 for pause in pauses)

    live(time, main())


def test_quick_attempts_and_their_pauses(time: VirtualTime) -> None:
    async def main() -> None:
        outbox, receiver = Outbox(), Receiver()
        receiver.refusal = DeliveryFailed(Reaction.RETRY, "UNAVAILABLE", "simulated")
        async with delivering(outbox, receiver) as pipeline:
            outbox.commit(row("e-0"))
            while not pipeline.suspended:  # noqa: ASYNC110 - virtual time has to pass
                await asyncio.sleep(0.001)
            assert len(receiver.batch_times) == limits.CALLBACK_ATTEMPTS_QUICK_MAX
            shortest_s = limits.CALLBACK_BACKOFF_MS_MIN / 1000
            for number, (before_s, after_s) in enumerate(pairwise(receiver.batch_times)):
                pause_s = shortest_s * 2**number
                assert 0.5 * pause_s <= after_s - before_s <= 1.5 * pause_s + 0.01

    live(time, main())


def test_rows_that_are_read_back_at_once(time: VirtualTime) -> None:
    async def main() -> None:
        outbox, receiver = Outbox(), Receiver()
        outbox.rows = {f"e-{number:04}": row(f"e-{number:04}") for number in range(1_000)}
        async with delivering(outbox, receiver):
            await until_delivered(outbox)
        assert max(outbox.pages) == limits.CALLBACK_PAGE_ROWS_MAX

    live(time, main())
