"""Support: one seed from its first life to the verdict.

Lives end by a kill or a drain until the last one, in which nothing fails any more and everything has to come right.
"""

import asyncio
import hashlib
import logging
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import clock
from fastrunner.callback import CallbackPipeline
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.routing.placement import Places
from tests.integration.engines import TERMINAL
from tests.simulation.clients import Job, make_job
from tests.simulation.virtual import Killed, VirtualLoop
from tests.simulation.world import FaultyStore, Receiver, Service, World, Writer

__all__ = ["Verdict", "bury", "simulate"]

_PATIENCE_S = 3_000.0
_METRICS = Metrics()


@dataclass(frozen=True)
class Verdict:
    """What became of one seed."""

    seed: int
    violations: tuple[str, ...]
    """Sentences; empty if all promises were kept."""
    faults: Counter[str]
    """Injected faults by kind."""
    lives: int
    """Times the runner was started."""
    executions: int
    """Executions accepted."""
    events: int
    """Events the receiver has."""
    resent: int
    """Events it got more than once."""
    digest: str
    """Of every event's bytes and the virtual time at the end: equal for equal seeds."""


class Simulation:
    """One seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed = seed
        self._folder = folder
        self.world = World(seed)
        rng = self.world.rng
        self.receiver = Receiver(self.world)
        self._service = Service(self.world, self.receiver)
        self.jobs = [make_job(rng, number) for number in range(rng.choice((3, 8, 20)))]
        self._shards = rng.choice((1, 1, 2, 3))
        self._stores: list[FaultyStore] = []

    def _config(self) -> Config:
        """Settings of the next life. In the last one there is room for all, also beside those that stay paused."""
        rng = self.world.rng
        executions_max = 1_000 if self.world.calm else rng.choice((3, 1_000))
        return Config(
            data_dir=self._folder,
            stigmer_service_endpoint="localhost:1",
            executions_max=executions_max,
            parked_resident_max=rng.choice((0, 1, 1_000)),
            cancel_grace_s=rng.choice((0.0, 0.5, 30.0)),
        )

    def run(self) -> Verdict:
        """All lives, then the verdict."""
        rng = self.world.rng
        for _ in range(rng.choice((0, 1, 2, 4))):
            self._live(rng.expovariate(0.5), drained=rng.random() < 0.3)
            self.world.clock.now_ns += int(rng.uniform(0, 10) * 1e9)
            if rng.random() < 0.2:
                self._set_wall_clock()
        self.world.calm = True
        self._live(None, drained=True)
        self._check_events()
        digest = hashlib.sha256(str(self.world.clock.now_ns).encode())
        for execution_id in sorted(self.receiver.events):
            digest.update(b"".join(self.receiver.events[execution_id]))
        return Verdict(
            self._seed,
            tuple(self.world.violations),
            self.world.faults,
            self.world.life,
            sum(job.accepted for job in self.jobs),
            sum(map(len, self.receiver.events.values())),
            self.receiver.resent_count,
            digest.hexdigest(),
        )

    # --- lives ---

    def _live(self, length_s: float | None, *, drained: bool) -> None:
        """One life of `length_s`; the last one, without length, goes on until everything has come right."""
        self.world.life += 1
        self._stores = []
        loop = VirtualLoop(self.world.clock)
        asyncio.set_event_loop(loop)
        if length_s is not None and not drained:
            loop.kill_at(length_s)
        main = loop.create_task(self._main(length_s))
        try:
            loop.run_until_complete(main)
        except Killed:
            self.world.faults["killed"] += 1
            for store in self._stores:
                store.kill()
        finally:
            bury(loop)
            asyncio.set_event_loop(None)

    async def _main(self, length_s: float | None) -> None:
        config = self._config()
        engine = EmbeddedEngine(
            config,
            _METRICS,
            {"call_http": self._service},
            places=Places.alone(self._shards),
            make_store=self._make_store,
            make_writer=lambda name, commit, landed: Writer(self.world, commit, landed),
        )
        pipeline = CallbackPipeline(config, engine.outbox, _METRICS, make_client=lambda *_: self.receiver)
        await engine.start()
        await pipeline.start()
        clients = [asyncio.create_task(job.run(engine, self.world.rng)) for job in self.jobs if not job.settled]
        if length_s is not None:
            if self.world.rng.random() < 0.2:
                asyncio.get_running_loop().call_later(self.world.rng.uniform(0, length_s), self._set_wall_clock)
            await asyncio.sleep(length_s)
        else:
            await self._come_right(engine, clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await engine.quiesce(self.world.rng.choice((0.0, 1.0)))
        await pipeline.drain(1.0)
        await engine.drain(1.0)

    def _set_wall_clock(self) -> None:
        self.world.faults["wall clock set"] += 1
        self.world.clock.wall_step_ns += int(self.world.rng.uniform(-60, 3_600) * 1e9)

    def _make_store(self, path: Path, *, outbox: bool) -> FaultyStore:
        store = FaultyStore(path, outbox=outbox, world=self.world)
        self._stores.append(store)
        return store

    # --- the last life ---

    async def _come_right(self, engine: EmbeddedEngine, clients: list[asyncio.Task[None]]) -> None:
        for outcome in await asyncio.gather(*clients, return_exceptions=True):
            if isinstance(outcome, BaseException):
                self.world.violations.append(f"a client failed: {outcome!r}")
        for job in self.jobs:
            await self._check_promises(engine, job)
        for job in self.jobs:
            await self._until(self._ended(job), f"{job.execution_id} ({job.kind}) to be reported ended")
            if self._ended(job)():
                await self._check_result(engine, job)

    async def _check_promises(self, engine: EmbeddedEngine, job: Job) -> None:
        """A pause holds as long as nobody resumes; then the execution is let go on."""
        if not job.promised or job.promised[-1] != "pause" or job.refused or job.cancelled:
            return
        view = await engine.get(job.execution_id)
        if view.status != "paused":
            self.world.violations.append(f"{job.execution_id} is {view.status} though its pause was promised")
            return
        await engine.resume(job.execution_id, "")

    def _ended(self, job: Job) -> partial[bool]:
        return partial(self._last_is_terminal, job.execution_id)

    def _last_is_terminal(self, execution_id: str) -> bool:
        events = self.receiver.events.get(execution_id, [])
        return bool(events) and WorkflowProgressEvent.FromString(events[-1]).event_type in TERMINAL

    async def _until(self, condition: partial[bool], what: str) -> None:
        deadline_ns = self.world.clock.now_ns + int(_PATIENCE_S * 1e9)
        while not condition():
            if self.world.clock.now_ns > deadline_ns:
                self.world.violations.append(f"waited {_PATIENCE_S} s for {what}")
                return
            await asyncio.sleep(0.5)

    async def _check_result(self, engine: EmbeddedEngine, job: Job) -> None:
        view = await engine.get(job.execution_id)
        stored = await engine.events(job.execution_id, 1, 1_000_000)
        if stored != self.receiver.events[job.execution_id]:
            self.world.violations.append(f"{job.execution_id}: the receiver has other events than the store")
        if job.cancelled and view.status != "cancelled":
            self.world.violations.append(f"{job.execution_id} is {view.status} though its cancel was promised")
        if view.status == "completed" and job.output not in (None, view.output_json):
            self.world.violations.append(f"{job.execution_id} came to {view.output_json}, not {job.output}")

    # --- the verdict ---

    def _check_events(self) -> None:
        for execution_id, messages in self.receiver.events.items():
            types = [WorkflowProgressEvent.FromString(message).event_type for message in messages]
            if [each for each in types if each in TERMINAL] != types[-1:]:
                self.world.violations.append(f"{execution_id} has not exactly one terminal event, at its end")
            paused = False
            for each in types:
                paused = (paused or each == "workflow_paused") and each != "workflow_resumed"
                if paused and each == "task_started":
                    self.world.violations.append(f"{execution_id} started a task while it was paused")


def bury(loop: VirtualLoop) -> None:
    """Ends what the process left behind, whose stores are closed by now."""
    # What is cancelled may start something to tidy up. Left to the garbage collector, it would run in a later life.
    loop.set_task_factory(_stillborn)
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        with suppress(Killed):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def _stillborn(loop: asyncio.AbstractEventLoop, coroutine: Any, **_: Any) -> "asyncio.Future[Any]":
    """Instead of a task: nothing begins in a process that is dead."""
    coroutine.close()
    cancelled = loop.create_future()
    cancelled.cancel()
    return cancelled


@contextmanager
def _quiet() -> Iterator[None]:
    """Faults are expected here: the log would only repeat them."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def simulate(seed: int, folder: Path) -> Verdict:
    """Runs one seed in a new folder, which is removed. Replaces the process's clock meanwhile."""
    folder.mkdir()
    simulation = Simulation(seed, folder)
    # The clock's functions look `time` up at each call, so that this reaches whoever imported them.
    names, state = vars(clock), random.getstate()
    real, names["time"] = names["time"], simulation.world.clock
    random.seed(seed)
    try:
        with _quiet():
            return simulation.run()
    finally:
        names["time"] = real
        random.setstate(state)
        shutil.rmtree(folder)
