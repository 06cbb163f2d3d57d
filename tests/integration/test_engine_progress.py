"""The embedded engine reports and recovers: outbox, subscriptions, timers, restarts, retention, failing disks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import apsw
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import clock
from fastrunner.engine import ExecutionQuery, UnacknowledgedEvents
from fastrunner.engine.embedded.commit.writer import Writer
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.run.subscriptions import Page
from fastrunner.errors import AtCapacity, Unavailable, UnknownExecution
from fastrunner.progress.wire import split
from tests.integration.engines import (
    CALL,
    ENDLESS,
    WAIT,
    Performer,
    assert_whole,
    document,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)


async def _follow(engine: EmbeddedEngine, execution_id: str, from_sequence: int = 1) -> list[int]:
    messages = engine.subscribe(execution_id, from_sequence)
    return [WorkflowProgressEvent.FromString(message).sequence_number async for message in messages]


async def test_subscriber_replays_then_follows_to_the_end() -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("one", CALL))
        early = asyncio.ensure_future(_follow(engine, "one"))
        late = asyncio.ensure_future(_follow(engine, "one", 4))
        await until(lambda: performer.performed, "the effect to start")
        performer.gate.set()
        last = (await until_status(engine, "one", "completed")).last_sequence
        assert await early == list(range(1, last + 1))
        assert await late == list(range(4, last + 1))
        assert await _follow(engine, "one") == list(range(1, last + 1))
        assert await _follow(engine, "one", last + 1) == []
        assert not engine._subscriptions._followed
        assert not engine._subscriptions.size_bytes
        with pytest.raises(UnknownExecution):
            await _follow(engine, "nobody")


@pytest.mark.parametrize(("events", "size_bytes"), [(50, 10**9), (10**9, 10_000)])
async def test_slow_subscriber_falls_back_to_the_store(
    events: int, size_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastrunner.base.limits.SUBSCRIPTION_BACKLOG_EVENTS_MAX", events)
    monkeypatch.setattr("fastrunner.base.limits.SUBSCRIPTION_BACKLOG_SIZE_BYTES_MAX", size_bytes)
    async with engine_on(folder()) as engine:
        await engine.submit(submission("loop", ENDLESS))
        stream = engine.subscribe("loop", 1)
        seen = [WorkflowProgressEvent.FromString(await anext(stream)).sequence_number]
        start = (await engine.get("loop")).last_sequence
        [follower] = engine._subscriptions._followed["loop"].followers
        await until(lambda: follower.lagging, "the subscriber to lag")
        await engine.cancel("loop", "", True)
        last = (await until_status(engine, "loop", "cancelled")).last_sequence
        assert last > start
        async for message in stream:
            seen.append(WorkflowProgressEvent.FromString(message).sequence_number)
        assert seen == list(range(1, last + 1))


async def _sequence(stream: AsyncIterator[bytes]) -> int:
    return WorkflowProgressEvent.FromString(await anext(stream)).sequence_number


async def test_subscribers_that_do_not_read_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of executions that run and that have ended; each gets every event once all the same when it reads."""
    # Twice as much as one commit tells of an execution.
    budget_size_bytes = 600_000
    monkeypatch.setattr("fastrunner.base.limits.SUBSCRIPTIONS_SIZE_BYTES_MAX", budget_size_bytes)
    monkeypatch.setattr("fastrunner.base.limits.EVENTS_REPLAY_SIZE_BYTES_MAX", 5_000)
    loops = [f"loop-{number}" for number in range(30)]
    async with engine_on(folder()) as engine:
        subscriptions = engine._subscriptions
        await asyncio.gather(*(engine.submit(submission(name, ENDLESS)) for name in loops))
        streams = [engine.subscribe(name, 1) for name in loops]
        assert [await _sequence(stream) for stream in streams] == [1] * len(loops)
        for number in range(300):
            assert subscriptions.size_bytes <= budget_size_bytes
            await asyncio.sleep(0)
            assert await _sequence(streams[number % 3]) == 2 + number // 3
        await asyncio.gather(*(engine.cancel(name, "", True) for name in loops))
        streams += [engine.subscribe(name, 1) for name in loops]
        for stream in streams[len(loops) :]:
            await _sequence(stream)
            assert 0 < subscriptions.size_bytes <= budget_size_bytes
        for number, stream in enumerate(streams):
            name = loops[number % len(loops)]
            last = (await until_status(engine, name, "cancelled")).last_sequence
            told = 101 if number < 3 else 1
            seen = [WorkflowProgressEvent.FromString(message).sequence_number async for message in stream]
            assert seen == list(range(told + 1, last + 1))
        assert not subscriptions.size_bytes


async def test_subscribers_of_one_execution_share_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.EVENTS_REPLAY_SIZE_BYTES_MAX", 2_000)
    rounds = document("  - loop:\n      for: {in: '[range(100)]'}\n      do:\n        - one: {set: {a: 1}}\n")
    rests = document(
        "  - loop:\n      for: {in: '[range(20)]'}\n      do:\n        - rest: {wait: {milliseconds: 1}}\n"
    )
    async with engine_on(folder()) as engine:
        read, pages = engine._subscriptions._read_page, []

        def watched(execution_id: str, from_sequence: int) -> Page:
            pages.append((execution_id, from_sequence))
            return read(execution_id, from_sequence)

        monkeypatch.setattr(engine._subscriptions, "_read_page", watched)
        for name, text in (("rounds", rounds), ("rests", rests)):
            await engine.submit(submission(name, text))
            last = (await until_status(engine, name, "completed")).last_sequence
            followed = await asyncio.gather(*(_follow(engine, name) for _ in range(50)))
            assert followed == [list(range(1, last + 1))] * 50
        assert len(pages) == len(set(pages)) > 3
        # Whoever subscribes after a commit gets a page that has it.
        await engine.submit(submission("loop", ENDLESS))
        for _ in range(5):
            last = (await engine.get("loop")).last_sequence
            stream = engine.subscribe("loop", last)
            assert await _sequence(stream) == last
            assert await _sequence(stream) == last + 1


async def test_followers_of_one_execution_are_told_in_turns_of_the_loop() -> None:
    """A thousand of them hold nobody up, a follower of another execution least of all; each hears everything once."""
    performer, heard, turns = Performer(), [0], [0]

    async def follow(engine: EmbeddedEngine, from_sequence: int) -> list[int]:
        seen: list[int] = []
        async for message in engine.subscribe("many", from_sequence):
            heard[0] += not seen
            seen.append(WorkflowProgressEvent.FromString(message).sequence_number)
        return seen

    async with engine_on(folder(), performer) as engine:
        for name in ("many", "other"):
            await engine.submit(submission(name, CALL))
        await until(lambda: len(performer.performed) == 2, "the effects to start")
        after = (await engine.get("many")).last_sequence + 1
        followers = [asyncio.ensure_future(follow(engine, after)) for _ in range(1_000)]
        other = asyncio.ensure_future(_follow(engine, "other", after))
        # From beyond what there will be: it ends with the others and hears nothing.
        beyond = asyncio.ensure_future(_follow(engine, "many", 1_000))
        followed = engine._subscriptions._followed

        def everybody_waits() -> bool:
            waiting = [each for entry in followed.values() for each in entry.followers if not each.lagging]
            return len(waiting) == 1_002

        await until(everybody_waits, "everybody to follow")
        performer.gate.set()
        told = 0
        while not all(follower.done() for follower in followers):
            await asyncio.sleep(0)
            before, told = told, heard[0]
            turns.append(told - before)
            if other.done() and told < 1_000:
                turns[0] = 1
        assert max(turns[1:]) == 64
        assert turns[0], "the follower of the other execution waited for all of them"
        last = (await engine.get("many")).last_sequence
        assert [follower.result() for follower in followers] == [list(range(after, last + 1))] * 1_000
        assert await beyond == []
        assert not engine._subscriptions.size_bytes


async def test_commits_that_come_faster_than_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followers read the store then, and hear everything once all the same."""
    monkeypatch.setattr("fastrunner.base.limits.SUBSCRIPTION_FOLLOWERS_PER_TURN_MAX", 1)
    monkeypatch.setattr("fastrunner.base.limits.SUBSCRIPTION_ROWS_DUE_MAX", 3)
    async with engine_on(folder()) as engine:
        await engine.submit(submission("loop", ENDLESS))
        followers = [asyncio.ensure_future(_follow(engine, "loop")) for _ in range(40)]
        followed = engine._subscriptions._followed
        await until(lambda: "loop" in followed and None in followed["loop"]._due, "followers to be left behind")
        assert len(followed["loop"]._due) <= 3
        await engine.cancel("loop", "", True)
        last = (await until_status(engine, "loop", "cancelled")).last_sequence
        assert await asyncio.gather(*followers) == [list(range(1, last + 1))] * 40
        assert not engine._subscriptions.size_bytes


async def test_subscriber_of_a_stopping_worker_hears_unavailable() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", CALL))
        stream = engine.subscribe("one", 1_000)
        following = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await engine.drain(0)
        with pytest.raises(Unavailable):
            await following


async def test_events_are_announced_in_order_and_stay_in_the_outbox_until_acknowledged() -> None:
    path = folder()
    rows: list[UnacknowledgedEvents] = []
    async with engine_on(path, shards=2, listener=rows.append) as engine:
        for number in range(5):
            await engine.submit(submission(f"execution-{number}", WAIT))
        for number in range(5):
            await until_status(engine, f"execution-{number}", "completed")
        # What is durable is visible in the file a moment before it is announced.
        await until(lambda: not any(shard.live for shard in engine._shards), "the last commit to land")
        announced = {(row.execution_id, row.first_sequence): row for row in rows}
        stored = await engine.outbox.unacknowledged(None, 1_000)
        assert [(row.execution_id, row.first_sequence) for row in stored] == sorted(announced)
        assert all(announced[row.execution_id, row.first_sequence] == row for row in stored)
        paged: list[UnacknowledgedEvents] = []
        while page := await engine.outbox.unacknowledged(
            (paged[-1].execution_id, paged[-1].first_sequence) if paged else None, 3
        ):
            paged += page
        assert paged == stored
        last = (await engine.get("execution-0")).last_sequence
        engine.outbox.acknowledge("execution-0", last)
        engine.outbox.acknowledge("execution-1", 3)
    async with engine_on(path, shards=2, listener=rows.append) as engine:
        assert (await engine.get("execution-0")).acknowledged_sequence == last
        left = await engine.outbox.unacknowledged(None, 1_000)
        assert "execution-0" not in {row.execution_id for row in left}
        assert {row.execution_id for row in left} == {f"execution-{number}" for number in range(1, 5)}
        of_one = await engine.outbox.unacknowledged_of("execution-1", 4, 10**6)
        assert of_one[0].first_sequence <= 4 <= of_one[0].last_sequence
        assert [row.last_sequence + 1 for row in of_one[:-1]] == [row.first_sequence for row in of_one[1:]]
        assert len(await engine.outbox.unacknowledged_of("execution-1", 1, 1)) == 1
        assert await engine.outbox.unacknowledged_of("nobody", 1, 1) == []
        assert sum(len(list(split(row.messages))) for row in of_one) == last - of_one[0].first_sequence + 1


async def test_effect_starts_only_after_the_commit_that_scheduled_it() -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        shard = engine._shards.by_number[0]
        requested, request = [], shard._writer.request
        shard._writer.request = lambda: requested.append(True)  # type: ignore[method-assign]
        accepted = asyncio.ensure_future(engine.submit(submission("one", CALL)))
        await until(lambda: requested, "the commit to be asked for")
        for _ in range(10):
            await asyncio.sleep(0)
        assert not performer.performed
        assert not accepted.done()
        request()
        assert await accepted == "running"
        await until(lambda: performer.performed, "the effect to start")
        shard._writer.request = request  # type: ignore[method-assign]


async def test_restart_performs_pending_effects_again_with_the_same_key() -> None:
    path = folder()
    first = Performer()
    async with engine_on(path, first) as engine:
        for number in range(20):
            await engine.submit(submission(f"execution-{number}", CALL))
        await until(lambda: len(first.performed) == 20, "the effects to start")
    assert len(first.interrupted) == 20
    second = Performer()
    second.gate.set()
    async with engine_on(path, second) as engine:
        for number in range(20):
            await until_status(engine, f"execution-{number}", "completed")
            await assert_whole(engine, f"execution-{number}", "workflow_completed")
    keys = sorted(effect.idempotency_key for effect in first.performed)
    assert keys == sorted(effect.idempotency_key for effect in second.performed)
    assert len(set(keys)) == 20


async def test_commands_reach_an_execution_that_is_not_restored_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("one", CALL))
        await engine.submit(submission("two", CALL))
    monkeypatch.setattr("fastrunner.engine.embedded.run.residency.Loader.run", lambda self: asyncio.sleep(0))
    async with engine_on(path) as engine:
        assert not engine._shards.by_number[0].live
        assert await engine.submit(submission("one", CALL)) == "running"
        await engine.cancel("two", "", True)
        assert (await engine.get("two")).status == "cancelled"
        assert engine._shards.by_number[0].unfinished_count == 1


async def test_timers_survive_a_restart_and_fire_at_their_time() -> None:
    path = folder()
    now_ms = clock.wall_ms()
    offset_ms = 0

    def wall_ms() -> int:
        return now_ms + offset_ms

    hour = WAIT.replace("milliseconds: 200", "hours: 1")
    async with engine_on(path, wall_ms=wall_ms) as engine:
        for number in range(3):
            await engine.submit(submission(f"execution-{number}", hour))
        await until(lambda: engine._parked_count == 3, "three parked executions")
    async with engine_on(path, wall_ms=wall_ms) as engine:
        await until(lambda: engine._parked_count == 3, "the executions to be parked again")
        offset_ms = 3_599_000
        engine._scheduler._wake()
        await asyncio.sleep(0.01)
        assert (await engine.get("execution-0")).status == "running"
        offset_ms = 3_600_000
        engine._scheduler._wake()
        for number in range(3):
            view = await until_status(engine, f"execution-{number}", "completed")
            assert view.finished_ms == now_ms + 3_600_000
        assert engine._parked_count == 0
        assert not engine._scheduler._timers


async def test_retention_by_count_and_by_age_deletes_finished_executions_only() -> None:
    path = folder()
    async with engine_on(path, retention_count=10) as engine:
        await engine.submit(submission("running", CALL))
        await asyncio.gather(*(engine.submit(submission(f"execution-{number}")) for number in range(250)))
        shard = engine._shards.by_number[0]
        shard.retain()
        await until(lambda: shard.retention.finished_count == 10, "retention by count")
        with pytest.raises(UnknownExecution):
            await engine.get("execution-0")
        assert (await engine.get("execution-249")).status == "completed"
    later_ms = clock.wall_ms() + 10_000
    async with engine_on(path, retention_s=5, wall_ms=lambda: later_ms) as engine:
        shard = engine._shards.by_number[0]
        assert shard.retention.finished_count == 10
        shard.retain()
        await until(lambda: shard.retention.finished_count == 0, "retention by age")
        assert (await engine.get("running")).status == "running"
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        assert db.execute("select count(*) from events").fetchone() == (1,)
        assert db.execute("select uses from plans").fetchall() == [(1,)]


async def test_retention_keeps_what_the_receiver_has_not_acknowledged() -> None:
    async with engine_on(folder(), retention_count=0, listener=lambda row: None) as engine:
        await engine.submit(submission("one"))
        await engine.submit(submission("two"))
        shard = engine._shards.by_number[0]
        engine.outbox.acknowledge("one", 100)
        shard.retain()

        def gone() -> bool:
            shard.retain()
            return shard.retention.finished_count == 1

        await until(gone, "the acknowledged one to be deleted")
        assert (await engine.get("two")).acknowledged_sequence == 0


async def test_commit_that_fails_refuses_what_is_new_and_keeps_the_rest() -> None:
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("old", CALL))
        await until(lambda: performer.performed, "the effect to start")
        store = engine._shards.by_number[0].store
        commit, failures = store.commit, []

        def fail() -> None:
            store._give_up()
            error = apsw.exception_for(apsw.SQLITE_FULL)
            failures.append(error)
            raise error

        writer = engine._shards.by_number[0]._writer
        assert isinstance(writer, Writer)
        writer._commit = fail
        performer.gate.set()
        with pytest.raises(AtCapacity):
            await engine.submit(submission("new", CALL))
        with pytest.raises(AtCapacity):
            await engine.submit(submission("newer", CALL))
        with pytest.raises(UnknownExecution):
            await engine.get("new")
        await until(lambda: len(failures) > 1, "another attempt")
        writer._commit = commit
        await until_status(engine, "old", "completed")
        await assert_whole(engine, "old", "workflow_completed")
        await until(lambda: engine._shards.by_number[0].refusal is None, "admission to open again")
        assert await engine.submit(submission("new", CALL)) == "running"
        assert engine._shards.by_number[0].unfinished_count == 1


async def test_disk_that_is_nearly_full_closes_admission_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("loop", ENDLESS))
        await engine.submit(submission("other", ENDLESS))
        monkeypatch.setattr("fastrunner.base.limits.DISK_FREE_SIZE_BYTES_MIN", 2**62)
        monkeypatch.setattr("fastrunner.base.limits.DISK_FREE_SHARE_MIN", 2.0)
        engine._watch_disk()
        with pytest.raises(AtCapacity, match="nearly full"):
            await engine.submit(submission("one"))
        await engine.cancel("other", "", False)
        held_at = (await engine.get("loop")).last_sequence
        await engine.resume("loop", "")
        assert (await engine.get("loop")).last_sequence == held_at
        monkeypatch.undo()
        engine._watch_disk()
        assert await engine.submit(submission("one")) == "running"
        await engine.cancel("loop", "", False)
        assert (await engine.get("loop")).last_sequence > held_at + 1


async def test_command_to_a_closing_engine_is_refused() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("one", CALL))
        await engine.drain(0)
        for command in (engine.cancel("one", "", True), engine.get("one"), engine.list(ExecutionQuery())):
            with pytest.raises(Unavailable):
                await command
