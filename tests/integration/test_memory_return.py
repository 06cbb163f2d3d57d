"""Support: what a worker has had for a moment it does not keep."""

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.runner_process import RunnerProcess, running, until
from tests.integration.test_runner import SERVE
from tests.transport.frames import END_HEADERS, HEADERS, Connection, frame, message, request_block
from tests.transport.server_process import EXECUTE_ASYNC

HALF_SIZE_BYTES = 10 << 20
REQUESTS = 15


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1") as process:
        yield process.wait_ready()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc from 2.33 on can be asked")
def test_memory_of_large_requests_goes_back(runner: RunnerProcess) -> None:
    """Requests that are half sent and given up: a few hundred MiB come and go."""
    pid = runner.workers()[0]["pid"]

    def resident_mib() -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 >> 20

    before_mib = resident_mib()
    with ExitStack() as stack:
        for _ in range(REQUESTS):
            connection = stack.enter_context(Connection(int(runner.ports["grpc_port"])))
            connection.settle()
            connection.send(frame(HEADERS, END_HEADERS, 1, request_block(EXECUTE_ASYNC)))
            connection.flow(1, message(bytes(HALF_SIZE_BYTES), size=HALF_SIZE_BYTES + 1), end=False)
        until(lambda: resident_mib() > before_mib + (REQUESTS * HALF_SIZE_BYTES * 3 // 4 >> 20))
    until(lambda: resident_mib() < before_mib + 64)
    assert runner.ready()
