"""Stage 3, journal: a data directory that is sealed: what lies in its files, who may open it, and how keys change.

Values of every kind are canaries; documents, ids and names are not sealed.
"""

import asyncio
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner.access.sealing import DataKeys, add_key
from fastrunner.base import limits
from fastrunner.data import resealing
from fastrunner.data.inspection import shard_files
from fastrunner.engine import ExecutionQuery
from fastrunner.engine.embedded.store import proofs
from fastrunner.engine.embedded.store.manifest import (
    DataDirectoryRefused,
    open_data_directory,
    read_sealing_keys,
)
from fastrunner.engine.schedules import Schedule, ScheduleOptions, Trigger
from fastrunner.errors import IdTaken
from fastrunner.events.schedules.file import SchedulesFile
from tests.integration.commands import fastrunner
from tests.integration.engines import all_events, document, engine_on, submission, until_status
from tests.integration.runner_process import SERVE, RunnerProcess, running

CANARY = "canary-7d1f"
ECHO = document("  - keep:\n      set: {kept: '${ .in }', env: '${ $runtime.metadata.env.K }'}\n", "echo")
FAIL = document("  - no:\n      set: {x: '${ error(.in | tostring) }'}\n", "fail")
REST = document(
    "  - keep:\n      set: '${ . }'\n      export: {as: '${ . }'}\n  - rest:\n      wait: {hours: 1}\n", "rest"
)


def given(size: int = 1) -> bytes:
    return json.dumps({"in": CANARY * size}).encode()


ASKED = {
    "small": submission("small", ECHO, input_json=given(), env_vars={"K": f"{CANARY}-env"}),
    "large": submission("large", ECHO, input_json=given(5_000), env_vars={"K": f"{CANARY}-env"}),
    "failing": submission("failing", FAIL, input_json=given(), env_vars={"K": f"{CANARY}-env"}),
    "resting": submission("resting", REST, input_json=given(), env_vars={"K": f"{CANARY}-env"}),
    "resting-large": submission("resting-large", REST, input_json=given(5_000)),
}


async def fill(folder: Path, keys: DataKeys | None) -> None:
    async with engine_on(folder, listener=lambda row: None, data_keys=keys) as engine:
        for each in ASKED.values():
            await engine.submit(each)
        for name in ("small", "large", "failing"):
            await until_status(engine, name, "completed", "failed")
        for name in ("resting", "resting-large"):
            await until_status(engine, name, "waiting", "running")
        if keys is not None:
            # The journal, too.
            assert found(folder) == []


async def look(folder: Path, keys: DataKeys | None) -> dict[str, Any]:
    """All that can be asked of the executions; they are what they were, and go on."""
    seen: dict[str, Any] = {}
    async with engine_on(folder, listener=lambda row: None, data_keys=keys) as engine:
        for name in ASKED:
            view = await engine.get(name)
            events = [event.SerializeToString() for event in await all_events(engine, name)]
            seen[name] = (view.status, view.output_json, view.error, events)
        page = await engine.list(ExecutionQuery())
        seen["errors"] = {each.execution_id: each.error for each in page.items}
        await engine.submit(ASKED["small"])
        with pytest.raises(IdTaken):
            await engine.submit(submission("small", ECHO, input_json=b"{}"))
        await engine.cancel("resting", "enough", False)
    return seen


def found(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def keys_of(path: Path, *names: str) -> DataKeys:
    for name in names:
        add_key(path, name)
    return DataKeys.read(path)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    open_data_directory(tmp_path / "data", 1).close()
    return tmp_path / "data"


@pytest.fixture
def sealed(folder: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory sealed with the key `one`; commands have the file."""
    keys = keys_of(key_file, "one")
    open_data_directory(folder, 1, keys.fingerprints()).close()
    asyncio.run(fill(folder, keys))
    monkeypatch.setenv("FASTRUNNER_DATA_KEY_FILE", str(key_file))
    return folder


def run(*arguments: str, folder: Path) -> Any:
    return fastrunner("data", *arguments, "--data-dir", str(folder))


def test_nothing_of_a_sealed_directory_can_be_read_and_all_of_it_is_served(sealed: Path, key_file: Path) -> None:
    assert found(sealed) == []
    seen = asyncio.run(look(sealed, DataKeys.read(key_file)))
    assert json.loads(seen["small"][1]) == {"kept": CANARY, "env": f"{CANARY}-env"}
    assert json.loads(seen["large"][1])["kept"] == CANARY * 5_000
    assert CANARY in seen["failing"][2]["detail"]
    assert seen["errors"]["failing"] == seen["failing"][2]
    assert all(each[3] for name, each in seen.items() if name != "errors")
    assert found(sealed) == []
    assert run("check", folder=sealed).returncode == 0


def test_an_open_directory_is_sealed_when_it_is_resealed(
    folder: Path, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key old rows are read; resealing seals them, changes nothing, and can be resumed."""
    asyncio.run(fill(folder, None))
    assert found(folder) == ["shard-0000.db"]
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    before = asyncio.run(look(copy, None))
    keys = keys_of(key_file, "one")
    copy = Path(shutil.copytree(folder, tmp_path / "other-copy"))
    assert asyncio.run(look(copy, keys)) == before
    open_data_directory(folder, 1, keys.fingerprints()).close()
    monkeypatch.setattr(limits, "RESEAL_ROWS_PER_COMMIT", 2)

    class Broken(Exception):
        pass

    def break_off(count: int) -> None:
        left.pop()
        if not left:
            raise Broken

    for steps in range(1, 5):
        left = [0] * steps
        with pytest.raises(Broken):
            list(resealing.reseal(shard_files(folder, 1, keys)[0], break_off))
    monkeypatch.setenv("FASTRUNNER_DATA_KEY_FILE", str(key_file))
    done = run("rekey", folder=folder)
    assert (done.returncode, "1 shards sealed with the key one, no rows left out" in done.stderr) == (0, True)
    assert found(folder) == []
    assert run("check", folder=folder).returncode == 0
    assert asyncio.run(look(folder, keys)) == before


def test_a_new_key_takes_over_and_the_old_one_is_needed_until_all_is_resealed(sealed: Path, key_file: Path) -> None:
    first = DataKeys.read(key_file)
    both = keys_of(key_file, "two")
    open_data_directory(sealed, 1, both.fingerprints()).close()
    before = asyncio.run(look(sealed, both))
    only_two = DataKeys({"two": both.by_id["two"]})
    for keys, missing in ((only_two, "one"), (first, "two")):
        with pytest.raises(DataDirectoryRefused, match=f"sealed with the key {missing}, and FASTRUNNER_DATA_KEY_FILE"):
            open_data_directory(sealed, 1, keys.fingerprints())
    assert run("check", folder=sealed).returncode == 0
    assert run("rekey", folder=sealed).returncode == 0
    assert list(read_sealing_keys(sealed)) == ["two"]
    open_data_directory(sealed, 1, only_two.fingerprints()).close()
    after = asyncio.run(look(sealed, only_two))
    assert {**after, "resting": 0} == {**before, "resting": 0}
    assert (after["resting"][0], before["resting"][0]) == ("cancelled", "running")
    assert (run("check", folder=sealed).returncode, found(sealed)) == (0, [])


def test_schedules_are_resealed_with_the_rest(sealed: Path, key_file: Path) -> None:
    """The new key alone opens what they execute; one that does not open is told, and the old key is kept."""

    def schedules(keys: DataKeys) -> SchedulesFile:
        return SchedulesFile(sealed, keys)

    def add(schedule_id: str, keys: DataKeys) -> None:
        trigger = Trigger(every_ms=1000)
        request = CANARY.encode()
        with closing(schedules(keys)) as file:
            file.add(Schedule(schedule_id, "n", "w", "1.0.0", trigger, ScheduleOptions(), request, 1), b"")

    with closing(SchedulesFile(sealed)) as file:
        file.add(
            Schedule("open", "n", "w", "1.0.0", Trigger(every_ms=1000), ScheduleOptions(), CANARY.encode(), 1), b""
        )
    assert found(sealed)
    add("one", DataKeys.read(key_file))
    both = keys_of(key_file, "two")
    add("two", both)
    assert run("rekey", folder=sealed).returncode == 0
    only_two = DataKeys({"two": both.by_id["two"]})
    with closing(schedules(only_two)) as file:
        assert [file.get(each).schedule.request for each in ("one", "two", "open")] == [CANARY.encode()] * 3
    assert found(sealed) == []
    with closing(apsw.Connection(str(sealed / "schedules.db"))) as db:
        db.execute("update schedules set request = (select request from schedules where schedule_id = 'two')")
    done = run("rekey", folder=sealed)
    assert (done.returncode, "schedules.db schedules: what is stored of schedule 'one'" in done.stdout) == (1, True)


def test_without_its_key_a_directory_is_checked_by_its_checksums_alone(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = run("export", "--events", folder=sealed)
    assert (exported.returncode, exported.stdout.count("\n")) == (0, len(ASKED))
    assert CANARY in exported.stdout
    monkeypatch.delenv("FASTRUNNER_DATA_KEY_FILE")
    checked = run("check", folder=sealed)
    assert (checked.returncode, "only the checksums were checked" in checked.stderr) == (0, True)
    for command in ("export", "rekey"):
        refused = run(command, folder=sealed)
        assert (refused.returncode, "FASTRUNNER_DATA_KEY_FILE" in refused.stderr) == (2, True), refused
    assert run("compact", folder=sealed).returncode == 0


@pytest.mark.parametrize("has_key", [True, False])
@pytest.mark.parametrize(
    ("table", "column", "key"),
    [
        ("executions", "request_digest", "execution_key"),
        ("requests", "input_json", "execution_key"),
        ("snapshots", "snapshot", "execution_key"),
        ("events", "messages", "event_key"),
        ("large_values", "value", "rowid"),
    ],
)
def test_a_flipped_bit_is_found(
    sealed: Path, monkeypatch: pytest.MonkeyPatch, has_key: bool, table: str, column: str, key: str
) -> None:
    with closing(apsw.Connection(str(sealed / "shard-0000.db"))) as db:
        number, value = next(db.execute(f"select {key}, {column} from {table} where length({column}) > 50 limit 1"))
        flipped = bytearray(value)
        flipped[-10] ^= 4
        db.execute(f"update {table} set {column} = ? where {key} = ?", (bytes(flipped), number))
    if not has_key:
        monkeypatch.delenv("FASTRUNNER_DATA_KEY_FILE")
    checked = run("check", folder=sealed)
    assert checked.returncode == 1
    assert f" {table}:" in checked.stdout


def test_values_do_not_open_in_another_place(sealed: Path, key_file: Path) -> None:
    """Somebody who may write the file swaps two executions' rows, with checksums that fit."""
    with closing(apsw.Connection(str(sealed / "shard-0000.db"))) as db:
        rows = {
            each: next(
                db.execute(
                    "select e.event_key, e.execution_key, first_sequence, e.last_sequence, messages from events as e"
                    " join executions using (execution_key) where execution_id = ?",
                    (each,),
                )
            )
            for each in ("small", "failing")
        }
        for one, other in (("small", "failing"), ("failing", "small")):
            event_key, key, first, last, _ = rows[one]
            messages = rows[other][4]
            checksum = proofs.events_checksum(key, first, last, messages)
            db.execute(
                "update events set messages = ?, checksum = ? where event_key = ?", (messages, checksum, event_key)
            )
    checked = run("check", folder=sealed)
    assert checked.stdout.count("does not open with the key 'one': it is not what was written there") == 2

    async def events() -> dict[str, set[str]]:
        async with engine_on(sealed, listener=lambda row: None, data_keys=DataKeys.read(key_file)) as engine:
            return {each: {event.event_type for event in await all_events(engine, each)} for each in ASKED}

    seen = asyncio.run(events())
    assert [each for each, types in seen.items() if "event_damaged" in types] == ["small", "failing"]


def test_a_row_that_is_damaged_is_left_out_of_resealing(sealed: Path, key_file: Path) -> None:
    """It does not get a checksum that fits; the key it may have been sealed with stays needed."""
    add_key(key_file, "two")
    with closing(apsw.Connection(str(sealed / "shard-0000.db"))) as db:
        db.execute("update events set messages = x'0a00' where event_key = 1")
    done = run("rekey", folder=sealed)
    assert (done.returncode, "1 rows left out" in done.stderr) == (1, True)
    assert "events: the row with number 1 is not what was written" in done.stdout
    assert set(read_sealing_keys(sealed)) == {"one", "two"}
    assert run("check", folder=sealed).stdout.count("do not match their checksum") == 1


def refusal(folder: Path, **environment: str) -> tuple[int, str]:
    runner = RunnerProcess(folder, *SERVE, **environment)
    _, err = runner.process.communicate(timeout=60)
    return runner.process.returncode, err


def test_a_runner_without_the_right_key_does_not_start(sealed: Path, key_file: Path, tmp_path: Path) -> None:
    code, said = refusal(sealed)
    assert (code, "is sealed with the key one, and FASTRUNNER_DATA_KEY_FILE is not set" in said) == (5, True), said
    other = tmp_path / "other"
    keys_of(other, "two")
    code, said = refusal(sealed, FASTRUNNER_DATA_KEY_FILE=str(other))
    assert (code, "the key one, and FASTRUNNER_DATA_KEY_FILE does not name a file that" in said) == (5, True), said
    other.unlink()
    keys_of(other, "one")
    code, said = refusal(sealed, FASTRUNNER_DATA_KEY_FILE=str(other))
    assert (code, "sealed with another key one" in said) == (5, True), said
    other.chmod(0o644)
    code, said = refusal(sealed, FASTRUNNER_DATA_KEY_FILE=str(other))
    assert (code, f"FASTRUNNER_DATA_KEY_FILE={other}: others than its owner may use it" in said) == (2, True), said
    with running(sealed, SERVE, FASTRUNNER_DATA_KEY_FILE=str(key_file)) as runner:
        runner.wait_ready()
        assert runner.stop()[0] == 0


def test_a_key_is_made_for_whoever_asks(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = fastrunner("data", "key", str(path), "--id", "spring")
    assert (made.returncode, made.stdout) == (0, "")
    assert "spring" in made.stderr
    dated = fastrunner("data", "key", str(path))
    assert dated.returncode == 0
    keys = DataKeys.read(path)
    assert list(keys.by_id)[1] == "spring"
    assert not any(key.hex() in made.stderr + dated.stderr for key in keys.by_id.values())
    again = fastrunner("data", "key", str(path), "--id", "spring")
    assert (again.returncode, "has a key spring already" in again.stderr) == (2, True)
