"""Stage 3, journal: from a submission to an execution: what decides on it, and who waits for that.

    judge -> known id: the first answer again, or a refusal once the first request is durable; or another worker answers
          -> admission -> claim -> plan: known or soon made -> accept -> first commit -> answer
                                       \\-> waits for it --------^

Rules:
- An id is taken from the moment its first request is let in: it is claimed in the table of places, last of all checks
  but the compiler's, and given up again if that, or its first commit, refuses it. The same request again waits with it;
  another one under the id is refused only once the first is durable, and judged anew if that is never accepted.
- Memory is reserved for everything that waits, until its first commit has landed or it is refused.
- What waits for its plan goes on in the order in which it came, for each document; see `admit/compiling.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from zlib import crc32

from fastrunner._core import Plan
from fastrunner._wire import TableBusy, TableFull
from fastrunner.access.principal import check_namespace, check_references
from fastrunner.base import crash
from fastrunner.base.crash import CrashPoint
from fastrunner.base.redaction import hide
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Definition, DefinitionRef, Definitions, Parent, Resources, Submission
from fastrunner.engine.embedded.admit.admission import Admission, memory_size_bytes
from fastrunner.engine.embedded.admit.compiling import Compiler, Refuse
from fastrunner.engine.embedded.admit.digest import env_text, ref_hash, request_digest
from fastrunner.engine.embedded.admit.plans import CachedPlan, PlanCache
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.run.execution import Execution, StartFacts
from fastrunner.engine.embedded.run.family import family_of
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.store.changes import Accepted, Waiter
from fastrunner.engine.embedded.tracing import Traces
from fastrunner.errors import Elsewhere, IdTaken, InvalidRequest, RunnerError, Stopping, UnknownWorkflow
from fastrunner.routing.placement import Places

__all__ = ["Host", "Submissions"]

_STARTED = "running"
_REFUSALS = (RunnerError, TableBusy, TableFull)

_Answer = asyncio.Future[str]


class Host(Protocol):
    """What submissions ask of the engine around them."""

    def check_open(self, shard: Shard) -> None:
        """Raises Unavailable, StorageFull or StorageFailed while the shard takes nothing new."""

    def secrets_of(self, plan: Plan) -> Mapping[str, Any]:
        """The current values of the secrets that a document names."""

    def is_wanted(self, parent: Parent) -> bool:
        """Whether an execution still waits for the acceptance of one that it starts."""

    def waiting_changed(self) -> None:
        """Another number of submissions waits for plans."""

    def accepted(self, execution: Execution) -> None:
        """A new execution is in memory: it takes its first turn."""

    @property
    def traces(self) -> Traces | None:
        """What is traced; None: nothing."""


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


def _check_env(submission: Submission, plan: CachedPlan, is_sealed: bool) -> None:
    """Raises InvalidRequest for a variable that the document holds to be secret, unless what is stored is sealed: then
    no text for people shows it."""
    for name in plan.plan.secrets:
        if name not in submission.env_vars:
            continue
        if not is_sealed:
            raise InvalidRequest(
                "env_vars",
                f"env_vars has {name!r}, which the document names in use.secrets: env_vars are data, kept in files and "
                "shown, so give the value to the runner as a secret, or choose another name for the variable, or have "
                "the runner seal its files (FASTRUNNER_DATA_KEY_FILE)",
            )
        hide(submission.env_vars[name])


class Submissions:
    """The submissions of one worker."""

    def __init__(
        self,
        host: Host,
        shards: Shards,
        places: Places,
        admission: Admission,
        plans: PlanCache,
        definitions: Definitions | None,
        resources: Resources | None,
        metrics: Metrics,
        wall_ms: Callable[[], int],
        is_sealed: bool,
        refuse: Refuse,
        default_catalog: str | None,
    ) -> None:
        """`is_sealed`: whether what is stored is sealed; `refuse` says what is not performed here;
        `default_catalog` is the root of the catalog of that name."""
        self.compiler = Compiler(plans, resources, refuse, default_catalog)
        """What is on its way to a plan."""
        self._host = host
        self._shards = shards
        self._places = places
        self._admission = admission
        self._plans = plans
        self._definitions = definitions
        self._metrics = metrics
        self._wall_ms = wall_ms
        self._is_sealed = is_sealed
        self._waiting: dict[str, _Newcomer] = {}
        """Those that wait for their plan, by execution id."""

    @property
    def waiting_count(self) -> int:
        """Submissions that wait for their plan."""
        return len(self._waiting)

    def judge(self, submission: Submission, answer: _Answer) -> None:
        """Accepts a submission, lets it wait for what decides on it, or refuses it."""
        try:
            if submission.principal is None or submission.principal.namespaces is None:
                self._judge(submission, answer)
            else:
                self._judge_within(submission, answer)
        except _REFUSALS as refusal:
            self._refuse((answer,), refusal)

    def _judge_within(self, submission: Submission, answer: _Answer) -> None:
        """Judges what a caller submits that is confined to namespaces: nothing, not even whether an id is taken, is
        told of others'. Raises PermissionDenied."""
        client = submission.client
        if submission.ref is not None:
            check_namespace(submission.principal, submission.ref.namespace)
            self._judge(submission, answer)
            return
        plan = self.compiler.plan_of(submission.document, client)
        if plan is not None:
            self._judge_plan(submission, answer, plan)
            return
        size_bytes = memory_size_bytes(submission)
        self._admission.reserve(client, size_bytes)

        def compiled(outcome: "asyncio.Future[CachedPlan]") -> None:
            self._admission.release(client, size_bytes)
            try:
                self._judge_plan(submission, answer, outcome.result())
            except _REFUSALS as refusal:
                self._refuse((answer,), refusal)

        self.compiler.outcome_of(submission.document).add_done_callback(compiled)

    def _judge_plan(self, submission: Submission, answer: _Answer, plan: CachedPlan) -> None:
        """Judges it by its plan, and lets in no other: what comes from elsewhere may be different the next time."""
        check_namespace(submission.principal, plan.plan.namespace)
        check_references(submission.principal, plan.plan.namespaces_run)
        submission.pinned = plan.pinned
        self._judge(submission, answer)

    def _refuse(self, answers: tuple[_Answer, ...], refusal: Exception) -> None:
        self._metrics.executions_rejected.labels(type(refusal).__name__).inc()
        # The frames it came through hold the submission, and the answer would hold them: megabytes that wait for the
        # garbage collector.
        refusal.__traceback__ = refusal.__context__ = None
        for answer in answers:
            if not answer.done():
                answer.set_exception(refusal)

    def _judge(self, submission: Submission, answer: _Answer) -> None:
        self._shards.check_open()
        client = submission.client
        env_json = env_text(submission.env_vars)
        ref = submission.ref
        document = self._plans.hash_of(submission.document) if ref is None else ref_hash(ref)
        digest = request_digest(submission, document, env_json)
        if self._is_known(submission, digest, answer):
            submission.warnings = self._plans.warnings_of(submission.document)
            return
        parent = submission.parent
        home = self._shards.home if parent is None else self._shards.by_number[parent.shard_number]
        self._host.check_open(home)
        if ref is not None:
            definition = self._registered(ref)
            submission.document, submission.pinned = definition.document, definition.pinned
        if parent is None:
            self._admission.check(client)
        newcomer = _Newcomer(submission, digest, env_json, memory_size_bytes(submission), (answer,))
        self._admission.reserve(client, newcomer.size_bytes)
        try:
            if not self._claim(home, submission, answer):
                self._admission.release(client, newcomer.size_bytes)
                return
        except _REFUSALS:
            self._admission.release(client, newcomer.size_bytes)
            raise
        try:
            plan = self.compiler.plan_of(submission.document, client, submission.pinned)
            if plan is not None:
                _check_env(submission, plan, self._is_sealed)
        except RunnerError:
            self._give_up(home, newcomer)
            raise
        if plan is not None:
            self._accept(home, newcomer, plan)
            return
        self._waiting[submission.execution_id] = newcomer
        self._host.waiting_changed()
        outcome = self.compiler.outcome_of(submission.document, submission.pinned)
        outcome.add_done_callback(lambda ended: self._compiled(home, newcomer, ended))

    def _registered(self, ref: DefinitionRef) -> Definition:
        """A registered workflow. Raises UnknownWorkflow, Damaged, StorageFailed, StorageFull."""
        if self._definitions is None:
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)
        return self._definitions.find(ref)

    def _claim(self, home: Shard, submission: Submission, answer: _Answer) -> bool:
        """Whether the id is this worker's from now on; else who has taken it just now answers. Raises Elsewhere."""
        crash.reach(CrashPoint.BEFORE_CLAIM)
        # What the own shards do not hold is new here, whatever they hold that looks like it in the table.
        taken_by = self._places.table.claim(submission.execution_id, home.number, tuple(self._shards.by_number))
        crash.reach(CrashPoint.AFTER_CLAIM)
        if taken_by >= 0:
            self._leave(submission, taken_by, answer)
        return taken_by < 0

    def _leave(self, submission: Submission, shard: int, answer: _Answer) -> None:
        """Leaves a submission to the worker that has its id. Raises Elsewhere where nobody passes it on."""
        if submission.on_elsewhere is None:
            raise Elsewhere(submission.execution_id)
        submission.on_elsewhere(self._places.owner_of(shard), answer)

    def _give_up(self, home: Shard, newcomer: _Newcomer) -> None:
        """Forgets a submission that had been let in."""
        home.release(newcomer.submission.execution_id)
        self._admission.release(newcomer.submission.client, newcomer.size_bytes)

    def _is_known(self, submission: Submission, digest: bytes, answer: _Answer) -> bool:
        """Whether the id is taken; then it is answered, here or elsewhere. Raises IdTaken, AtCapacity, Elsewhere."""
        execution_id = submission.execution_id
        candidates = self._places.table.find(execution_id)
        if not candidates:
            return False
        newcomer = self._waiting.get(execution_id)
        if newcomer is not None:
            newcomer.waiters += (answer if newcomer.digest == digest else self._fate(submission, answer),)
            return True
        others = []
        for number in candidates:
            shard = self._shards.by_number.get(number)
            if shard is None:
                others.append(number)
            elif self._is_known_to(shard, submission, digest, answer):
                return True
        if others:
            self._leave(submission, others[0], answer)
        return bool(others)

    def _is_known_to(self, shard: Shard, submission: Submission, digest: bytes, answer: _Answer) -> bool:
        """Whether the execution lives in a shard; then it is answered."""
        execution = shard.live.get(submission.execution_id)
        if execution is not None and not execution.stored:
            waiting = answer if execution.request_digest == digest else self._fate(submission, answer)
            execution.waiters += (Waiter(waiting, answer=_STARTED),)
            if execution.walk is not None:
                shard.mark(execution)
            return True
        known_digest = None if execution is None else execution.request_digest
        if known_digest is None:
            acceptance = shard.store.acceptance(submission.execution_id)
            if acceptance is None:
                return False
            known_digest = acceptance[1]
        if known_digest != digest:
            raise IdTaken(submission.execution_id)
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

    def _compiled(self, home: Shard, newcomer: _Newcomer, outcome: "asyncio.Future[CachedPlan]") -> None:
        """The plan that a submission has waited for is there, or will not come."""
        del self._waiting[newcomer.submission.execution_id]
        self._host.waiting_changed()
        try:
            plan = outcome.result()
            _check_env(newcomer.submission, plan, self._is_sealed)
            self._shards.check_open()
            self._host.check_open(home)
        except RunnerError as refusal:
            self._give_up(home, newcomer)
            self._refuse(newcomer.waiters, refusal)
        else:
            self._accept(home, newcomer, plan)

    def _accept(self, shard: Shard, newcomer: _Newcomer, plan: CachedPlan) -> None:
        """Makes an execution of it, which exists once its first commit has landed."""
        submission, digest, env_json = newcomer.submission, newcomer.digest, newcomer.env_json
        parent = submission.parent
        if parent is not None and not self._host.is_wanted(parent):
            self._give_up(shard, newcomer)
            self._refuse(newcomer.waiters, Stopping("the execution that starts this one does not wait for it any more"))
            return
        submission.warnings = plan.plan.submission_warnings
        now_ms = self._wall_ms()
        execution = shard.admit(submission.execution_id, now_ms, digest, submission.debug)
        asked = (submission.metadata, submission.input_json, env_json, submission.debug, submission.client)
        accepted = Accepted(digest, plan, now_ms, *asked, submission.labels, submission.silent, parent)
        execution.accepted = accepted
        traces = self._host.traces
        if traces is not None:
            traces.begin(execution, accepted, submission, plan.plan, now_ms)
        execution.silent = submission.silent
        execution.family = family_of(parent)
        seed = crc32(digest, now_ms & 0xFFFFFFFF)
        timeout_ms_max = submission.timeout_s_max * 1000
        secrets = self._host.secrets_of(plan.plan)
        execution.start = StartFacts(plan, submission.input_value, submission.env_vars, timeout_ms_max, seed, secrets)
        execution.waiters += tuple([Waiter(answer, answer=_STARTED) for answer in newcomer.waiters])
        execution.client = submission.client
        self._admission.entered(execution, newcomer.size_bytes)
        self._host.accepted(execution)
