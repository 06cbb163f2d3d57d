"""Stage 5, tasks: failures as they may be stored and shown, the same on every engine."""

from fastrunner._core import EffectFailure
from fastrunner.base.redaction import redact

__all__ = ["shown"]


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
