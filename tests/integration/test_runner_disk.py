"""A whole runner on a disk that fills up or is full: readiness and health go red with the reason, and green by
themselves; what was accepted ends, and a start waits."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import GetExecutionRequest, GetExecutionResponse
from fastrunner._pb.ai.stigmer.workflow.runner.v1.registry_pb2 import RegisterWorkflowRequest
from fastrunner._pb.ai.stigmer.workflow.runner.v1.schedules_pb2 import AddScheduleRequest, ScheduleTrigger
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE, REGISTRY_SERVICE
from tests.disk import SmallDisk, mounted_disk
from tests.integration.engines import WAIT
from tests.integration.runner_process import RunnerProcess, logged_until, running, until
from tests.ports import free_port

GIB = 1 << 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted_disk(tmp_path / "disk", "size=1g,mode=0700") as disk:
        yield disk


def _health(runner: RunnerProcess) -> int:
    with grpc.insecure_channel(runner.target) as channel:
        return int(HealthStub(channel).Check(HealthCheckRequest(), timeout=10).status)


def test_full_disk_is_seen_from_outside_until_there_is_room(disk: SmallDisk) -> None:
    with running(disk.path, ["-m", "fastrunner", "serve"]) as runner:
        runner.wait_ready()
        until(runner.ready)
        assert _health(runner) == HealthCheckResponse.SERVING
        names = ("disk_free", "disk_reserve", "data_directory")
        told = [runner.metric(f"workflow_runner_{name}_bytes") for name in names]
        assert told[0] > told[1] > 0 < told[2]
        disk.leave(0)
        until(lambda: all(f"worker {index}: the disk" in runner.get("/readyz")[1] for index in range(2)))
        assert not runner.ready()
        until(lambda: _health(runner) == HealthCheckResponse.NOT_SERVING)
        readiness = json.loads(runner.get("/readyz")[1])
        assert "worker 0: the disk of the data directory is nearly full" in readiness["reason"]
        assert runner.get("/healthz")[0] == 200
        assert all(worker["state"] == "ready" for worker in readiness["workers"])
        disk.leave(GIB)
        until(runner.ready)
        until(lambda: _health(runner) == HealthCheckResponse.SERVING)


def _execute(runner: RunnerProcess, execution_id: str) -> None:
    request = WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=WAIT.replace("200", "1500"))
    with grpc.insecure_channel(runner.target) as channel:
        call = channel.unary_unary(f"/{COMMAND_SERVICE}/ExecuteAsync", None, None)
        call(request.SerializeToString(), timeout=10, wait_for_ready=True)


def _status(runner: RunnerProcess, execution_id: str) -> str:
    request = GetExecutionRequest(execution_id=execution_id).SerializeToString()
    with grpc.insecure_channel(runner.target) as channel:
        reply = channel.unary_unary(f"/{QUERY_SERVICE}/GetExecution", None, None)(request, timeout=10)
    return GetExecutionResponse.FromString(reply).execution.status


def test_commits_that_find_no_room_are_made_when_there_is_some(disk: SmallDisk) -> None:
    ids = [f"execution-{number}" for number in range(20)]
    with running(disk.path, ["-m", "fastrunner", "serve"]) as runner:
        runner.wait_ready()
        for each in ids:
            _execute(runner, each)
        disk.leave(0)
        until(lambda: "the disk of the data directory is full: shard-000" in runner.get("/readyz")[1])
        assert runner.metric("workflow_runner_storage_failing") > 0
        with pytest.raises(grpc.RpcError) as refusal:
            _execute(runner, "refused")
        assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        disk.leave(GIB)
        until(lambda: all(_status(runner, each) == "completed" for each in ids))
        until(runner.ready)


def test_start_on_a_full_disk_waits_for_room_and_can_be_stopped_meanwhile(disk: SmallDisk) -> None:
    with running(disk.path, ["-m", "fastrunner", "serve"]) as runner:
        _execute(runner.wait_ready(), "before")
        assert runner.stop()[0] == 0
    disk.leave(0)
    port = free_port()
    for has_room in (False, True):
        with running(disk.path, ["-m", "fastrunner", "serve"], FASTRUNNER_HTTP_PORT=str(port)) as runner:
            runner.ports = {"http_port": port}
            until(lambda: runner.get("/readyz")[1].count("the disk of the data directory is full") > 1)
            assert runner.get("/readyz")[0] == 503
            assert runner.get("/healthz")[0] == 200
            assert [worker["state"] for worker in runner.workers()] == ["starting"] * 2
            if has_room:
                disk.leave(GIB)
                until(runner.ready)
                assert [worker["restarts"] for worker in runner.workers()] == [0, 0]
                until(lambda: _status(runner.wait_ready(), "before") == "completed")
            assert runner.stop()[0] == 0


def test_data_directory_that_is_moved_away_is_seen_from_outside_until_it_is_back(tmp_path: Path) -> None:
    """Nothing is accepted that would be lost, and no successor begins in another folder of that name."""
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    with running(folder, ["-m", "fastrunner", "serve"]) as runner:
        _execute(runner.wait_ready(), "before")
        until(runner.ready)
        folder.rename(elsewhere)
        folder.mkdir(mode=0o700)
        shutil.copyfile(elsewhere / "manifest.json", folder / "manifest.json")
        until(lambda: all(f"worker {index}: the data directory" in runner.get("/readyz")[1] for index in range(2)))
        assert "has been moved, deleted or replaced" in runner.get("/readyz")[1]
        assert runner.get("/readyz")[0] == 503
        with pytest.raises(grpc.RpcError) as refusal:
            _execute(runner, "refused")
        assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "put back what was there" in (refusal.value.details() or "")
        killed = runner.workers()[0]["pid"]
        os.kill(killed, signal.SIGKILL)
        until(lambda: "worker 0 cannot start: the data directory" in runner.get("/readyz")[1])
        assert not list(folder.glob("shard-*"))
        shutil.rmtree(folder)
        elsewhere.rename(folder)
        until(lambda: runner.replaced(killed))
        until(runner.ready)
        until(lambda: _status(runner, "before") == "completed")
        _execute(runner, "after")
        code, _, err = runner.stop()
    assert code == 0
    assert err.count("has been moved, deleted or replaced under the runner: put back what was there, or start") < 20


@pytest.mark.parametrize("name", ["shard-0000.db", "shard-0000.db-wal", "shard-0000.db-shm"])
def test_file_of_a_shard_that_is_moved_away_is_seen_from_outside_until_it_is_back(tmp_path: Path, name: str) -> None:
    data, kept = tmp_path / "data", tmp_path / "kept"
    with running(data, ["-m", "fastrunner", "serve"], FASTRUNNER_WORKERS="1") as runner:
        _execute(runner.wait_ready(), "before")
        until(runner.ready)
        (data / name).rename(kept)
        said = f"worker 0: {data / name} has been moved, deleted or replaced under the runner"
        until(lambda: said in json.loads(runner.get("/readyz")[1])["reason"])
        with pytest.raises(grpc.RpcError) as refusal:
            _execute(runner, "refused")
        assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
        kept.rename(data / name)
        until(runner.ready)
        _execute(runner, "after")
        until(lambda: _status(runner, "after") == "completed")
        code, _, err = runner.stop()
    assert code == 0
    assert err.count("under the runner") <= 4


def test_file_of_a_shard_that_is_emptied_is_seen_from_outside(tmp_path: Path) -> None:
    """Its journal and its cache go on for a while, and then all is lost."""
    with running(tmp_path, ["-m", "fastrunner", "serve"], FASTRUNNER_WORKERS="1") as runner:
        _execute(runner.wait_ready(), "before")
        until(runner.ready)
        os.truncate(tmp_path / "shard-0000.db", 0)
        until(lambda: "shard-0000.db has been moved, deleted or replaced under the runner" in runner.readiness()[1])
        with pytest.raises(grpc.RpcError) as refusal:
            _execute(runner, "refused")
        assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("left", ["missing", "empty"])
def test_shard_that_is_gone_is_not_begun_anew_in_silence(tmp_path: Path, left: str) -> None:
    """Nor is its journal removed, which SQLite does beside an empty file."""
    with running(tmp_path, ["-m", "fastrunner", "serve"], FASTRUNNER_WORKERS="1") as runner:
        _execute(runner.wait_ready(), "before")
        assert runner.stop()[0] == 0
    file, journal = tmp_path / "shard-0000.db", tmp_path / "shard-0000.db-wal"
    if left == "missing":
        file.unlink()
    else:
        file.write_bytes(b"\0")
        journal.write_bytes(b"commits")
    with running(tmp_path, ["-m", "fastrunner", "serve"], FASTRUNNER_WORKERS="1") as runner:
        code, _, err = runner.end()
    assert code != 0
    assert f"shard-0000.db is {left}, and shard-0000.ids beside it says that it had executions: restore it" in err
    assert (file.exists(), journal.exists()) == (left == "empty",) * 2
    journal.unlink(missing_ok=True)
    (tmp_path / "shard-0000.ids").unlink()
    with running(tmp_path, ["-m", "fastrunner", "serve"], FASTRUNNER_WORKERS="1") as runner:
        _execute(runner.wait_ready(), "after")
        assert runner.stop()[0] == 0


def _register(runner: RunnerProcess, number: int) -> None:
    document = WAIT.replace("version: '1.0.0'", f"version: '{number}.0.0'")
    request = RegisterWorkflowRequest(workflow_yaml=document)
    _ask(runner, "RegisterWorkflow", request.SerializeToString())


def _add_schedule(runner: RunnerProcess, number: int) -> None:
    execution = WorkflowExecuteInput(workflow_yaml=WAIT)
    trigger = ScheduleTrigger(every="PT1H")
    request = AddScheduleRequest(schedule_id=f"schedule-{number}", execution=execution, trigger=trigger)
    _ask(runner, "AddSchedule", request.SerializeToString())


def _ask(runner: RunnerProcess, method: str, request: bytes) -> None:
    with grpc.insecure_channel(runner.target) as channel:
        channel.unary_unary(f"/{REGISTRY_SERVICE}/{method}", None, None)(request, timeout=10, wait_for_ready=True)


def test_shared_file_that_is_gone_is_told_and_not_begun_anew_in_silence(tmp_path: Path) -> None:
    """Nothing is taken that would be lost with the processes; executions, which need none of it, go on."""
    data, kept = tmp_path / "data", tmp_path / "kept"
    files = {"registry": _register, "schedules": _add_schedule}
    with running(data, ["-m", "fastrunner", "serve"]) as runner:
        runner.wait_ready()
        for ask in files.values():
            ask(runner, 1)
        for name, ask in files.items():
            (data / f"{name}.db").rename(kept)
            until(lambda: f"{name}.db" in runner.readiness()[1])  # noqa: B023
            with pytest.raises(grpc.RpcError, match=f"{name}.db") as refusal:
                ask(runner, 2)
            assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
            assert not (data / f"{name}.db").exists()
            _execute(runner, f"beside-{name}")
            kept.rename(data / f"{name}.db")
            until(runner.ready)
            ask(runner, 2)
        code, _, err = runner.stop()
    assert code == 0
    assert err.count("schedules cannot be fired now") <= 1
    (data / "schedules.db").write_bytes(b"no database" * 1000)
    with running(data, ["-m", "fastrunner", "serve"]) as runner:
        told = logged_until(runner.wait_ready(), "schedules cannot be fired now: schedules.db is damaged")
        assert "Traceback" not in told
        code, _, err = runner.stop()
    assert code == 0
    for name in files:
        (data / f"{name}.db").write_bytes(b"\0")
    with running(data, ["-m", "fastrunner", "serve"]) as runner:
        runner.wait_ready()
        for name, ask in files.items():
            said = f"{name}.db is empty, and {name}.lock beside it says that there was more"
            until(lambda: said in runner.readiness()[1])  # noqa: B023
            with pytest.raises(grpc.RpcError, match=said):
                ask(runner, 3)
            assert (data / f"{name}.db").stat().st_size == 1
            (data / f"{name}.lock").unlink()
            ask(runner, 3)
        until(runner.ready)
        code, _, err = runner.stop()
    assert code == 0
    assert err.count("schedules cannot be fired now") <= 1
