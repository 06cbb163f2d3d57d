"""Stage 2, compile: what documents ask for that the distributed engine does not do; they are refused when validated.

Rules: pure, by the plan alone. What reads `$secrets` or `$authorization` outside of what an effect is given would be
evaluated in a workflow, and lie in a history that is not sealed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastrunner._core import InvalidWorkflow, Plan, Problem, load

__all__ = ["problems_of"]

_WHY: Final = "while Temporal keeps executions (TEMPORAL_SERVICE_ADDRESS)"
_TASK_LISTS: Final = ("do", "try", "before", "after")
_OF_EFFECTS: Final = ("with", "run")
"""What is rendered where an effect is performed."""
_HIDDEN: Final = ("$secrets", "$authorization")


def problems_of(plan: Plan) -> Sequence[Problem]:
    """A problem for each thing that is not done; empty for a document that this engine executes."""
    document = plan.document
    found = [_problem(where, what) for where, what in _of_tasks(document.get("do"), "/do")]
    found += _of_use(document.get("use", {}))
    for reference in sorted(plan.resources):
        # A function of a catalog is a document of one task.
        for _, what in _of_function(plan.resources[reference]):
            found.append(_problem("/do", f"{what}, in {reference}"))
    for key in ("input", "output", "timeout"):
        found += [_problem(f"/{key}", what) for what in _reads_hidden(document.get(key))]
    return found


def _problem(pointer: str, what: str) -> Problem:
    # The plan has no positions: the pointer tells the place.
    return Problem("unsupported", pointer, 1, 1, f"{pointer}: {what} is not supported {_WHY}")


def _of_use(use: Any) -> list[Problem]:
    found: list[Problem] = []
    if not isinstance(use, Mapping):
        return found
    for name, function in (use.get("functions") or {}).items():
        pointer = f"/use/functions/{_escaped(name)}"
        found += [_problem(where, what) for where, what in _of_task(function, pointer)]
    for index, item in enumerate(use.get("extensions") or ()):
        for name, extension in item.items():
            pointer = f"/use/extensions/{index}/{_escaped(name)}"
            found += [_problem(where, what) for where, what in _of_task(extension, pointer)]
    return found


def _of_function(text: str) -> Iterator[tuple[str, str]]:
    try:
        function = load(text)
    except InvalidWorkflow:
        # The text of something that is no document, such as a .proto.
        return
    if isinstance(function, Mapping) and not isinstance(function.get("paths"), Mapping):
        yield from _of_task(function, "")


def _of_tasks(tasks: Any, pointer: str) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(item, Mapping):
            for name, task in item.items():
                yield from _of_task(task, f"{pointer}/{index}/{_escaped(name)}")


def _of_task(task: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if not isinstance(task, Mapping):
        return
    arguments = task.get("with")
    if task.get("call") == "asyncapi" and isinstance(arguments, Mapping) and "subscription" in arguments:
        yield f"{pointer}/with/subscription", "a subscription of `call: asyncapi`"
    for key, part in task.items():
        where = f"{pointer}/{key}"
        if key in _TASK_LISTS and isinstance(part, list):
            yield from _of_tasks(part, where)
        elif key == "foreach" and isinstance(part, Mapping):
            yield from _of_tasks(part.get("do"), f"{where}/do")
            for what in _reads_hidden({name: each for name, each in part.items() if name != "do"}):
                yield where, what
        elif key == "fork" and isinstance(part, Mapping):
            yield from _of_tasks(part.get("branches"), f"{where}/branches")
        elif key == "catch" and isinstance(part, Mapping):
            yield from _of_tasks(part.get("do"), f"{where}/do")
            for what in _reads_hidden({name: each for name, each in part.items() if name != "do"}):
                yield where, what
        elif key not in _OF_EFFECTS:
            for what in _reads_hidden(part):
                yield where, what


def _reads_hidden(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        for name in _HIDDEN:
            if name in value:
                yield f"`{name}` outside of what a call or a run is given"
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _reads_hidden(part)
    elif isinstance(value, list):
        for part in value:
            yield from _reads_hidden(part)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
