"""Stage 3, journal: one shard's SQLite file, opened and written.

Rules:
- One connection writes. The loop's thread inserts the rows of a commit, then the shard's writer thread runs COMMIT with
  its fsync; they take turns, so the interpreter lock changes hands once per commit and never once per row.
- A file has one owner: a lock beside it is held while it is open, so a successor waits for its predecessor.
- Every row is written with what proves it (`proofs.py`); `reader.py` checks it. With a key its values are sealed first
  (`seals.py`), as they come: what is written in a commit is sealed on the loop's thread.
"""

import fcntl
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from fastrunner.base import crash, limits
from fastrunner.base.crash import CrashPoint
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.engine.embedded.store import event_rows, faults, identities, proofs, wal_check
from fastrunner.engine.embedded.store.changes import (
    FAMILY_ENDS,
    Accepted,
    Batch,
    Change,
    Deletion,
    FamilyChange,
    InboxRow,
    Settled,
)
from fastrunner.engine.embedded.store.connection import read_all
from fastrunner.engine.embedded.store.journal_keeper import JournalKeeper
from fastrunner.engine.embedded.store.large_values import hash_of, is_large
from fastrunner.engine.embedded.store.listener_rows import ListenerWriter
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused
from fastrunner.engine.embedded.store.proofs import CLAIMED_FORMAT, FORMAT, Damage
from fastrunner.engine.embedded.store.seals import place
from fastrunner.engine.embedded.store.shared_file import identity_of_database
from fastrunner.engine.embedded.store.span_rows import SpanReader, SpanWriter
from fastrunner.engine.embedded.store.statements import MIGRATIONS, QUERIES, SCHEMA_VERSION, script

if TYPE_CHECKING:
    from fastrunner.engine.embedded.admit.plans import CachedPlan

__all__ = ["Counts", "Store", "Unwritable"]

_log = logging.getLogger(__name__)

_SEE_TO_THE_DISK = "see to the disk and start again"


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


@dataclass(slots=True)
class Unwritable:
    """What of a batch cannot be written although the disk takes the rest."""

    changes: dict[int, Exception] = field(default_factory=dict)
    """Why, by position."""
    acknowledgements: list[str] = field(default_factory=list)
    """Ids of the executions whose acknowledgements they are."""
    deletions: list[Deletion] = field(default_factory=list)
    """What retention cannot remove."""
    inbox: list[InboxRow] = field(default_factory=list)
    """Events that listeners cannot have."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.acknowledgements or self.deletions or self.inbox)


class Store(SpanReader):
    """One shard's file, open for its owner."""

    def __init__(self, path: Path, *, outbox: bool) -> None:
        super().__init__(path)
        self._outbox = outbox
        self._lock_descriptor = -1
        self._plan_keys: OrderedDict[bytes, int] = OrderedDict()
        self._plan_key_last = self._event_key_last = 0
        self._has_claims = self._has_orders = False
        self._order_number = 0
        self._journal_pages_max = 0
        self._keeper: JournalKeeper | None = None
        self._claiming: list[tuple[int, bytes, bytes]] = []
        """(execution key, hash, value) of the inputs and outputs that the rows being written refer to."""
        self._index_files = ExitStack()
        self._db: apsw.Connection
        self._listeners: ListenerWriter
        self._spans: SpanWriter

    # --- opening and closing ---

    def try_lock(self) -> bool:
        """Takes the file's lock; False while another process holds it. Raises as `open`."""
        if self._lock_descriptor < 0:
            path = self.path.with_suffix(".lock")
            try:
                self._lock_descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                refused = DataDirectoryRefused(f"{path} cannot be opened: {error.strerror}: {_SEE_TO_THE_DISK}")
                raise faults.opening_trouble(error, path) or refused from error
        try:
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def files(self) -> list[Path]:
        """What an open shard writes to."""
        return [self.path.with_name(f"{self.path.name}{ending}") for ending in ("", "-wal", "-shm")]

    def open(self) -> Counts:
        """Opens or creates the file. Raises DataDirectoryRefused for a newer schema or a file that cannot be read, and
        StorageFull or StorageFailed where the disk may let it be opened later."""
        with ExitStack() as undo:
            undo.callback(self.unlock)
            undo.callback(self._index_files.close)
            undo.callback(self.close_all)
            counts = self._open_checked()
            undo.pop_all()
        return counts

    def _open_checked(self) -> Counts:
        try:
            return self._open()
        except (apsw.Error, OSError) as error:
            remedy = "restore it from a backup" if faults.is_corrupt(error) else _SEE_TO_THE_DISK
            refused = DataDirectoryRefused(f"{self.path} cannot be opened: {error}: {remedy}")
            raise faults.opening_trouble(error, self.path) or refused from error

    def _open(self) -> Counts:
        self._refuse_to_begin_anew()
        mark = wal_check.read_mark(self.path, self._index_files)
        lost = wal_check.put_aside_if_overtaken(self.path, mark)
        self._db, self._journal_pages_max = self.connect(), limits.JOURNAL_PAGES_QUIET_MAX
        self._keeper = JournalKeeper.of(self.path, self._db, self._journal_pages_max)
        version = int(self._db.execute(QUERIES["schema_version"]).get)
        lost = lost or wal_check.find_loss(self.path, mark, self._index_files)
        if lost:
            self.report(Damage("journal", "", lost))
            self._keep_journal()
        if version > SCHEMA_VERSION:
            raise DataDirectoryRefused(
                f"{self.path} has schema version {version}, this version of fastrunner reads up to {SCHEMA_VERSION}: "
                "run the version that wrote it, or a newer one"
            )
        self._db.execute(script("pragmas")).fetchall()
        for migration in MIGRATIONS[version:]:
            self._db.execute(script(migration)).fetchall()
        self.open_readers()
        execution_key_last, self._plan_key_last, self._event_key_last = self._db.execute(QUERIES["select_keys"]).get
        self._has_claims = bool(self._db.execute(QUERIES["has_claims"]).get)
        self._order_number = int(self._db.execute(QUERIES["select_order_number"]).get)
        self._has_orders = self._order_number > 0
        self._listeners = ListenerWriter(self._db, self.seals)
        self._spans = SpanWriter(self._db)
        unfinished = self._db.execute(QUERIES["count_unfinished"]).get
        running = self._db.execute(QUERIES["count_running"]).get
        finished = self._db.execute(QUERIES["count_finished"]).get
        return Counts(execution_key_last, unfinished, unfinished - running, finished)

    def _refuse_to_begin_anew(self) -> None:
        """Raises DataDirectoryRefused if the file is not there, or without even a header, and had executions: SQLite
        would make it anew, and remove the journal beside it."""
        copy = self.path.with_suffix(".ids")
        if identity_of_database(self.path) is None and identities.holds_any(copy):
            state = "empty" if self.path.exists() else "missing"
            raise DataDirectoryRefused(
                f"{self.path} is {state}, and {copy.name} beside it says that it had "
                f"executions: restore it from a backup, or remove {copy.name} to go on without them"
            )

    def _keep_journal(self) -> None:
        try:
            wal_check.keep(self.path)
        except OSError as error:
            _log.error("the damaged journal of %s cannot be kept: %s", self.path.name, error.strerror)
            return
        _log.error("the damaged journal is kept as %s", wal_check.kept_journal(self.path).name)

    def close(self) -> None:
        """Folds the journal into the file, unless it is kept, and lets a successor in."""
        self.close_readers()
        try:
            # What follows the journal goes on where it is.
            if self._keeper is None:
                self._db.execute(QUERIES["checkpoint"])
        except apsw.Error:
            # The journal is durable as it is; whoever opens the file next folds it in.
            pass
        finally:
            self._db.close()
            self._index_files.close()
            self.unlock()

    def unlock(self) -> None:
        """Lets a successor in."""
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    @property
    def event_key_last(self) -> int:
        """The last row of events that has been inserted: of the last commit, where none is under way."""
        return self._event_key_last

    # --- writing: `write` on the loop's thread, then `commit` in the writer thread ---

    def write(self, batch: Batch) -> None:
        """Inserts a batch's rows into a new transaction. Whatever it raises, nothing of the batch is kept then."""
        try:
            self._bound_journal(len(batch.changes))
            self._db.execute(QUERIES["begin"])
            self._write_parts(batch)
            if batch.probe:
                self._db.execute(QUERIES["probe"])
        except Exception:
            self._give_up()
            raise

    def _write_parts(self, batch: Batch) -> None:
        plan_uses = self._write_changes(batch.changes)
        self._listeners.write(batch.changes, batch.inbox)
        self._spans.write(batch)
        self._acknowledge(batch.acknowledgements)
        self._write_deletions(batch.deletions, plan_uses)

    def _bound_journal(self, executions_count: int) -> None:
        """Has the commit of so many executions fold the journal into the file if it has become long enough for them."""
        is_small = executions_count <= limits.COMMIT_SMALL_EXECUTIONS_MAX
        pages_max = limits.JOURNAL_PAGES_QUIET_MAX if is_small else limits.JOURNAL_PAGES_MAX
        if self._keeper is not None:
            self._keeper.pages_max = pages_max
        elif pages_max != self._journal_pages_max:
            self._db.wal_autocheckpoint(pages_max)
            self._journal_pages_max = pages_max

    def unwritable(self, batch: Batch) -> Unwritable:
        """What of a batch cannot be written, each part tried by itself. Writes nothing.

        Raises apsw.Error if the disk is at fault, or so much of the file that nothing can be written.
        """
        found = Unwritable()
        try:
            self._db.execute(QUERIES["begin"])
            for position, change in enumerate(batch.changes):
                error = self._try(Batch([change]))
                if error is not None:
                    found.changes[position] = error
            found.acknowledgements = [
                each for each, pair in batch.acknowledgements.items() if self._try(Batch(acknowledgements={each: pair}))
            ]
            found.deletions = [each for each in batch.deletions if self._try(Batch(deletions=[each]))]
            found.inbox = [each for each in batch.inbox.rows if self._try(Batch(inbox=batch.inbox.only(each)))]
            self._db.execute(QUERIES["canary_execution"])
            self._db.execute(QUERIES["canary_events"])
        finally:
            self._give_up()
        return found

    def _try(self, part: Batch) -> Exception | None:
        """Why a part of a batch cannot be written, whatever the disk does; None if it can. Raises apsw.Error."""
        self._db.execute(QUERIES["savepoint"])
        try:
            self._write_parts(part)
        except Exception as error:
            if not faults.is_corrupt(error) and faults.refusal_of(error, self.path.name, 0) is not None:
                raise
            self._plan_keys.clear()
            self._db.execute(QUERIES["rollback_to_savepoint"])
            return error
        finally:
            if self._db.in_transaction:
                self._db.execute(QUERIES["release_savepoint"])
        return None

    def commit(self) -> None:
        """Makes the transaction durable; blocks for its fsync. Raises apsw.Error; then nothing of it is kept."""
        try:
            crash.reach(CrashPoint.BEFORE_COMMIT)
            self._db.execute(QUERIES["commit"])
            crash.reach(CrashPoint.AFTER_COMMIT)
            if self._keeper is not None:
                self._keeper.committed()
        except apsw.Error:
            self._give_up()
            raise

    def _give_up(self) -> None:
        # Plans inserted by this transaction are gone again.
        self._plan_keys.clear()
        if self._db.in_transaction:
            try:
                self._db.execute(QUERIES["rollback"])
            except apsw.Error as error:
                # The next `begin` tells whether the connection is of use.
                _log.error("a transaction of %s could not be rolled back: %s", self.path.name, error)

    def _many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._db.executemany(QUERIES[name], rows)

    def _write_changes(self, changes: Sequence[Change]) -> dict[int, int]:
        """Rows of executions; gives how many new ones use each plan."""
        self._claiming.clear()
        plan_uses = self._write_accepted(changes)
        self._write_progress(changes)
        self._write_claims(changes)
        self._write_families(changes)
        return plan_uses

    def _write_families(self, changes: Sequence[Change]) -> None:
        """Who has started whom, and what parents have for their children."""
        if self._has_orders:
            self._many("delete_orders", [(change.execution_key,) for change in changes if change.finished_ms])
        for change in changes:
            parent = None if change.accepted is None else change.accepted.parent
            if parent is not None:
                row = (change.execution_key, parent.execution_id, parent.effect_id, parent.depth, 1 + parent.awaits_end)
                self._db.execute(QUERIES["set_parent"], row)
        # After all parents are known: a child may be accepted by the commit in which its parent gives it up.
        for change in changes:
            if change.family is not None:
                self._write_family(change, change.family)

    def _write_family(self, change: Change, family: FamilyChange) -> None:
        self._order_number += 1
        number = family.number = self._order_number
        if family.order_taken >= 0:
            self._db.execute(QUERIES["delete_order"], (change.execution_key, family.order_taken))
        if family.orders or family.is_all:
            self._has_orders = True
        self._many("put_order", [(child_id, number, order) for child_id, order in family.orders])
        self._many("release_child", [(child_id,) for child_id in family.released])
        if family.is_all:
            self._db.execute(QUERIES["put_orders_to_all"], (change.execution_id, number, FAMILY_ENDS))
            self._db.execute(QUERIES["release_children"], (change.execution_id,))

    def _acknowledge(self, acknowledgements: Mapping[str, Settled]) -> None:
        self._many("acknowledge", [(execution_id, *settled) for execution_id, settled in acknowledgements.items()])

    def _write_accepted(self, changes: Sequence[Change]) -> dict[int, int]:
        """Rows of executions that are new; gives how many of them use each plan."""
        executions, requests, labels = [], [], []
        plan_uses: dict[int, int] = {}
        for change in changes:
            accepted = change.accepted
            if accepted is None:
                continue
            plan_key = self._plan_key(accepted.plan)
            plan_uses[plan_key] = plan_uses.get(plan_key, 0) + 1
            error_json, output_json, row_format = self._result_of(change)
            digest = accepted.request_digest
            if self.seals.sealer is not None:
                digest = self.seals.sealer.seal(digest, place("request_digest", change.execution_id))
            executions.append(
                (
                    change.execution_key,
                    change.execution_id,
                    digest,
                    plan_key,
                    change.status,
                    accepted.accepted_ms,
                    change.finished_ms,
                    change.wake_at_ms,
                    change.parked,
                    change.last_sequence,
                    0 if self._outbox and not accepted.silent else change.last_sequence,
                    accepted.metadata,
                    error_json,
                    output_json,
                    row_format,
                    _execution_checksum(change, error_json, output_json),
                    accepted.silent,
                    accepted.trace,
                )
            )
            if accepted.labels:
                where = (accepted.accepted_ms, change.execution_id, change.execution_key)
                labels += [(*label, *where) for label in accepted.labels.items()]
            if not change.finished_ms:
                requests.append(self._request_row(change, accepted))
        self._many("insert_execution", executions)
        self._many("insert_request", requests)
        self._many("insert_label", labels)
        return plan_uses

    def _write_progress(self, changes: Sequence[Change]) -> None:
        updates, snapshots, ended, events = [], [], [], []
        for change in changes:
            key = change.execution_key
            if change.accepted is None:
                acknowledged = 0 if self._outbox else change.last_sequence
                error_json, output_json, row_format = self._result_of(change)
                updates.append(
                    (
                        key,
                        change.status,
                        change.finished_ms,
                        change.wake_at_ms,
                        change.parked,
                        change.last_sequence,
                        acknowledged,
                        error_json,
                        output_json,
                        row_format,
                        _execution_checksum(change, error_json, output_json),
                    )
                )
                if change.finished_ms and not change.keeps_state:
                    ended.append((key,))
            if change.snapshot is not None:
                snapshots.append((key, self._sealed(change.snapshot, "snapshot", change.execution_id)))
            if change.events is not None:
                events.append(self._events_row(key, change.events))
        self._many("update_execution", updates)
        self._many("put_snapshot", snapshots)
        self._many("delete_snapshot", ended)
        self._many("delete_request", ended)
        self._many("insert_events", events)

    def _sealed(self, value: bytes, column: str, execution_id: str) -> bytes:
        sealer = self.seals.sealer
        return value if sealer is None else sealer.seal(value, place(column, execution_id))

    def _events_row(self, key: int, row: UnacknowledgedEvents) -> tuple[Any, ...]:
        first, last = row.first_sequence, row.last_sequence
        self._event_key_last += 1
        stored = event_rows.stored(self.seals, row.execution_id, key, first, last, row.messages)
        return (self._event_key_last, key, first, last, *stored)

    def _request_row(self, change: Change, accepted: Accepted) -> tuple[Any, ...]:
        key, row_format = change.execution_key, FORMAT
        if is_large(len(accepted.input_json)):
            input_json, row_format = self._claim(key, accepted.input_json), CLAIMED_FORMAT
        else:
            input_json = self._sealed(accepted.input_json, "input", change.execution_id)
        env_json = self._sealed(accepted.env_json, "env", change.execution_id)
        checksum = proofs.request_checksum(key, accepted.debug, input_json, env_json, accepted.client)
        return (key, input_json, env_json, accepted.debug, accepted.client, row_format, checksum)

    def _result_of(self, change: Change) -> tuple[str | None, str | None, int]:
        """What the row says of error and output, and the row's format."""
        error_json, output_json, row_format = change.error_json, change.output_json, FORMAT
        if output_json is not None and is_large(len(output_json)):
            output_json = self._claim(change.execution_key, output_json.encode()).hex()
            row_format = CLAIMED_FORMAT
        sealer = self.seals.sealer
        if sealer is not None:
            if error_json is not None:
                error_json = sealer.seal_text(error_json, place("error", change.execution_id))
            if output_json is not None and row_format == FORMAT:
                output_json = sealer.seal_text(output_json, place("output", change.execution_id))
        return error_json, output_json, row_format

    def _claim(self, execution_key: int, value: bytes) -> bytes:
        digest = hash_of(value)
        self._claiming.append((execution_key, digest, value))
        return digest

    def _write_claims(self, changes: Sequence[Change]) -> None:
        """Large values that came and went; what ended first, because its output may be what it claimed before."""
        if self._has_claims:
            self._release(
                [(change.execution_key,) for change in changes if change.finished_ms and not change.keeps_state]
            )
        dropped, claimed = [], self._claiming
        for change in changes:
            if change.claims is not None:
                dropped += [(change.execution_key, digest) for digest in change.claims.dropped]
                claimed += [(change.execution_key, digest, value) for digest, value in change.claims.added.items()]
        self._many("delete_claim", dropped)
        self._many("delete_unclaimed_value", [(digest,) for _, digest in dropped])
        if claimed:
            self._has_claims = True
            sealer = self.seals.sealer
            self._many(
                "insert_large_value",
                [
                    (digest, value if sealer is None else sealer.seal_by_hash(value, digest))
                    for _, digest, value in claimed
                ],
            )
            self._many("insert_claim", [(key, digest) for key, digest, _ in claimed])

    def _release(self, keys: Sequence[tuple[int]]) -> None:
        released = [row for key in keys for row in self._db.execute(QUERIES["release_claims"], key)]
        self._many("delete_unclaimed_value", released)

    def _write_deletions(self, deletions: Sequence[Deletion], plan_uses: dict[int, int]) -> None:
        keys = [(deletion.execution_key,) for deletion in deletions]
        if keys:
            self._db.execute(QUERIES["note_deleted_events"], (json.dumps([key for (key,) in keys]),))
        self._many("delete_events", keys)
        # Executions that ended because they were damaged have kept these.
        self._many("delete_snapshot", keys)
        self._many("delete_request", keys)
        if self._has_claims:
            self._release(keys)
        self._many("delete_labels", keys)
        self._many("delete_execution", keys)
        for deletion in deletions:
            plan_uses[deletion.plan_key] = plan_uses.get(deletion.plan_key, 0) - 1
        self._many("count_plan_uses", list(plan_uses.items()))
        if deletions:
            for plan_key in {deletion.plan_key for deletion in deletions}:
                self._db.execute(QUERIES["delete_unused_plan"], (plan_key,))
                if self._db.changes():
                    self._plan_keys = OrderedDict(item for item in self._plan_keys.items() if item[1] != plan_key)

    def _plan_key(self, plan: "CachedPlan") -> int:
        """The number of a document in this shard, storing it if it is new."""
        digest = plan.plan.digest
        known = self._plan_keys.get(digest)
        if known is not None:
            self._plan_keys.move_to_end(digest)
            return known
        plan_key = self._db.execute(QUERIES["select_plan_key"], (digest,)).get
        if plan_key is None:
            self._plan_key_last += 1
            self._db.execute(QUERIES["insert_plan"], _plan_row(self._plan_key_last, plan))
            plan_key = self._plan_key_last
        else:
            self._heal(plan_key, plan)
        self._plan_keys[digest] = plan_key
        if len(self._plan_keys) > limits.PLAN_KEYS_KNOWN_MAX:
            self._plan_keys.popitem(last=False)
        return int(plan_key)

    def _heal(self, plan_key: int, plan: "CachedPlan") -> None:
        """Puts a document in place of a damaged copy of it."""
        row = _plan_row(plan_key, plan)
        *proven, metadata_json = row
        if read_all(self._db, QUERIES["select_whole_plan"], (plan_key,)) == [tuple(proven)]:
            if metadata_json is not None:
                self._db.execute(QUERIES["complete_plan"], (plan_key, metadata_json))
        else:
            self.report(Damage("plans", "", f"document {plan_key} was damaged; it has come again and is repaired"))
            self._db.execute(QUERIES["heal_plan"], row)


def _plan_row(plan_key: int, plan: "CachedPlan") -> tuple[Any, ...]:
    compiled = plan.plan
    metadata = compiled.document["document"].get("metadata")
    # Integers of any size are numbers in JSON.
    metadata_json = None if metadata is None else json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    names = (compiled.namespace, compiled.name, compiled.version)
    return (plan_key, compiled.digest, *names, plan.document, plan.pinned or None, metadata_json)


def _execution_checksum(change: Change, error_json: str | None, output_json: str | None) -> int:
    return proofs.execution_checksum(
        change.execution_key,
        change.status,
        change.finished_ms,
        change.last_sequence,
        error_json,
        output_json,
    )
