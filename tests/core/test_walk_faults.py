"""Walk: errors, what catches them, retries and handlers."""

from itertools import pairwise
from typing import Any

import pytest

from fastrunner._core import EffectFailure, EffectResult, Pause, PerformEffect, Resume
from tests.core.walking import START_MS, Answer, Run, call, error_type, finish, plan_of, raising

FAULT = raising(status=418, title="Teapot", detail="short and stout")
ODD = "https://example.com/errors/odd"


def trying(catch: dict[str, Any], *body: dict[str, Any], **members: Any) -> list[dict[str, Any]]:
    return [{"t": {"try": list(body) or [{"r": FAULT}], "catch": catch, **members}}]


def test_details_of_a_filter_are_the_errors_detail() -> None:
    assert finish(trying({"errors": {"with": {"details": "short and stout"}}}), "in").output == "in"
    assert finish(trying({"errors": {"with": {"details": "tall"}}}), "in").error["status"] == 418


# --- raise ---


def test_a_raised_error_ends_the_workflow_as_it_is() -> None:
    run = finish([{"raiseError": FAULT}])
    assert run.error == {
        "type": ODD,
        "status": 418,
        "title": "Teapot",
        "detail": "short and stout",
        "instance": "/do/0/raiseError",
    }
    event = run.events[-1]
    assert (event.event_type, event.status, event.message) == ("workflow_failed", "failed", "Teapot: short and stout")
    error = event.error
    assert (error.code, error.type, error.status, error.title) == ("EXECUTION_ERROR", ODD, 418, "Teapot")
    assert (error.detail, error.instance) == ("short and stout", "/do/0/raiseError")
    assert error.message == "Teapot: short and stout"


def test_members_of_a_raised_error_may_be_expressions_and_an_instance_is_kept() -> None:
    task = raising(kind="${ .t }", title="${ .n }", detail='${ "a" + .n }', instance="/mine")
    error = finish([{"r": task}], {"t": "urn:x", "n": "name"}).error
    assert error == {"type": "urn:x", "status": 400, "title": "name", "detail": "aname", "instance": "/mine"}


def test_a_raised_type_must_be_text() -> None:
    assert finish([{"r": raising(kind="${ 1 }")}]).error["type"] == error_type("expression")


def test_a_named_error() -> None:
    use = {"errors": {"mine": {"type": ODD, "status": 409, "title": "${ .x }"}}}
    error = finish([{"r": {"raise": {"error": "mine"}}}], {"x": "T"}, use=use).error
    assert (error["status"], error["title"]) == (409, "T")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("validation", "VALIDATION_ERROR"),
        ("timeout", "TIMEOUT_ERROR"),
        ("runtime", "SYSTEM_ERROR"),
        ("configuration", "SYSTEM_ERROR"),
        ("communication", "EXECUTION_ERROR"),
        ("expression", "EXECUTION_ERROR"),
    ],
)
def test_codes_of_errors(name: str, code: str) -> None:
    assert finish([{"r": raising(kind=error_type(name))}]).events[-1].error.code == code


@pytest.mark.parametrize(
    ("task", "reference"),
    [
        ({"do": [{"r": FAULT}]}, "/do/0/x/do/0/r"),
        ({"for": {"in": "[1]"}, "do": [{"r": FAULT}]}, "/do/0/x/do/0/r"),
        ({"fork": {"branches": [{"a": {"set": "1"}}, {"r": FAULT}]}}, "/do/0/x/fork/branches/1/r"),
        ({"try": [{"r": FAULT}], "catch": {"when": "false"}}, "/do/0/x/try/0/r"),
        ({"try": [{"r": FAULT}], "catch": {"do": [{"s": FAULT}]}}, "/do/0/x/catch/do/0/s"),
        ({"do": [{"a/b~c": FAULT}]}, "/do/0/x/do/0/a~1b~0c"),
    ],
)
def test_instances_are_pointers_into_the_document(task: dict[str, Any], reference: str) -> None:
    run = finish([{"x": task}])
    assert run.error["instance"] == reference
    assert run.log[-2:] == ["x failed", "workflow_failed"]


# --- filters ---


def test_an_empty_catch_catches_everything_and_gives_the_tasks_input() -> None:
    run = finish(trying({}, {"s": {"set": "9"}}, {"r": FAULT}, output={"as": "[.]"}), 5)
    assert run.output == [5]
    assert run.log[-3:] == ["r failed", "t completed", "workflow_completed"]


@pytest.mark.parametrize(
    ("wanted", "caught"),
    [
        ({"status": 418}, True),
        ({"status": 404}, False),
        ({"type": ODD}, True),
        ({"type": ODD, "status": 404}, False),
        ({"title": "Teapot", "detail": "short and stout", "instance": "/do/0/t/try/0/r"}, True),
        ({"instance": "/do/0/t"}, False),
    ],
)
def test_every_member_of_a_filter_must_match(wanted: dict[str, Any], caught: bool) -> None:
    run = finish(trying({"errors": {"with": wanted}}))
    assert run.walk.status == ("completed" if caught else "failed")


@pytest.mark.parametrize("host", ["https://open-workflow-specification.org", "https://serverlessworkflow.io"])
@pytest.mark.parametrize("path", ["/spec/1.0.0/errors/", "/dsl/errors/types/"])
@pytest.mark.parametrize("raised", ["communication", "timeout"])
def test_spellings_of_standard_types_are_aliases(host: str, path: str, raised: str) -> None:
    catch = {"errors": {"with": {"type": f"{host}{path}communication"}}}
    run = finish(trying(catch, {"r": raising(kind=error_type(raised))}))
    assert run.walk.status == ("completed" if raised == "communication" else "failed")


def test_other_types_are_compared_verbatim() -> None:
    catch = {"errors": {"with": {"type": "https://serverlessworkflow.io/errors/types/communication"}}}
    assert finish(trying(catch, {"r": raising(kind=error_type("communication"))})).walk.status == "failed"


@pytest.mark.parametrize(
    ("catch", "caught"),
    [
        ({"when": ".status == 418"}, True),
        ({"when": "$error.status == 404"}, False),
        ({"as": "e", "when": "$e.status == 418", "exceptWhen": "false"}, True),
        ({"when": "true", "exceptWhen": ".status == 418"}, False),
        ({"exceptWhen": ".status == 404"}, True),
    ],
)
def test_conditions_on_the_error(catch: dict[str, Any], caught: bool) -> None:
    assert finish(trying(catch)).walk.status == ("completed" if caught else "failed")


def test_an_error_in_a_filter_is_the_try_tasks_own() -> None:
    outer = finish([{"o": {"try": trying({"when": "error"}), "catch": {"do": [{"h": {"set": "$error"}}]}}}])
    assert outer.output["type"] == error_type("expression")
    assert outer.output["instance"] == "/do/0/o/try/0/t"


def test_an_uncaught_error_keeps_its_instance_through_nested_tries() -> None:
    never = {"errors": {"with": {"status": 1}}}
    run = finish([{"o": {"try": trying(never), "catch": never}}])
    assert run.error["instance"] == "/do/0/o/try/0/t/try/0/r"
    assert run.log[-4:] == ["r failed", "t failed", "o failed", "workflow_failed"]


@pytest.mark.parametrize(
    "task",
    [
        {"set": "1", "if": "error"},
        {"set": "error"},
        {"set": "1", "output": {"as": "error"}},
        {"set": "1", "export": {"as": "error"}},
        {"set": "1", "input": {"schema": {"document": False}}},
        {"wait": "${ 5 }"},
        {"for": {"in": "[1]"}, "while": "error", "do": []},
        {"do": [], "output": {"as": "error"}},
    ],
)
def test_errors_of_common_properties_are_the_tasks_and_catchable(task: dict[str, Any]) -> None:
    run = finish(trying({"do": [{"h": {"set": "$error.instance"}}]}, {"x": task}))
    assert run.output == "/do/0/t/try/0/x"
    assert run.log[:4] == ["t started", "x started", "x failed", "h started"]


# --- handlers ---


def test_the_handler_sees_the_error_and_the_tasks_input() -> None:
    catch = {"as": "err", "do": [{"h": {"set": "{dot: ., status: $err.status}"}}]}
    run = finish(trying(catch, {"s": {"set": "9"}}, {"r": FAULT}), "in")
    assert run.output == {"dot": "in", "status": 418}


def test_the_error_variable_is_gone_afterwards() -> None:
    with pytest.raises(ValueError, match="error"):
        finish([*trying({"do": []}), {"after": {"set": "$error"}}])


def test_an_error_in_the_handler_goes_outwards() -> None:
    run = finish(trying({"do": [{"h": raising(status=500)}]}))
    assert run.error["status"] == 500
    assert run.log[-3:] == ["h failed", "t failed", "workflow_failed"]


@pytest.mark.parametrize(
    ("catch", "started"),
    [
        ({"then": "c"}, ["t", "r", "c"]),
        ({"do": [{"h": {"set": "1"}}], "then": "c"}, ["t", "r", "h", "c"]),
        ({"then": "end"}, ["t", "r"]),
        ({"do": [{"h": {"set": "1", "then": "exit"}}, {"no": {"set": "1"}}], "then": "c"}, ["t", "r", "h", "c"]),
        ({}, ["t", "r", "b", "c"]),
    ],
)
def test_catch_then_replaces_the_tasks_directive(catch: dict[str, Any], started: list[str]) -> None:
    assert finish([*trying(catch), {"b": {"set": "1"}}, {"c": {"set": "1"}}]).started == started


def test_catch_then_is_not_used_when_nothing_was_caught() -> None:
    tasks = [*trying({"then": "end"}, {"ok": {"set": "1"}}, then="c"), {"b": {"set": "1"}}, {"c": {"set": "1"}}]
    assert finish(tasks).started == ["t", "ok", "c"]


def test_exports_before_the_failure_stay() -> None:
    body = [{"s": {"set": "1", "export": {"as": '"kept"'}}}, {"r": FAULT}]
    assert finish([*trying({}, *body), {"e": {"set": "$context"}}]).output == "kept"


# --- retries ---


def retried(policy: dict[str, Any], run_seed: int = 0, **catch: Any) -> Run:
    run = Run(plan_of(trying({"retry": policy, **catch})), "in", seed=run_seed, restoring=True)
    return run.finish()


def delays(run: Run) -> list[int]:
    """Milliseconds between the starts of the attempts."""
    times = [
        event.timestamp_ms for event in run.events if event.event_type == "task_started" and event.task_name == "r"
    ]
    return [after - before for before, after in pairwise(times)]


def test_count_is_of_retries_not_of_executions() -> None:
    run = retried({"limit": {"attempt": {"count": 5}}})
    assert run.started.count("r") == 6
    assert run.error["status"] == 418
    assert [e.attempt for e in run.events if e.task_name == "r" and e.event_type == "task_started"] == list(range(1, 7))
    assert [e.attempt for e in run.events if e.event_type == "task_retry"] == [2, 3, 4, 5, 6]
    assert [e.attempt for e in run.events if e.task_name == "t" and e.event_type == "task_failed"] == [6]
    assert all(e.error.status == 418 and e.status == "running" for e in run.events if e.event_type == "task_retry")


def test_counts_of_any_size_and_spelling() -> None:
    assert retried({"limit": {"attempt": {"count": 2.0}}}).started.count("r") == 3
    run = Run(plan_of(trying({"retry": {"delay": "PT1S", "limit": {"attempt": {"count": 2**63}}}})))
    assert run.tick().events


@pytest.mark.parametrize("count", [0, -3])
def test_no_retries(count: int) -> None:
    assert retried({"limit": {"attempt": {"count": count}}}).started.count("r") == 1


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"delay": "PT2S"}, [2000, 2000, 2000]),
        ({"delay": "PT2S", "backoff": {"constant": {}}}, [2000, 2000, 2000]),
        ({"delay": "PT2S", "backoff": {"linear": {}}}, [2000, 4000, 6000]),
        ({"delay": "PT2S", "backoff": {"exponential": {}}}, [2000, 4000, 8000]),
        ({"backoff": {"exponential": {}}}, [0, 0, 0]),
        ({"delay": '${ "PT3S" }'}, [3000, 3000, 3000]),
        ({"delay": {"seconds": 1}, "jitter": {"from": "PT1S", "to": "PT1S"}}, [2000, 2000, 2000]),
    ],
)
def test_delays(policy: dict[str, Any], expected: list[int]) -> None:
    assert delays(retried({**policy, "limit": {"attempt": {"count": 3}}})) == expected


def busy(*asked_ms: int) -> Answer:
    """Fails once for each, asking to be left alone for so long, then succeeds."""
    left = list(asked_ms)

    def answer(effect: PerformEffect) -> EffectResult | EffectFailure:
        if not left:
            return EffectResult(effect.effect_id, "done")
        return EffectFailure(effect.effect_id, "communication", 429, "", "busy", retry_after_ms=left.pop(0))

    return answer


def test_a_retry_waits_for_as_long_as_the_service_asks() -> None:
    """The larger of what the policy says and what the service says; an answer that asks for nothing changes nothing."""
    run = finish(trying({"retry": {"delay": "PT2S"}}, {"r": call()}), answer=busy(5000, 0, 1999, -1, 2001, 2**62))
    assert run.output == "done"
    assert delays(run)[:5] == [5000, 2000, 2000, 2000, 2001]
    assert delays(run)[5] > 10**11
    unasked = finish(trying({"retry": {}}, {"r": call()}), answer=busy(0, 700))
    assert delays(unasked) == [0, 700]


def test_a_wait_beyond_the_whole_duration_is_not_begun() -> None:
    policy = {"delay": "PT1S", "limit": {"duration": "PT10S"}}
    run = finish(trying({"retry": policy}, {"r": call()}), answer=busy(9999, 1))
    assert run.error["status"] == 429
    assert run.now_ms == START_MS + 9999


def test_what_a_service_asks_is_for_the_retry_of_its_error() -> None:
    """Also of a `try` further out; not for one that an error of the handler, or of a filter, leads to."""
    inner = {"inner": {"try": [{"r": call()}], "catch": {"errors": {"with": {"status": 1}}}}}
    assert delays(finish(trying({"retry": {"delay": "PT1S"}}, inner), answer=busy(3000))) == [3000]
    raised = {"raise": {"error": {"type": "urn:x", "status": 418}}}
    handled = {"inner": {"try": [{"r": call()}], "catch": {"do": [{"h": raised}]}}}
    assert delays(finish(trying({"retry": {"delay": "PT1S"}}, handled), answer=busy(3000))) == [1000]
    filtered = {"inner": {"try": [{"r": call()}], "catch": {"when": ".status | error"}}}
    assert delays(finish(trying({"retry": {"delay": "PT1S"}}, filtered), answer=busy(3000))) == [1000]
    branches = {"f": {"fork": {"branches": [{"r": call()}]}}}
    assert delays(finish(trying({"retry": {"delay": "PT1S"}}, branches), answer=busy(3000))) == [3000]


@pytest.mark.parametrize("restoring", [False, True])
def test_what_a_service_asks_is_kept_while_paused(restoring: bool) -> None:
    """The wait begins with Resume, as every wait keeps its time."""
    run = Run(plan_of(trying({"retry": {"delay": "PT1S"}}, {"r": call()})), restoring=restoring)
    run.resume(Pause(""))
    [effect] = run.open.values()
    run.resume(busy(5000)(effect), after_ms=100)  # type: ignore[arg-type]
    run.resume(Resume(""), after_ms=60_000)
    assert run.walk.wake_at_ms == run.now_ms + 5000


def test_jitter_is_added_within_its_range_and_follows_the_seed() -> None:
    policy = {"delay": "PT1S", "jitter": {"from": "PT1S", "to": "PT3S"}, "limit": {"attempt": {"count": 50}}}
    one, same, other = (delays(retried(policy, seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert all(2000 <= delay <= 4000 for delay in one)
    assert len(set(one)) > 25


def test_exhausted_retries_come_to_the_handler() -> None:
    run = retried({"limit": {"attempt": {"count": 1}}}, do=[{"h": {"set": "[$error.status, .]"}}])
    assert run.output == [418, "in"]
    assert run.started == ["t", "r", "r", "h"]


def test_exhausted_retries_follow_catch_then() -> None:
    assert retried({"limit": {"attempt": {"count": 1}}}, then="end").output == "in"


@pytest.mark.parametrize("policy", [{"when": ".status == 1"}, {"exceptWhen": "$error.status == 418"}])
def test_an_error_not_worth_a_retry(policy: dict[str, Any]) -> None:
    assert retried(policy).error["status"] == 418
    assert retried(policy, do=[]).output == "in"


def test_conditions_of_a_retry_see_the_error() -> None:
    policy = {"when": ".status == 418 and $e.status == 418", "limit": {"attempt": {"count": 2}}}
    run = Run(plan_of(trying({"as": "e", "retry": policy}))).finish()
    assert run.started.count("r") == 3


def test_a_named_policy() -> None:
    use = {"retries": {"twice": {"limit": {"attempt": {"count": 2}}}}}
    assert finish(trying({"retry": "twice"}), use=use).started.count("r") == 3


def test_a_retry_begins_again_with_the_original_input_and_stops_at_success() -> None:
    answers = iter([False, False, True])

    def answer(effect: PerformEffect) -> EffectResult | EffectFailure:
        if next(answers):
            return EffectResult(effect.effect_id, "done")
        return EffectFailure(effect.effect_id, "communication", 503, "", "busy")

    body = [{"s": {"set": "${ [.] }"}}, {"c": call(output="content")}, {"o": {"set": "[., $task.reference]"}}]
    run = finish(trying({"retry": {"delay": "PT1S"}}, *body), "in", answer=answer)
    assert run.output == ["done", "/do/0/t/try/2/o"]
    starts = [
        event.output_json for event in run.events if event.event_type == "task_completed" and event.task_name == "s"
    ]
    assert starts == ['["in"]'] * 3


def test_the_whole_duration_bounds_retries() -> None:
    run = retried({"delay": "PT4S", "limit": {"duration": "PT10S"}})
    assert run.started.count("r") == 3
    assert run.now_ms == START_MS + 8000


def test_the_whole_duration_interrupts_an_attempt() -> None:
    run = Run(plan_of(trying({"retry": {"limit": {"duration": "PT10S"}}}, {"c": call()})), restoring=True)
    run.tick()
    assert run.error["type"] == error_type("timeout")
    assert run.error["instance"] == "/do/0/t"
    assert run.interrupted == [1]


def test_each_attempt_has_its_own_duration() -> None:
    policy = {"delay": "PT1S", "limit": {"attempt": {"count": 1, "duration": "PT5S"}}}
    run = Run(plan_of(trying({"retry": policy, "errors": {"with": {"status": 408}}}, {"c": call()})), restoring=True)
    run.tick()
    assert run.now_ms == START_MS + 5000
    assert run.interrupted == [1]
    run.tick()
    run.tick()
    assert run.now_ms == START_MS + 11_000
    assert (run.error["status"], run.error["instance"]) == (408, "/do/0/t")
    assert run.started == ["t", "c", "c"]


def test_limits_see_the_loops_around_the_try() -> None:
    """And nothing of the catch, which has not caught anything when they begin to count."""
    limit = {"attempt": {"count": 1, "duration": "${ $order.attempt }"}, "duration": "${ $order.total }"}
    attempt = trying({"retry": {"limit": limit, "delay": "PT1S"}, "do": [{"h": {"set": "$error.status"}}]})
    inner = {"for": {"each": "line", "in": [1, "${ $order.total }"]}, "do": attempt}
    loop = {"for": {"each": "order", "in": ".orders"}, "do": [{"inner": inner}]}
    run = finish([{"loop": loop}], {"orders": [{"attempt": "PT10S", "total": "PT1M"}]})
    assert run.output == 418


def test_unlimited_retries_can_be_left_to_go_on() -> None:
    run = Run(plan_of(trying({"retry": {"delay": "PT1S", "backoff": {"exponential": {}}}})))
    for _ in range(80):
        run.tick()
    assert run.walk.status == "running"


def test_nested_tries_count_their_own_attempts() -> None:
    inner = {"try": [{"r": FAULT}], "catch": {"retry": {"limit": {"attempt": {"count": 1}}}}}
    run = finish(trying({"retry": {"limit": {"attempt": {"count": 1}}}}, {"i": inner}, {"after": {"set": "1"}}))
    assert run.started.count("r") == 4
    tried = [(e.task_name, e.attempt) for e in run.events if e.event_type == "task_retry"]
    assert tried == [("i", 2), ("t", 2), ("i", 2)]
