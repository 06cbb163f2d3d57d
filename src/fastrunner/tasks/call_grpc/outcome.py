"""Stage 5, tasks: what the workflow hears of a gRPC call that has no output.

Rules: details name the service, the method, the host, the code and the server's own words, without hidden values; never
an argument. Every code has one status, after google/rpc/code.proto.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from fastrunner.base import limits
from fastrunner.base.printable import printable
from fastrunner.base.redaction import redact
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["STATUSES", "GrpcProblem", "invalid_call", "problem_of_status", "too_large"]

STATUSES: Final = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
"""The status of an error by the code that a server, or gRPC's library, ended the call with."""

_DETAILS: Final = "grpc-status-details-bin"
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_TOO_LARGE: Final = re.compile("CLIENT: Received message larger than max|Decompressed message larger than max")
"""How the library says that a message is larger than we take; servers that say so of ours do it otherwise."""


class GrpcProblem(CallProblem):
    """A call without an output; `type` is a DSL error's short name."""

    def __init__(self, type_: str, status: int, title: str, sentence: str) -> None:
        super().__init__(title, sentence, status)
        self.type = type_


def invalid_call(type_: str, sentence: str) -> GrpcProblem:
    """The problem of arguments that no call can be made of."""
    return GrpcProblem(type_, 400, "Invalid gRPC Call", sentence)


def too_large(sentence: str) -> CallProblem:
    """The problem of an answer that is more than a workflow takes."""
    return CallProblem("Response Too Large", sentence)


def problem_of_status(error: grpc.aio.AioRpcError) -> CallProblem:
    """The problem of a call that ended with another code than OK."""
    words = error.details() or ""
    if _TOO_LARGE.search(words):
        return too_large(f"a message exceeds {limits.GRPC_MESSAGE_SIZE_BYTES_MAX} bytes")
    code = error.code()
    shown = printable(redact(words))[: limits.GRPC_STATUS_SHOWN_SIZE_CHARS_MAX]
    problem = CallProblem(code.name, f"{code.name}: {shown}" if shown else code.name, STATUSES[code])
    problem.retry_after_ms = _retry_after_ms(error.trailing_metadata())
    return problem


def _retry_after_ms(metadata: Any) -> int:
    """How long the server asks to be left alone; 0 if not, or if it cannot be read."""
    asked_ms = 0
    pairs: Sequence[tuple[str, str | bytes]] = tuple(metadata or ())
    for name, value in pairs:
        if name == _DETAILS and isinstance(value, bytes):
            asked_ms = max(asked_ms, _retry_delay_ms(value))
        elif name == _PUSHBACK and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            asked_ms = max(asked_ms, int(value))
    return min(asked_ms, int(limits.HTTP_RETRY_AFTER_S_MAX * 1000))


def _retry_delay_ms(details: bytes) -> int:
    asked_ms = 0
    try:
        for each in status_pb2.Status.FromString(details).details:
            info = error_details_pb2.RetryInfo()
            if each.Is(info.DESCRIPTOR) and each.Unpack(info):
                asked_ms = max(asked_ms, info.retry_delay.seconds * 1000 + info.retry_delay.nanos // 1_000_000)
    except DecodeError:
        return 0
    return asked_ms
