"""The registry of a real runner: what one worker registers all of them have; races, deaths, `latest`, references."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as r
from tests.integration.commands import fastrunner
from tests.integration.runner_process import SERVE, RunnerProcess, running, until
from tests.integration.test_placement_runner import Connection, connections, ready, start, stop
from tests.integration.wire import refusal

WORKERS = 4


def greeting(version: str, says: str = "hello", name: str = "greeting") -> str:
    head = f"document: {{dsl: 1.0.3, namespace: shop, name: {name}, version: {version}}}\n"
    return head + f"do:\n- greet: {{set: {{says: {says}, to: '${{ .to // null }}'}}}}\n"


def ref(version: str = "", name: str = "greeting") -> m.WorkflowRef:
    return m.WorkflowRef(namespace="shop", name=name, version=version)


async def register(connection: Connection, text: str) -> r.RegisterWorkflowResponse:
    reply: r.RegisterWorkflowResponse = await connection.call(
        "RegisterWorkflow", r.RegisterWorkflowRequest(workflow_yaml=text), r.RegisterWorkflowResponse
    )
    return reply


async def get(connection: Connection, version: str = "") -> r.RegisteredWorkflow:
    reply = await connection.call("GetWorkflow", r.GetWorkflowRequest(workflow_ref=ref(version)), r.GetWorkflowResponse)
    found: r.RegisteredWorkflow = reply.workflow
    return found


async def listed(connection: Connection, **fields: Any) -> tuple[list[tuple[str, str, bool]], str]:
    reply = await connection.call("ListWorkflows", r.ListWorkflowsRequest(**fields), r.ListWorkflowsResponse)
    assert all(not each.workflow_yaml for each in reply.workflows)
    return [(each.name, each.version, each.latest) for each in reply.workflows], reply.next_page_token


async def delete(connection: Connection, version: str) -> None:
    await connection.call(
        "DeleteWorkflow", r.DeleteWorkflowRequest(workflow_ref=ref(version)), r.DeleteWorkflowResponse
    )


async def output(connection: Connection, execution_id: str) -> str:
    """The output of an execution that completes."""
    for _ in range(3_000):
        request = q.GetExecutionRequest(execution_id=execution_id)
        execution = (await connection.call("GetExecution", request, q.GetExecutionResponse)).execution
        if execution.status not in ("running", "pending"):
            break
        await asyncio.sleep(0.01)
    assert execution.status == "completed", execution
    return str(execution.output_json)


async def code_of(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with start(tmp_path_factory.mktemp("registry") / "data", WORKERS) as process:
        yield ready(process)
        stop(process)


async def test_what_one_worker_registers_all_have_at_once(runner: RunnerProcess) -> None:
    """Each worker registers a version; every other one executes it as soon as the reply is there, and as the latest."""
    async with connections(runner, WORKERS) as opened:
        by_worker = list({each.pid: each for each in opened}.values())
        for number, one in enumerate(by_worker):
            assert (await register(one, greeting(f"1.{number}.0", f"v{number}"))).created
            for at, other in enumerate(by_worker):
                for version in (f"1.{number}.0", "", "latest"):
                    execution_id = f"all-{number}-{at}-{version}"
                    await other.execute(execution_id, "", workflow_ref=ref(version), input_json='{"to": "you"}')
                    assert await output(other, execution_id) == f'{{"says":"v{number}","to":"you"}}'


async def test_a_version_never_changes(runner: RunnerProcess) -> None:
    async with connections(runner, 2) as opened:
        one, other = opened[0], opened[-1]
        assert (await register(one, greeting("3.0.0", name="fixed"))).created
        assert not (await register(other, greeting("3.0.0", name="fixed"))).created
        request = r.RegisterWorkflowRequest(workflow_yaml=greeting("3.0.0", "bye", name="fixed"))
        code, message, details = await refusal(other.call("RegisterWorkflow", request, r.RegisterWorkflowResponse))
        assert (code.name, details["ErrorInfo"].reason) == ("ALREADY_EXISTS", "ALREADY_REGISTERED")
        assert "'3.0.0'" in message
        assert "higher version" in message
        broken = r.RegisterWorkflowRequest(workflow_yaml=greeting("3.0.1").replace("set", "sett"))
        code, _, details = await refusal(one.call("RegisterWorkflow", broken, r.RegisterWorkflowResponse))
        assert code.name == "INVALID_ARGUMENT"
        assert details["BadRequest"].field_violations[0].description.startswith("line 3, ")


async def test_ten_race_for_a_version(runner: RunnerProcess) -> None:
    """One text wins on every worker; the losers are told; the same text races with itself and is registered once."""
    async with connections(runner, WORKERS) as opened:
        for round_ in range(5):
            texts = [greeting(f"9.0.{round_}", f"racer{number}", "race") for number in range(10)]
            calls = [code_of(register(opened[at % len(opened)], text)) for at, text in enumerate(texts)]
            codes = await asyncio.gather(*calls)
            assert sorted(codes) == ["ALREADY_EXISTS"] * 9 + ["OK"]
            request = r.GetWorkflowRequest(workflow_ref=ref(f"9.0.{round_}", "race"))
            found = [(await each.call("GetWorkflow", request, r.GetWorkflowResponse)).workflow for each in opened]
            assert {each.workflow_yaml for each in found} == {texts[codes.index("OK")]}
            same = [register(opened[at % len(opened)], greeting(f"9.1.{round_}", name="race")) for at in range(10)]
            assert [each.created for each in await asyncio.gather(*same)].count(True) == 1


async def test_latest_is_the_highest_version(runner: RunnerProcess) -> None:
    """In SemVer's order, whatever the order of registration; deleting goes back; pages go through all of it."""
    versions = ("2.0.0-rc.1", "1.10.0", "1.9.0", "2.0.0-alpha")
    async with connections(runner, 1) as opened:
        one, other = opened[0], opened[1]
        for version in versions:
            await register(one, greeting(version, name="ordered"))
        latest = [(name, version) for name, version, is_latest in (await listed(other, name="ordered"))[0] if is_latest]
        assert latest == [("ordered", "2.0.0-rc.1")]
        await register(one, greeting("2.0.0", name="ordered"))
        found: list[tuple[str, str, bool]] = []
        token = ""
        while True:
            page, token = await listed(other, namespace="shop", name="ordered", page_size=2, page_token=token)
            found += page
            if not token:
                break
        ordered = ("2.0.0", "2.0.0-rc.1", "2.0.0-alpha", "1.10.0", "1.9.0")
        assert found == [("ordered", version, version == "2.0.0") for version in ordered]
        request = r.DeleteWorkflowRequest(workflow_ref=ref("2.0.0", "ordered"))
        await other.call("DeleteWorkflow", request, r.DeleteWorkflowResponse)
        assert (await listed(one, name="ordered"))[0][0] == ("ordered", "2.0.0-rc.1", True)
        again = other.call("DeleteWorkflow", request, r.DeleteWorkflowResponse)
        assert await code_of(again) == "NOT_FOUND"
        for bad in ({"page_token": "x"}, {"page_size": -1}):
            assert await code_of(listed(one, **bad)) == "INVALID_ARGUMENT"


async def test_a_request_by_reference_is_the_same_request_tomorrow(runner: RunnerProcess) -> None:
    """`latest` is decided at acceptance: the same request again is answered as the first time, by every worker, though
    another version is the latest by then, and even when the one it was is gone."""
    async with connections(runner, WORKERS) as opened:
        one = opened[0]
        await register(one, greeting("1.0.0", "first", "again"))
        asked = {"workflow_ref": ref("", "again"), "input_json": '{"to": "you"}'}
        await one.execute("again", "", **asked)
        await register(one, greeting("1.0.1", "second", "again"))
        request = r.DeleteWorkflowRequest(workflow_ref=ref("1.0.0", "again"))
        await one.call("DeleteWorkflow", request, r.DeleteWorkflowResponse)
        for each in opened:
            assert (await each.execute("again", "", **asked)).status == "running"
            assert await output(each, "again") == '{"says":"first","to":"you"}'
            differs = {**asked, "workflow_ref": ref("1.0.1", "again")}
            assert await code_of(each.execute("again", "", **differs)) == "ALREADY_EXISTS"
            assert await code_of(each.execute("again", greeting("1.0.0", "first", "again"))) == "ALREADY_EXISTS"


async def test_references_that_are_refused(runner: RunnerProcess) -> None:
    async with connections(runner, 1) as opened:
        one = opened[0]
        cases: Sequence[tuple[m.WorkflowRef, str, str, str]] = (
            (ref("1.0.0", "nobody"), "", "NOT_FOUND", "workflow register"),
            (ref("", "nobody"), "", "NOT_FOUND", "no version at all"),
            (ref(), greeting("1.0.0"), "INVALID_ARGUMENT", "both set"),
            (m.WorkflowRef(name="greeting"), "", "INVALID_ARGUMENT", "workflow_ref.namespace is empty"),
            (m.WorkflowRef(namespace="shop"), "", "INVALID_ARGUMENT", "workflow_ref.name is empty"),
            (ref("1" * 256), "", "RESOURCE_EXHAUSTED", "at most 255"),
        )
        for at, (reference, text, code, says) in enumerate(cases):
            found, message, _ = await refusal(one.execute(f"refused-{at}", text, workflow_ref=reference))
            assert found.name == code
            assert says in message
            assert await code_of(one.status(f"refused-{at}")) == "NOT_FOUND"
        latest = r.DeleteWorkflowRequest(workflow_ref=ref("latest"))
        assert await code_of(one.call("DeleteWorkflow", latest, r.DeleteWorkflowResponse)) == "INVALID_ARGUMENT"


async def test_registrations_outlive_any_death(tmp_path: Path) -> None:
    """The tree is killed right after replies; all that was told is there, executions by reference too."""
    folder = tmp_path / "data"
    told: list[str] = []
    with start(folder, 2) as runner:
        ready(runner)
        async with connections(runner, 1) as opened:
            for number in range(20):
                text = greeting(f"1.0.{number}")
                await register(opened[number % 2], text)
                told.append(text)
            runner.process.kill()
        runner.end()
    with start(folder, 2) as runner:
        ready(runner)
        async with connections(runner, 1) as opened:
            for number, text in enumerate(told):
                assert (await get(opened[number % 2], f"1.0.{number}")).workflow_yaml == text
            assert (await get(opened[0])).version == "1.0.19"
        stop(runner)


def test_a_folder_is_registered_at_start_and_at_sighup(tmp_path: Path) -> None:
    """What is wrong with one file is logged, and keeps none of the others away; hidden files are none of it."""
    documents = tmp_path / "workflows"
    (documents / "below").mkdir(parents=True)
    (documents / "..data").mkdir()
    (documents / "one.yaml").write_text(greeting("1.0.0"))
    (documents / "below" / "two.json").write_text(greeting("1.1.0"))
    (documents / "broken.yml").write_text("do: nothing")
    (documents / "..data" / "hidden.yaml").write_text(greeting("7.0.0"))
    (documents / "notes.txt").write_text("not a workflow")
    environment = {"FASTRUNNER_WORKFLOWS_DIR": str(documents), "FASTRUNNER_WORKERS": "2"}
    with running(tmp_path / "data", SERVE, **environment) as runner:
        ready(runner)
        connected = ("--target", runner.target)
        shown = fastrunner("workflow", "list", *connected)
        assert shown.stdout.splitlines() == ["shop/greeting:1.1.0 *", "shop/greeting:1.0.0"]
        (documents / "three.yaml").write_text(greeting("2.0.0"))
        (documents / "one.yaml").write_text(greeting("1.0.0", "changed"))
        before = [worker["pid"] for worker in runner.workers()]
        runner.signal(signal.SIGHUP)
        until(lambda: runner.replaced(*before), 60)
        shown = fastrunner("workflow", "list", *connected)
        assert shown.stdout.splitlines() == ["shop/greeting:2.0.0 *", "shop/greeting:1.1.0", "shop/greeting:1.0.0"]
        code, _, err = runner.stop()
        assert code == 0
        assert "broken.yml is not registered" in err
        assert "registered with another text" in err


def test_a_document_run_here_finds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fastrunner run` has no registry but that folder, however deep its workflows run one another."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "greeting.yaml").write_text(greeting("1.0.0"))
    runs = "do:\n- sub: {run: {workflow: {namespace: shop, name: %s, version: latest, input: {to: you}}}}\n"
    head = "document: {dsl: 1.0.3, namespace: shop, name: %s, version: 1.0.0}\n"
    (folder / "middle.yaml").write_text(head % "middle" + runs % "greeting")
    (tmp_path / "outer.yaml").write_text(head % "outer" + runs % "middle")
    done = fastrunner("run", "--quiet", str(tmp_path / "outer.yaml"))
    assert done.returncode == 1
    assert "Workflow Not Registered" in done.stdout
    monkeypatch.setenv("FASTRUNNER_WORKFLOWS_DIR", str(folder))
    done = fastrunner("run", "--quiet", str(tmp_path / "outer.yaml"))
    assert (done.returncode, done.stdout.strip()) == (0, '{"says":"hello","to":"you"}')


def test_the_commands(runner: RunnerProcess, tmp_path: Path) -> None:
    """register, get, list, delete, submit --workflow; what is wrong is said with the remedy."""
    connected = ("--target", runner.target)
    file = tmp_path / "order.yaml"
    file.write_text(greeting("1.2.0", name="order"))
    done = fastrunner("workflow", "register", str(file), *connected)
    assert (done.returncode, done.stdout) == (0, "shop/order:1.2.0\n")
    done = fastrunner("workflow", "register", str(file), *connected)
    assert done.stdout == "shop/order:1.2.0 (was registered)\n"
    done = fastrunner("workflow", "get", "shop/order", *connected)
    assert done.stdout == greeting("1.2.0", name="order")
    done = fastrunner("submit", "--workflow", "shop/order:1.2.0", "--input", '{"to": 1}', "--follow", *connected)
    assert (done.returncode, done.stdout.strip()) == (0, '{"says":"hello","to":1}')
    done = fastrunner("workflow", "delete", "shop/order:1.2.0", *connected)
    assert done.returncode == 0
    done = fastrunner("submit", "--workflow", "shop/order", *connected)
    assert done.returncode == 4
    assert "workflow list" in done.stderr
    for wrong in (("submit",), ("submit", str(file), "--workflow", "shop/order"), ("workflow", "get", "order")):
        done = fastrunner(*wrong, *connected)
        assert done.returncode == 2
        assert "NAMESPACE/NAME" in done.stderr
