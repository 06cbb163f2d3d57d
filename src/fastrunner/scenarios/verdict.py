"""Support: what came of an execution beside what was expected, as sentences.

Rule: integers and doubles of one value are equal, as in jq; true is not 1.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from fastrunner.scenarios.drive import Outcome
    from fastrunner.scenarios.files import Expected

__all__ = ["differences", "faults"]

_SHOWN_CHARS: Final = 200
_SHOWN_MAX: Final = 20


def differences(wanted: Any, found: Any, *, subset: bool, at: str = "") -> Iterator[str]:
    """How two values differ, place by place; `subset`: objects may have more than is wanted."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            place = f"{at}/{key}"
            if key in found:
                yield from differences(value, found[key], subset=subset, at=place)
            else:
                yield f"{place}: expected {_shown(value)}, is not there"
        if not subset:
            yield from (f"{at}/{key}: is {_shown(found[key])}, not expected" for key in found if key not in wanted)
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            yield f"{at or '/'}: expected {len(wanted)} items, has {len(found)}"
        for index, (each, other) in enumerate(zip(wanted, found, strict=False)):
            yield from differences(each, other, subset=subset, at=f"{at}/{index}")
    elif isinstance(wanted, bool) is not isinstance(found, bool) or wanted != found:
        yield f"{at or '/'}: expected {_shown(wanted)}, is {_shown(found)}"


def faults(expected: "Expected", outcome: "Outcome") -> list[str]:
    """What is not as expected; empty if all of it is."""
    found = list(outcome.faults)
    if outcome.status != expected.status:
        error = f": {_shown(outcome.error)}" if outcome.error else ""
        found.append(f"status: expected {expected.status}, is {outcome.status}{error}")
    elif expected.has_output:
        found += _within("output", differences(expected.output, outcome.output, subset=False))
    if expected.error is not None and outcome.status == "failed":
        found += _within("error", differences(expected.error, outcome.error, subset=True))
    if expected.tasks is not None:
        found += _tasks(expected.tasks, outcome.tasks)
    if expected.emitted is not None:
        found += _within("emitted", differences(expected.emitted, outcome.emitted, subset=True))
    if expected.events is not None:
        found += _in_order(expected.events, outcome.events)
    if expected.lasts is not None and expected.lasts.ms != outcome.lasted_ms:
        found.append(f"lasts: expected {expected.lasts.ms} ms, is {outcome.lasted_ms} ms")
    return found


def _within(what: str, sentences: Iterator[str]) -> list[str]:
    found = [f"{what} {sentence}" for sentence in sentences]
    if len(found) > _SHOWN_MAX:
        return [*found[:_SHOWN_MAX], f"{what}: {len(found) - _SHOWN_MAX} more differences"]
    return found


def _tasks(wanted: Sequence[str], references: Sequence[str]) -> list[str]:
    from fastrunner.scenarios.stubs import name_of

    found = [
        reference if at < len(wanted) and wanted[at].startswith("/") else name_of(reference)
        for at, reference in enumerate(references)
    ]
    return [] if found == list(wanted) else [f"tasks: expected {_shown(list(wanted))}, are {_shown(found)}"]


def _in_order(wanted: Sequence[Any], found: Sequence[Any]) -> list[str]:
    rest = iter(found)
    for at, each in enumerate(wanted):
        if not any(not list(differences(each, event, subset=True)) for event in rest):
            return [f"events: number {at}, {_shown(each)}, does not come after those before it"]
    return []


def _shown(value: Any) -> str:
    text = orjson.dumps(value, default=str).decode()
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
