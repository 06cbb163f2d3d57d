"""Support: SIGKILL at every named crash point of a real tree, then of the whole tree, then a restart: nothing is lost.

Two points share a tree of two workers, one each. `--crash-runs N` runs every point N times, each time at another of the
moments it is reached; the table at the end says what came of it.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastrunner.base.clock import monotonic_s
from fastrunner.base.crash import CrashPoint
from fastrunner.stigmer.receiver import Receiver, ReceiverOptions, serve_receiver
from tests.crash.checker import Verdict, judge
from tests.crash.documents import definitions, document, kinds
from tests.crash.hearing import HEARS, HEARS_A_CLIENT, PARTNERS, EventLog
from tests.crash.tree import Journal, Tree, until
from tests.crash.workload import Clients, Promise, Service, serve_effects
from tests.integration.engines import folder

_TOKEN = "receive-only"
_WORKERS = 2
_EXECUTIONS = 45
_POINTS = list(CrashPoint)
_PAIRS = list(zip(_POINTS[::2], _POINTS[1::2], strict=True))
_KINDS = [kind for kind in kinds if kind not in ("slow", "shells")]
_RARE = {"eviction", "retention", "resume", "cancel", "forward", "events", "inbox", "taking"}
"""Parts of the names of points that one worker may reach only a few times in a run."""


@dataclass
class Table:
    """What came of the runs, by point."""

    runs: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    duplicated: Counter[str] = field(default_factory=Counter)

    def add(self, points: tuple[str, str], verdict: Verdict, shards: Mapping[str, set[int]]) -> None:
        """Counts a run; an execution belongs to the point of the worker that has it."""
        self.runs.update(points)
        for name in ("lost", "repeated", "duplicated"):
            getattr(self, name).update(
                points[shard] for each in getattr(verdict, name) for shard in shards.get(each, {0})
            )

    def lines(self) -> Iterator[str]:
        """The table, for people."""
        yield f"{'point':<26} {'runs':>5} {'lost':>5} {'repeated':>9} {'duplicated':>11}"
        for point in self.runs:
            counts = f"{self.lost[point]:>5} {self.repeated[point]:>9} {self.duplicated[point]:>11}"
            yield f"{point:<26} {self.runs[point]:>5} {counts}"


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    table = Table()
    yield table
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", *table.lines(), sep="\n")


class Run:
    """One tree, killed at its points."""

    def __init__(self, points: tuple[str, str], seed: int, path: Path) -> None:
        self.chance = random.Random(f"{points[0]} {seed}")
        self.retention = "retention" in points[0]
        self.receiver = Receiver(ReceiverOptions(port=0, token=_TOKEN))
        self.journal = Journal(path / "data")
        self.log = EventLog(path / "data")
        self.shells = path / "shells"
        self.promises: list[Promise] = []
        self.statuses: dict[str, str] = {}
        self._points = points
        nth = [self.chance.randint(1, 2 if set(point.split("-")) & _RARE else 12) for point in points]
        self.plan = ",".join(f"{point}:{count}" for point, count in zip(points, nth, strict=True))
        # Of finished executions so few are kept that retention deletes while others run, and of waiting ones so few are
        # in memory that evictions are frequent.
        self.tree = Tree(
            path / "data", path / "log", FASTRUNNER_WORKERS=str(_WORKERS), STIGMER_SERVICE_API_KEY=_TOKEN,
            STIGMER_SERVICE_USE_TLS="false", FASTRUNNER_RETENTION_COUNT="3" if self.retention else "100000",
            FASTRUNNER_PARKED_RESIDENT_MAX=str(self.chance.choice((0, 2))), FASTRUNNER_RUN_ALLOWED="shell",
        )  # fmt: skip

    async def go(self) -> Verdict:
        options = ReceiverOptions(port=0, token=_TOKEN)
        async with (
            serve_effects(self.chance.randrange(2**32), self.shells) as service,
            serve_receiver(self.receiver, options) as port,
        ):
            await self.tree.start(STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{port}", FASTRUNNER_CRASH_POINT=self.plan)
            clients = Clients(self.tree.target, self.chance.randrange(2**32))
            try:
                await clients.register(definitions(service.outside))
                await self._live(service, clients, port)
            finally:
                await clients.close()
                await self.tree.kill()
        published = self.log.events.values()
        return judge(self.promises, self.receiver.ledger, self.journal, service.effects(), self._status, published)

    def _status(self, execution_id: str) -> str:
        return self.statuses.get(execution_id, "unknown")

    async def _live(self, service: Service, clients: Clients, port: int) -> None:
        watching = asyncio.create_task(self._watch(service))
        asking: list[asyncio.Task[None]] = []
        try:
            await self._ask_until_all_are_reached(asking, service, clients)
            # The successors are just recovering: now everything dies, and starts again without crash points.
            await self.tree.kill()
            self.journal.read(whole=True)
            await self.tree.start(STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{port}")
            await asyncio.gather(*asking)
            await self._resume_what_was_paused(clients)
            with suppress(AssertionError):  # What has not ended by then is judged as lost.
                await until(self._all_ended, "every end", 20)
            self.journal.read(whole=True)
            self.log.read()
            for execution_id in self._ids():
                self.statuses[execution_id] = await clients.status(execution_id)
            assert await self.tree.stop() == 0
            assert self.journal.problems() == []
            assert not self.tree.defects(), self.tree.said()
        finally:
            for task in (watching, *asking):
                task.cancel()
            await asyncio.gather(watching, *asking, return_exceptions=True)

    def _ids(self) -> set[str]:
        """Of every execution that there has been, also of those that others have started."""
        return {*(promise.execution_id for promise in self.promises), *self.journal.shards}

    def _all_ended(self) -> bool:
        ledger = self.receiver.ledger
        if not all(ledger.terminal(promise.execution_id) for promise in self.promises):
            return False
        self.journal.read(whole=self.retention)
        return all(map(ledger.terminal, self._ids()))

    async def _ask_until_all_are_reached(
        self, asking: list["asyncio.Task[None]"], service: Service, clients: Clients
    ) -> None:
        give_up_s = monotonic_s() + 20
        while not self._all_reached():
            assert monotonic_s() < give_up_s, f"not reached: {self.plan}"
            if len(asking) < _EXECUTIONS or all(task.done() for task in asking):
                for number in range(len(asking), len(asking) + _EXECUTIONS):
                    asking.append(asyncio.create_task(self._ask(number, service, clients)))
            await asyncio.sleep(0.01)

    def _all_reached(self) -> bool:
        said = self.tree.said()
        return all(f"crash point {point} reached" in said for point in self._points)

    async def _watch(self, service: Service) -> None:
        # Until cancelled.
        while True:
            service.shells.read()
            # Where rows are deleted, their numbers may come again.
            self.journal.read(whole=self.retention)
            self.log.read()
            await asyncio.sleep(0.03)

    async def _ask(self, number: int, service: Service, clients: Clients) -> None:
        kind = _KINDS[number % len(_KINDS)]
        promise = Promise(f"x{number}-{self.chance.randrange(2**32):08x}", kind, may_be_gone=self.retention)
        self.promises.append(promise)
        # Spread over a second, so that the points are reached in the middle of things.
        await asyncio.sleep(self.chance.uniform(0, 1.0))
        if kind in HEARS:
            promise.pair = promise.execution_id
        await asyncio.gather(
            clients.execute(promise, document(kind, service.outside)), self._talk(promise, service, clients)
        )
        await asyncio.sleep(self.chance.uniform(0, 0.1))
        if number % 3 == 1:
            await clients.pause(promise)
        if number % 6 == 1:
            await asyncio.sleep(self.chance.uniform(0, 0.2))
            await clients.resume(promise)
        if (number % 4 == 2 or number % 9 == 4) and kind not in PARTNERS:
            await clients.cancel(promise, force=number % 2 == 0)

    async def _talk(self, promise: Promise, service: Service, clients: Clients) -> None:
        """Whoever it hears begins."""
        partner = promise.partner()
        if partner is not None:
            self.promises.append(partner)
            await clients.execute(partner, document(partner.kind, service.outside))
        elif promise.kind == HEARS_A_CLIENT:
            await clients.tell(promise)

    async def _resume_what_was_paused(self, clients: Clients) -> None:
        """What was promised to be paused still is; from here on it goes on."""
        for promise in self.promises:
            if promise.paused:
                status = await clients.status(promise.execution_id)
                if status != "paused":
                    promise.errors.append(f"its pause was answered with OK, but it is {status}")
            if promise.pause_sent:
                await clients.resume(promise)


@pytest.mark.parametrize("points", _PAIRS, ids=" ".join)
def test_nothing_is_lost(points: tuple[str, str], table: Table, pytestconfig: pytest.Config) -> None:
    for seed in range(pytestconfig.getoption("--crash-runs")):
        run = Run(points, seed, folder())
        verdict = asyncio.run(run.go())
        table.add(points, verdict, run.journal.shards)
        assert not verdict.violations, "\n".join([f"{run.plan}, seed {seed}", *verdict.violations[:20]])
