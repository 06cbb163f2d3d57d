"""Stage 1, service: connections without a call, when there are nearly as many connections as a worker may have.

grpcio closes further connections, and lets each of those that are there do nothing for minutes: whoever only holds
connections would keep new clients out. So before there is no room, those that have been idle for longest give way. The
kernel knows when something last came or went on each; which of them have calls, the server says.

Rules: a connection with a call under way is never cut, nor one on which something has just come or gone. Sockets are
looked at in a thread, and take but a small part of the time. A descriptor may mean another socket from one moment to
the next, so what is cut is looked at anew through a copy that is this module's own.
"""

import asyncio
import heapq
import os
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.counts.cells import Counter
from fastrunner.service.transport.call_queue import ServerCall
from fastrunner.service.transport.connections import borrowed, is_of, sockets

__all__ = ["IdleConnections"]

_LAST: Final = struct.Struct("=44xI4xI")
"""Of Linux's struct tcp_info: for how many milliseconds nothing has been sent, and nothing has come."""


class IdleConnections:
    """The connections of one server that have no call."""

    def __init__(self, count_max: int, calls: Callable[[], Iterable[ServerCall]], cut: Counter) -> None:
        """`count_max` is how many connections there may be; `calls` gives those that are not answered; counts in
        `cut`."""
        reserve = max(count_max // limits.GRPC_CONNECTIONS_FREE_PART, 1)
        self._count_kept = count_max - reserve
        self._count_high = count_max - -(-reserve // 2)
        self._calls = calls
        self._cut = cut
        self._look: asyncio.TimerHandle | None = None
        self._port = 0

    def watch(self, port: int) -> None:
        """Looks from now on at the connections to a local port, until `close`."""
        self._port = port
        if hasattr(socket, "TCP_INFO"):
            self._look_after(limits.GRPC_CONNECTIONS_LOOK_INTERVAL_S)

    def close(self) -> None:
        """Looks no more."""
        self._port = 0
        if self._look is not None:
            self._look.cancel()

    def _look_after(self, pause_s: float) -> None:
        self._look = asyncio.get_running_loop().call_later(pause_s, self._look_now)

    def _look_now(self) -> None:
        if _descriptors_count() <= self._count_high:
            self._look_after(limits.GRPC_CONNECTIONS_LOOK_INTERVAL_S)
            return
        began_s = monotonic_s()
        looking = asyncio.get_running_loop().run_in_executor(None, self._make_room, self._port, list(self._calls()))

        def looked(done: "asyncio.Future[int]") -> None:
            if self._port and not done.cancelled():
                self._cut.inc(done.result())
                took_s = monotonic_s() - began_s
                self._look_after(
                    max(limits.GRPC_CONNECTIONS_LOOK_INTERVAL_S, took_s * limits.GRPC_CONNECTIONS_LOOK_REST)
                )

        looking.add_done_callback(looked)

    def _make_room(self, port: int, calls: Iterable[ServerCall]) -> int:
        """Runs in a thread: how many connections have been cut."""
        idle_ms = dict(_connections(port))
        surplus = len(idle_ms) - self._count_kept
        if len(idle_ms) <= self._count_high:
            return 0
        busy = {call.peer.rpartition(":")[2] for call in calls}
        cut = 0
        # Some of the idlest may have calls.
        for number in heapq.nlargest(surplus + len(busy), idle_ms, key=idle_ms.__getitem__):
            if cut == surplus:
                break
            with suppress(OSError):
                cut += _cut_idle(number, port, busy)
        return cut


def _descriptors_count() -> int:
    """How many this process has open: more than it has connections."""
    try:
        # Zero before Linux 6.2.
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def _connections(port: int) -> Iterable[tuple[int, int]]:
    """Descriptor and idle time, in milliseconds, of each accepted connection."""
    for number in sockets():
        with suppress(OSError), borrowed(number) as connection:
            if is_of(connection, port) and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield number, _idle_ms(connection)


def _idle_ms(connection: socket.socket) -> int:
    sent_ms, received_ms = _LAST.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST.size))
    return min(int(sent_ms), int(received_ms))


def _cut_idle(number: int, port: int, busy: set[str]) -> bool:
    """Whether it was idle still; `busy` are the ports of clients with calls."""
    with socket.socket(fileno=os.dup(number)) as connection:
        if not is_of(connection, port) or str(connection.getpeername()[1]) in busy:
            return False
        if _idle_ms(connection) < limits.GRPC_CONNECTION_QUIET_MS_MIN:
            return False
        connection.shutdown(socket.SHUT_RDWR)
        return True
