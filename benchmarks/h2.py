"""Support: a load client that is not the limit: HTTP/2 frames made beforehand, a few microseconds of Python per call.

    python -m benchmarks.h2 '{"port": 9090, "path": "/package.Service/Method", ...}'

Every call carries an execution id of its own, which h2load cannot do. A closed load keeps so many calls in flight; an
open one sends at seeded random times (Poisson), whatever becomes of earlier calls, and measures from when a call was
due. A call counts as answered if a message came before its end: gRPC sends none with an error.
"""

import itertools
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Load", "Result", "run"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME_SIZE_MAX = 16384
_WINDOW_SIZE = 65535
_INITIAL_WINDOW_ID = 4
_ID_SIZE = 20
_REPEATED_HEADERS = bytes((0x83, 0x86, 0xC1, 0xC0, 0xBF, 0xBE))
"""POST, http, then path, authority, te and content-type out of the table that the first request fills."""
_END_WAIT_S = 10.0
_STUCK_S_MAX = 120.0
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


@dataclass
class Load:
    """What to send."""

    port: int
    path: str
    head: str = ""
    """Hex of what comes before the execution id in one execution, without its field tag."""
    tail: str = ""
    """Hex of what comes after it."""
    batch: int = 0
    """Executions per call, for ExecuteAsyncBatch; 0: the message is one execution."""
    prefix: str = "x"
    """Of the ids, at most ten characters; never the same twice against one runner."""
    connections: int = 8
    in_flight: int = 64
    """Of a closed load, over all connections."""
    count: int = 0
    """Of a closed load: calls."""
    rate_per_s: float = 0.0
    """Of an open load; 0: closed."""
    span_s: float = 2.0
    """How long an open load sends."""
    seed: int = 1
    cores: list[int] = field(default_factory=list)
    """Where the client runs; none: anywhere."""


@dataclass
class Result:
    """What came of it."""

    calls: int
    """Answered."""
    sent: int
    """All calls."""
    errors: int
    """Ended without an answer."""
    dropped: int
    """Never ended."""
    span_s: float
    """Of a closed load until the last answer, of an open one while it sent."""
    per_s: float
    mean_ms: float
    quantiles_ms: dict[str, float]
    late_ms: float
    """Open loads: the most a call was sent after it was due, which its latency contains."""
    cpu_s: float
    """CPU the client itself used."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(index: int, name: bytes, value: bytes) -> bytes:
    key = bytes((0x40 | index,)) if index else bytes((0x40, len(name))) + name
    assert len(value) < 127
    return key + bytes((len(value),)) + value


class _Messages:
    """Messages with ids of their own."""

    def __init__(self, load: Load) -> None:
        self._head, self._tail = bytes.fromhex(load.head), bytes.fromhex(load.tail)
        self._batch = load.batch
        self._prefix = load.prefix.encode()
        self._next = 0
        size = len(self._one(0))
        self._item = b"\x0a" + _varint(size)

    def _one(self, number: int) -> bytes:
        text = b"%s-%0*d" % (self._prefix, _ID_SIZE - len(self._prefix) - 1, number)
        return self._head + b"\x0a" + bytes((_ID_SIZE,)) + text + self._tail

    def make(self) -> bytes:
        """The next message as gRPC frames it."""
        first = self._next
        self._next += self._batch or 1
        if self._batch:
            message = b"".join(self._item + self._one(number) for number in range(first, self._next))
        else:
            message = self._one(first)
        return b"\0" + struct.pack(">I", len(message)) + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Connection:
    def __init__(self, load: Load) -> None:
        self.socket = socket.create_connection(("127.0.0.1", load.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due_s: dict[int, float] = {}
        """When each open call was due."""
        self._answered: set[int] = set()
        self._stream = 1
        self._window = self._initial = _WINDOW_SIZE
        self._windows: dict[int, int] = {}
        self._waiting: list[tuple[int, bytes]] = []
        self._in = b""
        authority = b"127.0.0.1:%d" % load.port
        self._headers = b"\x83\x86" + b"".join(
            (
                _literal(4, b"", load.path.encode()),
                _literal(1, b"", authority),
                _literal(0, b"te", b"trailers"),
                _literal(31, b"", b"application/grpc"),
            )
        )
        settings = struct.pack(">HI", _INITIAL_WINDOW_ID, 2**24)
        self.out = bytearray(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        self.out += _frame(_WINDOW, 0, 0, struct.pack(">I", 2**31 - 1 - _WINDOW_SIZE))

    def call(self, body: bytes, due_s: float) -> None:
        stream, self._stream = self._stream, self._stream + 2
        self.due_s[stream] = due_s
        self.out += _frame(_HEADERS, _END_HEADERS, stream, self._headers)
        self._headers = _REPEATED_HEADERS
        if len(body) <= min(self._window, self._initial, _FRAME_SIZE_MAX) and not self._waiting:
            self._window -= len(body)
            self.out += _frame(_DATA, _END_STREAM, stream, body)
        else:
            self._windows[stream] = self._initial
            self._waiting.append((stream, body))
            self._push()

    def flush(self) -> None:
        if self.out:
            try:
                del self.out[: self.socket.send(self.out)]
            except BlockingIOError:
                return

    def _push(self) -> None:
        """Sends what the windows allow of the bodies that wait."""
        left = []
        for stream, body in self._waiting:
            rest = body
            while rest and (size := min(len(rest), self._window, self._windows[stream], _FRAME_SIZE_MAX)) > 0:
                part, rest = rest[:size], rest[size:]
                self._window -= size
                self._windows[stream] -= size
                self.out += _frame(_DATA, 0 if rest else _END_STREAM, stream, part)
            if rest:
                left.append((stream, rest))
            else:
                del self._windows[stream]
        self._waiting = left

    def read(self) -> list[tuple[float, bool]]:
        """Takes in what has come; for every call that ended: when it was due, and whether it was answered."""
        data = self._in + self.socket.recv(1 << 18)
        if len(data) == len(self._in):
            raise ConnectionError("the server closed a connection")
        ended, at, size = [], 0, len(data)
        while size - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            end = at + 9 + length
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            if kind == _DATA:
                self._answered.add(stream)
            elif kind not in (_HEADERS, _RESET):
                self._control(kind, flags, stream, data[at + 9 : end])
            if (kind <= _HEADERS and flags & _END_STREAM) or kind == _RESET:
                answered = stream in self._answered and kind != _RESET
                self._answered.discard(stream)
                if (due_s := self.due_s.pop(stream, None)) is not None:
                    ended.append((due_s, answered))
            at = end
        self._in = data[at:]
        return ended

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW:
            (more,) = struct.unpack(">I", payload)
            if not stream:
                self._window += more
            elif stream in self._windows:
                self._windows[stream] += more
            self._push()
        elif kind == _SETTINGS and not flags & _ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == _INITIAL_WINDOW_ID:
                    for each in self._windows:
                        self._windows[each] += value - self._initial
                    self._initial = value
            self.out += _frame(_SETTINGS, _ACK, 0, b"")
            self._push()
        elif kind == _PING and not flags & _ACK:
            self.out += _frame(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            raise ConnectionError("the server sent this client away")


class _Client:
    def __init__(self, load: Load) -> None:
        self._load = load
        messages = _Messages(load)
        # A closed load is made beforehand: while it runs, the client's work takes cores from the server.
        made = [] if load.rate_per_s else [messages.make() for _ in range(load.count)]
        self._made: Iterator[bytes] = itertools.chain(made, iter(messages.make, None))
        self._connections = [_Connection(load) for _ in range(load.connections)]
        self._by_fd = {each.socket.fileno(): each for each in self._connections}
        self._latencies_s: list[float] = []
        self._errors = 0
        self._sent = 0
        self._late_s = 0.0

    def run(self) -> Result:
        load = self._load
        begin_s, cpu_s = time.perf_counter(), time.process_time()
        (self._open if load.rate_per_s else self._closed)(begin_s)
        give_up_s = time.perf_counter() + _END_WAIT_S
        while any(each.due_s for each in self._connections) and time.perf_counter() < give_up_s:
            self._turn(0.05)
        span_s = load.span_s if load.rate_per_s else time.perf_counter() - begin_s
        cpu_s = time.process_time() - cpu_s
        latencies = sorted(self._latencies_s) or [0.0]
        last = len(latencies) - 1
        return Result(
            calls=len(self._latencies_s),
            sent=self._sent,
            errors=self._errors,
            dropped=sum(len(each.due_s) for each in self._connections),
            span_s=span_s,
            per_s=len(self._latencies_s) / span_s,
            mean_ms=1000 * sum(latencies) / len(latencies),
            quantiles_ms={name: 1000 * latencies[int(share * last)] for name, share in _SHARES.items()},
            late_ms=1000 * self._late_s,
            cpu_s=cpu_s,
        )

    def _submit(self, connection: _Connection, due_s: float) -> None:
        self._sent += 1
        connection.call(next(self._made), due_s)

    def _turn(self, wait_s: float) -> dict[_Connection, int]:
        """Sends and receives once; how many calls ended on each connection."""
        for each in self._connections:
            each.flush()
        stuck = [each.socket for each in self._connections if each.out]
        readable, _, _ = select.select(list(self._by_fd), stuck, [], wait_s)
        over = {}
        for fd in readable:
            connection = self._by_fd[fd]
            ended = connection.read()
            now_s = time.perf_counter()
            over[connection] = len(ended)
            for due_s, answered in ended:
                if answered:
                    self._latencies_s.append(now_s - due_s)
                else:
                    self._errors += 1
        return over

    def _closed(self, begin_s: float) -> None:
        for number in range(min(self._load.count, self._load.in_flight)):
            self._submit(self._connections[number % len(self._connections)], begin_s)
        stuck_s = begin_s + _STUCK_S_MAX
        while self._sent < self._load.count:
            for connection, ended in self._turn(0.01).items():
                for _ in range(min(ended, self._load.count - self._sent)):
                    self._submit(connection, time.perf_counter())
            if time.perf_counter() > stuck_s:
                raise ConnectionError(f"{self._sent} of {self._load.count} calls within {_STUCK_S_MAX} s")

    def _open(self, begin_s: float) -> None:
        load, times = self._load, random.Random(self._load.seed)
        end_s = begin_s + load.span_s
        due_s = begin_s + times.expovariate(load.rate_per_s)
        while due_s < end_s:
            now_s = time.perf_counter()
            while due_s <= now_s and due_s < end_s:
                self._late_s = max(self._late_s, now_s - due_s)
                self._submit(self._connections[self._sent % len(self._connections)], due_s)
                due_s += times.expovariate(load.rate_per_s)
            self._turn(max(0.0, min(due_s - time.perf_counter(), 0.01)))


def run(load: Load) -> Result:
    """Loads in this process. Raises ConnectionError when the server ends a connection."""
    if load.cores:
        os.sched_setaffinity(0, load.cores)
    return _Client(load).run()


def main() -> None:
    """Loads as the first argument says; the result as JSON on stdout."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(asdict(run(Load(**asked)))))


if __name__ == "__main__":
    main()
