"""Support: the documents of the store on MongoDB.

    events      {_id: "<number of the execution>-<sequence>", message}  16 hexadecimal digits each
    executions  {_id: execution, number, ..., the fold, counted, counted_in, is_due, is_expired}
    commits     {_id: lane of a service, turn, about: [[number of an execution, its highest sequence], ...]}
    counters    {_id: group as JSON, namespace, name, version, status, executions, batch}
    violations  {_id: event's key and kind, execution_id, sequence, kind, seen_ms, times}
    workflows   {_id: names as JSON, namespace, name, version, rank, created_ms, hash, document}
    service     {_id: "numbers", value}  {_id: "moves", batch, plan}  {_id: "schema", version}  {_id: "sessions", key}

Rules: events belong to an execution's number, which no other one has ever had: whoever removes what is to be forgotten,
however late, cannot touch those of a later one of the same id. Text that clients choose is never the name of a field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import orjson

from fastrunner.stigmer.store import REPORTED, Execution, Filter, NewExecution, Standing

__all__ = [
    "FIRST",
    "Document",
    "Group",
    "condition_of",
    "event_key",
    "events_of",
    "execution_of",
    "group_of",
    "key_of",
    "number_of",
    "recorded",
    "reported",
    "sequence_of",
    "standing_fields",
    "standing_of",
]

Document = dict[str, Any]
Group = Sequence[str]
"""Namespace, name, version, status: what an execution is counted under."""
FIRST: Final = 2**63 - 1
"""Above every number of an execution, and of an event."""
_STANDING: Final = tuple(field.name for field in fields(Standing))


def event_key(number: int, sequence: int) -> str:
    """The key of an event, by the number of its execution."""
    return f"{number:016x}-{sequence:016x}"


def number_of(key: str) -> int:
    """The number of the execution whose event has a key."""
    return int(key[:16], 16)


def sequence_of(key: str) -> int:
    """The number of the event with a key."""
    return int(key[17:], 16)


def events_of(number: int, after: int = 0, last: int = FIRST) -> Document:
    """The condition for events of an execution with numbers from `after` + 1 to `last`."""
    return {"_id": {"$gt": event_key(number, after), "$lte": event_key(number, last)}}


def key_of(names: Sequence[str]) -> str:
    """One text for several, none of which needs to keep to any alphabet."""
    return orjson.dumps(list(names)).decode()


def group_of(document: Mapping[str, Any]) -> list[str]:
    """What an execution belongs under."""
    return [document["namespace"], document["name"], document["version"], document["status"]]


def standing_of(document: Mapping[str, Any]) -> Standing:
    """What the events of an execution said when it was written. One that was refused has failed without an event:
    what its events say begins anew."""
    if not document["last_sequence"]:
        return Standing()
    return Standing(*(document[name] for name in _STANDING))


def standing_fields(standing: Standing) -> Document:
    """The same, to be written."""
    return {name: getattr(standing, name) for name in _STANDING}


def execution_of(document: Mapping[str, Any]) -> Execution:
    """As it is told."""
    return Execution(
        number=document["number"],
        id=document["_id"],
        namespace=document["namespace"],
        name=document["name"],
        version=document["version"],
        labels=orjson.loads(document["labels_json"]),
        created_ms=document["created_ms"],
        launch=document["launch"],
        standing=Standing(*(document[name] for name in _STANDING)),
        stored_sequence=document["stored_sequence"],
        gap_since_ms=document["gap_since_ms"],
    )


def recorded(execution: NewExecution) -> Document:
    """What an execution that is to be started adds to one that nobody knows anything of."""
    return {
        "namespace": execution.namespace,
        "name": execution.name,
        "version": execution.version,
        "labels_json": orjson.dumps(dict(execution.labels)).decode(),
        "launch": "recorded",
        "asked_hash": execution.asked_hash,
        "request": execution.request,
    }


def reported(execution_id: str, name: str, number: int, now_ms: int) -> Document:
    """An execution of which there is nothing yet but its id and its workflow's name."""
    return {
        "_id": execution_id,
        "number": number,
        "namespace": "",
        "name": name,
        "version": "",
        "labels_json": "{}",
        "created_ms": now_ms,
        "launch": REPORTED,
        "asked_hash": b"",
        "request": b"",
        **standing_fields(Standing()),
        "stored_sequence": 0,
        "gap_since_ms": 0,
        "expires_ms": 0,
        "counted": None,
        "counted_in": 0,
        "is_due": True,
        "is_expired": False,
    }


def condition_of(which: Filter) -> Document:
    """What a filter asks of executions and of counters, so that an index serves it."""
    condition: Document = {
        name: value for name in ("status", "namespace", "name", "version") if (value := getattr(which, name))
    }
    if which.within is not None and not which.namespace:
        within = sorted(which.within)
        condition["namespace"] = within[0] if len(within) == 1 else {"$in": within}
    elif which.within is not None and which.namespace not in which.within:
        condition["namespace"] = {"$in": []}
    return condition
