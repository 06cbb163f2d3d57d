"""Support: executions that change, as server-sent events, for who shows lists of them.

    event: begin                                   or reset
    id: 5f0c-7
    data: {"cursor": "5f0c-7"}

    event: change
    id: 5f0c-9
    data: {"cursor": "5f0c-9", "execution": {...}}

Whoever opens the feed and then lists executions knows all of them, and learns of each further change. `reset` says that
the feed does not go on from the cursor that was sent, so there may be changes between: list anew. One execution that
changes often is sent as it stands, not once for each change.
"""

from collections.abc import Callable, Sequence

import orjson
from aiohttp import web

from fastrunner.base import limits
from fastrunner.errors import RunnerError
from fastrunner.web.api.backend import Backend, Changed, Feed
from fastrunner.web.api.guard import Admission
from fastrunner.web.api.sse import PING, Events, last_id

__all__ = ["ExecutionFeed"]


class ExecutionFeed:
    """Serves those who follow all executions, for one process."""

    def __init__(self, backend: Backend, count_cut: Callable[[], object]) -> None:
        """`count_cut` is told of each client that is cut."""
        self._backend = backend
        self._count_cut = count_cut

    async def follow(
        self, request: web.Request, admission: Admission, which: dict[str, str], after: str
    ) -> web.StreamResponse:
        """Answers a request. Raises RunnerError while nothing is sent yet."""
        cursor = last_id(request) or after
        async with self._backend.feed(admission.principal, which, cursor) as feed:
            events = await Events.begin(request, self._count_cut)
            kind = b"reset" if cursor and feed.is_new else b"begin"
            if await events.write(_event(kind, feed.cursor, orjson.dumps({"cursor": feed.cursor}))):
                await self._send(events, feed, admission)
        return events.response

    async def _send(self, events: Events, feed: Feed, admission: Admission) -> None:
        while not feed.is_over and await admission.holds():
            try:
                changes = await feed.read(limits.API_STREAM_PING_S)
            except RunnerError:
                # It cannot be read now: the client hears of it when it comes again.
                return
            if not await events.write(_text(changes) or PING):
                return


def _text(changes: Sequence[Changed]) -> bytes:
    return b"".join(
        [
            _event(
                b"change",
                each.cursor,
                b'{"cursor":%b,"execution":%b}' % (orjson.dumps(each.cursor), each.execution_json),
            )
            for each in changes
        ]
    )


def _event(kind: bytes, cursor: str, data: bytes) -> bytes:
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind, cursor.encode(), data)
