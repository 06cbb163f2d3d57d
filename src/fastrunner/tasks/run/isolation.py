"""Stage 5, tasks: what the machine lets a worker put around a process: namespaces, control groups, limits.

Rules: found out once per worker, by doing it, before the first process; said in the log, with what is missing. From
then on a process gets all of it or is not started: what has become impossible is an error, never less protection.
"""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from fastrunner.base import limits
from fastrunner.tasks.run.cgroups import Cgroup, Cgroups
from fastrunner.tasks.run.process import Command, LaunchProblem, Process

__all__ = ["Isolation"]

_log = logging.getLogger(__name__)

_PROCESSES = ("pid", "mount", "ipc")
_TRUE = (b"/bin/true",)


class Isolation:
    """What each process of one worker gets."""

    def __init__(self, *, memory_size_bytes_max: int, processes_max: int, has_network: bool) -> None:
        self._memory_size_bytes_max = memory_size_bytes_max
        self._processes_max = processes_max
        self._has_network = has_network
        self.namespaces: Sequence[str] = ()
        """Those each process gets."""
        self._cgroups: Cgroups | None = None

    async def find_out(self) -> None:
        """To be awaited once, before anything else."""
        self._cgroups = Cgroups(self._memory_size_bytes_max, self._processes_max)
        for namespaces in self._wanted():
            if await _works(namespaces):
                self.namespaces = namespaces
                break
        if self._cgroups.are_there and not await self._groups_work(self._cgroups):
            self._cgroups.give_up()
        self._say()

    async def _groups_work(self, groups: Cgroups) -> bool:
        """Whether processes may join those that can be made."""
        try:
            cgroup = groups.make()
        except OSError:
            return False
        try:
            return await _works(self.namespaces, cgroup)
        finally:
            await cgroup.removed()

    def _wanted(self) -> list[tuple[str, ...]]:
        """The best first. Those without privileges make a namespace of users, in which they have them."""
        others = [_PROCESSES, (*_PROCESSES, "user")]
        if self._has_network:
            return others
        return [(*_PROCESSES, "network"), (*_PROCESSES, "network", "user"), ("network", "user"), *others]

    def _say(self) -> None:
        missing = []
        if "pid" not in self.namespaces:
            missing.append(
                "no namespace of processes can be made, so they see the machine's, and what they leave behind is found "
                "by its parents alone"
            )
        if not self._has_network and "network" not in self.namespaces:
            missing.append("no namespace of networks can be made, so they reach what the runner reaches")
        if not self._groups.are_there:
            missing.append(
                "no control groups can be made, so memory is bounded for each process alone, and their number only for "
                "a user without privileges"
            )
        if missing:
            _log.warning("what documents run is less isolated than it could be: %s", "; ".join(missing))
        else:
            _log.info("what documents run is isolated by namespaces and bounded by control groups")

    @property
    def _groups(self) -> Cgroups:
        assert self._cgroups is not None
        return self._cgroups

    def cgroup(self) -> Cgroup | None:
        """A new control group; None where there are none. Raises OSError."""
        return self._groups.make() if self._groups.are_there else None

    @property
    def limits(self) -> list[tuple[str, int]]:
        """Of each single process; more where no control group bounds them together."""
        bounds = [("RLIMIT_CORE", 0), ("RLIMIT_NOFILE", limits.RUN_DESCRIPTORS_MAX)]
        if not self._groups.are_there:
            # In a namespace of users only its own count, elsewhere all that the user has.
            others = 0 if "user" in self.namespaces else _threads_of_user()
            bounds += [("RLIMIT_DATA", self._memory_size_bytes_max), ("RLIMIT_NPROC", self._processes_max + others)]
        return bounds


def _threads_of_user() -> int:
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.geteuid():
                count += sum(1 for _ in (folder / "task").iterdir())
    return count


async def _works(namespaces: Sequence[str], cgroup: Cgroup | None = None) -> bool:
    try:
        process = Process(Command(_TRUE, {}, Path("/"), namespaces=namespaces, cgroup=cgroup))
    except OSError:
        return False
    try:
        return (await process.ended()).code == 0
    except LaunchProblem:
        return False
    finally:
        await process.stop()
