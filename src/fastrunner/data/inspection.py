"""Support: whole shard files read, checked and compacted for `fastrunner data`, without an engine.

Rules: a file is read in one read-only transaction, so a running owner does not notice and nothing half-written is seen;
only `compact` writes, and only while nobody else has the directory. Damage is a finding, never an exception. Without
the keys of a sealed file its checksums are all that can be checked.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import apsw
import orjson

from fastrunner.data.files import DataFile, check_integrity, guarded, naming
from fastrunner.data.inboxes import listener_checks
from fastrunner.engine import ExecutionQuery
from fastrunner.engine.embedded.store import event_rows, proofs, wal_check
from fastrunner.engine.embedded.store.columns import INSPECTED, are_sound
from fastrunner.engine.embedded.store.connection import (
    read_all,
    read_each,
)
from fastrunner.engine.embedded.store.event_rows import EventsDamaged
from fastrunner.engine.embedded.store.large_values import claimed_by, digest_of, hash_of, is_divided, join
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused
from fastrunner.engine.embedded.store.proofs import CLAIMED_FORMAT, Damage
from fastrunner.engine.embedded.store.seals import DataKeys, NotOpened, Seals, place
from fastrunner.engine.embedded.store.statements import SCHEMA_VERSION, named
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.progress.wire import split

__all__ = ["ShardFile", "doubled", "shard_files"]

_QUERIES = named("inspect")
_FOREVER_MS = 2**62
_KEYS = {"plans": "document number", "large_values": "hash", "inbox_events": "event number"}
"""What the first column of a query is, where it is not the number of an execution."""


def shard_files(folder: Path, shard_count: int, keys: DataKeys | None = None) -> "list[ShardFile]":
    """Every shard of a data directory, whether or not its file is there; `keys` open what is sealed."""
    seals = Seals(keys)
    return [ShardFile(folder / f"shard-{number:04d}.db", seals) for number in range(shard_count)]


def doubled(shards: Sequence["ShardFile"]) -> "Iterator[tuple[ShardFile, Damage]]":
    """Executions that live in several shards, whose answers depend on who is asked. Raises DataDirectoryRefused."""
    for count, later in enumerate(shards):
        for earlier in shards[:count]:
            try:
                for execution_id in later.ids_also_in(earlier):
                    yield later, Damage("executions", execution_id, f"it lives in {earlier.path.name}, too")
            except (apsw.Error, FileNotFoundError):
                # What cannot be read is told when each is checked.
                continue


class ShardFile(DataFile):
    """One shard's file, looked at from outside."""

    schema_version = SCHEMA_VERSION

    # --- check ---

    def count_rows(self) -> int:
        """How many rows `check` goes through; 0 if they cannot be counted. Raises DataDirectoryRefused."""
        try:
            with closing(self.snapshot(still=self.state() is not None)) as db:
                return int(db.execute(_QUERIES["count_rows"]).get)
        except (apsw.Error, FileNotFoundError):
            return 0

    def check(self, advance: Callable[[int], None]) -> Iterator[Damage]:
        """Everything wrong with the file; `advance` hears of each row. Raises DataDirectoryRefused."""
        if not self.path.exists():
            yield Damage("file", "", "is missing: restore it from a backup")
            return
        state = self.state()
        if state is not None:
            findings = list(self._check(advance, still=True))
            if self.state() == state:
                yield from findings
                return
        # There is an owner, perhaps only since a moment ago: what was found then may be its unfinished work.
        yield from self._check(advance, still=False)

    def _check(self, advance: Callable[[int], None], *, still: bool) -> Iterator[Damage]:
        with ExitStack() as index_files:
            mark = wal_check.read_mark(self.path, index_files)
            try:
                db = self.snapshot(still=still)
            except apsw.Error as error:
                yield Damage("file", "", f"cannot be read: {error}")
                return
            with closing(db):
                yield from self._check_journal(mark, index_files)
                yield from self._check_content(db, advance)

    def _check_content(self, db: apsw.Connection, advance: Callable[[int], None]) -> Iterator[Damage]:
        yield from guarded("file", check_integrity(db))
        for table, look in (
            ("plans", _check_plan),
            ("executions", lambda row: self._check_execution(db, row)),
            ("requests", lambda row: _check_request(db, self.seals, row)),
            ("snapshots", lambda row: _check_snapshot(db, self.seals, row)),
            ("large_values", lambda row: _check_large_value(self.seals, row)),
            *listener_checks(self.seals),
        ):
            yield from guarded(table, _each(db, table, look, advance))
        yield from guarded("claims", _each(db, "claims", _check_claim, _ignore))
        yield from guarded("orders", _each(db, "orders", _check_order, _ignore))
        yield from guarded("events", _check_events(db, self.seals, advance))

    def _check_journal(self, mark: wal_check.Mark | None, index_files: ExitStack) -> Iterator[Damage]:
        if lost := wal_check.find_loss(self.path, mark, index_files):
            yield Damage("journal", "", lost)
        kept = wal_check.kept_journal(self.path)
        if kept.exists():
            yield Damage("journal", "", f"commits were lost before; delete {kept.name} when that has been looked into")

    def _check_execution(self, db: apsw.Connection, row: tuple[Any, ...]) -> Iterator[Damage]:
        key, execution_id, status, finished_ms, last, acknowledged, given_up = row[:7]
        error, output, row_format, checksum, has_plan, has_request, has_snapshot, events_last, digest = row[7:]

        def damage(detail: str) -> Damage:
            return Damage("executions", execution_id, detail)

        actual = proofs.execution_checksum(key, status, finished_ms, last, error, output)
        if not proofs.is_proven(row_format, checksum, actual):
            yield damage("its state does not match its checksum")
        elif row_format == CLAIMED_FORMAT and output is not None:
            yield from _unclaimed(db, "executions", key, execution_id, [digest_of(output)])
        try:
            self.seals.looked_at(digest, place("request_digest", execution_id))
            self.seals.looked_at_text(error or "", place("error", execution_id))
            self.seals.looked_at_text(output or "", place("output", execution_id))
        except NotOpened as trouble:
            yield damage(f"a value of its row {trouble}")
        if not has_plan:
            yield damage("its document is missing")
        if (finished_ms > 0) != (status in FINAL_STATUSES):
            yield damage(f"its status is {status}, which contradicts its end time {finished_ms}")
        if not finished_ms and not (has_request and has_snapshot):
            yield damage("it has not ended, but its request or its snapshot is missing")
        if acknowledged > last:
            yield damage(f"{acknowledged} of its events are acknowledged, but it has {last}")
        if not 0 <= given_up <= acknowledged:
            yield damage(f"{given_up} of its events were given up, of {acknowledged} that are not sent any more")
        if (events_last or 0) != last:
            yield damage(f"it has {last} events, but those stored end at {events_last or 0}")

    def ids_also_in(self, other: "ShardFile") -> Iterator[str]:
        """Ids that another shard has, too. Raises as `export`, and FileNotFoundError."""
        with (
            closing(other.snapshot(still=other.state() is not None)) as there,
            closing(self.snapshot(still=self.state() is not None)) as here,
        ):
            for row in read_each(here, _QUERIES["ids"]):
                # One that was deleted there and accepted anew here between the two is there no more.
                if there.execute(_QUERIES["has_id"], row).get and other.has(str(row[0])):
                    yield str(row[0])

    def has(self, execution_id: str) -> bool:
        """Whether an execution lives here now. Raises as `export`, and FileNotFoundError."""
        with closing(self.snapshot(still=self.state() is not None)) as db:
            return bool(db.execute(_QUERIES["has_id"], (execution_id,)).get)

    # --- export ---

    def export(self, query: ExecutionQuery, with_events: bool) -> Iterator[dict[str, Any]]:
        """Executions in the order of acceptance, as plain data; events as encoded messages under `events`.

        `damaged` is set on one that is not what was written. Raises DataDirectoryRefused, apsw.Error.
        """
        parameters = {
            "accepted_from_ms": query.accepted_from_ms,
            "accepted_until_ms": query.accepted_until_ms or _FOREVER_MS,
            "statuses": orjson.dumps(sorted(query.statuses)).decode(),
            "name": query.name,
            "namespace": query.namespace,
        }
        state = self.state()
        with naming(self.path), closing(self.snapshot(still=state is not None)) as db:
            for row in read_each(db, _QUERIES["export"], parameters):
                fields = _exported(db, self.seals, row)
                if with_events:
                    fields["events"] = _exported_events(db, self.seals, row[:2], fields)
                yield fields
        if state is not None and self.state() != state:
            raise DataDirectoryRefused(
                f"{self.path} was written while it was read, so its lines may be wrong: a runner has been started; "
                "export it once more"
            )


def _each(
    db: apsw.Connection,
    table: str,
    look: Callable[[tuple[Any, ...]], Iterator[Damage]],
    advance: Callable[[int], None],
) -> Iterator[Damage]:
    for row in read_each(db, _QUERIES[table]):
        advance(1)
        yield from look(row) if are_sound(INSPECTED[table], row) else [_wrong_types(table, row)]


def _wrong_types(table: str, row: tuple[Any, ...]) -> Damage:
    return Damage(
        table, "", f"the row with {_KEYS.get(table, 'execution number')} {row[0]!r} has values of wrong types"
    )


def _check_plan(row: tuple[Any, ...]) -> Iterator[Damage]:
    key, digest, document, pinned, uses, *_, used = row
    if not proofs.is_document(digest, document, pinned):
        yield Damage("plans", "", f"document {key} does not match its hash")
    if uses != used:
        yield Damage("plans", "", f"document {key} counts {uses} executions, but {used} refer to it")


def _check_request(db: apsw.Connection, seals: Seals, row: tuple[Any, ...]) -> Iterator[Damage]:
    key, execution_id, debug, input_json, env_json, client, row_format, checksum = row
    actual = proofs.request_checksum(key, bool(debug), input_json, env_json, client)
    if execution_id is None:
        yield Damage("requests", "", f"a row belongs to execution number {key}, which does not exist")
    elif not proofs.is_proven(row_format, checksum, actual):
        yield Damage("requests", execution_id, "its request does not match its checksum")
    elif detail := _trouble_of_request(seals, execution_id, input_json, env_json):
        yield Damage("requests", execution_id, detail)
    elif row_format == CLAIMED_FORMAT:
        yield from _unclaimed(db, "requests", key, execution_id, [input_json])


def _trouble_of_request(seals: Seals, execution_id: str, input_json: bytes, env_json: bytes) -> str:
    try:
        seals.looked_at(input_json, place("input", execution_id))
        seals.looked_at(env_json, place("env", execution_id))
    except NotOpened as error:
        return f"its request {error}"
    return ""


def _check_snapshot(db: apsw.Connection, seals: Seals, row: tuple[Any, ...]) -> Iterator[Damage]:
    key, execution_id, stored = row
    if execution_id is None:
        yield Damage("snapshots", "", f"a row belongs to execution number {key}, which does not exist")
        return
    try:
        snapshot = seals.looked_at(stored, place("snapshot", execution_id))
    except NotOpened as error:
        yield Damage("snapshots", execution_id, f"its snapshot {error}")
        return
    if snapshot is None:
        return
    if detail := _snapshot_damage(db, seals, snapshot):
        yield Damage("snapshots", execution_id, detail)
    else:
        yield from _unclaimed(db, "snapshots", key, execution_id, claimed_by(snapshot))


def _snapshot_damage(db: apsw.Connection, seals: Seals, snapshot: bytes) -> str:
    if is_divided(snapshot):
        try:
            snapshot = join(snapshot, lambda digest: _large_value(db, seals, digest)).data
        except ValueError as error:
            return str(error)
    return proofs.snapshot_damage(snapshot)


def _large_value(db: apsw.Connection, seals: Seals, digest: bytes) -> bytes | None:
    """By its hash; None if it is missing or damaged."""
    rows = read_all(db, _QUERIES["large_value"], (digest,))
    if not rows or not are_sound(INSPECTED["large_value"], rows[0]):
        return None
    try:
        return seals.opened(rows[0][0], digest)
    except NotOpened:
        return None


def _unclaimed(
    db: apsw.Connection, table: str, key: int, execution_id: str, digests: Iterable[bytes]
) -> Iterator[Damage]:
    """What a row refers to and its execution does not claim; it would go with the last who does."""
    for digest in digests:
        if db.execute(_QUERIES["unclaimed"], (key, digest)).get:
            yield Damage(table, execution_id, f"it needs the large value {digest.hex()}, but does not claim it")


def _check_large_value(seals: Seals, row: tuple[Any, ...]) -> Iterator[Damage]:
    digest, stored, is_claimed = row
    try:
        value = seals.looked_at(stored, digest)
        if value is not None and hash_of(value) != digest:
            yield Damage("large_values", "", f"{digest.hex()} does not match its hash")
    except NotOpened as error:
        yield Damage("large_values", "", f"{digest.hex()} {error}")
    if not is_claimed:
        yield Damage("large_values", "", f"nobody needs {digest.hex()}")


def _check_claim(row: tuple[Any, ...]) -> Iterator[Damage]:
    key, execution_id, is_there = row
    if not execution_id:
        yield Damage("claims", "", f"a row belongs to execution number {key}, which does not exist")
    if not is_there:
        yield Damage("claims", execution_id, "a large value it needs is missing")


def _check_order(row: tuple[Any, ...]) -> Iterator[Damage]:
    key, execution_id, number, _ = row
    if execution_id is None:
        yield Damage("orders", "", f"order {number} is for execution number {key}, which does not exist")


def _ignore(count: int) -> None:
    """Claims and orders are not rows to wait for."""


def _check_events(db: apsw.Connection, seals: Seals, advance: Callable[[int], None]) -> Iterator[Damage]:
    key_before, expected = -1, 1
    for row in read_each(db, _QUERIES["events"]):
        advance(1)
        if not are_sound(INSPECTED["events"], row):
            yield _wrong_types("events", row)
            continue
        key, execution_id, first, last = row[:4]
        if key != key_before:
            key_before, expected = key, 1
        if execution_id is None:
            yield Damage("events", "", f"a row belongs to execution number {key}, which does not exist")
            continue
        try:
            event_rows.looked_at(seals, execution_id, key, row[2:])
        except EventsDamaged as error:
            yield Damage("events", execution_id, f"its events {first} to {last} {error}")
        if first != expected or last < first:
            yield Damage("events", execution_id, f"its events go on at {first} where {expected} should come")
        expected = last + 1


def _exported_events(db: apsw.Connection, seals: Seals, whose: Sequence[Any], fields: dict[str, Any]) -> list[bytes]:
    """The messages of one execution; damaged rows are left out, and `damaged` is set in the fields."""
    found: list[bytes] = []
    key, execution_id = whose
    for row in read_each(db, _QUERIES["export_events"], (key,)):
        if are_sound(INSPECTED["export_events"], row):
            with suppress(EventsDamaged):
                found += split(event_rows.messages_of(seals, execution_id, key, row))
                continue
        fields["damaged"] = True
    return found


def _exported(db: apsw.Connection, seals: Seals, row: tuple[Any, ...]) -> dict[str, Any]:
    if not are_sound(INSPECTED["export"], row):
        return {"execution_id": row[1] if isinstance(row[1], str) else "", "damaged": True}
    key, execution_id, status, namespace, name, version, accepted_ms, finished_ms, last, acknowledged = row[:10]
    given_up, error_json, output_json, row_format, checksum = row[10:]
    actual = proofs.execution_checksum(key, status, finished_ms, last, error_json, output_json)
    fields: dict[str, Any] = {
        "execution_id": execution_id,
        "status": status,
        "workflow": {"namespace": namespace, "name": name, "version": version},
        "accepted_ms": accepted_ms,
        "finished_ms": finished_ms,
        "last_sequence_number": last,
        "acknowledged_sequence_number": acknowledged,
        "given_up_events": given_up,
    }
    if not proofs.is_proven(row_format, checksum, actual):
        return {**fields, "damaged": True}
    try:
        if error_json is not None:
            error_json = seals.opened_text(error_json, place("error", execution_id))
        if output_json is not None:
            output_json = seals.opened_text(output_json, place("output", execution_id))
    except NotOpened:
        return {**fields, "damaged": True}
    if row_format == CLAIMED_FORMAT and output_json is not None:
        output = _large_value(db, seals, digest_of(output_json))
        if output is None or hash_of(output) != digest_of(output_json):
            return {**fields, "damaged": True}
        output_json = output.decode()
    for label, text in (("error", error_json), ("output", output_json)):
        if text is not None:
            fields[label] = orjson.Fragment(text)
    return fields
