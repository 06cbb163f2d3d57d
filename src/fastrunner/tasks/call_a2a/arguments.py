"""Stage 5, tasks: the evaluated arguments of `call: a2a` as what an agent is asked.

Rules: pure, no I/O. What identifies a message is made of the effect's key, so that one that is sent again after a crash
is the same to the agent.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastrunner.tasks.rpc import map_of, text_of

__all__ = ["STREAMS", "A2aCall", "call_of"]

STREAMS = frozenset({"message/stream", "tasks/resubscribe"})
"""Methods with many results."""

_MESSAGES = frozenset({"message/send", "message/stream"})
_NAMESPACE = uuid.UUID("9a0c3c0e-5d0b-5b57-9f4e-6f2d2f3f6a10")


@dataclass(frozen=True, slots=True)
class A2aCall:
    """One method of one agent."""

    method: str
    """By its name in version 0.3 of the protocol."""
    parameters: Mapping[str, Any] | None
    """The method's, in the form of that version."""
    card: Mapping[str, Any] | None
    """The resource that describes the agent; None: it is at `server`."""
    server: str | None
    """Where the agent is, if there is no card."""
    policy: Mapping[str, Any] | None
    """The task's own, rendered."""


def call_of(arguments: Mapping[str, Any], idempotency_key: str) -> A2aCall:
    """What rendered arguments (see `Plan.render`) ask for. Raises CallProblem."""
    given = arguments.get("parameters")
    parameters = None if given is None else map_of(given, "parameters")
    method = arguments["method"]
    if method in _MESSAGES and parameters is not None and "message" in parameters:
        message = map_of(parameters["message"], "parameters.message")
        defaults = {"kind": "message", "role": "user", "messageId": str(uuid.uuid5(_NAMESPACE, idempotency_key))}
        parameters = {**parameters, "message": {**defaults, **message}}
    card = arguments.get("agentCard")
    server = None if card is not None else text_of(arguments.get("endpoint"), "server")
    return A2aCall(method, parameters, card, server, arguments.get("authentication"))
