"""Stage 3, journal: the schedules' file: `schedules.db` in the data directory, one for all workers.

Rules: any worker adds, pauses, resumes and deletes; whoever fires notes how far schedules have come, unless somebody
has changed them since. What is executed may hold values that are not for every eye: it is sealed where there is a key.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import apsw
import orjson

from fastrunner.base import limits
from fastrunner.engine.embedded.store.connection import read_all
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.engine.embedded.store.seals import DataKeys, NotOpened, Seals, place
from fastrunner.engine.embedded.store.shared_file import SharedFile, missing
from fastrunner.engine.embedded.store.statements import statements_in
from fastrunner.engine.schedules import Schedule, Trigger
from fastrunner.errors import AtCapacity, Damaged, ScheduleExists, UnknownSchedule
from fastrunner.events.schedules.planner import Progress, begun, resumed
from fastrunner.events.schedules.rows import Note, Row, options_of, principal_of, principal_values

__all__ = ["FILE_NAME", "QUERIES", "SCHEMA", "SchedulesFile", "row_of"]

_log = logging.getLogger(__name__)

FILE_NAME: Final = "schedules.db"


def _sql(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


QUERIES: Final[Mapping[str, str]] = statements_in(_sql("queries"))
"""The file's statements, by name."""
SCHEMA: Final = (_sql("0001-schedules"),)
"""How it comes to be."""


class SchedulesFile(SharedFile):
    """One connection; it belongs to one thread. Every method raises StorageFailed or StorageFull."""

    def __init__(self, folder: Path, keys: DataKeys | None = None) -> None:
        """`folder` is the data directory; `keys` seal what is executed."""
        super().__init__(folder / FILE_NAME, SCHEMA)
        self._seals = Seals(keys)
        self._damaged: set[str] = set()

    def exists(self) -> bool:
        """Whether any schedule has ever been added: whoever only looks makes no file."""
        return self.path.exists() or bool(missing(self.path))

    def add(self, schedule: Schedule, digest: bytes, events_key: int = 0) -> bool:
        """Whether this call has added it; events after a number count. Raises ScheduleExists if another request has;
        AtCapacity."""
        return self.written(lambda db: self._add(db, schedule, digest, events_key))

    def _add(self, db: apsw.Connection, schedule: Schedule, digest: bytes, events_key: int) -> bool:
        known = read_all(db, QUERIES["select_digest"], (schedule.schedule_id,))
        if known:
            if known[0][0] != digest:
                raise ScheduleExists(schedule.schedule_id)
            return False
        if read_all(db, QUERIES["count"])[0][0] >= limits.SCHEDULES_COUNT_MAX:
            raise AtCapacity(
                f"there are {limits.SCHEDULES_COUNT_MAX} schedules, which is as many as there may be: delete one first "
                "(`fastrunner schedule delete`)"
            )
        by_events = schedule.trigger.on is not None
        if by_events and read_all(db, QUERIES["count_by_events"])[0][0] >= limits.SCHEDULES_BY_EVENTS_MAX:
            raise AtCapacity(
                f"there are {limits.SCHEDULES_BY_EVENTS_MAX} schedules that start by events, which is as many as there "
                "may be: delete one first (`fastrunner schedule delete`)"
            )
        sealer, request = self._seals.sealer, schedule.request
        if sealer is not None:
            request = sealer.seal(request, place("schedule", schedule.schedule_id))
        values = (
            *(schedule.schedule_id, schedule.namespace, schedule.name, schedule.version, schedule.added_ms),
            *(_text(principal_values(schedule.principal)), _text(schedule.trigger), _text(schedule.options), digest),
            *(schedule.added_ms, None, _text(begun(schedule, events_key)), by_events, request),
        )
        db.execute(QUERIES["insert"], values)
        return True

    def get(self, schedule_id: str) -> Row:
        """One, with what it executes. Raises UnknownSchedule, Damaged."""
        rows = self.tried(lambda db: read_all(db, QUERIES["select"], (schedule_id,))) if self.exists() else ()
        if not rows:
            raise UnknownSchedule(schedule_id)
        return self._row(rows[0])

    def page(self, namespace: str, within: frozenset[str] | None, after: str, count_max: int) -> list[Row]:
        """Those with ids after one, of some namespaces (None: of all), without what they execute."""
        if not self.exists():
            return []
        parameters = {
            "namespace": namespace,
            "within": None if within is None else orjson.dumps(sorted(within)).decode(),
            "after": after,
            "count_max": count_max,
        }
        return [self._row(each) for each in self.tried(lambda db: read_all(db, QUERIES["list"], parameters))]

    def pause(self, schedule_id: str, reason: str) -> None:
        """Raises UnknownSchedule."""
        self._changed(schedule_id, "pause", lambda _: (schedule_id, reason))

    def resume(self, schedule_id: str, now_ms: int, events_key: int = 0) -> None:
        """One that is not paused goes on as it is. Raises UnknownSchedule."""
        if not self.exists():
            raise UnknownSchedule(schedule_id)
        self.written(lambda db: self._resume(db, schedule_id, now_ms, events_key))

    def _resume(self, db: apsw.Connection, schedule_id: str, now_ms: int, events_key: int) -> None:
        rows = read_all(db, QUERIES["select"], (schedule_id,))
        if not rows:
            raise UnknownSchedule(schedule_id)
        row = self._row(rows[0])
        if row.is_paused:
            db.execute(QUERIES["resume"], (schedule_id, now_ms, _text(resumed(row.progress, now_ms, events_key))))

    def delete(self, schedule_id: str) -> None:
        """Raises UnknownSchedule."""
        self._changed(schedule_id, "delete", lambda _: (schedule_id,))

    def _changed(self, schedule_id: str, statement: str, values_of: Callable[[Row], tuple[Any, ...]]) -> None:
        if not self.exists():
            raise UnknownSchedule(schedule_id)
        self.written(lambda db: self._change(db, schedule_id, statement, values_of))

    def _change(
        self, db: apsw.Connection, schedule_id: str, statement: str, values_of: Callable[[Row], tuple[Any, ...]]
    ) -> None:
        rows = read_all(db, QUERIES["select"], (schedule_id,))
        if not rows:
            raise UnknownSchedule(schedule_id)
        db.execute(QUERIES[statement], values_of(self._row(rows[0])))

    def reseal(self) -> list[Damage]:
        """Seals everything with the first of the keys, whatever it was sealed with; gives what could not be.

        Nobody else may use the file.
        """
        if not self.exists():
            return []
        damages = self.written(self._reseal)
        self.tried(lambda db: db.execute(QUERIES["write_anew"]).fetchall())
        return damages

    def _reseal(self, db: apsw.Connection) -> list[Damage]:
        sealer = self._seals.sealer
        assert sealer is not None, "whoever reseals has a key"
        damages = []
        for schedule_id, request, state in read_all(db, QUERIES["select_sealed"]):
            at_request, at_state = place("schedule", schedule_id), place("schedule events", schedule_id)
            try:
                request = sealer.seal(self._seals.opened(request, at_request), at_request)
                if state is not None:
                    state = sealer.seal(self._seals.opened(state, at_state), at_state)
            except NotOpened as error:
                damages.append(Damage("schedules", "", f"what is stored of schedule {schedule_id!r} {error}"))
            else:
                db.execute(QUERIES["reseal"], (schedule_id, request, state))
        return damages

    # --- for whoever fires ---

    def due(self, now_ms: int, count_max: int) -> list[Row]:
        """Those that are to be looked at, the most urgent first; those that cannot be read are told once and left."""
        return self._readable(self.tried(lambda db: read_all(db, QUERIES["select_due"], (now_ms, count_max))))

    def by_events(self) -> list[Row]:
        """Those that start by events; those that cannot be read are left."""
        return self._readable(self.tried(lambda db: read_all(db, QUERIES["select_by_events"])))

    def _readable(self, rows: Iterable[Sequence[Any]]) -> list[Row]:
        found = []
        for each in rows:
            try:
                found.append(self._row(each))
            except Damaged as damage:
                if each[0] not in self._damaged:
                    self._damaged.add(each[0])
                    _log.error("%s: delete it and add it again", damage.message)
        return found

    def first_due_ms(self, after_ms: int) -> int | None:
        """When the next one is to be looked at; None if none is."""
        found = self.tried(lambda db: read_all(db, QUERIES["first_due"], (after_ms,)))[0][0]
        return None if found is None else int(found)

    def count(self) -> int:
        """How many there are."""
        return int(self.tried(lambda db: read_all(db, QUERIES["count"]))[0][0])

    def look_at_all(self, now_ms: int) -> None:
        """Has all be looked at: their moments were reckoned by another clock."""
        self.written(lambda db: db.execute(QUERIES["look_at_all"], (now_ms,)).fetchall())

    def note(self, notes: Sequence[Note]) -> None:
        """Notes what looks came to, but of schedules that have been changed since."""
        self.written(lambda db: self._note(db, notes))

    def _note(self, db: apsw.Connection, notes: Iterable[Note]) -> None:
        for note in notes:
            of = (note.row.schedule.schedule_id, note.row.revision)
            state = None
            if note.events_state is not None:
                state, sealer = orjson.dumps(note.events_state), self._seals.sealer
                if sealer is not None:
                    state = sealer.seal(state, place("schedule events", of[0]))
            db.execute(QUERIES["note"], (*of, _text(note.progress), note.due_ms, note.next_ms or None, state))

    def position(self) -> int:
        """The latest event that all schedules have settled."""
        found = self.tried(lambda db: read_all(db, QUERIES["position"]))
        return int(found[0][0]) if found else 0

    def reach(self, key: int) -> None:
        """They have settled all events up to one."""
        self.written(lambda db: db.execute(QUERIES["reach"], (key,)).fetchall())

    def _row(self, values: Sequence[Any]) -> Row:
        """Raises Damaged."""
        return row_of(values, self._seals.opened)


def row_of(values: Sequence[Any], opened: Callable[[bytes, bytes], bytes | None]) -> Row:
    """What is stored of a schedule; `opened` opens what is sealed, by its place, or gives None. Raises Damaged."""
    schedule_id, namespace, name, version, added_ms, principal, trigger, options = values[:8]
    is_paused, reason, revision, next_ms, progress, state, request = values[8:]
    try:
        request = (opened(request, place("schedule", schedule_id)) or b"") if request else request
        schedule = Schedule(
            *(schedule_id, namespace, name, version, Trigger(**orjson.loads(trigger))),
            *(options_of(orjson.loads(options)), request, added_ms, principal_of(orjson.loads(principal))),
        )
        progress = Progress.of_json(orjson.loads(progress))
        if state is not None:
            text = opened(state, place("schedule events", schedule_id))
            state = None if text is None else orjson.loads(text)
    except (NotOpened, TypeError, ValueError, LookupError) as error:
        raise Damaged(f"what is stored of schedule {schedule_id!r} is damaged: {error}") from None
    return Row(schedule, bool(is_paused), reason, revision, next_ms or 0, progress, state)


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()
