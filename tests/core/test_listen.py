"""`listen` and `emit` in a walk: what is consumed, what comes of it, and what a driver is asked for."""

import re
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import (
    Cancel,
    EffectFailure,
    EffectResult,
    EventArrived,
    EventMatcher,
    Pause,
    RenderFault,
    Resume,
    Subscribe,
    Walk,
)
from fastrunner._core import compile as compile_document
from fastrunner.base import limits
from tests.core.walking import Run, call, error_type, plan_of, raising


def event(type_: str, data: Any = None, **attributes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "/s", "type": type_, "data": data, **attributes}


def of(type_: str, **members: Any) -> dict[str, Any]:
    """A filter of events of a type."""
    return {"with": {"type": type_}, **members}


def listen(to: dict[str, Any], *, read: str | None = None, **members: Any) -> dict[str, Any]:
    return {"listen": {"to": to, **({} if read is None else {"read": read})}, **members}


def start(task: dict[str, Any], input_: Any = None, **sections: Any) -> Run:
    """A walk of one task, restored after every turn."""
    return Run(plan_of([{"l": task}], **sections), input_, restoring=True)


def heard(task: dict[str, Any], *events: dict[str, Any], input_: Any = None) -> Any:
    """The output of a listen that these events end."""
    run = start(task, input_)
    for number, one in enumerate(events):
        assert run.status == "running", f"ended before event {number}"
        run.publish(one)
    assert not run.subscriptions
    return run.output


# --- strategies ---


def test_one_ends_with_the_first_match() -> None:
    assert heard(listen({"one": of("a")}), event("b", 1), event("a", 2)) == [2]


def test_any_ends_with_the_first_match_of_any() -> None:
    assert heard(listen({"any": [of("a"), of("b")]}), event("c", 1), event("b", 2)) == [2]
    assert heard(listen({"any": []}), event("x", 1)) == [1]


def test_all_takes_the_first_of_each_in_order_of_arrival() -> None:
    task = listen({"all": [of("a"), of("b"), of("c")]})
    assert heard(task, event("c", 1), event("c", 2), event("a", 3), event("c", 4), event("b", 5)) == [1, 3, 5]


def test_event_that_serves_several_of_all_is_consumed_once() -> None:
    assert heard(listen({"all": [of("a"), of("a|b")]}), event("a", 1)) == [1]


def test_all_of_nothing_is_there_at_once() -> None:
    run = start(listen({"all": []}))
    assert (run.output, run.subscriptions, run.log) == ([], {}, ["l started", "l completed", "workflow_completed"])
    assert start(listen({"any": [of("a")], "until": {"all": []}})).output == []


def test_until_as_an_expression_is_asked_after_each_event() -> None:
    events = [event("a", number) for number in range(4)]
    assert heard(listen({"any": [], "until": "( . | length ) > 3"}), *events) == [0, 1, 2, 3]
    assert heard(listen({"any": [of("a")], "until": "${ .[-1].done }"}), event("a", {"done": 0})) == [{"done": 0}]


def test_until_that_fails_is_the_tasks_fault() -> None:
    run = start(listen({"any": [], "until": ".[0] | explode"}))
    run.publish(event("a", 1))
    assert (run.error["type"], run.error["instance"]) == (error_type("expression"), "/do/0/l")


def test_until_as_a_strategy_leaves_its_events_out() -> None:
    task = listen({"any": [of("a")], "until": {"all": [of("b"), of("c")]}})
    assert heard(task, event("a", 1), event("c"), event("a", 2), event("c"), event("b")) == [1, 2]
    # One that is for both is consumed.
    assert heard(listen({"any": [], "until": {"one": of("end")}}), event("a", 1), event("end", 2)) == [1, 2]


# --- what is read ---


@pytest.mark.parametrize(
    ("read", "expected"), [(None, {"a": 1.5}), ("data", {"a": 1.5}), ("raw", '{"a":1.5}'), ("envelope", None)]
)
def test_forms_of_reading(read: str | None, expected: Any) -> None:
    told = event("a", {"a": 1.5}, roomid="1")
    assert heard(listen({"one": of("a")}, read=read), told) == [told if read == "envelope" else expected]


def test_output_as_and_export_see_the_array() -> None:
    task = listen({"one": of("a")}, output={"as": ".[0]"}, export={"as": "{last: .}"})
    run = Run(plan_of([{"l": task}, {"s": {"set": "${ [., $context] }"}}]), restoring=True)
    run.publish(event("a", 7))
    assert run.output == [7, {"last": 7}]


# --- the workflow's data in filters ---


def test_filters_see_the_workflows_data() -> None:
    by_data = {"with": {"type": "${ $input.want }", "data": "${ .n > $input.least }"}}
    task = listen({"one": by_data}, input={"from": "$workflow.input"})
    run = start(task, {"want": "a", "least": 3})
    assert run.publish(event("a", {"n": 3})) == run.publish(event("b", {"n": 9})) == []
    run.publish(event("a", {"n": 4}))
    assert run.output == [{"n": 4}]


def test_data_is_compared_as_a_whole() -> None:
    task = listen({"one": {"with": {"data": {"order": "${ $input.id }", "state": "paid"}}}})
    assert heard(task, event("x", {"order": 1}), event("x", {"order": 5, "state": "paid"}), input_={"id": 5}) == [
        {"order": 5, "state": "paid"}
    ]


def test_filters_see_what_the_context_was_at_the_beginning() -> None:
    iterator = {"export": {"as": '{t: "b"}'}}
    task = listen({"any": [{"with": {"type": '${ $context.t // "a" }'}}], "until": "length == 2"}, foreach=iterator)
    assert heard(task, event("a", 1), event("b", 2), event("a", 3)) == [1, 3]


def test_loop_variables_in_filters() -> None:
    loop = {"for": {"in": '["a", "b"]'}, "do": [{"l": listen({"one": {"with": {"type": "${ $item }"}}})}]}
    run = Run(plan_of([{"f": loop}]), restoring=True)
    assert run.publish(event("b", 0)) == []
    for type_ in ("a", "b"):
        assert len(run.publish(event(type_, type_))) == 1
    assert run.output == ["b"]
    iterations = [list(told.iteration) for told in run.events if told.event_type == "task_started"]
    assert iterations == [[], [0], [1]]


def test_large_values_are_left_to_the_walk() -> None:
    """A filter holds no more of the workflow's data than its bound."""
    large = "x" * limits.EVENT_FILTER_SIZE_BYTES_MAX
    task = listen({"one": {"with": {"type": "a", "data": "${ . == $input }"}}})
    run = start(task, large)
    (subscription,) = run.subscriptions.values()
    assert subscription.filter == {"any": [{"with": {"type": {"is": "a"}, "data": {}}}]}
    assert run.publish(event("a", "other")) != []
    assert run.status == "running"
    run.publish(event("a", large))
    assert run.output == [large]


def test_many_filters_are_left_to_the_walk() -> None:
    run = start(listen({"any": [of(f"type-{number}" + "x" * 100) for number in range(4_000)]}))
    (subscription,) = run.subscriptions.values()
    assert subscription.filter == {"any": [{"with": {}}]}
    run.publish(event("no"))
    assert run.status == "running"
    run.publish(event("type-3999" + "x" * 100, 1))
    assert run.output == [1]


def test_clock_in_a_filter_is_the_walks() -> None:
    run = start(listen({"one": {"with": {"data": "${ .at < now }"}}}))
    (subscription,) = run.subscriptions.values()
    assert subscription.filter == {"any": [{"with": {"data": {}}}]}
    run.publish(event("a", {"at": run.now_ms / 1000 + 5}))
    assert run.status == "running"
    run.publish(event("a", {"at": run.now_ms / 1000}), 1)
    assert run.status == "completed"


def test_secrets_are_in_no_filter_and_no_snapshot() -> None:
    correlate = {"c": {"from": ".c", "expect": "${ $secrets.k }"}}
    to = {"one": {"with": {"data": "${ .key == $secrets.k }"}, "correlate": correlate}}
    plan = plan_of([{"l": listen(to)}], use={"secrets": ["k"]})
    walk, turn = Walk.start(plan, "x", None, 1, secrets={"k": "very-secret"})
    (subscription,) = turn.actions
    assert isinstance(subscription, Subscribe)
    assert subscription.filter == {"any": [{"with": {"data": {}}, "correlate": [{"key": "c"}]}]}
    assert b"very-secret" not in walk.snapshot()
    walk = Walk.restore(plan, "x", None, walk.snapshot(), secrets={"k": "very-secret"})
    statuses = []
    for key, told in (("other", "very-secret"), ("very-secret", "other"), ("very-secret", "very-secret")):
        walk.resume(EventArrived(1, event("a", {"key": key}, c=told)), 2)
        statuses.append(walk.status)
    assert statuses == ["running", "running", "completed"]


def test_secret_that_is_not_there_is_the_tasks_fault() -> None:
    plan = plan_of([{"l": listen({"one": {"with": {"data": "${ .key == $secrets.k }"}}})}], use={"secrets": ["k"]})
    walk, _ = Walk.start(plan, "x", None, 1, secrets={})
    walk.resume(EventArrived(1, event("a", {"key": 1})), 2)
    assert walk.error is not None
    assert walk.error["type"] == error_type("authorization")


# --- correlation ---


def test_expectation_is_evaluated_when_the_listen_begins() -> None:
    task = listen({"one": of("a", correlate={"order": {"from": ".data.order", "expect": "${ .id }"}})})
    events = [event("a", {"order": 4}), event("a", {"order": "5"}), event("a", {}), event("a", {"order": 5})]
    assert heard(task, *events, input_={"id": 5}) == [{"order": 5}]


def test_expectation_of_nothing_is_the_tasks_fault() -> None:
    """It would wait for ever."""
    run = start(listen({"one": of("a", correlate={"order": {"from": ".x", "expect": "${ .id }"}})}), {})
    assert run.error["type"] == error_type("expression")
    assert "order" in run.error["detail"]


def test_first_event_says_what_a_key_is() -> None:
    parts = [of(name, correlate={"room": {"from": ".roomid"}}) for name in ("a", "b")]
    run = start(listen({"all": parts}))
    # One without the key belongs to nobody.
    assert run.publish(event("a", 0)) == []
    run.publish(event("b", 1, roomid="7"))
    (subscription,) = run.subscriptions.values()
    assert EventMatcher(subscription.filter).probes == ((("type", "from:.roomid"), ('"a"', '"7"')),)
    assert run.publish(event("a", 2, roomid="8")) == run.publish(event("b", 3, roomid="7")) == []
    run.publish(event("a", 4, roomid="7"))
    assert run.output == [1, 4]


def test_nested_strategy_shares_the_keys() -> None:
    correlate = {"k": {"from": ".data.k"}}
    task = listen({"any": [of("a", correlate=correlate)], "until": {"one": of("end", correlate=correlate)}})
    events = [event("a", {"k": 1}), event("a", {"k": 2}), event("end", {"k": 2}), event("end", {"k": 1})]
    assert heard(task, *events) == [{"k": 1}]


# --- foreach ---


def test_tasks_for_each_event_have_a_scope_of_their_own() -> None:
    body = [{"s": {"set": "${ {it: $it, n: $n, dot: .} }"}}]
    iterator = {"item": "it", "at": "n", "do": body, "output": {"as": "[.it, .n, $n]"}, "export": {"as": "$output"}}
    task = listen({"any": [], "until": "length == 2"}, foreach=iterator, output={"as": "[., $context]"})
    assert heard(task, event("a", 5), event("b", 6)) == [[[5, 0, 0], [6, 1, 1]], [6, 1, 1]]


def test_elements_without_tasks() -> None:
    task = listen({"any": [], "until": "length == 2"}, foreach={"output": {"as": "{v: .}"}})
    assert heard(task, event("a", 1), event("a", 2)) == [{"v": 1}, {"v": 2}]
    assert heard(listen({"one": of("a")}, foreach={"do": []}), event("a", 1)) == [1]


def test_until_sees_what_was_read_and_not_what_was_made_of_it() -> None:
    iterator = {"do": [{"s": {"set": "${ 0 }"}}]}
    task = listen({"any": [], "until": "any(.[]; . == 3)"}, foreach=iterator)
    assert heard(task, event("a", 1), event("a", 3)) == [0, 0]


def test_no_event_is_wanted_while_the_tasks_for_one_run() -> None:
    iterator = {"do": [{"c": call(body="${ $item }")}]}
    run = start(listen({"any": [], "until": "length == 2"}, foreach=iterator))
    run.publish(event("a", 1))
    (number,) = run.subscriptions
    (effect,) = run.open.values()
    assert not run.walk.wants_event(number)
    before = run.walk.snapshot()
    run.resume(EventArrived(number, event("a", 9)))
    assert run.walk.snapshot() == before
    run.resume(EffectResult(effect.effect_id, "one"))
    assert run.walk.wants_event(number)
    run.publish(event("a", 2))
    (effect,) = run.open.values()
    assert run.arguments(effect)["body"] == 2
    run.resume(EffectResult(effect.effect_id, "two"))
    assert run.output == ["one", "two"]
    assert [list(told.iteration) for told in run.events if told.event_type == "task_completed"] == [[0], [1], []]


def test_event_that_ends_the_listen_has_its_tasks_first() -> None:
    iterator = {"do": [{"s": {"set": "${ [$item] }"}}]}
    task = listen({"all": [of("a"), of("b")]}, foreach=iterator)
    assert heard(task, event("b", 1), event("a", 2)) == [[1], [2]]


def test_exit_ends_the_listen_and_end_the_workflow() -> None:
    body = [{"s": {"set": "${ [.] }", "then": "exit"}}, {"no": raising()}]
    assert heard(listen({"any": [], "until": "length == 9"}, foreach={"do": body}), event("a", 1)) == [[1]]
    body = [{"s": {"set": "${ [.] }", "then": "end"}}]
    assert heard(listen({"any": [], "until": "length == 9"}, foreach={"do": body}), event("a", 1)) == [1]


def test_error_in_the_tasks_of_an_event_is_the_listens() -> None:
    task = {"try": [{"l": listen({"any": [], "until": "false"}, foreach={"do": [{"r": raising(418)}]})}], "catch": {}}
    run = start(task, 5)
    run.publish(event("a", 1))
    assert run.output == 5
    assert not run.subscriptions
    assert [entry for entry in run.log if "failed" in entry] == ["r failed", "l failed"]


def test_schema_of_what_is_made_of_an_event() -> None:
    iterator = {"output": {"schema": {"document": {"type": "integer"}}}}
    run = start(listen({"any": [], "until": "false"}, foreach=iterator))
    run.publish(event("a", 1))
    run.publish(event("a", "one"))
    assert run.error["type"] == error_type("validation")


def test_endless_listen_keeps_nothing() -> None:
    iterator = {"do": [{"s": {"set": {"seen": "${ $item }"}}}], "export": {"as": "{last: .seen}"}}
    run = start(listen({"any": [of("a")], "until": "${ false }"}, foreach=iterator))
    sizes = set()
    for number in range(100, 200):
        run.publish(event("a", number))
        sizes.add(len(run.walk.snapshot()))
    assert max(sizes) - min(sizes) < 20


# --- bounds ---


def test_events_that_a_listen_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ITERATIONS_PER_LOOP_MAX", 3)
    run = start(listen({"any": [], "until": "length == 9"}))
    for number in range(4):
        run.publish(event("a", number))
    assert run.error["type"] == error_type("runtime")
    assert "3 events" in run.error["detail"]


def test_bytes_that_a_listen_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATA_SIZE_BYTES_MAX", 5_000)
    run = start(listen({"any": [], "until": "length == 9"}))
    for _ in range(5):
        run.publish(event("a", "x" * 1_200))
    assert run.error["type"] == error_type("runtime")
    assert "5000 bytes" in run.error["detail"]


# --- time, control, company ---


def test_timeout_ends_a_listen() -> None:
    run = start(listen({"one": of("a")}, timeout={"after": "PT5S"}))
    assert run.publish(event("b"), 1_000) == []
    run.tick()
    assert (run.error["type"], run.error["status"]) == (error_type("timeout"), 408)
    assert not run.subscriptions


def test_timeout_of_a_listen_is_caught_around_it() -> None:
    waiting = {"approval": listen({"one": of("a")}, timeout={"after": "PT5S"})}
    catch = {"errors": {"with": {"status": 408}}, "do": [{"no": {"set": {"approved": False}}}]}
    run = start({"try": [waiting], "catch": catch})
    run.tick()
    assert run.output == {"approved": False}
    run = start({"try": [waiting], "catch": catch})
    run.publish(event("a", {"approved": True}))
    assert run.output == [{"approved": True}]


def test_retry_listens_anew() -> None:
    retry = {"limit": {"attempt": {"count": 1}}}
    run = start({"try": [{"l": listen({"one": of("a")}, timeout={"after": "PT5S"})}], "catch": {"retry": retry}})
    first = run.listens
    run.tick()
    assert run.listens != first
    run.publish(event("a", 1))
    assert run.output == [1]


def test_paused_listen_wants_nothing() -> None:
    run = start(listen({"one": of("a")}, timeout={"after": "PT5S"}))
    (number,) = run.subscriptions
    run.resume(Pause(""))
    assert not run.walk.wants_event(number)
    assert run.publish(event("a")) == []
    run.resume(Resume(""), 60_000)
    assert run.walk.wants_event(number)
    run.publish(event("a", 1), 4_000)
    assert run.output == [1]


def test_event_that_comes_while_paused_waits() -> None:
    run = start(listen({"one": of("a")}))
    (number,) = run.subscriptions
    run.resume(Pause(""))
    run.resume(EventArrived(number, event("a", 1)))
    assert run.status == "paused"
    run.resume(Resume(""))
    assert run.output == [1]


def test_cancelled_listen_ends_at_once() -> None:
    run = start(listen({"one": of("a")}))
    run.resume(Cancel("", False, 60_000))
    assert (run.status, run.subscriptions) == ("cancelled", {})
    assert not run.walk.wants_event(1)


def test_listens_side_by_side() -> None:
    """Both get an event that is for both; each has its own."""
    branches = [{"one": listen({"one": of("a")})}, {"two": listen({"any": [of("a"), of("b")], "until": "length == 2"})}]
    run = start({"fork": {"branches": branches}})
    assert run.publish(event("a", 1)) == [1, 2]
    assert run.publish(event("b", 2)) == [2]
    assert run.output == [[1], [1, 2]]


def test_race_of_listens() -> None:
    branches = [{"yes": listen({"one": of("yes")})}, {"no": listen({"one": of("no")})}]
    run = start({"fork": {"branches": branches, "compete": True}})
    run.publish(event("no", {"why": "late"}))
    assert (run.output, run.subscriptions) == ([{"why": "late"}], {})


def test_what_it_waits_for_is_told() -> None:
    run = start(listen({"one": of("a")}, timeout={"after": "PT5S"}))
    (wait,) = run.walk.waits()
    assert (wait.kind, wait.task, wait.until_ms) == ("events", "l", run.now_ms + 5_000)


def test_unknown_subscriptions_want_nothing() -> None:
    run = Run(plan_of([{"c": call()}]), restoring=True)
    assert not run.walk.wants_event(1)
    assert not run.walk.wants_event(99)


# --- emit ---


def emit(**properties: Any) -> dict[str, Any]:
    return {"emit": {"event": {"with": {"type": "order.paid", **properties}}}}


def emitted(task: dict[str, Any], input_: Any = None) -> dict[str, Any]:
    """What is to be published."""
    run = start(task, input_)
    (effect,) = run.open.values()
    assert effect.kind == "emit"
    made: dict[str, Any] = run.arguments(effect)["event"]
    return made


def test_event_to_be_published() -> None:
    made = emitted(emit(subject="${ .id }", urgent=True, rank=3, data={"a": ["${ .n }"]}), {"id": "17", "n": 2.5})
    assert made == {
        "specversion": "1.0",
        "type": "order.paid",
        "source": "/test/walked/1.0.0",
        "subject": "17",
        "urgent": True,
        "rank": 3,
        "data": {"a": [2.5]},
    }


def test_what_the_document_gives_of_an_event_wins() -> None:
    given = {"id": "mine", "source": "https://host.test", "time": "2025-01-31T12:00:00Z", "specversion": "1.0"}
    assert emitted(emit(**given)) == {"type": "order.paid", **given}
    # Null data is data, a null attribute is none.
    assert emitted(emit(subject="${ null }", data="${ null }")) == {
        "specversion": "1.0",
        "type": "order.paid",
        "source": "/test/walked/1.0.0",
        "data": None,
    }


@pytest.mark.parametrize(
    "properties",
    [
        *({"type": "${ null }"}, {"type": "${ 5 }"}, {"id": '${ "" }'}, {"source": "${ {} }"}, {"time": '${ "soon" }'}),
        *({"rank": "${ 1.5 }"}, {"rank": "${ 3000000000 }"}, {"tags": "${ [] }"}, {"specversion": '${ "0.3" }'}),
        {"datacontenttype": "text/plain", "data": {"a": 1}},
    ],
    ids=str,
)
def test_what_is_no_event_is_the_tasks_fault(properties: dict[str, Any]) -> None:
    run = start(emit(**properties))
    (effect,) = run.open.values()
    with pytest.raises(RenderFault) as raised:
        run.plan.render(effect.capsule)
    assert raised.value.error["type"] == error_type("expression")
    assert raised.value.error["instance"] == "/do/0/l"


def test_published_event_is_the_output() -> None:
    run = start(emit())
    (effect,) = run.open.values()
    published = {**run.arguments(effect)["event"], "id": "1", "time": "2025-01-31T12:00:00Z"}
    run.resume(EffectResult(effect.effect_id, published))
    assert run.output == published
    run = start(emit())
    run.resume(EffectFailure(1, "communication", 503, "", "the journal is full"))
    assert run.error["type"] == error_type("communication")


# --- the example of the documentation ---

APPROVAL = re.compile(r"<!-- approval -->\n```yaml\n(.*?)```", re.DOTALL)


def approval() -> Run:
    text = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    (document,) = APPROVAL.findall(text)
    plan = compile_document(document)
    assert plan.warnings == ()
    return Run(plan, {"id": 17}, restoring=True)


def test_approval_of_ones_own_order() -> None:
    run = approval()
    assert run.publish(event("shop.order.decided", {"order": 18, "approved": True})) == []
    (subscription,) = run.subscriptions.values()
    assert EventMatcher(subscription.filter).probes == ((("type", "from:.data.order"), ('"shop.order.decided"', "17")),)
    run.publish(event("shop.order.decided", {"order": 17, "approved": True, "by": "Grace"}), 3_600_000)
    assert run.output == {"shipped": True, "by": "Grace"}


def test_approval_that_is_refused_or_late() -> None:
    run = approval()
    run.publish(event("shop.order.decided", {"order": 17, "approved": False}))
    assert run.output == {"order": 17, "approved": False}
    run = approval()
    run.tick()
    assert run.output == {"approved": False, "by": "nobody"}
    assert not run.subscriptions
