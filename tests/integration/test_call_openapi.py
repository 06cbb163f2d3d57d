"""Support: `call: openapi` against real servers on the loopback: documents are fetched, operations called, and what
nobody described, or described badly, is an error that says so."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from fastrunner.access.secrets import Secrets
from fastrunner.base import limits
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks import build_performers
from fastrunner.tasks.call_http.arguments import RequestProblem
from fastrunner.tasks.call_openapi.kept import Operations
from fastrunner.tasks.descriptions import Description
from tests.driver import Execution, run
from tests.integration.http_calls import Remote, serve

HEAD = {"dsl": "1.0.3", "namespace": "test", "name": "described", "version": "1.0.0"}


class Service(Remote):
    """A service, and what describes it."""

    def __init__(self) -> None:
        super().__init__()
        self.described: Any = {}
        self.fetched: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith("/docs/"):
            return await super().handle(request)
        self.fetched.append(request)
        described = self.described
        return web.Response(text=described if isinstance(described, str) else json.dumps(described))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    runner = await serve(service)
    yield service
    await runner.cleanup()


@asynccontextmanager
async def performing(registry: CollectorRegistry | None = None) -> AsyncIterator[Mapping[str, EffectPerformer]]:
    """The performers of a worker, closed at the end."""
    config, metrics = load_config(), Metrics(registry or CollectorRegistry())
    descriptions = Resolver(config, metrics, Secrets(None, {}))
    built = build_performers(config, metrics, descriptions=descriptions)
    yield built
    for performer in built.values():
        await performer.close()
    await descriptions.close()


async def call(service: Service, operation: Any = "op", parameters: Any = None, **members: Any) -> Execution:
    async with performing() as performers:
        return await run(document(service, operation, parameters, **members), {"a": 1}, performers)


def document(service: Service, operation: Any = "op", parameters: Any = None, **members: Any) -> str:
    given = {"document": {"endpoint": f"{service.url}/docs/api"}, "operationId": operation, **members}
    if parameters is not None:
        given["parameters"] = parameters
    return json.dumps({"document": HEAD, "do": [{"ask": {"call": "openapi", "with": given}}]})


async def value_of(service: Service, *args: Any, **members: Any) -> Any:
    execution = await call(service, *args, **members)
    assert execution.status == "completed", execution.error
    return execution.output


async def error_of(service: Service, *args: Any, **members: Any) -> tuple[str, int, str]:
    execution = await call(service, *args, **members)
    assert execution.error is not None, execution.output
    return execution.error["type"].rpartition("/")[2], execution.error["status"], execution.error["detail"]


def described(operation: Mapping[str, Any], path: str = "/op", method: str = "get", **root: Any) -> dict[str, Any]:
    return {"openapi": "3.0.3", "paths": {path: {method: {"operationId": "op", **operation}}}, **root}


# --- calls ---


async def test_an_operation_is_called(service: Service) -> None:
    parameters = [{"name": name, "in": where, "required": True} for name, where in (("id", "path"), ("q", "query"))]
    service.described = described({"parameters": parameters}, "/items/{id}", "put")
    service.described["paths"]["/items/{id}"]["put"]["requestBody"] = {"content": {"application/json": {}}}
    assert await value_of(service, "op", {"id": "a/b", "q": "${ .a }", "name": "x"}) == {"ok": True}
    assert (service.last.method, service.last.raw_path) == ("PUT", "/items/a%2Fb?q=1")
    assert service.bodies == [b'{"name":"x"}']
    assert service.last.headers["Idempotency-Key"] == "test-execution/do/0/ask/1/1"


@pytest.mark.parametrize("form", ["yaml", "json"])
async def test_yaml_and_json_and_both_versions(service: Service, form: str) -> None:
    for service.described in (
        described({"parameters": [{"name": "s", "in": "query", "explode": False}]}, servers=[{"url": "/v2"}]),
        {
            "swagger": "2.0",
            "basePath": "/v2",
            "paths": {"/op": {"get": {"operationId": "op", "parameters": [{"name": "s", "in": "query"}]}}},
        },
    ):
        if form == "yaml":
            text = StringIO()
            YAML().dump(service.described, text)
            service.described = text.getvalue().replace("'/op'", "/op") + "\nx-codes: {200: fine}\n"
        assert await value_of(service, "op", {"s": ["a", "b"]}) == {"ok": True}
        assert service.last.raw_path == "/v2/op?s=a,b"


async def test_outputs_and_redirects_are_those_of_http(service: Service) -> None:
    service.described = described({})

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/op":
            return web.Response(status=302, headers={"Location": "/end"})
        return web.json_response({"end": True})

    service.answer = answer
    assert await error_of(service) == (
        "communication",
        302,
        f"GET 127.0.0.1:{service.port}: the response has status 302",
    )
    assert await value_of(service, redirect=True) == {"end": True}
    assert await value_of(service, redirect=True, output="raw") == "eyJlbmQiOiB0cnVlfQ=="
    response = await value_of(service, redirect=True, output="response")
    assert (response["statusCode"], response["content"]) == (200, {"end": True})
    assert response["request"]["uri"] == f"{service.url}/op"


async def test_large_bodies_go_there_and_back(service: Service) -> None:
    service.described = described({"requestBody": {"content": {"multipart/form-data": {}}}}, method="post")

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 3_000_000)

    service.answer = answer
    assert len(await value_of(service, "op", {"file": '${ {base64: ("AAAA" * 500000)} }'})) == 4_000_000
    assert len(service.bodies[0]) > 1_500_000
    assert service.bodies[0].count(b"\0") == 1_500_000


# --- who calls ---

SCHEMES = {
    "key": {"type": "apiKey", "name": "X-Key", "in": "header"},
    "token": {"type": "oauth2", "flows": {}},
}


async def test_a_token_is_the_key_that_an_operation_wants(service: Service) -> None:
    service.described = described({"security": [{"key": []}]}, components={"securitySchemes": SCHEMES})
    elsewhere = Remote()
    runner = await serve(elsewhere)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{elsewhere.url}/x"})

    service.answer = answer
    bearer = {"bearer": {"token": "key-0123456789"}}
    response = await value_of(service, authentication=bearer, output="response", redirect=True)
    assert service.last.headers["X-Key"] == "key-0123456789"
    assert "Authorization" not in service.last.headers
    assert response["request"]["headers"]["x-key"] == "***"
    # Another origin gets it no more than it would get an Authorization header.
    assert "X-Key" not in elsewhere.last.headers
    service.described["components"] = {"securitySchemes": {"key": {"type": "apiKey", "name": "k", "in": "query"}}}
    response = await value_of(service, authentication=bearer, output="response", redirect=True)
    assert service.last.query["k"] == "key-0123456789"
    assert response["request"]["uri"] == f"{service.url}/op?k=***"
    service.described["components"] = {"securitySchemes": SCHEMES}
    await value_of(service, "op", {"X-Key": "mine"}, authentication=bearer, redirect=True)
    assert (service.last.headers["X-Key"], service.last.headers["Authorization"]) == ("mine", "Bearer key-0123456789")
    await runner.cleanup()


async def test_the_scopes_that_an_operation_needs_are_asked_for(service: Service) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/oauth2/token":
            asked.append((await request.post())["scope"])  # type: ignore[arg-type]
            return web.json_response({"access_token": "t-1", "token_type": "Bearer"})
        return web.json_response(request.headers["Authorization"])

    service.answer = answer
    service.described = described({"security": [{"token": ["read", "pets"]}]}, components={"securitySchemes": SCHEMES})
    client = {"id": "me", "secret": "s"}
    policy = {"oauth2": {"authority": service.url, "grant": "client_credentials", "client": client}}
    assert await value_of(service, authentication=policy) == "Bearer t-1"
    assert asked == ["read pets"]


async def test_the_documents_own_policy_is_for_it_alone(service: Service) -> None:
    service.described = described({})
    endpoint = {"uri": f"{service.url}/docs/api", "authentication": {"basic": {"username": "u", "password": "p"}}}
    await value_of(service, document={"endpoint": endpoint})
    assert service.fetched[-1].headers["Authorization"].startswith("Basic ")
    assert "Authorization" not in service.last.headers


# --- errors ---


async def test_what_is_wrong_with_a_call(service: Service) -> None:
    service.described = described({"parameters": [{"name": "q", "in": "query", "required": True}]})
    kind, status, detail = await error_of(service, "opp")
    assert (kind, status) == ("configuration", 400)
    assert detail == "opp: the document has no operationId 'opp': did you mean 'op'?"
    assert await error_of(service) == (
        "validation",
        400,
        "op: parameters that are required are not given: 'q' (query)",
    )
    assert (await error_of(service, "op", {"q": {"a": [{}]}}))[0] == "validation"
    assert (await error_of(service, "${ 7 }"))[:2] == ("expression", 400)
    assert service.requests == []


async def test_documents_that_cannot_be_had_or_used(service: Service) -> None:
    service.described = "openapi: [3"
    kind, status, detail = await error_of(service)
    assert (kind, status) == ("configuration", 400)
    assert "line 1" in detail
    gone = f"http://127.0.0.1:{service.port}/gone"
    service.answers(status=404)
    kind, status, detail = await error_of(service, document={"endpoint": gone})
    assert (kind, status) == ("communication", 404)
    assert gone in detail
    assert (await error_of(service, document={"endpoint": "http://127.0.0.1:1/x"}))[:2] == ("communication", 500)
    assert (await error_of(service, document={"endpoint": "http://169.254.169.254/x"}))[:2] == ("configuration", 403)


async def test_a_documents_server_is_judged_like_any_destination(service: Service) -> None:
    service.described = described({}, servers=[{"url": "http://169.254.169.254/latest"}])
    assert (await error_of(service))[:2] == ("configuration", 403)


async def test_calls_are_counted_as_both_kinds(service: Service) -> None:
    service.described = described({})
    registry = CollectorRegistry()
    async with performing(registry) as performers:
        assert (await run(document(service), None, performers)).status == "completed"
    for kind in ("call_openapi", "call_http"):
        labels = {"kind": kind, "outcome": "completed"}
        assert registry.get_sample_value("workflow_runner_effects_total", labels) == 1


# --- what is kept ---


def description(text: str, url: str = "http://h/api") -> Description:
    return Description(url, text, hashlib.sha256(text.encode()).digest())


def text_of(number: int, size_chars: int = 0) -> str:
    return json.dumps(described({"operationId": f"op{number}", "summary": "x" * size_chars}))


async def test_operations_are_kept_by_the_text_of_their_document() -> None:
    operations = Operations()
    first = await operations.get(description(text_of(1)), "op1")
    assert await operations.get(description(text_of(1)), "op1") is first
    assert (await operations.get(description(text_of(1), "http://other/api"), "op1")).base == "http://other"
    for number in range(2, limits.OPENAPI_OPERATIONS_KEPT_MAX + 3):
        await operations.get(description(text_of(number)), f"op{number}")
    assert await operations.get(description(text_of(1)), "op1") is not first


async def test_the_documents_that_are_kept_are_bounded_by_their_size() -> None:
    operations = Operations()
    half = limits.OPENAPI_DOCUMENTS_KEPT_SIZE_CHARS_MAX // 2
    texts = {number: text_of(number, size) for number, size in ((1, half), (2, 2000), (3, half - 1000), (4, 2 * half))}
    steps = ((1, {1}), (2, {1, 2}), (1, {1, 2}), (3, {1, 3}), (4, {1, 3}), (2, {2, 3}))
    for step, (number, kept) in enumerate(steps):
        # Elsewhere the operation is another one, and its document is looked at again.
        await operations.get(description(texts[number], f"http://h{step}"), f"op{number}")
        assert operations.kept_size_chars == sum(len(texts[each]) for each in kept), number


async def test_a_large_document_leaves_the_loop_to_others() -> None:
    """Many values, a long line, many operations: the loop stands still for no longer than for small ones."""
    paths = {f"/p{n}": {"get": {"operationId": f"op{n}", "tags": ["a", {"b": [n]}]}} for n in range(20_000)}
    text = json.dumps({"openapi": "3.1.0", "paths": paths})
    assert len(text) < limits.DESCRIPTION_SIZE_BYTES_MAX
    yaml = "openapi: 3.1.0\npaths:\n" + "".join(
        f"  /p{n}:\n    get: {{operationId: op{n}, tags: [a, b]}}\n" for n in range(15_000)
    )
    for each, name in ((text, "op14999"), (yaml, "op14999"), (text, "zop"), ("[" * 4_000_000, "op")):
        turns = 0
        reading = asyncio.create_task(Operations().get(description(each), name))
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        if name == "op14999":
            assert (await reading).path == "/p14999"
        else:
            assert isinstance(reading.exception(), RequestProblem)
        # As many slices as the machine needs: a fast one has some twenty.
        assert turns > 5 or name == "op"


async def test_many_calls_of_one_document_read_it_once(service: Service) -> None:
    service.described = described({})
    async with performing() as performers:
        started_s = time.monotonic()
        ends = await asyncio.gather(*(run(document(service), None, performers) for _ in range(50)))
    assert {each.status for each in ends} == {"completed"}
    assert len(service.fetched) == 1
    assert len(service.requests) == 50
    assert time.monotonic() - started_s < 60
