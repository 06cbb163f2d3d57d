"""Stage 6, events: progress events as the lifecycle CloudEvents of the DSL.

Rules: what a progress event does not tell is left out, not guessed. An event's id is made of its execution's id and its
sequence number there, so it is the same however often it is sent. Outputs stay here: there is no URI to get them by.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ErrorDetails, WorkflowProgressEvent
from fastrunner.base.moments import rfc3339
from fastrunner.engine import DefinitionRef

__all__ = ["lifecycle_of"]

_PREFIX: Final = "io.serverlessworkflow."


class _Kind(NamedTuple):
    """What a progress event is in the DSL."""

    type: str
    """Without prefix and version."""
    moment: str
    """The member of its data that says when."""
    id_suffix: str = ""
    """Of a second event that is made of the same one."""


_KINDS: Final[Mapping[str, tuple[_Kind, ...]]] = {
    "workflow_started": (_Kind("workflow.started", "startedAt"),),
    "workflow_paused": (_Kind("workflow.suspended", "suspendedAt"),),
    "workflow_resumed": (_Kind("workflow.resumed", "resumedAt"),),
    "workflow_cancelled": (_Kind("workflow.cancelled", "cancelledAt"),),
    "workflow_failed": (_Kind("workflow.faulted", "faultedAt"),),
    "workflow_completed": (_Kind("workflow.completed", "completedAt"),),
    # The runner makes a task in the step that starts it.
    "task_started": (_Kind("task.created", "createdAt", "-created"), _Kind("task.started", "startedAt")),
    "task_retry": (_Kind("task.retried", "retriedAt"),),
    "task_failed": (_Kind("task.faulted", "faultedAt"),),
    "task_completed": (_Kind("task.completed", "completedAt"),),
}
"""The others have no counterpart."""


def lifecycle_of(definition: DefinitionRef, event: WorkflowProgressEvent) -> Iterator[dict[str, Any]]:
    """What one progress event of an execution of a workflow is: CloudEvents in their JSON format, perhaps none."""
    for kind in _KINDS.get(event.event_type, ()):
        moment = rfc3339(event.timestamp_ms)
        path = (definition.namespace, definition.name, definition.version)
        yield {
            "specversion": "1.0",
            "id": f"{event.workflow_execution_id}-{event.sequence_number}{kind.id_suffix}",
            # As that of what the workflow emits.
            "source": "/" + "/".join(quote(part, safe="") for part in path),
            "type": f"{_PREFIX}{kind.type}.v1",
            "subject": event.workflow_execution_id,
            "time": moment,
            "datacontenttype": "application/json",
            "data": {**_whose(definition, event), kind.moment: moment, **_error(kind, event)},
        }


def _whose(definition: DefinitionRef, event: WorkflowProgressEvent) -> dict[str, Any]:
    name = f"{definition.name}-{event.workflow_execution_id}.{definition.namespace}"
    if event.task_reference:
        return {"workflow": name, "task": event.task_reference}
    if event.event_type != "workflow_started":
        return {"name": name}
    parts = {"name": definition.name, "namespace": definition.namespace, "version": definition.version}
    return {"name": name, "definition": parts}


def _error(kind: _Kind, event: WorkflowProgressEvent) -> dict[str, Any]:
    """The DSL's error, where the DSL has one."""
    if kind.moment != "faultedAt":
        return {}
    error: ErrorDetails = event.error
    texts = {"title": error.title, "detail": error.detail, "instance": error.instance}
    told = {name: text for name, text in texts.items() if text}
    return {"error": {"type": error.type, "status": error.status, **told}}
