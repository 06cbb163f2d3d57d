"""Support: counters of executions by workflow and status, moved once for each change, whoever dies.

    execution changes: {status, is_due} in one write          what it is counted under stays: `counted`
    plan               batch n: [{execution, from, to}, ...]  one write, of the one document of all plans
    perform            counters, executions, plan: none       each write says which batch it belongs to

Theory of operation: the change and the note that it is to be counted are one document, so neither is there alone. Of
several services one writes the next plan (the number of the batch has to be the one before); the others perform it,
too, if they see it, and so does whoever comes after a death. A counter takes part in batch n only where it has not seen
n, an execution likewise: done again, also much later, it changes nothing. Batches follow each other: the next plan is
written when everything of the one before is done.

Rule: an execution that is to be forgotten is moved to nowhere, and its document deleted then.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo import DeleteOne, UpdateOne
from pymongo.errors import BulkWriteError

from fastrunner.base import limits
from fastrunner.stigmer.store.mongodb.database import Database
from fastrunner.stigmer.store.mongodb.documents import Document, group_of, key_of

__all__ = ["DUPLICATE", "count_due", "duplicates_in"]

DUPLICATE: Final = 11000
"""The code of a key that is there already."""
_PLANNED: Final = ("number", "namespace", "name", "version", "status", "counted", "is_expired")


async def count_due(database: Database) -> int:
    """Moves the counters for some of the executions that are due; how many. Raises PyMongoError."""
    state = await database.service.find_one({"_id": "moves"})
    assert state is not None, "it is there since the store was opened"
    if state["plan"] is not None:
        await _perform(database, state["batch"], state["plan"])
        return len(state["plan"])
    due = database.executions.find({"is_due": True}, _PLANNED)
    plan = [_move(document) async for document in due.limit(limits.STIGMER_MOVES_MAX)]
    if not plan:
        return 0
    batch = state["batch"] + 1
    planned = await database.service.update_one(
        {"_id": "moves", "batch": state["batch"], "plan": None}, {"$set": {"batch": batch, "plan": plan}}
    )
    if planned.matched_count:
        await _perform(database, batch, plan)
    return len(plan)


def _move(document: Mapping[str, Any]) -> Document:
    towards = None if document["is_expired"] else group_of(document)
    # By its number as well: somebody who is late must not take another one of the same id for it.
    which = {"_id": document["_id"], "number": document["number"]}
    return {"execution": which, "from": document["counted"], "to": towards}


async def _perform(database: Database, batch: int, plan: Sequence[Document]) -> None:
    await _move_counters(database, batch, plan)
    await _note(database, batch, plan)
    await database.service.update_one({"_id": "moves", "batch": batch}, {"$set": {"plan": None}})


async def _move_counters(database: Database, batch: int, plan: Sequence[Document]) -> None:
    sums: dict[tuple[str, ...], int] = defaultdict(int)
    for move in plan:
        for end, by in (("from", -1), ("to", 1)):
            if move[end] is not None:
                sums[tuple(move[end])] += by
    updates = [
        UpdateOne(
            {"_id": key_of(group), "batch": {"$lt": batch}},
            {
                "$inc": {"executions": by},
                "$set": {"batch": batch},
                "$setOnInsert": dict(zip(("namespace", "name", "version", "status"), group, strict=True)),
            },
            upsert=True,
        )
        for group, by in sums.items()
        if by
    ]
    if updates:
        try:
            await database.counters.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            # It is there, and has seen the batch: so it does not match, and is not made anew.
            duplicates_in(error)


async def _note(database: Database, batch: int, plan: Sequence[Document]) -> None:
    """Each is counted as planned, and due no more unless it has changed meanwhile."""
    done: list[UpdateOne | DeleteOne] = []
    changed: list[UpdateOne] = []
    for move in plan:
        unseen = {**move["execution"], "counted_in": {"$lt": batch}}
        if move["to"] is None:
            done.append(DeleteOne({**unseen, "is_expired": True}))
            continue
        as_planned = dict(zip(("namespace", "name", "version", "status"), move["to"], strict=True))
        counted = {"counted": move["to"], "counted_in": batch}
        done.append(UpdateOne({**unseen, **as_planned, "is_expired": False}, {"$set": {**counted, "is_due": False}}))
        changed.append(UpdateOne(unseen, {"$set": counted}))
    found = await database.executions.bulk_write(done, ordered=False)
    if found.matched_count + found.deleted_count < len(done) and changed:
        await database.executions.bulk_write(changed, ordered=False)


def duplicates_in(error: BulkWriteError) -> list[int]:
    """Places of the writes of a bulk that met a key which is there. Raises the error if others failed, too."""
    found = (error.details or {}).get("writeErrors", [])
    if (error.details or {}).get("writeConcernErrors") or any(each["code"] != DUPLICATE for each in found):
        raise error
    return [int(each["index"]) for each in found]
