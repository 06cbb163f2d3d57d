"""Support: `fastrunner dev`, a loop for whoever writes a workflow: on every save its problems, or its tree and output.

Rules: a change is looked for by what the file system says of the files (a rename over them counts), and taken once they
rest; an execution that still runs then is cancelled, and the new one begins after it. It needs no server.
"""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastrunner.base.clock import wall_ms
from fastrunner.cli.arguments import outputs_option, read_document, read_input, read_pairs

if TYPE_CHECKING:
    from fastrunner.cli.inprocess import LocalRun

_LOOK_S = 0.1
"""Between two looks at the files; what is changed again within that is one change."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, time and size of each file; None where there is none."""


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--input", "input_text", default=None, metavar="JSON|@FILE", help="The input; a file is watched, too.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="For $runtime.metadata.env; repeatable.")
@click.option("--timeout-s", default=0, type=click.IntRange(0), help="Upper bound on an execution; 0: none.")
@outputs_option
def dev(file: Path, input_text: str | None, env: tuple[str, ...], timeout_s: int, outputs: bool) -> None:
    """Run a document here again on every save, showing its problems or its progress and output, until Ctrl-C.

    As `fastrunner run`, over and over: an execution that still runs when the file changes is cancelled.
    """
    if input_text == "@-":
        raise click.BadParameter("stdin cannot be read again; give a file", param_hint="--input")
    import uvloop

    pairs = read_pairs(env)

    def local() -> "LocalRun":
        from fastrunner.cli.inprocess import LocalRun

        return LocalRun(
            document=read_document(file).decode("utf-8", "replace"),
            input_json=read_input(input_text, file).encode() or b"null",
            env_vars=pairs,
            timeout_s_max=timeout_s,
            outputs=outputs,
        )

    watched = [file, *([Path(input_text[1:])] if input_text is not None and input_text.startswith("@") else [])]
    loop = _Loop(file, watched, local)
    uvloop.run(loop.run())
    click.echo("stopped", err=True)


class _Loop:
    def __init__(self, file: Path, watched: list[Path], local: "Callable[[], LocalRun]") -> None:
        self._file = file
        self._watched = watched
        self._local = local
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Executes and waits for changes until SIGINT or SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        while not self._stopping.is_set():
            stamp = self._stamp()
            interrupt = asyncio.Event()
            executing = asyncio.create_task(self._execute(interrupt))
            await self._changed(stamp)
            interrupt.set()
            await executing

    async def _execute(self, interrupt: asyncio.Event) -> None:
        from fastrunner._core import validate
        from fastrunner.cli.inprocess import execute_until
        from fastrunner.cli.present import say
        from fastrunner.cli.problems import NOT_FETCHED, show_problems
        from fastrunner.errors import DocumentRefused, ResourceUnavailable

        began_ms = wall_ms()
        try:
            local = self._local()
            problems = [each for each in validate(local.document, True) if each.code != NOT_FETCHED]
            show_problems(self._file, problems, local.document.encode())
            status = await execute_until(local, interrupt)
        except DocumentRefused as refusal:
            # What validation by itself has not told.
            unseen = [problem for problem in refusal.problems if problem not in problems]
            show_problems(self._file, unseen, local.document.encode())
            status = f"{len(refusal.problems)} problems"
        except ResourceUnavailable as refusal:
            status = refusal.message
        except click.BadParameter as error:
            status = error.format_message()
        except OSError as error:
            status = f"cannot read {error.filename}: {error.strerror}"
        if not interrupt.is_set():
            names = " and ".join(map(str, self._watched))
            say(f"-- {status} ({wall_ms() - began_ms} ms); waiting for a change of {names}, Ctrl-C ends")

    async def _changed(self, before: Stamp) -> None:
        """Returns once the files are others and rest, or it is to stop."""
        while not self._stopping.is_set():
            stamp = self._stamp()
            await self._look_later()
            # An editor that writes anew leaves none, or half of one, for a moment.
            if stamp != before and stamp == self._stamp() and None not in stamp:
                return

    async def _look_later(self) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), _LOOK_S)
        except TimeoutError:
            return

    def _stamp(self) -> Stamp:
        return tuple(map(_stamp_of, self._watched))


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
