"""Support: a process tree that a test kills and starts again, and a look into its files from outside."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw
import orjson

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowProgressEvent
from fastrunner.access.sealing import DataKeys, is_sealed
from fastrunner.base.clock import monotonic_s
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect, read_all
from fastrunner.engine.embedded.store.event_rows import unpacked
from fastrunner.engine.embedded.store.seals import Seals, events_place
from fastrunner.progress.wire import frames
from tests.crash.documents import LINGERS
from tests.integration.runner_process import ROOT

__all__ = ["FIRST_STEPS_S_MAX", "Journal", "Tree", "until"]

_START_S_MAX = 60.0
FIRST_STEPS_S_MAX = 5.0
"""How long a process that nobody awaits may take to do what it is known by, on a busy machine."""
_DEFECT = re.compile(
    r"killed by (?!SIGKILL)|exited with [^0]|Traceback|the core failed|ended unexpectedly|engine failed|an exception"
    r"|failed inside the runner|Check failed|Fatal Python|does not answer|(?<!effects )did not end in time|cannot start"
)


async def until(condition: Any, what: str, timeout_s: float = 60.0) -> Any:
    """The first true value of `condition`, failing with `what` after `timeout_s`."""
    give_up_s = monotonic_s() + timeout_s
    while not (value := condition()):
        assert monotonic_s() < give_up_s, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)
    return value


def digest_of(messages: Iterable[bytes]) -> bytes:
    """Tells encoded events apart."""
    digest = blake2b(digest_size=16)
    for message in messages:
        digest.update(len(message).to_bytes(4, "little") + message)
    return digest.digest()


class Tree:
    """`fastrunner serve` on ports that stay the same from start to start; everything it says is kept in a file."""

    def __init__(self, data_dir: Path, log: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.log = log
        self.ports: dict[str, Any] = {}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("FASTRUNNER_", "STIGMER_"))},
            "GRPC_PORT": "0",
            "FASTRUNNER_GRPC_HOST": "127.0.0.1",
            "FASTRUNNER_HTTP_PORT": "0",
            "FASTRUNNER_HTTP_HOST": "127.0.0.1",
            "FASTRUNNER_DATA_DIR": str(data_dir),
            "FASTRUNNER_DRAIN_TIMEOUT_S": "5",
            "LOG_LEVEL": "info",
            **environment,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def target(self) -> str:
        """Where gRPC is served."""
        return f"127.0.0.1:{self.ports['grpc_port']}"

    @property
    def running(self) -> bool:
        """Whether the supervisor lives."""
        return self._process is not None and self._process.returncode is None

    def said(self) -> str:
        """Everything all its processes have said, over all starts."""
        return self.log.read_text(errors="replace")

    def defects(self) -> list[str]:
        """Lines of what it said that no fault from outside explains: deaths of its own, exceptions nobody expected."""
        return [line for line in self.said().splitlines() if _DEFECT.search(line)]

    async def start(self, python: str = sys.executable, **environment: str) -> None:
        """Starts it, with the version that `python` has, and waits until every process is ready."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                python, "-m", "fastrunner", "serve",
                cwd=ROOT, env={**self._environment, **environment}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.ports = await until(self._ports, "the tree to start", _START_S_MAX)
        self._environment["GRPC_PORT"] = str(self.ports["grpc_port"])
        self._environment["FASTRUNNER_HTTP_PORT"] = str(self.ports["http_port"])

    def _ports(self) -> Any:
        assert self._process is not None
        assert self._process.returncode is None, f"the tree ended with {self._process.returncode}:\n{self.said()}"
        with suppress(FileNotFoundError, orjson.JSONDecodeError):
            ports = orjson.loads((self.data_dir / "ports.json").read_bytes())
            # A tree that was killed leaves its file behind.
            return ports if ports["pid"] == self._process.pid else None
        return None

    def children(self) -> list[int]:
        """Process ids of its children; the workers come before the web process at a first start."""
        assert self._process is not None
        try:
            text = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def signal(self, signum: signal.Signals) -> None:
        """Sends the supervisor a signal."""
        assert self._process is not None
        self._process.send_signal(signum)

    async def kill(self) -> None:
        """SIGKILL for every process of it at once."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), 30)


class Journal:
    """What the shards' files hold, read beside their owners; notes what ever changes that must not."""

    def __init__(self, data_dir: Path, keys: DataKeys | None = None) -> None:
        """`keys` open what is sealed; with them, nothing may lie there that is not."""
        self._data_dir = data_dir
        self._seals = Seals(keys)
        self._rows: dict[tuple[str, int], tuple[int, bytes]] = {}
        self._seen: dict[str, int] = {}
        self.completed_s: dict[str, float] = {}
        """When the completion of an effect was first known to be durable, by idempotency key."""
        self.shards: dict[str, set[int]] = {}
        """The shards in which executions were seen, by id; one each, unless something is very wrong."""
        self.changed: list[str] = []
        """Events that were durable and are not the same any more."""

    def executions(self) -> Iterable[str]:
        """The ids of all that were seen."""
        return self.shards.keys()

    def read(self, *, whole: bool) -> None:
        """Looks at the files as they are now: at everything, or only at what has come since the last look."""
        for file in sorted(self._data_dir.glob("shard-*.db")):
            after = 0 if whole else self._seen.get(file.name, 0)
            # A file that has just been made has no tables yet.
            with suppress(apsw.BusyError, apsw.CantOpenError), closing(_open(file)) as db:
                if not read_all(db, "select 1 from sqlite_master where name = 'events'"):
                    continue
                found = read_all(
                    db,
                    "select event_key, execution_id, events.first_sequence, events.last_sequence, messages,"
                    " events.format from events join executions using (execution_key)"
                    " where event_key > ? order by event_key",
                    (after,),
                )
                now_s = monotonic_s()
                for event_key, execution_id, first_sequence, last_sequence, stored, row_format in found:
                    self.shards.setdefault(execution_id, set()).add(int(file.stem.removeprefix("shard-")))
                    self._seen[file.name] = event_key
                    messages = unpacked(self._opened(execution_id, first_sequence, last_sequence, stored), row_format)
                    self._note(execution_id, first_sequence, last_sequence, messages, now_s)

    def _opened(self, execution_id: str, first: int, last: int, stored: bytes) -> bytes:
        if self._seals.sealer is not None and not is_sealed(stored):
            self.changed.append(f"{execution_id}: events from {first} on are not sealed")
        return self._seals.opened(stored, events_place(execution_id, first, last))

    def _note(self, execution_id: str, first: int, last: int, messages: bytes, now_s: float) -> None:
        row = (last, digest_of(messages[start:end] for start, end in frames(messages)))
        if (known := self._rows.setdefault((execution_id, first), row)) is not row:
            if known != row:
                self.changed.append(f"{execution_id}: events from {first} on have changed in the file")
            return
        for event in ReportProgressBatchRequest.FromString(messages).events:
            if event.event_type == "task_completed" and (key := _effect_of(execution_id, event)):
                # Of a process that nobody awaits it is only durable that it has begun.
                late_s = FIRST_STEPS_S_MAX if event.task_name == LINGERS else 0.0
                self.completed_s.setdefault(key, now_s + late_s)

    def differences(self, received: Callable[[str], list[bytes]]) -> dict[str, str]:
        """Executions of which a receiver has not the very events that were ever seen here."""
        different = {}
        for (execution_id, first), (last, digest) in self._rows.items():
            if digest_of(received(execution_id)[first - 1 : last]) != digest:
                different[execution_id] = f"the receiver has other events from {first} to {last} than the file"
        return different

    def problems(self) -> list[str]:
        """What is wrong with the files of a runner that has stopped."""
        problems = [f"{each} lives in shards {found}" for each, found in self.shards.items() if len(found) > 1]
        for file in sorted(self._data_dir.glob("shard-*.db")):
            with closing(_open(file)) as db:
                for query, expected in _SOUND.items():
                    found = db.execute(query).get
                    if found != expected:
                        problems.append(f"{file.name}: {query.strip()}: {found}")
        return problems


def _effect_of(execution_id: str, event: WorkflowProgressEvent) -> str:
    """The key of the effect that a completed task has had; empty if it had none that can be told."""
    if event.task_name == LINGERS:
        # It has no loop around it, and what it failed at is not tried again.
        return f"{execution_id}{event.task_reference}/1/1"
    return str(orjson.loads(event.output_json)["key"]) if event.output_json.startswith('{"key":') else ""


_SOUND = {
    "pragma integrity_check": "ok",
    "select count(*) from events where execution_key not in (select execution_key from executions)": 0,
    "select count(*) from snapshots where execution_key not in (select execution_key from executions"
    " where finished_ms = 0)": 0,
    "select count(*) from requests where execution_key not in (select execution_key from executions"
    " where finished_ms = 0)": 0,
    "select count(*) from plans where uses != (select count(*) from executions"
    " where executions.plan_key = plans.plan_key)": 0,
    **{
        f"select count(*) from {table} where execution_key not in (select execution_key from executions"
        " where finished_ms = 0)": 0
        for table in ("listeners", "event_inbox", "events_taken")
    },
    "select count(*) from inbox_events where event_key not in (select event_key from event_inbox)": 0,
}


def _open(file: Path) -> apsw.Connection:
    return connect(file, READ_ONLY)
