"""Stage 5, tasks: why a call has no output, in words.

Rules: titles are fixed texts; sentences name bounds, statuses and the system's own reasons, never a path, a query, a
header's value or a body. The client library's own texts may quote URLs, so none of them is passed on.
"""

import errno
import os
import socket
import ssl
from collections.abc import Iterator

import aiohttp
from aiohttp import http_exceptions

from fastrunner.base import limits

__all__ = [
    "HOST_NOT_FOUND",
    "OUT_OF_RESOURCES",
    "CallProblem",
    "DestinationRefused",
    "connection_problem",
    "headers_too_large",
]

HOST_NOT_FOUND = "Host Not Found"
"""Title of a call to a name that has no address."""

OUT_OF_RESOURCES = "Runner Out Of Resources"
"""Title of a call that could not be made for want of descriptors, ports or memory; a moment later it may succeed."""

_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class CallProblem(Exception):
    """A call without an output; becomes an error."""

    type = "communication"
    """A DSL error's short name."""

    def __init__(self, title: str, sentence: str, status: int = 500) -> None:
        super().__init__(sentence)
        self.title = title
        self.sentence = sentence
        self.status = status
        self.retry_after_ms = 0
        """How long the other side asks to be left alone."""


class DestinationRefused(CallProblem):
    """A call to where none may go. No failure of communication: another attempt would end the same."""

    type = "configuration"

    def __init__(self, sentence: str) -> None:
        super().__init__("Destination Refused", sentence, 403)


def connection_problem(error: Exception) -> CallProblem:
    """The problem that an exception of the client library means."""
    causes = list(_causes(error))
    scarce = next((cause for cause in causes if isinstance(cause, OSError) and cause.errno in _SCARCE), None)
    if scarce is not None and scarce.errno is not None:
        return CallProblem(OUT_OF_RESOURCES, f"no connection could be made ({os.strerror(scarce.errno)})", 503)
    if _is_too_large_head(causes):
        return headers_too_large()
    match error:
        case aiohttp.ClientConnectorDNSError():
            return CallProblem(HOST_NOT_FOUND, f"the host's name could not be resolved{_dns_reason(causes)}")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return CallProblem("TLS Failed", "no trusted TLS connection could be made")
        case aiohttp.ClientProxyConnectionError():
            reason = os.strerror(error.errno) if error.errno else "no reason given"
            return CallProblem("Connection Failed", f"no connection to the proxy could be made ({reason})")
        case aiohttp.ClientHttpProxyError():
            sentence = f"the proxy opens no connection to the host: it answers with status {error.status}"
            return CallProblem("Proxy Refused", sentence)
        case aiohttp.ClientConnectorError():
            reason = os.strerror(error.errno) if error.errno else "no reason given"
            return CallProblem("Connection Failed", f"no connection could be made ({reason})")
        case aiohttp.ConnectionTimeoutError():
            return CallProblem("No Response In Time", "no connection in time")
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return CallProblem("Malformed Response", "the response is not valid HTTP or ended early")
        case aiohttp.ClientConnectionError() | OSError():
            return CallProblem("Connection Lost", "the connection ended before the response did")
        case _:
            return CallProblem("Request Failed", f"the HTTP client could not send the request ({type(error).__name__})")


def headers_too_large() -> CallProblem:
    """The problem of a response with more in its headers than is kept of a response."""
    return CallProblem(
        "Response Headers Too Large",
        f"the response's headers exceed {limits.HTTP_HEADERS_SIZE_BYTES_MAX} bytes or are more than "
        f"{limits.HTTP_HEADERS_COUNT_MAX}",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what the client wrapped in it, and what led to it."""
    for _ in range(10):
        if error is None:
            return
        yield error
        if isinstance(error, aiohttp.ClientConnectorError):
            yield error.os_error
        error = error.__cause__


def _is_too_large_head(causes: list[BaseException]) -> bool:
    return any(
        isinstance(cause, http_exceptions.LineTooLong)
        or (isinstance(cause, http_exceptions.BadHttpMessage) and "Too many headers" in cause.message)
        for cause in causes
    )


def _dns_reason(causes: list[BaseException]) -> str:
    temporary = {socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_SYSTEM}
    known = any(isinstance(cause, socket.gaierror) and cause.errno in temporary for cause in causes)
    return " for now" if known else ""
