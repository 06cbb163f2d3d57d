"""Stage 5, tasks: descriptions for calls: kept while they are fresh, asked for by their validators when they are not.

    get -> kept and fresh -> the text
        \\-> one request for all who ask for the same -> not changed, or a new text -> kept

Rules: who stops waiting ends nobody else's request; when nobody waits any more the request ends, too. What failed is
asked again by whoever comes next. What a server wants nobody to keep is shared by those alone who asked at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.counts.definitions import Metrics
from fastrunner.resources.freshness import Freshness
from fastrunner.resources.kept import Kept, KeptDescriptions
from fastrunner.resources.refusals import Answer, Unresolved
from fastrunner.tasks.descriptions import Description

__all__ = ["DescribedTexts"]

Fetch = Callable[[str, Mapping[str, Any] | None, Kept | None], Awaitable[Answer]]
"""Asks for what is at a URL with a policy; what is kept of it is asked for by its validators. Raises Unresolved."""


@dataclass(slots=True, eq=False)
class _Flight:
    """One request, and those who wait for it."""

    task: "asyncio.Task[Description]"
    waiting: int = 0


class DescribedTexts:
    """The descriptions of one worker."""

    def __init__(self, fetch: Fetch, metrics: Metrics) -> None:
        self._fetch = fetch
        self._counts = metrics.descriptions
        self._kept = KeptDescriptions()
        self._flights: dict[bytes, _Flight] = {}

    async def get(self, url: str, policy: Mapping[str, Any] | None) -> Description:
        """What is at a URL, for who asks with a policy. Raises Unresolved."""
        key = self._kept.key_of(url, policy)
        kept = self._kept.find(key)
        if kept is not None and monotonic_s() < kept.fresh_until_s:
            self._counts.labels("kept").inc()
            return kept.description
        flight = self._flights.get(key)
        if flight is None:
            loop = asyncio.get_running_loop()
            flight = self._flights[key] = _Flight(loop.create_task(self._flown(key, url, policy, kept)))
        else:
            self._counts.labels("shared").inc()
        return await self._awaited(key, flight)

    async def close(self) -> None:
        """Ends the requests."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _awaited(self, key: bytes, flight: _Flight) -> Description:
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.task.cancelled() and not _is_cancelled():
                raise Unresolved("the worker is stopping", is_transient=True) from None
            raise
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                self._forget(key, flight.task)

    async def _flown(self, key: bytes, url: str, policy: Mapping[str, Any] | None, kept: Kept | None) -> Description:
        began_s = monotonic_s()
        outcome = "failed"
        try:
            async with asyncio.timeout(limits.RESOURCES_FETCH_S_MAX):
                answer = await self._fetch(url, policy, kept)
            fresh = await self._taken(answer, kept, began_s)
            if fresh.freshness.is_storable:
                self._kept.keep(key, fresh)
            else:
                self._kept.drop(key)
            outcome = "fetched" if answer.body is not None else "unchanged"
            return fresh.description
        except TimeoutError:
            late = f"no complete answer within {limits.RESOURCES_FETCH_S_MAX:g} s"
            raise Unresolved(late, is_transient=True) from None
        finally:
            self._counts.labels(outcome).inc()
            current = asyncio.current_task()
            if current is not None:
                self._forget(key, current)

    async def _taken(self, answer: Answer, kept: Kept | None, began_s: float) -> Kept:
        """What an answer makes of what there was. Raises Unresolved."""
        if answer.body is None:
            if kept is None:
                raise Unresolved("the server says that it has not changed, but was not asked", status=304)
            description, freshness = kept.description, kept.freshness.renewed(answer.headers)
        else:
            description = await described(answer.url, answer.body)
            freshness = Freshness.of(answer.headers)
        return Kept(description, freshness, began_s + freshness.fresh_s(wall_ms()))

    def _forget(self, key: bytes, task: "asyncio.Task[Any]") -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def described(url: str, body: bytes) -> Description:
    """A body as a description. Raises Unresolved."""
    if len(body) > limits.RESOURCE_SIZE_BYTES_MAX:
        # In a thread: the loop serves others meanwhile.
        return await asyncio.to_thread(_described, url, body)
    return _described(url, body)


def _described(url: str, body: bytes) -> Description:
    return Description(url, decoded(body), sha256(body).digest())


def decoded(body: bytes) -> str:
    """A body's text, without a byte order mark. Raises Unresolved."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unresolved("what is there is no text in UTF-8") from None
