"""Stage 3, journal: commands to executions and queries about them, through a client of Temporal.

Rules: what is asked of a workflow has a deadline, for without a worker nobody answers. A workflow that has ended takes
no command: its status says what that comes to, as `run/commands.py` has it. Listings are from visibility, which is a
moment behind; there an execution was accepted when its current history began, by which they are ordered.
"""

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
)
from temporalio.client import WorkflowExecution as Listed
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import clock, limits
from fastrunner.engine import ExecutionPage, ExecutionQuery, ExecutionView
from fastrunner.engine.pages import Page
from fastrunner.engine.temporal.client import Connection, is_late, unavailable
from fastrunner.engine.temporal.handover import report_id_of
from fastrunner.engine.temporal.instances import OF_ENDED, TOO_EARLY
from fastrunner.engine.temporal.messages import (
    ANSWER_QUERY,
    CONTROL_SIGNAL,
    EVENTS_QUERY,
    VIEW_QUERY,
    WALK,
    Control,
    WalkStart,
)
from fastrunner.engine.temporal.starts import ATTRIBUTES, LABELS, Memo
from fastrunner.engine.temporal.telling import tell_id_of
from fastrunner.engine.temporal.visibility import quoted
from fastrunner.errors import Stopping, TooLarge, Unavailable, UnknownExecution, WrongState
from fastrunner.progress.names import FINAL_STATUSES, STATUSES, TERMINAL_EVENTS
from fastrunner.progress.wire import split

__all__ = ["Executions"]

_ANSWER: Final = timedelta(seconds=limits.TEMPORAL_ANSWER_S_MAX)
_ONE_ANSWER: Final = _ANSWER / 2
_ENDED_FROM_OUTSIDE: Final = (WorkflowExecutionStatus.TERMINATED, WorkflowExecutionStatus.TIMED_OUT)
_STILL_NEEDED: Final = "execution {!r} has not ended, or its events are still to be reported"
_OUTSIDE: Final = "('Terminated', 'TimedOut')"
"""The same in queries to visibility."""
_BY_END: Final = {
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
}
"""What an execution came to, where its workflow has not said otherwise."""
_PHASE: Final = SearchAttributeKey.for_keyword(ATTRIBUTES[-1])

# The class has a method called `list`, so annotations within it cannot say it.
_Messages = list[bytes]
_Views = list[ExecutionView]


class Executions:
    """All executions of a Temporal namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _client(self) -> Client:
        return self._connection.client

    async def register_attributes(self) -> None:
        """Adds the search attributes that the namespace does not have. Raises RPCError."""
        namespace = self._client.namespace
        operator = self._client.operator_service
        known = await operator.list_search_attributes(ListSearchAttributesRequest(namespace=namespace))
        kinds = dict.fromkeys(ATTRIBUTES, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD)
        kinds[LABELS] = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST
        missing = {name: kind for name, kind in kinds.items() if name not in known.custom_attributes}
        if missing:
            try:
                await operator.add_search_attributes(
                    AddSearchAttributesRequest(namespace=namespace, search_attributes=missing)
                )
            except RPCError as error:
                if error.status is not RPCStatusCode.ALREADY_EXISTS:
                    raise

    # --- commands ---

    async def cancel(self, execution_id: str, reason: str) -> None:
        """Asks for a graceful cancel, and waits until a worker has confirmed that nothing ended the execution before.
        Durable also if none does in time. Raises UnknownExecution, WrongState, Unavailable."""
        description = await self._description(execution_id)
        if _is_open(description) and _status(description) not in FINAL_STATUSES:
            try:
                handle = self._client.get_workflow_handle(execution_id)
                await handle.cancel(reason=reason, rpc_timeout=_ANSWER)
            except RPCError as error:
                # Somebody may have asked before, or it has ended meanwhile.
                if error.status not in (RPCStatusCode.ALREADY_EXISTS, RPCStatusCode.NOT_FOUND):
                    raise unavailable(error) from None
            await self._check_came_in_time(execution_id)
        else:
            _check_ended(execution_id, _status(description), "cancelled")

    async def _check_came_in_time(self, execution_id: str) -> None:
        """A worker may have been about to end it: only one of them knows. Raises WrongState, Unavailable."""
        try:
            async with asyncio.timeout(limits.TEMPORAL_ANSWER_S_MAX):
                _, view = await self._look(execution_id)
        except (TimeoutError, Unavailable):
            raise Unavailable(
                "Temporal has the cancel, and no worker of the runner has confirmed in time that nothing ended the "
                "execution before it: try again"
            ) from None
        if view["status"] in FINAL_STATUSES:
            _check_ended(execution_id, view["status"], "cancelled")

    async def control(self, execution_id: str, verb: str, reason: str, done: str) -> None:
        """Has an execution do something, and waits until it has. `done`: what it cannot be once it has ended. Raises
        UnknownExecution, WrongState, Unavailable."""
        description = await self._description(execution_id)
        if not _is_open(description) or _status(description) in FINAL_STATUSES:
            _check_ended(execution_id, _status(description), done)
            return
        command = Control(verb, reason, uuid4().hex)
        try:
            handle = self._client.get_workflow_handle(execution_id)
            await handle.signal(CONTROL_SIGNAL, command, rpc_timeout=_ANSWER)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise unavailable(error) from None
        try:
            async with asyncio.timeout(limits.TEMPORAL_ANSWER_S_MAX):
                await self._check_answer(execution_id, command, done)
        except TimeoutError:
            raise Unavailable("no worker of the runner has answered in time: try again") from None

    async def _check_answer(self, execution_id: str, command: Control, done: str) -> None:
        """Waits until a command has been taken. Raises UnknownExecution, WrongState, Unavailable."""
        delay_s = limits.TEMPORAL_FOLLOW_INTERVAL_S / 16
        while True:
            answer: str | None = await self._ask(execution_id, ANSWER_QUERY, [command.command_id], str)
            if answer:
                raise WrongState(answer)
            if answer is not None:
                return
            description = await self._description(execution_id)
            if not _is_open(description):
                # It has ended before it could take the command.
                _check_ended(execution_id, _status(description), done)
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, limits.TEMPORAL_FOLLOW_INTERVAL_S)

    async def delete(self, execution_id: str) -> None:
        """Forgets a finished execution. Raises UnknownExecution, WrongState, Unavailable."""
        if _is_open(await self._description(execution_id)):
            raise WrongState(_STILL_NEEDED.format(execution_id))
        rest_ids = [report_id_of(execution_id), tell_id_of(execution_id)]
        ends = [await self._is_ended(rest_id) for rest_id in rest_ids]
        if False in ends:
            raise WrongState(_STILL_NEEDED.format(execution_id))
        for rest_id, is_ended in zip(rest_ids, ends, strict=True):
            if is_ended:
                await self._delete(rest_id)
        await self._delete(execution_id)

    async def _is_ended(self, workflow_id: str) -> bool | None:
        """Whether a workflow has ended; None if there is none. Raises Unavailable."""
        try:
            return not _is_open(await self._client.get_workflow_handle(workflow_id).describe(rpc_timeout=_ANSWER))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise unavailable(error) from None

    async def _delete(self, workflow_id: str) -> None:
        try:
            await self._client.workflow_service.delete_workflow_execution(
                DeleteWorkflowExecutionRequest(
                    namespace=self._client.namespace,
                    workflow_execution=WorkflowExecution(workflow_id=workflow_id),
                ),
                timeout=_ANSWER,
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise unavailable(error) from None

    # --- queries ---

    async def memo(self, execution_id: str) -> Memo:
        """What it was accepted with. Raises UnknownExecution, Unavailable."""
        return await _memo(await self._description(execution_id))

    async def get(self, execution_id: str) -> ExecutionView:
        """Raises UnknownExecution, Unavailable; TooLarge where no payload has room for its output."""
        description, view = await self._look(execution_id)
        if not view.get("output_is_known", True):
            bound = limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX
            raise TooLarge(f"execution {execution_id!r} is completed, and its output exceeds {bound} bytes")
        return _view(execution_id, await _memo(description), view["status"], view)

    async def _look(self, execution_id: str) -> tuple[WorkflowExecutionDescription, dict[str, Any]]:
        """What Temporal has of an execution, and what its workflow answers. Raises UnknownExecution, Unavailable."""
        description = await self._description(execution_id)
        view: dict[str, Any] = await self._ask(execution_id, VIEW_QUERY, [], dict[str, Any])
        if view.get("is_handed_over"):
            view["acknowledged"] = await self._acknowledged(execution_id, view["last_sequence"])
        if description.status in _ENDED_FROM_OUTSIDE:
            # Its workflow has not heard of that.
            view |= {"status": "cancelled", "finished_ms": _ms(description.close_time), "waiting": ""}
        return description, view

    async def _acknowledged(self, execution_id: str, last: int) -> int:
        """How much the receiver has of one whose last events another workflow reports."""
        try:
            view: dict[str, Any] = await self._ask(report_id_of(execution_id), VIEW_QUERY, [], dict[str, Any])
        except UnknownExecution:
            # It had reported everything when the namespace forgot it.
            return last
        return int(view["acknowledged"])

    async def events(self, execution_id: str, from_sequence: int, count_max: int) -> _Messages:
        """Encoded events that the workflow holds, in sequence. Raises UnknownExecution, Unavailable."""
        return split(await self._ask(execution_id, EVENTS_QUERY, [from_sequence, count_max], bytes))

    async def follow(
        self, execution_id: str, from_sequence: int, is_stopping: Callable[[], bool]
    ) -> AsyncGenerator[bytes, None]:
        """Events from one on as they come, up to the terminal one. Raises UnknownExecution, Unavailable, Stopping."""
        sequence = max(1, from_sequence)
        while True:
            if is_stopping():
                raise Stopping("the worker is stopping: try again")
            messages = await self.events(execution_id, sequence, limits.EVENTS_REPLAY_COUNT_MAX)
            for message in messages:
                event = WorkflowProgressEvent.FromString(message)
                sequence = event.sequence_number + 1
                yield message
                if event.event_type in TERMINAL_EVENTS:
                    return
            if not messages:
                _, view = await self._look(execution_id)
                if view["status"] in FINAL_STATUSES and view["last_sequence"] < sequence:
                    return
                await asyncio.sleep(limits.TEMPORAL_FOLLOW_INTERVAL_S)

    async def list(self, query: ExecutionQuery) -> ExecutionPage:
        """Newest first. Raises Unavailable."""
        views: _Views = []
        last_ms = 0
        found = self._client.list_workflows(
            _visibility(query), page_size=min(query.count_max + 1, 1000), rpc_timeout=_ANSWER
        )
        try:
            async for listed in found:
                memo = replace(await _memo(listed), accepted_ms=_ms(listed.start_time))
                view = _view(listed.id, memo, _status(listed), {"finished_ms": _ms(listed.close_time)})
                if len(views) > query.count_max and view.accepted_ms != last_ms:
                    break
                if _matches(query, view):
                    last_ms = view.accepted_ms
                    views.append(view)
        except RPCError as error:
            raise unavailable(error) from None
        # Those of one millisecond come in no order.
        views.sort(key=_place_of, reverse=True)
        if len(views) <= query.count_max:
            return Page(views)
        views = views[: query.count_max]
        return Page(views, _place_of(views[-1]))

    async def count(self, query: ExecutionQuery) -> Mapping[str, int]:
        """How many there are in each state. Raises Unavailable."""
        if query.namespaces is not None and not query.namespaces:
            return {}
        wanted = sorted(query.statuses) or sorted(STATUSES)
        try:
            found = await asyncio.gather(
                *(
                    self._client.count_workflows(
                        _visible_in(replace(query, statuses=frozenset((each,)))), rpc_timeout=_ANSWER
                    )
                    for each in wanted
                )
            )
        except RPCError as error:
            raise unavailable(error) from None
        return {status: counted.count for status, counted in zip(wanted, found, strict=True)}

    async def document(self, execution_id: str) -> str:
        """The text that it executes. Raises UnknownExecution, Unavailable."""
        await self._description(execution_id)
        events = self._client.get_workflow_handle(execution_id).fetch_history_events(page_size=1, rpc_timeout=_ANSWER)
        try:
            async for event in events:
                given = event.workflow_execution_started_event_attributes.input.payloads
                [start] = await self._client.data_converter.decode(given, [WalkStart])
                return str(start.document)
        except RPCError as error:
            raise unavailable(error) from None
        raise Unavailable(f"the history of execution {execution_id!r} is not there: try again")

    async def _description(self, execution_id: str) -> WorkflowExecutionDescription:
        handle = self._client.get_workflow_handle(execution_id)
        try:
            description = await handle.describe(rpc_timeout=_ANSWER)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise UnknownExecution(execution_id) from None
            raise unavailable(error) from None
        if description.workflow_type != WALK:
            # Somebody else's workflow.
            raise UnknownExecution(execution_id)
        return description

    async def _ask(self, execution_id: str, query: str, arguments: Sequence[Any], kind: Any) -> Any:
        handle = self._client.get_workflow_handle(execution_id)
        give_up_s = clock.monotonic_s() + limits.TEMPORAL_ANSWER_S_MAX
        try:
            while True:
                try:
                    return await handle.query(query, args=arguments, result_type=kind, rpc_timeout=_ONE_ANSWER)
                except WorkflowQueryFailedError as error:
                    if TOO_EARLY not in str(error) or clock.monotonic_s() > give_up_s:
                        raise
                except RPCError as error:
                    # A worker that hangs was asked: the next one may not.
                    if not is_late(error) or clock.monotonic_s() > give_up_s - limits.TEMPORAL_REMEMBERED_WAIT_S:
                        raise
                    continue
                if await self._is_ended(execution_id):
                    query = query.removesuffix(OF_ENDED) + OF_ENDED
                else:
                    await asyncio.sleep(limits.TEMPORAL_FOLLOW_INTERVAL_S / 16)
        except WorkflowQueryFailedError as error:
            raise Unavailable(f"the workflow of execution {execution_id!r} does not answer: {error}") from None
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise UnknownExecution(execution_id) from None
            raise unavailable(error) from None


def _is_open(description: Listed) -> bool:
    return description.status is WorkflowExecutionStatus.RUNNING


def _check_ended(execution_id: str, status: str, done: str) -> None:
    """Of an execution that has ended: nothing to do, or a refusal. Raises WrongState."""
    if not (done == "cancelled" and status == "cancelled"):
        raise WrongState(f"execution {execution_id!r} has ended ({status}): it cannot be {done}")


def _status(listed: Listed) -> str:
    """As visibility and the history have it: a workflow that somebody has terminated was cancelled."""
    if listed.status in _ENDED_FROM_OUTSIDE:
        return "cancelled"
    phase = str(listed.typed_search_attributes.get(_PHASE, "running"))
    if phase in FINAL_STATUSES or listed.status is None:
        return phase
    return _BY_END.get(listed.status, phase)


async def _memo(listed: Listed) -> Memo:
    entries = await listed.memo()
    known: Mapping[str, Any] = entries["fastrunner"]
    return Memo(**{"digest": "", **known})


def _view(execution_id: str, memo: Memo, status: str, more: Mapping[str, Any]) -> ExecutionView:
    last, acknowledged = more.get("last_sequence", 0), more.get("acknowledged", 0)
    return ExecutionView(
        execution_id=execution_id,
        status=status,
        namespace=memo.namespace,
        name=memo.name,
        version=memo.version,
        accepted_ms=memo.accepted_ms,
        finished_ms=more.get("finished_ms", 0),
        last_sequence=last,
        acknowledged_sequence=acknowledged,
        given_up_events=0 if more.get("reports", True) else last,
        output_json=more.get("output_json", ""),
        error=more.get("error"),
        metadata=b64decode(memo.metadata),
        labels=memo.labels or {},
        document_metadata_json=memo.document_metadata_json,
        parent_id=memo.parent_id,
        waiting=more.get("waiting", ""),
    )


def _visibility(query: ExecutionQuery) -> str:
    """The filter as Temporal's visibility has it; of what is left `_matches` decides."""
    namespace, name, version, phase = ATTRIBUTES
    parts = [f"WorkflowType = {quoted(WALK)}", "ExecutionStatus != 'ContinuedAsNew'"]
    wanted = ((namespace, query.namespace), (name, query.name), (version, query.version))
    parts += [f"{key} = {quoted(value)}" for key, value in wanted if value]
    if query.statuses and "cancelled" not in query.statuses:
        ends = [quoted(end.name.title()) for end, status in _BY_END.items() if status in query.statuses]
        phases = f"{phase} IN ({', '.join(quoted(status) for status in sorted(query.statuses))})"
        parts.append(f"({phases} OR ExecutionStatus IN ({', '.join(ends)}))" if ends else phases)
    parts += [f"{LABELS} = {quoted(f'{key}={value}')}" for key, value in query.labels]
    ends_ms = [query.accepted_until_ms] if query.accepted_until_ms else []
    if query.before is not None:
        ends_ms.append(query.before[0] + 1)
    if ends_ms:
        parts.append(f"StartTime < {_moment(min(ends_ms))}")
    if query.accepted_from_ms:
        parts.append(f"StartTime >= {_moment(query.accepted_from_ms)}")
    return " AND ".join(parts)


def _visible_in(query: ExecutionQuery) -> str:
    """The filter of a count, which nothing is looked at after: of one state, exactly as `_status` has it."""
    [status] = query.statuses
    namespace, *_, phase = ATTRIBUTES
    parts = [_visibility(replace(query, statuses=frozenset()))]
    if status in FINAL_STATUSES:
        [end] = [quoted(each.name.title()) for each, end_status in _BY_END.items() if end_status == status]
        finals = ", ".join(quoted(each) for each in sorted(FINAL_STATUSES))
        unsaid = f"ExecutionStatus = {end} AND {phase} NOT IN ({finals})"
        from_within = f"ExecutionStatus NOT IN {_OUTSIDE} AND ({phase} = {quoted(status)} OR ({unsaid}))"
        parts.append(
            f"({from_within})" if status != "cancelled" else f"(({from_within}) OR ExecutionStatus IN {_OUTSIDE})"
        )
    else:
        parts.append(f"{phase} = {quoted(status)} AND ExecutionStatus = 'Running'")
    if query.namespaces is not None:
        parts.append(f"{namespace} IN ({', '.join(map(quoted, sorted(query.namespaces)))})")
    return " AND ".join(parts)


def _matches(query: ExecutionQuery, view: ExecutionView) -> bool:
    if query.statuses and view.status not in query.statuses:
        return False
    if query.namespaces is not None and view.namespace not in query.namespaces:
        return False
    if query.parent_id and view.parent_id != query.parent_id:
        return False
    return query.before is None or _place_of(view) < query.before


def _place_of(view: ExecutionView) -> tuple[int, str]:
    return view.accepted_ms, view.execution_id


def _moment(at_ms: int) -> str:
    return quoted(datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds"))


def _ms(at: datetime | None) -> int:
    return 0 if at is None else int(at.timestamp() * 1000)
