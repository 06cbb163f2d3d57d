"""Support: a runner with few file descriptors: what strangers hold, what it needs itself, and what it says of it."""

import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.integration.runner_process import RunnerProcess, running, until
from tests.integration.test_runner import Client
from tests.transport.frames import Connection

LIMIT = 256
SERVE = (
    "-c",
    f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}));"
    "sys.argv[1:] = ['serve']; runpy.run_module('fastrunner', run_name='__main__')",
)
CALL = """
document: {{dsl: 1.0.0, namespace: test, name: call, version: 1.0.0}}
do:
- ask: {{call: http, with: {{method: get, endpoint: 'http://{}/'}}}}
"""
IS_HALF = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(autouse=True)
def _descriptors_for_the_test() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    """One worker."""
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1") as process:
        yield process.wait_ready()


class Answering(BaseHTTPRequestHandler):
    """Says ok."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def answering() -> Iterator[str]:
    """Host and port of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_connections_without_calls_leave_the_worker_what_it_needs(runner: RunnerProcess) -> None:
    """Whoever is connected is served, effects are performed, and it drains."""
    client = Client(runner)
    client.execute("first")
    with ExitStack() as stack, answering() as host:
        for _ in range(2 * LIMIT):
            with suppress(ConnectionError):
                stack.enter_context(Connection(int(runner.ports["grpc_port"])))
        client.execute("asks", CALL.format(host))
        until(lambda: client.status("asks") == "completed")
        assert runner.ready()
        code, _, err = runner.stop()
    assert code == 0
    assert "drained" in err
    assert "Traceback" not in err
    client.close()


def test_half_requests_give_way_to_whole_ones(runner: RunnerProcess) -> None:
    """However many connections hold half a head, whoever asks is answered; nothing is logged of each."""
    with ExitStack() as stack:
        for number in range(4 * LIMIT):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", runner.ports["http_port"]), 10))
            with suppress(ConnectionError):
                half.sendall(IS_HALF if number % 2 else b"")
            if number % 100 == 0:
                assert runner.get("/healthz")[0] == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert runner.get(path)[0] == 200
        runner.signal(signal.SIGTERM)
        code, _, err = runner.end()
    assert code == 0
    assert len(err) < 10_000


def test_who_follows_leaves_room_for_who_asks(runner: RunnerProcess) -> None:
    """However many want to; nothing is logged of those that go before they are answered."""
    host = f"127.0.0.1:{runner.ports['http_port']}"
    request = f"GET /api/v1/feed HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(2 * LIMIT):
            with suppress(ConnectionError):
                stack.enter_context(socket.create_connection(("127.0.0.1", runner.ports["http_port"]), 10)).sendall(
                    request
                )
        until(lambda: runner.metric("workflow_runner_followers") >= LIMIT / 8)
        for path in ("/healthz", "/readyz", "/metrics"):
            assert runner.get(path)[0] == 200
    for _ in range(LIMIT):
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", runner.ports["http_port"]), 10) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.sendall(request)
    assert runner.get("/healthz")[0] == 200
    code, _, err = runner.stop()
    assert code == 0
    assert "Traceback" not in err
    assert len(err) < 10_000


def test_worker_without_descriptors_says_so(runner: RunnerProcess) -> None:
    """Red with the reason while its own effects take them all, said once; green again afterwards."""
    client = Client(runner)
    silent = [socket.create_server((f"127.0.0.{number}", 0), backlog=512) for number in range(1, 9)]
    hosts = [f"127.0.0.{number}:{server.getsockname()[1]}" for number, server in enumerate(silent, 1)]
    for number in range(2 * LIMIT):
        client.execute(f"e-{number}", CALL.format(hosts[number % len(hosts)]))
    until(lambda: "file descriptors are short" in runner.get("/readyz")[1])
    assert runner.get("/readyz")[0] == 503
    for server in silent:
        server.close()
    for number in range(2 * LIMIT):
        with suppress(Exception):
            client.cancel(f"e-{number}")
    until(runner.ready)
    client.close()
    code, _, err = runner.stop()
    assert code == 0
    assert err.count("not ready: file descriptors are short") == 1
