"""Stage 3, journal: the workflow that is the bus of events (see `bus`): takes what replicas have, and has it delivered.

Rules: those of `workflow`: every replay takes the same way, and a history is continued when nothing is under way. One
delivery is under way at a time; it is an activity, tried again until it is made.
"""

from datetime import datetime, timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

from fastrunner.base import limits
from fastrunner.engine.temporal.bus import Bus
from fastrunner.engine.temporal.event_messages import (
    BUS_SEMANTICS,
    DELIVER,
    EVENTS,
    PUBLISH_UPDATE,
    BusStart,
    Publishing,
    Receipt,
)
from fastrunner.engine.temporal.room import is_long

__all__ = ["EventsWorkflow"]

_TIMEOUT: Final = timedelta(seconds=limits.TEMPORAL_EFFECT_S_MAX)
_HEARTBEAT: Final = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S)
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=limits.TEMPORAL_REPORT_RETRY_S_MAX),
)


@workflow.defn(name=EVENTS, sandboxed=False)
class EventsWorkflow:
    """The bus of a task queue."""

    @workflow.init
    def __init__(self, given: BusStart) -> None:
        """Goes on with what there was. Raises ValueError."""
        # Numbers count from here, so it has to be the same in every replay: the time of a first task that has left
        # nothing in the history is not.
        began = workflow.now() if given.semantics == 1 else workflow.info().workflow_start_time
        self._bus = Bus(given, _ms(began))
        self._history_events_max = given.history_events_max
        self._has_changed = False
        """Whether anything has, since the history began."""

    @workflow.run
    async def run(self, given: BusStart) -> None:
        """Delivers for ever."""
        if given.semantics > BUS_SEMANTICS:
            # It rests until a version is there that knows how.
            raise RuntimeError("the bus of events is that of a newer version of the runner")
        if given.semantics > 1:
            self._note()
        while True:
            if self._may_continue() and workflow.all_handlers_finished():
                # The bus has no end: a new build goes on with it.
                is_new = workflow.info().is_target_worker_deployment_version_changed()
                upgrades = workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE if is_new else None
                workflow.continue_as_new(self._bus.continued(), initial_versioning_behavior=upgrades)
            delivery = self._bus.delivery()
            if delivery is not None:
                gone = await workflow.execute_activity(
                    DELIVER,
                    delivery,
                    result_type=list[str],
                    start_to_close_timeout=_TIMEOUT,
                    heartbeat_timeout=_HEARTBEAT,
                    retry_policy=_RETRY,
                    summary=f"{len(delivery.events)} events for {len(delivery.targets)}",
                )
                self._bus.settle(gone)
                self._note()
            elif self._bus.has_more:
                await workflow.sleep(0.001, summary="more to look at")
                self._note()
            else:
                await workflow.wait_condition(lambda: self._bus.has_more or self._may_continue())

    def _note(self) -> None:
        """Writes something into the history: the SDK confuses a task of the workflow that has written nothing with that
        of an update which follows, and then replays fail."""
        workflow.upsert_memo({"delivered": self._bus.cursor})

    def _may_continue(self) -> bool:
        return self._has_changed and not self._bus.is_delivering and is_long(self._history_events_max)

    @workflow.update(name=PUBLISH_UPDATE)
    async def publish(self, given: Publishing) -> list[Receipt]:
        """Takes what a replica has; what is answered is durable."""
        self._has_changed = True
        return [self._bus.publish(call, given.retention_ms, _ms(workflow.now())) for call in given.calls]


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
