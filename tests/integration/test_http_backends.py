"""The HTTP API of both who serve it, a Stigmer Service and a runner by itself: each operation, on real processes."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fastrunner.access.callers import line_of
from fastrunner.web.api.operations import OPERATIONS
from tests.integration.runner_process import SERVE, running
from tests.integration.stigmer import LONG, SMALL, WRITE, Client, messages, service_process, until
from tests.integration.test_stigmer_runner import has, runner_of
from tests.ports import free_port

LISTENS = (
    "document: {dsl: 1.0.0, namespace: tests, name: listens, version: 1.0.0}\n"
    "do: [{hear: {listen: {to: {one: {with: {type: tests.order, priority: 3}}}}}}]\n"
)
NONE = {"namespace": "tests", "name": "none"}
ORDER = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "tests.order", "priority": 3}


@contextlib.asynccontextmanager
async def served(product: str, folder: Path, **settings: str) -> AsyncIterator[Client]:
    """A client of a Stigmer Service with a runner, or of a runner of two workers alone."""
    if product == "runner":
        with running(folder, SERVE, FASTRUNNER_WORKERS="2", **settings) as runner:
            runner.wait_ready()
            async with aiohttp.ClientSession() as session:
                yield Client(session, runner.ports["http_port"])
        return
    grpc_port = free_port()
    with (
        service_process(folder / "service", f"127.0.0.1:{grpc_port}") as service,
        runner_of(folder / "runner", grpc_port, service.grpc_port) as runner,
    ):
        runner.wait_ready()
        async with aiohttp.ClientSession() as session:
            yield Client(session, service.http_port)


@pytest.mark.parametrize("product", ["stigmer", "runner"])
async def test_each_operation(tmp_path: Path, product: str) -> None:
    async with served(product, tmp_path) as client, asyncio.timeout(240):
        info = (await client.get("/info"))[1]
        assert info["product"] == product
        await workflows(client)
        async with client.feed() as feed:
            assert (await anext(feed))["event"] == "begin"
            await executions(client, product)
            seen: dict[str, str] = {}
            while seen.get("long") != "cancelled":
                execution = (await anext(feed))["data"]["execution"]
                seen[execution["id"]] = execution["status"]
            assert seen["small"] == "completed"
            await counted(client, product)
        await schedules(client)
        await events_in(client)
        await described(client, info["features"])
        await asyncio.to_thread(held, client.base)


async def workflows(client: Client) -> None:
    for document in (SMALL, LONG, LISTENS):
        status, workflow = await client.post("/workflows", {"document": document})
        assert (status, workflow["document"], workflow["is_latest"]) == (201, document, True), workflow
    assert (await client.post("/workflows", {"document": SMALL}))[0] == 200
    assert (await client.post("/workflows", {"document": SMALL.replace("a: 1", "a: 2")}))[0] == 409
    status, problem = await client.post("/workflows", {"document": SMALL.replace("set:", "sett:")})
    assert (status, bool(problem["detail"])) == (400, True)
    found, page = [], {"next": ""}
    while page["next"] is not None:
        _, page = await client.get(f"/workflows?namespace=tests&count=2&after={page['next']}")
        found += [each["name"] for each in page["workflows"]]
    assert found == ["listens", "long", "small"]
    assert (await client.get("/workflows/tests/small"))[1]["document"] == SMALL
    assert (await client.get("/workflows/tests/none"))[0] == 404


async def executions(client: Client, product: str) -> None:
    start = {
        "workflow": {"namespace": "tests", "name": "small"},
        "id": "small",
        "input": {"b": 1},
        "labels": {"k": "v"},
    }
    status, execution = await client.post("/executions", start)
    assert (status, execution["id"], execution["labels"], execution["version"]) == (201, "small", {"k": "v"}, "1.0.0")
    assert (await client.post("/executions", start))[0] == 200
    assert (await client.post("/executions", {**start, "input": {"b": 2}}))[0] == 409
    assert (await client.post("/executions", {**start, "id": "x", "workflow": NONE}))[0] == 404
    found = await client.follow("small")
    assert [each["id"] for each in found if "id" in each] == [str(number) for number in range(1, len(found))]
    assert (found[-2]["data"]["event_type"], found[-1]["event"]) == ("workflow_completed", "end")
    assert await client.follow("small", after=len(found) - 1) == [{"status": 204}]
    assert (await client.follow("small", after=99))[0]["event"] == "reset"
    beyond = (await client.get("/executions/small/events?after=9007199254740991"))[1]
    assert beyond == {"events": [], "last_sequence": len(found) - 1, "has_ended": True}
    page = (await client.get("/executions/small/events?after=1&count=1"))[1]
    assert ([each["sequence_number"] for each in page["events"]], page["has_ended"]) == ([2], True)
    assert (await client.get("/executions/small"))[1]["output_json"] == '{"a":1}'
    start = {"workflow": {"namespace": "tests", "name": "long"}, "id": "long"}
    assert (await client.post("/executions", start))[0] == 201
    await until(lambda: has(client, "long", "running"), "it runs")
    if product == "runner":
        _, execution = await client.get("/executions/long")
        assert re.fullmatch(r"waits until 20.* in task 'second' \(/do/1/second\)", execution["waiting"])
    async with client.session.ws_connect(f"{client.base}/api/v1/executions/long/events/socket") as socket:
        assert (await socket.receive_json())["event"]["event_type"] == "workflow_started"
        for command, status_after in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
            status, problem = await client.post(f"/executions/long/{command}", {"reason": f"{command} it"})
            assert status == 204, problem
            await until(lambda status_after=status_after: has(client, "long", status_after), status_after)  # type: ignore[misc]
        heard = []
        while (message := await socket.receive_json())["type"] != "end":
            heard.append(message["event"]["event_type"])
        assert [each for each in heard if each.startswith("workflow_")][-3:] == [
            f"workflow_{each}" for each in ("paused", "resumed", "cancelled")
        ]
    assert (await client.post("/executions/long/pause"))[0] == 409
    assert (await client.post("/executions/none/pause"))[0] == 404
    page = (await client.get("/executions?namespace=tests&name=long&status=cancelled"))[1]
    assert ([each["id"] for each in page["executions"]], page["next"]) == (["long"], None)
    page = (await client.get("/executions?count=1"))[1]
    assert ([each["id"] for each in page["executions"]], page["next"] is None) == (["long"], False)
    await looked_at(client)


async def looked_at(client: Client) -> None:
    """Counts, versions, documents, and what one waits for."""
    assert (await client.get("/counts"))[1] == {"by_status": {"completed": 1, "cancelled": 1}, "total": 2}
    for query, count in (("name=long", 1), ("version=1.0.0", 2), ("version=2.0.0", 0), ("status=completed", 1)):
        assert (await client.get(f"/counts?{query}"))[1]["total"] == count, query
        assert len((await client.get(f"/executions?{query}"))[1]["executions"]) == count, query
    _, document = await client.get("/executions/small/document")
    assert (document["document"], document["name"], document["version"]) == (SMALL, "small", "1.0.0")
    assert [(each["reference"], each["line"]) for each in document["tasks"]] == [("/do/0/one", 2)]
    _, graph = await client.get("/executions/small/graph")
    assert [each["reference"] for each in graph["nodes"]] == ["/do/0/one"]
    for path in ("document", "graph"):
        assert (await client.get(f"/executions/none/{path}"))[0] == 404


async def counted(client: Client, product: str) -> None:
    """Requests are among the metrics, by operation and status; how long they took; who follows."""
    async with client.session.get(f"{client.base}/metrics") as reply:
        text = await reply.text()
    prefix = "stigmer" if product == "stigmer" else "workflow_runner"
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    assert found[f'{prefix}_http_requests_total{{operation="getExecution",status="200"}}'] >= 3
    assert found[f'{prefix}_http_requests_total{{operation="getDocument",status="404"}}'] == 1
    assert found[f'{prefix}_http_requests_total{{operation="followEvents",status="204"}}'] >= 1
    assert found[f'{prefix}_http_request_duration_seconds_count{{operation="getDocument"}}'] >= 2
    assert f'{prefix}_http_request_duration_seconds_count{{operation="followEvents"}}' not in found
    assert found[f"{prefix}_followers"] == 1


async def schedules(client: Client) -> None:
    """Added, listed, paused, resumed and deleted; what fires is there."""
    small = {"namespace": "tests", "name": "small"}
    adding = {"id": "s/1", "workflow": small, "trigger": {"after": "PT1H"}, "options": {"overlap": "skip"}}
    status, schedule = await client.post("/schedules", adding)
    assert (status, schedule["id"], schedule["name"]) == (201, "s/1", "small"), schedule
    assert (schedule["options"]["overlap"], schedule["options"]["misfire"]) == ("skip", "once")
    assert (await client.post("/schedules", adding))[0] == 200
    assert (await client.post("/schedules", {**adding, "timeout_s": 7}))[0] == 409
    status, problem = await client.post("/schedules", {**adding, "id": "x", "trigger": {"cron": "nonsense"}})
    assert (status, "cron" in problem["detail"]) == (400, True)

    async def fired() -> Any:
        """The first one starts at once."""
        [shown] = (await client.get("/schedules?namespace=tests"))[1]["schedules"]
        return shown["started_count"] == 1

    await until(fired, "it has fired")
    firing = [await client.post("/schedules/s%2F1/fire", {"key": "k"}) for _ in range(2)]
    assert firing == [(200, {"execution_id": "s/1~fire-k"})] * 2
    await until(lambda: has(client, "s/1~fire-k".replace("/", "%2F"), "completed"), "what was fired")
    assert (await client.post("/schedules/s%2F1/pause", {"reason": "rest"}))[0] == 204
    [shown] = (await client.get("/schedules"))[1]["schedules"]
    assert (shown["paused"], shown["reason"]) == (True, "rest")
    assert (await client.post("/schedules/s%2F1/resume"))[0] == 204
    assert (await client.get("/schedules"))[1]["schedules"][0]["paused"] is False
    assert (await client.post("/schedules/s%2F1/delete"))[0] == 204
    assert (await client.get("/schedules"))[1] == {"schedules": [], "next": None}
    assert (await client.post("/schedules/s%2F1/delete"))[0] == 404


async def events_in(client: Client) -> None:
    """An event reaches what listens."""
    start = {"workflow": {"namespace": "tests", "name": "listens"}, "id": "l"}
    assert (await client.post("/executions", start))[0] == 201
    await until(lambda: has(client, "l", "running"), "it listens")
    assert (await client.post("/events", {**ORDER, "data": {"a": 1}}))[0] == 202
    await until(lambda: has(client, "l", "completed"), "it has heard")
    assert (await client.get("/executions/l"))[1]["output_json"] == '[{"a":1}]'
    status, problem = await client.post("/events", {**ORDER, "odd": [1]})
    assert (status, "odd" in problem["detail"]) == (400, True)


async def described(client: Client, features: list[str]) -> None:
    """What there is, and nothing else, is in the description, and served."""
    async with client.session.get(f"{client.base}/openapi.json") as reply:
        document = await reply.json()
    found = {each["operationId"] for methods in document["paths"].values() for each in methods.values()}
    assert found == set(features)
    for operation in OPERATIONS:
        if operation.name not in features and operation.method == "GET":
            assert (await client.get(operation.path.replace("{id}", "small")))[0] == 404


def held(base: str) -> None:
    """Fails if an answer to anything that the description allows, or to what it forbids, is not as it says."""
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    checks = [
        schemathesis.checks.not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    count = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.path.endswith(("/feed", "/stream", "/socket")):
            continue
        count += sent(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE), base, checks)
        if operation.body:
            count += sent(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE), base, checks)
    assert count > 40


def sent(cases: Any, base: str, checks: list[Any]) -> int:
    """How many requests were sent."""
    count = 0

    @settings(
        max_examples=4,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def send(case: Any) -> None:
        nonlocal count
        count += 1
        response = case.call(base_url=base, headers=WRITE, timeout=30)
        case.validate_response(response, checks=checks)

    send()
    return count


async def test_a_runner_tells_callers_apart_and_refuses_strangers(tmp_path: Path) -> None:
    """The same credentials, roles and namespaces as its gRPC port; cookies; names that it is called by; audit."""
    callers, audit = tmp_path / "callers", tmp_path / "audit"
    rights = {"boss": ("admin", ""), "eye": ("read", ""), "bank": ("admin", "bank")}
    callers.write_text("\n".join(line_of(name, *each, f"token-{name}") for name, each in rights.items()))
    settings = {
        "FASTRUNNER_CALLERS_FILE": str(callers),
        "FASTRUNNER_AUDIT_FILE": str(audit),
        "FASTRUNNER_HTTP_ALLOW_HOSTS": "runner.example",
    }
    async with served("runner", tmp_path / "data", **settings) as client:

        async def asked(name: str, method: str, path: str, body: Any = None, **more: str) -> int:
            given = {"Authorization": f"Bearer token-{name}"} if name else {}
            sent = {"headers": {**WRITE, **given, **more}, "json": body}
            async with client.session.request(method, f"{client.base}{path}", **sent) as reply:
                if reply.status >= 400:
                    assert reply.content_type == "application/problem+json"
                return reply.status

        assert await asked("", "GET", "/api/v1/executions") == 401
        assert await asked("eye", "POST", "/api/v1/workflows", {"document": SMALL}) == 403
        assert await asked("bank", "POST", "/api/v1/workflows", {"document": SMALL}) == 403
        assert await asked("boss", "POST", "/api/v1/workflows", {"document": SMALL}) == 201
        start = {"workflow": {"namespace": "tests", "name": "small"}, "id": "e"}
        assert await asked("bank", "POST", "/api/v1/executions", start) == 403
        assert await asked("boss", "POST", "/api/v1/executions", start) == 201
        assert await asked("eye", "GET", "/api/v1/executions/e") == 200
        assert await asked("bank", "GET", "/api/v1/executions/e") == 403
        assert await asked("eye", "POST", "/api/v1/executions/e/cancel", {}) == 403
        assert await asked("eye", "GET", "/api/v1/executions/e", Host="evil.example") == 421
        assert await asked("eye", "GET", "/api/v1/executions/e", Host="runner.example") == 200
        assert await asked("eye", "GET", "/api/v1/executions/e", Origin="https://evil.example") == 403
        given = {**WRITE, "Authorization": "Bearer token-eye"}
        async with client.session.post(f"{client.base}/api/v1/session", headers=given) as reply:
            cookie = reply.headers["Set-Cookie"].partition(";")[0]
        assert await asked("", "GET", "/api/v1/executions/e", Cookie=cookie) == 200
        # Probes are as they were, and a page is for whoever asks for one.
        async with client.session.get(f"{client.base}/healthz", headers={"Host": "any"}) as reply:
            assert reply.status == 200
        async with client.session.get(client.base, headers={"Accept": "text/html"}) as reply:
            assert (reply.status, reply.content_type) == (200, "text/html")
        async with client.session.get(client.base) as reply:
            assert reply.status == 401
    lines = [orjson.loads(line) for line in audit.read_bytes().splitlines()]
    assert ("token:boss", "POST /api/v1/executions", "OK") in [
        (line["caller"], line["method"], line["outcome"]) for line in lines
    ]


async def test_the_api_goes_on_over_restarts_of_workers(tmp_path: Path) -> None:
    """A stream ends with its worker and goes on after its cursor; requests wait for a worker."""
    with running(tmp_path, SERVE, FASTRUNNER_WORKERS="1") as runner:
        runner.wait_ready()
        async with aiohttp.ClientSession() as session, asyncio.timeout(100):
            client = Client(session, runner.ports["http_port"])
            assert (await client.post("/workflows", {"document": LONG}))[0] == 201
            start = {"workflow": {"namespace": "tests", "name": "long"}, "id": "e"}
            assert (await client.post("/executions", start))[0] == 201
            await until(lambda: has(client, "e", "running"), "it runs")
            async with client.session.get(f"{client.base}/api/v1/executions/e/events/stream") as reply:
                following = messages(reply)
                seen = [await anext(following)]
                os.kill(runner.workers()[0]["pid"], signal.SIGKILL)
                seen += [each async for each in following]
            await until(lambda: has(client, "e", "running"), "it is there again")
            assert (await client.post("/executions/e/cancel"))[0] == 204
            rest = await client.follow("e", after=int(seen[-1]["id"]))
            assert [int(each["id"]) for each in (*seen, *rest) if "id" in each] == list(range(1, len(seen) + len(rest)))


async def test_what_a_web_process_takes_on(tmp_path: Path) -> None:
    """So many follow at once; a worker that does not answer is not waited for without end."""
    script = (
        "import runpy, sys\nfrom fastrunner.base import limits\n"
        "limits.API_RUNNER_FOLLOWERS_MAX, limits.API_RUNNER_CALL_S_MAX = 1, 0.05\n"
        "sys.argv = ['fastrunner', 'serve']\nrunpy.run_module('fastrunner', run_name='__main__')\n"
    )
    with running(tmp_path, ("-c", script), FASTRUNNER_WORKERS="1") as runner:
        runner.wait_ready()
        async with aiohttp.ClientSession() as session, asyncio.timeout(100):
            client = Client(session, runner.ports["http_port"])
            async with client.feed() as feed:
                await anext(feed)
                assert (await client.get("/feed"))[0] == 429
                worker = runner.workers()[0]["pid"]
                os.kill(worker, signal.SIGSTOP)
                try:
                    status, problem = await client.get("/executions")
                finally:
                    # The supervisor replaces one that hangs.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGCONT)
                assert (status, "no worker has answered within 0.05 s" in problem["detail"]) == (503, True)
