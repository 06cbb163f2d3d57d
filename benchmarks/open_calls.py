"""Support: a load that is cheaper than what it loads: unary gRPC calls at fixed times, whatever becomes of them.

A client of grpcio takes as much time for a call as the runner does, and both share this machine. This one writes HTTP/2
frames itself, with the same header block for every call, and looks at answers only as far as it has to.

Rules: a call's latency counts from the time it was due, so a late load is seen and hides nothing; flow control is
obeyed; the answer's headers are literal, because the load offers no table to compress them with.
"""

import math
import select
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fastrunner.base.clock import monotonic_s

__all__ = ["Answers", "OpenCalls"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_TABLE_SIZE, _INITIAL_WINDOW = 1, 4
_WINDOW_BYTES = 65_535
_OWN_WINDOW_BYTES = 1 << 30
_TICK_S = 0.0005
_LATE_S_MAX = 20.0
_CODES = {0: "OK", 4: "DEADLINE_EXCEEDED", 8: "RESOURCE_EXHAUSTED", 13: "INTERNAL", 14: "UNAVAILABLE"}


@dataclass(slots=True)
class Answers:
    """What became of the calls."""

    span_s: float = 0.0
    """How long calls were sent."""
    latencies_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By code, `LOST` among them, from when each call was due."""
    due_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When each of them was due, from the begin."""
    lags_s: list[float] = field(default_factory=list)
    """How late the calls were sent."""
    accepted: list[int] = field(default_factory=list)
    """Numbers of the calls that ended with OK."""

    def count(self, code: str) -> int:
        """Calls that ended so."""
        return len(self.latencies_s.get(code, ()))

    def quantile_ms(self, code: str, share: float, after_s: float = 0.0) -> float:
        """A latency's quantile in milliseconds among calls due later than `after_s`; 0.0 without such calls."""
        pairs = zip(self.due_s.get(code, ()), self.latencies_s.get(code, ()), strict=True)
        ordered = sorted(latency_s for due_s, latency_s in pairs if due_s >= after_s)
        return 1000 * ordered[int(share * (len(ordered) - 1))] if ordered else 0.0

    def per_s(self, code: str, after_s: float = 0.0) -> float:
        """Calls per second that ended so, of those due later than `after_s`."""
        return sum(due_s >= after_s for due_s in self.due_s.get(code, ())) / max(self.span_s - after_s, 1e-9)


class _Connection:
    """One HTTP/2 connection: frames out of a buffer, frames into `_Calls`."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        settings = struct.pack(">HIHI", _TABLE_SIZE, 0, _INITIAL_WINDOW, _OWN_WINDOW_BYTES)
        window = struct.pack(">I", _OWN_WINDOW_BYTES - _WINDOW_BYTES)
        self.out = bytearray(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, window))
        self.unread = b""
        self.open = True
        self.due_s: dict[int, tuple[float, int]] = {}
        """When each call without an answer was due, and its number, by stream."""
        self.has_data: set[int] = set()
        self.stream = -1
        self.window_bytes = _WINDOW_BYTES
        self.waiting: deque[tuple[int, bytes]] = deque()
        """Bodies for which the peer has no room."""

    def send(self, headers: bytes, body: bytes, due_s: float, number: int) -> None:
        self.stream += 2
        self.due_s[self.stream] = (due_s, number)
        self.out += _frame(_HEADERS, _END_HEADERS, self.stream, headers)
        self.waiting.append((self.stream, body))
        self.push()

    def push(self) -> None:
        """Bodies go as the window of the connection lets them; each is smaller than any stream's own."""
        while self.waiting and len(self.waiting[0][1]) <= self.window_bytes:
            stream, body = self.waiting.popleft()
            self.window_bytes -= len(body)
            self.out += _frame(_DATA, _END_STREAM, stream, body)

    def flush(self) -> None:
        while self.out and self.open:
            try:
                sent = self.socket.send(self.out)
            except BlockingIOError:
                return
            except OSError:
                self.open = False
                return
            del self.out[:sent]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _header_block(path: str) -> bytes:
    named = path.encode()
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + b"\x04" + bytes([len(named)]) + named
        + b"\x01\x09localhost"
        + _literal(b"te", b"trailers")
        + _literal(b"content-type", b"application/grpc")
    )  # fmt: skip


class OpenCalls:
    """Calls one method over some connections."""

    def __init__(self, port: int, path: str, message_of: Callable[[int], bytes], connections: int) -> None:
        """`message_of` makes the request of a call from its number."""
        self._headers = _header_block(path)
        self._message_of = message_of
        self._connections = [_Connection(port) for _ in range(connections)]
        self._poll = select.epoll()
        for each in self._connections:
            self._poll.register(each.socket, select.EPOLLIN)
        self._by_descriptor = {each.socket.fileno(): each for each in self._connections}
        self._answers = Answers()
        self._began_s = 0.0
        self._sent = 0

    def run(self, rate_per_s: float, span_s: float, each_tick: Callable[[float], None] | None = None) -> Answers:
        """Sends so many calls per second, evenly; ends when all are answered. `each_tick` hears how late it is."""
        self._answers = answers = Answers(span_s=span_s)
        self._began_s = began_s = monotonic_s()
        first, count = self._sent, int(rate_per_s * span_s)
        while True:
            passed_s = monotonic_s() - began_s
            while self._sent - first < min(count, math.ceil(passed_s * rate_per_s)):
                due_s = began_s + (self._sent - first) / rate_per_s
                answers.lags_s.append(monotonic_s() - due_s)
                self._send(due_s)
            self._turn()
            if each_tick is not None:
                each_tick(passed_s)
            if self._sent - first >= count and (not self._flying() or passed_s > span_s + _LATE_S_MAX):
                break
        for each in self._connections:
            self._lose(each)
        return answers

    def saturate(self, callers: int, span_s: float) -> Answers:
        """So many callers that each wait for an answer before they call again."""
        self._answers = answers = Answers(span_s=span_s)
        self._began_s = monotonic_s()
        while (now_s := monotonic_s()) - self._began_s < span_s:
            for _ in range(callers - self._flying()):
                self._send(now_s)
            self._turn()
        while self._flying() and monotonic_s() - self._began_s < span_s + _LATE_S_MAX:
            self._turn()
        return answers

    def close(self) -> None:
        """Ends the connections."""
        self._poll.close()
        for each in self._connections:
            each.socket.close()

    def _send(self, due_s: float) -> None:
        message = self._message_of(self._sent)
        connection = self._connections[self._sent % len(self._connections)]
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        connection.send(self._headers, body, due_s, self._sent)
        self._sent += 1

    def _flying(self) -> int:
        return sum(len(each.due_s) for each in self._connections)

    def _turn(self) -> None:
        for each in self._connections:
            if each.out:
                each.flush()
        for descriptor, _ in self._poll.poll(_TICK_S):
            self._read(self._by_descriptor[descriptor])

    # --- answers ---

    def _read(self, connection: _Connection) -> None:
        try:
            received = connection.socket.recv(1 << 18)
        except OSError:
            received = b""
        if not received:
            self._poll.unregister(connection.socket)
            connection.open = False
            self._lose(connection)
            return
        data = connection.unread + received if connection.unread else received
        now_s, position, end = monotonic_s(), 0, len(data)
        while end - position >= 9:
            head, flags, stream = struct.unpack_from(">IBI", data, position)
            size = head >> 8
            if end - position < 9 + size:
                break
            self._frame(connection, head & 255, flags, stream, data[position + 9 : position + 9 + size], now_s)
            position += 9 + size
        connection.unread = data[position:]

    def _frame(self, connection: _Connection, kind: int, flags: int, stream: int, payload: bytes, now_s: float) -> None:
        if kind == _HEADERS:
            if flags & _END_STREAM:
                self._ended(connection, stream, _code(payload), now_s)
        elif kind == _RESET:
            self._ended(connection, stream, "RESET", now_s)
        elif kind == _WINDOW and stream == 0:
            connection.window_bytes += int.from_bytes(payload, "big")
            connection.push()
        elif kind == _SETTINGS and not flags & _ACK:
            connection.out += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            connection.out += _frame(_PING, _ACK, 0, payload)

    def _ended(self, connection: _Connection, stream: int, code: str, now_s: float) -> None:
        due = connection.due_s.pop(stream, None)
        if due is not None:
            self._note(code, *due, now_s)

    def _lose(self, connection: _Connection) -> None:
        lost, connection.due_s = connection.due_s, {}
        for due_s, number in lost.values():
            self._note("LOST", due_s, number, monotonic_s())

    def _note(self, code: str, due_s: float, number: int, now_s: float) -> None:
        self._answers.latencies_s[code].append(now_s - due_s)
        self._answers.due_s[code].append(due_s - self._began_s)
        if code == "OK":
            self._answers.accepted.append(number)


def _code(trailers: bytes) -> str:
    """The status in a literal header block."""
    at = trailers.find(b"grpc-status")
    if at < 0:
        return "UNREADABLE"
    at += len(b"grpc-status")
    size = trailers[at] & 0x7F
    return _CODES.get(int(trailers[at + 1 : at + 1 + size]), "OTHER") if not trailers[at] & 0x80 else "UNREADABLE"
