"""Stage 6, events: what becomes of one execution, for lifecycle sinks: from its workflow, and from one that follows it.

    events of turns -> for each sink an activity, one after the other -> the workflow ends
                    -> `<execution>~lifecycle` has what all sinks lack -> activities, until they have it

Rules: those of `workflow`. No execution waits for a sink, and no sink for another one. What a sink lacks is there as
long as the execution holds it for queries, and for seven days after its end.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, CancelledError

from fastrunner.base import limits
from fastrunner.engine.temporal.beside import Beside
from fastrunner.engine.temporal.counting import WalkCounts, count
from fastrunner.engine.temporal.messages import packed, unpacked
from fastrunner.engine.temporal.reporting import Report

__all__ = ["TELL", "TELL_REST", "TellOrder", "TellWorkflow", "Telling", "tell_id_of"]

TELL_REST: Final = "fastrunner.Tell"
"""The type of workflow that tells lifecycle sinks what an execution has left."""
TELL: Final = "fastrunner.tell"
"""The activity that sends the lifecycle to a sink."""
_TIMEOUT: Final = timedelta(seconds=limits.TEMPORAL_EFFECT_S_MAX)
_KEPT: Final = timedelta(seconds=limits.OUTBOX_AGE_S_MAX)
_HEARTBEAT: Final = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S)
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(seconds=limits.EVENT_SINK_PAUSE_S_MIN),
    maximum_interval=timedelta(seconds=limits.EVENT_SINK_PAUSE_S_MAX),
)


def tell_id_of(execution_id: str) -> str:
    """The id of the workflow that tells what an execution has left."""
    return f"{execution_id}~lifecycle"


@dataclass(frozen=True)
class TellStart:
    """The input of the workflow that tells what is left."""

    document: list[str]
    """Namespace, name and version of the execution's document."""
    events: str
    """The latest events, packed."""
    last: int
    """Sequence number of the last of them."""
    told: dict[str, int]
    """By sink: the sequence number up to which it has been told."""


@dataclass(frozen=True)
class TellOrder:
    """Events for a sink."""

    name: str
    """Which sink."""
    document: list[str]
    """Namespace, name and version of the execution's document."""
    events: str
    """In order, packed."""
    missing_count: int
    """Events before them that are not there any more."""


class Telling:
    """What the lifecycle sinks have been told of one execution."""

    def __init__(self, report: Report, document: list[str], told: Mapping[str, int], beside: Beside) -> None:
        """`report` has the events; `beside` does what nobody waits for."""
        self.told = dict(told)
        """By sink: the sequence number up to which it has been told."""
        self._report = report
        self._document = document
        self._beside = beside
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def is_behind(self) -> bool:
        """Whether some sink has not been told everything."""
        return any(told < self._report.last for told in self.told.values())

    def tell(self) -> None:
        """Has each sink told that is not being told."""
        for name, told in self.told.items():
            if told < self._report.last and name not in self._tasks:
                self._tasks[name] = self._beside.begin(self._tell(name))

    async def _tell(self, name: str) -> None:
        while (told := self.told[name]) < self._report.last:
            first = max(told + 1, self._report.first)
            messages = self._report.page(first, limits.EVENT_SINK_BATCH_COUNT_MAX)
            try:
                sent: int = await workflow.execute_activity(
                    TELL,
                    TellOrder(name, self._document, packed(messages), first - told - 1),
                    result_type=int,
                    schedule_to_close_timeout=_KEPT,
                    start_to_close_timeout=_TIMEOUT,
                    heartbeat_timeout=_HEARTBEAT,
                    retry_policy=_RETRY,
                    summary=f"lifecycle from {first} on",
                )
            except ActivityError as error:
                if isinstance(error.cause, CancelledError):
                    # Another workflow goes on with it.
                    return
                # It has been away for too long.
                lost_count = self._report.last - told
                count(partial(WalkCounts.untold, count=lost_count))
                self.told[name] = self._report.last
            else:
                self.told[name] = first + sent - 1
        del self._tasks[name]

    async def hand_over(self, execution_id: str) -> None:
        """Has another workflow tell what is left."""
        for task in self._tasks.values():
            # What it sends is sent again.
            task.cancel()
        start = TellStart(self._document, packed(self._report.held()), self._report.last, self.told)
        await workflow.start_child_workflow(
            TELL_REST,
            start,
            id=tell_id_of(execution_id),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
            static_summary="what lifecycle sinks lack",
        )


@workflow.defn(name=TELL_REST, sandboxed=False)
class TellWorkflow:
    """What lifecycle sinks lack of one execution that has ended."""

    @workflow.init
    def __init__(self, given: TellStart) -> None:
        """Reads what there is."""
        report = Report(False, unpacked(given.events), given.last, given.last)
        self._beside = Beside("telling lifecycle sinks")
        self._telling = Telling(report, given.document, given.told, self._beside)

    @workflow.run
    async def run(self, given: TellStart) -> None:  # noqa: ARG002 - see __init__
        """Tells all sinks."""
        self._telling.tell()
        await workflow.wait_condition(lambda: self._beside.fault is not None or not self._telling.is_behind)
        self._beside.check()
