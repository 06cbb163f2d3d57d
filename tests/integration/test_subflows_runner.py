"""`run: workflow` in a real runner: workers and the tree are killed while children run; each ends once, and so do their
parents, wherever a client asks."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as r
from tests.integration.commands import fastrunner
from tests.integration.runner_process import RunnerProcess
from tests.integration.test_placement_runner import Connection, connections, ready, start, stop

FINAL = {"completed", "failed", "cancelled"}


class Remote:
    """A service that answers when it is told to, and knows what it was asked for."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked: Counter[str] = Counter()
        """By idempotency key."""
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked[request.headers["Idempotency-Key"]] += 1
        await self.gate.wait()
        return web.json_response({"n": int(request.query["n"])})


@asynccontextmanager
async def serving() -> AsyncIterator[Remote]:
    remote = Remote()
    application = web.Application()
    application.router.add_get("/", remote.answer)
    server = web.AppRunner(application)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    remote.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield remote
    finally:
        remote.gate.set()
        await server.cleanup()


def child(remote: Remote) -> str:
    return (
        "document: {dsl: 1.0.3, namespace: shop, name: child, version: 1.0.0}\ndo:\n"
        f"- ask: {{call: http, with: {{method: get, endpoint: 'http://127.0.0.1:{remote.port}/', "
        "query: {n: '${ \"\\(.n)\" }'}}}\n"
    )


PARENT = """\
document: {dsl: 1.0.3, namespace: shop, name: parent, version: 1.0.0}
do:
- first: {run: {workflow: {namespace: shop, name: child, version: latest, input: {n: '${ .n }'}}}}
- again: {run: {workflow: {namespace: shop, name: child, version: 1.0.0, input: {n: '${ .n + 1 }'}}}}
"""


async def register(connection: Connection, text: str) -> None:
    await connection.call("RegisterWorkflow", r.RegisterWorkflowRequest(workflow_yaml=text), r.RegisterWorkflowResponse)


async def execution(connection: Connection, execution_id: str) -> q.Execution:
    request = q.GetExecutionRequest(execution_id=execution_id)
    found: q.Execution = (await connection.call("GetExecution", request, q.GetExecutionResponse)).execution
    return found


async def ended(runner: RunnerProcess, execution_id: str) -> q.Execution:
    """An execution at its end, asked anew through deaths of workers."""
    for _ in range(600):
        try:
            async with connections(runner, 1) as opened:
                for _ in range(100):
                    found = await execution(opened[0], execution_id)
                    if found.status in FINAL:
                        return found
                    await asyncio.sleep(0.05)
        except (Exception, AssertionError):
            await asyncio.sleep(0.1)
    raise AssertionError(f"{execution_id} does not end")


async def terminals(connection: Connection, execution_id: str) -> list[str]:
    """Its terminal events; what it told has no gap."""
    reply = await connection.call("GetEvents", q.GetEventsRequest(execution_id=execution_id), q.GetEventsResponse)
    assert [event.sequence_number for event in reply.events] == list(range(1, len(reply.events) + 1))
    return [event.event_type for event in reply.events if event.status in FINAL and not event.task_name]


async def until(condition: Any, what: str) -> None:
    for _ in range(6_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited for: {what}")


async def submit_all(opened: Any, count: int) -> None:
    for number in range(count):
        await opened[number % len(opened)].execute(f"p{number}", PARENT, input_json=f'{{"n":{number}}}')


async def check_all(runner: RunnerProcess, remote: Remote, count: int) -> None:
    """Each parent and child has ended once, as it should; no effect had two keys."""
    for number in range(count):
        found = await ended(runner, f"p{number}")
        assert (found.status, found.output_json) == ("completed", f'{{"n":{number + 1}}}'), found
    async with connections(runner, 1) as opened:
        for number in range(count):
            request = q.ListExecutionsRequest(parent_execution_id=f"p{number}")
            reply = await opened[0].call("ListExecutions", request, q.ListExecutionsResponse)
            ids = sorted(each.execution_id for each in reply.executions)
            assert ids == [f"p{number}~1", f"p{number}~2"]
            for execution_id in (f"p{number}", *ids):
                assert await terminals(opened[0], execution_id) == ["workflow_completed"]
    assert len(remote.asked) == 2 * count


async def test_workers_die_while_children_run(tmp_path: Path) -> None:
    """Once while every child waits for its effect, once while ends go from children to parents."""
    count = 12
    async with serving() as remote:
        with start(tmp_path / "data", 2) as runner:
            ready(runner)
            async with connections(runner, 2) as opened:
                await register(opened[0], child(remote))
                await submit_all(opened, count)
            await until(lambda: len(remote.asked) == count, "an effect of each child")
            for worker in runner.workers():
                os.kill(worker["pid"], signal.SIGKILL)
            await until(lambda: sum(remote.asked.values()) >= 2 * count, "every effect again")
            remote.gate.set()
            await until(lambda: len(remote.asked) > count, "the second children")
            for worker in runner.workers():
                os.kill(worker["pid"], signal.SIGKILL)
            await check_all(runner, remote, count)


async def test_the_tree_dies_while_children_run(tmp_path: Path) -> None:
    """What the parents and the children were at is there after the next start; a pause is, too, in both generations."""
    count = 6
    async with serving() as remote:
        with start(tmp_path / "data", 2) as runner:
            ready(runner)
            async with connections(runner, 2) as opened:
                await register(opened[0], child(remote))
                await submit_all(opened, count)
                await until(lambda: len(remote.asked) == count, "an effect of each child")
                pause = m.PauseExecutionRequest(execution_id="p0")
                await opened[0].channel.unary_unary(_command("PauseExecution"))(pause.SerializeToString(), timeout=30)
                while (await execution(opened[0], "p0~1")).status != "paused":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            runner.process.kill()
            runner.end()
        remote.gate.set()
        with start(tmp_path / "data", 2) as runner:
            ready(runner)
            assert (await ended(runner, "p1")).status == "completed"
            async with connections(runner, 1) as opened:
                assert (await execution(opened[0], "p0")).status == "paused"
                assert (await execution(opened[0], "p0~1")).status == "paused"
                resume = m.ResumeExecutionRequest(execution_id="p0")
                await opened[0].channel.unary_unary(_command("ResumeExecution"))(resume.SerializeToString(), timeout=30)
            for number in range(count):
                assert (await ended(runner, f"p{number}")).status == "completed"
            shown = fastrunner("list", "--parent", "p0", "--columns", "id,status", "--target", runner.target)
            assert "p0~1  completed" in shown.stdout
            stop(runner)


def _command(method: str) -> str:
    return f"/ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController/{method}"
