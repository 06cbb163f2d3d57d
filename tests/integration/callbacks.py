"""Support: an outbox on SQLite and receivers with a will of their own, for tests of the callback pipeline."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import grpc
from prometheus_client import CollectorRegistry

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowProgressEvent
from fastrunner.callback import CallbackPipeline
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EventsListener, UnacknowledgedEvents
from fastrunner.stigmer.receiver import Receiver, ReceiverOptions, serve_receiver
from fastrunner.tracing.span import Span

TOKEN = "callback-secret"


class SqliteOutbox:
    """What the engine promises: rows committed before they are announced, acknowledgements with the next commit."""

    def __init__(self, path: Path) -> None:
        self._db = apsw.Connection(str(path))
        self._db.execute(
            "pragma synchronous = off;"
            "create table if not exists events (id text, first integer, last integer, messages blob,"
            " primary key (id, first)) without rowid;"
            "create table if not exists acknowledged (id text primary key, sequence integer) without rowid;"
        )
        self._listener: EventsListener | None = None
        self._pending: dict[str, int] = {}
        self.announcing = True
        self.acknowledgements: list[tuple[str, int]] = []
        self.given_up: list[tuple[str, int]] = []

    def listen(self, listener: EventsListener) -> None:
        self._listener = listener

    def commit(self, rows: list[UnacknowledgedEvents]) -> None:
        """Stores rows, then announces them."""
        values = [(row.execution_id, row.first_sequence, row.last_sequence, row.messages) for row in rows]
        with self._db:
            self._db.executemany("insert into events values (?, ?, ?, ?)", values)
            self._db.executemany(
                "insert into acknowledged values (?, ?)"
                " on conflict do update set sequence = max(sequence, excluded.sequence)",
                list(self._pending.items()),
            )
        self._pending.clear()
        for row in rows:
            if self._listener is not None and self.announcing:
                self._listener(row)

    async def unacknowledged(self, after: tuple[str, int] | None, rows_max: int) -> list[UnacknowledgedEvents]:
        await asyncio.sleep(0)
        found = self._db.execute(
            "select e.id, first, last, messages from events e left join acknowledged a on a.id = e.id"
            " where (e.id, first) > (?, ?) and last > coalesce(sequence, 0) order by e.id, first limit ?",
            (*(after or ("", 0)), rows_max),
        )
        return [UnacknowledgedEvents(*row) for row in found]

    async def unacknowledged_of(
        self, execution_id: str, from_sequence: int, size_bytes_max: int
    ) -> list[UnacknowledgedEvents]:
        await asyncio.sleep(0)
        found = self._db.execute(
            "select * from events where id = ? and last >= ? order by first", (execution_id, from_sequence)
        )
        rows: list[UnacknowledgedEvents] = []
        size = 0
        for row in found:
            if rows and size + len(row[3]) > size_bytes_max:
                break
            rows.append(UnacknowledgedEvents(*row))
            size += len(row[3])
        return rows

    def acknowledge(self, execution_id: str, sequence: int) -> None:
        self.acknowledgements.append((execution_id, sequence))
        self._pending[execution_id] = max(sequence, self._pending.get(execution_id, 0))

    def keep_span(self, execution_id: str, span: Span) -> None:
        """Nothing is traced here."""

    def give_up(self, execution_id: str, sequence: int) -> None:
        self.given_up.append((execution_id, sequence))
        self._pending[execution_id] = max(sequence, self._pending.get(execution_id, 0))

    @property
    def unacknowledged_count(self) -> int:
        """Events no receiver has."""
        self.commit([])
        found = self._db.execute(
            "select coalesce(sum(last - max(first - 1, coalesce(sequence, 0))), 0) from events e"
            " left join acknowledged a on a.id = e.id where last > coalesce(sequence, 0)"
        )
        return int(found.get)

    def close(self) -> None:
        self._db.close()


def row(
    execution_id: str, first: int, last: int, *, ends: bool = False, timestamp_ms: int = 0, filler: str = ""
) -> UnacknowledgedEvents:
    """One commit's events of an execution; the last one is terminal if it `ends`."""
    events = [
        WorkflowProgressEvent(
            workflow_execution_id=execution_id,
            event_type="workflow_completed" if ends and sequence == last else "task_completed",
            status="running",
            message=filler,
            timestamp_ms=timestamp_ms or time.time_ns() // 1_000_000,
            sequence_number=sequence,
        )
        for sequence in range(first, last + 1)
    ]
    return UnacknowledgedEvents(
        execution_id, first, last, ReportProgressBatchRequest(events=events).SerializeToString()
    )


def rows_of(execution_id: str, rows: int, events_per_row: int) -> list[UnacknowledgedEvents]:
    """A whole execution, in several commits."""
    return [
        row(execution_id, 1 + index * events_per_row, (index + 1) * events_per_row, ends=index == rows - 1)
        for index in range(rows)
    ]


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> None:
    """Waits for a condition, with a deadline."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def pipeline_to(
    port: int, outbox: SqliteOutbox, metrics: Metrics | None = None, *, token: str | None = TOKEN,
    queue_events_max: int = 50_000, **settings: Any,
) -> AsyncIterator[CallbackPipeline]:  # fmt: skip
    """A started pipeline that reports to a port of this machine."""
    settings = {"stigmer_service_endpoint": f"127.0.0.1:{port}", "stigmer_service_use_tls": False, **settings}
    config = load_config(stigmer_service_api_key=token, **settings)
    metrics = metrics or Metrics(CollectorRegistry())
    pipeline = CallbackPipeline(config, outbox, metrics, queue_events_max=queue_events_max)
    await pipeline.start()
    try:
        yield pipeline
    finally:
        await pipeline.drain(2.0)


@asynccontextmanager
async def receiving(receiver: Receiver | None = None, **changes: Any) -> AsyncIterator[tuple[Receiver, int]]:
    """A served receiver and its port; options as changed, or those of the given receiver's own."""
    options = ReceiverOptions(**{"port": 0, "token": TOKEN, **changes})
    receiver = receiver or Receiver(options)
    async with serve_receiver(receiver, options) as port:
        yield receiver, port


class ScriptedReceiver(Receiver):
    """Answers calls with the codes of a script, one after the other, then as usual; counts calls at once."""

    def __init__(self, script: list[grpc.StatusCode], **changes: Any) -> None:
        super().__init__(ReceiverOptions(**{"token": TOKEN, **changes}))
        self.script = script
        self.answers = 0
        self.at_once = self.at_once_max = 0

    async def _step(self, context: Any) -> None:
        self.answers += 1
        if self.script:
            await context.abort(self.script.pop(0), f"as scripted; your key is {TOKEN}")

    async def report_batch(self, request: bytes, context: Any) -> bytes:
        await self._step(context)
        return await super().report_batch(request, context)

    async def report(self, request: bytes, context: Any) -> bytes:
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            await self._step(context)
            return await super().report(request, context)
        finally:
            self.at_once -= 1


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """A metric of the pipeline; labels in the order of its definition."""
    metric = getattr(metrics, name)
    return float((metric.labels(*labels.values()) if labels else metric).value)
