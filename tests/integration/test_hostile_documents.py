"""Documents and data that once were the death of their worker, again and again, through a server with one worker.

Each ends in its right way, somebody else's execution beside it completes, and the worker lives on.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from benchmarks.hostile_menu import chain, nested, tree
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput, WorkflowExecuteResponse
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import Execution
from fastrunner.service.methods import COMMAND_SERVICE
from tests.core.walking import document, error_type, raising
from tests.integration.runner_process import RunnerProcess, running, until
from tests.integration.test_hostile_expressions import Observer
from tests.integration.test_runner import SERVE, Caller, Client, assert_all_completed, called_again

ENDS_S_MAX = 5.0
NO_TIME = {"seconds": 0}


class Attacker(Observer):
    """A client that submits inputs, too."""

    def submit(self, execution_id: str, text: str, data: Any) -> str:
        call = self._channel.unary_unary(
            f"/{COMMAND_SERVICE}/ExecuteAsync",
            WorkflowExecuteInput.SerializeToString,
            WorkflowExecuteResponse.FromString,
        )
        request = WorkflowExecuteInput(
            workflow_execution_id=execution_id, workflow_yaml=text, input_json=json.dumps(data)
        )
        return str(call(request, timeout=30).status)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("runner") / "data", SERVE, FASTRUNNER_WORKERS="1") as process:
        process.wait_ready()
        until(process.ready)
        yield process


@pytest.fixture
def attacker(runner: RunnerProcess) -> Iterator[Attacker]:
    connected = Attacker(runner)
    yield connected
    connected.close()


@pytest.fixture(autouse=True)
def everybody_else(runner: RunnerProcess, attacker: Attacker, request: pytest.FixtureRequest) -> Iterator[None]:
    """Somebody's executions while an attack goes on, which complete, and the worker, which is the same after it."""
    client = Client(runner)
    caller = Caller(client, request.node.name)
    caller.start()
    until(lambda: caller.accepted)
    pids = [worker["pid"] for worker in runner.workers()]
    started_s = time.monotonic()
    yield
    until(called_again([caller]))
    assert time.monotonic() - started_s < ENDS_S_MAX
    caller.stop()
    assert set(caller.codes) == {grpc.StatusCode.OK}
    assert_all_completed(attacker, [caller])
    assert [worker["pid"] for worker in runner.workers()] == pids
    assert runner.ready()
    client.close()


def ended(attacker: Attacker, text: str, data: Any = None) -> Execution:
    """An execution, once it has ended."""
    execution_id = f"hostile-{time.monotonic_ns()}"
    attacker.submit(execution_id, text, data)
    until(lambda: attacker.status(execution_id) not in ("pending", "running"))
    return attacker.execution(execution_id)


# --- schemas ---


SCHEMAS = {
    "oneOf tree": (tree("oneOf"), nested(12, 5), "'oneOf' keyword"),
    "anyOf chain": (chain("anyOf", 60), 1, "'anyOf' keyword"),
    "oneOf chain": (chain("oneOf", 60), 1, "'oneOf' keyword"),
    "pattern": ({"items": {"pattern": "^((?=a)a|aa)+$"}}, ["a" * 40 + "b"] * 500, "schema took more than"),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_costly_schemas_refuse_their_data(attacker: Attacker, name: str) -> None:
    schema, data, told = SCHEMAS[name]
    execution = ended(attacker, document([{"s": {"set": {"a": 1}}}], input={"schema": {"document": schema}}), data)
    assert (execution.status, execution.error.type) == ("failed", error_type("validation"))
    assert told in execution.error.detail


def test_a_large_enum_lets_its_data_pass(attacker: Attacker) -> None:
    objects = [{"a": number, "b": "x"} for number in range(3_000)]
    schema = {"items": {"enum": objects}}
    execution = ended(
        attacker, document([{"s": {"set": {"a": 1}}}], input={"schema": {"document": schema}}), objects * 7
    )
    assert execution.status == "completed"


# --- retries ---


def test_attempts_without_time_and_without_number_go_on_until_cancelled(attacker: Attacker) -> None:
    trying = {
        "try": [{"w": {"wait": {"seconds": 10}}}],
        "catch": {"retry": {"limit": {"attempt": {"duration": NO_TIME}}}},
    }
    attacker.submit("endless", document([{"t": trying}]), None)
    until(lambda: attacker.execution("endless").last_sequence_number > 100)
    assert attacker.status("endless") == "running"
    attacker.cancel("endless")
    until(lambda: attacker.status("endless") == "cancelled")


def limited(limit: dict[str, Any]) -> dict[str, Any]:
    """A `try` in a loop whose retries have this limit."""
    attempt = {"try": [{"r": raising()}], "catch": {"retry": {"limit": {"attempt": {"count": 1}, **limit}}}}
    return {"l": {"for": {"each": "order", "in": '["PT1S", "PT2S"]'}, "do": [{"t": attempt}]}}


@pytest.mark.parametrize("limit", [{"duration": "${ $order }"}, {"attempt": {"count": 1, "duration": "${ $order }"}}])
def test_limits_may_ask_the_loop_around(attacker: Attacker, limit: dict[str, Any]) -> None:
    execution = ended(attacker, document([limited(limit)]))
    assert (execution.status, execution.error.type) == ("failed", "https://example.com/errors/odd")


def test_limits_that_ask_the_error_are_refused(attacker: Attacker) -> None:
    with pytest.raises(grpc.RpcError, match=r"\$error") as refused:
        attacker.submit("refused", document([limited({"duration": "${ $error.title }"})]), None)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# --- documents ---


def test_thousands_of_unknown_functions_are_refused(attacker: Attacker) -> None:
    texts = {f"k{number}": f"${{ nothing{number} }}" for number in range(8_000)}
    with pytest.raises(grpc.RpcError, match="nothing0") as refused:
        attacker.submit("refused", document([{"s": {"set": texts}}]), None)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
