"""Histories that earlier versions have recorded: this one takes the same way through all of them.

They need no server: the SDK's Replayer gives each history to the workflow and compares what it asks for.
"""

import gzip
from importlib.util import find_spec
from typing import Any

import orjson
import pytest

from tests.golden.make import FOLDER
from tests.golden.make_histories import HEARD, KINDS, heard, path_of
from tests.integration.temporal_replays import workflow_types
from tests.integration.test_temporal import SCENARIOS
from tests.outside import require

require(find_spec("temporalio"), "temporalio", module=True)

REMEDY = (
    "this version walks otherwise than one whose histories may still be going on: give such executions the old way by "
    "`WalkStart.semantics`, make another one of SEMANTICS, and record histories of it (python -m "
    "tests.golden.make_histories); of a SEMANTICS that no release has, record them anew"
)
VERSIONS = sorted(int(path.name.split("-v")[1].split(".")[0]) for path in FOLDER.glob("histories-v*.json.gz"))


def recorded(version: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = orjson.loads(gzip.decompress(path_of(version).read_bytes()))
    return found


async def replay(name: str, history: Any) -> BaseException | None:
    """What is wrong with it."""
    from temporalio.client import WorkflowHistory
    from temporalio.worker import Replayer

    from fastrunner.engine.temporal.codec import converter_of

    replayer = Replayer(workflows=workflow_types(), data_converter=converter_of(None, None))
    workflow_id = history["events"][0]["workflowExecutionStartedEventAttributes"]["workflowId"]
    given = WorkflowHistory.from_json(workflow_id, history)
    return (await replayer.replay_workflow(given, raise_on_replay_failure=False)).replay_failure


@pytest.mark.parametrize("version", VERSIONS)
async def test_recorded_histories_are_replayed(version: int) -> None:
    wrong = {}
    for name, histories in recorded(version).items():
        for history in histories:
            failure = await replay(name, history)
            if failure is not None:
                wrong[name] = str(failure)[:500]
    assert wrong == {}, REMEDY


def test_there_is_a_history_of_every_kind() -> None:
    """Of what this version does, and of all runs of one that was continued."""
    from fastrunner.engine.temporal.messages import SEMANTICS

    assert VERSIONS[-1] == SEMANTICS
    found = recorded(SEMANTICS)
    commands = {"paused", "cancelled", "cancelled call", "continued", "detached", "detached report", "outage"}
    commands |= {"told later", "sink", "lifecycle", "lifecycle rest", "schedule often", "schedule each"}
    assert set(found) == {*SCENARIOS, *KINDS, *map(heard, HEARD), "bus", *commands}
    types = {
        history["events"][0]["workflowExecutionStartedEventAttributes"]["workflowType"]["name"]
        for each in found.values()
        for history in each
    }
    assert len(types) == len(workflow_types())
    assert len(found["continued"]) > 3
    assert len(found["bus"]) > 3
    assert sum(path_of(version).stat().st_size for version in VERSIONS) < 300_000


async def test_another_way_is_found_out() -> None:
    """A history that asks for something else than the walk does fails its replay."""
    [history] = recorded(VERSIONS[-1])["call"]
    assert await replay("call", history) is None
    text = orjson.dumps(history).decode().replace("fastrunner.perform", "fastrunner.other")
    assert "fastrunner.other" in str(await replay("call", orjson.loads(text)))
