"""Executions on Temporal: the same events as on one machine, commands from any replica, histories that can be replayed.

Everything here is against a real server.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fastrunner._core import EffectFailure, EffectResult, ExternalResource, PerformEffect, Plan
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine import Definition, DefinitionRef, ExecutionQuery, ExecutionView, WorkerEngine
from fastrunner.errors import (
    DocumentRefused,
    IdTaken,
    InvalidRequest,
    TooLarge,
    Unavailable,
    UnknownExecution,
    WrongState,
)
from tests.integration.engines import (
    CALL,
    ENDLESS,
    SET,
    WAIT,
    Performer,
    all_events,
    document,
    engine_on,
    submission,
    until,
    until_status,
)
from tests.integration.temporal_engines import (
    Registered,
    cluster_on,
    opened,
    reported,
    serving_temporal,
    shown,
)
from tests.outside import require
from tests.ports import free_port

if TYPE_CHECKING:
    from temporalio.client import WorkflowHistory

    from fastrunner.engine.temporal.engine import TemporalEngine

require(find_spec("temporalio"), "temporalio", module=True)

ENDED = ("completed", "failed", "cancelled")
TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


async def ended(engine: WorkerEngine, execution_id: str) -> ExecutionView:
    return await until_status(engine, execution_id, *ENDED, timeout_s=TIMEOUT_S)  # type: ignore[arg-type]


CHILD = document("  - one:\n      set: { doubled: '${ .n * 2 }' }\n", "double")
FAILING_CHILD = document(
    "  - bad:\n      raise: { error: { type: 'https://example.com/bad', status: 418, title: Bad } }\n", "failing"
)
REGISTERED = {"double": CHILD, "failing": FAILING_CHILD}

SCENARIOS = {
    "set": SET,
    "wait": WAIT,
    "wait zero": document("  - rest:\n      wait: { milliseconds: 0 }\n"),
    "call": CALL,
    "switch": document(
        "  - look:\n      switch:\n"
        "        - big: { when: '${ .n > 1 }', then: last }\n        - other: { then: exit }\n"
        "  - skipped:\n      set: { a: 1 }\n"
        "  - last:\n      set: { b: 2 }\n"
    ),
    "for": document(
        "  - each:\n      for: { each: item, in: '${ [1, 2, 3] }' }\n      do:\n"
        "        - keep:\n            set: { seen: '${ $item }' }\n"
    ),
    "for with calls": document(
        "  - each:\n      for: { each: item, in: '${ [1, 2] }' }\n      do:\n"
        "        - ask:\n            call: http\n"
        "            with: { method: get, endpoint: '${ \"http://127.0.0.1:1/\\($item)\" }' }\n"
    ),
    "fork": document(
        "  - both:\n      fork:\n        branches:\n"
        "          - left:\n              set: { l: 1 }\n          - right:\n              set: { r: 2 }\n"
    ),
    "fork of calls": document(
        "  - both:\n      fork:\n        branches:\n"
        "          - left:\n              wait: { milliseconds: 1 }\n"
        "          - right:\n              wait: { milliseconds: 500 }\n"
    ),
    "race": document(
        "  - first:\n      fork:\n        compete: true\n        branches:\n"
        "          - quick:\n              wait: { milliseconds: 1 }\n"
        "          - slow:\n              wait: { minutes: 5 }\n"
    ),
    "raise": document(
        "  - bad:\n      raise: { error: { type: 'https://e.org/bad', status: 400, title: Bad, detail: '${ .n }' } }\n"
    ),
    "catch": document(
        "  - guard:\n      try:\n        - bad:\n"
        "            raise: { error: { type: 'https://e.org/bad', status: 400 } }\n"
        "      catch:\n        as: e\n        do:\n          - tell:\n              set: { status: '${ $e.status }' }\n"
    ),
    "retry": document(
        "  - guard:\n      try:\n        - bad:\n"
        "            raise: { error: { type: 'https://e.org/bad', status: 503 } }\n"
        "      catch:\n        retry: { delay: { milliseconds: 5 }, limit: { attempt: { count: 2 } } }\n"
    ),
    "timeout": document("  - long:\n      wait: { minutes: 5 }\n      timeout: { after: { milliseconds: 50 } }\n"),
    "expression error": document("  - bad:\n      set: { a: '${ error(\"no\") }' }\n"),
    "child": document(
        "  - run:\n      run: { workflow: { namespace: tests, name: double, version: '1.0.0', input: { n: 21 } } }\n"
    ),
    "failing child": document(
        "  - run:\n      run: { workflow: { namespace: tests, name: failing, version: '1.0.0' } }\n"
    ),
    "unknown child": document(
        "  - run:\n      run: { workflow: { namespace: tests, name: nobody, version: '1.0.0' } }\n"
    ),
    "export": document(
        "  - keep:\n      set: { a: 1 }\n      export: { as: '${ { kept: .a } }' }\n"
        "  - use:\n      set: { b: '${ $context.kept + 1 }' }\n      output: { as: '${ .b }' }\n"
    ),
}


def failing() -> Performer:
    performer = opened()
    performer.failure = EffectFailure(1, "communication", 503, "Service Unavailable", "try later")
    return performer


async def on_one_machine(
    path: Path, text: str, execution_id: str, performer: Performer
) -> tuple[ExecutionView, list[str]]:
    async with engine_on(path, performer, definitions=Registered(REGISTERED)) as engine:
        await engine.submit(submission(execution_id, text, input_json=b'{"n": 2}'))
        view = await until_status(engine, execution_id, *ENDED, timeout_s=TIMEOUT_S)
        return view, shown(await all_events(engine, execution_id))


def outcome(view: ExecutionView) -> tuple[Any, ...]:
    return view.status, view.output_json, view.error, view.namespace, view.name, view.version, view.last_sequence


async def test_equal_to_one_machine(address: str, tmp_path: Path) -> None:
    """Outcome, output and events of each kind of task are those of the embedded engine."""
    async with cluster_on(address) as cluster, cluster.engine(documents=REGISTERED) as engine:
        ids = {name: f"{cluster.queue}-{number}" for number, name in enumerate(SCENARIOS)}
        for name, text in SCENARIOS.items():
            await engine.submit(submission(ids[name], text, input_json=b'{"n": 2}'))
        for name, text in SCENARIOS.items():
            (tmp_path / name).mkdir()
            view, events = await on_one_machine(tmp_path / name, text, ids[name], opened())
            assert outcome(await ended(engine, ids[name])) == outcome(view), name
            assert await reported(cluster, ids[name]) == events, name


def run_of(name: str, **more: Any) -> dict[str, Any]:
    return {"run": {"workflow": {"namespace": "tests", "name": name, "version": "1.0.0", **more}}}


RAISE = {
    "raise": {"error": {"type": "https://e.org/bad", "status": 500, "title": "Bad", "detail": "${ .n | tostring }"}}
}
ELSEWHERE = {"endpoint": "http://127.0.0.1:1/"}
KINDS: dict[str, dict[str, Any]] = {
    "set": {"set": {"a": "${ .n + 1 }"}},
    "wait": {"wait": {"milliseconds": 1}},
    "call": {"call": "http", "with": {"method": "get", "endpoint": "http://127.0.0.1:1/"}},
    "raise": RAISE,
    "switch": {"switch": [{"two": {"when": "${ .n == 2 }", "then": "continue"}}, {"other": {"then": "end"}}]},
    "do": {"do": [{"one": {"set": {"n": 3}}}, {"two": {"set": {"b": "${ .n }"}}}]},
    "for": {"for": {"each": "i", "in": "${ [1, 2] }"}, "do": [{"keep": {"set": {"n": "${ $i }"}}}]},
    "fork": {"fork": {"branches": [{"left": {"set": {"l": 1}}}, {"right": {"wait": {"milliseconds": 1}}}]}},
    "catch": {"try": [{"bad": RAISE}], "catch": {"as": "e", "do": [{"tell": {"set": {"n": "${ $e.status }"}}}]}},
    "retry": {
        "try": [{"bad": RAISE}],
        "catch": {"retry": {"delay": {"milliseconds": 1}, "limit": {"attempt": {"count": 1}}}},
    },
    "emit": {"emit": {"event": {"with": {"type": "t", "source": "http://s", "data": {"n": "${ .n }"}}}}},
    "function": {"call": "ask", "with": {"number": "${ .n }"}},
    "shell": {"run": {"shell": {"command": "echo", "arguments": ["${ .n | tostring }"]}}},
    "script": {"run": {"script": {"language": "python", "code": "print(1)"}, "return": "all"}},
    "container": {"run": {"container": {"image": "busybox"}}},
    "openapi": {"call": "openapi", "with": {"document": ELSEWHERE, "operationId": "ask"}},
    "grpc": {
        "call": "grpc",
        "with": {"proto": ELSEWHERE, "service": {"name": "a.Asked", "host": "127.0.0.1", "port": 1}, "method": "Ask"},
    },
    "mcp": {"call": "mcp", "with": {"method": "tools/list", "transport": {"http": ELSEWHERE}}},
    "a2a": {
        "call": "a2a",
        "with": {"method": "tasks/get", "server": {"uri": "http://127.0.0.1:1/"}, "parameters": {"id": "${ .n }"}},
    },
    "asyncapi": {
        "call": "asyncapi",
        "with": {"document": ELSEWHERE, "operation": "tell", "message": {"payload": {"n": "${ .n }"}}},
    },
    "child": run_of("double", input={"n": 4}),
    "failing child": run_of("failing"),
    "detached child": {"run": {**run_of("double", input={"n": 4})["run"], "await": False}},
}
PLACES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "alone": lambda task: task,
    "in do": lambda task: {"do": [{"inner": task}, {"after": {"set": {"after": True}}}]},
    "in for": lambda task: {"for": {"each": "j", "in": "${ [1, 2] }"}, "do": [{"inner": task}]},
    "in fork": lambda task: {"fork": {"branches": [{"only": task}]}},
    "in try": lambda task: {
        "try": [{"inner": task}],
        "catch": {"as": "e", "do": [{"tell": {"set": {"caught": "${ $e.status }"}}}]},
    },
    "in catch": lambda task: {"try": [{"bad": RAISE}], "catch": {"do": [{"inner": task}]}},
    "skipped": lambda task: {**task, "if": "${ .n > 2 }"},
    "exported": lambda task: {
        **task,
        "input": {"from": "${ { n: .n } }"},
        "output": {"as": "${ { out: . } }"},
        "export": {"as": "${ { kept: .out } }"},
    },
    "within a time": lambda task: {**task, "timeout": {"after": {"minutes": 5}}},
    "and the end": lambda task: {**task, "then": "end"},
}


def composed(task: dict[str, Any]) -> str:
    head = {"dsl": "1.0.0", "namespace": "tests", "name": "test", "version": "1.0.0"}
    ask = {"call": "http", "with": {"method": "post", "body": {"number": "${ .number }"}, **ELSEWHERE}}
    tasks = [{"first": task}, {"last": {"set": {"got": "${ . }", "context": "${ $context }"}}}]
    return orjson.dumps({"document": head, "use": {"functions": {"ask": ask}}, "do": tasks}).decode()


class Answers(Performer):
    """Answers any effect as its kind does."""

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        self.performed.append(effect)
        is_process = effect.kind.startswith("run_")
        return EffectResult(effect.effect_id, {"code": 0, "stdout": "1\n", "stderr": ""} if is_process else {"n": 42})


class NoDescriptions:
    """Services that do not tell what they are: their calls ask again."""

    async def fetch(self, wanted: Sequence[ExternalResource]) -> Mapping[str, str | None]:
        return {each.reference: None for each in wanted}

    async def close(self) -> None:
        """Nothing is under way."""


async def times_continued(engine: "TemporalEngine", ids: list[str]) -> int:
    """How many of the executions have been continued as new histories."""
    found = [await engine._client.get_workflow_handle(each).describe() for each in ids]
    return sum(each.raw_description.workflow_execution_info.first_run_id != each.run_id for each in found)


EFFECTS = (*("emit", "call_http", "call_openapi", "call_grpc", "call_mcp", "call_a2a", "call_asyncapi"),
           *("run_shell", "run_script", "run_container"))  # fmt: skip
ALLOWED: dict[str, Any] = {"run_allowed": "shell,script,mcp,container:*"}


@pytest.mark.slow
@pytest.mark.parametrize("history_events_max", [limits.TEMPORAL_HISTORY_EVENTS_MAX, 1])
async def test_every_kind_in_every_place(address: str, tmp_path: Path, history_events_max: int) -> None:
    """Each kind of task within, behind and beside others: outcome, output and events are those of one machine, byte for
    byte but for their times, however often histories are continued; each effect is performed once, and each history can
    be replayed."""
    texts = {f"{kind} {place}": composed(put(task)) for place, put in PLACES.items() for kind, task in KINDS.items()}
    assert len(texts) >= 200
    here, there = Answers(), Answers()
    async with (
        cluster_on(address) as cluster,
        cluster.engine(
            dict.fromkeys(EFFECTS, there),
            documents=REGISTERED,
            settings=ALLOWED,
            resources=NoDescriptions(),
            history_events_max=history_events_max,
        ) as engine,
        engine_on(
            tmp_path,
            here,
            performers=dict.fromkeys(EFFECTS, here),
            definitions=Registered(REGISTERED),
            resources=NoDescriptions(),
            **ALLOWED,
        ) as local,
    ):
        ids = {name: f"{cluster.queue}-{number}" for number, name in enumerate(texts)}
        for name, text in texts.items():
            await engine.submit(submission(ids[name], text, input_json=b'{"n": 2}'))
            await local.submit(submission(ids[name], text, input_json=b'{"n": 2}'))
        for name, execution_id in ids.items():
            expected = await until_status(local, execution_id, *ENDED, timeout_s=TIMEOUT_S)
            assert outcome(await ended(engine, execution_id)) == outcome(expected), name
            assert await reported(cluster, execution_id) == shown(await all_events(local, execution_id)), name
        keys = [effect.idempotency_key for effect in there.performed]
        assert sorted(keys) == sorted(effect.idempotency_key for effect in here.performed)
        assert len(keys) == len(set(keys)) >= 100
        continued = await times_continued(engine, list(ids.values()))
        assert (continued > 0) == (history_events_max == 1)
        await replay(await histories(engine, list(ids.values())))


async def test_a_failure_of_an_effect_is_the_tasks(address: str, tmp_path: Path) -> None:
    async with cluster_on(address) as cluster, cluster.engine({"call_http": failing()}) as engine:
        execution_id = f"{cluster.queue}-1"
        view, events = await on_one_machine(tmp_path, CALL, execution_id, failing())
        await engine.submit(submission(execution_id, CALL, input_json=b'{"n": 2}'))
        found = await ended(engine, execution_id)
        assert (found.status, found.error) == ("failed", view.error)
        assert await reported(cluster, execution_id) == events


async def histories(engine: "TemporalEngine", ids: list[str]) -> "list[WorkflowHistory]":
    return [await engine._client.get_workflow_handle(each).fetch_history() for each in ids]


async def replay(found: "list[WorkflowHistory]") -> None:
    from temporalio.worker import Replayer

    from fastrunner.engine.temporal.workflow import WalkWorkflow

    replayer = Replayer(workflows=[WalkWorkflow])
    for history in found:
        await replayer.replay_workflow(history)


async def test_histories_can_be_replayed(address: str) -> None:
    """Every kind of task takes the same way again, nearly without any worker's memory of the first time: one that
    forgot a workflow within a task, which tells at once, would have it begin that anew."""
    async with cluster_on(address) as cluster:
        async with cluster.engine(documents=REGISTERED, workflows_cached_max=2) as engine:
            ids = [f"{cluster.queue}-{number}" for number in range(len(SCENARIOS))]
            for execution_id, text in zip(ids, SCENARIOS.values(), strict=True):
                await engine.submit(submission(execution_id, text, input_json=b'{"n": 2}'))
            for execution_id in ids:
                await ended(engine, execution_id)
                await reported(cluster, execution_id)
            found = await histories(engine, ids)
        await replay(found)


LONG = document(
    "  - each:\n      for: { each: item, in: '${ [1, 2, 3] }' }\n      do:\n"
    "        - ask:\n            call: http\n            with: { method: get, endpoint: 'http://127.0.0.1:1/' }\n"
    "        - rest:\n            wait: { milliseconds: 1 }\n"
    "  - last:\n      set: { n: 1 }\n"
)


async def test_continued_at_every_turn_equals_never(address: str) -> None:
    """Histories that are continued as often as can be give the same events, and perform each effect once."""
    told = {}
    runs = {}
    for name, events_max in (("never", limits.TEMPORAL_HISTORY_EVENTS_MAX), ("always", 1)):
        performer = opened()
        async with (
            cluster_on(address) as cluster,
            cluster.engine({"call_http": performer}, history_events_max=events_max) as engine,
        ):
            execution_id = f"{cluster.queue}-1"
            await engine.submit(submission(execution_id, LONG))
            assert (await ended(engine, execution_id)).output_json == '{"n":1}'
            events = await reported(cluster, execution_id)
            told[name] = [text.replace(cluster.queue, "queue") for text in events]
            assert len(performer.performed) == 3
            assert len({effect.idempotency_key for effect in performer.performed}) == 3
            runs[name] = await times_continued(engine, [execution_id])
    assert told["always"] == told["never"]
    assert runs == {"never": 0, "always": 1}


async def test_histories_of_an_endless_loop_are_bounded(address: str) -> None:
    async with cluster_on(address) as cluster, cluster.engine(history_events_max=100) as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, ENDLESS))
        events = cluster.events.setdefault(execution_id, [])
        await until(lambda: len(events) > 5_000, "events of a loop", TIMEOUT_S)
        [history] = await histories(engine, [execution_id])
        assert len(history.events) < limits.TEMPORAL_HOLD_RATIO * 100 + 200
        await engine.cancel(execution_id, "enough", True)
        assert (await ended(engine, execution_id)).status == "cancelled"


async def test_a_start_is_idempotent(address: str) -> None:
    """The same request again is answered the same, also after the end; another one under the id is refused."""
    async with cluster_on(address) as cluster, cluster.engine() as one, cluster.engine() as other:
        given = submission(f"{cluster.queue}-1", SET)
        assert await one.submit(given) == "running"
        assert await other.submit(given) == "running"
        await ended(one, given.execution_id)
        assert await other.submit(given) == "running"
        with pytest.raises(IdTaken):
            await other.submit(replace(given, env_vars={"A": "1"}))
        await reported(cluster, given.execution_id)
        assert len(cluster.events[given.execution_id]) == cluster.events[given.execution_id][-1].sequence_number


async def test_commands_from_another_replica(address: str) -> None:
    """Pause and resume, and what each state refuses."""
    performer = Performer()
    async with (
        cluster_on(address) as cluster,
        cluster.engine({"call_http": performer}) as engine,
        cluster.engine(works=False) as other,
    ):
        execution_id = f"{cluster.queue}-1"
        with pytest.raises(UnknownExecution):
            await other.pause(execution_id, "")
        with pytest.raises(UnknownExecution):
            await other.cancel(execution_id, "", False)
        await engine.submit(submission(execution_id, CALL))
        await until(lambda: performer.performed, "an effect", TIMEOUT_S)
        await other.pause(execution_id, "lunch")
        await other.pause(execution_id, "lunch")
        assert (await other.get(execution_id)).status == "paused"
        await other.resume(execution_id, "back")
        await other.resume(execution_id, "back")
        performer.gate.set()
        assert (await ended(other, execution_id)).status == "completed"
        for command in (other.pause, other.resume):
            with pytest.raises(WrongState, match="has ended"):
                await command(execution_id, "late")
        for force in (False, True):
            with pytest.raises(WrongState, match="has ended"):
                await other.cancel(execution_id, "late", force)
        types = [event.event_type for event in cluster.events[execution_id]]
        assert (types.count("workflow_paused"), types.count("workflow_resumed")) == (1, 1)
        assert len(performer.performed) == 1


async def test_many_commands_are_answered(address: str) -> None:
    """Each one that waits has its own answer, though a workflow keeps only the latest ones."""
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, WAIT.replace("milliseconds: 200", "minutes: 5")))
        for command in (engine.pause, engine.resume, engine.pause):
            half = limits.TEMPORAL_ANSWERS_KEPT_MAX // 2 + 1
            await asyncio.gather(*(command(execution_id, "") for _ in range(half)))
        assert (await engine.get(execution_id)).status == "paused"
        await engine.cancel(execution_id, "", True)
        assert (await ended(engine, execution_id)).status == "cancelled"


async def test_cancel_lets_effects_end(address: str) -> None:
    """Graceful, an effect that runs may end; what comes after it is not begun."""
    performer = Performer()
    async with cluster_on(address) as cluster, cluster.engine({"call_http": performer}) as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, CALL))
        await until(lambda: performer.performed, "an effect", TIMEOUT_S)
        await engine.cancel(execution_id, "no more", False)
        await engine.cancel(execution_id, "no more", False)
        performer.gate.set()
        assert (await ended(engine, execution_id)).status == "cancelled"
        await reported(cluster, execution_id)
        assert performer.interrupted == []
        assert "keep" not in {event.task_name for event in cluster.events[execution_id]}
        await engine.cancel(execution_id, "no more", False)
        await engine.cancel(execution_id, "no more", True)
        found = await histories(engine, [execution_id])
    await replay(found)


async def test_a_cancel_that_comes_too_late_is_refused(address: str) -> None:
    """Also while the workflow only waits for the receiver: nothing is answered with OK that does not end as asked."""
    async with cluster_on(address) as cluster:
        port, cluster.port = cluster.port, free_port()
        execution_id = f"{cluster.queue}-1"
        async with cluster.engine() as engine:
            await engine.submit(submission(execution_id, SET))
            assert (await ended(engine, execution_id)).status == "completed"
            for force in (False, True):
                with pytest.raises(WrongState, match="has ended"):
                    await engine.cancel(execution_id, "late", force)
        cluster.port = port
        async with cluster.engine():
            assert "workflow_completed" in (await reported(cluster, execution_id))[-1]


async def test_a_forced_cancel_interrupts_effects(address: str) -> None:
    performer = Performer()
    async with cluster_on(address) as cluster, cluster.engine({"call_http": performer}) as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, CALL))
        await until(lambda: performer.performed, "an effect", TIMEOUT_S)
        await engine.cancel(execution_id, "now", True)
        assert (await ended(engine, execution_id)).status == "cancelled"
        await until(lambda: performer.interrupted, "an effect that is interrupted", TIMEOUT_S)
        found = await histories(engine, [execution_id])
    await replay(found)


async def test_a_parents_cancel_reaches_its_child(address: str) -> None:
    parent = document("  - run:\n      run: { workflow: { namespace: tests, name: waits, version: '1.0.0' } }\n")
    waits = document("  - rest:\n      wait: { minutes: 5 }\n", "waits")
    async with cluster_on(address) as cluster, cluster.engine(documents={"waits": waits}) as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, parent))
        child_id = f"{execution_id}~1"
        await until_child(engine, child_id)
        assert (await engine.get(child_id)).parent_id == execution_id
        await engine.pause(execution_id, "lunch")
        await until_status(engine, child_id, "paused", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
        await engine.resume(execution_id, "back")
        await until_status(engine, child_id, "running", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
        await engine.cancel(execution_id, "no more", False)
        assert (await ended(engine, execution_id)).status == "cancelled"
        assert (await ended(engine, child_id)).status == "cancelled"


@pytest.mark.parametrize("verbs", ["pause", "pause resume", "pause resume pause", "cancel"])
async def test_a_child_that_is_about_to_begin_hears_of_it(
    address: str, verbs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its parent is told while nothing of the child is there yet reaches the child all the same, in order."""
    parent = document("  - run:\n      run: { workflow: { namespace: tests, name: waits, version: '1.0.0' } }\n")
    waits = document("  - rest:\n      wait: { minutes: 5 }\n", "waits")
    looked_for, found = asyncio.Event(), asyncio.Event()
    async with cluster_on(address) as cluster, cluster.engine(documents={"waits": waits}) as engine:
        find = engine.compiled_ref

        async def find_later(ref: DefinitionRef) -> tuple[Definition, Plan]:
            looked_for.set()
            await found.wait()
            return await find(ref)

        monkeypatch.setattr(engine, "compiled_ref", find_later)
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, parent))
        await until(looked_for.is_set, "a child that is looked for", TIMEOUT_S)
        for verb in verbs.split():
            if verb == "cancel":
                await engine.cancel(execution_id, "", False)
            else:
                await getattr(engine, verb)(execution_id, "")
        found.set()
        child_id = f"{execution_id}~1"
        status = {"pause": "paused", "resume": "running", "cancel": "cancelled"}[verbs.split()[-1]]
        await until_status(engine, child_id, status, timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
        if status != "cancelled":
            await engine.cancel(execution_id, "", True)
        await reported(cluster, child_id)
        types = [event.event_type for event in cluster.events[child_id]]
        assert types.count("workflow_paused") == (1 if status == "paused" else 0)


async def until_child(engine: "TemporalEngine", child_id: str) -> None:
    await until_status(engine, child_id, "running", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]


async def test_an_effect_outlives_its_worker(address: str) -> None:
    """What a worker has not ended when it stops another one performs, with the same key."""
    first, second = Performer(), opened()
    async with cluster_on(address) as cluster:
        execution_id = f"{cluster.queue}-1"
        async with cluster.engine({"call_http": first}) as engine:
            await engine.submit(submission(execution_id, CALL))
            await until(lambda: first.performed, "an effect", TIMEOUT_S)
        async with cluster.engine({"call_http": second}) as engine:
            assert (await ended(engine, execution_id)).status == "completed"
            await reported(cluster, execution_id)
        keys = [effect.idempotency_key for effect in (*first.performed, *second.performed)]
        assert keys == [keys[0], keys[0]]


async def test_a_receiver_that_fails_has_all_events_once(address: str) -> None:
    """Reports are tried again until they are taken, in order; the ledger of the receiver is whole."""
    async with cluster_on(address, fail_rate=0.5) as cluster, cluster.engine() as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, LONG))
        await ended(engine, execution_id)
        events = await reported(cluster, execution_id)
        assert len(events) == cluster.events[execution_id][-1].sequence_number
        view = await until_status(engine, execution_id, "completed")  # type: ignore[arg-type]
        assert view.last_sequence == len(events)


async def test_a_receiver_without_batches(address: str) -> None:
    async with cluster_on(address, no_batch=True) as cluster, cluster.engine() as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, SET))
        await ended(engine, execution_id)
        assert len(await reported(cluster, execution_id)) == cluster.events[execution_id][-1].sequence_number


async def test_queries_and_listings(address: str) -> None:
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        name = f"n{cluster.queue[-12:]}"
        text = SET.replace("name: test", f"name: {name}")
        ids = [f"{cluster.queue}-{number}" for number in range(5)]
        for number, execution_id in enumerate(ids):
            await engine.submit(submission(execution_id, text, labels={"parity": str(number % 2)}))
            await ended(engine, execution_id)
        events = await engine.events(ids[0], 2, 3)
        assert [event.sequence_number for event in cluster.events[ids[0]][1:4]] == [2, 3, 4]
        assert len(events) == 3
        followed = [message async for message in engine.subscribe(ids[0], 1)]
        assert len(followed) == cluster.events[ids[0]][-1].sequence_number
        query = ExecutionQuery(name=name, count_max=2, statuses=frozenset({"completed"}))
        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        while len((await engine.list(replace(query, count_max=100))).items) < 5:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.1)
        found: list[str] = []
        before = None
        while True:
            page = await engine.list(replace(query, before=before))
            found += [view.execution_id for view in page.items]
            if page.complete_to is None:
                break
            before = page.complete_to
        assert found == ids[::-1]
        odd = await engine.list(replace(query, labels=[("parity", "1")], count_max=100))
        assert [view.execution_id for view in odd.items] == [ids[3], ids[1]]
        assert (await engine.list(replace(query, statuses=frozenset({"failed"})))).items == []
        assert (await engine.list(replace(query, version="9.0.0"))).items == []
        everything = ExecutionQuery(name=name)
        assert {status: count for status, count in (await engine.count(everything)).items() if count} == {
            "completed": 5
        }
        for other in (
            {"version": "9.0.0"},
            {"namespaces": frozenset[str]({"none"})},
            {"namespaces": frozenset[str]()},
            {"statuses": frozenset({"failed"})},
        ):
            assert sum((await engine.count(replace(everything, **other))).values()) == 0
        assert await engine.document(ids[0]) == text
        with pytest.raises(UnknownExecution):
            await engine.document("nobody")


@pytest.mark.slow
async def test_what_is_deleted_is_forgotten(address: str) -> None:
    """Some time after the answer: Temporal deletes when it comes to it."""
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        execution_id = f"{cluster.queue}-1"
        with pytest.raises(UnknownExecution):
            await engine.delete(execution_id)
        await engine.submit(submission(execution_id, ENDLESS))
        with pytest.raises(WrongState):
            await engine.delete(execution_id)
        await engine.cancel(execution_id, "enough", True)
        await ended(engine, execution_id)
        await until_deleted(engine, execution_id)


async def until_deleted(engine: "TemporalEngine", execution_id: str) -> None:
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    while True:
        try:
            await engine.delete(execution_id)
        except WrongState:
            # It has ended for the walk, and its last report is under way.
            pass
        except UnknownExecution:
            return
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)


async def test_secrets_reach_effects_and_no_history(address: str) -> None:
    performer = opened()
    text = CALL.replace("do:\n", "use: { secrets: [token] }\ndo:\n", 1).replace(
        "method: get", "headers: { X-Key: '${ $secrets.token }' }, method: get"
    )
    secret = "a-secret-of-these-tests"
    async with (
        cluster_on(address) as cluster,
        cluster.engine({"call_http": performer}, secrets={"token": secret}) as engine,
    ):
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, text))
        assert (await ended(engine, execution_id)).status == "completed"
        assert performer.arguments[0]["headers"]["X-Key"] == secret
        [history] = await histories(engine, [execution_id])
        assert secret not in history.to_json()
        with pytest.raises(InvalidRequest, match="token"):
            await engine.submit(submission(f"{cluster.queue}-2", text, env_vars={"token": "x"}))


async def test_secrets_outside_of_effects_are_refused(address: str) -> None:
    text = SET.replace("do:\n", "use: { secrets: [token] }\ndo:\n", 1).replace("{a: 1}", "{a: '${ $secrets.token }'}")
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        problems = [each for each in await engine.validate(text, "") if each.severity == "error"]
        assert [problem.pointer for problem in problems] == ["/do/0/one/set"]
        with pytest.raises(DocumentRefused, match="TEMPORAL_SERVICE_ADDRESS"):
            await engine.submit(submission(f"{cluster.queue}-1", text))


async def test_what_no_payload_has_room_for_is_refused(address: str) -> None:
    """Starts and results beyond the bound have an error that says so, and results up to it pass."""
    bound = limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        large = b'{"n": "' + b"x" * bound + b'"}'
        with pytest.raises(TooLarge, match=str(bound)):
            await engine.submit(submission(f"{cluster.queue}-1", SET, input_json=large))
        grown = document("  - one:\n      set: { a: '${ [range(300000)] | map(\"abcd\") }' }\n")
        await engine.submit(submission(f"{cluster.queue}-2", grown))
        await reported(cluster, f"{cluster.queue}-2")
        with pytest.raises(TooLarge, match="completed"):
            await ended(engine, f"{cluster.queue}-2")


async def test_bounds_of_activities(address: str) -> None:
    """An effect is missed soon when its worker is lost, and bounded by nothing else here; reports are tried again
    without end, and soon."""
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, CALL))
        await ended(engine, execution_id)
        await reported(cluster, execution_id)
        [history] = await histories(engine, [execution_id])
        scheduled = [
            event.activity_task_scheduled_event_attributes
            for event in history.events
            if event.HasField("activity_task_scheduled_event_attributes")
        ]
        assert {each.activity_type.name for each in scheduled} == {"fastrunner.perform", "fastrunner.report"}
        for each in scheduled:
            assert each.heartbeat_timeout.ToSeconds() == limits.TEMPORAL_HEARTBEAT_S
            assert each.start_to_close_timeout.ToSeconds() == limits.TEMPORAL_EFFECT_S_MAX
            assert each.retry_policy.maximum_attempts == 0
            if each.activity_type.name == "fastrunner.report":
                assert each.retry_policy.maximum_interval.ToSeconds() == limits.TEMPORAL_REPORT_RETRY_S_MAX
            else:
                assert each.retry_policy.maximum_interval.ToSeconds() == limits.TEMPORAL_EFFECT_RETRY_S_MAX
        assert engine._worker is not None
        options = engine._worker.config()
        assert options["max_cached_workflows"] == limits.TEMPORAL_WORKFLOWS_CACHED_MAX
        assert options["max_concurrent_workflow_tasks"] == limits.TEMPORAL_WORKFLOW_TASKS_MAX
        assert options["workflow_task_poller_behavior"].maximum == limits.TEMPORAL_POLLERS_MAX


@dataclass
class Generous(Performer):
    """Answers with much."""

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        self.performed.append(effect)
        return EffectResult(effect.effect_id, "x" * (limits.TEMPORAL_HISTORY_SIZE_BYTES_MAX // 4))


async def test_large_histories_are_continued(address: str) -> None:
    """By their size, long before they have too many events; each effect is performed once."""
    text = document(
        "  - each:\n      for: { each: item, in: '${ [range(6)] }' }\n      do:\n"
        "        - ask:\n            call: http\n            with: { method: get, endpoint: 'http://127.0.0.1:1/' }\n"
        "            output: { as: '${ length }' }\n"
        "        - rest:\n            wait: { milliseconds: 300 }\n"
    )
    performer = Generous()
    async with cluster_on(address) as cluster, cluster.engine({"call_http": performer}) as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, text))
        assert (await ended(engine, execution_id)).status == "completed"
        await reported(cluster, execution_id)
        [history] = await histories(engine, [execution_id])
        begun = history.events[0].workflow_execution_started_event_attributes
        assert begun.continued_execution_run_id
        assert len(performer.performed) == 6


async def test_a_walk_rests_while_nobody_takes_its_events(address: str) -> None:
    """And its clock with it: its timeout does not count an outage of the receiver."""
    text = ENDLESS.replace("do:\n", "timeout: { after: { seconds: 2 } }\ndo:\n", 1)
    async with cluster_on(address) as cluster:
        port, cluster.port = cluster.port, free_port()
        execution_id = f"{cluster.queue}-1"
        async with cluster.engine() as engine:
            await engine.submit(submission(execution_id, text))
            view = await engine.get(execution_id)
            deadline_s = monotonic_s() + TIMEOUT_S
            while view.last_sequence < limits.TEMPORAL_EVENTS_UNREPORTED_MAX:
                assert monotonic_s() < deadline_s
                view = await engine.get(execution_id)
            rested_s = monotonic_s()
            while monotonic_s() < rested_s + 3:
                assert (await engine.get(execution_id)).last_sequence == view.last_sequence
                await asyncio.sleep(0.1)
            assert (await engine.get(execution_id)).status == "running"
        cluster.port = port
        async with cluster.engine() as engine:
            assert (await ended(engine, execution_id)).status == "failed"
            await reported(cluster, execution_id)
            assert len(cluster.events[execution_id]) > view.last_sequence + 100


@pytest.mark.slow
async def test_without_a_worker_nobody_waits_for_long(address: str) -> None:
    """Starts and graceful cancels are durable all the same."""
    async with cluster_on(address) as cluster, cluster.engine(works=False) as engine:
        execution_id = f"{cluster.queue}-1"
        assert await engine.submit(submission(execution_id, WAIT)) == "running"
        began_s = monotonic_s()
        asked = (
            engine.pause(f"{cluster.queue}-2", ""),
            engine.cancel(execution_id, "no more", False),
            engine.get(execution_id),
        )
        assert await engine.submit(submission(f"{cluster.queue}-2", WAIT)) == "running"
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * 3
        assert "Temporal has the cancel" in str(answers[1])
        assert str(answers[2]) == "neither Temporal nor a worker of the runner has answered in time: try again"
        assert monotonic_s() - began_s >= limits.TEMPORAL_ANSWER_S_MAX - 1
        async with cluster.engine() as worker:
            assert (await ended(worker, execution_id)).status == "cancelled"
            await worker.cancel(execution_id, "no more", False)


async def test_a_running_execution_can_be_followed(address: str) -> None:
    performer = Performer()
    async with cluster_on(address) as cluster, cluster.engine({"call_http": performer}) as engine:
        execution_id = f"{cluster.queue}-1"
        with pytest.raises(UnknownExecution):
            await anext(engine.subscribe(execution_id, 1))
        await engine.submit(submission(execution_id, CALL))
        messages = []
        async for message in engine.subscribe(execution_id, 1):
            event = WorkflowProgressEvent.FromString(message)
            messages.append(event)
            if event.task_name == "ask":
                # What comes after this has not happened yet.
                performer.gate.set()
        assert shown(messages) == await reported(cluster, execution_id)


async def test_a_workflow_that_is_terminated_is_cancelled(address: str) -> None:
    """Somebody has ended it in Temporal; it is shown as what it is, and nobody follows it for ever."""
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        execution_id = f"{cluster.queue}-1"
        text = WAIT.replace("milliseconds: 200", "minutes: 5").replace("name: test", f"name: t{cluster.queue[-12:]}")
        await engine.submit(submission(execution_id, text))
        await until_status(engine, execution_id, "running", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
        await engine._client.get_workflow_handle(execution_id).terminate("for a test")
        view = await ended(engine, execution_id)
        # Visibility is a moment behind.
        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        while (await engine.count(ExecutionQuery(name=view.name)))["cancelled"] != 1:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.1)
        assert sum((await engine.count(ExecutionQuery(name=view.name))).values()) == 1
        assert view.status == "cancelled"
        assert view.finished_ms >= view.accepted_ms
        followed = [message async for message in engine.subscribe(execution_id, 1)]
        assert len(followed) == view.last_sequence
        await engine.cancel(execution_id, "", False)
        await engine.cancel(execution_id, "", True)
        with pytest.raises(WrongState, match="cancelled"):
            await engine.pause(execution_id, "")


async def test_debug_logs_every_step_and_no_replay(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """The workflow is replayed at each of its tasks; one that Temporal has anew, such as after a timeout, is none."""
    caplog.set_level("INFO", "fastrunner.engine.temporal.workflow")
    async with cluster_on(address) as cluster, cluster.engine(workflows_cached_max=0) as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, WAIT, debug=True))
        await ended(engine, execution_id)
        lines = [record.getMessage() for record in caplog.records if record.name.endswith("temporal.workflow")]
        assert len(set(lines)) == len(await reported(cluster, execution_id)) > len(lines) - len(set(lines))
