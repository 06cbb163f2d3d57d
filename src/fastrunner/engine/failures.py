"""Stage 5, tasks: failures as they may be stored and shown, the same on every engine."""

from collections.abc import Mapping
from typing import Any

from fastrunner._core import EffectFailure, EffectResult
from fastrunner.base.redaction import redact

__all__ = ["error_of", "shown"]


def shown(failure: EffectFailure) -> EffectFailure:
    """A failure without what is hidden: what a remote side says may be what it was sent."""
    if failure.error is not None:
        texts = {key: redact(each) if isinstance(each, str) else each for key, each in failure.error.items()}
        return failure if texts == failure.error else EffectFailure.whole(failure.effect_id, texts)
    return EffectFailure(
        failure.effect_id,
        failure.type,
        failure.status,
        redact(failure.title),
        redact(failure.detail),
        retry_after_ms=failure.retry_after_ms,
    )


def error_of(outcome: EffectResult | EffectFailure) -> Mapping[str, Any] | None:
    """Type and status of what an effect has failed with."""
    if isinstance(outcome, EffectResult):
        return None
    return outcome.error or {"type": outcome.type, "status": outcome.status}
