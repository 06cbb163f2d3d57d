"""Support: what the processes of one runner share: ports, the runtime folder, the ports file, the link; CPUs."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import orjson
import pytest

from fastrunner.base import limits
from fastrunner.base.cpus import quota_cpus, usable_cpus
from fastrunner.processes.folder import RuntimeFolder
from fastrunner.processes.link import ExitCode, Link, StartError
from fastrunner.processes.ports import (
    address_of,
    host_and_port_of,
    remove_ports_file,
    reserve_port,
    write_ports_file,
)
from fastrunner.service.transport.listener import Listener


def test_runtime_folder_is_fresh_and_private(tmp_path: Path) -> None:
    """It lies in the data directory; what a killed runner left there is gone."""
    data_dir = tmp_path / "d"
    (data_dir / "run" / "more").mkdir(parents=True)
    (data_dir / "run" / "more" / "stale").touch()
    folder = RuntimeFolder.create(data_dir)
    assert folder.path == data_dir / "run"
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert list(folder.path.iterdir()) == []
    folder.remove()
    assert not folder.path.exists()


def test_long_paths_get_a_short_runtime_folder(tmp_path: Path) -> None:
    """A path too long for Unix sockets is replaced by one in /tmp, which the next start removes if it is left."""
    data_dir = tmp_path / ("long" * 25)
    data_dir.mkdir()
    folder = RuntimeFolder.create(data_dir)
    assert folder.path.parent == Path("/tmp")
    assert len(bytes(folder.socket_of(255))) <= 100
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder.socket_of(1)))
    write_ports_file(data_dir, {"runtime_dir": str(folder.path)})
    os.close(folder.lock)  # as the death of every process of the runner does
    remove_ports_file(data_dir)
    assert not folder.path.exists()
    assert list(data_dir.iterdir()) == []


def test_copy_of_a_data_directory_leaves_the_folder_of_the_runner_that_lives(tmp_path: Path) -> None:
    """Its ports file names it, because it is a copy; whoever starts on the copy removes the file alone."""
    data_dir, copy = tmp_path / ("long" * 25), tmp_path / "copy"
    data_dir.mkdir()
    folder = RuntimeFolder.create(data_dir)
    folder.socket_of(0).touch()
    write_ports_file(data_dir, {"runtime_dir": str(folder.path)})
    shutil.copytree(data_dir, copy)
    remove_ports_file(copy)
    assert folder.socket_of(0).exists()
    assert list(copy.iterdir()) == []
    folder.remove()
    assert not folder.path.exists()


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
    innocent = Path(tempfile.mkdtemp(prefix="fastrunner-", dir="/tmp"))
    (innocent / "worker-0.sock").write_text("no socket")
    elsewhere = tmp_path / "fastrunner-elsewhere"
    elsewhere.mkdir()
    named = [orjson.dumps({"runtime_dir": str(folder)}) for folder in (innocent, elsewhere, "/tmp/fastrunner-none")]
    for content in (b"", b"[]", b"{}", b'{"runtime_dir": 5}', *named):
        (tmp_path / "ports.json").write_bytes(content)
        remove_ports_file(tmp_path)
        assert not (tmp_path / "ports.json").exists()
    assert (innocent / "worker-0.sock").exists()
    assert elsewhere.exists()
    shutil.rmtree(innocent)


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


@pytest.mark.parametrize(
    ("host", "answering", "silent"),
    [
        ("::", ["127.0.0.1", "::1"], []),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2"], ["::1"]),
        ("::1", ["::1"], ["127.0.0.1"]),
        ("[::1]", ["::1"], ["127.0.0.1"]),
        ("127.1", ["127.0.0.1"], ["::1", "127.0.0.2"]),
        ("127.0.0.1", ["127.0.0.1"], ["::1", "127.0.0.2"]),
    ],
)
def test_address_means_the_same_in_every_listener(host: str, answering: list[str], silent: list[str]) -> None:
    """What is reserved for gRPC is where gRPC listens, and HTTP listens alike."""
    try:
        held, http = (reserve_port(host, 0, "GRPC_PORT", shared=True), reserve_port(host, 0, "FASTRUNNER_HTTP_PORT"))
    except StartError:
        pytest.skip("no IPv6 here")
    listener = Listener()
    with held, http:
        listener.listen(address_of(*host_and_port_of(held)))
        for port in (listener.port, http.getsockname()[1]):
            for address in answering:
                socket.create_connection((address, port), timeout=5).close()
            for address in silent:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((address, port), timeout=5)
        assert listener.port == held.getsockname()[1]
        listener.close()


def test_ipv6_host_in_brackets_is_understood() -> None:
    """`[::1]` is the address ::1."""
    try:
        with reserve_port("[::1]", 0, "FASTRUNNER_HTTP_PORT") as held:
            assert held.family == socket.AF_INET6
    except StartError:
        pytest.skip("no IPv6 here")


def written(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
V1 += "32 31 0:29 {} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "25 23 0:28 {} /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"proc/self/cgroup": "1:cpu,cpuacct:/\n0::/\n", "proc/self/mountinfo": V1.format("/")}, None),
        (
            {
                "proc/self/cgroup": "4:memory:/other\n1:cpu,cpuacct:/a/b\n0::/\n",
                "proc/self/mountinfo": V1.format("/"),
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
            },
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu,cpuacct:/docker/1234\n",
                "proc/self/mountinfo": V1.format("/docker/1234"),
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "0::/system.slice/runner.service\n",
                "proc/self/mountinfo": V2.format("/"),
                "sys/fs/cgroup/system.slice/cpu.max": "max 100000\n",
                "sys/fs/cgroup/system.slice/runner.service/cpu.max": "300000 100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "proc/self/mountinfo": V2.format("/"),
                "sys/fs/cgroup/cpu.max": "200000 100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "0::/../outside\n",
                "proc/self/mountinfo": V2.format("/kubepods/pod"),
                "sys/fs/cgroup/cpu.max": "100000 100000\n",
            },
            1,
        ),
    ],
)
def test_quota_of_either_version_of_control_groups(tmp_path: Path, files: dict[str, str], cpus: float | None) -> None:
    """Of the group itself or of one further up, as the system, a service or a container sees it."""
    assert quota_cpus(written(tmp_path, files)) == cpus


@pytest.mark.parametrize(
    "said", ["", "\n", "max", "many 100000", "150000", "150000 0", "0 100000", "-1 100000", "\0\xff"]
)
def test_quota_that_says_nothing_limits_nothing(tmp_path: Path, said: str) -> None:
    """A file that is empty, of another shape or about to go ends no start; what another group says still holds."""
    for folder in ("", "a", "a/b"):
        (tmp_path / "sys/fs/my cgroup" / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "sys/fs/my cgroup/a/b/cpu.max").write_text(said)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("nothing\n1:cpu\n0::\n0::/a/b\n")
    mounts = "nothing\n1 - cgroup2\n" + V2.format("/").replace("cgroup rw", "my\\040cgroup rw", 1)
    (tmp_path / "proc/self/mountinfo").write_text(mounts)
    assert quota_cpus(tmp_path) is None
    (tmp_path / "sys/fs/my cgroup/a/cpu.max").write_text("50000 100000")
    assert quota_cpus(tmp_path) == 0.5


def test_quota_of_this_machine() -> None:
    """Whatever it is, at least one CPU is left."""
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


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
