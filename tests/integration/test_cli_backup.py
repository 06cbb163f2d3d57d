"""`fastrunner data backup` and `restore`: beside a runner or who compacts, broken off, and what is refused."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.data.backup import backup
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused, open_data_directory
from tests.disk import mounted_disk
from tests.integration.commands import fastrunner
from tests.integration.engines import SET
from tests.integration.runner_process import ROOT, RunnerProcess, until
from tests.integration.test_placement_runner import Connection, connections, ready, start

WAITING = "document: {dsl: 1.0.3, namespace: n, name: w, version: 1.0.0}\ndo:\n- pause: {wait: {hours: 1}}\n"
LISTENING = (
    "document: {dsl: 1.0.3, namespace: n, name: l, version: 1.0.0}\ndo:\n"
    "- hear: {listen: {to: {one: {with: {type: com.example.said}}}}}\n"
)
_COMMAND = [sys.executable, "-m", "fastrunner", "data", "backup"]


async def statuses(runner: RunnerProcess, ids: list[str]) -> set[str]:
    async with connections(runner, 1) as opened:
        return {await opened[0].status(execution_id) for execution_id in ids}


async def load(connection: Connection, prefix: str, stop: asyncio.Event) -> list[str]:
    """Submits until told to stop; gives the ids that were acknowledged."""
    made: list[str] = []
    while not stop.is_set():
        await connection.execute(f"{prefix}-{len(made)}", WAITING if len(made) % 3 == 0 else SET)
        made.append(f"{prefix}-{len(made)}")
    return made


def broken_off(folder: Path, target: Path) -> None:
    """A backup that is killed as soon as it has begun; one that was quicker is put away."""
    with subprocess.Popen([*_COMMAND, str(target), "--data-dir", str(folder)], cwd=ROOT) as process:
        until(lambda: process.poll() is not None or target.with_name(f"{target.name}.partial").exists())
        process.kill()
    if target.exists():
        target.rename(target.with_name("earlier"))


async def known(connection: Connection, execution_id: str) -> bool:
    try:
        await connection.status(execution_id)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


async def test_a_backup_under_load_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    """Of both shards, with one broken off before it; and the runner is killed while nobody looks."""
    folder, target, restored = tmp_path / "data", tmp_path / "copies" / "one", tmp_path / "restored"
    with start(folder, 2) as runner:
        ready(runner)
        async with connections(runner, 2) as opened:
            for number in range(20):
                await opened[number % 2].execute(f"before-{number}", (SET, WAITING, LISTENING)[number % 3])
            stop = asyncio.Event()
            loads = [asyncio.create_task(load(each, str(at), stop)) for at, each in enumerate(opened)]
            await asyncio.to_thread(broken_off, folder, target)
            acknowledged = [f"before-{number}" for number in range(20)]
            made = await asyncio.to_thread(fastrunner, "data", "backup", str(target), "--data-dir", str(folder))
            assert (made.returncode, made.stderr) == (0, "")
            assert not target.with_name("one.partial").exists()
            stop.set()
            later = [execution_id for made in await asyncio.gather(*loads) for execution_id in made]
        runner.process.kill()
        runner.end()
    assert later
    assert fastrunner("data", "check", "--data-dir", str(target)).returncode == 0
    assert fastrunner("data", "restore", str(target), "--data-dir", str(restored)).returncode == 0
    with start(restored, 2) as runner:
        ready(runner)
        assert await statuses(runner, acknowledged[::3]) == {"completed"}
        assert await statuses(runner, acknowledged[1::3]) == {"running"}
        async with connections(runner, 2) as opened:
            # It goes on: what listened hears, what is asked again is the same, what was not copied is new.
            for number in range(20):
                await opened[number % 2].execute(f"before-{number}", (SET, WAITING, LISTENING)[number % 3])
            # Of what came beside the copy each is there or is not, and none is half there.
            for execution_id in later:
                await known(opened[0], execution_id)
            event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "com.example.said"}
            sent = fastrunner("send-event", "-", "--target", runner.target, text=json.dumps(event))
            assert sent.returncode == 0, sent.stderr
            for number in range(2, 20, 3):
                while await opened[0].status(f"before-{number}") != "completed":  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            reply = await opened[0].call("GetEvents", q.GetEventsRequest(execution_id="before-2"), q.GetEventsResponse)
            assert [event.sequence_number for event in reply.events] == list(range(1, len(reply.events) + 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory that nobody uses."""
    with start(tmp_path / "data", 2) as runner:
        ready(runner)
        assert runner.stop()[0] == 0
    return tmp_path / "data"


def test_what_nobody_uses_is_copied_and_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = fastrunner("data", "backup", str(tmp_path / "copy"), "--data-dir", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == len(list((tmp_path / "copy").iterdir()))
    assert sorted(path.name for path in folder.iterdir()) == before
    for path in (tmp_path / "copy").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0


def compacts(folder: Path) -> Callable[[int], Callable[[int], None]]:
    """Has a directory compacted as soon as a copy of it has begun, before its first page."""

    def begun(_page_count: int) -> Callable[[int], None]:
        done = fastrunner("data", "compact", "--data-dir", str(folder))
        assert (done.returncode, done.stderr) == (0, "")
        return lambda _pages: None

    return begun


@pytest.mark.parametrize("ends_well", [True, False])
async def test_who_compacts_while_it_is_copied_spoils_neither(ends_well: bool, tmp_path: Path) -> None:
    """With a journal the copy is of before; without one the file is written anew under it, and that is noticed."""
    folder, target = tmp_path / "data", tmp_path / "copy"
    with start(folder, 2) as runner:
        ready(runner)
        async with connections(runner, 2) as opened:
            for number in range(40):
                await opened[number % 2].execute(f"x-{number}", SET)
        if ends_well:
            assert runner.stop()[0] == 0
        else:
            runner.process.kill()
            runner.end()
    if ends_well:
        with pytest.raises(DataDirectoryRefused, match="was written while it was copied: try again"):
            backup(folder, target, compacts(folder))
        assert os.listdir(tmp_path) == ["data"]
        made = fastrunner("data", "backup", str(target), "--data-dir", str(folder))
        assert (made.returncode, made.stderr) == (0, "")
    else:
        backup(folder, target, compacts(folder))
    for each in (folder, target):
        checked = fastrunner("data", "check", "--data-dir", str(each))
        assert checked.returncode == 0, checked.stdout
    with start(target, 2) as runner:
        ready(runner)
        assert await statuses(runner, [f"x-{number}" for number in range(40)]) == {"completed"}


def test_refusals_are_sentences_and_nothing_is_touched(folder: Path, tmp_path: Path) -> None:
    copy, here = str(tmp_path / "copy"), ("--data-dir", str(folder))
    assert fastrunner("data", "backup", copy, *here).returncode == 0
    again = fastrunner("data", "backup", copy, *here)
    assert (again.returncode, again.stderr) == (
        2,
        f"fastrunner: {copy} is there already: name a folder that is not, or delete it\n",
    )
    (tmp_path / "link").symlink_to(folder)
    within = fastrunner("data", "backup", str(tmp_path / "link" / "copy"), *here)
    assert (within.returncode, "is in the data directory, and would be lost with it" in within.stderr) == (2, True)
    assert not (folder / "copy").exists()
    into = fastrunner("data", "restore", copy, "--data-dir", f"{copy}/data")
    assert (into.returncode, "is the backup itself, or in it" in into.stderr) == (2, True)
    over = fastrunner("data", "restore", copy, *here)
    assert over.returncode == 2
    assert "is a data directory already: move it away" in over.stderr
    nothing = fastrunner("data", "backup", str(tmp_path / "other"), "--data-dir", str(tmp_path))
    assert nothing.returncode == 2
    assert "is no data directory" in nothing.stderr
    assert not (tmp_path / "other").exists()
    (folder / "shard-0001.db").rename(folder / "elsewhere")
    missing = fastrunner("data", "backup", str(tmp_path / "other"), *here)
    assert missing.returncode == 2
    assert "shard-0001.db is missing" in missing.stderr
    with start(tmp_path / "used", 1) as runner:
        ready(runner)
        (tmp_path / "used" / "manifest.json").rename(tmp_path / "kept")
        used = fastrunner("data", "restore", copy, "--data-dir", str(tmp_path / "used"))
        assert used.returncode == 2
        assert "is in use by another runner" in used.stderr


@pytest.mark.parametrize("name", ["photos.db", "notes.txt", "shard-0000.db-wal"])
def test_nothing_is_restored_into_a_folder_with_anything_else_in_it(name: str, folder: Path, tmp_path: Path) -> None:
    """Whose it is, is not known: it stays."""
    copy, mine = tmp_path / "copy", tmp_path / "mine"
    assert fastrunner("data", "backup", str(copy), "--data-dir", str(folder)).returncode == 0
    mine.mkdir()
    (mine / name).write_text("mine")
    done = fastrunner("data", "restore", str(copy), "--data-dir", str(mine))
    assert (done.returncode, f"({name} is in it)" in done.stderr) == (2, True)
    assert (mine / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["registry.db", "shard-0000.db", "shard-0001.db.restoring", "manifest.json.restoring"])
def test_what_a_restore_has_left_anywhere_is_no_data_directory(name: str, tmp_path: Path) -> None:
    """It would be a new one otherwise, with files of another time."""
    (tmp_path / name).touch()
    with pytest.raises(DataDirectoryRefused, match=f"missing beside {name}"):
        open_data_directory(tmp_path, 1)


def test_a_restore_that_was_broken_off_starts_no_runner_and_can_be_made_again(folder: Path, tmp_path: Path) -> None:
    copy, restored = tmp_path / "copy", tmp_path / "restored"
    assert fastrunner("data", "backup", str(copy), "--data-dir", str(folder)).returncode == 0
    restored.mkdir(mode=0o700)
    # As one leaves it that was killed after its first file.
    (restored / "shard-0000.db").write_bytes((copy / "shard-0000.db").read_bytes()[:4096])
    with start(restored, 2) as runner:
        code, _, err = runner.end(60)
    assert code == 5
    assert "restore it from a backup" in err
    assert fastrunner("data", "restore", str(copy), "--data-dir", str(restored)).returncode == 0
    assert fastrunner("data", "check", "--data-dir", str(restored)).returncode == 0
    with start(restored, 2) as runner:
        ready(runner)
        assert runner.stop()[0] == 0
    assert os.listdir(copy)


def test_a_full_disk_is_told_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "size=64k") as disk:
        done = fastrunner("data", "backup", str(disk.path / "copy"), "--data-dir", str(folder))
        assert (done.returncode, done.stderr) == (2, "fastrunner: no space is left on the disk\n")
        assert list(disk.path.iterdir()) == []
        keys = disk.path / "keys"
        (disk.path / "rest").write_bytes(bytes(4096))
        disk.leave(0)
        full = fastrunner("data", "key", str(keys))
        assert (full.returncode, "No space left on device" in full.stderr) == (2, True)
        assert [path.name for path in disk.path.iterdir()] == ["rest"]
        # A draft that a killed one has left hinders nobody.
        disk.leave(1 << 20)
        (disk.path / "keys.new").touch()
        assert fastrunner("data", "key", str(keys)).returncode == 0
        assert keys.read_text()
