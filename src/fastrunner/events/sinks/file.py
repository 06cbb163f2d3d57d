"""Stage 3, journal: what sinks have not taken, in the events' file, for the one process that sends it.

Rules: as of the events' file. Positions are noted after sending, so what is sent between a note and a crash is sent
again. What all sinks have taken is deleted with the note of it.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import orjson

from fastrunner.base import limits
from fastrunner.engine.embedded.store.connection import read_all, read_each
from fastrunner.engine.embedded.store.seals import NotOpened, Seals
from fastrunner.engine.embedded.store.shared_file import SharedFile
from fastrunner.events.file import FILE_NAME, QUERIES, SCHEMA, checksum_of, event_place

__all__ = ["Outgoing", "OutgoingFile"]


class Outgoing(NamedTuple):
    """An event for sinks."""

    position: int
    """Its place among them."""
    size_bytes: int
    """As JSON text."""
    event: dict[str, Any] | None
    """In CloudEvents' JSON format; None for one that is damaged."""


class OutgoingFile(SharedFile):
    """One connection; it belongs to one thread. Every method raises StorageFailed or StorageFull."""

    def __init__(self, folder: Path, seals: Seals) -> None:
        super().__init__(folder / FILE_NAME, SCHEMA)
        self._seals = seals

    @property
    def may_be_lost(self) -> bool:
        """See SharedFile, and EventsFile."""
        return True

    def begin(self, names: list[str]) -> dict[str, int]:
        """How far each of the sinks has come that there are now. A new one begins behind what there is."""

        def note(db: apsw.Connection) -> dict[str, int]:
            db.execute(QUERIES["forget_sinks"], (orjson.dumps(names).decode(),))
            known = dict(read_all(db, QUERIES["sink_positions"]))
            last = int(db.execute(QUERIES["outgoing_last"]).get or 0)
            for name in names:
                if name not in known:
                    db.execute(QUERIES["advance_sink"], (name, last))
            return {name: int(known.get(name, last)) for name in names}

        return self.written(note)

    def advance(self, positions: Mapping[str, int]) -> None:
        """Notes how far sinks have come."""

        def note(db: apsw.Connection) -> None:
            for name, position in positions.items():
                db.execute(QUERIES["advance_sink"], (name, position))
            db.execute(QUERIES["taken_by_all"])

        self.written(note)

    def expire(self, before_ms: int) -> int:
        """Gives up some that were emitted before a moment; how many."""

        def delete(db: apsw.Connection) -> int:
            db.execute(QUERIES["expire_outgoing"], (before_ms, limits.EVENTS_PRUNED_PER_COMMIT_MAX))
            return int(db.changes())

        return self.written(delete)

    def oldest_ms(self) -> int | None:
        """When the oldest was emitted that some sink has not taken."""
        oldest_ms: int | None = self.tried(lambda db: db.execute(QUERIES["outgoing_oldest"]).get)
        return oldest_ms

    def after(self, position: int, count_max: int) -> list[Outgoing]:
        """Events after a position: so many at most, or as many as a page may have of bytes."""
        return self.tried(lambda db: self._page(db, position, count_max))

    def _page(self, db: apsw.Connection, position: int, count_max: int) -> list[Outgoing]:
        found: list[Outgoing] = []
        size_bytes = 0
        with closing(read_each(db, QUERIES["outgoing_after"], (position,))) as rows:
            for at, emitted_ms, digest, checksum, event in rows:
                found.append(Outgoing(at, len(event), self._opened(emitted_ms, digest, checksum, event)))
                size_bytes += len(event)
                if len(found) >= count_max or size_bytes >= limits.EVENTS_PAGE_SIZE_BYTES_MAX:
                    break
        return found

    def _opened(self, emitted_ms: int, digest: bytes, checksum: int, event: bytes) -> dict[str, Any] | None:
        if checksum_of(emitted_ms, None, digest, 0, event) != checksum:
            return None
        try:
            opened: dict[str, Any] = orjson.loads(self._seals.opened(event, event_place(digest)))
        except NotOpened:
            return None
        return opened
