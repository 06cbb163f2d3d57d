"""Stage 5, tasks: effects as the metrics have them: how many are in flight, how long each took, and how it ended.

Rule: what ends without an outcome was interrupted.
"""

from collections.abc import Awaitable

from fastrunner._core import EffectFailure, EffectResult
from fastrunner.base import clock
from fastrunner.counts.definitions import Metrics

__all__ = ["Counted"]


class Counted:
    """Counts and times the effects of one performer."""

    def __init__(self, kind: str, metrics: Metrics) -> None:
        self._in_flight = metrics.effects_in_flight.labels(kind)
        self._duration = metrics.effect_duration.labels(kind)
        self._outcomes = {
            outcome: metrics.effects.labels(kind, outcome) for outcome in ("completed", "failed", "interrupted")
        }

    async def outcome_of(self, performing: Awaitable[EffectResult | EffectFailure]) -> EffectResult | EffectFailure:
        """What an effect ends with, counted."""
        outcome = "interrupted"
        started_s = clock.monotonic_s()
        self._in_flight.inc()
        try:
            result = await performing
            outcome = "completed" if isinstance(result, EffectResult) else "failed"
            return result
        finally:
            self._in_flight.dec()
            self._duration.observe(clock.monotonic_s() - started_s)
            self._outcomes[outcome].inc()
