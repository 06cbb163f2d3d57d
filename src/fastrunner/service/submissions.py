"""Stage 1, service: what asks for new executions: ExecuteAsync, and ExecuteAsyncBatch in the caller's order.

The worker that a call reaches accepts it, unless another one has its id, or has far less to do. Theory of operation: an
id that somebody has is asked of that worker, whose answer is the first one again. An id that nobody has is submitted
here, or, when this worker is busy, placed at another in whole requests. Whoever finds at the last moment that somebody
else has just taken the id says Elsewhere, and the worker that the client reached asks again.

Rules: an item that is refused refuses nobody else; items are never decoded by a worker that does not take them; a batch
lets others be served between its turns; what was placed at a worker that dies is asked again, never simply repeated:
it may have been accepted.
"""

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ExecuteAsyncBatchResult,
    Refusal,
    WorkflowExecuteResponse,
)
from fastrunner._pb.fastrunner.router.v1.views_pb2 import ItemsView
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Engine, Submission
from fastrunner.errors import RunnerError, TooLarge, Unavailable, code_of
from fastrunner.progress.wire import field_1
from fastrunner.routing.facts import CallFacts, Later, Router, peek_execution_id
from fastrunner.service.decode import decode_execution, parse
from fastrunner.service.status import reason_in, reason_of, status_of

if TYPE_CHECKING:
    from fastrunner._core import Problem

Results = list[bytes]
"""Encoded ExecuteAsyncBatchResults."""

_ACCEPTED: Final = {
    status: WorkflowExecuteResponse(status=status, message=message).SerializeToString()
    for status, message in (
        ("running", "Workflow execution started in background"),
        ("pending", "Workflow execution accepted; it starts when there is capacity"),
    )
}
"""Fields 2 and 3 of the answer to a submission."""
_REFUSED_TAG: Final = bytes((ExecuteAsyncBatchResult.REFUSED_FIELD_NUMBER << 3 | 2,))
_ELSEWHERE: Final = "ELSEWHERE"
_STOPPING: Final = "STOPPING"
_ASKED_AGAIN: Final = (_ELSEWHERE.encode(), _STOPPING.encode())
"""What an answer has in it, as it is encoded, if any item's refusal has such a reason."""


class Submissions:
    """Has executions accepted, wherever that is."""

    def __init__(self, engine: Engine, router: Router, metrics: Metrics) -> None:
        self._engine = engine
        self._router = router
        self._metrics = metrics
        self._passed_on: set[asyncio.Task[bytes]] = set()

    def execute_async(self, payload: bytes, facts: CallFacts) -> Awaitable[bytes]:
        """Answers ExecuteAsync."""
        if facts.local:
            return self.submit(payload, facts)
        worker = self.worker_for(payload)
        if worker == self._router.worker:
            return self.submit(payload, facts)
        return self.submit_at(worker, payload, facts)

    def worker_for(self, payload: bytes) -> int:
        """The worker that has the execution, or should take it. Raises InvalidRequest."""
        owners = self._router.owners_of(peek_execution_id(payload))
        return owners[0] if owners else self._router.choose(1)

    def submit(self, payload: bytes, facts: CallFacts) -> Later:
        """Accepts one execution here; gives its WorkflowExecuteResponse. Raises RunnerError now or later."""
        try:
            submission = decode_execution(payload, facts.peer)
        except RunnerError as error:
            # The engine counts its own refusals.
            self._metrics.executions_rejected.labels(type(error).__name__).inc()
            raise
        submission.principal = facts.principal
        if facts.received_s:
            submission.trace, submission.received_s, submission.taken_s = facts.trace, facts.received_s, facts.taken_s
        if not facts.local:
            submission.on_elsewhere = partial(self._pass_on, payload, facts)
        return Later(self._engine.submit(submission), partial(_accepted, submission))

    async def submit_at(self, worker: int, payload: bytes, facts: CallFacts) -> bytes:
        """Has another worker accept one execution, or whoever turns out to have it."""
        here = replace(facts, local=True)
        asked = []
        for _ in range(limits.PLACEMENT_ATTEMPTS_MAX):
            asked.append(worker)
            try:
                if worker == self._router.worker:
                    return await self.submit(payload, here)
                return await self._router.forward(worker, "ExecuteAsync", payload, facts)
            except RunnerError as error:
                owners = self._router.owners_of(peek_execution_id(payload))
                is_other = worker != self._router.worker and worker not in owners
                if reason_of(error) != _ELSEWHERE and not (is_other and code_of(error) == Unavailable.grpc_code):
                    raise
            # Several have the hash of an id if one is another's: not the one again that has just said it has it not.
            worker = min(owners, key=asked.count, default=self._router.worker)
        raise Unavailable("several workers are accepting executions with this id: try again")

    def _pass_on(self, payload: bytes, facts: CallFacts, worker: int, future: "Future[Any]") -> None:
        """Has the worker answer that has the id."""
        task = asyncio.ensure_future(self.submit_at(worker, payload, facts))
        self._passed_on.add(task)
        task.add_done_callback(partial(self._passed, future))

    def _passed(self, future: "Future[Any]", task: "asyncio.Task[bytes]") -> None:
        self._passed_on.discard(task)
        error = Unavailable("the worker is stopping: try again") if task.cancelled() else task.exception()
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(WorkflowExecuteResponse.FromString(task.result()).status)


class Batches:
    """Accepts many executions in one call."""

    def __init__(self, router: Router, submissions: Submissions, admit: Callable[[str, int], None]) -> None:
        self._router = router
        self._submissions = submissions
        self._going = asyncio.Lock()
        """Held by the batch whose executions are being submitted; the others follow in the order of their arrival."""
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
            positions = {self._router.worker: list(range(len(items)))}
        else:
            self._admit(facts.peer, len(items))
            positions = self._by_worker(items)
        # Counted before anything else happens: what is chosen for the next batch must know of this one.
        for worker, places in positions.items():
            self._router.assign(worker, len(places))
        try:
            if len(positions) == 1:
                (worker,) = positions
                return await self._part(worker, payload, items, facts)
            return await self._in_parts(positions, items, facts)
        finally:
            for worker, places in positions.items():
                self._router.assign(worker, -len(places))

    async def _in_parts(self, positions: dict[int, list[int]], items: Sequence[bytes], facts: CallFacts) -> bytes:
        """The answer to a batch of which several workers have parts."""
        results = [b""] * len(items)

        async def part(worker: int, places: list[int]) -> None:
            own = [items[at] for at in places]
            reply = await self._part(worker, _encoded(own), own, facts)
            for at, result in zip(places, ItemsView.FromString(reply).items, strict=True):
                results[at] = result

        await asyncio.gather(*(part(worker, places) for worker, places in positions.items()))
        return _encoded(results)

    def _by_worker(self, items: list[bytes]) -> dict[int, list[int]]:
        """Which worker gets which items: whoever has their ids; the new ones stay together."""
        if len(self._router.workers) == 1:
            return {self._router.worker: list(range(len(items)))}
        taker = self._router.choose(len(items))
        if self._router.are_new(items):
            return {taker: list(range(len(items)))}
        positions: dict[int, list[int]] = {}
        for at, item in enumerate(items):
            try:
                owners = self._router.owners_of(peek_execution_id(item))
                worker = owners[0] if owners else taker
            except RunnerError:
                # This worker can refuse it as well as any.
                worker = self._router.worker
            positions.setdefault(worker, []).append(at)
        return positions

    async def _part(self, worker: int, payload: bytes, items: list[bytes], facts: CallFacts) -> bytes:
        """A worker's answer to items, which are what `payload` is made of: it leaves as it came, and so does the answer
        unless something in it is to be asked again."""
        if worker == self._router.worker:
            return _encoded(await self._own(items, facts))
        try:
            reply = await self._router.forward(worker, "ExecuteAsyncBatch", payload, facts)
        except RunnerError as error:
            if code_of(error) != Unavailable.grpc_code:
                return _encoded([_refused(error)] * len(items))
            # It may have accepted some of them before it went away.
            return _encoded([await self._again(item, facts) for item in items])
        if not any(reason in reply for reason in _ASKED_AGAIN):
            return reply
        results = ItemsView.FromString(reply).items
        return _encoded(
            [
                await self._again(item, facts) if _is_to_be_asked_again(result) else result
                for item, result in zip(items, results, strict=True)
            ]
        )

    async def _again(self, item: bytes, facts: CallFacts) -> bytes:
        """One item asked for singly: of whoever has it now, else of this worker."""
        try:
            owners = self._router.owners_of(peek_execution_id(item))
            at = owners[0] if owners else self._router.worker
            return field_1(await self._submissions.submit_at(at, item, facts))
        except Exception as error:
            return _refused(error)

    async def _own(self, items: list[bytes], facts: CallFacts) -> Results:
        """Submits everything, then waits: the executions of one batch share their commits.

        Batches that are here at once go one after the other, not all at the same time: so the first is answered, and
        the next one under way, while the second is executed. A long one, or one whose executions take their time, lets
        others go in between.
        """
        pending: list[Later | bytes] = []
        while len(pending) < len(items):
            async with self._going:
                await self._go(items, facts, pending)
        # One after the other: a commit decides on many, so this hardly ever has to wait.
        return [each if isinstance(each, bytes) else await _result(each) for each in pending]

    async def _go(self, items: Sequence[bytes], facts: CallFacts, pending: list[Later | bytes]) -> None:
        """Submits items that are still to come, in turns of the loop, and adds what decides on each."""
        pause_turns = limits.BATCH_PAUSE_TURNS if len(self._router.workers) > 1 else 1
        began_s = monotonic_s()
        for item in items[len(pending) : len(pending) + limits.BATCH_EXECUTIONS_PER_GO]:
            try:
                pending.append(self._submissions.submit(item, facts))
            except Exception as error:
                pending.append(_refused(error))
            is_long = monotonic_s() - began_s > limits.BATCH_TURN_S_MAX
            if is_long or len(pending) % limits.BATCH_EXECUTIONS_PER_TURN_MAX == 0:
                for _ in range(pause_turns):
                    await asyncio.sleep(0)
                began_s = monotonic_s()
            if is_long:
                return


async def _result(later: Later) -> bytes:
    """The item of an execution, once it has been decided on."""
    try:
        # As a message whose field 1 is one message, which `accepted` is.
        return field_1(await later)
    except Exception as error:
        return _refused(error)


def _accepted(submission: Submission, status: str) -> bytes:
    reply = field_1(submission.execution_id.encode()) + _ACCEPTED[status]
    if submission.temporal_workflow_id:
        workflow_id = submission.temporal_workflow_id
        reply += WorkflowExecuteResponse(temporal_workflow_id=workflow_id).SerializeToString()
    return reply + _warned(submission.warnings) if submission.warnings else reply


def _warned(warnings: "Sequence[Problem]") -> bytes:
    """Warnings as fields of a WorkflowExecuteResponse."""
    return WorkflowExecuteResponse(warnings=warning_lines(warnings)).SerializeToString()


def warning_lines(warnings: "Sequence[Problem]") -> list[str]:
    """Warnings as lines, as many as fit a reply; the last one counts those that do not."""
    lines: list[str] = []
    room_bytes = limits.REPLY_WARNINGS_SIZE_BYTES_MAX
    for warning in warnings:
        line = f"{warning.line}:{warning.column}: {warning.code}: {warning.message}"
        room_bytes -= len(line.encode())
        if room_bytes < 0:
            lines.append(f"{len(warnings) - len(lines)} more warnings: ValidateWorkflow lists them all")
            break
        lines.append(line)
    return lines


def _refused(error: Exception) -> bytes:
    status = status_of(error, limits.BATCH_STATUS_DETAILS_SIZE_BYTES_MAX)
    refused = Refusal(code=status.code, message=status.message, details=status.details)
    return ExecuteAsyncBatchResult(refused=refused).SerializeToString()


def _encoded(items: Results) -> bytes:
    return ItemsView(items=items).SerializeToString()


def _is_to_be_asked_again(result: bytes) -> bool:
    """Whether an item's answer is that another worker has its id, or only that the one it was placed at is stopping."""
    if result[:1] != _REFUSED_TAG:
        return False
    return reason_in(ExecuteAsyncBatchResult.FromString(result).refused.details) in (_ELSEWHERE, _STOPPING)
