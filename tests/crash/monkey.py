"""Support: the faults of the torture test, what they are done to, and the monkey that chooses among them."""

import asyncio
import os
import random
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from tests.crash.proxy import Proxy
from tests.crash.tree import Tree
from tests.disk import SmallDisk
from tests.integration.runner_process import ROOT

__all__ = ["Monkey", "ReceiverProcess", "ready_workers"]


class ReceiverProcess:
    """`fastrunner receiver` on one port, over a file that outlives it."""

    def __init__(self, store: Path, log: Path, token: str) -> None:
        self.port = 0
        self._store = store
        self._log = log
        self._token = token
        self._offset = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *options: str) -> None:
        """Starts it, and waits until it listens."""
        command = [
            "-m",
            "fastrunner",
            "receiver",
            "--port",
            str(self.port),
            "--quiet",
            "--json",
        ]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *command, *options, "--store", str(self._store),
                cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log, limit=2**24,
                env={**os.environ, "FASTRUNNER_RECEIVER_TOKEN": self._token},
            )  # fmt: skip
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        self.port = int(orjson.loads(line)["listening"].rpartition(":")[2])

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; how many events arrived again since its last start."""
        assert self._process is not None
        self._process.terminate()
        out, _ = await asyncio.wait_for(self._process.communicate(), 60)
        return int(orjson.loads(out.splitlines()[-1])["summary"]["duplicates"])

    def news(self) -> Iterator[tuple[str, str]]:
        """Execution and type of the events stored since it was last asked."""
        with self._store.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                event = orjson.loads(line)
                if "wire" in event:
                    yield event["workflowExecutionId"], event["eventType"]


async def ready_workers(tree: Tree) -> list[int]:
    """Process ids of the workers that are ready."""

    def ask() -> list[int]:
        url = f"http://127.0.0.1:{tree.ports['http_port']}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                state = orjson.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                state = orjson.loads(error.read())
        return [worker["pid"] for worker in state["workers"] if worker["state"] == "ready"]

    with suppress(OSError, orjson.JSONDecodeError):
        return await asyncio.to_thread(ask)
    return []


class Monkey:
    """Chooses faults and does them, one after the other."""

    def __init__(
        self, chance: random.Random, tree: Tree, receiver: ReceiverProcess, proxy: Proxy, disk: SmallDisk,
        done: Counter[str],
    ) -> None:  # fmt: skip
        self._chance = chance
        self._tree = tree
        self._receiver = receiver
        self._proxy = proxy
        self._disk = disk
        self._done = done
        self.complaints: list[str] = []
        """What went wrong that no fault explains."""
        self._tricks = {
            "kill worker": (6, self._kill_worker),
            "kill tree": (1, self._kill_tree),
            "stop tree (SIGTERM)": (1, self._stop_tree),
            "kill receiver": (2, self._kill_receiver),
            "freeze worker": (1, self._freeze_worker),
            "restart (SIGHUP)": (1, self._restart),
            "delay callbacks": (2, self._delay),
            "cut callbacks": (4, self._cut),
            "refuse callbacks": (2, self._refuse),
        }
        if disk.mounted:
            self._tricks["fill disk"] = (2, self._fill_disk)
        else:
            done["fill disk (no right to mount: skipped)"] = 0

    async def rage(self, stopping: asyncio.Event) -> None:
        """Does one thing after the other until it is stopped. Every trick comes once before chance takes over."""
        names = list(self._tricks)
        self._chance.shuffle(names)
        # Even a short run has the fault that this is about.
        names.remove("kill worker")
        names.append("kill worker")
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._chance.uniform(0.3, 2.0))
                return
            weights = [self._tricks[name][0] for name in self._tricks]
            name = names.pop() if names else self._chance.choices(list(self._tricks), weights)[0]
            await self._tricks[name][1]()
            self._done[name] += 1

    async def make_peace(self) -> None:
        """Puts everything back in order."""
        self._proxy.delay_s, self._proxy.refusing = 0.0, False
        if self._disk.mounted:
            self._disk.leave(2**32)
        if not self._tree.running:
            self.complaints.append("the runner has ended by itself; its log says why")
            await self._tree.start()

    async def _kill_worker(self) -> None:
        pids = await ready_workers(self._tree)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(pids), signal.SIGKILL)

    async def _kill_tree(self) -> None:
        await self._tree.kill()
        # Shards find their owners whatever the number of workers.
        await self._tree.start(FASTRUNNER_WORKERS=str(self._chance.randint(1, 4)))

    async def _stop_tree(self) -> None:
        code = await self._tree.stop()
        if code:
            self.complaints.append(f"the runner ended with exit code {code} on SIGTERM")
        await self._tree.start()

    async def _kill_receiver(self) -> None:
        await self._receiver.kill()
        await asyncio.sleep(self._chance.uniform(0, 1.5))
        # It comes back well, without the batch call, or unwell.
        await self._receiver.start(*self._chance.choice(((), (), ("--no-batch",), ("--fail-rate", "0.2"))))

    async def _freeze_worker(self) -> None:
        pids = await ready_workers(self._tree)
        if not pids:
            return
        pid = self._chance.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(self._chance.uniform(0.2, 2.0))
            os.kill(pid, signal.SIGCONT)

    async def _restart(self) -> None:
        self._tree.signal(signal.SIGHUP)

    async def _delay(self) -> None:
        self._proxy.delay_s = self._chance.choice((0.0, 0.01, 0.05, 0.3))

    async def _cut(self) -> None:
        self._proxy.cut()

    async def _refuse(self) -> None:
        self._proxy.refusing = True
        self._proxy.cut()
        await asyncio.sleep(self._chance.uniform(0.2, 3.0))
        self._proxy.refusing = False

    async def _fill_disk(self) -> None:
        self._disk.leave(self._chance.choice((0, 16_384, 1_048_576, 400_000_000)))
        await asyncio.sleep(self._chance.uniform(0.2, 1.5))
        if self._chance.random() < 0.5:
            await self._kill_worker()
        await asyncio.sleep(self._chance.uniform(0.2, 1.5))
        self._disk.leave(2**32)
