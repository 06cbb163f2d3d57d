"""Extensions: tasks before and after other tasks, of every kind, wherever those stand."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fastrunner._core import (
    Cancel,
    EffectResult,
    EventArrived,
    InvalidWorkflow,
    Pause,
    PerformEffect,
    Plan,
    Resume,
    Walk,
    compile,  # noqa: A004 - the core's verb
    validate,
)
from fastrunner.base import limits
from tests.core.documents import CONFORMANCE, found, needs_conformance, workflow
from tests.core.drives import bounds
from tests.core.walking import Run, call, error_type, plan_of, raising

SET = {"set": {"a": 1}}
WAIT = {"wait": {"seconds": 1}}
TELL = "{name: $task.name, reference: $task.reference, input: $task.input, output: $task.output, data: .}"


@pytest.fixture(autouse=True)
def slices_of_one_step() -> Iterator[None]:
    """Each step is a turn, after which `finish` restores the walk: so every state between two steps is written."""
    with bounds(WALK_STEPS_PER_SLICE_MAX=1):
        yield


def extension(extend: str = "all", **members: Any) -> dict[str, Any]:
    return {"extend": extend, **members}


def use(*extensions: dict[str, Any], **groups: Any) -> dict[str, Any]:
    return {"extensions": [{f"e{number}": each} for number, each in enumerate(extensions)], **groups}


def around(extend: str = "all", **members: Any) -> dict[str, Any]:
    """An extension that tells what it sees, before and after."""
    return extension(extend, before=[{"b": {"set": TELL}}], after=[{"a": {"set": TELL}}], **members)


def outputs(run: Run, name: str) -> list[Any]:
    """What the tasks of a name gave."""
    return [
        json.loads(event.output_json)
        for event in run.events
        if event.event_type == "task_completed" and event.task_name == name
    ]


def answer(effect: PerformEffect) -> EffectResult:
    return EffectResult(effect.effect_id, {"by": effect.reference})


def event(kind: str = "a") -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "/s", "type": kind, "data": {"n": 1}}


# --- every kind ---

GIVEN = {"items": [1, 2]}
LISTEN = {"listen": {"to": {"one": {"with": {"type": "a"}}}}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "set": ("set", {"set": {"v": 1}}),
    "do": ("composite", {"do": [{"in": {"wait": {"seconds": 1}}}]}),
    "for": ("for", {"for": {"in": ".items"}, "do": [{"in": {"wait": {"seconds": 1}}}]}),
    "fork": ("composite", {"fork": {"branches": [{"l": {"wait": {"seconds": 1}}}, {"r": {"wait": {"seconds": 2}}}]}}),
    "race": ("composite", {"fork": {"compete": True, "branches": [{"l": {"wait": {"seconds": 1}}}]}}),
    "nothing to fork": ("composite", {"fork": {"branches": []}}),
    "try": ("try", {"try": [{"no": {"raise": {"error": {"type": "urn:x", "status": 400}}}}], "catch": {}}),
    "switch": ("switch", {"switch": [{"any": {"when": "true", "then": "last"}}]}),
    "wait": ("wait", {"wait": {"seconds": 5}}),
    "call http": ("call", call()),
    "call function": ("call", {"call": "mine", "with": {"x": "${ .items }"}}),
    "call grpc": (
        "call",
        {
            "call": "grpc",
            "with": {
                "proto": {"endpoint": "http://host.test/p.proto"},
                "service": {"name": "S", "host": "host.test"},
                "method": "m",
            },
        },
    ),
    "emit": ("emit", {"emit": {"event": {"with": {"type": "a", "source": "/s"}}}}),
    "listen": ("listen", LISTEN),
    "run shell": ("run", {"run": {"shell": {"command": "true"}}}),
    "run workflow": ("run", {"run": {"workflow": {"namespace": "n", "name": "w", "version": "1.0.0"}}}),
}
FUNCTIONS = {"mine": {"wait": {"seconds": 1}}}


def ended(tasks: Any, given: Any = GIVEN, **sections: Any) -> Run:
    """Runs to the end, one step at a time, each followed by a restore; listeners get one event."""
    run = Run(plan_of(tasks, **sections), given, restoring=True)
    while run.status == "running" and run.subscriptions:
        run.publish(event())
    return run.finish(answer)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_extended(kind: str) -> None:
    """Data, context and flow are what they are without; the lists run around it, and know it."""
    word, task = KINDS[kind]
    task = {**task, "output": {"as": "{given: .}"}, "export": {"as": "{exported: .}"}}
    tasks = [{"one": task}, {"skipped": SET} if kind == "switch" else {"two": {"set": "[., $context]"}}, {"last": SET}]
    if kind != "switch":
        tasks.pop()
    plain = ended(tasks, use={"functions": FUNCTIONS})
    others = [each for each in ("call", "composite", "emit", "for", "listen", "raise", "run", "set", "switch", "try",
                                "wait") if each not in (word, "set")]  # fmt: skip
    run = ended(tasks, use=use(around(word), functions=FUNCTIONS))
    assert run.output == plain.output
    assert run.log[:3] == ["one started", "b started", "b completed"]
    at = run.log.index("one completed")
    assert run.log[at : at + 3] == ["one completed", "a started", "a completed"]
    before, after = outputs(run, "b")[0], outputs(run, "a")[0]
    told = {"name": "one", "reference": "/do/0/one", "input": GIVEN}
    assert before == {**told, "output": None, "data": GIVEN}
    assert after == {**told, "output": after["data"]["given"], "data": outputs(plain, "one")[0]}
    assert [entry for entry in run.log if entry[:2] not in ("b ", "a ")] == plain.log
    # The others leave it alone.
    assert ended(tasks, use=use(*map(around, others), functions=FUNCTIONS)).log[1:2] != ["b started"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_may_be_skipped(kind: str) -> None:
    """`exit` in `before`: its output goes through the task's `output.as` and `export.as`, and `then` is the task's."""
    word, task = KINDS[kind]
    mock = [{"m": {"set": {"mocked": "${ .items }"}, "then": "exit"}}, {"never": SET}]
    task = {**task, "input": {"from": "error"}, "output": {"as": "{given: .}"}, "export": {"as": ".given"}}
    tasks = [{"one": {**task, "then": "last"}}, {"never": SET}, {"last": {"set": "[., $context]"}}]
    run = ended(tasks, use=use(extension(word, before=mock, when='$task.name == "one"'), functions=FUNCTIONS))
    assert run.output == [{"given": {"mocked": [1, 2]}}, {"mocked": [1, 2]}]
    assert run.log == [
        *("one started", "m started", "m completed", "one completed", "last started", "last completed"),
        "workflow_completed",
    ]


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_without_a_match(kind: str) -> None:
    word, task = KINDS[kind]
    tasks = [{"one": task}, {"two": {"set": "."}}, {"last": SET}]
    plain = ended(tasks, use={"functions": FUNCTIONS})
    run = ended(tasks, use=use(around(word, when="$task.name == null"), functions=FUNCTIONS))
    assert (run.log, run.output) == (plain.log, plain.output)


def test_what_raises_fails_itself() -> None:
    """`after` is for success."""
    run = ended([{"one": raising(418)}], use=use(around("raise")))
    assert run.log == ["one started", "b started", "b completed", "one failed", "workflow_failed"]
    assert run.error["instance"] == "/do/0/one"


# --- data ---


def test_what_extensions_make_goes_nowhere() -> None:
    """Neither into the task nor past it, nor from one extension into another; `export` sets the context as ever."""
    noisy = extension(
        before=[{"b": {"set": "{noise: ., context: $context}", "export": {"as": "($context // []) + [$task.name]"}}}],
        after=[{"a": {"set": "{noise: ., context: $context}", "export": {"as": "$context + [$task.output]"}}}],
    )
    run = ended([{"one": {"set": "{got: ., seen: $context}"}}, {"two": {"set": "[., $context]"}}], 1, use=use(noisy))
    assert outputs(run, "b")[0] == {"noise": 1, "context": None}
    assert outputs(run, "one") == [{"got": 1, "seen": ["one"]}]
    assert outputs(run, "a")[0]["noise"] == {"got": 1, "seen": ["one"]}
    assert run.output == [{"got": 1, "seen": ["one"]}, ["one", {"got": 1, "seen": ["one"]}, "two"]]


def test_the_task_as_extensions_see_it() -> None:
    """The DSL's facts, and beside them what its definition has; the facts win."""
    task = {"call": "f", "with": {"n": 1}, "input": {"from": ".x"}, "output": {"as": ".n"}, "metadata": {"m": 1}}
    tell = [{"b": {"set": "$task"}}]
    when = '$task.call == "f" and $task.with.n == 1 and .x == 5 and $task.input.x == 5'
    telling = extension("call", before=tell, after=tell, when=when)
    run = ended([{"one": task}], {"x": 5}, use=use(telling, functions={"f": {"set": "."}}))
    before, after = outputs(run, "b")
    started = next(event.timestamp_ms for event in run.events if event.task_name == "one")
    assert before.pop("startedAt") == after.pop("startedAt")
    assert started == run.events[0].timestamp_ms
    told = {"name": "one", "reference": "/do/0/one", "definition": task, "input": {"x": 5}, "call": "f",
            "with": {"n": 1}, "metadata": {"m": 1}}  # fmt: skip
    assert (before, after) == ({**told, "output": None}, {**told, "output": {"n": 1}})


def test_the_task_began_when_its_extensions_did() -> None:
    slow = extension("set", before=[{"b": {"wait": {"seconds": 7}}}], after=[{"a": {"set": "$task.startedAt.epoch"}}])
    run = ended([{"one": {"set": "$task.startedAt.epoch"}}], use=use(slow))
    assert run.output == outputs(run, "a")[0]
    assert run.output["milliseconds"] == run.events[0].timestamp_ms < run.events[-1].timestamp_ms


def test_extensions_see_no_variables_of_what_surrounds_the_task() -> None:
    document = workflow(
        {"for": {"in": "[1]"}, "do": [{"x": SET}]}, use=use(extension("set", before=[{"b": {"set": "$item"}}]))
    )
    assert found(document) == [("unknown-variable", "/use/extensions/0/e0/before/0/b/set")]


def test_tasks_of_extensions_have_everything() -> None:
    """Lists, loops, handlers and calls of functions; a function's own `$task` is its own."""
    inside = [
        {"l": {"for": {"in": "[1, 2]"}, "do": [{"each": {"set": "{item: $item, task: $task.name}"}}]}},
        {"f": {"fork": {"branches": [{"x": {"set": "$task.name"}}, {"y": {"set": "{n: 1}"}}]}}},
        {"t": {"try": [{"no": raising()}], "catch": {"do": [{"ok": {"set": "{s: $error.status, t: $task.name}"}}]}}},
        {"c": {"call": "own", "with": {"of": "${ $task.name }"}}},
    ]
    own = {"set": "{with: ., own: $task.name}"}
    run = ended([{"one": WAIT}], use=use(extension("wait", before=inside, after=inside), functions={"own": own}))
    for number in (0, 1):
        assert outputs(run, "each")[2 * number + 1] == {"item": 2, "task": "one"}
        assert outputs(run, "x")[number] == "one"
        assert outputs(run, "ok")[number] == {"s": 400, "t": "one"}
        assert outputs(run, "c")[number] == {"with": {"of": "one"}, "own": "own"}
    assert run.output == GIVEN


def test_loose_mode_is_for_extensions_as_well() -> None:
    run = ended([{"one": WAIT}], use=use(around("wait")), evaluate={"mode": "loose"})
    assert outputs(run, "b")[0]["name"] == "one"


# --- several ---


def test_the_first_one_is_the_outermost() -> None:
    run = ended([{"one": {"set": {"v": 1}}}], use=use(*[
        extension("set", before=[{f"b{n}": WAIT}], after=[{f"a{n}": WAIT}]) for n in range(3)
    ]))  # fmt: skip
    assert run.started == ["one", "b0", "b1", "b2", "a2", "a1", "a0"]
    assert [event.task_reference for event in run.events if event.event_type == "task_started"][1::5] == [
        "/do/0/one/use/extensions/0/e0/before/0/b0", "/do/0/one/use/extensions/0/e0/after/0/a0",
    ]  # fmt: skip


def test_each_is_asked_when_its_turn_comes() -> None:
    """What an outer one exports decides about an inner one; who was not asked for runs nothing after, either."""
    first = extension("set", before=[{"b0": {**WAIT, "export": {"as": "{inner: false}"}}}])
    second = around("set", when="$context.inner != false")
    third = extension("set", after=[{"a2": WAIT}], when="$context.inner == false")
    assert ended([{"one": SET}], use=use(first, second, third)).started == ["one", "b0", "a2"]


def test_exit_leaves_the_ones_within_and_its_own() -> None:
    """Who is around sees the task complete."""
    outer, inner = around("set"), around("set")
    mock = extension("set", before=[{"m": {"set": {"mock": True}, "then": "exit"}}], after=[{"never": WAIT}])
    run = ended([{"one": SET}], use=use(outer, mock, inner))
    assert run.started == ["one", "b", "m", "a"]
    assert outputs(run, "a")[0]["output"] == {"mock": True}
    assert run.output == {"mock": True}


def test_exit_is_of_its_own_list() -> None:
    """In a list within `before` it leaves that list; in `after` there is nothing to skip."""
    leaving = [{"x": {"do": [{"y": {**WAIT, "then": "exit"}}]}}, {"z": WAIT}]
    run = ended([{"one": {"set": {"v": 1}}}, {"two": WAIT}], use=use(
        extension("set", before=leaving, after=[{"a": {**WAIT, "then": "exit"}}, {"never": WAIT}])
    ))  # fmt: skip
    assert run.started == ["one", "x", "y", "z", "a", "two"]
    assert run.output == {"v": 1}


# --- where it leads ---


@pytest.mark.parametrize(("then", "started"), [
    ("end", ["one", "b", "a"]), ("exit", ["one", "b", "a", "after"]), ("continue", ["one", "b", "a", "two", "after"]),
    ("three", ["one", "b", "a", "three", "after"]),
])  # fmt: skip
def test_a_directive_of_the_task_waits_for_after(then: str, started: list[str]) -> None:
    steps = [{"one": {"set": {"v": 1}, "then": then}}, {"two": {**WAIT, "then": "exit"}}, {"three": WAIT}]
    run = ended([{"all": {"do": steps}}, {"after": WAIT}], use=use(around("set")))
    assert run.started == ["all", *started]
    assert run.output == {"v": 1}


def test_end_in_an_extension_ends_the_workflow() -> None:
    for part, started in (("before", ["one", "x"]), ("after", ["one", "x"])):
        ending = extension("set", **{part: [{"x": {**WAIT, "then": "end"}}]})
        run = ended([{"one": SET}, {"two": SET}], 5, use=use(ending))
        assert (run.started, run.output) == (started, 5 if part == "before" else {"a": 1})


def test_a_skipped_task_has_no_extensions() -> None:
    failing = extension(when="error", before=[{"b": WAIT}])
    run = ended([{"one": {**SET, "if": "false"}}, {"two": {**SET, "if": ".items == null"}}], use=use(failing))
    assert (run.log, run.output) == (["workflow_completed"], GIVEN)


def test_branches_and_loops() -> None:
    """Branches are tasks; events of extensions tell the loop around the task."""
    loop = {"for": {"in": ".items"}, "do": [{"each": {"fork": {"branches": [{"l": call()}, {"r": call()}]}}}]}
    effects: list[PerformEffect] = []

    def keep(effect: PerformEffect) -> EffectResult:
        effects.append(effect)
        return answer(effect)

    asking = extension("call", before=[{"ask": call(body={"for": "${ $task.name }"})}])
    run = Run(plan_of([{"all": loop}], use=use(asking)), GIVEN, restoring=True).finish(keep)
    assert run.status == "completed"
    told = [(e.task_name, list(e.iteration)) for e in run.events if e.event_type == "task_started"]
    assert sorted(each for each in told if each[0] == "ask") == [("ask", [0]), ("ask", [0]), ("ask", [1]), ("ask", [1])]
    assert len({effect.idempotency_key for effect in effects}) == len(effects) == 8
    base = "/do/0/all/do/0/each/fork/branches"
    ask = "use/extensions/0/e0/before/0/ask"
    assert {e.reference for e in effects} == {f"{base}/0/l", f"{base}/1/r", f"{base}/0/l/{ask}", f"{base}/1/r/{ask}"}
    bodies = {run.arguments(effect)["body"]["for"] for effect in effects if effect.reference.endswith("ask")}
    assert bodies == {"l", "r"}


# --- functions ---


def test_functions_of_the_document_are_extended_and_others_are_not() -> None:
    url = "https://host.test/function.yaml"
    functions = {"mine": {"do": [{"in": SET}]}}
    tasks = [{"one": {"call": "mine"}}, {"two": {"call": url}}]
    document = json.loads(json.dumps(workflow(*[], use=use(around(), functions=functions))))
    document["do"] = tasks
    plan = compile(json.dumps(document), False, {url: "do: [{out: {set: {b: 1}}}]"})
    run = Run(plan, GIVEN, restoring=True).finish()
    assert run.started == [
        *("one", "b", "mine", "b", "in", "b", "a", "a", "a"), *("two", "b", url, "out", "a")
    ]  # fmt: skip
    assert outputs(run, "b")[2]["reference"] == "/do/0/one/call/mine/do/0/in"


def test_extensions_are_not_extended() -> None:
    """Nor are the functions that they call, however those are called elsewhere."""
    calling = extension("all", before=[{"log": {"call": "log"}}, {"b": {"do": [{"c": SET}]}}])
    run = ended([{"one": SET}, {"two": {"call": "log"}}], use=use(calling, functions={"log": SET}))
    logged = ["log", "log", "b", "c"]
    assert run.started == ["one", *logged, "two", *logged, "log", *logged]


# --- failures ---


@pytest.mark.parametrize(("members", "log", "instance"), [
    ({"when": "error"}, ["one started", "one failed"], ""),
    ({"when": "$task.set.a | startswith(\"x\")"}, ["one started", "one failed"], ""),
    ({"before": [{"b": raising(400)}]}, ["one started", "b started", "b failed", "one failed"], "/before/0/b"),
    ({"after": [{"a": raising(400)}]}, ["one started", "one completed", "a started", "a failed"], "/after/0/a"),
])  # fmt: skip
def test_failures_go_outwards(members: dict[str, Any], log: list[str], instance: str) -> None:
    """A `when` that has no value is the task's error; of a task that has completed an `after` takes nothing back."""
    trying = {"try": [{"one": {**SET, "export": {"as": "{kept: .a}"}}}], "catch": {"do": [{"c": WAIT}]}}
    run = ended([{"t": {**trying, "output": {"as": "$context"}}}], use=use(extension("set", **members)))
    assert run.log == ["t started", *log, "c started", "c completed", "t completed", "workflow_completed"]
    assert run.output == ({"kept": 1} if "after" in members else None)
    error = ended([{"one": SET}], use=use(extension("set", **members))).error
    place = f"/use/extensions/0/e0{instance}" if instance else ""
    assert error["instance"] == f"/do/0/one{place}"
    if "when" in members:
        assert (error["type"], error["status"]) == (error_type("expression"), 400)


def test_mocked_outputs_fail_as_outputs_do() -> None:
    schema = {"document": {"type": "object", "required": ["id"]}}
    mock = extension("set", before=[{"m": {"set": {"x": 1}, "then": "exit"}}])
    run = ended([{"one": {**SET, "output": {"schema": schema}}}], use=use(mock))
    assert run.log == ["one started", "m started", "m completed", "one failed", "workflow_failed"]
    assert (run.error["type"], run.error["instance"]) == (error_type("validation"), "/do/0/one")


def test_each_attempt_has_its_extensions() -> None:
    keys: list[str] = []

    def failing(effect: PerformEffect) -> Any:
        keys.append(effect.idempotency_key)
        if effect.reference.endswith("one") and len(keys) < 6:
            return EffectResult(effect.effect_id, {"no": True})
        return answer(effect)

    asking = extension("call", before=[{"ask": call()}])
    check = {"document": {"not": {"required": ["no"]}}}
    retry = {"limit": {"attempt": {"count": 2}}}
    trying = {"try": [{"one": {**call(), "output": {"schema": check}}}], "catch": {"retry": retry}}
    run = Run(plan_of([{"t": trying}], use=use(asking)), restoring=True).finish(failing)
    assert run.status == "completed"
    assert run.started == ["t", *["one", "ask"] * 3]
    assert [event.attempt for event in run.events if event.task_name == "ask"] == [1, 1, 2, 2, 3, 3]
    assert len(set(keys)) == 6


def test_a_try_counts_its_own_attempts() -> None:
    trying = {"try": [{"no": raising()}], "catch": {"retry": {"limit": {"attempt": {"count": 1}}}}}
    run = ended([{"t": trying}], use=use(around("try")))
    assert run.log[-2:] == ["t failed", "workflow_failed"]
    assert [(e.event_type, e.attempt) for e in run.events if e.task_name == "t"] == [
        ("task_started", 1), ("task_retry", 2), ("task_failed", 2),
    ]  # fmt: skip
    assert run.started == ["t", "b", "no", "no"]


# --- time, commands ---


def test_a_timeout_is_the_tasks_alone() -> None:
    limited = {"wait": {"seconds": 5}, "timeout": {"after": {"seconds": 6}}}
    slow = extension("wait", before=[{"b": {"do": [{"w": {"set": {"a": 1}}}, {"x": call()}]}}], after=[{"a": call()}])

    def late(effect: PerformEffect) -> EffectResult | None:
        return None

    run = Run(plan_of([{"one": limited}], use=use(slow)), restoring=True)
    for _ in range(2):
        while run.walk.wake_at_ms:
            run.tick()
        (effect,) = run.open.values()
        run.resume(answer(effect), 10_000)
    assert run.status == "completed"
    short = {**limited, "timeout": {"after": {"seconds": 4}}}
    error = Run(plan_of([{"one": short}], use=use(slow)), restoring=True).finish(answer).error
    assert (error["type"], error["instance"]) == (error_type("timeout"), "/do/0/one")
    # A timeout around bounds all of it.
    around_it = {"do": [{"one": limited}], "timeout": {"after": {"seconds": 1}}}
    run = Run(plan_of([{"all": around_it}], use=use(slow)), restoring=True).finish(late)
    assert run.error["instance"] == "/do/0/all"
    assert len(run.interrupted) == 1


@pytest.mark.parametrize("part", ["before", "after"])
def test_pause_and_cancel_within_an_extension(part: str) -> None:
    plan = plan_of([{"one": {"set": {"v": 1}}}], use=use(extension("set", **{part: [{"ask": call()}]})))
    run = Run(plan, restoring=True)
    (effect,) = run.open.values()
    assert effect.reference == f"/do/0/one/use/extensions/0/e0/{part}/0/ask"
    assert run.walk.waits()[0].reference == effect.reference
    run.resume(Pause("p"))
    run.resume(answer(effect))
    assert run.status == "paused"
    run.resume(Resume("r"))
    assert run.output == {"v": 1}
    run = Run(plan, restoring=True)
    run.resume(Cancel("no", True, 0))
    assert (run.status, len(run.interrupted)) == ("cancelled", 1)


def test_an_effect_of_an_extension_knows_the_task_anywhere() -> None:
    """Its capsule has `$task`, dumped and loaded as well, and after a restore."""
    body = {"name": "${ $task.name }", "input": "${ $task.input }", "output": "${ $task.output }", "own": "${ . }"}
    run = Run(plan_of([{"one": {"set": {"v": 1}}}], use=use(extension("set", after=[{"ask": call(body=body)}]))), GIVEN,
              restoring=True)  # fmt: skip
    (effect,) = run.open.values()
    assert run.arguments(effect)["body"] == {"name": "one", "input": GIVEN, "output": {"v": 1}, "own": {"v": 1}}
    (pending,) = run.walk.pending()
    assert isinstance(pending, PerformEffect)
    assert run.arguments(pending) == run.arguments(effect)


def test_an_extension_listens() -> None:
    waiting = {"listen": {"to": {"one": {"with": {"type": "a", "subject": "${ $task.name }"}}}}}
    run = Run(plan_of([{"one": SET}], use=use(extension("set", before=[{"hear": waiting}]))), restoring=True)
    (number,) = run.listens
    assert run.publish({**event(), "subject": "two"}) == []
    assert run.publish({**event(), "subject": "one"}) == [number]
    assert run.output == {"a": 1}


def test_a_listener_that_is_extended_takes_its_events() -> None:
    run = Run(plan_of([{"one": LISTEN}], use=use(around("listen"))), GIVEN, restoring=True)
    (number,) = run.listens
    run.resume(EventArrived(number, event()))
    assert (run.output, run.started) == ([{"n": 1}], ["one", "b", "a"])


# --- what is refused, and what is said ---


def sentences(document: Any) -> list[tuple[str, str, str]]:
    return [(p.code, p.pointer, p.message) for p in validate(json.dumps(document), True)]


@pytest.mark.parametrize(("word", "hint"), [
    ("do", "are extended as `composite`"), ("fork", "are extended as `composite`"),
    ("http", "every call is extended as `call`"), ("shell", "whatever runs is extended as `run`"),
    ("cal", "did you mean 'call'?"), ("extension", "allowed: call, composite"),
])  # fmt: skip
def test_what_cannot_be_extended(word: str, hint: str) -> None:
    (problem,) = sentences(workflow(SET, use=use(extension(word, before=[{"b": SET}]))))
    assert problem[:2] == ("invalid-value", "/use/extensions/0/e0/extend")
    assert hint in problem[2]


def test_mistakes_are_told_where_they_stand() -> None:
    broken = [
        {"a": {"extend": "set", "when": "$item", "before": [{"x": {**SET, "then": "t0"}}]}},
        {"b": {"extend": "set", "after": [{"x": {"sett": 1}}, {"x": {"call": "nothing"}}], "then": "exit"}},
        {"c": {"before": [{"x": SET}]}},
        {"d": {"extend": "set"}, "e": {"extend": "set"}},
        {"f": []},
    ]
    assert found(workflow(SET, use={"extensions": broken})) == [
        ("unknown-variable", "/use/extensions/0/a/when"),
        ("unknown-target", "/use/extensions/0/a/before/0/x/then"),
        ("missing-key", "/use/extensions/1/b/after/0/x"),
        ("duplicate-task", "/use/extensions/1/b/after/1/x"),
        ("unknown-reference", "/use/extensions/1/b/after/1/x/call"),
        ("unknown-key", "/use/extensions/1/b/then"),
        ("missing-key", "/use/extensions/2/c"),
        ("not-one-key", "/use/extensions/3"),
        ("wrong-type", "/use/extensions/4/f"),
    ]
    assert found(workflow(SET, use={"extensions": {"a": extension()}})) == [("wrong-type", "/use/extensions")]


def test_an_extension_without_tasks_is_remarked() -> None:
    document = workflow(SET, use=use(extension("set", when="$task.a == 1", before=[])))
    assert [each[:2] for each in sentences(document)] == [("idle-extension", "/use/extensions/0/e0")]
    assert ended([{"one": SET}], use=document["use"]).output == {"a": 1}


def test_copies_count_against_the_bounds() -> None:
    half = limits.TASKS_PER_DOCUMENT_MAX // 100
    tasks = [{f"t{n}": SET} for n in range(half)]
    document = workflow(use=use(*[extension(before=[{"b": SET}])] * 49))
    document["do"] = tasks
    assert found(document) == []
    document["use"] = use(*[extension(before=[{"b": SET}])] * 50)
    assert found(document) == [("too-many-tasks", "/use/extensions")]
    # An extension counts by itself, and tasks of functions where they are called.
    document["use"] = use(*[extension("set")] * 100)
    assert found(document) == [("too-many-tasks", "/use/extensions")]
    document["use"] = use(*[extension("set", after=[{"a": SET}])] * 60, functions={"f": {"do": tasks}})
    document["do"] = [{"x": {"call": "f"}}]
    assert found(document) == [("too-many-tasks", "/use/functions")]
    document["do"] = []
    assert found(document) == []


def test_lists_of_extensions_count_as_nested() -> None:
    def deep(levels: int) -> dict[str, Any]:
        task: dict[str, Any] = SET
        for _ in range(levels):
            task = {"do": [{"x": task}]}
        return task

    inner = limits.TASK_NESTING_MAX // 2
    fits = workflow(deep(inner - 1), use=use(extension("set", before=[{"b": deep(inner - 1)}])))
    assert found(fits) == []
    assert Run(compile(json.dumps(fits))).status == "completed"
    document = workflow(deep(inner), use=use(extension("set", before=[{"b": deep(inner)}])))
    assert found(document) == [("too-deep", "/use/extensions")]


def test_functions_from_elsewhere_count_with_extensions() -> None:
    url = "https://host.test/f.yaml"
    tasks = [{f"t{n}": SET} for n in range(limits.TASKS_PER_DOCUMENT_MAX // 2)]
    document = {**workflow(use=use(extension("call", before=[{"b": {"call": url}}]))), "do": [{"x": {"call": url}}]}
    text = json.dumps({"do": tasks})
    with pytest.raises(InvalidWorkflow) as raised:
        compile(json.dumps(document), False, {url: text})
    assert [problem.code for problem in raised.value.problems] == ["too-many-tasks"]
    document["use"] = use(extension("set", before=[{"b": SET}]))
    plan = compile(json.dumps(document), False, {url: text})
    assert isinstance(plan, Plan)


def test_a_document_that_was_accepted_before_is_compiled() -> None:
    text = json.dumps(workflow(SET, use={"extensions": []}))
    walk, _ = Walk.start(compile(text, True), "execution", None, 0)
    assert walk.status in ("running", "completed")


# --- the specification's own ---


@needs_conformance
def test_the_specifications_mock_asks_for_text() -> None:
    """Its `when` calls `startswith` on an endpoint that is an object, so it has no value; with the endpoint as text it
    mocks."""
    text = (CONFORMANCE / "examples" / "mock-service-extension.yaml").read_text(encoding="utf-8")
    assert validate(text) == ()
    error = Run(compile(text), restoring=True).finish(answer).error
    assert (error["type"], error["status"], error["instance"]) == (error_type("expression"), 400, "/do/0/callHttp")
    mended = text.replace("$task.with.endpoint != null", '($task.with.endpoint | type) == "string"')
    run = Run(compile(mended), restoring=True).finish(answer)
    assert (run.started, run.output) == (["callHttp"], {"by": "/do/0/callHttp"})
    run = Run(compile(mended.replace("https://fake.com", "https://mocked.service.com")), restoring=True).finish(answer)
    assert run.started == ["callHttp", "mockResponse"]
    assert run.output["content"] == {"foo": {"bar": "baz"}}
