"""Support: the spans of one execution, told by what happens to it.

    the execution      from the moment its request arrived until its end; its parent is the caller's span
      accept           until its first commit was durable
        forward        while it was on its way to the worker that took it
      an effect        from the turn that asked for it to the one that took its outcome
      a callback       one delivery of its events (see `callback/`)

Rules: pure: times are arguments. A span is there once it has ended; what is open when a process dies ends later, in the
next one, with the same id and the same beginning: an effect that is performed again is one span. Calls of an effect
hang on its span, and so do executions that it starts.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import orjson

from fastrunner.tracing.context import NO_SPAN, TraceContext, span_id_of
from fastrunner.tracing.span import Attributes, Kind, Span, shown

__all__ = ["ExecutionTrace"]

_FIELDS: Final = 3
_STANDARD: Final = re.compile(
    r"(https://(open-workflow-specification\.org|serverlessworkflow\.io)/(spec/1\.0\.0/errors|dsl/errors/types)/)?"
    "(configuration|validation|expression|authentication|authorization|timeout|communication|runtime|interrupted)"
)
"""Types of errors that are not made up by a document, and may not hold its data."""


class Effect(Protocol):
    """What is known of an effect."""

    effect_id: int
    kind: str
    reference: str

    @property
    def capsule(self) -> Any:
        """When it was asked for, among others."""


class _Asked(NamedTuple):
    """An effect that has no outcome yet."""

    kind: str
    reference: str
    asked_ms: int
    is_again: bool


class ExecutionTrace:
    """What is traced of one execution."""

    __slots__ = (
        "__weakref__",
        "_effects",
        "_execution_id",
        "_has_ended",
        "_received_ms",
        "_root_id",
        "_spans",
        "_taken_ms",
        "context",
        "workflow",
    )

    def __init__(self, execution_id: str, context: TraceContext, received_ms: int, taken_ms: int = 0) -> None:
        """`context` is the caller's place, with the decision made here; `taken_ms`: when the worker took it up that
        accepted it, if it came by another one."""
        self.context = context
        self.workflow = ("", "", "")
        """Namespace, name and version of its document."""
        self._execution_id = execution_id
        self._received_ms = received_ms
        self._taken_ms = taken_ms
        self._effects: dict[int, _Asked] = {}
        self._spans: tuple[Span, ...] = ()
        self._root_id = ""
        self._has_ended = False

    @classmethod
    def stored(cls, text: str, execution_id: str) -> "ExecutionTrace | None":
        """What `text` gave; None for an execution that is not traced, or where that is damaged."""
        fields = text.split(" ", _FIELDS - 1)
        if len(fields) != _FIELDS or not fields[1].isdecimal():
            return None
        parent, received, state = fields
        # No parent is nothing that a header may say.
        has_parent = parent[36:52] != NO_SPAN
        context = TraceContext.read(parent if has_parent else parent[:36] + "1" * 16 + parent[52:], state)
        if context is None:
            return None
        return cls(execution_id, context if has_parent else context.at(NO_SPAN), int(received))

    def packed(self, execution_key: int, accepted_ms: int, finished_ms: int) -> bytes:
        """What it takes to tell the spans of one that was accepted and completed: a line."""
        whole = (execution_key, accepted_ms, finished_ms, self._taken_ms, self._execution_id, self.text, self.workflow)
        return orjson.dumps(whole, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def unpacked(cls, lines: bytes | bytearray) -> "list[tuple[ExecutionTrace, int, int, int]]":
        """What lines of `packed` gave: traces with execution key and when each was accepted and completed."""
        found = []
        for line in lines.splitlines():
            execution_key, accepted_ms, finished_ms, taken_ms, execution_id, text, workflow = orjson.loads(line)
            trace = cls.stored(text, execution_id)
            assert trace is not None, "it is as this process has packed it"
            trace._taken_ms, trace.workflow = taken_ms, (workflow[0], workflow[1], workflow[2])
            found.append((trace, execution_key, accepted_ms, finished_ms))
        return found

    @property
    def text(self) -> str:
        """As it is stored."""
        return f"{self.context.parent} {self._received_ms} {self.context.state}"

    @property
    def root_id(self) -> str:
        """The id of the execution's own span."""
        if not self._root_id:
            self._root_id = self._id("execution")
        return self._root_id

    @property
    def place(self) -> TraceContext:
        """Where the execution itself is: what goes along with callbacks. After a crash events go out in other parcels
        than before, so what hung on a delivery's span would hang on one that nobody ever ends."""
        return self.context.at(self.root_id) if self.context.is_sampled else self.context

    def place_of(self, effect_id: int) -> TraceContext:
        """Where calls of an effect are, and executions that it starts."""
        return self.context.at(self._id(f"effect {effect_id}")) if self.context.is_sampled else self.context

    # --- what happens to it ---

    def accepted(self, now_ms: int) -> tuple[Span, ...]:
        """It is durable."""
        if not self.context.is_sampled:
            return ()
        accept_id = self._id("accept")
        spans = [self._span(accept_id, self.root_id, "accept", "server", self._received_ms, now_ms)]
        if self._taken_ms:
            forward_id = self._id("forward")
            spans.append(self._span(forward_id, accept_id, "forward", "internal", self._received_ms, self._taken_ms))
        return tuple(spans)

    def asked(self, effect: Effect, *, is_again: bool, behind_ms: int = 0) -> None:
        """An effect is to be performed; `is_again`: the execution has come back from the disk since that was asked;
        `behind_ms`: by how much the walk's clock is behind."""
        if self.context.is_sampled:
            asked_ms = effect.capsule.now_ms + behind_ms
            self._effects[effect.effect_id] = _Asked(effect.kind, effect.reference, asked_ms, is_again)

    def resumed(self, effect_id: int) -> None:
        """An effect was performed again, because whoever performed it was lost."""
        asked = self._effects.get(effect_id)
        if asked is not None:
            self._effects[effect_id] = asked._replace(is_again=True)

    def answered(self, effect_id: int, error: Mapping[str, Any] | None, now_ms: int) -> None:
        """An effect has its outcome: a result, or an error with type and status."""
        asked = self._effects.pop(effect_id, None)
        if asked is None:
            return
        found: Attributes = {
            "fastrunner.effect.kind": asked.kind,
            "fastrunner.task.reference": asked.reference,
            "fastrunner.effect.resumed": asked.is_again,
        }
        type_ = ""
        if error is not None:
            type_ = _type_of(str(error["type"]))
            found = {**found, "fastrunner.error.status": int(error["status"])}
        kind: Kind = "client" if asked.kind.startswith("call_") else "internal"
        name = f"{asked.kind} {asked.reference.rpartition('/')[2]}"
        span_id = self._id(f"effect {effect_id}")
        self._spans += (self._span(span_id, self.root_id, name, kind, asked.asked_ms, now_ms, type_, found),)

    def given_up(self, effect_id: int, now_ms: int) -> None:
        """Nobody waits for an effect any more."""
        self.answered(effect_id, {"type": "interrupted", "status": 0}, now_ms)

    def ended(self, status: str, error: Mapping[str, Any] | None, now_ms: int) -> None:
        """The execution has ended, and with it what it had asked for; said twice it counts once."""
        if self._has_ended or not self.context.is_sampled:
            return
        self._end(now_ms)
        namespace, name, version = self.workflow
        found = {
            "fastrunner.execution.status": status,
            "fastrunner.workflow.namespace": namespace,
            "fastrunner.workflow.name": name,
            "fastrunner.workflow.version": version,
        }
        type_ = "" if status == "completed" else status if error is None else _type_of(str(error["type"]))
        title = f"execute {namespace}/{name}" if name else "execute"
        parent_id = self.context.span_id
        self._spans += (
            self._span(self.root_id, parent_id, title, "internal", self._received_ms, now_ms, type_, found),
        )

    def ended_by_row(self, now_ms: int) -> None:
        """It was accepted and completed in one commit, so that its row tells its own span; nothing else does."""
        self._end(now_ms)

    def _end(self, now_ms: int) -> None:
        """Nobody waits any more for what it had asked for."""
        self._has_ended = True
        for effect_id in list(self._effects):
            self.given_up(effect_id, now_ms)

    def gather(self) -> tuple[Span, ...]:
        """What has ended since the last call: it is to be committed with what ended it."""
        spans, self._spans = self._spans, ()
        return spans

    def callback(
        self, first: int, last: int, began_ms: int, now_ms: int, carrier: TraceContext | None, attempt: str = ""
    ) -> Span:
        """A delivery of its events; `carrier`: the place that went along with it, if that is another execution's;
        `attempt` tells it from others of the same events, none: they are one."""
        found = {"fastrunner.callback.first_sequence": first, "fastrunner.callback.last_sequence": last}
        link = None if carrier is None else (carrier.trace_id, carrier.span_id)
        span_id = self._id(f"callback {first} {attempt}".rstrip())
        return self._span(span_id, self.root_id, "callback", "client", began_ms, now_ms, "", found, link)

    def _id(self, what: str) -> str:
        return span_id_of(self.context.trace_id, self._execution_id, what)

    def _span(
        self,
        span_id: str,
        parent_id: str,
        name: str,
        kind: Kind,
        began_ms: int,
        ended_ms: int,
        error: str = "",
        found: Attributes | None = None,
        link: tuple[str, str] | None = None,
    ) -> Span:
        given = {"fastrunner.execution.id": self._execution_id, **(found or {})}
        context = self.context
        where = (context.trace_id, span_id, parent_id, context.state)
        name, attributes = shown(name, given)
        return Span(*where, name, kind, began_ms, max(began_ms, ended_ms), error, attributes, link)


def _type_of(type_: str) -> str:
    """The type of an error as it may be shown: one that a document makes up may be made of data."""
    return type_ if _STANDARD.fullmatch(type_) else "custom"
