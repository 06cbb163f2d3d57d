"""Stage 5, tasks: what the workflow hears of an `emit`: the event as it was published, or its error.

Rule: whatever keeps an event from being published is a `communication` error, as CloudEvents' own senders have it: its
status says whether another attempt may do (503), or the event itself is at fault (400, 413).
"""

from typing import Final

from fastrunner._core import EffectFailure, PerformEffect
from fastrunner.errors import AtCapacity, InvalidRequest, RunnerError, TooLarge

__all__ = ["failure_of"]

_NOT_PUBLISHED: Final = "Event Not Published"


def failure_of(effect: PerformEffect, error: RunnerError) -> EffectFailure:
    """The error of an event that was refused."""
    # An AtCapacity is refused for a while, too.
    status = 400 if isinstance(error, InvalidRequest) else 413 if isinstance(error, TooLarge) else 503
    retry_after_ms = int(error.retry_after_s * 1000) if isinstance(error, AtCapacity) else 0
    detail = f"emit: {error.message}"
    return EffectFailure(
        effect.effect_id, "communication", status, _NOT_PUBLISHED, detail, retry_after_ms=retry_after_ms
    )
