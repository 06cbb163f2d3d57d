"""Support: workflows that hear each other, or what a client sends, and what must come of it.

Two executions of one pair, at workers that nobody chooses, answer each other in rounds; a third kind hears a client.
All find their events by the name of their pair, which is in their input.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import orjson

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.access.sealing import DataKeys
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect, read_all
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.file import FILE_NAME, proven
from tests.crash.histories import end_of

if TYPE_CHECKING:
    from tests.crash.workload import Promise

__all__ = ["HEARS", "HEARS_A_CLIENT", "PARTNERS", "WORD", "EventLog", "broken_talks", "heard_by", "talks"]

_ROUNDS = 5
_HEAR, _HEAR_MORE = "hear", "hearMore"

WORD = "crash.word"
"""The type of what clients send."""
HEARS_A_CLIENT = "hears"
"""The kind that hears a client."""
PARTNERS: Mapping[str, str] = {"ping": "pong"}
"""Which kind each talks to that does."""
HEARS: Mapping[str, int] = {"ping": _ROUNDS, "pong": _ROUNDS, HEARS_A_CLIENT: _ROUNDS}
"""How many events one has heard when it has completed, by kind: they are numbered from 0 on."""


def _of_its_pair(event_type: str) -> dict[str, Any]:
    correlate = {"pair": {"from": ".data.pair", "expect": "${ $workflow.input.pair }"}}
    return {"with": {"type": event_type}, "correlate": correlate}


def _hear(event_type: str) -> dict[str, Any]:
    return {_HEAR: {"listen": {"to": {"one": _of_its_pair(event_type)}}}}


def _say(event_type: str) -> dict[str, Any]:
    data = {"pair": "${ $workflow.input.pair }", "by": "${ $workflow.id }", "n": "${ $i }"}
    emit = {"emit": {"event": {"with": {"type": event_type, "data": data}}}}
    return {"say": {"try": [{"emit": emit}], "catch": {"errors": {}, "retry": {"delay": {"milliseconds": 50}}}}}


def _rounds(count: int, *tasks: dict[str, Any]) -> dict[str, Any]:
    return {"rounds": {"for": {"each": "i", "in": f"[range({count})]"}, "do": list(tasks)}}


def talks() -> dict[str, list[Any]]:
    """The tasks of each kind."""
    until = {"any": [_of_its_pair(WORD)], "until": "${ length >= 2 }"}
    return {
        "ping": [_rounds(_ROUNDS, _say("crash.ping"), _hear("crash.pong"))],
        "pong": [_rounds(_ROUNDS, _hear("crash.ping"), _say("crash.pong"))],
        HEARS_A_CLIENT: [_rounds(_ROUNDS - 2, _hear(WORD)), {_HEAR_MORE: {"listen": {"to": until}}}],
    }


class EventLog:
    """What `events.db` has had, read beside its owners."""

    def __init__(self, data_dir: Path, keys: DataKeys | None = None) -> None:
        self.events: dict[int, dict[str, Any]] = {}
        """By key."""
        self._file = data_dir / FILE_NAME
        self._seals = Seals(keys)
        self._seen = 0

    def read(self) -> None:
        """Looks at what has come since the last look."""
        # A file that has just been made has no tables yet.
        with suppress(apsw.BusyError, apsw.CantOpenError), closing(connect(self._file, READ_ONLY)) as db:
            if not read_all(db, "select 1 from sqlite_master where name = 'events'"):
                return
            query = "select event_key, received_ms, namespaces, digest, type_hash, checksum, event from events"
            for row in read_all(db, f"{query} where event_key > ? order by event_key", (self._seen,)):
                self._seen = row[0]
                self.events[row[0]] = orjson.loads(proven(row, self._seals) or b"null")


def _emitted(events: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, int]]:
    """How many CloudEvents there are of each that an execution has emitted: (execution, round)."""
    data = [event["data"] for event in events]
    return Counter((each["by"], each["n"]) for each in data if "by" in each)


def heard_by(events: Iterable[WorkflowProgressEvent]) -> list[dict[str, Any]]:
    """The data of what an execution has heard, in its order."""
    return [
        data
        for event in events
        if event.event_type == "task_completed" and event.task_name in (_HEAR, _HEAR_MORE)
        for data in orjson.loads(event.output_json)
    ]


def broken_talks(
    promises: Iterable["Promise"],
    published: Iterable[Mapping[str, Any]],
    events_of: Callable[[str], list[WorkflowProgressEvent]],
) -> dict[str, str]:
    """What is wrong, by execution: something heard twice, in another order or of others, or emitted twice. `published`
    are all CloudEvents, each once."""
    broken = {}
    emitted = _emitted(published)
    for promise in promises:
        if promise.kind not in HEARS or not promise.accepted:
            continue
        events = events_of(promise.execution_id)
        heard, expected = heard_by(events), list(range(HEARS[promise.kind]))
        numbers = [each["n"] for each in heard]
        said = [emitted[promise.execution_id, n] for n in expected]
        if any(each["pair"] != promise.pair for each in heard):
            broken[promise.execution_id] = f"has heard what was for others: {heard}"
        elif numbers != (expected if end_of(events) == "completed" else expected[: len(numbers)]):
            broken[promise.execution_id] = f"has heard {numbers}"
        elif max(said) > 1:
            broken[promise.execution_id] = f"has emitted its events so many times: {said}"
        elif promise.kind != HEARS_A_CLIENT and end_of(events) == "completed" and min(said) < 1:
            broken[promise.execution_id] = f"has completed, and its events are there so many times: {said}"
    return broken
