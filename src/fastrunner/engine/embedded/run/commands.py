"""Stage 3, journal: which control command an execution's state allows.

    status                cancel          pause           resume
    pending, running      apply           apply           nothing to do
    paused                apply           nothing to do   apply
    cancelled             nothing to do   WrongState      WrongState
    completed, failed     WrongState      WrongState      WrongState

"Nothing to do" is a success: the same command twice is answered the same. A forced cancel after a graceful one is
applied, because the execution is not in a final state before its effects have ended.
"""

from typing import Final

from fastrunner._core import Cancel, Pause, Resume
from fastrunner.errors import WrongState
from fastrunner.progress.names import FINAL_STATUSES

__all__ = ["Command", "applies"]

Command = Cancel | Pause | Resume


_STATUS_ASKED_FOR: Final[dict[type[Command], str]] = {Cancel: "cancelled", Pause: "paused", Resume: "running"}
_VERB: Final[dict[type[Command], str]] = {Cancel: "cancelled", Pause: "paused", Resume: "resumed"}


def applies(command: Command, execution_id: str, status: str) -> bool:
    """Whether the command is for the walk; False if the execution is in the state asked for. Raises WrongState."""
    kind = type(command)
    if status == _STATUS_ASKED_FOR[kind]:
        return False
    if status in FINAL_STATUSES:
        raise WrongState(f"execution {execution_id!r} has ended ({status}): it cannot be {_VERB[kind]}")
    return not (kind is Resume and status == "pending")
