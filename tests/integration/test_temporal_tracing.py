"""Traces of executions on Temporal: the tree that one machine gives, whatever dies, is continued or is replayed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as r
from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.tracing.context import TraceContext, current_headers
from fastrunner.tracing.kept import SpanFile
from fastrunner.tracing.span import Span
from fastrunner.tracing.tracer import Answer, Sampler, Tracer, new_tracer
from tests.integration.engines import Performer, document, engine_on, folder, submission
from tests.integration.engines import until as until_here
from tests.integration.otlp import Collector, Received, collecting
from tests.integration.temporal_engines import Cluster, Registered, cluster_on, opened, serving_temporal
from tests.integration.temporal_replays import replayed
from tests.integration.test_temporal import LONG, REGISTERED
from tests.integration.test_temporal_reports import CALLS, kinds
from tests.integration.test_temporal_runner import kill
from tests.integration.test_tracing import (
    CALLER,
    SAMPLED,
    TRACE,
    UNSAMPLED,
    World,
    ended,
    execute,
    parent_of,
    ready,
    until,
    world,
)
from tests.outside import require

if TYPE_CHECKING:
    from fastrunner.engine.temporal.engine import TemporalEngine

require(find_spec("temporalio"), "temporalio", module=True)

TIMEOUT_S = 60.0
HERE = TraceContext(TRACE, CALLER, True, "vendor=a")
TOLD = {"fastrunner.callback.first_sequence", "fastrunner.callback.last_sequence"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of the tests' own export after a second: most of these tests wait for nothing else, twice."""
    monkeypatch.setattr(limits, "TRACE_EXPORT_DELAY_S", 1.0)


# --- beside one machine ---


def head(name: str) -> str:
    return f"document: {{dsl: 1.0.3, namespace: shop, name: {name}, version: 1.0.0}}\ndo:\n"


def asking(around: World, task: str) -> str:
    endpoint = f"http://127.0.0.1:{around.service_port}/?{task}"
    return f"{task}: {{call: http, with: {{method: get, endpoint: '{endpoint}'}}}}\n"


def everything(around: World) -> str:
    """A call that fails once and is retried, a child, an event, a call that loses a race, and an error."""
    return (
        head("all")
        + "- guard:\n    try:\n    - "
        + asking(around, "flaky")
        + "    catch: {retry: {delay: {milliseconds: 5}, limit: {attempt: {count: 3}}}}\n"
        "- sub: {run: {workflow: {namespace: shop, name: child, version: latest}}}\n"
        "- tell: {emit: {event: {with: {source: 'https://a.test', type: told}}}}\n"
        "- race:\n    fork:\n      compete: true\n      branches:\n      - "
        + asking(around, "held")
        + "      - quick: {wait: {milliseconds: 500}}\n"
        "- fail: {raise: {error: {type: 'https://a.test/made-up', status: 418, title: t}}}\n"
    )


def tree(collector: Collector) -> list[tuple[Any, ...]]:
    """All spans but those of deliveries, of which there are as many as it takes; without times."""
    return sorted(
        (of.span_id, of.parent_id, of.trace_id, of.name, of.kind, of.error, of.state, sorted(of.attributes.items()))
        for of in collector.spans()
        if of.name != "callback"
    )


async def traced(folder: Path, **settings: str) -> tuple[list[tuple[Any, ...]], World]:
    """The tree that a runner gives."""
    async with world(folder) as around, asyncio.timeout(120):
        seen: Counter[str] = Counter()

        async def answer(request: web.Request) -> web.Response:
            seen[request.query_string] += 1
            if request.query_string == "held":
                await around.gate.wait()
            status = 503 if request.query_string == "flaky" and seen["flaky"] == 1 else 200
            return web.json_response({}, status=status)

        around.answer = answer
        collector = around.collector
        with around.runner(**settings) as runner:
            connection = await ready(runner)
            registering = r.RegisterWorkflowRequest(workflow_yaml=head("child") + "- " + asking(around, "inner"))
            await connection.call("RegisterWorkflow", registering, r.RegisterWorkflowResponse)
            await execute(connection, "order", everything(around), SAMPLED)
            assert (await ended(connection, "order")).status == "failed"
            for each in ("order", "order~3"):
                await until(lambda each=each: {"accept", "callback", "execute"} <= set(collector.of(each)))  # type: ignore[misc]
            code, _, logged = await asyncio.to_thread(runner.stop)
            assert code == 0, logged
            await connection.channel.close()
        return tree(collector), around


@pytest.mark.slow
async def test_the_tree_is_that_of_one_machine(address: str, tmp_path: Path) -> None:
    """Names, kinds, errors, attributes and ids are equal: those of an effect that was retried, one that was given up,
    a child, and an event; and so is what the service and the receiver have heard."""
    here, local = await traced(tmp_path / "one", FASTRUNNER_WORKERS="1")
    there, around = await traced(tmp_path / "many", FASTRUNNER_WORKERS="1", TEMPORAL_SERVICE_ADDRESS=address)
    assert there == here
    names = Counter(span[3] for span in there)
    assert (names["call_http flaky"], names["accept"], names["call_http held"]) == (2, 2, 1)
    assert {span[2] for span in there} == {TRACE}
    for found in (local, around):
        spans = {span.span_id: span for span in found.collector.spans()}
        roots = {each for each, span in spans.items() if span.name.startswith("execute")}
        assert {spans[parent_of(asked["traceparent"])].name for asked in found.asked} == {
            "call_http flaky",
            "call_http inner",
            "call_http held",
        }
        assert {asked["tracestate"] for asked in found.asked} == {"vendor=a"}
        assert found.receiver.parents
        assert {parent_of(parent) for parent in found.receiver.parents} <= roots
        told = [span for span in spans.values() if span.name == "callback"]
        assert {span.parent_id for span in told} == roots
        assert all(set(span.attributes) >= TOLD for span in told)
        assert found.collector.orphans({CALLER}) == []
        assert found.collector.repeated() == []


@pytest.mark.slow
async def test_an_execution_is_one_tree_though_its_worker_is_killed(address: str, tmp_path: Path) -> None:
    async with world(tmp_path) as around, asyncio.timeout(120):
        collector = around.collector
        settings = {"FASTRUNNER_WORKERS": "1", "TEMPORAL_SERVICE_ADDRESS": address}

        async def answer(request: web.Request) -> web.Response:
            if request.query_string == "second":
                await around.gate.wait()
            return web.json_response({})

        around.answer = answer
        text = head("two") + "- " + asking(around, "first") + "- " + asking(around, "second")
        with around.runner(**settings) as runner:
            connection = await ready(runner)
            collector.refuses = True
            await execute(connection, "killed", text, SAMPLED)
            await until(lambda: len(around.asked) == 2)
            # What has ended is on its way to a collector that takes nothing, what has not is open.
            await until(lambda: (runner.metric("workflow_runner_spans_queued") or 0) >= 3)
            kill(runner)
            assert collector.spans() == []
            collector.refuses = False
            await connection.channel.close()
        with around.runner(**settings) as runner:
            connection = await ready(runner)
            await until(lambda: len(around.asked) == 3)
            around.gate.set()
            await until(lambda: "execute" in collector.of("killed"))
            await until(lambda: len(around.receiver.parents) and "callback" in collector.of("killed"))
            code, _, logged = await asyncio.to_thread(runner.stop)
            assert code == 0, logged
            await connection.channel.close()
        found = collector.of("killed")
        root = found["execute"]
        assert (root.trace_id, root.parent_id, root.name) == (TRACE, CALLER, "execute shop/two")
        first, second = found["call_http first"], found["call_http second"]
        assert {first.parent_id, second.parent_id, found["accept"].parent_id} == {root.span_id}
        assert [span.attributes["fastrunner.effect.resumed"] for span in (first, second)] == [False, True]
        # Both attempts of the effect that the kill cut short are the same span to whom they called.
        called = [parent_of(asked["traceparent"]) for asked in around.asked]
        assert called == [first.span_id, second.span_id, second.span_id]
        assert {parent_of(parent) for parent in around.receiver.parents} == {root.span_id}
        assert root.began_ns <= first.began_ns <= first.ended_ns <= second.ended_ns <= root.ended_ns
        assert collector.orphans({CALLER}) == []
        assert collector.repeated() == []


# --- of engines in this process ---


class Calling(Performer):
    """Keeps what goes along with each call; the first one of a task `flaky` fails, one of a task `held` never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.set()
        self.sent: list[dict[str, str]] = []

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        self.sent.append(dict(current_headers()))
        if effect.reference.endswith("held"):
            await asyncio.Event().wait()
        if effect.reference.endswith("flaky") and len(self.sent) == 1:
            return EffectFailure(effect.effect_id, "communication", 503, "Busy", "not now")
        return await super().perform(effect, arguments)


def tracer_of(collector: Collector, **settings: Any) -> Tracer:
    found = new_tracer(Config(otel_endpoint=collector.endpoint, **settings), Metrics(CollectorRegistry()))
    assert found is not None
    return found


@asynccontextmanager
async def tracing(
    address: str,
    performer: Performer,
    sampler: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> "AsyncIterator[tuple[TemporalEngine, Cluster, Collector]]":
    """A replica that traces."""
    with collecting() as collector:
        tracer = tracer_of(collector, **(sampler or {}))
        async with (
            cluster_on(address) as cluster,
            cluster.engine(
                {"call_http": performer},
                documents=REGISTERED,
                tracer=tracer,
                settings={"data_dir": folder(), **(settings or {})},
                **options,
            ) as engine,
        ):
            try:
                yield engine, cluster, collector
            finally:
                await tracer.close(10)


async def has_told(collector: Collector, execution_id: str) -> dict[str, Received]:
    """The spans of an execution once it has ended, and a delivery of it has."""
    await until_here(lambda: {"execute", "callback"} <= set(collector.of(execution_id)), "spans", TIMEOUT_S)
    return collector.of(execution_id)


def once_each(collector: Collector) -> None:
    assert [span for span, count in Counter(each.span_id for each in collector.spans()).items() if count > 1] == []
    assert collector.orphans({CALLER}) == []


ASK = "{ call: http, with: { method: get, endpoint: 'http://127.0.0.1:1/' } }"
AGAIN = "catch: { retry: { limit: { attempt: { count: 2 } } } }"
CHILD = "{ run: { workflow: { namespace: tests, name: NAME, version: '1.0.0', input: { n: 2 } } } }"
TREES = {
    "retried": f"  - guard: {{ try: [{{ flaky: {ASK} }}], {AGAIN} }}\n",
    "given up": f"  - slow: {{ do: [{{ held: {ASK} }}], timeout: {{ after: {{ milliseconds: 300 }} }} }}\n",
    "in branches": f"  - all: {{ fork: {{ branches: [{{ a: {ASK} }}, {{ b: {ASK} }}, {{ c: {ASK} }}] }} }}\n",
    "in vain": f"  - first: {{ fork: {{ compete: true, branches: [{{ held: {ASK} }}, {{ ask: {ASK} }}] }} }}\n",
    "child": f"  - sub: {CHILD.replace('NAME', 'double')}\n",
    "failing child": f"  - sub: {CHILD.replace('NAME', 'failing')}\n",
    "no child": f"  - sub: {CHILD.replace('NAME', 'nobody')}\n",
    "nothing": "  - keep: { set: { n: 1 } }\n",
}


@pytest.mark.parametrize("name", TREES)
async def test_trees_are_those_of_one_machine(name: str, address: str) -> None:
    """But for times, and for how many deliveries it takes."""
    text, performer = document(TREES[name]), Calling()
    with collecting() as local:
        async with tracing(address, performer) as (engine, cluster, collector):
            execution_id = f"{cluster.queue}-1"
            await engine.submit(submission(execution_id, text, trace=HERE))
            await has_told(collector, execution_id)
            tracer, alone = tracer_of(local), Calling()
            async with engine_on(folder(), alone, definitions=Registered(REGISTERED), tracer=tracer) as one:
                await one.submit(submission(execution_id, text, trace=HERE))
                await until_here(lambda: "execute" in local.of(execution_id), "spans", TIMEOUT_S)
                await tracer.close(10)
            await until_here(lambda: len(tree(collector)) >= len(tree(local)), "all spans", TIMEOUT_S)
        assert tree(collector) == tree(local) != []
        assert sorted(map(str, performer.sent)) == sorted(map(str, alone.sent))
        once_each(collector)


async def test_replays_and_histories_that_are_continued_tell_nothing_twice(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each workflow task begins with a replay where nothing is kept in memory, nor what has been told; a history of one
    step is continued at once."""
    monkeypatch.setattr(limits, "TRACE_TOLD_SPANS_MAX", 0)
    performer = Calling()
    options: dict[str, Any] = {"history_events_max": 1, "workflows_cached_max": 0}
    async with tracing(address, performer, **options) as (engine, cluster, collector):
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, LONG, trace=HERE))
        found = await has_told(collector, execution_id)
        handle = engine._client.get_workflow_handle(execution_id)
        await handle.result()
        continued = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
        assert continued.continued_execution_run_id
        await replayed(engine._client, execution_id)
        assert (await engine.get(execution_id)).status == "completed"
        spans = [span for span in collector.spans() if span.name == "call_http ask"]
        assert [headers["traceparent"] for headers in performer.sent] == [
            f"00-{TRACE}-{span.span_id}-01" for span in sorted(spans, key=lambda each: each.began_ns)
        ]
        assert len(spans) == 3
        assert {span.parent_id for span in spans} == {found["execute"].span_id}
        assert found["execute"].parent_id == CALLER
        once_each(collector)


async def test_what_another_workflow_reports_is_in_the_tree(address: str) -> None:
    """With detached reports; what is told of an execution in memory is found for its log lines."""
    performer = Calling()
    performer.gate.clear()
    settings = {"temporal_report": "detached"}
    async with tracing(address, performer, settings=settings) as (engine, cluster, collector):
        execution_id = f"{cluster.queue}-1"
        assert engine._traces is not None
        tracer = engine._traces._tracer
        await engine.submit(submission(execution_id, CALLS, trace=HERE))
        await until_here(lambda: performer.performed, "an effect", TIMEOUT_S)
        ids = tracer.ids_of(execution_id)
        performer.gate.set()
        found = await has_told(collector, execution_id)
        root = found["execute"]
        assert ids == (TRACE, root.span_id)
        await until_here(
            lambda: any(each.attributes.get("fastrunner.callback.last_sequence") == 12 for each in collector.spans()),
            "the last report",
            TIMEOUT_S,
        )
        assert {span.parent_id for span in collector.spans() if span.name == "callback"} == {root.span_id}
        once_each(collector)


async def test_what_is_not_sampled_is_nowhere(address: str) -> None:
    """It has the history of what is not traced at all; a caller's decision goes on with calls and reports."""
    from fastrunner.engine.temporal.messages import WalkStart

    performer = Calling()
    sampler = {"otel_traces_sampler": "parentbased_always_off"}
    async with tracing(address, performer, sampler) as (engine, cluster, collector):
        off = f"{cluster.queue}-off"
        async with cluster.engine({"call_http": opened()}, works=False) as other:
            await other.submit(submission(off, CALLS))
        alone, by_caller = f"{cluster.queue}-alone", f"{cluster.queue}-by-caller"
        expected = await kinds(engine, off)
        calls = len(performer.sent)
        await engine.submit(submission(alone, CALLS))
        assert await kinds(engine, alone) == expected
        # Nobody begins a trace in the middle of it.
        assert [headers["traceparent"][-3:] for headers in performer.sent[calls:]] == ["-00"] * 5
        header = UNSAMPLED[0][1]
        await engine.submit(submission(by_caller, CALLS, trace=TraceContext.read(header, "")))
        assert await kinds(engine, by_caller) == expected
        assert {headers["traceparent"] for headers in performer.sent[-5:]} == {header}
        for execution_id, text in ((off, ""), (alone, ""), (by_caller, header)):
            [start] = await engine._client.data_converter.decode(
                (await engine._client.get_workflow_handle(execution_id).fetch_history())
                .events[0]
                .workflow_execution_started_event_attributes.input.payloads,
                [WalkStart],
            )
            assert start.trace.startswith(text)
            assert bool(start.trace) == bool(text)
        assert collector.spans() == []


async def test_a_child_hangs_on_what_has_started_it(address: str) -> None:
    text = document(
        "  - sub:\n      run: { workflow: { namespace: tests, name: double, version: '1.0.0', input: { n: 2 } } }\n"
    )
    async with tracing(address, Calling()) as (engine, cluster, collector):
        execution_id = f"{cluster.queue}-1"
        # Of a caller in no trace.
        await engine.submit(submission(execution_id, text))
        found, child = await has_told(collector, execution_id), await has_told(collector, f"{execution_id}~1")
        assert child["execute"].parent_id == found["run_workflow sub"].span_id
        assert child["accept"].parent_id == child["execute"].span_id
        assert found["execute"].parent_id == ""
        assert len({span.trace_id for span in collector.spans()}) == 1
        once_each(collector)


async def test_what_is_told_again_is_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when Temporal has not taken a task of a workflow; but a worker does not know for ever what it has told."""
    from fastrunner.engine.temporal.tracing import Traces

    exported: list[str] = []

    class Exporter:
        def export(self, spans: Any) -> Answer:
            exported.extend(span.span_id for span in spans)
            return Answer(is_final=True)

        def close(self) -> None:
            pass

    def span(number: int) -> Span:
        return Span(TRACE, f"{number:016x}", CALLER, "", "n", "internal", 0, 0)

    monkeypatch.setattr(limits, "TRACE_TOLD_SPANS_MAX", 4)
    tracer = Tracer(Sampler(ratio=1.0, is_parent_based=True), Exporter, Metrics(CollectorRegistry()))
    traces = Traces(tracer, SpanFile(tmp_path / "spans"))
    await traces.open()
    for told in ((1, 2), (2, 3), (1,), (4, 5), (5, 1)):
        traces.tell([span(number) for number in told])
    await tracer.close(10)
    traces.close()
    assert exported == [f"{number:016x}" for number in (1, 2, 3, 4, 5, 1)]
