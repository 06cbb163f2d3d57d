"""Support: a runner as a child process of a test, with everything a test asks of it."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent.parent
TINY = ("-m", "tests.integration.tiny_tree")
"""The command of a tree of tiny workers."""
SERVE = ("-m", "fastrunner", "serve")
"""That of a whole runner."""
T = TypeVar("T")
UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname, UNVERIFIED.verify_mode = False, ssl.CERT_NONE


def until(condition: Callable[[], T], timeout_s: float = 30.0) -> T:
    """The first true value of `condition`; connection errors count as not yet."""
    deadline_s = time.monotonic() + timeout_s
    pause_s = 0.01
    while True:
        value = None
        with contextlib.suppress(OSError, urllib.error.URLError, json.JSONDecodeError):
            value = condition()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"not so within {timeout_s} s"
        time.sleep(pause_s)
        # Most conditions ask the runner, which answers by what the test pays for, too.
        pause_s = min(pause_s * 1.1, 0.04)


def with_limits(**changed: float) -> tuple[str, ...]:
    """The command of a tiny tree whose limits differ."""
    changes = "".join(f"limits.{name} = {value}\n" for name, value in changed.items())
    script = "import runpy\nfrom fastrunner.base import limits\n{}runpy.run_module({!r}, run_name='__main__')\n"
    return ("-c", script.format(changes, TINY[1]))


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def children(pid: int) -> list[int]:
    """Process ids."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class RunnerProcess:
    """A process tree on free ports."""

    def __init__(self, data_dir: Path, *command: str, **environment: str) -> None:
        self.data_dir = data_dir
        given = {
            "GRPC_PORT": "0",
            "FASTRUNNER_GRPC_HOST": "127.0.0.1",
            "FASTRUNNER_HTTP_PORT": "0",
            "FASTRUNNER_HTTP_HOST": "127.0.0.1",
            "FASTRUNNER_WORKERS": "2",
            "FASTRUNNER_DATA_DIR": str(data_dir),
            "FASTRUNNER_DRAIN_TIMEOUT_S": "5",
            "LOG_LEVEL": "info",
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FASTRUNNER_", "STIGMER_", "TEMPORAL_")) and name not in ("ENV", "GRPC_PORT")
        }
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**inherited, **given, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.ports: dict[str, Any] = {}
        self.scheme = "http"
        """How the HTTP port is spoken to; of its certificate nothing is asked, as probes of Kubernetes ask nothing."""

    def wait_ready(self) -> "RunnerProcess":
        self.ports = until(self._ports)
        return self

    def _ports(self) -> Any:
        assert self.process.poll() is None, self.process.communicate()
        ports = json.loads((self.data_dir / "ports.json").read_text())
        # A tree that was killed leaves its file behind.
        return ports if ports["pid"] == self.process.pid else None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ports['grpc_port']}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request to the web process."""
        try:
            url = f"{self.scheme}://127.0.0.1:{self.ports['http_port']}{path}"
            with urllib.request.urlopen(url, timeout=10, context=UNVERIFIED) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def workers(self) -> list[dict[str, Any]]:
        """What /readyz says of the workers."""
        workers: list[dict[str, Any]] = json.loads(self.get("/readyz")[1])["workers"]
        return workers

    def readiness(self) -> tuple[bool, str]:
        """Whether it is ready, and the reasons that it gives."""
        readiness: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return bool(readiness["ready"]), str(readiness["reason"])

    def web(self) -> int:
        """The process that serves HTTP."""
        [pid] = set(children(self.process.pid)) - {worker["pid"] for worker in self.workers()}
        return pid

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def replaced(self, *pids: int) -> bool:
        """Whether every worker is ready and none has one of `pids`."""
        readiness: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return bool(readiness["ready"]) and not set(pids) & {worker["pid"] for worker in readiness["workers"]}

    def metric(self, name: str) -> float:
        """The value of an unlabelled metric in one scrape of all workers."""
        return sum(float(line.split()[1]) for line in self.get("/metrics")[1].splitlines() if line.split()[0] == name)

    def ask(self, command: str = "") -> tuple[int, int]:
        """Number and process id of the tiny worker that answers a new connection."""
        with socket.create_connection(("127.0.0.1", self.ports["grpc_port"]), timeout=10) as connection:
            connection.sendall(command.encode() + b"\n")
            index, pid = connection.makefile().readline().split()
        return int(index), int(pid)

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def stop(self) -> tuple[int, str, str]:
        """SIGTERM; exit code, stdout and stderr."""
        self.signal(signal.SIGTERM)
        return self.end()

    def end(self, timeout_s: float = 30.0) -> tuple[int, str, str]:
        """Waits for the end; exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err


@contextlib.contextmanager
def running(data_dir: Path, command: Sequence[str], **environment: str) -> Iterator[RunnerProcess]:
    """A runner that is gone afterwards, however the test ends."""
    runner = RunnerProcess(data_dir, *command, **environment)
    try:
        yield runner
    finally:
        if runner.process.poll() is None:
            # Its children go with it: the kernel kills them.
            runner.process.kill()
            runner.process.communicate(timeout=30)
        for pipe in (runner.process.stdout, runner.process.stderr):
            if pipe is not None:
                pipe.close()


def logged_until(runner: RunnerProcess, text: str) -> str:
    """What a runner logs up to a line with this text."""
    assert runner.process.stderr is not None
    lines = ""
    for line in runner.process.stderr:
        lines += line
        if text in line:
            break
    assert text in lines
    return lines
