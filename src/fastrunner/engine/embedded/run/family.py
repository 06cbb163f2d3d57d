"""Stage 3, journal: what an execution has to do with those it has started by `run: workflow`, and with its own parent.

Theory of operation: a child is an execution of its own, in its parent's shard. The parent's walk has an effect for it,
in flight until the child has ended. What the parent does with that effect, and pauses, resumes and cancels of the
parent, are orders to the child: they are written with the parent's commit, and taken away with the commit of the child
that has done them. So neither is lost, whoever dies in between.

Rule: a child's id follows from its parent's and the effect's number, so an effect that is performed again finds the
child that it has started before.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from fastrunner._core import Cancel, Pause, Resume
from fastrunner.base import limits
from fastrunner.engine import Parent
from fastrunner.engine.embedded.run.commands import Command
from fastrunner.engine.embedded.store.changes import FAMILY_ENDS, FamilyChange

__all__ = [
    "CANCEL",
    "KILL",
    "PAUSE",
    "RESUME",
    "RUN_WORKFLOW",
    "Family",
    "HandedDown",
    "child_id_of",
    "command_of",
    "family_of",
]

RUN_WORKFLOW: Final = "run_workflow"
"""The kind of effect that is a child."""

CANCEL: Final = "cancel"
"""The parent is being cancelled: the child may let its effects end."""
KILL: Final = FAMILY_ENDS
"""Nobody waits for the child any more."""
PAUSE: Final = "pause"
RESUME: Final = "resume"

_MARK: Final = "~"


@dataclass(frozen=True, slots=True)
class HandedDown:
    """A command from a parent."""

    command: Command
    """What to do."""
    number: int
    """Of the order that says so."""


def child_id_of(execution_id: str, effect_id: int) -> str:
    """The id of the execution that an effect starts: the parent's, and the effect's number; a hash of a long one."""
    child_id = f"{execution_id}{_MARK}{effect_id}"
    if len(child_id.encode()) <= limits.EXECUTION_ID_SIZE_BYTES_MAX:
        return child_id
    return f"{_MARK}{sha256(execution_id.encode()).hexdigest()}{_MARK}{effect_id}"


def command_of(order: str, parent_id: str, grace_ms: int) -> Command:
    """What an order has its child do."""
    if order == PAUSE:
        return Pause(f"its parent {parent_id} is paused")
    if order == RESUME:
        return Resume(f"its parent {parent_id} is resumed")
    if order == CANCEL:
        return Cancel(f"its parent {parent_id} is being cancelled", False, grace_ms)
    return Cancel(f"its parent {parent_id} does not wait for it any more", True, 0)


def family_of(parent: Parent | None) -> "Family | None":
    """What an execution has that comes back from the file."""
    return None if parent is None else Family(parent)


class Family:
    """The children of one execution that its effects wait for, and its parent."""

    __slots__ = ("_order_taken", "_orders", "_released", "children", "parent")

    def __init__(self, parent: Parent | None = None) -> None:
        self.parent = parent
        """Who has started it."""
        self.children: dict[int, str] = {}
        """Ids by effect."""
        self._orders: tuple[tuple[str, str], ...] = ()
        self._released: tuple[str, ...] = ()
        self._order_taken = -1

    def asks(self, execution_id: str, effect_id: int) -> None:
        """An effect that starts a child is asked for."""
        self.children[effect_id] = child_id_of(execution_id, effect_id)

    def answered(self, effect_id: int) -> None:
        """The walk has heard of a child."""
        child_id = self.children.pop(effect_id, None)
        if child_id is not None:
            self._released += (child_id,)

    def gives_up(self, effect_id: int) -> None:
        """The walk does not wait for a child any more."""
        child_id = self.children.pop(effect_id, None)
        if child_id is not None:
            self._released += (child_id,)
            self._orders += ((child_id, KILL),)

    def hands_down(self, command: Command) -> None:
        """The execution itself has been told something."""
        order = CANCEL if isinstance(command, Cancel) else PAUSE if isinstance(command, Pause) else RESUME
        self._orders += tuple((child_id, order) for child_id in self.children.values())

    def ends(self) -> None:
        """The execution has ended."""
        for effect_id in list(self.children):
            self.gives_up(effect_id)

    def obeys(self, command: Command) -> bool:
        """Whether the execution does what its parent does. One that nobody waits for is paused by nobody else: its
        parent has gone on before it could be resumed."""
        return isinstance(command, Cancel) or self.parent is None or self.parent.awaits_end

    def took(self, order: HandedDown) -> None:
        """The execution has done what its parent had it do, if it does that at all."""
        self._order_taken = order.number

    def gather(self) -> FamilyChange | None:
        """What there is to be written since the last commit."""
        if not self._orders and not self._released and self._order_taken < 0:
            return None
        change = FamilyChange(self._orders, self._released, self._order_taken)
        self._orders, self._released, self._order_taken = (), (), -1
        return change
