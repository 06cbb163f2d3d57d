"""Support: what a real runner logs of calls that make its libraries talk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrunner.service.methods import QUERY_SERVICE
from tests.integration.runner_process import RunnerProcess, running
from tests.integration.test_runner import SERVE
from tests.transport import frames
from tests.transport.frames import END_HEADERS, END_STREAM, HEADERS, Connection, frame

CALLS = 500


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1") as process:
        yield process.wait_ready()


def test_metadata_that_is_no_text(runner: RunnerProcess) -> None:
    """It proves nobody anything, and nothing of it is written."""
    block = frames.request_block(f"/{QUERY_SERVICE}/GetExecution", authorization="Bearer s3cret\udcff")
    with Connection(int(runner.ports["grpc_port"])) as connection:
        for stream in range(1, 2 * CALLS, 2):
            connection.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
            assert connection.answer(stream).outcome.startswith("status")
    code, _, err = runner.stop()
    assert code == 0
    assert "s3cret" not in err
    assert "Traceback" not in err
    assert len(err) < 5_000


def test_garbage_on_the_http_port(runner: RunnerProcess) -> None:
    for number in range(50):
        with Connection(
            int(runner.ports["http_port"]), b"GET /s3cret%d HTTP/9\r\n\xff: x\r\n\r\n" % number
        ) as connection:
            connection.read_only()
    assert runner.get("/healthz")[0] == 200
    code, _, err = runner.stop()
    assert code == 0
    assert "s3cret" not in err
    assert len(err) < 5_000
