"""Support: what the processes of one runner share: ports, the runtime folder, the ports file, the link."""

import fcntl
import os
import socket
from pathlib import Path

import orjson
import pytest

from fastrunner.base import limits
from fastrunner.processes.folder import RuntimeFolder, sweep
from fastrunner.processes.link import ExitCode, Link, StartError
from fastrunner.processes.ports import remove_ports_file, reserve_port, write_ports_file


def test_runtime_folder_is_fresh_and_private(tmp_path: Path) -> None:
    """It lies in the data directory; what a killed runner left there is gone."""
    data_dir = tmp_path / "d"
    (data_dir / "run" / "metrics").mkdir(parents=True)
    (data_dir / "run" / "metrics" / "stale.db").touch()
    folder = RuntimeFolder.create(data_dir)
    assert folder.path == data_dir / "run"
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.metrics.iterdir() if path.name != "metrics.lock"] == []
    folder.remove()
    assert not folder.path.exists()


def test_long_paths_get_a_short_runtime_folder(tmp_path: Path) -> None:
    """A path too long for Unix sockets is replaced by one in /tmp, which the next start removes if it is left."""
    data_dir = tmp_path / ("long" * 25)
    data_dir.mkdir()
    folder = RuntimeFolder.create(data_dir)
    assert folder.path.parent == Path("/tmp")
    assert len(bytes(folder.socket_of(255))) <= 100
    write_ports_file(data_dir, {"runtime_dir": str(folder.path)})
    remove_ports_file(data_dir)
    assert not folder.path.exists()
    assert list(data_dir.iterdir()) == []


def test_longest_path(tmp_path: Path) -> None:
    """It is shorter than what this system would take, as others take less."""
    size_max = limits.SOCKET_PATH_SIZE_BYTES_MAX
    for size, is_inside in ((size_max, True), (size_max + 1, False)):
        data_dir = tmp_path / ("d" * (size - len(bytes(tmp_path / "run" / "worker-000.sock")) - 1))
        data_dir.mkdir()
        folder = RuntimeFolder.create(data_dir)
        assert (folder.path.parent == data_dir) is is_inside
        folder.remove()


def test_ports_file_removal_trusts_nothing(tmp_path: Path) -> None:
    """A ports file that is damaged, or names somebody else's folder, removes nothing but itself."""
    innocent = tmp_path / "innocent"
    (innocent / "metrics").mkdir(parents=True)
    for content in (b"", b"[]", b"{}", b'{"runtime_dir": 5}', orjson.dumps({"runtime_dir": str(innocent)})):
        (tmp_path / "ports.json").write_bytes(content)
        remove_ports_file(tmp_path)
        assert not (tmp_path / "ports.json").exists()
    assert innocent.exists()


def test_metrics_are_in_memory_and_leave_nothing_behind(tmp_path: Path) -> None:
    """A page of a mapped file that a full disk cannot back kills the process; so metrics are no files of the disk."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("this system has no /dev/shm")
    killed = RuntimeFolder.create(tmp_path).metrics.resolve()
    assert killed.parent == Path("/dev/shm")
    assert killed.stat().st_mode & 0o777 == 0o700
    folder = RuntimeFolder.create(tmp_path)
    assert not killed.exists()
    metrics = folder.metrics.resolve()
    assert metrics.is_dir()
    folder.remove()
    assert not metrics.exists()


def test_only_live_gauges_are_forgotten(tmp_path: Path) -> None:
    """A dead worker's gauges go, its counters and the others' files stay."""
    folder = RuntimeFolder.create(tmp_path)
    names = ["worker1.gauges", "worker1.counts", "worker11.gauges"]
    for name in names:
        (folder.metrics / name).touch()
    folder.forget_gauges("worker1")
    assert {path.name for path in folder.metrics.iterdir()} - {"metrics.lock"} == {"worker1.counts", "worker11.gauges"}


def test_metrics_of_killed_runners_are_swept(tmp_path: Path) -> None:
    """A start removes the folders whose owner is gone, and no other."""
    names = ("dead", "old", "new", "living")
    dead, unlocked, making, living = (tmp_path / f"fastrunner-metrics-{name}" for name in names)
    other, kept = tmp_path / "fastrunner-data", tmp_path / "fastrunner-metrics-kept"
    for folder in (dead, unlocked, making, living, other, kept):
        folder.mkdir()
    for folder in (dead, living, other, kept):
        (folder / "metrics.lock").touch()
    for name in ("worker0.counts", "worker0.gauges", "shard-0.note"):
        (dead / name).touch()
    (kept / "shard-0000.db").touch()
    os.utime(unlocked, (0, 0))
    with (living / "metrics.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {making, living, other, kept}
    assert (kept / "shard-0000.db").exists()


def test_shared_port_is_held_but_not_listened_on() -> None:
    """Others with SO_REUSEPORT can listen on it, nobody without; a second reservation fails."""
    with reserve_port("127.0.0.1", 0, "GRPC_PORT", shared=True) as held:
        port = held.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with pytest.raises(StartError, match=f"GRPC_PORT={port}: .*already in use"):
            reserve_port("127.0.0.1", port, "GRPC_PORT", shared=True)
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()
            socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_host_that_does_not_resolve_names_its_variable() -> None:
    """An address nobody has is refused like a port."""
    with pytest.raises(StartError, match="FASTRUNNER_GRPC_HOST=no such host") as refused:
        reserve_port("no such host", 0, "GRPC_PORT", shared=True)
    assert refused.value.code is ExitCode.PORT


def test_ipv6_host_in_brackets_is_understood() -> None:
    """`[::1]` is the address ::1."""
    try:
        with reserve_port("[::1]", 0, "FASTRUNNER_HTTP_PORT") as held:
            assert held.family == socket.AF_INET6
    except StartError:
        pytest.skip("no IPv6 here")


def test_link_keeps_messages_apart_and_tells_of_the_end() -> None:
    """Messages arrive one by one; an empty link says nothing yet, a closed one says so."""
    ours, theirs = Link.pair()
    assert ours.receive() == {}
    assert theirs.send("ready")
    assert theirs.send("failed", message="why")
    assert ours.receive() == {"kind": "ready"}
    assert ours.receive() == {"kind": "failed", "message": "why"}
    assert theirs.sent == {"ready", "failed"}
    theirs.close()
    assert ours.receive() is None
    assert not ours.send("ping")
    ours.close()


def test_link_does_not_block_on_a_reader_that_hangs() -> None:
    """Messages nobody reads are dropped when the socket is full."""
    ours, theirs = Link.pair()
    assert not all(ours.send("ping") for _ in range(100_000))
    ours.close()
    theirs.close()


def test_exit_codes_are_distinct() -> None:
    """Each way to end has its own code, and none looks like a signal's."""
    assert len({code.value for code in ExitCode}) == len(ExitCode)
    assert os.EX_OK == ExitCode.OK
