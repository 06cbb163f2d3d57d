"""Stage 3, journal: what listeners of one shard are to have with its next commit.

Rule: where events have been looked at up to a key, what they mean is in the same commit as that key, or in an earlier
one. So whoever goes on after a crash at the key that the file has gives nobody an event twice, and passes none over.
"""

import logging
from collections.abc import Callable

from fastrunner.base import crash
from fastrunner.base.crash import CrashPoint
from fastrunner.engine.embedded.store.changes import InboxChange, InboxRow

__all__ = ["Inbox"]

_log = logging.getLogger(__name__)


class Inbox:
    """Rows that wait for a commit."""

    def __init__(self, plan_commit: Callable[[], None]) -> None:
        self.position = 0
        """Up to which key events have been looked at; the file may not know yet."""
        self._plan_commit = plan_commit
        self._next = InboxChange()
        self._stored_position = 0
        self._landed_position = 0
        self._unlanded_count = 0

    def __bool__(self) -> bool:
        return bool(self._next)

    @property
    def rows_count(self) -> int:
        """Rows that no commit has taken yet."""
        return len(self._next.rows)

    @property
    def lag(self) -> int:
        """How far the file is behind."""
        return self.position - self._stored_position

    @property
    def safe_position(self) -> int:
        """Up to which key nobody here needs the events' file any more, but who is behind."""
        return self._landed_position if self._unlanded_count else self.position

    def begin(self, position: int) -> None:
        """The file says up to which key events have been looked at."""
        self.position = self._stored_position = self._landed_position = position

    def put(self, execution_key: int, subscription_id: int, event_key: int, event_json: Callable[[], bytes]) -> None:
        """A listener is to have an event."""
        self._unlanded_count += 1
        self._next.rows.append(InboxRow(execution_key, subscription_id, event_key))
        if event_key not in self._next.events:
            self._next.events[event_key] = event_json()
        self._plan_commit()

    def offered(self, execution_key: int, subscription_id: int, offered_key: int, is_live: bool) -> None:
        """How far a listener has been offered events."""
        self._next.offered[execution_key, subscription_id] = (offered_key, is_live)
        self._plan_commit()

    def note_position(self) -> None:
        """Has the next commit write the position down, whatever else there is."""
        self._next.position = self.position
        self._plan_commit()

    def take(self, begins: bool) -> InboxChange:
        """What a commit writes; `begins`: an execution begins to listen with it, whose rows start at the position."""
        change, self._next = self._next, InboxChange()
        if change.rows:
            crash.reach(CrashPoint.BEFORE_INBOX_COMMIT)
        if change or begins:
            change.position = self._stored_position = self.position
        return change

    def landed(self, change: InboxChange) -> None:
        """That is durable."""
        self._landed_position = max(self._landed_position, change.position)
        self._unlanded_count -= len(change.rows)

    def give_up(self, row: InboxRow) -> None:
        """It cannot be written."""
        _log.error("execution number %d cannot be given event %d", row.execution_key, row.event_key)
        self._unlanded_count -= 1
