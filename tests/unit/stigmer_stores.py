"""Support: events, executions and stores for tests of what the Stigmer Service keeps."""

from typing import Any

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base.clock import wall_ms
from fastrunner.stigmer.store import Arrived, Filter, NewExecution, Store
from fastrunner.stigmer.store.mongodb.store import MongoStore
from fastrunner.stigmer.verify import Verified, verify

RETENTION_S = 3600.0
"""How long what has ended is kept."""


def arrived(execution_id: str, sequence: int, event_type: str = "task_started", **more: Any) -> Arrived:
    """An event of an execution."""
    more.setdefault("timestamp_ms", 1_000 + sequence)
    event = WorkflowProgressEvent(
        workflow_execution_id=execution_id,
        workflow_name="order",
        sequence_number=sequence,
        event_type=event_type,
        status="running",
        **more,
    )
    return Arrived(event, event.SerializeToString())


def whole(execution_id: str, tasks: int = 2, end: str = "workflow_completed", **more: Any) -> list[Arrived]:
    """All events of an execution."""
    types = ["workflow_started", "workflow_validating", "workflow_validated"]
    types += ["task_started", "task_completed"] * tasks
    events = [arrived(execution_id, number, event_type) for number, event_type in enumerate(types, 1)]
    return [*events, arrived(execution_id, len(types) + 1, end, **more)]


def new(execution_id: str, *, asked: bytes = b"asked", **more: Any) -> NewExecution:
    """An execution that is to be started."""
    fields: dict[str, Any] = {"namespace": "shop", "name": "order", "version": "1.0.0", "labels": {"a": "b"}, **more}
    return NewExecution(
        id=execution_id, created_ms=wall_ms(), asked_hash=asked, request=execution_id.encode(), **fields
    )


async def findings(store: Store) -> list[str]:
    """What `verify` finds, in short."""
    return [f"{each.kind} {each.about}" async for each in verify(store, Verified())]


async def counted(store: Store, **which: Any) -> dict[str, int]:
    """Executions by status, when everything is counted."""
    if isinstance(store, MongoStore):
        await store.reconcile()
    return dict(await store.counts(Filter(**which)))


async def opened(url: str, *, counts: bool = True, retention_s: float = RETENTION_S) -> MongoStore:
    """A store on a database; without its counting in the background, unless that is wanted."""
    store = MongoStore(url, retention_s)
    if counts:
        await store.open()
    else:
        await store._database.open()
    return store
