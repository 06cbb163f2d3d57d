"""Whoever fires, with a runner that does as the test says: refusals, silence, many schedules, one leader, its file."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import Execution, GetExecutionResponse
from fastrunner.access.principal import Principal, Role
from fastrunner.base import clock, limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.engine.schedules import Overlap, Schedule, ScheduleOptions, Trigger
from fastrunner.errors import AtCapacity, InvalidRequest, ScheduleExists, StorageFailed, Unavailable, UnknownExecution
from fastrunner.events.bus import EventBus
from fastrunner.events.schedules.calls import Executions
from fastrunner.events.schedules.file import SchedulesFile
from fastrunner.events.schedules.leader import Leader
from fastrunner.events.schedules.planner import Progress
from fastrunner.events.schedules.rows import Note

PRINCIPAL = Principal("token:a", frozenset({Role.SUBMIT}), frozenset({"n"}))


def schedule(schedule_id: str = "s", ago_ms: int = 0, every_ms: int = 100, **trigger: Any) -> Schedule:
    of = Trigger(every_ms=0 if trigger else every_ms, **trigger)
    added_ms = clock.wall_ms() - ago_ms
    return Schedule(schedule_id, "n", "w", "1.0.0", of, ScheduleOptions(), b"", added_ms, PRINCIPAL)


class Runner:
    """What the leader calls."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.principals: set[Principal | None] = set()
        self.asked: list[tuple[float, str]] = []
        self.answer: Callable[[str], Awaitable[None]] | None = None
        self.ended_ms = 0

    async def call(self, method: str, payload: bytes, principal: Principal | None) -> bytes:
        if method == "GetExecution":
            self.asked.append((clock.monotonic_s(), method))
            if self.ended_ms < 0:
                raise UnknownExecution("gone")
            status = "completed" if self.ended_ms else "running"
            execution = Execution(status=status, finished_ms=self.ended_ms)
            return GetExecutionResponse(execution=execution).SerializeToString()
        request = WorkflowExecuteInput.FromString(payload)
        self.principals.add(principal)
        self.asked.append((clock.monotonic_s(), request.workflow_execution_id))
        if self.answer is not None:
            await self.answer(request.labels["schedule"])
        self.started.append(request.workflow_execution_id)
        return b""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another thread, or a file, makes it so
            await asyncio.sleep(0.01)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    opened = SchedulesFile(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
async def leader(tmp_path: Path, runner: Runner) -> AsyncIterator[Leader]:
    bus = EventBus(tmp_path, lambda: None, Seals(), 600)
    leading = Leader(tmp_path, SchedulesFile(tmp_path), Executions(runner.call), bus, Metrics())
    leading.start()
    yield leading
    await leading.stop()
    await bus.close()


async def test_a_moment_is_tried_again(file: SchedulesFile, runner: Runner, leader: Leader) -> None:
    """A runner that takes nothing now is asked once in a while; the moment stays until it is taken."""
    refusals: list[Exception] = [Unavailable("no"), AtCapacity("no")]

    async def answer(_: str) -> None:
        if refusals:
            raise refusals.pop()

    runner.answer = answer
    file.add(schedule(every_ms=60_000, ago_ms=60_000), b"")
    await until(lambda: runner.started)
    await until(lambda: file.get("s").progress.counts == {"started": 1})
    times = [at for at, _ in runner.asked]
    assert len({each for _, each in runner.asked}) == 1
    assert all(after - before >= 0.9 * limits.SCHEDULE_RETRY_INTERVAL_S for before, after in pairwise(times))
    assert len(times) == 3
    assert runner.principals == {PRINCIPAL}
    assert leader is not None


async def test_a_moment_that_is_refused_is_passed_over(file: SchedulesFile, runner: Runner, leader: Leader) -> None:
    async def answer(_: str) -> None:
        raise InvalidRequest("a", "it is no good")

    runner.answer = answer
    file.add(schedule(), b"")
    await until(lambda: file.get("s").progress.counts.get("failed", 0) >= 2)
    assert file.get("s").progress.last_error == "it is no good"
    assert len({each for _, each in runner.asked}) == len(runner.asked)
    assert leader is not None


async def test_no_schedule_waits_for_another(
    file: SchedulesFile, runner: Runner, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that gets no answer holds nobody up but itself, and is asked again; so many at a time have no answer."""
    monkeypatch.setattr(limits, "SCHEDULE_START_S_MAX", 0.3)
    silence = asyncio.Event()

    async def answer(schedule_id: str) -> None:
        if schedule_id == "silent" and not silence.is_set():
            await asyncio.sleep(60)

    runner.answer = answer
    file.add(schedule("silent"), b"")
    await until(lambda: runner.asked)
    file.add(schedule("other"), b"")
    await until(lambda: len(runner.started) >= 3)
    assert all(each.startswith("other") for each in runner.started)
    monkeypatch.setattr(limits, "SCHEDULES_AT_ONCE_MAX", 1)
    silence.set()
    await until(lambda: any(each.startswith("silent") for each in runner.started))
    assert leader is not None


async def test_only_so_many_at_a_time(
    file: SchedulesFile, runner: Runner, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SCHEDULES_AT_ONCE_MAX", 3)
    busy: set[str] = set()
    most = 0

    async def answer(schedule_id: str) -> None:
        nonlocal most
        busy.add(schedule_id)
        most = max(most, len(busy))
        await asyncio.sleep(0.05)
        busy.discard(schedule_id)

    runner.answer = answer
    for number in range(10):
        file.add(schedule(f"s{number}", every_ms=60_000, ago_ms=60_000), b"")
    await until(lambda: len(runner.started) == 10)
    assert most == 3
    assert leader is not None


async def test_the_end_is_looked_for_now_and_then(
    file: SchedulesFile, runner: Runner, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice within `after`, but neither too often nor too seldom; what is deleted has ended."""
    file.add(schedule(after_ms=100), b"")
    await until(lambda: sum(method == "GetExecution" for _, method in runner.asked) >= 3)
    looks = [at for at, method in runner.asked if method == "GetExecution"]
    assert looks[1] - looks[0] >= 0.9 * limits.SCHEDULE_END_LOOK_MS_MIN / 1000
    monkeypatch.setattr(limits, "SCHEDULE_END_LOOK_MS_MAX", 50)
    monkeypatch.setattr(limits, "SCHEDULE_END_LOOK_MS_MIN", 10)
    file.add(schedule("long", after_ms=3_600_000), b"")
    await until(lambda: sum(method == "GetExecution" for _, method in runner.asked) >= 10)
    runner.ended_ms = -1
    await until(lambda: file.get("long").progress.after_due_ms > clock.wall_ms() + 3_000_000)
    assert leader is not None


async def test_one_leads_and_another_takes_over(tmp_path: Path, file: SchedulesFile, runner: Runner) -> None:
    """The second one has fired nothing until the first is gone, and goes on where that one was."""
    runners = [runner, Runner()]
    leaders = []
    bus = EventBus(tmp_path, lambda: None, Seals(), 600)
    for each in runners:
        leaders.append(Leader(tmp_path, SchedulesFile(tmp_path), Executions(each.call), bus, Metrics()))
        leaders[-1].start()
        await until(lambda: (tmp_path / "schedules.leader").exists())
        await asyncio.sleep(0)
    file.add(schedule(), b"")
    await until(lambda: len(runners[0].started) + len(runners[1].started) >= 3)
    first, second = runners if runners[0].started else runners[::-1]
    assert not second.started
    await leaders[runners.index(first)].stop()
    await until(lambda: len(second.started) >= 3)
    moments = [int(each.split(".")[1][0]) if "." in each else 0 for each in [*first.started, *second.started]]
    assert len(set(first.started) & set(second.started)) <= 1
    assert moments
    await leaders[runners.index(second)].stop()
    await bus.close()


async def test_a_lock_that_cannot_be_opened_is_told_once(
    tmp_path: Path,
    file: SchedulesFile,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody fires meanwhile; whoever may open it again does."""
    monkeypatch.setattr(limits, "SCHEDULE_LOOK_INTERVAL_S", 0.01)
    lock = tmp_path / "schedules.leader"
    lock.mkdir()
    opened, really_open = [], os.open

    def noted(path: Any, *given: Any, **more: Any) -> int:
        opened.append(path)
        return really_open(path, *given, **more)

    monkeypatch.setattr(os, "open", noted)
    file.add(schedule(), b"")
    bus = EventBus(tmp_path, lambda: None, Seals(), 600)
    leader = Leader(tmp_path, SchedulesFile(tmp_path), Executions(runner.call), bus, Metrics())
    leader.start()
    await until(lambda: "schedules.leader cannot be opened: Is a directory" in caplog.text)
    await until(lambda: opened.count(lock) > 4)
    assert caplog.text.count("cannot be opened") == 1
    lock.rmdir()
    await until(lambda: bool(runner.started))
    await leader.stop()
    await bus.close()


async def test_events_start_executions_once_each(tmp_path: Path, file: SchedulesFile, runner: Runner) -> None:
    """More of them than are taken at a time; while none is taken, and when another one takes over, none is lost."""
    bus = EventBus(tmp_path, lambda: None, Seals(), 600)
    count = limits.SCHEDULE_EVENTS_MAX + 20

    def event(number: int) -> dict[str, Any]:
        return {"specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "a", "data": number}

    refusals = [Unavailable("no")]

    async def answer(_: str) -> None:
        if refusals:
            raise refusals.pop()

    runner.answer = answer
    await bus.publish([event(-1)], None)
    file.add(schedule("s", on={"one": {"with": {"type": "a"}}}), b"", bus.last_key())
    await bus.publish([event(number) for number in range(count)], None)
    await bus.publish([event(number + 1_000) for number in range(10)], frozenset({"elsewhere"}))
    for _ in range(2):
        leading = Leader(tmp_path, SchedulesFile(tmp_path), Executions(runner.call), bus, Metrics())
        leading.start()
        await until(lambda expected=count: file.get("s").progress.counts.get("started") == expected)  # type: ignore[misc]
        await until(lambda: file.position() == bus.last_key())
        await leading.stop()
        count += 5
        await bus.publish([event(number + 2_000) for number in range(5)], None)
    assert len(set(runner.started)) == len(runner.started) == count - 5
    await bus.close()


def test_schedules_by_events_are_bounded(file: SchedulesFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SCHEDULES_BY_EVENTS_MAX", 1)
    file.add(schedule("s", on={"one": {"with": {"type": "a"}}}), b"")
    with pytest.raises(AtCapacity, match="schedules that start by events, which is as many"):
        file.add(schedule("t", on={"one": {"with": {"type": "a"}}}), b"")
    file.add(schedule("u"), b"")


def test_what_people_change_counts(file: SchedulesFile) -> None:
    """A look that began before a pause, a resumption or a new schedule of the same id notes nothing after it."""

    def renew() -> None:
        file.delete("s")
        file.add(replace(schedule(), added_ms=clock.wall_ms() + 5_000), b"new")

    file.add(schedule(), b"old")
    changes: list[Callable[[], object]] = [lambda: file.pause("s", "why"), lambda: file.resume("s", 5), renew]
    for change in changes:
        row = file.get("s")
        change()
        file.note([Note(row, Progress(last_error="stale"), 1, 1)])
        assert file.get("s").progress.last_error == ""
    row = file.get("s")
    file.note([Note(row, Progress(last_error="fresh"), 1, 1)])
    assert file.get("s").progress.last_error == "fresh"


def test_the_same_request_and_another_one(file: SchedulesFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """And as many schedules as there may be."""
    assert file.add(schedule(), b"one")
    assert not file.add(schedule(), b"one")
    with pytest.raises(ScheduleExists, match="use another id, or delete it first"):
        file.add(schedule(), b"two")
    assert file.get("s").schedule.principal == PRINCIPAL
    monkeypatch.setattr(limits, "SCHEDULES_COUNT_MAX", 1)
    with pytest.raises(AtCapacity, match="as many as there may be"):
        file.add(schedule("t"), b"two")
    file.delete("s")
    assert file.add(schedule("t"), b"two")


def test_defaults_of_policies() -> None:
    options = ScheduleOptions()
    assert (options.misfire_count_max, options.queue_count_max) == (
        limits.SCHEDULE_MISFIRES_DEFAULT,
        limits.SCHEDULE_QUEUE_DEFAULT,
    )
    assert options.overlap is Overlap.ALLOW


def test_a_file_of_a_newer_version(tmp_path: Path, file: SchedulesFile) -> None:
    import apsw

    assert not file.exists()
    file.add(schedule(), b"")
    other = apsw.Connection(str(tmp_path / "schedules.db"))
    other.execute("pragma user_version = 2")
    newer = SchedulesFile(tmp_path)
    with pytest.raises(StorageFailed, match="schema version 2, this version of fastrunner reads up to 1"):
        newer.get("s")
    newer.close()
    other.close()
