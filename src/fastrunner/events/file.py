"""Stage 3, journal: the events' file: `events.db` in the data directory, one for all processes of a runner.

Rules:
- Events have the order of their commits, and a number that no other event has had, not even one of a file that was
  lost: a new file's numbers begin at the time. So a position is a number, and stays good.
- A duplicate, by source and id, is not written again; it has the number of the first.
- What somebody follows who has not come so far is not deleted. When there is no room for more, events are refused.
- What is read is what was written: checksums, and seals where there is a key, prove it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

import apsw

from fastrunner.base import limits
from fastrunner.engine.embedded.store.connection import read_all, read_each
from fastrunner.engine.embedded.store.seals import NotOpened, Seals
from fastrunner.engine.embedded.store.shared_file import SharedFile
from fastrunner.engine.embedded.store.statements import statements_in
from fastrunner.errors import AtCapacity

__all__ = [
    "FILE_NAME",
    "QUERIES",
    "SCHEMA",
    "Appended",
    "EventRow",
    "EventsFile",
    "StoredEvent",
    "checksum_of",
    "digest_of",
    "event_place",
    "proven",
    "type_hash_of",
]

FILE_NAME: Final = "events.db"

_DIGEST_SIZE_BYTES: Final = 16
_EVERYBODY_HAS_COME: Final = 2**63 - 1
_RETRY_AFTER_S: Final = 1.0


def _sql(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


QUERIES: Final[Mapping[str, str]] = statements_in(_sql("queries"))
"""Every statement of the file by name."""

SCHEMA: Final = (_sql("0001-events"), _sql("0002-outgoing"))
"""The scripts that make it."""


class StoredEvent(NamedTuple):
    """An event as it is kept."""

    key: int
    """Its number."""
    received_ms: int
    """When it came, in milliseconds since the epoch."""
    namespaces: frozenset[str] | None
    """Whose workflows it reaches; None: everybody's."""
    event: dict[str, Any]
    """In CloudEvents' JSON format."""


Decode = Callable[[Sequence[Any]], StoredEvent | None]
"""Makes an event of its row; None for one to be passed over."""


class EventRow(NamedTuple):
    """An event that is to be written."""

    digest: bytes
    """See `digest_of`."""
    type_hash: int
    """See `type_hash_of`."""
    namespaces: str | None
    """As a JSON array."""
    event: bytes
    """Its JSON text, sealed if there is a key."""
    is_outgoing: bool = False
    """Whether it goes to the sinks outside as well."""


class Appended(NamedTuple):
    """What came of events that were to be written."""

    keys: list[int]
    """The number of each; that of the first one for a duplicate."""
    are_new: list[bool]
    """Whether each is no duplicate."""
    dropped_count: int
    """How many for sinks had to go, because those have taken none for too long."""

    @property
    def new_count(self) -> int:
        """How many are no duplicates."""
        return sum(self.are_new)


def digest_of(source: str, event_id: str) -> bytes:
    """What tells one event from another."""
    named = f"{len(source)} {source}{event_id}".encode("utf-8", "surrogatepass")
    return sha256(named).digest()[:_DIGEST_SIZE_BYTES]


def type_hash_of(event_type: str) -> int:
    """A number by which events of a type are found, and perhaps some of another one."""
    digest = sha256(event_type.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def event_place(digest: bytes) -> bytes:
    """What a sealed event is bound to."""
    return b"cloud event " + digest


def checksum_of(received_ms: int, namespaces: str | None, digest: bytes, type_hash: int, event: bytes) -> int:
    """What proves a row of events; one for sinks has neither namespaces nor a type's hash."""
    return crc32(event, crc32(digest, crc32(f"{received_ms} {type_hash} {namespaces}".encode())))


def proven(row: Sequence[Any], seals: Seals) -> bytes | None:
    """The JSON text in a row of events; None if it is whole and there is no key for it. Raises NotOpened."""
    _, received_ms, namespaces, digest, type_hash, checksum, event = row
    if checksum_of(received_ms, namespaces, digest, type_hash, event) != checksum:
        raise NotOpened("does not match its checksum")
    return seals.looked_at(event, event_place(digest))


class EventsFile(SharedFile):
    """One connection to the events; it belongs to one thread. Every method raises StorageFailed or StorageFull."""

    def __init__(self, folder: Path, first_key: int) -> None:
        """`first_key`: a number before those of a new file."""
        super().__init__(folder / FILE_NAME, SCHEMA)
        self._first_key = first_key

    @property
    def journal_pages_max(self) -> int:
        """See SharedFile."""
        return limits.EVENTS_JOURNAL_PAGES_MAX

    @property
    def may_be_lost(self) -> bool:
        """See SharedFile: nothing depends on what is kept, and numbers go on."""
        return True

    def prepare(self, db: apsw.Connection) -> None:
        """See SharedFile."""
        db.execute(QUERIES["cache"]).fetchall()
        db.execute(QUERIES["deletes"]).fetchall()
        if not db.execute(QUERIES["has_numbers"]).get:
            db.execute(QUERIES["first_number"], (self._first_key,))

    # --- writing ---

    def append(self, rows: Sequence[EventRow], now_ms: int) -> Appended:
        """Writes events. They are durable when this returns.

        Raises AtCapacity where there is no room, because somebody has not come far enough for old ones to go.
        """
        return self.written(lambda db: self._append(db, rows, now_ms))

    def _append(self, db: apsw.Connection, rows: Sequence[EventRow], now_ms: int) -> Appended:
        size_sum = self._make_room(db, len(rows), sum(len(row.event) for row in rows))
        keys, are_new, outgoing = [], [], []
        insert, select = QUERIES["insert_event"], QUERIES["select_key"]
        for row in rows:
            digest, type_hash, namespaces, event, is_outgoing = row
            checksum = checksum_of(now_ms, namespaces, digest, type_hash, event)
            values = (digest, type_hash, now_ms, size_sum + len(event), namespaces, checksum, event)
            key = db.execute(insert, values).get
            are_new.append(key is not None)
            if key is None:
                key = db.execute(select, (digest,)).get
            else:
                size_sum += len(event)
                if is_outgoing:
                    outgoing.append(row)
            keys.append(int(key))
        return Appended(keys, are_new, _put_out(db, outgoing, now_ms) if outgoing else 0)

    def _make_room(self, db: apsw.Connection, count: int, size_bytes: int) -> int:
        """Has the oldest go until so many more may come; the bytes of all events up to the newest."""
        while (kept := _kept(db)) is not None:
            oldest, newest, before_bytes, up_to_bytes = kept
            # Numbers that were not used make it less than there might be, never more.
            has_room = newest - oldest + 1 + count <= limits.EVENTS_RETAINED_COUNT_MAX
            if has_room and up_to_bytes - before_bytes + size_bytes <= limits.EVENTS_RETAINED_SIZE_BYTES_MAX:
                return up_to_bytes
            # A little more than is needed, so that this is not for every one that comes.
            wanted = max(count, limits.EVENTS_PRUNED_PER_COMMIT_MAX // 16)
            if not _delete_oldest(db, _held_from(db), wanted):
                raise AtCapacity(
                    "no room for events: as many are kept as may be, and a worker or a schedule has yet to read them: "
                    "try again",
                    _RETRY_AFTER_S,
                )
        return 0

    def prune(self, received_before_ms: int, now_ms: int) -> int:
        """Has some of the oldest go that came before a moment; how many. Call again until it is 0."""
        return self.written(lambda db: self._prune(db, received_before_ms, now_ms))

    def _prune(self, db: apsw.Connection, received_before_ms: int, now_ms: int) -> int:
        count_max = limits.EVENTS_PRUNED_PER_COMMIT_MAX
        young = db.execute(QUERIES["first_young"], (received_before_ms, now_ms, count_max)).get
        up_to = _EVERYBODY_HAS_COME if young is None else int(young) - 1
        return _delete_oldest(db, min(up_to, _held_from(db)), count_max)

    def has_old(self, received_before_ms: int, now_ms: int) -> bool:
        """Whether `prune` would find any; looks at the oldest only."""

        def look(db: apsw.Connection) -> bool:
            kept = _kept(db)
            if kept is None or kept[0] > _held_from(db):
                return False
            return db.execute(QUERIES["first_young"], (received_before_ms, now_ms, 1)).get is None

        return self.tried(look)

    def reach(self, positions: Mapping[str, int | None]) -> None:
        """Notes how far followers have come; None: it follows no more."""

        def note(db: apsw.Connection) -> None:
            for name, key in positions.items():
                db.execute(QUERIES["leave"], (name,)) if key is None else db.execute(QUERIES["reach"], (name, key))

        self.written(note)

    # --- reading ---

    def after(self, key: int, count_max: int, decode: Decode) -> list[StoredEvent]:
        """Events after one, in their order: so many at most, or as many as a page may have of bytes."""
        return self.tried(lambda db: _page(read_each(db, QUERIES["select_after"], (key,)), count_max, decode))

    def retained(
        self,
        type_hash: int | None,
        after_key: int,
        up_to_key: int,
        count_max: int,
        decode: Decode,
    ) -> list[StoredEvent]:
        """The same up to one, of a type or of all."""
        name = "select_between" if type_hash is None else "select_of_type"
        parameters = (after_key, up_to_key) if type_hash is None else (type_hash, after_key, up_to_key)
        return self.tried(lambda db: _page(read_each(db, QUERIES[name], parameters), count_max, decode))

    def find(self, digest: bytes) -> Sequence[Any] | None:
        """The row of one event."""
        rows = self.tried(lambda db: read_all(db, QUERIES["select_event"], (digest,)))
        return rows[0] if rows else None

    def last_key(self) -> int:
        """The last number given."""
        return self.tried(lambda db: int(db.execute(QUERIES["last_key"]).get))

    def size(self) -> tuple[int, int]:
        """How many numbers the events that are kept span, and their bytes: at most so many there are."""

        def look(db: apsw.Connection) -> tuple[int, int]:
            kept = _kept(db)
            return (0, 0) if kept is None else (kept[1] - kept[0] + 1, kept[3] - kept[2])

        return self.tried(look)


def _kept(db: apsw.Connection) -> tuple[int, int, int, int] | None:
    """Numbers of the oldest and the newest event; the bytes of all before the one and up to the other."""
    oldest, newest = db.execute(QUERIES["oldest"]).get, db.execute(QUERIES["newest"]).get
    return None if oldest is None else (oldest[0], newest[0], oldest[1], newest[1])


def _held_from(db: apsw.Connection) -> int:
    """The last event that may go."""
    held = db.execute(QUERIES["held_from"]).get
    return _EVERYBODY_HAS_COME if held is None else int(held)


def _delete_oldest(db: apsw.Connection, up_to: int, count_max: int) -> int:
    db.execute(QUERIES["delete_oldest"], (up_to, count_max))
    return int(db.changes())


def _put_out(db: apsw.Connection, rows: Sequence[EventRow], now_ms: int) -> int:
    """Keeps events for the sinks; how many of the oldest had to go for them."""
    added_bytes = sum(len(row.event) for row in rows)
    dropped_count = 0
    while True:
        before_bytes, up_to_bytes = db.execute(QUERIES["outgoing_size"]).get
        if before_bytes is None or up_to_bytes - before_bytes + added_bytes <= limits.EVENT_SINKS_SIZE_BYTES_MAX:
            break
        db.execute(QUERIES["drop_outgoing"], (max(len(rows), limits.EVENTS_PRUNED_PER_COMMIT_MAX // 16),))
        dropped_count += db.changes()
    size_sum = up_to_bytes or 0
    for row in rows:
        size_sum += len(row.event)
        checksum = checksum_of(now_ms, None, row.digest, 0, row.event)
        db.execute(QUERIES["insert_outgoing"], (row.digest, now_ms, size_sum, checksum, row.event))
    return dropped_count


def _page(rows: Iterator[Sequence[Any]], count_max: int, decode: Decode) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    size_bytes = 0
    with closing(rows):  # type: ignore[type-var]
        for row in rows:
            event = decode(row)
            if event is None:
                continue
            found.append(event)
            size_bytes += len(row[-1])
            if len(found) >= count_max or size_bytes >= limits.EVENTS_PAGE_SIZE_BYTES_MAX:
                break
    return found
