"""Hostile expressions and documents: the processor time each takes and what it gives.

    python -m benchmarks.hostile [--all | --documents]

starts a runner with two workers, keeps ordinary executions going over one connection, submits one execution per
expression over another, and prints a table for the documentation: time of the evaluation alone (the least of three, in
this process), time from acceptance to the failed execution as the client sees it while the rest goes on, and the error.
`--all` evaluates the whole of tests/core/hostile.py in this process instead and prints the slowest first; `--documents`
validates and compiles those of tests/core/hostile_documents.py, in one go and in steps as the service does.
"""

import sys
import tempfile
import time
from pathlib import Path

from fastrunner._core import Compilation, InvalidWorkflow, validate
from fastrunner._jq import ExpressionError, compile_expression
from tests.core import hostile
from tests.core.hostile_documents import DOCUMENTS
from tests.integration.runner_process import running, until
from tests.integration.test_hostile_expressions import EXPRESSIONS, Observer, document
from tests.integration.test_runner import SERVE, Caller, Client

ROUNDS = 3
STEP_BUDGET = 50
SHOWN_MAX = 90


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


def shown(text: str) -> str:
    text = text.replace("|", "\\|")
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "..."


def evaluate_all() -> None:
    rows = [(*processor_ms(text), text) for texts in hostile.GROUPS.values() for text in texts]
    for ms, outcome, text in sorted(rows, reverse=True):
        print(f"{ms:8.1f} ms  {shown(text):94} {outcome[:60]}")


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


def through_a_runner() -> None:
    alone = {text: processor_ms(text)[0] for text in EXPRESSIONS}
    print("| expression | processor, alone | to the failed execution | error |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", SERVE) as runner:
        runner.wait_ready()
        observer, others = Observer(runner), Client(runner)
        pids = {worker["pid"] for worker in runner.workers()}
        caller = Caller(others, "ordinary")
        caller.start()
        until(lambda: caller.accepted)
        for number, text in enumerate(EXPRESSIONS):
            execution_id, started_s = f"hostile-{number}", time.monotonic()
            observer.execute(execution_id, document(text, "value"))
            until(lambda execution_id=execution_id: observer.status(execution_id) == "failed")  # type: ignore[misc]
            taken_ms = (time.monotonic() - started_s) * 1000
            error = observer.execution(execution_id).error.detail.split(" (in ")[0][:80]
            print(f"| `{shown(text)}` | {alone[text]:.0f} ms | {taken_ms:.0f} ms | {error} |")
        caller.stop()
        for execution_id in caller.accepted:
            until(lambda execution_id=execution_id: observer.status(execution_id) == "completed")  # type: ignore[misc]
        replaced = runner.replaced(*pids)
        print(f"\nMeanwhile {len(caller.accepted)} ordinary executions of somebody else completed, none was refused: ")
        print(f"{dict(caller.codes)}; workers replaced: {replaced}.")
        observer.close()
        others.close()


if __name__ == "__main__":
    if "--all" in sys.argv:
        evaluate_all()
    elif "--documents" in sys.argv:
        compile_all()
    else:
        through_a_runner()
