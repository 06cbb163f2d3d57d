"""Hostile requests: what each costs a worker, how it ends, and what somebody else's small executions notice of it.

    python -m benchmarks.hostile [--only NAME] [--seconds S]
    python -m benchmarks.hostile [--all | --documents]

starts a runner with one worker, keeps 50 small executions per second going over one connection, submits the attacks of
`hostile_menu` over another, one after the other, and prints a row for each: the worker's processor time, the time to
the end (an attack that lasts longer than `--seconds` is cancelled), the longest that a small execution took from when
it was due, which is a measure of the longest turn, and how the attack ended. It fails if the worker died, or if a small
execution took longer than a second. `--only` takes a part of a name, or a group. `--all` evaluates the whole of
tests/core/hostile.py in this process instead and prints the slowest first; `--documents` validates and compiles those
of tests/core/hostile_documents.py, in one go and in steps as the service does.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc

from benchmarks.hostile_menu import ATTACKS, Attack, workflow
from benchmarks.servers import runner as serving
from fastrunner._core import Compilation, InvalidWorkflow, validate
from fastrunner._jq import ExpressionError, compile_expression
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    CancelExecutionRequest,
    WorkflowExecuteInput,
    WorkflowExecuteResponse,
    WorkflowProgressEvent,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import GetExecutionRequest, GetExecutionResponse
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE
from tests.core import hostile
from tests.core.hostile_documents import DOCUMENTS
from tests.integration.runner_process import RunnerProcess, until

ROUNDS = 3
STEP_BUDGET = 50
SHOWN_MAX = 70
HONEST_PER_S = 50
HONEST_S_MAX = 1.0
ALONE_S = 3.0
SETTLING_S = 0.1
POLL_INTERVAL_S = 0.05
RETRY_INTERVAL_S = 0.05
CALL_TIMEOUT_S = 120.0
HONEST, HOSTILE = (("fastrunner-client", "honest"),), (("fastrunner-client", "hostile"),)
ENDED = ("completed", "failed", "cancelled")
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


def shown(text: str) -> str:
    text = text.replace("|", "\\|")
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "..."


# --- in this process ---


def processor_ms(text: str) -> tuple[float, str]:
    """Least processor time of an evaluation, and its error."""
    program = compile_expression(text)
    least_s, outcome = float("inf"), ""
    for _ in range(ROUNDS):
        started_s = time.process_time()
        try:
            program.first({"text": "12345678"})
            outcome = "ends"
        except ExpressionError as error:
            outcome = str(error)
        least_s = min(least_s, time.process_time() - started_s)
    return least_s * 1000, outcome


def evaluate_all() -> None:
    rows = [(*processor_ms(text), text) for texts in hostile.GROUPS.values() for text in texts]
    for ms, outcome, text in sorted(rows, reverse=True):
        print(f"{ms:8.1f} ms  {shown(text):74} {outcome[:60]}")


def steps_ms(text: str) -> list[float]:
    """Processor time of each step of compiling a document."""
    compilation = Compilation(text)
    taken: list[float] = []
    while True:
        started_s = time.process_time()
        try:
            is_done = compilation.step(STEP_BUDGET) is not None
        except InvalidWorkflow:
            is_done = True
        taken.append((time.process_time() - started_s) * 1000)
        if is_done:
            return taken


def compile_all() -> None:
    for name, make in DOCUMENTS.items():
        text = make()
        started_s = time.process_time()
        problems = validate(text)
        validated_ms = (time.process_time() - started_s) * 1000
        steps = steps_ms(text)
        outcome = f"{len(problems)} problems, {problems[-1].code} the last" if problems else "compiles"
        print(
            f"{name:40} {len(text) // 1024:5} KiB  validate {validated_ms:4.0f} ms  compile {sum(steps):4.0f} ms  "
            f"longest step {max(steps):4.0f} ms  {outcome}"
        )


# --- the others ---


class Trickle:
    """Small executions at fixed times, whatever becomes of them; refused ones are submitted again."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, OPTIONS)
        self._execute = self._channel.unary_stream(
            f"/{COMMAND_SERVICE}/Execute",
            WorkflowExecuteInput.SerializeToString,
            WorkflowProgressEvent.FromString,
        )
        self._document = workflow({"set": {"number": 1}})
        self._pool = ThreadPoolExecutor(400)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._taken: list[tuple[float, float]] = []
        self._open: dict[int, float] = {}
        self.refused = 0
        self._thread.start()

    def _send(self) -> None:
        due_s, number = time.monotonic(), 0
        while not self._stopped.wait(max(0.0, due_s - time.monotonic())):
            self._open[number] = due_s
            self._pool.submit(self._one, number, due_s)
            due_s, number = due_s + 1 / HONEST_PER_S, number + 1

    def _one(self, number: int, due_s: float) -> None:
        request = WorkflowExecuteInput(workflow_execution_id=f"honest-{number}", workflow_yaml=self._document)
        while not self._stopped.is_set():
            try:
                for _ in self._execute(request, timeout=CALL_TIMEOUT_S, metadata=HONEST):
                    pass
                break
            except grpc.RpcError:
                self.refused += 1
                self._stopped.wait(RETRY_INTERVAL_S)
        self._taken.append((due_s, time.monotonic() - due_s))
        del self._open[number]

    def longest_ms(self, since_s: float) -> float:
        """The longest that one took which ended since then; waits for those that are due by now."""
        now_s = time.monotonic()
        while any(due_s <= now_s for due_s in list(self._open.values())):
            time.sleep(POLL_INTERVAL_S)
        return 1000 * max((s for due_s, s in self._taken if due_s + s >= since_s), default=0.0)

    def usual_ms(self) -> float:
        """What half of them took so far."""
        return 1000 * median(taken_s for _, taken_s in self._taken)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._pool.shutdown()
        self._channel.close()


# --- attacks ---


@dataclass(frozen=True)
class Row:
    """What came of an attack."""

    group: str
    name: str
    processor_ms: float
    taken_s: float
    honest_ms: float
    ended: str
    died: bool

    @property
    def bad(self) -> bool:
        return self.died or self.honest_ms > 1000 * HONEST_S_MAX

    def __str__(self) -> str:
        figures = f"{self.processor_ms:,.0f} ms | {self.taken_s:.1f} s | {self.honest_ms:.0f} ms"
        return f"| `{shown(self.name)}` | {figures} | {shown(self.ended)}{', worker died' if self.died else ''} |"


class Attacker:
    """A client that submits attacks and sees how they end."""

    def __init__(self, runner: RunnerProcess, trickle: Trickle, seconds: float) -> None:
        self._runner, self._trickle, self._seconds = runner, trickle, seconds
        channel = grpc.insecure_channel(runner.target, OPTIONS)
        self._execute = channel.unary_unary(
            f"/{COMMAND_SERVICE}/ExecuteAsync",
            WorkflowExecuteInput.SerializeToString,
            WorkflowExecuteResponse.FromString,
        )
        self._cancel = channel.unary_unary(
            f"/{COMMAND_SERVICE}/CancelExecution", CancelExecutionRequest.SerializeToString, bytes
        )
        self._get = channel.unary_unary(
            f"/{QUERY_SERVICE}/GetExecution", GetExecutionRequest.SerializeToString, GetExecutionResponse.FromString
        )

    def run(self, number: int, attack: Attack) -> Row:
        document, data = attack.document(), json.dumps(attack.input())
        request = WorkflowExecuteInput(
            workflow_execution_id=f"hostile-{number}", workflow_yaml=document, input_json=data
        )
        return self.watched(attack.group, attack.name, lambda: self._ended(request))

    def alone(self) -> Row:
        def rest() -> str:
            time.sleep(ALONE_S)
            return "-"

        return self.watched("nothing", "nothing hostile", rest)

    def watched(self, group: str, name: str, attack: Callable[[], str]) -> Row:
        pid = self._pid()
        used_s, started_s = processor_s(pid), time.monotonic()
        ended = attack()
        taken_s = time.monotonic() - started_s
        # What was due during a short attack may not have been sent yet.
        time.sleep(SETTLING_S)
        honest_ms = self._trickle.longest_ms(started_s)
        died = self._pid() != pid
        used_s = 0.0 if died else processor_s(pid) - used_s
        return Row(group, name, 1000 * used_s, taken_s, honest_ms, ended, died)

    def _pid(self) -> int:
        return int(until(self._runner.workers)[0]["pid"])

    def _ended(self, request: WorkflowExecuteInput) -> str:
        """How an execution ends: refused, by itself, or cancelled because it lasts."""
        try:
            self._execute(request, timeout=CALL_TIMEOUT_S, metadata=HOSTILE)
            return self._followed(request.workflow_execution_id)
        except grpc.RpcError as error:
            return f"{error.code().name}: {(error.details() or '-').splitlines()[0]}"

    def _followed(self, execution_id: str) -> str:
        deadline_s = time.monotonic() + self._seconds
        cancelled = False
        while True:
            reply = self._get(GetExecutionRequest(execution_id=execution_id), timeout=CALL_TIMEOUT_S)
            if reply.execution.status in ENDED:
                break
            if not cancelled and time.monotonic() > deadline_s:
                self._cancel(CancelExecutionRequest(execution_id=execution_id, force=True), timeout=CALL_TIMEOUT_S)
                cancelled = True
            time.sleep(POLL_INTERVAL_S)
        error = reply.execution.error
        if reply.execution.status == "failed":
            return f"failed, {error.type.rsplit('/', 1)[-1]}: {error.detail}"
        return f"{reply.execution.status}{f' after {self._seconds:.0f} s' if cancelled else ''}"


def processor_s(pid: int) -> float:
    """Processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def through_a_runner(attacks: list[Attack], seconds: float) -> bool:
    """Prints the table; whether the worker lived and nobody waited too long."""
    rows = []
    with serving(1) as runner:
        trickle = Trickle(runner.target)
        attacker = Attacker(runner, trickle, seconds)
        print("| attack | worker's processor | to the end | longest small execution | end |\n|---|---|---|---|---|")
        print(attacker.alone(), flush=True)
        usual_ms = trickle.usual_ms()
        for number, attack in enumerate(attacks, 1):
            print(f"[{number}/{len(attacks)}] {attack.group}: {shown(attack.name)}", file=sys.stderr, flush=True)
            rows.append(attacker.run(number, attack))
            print(rows[-1], flush=True)
        trickle.stop()
    print_summary(rows, usual_ms)
    bad = [row for row in rows if row.bad]
    print(f"\n{len(rows)} attacks; {trickle.refused} small executions refused and submitted again; bad: {len(bad)}")
    for row in bad:
        print(row)
    return not bad


def print_summary(rows: list[Row], usual_ms: float) -> None:
    """What small executions notice by group, as a multiple of what half of them take when nobody attacks."""
    print(
        "\n| group | attacks | longest small execution: half of the attacks | the worst | by |\n|---|---|---|---|---|"
    )
    for group in dict.fromkeys(row.group for row in rows):
        ordered = sorted((row for row in rows if row.group == group), key=lambda row: row.honest_ms)
        half, worst = ordered[len(ordered) // 2], ordered[-1]
        ratios = f"{half.honest_ms / usual_ms:.1f}x | {worst.honest_ms / usual_ms:.1f}x"
        print(f"| {group} | {len(ordered)} | {ratios} | `{shown(worst.name)}` |")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--documents", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    if options.all:
        evaluate_all()
        return 0
    if options.documents:
        compile_all()
        return 0
    attacks = [attack for attack in ATTACKS if options.only in attack.name or options.only == attack.group]
    return 0 if through_a_runner(attacks, options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
