"""Stage 3, journal: what workflows began with, read from the first event of their histories.

    activity -> known here, from the workflow or from before -> its input
             -> else the first event of the history          -> its input

Rule: what is large in an input is there once; activities read it there, and no order repeats it. Most effects are
performed by the worker that has taken the workflow's task: there the workflow tells what it began with, which saves a
request.
"""

import asyncio
import contextlib
from collections import OrderedDict
from typing import Any, Final, Generic, TypeVar

from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.worker import Interceptor, WorkflowInboundInterceptor, WorkflowInterceptorClassInput

from fastrunner.base import limits
from fastrunner.engine.temporal.client import Connection

__all__ = ["Beginnings", "Told", "tell_beginning"]

_TELL: Final = "fastrunner.beginning"

T = TypeVar("T")


class Beginnings(Generic[T]):
    """The inputs of the workflows of one type, as one worker has read them."""

    def __init__(self, connection: Connection, kind: type[T]) -> None:
        self._connection = connection
        self._kind = kind
        self._known: OrderedDict[str, T] = OrderedDict()

    async def of(self, workflow_id: str, run_id: str) -> T:
        """The input of a run of a workflow. Raises RPCError."""
        known = self._known.get(run_id)
        if known is not None:
            return known
        client = self._connection.client
        reply = await client.workflow_service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=client.namespace,
                execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
                maximum_page_size=1,
            )
        )
        begun = reply.history.events[0].workflow_execution_started_event_attributes
        [start] = await client.data_converter.decode(begun.input.payloads, [self._kind])
        found: T = start
        self.add(run_id, found)
        return found

    def knows(self, run_id: str) -> bool:
        """Whether the input of a run is here. Any thread may ask."""
        return run_id in self._known

    def add(self, run_id: str, start: T) -> None:
        """Takes the input of a run from who has it. Call on the loop."""
        self._known[run_id] = start
        if len(self._known) > limits.PLANS_CACHED_MAX:
            self._known.popitem(last=False)


class Told(Interceptor):
    """Has the workflows of a worker tell what they began with. Construct it on the worker's loop."""

    def __init__(self, beginnings: Beginnings[Any]) -> None:
        self._beginnings = beginnings
        self._loop = asyncio.get_running_loop()

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """See Interceptor; nothing is intercepted."""
        input.unsafe_extern_functions[_TELL] = self._tell
        return None

    def _tell(self, run_id: str, start: Any) -> None:
        if self._beginnings.knows(run_id):
            return
        # Workflows run in threads; the loop comes to this before it sends off what the workflow has asked for. The loop
        # of a worker that ends may be closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._beginnings.add, run_id, start)


def tell_beginning(start: Any) -> None:
    """Call in a workflow that asks for an activity: on this worker that need not read what the workflow began with."""
    tell = workflow.extern_functions().get(_TELL)
    if tell is not None and not workflow.unsafe.is_replaying():
        tell(workflow.info().run_id, start)
