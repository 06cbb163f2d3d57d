"""The workflows of examples/tasks, as their first lines say that they are run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import fastrunner
from tests.integration.runner_process import ROOT

FOLDER = ROOT / "examples" / "tasks"
OUTPUTS: dict[str, Any] = {
    "decision.yaml": {"order": 17, "approved": True, "by": "policy"},
    "household.yaml": {"decided": [1, 2]},
    "invoice.yaml": {"line": "7 EUR", "code": 0},
}
ELSEWHERE = {"image.yaml"}
"""Run by the tests of containers, which have an image."""


def command_of(path: Path) -> tuple[dict[str, str], str]:
    """Variables and input of the command line in an example's first lines."""
    found = re.search(r"^# +((?:[A-Z_]+=\S+ )*)fastrunner run (\S+) --input '(.*)'$", path.read_text(), re.MULTILINE)
    assert found is not None, f"{path.name} says how it is run"
    assert found[2] == f"examples/tasks/{path.name}"
    return dict(each.split("=", 1) for each in found[1].split()), found[3]


def test_every_example_has_its_output_here() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*OUTPUTS} | ELSEWHERE


@pytest.mark.parametrize("name", OUTPUTS)
def test_example_gives_what_it_should(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, given = command_of(FOLDER / name)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    done = fastrunner("run", f"examples/tasks/{name}", "--input", given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == OUTPUTS[name]
