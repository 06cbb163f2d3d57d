"""The embedded engine on disks that fail: full, failing writes, read-only, damaged pages. What was accepted ends all
the same, what is refused is told why, and everything recovers by itself."""

import asyncio
import random
import re
import resource
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import apsw
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import clock
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused, open_data_directory
from fastrunner.errors import RunnerError, StorageFailed, StorageFull, Unavailable, UnknownExecution
from fastrunner.progress.wire import split
from tests.disk import SmallDisk, mounted_disk
from tests.integration.engines import (
    CALL,
    Performer,
    assert_whole,
    document,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)

MIB = 1 << 20
TWO_CALLS = document(
    "  - ask:\n      call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
    "  - keep:\n      set: {filler: '" + "x" * 600 + "'}\n"
    "  - again:\n      call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    monkeypatch.setattr("fastrunner.base.limits.DISK_FREE_SIZE_BYTES_MIN", 0)
    with mounted_disk(tmp_path / "disk", "size=64m,mode=0700") as disk:
        yield disk


class Receiver:
    """Takes every row and checks the order."""

    def __init__(self) -> None:
        self.sequences: dict[str, list[int]] = {}

    def __call__(self, row: UnacknowledgedEvents) -> None:
        numbers = [WorkflowProgressEvent.FromString(message).sequence_number for message in split(row.messages)]
        self.sequences.setdefault(row.execution_id, []).extend(numbers)

    def check(self, execution_ids: list[str]) -> None:
        for execution_id in execution_ids:
            numbers = self.sequences[execution_id]
            assert numbers == list(range(1, len(numbers) + 1)), execution_id


@asynccontextmanager
async def _watched(
    path: Path, performer: Performer, receiver: Receiver
) -> AsyncIterator[tuple[EmbeddedEngine, list[str]]]:
    async with engine_on(path, performer, listener=receiver) as engine:
        troubles: list[str] = []
        engine.watch_storage(troubles.append)
        yield engine, troubles


async def _submit(engine: EmbeddedEngine, numbers: range) -> tuple[list[str], list[RunnerError]]:
    """Ids that were accepted, and what the others were told."""
    ids = [f"execution-{number}" for number in numbers]
    answers = await asyncio.gather(
        *(engine.submit(submission(each, TWO_CALLS)) for each in ids), return_exceptions=True
    )
    refusals = [answer for answer in answers if isinstance(answer, RunnerError)]
    assert all(isinstance(answer, RunnerError) or answer == "running" for answer in answers)
    return [each for each, answer in zip(ids, answers, strict=True) if answer == "running"], refusals


async def _fail_and_recover(
    path: Path, fail: Callable[[], None], recover: Callable[[], None], kind: type[RunnerError], cause: str
) -> None:
    performer, receiver = Performer(), Receiver()
    async with _watched(path, performer, receiver) as (engine, troubles):
        accepted, _ = await _submit(engine, range(50))
        assert len(accepted) == 50
        await until(lambda: len(performer.performed) == 50, "the effects to start")
        fail()
        try:
            # Their outcomes are committed together with what is new, or not at all.
            performer.gate.set()
            refusals: list[RunnerError] = []
            for begin in range(100, 10_000, 100):
                taken, refusals = await _submit(engine, range(begin, begin + 100))
                accepted += taken
                if refusals:
                    break
            assert {type(refusal) for refusal in refusals} == {kind}
            assert cause in refusals[0].message
            assert refusals[0].retry_after_s > 0
            assert len(troubles) == 1
            assert cause in troubles[0]
            assert engine._metrics.storage_failing.value == 1
            with pytest.raises(kind):
                await engine.submit(submission("more", CALL))
            with pytest.raises(UnknownExecution):
                await engine.get("more")
            # What is stored can still be read.
            assert (await engine.get("execution-0")).execution_id == "execution-0"
            failures = engine._metrics.commit_failures.labels(kind.__name__)
            before = failures.value
            await until(lambda: failures.value > before, "another attempt")
        finally:
            recover()
        for execution_id in accepted:
            await until_status(engine, execution_id, "completed", timeout_s=30)
            await assert_whole(engine, execution_id, "workflow_completed")
        await until(lambda: troubles[-1] == "", "readiness to come back")
        assert len(troubles) == 2
        assert engine._metrics.storage_failing.value == 0
        await until(lambda: engine._shards.by_number[0].unfinished_count == 0, "the last commit to be told")
        receiver.check(accepted)
        assert set(receiver.sequences) == set(accepted)
        assert await engine.submit(submission("more", CALL)) == "running"
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        stored = db.execute("select count(*) from executions").get
        assert stored == len(accepted) + 1


@pytest.mark.parametrize("left_size_bytes", [0, 100_000])
async def test_full_disk_refuses_what_is_new_and_keeps_what_was_accepted(disk: SmallDisk, left_size_bytes: int) -> None:
    def fail() -> None:
        disk.leave(left_size_bytes)

    await _fail_and_recover(disk.path, fail, lambda: disk.leave(64 * MIB), StorageFull, "is full")


async def test_writes_that_fail_refuse_what_is_new_and_keep_what_was_accepted() -> None:
    path = folder()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fail() -> None:
        size_bytes = (path / "shard-0000.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + 20_000, hard))

    def recover() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    await _fail_and_recover(path, fail, recover, StorageFailed, "cannot be written: disk I/O error")


async def test_idle_runner_finds_out_by_itself_that_the_disk_is_back(disk: SmallDisk) -> None:
    async with _watched(disk.path, Performer(), Receiver()) as (engine, troubles):
        disk.leave(0)
        _, refusals = await _submit(engine, range(200))
        assert refusals
        await until(lambda: troubles, "the trouble to be told")
        failures = engine._metrics.commit_failures.labels("StorageFull")
        before = failures.value
        await until(lambda: failures.value > before, "a probe that fails: nothing else is left to write")
        assert troubles[-1]
        disk.leave(MIB)
        await until(lambda: troubles[-1] == "", "readiness to come back")


async def test_nearly_full_disk_is_told_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_on(folder()) as engine:
        troubles: list[str] = []
        engine.watch_storage(troubles.append)
        with monkeypatch.context() as patch:
            patch.setattr("fastrunner.base.limits.DISK_FREE_SIZE_BYTES_MIN", 2**62)
            patch.setattr("fastrunner.base.limits.DISK_FREE_SHARE_MIN", 2.0)
            await until(lambda: troubles, "the next look at the disk")
        assert "nearly full" in troubles[0]
        await until(lambda: troubles[-1] == "", "the next look")


async def test_small_disk_is_ready_until_a_tenth_of_it_is_left(tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "size=64m,mode=0700") as disk:
        async with engine_on(disk.path) as engine:
            troubles: list[str] = []
            engine.watch_storage(troubles.append)
            engine._watch_disk()
            assert await engine.submit(submission("one")) == "running"
            filler = disk.path / "filler"
            filler.write_bytes(bytes(shutil.disk_usage(disk.path).free - 6 * MIB))
            engine._watch_disk()
            assert troubles == ["the disk of the data directory is nearly full: less than 6.4 MiB are free"]
            with pytest.raises(StorageFull, match="nearly full"):
                await engine.submit(submission("two"))
            filler.unlink()
            engine._watch_disk()
            assert troubles[1:] == [""]
            assert await engine.submit(submission("two")) == "running"


@pytest.mark.parametrize("name", ["lock", "shard-0000.lock", "manifest.json", "ports.json"])
def test_link_in_the_place_of_a_file_is_refused_and_not_followed(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("somebody's")
    folder = tmp_path / "data"
    folder.mkdir(0o700)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(DataDirectoryRefused, match=f"{re.escape(name)}, and writing there would change .*: remove"):
        open_data_directory(folder, 1)
    assert elsewhere.read_text() == "somebody's"
    (folder / name).unlink()
    (tmp_path / "shared").mkdir()
    (folder / "spans").symlink_to(tmp_path / "shared")
    open_data_directory(folder, 1).close()


async def test_read_only_directory_is_refused_with_the_reason(disk: SmallDisk) -> None:
    async with engine_on(disk.path) as engine:
        await engine.submit(submission("one"))
    disk.mount("remount,ro")
    with pytest.raises(DataDirectoryRefused, match="Read-only file system"):
        open_data_directory(disk.path, 1)
    with pytest.raises(DataDirectoryRefused, match=r"shard-0000\.lock cannot be opened: .*: see to the disk"):
        async with engine_on(disk.path):
            pass
    disk.mount("remount,rw")
    async with engine_on(disk.path) as engine:
        assert (await engine.get("one")).status == "completed"


async def test_start_on_a_full_disk_waits_for_room(disk: SmallDisk) -> None:
    async with engine_on(disk.path) as engine:
        await engine.submit(submission("one", CALL))
    disk.leave(0)
    troubles: list[str] = []
    config = Config(data_dir=disk.path)
    engine = EmbeddedEngine(config, Metrics(), {"call_http": Performer()})
    engine.watch_storage(troubles.append)
    starting = asyncio.ensure_future(engine.start())
    try:
        await until(lambda: troubles, "the trouble to be told")
        assert troubles == ["the disk of the data directory is full: shard-0000.db cannot be opened"]
        with pytest.raises(Unavailable):
            await engine.submit(submission("two"))
        assert not starting.done()
        disk.leave(MIB)
        await asyncio.wait_for(starting, 10)
        assert troubles[1:] == [""]
        assert (await engine.get("one")).status == "running"
        assert await engine.submit(submission("two")) == "running"
    finally:
        starting.cancel()
        await engine.drain(0)


# --- damaged pages ---


def _page_count(path: Path) -> int:
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        return int(db.execute("pragma page_count").get)


@pytest.fixture(scope="module")
def stored() -> Path:
    """A shard with executions in all states, over many pages."""
    path = folder()

    async def fill() -> None:
        performer = Performer()
        async with engine_on(path, performer, listener=lambda row: None) as engine:
            await _submit(engine, range(20))
            performer.gate.set()
            for number in range(20):
                await until_status(engine, f"execution-{number}", "completed")
            performer.gate.clear()
            await _submit(engine, range(20, 60))
            await until(lambda: len(performer.performed) == 80, "the effects to start")

    asyncio.run(fill())
    return path


async def _fate(engine: EmbeddedEngine, execution_id: str) -> str:
    """`ended`, or why nobody can tell."""
    deadline_s = clock.monotonic_s() + 5
    while True:
        try:
            view = await engine.get(execution_id)
            if view.status in ("completed", "failed"):
                await assert_whole(engine, execution_id, f"workflow_{view.status}")
                return "ended"
        except RunnerError as error:
            return type(error).__name__
        if engine._shards.by_number[0].trouble:
            return "out of service"
        execution = engine._shards.by_number[0].live.get(execution_id)
        if execution is not None and execution.broken:
            return "set aside"
        assert clock.monotonic_s() < deadline_s, f"{execution_id} is {view.status} and nobody says why"
        await asyncio.sleep(0.002)


async def test_no_damaged_page_hides_an_execution_or_stalls_the_others(
    stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(1)
    fates: Counter[str] = Counter()
    for page in range(1, _page_count(stored)):
        path = folder()
        data = bytearray((stored / "shard-0000.db").read_bytes())
        data[page * 8192 : (page + 1) * 8192] = chance.randbytes(8192)
        (path / "shard-0000.db").write_bytes(data)
        caplog.clear()
        try:
            found = await _fates(path)
        except DataDirectoryRefused as refusal:
            found = Counter([str(refusal).rpartition(": ")[2]])
        if found["UnknownExecution"]:
            # Not even its id can be read: then its number, or the shard, is in the log.
            assert "cannot be read" in caplog.text or "damaged" in caplog.text, page
        fates += found
    assert fates["ended"] > 60 * 5
    refused = {"Damaged", "ShardDamaged", "UnknownExecution", "restore it from a backup"}
    known = refused | {"ended", "set aside", "out of service"}
    assert set(fates) <= known


async def _fates(path: Path) -> Counter[str]:
    """What becomes of the executions of a damaged file."""
    performer = Performer()
    performer.gate.set()
    async with engine_on(path, performer, listener=lambda row: None) as engine:
        shard = engine._shards.by_number[0]
        await until(lambda: not shard.loader.backlog or shard.trouble, "recovery, or the reason why not")
        if shard.trouble:
            assert "damaged" in shard.trouble
            return Counter(["out of service"])
        await engine.outbox.unacknowledged(None, 1000)
        return Counter([await _fate(engine, f"execution-{number}") for number in range(60)])


# --- the journal ---


async def test_torn_journal_keeps_every_commit_before_the_tear_whole() -> None:
    source = folder()
    async with engine_on(source, listener=lambda row: None) as engine:
        for begin in range(0, 30, 5):
            await _submit(engine, range(begin, begin + 5))
        data = {name: (source / name).read_bytes() for name in ("shard-0000.db", "shard-0000.db-wal")}
    journal = data["shard-0000.db-wal"]
    chance = random.Random(7)
    kept_counts = []
    for size_bytes in [*sorted(chance.randrange(32, len(journal)) for _ in range(12)), len(journal)]:
        path = folder()
        (path / "shard-0000.db").write_bytes(data["shard-0000.db"])
        # The sector that was being written holds anything.
        (path / "shard-0000.db-wal").write_bytes(journal[:size_bytes] + chance.randbytes(512))
        performer = Performer()
        performer.gate.set()
        async with engine_on(path, performer, listener=lambda row: None) as engine:
            shard = engine._shards.by_number[0]
            kept = shard.unfinished_count
            for number in range(kept):
                await until_status(engine, f"execution-{number}", "completed")
                await assert_whole(engine, f"execution-{number}", "workflow_completed")
            with pytest.raises(UnknownExecution):
                await engine.get(f"execution-{kept}")
        kept_counts.append(kept)
    assert kept_counts == sorted(kept_counts)
    assert (kept_counts[-1], kept_counts[0] < 30) == (30, True)
