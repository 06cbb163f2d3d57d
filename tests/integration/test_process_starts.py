"""Replacements that cannot start: healthy siblings stay, who asks is told why, and it is tried again until it can."""

import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import fastrunner
from fastrunner.base import limits
from fastrunner.engine.embedded.store.manifest import open_data_directory
from fastrunner.processes.link import ExitCode
from tests.integration.runner_process import (
    ROOT,
    SERVE,
    TINY,
    RunnerProcess,
    alive,
    running,
    until,
    with_limits,
)

IMPATIENT = with_limits(RESPAWN_DELAY_S_MAX=0.2)
CERTIFICATES = ROOT / "tests" / "certificates"
PREFIX = "workflow_runner_"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[RunnerProcess]:
    """A ready tree of two tiny workers that does not wait long between attempts."""
    with running(tmp_path / "data", IMPATIENT) as runner:
        yield runner.wait_ready()


def failed_starts(runner: RunnerProcess, role: str = "worker") -> float:
    return runner.metric(f'{PREFIX}start_failures_total{{role="{role}"}}')


def saying(runner: RunnerProcess, text: str) -> str:
    """The reasons that /readyz gives, if they hold a text."""
    reason = runner.readiness()[1]
    return reason if text in reason else ""


def test_worker_that_cannot_start_later_leaves_its_siblings(tiny: RunnerProcess) -> None:
    """The reason is in /readyz, cut where it is too long; the metrics count; the sibling serves meanwhile."""
    first, second = (worker["pid"] for worker in tiny.workers())
    (tiny.data_dir / "refuse-1").write_text("the store is damaged" + "!" * limits.FAILURE_SIZE_CHARS_MAX)
    os.kill(second, signal.SIGKILL)
    until(lambda: failed_starts(tiny) > limits.BOOT_ATTEMPTS_MAX)
    reason = until(lambda: saying(tiny, "times in a row"))
    assert not tiny.ready()
    assert reason.startswith("waiting for workers 1; worker 1 cannot start: the store is damaged!")
    assert len(reason) < limits.FAILURE_SIZE_CHARS_MAX + 150
    until(lambda: tiny.metric(f"{PREFIX}processes_backing_off") == 1)
    assert tiny.get("/healthz")[0] == 200
    assert until(tiny.ask) == (0, first)
    (tiny.data_dir / "refuse-1").unlink()
    until(tiny.ready)
    assert tiny.readiness() == (True, "")
    assert tiny.workers()[0]["pid"] == first
    until(lambda: tiny.metric(f"{PREFIX}processes_backing_off") == 0)
    assert tiny.stop()[0] == 0


def test_signal_without_a_name_is_one_like_others(tiny: RunnerProcess) -> None:
    first, second = (worker["pid"] for worker in tiny.workers())
    os.kill(second, signal.SIGRTMIN + 5)
    until(lambda: tiny.replaced(second))
    assert tiny.workers()[0]["pid"] == first
    assert f"worker 1 was killed by signal {signal.SIGRTMIN + 5}" in tiny.stop()[2]


def test_restarts_are_counted_once(tiny: RunnerProcess) -> None:
    """A worker that dies again and again before it is ready: as many restarts as there were."""
    (tiny.data_dir / "crash-1").touch()
    os.kill(tiny.workers()[1]["pid"], signal.SIGKILL)
    until(lambda: tiny.workers()[1]["restarts"] > limits.BOOT_ATTEMPTS_MAX)
    assert "worker 1 was killed by SIGKILL" in tiny.readiness()[1]
    (tiny.data_dir / "crash-1").unlink()
    until(tiny.ready)
    restarts = tiny.workers()[1]["restarts"]
    assert tiny.metric(f"{PREFIX}worker_restarts_total") == restarts
    assert failed_starts(tiny) == restarts - 1


def test_web_process_that_cannot_start_leaves_the_workers(tiny: RunnerProcess) -> None:
    """However often it dies before it is ready; connections wait."""
    workers = [worker["pid"] for worker in tiny.workers()]
    (tiny.data_dir / "crash-web").touch()
    os.kill(tiny.web(), signal.SIGKILL)
    for _ in range(20):
        assert until(tiny.ask)[1] in workers
    said = 0
    while said <= limits.BOOT_ATTEMPTS_MAX:
        assert tiny.process.stderr is not None
        said += "web process was killed by SIGKILL" in tiny.process.stderr.readline()
    (tiny.data_dir / "crash-web").unlink()
    until(tiny.ready)
    assert [worker["pid"] for worker in tiny.workers()] == workers
    assert failed_starts(tiny, "web") >= limits.BOOT_ATTEMPTS_MAX


def test_successor_of_the_web_process_proves_itself(tiny: RunnerProcess) -> None:
    """In a rolling restart the one that serves goes when another is prepared, and stays if none can be."""
    before = tiny.web()
    (tiny.data_dir / "crash-web").touch()
    tiny.signal(signal.SIGHUP)
    reason = until(lambda: saying(tiny, "the successor of web process"))
    assert "was killed by SIGKILL" in reason
    assert alive(before)
    assert tiny.ready()
    (tiny.data_dir / "crash-web").unlink()
    until(lambda: not alive(before) and tiny.readiness() == (True, ""))


def test_no_room_for_another_process_is_waited_for(tiny: RunnerProcess) -> None:
    """A supervisor that cannot fork, for want of descriptors here, keeps what it has and says so."""
    first, second = (worker["pid"] for worker in tiny.workers())
    limit = resource.prlimit(tiny.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(tiny.process.pid, resource.RLIMIT_NOFILE, (3, limit[1]))
    os.kill(second, signal.SIGKILL)
    until(lambda: "worker 1 cannot start: the system refuses another process" in tiny.readiness()[1])
    assert until(tiny.ask) == (0, first)
    resource.prlimit(tiny.process.pid, resource.RLIMIT_NOFILE, limit)
    until(tiny.ready)


# --- other code on disk ---


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, as an installation that can be upgraded."""
    copied = tmp_path / "installed" / "fastrunner"
    shutil.copytree(Path(fastrunner.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def test_upgraded_package_is_refused_until_the_runner_is_restarted(tmp_path: Path, package: Path) -> None:
    """No worker is made of two versions: SIGHUP replaces nobody, and who crashes is not replaced. Same code is none."""
    path = f"{package.parent}:{ROOT}"
    with running(tmp_path / "data", IMPATIENT, PYTHONPATH=path) as runner:
        first, second = (worker["pid"] for worker in runner.wait_ready().workers())
        module = package / "processes" / "child.py"
        was = module.read_text()
        module.write_text(was + "\nraise SystemExit('half of another version')\n")
        runner.signal(signal.SIGHUP)
        said = "the package on disk is another than the one running (processes/child.py): restart the runner"
        until(lambda: runner.readiness() == (True, runner.readiness()[1]) and said in runner.readiness()[1])
        assert [worker["pid"] for worker in runner.workers()] == [first, second]
        os.kill(second, signal.SIGKILL)
        until(lambda: not runner.ready() and said in runner.readiness()[1])
        assert until(runner.ask) == (0, first)
        module.write_text(was)
        until(lambda: runner.replaced(first, second))
        assert runner.stop()[0] == 0


# --- certificates ---


def serves(runner: RunnerProcess) -> bool:
    """Whether a client that trusts the authority can shake hands."""
    trusting = grpc.ssl_channel_credentials((CERTIFICATES / "ca.pem").read_bytes())
    with grpc.secure_channel(f"localhost:{runner.ports['grpc_port']}", trusting) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=10)
        except grpc.FutureTimeoutError:
            return False
    return True


@pytest.mark.parametrize("workers", ["1", "2"])
def test_half_written_certificate_ends_nobody(tmp_path: Path, workers: str) -> None:
    """SIGHUP meanwhile waits for the rest of it; a worker that crashes meanwhile is replaced when it is there."""
    whole, file = (CERTIFICATES / "server.pem").read_bytes(), tmp_path / "server.pem"
    file.write_bytes(whole)
    settings = {"FASTRUNNER_TLS_CERTIFICATE_FILE": str(file), "FASTRUNNER_TLS_KEY_FILE": str(file)}
    command = ("-c", "import sys; sys.argv = ['fastrunner', 'serve']\n" + IMPATIENT[1].replace(TINY[1], "fastrunner"))
    with running(tmp_path / "data", command, FASTRUNNER_WORKERS=workers, **settings) as runner:
        before = [worker["pid"] for worker in runner.wait_ready().workers()]
        file.write_bytes(whole[: len(whole) // 2])
        runner.signal(signal.SIGHUP)
        until(
            lambda: "the successor of worker 0 cannot start: FASTRUNNER_TLS_CERTIFICATE_FILE" in runner.readiness()[1]
        )
        assert runner.ready()
        assert [worker["pid"] for worker in runner.workers()] == before
        assert serves(runner)
        file.write_bytes(whole)
        until(lambda: runner.replaced(*before))
        file.write_bytes(whole[: len(whole) // 2])
        victim = runner.workers()[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        until(lambda: "; worker 0 cannot start: FASTRUNNER_TLS_CERTIFICATE_FILE" in runner.readiness()[1])
        file.write_bytes(whole)
        until(lambda: runner.replaced(victim))
        assert serves(runner)
        assert runner.stop()[0] == 0


def test_copy_of_a_data_directory_that_is_in_use_disturbs_nobody(tiny: RunnerProcess, tmp_path: Path) -> None:
    """The copy has the ports file and the runtime folder of the living runner, or what names them."""
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("*.sock")
    shutil.copytree(tiny.data_dir, copy, symlinks=True, ignore=ignored)
    with running(copy, TINY) as other:
        other.wait_ready()
        assert other.stop()[0] == 0
    assert tiny.metric(f"{PREFIX}active_executions") == 20
    victim = tiny.workers()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    until(lambda: tiny.replaced(victim))
    assert tiny.metric(f"{PREFIX}active_executions") == 20
    assert Path(tiny.ports["runtime_dir"]).is_dir()


def test_nobody_else_reads_what_a_runner_makes(tmp_path: Path) -> None:
    """Whatever it was started with."""
    script = f"import os, sys; os.umask(0); os.execv({sys.executable!r}, [{sys.executable!r}, *{SERVE!r}])"
    with running(tmp_path / "data", ("-c", script)) as runner:
        runner.wait_ready()
        made = [path for path in tmp_path.rglob("*") if path != tmp_path]
        assert {path.name for path in made} >= {"data", "ports.json", "manifest.json", "shard-0000.db", "run"}
        assert [path for path in made if path.stat().st_mode & 0o077] == []


def limited(count: int) -> tuple[str, ...]:
    """The command of a runner that may open so many files."""
    script = (
        f"import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({count}, {count}));"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *{SERVE!r}])"
    )
    return ("-c", script)


def needed(shards: int, workers: int) -> int:
    """Open files that each process needs; a worker has all the shards or one."""
    own = shards // workers * limits.DESCRIPTORS_PER_SHARD
    return limits.DESCRIPTORS_MIN + own + workers * limits.DESCRIPTORS_PER_WORKER


@pytest.mark.parametrize(
    ("shards", "workers", "limit"), [(1, 1, 24), (1, 1, needed(1, 1) - 1), (40, 1, needed(40, 1) - 1), (40, 40, 24)]
)
def test_too_few_descriptors_are_refused(tmp_path: Path, shards: int, workers: int, limit: int) -> None:
    """The limit, and what is needed, are named; the disk is not blamed. More workers or shards need more."""
    open_data_directory(tmp_path / "data", shards).close()
    with running(tmp_path / "data", limited(limit), FASTRUNNER_WORKERS=str(workers)) as runner:
        code, _, err = runner.end()
    assert code == 2
    [line] = err.splitlines()
    assert line.startswith(
        f"fastrunner: the limit on open files is {limit}, and each process of {workers} workers with {shards} shards "
        f"needs {needed(shards, workers)}, "
    )


def test_as_many_descriptors_as_are_required_are_enough(tmp_path: Path) -> None:
    """A runner with eight shards starts, and stops, with exactly the limit it asks for."""
    open_data_directory(tmp_path / "data", 8).close()
    with running(tmp_path / "data", limited(needed(8, 1)), FASTRUNNER_WORKERS="1") as runner:
        until(runner.wait_ready().ready)
        assert runner.stop()[0] == 0


# --- signals to what is not loaded yet ---

SIGNALS_ITSELF = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["SIGNAL_AT"]:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def signalling(tmp_path: Path) -> dict[str, str]:
    """The environment of a command that signals itself when it imports a module."""
    (tmp_path / "sitecustomize.py").write_text(SIGNALS_ITSELF)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("module", ["click", "fastrunner.processes.supervisor", "fastrunner.processes.worker"])
def test_hangup_before_the_runner_is_loaded_is_ignored(tmp_path: Path, signalling: dict[str, str], module: str) -> None:
    about = {**signalling, "SIGNAL_AT": module, "SIGNAL": str(int(signal.SIGHUP))}
    with running(tmp_path / "data", ["-m", "fastrunner", "serve"], FASTRUNNER_WORKERS="1", **about) as runner:
        runner.wait_ready()
        assert runner.stop()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("serve", "click"),
        ("serve", "fastrunner.processes.supervisor"),
        ("stigmer serve", "pydantic"),
        ("stigmer serve", "uvloop"),
        ("stigmer serve", "fastrunner.stigmer.opening"),
        ("status", "click"),
    ],
)
def test_signal_before_a_command_is_loaded_ends_it_in_silence(
    tmp_path: Path, signalling: dict[str, str], number: signal.Signals, command: str, module: str
) -> None:
    about = {**signalling, "SIGNAL_AT": module, "SIGNAL": str(int(number))}
    with running(tmp_path / "data", ["-m", "fastrunner", *command.split()], **about) as runner:
        code, out, err = runner.end()
    assert (code, out, err) == (-number, "", "")


# --- what is no file ---


@pytest.mark.parametrize(
    "name",
    ["ports.json", ".ports.json.new", "manifest.json", "lock", "shard-0000.db", "shard-0000.db-wal", "events.db"],
)
def test_folder_in_the_place_of_a_file_refuses_to_start(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    (data / name).mkdir(parents=True)
    data.chmod(0o700)
    with running(data, with_limits(START_WAIT_S_MAX=0.05)) as runner:
        code, _, err = runner.end()
    assert code == ExitCode.LOCKED
    said = f"data directory {data} has a directory in the place of a file, {name}: move it elsewhere"
    assert err == f"fastrunner: {said}\n"


def test_pipe_in_the_place_of_a_file_refuses_to_start(tmp_path: Path) -> None:
    """Opening one would wait for who writes into it."""
    os.mkfifo(tmp_path / "manifest.json")
    with running(tmp_path, with_limits(START_WAIT_S_MAX=0.05)) as runner:
        code, _, err = runner.end()
    assert (code, err.count("\n")) == (ExitCode.LOCKED, 1)
    assert "has no file in the place of a file, manifest.json" in err


def test_audit_file_that_is_a_folder_refuses_to_start(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    about = {"FASTRUNNER_AUDIT_FILE": str(tmp_path / "audit"), "FASTRUNNER_WORKERS": "1"}
    with running(tmp_path / "data", ["-m", "fastrunner", "serve"], **about) as runner:
        code, _, err = runner.end()
    assert code == ExitCode.BOOT
    assert f"FASTRUNNER_AUDIT_FILE={tmp_path / 'audit'}: cannot be written: Is a directory" in err
    assert "Traceback" not in err
