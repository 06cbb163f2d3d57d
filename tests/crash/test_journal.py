"""The look into the files that crash tests compare with: it sees what is there, and what changes that must not."""

from contextlib import closing
from pathlib import Path

import apsw

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowProgressEvent
from fastrunner.access.sealing import DataKeys, Sealer, add_key
from fastrunner.engine.embedded.store.event_rows import unpacked
from fastrunner.engine.embedded.store.seals import events_place
from fastrunner.progress.wire import split
from tests.crash.tree import Journal
from tests.golden import make

_KEY = "finished/0/1"


def _execute(file: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    with closing(apsw.Connection(str(file))) as db:
        return list(db.execute(statement, values))


def _completed(output_json: str) -> bytes:
    """One completed task, as a row of the file has it."""
    event = WorkflowProgressEvent(event_type="task_completed", output_json=output_json)
    return ReportProgressBatchRequest(events=[event]).SerializeToString()


async def test_journal_sees_events_and_notes_what_changes(tmp_path: Path) -> None:
    await make.fill(tmp_path)
    file = tmp_path / "shard-0000.db"
    stored: dict[str, list[bytes]] = {}
    rows = (
        "select execution_id, messages, events.format from events join executions using (execution_key)"
        " order by event_key"
    )
    for execution_id, messages, row_format in _execute(file, rows):
        assert isinstance(messages, bytes)
        assert isinstance(row_format, int)
        stored.setdefault(str(execution_id), []).extend(split(unpacked(messages, row_format)))
    journal = Journal(tmp_path)
    journal.read(whole=False)
    assert journal.shards == {execution_id: {0} for execution_id in stored}
    assert len(stored) > 3
    assert journal.differences(lambda each: stored[each]) == {}
    assert set(journal.differences(lambda each: stored[each][1:])) == set(stored)
    assert journal.problems() == []
    journal.read(whole=True)
    assert journal.changed == []
    _execute(
        file,
        "update events set (messages, format) = (select messages, format from events where event_key = 2)"
        " where event_key = 1",
    )
    journal.read(whole=False)
    assert journal.changed == [], "only what has come since"
    journal.read(whole=True)
    assert len(journal.changed) == 1


async def test_journal_knows_when_effects_were_done(tmp_path: Path) -> None:
    await make.fill(tmp_path)
    journal = Journal(tmp_path)
    journal.read(whole=True)
    assert journal.completed_s == {}, "no output here names an effect"
    event = _completed(f'{{"key":"{_KEY}"}}')
    _execute(tmp_path / "shard-0000.db", "update events set messages = ?, format = 1 where event_key = 1", event)
    again = Journal(tmp_path)
    again.read(whole=True)
    assert set(again.completed_s) == {_KEY}


async def test_execution_in_two_shards_is_a_problem(tmp_path: Path) -> None:
    await make.fill(tmp_path)
    (tmp_path / "shard-0001.db").write_bytes((tmp_path / "shard-0000.db").read_bytes())
    journal = Journal(tmp_path)
    journal.read(whole=True)
    assert "finished lives in shards {0, 1}" in journal.problems()


async def test_journal_opens_what_is_sealed_and_notes_what_is_not(tmp_path: Path) -> None:
    await make.fill(tmp_path)
    file, execution_id = tmp_path / "shard-0000.db", "finished"
    add_key(tmp_path / "keys", "one")
    keys = DataKeys.read(tmp_path / "keys")
    row = "from events join executions using (execution_key) where execution_id = ? and first_sequence = 1"
    [(event_key, last)] = _execute(file, f"select event_key, events.last_sequence {row}", execution_id)
    sealed = Sealer(keys).seal(_completed(f'{{"key":"{_KEY}"}}'), events_place(execution_id, 1, int(str(last))))
    _execute(file, "update events set messages = ?, format = 1 where event_key = ?", sealed, event_key)
    journal = Journal(tmp_path, keys)
    journal.read(whole=True)
    assert set(journal.completed_s) == {_KEY}
    assert f"{execution_id}: events from 1 on are not sealed" not in journal.changed
    assert any("are not sealed" in sentence for sentence in journal.changed)
