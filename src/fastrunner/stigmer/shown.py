"""Support: what the store has, as the HTTP API shows it."""

import orjson

from fastrunner.stigmer.store import Execution, Workflow
from fastrunner.web.api import shapes

__all__ = ["execution_of", "workflow_of"]


def workflow_of(workflow: Workflow) -> shapes.Workflow:
    """With its document, where the record has it."""
    return shapes.Workflow(
        namespace=workflow.key.namespace,
        name=workflow.key.name,
        version=workflow.key.version,
        created_ms=workflow.created_ms,
        is_latest=workflow.is_latest,
        document=workflow.document or None,
    )


def execution_of(execution: Execution) -> shapes.Execution:
    """As it stands."""
    standing = execution.standing
    return shapes.Execution.model_construct(
        id=execution.id,
        namespace=execution.namespace,
        name=execution.name,
        version=execution.version,
        labels=dict(execution.labels),
        launch=execution.launch,
        status=standing.status,
        last_sequence=standing.last_sequence,
        created_ms=execution.created_ms,
        started_ms=standing.started_ms,
        updated_ms=standing.updated_ms,
        ended_ms=standing.ended_ms,
        gap_since_ms=execution.gap_since_ms,
        message=standing.message,
        error=orjson.loads(standing.error_json) if standing.error_json else None,
        output_json=standing.output_json,
    )
