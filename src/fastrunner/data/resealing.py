"""Support: `fastrunner data rekey`: every value of a shard sealed with the first key, whatever sealed it before.

Theory of operation: each table is gone through in the order of its rows' numbers, some hundred rows to a transaction. A
row whose values are sealed with the first key already is passed over, so a run that was cut short goes on where it was.
At the end the file is written anew: what was there before does not stay behind in free pages.

Rules: the directory's lock is held. A row that is not what was written, or does not open, is left as it is and told.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final

import apsw

from fastrunner.access.sealing import Sealer, bytes_of_text, is_sealed_text
from fastrunner.base import limits
from fastrunner.data.inspection import ShardFile
from fastrunner.engine.embedded.store import event_rows, proofs
from fastrunner.engine.embedded.store.columns import RESEALED, are_sound
from fastrunner.engine.embedded.store.connection import READ_WRITE, read_all
from fastrunner.engine.embedded.store.large_values import hash_of
from fastrunner.engine.embedded.store.proofs import CLAIMED_FORMAT, FORMAT, Damage
from fastrunner.engine.embedded.store.seals import (
    NotOpened,
    Seals,
    events_place,
    filter_place,
    inbox_place,
    place,
)
from fastrunner.engine.embedded.store.statements import named

__all__ = ["reseal"]

_QUERIES: Final = named("reseal")


def reseal(shard: ShardFile, advance: Callable[[int], None]) -> Iterator[Damage]:
    """Seals all values of a shard with the first of its keys; gives what could not be. `advance` hears of each row.

    Raises DataDirectoryRefused, apsw.Error.
    """
    sealer = shard.seals.sealer
    assert sealer is not None, "whoever reseals has a key"
    work = _Work(shard.seals, sealer)
    with closing(shard.open(READ_WRITE)) as db:
        for table, statement, renew in (
            ("executions", "reseal_execution", work.execution),
            ("requests", "reseal_request", work.request),
            ("snapshots", "reseal_snapshot", work.snapshot),
            ("events", "reseal_events", work.events),
            ("large_values", "reseal_large_value", work.large_value),
            ("listeners", "reseal_listener", work.listener),
            ("inbox_events", "reseal_inbox_event", work.inbox_event),
        ):
            yield from _reseal_table(db, table, statement, renew, advance)
    # Also after a run that only had this left to do.
    shard.compact()


def _reseal_table(
    db: apsw.Connection,
    table: str,
    statement: str,
    renew: Callable[[Sequence[Any]], tuple[Any, ...] | None],
    advance: Callable[[int], None],
) -> Iterator[Damage]:
    after = -(2**63)
    while rows := read_all(db, _QUERIES[table], (after, limits.RESEAL_ROWS_PER_COMMIT)):
        after, renewed = rows[-1][0], []
        for row in rows:
            try:
                if not are_sound(RESEALED[table], row):
                    raise NotOpened("has values of wrong types, or belongs to no execution")
                values = renew(row)
            except NotOpened as error:
                whose = row[1] if isinstance(row[1], str) else ""
                yield Damage(table, whose, f"the row with number {row[0]} {error}")
                continue
            if values is not None:
                renewed.append((row[0], *values))
        _write(db, statement, renewed)
        advance(len(rows))


def _write(db: apsw.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    db.execute(_QUERIES["begin"])
    try:
        db.executemany(_QUERIES[statement], rows)
        db.execute(_QUERIES["commit"])
    except BaseException:
        if db.in_transaction:
            db.execute(_QUERIES["rollback"])
        raise


class _Work:
    """New values of rows, by table: None for a row that needs none. All raise NotOpened for one that is damaged."""

    def __init__(self, seals: Seals, sealer: Sealer) -> None:
        self._seals = seals
        self._sealer = sealer

    def _value(self, value: bytes, where: bytes) -> bytes:
        if self._sealer.is_current(value):
            return value
        return self._sealer.seal(self._seals.opened(value, where), where)

    def _text(self, text: str | None, where: bytes) -> str | None:
        if text is None or (is_sealed_text(text) and self._sealer.is_current(bytes_of_text(text))):
            return text
        return self._sealer.seal_text(self._seals.opened_text(text, where), where)

    def execution(self, row: Sequence[Any]) -> tuple[Any, ...] | None:
        """A row of `executions`."""
        key, execution_id, digest, status, finished_ms, last, error, output, row_format, checksum = row
        actual = proofs.execution_checksum(key, status, finished_ms, last, error, output)
        _require(proofs.is_proven(row_format, checksum, actual))
        new_digest = self._value(digest, place("request_digest", execution_id))
        new_error = self._text(error, place("error", execution_id))
        is_claimed = row_format == CLAIMED_FORMAT
        new_output = output if is_claimed else self._text(output, place("output", execution_id))
        if (new_digest, new_error, new_output) == (digest, error, output):
            return None
        checksum = proofs.execution_checksum(key, status, finished_ms, last, new_error, new_output)
        return new_digest, new_error, new_output, row_format or FORMAT, checksum

    def request(self, row: Sequence[Any]) -> tuple[Any, ...] | None:
        """A row of `requests`."""
        key, execution_id, debug, stored, env, client, row_format, checksum = row
        actual = proofs.request_checksum(key, bool(debug), stored, env, client)
        _require(proofs.is_proven(row_format, checksum, actual))
        new_input = stored if row_format == CLAIMED_FORMAT else self._value(stored, place("input", execution_id))
        new_env = self._value(env, place("env", execution_id))
        if (new_input, new_env) == (stored, env):
            return None
        checksum = proofs.request_checksum(key, bool(debug), new_input, new_env, client)
        return new_input, new_env, row_format or FORMAT, checksum

    def snapshot(self, row: Sequence[Any]) -> tuple[Any, ...] | None:
        """A row of `snapshots`."""
        _, execution_id, snapshot = row
        renewed = self._value(snapshot, place("snapshot", execution_id))
        return None if renewed == snapshot else (renewed,)

    def events(self, row: Sequence[Any]) -> tuple[Any, ...] | None:
        """A row of `events`."""
        _, execution_id, key, first, last, messages, row_format, _ = row
        _require(event_rows.is_proven(key, row[3:]))
        renewed = self._value(messages, events_place(execution_id, first, last))
        if renewed == messages:
            return None
        return renewed, row_format or FORMAT, proofs.events_checksum(key, first, last, renewed)

    def large_value(self, row: Sequence[Any]) -> tuple[Any, ...] | None:
        """A row of `large_values`."""
        _, digest, stored = row
        if self._sealer.is_current(stored):
            return None
        value = self._seals.opened(stored, digest)
        _require(hash_of(value) == digest)
        return (self._sealer.seal_by_hash(value, digest),)

    def listener(self, row: Sequence[Any]) -> tuple[Any, ...] | None:
        """A row of `listeners`."""
        _, execution_id, key, subscription_id, stored, checksum = row
        _require(proofs.filter_checksum(key, subscription_id, stored) == checksum)
        renewed = self._value(stored, filter_place(execution_id, subscription_id))
        return None if renewed == stored else (renewed, proofs.filter_checksum(key, subscription_id, renewed))

    def inbox_event(self, row: Sequence[Any]) -> tuple[Any, ...] | None:
        """A row of `inbox_events`."""
        key, stored, checksum = row
        _require(proofs.inbox_checksum(key, stored) == checksum)
        renewed = self._value(stored, inbox_place(key))
        return None if renewed == stored else (renewed, proofs.inbox_checksum(key, renewed))


def _require(is_proven: bool) -> None:
    if not is_proven:
        raise NotOpened("is not what was written")
