"""Stage 5, tasks: one row per kind of effect: what documents call it, and what it means that it is performed again.

Rules: an effect whose outcome was not committed before a crash is performed again, with the same idempotency key; a row
says who makes one of the two, or that nobody does. The table of docs/tasks.md is made of these rows.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["EFFECTS", "Effect"]


class Effect(NamedTuple):
    """One kind of effect."""

    feature: str
    """As documents have it."""
    again: str
    """What it means that it is performed again after a crash, in one sentence."""
    needs_descriptions: bool = True
    """Whether a description of a service says what it is."""


_PROCESS = (
    "The process is started again, with the same key in `FASTRUNNER_IDEMPOTENCY_KEY`; what is left of the first one is "
)

EFFECTS: Final[Mapping[str, Effect]] = {
    "emit": Effect("emit", "The event has the same id, so it is published once.", needs_descriptions=False),
    "run_shell": Effect("run: shell", f"{_PROCESS}killed.", needs_descriptions=False),
    "run_script": Effect("run: script", f"{_PROCESS}killed.", needs_descriptions=False),
    "run_container": Effect("run: container", f"{_PROCESS}removed.", needs_descriptions=False),
    "run_workflow": Effect(
        "run: workflow",
        "The child has the same id, so there is one, and its outcome is waited for.",
        needs_descriptions=False,
    ),
    "call_http": Effect(
        "call: http", "The request is sent again, with the same key in `Idempotency-Key`.", needs_descriptions=False
    ),
    "call_openapi": Effect(
        "call: openapi", "The request is sent again, equal to the byte where its document is kept, with the same key."
    ),
    "call_grpc": Effect("call: grpc", "The method is called again, with the same key in the metadata."),
    "call_mcp": Effect(
        "call: mcp", "The session begins anew, and the method is called again, over HTTP with the same key."
    ),
    "call_a2a": Effect("call: a2a", "The request is sent again, with the same key and the same `messageId`."),
    "call_asyncapi": Effect(
        "call: asyncapi",
        "A message is published again, with the same key where its protocol has room for one; what was received and "
        "not acknowledged comes again where the other side keeps it.",
    ),
}
"""By the name of their kind."""
