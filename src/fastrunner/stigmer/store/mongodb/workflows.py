"""Support: versions of workflows on MongoDB. A version is one document, written once."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from fastrunner.errors import AlreadyRegistered, Damaged, UnknownWorkflow
from fastrunner.registry.versions import rank_of
from fastrunner.stigmer.store import Workflow, WorkflowKey
from fastrunner.stigmer.store.mongodb.database import Database
from fastrunner.stigmer.store.mongodb.documents import Document, key_of

__all__ = ["add_workflow", "find_workflow", "page_workflows"]

_HIGHEST_FIRST: Final = (("rank", DESCENDING), ("version", DESCENDING))


async def add_workflow(database: Database, key: WorkflowKey, document: str, now_ms: int) -> bool:
    """See Store."""
    names = (key.namespace, key.name, key.version)
    digest = sha256(document.encode()).digest()
    new = {
        "_id": key_of(names),
        "namespace": key.namespace,
        "name": key.name,
        "version": key.version,
        # In hexadecimal: bytes are sorted by their length first.
        "rank": rank_of(key.version).hex(),
        "created_ms": now_ms,
        "hash": digest,
        "document": document,
    }
    try:
        await database.workflows.insert_one(new)
    except DuplicateKeyError:
        there = await database.workflows.find_one({"_id": new["_id"]}, ("hash",))
        if there is None or there["hash"] != digest:
            raise AlreadyRegistered(*names) from None
        return False
    return True


async def find_workflow(database: Database, key: WorkflowKey) -> Workflow:
    """See Store."""
    latest = await _latest(database, key.namespace, key.name)
    if latest is None:
        raise UnknownWorkflow(key.namespace, key.name, key.version)
    version = key.version or latest
    found = await database.workflows.find_one({"_id": key_of((key.namespace, key.name, version))})
    if found is None:
        raise UnknownWorkflow(key.namespace, key.name, key.version)
    if sha256(found["document"].encode("utf-8", "replace")).digest() != found["hash"]:
        raise Damaged(f"the document of {key.namespace}/{key.name}:{version} is damaged: restore a backup")
    return _workflow(found, version == latest, found["document"])


async def page_workflows(
    database: Database,
    namespace: str,
    name: str,
    within: frozenset[str] | None,
    after: WorkflowKey | None,
    count_max: int,
) -> Sequence[Workflow]:
    """See Store."""
    conditions: list[Document] = [{"namespace": namespace}] if namespace else []
    if name:
        conditions.append({"name": name})
    if within is not None:
        conditions.append({"namespace": {"$in": sorted(within)}})
    if after is not None:
        conditions.append(_beyond(after))
    order = [("namespace", ASCENDING), ("name", ASCENDING), *_HIGHEST_FIRST]
    found = database.workflows.find({"$and": conditions} if conditions else {}, {"document": 0}).sort(order)
    rows = [row async for row in found.limit(count_max)]
    latest: dict[tuple[str, str], str | None] = {}
    if after is not None:
        latest[after.namespace, after.name] = await _latest(database, after.namespace, after.name)
    for row in rows:
        latest.setdefault((row["namespace"], row["name"]), row["version"])
    return [_workflow(row, latest[row["namespace"], row["name"]] == row["version"]) for row in rows]


async def _latest(database: Database, namespace: str, name: str) -> str | None:
    found = await database.workflows.find_one(
        {"namespace": namespace, "name": name}, ("version",), sort=list(_HIGHEST_FIRST)
    )
    return None if found is None else str(found["version"])


def _beyond(after: WorkflowKey) -> Document:
    """What comes after a version in the order of lists."""
    same: Document = {"namespace": after.namespace}
    named: Document = {**same, "name": after.name}
    rank = rank_of(after.version).hex()
    return {
        "$or": [
            {"namespace": {"$gt": after.namespace}},
            {**same, "name": {"$gt": after.name}},
            {**named, "rank": {"$lt": rank}},
            {**named, "rank": rank, "version": {"$lt": after.version}},
        ]
    }


def _workflow(row: Mapping[str, Any], is_latest: bool, document: str = "") -> Workflow:
    key = WorkflowKey(row["namespace"], row["name"], row["version"])
    return Workflow(key, row["created_ms"], is_latest, document)
