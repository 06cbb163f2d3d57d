"""Support: Store on MongoDB: see the package's head for its rules."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.errors import IdTaken, StorageFailed, TooLarge, UnknownExecution
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.stigmer.ending import ended
from fastrunner.stigmer.store import (
    ACCEPTED,
    RECORDED,
    REFUSED,
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
    Taken,
    Told,
    Unlaunched,
    Violation,
    Workflow,
    WorkflowKey,
    error_of,
)
from fastrunner.stigmer.store.mongodb.counting import count_due
from fastrunner.stigmer.store.mongodb.database import Database, failing
from fastrunner.stigmer.store.mongodb.documents import (
    FIRST,
    Document,
    condition_of,
    events_of,
    execution_of,
    group_of,
    number_of,
    recorded,
    reported,
)
from fastrunner.stigmer.store.mongodb.forgetting import forget, mark
from fastrunner.stigmer.store.mongodb.inspecting import LOOK_PAUSE_S, LOOKS_MAX, inspect
from fastrunner.stigmer.store.mongodb.settling import Lane, Settler
from fastrunner.stigmer.store.mongodb.taking import Taking
from fastrunner.stigmer.store.mongodb.workflows import add_workflow, find_workflow, page_workflows
from fastrunner.stigmer.store.writer import GroupWriter

__all__ = ["MongoStore"]

_log = logging.getLogger(__name__)
_THERE: Final = {"is_expired": False}
_SILENT: Final[Document] = {
    "status": "pending",
    "launch": {"$in": [ACCEPTED, REPORTED]},
    "stored_sequence": 0,
    **_THERE,
}
"""Of what the runner should have, and has said nothing."""
_GATHER_S: Final = 0.05
"""How long changes are gathered, to be counted together."""


class _Takes(GroupWriter):
    """Reports of many callers as few commits."""

    def __init__(self, database: Database, retention_ms: int) -> None:
        super().__init__()
        self._database = database
        self._retention_ms = retention_ms
        self._lane = Lane(database)

    @failing
    async def commit(self, works: Sequence[Any]) -> Sequence[Any]:
        """See GroupWriter."""
        events = [event for work in works for event in work]
        taking = Taking(self._database, events, wall_ms(), self._retention_ms, self._lane.note)
        try:
            await taking.perform()
        except BaseException:
            self._lane.leave()
            raise
        outcomes: list[Taken] = []
        place = 0
        told: set[str] = set()
        for work in works:
            outcomes.append(_taken(taking, work, place, told))
            place += len(work)
        return outcomes

    async def clear(self) -> None:
        """Removes the note of what is whole, if nothing is being written. Raises PyMongoError."""
        if not self.waiting_count:
            await self._lane.clear()


class MongoStore:
    """See Store. Made and used on one loop."""

    def __init__(self, url: str, retention_s: float) -> None:
        """`retention_s`: how long after its end an execution is kept, in seconds. Raises ValueError for a URL that is
        none."""
        self._database = Database(url)
        self._retention_ms = int(retention_s * 1000)
        self._takes = _Takes(self._database, self._retention_ms)
        self._settler = Settler(self._database, self._retention_ms)
        self._due = asyncio.Event()
        self._counting: asyncio.Task[None] | None = None

    @property
    def waiting_events(self) -> int:
        """See Store."""
        return self._takes.waiting_count

    @failing
    async def open(self) -> None:
        """See Store."""
        await self._database.open()
        self._counting = asyncio.create_task(self._count())

    async def close(self) -> None:
        """See Store."""
        await self._takes.close()
        if self._counting is not None:
            await ended(self._counting)
        await self._database.close()

    # --- writing ---

    async def take(self, events: Sequence[Arrived]) -> Taken:
        """See Store. Raises TooLarge, having kept none, for an event that a document cannot hold."""
        for each in events:
            _check_size(len(each.message), limits.STIGMER_DOCUMENT_EVENT_SIZE_BYTES_MAX, "an event")
        size_bytes = sum(len(each.message) for each in events)
        taken: Taken = await self._takes.submit(events, len(events), size_bytes)
        self._due.set()
        return taken

    @failing
    async def record(self, execution: NewExecution) -> bool:
        """See Store. Raises TooLarge for a request that a document cannot hold."""
        _check_size(len(execution.request), limits.STIGMER_DOCUMENT_REQUEST_SIZE_BYTES_MAX, "the execution")
        self._due.set()
        for _ in range(LOOKS_MAX):
            number = await self._database.take_numbers(1)
            new = reported(execution.id, execution.name, number, execution.created_ms) | recorded(execution)
            try:
                await self._database.executions.insert_one({**new, "updated_ms": execution.created_ms})
            except DuplicateKeyError:
                is_new = await self._record_over(execution)
                if is_new is None:
                    continue
                return is_new
            return True
        raise StorageFailed(f"others write execution {execution.id!r} at the same time, again and again: try again")

    async def _record_over(self, execution: NewExecution) -> bool | None:
        """Records an execution whose id is there; None if it is there no more."""
        which: Document = {"_id": execution.id}
        there = await self._database.executions.find_one(which, ("asked_hash", "launch", "is_expired"))
        if there is None or there["is_expired"]:
            await forget(self._database, [execution.id])
            return None
        if there["launch"] != REPORTED:
            if there["asked_hash"] != execution.asked_hash:
                raise IdTaken(execution.id)
            return False
        # The runner tells whether it is the same: it has the request.
        adopted = await self._database.executions.update_one(
            {**which, **_THERE, "launch": REPORTED}, {"$set": {**recorded(execution), "is_due": True}}
        )
        return True if adopted.matched_count else None

    @failing
    async def launched(self, execution_id: str, refusal: Refusal | None, now_ms: int) -> None:
        """See Store."""
        waiting: Document = {"_id": execution_id, "launch": RECORDED}
        if refusal is None:
            # Its request is not needed any more, only the hash, by which a repetition is known.
            await self._database.executions.update_one(waiting, {"$set": {"launch": "accepted", "request": b""}})
            return
        found = await self._database.executions.update_one(
            {**waiting, "last_sequence": 0}, {"$set": self._failed(refusal, now_ms)}
        )
        if not found.matched_count:
            await self._database.executions.update_one(waiting, {"$set": {"launch": REFUSED, "request": b""}})
        self._due.set()

    def _failed(self, why: Refusal, now_ms: int) -> Document:
        """What becomes of an execution that nobody executes."""
        return {
            "launch": REFUSED,
            "request": b"",
            "status": "failed",
            "message": why.message,
            "error_json": orjson.dumps(error_of(why)).decode(),
            "updated_ms": now_ms,
            "ended_ms": now_ms,
            "expires_ms": now_ms + self._retention_ms,
            "is_due": True,
        }

    @failing
    async def lose(self, execution_id: str, why: Refusal, now_ms: int) -> bool:
        """See Store."""
        # Whoever takes an event of it at the same time finds it changed, and folds anew.
        found = await self._database.executions.update_one(
            {"_id": execution_id, **_SILENT}, {"$set": self._failed(why, now_ms)}
        )
        self._due.set()
        return bool(found.matched_count)

    @failing
    async def add_workflow(self, key: WorkflowKey, document: str, now_ms: int) -> bool:
        """See Store."""
        return await add_workflow(self._database, key, document, now_ms)

    @failing
    async def expire(self, now_ms: int, count_max: int) -> int:
        """See Store."""
        over: Document = {"expires_ms": {"$gt": 0, "$lte": now_ms}}
        found = self._database.executions.find(over, ("_id",)).sort("expires_ms", ASCENDING).limit(count_max)
        ids = [document["_id"] async for document in found]
        if not ids:
            return 0
        await mark(self._database, ids, over)
        await forget(self._database, ids)
        return len(ids)

    async def _count(self) -> None:
        """Moves counters, whenever something is due, also what others have left."""
        while True:
            self._due.clear()
            try:
                await self.reconcile()
            except StorageFailed as error:
                _log.warning("counters are late: %s", error.message)
            with contextlib.suppress(TimeoutError):
                # Not by `wait_for`, which loses a cancellation that comes together with the event.
                async with asyncio.timeout(limits.STIGMER_COUNTING_INTERVAL_S):
                    await self._due.wait()
            # What changes now is counted together.
            await asyncio.sleep(_GATHER_S)

    @failing
    async def reconcile(self) -> None:
        """Moves every counter that is due, and removes the note of what is whole. Raises StorageFailed."""
        while await count_due(self._database):
            pass
        await self._takes.clear()

    @failing
    async def settle(self) -> Taken:
        """See SharedStore."""
        settled = await self._settler.settle()
        if settled.told:
            self._due.set()
        return settled

    @failing
    async def settle_all(self) -> None:
        """See SharedStore."""
        await self._settler.settle_all()

    # --- reading ---

    @failing
    async def unlaunched(self, after: int, count_max: int) -> Sequence[Unlaunched]:
        """See Store."""
        waiting = {"launch": RECORDED, "number": {"$gt": after}, **_THERE}
        found = self._database.executions.find(waiting, ("number", "request")).sort("number", ASCENDING)
        return [Unlaunched(each["number"], each["_id"], each["request"]) async for each in found.limit(count_max)]

    @failing
    async def silent(self, before_ms: int, after: int, count_max: int) -> Sequence[Silent]:
        """See Store."""
        those = {**_SILENT, "number": {"$gt": after}, "created_ms": {"$lt": before_ms}}
        found = self._database.executions.find(those, ("number",)).sort("number", ASCENDING)
        return [Silent(each["number"], each["_id"]) async for each in found.limit(count_max)]

    @failing
    async def find(self, execution_id: str) -> Execution:
        """See Store."""
        found = await self._database.executions.find_one({"_id": execution_id, **_THERE}, {"request": 0})
        if found is None:
            raise UnknownExecution(execution_id)
        return execution_of(found)

    @failing
    async def page(self, which: Filter, before: int, count_max: int) -> Sequence[Execution]:
        """See Store."""
        condition = {**condition_of(which), "number": {"$lt": before or FIRST}, **_THERE}
        found = self._database.executions.find(condition, {"request": 0}).sort("number", DESCENDING)
        return [execution_of(document) async for document in found.limit(count_max)]

    @failing
    async def counts(self, which: Filter) -> Mapping[str, int]:
        """See Store. What has changed in the last moments may not be counted yet."""
        sums: dict[str, int] = defaultdict(int)
        async for counter in self._database.counters.find(condition_of(which)):
            sums[counter["status"]] += counter["executions"]
        return {status: count for status, count in sums.items() if count}

    @failing
    async def events_after(self, execution_id: str, after: int, count_max: int, size_bytes_max: int) -> EventsPage:
        """See Store."""
        head = await self._database.executions.find_one(
            {"_id": execution_id, **_THERE}, ("number", "last_sequence", "status")
        )
        if head is None:
            raise UnknownExecution(execution_id)
        messages: list[bytes] = []
        size_bytes = 0
        if after < head["last_sequence"]:
            found = self._database.events.find(events_of(head["number"], after, head["last_sequence"])).sort("_id")
            async for row in found.limit(count_max):
                size_bytes += len(row["message"])
                if messages and size_bytes > size_bytes_max:
                    break
                messages.append(row["message"])
        return EventsPage(messages, head["last_sequence"], head["status"] in FINAL_STATUSES)

    @failing
    async def last_sequences(self, execution_ids: Sequence[str]) -> Mapping[str, int]:
        """See SharedStore."""
        those = {"_id": {"$in": list(execution_ids)}, **_THERE}
        found = self._database.executions.find(those, ("last_sequence",))
        return {document["_id"]: document["last_sequence"] async for document in found}

    @failing
    async def session_key(self, new: bytes) -> bytes:
        """See SharedStore."""
        await self._database.seed({"_id": "sessions", "key": new})
        found = await self._database.service.find_one({"_id": "sessions"})
        return bytes(found["key"]) if found is not None else new

    @failing
    async def oldest_gap_ms(self) -> int:
        """See Store."""
        found = self._database.executions.find({"gap_since_ms": {"$gt": 0}}, ("gap_since_ms",))
        async for document in found.sort("gap_since_ms", ASCENDING).limit(1):
            return int(document["gap_since_ms"])
        return 0

    @failing
    async def find_workflow(self, key: WorkflowKey) -> Workflow:
        """See Store."""
        return await find_workflow(self._database, key)

    @failing
    async def page_workflows(
        self, namespace: str, name: str, within: frozenset[str] | None, after: WorkflowKey | None, count_max: int
    ) -> Sequence[Workflow]:
        """See Store."""
        return await page_workflows(self._database, namespace, name, within, after, count_max)

    # --- inspecting ---

    @failing
    async def inspect(self, after: int) -> Sequence[Inspected]:
        """See Store. What is being written settles."""
        return await inspect(self._database, after)

    @failing
    async def inspect_counters(self) -> Sequence[Drift]:
        """See Store. Moves what is due first, as a service that runs does."""
        for _ in range(LOOKS_MAX):
            await self.reconcile()
            before = await self._database.service.find_one({"_id": "moves"})
            sums = await self._sums()
            after = await self._database.service.find_one({"_id": "moves"})
            if before == after and before is not None and before["plan"] is None:
                break
            await asyncio.sleep(LOOK_PAUSE_S)
        return [Drift(group, *both) for group, both in sorted(sums.items()) if both[0] != both[1]]  # type: ignore[arg-type]

    async def _sums(self) -> dict[tuple[str, ...], list[int]]:
        """What counters say, and what is there, by group. What is due, or will be once it is forgotten, counts as what
        it is counted under."""
        sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
        async for counter in self._database.counters.find():
            sums[tuple(group_of(counter))][0] += counter["executions"]
        fields = ("namespace", "name", "version", "status", "counted", "is_due", "is_expired")
        async for document in self._database.executions.find({}, fields):
            group = document["counted"] if document["is_due"] or document["is_expired"] else group_of(document)
            if group is not None:
                sums[tuple(group)][1] += 1
        return sums

    @failing
    async def inspect_violations(self) -> Sequence[Violation]:
        """See Store."""
        found = self._database.violations.find().sort([("execution_id", ASCENDING), ("sequence", ASCENDING)])
        return [Violation(each["execution_id"], each["sequence"], each["kind"], each["times"]) async for each in found]

    @failing
    async def inspect_strays(self) -> Mapping[str, int]:
        """See Store."""
        strays: dict[str, int] = defaultdict(int)
        numbers = {each["number"] async for each in self._database.executions.find({}, ("number",))}
        async for row in self._database.events.find({}, ("_id",)):
            if number_of(row["_id"]) not in numbers:
                strays[await self._whose(row["_id"])] += 1
        return strays

    async def _whose(self, key: str) -> str:
        """The execution of an event that has none, as far as it can be read."""
        row = await self._database.events.find_one({"_id": key})
        return WorkflowProgressEvent.FromString(row["message"]).workflow_execution_id if row else ""


def _check_size(size_bytes: int, size_bytes_max: int, what: str) -> None:
    if size_bytes > size_bytes_max:
        raise TooLarge(f"{what} has {size_bytes} bytes: a document of MongoDB has room for {size_bytes_max}")


def _taken(taking: Taking, work: Sequence[Arrived], place: int, told: set[str]) -> Taken:
    """What became of one caller's events; `told` are executions that an earlier one is told of."""
    taken = Taken()
    outcomes = [taking.outcomes.get(number) for number in range(place, place + len(work))]
    taken.stored = outcomes.count(None)
    taken.duplicates = outcomes.count("duplicate")
    if changed := outcomes.count("changed"):
        taken.violations["changed"] = changed
    for execution_id in {each.event.workflow_execution_id: None for each in work}:
        fate = taking.fates[execution_id]
        taken.acknowledged[execution_id] = fate.acknowledged
        if execution_id in told:
            continue
        told.add(execution_id)
        if fate.acknowledged > fate.shown_before:
            taken.told.append(Told(execution_id, fate.acknowledged))
        if fate.ended_as:
            taken.ended[fate.ended_as] = taken.ended.get(fate.ended_as, 0) + 1
        if fate.after_end:
            taken.violations["after_end"] = taken.violations.get("after_end", 0) + len(fate.after_end)
    return taken
