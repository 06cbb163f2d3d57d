"""Support: the gRPC side of the Stigmer Service: ReportProgress and ReportProgressBatch.

Rules: what is acknowledged is durable; the number acknowledged is the highest one without a gap before it, of what the
store has, not of what came; a caller proves itself before its bytes are looked at. Too much at once is
RESOURCE_EXHAUSTED, a store that cannot be written UNAVAILABLE: the runner keeps what it was not acknowledged.
"""

import hmac
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ProgressAcknowledgement,
    ProgressAckResponse,
    ReportProgressBatchResponse,
    WorkflowProgressEvent,
)
from fastrunner.counts.definitions import StigmerMetrics
from fastrunner.errors import RunnerError, code_of
from fastrunner.progress.wire import frames
from fastrunner.stigmer.counted import count_taken
from fastrunner.stigmer.followers import Followers
from fastrunner.stigmer.ids import id_refusal
from fastrunner.stigmer.store import Arrived, Store, Taken

__all__ = ["SERVICE", "Reports"]

SERVICE: Final = "ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController"
_SPELLINGS: Final = (
    ("ReportProgress", "report_progress", "reportProgress"),
    ("ReportProgressBatch", "report_progress_batch", "reportProgressBatch"),
)
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Reports:
    """Takes what runners report; handlers take bytes and give bytes."""

    def __init__(self, store: Store, followers: Followers, metrics: StigmerMetrics, token: str | None) -> None:
        """`token` is what callers must send as `authorization: Bearer`; None: nothing."""
        self._store = store
        self._followers = followers
        self._metrics = metrics
        self._expected = f"Bearer {token}".encode() if token else b""
        self.is_draining = False
        """Whether new reports are refused, so that they go to a successor."""

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """For a server of grpc.aio; every spelling of the methods answers."""
        handlers = {
            spelling: grpc.unary_unary_rpc_method_handler(handler)
            for spellings, handler in zip(_SPELLINGS, (self.report, self.report_batch), strict=True)
            for spelling in spellings
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def report(self, request: bytes, context: Any) -> bytes:
        """ReportProgress: one event, kept when this answers, whether or not one before it is missing."""
        await self._admit(context)
        await self._take([await self._decode(request, context)], context)
        return ProgressAckResponse(success=True).SerializeToString()

    async def report_batch(self, request: bytes, context: Any) -> bytes:
        """ReportProgressBatch: several events, of several executions, in any order."""
        await self._admit(context)
        try:
            places = frames(request)
            events = [await self._decode(request[start:end], context) for start, end in places]
        except ValueError as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"not a ReportProgressBatchRequest: {error}")
        taken = await self._take(events, context) if events else Taken()
        return ReportProgressBatchResponse(
            acknowledgements=[
                ProgressAcknowledgement(workflow_execution_id=execution_id, sequence_number=sequence)
                for execution_id, sequence in taken.acknowledged.items()
            ]
        ).SerializeToString()

    async def _admit(self, context: Any) -> None:
        if self._expected:
            given = next((value for key, value in context.invocation_metadata() or () if key == "authorization"), "")
            given = given.encode("utf-8", "replace") if isinstance(given, str) else given
            if not hmac.compare_digest(given, self._expected):
                await self._refuse(
                    context,
                    grpc.StatusCode.UNAUTHENTICATED,
                    "no or wrong bearer token: set the runner's STIGMER_SERVICE_API_KEY to the token of this service",
                )
        if self.is_draining:
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, "the service stops: send it again")

    async def _decode(self, message: bytes, context: Any) -> Arrived:
        wrong = grpc.StatusCode.INVALID_ARGUMENT
        try:
            event = WorkflowProgressEvent.FromString(message)
        except DecodeError:
            await self._refuse(context, wrong, "not a WorkflowProgressEvent")
        refusal = id_refusal(event.workflow_execution_id)
        if refusal:
            await self._refuse(context, wrong, f"workflow_execution_id: {refusal}")
        if event.sequence_number < 1:
            await self._refuse(context, wrong, f"sequence_number is {event.sequence_number}: numbers begin at 1")
        return Arrived(event, message)

    async def _take(self, events: Sequence[Arrived], context: Any) -> Taken:
        try:
            taken = await self._store.take(events)
        except RunnerError as error:
            await self._refuse(context, _CODES[code_of(error)], error.message)
        count_taken(self._metrics, taken)
        self._followers.tell(taken.told)
        return taken

    async def _refuse(self, context: Any, code: grpc.StatusCode, words: str) -> NoReturn:
        self._metrics.reports_refused.labels(code.name).inc()
        await context.abort(code, words)
        raise AssertionError("abort raises")
