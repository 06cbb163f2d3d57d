"""The events' file and the bus over it: order, duplicates, what is kept, many processes at once, seals, damage."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner.access.sealing import DataKeys
from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.errors import AtCapacity, InvalidRequest, StorageFailed, StorageFull, TooLarge
from fastrunner.events.bus import EventBus
from fastrunner.processes.shared import Shared
from tests.disk import mounted_disk

RETENTION_S = 600.0


def event(number: int | str, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"{number}", "source": "/orders", "type": "order.placed", **more}


class Bus:
    """A bus with a clock that a test moves, and what it has done."""

    def __init__(self, folder: Path, *, keys: DataKeys | None = None, now_ms: int = 1_800_000_000_000) -> None:
        self.now_ms = now_ms
        self.wakes = 0
        self.metrics = Metrics()
        self.bus = EventBus(
            folder,
            self._wake,
            Seals(keys),
            RETENTION_S,
            metrics=self.metrics,
            wall_ms=lambda: self.now_ms,
        )

    def _wake(self) -> None:
        self.wakes += 1


def run(folder: Path, main: Callable[[Bus], Awaitable[None]], **settings: Any) -> None:
    async def live() -> None:
        bus = Bus(folder, **settings)
        try:
            await main(bus)
        finally:
            await bus.bus.close()

    asyncio.run(live())


def ids(bus: EventBus, after: int = 0, count_max: int = 10_000) -> list[str]:
    found: list[str] = []
    while page := bus.after(after, count_max):
        found += [stored.event["id"] for stored in page]
        after = page[-1].key
    return found


def test_events_come_back_in_their_order(tmp_path: Path) -> None:
    async def main(given: Bus) -> None:
        bus = given.bus
        begin = bus.last_key()
        assert bus.after(0, 10) == []
        first = await bus.publish([event(1, data={"a": [1, 2.5, None]})], frozenset(("shop", "bank")))
        others = await bus.publish([event(2), event(3, subject="x")], None)
        assert begin < first[0] < others[0] < others[1] == bus.last_key()
        assert given.wakes == 2
        stored = bus.after(begin, 10)
        assert [each.key for each in stored] == [*first, *others]
        assert stored[0].event == event(1, data={"a": [1, 2.5, None]})
        assert stored[0].namespaces == frozenset(("bank", "shop"))
        assert stored[1].namespaces is None
        assert {each.received_ms for each in stored} == {given.now_ms}
        assert [each.key for each in bus.after(first[0], 1)] == [others[0]]
        assert await bus.publish([], None) == []

    run(tmp_path, main)


def test_duplicates_have_the_number_of_the_first(tmp_path: Path) -> None:
    async def main(given: Bus) -> None:
        bus = given.bus
        first, second = await bus.publish([event(1, data=1), event(2)], None)
        again = await bus.publish([event(2), event(3), event(1, data=2), event(3), event(1, source="/others")], None)
        assert again[0] == second
        assert again[2] == first
        assert again[1] == again[3]
        assert ids(bus) == ["1", "2", "3", "1"]
        found = bus.find("/orders", "1")
        assert found is not None
        assert (found.key, found.event["data"]) == (first, 1)
        assert bus.find("/orders", "4") is None
        # No source and id together read as others do.
        await bus.publish([event("b", source="/a"), event("", source="/ab") | {"id": "c"}], None)
        assert bus.find("/a", "bc") is None

    run(tmp_path, main)


def test_only_what_is_new_wakes(tmp_path: Path) -> None:
    async def main(given: Bus) -> None:
        await given.bus.publish([event(1)], None)
        await given.bus.publish([event(1)], None)
        assert given.wakes == 1

    run(tmp_path, main)


def test_events_of_a_type(tmp_path: Path) -> None:
    async def main(given: Bus) -> None:
        bus = given.bus
        keys = await bus.publish([event(n, type="even" if n % 2 == 0 else "odd") for n in range(10)], None)
        found = bus.retained("even", keys[0], keys[7], 100)
        assert [each.event["id"] for each in found] == ["2", "4", "6"]
        assert [each.event["id"] for each in bus.retained("odd", 0, keys[9], 2)] == ["1", "3"]
        assert [each.event["id"] for each in bus.retained(None, keys[6], keys[8], 100)] == ["7", "8"]
        assert bus.retained("none", 0, keys[9], 100) == []

    run(tmp_path, main)


def test_one_that_is_refused_takes_the_others_along(tmp_path: Path) -> None:
    async def main(given: Bus) -> None:
        with pytest.raises(InvalidRequest, match=r"events\[1\].id is missing"):
            await given.bus.publish([event(1), event("")], None)
        with pytest.raises(TooLarge):
            await given.bus.publish([event(1), event(2, data="x" * limits.EVENT_SIZE_BYTES_MAX)], None)
        assert ids(given.bus) == []

    run(tmp_path, main)


def test_what_outlives_the_retention_goes(tmp_path: Path) -> None:
    """Not before the runner has run for as long: nobody could have listened for it."""

    async def main(given: Bus) -> None:
        bus = given.bus
        await bus.publish([event(1), event(2)], None)
        given.now_ms += 400_000
        await bus.publish([event(3)], None)
        given.now_ms += 150_000
        assert await bus.prune() == 0
        given.now_ms += 50_001
        assert await bus.prune() == 2
        assert ids(bus) == ["3"]
        last = bus.last_key()
        given.now_ms += 10_000_000
        assert await bus.prune() == 1
        assert ids(bus) == []
        assert bus.last_key() == last
        [key] = await bus.publish([event(1)], None)
        assert key > last

    run(tmp_path, main)


def test_a_runner_that_was_down_gives_its_events_a_whole_retention(tmp_path: Path) -> None:
    async def before(given: Bus) -> None:
        await given.bus.publish([event(1)], None)

    async def after(given: Bus) -> None:
        given.now_ms += int(RETENTION_S * 1000) - 1
        assert await given.bus.prune() == 0
        given.now_ms += 2
        assert await given.bus.prune() == 1

    run(tmp_path, before)
    run(tmp_path, after, now_ms=1_800_003_000_000)


def test_what_another_clock_received_goes_as_well(tmp_path: Path) -> None:
    async def before(given: Bus) -> None:
        given.now_ms += 10**12
        await given.bus.publish([event(1)], None)

    async def after(given: Bus) -> None:
        given.now_ms += int(RETENTION_S * 1000)
        assert await given.bus.prune() == 1

    run(tmp_path, before)
    run(tmp_path, after)


def test_what_somebody_follows_is_kept_for_it(tmp_path: Path) -> None:
    async def main(given: Bus) -> None:
        bus = given.bus
        keys = await bus.publish([event(number) for number in range(4)], None)
        bus.reached("shard 0", keys[0])
        bus.reached("shard 1", keys[2])
        given.now_ms += 10_000_000
        assert await bus.prune() == 1
        bus.reached("shard 0", keys[3])
        assert await bus.prune() == 2
        bus.reached("shard 1", None)
        assert await bus.prune() == 1

    run(tmp_path, main)


def test_events_are_pruned_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_PRUNED_PER_COMMIT_MAX", 3)

    async def main(given: Bus) -> None:
        await given.bus.publish([event(number) for number in range(8)], None)
        given.now_ms += 500_000
        await given.bus.publish([event("young")], None)
        given.now_ms += 150_000
        deleted = [given.bus._writing.prune(given.now_ms - 600_000, given.now_ms) for _ in range(4)]
        assert deleted == [3, 3, 2, 0]
        assert ids(given.bus) == ["young"]

    run(tmp_path, main)


@pytest.mark.parametrize("bound", ["EVENTS_RETAINED_COUNT_MAX", "EVENTS_RETAINED_SIZE_BYTES_MAX"])
def test_the_oldest_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Those that somebody has yet to read do not: then none is taken."""
    monkeypatch.setattr(limits, "EVENTS_PRUNED_PER_COMMIT_MAX", 1)
    monkeypatch.setattr(limits, bound, 10 if "COUNT" in bound else 1_000)

    async def main(given: Bus) -> None:
        bus = given.bus
        more = {"data": "x" * 20}
        keys = [*await bus.publish([event(10 + number, **more) for number in range(8)], None)]
        for number in range(8, 40):
            keys += await bus.publish([event(10 + number, **more)], None)
        kept = ids(bus)
        assert kept == [str(10 + number) for number in range(40 - len(kept), 40)]
        count, size_bytes = bus._reading.size()
        assert 5 <= count <= 10
        assert size_bytes <= 1_000 or "COUNT" in bound
        bus.reached("shard 0", keys[-len(kept)] - 1)
        await bus.prune()

        async def fill() -> None:
            for number in range(10):
                await bus.publish([event(90 + number, **more)], None)

        with pytest.raises(AtCapacity, match="a worker or a schedule has yet to read them") as refused:
            await fill()
        assert refused.value.retry_after_s > 0
        assert ids(bus)[: len(kept)] == kept
        bus.reached("shard 0", bus.last_key())
        await bus.prune()
        await bus.publish([event("more", **more)], None)

    run(tmp_path, main)


def test_pages_end_early_where_events_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_PAGE_SIZE_BYTES_MAX", 300)

    async def main(given: Bus) -> None:
        keys = await given.bus.publish([event(number, data="x" * 100) for number in range(6)], None)
        assert [each.key for each in given.bus.after(0, 100)] == [*keys[:2]]
        assert ids(given.bus) == [*"012345"]

    run(tmp_path, main)


def test_events_that_await_their_commit_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_PENDING_SIZE_BYTES_MAX", 1_000)

    async def main(given: Bus) -> None:
        calls = [given.bus.publish([event(number, data="x" * 200)], None) for number in range(6)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, AtCapacity)]
        assert len(refused) == 3
        assert ids(given.bus) == ["0", "1", "2"]
        await given.bus.publish([event("later")], None)

    run(tmp_path, main)


@pytest.mark.parametrize("bound", ["EVENTS_COMMIT_COUNT_MAX", "EVENTS_COMMIT_SIZE_BYTES_MAX"])
def test_what_comes_meanwhile_shares_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(limits, bound, 8 if "COUNT" in bound else 800)

    async def main(given: Bus) -> None:
        batches = [[event(10 * batch + number, data="x" * 20) for number in range(2)] for batch in range(1, 10)]
        await asyncio.gather(*(given.bus.publish(batch, None) for batch in batches))
        assert ids(given.bus) == [each["id"] for batch in batches for each in batch]
        # Four calls, or three, to a commit.
        assert given.wakes == 3

    run(tmp_path, main)


def test_the_journal_is_folded_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_JOURNAL_PAGES_MAX", 50)

    async def main(given: Bus) -> None:
        for number in range(60):
            await given.bus.publish([event(number, data="x" * 8_000)], None)
        assert (tmp_path / "events.db-wal").stat().st_size < 100 * 4_200

    run(tmp_path, main)


def test_whoever_leaves_does_not_take_others_along(tmp_path: Path) -> None:
    async def main(given: Bus) -> None:
        staying = asyncio.create_task(given.bus.publish([event(1)], None))
        leaving = asyncio.create_task(given.bus.publish([event(2)], None))
        await asyncio.sleep(0)
        leaving.cancel()
        await staying
        assert ids(given.bus) == ["1", "2"]

    run(tmp_path, main)


def test_keeping_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_LOOK_INTERVAL_S", 0.01)

    async def main(given: Bus) -> None:
        given.bus.start()
        await given.bus.publish([event(1)], None)
        given.now_ms += 10_000_000
        async with asyncio.timeout(30):
            while ids(given.bus):  # noqa: ASYNC110 - it is another task that deletes them
                await asyncio.sleep(0.01)

    run(tmp_path, main)


PUBLISHER = """
import asyncio, sys
from pathlib import Path
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus

async def main(folder, name):
    bus = EventBus(Path(folder), lambda: None, Seals(), 600.0)
    async def send(caller):
        for batch in range(20):
            named = [("/p", f"{name}-{caller}-{batch}-{n}") for n in range(5)]
            # Every process publishes these, too.
            named.append(("/all", f"{caller}-{batch}"))
            events = [{"specversion": "1.0", "id": id, "source": source, "type": "t"} for source, id in named]
            keys = await bus.publish(events, None)
            for event, key in zip(events, keys):
                print(key, event["source"], event["id"], flush=True)
    await asyncio.gather(send(0), send(1))
    await bus.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_many_processes_publish_at_once(tmp_path: Path) -> None:
    """One of them is killed. What was answered is there once, under the number that was answered, in one order."""
    command = [sys.executable, "-c", PUBLISHER, str(tmp_path)]
    children = [subprocess.Popen([*command, f"p{number}"], stdout=subprocess.PIPE, bufsize=0) for number in range(4)]
    killed = children[-1]
    assert killed.stdout is not None
    lines = [killed.stdout.readline() for _ in range(50)]
    killed.send_signal(signal.SIGKILL)
    for child in children:
        lines += child.communicate(timeout=60)[0].splitlines(keepends=True)
    assert [child.returncode for child in children] == [0, 0, 0, -signal.SIGKILL]
    # The last line of the killed one may be cut.
    answers = [line.decode().split() for line in lines if line.endswith(b"\n")]

    async def main(given: Bus) -> None:
        stored = {}
        after = 0
        while page := given.bus.after(after, 1_000):
            for each in page:
                assert each.key > after
                after = each.key
                assert (each.event["source"], each.event["id"]) not in stored
                stored[each.event["source"], each.event["id"]] = each.key
        assert len(answers) >= 3 * 240 + 50
        assert all(stored[source, event_id] == int(key) for key, source, event_id in answers)
        assert len([source for source, _ in stored if source == "/all"]) == 40

    run(tmp_path, main)


def test_every_worker_is_woken(tmp_path: Path) -> None:
    """By another process, also a worker that is started later."""
    shared = Shared.create(3, 3, bytes(16))
    pid = os.fork()
    if not pid:
        shared.wakes.wake()
        os._exit(0)
    os.waitpid(pid, 0)
    for worker in range(3):
        assert os.eventfd_read(shared.wakes.fileno(worker)) == 1
        shared.wakes.heard(worker)
    for _ in range(3):
        shared.wakes.wake()
    shared.wakes.heard(1)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(shared.wakes.fileno(1))
    assert os.eventfd_read(shared.wakes.fileno(2)) == 3


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


def test_sealed_events(tmp_path: Path) -> None:
    """Nothing of them is readable on disk, one opens in its place only, and without the key none does."""
    old, new = DataKeys({"old": bytes(32)}), DataKeys({"new": bytes(range(32)), "old": bytes(32)})
    secret = event("secretid", source="/secretsource", type="secrettype", subject="secretsubject", data="secretdata")

    async def publish(given: Bus) -> None:
        await given.bus.publish([secret, event(2)], frozenset(("shop",)))
        assert not any(b"secret" in each for each in contents(tmp_path))

    async def read(given: Bus) -> None:
        assert [each.event for each in given.bus.after(0, 10)] == [secret, event(2)]
        assert given.bus.find("/secretsource", "secretid") is not None
        assert [each.event for each in given.bus.retained("secrettype", 0, 2**62, 10)] == [secret]

    async def read_nothing(given: Bus) -> None:
        assert given.bus.after(0, 10) == []

    run(tmp_path, publish, keys=old)
    run(tmp_path, read, keys=new)
    run(tmp_path, read_nothing)


def test_damaged_events_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main(given: Bus) -> None:
        keys = await given.bus.publish([event(number) for number in range(5)], None)
        other = apsw.Connection(str(tmp_path / "events.db"))
        other.execute("update events set event = '{}' where event_key = ?".replace("'{}'", "x'7b7d'"), (keys[1],))
        other.execute("update events set received_ms = 5 where event_key = ?", (keys[3],))
        other.close()
        assert ids(given.bus) == ["0", "2", "4"]
        assert ids(given.bus) == ["0", "2", "4"]
        assert given.metrics.damaged_records.labels("cloud_events").value == 2
        assert given.bus.find("/orders", "1") is None

    run(tmp_path, main)
    assert len([record for record in caplog.records if "does not match its checksum" in record.message]) == 2


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """What needs it is refused until it can be."""

    async def main(given: Bus) -> None:
        with pytest.raises(StorageFailed):
            await given.bus.publish([event(1)], None)
        with pytest.raises(StorageFailed):
            given.bus.last_key()
        (tmp_path / "later").mkdir()
        given.bus._shortage = None
        await given.bus.publish([event(1)], None)
        assert ids(given.bus) == ["1"]

    run(tmp_path / "later", main)


def test_a_new_file_goes_on_with_numbers_that_were_never_given(tmp_path: Path) -> None:
    keys: list[int] = []

    async def publish(given: Bus) -> None:
        keys.extend(await given.bus.publish([event(1)], None))

    run(tmp_path, publish)
    for path in tmp_path.glob("events.*"):
        path.unlink()
    run(tmp_path, publish, now_ms=1_800_000_000_001)
    assert keys[0] < keys[1]


@pytest.mark.parametrize("left_bytes", [300_000, 0])
def test_a_disk_that_is_full(tmp_path: Path, left_bytes: int) -> None:
    """Events are refused before it is, and when it is; what was answered is there, and others follow."""
    with mounted_disk(tmp_path / "disk", "size=64m") as disk:

        async def main(given: Bus) -> None:
            bus = given.bus
            await bus.publish([event(1)], None)
            disk.leave(left_bytes)
            if not left_bytes:
                # Nobody has looked at how much is left.
                bus._looked_s = 2**62

            async def fill() -> None:
                for number in range(2, 100):
                    await bus.publish([event(number, data="x" * 100_000)], None)
                    bus._looked_s = -(2**62) if left_bytes else 2**62

            with pytest.raises(StorageFull) as refused:
                await fill()
            assert "the disk of the data directory is" in refused.value.message
            disk.leave(60_000_000)
            bus._looked_s = -(2**62)
            found = ids(bus)
            await bus.publish([event("last")], None)
            assert ids(bus) == [*found, "last"]

        run(disk.path, main)
