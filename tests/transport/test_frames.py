"""What no library sends: calls that are not as gRPC has them, connections that are not HTTP/2. Others are served on."""

import gzip
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner.base import limits
from tests.transport import frames
from tests.transport.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    frame,
    message,
)
from tests.transport.server_process import EXECUTE_ASYNC, GET, REFLECTION, SUBSCRIBE, ServerProcess, until

REQUEST = m.WorkflowExecuteInput(workflow_execution_id="raw", workflow_yaml="raw").SerializeToString()
WINDOW_TOO_LARGE = struct.pack(">I", 2**31 - 1)


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[Connection]:
    """A connection of its own; what happened on it concerns nobody else."""
    with Connection(server.port) as connection:
        yield connection
    server.serves_others()


# --- calls ---

OK, INVALID, LATE, EXHAUSTED, UNIMPLEMENTED, INTERNAL = (f"status {code}" for code in (0, 3, 4, 8, 12, 13))
GZIPPED = message(gzip.compress(REQUEST), compressed=True)
GZIP_CUT = message(gzip.compress(REQUEST)[:-20], compressed=True)
COMPRESSED = message(REQUEST, compressed=True)
BOMB_SIZE_BYTES = 200 << 20

CALLS: dict[str, tuple[list[bytes], dict[str, str], str]] = {
    "one message": ([message(REQUEST)], {}, OK),
    "message in single bytes": ([bytes([byte]) for byte in message(REQUEST)], {}, OK),
    "message of no bytes": ([message(b"")], {}, INVALID),
    "two messages: the first counts": ([message(REQUEST), message(b"")], {}, OK),
    "no message": ([], {}, INVALID),
    "empty frame alone": ([b""], {}, INVALID),
    "gzip": ([GZIPPED], {"grpc_encoding": "gzip"}, OK),
    "gzip that is none": ([COMPRESSED], {"grpc_encoding": "gzip"}, INTERNAL),
    "gzip cut off": ([GZIP_CUT], {"grpc_encoding": "gzip"}, INTERNAL),
    "compressed with nothing": ([COMPRESSED], {}, INTERNAL),
    "unknown compression": ([COMPRESSED], {"grpc_encoding": "zstd"}, UNIMPLEMENTED),
    "no protobuf": ([message(b"\xff" * 20)], {}, INVALID),
    "text that is not UTF-8": ([message(b"\x0a\x02\xff\xfe")], {}, INVALID),
    "field that ends beyond the message": ([message(b"\x2a\xe8\x07" + b"\x0a" * 500)], {}, INVALID),
    "longer than it says": ([message(REQUEST, size=4)], {}, INVALID),
    "shorter than it says": ([message(REQUEST, size=4000)], {}, INVALID),
    "four gigabytes announced": ([message(REQUEST, size=2**32 - 1)], {}, EXHAUSTED),
    "flags nobody knows": ([b"\xfe" + message(REQUEST)[1:]], {}, INVALID),
    "another content-type": ([message(REQUEST)], {"content_type": "text/html"}, "http 415"),
    "content-type that begins alike": ([message(REQUEST)], {"content_type": "application/grpc-web"}, "http 415"),
    "content-type with a parameter": ([message(REQUEST)], {"content_type": "application/grpc;charset=utf-8"}, OK),
    "content-type with suffix": ([message(REQUEST)], {"content_type": "application/grpc+proto"}, OK),
    "GET": ([message(REQUEST)], {"method": "GET"}, "http 405"),
    "HEAD": ([], {"method": "HEAD"}, "http 405"),
    "CONNECT": ([message(REQUEST)], {"method": "CONNECT"}, "http 405"),
    "no such service": ([message(REQUEST)], {"path": "/a.B/C"}, UNIMPLEMENTED),
    "no such method": ([message(REQUEST)], {"path": EXECUTE_ASYNC.upper()}, UNIMPLEMENTED),
    "no path at all": ([message(REQUEST)], {"path": ""}, "reset"),
    "path that is no text": ([message(REQUEST)], {"path": "/\udcff/x"}, UNIMPLEMENTED),
    "zero in a value": ([message(REQUEST)], {"x": "a\0b"}, "reset"),
    "line feed in a value": ([message(REQUEST)], {"x": "a\nb"}, "reset"),
    "name in capitals": ([message(REQUEST)], {"X": "a"}, "reset"),
    "name with a space": ([message(REQUEST)], {"x y": "a"}, "reset"),
    "header of a connection": ([message(REQUEST)], {"connection": "close"}, "reset"),
    "te of HTTP/1": ([message(REQUEST)], {"te": "gzip"}, "reset"),
    "pseudo-header nobody knows": ([message(REQUEST)], {":x": "a"}, "reset"),
    "pseudo-header again, and late": ([message(REQUEST)], {":path": "/x"}, "reset"),
    "content-length that is right": ([message(REQUEST)], {"content_length": str(len(REQUEST) + 5)}, OK),
    "content-length too small": ([message(REQUEST)], {"content_length": "3"}, "reset"),
    "content-length too large": ([message(REQUEST)], {"content_length": "3000"}, "reset"),
    "content-length of no body": ([], {"content_length": "3"}, "reset"),
    "content-length that is none": ([message(REQUEST)], {"content_length": "-1"}, "reset"),
    "deadline without a unit": ([message(REQUEST)], {"grpc_timeout": "10"}, INTERNAL),
    "deadline of nine digits": ([message(REQUEST)], {"grpc_timeout": "123456789S"}, INTERNAL),
    "deadline below zero": ([message(REQUEST)], {"grpc_timeout": "-1S"}, INTERNAL),
    "deadline in 11,000 years": ([message(REQUEST)], {"grpc_timeout": "99999999H"}, OK),
    "binary headers, padded and not, and a list": ([message(REQUEST)], {"a_bin": "AA==", "b_bin": "AA,AAE=,"}, OK),
    "deadline in the past": ([message(REQUEST)], {"grpc_timeout": "0n"}, LATE),
    "deadline that is none": ([message(REQUEST)], {"grpc_timeout": "soon"}, INTERNAL),
    "binary header that is not base64": ([message(REQUEST)], {"x_bin": "!!!"}, INTERNAL),
    "more metadata than is taken": ([message(REQUEST)], {"x_large": "x" * 64_000}, EXHAUSTED),
}


@pytest.mark.parametrize("name", CALLS)
def test_call(connection: Connection, name: str) -> None:
    """Each ends at once, and the connection lives on."""
    payloads, given, expected = CALLS[name]
    headers = dict(given)
    connection.settle()
    connection.call(1, headers.pop("path", EXECUTE_ASYNC), *payloads, headers=headers)
    assert connection.answer(1).outcome == expected
    connection.call(3, EXECUTE_ASYNC, message(REQUEST))
    assert connection.answer(3).outcome == OK


def test_message_larger_than_its_limit(connection: Connection) -> None:
    """Refused by what its prefix says, however little of it has come; the limit itself is taken."""
    connection.call(1, EXECUTE_ASYNC, message(b"", size=limits.REQUEST_SIZE_BYTES_MAX + 1), end=False)
    answer = connection.answer(1)
    assert answer.outcome == EXHAUSTED
    assert str(limits.REQUEST_SIZE_BYTES_MAX) in answer.headers["grpc-message"]


def test_message_that_is_large_once_decompressed(server: ServerProcess, connection: Connection) -> None:
    """A bomb is not unpacked beyond the limit of a message."""
    server.reset_peak()
    before_mib = server.resident_mib()
    body = message(gzip.compress(bytes(BOMB_SIZE_BYTES)), compressed=True)
    connection.settle()
    connection.send(frame(HEADERS, END_HEADERS, 1, frames.request_block(EXECUTE_ASYNC, grpc_encoding="gzip")))
    connection.flow(1, body)
    assert connection.answer(1).outcome == EXHAUSTED
    assert server.peak_mib() - before_mib < 2.5 * limits.REQUEST_SIZE_BYTES_MAX / (1 << 20) + 16


@pytest.mark.parametrize("path", [EXECUTE_ASYNC, SUBSCRIBE, REFLECTION])
def test_half_open_calls_end_with_their_connection(server: ServerProcess, path: str) -> None:
    """Callers that never send their message, or never end it, cost nothing once they are gone."""
    for sent in (b"", message(b"x" * 100)[:50]):
        with Connection(server.port) as connection:
            for stream in range(1, 201, 2):
                connection.call(stream, path, sent, end=False)
            server.serves_others()
    until(lambda: server.open() == 0, "something is still open")
    server.serves_others()


def test_half_closed_stream_is_answered(connection: Connection) -> None:
    """Who has nothing more to say still gets everything: a stream of two requests, closed before any answer."""
    question = b"\x3a\x00"
    connection.call(1, REFLECTION, message(question), message(question), end=False)
    connection.send(frame(DATA, END_STREAM, 1))
    answer = connection.answer(1)
    assert answer.outcome == OK
    assert answer.data.count(b"grpc.health.v1.Health") == 2


def test_messages_unpacked_at_once(server: ServerProcess) -> None:
    """More than are unpacked at a time: each is, and others are served meanwhile."""
    body = message(gzip.compress(bytes(limits.REQUEST_SIZE_BYTES_MAX)), compressed=True)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(Connection(server.port)) for _ in range(limits.GRPC_UNPACKING_THREADS_MAX + 2)
        ]
        for connection in connections:
            connection.call(1, GET, body, headers={"grpc_encoding": "gzip"})
        server.serves_others()
        assert {connection.answer(1).outcome for connection in connections} == {INVALID}


def test_trailers_of_clients(connection: Connection) -> None:
    """They end a request; those that do not, or look like another request, end the call."""
    trailers = frames.literal("x-after", "y")
    for stream, said, outcome in (
        (1, frame(HEADERS, END_HEADERS | END_STREAM, 1, trailers), OK),
        (3, frame(HEADERS, END_HEADERS, 3, trailers), "reset"),
        (5, frame(HEADERS, END_HEADERS | END_STREAM, 5, BLOCK), "reset"),
        (7, frame(HEADERS, END_HEADERS | END_STREAM, 7, frames.literal("X", "y")), "reset"),
    ):
        whole = message(REQUEST)
        connection.call(stream, EXECUTE_ASYNC, whole if outcome == OK else whole[:-1], end=False)
        connection.send(said)
        assert connection.answer(stream).outcome == outcome


def test_what_comes_after_an_answer_is_ignored(connection: Connection) -> None:
    """A call refused before its request had ended: the rest of it was on its way."""
    connection.call(1, "/a.B/C", end=False)
    assert connection.answer(1).outcome == UNIMPLEMENTED
    connection.send(frame(DATA, 0, 1, message(REQUEST)) + frame(HEADERS, 5, 1, frames.literal("x", "y")))
    connection.call(3, EXECUTE_ASYNC, message(REQUEST))
    assert connection.answer(3).outcome == OK


def test_who_does_not_speak_grpc_is_told_so(connection: Connection) -> None:
    """By HTTP's own status, in words for people, when the request has ended."""
    connection.call(1, "/", b"", headers={"method": "GET", "content_type": "text/html"})
    answer = connection.answer(1)
    assert answer.headers[":status"] == "405"
    assert b"gRPC" in answer.data
    assert answer.headers["allow"] == "POST"


def test_client_that_keeps_no_table(connection: Connection) -> None:
    """The first headers after its settings say that they use none (RFC 9113, section 4.3.1)."""
    connection.call(1, "/a.B/C", message(REQUEST))
    blocks: list[bytes] = []
    while len(blocks) < 2:
        got = connection.read()
        assert got is not None
        if got[0] == HEADERS:
            blocks.append(got[3])
            connection.call(3, EXECUTE_ASYNC, message(REQUEST))
    assert [block[0] == 0x20 for block in blocks] == [True, False]


# --- connections ---

BLOCK = frames.request_block("/x/y")
BROKEN: dict[str, bytes] = {
    "settings of five bytes": frame(SETTINGS, 0, 0, b"12345"),
    "settings on a stream": frame(SETTINGS, 0, 1),
    "window larger than there is": frames.settings(initial_window_4=2**32 - 1),
    "frames smaller than there are": frames.settings(max_frame_5=1),
    "ping of one byte": frame(PING, 0, 0, b"x"),
    "window grown by nothing": frame(WINDOW_UPDATE, 0, 0, bytes(4)),
    "continuation of nothing": frame(CONTINUATION, END_HEADERS, 1, BLOCK),
    "ping within headers": frame(HEADERS, 0, 1, BLOCK) + frame(PING, 0, 0, bytes(8)),
    "frame larger than allowed": frame(DATA, 0, 1, bytes(70_000)),
    "frame of 16 MiB announced": b"\xff\xff\xff\0\0\0\0\0\1",
    "integer without end in headers": frame(HEADERS, END_HEADERS, 1, b"\xff" * 8),
    "header number 0": frame(HEADERS, END_HEADERS, 1, b"\x80"),
    "table larger than allowed": frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\x7f"),
    "padding beyond the frame": frame(HEADERS, END_HEADERS | 8, 1, b"\xff" + BLOCK[:50]),
}
BROKEN |= {
    "data on a stream nobody opened": frame(DATA, 0, 1, b"x"),
    "even stream": frame(HEADERS, END_HEADERS, 2, BLOCK),
    "older stream": frame(HEADERS, 5, 5, BLOCK) + frame(HEADERS, 5, 3, BLOCK),
    "stream again": frame(HEADERS, 5, 1, BLOCK) + frame(HEADERS, 5, 1, BLOCK),
    "data after the end": frame(HEADERS, 5, 1, BLOCK) + frame(DATA, 0, 1, b"x"),
    "data after a reset": frame(HEADERS, 4, 1, BLOCK) + frame(RST_STREAM, 0, 1, bytes(4)) + frame(DATA, 0, 1, b"x"),
    "trailers after the end": frame(HEADERS, 5, 1, BLOCK) + frame(HEADERS, 5, 1, frames.literal("x", "y")),
    "reset of a stream nobody opened": frame(RST_STREAM, 0, 1, bytes(4)),
    "window grown too far": frame(WINDOW_UPDATE, 0, 0, WINDOW_TOO_LARGE),
    "priority over itself": frame(PRIORITY, 0, 1, b"\0\0\0\1\0"),
    "priority of no stream": frame(PRIORITY, 0, 0, bytes(5)),
}
ODD: dict[str, bytes] = {
    "unknown frame": frame(0xB, 0xFF, 7, b"abc"),
    "priority": frame(PRIORITY, 0, 1, bytes(5)),
    "goaway": frame(GOAWAY, 0, 0, bytes(8)),
}
NO_HTTP2: dict[str, bytes] = {
    "HTTP/1.1": b"GET /healthz HTTP/1.1\r\nHost: tests\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "any bytes": bytes(range(256)),
    "preface without settings": PREFACE + frame(PING, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_frames_end_the_connection(connection: Connection, name: str) -> None:
    connection.send(BROKEN[name])
    with suppress(ConnectionError):
        connection.send(frame(PING, 0, 0, b"01234567"))
    assert not connection.pongs(b"01234567")


def goodbye(connection: Connection) -> int | None:
    """The code with which the server ends a connection; None if it just closes it."""
    try:
        while (got := connection.read()) is not None:
            if got[0] == GOAWAY:
                return int.from_bytes(got[3][4:8], "big")
    except ConnectionError:
        pass
    return None


def test_client_that_asks_for_nothing_is_sent_away(connection: Connection) -> None:
    """Calls make up for it; pings, and resets of calls, do not."""
    calm = 11
    sent = frame(PING, 0, 0, bytes(8)) * 1000
    with suppress(ConnectionError):
        for _ in range(limits.HTTP2_IDLE_FRAMES_MAX // 1000 + 2):
            connection.send(sent)
    assert goodbye(connection) in (calm, None)


def test_windows_that_change_again_and_again(server: ServerProcess, connection: Connection) -> None:
    """Each change looks at every call, so with many calls it is dear: its client is sent away the sooner."""
    connection.settle()
    block = frames.request_block(EXECUTE_ASYNC)
    calls = 2_000
    connection.send(b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in range(1, 2 * calls, 2)))
    changes = b"".join(frames.settings(window_4=size) for size in (1, 2)) * 500
    with suppress(ConnectionError):
        for _ in range(2 * limits.HTTP2_IDLE_FRAMES_MAX * 50 // (calls * 1000) + 2):
            connection.send(changes)
    assert goodbye(connection) in (11, None)
    until(lambda: server.open() == 0, "something is still open")


def test_more_than_a_window(server: ServerProcess, connection: Connection) -> None:
    """Messages that nobody asked for end a call when they are more than its window; the connection's opens again."""
    server.submit("window", "quiet")
    connection.settle()
    for stream in (1, 3):
        connection.send(frame(HEADERS, END_HEADERS, stream, frames.request_block(SUBSCRIBE)))
        connection.send(frame(DATA, 0, stream, message(b"\x0a\x06window")))
        surplus = message(bytes(frames.FRAME_SIZE_BYTES - 5))
        count = limits.HTTP2_STREAM_WINDOW_SIZE_BYTES // len(surplus) + 1
        connection.send(frame(DATA, 0, stream, surplus) * count)
        assert connection.answer(stream).outcome == "reset"
    until(lambda: server.open() == 0, "a call that was reset goes on")
    large = limits.HTTP2_CONNECTION_WINDOW_SIZE_BYTES * 2
    connection.send(frame(HEADERS, END_HEADERS, 5, frames.request_block(EXECUTE_ASYNC)))
    connection.flow(5, message(bytes(large)))
    assert connection.answer(5).outcome == INVALID


@pytest.mark.parametrize("name", ODD)
def test_odd_frames_harm_nobody(connection: Connection, name: str) -> None:
    """They are ignored."""
    connection.send(ODD[name] + frame(PING, 0, 0, b"01234567"))
    assert connection.pongs(b"01234567")


@pytest.mark.parametrize("name", NO_HTTP2)
def test_what_is_not_http2_is_closed(server: ServerProcess, name: str) -> None:
    with Connection(server.port, NO_HTTP2[name]) as connection:
        assert not connection.pongs(b"01234567")
    server.serves_others()


def test_reply_whose_reader_is_gone(server: ServerProcess) -> None:
    """A connection dropped in the middle of a stream ends the stream in the engine."""
    server.submit("gone", "flood")
    request = message(b"\x0a\x04gone")
    for _ in range(20):
        connection = Connection(server.port)
        connection.call(1, SUBSCRIBE, request)
        while (got := connection.read()) is not None and got[0] != DATA:
            pass
        connection.close()
    until(lambda: server.open() == 0, "a stream goes on without a reader")
    server.serves_others()
