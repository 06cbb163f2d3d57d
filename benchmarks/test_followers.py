"""Server-sent events of a real runner with one worker: from what wakes an execution to every follower's end."""

import itertools
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from benchmarks.servers import runner
from benchmarks.test_events import ended, send, waiting
from tests.integration.runner_process import RunnerProcess

TASKS = 20
_numbers = itertools.count()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[RunnerProcess, grpc.Channel]]:
    with runner(1) as tree, grpc.insecure_channel(tree.target) as channel:
        yield tree, channel


class Follower:
    """One connection that follows one execution by `/api/v1/executions/{id}/events/stream`."""

    def __init__(self, port: int, execution_id: str) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        request = f"GET /api/v1/executions/{execution_id}/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self._connection.sendall(request.encode())
        self._read = b""

    def read_until(self, text: bytes) -> int:
        """Reads until something has come; how many events have come so far."""
        while text not in self._read:
            part = self._connection.recv(1 << 16)
            assert part, self._read
            self._read += part
        return self._read.count(b"\nid: ")

    def close(self) -> None:
        self._connection.close()


@pytest.mark.parametrize("followers", [1, 50])
def test_followers_have_the_end(benchmark: Any, served: tuple[RunnerProcess, grpc.Channel], followers: int) -> None:
    """The execution waits for an event, and then executes 20 tasks."""
    tree, channel = served
    benchmark.extra_info["events"] = followers * 2 * (TASKS + 1)

    def following() -> tuple[tuple[str, Iterator[bytes], list[Follower]], dict[str, Any]]:
        order = f"f{next(_numbers)}"
        [stream] = waiting(channel, [order], TASKS)
        connected = [Follower(tree.ports["http_port"], order) for _ in range(followers)]
        for follower in connected:
            follower.read_until(b"task_started")
        return (order, stream, connected), {}

    def told(order: str, _stream: Iterator[bytes], connected: list[Follower]) -> None:
        send(channel, [order])
        for follower in connected:
            follower.read_until(b"workflow_completed")

    def closed(_order: str, stream: Iterator[bytes], connected: list[Follower]) -> None:
        ended([stream])
        for follower in connected:
            assert follower.read_until(b"workflow_completed") >= 2 * (TASKS + 1)
            follower.close()

    benchmark.pedantic(told, setup=following, teardown=closed, rounds=20, warmup_rounds=1)
