"""Stage 5, tasks: one process of a run: how it is started, read and ended; the same for shells, scripts, clients and
servers that are spoken to.

Theory of operation: the launcher is started on the loop's thread, because the kernel tells it of that thread's death.
It gets its order and the program's input as files in memory, so that nothing is ever written to a program that does not
read; one that is spoken to has a pipe, and what it does not read waits in memory. Its end is seen through a descriptor
of the process, its streams are read as they come, up to a bound.

Rules: nothing here blocks; whoever starts a process stops it, whatever happens.
"""

import asyncio
import contextlib
import fcntl
import io
import marshal
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fastrunner.base import limits
from fastrunner.tasks.run.cgroups import Cgroup

__all__ = ["Command", "Ended", "LaunchProblem", "Listener", "Process"]

_CHUNK_SIZE_BYTES = 65_536
_LAUNCHER = str(Path(__file__).with_name("launcher.py"))


class LaunchProblem(Exception):
    """A program that did not start: at which step, and the system's number for why."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(f"{step}: {os.strerror(number)}" if number else step)
        self.step = step
        self.number = number


class Listener(Protocol):
    """Whoever hears a process while it runs."""

    def heard(self, chunk: bytes) -> None:
        """Takes what it writes to stdout, as it comes; an empty chunk is the end."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to start."""

    argv: Sequence[bytes]
    """The program by its path, and its arguments."""
    environment: Mapping[bytes, bytes]
    """All of it."""
    folder: Path
    """Where it starts."""
    stdin: bytes = b""
    """What it reads."""
    listener: Listener | None = None
    """Hears what it writes to stdout; then it reads what it is told (`Process.say`), and not `stdin`."""
    takes_stdout: bool = True
    """Whether anybody wants what it writes to stdout; what it writes to stderr is always read."""
    namespaces: Sequence[str] = ()
    """Those it gets: `pid`, `mount`, `ipc`, `network`, `user`."""
    cgroup: Cgroup | None = None
    """The control group it joins."""
    limits: Sequence[tuple[str, int]] = ()
    """Names in `resource`, and bounds."""
    is_confined: bool = True
    """Whether it loses all capabilities and cannot gain any."""
    is_whole: bool = True
    """Whether what it leaves behind is killed with it; a container engine's client leaves who watches the container."""
    on_death: Sequence[bytes] | None = None
    """What is run if the worker dies before it; its environment is the same. For one without a namespace."""


@dataclass(slots=True)
class Ended:
    """How a process ended."""

    code: int
    """Its exit code; of one that a signal killed 128 and the signal's number, as shells have it."""
    stdout: bytes = b""
    """What it wrote to stdout."""
    stderr: bytes = b""
    """What it wrote to stderr."""
    overflowed: str = ""
    """The stream that it wrote too much to, and was killed for."""
    out_of_memory: bool = False
    """Whether the kernel killed something in it for want of memory."""
    out_of_processes: bool = False
    """Whether the kernel refused it a process."""


@dataclass(slots=True)
class _Stream:
    """What has been read of one."""

    name: str
    number: int
    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    is_open: bool = True


class Process:
    """A process that has been started."""

    def __init__(self, command: Command, began: Callable[[], None] = lambda: None) -> None:
        """Starts it; `began` is called once the program runs. Raises OSError for want of descriptors, memory or
        processes."""
        self._loop = asyncio.get_running_loop()
        self._began = began
        self._cgroup = command.cgroup
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._overflowed = ""
        self._streams: list[_Stream] = []
        self._listener = command.listener
        self._input: int | None = None
        """Where it is told something, until that ends."""
        self._unsaid = bytearray()
        with contextlib.ExitStack() as held:
            self._popen = self._start(command, held)
            self._end = os.pidfd_open(self._popen.pid)
            self._loop.add_reader(self._end, self._exited)

    def _start(self, command: Command, held: contextlib.ExitStack) -> "subprocess.Popen[bytes]":
        order = held.enter_context(_in_memory(marshal.dumps(_order(command))))
        stdin = self._stdin(command, held)
        ends = []
        for name in ("status", "stdout", "stderr") if command.takes_stdout else ("status", "stderr"):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            held.callback(os.close, writing)
            os.set_blocking(reading, False)
            self._streams.append(_Stream(name, reading))
            ends.append(writing)
        try:
            popen = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", _LAUNCHER, str(order.fileno()), str(ends[0])],
                stdin=stdin,
                stdout=ends[1] if command.takes_stdout else subprocess.DEVNULL,
                stderr=ends[-1],
                env={},
                pass_fds=(order.fileno(), ends[0]),
                start_new_session=True,
            )
        except OSError:
            for stream in self._streams:
                os.close(stream.number)
            self.hang_up()
            raise
        for stream in self._streams:
            self._loop.add_reader(stream.number, self._read, stream)
        return popen

    def _stdin(self, command: Command, held: contextlib.ExitStack) -> Any:
        """What it reads from, for as long as it takes to start it."""
        if command.listener is None:
            content = _in_memory(command.stdin) if command.stdin else open("/dev/null", "rb")  # noqa: SIM115
            return held.enter_context(content)
        reading, self._input = os.pipe2(os.O_CLOEXEC)
        held.callback(os.close, reading)
        os.set_blocking(self._input, False)
        return reading

    # --- streams ---

    def say(self, data: bytes) -> None:
        """Tells it something, once it reads; nothing if it has closed its input."""
        self._unsaid += data
        self._speak()

    def _speak(self) -> None:
        if self._input is None:
            return
        try:
            while self._unsaid:
                del self._unsaid[: os.write(self._input, self._unsaid[:_CHUNK_SIZE_BYTES])]
        except BlockingIOError:
            self._loop.add_writer(self._input, self._speak)
        except OSError:
            self.hang_up()
        else:
            self._loop.remove_writer(self._input)

    def hang_up(self) -> None:
        """Ends what it is told."""
        if self._input is not None:
            self._loop.remove_writer(self._input)
            os.close(self._input)
            self._input = None

    def _read(self, stream: _Stream) -> None:
        try:
            chunk = os.read(stream.number, _CHUNK_SIZE_BYTES)
        except BlockingIOError:
            return
        stream.size_bytes += len(chunk)
        if not chunk:
            self._close(stream)
        elif stream.size_bytes > limits.RUN_OUTPUT_SIZE_BYTES_MAX:
            self._overflowed = self._overflowed or stream.name
            self._close(stream)
            self.kill()
        elif self._listener is not None and stream.name == "stdout":
            self._listener.heard(chunk)
        else:
            stream.parts.append(chunk)
            if stream.name == "status" and any("started" in message for message in _messages(stream)):
                self._began()

    def _close(self, stream: _Stream) -> None:
        if stream.is_open:
            stream.is_open = False
            self._loop.remove_reader(stream.number)
            os.close(stream.number)
            if self._listener is not None and stream.name == "stdout":
                self._listener.heard(b"")

    def _read_to_end(self) -> None:
        """What is in the pipes once nobody writes any more."""
        for stream in self._streams:
            while stream.is_open and stream.size_bytes <= limits.RUN_OUTPUT_SIZE_BYTES_MAX:
                before = stream.size_bytes
                self._read(stream)
                if stream.size_bytes == before:
                    break
            self._close(stream)

    # --- the end ---

    def _exited(self) -> None:
        self._loop.remove_reader(self._end)
        os.close(self._end)
        self._popen.wait()
        self.hang_up()
        if self._cgroup is not None:
            self._cgroup.kill()
        self._read_to_end()
        if not self._ended.done():
            self._ended.set_result(None)

    async def ended(self) -> Ended:
        """Waits for its end, and that of all it has started. Raises LaunchProblem if the program did not start."""
        await asyncio.shield(self._ended)
        code = -signal.SIGKILL
        for message in _messages(self._streams[0]):
            if "failed" in message:
                raise LaunchProblem(message["failed"], message["errno"])
            code = message.get("code", code)
        texts = {stream.name: b"".join(stream.parts) for stream in self._streams}
        return Ended(
            code if code >= 0 else 128 - code,
            texts.get("stdout", b""),
            texts["stderr"],
            self._overflowed,
            self._cgroup is not None and self._cgroup.was_out_of_memory,
            self._cgroup is not None and self._cgroup.was_out_of_processes,
        )

    def terminate(self) -> None:
        """Asks it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and all it has started."""
        self._signal(signal.SIGUSR1)

    def _signal(self, number: int) -> None:
        if not self._ended.done():
            # The process is ours and not waited for yet, so its number is still its own.
            with contextlib.suppress(OSError):
                os.kill(self._popen.pid, number)

    async def stop(self) -> None:
        """Asks it to end, one that is told things by telling it no more; then kills it and all it has started, and
        waits until nothing is left."""
        if self._listener is not None:
            self.hang_up()
            if await self._ends_within(limits.RUN_GRACE_S):
                return
        self.terminate()
        if await self._ends_within(limits.RUN_GRACE_S):
            return
        self.kill()
        if self._cgroup is not None:
            self._cgroup.kill()
        if not await self._ends_within(limits.RUN_GRACE_S):
            self._signal(signal.SIGKILL)
            await asyncio.shield(self._ended)

    async def _ends_within(self, time_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), time_s)
        return self._ended.done()


def _messages(status: _Stream) -> list[dict[str, Any]]:
    """What the launcher has told; each message comes whole."""
    text = io.BytesIO(b"".join(status.parts))
    messages = []
    while text.tell() < status.size_bytes:
        messages.append(marshal.load(text))  # noqa: S302 - the launcher wrote it
    return messages


def _order(command: Command) -> dict[str, Any]:
    return {
        "parent": os.getpid(),
        "argv": list(command.argv),
        "environment": dict(command.environment),
        "folder": os.fsencode(command.folder),
        "cgroups": [str(folder) for folder in command.cgroup.folders] if command.cgroup is not None else [],
        "namespaces": list(command.namespaces),
        "limits": list(command.limits),
        "is_confined": command.is_confined,
        "is_whole": command.is_whole,
        "on_death": list(command.on_death) if command.on_death is not None else None,
    }


def _in_memory(content: bytes) -> Any:
    """A file that is nowhere and that nobody can change, at its start."""
    number = os.memfd_create("fastrunner-run", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    file = os.fdopen(number, "w+b")
    file.write(content)
    file.flush()
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
    file.seek(0)
    return file
