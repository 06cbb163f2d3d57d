"""Support: all cases, and the examples that cannot be executed yet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import fastrunner
from fastrunner._core import validate
from tests.conformance.cases import Case, events, flow, http, protocols, runs
from tests.conformance.cases.http import SECRETS
from tests.core.documents import CONFORMANCE

__all__ = ["CASES", "EXAMPLES", "SECRETS", "is_executable"]

EXAMPLES = {path.stem: path for path in sorted((CONFORMANCE / "examples").glob("*.yaml"))}
_TASKS = Path(fastrunner.__file__).parent / "tasks"
_FILES = (flow, http, events, protocols, runs)
CASES: Sequence[Case] = sorted((case for file in _FILES for case in file.CASES), key=lambda case: case.example)

_KINDS: Mapping[str, str] = {
    **dict.fromkeys((name for name in EXAMPLES if name.startswith("call-asyncapi")), "call_asyncapi"),
    "call-grpc": "",  # for a folder where a host would stand in the URI of its .proto file
    "call-mcp": "call_mcp",
}
"""What examples need."""


def is_executable(example: str) -> bool:
    """Whether all that an example needs is there. The page tells, so it is stale when something comes."""
    if example in _KINDS and not (_TASKS / _KINDS[example] / "perform.py").exists():
        return False
    return all(problem.code != "unsupported" for problem in validate(EXAMPLES[example].read_bytes()))
