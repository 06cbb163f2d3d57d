"""Support: Stigmer Services with a real runner, while all of them are killed; then everything is compared.

    python -m tests.crash.stigmer_torture --minutes 30 --seed 7
    python -m tests.crash.stigmer_torture --minutes 30 --seed 7 --store sqlite --callers 64

There are two over one MongoDB and one Redis, or one on its own SQLite. Executions are started, cancelled and followed
by either; reports go to one of them, as through a balancer. SIGKILL ends services, workers, the whole runner, Redis
(which forgets everything) and the stand-in for MongoDB (which has in its file what it has answered). The seed fixes
what is asked and who is killed, in which order; what that hits depends on the machine's timing. The stand-in is far
slower than a MongoDB: thousands of executions need SQLite. Ctrl-C ends the torture early and compares what there is.
"""

import argparse
import asyncio
import os
import random
import secrets
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from pymongo.errors import PyMongoError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base.clock import monotonic_s
from fastrunner.errors import StorageFailed
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.stigmer.ledger import Ledger
from fastrunner.stigmer.store import Store
from fastrunner.stigmer.store.mongodb.store import MongoStore
from fastrunner.stigmer.store.sqlite import SqliteStore
from tests.crash.checker import judge
from tests.crash.monkey import ready_workers
from tests.crash.proxy import Proxy
from tests.crash.report import Report, shown
from tests.crash.tree import Journal, Tree
from tests.crash.workload import Promise
from tests.integration.stigmer import TOKEN, WRITE, ServiceProcess, verified
from tests.mongodb import MongoServer
from tests.ports import free_port
from tests.redis import RedisServer

__all__ = ["StigmerTorture"]

_CALLERS = 16
_STORES = ("mongo", "sqlite")
_ASKED_AT_ONCE = 32
_REST_S_MAX = 180.0
_SETTLE_S_MAX = 60.0
_PATIENCE_S_MAX = 120.0
_HEADER = "document: {dsl: 1.0.0, namespace: torture, name: %s, version: 1.0.0}\n"
_TASKS = {
    "short": "do: [{one: {set: {a: 1}}}]\n",
    "loop": (
        "do: [{loop: {for: {in: '${ [range(12)] }'}, do: "
        "[{rest: {wait: {milliseconds: 60}}}, {note: {set: {at: '${ $index }'}}}]}}]\n"
    ),
    "fork": (
        "do: [{both: {fork: {branches: [{a: {wait: {milliseconds: 300}}}, {b: {set: {b: 1}}}]}}}, "
        "{last: {set: {c: 1}}}]\n"
    ),
    "long": "do: [{first: {set: {a: 1}}}, {second: {wait: {seconds: 3600}}}]\n",
}
"""Workflows by name; what is long is cancelled."""


T = TypeVar("T")


async def patiently(read: Callable[[], Awaitable[T]]) -> T:
    """What is read of a store that may be slow. Raises what the last attempt does."""
    give_up_s = monotonic_s() + _PATIENCE_S_MAX
    while True:
        try:
            return await read()
        except (StorageFailed, PyMongoError):
            if monotonic_s() > give_up_s:
                raise
            await asyncio.sleep(0.5)


class Services:
    """So many of them on ports of their own; each is started again where it was."""

    def __init__(self, count: int, path: Path, runner: str, **settings: str) -> None:
        self.ports = [(free_port(), free_port()) for _ in range(count)]
        """Of gRPC and HTTP."""
        self._path = path
        self._runner = runner
        self._settings = {"FASTRUNNER_STIGMER_LOG_LEVEL": "error", **settings}
        self._processes: list[ServiceProcess | None] = [None] * count

    async def start(self, which: int) -> None:
        """Begins; again, if its store is away, or busy."""
        grpc_port, http_port = self.ports[which]

        def begin() -> ServiceProcess:
            return ServiceProcess(
                self._path, self._runner, grpc_port=grpc_port, http_port=http_port, **self._settings
            )  # fmt: skip

        give_up_s = monotonic_s() + _PATIENCE_S_MAX
        while True:
            try:
                self._processes[which] = await asyncio.to_thread(begin)
                return
            except AssertionError:
                if monotonic_s() > give_up_s:
                    raise

    def kill(self, which: int) -> None:
        """Without a word."""
        process, self._processes[which] = self._processes[which], None
        if process is not None:
            process.kill()

    def stop(self) -> list[int]:
        """Drains all; their exit codes."""
        return [process.stop() for process in self._processes if process is not None]


class StigmerTorture:
    """One run, in a folder of its own."""

    def __init__(
        self, seed: int, duration_s: float, path: Path, store: str = "mongo", callers_count: int = _CALLERS
    ) -> None:
        """`store` is one of `mongo` and `sqlite`."""
        self.report = Report(seed, duration_s=duration_s)
        self.stopping = asyncio.Event()
        """Ends the torture early."""
        self._duration_s = duration_s
        self._path = path
        self._is_shared = store == "mongo"
        self._callers_count = callers_count
        self._chance = random.Random(seed)
        self._journal = Journal(path / "data")
        self._promises: list[Promise] = []
        self._followed: dict[str, list[int]] = {}
        self._followers: list[asyncio.Task[None]] = []
        self._began_s = monotonic_s()

    @property
    def done_ratio(self) -> float:
        """See Torment."""
        return min(1.0, (monotonic_s() - self._began_s) / self._duration_s)

    def state(self) -> str:
        """One line on what has happened so far."""
        return f"{len(self._promises)} executions, {sum(self.report.faults.values())} faults"

    async def run(self) -> Report:
        """Tortures, lets everything come to rest, and compares."""
        async with AsyncExitStack() as stack:
            self._settings: dict[str, str] = {}
            if self._is_shared:
                self._mongo = MongoServer(self._path / "store").start()
                stack.callback(self._mongo.kill)
                self._redis = RedisServer().start()
                stack.callback(self._redis.kill)
                self._settings["FASTRUNNER_STIGMER_MONGODB_URL"] = f"{self._mongo.url}/torture"
            runner_port = free_port()
            redis = {"FASTRUNNER_STIGMER_REDIS_URL": self._redis.url} if self._is_shared else {}
            self._services = Services(
                2 if self._is_shared else 1,
                self._path / "service",
                f"127.0.0.1:{runner_port}",
                **self._settings,
                **redis,
            )
            for which in range(len(self._services.ports)):
                stack.callback(self._services.kill, which)
                await self._services.start(which)
            self._proxy = Proxy(self._services.ports[0][0])
            await self._proxy.start()
            stack.push_async_callback(self._proxy.close)
            self._tree = Tree(
                self._path / "data", self._path / "log", FASTRUNNER_WORKERS="2", LOG_LEVEL="warn",
                GRPC_PORT=str(runner_port), STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{self._proxy.port}",
                STIGMER_SERVICE_API_KEY=TOKEN, STIGMER_SERVICE_USE_TLS="false", FASTRUNNER_CALLBACK_TIMEOUT_S="5",
                FASTRUNNER_CANCEL_GRACE_S="1",
            )  # fmt: skip
            stack.push_async_callback(self._tree.kill)
            await self._tree.start()
            self._session = await stack.enter_async_context(aiohttp.ClientSession(headers=WRITE))
            for name, tasks in _TASKS.items():
                assert await self._ask("POST", "/workflows", {"document": _HEADER % name + tasks}) in (200, 201)
            self._began_s = monotonic_s()
            await self._torture()
            await self._rest()
            await self._compare()
        return self.report

    # --- clients ---

    async def _ask(self, method: str, path: str, body: Any = None) -> int:
        """The status of an answer of either service; asks again where there is none, or none that counts."""
        while True:
            port = self._chance.choice(self._services.ports)[1]
            with suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
                async with self._session.request(
                    method, f"http://127.0.0.1:{port}/api/v1{path}", json=body, timeout=aiohttp.ClientTimeout(15)
                ) as reply:
                    await reply.read()
                    if reply.status < 500 and reply.status != 429:
                        return reply.status
            await asyncio.sleep(0.1)

    async def _call(self, caller: int) -> None:
        """One client: starts, perhaps follows and cancels, and begins again, until the torture ends."""
        chance = random.Random(self._chance.randrange(2**32))
        number = 0
        while not self.stopping.is_set():
            number += 1
            promise = Promise(f"t{caller}-{number}-{chance.randrange(2**32):08x}", chance.choice(list(_TASKS)))
            self._promises.append(promise)
            start = {"workflow": {"namespace": "torture", "name": promise.kind}, "id": promise.execution_id}
            status = await self._ask("POST", "/executions", start)
            promise.accepted = status in (200, 201, 202)
            if not promise.accepted:
                promise.errors.append(f"its start was answered with {status}")
            if chance.random() < 0.3:
                self._followers.append(asyncio.create_task(self._follow(promise.execution_id)))
            await asyncio.sleep(chance.uniform(0, 0.4))
            if promise.kind == "long":
                await self._cancel(promise)

    async def _cancel(self, promise: Promise) -> None:
        promise.cancel_sent = True
        status = await self._ask("POST", f"/executions/{promise.execution_id}/cancel", {"reason": "torture"})
        if status not in (204, 409):
            promise.errors.append(f"its cancel was answered with {status}")

    async def _follow(self, execution_id: str) -> None:
        """Goes on, with either service, from the number received last."""
        numbers = self._followed.setdefault(execution_id, [])
        while True:
            port = self._chance.choice(self._services.ports)[1]
            url = f"http://127.0.0.1:{port}/api/v1/executions/{execution_id}/events/stream"
            headers = {"Last-Event-ID": str(numbers[-1])} if numbers else {}
            with suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
                async with self._session.get(url, headers=headers, timeout=aiohttp.ClientTimeout(None, 5)) as reply:
                    if reply.status == 204:
                        return
                    async for line in reply.content:
                        if line.startswith(b"id: "):
                            numbers.append(int(line[4:]))
                        elif line.startswith(b"event: end"):
                            return
            await asyncio.sleep(0.05)

    # --- the monkey ---

    async def _torture(self) -> None:
        callers = [asyncio.create_task(self._call(number)) for number in range(self._callers_count)]
        raging = asyncio.create_task(self._rage())
        try:
            with suppress(asyncio.TimeoutError):
                async with asyncio.timeout(self._duration_s):
                    await self.stopping.wait()
            self.stopping.set()
            await raging
            async with asyncio.timeout(_REST_S_MAX):
                await asyncio.gather(*callers)
        finally:
            for task in (*callers, raging):
                task.cancel()
            await asyncio.gather(*callers, raging, return_exceptions=True)

    async def _rage(self) -> None:
        tricks: dict[str, Callable[[], Awaitable[None]]] = {
            "kill service": self._kill_service,
            "kill worker": self._kill_worker,
            "kill runner": self._kill_runner,
            "cut reports": self._cut,
        }
        weights = [4, 3, 1, 4]
        if self._is_shared:
            tricks |= {"kill Redis": self._kill_redis, "kill MongoDB": self._kill_mongo}
            weights += [2, 2]
        first = list(tricks)
        self._chance.shuffle(first)
        while not self.stopping.is_set():
            with suppress(asyncio.TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.3, 2.0)):
                    await self.stopping.wait()
                    return
            name = first.pop() if first else self._chance.choices(list(tricks), weights)[0]
            await tricks[name]()
            self.report.faults[name] += 1

    async def _kill_service(self) -> None:
        which = self._chance.randrange(len(self._services.ports))
        self._services.kill(which)
        # Reports go where somebody is, if there is another.
        self._proxy.target_port = self._services.ports[which - 1][0]
        self._proxy.cut()
        await self._services.start(which)

    async def _kill_worker(self) -> None:
        pids = await ready_workers(self._tree)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(pids), signal.SIGKILL)

    async def _kill_runner(self) -> None:
        await self._tree.kill()
        await self._tree.start()

    async def _kill_redis(self) -> None:
        self._redis.kill()
        await asyncio.sleep(self._chance.uniform(0, 1.5))
        await asyncio.to_thread(self._redis.start)

    async def _kill_mongo(self) -> None:
        self._mongo.kill()
        await asyncio.sleep(self._chance.uniform(0, 1.0))
        await asyncio.to_thread(self._mongo.start)

    async def _cut(self) -> None:
        self._proxy.target_port = self._chance.choice(self._services.ports)[0]
        self._proxy.cut()

    # --- the ledger ---

    async def _rest(self) -> None:
        """What was cancelled between two deaths is cancelled once more; then everything ends."""
        pending = {promise.execution_id: promise for promise in self._promises if promise.accepted}
        give_up_s = monotonic_s() + _REST_S_MAX
        while pending and monotonic_s() < give_up_s:
            for promise in await self._unfinished(pending):
                if promise.kind == "long":
                    await self._cancel(promise)
            await asyncio.sleep(0.5)
        if self._is_shared:
            await self._settle()
        # What has not ended by then is judged as lost.
        if self._followers:
            _, late = await asyncio.wait(self._followers, timeout=30)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._followers, return_exceptions=True)

    async def _unfinished(self, pending: dict[str, Promise]) -> list[Promise]:
        """Those that have not ended; what has ended is pending no more."""
        left = []
        asked = list(pending)
        for begin in range(0, len(asked), _ASKED_AT_ONCE):
            some = asked[begin : begin + _ASKED_AT_ONCE]
            for execution_id, status in zip(some, await asyncio.gather(*map(self._status, some)), strict=True):
                if status in FINAL_STATUSES:
                    del pending[execution_id]
                else:
                    left.append(pending[execution_id])
        return left

    async def _status(self, execution_id: str) -> str:
        """What a service says an execution is; empty if it does not say."""
        url = f"http://127.0.0.1:{self._services.ports[0][1]}/api/v1/executions/{execution_id}"
        with suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(15)) as reply:
                return str((await reply.json())["status"]) if reply.status == 200 else ""
        return ""

    def _store(self) -> Store:
        """What the services keep."""
        if self._is_shared:
            return MongoStore(f"{self._mongo.url}/torture", retention_s=3600.0)
        return SqliteStore(self._path / "service", retention_s=3600.0)

    async def _settle(self) -> None:
        """What is half-done in MongoDB is finished by the services, not by `verify`."""
        store = MongoStore(f"{self._mongo.url}/torture", retention_s=3600.0)
        give_up_s = monotonic_s() + _SETTLE_S_MAX
        while left := await patiently(partial(store._database.commits.count_documents, {})):
            if monotonic_s() > give_up_s:
                self.report.violations.append(f"{left} commits have not been settled")
                break
            await asyncio.sleep(0.5)
        await store.close()

    async def _compare(self) -> None:
        report = self.report
        codes = [await self._tree.stop(), *await asyncio.to_thread(self._services.stop)]
        report.violations += [f"a process ended with exit code {code}" for code in codes if code]
        self._journal.read(whole=True)
        report.violations += [f"the runner said: {line}" for line in self._tree.defects()]
        code, summary, findings = await asyncio.to_thread(verified, self._path / "service", **self._settings)
        report.violations += [f"verify: {finding}" for finding in findings]
        if code:
            report.violations.append(f"verify ended with exit code {code}: {summary}")
        ledger, statuses = await self._ledger()
        verdict = judge(self._promises, ledger, self._journal, {}, lambda each: statuses.get(each, "unknown"))
        report.violations += verdict.violations + self._journal.problems()
        for execution_id, numbers in self._followed.items():
            if numbers != list(range(1, len(ledger.encoded(execution_id)) + 1)):
                report.violations.append(f"{execution_id}: whoever followed it got the events {numbers}")
        report.executions = len(self._promises)
        report.by_end.update(statuses.values())
        report.events = ledger.summary().events
        ledger.close()

    async def _ledger(self) -> tuple[Ledger, dict[str, str]]:
        """All that the store has: events, and the status of each execution."""
        store = self._store()
        await patiently(store.open)
        ledger, statuses = Ledger(), {}
        after = 0
        while some := await patiently(partial(store.inspect, after)):
            after = some[-1].execution.number
            for found in some:
                statuses[found.execution.id] = found.execution.standing.status
                for _, message in found.events:
                    ledger.take(WorkflowProgressEvent.FromString(message), message)
        await store.close()
        return ledger, statuses


def main() -> int:
    """Tortures; 1 if anything that was promised is not so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--store", choices=_STORES, default=_STORES[0], help="mongo: two services on stand-ins")
    parser.add_argument("--callers", type=int, default=_CALLERS, help="clients that each start one after the other")
    arguments = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="stigmer-torture-"))
    torture = StigmerTorture(arguments.seed, arguments.minutes * 60, path, arguments.store, arguments.callers)
    return asyncio.run(shown(torture, arguments.seed, path))


if __name__ == "__main__":
    sys.exit(main())
