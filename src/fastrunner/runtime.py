"""Support: what the processes of one runner share: exit codes, ports, the runtime folder, the link to the supervisor.

Rules: no grpc, no threads and no event loop here, because the supervisor uses it before every fork. Durable state lives
in the data directory; everything here is gone when the runner ends.
"""

import contextlib
import ctypes
import errno
import fcntl
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, Final, Self

import orjson

from fastrunner import limits, process_limits
from fastrunner.clock import monotonic_s, wall_ms
from fastrunner.config import Config
from fastrunner.deaths import Death


class ExitCode(IntEnum):
    """How a runner, or one of its processes, ends."""

    OK = 0
    """Drained as asked."""
    CRASH = 1
    """A defect: an exception nobody expected."""
    CONFIGURATION = 2
    """The configuration cannot be used."""
    BOOT = 3
    """A process could not start: a successor would fail as well."""
    PORT = 4
    """A port cannot be bound."""
    LOCKED = 5
    """The data directory belongs to another runner, or cannot be used."""
    FORCED = 130
    """Ended by a second Ctrl-C, without draining."""


class StartError(Exception):
    """The runner cannot start; the message is one line with the remedy."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        """What the process exits with."""


class Role(StrEnum):
    """What a child of the supervisor is."""

    WORKER = "worker"
    WEB = "web"


# --- ports ---


def reserve_port(host: str, port: int, variable: str, *, shared: bool = False) -> socket.socket:
    """Binds `port` of `host` (0: a free one); raises StartError, naming `variable`, if somebody else has it.

    A shared port is bound with SO_REUSEPORT and not listened on: the workers listen on it. With SO_REUSEPORT a second
    runner could bind the same port and steal connections, so the first bind goes without. A port that is not shared is
    listened on here, so that connections wait in its backlog while the process that serves it is replaced.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        host_variable = variable if variable.startswith("FASTRUNNER") else f"FASTRUNNER_{variable}"
        host_variable = host_variable.replace("PORT", "HOST")
        raise StartError(ExitCode.PORT, f"{host_variable}={host}: {error.strerror}") from None
    family, _, _, _, address = found[0]
    try:
        # SO_REUSEADDR lets a restart pass connections in TIME_WAIT, but not a listener.
        probe = _bound(family, address, socket.SO_REUSEADDR)
        if not shared:
            probe.listen(socket.SOMAXCONN)
            return probe
        chosen = probe.getsockname()
        probe.close()
        return _bound(family, chosen, socket.SO_REUSEPORT)
    except OSError as error:
        raise StartError(
            ExitCode.PORT,
            f"{variable}={port}: cannot bind {host}:{port}: {os.strerror(error.errno or 0).lower()}; "
            "stop what uses it, choose another port, or 0 for a free one",
        ) from None


def _bound(family: int, address: Any, option: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            # `::` serves both protocols, as gRPC does.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


# --- the runtime folder ---

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - folders in it are made by mkdtemp
_PREFIX: Final = "fastrunner-"
_METRICS_PREFIX: Final = "fastrunner-metrics-"
_LOCK: Final = "metrics.lock"


@dataclass(frozen=True, slots=True)
class RuntimeFolder:
    """A folder for the Unix sockets and the shared metrics of one run."""

    path: Path
    """Short enough for the socket paths within."""
    lock: int = -1
    """Descriptor of the locked file that says that the owner of the metrics folder lives; -1: there is none."""

    @classmethod
    def create(cls, data_dir: Path) -> Self:
        """A new one, readable by this user only; the data directory must be locked.

        It is `run` in the data directory, so that what a killed runner leaves is found again; elsewhere only where
        sockets cannot be: the path is too long, the file system has none, or no room.
        """
        path = data_dir.resolve() / "run"
        _remove(path)
        try:
            path.mkdir(mode=0o700)
            if _takes_sockets(path):
                return cls(path, _make_metrics(path / "metrics"))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        _remove(path)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
        return cls(path, _make_metrics(path / "metrics"))

    @property
    def metrics(self) -> Path:
        """Where the processes count, see `cells`."""
        return self.path / "metrics"

    def socket_of(self, worker: int) -> Path:
        """Where a worker listens for the others."""
        return self.path / f"worker-{worker}.sock"

    def forget_gauges(self, identity: str) -> None:
        """Drops what a dead process counted as present; its counters stay."""
        (self.metrics / f"{identity}.gauges").unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the folder with everything in it."""
        _remove(self.path)
        if self.lock >= 0:
            os.close(self.lock)


def _make_metrics(folder: Path) -> int:
    """Metrics are mapped into memory: on a disk that is full, touching a new page would kill the process by SIGBUS. So
    they lie on a file system in memory where there is one, behind a link by which the next start finds them. Gives the
    descriptor of its lock, -1 elsewhere."""
    sweep(_MEMORY)
    try:
        target = Path(tempfile.mkdtemp(prefix=_METRICS_PREFIX, dir=_MEMORY))
        lock = _lock(target / _LOCK, os.O_CREAT)
        folder.symlink_to(target)
    except OSError:
        folder.mkdir()
        return -1
    return lock


def sweep(parent: Path) -> None:
    """Removes the metrics of runners that were killed and whose data directories nobody starts again.

    Whoever owns a folder holds a lock in it for as long as any of its processes lives. One without a lock may be
    somebody's who is just making it. Only files of ours are removed, whatever the folder is called.
    """
    for folder in parent.glob(f"{_METRICS_PREFIX}*"):
        # One in use, or another user's, stays.
        with contextlib.suppress(OSError):
            if _is_abandoned(folder):
                for path in folder.iterdir():
                    if path.suffix in (".counts", ".gauges", ".note", ".lock"):
                        path.unlink()
                folder.rmdir()


def _is_abandoned(folder: Path) -> bool:
    """Whether the owner of a folder of metrics is gone. Raises OSError if it is not."""
    try:
        os.close(_lock(folder / _LOCK))
    except FileNotFoundError:
        return wall_ms() - folder.stat().st_mtime * 1000 > process_limits.METRICS_UNLOCKED_AGE_S_MAX * 1000
    return True


def _lock(path: Path, flags: int = 0) -> int:
    """Locks a file; the descriptor. Raises OSError if somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: Path) -> None:
    metrics = folder / "metrics"
    if metrics.is_symlink():
        target = metrics.readlink()
        if target.parent == _MEMORY and target.name.startswith(_METRICS_PREFIX):
            shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _takes_sockets(folder: Path) -> bool:
    path = folder / "worker-000.sock"
    if len(bytes(path)) > process_limits.SOCKET_PATH_SIZE_BYTES_MAX:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
    except OSError:
        return False
    finally:
        path.unlink(missing_ok=True)
    return True


def metrics_identity(role: str, index: int) -> str:
    """Under which name a child counts; its successor goes on with the same files."""
    return f"{role}{index}"


# --- the ports file ---

PORTS_FILE = "ports.json"


def write_ports_file(data_dir: Path, ports: Mapping[str, Any]) -> None:
    """Tells in the data directory where the runner answers; there while it runs, complete whenever it can be read."""
    temporary = data_dir / f".{PORTS_FILE}.new"
    temporary.write_bytes(orjson.dumps(ports, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    temporary.replace(data_dir / PORTS_FILE)


def remove_ports_file(data_dir: Path) -> None:
    """Removes the file, and a runtime folder elsewhere of a runner that was killed before it could do so itself."""
    path = data_dir / PORTS_FILE
    with contextlib.suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError):
        stale = Path(orjson.loads(path.read_bytes())["runtime_dir"])
        if stale.name.startswith(_PREFIX) and (stale / "metrics").is_dir():
            _remove(stale)
    path.unlink(missing_ok=True)


# --- the link between the supervisor and a child ---


class Link:
    """One end of the socket pair between the supervisor and a child: small JSON messages, none blocks."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self.sent: set[str] = set()
        """Kinds of messages sent so far."""
        self.received_s: dict[str, float] = {}
        """When a message of each kind was last received, on the monotonic clock."""

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """The supervisor's end and the child's."""
        # SOCK_SEQPACKET keeps message boundaries and tells of the other side's end.
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    def fileno(self) -> int:
        """The descriptor, for a selector or an event loop."""
        return self._end.fileno()

    def send(self, kind: str, **fields: Any) -> bool:
        """Sends a message; false if the other side is gone or does not read."""
        try:
            self._end.send(orjson.dumps({"kind": kind, **fields}))
        except OSError:
            return False
        self.sent.add(kind)
        return True

    def receive(self) -> dict[str, Any] | None:
        """The next message; an empty one if there is none yet, None if the other side is gone."""
        try:
            message = self._end.recv(1 << 18)
        except BlockingIOError:
            return {}
        except OSError:
            return None
        if not message:
            return None
        decoded: dict[str, Any] = orjson.loads(message)
        self.received_s[decoded["kind"]] = monotonic_s()
        return decoded

    def close(self) -> None:
        """Closes this end."""
        self._end.close()


@dataclass(frozen=True, slots=True)
class ChildContext:
    """What a child gets from the supervisor."""

    config: Config
    """The settings, with the chosen ports."""
    role: Role
    """What the child is."""
    index: int
    """Its number among those of its role."""
    shards: int
    """Shards of the data directory."""
    folder: RuntimeFolder
    """Where the workers' sockets are."""
    link: Link
    """To the supervisor: `ready`, `prepared`, `trouble`, `failed` and `pong` go up, `ping`, `state`, `go`, `hand_over`
    and `replacing` come down."""
    http: socket.socket | None
    """The listening HTTP socket; only the web process has it."""
    crashes: int
    """Crashes of predecessors that are not in the metrics yet."""
    death: Death | None = None
    """How the predecessor died, if nobody asked it to end."""
    waits: bool = False
    """Whether a predecessor still serves: start when told to `go`."""

    def is_short_handed(self) -> bool:
        """Whether a worker is being replaced, or has just been: what it took, others and its successor have to take."""
        told_s = self.link.received_s.get("replacing", -math.inf)
        return monotonic_s() - told_s < limits.ROUTER_OWNER_WAIT_S_MAX


def die_with_parent(parent_pid: int) -> None:
    """Has the kernel kill this process when its parent dies, so that no orphan keeps ports, shards or locks."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        # It died before the request above.
        os._exit(ExitCode.CRASH)
