"""Support: all cases, and the examples that have none yet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import fastrunner
from tests.conformance.cases import Case, events, flow, http, runs
from tests.conformance.cases.http import SECRETS

__all__ = ["CASES", "LATER", "SECRETS", "is_performed"]

CASES: Sequence[Case] = sorted((*flow.CASES, *http.CASES, *events.CASES, *runs.CASES), key=lambda case: case.example)

LATER: Mapping[str, str] = {
    "call-grpc": "call_grpc",
    "call-mcp": "call_mcp",
    "mock-service-extension": "extensions",
    **dict.fromkeys(
        (
            "call-asyncapi-publish",
            "call-asyncapi-subscribe-consume-amount",
            "call-asyncapi-subscribe-consume-forever-foreach",
            "call-asyncapi-subscribe-consume-until",
            "call-asyncapi-subscribe-consume-while",
        ),
        "call_asyncapi",
    ),
}
"""Examples that are not executed yet, and the folder of `tasks` that they wait for."""


def is_performed(kind: str) -> bool:
    """Whether effects of a kind can be performed."""
    return (Path(fastrunner.__file__).parent / "tasks" / kind / "perform.py").exists()
