"""Stage 5, tasks: control groups, which bound the memory and the number of processes of everything that a run starts.

Theory of operation: under version 1 each controller has a tree of its own, and a child of the worker's group is made
in both. Under version 2 a group with processes in it can have no bounded children, so the child is made in the worker's
own group where that is the root, else beside it, which works where the service manager has delegated the group above
(systemd: `Delegate=yes`, `DelegateSubgroup=`). Where neither may be done there are none, and limits of single processes
stand in.

Rules: a group is named for its worker's process, so that whoever comes later can sweep what a killed worker left.
"""

import asyncio
import contextlib
import itertools
import os
import signal
from pathlib import Path

__all__ = ["Cgroup", "Cgroups"]

_MOUNTS = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")
_NAME = "fastrunner-run-"
_CONTROLLERS = ("memory", "pids")
_REMOVALS_MAX = 100
_REMOVAL_PAUSE_S = 0.02


class Cgroup:
    """The groups of one run."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.folders = folders

    @property
    def was_out_of_memory(self) -> bool:
        """Whether the kernel has killed something in it for want of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    lines = (folder / name).read_text().splitlines()
                    if any(int(line.split()[1]) for line in lines if line.startswith("oom_kill ")):
                        return True
        return False

    @property
    def was_out_of_processes(self) -> bool:
        """Whether the kernel has refused something in it a process."""
        for folder in self.folders:
            with contextlib.suppress(OSError, ValueError):
                lines = (folder / "pids.events").read_text().splitlines()
                if any(int(line.split()[1]) for line in lines if line.startswith("max ")):
                    return True
        return False

    def kill(self) -> None:
        """Kills whatever is in it."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                _write(folder / "cgroup.kill", "1")
                continue
            with contextlib.suppress(OSError):
                for line in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(OSError):
                        os.kill(int(line), signal.SIGKILL)

    def remove(self) -> bool:
        """Removes it; False while something in it has not ended yet."""
        is_gone = True
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                is_gone = False
        return is_gone

    async def removed(self) -> None:
        """Removes it once what has been killed in it is gone, which takes a moment."""
        for _ in range(_REMOVALS_MAX):
            if self.remove():
                return
            await asyncio.sleep(_REMOVAL_PAUSE_S)


class Cgroups:
    """The groups one worker makes."""

    def __init__(self, memory_size_bytes_max: int, processes_max: int) -> None:
        self._bounds = {
            "memory.max": memory_size_bytes_max,
            "memory.swap.max": 0,
            "memory.limit_in_bytes": memory_size_bytes_max,
            "memory.memsw.limit_in_bytes": memory_size_bytes_max,
            "pids.max": processes_max,
        }
        self._numbers = itertools.count(1)
        self._parents = _parents()
        for parent in self._parents:
            _sweep(parent)

    @property
    def are_there(self) -> bool:
        """Whether memory and processes are bounded by groups."""
        return bool(self._parents)

    def make(self) -> Cgroup:
        """A new group with the bounds. Raises OSError."""
        name = self._free_name()
        cgroup = Cgroup(tuple(parent / name for parent in self._parents))
        try:
            for folder in cgroup.folders:
                folder.mkdir()
                for file, bound in self._bounds.items():
                    # Of swap there may be no account.
                    if (folder / file).exists():
                        _write(folder / file, str(bound))
        except OSError:
            cgroup.remove()
            raise
        return cgroup

    def _free_name(self) -> str:
        """A process of the same number, before the machine or its container was started anew, may have left some."""
        while True:
            name = f"{_NAME}{os.getpid()}-{next(self._numbers)}"
            if not any((parent / name).exists() for parent in self._parents):
                return name

    def give_up(self) -> None:
        """Makes none any more: processes cannot join them."""
        self._parents = ()


def _parents() -> tuple[Path, ...]:
    """Where groups can be made that bound both; empty if they cannot."""
    own = [line.split(":", 2) for line in _read(_OWN).splitlines()]
    paths = {name: path for _, names, path in own for name in names.split(",")}
    mounts = _mounts()
    if "" in mounts:
        folder = _within(mounts[""], paths.get("", "/"))
        for candidate in (folder, folder.parent):
            if _can_bound(candidate):
                return (candidate,)
    if all(name in mounts and name in paths for name in _CONTROLLERS):
        folders = dict.fromkeys(_within(mounts[name], paths[name]) for name in _CONTROLLERS)
        if all(_can_make(folder) for folder in folders):
            return tuple(folders)
    return ()


def _mounts() -> dict[str, tuple[str, Path]]:
    """Roots and places of the mounted trees by controller; version 2 is the empty name."""
    found: dict[str, tuple[str, Path]] = {}
    for line in _read(_MOUNTS).splitlines():
        before, _, after = line.partition(" - ")
        root, place = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            found[""] = (root, Path(place))
        elif kind == "cgroup":
            found.update(dict.fromkeys(options.split(","), (root, Path(place))))
    return found


def _within(mount: tuple[str, Path], path: str) -> Path:
    """A group's folder; in a container only a part of the tree may be mounted."""
    root, place = mount
    folder = place / path.removeprefix(root.rstrip("/")).lstrip("/")
    return folder if folder.is_dir() else place


def _can_bound(folder: Path) -> bool:
    """Whether a group of version 2 can have bounded children."""
    available = _read(folder / "cgroup.controllers").split()
    if not set(_CONTROLLERS) <= set(available):
        return False
    if not set(_CONTROLLERS) <= set(_read(folder / "cgroup.subtree_control").split()):
        try:
            _write(folder / "cgroup.subtree_control", " ".join(f"+{name}" for name in _CONTROLLERS))
        except OSError:
            return False
    return _can_make(folder)


def _can_make(folder: Path) -> bool:
    probe = folder / f"{_NAME}{os.getpid()}-0"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _sweep(parent: Path) -> None:
    """Removes the groups of workers that are no more."""
    for folder in parent.glob(f"{_NAME}*-*"):
        worker = folder.name.removeprefix(_NAME).partition("-")[0]
        if worker.isdigit() and not Path(f"/proc/{worker}").exists():
            left = Cgroup((folder,))
            left.kill()
            left.remove()


def _write(path: Path, text: str) -> None:
    """Into a file that is there."""
    number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(number, text.encode())
    finally:
        os.close(number)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
