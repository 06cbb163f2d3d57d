"""Stage 5, tasks: performs `call: http` over one pooled client session per worker.

Rules: an outcome is returned, never raised; cancelling the coroutine aborts the request on the wire; details name the
method, the host and the status, never a path, a query, a header or a body. Nothing is shared between executions but
connections: no cookies, no cached credentials. docs/http.md says what authors can rely on.
"""

import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDictProxy

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import clock, limits
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks.http_content import MalformedContent, decode, decode_header, to_base64
from fastrunner.tasks.http_request import HttpRequest, RequestProblem, prepare

__all__ = ["CallHttp"]

_KIND = "call_http"
_HIDDEN_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
_TITLE_SIZE_MAX = 200


class _ResponseProblem(Exception):
    """A response that cannot become an output; `title` and the message become the error."""

    def __init__(self, title: str, sentence: str) -> None:
        super().__init__(sentence)
        self.title = title
        self.sentence = sentence


class CallHttp:
    """Performer of `call_http` effects."""

    def __init__(
        self,
        *,
        timeout_s: float,
        metrics: Metrics,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._session: aiohttp.ClientSession | None = None
        self._in_flight = metrics.effects_in_flight.labels(_KIND)
        self._duration = metrics.effect_duration.labels(_KIND)
        self._outcomes = {
            outcome: metrics.effects.labels(_KIND, outcome) for outcome in ("completed", "failed", "interrupted")
        }

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Sends the request and gives the task's raw output, or the DSL error the response or its absence means."""
        outcome = "interrupted"
        started_s = clock.monotonic_s()
        self._in_flight.inc()
        try:
            result = await self._call(effect, arguments)
            outcome = "completed" if isinstance(result, EffectResult) else "failed"
            return result
        finally:
            self._in_flight.dec()
            self._duration.observe(clock.monotonic_s() - started_s)
            self._outcomes[outcome].inc()

    async def close(self) -> None:
        """Closes the pooled connections; calls still in flight fail."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """The worker's session, made on first use because it belongs to the running loop."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX,
                limit_per_host=limits.HTTP_CONNECTIONS_PER_HOST_MAX,
                resolver=self._resolver,
                ssl=self._ssl_context or True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(
                    total=self._timeout_s, sock_connect=min(self._timeout_s, limits.HTTP_CONNECT_TIMEOUT_S_MAX)
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _call(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        try:
            request = prepare(arguments, effect.idempotency_key)
        except RequestProblem as problem:
            return EffectFailure(effect.effect_id, problem.type, 400, "Invalid HTTP Call", problem.detail)
        try:
            async with self._open_session().request(
                request.method,
                request.url,
                headers=request.headers,
                data=request.data,
                allow_redirects=bool(arguments.get("redirect")),
                # The library counts the request that is refused as well.
                max_redirects=limits.HTTP_REDIRECTS_MAX + 1,
            ) as response:
                return await _outcome(effect, arguments, request, response)
        except _ResponseProblem as problem:
            title, sentence = problem.title, problem.sentence
        except TimeoutError:
            title, sentence = "No Response In Time", f"no complete response within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            title, sentence = _connection_problem(error)
        return _communication_failure(effect, request, 500, title, sentence)


async def _outcome(
    effect: PerformEffect, arguments: Mapping[str, Any], request: HttpRequest, response: aiohttp.ClientResponse
) -> EffectResult | EffectFailure:
    status = response.status
    if not 200 <= status < (400 if arguments.get("redirect") else 300):
        title = decode_header(response.reason or _phrase(status))[:_TITLE_SIZE_MAX]
        return _communication_failure(effect, request, status, title, f"the response has status {status}")
    body = await _read(response)
    output = arguments.get("output") or "content"
    if output == "raw":
        return EffectResult(effect.effect_id, to_base64(body))
    try:
        content = decode(body, response.headers.get("Content-Type"))
    except MalformedContent as problem:
        raise _ResponseProblem("Malformed Response", str(problem)) from None
    if output == "response":
        return EffectResult(effect.effect_id, _response_object(request, response, content))
    return EffectResult(effect.effect_id, content)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, decompressed, within its bound."""
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in response.content.iter_any():
        size_bytes += len(chunk)
        if size_bytes > limits.HTTP_RESPONSE_SIZE_BYTES_MAX:
            response.close()
            raise _ResponseProblem(
                "Response Too Large", f"the response's body exceeds {limits.HTTP_RESPONSE_SIZE_BYTES_MAX} bytes"
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _response_object(request: HttpRequest, response: aiohttp.ClientResponse, content: Any) -> dict[str, Any]:
    """The DSL's HTTP response; after redirects, `request` is still the task's own."""
    first = response.history[0] if response.history else response
    sent = _header_map(first.request_info.headers)
    return {
        "request": {
            "method": request.method,
            "uri": str(request.url),
            "headers": {name: "***" if name in _HIDDEN_HEADERS else value for name, value in sent.items()},
        },
        "statusCode": response.status,
        "headers": _header_map(response.headers),
        "content": content,
    }


def _header_map(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Names in lower case; repeated headers joined by a comma, as RFC 9110 allows."""
    joined: dict[str, str] = {}
    for name, value in headers.items():
        key, text = decode_header(name).lower(), decode_header(value)
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


def _communication_failure(
    effect: PerformEffect, request: HttpRequest, status: int, title: str, sentence: str
) -> EffectFailure:
    detail = f"{request.method} {request.url.host_port_subcomponent}: {sentence}"
    return EffectFailure(effect.effect_id, "communication", status, title, detail)


def _connection_problem(error: Exception) -> tuple[str, str]:
    """Title and sentence for a failure without a usable response. The library's own texts may quote URLs."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "Host Not Found", "the host's name could not be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return "TLS Failed", "no trusted TLS connection could be made"
        case aiohttp.ClientConnectorError():
            return "Connection Failed", f"no connection could be made ({error.strerror or 'no reason given'})"
        case aiohttp.TooManyRedirects():
            return "Too Many Redirects", f"more than {limits.HTTP_REDIRECTS_MAX} redirects"
        case aiohttp.RedirectClientError():
            return "Bad Redirect", "a redirect leads to no usable http or https URI"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "Malformed Response", "the response is not valid HTTP or ended early"
        case _:
            return "Connection Lost", "the connection ended before the response did"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP Status {status}"
