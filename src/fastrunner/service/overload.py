"""Stage 1, service: whether this worker takes new executions as fast as they arrive, and whom it refuses if not.

Theory of operation: the transport reports how long what it looks at has waited. The shortest wait of an interval
counts: when everything had to wait, there is a standing queue. One beyond its bound is no overload yet: a burst passes.
If it lasts, the worker takes only a part of what it just took per second, so that refusing, which costs less, lets it
catch up; then more, step by step, until something waits again.

Rules: only submissions are refused; commands and queries end work or are cheap. Each client may have its share of what
is taken, whatever others send. A refusal is decided before anything of the request is read.
"""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Final

from fastrunner.base import clock, limits
from fastrunner.errors import AtCapacity, RunnerError, ShortHanded

__all__ = ["Overload"]

_TOO_MANY: Final = "more executions are submitted than the runner can take"


class Overload:
    """The pace of one worker's submissions."""

    def __init__(self, is_late: Callable[[], bool], is_short_handed: Callable[[], bool] = lambda: False) -> None:
        """`is_late` tells whether what has been taken waits too long, `is_short_handed` whether that may be because a
        worker is being replaced: then more may wait, and clients are to come again as they do when none answers."""
        self._is_late = is_late
        self._is_short_handed = is_short_handed
        self._is_behind = False
        """Whether in the last interval something waited too long."""
        self.rate_per_s = inf
        """Executions taken per second; infinite while the worker is not overloaded."""
        self._too_fast_per_s = inf
        """The latest pace at which something began to wait."""
        self._slowed_s = 0.0
        self._refusal: RunnerError | None = None
        self._wait_s = inf
        self._standing_wait_s = 0.0
        """The shortest wait of the last interval: what everything that came had to wait."""
        self._behind_since_s = inf
        self._burst_count = 0
        """Executions taken since then."""
        self._interval_began_s = clock.monotonic_s()
        self._taken: Counter[str] = Counter()
        self._taken_count = self._refused_count = 0
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
        was_behind = self._is_behind
        waits = self._standing_wait_s > self._delay_s_max()
        self._is_behind = waits or self._is_late()
        if not self._is_behind:
            self._behind_since_s, self._burst_count = inf, 0
        else:
            self._behind_since_s = min(self._behind_since_s, now_s - self._standing_wait_s)
            self._burst_count += self._taken_count
        if self.rate_per_s < inf:
            self._adapt(now_s, span_s, was_behind, waits)
        elif self._is_more_than_a_burst(now_s):
            self._slow_down(now_s, self._taken_count / span_s * limits.OVERLOAD_BEGIN)
            self._too_fast_per_s = self.rate_per_s
        self._refusal = None
        self._clients_count = max(1, len(self._taken))
        self._taken.clear()
        self._taken_count = self._refused_count = 0
        self._interval_began_s = now_s

    def _is_more_than_a_burst(self, now_s: float) -> bool:
        lasts = now_s - self._behind_since_s > limits.OVERLOAD_BURST_S_MAX
        return lasts and self._burst_count > limits.OVERLOAD_BURST_COUNT_MAX

    def _delay_s_max(self) -> float:
        return limits.SHORT_HANDED_DELAY_S_MAX if self._is_short_handed() else limits.OVERLOAD_DELAY_S_MAX

    def _adapt(self, now_s: float, span_s: float, was_behind: bool, waits: bool) -> None:
        if self._is_behind:
            # Calls that wait again and again are too many; what has been taken just needs its time.
            if not was_behind:
                self._too_fast_per_s = self.rate_per_s
            if not was_behind or (waits and now_s - self._slowed_s >= limits.OVERLOAD_PATIENCE_S):
                self._slow_down(now_s, self.rate_per_s * limits.OVERLOAD_DECREASE)
            return
        is_near = self.rate_per_s > self._too_fast_per_s * limits.OVERLOAD_DECREASE
        self.rate_per_s *= limits.OVERLOAD_INCREASE if is_near else limits.OVERLOAD_RETURN
        offered_per_s = (self._taken_count + self._refused_count) / span_s
        if self.rate_per_s > limits.OVERLOAD_RELIEF * offered_per_s:
            # Fewer come than may.
            self.rate_per_s = inf

    def _slow_down(self, now_s: float, rate_per_s: float) -> None:
        self.rate_per_s = max(rate_per_s, limits.OVERLOAD_EXECUTIONS_PER_S_MIN)
        self._slowed_s = now_s

    def refusal(self, client: str, count: int = 1) -> RunnerError | None:
        """Takes `count` executions of a client, or says why not: the same object throughout an interval."""
        if self.rate_per_s < inf:
            # While calls wait, refusing goes before taking: it is what makes them wait no longer.
            pace_per_s = self.rate_per_s * (limits.OVERLOAD_CATCH_UP if self._is_behind else 1.0)
            span_s = clock.monotonic_s() - self._interval_began_s
            quota = pace_per_s * max(span_s, limits.OVERLOAD_INTERVAL_S)
            if self._taken_count >= quota and self._taken[client] >= quota / self._clients_count:
                self._refused_count += count
                if self._refusal is None and self._is_short_handed():
                    self._refusal = ShortHanded()
                elif self._refusal is None:
                    wait_s = max(4 * self._standing_wait_s, limits.OVERLOAD_RETRY_S_MIN)
                    self._refusal = AtCapacity(_TOO_MANY, retry_after_s=min(wait_s, limits.OVERLOAD_RETRY_S_MAX))
                return self._refusal
        self._taken[client] += count
        self._taken_count += count
        return None
