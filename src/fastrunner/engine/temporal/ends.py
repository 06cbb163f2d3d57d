"""Stage 3, journal: what Temporal shows of the walk of an execution: what it waits for, and what it comes to: result,
failure, or cancelled."""

import asyncio
from typing import Any

import orjson
from temporalio.exceptions import ApplicationError

from fastrunner._core import Walk
from fastrunner.base import limits
from fastrunner.engine.temporal.messages import OUTPUT_TOO_LARGE

__all__ = ["output_json_of", "result_of", "waits_for"]


def waits_for(walk: Walk) -> str:
    """The tasks that its timer is for."""
    return ", ".join(sorted({wait.task for wait in walk.waits() if wait.kind in ("time", "retry")})) or "timeout"


def output_json_of(walk: Walk, has_blobs: bool) -> str:
    """The output of one that is completed; empty if nothing has room for it."""
    if walk.status != "completed":
        return ""
    output = orjson.dumps(walk.output).decode()
    has_room = has_blobs or len(orjson.dumps(output)) <= limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX
    return output if has_room else ""


def result_of(walk: Walk, execution_id: str, has_blobs: bool, is_cancelled: bool) -> Any:
    """The output of a walk that has ended; `is_cancelled`: whether that was asked of Temporal. Raises ApplicationError
    with the DSL error, or CancelledError."""
    if walk.status == "completed" and output_json_of(walk, has_blobs):
        return walk.output
    if walk.status == "completed":
        bound = limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX
        raise ApplicationError(f"the output exceeds {bound} bytes", type=OUTPUT_TOO_LARGE, non_retryable=True)
    if walk.status == "failed" and walk.error is not None:
        error = dict(walk.error)
        raise ApplicationError(str(error.get("title") or error["type"]), error, type="failed", non_retryable=True)
    if is_cancelled:
        raise asyncio.CancelledError
    raise ApplicationError(f"execution {execution_id!r} was cancelled", type="cancelled", non_retryable=True)
