"""Support: the folder in which the processes of one run meet: their sockets.

Rules: no grpc, no threads and no event loop here, because the supervisor uses it before every fork. Durable state
lives in the data directory; everything here is gone when the runner ends. A folder outside the data directory is locked
for as long as any process of its run lives, and only the sockets of one that is not are ever removed: what names such a
folder may be a copy of a file, and the runner it belongs to alive.
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

_ELSEWHERE: Final = Path("/tmp")  # noqa: S108 - folders in it are made by mkdtemp
_PREFIX: Final = "fastrunner-"


@dataclass(frozen=True, slots=True)
class RuntimeFolder:
    """A folder for the Unix sockets of one run."""

    path: Path
    """Short enough for the socket paths within."""
    lock: int = -1
    """Descriptor of the locked folder; -1 if it lies in the data directory, which is locked itself."""

    @classmethod
    def create(cls, data_dir: Path) -> Self:
        """A new one, readable by this user only; the data directory must be locked.

        It is `run` in the data directory, so that what a killed runner leaves is found again; elsewhere only where
        sockets cannot be: the path is too long, the file system has none, or no room.
        """
        path = data_dir.resolve() / "run"
        shutil.rmtree(path, ignore_errors=True)
        try:
            path.mkdir(mode=0o700)
            if _takes_sockets(path):
                return cls(path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        shutil.rmtree(path, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_ELSEWHERE))
        return cls(path, _lock(path))

    def socket_of(self, worker: int) -> Path:
        """Where a worker listens for the others."""
        return self.path / f"worker-{worker}.sock"

    def remove(self) -> None:
        """Removes the folder with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.lock >= 0:
            os.close(self.lock)


def _lock(folder: Path) -> int:
    """Locks a folder; the descriptor. Raises OSError if somebody else has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


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


def child_identity(role: str, index: int) -> str:
    """What a child is called in logs; the same as its predecessors and successors."""
    return f"{role}{index}"


def forget_folder(stale: Path) -> None:
    """Removes what a killed runner left elsewhere, if it is a folder of ours and no runner that lives has it."""
    if stale.parent != _ELSEWHERE or not stale.name.startswith(_PREFIX):
        return
    with contextlib.suppress(OSError):
        lock = _lock(stale)
        try:
            for path in stale.glob("worker-*.sock"):
                if path.is_socket():
                    path.unlink()
            stale.rmdir()
        finally:
            os.close(lock)
