"""Stage 3, journal: what workflows began with, read from the first event of their histories.

Rule: what is large in an input is there once; activities read it there, and no order repeats it.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest

from fastrunner.base import limits
from fastrunner.engine.temporal.client import Connection

__all__ = ["Beginnings"]

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
        self._known[run_id] = found
        if len(self._known) > limits.PLANS_CACHED_MAX:
            self._known.popitem(last=False)
        return found
