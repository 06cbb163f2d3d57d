"""Support: POST /events: CloudEvents 1.0 over HTTP, in binary, structured and batch mode.

    Content-Type: application/cloudevents+json           structured: the body is the event
    Content-Type: application/cloudevents-batch+json     batch: the body is an array of events
    ce-specversion, ce-id, ce-source, ce-type, ce-...    binary: attributes are headers, the body is the data

202 says that all events of the request are durable. Any other status says that none was taken, or (503, or no answer)
that none is known to be: sending the same again is harmless.

Rules: a body is bounded, and so are all of them together, which is decided before they are read; one that comes too
slowly is given up. What is refused says in one sentence what is wrong.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from urllib.parse import unquote

import orjson
from aiohttp import web

from fastrunner.access.audit import AuditLog
from fastrunner.base import limits
from fastrunner.errors import InvalidRequest, RunnerError, TooLarge
from fastrunner.events.attributes import CONTENT, put_bytes
from fastrunner.web.guard import PRINCIPAL

__all__ = ["EventsIn", "Publisher"]

_STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_PREFIX: Final = "ce-"
_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
_MODES: Final = (
    f"send an event with Content-Type {_STRUCTURED}, several with {_BATCH}, or one in binary mode, its attributes in "
    "headers: ce-specversion, ce-id, ce-source, ce-type"
)


class Publisher(Protocol):
    """What publishes events (see `events/`)."""

    async def publish(self, events: Sequence[Mapping[str, Any]], namespaces: frozenset[str] | None) -> Sequence[int]:
        """Durable when it returns. Raises InvalidRequest, TooLarge, AtCapacity, Unavailable."""


class _NotTaken(Exception):
    """A request that is refused with a status of its own."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class EventsIn:
    """Takes events for one web process."""

    def __init__(self, publisher: Publisher, audit: AuditLog | None = None) -> None:
        self._publisher = publisher
        self._audit = audit
        self._reserved_bytes = 0

    async def take(self, request: web.Request) -> web.Response:
        """Answers POST /events."""
        count = 0
        try:
            async with self._body(request) as body:
                events = _events_of(request, body)
                count = len(events)
                principal = request.get(PRINCIPAL)
                await self._publisher.publish(events, None if principal is None else principal.namespaces)
        except _NotTaken as refusal:
            return self._refused(request, count, refusal.status, refusal.sentence)
        except InvalidRequest as error:
            return self._refused(request, count, 400, error.message)
        except TooLarge as error:
            return self._refused(request, count, 413, error.message)
        except RunnerError as error:
            return self._refused(request, count, 503, error.message)
        self._tell(request, count, "OK")
        body = orjson.dumps({"accepted_count": count}, option=orjson.OPT_APPEND_NEWLINE)
        return web.Response(status=202, body=body, content_type="application/json")

    def _refused(self, request: web.Request, count: int, status: int, sentence: str) -> web.Response:
        self._tell(request, count, str(status), sentence)
        headers = {"Retry-After": "1"} if status == 503 else None
        response = web.Response(status=status, text=f"{sentence}\n", headers=headers)
        if not request.content.at_eof():
            # The rest of the body is not read: nothing else can come on this connection.
            response.force_close()
        return response

    def _tell(self, request: web.Request, count: int, outcome: str, detail: str = "") -> None:
        if self._audit is not None:
            principal = request.get(PRINCIPAL)
            about = {"events": count, "outcome": outcome} | ({"detail": detail} if detail else {})
            caller = "" if principal is None else principal.name
            self._audit.tell(caller=caller, address=request.remote or "", method="POST /events", about=[about])

    @asynccontextmanager
    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body of a request, in memory until the end. Raises _NotTaken."""
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise _NotTaken(415, f"Content-Encoding {encoding} is not taken: send the body as it is")
        size_bytes_max = limits.EVENTS_REQUEST_SIZE_BYTES_MAX
        size_bytes = request.content_length
        if size_bytes is not None and size_bytes > size_bytes_max:
            raise _too_large()
        # One that does not say how large it is may be as large as any.
        reserved_bytes = size_bytes_max if size_bytes is None else size_bytes
        if self._reserved_bytes + reserved_bytes > limits.EVENTS_REQUESTS_SIZE_BYTES_MAX:
            raise _NotTaken(503, "more events are being taken than there is room for: try again")
        self._reserved_bytes += reserved_bytes
        try:
            async with asyncio.timeout(limits.EVENTS_REQUEST_S_MAX):
                body = await _read(request, size_bytes_max)
        except TimeoutError:
            raise _NotTaken(408, f"the body has not come within {limits.EVENTS_REQUEST_S_MAX:g} s") from None
        else:
            yield body
        finally:
            self._reserved_bytes -= reserved_bytes


async def _read(request: web.Request, size_bytes_max: int) -> bytes:
    pieces = bytearray()
    async for piece in request.content.iter_any():
        pieces += piece
        if len(pieces) > size_bytes_max:
            raise _too_large()
    return bytes(pieces)


def _too_large() -> _NotTaken:
    return _NotTaken(
        413, f"the body is larger than {limits.EVENTS_REQUEST_SIZE_BYTES_MAX} bytes: send several requests"
    )


def _events_of(request: web.Request, body: bytes) -> list[Any]:
    """The events of a request. Raises _NotTaken, InvalidRequest, TooLarge."""
    given = request.headers.get("Content-Type", "")
    media_type = given.partition(";")[0].strip().lower()
    if media_type == _STRUCTURED:
        return [_decoded(given, body)]
    if media_type == _BATCH:
        events = _decoded(given, body)
        if not isinstance(events, list):
            raise _NotTaken(400, "the body is no batch: expected a JSON array of events")
        count_max = limits.EVENTS_BATCH_COUNT_MAX
        if len(events) > count_max:
            raise TooLarge(f"{len(events)} events at once: at most {count_max} are taken; send several requests")
        return events
    if media_type.startswith("application/cloudevents"):
        raise _NotTaken(415, f"Content-Type {media_type} is not taken: {_MODES}")
    if not any(name.lower().startswith(_PREFIX) for name in request.headers):
        raise _NotTaken(415 if media_type else 400, f"this is no CloudEvent: {_MODES}")
    return [_binary(request, given, body)]


def _decoded(content_type: str, body: bytes) -> Any:
    charset = _CHARSET.search(content_type)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise _NotTaken(415, f"charset {charset[1]} is not taken: JSON is UTF-8")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _NotTaken(
            400, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None


def _binary(request: web.Request, content_type: str, body: bytes) -> dict[str, Any]:
    event: dict[str, Any] = {}
    for given_name, value in request.headers.items():
        header = given_name.lower()
        if not header.startswith(_PREFIX):
            continue
        name = header.removeprefix(_PREFIX)
        if name in event:
            raise _NotTaken(400, f"the header {header} is there twice: an attribute has one value")
        if name in CONTENT or name == "datacontenttype":
            raise _NotTaken(400, f"the header {header} is not taken: data is the body, its type in Content-Type")
        try:
            event[name] = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise _NotTaken(400, f"the header {header} is not UTF-8 behind its percent signs") from None
    if content_type:
        event["datacontenttype"] = content_type
    if body:
        put_bytes(event, body, "events[0]")
    return event
