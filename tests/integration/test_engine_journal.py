"""A journal that has lost commits in the middle or at its end: it is noticed when the shard is opened, and named; what
a crash or a power cut leaves behind is not taken for it."""

import asyncio
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import apsw
import pytest

from fastrunner.data.inspection import shard_files
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store import wal_check
from tests.integration.engines import CALL, engine_on, folder, submission

NAME = "shard-0000.db"
PAGE = 4096
FRAME = PAGE + 24
COMMITS = 12


def _copy(source: Path, *endings: str) -> Path:
    path = folder()
    for ending in endings:
        shutil.copyfile(source / f"{NAME}{ending}", path / f"{NAME}{ending}")
    return path


async def _killed(folded_after: int = 0) -> Path:
    """A shard as SIGKILL leaves it after some commits: everything written is in the page cache."""
    source = folder()
    async with engine_on(source, listener=lambda row: None) as engine:
        db = engine._shards.by_number[0].store._db
        for number in range(COMMITS):
            await engine.submit(submission(f"execution-{number}", CALL))
            if number + 1 == folded_after:
                with closing(apsw.Connection(str(source / NAME))) as reader:
                    # A reader keeps the journal from being begun anew.
                    reader.execute("begin").execute("select count(*) from executions").fetchone()
                    db.execute("pragma wal_checkpoint(passive)")
                    await engine.submit(submission("last-of-reader", CALL))
        return _copy(source, "", "-wal", "-shm")


def _frames(path: Path) -> Iterator[tuple[int, bool]]:
    """(offset, whether it ends a transaction) of the frames of the current round."""
    data = (path / f"{NAME}-wal").read_bytes()
    for offset in range(32, len(data) - FRAME + 1, FRAME):
        if data[offset + 8 : offset + 16] == data[16:24]:
            yield offset, data[offset + 4 : offset + 8] != bytes(4)


def _ends(path: Path) -> list[int]:
    """Where transactions end."""
    return [offset + FRAME for offset, is_last in _frames(path) if is_last]


def _overwrite(path: Path, offset: int, content: bytes, ending: str = "-wal") -> None:
    with (path / f"{NAME}{ending}").open("r+b") as file:
        file.seek(offset)
        file.write(content)


def _cut(path: Path, size_bytes: int) -> None:
    with (path / f"{NAME}-wal").open("r+b") as file:
        file.truncate(size_bytes)


async def _told(path: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, int]:
    """(damages of the journal that were told at start, executions that are left)."""
    caplog.clear()
    async with engine_on(path, listener=lambda row: None) as engine:
        told = caplog.text.count("table journal: its journal")
        assert ("is kept as shard-0000.db-wal.damaged" in caplog.text) == (told > 0)
        left = engine._shards.by_number[0].unfinished_count
    # It is told once; whoever checks the directory is told until the journal that was kept has been looked into.
    async with engine_on(path, listener=lambda row: None) as engine:
        assert caplog.text.count("table journal") == told
        assert engine._shards.by_number[0].unfinished_count == left
    findings = [damage.table for damage in shard_files(path, 1)[0].check(lambda count: None)]
    assert findings == (["journal"] if told else [])
    return told, left


async def test_damage_anywhere_but_in_the_last_transaction_is_told(caplog: pytest.LogCaptureFixture) -> None:
    source = await _killed()
    ends = _ends(source)
    chance = random.Random(3)
    for endings in (("", "-wal", "-shm"), ("", "-wal")):
        for offset in [chance.randrange(32, ends[-3]) for _ in range(6)]:
            path = _copy(source, *endings)
            (old,) = (path / f"{NAME}-wal").read_bytes()[offset : offset + 1]
            _overwrite(path, offset, bytes([old ^ 0x10]))
            told, left = await _told(path, caplog)
            assert (told, left < COMMITS) == (1, True), offset


async def test_what_the_index_knows_to_be_confirmed_is_missed_at_the_end_too(caplog: pytest.LogCaptureFixture) -> None:
    source = await _killed()
    ends = _ends(source)
    for size_bytes in (0, 32, ends[0], ends[-2], ends[-1] - 100):
        path = _copy(source, "", "-wal", "-shm")
        _cut(path, size_bytes)
        told, left = await _told(path, caplog)
        assert (told, left < COMMITS) == (1, True), size_bytes
    path = _copy(source, "", "-wal", "-shm")
    _overwrite(path, 8, b"\xff" * 8)
    assert await _told(path, caplog) == (1, 0)


async def test_what_a_crash_leaves_behind_is_no_damage(caplog: pytest.LogCaptureFixture) -> None:
    source = await _killed()
    ends = _ends(source)
    assert await _told(_copy(source, "", "-wal", "-shm"), caplog) == (0, COMMITS)
    assert await _told(_copy(source, "", "-wal"), caplog) == (0, COMMITS)
    # A power cut in the last commit: any of its sectors may have been written, and the index may say anything older.
    for offset in range(ends[-2], ends[-1], 3000):
        path = _copy(source, "", "-wal")
        _overwrite(path, offset, b"\xa5" * 512)
        assert await _told(path, caplog) == (0, COMMITS - 1)
    path = _copy(source, "", "-wal", "-shm")
    _overwrite(path, 20, b"\xa5" * 9, "-shm")
    _cut(path, ends[-1] - 100)
    assert await _told(path, caplog) == (0, COMMITS - 1)


async def test_frames_of_a_transaction_that_was_given_up_are_no_damage(caplog: pytest.LogCaptureFixture) -> None:
    """Such as a full disk leaves them: a commit's last frame is there, and later ones begin anew in its place."""
    source = await _killed()
    ends = _ends(source)
    path = _copy(source, "", "-wal")
    data = (path / f"{NAME}-wal").read_bytes()
    # What was given up had as many frames as the last two transactions, but its checksums go on from none.
    spoiled = bytearray(data[ends[-3] :])
    spoiled[16] ^= 1
    spoiled[ends[-2] - ends[-3] + 16] ^= 1
    _overwrite(path, ends[-3], bytes(spoiled))
    assert await _told(path, caplog) == (0, COMMITS - 2)


async def test_journal_that_the_file_is_ahead_of_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    """SQLite would show old pages from it in front of newer ones."""
    source = await _killed(folded_after=8)
    with ExitStack() as held:
        mark = wal_check.read_mark(source / NAME, held)
    assert mark is not None
    assert 0 < mark.folded < mark.frames
    path = _copy(source, "", "-wal", "-shm")
    _overwrite(path, 32 + 2 * FRAME + 500, b"\x5a")
    assert await _told(path, caplog) == (1, 8)
    # Where all of it is in the file, nothing is lost.
    with closing(apsw.Connection(str(source / NAME))) as db:
        db.execute("pragma wal_checkpoint(passive)")
        path = _copy(source, "", "-wal", "-shm")
    _overwrite(path, 32 + 2 * FRAME + 500, b"\x5a")
    assert await _told(path, caplog) == (0, COMMITS + 1)


async def test_checking_beside_a_running_owner_takes_no_new_commit_for_a_lost_one() -> None:
    path = folder()
    # The stack is closed after the engine's connections.
    with ExitStack() as held:
        async with engine_on(path) as engine:
            await _commit_and_check(engine, path, held)


async def _commit_and_check(engine: EmbeddedEngine, path: Path, held: ExitStack) -> None:
    for number in range(20):
        mark = wal_check.read_mark(path / NAME, held)
        await engine.submit(submission(f"execution-{number}", CALL))
        assert wal_check.find_loss(path / NAME, mark, held) == ""
        assert not list(shard_files(path, 1)[0].check(lambda count: None))


TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)
    except OSError:
        sys.exit(0)
sys.exit("whoever opens the shard next takes its journal's index for nobody's, and cuts it off under its owner")
"""


async def test_looking_into_the_index_leaves_sqlites_locks() -> None:
    path = folder()
    for life in range(2):
        async with engine_on(path) as engine:
            await engine.submit(submission(f"execution-{life}"))
            index = path / "shard-0000.db-shm"
            tried = await asyncio.create_subprocess_exec(sys.executable, "-c", TRY_LOCK, str(index))
            assert await tried.wait() == 0
