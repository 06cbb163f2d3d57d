"""A client that knows HTTP/2 frames only, hand-built, so that it can say what no library would.

Header blocks are sent as literals. Those that come are decoded for a dynamic table of size 0, which the settings ask
for: names are literals, or known by their number in the static table.
"""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEADLINE_S: Final = 10.0
FRAME_SIZE_BYTES: Final = 16_384
FIRST_WINDOW_SIZE_BYTES: Final = 65_535
STATUS: Final = 8
"""The number of the name `:status` in the static table."""
_STATIC: Final = {STATUS: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame; names end in the number of the setting, such as `window_4`."""
    pairs = [(int(name.rpartition("_")[2]), value) for name, value in values.items()]
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def literal(name: str, value: str) -> bytes:
    """A header without indexing; lone surrogates of the value stand for bytes that are no text."""
    return b"\0" + _text(name.encode()) + _text(value.encode("utf-8", "surrogateescape"))


def _text(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    encoded = bytearray([127])
    size -= 127
    while size >= 128:
        encoded.append(size % 128 + 128)
        size //= 128
    return bytes([*encoded, size]) + text


def request_block(path: str, **replaced: str) -> bytes:
    """The header block of a call; keywords replace what is usual, underscores for hyphens."""
    usual = {"method": "POST", "scheme": "http", "path": path, "authority": "tests"}
    usual |= {name: replaced.pop(name) for name in list(replaced) if name in usual}
    rest = {"content-type": "application/grpc", "te": "trailers"}
    rest |= {name.replace("_", "-"): value for name, value in replaced.items()}
    pairs = (*((f":{name}", value) for name, value in usual.items()), *rest.items())
    return b"".join(literal(name, value) for name, value in pairs)


def message(payload: bytes, *, compressed: bool = False, size: int | None = None) -> bytes:
    """A message with its prefix, which may lie."""
    return struct.pack(">BI", compressed, len(payload) if size is None else size) + payload


def decode(block: bytes) -> dict[str, str]:
    """Headers by name; values in Huffman's code as they are, names known by number alone as `#number`."""
    headers: dict[str, str] = {}
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            number, at = _number(block, at, 7)
            headers[":status"] = _STATIC.get(number, headers.get(":status", ""))
        elif first & 0xE0 == 0x20:
            _, at = _number(block, at, 5)
        else:
            number, at = _number(block, at, 6 if first & 0x40 else 4)
            name = ":status" if number == STATUS else f"#{number}"
            if not number:
                name, at = _string(block, at)
            headers[name], at = _string(block, at)
    return headers


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    value = block[at] & ((1 << bits) - 1)
    at += 1
    if value < (1 << bits) - 1:
        return value, at
    shift = 0
    while True:
        value += (block[at] & 127) << shift
        shift += 7
        at += 1
        if block[at - 1] < 128:
            return value, at


def _string(block: bytes, at: int) -> tuple[str, int]:
    size, at = _number(block, at, 7)
    return block[at : at + size].decode("latin-1"), at + size


@dataclass(slots=True)
class Answer:
    """What came on one stream, and on the connection meanwhile."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None
    goaway: bytes | None = None
    closed: bool = False

    @property
    def outcome(self) -> str:
        """`status 3`, `http 415`, `reset`, `goaway` or `closed`."""
        if self.headers.get(":status", "200") != "200":
            return f"http {self.headers[':status']}"
        if "grpc-status" in self.headers:
            return f"status {self.headers['grpc-status']}"
        if self.reset is not None:
            return "reset"
        return "goaway" if self.goaway is not None else "closed"


class Connection:
    """One connection; everything sent is what the test gives."""

    def __init__(self, port: int, hello: bytes | None = None, receive_buffer_size_bytes: int = 0) -> None:
        self._socket = socket.socket()
        if receive_buffer_size_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_size_bytes)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(("127.0.0.1", port))
        self._buffer = b""
        self._stream_window = FIRST_WINDOW_SIZE_BYTES
        self._windows = {0: FIRST_WINDOW_SIZE_BYTES}
        self.send(PREFACE + settings(table_1=0) if hello is None else hello)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Drops the connection, with a reset if something is unread."""
        self._socket.close()

    def shut_down(self) -> None:
        """Says that nothing more comes, and listens on."""
        self._socket.shutdown(socket.SHUT_WR)

    def give_up_after(self, timeout_s: float) -> None:
        """Raises TimeoutError from then on, where the server takes or gives nothing for so long."""
        self._socket.settimeout(timeout_s)

    def send(self, sent: bytes) -> None:
        """Bytes as they are."""
        self._socket.sendall(sent)

    def call(
        self, stream: int, path: str, *payloads: bytes, end: bool = True, headers: Mapping[str, str] | None = None
    ) -> None:
        """Headers, then a DATA frame for each payload."""
        block = request_block(path, **(headers or {}))
        ends = END_STREAM if end and not payloads else 0
        for at in range(0, len(block), FRAME_SIZE_BYTES):
            last = END_HEADERS if at + FRAME_SIZE_BYTES >= len(block) else 0
            flags = last if at else last | ends
            self.send(frame(CONTINUATION if at else HEADERS, flags, stream, block[at : at + FRAME_SIZE_BYTES]))
        for at, payload in enumerate(payloads, 1):
            self.send(frame(DATA, END_STREAM if end and at == len(payloads) else 0, stream, payload))

    def read_only(self) -> tuple[int, int, int, bytes] | None:
        """As `read`, but says nothing to it."""
        header = self._take(9)
        payload = None if header is None else self._take(int.from_bytes(header[:3], "big"))
        if header is None or payload is None:
            return None
        return header[3], header[4], int.from_bytes(header[5:9], "big"), payload

    def read(self) -> tuple[int, int, int, bytes] | None:
        """Kind, flags, stream and payload of the next frame; None if the server closed. Raises TimeoutError."""
        got = self.read_only()
        if got is None:
            return None
        kind, flags, stream, payload = got
        if kind == SETTINGS and not flags & ACK:
            given = dict(struct.iter_unpack(">HI", payload))
            self._stream_window = given.get(4, self._stream_window)
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW_UPDATE and stream in self._windows:
            self._windows[stream] += int.from_bytes(payload, "big")
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        return kind, flags, stream, payload

    def _take(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            try:
                more = self._socket.recv(1 << 16)
            except ConnectionError:
                return None
            if not more:
                return None
            self._buffer += more
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def answer(self, stream: int) -> Answer:
        """What comes until the stream or the connection ends. Raises TimeoutError if neither does."""
        answer = Answer()
        while not answer.ended and answer.reset is None:
            try:
                got = self.read()
            except ConnectionError:
                got = None
            if got is None:
                answer.closed = True
                break
            kind, flags, on, payload = got
            if kind == GOAWAY:
                answer.goaway = payload
            if on != stream:
                continue
            if kind == HEADERS:
                answer.headers |= decode(payload)
            elif kind == DATA:
                answer.data += payload
            elif kind == RST_STREAM:
                answer.reset = int.from_bytes(payload, "big")
            answer.ended = bool(flags & END_STREAM) and kind in (HEADERS, DATA)
        return answer

    def flow(self, stream: int, body: bytes, *, end: bool = True) -> None:
        """Sends DATA as far as the windows allow, then what they are grown by; ends the stream if it shall."""
        self._windows[stream] = self._stream_window
        while body:
            size = min(self._windows[0], self._windows[stream], FRAME_SIZE_BYTES)
            if size:
                part, body = body[:size], body[size:]
                self.send(frame(DATA, 0 if body or not end else END_STREAM, stream, part))
                self._windows[0] -= size
                self._windows[stream] -= size
            elif self.read() is None:
                raise ConnectionError("closed by the server")

    def settle(self) -> None:
        """Takes the server's settings up and waits until it knows."""
        self.send(frame(PING, 0, 0, b"settled?"))
        assert self.pongs(b"settled?")
        # Only what follows the acknowledgement is sure to be read after it.
        self.send(frame(PING, 0, 0, b"settled!"))
        assert self.pongs(b"settled!")

    def pongs(self, payload: bytes) -> bool:
        """Whether the server answers a ping, rather than close."""
        try:
            while (got := self.read()) is not None:
                if got[0] == PING and got[1] & ACK and got[3] == payload:
                    return True
        except ConnectionError:
            return False
        return False
