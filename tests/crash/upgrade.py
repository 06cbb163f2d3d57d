"""Support: an upgrade from an earlier version under load: what was promised by the old one is kept by the new one.

    python -m tests.crash.upgrade --from REF [--seconds 15]

The old version is built into an environment of its own, below build/upgrade, and serves; clients retry by
`deploy/grpc/service-config.json`, as users are told to, and by nothing else. It is stopped as a rollout stops it, the
new version starts on the same directory and the same ports, and all that was accepted is compared with what a receiver
got, what the files have and which effects were performed. Then the old version is started on the new one's directory,
which it must refuse in words.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aiohttp import web

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base.clock import monotonic_s
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect, read_all
from fastrunner.progress.names import TERMINAL_EVENTS
from fastrunner.stigmer.ledger import Ledger
from tests.crash.checker import judge
from tests.crash.monkey import ReceiverProcess
from tests.crash.tree import Journal, Tree, until
from tests.crash.workload import Promise
from tests.integration.runner_process import ROOT
from tests.integration.wire import path

__all__ = ["Upgrade", "build"]

_TOKEN = "receive-only"
_CLIENTS = 16
_REST_S_MAX = 120.0
_PAUSE_S_MAX = 0.05
_BUILDS = ROOT / "build" / "upgrade"
_SERVICE_CONFIG = (ROOT / "deploy" / "grpc" / "service-config.json").read_text(encoding="utf-8")

_HEAD = "document: {{dsl: 1.0.3, namespace: upgrade, name: {kind}, version: 1.0.0}}\ndo:\n"
_KINDS = {
    "short": "- one: {set: {n: 1}}\n- two: {set: {n: '${ .n + 1 }'}}\n",
    # Long enough to be there before, while and after nobody serves.
    "waits": "- rest: {wait: {seconds: 12}}\n- done: {set: {rested: true}}\n",
    "steps": "- each: {for: {in: '${ [range(12)] }'}, do: [{rest: {wait: {seconds: 1}}}, {ask: {call: http,"
    " with: {method: post, endpoint: URL/work, body: {}}}}]}\n",
    "retries": "- ask: {try: [{flaky: {call: http, with: {method: post, endpoint: URL/flaky, body: {}}}}], catch:"
    " {errors: {with: {status: 503}}, retry: {delay: {seconds: 4}, limit: {attempt: {count: 3}}}}}\n",
    "side-by-side": "- both: {fork: {branches: [{slow: {do: [{rest: {wait: {seconds: 9}}}]}}, {ask: {call: http,"
    " with: {method: post, endpoint: URL/work, body: {}}}}]}}\n",
}
"""What any version since the first can execute: one for each thing that can be in flight."""


def build(ref: str, python: str) -> Path:
    """The interpreter of an environment with the version at `ref`; built once for each commit."""
    found = subprocess.run(
        ["git", "rev-parse", f"{ref}^{{commit}}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    folder = _BUILDS / found.stdout.strip()[:12]
    interpreter = folder / "env" / "bin" / "python"
    if (folder / "built").exists():
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", ref], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    # What this process imports must not count as installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-m", "venv", str(folder / "env")], env=environment, check=True)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", str(source)]
    subprocess.run(install, cwd=folder, env=environment, check=True)
    (folder / "built").touch()
    return interpreter


class Effects:
    """What workflows call: knows which effect was asked of it when."""

    def __init__(self) -> None:
        self.calls: dict[str, list[float]] = {}
        """Monotonic times of the calls, by idempotency key."""
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        self.calls.setdefault(key, []).append(monotonic_s())
        if request.path == "/flaky" and key.endswith("/1"):
            return web.Response(status=503)
        return web.json_response({"key": key})


@asynccontextmanager
async def effects() -> AsyncIterator[Effects]:
    """The service, on a free port of this machine."""
    service = Effects()
    app = web.Application()
    app.router.add_post("/{path:.*}", service.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield service
    finally:
        await runner.cleanup()


def formats(data_dir: Path) -> dict[str, int]:
    """The schema versions of a data directory's files."""
    found = {"manifest.json": int(json.loads((data_dir / "manifest.json").read_text())["format_version"])}
    for file in sorted(data_dir.glob("*.db")):
        with closing(connect(file, READ_ONLY)) as db:
            found[re.sub(r"-\d+", "", file.name)] = int(read_all(db, "pragma user_version")[0][0])
    return found


class Upgrade:
    """One run, in a folder of its own."""

    def __init__(self, old: Path, folder: Path, seconds: float) -> None:
        """`old`: the interpreter of the old version; `seconds` of load before and after."""
        self.violations: list[str] = []
        self.figures: dict[str, str] = {}
        self._old = old
        self._folder = folder
        self._seconds = seconds
        self._promises: list[Promise] = []
        self._answered_s: dict[bool, list[float]] = {True: [], False: []}
        """When executions were acknowledged, by whether the client looks for a server at least once a second."""
        self._waited_s: list[float] = []
        self._numbers = itertools.count(1)
        self._stopping = asyncio.Event()
        self._journal = Journal(folder / "data")

    async def run(self) -> None:
        """The load, the change, the comparison, and the way back."""
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(effects())
            receiver = ReceiverProcess(self._folder / "received.jsonl", self._folder / "receiver.log", _TOKEN)
            await receiver.start()
            stack.push_async_callback(receiver.kill)
            tree = Tree(
                self._folder / "data", self._folder / "log", FASTRUNNER_WORKERS="2", LOG_LEVEL="warn",
                STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{receiver.port}", STIGMER_SERVICE_API_KEY=_TOKEN,
                STIGMER_SERVICE_USE_TLS="false",
            )  # fmt: skip
            stack.push_async_callback(tree.kill)
            await tree.start(str(self._old), PYTHONPATH="")
            watching = asyncio.create_task(self._watch())
            stack.callback(watching.cancel)
            callers = [
                asyncio.create_task(self._call(tree.target, service.url, looks_often=number % 2 == 0))
                for number in range(_CLIENTS)
            ]
            try:
                await self._change(tree)
                self._stopping.set()
                await asyncio.gather(*callers)
            finally:
                for caller in callers:
                    caller.cancel()
            await self._rest(receiver)
            await self._compare(tree, receiver, service)
            await self._back(tree)

    async def _change(self, tree: Tree) -> None:
        await asyncio.sleep(self._seconds)
        before = formats(tree.data_dir)
        stopped_s = monotonic_s()
        code = await tree.stop()
        self.figures["old version stopped in"] = f"{monotonic_s() - stopped_s:.2f} s, exit code {code}"
        if code:
            self.violations.append(f"the old version ended with exit code {code}")
        accepted = [promise.execution_id for promise in self._promises if promise.accepted]
        kept = self._kept()
        started_s = monotonic_s()
        await tree.start()
        self.figures["new version ready in"] = f"{monotonic_s() - started_s:.2f} s"
        unfinished = sum(not kept[each] for each in accepted if each in kept)
        self.figures["accepted by the old version"] = f"{len(accepted)}, of them unfinished {unfinished}"
        self.violations += [f"lost: {each}: the old version's files lack it" for each in accepted if each not in kept]
        if not unfinished:
            self.violations.append("nothing was unfinished when the old version stopped: this showed nothing")
        await asyncio.sleep(self._seconds)
        for looks_often, times in self._answered_s.items():
            spans = itertools.pairwise([*times, monotonic_s()])
            gap_s = max(later - earlier for earlier, later in spans if later >= stopped_s)
            name = "max_reconnect_backoff_ms 1000" if looks_often else "service-config.json alone"
            self.figures[f"gap, clients with {name}"] = f"nothing acknowledged for {gap_s:.2f} s"
        self.figures["schema versions"] = ", ".join(
            f"{name} {before.get(name, 'none')} -> {version}" for name, version in formats(tree.data_dir).items()
        )
        self.figures["the longest call"] = f"{max(self._waited_s):.2f} s"

    def _kept(self) -> dict[str, bool]:
        """The executions in the files, and whether each has ended."""
        kept: dict[str, bool] = {}
        for file in sorted((self._folder / "data").glob("shard-*.db")):
            with closing(connect(file, READ_ONLY)) as db:
                kept |= {
                    name: bool(ms) for name, ms in read_all(db, "select execution_id, finished_ms from executions")
                }
        return kept

    async def _watch(self) -> None:
        # Until cancelled.
        while True:
            self._journal.read(whole=False)
            await asyncio.sleep(0.1)

    async def _call(self, target: str, url: str, *, looks_often: bool) -> None:
        """A client that knows the retry configuration, and gives up where gRPC does."""
        options: list[tuple[str, str | int]] = [
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.use_local_subchannel_pool", 1),
            *([("grpc.max_reconnect_backoff_ms", 1000)] if looks_often else []),
        ]
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            call: Any = channel.unary_unary(path("ExecuteAsync"), None, None)
            while not self._stopping.is_set():
                number = next(self._numbers)
                kind = list(_KINDS)[number % len(_KINDS)]
                promise = Promise(f"u{number}", kind)
                self._promises.append(promise)
                text = _HEAD.format(kind=kind) + _KINDS[kind].replace("URL", url)
                request = m.WorkflowExecuteInput(workflow_execution_id=promise.execution_id, workflow_yaml=text)
                began_s = monotonic_s()
                try:
                    await call(request.SerializeToString())
                except grpc.aio.AioRpcError as error:
                    promise.errors.append(f"a client has given up: {error.code().name} {error.details()}")
                else:
                    promise.accepted = True
                    self._answered_s[looks_often].append(monotonic_s())
                self._waited_s.append(monotonic_s() - began_s)
                await asyncio.sleep(random.uniform(0, _PAUSE_S_MAX))

    async def _rest(self, receiver: ReceiverProcess) -> None:
        """Until every execution has ended for the receiver, or has had the time to."""
        ended: set[str] = set()
        accepted = {promise.execution_id for promise in self._promises if promise.accepted}

        def all_ended() -> bool:
            ended.update(each for each, event_type in receiver.news() if event_type in TERMINAL_EVENTS)
            return accepted <= ended

        try:
            await until(all_ended, "every end", _REST_S_MAX)
        except AssertionError as error:
            # What has not ended is judged below, by its id.
            self.figures["not ended"] = str(error)

    async def _compare(self, tree: Tree, receiver: ReceiverProcess, service: Effects) -> None:
        statuses: dict[str, str] = {}
        async with grpc.aio.insecure_channel(tree.target) as channel:
            get: Any = channel.unary_unary(path("GetExecution"), None, None)
            for promise in self._promises:
                if promise.accepted:
                    reply = await get(q.GetExecutionRequest(execution_id=promise.execution_id).SerializeToString())
                    statuses[promise.execution_id] = q.GetExecutionResponse.FromString(reply).execution.status
        if code := await tree.stop():
            self.violations.append(f"the new version ended with exit code {code}")
        resent = await receiver.stop()
        self._journal.read(whole=True)
        with closing(Ledger(self._folder / "received.jsonl")) as ledger:
            verdict = judge(self._promises, ledger, self._journal, service.calls, lambda each: statuses[each])
            self.figures["events"] = f"{ledger.summary().events}, sent once more {resent}"
        self.violations += verdict.violations + self._journal.problems()
        self.violations += [f"the runner said: {line}" for line in tree.defects()]
        self.figures["executions"] = f"{len(self._promises)}: {dict(Counter(statuses.values()))}"
        repeated = sum(len(times) - 1 for times in service.calls.values())
        self.figures["effects"] = f"{len(service.calls)}, performed once more {repeated}, none after its commit"

    async def _back(self, tree: Tree) -> None:
        """The old version on the new one's directory."""
        before = formats(tree.data_dir)
        log = self._folder / "downgrade.log"
        back = Tree(tree.data_dir, log, FASTRUNNER_WORKERS="2", LOG_LEVEL="warn")
        try:
            await back.start(str(self._old), PYTHONPATH="")
        except AssertionError:
            said = [line for line in log.read_text().splitlines() if "version" in line]
            self.figures["downgrade"] = said[-1] if said else "refused without a sentence"
            if not said or "Traceback" in log.read_text():
                self.violations.append(f"the old version refused without a sentence: {log.read_text()}")
        else:
            await back.stop()
            self.figures["downgrade"] = "the old version opened the directory: it knows its formats"
        finally:
            await back.kill()
        if formats(tree.data_dir) != before:
            self.violations.append("the old version has changed the formats of the directory")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="ref", required=True, help="a tag or commit of the old version")
    parser.add_argument("--seconds", type=float, default=15.0, help="of load before and after the change (15)")
    parser.add_argument("--python", default=sys.executable, help="builds the old version (this Python)")
    arguments = parser.parse_args()
    old = build(arguments.ref, arguments.python)
    folder = Path(tempfile.mkdtemp(prefix="fastrunner-upgrade-"))
    upgrade = Upgrade(old, folder, arguments.seconds)
    asyncio.run(upgrade.run())
    for name, figure in upgrade.figures.items():
        print(f"{name}: {figure}")
    for violation in upgrade.violations[:50]:
        print(f"VIOLATION {violation}")
    if not upgrade.violations:
        shutil.rmtree(folder)
    else:
        print(f"what there is lies in {folder}")
    return 1 if upgrade.violations else 0


if __name__ == "__main__":
    sys.exit(main())
