"""The HTTP API on a Stigmer Service: what it refuses and how, what strangers' pages may, and that it is as told."""

import asyncio
import contextlib
import random
import re
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import grpc
import grpc.aio
import orjson
import pytest
from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest, MockResponse
from yarl import URL

from fastrunner.access.callers import line_of
from fastrunner.access.roles import Open
from fastrunner.base import limits
from fastrunner.stigmer.server import CannotServe
from fastrunner.web.api.openapi import openapi_document
from fastrunner.web.api.operations import OPERATIONS, Operation, Stream
from tests.integration.callbacks import until
from tests.integration.runner_process import ROOT
from tests.integration.stigmer import (
    LONG,
    SMALL,
    WRITE,
    Client,
    Reporter,
    ScriptedRunner,
    event,
    messages,
    service,
)

CERTIFICATES = Path(__file__).parent.parent / "certificates"
START = {"workflow": {"namespace": "tests", "name": "small"}}
PROBLEM = "application/problem+json"
BODIES: Mapping[str, Any] = {
    "createWorkflow": {"document": SMALL},
    "startExecution": {**START, "input": {}, "env": {"a": "b"}, "labels": {"c": "d"}, "timeout_s": 1},
    "cancelExecution": {"reason": "r", "force": True},
    "pauseExecution": {"reason": "r"},
    "resumeExecution": {"reason": "r"},
    "addSchedule": {**START, "id": "s", "trigger": {"every": "PT1H"}, "options": {"overlap": "skip"}},
    "pauseSchedule": {"reason": "r"},
    "resumeSchedule": {"reason": "r"},
    "fireSchedule": {"key": "k"},
    "sendEvent": {"specversion": "1.0", "id": "1", "source": "/tests", "type": "a.b", "data": {"a": 1}, "more": 1},
}
"""What operations take."""
Headers = Mapping[str, str]
READ: Headers = {}


async def ask(
    client: Client, method: str, path: str, body: Any = None, *, data: bytes | None = None, headers: Headers = READ
) -> tuple[int, Any]:
    """Status and body of a reply that is as the description says."""
    sent = dict(headers)
    if body is not None:
        data, sent = orjson.dumps(body), {"Content-Type": "application/json", **sent}
    async with client.session.request(
        method, URL(f"{client.base}{path}", encoded=True), data=data, headers=sent
    ) as reply:
        content = await reply.read()
        for name in ("Content-Security-Policy", "X-Content-Type-Options", "Cache-Control"):
            assert name in reply.headers
        assert "Access-Control-Allow-Origin" not in reply.headers
        described(method, path, reply, content)
        if reply.status >= 400:
            assert reply.content_type == PROBLEM
            assert orjson.loads(content)["status"] == reply.status
        return reply.status, orjson.loads(content) if content and reply.content_type.endswith("json") else None


@cache
def description() -> OpenAPI:
    """What openapi-core reads of `/openapi.json`."""
    config = Config(extra_media_type_deserializers={PROBLEM: orjson.loads})
    return OpenAPI.from_dict(orjson.loads(openapi_document(frozenset())), config=config)


def described(method: str, path: str, reply: aiohttp.ClientResponse, content: bytes) -> None:
    """Fails if openapi-core finds a reply that is not what `/openapi.json` says of it."""
    path = path.partition("?")[0]
    patterns = [re.sub(r"\{\w+\}", "[^/]+", f"/api/v1{each.path}") for each in OPERATIONS if each.method == method]
    if not any(re.fullmatch(pattern, path) for pattern in patterns):
        return
    request = MockRequest("http://localhost", method.lower(), path)
    response = MockResponse(content, reply.status, dict(reply.headers), reply.content_type)
    description().validate_response(request, response)


def test_every_operation_is_described() -> None:
    document = orjson.loads(openapi_document(frozenset()))
    description().check_spec()
    found = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert found == {(operation.method, operation.path) for operation in OPERATIONS}
    start = document["components"]["schemas"]["StartExecution"]
    assert start["required"] == ["workflow"]
    assert "caller's id" in start["properties"]["id"]["description"]


async def test_the_way_of_a_workflow(tmp_path: Path) -> None:
    runner = ScriptedRunner()
    async with runner.serving(), service(tmp_path, runner.port) as (_, reporter, client):
        status, workflow = await ask(client, "POST", "/api/v1/workflows", {"document": SMALL}, headers=WRITE)
        assert (status, workflow["namespace"], workflow["document"], workflow["is_latest"]) == (
            201,
            "tests",
            SMALL,
            True,
        )
        assert (await ask(client, "POST", "/api/v1/workflows", {"document": SMALL}, headers=WRITE))[0] == 200
        other = SMALL.replace("a: 1", "a: 2")
        assert (await ask(client, "POST", "/api/v1/workflows", {"document": other}, headers=WRITE))[0] == 409
        newer = SMALL.replace("version: 1.0.0", "version: 1.10.0")
        assert (await ask(client, "POST", "/api/v1/workflows", {"document": newer}, headers=WRITE))[0] == 201
        _, page = await ask(client, "GET", "/api/v1/workflows?count=1")
        assert ([each["version"] for each in page["workflows"]], page["next"]) == (["1.10.0"], "tests/small/1.10.0")
        _, page = await ask(client, "GET", f"/api/v1/workflows?count=5&after={page['next']}")
        assert ([each["version"] for each in page["workflows"]], page["next"]) == (["1.0.0"], None)
        assert (await ask(client, "GET", "/api/v1/workflows/tests/small"))[1]["version"] == "1.10.0"
        assert (await ask(client, "GET", "/api/v1/workflows/tests/small?version=1.0.0"))[1]["document"] == SMALL
        assert (await ask(client, "GET", "/api/v1/workflows/tests/other"))[0] == 404
        for number in range(3):
            assert (await ask(client, "POST", "/api/v1/executions", {**START, "id": f"e{number}"}, headers=WRITE))[
                0
            ] == 201
        await reporter.send(event("e0", 1, "workflow_started"), event("e0", 2, "workflow_failed", error={"code": "X"}))
        _, execution = await ask(client, "GET", "/api/v1/executions/e0")
        assert (execution["status"], execution["error"], execution["version"]) == ("failed", {"code": "X"}, "1.10.0")
        _, page = await ask(client, "GET", "/api/v1/executions?count=2&status=pending&namespace=tests&name=small")
        assert [each["id"] for each in page["executions"]] == ["e2", "e1"]
        _, rest = await ask(client, "GET", f"/api/v1/executions?before={page['next']}")
        assert ([each["id"] for each in rest["executions"]], rest["next"]) == (["e0"], None)
        counts = (await ask(client, "GET", "/api/v1/counts?namespace=tests"))[1]
        assert counts == {"by_status": {"failed": 1, "pending": 2}, "total": 3}
        _, events = await ask(client, "GET", "/api/v1/executions/e0/events?after=1")
        assert ([each["event_type"] for each in events["events"]], events["has_ended"]) == (["workflow_failed"], True)
        assert events["events"][0]["error"] == {"code": "X"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/executions?count=0", "count is 0"),
        ("/executions?count=501", "from 1 to 500"),
        ("/executions?count=x", "an integer is needed"),
        ("/executions?count=1&count=2", "more than once"),
        ("/executions?state=running", "no parameter 'state'"),
        ("/executions?status=gone", "one of pending, running"),
        ("/executions?before=x", "`next` of the page before"),
        ("/workflows?after=x", "`next` of the page before"),
        ("/executions/e/events?after=-1", "an integer is needed"),
    ],
)
async def test_what_a_query_may_not_be(tmp_path: Path, path: str, words: str) -> None:
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(event("e", 1))
        status, problem = await ask(client, "GET", f"/api/v1{path}")
        assert (status, words in problem["detail"]) == (400, True), problem


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/workflows", {}, "document"),
        ("/workflows", {"document": SMALL, "more": 1}, "more"),
        ("/workflows", {"document": 1}, "document"),
        ("/workflows", [], "(body)"),
        ("/executions", {"workflow": {"namespace": "tests"}}, "workflow.name"),
        ("/executions", {**START, "timeout_s": -1}, "timeout_s"),
        ("/executions", {**START, "timeout_s": "1"}, "timeout_s"),
        ("/executions", {**START, "labels": {"a": 1}}, "labels.a"),
        ("/executions", {**START, "id": "e" * 256}, "id"),
        ("/executions", {**START, "id": ".."}, "id"),
        ("/executions/e/cancel", {"reason": "x" * 1025}, "reason"),
    ],
)
async def test_what_a_body_may_not_be(tmp_path: Path, path: str, body: Any, field: str) -> None:
    async with service(tmp_path) as (_, _, client):
        status, problem = await ask(client, "POST", f"/api/v1{path}", body, headers=WRITE)
        assert (status, [each["field"] for each in problem["problems"]]) == (400, [field])


async def test_what_is_asked_beyond_the_last_event(tmp_path: Path) -> None:
    """It is not told that it is there."""
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"), event("e", 2))
        for after in (2, 3, 2**53 - 1):
            page = (await ask(client, "GET", f"/api/v1/executions/e/events?after={after}"))[1]
            assert page == {"events": [], "last_sequence": 2, "has_ended": False}


async def test_bodies_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_BODY_SIZE_BYTES_MAX", 1_000)
    async with service(tmp_path) as (_, _, client):
        for data, expected in ((b"{", 400), (b"", 400), (b'"' + b"x" * 1_000 + b'"', 413)):
            status, _ = await ask(
                client, "POST", "/api/v1/executions", data=data, headers={**WRITE, "Content-Type": "application/json"}
            )
            assert status == expected
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            status, _ = await ask(
                client, "POST", "/api/v1/executions", data=b"{}", headers={**WRITE, "Content-Type": kind}
            )
            assert status == 415
        deep: Any = 1
        for _ in range(201):
            deep = [deep]
        status, problem = await ask(client, "POST", "/api/v1/executions", {**START, "input": deep}, headers=WRITE)
        assert (status, "deeper than 200" in problem["detail"]) == (400, True)
        status, problem = await ask(client, "POST", "/api/v1/executions", {**START, "id": "a\nb"}, headers=WRITE)
        assert (status, "control character" in problem["detail"]) == (400, True)


async def test_the_problems_of_a_document(tmp_path: Path) -> None:
    async with service(tmp_path) as (_, _, client):
        wrong = SMALL.replace("do: [{one: {set: {a: 1}}}]", "do: [{one: {set: {a: 1}, unknown: 1}}, {two: {}}]")
        status, problem = await ask(client, "POST", "/api/v1/workflows", {"document": wrong}, headers=WRITE)
        assert (status, len(problem["problems"]) >= 2) == (400, True)
        assert problem["problems"][0]["field"].startswith("/do/")
        assert {"code", "line", "column", "message"} <= set(problem["problems"][0])
        assert (await ask(client, "GET", "/api/v1/workflows"))[1]["workflows"] == []


async def test_pages_have_so_many_rows_where_nothing_is_asked(tmp_path: Path) -> None:
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(*(event(f"e{number}", 1) for number in range(60)))
        assert len((await ask(client, "GET", "/api/v1/executions"))[1]["executions"]) == limits.API_PAGE_ROWS_DEFAULT
        assert len((await ask(client, "GET", "/api/v1/executions?count=500"))[1]["executions"]) == 60


async def test_only_its_own_names_reach_it(tmp_path: Path) -> None:
    """A stranger's name that leads here (rebinding) is refused, on every path but those of probes."""
    async with service(tmp_path, allow_hosts=("Stigmer.example",)) as (served, _, client):
        port = served.http_port
        for host in ("localhost", f"127.0.0.1:{port}", f"[::1]:{port}", "stigmer.example", "STIGMER.example.:8090"):
            assert (await ask(client, "GET", "/api/v1/executions", headers={"Host": host}))[0] == 200
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "localhost.evil.example",
            "localhost@evil.example",
            "",
            "[",
        ):
            for path in ("/api/v1/executions", "/openapi.json", "/metrics", "/", "/unknown"):
                assert (await ask(client, "GET", path, headers={"Host": host}))[0] == 421


async def test_only_its_own_pages_call(tmp_path: Path) -> None:
    async with service(tmp_path, allow_origins=("https://console.example",)) as (served, _, client):
        own = f"http://127.0.0.1:{served.http_port}"
        for origin in (own, "https://console.example"):
            assert (await ask(client, "GET", "/api/v1/executions", headers={"Origin": origin}))[0] == 200
        for origin in (
            "null",
            "https://evil.example",
            "https://console.example.evil.example",
            "http://127.0.0.1:1",
            "",
        ):
            assert (await ask(client, "GET", "/api/v1/executions", headers={"Origin": origin}))[0] == 403
            assert (
                await ask(client, "POST", "/api/v1/workflows", {"document": SMALL}, headers={**WRITE, "Origin": origin})
            )[0] == 403
        # What browsers ask before is not answered with leave.
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        assert (await ask(client, "OPTIONS", "/api/v1/workflows", headers=preflight))[0] in (403, 405)


async def test_what_changes_something_must_be_meant(tmp_path: Path) -> None:
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(event("e", 1))
        for operation in OPERATIONS:
            if operation.method == "POST":
                path = "/api/v1" + operation.path.replace("{id}", "e")
                status, problem = await ask(client, "POST", path, {})
                assert (status, "X-Requested-By" in problem["detail"]) == (403, True)
        sent = {**WRITE, "Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert (await ask(client, "POST", "/api/v1/executions/e/cancel", data=b"{}", headers=sent))[0] == 415


async def test_callers_and_their_roles(tmp_path: Path) -> None:
    """Each operation wants its role; nobody sees what is outside of its namespaces, or learns that it is there."""
    tokens = {
        "reader": ("read", ""),
        "submitter": ("submit", ""),
        "controller": ("control", ""),
        "admin": ("admin", ""),
        "confined": ("admin", "bank"),
    }
    callers = tmp_path / "callers"
    callers.write_text("\n".join(line_of(name, *rights, f"token-{name}") for name, rights in tokens.items()))
    runner = ScriptedRunner()
    async with (
        runner.serving(),
        service(tmp_path / "data", runner.port, callers_file=callers) as (_, reporter, client),
    ):

        async def asked(name: str, method: str, path: str, body: Any = None) -> int:
            given = {"Authorization": f"Bearer token-{name}"} if name else {}
            return (await ask(client, method, path, body, headers={**WRITE, **given}))[0]

        assert await asked("", "GET", "/api/v1/executions") == 401
        assert await asked("stranger", "GET", "/api/v1/executions") == 401
        assert await asked("", "GET", "/metrics") == 401
        assert await asked("reader", "GET", "/metrics") == 200
        assert await asked("admin", "POST", "/api/v1/workflows", {"document": SMALL}) == 201
        await asked("admin", "POST", "/api/v1/executions", {**START, "id": "e"})
        await reporter.send(event("e", 1, "workflow_started"))
        roles = {"read": "reader", "submit": "submitter", "control": "controller", "admin": "admin"}
        for operation in OPERATIONS:
            if isinstance(operation.perform, Stream):
                continue
            path = operation.path.replace("{id}", "e").replace("{namespace}/{name}", "tests/small")
            body = BODIES.get(operation.name, {}) if operation.body else None
            for role, name in roles.items():
                status = await asked(name, operation.method, f"/api/v1{path}", body)
                expected = role in (operation.role, "admin") or isinstance(operation.role, Open)
                assert (status < 300) is expected, (operation.name, name, status)
                assert expected or status == 403
        for path in ("/executions/e", "/executions/e/events", "/executions/e/events/stream"):
            assert await asked("confined", "GET", f"/api/v1{path}") == 404
        assert await asked("confined", "POST", "/api/v1/executions/e/cancel", {}) == 404
        assert await asked("confined", "GET", "/api/v1/workflows/tests/small") == 403
        assert await asked("confined", "POST", "/api/v1/executions", START) == 403
        assert await asked("confined", "POST", "/api/v1/workflows", {"document": SMALL}) == 403
        assert await asked("confined", "POST", "/api/v1/events", BODIES["sendEvent"]) == 403
        assert await asked("confined", "POST", "/api/v1/schedules", BODIES["addSchedule"]) == 403
        assert await asked("confined", "GET", "/api/v1/schedules?namespace=tests") == 403
        for command in ("pause", "resume", "delete"):
            assert await asked("confined", "POST", f"/api/v1/schedules/s/{command}") == 404
        given = {"Authorization": "Bearer token-confined"}
        assert (await ask(client, "GET", "/api/v1/executions", headers=given))[1]["executions"] == []
        assert (await ask(client, "GET", "/api/v1/workflows", headers=given))[1]["workflows"] == []
        assert (await ask(client, "GET", "/api/v1/counts", headers=given))[1]["total"] == 0


async def test_a_stream_ends_with_its_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_SWEEP_INTERVAL_S", 0.02)
    callers = tmp_path / "callers"
    lines = [line_of(name, "read", "", f"token-{name}") for name in ("gone", "less", "stays")]
    callers.write_text("\n".join(lines))
    async with service(tmp_path / "data", callers_file=callers) as (_, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"))
        async with contextlib.AsyncExitStack() as stack:
            replies = {}
            for name in ("gone", "less", "stays"):
                asking = client.session.get(
                    f"{client.base}/api/v1/executions/e/events/stream",
                    headers={"Authorization": f"Bearer token-{name}"},
                )
                replies[name] = await stack.enter_async_context(asking)
                assert await replies[name].content.readline() == b"id: 1\n"
            callers.write_text(f"{line_of('less', 'submit', '', 'token-less')}\n{lines[2]}\n")
            for name in ("gone", "less"):
                assert b"id: 2" not in await asyncio.wait_for(replies[name].content.read(), 20)
            await reporter.send(event("e", 2, "workflow_completed"))
            assert b"id: 2" in await asyncio.wait_for(replies["stays"].content.read(), 20)


async def test_what_changes_something_is_in_the_audit_log(tmp_path: Path) -> None:
    """So is what is denied to a caller who is known; strangers, and what only looks, are not."""
    callers, audit = tmp_path / "callers", tmp_path / "audit"
    callers.write_text(f"{line_of('boss', 'admin', '', 'token-boss')}\n{line_of('eye', 'read', '', 'token-eye')}\n")
    runner = ScriptedRunner()
    async with (
        runner.serving(),
        service(tmp_path / "data", runner.port, callers_file=callers, audit_file=audit) as (_, _, client),
    ):
        boss, eye = ({**WRITE, "Authorization": f"Bearer token-{name}"} for name in ("boss", "eye"))
        await ask(client, "POST", "/api/v1/workflows", {"document": SMALL}, headers=boss)
        _, made = await ask(client, "POST", "/api/v1/executions", {**START, "input": {"secret": 1}}, headers=boss)
        await ask(client, "POST", f"/api/v1/executions/{made['id']}/cancel", {"reason": "paid twice"}, headers=boss)
        await ask(client, "POST", "/api/v1/executions", {**START, "timeout_s": -1}, headers=boss)
        await ask(client, "POST", "/api/v1/executions/e/pause", headers=eye)
        await ask(client, "GET", "/api/v1/executions", headers=eye)
        await ask(client, "POST", "/api/v1/executions", START, headers=WRITE)
    lines = [orjson.loads(line) for line in audit.read_bytes().splitlines()]
    assert [(line["caller"], line["method"].split("/v1")[1], line["outcome"]) for line in lines] == [
        ("token:boss", "/workflows", "OK"),
        ("token:boss", "/executions", "OK"),
        ("token:boss", "/executions/{id}/cancel", "OK"),
        ("token:boss", "/executions", "400"),
        ("token:eye", "/executions/{id}/pause", "403"),
    ]
    assert (lines[1]["execution"], lines[1]["workflow"]) == (made["id"], "tests/small:latest")
    assert (lines[2]["execution"], lines[2]["reason"]) == (made["id"], "paid twice")
    assert b"secret" not in audit.read_bytes()


async def test_the_document_of_an_execution(tmp_path: Path) -> None:
    """As it was accepted, though newer versions have come, and with the places of its tasks."""
    runner = ScriptedRunner()
    async with runner.serving(), service(tmp_path, runner.port) as (_, reporter, client):
        await ask(client, "POST", "/api/v1/workflows", {"document": LONG}, headers=WRITE)
        start = {"workflow": {"namespace": "tests", "name": "long"}, "id": "e"}
        assert (await ask(client, "POST", "/api/v1/executions", start, headers=WRITE))[0] == 201
        newer = LONG.replace("version: 1.0.0", "version: 2.0.0")
        await ask(client, "POST", "/api/v1/workflows", {"document": newer}, headers=WRITE)
        status, found = await ask(client, "GET", "/api/v1/executions/e/document")
        assert (status, found["document"], found["version"]) == (200, LONG, "1.0.0")
        assert found["tasks"][1] == {
            "reference": "/do/1/second",
            "name": "second",
            "kind": "wait",
            "line": 2,
            "column": 31,
            "end_line": 2,
        }
        await reporter.send(event("other", 1))
        status, problem = await ask(client, "GET", "/api/v1/executions/other/document")
        assert (status, "others than this service" in problem["detail"]) == (404, True)


async def test_the_graph_of_an_execution(tmp_path: Path) -> None:
    """Of the version that runs: tasks by the references of their events, and the ways between them."""
    runner = ScriptedRunner()
    async with runner.serving(), service(tmp_path, runner.port) as (_, reporter, client):
        await ask(client, "POST", "/api/v1/workflows", {"document": LONG}, headers=WRITE)
        start = {"workflow": {"namespace": "tests", "name": "long"}, "id": "e"}
        assert (await ask(client, "POST", "/api/v1/executions", start, headers=WRITE))[0] == 201
        newer = LONG.replace("version: 1.0.0", "version: 2.0.0").replace("third", "other")
        await ask(client, "POST", "/api/v1/workflows", {"document": newer}, headers=WRITE)
        status, found = await ask(client, "GET", "/api/v1/executions/e/graph")
        assert (status, [node["reference"] for node in found["nodes"]]) == (
            200,
            ["/do/0/first", "/do/1/second", "/do/2/third"],
        )
        assert found["nodes"][1] == {
            "reference": "/do/1/second",
            "name": "second",
            "kind": "wait",
            "parent": "",
            "label": "3600 s",
        }
        ends = [(edge["source"], edge["target"]) for edge in found["edges"]]
        assert ends == [
            ("start:", "/do/0/first"),
            ("/do/0/first", "/do/1/second"),
            ("/do/1/second", "/do/2/third"),
            ("/do/2/third", "end:"),
        ]
        await reporter.send(event("other", 1))
        status, problem = await ask(client, "GET", "/api/v1/executions/other/graph")
        assert (status, "others than this service" in problem["detail"]) == (404, True)


async def test_who_answers_and_who_asks(tmp_path: Path) -> None:
    callers = tmp_path / "callers"
    callers.write_text(line_of("eye", "read", "", "token-eye"))
    async with service(tmp_path / "data", callers_file=callers) as (_, _, client):
        assert (await ask(client, "GET", "/api/v1/info"))[0] == 401
        _, info = await ask(client, "GET", "/api/v1/info", headers={"Authorization": "Bearer token-eye"})
        assert (info["product"], info["caller"], info["roles"]) == ("stigmer", "token:eye", ["read"])
        assert info["features"] == [operation.name for operation in OPERATIONS]
    async with service(tmp_path / "open") as (_, _, client):
        _, info = await ask(client, "GET", "/api/v1/info")
        assert (info["caller"], info["roles"]) == (None, ["admin", "control", "read", "submit"])


async def test_the_feed_tells_what_changes(tmp_path: Path) -> None:
    """Whoever opens it and then lists knows all, and each further change; it goes on from a cursor."""
    runner = ScriptedRunner()
    async with runner.serving(), service(tmp_path, runner.port) as (_, reporter, client):
        await ask(client, "POST", "/api/v1/workflows", {"document": SMALL}, headers=WRITE)
        await reporter.send(event("before", 1, "workflow_started"))
        async with client.feed() as feed, asyncio.timeout(30):
            first = await anext(feed)
            assert (first["event"], first["data"]["cursor"]) == ("begin", first["id"])
            await ask(client, "POST", "/api/v1/executions", {**START, "id": "e"}, headers=WRITE)
            change = (await anext(feed))["data"]["execution"]
            assert (change["id"], change["namespace"], change["status"]) == ("e", "tests", "pending")
            await reporter.send(event("e", 1, "workflow_started"))
            while change["status"] != "running":
                change = (message := await anext(feed))["data"]["execution"]
        await reporter.send(event("e", 2, "workflow_completed"), event("other", 1, "workflow_started"))
        async with client.feed(f"?after={message['id']}") as feed, asyncio.timeout(30):
            assert (await anext(feed))["event"] == "begin"
            found = [(await anext(feed))["data"]["execution"] for _ in range(2)]
            assert [(each["id"], each["status"]) for each in found] == [("e", "completed"), ("other", "running")]
        async with client.feed(f"?after={message['id']}&namespace=tests") as feed, asyncio.timeout(30):
            await anext(feed)
            assert (await anext(feed))["data"]["execution"]["id"] == "e"
            await reporter.send(event("e2", 1))
            await ask(client, "POST", "/api/v1/executions", {**START, "id": "e3"}, headers=WRITE)
            assert (await anext(feed))["data"]["execution"]["id"] == "e3"


async def test_the_feed_begins_anew_where_it_cannot_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_FEED_CHANGES_MAX", 3)
    monkeypatch.setattr(limits, "API_FEED_PAGE_MAX", 2)
    async with service(tmp_path) as (_, reporter, client), asyncio.timeout(60):
        async with client.feed() as feed:
            begin = (await anext(feed))["id"]
        await reporter.send(*(event(f"e{number}", 1) for number in range(3)))
        async with client.feed(f"?after={begin}") as feed:
            assert (await anext(feed))["event"] == "begin"
            assert [(await anext(feed))["data"]["execution"]["id"] for _ in range(3)] == ["e0", "e1", "e2"]
        await reporter.send(event("e0", 2), event("e3", 1))
        for cursor in (begin, "gone-7", "x"):
            async with client.feed(f"?after={cursor}") as feed:
                first = await anext(feed)
                assert (first["event"], first["id"] == begin) == ("reset", False)


async def test_changes_are_gathered_for_who_follows_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_FEED_PAUSE_S", 1.0)
    async with service(tmp_path) as (_, reporter, client), client.feed() as feed, asyncio.timeout(60):
        await anext(feed)
        for number in range(1, 20):
            await reporter.send(event("e", number))
        seen = [(await anext(feed))["data"]["execution"]["last_sequence"]]
        while seen[-1] < 19:
            seen.append((await anext(feed))["data"]["execution"]["last_sequence"])
        assert len(seen) < 10


async def test_a_feed_ends_with_its_credentials_and_shows_its_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STIGMER_SWEEP_INTERVAL_S", 0.02)
    callers = tmp_path / "callers"
    callers.write_text("\n".join(line_of(name, "admin", name, f"token-{name}") for name in ("tests", "bank")))
    runner = ScriptedRunner()
    async with (
        runner.serving(),
        service(tmp_path / "data", runner.port, callers_file=callers) as (_, _, client),
        asyncio.timeout(60),
    ):
        own = {"Authorization": "Bearer token-tests"}
        await ask(client, "POST", "/api/v1/workflows", {"document": SMALL}, headers={**WRITE, **own})
        path = f"{client.base}/api/v1/feed"
        async with (
            client.session.get(path, headers=own) as shown,
            client.session.get(path, headers={"Authorization": "Bearer token-bank"}) as hidden,
        ):
            await ask(client, "POST", "/api/v1/executions", {**START, "id": "e"}, headers={**WRITE, **own})
            feed = messages(shown)
            assert [(await anext(feed))["event"] for _ in range(2)] == ["begin", "change"]
            callers.write_text(line_of("tests", "admin", "tests", "token-tests"))
            assert b"change" not in await hidden.content.read()


def cookie_of(reply: aiohttp.ClientResponse) -> tuple[str, str]:
    """The cookie of a reply as a client sends it, and what the server says of it."""
    whole = reply.headers["Set-Cookie"]
    return whole.partition(";")[0], whole


async def test_a_cookie_stands_for_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what the token is good for, as long as it is good, and no longer than its own time."""
    monkeypatch.setattr(limits, "STIGMER_SWEEP_INTERVAL_S", 0.02)
    callers = tmp_path / "callers"
    callers.write_text("\n".join(line_of(name, name, "", f"token-{name}") for name in ("read", "control")))
    async with service(tmp_path / "data", callers_file=callers) as (_, reporter, client):
        path = f"{client.base}/api/v1/session"
        await reporter.send(event("e", 1, "workflow_started"))

        async def begun(**given: str) -> tuple[str, str]:
            async with client.session.post(path, headers={**WRITE, **given}) as reply:
                assert (reply.status, (await reply.json())["ends_ms"] > 0) == (200, True), await reply.text()
                return cookie_of(reply)

        assert (await ask(client, "POST", "/api/v1/session", headers=WRITE))[0] == 401
        wrong = {**WRITE, "Authorization": "Bearer nobody"}
        assert (await ask(client, "POST", "/api/v1/session", headers=wrong))[0] == 401
        cookie, whole = await begun(Authorization="Bearer token-read")
        assert all(part in whole for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=3"))
        assert "Secure" not in whole
        assert "token-read" not in whole
        given = {"Cookie": cookie}
        assert (await ask(client, "GET", "/api/v1/executions/e", headers=given))[0] == 200
        # Its roles are the token's, and a cookie does not make a request meant.
        assert (await ask(client, "POST", "/api/v1/executions/e/pause", headers={**given, **WRITE}))[0] == 403
        control, _ = await begun(Authorization="Bearer token-control")
        status, problem = await ask(client, "POST", "/api/v1/executions/e/pause", headers={"Cookie": control})
        assert (status, "X-Requested-By" in problem["detail"]) == (403, True)
        # Renewed by itself; by TLS at a proxy it is for TLS alone.
        renewed, _ = await begun(Cookie=cookie)
        assert renewed != cookie
        for changed in (cookie[:-2] + "AA", cookie.partition("=")[0] + "=", cookie.partition("=")[0] + "=\u00e4"):
            assert (await ask(client, "GET", "/api/v1/executions/e", headers={"Cookie": changed}))[0] == 401
        # Ended, copies of it are of no use.
        async with client.session.delete(path, headers={**WRITE, **given}) as reply:
            assert (reply.status, "Max-Age=0" in cookie_of(reply)[1]) == (204, True)
        assert (await ask(client, "GET", "/api/v1/executions/e", headers=given))[0] == 401
        assert (await ask(client, "GET", "/api/v1/executions/e", headers={"Cookie": renewed}))[0] == 200
        # The stream that it has opened ends with the token.
        stream = client.session.get(f"{client.base}/api/v1/executions/e/events/stream", headers={"Cookie": renewed})
        async with stream as reply:
            assert await reply.content.readline() == b"id: 1\n"
            callers.write_text(line_of("control", "control", "", "token-control"))
            assert b"id: 2" not in await asyncio.wait_for(reply.content.read(), 20)
        assert (await ask(client, "GET", "/api/v1/executions/e", headers={"Cookie": renewed}))[0] == 401
    async with service(tmp_path / "data") as (_, _, client):
        status, session = await ask(client, "POST", "/api/v1/session", headers=WRITE)
        assert (status, session) == (200, {"ends_ms": 0})


async def test_a_session_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = tmp_path / "callers"
    callers.write_text(line_of("eye", "read", "", "token-eye"))
    own = {**WRITE, "Authorization": "Bearer token-eye", "Origin": "https://console.example"}
    settings: dict[str, Any] = {"callers_file": callers, "allow_origins": ("https://console.example",)}

    async def shown(client: Client, cookie: str) -> int:
        return (await ask(client, "GET", "/api/v1/executions", headers={"Cookie": cookie}))[0]

    async with (
        service(tmp_path / "data", **settings) as (_, _, client),
        client.session.post(f"{client.base}/api/v1/session", headers=own) as reply,
    ):
        cookie, whole = cookie_of(reply)
        assert (cookie.startswith("__Host-"), "Secure" in whole) == (True, True)
    # The key stays with the folder: another process knows it.
    async with service(tmp_path / "data", **settings) as (_, _, client):
        assert await shown(client, cookie) == 200
        monkeypatch.setattr(limits, "API_SESSION_S", -1.0)
        async with client.session.post(f"{client.base}/api/v1/session", headers=own) as reply:
            assert await shown(client, cookie_of(reply)[0]) == 401
        monkeypatch.setattr(limits, "API_SESSION_S", 60.0)
        monkeypatch.setattr(limits, "API_SESSION_AGE_S_MAX", -1.0)
        async with client.session.post(f"{client.base}/api/v1/session", headers={**WRITE, "Cookie": cookie}) as reply:
            assert await shown(client, cookie_of(reply)[0]) == 401
        monkeypatch.setattr(limits, "API_SESSION_TOKEN_SIZE_CHARS_MAX", 8)
        status, problem = await ask(client, "POST", "/api/v1/session", headers=own)
        assert (status, "at most" in problem["detail"]) == (400, True)
        monkeypatch.setattr(limits, "API_SESSIONS_ENDED_MAX", 0)
        assert (await ask(client, "DELETE", "/api/v1/session", headers={**WRITE, "Cookie": cookie}))[0] == 204
        assert await shown(client, cookie) == 200
    (tmp_path / "data" / "session.key").unlink()
    async with service(tmp_path / "data", **settings) as (_, _, client):
        assert await shown(client, cookie) == 401


async def test_events_over_a_socket(tmp_path: Path) -> None:
    async with service(tmp_path) as (served, reporter, client), asyncio.timeout(60):
        await reporter.send(event("e", 1, "workflow_started"), event("e", 2))
        path = f"{client.base}/api/v1/executions/e/events/socket"
        async with client.session.ws_connect(path) as talk:
            first = await talk.receive_json()
            assert (first["type"], first["id"], first["event"]["event_type"]) == ("progress", 1, "workflow_started")
            assert (await talk.receive_json())["id"] == 2
            await talk.send_str("whatever it says")
            await reporter.send(event("e", 3))
            assert (await talk.receive_json())["id"] == 3
        async with client.session.ws_connect(f"{path}?after=2") as talk:
            assert (await talk.receive_json())["id"] == 3
            await reporter.send(event("e", 4, "workflow_completed"))
            assert [(await talk.receive_json())["type"] for _ in range(2)] == ["progress", "end"]
            assert (await talk.receive()).type is aiohttp.WSMsgType.CLOSE
        async with client.session.ws_connect(f"{path}?after=4") as talk:
            assert await talk.receive_json() == {"type": "end"}
        async with client.session.ws_connect(f"{path}?after=9") as talk:
            reset = await talk.receive_json()
            assert (reset["type"], reset["execution"]["last_sequence"]) == ("reset", 4)
            assert [(await talk.receive_json())["id"] for _ in range(4)] == [1, 2, 3, 4]
        # Who goes away is not followed by anybody any more.
        await reporter.send(event("other", 1))
        async with client.session.ws_connect(path.replace("/e/", "/other/")) as talk:
            await talk.receive_json()
            assert served._followers.count == 1
        await until(lambda: served._followers.count == 0, "nobody follows any more")


async def test_what_is_no_socket_and_whose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = tmp_path / "callers"
    callers.write_text(line_of("eye", "read", "", "token-eye"))
    async with service(tmp_path / "data", callers_file=callers) as (_, reporter, client):
        await reporter.send(event("e", 1))
        path = "/api/v1/executions/e/events/socket"
        own = {"Authorization": "Bearer token-eye"}
        assert (await ask(client, "GET", path, headers=own))[0] == 400
        for given, status in (
            ({}, 401),
            ({**own, "Origin": "https://evil.example"}, 403),
            ({**own, "Host": "evil.example"}, 421),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.session.ws_connect(f"{client.base}{path}", headers=given)
            assert refused.value.status == status
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.session.ws_connect(f"{client.base}{path.replace('/e/', '/other/')}", headers=own)
        assert refused.value.status == 404
        async with client.session.ws_connect(f"{client.base}{path}", headers=own) as talk:
            await talk.send_str("x" * (limits.API_SOCKET_MESSAGE_SIZE_BYTES_MAX + 1))
            received = [await asyncio.wait_for(talk.receive(), 30)]
            while received[-1].type is aiohttp.WSMsgType.TEXT:
                # The event may have been told before that was read.
                received.append(await asyncio.wait_for(talk.receive(), 30))
            assert received[-1].data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_socket_that_nobody_reads_is_closed_with_its_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "API_STREAM_STALL_S_MAX", 0.3)
    monkeypatch.setattr(limits, "API_SOCKET_CLOSE_S_MAX", 30.0)
    request = (
        b"GET /api/v1/executions/e/events/socket HTTP/1.1\r\nHost: localhost\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    async with service(tmp_path) as (served, reporter, _):
        large = [event("e", number, output_json="x" * 60_000) for number in range(1, 201)]
        for at in range(0, 200, 50):
            await reporter.send(*large[at : at + 50])
        with socket.create_connection(("127.0.0.1", served.http_port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            slow.sendall(request)
            await until(lambda: served.metrics.followers_cut.value == 1, "it is cut")
            slow.settimeout(30)
            rest = part = b"-"
            while part and b"too slow: go on after" not in rest:
                part = await asyncio.to_thread(slow.recv, 65_536)
                rest = rest[-100:] + part
            assert part, rest
        await until(lambda: served._followers.count == 0, "it follows no more")


async def test_the_console_is_served_to_browsers(tmp_path: Path) -> None:
    """Its page at each of its addresses, to whoever asks for a page, and its files; nothing else of the package."""
    page = {"Accept": "text/html,*/*"}
    callers = tmp_path / "callers"
    callers.write_text(line_of("eye", "read", "", "token-eye"))
    async with service(tmp_path / "data", callers_file=callers) as (_, _, client):
        for path in ("/", "/x/parent%2Fdo%2F0", "/workflows", "/workflows/tests/small"):
            async with client.session.get(URL(client.base + path, encoded=True), headers=page) as reply:
                text = await reply.text()
                assert (reply.status, reply.content_type, "<div id=" in text) == (200, "text/html", True)
                policy = reply.headers["Content-Security-Policy"]
                assert ("default-src 'none'" in policy, "http" in policy, "unsafe" in policy) == (True, False, False)
                tag = reply.headers["ETag"]
        async with client.session.get(client.base, headers={**page, "If-None-Match": tag}) as reply:
            assert (reply.status, "/api/v1/info" in reply.headers["Link"]) == (304, True)
        for name in re.findall(r'(?:src|href)="(/assets/[^"]+)"', text):
            async with client.session.get(client.base + name) as reply:
                assert (reply.status, "immutable" in reply.headers["Cache-Control"]) == (200, True)
        assert (await ask(client, "GET", "/"))[1]["paths"][0] == "/api/v1"
        for path in ("/x/e", "/assets/none.js", "/assets/../index.html", "/index.html", "/session.key"):
            assert (await ask(client, "GET", path))[0] == 404
        assert (await ask(client, "GET", "/", headers={**page, "Host": "evil.example"}))[0] == 421


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/", []),
        ("/x/order-7", ["/executions/order-7", "/executions/order-7/document"]),
        ("/x/order-7@48?pane=timeline", ["/executions/order-7", "/executions/order-7/document"]),
        # Others may write these in another way; and what is in no header goes into none.
        ("/x/a%405", []),
        ("/x/a%3E;%20rel=x,%20%3Cb", []),
        ("/x/%C3%A9", []),
        ("/x/a/b", []),
        ("/workflows/tests/small", []),
    ],
)
async def test_a_page_is_sent_with_what_it_asks_for_first(tmp_path: Path, path: str, asked: list[str]) -> None:
    async with (
        service(tmp_path) as (_, _, client),
        client.session.get(URL(client.base + path, encoded=True), headers={"Accept": "text/html"}) as reply,
    ):
        links = [f"</api/v1{each}>; rel=preload; as=fetch; crossorigin" for each in ("/info", *asked)]
        assert (reply.status, reply.headers["Link"]) == (200, ", ".join(links))


async def test_paths_and_methods_that_are_not_served(tmp_path: Path) -> None:
    async with service(tmp_path) as (_, _, client):
        assert (await ask(client, "GET", "/api/v1/unknown"))[0] == 404
        assert (await ask(client, "DELETE", "/api/v1/executions"))[0] == 405
        assert (await ask(client, "GET", "/"))[1]["paths"][0] == "/api/v1"
        assert (await ask(client, "GET", "/openapi.json"))[1]["openapi"] == "3.1.0"


async def test_both_ports_speak_tls(tmp_path: Path) -> None:
    pair = CERTIFICATES / "server.pem"
    async with service(tmp_path, tls_certificate=pair, tls_key=pair, http_tls=True) as (served, _, _):
        authority = CERTIFICATES / "ca.pem"
        credentials = grpc.ssl_channel_credentials(authority.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{served.grpc_port}", credentials) as channel:
            assert await Reporter(channel).send(event("e", 1)) == {"e": 1}
        context = ssl.create_default_context(cafile=str(authority))
        address = f"https://localhost:{served.http_port}/api/v1/executions/e"
        async with aiohttp.ClientSession() as session, session.get(address, ssl=context) as reply:
            assert (await reply.json())["last_sequence"] == 1


async def test_a_store_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "stigmer.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(CannotServe, match=r"stigmer\.db"):
        async with service(tmp_path):
            pass


def role_of(operation: Operation) -> str:
    """As the documentation has it."""
    if isinstance(operation.role, Open):
        return "none" if operation.role is Open.TO_ALL else "any"
    return f"`{operation.role}`"


def test_every_operation_has_its_row_in_the_documentation() -> None:
    page = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith(("| `GET", "| `POST", "| `DELETE"))]
    expected = [(f"| `{operation.method} {operation.path}`", f"{role_of(operation)} |") for operation in OPERATIONS]
    assert sorted((row[0], row[-1]) for row in rows) == sorted(expected)


@pytest.mark.parametrize(
    "execution_id", ["parent/do/0/child", "a b", "100%", "a?b#c", "ü/ü", "%2F", "a+b", "a;b=c", "{id}"]
)
async def test_any_id_is_reached_as_one_part_of_the_path(tmp_path: Path, execution_id: str) -> None:
    """Executions that workflows start have ids with slashes."""
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(event(execution_id, 1, "workflow_started"), event(execution_id, 2, "workflow_completed"))
        path = f"{client.base}/api/v1/executions/{quote(execution_id, safe='')}"
        for suffix in ("", "/events", "/events/stream"):
            async with client.session.get(URL(path + suffix, encoded=True)) as reply:
                assert reply.status == 200
                text = await reply.text()
        assert text.count("id: ") == 2


ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 2**63, 1e308, "", "\x00", "\ud7ff\ue000", "a" * 300, [], {}, [[]], {"": ""}, {"a": None}),
    *("e", "latest", "../..", "%00", "1.0.0-", "${ . }", {"namespace": "tests", "name": "small", "version": "\n"}),
)
"""Values that somebody may send in the place of any other."""


def odd(chance: random.Random, value: Any) -> Any:
    """The value with something else in one place."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice([*value])
        return {**value, name: odd(chance, value[name])} if chance.random() < 0.9 else {**value, "odd": 1}
    return chance.choice(ODD)


async def test_whatever_is_sent_is_answered_as_described(tmp_path: Path) -> None:
    chance = random.Random(20261129)
    runner = ScriptedRunner()
    async with runner.serving(), service(tmp_path, runner.port) as (_, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"), event("e", 2, "workflow_completed"))
        await ask(client, "POST", "/api/v1/workflows", {"document": SMALL}, headers=WRITE)
        seen = set()
        for _ in range(400):
            operation = chance.choice([each for each in OPERATIONS if not isinstance(each.perform, Stream)])
            text = [quote(str(value), safe="") or "x" for value in (chance.choice(ODD), chance.choice(("tests", "e")))]
            part = chance.choice(text)
            path = "/api/v1" + re.sub(r"\{\w+\}", lambda _, part=part: part, operation.path)  # type: ignore[misc]
            given = [each.name for each in operation.query if chance.random() < 0.3]
            query = "&".join(f"{name}={quote(str(chance.choice(ODD)), safe='')}" for name in given)
            body = odd(chance, BODIES[operation.name]) if operation.body else None
            data = None if operation.body is None else orjson.dumps(body)
            headers = {**WRITE, "Content-Type": "application/json"} if data is not None else READ
            status, _ = await ask(client, operation.method, f"{path}?{query}", data=data, headers=headers)
            assert status < 500, (operation.name, path, query, body)
            seen.add(status)
        assert {200, 204, 400, 404} <= seen
