"""Stage 1, service: whether this worker takes new executions as fast as they arrive, and whom it refuses if not.

Theory of operation: the transport reports how long what it looks at has waited. The shortest wait of an interval
counts: when everything had to wait, there is a standing queue. One beyond its bound is no overload yet: a burst passes.
If it lasts, the worker takes fewer executions per second than it just took, again and again, until refusing, which
costs less, lets it catch up; then more, step by step.

Rules: only submissions are refused; commands and queries end work or are cheap. Each client may have its share of what
is taken, whatever others send. A refusal is decided before anything of the request is decoded.
"""

from collections import Counter
from math import inf

from fastrunner import clock, limits
from fastrunner.errors import AtCapacity

__all__ = ["Overload"]


class Overload:
    """The pace of one worker's submissions."""

    def __init__(self) -> None:
        self.rate_per_s = inf
        """Executions taken per second; infinite while the worker is not overloaded."""
        self._slowest_per_s = 0.0
        self._wait_s = inf
        self._standing_wait_s = 0.0
        """The shortest wait of the last interval: what everything that came had to wait."""
        self._behind_since_s = inf
        self._interval_began_s = clock.monotonic_s()
        self._taken: Counter[str] = Counter()
        self._taken_count = 0
        self._clients_count = 1

    def measured(self, wait_s: float) -> None:
        """Something that was just looked at had waited so long, at most."""
        self._wait_s = min(self._wait_s, wait_s)
        now_s = clock.monotonic_s()
        span_s = now_s - self._interval_began_s
        if span_s >= limits.OVERLOAD_INTERVAL_S:
            self._end_interval(now_s, span_s)

    def _end_interval(self, now_s: float, span_s: float) -> None:
        """Sets the pace of the next."""
        self._standing_wait_s, self._wait_s = self._wait_s, inf
        if self._standing_wait_s <= limits.OVERLOAD_DELAY_S_MAX:
            self._behind_since_s = inf
        elif self._behind_since_s == inf:
            self._behind_since_s = now_s - self._standing_wait_s
        taken_per_s = max(self._taken_count / span_s, limits.OVERLOAD_EXECUTIONS_PER_S_MIN)
        if self.rate_per_s < inf:
            self._adapt(taken_per_s)
        elif now_s - self._behind_since_s > limits.OVERLOAD_BURST_S_MAX:
            self.rate_per_s = taken_per_s * limits.OVERLOAD_DECREASE
            self._slowest_per_s = max(taken_per_s * limits.OVERLOAD_FLOOR, limits.OVERLOAD_EXECUTIONS_PER_S_MIN)
        self._clients_count = max(1, len(self._taken))
        self._taken.clear()
        self._taken_count = 0
        self._interval_began_s = now_s

    def _adapt(self, taken_per_s: float) -> None:
        if self._standing_wait_s > limits.OVERLOAD_DELAY_S_MAX:
            pace = min(self.rate_per_s, taken_per_s) * limits.OVERLOAD_DECREASE
            self.rate_per_s = max(self._slowest_per_s, pace)
            return
        self.rate_per_s *= limits.OVERLOAD_INCREASE
        if self.rate_per_s > limits.OVERLOAD_RELIEF * taken_per_s:
            # Fewer come than may.
            self.rate_per_s = inf

    def admit(self, client: str, count: int = 1) -> None:
        """Takes `count` executions of a client. Raises AtCapacity."""
        if self.rate_per_s < inf:
            span_s = clock.monotonic_s() - self._interval_began_s
            quota = self.rate_per_s * max(span_s, limits.OVERLOAD_INTERVAL_S)
            if self._taken_count >= quota and self._taken[client] >= quota / self._clients_count:
                delay_s = min(max(4 * self._standing_wait_s, limits.OVERLOAD_RETRY_S_MIN), limits.OVERLOAD_RETRY_S_MAX)
                raise AtCapacity("more executions are submitted than the runner can take", retry_after_s=delay_s)
        self._taken[client] += count
        self._taken_count += count
