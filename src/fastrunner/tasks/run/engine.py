"""Stage 5, tasks: the container engine: podman, or docker, by its command line.

Theory of operation: the engine's program is a client like any other: a process of the launcher, but with the runner's
user, folders and settings of the engine, and without what bounds what documents run. What bounds a container is asked
for when it is made; which bounds the engine can keep, it says itself, once per worker.

Rules: a client is never killed for what it leaves behind, because that is the engine's: what watches over containers.
"""

import asyncio
import contextlib
import json
import logging
import os
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastrunner.base import limits
from fastrunner.base.redaction import redact
from fastrunner.config import Config, engine_variables
from fastrunner.tasks.run.arguments import PATH, RunProblem
from fastrunner.tasks.run.outcome import problem_of_launch
from fastrunner.tasks.run.process import Command, Ended, LaunchProblem, Process

__all__ = ["ContainerEngine", "EngineFacts", "engine_problem"]

_log = logging.getLogger(__name__)

_PROGRAMS = ("podman", "docker")
_PID_MAX = Path("/proc/sys/kernel/pid_max")
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
"""What images do at their start, and with what they own; neither devices nor raw sockets nor another root."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What one engine can do."""

    program: str
    """Its client."""
    is_podman: bool
    """Or else docker, or what acts like it."""
    bounds_memory: bool
    """Whether a container's memory is bounded."""
    bounds_swap: bool
    """Whether its swap is."""
    bounds_processes: bool
    """Whether the number of its processes is."""

    @staticmethod
    def of(program: str, info: Mapping[str, Any]) -> "EngineFacts":
        """From what the engine says of itself, which differs in everything."""
        host = info.get("host")
        if isinstance(host, dict):
            controllers = host.get("cgroupControllers") or ()
            can = "memory" in controllers
            return EngineFacts(program, True, can, can, "pids" in controllers)
        memory, swap, pids = (bool(info.get(key)) for key in ("MemoryLimit", "SwapLimit", "PidsLimit"))
        return EngineFacts(program, False, memory, swap, pids)


class ContainerEngine:
    """The engine of one worker."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._facts: EngineFacts | None = None
        self.environment = engine_variables()
        """What its client knows of the runner's environment: what the engine reads, and nothing secret."""
        self.environment.setdefault(b"PATH", PATH.encode())

    def program(self) -> str:
        """Where the engine's client is; looked for each time, so one that is installed later is found. Raises
        RunProblem."""
        given = self._config.run_engine
        path = os.fsdecode(self.environment[b"PATH"])
        found = (
            str(given)
            if given is not None
            else next(filter(None, (shutil.which(p, path=path) for p in _PROGRAMS)), None)
        )
        if found is None:
            raise RunProblem.of_argument(
                "configuration",
                "containers need podman or docker, neither of which is on the runner's PATH: install one, or set "
                "FASTRUNNER_RUN_ENGINE",
            )
        return os.path.abspath(found)

    async def facts(self) -> EngineFacts:
        """Found out by the first that asks and gets an answer. Raises RunProblem, OSError."""
        program = self.program()
        if self._facts is None or self._facts.program != program:
            ended = await self.call(program, ["info", "--format", "{{json .}}"])
            try:
                info = json.loads(ended.stdout) if ended.code == 0 else None
            except ValueError:
                info = None
            # Docker's client succeeds without its server, and says so in its answer.
            if not isinstance(info, dict) or info.get("ServerErrors"):
                raise engine_problem("the container engine does not answer", ended, 503)
            self._facts = EngineFacts.of(program, info)
            self._say(self._facts)
        return self._facts

    def _say(self, facts: EngineFacts) -> None:
        missing = [
            what
            for what, is_there in (
                ("memory", facts.bounds_memory),
                ("swap", facts.bounds_swap),
                ("number of processes", facts.bounds_processes),
            )
            if not is_there
        ]
        if missing:
            _log.warning("containers are run by %s, which bounds no %s here", facts.program, " and no ".join(missing))
        else:
            _log.info("containers are run by %s, which bounds memory and processes", facts.program)

    def bounds(self, facts: EngineFacts) -> list[str]:
        """Options that confine a container."""
        config = self._config
        memory = f"{config.run_memory_mib}m"
        line = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--no-healthcheck", "--log-driver", "none"]
        for capability in _CAPABILITIES:
            line += ["--cap-add", capability]
        # The engine would ask for more than a runner without privileges may have.
        descriptors = _at_most(resource.RLIMIT_NOFILE, limits.RUN_DESCRIPTORS_MAX)
        processes = _at_most(resource.RLIMIT_NPROC, int(_PID_MAX.read_text()))
        line += ["--ulimit", "core=0:0", "--ulimit", f"nofile={descriptors}:{descriptors}"]
        line += ["--ulimit", f"nproc={processes}:{processes}"]
        if facts.bounds_memory:
            line += ["--memory", memory]
        if facts.bounds_swap:
            line += ["--memory-swap", memory]
        if facts.bounds_processes:
            line += ["--pids-limit", str(config.run_processes_max)]
        if not config.run_network:
            line += ["--network", "none"]
        if facts.is_podman:
            line += ["--http-proxy=false"]
        return line

    def command(self, program: str, line: Sequence[str | bytes], folder: Path = Path("/"), **given: Any) -> Command:
        """The client with a command line."""
        argv = [os.fsencode(each) for each in (program, *line)]
        return Command(argv, self.environment, folder, is_confined=False, is_whole=False, **given)

    async def call(self, program: str, line: Sequence[str | bytes]) -> Ended:
        """Runs a short command to its end. Raises RunProblem, OSError."""
        process = Process(self.command(program, line))
        try:
            async with asyncio.timeout(limits.RUN_COMMAND_S_MAX):
                return await process.ended()
        except LaunchProblem as problem:
            raise problem_of_launch(problem) from None
        except TimeoutError:
            raise RunProblem(
                "runtime",
                503,
                "Container Engine Failed",
                f"{line[0]!s}: no answer within {limits.RUN_COMMAND_S_MAX:g} s",
            ) from None
        finally:
            await asyncio.shield(process.stop())

    async def remove(self, program: str, *names: str) -> None:
        """Kills and removes containers, with volumes that have no name; those that are not there are none to worry
        about. Engines fail at it at times, while something of a container is still busy."""
        with contextlib.suppress(RunProblem, OSError):
            for attempt in range(limits.CONTAINER_REMOVALS_MAX):
                await asyncio.sleep(attempt)
                ended = await self.call(program, ["rm", "--force", "--volumes", *names])
                if ended.code == 0 or "no such container" in ended.stderr.decode("utf-8", "replace").lower():
                    return
            _log.warning("a container could not be removed: %s", _last_line(ended))

    async def look(self, program: str, *names: str) -> list[dict[str, Any]]:
        """What is known of those of the containers that are there. Raises RunProblem, OSError."""
        ended = await self.call(program, ["inspect", "--type", "container", *names])
        try:
            found = json.loads(ended.stdout or b"[]")
        except ValueError:
            found = []
        return [each for each in found or () if isinstance(each, dict)]


def engine_problem(what: str, ended: Ended, status: int = 500) -> RunProblem:
    """The problem of a command of the engine that failed."""
    reason = _last_line(ended)
    return RunProblem("runtime", status, "Container Engine Failed", f"{what}: {reason}" if reason else what)


def _last_line(ended: Ended) -> str:
    """The end of what the engine says, without what is secret."""
    end = ended.stderr[-limits.RUN_STDERR_SEARCHED_SIZE_BYTES_MAX :].decode("utf-8", "replace")
    lines = redact(end).strip().splitlines()
    return lines[-1].removeprefix("Error: ")[-limits.RUN_STDERR_SHOWN_SIZE_CHARS_MAX :] if lines else ""


def _at_most(kind: int, bound: int) -> int:
    """A bound, or less if this process may not have as much."""
    hard = resource.getrlimit(kind)[1]
    return bound if hard == resource.RLIM_INFINITY else min(bound, hard)
