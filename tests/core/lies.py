"""Support: well-formed lies: snapshots with a right checksum and something else in them than a walk wrote.

Each is refused with a ValueError, or is a walk that behaves: it takes outcomes, and can be written and read again.
"""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from random import Random
from typing import Any

from fastrunner._core import (
    Cancel,
    EffectFailure,
    EffectResult,
    EventArrived,
    MoreSteps,
    Outcome,
    Pause,
    PerformEffect,
    Plan,
    RenderFault,
    Resume,
    TimerDue,
    Walk,
)
from tests.core.drives import Case, documents, drive
from tests.core.snapshots import DETACHED, HELD, STRANDS, fields_of, packed

__all__ = ["Truth", "lie", "refused", "truths"]

SCALARS: tuple[Any, ...] = (
    *(0, 1, 2, 3, 4, 5, 7, 8, -1, -2, -3, -4, -5, 250, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(None, True, False, 1.5, 1e300, "", "x", "\x00", [], [0], [-1], [-1, "a"], [-1, 0], [99], [[0]], {}, {"type": 1}),
    {"type": "urn:x", "status": 400, "instance": "/"},
)
OUTCOMES: tuple[Outcome, ...] = (TimerDue(), MoreSteps(), Pause("p"), Resume("r"))
TURNS = 6


class Truth:
    """A snapshot as it was written, and the document it belongs to."""

    def __init__(self, plan: Plan, input_: Any, snapshot: bytes, now_ms: int) -> None:
        self.plan = plan
        self.input = input_
        self.fields = fields_of(snapshot)
        self.now_ms = now_ms


def truths(count: int, seed: int) -> list[Truth]:
    """Snapshots of walks that wait for something."""
    found: list[Truth] = []
    for case in documents(20 * count, seed):
        snapshots: list[tuple[bytes, int]] = []
        watched(case, snapshots)
        for snapshot, now_ms in snapshots:
            fields = fields_of(snapshot)
            if fields[STRANDS] and (len(fields[STRANDS]) > 1 or len(fields[STRANDS][0][7]) > 2 or fields[HELD]):
                found.append(Truth(case.plan, case.input, snapshot, now_ms))
                break
        if len(found) == count:
            break
    return found


def watched(case: Case, kept: list[tuple[bytes, int]]) -> None:
    """Drives, and keeps each snapshot with its time."""
    drive(case, watch=lambda run: kept.append((run.walk.snapshot(), run.now_ms)))


# --- making lies ---


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands, all values within included."""
    yield path
    if isinstance(value, list | dict):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def lie(truth: Truth, choices: Random) -> Any:
    """One or two changes: another scalar, a list that is cut, longer or in another order, two parts swapped."""
    fields = deepcopy(truth.fields)
    for _ in range(choices.choice((1, 1, 2))):
        # What identifies the execution is not of interest, nor is most of what values hold.
        found = [
            path
            for path in places(fields)
            if path and path[0] > 0 and not (path[0] == len(fields) - 1 and len(path) > 2)
        ]
        path = choices.choice(found)
        holder, key = at(fields, path[:-1]), path[-1]
        value = holder[key]
        if not isinstance(value, list) or choices.randrange(4) == 0:
            holder[key] = near(value, choices) if choices.randrange(2) else deepcopy(choices.choice(SCALARS))
        else:
            rearrange(value, choices, at(fields, choices.choice(found)))
    return fields


def near(value: Any, choices: Random) -> Any:
    """Something that looks alike: a number beside it."""
    if type(value) is int and abs(value) < 2**62:
        return value + choices.choice((-1, 1, -2, 2, -1000, 1000))
    return not value


def rearrange(value: list[Any], choices: Random, other: Any) -> None:
    kind = choices.randrange(6)
    if kind == 0 and value:
        del value[choices.randrange(len(value)) :]
    elif kind == 1:
        value.append(deepcopy(other))
    elif kind == 2 and value:
        value.append(deepcopy(choices.choice(value)))
    elif kind == 3 and value:
        del value[choices.randrange(len(value))]
    elif len(value) > 1:
        one, two = choices.sample(range(len(value)), 2)
        value[one], value[two] = value[two], value[one]


def emptied(truth: Truth) -> Iterator[Any]:
    """Each part that a walk holds, taken away."""
    for part in (HELD, STRANDS, DETACHED):
        fields = deepcopy(truth.fields)
        fields[part] = []
        yield fields


# --- what becomes of them ---


def refused(truth: Truth, fields: Any, choices: Random) -> bool:
    """Whether a lie is refused; else the walk is driven some turns. Any other exception is a fault."""
    try:
        walk = Walk.restore(truth.plan, "execution", truth.input, packed(fields))
    except ValueError:
        return True
    now_ms = truth.now_ms
    for _ in range(TURNS):
        look(truth.plan, walk)
        now_ms = min(now_ms + choices.choice((0, 1, 1000, 100_000)), 2**53)
        walk.resume(outcome_for(walk, choices), now_ms)
        if walk.status not in ("running", "paused"):
            break
    look(truth.plan, walk)
    Walk.restore(truth.plan, "execution", truth.input, walk.snapshot())
    return False


def look(plan: Plan, walk: Walk) -> None:
    """All that may be read of a walk."""
    assert walk.status in ("running", "paused", "completed", "failed", "cancelled")
    assert walk.effects_in_flight >= 0
    assert walk.wake_at_ms >= 0
    repr((walk.output, walk.error, walk.last_sequence))
    for action in walk.pending():
        if isinstance(action, PerformEffect):
            plan.dump_capsule(action.capsule)
            with suppress(RenderFault):
                plan.render(action.capsule)
    walk.snapshot()


def outcome_for(walk: Walk, choices: Random) -> Outcome:
    pending = walk.pending()
    kind = choices.randrange(8)
    if pending and kind < 4:
        action = choices.choice(pending)
        if not isinstance(action, PerformEffect):
            walk.wants_event(action.subscription_id)
            return EventArrived(action.subscription_id, {"type": choices.choice("ab"), "k": "1", "data": 1})
        if kind < 3:
            # Plain results are no messages, and these are a result like any other.
            message = {"payload": {"n": 1}, "headers": {}, "correlationId": None}
            return EffectResult(action.effect_id, {"r": 1, "messages": [message], "position": 1})
        return EffectFailure(action.effect_id, "communication", 503, "", "")
    if kind == 7 and choices.randrange(3) == 0:
        return Cancel("c", choices.randrange(2) == 0, 5)
    return choices.choice(OUTCOMES)
