"""Support: a disk of its own for a test: a file system in memory whose size changes while it is used.

Rule: no mount outlives its test. One whose process was killed before it could unmount is unmounted by the next.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SmallDisk", "mounted_disk"]

_SOURCE = "fastrunner-test-"
_REMOUNTS_MAX = 100


class SmallDisk:
    """A disk, mounted or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mounted = False

    def mount(self, options: str) -> str:
        """Mounts it, or mounts it again with other options; why that is not possible, empty if it is."""
        if shutil.which("mount") is None:
            return "there is no mount command"
        if not self.mounted:
            _unmount_abandoned()
        command = ["mount", "-t", "tmpfs", "-o", options, f"{_SOURCE}{os.getpid()}", str(self.path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        self.mounted = self.mounted or not done.returncode
        return done.stderr.strip() if done.returncode else ""

    def leave(self, size_bytes: int) -> None:
        """Makes so much free, as a file that fills the rest would, but without its memory."""
        # What somebody writes meanwhile makes the size one that the kernel refuses: less than is used.
        for _ in range(_REMOUNTS_MAX):
            used_bytes = shutil.disk_usage(self.path).used
            # The kernel rounds down to pages, and takes 0 for "no bound".
            refusal = self.mount(f"remount,size={max(4096, used_bytes + size_bytes)}")
            if not refusal:
                return
        raise AssertionError(refusal)

    def unmount(self) -> None:
        """Gives it back, also while somebody still has a file open there."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)
            self.mounted = False


@contextmanager
def mounted_disk(path: Path, options: str) -> Iterator[SmallDisk]:
    """A disk at `path`; skips the test where nobody may mount."""
    import pytest

    path.mkdir()
    disk = SmallDisk(path)
    try:
        if refusal := disk.mount(options):
            pytest.skip(f"a disk of its own needs the right to mount: {refusal}")
        yield disk
    finally:
        disk.unmount()


def _unmount_abandoned() -> None:
    """Unmounts what tests left that were killed."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        source, target, *_ = line.split()
        pid = source.removeprefix(_SOURCE)
        if pid != source and not Path("/proc", pid).exists():
            subprocess.run(["umount", "--lazy", target], check=False)
