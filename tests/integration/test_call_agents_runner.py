"""Calls of MCP servers and of agents on a whole runner: cancelled in flight, and performed again after a crash with the
same key."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agents import Agent, Served, serving_agent, serving_mcp
from tests.integration.engines import until
from tests.integration.runner_process import SERVE, RunnerProcess, running
from tests.integration.runs import document
from tests.integration.test_call_http_runner import Client

SETTINGS = {"FASTRUNNER_WORKERS": "1"}


@dataclass
class Others:
    """Who is called."""

    mcp: Served
    a2a: Served
    agent: Agent

    @property
    def all(self) -> tuple[Served, Served]:
        return self.mcp, self.a2a

    def documents(self) -> dict[str, str]:
        """One that takes its time, for each kind."""
        tool = {"name": "slow"}
        mcp = {"method": "tools/call", "parameters": tool, "transport": {"http": {"endpoint": f"{self.mcp.url}/mcp"}}}
        message = {"parts": [{"kind": "text", "text": "slow"}]}
        card = {"endpoint": f"{self.a2a.url}/.well-known/agent-card.json"}
        a2a = {"method": "message/stream", "agentCard": card, "parameters": {"message": message}}
        return {"mcp": document(None, call="mcp", **{"with": mcp}), "a2a": document(None, call="a2a", **{"with": a2a})}

    def keys(self) -> list[set[str | None]]:
        """The idempotency keys of all calls, of each kind."""
        return [
            {headers.get("idempotency-key") for _, headers, body in served.requests if name in body}
            for served, name in ((self.mcp, b"tools/call"), (self.a2a, b"message/stream"))
        ]

    def asked(self, name: bytes) -> int:
        return sum(name in body for served in self.all for _, _, body in served.requests)


@pytest.fixture
def others() -> Iterator[Others]:
    with ExitStack() as stack:
        mcp = stack.enter_context(serving_mcp())
        a2a, agent = stack.enter_context(serving_agent("0.3"))
        yield Others(mcp, a2a, agent)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("runner") / "data", SERVE, **SETTINGS) as process:
        yield process.wait_ready()


@pytest.fixture
async def client(runner: RunnerProcess) -> AsyncIterator[Client]:
    client = Client(runner)
    yield client
    await client.close()


async def begun(client: Client, others: Others, prefix: str) -> list[str]:
    """The names of executions that are under way, one of each kind."""
    names = []
    for name, text in others.documents().items():
        names.append(f"{prefix}-{name}")
        await client.execute(names[-1], text)
    await until(lambda: all(served.asked.is_set() for served in others.all), "both are asked")
    return names


async def test_calls_come_to_their_results(client: Client, others: Others) -> None:
    names = await begun(client, others, "well")
    for served in others.all:
        served.gate.set()
    mcp, a2a = [await client.end(name) for name in names]
    assert (mcp.status, a2a.status) == ("completed", "completed")
    assert json.loads(mcp.output_json)["content"] == [{"type": "text", "text": "done"}]
    results = json.loads(a2a.output_json)
    assert [result["kind"] for result in results] == ["task", "status-update", "artifact-update", "status-update"]


async def test_a_cancel_in_flight_ends_the_request_and_an_answer_that_comes_later_changes_nothing(
    client: Client, others: Others
) -> None:
    names = await begun(client, others, "cancelled")
    for name in names:
        await client.cancel(name)
    await until(lambda: all(served.gone.is_set() for served in others.all), "the requests have ended")
    for served in others.all:
        served.gate.set()
    assert [(await client.end(name)).status for name in names] == ["cancelled", "cancelled"]
    await until(lambda: others.asked(b"notifications/cancelled") == 1, "the server is told")


async def test_a_cancel_in_flight_kills_a_server_that_was_started(client: Client, tmp_path: Path) -> None:
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(3600)"
    stdio = {"command": sys.executable, "arguments": ["-S", "-c", code]}
    task: dict[str, Any] = {"call": "mcp", "with": {"method": "tools/list", "transport": {"stdio": stdio}}}
    await client.execute("one", document(None, **task))
    await until((tmp_path / "pid").exists, "it runs")
    await client.cancel("one")
    assert (await client.end("one")).status == "cancelled"
    await until(lambda: not in_command_lines(str(tmp_path / "pid")), "it is gone")


def in_command_lines(mark: str) -> bool:
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((folder / "cmdline").read_bytes())
        except OSError:
            continue
    return any(mark.encode() in line for line in lines)


async def test_a_killed_worker_s_successor_asks_again_with_the_same_keys(
    runner: RunnerProcess, client: Client, others: Others
) -> None:
    names = await begun(client, others, "killed")
    [worker] = runner.workers()
    os.kill(worker["pid"], signal.SIGKILL)
    await until(lambda: others.asked(b"tools/call") == others.asked(b"message/stream") == 2, "both are asked again")
    for served in others.all:
        served.gate.set()
    await until(lambda: runner.replaced(worker["pid"]), "the worker is replaced")
    assert [(await client.end(name)).status for name in names] == ["completed", "completed"]
    assert others.keys() == [{f"{name}/do/0/x/1/1"} for name in names]
    assert len(others.agent.messages) == 2
    assert len({*others.agent.messages}) == 1


async def test_a_crash_between_an_answer_and_its_commit(others: Others, tmp_path: Path) -> None:
    """Whatever was in flight beside it is asked again, too."""
    others.mcp.gate.set()
    settings = {**SETTINGS, "FASTRUNNER_CRASH_POINT": "before-outcome-commit"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        client = Client(runner.wait_ready())
        names = await begun(client, others, "crashed")
        asked = [b"tools/call", b"message/stream"]
        await until(lambda: all(others.asked(name) >= 2 for name in asked), "both are asked again")
        others.a2a.gate.set()
        await client.close()
    with running(tmp_path / "data", SERVE, **SETTINGS) as runner:
        client = Client(runner.wait_ready())
        assert [(await client.end(name)).status for name in names] == ["completed", "completed"]
        await client.close()
    assert others.keys() == [{f"{name}/do/0/x/1/1"} for name in names]
    assert len({*others.agent.messages}) == 1


async def test_no_secret_that_a_call_is_given_is_stored_or_shown(others: Others, tmp_path: Path) -> None:
    secret = "canary-2f6c41"
    head = {"dsl": "1.0.3", "namespace": "test", "name": "secretive", "version": "1.0.0"}
    endpoint = {"uri": f"{others.mcp.url}/mcp", "authentication": {"bearer": {"token": "${ $secrets.key }"}}}
    parameters = {"uri": "${ $secrets.key }"}
    mcp = {"method": "resources/read", "parameters": parameters, "transport": {"http": {"endpoint": endpoint}}}
    text = {"document": head, "use": {"secrets": ["key"]}, "do": [{"x": {"call": "mcp", "with": mcp}}]}
    settings = {**SETTINGS, "FASTRUNNER_SECRET_KEY": secret, "LOG_LEVEL": "debug"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", json.dumps(text))
        ended = await client.end("one")
        assert (ended.status, ended.error.title) == ("failed", "MCP Error")
        assert "***" in ended.error.detail
        files = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
        await client.close()
        _, out, errors = await asyncio.to_thread(runner.stop)
    assert any(headers.get("authorization") == f"Bearer {secret}" for _, headers, _ in others.mcp.requests)
    assert b"secretive" in files
    assert secret not in f"{ended}{out}{errors}"
    assert secret.encode() not in files
