"""Support: shares of the loop, of admission and of an overloaded worker: who goes first, who is refused."""

from functools import partial
from math import inf

import pytest

from fastrunner.base import limits
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.fairness import Allowance, FairQueue
from fastrunner.errors import AtCapacity, ShortHanded, Unavailable
from fastrunner.service.overload import Overload
from tests.integration.engines import admission_of


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as a list of one time."""
    now = [1_000.0]
    monkeypatch.setattr("fastrunner.base.clock.monotonic_s", lambda: now[0])
    monkeypatch.setattr("fastrunner.engine.embedded.admit.admission.monotonic_s", lambda: now[0])
    monkeypatch.setattr("fastrunner.engine.embedded.run.fairness.monotonic_s", lambda: now[0])
    return now


def execution(name: str, client: str) -> Execution:
    made = Execution(0, 1, name, 0, b"", False)
    made.client = client
    return made


def test_clients_take_turns_and_their_executions_keep_their_order() -> None:
    queue: FairQueue[Execution] = FairQueue()
    for number in range(1_000):
        queue.push("many", execution(f"many-{number}", "many"))
    queue.push("one", execution("only", "one"))
    assert len(queue) == 1_001
    assert [queue.pop().execution_id for _ in range(4)] == ["many-0", "only", "many-1", "many-2"]
    queue.push("one", execution("again", "one"))
    assert [queue.pop().execution_id for _ in range(2)] == ["many-3", "again"]
    while queue:
        last = queue.pop()
    assert last.execution_id == "many-999"
    with pytest.raises(IndexError):
        queue.pop()


def test_what_a_client_pushed_last_can_be_taken_back() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(4):
        queue.push("many", number)
    queue.push("one", 9)
    assert not queue.take_back("many", [1, 2])
    assert not queue.take_back("many", [0, 1, 2, 3, 4])
    assert not queue.take_back("nobody", [1])
    assert not queue.take_back("many", [])
    assert queue.take_back("many", [2, 3])
    assert len(queue) == 3
    assert queue.take_back("one", [9])
    assert [queue.pop() for _ in range(len(queue))] == [0, 1]


def test_allowance_of_long_executions_is_a_rate(at: list[float]) -> None:
    rate = limits.LONG_EVENTS_SIZE_BYTES_PER_S_MAX
    allowance = Allowance()
    allowance.spend(rate - 1)
    assert allowance.wait_s() == 0.0
    allowance.spend(rate // 2 + 1)
    assert allowance.wait_s() == pytest.approx(0.5)
    at[0] += 0.6
    assert allowance.wait_s() == 0.0
    at[0] += 1_000
    assert allowance.wait_s() == 0.0
    allowance.spend(2 * rate)
    assert allowance.wait_s() == pytest.approx(1.0)


def test_client_is_refused_beyond_its_rate_and_told_when_to_come_again(at: list[float]) -> None:
    admission = admission_of(10.0)
    for _ in range(10):
        admission.check("fast")
    with pytest.raises(AtCapacity, match="FASTRUNNER_CLIENT_EXECUTIONS_PER_S") as refusal:
        admission.check("fast")
    assert refusal.value.retry_after_s == pytest.approx(0.1)
    admission.check("other")
    at[0] += refusal.value.retry_after_s
    admission.check("fast")
    with pytest.raises(AtCapacity):
        admission.check("fast")


def test_engine_that_is_behind_refuses_who_has_most_in_it(at: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.ADMISSION_EXECUTIONS_MIN", 10)
    monkeypatch.setattr("fastrunner.base.limits.ADMISSION_BURST_COUNT_MAX", 15)
    monkeypatch.setattr("fastrunner.base.limits.UNCOMMITTED_EXECUTIONS_MAX", 20)
    admission = admission_of(1e9)
    waiting = [execution(f"execution-{number}", "many") for number in range(19)]
    for each in waiting:
        admission.check("many")
        admission.entered(each, 0)
    at[0] += limits.ADMISSION_BURST_S_MAX
    admission.check("many")
    at[0] += 0.1
    with pytest.raises(AtCapacity, match="19 executions wait") as refusal:
        admission.check("many")
    assert refusal.value.retry_after_s == pytest.approx(4 * 1.1)
    admission.check("one")
    admission.entered(execution("only", "one"), 0)
    for each in waiting[:12]:
        admission.left(each)
        admission.left(each)
    admission.check("many")
    for number in range(32):
        admission.entered(execution(f"further-{number}", f"client-{number}"), 0)
    with pytest.raises(AtCapacity):
        admission.check("new")


def test_standing_queue_is_judged_until_nothing_is_refused(at: list[float]) -> None:
    admission = admission_of(1e9)
    waiting: list[Execution] = []
    refused = []
    for tick in range(3_000):
        at[0] += 0.01
        # Three come, one is accepted every hundredth of a second; then one comes every third of one.
        for number in range(3 if tick < 1_500 else tick % 3 == 0):
            try:
                admission.check("client")
            except AtCapacity:
                refused.append(tick)
                continue
            waiting.append(execution(f"{tick}-{number}", "client"))
            admission.entered(waiting[-1], 0)
        if waiting:
            admission.left(waiting.pop(0))
        if 700 < tick < 1_500:
            assert len(waiting) <= limits.ADMISSION_EXECUTIONS_MIN + 3
    assert 90 < min(refused) < 500
    assert max(refused) < 1_600
    assert not waiting


def pass_time(at: list[float], overload: Overload, wait_s: float, offered: int, ticks: int = 50) -> int:
    """A second, or so many fiftieths, in which executions come evenly; how many were taken."""
    taken = 0
    for _ in range(ticks):
        at[0] += 0.02
        for _ in range(offered // 50):
            taken += overload.refusal("client") is None
        overload.measured(wait_s)
    return taken


def test_burst_is_no_overload_and_a_lasting_wait_is(at: list[float]) -> None:
    overload = Overload(lambda: False)
    second = partial(pass_time, at, overload)
    assert second(0.01, 1_000) == 1_000
    assert second(0.1, 10_000, ticks=6) == 1_200
    assert second(0.0, 1_000) == 1_000
    assert second(0.1, 1_000, ticks=20) == 400
    assert second(0.0, 1_000) == 1_000
    assert overload.rate_per_s == inf
    second(0.1, 3_000)
    assert second(0.1, 1_000) < 0.2 * 1_000
    refusal = overload.refusal("client", 1_000)
    assert refusal is None or limits.OVERLOAD_RETRY_S_MIN <= refusal.retry_after_s <= limits.OVERLOAD_RETRY_S_MAX
    assert second(0.0, 1_000) < second(0.0, 1_000)
    for _ in range(2):
        second(0.0, 50)
    assert overload.rate_per_s == inf
    assert second(0.01, 2_000) == 2_000


def test_pace_comes_back_to_what_can_be_taken_and_stays_near_it(at: list[float]) -> None:
    capacity_per_s, backlog = 1_000.0, [0.0]
    overload = Overload(lambda: backlog[0] > 100)
    taken = []
    for tick in range(1_000):
        at[0] += 0.02
        accepted = sum(overload.refusal("client") is None for _ in range(60))
        backlog[0] = max(0.0, backlog[0] + accepted - capacity_per_s * 0.02)
        overload.measured(0.0)
        taken.append(accepted if tick >= 250 else 0)
        assert backlog[0] < 1_000
    assert 0.7 * capacity_per_s < sum(taken) / (750 * 0.02) < 1.05 * capacity_per_s


def test_refusals_of_one_interval_are_the_same_object(at: list[float]) -> None:
    overload = Overload(lambda: True)
    pass_time(at, overload, 0.5, 3_000)
    refusals = [overload.refusal("client") for _ in range(200)]
    assert refusals[-1] is not None
    assert refusals[-1] is refusals[-2]
    assert limits.OVERLOAD_RETRY_S_MIN <= refusals[-1].retry_after_s <= limits.OVERLOAD_RETRY_S_MAX


def test_too_much_while_another_worker_is_replaced_is_asked_again_like_any_restart(at: list[float]) -> None:
    overload = Overload(lambda: True, lambda: True)
    pass_time(at, overload, 0.5, 3_000)
    refusals = [overload.refusal("client") for _ in range(200)]
    assert isinstance(refusals[-1], ShortHanded)
    assert refusals[-1].grpc_code == Unavailable.grpc_code


def test_what_piles_up_while_a_worker_is_replaced_is_no_overload(at: list[float]) -> None:
    overload = Overload(lambda: False, lambda: True)
    for wait_s, is_overload in (
        (0.9 * limits.SHORT_HANDED_DELAY_S_MAX, False),
        (limits.SHORT_HANDED_DELAY_S_MAX, True),
    ):
        for _ in range(100):
            at[0] += 0.02
            for _ in range(60):
                overload.refusal("client")
            overload.measured(wait_s + 0.01)
        assert (overload.rate_per_s < inf) is is_overload


def test_one_long_wait_among_short_ones_is_a_hiccup(at: list[float]) -> None:
    overload = Overload(lambda: False)
    for tick in range(500):
        at[0] += 0.01
        overload.measured(0.0 if tick % 5 == 0 else 0.5)
    assert overload.rate_per_s == inf


def test_overloaded_worker_keeps_a_share_for_every_client(at: list[float]) -> None:
    overload = Overload(lambda: False)
    taken = {"many": 0, "one": 0}
    for tick in range(300):
        at[0] += 0.02
        for client in ("many",) * 20 + ("one",) * (tick % 5 == 0):
            if overload.refusal(client) is None:
                taken[client] += tick >= 150
            else:
                assert client == "many"
        overload.measured(0.03 if tick < 150 or taken["many"] * 2 > tick * 10 else 0.0)
    assert taken["one"] == 30
