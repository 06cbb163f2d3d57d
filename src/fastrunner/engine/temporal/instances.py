"""Stage 3, journal: the workflows of one worker, kept from what has come before its time.

    activation -> what the server has begun: the workflow
               -> what it has not: nobody; the query that has brought it fails, and the worker forgets the workflow

Theory of operation. A query that waits for a worker is handed out with the history of that moment. When something has
happened since it was asked, that ends with events that no workflow task has taken up yet, and the SDK gives them to the
workflow all the same: at the time of the task before, and apart from what may still come into their own task. What the
workflow then does is kept, and sent with that task; a replay does it at another time, so events that the receiver has
would be others. So the workflow does not hear of it. The query fails, is asked again, and goes with the workflow task.
Where a workflow has ended no task will come, and it is asked for what it was: the query says that it knows.

Rule: when a task begins its time is in the history, and how large that is by then. What is new while both are those of
the task before belongs to none.
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

__all__ = ["OF_ENDED", "TOO_EARLY", "Instances", "Started"]

TOO_EARLY: Final = "fastrunner: asked while a workflow task was about to begin, ask again"
"""What a query is refused with."""
OF_ENDED: Final = "@ended"
"""Behind the name of a query: it is to be answered with what was, for nothing will come."""


class Instances(UnsandboxedWorkflowRunner):
    """Creates the workflows of a worker."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See WorkflowRunner."""
        return Started(super().create_instance(det))


class Started(WorkflowInstance):
    """A workflow that is given what has begun."""

    def __init__(self, instance: WorkflowInstance) -> None:
        self._instance = instance
        self._task = (0, 0)
        """Time of the latest task, and how large the history was when it began."""
        self._history_length = 0
        self._has_missed = False
        """Whether something was kept from it, so that no task can go on with it."""

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """See WorkflowInstance."""
        variants = {job.WhichOneof("variant") for job in act.jobs}
        if not variants <= _NO_NEWS and self._is_early(act):
            self._has_missed = True
            missed = WorkflowActivationCompletion()
            missed.successful.SetInParent()
            return missed
        is_of_ended = variants == {"query_workflow"} and _is_of_ended(act)
        if self._has_missed and not (is_of_ended or "remove_from_cache" in variants):
            refusal = WorkflowActivationCompletion()
            refusal.failed.failure.message = TOO_EARLY
            return refusal
        return self._instance.activate(act)

    def _is_early(self, act: WorkflowActivation) -> bool:
        """Whether what has happened belongs to no task yet; what is replayed does."""
        task = (act.timestamp.ToNanoseconds(), act.history_size_bytes)
        if task == self._task and act.history_length > self._history_length and not act.is_replaying:
            return True
        self._task, self._history_length = task, act.history_length
        return False

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


_NO_NEWS: Final = {"query_workflow", "remove_from_cache"}
"""What is nothing that has happened."""


def _is_of_ended(act: WorkflowActivation) -> bool:
    """Whether all queries know that their workflow has ended; has them be what the workflow knows them by."""
    asked = [job.query_workflow for job in act.jobs]
    of_ended = [query for query in asked if query.query_type.endswith(OF_ENDED)]
    for query in of_ended:
        query.query_type = query.query_type.removesuffix(OF_ENDED)
    return len(of_ended) == len(asked)
