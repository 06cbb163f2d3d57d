"""Stage 7, callback: one kept channel to Stigmer Service, and what each of its answers means.

Rules: bytes go out as they were stored; every attempt has a deadline; the key is sent, never shown; gRPC's own retries
are off, because attempts are counted here; a receiver's words are cut short, and shown on one line.
"""

import asyncio
from enum import Enum
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ProgressAckResponse, ReportProgressBatchResponse
from fastrunner.base import crash
from fastrunner.base.crash import CrashPoint
from fastrunner.base.printable import printable
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics

__all__ = ["DeliveryFailed", "ProgressClient", "Reaction", "Reporter"]

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
        key = config.stigmer_service_api_key
        self._secret = key.get_secret_value() if key is not None else ""
        # Made once: of a tuple, grpc.aio would make it anew for every call.
        self._metadata = grpc.aio.Metadata(*((("authorization", f"Bearer {self._secret}"),) if self._secret else ()))
        self._attempts_ok = {
            name: metrics.callback_attempts.labels(name, "OK") for name in ("ReportProgressBatch", "ReportProgress")
        }
        self._channel = _channel(config)
        # Without serializers, messages are bytes in both directions.
        self._batch: Any = self._channel.unary_unary(_SERVICE + "ReportProgressBatch", None, None)
        self._single: Any = self._channel.unary_unary(_SERVICE + "ReportProgress", None, None)

    async def report_batch(self, request: bytes, patient: bool) -> dict[str, int]:
        """See Reporter."""
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
        await self._channel.close(None)

    async def _call(self, method: Any, name: str, request: bytes, patient: bool) -> bytes:
        crash.reach(CrashPoint.BEFORE_CALLBACK_SEND)
        crash.reach_soon(CrashPoint.AFTER_CALLBACK_SEND, asyncio.get_running_loop().call_later)
        try:
            reply: bytes = await method(
                request, timeout=self._timeout_s, metadata=self._metadata, wait_for_ready=patient or None
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

    def _failed(self, name: str, reaction: Reaction, code: str, words: str) -> DeliveryFailed:
        """Counts a failed attempt; its reason is the words, on one line and without our key should they repeat it."""
        self._metrics.callback_attempts.labels(name, code).inc()
        if self._secret:
            words = words.replace(self._secret, "***")
        hint = next((hint for sign, tls, hint in _HINTS if sign in words and tls is self._tls), "")
        words = printable(words[:_REASON_SIZE_MAX])
        return DeliveryFailed(reaction, code, f"{hint} ({words})" if hint else words)


def _channel(config: Config) -> grpc.aio.Channel:
    target = str(config.stigmer_service_endpoint)
    if not config.stigmer_service_use_tls:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    authorities = config.callback_ca_file.read_bytes() if config.callback_ca_file is not None else None
    credentials = grpc.ssl_channel_credentials(root_certificates=authorities)
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
