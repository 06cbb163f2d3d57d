"""Support: a test whose tool is absent says how to get it: it is skipped, and fails where tools are required."""

import pytest

from tests import outside


@pytest.mark.parametrize(
    ("required", "outcome"),
    [(False, pytest.skip.Exception), (True, pytest.fail.Exception)],
    ids=["skipped", "failed"],
)
def test_absent_tool(monkeypatch: pytest.MonkeyPatch, required: bool, outcome: type[BaseException]) -> None:
    monkeypatch.setattr(outside, "REQUIRED", required)
    with pytest.raises(outcome, match="no-such-tool is absent: make tools"):
        outside.require_tool("no-such-tool")
