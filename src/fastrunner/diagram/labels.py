"""Support: what a diagram says of a task beside its name: one line, cut.

Rule: text of the document as it stands there; nothing is evaluated.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fastrunner.base import limits

__all__ = ["label_of", "shortened"]

_Task = Mapping[str, Any]


def shortened(text: str) -> str:
    """A text as one line of at most so many characters."""
    # No more of a long expression is looked at than could be shown.
    size_chars_max = limits.DIAGRAM_LABEL_SIZE_CHARS_MAX
    line = " ".join(text[: 8 * size_chars_max].split())
    return line if len(line) <= size_chars_max else f"{line[: size_chars_max - 1].rstrip()}…"


def label_of(kind: str, task: _Task) -> str:
    """What a task of a kind does."""
    says = _LABELS[kind](task)
    condition = task.get("if")
    return shortened(" · ".join(part for part in (says, f"if {condition}" if condition is not None else "") if part))


def _nothing(_task: _Task) -> str:
    return ""


def _call(task: _Task) -> str:
    called, arguments = task["call"], task.get("with")
    arguments = arguments if isinstance(arguments, dict) else {}
    if called == "http":
        return f"{str(arguments['method']).upper()} {_address(arguments['endpoint'])}"
    if called == "openapi":
        return f"openapi {arguments['operationId']}"
    if called == "grpc":
        return f"grpc {arguments['service']['name']}/{arguments['method']}"
    if called == "asyncapi":
        does = "publish" if "message" in arguments else "subscribe"
        return f"asyncapi {does} {arguments.get('operation') or arguments.get('channel') or ''}"
    if called in ("mcp", "a2a"):
        return f"{called} {arguments.get('method', '')}"
    return str(called)


def _address(endpoint: Any) -> str:
    return str(endpoint["uri"] if isinstance(endpoint, dict) else endpoint)


def _run(task: _Task) -> str:
    ran = task["run"]
    if "workflow" in ran:
        workflow = ran["workflow"]
        return f"workflow {workflow['namespace']}/{workflow['name']}:{workflow['version']}"
    if "shell" in ran:
        return f"shell {ran['shell']['command']}"
    if "script" in ran:
        return f"script {ran['script']['language']}"
    return f"container {ran['container']['image']}"


def _emit(task: _Task) -> str:
    return str(task["emit"]["event"]["with"].get("type", ""))


def _for(task: _Task) -> str:
    loop = task["for"]
    says = f"each {loop.get('each') or 'item'} in {_text(loop['in'])}"
    return f"{says}, while {task['while']}" if "while" in task else says


def _text(value: Any) -> str:
    return f"{len(value)} items" if isinstance(value, list) else str(value)


def _fork(task: _Task) -> str:
    count = len(task["fork"]["branches"])
    return f"race of {count}: the first one counts" if task["fork"].get("compete") else f"{count} branches"


def _listen(task: _Task) -> str:
    wanted = task["listen"]["to"]
    how = next(key for key in ("one", "any", "all") if key in wanted)
    filters = [wanted["one"]] if how == "one" else wanted[how]
    types = [str((each.get("with") or {}).get("type", "any event")) for each in filters]
    says = f"{how} of {', '.join(types)}" if len(types) > 1 else ", ".join(types) or "any event"
    each = task.get("foreach") or {}
    return f"each {each.get('item') or 'item'} of {says}" if "do" in each else says


def _raise(task: _Task) -> str:
    error = task["raise"]["error"]
    if isinstance(error, str):
        return error
    return f"{str(error.get('type', '')).rsplit('/', 1)[-1]} {error.get('status', '')}".strip()


def _try(task: _Task) -> str:
    retry = task["catch"].get("retry")
    if retry is None:
        return ""
    if isinstance(retry, str):
        return f"retry by {retry}"
    count = ((retry.get("limit") or {}).get("attempt") or {}).get("count")
    delay = _duration(retry["delay"]) if "delay" in retry else ""
    says = "retry" if count is None else f"retry {count}×"
    return f"{says} after {delay}" if delay else says


def _wait(task: _Task) -> str:
    return _duration(task["wait"])


_UNITS: Final = (("days", "d"), ("hours", "h"), ("minutes", "min"), ("seconds", "s"), ("milliseconds", "ms"))


def _duration(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{value[name]} {unit}" for name, unit in _UNITS if name in value)
    return str(value)


_LABELS: Final[Mapping[str, Callable[[_Task], str]]] = {
    "call": _call,
    "do": _nothing,
    "emit": _emit,
    "for": _for,
    "fork": _fork,
    "listen": _listen,
    "raise": _raise,
    "run": _run,
    "set": _nothing,
    "switch": _nothing,
    "try": _try,
    "wait": _wait,
}
