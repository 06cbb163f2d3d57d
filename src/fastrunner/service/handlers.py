"""Stage 1, service: the handlers of every method, free of any transport.

A handler is found by canonical name and takes request bytes and call facts. A request about one execution that another
worker owns is passed on as it arrived. Execute is composed here, at the worker the client reached, of three requests to
the owner (submit, subscribe, cancel): so the end of that worker never looks like a client that went away.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    CancelExecutionRequest,
    PauseExecutionRequest,
    ResumeExecutionRequest,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import (
    DeleteExecutionRequest,
    GetExecutionRequest,
    SubscribeRequest,
)
from fastrunner._pb.fastrunner.router.v1.views_pb2 import EventView
from fastrunner.access.principal import check_namespace
from fastrunner.base import clock, limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Engine
from fastrunner.engine.schedules import ScheduleBook
from fastrunner.errors import NotServed, RunnerError, Unavailable, UnknownExecution, code_of
from fastrunner.progress.names import TERMINAL_EVENTS
from fastrunner.routing.facts import CallFacts, Router, peek_execution_id
from fastrunner.service.decode import check_execution_id, check_reason, parse
from fastrunner.service.events import Events, Publisher
from fastrunner.service.feed import Feed
from fastrunner.service.overload import Overload
from fastrunner.service.queries import Queries, first_sequence
from fastrunner.service.registry import Registry, WorkflowRegistry
from fastrunner.service.schedules import Schedules
from fastrunner.service.submissions import Batches, Submissions

logger = logging.getLogger(__name__)

_CLIENT_GONE: Final = "client went away"
_EMPTY: Final = b""

Handler = Callable[[bytes, CallFacts], bytes | Awaitable[bytes]]


class Service:
    """Answers every method on behalf of one worker."""

    def __init__(
        self,
        engine: Engine,
        router: Router,
        metrics: Metrics,
        is_short_handed: Callable[[], bool] = lambda: False,
        registry: WorkflowRegistry | None = None,
        bus: Publisher | None = None,
        schedules: ScheduleBook | None = None,
    ) -> None:
        """`is_short_handed`: see `Overload`; `registry`, `bus`, `schedules`: None: there is none, and its methods are
        not served; schedules want a registry."""
        self._engine = engine
        self._router = router
        self._metrics = metrics
        # Looking a label up costs as much as counting.
        self._overloads = metrics.executions_rejected.labels("Overload")
        self.overload = Overload(lambda: engine.is_late, is_short_handed)
        """The pace of submissions; the transport reports to it how long calls wait."""
        self._stopping = False
        self._afterwards: set[asyncio.Task[None]] = set()
        queries = Queries(engine, router, self._admit)
        self._feed = Feed(engine, router)
        self._submissions = Submissions(engine, router, metrics)
        batches = Batches(router, self._submissions, self._admit)
        self._of_owner: dict[str, Handler] = {
            "CancelExecution": self._cancel,
            "PauseExecution": self._pause,
            "ResumeExecution": self._resume,
            "DeleteExecution": self._delete,
            "GetExecution": queries.get_execution,
            "GetDocument": queries.get_document,
            "GetEvents": queries.get_events,
        }
        self._of_anyone: dict[str, Handler] = {
            "ExecuteAsync": self._submissions.execute_async,
            "ExecuteAsyncBatch": batches.execute,
            "CountExecutions": queries.count_executions,
            "ListExecutions": queries.list_executions,
            "ValidateWorkflow": queries.validate_workflow,
            "ReportProgress": _refuse("ReportProgress is served by whoever receives progress; the runner calls it"),
            "ReportProgressBatch": _refuse(
                "ReportProgressBatch is served by whoever receives progress; the runner calls it"
            ),
        }

        if registry is not None:
            of_registry = Registry(engine, registry, self._admit)
            self._of_anyone |= {
                "RegisterWorkflow": of_registry.register,
                "GetWorkflow": of_registry.get,
                "ListWorkflows": of_registry.list,
                "DeleteWorkflow": of_registry.delete,
            }
        if bus is not None:
            self._of_anyone["SendEvents"] = Events(bus).send
        if registry is not None and schedules is not None:
            of_schedules = Schedules(engine, schedules, registry, self._admit)
            self._of_anyone |= {
                "AddSchedule": of_schedules.add,
                "ListSchedules": of_schedules.list,
                "PauseSchedule": of_schedules.pause,
                "ResumeSchedule": of_schedules.resume,
                "DeleteSchedule": of_schedules.delete,
                "FireSchedule": of_schedules.fire,
                "BackfillSchedule": of_schedules.backfill,
            }

    def handle_unary(self, method: str, payload: bytes, facts: CallFacts) -> bytes | Awaitable[bytes]:
        """The reply to a unary method by canonical name, now or later; raises RunnerError now or later."""
        handler = self._of_owner.get(method)
        if handler is None:
            handler = self._of_anyone.get(method)
            if handler is None:
                raise NotServed(f"there is no unary method {method}")
            return handler(payload, facts)
        if not facts.local:
            owners = self._router.owners_of(peek_execution_id(payload))
            if len(owners) > 1:
                return self._ask_all(owners, method, payload, facts)
            if owners and owners[0] != self._router.worker:
                return self._router.forward(owners[0], method, payload, facts)
        return self._answer(handler, payload, facts)

    def _answer(self, handler: Handler, payload: bytes, facts: CallFacts) -> bytes | Awaitable[bytes]:
        """Has this worker answer a request about one execution, if the caller may see it."""
        if facts.principal is None or facts.principal.namespaces is None:
            return handler(payload, facts)
        return self._answer_within(handler, payload, facts)

    async def _answer_within(self, handler: Handler, payload: bytes, facts: CallFacts) -> bytes:
        await self._check_namespace(peek_execution_id(payload), facts)
        return await _reply(handler(payload, facts))

    async def _check_namespace(self, execution_id: str, facts: CallFacts) -> None:
        """Raises PermissionDenied for an execution of a namespace that the caller has no access to."""
        if facts.principal is not None and facts.principal.namespaces is not None:
            check_namespace(facts.principal, (await self._engine.get(execution_id)).namespace)

    async def _ask_all(self, owners: Sequence[int], method: str, payload: bytes, facts: CallFacts) -> bytes:
        """Asks one worker after the other until one has the execution."""
        for owner in owners[:-1]:
            try:
                return await _reply(self._ask(owner, method, payload, facts))
            except RunnerError as error:
                if code_of(error) != UnknownExecution.grpc_code:
                    raise
        return await _reply(self._ask(owners[-1], method, payload, facts))

    def _ask(self, owner: int, method: str, payload: bytes, facts: CallFacts) -> bytes | Awaitable[bytes]:
        if owner == self._router.worker:
            return self._answer(self._of_owner[method], payload, facts)
        return self._router.forward(owner, method, payload, facts)

    def handle_stream(self, method: str, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        """The reply of a streaming method by canonical name; raises RunnerError while it is iterated.

        Close it when nobody reads it any more.
        """
        if method == "Execute":
            return self._execute(payload, facts)
        if method == "Subscribe":
            return self._subscribe(payload, facts)
        if method == "SubscribeAll":
            return self._feed.subscribe_all(payload, facts)
        raise NotServed(f"there is no streaming method {method}")

    def stop(self) -> None:
        """From now on a stream that is closed does not mean that its client went away."""
        self._stopping = True

    async def close(self, timeout_s: float) -> None:
        """Lets the commands for clients that went away finish, for at most `timeout_s`."""
        if self._afterwards:
            _, late = await asyncio.wait(self._afterwards, timeout=timeout_s)
            for task in late:
                task.cancel()

    # --- commands ---

    def refusal(self, client: str, count: int = 1) -> RunnerError | None:
        """Why so many executions of a client are not taken now. Ask before a submission is read: it is cheap."""
        refusal = self.overload.refusal(client, count)
        if refusal is not None:
            self._overloads.inc(count)
        return refusal

    def _admit(self, client: str, count: int) -> None:
        refusal = self.refusal(client, count)
        if refusal is not None:
            raise refusal

    def _cancel(self, payload: bytes, facts: CallFacts) -> Awaitable[bytes]:  # noqa: ARG002 - a Handler
        request = parse(CancelExecutionRequest, payload)
        check_execution_id(request.execution_id, "execution_id")
        return _emptied(self._engine.cancel(request.execution_id, check_reason(request.reason), request.force))

    def _pause(self, payload: bytes, facts: CallFacts) -> Awaitable[bytes]:  # noqa: ARG002 - a Handler
        request = parse(PauseExecutionRequest, payload)
        check_execution_id(request.execution_id, "execution_id")
        return _emptied(self._engine.pause(request.execution_id, check_reason(request.reason)))

    def _resume(self, payload: bytes, facts: CallFacts) -> Awaitable[bytes]:  # noqa: ARG002 - a Handler
        request = parse(ResumeExecutionRequest, payload)
        check_execution_id(request.execution_id, "execution_id")
        return _emptied(self._engine.resume(request.execution_id, check_reason(request.reason)))

    def _delete(self, payload: bytes, facts: CallFacts) -> Awaitable[bytes]:  # noqa: ARG002 - a Handler
        request = parse(DeleteExecutionRequest, payload)
        check_execution_id(request.execution_id, "execution_id")
        return _emptied(self._engine.delete(request.execution_id))

    # --- streams ---

    async def _subscribe(self, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        request = parse(SubscribeRequest, payload)
        check_execution_id(request.execution_id, "execution_id")
        following = first_sequence(request.from_sequence_number)
        owners = () if facts.local else self._router.owners_of(request.execution_id)
        owner = owners[0] if owners else self._router.worker
        if len(owners) > 1:
            owner = await self._holder(owners, request.execution_id, facts)
        if owner == self._router.worker:
            await self._check_namespace(request.execution_id, facts)
            events = self._engine.subscribe(request.execution_id, following)
        else:
            events = self._follow(owner, request, facts)
        last = _EMPTY
        try:
            async for event in events:
                last = event
                yield event
        finally:
            await events.aclose()
        if last and not _is_terminal(last):
            raise Unavailable(f"the stream was interrupted: Subscribe from sequence number {_sequence(last) + 1}")

    async def _holder(self, owners: Sequence[int], execution_id: str, facts: CallFacts) -> int:
        """The one of several workers that has the execution."""
        payload = GetExecutionRequest(execution_id=execution_id).SerializeToString()
        for owner in owners[:-1]:
            try:
                await _reply(self._ask(owner, "GetExecution", payload, facts))
            except RunnerError as error:
                if code_of(error) != UnknownExecution.grpc_code:
                    raise
            else:
                return owner
        return owners[-1]

    async def _follow(self, owner: int, request: SubscribeRequest, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        """The owner's stream; when the owner is replaced, its successor's from the next event on."""
        ended = False
        while not ended:
            opened_s, last = clock.monotonic_s(), _EMPTY
            events = self._router.forward_stream(owner, "Subscribe", request.SerializeToString(), facts)
            try:
                async for event in events:
                    last = event
                    yield event
                ended = True
            except RunnerError as error:
                broke_early = clock.monotonic_s() - opened_s < limits.SUBSCRIPTION_RESUME_INTERVAL_S_MIN
                if self._stopping or code_of(error) != Unavailable.grpc_code or (broke_early and not last):
                    raise
            finally:
                await events.aclose()
            if last:
                request.from_sequence_number = _sequence(last) + 1

    async def _execute(self, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        self._admit(facts.peer, 1)
        execution_id = peek_execution_id(payload)
        accepted = asyncio.ensure_future(_reply(self.handle_unary("ExecuteAsync", payload, facts)))
        # It may be megabytes, and the stream lasts for hours.
        del payload
        last = _EMPTY
        events: AsyncGenerator[bytes, None] | None = None
        try:
            await asyncio.shield(accepted)
            request = SubscribeRequest(execution_id=execution_id, from_sequence_number=1)
            events = self._subscribe(request.SerializeToString(), facts)
            async for event in events:
                last = event
                yield event
        except (GeneratorExit, asyncio.CancelledError):
            if not (self._stopping or facts.is_turned_away or _is_terminal(last)):
                self._later(self._abandon(execution_id, accepted, facts))
            raise
        finally:
            if events is not None:
                await events.aclose()

    async def _abandon(self, execution_id: str, accepted: Awaitable[bytes], facts: CallFacts) -> None:
        """Cancels the execution of an Execute call whose client is gone."""
        request = CancelExecutionRequest(execution_id=execution_id, reason=_CLIENT_GONE)
        try:
            await accepted
            await _reply(
                self.handle_unary(
                    "CancelExecution",
                    request.SerializeToString(),
                    CallFacts(peer=facts.peer, deadline_ms=0, local=facts.local, principal=facts.principal),
                )
            )
        except RunnerError as error:
            # Refused, ended meanwhile, or the owner is down: there is nobody left to tell.
            logger.info("an execution outlives its client: %s", error.message, extra={"execution_id": execution_id})

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)


def _refuse(sentence: str) -> Handler:
    def handler(payload: bytes, facts: CallFacts) -> bytes:  # noqa: ARG001 - a Handler
        raise NotServed(sentence)

    return handler


async def _reply(reply: bytes | Awaitable[bytes]) -> bytes:
    return reply if isinstance(reply, bytes) else await reply


async def _emptied(command: Awaitable[None]) -> bytes:
    await command
    return _EMPTY


def _is_terminal(event: bytes) -> bool:
    return EventView.FromString(event).event_type in TERMINAL_EVENTS


def _sequence(event: bytes) -> int:
    return EventView.FromString(event).sequence_number
