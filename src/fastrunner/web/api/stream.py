"""Support: an execution's events as server-sent events: those that there are, then as they come.

    id: 7
    event: progress
    data: {"sequence_number": 7, ...}

Theory of operation: who follows subscribes, reads what there is after its cursor, sends it, and waits to be told that
there is more. Nothing is queued for it: what it has not read lies in the store, so a slow client costs a page and what
its connection holds.

- Only stored events carry an `id:`; a client comes back with the last one (`Last-Event-ID`, else `?after=`).
- A cursor beyond the last event, which a store that was restored may leave, gets one `reset` with the execution as it
  stands, and the events from the first on.
- After the last event comes `end`; a client that comes back all the same gets 204, at which browsers stop.
- A client that does not read for a while is cut, and comes back with its cursor; at most a page and the connection's
  buffers, less than 256 KB, were on the way to it. One whose server stops, or whose credentials are taken back, is
  ended.
"""

from collections.abc import Callable
from typing import Final

import orjson
from aiohttp import web

from fastrunner.access.principal import Principal
from fastrunner.base import limits
from fastrunner.errors import RunnerError
from fastrunner.web.api.backend import Backend, Following
from fastrunner.web.api.guard import Admission
from fastrunner.web.api.operations import event_fields
from fastrunner.web.api.problems import Refused
from fastrunner.web.api.sse import PING, Events, last_id

__all__ = ["EventStream", "cursor_of"]

_END: Final = b'event: end\ndata: {"has_ended":true}\n\n'
_Page = tuple[bytes, int, int, bool]
"""Text to send, number of its last event (the cursor if it is empty), number of the last one there is, whether none
comes after that."""


def cursor_of(request: web.Request, after: int) -> int:
    """After which number a client goes on: what it has received last, else what it asks for. Raises Refused."""
    last = last_id(request)
    if not last:
        return after
    if not (last.isascii() and last.isdigit() and len(last) < 19):
        raise Refused(400, f"Last-Event-ID is {last[:40]!r}: send the id of the last event received, a number")
    return int(last)


class EventStream:
    """Serves those who follow, for one process."""

    def __init__(self, backend: Backend, count_cut: Callable[[], object]) -> None:
        """`count_cut` is told of each client that is cut."""
        self._backend = backend
        self._count_cut = count_cut

    async def follow(
        self, request: web.Request, admission: Admission, execution_id: str, after: int
    ) -> web.StreamResponse:
        """Answers a request. Raises RunnerError and Refused while nothing is sent yet."""
        cursor = cursor_of(request, after)
        execution = await self._backend.find(admission.principal, execution_id)
        has_ended = execution.status in ("completed", "failed", "cancelled")
        if has_ended and cursor == execution.last_sequence:
            return web.Response(status=204)
        with self._backend.follow(execution_id) as following:
            events = await Events.begin(request, self._count_cut)
            if cursor > execution.last_sequence:
                body = orjson.dumps(execution.model_dump())
                if not await events.write(b"event: reset\ndata: " + body + b"\n\n"):
                    return events.response
                cursor = 0
            await self._send(events, following, admission, execution_id, cursor)
        return events.response

    async def _send(
        self,
        events: Events,
        following: Following,
        admission: Admission,
        execution_id: str,
        cursor: int,
    ) -> None:
        while not following.is_over and await admission.holds():
            try:
                text, cursor_now, last_sequence, has_ended = await self._read(admission.principal, execution_id, cursor)
            except RunnerError:
                # It has been forgotten, or cannot be read now: the client hears of it when it comes again.
                return
            if text and not await events.write(text):
                return
            cursor = cursor_now
            if cursor < last_sequence:
                continue
            if has_ended:
                await events.write(_END)
                return
            if not await following.wait(limits.API_STREAM_PING_S) and not await events.write(PING):
                return

    async def _read(self, principal: Principal | None, execution_id: str, cursor: int) -> _Page:
        messages, last_sequence, has_ended = await self._backend.events(
            principal, execution_id, cursor, limits.API_PAGE_ROWS_MAX
        )
        parts: list[bytes] = []
        for message in messages:
            fields = event_fields(message)
            cursor = fields["sequence_number"]
            parts.append(b"id: %d\nevent: progress\ndata: %b\n\n" % (cursor, orjson.dumps(fields)))
        return b"".join(parts), cursor, last_sequence, has_ended
