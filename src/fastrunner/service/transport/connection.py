"""Stage 1, service: one connection of a client: bytes between its socket and its `Session`, and how long it may be.

    nothing said, settings not acknowledged   closed after the greeting's time
    no call for long, or old                  asked to go; closed when its last call is over
    silent                                    pinged; closed when the ping stays unanswered
    answers not read                          what is sent waits in the calls
    told to go, last call over                ends when its client has read that, or after a ping's time

Rules: whatever an answer is, one write a turn takes all that there is for the connection. Of many calls that come at
once some are taken in a turn, and others have theirs. A connection has one timer.
"""

import asyncio
import logging
import math
import random
import socket
from collections.abc import Callable
from typing import Protocol, cast

from fastrunner._http2 import INTERNAL, Bounds, Call, Session
from fastrunner.access.certificates import names_of
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.service.transport.turns import Turns
from fastrunner.service.transport.unpacking import Unpacking

__all__ = ["Connection", "Host"]

_log = logging.getLogger(__name__)
_CLOSING_S_MAX = 1.0
"""How long a connection that is cut has for what is still to be sent."""
_LOOK_INTERVAL_S_MIN = 0.01


class Host(Protocol):
    """What connections belong to."""

    turns: Turns
    unpacking: Unpacking

    def take_up(self, call: Call) -> None:
        """A call has begun."""

    def ended(self, connection: "Connection") -> None:
        """A connection is gone."""


class Connection(asyncio.Protocol):
    """See the module's head."""

    def __init__(self, host: Host, begun: Callable[["Connection"], None]) -> None:
        """`begun` is told when it can be used."""
        self._host = host
        self._begun = begun
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_receiving = self._is_pumping = self._is_held = self._is_going_on = self._is_ending = False
        self._is_owing = False
        self.active_s = self._heard_s = self._made_s = self._busy_s = monotonic_s()
        """When something last came or went, on the monotonic clock."""
        self._ends_s = self._made_s + limits.GRPC_CONNECTION_AGE_MS_MAX / 1000 * random.uniform(0.9, 1.1)
        self._pinged_s: float | None = None
        self._leaves_s = math.inf
        bounds = Bounds(
            limits.GRPC_HEADERS_SIZE_BYTES_MAX, limits.REQUEST_SIZE_BYTES_MAX, limits.GRPC_STREAMS_PER_CONNECTION_MAX
        )
        self.session = Session(bounds, self._flush_soon, host.unpacking.unpack, self._loop.create_future)
        """What it speaks."""

    # --- asyncio's ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(limits.GRPC_UNSENT_SIZE_BYTES_MAX)
        self._socket = transport.get_extra_info("socket")
        tls = transport.get_extra_info("ssl_object")
        self._begun(self)
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._transport.abort()
            return
        self.session.peer = _peer_name(transport.get_extra_info("peername"))
        self.session.certificate_names = names_of(transport.get_extra_info("peercert") or {})
        self._flush()
        self._look()

    def data_received(self, data: bytes) -> None:
        """See Protocol."""
        self._host.turns.arrived(self._socket)
        if self._is_ending:
            return
        self.active_s = self._heard_s = monotonic_s()
        self._take(data)

    def pause_writing(self) -> None:
        """See Protocol."""
        self.session.pause()

    def resume_writing(self) -> None:
        """See Protocol."""
        self.session.resume()
        if self.session.output_size_bytes:
            self._flush()
        if self._is_held:
            self._go_on_soon()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - Protocol's
        """See Protocol."""
        if self._timer is not None:
            self._timer.cancel()
        self._have_turns(self.session.lose())
        self._host.ended(self)

    # --- the server's ---

    def retire(self) -> None:
        """See `Session`."""
        self.session.retire()

    def leave(self) -> None:
        """See `Session`; closes it when nothing is left to be said."""
        self.session.leave()
        self._flush()

    def cut(self) -> None:
        """Closes it at once; what has been written already is sent, and where calls could go on is said."""
        self.leave()
        self._close()

    def abort(self) -> None:
        """Drops it with all that its client has not read."""
        self._transport.abort()

    # --- receiving ---

    def _take(self, data: bytes) -> None:
        session = self.session
        self._is_receiving = True
        self._have_turns(session.receive(data))
        self._is_receiving = False
        if session.is_urgent or session.is_over:
            self._flush()
        elif session.output_size_bytes and not self._is_owing:
            self._is_owing = True
            self._loop.call_later(limits.GRPC_PING_DELAY_S_MAX, self._pay)
        if (session.has_more or self._is_held_back()) and not self._transport.is_closing() and not self._is_held:
            self._is_held = True
            self._transport.pause_reading()
        if self._is_held:
            self._go_on_soon()

    def _go_on_soon(self) -> None:
        if not self._is_going_on:
            self._is_going_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Listens again unless the client does not read: to what has come already, then to the socket."""
        self._is_going_on = False
        if self._transport.is_closing() or self._is_held_back():
            return
        if self.session.has_more:
            self._host.turns.arrived(self._socket)
            self._take(b"")
        elif self._is_held:
            self._is_held = False
            self._transport.resume_reading()

    # --- sending ---

    def _have_turns(self, calls: list[Call]) -> None:
        for call in calls:
            try:
                call.turn(self._host.take_up)
            except Exception:
                _log.exception("a call failed inside the transport")
                call.finish(INTERNAL, b"internal error: the runner's log has the cause")

    def _pay(self) -> None:
        """Sends what nothing has taken along."""
        self._is_owing = False
        if self.session.output_size_bytes:
            self._flush()

    def _flush_soon(self) -> None:
        if not self._is_receiving:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        session = self.session
        if self._is_ending or self._transport.is_closing():
            session.output()
            return
        if session.output_size_bytes:
            self._transport.write(session.output())
        if session.has_blocked and not self._is_pumping:
            # Further bodies have their turn after the other connections.
            self._is_pumping = True
            self._loop.call_soon(self._pump)
        self.active_s = monotonic_s()
        if session.is_over:
            self._close()
        elif session.is_done:
            self._end()

    def _pump(self) -> None:
        self._is_pumping = False
        self.session.pump()
        if self.session.output_size_bytes:
            self._flush()

    def _is_held_back(self) -> bool:
        """Whether the client is not listened to until it reads what it has been told."""
        return self._transport.get_write_buffer_size() > 2 * limits.GRPC_UNSENT_SIZE_BYTES_MAX

    def _end(self) -> None:
        """Says no more; the client, which may read slowly, closes it when it has read all.

        Until then what it still says is read: the system drops what has not arrived when there are unread bytes.
        """
        if not self._transport.can_write_eof():
            self._close(limits.GRPC_KEEPALIVE_TIMEOUT_MS / 1000)
            return
        self._is_ending = True
        self._transport.write_eof()
        self._abort_after(limits.GRPC_KEEPALIVE_TIMEOUT_MS / 1000)

    def _close(self, patience_s: float = _CLOSING_S_MAX) -> None:
        self._transport.close()
        self._abort_after(patience_s)

    def _abort_after(self, patience_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(patience_s, self._transport.abort)

    # --- time ---

    def _look(self) -> None:
        """Does what is due, and comes again when the next thing is."""
        session = self.session
        now_s = monotonic_s()
        session.forgive()
        if not session.is_idle:
            self._busy_s = now_s
        greeting_s = self._made_s + limits.GRPC_GREETING_TIMEOUT_MS / 1000
        idle_s = max(self._busy_s, self.active_s) + limits.GRPC_CONNECTION_IDLE_MS_MAX / 1000
        if self._is_silent(now_s) or (now_s >= greeting_s and not session.is_acknowledged):
            self._transport.abort()
            return
        if not session.is_retiring and (now_s >= self._ends_s or (session.is_idle and now_s >= idle_s)):
            session.retire()
            self._leaves_s = now_s + limits.GRPC_GREETING_TIMEOUT_MS / 1000
        if now_s >= self._leaves_s:
            # It has not even said that it has heard. Calls that it has go on.
            session.leave()
            self._leaves_s = math.inf
        due_s = [self._next_ping_s()]
        if not session.is_acknowledged:
            due_s.append(greeting_s)
        due_s += (self._leaves_s,) if session.is_retiring else (self._ends_s, idle_s)
        if not self._transport.is_closing():
            self._timer = self._loop.call_later(max(min(due_s) - now_s, _LOOK_INTERVAL_S_MIN), self._look)

    def _is_silent(self, now_s: float) -> bool:
        """Whether a ping has stayed unanswered for too long; sends one if it is time."""
        if self._pinged_s is not None and self._heard_s <= self._pinged_s:
            return now_s >= self._pinged_s + limits.GRPC_KEEPALIVE_TIMEOUT_MS / 1000
        self._pinged_s = None
        if now_s >= self._heard_s + limits.GRPC_KEEPALIVE_TIME_MS / 1000:
            self.session.ping()
            self._pinged_s = now_s
        return False

    def _next_ping_s(self) -> float:
        if self._pinged_s is not None:
            return self._pinged_s + limits.GRPC_KEEPALIVE_TIMEOUT_MS / 1000
        return self._heard_s + limits.GRPC_KEEPALIVE_TIME_MS / 1000


def _peer_name(name: object) -> str:
    """As gRPC writes addresses."""
    if not isinstance(name, tuple) or len(name) < 2:
        return "unknown"
    host, port = name[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
