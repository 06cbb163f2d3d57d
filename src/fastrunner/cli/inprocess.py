"""Support: one execution in this process: the embedded engine on a temporary data directory, no server.

It is the same engine, walk and performers as behind gRPC; only the directory is gone afterwards. Ctrl-C or SIGTERM
cancels the execution and shows its end; a second one leaves at once. The directory goes in either case.
"""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import orjson
import uvloop

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2
from fastrunner.access.sealing import DataKeys, KeyFileRefused
from fastrunner.access.secrets import Secrets
from fastrunner.cli.follow import display, print_end
from fastrunner.config import ConfigurationError, load_config, secret_variables
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Submission
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.manifest import open_data_directory
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from fastrunner.registry.registry import Registry
from fastrunner.resources.resolver import Resolver
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
    as_json: bool = False
    """Progress as JSON lines instead of text."""
    quiet: bool = False
    """No progress at all."""
    outputs: bool = False
    """Each task's output beside it."""


def execute(local: LocalRun) -> str:
    """Executes and prints; gives the final status. Raises DocumentRefused, ResourceUnavailable."""
    for number in _ENDS:
        signal.signal(number, _leave)
    return uvloop.run(_execute(local))


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


async def _execute(local: LocalRun) -> str:
    interrupt = asyncio.Event()

    def begun() -> None:
        for number in _ENDS:
            asyncio.get_running_loop().add_signal_handler(number, end, number)

    def end(_: int) -> None:
        for number in _ENDS:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, _leave)
        interrupt.set()

    return await execute_until(local, interrupt, begun)


async def execute_until(local: LocalRun, interrupt: asyncio.Event, begun: Callable[[], None] = lambda: None) -> str:
    """Executes and prints, and cancels the execution when `interrupt` is set; gives the final status.

    `begun` is called when there is something to cancel. Raises DocumentRefused, ResourceUnavailable.
    """
    with tempfile.TemporaryDirectory(prefix="fastrunner-run-") as folder:
        directory = open_data_directory(Path(folder), 1)
        try:
            return await _in_folder(local, Path(folder), interrupt, begun)
        finally:
            directory.close()


async def _in_folder(local: LocalRun, folder: Path, interrupt: asyncio.Event, begun: Callable[[], None]) -> str:
    # Nothing is sent to sinks from here: what they would be sent is not kept for them either.
    # What a runner of the same environment would listen on is of no account, and need not be allowed.
    config = load_config(data_dir=folder, env="local", grpc_host="127.0.0.1", http_host="127.0.0.1")
    metrics = Metrics()
    secrets = Secrets(config.secrets_dir, secret_variables())
    try:
        keys = None if config.data_key_file is None else DataKeys.read(config.data_key_file)
    except KeyFileRefused as error:
        raise ConfigurationError(str(error)) from None
    registry = Registry(folder)
    bus = EventBus(folder, lambda: engine.events_came(), Seals(keys), config.event_retention_s, metrics=metrics)
    resources = Resolver(config, metrics, secrets)
    performers = build_performers(config, metrics, event_sink=bus, descriptions=resources)
    engine = EmbeddedEngine(
        config,
        metrics,
        performers,
        secrets=secrets,
        definitions=registry,
        resources=resources,
        events=bus,
        data_keys=keys,
    )
    await engine.start()
    try:
        if config.workflows_dir is not None:
            await registry.load(config.workflows_dir, partial(engine.plan_of, client=""))
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
        begun()
        cancelling = asyncio.get_running_loop().create_task(_cancel_on(interrupt, engine))
        await _show_progress(engine, local)
        cancelling.cancel()
        view = await engine.get(EXECUTION_ID)
    finally:
        await engine.drain(DRAIN_TIMEOUT_S)
        await bus.close()
        registry.close()
    print_end(view.output_json if view.status == "completed" else "", view.error)
    return view.status


async def _cancel_on(interrupt: asyncio.Event, engine: EmbeddedEngine) -> None:
    await interrupt.wait()
    await engine.cancel(EXECUTION_ID, "interrupted", True)


async def _show_progress(engine: EmbeddedEngine, local: LocalRun) -> None:
    with display(err=True, as_json=local.as_json, quiet=local.quiet, outputs=local.outputs) as shown:
        async for message in engine.subscribe(EXECUTION_ID, 1):
            shown.show(messages_pb2.WorkflowProgressEvent.FromString(message))
