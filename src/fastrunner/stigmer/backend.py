"""Support: the Stigmer Service behind the HTTP API: its store, the runner, and who follows.

Rules: a caller that is confined to namespaces sees and does nothing outside of them; an execution elsewhere is not
there for it. Executions that others have started, whose namespace nobody knows, are for callers of all namespaces.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any, Final

import orjson

from fastrunner import _core
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowMetadata
from fastrunner.access.principal import Principal, check_namespace
from fastrunner.base import limits
from fastrunner.base.checks import is_deeper
from fastrunner.base.clock import wall_ms
from fastrunner.errors import (
    DocumentRefused,
    ForwardedError,
    InvalidRequest,
    PermissionDenied,
    RunnerError,
    TooLarge,
    Unavailable,
    UnknownDocument,
    UnknownExecution,
    UnknownSchedule,
    code_of,
)
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.stigmer.feed import StoreFeed
from fastrunner.stigmer.followers import Follower, Followers
from fastrunner.stigmer.ids import id_refusal
from fastrunner.stigmer.launches import Launches
from fastrunner.stigmer.reading import SharedReads
from fastrunner.stigmer.runner import RunnerClient
from fastrunner.stigmer.shown import execution_of, workflow_of
from fastrunner.stigmer.store import RECORDED, Execution, Filter, NewExecution, Store, Workflow, WorkflowKey
from fastrunner.web.api import shapes
from fastrunner.web.api.backend import Started
from fastrunner.web.api.runner import RunnerSide, execution_input
from fastrunner.web.documents import LOAD_STEP_UNITS, document_of, graph_of_document, stepped

__all__ = ["StigmerBackend"]

_NOT_FETCHED: Final = "not-fetched"
"""What a document's validation says of a text from elsewhere: the runner fetches it."""
_NOT_FOUND: Final = 5
_NOT_THERE: Final = "the runner that this service asks does not have it"
"""In the place of what it waits for."""


class StigmerBackend:
    """See web.api.backend.Backend."""

    product: Final = "stigmer"
    lacks: Final = frozenset[str]()

    def __init__(self, store: Store, runner: RunnerClient, launches: Launches, followers: Followers) -> None:
        self._store = store
        self._runner = runner
        self._side = RunnerSide(runner)
        self._launches = launches
        self._followers = followers
        self._reads = SharedReads(store, followers)

    # --- workflows ---

    async def add_workflow(self, principal: Principal | None, new: shapes.NewWorkflow) -> tuple[shapes.Workflow, bool]:
        """See Backend."""
        key = await _key_of(new.document)
        check_namespace(principal, key.namespace)
        is_new = await self._store.add_workflow(key, new.document, wall_ms())
        return workflow_of(await self._store.find_workflow(key)), is_new

    async def find_workflow(
        self, principal: Principal | None, namespace: str, name: str, version: str
    ) -> shapes.Workflow:
        """See Backend."""
        check_namespace(principal, namespace)
        return workflow_of(await self._store.find_workflow(WorkflowKey(namespace, name, version)))

    async def page_workflows(
        self, principal: Principal | None, namespace: str, name: str, after: str, count_max: int
    ) -> shapes.WorkflowPage:
        """See Backend."""
        place = _place(after)
        found = await self._store.page_workflows(namespace, name, _within(principal), place, count_max)
        last = found[-1].key if len(found) == count_max else None
        after_last = None if last is None else f"{last.namespace}/{last.name}/{last.version}"
        return shapes.WorkflowPage(workflows=[workflow_of(each) for each in found], next=after_last)

    # --- executions ---

    async def start(self, principal: Principal | None, new: shapes.StartExecution) -> Started:
        """See Backend."""
        check_namespace(principal, new.workflow.namespace)
        execution_id = new.id or str(uuid.uuid4())
        if refusal := id_refusal(execution_id):
            raise InvalidRequest("id", f"id: {refusal}")
        if is_deeper(new.input, limits.DATA_DEPTH_MAX):
            raise InvalidRequest("input", f"input nests deeper than {limits.DATA_DEPTH_MAX} levels")
        self._launches.check_room()
        ref = new.workflow
        workflow = await self._store.find_workflow(WorkflowKey(ref.namespace, ref.name, ref.version))
        request = _request(execution_id, workflow, new)
        recorded = NewExecution(
            id=execution_id,
            namespace=workflow.key.namespace,
            name=workflow.key.name,
            version=workflow.key.version,
            labels=new.labels,
            created_ms=wall_ms(),
            asked_hash=sha256(orjson.dumps(new.model_dump(), option=orjson.OPT_SORT_KEYS)).digest(),
            request=request,
        )
        is_new = await self._store.record(recorded)
        if is_new:
            self._followers.changed((execution_id,))
            has_answer = await self._launch(execution_id, request)
        else:
            has_answer = await self._await_launch(execution_id)
        return Started(await self.find(None, execution_id), is_new, has_answer)

    async def _launch(self, execution_id: str, request: bytes) -> bool:
        has_answer, refusal = await self._launches.launch(execution_id, request, limits.API_START_WAIT_S_MAX)
        if refusal is not None:
            raise ForwardedError(refusal.code, f"the runner refuses the execution: {refusal.message}", b"")
        return has_answer

    async def _await_launch(self, execution_id: str) -> bool:
        """Whether the runner has answered about an execution that was asked for before."""
        execution = await self._store.find(execution_id)
        if execution.launch != RECORDED:
            return True
        recorded = await self._store.unlaunched(execution.number - 1, 1)
        if not recorded or recorded[0].id != execution_id:
            # It has, between the two looks.
            return True
        return await self._launch(execution_id, recorded[0].request)

    async def find(self, principal: Principal | None, execution_id: str) -> shapes.Execution:
        """See Backend."""
        return execution_of(await self._seen(principal, execution_id))

    async def explain(self, principal: Principal | None, execution_id: str) -> shapes.Execution:
        """See Backend. What an execution waits for the runner knows, which may be away."""
        execution = await self._seen(principal, execution_id)
        shown = execution_of(execution)
        if execution.launch == RECORDED or execution.standing.status in FINAL_STATUSES:
            return shown
        try:
            found = await self._runner.find(execution_id, limits.STIGMER_WAITING_S_MAX)
        except UnknownExecution:
            return shown.model_copy(update={"waiting": _NOT_THERE})
        except RunnerError:
            return shown
        return shown.model_copy(update={"waiting": found.waiting})

    async def page(
        self, principal: Principal | None, which: dict[str, str], before: str, count_max: int
    ) -> shapes.ExecutionPage:
        """See Backend."""
        number = 0
        if before:
            if not (before.isascii() and before.isdigit() and 0 < len(before) < 19):
                raise InvalidRequest("before", f"before is {before[:40]!r}: send what `next` of the page before says")
            number = int(before)
        found = await self._store.page(_filter(principal, which), number, count_max)
        following = str(found[-1].number) if len(found) == count_max else None
        return shapes.ExecutionPage(executions=[execution_of(each) for each in found], next=following)

    async def counts(self, principal: Principal | None, which: dict[str, str]) -> shapes.Counts:
        """See Backend."""
        by_status = await self._store.counts(_filter(principal, which))
        return shapes.Counts(by_status=dict(by_status), total=sum(by_status.values()))

    async def events(
        self, principal: Principal | None, execution_id: str, after: int, count_max: int, *, is_told: bool = False
    ) -> tuple[list[bytes], int, bool]:
        """See Backend."""
        if principal is not None and principal.namespaces is not None:
            await self._seen(principal, execution_id)
        if is_told:
            page = await self._reads.events_after(execution_id, after, count_max)
        else:
            page = await self._store.events_after(execution_id, after, count_max, limits.API_EVENTS_SIZE_BYTES_MAX)
        return list(page.messages), page.last_sequence, page.has_ended

    async def document(self, principal: Principal | None, execution_id: str) -> shapes.Document:
        """See Backend."""
        return await document_of(await self._accepted(principal, execution_id))

    async def graph(self, principal: Principal | None, execution_id: str) -> bytes:
        """See Backend."""
        return await graph_of_document(await self._accepted(principal, execution_id))

    async def _accepted(self, principal: Principal | None, execution_id: str) -> str:
        """The text that an execution executes. Raises UnknownDocument."""
        execution = await self._seen(principal, execution_id)
        if not execution.version:
            raise UnknownDocument(
                f"what execution {execution_id!r} executes is not known here: others than this service have started it"
            )
        workflow = await self._store.find_workflow(WorkflowKey(execution.namespace, execution.name, execution.version))
        return workflow.document

    def follow(
        self, _principal: Principal | None, execution_id: str, _after: int, /
    ) -> AbstractContextManager[Follower]:
        """See Backend."""
        return self._followers.follow(execution_id)

    @contextlib.asynccontextmanager
    async def feed(self, principal: Principal | None, which: dict[str, str], after: str) -> AsyncIterator[StoreFeed]:
        """See Backend."""
        with self._followers.follow() as follower:
            yield StoreFeed(self._reads, follower, self._followers.changes, _filter(principal, which), after)

    # --- control ---

    async def cancel(self, principal: Principal | None, execution_id: str, command: shapes.CancelCommand) -> None:
        """See Backend."""
        execution = await self._seen(principal, execution_id)
        await self._told(execution, self._side.cancel(None, execution_id, command))

    async def pause(self, principal: Principal | None, execution_id: str, command: shapes.Command) -> None:
        """See Backend."""
        execution = await self._seen(principal, execution_id)
        await self._told(execution, self._side.pause(None, execution_id, command))

    async def resume(self, principal: Principal | None, execution_id: str, command: shapes.Command) -> None:
        """See Backend."""
        execution = await self._seen(principal, execution_id)
        await self._told(execution, self._side.resume(None, execution_id, command))

    async def _told(self, execution: Execution, telling: Any) -> None:
        try:
            await telling
        except ForwardedError as error:
            if code_of(error) == _NOT_FOUND and execution.launch == RECORDED:
                raise Unavailable(
                    f"execution {execution.id!r} is on its way to the runner, which does not have it yet: try again"
                ) from None
            raise

    # --- schedules and events, which the runner has ---

    async def page_schedules(
        self, principal: Principal | None, namespace: str, after: str, count_max: int
    ) -> shapes.SchedulePage:
        """See Backend. The runner knows no caller of ours: what a caller may not see is left out of its page."""
        if namespace:
            check_namespace(principal, namespace)
        page = await self._side.page_schedules(None, namespace, after, count_max)
        within = _within(principal)
        if within is None:
            return page
        return page.model_copy(update={"schedules": [each for each in page.schedules if each.namespace in within]})

    async def add_schedule(self, principal: Principal | None, new: shapes.NewSchedule) -> tuple[shapes.Schedule, bool]:
        """See Backend."""
        ref = new.workflow
        check_namespace(principal, ref.namespace)
        workflow = await self._store.find_workflow(WorkflowKey(ref.namespace, ref.name, ref.version))
        execution = execution_input("", new)
        execution.workflow_yaml = workflow.document
        return await self._side.send_schedule(None, new, execution)

    async def pause_schedule(self, principal: Principal | None, schedule_id: str, command: shapes.Command) -> None:
        """See Backend."""
        await self._check_schedule(principal, schedule_id)
        await self._side.pause_schedule(None, schedule_id, command)

    async def resume_schedule(self, principal: Principal | None, schedule_id: str, command: shapes.Command) -> None:
        """See Backend."""
        await self._check_schedule(principal, schedule_id)
        await self._side.resume_schedule(None, schedule_id, command)

    async def delete_schedule(self, principal: Principal | None, schedule_id: str) -> None:
        """See Backend."""
        await self._check_schedule(principal, schedule_id)
        await self._side.delete_schedule(None, schedule_id)

    async def fire_schedule(
        self, principal: Principal | None, schedule_id: str, command: shapes.FireCommand
    ) -> shapes.Fired:
        """See Backend."""
        await self._check_schedule(principal, schedule_id)
        return await self._side.fire_schedule(None, schedule_id, command)

    async def _check_schedule(self, principal: Principal | None, schedule_id: str) -> None:
        """Raises UnknownSchedule where a schedule is not of a namespace that a caller may see."""
        for namespace in sorted(_within(principal) or ()):
            after: str | None = ""
            while after is not None:
                page = await self._side.page_schedules(None, namespace, after, limits.API_PAGE_ROWS_MAX)
                if any(each.id == schedule_id for each in page.schedules):
                    return
                after = page.next
        if _within(principal) is not None:
            raise UnknownSchedule(schedule_id)

    async def send_event(self, principal: Principal | None, event: shapes.CloudEvent) -> None:
        """See Backend. Whom an event reaches, the runner alone decides, which knows no caller of ours."""
        if _within(principal) is not None:
            raise PermissionDenied("an event sent here reaches all namespaces: callers that are confined send none")
        await self._side.send_event(None, event)

    async def _seen(self, principal: Principal | None, execution_id: str) -> Execution:
        """An execution that a caller may see; for others it is not there. Raises UnknownExecution."""
        execution = await self._store.find(execution_id)
        if (
            principal is not None
            and principal.namespaces is not None
            and (execution.namespace not in principal.namespaces)
        ):
            raise UnknownExecution(execution_id)
        return execution


async def _key_of(document: str) -> WorkflowKey:
    """What a document says it is. Raises DocumentRefused where it would not compile."""
    found = await stepped(_core.validate_in_steps(document, limits.COMPILE_STEP_BUDGET))
    problems = [each for each in found if each.code != _NOT_FETCHED]
    if problems:
        raise DocumentRefused(problems)
    says = (await stepped(_core.load_in_steps(document, LOAD_STEP_UNITS)))["document"]
    return WorkflowKey(says["namespace"], says["name"], says["version"])


def _place(after: str) -> WorkflowKey | None:
    if not after:
        return None
    parts = after.split("/")
    if len(parts) != 3 or not all(parts):
        raise InvalidRequest("after", f"after is {after[:40]!r}: send what `next` of the page before says")
    return WorkflowKey(*parts)


def _request(execution_id: str, workflow: Workflow, new: shapes.StartExecution) -> bytes:
    """The runner's request. Raises TooLarge where the runner would not take it at any time."""
    request = execution_input(execution_id, new)
    request.workflow_yaml = workflow.document
    names = WorkflowMetadata(name=workflow.key.name, version=workflow.key.version, namespace=workflow.key.namespace)
    request.metadata.CopyFrom(names)
    encoded: bytes = request.SerializeToString(deterministic=True)
    if len(encoded) > limits.REQUEST_SIZE_BYTES_MAX:
        raise TooLarge(f"the execution has {len(encoded)} bytes: {limits.REQUEST_SIZE_BYTES_MAX} are taken at most")
    return encoded


def _within(principal: Principal | None) -> frozenset[str] | None:
    return None if principal is None else principal.namespaces


def _filter(principal: Principal | None, which: dict[str, str]) -> Filter:
    return Filter(**which, within=_within(principal))
