"""Support: the `fastrunner` command as people use it, many times over: processes of their own with streams, environment
and exit code, forked from one that has loaded the modules, which takes longer than what most commands do.

Rule: what a test is about as a start (signals while modules load, a terminal, a runner) it starts itself.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

from tests.integration.runner_process import ROOT

__all__ = ["fastrunner"]

_TIMEOUT_S = 60.0
_REQUEST_SIZE_BYTES_MAX = 150_000
_starting = threading.Lock()


def fastrunner(
    *arguments: str, text: str = "", environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """What the command has said and how it has ended, with `text` as its stdin and the environment of the tests."""
    with contextlib.ExitStack() as stack:
        given, out, err = (
            stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in ("stdin", "stdout", "stderr")
        )
        given.write(text)
        given.seek(0)
        request = {"arguments": arguments, "environment": dict(os.environ if environment is None else environment)}
        with _starting:
            address = _server()
        connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        connection.settimeout(_TIMEOUT_S)
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(request).encode()], [stream.fileno() for stream in (given, out, err)])
        code = int(connection.recv(16))
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


@functools.cache
def _server() -> str:
    """Starts the process that forks commands, which ends with this one; where it listens."""
    address = f"\0fastrunner-tests-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(64)
        number = listener.fileno()
        command = [sys.executable, "-m", "tests.integration.commands", str(number)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=[number])

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)

    atexit.register(end)
    return address


def _load() -> None:
    """What commands load when they need it; none of it begins a thread."""
    import rich.console  # noqa: F401

    import fastrunner.__main__
    import fastrunner.cli.inprocess
    import fastrunner.cli.present  # noqa: F401

    gc.freeze()


def _serve(listener: socket.socket) -> None:
    """Forks until stdin ends. Comes back in each process that is to be a command."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while 0 not in select.select([listener.fileno(), 0], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _attend(connection)
        connection.close()
    os._exit(0)


def _attend(connection: socket.socket) -> None:
    """Forks a command and tells how it has ended; comes back in the command alone. Who hangs up ends it."""
    request, streams, _, _ = socket.recv_fds(connection, _REQUEST_SIZE_BYTES_MAX, 3)
    pid = os.fork()
    if pid == 0:
        connection.close()
        return _become(json.loads(request), streams)
    ended = os.pidfd_open(pid)
    if connection.fileno() in select.select([ended, connection.fileno()], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(str(code).encode())
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = ["fastrunner", *request["arguments"]]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from fastrunner.__main__ import main

    main()
