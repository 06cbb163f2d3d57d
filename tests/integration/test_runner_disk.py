"""A whole runner on a disk that fills up: readiness and health go red with the reason, and green by themselves."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.integration.runner_process import RunnerProcess, running, until

GIB = 1 << 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1g,mode=0700", "tmpfs", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a disk of its own needs the right to mount: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _leave(path: Path, size_bytes: int) -> None:
    used_bytes = shutil.disk_usage(path).used
    subprocess.run(["mount", "-o", f"remount,size={used_bytes + size_bytes}", str(path)], check=True)


def _health(runner: RunnerProcess) -> int:
    with grpc.insecure_channel(runner.target) as channel:
        return int(HealthStub(channel).Check(HealthCheckRequest(), timeout=10).status)


def test_full_disk_is_seen_from_outside_until_there_is_room(disk: Path) -> None:
    with running(disk, ["-m", "fastrunner", "serve"]) as runner:
        runner.wait_ready()
        until(runner.ready)
        assert _health(runner) == HealthCheckResponse.SERVING
        _leave(disk, 0)
        until(lambda: all(f"worker {index}: the disk" in runner.get("/readyz")[1] for index in range(2)))
        assert not runner.ready()
        until(lambda: _health(runner) == HealthCheckResponse.NOT_SERVING)
        readiness = json.loads(runner.get("/readyz")[1])
        assert "worker 0: the disk of the data directory is nearly full" in readiness["reason"]
        assert runner.get("/healthz")[0] == 200
        assert all(worker["state"] == "ready" for worker in readiness["workers"])
        _leave(disk, GIB)
        until(runner.ready)
        until(lambda: _health(runner) == HealthCheckResponse.SERVING)
