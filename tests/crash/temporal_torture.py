"""Support: two replicas on one Temporal server, each killed mid-way again and again, and the server too; then all is
compared.

    python -m tests.crash.temporal_torture --kills 50 --seed 7

What one replica accepts the other one pauses, resumes and cancels, while SIGKILL ends either of them, or the server,
which goes on with its file. The seed fixes what is asked and who is killed, in which order; what that hits depends on
the machine's timing. Ctrl-C ends the torture early and compares what there is.
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from fastrunner.base.clock import monotonic_s
from fastrunner.progress.names import TERMINAL_EVENTS
from fastrunner.stigmer.ledger import Ledger
from tests.crash.checker import judge
from tests.crash.children import is_child
from tests.crash.documents import CHILDREN, DETACHED, definitions, document, kinds
from tests.crash.hearing import HEARS, HEARS_A_CLIENT, PARTNERS
from tests.crash.monkey import ReceiverProcess
from tests.crash.report import Report, shown
from tests.crash.temporal_histories import Histories
from tests.crash.tree import Tree, until
from tests.crash.workload import Clients, Promise, Service, serve_effects
from tests.integration.temporal_server import TemporalServer

__all__ = ["TemporalTorture"]

_CALLERS = 12
_REST_S_MAX = 180.0
_EXPECTED = "Temporal at "
"""What a replica may say of a server that is killed."""


class TemporalTorture:
    """One run, in a folder of its own."""

    def __init__(
        self,
        seed: int,
        kills: int,
        path: Path,
        *,
        server_kills: int = 0,
        callers: int = _CALLERS,
        report: str = "attached",
    ) -> None:
        """`kills` of replicas, `server_kills` of the server, beside so many clients at work. `report` is that of the
        replicas' settings."""
        self.report = Report(seed)
        self.stopping = asyncio.Event()
        """Ends the torture early."""
        self._faults = ["replica"] * kills + ["server"] * server_kills
        self._path = path
        self._callers = callers
        self._report = report
        self._chance = random.Random(seed)
        self._chance.shuffle(self._faults)
        self._server = TemporalServer(path / "temporal.db")
        self._promises: list[Promise] = []
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def done_ratio(self) -> float:
        """How much of it is over, from 0 to 1."""
        return self.report.faults.total() / max(len(self._faults), 1)

    def state(self) -> str:
        """One line on what has happened so far."""
        return f"{len(self._promises)} executions, {self.report.faults.total()} kills"

    async def run(self) -> Report:
        """Tortures, lets everything come to rest, and compares."""
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(self._server.start)
            stack.callback(self._server.stop)
            service = await stack.enter_async_context(
                serve_effects(self._chance.randrange(2**32), self._path / "shells")
            )
            receiver = ReceiverProcess(self._path / "received.jsonl", self._path / "receiver.log", "")
            await receiver.start()
            stack.push_async_callback(receiver.kill)
            trees = [self._replica(name, receiver) for name in ("one", "two")]
            for tree in trees:
                stack.push_async_callback(tree.kill)
            await asyncio.gather(*(tree.start() for tree in trees))
            clients = [
                Clients(tree.target, self._chance.randrange(2**32), connections=3, give_up_s=_REST_S_MAX)
                for tree in trees
            ]
            for each in clients:
                stack.push_async_callback(each.close)
                await each.register(definitions(service.outside))
            began_s = monotonic_s()
            await self._torture(trees, clients, service)
            self.report.duration_s = monotonic_s() - began_s
            await self._rest(clients[0], receiver)
            await self._compare(service, clients[1], trees, receiver)
        return self.report

    def _replica(self, name: str, receiver: ReceiverProcess) -> Tree:
        (self._path / name).mkdir(0o700)
        return Tree(
            self._path / name, self._path / f"{name}.log", FASTRUNNER_WORKERS="1", LOG_LEVEL="warn",
            TEMPORAL_SERVICE_ADDRESS=self._server.address, STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{receiver.port}",
            STIGMER_SERVICE_USE_TLS="false", FASTRUNNER_CANCEL_GRACE_S="1", FASTRUNNER_RUN_ALLOWED="shell",
            FASTRUNNER_TEMPORAL_REPORT=self._report,
        )  # fmt: skip

    async def _torture(self, trees: Sequence[Tree], clients: Sequence[Clients], service: Service) -> None:
        callers = [asyncio.create_task(self._call(number, service, clients)) for number in range(self._callers)]
        shells = asyncio.create_task(self._watch(service))
        try:
            for fault in self._faults:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), self._chance.uniform(0.3, 2.0))
                    break
                if fault == "server":
                    await asyncio.to_thread(self._server.kill)
                    await asyncio.to_thread(self._server.start)
                else:
                    fault = self._chance.choice(("one", "two"))
                    tree = trees[fault == "two"]
                    await tree.kill()
                    await tree.start()
                self.report.faults[f"kill {fault}"] += 1
            self.stopping.set()
            await asyncio.gather(*callers)
        finally:
            for task in (shells, *callers):
                task.cancel()
            await asyncio.gather(shells, *callers, return_exceptions=True)

    async def _watch(self, service: Service) -> None:
        # Until cancelled.
        while True:
            service.shells.read()
            await asyncio.sleep(0.1)

    async def _call(self, caller: int, service: Service, clients: Sequence[Clients]) -> None:
        """One client: has one replica execute and the other one interfere, until the torture ends."""
        chance = random.Random(self._chance.randrange(2**32))
        number = 0
        while not self.stopping.is_set():
            number += 1
            promise = Promise(f"t{caller}-{number}-{chance.randrange(2**32):08x}", chance.choice(kinds))
            self._promises.append(promise)
            if promise.kind in HEARS:
                promise.pair = promise.execution_id
            accepts, controls = chance.sample(clients, 2)
            text = document(promise.kind, service.outside)
            talking = asyncio.create_task(self._talk(promise, service, controls))
            await accepts.execute(promise, text)
            if chance.random() < 0.2:
                self._watchers.append(asyncio.create_task(controls.watch(promise)))
            if chance.random() < 0.1:
                await controls.execute(promise, text)
                await controls.take_id_again(promise, text + " ")
            for _ in range(chance.choice((0, 0, 1, 2, 4))):
                await asyncio.sleep(chance.uniform(0, 0.3))
                is_parent = promise.kind in CHILDREN and promise.kind != DETACHED
                target = promise.touch_child() if is_parent and chance.random() < 0.15 else promise
                await self._interfere(target, controls, chance)
            await talking
            await asyncio.sleep(chance.uniform(0.2, 2.0))

    async def _talk(self, promise: Promise, service: Service, clients: Clients) -> None:
        """Whoever it hears begins, perhaps before it does, at the other replica."""
        partner = promise.partner()
        if partner is not None:
            self._promises.append(partner)
            await clients.execute(partner, document(partner.kind, service.outside))
        elif promise.kind == HEARS_A_CLIENT:
            await clients.tell(promise)

    async def _interfere(self, target: Promise, controls: Clients, chance: random.Random) -> None:
        verb = chance.choice(("pause", "pause", "resume", "resume", "cancel"))
        if verb == "cancel" and target.kind in PARTNERS:
            # Its partner would wait for ever.
            return
        if verb == "pause":
            await controls.pause(target)
        elif verb == "resume":
            await controls.resume(target)
        else:
            await controls.cancel(target, force=chance.random() < 0.5)

    async def _rest(self, clients: Clients, receiver: ReceiverProcess) -> None:
        """What is promised to be paused still is; then it goes on, and everything ends."""
        for promise in self._promises:
            if promise.paused:
                await clients.check_is_paused(promise)
            for each in (promise, promise.child):
                if each is not None and each.pause_sent:
                    await clients.resume(each)
        ended: set[str] = set()
        begun: set[str] = set()

        def all_ended() -> bool:
            for execution_id, event_type in receiver.news():
                begun.add(execution_id)
                if event_type in TERMINAL_EVENTS:
                    ended.add(execution_id)
            return begun | {promise.execution_id for promise in self._promises if promise.accepted} <= ended

        with suppress(AssertionError):  # What has not ended by then is judged as lost.
            await until(all_ended, "every end", _REST_S_MAX)
        _, late = await asyncio.wait(self._watchers, timeout=30) if self._watchers else ((), ())
        for task in late:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    async def _compare(
        self, service: Service, clients: Clients, trees: Sequence[Tree], receiver: ReceiverProcess
    ) -> None:
        report, histories = self.report, Histories()
        await histories.read(self._server.address)
        children = list(filter(is_child, histories.executions()))
        asked = [promise.execution_id for promise in self._promises]
        statuses = {each: await clients.status(each) for each in (*asked, *children)}
        for tree in trees:
            if code := await tree.stop():
                report.violations.append(f"a replica ended with exit code {code}")
            report.violations += [f"a replica said: {line}" for line in tree.defects() if _EXPECTED not in line]
        report.resent = await receiver.stop()
        ledger = Ledger(self._path / "received.jsonl")
        effects = service.effects()
        verdict = judge(
            self._promises, ledger, histories, effects, lambda each: statuses.get(each, "unknown"), histories.published
        )
        report.violations += verdict.violations + histories.problems
        report.cloud_events, report.heard = len(histories.published), verdict.heard
        report.executions = len(asked)
        report.by_end.update(map(statuses.__getitem__, asked))
        report.children_by_end.update(map(statuses.__getitem__, children))
        report.events = ledger.summary().events
        report.count_effects({"call": service.calls, "run: shell": service.shells.runs})
        report.notes.append(f"histories: {histories.count}, the longest has {histories.events_max} events")
        report.notes.append(f"effects with an outcome in a history: {len(histories.completed_s)}")
        ledger.close()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how often a replica is killed (50)")
    parser.add_argument("--server-kills", type=int, default=5, help="how often the server is killed (5)")
    parser.add_argument("--report", default="attached", help="FASTRUNNER_TEMPORAL_REPORT (attached)")
    parser.add_argument("--seed", type=int, default=None, help="what to do, and in which order (random)")
    arguments = parser.parse_args()
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    path = Path(tempfile.mkdtemp(prefix="fastrunner-torture-"))
    chosen = {"server_kills": arguments.server_kills, "report": arguments.report}
    torture = TemporalTorture(seed, arguments.kills, path, **chosen)
    return asyncio.run(shown(torture, seed, path))


if __name__ == "__main__":
    sys.exit(main())
