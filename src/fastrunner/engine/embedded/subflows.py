"""Stage 3, journal: executions that other executions start: `run: workflow`.

    effect -> is the child there? -> no: registry -> submission into the parent's shard -> durable
                                  -> it runs: nothing more here
                                  -> it has ended: its outcome
    the child's last commit -> the parent's effect is answered, or the parent is brought back and asks anew

Rules:
- A parent waits without a place among the effects and without memory: its effect is answered by the child's end.
- An effect that is performed again, after any crash, finds the child by its id and starts nothing anew. Whatever it is
  answered with, the walk takes one answer, with its next commit; until then the child is kept.
- What runs must be able to end: children are bounded far beyond the bound for clients, and wait where others are
  refused.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import orjson

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner._wire import TableBusy, TableFull
from fastrunner.base import limits
from fastrunner.engine import LATEST, DefinitionRef, Parent, Submission
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.family import PAUSE, child_id_of
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.store.changes import Change
from fastrunner.engine.subflow_outcomes import cancelled, failed, id_taken, refused, too_deep
from fastrunner.errors import (
    AtCapacity,
    Elsewhere,
    IdTaken,
    RunnerError,
    Stopping,
    StorageFailed,
    TooLarge,
    Unavailable,
)
from fastrunner.progress.names import FINAL_STATUSES

__all__ = ["Outcome", "Subflows"]

Outcome = EffectResult | EffectFailure

_TRANSIENT: Final = (AtCapacity, Unavailable, TableBusy, TableFull)


class Host(Protocol):
    """What subflows ask of the engine around them."""

    def submit(self, submission: Submission) -> "asyncio.Future[str]":
        """Accepts it durably."""

    def answer(self, execution: Execution, outcome: Outcome) -> None:
        """An effect of an execution has an outcome."""

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is begun any more."""

    @property
    def has_room_for_subflows(self) -> bool:
        """Whether there are not far more executions than there should be."""


class Subflows:
    """The children of one worker's executions."""

    def __init__(self, host: Host, shards: Shards) -> None:
        self._host = host
        self._shards = shards

    async def start(self, execution: Execution, effect: PerformEffect, arguments: Mapping[str, Any]) -> Outcome | None:
        """Sees to it that there is a child; None if the effect is answered later. Does not raise for what is refused:
        that is the effect's failure, or waited for."""
        shard = self._shards.by_number[execution.shard_number]
        delay_s = limits.SUBFLOW_RETRY_S_MIN
        while True:
            try:
                return await self._start(shard, execution, effect, arguments)
            except (Elsewhere, IdTaken):
                return id_taken(effect.effect_id, child_id_of(execution.execution_id, effect.effect_id))
            except Stopping:
                if self._host.is_stopping:
                    # The next start performs the effect again.
                    return None
                await asyncio.sleep(delay_s)
            except _TRANSIENT as refusal:
                await asyncio.sleep(max(delay_s, getattr(refusal, "retry_after_s", 0.0)))
                delay_s = min(2 * delay_s, limits.SUBFLOW_RETRY_S_MAX)
            except RunnerError as refusal:
                return refused(effect.effect_id, arguments, refusal)

    async def _start(
        self, shard: Shard, execution: Execution, effect: PerformEffect, arguments: Mapping[str, Any]
    ) -> Outcome | None:
        """Raises RunnerError."""
        child_id = child_id_of(execution.execution_id, effect.effect_id)
        status = self._status(shard, execution, child_id)
        if status is None:
            parent = Parent(
                execution.execution_id,
                effect.effect_id,
                execution.shard_number,
                execution.depth + 1,
                bool(arguments["await"]),
            )
            refusal = self._bound(effect, parent)
            if refusal is not None:
                return refusal
            submission = _submission(shard, execution, child_id, parent, arguments)
            if execution.trace is not None:
                submission.trace = execution.trace.place_of(effect.effect_id)
            await self._host.submit(submission)
            status = "running"
        if not arguments["await"]:
            return EffectResult(effect.effect_id, None)
        if status in FINAL_STATUSES:
            view = shard.store.view(child_id)
            assert view is not None
            return _outcome(effect.effect_id, child_id, view.status, view.output_json, view.error)
        if status != "paused" and execution.walk is not None and execution.walk.status == "paused":
            # It was paused when there was no child yet to hand that down to.
            shard.orders.give(execution.execution_id, child_id, 0, PAUSE)
        return None

    def _status(self, shard: Shard, execution: Execution, child_id: str) -> str | None:
        """Of a child that is durable; None if there is none. Raises IdTaken for another one's."""
        acceptance = shard.store.acceptance(child_id)
        if acceptance is None:
            return None
        parent = shard.store.parent(acceptance[0], shard.number)
        if parent is None or parent.execution_id != execution.execution_id:
            raise IdTaken(child_id)
        return acceptance[2]

    def _bound(self, effect: PerformEffect, parent: Parent) -> EffectFailure | None:
        if parent.depth > limits.SUBFLOW_DEPTH_MAX:
            return too_deep(effect.effect_id)
        if not self._host.has_room_for_subflows:
            return failed(
                effect.effect_id,
                "runtime",
                "Too Many Executions",
                f"there are {limits.SUBFLOW_EXECUTIONS_RATIO_MAX} times as many executions as clients may start by "
                "FASTRUNNER_EXECUTIONS_MAX: let fewer run at once",
                503,
            )
        return None

    def committed(self, execution: Execution, change: Change) -> None:
        """A change is durable: children hear what their parent has for them, and a parent of a child's end."""
        shard = self._shards.by_number[execution.shard_number]
        family, execution_id = change.family, execution.execution_id
        if family is not None and family.is_all:
            self._surely(shard.orders.give_all)
        elif family is not None:
            for child_id, order in family.orders:
                give = partial(shard.orders.give, execution_id, child_id, family.number, order)
                # By then there may be a later order; the file has the last one.
                self._surely(give, shard.orders.give_all)
        parent = None if execution.family is None else execution.family.parent
        if change.finished_ms and parent is not None and parent.awaits_end:
            asked = (parent, execution_id, change.status, change.output_json, change.error_json)
            self._surely(partial(self.ended, shard, execution_id, parent, lambda: _outcome_of_end(*asked)))

    def _surely(self, action: Callable[[], None], again: Callable[[], None] | None = None) -> None:
        """Now, or, perhaps otherwise, as soon as the file can be read: what else follows a commit must not be cut
        off."""
        try:
            action()
        except StorageFailed:
            asyncio.get_running_loop().call_later(limits.COMMIT_RETRY_DELAY_S_MAX, self._surely, again or action)

    def ended(self, shard: Shard, child_id: str, parent: Parent, outcome_of: Callable[[], Outcome]) -> None:
        """The end of a child is durable: its parent hears of it."""
        execution = shard.live.get(parent.execution_id)
        if execution is None:
            acceptance = shard.store.acceptance(parent.execution_id)
            if acceptance is not None and acceptance[2] not in FINAL_STATUSES:
                # Comes back, performs the effect again, and finds the child ended.
                shard.loader.requeue(acceptance[0])
            return
        family = execution.family
        if family is not None and family.children.get(parent.effect_id) == child_id and not execution.broken:
            self._host.answer(execution, outcome_of())

    def is_wanted(self, parent: Parent) -> bool:
        """Whether an execution still waits for the acceptance of one that it starts."""
        shard = self._shards.by_number.get(parent.shard_number)
        execution = None if shard is None else shard.live.get(parent.execution_id)
        return execution is not None and parent.effect_id in execution.tasks


def _outcome_of_end(
    parent: Parent, child_id: str, status: str, output_json: str | None, error_json: str | None
) -> Outcome:
    """What the parent's effect is answered with."""
    error = None if error_json is None else orjson.loads(error_json)
    return _outcome(parent.effect_id, child_id, status, output_json or "", error)


def _submission(
    shard: Shard, execution: Execution, child_id: str, parent: Parent, arguments: Mapping[str, Any]
) -> Submission:
    input_json = orjson.dumps(arguments.get("input", {}))
    if len(input_json) > limits.INPUT_SIZE_BYTES_MAX:
        raise TooLarge(f"the input has {len(input_json)} bytes: at most {limits.INPUT_SIZE_BYTES_MAX} are allowed")
    version = arguments["version"]
    return Submission(
        execution_id=child_id,
        document="",
        input_json=input_json,
        input_value=orjson.loads(input_json),
        env_vars=orjson.loads(shard.store.env_json(execution.execution_key, execution.execution_id)),
        metadata=b"",
        timeout_s_max=0,
        debug=execution.debug,
        client=execution.client,
        silent=execution.silent,
        ref=DefinitionRef(arguments["namespace"], arguments["name"], "" if version == LATEST else version),
        parent=parent,
    )


def _outcome(effect_id: int, child_id: str, status: str, output_json: str, error: Mapping[str, Any] | None) -> Outcome:
    if status == "completed":
        return EffectResult(effect_id, orjson.loads(output_json))
    if status == "failed" and error is not None:
        return EffectFailure.whole(effect_id, dict(error))
    return cancelled(effect_id, child_id)
