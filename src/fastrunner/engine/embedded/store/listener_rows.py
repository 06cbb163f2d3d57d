"""Stage 3, journal: the rows of listeners and of the events that they are still to take: written and read.

Rules: as in `file.py` and `reader.py`, which this is a part of. An event that several are to have is stored once, and
goes with the last of them.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import apsw
import orjson

from fastrunner.base import limits
from fastrunner.engine.embedded.store import proofs
from fastrunner.engine.embedded.store.changes import Change, InboxChange, ListeningChange, Started
from fastrunner.engine.embedded.store.columns import READ, are_sound
from fastrunner.engine.embedded.store.connection import read_each
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.engine.embedded.store.reader import Reader, unreadable
from fastrunner.engine.embedded.store.seals import NotOpened, Seals, filter_place, inbox_place
from fastrunner.engine.embedded.store.statements import QUERIES
from fastrunner.errors import ShardDamaged

__all__ = ["InboxEvent", "ListenerReader", "ListenerWriter", "StoredListener"]

InboxEvent = tuple[int, Any]
"""An event's key, and the event; None in its place if it is damaged."""


@dataclass(frozen=True, slots=True)
class StoredListener:
    """A listener as the file has it."""

    listener_key: int
    """Its number in the file."""
    execution_key: int
    """Whose it is."""
    subscription_id: int
    """The walk's number of it."""
    offered_key: int
    """Up to which key events have been offered to it."""
    is_live: bool
    """Whether it gets events as they come."""
    started_sequence: int
    """The execution's last sequence number when it began."""
    filter_json: bytes | None
    """Which events it waits for, as JSON; None if that is damaged."""
    namespace: str
    """Of its workflow."""
    rows_count: int
    """Events that it is still to take."""


class ListenerReader(Reader):
    """What is read of listeners; all raise StorageFailed while the file cannot be read."""

    def listeners(self, after_key: int, count_max: int) -> list[StoredListener]:
        """A page of all of unfinished executions, in the order of their own numbers."""
        return [self._listener(row) for row in self._sound("select_listeners", (after_key, count_max))]

    def listeners_of(self, execution_key: int) -> list[StoredListener]:
        """Those of one execution."""
        return [self._listener(row) for row in self._sound("select_listeners_of", (execution_key,))]

    def _listener(self, row: Sequence[Any]) -> StoredListener:
        key, execution_key, execution_id, subscription_id, offered, live, started, stored, checksum, *rest = row
        filter_json = self._filter(execution_key, execution_id, subscription_id, stored, checksum)
        return StoredListener(key, execution_key, subscription_id, offered, bool(live), started, filter_json, *rest)

    def _filter(
        self, execution_key: int, execution_id: str, subscription_id: int, stored: bytes, checksum: int
    ) -> bytes | None:
        detail = "does not match its checksum"
        if proofs.filter_checksum(execution_key, subscription_id, stored) == checksum:
            try:
                return self.seals.opened(stored, filter_place(execution_id, subscription_id))
            except NotOpened as error:
                detail = str(error)
        self.report(Damage("listeners", execution_id, f"what it waits for {detail}"))
        return None

    def filter_json(self, execution_key: int, subscription_id: int) -> bytes | None:
        """What a listener waits for; None if it is not there, or damaged."""
        for stored, checksum, execution_id in self._sound("select_filter", (execution_key, subscription_id)):
            return self._filter(execution_key, execution_id, subscription_id, stored, checksum)
        return None

    def inbox(self, execution_id: str, execution_key: int, subscription_id: int, after_key: int) -> list[InboxEvent]:
        """(key, event, None if it is damaged) of what a listener is to have next, until a bound is passed."""
        found: list[InboxEvent] = []
        size_bytes = 0
        parameters = (execution_key, subscription_id, after_key, limits.INBOX_PAGE_EVENTS_MAX)
        try:
            with closing(read_each(self._reader, QUERIES["select_inbox"], parameters)) as cursor:
                for row in cursor:
                    if not are_sound(READ["select_inbox"], row):
                        self.report(Damage("event_inbox", execution_id, "a row has values of wrong types"))
                        continue
                    event_key, stored, checksum = row
                    found.append((event_key, self._inbox_event(execution_id, event_key, stored, checksum)))
                    size_bytes += len(stored or b"")
                    if size_bytes >= limits.INBOX_PAGE_SIZE_BYTES_MAX:
                        break
        except apsw.Error as error:
            raise unreadable(self.path, error) from error
        return found

    def _inbox_event(self, execution_id: str, key: int, stored: bytes | None, checksum: int | None) -> Any:
        if stored is None:
            detail = "is missing"
        elif proofs.inbox_checksum(key, stored) != checksum:
            detail = "does not match its checksum"
        else:
            try:
                return orjson.loads(self.seals.opened(stored, inbox_place(key)))
            except NotOpened as error:
                detail = str(error)
        self.report(Damage("inbox_events", execution_id, f"event {key}, which it is to have, {detail}"))
        return None

    def taken_at(self, execution_key: int, event_key: int) -> int | None:
        """After which of its sequence numbers an execution has taken an event; None if it has not."""
        rows = self._sound("select_taken", (execution_key, event_key))
        return int(rows[0][0]) if rows else None

    def may_take(self, execution_key: int) -> bool:
        """Whether an execution has not ended and is not paused."""
        return bool(self._sound("select_may_take", (execution_key,)))

    def events_position(self) -> int:
        """Up to which key events have been looked at for the listeners here."""
        try:
            rows = self._sound("select_position", ())
        except ShardDamaged:
            # Each listener knows what it has been offered.
            self.report(Damage("events_position", "", "how far events have been looked at cannot be read"))
            rows = []
        return int(rows[0][0]) if rows else 0


class ListenerWriter:
    """Writes what is new of listeners, within the transaction of a commit."""

    def __init__(self, db: apsw.Connection, seals: Seals) -> None:
        self._db = db
        self._seals = seals
        self._has_any = bool(db.execute(QUERIES["has_listeners"]).get)

    def write(self, changes: Sequence[Change], inbox: InboxChange) -> None:
        """Who listens first, then what they are to have, then what has been taken or is not wanted any more."""
        heard = [(change, change.listening) for change in changes if change.listening is not None]
        for change, listening in heard:
            self._many("put_listener", [self._listener_row(change, each) for each in listening.started])
            self._has_any = True
        if inbox:
            self._put(inbox)
        gone: set[int] = set()
        for change, listening in heard:
            gone |= self._take(change.execution_key, listening)
        if self._has_any:
            for change in changes:
                if change.finished_ms:
                    gone |= self._forget(change.execution_key)
        self._many("delete_inbox_event", [(key,) for key in sorted(gone)])

    def _put(self, inbox: InboxChange) -> None:
        self._many("put_inbox", inbox.rows)
        self._many("put_inbox_event", [self._event_row(*each) for each in inbox.events.items()])
        self._many("update_listener", [(*whose, key, is_live) for whose, (key, is_live) in inbox.offered.items()])
        if inbox.position:
            self._db.execute(QUERIES["put_position"], (inbox.position,))

    def _take(self, execution_key: int, listening: ListeningChange) -> set[int]:
        """What was taken leaves the inbox; the keys of the events that did."""
        gone = [(execution_key, subscription_id, key) for subscription_id, key, _ in listening.taken]
        gone += [(execution_key, *each) for each in listening.dropped]
        self._many("take_from_inbox", gone)
        self._many("put_taken", [(execution_key, key, sequence) for _, key, sequence in listening.taken])
        if listening.taken:
            self._db.execute(QUERIES["forget_taken"], (execution_key, listening.kept_from_key))
        ended = [(execution_key, subscription_id) for subscription_id in listening.ended]
        self._many("delete_listener", ended)
        return {key for _, _, key in gone} | self._returned("empty_inbox", ended)

    def _forget(self, execution_key: int) -> set[int]:
        self._db.execute(QUERIES["delete_listeners"], (execution_key,))
        self._db.execute(QUERIES["delete_taken"], (execution_key,))
        return self._returned("empty_inboxes", [(execution_key,)])

    def _returned(self, name: str, rows: Iterable[tuple[int, ...]]) -> set[int]:
        return {key for row in rows for (key,) in self._db.execute(QUERIES[name], row)}

    def _listener_row(self, change: Change, started: Started) -> tuple[Any, ...]:
        key, subscription_id, filter_json = change.execution_key, started.subscription_id, started.filter_json
        if self._seals.sealer is not None:
            filter_json = self._seals.sealer.seal(filter_json, filter_place(change.execution_id, subscription_id))
        checksum = proofs.filter_checksum(key, subscription_id, filter_json)
        where = (key, subscription_id, started.offered_key, started.is_live, started.started_sequence)
        return (*where, filter_json, checksum)

    def _event_row(self, event_key: int, event_json: bytes) -> tuple[int, bytes, int]:
        if self._seals.sealer is not None:
            event_json = self._seals.sealer.seal(event_json, inbox_place(event_key))
        return event_key, event_json, proofs.inbox_checksum(event_key, event_json)

    def _many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._db.executemany(QUERIES[name], rows)
