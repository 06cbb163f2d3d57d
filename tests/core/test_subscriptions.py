"""Subscriptions of `call: asyncapi` in a walk: what is asked for, what is consumed, and what comes of it."""

from random import Random
from typing import Any

import pytest

from fastrunner._core import Cancel, EffectFailure, EffectResult, InvalidWorkflow, Pause, Resume, TimerDue
from fastrunner.base import limits
from tests.core.lies import Truth, lie, refused
from tests.core.walking import START_MS, Run, error_type, plan_of
from tests.properties import factor

DOCUMENT = {"endpoint": "https://host.test/asyncapi.json"}


def message(payload: Any) -> dict[str, Any]:
    return {"payload": payload, "headers": {}, "correlationId": None}


def consuming(consume: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A task that subscribes."""
    subscription: dict[str, Any] = {"consume": consume}
    subscription |= {key: members.pop(key) for key in ("filter", "foreach") if key in members}
    arguments = {"document": DOCUMENT, "operation": "receive", "subscription": subscription}
    return {"call": "asyncapi", "with": arguments, **members}


def start(task: dict[str, Any], **sections: Any) -> Run:
    """A walk of one task, restored after every turn."""
    return Run(plan_of([{"s": task}], **sections), restoring=True)


def asked(run: Run) -> dict[str, Any]:
    """What the one effect in flight is to do."""
    (effect,) = run.open.values()
    arguments: dict[str, Any] = run.arguments(effect)["subscription"]
    return arguments


def bring(run: Run, *payloads: Any, position: Any = 1, after_ms: int = 0) -> None:
    """Answers the effect in flight with messages."""
    (effect_id,) = run.open
    value = {"messages": [message(payload) for payload in payloads], "position": position}
    run.resume(EffectResult(effect_id, value), after_ms)


def payloads(run: Run) -> list[Any]:
    return [each["payload"] for each in run.output]


# --- how much is consumed ---


def test_an_amount_is_asked_for_until_it_is_there() -> None:
    run = start(consuming({"amount": 3}))
    begun = {"amount": 3, "ends_at_ms": None, "after": None, "taken": 0, "consumer": "execution/do/0/s/1"}
    assert asked(run) == begun
    bring(run, 1, 2, position="p1")
    assert asked(run) == begun | {"amount": 1, "after": "p1", "taken": 2}
    bring(run, 3, position="p2")
    # What was consumed counts: now it is acknowledged, and nothing more is wanted.
    assert asked(run) == begun | {"amount": 0, "after": "p2", "taken": 1}
    assert run.status == "running"
    bring(run)
    assert run.output == [message(1), message(2), message(3)]
    assert run.log == ["s started", "s completed", "workflow_completed"]


def test_keys_of_the_effects_differ() -> None:
    run = start(consuming({"amount": 2}))
    keys = set()
    for _ in range(3):
        keys |= {effect.idempotency_key for effect in run.open.values()}
        bring(run, 1)
    assert len(keys) == 3
    assert run.status == "completed"


@pytest.mark.parametrize("consume", [{"amount": 0}, {"amount": -1}, {"amount": 5, "for": "PT0S"}])
def test_nothing_is_wanted(consume: dict[str, Any]) -> None:
    run = start(consuming(consume))
    assert (run.output, run.open) == ([], {})


def test_while_is_asked_after_each_message_and_sees_it() -> None:
    run = start(consuming({"while": "${ .payload < 3 }"}))
    assert asked(run)["amount"] is None
    bring(run, 1, 2, 5, 1)
    assert asked(run) | {"consumer": ""} == {"amount": 0, "ends_at_ms": None, "after": 1, "taken": 3, "consumer": ""}
    bring(run)
    assert payloads(run) == [1, 2, 5]


def test_until_is_asked_before_a_message_is_accepted() -> None:
    run = start(consuming({"until": "${ .payload == 5 }"}))
    bring(run, 1, 2)
    bring(run, 3, 5, 1)
    # The message that ends it is nobody's yet.
    assert (asked(run)["amount"], asked(run)["taken"]) == (0, 1)
    bring(run)
    assert payloads(run) == [1, 2, 3]


def test_filter_decides_which_messages_are_meant() -> None:
    wrapped = '${ .payload.kind == "a" and .headers == {} and .correlationId == null }'
    run = start(consuming({"amount": 2}, filter=wrapped))
    bring(run, {"kind": "b"}, {"kind": "a", "n": 1}, {"kind": "b"})
    assert (asked(run)["amount"], asked(run)["taken"]) == (1, 3)
    bring(run, {"kind": "a", "n": 2})
    bring(run)
    assert [each["n"] for each in payloads(run)] == [1, 2]


@pytest.mark.parametrize("at", ["filter", "while", "until"])
def test_conditions_that_fail_are_the_tasks_fault(at: str) -> None:
    condition = "${ .payload | explode }"
    task = consuming({"amount": 1}, filter=condition) if at == "filter" else consuming({at: condition})
    run = start(task)
    bring(run, 1)
    assert (run.error["type"], run.error["instance"]) == (error_type("expression"), "/do/0/s")
    assert not run.open


# --- for ---


def test_the_time_is_up_with_what_was_consumed() -> None:
    run = start(consuming({"while": "${ true }", "for": "PT10S"}))
    assert asked(run)["ends_at_ms"] == START_MS + 10_000
    bring(run, 1, 2, after_ms=4_000)
    assert asked(run)["ends_at_ms"] == START_MS + 10_000
    bring(run, after_ms=6_001)
    assert payloads(run) == [1, 2]


def test_what_came_in_time_is_consumed_though_it_is_heard_of_late() -> None:
    run = start(consuming({"while": "${ true }", "for": "PT10S"}))
    bring(run, 1, 2, after_ms=10_005)
    assert (asked(run)["amount"], asked(run)["taken"]) == (0, 2)
    bring(run)
    assert payloads(run) == [1, 2]


def test_the_time_goes_on_during_a_pause_and_a_timeout_does_not() -> None:
    run = start(consuming({"amount": 5, "for": "PT10S"}, timeout={"after": "PT20S"}))
    run.resume(Pause("later"))
    bring(run, 1, after_ms=9_000)
    assert run.status == "paused"
    run.resume(Resume("now"), after_ms=11_000)
    assert (asked(run)["amount"], asked(run)["taken"]) == (0, 1)
    assert run.walk.wake_at_ms == START_MS + 40_000
    bring(run)
    assert payloads(run) == [1]


# --- foreach ---


def test_tasks_run_for_one_message_at_a_time() -> None:
    body = [{"w": {"wait": "PT1S"}}, {"t": {"set": "${ {got: $m.payload, at: $n, input: .payload} }"}}]
    iterator = {
        "item": "m",
        "at": "n",
        "do": body,
        "output": {"as": "${ .got * 10 + $n }"},
        "export": {"as": "${ [$context // [], .] }"},
    }
    run = start(consuming({"amount": 2}, foreach=iterator), output={"as": "${ [., $context] }"})
    assert asked(run)["amount"] == 1
    bring(run, 1)
    assert not run.open
    run.tick()
    assert (asked(run)["amount"], asked(run)["taken"]) == (1, 1)
    bring(run, 2)
    run.tick()
    assert asked(run)["amount"] == 0
    bring(run)
    assert run.output == [[10, 21], [[[], 10], 21]]
    assert run.log[1:4] == ["w started", "w completed", "t started"]
    assert [list(told.iteration) for told in run.events if told.task_name == "t"] == [[0], [0], [1], [1]]


def test_while_and_time_after_the_tasks_of_a_message() -> None:
    iterator = {"do": [{"w": {"wait": "PT8S"}}], "export": {"as": "${ $item.payload }"}}
    run = start(consuming({"while": "${ $context < 2 }"}, foreach=iterator))
    bring(run, 1)
    run.tick()
    bring(run, 2)
    run.tick()
    assert asked(run)["amount"] == 0
    run = start(consuming({"amount": 9, "for": "PT10S"}, foreach=iterator))
    bring(run, 1)
    run.tick()
    bring(run, 2)
    # The time is up meanwhile: the tasks end, and no further message is wanted.
    run.tick()
    assert asked(run)["amount"] == 0
    bring(run)
    assert payloads(run) == [1, 2]


def test_exit_ends_the_subscription() -> None:
    iterator = {"do": [{"e": {"set": {"a": 1}, "then": "exit"}}, {"f": {"set": {"a": 2}}}]}
    run = start(consuming({"amount": 5}, foreach=iterator))
    bring(run, 1)
    assert (asked(run)["amount"], asked(run)["taken"]) == (0, 1)
    bring(run)
    assert run.output == [{"a": 1}]


def test_a_message_whose_tasks_fail_is_not_acknowledged() -> None:
    iterator = {"do": [{"r": {"raise": {"error": {"type": "https://x.test/odd", "status": 400}}}}]}
    run = start(consuming({"amount": 5}, foreach=iterator))
    bring(run, 1)
    assert run.status == "failed"
    assert not run.open


def test_foreach_without_tasks_makes_something_of_each() -> None:
    run = start(consuming({"amount": 2}, foreach={"at": "n", "output": {"as": "${ [.payload, $n] }"}}))
    assert asked(run)["amount"] == 2
    bring(run, "a", "b")
    bring(run)
    assert run.output == [["a", 0], ["b", 1]]


# --- what is kept ---


def test_what_is_forever_keeps_nothing() -> None:
    for consume in ({"while": "${ true }"}, {"until": "${ false }"}):
        run = start(consuming(consume))
        sizes = []
        for number in range(3):
            bring(run, "x" * 200, position=number)
            sizes.append(len(run.walk.snapshot()))
        assert sizes[2] < sizes[0] + 20


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ITERATIONS_PER_LOOP_MAX", 3)
    run = start(consuming({"amount": 9}))
    bring(run, 1, 2)
    bring(run, 3, 4)
    assert "keeps no more for its output" in run.error["detail"]
    monkeypatch.setattr(limits, "DATA_SIZE_BYTES_MAX", 300)
    run = start(consuming({"amount": 9}))
    for _ in range(3):
        bring(run, "x" * 100)
    assert "messages consumed are larger than 300 bytes" in run.error["detail"]


def test_messages_are_steps() -> None:
    """Many messages that come at a time hold nobody up."""
    run = start(consuming({"amount": 1_000}))
    turns = run.turns
    bring(run, *range(1_000))
    assert run.turns - turns > 2
    bring(run)
    assert payloads(run) == list(range(1_000))


# --- outcomes, commands ---


def test_a_failure_is_the_tasks_and_may_be_tried_again() -> None:
    retry = {"retry": {"limit": {"attempt": {"count": 1}}}}
    run = start({"try": [{"c": consuming({"amount": 1})}], "catch": retry})
    bring_failure(run)
    assert asked(run)["consumer"] == "execution/do/0/s/try/0/c/1"
    bring_failure(run)
    assert (run.status, run.error["status"]) == ("failed", 503)


def bring_failure(run: Run) -> None:
    (effect_id,) = run.open
    run.resume(EffectFailure(effect_id, "communication", 503, "Connection Lost", "gone"))


@pytest.mark.parametrize("value", [None, [], {}, {"messages": 1}])
def test_outcomes_that_are_no_messages(value: Any) -> None:
    run = start(consuming({"amount": 1}))
    (effect_id,) = run.open
    run.resume(EffectResult(effect_id, value))
    assert run.error["type"] == error_type("runtime")


def test_a_timeout_interrupts_the_wait() -> None:
    run = start(consuming({"amount": 1}, timeout={"after": "PT5S"}))
    run.resume(TimerDue(), after_ms=5_000)
    assert (run.error["type"], run.interrupted) == (error_type("timeout"), [1])


def test_a_graceful_cancel_waits_for_no_message() -> None:
    run = start(consuming({"amount": 1}))
    run.resume(Cancel("enough", False, 30_000))
    assert (run.status, run.interrupted) == ("cancelled", [1])


def test_a_graceful_cancel_waits_for_what_is_acknowledged() -> None:
    run = start(consuming({"amount": 1}))
    bring(run, 1)
    run.resume(Cancel("enough", False, 30_000))
    assert (run.status, run.interrupted) == ("running", [])
    bring(run)
    assert run.status == "cancelled"


def test_a_pause_holds_messages() -> None:
    run = start(consuming({"amount": 2}))
    run.resume(Pause("later"))
    bring(run, 1)
    assert not run.open
    run.resume(Resume("now"))
    assert (asked(run)["amount"], asked(run)["taken"]) == (1, 1)


def test_branches_that_call_one_function_are_two_consumers() -> None:
    use = {"functions": {"f": consuming({"amount": 1})}}
    branches = [{"a": {"call": "f", "with": {}}}, {"b": {"call": "f", "with": {}}}]
    run = Run(plan_of([{"k": {"fork": {"branches": branches}}}], use=use), restoring=True)
    consumers = {run.arguments(effect)["subscription"]["consumer"] for effect in run.open.values()}
    assert len(consumers) == 2


# --- snapshots that lie ---


def test_lies_about_a_subscription_are_refused_or_behave() -> None:
    """Before the first message, while the tasks of one run, between messages, and at its end."""
    iterator = {"do": [{"w": {"wait": "PT1S"}}], "export": {"as": "${ .payload }"}}
    plan = plan_of([{"s": consuming({"amount": 2, "for": "PT9S"}, foreach=iterator, filter="${ .payload.n == 1 }")}])
    run = Run(plan)
    truths = [Truth(plan, None, run.walk.snapshot(), run.now_ms)]
    for step in (lambda: bring(run, {"n": 1}), run.tick, lambda: bring(run, {"n": 0}), lambda: bring(run, {"n": 1})):
        step()
        truths.append(Truth(plan, None, run.walk.snapshot(), run.now_ms))
    run.tick()
    assert asked(run)["amount"] == 0
    truths.append(Truth(plan, None, run.walk.snapshot(), run.now_ms))
    choices = Random(20_261_129)
    for truth in truths:
        assert not refused(truth, truth.fields, Random(0))
    outcomes = [refused(truth, lie(truth, choices), choices) for truth in truths for _ in range(300 * factor)]
    assert 0.3 < sum(outcomes) / len(outcomes) < 0.95


# --- what is no subscription ---


def test_a_message_is_published_by_one_effect() -> None:
    arguments = {
        "document": DOCUMENT,
        "channel": "c",
        "protocol": "redis",
        "message": {"payload": {"n": "${ .n }"}, "headers": {"h": "x"}},
        "authentication": {"bearer": {"token": "t"}},
    }
    run = Run(plan_of([{"p": {"call": "asyncapi", "with": arguments}}]), {"n": 7}, restoring=True)
    (effect,) = run.open.values()
    assert run.arguments(effect) == {
        "document": {"uri": "https://host.test/asyncapi.json"},
        "channel": "c",
        "protocol": "redis",
        "message": {"payload": {"n": 7}, "headers": {"h": "x"}},
        "authentication": {"bearer": {"token": "t"}},
    }
    run.resume(EffectResult(effect.effect_id, None))
    assert (run.status, run.output) == ("completed", None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"channel": "c"}, "operation"),
        ({"operation": None}, "operation"),
        ({"message": {"payload": {}}}, "message"),
        ({"subscription": None}, "message"),
        ({"subscription": {"consume": {"for": "PT1S"}}}, "amount"),
        ({"subscription": {"consume": {"amount": 1, "while": "${ true }"}}}, "amount"),
        ({"subscription": {"consume": {"amount": 1}, "filter": ".payload"}}, "filter"),
        ({"subscription": {}}, "consume"),
        ({"subscription": None, "message": {"payload": "${ . }"}}, "payload"),
        ({"protocol": "carrier-pigeon"}, "protocol"),
        ({"server": {"variables": {}}}, "name"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], said: str) -> None:
    task = consuming({"amount": 1})
    arguments = {key: value for key, value in {**task["with"], **changed}.items() if value is not None}
    with pytest.raises(InvalidWorkflow) as refused:
        plan_of([{"s": {"call": "asyncapi", "with": arguments}}])
    assert said in str([(problem.pointer, problem.message) for problem in refused.value.problems])
