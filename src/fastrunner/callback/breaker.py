"""Stage 7, callback: the circuit breaker, which decides whether the receiver is worth an attempt now.

    closed ──failed, or too many refusals in a row──> open ──after a pause──> half open ──succeeded──> closed
                                                        ^────────────failed─────────┘

Rules: it reads no clock and no randomness of its own; half open admits one probe at a time; each failed probe doubles
the pause up to a bound, with jitter so that workers do not probe in step.
"""

from collections.abc import Callable
from enum import Enum

from fastrunner.base.limits import CALLBACK_REFUSALS_MAX, CALLBACK_SUSPENSION_S_MAX, CALLBACK_SUSPENSION_S_MIN

__all__ = ["Breaker", "BreakerState"]


class BreakerState(Enum):
    """Whether deliveries may start."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Breaker:
    """A circuit breaker; times are monotonic seconds, `random` gives numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.state = BreakerState.CLOSED
        """Whether deliveries may start."""
        self.retry_at_s = 0.0
        """When an open breaker admits a probe."""
        self._random = random
        self._pause_s = CALLBACK_SUSPENSION_S_MIN
        self._refusals = 0

    @property
    def closed(self) -> bool:
        """Whether deliveries go on as usual."""
        return self.state is BreakerState.CLOSED

    def admit(self, now_s: float) -> bool:
        """Whether a delivery may start now. In an open breaker the first one after the pause becomes the probe."""
        if self.state is BreakerState.OPEN and now_s >= self.retry_at_s:
            self.state = BreakerState.HALF_OPEN
            return True
        return self.state is BreakerState.CLOSED

    def succeeded(self) -> bool:
        """The receiver took something; gives whether that ended a suspension."""
        ended = self.state is not BreakerState.CLOSED
        self.state = BreakerState.CLOSED
        self._pause_s = CALLBACK_SUSPENSION_S_MIN
        self._refusals = 0
        return ended

    def refused(self, now_s: float) -> bool:
        """The receiver answered but took nothing of one execution; gives whether that began a suspension."""
        self._refusals += 1
        if self._refusals < CALLBACK_REFUSALS_MAX and self.state is not BreakerState.HALF_OPEN:
            return False
        return self.failed(now_s)

    def failed(self, now_s: float) -> bool:
        """A delivery used up its attempts; gives whether that began a suspension (a failed probe goes on with one)."""
        if self.state is BreakerState.OPEN:
            return False
        began = self.state is BreakerState.CLOSED
        self.state = BreakerState.OPEN
        self.retry_at_s = now_s + self._pause_s * (0.75 + self._random() / 2)
        self._pause_s = min(self._pause_s * 2, CALLBACK_SUSPENSION_S_MAX)
        self._refusals = 0
        return began

    def abandoned(self) -> None:
        """A probe ended without a verdict on the receiver: the next delivery is the probe."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN
