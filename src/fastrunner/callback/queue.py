"""Stage 7, callback: what waits in memory to be sent. Pure data: no I/O, no clock, no asyncio.

Theory of operation. The outbox on disk is the truth; this queue is a bounded window on it. An execution with events in
the window has a **lane**; a lane is in exactly one place (`Place`) and is dropped when nothing of it is left. New
events arrive by `offer`, right after their commit; events from before, or left behind when memory was full, by `admit`
(pages of the outbox) and `extend` (rows of one execution). The two sources have budgets and turns of their own.

Rules for order, which everything here serves:
- A lane's events are contiguous, and only the lane's one flight is ever under way.
- `behind` on the queue: rows may exist that no lane holds. Then an announced row is taken only if it is known to be the
  next one (first of its execution, or next after a remembered position); else its lane is read from the outbox.
- `behind` on a lane: the outbox has rows after the lane's last one, so announced rows are left to the outbox.
"""

import heapq
from collections import deque
from dataclasses import dataclass
from enum import Enum

from fastrunner.base import limits
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.progress.wire import offset_after

__all__ = ["EventQueue", "Lane", "Parcel", "Place"]

UNKNOWN = -1
"""A position that only the outbox knows."""


class Place(Enum):
    """Where a lane is."""

    READY = "ready"
    IN_FLIGHT = "in flight"
    DELAYED = "delayed"
    LOOKUP = "lookup"


@dataclass(slots=True)
class Parcel:
    """Contiguous events of one execution."""

    lane: "Lane"
    """The lane they belong to."""
    first: int
    """Sequence number of the first event."""
    last: int
    """Sequence number of the last event."""
    messages: bytes
    """The events, each a length-delimited field 1."""
    stored_ms: int
    """When the first event happened, in milliseconds since the epoch."""

    @property
    def events(self) -> int:
        """How many."""
        return self.last - self.first + 1

    def cut(self, count: int, size_bytes_max: int) -> "tuple[Parcel, Parcel | None]":
        """The first `count` events, fewer if they do not fit but at least one, and the rest."""
        taken, offset = offset_after(self.messages, count, size_bytes_max)
        if taken >= self.events:
            return self, None
        middle = self.first + taken
        return (
            Parcel(self.lane, self.first, middle - 1, self.messages[:offset], self.stored_ms),
            Parcel(self.lane, middle, self.last, self.messages[offset:], self.stored_ms),
        )


class Budget:
    """Events and bytes one source may hold in memory."""

    __slots__ = ("events", "events_max", "size_bytes", "size_bytes_max")

    def __init__(self, events_max: int, size_bytes_max: int) -> None:
        self.events_max, self.size_bytes_max = events_max, size_bytes_max
        self.events = self.size_bytes = 0

    def room(self, events: int, size_bytes: int) -> bool:
        """Whether so much more fits; a single row always fits an empty budget."""
        if not self.events:
            return True
        return self.events + events <= self.events_max and self.size_bytes + size_bytes <= self.size_bytes_max


class Lane:
    """The window's part of one execution."""

    __slots__ = (
        "acknowledged", "behind", "budget", "execution_id", "failures", "flight", "missed", "place", "ready_s",
        "rewound", "rows", "tail", "trace", "wanted",
    )  # fmt: skip

    def __init__(self, execution_id: str, acknowledged: int, budget: Budget) -> None:
        self.execution_id = execution_id
        self.budget = budget
        self.rows: list[Parcel] = []
        self.flight: list[Parcel] = []
        self.acknowledged = self.tail = acknowledged
        self.behind = self.missed = self.rewound = False
        # The receiver asked for events it lacks: their age is no reason to give them up.
        self.wanted = False
        self.failures = 0
        # What is traced of its execution, as `ExecutionTrace.text` has it.
        self.trace = ""
        self.place = Place.IN_FLIGHT
        self.ready_s = 0.0


class Positions:
    """The last acknowledged sequence number of recently served executions, bounded by forgetting the older half."""

    def __init__(self) -> None:
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def get(self, execution_id: str) -> int:
        """The position, or UNKNOWN."""
        position = self._young.get(execution_id)
        return self._old.get(execution_id, UNKNOWN) if position is None else position

    def forget(self, execution_id: str) -> None:
        """Forgets one."""
        self._young.pop(execution_id, None)
        self._old.pop(execution_id, None)

    def put(self, execution_id: str, sequence: int) -> None:
        """Remembers a position."""
        self._young[execution_id] = sequence
        if len(self._young) * 2 >= limits.CALLBACK_POSITIONS_MAX:
            self._old, self._young = self._young, {}


class EventQueue:
    """The bounded window. Times are monotonic seconds unless named `_ms`."""

    def __init__(self, events_max: int = limits.CALLBACK_QUEUE_EVENTS_MAX) -> None:
        stored = min(limits.CALLBACK_CATCH_UP_EVENTS_MAX, events_max // 2)
        size = limits.CALLBACK_QUEUE_SIZE_BYTES_MAX
        self.announced = Budget(events_max - stored, size * 4 // 5)
        """Budget of events taken right after their commit."""
        self.stored = Budget(stored, size // 5)
        """Budget of events read back from the outbox."""
        self.lanes: dict[str, Lane] = {}
        """Executions with events in the window, or waiting to be looked up."""
        self.lookups: deque[Lane] = deque()
        """Lanes whose next rows must be read from the outbox."""
        self.behind = True
        """Whether rows may exist that no lane holds."""
        self.missed = False
        """Whether rows were left to the outbox since the current pass over it began."""
        self.ready_events = self.ready_size_bytes = 0
        self._ready: dict[int, deque[Lane]] = {id(self.announced): deque(), id(self.stored): deque()}
        self._turn, self._other_turn = self.announced, self.stored
        self._delayed: list[tuple[float, int, Lane]] = []
        self._delays = 0
        self._pass_at = ""
        self._positions = Positions()

    @property
    def events(self) -> int:
        """Events in memory, in flight included."""
        return self.announced.events + self.stored.events

    # --- events in ---

    def offer(self, row: UnacknowledgedEvents, now_s: float, now_ms: int) -> None:
        """Takes an announced row, or leaves it to the outbox."""
        if row.first_sequence == 1:
            self._begin(row.execution_id)
        lane = self.lanes.get(row.execution_id)
        events = row.last_sequence - row.first_sequence + 1
        if lane is not None:
            fits = row.first_sequence == lane.tail + 1 and lane.budget.room(events, len(row.messages))
            if lane.behind or not fits:
                lane.behind = lane.missed = True
            else:
                self._append(lane, row.first_sequence, row.last_sequence, row.messages, now_ms)
            return
        before = row.first_sequence - 1
        if self.behind and before and (position := self._positions.get(row.execution_id)) != before:
            self._look_up(self._open(row.execution_id, position, self.stored))
        elif self.announced.room(events, len(row.messages)):
            lane = self._open(row.execution_id, before, self.announced)
            lane.trace = row.trace
            self._append(lane, row.first_sequence, row.last_sequence, row.messages, now_ms)
            self._make_ready(lane, now_s)
        else:
            self._miss()

    def admit(self, row: UnacknowledgedEvents, now_s: float, stored_ms: int) -> bool:
        """Takes a row of a pass over the outbox unless it is known; False: no room, ask again later."""
        lane = self.lanes.get(row.execution_id)
        position = self._positions.get(row.execution_id)
        if lane is not None:
            self._continue(lane, row, stored_ms)
        elif self._pass_at == row.execution_id and position < row.first_sequence - 1:
            # The lane that took the rows before this one is gone, and perhaps not because they were delivered.
            self._miss()
        elif row.last_sequence > position:
            if not self.stored.room(row.last_sequence - row.first_sequence + 1, len(row.messages)):
                return False
            self._open_stored(row, position, now_s, stored_ms)
        self._pass_at = row.execution_id
        return True

    def _open_stored(self, row: UnacknowledgedEvents, position: int, now_s: float, stored_ms: int) -> None:
        lane = self._open(row.execution_id, max(position, row.first_sequence - 1), self.stored)
        self._append_rest(lane, row, stored_ms)
        self._make_ready(lane, now_s)

    def extend(self, lane: Lane, rows: list[tuple[UnacknowledgedEvents, int]], now_s: float) -> None:
        """Takes the rows a lookup found, with the time of their first events.

        The lane stays behind until a lookup finds nothing new and no row was announced while it was under way.
        """
        lane.behind = lane.missed
        for row, stored_ms in rows:
            if row.last_sequence <= lane.tail:
                continue
            if not lane.budget.room(row.last_sequence - row.first_sequence + 1, len(row.messages)):
                lane.behind = True
                break
            if row.first_sequence > lane.tail + 1:
                # First look at this execution, or retention has removed what came before.
                lane.tail = lane.acknowledged = row.first_sequence - 1
            self._append_rest(lane, row, stored_ms)
            lane.behind = True
        self._replace(lane, now_s)

    def look_up_next(self) -> Lane | None:
        """A lane to read rows for; it takes no rows but through `extend` meanwhile."""
        if not self.lookups or self.stored.events >= self.stored.events_max:
            return None
        lane = self.lookups.popleft()
        lane.place = Place.IN_FLIGHT
        lane.budget = self.stored
        lane.missed = False
        return lane

    # --- events out ---

    def ready_since_s(self) -> float | None:
        """Since when the first ready lane of either source waits."""
        heads = [lanes[0].ready_s for lanes in self._ready.values() if lanes]
        return min(heads) if heads else None

    def take(self, events_max: int, size_bytes_max: int) -> list[Parcel]:
        """The next batch: parcels of ready lanes, in order within each lane. Sources take turns to come first."""
        parcels: list[Parcel] = []
        self._turn, self._other_turn = self._other_turn, self._turn
        for budget in (self._turn, self._other_turn):
            lanes = self._ready[id(budget)]
            while lanes and events_max > 0 and size_bytes_max > 0:
                if parcels and not self._fits(lanes[0].rows[0], events_max, size_bytes_max):
                    return parcels
                lane = lanes.popleft()
                for parcel in self._fly(lane, events_max, size_bytes_max):
                    parcels.append(parcel)
                    events_max -= parcel.events
                    size_bytes_max -= len(parcel.messages)
        return parcels

    def take_lane(self, events_max: int, size_bytes_max: int) -> list[Parcel]:
        """Parcels of the next ready lane alone."""
        self._turn, self._other_turn = self._other_turn, self._turn
        for budget in (self._turn, self._other_turn):
            if lanes := self._ready[id(budget)]:
                return self._fly(lanes.popleft(), events_max, size_bytes_max)
        return []

    def settle(self, lane: Lane, sequence: int, now_s: float) -> int:
        """Ends a lane's flight: everything up to `sequence` is acknowledged, the rest waits again.

        Gives how many events were acknowledged.
        """
        acknowledged = self._land(lane, sequence)
        self._replace(lane, now_s)
        return acknowledged

    def delay(self, lane: Lane, sequence: int, until_s: float, keep: bool) -> int:
        """As `settle`, but the rest waits until a time; in memory only if `keep`."""
        acknowledged = self._land(lane, sequence)
        if not keep:
            self._forget(lane, lane.acknowledged)
        if not lane.rows and not lane.behind:
            self._replace(lane, until_s)
        elif len(self._delayed) >= limits.CALLBACK_LOOKUPS_MAX:
            self._drop(lane)
            self._miss()
        else:
            lane.place = Place.DELAYED
            self._delays += 1
            heapq.heappush(self._delayed, (until_s, self._delays, lane))
        return acknowledged

    def rewind(self, lane: Lane, sequence: int, now_s: float) -> None:
        """Ends a lane's flight: the receiver has only what goes up to `sequence`, so the rest is read again."""
        self._land(lane, UNKNOWN)
        self._forget(lane, sequence)
        lane.rewound = lane.wanted = True
        self._replace(lane, now_s)

    def wake(self, now_s: float) -> float | None:
        """Makes delayed lanes whose time has come wait for their turn; gives when the next one's comes."""
        while self._delayed and self._delayed[0][0] <= now_s:
            lane = heapq.heappop(self._delayed)[2]
            self._replace(lane, now_s)
        return self._delayed[0][0] if self._delayed else None

    def expire(self, before_ms: int, now_s: float) -> list[tuple[str, int, int]]:
        """Gives up events from before a time, except those in flight; gives (execution, last sequence, events) each."""
        expired = []
        for lane in [lane for lane in self.lanes.values() if lane.rows and lane.rows[0].stored_ms < before_ms]:
            if lane.place is not Place.READY or lane.wanted:
                continue
            self._ready[id(lane.budget)].remove(lane)
            self._count_ready(lane, -1)
            events = 0
            while lane.rows and lane.rows[0].stored_ms < before_ms:
                parcel = lane.rows.pop(0)
                events += parcel.events
                lane.acknowledged = parcel.last
                self._release(lane, parcel)
            expired.append((lane.execution_id, lane.acknowledged, events))
            self._replace(lane, now_s)
        return expired

    def oldest_ms(self) -> int | None:
        """When the oldest event in memory happened."""
        waiting = (lane.flight or lane.rows for lane in self.lanes.values())
        return min((parcels[0].stored_ms for parcels in waiting if parcels), default=None)

    # --- passes over the outbox ---

    def begin_pass(self) -> None:
        """A pass over the outbox begins."""
        self.missed = False
        self._pass_at = ""

    def end_pass(self) -> None:
        """A pass saw the last row; unless some were missed meanwhile, lanes now hold everything."""
        self.behind = self.missed

    # --- lanes ---

    def _begin(self, execution_id: str) -> None:
        """An execution is new: what is known of one before it with the same id, deleted since, is not true of it."""
        self._positions.forget(execution_id)
        lane = self.lanes.get(execution_id)
        if lane is not None and lane.place in (Place.LOOKUP, Place.DELAYED):
            self._forget(lane, 0)

    def _open(self, execution_id: str, acknowledged: int, budget: Budget) -> Lane:
        lane = self.lanes[execution_id] = Lane(execution_id, acknowledged, budget)
        return lane

    def _drop(self, lane: Lane) -> None:
        while lane.rows:
            self._release(lane, lane.rows.pop(0))
        del self.lanes[lane.execution_id]
        if lane.acknowledged >= 0:
            self._positions.put(lane.execution_id, lane.acknowledged)

    def _miss(self) -> None:
        self.behind = self.missed = True

    def _append(self, lane: Lane, first: int, last: int, messages: bytes, stored_ms: int) -> None:
        lane.rows.append(Parcel(lane, first, last, messages, stored_ms))
        lane.tail = last
        lane.budget.events += last - first + 1
        lane.budget.size_bytes += len(messages)
        if lane.place is Place.READY:
            self.ready_events += last - first + 1
            self.ready_size_bytes += len(messages)

    def _append_rest(self, lane: Lane, row: UnacknowledgedEvents, stored_ms: int) -> None:
        """Appends what the lane lacks of a row that reaches beyond its tail."""
        first, messages = row.first_sequence, row.messages
        lane.trace = row.trace
        if first <= lane.tail:
            _, offset = offset_after(messages, lane.tail + 1 - first, len(messages))
            first, messages = lane.tail + 1, messages[offset:]
        self._append(lane, first, row.last_sequence, messages, stored_ms)

    def _continue(self, lane: Lane, row: UnacknowledgedEvents, stored_ms: int) -> None:
        if lane.behind or row.last_sequence <= lane.tail:
            return
        events = row.last_sequence - row.first_sequence + 1
        if row.first_sequence > lane.tail + 1 or not lane.budget.room(events, len(row.messages)):
            lane.behind = True
        else:
            self._append_rest(lane, row, stored_ms)

    def _release(self, lane: Lane, parcel: Parcel) -> None:
        lane.budget.events -= parcel.events
        lane.budget.size_bytes -= len(parcel.messages)

    def _forget(self, lane: Lane, sequence: int) -> None:
        """Gives a lane's rows back to the outbox; it goes on after `sequence`."""
        while lane.rows:
            self._release(lane, lane.rows.pop(0))
        lane.acknowledged = lane.tail = sequence
        lane.behind = True

    def _count_ready(self, lane: Lane, sign: int) -> None:
        for parcel in lane.rows:
            self.ready_events += sign * parcel.events
            self.ready_size_bytes += sign * len(parcel.messages)

    def _make_ready(self, lane: Lane, now_s: float) -> None:
        lane.place = Place.READY
        lane.ready_s = now_s
        self._ready[id(lane.budget)].append(lane)
        self._count_ready(lane, 1)

    def _look_up(self, lane: Lane) -> None:
        if len(self.lookups) >= limits.CALLBACK_LOOKUPS_MAX:
            self._drop(lane)
            self._miss()
            return
        lane.behind = True
        lane.place = Place.LOOKUP
        self.lookups.append(lane)

    def _replace(self, lane: Lane, now_s: float) -> None:
        """Puts a lane where it now belongs."""
        if lane.rows:
            self._make_ready(lane, now_s)
        elif lane.behind:
            self._look_up(lane)
        else:
            self._drop(lane)

    @staticmethod
    def _fits(parcel: Parcel, events_max: int, size_bytes_max: int) -> bool:
        return parcel.events <= events_max and len(parcel.messages) <= size_bytes_max

    def _fly(self, lane: Lane, events_max: int, size_bytes_max: int) -> list[Parcel]:
        """Takes parcels off a lane's front; the first is cut if it alone is too large."""
        self._count_ready(lane, -1)
        lane.place = Place.IN_FLIGHT
        while lane.rows:
            parcel = lane.rows[0]
            if not self._fits(parcel, events_max, size_bytes_max):
                if lane.flight:
                    break
                parcel, rest = parcel.cut(events_max, size_bytes_max)
                if rest is not None:
                    lane.rows[0] = rest
                    lane.rows.insert(0, parcel)
            lane.flight.append(lane.rows.pop(0))
            events_max -= parcel.events
            size_bytes_max -= len(parcel.messages)
            if events_max <= 0 or size_bytes_max <= 0:
                break
        return lane.flight

    def _land(self, lane: Lane, sequence: int) -> int:
        """Releases what of the flight is acknowledged and puts the rest back; gives how many events were."""
        acknowledged = 0
        rest: list[Parcel] = []
        for parcel in lane.flight:
            if parcel.last <= sequence:
                taken: Parcel | None = parcel
            elif parcel.first <= sequence:
                taken, remainder = parcel.cut(sequence + 1 - parcel.first, len(parcel.messages))
                rest += [remainder] if remainder is not None else []
            else:
                taken = None
                rest.append(parcel)
            if taken is not None:
                acknowledged += taken.events
                self._release(lane, taken)
        lane.flight = []
        lane.rows[:0] = rest
        if acknowledged:
            lane.acknowledged = sequence
            lane.failures = 0
            lane.rewound = False
        return acknowledged
