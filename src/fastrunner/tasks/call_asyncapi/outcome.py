"""Stage 5, tasks: what the workflow hears of a call over a messaging protocol.

Rule: details name the operation's protocol and host and what was wrong, never a message's content.
"""

from fastrunner._core import EffectFailure, PerformEffect
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["failure_of"]


def failure_of(effect: PerformEffect, problem: CallProblem, where: str) -> EffectFailure:
    """The error of a call that failed; `where` is where it went, empty if it did not get that far."""
    detail = f"asyncapi {where}: {problem.sentence}" if where else f"asyncapi: {problem.sentence}"
    return EffectFailure(
        effect.effect_id,
        problem.type,
        problem.status,
        problem.title,
        detail,
        retry_after_ms=problem.retry_after_ms,
    )
