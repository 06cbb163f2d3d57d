"""Stage 1, service: the sockets on which a worker listens, and every connection that it has.

Rules: a worker shares its port with others, and an address means here what it means when it is reserved. There may be
only so many connections, greetings included: further ones are closed, and before there is no room, those that have been
idle for longest give way; never one with a call under way, or on which something has just come or gone.
"""

import asyncio
import errno
import heapq
import logging
import socket
from contextlib import suppress
from typing import Final

from fastrunner._http2 import waiting_size_bytes
from fastrunner.access.certificates import Certificates, RotatingContext
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.counts.cells import Counter
from fastrunner.service.transport.connection import Connection, Host

__all__ = ["Connections", "Listener"]

_log = logging.getLogger(__name__)
_BACKLOG: Final = 4096
_AT_ONCE: Final = 64
"""Connections accepted before others have a turn."""
_PAUSE_S: Final = 0.1
"""How long nobody is accepted when there are no descriptors."""
_COMPLAINT_INTERVAL_S: Final = 60.0


class Listener:
    """A listening socket. It needs no loop: until `Connections` take them up, clients wait in its backlog."""

    def __init__(self) -> None:
        self.port = 0
        """The port it listens on; 0 as long as it does not."""
        self.certificates: Certificates | None = None
        """What its connections speak TLS with."""
        self.socket: socket.socket | None = None
        """Listens."""

    def listen(self, address: str, certificates: Certificates | None = None) -> None:
        """Binds host:port and lets clients connect. Raises RuntimeError if the port cannot be had."""
        host, _, port = address.rpartition(":")
        try:
            self.socket = _listening(host.strip("[]"), int(port))
        except (OSError, ValueError, UnicodeError) as error:
            raise RuntimeError(f"cannot listen on {address}: {error}") from None
        self.certificates = certificates
        self.port = self.socket.getsockname()[1]

    def close(self) -> None:
        """Listens no more."""
        if self.socket is not None:
            self.socket.close()


def _listening(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            # `::` serves both protocols.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Its connections inherit it: those that are still ending keep nobody from the port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


class Connections:
    """What comes in at a listener."""

    def __init__(self, listener: Listener, host: Host, count_max: int, cut: Counter) -> None:
        """`count_max` is how many connections there may be; counts in `cut` those that give way."""
        reserve = max(count_max // limits.GRPC_CONNECTIONS_FREE_PART, 1)
        self._count_max = count_max
        self._count_kept = count_max - reserve
        self._count_high = count_max - -(-reserve // 2)
        self._listener = listener
        self._host = host
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._context: RotatingContext | None = None
        self._connections: set[Connection] = set()
        self._greeting: dict[asyncio.Task[None], tuple[socket.socket, float]] = {}
        self._look: asyncio.TimerHandle | None = None
        self._weigh: asyncio.TimerHandle | None = None
        self._complained_s = float("-inf")
        self._gone = asyncio.Event()

    def start(self) -> None:
        """Takes connections from now on."""
        assert self._listener.socket is not None, "it listens"
        if self._listener.certificates is not None:
            self._context = RotatingContext(self._listener.certificates, ["h2"], insists=True)
        self._loop.add_reader(self._listener.socket.fileno(), self._accept)
        self._weigh = self._loop.call_later(limits.GRPC_REPLIES_LOOK_INTERVAL_S, self._cut_heaviest)

    def stop_listening(self) -> None:
        """Takes those that have come, and no more: the kernel gives them to whoever else listens on the port."""
        listening = self._listener.socket
        if listening is None or listening.fileno() < 0:
            return
        self._accept()
        self._loop.remove_reader(listening.fileno())
        self._listener.close()
        if self._look is not None:
            self._look.cancel()

    def retire(self) -> None:
        """Asks every client to go elsewhere with further calls."""
        for connection in self._connections:
            connection.retire()

    def leave(self) -> None:
        """Takes no further calls; connections end with their last one."""
        for connection in list(self._connections):
            connection.leave()

    async def close(self, grace_s: float) -> None:
        """Waits for connections that have calls within `grace_s`, then ends them all."""
        for task in list(self._greeting):
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._connections:
                    self._gone.clear()
                    await self._gone.wait()
        for connection in list(self._connections):
            connection.cut()
        if self._weigh is not None:
            self._weigh.cancel()

    def ended(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._gone.set()

    # --- accepting ---

    @property
    def count(self) -> int:
        """Connections, those that are only beginning included."""
        return len(self._connections) + len(self._greeting)

    def _accept(self) -> None:
        assert self._listener.socket is not None
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._listener.socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._wait_for_descriptors(error)
                    break
                # Gone before it was accepted.
                continue
            if self.count >= self._count_max:
                accepted.close()
                continue
            self._begin(accepted)
        if self.count > self._count_high and self._look is None:
            self._look = self._loop.call_later(limits.GRPC_CONNECTIONS_LOOK_INTERVAL_S, self._make_room)

    def _begin(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        with suppress(OSError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._greet(accepted))
        self._greeting[task] = (accepted, monotonic_s())
        task.add_done_callback(lambda task: self._greeting.pop(task, None))

    async def _greet(self, accepted: socket.socket) -> None:
        patience_s = None if self._context is None else limits.GRPC_GREETING_TIMEOUT_MS / 1000
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self._host, self._connections.add),
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=patience_s,
            )
        except (OSError, TimeoutError):
            # It did not speak TLS, or not in time, or has nothing to show that is accepted.
            accepted.close()

    def _wait_for_descriptors(self, error: OSError) -> None:
        assert self._listener.socket is not None
        if monotonic_s() > self._complained_s + _COMPLAINT_INTERVAL_S:
            self._complained_s = monotonic_s()
            _log.error("no connection can be accepted: %s", error)
        number = self._listener.socket.fileno()
        self._loop.remove_reader(number)
        self._loop.call_later(_PAUSE_S, self._accept_again, number)

    def _accept_again(self, number: int) -> None:
        listening = self._listener.socket
        if listening is not None and listening.fileno() == number:
            self._loop.add_reader(number, self._accept)
            self._accept()

    # --- giving way ---

    def _make_room(self) -> None:
        self._look = None
        if self.count <= self._count_high:
            return
        surplus = self.count - self._count_kept
        quiet_s = monotonic_s() - limits.GRPC_CONNECTION_QUIET_MS_MIN / 1000
        idle: list[tuple[float, int, Connection | socket.socket]] = [
            (connection.active_s, id(connection), connection)
            for connection in self._connections
            if connection.session.is_idle and connection.active_s <= quiet_s
        ]
        idle += [(since_s, id(sock), sock) for sock, since_s in self._greeting.values() if since_s <= quiet_s]
        for _, _, stranger in heapq.nsmallest(surplus, idle):
            if isinstance(stranger, Connection):
                stranger.cut()
            else:
                with suppress(OSError):
                    stranger.shutdown(socket.SHUT_RDWR)
            self._cut.inc()
        self._look = self._loop.call_later(limits.GRPC_CONNECTIONS_LOOK_INTERVAL_S, self._make_room)

    def _cut_heaviest(self) -> None:
        """Ends those that hold the most of what their clients do not read, if all of them hold too much."""
        surplus_bytes = waiting_size_bytes() - limits.GRPC_REPLIES_UNREAD_SIZE_BYTES_MAX * 2 // 3
        if waiting_size_bytes() > limits.GRPC_REPLIES_UNREAD_SIZE_BYTES_MAX:
            for connection in sorted(self._connections, key=_weight, reverse=True):
                surplus_bytes -= _weight(connection)
                connection.abort()
                self._cut.inc()
                if surplus_bytes <= 0:
                    break
        self._weigh = self._loop.call_later(limits.GRPC_REPLIES_LOOK_INTERVAL_S, self._cut_heaviest)


def _weight(connection: Connection) -> int:
    return connection.session.waiting_size_bytes
