"""Stage 3, journal: what is read from one shard's file, and what proves it.

Rules:
- A read-only connection serves keyed reads on the loop's thread; it sees the last commit. Listings have another, for
  one helper thread.
- Every row is checked (`proofs.py`). Damage is reported by table and execution and never stalls what is not damaged:
  where pages of the file are lost, the rest is found row by row.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import orjson

from fastrunner.base import limits
from fastrunner.engine import (
    DefinitionRef,
    ExecutionPage,
    ExecutionQuery,
    ExecutionView,
    Parent,
    UnacknowledgedEvents,
)
from fastrunner.engine.embedded.store import event_rows, faults, proofs
from fastrunner.engine.embedded.store.changes import Deletion
from fastrunner.engine.embedded.store.columns import READ, are_sound
from fastrunner.engine.embedded.store.connection import connect, read_all, read_each
from fastrunner.engine.embedded.store.event_rows import EventsDamaged
from fastrunner.engine.embedded.store.kept_journals import is_kept
from fastrunner.engine.embedded.store.large_values import DividedSnapshot, digest_of, hash_of, is_divided, join
from fastrunner.engine.embedded.store.listing import counts_of, page_of
from fastrunner.engine.embedded.store.marks import Standing
from fastrunner.engine.embedded.store.proofs import CLAIMED_FORMAT, Damage, EventFacts
from fastrunner.engine.embedded.store.seals import NotOpened, Seals, place
from fastrunner.engine.embedded.store.statements import QUERIES, script
from fastrunner.errors import Damaged, ShardDamaged, Stopping, StorageFailed

__all__ = ["Reader", "Unfinished", "unreadable"]

_log = logging.getLogger(__name__)

_NOWHERE = range(0)
_HEAD_SIZE = 9
"""Columns of an Unfinished that come from `executions`."""
_NEEDED_TO_END = "is?i?ii??"
"""Which of them there must be to end it as damaged."""


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
    last_sequence: int
    """Sequence number of its latest event."""
    silent: bool
    """Whether its events are for no receiver."""
    parked: bool
    """Whether it only waits: for a timer, or paused."""
    aside: bool
    """Whether the runner has paused it, without its walk."""
    input_json: bytes
    """Exact JSON text of its input."""
    env_json: bytes
    """Its env_vars as JSON."""
    debug: bool
    """Whether every step is logged."""
    client: str
    """Who submitted it."""
    snapshot: bytes
    """The walk's state as of its last commit."""
    divided: DividedSnapshot | None
    """How that is stored, if it is large."""
    damage: str
    """What of it is damaged, as half a sentence; empty if all of it is what was written."""
    trace: str
    """What is traced of it; empty: nothing, or that cannot be read."""


class Reader:
    """The reading side of one shard's file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seals = Seals()
        """What seals and opens values; the owner sets it before the file is opened, if there is a key."""
        self.on_damage: Callable[[Damage], None] = _ignore
        """Told of everything damaged that is found, once each."""
        self._damages: set[Damage] = set()
        self._connections: list[apsw.Connection] = []
        self._reader: apsw.Connection
        self._lister: apsw.Connection

    def open_readers(self) -> None:
        """Opens both connections. Raises apsw.Error."""
        self._reader = self._open_reader()
        self._lister = self._open_reader()

    def _open_reader(self) -> apsw.Connection:
        reader = self.connect()
        reader.execute(script("reader")).fetchall()
        return reader

    def connect(self) -> apsw.Connection:
        """A new connection. Raises apsw.Error."""
        connection = connect(self.path)
        if is_kept(self.path):
            # The last one to be closed would fold the journal.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connections.append(connection)
        return connection

    def close_all(self) -> None:
        """Closes every connection."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def close_readers(self) -> None:
        """Closes both."""
        self._reader.close()
        self._lister.close()

    def report(self, damage: Damage) -> None:
        """Logs and counts something damaged, once."""
        if damage in self._damages:
            return
        if len(self._damages) < limits.DAMAGES_KNOWN_MAX:
            self._damages.add(damage)
        extra = {"execution_id": damage.execution_id} if damage.execution_id else {}
        _log.error("%s, table %s: %s", self.path.name, damage.table, damage.detail, extra=extra)
        self.on_damage(damage)

    # --- keyed reads, on the loop's thread; all raise StorageFailed while the file cannot be read ---

    def _read(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            return read_all(self._reader, QUERIES[name], parameters)
        except apsw.Error as error:
            raise unreadable(self.path, error) from error

    def _sound(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        """The rows whose values are of the right types; the others are told."""
        rows = self._read(name, parameters)
        sound = [row for row in rows if are_sound(READ[name], row)]
        if len(sound) < len(rows):
            self.report(Damage("executions", "", f"rows have values of wrong types ({name})"))
        return sound

    def _one(self, name: str, execution_id: str) -> Any:
        """The row of an execution; None if there is none. Raises Damaged."""
        rows = self._read(name, (execution_id,))
        if rows and not are_sound(READ[name], rows[0]):
            raise self.damaged(execution_id, "its row has values of wrong types")
        return rows[0] if rows else None

    def damaged(self, execution_id: str, detail: str) -> Damaged:
        """Tells what of an execution's row is damaged; what those hear who ask for it."""
        self.report(Damage("executions", execution_id, detail))
        return Damaged(f"what is stored of execution {execution_id!r} is damaged: restore it from a backup")

    def acceptance(self, execution_id: str) -> tuple[int, bytes, str] | None:
        """(execution key, request digest, status) of an id that is taken. Raises Damaged."""
        row = self._one("select_acceptance", execution_id)
        if row is None:
            return None
        key, digest, status = row
        try:
            return key, self.seals.opened(digest, place("request_digest", execution_id)), status
        except NotOpened as error:
            raise self.damaged(execution_id, f"its request's digest {error}") from None

    def ids(self) -> Iterator[str]:
        """The ids of all executions."""
        try:
            for row in self._reader.execute(QUERIES["select_ids"]):
                if not are_sound(READ["select_ids"], row):
                    raise TypeError("an id is not text")
                yield row[0]
        except (apsw.Error, UnicodeDecodeError, TypeError) as error:
            raise unreadable(self.path, error) from error

    def view(self, execution_id: str) -> ExecutionView | None:
        """One execution as queries show it. Raises Damaged."""
        row = self._one("select_execution", execution_id)
        if row is None:
            return None
        *head, output_json, error_json, metadata, labels, about, parent_id, key, row_format, checksum = row
        actual = proofs.execution_checksum(key, head[1], head[6], head[7], error_json, output_json)
        if not proofs.is_proven(row_format, checksum, actual):
            raise self.damaged(execution_id, "its state does not match its checksum")
        try:
            if error_json is not None:
                error_json = self.seals.opened_text(error_json, place("error", execution_id))
            if output_json is not None and row_format != CLAIMED_FORMAT:
                output_json = self.seals.opened_text(output_json, place("output", execution_id))
        except NotOpened as trouble:
            raise self.damaged(execution_id, f"its result {trouble}") from None
        if row_format == CLAIMED_FORMAT and output_json is not None:
            output_json = self._large_output(execution_id, output_json)
        error = None if error_json is None else orjson.loads(error_json)
        more = (metadata, orjson.loads(labels), about, parent_id)
        return ExecutionView(*[*head, output_json or "", error, *more])

    def _large_output(self, execution_id: str, name: str) -> str:
        """An output by its hash in hexadecimal digits. Raises Damaged."""
        digest = digest_of(name)
        output = self._large_value(digest)
        if output is None or hash_of(output) != digest:
            what = "is missing" if output is None else "does not match its hash"
            self.report(Damage("large_values", execution_id, f"its output {what}"))
            raise Damaged(f"the output of execution {execution_id!r} is damaged: restore it from a backup")
        return output.decode()

    def _large_value(self, digest: bytes) -> bytes | None:
        """By its hash; None if it is missing, of a wrong type, or does not open."""
        rows = self._read("select_large_value", (digest,))
        if not rows or not are_sound(READ["select_large_value"], rows[0]):
            return None
        try:
            return self.seals.opened(rows[0][0], digest)
        except NotOpened as error:
            self.report(Damage("large_values", "", f"{digest.hex()} {error}"))
            return None

    def progress(self, execution_id: str) -> tuple[int, int, bool] | None:
        """(execution key, last durable sequence number, whether it has finished). Raises Damaged."""
        row = self._one("select_progress", execution_id)
        return None if row is None else (row[0], row[1], row[2] > 0)

    def events(
        self,
        execution_id: str,
        execution_key: int,
        from_sequence: int,
        count_max: int,
        size_bytes_max: int,
        last_sequence: int = 0,
    ) -> list[UnacknowledgedEvents]:
        """Rows of one execution that hold events from `from_sequence` on, until a bound is passed; at least one.

        Up to `last_sequence` there must be some: stand-ins take the place of rows that are missing.
        """
        rows: list[UnacknowledgedEvents] = []
        expected = from_sequence
        count = size_bytes = 0
        try:
            # An open cursor would keep its read transaction, and with it the journal from being folded in.
            with closing(read_each(self._reader, QUERIES["select_events"], (execution_key, from_sequence))) as cursor:
                for row in cursor:
                    places = range(expected if rows else 1, expected + 1)
                    events = self._proven_events(execution_id, execution_key, row, places)
                    if events is None:
                        # Stand-ins come before the next one.
                        continue
                    if events.first_sequence > expected:
                        rows += self._lost(execution_id, execution_key, expected, events.first_sequence - 1)
                    expected = events.last_sequence + 1
                    rows.append(events)
                    count += events.last_sequence - max(events.first_sequence, from_sequence) + 1
                    size_bytes += len(events.messages)
                    if count >= count_max or size_bytes >= size_bytes_max:
                        break
                else:
                    rows += self._lost(execution_id, execution_key, expected, min(last_sequence, expected + count_max))
        except apsw.Error as error:
            if not last_sequence or not faults.is_corrupt(error):
                raise unreadable(self.path, error) from error
            rows += self._lost(execution_id, execution_key, expected, min(last_sequence, expected + count_max))
        return rows

    def feed_bounds(self) -> tuple[int, int]:
        """The highest number of a row of events that has been deleted, and of any."""
        ((deleted_key, last_key),) = self._read("select_feed_bounds", ())
        return deleted_key, last_key

    def feed(self, after_key: int, rows_max: int, size_bytes_max: int) -> list[tuple[int, DefinitionRef, str, bytes]]:
        """Rows of events in the order of their commits, until a bound is passed; at least one if there is one:
        (number, document, execution id, messages). What is damaged has no messages."""
        rows: list[tuple[int, DefinitionRef, str, bytes]] = []
        size_bytes = 0
        try:
            with closing(read_each(self._reader, QUERIES["select_feed"], (after_key, rows_max))) as cursor:
                for row in cursor:
                    messages = b""
                    event_key, execution_key, execution_id, namespace, name, version, *events_row = row
                    if are_sound(READ["select_feed"], row):
                        events = self._proven_events(execution_id, execution_key, events_row, range(0))
                        messages = b"" if events is None else events.messages
                    rows.append((event_key, DefinitionRef(namespace, name, version), execution_id, messages))
                    size_bytes += len(messages)
                    if size_bytes >= size_bytes_max:
                        break
        except apsw.Error as error:
            raise unreadable(self.path, error) from error
        return rows

    def _proven_events(
        self, execution_id: str, key: int, row: Sequence[Any], places: range
    ) -> UnacknowledgedEvents | None:
        """A row of events as it was written. With stand-ins if it is damaged and begins in one of the places where a
        row should; None if it is damaged otherwise."""
        if not are_sound(READ["select_events"], row):
            self.report(Damage("events", execution_id, "a row of its events has values of wrong types"))
            return None
        first, last = row[:2]
        try:
            messages = event_rows.messages_of(self.seals, execution_id, key, row)
        except EventsDamaged as error:
            self.report(Damage("events", execution_id, f"its events {first} to {last} {error}"))
            if first not in places:
                return None
            facts = self.event_facts(key)
            # Its own last sequence number may be what is damaged: the next row's first one tells.
            ((next_first,),) = self._read("select_next_events", (key, first))
            last = max(first, facts.last_sequence if next_first is None else next_first - 1)
            messages = proofs.stand_in_events(execution_id, facts, first, last)
        return UnacknowledgedEvents(execution_id, first, last, messages)

    def event_facts(self, key: int) -> EventFacts:
        """What events of an execution say of it beside what happened; nothing of one whose row is damaged."""
        rows = self._sound("select_event_facts", (key,))
        if not rows:
            return EventFacts("running", 0, 0, 0, "", None)
        execution_id, *facts, error_json = rows[0]
        if error_json is not None:
            try:
                error_json = self.seals.opened_text(error_json, place("error", execution_id))
            except NotOpened:
                error_json = None
        return EventFacts(*(*facts, error_json))

    def _lost(self, execution_id: str, key: int, first: int, last: int) -> list[UnacknowledgedEvents]:
        """Rows in place of events that are missing or cannot be read: one each, because a page may end after any."""
        if first > last:
            return []
        self.report(Damage("events", execution_id, f"its events {first} to {last} are missing or cannot be read"))
        facts = self.event_facts(key)
        return [
            UnacknowledgedEvents(execution_id, each, each, proofs.stand_in_events(execution_id, facts, each, each))
            for each in range(first, last + 1)
        ]

    def unacknowledged(self, after: tuple[str, int], rows_max: int) -> list[UnacknowledgedEvents]:
        """A page of the outbox, strictly after (execution id, first sequence number)."""
        try:
            rows = read_all(self._reader, QUERIES["select_unacknowledged"], (*after, rows_max))
        except apsw.Error as error:
            if not faults.is_corrupt(error):
                raise unreadable(self.path, error) from error
            return self._unacknowledged_singly(after, rows_max)
        found: list[UnacknowledgedEvents] = []
        for row in rows:
            acknowledged, execution_id, key, *of_events = row
            if not are_sound(READ["select_unacknowledged"], row):
                return self._unacknowledged_singly(after, rows_max)
            events = self._proven_events(execution_id, key, of_events, _NOWHERE)
            if events is None:
                return self._unacknowledged_singly(after, rows_max)
            if execution_id != (found[-1].execution_id if found else after[0]):
                expected = acknowledged + 1
                found += self._lost(execution_id, key, expected, events.first_sequence - 1)
            found.append(events)
        return found[:rows_max]

    def _unacknowledged_singly(self, after: tuple[str, int], rows_max: int) -> list[UnacknowledgedEvents]:
        """The same where pages of the file are damaged: one execution at a time, with stand-ins for what is lost."""
        found: list[UnacknowledgedEvents] = []
        for execution_id, key, acknowledged, last in self._sound("select_undelivered_ids", (after[0], rows_max)):
            first = max(acknowledged, after[1] if execution_id == after[0] else 0) + 1
            if first > last:
                continue
            rows = self.events(execution_id, key, first, rows_max, limits.REQUEST_SIZE_BYTES_MAX, last)
            # A row that began before `first` was on the page before.
            found += rows if execution_id != after[0] else [row for row in rows if row.first_sequence >= first]
            if len(found) >= rows_max:
                break
        return found[:rows_max]

    def unfinished(self, execution_key: int) -> Unfinished | None:
        """An execution to restore; None if it has ended, or if not even its first row can be read."""
        try:
            rows = self._read("select_unfinished", (execution_key,))
            if not rows or are_sound(READ["select_unfinished"], rows[0]):
                return self._unfinished(rows[0]) if rows else None
        except ShardDamaged:
            pass
        return self._unfinished_head(execution_key)

    def _unfinished_head(self, execution_key: int) -> Unfinished | None:
        """The same where not all of it can be read, so that it can be ended at least."""
        try:
            rows = self._read("select_unfinished_head", (execution_key,))
        except ShardDamaged:
            rows = [()]
        if not rows:
            return None
        if not rows[0] or not are_sound(_NEEDED_TO_END, rows[0]):
            self.report(Damage("executions", "", f"execution number {execution_key} cannot be read"))
            return None
        key, execution_id, digest, accepted_ms, plan_key, last_sequence, *flags = rows[0]
        table, damage = "snapshots", "its request or its snapshot cannot be read"
        if not are_sound(READ["select_unfinished_head"], rows[0]):
            table, damage, digest, plan_key = "executions", "its row has values of wrong types", b"", 0
        digest = self._digest_of(execution_id, digest)
        self.report(Damage(table, execution_id, damage))
        silent, parked, aside = map(bool, flags)
        head = (key, execution_id, digest, accepted_ms, plan_key, last_sequence, silent, parked, aside)
        return Unfinished(*head, b"", b"", False, "", b"", None, damage, "")

    def _digest_of(self, execution_id: str, stored: bytes) -> bytes:
        """The digest of a request; one that no request has if it does not open."""
        try:
            return self.seals.opened(stored, place("request_digest", execution_id))
        except NotOpened:
            return b""

    def _unfinished(self, row: tuple[Any, ...]) -> Unfinished:
        *head, silent, parked, aside = row[:_HEAD_SIZE]
        *request, snapshot, row_format, checksum, trace = row[_HEAD_SIZE:]
        head[2] = self._digest_of(head[1], head[2])
        table, damage, divided = "snapshots", "", None
        try:
            if snapshot is not None:
                snapshot = self.seals.opened(snapshot, place("snapshot", head[1]))
                if is_divided(snapshot):
                    divided = join(snapshot, self._large_value)
                    snapshot = divided.data
        except NotOpened as error:
            damage = f"its snapshot {error}"
        except ValueError as error:
            damage = str(error)
        damage = damage or proofs.snapshot_damage(snapshot)
        input_json, env_json, debug, client, trouble = self._request_of(head, request, row_format, checksum)
        if trouble:
            table, damage = trouble
        if damage:
            self.report(Damage(table, head[1], damage))
        state = (input_json, env_json, debug, client, snapshot or b"", divided, damage, trace)
        return Unfinished(*(*head, bool(silent), bool(parked), bool(aside), *state))

    def _request_of(
        self, head: Sequence[Any], row: Sequence[Any], row_format: int, checksum: int
    ) -> tuple[bytes, bytes, bool, str, tuple[str, str] | None]:
        """Input, env_vars, debug and client of an execution; table and damage, if it is damaged."""
        stored_input, stored_env, debug, client = row[0], row[1] or b"", bool(row[2]), row[3] or ""
        damage: tuple[str, str] | None = None
        input_json, env_json = stored_input or b"", stored_env
        if stored_input is None:
            damage = "requests", "its request is missing"
        elif not proofs.is_proven(
            row_format, checksum, proofs.request_checksum(head[0], debug, stored_input, stored_env, client)
        ):
            damage = "requests", "its request does not match its checksum"
        else:
            try:
                env_json = self.seals.opened(stored_env, place("env", head[1]))
                input_json = self.seals.opened(stored_input, place("input", head[1]))
            except NotOpened as error:
                damage = "requests", f"its request {error}"
        if damage is None and row_format == CLAIMED_FORMAT:
            input_json = self._large_value(stored_input) or b""
            if hash_of(input_json) != stored_input:
                damage = "large_values", "its input is missing or does not match its hash"
        return input_json, env_json, debug, client, damage

    def standing(self, execution_key: int) -> Standing | None:
        """How far an unfinished execution has come; None if there is none."""
        rows = self._sound("select_standing", (execution_key,))
        return Standing(*rows[0]) if rows else None

    def running(self, after_key: int, until_key: int, count_max: int) -> list[int]:
        """Keys of unfinished executions that do not only wait, with `after_key` < key <= `until_key`, in order."""
        return [key for (key,) in self._sound("select_running", (after_key, until_key, count_max))]

    def deadlines(self, after_ms: int, after_key: int, until_ms: int, count_max: int) -> list[tuple[int, int, str]]:
        """(deadline, execution key, execution id) of unfinished executions, in order, strictly after (deadline, key)
        and no later than `until_ms`."""
        return self._sound("select_deadlines", (after_ms, after_key, until_ms, count_max))

    def parent(self, execution_key: int, shard_number: int) -> Parent | None:
        """Who has started an execution; None if no other one has."""
        rows = self._sound("select_parent", (execution_key,))
        if not rows:
            return None
        parent_id, effect_id, depth, awaits_end = rows[0]
        return Parent(parent_id, effect_id, shard_number, depth, bool(awaits_end))

    def orders(self) -> list[tuple[str, str, int, str]]:
        """(parent's id, execution id, number, command) of all that children are to do because their parents did it."""
        return self._sound("select_orders", ())

    def env_json(self, execution_key: int, execution_id: str) -> bytes:
        """The variables of an unfinished execution, as JSON. Raises Damaged."""
        rows = self._sound("select_env", (execution_key,))
        try:
            return self.seals.opened(rows[0][0], place("env", execution_id)) if rows else b"{}"
        except NotOpened as error:
            raise self.damaged(execution_id, f"its request {error}") from None

    def plan_key(self, execution_id: str) -> int | None:
        """The number of the document that an execution executes; None if there is no such execution. Raises Damaged."""
        row = self._one("select_plan_key_of", execution_id)
        return None if row is None else row[0]

    def document(self, plan_key: int) -> tuple[str, str]:
        """The text of a stored document, and those from elsewhere that it has. Raises Damaged."""
        try:
            rows = self._sound("select_plan", (plan_key,))
        except ShardDamaged:
            rows = []
        if not rows or not proofs.is_document(rows[0][2], rows[0][0], rows[0][1]):
            what = "does not match its hash" if rows else "is missing or cannot be read"
            self.report(Damage("plans", "", f"document {plan_key} {what}"))
            raise Damaged(f"its document {what}")
        return str(rows[0][0]), str(rows[0][1])

    def deletable(self, finished_before_ms: int, count_max: int) -> list[Deletion]:
        """Finished executions, fully acknowledged, that ended before a time; oldest first."""
        return [Deletion(*row) for row in self._sound("select_deletable", (finished_before_ms, count_max))]

    def ended(self, execution_id: str) -> tuple[int, int, int, int, int, int] | None:
        """(execution key, plan key, last durable sequence number, up to which events are settled, when it ended,
        whether its parent is still to hear of it). Raises Damaged."""
        found: tuple[int, int, int, int, int, int] | None = self._one("select_ended", execution_id)
        return found

    def unsent(self, execution_keys_json: str, sent_key: int) -> list[tuple[int, int, int]]:
        """Of some executions (a JSON array of keys) those with rows of events after one: (execution key, when it
        ended, how many events those rows have)."""
        return self._sound("select_unsent", (execution_keys_json, sent_key))

    def undeliverable(self, finished_before_ms: int, count_max: int) -> list[Deletion]:
        """Finished executions with unacknowledged events that ended before a time; oldest first."""
        return [Deletion(*row) for row in self._sound("select_undeliverable", (finished_before_ms, count_max))]

    # --- listings, in one helper thread ---

    def listing(self, query: ExecutionQuery) -> ExecutionPage:
        """A page of executions, newest first. Raises StorageFailed, and Stopping if it is interrupted."""
        try:
            return page_of(self._lister, query, self.seals)
        except apsw.InterruptError:
            raise Stopping("the worker is stopping: try again") from None
        except apsw.Error as error:
            raise unreadable(self.path, error) from error

    def counts(self, query: ExecutionQuery) -> Mapping[str, int]:
        """How many executions there are in each state. Raises as `listing` does."""
        try:
            return counts_of(self._lister, query)
        except apsw.InterruptError:
            raise Stopping("the worker is stopping: try again") from None
        except apsw.Error as error:
            raise unreadable(self.path, error) from error

    def interrupt_listing(self) -> None:
        """Breaks off what the helper thread reads at this moment; call it from another one."""
        self._lister.interrupt()


def unreadable(path: Path, error: apsw.Error | UnicodeDecodeError | TypeError) -> StorageFailed:
    """What those hear who need a file that cannot be read now."""
    _log.error("%s cannot be read: %s", path, error)
    if not isinstance(error, apsw.Error) or faults.is_corrupt(error):
        return ShardDamaged(f"{path.name} is damaged where this is stored: `fastrunner data check` tells more")
    return StorageFailed("the data directory cannot be read")


def _ignore(damage: Damage) -> None:
    """Nobody is told."""
