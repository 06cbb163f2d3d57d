"""Support: a runner by itself behind the HTTP API: every request is asked of a worker, as a client would ask it.

Rules: nothing is kept here; what a caller may see and do the workers decide, who are told who it is. The core, which
reading documents needs, is loaded for the first one that somebody looks at.
"""

import asyncio
import contextlib
import importlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Sequence
from typing import Final, Protocol, cast

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2, registry_pb2
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    WorkflowRef,
)
from fastrunner.access.principal import Principal
from fastrunner.base import descriptors, limits
from fastrunner.counts.cells import Gauge
from fastrunner.errors import AtCapacity, ForwardedError, RunnerError, UnknownExecution, code_of
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.web.api import shapes
from fastrunner.web.api.backend import Changed, Started
from fastrunner.web.api.runner import Calls, RunnerSide, execution_input, parsed

__all__ = ["RunnerBackend", "StreamingCalls"]

_OF_ONE_MACHINE: Final = frozenset({"followExecutions"})
"""What needs stores that replicas do not share."""


class Documents(Protocol):
    """The functions of `web.documents`."""

    async def document_of(self, document: str, /) -> shapes.Document:
        """With the places of its tasks."""

    async def graph_of_document(self, document: str, /) -> bytes:
        """JSON text of a Graph."""


class StreamingCalls(Calls, Protocol):
    """Who calls a runner's methods, those that stream as well."""

    def stream(self, method: str, request: Message, principal: Principal | None) -> AsyncGenerator[bytes, None]:
        """The encoded messages of a method. Raises RunnerError; closing it ends the stream."""


class RunnerBackend(RunnerSide):
    """See web.api.backend.Backend."""

    product: Final = "runner"

    def __init__(self, calls: StreamingCalls, *, is_alone: bool, followers: Gauge) -> None:
        """`is_alone`: whether this machine's folder has everything; else replicas share a Temporal. `followers` says
        how many follow."""
        super().__init__(calls)
        self._streams = calls
        self._following: set[_Following | _RunnerFeed] = set()
        self._is_over = False
        self._followers = followers
        self.lacks: Collection[str] = frozenset() if is_alone else _OF_ONE_MACHINE

    def end(self) -> None:
        """Everybody who follows is to come again, to the successor."""
        self._is_over = True
        for each in tuple(self._following):
            each.end()

    # --- workflows ---

    async def add_workflow(self, principal: Principal | None, new: shapes.NewWorkflow) -> tuple[shapes.Workflow, bool]:
        """See Backend."""
        request = registry_pb2.RegisterWorkflowRequest(workflow_yaml=new.document)
        reply = parsed(
            registry_pb2.RegisterWorkflowResponse, await self._calls.call("RegisterWorkflow", request, principal)
        )
        reply.workflow.workflow_yaml = new.document
        return _workflow(reply.workflow), reply.created

    async def find_workflow(
        self, principal: Principal | None, namespace: str, name: str, version: str
    ) -> shapes.Workflow:
        """See Backend."""
        request = registry_pb2.GetWorkflowRequest(
            workflow_ref=WorkflowRef(namespace=namespace, name=name, version=version)
        )
        reply = await self._calls.call("GetWorkflow", request, principal)
        return _workflow(parsed(registry_pb2.GetWorkflowResponse, reply).workflow)

    async def page_workflows(
        self, principal: Principal | None, namespace: str, name: str, after: str, count_max: int
    ) -> shapes.WorkflowPage:
        """See Backend."""
        request = registry_pb2.ListWorkflowsRequest(
            namespace=namespace, name=name, page_size=count_max, page_token=after
        )
        page = parsed(registry_pb2.ListWorkflowsResponse, await self._calls.call("ListWorkflows", request, principal))
        return shapes.WorkflowPage(
            workflows=[_workflow(each) for each in page.workflows], next=page.next_page_token or None
        )

    # --- executions ---

    async def start(self, principal: Principal | None, new: shapes.StartExecution) -> Started:
        """See Backend. Whether an id was there is asked before: the runner answers a repetition as it did at first."""
        execution_id = new.id or str(uuid.uuid4())
        is_new = not new.id or not await self._is_there(principal, execution_id)
        request = execution_input(execution_id, new)
        request.workflow_ref.CopyFrom(WorkflowRef(**new.workflow.model_dump()))
        batch = ExecuteAsyncBatchRequest(executions=[request])
        reply = await self._calls.call("ExecuteAsyncBatch", batch, principal)
        [result] = parsed(ExecuteAsyncBatchResponse, reply).results
        if result.HasField("refused"):
            raise ForwardedError(result.refused.code, result.refused.message, result.refused.SerializeToString())
        return Started(await self.find(principal, execution_id), is_new, has_answer=True)

    async def _is_there(self, principal: Principal | None, execution_id: str) -> bool:
        # Refusals are told by the start itself.
        with contextlib.suppress(RunnerError):
            await self.find(principal, execution_id)
            return True
        return False

    async def find(self, principal: Principal | None, execution_id: str) -> shapes.Execution:
        """See Backend."""
        request = query_pb2.GetExecutionRequest(execution_id=execution_id)
        reply = await self._calls.call("GetExecution", request, principal)
        return _execution(parsed(query_pb2.GetExecutionResponse, reply).execution)

    async def explain(self, principal: Principal | None, execution_id: str) -> shapes.Execution:
        """See Backend. The runner says both in one answer."""
        return await self.find(principal, execution_id)

    async def page(
        self, principal: Principal | None, which: dict[str, str], before: str, count_max: int
    ) -> shapes.ExecutionPage:
        """See Backend."""
        request = query_pb2.ListExecutionsRequest(
            statuses=[which["status"]] if which["status"] else [],
            workflow_namespace=which["namespace"],
            workflow_name=which["name"],
            workflow_version=which["version"],
            page_size=count_max,
            page_token=before,
        )
        page = parsed(query_pb2.ListExecutionsResponse, await self._calls.call("ListExecutions", request, principal))
        return shapes.ExecutionPage(
            executions=[_execution(each) for each in page.executions], next=page.next_page_token or None
        )

    async def counts(self, principal: Principal | None, which: dict[str, str]) -> shapes.Counts:
        """See Backend."""
        request = query_pb2.CountExecutionsRequest(
            statuses=[which["status"]] if which["status"] else [],
            workflow_namespace=which["namespace"],
            workflow_name=which["name"],
            workflow_version=which["version"],
        )
        reply = await self._calls.call("CountExecutions", request, principal)
        counted = dict(parsed(query_pb2.CountExecutionsResponse, reply).by_status)
        by_status = {status: count for status, count in counted.items() if count}
        return shapes.Counts(by_status=by_status, total=sum(by_status.values()))

    async def document(self, principal: Principal | None, execution_id: str) -> shapes.Document:
        """See Backend."""
        document = await self._accepted(principal, execution_id)
        return await (await _documents()).document_of(document)

    async def graph(self, principal: Principal | None, execution_id: str) -> bytes:
        """See Backend."""
        document = await self._accepted(principal, execution_id)
        return await (await _documents()).graph_of_document(document)

    async def _accepted(self, principal: Principal | None, execution_id: str) -> str:
        request = query_pb2.GetDocumentRequest(execution_id=execution_id)
        reply = await self._calls.call("GetDocument", request, principal)
        return parsed(query_pb2.GetDocumentResponse, reply).workflow_yaml

    async def events(
        self,
        principal: Principal | None,
        execution_id: str,
        after: int,
        count_max: int,
        *,
        is_told: bool = False,  # noqa: ARG002 - nothing is read here
    ) -> tuple[list[bytes], int, bool]:
        """See Backend."""
        request = query_pb2.GetEventsRequest(
            execution_id=execution_id, from_sequence_number=after + 1, count_max=count_max
        )
        # Both at once, for a long execution has many pages. Whether it has ended counts only for whoever has all events
        # up to where it ended, and who has more than was told then asks again.
        execution, encoded = await asyncio.gather(
            self.find(principal, execution_id), self._calls.call("GetEvents", request, principal)
        )
        reply = parsed(query_pb2.GetEventsResponse, encoded)
        messages: list[bytes] = []
        size_bytes = last = 0
        for event in reply.events:
            message = event.SerializeToString()
            size_bytes += len(message)
            if messages and size_bytes > limits.API_EVENTS_SIZE_BYTES_MAX:
                break
            messages.append(message)
            last = event.sequence_number
        return messages, max(execution.last_sequence, last), execution.status in FINAL_STATUSES

    @contextlib.contextmanager
    def follow(self, principal: Principal | None, execution_id: str, after: int) -> Iterator["_Following"]:
        """See Backend."""
        self._check_room()
        request = query_pb2.SubscribeRequest(execution_id=execution_id, from_sequence_number=after + 1)
        following = _Following(self._streams.stream("Subscribe", request, principal))
        with self._followed(following):
            yield following

    @contextlib.asynccontextmanager
    async def feed(
        self, principal: Principal | None, which: dict[str, str], after: str
    ) -> AsyncIterator["_RunnerFeed"]:
        """See Backend."""
        self._check_room()
        request = query_pb2.SubscribeAllRequest(
            workflow_namespace=which["namespace"],
            workflow_name=which["name"],
            workflow_version=which["version"],
            cursor=after,
        )
        changes = self._streams.stream("SubscribeAll", request, principal)
        feed = _RunnerFeed(self, principal, changes, has_cursor=bool(after))
        with self._followed(feed):
            await feed.begin()
            yield feed

    def _check_room(self) -> None:
        followers_max = limits.API_RUNNER_FOLLOWERS_MAX
        if len(self._following) >= descriptors.for_followers(
            followers_max, limits.HTTP_CONNECTIONS_MAX - followers_max
        ):
            raise AtCapacity(f"{len(self._following)} clients follow, and no more may: try again later", 5.0)

    @contextlib.contextmanager
    def _followed(self, each: "_Following | _RunnerFeed") -> Iterator[None]:
        if self._is_over:
            each.end()
        self._following.add(each)
        self._followers.set(len(self._following))
        try:
            yield
        finally:
            self._following.discard(each)
            self._followers.set(len(self._following))
            each.close()

    async def add_schedule(self, principal: Principal | None, new: shapes.NewSchedule) -> tuple[shapes.Schedule, bool]:
        """See Backend."""
        execution = execution_input("", new)
        execution.workflow_ref.CopyFrom(WorkflowRef(**new.workflow.model_dump()))
        return await self.send_schedule(principal, new, execution)


class _Following:
    """See web.api.backend.Following: hears of each event by a stream, and leaves what it is to whoever reads it."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self.is_over = False
        self._more = asyncio.Event()
        self._hearing = asyncio.create_task(self._hear(events))

    async def _hear(self, events: AsyncGenerator[bytes, None]) -> None:
        try:
            async with contextlib.aclosing(events):
                async for _ in events:
                    self._more.set()
        except RunnerError:
            # It broke: whoever follows comes again, with its cursor.
            self.is_over = True
        self._more.set()

    def tell(self) -> None:
        """See Following."""
        self._more.set()

    def end(self) -> None:
        """It is over."""
        self.is_over = True
        self._more.set()

    def close(self) -> None:
        """Hears no more."""
        self._hearing.cancel()

    async def wait(self, timeout_s: float) -> bool:
        """See Following."""
        try:
            await asyncio.wait_for(self._more.wait(), timeout_s)
        except TimeoutError:
            return False
        self._more.clear()
        return True


class _RunnerFeed:
    """See web.api.backend.Feed: gathers changes for a moment, and asks what has become of those executions."""

    def __init__(
        self,
        backend: RunnerBackend,
        principal: Principal | None,
        changes: AsyncGenerator[bytes, None],
        *,
        has_cursor: bool,
    ) -> None:
        self.cursor = ""
        self.is_new = not has_cursor
        self.is_over = False
        self._backend = backend
        self._principal = principal
        self._changes = changes
        self._changed: dict[str, str] = {}
        """Executions that have changed, each with the cursor of its last change, in the order of those."""
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Waits for where it begins. Raises RunnerError."""
        first = query_pb2.StateChange.FromString(await anext(self._changes))
        self.cursor = first.cursor
        self.is_new = self.is_new or first.missed
        self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        try:
            async for message in self._changes:
                change = query_pb2.StateChange.FromString(message)
                if change.missed:
                    break
                if change.execution_id:
                    self._changed.pop(change.execution_id, None)
                    self._changed[change.execution_id] = change.cursor
                    self._more.set()
                if len(self._changed) >= limits.API_FEED_PAGE_MAX:
                    # The stream waits meanwhile, and the worker's store for the stream.
                    self._room.clear()
                    await self._room.wait()
        except RunnerError:
            pass
        self.end()

    def end(self) -> None:
        """It is over."""
        self.is_over = True
        self._more.set()

    def close(self) -> None:
        """Hears no more."""
        if self._hearing is not None:
            self._hearing.cancel()

    async def read(self, timeout_s: float) -> Sequence[Changed]:
        """See Feed."""
        try:
            await asyncio.wait_for(self._more.wait(), timeout_s)
        except TimeoutError:
            return ()
        await asyncio.sleep(limits.API_FEED_PAUSE_S)
        changed, self._changed = self._changed, {}
        self._more.clear()
        self._room.set()
        found = await asyncio.gather(*(self._find(execution_id) for execution_id in changed))
        if changed:
            self.cursor = [*changed.values()][-1]
        return [
            Changed(cursor, orjson.dumps(execution.model_dump()))
            for cursor, execution in zip(changed.values(), found, strict=True)
            if execution is not None
        ]

    async def _find(self, execution_id: str) -> shapes.Execution | None:
        try:
            return await self._backend.find(self._principal, execution_id)
        except RunnerError as error:
            if code_of(error) != UnknownExecution.grpc_code:
                raise
            return None


async def _documents() -> "Documents":
    """What reads documents; loaded in a thread, for probes are answered meanwhile."""
    return cast("Documents", await asyncio.to_thread(importlib.import_module, "fastrunner.web.documents"))


def _workflow(workflow: registry_pb2.RegisteredWorkflow) -> shapes.Workflow:
    return shapes.Workflow(
        namespace=workflow.namespace,
        name=workflow.name,
        version=workflow.version,
        created_ms=workflow.registered_ms,
        is_latest=workflow.latest,
        document=workflow.workflow_yaml or None,
    )


def _execution(execution: query_pb2.Execution) -> shapes.Execution:
    error = None
    if execution.HasField("error"):
        error = MessageToDict(execution.error, preserving_proto_field_name=True)
    return shapes.Execution.model_construct(
        id=execution.execution_id,
        namespace=execution.workflow_namespace,
        name=execution.workflow_name,
        version=execution.workflow_version,
        labels=dict(execution.labels),
        launch="accepted",
        status=execution.status,
        last_sequence=execution.last_sequence_number,
        created_ms=execution.accepted_ms,
        started_ms=execution.accepted_ms,
        updated_ms=execution.finished_ms or execution.accepted_ms,
        ended_ms=execution.finished_ms,
        gap_since_ms=0,
        message="",
        error=error,
        output_json=execution.output_json,
        waiting=execution.waiting,
    )
