"""Support: where a test may have the process killed: at named points in the code, and in turns of chosen executions.

Rules: each point is reached at exactly one place; off, which is always but in tests, reaching one costs a comparison.
A point is armed once per process, by FASTRUNNER_CRASH_POINT (see `config`), and kills by SIGKILL: no handler, no
`finally`, no flush comes after it. Executions, chosen by FASTRUNNER_CRASH_TURN, are the death of every process
that comes to the chosen part of a turn of theirs.
"""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "CrashPlan",
    "CrashPoint",
    "TurnPart",
    "arm",
    "arm_turns",
    "blows",
    "parse",
    "parse_turns",
    "reach",
    "reach_soon",
    "strike",
]

_LATE_S: Final = 1.5
"""Longer than a turn may take."""

_SOON_S: Final = 0.005
"""Long enough for what was handed to the network to leave, shorter than what answers it."""


class CrashPoint(StrEnum):
    """Where a process can be killed; `docs/durability.md` says what each proves."""

    BEFORE_JOURNAL_WRITE = "before-journal-write"
    AFTER_JOURNAL_WRITE = "after-journal-write"
    BEFORE_COMMIT = "before-commit"
    AFTER_COMMIT = "after-commit"
    BEFORE_ACK = "before-ack"
    AFTER_ACK = "after-ack"
    BEFORE_EFFECT_START = "before-effect-start"
    AFTER_EFFECT_START = "after-effect-start"
    BEFORE_EFFECT_END = "before-effect-end"
    AFTER_EFFECT_END = "after-effect-end"
    BEFORE_OUTCOME_COMMIT = "before-outcome-commit"
    AFTER_OUTCOME_COMMIT = "after-outcome-commit"
    BEFORE_CALLBACK_SEND = "before-callback-send"
    AFTER_CALLBACK_SEND = "after-callback-send"
    BEFORE_CALLBACK_ACK = "before-callback-ack"
    AFTER_CALLBACK_ACK = "after-callback-ack"
    BEFORE_SNAPSHOT = "before-snapshot"
    AFTER_SNAPSHOT = "after-snapshot"
    BEFORE_EVICTION = "before-eviction"
    AFTER_EVICTION = "after-eviction"
    BEFORE_RETENTION_DELETE = "before-retention-delete"
    AFTER_RETENTION_DELETE = "after-retention-delete"
    BEFORE_CLAIM = "before-claim"
    AFTER_CLAIM = "after-claim"
    BEFORE_FORWARD = "before-forward"
    AFTER_FORWARD = "after-forward"
    BEFORE_RESUME = "before-resume"
    AFTER_RESUME = "after-resume"
    BEFORE_CANCEL = "before-cancel"
    AFTER_CANCEL = "after-cancel"
    BEFORE_INBOX_COMMIT = "before-inbox-commit"
    AFTER_INBOX_COMMIT = "after-inbox-commit"
    BEFORE_TAKING_COMMIT = "before-taking-commit"
    AFTER_TAKING_COMMIT = "after-taking-commit"
    BEFORE_EVENTS_COMMIT = "before-events-commit"
    AFTER_EVENTS_COMMIT = "after-events-commit"


@dataclass(slots=True)
class CrashPlan:
    """Where one process dies."""

    point: CrashPoint
    """The point."""
    reaches_left: int
    """How many more times it is reached, the deadly one included."""


_plan: CrashPlan | None = None


def parse(text: str) -> list[CrashPlan]:
    """Plans from `name[:nth]`, separated by commas, one for each worker in turn. Raises ValueError."""
    plans = []
    for part in text.split(","):
        name, _, nth = part.strip().partition(":")
        try:
            plans.append(CrashPlan(CrashPoint(name), int(nth or "1")))
        except ValueError:
            raise ValueError(f"expected name[:nth],..., with names of {', '.join(CrashPoint)}") from None
    return plans


def arm(text: str, worker: int) -> None:
    """Has this process die at the point that `text` (see `parse`) plans for a worker."""
    global _plan
    plans = parse(text)
    _plan = plans[worker % len(plans)]


def reach(point: CrashPoint) -> None:
    """Kills this process if it is to die here and now."""
    if _plan is not None and _counts_down(_plan, point):
        _die(point)


def reach_soon(point: CrashPoint) -> None:
    """As `reach`, a few milliseconds later: when what was handed over to the network has left, unanswered. Call on the
    loop."""
    if _plan is not None and _counts_down(_plan, point):
        asyncio.get_running_loop().call_later(_SOON_S, _die, point)


def _counts_down(plan: CrashPlan, point: CrashPoint) -> bool:
    if plan.point is not point:
        return False
    plan.reaches_left -= 1
    return plan.reaches_left == 0


def _die(point: CrashPoint) -> None:
    os.write(2, f"crash point {point} reached: killing process {os.getpid()}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


# --- turns ---


class TurnPart(StrEnum):
    """What of a turn an execution may be deadly in."""

    TURN = "turn"
    RESTORE = "restore"
    RENDER = "render"
    SNAPSHOT = "snapshot"


class Blow(StrEnum):
    """How a process dies of it."""

    SEGV = "segv"
    ABORT = "abort"
    HANG = "hang"
    KILL = "kill"
    KILL_LATE = "kill-late"


blows: list[tuple[Blow, TurnPart, str]] = []
"""How this process dies, where, and in turns of executions whose ids begin how."""


def parse_turns(text: str) -> list[tuple[Blow, TurnPart, str]]:
    """Blows from `blow:part:prefix`, separated by commas: what executions whose ids begin so do. Raises ValueError."""
    parsed = []
    for each in text.split(","):
        blow, _, rest = each.strip().partition(":")
        part, _, prefix = rest.partition(":")
        try:
            parsed.append((Blow(blow), TurnPart(part), prefix))
        except ValueError:
            raise ValueError(
                f"expected blow:part:prefix,..., with blows of {', '.join(Blow)} and parts of {', '.join(TurnPart)}"
            ) from None
    return parsed


def arm_turns(text: str) -> None:
    """Has this process die in the turns that `text` (see `parse_turns`) names."""
    blows[:] = parse_turns(text)


def strike(part: TurnPart, execution_id: str) -> None:
    """Kills this process if an execution is to be the death of it here."""
    for blow, where, prefix in blows:
        if where is part and execution_id.startswith(prefix):
            _deal(blow)


def _deal(blow: Blow) -> None:
    if blow is Blow.SEGV:
        os.kill(os.getpid(), signal.SIGSEGV)
    if blow is Blow.ABORT:
        os.abort()
    if blow is Blow.KILL_LATE:
        time.sleep(_LATE_S)
    if blow in (Blow.KILL, Blow.KILL_LATE):
        os.kill(os.getpid(), signal.SIGKILL)
    # Until the supervisor has had enough.
    while True:
        pass
