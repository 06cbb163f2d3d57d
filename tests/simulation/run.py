"""Support: one seed from its first life to the verdict.

Lives end by a kill or a drain until the last one, in which nothing fails any more and everything has to come right.
"""

import asyncio
import hashlib
import logging
import random
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import apsw
import orjson

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import clock, limits
from fastrunner.config import Config
from fastrunner.engine import ExecutionView
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.identities import Identities
from fastrunner.errors import UnknownExecution
from tests.integration.engines import TERMINAL
from tests.simulation.clients import Broken, Job, insist, make_job, make_listening_jobs
from tests.simulation.cloud_events import Sender, make_news, make_sender
from tests.simulation.documents import CHILDREN, HEARS, NEWS, OUTPUTS
from tests.simulation.runner import Runner
from tests.simulation.virtual import Killed, VirtualLoop
from tests.simulation.world import Receiver, Service, World

__all__ = ["Verdict", "bury", "simulate"]

_PATIENCE_S = 3_000.0
_HEARS_AT_ONCE = ("hear-one", "hear-any", "hear-until")
"""Kinds of which the first event that comes when they listen is surely heard."""
_NARROW = {
    "EVENTS_OFFERED_AT_START_MAX": (1, 2, 16),
    "EVENTS_FOLLOWED_PER_READ_MAX": (1, 2, 256),
    "EVENTS_FOLLOW_PASS_S_MAX": (0.0, 0.005),
    "EVENTS_POSITION_LAG_MAX": (0, 3, 10_000),
    "INBOX_PAGE_EVENTS_MAX": (1, 2, 32),
    "INBOX_ROWS_PER_LISTENER_MAX": (1, 2, 1_000),
    "INBOX_UNCOMMITTED_ROWS_MAX": (1, 2, 2_000),
    "LISTENERS_LOADED_PER_PASS_MAX": (1, 200),
    "LISTENERS_OFFERED_TOGETHER_MAX": (1, 1_000),
    "PASSED_FILTERS_KNOWN_MAX": (1, 100),
    "EVENT_TYPES_ABSENT_MAX": (1, 1_000),
}
"""Bounds of listeners, some so narrow that a few events reach them."""


@cache
def _common() -> Config:
    """Settings that all lives share; to read them from the environment takes as long as some lives do."""
    return Config(stigmer_service_endpoint="localhost:1", run_allowed="shell")


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
    effects: Counter[str]
    """Effects performed, by kind; of `run_workflow` children."""
    cloud_events: Counter[str]
    """What was counted of CloudEvents; see Ledger."""
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
        self.jobs = [make_job(rng, number, self.world.forgets) for number in range(rng.choice((3, 8, 20)))]
        self._remembers = rng.random() < 0.8
        """Whether events are kept until all is over."""
        self.senders: list[Sender] = []
        for _ in range(rng.choice((0, 1, 4))):
            self._add_listening(self._remembers and rng.random() < 0.5)
        if self._remembers and rng.random() < 0.5:
            self.senders.append(make_news(rng))
            for _ in range(rng.choice((1, 3, 6))):
                kind = rng.choice(list(NEWS))
                self.jobs += make_listening_jobs(rng, len(self.jobs), self.world.forgets, paired=False, kind=kind)
        self._kinds = {job.execution_id: job.kind for job in self.jobs}
        self._key = rng.randbytes(16)
        self._shard_count = rng.choice((1, 1, 2, 3))
        self._life = 0
        self._runner: Runner

    def _add_listening(self, paired: bool) -> None:
        rng = self.world.rng
        self.jobs += (added := make_listening_jobs(rng, len(self.jobs), self.world.forgets, paired=paired))
        if not paired:
            self.senders.append(make_sender(rng, added[0].execution_id, added[0].kind))

    def _config(self) -> Config:
        """Settings of the next life. In the last one there is room for all, also beside those that stay paused."""
        rng = self.world.rng
        executions_max = 1_000 if self.world.calm else rng.choice((3, 1_000))
        changes = {
            "data_dir": self._folder,
            "executions_max": executions_max,
            "parked_resident_max": rng.choice((0, 1, 1_000)),
            "event_retention_s": 1e6 if self._remembers else 3.0,
            "cancel_grace_s": rng.choice((0.0, 0.5, 30.0)),
            "retention_count": rng.choice((0, 1, 3)) if self.world.forgets else 100_000,
        }
        return _common().model_copy(update=changes)

    def run(self) -> Verdict:
        """All lives, then the verdict."""
        rng = self.world.rng
        for _ in range(rng.choice((0, 1, 2, 4))):
            self._live(rng.expovariate(0.5), drained=rng.random() < 0.3)
            self.world.clock.now_ns += int(rng.uniform(0, 10) * 1e9)
            if rng.random() < 0.2:
                self._set_wall_clock()
            self._runner.close()
        self.world.calm = True
        self._live(None, drained=True)
        self._check_places()
        self._runner.close()
        if not self.world.forgets:
            self._check_events()
            self._check_heard()
        digest = hashlib.sha256(str(self.world.clock.now_ns).encode())
        for execution_id in sorted(self.receiver.events):
            digest.update(b"".join(self.receiver.events[execution_id]))
        return Verdict(
            self._seed,
            tuple(self.world.violations),
            self.world.faults,
            self._life,
            sum(job.accepted for job in self.jobs),
            sum(map(len, self.receiver.events.values())),
            self.receiver.resent_count,
            self.world.effects,
            Counter(self.world.ledger.counts),
            digest.hexdigest(),
        )

    # --- lives ---

    def _live(self, length_s: float | None, *, drained: bool) -> None:
        """One life of `length_s`; the last one, without length, goes on until everything has come right."""
        self._life += 1
        loop = VirtualLoop(self.world.clock)
        asyncio.set_event_loop(loop)
        if length_s is not None and not drained:
            loop.kill_at(length_s)
        main = loop.create_task(self._main(length_s))
        try:
            loop.run_until_complete(main)
        except Killed:
            self.world.faults["killed"] += 1
            self._runner.kill()
        finally:
            bury(loop)
            asyncio.set_event_loop(None)

    async def _main(self, length_s: float | None) -> None:
        rng = self.world.rng
        worker_count = rng.choice((1, 1, 2, 3))
        # The directory grows with the workers, and never shrinks.
        self._shard_count = max(self._shard_count, worker_count)
        self._runner = runner = Runner(
            self.world, self._config(), worker_count, self._shard_count, self._key, self._service, self.receiver
        )
        clients = [asyncio.create_task(self._client(job, runner)) for job in self.jobs if not job.settled]
        clients += [asyncio.create_task(self._send(each, runner)) for each in self.senders if not each.settled]
        if length_s is not None:
            if rng.random() < 0.2:
                asyncio.get_running_loop().call_later(rng.uniform(0, length_s), self._set_wall_clock)
            if rng.random() < 0.5:
                clients.append(asyncio.create_task(runner.replace_workers()))
            await asyncio.sleep(length_s)
        else:
            await runner.ready()
            await self._come_right(runner, clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await runner.drain()

    async def _client(self, job: Job, runner: Runner) -> None:
        try:
            await job.run(runner)
        except Exception as error:
            self.world.violations.append(f"a client failed: {error!r}")

    async def _send(self, sender: Sender, runner: Runner) -> None:
        async def send(request: bytes) -> None:
            code = await insist(runner, "SendEvents", request)
            if code:
                self.world.violations.append(f"SendEvents was answered with {code}")

        await sender.run(send, self._listens)

    def _listens(self, execution_id: str) -> bool:
        """Whether the files have it that an execution listens."""
        query = (
            "select 1 from listeners join executions using (execution_key) where execution_id = ? and finished_ms = 0"
        )
        for path in self._folder.glob("shard-*.db"):
            # One that is just made has no tables yet.
            with closing(apsw.Connection(str(path))) as db, suppress(apsw.SQLError):
                if db.execute(query, (execution_id,)).get:
                    return True
        return False

    def _set_wall_clock(self) -> None:
        self.world.faults["wall clock set"] += 1
        self.world.clock.wall_step_ns += int(self.world.rng.uniform(-60, 3_600) * 1e9)

    # --- the last life ---

    async def _come_right(self, runner: Runner, clients: list[asyncio.Task[None]]) -> None:
        _, late = await asyncio.wait(clients, timeout=_PATIENCE_S) if clients else ((), ())
        for _ in late:
            self.world.violations.append(f"waited {_PATIENCE_S} s for a client's answers")
        for job in self.jobs:
            await self._check_answers(runner, job)
        if self.world.forgets:
            return
        for job in self.jobs:
            await self._check_promises(runner, job)
        senders = [] if self._remembers else self.senders
        again = [asyncio.create_task(self._send_again(each, runner)) for each in senders]
        for job in self.jobs:
            await self._until(self._ended(job), f"{job.execution_id} ({job.kind}) to be reported ended")
            if self._ended(job)():
                await self._check_result(runner, job)
        for each in again:
            each.cancel()
        await self._check_families(runner)

    async def _send_again(self, sender: Sender, runner: Runner) -> None:
        """What was sent may have expired before it was listened for; but not what came later."""
        if sender.surely_heard is not None and self._kinds[sender.execution_id] in ("hear-one", "hear-any"):
            ended = partial(self._last_is_terminal, sender.execution_id)
            await self._until(ended, f"{sender.execution_id} to hear its event {sender.surely_heard}")
        while not self._last_is_terminal(sender.execution_id):
            sender.begin_anew()
            await self._send(sender, runner)

    async def _check_answers(self, runner: Runner, job: Job) -> None:
        """One of its requests was accepted, and from whichever worker that is asked again the answers are the same."""
        if not job.accepted:
            self.world.violations.append(f"of the requests for {job.execution_id} none was accepted")
            return
        try:
            for worker in range(runner.worker_count):
                await asyncio.wait_for(job.submit_again(runner, job.winner, worker), _PATIENCE_S)
                await asyncio.wait_for(job.submit_other(runner, worker), _PATIENCE_S)
        except (Broken, TimeoutError) as error:
            self.world.violations.append(f"{job.execution_id} at the end: {error!r}")

    async def _holder(self, runner: Runner, execution_id: str) -> tuple[EmbeddedEngine, ExecutionView]:
        """The one engine that has an execution, and how it shows it."""
        found = []
        for worker in runner.workers:
            assert worker.engine is not None
            with suppress(UnknownExecution):
                found.append((worker.engine, await worker.engine.get(execution_id)))
        if len(found) > 1:
            self.world.violations.append(f"{execution_id} lives at {len(found)} workers")
        return found[0]

    async def _check_promises(self, runner: Runner, job: Job) -> None:
        """A pause holds as long as nobody resumes; then the execution is let go on."""
        if not job.promised or job.promised[-1] != "pause" or job.refused or job.cancelled:
            return
        engine, view = await self._holder(runner, job.execution_id)
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

    async def _check_result(self, runner: Runner, job: Job) -> None:
        view = await self._check_end(runner, job.execution_id, job.kind)
        if view.status == "completed" and job.kind in HEARS:
            self._check_hearing(job, orjson.loads(view.output_json)["heard"] or [])
        elif job.kind in HEARS and not job.cancelled and job.kind != "hear-child":
            # There may be no place for a child.
            self.world.violations.append(f"{job.execution_id} ({job.kind}) is {view.status}: {view.error}")
        if job.cancelled and view.status != "cancelled":
            self.world.violations.append(f"{job.execution_id} is {view.status} though its cancel was promised")

    def _check_hearing(self, job: Job, heard: list[int]) -> None:
        """It has had each event once, and in their order; if all were kept, then all of them."""
        expected = self.world.ledger.heard(job.execution_id, job.kind)
        if job.kind == "hear-late":
            # Whether the first one is heard in time is not for the document to say.
            expected = expected[: max(len(heard), 1)]
        if self._remembers and heard != expected:
            self.world.violations.append(f"{job.execution_id} ({job.kind}) has heard {heard}, not {expected}")
        if job.kind == "hear-room":
            heard = sorted(heard)
        for sender in self.senders:
            sure = sender.surely_heard if sender.execution_id == job.execution_id else None
            if sure is not None and job.kind in _HEARS_AT_ONCE and heard[0] > sure:
                self.world.violations.append(f"{job.execution_id} has not heard its event {sure}: {heard}")
        if not self._remembers and (heard != sorted(heard) or len({*heard}) < len(heard) - (job.kind == "hear-fork")):
            self.world.violations.append(f"{job.execution_id} ({job.kind}) has heard {heard}")

    async def _check_end(self, runner: Runner, execution_id: str, kind: str) -> ExecutionView:
        """The receiver has all its events, and what it came to is what its document says."""
        engine, view = await self._holder(runner, execution_id)
        stored = await engine.events(execution_id, 1, 1_000_000)
        if stored != self.receiver.events[execution_id]:
            self.world.violations.append(f"{execution_id}: the receiver has other events than the store")
        if view.status == "completed" and OUTPUTS.get(kind) not in (None, view.output_json):
            self.world.violations.append(f"{execution_id} came to {view.output_json}, not {OUTPUTS[kind]}")
        return view

    async def _check_families(self, runner: Runner) -> None:
        """Every child ends as one that a client has started does; who has completed had the children it should have."""
        kinds = {job.execution_id: job.kind for job in self.jobs}
        children: Counter[str] = Counter()
        for _, execution_id, parent_id in self._rows():
            if not parent_id:
                continue
            children[parent_id] += 1
            await self._until(partial(self._last_is_terminal, execution_id), f"{execution_id} to be reported ended")
            if self._last_is_terminal(execution_id):
                _, child = await self._holder(runner, execution_id)
                kinds[execution_id] = child.name
                await self._check_end(runner, execution_id, child.name)
        for execution_id, kind in kinds.items():
            _, view = await self._holder(runner, execution_id)
            if view.status == "completed" and children[execution_id] not in CHILDREN.get(kind, range(1)):
                self.world.violations.append(f"{execution_id} completed and has had {children[execution_id]} children")

    def _rows(self) -> list[tuple[int, str, str]]:
        """(shard, execution id, its parent's) of all that there are in the files."""
        rows = []
        for number in range(self._shard_count):
            with closing(apsw.Connection(str(self._folder / f"shard-{number:04d}.db"))) as db:
                found = db.execute("select execution_id, parent_id from executions")
                rows += [(number, execution_id, parent_id) for execution_id, parent_id in found]
        return rows

    # --- the verdict ---

    def _check_places(self) -> None:
        """Each execution lives in one shard; the table says what the files say, and the second copies nothing less."""
        table = self._runner.shared.places(0, 1).table
        shard_of: dict[str, int] = {}
        rows = self._rows()
        self.world.effects["run_workflow"] = sum(bool(parent_id) for _, _, parent_id in rows)
        for number in range(self._shard_count):
            path = self._folder / f"shard-{number:04d}.db"
            ids = [execution_id for shard, execution_id, _ in rows if shard == number]
            for execution_id in ids:
                first = shard_of.setdefault(execution_id, number)
                if first != number:
                    self.world.violations.append(f"{execution_id} lives in shards {first} and {number}")
            hashes = sorted(map(table.hash_of, ids))
            known = Counter(array("Q", table.hashes(number)))
            # Where ids are taken anew to the end, the children of those may be on their way into the file.
            is_right = known >= Counter(hashes) if self.world.forgets else known == Counter(hashes)
            if not is_right:
                self.world.violations.append(f"the table has other ids of shard {number} than its file")
            copied = array("Q", Identities(path.with_suffix(".ids"), self._key).read().hashes)
            if not set(hashes) <= set(copied):
                self.world.violations.append(f"the second copy of shard {number} lacks ids")
        for number, execution_id, parent_id in rows:
            # An id whose execution is forgotten may be taken anew, elsewhere.
            if parent_id and shard_of.get(parent_id, number) != number and not self.world.forgets:
                self.world.violations.append(f"{execution_id} lives in another shard than its parent")
        missing = {job.execution_id for job in self.jobs} - set(shard_of)
        if missing and not self.world.forgets:
            self.world.violations.append(f"{sorted(missing)} were accepted and are in no file")

    def _check_heard(self) -> None:
        """Nothing is emitted twice, and nothing is left of listeners that have ended."""
        self.world.violations += self.world.ledger.emitted_twice()
        for number in range(self._shard_count):
            with closing(apsw.Connection(str(self._folder / f"shard-{number:04d}.db"))) as db:
                for table in ("listeners", "event_inbox", "inbox_events", "events_taken"):
                    if left := db.execute(f"select * from {table}").fetchall():
                        self.world.violations.append(f"shard {number} has {len(left)} rows left in {table}: {left}")

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
    loop.raise_the_dead()
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
    bounds, wide = vars(limits), {name: vars(limits)[name] for name in _NARROW}
    bounds.update({name: simulation.world.rng.choice(choices) for name, choices in _NARROW.items()})
    random.seed(seed)
    try:
        with _quiet():
            return simulation.run()
    finally:
        names["time"] = real
        bounds.update(wide)
        random.setstate(state)
        shutil.rmtree(folder)
