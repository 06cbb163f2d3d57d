"""An engine in memory, for tests of the wire alone: executions do what the test tells them to do."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

from fastrunner._core import Plan, Problem, compile, validate  # noqa: A004 - the core's verb
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ErrorDetails, WorkflowProgressEvent
from fastrunner.engine import EncodedEvents, ExecutionQuery, ExecutionView, FeedItem, Submission
from fastrunner.engine.pages import Page
from fastrunner.errors import (
    AtCapacity,
    DocumentRefused,
    ForwardedError,
    IdTaken,
    RunnerError,
    Unavailable,
    UnknownExecution,
    WrongState,
)
from fastrunner.routing.facts import CallFacts
from fastrunner.service.handlers import Service
from fastrunner.service.status import status_of

FINAL = {"completed", "failed", "cancelled"}


class MemoryFeed:
    """Says where it stands: nobody here follows what comes."""

    async def follow(self, after: Mapping[int, int]) -> AsyncGenerator[FeedItem, None]:
        yield FeedItem({0: after.get(0, 0)})
        await asyncio.Event().wait()


class MemoryExecution:
    """One execution and its events."""

    def __init__(self, submission: Submission, accepted_ms: int) -> None:
        self.submission = submission
        self.accepted_ms = accepted_ms
        self.status = "running"
        self.reason = ""
        self.error: Mapping[str, Any] | None = None
        self.events: list[bytes] = []
        self.changed = asyncio.Event()
        self.report("workflow_started", "running")

    def report(self, event_type: str, status: str, **more: Any) -> None:
        """Adds an event; a final status ends the execution."""
        self.status = status
        event = WorkflowProgressEvent(
            workflow_execution_id=self.submission.execution_id,
            event_type=event_type,
            status=status,
            sequence_number=len(self.events) + 1,
            **more,
        )
        self.events.append(event.SerializeToString())
        self.changed.set()
        self.changed = asyncio.Event()

    def fail(self, error: Mapping[str, Any]) -> None:
        """Ends as failed with a DSL error."""
        self.error = error
        self.report("workflow_failed", "failed", error=ErrorDetails(type=error["type"], status=error["status"]))

    def view(self) -> ExecutionView:
        """As queries show it."""
        return ExecutionView(
            execution_id=self.submission.execution_id,
            status=self.status,
            namespace="tests",
            name=self.submission.document.strip(),
            version="1.0.0",
            accepted_ms=self.accepted_ms,
            finished_ms=self.accepted_ms + 1 if self.status in FINAL else 0,
            last_sequence=len(self.events),
            acknowledged_sequence=0,
            given_up_events=0,
            output_json="{}" if self.status == "completed" else "",
            error=self.error,
            metadata=self.submission.metadata,
        )


class MemoryEngine:
    """Executions stay as they are until a test or a command moves them."""

    def __init__(self) -> None:
        self.executions: dict[str, MemoryExecution] = {}
        self.refusal: RunnerError | None = None
        self.warnings: Sequence[Problem] = ()
        self.stopped = False
        self.asked = 0
        self.is_late = False
        self.feed = MemoryFeed()
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self) -> None:
        """Nothing to open."""

    async def quiesce(self, timeout_s: float) -> None:
        self.refusal = Unavailable("draining")

    async def drain(self, timeout_s: float) -> None:
        """From now on nothing is accepted."""
        self.refusal = Unavailable("draining")

    def submit(self, submission: Submission) -> "asyncio.Future[str]":
        """Accepts after the gate has opened; documents that start with `bad` have two problems."""
        return asyncio.ensure_future(self._submit(submission))

    async def plan_of(self, document: str, client: str) -> Plan:
        return compile(document)

    async def validate(self, document: str, client: str, *, fetches: bool = True) -> Sequence[Problem]:
        """As the real one."""
        return validate(document, True)

    async def _submit(self, submission: Submission) -> str:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        if submission.document.startswith("bad"):
            raise DocumentRefused(
                [Problem("unknown-key", "/bad", 1, 1, "not allowed"), Problem("required", "/do", 2, 3, "is missing")]
            )
        await self.gate.wait()
        submission.warnings = self.warnings
        known = self.executions.get(submission.execution_id)
        if known is not None and known.submission != submission:
            raise IdTaken(submission.execution_id)
        if known is None:
            if len(self.executions) >= 10_000:
                raise AtCapacity("full")
            self.executions[submission.execution_id] = MemoryExecution(submission, 1_000 + len(self.executions))
        return "running"

    def known(self, execution_id: str) -> MemoryExecution:
        """The execution. Raises UnknownExecution."""
        if execution_id not in self.executions:
            raise UnknownExecution(execution_id)
        return self.executions[execution_id]

    async def cancel(self, execution_id: str, reason: str, force: bool) -> None:
        """Ends it."""
        execution = self.known(execution_id)
        if execution.status == "cancelled":
            return
        if execution.status in FINAL:
            raise WrongState(f"execution {execution_id!r} is {execution.status}")
        execution.reason = f"{reason} (forced)" if force else reason
        execution.report("workflow_cancelled", "cancelled", message=reason)

    async def pause(self, execution_id: str, reason: str) -> None:
        """Pauses it."""
        execution = self.known(execution_id)
        if execution.status in FINAL:
            raise WrongState(f"execution {execution_id!r} is {execution.status}")
        if execution.status != "paused":
            execution.report("workflow_paused", "paused", message=reason)

    async def resume(self, execution_id: str, reason: str) -> None:
        """Resumes it."""
        execution = self.known(execution_id)
        if execution.status in FINAL:
            raise WrongState(f"execution {execution_id!r} is {execution.status}")
        if execution.status == "paused":
            execution.report("workflow_resumed", "running", message=reason)

    async def delete(self, execution_id: str) -> None:
        """Forgets it, once it has ended."""
        if self.known(execution_id).status not in FINAL:
            raise WrongState(f"execution {execution_id!r} has not ended")
        del self.executions[execution_id]

    async def get(self, execution_id: str) -> ExecutionView:
        """As queries show it."""
        return self.known(execution_id).view()

    async def list(self, query: ExecutionQuery) -> Page[ExecutionView]:
        """Newest first."""
        views = [execution.view() for execution in self.executions.values()]
        found = [
            view
            for view in views
            if (not query.statuses or view.status in query.statuses)
            and (not query.name or view.name == query.name)
            and (not query.namespace or view.namespace == query.namespace)
            and view.accepted_ms >= query.accepted_from_ms
            and (not query.accepted_until_ms or view.accepted_ms < query.accepted_until_ms)
            and (query.before is None or (view.accepted_ms, view.execution_id) < query.before)
        ]
        found.sort(key=lambda view: (view.accepted_ms, view.execution_id), reverse=True)
        shown = found[: query.count_max]
        is_full = len(shown) == query.count_max
        return Page(shown, (shown[-1].accepted_ms, shown[-1].execution_id) if is_full else None)

    async def count(self, query: ExecutionQuery) -> Mapping[str, int]:
        """By state."""
        return Counter(view.status for view in (await self.list(replace(query, count_max=10_000))).items)

    async def document(self, execution_id: str) -> str:
        """As it was submitted."""
        return self.known(execution_id).submission.document

    async def events(self, execution_id: str, from_sequence: int, count_max: int) -> EncodedEvents:
        """Encoded events."""
        return self.known(execution_id).events[from_sequence - 1 :][:count_max]

    async def subscribe(self, execution_id: str, from_sequence: int) -> AsyncGenerator[bytes, None]:
        """Replays, then follows."""
        if self.stopped:
            raise Unavailable("stopping")
        execution = self.known(execution_id)
        following = from_sequence - 1
        while True:
            changed = execution.changed
            while following < len(execution.events):
                following += 1
                yield execution.events[following - 1]
            if execution.status in FINAL:
                return
            await changed.wait()


class DirectRouter:
    """Links the services of several workers within one process; refusals cross it encoded, as over a socket."""

    def __init__(self, worker: int, services: list[Service]) -> None:
        self.worker = worker
        self.services = services
        self.forwarded: list[tuple[int, str]] = []
        self.assigned: list[tuple[int, int]] = []
        self.streams_broken = asyncio.Event()
        self.absent: set[int] = set()

    @property
    def workers(self) -> list[int]:
        """All workers."""
        return list(range(len(self.services)))

    def owners_of(self, execution_id: str) -> list[int]:
        """By checksum, whether or not it exists."""
        return [crc32(execution_id.encode()) % len(self.services)]

    def are_new(self, messages: list[bytes]) -> bool:
        """Never: every id is somebody's."""
        return False

    def choose(self, count: int) -> int:
        """This worker."""
        return self.worker

    def assign(self, worker: int, count: int) -> None:
        """Remembers it."""
        self.assigned.append((worker, count))

    async def forward(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> bytes:
        """Calls the owner's handler."""
        self.forwarded.append((worker, method))
        if worker in self.absent:
            raise Unavailable(f"worker {worker} did not come back in time")
        try:
            reply: bytes | Awaitable[bytes] = self.services[worker].handle_unary(
                method, payload, replace(facts, local=True)
            )
            return reply if isinstance(reply, bytes) else await reply
        except RunnerError as error:
            raise encoded(error) from None

    async def forward_stream(
        self, worker: int, method: str, payload: bytes, facts: CallFacts
    ) -> AsyncGenerator[bytes, None]:
        """Opens the owner's stream."""
        self.forwarded.append((worker, method))
        stream = self.services[worker].handle_stream(method, payload, replace(facts, local=True))
        # The test of a broken link sets this; until then nothing waits for it.
        broken = self.streams_broken
        try:
            async for message in stream:
                yield message
                if broken.is_set():
                    raise Unavailable("the link broke")
        except RunnerError as error:
            raise encoded(error) from None
        finally:
            await stream.aclose()


def encoded(error: RunnerError) -> ForwardedError:
    """A refusal as it arrives from another worker."""
    status = status_of(error)
    return ForwardedError(status.code, status.message, status.SerializeToString())
