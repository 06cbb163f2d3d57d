"""Support: a real runner under a monkey that kills, freezes, cuts, refuses and fills the disk; then all is compared.

    python -m tests.crash.torture --minutes 30 --seed 7 [--sealed]

Four workers over real SQLite files, sealed or not, the reference receiver in a process of its own behind a proxy,
workflows of every kind and children of theirs, cancels, pauses and resumes. The seed fixes what is asked and what the
monkey does, in which order; what it hits depends on the machine's timing. Ctrl-C ends the torture early and compares
what there is.
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from fastrunner.access.sealing import DataKeys, add_key
from fastrunner.base.clock import monotonic_s
from fastrunner.progress.names import TERMINAL_EVENTS
from fastrunner.stigmer.ledger import Ledger
from tests.crash.checker import judge
from tests.crash.children import is_child
from tests.crash.documents import CHILDREN, definitions, document, kinds
from tests.crash.hearing import HEARS, HEARS_A_CLIENT, PARTNERS, EventLog
from tests.crash.monkey import Monkey, ReceiverProcess
from tests.crash.proxy import Proxy
from tests.crash.report import Report, shown
from tests.crash.tree import Journal, Tree, until
from tests.crash.workload import Clients, Promise, Service, serve_effects
from tests.disk import SmallDisk

__all__ = ["Torture"]

_TOKEN = "receive-only"
_WORKERS = 4
_AT_ONCE = 48
_REST_S_MAX = 120.0


class Torture:
    """One run, in a folder of its own."""

    def __init__(self, seed: int, duration_s: float, path: Path, *, calm: bool = False, sealed: bool = False) -> None:
        """`calm`: without faults; `sealed`: with a data directory whose values are sealed."""
        self.report = Report(seed)
        self.stopping = asyncio.Event()
        """Ends the torture early."""
        self._duration_s = duration_s
        self._calm = calm
        self._path = path
        self._chance = random.Random(seed)
        self._disk = SmallDisk(path / "data")
        self._sealing = {"FASTRUNNER_DATA_KEY_FILE": str(path / "keys")} if sealed else {}
        if sealed:
            add_key(path / "keys", "one")
        keys = DataKeys.read(path / "keys") if sealed else None
        self._journal = Journal(path / "data", keys)
        self._log = EventLog(path / "data", keys)
        self._promises: list[Promise] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._began_s = monotonic_s()

    @property
    def done_ratio(self) -> float:
        """How much of it is over, from 0 to 1."""
        return min((monotonic_s() - self._began_s) / self._duration_s, 1.0)

    def state(self) -> str:
        """One line on what has happened so far."""
        return f"{len(self._promises)} executions, {sum(self.report.faults.values())} faults"

    async def run(self) -> Report:
        """Tortures, lets everything come to rest, and compares."""
        async with AsyncExitStack() as stack:
            self._disk.path.mkdir(exist_ok=True)
            self._disk.mount("size=4g,mode=0700")
            stack.callback(self._disk.unmount)
            service = await stack.enter_async_context(
                serve_effects(self._chance.randrange(2**32), self._path / "shells")
            )
            receiver = ReceiverProcess(self._path / "received.jsonl", self._path / "receiver.log", _TOKEN)
            await receiver.start()
            stack.push_async_callback(receiver.kill)
            proxy = Proxy(receiver.port)
            await proxy.start()
            stack.push_async_callback(proxy.close)
            tree = Tree(
                self._path / "data", self._path / "log", FASTRUNNER_WORKERS=str(_WORKERS), LOG_LEVEL="warn",
                STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{proxy.port}", STIGMER_SERVICE_API_KEY=_TOKEN,
                STIGMER_SERVICE_USE_TLS="false", FASTRUNNER_CALLBACK_TIMEOUT_S="3", FASTRUNNER_CANCEL_GRACE_S="1",
                FASTRUNNER_PARKED_RESIDENT_MAX="3", FASTRUNNER_RUN_ALLOWED="shell", **self._sealing,
            )  # fmt: skip
            stack.push_async_callback(tree.kill)
            await tree.start()
            clients = Clients(tree.target, self._chance.randrange(2**32), give_up_s=_REST_S_MAX)
            stack.push_async_callback(clients.close)
            await clients.register(definitions(service.outside))
            monkey = Monkey(
                random.Random(self._chance.randrange(2**32)), tree, receiver, proxy, self._disk, self.report.faults
            )
            self._began_s = monotonic_s()
            await self._torture(monkey, service, clients)
            self.report.duration_s = monotonic_s() - self._began_s
            await self._rest(clients, receiver)
            await self._compare(service, clients, tree, receiver)
        return self.report

    async def _torture(self, monkey: Monkey, service: Service, clients: Clients) -> None:
        watching = asyncio.create_task(self._watch(service))
        callers = [asyncio.create_task(self._call(number, service, clients)) for number in range(_AT_ONCE)]
        raging = None if self._calm else asyncio.create_task(monkey.rage(self.stopping))
        try:
            stopped = asyncio.create_task(self.stopping.wait())
            await asyncio.wait(
                [stopped, *callers, *([raging] if raging else [])],
                timeout=self._duration_s, return_when=asyncio.FIRST_COMPLETED,
            )  # fmt: skip
            self.stopping.set()
            await stopped
            if raging is not None:
                await raging
            await monkey.make_peace()
            self.report.violations += monkey.complaints
            await asyncio.gather(*callers)
        finally:
            watching.cancel()
            for task in callers:
                task.cancel()
            await asyncio.gather(watching, *callers, return_exceptions=True)

    async def _watch(self, service: Service) -> None:
        # Until cancelled.
        while True:
            service.shells.read()
            self._journal.read(whole=False)
            self._log.read()
            await asyncio.sleep(0.1)

    async def _call(self, caller: int, service: Service, clients: Clients) -> None:
        """One client: executes, perhaps interferes, then looks for the next, until the torture ends."""
        chance = random.Random(self._chance.randrange(2**32))
        number = 0
        while not self.stopping.is_set():
            number += 1
            promise = Promise(f"t{caller}-{number}-{chance.randrange(2**32):08x}", chance.choice(kinds))
            self._promises.append(promise)
            if promise.kind in HEARS:
                promise.pair = promise.execution_id
            talking = asyncio.create_task(self._talk(promise, service, clients))
            await clients.execute(promise, document(promise.kind, service.outside))
            if chance.random() < 0.2:
                self._watchers.append(asyncio.create_task(clients.watch(promise)))
            if chance.random() < 0.1:
                await clients.execute(promise, document(promise.kind, service.outside))
                await clients.take_id_again(promise, document(promise.kind, service.outside) + " ")
            for _ in range(chance.choice((0, 0, 0, 1, 2, 4))):
                await asyncio.sleep(chance.uniform(0, 0.3))
                is_parent = promise.kind in CHILDREN
                target = promise.touch_child() if is_parent and chance.random() < 0.15 else promise
                verb = chance.choice(("pause", "pause", "resume", "resume", "cancel"))
                if verb == "cancel" and promise.kind in PARTNERS:
                    # Its partner would wait for ever.
                    continue
                if verb == "pause":
                    await clients.pause(target)
                elif verb == "resume":
                    await clients.resume(target)
                else:
                    await clients.cancel(target, force=chance.random() < 0.5)
            await talking
            await asyncio.sleep(chance.uniform(0.2, 2.0))

    async def _talk(self, promise: Promise, service: Service, clients: Clients) -> None:
        """Whoever it hears begins, perhaps before it does."""
        partner = promise.partner()
        if partner is not None:
            self._promises.append(partner)
            await clients.execute(partner, document(partner.kind, service.outside))
        elif promise.kind == HEARS_A_CLIENT:
            await clients.tell(promise)

    async def _rest(self, clients: Clients, receiver: ReceiverProcess) -> None:
        """What is promised to be paused still is; then it goes on, and everything ends."""
        for promise in self._promises:
            if promise.paused:
                await clients.check_is_paused(promise)
            if promise.pause_sent:
                await clients.resume(promise)
            if promise.child is not None and promise.child.pause_sent:
                await clients.resume(promise.child)
        ended: set[str] = set()

        def all_ended() -> bool:
            ended.update(each for each, event_type in receiver.news() if event_type in TERMINAL_EVENTS)
            if not all(promise.execution_id in ended for promise in self._promises if promise.accepted):
                return False
            # Children that nobody waits for are in the files before their parents have ended.
            self._journal.read(whole=False)
            return self._journal.shards.keys() <= ended

        with suppress(AssertionError):  # What has not ended by then is judged as lost.
            await until(all_ended, "every end", _REST_S_MAX)
        _, late = await asyncio.wait(self._watchers, timeout=10) if self._watchers else ((), ())
        for task in late:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    async def _compare(self, service: Service, clients: Clients, tree: Tree, receiver: ReceiverProcess) -> None:
        report = self.report
        children = list(filter(is_child, self._journal.shards))
        statuses = {each: await clients.status(each) for each in (*self._ids(), *children)}
        code = await tree.stop()
        if code:
            report.violations.append(f"the runner ended with exit code {code}")
        report.resent = await receiver.stop()
        self._journal.read(whole=True)
        self._log.read()
        ledger = Ledger(self._path / "received.jsonl")
        report.violations += [f"the runner said: {line}" for line in tree.defects()]
        published = self._log.events.values()
        verdict = judge(
            self._promises, ledger, self._journal, service.calls, lambda each: statuses.get(each, "unknown"), published
        )
        report.cloud_events, report.heard = len(self._log.events), verdict.heard
        report.violations += verdict.violations + self._journal.problems()
        report.executions = len(self._promises)
        report.by_end.update(map(statuses.__getitem__, self._ids()))
        report.children_by_end.update(map(statuses.__getitem__, children))
        report.events = ledger.summary().events
        report.performed["run: workflow"] = len(children)
        others = service.described.keys() | service.rpcs.keys()
        report.count_effects({
            "call: http": {key: times for key, times in service.calls.items() if key not in others},
            "call: openapi": service.described,
            "call: grpc": service.rpcs,
            "run: shell": service.shells.runs,
        })  # fmt: skip
        ledger.close()

    def _ids(self) -> list[str]:
        """Of the executions that clients have asked for."""
        return [promise.execution_id for promise in self._promises]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to torture (30)")
    parser.add_argument("--seed", type=int, default=None, help="what to do, and in which order (random)")
    parser.add_argument("--calm", action="store_true", help="no faults: the workload alone")
    parser.add_argument("--sealed", action="store_true", help="what lies in the data directory is sealed")
    arguments = parser.parse_args()
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    path = Path(tempfile.mkdtemp(prefix="fastrunner-torture-"))
    torture = Torture(seed, arguments.minutes * 60, path, calm=arguments.calm, sealed=arguments.sealed)
    return asyncio.run(shown(torture, seed, path))


if __name__ == "__main__":
    sys.exit(main())
