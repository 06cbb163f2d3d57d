"""Bounds of the process tree: what takes too long to start is killed, what crashes too often is waited for."""

import os
import resource
import signal
import socket
import threading
from pathlib import Path

import pytest

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.config import load_config
from fastrunner.processes.link import ExitCode, StartError
from fastrunner.processes.reserve import reserve
from tests.integration.runner_process import TINY, running, until, with_limits
from tests.integration.tiny_tree import HOLES_SIZE_BYTES


def test_worker_that_takes_too_long_to_start(tmp_path: Path) -> None:
    """It is killed, and the tree ends when that has happened so many times in a row."""
    (tmp_path / "stuck-0").touch()
    with running(tmp_path, with_limits(BOOT_S_MAX=0.7, BOOT_ATTEMPTS_MAX=2)) as runner:
        code, _, err = runner.end()
    assert code == ExitCode.BOOT
    assert err.count("worker 0 did not become ready in time: killing it") == 2
    assert "fastrunner: worker 0 was killed by SIGKILL 2 times in a row before it was ready" in err


@pytest.mark.parametrize(("stable_s", "pause"), [(limits.RESPAWN_STABLE_S, "0.1"), (0.0, "0")])
def test_crashes_in_a_row(tmp_path: Path, stable_s: float, pause: str) -> None:
    """A worker that was ready for long enough has crashed for the first time."""
    with running(tmp_path, with_limits(RESPAWN_STABLE_S=stable_s), FASTRUNNER_WORKERS="1") as runner:
        runner.wait_ready()
        for _ in range(2):
            pid = runner.workers()[0]["pid"]
            os.kill(pid, signal.SIGKILL)
            until(lambda: runner.replaced(pid))  # noqa: B023
        _, _, err = runner.stop()
    pauses = [line.rpartition("starting another in ")[2] for line in err.splitlines() if "starting another" in line]
    assert [each.split(" s")[0] for each in pauses] == ["0", pause]


def test_worker_looks_for_garbage_rarely(tmp_path: Path) -> None:
    with running(tmp_path, with_limits()) as runner:
        runner.wait_ready()
        with socket.create_connection(("127.0.0.1", runner.ports["grpc_port"]), timeout=10) as connection:
            connection.sendall(b"garbage\n")
            assert connection.makefile().readline() == f"{limits.GARBAGE_THRESHOLDS}\n"


def test_start_waits_for_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is given up in time is taken, one that is not is refused when the time is over."""
    monkeypatch.setattr(limits, "START_WAIT_S_MAX", 0.5)
    holder = socket.create_server(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    config = load_config(data_dir=tmp_path, grpc_host="127.0.0.1", grpc_port=port, http_host="127.0.0.1", http_port=0)
    began_s = monotonic_s()
    with pytest.raises(StartError, match=f"GRPC_PORT={port}"):
        reserve(config)
    assert 0.5 <= monotonic_s() - began_s < 3
    threading.Timer(0.1, holder.close).start()
    _, reserved, held = reserve(config)
    with held:
        assert reserved.grpc.getsockname()[1] == port


def resident_size_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_worker_gives_back_what_its_start_took(tmp_path: Path) -> None:
    """It is as small as one that has taken nothing."""
    (tmp_path / "holes-1").touch()
    with running(tmp_path, TINY) as runner:
        small, other = (resident_size_bytes(worker["pid"]) for worker in runner.wait_ready().workers())
    assert other - small < HOLES_SIZE_BYTES / 4
