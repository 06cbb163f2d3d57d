"""Stage 5, tasks: performs `run` of shells, scripts and containers.

Rules: an outcome is returned, never raised; cancelling the coroutine ends the process and all it has started, within
RUN_GRACE_S and without anybody waiting for it. The number of processes at once is bounded; others wait in order. What
is not allowed is refused here once more, because an image may be an expression, and settings change. A process that
nobody awaits is an outcome once it runs; how it ends is logged if it fails, and counted like any other.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import limits
from fastrunner.base.redaction import redact
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Authorizer
from fastrunner.tasks.counted import Counted
from fastrunner.tasks.run.arguments import PATH, RunProblem, argv_of, command_of, encoded, environment_of, stdin_of
from fastrunner.tasks.run.containers import Containers
from fastrunner.tasks.run.interpreters import FILES, interpreter
from fastrunner.tasks.run.isolation import Isolation
from fastrunner.tasks.run.outcome import failure_of, problem_of_launch, problem_of_resources, result_of
from fastrunner.tasks.run.process import Command, Ended, LaunchProblem, Process

__all__ = ["RunPerformer", "Runs"]

_log = logging.getLogger(__name__)

_FOLDER = "fastrunner-run-"
_SHELL = b"/bin/sh"


class Runs:
    """What the kinds of `run` of one worker share: its processes, and what is around them."""

    def __init__(self, config: Config, http: Authorizer) -> None:
        """`http` fetches the sources of scripts; whoever gives it closes it."""
        self.config = config
        self.http = http
        self._places = asyncio.Semaphore(limits.RUN_PROCESSES_PER_WORKER_MAX)
        self._isolation = Isolation(
            memory_size_bytes_max=config.run_memory_mib << 20,
            processes_max=config.run_processes_max,
            has_network=config.run_network,
        )
        self.containers = Containers(config, self.place)
        """Those of this worker."""
        self._known: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def isolation(self) -> Isolation:
        """What processes get here; found out by the first one."""
        if self._known is None:
            _sweep_folders()
            self._known = asyncio.create_task(self._isolation.find_out())
        # One of those that wait for it may be interrupted.
        await asyncio.shield(self._known)
        return self._isolation

    @asynccontextmanager
    async def place(self) -> AsyncIterator["Place"]:
        """A place for a process: a folder of its own, and its end, which nobody waits for if this is cancelled."""
        await self._places.acquire()
        place = None
        try:
            place = Place()
            yield place
        except OSError as error:
            raise problem_of_resources(error) from None
        finally:
            ending = asyncio.create_task(self._leave(place))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _leave(self, place: "Place | None") -> None:
        try:
            if place is not None:
                await place.close()
        finally:
            self._places.release()

    async def close(self) -> None:
        """Waits until all that has been started has ended."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=limits.RUN_CLOSE_S_MAX)
        await self.containers.close()


class Place:
    """Where one process runs."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        self.ending: Callable[[], Awaitable[None]] | None = None
        """What is done once the process has ended."""
        self._process: Process | None = None
        self._command: Command | None = None

    async def run(self, command: Command, timeout_s: float | None, began: Callable[[], None]) -> Ended:
        """Runs a process to its end; `began` is called when its program runs. Raises RunProblem, OSError."""
        process = self.start(command, began)
        try:
            async with asyncio.timeout(timeout_s):
                return await process.ended()
        except LaunchProblem as problem:
            raise problem_of_launch(problem) from None
        except TimeoutError:
            raise RunProblem(
                "timeout", 408, "Run Took Too Long", f"the process has not ended within {timeout_s:g} s"
            ) from None

    def start(self, command: Command, began: Callable[[], None] = lambda: None) -> Process:
        """Starts the process of this place. Raises OSError."""
        self._command = command
        self._process = Process(command, began)
        return self._process

    async def close(self) -> None:
        """Ends what runs here, and leaves nothing."""
        if self._process is not None:
            await self._process.stop()
        cgroup = self._command.cgroup if self._command is not None else None
        if cgroup is not None:
            await cgroup.removed()
        if self.ending is not None:
            await self.ending()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


class RunPerformer:
    """Performer of one kind of effect: `run_shell`, `run_script` or `run_container`."""

    def __init__(self, kind: str, runs: Runs, metrics: Metrics) -> None:
        self._kind = kind
        self._runs = runs
        self._lingering: dict[str, asyncio.Task[EffectResult | EffectFailure]] = {}
        """Processes that run and that nobody awaits, by idempotency key, until `linger` has them."""
        self._counted = Counted(kind, metrics)

    def begin(self) -> None:
        """See `Beginner`: containers that earlier workers left."""
        if self._kind == "run_container":
            self._runs.containers.begin()

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Runs it and gives the task's raw output, or the DSL error that its end means; with `await: false` null once
        it runs, or the error that keeps it from that. Then `linger` has the rest."""
        if arguments["await"]:
            return await self._counted.outcome_of(self._performed(effect, arguments, lambda: None))
        began = asyncio.Event()
        whole = asyncio.create_task(self._counted.outcome_of(self._performed(effect, arguments, began.set)))
        beginning = asyncio.create_task(began.wait())
        try:
            await asyncio.wait((whole, beginning), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            whole.cancel()
            raise
        finally:
            beginning.cancel()
        if not began.is_set():
            return whole.result()
        self._lingering[effect.idempotency_key] = whole
        return EffectResult(effect.effect_id, None)

    async def linger(self, effect: PerformEffect) -> None:
        """See `LingeringPerformer`."""
        whole = self._lingering.pop(effect.idempotency_key, None)
        outcome = None if whole is None else await whole
        if isinstance(outcome, EffectFailure):
            _log.warning("%s, which nobody awaits, failed: %s", effect.idempotency_key, redact(outcome.detail))

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `EffectPerformer`: for the source of a script."""
        return await self._runs.http.authorize(effect, policy)

    async def close(self) -> None:
        """Ends what lingers, and waits until all that has been started has ended."""
        for whole in self._lingering.values():
            whole.cancel()
        await asyncio.gather(*self._lingering.values(), return_exceptions=True)
        self._lingering.clear()
        await self._runs.close()

    async def _performed(
        self, effect: PerformEffect, arguments: Mapping[str, Any], began: Callable[[], None]
    ) -> EffectResult | EffectFailure:
        try:
            self._check_allowed(arguments)
            if "source" in arguments:
                fetched = await self._fetched(effect, arguments)
                if isinstance(fetched, EffectFailure):
                    return fetched
                arguments = {**arguments, "code": fetched}
            return result_of(effect, arguments, await self._ended(effect, arguments, began))
        except RunProblem as problem:
            return failure_of(effect, problem)

    def _check_allowed(self, arguments: Mapping[str, Any]) -> None:
        what = {"run_script": "language", "run_container": "image"}.get(self._kind)
        kind = self._kind.removeprefix("run_")
        refusal = self._runs.config.runs.refusal(kind, None if what is None else str(arguments.get(what)))
        if refusal:
            raise RunProblem.of_argument("configuration", refusal)

    async def _fetched(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> bytes | EffectFailure:
        """The source of a script."""
        request = {"method": "GET", "uri": arguments["source"], "output": "raw", "redirect": False}
        if "authentication" in arguments:
            request["authentication"] = arguments["authentication"]
        fetched = await self._runs.http.perform(effect, request)
        return b64decode(fetched.value) if isinstance(fetched, EffectResult) else fetched

    async def _ended(self, effect: PerformEffect, arguments: Mapping[str, Any], began: Callable[[], None]) -> Ended:
        if self._kind == "run_container":
            return await self._runs.containers.run(effect, arguments, began)
        isolation = await self._runs.isolation()
        environment = environment_of(arguments.get("environment"), effect.idempotency_key)
        environment.setdefault(b"PATH", PATH.encode())
        stdin = stdin_of(arguments.get("stdin"))
        async with self._runs.place() as place:
            return await place.run(
                Command(
                    argv=self._argv(arguments, place.folder),
                    environment=environment,
                    folder=place.folder,
                    stdin=stdin,
                    takes_stdout=arguments["await"] and arguments["return"] in ("stdout", "all"),
                    namespaces=isolation.namespaces,
                    cgroup=isolation.cgroup(),
                    limits=isolation.limits,
                ),
                self._runs.config.run_timeout_s,
                began,
            )

    def _argv(self, arguments: Mapping[str, Any], folder: Path) -> list[bytes]:
        """The program and its arguments; a script is a file."""
        given = argv_of(arguments.get("arguments"))
        if self._kind == "run_shell":
            return [_SHELL, b"-c", command_of(arguments), b"sh", *given]
        code = arguments["code"]
        language = arguments["language"]
        script = folder / FILES[language]
        script.write_bytes(code if isinstance(code, bytes) else encoded(code, "code"))
        return [interpreter(language, self._runs.config), os.fsencode(script), *given]


def _sweep_folders() -> None:
    """Removes the folders of workers that are no more and were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        worker = folder.name.removeprefix(_FOLDER).partition("-")[0]
        with contextlib.suppress(OSError):
            is_ours = folder.stat(follow_symlinks=False).st_uid == os.geteuid() and not folder.is_symlink()
            if is_ours and worker.isdigit() and not Path(f"/proc/{worker}").exists():
                shutil.rmtree(folder, ignore_errors=True)
