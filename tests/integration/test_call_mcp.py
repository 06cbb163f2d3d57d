"""`call: mcp` against servers made with the official SDK, over streamable HTTP and over stdio: one test per promise of
docs/tasks.md."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fastrunner import __version__
from fastrunner._core import Compilation, InvalidWorkflow, Problem
from fastrunner.access.egress import Egress
from fastrunner.base import limits
from fastrunner.config import Environment, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.tasks import build_performers
from fastrunner.tasks.descriptions import Description
from tests.driver import Execution, run
from tests.integration.agents import Served, serving_mcp
from tests.integration.engines import until
from tests.integration.http_calls import Remote, serve
from tests.integration.runs import document

ROOT = Path(__file__).parents[2]
KEY = "test-execution/do/0/x/1/1"
Performers = Mapping[str, EffectPerformer]


class _Nothing:
    """No call of a server needs a description."""

    async def get(self, resource: Mapping[str, Any]) -> Description:
        raise AssertionError(resource)


@contextlib.asynccontextmanager
async def performing(egress: Egress | None = None, **settings: Any) -> AsyncIterator[Performers]:
    metrics = Metrics(CollectorRegistry())
    built = build_performers(load_config(**settings), metrics, egress, descriptions=_Nothing())
    try:
        yield built
    finally:
        for performer in built.values():
            await performer.close()


@pytest.fixture
async def performers() -> AsyncIterator[Performers]:
    async with performing() as built:
        yield built


@pytest.fixture
def served() -> Iterator[Served]:
    with serving_mcp() as served:
        yield served


def at(url: str, **http: Any) -> dict[str, Any]:
    return {"http": {"endpoint": f"{url}/mcp", **http}}


async def ask(
    performers: Performers,
    transport: Mapping[str, Any],
    method: str = "tools/list",
    parameters: Any = None,
    **more: Any,
) -> Execution:
    given = {} if parameters is None else {"parameters": parameters}
    task = {"call": "mcp", "with": {"method": method, "transport": transport, **given, **more}}
    return await run(document(None, **task), {"a": 3, "text": "q", "nothing": None}, performers)


async def value(*arguments: Any, **more: Any) -> Any:
    execution = await ask(*arguments, **more)
    assert execution.status == "completed", execution.error
    return execution.output


async def problem(*arguments: Any, **more: Any) -> tuple[str, int, str, str]:
    """Type, status, title and detail of the error."""
    execution = await ask(*arguments, **more)
    assert execution.error is not None, execution.output
    error = execution.error
    return error["type"].rpartition("/")[2], error["status"], error["title"], error["detail"]


def sent(served: Served) -> list[dict[str, Any]]:
    return [json.loads(body) for method, _, body in served.requests if method == "POST"]


def script(path: Path, code: str) -> dict[str, Any]:
    """A server over stdio that is a few lines of Python: `say(id, result)`, and `heard()` gives the next message."""
    head = """
import json, os, sys
def say(id, result=None, **more):
    print(json.dumps({"jsonrpc": "2.0", "id": id, **({} if more else {"result": result}), **more}), flush=True)
def heard():
    line = sys.stdin.readline()
    return json.loads(line) if line else None
def greet(version=None):
    asked = heard()
    about = {"protocolVersion": version or asked["params"]["protocolVersion"], "capabilities": {}}
    say(asked["id"], {**about, "serverInfo": {"name": "s", "version": "1"}})
    assert heard()["method"] == "notifications/initialized"
    return asked["params"]
"""
    path.write_text(head + code)
    return {"stdio": {"command": sys.executable, "arguments": ["-S", str(path)]}}


# --- both transports ---

METHODS: list[tuple[str, Any, Any]] = [
    ("tools/list", None, lambda result: [tool["name"] for tool in result["tools"]] == ["add", "large", "slow"]),
    (
        "tools/call",
        {"name": "add", "arguments": {"a": "${ .a }", "b": 4}},
        lambda result: (
            result == {"content": [{"type": "text", "text": "7"}], "structuredContent": {"result": 7}, "isError": False}
        ),
    ),
    ("prompts/list", None, lambda result: [prompt["name"] for prompt in result["prompts"]] == ["ask"]),
    (
        "prompts/get",
        {"name": "ask", "arguments": {"about": "rain"}},
        lambda result: (
            result["messages"] == [{"role": "user", "content": {"type": "text", "text": "What about rain?"}}]
        ),
    ),
    ("resources/list", None, lambda result: [each["uri"] for each in result["resources"]] == ["note://one"]),
    (
        "resources/read",
        {"uri": "note://by/ada"},
        lambda result: result["contents"] == [{"uri": "note://by/ada", "mimeType": "text/plain", "text": "about ada"}],
    ),
    (
        "resources/templates/list",
        None,
        lambda result: [each["uriTemplate"] for each in result["resourceTemplates"]] == ["note://by/{name}"],
    ),
]


@pytest.mark.parametrize(("method", "parameters", "is_right"), METHODS, ids=[method for method, _, _ in METHODS])
async def test_every_method_over_http(
    performers: Performers, served: Served, method: str, parameters: Any, is_right: Any
) -> None:
    result = await value(performers, at(served.url), method, parameters)
    assert is_right(result), result
    [opening, greeting, asked] = sent(served)
    assert (opening["method"], greeting["method"]) == ("initialize", "notifications/initialized")
    assert asked["method"] == method


async def test_a_server_over_stdio(performers: Performers) -> None:
    """One that the SDK runs."""
    code = "from tests.integration.agents import mcp_server; mcp_server().run('stdio')"
    stdio = {
        "command": sys.executable,
        "arguments": ["-c", code],
        "environment": {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    }
    result = await value(performers, {"stdio": stdio}, "tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
    assert result["structuredContent"] == {"result": 3}


async def test_what_a_session_is_opened_with(performers: Performers, served: Served) -> None:
    await value(performers, at(served.url))
    assert sent(served)[0]["params"] == {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "fastrunner", "version": __version__},
    }
    served.requests.clear()
    client = {"name": "${ .text }", "version": "2"}
    await value(performers, at(served.url), protocolVersion="2025-03-26", client=client)
    assert sent(served)[0]["params"] == {
        "protocolVersion": "2025-03-26",
        "capabilities": {},
        "clientInfo": {"name": "q", "version": "2"},
    }
    versions = [headers.get("mcp-protocol-version") for method, headers, _ in served.requests if method == "POST"]
    assert versions == [None, "2025-03-26", "2025-03-26"]


async def test_the_servers_version_is_taken_if_it_is_known(performers: Performers, tmp_path: Path) -> None:
    transport = script(tmp_path / "s.py", "greet('2024-11-05')\nsay(heard()['id'], {'tools': []})")
    assert await value(performers, transport) == {"tools": []}
    transport = script(tmp_path / "t.py", "greet('1999-01-01')\nheard()")
    type_, status, title, detail = await problem(performers, transport)
    assert (type_, status, title) == ("runtime", 500, "Protocol Version Unknown")
    assert "'1999-01-01'" in detail


async def test_only_the_method_has_the_idempotency_key(performers: Performers, served: Served) -> None:
    """A gateway that knows it would take the handshake for the same request."""
    await value(performers, at(served.url))
    keys = [headers.get("idempotency-key") for method, headers, _ in served.requests if method == "POST"]
    assert keys == [None, None, KEY]


async def test_a_session_is_ended(performers: Performers, served: Served) -> None:
    await value(performers, at(served.url))
    await until(lambda: served.requests[-1][0] == "DELETE", "it is ended")
    sessions = [headers.get("mcp-session-id") for _, headers, _ in served.requests]
    assert sessions[0] is None
    assert len({*sessions[1:]}) == 1
    assert [method for method, _, _ in served.requests] == ["POST", "POST", "POST", "DELETE"]


async def test_nobody_waits_for_a_session_to_end(performers: Performers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MCP_CLOSE_S_MAX", 0.2)
    remote, left = Remote(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "DELETE":
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
        asked = await request.json()
        if "id" not in asked:
            return web.Response(status=202)
        result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        answered = {"jsonrpc": "2.0", "id": asked["id"], "result": result if asked["method"] == "initialize" else {}}
        return web.json_response(answered, headers={"Mcp-Session-Id": "s-1"})

    remote.answer = answer
    server = await serve(remote)
    assert await value(performers, at(remote.url)) == {}
    async with asyncio.timeout(30):
        await left.wait()
    await server.cleanup()


async def test_stateless_servers_and_answers_as_plain_json(performers: Performers) -> None:
    with serving_mcp(stateless_http=True, json_response=True) as served:
        result = await value(performers, at(served.url), "tools/call", {"name": "add", "arguments": {"a": 1, "b": 1}})
        assert result["structuredContent"] == {"result": 2}


async def test_what_a_server_asks_meanwhile_is_answered(performers: Performers, tmp_path: Path) -> None:
    code = """
greet()
asked = heard()
print("a greeting that is no message")
print(json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}))
say(7, method="ping")
pong = heard()
say(8, method="sampling/createMessage", params={})
refusal = heard()
say(asked["id"], {"tools": [], "pong": pong, "refusal": refusal})
"""
    result = await value(performers, script(tmp_path / "s.py", code))
    assert result["pong"] == {"jsonrpc": "2.0", "id": 7, "result": {}}
    assert result["refusal"]["error"]["code"] == -32601


# --- errors ---


async def test_errors_of_the_server_are_runtime_errors(performers: Performers, served: Served) -> None:
    type_, status, title, detail = await problem(
        performers, at(served.url), "resources/read", {"uri": "note://none/1/2"}
    )
    assert (type_, status, title) == ("runtime", 500, "MCP Error")
    host = served.url.removeprefix("http://")
    assert detail.startswith(f"call: mcp of {host}: the answer is error -32602, ")
    # What a tool says of itself is its result.
    assert (await value(performers, at(served.url), "tools/call", {"name": "none"}))["isError"] is True


async def test_refused_requests_and_dead_ports_are_runtime_errors(performers: Performers, served: Served) -> None:
    served.demands = {"x-key": "1"}
    execution = await ask(performers, at(served.url))
    assert execution.error is not None
    assert (execution.error["type"].rpartition("/")[2], execution.error["status"]) == ("runtime", 401)
    assert (await value(performers, at(served.url, headers={"X-Key": "1"})))["tools"]
    type_, _, title, _ = await problem(performers, at("http://127.0.0.1:1"))
    assert (type_, title) == ("runtime", "Connection Failed")


async def test_where_no_call_may_go_no_session_goes(served: Served) -> None:
    async with performing(Egress(environment=Environment.PROD)) as performers:
        type_, status, title, _ = await problem(performers, at(served.url))
    assert (type_, status, title) == ("configuration", 403, "Destination Refused")
    assert served.requests == []


async def test_policies_prove_who_calls(performers: Performers, served: Served) -> None:
    served.demands = {"authorization": "Bearer t-1"}
    endpoint = {"uri": f"{served.url}/mcp", "authentication": {"bearer": {"token": "t-1"}}}
    assert (await value(performers, {"http": {"endpoint": endpoint}}))["tools"]
    endpoint["authentication"] = {"basic": {"username": "u", "password": "p"}}
    type_, status, _, _ = await problem(performers, {"http": {"endpoint": endpoint}})
    assert (type_, status) == ("runtime", 401)


@pytest.mark.parametrize(
    ("transport", "more", "type_", "words"),
    [
        ({"options": {"a": "b"}}, {}, "configuration", "transport.options has 'a'"),
        ({}, {"protocolVersion": "2026-07-28"}, "configuration", "protocolVersion '2026-07-28'"),
        ({}, {"protocolVersion": "${ .nothing }"}, "expression", "protocolVersion is null"),
        ({}, {"client": {"name": "${ .nothing }", "version": "1"}}, "expression", "client.name is null"),
        ({}, {"parameters": "${ .a }"}, "expression", "parameters is a number"),
        ({"http": {"endpoint": "${ .text }"}}, {}, "configuration", "endpoint is not an absolute"),
        ({"http": {"endpoint": "http://127.0.0.1:1", "headers": {"a": "x\ny"}}}, {}, "configuration", "header a has"),
    ],
)
async def test_arguments_that_nothing_can_be_asked_with(
    performers: Performers, served: Served, transport: dict[str, Any], more: dict[str, Any], type_: str, words: str
) -> None:
    found, status, _, detail = await problem(performers, {**at(served.url), **transport}, **more)
    assert (found, status) == (type_, 400), detail
    assert words in detail
    assert served.requests == []


async def test_how_long_a_call_may_take(served: Served) -> None:
    slow = {"name": "slow"}
    async with performing(http_timeout_s=0.5) as performers:
        for more in ({}, {"timeout": {"milliseconds": 300}}):
            type_, status, title, detail = await problem(performers, at(served.url), "tools/call", slow, **more)
            assert (type_, status, title) == ("timeout", 408, "No Response In Time")
            assert ("0.3 s" if more else "0.5 s") in detail
    # The server is told.
    await until(lambda: [method for method, _, _ in served.requests].count("DELETE") == 2, "it is told")
    asked = [message["id"] for message in sent(served) if message["method"] == "tools/call"]
    told = [message["params"]["requestId"] for message in sent(served) if message["method"].endswith("/cancelled")]
    assert told == asked
    served.requests.clear()
    async with performing(http_timeout_s=0.5) as performers:
        asking = asyncio.create_task(
            ask(performers, at(served.url), "tools/call", slow, timeout={"minutes": 1}), name="asking"
        )
        await until(lambda: len(sent(served)) == 3, "it is asked")
        # Longer than others may take.
        await asyncio.sleep(0.7)
        served.gate.set()
        assert (await asking).status == "completed"


async def test_answers_up_to_their_bound(performers: Performers, served: Served, tmp_path: Path) -> None:
    large = limits.MCP_RESPONSE_SIZE_BYTES_MAX
    for json_response in (False, True):
        with serving_mcp(json_response=json_response) as other:
            asked = {"name": "large", "arguments": {"count": large // 4}}
            result = await value(performers, at(other.url), "tools/call", asked)
            assert len(result["content"][0]["text"]) == large // 4
            asked["arguments"] = {"count": large + 1}
            type_, _, title, _ = await problem(performers, at(other.url), "tools/call", asked)
            assert (type_, title) == ("runtime", "Response Too Large")
    code = "greet()\nid = heard()['id']\nsys.stdout.write('x' * 5_000_000)\nsys.stdout.flush()\nheard()"
    type_, _, title, _ = await problem(performers, script(tmp_path / "s.py", code))
    assert (type_, title) == ("runtime", "Output Too Large")


async def test_results_that_no_workflow_may_have(performers: Performers, tmp_path: Path) -> None:
    for depth, words in ((150, f"nested deeper than {limits.HTTP_RESPONSE_DEPTH_MAX}"), (1000, "no message")):
        code = f"""
greet()
deep = '{{"a": ' * {depth} + '1' + '}}' * {depth}
print('{{"jsonrpc": "2.0", "id": %s, "result": %s}}' % (json.dumps(heard()['id']), deep), flush=True)
heard()
"""
        type_, _, title, detail = await problem(performers, script(tmp_path / "s.py", code))
        assert (type_, title) == ("runtime", "Malformed Response")
        assert words in detail


# --- servers that are started ---


async def test_a_server_over_stdio_has_what_the_document_gives_it(performers: Performers, tmp_path: Path) -> None:
    code = "greet()\nsay(heard()['id'], {'env': dict(os.environ), 'argv': sys.argv[1:], 'folder': os.listdir('.')})"
    transport = script(tmp_path / "s.py", code)
    transport["stdio"]["arguments"] += ["${ .text }", "1"]
    transport["stdio"]["environment"] = {"A": "${ .text }", "N": "${ .nothing }"}
    result = await value(performers, transport)
    environment = {name: text for name, text in result["env"].items() if name != "LC_CTYPE"}
    assert environment.pop("PATH").startswith("/usr/local/sbin:")
    assert environment == {"A": "q", "FASTRUNNER_IDEMPOTENCY_KEY": KEY}
    assert (result["argv"], result["folder"]) == (["q", "1"], [])


async def test_a_server_that_is_asked_nothing_more_ends_by_itself_or_is_killed(
    performers: Performers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "greet()\nsay(heard()['id'], {})\nassert heard() is None\nopen(sys.argv[1], 'w').close()"
    transport = script(tmp_path / "s.py", code)
    transport["stdio"]["arguments"].append(str(tmp_path / "ended"))
    await value(performers, transport)
    await until((tmp_path / "ended").exists, "it has ended by itself")
    monkeypatch.setattr(limits, "RUN_GRACE_S", 0.1)
    code = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; sleep 3600"], start_new_session=True)
greet()
say(heard()["id"], {})
time.sleep(3600)
"""
    await value(performers, script(tmp_path / "stays-behind.py", code))
    folder = "/proc"
    name = str(tmp_path / "stays-behind.py").encode()

    def is_gone() -> bool:
        lines = []
        for each in Path(folder).glob("[0-9]*"):
            with contextlib.suppress(OSError):
                lines.append((each / "cmdline").read_bytes())
        return not any(name in line for line in lines)

    await until(is_gone, "it is killed")


async def test_a_server_that_dies_is_told_of(performers: Performers, tmp_path: Path) -> None:
    type_, _, title, detail = await problem(
        performers, script(tmp_path / "s.py", "greet()\nprint('no more', file=sys.stderr)\nsys.exit(3)")
    )
    assert (type_, title) == ("runtime", "Server Gone")
    assert 'ended with code 3; stderr ends with "no more"' in detail
    type_, _, title, _ = await problem(performers, script(tmp_path / "t.py", "greet()\nos.close(1)\nheard()\nheard()"))
    assert (type_, title) == ("runtime", "Server Gone")
    for command in ("/no/such/server", "no-such-server"):
        type_, status, _, detail = await problem(performers, {"stdio": {"command": command}})
        assert (type_, status) == ("configuration", 400), detail


def problems_of(compilation: Compilation) -> Sequence[Problem]:
    try:
        while compilation.step(1000) is None:
            pass
    except InvalidWorkflow as invalid:
        return invalid.problems
    return ()


async def test_servers_over_stdio_are_started_where_documents_may_run_them(tmp_path: Path) -> None:
    transport = script(tmp_path / "s.py", "greet()\nsay(heard()['id'], {})")
    task = {"call": "mcp", "with": {"method": "tools/list", "transport": transport}}
    for allowed, is_allowed in ((f"mcp:{sys.executable}", True), ("mcp:/opt/*", False), ("shell", False)):
        compilation = Compilation(document(None, **task), refuse=load_config(run_allowed=allowed).refusal)
        problems = problems_of(compilation)
        assert [(each.code, each.pointer) for each in problems] == (
            [] if is_allowed else [("not-allowed", "/do/0/x/with/transport")]
        )
        assert all(f"FASTRUNNER_RUN_ALLOWED={allowed},mcp:{sys.executable}" in each.message for each in problems)
        async with performing(run_allowed=allowed) as performers:
            # A command may be an expression.
            transport["stdio"]["command"] = f'${{ "{sys.executable}" }}'
            execution = await ask(performers, transport)
            assert (execution.status == "completed") == is_allowed
            transport["stdio"]["command"] = sys.executable


async def test_answers_take_turns_where_memory_is_short(
    performers: Performers, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one took the next has, and none waits for ever."""
    monkeypatch.setattr(limits, "HTTP_RESPONSES_SIZE_BYTES_MAX", 1_000_000)
    asked = {"name": "large", "arguments": {"count": 900_000}}
    asking = (value(performers, at(served.url), "tools/call", asked) for _ in range(6))
    async with asyncio.timeout(60):
        results = await asyncio.gather(*asking)
    assert [len(result["content"][0]["text"]) for result in results] == [900_000] * 6
