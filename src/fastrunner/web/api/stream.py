"""Support: an execution's events for who follows: those that there are, then as they come.

    id: 7                                                    {"type": "progress", "id": 7, "event": {...}}
    event: progress
    data: {"sequence_number": 7, ...}

as server-sent events, or as messages of a WebSocket.

Theory of operation: who follows subscribes, reads what there is after its cursor, sends it, and waits to be told that
there is more. Nothing is queued for it: what it has not read lies in the store, so a slow client costs a page and what
its connection holds.

- Only stored events carry an id; a client comes back with the last one (`Last-Event-ID`, else `?after=`).
- A cursor beyond the last event, which a store that was restored may leave, gets one `reset` with the execution as it
  stands, and the events from the first on.
- After the last event comes `end`. A client of server-sent events that comes back all the same gets 204, at which
  browsers stop.
- A client that does not read for a while is cut, and comes back with its cursor; at most a page and the connection's
  buffers, less than 256 KB, were on the way to it. One whose server stops, or whose credentials are taken back, is
  ended.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Final, Protocol

import orjson
from aiohttp import web

from fastrunner.base import limits
from fastrunner.errors import RunnerError
from fastrunner.web.api import shapes
from fastrunner.web.api.backend import Backend, Following
from fastrunner.web.api.guard import Admission
from fastrunner.web.api.operations import event_fields
from fastrunner.web.api.problems import Refused
from fastrunner.web.api.socket import Event, Socket
from fastrunner.web.api.sse import PING, Events, last_id

__all__ = ["EventStream", "cursor_of"]

_END: Final = b'event: end\ndata: {"has_ended":true}\n\n'
_ENDED: Final = frozenset({"completed", "failed", "cancelled"})


def _fields(message: bytes) -> tuple[int, bytes]:
    """An event's number and JSON; made once for all clients that get it at about the same time."""
    if len(message) > limits.API_EVENT_REMEMBERED_SIZE_BYTES_MAX:
        return _fields_anew(message)
    return _remembered_fields(message)


def _fields_anew(message: bytes) -> tuple[int, bytes]:
    fields = event_fields(message)
    return fields["sequence_number"], orjson.dumps(fields)


_remembered_fields = lru_cache(maxsize=limits.API_EVENTS_REMEMBERED_MAX)(_fields_anew)


def cursor_of(request: web.Request, after: int) -> int:
    """After which number a client goes on: what it has received last, else what it asks for. Raises Refused."""
    last = last_id(request)
    if not last:
        return after
    if not (last.isascii() and last.isdigit() and len(last) < 19):
        raise Refused(400, f"Last-Event-ID is {last[:40]!r}: send the id of the last event received, a number")
    return int(last)


class _Reader(Protocol):
    """Who is sent something; each method says whether it went."""

    @property
    def is_gone(self) -> bool:
        """Whether nothing can be sent any more."""

    async def progress(self, events: Sequence[Event]) -> bool:
        """Some events, in their order."""

    async def reset(self, execution: shapes.Execution) -> bool:
        """All events come anew, of an execution that stands so."""

    async def end(self) -> bool:
        """No event comes any more."""

    async def ping(self) -> bool:
        """Nothing happens."""


class _SseReader:
    """One of server-sent events."""

    is_gone = False

    def __init__(self, events: Events) -> None:
        self._events = events

    async def progress(self, events: Sequence[Event]) -> bool:
        """See _Reader."""
        return await self._events.write(b"".join([b"id: %d\nevent: progress\ndata: %b\n\n" % each for each in events]))

    async def reset(self, execution: shapes.Execution) -> bool:
        """See _Reader."""
        return await self._events.write(b"event: reset\ndata: %b\n\n" % orjson.dumps(execution.model_dump()))

    async def end(self) -> bool:
        """See _Reader."""
        return await self._events.write(_END)

    async def ping(self) -> bool:
        """See _Reader."""
        return await self._events.write(PING)


class EventStream:
    """Serves those who follow, for one process."""

    def __init__(self, backend: Backend, count_cut: Callable[[], object]) -> None:
        """`count_cut` is told of each client that is cut."""
        self._backend = backend
        self._count_cut = count_cut

    async def follow(
        self, request: web.Request, admission: Admission, execution_id: str, after: int
    ) -> web.StreamResponse:
        """Answers a request by server-sent events. Raises RunnerError and Refused while nothing is sent yet."""
        cursor = cursor_of(request, after)
        execution = await self._backend.find(admission.principal, execution_id)
        if execution.status in _ENDED and cursor == execution.last_sequence:
            return web.Response(status=204)
        with self._follow(admission, execution) as following:
            events = await Events.begin(request, self._count_cut)
            await self._send(_SseReader(events), following, admission, execution, cursor)
        return events.response

    async def talk(
        self, request: web.Request, admission: Admission, execution_id: str, after: int
    ) -> web.StreamResponse:
        """Answers a request by a WebSocket. Raises RunnerError and Refused while it is none yet."""
        execution = await self._backend.find(admission.principal, execution_id)
        with self._follow(admission, execution) as following:
            async with Socket.open(request, self._count_cut, following.tell) as socket:
                await self._send(socket, following, admission, execution, after)
        return socket.response

    def _follow(self, admission: Admission, execution: shapes.Execution) -> AbstractContextManager[Following]:
        return self._backend.follow(admission.principal, execution.id, execution.last_sequence)

    async def _send(
        self, reader: _Reader, following: Following, admission: Admission, execution: shapes.Execution, cursor: int
    ) -> None:
        if cursor > execution.last_sequence:
            if not await reader.reset(execution):
                return
            cursor = 0
        while not (following.is_over or reader.is_gone) and await admission.holds():
            try:
                messages, last_sequence, has_ended = await self._backend.events(
                    admission.principal, execution.id, cursor, limits.API_PAGE_ROWS_MAX, is_told=True
                )
            except RunnerError:
                # It has been forgotten, or cannot be read now: the client hears of it when it comes again.
                return
            events = [_fields(message) for message in messages]
            if events and not await reader.progress(events):
                return
            cursor = events[-1][0] if events else cursor
            if cursor < last_sequence:
                continue
            if has_ended:
                await reader.end()
                return
            if not await following.wait(limits.API_STREAM_PING_S) and not await reader.ping():
                return
