"""Tests of sending a data directory to a copy elsewhere and of restoring it, with another process that writes."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner.base import limits
from fastrunner.base.clock import steady_ms
from fastrunner.blobs import open_store
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store import kept_journals
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused, open_data_directory
from fastrunner.processes.replica import Shipping
from fastrunner.replica import shipping
from fastrunner.replica.journals import Journal
from fastrunner.replica.parts import FilePages, Part
from fastrunner.replica.restoring import Restored, restore_copy
from fastrunner.replica.shipping import Shipper, directory_of
from fastrunner.replica.streams import Stream
from tests.blob_stores import serving_s3
from tests.disk import mounted_disk
from tests.integration.runner_process import ROOT, until

EACH = {"rows": 3, "size_bytes": 2000}


class Writer:
    """A process that writes one file of a data directory."""

    def __init__(self, path: Path, pages_max: int = 50) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.replica_writer", str(path), str(pages_max)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hear("ready")

    def hear(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def commit(self, commits: int = 1) -> None:
        assert self.process.stdin is not None
        print(json.dumps({"commits": commits, "each": EACH}), file=self.process.stdin, flush=True)
        self.hear("done")

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory of one shard whose journals are kept."""
    folder = tmp_path / "data"
    open_data_directory(folder, 1).close()
    kept_journals.prepare(folder, is_wanted=True, owner_before=b"")
    return folder


@pytest.fixture
def writer(folder: Path) -> Iterator[Writer]:
    writer = Writer(folder / "shard-0000.db")
    yield writer
    writer.end()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLICA_INTERVAL_S", 0.02)
    monkeypatch.setattr(limits, "REPLICA_ALIVE_INTERVAL_S", 0.02)


class Copying:
    """What sends, and what it has told and counted."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.metrics = Metrics()
        self.troubles: list[str] = []
        self.shipper = Shipper(folder, url, open_store(url), self.metrics, self.troubles.append)

    def begun(self) -> dict[str, int]:
        """How often a generation has begun, by why."""
        reasons = ("first", "gap", "renewed")
        counts = {reason: int(self.metrics.replica_generations.labels(reason).value) for reason in reasons}
        return {reason: count for reason, count in counts.items() if count}

    async def until(self, condition: Callable[[], object]) -> None:
        await asyncio.to_thread(until, condition)

    def has_everything(self) -> bool:
        """Whether what is committed now is in the copy, by what the shipper has noted."""
        stream = Stream.noted(self.folder, self.url, directory_of((self.folder / "manifest.json").read_text()))
        journals = [Journal(path) for path in self.folder.glob("*.db")]
        return (
            stream is not None
            and not stream.has_uncut_parts
            and stream.positions == {journal.path.name: journal.committed() for journal in journals}
        )

    async def caught_up(self) -> None:
        """Once everything is sent that was committed before."""
        await self.until(self.has_everything)


@asynccontextmanager
async def copying(folder: Path, url: str, *, in_order: bool = True) -> AsyncIterator[Copying]:
    """Sends; afterwards, in order, what is left as well."""
    found = Copying(folder, url)
    running = asyncio.create_task(found.shipper.run())
    try:
        yield found
        if in_order:
            found.shipper.stop()
            await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def content(path: Path) -> list[Any]:
    with closing(apsw.Connection(str(path))) as db:
        assert db.execute("pragma integrity_check").get == "ok"
        return db.execute("select id, value from t order by id").fetchall()


async def restored(url: str, target: Path, generation: str = "") -> Restored:
    return await restore_copy(open_store(url), target, lambda _: lambda _: None, generation)


def lead_to(link: Path, target: Path) -> None:
    """Has a path be another one's, in one step."""
    draft = link.with_name("draft")
    draft.symlink_to(target)
    draft.replace(link)


def parts_of(copy: Path) -> list[Path]:
    return sorted(path for path in copy.rglob("0*") if path.is_file())


async def test_what_was_committed_is_restored(folder: Path, writer: Writer, tmp_path: Path) -> None:
    """Through folds, with a file that comes later; the process that sends is broken off twice in between."""
    copy, target = tmp_path / "copy", tmp_path / "restored"
    url = copy.as_uri()
    async with copying(folder, url, in_order=False) as first:
        writer.commit(40)
        await first.caught_up()
    writer.commit(60)
    other = Writer(folder / "registry.db")
    async with copying(folder, url, in_order=False) as second:
        other.commit(3)
        writer.commit(10)
        await second.caught_up()
    async with copying(folder, url) as third:
        writer.commit(70)
        other.commit(70)
    other.end()
    # The first one was broken off maybe before it had counted.
    assert [each.begun() for each in (second, third)] == [{}, {}]
    assert not [trouble for each in (first, second, third) for trouble in each.troubles]
    found = await restored(url, target)
    assert found.left_out == []
    assert set(found.changed_ms) == {"shard-0000.db", "registry.db"}
    for name in found.changed_ms:
        assert content(target / name) == content(folder / name)
    assert (target / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert {path.stat().st_mode & 0o077 for path in target.iterdir()} == {0}
    with pytest.raises(DataDirectoryRefused, match="is not empty"):
        await restored(url, target)


@pytest.mark.parametrize("harm", ["cut short", "missing", "a pipe", "of another time", "a bit flipped", "empty"])
async def test_parts_that_are_not_whole_are_never_taken(
    folder: Path, writer: Writer, tmp_path: Path, harm: str
) -> None:
    """A part that is half written, gone, or does not follow ends what is restored; what is before it is there."""
    copy, target = tmp_path / "copy", tmp_path / "restored"
    async with copying(folder, copy.as_uri()) as sending:
        await sending.caught_up()
        writer.commit()
        await sending.caught_up()
        before = content(folder / "shard-0000.db")
        good = len(parts_of(copy))
        for _ in range(3):
            writer.commit()
            await sending.caught_up()
    parts = parts_of(copy)
    assert len(parts) >= good + 3
    if harm == "cut short":
        parts[good].write_bytes(parts[good].read_bytes()[:-1])
    elif harm == "a bit flipped":
        data = bytearray(parts[good].read_bytes())
        data[len(data) // 2] ^= 1
        parts[good].write_bytes(data)
    elif harm == "empty":
        parts[good].write_bytes(b"")
    elif harm == "missing":
        parts[good].unlink()
    elif harm == "a pipe":
        parts[good].unlink()
        os.mkfifo(parts[good])
    else:
        parts[good].write_bytes(parts[good + 1].read_bytes())
    # What a process leaves that is killed while it writes.
    parts[good].with_name(".draft-of-another").write_bytes(b"half")
    # Nor does it hold anybody up when the copy was alive at no time that there is.
    [alive] = copy.rglob("alive")
    alive.write_text(json.dumps({"number": good - 1, "time_ms": 1e300}))
    found = await restored(copy.as_uri(), target)
    assert found.until_ms < time.time() * 1000 + 60_000
    assert f"part {good} and what follows" in found.left_out[0]
    assert content(target / "shard-0000.db") == before


async def test_a_store_that_is_away_holds_nobody_and_is_caught_up_with(
    folder: Path, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept meanwhile goes there afterwards; once too much had to be kept, the copy begins anew."""
    monkeypatch.setattr(limits, "REPLICA_RETRY_S_MAX", 0.05)
    # So it is a part that cannot be sent, and nothing is read before it is.
    monkeypatch.setattr(limits, "REPLICA_ALIVE_INTERVAL_S", 3600.0)
    copy = tmp_path / "copy"
    (tmp_path / "there").mkdir()
    (tmp_path / "away").write_bytes(b"no folder")
    lead_to(copy, tmp_path / "there")
    async with copying(folder, copy.as_uri()) as sending:
        await sending.caught_up()
        for is_long in (False, True):
            if is_long:
                monkeypatch.setattr(limits, "REPLICA_WHOLE_SIZE_BYTES_MAX", 1)
            lead_to(copy, tmp_path / "away")
            writer.commit(5)
            await sending.until(lambda: sending.troubles and sending.troubles[-1])
            writer.commit(100)
            await sending.until(lambda: sending.metrics.replica_lag_bytes.value)
            if is_long:
                for kept in kept_journals.kept_journals(folder / "shard-0000.db"):
                    kept.path.unlink(missing_ok=True)
            lead_to(copy, tmp_path / "there")
            await sending.until(lambda: not sending.troubles[-1])
            await sending.caught_up()
            expected = {"first": 1, "gap": 1} if is_long else {"first": 1}
            await sending.until(partial(lambda expected: sending.begun() == expected, expected))
    await restored(copy.as_uri(), tmp_path / "restored")
    assert content(tmp_path / "restored" / "shard-0000.db") == content(folder / "shard-0000.db")


async def test_two_runners_on_copies_of_one_directory_do_not_spoil_each_others_copy(
    folder: Path, writer: Writer, tmp_path: Path
) -> None:
    """A machine that was cloned, or put back to what it was: both go on with one generation, until the first part that
    the other one has written. Each has its own from there on, and everything of both is there."""
    copy, clone = tmp_path / "copy", tmp_path / "clone"
    async with copying(folder, copy.as_uri(), in_order=False) as sending:
        writer.commit(5)
        await sending.caught_up()
    shutil.copytree(folder, clone)
    other = Writer(clone / "shard-0000.db")
    try:
        async with copying(folder, copy.as_uri()) as here, copying(clone, copy.as_uri()) as there:
            for _ in range(3):
                writer.commit()
                other.commit(2)
                await here.caught_up()
                await there.caught_up()
            assert sorted([*here.begun().values(), *there.begun().values()]) == [1]
    finally:
        other.end()
    names = sorted({part.parent.name for part in parts_of(copy)})
    assert len(names) == 2
    contents = []
    for name in names:
        found = await restored(copy.as_uri(), tmp_path / name, name)
        assert found.left_out == []
        contents.append(content(tmp_path / name / "shard-0000.db"))
    assert sorted(contents) == sorted([content(folder / "shard-0000.db"), content(clone / "shard-0000.db")])
    # The one that was begun last is taken, whichever of them was written last.
    assert (await restored(copy.as_uri(), tmp_path / "default")).generation == names[-1]


async def test_a_folder_that_fills_up_is_told_and_caught_up_with(
    folder: Path, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half is left in it, and what is there is good to be restored at any moment."""
    monkeypatch.setattr(limits, "REPLICA_RETRY_S_MAX", 0.05)
    with mounted_disk(tmp_path / "copy", "size=64m") as disk:
        url = disk.path.as_uri()
        async with copying(folder, url) as sending:
            writer.commit(3)
            await sending.caught_up()
            before = content(folder / "shard-0000.db")
            disk.leave(4096)
            writer.commit(20)
            await sending.until(lambda: sending.troubles and "No space left on device" in sending.troubles[-1])
            await sending.until(lambda: sending.metrics.replica_lag_seconds.value > 0.1)
            await restored(url, tmp_path / "meanwhile")
            assert content(tmp_path / "meanwhile" / "shard-0000.db") == before
            disk.leave(32 << 20)
            await sending.until(lambda: not sending.troubles[-1])
            await sending.caught_up()
        assert sending.begun() == {"first": 1}
        assert not list(disk.path.rglob(".draft-*"))
        await restored(url, tmp_path / "restored")
    assert content(tmp_path / "restored" / "shard-0000.db") == content(folder / "shard-0000.db")


async def test_a_clock_that_was_ahead_hides_no_lag_and_no_generation(
    folder: Path, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that ran a day ahead is stopped, and its clock set right; then its store is away, then the copy gone."""
    copy = tmp_path / "copy"
    with monkeypatch.context() as ahead:
        ahead.setattr(shipping, "steady_ms", lambda: steady_ms() + 86_400_000)
        async with copying(folder, copy.as_uri()) as sending:
            await sending.caught_up()
    [first] = {part.parent.name for part in parts_of(copy)}
    tomorrow = time.time() + 86_400
    for part in parts_of(copy):
        os.utime(part, (tomorrow, tomorrow))
    copy.rename(tmp_path / "away")
    copy.write_bytes(b"no folder")
    async with copying(folder, copy.as_uri()) as sending:
        writer.commit()
        await sending.until(lambda: sending.metrics.replica_lag_seconds.value > 0.3)
        copy.unlink()
        (tmp_path / "away").rename(copy)
        for kept in kept_journals.kept_journals(folder / "shard-0000.db"):
            kept.path.unlink(missing_ok=True)
        (copy / "fastrunner" / directory_of((folder / "manifest.json").read_text()) / first / "begun").unlink()
        await sending.until(lambda: sending.begun() == {"gap": 1})
        writer.commit()
    found = await restored(copy.as_uri(), tmp_path / "restored")
    assert found.generation > first
    assert content(tmp_path / "restored" / "shard-0000.db") == content(folder / "shard-0000.db")


async def test_a_file_that_no_data_directory_has_is_not_written(tmp_path: Path) -> None:
    """Whoever may write the copy may not write anywhere on the machine that restores it."""
    part = Part("0000000000001-00000000", 0, "", 1, manifest="{}")
    part.files["../outside.db"] = FilePages(4096, {1: bytes(4096)}, 1, is_whole=True)
    path = tmp_path / "copy" / "fastrunner" / ("0" * 16) / part.generation / f"{0:010d}"
    path.parent.mkdir(parents=True)
    path.write_bytes(part.encode())
    with pytest.raises(DataDirectoryRefused, match="a file that no data directory has"):
        await restored((tmp_path / "copy").as_uri(), tmp_path / "restored")
    assert not (tmp_path / "outside.db.restoring").exists()


async def test_another_program_that_folds_the_journal_has_the_file_sent_whole(
    folder: Path, writer: Writer, tmp_path: Path
) -> None:
    """Which nothing should do; what is in the copy is true whenever it is done."""
    copy = tmp_path / "copy"
    async with copying(folder, copy.as_uri()) as sending:
        for mode in ("passive", "restart", "truncate"):
            writer.commit(3)
            await sending.caught_up()
            # In a process of its own, as another program is: else it would give up the locks of this one.
            code = f"import apsw, sys; apsw.Connection(sys.argv[1]).execute('pragma wal_checkpoint({mode})').fetchall()"
            await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code, str(writer.path)], check=True, timeout=60
            )
            writer.commit(3)
            await sending.caught_up()
    await restored(copy.as_uri(), tmp_path / "restored")
    assert content(tmp_path / "restored" / "shard-0000.db") == content(folder / "shard-0000.db")


RESTORE = """
import asyncio, os, pathlib, sys
from fastrunner.blobs import open_store
from fastrunner.replica.restoring import restore_copy

left = int(sys.argv[3])
rename = pathlib.Path.rename

def counted(path, target):
    global left
    if not left:
        os._exit(9)
    left -= 1
    return rename(path, target)

pathlib.Path.rename = counted
asyncio.run(restore_copy(open_store(sys.argv[1]), pathlib.Path(sys.argv[2]), lambda _: lambda _: None))
"""


async def test_a_restore_that_is_killed_anywhere_is_no_data_directory_and_is_made_again(
    folder: Path, writer: Writer, tmp_path: Path
) -> None:
    """Before it has named a file, between two, and before the manifest has its name."""
    copy = tmp_path / "copy"
    other = Writer(folder / "registry.db")
    other.commit()
    writer.commit()
    async with copying(folder, copy.as_uri()) as sending:
        await sending.caught_up()
    other.end()
    for renames_count in range(3):
        target = tmp_path / f"restored-{renames_count}"
        command = [sys.executable, "-c", RESTORE, copy.as_uri(), str(target), str(renames_count)]
        killed = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, timeout=60, check=False)
        assert killed.returncode == 9
        assert len(list(target.glob("*.db"))) == renames_count
        with pytest.raises(DataDirectoryRefused):
            open_data_directory(target, 1)
        await restored(copy.as_uri(), target)
        assert content(target / "shard-0000.db") == content(folder / "shard-0000.db")
        open_data_directory(target, 1).close()


async def test_a_copy_that_somebody_takes_away_begins_anew(folder: Path, writer: Writer, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    async with copying(folder, copy.as_uri()) as sending:
        await sending.caught_up()
        copy.rename(tmp_path / "taken")
        await sending.until(lambda: sending.begun() == {"first": 1, "gap": 1})
        writer.commit()
    await restored(copy.as_uri(), tmp_path / "restored")
    assert content(tmp_path / "restored" / "shard-0000.db") == content(folder / "shard-0000.db")


@pytest.mark.parametrize("bound", ["REPLICA_GENERATION_PARTS_MAX", "REPLICA_GENERATION_GROWTH_MAX"])
async def test_generations_are_renewed_and_old_ones_go(
    folder: Path, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """While others go on being sent; those of other directories stay, and the newest whole ones of this."""
    monkeypatch.setattr(limits, bound, 3)
    monkeypatch.setattr(limits, "REPLICA_GENERATION_SIZE_BYTES_MIN", 1 << 17)
    monkeypatch.setattr(limits, "REPLICA_GENERATION_IDLE_S_MIN", -1.0)
    copy = tmp_path / "copy"
    other = copy / "fastrunner" / "0123456789abcdef" / "0000000000001-00000000" / "0000000000"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another data directory")
    async with copying(folder, copy.as_uri()) as sending:
        async with asyncio.timeout(60):
            while sending.begun().get("renewed", 0) < 4:
                writer.commit(4)
                # A journal that is begun anew sooner than it can be read is another matter.
                await sending.caught_up()
    assert set(sending.begun()) == {"first", "renewed"}
    generations = {part.parent for part in parts_of(copy)} - {other.parent}
    assert 1 <= len(generations) <= limits.REPLICA_GENERATIONS_KEPT + 1
    assert other.exists()
    with pytest.raises(DataDirectoryRefused, match="copies of 2 data directories there: name a generation"):
        await restored(copy.as_uri(), tmp_path / "restored")
    await restored(copy.as_uri(), tmp_path / "restored", max(each.name for each in generations))
    assert content(tmp_path / "restored" / "shard-0000.db") == content(folder / "shard-0000.db")


async def test_parts_are_bounded_and_cut_only_where_all_files_stand_still(
    folder: Path, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that takes several parts is restored whole, or not at all; a broken one falls back on the one before."""
    monkeypatch.setattr(limits, "REPLICA_PART_SIZE_BYTES_MAX", 16 * 4096)
    monkeypatch.setattr(limits, "REPLICA_FETCHES_MAX", 2)
    copy = tmp_path / "copy"
    async with copying(folder, copy.as_uri(), in_order=False) as sending:
        await sending.caught_up()
        before = content(folder / "shard-0000.db")
    sent = len(parts_of(copy))
    writer.commit(40)
    async with copying(folder, copy.as_uri()):
        pass
    parts = parts_of(copy)
    assert len(parts) > sent + 2
    assert max(part.stat().st_size for part in parts) < 2 * 16 * 4096
    await restored(copy.as_uri(), tmp_path / "whole")
    assert content(tmp_path / "whole" / "shard-0000.db") == content(folder / "shard-0000.db")
    parts[-1].unlink()
    found = await restored(copy.as_uri(), tmp_path / "earlier")
    assert "another one was to follow" in found.left_out[0]
    assert content(tmp_path / "earlier" / "shard-0000.db") == before


async def test_a_bucket_does_as_well(folder: Path, writer: Writer, tmp_path: Path) -> None:
    with serving_s3() as url:
        async with copying(folder, url, in_order=False) as first:
            writer.commit(20)
            await first.caught_up()
        async with copying(folder, url) as second:
            writer.commit(30)
        assert second.begun() == {}
        found = await restored(url, tmp_path / "restored")
        assert found.left_out == []
        with pytest.raises(DataDirectoryRefused, match="no generation nobody there, but"):
            await restored(url, tmp_path / "other", "nobody")
    assert content(tmp_path / "restored" / "shard-0000.db") == content(folder / "shard-0000.db")
    assert not first.troubles
    assert not second.troubles


async def test_nobody_waits_for_a_store_that_is_away_at_the_end(
    folder: Path, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REPLICA_LAST_TURN_S_MAX", 0.05)
    (tmp_path / "copy").write_bytes(b"no folder")
    found = Copying(folder, (tmp_path / "copy").as_uri())
    shipping = Shipping(found.shipper)
    await found.until(lambda: found.troubles)
    async with asyncio.timeout(30):
        await shipping.drain(3600)
    assert found.begun() == {}
