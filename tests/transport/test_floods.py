"""Much of one thing: streams opened and reset, frames without end, idle connections, readers that do not read.

Each bound is memory seen from outside, in MiB, and that others are served meanwhile.
"""

import resource
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner.base import descriptors
from tests.transport import frames
from tests.transport.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    Connection,
    frame,
    message,
)
from tests.transport.server_process import EXECUTE_ASYNC, REFLECTION, SUBSCRIBE, ServerProcess, until

CANCEL = struct.pack(">I", 8)
REQUEST = message(m.WorkflowExecuteInput(workflow_execution_id="flood", workflow_yaml="flood").SerializeToString())
CONNECTIONS = 10_000
DESCRIPTORS_OTHERWISE = 500


@pytest.fixture(autouse=True)
def _others_are_served(server: ServerProcess) -> Iterator[None]:
    server.serves_others()
    yield
    server.serves_others()
    until(lambda: server.open() == 0, "something is still open")


def growth_mib(server: ServerProcess, before_mib: float) -> float:
    return server.peak_mib() - before_mib


def start_measuring(server: ServerProcess) -> float:
    server.reset_peak()
    return server.resident_mib()


# --- floods ---


@pytest.mark.parametrize("path", ["/x/y", EXECUTE_ASYNC, SUBSCRIBE, REFLECTION])
def test_streams_opened_and_reset(server: ServerProcess, path: str) -> None:
    """Rapid reset: what is reset early is dropped, so the tenth thousand takes no more than the second."""
    block = frames.request_block(path)
    peaks = []
    with Connection(server.port) as connection:
        for at in range(0, 20_000, 100):
            streams = range(2 * at + 1, 2 * at + 201, 2)
            try:
                connection.send(
                    b"".join(
                        frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, CANCEL)
                        for stream in streams
                    )
                )
            except ConnectionError:
                # The server has had enough of this client.
                break
            if at % 5_000 == 0:
                server.serves_others()
                peaks.append(server.peak_mib())
    assert server.peak_mib() - peaks[0] < 250, peaks


def test_headers_without_end(server: ServerProcess) -> None:
    """CONTINUATION after CONTINUATION, of a client that acknowledges the settings and of one that does not."""
    for settles in (True, False):
        before_mib = start_measuring(server)
        with Connection(server.port) as connection, suppress(ConnectionError):
            if settles:
                connection.settle()
            connection.send(frame(HEADERS, 0, 1, frames.request_block(EXECUTE_ASYNC)))
            for at in range(0, 20_000, 10):
                connection.send(
                    b"".join(frame(CONTINUATION, 0, 1, frames.literal(f"x-{at + i}", "y" * 1_000)) for i in range(10))
                )
        assert growth_mib(server, before_mib) < 64


@pytest.mark.parametrize(
    "sent",
    [
        frame(PING, 0, 0, bytes(8)),
        frames.settings(window_4=65_535),
        frame(SETTINGS, frames.ACK, 0),
        frame(DATA, 0, 1),
        frame(frames.PRIORITY, 0, 1, bytes(5)),
        frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
        frame(RST_STREAM, 0, 1, CANCEL),
        frame(0xEE, 0, 0, b"x" * 100),
    ],
    ids=["ping", "settings", "settings-ack", "empty-data", "priority", "window-update", "reset", "unknown"],
)
def test_frames_without_end(server: ServerProcess, sent: bytes) -> None:
    """Their client reads none of the answers, if there are any."""
    before_mib = start_measuring(server)
    with Connection(server.port, receive_buffer_size_bytes=4096) as connection:
        connection.give_up_after(0.5)
        with suppress(ConnectionError, TimeoutError):
            for _ in range(100):
                connection.send(sent * 1_000)
        server.serves_others()
        assert growth_mib(server, before_mib) < 32


# --- connections ---


def as_many_as_possible() -> int:
    """Connections that both sides can hold here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return min(descriptors.for_strangers(CONNECTIONS) - 10, soft - DESCRIPTORS_OTHERWISE)


def test_ten_thousand_idle_connections(server: ServerProcess) -> None:
    """Each takes a few KiB, each is served when it calls, and all is given back."""
    count = as_many_as_possible()
    if count < 500:
        pytest.skip(f"RLIMIT_NOFILE allows {count} connections only")
    files = server.descriptors()
    before_mib = start_measuring(server)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.port)) for _ in range(count)]
        for connection in connections:
            connection.send(frame(PING, 0, 0, b"is it so"))
        for connection in connections:
            assert connection.pongs(b"is it so")
        each_kib = (server.resident_mib() - before_mib) * 1024 / count
        print(f"{count} connections: {each_kib:.1f} KiB each")
        assert each_kib < 24
        for connection in connections[:: count // 100]:
            connection.call(1, EXECUTE_ASYNC, REQUEST)
            assert connection.answer(1).outcome == "status 0"
        server.serves_others()
    until(lambda: server.descriptors() <= files + 2, "connections are kept")


# --- readers that do not read ---


def follows(server: ServerProcess, count: int) -> bool:
    return server.open() == count


def test_slow_readers(server: ServerProcess) -> None:
    """A stream without end to clients that read nothing: each holds a window and a few events, and no more ever."""
    server.submit("endless", "flood")
    before_mib = start_measuring(server)
    grown = []
    with ExitStack() as stack:
        for followers in (50, 100):
            for _ in range(50):
                connection = stack.enter_context(Connection(server.port, receive_buffer_size_bytes=4096))
                connection.call(1, SUBSCRIBE, message(b"\x0a\x07endless"))
            until(partial(follows, server, followers), "not all are followed")
            for _ in range(20):
                server.serves_others()
            grown.append(growth_mib(server, before_mib))
    print(f"slow readers: {grown[1] / 100 * 1024:.0f} KiB each")
    assert grown[1] < 100


def test_slow_reader_with_large_windows(server: ServerProcess) -> None:
    """It may be sent gigabytes, but takes none of them: what the kernel does not take stays in the engine."""
    server.submit("endless", "flood")
    before_mib = start_measuring(server)
    with Connection(server.port, receive_buffer_size_bytes=4096) as connection:
        window = struct.pack(">I", 2**30)
        connection.send(frames.settings(initial_window_4=2**31 - 1) + frame(frames.WINDOW_UPDATE, 0, 0, window))
        connection.call(1, SUBSCRIBE, message(b"\x0a\x07endless"))
        until(lambda: server.open() == 1, "it is not followed")
        for _ in range(50):
            server.serves_others()
        assert growth_mib(server, before_mib) < 32
