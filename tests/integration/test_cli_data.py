"""`fastrunner data` as an operator uses it: on a stopped directory, beside a runner, on damage."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from fastrunner.data.inspection import shard_files
from fastrunner.engine import DefinitionRef, ExecutionQuery
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused, open_data_directory
from fastrunner.engine.embedded.store.statements import SCHEMA_VERSION
from fastrunner.engine.schedules import Schedule, ScheduleOptions, Trigger
from fastrunner.events.schedules.file import SchedulesFile
from fastrunner.registry.file import RegistryFile
from tests.golden import make
from tests.integration.commands import fastrunner
from tests.integration.engines import document, engine_on, submission
from tests.integration.runner_process import ROOT

UNFINISHED = {"calling", "far", "hearing", "waiting", "paused", "large", "posting", "parent", "parent~1", "told"}
COMPLETED = {"finished", "result", "traced", "last"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    open_data_directory(path, 1).close()
    asyncio.run(make.fill(path))
    return path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def _execute(folder: Path, *statements: str) -> None:
    with closing(apsw.Connection(str(folder / "shard-0000.db"))) as db:
        for statement in statements:
            db.execute(statement)


def test_check_finds_nothing_in_a_sound_directory(folder: Path) -> None:
    done = fastrunner("data", "check", "--data-dir", str(folder))
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 shards, " in done.stderr
    assert "nothing damaged" in done.stderr


@pytest.mark.parametrize("command", ["check", "export", "compact"])
def test_an_operator_in_production_needs_no_receiver_for_it(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the runner needs of its settings is not asked for beside it."""
    monkeypatch.setenv("ENV", "prod")
    monkeypatch.setenv("FASTRUNNER_DATA_DIR", str(folder))
    done = fastrunner("data", command)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("statement", "table", "detail"),
    [
        ("update events set messages = x'00' where event_key = 1", "events", "do not match their checksum"),
        ("delete from events where event_key = 1", "executions", "those stored end at"),
        ("update events set first_sequence = 99 where event_key = 1", "events", "go on at 99 where 1 should come"),
        ("update executions set output_json = '1' where execution_key = 1", "executions", "its state does not match"),
        ("update executions set acknowledged_sequence = 99 where execution_key = 1", "executions", "99 of its events"),
        ("delete from executions where execution_key = 3", "requests", "execution number 3, which does not exist"),
        ("update requests set env_json = x'00' where execution_key = 3", "requests", "does not match its checksum"),
        ("delete from snapshots where execution_key = 3", "executions", "its snapshot is missing"),
        ("update snapshots set snapshot = x'0000' where execution_key = 3", "snapshots", "does not match its checksum"),
        ("update plans set document = 'x' where plan_key = 1", "plans", "does not match its hash"),
        ("update plans set uses = 99 where plan_key = 1", "plans", "counts 99 executions"),
        ("delete from plans where plan_key = 1", "executions", "its document is missing"),
        ("update large_values set value = x'00' where rowid = 1", "large_values", "does not match its hash"),
        ("update large_values set value = x'00' where rowid = 2", "snapshots", "a piece of its snapshot is not what"),
        ("delete from large_values where rowid = 1", "claims", "a large value it needs is missing"),
        ("delete from large_values where rowid = 2", "snapshots", "a piece of its snapshot is missing"),
        ("delete from claims where execution_key = 6", "requests", "but does not claim it"),
        ("delete from claims where execution_key = 6", "snapshots", "but does not claim it"),
        ("delete from claims where execution_key = 7", "executions", "but does not claim it"),
        ("delete from claims where execution_key = 7", "large_values", "nobody needs"),
        ("insert into orders values (99, 1, 'pause')", "orders", "execution number 99, which does not exist"),
        ("insert into claims values (99, x'00')", "claims", "execution number 99, which does not exist"),
    ],
)
def test_check_names_what_is_damaged(folder: Path, statement: str, table: str, detail: str) -> None:
    _execute(folder, statement)
    done = fastrunner("data", "check", "--data-dir", str(folder), "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [each for each in findings if each["table"] == table and detail in each["detail"]], findings
    assert {each["file"] for each in findings} == {"shard-0000.db"}


@pytest.mark.parametrize(
    ("statement", "table", "detail"),
    [
        ("update definitions set document = 'x'", "definitions", "tests/child:1.0.0 does not match its hash"),
        ("update definitions set resources_json = '{}'", "definitions", "tests/child:1.0.0 does not match its hash"),
        ("update definitions set rank = x'00'", "definitions", "tests/child:1.0.0 is not where its version belongs"),
        ("update definitions set version = 'x'", "definitions", "tests/child:x is not where its version belongs"),
        ("drop table definitions", "file", "cannot be read to its end"),
    ],
)
def test_check_names_what_is_damaged_in_the_registry(folder: Path, statement: str, table: str, detail: str) -> None:
    file = RegistryFile(folder)
    file.register(DefinitionRef("tests", "child", "1.0.0"), document("  - one:\n      set: {a: 1}\n", "child"), 1)
    assert fastrunner("data", "check", "--data-dir", str(folder)).returncode == 0
    file.close()
    done = fastrunner("data", "check", "--data-dir", str(folder))
    assert (done.returncode, "nothing damaged" in done.stderr) == (0, True)
    with closing(apsw.Connection(str(folder / "registry.db"))) as db:
        db.execute(statement)
    done = fastrunner("data", "check", "--data-dir", str(folder), "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert {(each["file"], each["table"]) for each in findings} == {("registry.db", table)}
    assert all(detail in each["detail"] for each in findings)


@pytest.mark.parametrize(
    ("statement", "table", "detail"),
    [
        ("update schedules set progress = '{'", "schedules", "'nightly' is damaged"),
        ("update schedules set options = '{}'", "schedules", "'nightly' is damaged"),
        ("update schedules set principal = '{}'", "schedules", "'nightly' is damaged"),
        ("drop table schedules", "schedules", "the rest cannot be read"),
    ],
)
def test_check_names_what_is_damaged_of_schedules(folder: Path, statement: str, table: str, detail: str) -> None:
    with closing(SchedulesFile(folder)) as file:
        trigger = Trigger(cron="0 2 * * *")
        file.add(Schedule("nightly", "tests", "child", "1.0.0", trigger, ScheduleOptions(), b"", 1, None), b"digest")
    assert fastrunner("data", "check", "--data-dir", str(folder)).returncode == 0
    with closing(apsw.Connection(str(folder / "schedules.db"))) as db:
        db.execute(statement)
    done = fastrunner("data", "check", "--data-dir", str(folder), "--json")
    [finding] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, finding["file"], finding["table"]) == (1, "schedules.db", table)
    assert detail in finding["detail"]


def test_a_registry_that_is_no_database(folder: Path) -> None:
    (folder / "registry.db").write_bytes(b"no database" * 1000)
    done = fastrunner("data", "check", "--data-dir", str(folder))
    assert (done.returncode, "registry.db file: cannot be read to its end" in done.stdout) == (1, True)


def test_a_file_that_is_damaged_or_empty_is_named(folder: Path, tmp_path: Path) -> None:
    """No backup passes over it, and nobody has to guess which one SQLite means."""
    where, backup = ("--data-dir", str(folder)), str(tmp_path / "backup")
    (folder / "shard-0000.db").write_bytes(b"no database" * 1000)
    for command in (("export", *where), ("compact", *where), ("backup", *where, backup)):
        done = fastrunner("data", *command)
        assert (done.returncode, f"{folder / 'shard-0000.db'} is damaged" in done.stderr) == (2, True), done
    (folder / "shard-0000.db").write_bytes(b"")
    done = fastrunner("data", "backup", *where, backup)
    assert (done.returncode, f"{folder / 'shard-0000.db'} is empty" in done.stderr) == (2, True)
    assert not (tmp_path / "backup").exists()


def test_check_names_what_lives_in_two_shards(folder: Path) -> None:
    open_data_directory(folder, 2).close()
    shutil.copy(folder / "shard-0000.db", folder / "shard-0001.db")
    with closing(apsw.Connection(str(folder / "shard-0001.db"))) as db:
        db.execute("update executions set execution_id = execution_id || '-too' where execution_id != 'finished'")
    done = fastrunner("data", "check", "--data-dir", str(folder))
    assert done.returncode == 1
    assert done.stdout == "shard-0001.db executions: execution finished: it lives in shard-0000.db, too\n"


def test_check_survives_damaged_pages_and_missing_files(folder: Path) -> None:
    path = folder / "shard-0000.db"
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 8192, 2):
        data[page * 8192 : page * 8192 + 100] = b"\xff" * 100
    path.write_bytes(data)
    done = fastrunner("data", "check", "--data-dir", str(folder))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    path.write_bytes(b"no database" * 1000)
    done = fastrunner("data", "check", "--data-dir", str(folder))
    assert (done.returncode, "file is not a database" in done.stdout) == (1, True)
    path.unlink()
    done = fastrunner("data", "check", "--data-dir", str(folder))
    assert (done.returncode, "is missing" in done.stdout) == (1, True)


def test_directories_that_are_none_and_other_versions_are_refused(folder: Path, tmp_path: Path) -> None:
    done = fastrunner("data", "check", "--data-dir", str(tmp_path / "nothing"))
    assert (done.returncode, "is no data directory" in done.stderr) == (2, True)
    for version, remedy in (
        (SCHEMA_VERSION + 1, "or a newer one"),
        (SCHEMA_VERSION - 1, "start the runner on it once"),
    ):
        _execute(folder, f"pragma user_version = {version}")
        for command in ("check", "export", "compact"):
            done = fastrunner("data", command, "--data-dir", str(folder))
            assert (done.returncode, remedy in done.stderr) == (2, True), done


def test_compact_gives_space_back_and_refuses_a_directory_in_use(folder: Path) -> None:
    with closing(apsw.Connection(str(folder / "shard-0000.db"))) as db:
        db.execute("create table waste (data)")
        db.executemany("insert into waste values (?)", [(b"x" * 8000,)] * 500)
        db.execute("drop table waste")
    done = fastrunner("data", "compact", "--data-dir", str(folder), "--json")
    (line, _) = done.stdout.splitlines()
    sizes = json.loads(line)
    assert (done.returncode, sizes["before_bytes"] > 4_000_000, sizes["after_bytes"] < 600_000) == (0, True, True)
    assert fastrunner("data", "check", "--data-dir", str(folder)).returncode == 0
    held = open_data_directory(folder, 1)
    try:
        done = fastrunner("data", "compact", "--data-dir", str(folder))
        assert (done.returncode, "in use by another runner, process" in done.stderr) == (2, True)
        assert fastrunner("data", "check", "--data-dir", str(folder)).returncode == 0
    finally:
        held.close()


def test_export_writes_executions_as_json_lines(folder: Path, tmp_path: Path) -> None:
    done = fastrunner("data", "export", "--data-dir", str(folder), "--events")
    lines = {line["execution_id"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert (done.returncode, set(lines)) == (0, {*UNFINISHED, *COMPLETED, "failed"})
    finished = lines["finished"]
    assert finished["output"] == {"b": 2}
    assert finished["workflow"] == {"namespace": "tests", "name": "test", "version": "1.0.0"}
    assert finished["accepted_ms"] == make.NOW_MS
    assert len(lines["result"]["output"]["rows"]) == 300
    assert [event["eventType"] for event in finished["events"]][-1] == "workflow_completed"
    assert "error" in lines["failed"]
    assert lines["calling"]["finished_ms"] == 0
    for arguments, expected in (
        (("--status", "completed"), COMPLETED),
        (("--status", "paused", "--status", "failed"), {"paused", "told", "failed"}),
        (("--name", "other"), set()),
        (("--namespace", "tests", "--accepted-from", "2027-01-15"), set(lines)),
        (("--accepted-until", "2027-01-15T08:00:00"), set()),
    ):
        done = fastrunner("data", "export", "--data-dir", str(folder), *arguments)
        assert {json.loads(line)["execution_id"] for line in done.stdout.splitlines()} == expected, arguments
    target = tmp_path / "export.jsonl"
    fastrunner("data", "export", "--data-dir", str(folder), "--output", str(target))
    assert len(target.read_text().splitlines()) == len(lines)


def test_reading_a_backup_leaves_it_as_it_is(folder: Path) -> None:
    """No journal beside it, and no need for one."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert fastrunner("data", "check", "--data-dir", str(folder)).returncode == 0
    assert fastrunner("data", "export", "--data-dir", str(folder)).returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_export_that_a_start_overtakes_is_refused(folder: Path) -> None:
    """It began where nobody wrote, and may have read half of a commit."""
    [shard] = shard_files(folder, 1)
    lines = shard.export(ExecutionQuery(), False)
    next(lines)
    with closing(apsw.Connection(str(folder / "shard-0000.db"))) as db:
        db.execute("update executions set metadata = x''")
        with pytest.raises(DataDirectoryRefused, match="a runner has been started"):
            list(lines)


def test_export_ends_quietly_with_its_reader(folder: Path) -> None:
    """As in `fastrunner data export | head`."""
    ours, its = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "fastrunner", "data", "export", "--data-dir", str(folder)]
    with os.fdopen(its, "wb") as pipe:
        done = subprocess.run(command, cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


async def test_check_and_export_work_beside_a_running_owner(folder: Path) -> None:
    async with engine_on(folder) as engine:
        await engine.submit(submission("new"))
        done = await asyncio.to_thread(fastrunner, "data", "check", "--data-dir", str(folder))
        assert (done.returncode, "nothing damaged" in done.stderr) == (0, True)
        done = await asyncio.to_thread(fastrunner, "data", "export", "--data-dir", str(folder), "--status", "completed")
        assert "new" in {json.loads(line)["execution_id"] for line in done.stdout.splitlines()}
        assert await engine.submit(submission("newer")) == "running"


def test_export_marks_what_is_damaged(folder: Path) -> None:
    _execute(folder, "update executions set output_json = '1' where execution_key = 1")
    done = fastrunner("data", "export", "--data-dir", str(folder), "--status", "completed")
    first, *_, last = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, first["damaged"], "output" in first, "damaged" in last) == (1, True, False, False)


def test_an_export_to_a_file_that_cannot_be_is_no_damage(folder: Path, tmp_path: Path) -> None:
    done = fastrunner("data", "export", "--data-dir", str(folder), "--output", str(tmp_path / "no" / "such"))
    assert (done.returncode, done.stdout, "Could not open file" in done.stderr) == (2, "", True)
