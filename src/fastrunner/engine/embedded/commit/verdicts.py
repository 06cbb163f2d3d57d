"""Stage 3, journal: what the runner says of an execution whose walk it cannot use, or must not touch.

    failed      its stored state is damaged, or cannot be written
    paused      it is set aside: worker after worker has died in a turn of it
    running     somebody has resumed it after that: it comes back as after a restart
    cancelled   somebody has cancelled it after that

Rules: a verdict is committed like any change of an execution, with its event, and leaves the stored walk as it is. One
that is paused or resumed so has told two events its walk knows nothing of; `Execution.restored` makes up for that.
"""

import logging
from asyncio import Future
from collections.abc import Sequence
from typing import Any, Final

import orjson

from fastrunner._core import Cancel, Resume
from fastrunner.base import limits
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.store import proofs
from fastrunner.engine.embedded.store.changes import Change, FamilyChange, Waiter
from fastrunner.engine.embedded.store.marks import Suspect
from fastrunner.engine.embedded.store.reader import Unfinished
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.tracing.span import Span

__all__ = ["answer", "failure", "log_suspect", "outside", "pause"]

_log = logging.getLogger(__name__)

_ADVICE: Final = "resume it to try again, or cancel it"


def log_suspect(shard_number: int, suspect: Suspect) -> None:
    """A worker has died in a turn of an execution."""
    _log.warning(
        "worker died in a turn of execution number %d of shard %d (%s): %d of %d times",
        suspect.execution_key,
        shard_number,
        suspect.cause_name,
        suspect.deaths_count,
        limits.DEATHS_IN_TURN_MAX,
    )


def outside(shard_number: int, row: Unfinished, landing: "Future[None]") -> Execution:
    """An execution of the file for as long as it takes to commit a verdict on it; `landing` ends with that."""
    execution = Execution(
        shard_number, row.execution_key, row.execution_id, row.accepted_ms, row.request_digest, row.debug
    )
    execution.silent, execution.parked = row.silent, row.parked
    execution.stored = execution.broken = True
    execution.landing = landing
    return execution


def failure(execution: Execution, last_sequence: int, now_ms: int, detail: str) -> Change:
    """Ends an execution; what is left of it stays until its retention ends."""
    error = proofs.damage_error(detail)
    event = proofs.failed_event(execution.execution_id, last_sequence + 1, now_ms, error)
    return _change(execution, "failed", last_sequence + 1, now_ms, event, error=error, keeps_state=True)


def pause(execution: Execution, name: str, last_sequence: int, now_ms: int, suspect: Suspect) -> Change:
    """Sets an execution aside."""
    detail = f"its worker died {suspect.deaths_count} times in a turn of it ({suspect.cause_name}); {_ADVICE}"
    event = proofs.told_event(
        execution.execution_id,
        name,
        "paused",
        last_sequence + 1,
        now_ms,
        f"Workflow {name} paused by the runner: {detail}",
    )
    return _change(execution, "paused", last_sequence + 1, now_ms, event, error=proofs.aside_error(detail))


def answer(execution: Execution, name: str, last_sequence: int, now_ms: int, command: Cancel | Resume) -> Change:
    """What somebody asked for of an execution that is set aside."""
    status, verb = ("cancelled", "cancelled") if isinstance(command, Cancel) else ("running", "resumed")
    reason = f": {command.reason}" if command.reason else ""
    event = proofs.told_event(
        execution.execution_id, name, status, last_sequence + 1, now_ms, f"Workflow {name} {verb}{reason}"
    )
    return _change(execution, status, last_sequence + 1, now_ms, event)


def _change(
    execution: Execution,
    status: str,
    sequence: int,
    now_ms: int,
    event: bytes,
    *,
    error: dict[str, Any] | None = None,
    keeps_state: bool = False,
) -> Change:
    waiters: Sequence[Waiter] = () if execution.landing is None else (Waiter(execution.landing),)
    spans: Sequence[Span] = ()
    if execution.trace is not None:
        if status in FINAL_STATUSES:
            execution.trace.ended(status, error, now_ms)
        spans = execution.trace.gather()
    return Change(
        execution_key=execution.execution_key,
        execution_id=execution.execution_id,
        accepted=None,
        status=status,
        finished_ms=now_ms if status in FINAL_STATUSES else 0,
        wake_at_ms=0,
        parked=status == "paused",
        last_sequence=sequence,
        snapshot=None,
        output_json=None,
        error_json=None if error is None else orjson.dumps(error).decode(),
        events=UnacknowledgedEvents(
            execution.execution_id,
            sequence,
            sequence,
            event,
            "" if execution.trace is None else execution.trace.text,
        ),
        effects=(),
        waiters=waiters,
        family=FamilyChange(is_all=True) if status in FINAL_STATUSES else None,
        spans=spans,
        keeps_state=keeps_state,
    )
