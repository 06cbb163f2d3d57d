"""Executions that are the death of their worker: real deaths, of one worker or of several, and what becomes of whom."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE
from tests.crash.test_tree_kill import TOKEN, received, receiver
from tests.integration.runner_process import RunnerProcess, running, until
from tests.ports import free_port

T = TypeVar("T")


def serving(**bounds: float) -> tuple[str, str]:
    """The command of a runner whose bounds differ; a worker that dies often is replaced without a long pause."""
    changes = "".join(f"limits.{name} = {value}\n" for name, value in bounds.items())
    return "-c", (
        "import runpy, sys\n"
        "from fastrunner.base import limits\n"
        "limits.RESPAWN_DELAY_S_MAX = 0.2\n"
        f"{changes}sys.argv[1:] = ['serve']\n"
        "runpy.run_module('fastrunner', run_name='__main__', alter_sys=True)\n"
    )


def document(*tasks: dict[str, Any]) -> str:
    facts = {"dsl": "1.0.0", "namespace": "test", "name": "deadly", "version": "1.0.0"}
    return json.dumps({"document": facts, "do": [{f"step{n}": task} for n, task in enumerate(tasks)]})


def waiting(milliseconds: int = 100) -> dict[str, Any]:
    return {"wait": {"milliseconds": milliseconds}}


ORDINARY = document({"set": {"a": 1}}, waiting(20), {"set": {"b": 2}})
DEADLY = document(waiting(), {"set": {"done": True}})


class Operator:
    """A client that calls again while its worker is being replaced."""

    def __init__(self, runner: RunnerProcess) -> None:
        self._runner = runner
        self._channel: Any = None

    def _call(self, service: str, method: str, request: Any, reply: Callable[[bytes], T]) -> T:
        def once() -> tuple[T] | None:
            channel = grpc.insecure_channel(self._runner.target, [("grpc.use_local_subchannel_pool", 1)])
            with channel:
                call = channel.unary_unary(f"/{service}/{method}", type(request).SerializeToString, reply)
                try:
                    return (call(request, timeout=10),)
                except grpc.RpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
                    return None

        answer = until(once, 60)
        assert answer is not None
        return answer[0]

    def execute(self, execution_id: str, text: str = ORDINARY) -> None:
        request = m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=text)
        self._call(COMMAND_SERVICE, "ExecuteAsync", request, m.WorkflowExecuteResponse.FromString)

    def get(self, execution_id: str) -> q.Execution:
        request = q.GetExecutionRequest(execution_id=execution_id)
        return self._call(QUERY_SERVICE, "GetExecution", request, q.GetExecutionResponse.FromString).execution

    def status(self, execution_id: str) -> str:
        return str(self.get(execution_id).status)

    def listed(self, status: str) -> list[q.Execution]:
        request = q.ListExecutionsRequest(statuses=[status])
        return list(
            self._call(QUERY_SERVICE, "ListExecutions", request, q.ListExecutionsResponse.FromString).executions
        )

    def events(self, execution_id: str) -> list[m.WorkflowProgressEvent]:
        request = q.GetEventsRequest(execution_id=execution_id)
        events = list(self._call(QUERY_SERVICE, "GetEvents", request, q.GetEventsResponse.FromString).events)
        assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
        return events

    def types(self, execution_id: str) -> list[str]:
        return [event.event_type.removeprefix("workflow_") for event in self.events(execution_id)]

    def resume(self, execution_id: str) -> None:
        self._call(COMMAND_SERVICE, "ResumeExecution", m.ResumeExecutionRequest(execution_id=execution_id), bytes)

    def cancel(self, execution_id: str, *, force: bool = False) -> None:
        request = m.CancelExecutionRequest(execution_id=execution_id, reason="enough", force=force)
        self._call(COMMAND_SERVICE, "CancelExecution", request, bytes)

    def complete(self, execution_id: str) -> None:
        """Somebody else's work is done as ever."""
        self.execute(execution_id)
        until(lambda: self.status(execution_id) == "completed", 60)

    def until_aside(self, execution_id: str) -> q.Execution:
        until(lambda: self.status(execution_id) == "paused", 90)
        execution = self.get(execution_id)
        assert "Paused by the runner: its worker died 3 times" in execution.error.message
        return execution


@contextmanager
def tree(
    folder: Path, blows: str = "", workers: int = 1, command: Sequence[str] = serving(), **environment: str
) -> Iterator[tuple[RunnerProcess, Operator]]:
    turns = {"FASTRUNNER_CRASH_TURN": blows} if blows else {}
    with running(folder / "data", command, FASTRUNNER_WORKERS=str(workers), **turns, **environment) as runner:
        runner.wait_ready()
        yield runner, Operator(runner)


def deaths(runner: RunnerProcess) -> int:
    return sum(worker["restarts"] for worker in runner.workers())


def set_aside(runner: RunnerProcess) -> dict[str, int]:
    found = re.findall(r'executions_set_aside_total\{reason="(\w+)"\} (\d+)', runner.get("/metrics")[1])
    return {reason: int(count) for reason, count in found if int(count)}


class Service(BaseHTTPRequestHandler):
    """Answers after a while; knows the keys it was asked with."""

    calls: list[str]
    delay: threading.Event

    def do_GET(self) -> None:
        self.calls.append(self.headers["Idempotency-Key"])
        self.delay.wait(20)
        body = b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *facts: Any) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[tuple[str, list[str], threading.Event]]:
    """Its URL, the keys it was called with, and what lets it answer."""
    calls: list[str] = []
    answer = threading.Event()
    handler = type("Handler", (Service,), {"calls": calls, "delay": answer})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", calls, answer
    answer.set()
    server.shutdown()
    server.server_close()


def calling(url: str) -> dict[str, Any]:
    return {"call": "http", "with": {"method": "get", "endpoint": url}}


@pytest.mark.parametrize(
    ("blow", "reason"), [("segv", "SIGSEGV"), ("abort", "SIGABRT"), ("kill-late", "SIGKILL"), ("hang", "watchdog")]
)
def test_third_death_sets_aside_and_others_go_on(tmp_path: Path, blow: str, reason: str) -> None:
    bounds = {"PING_INTERVAL_S": 0.2, "PING_TIMEOUT_S": 1.0} if blow == "hang" else {}
    with tree(tmp_path, f"{blow}:turn:evil", command=serving(**bounds)) as (runner, operator):
        operator.execute("slow", document(waiting(1500), {"set": {"a": 1}}))
        operator.complete("before")
        operator.execute("evil", DEADLY)
        execution = operator.until_aside("evil")
        assert f"({reason})" in execution.error.message
        operator.complete("after")
        until(lambda: operator.status("slow") == "completed")
        assert deaths(runner) == 3
        assert set_aside(runner) == {reason: 1}
        [event] = [each for each in operator.events("evil") if each.event_type == "workflow_paused"]
        assert event.status == "paused"
        assert event.message == (
            f"Workflow deadly paused by the runner: its worker died 3 times in a turn of it ({reason}); resume it "
            "to try again, or cancel it"
        )
        [listed] = operator.listed("paused")
        assert (listed.execution_id, listed.error.message) == ("evil", execution.error.message)
        command = [sys.executable, "-m", "fastrunner", "list", "--status", "paused", "--target", runner.target]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        assert shown.splitlines()[-1].startswith("evil ")
        assert shown.splitlines()[-1].endswith(execution.error.message)
        code, _, said = runner.stop()
        assert code == 0
        assert said.count("set aside: worker died 3 times") == 1


@pytest.mark.parametrize("part", ["restore", "render", "snapshot"])
def test_every_part_of_a_turn_is_marked(
    tmp_path: Path, part: str, service: tuple[str, list[str], threading.Event]
) -> None:
    """A worker that dies of bringing an execution back starts again as often as it takes, and the others go on."""
    url, _, answer = service
    with tree(tmp_path, f"segv:{part}:evil") as (runner, operator):
        operator.execute("good", document(calling(url), waiting(100), {"set": {"a": 1}}))
        operator.execute("evil", document(calling(url), {"set": {"a": 1}}))
        if part == "restore":
            os.kill(runner.workers()[0]["pid"], signal.SIGKILL)
        answer.set()
        operator.until_aside("evil")
        until(lambda: operator.status("good") == "completed")
        assert set_aside(runner) == {"SIGSEGV": 1}
        assert deaths(runner) == (4 if part == "restore" else 3)


def test_resumed_it_dies_again_and_is_set_aside_again(tmp_path: Path) -> None:
    """Also when bringing it back is what kills; then, with the fault gone, it completes and repeats nothing."""
    with tree(tmp_path, "segv:turn:evil,segv:restore:lost") as (runner, operator):
        operator.execute("evil", document(waiting(), waiting()))
        operator.execute("lost", document({"set": {"a": 1}}, waiting(3_000), {"set": {"b": 2}}))
        operator.until_aside("evil")
        operator.until_aside("lost")
        for execution_id in ("evil", "lost"):
            dead = deaths(runner)
            operator.resume(execution_id)
            until(lambda dead=dead: deaths(runner) == dead + 3, 60)  # type: ignore[misc]
            operator.until_aside(execution_id)
            assert operator.types(execution_id)[-3:] == ["paused", "resumed", "paused"]
        operator.complete("other")
        assert runner.stop()[0] == 0
    with tree(tmp_path) as (runner, operator):
        for execution_id in ("evil", "lost"):
            operator.until_aside(execution_id)
            operator.resume(execution_id)
            until(lambda each=execution_id: operator.status(each) == "completed")  # type: ignore[misc]
            assert not operator.get(execution_id).HasField("error")
        assert operator.types("evil") == [
            *("started", "validating", "validated", "task_started", "paused", "resumed", "paused", "resumed"),
            *("task_completed", "task_started", "task_completed", "completed"),
        ]
        assert deaths(runner) == 0


@pytest.mark.parametrize("force", [False, True])
def test_set_aside_it_is_cancelled_from_the_store(tmp_path: Path, force: bool) -> None:
    """Nothing of it runs, so nothing dies, whatever it would have died of."""
    with tree(tmp_path, "segv:turn:evil,segv:restore:evil") as (runner, operator):
        operator.execute("evil", DEADLY)
        operator.until_aside("evil")
        operator.cancel("evil", force=force)
        assert operator.status("evil") == "cancelled"
        operator.cancel("evil", force=force)
        assert operator.types("evil")[-2:] == ["paused", "cancelled"]
        assert operator.events("evil")[-1].message == "Workflow deadly cancelled: enough"
        with pytest.raises(grpc.RpcError) as refused:
            operator.resume("evil")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert deaths(runner) == 3
        until(lambda: runner.metric("workflow_runner_active_executions") == 0)
        assert runner.metric("workflow_runner_parked_executions") == 0


def test_deaths_count_over_a_restart_of_the_tree(tmp_path: Path) -> None:
    """Two deaths in one run, the third in the next; and what is set aside stays so."""
    with tree(tmp_path, "segv:turn:evil") as (runner, operator):
        # The second death is answered after a pause, in which the whole tree is killed.
        operator.execute("evil", document(waiting(100), {"set": {"a": 1}}))
        until(lambda: deaths(runner) == 2, 60)
        until(runner.ready)
        os.killpg(runner.process.pid, signal.SIGKILL)
        runner.process.communicate(timeout=30)
    with tree(tmp_path, "segv:turn:evil") as (runner, operator):
        operator.until_aside("evil")
        assert deaths(runner) <= 2
        os.killpg(runner.process.pid, signal.SIGKILL)
        runner.process.communicate(timeout=30)
    (tmp_path / "data" / "shard-0000.marks").unlink()
    with tree(tmp_path, "segv:turn:evil") as (runner, operator):
        assert "its worker died 3 times" in operator.until_aside("evil").error.message
        assert deaths(runner) == 0
        runner.signal(signal.SIGHUP)
        pids = [worker["pid"] for worker in runner.workers()]
        until(lambda: runner.replaced(*pids))
        operator.until_aside("evil")
        operator.complete("other")
        assert runner.stop()[0] == 0


def test_kill_in_an_ordinary_turn_counts_nothing(tmp_path: Path) -> None:
    with tree(tmp_path, "kill:turn:evil") as (runner, operator):
        operator.execute("evil", DEADLY)
        until(lambda: deaths(runner) >= 5, 60)
        assert set_aside(runner) == {}
    with tree(tmp_path) as (_, operator):
        until(lambda: operator.status("evil") == "completed")
        assert "paused" not in operator.types("evil")


def test_kills_by_an_operator_condemn_nobody(tmp_path: Path, service: tuple[str, list[str], threading.Event]) -> None:
    url, calls, answer = service
    with tree(tmp_path) as (runner, operator):
        operator.execute("long", document(calling(url), {"set": {"a": 1}}))
        for number in range(10):
            until(lambda number=number: len(calls) > number, 60)  # type: ignore[misc]
            pid = runner.workers()[0]["pid"]
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: runner.replaced(pid), 60)  # type: ignore[misc]
        answer.set()
        until(lambda: operator.status("long") == "completed")
        assert len(set(calls)) == 1
        assert set_aside(runner) == {}


def test_two_that_kill_alternately_are_both_found(tmp_path: Path) -> None:
    with tree(tmp_path, "segv:turn:evil") as (runner, operator):
        operator.execute("evil-1", DEADLY)
        operator.execute("evil-2", document(waiting(101), {"set": {"a": 1}}))
        operator.until_aside("evil-1")
        operator.until_aside("evil-2")
        assert deaths(runner) == 6
        operator.complete("other")


def test_only_the_culprit_is_counted(tmp_path: Path) -> None:
    """Of several workers, with executions on each."""
    with tree(tmp_path, "segv:turn:evil", workers=2) as (runner, operator):
        good = [f"good-{number}" for number in range(16)]
        for each in good:
            operator.execute(each, document(*[waiting(150), {"set": {"a": 1}}] * 8))
        operator.execute("evil", DEADLY)
        operator.until_aside("evil")
        for each in good:
            until(lambda each=each: operator.status(each) == "completed", 60)  # type: ignore[misc]
        assert sorted(worker["restarts"] for worker in runner.workers()) == [0, 3]
        assert [each.execution_id for each in operator.listed("paused")] == ["evil"]


def test_callbacks_tell_of_it(tmp_path: Path) -> None:
    store, port = tmp_path / "received.jsonl", free_port()
    settings: dict[str, Any] = {
        "STIGMER_SERVICE_ENDPOINT": f"127.0.0.1:{port}",
        "STIGMER_SERVICE_API_KEY": TOKEN,
        "STIGMER_SERVICE_USE_TLS": "false",
    }
    with receiver(port, store) as receiving:
        with tree(tmp_path, "segv:turn:evil", **settings) as (_, operator):
            operator.execute("evil", DEADLY)
            operator.until_aside("evil")
            until(lambda: "workflow_paused" in received(store)["evil"].values())
            operator.cancel("evil")
            until(lambda: "workflow_cancelled" in received(store)["evil"].values())
        receiving.send_signal(signal.SIGTERM)
        _, verdict = receiving.communicate(timeout=30)
        assert receiving.returncode == 0, verdict.decode()
