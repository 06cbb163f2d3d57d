"""Support: executions that are forgotten on MongoDB: marked, then their events, then they themselves.

Rules: whoever is marked is not there for anybody any more; what a death leaves of it, whoever comes next removes. The
document goes last, with the counter (see counting): it is due neither when it is marked, nor before its events are
gone, for without it nobody would know their number.
"""

from collections.abc import Sequence

from fastrunner.stigmer.store.mongodb.counting import count_due
from fastrunner.stigmer.store.mongodb.database import Database
from fastrunner.stigmer.store.mongodb.documents import Document, events_of

__all__ = ["forget", "forget_events", "mark"]


async def mark(database: Database, execution_ids: Sequence[str], which: Document) -> None:
    """Marks those that a condition is true of. Raises PyMongoError."""
    those = {**which, "_id": {"$in": list(execution_ids)}, "is_expired": False}
    await database.executions.update_many(those, {"$set": {"is_expired": True, "is_due": False}})


async def forget(database: Database, execution_ids: Sequence[str]) -> None:
    """Removes all that there is of executions that are marked. Raises PyMongoError."""
    those = {"_id": {"$in": list(execution_ids)}, "is_expired": True}
    numbers = [document["number"] async for document in database.executions.find(those, ("number",))]
    await forget_events(database, numbers)
    marked = {"number": {"$in": numbers}, "is_expired": True}
    await database.executions.update_many(marked, {"$set": {"is_due": True}})
    while await database.executions.find_one(marked, ("_id",)) is not None:
        await count_due(database)


async def forget_events(database: Database, numbers: Sequence[int]) -> None:
    """Removes what executions with these numbers have said; nobody else ever has one of them. Raises PyMongoError."""
    for number in numbers:
        await database.events.delete_many(events_of(number))
    await database.violations.delete_many({"number": {"$in": list(numbers)}})
