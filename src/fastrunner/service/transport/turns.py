"""Stage 1, service: how long what arrives waits for the loop, which is what overload is told by.

Theory of operation: the loop looks at all connections together, so what has come since its last look has waited for at
most as long as that is ago. While something comes in every turn, the looks are told apart by a callback of each turn;
when nothing has, the loop sleeps, and what wakes it has waited for nothing, unless the kernel knows better, which keeps
when something last came on a connection.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

from fastrunner.base.clock import monotonic_s

__all__ = ["Turns", "quiet_ms"]

_LAST: Final = struct.Struct("=44xI4xI")
"""Of Linux's struct tcp_info: for how many milliseconds nothing has been sent, and nothing has come."""
_TCP_INFO: Final[int] = getattr(socket, "TCP_INFO", 0)


class Turns:
    """The turns of one loop in which something arrives."""

    def __init__(self, waited: Callable[[float], None]) -> None:
        """`waited` is told, in each such turn, for how many seconds at most any of it has been there."""
        self._waited = waited
        self._loop = asyncio.get_running_loop()
        self._is_awake = self._has_come = False
        self._looked_s = self._looks_s = monotonic_s()

    @property
    def read_s(self) -> float:
        """When everything had last been read that had arrived by then, on the monotonic clock."""
        return self._looked_s if self._is_awake else monotonic_s()

    def arrived(self, connection: socket.socket | None) -> None:
        """Something has, on a connection: call it before anything is done about it."""
        if self._has_come:
            return
        self._has_come = True
        now_s = monotonic_s()
        if self._is_awake:
            self._waited(now_s - self._looks_s)
        else:
            self._is_awake = True
            self._waited(0.0 if connection is None else quiet_ms(connection) / 1000)
            self._loop.call_soon(self._turn)
        self._looked_s, self._looks_s = self._looks_s, now_s

    def _turn(self) -> None:
        self._is_awake = self._has_come
        self._has_come = False
        if self._is_awake:
            self._loop.call_soon(self._turn)


def quiet_ms(connection: socket.socket) -> int:
    """For how many milliseconds nothing has come on a TCP connection; 0 where the kernel does not tell."""
    if not _TCP_INFO:
        return 0
    try:
        return int(_LAST.unpack(connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST.size))[1])
    except OSError:
        return 0
