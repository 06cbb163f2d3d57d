"""Support: a simulated runner: workers that share one table of places and one data directory, and die one by one.

Each worker has the real engine, callback pipeline and service; what goes between them is simulated: calls take their
time, and are cut when either side dies. Rules as between real workers: who dies stays dead, its successor opens its
shards; a call to a worker that is away waits for the successor; one that was cut is sent to one successor if it may be
repeated; a refusal because the worker is stopping is asked again.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fastrunner.base import clock, limits
from fastrunner.base.clock import monotonic_s
from fastrunner.callback import CallbackPipeline
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import ForwardedError, RunnerError, Stopping, Unavailable
from fastrunner.processes.shared import Shared
from fastrunner.processes.worker import places_known
from fastrunner.routing.calls import REPEATABLE
from fastrunner.routing.facts import CallFacts
from fastrunner.routing.placement import Places
from fastrunner.service.handlers import Service as Handlers
from fastrunner.service.status import status_of
from fastrunner.tasks.emit.perform import Emit
from tests.simulation.cloud_events import Bus, CountedEmit, raise_ghost
from tests.simulation.virtual import Process, delay_s
from tests.simulation.world import FaultyStore, Receiver, Registry, Service, World, Writer

__all__ = ["Runner"]

_METRICS = Metrics()


class _Cut(Unavailable):
    """The worker died before its answer arrived."""


class Worker:
    """One process of the runner."""

    def __init__(self, runner: "Runner", number: int, process: Process) -> None:
        self.number = number
        self.engine: EmbeddedEngine | None = None
        """Once it has begun to start."""
        self.serves_clients = False
        """Whether it listens."""
        self.answers_workers = False
        """Whether others may forward to it."""
        self.gone = asyncio.Event()
        """Set when it is dead or has drained."""
        self._runner = runner
        self._world = runner.world
        self._process = process
        self._draining = False
        self._stores: list[FaultyStore] = []
        self._calls: dict[asyncio.Future[bytes], None] = {}
        self._bus: Bus
        self._handlers: Handlers
        self._pipeline: CallbackPipeline
        process.run(asyncio.ensure_future, self._start())

    async def _start(self) -> None:
        runner, world = self._runner, self._world
        places = runner.shared.places(self.number, runner.worker_count)
        config = runner.config
        self._bus = bus = Bus(
            world, config.data_dir, runner.wake, config.event_retention_s, runner.wall_ms, runner.begun_ms
        )
        bus.start()
        emit = CountedEmit(world, Emit(bus, _METRICS, wall_ms=runner.wall_ms))
        self.engine = EmbeddedEngine(
            config,
            _METRICS,
            {**dict.fromkeys(("call_http", "run_shell"), runner.service), "emit": emit},
            definitions=Registry(world),
            events=bus,
            places=places,
            wall_ms=runner.wall_ms,
            make_store=self._make_store,
            make_writer=lambda name, commit, landed: Writer(world, commit, landed),
        )
        self._pipeline = CallbackPipeline(
            runner.config, self.engine.outbox, _METRICS, make_client=lambda *_: runner.receiver
        )
        self._handlers = Handlers(self.engine, _Links(runner, places), _METRICS, bus=bus)
        await self.engine.open()
        await places_known(places)
        await self._pipeline.start()
        self.answers_workers = self.serves_clients = True
        self.engine.go_on()

    def _make_store(self, path: Path, *, outbox: bool) -> FaultyStore:
        store = FaultyStore(path, outbox=outbox, world=self._world, on_undecided=self._kill_perhaps)
        self._stores.append(store)
        return store

    def _kill_perhaps(self) -> None:
        """A commit may or may not be in the file: a good moment to die."""
        rng = self._world.rng
        if rng.random() < 0.3:
            kill_s = rng.uniform(0, 2 * limits.COMMIT_RETRY_DELAY_S_MIN)
            Process.run_outside(asyncio.get_running_loop().call_later, kill_s, self._runner.kill_worker, self)

    # --- its end ---

    def kill(self) -> None:
        """SIGKILL."""
        if self._process.dead:
            return
        self._process.dead = True
        for store in self._stores:
            store.kill()
        if self.engine is not None:
            self._bus.kill()
            for shard in self.engine._shards:
                # As the kernel does; nothing is written by that.
                shard._ids.close()
                shard.marks.close()
        self._end()

    def drain(self) -> None:
        """SIGTERM; once."""
        if self._draining or self._process.dead:
            return
        self._draining = True
        self._process.run(asyncio.ensure_future, self._drain(self._world.rng.choice((0.0, 1.0))))

    async def _drain(self, timeout_s: float) -> None:
        assert self.engine is not None
        self.serves_clients = False
        await self.engine.quiesce(timeout_s)
        await self._pipeline.drain(1.0)
        await self.engine.drain(1.0)
        await self._bus.close()
        # What has its answer sends it.
        await asyncio.sleep(1.0)
        self._process.dead = True
        self._end()

    def _end(self) -> None:
        self.serves_clients = self.answers_workers = False
        for answer in [*self._calls]:
            if not answer.done():
                answer.set_exception(_Cut("the worker went away before it answered"))
        self.gone.set()
        Process.run_outside(self._runner.ended, self)

    def wake(self) -> None:
        """There are new events."""
        if self.engine is not None and not self._process.dead:
            self._process.run(asyncio.get_running_loop().call_later, 0.0001, self.engine.events_came)

    # --- calls ---

    async def ask(self, method: str, payload: bytes, facts: CallFacts) -> bytes:
        """The answer, whoever asks. Raises RunnerError."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._calls[answer] = None
        way_s = delay_s(self._world.rng, 0.0005, 0.5)
        self._process.run(loop.call_later, way_s, self._take, method, payload, facts, answer)
        try:
            return await answer
        finally:
            self._calls.pop(answer, None)

    def _take(self, method: str, payload: bytes, facts: CallFacts, answer: "asyncio.Future[bytes]") -> None:
        asyncio.ensure_future(self._answer(method, payload, facts, answer)).add_done_callback(lambda _: None)

    async def _answer(self, method: str, payload: bytes, facts: CallFacts, answer: "asyncio.Future[bytes]") -> None:
        refusal: RunnerError | None = None
        result = b""
        try:
            reply = self._handlers.handle_unary(method, payload, facts)
            result = reply if isinstance(reply, bytes) else await reply
        except RunnerError as error:
            refusal = error
        except Exception as error:
            self._world.violations.append(f"{method} failed: {error!r}")
            refusal = Unavailable("failed")
        await asyncio.sleep(delay_s(self._world.rng, 0.0005, 0.5))
        if answer.done():
            return
        if refusal is not None:
            answer.set_exception(refusal)
        else:
            answer.set_result(result)


class _Links:
    """The router of one worker; see `routing.facts.Router`."""

    def __init__(self, runner: "Runner", places: Places) -> None:
        self._runner = runner
        self._places = places

    @property
    def worker(self) -> int:
        return self._places.worker

    @property
    def workers(self) -> Sequence[int]:
        return range(self._places.worker_count)

    def owners_of(self, execution_id: str) -> Sequence[int]:
        return self._places.owners_of(execution_id)

    def are_new(self, messages: list[bytes]) -> bool:
        return self._places.are_new(messages)

    def choose(self, count: int) -> int:
        worker = self._places.choose(count)
        return worker if self._runner.workers[worker].answers_workers else self.worker

    def assign(self, worker: int, count: int) -> None:
        self._places.assign(worker, count)

    def forward(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> Awaitable[bytes]:
        return self._forward(worker, method, payload, replace(facts, local=True))

    async def _forward(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> bytes:
        give_up_s = monotonic_s() + limits.ROUTER_OWNER_WAIT_S_MAX
        refusal = Unavailable(f"worker {worker}, which owns the execution, is not available: retry")
        cut_count = 0
        while monotonic_s() < give_up_s:
            there = self._runner.workers[worker]
            if not there.answers_workers:
                await asyncio.sleep(limits.ROUTER_RECONNECT_INTERVAL_S)
                continue
            try:
                return await there.ask(method, payload, facts)
            except _Cut as cut:
                cut_count += 1
                if method not in REPEATABLE or cut_count > 1:
                    raise
                refusal = cut
            except Stopping as stopping:
                refusal = stopping
                await asyncio.sleep(limits.ROUTER_RETRY_INTERVAL_S)
            except RunnerError as error:
                status = status_of(error)
                raise ForwardedError(status.code, status.message, status.SerializeToString()) from None
        raise refusal

    def forward_stream(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        raise AssertionError("no client of the simulation follows anything")


class Runner:
    """One start of the runner, on the running loop."""

    def __init__(
        self, world: World, config: Config, worker_count: int, shard_count: int, key: bytes, service: Service,
        receiver: Receiver,
    ) -> None:  # fmt: skip
        self.world = world
        self.config = config
        self.worker_count = worker_count
        self.shard_count = shard_count
        self.service = service
        self.receiver = receiver
        self.shared = Shared.create(worker_count, shard_count, key)
        self.wall_ms: Callable[[], int] = clock.SteadyClock()
        self.begun_ms = self.wall_ms()
        self._stopping = False
        self._remains: list[asyncio.Task[object]] = []
        """What the killed were at. Let go of, it would be closed by the garbage collector, at a moment nobody chose."""
        self.workers = [self._new(number) for number in range(worker_count)]

    def _new(self, number: int) -> Worker:
        self.world.processes += 1
        return Worker(self, number, Process(self.world.processes))

    async def ask(self, method: str, payload: bytes, worker: int | None = None) -> bytes:
        """What a client gets, whichever worker its connection leads to, or from a certain one. Raises RunnerError."""
        reached = [each for each in self.workers if each.serves_clients and worker in (None, each.number)]
        if not reached:
            raise Unavailable("nobody listens")
        return await self.world.rng.choice(reached).ask(method, payload, CallFacts("client", 0, local=False))

    async def replace_workers(self) -> None:
        """Kills and drains workers, until it is cancelled."""
        rng = self.world.rng
        while True:
            await asyncio.sleep(rng.expovariate(1.0))
            worker = rng.choice(self.workers)
            if worker.serves_clients and rng.random() < 0.3:
                self.world.faults["worker drained"] += 1
                worker.drain()
            else:
                self.kill_worker(worker)

    def kill_worker(self, worker: Worker) -> None:
        """SIGKILL for one, if it lives."""
        if not worker.gone.is_set():
            self.world.faults["worker killed"] += 1
            self._remains += asyncio.all_tasks()
            worker.kill()

    def ended(self, worker: Worker) -> None:
        """Starts a successor after a while."""
        if not self._stopping:
            asyncio.get_running_loop().call_later(self.world.rng.expovariate(2.0), self._replace, worker)

    def _replace(self, worker: Worker) -> None:
        if not self._stopping:
            self.workers[worker.number] = self._new(worker.number)

    def wake(self) -> None:
        """Has every worker look for new events."""
        for worker in self.workers:
            worker.wake()

    async def ready(self) -> None:
        """Waits until every worker serves, or is away."""
        while not all(worker.serves_clients or worker.gone.is_set() for worker in self.workers):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the clock is a virtual one

    async def drain(self) -> None:
        """SIGTERM for all."""
        self._stopping = True
        await self.ready()
        for worker in self.workers:
            worker.drain()
        for worker in self.workers:
            await worker.gone.wait()

    def kill(self) -> None:
        """SIGKILL for all."""
        self._stopping = True
        for worker in self.workers:
            worker.kill()
        raise_ghost(self.world, self.config.data_dir, self.wall_ms())

    def close(self) -> None:
        """Gives up what the workers share."""
        os.close(self.shared.placement)
        os.close(self.shared.loads)
        for number in range(self.worker_count):
            os.close(self.shared.wakes.fileno(number))
