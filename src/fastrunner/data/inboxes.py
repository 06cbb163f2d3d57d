"""Support: what `fastrunner data check` says of listeners, and of the events that they are still to take.

Rules: as in `inspection.py`, which reads the rows. Each belongs to an execution that has not ended.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastrunner.engine.embedded.store import proofs
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.engine.embedded.store.seals import NotOpened, Seals, filter_place, inbox_place

__all__ = ["listener_checks"]

Check = Callable[[tuple[Any, ...]], Iterator[Damage]]


def listener_checks(seals: Seals) -> Sequence[tuple[str, Check]]:
    """What looks at a row of each table, by table."""
    return (
        ("listeners", lambda row: _check_listener(seals, row)),
        ("event_inbox", _check_row),
        ("inbox_events", lambda row: _check_event(seals, row)),
        ("events_taken", _check_taken),
    )


def _check_listener(seals: Seals, row: tuple[Any, ...]) -> Iterator[Damage]:
    key, execution_id, subscription_id, stored, checksum = row
    if execution_id is None:
        yield Damage("listeners", "", f"a row belongs to execution number {key}, which is not unfinished")
        return
    if proofs.filter_checksum(key, subscription_id, stored) != checksum:
        yield Damage("listeners", execution_id, "what it waits for does not match its checksum")
        return
    try:
        seals.looked_at(stored, filter_place(execution_id, subscription_id))
    except NotOpened as error:
        yield Damage("listeners", execution_id, f"what it waits for {error}")


def _check_row(row: tuple[Any, ...]) -> Iterator[Damage]:
    key, execution_id, event_key, has_listener, has_event = row
    if not has_listener:
        yield Damage(
            "event_inbox", execution_id, f"event {event_key} is for execution number {key}, which waits for none"
        )
    if not has_event:
        yield Damage("event_inbox", execution_id, f"event {event_key}, which it is to have, is missing")


def _check_event(seals: Seals, row: tuple[Any, ...]) -> Iterator[Damage]:
    key, stored, checksum, is_awaited = row
    if proofs.inbox_checksum(key, stored) != checksum:
        yield Damage("inbox_events", "", f"event {key} does not match its checksum")
        return
    try:
        seals.looked_at(stored, inbox_place(key))
    except NotOpened as error:
        yield Damage("inbox_events", "", f"event {key} {error}")
    if not is_awaited:
        yield Damage("inbox_events", "", f"nobody is to have event {key}")


def _check_taken(row: tuple[Any, ...]) -> Iterator[Damage]:
    key, execution_id = row
    if execution_id is None:
        yield Damage("events_taken", "", f"a row belongs to execution number {key}, which is not unfinished")
