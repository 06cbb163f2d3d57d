"""Stage 1, service: SubscribeAll: the feeds of all workers as one stream.

Theory of operation: each worker follows its own shards; whoever is asked has a stream of each and passes on what comes.
A cursor has a position for every shard, so any worker can go on from it. Where a worker is replaced its successor is
asked from where it stood.

Rules: nothing is told before every worker has said where it stands, because only then has a cursor all of them. Of each
worker one message waits at most: a client that does not read keeps nothing but its own stream.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import StateChange, SubscribeAllRequest
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine import Engine, FeedItem
from fastrunner.errors import InvalidRequest, RunnerError, Unavailable, code_of
from fastrunner.progress.names import STATUSES
from fastrunner.routing.facts import CallFacts, Router
from fastrunner.service.decode import parse

__all__ = ["Feed"]

_INT64_MAX: Final = 2**63 - 1


class Feed:
    """Answers SubscribeAll."""

    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        self._router = router

    async def subscribe_all(self, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        """The stream. Raises InvalidRequest, Unavailable."""
        request = parse(SubscribeAllRequest, payload)
        unknown = [status for status in request.statuses if status not in STATUSES]
        if unknown:
            raise InvalidRequest("statuses", f"statuses has {unknown[0]!r}: allowed are {', '.join(STATUSES)}")
        positions = _positions(request.cursor)
        changes = self._own(request, positions, facts) if facts.local else self._merged(request, positions, facts)
        async with contextlib.aclosing(changes):
            async for change in changes:
                yield change.SerializeToString()

    async def _own(
        self, request: SubscribeAllRequest, positions: Mapping[int, int], facts: CallFacts
    ) -> AsyncGenerator[StateChange, None]:
        """What becomes of this worker's executions."""
        namespaces = None if facts.principal is None else facts.principal.namespaces
        async with contextlib.aclosing(self._engine.feed.follow(positions)) as items:
            async for item in items:
                yield _message(item, request, namespaces)

    async def _merged(
        self, request: SubscribeAllRequest, positions: dict[int, int], facts: CallFacts
    ) -> AsyncGenerator[StateChange, None]:
        """What becomes of everybody's."""
        queue: asyncio.Queue[StateChange | RunnerError] = asyncio.Queue(maxsize=len(self._router.workers))
        pumps = [_Pump(self._stream_of(worker), request, facts, queue) for worker in self._router.workers]
        try:
            first = [await pump.first for pump in pumps]
            for change in first:
                positions |= _positions(change.cursor)
            yield StateChange(cursor=_cursor(positions), missed=any(change.missed for change in first))
            for pump in pumps:
                pump.may_go_on.set()
            told_s = monotonic_s()
            while True:
                change = _sound(await queue.get())
                positions |= _positions(change.cursor)
                change.cursor = _cursor(positions)
                is_due = monotonic_s() - told_s >= limits.FEED_CURSOR_INTERVAL_S
                if change.execution_id or change.missed or is_due:
                    yield change
                    told_s = monotonic_s()
        finally:
            for pump in pumps:
                pump.task.cancel()
            await asyncio.gather(*(pump.task for pump in pumps), return_exceptions=True)

    def _stream_of(self, worker: int) -> "_Open":
        """Opens the stream of one worker."""
        if worker == self._router.worker:
            return lambda request, facts: self._own(request, _positions(request.cursor), facts)
        return lambda request, facts: self._forwarded(worker, request, facts)

    async def _forwarded(
        self, worker: int, request: SubscribeAllRequest, facts: CallFacts
    ) -> AsyncGenerator[StateChange, None]:
        payload = request.SerializeToString()
        async with contextlib.aclosing(self._router.forward_stream(worker, "SubscribeAll", payload, facts)) as messages:
            async for message in messages:
                yield StateChange.FromString(message)


_Open = Callable[[SubscribeAllRequest, CallFacts], AsyncGenerator[StateChange, None]]


class _Pump:
    """The stream of one worker, and of its successors."""

    def __init__(
        self,
        open_stream: _Open,
        request: SubscribeAllRequest,
        facts: CallFacts,
        queue: "asyncio.Queue[StateChange | RunnerError]",
    ) -> None:
        self.first: asyncio.Future[StateChange] = asyncio.get_running_loop().create_future()
        """Where the worker stands."""
        self.may_go_on = asyncio.Event()
        """Set when what follows may be told."""
        self._open_stream = open_stream
        self._request = SubscribeAllRequest()
        self._request.CopyFrom(request)
        self._facts = facts
        self._queue = queue
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            opened_s, told_count = monotonic_s(), 0
            try:
                async with contextlib.aclosing(self._open_stream(self._request, self._facts)) as changes:
                    async for change in changes:
                        await self._tell(change, is_opening=not told_count)
                        told_count += 1
            except RunnerError as error:
                broke_early = monotonic_s() - opened_s < limits.SUBSCRIPTION_RESUME_INTERVAL_S_MIN
                if code_of(error) != Unavailable.grpc_code or (broke_early and not told_count):
                    await self._fail(error)
                    return

    async def _tell(self, change: StateChange, *, is_opening: bool) -> None:
        self._request.cursor = change.cursor
        if not self.first.done():
            self.first.set_result(change)
            await self.may_go_on.wait()
        elif change.missed or not is_opening:
            # Where a successor stands is where its predecessor stood.
            await self._queue.put(change)

    async def _fail(self, error: RunnerError) -> None:
        if self.first.done():
            await self._queue.put(error)
        else:
            self.first.set_exception(error)


def _sound(change: StateChange | RunnerError) -> StateChange:
    if isinstance(change, RunnerError):
        raise change
    return change


def _message(item: FeedItem, request: SubscribeAllRequest, namespaces: frozenset[str] | None) -> StateChange:
    """An item as the stream has it: without the change where that is none of those asked for."""
    message = StateChange(cursor=_cursor(item.positions), missed=item.missed)
    change = item.change
    if change is None:
        return message
    definition = change.definition
    wanted = (
        request.workflow_namespace in ("", definition.namespace)
        and request.workflow_name in ("", definition.name)
        and request.workflow_version in ("", definition.version)
        and (not request.statuses or change.status in request.statuses)
        and (namespaces is None or definition.namespace in namespaces)
    )
    if wanted:
        message.execution_id, message.status = change.execution_id, change.status
        message.workflow_namespace, message.workflow_name = definition.namespace, definition.name
        message.workflow_version = definition.version
        message.timestamp_ms, message.sequence_number = change.at_ms, change.sequence
    return message


def _cursor(positions: Mapping[int, int]) -> str:
    return ",".join(f"{shard}:{position}" for shard, position in sorted(positions.items()))


def _positions(cursor: str) -> dict[int, int]:
    """Raises InvalidRequest for what is no cursor."""
    positions: dict[int, int] = {}
    try:
        for part in cursor.split(",") if cursor else ():
            shard, position = map(int, part.split(":"))
            positions[shard] = position
    except ValueError:
        positions = {-1: -1}
    is_bounded = all(shard >= 0 and 0 <= position <= _INT64_MAX for shard, position in positions.items())
    if not is_bounded or _cursor(positions) != cursor:
        raise InvalidRequest("cursor", "cursor is none that SubscribeAll gave")
    return positions
