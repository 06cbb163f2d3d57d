"""Support: what Temporal's server has kept of every execution, read when all have come to rest.

The histories tell what was durable when: an effect has an outcome from the moment at which the completion of its
activity was written. Nothing in them may say that a worker could not go on with what another one had begun, and
whoever replays them makes the very events that the receiver has: so do the workers that are asked for them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

import orjson

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.config import Config
from fastrunner.progress.wire import split
from tests.crash.documents import LINGERS
from tests.crash.tree import FIRST_STEPS_S_MAX
from tests.integration.temporal_replays import can_replay

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from temporalio.client import Client, WorkflowHistory

    from fastrunner.engine.temporal.messages import EffectOrder

__all__ = ["Histories", "difference"]

_EVENTS_MAX = 1_000
_END_S_MAX = 120.0


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
        self.published: list[dict[str, Any]] = []
        """CloudEvents that the bus has taken, each once."""
        self._made: dict[str, list[tuple[str, list[bytes]]]] = {}
        """The latest events of each, as a worker and replays have made them."""
        self._began_s = monotonic_s() - wall_ms() / 1000

    def executions(self) -> Iterable[str]:
        """The ids of all that there are."""
        return self._made.keys()

    def differences(self, received: Callable[[str], list[bytes]]) -> dict[str, str]:
        """Executions whose workflow holds other events than a receiver has."""
        different = {}
        for execution_id, made in self._made.items():
            for who, messages in made:
                if sentence := difference(messages, received(execution_id)):
                    different[execution_id] = f"{who}: {sentence}"
        return different

    async def read(self, address: str) -> None:
        """Reads them all from a server; needs a worker that answers queries, and waits for what has not ended yet."""
        from temporalio.client import WorkflowExecutionStatus

        from fastrunner.engine.temporal.client import Connection
        from fastrunner.engine.temporal.codec import converter_of
        from fastrunner.engine.temporal.event_messages import EVENTS
        from fastrunner.engine.temporal.executions import Executions
        from fastrunner.engine.temporal.messages import WALK

        connection = Connection(Config(temporal_service_address=address), converter_of(None, None))
        await connection.connect()
        executions, client = Executions(connection), connection.client
        # Children that nobody waits for may still be at work, and visibility may not know them yet.
        left = {listed.id async for listed in client.list_workflows(f"WorkflowType = '{WALK}'")}
        give_up_s = monotonic_s() + _END_S_MAX
        while left:
            execution_id = left.pop()
            handle = client.get_workflow_handle(execution_id)
            while (described := await handle.describe()).status is WorkflowExecutionStatus.RUNNING:
                if monotonic_s() > give_up_s:
                    self.problems.append(f"{execution_id}: its workflow does not end")
                    break
                await asyncio.sleep(0.1)
            made = self._made[execution_id] = []
            last = (await executions.get(execution_id)).last_sequence
            made.append(("a worker", await _events(executions, execution_id, last)))
            async for history in _runs(client, execution_id, described.run_id):
                await self._note(client, history)
                left |= {child for child in _children(history) if child not in self._made}
                made += [("a replay", messages) for messages in await self._replayed(client, history)]
        async for listed in client.list_workflows(f"WorkflowType = '{EVENTS}' AND ExecutionStatus = 'Running'"):
            async for history in _runs(client, listed.id, listed.run_id):
                await self._note_published(client, history)
                if can_replay(history):
                    await self._replayed(client, history)

    async def _replayed(self, client: "Client", history: "WorkflowHistory") -> list[list[bytes]]:
        """The events that a replay makes; notes what is wrong with it."""
        from temporalio import workflow
        from temporalio.worker import Interceptor, Replayer, WorkflowInboundInterceptor

        from fastrunner.engine.temporal.bus_workflow import EventsWorkflow
        from fastrunner.engine.temporal.workflow import WalkWorkflow

        replayed: list[Any] = []

        class Looking(WorkflowInboundInterceptor):
            async def execute_workflow(self, input: Any) -> Any:
                replayed.append(workflow.instance())
                return await super().execute_workflow(input)

        class Look(Interceptor):
            def workflow_interceptor_class(self, input: Any) -> Any:
                return Looking

        workflows = [WalkWorkflow, EventsWorkflow]
        replayer = Replayer(workflows=workflows, data_converter=client.data_converter, interceptors=[Look()])
        failure = (await replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure
        if failure is not None:
            self.problems.append(f"{history.workflow_id}: no worker can replay it: {failure}")
        return [split(each._report.held()) for each in replayed if isinstance(each, WalkWorkflow)]

    async def _note_published(self, client: "Client", history: "WorkflowHistory") -> None:
        from fastrunner.engine.temporal.event_messages import Publishing, Receipt

        self._count(history)
        asked: dict[int, Publishing] = {}
        for event in history.events:
            if event.HasField("workflow_execution_update_accepted_event_attributes"):
                request = event.workflow_execution_update_accepted_event_attributes.accepted_request
                [asked[event.event_id]] = await client.data_converter.decode(request.input.args.payloads, [Publishing])
            elif event.HasField("workflow_execution_update_completed_event_attributes"):
                completed = event.workflow_execution_update_completed_event_attributes
                payloads = completed.outcome.success.payloads
                [receipts] = await client.data_converter.decode(payloads, [list[Receipt]])
                for call, receipt in zip(asked[completed.accepted_event_id].calls, receipts, strict=True):
                    news = zip(call.events, receipt.are_new, strict=False)
                    self.published += [orjson.loads(text) for text, is_new in news if is_new]

    def _count(self, history: "WorkflowHistory") -> None:
        self.count += 1
        self.events_max = max(self.events_max, len(history.events))
        for event in history.events:
            if event.HasField("workflow_task_failed_event_attributes"):
                failed = event.workflow_task_failed_event_attributes
                # One that ends its workflow in the moment in which something comes is done again.
                if failed.failure.message not in ("", "UnhandledCommand"):
                    self.problems.append(f"{history.workflow_id}: a workflow task failed: {failed.failure.message}")

    async def _note(self, client: "Client", history: "WorkflowHistory") -> None:
        from fastrunner.engine.temporal.messages import PERFORM, EffectOrder

        self._count(history)
        orders: dict[int, EffectOrder] = {}
        for event in history.events:
            if event.HasField("activity_task_scheduled_event_attributes"):
                scheduled = event.activity_task_scheduled_event_attributes
                if scheduled.activity_type.name == PERFORM:
                    decoded = await client.data_converter.decode(scheduled.input.payloads, [EffectOrder])
                    orders[event.event_id] = decoded[0]
            elif event.HasField("activity_task_completed_event_attributes"):
                begun = event.activity_task_completed_event_attributes.scheduled_event_id
                if begun in orders:
                    self._note_outcome(history.workflow_id, orders[begun], event.event_time)

    def _note_outcome(self, execution_id: str, order: "EffectOrder", at: "Timestamp") -> None:
        key = order.idempotency_key
        if key in self.completed_s:
            self.changed.append(f"{execution_id}: effect {key} has had two outcomes")
        # Of a process that nobody awaits it is only durable that it has begun.
        late_s = FIRST_STEPS_S_MAX if order.reference.endswith(f"/{LINGERS}") else 0.0
        self.completed_s.setdefault(key, self._began_s + at.ToNanoseconds() / 1e9 + late_s)


async def _runs(client: "Client", workflow_id: str, run_id: str) -> AsyncIterator["WorkflowHistory"]:
    """The history of a run, and those that it continues."""
    while run_id:
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        yield history
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id


async def _events(executions: Any, execution_id: str, last: int) -> list[bytes]:
    """All that its workflow holds, as a worker tells them: one answer has room for so many."""
    events: list[bytes] = []
    sequence = max(1, last - _EVENTS_MAX)
    while sequence <= last and (page := await executions.events(execution_id, sequence, _EVENTS_MAX)):
        events += page
        sequence = WorkflowProgressEvent.FromString(page[-1]).sequence_number + 1
    return events


def _children(history: "WorkflowHistory") -> set[str]:
    """The ids of executions that it says it has started."""
    from fastrunner.engine.temporal.messages import WALK

    started = [event.child_workflow_execution_started_event_attributes for event in history.events]
    return {each.workflow_execution.workflow_id for each in started if each.workflow_type.name == WALK}


def difference(made: list[bytes], received: list[bytes]) -> str:
    """What is not the same in events that a workflow has made, of all that a receiver has; empty if nothing is."""
    for message in made:
        event = WorkflowProgressEvent.FromString(message)
        number = event.sequence_number
        if number > len(received):
            return f"event {number} ({event.event_type}) has not arrived"
        if received[number - 1] != message:
            other = WorkflowProgressEvent.FromString(received[number - 1])
            made_at, arrived_at = (f"{each.event_type} at {each.timestamp_ms}" for each in (event, other))
            return f"event {number} is {made_at}, and arrived as {arrived_at}"
    return ""
