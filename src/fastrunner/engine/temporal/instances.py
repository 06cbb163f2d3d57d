"""Stage 3, journal: the workflows of one worker, kept from what has come before its time.

    activation -> what the server has begun: the workflow
               -> what it has not: refused, and the worker forgets the workflow

Theory of operation. A query that waits for a worker is handed out with the history of that moment. When something has
happened since it was asked, that ends with events that no workflow task has taken up yet, and the SDK gives them to the
workflow all the same: at the time of the task before, and apart from what may still come into their own task. What the
workflow then does is kept, and sent with that task; a replay does it at another time, so events that the receiver has
would be others. Refused, the query fails, is asked again, and goes with the workflow task.

Rule: a task that has begun has a time of its own, so what is new at the time before belongs to none.
"""

from typing import Any, Final

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import SerializationContext, StorageDriverStoreContext
from temporalio.worker import (
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
)
from temporalio.workflow import Info

__all__ = ["TOO_EARLY", "Instances", "Started"]

TOO_EARLY: Final = "fastrunner: asked while a workflow task was about to begin, ask again"
"""What a query is refused with."""


class Instances(UnsandboxedWorkflowRunner):
    """Creates the workflows of a worker."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See WorkflowRunner."""
        return Started(super().create_instance(det))


class Started(WorkflowInstance):
    """A workflow that is given what has begun."""

    def __init__(self, instance: WorkflowInstance) -> None:
        self._instance = instance
        self._time_ns = 0
        self._history_length = 0

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """See WorkflowInstance."""
        time_ns = act.timestamp.ToNanoseconds()
        if self._is_early(act, time_ns):
            refusal = WorkflowActivationCompletion()
            refusal.failed.failure.message = TOO_EARLY
            return refusal
        self._time_ns, self._history_length = time_ns, act.history_length
        return self._instance.activate(act)

    def _is_early(self, act: WorkflowActivation, time_ns: int) -> bool:
        # What is replayed has had its task.
        is_new = not act.is_replaying and act.history_length > self._history_length and time_ns == self._time_ns
        return is_new and any(job.WhichOneof("variant") not in _HARMLESS for job in act.jobs)

    def get_serialization_context(self, command_info: Any) -> SerializationContext | None:
        """See WorkflowInstance."""
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        """See WorkflowInstance."""
        return self._instance.get_external_store_context(command_info)

    def get_info(self) -> Info:
        """See WorkflowInstance."""
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        """See WorkflowInstance."""
        return self._instance.get_thread_id()


_HARMLESS: Final = ("query_workflow", "remove_from_cache")
"""What is nothing that has happened."""
