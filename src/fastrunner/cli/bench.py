"""Support: `fastrunner bench`, a self-test of a deployment: how fast it accepts and executes, how fast its disk is.

Rules: the load is an ordinary client of `grpc.aio`, in one process, so its figures are what one such client gets and a
lower bound of what the runner can do; what is called whole has ended, seen in its own stream of events. A runner that
is somebody's has nothing of it afterwards: what was made is deleted, also after an interrupt, which therefore ends the
load first and lets calls on their way come back.
"""

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from fastrunner.base.clock import monotonic_s
from fastrunner.base.fsync import fsync_times_s
from fastrunner.base.printable import printable
from fastrunner.cli.access import Access, access_options
from fastrunner.cli.arguments import Number

EXIT_RPC = 4
_IN_FLIGHT = 32
_TASKS = 10
_START_S_MAX = 30.0
_CALL_S_MAX = 30.0
_DELETE_S_MAX = 60.0
"""How long executions that cannot be deleted yet are asked for again."""
_AGAIN_S = 0.1
_TRANSIENT = {"FAILED_PRECONDITION", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
_FSYNCS = 100
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STEPS = "".join(f"- step{number}: {{set: {{counter: '${{ .counter + 1 }}'}}}}\n" for number in range(_TASKS))
_DOCUMENT = f"document: {{dsl: 1.0.3, namespace: bench, name: self-test, version: 1.0.0}}\ndo:\n{_STEPS}"

Figures = dict[str, float]


@click.command()
@click.option(
    "--target",
    default=None,
    metavar="HOST:PORT",
    help="The runner to test; default: a temporary one here, whatever FASTRUNNER_TARGET says.",
)
@access_options
@click.option("--seconds", default=5.0, show_default=True, type=Number(0.2, 300), help="Per measurement.")
@click.option("--data-dir", default=None, type=click.Path(file_okay=False, exists=True, path_type=Path),
              help="Folder on the disk to test; default: the temporary folder.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def bench(target: str | None, seconds: float, data_dir: Path | None, as_json: bool, **access: Any) -> None:
    """Test a deployment for a few seconds: accept, whole executions, fsync; and say what the figures mean.

    With --target, the executions (of the workflow bench/self-test, ids bench-...) are deleted at the end, also after
    Ctrl-C; a second Ctrl-C leaves at once, and them there. Their events go to no callback receiver. fsync is of the
    disk here.
    """
    import grpc
    import orjson

    # An end from outside is one with its `finally`: the temporary runner and its folder go.
    ends = _Ends()
    for number in _SIGNALS:
        signal.signal(number, ends)
    shown = Access(**access)
    folder = data_dir or Path(tempfile.gettempdir())
    try:
        result: dict[str, Figures] = {"fsync": _quantiles(fsync_times_s(folder, _FSYNCS))}
        with _runner(folder) if target is None else _given(target) as where:
            # What is raised while a loop is made, or ends, leaves half of one.
            ends.only_note()
            result |= asyncio.run(_measure(where, shown, seconds, ends, keep=target is None))
    except _Interrupted as interrupted:
        click.echo("fastrunner: interrupted", err=True)
        sys.exit(128 + interrupted.number)
    except grpc.RpcError as error:
        click.echo(printable(f"fastrunner: {error.code().name}: {error.details()}"), err=True)
        sys.exit(EXIT_RPC)
    except RuntimeError as error:
        click.echo(printable(f"fastrunner: {error}"), err=True)
        sys.exit(1)
    click.echo(orjson.dumps(result) if as_json else _sentences(result))


def _quantiles(spent_s: list[float]) -> Figures:
    ordered, last = sorted(spent_s), len(spent_s) - 1
    return {f"p{share}_ms": round(1000 * ordered[share * last // 100], 3) for share in (50, 95, 99)}


@contextmanager
def _given(target: str) -> Iterator[str]:
    yield target


@contextmanager
def _runner(folder: Path) -> Iterator[str]:
    """A runner of this installation on a directory of its own, gone afterwards. Raises RuntimeError."""
    import orjson

    with tempfile.TemporaryDirectory(dir=folder, prefix="fastrunner-bench-") as name:
        command = [sys.executable, "-m", "fastrunner", "serve", "--data-dir", name, "--log-level", "error"]
        command += ["--grpc-port", "0", "--http-port", "0", "--grpc-host", "127.0.0.1", "--http-host", "127.0.0.1"]
        # In a session of its own, so that Ctrl-C ends the measurement first and the runner after it.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - this installation
        try:
            ports, give_up_s = Path(name) / "ports.json", monotonic_s() + _START_S_MAX
            while not ports.exists():
                if process.poll() is not None or monotonic_s() > give_up_s:
                    raise RuntimeError("the temporary runner did not start; see above, or try `fastrunner serve`")
                time.sleep(0.02)
            yield f"127.0.0.1:{orjson.loads(ports.read_bytes())['grpc_port']}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def _measure(target: str, access: Access, seconds: float, ends: "_Ends", keep: bool) -> dict[str, Figures]:
    import grpc

    access.check(target)
    with ExitStack() as interrupts:
        # From before the channel is there: gRPC that is interrupted while it begins cannot end, and says so.
        interrupts.enter_context(_interrupts(ends))
        opened = grpc.aio.secure_channel(target, access.credentials()) if access.tls else None
        connection: Any = opened or grpc.aio.insecure_channel(target)
        async with connection as channel:
            load = _Load(channel, access, seconds, ends)
            try:
                figures = {
                    "accept": await load.run("accept", load.accept),
                    "whole": await load.run("whole", load.whole),
                }
            finally:
                interrupts.close()
                # A runner of one's own is gone in a moment.
                if not keep:
                    await load.delete()
    if ends.number:
        raise _Interrupted(ends.number)
    return figures


class _Interrupted(KeyboardInterrupt):
    """A signal has ended the load; by its base no loop and no `except` takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Ends:
    """What the signals that end a load do. Python drops what is raised in a destructor; what is noted stays."""

    def __init__(self) -> None:
        self.number = 0
        """The signal that has ended it; 0: none."""

    def note(self, number: int) -> None:
        """Begins nothing more, because of a signal."""
        self.number = number

    def only_note(self) -> None:
        """Has the first signal from here on noted, and nothing raised."""
        for number in _SIGNALS:
            signal.signal(number, lambda number, _: self.note(number))

    def __call__(self, number: int, _: object) -> NoReturn:
        self.note(number)
        raise _Interrupted(number)


@contextmanager
def _interrupts(ends: _Ends) -> Iterator[None]:
    """The first signal ends the load; one after that, whatever is under way."""
    loop = asyncio.get_running_loop()

    def once(number: int) -> None:
        release()
        ends.note(number)

    def release() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, ends)

    for number in _SIGNALS:
        loop.add_signal_handler(number, once, number)
    try:
        yield
    finally:
        if not ends.number:
            release()
            ends.only_note()


class _Load:
    """What the test asks of a runner, and what that has of it."""

    def __init__(self, channel: Any, access: Access, seconds: float, ends: _Ends) -> None:
        from fastrunner.cli.client import COMMANDS, QUERIES

        self._seconds, self._ends = seconds, ends
        self._over = self._answered = False
        self._made: list[str] = []
        self._submit = partial(channel.unary_unary(COMMANDS + "ExecuteAsync"), metadata=access.metadata)
        self._execute = partial(channel.unary_stream(COMMANDS + "Execute"), metadata=access.metadata)
        self._delete = partial(channel.unary_unary(QUERIES + "DeleteExecution"), metadata=access.metadata)

    def _request(self) -> bytes:
        from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

        self._made.append(f"bench-{uuid.uuid4()}")
        return messages_pb2.WorkflowExecuteInput(
            workflow_execution_id=self._made[-1],
            workflow_yaml=_DOCUMENT,
            input_json='{"counter": 0}',
            config=messages_pb2.WorkflowExecutionConfig(callbacks_disabled=True),
        ).SerializeToString()

    async def accept(self) -> None:
        """One execution until it is durable."""
        await self._submit(self._request(), timeout=_CALL_S_MAX)

    async def whole(self) -> None:
        """One execution until its last event."""
        from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2

        events = [event async for event in self._execute(self._request(), timeout=_CALL_S_MAX)]
        ended = messages_pb2.WorkflowProgressEvent.FromString(events[-1] if events else b"")
        if ended.event_type != "workflow_completed":
            raise RuntimeError(f"an execution of the self-test ended with {ended.event_type or 'nothing'}")

    async def run(self, what: str, act: Callable[[], Awaitable[None]]) -> Figures:
        """Does it over and over, so many at a time; a progress bar on stderr if that is a terminal."""
        from rich.console import Console
        from rich.progress import Progress

        await act()
        self._answered = True
        spent_s: list[float] = []
        begun_s = monotonic_s()
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
            bar = progress.add_task(what, total=self._seconds)

            async def again() -> None:
                while (passed_s := monotonic_s() - begun_s) < self._seconds and not (self._over or self._ends.number):
                    progress.update(bar, completed=passed_s)
                    one_s = monotonic_s()
                    try:
                        await act()
                    except BaseException:
                        self._over = True
                        raise
                    spent_s.append(monotonic_s() - one_s)

            await _together(again() for _ in range(_IN_FLIGHT))
        return {"per_s": round(len(spent_s) / (monotonic_s() - begun_s), 1), **_quantiles(spent_s or [0.0])}

    async def delete(self) -> None:
        """Deletes what was made. Raises RuntimeError if the runner keeps some of it."""
        # One that has never answered has nothing, as far as anybody can tell.
        give_up_s = monotonic_s() + _DELETE_S_MAX if self._answered else 0.0
        left, self._made = self._made, []
        kept: list[tuple[str, str]] = []

        async def some() -> None:
            while left:
                execution_id = left.pop()
                refusal = await self._deleted(execution_id, give_up_s)
                if refusal:
                    kept.append((execution_id, refusal))

        await _together(some() for _ in range(_IN_FLIGHT))
        if kept and self._answered:
            raise RuntimeError(
                f"{len(kept)} executions of the self-test stay in the runner, such as {kept[0][0]} ({kept[0][1]}): "
                "`fastrunner list --name self-test` shows them, `fastrunner delete` deletes them"
            )

    async def _deleted(self, execution_id: str, give_up_s: float) -> str:
        """Deletes an execution once it may be; why it could not be, or nothing."""
        import grpc

        from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2

        request = query_pb2.DeleteExecutionRequest(execution_id=execution_id).SerializeToString()
        while True:
            try:
                await self._delete(request, timeout=_CALL_S_MAX)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return ""
                # It is about to end, or to be delivered, or the runner has too much to do.
                if error.code().name not in _TRANSIENT or monotonic_s() > give_up_s:
                    return f"{error.code().name}: {error.details()}"
            else:
                return ""
            await asyncio.sleep(_AGAIN_S)


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does all of it, to the end of each; raises the first failure then."""
    done = await asyncio.gather(*works, return_exceptions=True)
    for failure in done:
        if isinstance(failure, BaseException):
            raise failure


def _sentences(result: dict[str, Figures]) -> str:
    accept, whole, fsync = result["accept"], result["whole"], result["fsync"]
    lines = [
        f"accept  {accept['per_s']:9.0f}/s   p50 {accept['p50_ms']:.1f} ms   p99 {accept['p99_ms']:.1f} ms",
        f"whole   {whole['per_s']:9.0f}/s   p50 {whole['p50_ms']:.1f} ms   p99 {whole['p99_ms']:.1f} ms",
        f"fsync   {'':11}   p50 {fsync['p50_ms']:.2f} ms   p99 {fsync['p99_ms']:.2f} ms",
        "",
        f"accept: durable ExecuteAsync calls of one Python client with {_IN_FLIGHT} in flight.",
        f"whole: executions of {_TASKS} set tasks, each from its call to its last event.",
        "Both are what one such client gets, not the most the runner can do; it shares this machine's cores.",
    ]
    if fsync["p50_ms"] > accept["p50_ms"] / 2:
        lines.append("The disk decides how long a call takes: an fsync is more than half of it.")
    else:
        lines.append("The disk does not decide how long a call takes: an fsync is less than half of it.")
    return "\n".join(lines)
