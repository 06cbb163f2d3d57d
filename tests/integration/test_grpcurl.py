"""The given calls with grpcurl itself; `test_service_reflection.py` asserts the same without it."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest_asyncio

from fastrunner.service.methods import COMMAND_SERVICE, LATER_SERVICE
from tests.integration.test_service_reflection import GIVEN
from tests.integration.wire import DEADLINE_S, MemoryWire, served
from tests.outside import require_tool

DOCUMENT = """\
document:
  dsl: 1.0.0
  namespace: tests
  name: hello
  version: 1.0.0
do:
  - greet:
      set:
        message: hello
"""
REQUEST = json.dumps(
    {"workflow_execution_id": "test-123", "workflow_yaml": DOCUMENT, "metadata": {"name": "hello", "version": "1.0.0"}}
)


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[MemoryWire]:
    async with served() as wire:
        yield wire


async def grpcurl(wire: MemoryWire, *arguments: str, data: str | None = None) -> tuple[int, str]:
    """Exit code and output of one run."""
    options = ["-plaintext", *(["-d", data] if data is not None else [])]
    process = await asyncio.create_subprocess_exec(
        require_tool("grpcurl"),
        *options,
        f"127.0.0.1:{wire.server.port}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    return process.returncode or 0, output.decode()


async def test_the_given_calls(wire: MemoryWire) -> None:
    code, output = await grpcurl(wire, f"{COMMAND_SERVICE}/ExecuteAsync", data=REQUEST)
    assert (code, json.loads(output)) == (0, GIVEN)
    code, output = await grpcurl(wire, f"{LATER_SERVICE}/executeAsync", data=REQUEST)
    assert (code, json.loads(output)) == (0, GIVEN)
    cancel = json.dumps({"execution_id": "test-123", "reason": "enough"})
    code, output = await grpcurl(wire, f"{COMMAND_SERVICE}/CancelExecution", data=cancel)
    assert (code, json.loads(output)) == (0, {})
    assert wire.engine.executions["test-123"].status == "cancelled"


async def test_it_lists_and_describes_with_comments(wire: MemoryWire) -> None:
    code, output = await grpcurl(wire, "list")
    assert code == 0
    assert {COMMAND_SERVICE, LATER_SERVICE, "grpc.health.v1.Health"} <= set(output.split())
    assert "fastrunner" not in output
    code, output = await grpcurl(wire, "describe", COMMAND_SERVICE)
    assert code == 0
    assert "// Accepts a workflow durably and answers at once" in output


async def test_it_prints_the_details_of_a_refusal(wire: MemoryWire) -> None:
    bad = json.dumps({"workflow_execution_id": "e-1", "workflow_yaml": "bad"})
    code, output = await grpcurl(wire, f"{COMMAND_SERVICE}/ExecuteAsync", data=bad)
    assert code != 0
    assert "InvalidArgument" in output
    assert "line 2, column 3, /do [required]: is missing" in output
