"""Support: the web process: serves HTTP on the socket the supervisor listens on.

Rules: no state of its own: metrics are read from what all processes count in, readiness is what the supervisor last
said. It imports no grpc and no engine.
"""

import asyncio
import logging
import signal
import socket

from aiohttp import web

from fastrunner.access.certificates import RotatingContext
from fastrunner.base import descriptors, limits
from fastrunner.processes.credentials import Credentials, Looks, web_credentials
from fastrunner.processes.link import ChildContext, ExitCode
from fastrunner.web.app import STATE, TreeState, build_app
from fastrunner.web.connections import CONNECTIONS

log = logging.getLogger(__name__)


def run_web(context: ChildContext) -> int:
    """Serves until SIGTERM; the exit code. One with a predecessor has loaded its modules before that one ends."""
    descriptors.allow()
    credentials = web_credentials(context.config)
    if context.waits and not context.link.wait_to_go():
        return ExitCode.OK
    return asyncio.run(_serve(context, credentials))


async def _serve(context: ChildContext, credentials: Credentials) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    app = build_app(context.config, context.segments, credentials.gate)
    loop.add_reader(context.link.fileno(), _read_link, context, app[STATE], stopping)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    # Until then requests wait in the backlog: a process that has just been replaced must not call the tree unready.
    await app[STATE].known.wait()
    assert context.http is not None
    assert runner.server is not None
    tls = RotatingContext(credentials.certificates) if credentials.certificates is not None else None
    server = await loop.create_server(
        app[CONNECTIONS].serve(runner.server),
        sock=context.http,
        ssl=tls,
        ssl_handshake_timeout=limits.HTTP_HEAD_S_MAX if tls is not None else None,
    )
    # That listens anew, with room for as many connections as one turn accepts: no room for those that come while nobody
    # serves.
    context.http.listen(socket.SOMAXCONN)
    looks = Looks()
    looks.begin(credentials.looks)
    context.link.send("ready")
    await stopping.wait()
    looks.close()
    server.close()
    # Whoever has been accepted is answered; who comes now waits for the successor.
    await app[CONNECTIONS].settle(limits.HTTP_SETTLE_S_MAX)
    app[CONNECTIONS].close()
    await runner.cleanup()
    await credentials.close()
    return ExitCode.OK


def _read_link(context: ChildContext, state: TreeState, stopping: asyncio.Event) -> None:
    while (message := context.link.receive()) != {}:
        if message is None:
            # The supervisor is gone.
            asyncio.get_running_loop().remove_reader(context.link.fileno())
            stopping.set()
            return
        if message["kind"] == "ping":
            context.link.send("pong")
        elif message["kind"] == "state":
            state.update(message["state"])
