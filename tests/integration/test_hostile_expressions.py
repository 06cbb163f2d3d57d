"""Hostile expressions through a running runner: each fails on its task, and everybody else's executions go on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import (
    Execution,
    GetExecutionRequest,
    GetExecutionResponse,
)
from fastrunner.service.methods import QUERY_SERVICE
from tests.core import hostile
from tests.integration.runner_process import RunnerProcess, running, until
from tests.integration.test_runner import SERVE, Caller, Client, assert_all_completed, called_again

EXPRESSIONS = (
    "repeat(1)",
    "[range(1e12)]",
    '"a" * 1e10',
    "def f: f; f",
    '"\\(.text * 1250000)\\(.text * 1250000)"',
    "[range(1000)] | [combinations(5)]",
    "last(range(1e9) | tojson)",
    "last(range(1e9) | todate)",
    "null | .[1e9] = 1",
    "reduce range(1e9) as $i ([]; . + [$i])",
    f"{hostile.LONG} | last(range(1e9) as $i | @base64)",
    f"{hostile.LONG} as $s | [range(1e5) | $s] | sort | length",
    hostile.SHARED,
    hostile.SHARED_OBJECT,
    f"{hostile.SHARED} | tojson",
    f"{hostile.SHARED} == {hostile.SHARED}",
    f"{hostile.SHARED} | error(.)",
    "reduce range(100000) as $_ (null; [.])",
    "reduce range(100000) as $_ (null; {a: .})",
    "reduce range(50000) as $_ (null; [.]) | . as $d | [$d, (reduce range(50000) as $_ (null; [.]))] | sort",
    "def f: [f]; f",
    "[range(1e5)] | map([range(1e5)])",
    '("a" * 40) + "b" | test("^(a+)+$")',
)
# Too large or too deep to keep, but not to be true.
KEPT_BY_NOBODY = EXPRESSIONS[12:14] + EXPRESSIONS[17:19]


def document(expression: str, form: str) -> str:
    """A workflow with an expression where a value stands, or where a condition does."""
    task = {"set": {"x": f"${{ {expression} }}"}} if form == "value" else {"if": expression, "set": {"x": 1}}
    facts = {"dsl": "1.0.0", "namespace": "test", "name": "hostile", "version": "1.0.0"}
    return json.dumps({"document": facts, "do": [{"first": {"set": {"text": "12345678"}}}, {"attack": task}]})


class Observer(Client):
    """A client that sees whole executions."""

    def __init__(self, runner: RunnerProcess) -> None:
        super().__init__(runner)
        self._get = self._channel.unary_unary(
            f"/{QUERY_SERVICE}/GetExecution", GetExecutionRequest.SerializeToString, GetExecutionResponse.FromString
        )

    def execution(self, execution_id: str) -> Execution:
        reply: GetExecutionResponse = self._get(GetExecutionRequest(execution_id=execution_id), timeout=30)
        return reply.execution


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", SERVE) as process:
        yield process.wait_ready()


@pytest.fixture
def observer(runner: RunnerProcess) -> Iterator[Observer]:
    connected = Observer(runner)
    yield connected
    connected.close()


@pytest.fixture
def caller(runner: RunnerProcess) -> Iterator[Caller]:
    """Somebody else, who executes ordinary workflows one after the other."""
    client = Client(runner)
    started = Caller(client, "ordinary")
    started.start()
    yield started
    started.stop()
    client.close()


def test_hostile_expressions_fail_alone(runner: RunnerProcess, observer: Observer, caller: Caller) -> None:
    """Every one ends FAILED with an expression error on its task; the rest completes; no worker is replaced."""
    until(lambda: caller.accepted)
    pids = {worker["pid"] for worker in runner.workers()}
    ids = {}
    for number, expression in enumerate(EXPRESSIONS):
        form = "value" if number % 2 or expression in KEPT_BY_NOBODY else "condition"
        ids[expression] = f"hostile-{number}"
        observer.execute(ids[expression], document(expression, form))
    for execution_id in ids.values():
        until(lambda execution_id=execution_id: observer.status(execution_id) not in ("pending", "running"))  # type: ignore[misc]
    until(called_again([caller]))
    for expression, execution_id in ids.items():
        execution = observer.execution(execution_id)
        assert execution.status == "failed", expression
        assert execution.error.type.endswith("/errors/expression"), execution.error
        assert execution.error.instance == "/do/1/attack"
        assert len(execution.error.detail) < 5_000
    caller.stop()
    assert set(caller.codes) == {grpc.StatusCode.OK}
    assert_all_completed(observer, [caller])
    assert {worker["pid"] for worker in runner.workers()} == pids
    assert runner.ready()


def test_costly_loops_leave_room(runner: RunnerProcess, observer: Observer, caller: Caller) -> None:
    """Executions that spend nearly a whole budget again and again, for ever, do not keep others from their turn."""
    until(lambda: caller.accepted)
    costly = {"set": {"x": "${ last(range(150000)) }", "y": "${ [range(1000)] | sort | length }"}}
    inner = {"for": {"each": "item", "in": "[range(1000)]"}, "do": [{"busy": costly}]}
    loop = {"for": {"each": "round", "in": "[range(1000)]"}, "do": [{"rounds": inner}]}
    facts = {"dsl": "1.0.0", "namespace": "test", "name": "busy", "version": "1.0.0"}
    for number in range(4):
        observer.execute(f"busy-{number}", json.dumps({"document": facts, "do": [{"loop": loop}]}))
    started_s = time.monotonic()
    for _ in range(5):
        until(called_again([caller]))
    assert time.monotonic() - started_s < 20
    for number in range(4):
        observer.cancel(f"busy-{number}")
    caller.stop()
    assert set(caller.codes) == {grpc.StatusCode.OK}
    assert_all_completed(observer, [caller])
