"""Engines of several workers on one data directory: an id lives in one shard, whatever happens to whom."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner.base import clock, limits
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import ExecutionQuery
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.identities import Identities
from fastrunner.errors import Elsewhere, IdTaken, RunnerError, StorageFailed, UnknownExecution
from fastrunner.processes.shared import Shared
from tests.integration.engines import WAIT, Performer, document, folder, submission, until, until_status

KEY = bytes(range(16))


@asynccontextmanager
async def engines_on(
    path: Path, workers: int, shards: int, shared: Shared | None = None, **settings: Any
) -> AsyncIterator[Sequence[EmbeddedEngine]]:
    """The engines of all workers of one runner, in one process."""
    shared = shared or Shared.create(workers, shards, KEY)
    config = Config(data_dir=path, **settings)
    engines = [
        EmbeddedEngine(config, Metrics(), {"call_http": Performer()}, places=shared.places(worker, workers))
        for worker in range(workers)
    ]
    for engine in engines:
        await engine.open()
    for engine in engines:
        engine.go_on()
    try:
        yield engines
    finally:
        for engine in engines:
            await engine.drain(5)


def rows(path: Path, shard: int, query: str) -> list[Any]:
    with closing(apsw.Connection(str(path / f"shard-{shard:04d}.db"))) as db:
        return list(db.execute(query))


async def holders(engines: Sequence[EmbeddedEngine], execution_id: str) -> list[int]:
    found = []
    for worker, engine in enumerate(engines):
        with suppress(UnknownExecution):
            await engine.get(execution_id)
            found.append(worker)
    return found


async def test_whoever_is_reached_accepts_and_everybody_else_says_who_has_it() -> None:
    async with engines_on(folder(), 2, 2) as engines:
        for worker, engine in enumerate(engines):
            assert await engine.submit(submission(f"of-{worker}")) == "running"
        for worker, engine in enumerate(engines):
            assert await holders(engines, f"of-{worker}") == [worker]
            assert await engine.submit(submission(f"of-{worker}")) == "running"
            with pytest.raises(IdTaken):
                await engine.submit(submission(f"of-{worker}", WAIT))
            with pytest.raises(Elsewhere):
                await engine.submit(submission(f"of-{1 - worker}"))
            told: list[int] = []
            lost = submission(f"of-{1 - worker}", on_elsewhere=lambda owner, _, told=told: told.append(owner))
            waiting = engine.submit(lost)
            assert told == [1 - worker]
            assert not waiting.done()


async def test_of_many_who_submit_one_id_at_once_one_wins() -> None:
    async with engines_on(folder(), 4, 4) as engines:
        ids = [f"raced-{number}" for number in range(60)]
        calls = [engine.submit(submission(each)) for each in ids for engine in engines]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for number, each in enumerate(ids):
            outcomes = answers[number * 4 : number * 4 + 4]
            assert outcomes.count("running") == 1
            assert all(outcome == "running" or isinstance(outcome, Elsewhere) for outcome in outcomes)
            assert len(await holders(engines, each)) == 1


async def test_claims_that_were_never_committed_go_when_the_successor_opens() -> None:
    shared = Shared.create(2, 2, KEY)
    path = folder()
    async with engines_on(path, 2, 2, shared) as engines:
        await engines[1].submit(submission("kept"))
    places = shared.places(1, 2)
    assert places.table.claim("promised-to-nobody", 1) == -1
    assert shared.places(0, 2).owners_of("promised-to-nobody") == (1,)
    async with engines_on(path, 2, 2, shared) as engines:
        assert await engines[0].submit(submission("promised-to-nobody")) == "running"
        with pytest.raises(Elsewhere):
            await engines[0].submit(submission("kept"))


async def test_id_whose_commit_fails_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with engines_on(folder(), 2, 2) as engines:
        store = engines[1]._shards.home.store

        def full(_: Any) -> None:
            raise apsw.FullError("database or disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(store, "write", full)
            with pytest.raises(RunnerError):
                await engines[1].submit(submission("refused"))
        assert await engines[0].submit(submission("refused")) == "running"
        assert await holders(engines, "refused") == [0]


async def test_id_whose_commit_may_be_in_the_file_is_not_free_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the worker is killed before its next commit, the one that failed may turn out to have landed."""
    async with engines_on(folder(), 2, 2) as engines:
        store = engines[1]._shards.home.store

        def commit() -> None:
            raise apsw.IOError("disk I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(engines[1]._shards.home._writer, "_commit", commit)
            with pytest.raises(StorageFailed):
                await engines[1].submit(submission("undecided"))
            assert store.acceptance("undecided") is None
            with pytest.raises(Elsewhere):
                await engines[0].submit(submission("undecided"))
            store._give_up()
        await until(lambda: engines[0]._places.owners_of("undecided") == (), "the id to be free")
        assert await engines[0].submit(submission("undecided")) == "running"
        assert await holders(engines, "undecided") == [0]


async def test_id_is_free_again_when_its_retention_has_ended() -> None:
    async with engines_on(folder(), 2, 2, retention_count=1) as engines:
        for number in range(3):
            await engines[1].submit(submission(f"old-{number}"))
            await until_status(engines[1], f"old-{number}", "completed")
        engines[1]._shards.home.retain()
        await until(
            lambda: not rows(engines[1]._config.data_dir, 1, "select 1 from executions where execution_id = 'old-0'"),
            "retention",
        )
        await until(lambda: engines[0]._places.owners_of("old-0") == (), "the id to be free")
        assert await engines[0].submit(submission("old-0")) == "running"


async def test_bounds_are_the_runners_whichever_worker_is_asked() -> None:
    async with engines_on(folder(), 2, 2, executions_max=6, client_executions_per_s=1e6) as engines:
        long = document("  - rest:\n      wait: {hours: 1}\n")
        for number in range(6):
            await engines[number % 2].submit(submission(f"long-{number}", long))
        for engine in engines:
            with pytest.raises(RunnerError, match="6 executions are unfinished"):
                await engine.submit(submission("one-more"))
        await engines[0].cancel("long-0", "", True)
        assert await engines[1].submit(submission("one-more")) == "running"


async def test_rate_of_a_client_is_one_for_all_workers() -> None:
    async with engines_on(folder(), 2, 2, client_executions_per_s=4.0) as engines:
        taken = 0
        for number in range(8):
            with suppress(RunnerError):
                await engines[number % 2].submit(submission(f"one-{number}", client="fast"))
                taken += 1
        assert 4 <= taken < 8


async def test_directory_grows_and_shrinks_with_the_workers() -> None:
    """Of format 1, in which ids said where executions live: those stay there and go on."""
    path = folder()
    long = document("  - rest:\n      wait: {milliseconds: 300}\n  - finish:\n      set: {done: true}\n")
    async with engines_on(path, 2, 2) as engines:
        for number in range(4):
            await engines[number % 2].submit(submission(f"first-{number}", long))
    known = [f"first-{number}" for number in range(4)]
    for workers, shards in ((1, 2), (4, 4), (1, 4), (3, 4)):
        async with engines_on(path, workers, shards) as engines:
            for worker, engine in enumerate(engines):
                each = f"{workers}-of-{shards}-{worker}"
                await engine.submit(submission(each, long))
                known.append(each)
            for each in known:
                [holder] = await holders(engines, each)
                assert await engines[holder].submit(submission(each, long)) == "running"
                for other in set(range(workers)) - {holder}:
                    with pytest.raises(Elsewhere):
                        await engines[other].submit(submission(each, long))
    async with engines_on(path, 2, 4) as engines:
        for each in known:
            [holder] = await holders(engines, each)
            await until_status(engines[holder], each, "completed")
        listed = [view.execution_id for engine in engines for view in (await engine.list(ExecutionQuery())).items]
    assert sorted(listed) == sorted(known)


def spoil_index(path: Path, shard: int) -> None:
    """Makes the index of ids unreadable, and nothing else."""
    file = path / f"shard-{shard:04d}.db"
    [(page,)] = rows(path, shard, "select rootpage from sqlite_master where name = 'sqlite_autoindex_executions_1'")
    [(size,)] = rows(path, shard, "pragma page_size")
    with file.open("r+b") as opened:
        opened.seek((page - 1) * size)
        opened.write(b"\xff" * size)


async def test_ids_of_a_damaged_shard_are_known_from_their_second_copy(caplog: pytest.LogCaptureFixture) -> None:
    path = folder()
    async with engines_on(path, 2, 2) as engines:
        for number in range(20):
            await engines[1].submit(submission(f"e-{number}"))
    spoil_index(path, 1)
    async with engines_on(path, 2, 2) as engines:
        assert "second copy" in caplog.text
        for number in range(20):
            with pytest.raises(Elsewhere):
                await engines[0].submit(submission(f"e-{number}"))
        assert await engines[0].submit(submission("new")) == "running"


async def test_without_a_second_copy_acceptance_says_what_stops_it(caplog: pytest.LogCaptureFixture) -> None:
    path = folder()
    async with engines_on(path, 2, 2) as engines:
        await engines[1].submit(submission("e"))
        await engines[0].submit(submission("f"))
    spoil_index(path, 1)
    copy = path / "shard-0001.ids"
    copy.write_bytes(copy.read_bytes()[:-9] + b"\0" * 9)
    content = bytearray(copy.read_bytes())
    content[20] ^= 1
    copy.write_bytes(content)
    async with engines_on(path, 2, 2) as engines:
        assert "Restore the shard from a backup" in caplog.text
        for each in ("e", "new"):
            with pytest.raises(StorageFailed, match="what shard 1 holds is not known"):
                await engines[0].submit(submission(each))
        # What is known elsewhere is answered for.
        assert await engines[0].submit(submission("f")) == "running"
        await until_status(engines[0], "f", "completed")


async def test_copy_of_ids_that_has_many_more_than_live_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder()
    monkeypatch.setattr(limits, "IDS_COPY_SURPLUS_COUNT_MAX", 10)
    async with engines_on(path, 1, 1) as engines:
        await engines[0].submit(submission("e"))
    copy = Identities(path / "shard-0000.ids", KEY)
    copy.open()
    copy.append(range(1, 12))
    copy.close()
    async with engines_on(path, 1, 1):
        assert copy.read().hash_count == 12
    copy.open()
    copy.append(range(12, 20))
    copy.close()
    async with engines_on(path, 1, 1):
        assert copy.read().hash_count == 1


async def test_a_copy_that_cannot_be_written_refuses_the_commit() -> None:
    """Whatever is acknowledged is in both."""
    async with engines_on(folder(), 1, 1) as engines:
        ids = engines[0]._shards.home._ids
        ids._copy.close()
        with pytest.raises(RunnerError):
            await engines[0].submit(submission("e"))
        assert await holders(engines, "e") == []
        ids._copy.open()
        deadline_s = clock.monotonic_s() + 30
        while True:
            with suppress(RunnerError):
                assert await engines[0].submit(submission("e")) == "running"
                break
            assert clock.monotonic_s() < deadline_s
            await asyncio.sleep(0.05)
