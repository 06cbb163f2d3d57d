"""The callback queue against a model of the outbox: whatever happens in whatever order, events go out in sequence, none
is forgotten, and memory stays within its bounds."""

import random

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowProgressEvent
from fastrunner.base import limits
from fastrunner.callback import queue as queue_module
from fastrunner.callback.queue import EventQueue, Lane, Parcel
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.progress.wire import first_timestamp_ms, frames, offset_after


def row(execution_id: str, first: int, last: int) -> UnacknowledgedEvents:
    events = [
        WorkflowProgressEvent(workflow_execution_id=execution_id, sequence_number=number, timestamp_ms=number)
        for number in range(first, last + 1)
    ]
    request = ReportProgressBatchRequest(events=events)
    return UnacknowledgedEvents(execution_id, first, last, request.SerializeToString())


class World:
    """An outbox, a receiver, and a queue between them, driven at random."""

    def __init__(self, seed: int, events_max: int) -> None:
        self.random = random.Random(seed)
        self.queue = EventQueue(events_max)
        self.rows: dict[str, list[UnacknowledgedEvents]] = {}
        self.acknowledged: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self.flights: list[list[Parcel]] = []
        self.lookups: list[tuple[Lane, list[UnacknowledgedEvents]]] = []
        self.page: list[UnacknowledgedEvents] | None = None
        self.cursor: tuple[str, int] = ("", 0)
        self.in_pass = False
        self.now = 0.0

    def commit(self, announced: bool = True) -> None:
        name = f"e-{self.random.randrange(30):02}"
        rows = self.rows.setdefault(name, [])
        first = rows[-1].last_sequence + 1 if rows else 1
        new = row(name, first, first + self.random.randrange(5))
        rows.append(new)
        if announced:
            self.queue.offer(new, self.now, 0)

    def unacknowledged(self, name: str) -> list[UnacknowledgedEvents]:
        return [one for one in self.rows[name] if one.last_sequence > self.acknowledged.get(name, 0)]

    def begin_read(self) -> None:
        """The store answers with what holds now; the answer is used some steps later."""
        if self.page is None and self.queue.behind:
            if not self.in_pass:
                self.queue.begin_pass()
                self.in_pass, self.cursor = True, ("", 0)
            found = [one for name in sorted(self.rows) for one in self.unacknowledged(name)]
            after = [one for one in found if (one.execution_id, one.first_sequence) > self.cursor]
            self.page = after[:7]
        if (lane := self.queue.look_up_next()) is not None:
            if lane.tail >= 0:
                found = [one for one in self.rows[lane.execution_id] if one.last_sequence > lane.tail]
            else:
                found = self.unacknowledged(lane.execution_id)[:1]
            self.lookups.append((lane, found[:3]))

    def end_read(self) -> None:
        if self.page is not None:
            for one in self.page:
                if not self.queue.admit(one, self.now, 0):
                    break
                self.cursor = (one.execution_id, one.first_sequence)
            else:
                if not self.page:
                    self.queue.end_pass()
                    self.in_pass = False
            self.page = None
        for lane, found in self.lookups:
            self.queue.extend(lane, [(one, 0) for one in found], self.now)
        self.lookups.clear()

    def send(self) -> None:
        parcels = self.queue.take(12, 10_000) if self.random.random() < 0.8 else self.queue.take_lane(5, 10_000)
        if parcels:
            self.flights.append(parcels)

    def land(self) -> None:
        if not self.flights:
            return
        parcels = self.flights.pop(self.random.randrange(len(self.flights)))
        for lane in dict.fromkeys(parcel.lane for parcel in parcels):
            mine = [parcel for parcel in parcels if parcel.lane is lane]
            name, first, last = lane.execution_id, mine[0].first, mine[-1].last
            assert [one.first for one in mine[1:]] == [one.last + 1 for one in mine[:-1]]
            for parcel in mine:
                assert len(list(frames(parcel.messages))) == parcel.events
                assert first_timestamp_ms(parcel.messages) == parcel.first
            assert first <= self.received.get(name, 0) + 1, "events were skipped"
            upto = self.random.choice([last, last, self.random.randint(first - 1, last), first - 1])
            self.received[name] = max(upto, self.received.get(name, 0))
            if upto >= first:
                self.acknowledged[name] = max(upto, self.acknowledged.get(name, 0))
            if self.random.random() < 0.7:
                self.queue.settle(lane, upto, self.now)
            elif self.random.random() < 0.9:
                self.queue.delay(lane, upto, self.now + 3, self.random.random() < 0.5)
            else:
                self.received[name] = self.acknowledged.get(name, 0)
                self.queue.rewind(lane, self.received[name], self.now)

    def step(self) -> None:
        self.now += 1
        self.queue.wake(self.now)
        assert self.queue.events <= self.queue.announced.events_max + self.queue.stored.events_max
        assert len(self.queue.lookups) <= limits.CALLBACK_LOOKUPS_MAX
        assert len(self.queue._delayed) <= limits.CALLBACK_LOOKUPS_MAX
        positions = self.queue._positions
        assert len(positions._young) + len(positions._old) <= limits.CALLBACK_POSITIONS_MAX
        ready = [p for lane in self.queue.lanes.values() if lane.place is queue_module.Place.READY for p in lane.rows]
        assert self.queue.ready_events == sum(parcel.events for parcel in ready)
        assert self.queue.ready_size_bytes == sum(len(parcel.messages) for parcel in ready)


@pytest.mark.parametrize("seed", range(100))
def test_nothing_is_skipped_or_forgotten(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.CALLBACK_LOOKUPS_MAX", 4)
    monkeypatch.setattr("fastrunner.base.limits.CALLBACK_POSITIONS_MAX", 12)
    world = World(seed, events_max=40)
    for _ in range(20):
        world.commit(announced=False)
    for _ in range(600):
        acts = (world.commit, world.begin_read, world.end_read, world.send, world.land)
        world.random.choices(acts, weights=(4, 3, 3, 3, 3))[0]()
        world.step()
    for _ in range(3_000):
        world.begin_read()
        world.end_read()
        world.send()
        world.land()
        world.step()
        if not world.queue.lanes and not world.queue.behind and not world.flights:
            break
    wanted = {name: rows[-1].last_sequence for name, rows in world.rows.items()}
    assert world.received == wanted
    assert world.queue.events == 0
    assert world.queue.stored.size_bytes == world.queue.announced.size_bytes == 0


def test_old_events_are_given_up_but_not_those_in_flight() -> None:
    queue = EventQueue(100)
    queue.begin_pass()
    queue.end_pass()
    for name in ("a", "b"):
        queue.offer(row(name, 1, 2), 0.0, 1_000)
        queue.offer(row(name, 3, 4), 0.0, 5_000)
    flight = queue.take_lane(10, 10_000)
    assert queue.oldest_ms() == 1_000
    assert queue.expire(2_000, 1.0) == [("b", 2, 2)]
    assert queue.settle(flight[0].lane, 4, 1.0) == 4
    assert [(parcel.first, parcel.last) for parcel in queue.take(10, 10_000)] == [(3, 4)]


def test_events_are_cut_without_being_decoded() -> None:
    messages = row("e", 1, 5).messages
    size = len(messages) // 5
    assert offset_after(messages, 2, len(messages)) == (2, 2 * size)
    assert offset_after(messages, 5, 3 * size + 1) == (3, 3 * size)
    assert offset_after(messages, 5, 1) == (1, size), "at least one"
    for broken in (b"\x12\x00", b"\x0a", b"\x0a\x05abc", b"\x0a\xff\xff\xff\xff\xff\x01"):
        with pytest.raises(ValueError, match="byte"):
            list(frames(broken))


def test_events_and_bytes_in_memory() -> None:
    """New events leave room for those that are read back; neither takes more than its part of events or of bytes."""
    share = limits.CALLBACK_QUEUE_EVENTS_MAX - limits.CALLBACK_CATCH_UP_EVENTS_MAX
    messages = row("e", 1, 100).messages
    queue = EventQueue()
    for number in range(share // 100 + 10):
        queue.offer(UnacknowledgedEvents(f"new-{number}", 1, 100, messages), 0.0, 0)
    assert queue.events == queue.announced.events == share
    admitted = [
        queue.admit(UnacknowledgedEvents(f"old-{number}", 1, 100, messages), 0.0, 0)
        for number in range(limits.CALLBACK_CATCH_UP_EVENTS_MAX // 100 + 10)
    ]
    assert admitted.count(True) * 100 == queue.stored.events == limits.CALLBACK_CATCH_UP_EVENTS_MAX
    assert queue.events == limits.CALLBACK_QUEUE_EVENTS_MAX

    large = bytes(1 << 20)
    queue = EventQueue()
    for number in range(100):
        queue.offer(UnacknowledgedEvents(f"new-{number}", 1, 1, large), 0.0, 0)
        queue.admit(UnacknowledgedEvents(f"old-{number}", 1, 1, large), 0.0, 0)
    size_bytes = queue.announced.size_bytes + queue.stored.size_bytes
    assert limits.CALLBACK_QUEUE_SIZE_BYTES_MAX - 2 * len(large) < size_bytes <= limits.CALLBACK_QUEUE_SIZE_BYTES_MAX


def test_an_id_that_is_used_again_begins_anew() -> None:
    """Its first execution was delivered, then deleted: what the queue remembers of it is not true of the second."""
    queue = EventQueue()
    queue.begin_pass()
    queue.end_pass()
    for last in (9, 4):
        queue.offer(row("e", 1, last), 0.0, 0)
        (parcel,) = queue.take(100, 1 << 20)
        assert (parcel.first, parcel.last) == (1, last)
        queue.settle(parcel.lane, last, 0.0)
    # Left to the outbox, it is not taken for one that was delivered.
    queue.offer(row("e", 1, 9), 0.0, 0)
    queue.settle(queue.take(100, 1 << 20)[0].lane, 9, 0.0)
    full = EventQueue(events_max=2)
    full.offer(row("e", 1, 1), 0.0, 0)
    full.settle(full.take(100, 1 << 20)[0].lane, 1, 0.0)
    full.offer(row("other", 1, 2), 0.0, 0)
    full.offer(row("e", 1, 1), 0.0, 0)
    full.begin_pass()
    assert full.admit(row("e", 1, 1), 0.0, 0)
    assert {parcel.lane.execution_id for parcel in full.take(100, 1 << 20)} == {"other", "e"}
