"""What a caller calls an execution, and what its document says of itself: kept, shown, found by; and executions that
no receiver hears of."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrunner.base import limits
from fastrunner.engine import ExecutionQuery
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import IdTaken, WrongState
from tests.integration import commands
from tests.integration.callbacks import receiving
from tests.integration.engines import SET, WAIT, engine_on, folder, submission, until_status
from tests.integration.runner_process import SERVE, RunnerProcess, running, until
from tests.integration.test_callback_engine import reporting_engine

DESCRIBED = SET.replace("  version: '1.0.0'\n", "  version: '1.0.0'\n  metadata: {owner: Ada, since: 2.50}\n")
METADATA = '{"owner":"Ada","since":2.5}'


async def test_labels_are_part_of_the_request() -> None:
    where = folder()
    async with engine_on(where) as engine:
        await engine.submit(submission("one", labels={"team": "a", "order": "7"}))
        await engine.submit(submission("one", labels={"order": "7", "team": "a"}))
        for changes in ({"labels": {"team": "a"}}, {"labels": {"team": "b", "order": "7"}}, {}, {"silent": True}):
            with pytest.raises(IdTaken):
                await engine.submit(submission("one", **changes))
    async with engine_on(where) as engine:
        await engine.submit(submission("one", labels={"team": "a", "order": "7"}))
        assert (await engine.get("one")).labels == {"team": "a", "order": "7"}
        await engine.delete("one")
        assert not (await engine.list(ExecutionQuery(labels=(("team", "a"),)))).items
        # Under the same id, at the same moment perhaps, with others.
        await engine.submit(submission("one", labels={"team": "b"}))
        assert (await engine.get("one")).labels == {"team": "b"}


async def test_metadata_of_a_document_is_shown() -> None:
    large = SET.replace(
        "  version: '1.0.0'\n",
        f"  version: '1.0.0'\n  metadata: {{text: {'x' * limits.LIST_DOCUMENT_METADATA_SIZE_BYTES_MAX}}}\n",
    )
    where = folder()
    async with engine_on(where) as engine:
        await engine.submit(submission("none", SET))
        await engine.submit(submission("some", DESCRIBED))
        await engine.submit(submission("large", large))
    async with engine_on(where) as engine:
        assert (await engine.get("some")).document_metadata_json == METADATA
        assert len((await engine.get("large")).document_metadata_json) > limits.LIST_DOCUMENT_METADATA_SIZE_BYTES_MAX
        listed = {
            view.execution_id: view.document_metadata_json for view in (await engine.list(ExecutionQuery())).items
        }
        assert listed == {"none": "", "some": METADATA, "large": ""}


async def _is_refused(engine: EmbeddedEngine, execution_id: str) -> bool:
    try:
        await engine.delete(execution_id)
    except WrongState:
        return True
    return False


async def test_no_receiver_hears_of_a_silent_execution() -> None:
    """Not before a restart and not after it; what it tells is read like any other's, and it may go at once."""
    where = folder()
    async with receiving() as (receiver, port):
        async with reporting_engine(where, port) as (engine, _):
            await engine.submit(submission("silent", WAIT, silent=True))
            await engine.submit(submission("heard", WAIT))
        async with reporting_engine(where, port) as (engine, _):
            view = await until_status(engine, "silent", "completed")
            assert view.given_up_events == view.last_sequence == len(await engine.events("silent", 1, 100))
            async with asyncio.timeout(30):
                # Whoever reads the file may know of the end before the engine does.
                while await _is_refused(engine, "silent"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                while receiver.ledger.summary().finished < 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert receiver.ledger.encoded("heard")
        assert receiver.ledger.summary().executions == 1


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", SERVE) as started:
        started.wait_ready()
        until(started.ready)
        yield started


def test_the_command_labels_and_finds(runner: RunnerProcess, tmp_path: Path) -> None:
    def fastrunner(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return commands.fastrunner(*arguments, "--target", runner.target)

    file = tmp_path / "described.yaml"
    file.write_text(DESCRIBED)
    for name, labels in (("a", ["team=x", "order=7=seven"]), ("b", ["team=x"]), ("c", [])):
        flags = [flag for label in labels for flag in ("--label", label)]
        done = fastrunner("submit", str(file), "--id", name, *flags)
        assert done.returncode == 0, done.stderr
    shown = fastrunner("get", "a").stdout.splitlines()
    assert "labels    order=7=seven team=x" in shown
    assert f"metadata  {METADATA}" in shown
    listed = fastrunner("list", "--label", "team=x", "--columns", "id,labels,metadata").stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["id", "labels", "metadata"], ["b", "team=x", METADATA], ["a", "order=7=seven", "team=x", METADATA],
    ]  # fmt: skip
    both = fastrunner("list", "--json", "--label", "team=x", "--label", "order=7=seven").stdout.splitlines()
    assert [json.loads(line)["labels"] for line in both] == [{"order": "7=seven", "team": "x"}]
    again = fastrunner("submit", str(file), "--id", "b", "--label", "team=y")
    assert again.returncode == 4
    assert "ALREADY_EXISTS" in again.stderr
    wrong = fastrunner("list", "--label", "team")
    assert wrong.returncode == 2
    assert "'team' is not NAME=VALUE" in wrong.stderr
    beyond = fastrunner("submit", str(file), "--label", f"{'n' * 64}=x")
    assert beyond.returncode == 4
    assert "has 64 bytes: at most 63 are allowed" in beyond.stderr
