"""`run: workflow` in one engine: what a child gives its parent, and what a parent hands down to its children."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from fastrunner._core import EffectFailure, compile  # noqa: A004 - the core's verb
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine import DefinitionRef, ExecutionQuery, ExecutionView
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import DocumentRefused, Unavailable, UnknownExecution, WrongState
from fastrunner.registry.file import RegistryFile
from tests.integration.engines import (
    Performer,
    assert_whole,
    document,
    engine_on,
    events_of,
    folder,
    submission,
    until,
    until_status,
)

ASK = "  - ask:\n      call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
HOUR = "  - rest:\n      wait: {hours: 1}\n"
ERROR = "https://open-workflow-specification.org/spec/1.0.0/errors/"


def child(tasks: str, name: str = "child", head: str = "") -> str:
    return document(tasks, name).replace("do:\n", f"{head}do:\n", 1)


def runs(name: str = "child", more: str = "", *, version: str = "latest", wait: str = "") -> str:
    """The task `sub`, which runs a workflow."""
    of = f"{{namespace: tests, name: {name}, version: {version}{more}}}"
    return f"  - sub:\n      run: {{workflow: {of}{wait}}}\n"


def caught(tasks: str) -> str:
    indented = tasks.replace("\n", "\n          ").rstrip(" ")
    return (
        f"  - guard:\n      try:\n          {indented}"
        "      catch: {as: error, do: [{keep: {set: '${ {caught: $error} }'}}]}\n"
    )


class Registered:
    """A registry of the test's own, and the folder of an engine."""

    def __init__(self, *texts: str) -> None:
        self.folder = folder()
        self.file = RegistryFile(self.folder)
        self.performer = Performer()
        for text in texts:
            self.register(text)

    def register(self, text: str) -> None:
        plan = compile(text)
        self.file.register(DefinitionRef(plan.namespace, plan.name, plan.version), text, 1)

    @asynccontextmanager
    async def engine(self, **settings: Any) -> AsyncIterator[EmbeddedEngine]:
        async with engine_on(self.folder, self.performer, definitions=self.file, **settings) as engine:
            yield engine
        self.file.close()


async def children(engine: EmbeddedEngine, parent_id: str) -> list[ExecutionView]:
    """Oldest first."""
    page = await engine.list(ExecutionQuery(parent_id=parent_id, count_max=1_000))
    return list(page.items)[::-1]


async def failed(engine: EmbeddedEngine, execution_id: str) -> dict[str, Any]:
    view = await until_status(engine, execution_id, "failed", "completed", "cancelled")
    assert view.error is not None, view
    return dict(view.error)


async def test_a_child_gives_its_output() -> None:
    """Its input is the task's, evaluated; it is an execution of its own, with its parent's id, variables and client."""
    registered = Registered(child("  - one:\n      set: '${ {n: (.n + 1), env: $runtime.metadata.env.HOME} }'\n"))
    async with registered.engine() as engine:
        text = document("  - first:\n      set: {m: 41}\n" + runs(more=", input: {n: '${ .m }'}"))
        await engine.submit(submission("parent", text, env_vars={"HOME": "here"}))
        view = await until_status(engine, "parent", "completed")
        assert view.output_json == '{"n":42,"env":"here"}'
        [found] = await children(engine, "parent")
        assert (found.status, found.name, found.parent_id, found.execution_id) == (
            *("completed", "child", "parent"),
            "parent~1",
        )
        assert (await engine.get("parent~1")).parent_id == "parent"
        assert (await engine.get("parent")).parent_id == ""
        labelled = ExecutionQuery(parent_id="parent", labels=(("a", "b"),))
        assert not (await engine.list(labelled)).items
        await assert_whole(engine, "parent", "workflow_completed")
        await assert_whole(engine, "parent~1", "workflow_completed")


async def test_a_childs_fault_is_the_tasks() -> None:
    """Whole, whether or not `try` catches it; a child that is cancelled by itself is a fault, too."""
    fault = "{type: 'https://example.com/no', status: 418, title: Tea, detail: pot}"
    registered = Registered(child(f"  - bad:\n      raise: {{error: {fault}}}\n"), child(HOUR, "slow"))
    async with registered.engine() as engine:
        await engine.submit(submission("plain", document(runs())))
        error = await failed(engine, "plain")
        told = {"type": "https://example.com/no", "status": 418, "title": "Tea", "detail": "pot"}
        assert error == told | {"instance": "/do/0/bad"}
        await engine.submit(submission("guarded", document(caught(runs()))))
        view = await until_status(engine, "guarded", "completed")
        assert '"status":418' in view.output_json
        await engine.submit(submission("alone", document(runs("slow"))))
        await until_status(engine, "alone~1", "running")
        await engine.cancel("alone~1", "by hand", False)
        error = await failed(engine, "alone")
        assert (error["type"], error["title"]) == (f"{ERROR}runtime", "Subflow Cancelled")


@pytest.mark.parametrize(
    ("more", "version", "kind", "says"),
    [
        ("", "9.9.9", "configuration", "no version '9.9.9' of workflow 'child'"),
        (", input: {n: x}", "latest", "validation", "/n"),
        (", input: {n: '${ error(\"no\") }'}", "latest", "expression", "no"),
    ],
)
async def test_what_keeps_a_child_from_being(more: str, version: str, kind: str, says: str) -> None:
    """A version that is not registered, an input that is not the child's, arguments that cannot be evaluated."""
    schema = "input: {schema: {document: {type: object, properties: {n: {type: integer}}}}}\n"
    registered = Registered(child("  - one:\n      set: {a: 1}\n", head=schema))
    async with registered.engine() as engine:
        await engine.submit(submission("parent", document(runs(more=more, version=version))))
        error = await failed(engine, "parent")
        assert error["type"] == ERROR + kind
        assert says in str(error)


async def test_a_child_may_run_what_documents_may_run() -> None:
    """It may have been registered while more was allowed."""
    registered = Registered(child("  - one:\n      run: {shell: {command: 'true'}}\n"))
    async with registered.engine(run_allowed="script:python") as engine:
        await engine.submit(submission("parent", document(runs())))
        error = await failed(engine, "parent")
        assert error["type"] == ERROR + "configuration"
        assert "set FASTRUNNER_RUN_ALLOWED=script:python,shell" in error["detail"]
        with pytest.raises(DocumentRefused):
            await engine.plan_of(registered.file.find(DefinitionRef("tests", "child", "1.0.0")).document, "")


async def test_what_is_not_awaited_goes_on_by_itself() -> None:
    """The task's output is its input, once the child is durable; the end of the parent ends nothing; what keeps the
    child from being is the task's fault all the same."""
    registered = Registered(child(HOUR))
    async with registered.engine() as engine:
        await engine.submit(submission("parent", document(runs(wait=", await: false")), input_json=b'{"a":1}'))
        view = await until_status(engine, "parent", "completed")
        assert view.output_json == '{"a":1}'
        [found] = await children(engine, "parent")
        assert found.status == "running"
        await engine.cancel(found.execution_id, "enough", True)
        await until_status(engine, found.execution_id, "cancelled")
        await engine.submit(submission("wrong", document(runs("nobody", wait=", await: false"))))
        assert (await failed(engine, "wrong"))["type"] == f"{ERROR}configuration"


async def test_cancel_pause_and_resume_are_handed_down() -> None:
    """To all generations."""
    registered = Registered(child(runs("leaf")), child(ASK + HOUR, "leaf"))
    async with registered.engine(cancel_grace_s=3600) as engine:
        for name, command in (("graceful", False), ("forced", True)):
            await engine.submit(submission(name, document(runs())))
            await until_status(engine, f"{name}~1~1", "running")
            await until(lambda: registered.performer.performed, "the leaf's effect")
            family = (name, f"{name}~1", f"{name}~1~1")
            for status, act in (("paused", engine.pause), ("running", engine.resume)):
                await act(name, "by hand")
                for each in family:
                    await until_status(engine, each, status)
            await engine.cancel(name, "enough", command)
            if not command:
                assert (await engine.get(name)).status == "running"
                registered.performer.gate.set()
            for each in family:
                await until_status(engine, each, "cancelled")
                await assert_whole(engine, each, "workflow_cancelled")
            registered.performer.gate.clear()
            registered.performer.performed.clear()
        assert "workflow_paused" in await events_of(engine, "graceful~1~1")


async def test_whoever_is_not_waited_for_is_cancelled() -> None:
    """A task's timeout, caught and not, and a race that is lost; the parent goes on."""
    registered = Registered(child(HOUR))
    timed = runs().replace("      run:", "      timeout: {after: {milliseconds: 100}}\n      run:")
    race = (
        "  - race:\n      fork:\n        compete: true\n        branches:\n"
        "        - slow: {run: {workflow: {namespace: tests, name: child, version: latest}}}\n"
        "        - quick: {wait: {milliseconds: 100}}\n"
    )
    async with registered.engine() as engine:
        for name, text, status in (
            ("timed", timed, "failed"),
            ("caught", caught(timed), "completed"),
            ("race", race, "completed"),
        ):
            await engine.submit(submission(name, document(text)))
            await until_status(engine, name, status)
            await until_status(engine, f"{name}~1", "cancelled")
            assert "workflow_cancelled" in await events_of(engine, f"{name}~1")


async def test_a_retry_starts_another_child() -> None:
    registered = Registered(child(ASK))
    registered.performer.failure = EffectFailure(1, "communication", 503, "No", "")
    registered.performer.gate.set()
    retry = caught(runs()).replace("catch: {", "catch: {retry: {limit: {attempt: {count: 2}}}, ")
    async with registered.engine() as engine:
        await engine.submit(submission("parent", document(retry)))
        view = await until_status(engine, "parent", "completed", "failed")
        assert '"status":503' in view.output_json
        assert [each.status for each in await children(engine, "parent")] == ["failed"] * 3


async def test_latest_stays_what_it_was() -> None:
    """The next subflow takes the version that has come meanwhile; the one that has begun does not."""
    registered = Registered(child(ASK + "  - one:\n      set: {v: 1}\n"))
    async with registered.engine() as engine:
        await engine.submit(submission("parent", document(runs() + runs().replace("sub", "again"))))
        await until(lambda: registered.performer.performed, "the first child's effect")
        registered.register(child("  - two:\n      set: {v: 2}\n").replace("'1.0.0'\ndo", "'1.10.0'\ndo"))
        registered.performer.gate.set()
        await until_status(engine, "parent", "completed")
        assert [each.version for each in await children(engine, "parent")] == ["1.0.0", "1.10.0"]
        assert (await engine.get("parent~1")).output_json == '{"v":1}'


async def test_recursion_ends_at_a_bound() -> None:
    registered = Registered(child(runs()))
    async with registered.engine() as engine:
        await engine.submit(submission("parent", document(runs())))
        error = await failed(engine, "parent")
        assert error["title"] == "Subflows Too Deep"
        deepest = "parent" + "~1" * limits.SUBFLOW_DEPTH_MAX
        assert (await engine.get(deepest)).status == "failed"
        with pytest.raises(UnknownExecution):
            await engine.get(f"{deepest}~1")


async def test_far_more_executions_than_clients_may_start() -> None:
    """Subflows start beyond the bound for clients, so that what runs can end, and not without any bound."""
    registered = Registered(child(HOUR))
    fork = "".join(
        f"        - b{number}: {{run: {{workflow: {{namespace: tests, name: child, version: latest}}}}}}\n"
        for number in range(4)
    )
    text = document(f"  - each:\n      fork:\n        branches:\n{fork}")
    async with registered.engine(executions_max=2) as engine:
        await engine.submit(submission("parent", text))
        error = await failed(engine, "parent")
        assert (error["title"], error["status"]) == ("Too Many Executions", 503)
        for each in await children(engine, "parent"):
            await until_status(engine, each.execution_id, "cancelled")


async def test_a_child_waits_where_a_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be stored it is tried again and again, at pauses that grow up to a bound."""
    monkeypatch.setattr(limits, "SUBFLOW_RETRY_S_MIN", 0.005)
    monkeypatch.setattr(limits, "SUBFLOW_RETRY_S_MAX", 0.01)
    registered = Registered(child("  - one:\n      set: {a: 1}\n"))
    async with registered.engine() as engine:
        await engine.submit(submission("parent", document(ASK + runs())))
        tried: list[Shard] = []

        def refuse(shard: Shard) -> None:
            tried.append(shard)
            raise Unavailable("not now")

        with monkeypatch.context() as patched:
            patched.setattr(engine, "check_open", refuse)
            registered.performer.gate.set()
            began_s = monotonic_s()
            await until(lambda: len(tried) >= 30, "thirty attempts")
            # Without a first pause there would be no such time; without a bound on them it would be years.
            assert monotonic_s() - began_s > 0.1
        assert (await until_status(engine, "parent", "completed")).output_json == '{"a":1}'


async def test_many_of_them() -> None:
    """A hundred one after the other, and a hundred at once, each with its own effect."""
    registered = Registered(child(ASK + "  - one:\n      set: '${ $workflow.input.n }'\n"))
    registered.performer.gate.set()
    loop = (
        "  - each:\n      for: {each: n, in: '${ [range(100)] }'}\n      do:\n"
        "      - sub: {run: {workflow: {namespace: tests, name: child, version: latest, input: {n: '${ $n }'}}}}\n"
    )
    fork = "".join(
        f"        - b{n}: {{run: {{workflow: {{namespace: tests, name: child, version: latest, "
        f"input: {{n: {n}}}}}}}}}\n"
        for n in range(100)
    )
    async with registered.engine() as engine:
        await engine.submit(submission("loop", document(loop)))
        await engine.submit(submission("fork", document(f"  - each:\n      fork:\n        branches:\n{fork}")))
        assert (await until_status(engine, "loop", "completed", "failed")).output_json == "99"
        view = await until_status(engine, "fork", "completed", "failed")
        assert view.output_json == str(list(range(100))).replace(" ", "")
        for name in ("loop", "fork"):
            assert [each.status for each in await children(engine, name)] == ["completed"] * 100


async def test_a_long_id_has_children_too() -> None:
    registered = Registered(child("  - one:\n      set: {a: 1}\n"))
    async with registered.engine() as engine:
        parent_id = "p" * limits.EXECUTION_ID_SIZE_BYTES_MAX
        await engine.submit(submission(parent_id, document(runs())))
        await until_status(engine, parent_id, "completed")
        [found] = await children(engine, parent_id)
        assert len(found.execution_id) < limits.EXECUTION_ID_SIZE_BYTES_MAX


async def test_an_id_that_somebody_else_has_used() -> None:
    registered = Registered(child("  - one:\n      set: {a: 1}\n"))
    async with registered.engine() as engine:
        await engine.submit(submission("parent~1"))
        await engine.submit(submission("parent", document(runs())))
        assert (await failed(engine, "parent"))["title"] == "Id Taken"


async def test_parents_take_no_memory_while_they_wait() -> None:
    """They leave memory like what waits for time, and come back with the child's end."""
    registered = Registered(child(ASK))
    async with registered.engine(parked_resident_max=0) as engine:
        for number in range(20):
            await engine.submit(submission(f"p{number}", document(runs())))
        await until(lambda: len(registered.performer.performed) == 20, "every child's effect")
        live = engine._shards.home.live
        await until(lambda: not any(f"p{number}" in live for number in range(20)), "their leave")
        registered.performer.gate.set()
        for number in range(20):
            assert (await until_status(engine, f"p{number}", "completed")).output_json == '{"answer":42}'
            assert len(await children(engine, f"p{number}")) == 1


def _only_waits(engine: EmbeddedEngine, execution_id: str) -> bool:
    live = engine._shards.home.live
    return execution_id in live and not live[execution_id].tasks


async def test_a_runner_stops_while_parents_wait() -> None:
    """A parent that nothing has been committed for since it began to wait is still in memory then."""
    registered = Registered(child(HOUR))
    for status in ("running", "cancelled"):
        async with registered.engine(parked_resident_max=0) as engine:
            if status == "running":
                await engine.submit(submission("p", document(runs())))
                await until_status(engine, "p~1", "running")
                await until(partial(_only_waits, engine, "p"), "the parent to wait")
            else:
                await engine.cancel("p", "", True)
            await until_status(engine, "p~1", status)


async def test_a_child_is_kept_until_its_parent_has_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing finished is kept, and yet no child goes, or is started anew, before its parent has taken up its end."""
    monkeypatch.setattr(limits, "RETENTION_INTERVAL_S", 0.01)
    registered = Registered(child(ASK))
    loop = (
        "  - each:\n      for: {each: n, in: '${ [range(20)] }'}\n      do:\n"
        "      - sub: {run: {workflow: {namespace: tests, name: child, version: latest}}}\n"
    )
    async with registered.engine(retention_count=0, retention_s=0.001, parked_resident_max=0) as engine:
        registered.performer.gate.set()
        for number in range(5):
            await engine.submit(submission(f"p{number}", document(loop + HOUR)))
        await until(lambda: len(registered.performer.performed) == 100, "every child's effect")
        keys = {effect.idempotency_key for effect in registered.performer.performed}

        async def all_gone() -> bool:
            return not (await engine.list(ExecutionQuery(statuses=frozenset({"completed"})))).items

        for _ in range(3_000):
            if await all_gone():
                break
            await asyncio.sleep(0.01)
        assert await all_gone()
        assert len(keys) == len(registered.performer.performed) == 100
        for number in range(5):
            assert (await engine.get(f"p{number}")).status == "running"


async def test_what_a_parent_has_not_taken_up_is_not_deleted_by_hand() -> None:
    """Until the parent has taken it up, a child's end is not deleted."""
    registered = Registered(child("  - one:\n      set: {a: 1}\n"))
    async with registered.engine() as engine:
        await engine.submit(submission("parent", document(ASK + runs())))
        await until(lambda: registered.performer.performed, "the effect")
        real = engine._subflows.ended
        engine._subflows.ended = lambda *_: None  # type: ignore[method-assign]
        registered.performer.gate.set()
        await until_status(engine, "parent~2", "completed")
        with pytest.raises(WrongState, match="has not taken it up yet"):
            await engine.delete("parent~2")
        engine._subflows.ended = real  # type: ignore[method-assign]
