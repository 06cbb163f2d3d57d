"""Support: recorded executions on their way to the runner: in batches, again and again until it has said yes or no.

    record (durable) -> launch -> ExecuteAsyncBatch -> launched (durable)

Theory of operation: the id and the request are made and kept before the first call. The runner tells a repetition by
both, so it is called as often as need be: after a call whose answer is lost, and after a death of this service anywhere
between the record and the note of the answer, for which the next start looks.

Rules: what the runner refuses for good is noted, and the execution has failed; what it cannot take now, and where it
does not answer, is asked again, after a pause that grows. Whoever waits for an answer may leave.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ExecuteAsyncBatchResult
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import Refusal as RefusedMessage
from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.counts.definitions import StigmerMetrics
from fastrunner.errors import AtCapacity, RunnerError, code_of
from fastrunner.stigmer.ending import ended
from fastrunner.stigmer.runner import RunnerClient
from fastrunner.stigmer.store import Refusal, Store, Unlaunched

__all__ = ["Launches"]

_log = logging.getLogger(__name__)
_FOR_GOOD: Final = frozenset({3, 5, 6, 9, 11, 12})
"""INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED: asking again is of no
use."""
_RESOURCE_EXHAUSTED: Final = 8
_RETRY: Final = "type.googleapis.com/google.rpc.RetryInfo"
"""What the runner says with it where it may take the same later; without, something is too large."""


@dataclass(slots=True)
class _Launch:
    execution_id: str
    request: bytes
    outcome: "asyncio.Future[Refusal | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Launches:
    """Those of one service; made and used on one loop."""

    def __init__(
        self, store: Store, runner: RunnerClient, metrics: StigmerMetrics, tell: Callable[[str], object], *,
        is_shared: bool = False,
    ) -> None:  # fmt: skip
        """`tell` hears of each execution that the runner has answered about, once that is kept; `is_shared`: others
        record executions in the same store, and may leave them."""
        self._store = store
        self._is_shared = is_shared
        self._tell = tell
        self._runner = runner
        self._metrics = metrics
        self._waiting: deque[_Launch] = deque()
        self._under_way: dict[str, _Launch] = {}
        """Waiting or being sent, by id: nothing is sent twice at once."""
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins, with what an earlier process has recorded and not launched."""
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._load())]

    async def close(self) -> None:
        """Sends nothing more; what is recorded waits for the next start."""
        await ended(*self._tasks)

    def check_room(self) -> None:
        """Raises AtCapacity where as many executions wait for the runner as may."""
        if len(self._under_way) >= limits.STIGMER_LAUNCHES_WAITING_MAX:
            raise AtCapacity(f"{len(self._under_way)} executions wait for the runner, and no more may: try again later")

    async def launch(self, execution_id: str, request: bytes, timeout_s: float) -> tuple[bool, Refusal | None]:
        """Has a recorded execution started; whether the runner has answered in time, and why it does not want it."""
        launch = self._add(execution_id, request)
        try:
            return True, await asyncio.wait_for(asyncio.shield(launch.outcome), timeout_s)
        except TimeoutError:
            return False, None

    def _add(self, execution_id: str, request: bytes) -> _Launch:
        launch = self._under_way.get(execution_id)
        if launch is None:
            launch = self._under_way[execution_id] = _Launch(execution_id, request)
            self._waiting.append(launch)
            self._metrics.launches_waiting.set(len(self._under_way))
            self._more.set()
        return launch

    async def _load(self) -> None:
        """Takes up what is recorded and not launched, while there is room; of a store that others use as well, again
        and again, what was so the time before, too: whoever recorded it has had time enough."""
        before: set[int] | None = None
        while True:
            try:
                before = await self._look(before)
            except RunnerError as error:
                _log.error("what is to be started cannot be read: %s", error)
            else:
                if not self._is_shared:
                    return
            await asyncio.sleep(limits.STIGMER_LAUNCH_LOOK_INTERVAL_S)

    async def _look(self, before: set[int] | None) -> set[int]:
        """Takes up those of `before`, None: all; gives the numbers of all that there are."""
        there: set[int] = set()
        after = 0
        while recorded := await self._store.unlaunched(after, limits.STIGMER_LAUNCH_BATCH_MAX):
            for each in recorded:
                there.add(each.number)
                if before is None or each.number in before:
                    await self._take_up(each)
            after = recorded[-1].number
        return there

    async def _take_up(self, recorded: Unlaunched) -> None:
        while len(self._under_way) >= limits.STIGMER_LAUNCHES_WAITING_MAX:
            self._room.clear()
            await self._room.wait()
        if recorded.request:
            self._add(recorded.id, recorded.request)

    async def _work(self) -> None:
        pause_s = limits.STIGMER_LAUNCH_PAUSE_S_MIN
        while True:
            await self._more.wait()
            batch = self._batch()
            if not batch:
                self._more.clear()
                continue
            try:
                again = await self._send(batch)
            except Exception:
                _log.exception("executions could not be sent to the runner")
                again = [launch for launch in batch if launch.execution_id in self._under_way]
            if not again:
                pause_s = limits.STIGMER_LAUNCH_PAUSE_S_MIN
                continue
            # Behind the others: what is not taken now keeps none of them away.
            self._waiting.extend(again)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, limits.STIGMER_LAUNCH_PAUSE_S_MAX)

    def _batch(self) -> list[_Launch]:
        batch: list[_Launch] = []
        size_bytes = 0
        while self._waiting and len(batch) < limits.STIGMER_LAUNCH_BATCH_MAX:
            size_bytes += len(self._waiting[0].request)
            if batch and size_bytes > limits.STIGMER_LAUNCH_BATCH_SIZE_BYTES_MAX:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send(self, batch: list[_Launch]) -> list[_Launch]:
        """Sends a batch; gives those that are to be sent again."""
        try:
            results = await self._runner.execute([launch.request for launch in batch])
        except RunnerError as error:
            refusal = Refusal(code_of(error), error.message)
            if len(batch) > 1 and refusal.code in _FOR_GOOD | {_RESOURCE_EXHAUSTED}:
                # It is about one of them, or about how much they are together.
                return [again for launch in batch for again in await self._send([launch])]
            if refusal.code in _FOR_GOOD:
                return await self._note(batch[0], refusal)
            self._say(error.message)
            return batch
        again: list[_Launch] = []
        for launch, result in zip(batch, results, strict=False):
            if result.HasField("refused") and not _is_for_good(result.refused):
                self._say(result.refused.message)
                again.append(launch)
                continue
            again += await self._note(launch, _refusal_of(result))
        return [*again, *batch[len(results) :]]

    async def _note(self, launch: _Launch, refusal: Refusal | None) -> list[_Launch]:
        """Keeps what the runner has said of one; gives it if it is to be sent again."""
        try:
            await self._store.launched(launch.execution_id, refusal, wall_ms())
        except RunnerError as error:
            # Asked again, the runner says the same.
            _log.error(
                "what the runner has said cannot be kept: %s", error, extra={"execution_id": launch.execution_id}
            )
            return [launch]
        self._tell(launch.execution_id)
        self._metrics.launches.labels("accepted" if refusal is None else "refused").inc()
        self._under_way.pop(launch.execution_id, None)
        self._room.set()
        self._metrics.launches_waiting.set(len(self._under_way))
        launch.outcome.set_result(refusal)
        return []

    def _say(self, words: str) -> None:
        self._metrics.launches.labels("again").inc()
        _log.warning("the runner does not take an execution now, and is asked again: %s", words)


def _is_for_good(refused: RefusedMessage) -> bool:
    if refused.code == _RESOURCE_EXHAUSTED:
        return all(detail.type_url != _RETRY for detail in refused.details)
    return refused.code in _FOR_GOOD


def _refusal_of(result: ExecuteAsyncBatchResult) -> Refusal | None:
    if result.HasField("refused"):
        return Refusal(result.refused.code, result.refused.message)
    return None
