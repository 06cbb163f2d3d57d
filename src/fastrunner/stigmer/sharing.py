"""Support: what a service does about others that use the same store: hears of them by Redis, and looks itself.

What a service leaves half-done, whichever of them is there finishes.

Rules: only executions that are followed are looked at, many at once; who knows as much already hears nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastrunner.base import limits
from fastrunner.base.extras import stigmer_refusal
from fastrunner.counts.definitions import StigmerMetrics
from fastrunner.errors import RunnerError
from fastrunner.stigmer.counted import count_taken
from fastrunner.stigmer.ending import ended
from fastrunner.stigmer.followers import Followers
from fastrunner.stigmer.opening import CannotServe
from fastrunner.stigmer.store import SharedStore, Store, Told

__all__ = ["sharing"]

if TYPE_CHECKING:
    from fastrunner.stigmer.fanout import RedisFanout

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def sharing(
    store: Store, redis_url: str | None, followers: Followers, metrics: StigmerMetrics, *, publishes: bool
) -> AsyncIterator[None]:
    """Does what is needed while the context is open: nothing, for a store that is this service's alone. Raises
    CannotServe."""
    if not isinstance(store, SharedStore):
        yield
        return
    async with contextlib.AsyncExitStack() as stack:
        if redis_url is not None:
            fanout = _fanout(redis_url, followers, metrics, publishes=publishes)
            fanout.start()
            stack.push_async_callback(fanout.close)
        sweeping = asyncio.create_task(_keep_sweeping(store, followers, metrics))
        settling = asyncio.create_task(_keep_settling(store, followers, metrics))
        stack.push_async_callback(ended, sweeping, settling)
        yield


def _fanout(url: str, followers: Followers, metrics: StigmerMetrics, *, publishes: bool) -> "RedisFanout":
    if refusal := stigmer_refusal():
        raise CannotServe(f"FASTRUNNER_STIGMER_REDIS_URL is set, and {refusal}")
    # Only whoever has the extra can import it.
    from fastrunner.stigmer.fanout import RedisFanout

    try:
        return RedisFanout(url, followers, metrics, publishes=publishes)
    except ValueError as error:
        raise CannotServe(f"FASTRUNNER_STIGMER_REDIS_URL {error}") from None


async def _keep_sweeping(store: SharedStore, followers: Followers, metrics: StigmerMetrics) -> None:
    """Again and again, until cancelled."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.STIGMER_FOLLOWED_INTERVAL_S):
                await followers.is_anew.wait()
        followers.is_anew.clear()
        try:
            metrics.followers_late.inc(await _sweep(store, followers))
        except RunnerError as error:
            _log.warning("what is followed cannot be looked at: %s", error.message)


async def _keep_settling(store: SharedStore, followers: Followers, metrics: StigmerMetrics) -> None:
    """Again and again, until cancelled."""
    while True:
        await asyncio.sleep(limits.STIGMER_SETTLE_INTERVAL_S)
        try:
            settled = await store.settle()
        except RunnerError as error:
            _log.warning("what is left half-done cannot be finished: %s", error.message)
            continue
        metrics.executions_settled.inc(len(settled.told))
        count_taken(metrics, settled)
        followers.tell(settled.told)


async def _sweep(store: SharedStore, followers: Followers) -> int:
    """How many executions showed more than their followers had been told."""
    followed = followers.followed()
    late = 0
    for first in range(0, len(followed), limits.STIGMER_FOLLOWED_BATCH_MAX):
        ids = followed[first : first + limits.STIGMER_FOLLOWED_BATCH_MAX]
        found = await store.last_sequences(ids)
        told = [Told(each, last) for each, last in found.items() if last > followers.told_of(each)]
        late += sum(followers.told_of(each.execution_id) > 0 for each in told)
        followers.hear(told)
    return late
