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

__all__ = ["MongoServer", "fresh_url", "is_there"]

_FOLDER = "mongodb-stand-in"


class MongoServer:
    """One process."""

    def __init__(self, file: Path | None = None) -> None:
        """With a file, what was answered survives. Ends the test if there is no such server."""
        require(is_there(), "the stand-in for MongoDB")
        folder = find_suite(_FOLDER)
        self._command = [str(find_tool("java")), "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
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
        # In a session of its own: Ctrl-C is for those who use it, and need it until they have ended.
        self._process = subprocess.Popen(
            [*self._command, str(self.port), *file], stdout=subprocess.PIPE, start_new_session=True
        )
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


def is_there() -> bool:
    """Whether there is such a server to be started."""
    return find_tool("java") is not None and (find_suite(_FOLDER) / "MongoStandIn.class").exists()


def fresh_url(mongo_url: str) -> str:
    """Of a database that nobody else has."""
    return f"{mongo_url}/t{uuid.uuid4().hex}"
