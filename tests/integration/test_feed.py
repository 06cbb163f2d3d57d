"""SubscribeAll: every change of state of all executions once at least, over workers, their deaths, and restarts."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.engine import FeedItem
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.reader import Reader
from tests.integration.engines import SET, document, engine_on, folder, submission, until, until_status
from tests.integration.runner_process import ROOT
from tests.integration.test_placement_runner import connections, ready, start
from tests.integration.test_subflows_runner import ended
from tests.integration.wire import path, refusal, served, serving

HOUR = document("  - rest:\n      wait: {hours: 1}\n")
SHORT = document("  - rest:\n      wait: {milliseconds: 50}\n", "short")


class Follower:
    """Takes a feed of an engine in the background."""

    def __init__(self) -> None:
        self.items: list[FeedItem] = []
        self.statuses: defaultdict[str, list[str]] = defaultdict(list)

    @property
    def positions(self) -> dict[int, int]:
        return dict(self.items[-1].positions)

    @property
    def missed(self) -> bool:
        return any(item.missed for item in self.items)

    async def run(self, engine: EmbeddedEngine, after: dict[int, int]) -> None:
        async for item in engine.feed.follow(after):
            self.items.append(item)
            if item.change is not None:
                self.statuses[item.change.execution_id].append(item.change.status)

    async def until(self, execution_id: str, *statuses: str) -> None:
        await until(lambda: self.statuses[execution_id] == list(statuses), f"{statuses} of {execution_id}")


@asynccontextmanager
async def following(engine: EmbeddedEngine, after: dict[int, int] | None = None) -> AsyncIterator[Follower]:
    follower = Follower()
    task = asyncio.create_task(follower.run(engine, after or {}))
    await until(lambda: follower.items, "the first item")
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_accepted_paused_resumed_and_ends() -> None:
    async with engine_on(folder(), shards=2) as engine:
        await engine.submit(submission("before", SET))
        async with following(engine) as follower:
            await engine.submit(submission("one", HOUR))
            await follower.until("one", "running")
            await engine.pause("one", "")
            await engine.resume("one", "")
            await engine.cancel("one", "", force=True)
            await follower.until("one", "running", "paused", "running", "cancelled")
            await engine.submit(submission("two", SET))
            await follower.until("two", "running", "completed")
        assert "before" not in follower.statuses
        change = next(item.change for item in follower.items if item.change and item.change.execution_id == "two")
        assert (change.definition.namespace, change.definition.name, change.sequence) == ("tests", "test", 1)


async def test_a_cursor_goes_on_over_a_restart() -> None:
    data = folder()
    async with engine_on(data) as engine, following(engine) as follower:
        await engine.submit(submission("one", HOUR))
        await follower.until("one", "running")
        cursor = follower.positions
        await engine.submit(submission("unseen", SET))
        await until_status(engine, "unseen", "completed")
    async with engine_on(data) as engine:
        async with following(engine, cursor) as follower:
            await follower.until("unseen", "running", "completed")
            await engine.cancel("one", "", force=True)
            await follower.until("one", "cancelled")
            assert not follower.missed
        async with following(engine, follower.positions) as nothing_new:
            await engine.submit(submission("last", SET))
            await nothing_new.until("last", "running", "completed")
            assert set(nothing_new.statuses) == {"last"}


async def test_what_retention_has_taken_is_said_to_be_missed() -> None:
    data = folder()
    async with engine_on(data) as engine:
        async with following(engine) as follower:
            cursor = follower.positions
            await engine.submit(submission("gone", SET))
            await follower.until("gone", "running", "completed")
            seen = follower.positions
            await engine.delete("gone")
            await engine.submit(submission("kept", SET))
            await follower.until("kept", "running", "completed")
            assert not follower.missed
        async with following(engine, cursor) as late:
            await late.until("kept", "running", "completed")
            assert late.missed
            assert "gone" not in late.statuses
    async with engine_on(data) as engine, following(engine, seen) as in_time:
        # Numbers of rows that are gone are not used again.
        await in_time.until("kept", "running", "completed")
        assert not in_time.missed


async def test_one_beyond_what_there_is_has_missed_something() -> None:
    async with engine_on(folder()) as engine, following(engine, {0: 1_000}) as follower:
        assert follower.missed


class Readings:
    """What followers read of the store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        """How many rows each has given."""
        read = Reader.feed

        def counted(reader: Reader, *bounds: int) -> Any:
            rows = read(reader, *bounds)
            self.rows.append(len(rows))
            return rows

        monkeypatch.setattr(Reader, "feed", counted)


@pytest.mark.parametrize("limit", [{"FEED_ROWS_MAX": 3}, {"FEED_SIZE_BYTES_MAX": 1}])
async def test_a_reading_ends_at_its_bounds(monkeypatch: pytest.MonkeyPatch, limit: dict[str, int]) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(f"fastrunner.base.limits.{name}", value)
    async with engine_on(folder()) as engine:
        async with following(engine) as follower:
            start = follower.positions
        for number in range(10):
            await engine.submit(submission(f"e{number}", SET))
        readings = Readings(monkeypatch)
        async with following(engine, start) as follower:
            for number in range(10):
                await follower.until(f"e{number}", "running", "completed")
        assert sum(readings.rows) == 10
        assert max(readings.rows) == (3 if "FEED_ROWS_MAX" in limit else 1)


async def test_a_follower_reads_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.FEED_INTERVAL_S", 0.5)
    async with engine_on(folder()) as engine, following(engine) as follower:
        readings = Readings(monkeypatch)
        for number in range(50):
            await engine.submit(submission(f"e{number}", SET))
        await follower.until("e49", "running", "completed")
        assert len(readings.rows) < 25


@pytest.mark.parametrize("kept", [0, 16])
async def test_followers_share_what_is_read(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr("fastrunner.base.limits.FEED_PAGES_KEPT_MAX", kept)
    async with engine_on(folder()) as engine:
        async with following(engine) as follower:
            start = follower.positions
        for number in range(20):
            await engine.submit(submission(f"e{number}", SET))
        readings = Readings(monkeypatch)
        for _ in range(2):
            async with following(engine, start) as follower:
                await follower.until("e19", "running", "completed")
        assert sum(readings.rows) == (20 if kept else 40)


async def test_a_filter_that_nothing_passes_gets_cursors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.FEED_CURSOR_INTERVAL_S", 0.0)
    async with engine_on(folder()) as engine, serving(engine) as wire:
        call = wire.stream("SubscribeAll", q.SubscribeAllRequest(workflow_name="another"))
        first = q.StateChange.FromString(await call.read())
        await engine.submit(submission("one", SET))
        last = first
        while last.cursor == first.cursor:
            last = q.StateChange.FromString(await call.read())
            assert last.execution_id == ""
        call.cancel()


@pytest.mark.parametrize("cursor", ["x", "1", "1:x", "1:2,", "2:1,1:1", "-1:1", "1:-1", "1:1,1:1", f"1:{2**63}"])
async def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    async with served() as wire:
        code, message, _ = await refusal(wire.stream("SubscribeAll", q.SubscribeAllRequest(cursor=cursor)).read())
        assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "cursor is none that SubscribeAll gave")
        code, message, _ = await refusal(wire.stream("SubscribeAll", q.SubscribeAllRequest(statuses=["gone"])).read())
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "'gone'" in message


class Feed:
    """A stream of a runner, read in the background; it goes on with its cursor where it breaks."""

    def __init__(self, target: str, **filters: Any) -> None:
        self.target = target
        self.request = q.SubscribeAllRequest(**filters)
        self.seen: defaultdict[str, dict[int, str]] = defaultdict(dict)
        """Status by sequence number, for each execution."""
        self.missed = False
        self.begun = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                async with grpc.aio.insecure_channel(self.target) as channel:
                    call: Any = channel.unary_stream(path("SubscribeAll"), None, None)
                    async for message in call(self.request.SerializeToString()):
                        self._take(q.StateChange.FromString(message))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)

    def _take(self, change: q.StateChange) -> None:
        self.begun.set()
        self.request.cursor = change.cursor
        self.missed |= change.missed
        if change.execution_id:
            self.seen[change.execution_id][change.sequence_number] = change.status

    def statuses(self, execution_id: str) -> list[str]:
        """In the order of its events."""
        return [status for _, status in sorted(self.seen[execution_id].items())]


@asynccontextmanager
async def reading(target: str, **filters: Any) -> AsyncIterator[Feed]:
    feed = Feed(target, **filters)
    task = asyncio.create_task(feed.run())
    try:
        await asyncio.wait_for(feed.begun.wait(), 30)
        yield feed
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_seen(feed: Feed, wanted: dict[str, list[str]]) -> None:
    def is_all_seen() -> bool:
        return all(feed.statuses(execution_id) == statuses for execution_id, statuses in wanted.items())

    await until(is_all_seen, f"{wanted}", 60)


async def test_one_stream_over_workers_that_die_and_a_tree_that_does(tmp_path: Path) -> None:
    """Executions of both workers; a worker is killed while they run, then the whole tree; a filter sees its part."""
    wanted = {f"e{number}": ["running", "completed"] for number in range(40)}
    with start(tmp_path / "data", 2) as runner:
        ready(runner)
        async with reading(runner.target) as feed, reading(runner.target, statuses=["paused"]) as paused:
            async with connections(runner, 2) as opened:
                for number, execution_id in enumerate(wanted):
                    await opened[number % len(opened)].execute(execution_id, SHORT)
                await opened[0].execute("rests", HOUR)
                pids = {each.pid for each in opened}
            os.kill(max(pids), signal.SIGKILL)
            await until_seen(feed, wanted)
            for execution_id in wanted:
                await ended(runner, execution_id)
            async with connections(runner, 1) as opened:
                await opened[0].call("PauseExecution", m.PauseExecutionRequest(execution_id="rests"), Empty)
            await until_seen(paused, {"rests": ["paused"]})
            assert set(paused.seen) == {"rests"}
            await until_seen(feed, {"rests": ["running", "paused"]})
            assert not feed.missed
            cursor = feed.request.cursor
    with start(tmp_path / "data", 2) as runner:
        ready(runner)
        async with reading(runner.target, cursor=cursor) as feed, connections(runner, 1) as opened:
            request = m.CancelExecutionRequest(execution_id="rests", force=True)
            await opened[0].call("CancelExecution", request, Empty)
            await until_seen(feed, {"rests": ["cancelled"]})
            assert not feed.missed
            assert not set(wanted) & set(feed.seen)


async def test_watch_shows_lines_and_keeps_its_cursor(tmp_path: Path) -> None:
    cursor_file = tmp_path / "cursor"
    with start(tmp_path / "data", 1) as runner:
        ready(runner)
        command = [sys.executable, "-m", "fastrunner", "watch", "--target", runner.target]
        watching = await asyncio.create_subprocess_exec(
            *command, "--cursor-file", str(cursor_file), stdout=subprocess.PIPE, cwd=ROOT
        )
        assert watching.stdout is not None
        await until(cursor_file.exists, "a cursor", 60)
        async with asyncio.timeout(60):
            async with connections(runner, 1) as opened:
                await opened[0].execute("one", SET)
            lines = [(await watching.stdout.readline()).decode().split()[2:] for _ in range(2)]
            assert lines == [["running", "one", "tests/test:1.0.0"], ["completed", "one", "tests/test:1.0.0"]]
            watching.send_signal(signal.SIGINT)
            assert await watching.wait() == 130
            async with connections(runner, 1) as opened:
                await opened[0].execute("two", SET)
            again = await asyncio.create_subprocess_exec(
                *command, "--cursor-file", str(cursor_file), "--json", "--status", "completed",
                stdout=subprocess.PIPE, cwd=ROOT,
            )  # fmt: skip
            assert again.stdout is not None
            while (change := json.loads(await again.stdout.readline()))["executionId"] != "two":
                # The last line's row may be told again: a cursor is kept after what it follows.
                assert change["executionId"] == "one"
            assert change["status"] == "completed"
            again.send_signal(signal.SIGINT)
            await again.wait()
