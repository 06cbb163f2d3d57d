"""Support: one execution in this process: the embedded engine on a temporary data directory, no server.

It is the same engine, walk and performers as behind gRPC; only the directory is gone afterwards. Ctrl-C or SIGTERM
cancels the execution and shows its end; a second one leaves at once. The directory goes in either case.
"""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
import orjson
import uvloop

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2
from fastrunner.base.printable import escaped_json
from fastrunner.cli.present import EventPrinter, error_line
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Submission
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.manifest import open_data_directory
from fastrunner.tasks import build_performers

EXECUTION_ID = "local"
DRAIN_TIMEOUT_S = 5.0
_ENDS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class LocalRun:
    """What to execute and how to show it."""

    document: str
    """The workflow document's text."""
    input_json: bytes
    """JSON text of the input."""
    env_vars: Mapping[str, str]
    """Values for `$runtime.metadata.env`."""
    timeout_s_max: int
    """Upper bound on the execution in seconds; 0: none."""
    as_json: bool
    """Progress as JSON lines instead of text."""
    quiet: bool
    """No progress at all."""


def execute(local: LocalRun) -> str:
    """Executes and prints; gives the final status. Raises DocumentRefused."""
    for number in _ENDS:
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="fastrunner-run-") as folder:
        directory = open_data_directory(Path(folder), 1)
        try:
            return uvloop.run(_execute(local, Path(folder)))
        finally:
            directory.close()


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


async def _execute(local: LocalRun, folder: Path) -> str:
    config = load_config(data_dir=folder, env="local", executions_max=1)
    metrics = Metrics()
    engine = EmbeddedEngine(config, metrics, build_performers(config, metrics))
    await engine.start()
    loop = asyncio.get_running_loop()
    try:
        await engine.submit(
            Submission(
                execution_id=EXECUTION_ID,
                document=local.document,
                input_json=local.input_json,
                input_value=orjson.loads(local.input_json),
                env_vars=local.env_vars,
                metadata=b"",
                timeout_s_max=local.timeout_s_max,
                debug=False,
            )
        )
        interrupt = asyncio.Event()
        for number in _ENDS:
            loop.add_signal_handler(number, interrupt.set)
        cancelling = loop.create_task(_cancel_on(interrupt, engine))
        await _show_progress(engine, local)
        cancelling.cancel()
        view = await engine.get(EXECUTION_ID)
    finally:
        await engine.drain(DRAIN_TIMEOUT_S)
    if view.status == "completed":
        click.echo(escaped_json(view.output_json))
    elif view.error is not None:
        click.echo(escaped_json(orjson.dumps(view.error).decode()))
    return view.status


async def _cancel_on(interrupt: asyncio.Event, engine: EmbeddedEngine) -> None:
    await interrupt.wait()
    for number in _ENDS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, _leave)
    await engine.cancel(EXECUTION_ID, "interrupted", True)


async def _show_progress(engine: EmbeddedEngine, local: LocalRun) -> None:
    printer = EventPrinter(err=True)
    async for message in engine.subscribe(EXECUTION_ID, 1):
        if local.quiet:
            continue
        event = messages_pb2.WorkflowProgressEvent.FromString(message)
        if local.as_json:
            error_line(event)
        else:
            printer.show(event)
