"""Stage 3, journal: what an effect that starts an execution is answered with, the same on every engine."""

from collections.abc import Mapping
from typing import Any

from fastrunner._core import EffectFailure
from fastrunner.base import limits
from fastrunner.errors import Damaged, DocumentRefused, InvalidRequest, RunnerError, UnknownWorkflow

__all__ = ["cancelled", "failed", "id_taken", "refused", "too_deep"]


def failed(effect_id: int, kind: str, title: str, detail: str, status: int = 0) -> EffectFailure:
    """A failure of one."""
    return EffectFailure(effect_id, kind, status, title, detail)


def id_taken(effect_id: int, child_id: str) -> EffectFailure:
    """The child's id belongs to another execution."""
    return failed(effect_id, "runtime", "Id Taken", f"somebody else has used execution id {child_id!r}")


def too_deep(effect_id: int) -> EffectFailure:
    """Too many executions have started one another."""
    return failed(
        effect_id,
        "runtime",
        "Subflows Too Deep",
        f"{limits.SUBFLOW_DEPTH_MAX} executions have started one another: a workflow that runs itself needs a "
        "condition under which it does not",
    )


def cancelled(effect_id: int, child_id: str) -> EffectFailure:
    """The child was cancelled."""
    return failed(effect_id, "runtime", "Subflow Cancelled", f"execution {child_id!r} was cancelled")


def refused(effect_id: int, arguments: Mapping[str, Any], refusal: RunnerError) -> EffectFailure:
    """What a child is not accepted for."""
    name = f"{arguments['namespace']}/{arguments['name']}:{arguments['version']}"
    if isinstance(refusal, UnknownWorkflow):
        return failed(effect_id, "configuration", "Workflow Not Registered", refusal.message)
    if isinstance(refusal, DocumentRefused | InvalidRequest):
        return failed(effect_id, "configuration", "Workflow Not Executable", f"{name}: {refusal.message}")
    if isinstance(refusal, Damaged):
        return failed(effect_id, "runtime", "Workflow Damaged", refusal.message)
    return failed(effect_id, "runtime", "Subflow Refused", f"{name}: {refusal.message}")
