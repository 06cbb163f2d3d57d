"""Support: CloudEvents of a simulation: their file, a worker's bus, those who send them, and what must come of them.

Rules: a commit that was told of is in the file whoever dies. One that has failed is not, unless everything dies before
the next one: its pages may be in the journal. What a worker was about to write when it died is in the file, or not.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import apsw
import orjson

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner._pb.ai.stigmer.workflow.runner.v1.events_pb2 import CloudEvent, SendEventsRequest
from fastrunner.engine.embedded.store.changes import Batch
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.errors import StorageFailed
from fastrunner.events.bus import EventBus
from fastrunner.events.file import Appended, EventRow, EventsFile
from fastrunner.tasks.emit.perform import Emit
from tests.simulation.documents import HEARS, NEWS
from tests.simulation.virtual import Process, delay_s

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Bus", "CountedEmit", "Ledger", "Sender", "make_news", "make_sender", "raise_ghost"]

T = TypeVar("T")

_EVERYBODY = "everybody"


class Ledger:
    """What is known of all events, whoever lives: of the commits that have landed, and of nothing else."""

    def __init__(self) -> None:
        self.log: dict[int, dict[str, Any]] = {}
        """Every event that is durable, or ever was, by key."""
        self.duplicates_count = 0
        """Events that were published once more."""
        self.uncertain: set[str] = set()
        """Ids of events whose commit has failed, and which became durable all the same."""
        self.listens_count = 0
        """Listeners that have begun."""
        self.ghost: Sequence[EventRow] = ()
        """What the last commit was to write, if it has failed and may be in the journal."""
        self._rows: defaultdict[tuple[Any, ...], set[int]] = defaultdict(set)
        self._taken: defaultdict[tuple[Any, ...], set[int]] = defaultdict(set)
        self._durable: set[tuple[Any, ...]] = set()

    def appended(self, rows: Sequence[EventRow], appended: Appended) -> None:
        """Events are durable."""
        self.ghost = ()
        self.duplicates_count += len(rows) - appended.new_count
        for row, key in zip(rows, appended.keys, strict=True):
            self.log.setdefault(key, orjson.loads(row.event))

    def tried(self, shard: str, batch: Batch) -> None:
        """A worker writes what listeners are to have, and what they have taken; it may die before that is durable."""
        process = Process.number_of_this()
        for row in batch.inbox.rows:
            self._rows[shard, *row].add(process)
        for whose in _taken(shard, batch):
            self._taken[whose].add(process)

    def landed(self, shard: str, batch: Batch) -> Iterable[str]:
        """That is durable. What must not be, as sentences."""
        for change in batch.changes:
            if change.listening is not None:
                self.listens_count += len(change.listening.started)
        for whose in _taken(shard, batch):
            if whose in self._durable:
                yield f"execution {whose[1]} of {shard} has taken event {whose[3]} twice"
            self._durable.add(whose)

    @property
    def counts(self) -> dict[str, int]:
        """How many there were of what, for people."""
        return {
            "events": len(self.log),
            "published again": self.duplicates_count,
            "durable though refused": len(self.uncertain),
            "listens": self.listens_count,
            "inbox rows": len(self._rows),
            "inbox rows again": sum(len(processes) - 1 for processes in self._rows.values()),
            "taken": len(self._durable),
            "taken again": sum(len(processes) - 1 for processes in self._taken.values()),
        }

    def emitted_twice(self) -> list[str]:
        """What workflows have emitted twice, though nobody was told that it had failed."""
        seen: set[tuple[str, int]] = set()
        found = []
        for _, event in sorted(self.log.items()):
            data = event["data"]
            if "by" not in data or event["id"] in self.uncertain:
                continue
            if (data["by"], data["k"]) in seen:
                found.append(f"{data['by']} has emitted its event {data['k']} twice")
            seen.add((data["by"], data["k"]))
        return found

    def heard(self, execution_id: str, kind: str) -> list[int]:
        """What an execution should have heard: the numbers of the first events for it, in the order of all."""
        whose = _EVERYBODY if kind in NEWS else execution_id
        events = [event for _, event in sorted(self.log.items()) if event["data"]["to"] == whose]
        return HEARS[kind](events)


def _taken(shard: str, batch: Batch) -> list[tuple[Any, ...]]:
    return [
        (shard, change.execution_key, subscription_id, key)
        for change in batch.changes
        if change.listening is not None
        for subscription_id, key, _ in change.listening.taken
    ]


class _File(EventsFile):
    """The events' file on a disk that fails."""

    def __init__(self, folder: Path, first_key: int, world: "World") -> None:
        super().__init__(folder, first_key)
        self._world = world
        self._is_closed = False

    def close(self) -> None:
        super().close()
        self._is_closed = True

    def tried(self, action: Callable[[apsw.Connection], T]) -> T:
        world = self._world
        if self._is_closed:
            # What is left of a killed process in this one opens nothing.
            raise StorageFailed("the process has ended")
        away = not world.calm and world.clock.now_ns / 1e9 < world.disk_fails_until_s
        if away or world.strikes("disk", "events not read or written", 0.1):
            raise StorageFailed("events.db cannot be used")
        return super().tried(action)

    def append(self, rows: Sequence[EventRow], now_ms: int) -> Appended:
        world = self._world
        if world.strikes("disk", "commit of events failed"):
            world.ledger.ghost = rows if world.rng.random() < 0.5 else ()
            raise StorageFailed("events.db cannot be written")
        appended = super().append(rows, now_ms)
        world.ledger.appended(rows, appended)
        return appended


def raise_ghost(world: "World", folder: Path, now_ms: int) -> None:
    """Everything has died: the last commit may be in the file, though it has failed."""
    rows, world.ledger.ghost = world.ledger.ghost, ()
    if not rows or world.rng.random() < 0.5:
        return
    world.faults["failed commit of events became durable"] += 1
    file = EventsFile(folder, now_ms * 1000)
    appended = file.append(rows, now_ms)
    file.close()
    before = set(world.ledger.log)
    world.ledger.appended(rows, appended)
    world.ledger.uncertain |= {world.ledger.log[key]["id"] for key in appended.keys if key not in before}


class Bus(EventBus):
    """A worker's bus, on the loop: what it has a thread do takes a while, and happens at some moment of that."""

    def __init__(self, world: "World", folder: Path, wake: Callable[[], None], retention_s: float,
                 wall_ms: Callable[[], int], begun_ms: int) -> None:  # fmt: skip
        super().__init__(folder, wake, Seals(None), retention_s, begun_ms=begun_ms, wall_ms=wall_ms)
        self._world = world
        first_key = wall_ms() * 1000
        self._reading, self._writing = _File(folder, first_key, world), _File(folder, first_key, world)

        self._acting: set[asyncio.Future[Any]] = set()

    async def _in_thread(self, action: Callable[[], T]) -> T:
        acting = asyncio.ensure_future(self._act(action))
        self._acting.add(acting)
        acting.add_done_callback(self._acting.discard)
        return await asyncio.shield(acting)

    async def _act(self, action: Callable[[], T]) -> T:
        await asyncio.sleep(delay_s(self._world.rng, 0.001, 1.0))
        outcome = action()
        await asyncio.sleep(delay_s(self._world.rng, 0.001, 1.0))
        return outcome

    async def close(self) -> None:
        """See EventBus."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._publishing is not None:
            await self._publishing
        # As the thread's end does: what it has begun is finished.
        await asyncio.gather(*self._acting, return_exceptions=True)
        self.kill()

    def kill(self) -> None:
        """What the end of the process does to the file."""
        self._writing.close()
        self._reading.close()


class CountedEmit:
    """Performs `emit` as workers do."""

    def __init__(self, world: "World", emit: Emit) -> None:
        self._world = world
        self._emit = emit

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        self._world.effects[effect.kind] += 1
        return await self._emit.perform(effect, arguments)

    async def close(self) -> None:
        await self._emit.close()


@dataclass
class Sender:
    """Somebody outside who sends events for one execution, in order, each until it is acknowledged."""

    execution_id: str
    types: Sequence[str]
    """Of its events, one after the other."""
    pauses_s: Sequence[float]
    """Before each."""
    again: Collection[int]
    """Those it sends once more although they were acknowledged."""
    position: int = 0
    """Those that were acknowledged."""
    rounds: int = 0
    """How often it has begun anew."""
    surely_heard: int | None = None
    """The first event that was sent when the execution was known to listen, and is acknowledged."""

    @property
    def settled(self) -> bool:
        """Whether all are acknowledged."""
        return self.position >= len(self.types)

    def begin_anew(self) -> None:
        """From now on it sends the same, as other events."""
        self.rounds, self.position = self.rounds + 1, 0

    async def run(self, send: Callable[[bytes], Any], listens: Callable[[str], bool]) -> None:
        """Goes on with what is not acknowledged yet; `send` returns once a request is."""
        while not self.settled:
            await asyncio.sleep(self.pauses_s[self.position])
            is_sure = self.surely_heard is None and self.types[self.position] == "a" and listens(self.execution_id)
            request = SendEventsRequest(events=[self._event(self.position)]).SerializeToString()
            for _ in range(2 if self.position in self.again else 1):
                await send(request)
            if is_sure:
                self.surely_heard = self.rounds * len(self.types) + self.position
            self.position += 1

    def _event(self, number: int) -> CloudEvent:
        k = self.rounds * len(self.types) + number
        data = orjson.dumps({"to": self.execution_id, "k": k, "room": "xyxyxxyxy"[number % 9]}).decode()
        event_type = self.types[number]
        named = f"{self.execution_id} {k}"
        return CloudEvent(id=named, source="/outside", spec_version="1.0", type=event_type, text_data=data)


def make_news(rng: random.Random) -> Sender:
    """Somebody who sends what is for everybody."""
    types = ["news"] * rng.choice((5, 8))
    return Sender(_EVERYBODY, types, [delay_s(rng, rng.choice((0.01, 0.3)), 10.0) for _ in types], ())


def make_sender(rng: random.Random, execution_id: str, kind: str) -> Sender:
    """Somebody who sends what an execution of a kind waits for, and then some."""
    types = {
        "hear-all": rng.sample(["a", "b", "c", "a"], 4),
        "hear-any": ["b", "a"],
        "hear-stop": ["a", "b", "a", "b", "stop", "a"],
        "hear-room": ["a"] * 9,
        "hear-late": ["a", "b", "a"],
    }.get(kind, ["a"] * rng.choice((5, 7)))
    if kind == "hear-all" and types[-1] != "a":
        types = [*types, types[0]]
    pauses_s = [delay_s(rng, rng.choice((0.01, 0.3)), 10.0) for _ in types]
    return Sender(execution_id, types, pauses_s, [each for each in range(len(types)) if rng.random() < 0.1])
