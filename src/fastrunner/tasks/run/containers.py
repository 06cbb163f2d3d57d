"""Stage 5, tasks: one container from its making to its removal, and those that earlier workers left.

Theory of operation: a container is made, then started with the client attached, whose end is its end. Its labels say
whose it is: the runner, the worker, the effect. A worker that dies has its launchers remove what ran; what even they
could not, is removed by whoever performs the effect again, and by the next worker that starts.

Rules: a container that did not end by itself is removed, whatever `lifetime` says; so is one that was made and never
started. Whatever is removed is removed by its id or a name that nobody else can have.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrunner._core import PerformEffect
from fastrunner.base import clock, limits
from fastrunner.config import Config
from fastrunner.tasks.run.arguments import RunProblem, argv_of, command_of, environment_of, stdin_of
from fastrunner.tasks.run.container_line import (
    PULLS,
    effect_of,
    environment_file,
    image_of,
    mounts_of,
    name_of,
    publications_of,
)
from fastrunner.tasks.run.engine import ContainerEngine, engine_problem
from fastrunner.tasks.run.process import Ended

if TYPE_CHECKING:
    from fastrunner.tasks.run.perform import Place

__all__ = ["Containers"]

_log = logging.getLogger(__name__)

_LABEL = "ai.stigmer.fastrunner."
_TAKEN = b"is already in use"
_NOT_STARTED = ("created", "initialized", "configured")
_ENDED = ("exited", "stopped")
_DOUBTFUL_CODES = (1, 125, 126, 127, 137)
"""Exit codes of clients that could not start a container, which a program may have, too; and that of one killed."""
_MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class _Made:
    """One container, and where it runs."""

    place: "Place"
    program: str
    name: str
    key: str
    """The effect, as its label has it."""
    variables: bytes
    """A file of them, which is nowhere but in memory."""
    stdin: bytes
    arguments: Mapping[str, Any]
    began: Callable[[], None]


class Containers:
    """The containers of one worker."""

    def __init__(self, config: Config, place: Callable[[], AbstractAsyncContextManager["Place"]]) -> None:
        """`place` gives a place for a process."""
        self._config = config
        self._place = place
        self._engine = ContainerEngine(config)
        self._runner = _runner_of(config)
        self._worker = _worker_of(os.getpid())
        self._later: set[asyncio.Task[None]] = set()

    # --- one container ---

    async def run(self, effect: PerformEffect, arguments: Mapping[str, Any], began: Callable[[], None]) -> Ended:
        """Runs a container to its end; `began` is called once it runs. Raises RunProblem."""
        key = effect_of(self._runner, effect.idempotency_key)
        name = name_of(arguments.get("name"), arguments["name_parts"], key)
        image = image_of(arguments.get("image"))
        stdin = stdin_of(arguments.get("stdin"))
        variables = environment_file(environment_of(arguments.get("environment"), effect.idempotency_key))
        options = [*self._labels(key, arguments), *self._options(arguments)]
        program = self._engine.program()
        async with self._place() as place:
            made = _Made(place, program, name, key, variables, stdin, arguments, began)
            try:
                async with asyncio.timeout(self._config.run_timeout_s):
                    options += self._engine.bounds(await self._engine.facts())
                    options += ["--env-file", "/dev/stdin", *(["--interactive"] if stdin else [])]
                    return await self._made_and_run(made, [*options, *await self._inner(program, image, arguments)])
            except TimeoutError:
                raise RunProblem(
                    "timeout",
                    408,
                    "Run Took Too Long",
                    f"the container has not ended within {self._config.run_timeout_s:g} s",
                ) from None

    async def _inner(self, program: str, image: str, arguments: Mapping[str, Any]) -> list[str | bytes]:
        """The end of the line: how the image is had, the image, and what runs in it. Raises RunProblem."""
        given = argv_of(arguments.get("arguments"))
        pull = PULLS[arguments.get("pullPolicy", "ifNotPresent")]
        if arguments.get("command") is not None:
            return ["--pull", pull, "--entrypoint", "/bin/sh", image, "-c", command_of(arguments), "sh", *given]
        if given:
            return ["--pull", "never", image, *await self._own_command(program, image, pull), *given]
        return ["--pull", pull, image]

    def _labels(self, key: str, arguments: Mapping[str, Any]) -> list[str]:
        labels = {
            "runner": self._runner,
            "worker": self._worker,
            "effect": key,
            "cleanup": arguments["cleanup"],
            "removed-after-ms": str(arguments.get("removed_after_ms", 0)),
        }
        return [each for label, value in labels.items() for each in ("--label", f"{_LABEL}{label}={value}")]

    def _options(self, arguments: Mapping[str, Any]) -> list[str]:
        publications = publications_of(arguments.get("ports"))
        if publications and not self._config.run_network:
            raise RunProblem.of_argument(
                "configuration", "ports need a network, which containers have with FASTRUNNER_RUN_NETWORK=true alone"
            )
        mounts = mounts_of(arguments.get("volumes"), self._config.run_volumes)
        published = [each for publication in publications for each in ("--publish", publication)]
        return [*published, *(each for mount in mounts for each in ("--mount", mount))]

    async def _own_command(self, program: str, image: str, pull: str) -> list[str]:
        """What an image without entrypoint runs: arguments go to it, where the engines would put them in its place.
        Raises RunProblem."""
        ended = await self._engine.call(program, ["image", "inspect", "--format", "{{json .Config}}", image])
        if pull == "always" or (ended.code and pull != "never"):
            pulled = await self._engine.call(program, ["pull", "--quiet", image])
            if pulled.code:
                raise engine_problem("the image could not be pulled", pulled)
            ended = await self._engine.call(program, ["image", "inspect", "--format", "{{json .Config}}", image])
        if ended.code:
            raise engine_problem("the image is not there", ended)
        of_image = json.loads(ended.stdout) or {}
        return [] if of_image.get("Entrypoint") else [str(each) for each in of_image.get("Cmd") or ()]

    async def _made_and_run(self, made: "_Made", line: list[str | bytes]) -> Ended:
        """Makes a container, runs it to its end, and says what becomes of it then. Raises RunProblem."""
        place, program = made.place, made.program
        place.ending = lambda: self._removed_by_label(made)
        creating = self._engine.command(
            program, ["create", "--name", made.name, "--stop-timeout", "0", *line], place.folder, stdin=made.variables
        )
        ended = await place.run(creating, None, _nothing)
        if ended.code and _TAKEN in ended.stderr:
            await self._make_way(made)
            ended = await place.run(creating, None, _nothing)
        if ended.code:
            raise engine_problem("the container could not be made", ended)
        container = ended.stdout.decode().split()[-1]
        place.ending = lambda: self._engine.remove(program, container)
        starting = self._engine.command(
            program,
            ["start", "--attach", *(["--interactive"] if made.stdin else []), container],
            place.folder,
            stdin=made.stdin,
            takes_stdout=made.arguments["await"] and made.arguments["return"] in ("stdout", "all"),
            on_death=[os.fsencode(each) for each in (program, "rm", "--force", "--volumes", container)],
        )
        watching = None if made.arguments["await"] else asyncio.create_task(self._watch(made, container))
        try:
            ended = await place.run(starting, None, _nothing)
        finally:
            if watching is not None:
                watching.cancel()
        if not ended.overflowed:
            await self._look_at_end(program, container, ended)
            self._leave(made, container)
        made.began()
        return ended

    async def _watch(self, made: "_Made", container: str) -> None:
        """Tells that a container that nobody awaits runs, which its client does not."""
        with contextlib.suppress(RunProblem, OSError):
            # Engines tell of it as a stream of events at best.
            while not any(map(_has_started, await self._engine.look(made.program, container))):  # noqa: ASYNC110
                await asyncio.sleep(limits.CONTAINER_LOOK_INTERVAL_S)
            made.began()

    async def _make_way(self, made: "_Made") -> None:
        """Removes the container of the effect's performance before. Raises RunProblem if it is somebody else's."""
        if made.arguments.get("name") is None:
            # Nobody else gives this name, and half a container is known by nothing else.
            await self._engine.remove(made.program, made.name)
            return
        for container in await self._engine.look(made.program, made.name):
            if _labels_of(container).get("effect") != made.key:
                raise RunProblem.of_argument(
                    "configuration",
                    "name is that of another container: remove that one, or leave name out for one of its own",
                )
            await self._engine.remove(made.program, str(container["Id"]))
        # None if somebody else has just removed it, as who watched over it does.

    async def _look_at_end(self, program: str, container: str, ended: Ended) -> None:
        """Finds out what an exit code does not tell. Raises RunProblem for a container that never started."""
        if ended.code not in _DOUBTFUL_CODES:
            return
        for found in await self._engine.look(program, container):
            if not _has_started(found):
                raise engine_problem("the container could not be started", ended)
            ended.out_of_memory = bool((found.get("State") or {}).get("OOMKilled"))

    def _leave(self, made: "_Made", container: str) -> None:
        """Has a container that ended by itself stay as long as the document says."""
        match made.arguments["cleanup"]:
            case "never":
                made.place.ending = None
            case "eventually":
                made.place.ending = None
                self._remove_later(made.program, container, made.arguments["removed_after_ms"])

    def _remove_later(self, program: str, container: str, after_ms: int) -> None:
        async def removed() -> None:
            await asyncio.sleep(after_ms / _MS_PER_S)
            await self._engine.remove(program, container)

        self._in_background(removed())

    async def _removed_by_label(self, made: "_Made") -> None:
        with contextlib.suppress(RunProblem, OSError):
            left = await self._labelled(made.program, "effect", made.key)
            if left:
                await self._engine.remove(made.program, *left)

    async def _labelled(self, program: str, label: str, value: str) -> list[str]:
        """Ids of containers. Raises RunProblem, OSError."""
        line = ["ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={_LABEL}{label}={value}"]
        return (await self._engine.call(program, line)).stdout.decode().split()

    # --- those of earlier workers ---

    def begin(self) -> None:
        """Removes what earlier workers left, in the background, if containers are allowed."""
        if not self._config.runs.refusal("container", None):
            self._in_background(self._sweep())

    async def _sweep(self) -> None:
        try:
            program = self._engine.program()
            left = await self._labelled(program, "runner", self._runner)
            for container in await self._engine.look(program, *left) if left else ():
                await self._sweep_one(program, container)
        except (RunProblem, OSError) as problem:
            _log.warning("containers of earlier workers could not be looked for: %s", problem)

    async def _sweep_one(self, program: str, container: Mapping[str, Any]) -> None:
        labels = _labels_of(container)
        pid = labels.get("worker", "").partition("-")[0]
        if pid.isdigit() and _worker_of(int(pid)) == labels["worker"]:
            return
        state = container.get("State") or {}
        if state.get("Status") not in _ENDED or labels.get("cleanup") == "always":
            await self._engine.remove(program, str(container["Id"]))
        elif labels.get("cleanup") == "eventually":
            due_ms = _ms_of(state.get("FinishedAt")) + int(labels.get("removed-after-ms", "0"))
            self._remove_later(program, str(container["Id"]), max(0, due_ms - clock.wall_ms()))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def close(self) -> None:
        """Leaves what is to be removed later to the next worker."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)


def _nothing() -> None:
    """What a client's start means."""


def _has_started(container: Mapping[str, Any]) -> bool:
    return (container.get("State") or {}).get("Status") not in _NOT_STARTED


def _labels_of(container: Mapping[str, Any]) -> dict[str, str]:
    labels = (container.get("Config") or {}).get("Labels") or {}
    return {name.removeprefix(_LABEL): str(value) for name, value in labels.items() if name.startswith(_LABEL)}


def _runner_of(config: Config) -> str:
    """What tells the containers of one data directory from those of others that use the same engine."""
    folder = os.path.realpath(config.data_dir)
    number = os.stat(folder).st_ino if os.path.isdir(folder) else 0
    return hashlib.sha256(f"{folder}\n{number}".encode()).hexdigest()[:32]


def _worker_of(pid: int) -> str:
    """A process by its number and its start, in which no two are equal; empty if it is no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return f"{pid}-{stat.rpartition(')')[2].split()[19]}"


def _ms_of(moment: object) -> int:
    """A moment of the engine; 0, long ago, for what is none."""
    try:
        return int(datetime.fromisoformat(str(moment)).timestamp() * _MS_PER_S)
    except ValueError:
        return 0
