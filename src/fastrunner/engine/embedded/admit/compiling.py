"""Stage 2, compile: documents on their way to plans.

    plan_of: known, or compiled at once
             \\-> kept: a slice of it in every turn of the loop -> outcome_of
                      \\-> texts from elsewhere fetched -^

Rules:
- Compiling takes a few milliseconds of a turn of the loop, whatever comes; the longest single step of the core is all
  that can make it more.
- A text is compiled once, however many wait for it. Clients take turns, slice by slice.
- What a document needs from elsewhere is fetched when nothing else is wrong with it, and anew for each submission, but
  for those that come meanwhile. A plan with the same texts is the same plan.
- What waits is bounded; beyond the bound a new text is refused, and nothing of it is begun. What nobody waits for any
  more is given up.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fastrunner._core import Compilation, ExternalResource, InvalidWorkflow, Problem, ResourcesMissing
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine import Resources
from fastrunner.engine.embedded.admit.admission import Shares
from fastrunner.engine.embedded.admit.plans import CachedPlan, Key, PlanCache, key_of
from fastrunner.engine.pinned import pinned_text, texts_of
from fastrunner.errors import AtCapacity, DocumentRefused, ResourceUnavailable, RunnerError, Unavailable

__all__ = ["Compiler", "Refuse"]

Refuse = Callable[[str, str | None], str]
"""Why something is not performed, by kind and by what it is more closely; empty if it is. See `Config.refusal`."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    """One text on its way."""

    key: Key
    document: str
    texts: dict[str, str | None]
    """What it has from elsewhere so far, by reference; None for what cannot be had, and need not."""
    compilation: Compilation
    fetches: bool
    """Whether it may be fetched what the document needs from elsewhere."""
    client: str
    """Whose share of what waits it takes."""
    clients: set[str] = field(default_factory=set)
    """Those in whose turns it goes on."""
    outcomes: "list[asyncio.Future[CachedPlan]]" = field(default_factory=list)
    """Told in order; a job whose outcomes nobody awaits any more is given up."""
    fetching: "asyncio.Task[None] | None" = None
    """What waits for texts from elsewhere."""
    fetched_s: float = 0.0
    """How long that has taken."""
    ended: bool = False


class Compiler:
    """What one worker compiles."""

    def __init__(
        self, plans: PlanCache, resources: Resources | None, refuse: Refuse, default_catalog: str | None
    ) -> None:
        """`resources`: where texts from elsewhere come from; None: documents that need some are refused. `refuse`
        says what is not performed here; `default_catalog` is the root of the catalog of that name."""
        self._plans = plans
        self._resources = resources
        self._refuse = refuse
        self._default_catalog = default_catalog
        self._jobs: dict[Key, _Job] = {}
        self._queues: dict[str, deque[_Job]] = {}
        """By client, in the order of the clients' turns."""
        self._shares = Shares(limits.COMPILING_SIZE_CHARS_MAX)
        self._pass_planned = False
        self._left_s = limits.COMPILE_AT_ONCE_MS / 1000
        """What may be compiled at once before the loop has served others."""
        self._refill_planned = False
        self._stopped = False

    # --- plans ---

    def plan_of(self, document: str, client: str, pinned: str = "", *, fetches: bool = True) -> CachedPlan | None:
        """The plan if it is known, or made within what is left of this turn of the loop; None if it has to be waited
        for, with what has been done of it kept. Raises DocumentRefused, AtCapacity, Unavailable.

        `pinned`: the texts from elsewhere that a registered document has. Without `fetches`, DocumentRefused has
        warnings in place of problems for a document that needs such texts.
        """
        plan = self._plans.find(document, pinned)
        if plan is not None:
            return plan
        job = self._jobs.get(_job_key(document, pinned, fetches=fetches))
        if job is None:
            job = self._begin(document, client, pinned, fetches=fetches)
            if not self._fetch_known(job):
                self._refill_later()
                began_s = monotonic_s()
                plan = self._advance(job, began_s + self._left_s)
                self._left_s -= monotonic_s() - began_s
                if plan is not None:
                    return plan
            self._keep(job)
        if client not in job.clients:
            job.clients.add(client)
            if job.fetching is None:
                self._queue(job, client)
        return None

    def _queue(self, job: _Job, client: str) -> None:
        self._queues.setdefault(client, deque()).append(job)
        self._plan_pass()

    def _begin(self, document: str, client: str, pinned: str, *, fetches: bool) -> _Job:
        if self._stopped:
            raise Unavailable("the worker is stopping: try again")
        size_chars = _size_chars(document)
        if not self._shares.has_room(client, size_chars):
            waiting_s = self._shares.taken * limits.COMPILE_S_PER_CHAR
            raise AtCapacity(
                f"{len(self._jobs)} documents wait to be compiled",
                retry_after_s=min(max(waiting_s, limits.OVERLOAD_RETRY_S_MIN), limits.OVERLOAD_RETRY_S_MAX),
            )
        texts: dict[str, str | None] = {**texts_of(pinned)}
        try:
            compilation = self._compilation(document, texts, fetches=fetches)
            key = _job_key(document, pinned, fetches=fetches)
            return _Job(key, document, texts, compilation, fetches, client)
        except InvalidWorkflow as invalid:
            raise self._plans.refuse(document, invalid.problems) from None

    def _compilation(self, document: str, texts: Mapping[str, str | None], *, fetches: bool) -> Compilation:
        return Compilation(
            document,
            resources=texts,
            refuse=self._refuse,
            default_catalog=self._default_catalog,
            pins=fetches and self._resources is not None,
        )

    def _keep(self, job: _Job) -> None:
        self._jobs[job.key] = job
        self._shares.take(job.client, _size_chars(job.document))

    def _advance(self, job: _Job, end_s: float) -> CachedPlan | None:
        """Goes on until a time. Raises DocumentRefused."""
        try:
            while monotonic_s() < end_s:
                plan = job.compilation.step(limits.COMPILE_STEP_BUDGET)
                if plan is not None:
                    return self._plans.keep(plan, job.document)
        except InvalidWorkflow as invalid:
            if job.texts:
                # What is wrong with them may be mended where they come from.
                raise DocumentRefused(invalid.problems) from None
            raise self._plans.refuse(job.document, invalid.problems) from None
        except ResourcesMissing as missing:
            if not job.fetches:
                raise DocumentRefused([_not_fetched(each) for each in missing.resources]) from None
            if self._resources is None:
                raise DocumentRefused([_unfetched(missing.resources[0])]) from None
            if not job.texts:
                self._plans.remember(job.document, missing.resources)
            fetching = self._fetch(job, self._resources, missing.resources)
            job.fetching = asyncio.get_running_loop().create_task(fetching)
        return None

    def _fetch_known(self, job: _Job) -> bool:
        """Begins with what the document is known to need; whether it needs anything."""
        if not job.fetches or self._resources is None:
            return False
        wanted = [each for each in self._plans.wanted_by(job.document) if each.reference not in job.texts]
        if wanted:
            job.fetching = asyncio.get_running_loop().create_task(self._fetch(job, self._resources, wanted))
        return bool(wanted)

    async def _fetch(self, job: _Job, resources: Resources, wanted: Sequence[ExternalResource]) -> None:
        """Goes on with a document as soon as the texts are there that it needs."""
        began_s = monotonic_s()
        try:
            async with asyncio.timeout(max(0.0, limits.RESOURCES_FETCH_S_MAX - job.fetched_s)):
                job.texts.update(await resources.fetch(wanted))
            plan = self._plans.find(job.document, pinned_text(job.texts))
            job.compilation = self._compilation(job.document, job.texts, fetches=job.fetches)
        except TimeoutError:
            urls = ", ".join(resource.url for resource in wanted)
            refusal = f"what the document needs from elsewhere is not there within {limits.RESOURCES_FETCH_S_MAX:g} s: "
            self._end(job, ResourceUnavailable(refusal + urls))
        except RunnerError as refused:
            self._end(job, refused)
        except Exception as error:
            _log.exception("texts that a document needs could not be fetched")
            self._end(job, ResourceUnavailable(f"texts that the document needs could not be fetched: {error}"))
        else:
            job.fetched_s += monotonic_s() - began_s
            self._fetched(job, plan)

    def _fetched(self, job: _Job, plan: CachedPlan | None) -> None:
        job.fetching = None
        if plan is not None:
            self._end(job, plan)
            return
        for client in job.clients:
            self._queue(job, client)

    def _refill_later(self) -> None:
        if not self._refill_planned:
            self._refill_planned = True
            asyncio.get_running_loop().call_soon(self._refill)

    def _refill(self) -> None:
        self._refill_planned = False
        self._left_s = limits.COMPILE_AT_ONCE_MS / 1000

    def outcome_of(self, document: str, pinned: str = "", *, fetches: bool = True) -> "asyncio.Future[CachedPlan]":
        """What a document that `plan_of` has begun comes to; cancel it when nobody wants to know any more."""
        outcome: asyncio.Future[CachedPlan] = asyncio.get_running_loop().create_future()
        self._jobs[_job_key(document, pinned, fetches=fetches)].outcomes.append(outcome)
        return outcome

    async def compiled(self, document: str, client: str, *, fetches: bool = True) -> CachedPlan:
        """The plan of a document, when it is there. Raises DocumentRefused, ResourceUnavailable, AtCapacity,
        Unavailable."""
        plan = self.plan_of(document, client, fetches=fetches)
        return plan or await self.outcome_of(document, fetches=fetches)

    async def problems_of(self, document: str, client: str, *, fetches: bool) -> Sequence[Problem]:
        """All problems of a document, or the warnings of one that would be executed: without `fetches` also that what
        it needs from elsewhere was not looked at. Raises ResourceUnavailable, AtCapacity, Unavailable."""
        try:
            plan = await self.compiled(document, client, fetches=fetches)
        except DocumentRefused as refused:
            return refused.problems
        return plan.plan.warnings

    def stop(self) -> None:
        """Compiles nothing more; whoever waits is told to come again."""
        self._stopped = True
        for job in list(self._jobs.values()):
            self._end(job, Unavailable("the worker is stopping: try again"))

    # --- passes ---

    def _plan_pass(self) -> None:
        if not self._pass_planned:
            self._pass_planned = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        """A slice for the next client's first text."""
        self._pass_planned = False
        job = self._next()
        if job is None:
            return
        try:
            plan = self._advance(job, monotonic_s() + limits.COMPILE_PASS_MS / 1000)
        except DocumentRefused as refused:
            self._end(job, refused)
        else:
            if plan is not None:
                self._end(job, plan)
        self._plan_pass()

    def _next(self) -> _Job | None:
        while self._queues:
            client = next(iter(self._queues))
            queue = self._queues.pop(client)
            while queue:
                job = queue[0]
                is_fetching = job.fetching is not None
                if not (job.ended or is_fetching) and all(outcome.cancelled() for outcome in job.outcomes):
                    self._end(job, None)
                if not (job.ended or is_fetching):
                    # Behind the other clients.
                    self._queues[client] = queue
                    return job
                queue.popleft()
        return None

    def _end(self, job: _Job, outcome: CachedPlan | RunnerError | None) -> None:
        job.ended = True
        if job.fetching is not None and job.fetching is not asyncio.current_task():
            job.fetching.cancel()
        del self._jobs[job.key]
        self._shares.give_back(job.client, _size_chars(job.document))
        for waiting in job.outcomes:
            if waiting.done():
                continue
            if isinstance(outcome, CachedPlan):
                waiting.set_result(outcome)
            elif outcome is not None:
                waiting.set_exception(outcome)


def _job_key(document: str, pinned: str, *, fetches: bool) -> Key:
    # No texts are kept as `-`.
    return key_of(document, pinned if fetches else "-")


def _not_fetched(resource: ExternalResource) -> Problem:
    what = f"{resource.url} was not looked at: what a document needs is fetched for callers with the role submit"
    return Problem("not-fetched", resource.pointer, resource.line, resource.column, what, "warning")


def _unfetched(resource: ExternalResource) -> Problem:
    what = f"nothing is fetched here, and the document needs {resource.url}"
    return Problem("unresolved-resource", resource.pointer, resource.line, resource.column, what)


def _size_chars(document: str) -> int:
    return max(len(document), limits.COMPILING_SIZE_CHARS_MIN)
