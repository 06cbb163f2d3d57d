"""Support: what clients of the simulated runner ask for until it is promised, and what they were promised."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import AtCapacity, Unavailable, UnknownExecution, WrongState
from tests.integration.engines import document, submission
from tests.simulation.virtual import delay_s

__all__ = ["DOCUMENTS", "Job", "make_job"]

_CALL = "call: http, with: {method: get, endpoint: 'http://127.0.0.1:1/x'}"

DOCUMENTS = {
    "chain": document("".join(f"  - step{n}: {{set: {{n: '${{ .n + 1 }}'}}}}\n" for n in range(12))),
    "calls": document("".join(f"  - ask{n}: {{{_CALL}}}\n  - keep{n}: {{set: {{n: {n}}}}}\n" for n in range(4))),
    "retry": document(
        f"  - careful:\n      try:\n        - ask: {{{_CALL}}}\n        - done: {{set: {{n: 1}}}}\n"
        "      catch:\n        errors: {}\n        retry: {delay: {milliseconds: 300}, limit: {attempt: {count: 4}}}\n"
    ),
    "waits": document(
        "  - short: {wait: {milliseconds: 40}}\n  - long: {wait: {seconds: 20}}\n  - done: {set: {n: 1}}\n"
    ),
    "fork": document(
        "  - both:\n      fork:\n        branches:\n"
        f"          - left: {{{_CALL}}}\n          - right: {{wait: {{seconds: 2}}}}\n"
        f"  - race:\n      fork:\n        compete: true\n        branches:\n          - call: {{{_CALL}}}\n"
        "          - rest: {wait: {milliseconds: 30}}\n"
        "  - done: {set: {n: 1}}\n"
    ),
    "loop": document(
        "  - pages:\n      for: {each: page, in: '[range(30)]'}\n"
        "      do:\n        - add: {set: {n: '${ .n + $page }'}}\n"
    ),
    "late": document(
        f"  - slow:\n      timeout: {{after: {{milliseconds: 15}}}}\n      try:\n        - ask: {{{_CALL}}}\n"
        "      catch: {errors: {with: {type: https://serverlessworkflow.io/spec/1.0.0/errors/none}}}\n"
        "  - done: {set: {n: 1}}\n"
    ),
    "fault": document(
        f"  - careful:\n      try:\n        - ask: {{{_CALL[:-1]}, body: '${{ error(\"no body\") }}'}}}}\n"
        "      catch: {errors: {with: {status: 400}}}\n  - done: {set: {n: 1}}\n"
    ),
    "endless": document("  - again: {set: {n: 1}, then: rest}\n  - rest: {wait: {milliseconds: 500}, then: again}\n"),
}
"""Documents by name."""

_OUTPUTS = {"chain": '{"n":12}', "loop": '{"n":435}', "fault": '{"n":1}'}
"""Outputs of those that come to one whatever happens."""


@dataclass
class Job:
    """One execution and the commands its client wants obeyed, in order."""

    execution_id: str
    kind: str
    start_after_s: float
    script: list[tuple[float, str]]
    """(pause before it in seconds, `pause`, `resume`, `cancel` or `force`)."""
    accepted: bool = False
    position: int = 0
    """Commands of the script that were answered."""
    promised: list[str] = field(default_factory=list)
    """Commands that were answered with success."""
    refused: bool = False
    """A command was refused because the execution had ended."""

    @property
    def settled(self) -> bool:
        """Whether every command has its answer."""
        return self.accepted and self.position >= len(self.script)

    @property
    def cancelled(self) -> bool:
        """Whether its end as cancelled was promised."""
        return "cancel" in self.promised or "force" in self.promised

    @property
    def output(self) -> str | None:
        """What it must come to if it completes; None if that depends."""
        return _OUTPUTS.get(self.kind)

    async def run(self, engine: EmbeddedEngine, rng: random.Random) -> None:
        """Goes on with what is not promised yet."""
        if not self.accepted:
            await asyncio.sleep(self.start_after_s)
            request = submission(self.execution_id, DOCUMENTS[self.kind], input_json=b'{"n":0}')
            await _insist(lambda: engine.submit(request), rng)
            self.accepted = True
        while self.position < len(self.script):
            pause_s, command = self.script[self.position]
            await asyncio.sleep(pause_s)
            try:
                await _insist(self._command(engine, command), rng)
                self.promised.append(command)
            except WrongState:
                self.refused = True
            self.position += 1

    def _command(self, engine: EmbeddedEngine, command: str) -> Callable[[], Awaitable[None]]:
        if command == "pause":
            return lambda: engine.pause(self.execution_id, "")
        if command == "resume":
            return lambda: engine.resume(self.execution_id, "")
        return lambda: engine.cancel(self.execution_id, "", command == "force")


async def _insist(call: Callable[[], Awaitable[object]], rng: random.Random) -> None:
    """Calls until it is answered; what may be refused for now is asked again."""
    while True:
        try:
            await call()
        except (Unavailable, AtCapacity):
            await asyncio.sleep(delay_s(rng, 0.1, 2.0))
        except UnknownExecution as error:
            raise AssertionError("an accepted execution is unknown") from error
        else:
            return


def make_job(rng: random.Random, number: int) -> Job:
    """A client's plans."""
    kind = rng.choice(list(DOCUMENTS))
    script: list[tuple[float, str]] = []
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        script.append((delay_s(rng, 0.2, 10.0), rng.choice(("pause", "resume", "pause", "resume", "cancel", "force"))))
    if kind == "endless":
        script.append((delay_s(rng, 0.5, 10.0), rng.choice(("cancel", "force"))))
    return Job(f"job-{number}", kind, delay_s(rng, 0.1, 5.0), script)
