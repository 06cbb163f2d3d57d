"""Support: one commit of events on MongoDB: executions that are not there, events, then what follows folded.

Theory of operation: whoever dies between two of these writes has acknowledged nothing, so the runner sends the events
again, and the second time goes on where the first one ended. If nobody does, whoever finds the note that was written
before does the rest: see settling. Others may write the same execution meanwhile. What is folded is written only where
the execution is as it was read, gap and all; who finds it changed reads and folds again, so of two that store different
events of one execution at the same time the later one sees both. An execution that is forgotten meanwhile is made anew,
with its events.

Rules: events are stored before they are folded, and what is folded is what is stored. What is acknowledged is what the
last look has seen.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.errors import StorageFailed
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.stigmer.store import Arrived, Standing
from fastrunner.stigmer.store.fold import fold, is_after_end
from fastrunner.stigmer.store.mongodb.counting import duplicates_in
from fastrunner.stigmer.store.mongodb.database import Database
from fastrunner.stigmer.store.mongodb.documents import (
    Document,
    event_key,
    events_of,
    number_of,
    reported,
    sequence_of,
    standing_fields,
    standing_of,
)
from fastrunner.stigmer.store.mongodb.forgetting import forget, forget_events

__all__ = ["Fate", "Taking"]

_ROUNDS_MAX: Final = 20
"""How often one is surprised by others before the runner is asked to send it again."""
_HEAD: Final = (
    "number", "is_expired", "stored_sequence", "gap_since_ms", "status", "last_sequence", "started_ms", "updated_ms",
    "ended_ms", "message", "error_json", "output_json",
)  # fmt: skip
Key = tuple[str, int]


@dataclass(slots=True)
class Fate:
    """What became of one execution's events."""

    acknowledged: int = 0
    """Up to which number all are there."""
    shown_before: int = 0
    """Up to which number it was shown before."""
    ended_as: str = ""
    """The status that it has ended with now."""
    after_end: list[int] = field(default_factory=list)
    """Numbers of events that follow the last one."""


@dataclass(slots=True)
class _Folding:
    """An execution while its events are folded."""

    standing: Standing
    highest: int
    """The highest number that is stored."""
    late: list[int] = field(default_factory=list)
    """Numbers of events that follow the last one."""

    def fold(self, event: WorkflowProgressEvent) -> None:
        """Its next event."""
        if is_after_end(self.standing):
            self.late.append(event.sequence_number)
        self.standing = fold(self.standing, event)

    def finish(self, stored: Iterable[tuple[int, bytes]]) -> tuple[Standing, int, list[int]]:
        """What it is with what is stored behind; the highest number, and those after the end."""
        for sequence, message in stored:
            self.highest = max(self.highest, sequence)
            if sequence == self.standing.last_sequence + 1:
                self.fold(WorkflowProgressEvent.FromString(message))
        return self.standing, self.highest, self.late


class Taking:
    """Some events on their way into the store."""

    def __init__(
        self, database: Database, events: Sequence[Arrived], now_ms: int, retention_ms: int,
        note: Callable[[Mapping[int, int]], Awaitable[object]] | None = None,
    ) -> None:  # fmt: skip
        """`note` keeps the numbers of the executions that it is about, with the numbers of their last events, before
        anything of them is stored; None: nothing is stored, only folded."""
        self._note = note
        self._lasts: dict[int, int] = {}
        """Up to which event something may be stored, by the numbers of executions."""
        self._database = database
        self._events = events
        self._now_ms = now_ms
        self._retention_ms = retention_ms
        self._arrived: dict[str, dict[int, WorkflowProgressEvent]] = {}
        self._numbers: dict[str, int] = {}
        self.fates: dict[str, Fate] = {}
        """By execution."""
        self.outcomes: dict[int, str] = {}
        """What became of events, by their place: `duplicate`, `changed`; else they are stored."""

    async def perform(self) -> None:
        """Does it. Raises PyMongoError, StorageFailed."""
        names = {each.event.workflow_execution_id: each.event.workflow_name for each in self._events}
        heads = await self._heads(names)
        self.fates = {execution_id: Fate(shown_before=head["last_sequence"]) for execution_id, head in heads.items()}
        await self._note_numbers()
        await self._insert()
        for _ in range(_ROUNDS_MAX):
            heads = await self._advance(heads)
            if not heads:
                return
            if lost := {each: names[each] for each, head in heads.items() if head["is_expired"]}:
                # They may have been stored after all else of it was removed: nobody would find them any more.
                await forget_events(self._database, [heads[each]["number"] for each in lost])
                heads |= await self._heads(lost)
                await self._note_numbers()
                await self._inserted(
                    [self._row(each) for each in self._events if each.event.workflow_execution_id in lost]
                )
        raise StorageFailed("others write the same executions at the same time, again and again: send it again")

    async def settle(self, lasts: Mapping[int, int]) -> list[int]:
        """Folds what is stored of executions, up to some events, and nobody may have folded; gives the numbers that no
        execution has any more. Raises PyMongoError, StorageFailed, DecodeError."""
        self._lasts = dict(lasts)
        found = self._database.executions.find({"number": {"$in": list(lasts)}}, _HEAD)
        heads = {head["_id"]: head async for head in found}
        there = {head["number"] for head in heads.values()}
        heads = {execution_id: head for execution_id, head in heads.items() if not head["is_expired"]}
        self._numbers = {execution_id: head["number"] for execution_id, head in heads.items()}
        self.fates = {execution_id: Fate(shown_before=head["last_sequence"]) for execution_id, head in heads.items()}
        for _ in range(_ROUNDS_MAX):
            heads = await self._advance(heads)
            for gone in [execution_id for execution_id, head in heads.items() if head["is_expired"]]:
                del heads[gone], self.fates[gone]
            if not heads:
                return [number for number in lasts if number not in there]
        raise StorageFailed("others write the same executions at the same time, again and again")

    async def _note_numbers(self) -> None:
        for each in self._events:
            number = self._numbers[each.event.workflow_execution_id]
            self._lasts[number] = max(each.event.sequence_number, self._lasts.get(number, 0))
        if self._note is not None:
            await self._note(self._lasts)

    # --- executions ---

    async def _heads(self, names: Mapping[str, str]) -> dict[str, Document]:
        """Executions as they stand; those that are not there are made."""
        for _ in range(_ROUNDS_MAX):
            heads = await self._look(list(names))
            expired = [execution_id for execution_id, head in heads.items() if head["is_expired"]]
            missing = [execution_id for execution_id in names if execution_id not in heads]
            if not expired and not missing:
                return heads
            if expired:
                await forget(self._database, expired)
            if missing:
                await self._make({each: names[each] for each in missing})
        raise StorageFailed("executions are made and forgotten at the same time, again and again: send it again")

    async def _look(self, execution_ids: Sequence[str]) -> dict[str, Document]:
        found = self._database.executions.find({"_id": {"$in": list(execution_ids)}}, _HEAD)
        heads = {head["_id"]: head async for head in found}
        self._numbers |= {execution_id: head["number"] for execution_id, head in heads.items()}
        return heads

    async def _make(self, names: Mapping[str, str]) -> None:
        first = await self._database.take_numbers(len(names))
        new = [reported(each, name, number, self._now_ms) for number, (each, name) in enumerate(names.items(), first)]
        try:
            await self._database.executions.insert_many(new, ordered=False)
        except BulkWriteError as error:
            # Another service has made it.
            duplicates_in(error)

    # --- events ---

    async def _insert(self) -> None:
        places = range(len(self._events))
        rows = [self._row(each) for each in self._events]
        there = await self._inserted(rows)
        messages = await self._stored([str(rows[place]["_id"]) for place in there])
        for place in there:
            # One that is there no more has been forgotten since, with its execution: see `perform`.
            kept = messages.get(str(rows[place]["_id"]), rows[place]["message"])
            self.outcomes[place] = "duplicate" if kept == rows[place]["message"] else "changed"
        for place in places:
            event = self._events[place].event
            if self.outcomes.get(place) != "changed":
                self._arrived.setdefault(event.workflow_execution_id, {})[event.sequence_number] = event
        changed = [self._events[place].event for place in there if self.outcomes[place] == "changed"]
        await self._violate([(each.workflow_execution_id, each.sequence_number) for each in changed], "changed")

    def _row(self, arrived: Arrived) -> Document:
        event = arrived.event
        key = event_key(self._numbers[event.workflow_execution_id], event.sequence_number)
        return {"_id": key, "message": arrived.message}

    async def _inserted(self, rows: Sequence[Document]) -> list[int]:
        """Inserts events; gives the places of those that are there already."""
        try:
            await self._database.events.insert_many(rows, ordered=False)
        except BulkWriteError as error:
            return duplicates_in(error)
        return []

    async def _stored(self, keys: Sequence[str]) -> dict[str, bytes]:
        if not keys:
            return {}
        found = self._database.events.find({"_id": {"$in": list(keys)}})
        return {row["_id"]: row["message"] async for row in found}

    async def _violate(self, keys: Sequence[Key], kind: str) -> None:
        updates = []
        for execution_id, sequence in keys:
            number = self._numbers[execution_id]
            what: Document = {"number": number, "execution_id": execution_id, "sequence": sequence, "kind": kind}
            what["seen_ms"] = self._now_ms
            # One after the end is folded once, whoever is surprised by others, or dies, in the middle of it.
            update = (
                {"$setOnInsert": {**what, "times": 1}}
                if kind == "after_end"
                else {"$inc": {"times": 1}, "$setOnInsert": what}
            )
            updates.append(UpdateOne({"_id": f"{event_key(number, sequence)}-{kind}"}, update, upsert=True))
        if updates:
            await self._database.violations.bulk_write(updates)

    # --- the fold ---

    async def _advance(self, heads: Mapping[str, Document]) -> dict[str, Document]:
        """Folds and writes what can be; gives the executions, as they stand now, that are to be looked at again."""
        updates = []
        expected: dict[str, int] = {}
        foldings = {execution_id: self._begin(execution_id, head) for execution_id, head in heads.items()}
        stored = await self._following(heads, foldings)
        for execution_id, head in heads.items():
            standing, stored_sequence, late = foldings[execution_id].finish(stored.get(head["number"], ()))
            expected[execution_id] = max(stored_sequence, head["stored_sequence"])
            update = self._update(head, standing, stored_sequence)
            if update is not None:
                updates.append(update)
            self.fates[execution_id].after_end = late
            # Before it is folded: afterwards nobody would look at it again.
            await self._violate([(execution_id, sequence) for sequence in late], "after_end")
        if updates:
            await self._database.executions.bulk_write(updates, ordered=False)
        return await self._look_again(heads, expected)

    async def _look_again(self, heads: Mapping[str, Document], expected: Mapping[str, int]) -> dict[str, Document]:
        """Notes what has become of executions; gives those that others have changed meanwhile, or that are gone."""
        again: dict[str, Document] = {}
        found = await self._look(list(heads))
        for execution_id, before in heads.items():
            head = found.get(execution_id)
            if head is None or head["is_expired"] or head["number"] != before["number"]:
                again[execution_id] = {**before, "is_expired": True}
                continue
            fate = self.fates[execution_id]
            fate.acknowledged = head["last_sequence"]
            if head["status"] in FINAL_STATUSES and not _has_ended(before) and head["last_sequence"]:
                fate.ended_as = head["status"]
            is_behind = head["stored_sequence"] < expected[execution_id]
            if is_behind or head["last_sequence"] < self._reaches(execution_id, head["last_sequence"]):
                again[execution_id] = head
        return again

    def _reaches(self, execution_id: str, last_sequence: int) -> int:
        """How far what has arrived leads on from a number without a gap."""
        arrived = self._arrived.get(execution_id, {})
        while last_sequence + 1 in arrived:
            last_sequence += 1
        return last_sequence

    def _begin(self, execution_id: str, head: Document) -> "_Folding":
        """An execution with those of its events that have arrived and follow."""
        arrived = self._arrived.get(execution_id, {})
        folding = _Folding(standing_of(head), max((head["stored_sequence"], *arrived)))
        while (event := arrived.get(folding.standing.last_sequence + 1)) is not None:
            folding.fold(event)
        return folding

    async def _following(
        self, heads: Mapping[str, Document], foldings: Mapping[str, "_Folding"]
    ) -> Mapping[int, list[tuple[int, bytes]]]:
        """Events that are stored behind those that were folded, of executions that may have some, by their numbers."""
        ranges = [
            events_of(heads[execution_id]["number"], folding.standing.last_sequence)
            for execution_id, folding in foldings.items()
            if max(folding.highest, self._lasts.get(heads[execution_id]["number"], 0)) > folding.standing.last_sequence
        ]
        stored: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        if ranges:
            async for row in self._database.events.find({"$or": ranges}).sort("_id"):
                stored[number_of(row["_id"])].append((sequence_of(row["_id"]), row["message"]))
        return stored

    def _update(self, head: Document, standing: Standing, stored_sequence: int) -> UpdateOne | None:
        """Written only if it is as it was read."""
        has_gap = stored_sequence > standing.last_sequence
        fields: Document = {
            "stored_sequence": stored_sequence,
            "gap_since_ms": (head["gap_since_ms"] or self._now_ms) if has_gap else 0,
        }
        if standing.last_sequence > head["last_sequence"]:
            fields |= standing_fields(standing)
            has_ended = standing.status in FINAL_STATUSES
            fields["expires_ms"] = self._now_ms + self._retention_ms if has_ended else 0
            if standing.status != head["status"]:
                fields["is_due"] = True
        elif stored_sequence <= head["stored_sequence"]:
            return None
        as_read = {name: head[name] for name in ("_id", "number", "last_sequence", "status", "stored_sequence")}
        return UpdateOne({**as_read, "is_expired": False}, {"$set": fields})


def _has_ended(head: Mapping[str, Any]) -> bool:
    return bool(head["last_sequence"]) and head["status"] in FINAL_STATUSES
