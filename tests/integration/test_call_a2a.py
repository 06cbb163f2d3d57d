"""`call: a2a` against agents made with the official SDK, of versions 0.3 and 1.0 of the protocol: one test per promise
of docs/tasks.md."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fastrunner.access.egress import Egress
from fastrunner.access.secrets import Secrets
from fastrunner.base import limits
from fastrunner.config import Environment, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks import build_performers
from tests.driver import Execution, run
from tests.integration.agents import Agent, Served, serving_agent
from tests.integration.engines import folder, until
from tests.integration.http_calls import Remote, serve
from tests.integration.runs import document

Performers = Mapping[str, EffectPerformer]
WELL_KNOWN = "/.well-known/agent-card.json"
API_KEY = {"apiKeySecurityScheme": {"location": "header", "name": "X-Key"}}
BEARER = {"httpAuthSecurityScheme": {"scheme": "Bearer"}}
BASIC = {"httpAuthSecurityScheme": {"scheme": "Basic"}}
MUTUAL: dict[str, Any] = {"mtlsSecurityScheme": {}}


@contextlib.asynccontextmanager
async def performing(env: Environment = Environment.LOCAL, **settings: Any) -> AsyncIterator[Performers]:
    config, egress = load_config(data_dir=folder(), **settings), Egress(environment=env)
    metrics = Metrics(CollectorRegistry())
    resolver = Resolver(config, metrics, Secrets(None, None), Egress())
    built = build_performers(config, metrics, egress, descriptions=resolver)
    try:
        yield built
    finally:
        for performer in built.values():
            await performer.close()
        await resolver.close()


@pytest.fixture
async def performers() -> AsyncIterator[Performers]:
    async with performing() as built:
        yield built


@pytest.fixture
def agent() -> Iterator[tuple[Served, Agent]]:
    with serving_agent("0.3") as served:
        yield served


def card(served: Served, **more: Any) -> dict[str, Any]:
    return {"agentCard": {"endpoint": f"{served.url}{WELL_KNOWN}"}, **more}


def server(served: Served, **more: Any) -> dict[str, Any]:
    return {"server": {"uri": served.url, **more}}


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"message": {"parts": [{"kind": "text", "text": text}], **more}}


async def ask(performers: Performers, who: Mapping[str, Any], method: str, parameters: Any = None) -> Execution:
    given = {} if parameters is None else {"parameters": parameters}
    task = {"call": "a2a", "with": {**who, "method": method, **given}}
    return await run(document(None, **task), {"text": "say q", "a": 1}, performers)


async def value(*arguments: Any) -> Any:
    execution = await ask(*arguments)
    assert execution.status == "completed", execution.error
    return execution.output


async def problem(*arguments: Any) -> tuple[str, int, str]:
    """Type, status and detail of the error."""
    execution = await ask(*arguments)
    assert execution.error is not None, execution.output
    error = execution.error
    return error["type"].rpartition("/")[2], error["status"], error["detail"]


def sent(served: Served) -> list[dict[str, Any]]:
    return [json.loads(body) for method, _, body in served.requests if method == "POST"]


# --- methods ---


@pytest.mark.parametrize("version", ["0.3", "1.0"])
async def test_every_method(performers: Performers, version: str) -> None:
    """With parameters and results in the form of 0.3, whatever the agent speaks."""
    with serving_agent(version) as (served, _):
        who = card(served)
        said = await value(performers, who, "message/send", message("say hello"))
        assert (said["kind"], said["role"], said["parts"]) == ("message", "agent", [{"kind": "text", "text": "hello"}])
        results = await value(performers, who, "message/stream", message("work"))
        assert [result["kind"] for result in results] == ["task", "status-update", "artifact-update", "status-update"]
        assert results[-1]["status"]["state"] == "completed"
        assert results[-1]["final"] is True
        task = await value(performers, who, "message/send", message("ask"))
        assert (task["kind"], task["status"]["state"]) == ("task", "input-required")
        assert (await value(performers, who, "tasks/get", {"id": task["id"]}))["id"] == task["id"]

        config = {"id": "c1", "url": "http://127.0.0.1:9/told"}
        whole = {"taskId": task["id"], "pushNotificationConfig": config}
        one = {"id": task["id"], "pushNotificationConfigId": "c1"}
        push = "tasks/pushNotificationConfig"
        assert await value(performers, who, f"{push}/set", whole) == whole
        assert await value(performers, who, f"{push}/get", one) == whole
        assert await value(performers, who, f"{push}/list", {"id": task["id"]}) == [whole]
        assert await value(performers, who, f"{push}/delete", one) is None
        assert await value(performers, who, f"{push}/list", {"id": task["id"]}) == []

        cancelled = await value(performers, who, "tasks/cancel", {"id": task["id"]})
        assert cancelled["status"]["state"] == "canceled"
        about = await value(performers, who, "agent/getAuthenticatedExtendedCard")
        assert (about["name"], about["skills"][0]["id"]) == ("maker", "make")
        headers = [headers.get("a2a-version") for method, headers, _ in served.requests if method == "POST"]
        assert {*headers} == {version}


async def test_lists_of_tasks_are_of_1_0_alone(performers: Performers) -> None:
    with serving_agent("0.3", "1.0") as (served, _):
        await value(performers, card(served), "message/send", message("ask"))
        assert sent(served)[-1]["method"] == "message/send"
        listed = await value(performers, card(served), "tasks/list", {"pageSize": 5})
        assert sent(served)[-1]["method"] == "ListTasks"
        assert [task["status"]["state"] for task in listed["tasks"]] == ["input-required"]
        assert (listed["totalSize"], listed["pageSize"]) == (1, 5)
        type_, _, detail = await problem(performers, server(served), "tasks/list", {"pageSize": 5})
        assert (type_, "error -32601" in detail) == ("runtime", True)


async def test_a_task_is_followed_again(performers: Performers, agent: tuple[Served, Agent]) -> None:
    served, _ = agent
    parameters = {**message("slow"), "configuration": {"blocking": False, "acceptedOutputModes": ["text/plain"]}}
    task = await value(performers, server(served), "message/send", parameters)
    assert task["kind"] == "task"
    following = asyncio.create_task(value(performers, server(served), "tasks/resubscribe", {"id": task["id"]}))
    await until(lambda: any(b"tasks/resubscribe" in body for body in served.answered), "it is followed")
    served.gate.set()
    results = await following
    assert results[-1]["status"]["state"] == "completed"


async def test_a_message_has_an_id_and_a_role(performers: Performers, agent: tuple[Served, Agent]) -> None:
    """An expression may make it; what the document says wins."""
    served, asked = agent
    made = '${ {message: {parts: [{kind: "text", text: .text}]}} }'
    assert (await value(performers, server(served), "message/send", made))["parts"][0]["text"] == "q"
    [first] = sent(served)
    assert first["params"]["message"]["role"] == "user"
    assert first["params"]["message"]["messageId"] == asked.messages[0]
    # The same effect sends the same message.
    await value(performers, server(served), "message/stream", message("say q"))
    assert asked.messages[0] == asked.messages[1]
    await value(performers, server(served), "message/send", message("say q", messageId="m-1", role="agent"))
    assert (asked.messages[-1], sent(served)[-1]["params"]["message"]["role"]) == ("m-1", "agent")
    keys = {headers["idempotency-key"] for method, headers, _ in served.requests if method == "POST"}
    assert keys == {"test-execution/do/0/x/1/1"}


# --- cards and proofs ---


async def test_a_card_wins_over_a_server(performers: Performers, agent: tuple[Served, Agent]) -> None:
    served, _ = agent
    who = {**card(served), "server": "http://127.0.0.1:1"}
    assert (await value(performers, who, "message/send", message("say hello")))["kind"] == "message"


CARDS: list[tuple[str, str]] = [
    ("no json", "no card of an agent"),
    ("[1]", "no card of an agent"),
    ('{"name": 7}', "no card of an agent"),
    ("[" * 100_000, "no card of an agent"),
    ('{"name": "a", "url": "http://127.0.0.1:1", "preferredTransport": "GRPC"}', "no interface by JSONRPC"),
    ('{"name": "a", "url": "http://127.0.0.1:1", "protocolVersion": "x"}', "a protocol version that is none"),
    ('{"name": "a", "url": "file:///x", "protocolVersion": "0.3"}', "endpoint is not an absolute http"),
]


@pytest.mark.parametrize(("text", "words"), CARDS, ids=range(len(CARDS)))
async def test_cards_that_lead_nowhere(performers: Performers, text: str, words: str) -> None:
    remote = Remote()
    remote.answers(text=text)
    site = await serve(remote)
    type_, status, detail = await problem(
        performers, {"agentCard": {"endpoint": f"{remote.url}/card"}}, "message/send", message("say q")
    )
    await site.cleanup()
    assert (type_, status) == ("configuration", 400)
    assert words in detail


async def test_a_card_that_cannot_be_had_is_a_failure_of_communication(performers: Performers) -> None:
    remote = Remote()
    remote.answers(status=503)
    site = await serve(remote)
    who = {"agentCard": {"endpoint": f"{remote.url}/card"}}
    type_, status, _ = await problem(performers, who, "message/send", message("say q"))
    await site.cleanup()
    assert (type_, status) == ("communication", 503)


def demanding(*schemes: dict[str, Any]) -> dict[str, Any]:
    """A card's security: one of these."""
    return {
        "securitySchemes": {str(number): scheme for number, scheme in enumerate(schemes)},
        "securityRequirements": [{"schemes": {str(number): {"list": []}}} for number in range(len(schemes))],
    }


TOKEN = {"bearer": {"token": "t-1"}}
PASSWORD = {"basic": {"username": "u", "password": "p"}}
DEMANDS: list[tuple[dict[str, Any], dict[str, Any] | None, Any]] = [
    (demanding(BEARER), TOKEN, {"authorization": "Bearer t-1"}),
    (demanding(BASIC), PASSWORD, {"authorization": "Basic dTpw"}),
    (demanding(BASIC, BEARER), TOKEN, {"authorization": "Bearer t-1"}),
    (demanding(API_KEY), TOKEN, {"x-key": "t-1"}),
    (demanding(API_KEY, BEARER), TOKEN, {"authorization": "Bearer t-1"}),
    ({}, TOKEN, {"authorization": "Bearer t-1"}),
    (demanding(BEARER), None, "demands http bearer: give `server`"),
    (demanding(BASIC), TOKEN, "demands http basic, and `authentication: bearer` is not that"),
    (demanding(MUTUAL), TOKEN, "demands mutualTLS"),
]


@pytest.mark.parametrize(("security", "policy", "expected"), DEMANDS, ids=range(len(DEMANDS)))
async def test_what_a_card_demands(
    performers: Performers, security: dict[str, Any], policy: dict[str, Any] | None, expected: Any
) -> None:
    with serving_agent("0.3", security=security) as (served, _):
        who = card(served)
        if policy is not None:
            who["server"] = {"uri": "http://127.0.0.1:1", "authentication": policy}
        if isinstance(expected, str):
            type_, status, detail = await problem(performers, who, "message/send", message("say q"))
            assert (type_, status) == ("configuration", 400)
            assert expected in detail
            assert sent(served) == []
            return
        await value(performers, who, "message/send", message("say q"))
        [headers] = [headers for method, headers, _ in served.requests if method == "POST"]
        names = {name: headers.get(name) for name in ("authorization", "x-key")}
        assert names == {"authorization": None, "x-key": None, **expected}


async def test_the_policy_of_a_card_is_for_where_the_card_is_from(performers: Performers) -> None:
    with serving_agent("0.3") as (served, _):
        who = {"agentCard": {"endpoint": {"uri": f"{served.url}{WELL_KNOWN}", "authentication": TOKEN}}}
        await value(performers, who, "message/send", message("say q"))
        proofs = [headers.get("authorization") for _, headers, _ in served.requests]
        assert proofs == ["Bearer t-1", "Bearer t-1"]
        served.requests.clear()
        remote = Remote()
        elsewhere = {"name": "a", "url": served.url, "protocolVersion": "0.3"}
        remote.answers(text=json.dumps(elsewhere))
        site = await serve(remote)
        who["agentCard"]["endpoint"]["uri"] = f"{remote.url}/card"
        await value(performers, who, "message/send", message("say q"))
        await site.cleanup()
        assert remote.last.headers["Authorization"] == "Bearer t-1"
        assert [headers.get("authorization") for _, headers, _ in served.requests] == [None]


async def test_a_card_that_has_moved_takes_its_policy_nowhere(performers: Performers) -> None:
    """Else whoever can redirect a card is told what it was asked with."""
    with serving_agent("0.3") as (served, _):

        async def answer(_: web.Request) -> web.StreamResponse:
            raise web.HTTPFound(f"{served.url}{WELL_KNOWN}")

        remote = Remote()
        remote.answer = answer
        site = await serve(remote)
        who = {"agentCard": {"endpoint": {"uri": f"{remote.url}/card", "authentication": TOKEN}}}
        await value(performers, who, "message/send", message("say q"))
        await site.cleanup()
        assert remote.last.headers["Authorization"] == "Bearer t-1"
        assert [headers.get("authorization") for _, headers, _ in served.requests] == [None, None]


async def test_keys_that_cards_demand(performers: Performers) -> None:
    """In a cookie, and hidden from what agents answer; in a query none is sent."""
    cookie = {"apiKeySecurityScheme": {"location": "cookie", "name": "k"}}
    with serving_agent("0.3", security=demanding(cookie)) as (served, _):
        token = {"bearer": {"token": "a-long-token-7"}}
        who = card(served, server={"uri": "http://127.0.0.1:1", "authentication": token})
        _, _, detail = await problem(performers, who, "tasks/resubscribe", {"id": "a-long-token-7"})
        assert "a-long-token-7" not in detail
        assert served.requests[-1][1]["cookie"] == "k=a-long-token-7"
    query = {"apiKeySecurityScheme": {"location": "query", "name": "k"}}
    with serving_agent("0.3", security=demanding(query)) as (served, _):
        who = card(served, server={"uri": "http://127.0.0.1:1", "authentication": TOKEN})
        type_, _, detail = await problem(performers, who, "tasks/get", {"id": "1"})
        assert (type_, "a key in the query" in detail) == ("configuration", True)
        assert sent(served) == []


# --- errors ---


async def test_errors_are_runtime_errors(performers: Performers) -> None:
    for version in ("0.3", "1.0"):
        with serving_agent(version) as (served, _):
            type_, status, detail = await problem(performers, card(served), "tasks/get", {"id": "none"})
            assert (type_, status) == ("runtime", 500)
            assert "the answer is error -32001" in detail
            type_, _, detail = await problem(performers, card(served), "tasks/resubscribe", {"id": "none"})
            assert (type_, "error -32001" in detail) == ("runtime", True)
            served.demands = {"x-other": "1"}
            type_, status, detail = await problem(performers, card(served), "tasks/get", {"id": "none"})
            assert (type_, status) == ("runtime", 401)


async def test_agents_that_are_not_there(performers: Performers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    type_, _, _ = await problem(performers, {"server": f"http://127.0.0.1:{port}"}, "tasks/get", {"id": "1"})
    assert type_ == "runtime"
    async with performing(Environment.PROD) as guarded:
        found = await problem(guarded, {"server": "http://127.0.0.1:1"}, "tasks/get", {"id": "1"})
        assert found[:2] == ("configuration", 403)


@pytest.mark.parametrize(
    ("who", "method", "parameters", "type_"),
    [
        ({}, "message/send", "${ .a }", "expression"),
        ({}, "message/send", {"message": "${ .a }"}, "expression"),
        ({"server": "${ .text }"}, "tasks/get", {"id": "1"}, "configuration"),
    ],
)
async def test_arguments_that_nothing_can_be_asked_with(
    performers: Performers, who: dict[str, Any], method: str, parameters: Any, type_: str
) -> None:
    given = {"server": "http://127.0.0.1:1", **who}
    assert (await problem(performers, given, method, parameters))[:2] == (type_, 400)


async def test_parameters_that_have_no_form_in_1_0(performers: Performers) -> None:
    with serving_agent("1.0") as (served, _):
        bad = {"message": {"parts": "${ .a }"}}
        type_, status, detail = await problem(performers, card(served), "message/send", bad)
        assert (type_, status) == ("configuration", 400)
        assert "message.parts" in detail


ANSWERS: list[tuple[str, str]] = [
    ("[1]", "no JSON-RPC response"),
    ('{"jsonrpc": "2.0", "id": 1, "error": "x"}', "no JSON-RPC response"),
    ("<html>", "not what the protocol has"),
    ('{"result": ' + '{"a": ' * 150 + "1" + "}" * 151, "nested deeper"),
]


@pytest.mark.parametrize("method", ["tasks/get", "tasks/resubscribe"])
@pytest.mark.parametrize(("text", "words"), ANSWERS, ids=range(len(ANSWERS)))
async def test_answers_that_are_none(performers: Performers, method: str, text: str, words: str) -> None:
    remote = Remote()
    is_stream = method == "tasks/resubscribe"
    body = f"data: {text}\n\n" if is_stream else text
    remote.answers(text=body, content_type="text/event-stream" if is_stream else "application/json")
    site = await serve(remote)
    type_, _, detail = await problem(performers, {"server": remote.url}, method, {"id": "1"})
    await site.cleanup()
    assert type_ == "runtime"
    assert words in detail


async def test_a_stream_that_breaks_off_is_no_result(performers: Performers) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"jsonrpc": "2.0", "id": 1, "result": {"kind": "task"}}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    remote = Remote()
    remote.answer = answer
    site = await serve(remote)
    type_, _, _ = await problem(performers, {"server": remote.url}, "message/stream", message("x"))
    await site.cleanup()
    assert type_ == "runtime"


async def test_answers_up_to_their_bound(performers: Performers, agent: tuple[Served, Agent]) -> None:
    served, _ = agent
    large = limits.A2A_RESPONSE_SIZE_BYTES_MAX
    for method in ("message/send", "message/stream"):
        assert "x" * (large // 4) in json.dumps(
            await value(performers, server(served), method, message(f"work {large // 4}"))
        )
        type_, _, detail = await problem(performers, server(served), method, message(f"work {large}"))
        assert (type_, f"more than {large} bytes" in detail) == ("runtime", True)


async def test_how_long_a_call_may_take(agent: tuple[Served, Agent]) -> None:
    served, _ = agent
    async with performing(http_timeout_s=0.5) as performers:
        found = await problem(performers, server(served), "message/send", message("slow"))
        assert found[:2] == ("timeout", 408)
