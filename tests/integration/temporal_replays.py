"""Support: replays of histories from a server, by the SDK's Replayer.

Rule: the Replayer waits for ever for a history that no workflow task has taken up yet, as it is for up to a second when
one has been continued, and hears of no cancel then. So nobody gives it such a history.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from fastrunner.base.clock import monotonic_s

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHistory

__all__ = ["can_replay", "replayable", "replayed", "workflow_types"]

_BEGUN_S_MAX = 60.0


def can_replay(history: "WorkflowHistory") -> bool:
    """Whether a workflow task has taken it up."""
    return any(event.HasField("workflow_task_completed_event_attributes") for event in history.events)


async def replayable(handle: Any) -> "WorkflowHistory":
    """The history of a workflow, once it can be replayed."""
    deadline_s = monotonic_s() + _BEGUN_S_MAX
    while not can_replay(history := await handle.fetch_history()):
        assert monotonic_s() < deadline_s, f"no workflow task of {history.workflow_id} has ended"
        await asyncio.sleep(0.05)
    return history  # type: ignore[no-any-return]


def workflow_types() -> list[type]:
    """All that the runner has."""
    from fastrunner.engine.temporal.bus_workflow import EventsWorkflow
    from fastrunner.engine.temporal.handover import ReportWorkflow
    from fastrunner.engine.temporal.schedule_workflow import ScheduleWorkflow
    from fastrunner.engine.temporal.sinks import SinkWorkflow
    from fastrunner.engine.temporal.telling import TellWorkflow
    from fastrunner.engine.temporal.workflow import WalkWorkflow

    return [WalkWorkflow, ReportWorkflow, TellWorkflow, EventsWorkflow, SinkWorkflow, ScheduleWorkflow]


async def replayed(client: "Client", *workflow_ids: str) -> None:
    """Replays the latest histories of workflows."""
    from temporalio.worker import Replayer

    replayer = Replayer(workflows=workflow_types(), data_converter=client.data_converter)
    for workflow_id in workflow_ids:
        await replayer.replay_workflow(await replayable(client.get_workflow_handle(workflow_id)))
