"""Stage 1, service: ExecuteAsyncBatch, split by owner and put together in the caller's order.

Rules: an item that is refused refuses nobody else; items are never decoded by a worker that does not own them; a batch
lets others be served between its turns.
"""

import asyncio
from collections.abc import Callable, Sequence

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ExecuteAsyncBatchResult
from fastrunner._pb.fastrunner.router.v1.views_pb2 import ItemsView
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.errors import RunnerError, TooLarge
from fastrunner.progress.wire import field_1
from fastrunner.routing.facts import CallFacts, Later, Router, peek_execution_id
from fastrunner.service.decode import parse
from fastrunner.service.status import status_of

Results = list[bytes]
"""Encoded ExecuteAsyncBatchResults."""


class Batches:
    """Accepts many executions in one call."""

    def __init__(
        self,
        router: Router,
        submit: Callable[[bytes, str], Later],
        admit: Callable[[str, int], None],
    ) -> None:
        self._router = router
        self._submit = submit
        """Accepts one encoded WorkflowExecuteInput of a client; gives its encoded WorkflowExecuteResponse."""
        self._admit = admit
        """Raises AtCapacity if so many executions of a client are too many now."""

    async def execute(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers ExecuteAsyncBatch. Raises InvalidRequest, TooLarge, AtCapacity for the batch as a whole."""
        items = list(parse(ItemsView, payload).items)
        if len(items) > limits.BATCH_EXECUTIONS_MAX:
            raise TooLarge(
                f"executions has {len(items)} items: at most {limits.BATCH_EXECUTIONS_MAX} are allowed in one batch"
            )
        if facts.local:
            return _encoded(await self._own(items, facts.peer))
        self._admit(facts.peer, len(items))
        positions = self._by_owner(items)
        parts = await asyncio.gather(
            *(self._part(owner, [items[at] for at in places], facts) for owner, places in positions.items())
        )
        results = [b""] * len(items)
        for places, part in zip(positions.values(), parts, strict=True):
            for at, result in zip(places, part, strict=True):
                results[at] = result
        return _encoded(results)

    def _by_owner(self, items: Sequence[bytes]) -> dict[int, list[int]]:
        if len(self._router.workers) == 1:
            return {self._router.worker: list(range(len(items)))}
        positions: dict[int, list[int]] = {}
        for at, item in enumerate(items):
            try:
                owner = self._router.owner_of(peek_execution_id(item))
            except RunnerError:
                # This worker can refuse it as well as any.
                owner = self._router.worker
            positions.setdefault(owner, []).append(at)
        return positions

    async def _part(self, owner: int, items: list[bytes], facts: CallFacts) -> Results:
        if owner == self._router.worker:
            return await self._own(items, facts.peer)
        payload = ItemsView(items=items).SerializeToString()
        try:
            reply = await self._router.forward(owner, "ExecuteAsyncBatch", payload, facts.peer, facts.deadline_ms)
        except RunnerError as error:
            return [_refused(error)] * len(items)
        return list(ItemsView.FromString(reply).items)

    async def _own(self, items: list[bytes], client: str) -> Results:
        """Submits everything, then waits: the executions of one batch share their commits."""
        pending: list[Later | bytes] = []
        began_s = monotonic_s()
        for item in items:
            try:
                pending.append(self._submit(item, client))
            except Exception as error:
                pending.append(_refused(error))
            is_long = monotonic_s() - began_s > limits.BATCH_TURN_S_MAX
            if is_long or len(pending) % limits.BATCH_EXECUTIONS_PER_TURN_MAX == 0:
                await asyncio.sleep(0)
                began_s = monotonic_s()
        # One after the other: a commit decides on many, so this hardly ever has to wait.
        return [each if isinstance(each, bytes) else await _result(each) for each in pending]


async def _result(later: Later) -> bytes:
    """The item of an execution, once it has been decided on."""
    try:
        # As a message whose field 1 is one message, which `accepted` is.
        return field_1(await later)
    except Exception as error:
        return _refused(error)


def _refused(error: Exception) -> bytes:
    refused = status_of(error, limits.BATCH_STATUS_DETAILS_SIZE_BYTES_MAX)
    return ExecuteAsyncBatchResult(refused=refused).SerializeToString()


def _encoded(results: Results) -> bytes:
    return ItemsView(items=results).SerializeToString()
