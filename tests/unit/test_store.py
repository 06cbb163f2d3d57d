"""The shard's file and what is beside it: statements, rows, locks, the data directory's manifest, shard numbers."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, cast
from zlib import crc32

import apsw
import pytest
from apsw.ext import query_info

from fastrunner._core import Plan
from fastrunner.base import limits
from fastrunner.engine import ExecutionQuery, UnacknowledgedEvents
from fastrunner.engine.embedded.admit.plans import CachedPlan
from fastrunner.engine.embedded.store.changes import Accepted, Batch, Change, Deletion, Settled, SpansChange
from fastrunner.engine.embedded.store.columns import INSPECTED, READ
from fastrunner.engine.embedded.store.connection import read_all
from fastrunner.engine.embedded.store.file import Store
from fastrunner.engine.embedded.store.listing import LISTINGS
from fastrunner.engine.embedded.store.manifest import (
    DataDirectoryRefused,
    open_data_directory,
    read_shard_count,
)
from fastrunner.engine.embedded.store.statements import MIGRATIONS, QUERIES, SCHEMA_VERSION, named, script
from fastrunner.progress.wire import split
from fastrunner.tracing.span import Span


class _Names:
    """What the store reads of a plan."""

    namespace, name, version = "tests", "a", "1.0.0"
    document: ClassVar = {"document": {"metadata": {"owner": "Ada"}}}

    def __init__(self, text: str) -> None:
        self.digest = sha256(text.encode()).digest()


def _plan(text: str = "document") -> CachedPlan:
    return CachedPlan(cast(Plan, _Names(text)), text, sha256())


def _snapshot(body: bytes = b"state") -> bytes:
    """With the checksum the store looks at; what the walk makes of the rest is not its business."""
    return b"\x01" + crc32(body).to_bytes(4, "big") + body


def _change(key: int, **changes: object) -> Change:
    change = Change(
        execution_key=key,
        execution_id=f"execution-{key}",
        accepted=Accepted(b"digest", _plan(), 1_000 + key, b"", b"{}", b"{}", False),
        status="running",
        finished_ms=0,
        wake_at_ms=0,
        parked=False,
        last_sequence=4,
        snapshot=_snapshot(),
        output_json=None,
        error_json=None,
        events=UnacknowledgedEvents(f"execution-{key}", 1, 4, b"\x0a\x00" * 4),
        effects=(),
        waiters=(),
    )
    return replace(change, **changes)  # type: ignore[arg-type]


def _finished(key: int, finished_ms: int, **changes: object) -> Change:
    return _change(key, status="completed", finished_ms=finished_ms, snapshot=None, output_json="{}", **changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "shard-0000.db", outbox=True)
    assert store.try_lock()
    store.open()
    return store


def _commit(store: Store, *changes: Change, **others: object) -> None:
    store.write(Batch(list(changes), **others))  # type: ignore[arg-type]
    store.commit()


def test_every_statement_compiles_against_the_schema() -> None:
    db = apsw.Connection(":memory:")
    for migration in MIGRATIONS:
        db.execute(script(migration)).fetchall()
    parameters = dict.fromkeys(
        (
            "accepted_from_ms",
            "accepted_until_ms",
            "before_ms",
            "before_id",
            "statuses",
            "name",
            "namespace",
            "namespaces",
            "count_max",
            "rows_max",
            "status",
            "plan_key",
            "keys",
            "labels",
            "label_name",
            "label_value",
            "metadata_size_bytes_max",
            "namespaces",
            "parent_id",
            "version",
        ),
        0,
    )
    whole = {name: text for name, text in QUERIES.items() if name not in LISTINGS and name != "list_found"}
    for name, text in (whole | LISTINGS).items():
        if name in ("begin", "begin_reading", "commit", "rollback", "checkpoint"):
            continue
        bound: object = parameters if ":" in text else (0,) * max(text.count("?"), 0)
        numbered = [number for number in range(1, 20) if f"?{number}" in text]
        if numbered:
            bound = (0,) * max(numbered)
        db.execute(f"explain {text}", bound)  # type: ignore[arg-type]
    db.close()


def test_types_are_told_for_every_column() -> None:
    db = apsw.Connection(":memory:")
    for migration in MIGRATIONS:
        db.execute(script(migration)).fetchall()
    for statements, columns in ((QUERIES, READ), (named("inspect"), INSPECTED)):
        for name, types in columns.items():
            described = query_info(db, statements[name]).description
            assert len(types) == len(described), name
            letters = {"INTEGER": "i", "TEXT": "s", "BLOB": "b"}
            for letter, (column, declared, *_) in zip(types, described, strict=True):
                assert declared is None or letters[declared] == letter.lower(), (name, column)


def test_partial_indexes_serve_the_queries_they_were_made_for(store: Store) -> None:
    _commit(store, _change(1))
    for name, parameters in (
        ("select_acceptance", ("x",)),
        ("select_events", (1, 1)),
        ("select_unacknowledged", ("", 0, 10)),
        ("select_unfinished", (1,)),
        ("select_running", (0, 10, 10)),
        ("select_deadlines", (0, 10, 5_000, 10)),
        ("select_deletable", (0, 10)),
        ("select_undeliverable", (0, 10)),
        ("count_unfinished", ()),
        ("count_running", ()),
        ("count_finished", ()),
    ):
        plan = read_all(store._reader, f"explain query plan {QUERIES[name]}", parameters)
        steps = [row[3] for row in plan]
        assert not [
            step for step in steps if step.startswith("SCAN") and "INDEX" not in step and "CONSTANT" not in step
        ], name
        assert not [step for step in steps if "TEMP B-TREE" in step], name
    store.close()


def test_rows_of_an_execution_over_its_life(store: Store) -> None:
    _commit(store, _change(1))
    assert store.acceptance("execution-1") == (1, b"digest", "running")
    assert store.progress("execution-1") == (1, 4, False)
    assert store.running(0, 10, 10) == [1]
    unfinished = store.unfinished(1)
    assert unfinished is not None
    assert (unfinished.execution_id, unfinished.snapshot, unfinished.input_json) == ("execution-1", _snapshot(), b"{}")
    assert store.document(unfinished.plan_key) == ("document", "")
    more = UnacknowledgedEvents("execution-1", 5, 6, b"\x0a\x00" * 2)
    _commit(store, _change(1, accepted=None, snapshot=_snapshot(b"later"), last_sequence=6, events=more))
    later = store.unfinished(1)
    assert later is not None
    assert later.snapshot == _snapshot(b"later")
    assert [row.first_sequence for row in store.events("execution-1", 1, 1, 100, 10**6)] == [1, 5]
    assert [row.first_sequence for row in store.events("execution-1", 1, 4, 100, 10**6)] == [1, 5]
    assert [row.first_sequence for row in store.events("execution-1", 1, 5, 100, 10**6)] == [5]
    assert store.events("execution-1", 1, 7, 100, 10**6) == []
    assert len(store.events("execution-1", 1, 1, 4, 10**6)) == 1
    _commit(store, _finished(1, 5_000, accepted=None, last_sequence=6, events=None))
    assert store.unfinished(1) is None
    assert store.running(0, 10, 10) == []
    view = store.view("execution-1")
    assert view is not None
    assert (view.status, view.output_json, view.finished_ms, view.last_sequence) == ("completed", "{}", 5_000, 6)
    store.close()


def test_deadlines_are_paged_in_order_and_leave_out_what_has_none(store: Store) -> None:
    wakes = {1: 500, 2: 300, 3: 0, 4: 300, 5: 900}
    _commit(store, *(_change(key, wake_at_ms=wake_at_ms, parked=True) for key, wake_at_ms in wakes.items()))
    assert store.running(0, 10, 10) == []
    seen, after = [], (0, 10**6)
    while page := store.deadlines(*after, 600, 1):
        seen += page
        after = page[-1][:2]
    assert seen == [(300, 2, "execution-2"), (300, 4, "execution-4"), (500, 1, "execution-1")]
    goes_on = _change(2, accepted=None, wake_at_ms=300, events=None)
    _commit(store, goes_on, _finished(4, 7, accepted=None, events=None))
    assert store.running(0, 10, 10) == [2]
    assert [key for _, key, _ in store.deadlines(0, 10**6, 600, 10)] == [2, 1]
    store.close()


def test_acknowledgements_move_forward_only_and_not_beyond_the_end(store: Store) -> None:
    _commit(store, _change(1), _change(2))
    for sequence, expected in ((2, 2), (1, 2), (4, 4), (99, 4)):
        _commit(store, acknowledgements={"execution-1": Settled(sequence), "nobody": Settled(3)})
        view = store.view("execution-1")
        assert view is not None
        assert view.acknowledged_sequence == expected
    assert [row.execution_id for row in store.unacknowledged(("", 0), 10)] == ["execution-2"]
    assert store.unacknowledged(("execution-2", 1), 10) == []
    store.close()


def test_what_was_given_up_is_no_acknowledgement(store: Store) -> None:
    """It is its own number, until a receiver has the events after all; what is settled is sent no more."""
    _commit(store, _change(1), _change(2))
    steps = [
        (Settled(acknowledged=1), (1, 0)),
        (Settled(given_up=3), (1, 2)),
        (Settled(given_up=2), (1, 2)),
        (Settled(acknowledged=2, given_up=3), (2, 1)),
        (Settled(given_up=99), (2, 2)),
        (Settled(acknowledged=4), (4, 0)),
        (Settled(given_up=4), (4, 0)),
    ]
    for settled, expected in steps:
        _commit(store, acknowledgements={"execution-1": settled})
        view = store.view("execution-1")
        [listed] = [each for each in store.listing(ExecutionQuery()).items if each.execution_id == "execution-1"]
        for each in (view, listed):
            assert each is not None
            assert (each.acknowledged_sequence, each.given_up_events) == expected, settled
        assert {row.execution_id for row in store.unacknowledged(("", 0), 10)} == (
            {"execution-2"} if sum(expected) == 4 else {"execution-1", "execution-2"}
        )


def test_deletions_take_everything_along_and_unused_documents_too(store: Store) -> None:
    other = Accepted(b"digest", _plan("other"), 1, b"", b"{}", b"{}", False)
    _commit(store, _finished(1, 10), _finished(2, 20), _finished(3, 30, accepted=other))
    assert store.deletable(100, 10) == []
    lost = store.undeliverable(25, 10)
    assert [(deletion.execution_key, deletion.events_lost_count) for deletion in lost] == [(1, 4), (2, 4)]
    _commit(store, acknowledgements={f"execution-{key}": Settled(4) for key in (1, 2, 3)})
    assert [deletion.execution_key for deletion in store.deletable(100, 10)] == [1, 2, 3]
    _commit(store, deletions=store.deletable(100, 2))
    assert store.view("execution-1") is None
    assert [row[0] for row in store._reader.execute("select document from plans")] == ["other"]
    assert store._reader.execute("select count(*) from events").fetchone() == (1,)
    _commit(store, _finished(4, 40))
    assert store._reader.execute("select uses from plans order by document").fetchall() == [(1,), (1,)]
    store.close()


def test_a_batch_that_cannot_be_written_leaves_nothing(store: Store) -> None:
    _commit(store, _change(1))
    with pytest.raises(apsw.ConstraintError):
        store.write(Batch([_change(2), _change(1)]))
    _commit(store, _change(3, accepted=Accepted(b"d", _plan("new"), 1, b"", b"{}", b"{}", False)))
    assert store.acceptance("execution-2") is None
    assert {view.execution_id for view in store.listing(ExecutionQuery()).items} == {"execution-1", "execution-3"}
    store.close()


def test_plan_of_a_transaction_that_was_given_up_is_stored_again(store: Store) -> None:
    _commit(store, _change(1))
    new = Accepted(b"d", _plan("new"), 1, b"", b"{}", b"{}", False)
    with pytest.raises(apsw.ConstraintError):
        store.write(Batch([_change(2, accepted=new), _change(1)]))
    _commit(store, _change(2, accepted=new))
    unfinished = store.unfinished(2)
    assert unfinished is not None
    assert store.document(unfinished.plan_key) == ("new", "")
    store.close()


def test_reopened_store_continues_numbering(store: Store) -> None:
    _commit(store, _change(7), _finished(9, 5))
    store.close()
    assert store.try_lock()
    counts = store.open()
    assert (counts.execution_key_last, counts.unfinished, counts.parked, counts.finished) == (9, 1, 0, 1)
    _commit(store, _change(10, accepted=Accepted(b"d", _plan("new"), 1, b"", b"{}", b"{}", False)))
    new = store.unfinished(10)
    assert new is not None
    assert store.document(new.plan_key) == ("new", "")
    store.close()


def test_file_of_a_newer_version_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "shard-0000.db"
    db = apsw.Connection(str(path))
    db.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(DataDirectoryRefused, match=r"schema version 14, this version of fastrunner reads up to 13"):
        Store(path, outbox=True).open()


def test_a_file_has_one_owner(store: Store) -> None:
    other = Store(store.path, outbox=True)
    assert not other.try_lock()
    store.close()
    assert other.try_lock()
    other.unlock()


def test_writing_connection_is_durable(store: Store) -> None:
    assert store._db.execute("pragma journal_mode").fetchone() == ("wal",)
    assert store._db.execute("pragma synchronous").fetchone() == (2,)
    assert store._db.execute("pragma page_size").fetchone() == (4096,)
    store.close()


# --- the data directory ---


def test_journal_is_folded_into_the_file_sooner_while_commits_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_PAGES_QUIET_MAX", 50)
    monkeypatch.setattr(limits, "JOURNAL_PAGES_MAX", 200)
    small_count = limits.COMMIT_SMALL_EXECUTIONS_MAX
    pages: dict[int, int] = {}
    for count in (small_count, small_count + 1):
        store = Store(tmp_path / f"shard-{count}.db", outbox=True)
        assert store.try_lock()
        store.open()
        for first in range(1, 100 * count, count):
            _commit(store, *(_change(key) for key in range(first, first + count)))
        pages[count] = store.path.with_name(f"{store.path.name}-wal").stat().st_size // 4096
        store.close()
    # The commit that reaches the bound goes beyond it.
    assert 50 <= pages[small_count] < 150 < 200 <= pages[small_count + 1] < 300


def test_more_workers_make_more_shards_and_fewer_keep_them(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    counts, keys = [], set()
    for worker_count in (3, 1, 8, 2):
        held = open_data_directory(folder, worker_count)
        counts.append(held.shard_count)
        keys.add(held.placement_key)
        held.close()
    assert counts == [3, 3, 8, 8]
    assert [len(key) for key in keys] == [16]
    assert read_shard_count(folder) == 8
    assert folder.stat().st_mode & 0o077 == 0


def test_directory_of_format_1_gets_a_key_and_keeps_its_shards(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format_version": 1, "shard_count": 2}')
    assert read_shard_count(tmp_path) == 2
    first = open_data_directory(tmp_path, 1)
    first.close()
    again = open_data_directory(tmp_path, 4)
    again.close()
    assert (first.shard_count, again.shard_count) == (2, 4)
    assert first.placement_key == again.placement_key


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711, 0o701, 0o1777])
def test_directory_that_others_may_read_or_enter_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(DataDirectoryRefused, match=rf"\(mode {mode:04o}\).*: run `chmod 700 {tmp_path}`"):
        open_data_directory(tmp_path, 1)
    assert not list(tmp_path.iterdir())
    tmp_path.chmod(0o700)
    open_data_directory(tmp_path, 1).close()


def test_files_that_others_could_read_are_closed_to_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_data_directory(tmp_path, 1).close()
        (tmp_path / "shard-0000.db").touch(0o644)
        (tmp_path / "elsewhere").symlink_to(tmp_path.parent)
        assert tmp_path.joinpath("shard-0000.db").stat().st_mode & 0o077
        open_data_directory(tmp_path, 1).close()
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_file()} == {
        "lock": 0o600,
        "manifest.json": 0o600,
        "shard-0000.db": 0o600,
    }


def test_second_runner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    held = open_data_directory(tmp_path, 1)
    code = (
        "import sys; from pathlib import Path; from fastrunner.engine.embedded.store.manifest import *\n"
        "try: open_data_directory(Path(sys.argv[1]), 1)\n"
        "except DataDirectoryRefused as refusal: print(refusal)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    refusal = subprocess.check_output(command, text=True)
    assert f"in use by another runner, process {os.getpid()} on {socket.gethostname()} since 20" in refusal
    held.close()
    assert subprocess.check_output(command, text=True) == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"format_version": 4, "shard_count": 1}', "has format 4, this version of fastrunner reads up to 3"),
        ('{"format_version": 2, "shard_count": 1}', "is damaged"),
        ('{"format_version": 3, "shard_count": 1, "placement_key": "00", "sealed_with": []}', "is damaged"),
        ('{"format_version": 2, "shard_count": 1, "placement_key": "00"}', "is damaged"),
        ('{"format_version": 2, "shard_count": 0, "placement_key": "00112233445566778899aabbccddeeff"}', "is damaged"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format_version": 1}', "is damaged"),
    ],
)
def test_manifest_that_cannot_be_used_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataDirectoryRefused, match=sentence):
        open_data_directory(tmp_path, 1)


def test_missing_manifest_beside_shards_is_not_taken_for_a_new_directory(tmp_path: Path) -> None:
    (tmp_path / "shard-0000.db").touch()
    with pytest.raises(DataDirectoryRefused, match=r"missing beside shard-0000\.db"):
        open_data_directory(tmp_path, 1)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("file", "file cannot be used: it is no directory"),
        ("file/below", "below cannot be used: Not a directory"),
        ("dangling", "dangling cannot be used: it is a link that leads nowhere"),
        ("loop", "loop"),
        ("long/" + "d" * 240 + "/" + "d" * 240, "and SQLite takes 480 at most: set FASTRUNNER_DATA_DIR to a shorter"),
    ],
)
def test_folder_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataDirectoryRefused, match=sentence):
        open_data_directory(tmp_path / name, 1)
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "long").exists()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("shard-0000.db", 0o400),
        ("shard-0000.ids", 0),
        ("registry.lock", 0o400),
        ("schedules.leader", 0),
        ("lock", 0),
        ("manifest.json", 0),
    ],
)
def test_file_that_may_not_be_written_is_refused_with_the_reason(tmp_path: Path, name: str, mode: int) -> None:
    """By its name, and not as a disk that fails."""
    data_dir = tmp_path / "data"
    open_data_directory(data_dir, 1).close()
    (data_dir / name).touch()
    (data_dir / name).chmod(mode)
    # What root may do in spite of modes is taken from it.
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if drop and shutil.which("setpriv") is None:
        pytest.skip("root may write whatever the mode is, and there is no setpriv")
    script = (
        "import sys; from pathlib import Path\n"
        "from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused, open_data_directory\n"
        "try: open_data_directory(Path(sys.argv[1]), 1)\n"
        "except DataDirectoryRefused as refused: print(refused)\n"
    )
    command = [*drop, sys.executable, "-c", script, str(data_dir)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"cannot be used: Permission denied: {data_dir / name} has mode {mode:04o}" in told


def test_nobody_is_told_to_close_what_is_no_runners(tmp_path: Path) -> None:
    """The remedy for a folder with other files in it is another folder, and by no means `chmod`."""
    tmp_path.chmod(0o755)
    (tmp_path / "etc").mkdir()
    with pytest.raises(DataDirectoryRefused, match="lies in it: set FASTRUNNER_DATA_DIR to a new directory below it"):
        open_data_directory(tmp_path, 1)


# --- numbers and rows ---


def test_split_takes_rows_apart_and_refuses_damage() -> None:
    long = b"x" * 300
    row = b"\x0a\x00" + b"\x0a\x03abc" + b"\x0a\xac\x02" + long
    assert list(split(row)) == [b"", b"abc", long]
    for damaged in (b"\x12\x00", b"\x0a\x05abc"):
        with pytest.raises(ValueError, match="damaged"):
            list(split(damaged))


def _span(number: int) -> Span:
    return Span("a" * 32, f"{number:016x}", "0" * 16, "", "execute", "internal", 1, 2)


def _kept(store: Store) -> list[int]:
    return [key for key, _ in store.spans(100)[0]]


def test_spans_go_with_their_execution_whoever_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process, of one before it, after a batch that was taken back, and when many had some."""
    monkeypatch.setattr(limits, "TRACE_KEYS_MAX", 2)
    path = tmp_path / "shard-0000.db"
    for keys in (range(1, 5), range(5, 9)):
        store = Store(path, outbox=False)
        assert store.try_lock()
        store.open()
        for key in keys:
            _commit(store, _finished(key, 1, spans=(_span(key), _span(100 + key))))
            settled = SpansChange(settled=[(key, _span(100 + key).span_id)])
            _commit(store, spans=settled)
        first = max(1, keys[0] - 2)
        gone = [Deletion(key, 1, f"execution-{key}", 0) for key in (first, keys[1])]
        store.unwritable(Batch(deletions=gone))
        assert {first, keys[1]} <= set(_kept(store))
        _commit(store, deletions=gone)
        assert not {first, keys[1]} & set(_kept(store))
        store.close()
    assert _kept_in(path) == [4, 5, 7, 8]


def test_what_has_no_spans_is_deleted_without_looking_for_any(store: Store) -> None:
    _commit(store, _finished(1, 1), _finished(2, 1, spans=(_span(2),)))
    asked: list[str] = []

    def note(_: object, text: str, __: object) -> bool:
        asked.append(text)
        return True

    store._db.set_exec_trace(note)
    _commit(store, deletions=[Deletion(1, 1, "execution-1", 0)])
    assert not any("from spans where execution_key = ?" in text for text in asked)
    _commit(store, deletions=[Deletion(2, 1, "execution-2", 0)])
    assert any("from spans where execution_key = ?" in text for text in asked)


def _kept_in(path: Path) -> list[int]:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [key for (key,) in db.execute("select execution_key from spans order by 1")]
    finally:
        db.close()
