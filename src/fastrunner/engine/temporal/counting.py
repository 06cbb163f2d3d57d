"""Stage 3, journal: what workflows count: executions accepted and finished, tasks ended; and how many are open.

Rules: a replay counts nothing. A turn is counted when it is taken, which is a moment before Temporal has it: a worker
that is lost in between has it counted once more by another one. Workflows run in threads, and metrics belong to the
loop. How many are open is Temporal's to know: one worker of a replica asks visibility, which is a moment behind.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from temporalio import workflow
from temporalio.service import RPCError
from temporalio.worker import Interceptor, WorkflowInboundInterceptor, WorkflowInterceptorClassInput

from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.tallies import TaskSums
from fastrunner.engine.temporal.client import Connection
from fastrunner.engine.temporal.messages import WALK
from fastrunner.engine.temporal.schedule_messages import SCHEDULE
from fastrunner.engine.temporal.visibility import ANSWER, open_of

__all__ = ["OpenCounts", "WalkCounts", "count"]

_COUNT: Final = "fastrunner.count"


class WalkCounts(Interceptor):
    """Counts for the workflows of one worker. Construct it on the worker's loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sums = TaskSums(metrics)
        self._loop = asyncio.get_running_loop()

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """See Interceptor; nothing is intercepted."""
        input.unsafe_extern_functions[_COUNT] = self._count_soon
        return None

    def accepted(self) -> None:
        """An execution has been accepted. Call on the loop."""
        self._metrics.executions_accepted.inc()

    def untold(self, count: int) -> None:
        """A lifecycle sink was away for too long. Call on the loop."""
        self._metrics.lifecycle_events.labels("dropped").inc(count)

    def _count_soon(self, counted: Callable[["WalkCounts"], None]) -> None:
        # A worker that is about to end counts no more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(counted, self)

    def turn(self, tally: bytes, status: str, duration_ms: int) -> None:
        """A turn has been taken; `status`: that of an execution which it has ended, else empty. Call on the loop."""
        if tally:
            self._sums.add(tally)
            for at, amount in self._sums.take():
                self._metrics.values[at] += amount
        if status:
            self._metrics.executions_finished.labels(status).inc()
            self._metrics.execution_duration.labels(status).observe(duration_ms / 1000)


def count(counted: Callable[[WalkCounts], Any]) -> None:
    """Call in a workflow: has its worker count something, unless this is a replay."""
    count_soon = workflow.extern_functions().get(_COUNT)
    if count_soon is not None and not workflow.unsafe.is_replaying():
        count_soon(counted)


class OpenCounts:
    """Shows how many executions and schedules of a task queue there are, whichever replica took them."""

    def __init__(self, connection: Connection, task_queue: str, metrics: Metrics) -> None:
        self._connection = connection
        self._shown = (
            (open_of(WALK, task_queue), metrics.active_executions),
            (open_of(SCHEDULE, task_queue), metrics.schedules),
        )
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Asks from now on."""
        self._work = asyncio.create_task(self._ask_for_ever())

    async def close(self) -> None:
        """Asks no more; another worker shows the same."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        for _, gauge in self._shown:
            gauge.set(0)

    async def _ask_for_ever(self) -> None:
        while True:
            # Where Temporal does not answer the latest numbers stay; other requests tell why.
            with contextlib.suppress(RPCError):
                for wanted, gauge in self._shown:
                    found = await self._connection.client.count_workflows(wanted, rpc_timeout=ANSWER)
                    gauge.set(found.count)
            await asyncio.sleep(limits.TEMPORAL_COUNT_INTERVAL_S)
