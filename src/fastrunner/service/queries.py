"""Stage 1, service: reading executions and judging documents.

Rules: a page ends early rather than outgrow what clients accept; events are passed on as the bytes the core encoded; a
page token means the same on every worker, and only for the filters it was given with.
"""

import asyncio
import base64
import binascii
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ErrorDetails, WorkflowMetadata
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import (
    CountExecutionsRequest,
    CountExecutionsResponse,
    Execution,
    GetDocumentRequest,
    GetDocumentResponse,
    GetEventsRequest,
    GetExecutionRequest,
    GetExecutionResponse,
    ListExecutionsRequest,
    ListExecutionsResponse,
    ValidateWorkflowRequest,
    ValidateWorkflowResponse,
    WorkflowProblem,
)
from fastrunner._pb.fastrunner.router.v1.views_pb2 import ItemsView
from fastrunner.access.principal import Principal, Role, check_namespace
from fastrunner.base import limits
from fastrunner.engine import Engine, ExecutionQuery, ExecutionView
from fastrunner.engine.pages import Page, merged
from fastrunner.errors import InvalidRequest
from fastrunner.progress.names import STATUSES
from fastrunner.routing.facts import CallFacts, Router
from fastrunner.service.decode import check_document, check_execution_id, check_labels, parse

if TYPE_CHECKING:
    from fastrunner._core import Problem

_EVENTS_COUNT_DEFAULT: Final = 1_000
_PAGE_SIZE_DEFAULT: Final = 100
_FRAMING_SIZE_BYTES: Final = 6
_NOT_FETCHED: Final = "not-fetched"
"""Code of the warning of what was not looked at: no document is better for it."""
_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1
_ERROR_BASE: Final = "https://open-workflow-specification.org/spec/1.0.0/errors/"
_ERROR_CODES: Final = {
    _ERROR_BASE + "validation": "VALIDATION_ERROR",
    _ERROR_BASE + "timeout": "TIMEOUT_ERROR",
    _ERROR_BASE + "runtime": "SYSTEM_ERROR",
    _ERROR_BASE + "configuration": "SYSTEM_ERROR",
}
"""Classes of the DSL's errors, as the core writes them into events; every other type is an EXECUTION_ERROR."""


class Queries:
    """Answers the methods that change nothing."""

    def __init__(self, engine: Engine, router: Router, admit: Callable[[str, int], None]) -> None:
        self._engine = engine
        self._router = router
        self._admit = admit
        """Raises AtCapacity if a client asks for more than the worker can do now."""

    async def get_execution(self, payload: bytes, facts: CallFacts) -> bytes:  # noqa: ARG002 - a Handler
        """Answers GetExecution. Raises UnknownExecution."""
        request = parse(GetExecutionRequest, payload)
        check_execution_id(request.execution_id, "execution_id")
        view = await self._engine.get(request.execution_id)
        return GetExecutionResponse(execution=_execution(view)).SerializeToString()

    async def get_events(self, payload: bytes, facts: CallFacts) -> bytes:  # noqa: ARG002 - a Handler
        """Answers GetEvents: as many of the events asked for as one reply may carry. Raises UnknownExecution."""
        request = parse(GetEventsRequest, payload)
        check_execution_id(request.execution_id, "execution_id")
        count_max = _bounded(request.count_max, "count_max", _EVENTS_COUNT_DEFAULT, limits.EVENTS_REPLAY_COUNT_MAX)
        events = await self._engine.events(
            request.execution_id, first_sequence(request.from_sequence_number), count_max
        )
        return ItemsView(items=_fitting(events)).SerializeToString()

    async def list_executions(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers ListExecutions: every worker's page of what it owns, merged. Raises AtCapacity."""
        request = parse(ListExecutionsRequest, payload)
        query = _query(request, facts.principal)
        if facts.local:
            return _reply(request, await self._own(query))
        pages = await asyncio.gather(*(self._asked(worker, query, payload, facts) for worker in self._router.workers))
        return _reply(request, merged(pages, _place, query.count_max))

    async def _asked(self, worker: int, query: ExecutionQuery, payload: bytes, facts: CallFacts) -> Page[Execution]:
        """One worker's page."""
        if worker == self._router.worker:
            return await self._own(query)
        reply = await self._router.forward(worker, "ListExecutions", payload, facts)
        page = ListExecutionsResponse.FromString(reply)
        complete_to = _decoded(page.next_page_token)[1] if page.next_page_token else None
        return Page(page.executions, complete_to)

    async def _own(self, query: ExecutionQuery) -> Page[Execution]:
        page = await self._engine.list(query)
        return Page([_execution(view) for view in page.items], page.complete_to)

    async def count_executions(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers CountExecutions: the sums of what every worker counts. Raises AtCapacity."""
        request = parse(CountExecutionsRequest, payload)
        query = _counted(request, facts.principal)
        workers = [self._router.worker] if facts.local else self._router.workers
        total: Counter[str] = Counter()
        for counts in await asyncio.gather(*(self._counts(worker, query, payload, facts) for worker in workers)):
            total.update(counts)
        return CountExecutionsResponse(by_status=total).SerializeToString()

    async def _counts(self, worker: int, query: ExecutionQuery, payload: bytes, facts: CallFacts) -> Mapping[str, int]:
        """Those of one worker."""
        if worker == self._router.worker:
            return await self._engine.count(query)
        reply = await self._router.forward(worker, "CountExecutions", payload, facts)
        return CountExecutionsResponse.FromString(reply).by_status

    async def get_document(self, payload: bytes, facts: CallFacts) -> bytes:  # noqa: ARG002 - a Handler
        """Answers GetDocument. Raises UnknownExecution, Damaged."""
        request = parse(GetDocumentRequest, payload)
        check_execution_id(request.execution_id, "execution_id")
        document = await self._engine.document(request.execution_id)
        return GetDocumentResponse(workflow_yaml=document).SerializeToString()

    async def validate_workflow(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers ValidateWorkflow: every problem, whether the document would be executed, and warnings if so.

        Raises AtCapacity where a submission would be refused: compiling is most of its work.
        """
        self._admit(facts.peer, 1)
        request = parse(ValidateWorkflowRequest, payload)
        check_document(request.workflow_yaml)
        # Who may only look has nothing asked of anybody, nor a secret sent along.
        fetches = facts.principal is None or Role.SUBMIT in facts.principal.roles
        found = await self._engine.validate(request.workflow_yaml, facts.peer, fetches=fetches)
        is_strict = request.strict
        problems = [each for each in found if each.severity == "error" or (is_strict and each.code != _NOT_FETCHED)]
        warnings = [each for each in found if each not in problems]
        return ValidateWorkflowResponse(
            valid=not problems, problems=map(_problem, problems), warnings=map(_problem, warnings)
        ).SerializeToString()


def _problem(problem: "Problem") -> WorkflowProblem:
    return WorkflowProblem(
        code=problem.code,
        pointer=problem.pointer,
        line=problem.line,
        column=problem.column,
        message=problem.message,
        severity=problem.severity,
    )


def first_sequence(from_sequence_number: int) -> int:
    """The first sequence number a request asks for. Raises InvalidRequest for a negative one."""
    if from_sequence_number < 0:
        raise InvalidRequest(
            "from_sequence_number", f"from_sequence_number is {from_sequence_number}: it must be 0 or more"
        )
    return max(1, from_sequence_number)


def _bounded(count: int, field: str, default: int, count_max: int) -> int:
    if count < 0:
        raise InvalidRequest(field, f"{field} is {count}: it must be 0 ({default}) or more")
    return min(count or default, count_max)


def _fitting(events: list[bytes]) -> list[bytes]:
    room_bytes = limits.REPLY_SIZE_BYTES_MAX
    for position, event in enumerate(events):
        room_bytes -= len(event) + _FRAMING_SIZE_BYTES
        if room_bytes < 0 and position:
            return events[:position]
    return events


def _query(request: ListExecutionsRequest, principal: Principal | None) -> ExecutionQuery:
    return replace(
        _counted(request, principal),
        labels=sorted(check_labels(request.labels).items()),
        parent_id=_parent_id(request),
        accepted_from_ms=_time_ms(request.accepted_from_ms, "accepted_from_ms"),
        accepted_until_ms=_time_ms(request.accepted_until_ms, "accepted_until_ms"),
        before=_before(request),
        count_max=_bounded(request.page_size, "page_size", _PAGE_SIZE_DEFAULT, limits.LIST_PAGE_SIZE_MAX),
    )


def _counted(request: ListExecutionsRequest | CountExecutionsRequest, principal: Principal | None) -> ExecutionQuery:
    """What both ask by."""
    if request.workflow_namespace:
        check_namespace(principal, request.workflow_namespace)
    return ExecutionQuery(
        statuses=_statuses(request),
        name=request.workflow_name,
        namespace=request.workflow_namespace,
        version=request.workflow_version,
        namespaces=None if principal is None else principal.namespaces,
    )


def _statuses(request: ListExecutionsRequest | CountExecutionsRequest) -> frozenset[str]:
    unknown = sorted(set(request.statuses).difference(STATUSES))
    if unknown:
        raise InvalidRequest("statuses", f"statuses has {unknown[0]!r}: allowed are {', '.join(STATUSES)}")
    return frozenset(request.statuses)


def _parent_id(request: ListExecutionsRequest) -> str:
    if request.parent_execution_id:
        check_execution_id(request.parent_execution_id, "parent_execution_id")
    return request.parent_execution_id


def _time_ms(time_ms: int, field: str) -> int:
    if time_ms < 0:
        raise InvalidRequest(field, f"{field} is {time_ms}: it must be 0 (no bound) or milliseconds since the epoch")
    return time_ms


def _reply(request: ListExecutionsRequest, page: Page[Execution]) -> bytes:
    """As many of a page's executions as one reply may carry, with the token for what follows."""
    shown: list[Execution] = []
    complete_to = page.complete_to
    room_bytes = limits.REPLY_SIZE_BYTES_MAX
    for execution in page.items:
        room_bytes -= execution.ByteSize() + _FRAMING_SIZE_BYTES
        if room_bytes < 0 and shown:
            complete_to = _place(shown[-1])
            break
        shown.append(execution)
    token = "" if complete_to is None else _token(request, complete_to)
    return ListExecutionsResponse(executions=shown, next_page_token=token).SerializeToString()


def _filters_digest(request: ListExecutionsRequest) -> int:
    filters = ListExecutionsRequest()
    filters.CopyFrom(request)
    filters.ClearField("page_size")
    filters.ClearField("page_token")
    return zlib.crc32(filters.SerializeToString(deterministic=True))


def _token(request: ListExecutionsRequest, complete_to: tuple[int, str]) -> str:
    return _encoded(_filters_digest(request), complete_to)


def _encoded(digest: int, complete_to: tuple[int, str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([digest, *complete_to])).decode("ascii")


def _before(request: ListExecutionsRequest) -> tuple[int, str] | None:
    if not request.page_token:
        return None
    digest, complete_to = _decoded(request.page_token)
    if digest != _filters_digest(request):
        raise InvalidRequest("page_token", "page_token belongs to other filters: keep them while paging")
    return complete_to


def _decoded(token: str) -> tuple[int, tuple[int, str]]:
    """A digest of filters, and up to where their pages have gone. Raises InvalidRequest for what is no token."""
    try:
        digest, accepted_ms, execution_id = orjson.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, TypeError):
        digest = accepted_ms = execution_id = None
    is_typed = type(digest) is int and type(accepted_ms) is int and type(execution_id) is str
    # Decoding is lenient where encoding is not.
    if not is_typed or not 0 <= accepted_ms <= _INT64_MAX or _encoded(digest, (accepted_ms, execution_id)) != token:
        raise InvalidRequest("page_token", "page_token is none that ListExecutions gave")
    return digest, (accepted_ms, execution_id)


def _place(execution: Execution) -> tuple[int, str]:
    return execution.accepted_ms, execution.execution_id


def _execution(view: ExecutionView) -> Execution:
    execution = Execution(
        execution_id=view.execution_id,
        status=view.status,
        workflow_namespace=view.namespace,
        workflow_name=view.name,
        workflow_version=view.version,
        accepted_ms=view.accepted_ms,
        finished_ms=view.finished_ms,
        last_sequence_number=view.last_sequence,
        acknowledged_sequence_number=view.acknowledged_sequence,
        given_up_events=view.given_up_events,
        output_json=view.output_json,
        labels=view.labels,
        parent_execution_id=view.parent_id,
        document_metadata_json=view.document_metadata_json,
        waiting=view.waiting,
    )
    if view.error is not None:
        execution.error.CopyFrom(_error_details(view.error))
    if view.metadata:
        execution.metadata.CopyFrom(WorkflowMetadata.FromString(view.metadata))
    return execution


def _error_details(error: Mapping[str, Any]) -> ErrorDetails:
    """A DSL error as the terminal event has it. Takes any shape: one odd error must not make a whole listing fail."""
    kind, status = str(error.get("type") or ""), error.get("status")
    parts = [str(error[key]) for key in ("title", "detail") if error.get(key)]
    return ErrorDetails(
        code=_ERROR_CODES.get(kind, "EXECUTION_ERROR"),
        message=": ".join(parts) or kind,
        type=kind,
        status=status if isinstance(status, int) and abs(status) <= _INT32_MAX else 0,
        title=str(error.get("title") or ""),
        detail=str(error.get("detail") or ""),
        instance=str(error.get("instance") or ""),
    )
