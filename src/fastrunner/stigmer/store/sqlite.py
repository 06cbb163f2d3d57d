"""Support: the store on SQLite: `stigmer.db` in a folder, written by one service, one thread writing and one reading.

Rules: an event, what it changes of its execution and the counter it moves are one transaction, so nothing is to be
reconciled. What is kept proves itself: documents by their hash, executions by their events (`verify`).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from heapq import nlargest
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import orjson

from fastrunner.base.clock import wall_ms
from fastrunner.engine.embedded.store.connection import read_all
from fastrunner.engine.embedded.store.shared_file import SharedFile
from fastrunner.engine.embedded.store.statements import statements_in
from fastrunner.errors import AlreadyRegistered, Damaged, IdTaken, UnknownExecution, UnknownWorkflow
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.registry.versions import rank_of
from fastrunner.stigmer.store import (
    REPORTED,
    Arrived,
    Drift,
    EventsPage,
    Execution,
    Filter,
    Inspected,
    NewExecution,
    Refusal,
    Silent,
    Standing,
    Taken,
    Unlaunched,
    Violation,
    Workflow,
    WorkflowKey,
    error_of,
)
from fastrunner.stigmer.store.taking import Taking, move_counter
from fastrunner.stigmer.store.writer import FileWriter

__all__ = ["FILE_NAME", "SqliteStore"]

FILE_NAME: Final = "stigmer.db"

T = TypeVar("T")


def _sql(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


_QUERIES: Final[Mapping[str, str]] = statements_in(_sql("queries"))
_SCHEMA: Final = (_sql("0001-tables"), _sql("0002-groups"))
_COLUMNS: Final = _QUERIES["execution_columns"]
_FIRST: Final = 2**63 - 1
"""Above every number of an execution."""


class SqliteStore:
    """See Store. Made and used on one loop."""

    def __init__(self, folder: Path, retention_s: float) -> None:
        """`retention_s`: how long after its end an execution is kept, in seconds."""
        self._retention_ms = int(retention_s * 1000)
        self._writer = FileWriter(
            SharedFile(folder / FILE_NAME, _SCHEMA), (_QUERIES["savepoint"], _QUERIES["release"], _QUERIES["undo"])
        )
        self._file = SharedFile(folder / FILE_NAME, _SCHEMA)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stigmer-read")

    @property
    def waiting_events(self) -> int:
        """Events that wait to be kept."""
        return self._writer.waiting_count

    async def open(self) -> None:
        """See Store."""
        await self._reading(lambda _: None)

    # --- writing ---

    async def take(self, events: Sequence[Arrived]) -> Taken:
        """See Store."""
        size_bytes = sum(len(each.message) for each in events)
        taking = Taking(_QUERIES, events, wall_ms(), self._retention_ms)
        return await self._writer.write(taking.perform, len(events), size_bytes)

    async def record(self, execution: NewExecution) -> bool:
        """See Store."""
        return await self._writer.write(lambda db: _record(db, execution), 1, len(execution.request))

    async def launched(self, execution_id: str, refusal: Refusal | None, now_ms: int) -> None:
        """See Store."""
        expires_ms = now_ms + self._retention_ms
        if refusal is None:
            await self._writer.write(lambda db: db.execute(_QUERIES["set_launched"], (execution_id,)).fetchall())
        else:
            await self._writer.write(lambda db: _refuse(db, execution_id, refusal, now_ms, expires_ms))

    async def lose(self, execution_id: str, why: Refusal, now_ms: int) -> bool:
        """See Store."""
        expires_ms = now_ms + self._retention_ms
        return await self._writer.write(lambda db: _lose(db, execution_id, why, now_ms, expires_ms))

    async def add_workflow(self, key: WorkflowKey, document: str, now_ms: int) -> bool:
        """See Store."""
        return await self._writer.write(lambda db: _add_workflow(db, key, document, now_ms), 1, len(document))

    async def expire(self, now_ms: int, count_max: int) -> int:
        """See Store."""
        return await self._writer.write(lambda db: _expire(db, now_ms, count_max))

    # --- reading ---

    async def unlaunched(self, after: int, count_max: int) -> Sequence[Unlaunched]:
        """See Store."""
        rows = await self._read("select_unlaunched", (after, count_max))
        return [Unlaunched(*row) for row in rows]

    async def silent(self, before_ms: int, after: int, count_max: int) -> Sequence[Silent]:
        """See Store."""
        return [Silent(*row) for row in await self._read("select_silent", (before_ms, after, count_max))]

    async def find(self, execution_id: str) -> Execution:
        """See Store."""
        rows = await self._read("select_execution", (execution_id,))
        if not rows:
            raise UnknownExecution(execution_id)
        return _execution(rows[0])

    async def page(self, which: Filter, before: int, count_max: int) -> Sequence[Execution]:
        """See Store."""
        conditions, parameters = _conditions(which)
        parameters |= {"before": before or _FIRST, "count_max": count_max}
        if which.is_within_status:
            return [_execution(row) for row in await self._read("list_executions", parameters, conditions)]
        return await self._reading(lambda db: _page(db, conditions, parameters))

    async def counts(self, which: Filter) -> Mapping[str, int]:
        """See Store."""
        conditions, parameters = _conditions(which)
        return dict(await self._read("count_executions", parameters, conditions))

    async def events_after(self, execution_id: str, after: int, count_max: int, size_bytes_max: int) -> EventsPage:
        """See Store."""
        return await self._reading(lambda db: _events_after(db, execution_id, after, count_max, size_bytes_max))

    async def oldest_gap_ms(self) -> int:
        """See Store."""
        return (await self._read("oldest_gap"))[0][0] or 0

    async def find_workflow(self, key: WorkflowKey) -> Workflow:
        """See Store."""
        name = "select_workflow" if key.version else "select_latest_workflow"
        names = (key.namespace, key.name, key.version) if key.version else (key.namespace, key.name)
        rows = await self._read(name, names)
        if not rows:
            raise UnknownWorkflow(key.namespace, key.name, key.version)
        version, created_ms, digest, document, is_latest = rows[0]
        if sha256(document.encode("utf-8", "replace")).digest() != digest:
            raise Damaged(f"the document of {key.namespace}/{key.name}:{version} is damaged: restore a backup")
        return Workflow(WorkflowKey(key.namespace, key.name, version), created_ms, bool(is_latest), document)

    async def page_workflows(
        self, namespace: str, name: str, within: frozenset[str] | None, after: WorkflowKey | None, count_max: int
    ) -> Sequence[Workflow]:
        """See Store."""
        parameters = {
            "namespace": namespace,
            "name": name,
            "within": None if within is None else _json(sorted(within)),
            "after_namespace": after.namespace if after else "",
            "after_name": after.name if after else "",
            "after_rank": rank_of(after.version) if after else b"",
            "after_version": after.version if after else "",
            "count_max": count_max,
        }
        rows = await self._read("list_workflows", parameters)
        return [Workflow(WorkflowKey(*names), created_ms, bool(latest)) for *names, created_ms, latest in rows]

    async def inspect(self, after: int) -> Sequence[Inspected]:
        """See Store."""
        return await self._reading(lambda db: _inspect(db, after))

    async def inspect_counters(self) -> Sequence[Drift]:
        """See Store."""
        rows = await self._read("inspect_counters")
        return [Drift((namespace, name, version, status), *sums) for namespace, name, version, status, *sums in rows]

    async def inspect_violations(self) -> Sequence[Violation]:
        """See Store."""
        return [Violation(*row) for row in await self._read("inspect_violations")]

    async def inspect_strays(self) -> Mapping[str, int]:
        """See Store."""
        return dict(await self._read("inspect_strays"))

    async def close(self) -> None:
        """See Store."""
        await self._writer.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    async def _read(self, name: str, parameters: Any = (), conditions: str = "") -> list[Any]:
        statement = _QUERIES[name].replace("{columns}", _COLUMNS).replace("{conditions}", conditions)
        return await self._reading(lambda db: read_all(db, statement, parameters))

    async def _reading(self, action: Callable[[apsw.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._file.tried(action))


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _conditions(which: Filter) -> tuple[str, dict[str, Any]]:
    """What a filter adds to a query: only what it asks for, so that an index serves it."""
    parameters: dict[str, Any] = {
        name: value for name in ("status", "namespace", "name", "version") if (value := getattr(which, name))
    }
    if which.within is not None and len(which.within) == 1 and not which.namespace:
        [parameters["namespace"]] = which.within
    elif which.within is not None:
        parameters["within"] = _json(sorted(which.within))
    return "".join(f" {_QUERIES[f'only_{name}']}" for name in parameters), parameters


def _execution(row: Any) -> Execution:
    number, execution_id, namespace, name, version, labels_json, created_ms, launch, *rest = row
    status, last_sequence, stored_sequence, gap_since_ms, *folded = rest
    return Execution(
        number=number,
        id=execution_id,
        namespace=namespace,
        name=name,
        version=version,
        labels=orjson.loads(labels_json),
        created_ms=created_ms,
        launch=launch,
        standing=Standing(status, last_sequence, *folded),
        stored_sequence=stored_sequence,
        gap_since_ms=gap_since_ms,
    )


def _record(db: apsw.Connection, execution: NewExecution) -> bool:
    parameters = {
        "id": execution.id,
        "namespace": execution.namespace,
        "name": execution.name,
        "version": execution.version,
        "labels_json": _json(dict(execution.labels)),
        "created_ms": execution.created_ms,
        "asked_hash": execution.asked_hash,
        "request": execution.request,
    }
    group = (execution.namespace, execution.name, execution.version)
    rows = read_all(db, _QUERIES["select_asked"], (execution.id,))
    if not rows:
        db.execute(_QUERIES["insert_started"], parameters)
        move_counter(db, _QUERIES, (*group, "pending"), 1)
        return True
    asked_hash, launch = rows[0]
    if launch != REPORTED:
        if asked_hash != execution.asked_hash:
            raise IdTaken(execution.id)
        return False
    # The runner tells whether it is the same: it has the request.
    [(*before, status, _)] = read_all(db, _QUERIES["select_group"], (execution.id,))
    db.execute(_QUERIES["adopt_reported"], {key: value for key, value in parameters.items() if key != "created_ms"})
    move_counter(db, _QUERIES, (*before, status), -1)
    move_counter(db, _QUERIES, (*group, status), 1)
    return True


def _refuse(db: apsw.Connection, execution_id: str, refusal: Refusal, now_ms: int, expires_ms: int) -> None:
    rows = read_all(db, _QUERIES["select_group"], (execution_id,))
    if not rows:
        return
    *group, status, last_sequence = rows[0]
    if last_sequence:
        db.execute(_QUERIES["set_refused_later"], (execution_id,))
        return
    db.execute(_QUERIES["set_refused"], (execution_id, refusal.message, _json(error_of(refusal)), now_ms, expires_ms))
    if db.changes():
        move_counter(db, _QUERIES, (*group, status), -1)
        move_counter(db, _QUERIES, (*group, "failed"), 1)


def _lose(db: apsw.Connection, execution_id: str, why: Refusal, now_ms: int, expires_ms: int) -> bool:
    rows = read_all(db, _QUERIES["select_group"], (execution_id,))
    if not rows:
        return False
    *group, status, _ = rows[0]
    db.execute(_QUERIES["set_lost"], (execution_id, why.message, _json(error_of(why)), now_ms, expires_ms))
    if not db.changes():
        return False
    move_counter(db, _QUERIES, (*group, status), -1)
    move_counter(db, _QUERIES, (*group, "failed"), 1)
    return True


def _add_workflow(db: apsw.Connection, key: WorkflowKey, document: str, now_ms: int) -> bool:
    names = (key.namespace, key.name, key.version)
    digest = sha256(document.encode()).digest()
    rows = read_all(db, _QUERIES["select_workflow_hash"], names)
    if rows:
        if rows[0][0] != digest:
            raise AlreadyRegistered(*names)
        return False
    db.execute(_QUERIES["insert_workflow"], (*names, rank_of(key.version), now_ms, digest, document))
    return True


def _expire(db: apsw.Connection, now_ms: int, count_max: int) -> int:
    rows = read_all(db, _QUERIES["select_expired"], (now_ms, count_max))
    for execution_id, *group in rows:
        for name in ("delete_events", "delete_violations", "delete_execution"):
            db.execute(_QUERIES[name], (execution_id,))
        move_counter(db, _QUERIES, tuple(group), -1)
    return len(rows)


def _page(db: apsw.Connection, conditions: str, parameters: Mapping[str, Any]) -> list[Execution]:
    """A page of what is in some groups. One of so many rows is of no more groups: those with the newest ones."""
    before, count_max = parameters["before"], parameters["count_max"]
    db.execute(_QUERIES["begin_reading"])
    try:
        groups = read_all(db, _QUERIES["list_groups"].replace("{conditions}", conditions), parameters)
        found: list[int] = []
        for group in groups:
            found += (number for (number,) in read_all(db, _QUERIES["list_group"], (*group, before, count_max)))
        numbers = _json(nlargest(count_max, found))
        rows = read_all(db, _QUERIES["list_numbers"].replace("{columns}", _COLUMNS), (numbers,))
        return [_execution(row) for row in rows]
    finally:
        db.execute(_QUERIES["end_reading"])


def _events_after(
    db: apsw.Connection, execution_id: str, after: int, count_max: int, size_bytes_max: int
) -> EventsPage:
    rows = read_all(db, _QUERIES["select_progress"], (execution_id,))
    if not rows:
        raise UnknownExecution(execution_id)
    last_sequence, status = rows[0]
    messages: list[bytes] = []
    size_bytes = 0
    if after < last_sequence:
        for (message,) in db.execute(_QUERIES["select_events"], (execution_id, after, count_max)):
            size_bytes += len(message)
            if messages and size_bytes > size_bytes_max:
                break
            messages.append(message)
    # More may have come between the two looks; whoever asks for what is not there yet is not told that it is.
    shown = max(last_sequence, after + len(messages)) if messages else last_sequence
    return EventsPage(messages, shown, status in FINAL_STATUSES)


def _inspect(db: apsw.Connection, after: int) -> Sequence[Inspected]:
    db.execute(_QUERIES["begin_reading"])
    try:
        rows = read_all(db, _QUERIES["inspect_execution"].replace("{columns}", _COLUMNS), (after,))
        if not rows:
            return []
        execution = _execution(rows[0])
        return [Inspected(execution, read_all(db, _QUERIES["select_following"], (execution.id, -(2**63))))]
    finally:
        db.execute(_QUERIES["end_reading"])
