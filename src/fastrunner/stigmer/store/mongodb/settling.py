"""Support: what a death, or a failure, leaves between two writes of a commit of events on MongoDB, and who finishes it.

    note     {_id: lane, turn, executions, how far}       one write, before the commit's first event
    commit   events, then what follows folded              see taking
    next     the next commit's note takes its place; while there is none, it is removed

Theory of operation: a service has one commit under way at a time, so one note tells what may be half-done. Where a
commit fails, its note is left where it is, and the service goes on in another lane. Every service looks at all notes.
One that is there with the same turn some seconds later is of a service that is dead, or slow, or knows nothing of what
became of its commit: whoever sees it folds what is stored of its executions, whether or not anybody sends more, and
tells of all of them, since nobody may have been told. Not sooner: where the database is slow, everybody would read what
everybody writes. What a dead service has sent may reach the database long after:
so a note is settled once more, and removed, only when no call can be under way any more.

Rules: settling is folding, which changes nothing the second time, also while their own service, or several others, do
the same. An execution that is folded as far as the commit went has nothing left, and its events are not read. A number
without an execution is never given again, so events with it are nobody's, and removed.
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.stigmer.store import Taken, Told
from fastrunner.stigmer.store.mongodb.database import Database
from fastrunner.stigmer.store.mongodb.forgetting import forget_events
from fastrunner.stigmer.store.mongodb.taking import Taking

__all__ = ["Lane", "Settler"]

_log = logging.getLogger(__name__)


class Lane:
    """The notes of one service."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._name = secrets.token_hex(8)
        self._turn = 0
        self._is_noted = False

    async def note(self, lasts: Mapping[int, int]) -> None:
        """A commit is about executions with these numbers, up to these events. Raises PyMongoError."""
        self._turn += 1
        self._is_noted = True
        noted = {"turn": self._turn, "about": [list(each) for each in lasts.items()]}
        await self._database.commits.update_one({"_id": self._name}, {"$set": noted}, upsert=True)

    def leave(self) -> None:
        """The commit has failed: what it was about is for whoever settles."""
        self._name = secrets.token_hex(8)
        self._is_noted = False

    async def clear(self) -> None:
        """The commit noted last is whole, and there is no next one yet. Raises PyMongoError."""
        if not self._is_noted:
            return
        name, turn = self._name, self._turn
        await self._database.commits.delete_one({"_id": name, "turn": turn})
        if (name, turn) == (self._name, self._turn):
            self._is_noted = False


@dataclass(slots=True)
class _Seen:
    since_s: float
    is_settled: bool = False


class Settler:
    """Finishes what is left, a bounded part at a time."""

    def __init__(self, database: Database, retention_ms: int) -> None:
        self._database = database
        self._retention_ms = retention_ms
        self._seen: dict[tuple[str, int], _Seen] = {}
        """Notes, by lane and turn, that were there the last time."""

    async def settle(self) -> Taken:
        """Looks at all notes, and settles some of those that were there before. Raises PyMongoError."""
        now_s = monotonic_s()
        found = [note async for note in self._database.commits.find({}, ("turn",))]
        before, self._seen = self._seen, {}
        for note in found:
            key = (note["_id"], note["turn"])
            self._seen[key] = before.get(key) or _Seen(now_s)
        due = [key for key, seen in self._seen.items() if key in before and self._is_due(seen, now_s)]
        due.sort(key=lambda key: self._seen[key].since_s)
        taken = Taken()
        for key in due[: limits.STIGMER_SETTLED_COMMITS_MAX]:
            await self._settle(key, taken)
            self._seen[key].is_settled = True
            if self._is_over(self._seen[key], now_s):
                await self._database.commits.delete_one({"_id": key[0], "turn": key[1]})
        return taken

    async def settle_all(self) -> None:
        """Settles whatever there is; all notes stay. Raises PyMongoError."""
        for note in [note async for note in self._database.commits.find({}, ("turn",))]:
            await self._settle((note["_id"], note["turn"]), Taken())

    @staticmethod
    def _is_over(seen: _Seen, now_s: float) -> bool:
        return now_s - seen.since_s >= limits.STIGMER_SETTLE_AGAIN_S

    def _is_due(self, seen: _Seen, now_s: float) -> bool:
        is_old = now_s - seen.since_s >= limits.STIGMER_SETTLE_AFTER_S
        return is_old and (not seen.is_settled or self._is_over(seen, now_s))

    async def _settle(self, key: tuple[str, int], taken: Taken) -> None:
        note = await self._database.commits.find_one({"_id": key[0], "turn": key[1]})
        about = note["about"] if note is not None else []
        for first in range(0, len(about), limits.STIGMER_SETTLED_AT_ONCE_MAX):
            some = dict(about[first : first + limits.STIGMER_SETTLED_AT_ONCE_MAX])
            try:
                await self._fold(some, taken)
            except DecodeError:
                await self._fold_each(some, taken)

    async def _fold(self, lasts: Mapping[int, int], taken: Taken) -> None:
        taking = Taking(self._database, (), wall_ms(), self._retention_ms)
        gone = await taking.settle(lasts)
        await forget_events(self._database, gone)
        for execution_id, fate in taking.fates.items():
            taken.told.append(Told(execution_id, fate.acknowledged))
            if fate.ended_as:
                taken.ended[fate.ended_as] = taken.ended.get(fate.ended_as, 0) + 1
            if fate.after_end:
                taken.violations["after_end"] = taken.violations.get("after_end", 0) + len(fate.after_end)

    async def _fold_each(self, lasts: Mapping[int, int], taken: Taken) -> None:
        """One whose events are damaged keeps none of the others from being settled."""
        for number, last in lasts.items():
            try:
                await self._fold({number: last}, taken)
            except DecodeError:
                _log.error("execution number %d cannot be folded: an event of it is damaged; see `verify`", number)
