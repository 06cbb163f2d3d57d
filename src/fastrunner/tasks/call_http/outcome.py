"""Stage 5, tasks: what the workflow hears of a call: its output or its error.

Rules: details name the method, the host and the status, never a path, a query, a header's value or a body. Everything
is bounded: bodies and headers when they are read, texts of errors here.
"""

import asyncio
from collections.abc import Generator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import clock, limits
from fastrunner.base.redaction import redact
from fastrunner.tasks.call_http import content
from fastrunner.tasks.call_http.arguments import HttpRequest, RequestProblem
from fastrunner.tasks.call_http.body import read_body
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.call_http.patience import retry_after_ms
from fastrunner.tasks.call_http.room import Share
from fastrunner.tasks.call_http.slices import in_slices

if TYPE_CHECKING:
    from fastrunner.tasks.credentials.keyring import Proof

__all__ = ["Exchange", "Unauthorized", "failure_of", "refusal_of", "result_of"]

_HIDDEN_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
_TITLE_SIZE_CHARS_MAX = 200


class Unauthorized(CallProblem):
    """The origin the task calls does not take what proves the caller."""


class Exchange:
    """One call under way."""

    def __init__(self, effect: PerformEffect, arguments: Mapping[str, Any], request: HttpRequest) -> None:
        self.effect = effect
        self.output: str = arguments.get("output") or "content"
        self.follows_redirects = bool(arguments.get("redirect"))
        self.request = request
        """The task's own request."""
        self.sent_headers: CIMultiDictProxy[str] | None = None
        """What was sent with it, the client's own headers included."""
        self.current = request
        """The request under way: after redirects another one."""
        self.proof: Proof | None = None
        """How it proves who calls."""

    def begin(self, proof: "Proof | None") -> None:
        """From the task's own request on, with what proves the caller."""
        self.proof = proof
        self.sent_headers = None
        self.current = self.request
        if proof is not None and proof.authorization.parameter is not None:
            headers = CIMultiDict(self.request.headers)
            headers["Authorization"] = proof.authorization.header
            self.current = replace(self.request, headers=headers)

    @property
    def middlewares(self) -> "tuple[aiohttp.ClientMiddlewareType, ...]":
        """What answers challenges of the task's own origin, and of no other."""
        if self.proof is None or self.current.url.origin() != self.request.url.origin():
            return ()
        return self.proof.middlewares

    @property
    def authorization(self) -> dict[str, str | None] | None:
        """`$authorization` of the task: what was sent; None without a policy."""
        if self.proof is None:
            return None
        sent = "" if self.sent_headers is None else self.sent_headers.get("Authorization", "")
        scheme, _, parameter = sent.partition(" ")
        return {"scheme": scheme or self.proof.authorization.scheme, "parameter": parameter or None}


def refusal_of(effect: PerformEffect, problem: RequestProblem) -> EffectFailure:
    """The error of arguments that no request can be made of."""
    return EffectFailure(effect.effect_id, problem.type, 400, "Invalid HTTP Call", problem.detail)


def failure_of(exchange: Exchange, problem: CallProblem) -> EffectFailure:
    """The error of a call without an output."""
    request = exchange.current
    detail = f"{request.method} {request.url.host_port_subcomponent}: {problem.sentence}"
    return EffectFailure(
        exchange.effect.effect_id,
        problem.type,
        problem.status,
        problem.title,
        detail,
        retry_after_ms=problem.retry_after_ms,
    )


async def result_of(
    exchange: Exchange, response: aiohttp.ClientResponse, share: Share, turn: asyncio.Lock
) -> EffectResult:
    """The output of a call. Raises CallProblem, and what the client library raises.

    `turn` is held while a large value is made: values take several times the memory of their text, so one is made at a
    time.
    """
    status = response.status
    if not 200 <= status < (400 if exchange.follows_redirects else 300):
        title = content.decode_header(response.reason or _phrase(status))[:_TITLE_SIZE_CHARS_MAX]
        is_own = exchange.current.url.origin() == exchange.request.url.origin()
        problem = (Unauthorized if status == 401 and is_own else CallProblem)(
            title, f"the response has status {status}", status
        )
        problem.retry_after_ms = retry_after_ms(response.headers, clock.wall_ms())
        raise problem
    body = await read_body(response, share)
    # The server is done, whatever long the rest takes.
    response.release()
    async with turn if len(body) > limits.HTTP_RESPONSE_SMALL_SIZE_BYTES else nullcontext():
        value = await in_slices(_value(exchange, response, body))
    return EffectResult(exchange.effect.effect_id, value, exchange.authorization)


def _value(exchange: Exchange, response: aiohttp.ClientResponse, body: bytes) -> Generator[None, None, Any]:
    if exchange.output == "raw":
        return (yield from content.to_base64(body))
    try:
        value = yield from content.decode(body, response.headers.get("Content-Type"))
    except content.MalformedContent as problem:
        raise CallProblem("Malformed Response", str(problem)) from None
    return _response_object(exchange, response, value) if exchange.output == "response" else value


def _response_object(exchange: Exchange, response: aiohttp.ClientResponse, value: Any) -> dict[str, Any]:
    """The DSL's HTTP response; after redirects, `request` is still the task's own."""
    sent = _header_map(exchange.sent_headers or response.request_info.headers)
    hidden = _HIDDEN_HEADERS | {name.lower() for name in exchange.request.private_headers}
    return {
        "request": {
            "method": exchange.request.method,
            "uri": redact(str(exchange.request.url)),
            "headers": {name: "***" if name in hidden else redact(text) for name, text in sent.items()},
        },
        "statusCode": response.status,
        "headers": _header_map(response.headers),
        "content": value,
    }


def _header_map(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Names in lower case; repeated headers joined by a comma, as RFC 9110 allows."""
    joined: dict[str, str] = {}
    for name, value in headers.items():
        key, text = content.decode_header(name).lower(), content.decode_header(value)
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP Status {status}"
