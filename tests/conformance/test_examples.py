"""The specification's own documents: its examples are valid, its invalid ones are refused where they are wrong."""

from pathlib import Path

import pytest

from fastrunner._core import validate
from tests.core.documents import CONFORMANCE, needs_conformance

EXAMPLES = sorted((CONFORMANCE / "examples").glob("*.yaml"))
INVALID = {
    "extra-property-in-call.yaml": [("unknown-key", 12)],
    "listen-any-until-any-until.yaml": [("duplicate-key", 7), ("unknown-key", 14)],
    "two-tasks-in-one-item.yaml": [("not-one-key", 12)],
}


@needs_conformance
def test_all_documents_are_there() -> None:
    assert len(EXAMPLES) == 68
    assert {path.name for path in (CONFORMANCE / "invalid").iterdir()} == set(INVALID)


@needs_conformance
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    assert validate(path.read_bytes()) == ()


@needs_conformance
@pytest.mark.parametrize("name", INVALID)
def test_invalid_documents_are_refused_at_their_line(name: str) -> None:
    problems = validate((CONFORMANCE / "invalid" / name).read_bytes())
    assert [(problem.code, problem.line) for problem in problems] == INVALID[name]
