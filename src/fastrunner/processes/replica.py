"""Support: the process that sends what is committed to the copy elsewhere.

Rules: nobody waits for it: workers commit whether it lives or not, and what it cannot do is a trouble that the web
process tells. It ends after the workers, when it has sent their last commits.
"""

import asyncio
import logging

from fastrunner.base import descriptors, limits
from fastrunner.blobs import open_store
from fastrunner.counts.definitions import Metrics
from fastrunner.processes.child import serve_child
from fastrunner.processes.link import ChildContext
from fastrunner.replica.shipping import Shipper

__all__ = ["Shipping", "run_replica"]

_log = logging.getLogger(__name__)


def run_replica(context: ChildContext) -> int:
    """Sends until SIGTERM; the exit code."""
    descriptors.allow()
    return serve_child(context, _start)


async def _start(context: ChildContext) -> "Shipping":
    config = context.config
    assert config.replica_url is not None, "without it there is no such process"

    def tell(trouble: str) -> None:
        context.link.send("trouble", cause=trouble)

    metrics = Metrics(segment=context.segment)
    return Shipping(Shipper(config.data_dir, config.replica_url, open_store(config.replica_url), metrics, tell))


class Shipping:
    """See child.Running."""

    def __init__(self, shipper: Shipper) -> None:
        self._shipper = shipper
        self._running = asyncio.create_task(shipper.run())
        self._running.add_done_callback(_ended)

    async def drain(self, timeout_s: float) -> None:
        """Sends what is left."""
        self._shipper.stop()
        try:
            timeout_s = min(timeout_s, limits.REPLICA_LAST_TURN_S_MAX)
            async with asyncio.timeout(timeout_s):
                await self._running
        except TimeoutError:
            _log.warning("the copy elsewhere lacks what was committed last: it was not sent within %g s", timeout_s)


def _ended(running: "asyncio.Task[None]") -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        # Nothing else is done here: another process takes its place.
        raise SystemExit(1) from error
