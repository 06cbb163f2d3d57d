"""Walk against the reference walker: generated workflows give the same events, output and error.

Also over generated workflows: any slice size, and a restore after every turn, change nothing.
"""

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fastrunner.base import limits
from tests.core.reference import Event, Reference
from tests.core.walking import Run, plan_of
from tests.properties import examples

EVENTS_MAX = 400
"""Beyond it a generated workflow (usually an endless loop) is not compared."""

STEPS_OF_A_TURN_MAX = 40
"""Branches longer than this take turns with their siblings, which the reference does not model."""

values = st.sampled_from([".", "1", "null", "false", "[.]", "$input", "$context", "{a: .}", ".a?", "error", '"text"'])
wrapped = values.map(lambda text: f"${{ {text} }}")
conditions = st.sampled_from(["true", "false", ". == null", "$context == null", ". == 1", "error"])


def common(draw: st.DrawFn, names: list[str]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    if draw(st.integers(0, 5)) == 0:
        members["if"] = draw(conditions)
    if draw(st.integers(0, 5)) == 0:
        members["input"] = {"from": draw(values.filter(lambda text: "$input" not in text))}
    if draw(st.integers(0, 5)) == 0:
        members["output"] = {"as": draw(values)}
    if draw(st.integers(0, 4)) == 0:
        members["export"] = {"as": draw(values)}
    if names and draw(st.integers(0, 6)) == 0:
        members["then"] = draw(st.sampled_from(["continue", "exit", "end", *names]))
    return members


@st.composite
def task(draw: st.DrawFn, depth: int, names: list[str]) -> dict[str, Any]:
    kinds = ["set", "set", "raise", "switch", "wait"] + (["do", "for", "fork", "try", "try"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    made: dict[str, Any]
    if kind == "set":
        made = {"set": draw(st.one_of(values, st.fixed_dictionaries({"k": wrapped, "c": st.just("plain")})))}
    elif kind == "raise":
        error = {"type": "urn:odd", "status": draw(st.sampled_from([400, 404])), "title": draw(st.just('${ "t" }'))}
        made = {"raise": {"error": error}}
    elif kind == "switch":
        targets = st.sampled_from(["continue", "exit", "end", *names])
        cases: list[dict[str, Any]] = [{"first": {"when": draw(conditions), "then": draw(targets)}}]
        if draw(st.booleans()):
            cases.append({"default": {"then": draw(targets)}})
        made = {"switch": cases}
    elif kind == "wait":
        made = {"wait": {"milliseconds": draw(st.integers(1, 10_000))}}
    elif kind == "do":
        made = {"do": draw(task_list(depth - 1))}
    elif kind == "for":
        made = {
            "for": {"in": draw(st.sampled_from(["[]", "[1, 2]", "null", "5", "[.]"]))},
            "do": draw(task_list(depth - 1)),
        }
        if draw(st.integers(0, 3)) == 0:
            made["while"] = draw(st.sampled_from(["$index < 1", "$item == 1", "true", "error"]))
    elif kind == "fork":
        made = {"fork": {"branches": [{f"b{n}": draw(task(depth - 1, []))} for n in range(draw(st.integers(0, 3)))]}}
    else:
        made = draw(trying(depth, names))
    return {**made, **common(draw, names)}


@st.composite
def trying(draw: st.DrawFn, depth: int, names: list[str]) -> dict[str, Any]:
    catch: dict[str, Any] = {}
    if draw(st.booleans()):
        catch["do"] = draw(task_list(depth - 1))
    if draw(st.integers(0, 2)) == 0:
        catch["errors"] = {"with": {"status": 400}}
    if draw(st.integers(0, 4)) == 0:
        catch["when"] = draw(st.sampled_from([".status == 400", "$error.status == 404", "error"]))
    if draw(st.integers(0, 2)) == 0:
        catch["retry"] = {"limit": {"attempt": {"count": draw(st.integers(0, 2))}}}
        if draw(st.booleans()):
            catch["retry"]["delay"] = {"milliseconds": draw(st.integers(0, 5000))}
    if names and draw(st.integers(0, 4)) == 0:
        catch["then"] = draw(st.sampled_from(["continue", "exit", "end", *names]))
    return {"try": draw(task_list(depth - 1)), "catch": catch}


@st.composite
def task_list(draw: st.DrawFn, depth: int) -> list[dict[str, Any]]:
    names = [f"t{number}" for number in range(draw(st.integers(0, 3)))]
    return [{name: draw(task(depth, names))} for name in names]


@st.composite
def extension(draw: st.DrawFn) -> dict[str, Any]:
    words = ["all", "all", "set", "set", "composite", "for", "try", "wait", "switch", "raise"]
    made: dict[str, Any] = {"extend": draw(st.sampled_from(words))}
    if draw(st.booleans()):
        whens = ["$task.set != null", '$task.name == "t0"', ". == $task.input", "$context == null", "error"]
        made["when"] = draw(st.sampled_from(whens))
    for part in ("before", "after"):
        if draw(st.booleans()):
            tell = "[$task.name, $task.input, $task.output, .]"
            made[part] = [*draw(task_list(1)), {"tell": {"set": tell, "export": {"as": "."}}}]
            if draw(st.integers(0, 4)) == 0:
                made[part][-1]["tell"]["then"] = "exit"
    return made


def walked(tasks: list[dict[str, Any]], restoring: bool = False, **sections: Any) -> Run:
    """The walk of a workflow; endless ones, and those with large data, are given up."""
    run = Run(plan_of(tasks, **sections), "in", restoring=restoring, events_max=EVENTS_MAX)
    while run.walk.status == "running":
        assume(run.walk.last_sequence <= EVENTS_MAX)
        run.tick()
    # Data that doubles in a loop grows beyond what events carry; it is tested elsewhere.
    assume(all(event.output_json for event in run.events if event.event_type == "task_completed"))
    return run


def told(run: Run) -> list[Event]:
    """Task events as the reference has them."""
    found = []
    for event in run.events:
        if not event.task_name:
            continue
        what: Any = None
        if event.event_type == "task_completed":
            what = json.loads(event.output_json)
        elif event.HasField("error"):
            error = event.error
            what = {"type": error.type, "status": error.status, "title": error.title, "instance": error.instance}
            if error.detail:
                what["detail"] = error.detail
        found.append((event.event_type, event.task_reference, event.attempt, what, tuple(event.iteration)))
    return found


def by_task(events: list[Event]) -> dict[str, list[Event]]:
    grouped = defaultdict(list)
    for event in events:
        grouped[event[1]].append(event)
    return grouped


def forks_in_fork(value: Any, inside: bool = False) -> bool:
    """Whether branches fork: then siblings go on in another order, and what a failure finds started differs."""
    if isinstance(value, list):
        return any(forks_in_fork(part, inside) for part in value)
    if not isinstance(value, dict):
        return False
    if inside and "fork" in value:
        return True
    return any(forks_in_fork(part, inside or key == "fork") for key, part in value.items())


def sleeps_in_fork(value: Any, inside: bool = False) -> bool:
    """Whether branches sleep: then only the order within each task is the same in both walkers."""
    if isinstance(value, list):
        return any(sleeps_in_fork(part, inside) for part in value)
    if not isinstance(value, dict):
        return False
    if inside and ("wait" in value or "delay" in value):
        return True
    return any(sleeps_in_fork(part, inside or key == "fork") for key, part in value.items())


workflows = task_list(3)


def waking_at_once(*then: dict[str, Any], **of_the_waits: Any) -> list[dict[str, Any]]:
    """Branches that wait equally long; what follows in each."""
    rest = {"wait": {"milliseconds": 1}, **of_the_waits}
    branches = [{f"b{n}": {"do": [{"t0": rest}, {"t1": task}]}} for n, task in enumerate(then)]
    return [{"t0": {"fork": {"branches": branches}}}]


RAISING: dict[str, Any] = {"raise": {"error": {"type": "urn:odd", "status": 400, "title": "t"}}}
RETRYING: dict[str, Any] = {
    "try": [{"t0": RAISING}],
    "catch": {"retry": {"limit": {"attempt": {"count": 1}}, "delay": {"milliseconds": 1}}},
}


@examples(1000)
@given(workflows)
@example(waking_at_once(RAISING, {"set": "."}))
@example(waking_at_once({"set": "."}, RAISING, {"wait": {"milliseconds": 1}}))
@example(waking_at_once(RETRYING, {"wait": {"milliseconds": 1}}))
@example(waking_at_once({"set": "."}, {"set": "."}, output={"as": "error"}))
@example(waking_at_once({"set": "."}, {"set": "."}, then="end"))
def test_walk_agrees_with_the_reference(tasks: list[dict[str, Any]]) -> None:
    agree(tasks, [])


@examples(300)
@given(workflows, st.lists(extension(), min_size=1, max_size=2))
def test_extensions_agree_with_the_reference(tasks: list[dict[str, Any]], extensions: list[dict[str, Any]]) -> None:
    agree(tasks, extensions)


def agree(tasks: list[dict[str, Any]], extensions: list[dict[str, Any]]) -> None:
    run = walked(tasks, use={"extensions": [{f"e{number}": each} for number, each in enumerate(extensions)]})
    everything = [*tasks, *extensions]
    assume("fork" not in str(everything) or len(run.events) < STEPS_OF_A_TURN_MAX)
    # The reference keeps data of any size and depth.
    assume(not any("data larger" in str(event[3]) or "data nested" in str(event[3]) for event in told(run)))
    # Extensions of branches stand within them.
    nested = forks_in_fork(everything) or ("fork" in str(tasks) and "fork" in str(extensions))
    assume(not nested or not ("'end'" in str(everything) or "task_failed" in {event[0] for event in told(run)}))
    reference = Reference(tasks, "in", extensions).run()
    assert run.walk.status == reference.status
    assert run.walk.output == reference.output
    assert run.walk.error == reference.error
    sleeps = sleeps_in_fork(everything) or ("fork" in str(tasks) and "wait" in str(extensions))
    if nested or sleeps:
        assert by_task(told(run)) == by_task(reference.events)
    else:
        assert told(run) == reference.events


@examples(300)
@given(workflows, st.integers(1, 9))
def test_slices_and_restores_change_nothing(tasks: list[dict[str, Any]], size: int) -> None:
    whole = walked(tasks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "WALK_STEPS_PER_SLICE_MAX", size)
        sliced = walked(tasks, restoring=True)
    assert sliced.encoded == whole.encoded
    assert sliced.walk.output == whole.walk.output
