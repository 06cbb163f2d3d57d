"""Support: one `take` of the store on SQLite: events into rows, what follows folded, counters moved.

Rules: statements are few, not one for each event: each gives the interpreter's lock away, and a busy loop does not give
it back soon. What is folded is what is stored, so an event whose bytes came differently the second time counts as it
came first.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import apsw
import orjson

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.engine.embedded.store.connection import read_all
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.stigmer.store import Arrived, Standing, Taken, Told
from fastrunner.stigmer.store.fold import fold, is_after_end

__all__ = ["Taking", "move_counter"]

_CHUNKS: Final = (64, 8, 1)
"""Rows of one statement: few sizes, so that SQLite knows their statements already."""
Group = tuple[str, ...]
"""Namespace, name, version, status: what an execution is counted under."""


def move_counter(db: apsw.Connection, queries: Mapping[str, str], group: Group, by: int) -> None:
    """Counts executions of a group more or fewer."""
    db.execute(queries["move_counter"], (*group, by))


@dataclass(slots=True)
class _Head:
    """An execution before and while its events are folded."""

    names: tuple[str, str, str]
    counted_as: str
    """The status that a counter has it under; empty if none has."""
    standing: Standing
    stored_sequence: int
    gap_since_ms: int
    arrived: dict[int, WorkflowProgressEvent] = field(default_factory=dict)


class Taking:
    """Some events on their way into the file."""

    def __init__(self, queries: Mapping[str, str], events: Sequence[Arrived], now_ms: int, retention_ms: int) -> None:
        self._queries = queries
        self._events = events
        self._now_ms = now_ms
        self._retention_ms = retention_ms
        self._taken = Taken()
        self._moves: dict[Group, int] = defaultdict(int)

    def perform(self, db: apsw.Connection) -> Taken:
        """Does it, within a transaction of the caller's."""
        differing = self._insert(db)
        heads = self._heads(db)
        for number, each in enumerate(self._events):
            if number not in differing:
                heads[each.event.workflow_execution_id].arrived[each.event.sequence_number] = each.event
        for execution_id, head in heads.items():
            self._advance(db, execution_id, head)
        for group, by in self._moves.items():
            if by:
                move_counter(db, self._queries, group, by)
        return self._taken

    # --- rows ---

    def _insert(self, db: apsw.Connection) -> set[int]:
        """Inserts what is new; gives the places, among the events, of those that are there with other bytes."""
        differing: set[int] = set()
        for first, count in _chunks(len(self._events)):
            events = self._events[first : first + count]
            rows = ", ".join([self._queries["insert_events_row"]] * count)
            values = [
                value
                for each in events
                for value in (each.event.workflow_execution_id, each.event.sequence_number, each.message)
            ]
            db.execute(self._queries["insert_events"].format(rows=rows), values)
            new = db.changes()
            found = [] if new == count else self._differing(db, events)
            self._taken.stored += new
            self._taken.duplicates += count - new - len(found)
            differing.update(first + place for place in found)
        return differing

    def _differing(self, db: apsw.Connection, events: Sequence[Arrived]) -> list[int]:
        found = []
        for place, each in enumerate(events):
            key = (each.event.workflow_execution_id, each.event.sequence_number)
            [(message,)] = read_all(db, self._queries["select_event"], key)
            if message != each.message:
                found.append(place)
                self._violate(db, *key, "changed")
        return found

    def _violate(self, db: apsw.Connection, execution_id: str, sequence: int, kind: str) -> None:
        db.execute(self._queries["insert_violation"], (execution_id, sequence, kind, self._now_ms))
        self._taken.violations[kind] = self._taken.violations.get(kind, 0) + 1

    # --- executions ---

    def _heads(self, db: apsw.Connection) -> dict[str, _Head]:
        names = {each.event.workflow_execution_id: each.event.workflow_name for each in self._events}
        ids = orjson.dumps(list(names)).decode()
        heads: dict[str, _Head] = {}
        for row in read_all(db, self._queries["select_standings"], (ids,)):
            execution_id, namespace, name, version, status, last_sequence, stored_sequence, gap_since_ms, *rest = row
            # One that was refused has failed without an event: what its events say begins anew.
            standing = Standing(status, last_sequence, *rest) if last_sequence else Standing()
            heads[execution_id] = _Head((namespace, name, version), status, standing, stored_sequence, gap_since_ms)
        for execution_id, name in names.items():
            if execution_id not in heads:
                db.execute(self._queries["insert_reported"], (execution_id, name, self._now_ms))
                heads[execution_id] = _Head(("", name, ""), "", Standing(), 0, 0)
        return heads

    def _advance(self, db: apsw.Connection, execution_id: str, head: _Head) -> None:
        before = head.standing
        highest = max((head.stored_sequence, *head.arrived))
        while (event := head.arrived.get(head.standing.last_sequence + 1)) is not None:
            self._fold(db, head, event)
        if highest > head.standing.last_sequence:
            self._fold_stored(db, execution_id, head)
        has_gap = highest > head.standing.last_sequence
        gap_since_ms = (head.gap_since_ms or self._now_ms) if has_gap else 0
        if head.standing.last_sequence > before.last_sequence:
            self._keep(db, execution_id, head.standing, highest, gap_since_ms)
            self._taken.told.append(Told(execution_id, head.standing.last_sequence))
            if head.standing.status in FINAL_STATUSES and before.status not in FINAL_STATUSES:
                ended = self._taken.ended
                ended[head.standing.status] = ended.get(head.standing.status, 0) + 1
        elif highest > head.stored_sequence:
            db.execute(self._queries["update_gap"], (execution_id, highest, gap_since_ms))
        self._taken.acknowledged[execution_id] = head.standing.last_sequence
        status = head.standing.status if head.standing.last_sequence else head.counted_as or "pending"
        if status != head.counted_as:
            self._moves[*head.names, status] += 1
            if head.counted_as:
                self._moves[*head.names, head.counted_as] -= 1

    def _fold_stored(self, db: apsw.Connection, execution_id: str, head: _Head) -> None:
        """Folds what was stored behind a gap that is none any more."""
        rows = db.execute(self._queries["select_following"], (execution_id, head.standing.last_sequence))
        messages = []
        for place, (sequence, message) in enumerate(rows, head.standing.last_sequence + 1):
            if sequence != place:
                break
            messages.append(message)
        for message in messages:
            self._fold(db, head, WorkflowProgressEvent.FromString(message))

    def _fold(self, db: apsw.Connection, head: _Head, event: WorkflowProgressEvent) -> None:
        if is_after_end(head.standing):
            self._violate(db, event.workflow_execution_id, event.sequence_number, "after_end")
        head.standing = fold(head.standing, event)

    def _keep(
        self, db: apsw.Connection, execution_id: str, standing: Standing, stored_sequence: int, gap_since_ms: int
    ) -> None:
        has_ended = standing.status in FINAL_STATUSES
        db.execute(
            self._queries["update_standing"],
            {
                "id": execution_id,
                "status": standing.status,
                "last_sequence": standing.last_sequence,
                "stored_sequence": stored_sequence,
                "gap_since_ms": gap_since_ms,
                "started_ms": standing.started_ms,
                "updated_ms": standing.updated_ms,
                "ended_ms": standing.ended_ms,
                "expires_ms": self._now_ms + self._retention_ms if has_ended else 0,
                "message": standing.message,
                "error_json": standing.error_json,
                "output_json": standing.output_json,
            },
        )


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    """First place and size of each chunk of so many rows."""
    first = 0
    for size in _CHUNKS:
        while count - first >= size:
            yield first, size
            first += size
