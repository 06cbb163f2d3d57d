"""Stage 5, tasks: pooled connections, and how to tell that a server has closed one of them.

Theory of operation: a server may close an idle connection at any time, and a request that is sent into it fails without
anybody knowing whether the server saw it; so one that is not idempotent is not sent again. Mostly the end is already in
the kernel, only the loop has not come to read it. So the kernel is asked before a connection is used again: nothing is
to be read from an idle one but its end.
"""

import select
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection

__all__ = ["Connector"]


_used: "WeakSet[object]" = WeakSet()
"""Connections that have carried a request."""


class Connector(aiohttp.TCPConnector):
    """A pool that hands out no connection which the server has closed."""

    async def connect(self, req: ClientRequest, *rest: Any, **options: Any) -> Connection:
        """See `aiohttp.BaseConnector`."""
        while True:
            connection = await super().connect(req, *rest, **options)
            if connection.protocol not in _used or not _has_ended(connection):
                _used.add(connection.protocol)
                return connection
            connection.close()


def _has_ended(connection: Connection) -> bool:
    transport = connection.transport
    socket = transport.get_extra_info("socket") if transport is not None else None
    if socket is None:
        return True
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))
