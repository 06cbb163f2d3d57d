"""Support: what surrounds the engine in a simulation: its disk, its receiver, the service its effects call.

Rules: all of it outlives the engine's lives; every fault is drawn from the world's generator and counted; what no part
may ever see is noted in `violations`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.callback.client import DeliveryFailed, Reaction
from fastrunner.engine import Definition, DefinitionRef
from fastrunner.engine.embedded.store.changes import Batch
from fastrunner.engine.embedded.store.file import Store
from fastrunner.engine.embedded.store.listener_rows import InboxEvent
from fastrunner.errors import StorageFailed
from fastrunner.progress.wire import split
from tests.simulation.cloud_events import Ledger
from tests.simulation.documents import DEFINITIONS
from tests.simulation.virtual import Process, VirtualTime, delay_s

__all__ = ["FaultyStore", "Receiver", "Registry", "Service", "World", "Writer"]


class World:
    """One seed's generator, clock, faults and findings."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = VirtualTime()
        self.faults: Counter[str] = Counter()
        self.effects: Counter[str] = Counter()
        """Effects performed, by kind."""
        self.ledger = Ledger()
        """What is known of CloudEvents."""
        self.violations: list[str] = []
        self.forgets = self.rng.random() < 0.15
        """Whether retention deletes executions while clients still ask for them, who may get anything then."""
        self.processes = 0
        """How many there were so far."""
        self.calm = False
        """Once set, nothing fails any more."""
        self.disk_fails_until_s = 0.0
        self.trouble = {name: self.rng.choice((0.0, 0.01, 0.05, 0.2)) for name in ("disk", "receiver", "service")}

    def strikes(self, where: str, fault: str, share: float = 1.0) -> bool:
        """Whether a fault happens now."""
        happens = not self.calm and self.rng.random() < self.trouble[where] * share
        if happens:
            self.faults[fault] += 1
        return happens


class FaultyStore(Store):
    """A shard's file on a disk that fails. A commit that reports an error may be durable all the same if the process is
    killed before the next one."""

    def __init__(self, path: Path, *, outbox: bool, world: World, on_undecided: Callable[[], None]) -> None:
        super().__init__(path, outbox=outbox)
        self._world = world
        self._on_undecided = on_undecided
        self._undecided = False
        self._batch = Batch()

    def write(self, batch: Batch) -> None:
        self._forget()
        self._world.ledger.tried(self.path.name, batch)
        self._batch = batch
        if self._world.strikes("disk", "write refused", 0.3):
            raise _disk_error(self._world)
        super().write(batch)

    def commit(self) -> None:
        world = self._world
        if not world.calm and world.clock.now_ns / 1e9 < world.disk_fails_until_s:
            self._give_up()
            raise _disk_error(world)
        if world.strikes("disk", "commit failed"):
            if world.rng.random() < 0.3:
                world.disk_fails_until_s = world.clock.now_ns / 1e9 + world.rng.uniform(0, 20)
                world.faults["disk failed for a while"] += 1
            if world.rng.random() < 0.5:
                self._give_up()
            else:
                self._plan_keys.clear()
                self._undecided = True
                self._on_undecided()
            raise _disk_error(world)
        super().commit()
        self._landed()

    def _landed(self) -> None:
        repeated = list(self._world.ledger.landed(self.path.name, self._batch))
        if not self._world.forgets:
            # Where executions are deleted, their numbers may come again.
            self._world.violations += repeated

    def _read(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        if self._world.strikes("disk", "read failed", 0.1):
            raise StorageFailed(f"{self.path} cannot be read")
        return super()._read(name, parameters)

    def inbox(self, execution_id: str, execution_key: int, subscription_id: int, after_key: int) -> list[InboxEvent]:
        if self._world.strikes("disk", "inbox not read", 0.2):
            raise StorageFailed(f"{self.path} cannot be read")
        return super().inbox(execution_id, execution_key, subscription_id, after_key)

    def ids(self) -> Iterator[str]:
        if self._world.strikes("disk", "ids not read", 0.2):
            raise StorageFailed(f"{self.path} cannot be read")
        return super().ids()

    def _forget(self) -> None:
        if self._undecided:
            self._undecided = False
            self._give_up()

    def close(self) -> None:
        self._forget()
        super().close()

    def kill(self) -> None:
        """What the end of the process does to the file."""
        if self._undecided and self._world.rng.random() < 0.5:
            self._world.faults["failed commit became durable"] += 1
            self._db.execute("commit")
            self._landed()
        for connection in (self._reader, self._lister, self._db):
            connection.close()
        self._index_files.close()
        self.unlock()


def _disk_error(world: World) -> Exception:
    return apsw.exception_for(world.rng.choice((apsw.SQLITE_FULL, apsw.SQLITE_IOERR)))


class Writer:
    """Commits after a while, on the loop."""

    def __init__(
        self, world: World, commit: Callable[[], None], landed: Callable[[BaseException | None], None]
    ) -> None:
        self._world = world
        self._commit = commit
        self._landed = landed
        self._handle: asyncio.TimerHandle | None = None

    def request(self) -> None:
        pause_s = delay_s(self._world.rng, 0.003, 2.0)
        self._handle = asyncio.get_running_loop().call_later(pause_s, self._run)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._handle = None
        error: BaseException | None = None
        try:
            self._commit()
        except BaseException as raised:
            error = raised
        self._landed(error)


class Registry:
    """The registered workflows, in a file that cannot always be read."""

    def __init__(self, world: World) -> None:
        self._world = world

    def find(self, ref: DefinitionRef) -> Definition:
        if self._world.strikes("disk", "registry not read"):
            raise StorageFailed("the registry cannot be read")
        return Definition(ref, 0, True, DEFINITIONS[ref.name])


class Receiver:
    """The side that is told of progress; keeps every event and checks what it gets."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._away_until_s = 0.0
        self.batches = world.rng.random() < 0.8
        self.events: dict[str, list[bytes]] = {}
        self.resent_count = 0
        self.completed: set[tuple[str, str]] = set()
        """(execution, task reference) of tasks outside loops that were reported complete."""

    async def report_batch(self, request: bytes, patient: bool) -> dict[str, int]:
        world = self._world
        await self._way()
        if not self.batches:
            raise DeliveryFailed(Reaction.FALL_BACK, "UNIMPLEMENTED", "simulated")
        acknowledged: dict[str, int] = {}
        messages = list(split(request))
        if world.strikes("receiver", "batch taken in part"):
            messages = messages[: world.rng.randrange(len(messages) + 1)]
        for message in messages:
            event = WorkflowProgressEvent.FromString(message)
            self._take(event, message)
            acknowledged[event.workflow_execution_id] = len(self.events[event.workflow_execution_id])
        await self._way()
        return acknowledged

    async def report(self, event: bytes, patient: bool) -> None:
        await self._way()
        if self._world.strikes("receiver", "event not taken"):
            raise DeliveryFailed(Reaction.RETRY_THEN_SPLIT, "NOT_TAKEN", "simulated")
        self._take(WorkflowProgressEvent.FromString(event), event)
        await self._way()

    async def close(self) -> None:
        """Nothing is held."""

    async def _way(self) -> None:
        """The way there or back: takes its time and may break."""
        world = self._world
        await asyncio.sleep(delay_s(world.rng, 0.002, 5.0))
        now_s = world.clock.now_ns / 1e9
        if world.strikes("receiver", "receiver away for a while", 0.2):
            self._away_until_s = now_s + world.rng.uniform(0, 60)
        if (now_s < self._away_until_s and not world.calm) or world.strikes("receiver", "call failed"):
            raise DeliveryFailed(Reaction.RETRY, "UNAVAILABLE", "simulated")

    def _take(self, event: WorkflowProgressEvent, message: bytes) -> None:
        events = self.events.setdefault(event.workflow_execution_id, [])
        if self._world.forgets:
            # An id that was deleted may be taken again, and what is sent again may be the one before's.
            events.append(message)
            return
        place = f"event {event.sequence_number} of {event.workflow_execution_id}"
        if event.sequence_number <= len(events):
            self.resent_count += 1
            if events[event.sequence_number - 1] != message:
                self._world.violations.append(f"{place} was sent again with other bytes")
        elif event.sequence_number > len(events) + 1:
            self._world.violations.append(f"{place} was sent when {len(events)} were taken")
        else:
            events.append(message)
            if event.event_type == "task_completed":
                self.completed.add((event.workflow_execution_id, event.task_reference))


class Service:
    """Performs effects: slowly, with failures, and never again what is known to be done."""

    def __init__(self, world: World, receiver: Receiver) -> None:
        self._world = world
        self._receiver = receiver
        self._performed: dict[str, int] = {}

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        world, key = self._world, effect.idempotency_key
        before = self._performed.get(key)
        self._performed[key] = Process.number_of_this()
        if before is not None and not world.forgets and before == Process.number_of_this():
            world.violations.append(f"effect {key} was performed twice by one process")
        execution_id = key.split("/", 1)[0]
        if (execution_id, effect.reference) in self._receiver.completed:
            world.violations.append(f"effect {key} was performed after its task had been reported complete")
        world.effects[effect.kind] += 1
        await asyncio.sleep(delay_s(world.rng, 0.02, 60.0))
        if world.strikes("service", "effect failed inside the runner", 0.1):
            raise RuntimeError("simulated")
        if world.strikes("service", "effect failed"):
            return EffectFailure(effect.effect_id, "communication", 503, "Unavailable", "simulated")
        return EffectResult(effect.effect_id, {"answer": 42})

    async def close(self) -> None:
        """Nothing is held."""
