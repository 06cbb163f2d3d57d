"""Support: what clients of the simulated runner ask for until it is promised, and what they were promised.

Several of them may want the same id at once, with the same request or with others: of those requests one is accepted,
all who send it get the same answer, and all others are refused, whichever worker they reach and whoever dies meanwhile.
"""

import asyncio
import random
from dataclasses import dataclass, field

import orjson
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    CancelExecutionRequest,
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    PauseExecutionRequest,
    ResumeExecutionRequest,
    WorkflowExecuteInput,
)
from fastrunner.errors import RunnerError, code_of
from tests.simulation.documents import DOCUMENTS, LISTENING, NEWS, PAIRS
from tests.simulation.runner import Runner
from tests.simulation.virtual import delay_s

__all__ = ["Broken", "Job", "insist", "make_job", "make_listening_jobs"]

_OTHER = 9
"""A request that nobody sends before the id is taken."""
_ALL = {
    **DOCUMENTS,
    **LISTENING,
    **NEWS,
    **{f"{kind} {number}": text for kind, pair in PAIRS.items() for number, text in enumerate(pair)},
}
"""Documents by kind of job."""
_FOR_NOW = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)


class Broken(Exception):
    """A promise was broken; the message says which."""


@dataclass
class Job:
    """One execution, the requests for it, and the commands its clients want obeyed, in order."""

    execution_id: str
    kind: str
    start_after_s: float
    unanswered: list[int]
    """Requests sent at once, told apart by numbers, that have no final answer yet."""
    in_batch: bool
    """Whether they are sent in one call."""
    script: list[tuple[float, str]]
    """(pause before it in seconds, `pause`, `resume`, `cancel`, `force`, `again` or `other`)."""
    winner: int = -1
    """The request that was accepted."""
    position: int = 0
    """Commands of the script that were answered."""
    promised: list[str] = field(default_factory=list)
    """Commands that were answered with success."""
    refused: bool = False
    """A command was refused because the execution had ended."""
    partner_id: str = ""
    """Whom it emits events for."""
    may_be_forgotten: bool = False
    """Whether its retention may end meanwhile; then its id may be taken again, and most promises are void."""
    _losers: set[int] = field(default_factory=set)

    @property
    def accepted(self) -> bool:
        """Whether one of the requests was."""
        return self.winner >= 0

    @property
    def settled(self) -> bool:
        """Whether every request and every command has its answer."""
        return not self.unanswered and self.position >= len(self.script)

    @property
    def cancelled(self) -> bool:
        """Whether its end as cancelled was promised."""
        return "cancel" in self.promised or "force" in self.promised

    async def run(self, runner: Runner) -> None:
        """Goes on with what is not promised yet. Raises Broken."""
        if self.unanswered:
            await asyncio.sleep(self.start_after_s)
            if self.in_batch:
                await self._submit_in_batches(runner)
            else:
                await asyncio.gather(*(self._submit(runner, number) for number in list(self.unanswered)))
        while self.position < len(self.script):
            pause_s, command = self.script[self.position]
            await asyncio.sleep(pause_s)
            if command in ("again", "other"):
                await self.submit_again(runner, self.winner if command == "again" else _OTHER)
            else:
                await self._command(runner, command)
            self.position += 1

    def _request(self, number: int) -> WorkflowExecuteInput:
        return WorkflowExecuteInput(
            workflow_execution_id=self.execution_id,
            workflow_yaml=_ALL[self.kind],
            input_json=orjson.dumps({"n": 0, "to": self.partner_id}).decode(),
            env_vars={"REQUEST": str(number)},
        )

    async def _submit(self, runner: Runner, number: int) -> None:
        code = await _insist(runner, "ExecuteAsync", self._request(number))
        self.unanswered.remove(number)
        self._answered(number, code)

    async def _submit_in_batches(self, runner: Runner) -> None:
        while self.unanswered:
            asked = list(self.unanswered)
            batch = ExecuteAsyncBatchRequest(executions=[self._request(number) for number in asked])
            try:
                reply = await runner.ask("ExecuteAsyncBatch", batch.SerializeToString())
            except RunnerError as error:
                _check_is_for_now("ExecuteAsyncBatch", code_of(error))
            else:
                results = ExecuteAsyncBatchResponse.FromString(reply).results
                for number, result in zip(asked, results, strict=True):
                    if result.refused.code not in _FOR_NOW:
                        self.unanswered.remove(number)
                        self._answered(number, result.refused.code)
            await asyncio.sleep(delay_s(runner.world.rng, 0.1, 2.0))

    def _answered(self, number: int, code: int) -> None:
        if code not in (Code.OK, Code.ALREADY_EXISTS):
            raise Broken(f"{self.execution_id}: a submission was answered with {Code.Name(code)}")
        if self.may_be_forgotten:
            self.winner = number if code == Code.OK else self.winner
        elif code == Code.OK:
            if self.winner not in (-1, number):
                raise Broken(f"{self.execution_id}: requests {self.winner} and {number} were both accepted")
            if number in self._losers:
                raise Broken(f"{self.execution_id}: request {number} was refused, then accepted")
            self.winner = number
        else:
            if number == self.winner:
                raise Broken(f"{self.execution_id}: request {number} was accepted, then refused")
            self._losers.add(number)

    async def submit_again(self, runner: Runner, number: int, worker: int | None = None) -> None:
        """One of its requests again, or another one, at any worker or a certain one. Raises Broken."""
        self._answered(number, await _insist(runner, "ExecuteAsync", self._request(number), worker))

    async def submit_other(self, runner: Runner, worker: int) -> None:
        """Another request under its id. Raises Broken if it is accepted."""
        await self.submit_again(runner, _OTHER, worker)

    async def _command(self, runner: Runner, command: str) -> None:
        code = await _insist(runner, *self._command_request(command))
        if code == Code.OK:
            self.promised.append(command)
        elif code == Code.FAILED_PRECONDITION or (code == Code.NOT_FOUND and self.may_be_forgotten):
            self.refused = True
        else:
            raise Broken(f"{command} of {self.execution_id} was answered with {Code.Name(code)}")

    def _command_request(self, command: str) -> tuple[str, Message]:
        if command == "pause":
            return "PauseExecution", PauseExecutionRequest(execution_id=self.execution_id)
        if command == "resume":
            return "ResumeExecution", ResumeExecutionRequest(execution_id=self.execution_id)
        return "CancelExecution", CancelExecutionRequest(execution_id=self.execution_id, force=command == "force")


async def _insist(runner: Runner, method: str, request: Message, worker: int | None = None) -> int:
    return await insist(runner, method, request.SerializeToString(), worker)


async def insist(runner: Runner, method: str, payload: bytes, worker: int | None = None) -> int:
    """The code of the answer; what may be refused for now is asked again."""
    while True:
        try:
            await runner.ask(method, payload, worker)
        except RunnerError as error:
            code: int = code_of(error)
            if code not in _FOR_NOW:
                return code
            await asyncio.sleep(delay_s(runner.world.rng, 0.1, 2.0))
        else:
            return int(Code.OK)


def _check_is_for_now(method: str, code: int) -> None:
    if code not in _FOR_NOW:
        raise Broken(f"{method} was answered with {Code.Name(code)}")


def make_job(rng: random.Random, number: int, may_be_forgotten: bool) -> Job:
    """Clients' plans for one id."""
    kind = rng.choice(list(DOCUMENTS))
    script: list[tuple[float, str]] = []
    commands = ("pause", "resume", "pause", "resume", "cancel", "force", "again", "other")
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        script.append((delay_s(rng, 0.2, 10.0), rng.choice(commands)))
    if kind == "endless":
        script.append((delay_s(rng, 0.5, 10.0), rng.choice(("cancel", "force"))))
    requests = list(rng.choice(((0,), (0,), (0, 0), (0, 0, 0), (0, 1), (0, 1, 0, 1), (0, 1, 2))))
    return Job(
        f"job-{number}", kind, delay_s(rng, 0.1, 5.0), requests, rng.random() < 0.2, script,
        may_be_forgotten=may_be_forgotten,
    )  # fmt: skip


def make_listening_jobs(
    rng: random.Random, first: int, may_be_forgotten: bool, *, paired: bool, kind: str = ""
) -> list[Job]:
    """Clients' plans for executions that hear each other, if they are `paired`, or else what comes from outside."""
    kind = kind or rng.choice(list(PAIRS if paired else LISTENING))
    commands = ("pause", "resume", "again") if paired else ("pause", "resume", "pause", "resume", "cancel", "again")
    jobs = []
    for number in range(2 if paired else 1):
        script = [(delay_s(rng, 0.2, 10.0), rng.choice(commands)) for _ in range(rng.choice((0, 0, 1, 3)))]
        partner_id = f"job-{first + 1 - number}" if paired else ""
        jobs.append(Job(
            f"job-{first + number}", f"{kind} {number}" if paired else kind, delay_s(rng, 0.2, 10.0),
            list(rng.choice(((0,), (0, 0), (0, 1)))), rng.random() < 0.2, script, partner_id=partner_id,
            may_be_forgotten=may_be_forgotten,
        ))  # fmt: skip
    return jobs
