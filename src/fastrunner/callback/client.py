"""Stage 7, callback: one kept channel to Stigmer Service, and what each of its answers means.

Rules: bytes go out as they were stored; every attempt has a deadline; the key is sent, never shown; gRPC's own retries
are off, because attempts are counted here; a receiver's words are cut short, and shown on one line.
"""

import asyncio
import logging
from enum import Enum
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ProgressAckResponse, ReportProgressBatchResponse
from fastrunner.base import crash
from fastrunner.base.crash import CrashPoint
from fastrunner.base.printable import printable
from fastrunner.callback.credentials import Credentials
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.tracing.context import current_headers

__all__ = ["DeliveryFailed", "ProgressClient", "Reaction", "Reporter"]

_log = logging.getLogger(__name__)
_SERVICE = "/ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController/"
_REASON_SIZE_MAX = 200
_NO_REPLY = "the reply does not parse"
_HINTS = (
    (
        "WRONG_VERSION_NUMBER",
        True,
        "the receiver does not speak TLS: set STIGMER_SERVICE_USE_TLS=false if it is not meant to",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        True,
        "nobody trusted vouches for the receiver's certificate: FASTRUNNER_CALLBACK_CA_FILE names a private authority",
    ),
    ("Socket closed", False, "if the receiver speaks TLS, set STIGMER_SERVICE_USE_TLS=true"),
    ("Connection reset", False, "if the receiver speaks TLS, set STIGMER_SERVICE_USE_TLS=true"),
)
"""What gRPC says when a connection cannot begin, with or without TLS on our side, and the setting that it is about."""
_TAKEN = ProgressAckResponse(success=True).SerializeToString()
"""What nearly every receiver answers."""
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_retries", 0),
    # Left alone, gRPC waits up to two minutes before it connects again; the breaker already paces attempts.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Only while calls are under way: servers in their default settings close connections that ping when idle. Being on,
    # it also makes the kernel give up a connection whose peer vanished without a word.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
)


class Reaction(Enum):
    """What a failed attempt asks for."""

    RETRY = "retry"
    """The receiver or the way to it is unwell: try again, then suspend."""
    RETRY_THEN_SPLIT = "retry, then split"
    """The receiver answered, perhaps because of one event: try again, then look for it."""
    SPLIT = "split"
    """The receiver refuses something in the message: sending it again is pointless, look for it."""
    FALL_BACK = "fall back"
    """The receiver has no such method."""
    SUSPEND = "suspend"
    """The receiver does not know us: no attempt will do better soon."""


_REACTIONS = {
    grpc.StatusCode.UNAVAILABLE: Reaction.RETRY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reaction.RETRY,
    grpc.StatusCode.CANCELLED: Reaction.RETRY,
    grpc.StatusCode.ABORTED: Reaction.RETRY,
    grpc.StatusCode.INVALID_ARGUMENT: Reaction.SPLIT,
    grpc.StatusCode.FAILED_PRECONDITION: Reaction.SPLIT,
    grpc.StatusCode.OUT_OF_RANGE: Reaction.SPLIT,
    grpc.StatusCode.UNIMPLEMENTED: Reaction.FALL_BACK,
    grpc.StatusCode.UNAUTHENTICATED: Reaction.SUSPEND,
    grpc.StatusCode.PERMISSION_DENIED: Reaction.SUSPEND,
}


class DeliveryFailed(Exception):
    """An attempt failed; `reason` is for logs and holds no secret."""

    def __init__(self, reaction: Reaction, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.reaction = reaction
        """What it asks for."""
        self.code = code
        """Name of the gRPC status code; NOT_TAKEN or UNREADABLE for an answer, NOT_SENT where there was no call."""


class Reporter(Protocol):
    """What deliveries need of a client."""

    async def report_batch(self, request: bytes, patient: bool) -> dict[str, int]:
        """Sends a ReportProgressBatchRequest; gives the acknowledged sequence number by execution.

        `patient` waits for the connection within the deadline instead of failing while there is none. Raises
        DeliveryFailed.
        """

    async def report(self, event: bytes, patient: bool) -> None:
        """Sends one WorkflowProgressEvent. Raises DeliveryFailed, also when the receiver did not take it."""

    async def close(self) -> None:
        """Ends the connection."""


class ProgressClient:
    """Calls ReportProgress and ReportProgressBatch; made on the loop that uses it."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        if not config.stigmer_service_endpoint:
            raise ValueError("callbacks need STIGMER_SERVICE_ENDPOINT; without it there is nothing to deliver to")
        self._timeout_s = config.callback_timeout_s
        self._metrics = metrics
        self._tls = config.stigmer_service_use_tls
        self._target = config.stigmer_service_endpoint
        self._credentials = Credentials(config)
        self._closing: set[asyncio.Task[None]] = set()
        self._attempts_ok = {
            name: metrics.callback_attempts.labels(name, "OK") for name in ("ReportProgressBatch", "ReportProgress")
        }
        self._connect()

    def _connect(self) -> None:
        self._channel = (
            grpc.aio.secure_channel(self._target, self._credentials.for_channel(), options=_OPTIONS)
            if self._tls
            else grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        )
        # Without serializers, messages are bytes in both directions.
        self._batch: Any = self._channel.unary_unary(_SERVICE + "ReportProgressBatch", None, None)
        self._single: Any = self._channel.unary_unary(_SERVICE + "ReportProgress", None, None)

    def _look(self) -> None:
        """Connects anew if there are other certificates; what is under way on the old connection ends there."""
        if not self._credentials.has_changed():
            return
        old = self._channel
        try:
            self._connect()
        except OSError as error:
            _log.error("the new certificates for callbacks cannot be read: %s: those of before stay", error.strerror)
            return
        closing = asyncio.get_running_loop().create_task(old.close(self._timeout_s))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def report_batch(self, request: bytes, patient: bool) -> dict[str, int]:
        """See Reporter."""
        self._look()
        reply = await self._call(self._batch, "ReportProgressBatch", request, patient)
        try:
            response = ReportProgressBatchResponse.FromString(reply)
        except DecodeError:
            raise self._failed("ReportProgressBatch", Reaction.RETRY_THEN_SPLIT, "UNREADABLE", _NO_REPLY) from None
        if response.acknowledgements:
            self._attempts_ok["ReportProgressBatch"].inc()
        else:
            self._metrics.callback_attempts.labels("ReportProgressBatch", "NOT_TAKEN").inc()
        return {ack.workflow_execution_id: ack.sequence_number for ack in response.acknowledgements}

    async def report(self, event: bytes, patient: bool) -> None:
        """See Reporter."""
        self._look()
        reply = await self._call(self._single, "ReportProgress", event, patient)
        if reply != _TAKEN:
            try:
                response = ProgressAckResponse.FromString(reply)
            except DecodeError:
                raise self._failed("ReportProgress", Reaction.RETRY_THEN_SPLIT, "UNREADABLE", _NO_REPLY) from None
            if not response.success:
                raise self._failed("ReportProgress", Reaction.RETRY_THEN_SPLIT, "NOT_TAKEN", response.message)
        self._attempts_ok["ReportProgress"].inc()

    async def close(self) -> None:
        """See Reporter."""
        await asyncio.gather(self._channel.close(None), *self._closing)

    async def _call(self, method: Any, name: str, request: bytes, patient: bool) -> bytes:
        crash.reach(CrashPoint.BEFORE_CALLBACK_SEND)
        crash.reach_soon(CrashPoint.AFTER_CALLBACK_SEND)
        try:
            reply: bytes = await method(
                request,
                timeout=self._timeout_s,
                metadata=self._metadata(),
                wait_for_ready=patient or None,
            )
        except grpc.aio.AioRpcError as error:
            code = error.code()
            reaction = _REACTIONS.get(code, Reaction.RETRY_THEN_SPLIT)
            raise self._failed(name, reaction, code.name, error.details() or "") from None
        except Exception as error:
            # gRPC refuses on this side, say, to send such metadata. Trying again at once changes nothing.
            raise self._failed(
                name, Reaction.SUSPEND, "NOT_SENT", f"gRPC does not send it: {type(error).__name__}"
            ) from None
        return reply

    def _metadata(self) -> grpc.aio.Metadata:
        """What goes along with a call; without a trace what was made beforehand, which saves a tenth of a call."""
        headers, metadata = current_headers(), self._credentials.metadata
        return grpc.aio.Metadata(*metadata, *headers) if headers else metadata

    def _failed(self, name: str, reaction: Reaction, code: str, words: str) -> DeliveryFailed:
        """Counts a failed attempt; its reason is the words, on one line and without our key should they repeat it."""
        self._metrics.callback_attempts.labels(name, code).inc()
        words = self._credentials.hidden(words)
        hint = next((hint for sign, tls, hint in _HINTS if sign in words and tls is self._tls), "")
        words = printable(words[:_REASON_SIZE_MAX])
        return DeliveryFailed(reaction, code, f"{hint} ({words})" if hint else words)
