"""The events' file in `fastrunner data`: damage is found, free space given back, everything sealed with another key."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner.access.sealing import DataKeys, add_key
from fastrunner.base import limits
from fastrunner.engine.embedded.store.manifest import open_data_directory
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from fastrunner.events.file import checksum_of
from fastrunner.events.sinks.file import OutgoingFile
from tests.integration.commands import fastrunner
from tests.integration.engines import engine_on

CANARY = "canary-of-an-event"
EVENTS = [
    {"specversion": "1.0", "id": f"{CANARY}-{number}", "source": f"/{CANARY}", "type": CANARY, "data": CANARY}
    for number in range(5)
]


async def _fill(folder: Path, keys: DataKeys | None, events: Sequence[dict[str, Any]]) -> None:
    async with engine_on(folder, data_keys=keys):
        pass
    bus = EventBus(folder, lambda: None, Seals(keys), 600.0, has_sinks=True)
    await bus.publish(events[:-1], None)
    await bus.emit(events[-1])
    await bus.close()


def fill(folder: Path, keys: DataKeys | None = None, events: Sequence[dict[str, Any]] = EVENTS) -> None:
    """Events, the last of them for sinks as well."""
    open_data_directory(folder, 1, {} if keys is None else keys.fingerprints()).close()
    asyncio.run(_fill(folder, keys, events))


def look(folder: Path, keys: DataKeys | None) -> tuple[list[Any], list[Any]]:
    bus, sinks = EventBus(folder, lambda: None, Seals(keys), 600.0), OutgoingFile(folder, Seals(keys))
    seen = [(each.key, each.event) for each in bus.after(0, 100)], [each.event for each in sinks.after(0, 100)]
    asyncio.run(bus.close())
    sinks.close()
    return seen


def found(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("events.db*") if CANARY.encode() in path.read_bytes())


def run(*arguments: str, folder: Path) -> Any:
    return fastrunner("data", *arguments, "--data-dir", str(folder))


def changed(folder: Path, statement: str) -> None:
    with closing(apsw.Connection(str(folder / "events.db"))) as db:
        db.execute(statement)
        assert db.changes() == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_key(tmp_path / "keys", "one")
    monkeypatch.setenv("FASTRUNNER_DATA_KEY_FILE", str(tmp_path / "keys"))
    return tmp_path / "keys"


def test_sound_events(folder: Path) -> None:
    fill(folder)
    done = run("check", folder=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "1 shards, 6 rows: nothing damaged\n")


@pytest.mark.parametrize(
    "statement",
    [
        "update events set event = x'7b7d' where rowid = (select min(rowid) from events)",
        "update events set namespaces = '[]' where rowid = (select min(rowid) from events)",
        "update outgoing set emitted_ms = 5",
    ],
)
def test_damaged_events_are_found(folder: Path, statement: str) -> None:
    fill(folder)
    changed(folder, statement)
    done = run("check", "--json", folder=folder)
    assert done.returncode == 1
    [line] = [json.loads(line) for line in done.stdout.splitlines()]
    table = "sink_events" if "outgoing" in statement else "cloud_events"
    assert (line["file"], line["table"], line["execution_id"]) == ("events.db", table, "")
    assert line["detail"].startswith("event number ")
    assert line["detail"].endswith("does not match its checksum")


def test_pages_that_cannot_be_read(folder: Path) -> None:
    fill(folder)
    file = folder / "events.db"
    file.write_bytes(b"\xff" * file.stat().st_size)
    done = run("check", folder=folder)
    assert done.returncode == 1
    assert "events.db file:" in done.stdout


def test_sealed_events_are_checked_with_their_key_and_without(
    folder: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, DataKeys.read(key_file))
    assert found(folder) == []
    assert run("check", folder=folder).returncode == 0
    # Whole, and of another event.
    with closing(apsw.Connection(str(folder / "events.db"))) as db:
        rows: list[Any] = db.execute("select event_key, received_ms, digest, type_hash, event from events").fetchall()
    (key, received_ms, digest, type_hash, _), other = rows[0], rows[1][4]
    checksum = checksum_of(received_ms, None, digest, type_hash, other)
    changed(folder, f"update events set event = x'{other.hex()}', checksum = {checksum} where event_key = {key}")
    done = run("check", folder=folder)
    assert (done.returncode, "does not open with the key 'one'" in done.stdout) == (1, True)
    monkeypatch.delenv("FASTRUNNER_DATA_KEY_FILE")
    done = run("check", folder=folder)
    assert (done.returncode, "of sealed values only the checksums were checked" in done.stderr) == (0, True)


def test_events_that_are_found_by_another_name(folder: Path) -> None:
    fill(folder)
    with closing(apsw.Connection(str(folder / "events.db"))) as db:
        rows: list[Any] = db.execute("select event_key, received_ms, digest, event from events limit 1").fetchall()
    [(key, received_ms, digest, event)] = rows
    checksum = checksum_of(received_ms, None, digest, 5, event)
    changed(folder, f"update events set type_hash = 5, checksum = {checksum} where event_key = {key}")
    done = run("check", folder=folder)
    assert (done.returncode, "is found by what it is not called" in done.stdout) == (1, True)


def test_open_events_are_sealed_and_sealed_ones_sealed_anew(
    folder: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESEAL_ROWS_PER_COMMIT", 2)
    fill(folder)
    seen = look(folder, None)
    assert (len(seen[0]), len(seen[1])) == (5, 1)
    assert found(folder) != []
    for name in ("one", "two"):
        if name == "two":
            add_key(key_file, "two")
        keys = DataKeys.read(key_file)
        open_data_directory(folder, 1, keys.fingerprints()).close()
        done = run("rekey", folder=folder)
        assert (done.returncode, f"sealed with the key {name}, no rows left out" in done.stderr) == (0, True)
        assert found(folder) == []
        assert look(folder, keys) == seen
        assert look(folder, DataKeys({name: keys.by_id[name]})) == seen
        assert run("check", folder=folder).returncode == 0


def test_a_damaged_event_is_left_out_of_resealing(folder: Path, key_file: Path) -> None:
    fill(folder)
    changed(folder, "update events set received_ms = 5 where rowid = (select min(rowid) from events)")
    open_data_directory(folder, 1, DataKeys.read(key_file).fingerprints()).close()
    done = run("rekey", folder=folder)
    assert (done.returncode, "1 rows left out" in done.stderr) == (1, True)
    assert done.stdout.startswith("events.db cloud_events: event number ")
    assert len(look(folder, DataKeys.read(key_file))[0]) == 4


def test_events_are_compacted(folder: Path) -> None:
    fill(folder, events=[{**EVENTS[0], "id": f"{number}", "data": "x" * 10_000} for number in range(50)])
    with closing(apsw.Connection(str(folder / "events.db"))) as db:
        db.execute("delete from events")
    before = (folder / "events.db").stat().st_size
    done = run("compact", folder=folder)
    assert (done.returncode, done.stdout.splitlines()[-1].split()[0]) == (0, "events.db")
    assert (folder / "events.db").stat().st_size < before / 2
