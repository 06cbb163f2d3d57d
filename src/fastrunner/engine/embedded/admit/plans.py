"""Stage 2, compile: plans by document, so that the same text is compiled once per worker.

Rules:
- The cache is bounded by count and by the text it holds, the least recently used plan goes first; executions keep their
  own plan alive. What is wrong with a text that is no workflow is remembered as well, of a few.
- A document that needs texts from elsewhere has a plan for each set of them: by itself it is never known, but what it
  needs is.
- Plans are hundreds of thousands of objects, without a cycle among them. They are put where Python does not look for
  cyclic garbage any more: looking through a few large ones would hold the loop for seconds.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from fastrunner._core import (
    ExternalResource,
    InvalidWorkflow,
    Plan,
    Problem,
    ResourcesMissing,
    compile,  # noqa: A004 - the core's verb
)
from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.pinned import pinned_text, texts_of
from fastrunner.errors import DocumentRefused

if TYPE_CHECKING:
    from _hashlib import HASH

__all__ = ["CachedPlan", "Key", "PlanCache", "StoredPlans", "key_of"]

Key = str | tuple[str, str]
"""A document's text; with the texts from elsewhere that it has, as they are kept, if it has any."""


def key_of(document: str, pinned: str) -> Key:
    """What a plan is known by."""
    return (document, pinned) if pinned else document


@dataclass(frozen=True, slots=True)
class CachedPlan:
    """A compiled document and its text."""

    plan: Plan
    """The compiled document."""
    document: str
    """The text."""
    hash: "HASH"
    """What a request's digest begins with; see `PlanCache.hash_of`."""
    pinned: str = ""
    """The texts from elsewhere that it was made of; see `engine/pinned.py`."""
    is_stored: bool = False
    """Serves no submission: it was compiled for an execution that was accepted before, and rules that came later were
    not asked of it; or it lacks a description."""


class PlanCache:
    """The compiled documents of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        # Keyed by the text itself: a dictionary compares whole texts, so no two documents can be taken for one another,
        # and looking up a known document needs no cryptographic hash.
        self._plans: OrderedDict[Key, CachedPlan] = OrderedDict()
        self._size_chars = 0
        self._unspared_size_chars = 0
        self._refused: OrderedDict[str, DocumentRefused] = OrderedDict()
        self._wanting: OrderedDict[bytes, Sequence[ExternalResource]] = OrderedDict()
        self._hits = metrics.plan_cache_hits
        self._misses = metrics.plan_cache_misses

    def find(self, document: str, pinned: str = "") -> CachedPlan | None:
        """The plan of a document that is submitted, if it is known. Raises DocumentRefused."""
        key = key_of(document, pinned)
        cached = self._plans.get(key)
        if cached is not None and not cached.is_stored:
            self._plans.move_to_end(key)
            self._hits.inc()
            return cached
        refused = None if pinned else self._refused.get(document)
        if refused is not None:
            self._refused.move_to_end(document)
            self._hits.inc()
            # A new one: an exception collects the places where it is raised.
            raise DocumentRefused(refused.problems)
        self._misses.inc()
        return None

    def keep(self, plan: Plan, document: str) -> CachedPlan:
        """A document that has just been compiled. One that lacks a description which might be had serves only those who
        have waited for it: whoever comes next asks again."""
        return self._keep(_made(plan, document, is_stored=not plan.is_pinned))

    def wanted_by(self, document: str) -> Sequence[ExternalResource]:
        """What a document needs from elsewhere, if it is known: what its texts need is not among it."""
        if not self._wanting:
            return ()
        key = sha256(document.encode()).digest()
        wanted = self._wanting.get(key)
        if wanted is None:
            return ()
        self._wanting.move_to_end(key)
        return wanted

    def remember(self, document: str, wanted: Sequence[ExternalResource]) -> None:
        """What a document without problems of its own needs from elsewhere: the next time it is not read for that."""
        self._wanting[sha256(document.encode()).digest()] = wanted
        if len(self._wanting) > limits.DOCUMENTS_WANTING_KNOWN_MAX:
            self._wanting.popitem(last=False)

    def refuse(self, document: str, problems: Sequence[Problem]) -> DocumentRefused:
        """A document that has just turned out to be none: what to raise."""
        if len(document) <= limits.DOCUMENT_REFUSED_SIZE_CHARS_MAX:
            self._refused[document] = DocumentRefused(problems)
            if len(self._refused) > limits.DOCUMENTS_REFUSED_KNOWN_MAX:
                self._refused.popitem(last=False)
        return DocumentRefused(problems)

    def get_stored(self, document: str, pinned: str) -> CachedPlan:
        """The plan of an execution that was accepted before, maybe by an earlier version with fewer rules.

        It never serves a submission. Raises DocumentRefused.
        """
        key = key_of(document, pinned)
        cached = self._plans.get(key)
        if cached is not None:
            # Where the later rules hold, the plan is the same with and without them.
            self._plans.move_to_end(key)
            self._hits.inc()
            return cached
        self._misses.inc()
        try:
            plan = compile(document, True, texts_of(pinned))
        except InvalidWorkflow as invalid:
            raise DocumentRefused(invalid.problems) from None
        except ResourcesMissing as missing:
            [first, *_] = missing.resources
            what = f"the text of {first.url} is not stored with the document"
            problem = Problem("unresolved-resource", first.pointer, first.line, first.column, what)
            raise DocumentRefused([problem]) from None
        return self._keep(_made(plan, document, is_stored=True))

    def warnings_of(self, document: str) -> Sequence[Problem]:
        """The warnings of a document, if its plan is known."""
        cached = self._plans.get(document)
        return () if cached is None else cached.plan.submission_warnings

    def hash_of(self, document: str) -> "HASH":
        """A hash that has taken in a document, whether or not it compiles: to be copied before it takes in more."""
        cached = self._plans.get(document)
        return _prefixed(document.encode()) if cached is None else cached.hash

    def _keep(self, cached: CachedPlan) -> CachedPlan:
        key, size_chars = key_of(cached.document, cached.pinned), _size_chars(cached)
        if self._plans.pop(key, None) is None:
            self._size_chars += size_chars
            self._spare(size_chars)
        self._plans[key] = cached
        while len(self._plans) > limits.PLANS_CACHED_MAX or self._size_chars > limits.PLANS_CACHED_SIZE_CHARS_MAX:
            _, oldest = self._plans.popitem(last=False)
            self._size_chars -= _size_chars(oldest)
        return cached

    def _spare(self, size_chars: int) -> None:
        """Takes new plans out of what is looked through for garbage, and with them whatever else has come to stay."""
        self._unspared_size_chars += size_chars
        if self._unspared_size_chars >= limits.COMPILED_UNSPARED_SIZE_CHARS_MAX:
            self._unspared_size_chars = 0
            gc.collect(1)
            gc.freeze()


def _made(plan: Plan, document: str, *, is_stored: bool) -> CachedPlan:
    return CachedPlan(plan, document, _prefixed(document.encode()), pinned_text(plan.resources), is_stored)


def _size_chars(cached: CachedPlan) -> int:
    return len(cached.document) + len(cached.pinned)


class StoredPlans:
    """The plans of the documents that one shard has, by their number in it."""

    def __init__(self, plans: PlanCache, document: Callable[[int], tuple[str, str]]) -> None:
        """`document` reads one as it is stored; what it raises is passed on."""
        self._plans = plans
        self._document = document
        self._by_key: dict[int, CachedPlan] = {}

    def get(self, plan_key: int) -> CachedPlan:
        """One of them. Raises Unavailable, Damaged, DocumentRefused."""
        plan = self._by_key.get(plan_key)
        if plan is None:
            if len(self._by_key) >= limits.PLANS_BY_KEY_MAX:
                self._by_key.clear()
            plan = self._by_key[plan_key] = self._plans.get_stored(*self._document(plan_key))
        return plan


def _prefixed(text: bytes) -> "HASH":
    hashed = sha256(len(text).to_bytes(8, "little"))
    hashed.update(text)
    return hashed
