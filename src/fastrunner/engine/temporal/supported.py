"""Stage 2, compile: what documents ask for that the distributed engine does not do; they are refused when validated.

Rules: pure, by the plan alone. What reads `$secrets` or `$authorization` outside of what an effect is given would be
evaluated in a workflow, which would have to know secrets, and the same ones in every replay. What becomes data of an
execution, as the input of a child or what a function is given, would lie in a history.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastrunner._core import InvalidWorkflow, Plan, Problem, load

__all__ = ["problems_of"]

_WHY: Final = "while Temporal keeps executions (TEMPORAL_SERVICE_ADDRESS)"
_TASK_LISTS: Final = ("do", "try", "before", "after")
_HOLDERS: Final = ("catch", "foreach")
_CALLS: Final = ("http", "grpc", "openapi", "asyncapi", "mcp", "a2a")
"""Calls that are effects; others are of functions, which evaluate what they are given."""
_OF_USE: Final = ("errors", "retries", "timeouts")
"""What a document defines for tasks that evaluate it."""
_HIDDEN: Final = re.compile(r"\$(?:secrets|authorization)\b")


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
    for key in _OF_USE:
        for name, definition in (use.get(key) or {}).items():
            pointer = f"/use/{key}/{_escaped(name)}"
            found += [_problem(pointer, what) for what in _reads_hidden(definition)]
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
    for key, part in task.items():
        where = f"{pointer}/{key}"
        if key in _TASK_LISTS and isinstance(part, list):
            yield from _of_tasks(part, where)
        elif key in _HOLDERS and isinstance(part, Mapping):
            yield from _of_holder(part, where)
        elif key == "fork" and isinstance(part, Mapping):
            yield from _of_tasks(part.get("branches"), f"{where}/branches")
        elif key == "with" and task.get("call") in _CALLS:
            yield from _of_arguments(part, where)
        elif key == "run" and isinstance(part, Mapping) and "workflow" not in part:
            # It is rendered where it is performed.
            continue
        else:
            yield from _named(where, part)


def _of_holder(holder: Mapping[str, Any], pointer: str) -> Iterator[tuple[str, str]]:
    """What has tasks, and expressions of its own."""
    yield from _of_tasks(holder.get("do"), f"{pointer}/do")
    yield from _named(pointer, {name: part for name, part in holder.items() if name != "do"})


def _of_arguments(arguments: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """What a call is given is rendered where it is performed, but for what the walk asks about messages."""
    subscription = arguments.get("subscription") if isinstance(arguments, Mapping) else None
    for key, part in subscription.items() if isinstance(subscription, Mapping) else ():
        where = f"{pointer}/subscription/{key}"
        if key in _HOLDERS and isinstance(part, Mapping):
            yield from _of_holder(part, where)
        else:
            yield from _named(where, part)


def _named(pointer: str, value: Any) -> Iterator[tuple[str, str]]:
    for what in _reads_hidden(value):
        yield pointer, what


def _reads_hidden(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        for name in dict.fromkeys(_HIDDEN.findall(value)):
            yield f"`{name}` outside of what a call, a script, a shell or a container is given"
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _reads_hidden(part)
    elif isinstance(value, list):
        for part in value:
            yield from _reads_hidden(part)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
