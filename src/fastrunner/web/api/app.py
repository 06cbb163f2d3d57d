"""Support: the HTTP API as routes of an application: each request through the guard, then its operation.

Rules: a body is bounded and whole before anything is done; what goes wrong is `application/problem+json`; a fault of
our own is logged with its trace and told without.
"""

import logging
import re
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from fastrunner.access.audit import AuditLog
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.errors import RunnerError
from fastrunner.tracing.context import CURRENT, TRACEPARENT, TRACESTATE, TraceContext
from fastrunner.web.api import PREFIX
from fastrunner.web.api.backend import Backend
from fastrunner.web.api.feed import ExecutionFeed
from fastrunner.web.api.guard import Guard, add_headers
from fastrunner.web.api.openapi import openapi_document
from fastrunner.web.api.operations import Call, Operation, Parameter, SessionStep, Stream, operations_of
from fastrunner.web.api.problems import Refused, problem, refusal_of, wrong_fields
from fastrunner.web.api.shapes import Command, Execution, NewSchedule, StartExecution
from fastrunner.web.api.stream import EventStream
from fastrunner.web.connections import STATUS_GONE, is_gone
from fastrunner.web.guard import PRINCIPAL

__all__ = ["Api", "guarded"]

_ABOUT: Final = web.RequestKey("about", dict[str, str])
"""Of a request that was meant to change something: what of."""
_PART: Final = re.compile(r"\{(\w+)\}")
_log = logging.getLogger(__name__)


def guarded(guard: Guard, open_paths: Collection[str], below: tuple[str, ...] = ("/",)) -> Any:
    """A middleware: refusals are problems; strangers' names and pages are refused before anything.

    `open_paths` answer whatever the Host header: probes call addresses, and learn nothing. What is not `below` one of
    those paths has rules of its own.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(below):
            return await handler(request)
        try:
            if request.path not in open_paths:
                guard.check_place(request)
            return await handler(request)
        except Refused as refused:
            return problem(refused)
        except RunnerError as error:
            return problem(refusal_of(error))
        except web.HTTPException as error:
            if error.status < 400:
                raise
            allowed = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
            return problem(Refused(error.status, f"{request.method} {request.path}: {error.reason}", headers=allowed))
        except Exception as error:
            if isinstance(error, ConnectionError) and is_gone(request):
                raise
            _log.exception("%s %s failed", request.method, request.path)
            return problem(Refused(500, "the server failed; its log says where"))

    return middleware


class Api:
    """Everything below `PREFIX`, and the description."""

    def __init__(
        self,
        backend: Backend,
        guard: Guard,
        count: Callable[[str, int, float | None], object],
        count_cut: Callable[[], object],
        audit: AuditLog | None = None,
    ) -> None:
        """`count` is told of each answer: operation, status, seconds unless somebody followed; `count_cut` of each
        client that did not read."""
        self._backend = backend
        self._guard = guard
        self._count = count
        self._audit = audit
        self._stream = EventStream(backend, count_cut)
        self._feed = ExecutionFeed(backend, count_cut)

    def add_to(self, app: web.Application) -> None:
        """Adds the routes, and the headers of all answers."""
        app.on_response_prepare.append(add_headers)
        app.router.add_get("/openapi.json", self._describe)
        for operation in operations_of(self._backend.lacks):
            # Left alone, a part of a path would have no braces.
            path = _PART.sub(r"{\1:[^/]+}", f"{PREFIX}{operation.path}")
            app.router.add_route(operation.method, path, self._handler(operation))

    async def _describe(self, _request: web.Request) -> web.Response:
        return web.Response(body=openapi_document(frozenset(self._backend.lacks)), content_type="application/json")

    def _handler(self, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            status, detail, begun_s = 500, "", monotonic_s()
            # Whoever performs it passes that on, where anything is traced.
            headers = request.headers
            CURRENT.set(TraceContext.sent(headers.getall(TRACEPARENT, ()), headers.getall(TRACESTATE, ())))
            try:
                response = await self._answer(operation, request)
                status = response.status
            except Refused as refused:
                status, detail = refused.status, refused.detail
                raise
            except RunnerError as error:
                status, detail = refusal_of(error).status, error.message
                raise
            except ConnectionError:
                status = STATUS_GONE if is_gone(request) else status
                raise
            finally:
                took_s = None if isinstance(operation.perform, Stream) else monotonic_s() - begun_s
                self._count(operation.name, status, took_s)
                self._tell(operation, request, status, detail)
            return response

        return handle

    def _tell(self, operation: Operation, request: web.Request, status: int, detail: str) -> None:
        """A line of the audit log: of what was to change something, and of what was denied to a caller who is known."""
        principal, about = request.get(PRINCIPAL), request.get(_ABOUT)
        if self._audit is None or (about is None and (principal is None or status != HTTPStatus.FORBIDDEN)):
            return
        line = (
            (about or {}) | {"outcome": "OK" if status < 400 else str(status)} | ({"detail": detail} if detail else {})
        )
        caller = "" if principal is None else principal.name
        method = f"{operation.method} {PREFIX}{operation.path}"
        self._audit.tell(caller=caller, address=request.remote or "", method=method, about=[line])

    async def _answer(self, operation: Operation, request: web.Request) -> web.StreamResponse:
        admission = await self._guard.admit(request, operation.role)
        if operation.method != "GET":
            self._guard.check_write(request)
            request[_ABOUT] = {}
        query = _query(operation, request)
        path = dict(request.match_info)
        if operation.perform is Stream.EVENTS:
            return await self._stream.follow(request, admission, path["id"], query["after"])
        if operation.perform is Stream.FEED:
            after = query.pop("after")
            return await self._feed.follow(request, admission, query, after)
        if operation.perform is Stream.SOCKET:
            return await self._stream.talk(request, admission, path["id"], query["after"])
        if operation.perform is SessionStep.BEGIN:
            return self._begin_session(request)
        if operation.perform is SessionStep.END:
            response = web.Response(status=204)
            self._guard.end_session(request, response)
            return response
        assert callable(operation.perform), "the others are above"
        body = await _body(operation, request) if operation.body is not None else None
        if operation.method != "GET":
            request[_ABOUT] |= _about(path, body, is_schedule=operation.path.startswith("/schedules"))
        answer = await operation.perform(Call(self._backend, admission.principal, path, query, body))
        content = answer.body
        if isinstance(content, Execution) and operation.method != "GET":
            request[_ABOUT]["execution"] = content.id
        if isinstance(content, BaseModel):
            content = orjson.dumps(content.model_dump())
        return web.Response(
            status=answer.status,
            body=None if content is None else content + b"\n",
            headers=answer.headers,
            content_type="application/json" if content is not None else None,
        )

    def _begin_session(self, request: web.Request) -> web.Response:
        response = web.Response(content_type="application/json")
        session = self._guard.begin_session(request, response)
        response.body = orjson.dumps({"ends_ms": 0 if session is None else session.ends_ms}) + b"\n"
        return response


def _about(path: Mapping[str, str], body: BaseModel | None, *, is_schedule: bool) -> dict[str, str]:
    """What the audit log says of a request: which execution, workflow or schedule, and why."""
    if isinstance(body, StartExecution | NewSchedule):
        ref = body.workflow
        kind = "execution" if isinstance(body, StartExecution) else "schedule"
        about = {kind: body.id, "workflow": f"{ref.namespace}/{ref.name}:{ref.version or 'latest'}"}
    else:
        kind = "schedule" if is_schedule else "execution"
        about = {kind: path.get("id", ""), "reason": body.reason if isinstance(body, Command) else ""}
    return {name: value for name, value in about.items() if value}


def _query(operation: Operation, request: web.Request) -> dict[str, Any]:
    """Every parameter's value. Raises Refused."""
    given = request.query
    known = {parameter.name for parameter in operation.query}
    for name in given:
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise Refused(400, f"there is no parameter {name[:40]!r} here: those are {names}")
        if len(given.getall(name)) > 1:
            raise Refused(400, f"{name} is given more than once: give it once")
    return {parameter.name: _value(parameter, given.get(parameter.name)) for parameter in operation.query}


def _value(parameter: Parameter, text: str | None) -> str | int:
    if text is None:
        return parameter.default
    if isinstance(parameter.default, int):
        if not (text.isascii() and text.isdigit() and len(text) < 17):
            raise Refused(400, f"{parameter.name} is {text[:40]!r}: an integer is needed")
        number = int(text)
        if not parameter.minimum <= number <= parameter.maximum:
            raise Refused(
                400, f"{parameter.name} is {number}: from {parameter.minimum} to {parameter.maximum} is allowed"
            )
        return number
    if parameter.choices and text not in ("", *parameter.choices):
        raise Refused(400, f"{parameter.name} is {text[:40]!r}: one of {', '.join(parameter.choices)} is allowed")
    return text


async def _body(operation: Operation, request: web.Request) -> BaseModel:
    """The body in its shape. Raises Refused."""
    assert operation.body is not None, "it is asked for"
    size_bytes_max = limits.API_BODY_SIZE_BYTES_MAX
    too_large = Refused(413, f"the body is larger than {size_bytes_max} bytes")
    if (request.content_length or 0) > size_bytes_max:
        raise too_large
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > size_bytes_max:
            raise too_large
    if not body and operation.has_optional_body:
        return operation.body()
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    try:
        # No conversions: a number is no text, and a text no number.
        return operation.body.model_validate(fields, strict=True)
    except ValidationError as error:
        raise wrong_fields(error) from None
