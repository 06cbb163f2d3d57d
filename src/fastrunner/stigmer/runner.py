"""Support: the Stigmer Service's client of a runner: executions to start, commands for those that run.

Rules: a token is in no message; every call has a deadline; what the runner refuses
is raised as it said it.
"""

from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    CancelExecutionRequest,
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    ExecuteAsyncBatchResult,
    PauseExecutionRequest,
    ResumeExecutionRequest,
    WorkflowExecuteInput,
)
from fastrunner.base import limits
from fastrunner.errors import ForwardedError, RunnerError, Unavailable
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
            raise Unavailable(f"what the runner at {self._target} answers is no reply: is it a runner?") from None

    async def cancel(self, execution_id: str, reason: str, force: bool) -> None:
        """Ends an execution early. Raises RunnerError."""
        request = CancelExecutionRequest(execution_id=execution_id, reason=reason, force=force)
        await self._call("CancelExecution", request)

    async def pause(self, execution_id: str, reason: str) -> None:
        """Stops an execution before its next task. Raises RunnerError."""
        await self._call("PauseExecution", PauseExecutionRequest(execution_id=execution_id, reason=reason))

    async def resume(self, execution_id: str, reason: str) -> None:
        """Lets a paused execution go on. Raises RunnerError."""
        await self._call("ResumeExecution", ResumeExecutionRequest(execution_id=execution_id, reason=reason))

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close(None)

    async def _call(self, method: str, request: Any) -> bytes:
        call: Any = self._channel.unary_unary(f"/{SERVICE}/{method}", None, None)
        try:
            reply: bytes = await call(
                request.SerializeToString(), timeout=limits.STIGMER_RUNNER_CALL_S_MAX, metadata=self._metadata
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
