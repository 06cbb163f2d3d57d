"""What strangers send to make a server work, or keep, more than it costs them: each is bounded, and others are served.

Bounds are those of a process seen from outside: memory; processor time, which no frame may take more of than a call
does; its log, which grows by no frame and has no secret.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

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
    RST_STREAM,
    WINDOW_UPDATE,
    Connection,
    frame,
    literal,
    message,
    request_block,
    settings,
)
from tests.transport.server_process import EXECUTE_ASYNC, GET, OPEN, SUBSCRIBE, ServerProcess, server_process, until

SECRET = "Bearer very-secret"
REQUEST = message(m.WorkflowExecuteInput(workflow_execution_id="attack", workflow_yaml="attack").SerializeToString())
QUERY = message(b"\x0a\x04" + OPEN.encode())
FOLLOW = message(b"\x0a\x05quiet")
BLOCK = request_block(EXECUTE_ASYNC, authorization=SECRET)
GROWTH_MIB_MAX = 32
COUNT = 5_000
CALLS = 1_000
NOTHING = struct.pack(">I", 0)


def number(value: int) -> bytes:
    return struct.pack(">I", value)


def opened(stream: int, block: bytes = BLOCK, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block)


def streams(count: int = COUNT) -> range:
    return range(1, 2 * count, 2)


@dataclass
class Cost:
    """Of calls as anybody makes them, in seconds of the server's processor."""

    call_s: float
    byte_s: float


@pytest.fixture(scope="module")
def cost(server: ServerProcess) -> Cost:
    server.submit("quiet", "quiet")
    server.submit("endless", "flood")
    sent = [opened(stream, request_block(GET)) + frame(DATA, END_STREAM, stream, QUERY) for stream in streams(CALLS)]
    began_s = server.busy_s()
    with Connection(server.port) as connection:
        connection.send(b"".join(sent))
        assert connection.answer(2 * CALLS - 1).outcome == "status 0"
    busy_s = server.busy_s() - began_s
    return Cost(busy_s / CALLS, busy_s / sum(map(len, sent)))


# --- much of one thing ---


def tiny_calls() -> Iterator[bytes]:
    """Headers out of the table: a dozen bytes for a path of thousands, which is told back."""
    path = literal(":path", "/" + "\x7f" * 3_000)
    yield opened(1, b"\x83\x86\x40" + path[1:] + b"\x5f\x10application/grpc", END_HEADERS | END_STREAM)
    for stream in range(3, 2 * COUNT, 2):
        yield opened(stream, b"\x83\x86\xbf\xbe", END_HEADERS | END_STREAM)


def unpacked_bombs() -> Iterator[bytes]:
    """Blocks that name an entry of 4 KB again and again."""
    yield frame(HEADERS, END_HEADERS, 1, b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4_000)
    for stream in range(3, 203, 2):
        yield frame(HEADERS, 0, stream, b"\xbe" * 16_000)
        yield frame(CONTINUATION, 0, stream, b"\xbe" * 16_000)
        yield frame(CONTINUATION, END_HEADERS, stream, b"\xbe" * 16_000)


def tables() -> Iterator[bytes]:
    """The table grows, shrinks and is filled with every call."""
    for stream in streams():
        fill = b"".join(b"\x40\x01x\x01" + bytes([0x30 + at]) for at in range(40))
        yield opened(stream, b"\x20\x3f\xe1\x1f" + BLOCK + fill, END_HEADERS | END_STREAM)


def negative_windows() -> Iterator[bytes]:
    for stream in streams(CALLS):
        yield opened(stream, request_block(SUBSCRIBE)) + frame(DATA, END_STREAM, stream, FOLLOW)
    for _ in range(COUNT):
        yield settings(window_4=0) + settings(window_4=1_000)


def surplus() -> Iterator[bytes]:
    """As many messages as a window takes, after the one that was asked for."""
    for stream in streams(400):
        yield opened(stream, request_block(SUBSCRIBE)) + frame(DATA, 0, stream, FOLLOW)
        yield frame(DATA, 0, stream, message(bytes(16_000))) * 15


def made_resets(spoils: Callable[[int], bytes]) -> Iterator[bytes]:
    """The client errs, so it is the server that resets the call: as dear as if the client did."""
    return (opened(stream) + spoils(stream) for stream in streams(3 * limits.HTTP2_IDLE_FRAMES_MAX))


ATTACKS: dict[str, Callable[[], Iterable[bytes]]] = {
    "rapid reset": lambda: (opened(at) + frame(RST_STREAM, 0, at, number(8)) for at in streams()),
    "tiny calls": tiny_calls,
    "unpacked bombs": unpacked_bombs,
    "tables that change": tables,
    "negative windows": negative_windows,
    "surplus messages": surplus,
    "headers in capitals": lambda: (opened(at, BLOCK + literal("X", "y")) for at in streams()),
    "requests beyond all bounds": lambda: (opened(at) + frame(DATA, 0, at, b"\0\xff\xff\xff\xff") for at in streams()),
    "padding": lambda: (opened(at) + frame(DATA, 8, at, b"\xff" + bytes(255)) for at in streams()),
    "headers of no bytes": lambda: (frame(HEADERS, END_HEADERS, at) for at in streams()),
    "continuations of no bytes": lambda: [frame(HEADERS, 0, 1), *[frame(CONTINUATION, 0, 1)] * 5 * COUNT],
    "pings": lambda: [frame(PING, 0, 0, bytes(8))] * 5 * COUNT,
    "settings": lambda: [settings(**{f"x{at}_4": at for at in range(100)})] * 5 * COUNT,
    "windows of one byte": lambda: [frame(WINDOW_UPDATE, 0, 0, number(1))] * 5 * COUNT,
    "priorities on idle streams": lambda: (frame(frames.PRIORITY, 0, at, bytes(5)) for at in streams(5 * COUNT)),
    "farewells": lambda: [frame(GOAWAY, 0, 0, bytes(8) + b"\x1b[31m" + b"x" * 100)] * 5 * COUNT,
    "empty data": lambda: [opened(1), *[frame(DATA, 0, 1)] * 5 * COUNT],
    "queries by GET": lambda: (opened(at, request_block("/", method="GET")) for at in streams()),
}


def attack(server: ServerProcess, said: Iterable[bytes], hello: bytes | None = None) -> tuple[int, int]:
    """Sends it to the end, or until the server takes no more; of how many parts that was, and of how many bytes."""
    count = size = 0
    with Connection(server.port, hello, receive_buffer_size_bytes=4096) as connection:
        connection.give_up_after(1)
        with suppress(ConnectionError, TimeoutError):
            for sent in said:
                connection.send(sent)
                count, size = count + 1, size + len(sent)
                if count % 1_000 == 0:
                    server.serves_others()
        server.serves_others()
    return count, size


@pytest.mark.parametrize("name", ATTACKS)
def test_much_of_it(server: ServerProcess, cost: Cost, name: str) -> None:
    server.serves_others()
    server.reset_peak()
    before_mib, before_s, said = server.resident_mib(), server.busy_s(), len(server.log())
    count, size = attack(server, ATTACKS[name]())
    until(lambda: server.open() == 0, "something is still open")
    busy_s, growth_mib = server.busy_s() - before_s, server.peak_mib() - before_mib
    # Those that are served meanwhile cost something too.
    usual_s = max(count * cost.call_s, size * cost.byte_s) + 0.2
    print(f"{name}: {busy_s / usual_s:.2f} of calls, {growth_mib:.1f} MiB")
    assert growth_mib < GROWTH_MIB_MAX
    assert busy_s < 2 * usual_s
    log = server.log()
    assert len(log) < said + 1_000
    assert b"very-secret" not in log


@pytest.mark.parametrize(
    "spoils",
    [
        lambda stream: frame(WINDOW_UPDATE, 0, stream, NOTHING),
        lambda stream: frame(WINDOW_UPDATE, 0, stream, number(2**31 - 1)),
        lambda stream: frame(HEADERS, END_HEADERS, stream, literal("x", "y")),
        lambda _: b"",
    ],
    ids=["increment of nothing", "increment too large", "second headers", "malformed"],
)
def test_resets_that_clients_provoke(server: ServerProcess, spoils: Callable[[int], bytes]) -> None:
    """They are counted as the client's own, so it is sent away."""
    block = BLOCK if spoils(1) else BLOCK + literal("X", "y")
    with Connection(server.port) as connection:
        connection.give_up_after(10)
        with suppress(ConnectionError):
            for stream in streams(2 * limits.HTTP2_IDLE_FRAMES_MAX):
                connection.send(opened(stream, block) + spoils(stream))
            pytest.fail("it is still listened to")
    server.serves_others()


def test_pings_of_who_is_sent_much(server: ServerProcess) -> None:
    """Clients measure the line by a ping with what they get: they are no nuisance."""
    with Connection(server.port, PREFACE + settings(window_4=2**30)) as connection:
        connection.send(frame(WINDOW_UPDATE, 0, 0, number(2**30)))
        server.submit("endless", "flood")
        connection.call(1, SUBSCRIBE, message(b"\x0a\x07endless"))
        pings = 0
        while pings < limits.HTTP2_IDLE_FRAMES_MAX * 1.2:
            got = connection.read_only()
            assert got is not None
            assert got[0] != GOAWAY
            if got[0] == DATA:
                connection.send(frame(PING, 0, 0, bytes(8)))
                pings += 1


def test_deadline_that_its_client_forgets(server: ServerProcess) -> None:
    """Streams end here when their time is over, whatever their clients do: quiet ones, and one that is not read."""
    server.submit("quiet", "quiet")
    server.submit("endless", "flood")
    with Connection(server.port) as connection:
        connection.settle()
        for stream in range(1, 41, 2):
            connection.call(stream, SUBSCRIBE, FOLLOW, headers={"grpc_timeout": "200m"})
        connection.call(41, SUBSCRIBE, message(b"\x0a\x07endless"), headers={"grpc_timeout": "300m"})
        assert {connection.answer(stream).outcome for stream in range(1, 43, 2)} == {"status 4"}
        until(lambda: server.open() == 0, "a stream goes on after its deadline")


def test_metadata_of_streams(server: ServerProcess) -> None:
    """As much as may be, of many that stay open: it is not kept."""
    server.submit("quiet", "quiet")
    server.serves_others()
    before_mib = server.resident_mib()
    block = request_block(SUBSCRIBE, **{f"x-{at}": "x" * 1_500 for at in range(10)})
    with Connection(server.port) as connection:
        connection.settle()
        for stream in streams(2_000):
            connection.send(opened(stream, block) + frame(DATA, END_STREAM, stream, FOLLOW))
        until(lambda: server.open() == 2_000, "not all are followed")
        assert server.resident_mib() - before_mib < 20
    until(lambda: server.open() == 0, "a stream goes on")


def test_requests_that_never_come(server: ServerProcess) -> None:
    """Each of another client, as they say: others are served while they are refused."""
    with ExitStack() as stack:
        for at in range(2):
            connection = stack.enter_context(Connection(server.port))
            connection.settle()
            for stream in streams(4_000):
                connection.send(opened(stream, request_block(EXECUTE_ASYNC, fastrunner_client=f"{at}-{stream}")))
            server.serves_others()
        last = connection.answer(1).outcome
    assert last == "status 8"


def test_many_that_call_without_a_pause(server: ServerProcess) -> None:
    """What is read of one connection at once is thousands of calls: some are taken, then others have their turn."""
    with ExitStack() as stack:
        said = b"".join(tiny_calls())
        connections = [stack.enter_context(Connection(server.port)) for _ in range(10)]
        for connection in connections:
            connection.send(said)
        server.serves_others()
        for connection in connections:
            for stream in (1, 2 * COUNT - 1):
                assert connection.answer(stream).outcome == "status 12"


def test_sockets_closed_on_one_side(server: ServerProcess) -> None:
    """Whoever says that nothing more comes is gone for HTTP/2: with it go its calls and its descriptor."""
    server.submit("quiet", "quiet")
    before = server.descriptors()
    with ExitStack() as stack:
        for at in range(100):
            connection = stack.enter_context(Connection(server.port, b"" if at % 4 == 0 else None))
            if at % 4 > 1:
                connection.call(1, SUBSCRIBE, FOLLOW, end=at % 4 == 2)
            connection.shut_down()
        until(lambda: server.descriptors() <= before + 2, "connections are kept")
        until(lambda: server.open() == 0, "a call goes on")


@pytest.fixture(scope="module")
def logging_server() -> Iterator[ServerProcess]:
    with server_process() as server:
        yield server


def test_faults_say_nothing_in_the_log(logging_server: ServerProcess) -> None:
    """Connections that break every rule, a thousand of each: nobody can fill a disk, or look for credentials there."""
    server = logging_server
    broken = [
        b"GET / HTTP/1.1\r\nAuthorization: Bearer very-secret\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        PREFACE + settings() + opened(1, BLOCK + literal("authorization", "Bearer very-secret\udcff")),
        PREFACE + settings() + opened(1, BLOCK + b"\xff\xff\xff\xff\xff"),
        PREFACE + settings() + opened(2),
    ]
    for said in broken * 200:
        with Connection(server.port, said):
            pass
    server.serves_others()
    assert server.log() == b""
