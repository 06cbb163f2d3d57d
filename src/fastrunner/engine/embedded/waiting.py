"""Stage 3, journal: what an execution waits for, in one sentence for people.

Rule: asking changes nothing. An execution that is not in memory is read from its snapshot and dropped again, unless its
state is so large that others would wait for that; what cannot be told is left out, and never a reason not to answer.
"""

from collections.abc import Sequence
from typing import Final

import orjson

from fastrunner._core import EventMatcher, PerformEffect, Subscribe, Wait, Walk
from fastrunner.base import limits
from fastrunner.base.moments import rfc3339
from fastrunner.engine import ExecutionView
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.family import RUN_WORKFLOW, child_id_of
from fastrunner.errors import RunnerError

__all__ = ["waiting_for"]

_TOLD_MAX: Final = 3
"""Branches of a fork that are told one by one."""


def waiting_for(shard: Shard, view: ExecutionView) -> str:
    """Of an execution of a shard; empty if it has work to do, or has ended and everything is told."""
    if view.finished_ms:
        return _callbacks(view)
    if view.status == "paused":
        why = "by the runner, whose error says why" if view.error is not None else "by a caller"
        return f"paused {why}, until it is resumed or cancelled"
    execution = shard.live.get(view.execution_id)
    if execution is not None:
        return _live(execution)
    try:
        waits = _stored(shard, view.execution_id)
    except (RunnerError, ValueError):
        # Whoever brings it back tells what is wrong with it.
        return ""
    return _sentence(waits, view.execution_id)


def _callbacks(view: ExecutionView) -> str:
    missing = view.last_sequence - view.given_up_events - view.acknowledged_sequence
    return f"has ended; its receiver has still to take {missing} events" if missing > 0 else ""


def _live(execution: Execution) -> str:
    walk = execution.walk
    if execution.broken:
        return "out of service until the next start: the runner's log has the reason"
    if walk is None or execution.more or execution.inbox:
        return ""
    return _sentence(walk.waits(), execution.execution_id, execution)


def _stored(shard: Shard, execution_id: str) -> Sequence[Wait]:
    acceptance = shard.store.acceptance(execution_id)
    row = None if acceptance is None else shard.store.unfinished(acceptance[0])
    if row is None or row.damage or len(row.input_json) + len(row.snapshot) > limits.WAITING_STATE_SIZE_BYTES_MAX:
        return ()
    plan = shard.plans.get(row.plan_key).plan
    walk = Walk.restore(
        plan, row.execution_id, orjson.loads(row.input_json), row.snapshot, env=orjson.loads(row.env_json)
    )
    return walk.waits()


def _sentence(waits: Sequence[Wait], execution_id: str, execution: Execution | None = None) -> str:
    told = [_told(cause, execution_id, execution) for cause in waits[:_TOLD_MAX]]
    if len(waits) > _TOLD_MAX:
        told.append(f"and {len(waits) - _TOLD_MAX} more")
    return "; ".join(told)


def _told(cause: Wait, execution_id: str, execution: Execution | None) -> str:
    where = f"in task {cause.task!r} ({cause.reference})"
    if cause.kind == "time":
        return f"waits until {rfc3339(cause.until_ms)} {where}"
    if cause.kind == "retry":
        bound = f" of {cause.retries_max}" if cause.retries_max >= 0 else ""
        return f"retry {cause.retry}{bound} at {rfc3339(cause.until_ms)} {where}"
    until = f", until {rfc3339(cause.until_ms)} at the latest" if cause.until_ms else ""
    action = cause.action
    assert action is not None
    if not isinstance(action, PerformEffect):
        return f"listens for {_listened(action)} {where}{until}"
    if action.kind == RUN_WORKFLOW:
        return f"waits for execution {child_id_of(execution_id, action.effect_id)!r} {where}{until}"
    kind = action.kind.replace("_", ": ", 1)
    if execution is None or action.effect_id in execution.effects_unstarted:
        return f"waits for its turn to do {kind} {where}{until}"
    return f"waits for the outcome of {kind} {where}{until}"


def _listened(subscription: Subscribe) -> str:
    """The events of a subscription by their types, where all alternatives name one."""
    types: list[str] = []
    for names, values in EventMatcher(subscription.filter).probes:
        if "type" not in names:
            return "events"
        types.append(str(orjson.loads(values[names.index("type")])))
    told = [repr(each) for each in dict.fromkeys(types)]
    more = f" and {len(told) - _TOLD_MAX} more types" if len(told) > _TOLD_MAX else ""
    return f"events of type {' or '.join(told[:_TOLD_MAX])}{more}" if told else "events"
