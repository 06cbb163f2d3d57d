"""Support: what tests have in the place of MongoDB: a server that speaks its protocol, in memory or durable in a file.

Rule: on loopback, on a port of the kernel's choice, ended by its process id; a test has databases of its own.
"""

import contextlib
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.outside import find_suite, find_tool, require

__all__ = ["MongoServer", "fresh_url"]

_FOLDER = "mongodb-stand-in"


class MongoServer:
    """One process."""

    def __init__(self, file: Path | None = None) -> None:
        """With a file, what was answered survives. Ends the test if there is no such server."""
        java = find_tool("java")
        folder = find_suite(_FOLDER)
        require(java and (folder / "MongoStandIn.class").exists(), "the stand-in for MongoDB")
        self._command = [str(java), "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        self._command += ["-cp", f"{folder}/*:{folder}", "MongoStandIn"]
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        """Where it is, also after it was started again."""

    @property
    def url(self) -> str:
        """Without a database."""
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> "MongoServer":
        """Begins, or begins again where it was."""
        file = [str(self._file)] if self._file is not None else []
        self._process = subprocess.Popen([*self._command, str(self.port), *file], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"it did not begin: {self._process.wait()}"
        self.port = int(line)
        return self

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It is there and does nothing meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=30)
            self._process = None


def fresh_url(mongo_url: str) -> str:
    """Of a database that nobody else has."""
    return f"{mongo_url}/t{uuid.uuid4().hex}"
