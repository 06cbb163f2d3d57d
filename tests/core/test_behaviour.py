"""An execution keeps what it was started with: bounds, `$runtime.version`, and snapshots of earlier formats."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastrunner import _version
from fastrunner._core import Plan, RenderFault, Walk
from fastrunner._core import compile as compile_document
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest
from fastrunner.base import limits
from tests.core.snapshots import BEHAVIOUR, fields_of, packed
from tests.core.walking import START_MS, Run, call, document, error_type, finish, plan_of
from tests.golden.make_snapshots import DOCUMENTS, asked, outcome_of

ROOT = Path(__file__).resolve().parents[2]
GOLDEN: dict[str, dict[str, Any]] = json.loads((ROOT / "tests/golden/snapshots-v1.json").read_text(encoding="utf-8"))
WAIT = {"w": {"wait": "PT1S"}}
VERSION = {"v": {"set": "$runtime.version"}}


def started(patches: dict[str, int], tasks: Any, input_: Any = None) -> Run:
    """A run that waits, started under other bounds and another version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_version, "__version__", "0.0.0-old")
        for name, value in patches.items():
            patch.setattr(limits, name, value)
        return Run(plan_of([WAIT, *tasks, VERSION]), input_)


def ended(run: Run) -> Any:
    """How a run ends after a restore: its output, or the name and detail of its error."""
    run.restore()
    run.finish()
    if run.status == "completed":
        return run.output
    return run.error["type"].rsplit("/", 1)[1], run.error["detail"]


LOOP = [{"l": {"for": {"in": "[range(20)]"}, "do": [{"s": {"set": "$index"}}]}}]
BOUNDED: list[tuple[str, int, list[dict[str, Any]], str]] = [
    ("ITERATIONS_PER_LOOP_MAX", 10, LOOP, "at most 10 are allowed"),
    ("EVENTS_PER_EXECUTION_MAX", 30, LOOP, "the execution has 30 events"),
    ("DATA_SIZE_BYTES_MAX", 1000, [{"s": {"set": "[range(1000)]"}}], "data larger than 1000 bytes"),
    ("DATA_DEPTH_MAX", 5, [{"s": {"set": "[[[[[[[1]]]]]]]"}}], "data nested deeper than 5 levels"),
    ("EXPRESSION_STEPS_MAX", 500, [{"s": {"set": "[range(500)] | length"}}], "steps"),
    ("EXPRESSION_OUTPUTS_MAX", 5, [{"s": {"set": "[range(9)] | .[]"}}], "too many results"),
]


@pytest.mark.parametrize(("name", "bound", "tasks", "words"), BOUNDED, ids=[row[0] for row in BOUNDED])
def test_an_execution_keeps_the_bounds_it_was_started_with(
    name: str, bound: int, tasks: list[dict[str, Any]], words: str
) -> None:
    """Narrower ones after an upgrade that widens them; a new execution has the new ones."""
    _, detail = ended(started({name: bound}, tasks))
    assert words in detail
    new = finish([WAIT, *tasks, VERSION])
    assert new.output == _version.__version__


def test_an_execution_keeps_wider_bounds_too() -> None:
    run = started({}, LOOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "ITERATIONS_PER_LOOP_MAX", 3)
        assert ended(run) == "0.0.0-old"
        assert finish([*LOOP]).error["type"] == error_type("runtime")


def test_an_execution_keeps_its_slices_and_its_runners_version() -> None:
    run = started({"WALK_STEPS_PER_SLICE_MAX": 3}, LOOP)
    run.restore()
    run.finish()
    assert run.output == "0.0.0-old"
    assert run.turns > 10
    assert finish([WAIT, *LOOP, VERSION]).turns == 2


def test_an_effect_is_rendered_by_the_behaviour_of_its_execution() -> None:
    tasks = [{"c": call(body={"v": "${ $runtime.version }", "n": "${ [range(300)] | length }"})}]
    run = started({"EXPRESSION_STEPS_MAX": 100_000}, tasks)
    run.tick()
    run.restore()
    assert run.arguments(run.open[1])["body"] == {"v": "0.0.0-old", "n": 300}
    narrow = started({"EXPRESSION_STEPS_MAX": 300}, tasks)
    narrow.tick()
    narrow.restore()
    with pytest.raises(RenderFault):
        narrow.plan.render(narrow.open[1].capsule)


# --- versions ---


def test_the_newest_version_has_the_bounds_of_limits() -> None:
    """Whoever changes a bound that decides outcomes adds a version: those that run keep theirs."""
    run = Run(plan_of([WAIT]))
    version, runner_version, bounds = fields_of(run.walk.snapshot())[BEHAVIOUR]
    code = (ROOT / "src/fastrunner/core/behaviour.pxi").read_text(encoding="utf-8")
    names = re.findall(r'^    "([A-Z_]+)",$', code, flags=re.MULTILINE)
    assert len(names) == 22
    # Bounds that are those of the version are not written.
    assert bounds is None, f"add a version to BOUNDS_BY_VERSION: {dict(zip(names, bounds, strict=True))}"
    assert (version, runner_version) == (2, _version.__version__)


def test_a_changed_bound_is_seen() -> None:
    """The test above fails when it should."""
    for name in ("EVENTS_PER_EXECUTION_MAX", "REGEX_STACK_MAX"):
        run = started({name: 77}, [])
        assert 77 in fields_of(run.walk.snapshot())[BEHAVIOUR][2]


@pytest.mark.parametrize("version", [3, 99, 0, -1, None, "1"])
def test_a_version_this_runner_does_not_know_is_refused(version: Any) -> None:
    run = Run(plan_of([WAIT]))
    fields = fields_of(run.walk.snapshot())
    fields[BEHAVIOUR][0] = version
    with pytest.raises(ValueError, match=f"behaviour version {version}; this runner knows up to 2"):
        Walk.restore(run.plan, run.execution_id, None, packed(fields))


def test_a_format_this_runner_does_not_know_is_refused() -> None:
    run = Run(plan_of([WAIT]))
    with pytest.raises(ValueError, match="a format this runner does not know"):
        Walk.restore(run.plan, run.execution_id, None, packed(fields_of(run.walk.snapshot()), 3))


def test_another_document_under_the_same_name_and_version_is_refused() -> None:
    """It has as many tasks, with the same names."""
    one, other = (compile_document(document([{"w": {"wait": text}}])) for text in ("PT1S", "PT2S"))
    assert (one.name, one.version, one.namespace) == (other.name, other.version, other.namespace)
    walk, _ = Walk.start(one, "e", None, START_MS)
    with pytest.raises(ValueError, match="another document"):
        Walk.restore(other, "e", None, walk.snapshot())
    Walk.restore(one, "e", None, walk.snapshot())


# --- snapshots of format 1 ---


def golden_plan(name: str) -> Plan:
    return compile_document(GOLDEN[name]["document"])


def restored(name: str, snapshot: str) -> Walk:
    golden = GOLDEN[name]
    return Walk.restore(golden_plan(name), name, golden["input"], bytes.fromhex(snapshot), env={"E": "1"})


def test_golden_executions_are_in_every_state() -> None:
    assert set(GOLDEN) == set(DOCUMENTS)
    assert all(bytes.fromhex(turn["snapshot"])[0] == 1 for golden in GOLDEN.values() for turn in golden["turns"])
    assert {golden["ended"]["status"] for golden in GOLDEN.values()} == {"completed", "failed", "cancelled"}
    taken = {turn["next"] for golden in GOLDEN.values() for turn in golden["turns"]}
    assert taken == set("rfpgcxmlt")


def without_iterations(events: bytes) -> ReportProgressBatchRequest:
    """Events but for the field that the core which wrote format 1 did not know."""
    batch = ReportProgressBatchRequest.FromString(events)
    for event in batch.events:
        event.ClearField("iteration")
    return batch


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_snapshot_of_format_1_goes_on(name: str) -> None:
    """From every turn on: the same effects with the same arguments and keys, the same events, the same end."""
    golden = GOLDEN[name]
    plan = golden_plan(name)
    for first in range(len(golden["turns"])):
        walk = restored(name, golden["turns"][first]["snapshot"])
        for turn in golden["turns"][first:]:
            assert asked(plan, walk) == turn["asked"]
            events = walk.resume(outcome_of(turn["next"], walk), turn["now_ms"]).events
            assert without_iterations(events) == without_iterations(bytes.fromhex(turn["events"]))
            walk = Walk.restore(plan, name, golden["input"], walk.snapshot(), env={"E": "1"})
        end = golden["ended"]
        assert (walk.status, walk.output, walk.error) == (end["status"], end["output"], end["error"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_ended_execution_of_format_1_is_read(name: str) -> None:
    end = GOLDEN[name]["ended"]
    walk = restored(name, end["snapshot"])
    assert (walk.status, walk.output, walk.error) == (end["status"], end["output"], end["error"])
    assert walk.pending() == []


def test_a_snapshot_of_format_1_of_another_document_is_refused() -> None:
    snapshot = bytes.fromhex(GOLDEN["sets"]["turns"][0]["snapshot"])
    with pytest.raises(ValueError, match="another"):
        Walk.restore(golden_plan("fork"), "sets", {"n": 1}, snapshot)
