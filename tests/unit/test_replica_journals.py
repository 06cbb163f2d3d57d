"""Unit tests of following a journal from outside, and of what is kept of it."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner.base import limits
from fastrunner.engine.embedded.store import kept_journals
from fastrunner.engine.embedded.store.shared_file import SharedFile
from fastrunner.replica.journals import START, Broken, Journal, Position
from tests.replica_writer import Writing

PAGES_MAX = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "lock").write_bytes(b"somebody")
    kept_journals.prepare(tmp_path, is_wanted=True, owner_before=b"")
    return tmp_path / "one.db"


@pytest.fixture
def writing(path: Path) -> Iterator[Writing]:
    found = Writing(path, PAGES_MAX)
    with closing(found.db):
        yield found


class Image:
    """A file made of what a journal tells."""

    def __init__(self, path: Path, target: Path) -> None:
        self.journal, self.at, self.target = Journal(path), START, target
        # What is in the file before its journal begins.
        target.write_bytes(path.read_bytes())

    def follow(self, size_bytes_max: int = 1 << 20) -> None:
        committed = self.journal.committed()
        with self.target.open("r+b") as file:
            while self.at != committed:
                piece = self.journal.read(self.at, committed, size_bytes_max)
                assert piece.size_bytes <= size_bytes_max
                assert piece.end != self.at
                for number, page in piece.pages.items():
                    file.seek((number - 1) * piece.page_size_bytes)
                    file.write(page)
                if piece.pages_count:
                    file.truncate(piece.pages_count * piece.page_size_bytes)
                self.at = piece.end
        self.journal.forget(self.at)

    def content(self) -> list[Any]:
        with closing(apsw.Connection(str(self.target))) as db:
            assert db.execute("pragma integrity_check").get == "ok"
            return db.execute("select id, value from t order by id").fetchall()


@pytest.mark.parametrize("every", [1, 40])
def test_rounds_are_followed_through_every_fold(writing: Writing, path: Path, tmp_path: Path, every: int) -> None:
    """However often somebody looks, in pieces of a few pages, and with a reader that holds a fold up."""
    image = Image(path, tmp_path / "image.db")
    seen = set()
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    for number in range(80):
        writing.commit(rows=2 + number % 3, size_bytes=2000)
        if number in (20, 50):
            reader.execute("begin")
            reader.execute("select count(*) from t").fetchall()
        if number in (35, 70):
            reader.execute("rollback")
        if number % every == every - 1:
            image.follow(4 * 4096)
            seen.add(image.at.salts)
    image.follow()
    assert image.content() == writing.content()
    assert len({*seen, image.at.salts}) > 1
    assert len(kept_journals.kept_journals(path)) <= 1
    reader.close()


def test_what_lies_behind_is_told_in_bytes(writing: Writing, path: Path, tmp_path: Path) -> None:
    image = Image(path, tmp_path / "image.db")
    image.follow()
    assert image.journal.behind_bytes(image.at, image.journal.committed()) == 0
    for _ in range(30):
        writing.commit(rows=2, size_bytes=2000)
    behind_bytes = image.journal.behind_bytes(image.at, image.journal.committed())
    assert behind_bytes > 2 * PAGES_MAX * 4096
    image.follow()
    assert image.journal.behind_bytes(image.at, image.journal.committed()) == 0


def test_what_is_kept_is_bounded_and_its_loss_is_found(
    writing: Writing, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits go on; whoever follows hears that frames are gone."""
    monkeypatch.setattr(limits, "REPLICA_KEPT_SIZE_BYTES_MAX", 8 * PAGES_MAX * 4096)
    image = Image(path, tmp_path / "image.db")
    image.follow()
    largest = 0
    for _ in range(120):
        writing.commit(rows=3, size_bytes=2000)
        largest = max(largest, sum(each.path.stat().st_size for each in kept_journals.kept_journals(path)))
    assert 2 * PAGES_MAX * 4096 < largest < 16 * PAGES_MAX * 4096
    with pytest.raises(Broken, match="has not been kept"):
        image.follow()


def test_nothing_is_kept_on_a_disk_that_is_nearly_full(
    writing: Writing, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept goes, and the journal is folded all the same."""
    while not kept_journals.kept_journals(path):
        writing.commit(rows=3, size_bytes=2000)
    monkeypatch.setattr(limits, "DISK_FREE_SIZE_BYTES_MIN", 1 << 62)
    monkeypatch.setattr(limits, "DISK_FREE_SHARE_MIN", 1.0)
    for _ in range(60):
        writing.commit(rows=3, size_bytes=2000)
    assert not kept_journals.kept_journals(path)
    assert Journal(path).committed().frames < 4 * PAGES_MAX


def test_a_journal_that_was_written_without_being_kept_is_found(writing: Writing, path: Path, tmp_path: Path) -> None:
    """By a program that folds as SQLite does: the round that follows says nothing of what was in between."""
    image = Image(path, tmp_path / "image.db")
    writing.commit(rows=3, size_bytes=2000)
    image.follow()
    with closing(apsw.Connection(str(path))) as other:
        for _ in range(2):
            other.execute("insert or replace into t values (1000, zeroblob(9000))")
            other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            other.execute("delete from t where id = 1000")
    with pytest.raises(Broken):
        image.follow()


def test_another_history_of_the_same_round_is_found(writing: Writing, path: Path, tmp_path: Path) -> None:
    """A place whose last frame is another one now, as after a file was put back."""
    image = Image(path, tmp_path / "image.db")
    writing.commit(rows=1, size_bytes=200)
    image.follow()
    image.at = Position(image.at.salts, image.at.frames, bytes(8))
    writing.commit(rows=1, size_bytes=200)
    with pytest.raises(Broken, match="another one"):
        image.follow()


def test_what_was_kept_is_of_no_use_once_another_has_owned_the_directory(writing: Writing, path: Path) -> None:
    for _ in range(30):
        writing.commit(rows=3, size_bytes=2000)
    folder = path.parent
    kept_journals.prepare(folder, is_wanted=True, owner_before=b"somebody")
    assert kept_journals.kept_journals(path)
    stranger = folder / "replica" / "one.db.00000000.0011223344556677.3"
    stranger.write_bytes(b"of another boot")
    kept_journals.prepare(folder, is_wanted=True, owner_before=b"somebody")
    assert kept_journals.kept_journals(path)
    assert not stranger.exists()
    kept_journals.prepare(folder, is_wanted=True, owner_before=b"somebody else")
    assert not kept_journals.kept_journals(path)
    kept_journals.prepare(folder, is_wanted=False, owner_before=b"somebody")
    assert not kept_journals.is_kept(path)


def insert(number: int, db: apsw.Connection) -> None:
    db.execute("insert into t values (?, zeroblob(80000))", (number,))


def test_a_file_of_all_workers_is_folded_by_whoever_commits(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Several connections take turns: the one that has written enough folds what all have, and keeps it."""
    schema = ("create table t (id integer primary key, value blob); pragma user_version = 1",)
    files = [SharedFile(path, schema) for _ in range(3)]
    for file in files:
        request.addfinalizer(file.close)
    image, longest = None, 0
    for number in range(200):
        file = files[number % 7 % 3]
        file.written(partial(insert, number))
        image = image or Image(path, tmp_path / "image.db")
        longest = max([longest, *(each.frames for each in kept_journals.kept_journals(path))])
        if number % 80 == 79:
            image.follow()
    assert limits.SHARED_JOURNAL_PAGES_MAX <= longest < 8 * limits.SHARED_JOURNAL_PAGES_MAX
    assert image is not None
    image.follow()
    assert [key for key, _ in image.content()] == list(range(200))
    assert path.with_name(f"{path.name}-wal").exists()
