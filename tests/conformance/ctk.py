"""Support: the DSL's conformance kit: its .feature files read into scenarios, and what their steps mean.

The files are read where they lie, beside the repository. An unknown line or step is an error: a scenario that is not
understood must not pass.
"""

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.driver import Execution

__all__ = ["FEATURES", "Scenario", "Step", "check", "scenarios"]

FEATURES = Path(__file__).parents[3] / "shared" / "conformance" / "ctk"

_STEP = re.compile(r"(?:Given|When|Then|And) (.+)")
_QUOTES = '"""'


@dataclass
class Step:
    """One line of a scenario, without its keyword, and the text under it."""

    text: str
    argument: str = ""

    def data(self) -> Any:
        """The text under the line, as the YAML it is."""
        return YAML(typ="safe").load(StringIO(self.argument))


@dataclass
class Scenario:
    """A workflow, its input, and the steps that say what must come of it."""

    feature: str
    name: str
    document: str = ""
    input: Any = None
    expectations: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Takes one step, in order."""
        match step.text:
            case "a workflow with definition:":
                self.document = step.argument
            case "given the workflow input is:":
                self.input = step.data()
            case "the workflow is executed":
                pass
            case _:
                self.expectations.append(step)


def scenarios() -> list[Scenario]:
    """Every scenario of every feature, in the order of files and lines."""
    return [scenario for path in sorted(FEATURES.glob("*.feature")) for scenario in _read(path)]


def _read(path: Path) -> list[Scenario]:
    found: list[Scenario] = []
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    step: Step | None = None
    for line in lines:
        text = line.strip()
        if text.startswith(_QUOTES):
            assert step is not None, f"{path.name}: a text under no step"
            step.argument = _argument(lines)
        elif match := _STEP.fullmatch(text):
            _add(found, step)
            step = Step(match[1])
        elif text.startswith("Scenario:"):
            _add(found, step)
            step = None
            found.append(Scenario(path.stem, text.removeprefix("Scenario:").strip()))
        else:
            is_prose = not text or text.startswith(("#", "Feature:")) or not found
            assert is_prose, f"{path.name}: cannot read {text!r}"
    _add(found, step)
    return found


def _add(found: list[Scenario], step: Step | None) -> None:
    if step is not None:
        found[-1].add(step)


def _argument(lines: Any) -> str:
    block: list[str] = []
    for line in lines:
        if line.strip() == _QUOTES:
            return textwrap.dedent("\n".join(block))
        block.append(line)
    raise AssertionError("a text without an end")


# --- what the steps mean ---


def check(step: Step, execution: Execution) -> None:
    """Asserts one expectation."""
    for pattern, meaning in _MEANINGS:
        if match := pattern.fullmatch(step.text):
            meaning(execution, step, *match.groups())
            return
    raise AssertionError(f"unknown step {step.text!r}")


def _completes(execution: Execution, _: Step) -> None:
    assert execution.status == "completed", execution.error


def _completes_with(execution: Execution, step: Step) -> None:
    _completes(execution, step)
    assert execution.output == step.data()


def _faults(execution: Execution, _: Step) -> None:
    assert execution.status == "failed"


def _faults_with(execution: Execution, step: Step) -> None:
    _faults(execution, step)
    assert execution.error is not None
    assert {name: value for name, value in execution.error.items() if value is not None} == step.data()


def _property(value: Any, path: str) -> Any:
    for name in path.split("."):
        assert isinstance(value, dict), f"no object on the way to {path}"
        assert name in value, f"no {name} of {path}: there is {sorted(value)}"
        value = value[name]
    return value


def _has_properties(execution: Execution, _: Step, paths: str) -> None:
    for path in re.findall(r"'([^']+)'", paths):
        _property(execution.output, path)


def _has_value(execution: Execution, step: Step, path: str) -> None:
    assert _property(execution.output, path) == step.data()


def _has_items(execution: Execution, _: Step, path: str, count: str) -> None:
    assert len(_property(execution.output, path)) == int(count)


def _runs_first(execution: Execution, _: Step, task: str) -> None:
    assert execution.tasks_started[0] == task


def _runs_last(execution: Execution, _: Step, task: str) -> None:
    assert execution.tasks_started[-1] == task


def _runs_after(execution: Execution, _: Step, later: str, earlier: str) -> None:
    order = execution.tasks_started
    assert order.index(earlier) < order.index(later)


_MEANINGS: tuple[tuple[re.Pattern[str], Callable[..., None]], ...] = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"the workflow should complete", _completes),
        (r"the workflow should complete with output:", _completes_with),
        (r"the workflow should fault", _faults),
        (r"the workflow should fault with error:", _faults_with),
        (r"the workflow output should have properties ('[^']+'(?:, '[^']+')*)", _has_properties),
        (r"the workflow output should have a '([^']+)' property with value:", _has_value),
        (r"the workflow output should have a '([^']+)' property containing (\d+) items", _has_items),
        (r"(\w+) should run first", _runs_first),
        (r"(\w+) should run last", _runs_last),
        (r"(\w+) should run after (\w+)", _runs_after),
    )
)
