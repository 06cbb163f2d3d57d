"""Support: a Redis of a test's own, which may die and come back where it was, with nothing of what it had."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

from tests.outside import require_tool
from tests.ports import free_port

__all__ = ["RedisServer", "redis_server"]


class RedisServer:
    """One process on loopback that keeps nothing on disk."""

    def __init__(self) -> None:
        self._program = require_tool("redis-server")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """As clients have it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "RedisServer":
        """Begins; returns once it listens."""
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning"]
        command = [self._program, "--port", str(self.port), *options]
        # In a session of its own: Ctrl-C is for those who use it.
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
        )
        deadline_s = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return self
            assert self._process.poll() is None, "it did not begin"
            assert time.monotonic() < deadline_s, "it does not listen"
            time.sleep(0.01)

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
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(30)


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Gone afterwards."""
    server = RedisServer().start()
    try:
        yield server
    finally:
        server.kill()
