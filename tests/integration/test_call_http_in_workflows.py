"""Support: `call: http` as authors write it, through validation, walk and performer to a real server and back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.tasks import build_performers
from tests.driver import Execution, run

HEAD = "document: {dsl: '1.0.3', namespace: tests, name: http, version: '1.0.0'}\n"
COMMUNICATION = "https://open-workflow-specification.org/spec/1.0.0/errors/communication"
EXPRESSION = "https://open-workflow-specification.org/spec/1.0.0/errors/expression"
TIMEOUT = "https://open-workflow-specification.org/spec/1.0.0/errors/timeout"


class Echo:
    """A server that tells what it was sent, fails on request, and knows when a caller hung up."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.left = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["Idempotency-Key"])
        if request.path == "/flaky" and len(self.keys) < 3:
            raise web.HTTPServiceUnavailable
        if request.path == "/never":
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        body = await request.text()
        return web.json_response({"method": request.method, "path": request.raw_path, "body": body})


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    echo.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield echo
    await runner.cleanup()


@pytest.fixture
async def performers() -> AsyncIterator[Mapping[str, EffectPerformer]]:
    performers = build_performers(load_config(), Metrics(CollectorRegistry()))
    yield performers
    for performer in performers.values():
        await performer.close()


async def _call(performers: Mapping[str, EffectPerformer], arguments: str, input_: Any = None) -> Execution:
    document = f"{HEAD}do:\n  - ask:\n      call: http\n      with: {arguments}\n"
    return await run(document, input_, performers)


@pytest.mark.parametrize(
    ("endpoint", "input_", "path"),
    [
        ("{URL}/pets/{{id}}", {"id": 7}, "/pets/7"),
        ("{URL}/pets/{{name}}?x={{name}}", {"name": "a b/c?ü"}, "/pets/a%20b%2Fc%3F%C3%BC?x=a%20b%2Fc%3F%C3%BC"),
        ("{URL}/pets/{{gone}}/end", {}, "/pets//end"),
        ("{URL}/plain", "no object", "/plain"),
        ('${{ "{URL}/pets/" + (.id | tostring) + "?q=%2F" }}', {"id": 7}, "/pets/7?q=%2F"),
    ],
)
async def test_endpoint(
    performers: Mapping[str, EffectPerformer], echo: Echo, endpoint: str, input_: Any, path: str
) -> None:
    uri = endpoint.format(URL=echo.url)
    execution = await _call(performers, f"{{method: get, endpoint: '{uri}'}}", input_)
    assert execution.status == "completed", execution.error
    assert execution.output["path"] == path


async def test_headers_query_and_body_are_evaluated(performers: Mapping[str, EffectPerformer], echo: Echo) -> None:
    arguments = f"""
        method: post
        endpoint: {{uri: '{echo.url}/x'}}
        headers: '${{ {{"X-Trace": .trace}} }}'
        query: '${{ {{tag: .tags, page: 1, none: null}} }}'
        body: {{name: '${{ .name }}', fixed: [1, '.name']}}
        output: response"""
    given = {"name": "${ .trace }", "trace": "t-1", "tags": ["a", "b"]}
    execution = await _call(performers, arguments, given)
    assert execution.status == "completed", execution.error
    response = execution.output
    assert response["content"]["path"] == "/x?tag=a&tag=b&page=1"
    # What looks like an expression in data is data.
    assert response["content"]["body"] == '{"name":"${ .trace }","fixed":[1,".name"]}'
    assert response["request"]["headers"]["x-trace"] == "t-1"
    assert response["request"]["uri"] == f"{echo.url}/x?tag=a&tag=b&page=1"


async def test_wrong_type_in_the_endpoint_is_an_expression_error(
    performers: Mapping[str, EffectPerformer], echo: Echo
) -> None:
    execution = await _call(performers, f"{{method: get, endpoint: '{echo.url}/{{id}}'}}", {"id": [1]})
    assert execution.error is not None
    assert (execution.error["type"], execution.error["status"]) == (EXPRESSION, 400)
    execution = await _call(performers, "{method: get, endpoint: '${ .id }'}", {"id": [1]})
    assert execution.error is not None
    assert (execution.error["type"], execution.error["status"]) == (EXPRESSION, 400)
    assert echo.keys == []


async def test_a_template_that_is_to_be_a_whole_uri_is_told(performers: Mapping[str, EffectPerformer]) -> None:
    execution = await _call(performers, "{method: get, endpoint: '{uri}'}", {"uri": "https://service.example/"})
    assert execution.error is not None
    assert execution.error["status"] == 400
    assert execution.error["detail"].endswith("{name} percent-encodes what it stands for; build whole URIs in ${ }")


async def test_failure_becomes_the_dsl_error(performers: Mapping[str, EffectPerformer], echo: Echo) -> None:
    execution = await _call(performers, f"{{method: get, endpoint: '{echo.url}/flaky?token=x'}}")
    assert execution.status == "failed"
    assert execution.error == {
        "type": COMMUNICATION,
        "status": 503,
        "title": "Service Unavailable",
        "detail": f"GET {echo.url.removeprefix('http://')}: the response has status 503",
        "instance": "/do/0/ask",
    }


async def test_every_retry_has_its_own_key(performers: Mapping[str, EffectPerformer], echo: Echo) -> None:
    document = f"""{HEAD}do:
  - attempt:
      try:
        - ask:
            call: http
            with: {{method: get, endpoint: '{echo.url}/flaky'}}
      catch:
        errors: {{with: {{status: 503}}}}
        retry: {{limit: {{attempt: {{count: 5}}}}}}
"""
    execution = await run(document, None, performers, execution_id="order-1")
    assert execution.status == "completed", execution.error
    assert len(set(echo.keys)) == 3
    assert all(key.startswith("order-1/") for key in echo.keys)


async def test_task_timeout_aborts_the_request(performers: Mapping[str, EffectPerformer], echo: Echo) -> None:
    document = f"""{HEAD}do:
  - ask:
      call: http
      with: {{method: get, endpoint: '{echo.url}/never'}}
      timeout: {{after: {{milliseconds: 50}}}}
"""
    execution = await run(document, None, performers)
    assert execution.error is not None
    assert (execution.error["type"], execution.error["status"]) == (TIMEOUT, 408)
    await asyncio.wait_for(echo.left.wait(), 5)


async def test_losers_of_a_race_are_aborted(performers: Mapping[str, EffectPerformer], echo: Echo) -> None:
    document = f"""{HEAD}do:
  - race:
      fork:
        compete: true
        branches:
          - slow: {{call: http, with: {{method: get, endpoint: '{echo.url}/never'}}}}
          - fast: {{call: http, with: {{method: get, endpoint: '{echo.url}/now'}}}}
"""
    execution = await run(document, None, performers)
    assert execution.output["path"] == "/now"
    await asyncio.wait_for(echo.left.wait(), 5)
