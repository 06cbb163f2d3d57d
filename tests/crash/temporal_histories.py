"""Support: what Temporal's server has kept of every execution, read when all have come to rest.

The histories tell what was durable when: an effect has an outcome from the moment at which the completion of its
activity was written. Nothing in them may say that a worker could not go on with what another one had begun.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.config import Config
from tests.crash.tree import digest_of

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from temporalio.client import Client, WorkflowHistory

__all__ = ["Histories"]

_EVENTS_MAX = 1_000


class Histories:
    """All of them; what one runner's shards are to `Journal`."""

    def __init__(self) -> None:
        self.completed_s: dict[str, float] = {}
        """When the outcome of an effect was durable, in monotonic seconds, by idempotency key."""
        self.changed: list[str] = []
        """Effects that have had two outcomes."""
        self.problems: list[str] = []
        """Workflow tasks that a worker could not do, histories that none can replay."""
        self.count = 0
        """Of histories; one that is continued is another one."""
        self.events_max = 0
        """How long the longest is."""
        self._held: dict[str, list[bytes]] = {}
        self._began_s = monotonic_s() - wall_ms() / 1000

    def executions(self) -> Iterable[str]:
        """The ids of all that there are."""
        return self._held.keys()

    def differences(self, received: Callable[[str], list[bytes]]) -> dict[str, str]:
        """Executions whose workflow holds other events than a receiver has."""
        return {
            execution_id: "the receiver has other last events than the workflow"
            for execution_id, held in self._held.items()
            if held and digest_of(received(execution_id)[-len(held) :]) != digest_of(held)
        }

    async def read(self, address: str) -> None:
        """Reads them all from a server; needs a worker that answers queries."""
        from temporalio.worker import Replayer

        from fastrunner.engine.temporal.client import Connection
        from fastrunner.engine.temporal.codec import converter_of
        from fastrunner.engine.temporal.executions import Executions
        from fastrunner.engine.temporal.messages import WALK
        from fastrunner.engine.temporal.workflow import WalkWorkflow

        connection = Connection(Config(temporal_service_address=address), converter_of(None, None))
        await connection.connect()
        executions, client = Executions(connection), connection.client
        replayer = Replayer(workflows=[WalkWorkflow], data_converter=client.data_converter)
        async for listed in client.list_workflows(f"WorkflowType = '{WALK}'"):
            if listed.id not in self._held:
                self._held[listed.id] = []
                last = (await executions.get(listed.id)).last_sequence
                self._held[listed.id] = await executions.events(listed.id, max(1, last - _EVENTS_MAX), _EVENTS_MAX)
            handle = client.get_workflow_handle(listed.id, run_id=listed.run_id)
            history = await handle.fetch_history()
            await self._note(client, history)
            result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
            if result.replay_failure is not None:
                self.problems.append(f"{listed.id}: no worker can replay it: {result.replay_failure}")

    async def _note(self, client: "Client", history: "WorkflowHistory") -> None:
        from fastrunner.engine.temporal.messages import PERFORM, EffectOrder

        self.count += 1
        self.events_max = max(self.events_max, len(history.events))
        keys: dict[int, str] = {}
        for event in history.events:
            if event.HasField("activity_task_scheduled_event_attributes"):
                scheduled = event.activity_task_scheduled_event_attributes
                if scheduled.activity_type.name == PERFORM:
                    [order] = await client.data_converter.decode(scheduled.input.payloads, [EffectOrder])
                    keys[event.event_id] = order.idempotency_key
            elif event.HasField("activity_task_completed_event_attributes"):
                begun = event.activity_task_completed_event_attributes.scheduled_event_id
                if begun in keys:
                    self._note_outcome(history.workflow_id, keys[begun], event.event_time)
            elif event.HasField("workflow_task_failed_event_attributes"):
                failed = event.workflow_task_failed_event_attributes
                # One that ends its workflow in the moment in which something comes is done again.
                if failed.failure.message not in ("", "UnhandledCommand"):
                    self.problems.append(f"{history.workflow_id}: a workflow task failed: {failed.failure.message}")

    def _note_outcome(self, execution_id: str, key: str, at: "Timestamp") -> None:
        if key in self.completed_s:
            self.changed.append(f"{execution_id}: effect {key} has had two outcomes")
        self.completed_s.setdefault(key, self._began_s + at.ToNanoseconds() / 1e9)
