"""Snapshots are checked: a well-formed lie is refused with a ValueError, or is a walk that behaves."""

from random import Random
from typing import Any

import pytest

from fastrunner._core import EffectResult, Plan, Walk
from tests.core.lies import SCALARS, Truth, emptied, lie, refused, truths
from tests.core.snapshots import BEHAVIOUR, HELD, KINDS_MAX, STRANDS, fields_of, packed
from tests.core.walking import Run, call, plan_of
from tests.properties import factor

TRUTHS = truths(60, 11)
LIES_PER_TRUTH = 70


def test_truths_are_of_every_kind() -> None:
    """Loops, forks, tries, waits and calls that are under way, and outcomes that are held."""
    kinds = {frame[1] for truth in TRUTHS for strand in truth.fields[STRANDS] for frame in strand[7][1:]}
    assert kinds >= {1, 3, 4, 5, 7, 8}
    # Tasks that extensions surround are written as kinds beyond all.
    assert max(kinds) >= KINDS_MAX
    for truth in TRUTHS:
        assert not refused(truth, truth.fields, Random(0))


def test_lies_are_refused_or_behave() -> None:
    choices = Random(20_261_128)
    outcomes = [
        refused(truth, lie(truth, choices), choices) for truth in TRUTHS for _ in range(LIES_PER_TRUTH * factor)
    ]
    assert 0.3 < sum(outcomes) / len(outcomes) < 0.95


@pytest.mark.parametrize("truth", TRUTHS[:4], ids=range(4))
def test_every_scalar_at_every_place(truth: Truth) -> None:
    """Of the walk and of its strands; each once replaced by each of the others."""
    choices = Random(3)
    for at in range(1, HELD - 1):
        for scalar in SCALARS:
            fields = list(truth.fields)
            fields[at] = scalar
            refused(truth, fields, choices)
    for fields in emptied(truth):
        refused(truth, fields, choices)


# --- lies that were believed ---

LOOP = {"l": {"for": {"in": "[1, 2]"}, "do": [{"c": call('${ "http://h/\\($item)" }')}]}}
TRY = {"t": {"try": [{"w": {"wait": "PT1S"}}], "catch": {}}}
FRAMES = 7


def told(tasks: Any) -> tuple[Plan, list[Any]]:
    run = Run(plan_of(tasks), None)
    return run.plan, fields_of(run.walk.snapshot())


def refusal(plan: Plan, fields: list[Any]) -> str:
    with pytest.raises(ValueError, match="snapshot is damaged") as caught:
        Walk.restore(plan, "execution", None, packed(fields))
    return str(caught.value)


@pytest.mark.parametrize("iteration", [-1, -2, 2, 99])
def test_a_loop_is_at_one_of_its_items(iteration: int) -> None:
    plan, fields = told([LOOP])
    fields[STRANDS][0][FRAMES][1][12] = iteration
    assert "iteration" in refusal(plan, fields)


def test_a_try_that_does_not_delay_does_not_wait() -> None:
    plan, fields = told([TRY])
    del fields[STRANDS][0][FRAMES][2]
    fields[STRANDS][0][FRAMES][1][2] = -4
    assert "delay" in refusal(plan, fields)


def test_a_strand_waits_for_something() -> None:
    plan, fields = told([TRY])
    fields[STRANDS][0][5] = 0
    assert "waits for nothing" in refusal(plan, fields)
    plan, fields = told([LOOP])
    fields[STRANDS][0][FRAMES][2][10] = None
    assert "waits for nothing" in refusal(plan, fields)


def test_an_ended_walk_runs_nothing() -> None:
    plan, fields = told([TRY])
    fields[2] = 2
    assert "has ended" in refusal(plan, fields)


def test_there_is_one_strand_that_is_no_branch() -> None:
    plan, fields = told([TRY])
    fields[STRANDS] = []
    assert "one strand" in refusal(plan, fields)


@pytest.mark.parametrize(("at", "value"), [(0, 0), (2, -1), (5, 10**6), (0, 1.5), (1, None), (6, 2**31)])
def test_bounds_are_such_as_somebody_sets(at: int, value: Any) -> None:
    """No slice without steps, and no nesting that would overflow the stack."""
    plan, fields = told([TRY])
    fields[BEHAVIOUR][2] = [250, 64, 50, 300, 100, 200, 10**6, 65536, *[1000] * 10, 10_000, 250, 30_000, 524_288]
    Walk.restore(plan, "execution", None, packed(fields))
    fields[BEHAVIOUR][2][at] = value
    assert "bound" in refusal(plan, fields)


@pytest.mark.parametrize("at", [6, 7])
def test_times_are_in_the_calendar(at: int) -> None:
    """`$task.startedAt` and `$workflow.startedAt` are dates."""
    plan, fields = told([TRY])
    fields[at] = 2**53
    assert "calendar" in refusal(plan, fields)


def test_an_error_has_an_errors_members() -> None:
    plan, fields = told([LOOP])
    fields[2], fields[HELD] = 1, [[1, None, {"type": "urn:x"}]]
    fields[STRANDS][0][FRAMES][2][10][0][2] = True
    refusal(plan, fields)
    fields[HELD] = [[1, None, {"type": "urn:x", "status": 400, "instance": "/"}]]
    Walk.restore(plan, "execution", None, packed(fields))


@pytest.mark.parametrize("held", [[], [[1, None, None], [1, None, None]]])
def test_an_answered_effect_has_one_outcome(held: list[Any]) -> None:
    plan, fields = told([LOOP])
    fields[2], fields[HELD] = 1, held
    fields[STRANDS][0][FRAMES][2][10][0][2] = True
    assert "answered" in refusal(plan, fields)


def test_what_is_too_deep_to_be_written_is_not_read() -> None:
    """orjson reads deeper than it writes."""
    plan, fields = told([TRY])
    deep: Any = 1
    for _ in range(250):
        deep = [deep]
    fields[-1].append(0)
    body = packed(fields)[5:].replace(b",[0]]", b",[" + b"[" * 600 + b"]" * 600 + b"]]")
    import zlib

    with pytest.raises(ValueError, match="snapshot is damaged"):
        Walk.restore(plan, "execution", None, b"\x02" + zlib.crc32(body).to_bytes(4, "big") + body)


def test_capsules_have_the_variables_that_surround_their_task() -> None:
    """Also those that are read by another process."""
    run = Run(plan_of([LOOP]), None)
    dumped = run.plan.dump_capsule(run.open[1].capsule)
    assert b"[[1,0]]" in dumped
    for wrong in (b"[]", b"[[1,0],[1,0]]", b"[[1]]", b"7"):
        with pytest.raises(ValueError, match="capsule is damaged"):
            run.plan.load_capsule(dumped.replace(b"[[1,0]]", wrong))
    run.resume(EffectResult(1, None))
    assert run.open
