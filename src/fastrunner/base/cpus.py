"""Support: how many CPUs this process may use: its affinity, and the quotas of the control groups that it is in.

Rules: Linux tells through files, of which any may be missing; what cannot be read limits nothing.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = ["quota_cpus", "usable_cpus"]


class _Mount(NamedTuple):
    """Where control groups are shown."""

    group: PurePosixPath
    """Which of them the mount's root is."""
    folder: Path
    """Where it is mounted."""


def usable_cpus() -> int:
    """CPUs this process may use: its affinity, capped by the smallest quota, part of a CPU counting as one."""
    count = len(os.sched_getaffinity(0))
    quota = quota_cpus(Path("/"))
    return count if quota is None else max(1, min(count, -int(-quota // 1)))


def quota_cpus(root: Path) -> float | None:
    """The smallest quota of this process's control groups, in CPUs; None if there is none.

    `root` is where `proc` and `sys` are. Both versions of control groups count; a quota further up holds as well.
    """
    quotas = []
    for version, group, mounts in _hierarchies(root):
        for mount in mounts:
            # Within a container the group may be named as seen from outside, and only its own is mounted.
            below = group.relative_to(mount.group) if group.is_relative_to(mount.group) else PurePosixPath()
            folder = mount.folder / below
            while folder.is_relative_to(mount.folder):
                quotas.append(_quota_v1(folder) if version == 1 else _quota_v2(folder))
                folder = folder.parent
    return min((quota for quota in quotas if quota is not None), default=None)


def _hierarchies(root: Path) -> Iterator[tuple[int, PurePosixPath, list[_Mount]]]:
    """The groups of this process that may limit its CPUs: version, path, and where they are mounted."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group, *_ = (*line.split(":", 2), "", "", "")
        if not group.startswith("/"):
            continue
        if not controllers:
            yield 2, PurePosixPath(group), _mounts(root, "cgroup2", "")
        elif "cpu" in controllers.split(","):
            yield 1, PurePosixPath(group), _mounts(root, "cgroup", "cpu")


def _mounts(root: Path, kind: str, controller: str) -> list[_Mount]:
    found = []
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (file_system, _, options, *_) = before.split(), (*after.split(" ", 2), "", "", "")
        if file_system == kind and len(fields) > 4 and (not controller or controller in options.split(",")):
            found.append(_Mount(PurePosixPath(_unescaped(fields[3])), root / _unescaped(fields[4]).lstrip("/")))
    return found


def _unescaped(path: str) -> str:
    """A path as it is, of one in which the kernel wrote spaces, line ends and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _quota_v1(folder: Path) -> float | None:
    return _quota([*_lines(folder / "cpu.cfs_quota_us")[:1], *_lines(folder / "cpu.cfs_period_us")[:1]])


def _quota_v2(folder: Path) -> float | None:
    return _quota(" ".join(_lines(folder / "cpu.max")[:1]).split())


def _quota(words: Sequence[str]) -> float | None:
    """Of microseconds and the period that they are for; None where they say nothing (`max`, -1), or no numbers."""
    try:
        quota_us, period_us = map(int, words)
    except ValueError:
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []
