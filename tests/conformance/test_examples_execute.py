"""The specification's examples: each executes, and ends as the table in docs/conformance.md says."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from orjson import loads

from fastrunner._core import load
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2 as s
from fastrunner.base import limits
from fastrunner.progress.names import FINAL_STATUSES
from tests.conformance.cases import CLOSE, HOUR, Case, Completed, Failed, Listening
from tests.conformance.cases.all import CASES, EXAMPLES, SECRETS
from tests.conformance.hosts import Hosts, standing_in
from tests.conformance.hub import docker_hub
from tests.conformance.services import GREETER_PROTO, greeter, put_npx
from tests.conformance.sites import SITES
from tests.conformance.table import COMMAND, PAGE, generated
from tests.conformance.world import World, until, world
from tests.core.documents import needs_conformance
from tests.integration.containers import Podman, static_busybox
from tests.outside import require_tool

pytestmark = needs_conformance

ROOT = Path(__file__).resolve().parents[2]
MADE = frozenset({"id", "time"})
"""Attributes that the runner makes up for events that have none."""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SKIPPED_MS = 60_000
"""Longer than any of the examples waits."""


def test_every_example_is_in_the_table() -> None:
    assert {case.example for case in CASES} == set(EXAMPLES)
    assert len({str(case) for case in CASES}) == len(CASES)


def test_the_page_says_so() -> None:
    written = (ROOT / PAGE).read_text(encoding="utf-8")
    assert written == generated(written), f"stale: {COMMAND}"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    podman = Podman(tmp_path_factory.mktemp("podman"))
    yield podman
    podman.remove_all()
    podman.call("rmi", "--all", "--force")


@pytest.fixture
async def hosts(case: Case, tmp_path: Path) -> AsyncIterator[Hosts]:
    async with standing_in(SITES, tmp_path) as hosts:
        hosts.moved.update(case.moved)
        hosts.busy_count.update(case.busy_count)
        yield hosts


@pytest.fixture
async def others(
    case: Case, hosts: Hosts, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """What the case needs beside hosts."""
    async with AsyncExitStack() as stack:
        if case.needs == "node":
            require_tool("node")
        elif case.needs == "podman":
            podman = request.getfixturevalue("podman")
            await stack.enter_async_context(docker_hub(podman, tmp_path, static_busybox()))
            for name, value in podman.variables.items():
                monkeypatch.setenv(name, value)
            stack.callback(podman.remove_all)
        elif case.needs == "greeter":
            await stack.enter_async_context(greeter(hosts))
        elif case.needs == "npx":
            put_npx(tmp_path / "bin")
            performer = import_module("fastrunner.tasks.call_mcp.perform")
            monkeypatch.setattr(performer, "PATH", f"{tmp_path / 'bin'}:{performer.PATH}")
        yield


@pytest.fixture
async def here(
    case: Case, others: None, hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    # Whoever waits for time looks often whether it has passed.
    for interval in ("TIMER_RECHECK_S_MAX", "LOAD_INTERVAL_S"):
        monkeypatch.setattr(limits, interval, 0.02)
    allowed = "mcp" if case.needs == "npx" else "shell,script,container"
    # What waits is written and read again.
    async with world(tmp_path, hosts, SECRETS, run_allowed=allowed, parked_resident_max=0) as here:
        here.put_file("app/greet.proto", GREETER_PROTO)
        meant = {HOUR: partial(here.skip, HOUR_MS), CLOSE: None}
        hosts.notifications += [
            meant[message] if isinstance(message, str) else message for message in case.notifications
        ]
        yield here


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_example(case: Case, here: World, request: pytest.FixtureRequest) -> None:
    for document in case.registered:
        await here.register(document)
    text = EXAMPLES[case.example].read_text(encoding="utf-8")
    if "schedule" in load(text):
        execution = await ended(case, here, await fired(case, here, text), ())
    else:
        await here.submit("example", text, case.input)
        execution = await ended(case, here, "example", case.events)
    assert_outcome(case, execution)
    order: Callable[[Sequence[str]], Sequence[str]] = sorted if case.is_asked_at_once else list
    assert order(here.hosts.asked) == order(case.asked)
    assert published(case, here) == list(case.emitted)
    if case.containers:
        assert set(case.containers) <= set(request.getfixturevalue("podman").names())


async def fired(case: Case, here: World, text: str) -> str:
    """The id of what a document's schedule starts: by its events, or at the last midnight."""
    schedule_id = await here.schedule(text)
    if case.events:
        await here.publish(*case.events)
        [execution_id] = await until(lambda: here.started_by(schedule_id), "the events to start something")
        return execution_id
    midnight_ms = here.now_ms() // DAY_MS * DAY_MS
    from_ms, until_ms = midnight_ms - DAY_MS + 1, midnight_ms + 1
    request = s.BackfillScheduleRequest(schedule_id=schedule_id, from_ms=from_ms, until_ms=until_ms)
    [moment] = (await here.call("BackfillSchedule", request, s.BackfillScheduleResponse)).moments
    assert moment.moment_ms == midnight_ms
    return moment.execution_id


async def ended(case: Case, here: World, execution_id: str, events: Sequence[Mapping[str, Any]]) -> q.Execution:
    """The execution at its end: time passes while it waits for that alone, events come once it listens."""
    pending = list(events)

    def is_all_done() -> bool:
        asked, emitted = here.hosts.asked, published(case, here)
        return len(asked) == len(case.asked) and len(emitted) == len(case.emitted)

    async def looked() -> q.Execution | None:
        execution = await here.get(execution_id)
        if execution.status in FINAL_STATUSES:
            return execution
        if execution.waiting.startswith(("waits until", "retry")):
            here.skip(SKIPPED_MS)
        elif execution.waiting.startswith("listens") and pending:
            await here.publish(*pending)
            pending.clear()
        elif isinstance(case.outcome, Listening) and is_all_done():
            await here.cancel(execution_id)
        return None

    return await until(looked, f"{case} to end")


def published(case: Case, here: World) -> list[dict[str, Any]]:
    """The events of the case, without what is made up for them."""
    kept = [kept.event for kept in here.bus.after(0, 100)]
    return [without(event, MADE) for event in kept if event not in case.events]


def assert_outcome(case: Case, execution: q.Execution) -> None:
    outcome = case.outcome
    if isinstance(outcome, Completed):
        assert execution.status == "completed", execution.error
        output = loads(execution.output_json)
        assert (without(output, outcome.made) if outcome.made else output) == outcome.output
    elif isinstance(outcome, Failed):
        assert execution.status == "failed", execution.output_json
        error = MessageToDict(execution.error, preserving_proto_field_name=True)
        assert {name: error.get(name) for name in outcome.error} == dict(outcome.error)
    else:
        assert execution.status == "cancelled"
        assert execution.waiting == ""


def without(value: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """All members but these."""
    return {name: member for name, member in value.items() if name not in names}
