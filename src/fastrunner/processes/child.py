"""Support: the life of a child process on an event loop: start, report ready, answer the supervisor, drain on SIGTERM.

Rules: a child that cannot start says why to the supervisor and exits with ExitCode.BOOT. SIGTERM before it is ready
just ends it: everything durable is in commits. A child whose supervisor is gone ends: nobody would stop or replace it.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import uvloop

from fastrunner.base import garbage, limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused
from fastrunner.errors import RunnerError
from fastrunner.processes.link import ChildContext, ExitCode, StartError
from fastrunner.processes.memory import give_back

log = logging.getLogger(__name__)


class Running(Protocol):
    """A started worker."""

    async def drain(self, timeout_s: float) -> None:
        """Stops in order within `timeout_s`."""


def serve_child(context: ChildContext, start: Callable[[ChildContext], Awaitable[Running]]) -> int:
    """Starts, reports ready, answers the supervisor, drains on SIGTERM; the exit code.

    One that waits says that it is prepared, and starts when it is told to: what takes longest, loading the modules, and
    what may fail without the predecessor's doing, is done before.
    """
    if context.waits and not context.link.wait_to_go():
        return ExitCode.OK
    return uvloop.run(_serve(context, start))


async def _serve(context: ChildContext, start: Callable[[ChildContext], Awaitable[Running]]) -> int:
    loop = asyncio.get_running_loop()
    loop.add_reader(context.link.fileno(), _answer_supervisor, context)
    try:
        running = await start(context)
    except Exception as error:
        context.link.send("failed", message=_reason(error))
        return ExitCode.BOOT
    garbage.calm()
    give_back()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    context.link.send("ready")
    await stopping.wait()
    began_s = monotonic_s()
    _answer_supervisor(context)
    timeout_s = context.config.drain_timeout_s
    if "hand_over" in context.link.received_s:
        # Clients wait for the successor meanwhile.
        timeout_s = min(timeout_s, limits.DRAIN_HAND_OVER_S_MAX)
    await running.drain(timeout_s)
    log.info("drained in %.1f s", monotonic_s() - began_s)
    loop.remove_reader(context.link.fileno())
    return ExitCode.OK


def _answer_supervisor(context: ChildContext) -> None:
    while (message := context.link.receive()) != {}:
        if message is None:
            # The supervisor is gone, and with it whoever would replace or stop this process.
            os._exit(ExitCode.CRASH)
        if message["kind"] == "ping":
            context.link.send("pong")


def _reason(error: Exception) -> str:
    """Why a worker cannot start, as one line; what nobody expected is logged with its traceback."""
    if isinstance(error, StartError | RunnerError | DataDirectoryRefused):
        return str(error)
    log.error("a worker could not start", exc_info=error)
    return f"{type(error).__name__}: {error}".splitlines()[0]
