"""Support: the folder in which the processes of one run meet: their sockets and what they count.

Rules: no grpc, no threads and no event loop here, because the supervisor uses it before every fork. Durable state
lives in the data directory; everything here is gone when the runner ends.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms

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
        return wall_ms() - folder.stat().st_mtime * 1000 > limits.METRICS_UNLOCKED_AGE_S_MAX * 1000
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
    if len(bytes(path)) > limits.SOCKET_PATH_SIZE_BYTES_MAX:
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


def forget_folder(stale: Path) -> None:
    """Removes what a killed runner left elsewhere, if it is a folder of ours."""
    if stale.name.startswith(_PREFIX) and (stale / "metrics").is_dir():
        _remove(stale)
