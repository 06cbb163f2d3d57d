"""Stage 5, tasks: what the workflow hears of a call that was never made. Of one that was, `call_http` says all."""

from fastrunner._core import EffectFailure, PerformEffect
from fastrunner.tasks.call_http.arguments import RequestProblem
from fastrunner.tasks.descriptions import NoDescription

__all__ = ["refusal_of", "undescribed"]


def refusal_of(effect: PerformEffect, problem: RequestProblem, name: str) -> EffectFailure:
    """The error of arguments, or of a document, that no request can be made of."""
    detail = f"{name[:100]}: {problem.detail}" if name else problem.detail
    return EffectFailure(effect.effect_id, problem.type, 400, "Invalid OpenAPI Call", detail)


def undescribed(effect: PerformEffect, problem: NoDescription) -> EffectFailure:
    """The error of a document that cannot be had."""
    return EffectFailure(
        effect.effect_id, problem.type, problem.status or 500, "OpenAPI Document Unavailable", str(problem)
    )
