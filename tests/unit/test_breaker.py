"""The circuit breaker: when it opens, when it probes, how it closes."""

import pytest

from fastrunner.base.limits import CALLBACK_REFUSALS_MAX, CALLBACK_SUSPENSION_S_MAX, CALLBACK_SUSPENSION_S_MIN
from fastrunner.callback.breaker import Breaker, BreakerState


def half() -> float:
    return 0.5


def test_a_failure_opens_it_until_the_pause_is_over_then_one_probe_goes() -> None:
    breaker = Breaker(half)
    assert breaker.admit(0.0)
    assert breaker.failed(10.0)
    assert not breaker.failed(10.1), "later failures of deliveries under way change nothing"
    assert breaker.retry_at_s == pytest.approx(10.0 + CALLBACK_SUSPENSION_S_MIN)
    assert not breaker.admit(10.2)
    assert breaker.admit(10.5)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.admit(10.6), "one probe at a time"
    assert breaker.succeeded()
    assert breaker.closed
    assert not breaker.succeeded()


def test_failed_probes_double_the_pause_up_to_its_bound_and_success_resets_it() -> None:
    breaker, now, pauses = Breaker(half), 0.0, []
    for _ in range(12):
        breaker.failed(now)
        pauses.append(breaker.retry_at_s - now)
        now = breaker.retry_at_s
        assert breaker.admit(now)
    assert pauses == pytest.approx([min(0.5 * 2**n, CALLBACK_SUSPENSION_S_MAX) for n in range(12)])
    breaker.succeeded()
    breaker.failed(now)
    assert breaker.retry_at_s - now == pytest.approx(CALLBACK_SUSPENSION_S_MIN)


def test_pauses_are_spread() -> None:
    pauses = []
    for draws in ([0.0], [0.999]):
        breaker = Breaker(draws.pop)
        breaker.failed(0.0)
        pauses.append(breaker.retry_at_s)
    assert pauses[0] == pytest.approx(CALLBACK_SUSPENSION_S_MIN * 0.75)
    assert pauses[1] > CALLBACK_SUSPENSION_S_MIN * 1.2


def test_refusals_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    breaker = Breaker(half)
    for _ in range(CALLBACK_REFUSALS_MAX - 1):
        assert not breaker.refused(0.0)
    breaker.succeeded()
    for _ in range(CALLBACK_REFUSALS_MAX - 1):
        assert not breaker.refused(0.0)
    assert breaker.refused(0.0)
    assert not breaker.closed


def test_a_refused_probe_goes_on_with_the_suspension() -> None:
    breaker = Breaker(half)
    breaker.failed(0.0)
    assert breaker.admit(1.0)
    assert not breaker.refused(1.0), "it had begun before"
    assert breaker.state is BreakerState.OPEN


def test_an_abandoned_probe_lets_the_next_delivery_probe() -> None:
    breaker = Breaker(half)
    breaker.failed(0.0)
    assert breaker.admit(1.0)
    breaker.abandoned()
    assert breaker.admit(1.0)
