"""Stage 6, events: the workflow that reports what an execution has left when it ends, where reports are detached.

    the walk ends -> this one is started, abandoned -> the walk's workflow ends -> reports, until all is acknowledged

Rule: it knows no walk: it has the events as they were made, and what the receiver had of them. Nobody ends it but by
force: a cancel made in Temporal's own UI would leave the receiver without the last events, so it is not heeded.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import FailureError

from fastrunner.base import limits
from fastrunner.engine.temporal.messages import REPORT, REPORT_REST, VIEW_QUERY, packed, unpacked
from fastrunner.engine.temporal.reporting import Report

__all__ = ["ReportStart", "ReportWorkflow", "report_id_of", "reported", "reported_at_once", "start_report"]

_TIMEOUT: Final = timedelta(seconds=limits.TEMPORAL_EFFECT_S_MAX)
_HEARTBEAT: Final = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S)
_AT_ONCE: Final = timedelta(seconds=limits.TEMPORAL_REPORT_AT_ONCE_S_MAX)
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=limits.TEMPORAL_REPORT_RETRY_S_MAX),
)


@dataclass(frozen=True)
class ReportStart:
    """The input of the workflow."""

    execution_id: str
    """Whose events they are."""
    events: str
    """Those that nobody has acknowledged, packed."""
    last: int
    """Sequence number of the last of them."""
    acknowledged: int
    """Sequence number up to which the receiver has everything."""
    trace: str = ""
    """See `WalkStart.trace`."""


def report_id_of(execution_id: str) -> str:
    """The id of the workflow that reports what an execution has left."""
    return f"{execution_id}~report"


async def reported(execution_id: str, messages: bytes, last: int, trace: str) -> int:
    """Has a worker report events, and gives the number up to which the receiver has everything: tried without end."""
    acknowledged: int = await workflow.execute_activity(
        REPORT,
        args=_arguments(execution_id, messages, last, trace),
        result_type=int,
        start_to_close_timeout=_TIMEOUT,
        heartbeat_timeout=_HEARTBEAT,
        retry_policy=_RETRY,
        summary=f"events up to {last}",
    )
    return acknowledged


async def reported_at_once(execution_id: str, messages: bytes, last: int, trace: str) -> int:
    """Has this worker report events within the workflow task, which costs the server next to nothing: one attempt; 0:
    the receiver has not taken them.

    Only for events that follow from the workflow's input alone: a worker that is lost meanwhile has told what Temporal
    does not have yet, and another one has to tell the same.
    """
    try:
        acknowledged: int = await workflow.execute_local_activity(
            REPORT,
            args=_arguments(execution_id, messages, last, trace),
            result_type=int,
            start_to_close_timeout=_AT_ONCE,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
    except FailureError:
        # One that takes too long comes without an ActivityError around it.
        return 0
    return acknowledged


def _arguments(execution_id: str, messages: bytes, last: int, trace: str) -> list[Any]:
    """What the activity is given: of an execution that is not traced no more than ever."""
    return [execution_id, messages, last, *([trace] if trace else [])]


async def start_report(execution_id: str, report: Report, trace: str) -> None:
    """Starts the workflow that reports what is left."""
    await workflow.start_child_workflow(
        REPORT_REST,
        ReportStart(execution_id, packed(report.left()), report.last, report.acknowledged, trace),
        id=report_id_of(execution_id),
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
        static_summary=f"events up to {report.last}",
    )


@workflow.defn(name=REPORT_REST, sandboxed=False)
class ReportWorkflow:
    """The reports that one execution has left."""

    @workflow.init
    def __init__(self, given: ReportStart) -> None:
        """Reads what there is."""
        self._execution_id = given.execution_id
        self._trace = given.trace
        self._report = Report(True, unpacked(given.events), given.last, given.acknowledged)

    @workflow.run
    async def run(self, given: ReportStart) -> int:  # noqa: ARG002 - see __init__
        """Reports; gives the sequence number of the last event."""
        sending = asyncio.create_task(self._send())
        is_cancelled = False
        while not sending.done():
            try:
                await workflow.wait_condition(sending.done)
            except asyncio.CancelledError:
                if workflow.cancellation_reason() is None or is_cancelled:
                    raise
                is_cancelled = True
        await sending
        return self._report.acknowledged

    async def _send(self) -> None:
        while self._report.unreported_count:
            messages, last = self._report.batch()
            self._report.acknowledge(await reported(self._execution_id, messages, last, self._trace))

    @workflow.query(name=VIEW_QUERY)
    def view(self) -> dict[str, Any]:
        """What it knows of the execution: how much the receiver has."""
        return {"acknowledged": self._report.acknowledged}
