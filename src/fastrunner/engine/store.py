"""Stage 3, journal: one shard's SQLite file.

Rules:
- One connection writes. The loop's thread inserts the rows of a commit, then the shard's writer thread runs COMMIT with
  its fsync; they take turns, so the interpreter lock changes hands once per commit and never once per row.
- A second connection, read-only, serves keyed reads on the loop's thread; it sees the last commit. Listings have a
  third, for one helper thread.
- A file has one owner: a lock beside it is held while it is open, so a successor waits for its predecessor.
"""

import fcntl
import logging
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fastrunner import crash, limits
from fastrunner.crash import CrashPoint
from fastrunner.engine import ExecutionQuery, ExecutionView, UnacknowledgedEvents
from fastrunner.engine.batch import Batch, Change, Deletion
from fastrunner.engine.manifest import DataDirectoryRefused
from fastrunner.engine.plans import CachedPlan
from fastrunner.engine.statements import QUERIES, SCHEMA_VERSION, script
from fastrunner.errors import Unavailable

__all__ = ["Counts", "Store", "Unfinished"]

_log = logging.getLogger(__name__)

_FOREVER_MS = 2**62


@dataclass(frozen=True, slots=True)
class Counts:
    """What a shard needs to know of its file at start."""

    execution_key_last: int
    """The highest execution number in use."""
    unfinished: int
    """Executions that have not ended."""
    parked: int
    """Those of them that only wait."""
    finished: int
    """Executions under retention."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An execution to restore."""

    execution_key: int
    """Its number in the shard."""
    execution_id: str
    """The caller's id."""
    request_digest: bytes
    """Tells a repeated request from a different one."""
    accepted_ms: int
    """When it was accepted."""
    plan_key: int
    """Its document's number in the shard."""
    input_json: bytes
    """Exact JSON text of its input."""
    env_json: bytes
    """Its env_vars as JSON."""
    debug: bool
    """Whether every step is logged."""
    parked: bool
    """Whether it only waits: for a timer, or paused."""
    snapshot: bytes
    """The walk's state as of its last commit."""


class Store:
    """One shard's file, open for its owner."""

    def __init__(self, path: Path, *, outbox: bool) -> None:
        self.path = path
        self._outbox = outbox
        self._lock_descriptor = -1
        self._plan_keys: OrderedDict[bytes, int] = OrderedDict()
        self._plan_key_last = 0
        self._db: sqlite3.Connection
        self._reader: sqlite3.Connection
        self._lister: sqlite3.Connection

    # --- opening and closing ---

    def try_lock(self) -> bool:
        """Takes the file's lock; False while another process holds it."""
        if self._lock_descriptor < 0:
            path = self.path.with_suffix(".lock")
            self._lock_descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def open(self) -> Counts:
        """Opens or creates the file. Raises DataDirectoryRefused for a newer schema or a file that cannot be read."""
        try:
            return self._open()
        except sqlite3.Error as error:
            raise DataDirectoryRefused(f"{self.path} cannot be opened: {error}: restore it from a backup") from error

    def _open(self) -> Counts:
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        version = int(self._db.execute(QUERIES["schema_version"]).fetchone()[0])
        if version > SCHEMA_VERSION:
            self._db.close()
            raise DataDirectoryRefused(
                f"{self.path} has schema version {version}, this version of fastrunner reads up to {SCHEMA_VERSION}: "
                "run the version that wrote it, or a newer one"
            )
        self._db.executescript(script("pragmas"))
        if version == 0:
            self._db.executescript(script("schema"))
        self._reader = self._open_reader()
        self._lister = self._open_reader()
        execution_key_last, self._plan_key_last = self._db.execute(QUERIES["select_keys"]).fetchone()
        (unfinished,) = self._db.execute(QUERIES["count_unfinished"]).fetchone()
        (running,) = self._db.execute(QUERIES["count_running"]).fetchone()
        (finished,) = self._db.execute(QUERIES["count_finished"]).fetchone()
        return Counts(execution_key_last, unfinished, unfinished - running, finished)

    def _open_reader(self) -> sqlite3.Connection:
        reader = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        reader.executescript(script("reader"))
        return reader

    def close(self) -> None:
        """Folds the journal into the file and lets a successor in."""
        self._reader.close()
        self._lister.close()
        try:
            self._db.execute(QUERIES["checkpoint"])
        except sqlite3.Error:
            # The journal is durable as it is; whoever opens the file next folds it in.
            pass
        finally:
            self._db.close()
            self.unlock()

    def unlock(self) -> None:
        """Lets a successor in."""
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    # --- writing: `write` on the loop's thread, then `commit` in the writer thread ---

    def write(self, batch: Batch) -> None:
        """Inserts a batch's rows into a new transaction. Whatever it raises, nothing of the batch is kept then."""
        try:
            self._db.execute(QUERIES["begin"])
            plan_uses = self._write_accepted(batch.changes)
            self._write_progress(batch.changes)
            self._many("acknowledge", list(batch.acknowledgements.items()))
            self._write_deletions(batch.deletions, plan_uses)
        except Exception:
            self._give_up()
            raise

    def commit(self) -> None:
        """Makes the transaction durable; blocks for its fsync. Raises sqlite3.Error; then nothing of it is kept."""
        try:
            crash.reach(CrashPoint.BEFORE_COMMIT)
            self._db.execute(QUERIES["commit"])
            crash.reach(CrashPoint.AFTER_COMMIT)
        except sqlite3.Error:
            self._give_up()
            raise

    def _give_up(self) -> None:
        # Plans inserted by this transaction are gone again.
        self._plan_keys.clear()
        if self._db.in_transaction:
            self._db.execute(QUERIES["rollback"])

    def _many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._db.executemany(QUERIES[name], rows)

    def _write_accepted(self, changes: Sequence[Change]) -> dict[int, int]:
        """Rows of executions that are new; gives how many of them use each plan."""
        executions, requests = [], []
        plan_uses: dict[int, int] = {}
        for change in changes:
            accepted = change.accepted
            if accepted is None:
                continue
            plan_key = self._plan_key(accepted.plan)
            plan_uses[plan_key] = plan_uses.get(plan_key, 0) + 1
            executions.append(
                (
                    change.execution_key,
                    change.execution_id,
                    accepted.request_digest,
                    plan_key,
                    change.status,
                    accepted.accepted_ms,
                    change.finished_ms,
                    change.wake_at_ms,
                    change.parked,
                    change.last_sequence,
                    0 if self._outbox else change.last_sequence,
                    accepted.metadata,
                    change.error_json,
                    change.output_json,
                )
            )
            if not change.finished_ms:
                requests.append((change.execution_key, accepted.input_json, accepted.env_json, accepted.debug))
        self._many("insert_execution", executions)
        self._many("insert_request", requests)
        return plan_uses

    def _write_progress(self, changes: Sequence[Change]) -> None:
        updates, snapshots, ended, events = [], [], [], []
        for change in changes:
            key = change.execution_key
            if change.accepted is None:
                acknowledged = 0 if self._outbox else change.last_sequence
                updates.append(
                    (
                        key,
                        change.status,
                        change.finished_ms,
                        change.wake_at_ms,
                        change.parked,
                        change.last_sequence,
                        acknowledged,
                        change.error_json,
                        change.output_json,
                    )
                )
                if change.finished_ms:
                    ended.append((key,))
            if change.snapshot is not None:
                snapshots.append((key, change.snapshot))
            if change.events is not None:
                row = change.events
                events.append((key, row.first_sequence, row.last_sequence, row.messages))
        self._many("update_execution", updates)
        self._many("put_snapshot", snapshots)
        self._many("delete_snapshot", ended)
        self._many("delete_request", ended)
        self._many("insert_events", events)

    def _write_deletions(self, deletions: Sequence[Deletion], plan_uses: dict[int, int]) -> None:
        keys = [(deletion.execution_key,) for deletion in deletions]
        self._many("delete_events", keys)
        self._many("delete_execution", keys)
        for deletion in deletions:
            plan_uses[deletion.plan_key] = plan_uses.get(deletion.plan_key, 0) - 1
        self._many("count_plan_uses", list(plan_uses.items()))
        if deletions:
            for plan_key in {deletion.plan_key for deletion in deletions}:
                if self._db.execute(QUERIES["delete_unused_plan"], (plan_key,)).rowcount:
                    self._plan_keys = OrderedDict(item for item in self._plan_keys.items() if item[1] != plan_key)

    def _plan_key(self, plan: CachedPlan) -> int:
        """The number of a document in this shard, storing it if it is new."""
        known = self._plan_keys.get(plan.digest)
        if known is not None:
            self._plan_keys.move_to_end(plan.digest)
            return known
        row = self._db.execute(QUERIES["select_plan_key"], (plan.digest,)).fetchone()
        if row is None:
            self._plan_key_last += 1
            compiled = plan.plan
            names = (compiled.namespace, compiled.name, compiled.version)
            self._db.execute(QUERIES["insert_plan"], (self._plan_key_last, plan.digest, *names, plan.document))
            row = (self._plan_key_last,)
        self._plan_keys[plan.digest] = row[0]
        if len(self._plan_keys) > limits.PLAN_KEYS_KNOWN_MAX:
            self._plan_keys.popitem(last=False)
        return int(row[0])

    # --- keyed reads, on the loop's thread; all raise Unavailable while the file cannot be read ---

    def _read(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            return self._reader.execute(QUERIES[name], parameters).fetchall()
        except sqlite3.Error as error:
            raise _unreadable(self.path, error) from error

    def acceptance(self, execution_id: str) -> tuple[int, bytes, str] | None:
        """(execution key, request digest, status) of an id that is taken."""
        rows = self._read("select_acceptance", (execution_id,))
        return rows[0] if rows else None

    def view(self, execution_id: str) -> ExecutionView | None:
        """One execution as queries show it."""
        rows = self._read("select_execution", (execution_id,))
        if not rows:
            return None
        *head, output_json, error_json, metadata = rows[0]
        error = None if error_json is None else orjson.loads(error_json)
        return ExecutionView(*[*head, output_json or "", error, metadata])

    def progress(self, execution_id: str) -> tuple[int, int, bool] | None:
        """(execution key, last durable sequence number, whether it has finished)."""
        rows = self._read("select_progress", (execution_id,))
        return (rows[0][0], rows[0][1], rows[0][2] > 0) if rows else None

    def events(
        self, execution_id: str, execution_key: int, from_sequence: int, count_max: int, size_bytes_max: int
    ) -> list[UnacknowledgedEvents]:
        """Rows of one execution that hold events from `from_sequence` on, until a bound is passed; at least one."""
        rows: list[UnacknowledgedEvents] = []
        count = size_bytes = 0
        try:
            # An open cursor would keep its read transaction, and with it the journal from being folded in.
            with closing(self._reader.execute(QUERIES["select_events"], (execution_key, from_sequence))) as cursor:
                for first, last, messages in cursor:
                    rows.append(UnacknowledgedEvents(execution_id, first, last, messages))
                    count += last - max(first, from_sequence) + 1
                    size_bytes += len(messages)
                    if count >= count_max or size_bytes >= size_bytes_max:
                        break
        except sqlite3.Error as error:
            raise _unreadable(self.path, error) from error
        return rows

    def unacknowledged(self, after: tuple[str, int], rows_max: int) -> list[UnacknowledgedEvents]:
        """A page of the outbox, strictly after (execution id, first sequence number)."""
        return [UnacknowledgedEvents(*row) for row in self._read("select_unacknowledged", (*after, rows_max))]

    def unfinished(self, execution_key: int) -> Unfinished | None:
        """An execution to restore; None if it has ended."""
        rows = self._read("select_unfinished", (execution_key,))
        if not rows:
            return None
        *head, debug, parked, snapshot = rows[0]
        return Unfinished(*[*head, bool(debug), bool(parked), snapshot])

    def running(self, after_key: int, until_key: int, count_max: int) -> list[int]:
        """Keys of unfinished executions that do not only wait, with `after_key` < key <= `until_key`, in order."""
        return [key for (key,) in self._read("select_running", (after_key, until_key, count_max))]

    def deadlines(self, after_ms: int, after_key: int, until_ms: int, count_max: int) -> list[tuple[int, int, str]]:
        """(deadline, execution key, execution id) of unfinished executions, in order, strictly after (deadline, key)
        and no later than `until_ms`."""
        return self._read("select_deadlines", (after_ms, after_key, until_ms, count_max))

    def document(self, plan_key: int) -> str:
        """The text of a stored document."""
        return str(self._read("select_plan", (plan_key,))[0][0])

    def deletable(self, finished_before_ms: int, count_max: int) -> list[Deletion]:
        """Finished executions, fully acknowledged, that ended before a time; oldest first."""
        return [Deletion(*row) for row in self._read("select_deletable", (finished_before_ms, count_max))]

    def undeliverable(self, finished_before_ms: int, count_max: int) -> list[Deletion]:
        """Finished executions with unacknowledged events that ended before a time; oldest first."""
        return [Deletion(*row) for row in self._read("select_undeliverable", (finished_before_ms, count_max))]

    # --- listings, in one helper thread ---

    def listing(self, query: ExecutionQuery) -> list[ExecutionView]:
        """A page of executions, newest first; may scan for long. Raises Unavailable."""
        before_ms, before_id = query.before or (_FOREVER_MS, "")
        parameters = {
            "accepted_from_ms": query.accepted_from_ms,
            "accepted_until_ms": query.accepted_until_ms or _FOREVER_MS,
            "before_ms": before_ms,
            "before_id": before_id,
            "statuses": orjson.dumps(sorted(query.statuses)).decode(),
            "name": query.name,
            "namespace": query.namespace,
            "count_max": query.count_max,
        }
        try:
            (text,) = self._lister.execute(QUERIES["list_executions"], parameters).fetchone()
        except sqlite3.Error as error:
            raise _unreadable(self.path, error) from error
        return [
            ExecutionView(*[*head, "", error, bytes.fromhex(metadata)]) for *head, error, metadata in orjson.loads(text)
        ]


def _unreadable(path: Path, error: sqlite3.Error) -> Unavailable:
    _log.error("%s cannot be read: %s", path, error)
    return Unavailable("the data directory cannot be read")
