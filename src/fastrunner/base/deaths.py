"""Support: how a worker died, as far as that tells whether what it was doing was the death of it.

Rules: the supervisor makes a Death, because only it knows what it has killed itself and why; the successor judges. A
worker that somebody ended in the middle of ordinary work did not die of that work.
"""

from dataclasses import dataclass
from typing import Final

from fastrunner.base import limits

__all__ = ["CAUSES", "HUNG", "Death"]

HUNG: Final = "watchdog"
"""The supervisor killed it, because it did not answer any more."""

CAUSES: Final = (HUNG, "SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGKILL")
"""What a turn can be the cause of; files hold a cause by its place in here, so new ones are appended."""


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a worker that nobody asked for."""

    cause: str
    """The signal's name, or HUNG."""
    at_s: float
    """When it was noticed, on the monotonic clock."""

    def was_of(self, began_s: float) -> bool:
        """Whether a turn that had begun at a time, and had not ended, is to blame.

        SIGKILL is the system's answer to want of memory as well as anybody's: what tells them apart is whether the turn
        was an ordinary one.
        """
        if self.cause == "SIGKILL":
            return self.at_s - began_s > limits.TURN_S_MAX
        return self.cause in CAUSES
