"""Support: `validate --fix` of what up to DSL 1.0.2 was written otherwise: `arguments` of a run as a map.

    arguments:                      arguments:
      # whom                          # whom
      name: ${ .name }  # greeted     - '${ "name=\\(.name)" }'  # greeted
      times: 2                        - 'times=2'

Theory of operation: the data says what the list is, the text where each member stands; a member is replaced where it
stands, so comments and layout stay. Then the text is read again, and an edit that gives other data than meant is none.
"""

import json
import re
from typing import Any, Final

from fastrunner._core import InvalidWorkflow, Problem, load
from fastrunner.tasks.scalars import scalar_text

__all__ = ["OUTDATED", "closing", "listed"]

OUTDATED: Final = "outdated-arguments"
"""Code of the warning."""

_LINES: Final = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_QUOTED: Final = r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'"""
_KEY: Final = re.compile(rf"(?:{_QUOTED}|[^\s#'\"][^#]*?)\s*:(?=\s|$)\s*")
_VALUE: Final = re.compile(rf"(?:{_QUOTED}|[^\s'\"].*?)?(?=\s*$|\s+#)")
_BLOCK: Final = re.compile(r"[|>][-+0-9]*(?=\s|$)")


def listed(text: str, at: int, problem: Problem) -> str | None:
    """The text with a map of arguments, which stands at a place, as the list that it means; None if that cannot be."""
    try:
        data = load(text.encode())
    except InvalidWorkflow:
        return None
    items = _items_of(_at(data, problem.pointer))
    # In loose mode any text may be an expression.
    if items is None or "loose" in json.dumps(data.get("evaluate")):
        return None
    is_json = text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[")
    scalars = [_written(item, is_json=is_json) for item in items]
    edited = _in_flow(text, at, scalars, is_json=is_json) if text[at] == "{" else _in_block(text, at, scalars)
    return edited if edited is not None and _gives(edited, data, problem.pointer, items) else None


def _items_of(members: Any) -> list[str] | None:
    """What a process is given for each member; None if it would be given nothing."""
    items = []
    for name, value in members.items():
        stripped = value.strip() if isinstance(value, str) else ""
        if name.lstrip().startswith("${"):
            return None
        if stripped.startswith("${") and stripped.endswith("}"):
            quoted = json.dumps(name, ensure_ascii=False)[1:-1]
            items.append(f'${{ "{quoted}=\\({stripped[2:-1].strip()})" }}')
            continue
        constant = scalar_text(value)
        if constant is None:
            return None
        items.append(f"{name}={constant}")
    return items


def _at(data: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        data = data[int(part) if isinstance(data, list) else part.replace("~1", "/").replace("~0", "~")]
    return data


def _gives(text: str, data: Any, pointer: str, items: list[str]) -> bool:
    """Whether a text's data is other data with a list in one place."""
    holder, _, key = pointer.rpartition("/")
    _at(data, holder)[key.replace("~1", "/").replace("~0", "~")] = items
    try:
        return bool(load(text.encode()) == data)
    except InvalidWorkflow:
        return False


def _written(item: str, *, is_json: bool) -> str:
    if is_json or not item.isprintable():
        return json.dumps(item, ensure_ascii=False)
    doubled = item.replace("'", "''")
    return f"'{doubled}'"


# --- where members stand ---


def _in_flow(text: str, at: int, scalars: list[str], *, is_json: bool) -> str | None:
    end = closing(text, at + 1)
    inside = text[at + 1 : end]
    if end < 0 or (not is_json and "#" in inside and len(inside.splitlines()) > 1):
        return None
    parts, left = [], list(scalars)
    for part in _split(inside):
        if part.strip():
            if not left:
                return None
            before, after = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
            part = f"{before}{left.pop(0)}{after}"
        parts.append(part)
    return None if left else f"{text[:at]}[{','.join(parts)}]{text[end + 1 :]}"


def _split(inside: str) -> list[str]:
    """The members of an object in flow style, with the white space around them."""
    parts, start, place = [], 0, 0
    while place < len(inside):
        character = inside[place]
        quoted = re.compile(_QUOTED, re.DOTALL).match(inside, place)
        if quoted is not None and inside[:place].rstrip()[-1:] in ("", "{", "[", ",", ":"):
            place = quoted.end()
            continue
        if character in "{[":
            end = closing(inside, place + 1)
            place = len(inside) if end < 0 else end
        elif character == ",":
            parts.append(inside[start:place])
            start = place + 1
        place += 1
    return [*parts, inside[start:]]


def closing(text: str, at: int) -> int:
    """The bracket that closes the one before this place; -1 if there is none."""
    depth, quote = 1, ""
    for place in range(at, len(text)):
        character = text[place]
        if quote:
            if character == quote and not (quote == '"' and text[place - 1] == "\\"):
                quote = ""
        elif character in "\"'" and text[place - 1] in " \t\n[{,:":
            quote = character
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
            if not depth:
                return place
    return -1


def _in_block(text: str, at: int, scalars: list[str]) -> str | None:
    line_at = max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1
    indent = at - line_at
    if text[line_at:at].strip():
        return None
    members: list[list[str]] = []
    between: list[list[str]] = [[]]
    """Lines before each member, and after the last: comments and blank ones."""
    end = line_at
    for line in _LINES.split(text[line_at:]):
        content, depth = line.strip(), len(line) - len(line.lstrip(" "))
        if content and depth < indent and not content.startswith("#"):
            break
        is_inner = (
            bool(content)
            and depth > indent
            and bool(members)
            and (not content.startswith("#") or _is_block(members[-1]))
        )
        if is_inner:
            # What was taken for blank lines and comments lies within a value.
            members[-1] += [*between.pop(), line]
            between.append([])
        elif not content or content.startswith("#"):
            between[-1].append(line)
        else:
            members.append([line])
            between.append([])
        end += len(line)
    if len(members) != len(scalars):
        return None
    written = "".join(between[0])
    for member, scalar, after in zip(members, scalars, between[1:], strict=True):
        rest = _rest(member)
        if rest is None:
            return None
        written += f"{' ' * indent}- {scalar}{rest}{''.join(after)}"
    return f"{text[:line_at]}{written}{text[end:]}"


def _is_block(member: list[str]) -> bool:
    key = _KEY.match(member[0].strip())
    return key is not None and _BLOCK.match(member[0].strip(), key.end()) is not None


def _rest(member: list[str]) -> str | None:
    """What follows a member's value on its line, its end included; None if that cannot be told."""
    first = member[0].strip()
    key = _KEY.match(first)
    if key is None:
        return None
    ending = member[-1][len(member[-1].rstrip("\r\n")) :]
    if len(member) == 1:
        value = _VALUE.match(first, key.end())
        return None if value is None else first[value.end() :] + ending
    header = _BLOCK.match(first, key.end())
    if header is not None:
        return first[header.end() :] + ending
    return None if any("#" in line for line in member) else ending
