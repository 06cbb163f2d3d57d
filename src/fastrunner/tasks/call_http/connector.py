"""Stage 5, tasks: pooled connections: to permitted addresses only, and none that a server has closed.

Theory of operation: the addresses that a name has are judged where they are looked up, and the library connects to what
the look-up gave; the one that was connected to is judged once more before anything is sent, whatever the library does.

A server may close an idle connection at any time, and a request that is sent into it fails without anybody knowing
whether the server saw it; so one that is not idempotent is not sent again. Mostly the end is already in the kernel,
only the loop has not come to read it. So the kernel is asked before a connection is used again: nothing is to be read
from an idle one but its end.
"""

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection

from fastrunner.access.egress import Egress, Refused
from fastrunner.counts.cells import Counter
from fastrunner.counts.definitions import Family
from fastrunner.tasks.call_http.failures import HOST_NOT_FOUND, CallProblem, DestinationRefused, connection_problem

__all__ = ["Connector"]


_used: "WeakSet[object]" = WeakSet()
"""Connections that have carried a request."""


class Connector(aiohttp.TCPConnector):
    """A pool that hands out no connection which leads where none may, or which the server has closed."""

    def __init__(
        self,
        egress: Egress,
        refused: Family[Counter],
        *,
        is_proxied: bool,
        resolver: AbstractResolver | None = None,
        **options: Any,
    ) -> None:
        """`is_proxied`: every request goes through a proxy, which looks names up."""
        resolver = resolver or aiohttp.ThreadedResolver()
        super().__init__(resolver=resolver if is_proxied else _Permitted(resolver, egress), **options)
        self._egress = egress
        self._refused = refused
        self._is_proxied = is_proxied

    async def connect(self, req: ClientRequest, *rest: Any, **options: Any) -> Connection:
        """See `aiohttp.BaseConnector`. Raises DestinationRefused."""
        host, port = req.url.raw_host or "", req.url.port or 0
        with self._told():
            self._egress.check(host, port, is_looked_up_elsewhere=self._is_proxied)
            while True:
                connection = await super().connect(req, *rest, **options)
                if connection.protocol not in _used:
                    _used.add(connection.protocol)
                    self._judge(connection, host, port)
                    return connection
                if not _has_ended(connection):
                    return connection
                connection.close()

    def _judge(self, connection: Connection, host: str, port: int) -> None:
        peer = None if connection.transport is None else connection.transport.get_extra_info("peername")
        if self._is_proxied or peer is None:
            return
        try:
            self._egress.permitted(host, port, [peer[0]])
        except Refused:
            connection.close()
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A refusal as the call hears of it, counted; and whose name it is that cannot be found."""
        try:
            yield
        except aiohttp.ClientConnectorDNSError as error:
            problem = connection_problem(error)
            if not self._is_proxied or problem.title != HOST_NOT_FOUND:
                raise
            raise CallProblem(HOST_NOT_FOUND, "the name of the proxy could not be resolved") from None
        except Refused as refused:
            self._refused.labels(refused.reason).inc()
            raise DestinationRefused(refused.sentence) from None


class _Permitted(AbstractResolver):
    """Looks names up, and gives those addresses that may be connected to."""

    def __init__(self, resolver: AbstractResolver, egress: Egress) -> None:
        self._resolver = resolver
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver`. Raises Refused."""
        found = await self._resolver.resolve(host, port, family)
        permitted = set(self._egress.permitted(host, port, [each["host"] for each in found]))
        return [each for each in found if each["host"] in permitted]

    async def close(self) -> None:
        """See `AbstractResolver`."""
        await self._resolver.close()


def _has_ended(connection: Connection) -> bool:
    transport = connection.transport
    wire = transport.get_extra_info("socket") if transport is not None else None
    if wire is None:
        return True
    poll = select.poll()
    poll.register(wire.fileno(), select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))
