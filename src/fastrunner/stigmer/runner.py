"""Support: the Stigmer Service's client of a runner: executions to start, commands for those that run.

Rules: a token is in no message; every call has a deadline; what the runner refuses
is raised as it said it.
"""

from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    ExecuteAsyncBatchResult,
    WorkflowExecuteInput,
)
from fastrunner.access.principal import Principal
from fastrunner.base import limits
from fastrunner.errors import ForwardedError, RunnerError, Unavailable, UnknownExecution, code_of
from fastrunner.stigmer.reports import SERVICE

__all__ = ["RunnerClient"]

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    # Left alone, gRPC waits up to two minutes before it connects again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_send_message_length", limits.REQUEST_SIZE_BYTES_MAX),
)


_REGISTRY: Final = "ai.stigmer.workflow.runner.v1.WorkflowRegistryController"
_QUERY: Final = "ai.stigmer.workflow.runner.v1.WorkflowRunnerQueryController"
_SERVICES: Final = {
    "GetExecution": _QUERY,
    **dict.fromkeys(
        ("AddSchedule", "DeleteSchedule", "FireSchedule", "ListSchedules", "PauseSchedule", "ResumeSchedule"), _REGISTRY
    ),
}
"""Of methods that the command service does not have."""


class RunnerClient:
    """Calls one runner; made on the loop that uses it."""

    def __init__(
        self, target: str, metadata: tuple[tuple[str, str], ...], credentials: grpc.ChannelCredentials | None
    ) -> None:
        """`target` is host:port; `metadata` goes with every call; without credentials there is no TLS."""
        self._target = target
        self._metadata = metadata
        self._channel = (
            grpc.aio.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        )

    async def execute(self, requests: Sequence[bytes]) -> Sequence[ExecuteAsyncBatchResult]:
        """What becomes of each encoded WorkflowExecuteInput, in their order. Raises RunnerError."""
        request = ExecuteAsyncBatchRequest(executions=map(WorkflowExecuteInput.FromString, requests))
        reply = await self._call("ExecuteAsyncBatch", request)
        try:
            return ExecuteAsyncBatchResponse.FromString(reply).results
        except DecodeError:
            raise self._no_reply() from None

    async def find(self, execution_id: str, timeout_s: float) -> query_pb2.Execution:
        """An execution as the runner has it. Raises UnknownExecution, and RunnerError where it cannot be asked."""
        request = query_pb2.GetExecutionRequest(execution_id=execution_id)
        try:
            reply = await self._call("GetExecution", request, timeout_s)
        except ForwardedError as error:
            if code_of(error) == UnknownExecution.grpc_code:
                raise UnknownExecution(execution_id) from None
            raise
        try:
            return query_pb2.GetExecutionResponse.FromString(reply).execution
        except DecodeError:
            raise self._no_reply() from None

    async def call(self, method: str, request: Message, _principal: Principal | None) -> bytes:
        """See web.api.runner.Calls. Who calls is the service, whoever asks it. Raises RunnerError."""
        return await self._call(method, request)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close(None)

    def _no_reply(self) -> Unavailable:
        return Unavailable(f"what the runner at {self._target} answers is no reply: is it a runner?")

    async def _call(self, method: str, request: Any, timeout_s: float | None = None) -> bytes:
        call: Any = self._channel.unary_unary(f"/{_SERVICES.get(method, SERVICE)}/{method}", None, None)
        try:
            reply: bytes = await call(
                request.SerializeToString(),
                timeout=limits.STIGMER_RUNNER_CALL_S_MAX if timeout_s is None else timeout_s,
                metadata=self._metadata,
            )
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error) from None
        return reply

    def _refusal(self, error: grpc.aio.AioRpcError) -> RunnerError:
        code, words = error.code(), error.details() or ""
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            return Unavailable(f"the runner at {self._target} does not answer ({code.name}: {words}): try again")
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            # The caller of the service has proved itself: it is the service whom the runner does not know.
            return Unavailable(f"the runner at {self._target} does not let this service in ({code.name}: {words})")
        return ForwardedError(int(code.value[0]), words, b"")
