"""Support: what cancel, pause and resume mean for one execution, as a model to compare an engine with.

The model is the state table of `docs/design.md` and nothing else: an execution is a few strands, each a row of effects
and waits; commands, outcomes and the passing of time move it. It knows no events, no commits and no restarts, because
none of them may make a difference.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from tests.integration.engines import ENDLESS, document

__all__ = ["GRACE_MS", "KINDS", "TIMEOUT_MS", "WAIT_MS", "Job", "Reply", "effect_name"]

WAIT_MS = 60_000
TIMEOUT_MS = 100_000
GRACE_MS = 30_000

Reply = Literal["ok", "wrong state"]
Step = Literal["effect", "wait"]
Strands = tuple[tuple[Step, ...], ...]

_CALL = "call: http\n{indent}with: {{method: get, endpoint: 'http://127.0.0.1:1/{name}'}}\n"


def _call(name: str, indent: int) -> str:
    space = " " * indent
    return f"{space}- {name}:\n{space}    " + _CALL.format(name=name, indent=space + "    ")


_WAIT = "wait: {seconds: 60}\n"
_KEEP = "  - keep:\n      set: {kept: true}\n"
_CATCH = "      catch:\n        errors: {}\n"

KINDS: dict[str, tuple[str, Strands, bool]] = {
    "loop": (ENDLESS, (("wait",),), False),
    "wait": (document("  - rest:\n      " + _WAIT + _KEEP), (("wait",),), False),
    "call": (document(_call("ask", 2) + _KEEP), (("effect",),), False),
    "for": (
        document("  - each:\n      for: {in: '[1, 2, 3]'}\n      do:\n" + _call("ask", 8) + _KEEP),
        (("effect", "effect", "effect"),),
        False,
    ),
    "try": (
        document("  - guard:\n      try:\n" + _call("fails", 8) + _CATCH + "        do:\n" + _call("mend", 10) + _KEEP),
        (("effect", "effect"),),
        False,
    ),
    "retry": (
        document(
            "  - guard:\n      try:\n" + _call("fails-once", 8) + _CATCH + "        retry:\n"
            "          delay: {seconds: 60}\n          limit: {attempt: {count: 5}}\n" + _KEEP
        ),
        (("effect", "wait", "effect"),),
        False,
    ),
    "fork": (
        document(
            "  - both:\n      fork:\n        branches:\n" + _call("left", 10) + "          - right:\n              "
            "do:\n                - rest:\n                    " + _WAIT + _call("then", 16) + _KEEP
        ),
        (("effect",), ("wait", "effect")),
        False,
    ),
    "timeout": (
        document(_call("slow", 2) + "      timeout: {after: {seconds: 100}}\n" + _KEEP),
        (("effect",),),
        True,
    ),
}
"""By kind: the document, its strands, and whether its only task has a timeout."""


def effect_name(uri: str) -> str:
    """The task an effect is of."""
    return uri.rpartition("/")[2]


@dataclass
class Job:
    """One execution."""

    kind: str
    now_ms: int
    state: str = "running"
    """As the wire shows it."""
    ending: bool = False
    """Whether a graceful cancel waits for effects."""
    strands: list[list[Step]] = field(default_factory=list)
    wakes_ms: list[int] = field(default_factory=list)
    """By strand: when its wait ends."""
    held: list[int] = field(default_factory=list)
    """Strands whose effect ended while the execution was paused, in order."""
    timeout_at_ms: int = 0
    grace_until_ms: int = 0
    paused_at_ms: int = 0
    endless: bool = False

    def __post_init__(self) -> None:
        _, strands, timed = KINDS[self.kind]
        self.endless = self.kind == "loop"
        self.strands = [list(steps) for steps in strands]
        self.wakes_ms = [self.now_ms + WAIT_MS] * len(strands)
        self.timeout_at_ms = self.now_ms + TIMEOUT_MS if timed else 0

    @property
    def ended(self) -> bool:
        return self.state in ("completed", "failed", "cancelled")

    @property
    def in_flight(self) -> list[int]:
        """Strands whose effect is being performed."""
        if self.ended:
            return []
        return [n for n, steps in enumerate(self.strands) if steps[:1] == ["effect"] and n not in self.held]

    def end(self, state: str) -> None:
        self.state, self.ending = state, False

    # --- time ---

    def pass_time(self, now_ms: int) -> None:
        """Everything that is due happens, earliest first."""
        self.now_ms = now_ms
        if self.ending:
            if self.grace_until_ms <= now_ms:
                self.end("cancelled")
            return
        while self.state == "running" and not self.endless:
            due = [(self.wakes_ms[n], 0, n) for n, steps in enumerate(self.strands) if steps[:1] == ["wait"]]
            if self.timeout_at_ms:
                due.append((self.timeout_at_ms, 1, -1))
            if not due or min(due)[0] > now_ms:
                return
            _, _, strand = min(due)
            if strand < 0:
                self.end("failed")
            else:
                self._advance(strand)

    def _advance(self, strand: int) -> None:
        self.strands[strand].pop(0)
        self.wakes_ms[strand] = self.now_ms + WAIT_MS
        if not any(self.strands):
            self.end("completed")

    # --- outcomes and commands; time has passed before ---

    def effect_ended(self, strand: int) -> None:
        """An effect in flight has an outcome."""
        if self.ending:
            self.strands[strand] = ["wait"]
            if not self.in_flight:
                self.end("cancelled")
        elif self.state == "paused":
            self.held.append(strand)
        else:
            self._advance(strand)

    def cancel(self, force: bool) -> Reply:
        if self.ended:
            return "ok" if self.state == "cancelled" else "wrong state"
        if force or not self.in_flight:
            self.end("cancelled")
        elif not self.ending:
            self.ending, self.grace_until_ms = True, self.now_ms + GRACE_MS
        return "ok"

    def pause(self) -> Reply:
        if self.ended:
            return "wrong state"
        if self.state == "running" and not self.ending:
            self.state, self.paused_at_ms = "paused", self.now_ms
        return "ok"

    def resume(self) -> Reply:
        if self.ended:
            return "wrong state"
        if self.state == "paused" and not self.ending:
            self.state = "running"
            if self.timeout_at_ms:
                self.timeout_at_ms += self.now_ms - self.paused_at_ms
            held, self.held = self.held, []
            for strand in held:
                self._advance(strand)
            self.pass_time(self.now_ms)
        return "ok"


def unfinished(jobs: Iterable[Job]) -> list[Job]:
    """Those that have not ended."""
    return [job for job in jobs if not job.ended]
