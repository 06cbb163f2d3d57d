"""Stage 3, journal: from a submission to an execution: what decides on it, and who waits for that.

    judge -> known id: the first answer again, or a refusal once the first request is durable
          -> admission -> plan: known or soon made -> accept -> first commit -> answer
                              \\-> waits for it --------^

Rules:
- An id is taken from the moment its first request is let in. The same request again waits with it; another one under
  the id is refused only once the first is durable, and judged anew if that is never accepted.
- Memory is reserved for everything that waits, until its first commit has landed or it is refused.
- What waits for its plan goes on in the order in which it came, for each document; see `admit/compiling.py`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Submission
from fastrunner.engine.embedded.admit.admission import Admission, memory_size_bytes
from fastrunner.engine.embedded.admit.compiling import Compiler
from fastrunner.engine.embedded.admit.digest import env_text, request_digest
from fastrunner.engine.embedded.admit.plans import CachedPlan, PlanCache
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.run.execution import Execution, StartFacts
from fastrunner.engine.embedded.store.changes import Accepted, Waiter
from fastrunner.errors import IdTaken, RunnerError

__all__ = ["Host", "Submissions"]

_STARTED = "running"

_Answer = asyncio.Future[str]


class Host(Protocol):
    """What submissions ask of the engine around them."""

    def shard_for(self, execution_id: str) -> Shard:
        """Where the execution lives, or will. Raises Unavailable."""

    def check_open(self, shard: Shard) -> None:
        """Raises Unavailable, StorageFull, StorageFailed or AtCapacity while the shard takes nothing new."""

    def accepted(self, execution: Execution) -> None:
        """A new execution is in memory: it takes its first turn."""


@dataclass(slots=True)
class _Newcomer:
    """A submission that has been let in."""

    submission: Submission
    digest: bytes
    """Tells a repeated request from a different one."""
    env_json: bytes
    """Its env_vars as they are stored."""
    size_bytes: int
    """The memory reserved for it."""
    waiters: tuple[_Answer, ...]
    """Who hears of its acceptance, or of its end before that."""


class Submissions:
    """The submissions of one worker."""

    def __init__(
        self, host: Host, admission: Admission, plans: PlanCache, metrics: Metrics, wall_ms: Callable[[], int]
    ) -> None:
        self.compiler = Compiler(plans)
        """What is on its way to a plan."""
        self._host = host
        self._admission = admission
        self._plans = plans
        self._metrics = metrics
        self._wall_ms = wall_ms
        self._waiting: dict[str, _Newcomer] = {}
        """Those that wait for their plan, by execution id."""

    @property
    def waiting_count(self) -> int:
        """Submissions that wait for their plan."""
        return len(self._waiting)

    def judge(self, submission: Submission, answer: _Answer) -> None:
        """Accepts a submission, lets it wait for what decides on it, or refuses it."""
        try:
            self._judge(submission, answer)
        except RunnerError as refusal:
            self._refuse((answer,), refusal)

    def _refuse(self, answers: tuple[_Answer, ...], refusal: RunnerError) -> None:
        self._metrics.executions_rejected.labels(type(refusal).__name__).inc()
        for answer in answers:
            if not answer.done():
                answer.set_exception(refusal)

    def _judge(self, submission: Submission, answer: _Answer) -> None:
        execution_id, client = submission.execution_id, submission.client
        shard = self._host.shard_for(execution_id)
        env_json = env_text(submission.env_vars)
        digest = request_digest(submission, self._plans.hash_of(submission.document), env_json)
        if self._is_known(shard, submission, digest, answer):
            return
        self._host.check_open(shard)
        self._admission.check(client)
        newcomer = _Newcomer(submission, digest, env_json, memory_size_bytes(submission), (answer,))
        self._admission.reserve(client, newcomer.size_bytes)
        try:
            plan = self.compiler.plan_of(submission.document, client)
        except RunnerError:
            self._admission.release(client, newcomer.size_bytes)
            raise
        if plan is not None:
            self._accept(shard, newcomer, plan)
            return
        self._waiting[execution_id] = newcomer
        outcome = self.compiler.outcome_of(submission.document)
        outcome.add_done_callback(lambda ended: self._compiled(newcomer, ended))

    def _is_known(self, shard: Shard, submission: Submission, digest: bytes, answer: _Answer) -> bool:
        """Whether the id is taken; then the answer is given, or waits with the first. Raises IdTaken, AtCapacity."""
        execution_id = submission.execution_id
        newcomer = self._waiting.get(execution_id)
        if newcomer is not None:
            newcomer.waiters += (answer if newcomer.digest == digest else self._fate(submission, answer),)
            return True
        execution = shard.live.get(execution_id)
        if execution is not None and not execution.stored:
            waiting = answer if execution.request_digest == digest else self._fate(submission, answer)
            execution.waiters += (Waiter(waiting, answer=_STARTED),)
            if execution.walk is not None:
                shard.mark(execution)
            return True
        if execution is not None:
            known_digest = execution.request_digest
        else:
            acceptance = shard.store.acceptance(execution_id)
            if acceptance is None:
                return False
            known_digest = acceptance[1]
        if known_digest != digest:
            raise IdTaken(execution_id)
        answer.set_result(_STARTED)
        return True

    def _fate(self, submission: Submission, answer: _Answer) -> _Answer:
        """What the first request under an id comes to; then another one is judged. Raises AtCapacity."""
        client, size_bytes = submission.client, memory_size_bytes(submission)
        self._admission.reserve(client, size_bytes)
        fate: _Answer = asyncio.get_running_loop().create_future()

        def ended(fate: _Answer) -> None:
            # What the first was refused for is the first's to hear.
            fate.exception()
            self._admission.release(client, size_bytes)
            if not answer.done():
                self.judge(submission, answer)

        fate.add_done_callback(ended)
        return fate

    def _compiled(self, newcomer: _Newcomer, outcome: "asyncio.Future[CachedPlan]") -> None:
        """The plan that a submission has waited for is there, or will not come."""
        submission = newcomer.submission
        del self._waiting[submission.execution_id]
        try:
            plan = outcome.result()
            shard = self._host.shard_for(submission.execution_id)
            self._host.check_open(shard)
        except RunnerError as refusal:
            self._admission.release(submission.client, newcomer.size_bytes)
            self._refuse(newcomer.waiters, refusal)
        else:
            self._accept(shard, newcomer, plan)

    def _accept(self, shard: Shard, newcomer: _Newcomer, plan: CachedPlan) -> None:
        """Makes an execution of it, which exists once its first commit has landed."""
        submission, digest, env_json = newcomer.submission, newcomer.digest, newcomer.env_json
        now_ms = self._wall_ms()
        execution = shard.admit(submission.execution_id, now_ms, digest, submission.debug)
        asked = (submission.metadata, submission.input_json, env_json, submission.debug, submission.client)
        execution.accepted = Accepted(digest, plan, now_ms, *asked)
        seed = crc32(digest, now_ms & 0xFFFFFFFF)
        timeout_ms_max = submission.timeout_s_max * 1000
        execution.start = StartFacts(plan, submission.input_value, submission.env_vars, timeout_ms_max, seed)
        execution.waiters += tuple([Waiter(answer, answer=_STARTED) for answer in newcomer.waiters])
        execution.client = submission.client
        self._admission.entered(execution, newcomer.size_bytes)
        self._host.accepted(execution)
