"""Walk: effects, timers, timeouts, pause, resume, cancel and slices."""

from typing import Any

import pytest

from fastrunner._core import (
    Cancel,
    EffectFailure,
    EffectResult,
    InterruptEffect,
    MoreSteps,
    Pause,
    Resume,
    TimerDue,
    Walk,
)
from fastrunner.base import limits
from tests.core.walking import START_MS, Run, call, error_type, finish, plan_of, raising

CALL = [{"c": call()}]
WAIT = [{"w": {"wait": "PT10S"}}]


def run_of(tasks: list[dict[str, Any]], input_: Any = None, **sections: Any) -> Run:
    return Run(plan_of(tasks, **sections), input_, restoring=True)


# --- wait ---


@pytest.mark.parametrize(
    ("duration", "ms"),
    [
        ("PT10S", 10_000),
        ({"minutes": 1, "seconds": 2, "milliseconds": 3}, 62_003),
        ('${ "PT" + .t }', 7000),
        ("PT0.5S", 500),
    ],
)
def test_wait_takes_its_time_and_passes_its_input_through(duration: Any, ms: int) -> None:
    run = run_of([{"w": {"wait": duration}}], {"t": "7S"})
    assert run.walk.wake_at_ms == START_MS + ms
    run.resume(TimerDue(), ms - 1)
    assert run.status == "running"
    run.resume(TimerDue(), 1)
    assert run.output == {"t": "7S"}


@pytest.mark.parametrize("duration", [{"seconds": 0}, {"seconds": -5}])
def test_no_time_is_no_wait(duration: Any) -> None:
    assert run_of([{"w": {"wait": duration}}], 1).output == 1


# --- call http ---


def test_a_call_is_performed_with_evaluated_arguments() -> None:
    task = call(
        "http://host.test/{id}/x?q={q}&e={missing}{n}{t}",
        headers={"A": "${ .id }", "B": "text"},
        query={"k": "${ .n }"},
        body={"deep": ["${ .q }"]},
        output="response",
        redirect=True,
    )
    run = run_of([{"c": task}], {"id": "a b/ü", "q": "1&2", "n": 1.5, "t": True})
    (effect,) = run.open.values()
    assert effect.kind == "call_http"
    assert effect.reference == "/do/0/c"
    assert effect.idempotency_key == "execution/do/0/c/1/1"
    assert run.arguments(effect) == {
        "method": "GET",
        "uri": "http://host.test/a%20b%2F%C3%BC/x?q=1%262&e=1.5true",
        "headers": {"A": "a b/ü", "B": "text"},
        "query": {"k": 1.5},
        "body": {"deep": ["1&2"]},
        "output": "response",
        "redirect": True,
    }
    run.resume(EffectResult(effect.effect_id, {"any": "thing"}))
    assert run.output == {"any": "thing"}


def test_an_endpoint_from_an_expression_is_taken_as_it_is() -> None:
    for endpoint in ("${ .u }", {"uri": "${ .u }"}):
        run = run_of([{"c": {"call": "http", "with": {"method": "POST", "endpoint": endpoint}}}], {"u": "http://x/{y}"})
        (effect,) = run.open.values()
        assert run.arguments(effect) == {
            "method": "POST",
            "uri": "http://x/{y}",
            "output": "content",
            "redirect": False,
        }


@pytest.mark.parametrize(
    ("uri", "data"),
    [("http://x/{a}", {"a": []}), ("http://x/{a}", {"a": {}}), ("${ .a }", {"a": 5}), ("http://x/{a}", 5)],
)
def test_what_no_uri_can_be_made_of_is_an_expression_error(uri: str, data: Any) -> None:
    error = finish([{"c": call(uri)}], data).error
    assert (error["type"], error["instance"]) == (error_type("expression"), "/do/0/c")


def test_input_that_is_no_object_does_for_a_plain_uri() -> None:
    assert len(run_of(CALL, 1).open) == 1


def test_a_failed_effect_is_the_tasks_error() -> None:
    run = run_of(CALL)
    run.resume(EffectFailure(1, "communication", 404, "Not Found", "GET host: 404"))
    assert run.error == {
        "type": error_type("communication"),
        "status": 404,
        "title": "Not Found",
        "detail": "GET host: 404",
        "instance": "/do/0/c",
    }


def test_a_failure_gets_the_defaults_of_its_type() -> None:
    run = run_of(CALL)
    run.resume(EffectFailure(1, "communication", 0, "", ""))
    assert (run.error["status"], run.error["title"]) == (500, "Communication Error")
    run = run_of(CALL)
    run.resume(EffectFailure(1, "urn:mine", 0, "", ""))
    assert (run.error["type"], run.error["status"]) == ("urn:mine", 500)


def test_a_result_too_deep_to_keep_is_an_error() -> None:
    value: Any = 1
    for _ in range(limits.DATA_DEPTH_MAX + 1):
        value = [value]
    run = run_of(CALL)
    run.resume(EffectResult(1, value))
    assert run.error["type"] == error_type("runtime")


def test_outcomes_nobody_waits_for_do_nothing() -> None:
    run = run_of(CALL)
    before = run.walk.snapshot()
    turn = run.resume(EffectResult(99, 1))
    assert not turn.events
    assert not turn.actions
    assert run.walk.snapshot() == before
    run.resume(EffectResult(1, 1))
    assert not run.resume(EffectResult(1, 2)).events
    assert run.output == 1


def test_idempotency_keys_are_unique_over_iterations_visits_and_attempts() -> None:
    retry = {"retry": {"limit": {"attempt": {"count": 1}}}, "do": []}
    loop = {"for": {"in": "[1, 2]"}, "do": [{"t": {"try": [{"c": call()}], "catch": retry}}]}
    run = run_of(
        [
            {"l": loop},
            {"s": {"switch": [{"again": {"when": "$context == null", "then": "mark"}}], "then": "end"}},
            {"mark": {"set": "1", "export": {"as": "1"}, "then": "l"}},
        ]
    )
    keys = []
    while run.open:
        (effect,) = run.open.values()
        keys.append(effect.idempotency_key.removeprefix("execution/do/0/l/do/0/t/try/0/c"))
        run.resume(EffectFailure(effect.effect_id, "communication", 500, "", ""))
    assert keys == ["/1/1", "/1/2", "/2/1", "/2/2", "/3/1", "/3/2", "/4/1", "/4/2"]


# --- timeouts ---


def test_a_task_timeout_interrupts_and_is_catchable_outside() -> None:
    body = [{"x": {"do": [*CALL], "timeout": {"after": "PT5S"}}}]
    run = run_of([{"t": {"try": body, "catch": {"do": [{"h": {"set": "$error"}}]}}}])
    run.tick()
    assert run.now_ms == START_MS + 5000
    assert run.interrupted == [1]
    assert run.output["type"] == error_type("timeout")
    assert (run.output["status"], run.output["instance"]) == (408, "/do/0/t/try/0/x")
    assert run.log == [
        "t started",
        "x started",
        "c started",
        "x failed",
        "h started",
        "h completed",
        "t completed",
        "workflow_completed",
    ]


def test_a_try_does_not_catch_its_own_timeout() -> None:
    run = run_of([{"t": {"try": WAIT, "catch": {}, "timeout": {"after": "PT1S"}}}])
    run.tick()
    assert (run.error["status"], run.error["instance"]) == (408, "/do/0/t")
    assert run.events[-1].error.code == "TIMEOUT_ERROR"


def test_timeouts_by_name_by_expression_and_on_leaves() -> None:
    use = {"timeouts": {"short": {"after": {"seconds": 1}}}}
    for timeout in ("short", {"after": '${ "PT1S" }'}):
        run = run_of([{"w": {"wait": "PT10S", "timeout": timeout}}], use=use)
        run.tick()
        assert (run.now_ms, run.error["instance"]) == (START_MS + 1000, "/do/0/w")


def test_a_timeout_reaches_into_forks() -> None:
    fork = {"fork": {"branches": [{"a": call()}, {"b": {"fork": {"branches": [{"x": call()}, {"y": WAIT[0]["w"]}]}}}]}}
    run = run_of([{"f": {**fork, "timeout": {"after": "PT3S"}}}])
    run.tick()
    assert run.error["instance"] == "/do/0/f"
    assert sorted(run.interrupted) == [1, 2]


def test_a_timeout_interrupts_an_endless_loop() -> None:
    loop = [{"a": {"set": "1", "then": "b"}}, {"b": {"set": "1", "then": "a"}}]
    plan = plan_of([{"d": {"do": loop, "timeout": {"after": "PT1S"}}}])
    walk, turn = Walk.start(plan, "x", None, START_MS)
    for step in range(100):
        assert turn.more
        turn = walk.resume(MoreSteps(), START_MS + 9 * step)
    turn = walk.resume(MoreSteps(), START_MS + 1000)
    assert walk.status == "failed"
    assert not turn.more


def test_the_workflow_timeout_and_the_bound_of_the_request() -> None:
    for bound_ms, ends_ms in ((0, 5000), (2000, 2000), (9000, 5000)):
        plan = plan_of([{"t": {"try": [*CALL], "catch": {}}}], timeout={"after": "PT5S"})
        run = Run(plan, timeout_ms_max=bound_ms, restoring=True)
        run.tick()
        assert run.now_ms == START_MS + ends_ms
        assert (run.error["status"], run.error["instance"]) == (408, "/timeout")
        assert run.interrupted == [1]


def test_deadlines_are_met_in_their_order_however_late_the_timer_comes() -> None:
    run = run_of([{"d": {"do": [*WAIT, {"s": {"set": "1"}}], "timeout": {"after": "PT10S"}}}])
    run.resume(TimerDue(), 3_600_000)
    assert run.status == "failed"
    assert run.log[:3] == ["d started", "w started", "w completed"]
    run = run_of([{"d": {"do": [*WAIT], "timeout": {"after": "PT9S"}}}])
    run.resume(TimerDue(), 3_600_000)
    assert run.log[-2:] == ["d failed", "workflow_failed"]


def test_of_equal_timeouts_the_outermost_wins() -> None:
    inner = {"do": [*WAIT], "timeout": {"after": "PT1S"}}
    run = run_of([{"o": {"do": [{"i": inner}], "timeout": {"after": "PT1S"}}}])
    run.tick()
    assert run.error["instance"] == "/do/0/o"


def test_an_outcome_at_the_deadline_is_in_time_and_one_after_it_is_not() -> None:
    tasks = [{"c": {**call(), "timeout": {"after": "PT5S"}}}]
    run = run_of(tasks)
    run.resume(EffectResult(1, "in time"), 5000)
    assert run.output == "in time"
    run = run_of(tasks)
    run.resume(EffectResult(1, "late"), 5001)
    assert run.status == "failed"


def test_a_clock_set_back_changes_nothing() -> None:
    run = run_of(WAIT)
    run.resume(TimerDue(), -5000)
    assert run.walk.wake_at_ms == START_MS + 10_000
    run.resume(Cancel("", True, 0), 0)
    assert all(event.timestamp_ms >= START_MS for event in run.events)


# --- pause and resume ---


def test_pause_keeps_outcomes_and_resume_goes_on_without_repeating() -> None:
    run = run_of([*CALL, {"s": {"set": "${ [.] }"}}])
    run.resume(Pause("lunch"))
    assert run.status == "paused"
    turn = run.resume(EffectResult(1, "kept"), 1000)
    assert not turn.events
    assert (run.status, run.walk.effects_in_flight, run.walk.pending()) == ("paused", 0, [])
    run.resume(Resume("back"), 1000)
    assert run.output == ["kept"]
    assert run.log == [
        "c started",
        "workflow_paused",
        "workflow_resumed",
        "c completed",
        "s started",
        "s completed",
        "workflow_completed",
    ]
    paused, resumed = run.events[4:6]
    assert (paused.status, resumed.status) == ("paused", "running")
    assert paused.message.endswith("paused: lunch")
    assert resumed.message.endswith("resumed: back")


def test_a_failure_that_arrives_while_paused_is_kept_too() -> None:
    run = run_of([{"t": {"try": CALL, "catch": {"do": [{"h": {"set": "$error.status"}}]}}}])
    run.resume(Pause(""))
    run.resume(EffectFailure(1, "communication", 503, "", ""))
    run.resume(Resume(""))
    assert run.output == 503


def test_outcomes_of_a_race_are_taken_in_the_order_of_arrival() -> None:
    race = {"fork": {"compete": True, "branches": [{"a": call()}, {"b": call()}]}}
    run = run_of([{"f": race}])
    run.resume(Pause(""))
    run.resume(EffectResult(2, "b"))
    run.resume(EffectResult(1, "a"))
    run.resume(Resume(""))
    assert run.output == "b"


def test_pause_stops_timers_timeouts_shift_and_waits_do_not() -> None:
    run = run_of([{"d": {"do": [*WAIT, *CALL], "timeout": {"after": "PT15S"}}}], timeout={"after": "PT20S"})
    run.resume(Pause(""), 4000)
    assert run.walk.wake_at_ms == 0
    assert not run.resume(TimerDue(), 100_000).events
    run.resume(Resume(""), 0)
    assert run.log[-2:] == ["w completed", "c started"]
    assert run.walk.wake_at_ms == START_MS + 115_000
    run.tick()
    assert run.error["instance"] == "/do/0/d"


def test_pause_shifts_the_limits_of_retries() -> None:
    policy = {"limit": {"attempt": {"duration": "PT5S"}, "duration": "PT30S"}}
    run = run_of([{"t": {"try": CALL, "catch": {"retry": policy}}}])
    run.resume(Pause(""), 1000)
    run.resume(Resume(""), 50_000)
    assert run.walk.wake_at_ms == START_MS + 55_000


def test_pause_between_slices() -> None:
    plan = plan_of([{"l": {"for": {"in": "[range(2000)]"}, "do": [{"s": {"set": "$index"}}]}}])
    walk, turn = Walk.start(plan, "x", None, START_MS)
    assert turn.more
    assert not walk.resume(Pause(""), START_MS).more
    assert not walk.resume(MoreSteps(), START_MS).events
    walk = Walk.restore(plan, "x", None, walk.snapshot())
    turn = walk.resume(Resume(""), START_MS)
    while turn.more:
        turn = walk.resume(MoreSteps(), START_MS)
    assert walk.output == 1999


def test_repeated_and_pointless_commands_do_nothing() -> None:
    run = run_of(WAIT)
    assert not run.resume(Resume("")).events
    run.resume(Pause(""))
    assert not run.resume(Pause("")).events
    run.resume(Resume(""))
    assert not run.resume(Resume("")).events
    run.tick()
    for command in (Pause(""), Resume(""), Cancel("", True, 0), TimerDue(), MoreSteps()):
        turn = run.resume(command)
        assert (turn.events, turn.actions, turn.more) == (b"", [], False)
    assert run.status == "completed"
    assert run.walk.wake_at_ms == 0


# --- cancel ---


def test_cancel_without_effects_ends_at_once() -> None:
    run = run_of(WAIT)
    run.resume(Cancel("enough", False, 30_000))
    assert run.status == "cancelled"
    event = run.events[-1]
    assert (event.event_type, event.status) == ("workflow_cancelled", "cancelled")
    assert event.message.endswith("cancelled: enough")
    assert run.log == ["w started", "workflow_cancelled"]


def test_graceful_cancel_lets_effects_end() -> None:
    run = run_of([*CALL, {"s": {"set": "1"}}])
    assert not run.resume(Cancel("why", False, 30_000)).events
    assert run.status == "running"
    assert run.walk.wake_at_ms == START_MS + 30_000
    assert not run.resume(Cancel("again", False, 90_000), 1000).events
    assert run.walk.wake_at_ms == START_MS + 30_000
    assert not run.resume(Pause("")).events
    run.resume(EffectResult(1, 1), 1000)
    assert run.status == "cancelled"
    assert run.events[-1].message.endswith("why")
    assert not run.interrupted


def test_graceful_cancel_interrupts_after_its_grace() -> None:
    fork = {"fork": {"branches": [{"a": call()}, {"b": call()}]}}
    run = run_of([{"f": fork}])
    run.resume(Cancel("", False, 30_000))
    run.resume(EffectResult(1, 1))
    assert run.status == "running"
    run.tick()
    assert run.status == "cancelled"
    assert run.interrupted == [2]


def test_forced_cancel_interrupts_now_even_after_a_graceful_one() -> None:
    for graceful_first in (False, True):
        run = run_of(CALL)
        if graceful_first:
            run.resume(Cancel("", False, 30_000))
        turn = run.resume(Cancel("", True, 30_000))
        assert run.status == "cancelled"
        assert [action.effect_id for action in turn.actions if isinstance(action, InterruptEffect)] == [1]


@pytest.mark.parametrize("force", [True, False])
def test_cancel_works_while_paused(force: bool) -> None:
    run = run_of(CALL)
    run.resume(Pause(""))
    run.resume(Cancel("", force, 30_000))
    if not force:
        assert run.status == "paused"
        assert not run.resume(Resume("")).events
        run.tick()
    assert run.status == "cancelled"
    assert run.interrupted == [1]


def test_cancel_is_no_error_to_catch() -> None:
    run = run_of([{"t": {"try": WAIT, "catch": {"do": [{"h": {"set": "1"}}]}}}])
    run.resume(Cancel("", False, 0))
    assert run.started == ["t", "w"]
    assert run.status == "cancelled"


def test_cancel_of_a_workflow_that_never_ends() -> None:
    plan = plan_of([{"a": {"set": "1", "then": "b"}}, {"b": {"set": "1", "then": "a"}}])
    walk, turn = Walk.start(plan, "x", None, START_MS)
    for _ in range(20):
        assert turn.more
        turn = walk.resume(MoreSteps(), START_MS)
    assert not walk.resume(Cancel("", False, 30_000), START_MS).more
    assert walk.status == "cancelled"


# --- slices ---


def test_a_slice_is_bounded_and_memory_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WALK_STEPS_PER_SLICE_MAX", 100)
    plan = plan_of([{"a": {"set": "1", "then": "b"}}, {"b": {"set": "2", "then": "a"}}])
    walk, turn = Walk.start(plan, "x", None, START_MS)
    sizes = set()
    for _ in range(50):
        assert turn.more
        assert turn.last_sequence - turn.first_sequence <= 203
        turn = walk.resume(MoreSteps(), START_MS)
        sizes.add(len(walk.snapshot()) - len(str(walk.last_sequence)))
    assert len(sizes) <= 2


def test_slices_of_any_size_give_the_same_events(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = {
        "fork": {
            "branches": [
                {"x": {"for": {"in": "[range(70)]"}, "do": [{"s": {"set": "$index"}}]}},
                {"y": {"try": [{"r": raising()}], "catch": {}}},
                {"z": call()},
            ]
        }
    }
    tasks = [{"f": fork}, {"l": {"for": {"in": "[1,2,3]"}, "do": [{"w": {"wait": "PT1S"}}]}}]
    seen = set()
    for size in (1, 2, 3, 7, 50, 51, 100_000):
        monkeypatch.setattr(limits, "WALK_STEPS_PER_SLICE_MAX", size)
        run = Run(plan_of(tasks), restoring=size < 50).finish(lambda effect: EffectResult(effect.effect_id, "z"))
        seen.add(run.encoded)
    assert len(seen) == 1
