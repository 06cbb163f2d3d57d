"""Snapshots: what they refuse, what they do not repeat, and that nothing of a value changes on the way."""

import zlib
from typing import Any

import pytest

from fastrunner._core import EffectResult, Pause, Resume, TimerDue, Walk
from tests.core.walking import START_MS, Run, call, plan_of

CALLING = {
    **call("http://x/{id}", body={"e": "${ $err }", "i": "${ $item }"}),
    "input": {"from": "$workflow.input"},
}
WAITING = [{"s": {"set": "${ . }"}}, {"w": {"wait": "PT10S"}}]


def waiting(input_: Any, tasks: Any = None) -> Run:
    return Run(plan_of(tasks or WAITING), input_)


PLAIN = {"1.0": 1, "-0.0": 0, "[1, 1.0, True, '1', None]": [1, 1, True, "1", None]}
"""Integral numbers are written as plain integers."""


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**63,
        2**64 - 1,
        -(2**63),
        1.0,
        -0.0,
        1e300,
        5e-324,
        "",
        "x" * 1000,
        'quotes " and \\ and \x00',
        "käse 🧀",
        [],
        {},
        [[]],
        {"b": 1, "a": {"z": [], "": {}}},
        [1, 1.0, True, "1", None],
    ],
)
def test_values_survive_unchanged(value: Any) -> None:
    """Types, order and every digit; values made by an expression and values of the input alike."""
    for tasks in (WAITING, [{"s": {"set": {"made": ["${ . }", "const"]}}}, WAITING[1]]):
        run = waiting(value, tasks)
        expected = repr(run.walk.snapshot())
        run.restore()
        assert repr(run.walk.snapshot()) == expected
        run.tick()
        plain = PLAIN.get(repr(value), value)
        assert repr(run.output) == repr(plain if tasks is WAITING else {"made": [plain, "const"]})


def test_data_that_is_not_plain_json_is_made_so() -> None:
    largest = 1.7976931348623157e308
    inputs = [float("nan"), float("inf"), [1, float("-inf")], 10**30, -(10**30), 10**400, "a\ud800b", {"\udc00": 1}]
    expected = [None, largest, [1, -largest], 1e30, -1e30, None, "a\ufffdb", {"\ufffd": 1}]
    run = waiting(inputs)
    run.restore()
    run.tick()
    assert run.output == expected


@pytest.mark.parametrize("value", [object(), (1,), {1: 2}, b"x", {"a": {1, 2}}])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="JSON"):
        waiting(value)


def test_the_input_is_not_written() -> None:
    large = {"items": [{"text": "y" * 500} for _ in range(100)], "id": 7}
    loop = {"for": {"in": ".items"}, "do": [{"w": {"wait": "PT1S", "output": {"as": "$item"}}}]}
    run = waiting(large, [{"l": loop}])
    for _ in range(3):
        run.tick()
        run.restore()
        assert len(run.walk.snapshot()) < 600
    assert waiting(large).walk.snapshot().count(b"yyy") == 0


def test_a_value_many_frames_hold_is_written_once() -> None:
    text = "z" * 400
    nested: dict[str, Any] = {"wait": "PT1S"}
    for _ in range(10):
        nested = {"do": [{"d": nested}]}
    run = waiting(None, [{"s": {"set": {"k": text}}}, {"n": nested}])
    assert run.walk.snapshot().count(text.encode()) == 1
    run.restore()
    assert run.walk.snapshot().count(text.encode()) == 1


def test_every_damage_is_seen() -> None:
    run = waiting({"x": 1})
    snapshot = run.walk.snapshot()
    plan = run.plan
    for position in range(len(snapshot)):
        damaged = bytearray(snapshot)
        damaged[position] ^= 0x20
        with pytest.raises(ValueError, match="snapshot"):
            Walk.restore(plan, "execution", {"x": 1}, bytes(damaged))
    for size in range(len(snapshot)):
        with pytest.raises(ValueError, match="snapshot"):
            Walk.restore(plan, "execution", {"x": 1}, snapshot[:size])


def test_a_foreign_snapshot_is_refused() -> None:
    run = waiting(1)
    snapshot = run.walk.snapshot()
    other = plan_of([*WAITING, {"more": {"set": "1"}}])
    with pytest.raises(ValueError, match="another"):
        Walk.restore(other, "execution", 1, snapshot)
    with pytest.raises(ValueError, match="another"):
        Walk.restore(run.plan, "someone", 1, snapshot)


def test_a_well_formed_lie_is_no_crash() -> None:
    """A body with a right checksum that is no walk is refused as well."""
    run = waiting(1)
    for body in (b"[]", b"{}", b"null", b"[[]]", b"not json", b'[["execution","test","walked","1.0.0",2],0]'):
        lie = b"\x01" + zlib.crc32(body).to_bytes(4, "big") + body
        with pytest.raises(ValueError, match="snapshot"):
            Walk.restore(run.plan, "execution", 1, lie)


def test_an_ended_walk_can_be_written_and_read() -> None:
    for tasks in ([{"s": {"set": "[.]"}}], [{"r": {"raise": {"error": {"type": "urn:x", "status": 400}}}}]):
        run = waiting(1, tasks)
        run.restore()
        assert not run.resume(TimerDue()).events
        assert run.walk.wake_at_ms == 0


def test_every_kind_of_frame_survives() -> None:
    """A walk that loops, tries, handles, delays, forks, calls and is paused, restored at every point."""
    retry = {"delay": "PT1S", "jitter": {"from": "PT0S", "to": "PT1S"}, "limit": {"attempt": {"count": 2}}}
    failing = {"raise": {"error": {"type": "urn:x", "status": 400, "title": "${ $context.t }"}}}
    handler = [{"w": {"wait": "PT1S"}}, {"c": CALLING}]
    trying = {"try": [{"w": {"wait": "PT1S"}}, {"r": failing}], "catch": {"as": "err", "retry": retry, "do": handler}}
    fork = {"fork": {"branches": [{"t": trying}, {"w": {"wait": "PT2S", "export": {"as": "{t: $context.t, w: $at}"}}}]}}
    tasks = [
        {"s": {"set": "${ . }", "export": {"as": '{t: "title"}'}}},
        {
            "l": {
                "for": {"in": "[1, 2]", "at": "at"},
                "do": [{"f": {**fork, "timeout": {"after": "PT1H"}}}],
                "output": {"as": "{out: ., context: $context}"},
            }
        },
    ]
    runs = [Run(plan_of(tasks), {"id": 7}, restoring=restoring, seed=5) for restoring in (False, True)]
    for run in runs:
        while run.walk.status == "running":
            run.resume(Pause(""))
            if run.open:
                run.resume(EffectResult(next(iter(run.open)), {"done": True}))
            run.resume(Resume(""), 10)
            if run.walk.status == "running" and not run.open:
                run.tick()
    plain, restored = runs
    assert restored.encoded == plain.encoded
    assert plain.output == {"out": [{"done": True}, plain.output["out"][1]], "context": {"t": "title", "w": 1}}
    assert plain.now_ms == restored.now_ms > START_MS


def test_equal_calls_give_equal_snapshots() -> None:
    one, other = (waiting({"a": [1]}).walk.snapshot() for _ in range(2))
    assert one == other
