"""Support: executions with all their events, as one state of the store on MongoDB, for `verify`.

Theory of operation: several are read at once: the executions, their events, and the executions again. Where the two
looks agree with the events between them, that is how it was. What was being written meanwhile is read again by itself,
until it settles.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING

from fastrunner.base import limits
from fastrunner.stigmer.store import Inspected
from fastrunner.stigmer.store.mongodb.database import Database
from fastrunner.stigmer.store.mongodb.documents import (
    FIRST,
    Document,
    event_key,
    events_of,
    execution_of,
    number_of,
    sequence_of,
)

__all__ = ["LOOKS_MAX", "LOOK_PAUSE_S", "inspect"]

LOOKS_MAX: Final = 50
"""How often what is being written is looked at before it is taken as it is."""
LOOK_PAUSE_S: Final = 0.1
"""Between two such looks."""
_FIELDS: Final = {"request": 0}
Rows = Sequence[tuple[int, bytes]]


async def inspect(database: Database, after: int) -> list[Inspected]:
    """The next executions after a number; none after the last. Raises PyMongoError."""
    found: list[Inspected] = []
    while not found and (heads := await _heads(database, after)):
        events = await _events(database, heads)
        ids = [head["_id"] for head in heads]
        again = {head["_id"]: head async for head in database.executions.find({"_id": {"$in": ids}}, _FIELDS)}
        for head in heads:
            rows = events[head["number"]]
            if _is_settled(head, rows, again.get(head["_id"])):
                found.append(Inspected(execution_of(head), rows))
            elif one := await _inspect_one(database, head["number"]):
                found.append(one)
        after = heads[-1]["number"]
    return found


async def _heads(database: Database, after: int) -> list[Document]:
    heads: list[Document] = []
    count = 0
    condition = {"number": {"$gt": after}, "is_expired": False}
    found = database.executions.find(condition, _FIELDS).sort("number", ASCENDING)
    async for head in found.limit(limits.STIGMER_INSPECTED_MAX):
        heads.append(head)
        count += head["stored_sequence"]
        if count >= limits.STIGMER_INSPECTED_EVENTS_MAX:
            break
    return heads


async def _events(database: Database, heads: Sequence[Document]) -> Mapping[int, list[tuple[int, bytes]]]:
    """Events by the numbers of their executions, and of others that are between."""
    events: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    first, last = heads[0]["number"], heads[-1]["number"]
    between = {"_id": {"$gt": event_key(first, 0), "$lte": event_key(last, FIRST)}}
    async for row in database.events.find(between).sort("_id"):
        events[number_of(row["_id"])].append((sequence_of(row["_id"]), row["message"]))
    return events


async def _inspect_one(database: Database, number: int) -> Inspected | None:
    """None if it is there no more."""
    condition = {"number": number, "is_expired": False}
    looks = 0
    while True:
        looks += 1
        head = await database.executions.find_one(condition, _FIELDS)
        if head is None:
            return None
        found = database.events.find(events_of(number)).sort("_id")
        rows = [(sequence_of(row["_id"]), row["message"]) async for row in found]
        again = await database.executions.find_one(condition, _FIELDS)
        if _is_settled(head, rows, again) or looks == LOOKS_MAX:
            return Inspected(execution_of(head), rows)
        await asyncio.sleep(LOOK_PAUSE_S)


def _is_settled(head: Document, rows: Rows, again: Document | None) -> bool:
    highest = max((sequence for sequence, _ in rows), default=0)
    return again == head and highest == head["stored_sequence"]
