"""Support: all cases of all examples."""

from collections.abc import Sequence

from tests.conformance.cases import Case, events, flow, http, protocols, runs
from tests.conformance.cases.http import SECRETS
from tests.core.documents import CONFORMANCE

__all__ = ["CASES", "EXAMPLES", "SECRETS"]

EXAMPLES = {path.stem: path for path in sorted((CONFORMANCE / "examples").glob("*.yaml"))}
_FILES = (flow, http, events, protocols, runs)
CASES: Sequence[Case] = sorted((case for file in _FILES for case in file.CASES), key=lambda case: case.example)
