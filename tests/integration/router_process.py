"""Support: a worker's end of the links as a process of its own, so that tests can stop and kill it.

    python -m tests.integration.router_process FOLDER

It is worker 1 of two, and writes `ready` when it answers: GetExecution with its process id, GetEvents never.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

from prometheus_client import CollectorRegistry

from fastrunner.counts.definitions import Metrics
from fastrunner.processes.folder import RuntimeFolder
from fastrunner.processes.shared import Shared
from fastrunner.routing.facts import CallFacts
from fastrunner.routing.peers import Router
from fastrunner.service.status import status_of


class Owner:
    """Answers with who it is, or never."""

    def handle_unary(self, method: str, payload: bytes, facts: CallFacts) -> bytes | Awaitable[bytes]:
        return asyncio.get_running_loop().create_future() if method == "GetEvents" else b"%d" % os.getpid()

    def handle_stream(self, method: str, payload: bytes, facts: CallFacts) -> AsyncIterator[bytes]:
        raise NotImplementedError


async def main(folder: Path) -> None:
    router = Router(
        Shared.create(2, 2, bytes(16)).places(1, 2),
        RuntimeFolder(folder).socket_of,
        Metrics(CollectorRegistry()),
        status_of,
    )
    await router.start(Owner())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
