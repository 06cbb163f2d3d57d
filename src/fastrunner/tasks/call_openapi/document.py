"""Stage 5, tasks: one document's data: its version, its operations by name, and what its references lead to.

Rules: references are followed within the document, and only so far; what is not as it has to be is named by where it
stands, never by its value.
"""

from collections.abc import Generator, Iterator, Mapping, Sized
from difflib import SequenceMatcher
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote

from fastrunner.base import limits
from fastrunner.tasks.call_http.arguments import RequestProblem
from fastrunner.tasks.scalars import json_kind

__all__ = ["Document", "Found", "malformed"]

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_MEMBERS_OF_PATHS: Final = (*METHODS, "parameters", "servers")
_PAUSE_PATHS: Final = 20
"""Paths looked at before others may have a turn: a millisecond or two if each leads through as much as it may."""
_PAUSE_NAMES: Final = 5
"""Names compared with one that is not there before others may have a turn: some tenths of a millisecond each."""
_COMPARED_MAX: Final = 1_000
"""Names that are compared at all."""
_LIKE: Final = 0.6
"""How much of two names is the same if one may be meant by the other."""
_NEAR_MAX: Final = 3
_NAMED_MAX: Final = 8
_NAME_SIZE_CHARS_MAX: Final = 100

Found = tuple[str, str]
"""Where an operation is: its path and its method."""


def malformed(sentence: str) -> RequestProblem:
    """The problem of a document that is not as OpenAPI has it."""
    return RequestProblem("configuration", f"the document is no OpenAPI document that can be used: {sentence}")


class Document:
    """A parsed document; never changed."""

    def __init__(self, root: Any) -> None:
        """Raises RequestProblem for what is no OpenAPI document of a known version."""
        if not isinstance(root, dict):
            raise malformed(f"it is {json_kind(root)}")
        self.root: Mapping[str, Any] = root
        self.is_version_2 = str(root.get("swagger")) in ("2.0", "2")
        if not self.is_version_2 and not str(root.get("openapi")).startswith("3"):
            raise malformed("it has neither swagger: '2.0' nor openapi: 3.x")
        self._operations: dict[str, list[Found]] = {}
        self._has_paths_elsewhere = False
        self._lookups_left = limits.OPENAPI_LOOKUPS_MAX

    def read_operations(self) -> Generator[None, None, None]:
        """To be run to its end before `find`; yields between pieces. Raises RequestProblem."""
        for count, (path, item) in enumerate(self.mapping(self.root.get("paths"), "paths").items(), 1):
            if count % _PAUSE_PATHS == 0:
                yield
            if path.startswith("x-"):
                continue
            try:
                members = self.path_item(item)
            except RequestProblem:
                # Whoever calls what is elsewhere hears of it.
                self._has_paths_elsewhere = True
                continue
            for method in METHODS:
                operation = members.get(method)
                name = operation.get("operationId") if isinstance(operation, dict) else None
                if isinstance(name, str):
                    self._operations.setdefault(name, []).append((path, method))

    def find(self, name: str) -> Generator[None, None, Found]:
        """Where the operation of an `operationId` is; yields between pieces. Raises RequestProblem."""
        found = self._operations.get(name, ())
        if len(found) == 1:
            return found[0]
        if found:
            places = " and ".join(f"{method.upper()} {path[:_NAME_SIZE_CHARS_MAX]}" for path, method in found[:2])
            raise malformed(f"operationId {name!r} names several operations, {places}")
        near = yield from self._near(name)
        hint = f": did you mean {' or '.join(map(shown, near))}?" if near else self._names()
        raise RequestProblem("configuration", f"the document has no operationId {shown(name)}{hint}")

    def _near(self, name: str) -> Generator[None, None, list[str]]:
        """The names most like one, the nearest first."""
        matcher = SequenceMatcher(b=name[:_NAME_SIZE_CHARS_MAX])
        found = []
        for count, candidate in enumerate(islice(self._operations, _COMPARED_MAX), 1):
            matcher.set_seq1(candidate[:_NAME_SIZE_CHARS_MAX])
            if matcher.real_quick_ratio() >= _LIKE and matcher.quick_ratio() >= _LIKE and matcher.ratio() >= _LIKE:
                found.append((-matcher.ratio(), candidate))
            if count % _PAUSE_NAMES == 0:
                yield
        return [candidate for _, candidate in sorted(found)[:_NEAR_MAX]]

    def _names(self) -> str:
        if self._has_paths_elsewhere:
            return "; some of its paths are in other documents, which are not read"
        names = list(islice(self._operations, _NAMED_MAX))
        if not names:
            return ": none of its operations has one"
        more = "" if len(names) == len(self._operations) else f" and {len(self._operations) - len(names)} more"
        return f": it has {', '.join(map(shown, names))}{more}"

    def begin(self) -> None:
        """To be called before an operation is read: how far its references may lead counts anew."""
        self._lookups_left = limits.OPENAPI_LOOKUPS_MAX

    # --- what is in it ---

    def path_item(self, item: Any) -> Mapping[str, Any]:
        """The members of a path, with those of what it refers to. Raises RequestProblem."""
        members = self.mapping(item, "a path")
        if "$ref" not in members:
            return members
        # Many paths may lead to one large one: nothing is copied.
        referred = self.mapping(self.resolved(members), "a path")
        return {name: each[name] for each in (referred, members) for name in _MEMBERS_OF_PATHS if name in each}

    def resolved(self, value: Any) -> Any:
        """A value, or what its `$ref` leads to in the end. Raises RequestProblem."""
        for _ in range(limits.OPENAPI_REFERENCES_MAX):
            if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
                return value
            value = self._referred(value["$ref"])
        raise malformed(f"a $ref leads to more than {limits.OPENAPI_REFERENCES_MAX} others, or to itself")

    def _referred(self, reference: str) -> Any:
        if len(reference) > limits.OPENAPI_REFERENCE_SIZE_CHARS_MAX:
            raise malformed(f"a $ref has more than {limits.OPENAPI_REFERENCE_SIZE_CHARS_MAX} characters")
        if not reference.startswith("#"):
            raise malformed(f"{shown(reference)} is in another document, which is not read: only '#/...' is followed")
        value: Any = self.root
        for segment in unquote(reference[1:]).split("/")[1:]:
            self._lookups_left -= 1
            if self._lookups_left < 0:
                raise malformed(f"its references lead through more than {limits.OPENAPI_LOOKUPS_MAX} members")
            key = segment.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdecimal() and len(key) < 10 and int(key) < len(value):
                value = value[int(key)]
            else:
                raise malformed(f"{shown(reference)} leads nowhere")
        return value

    def mapping(self, value: Any, where: str) -> Mapping[str, Any]:
        """An object, empty if absent. Raises RequestProblem."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise malformed(f"{where} is {json_kind(value)}, an object is needed")
        return value

    def sequence(self, value: Any, where: str) -> list[Any]:
        """A list, empty if absent. Raises RequestProblem."""
        if value is None:
            return []
        if not isinstance(value, list):
            raise malformed(f"{where} is {json_kind(value)}, a list is needed")
        return value

    def text(self, value: Any, where: str) -> str:
        """A text, empty if absent. Raises RequestProblem."""
        if value is None:
            return ""
        if not isinstance(value, str):
            raise malformed(f"{where} is {json_kind(value)}, a string is needed")
        return value

    def parameters(self, *lists: Any) -> Iterator[Mapping[str, Any]]:
        """The parameters of a path and then of its operation; a later one takes the place of one alike. Raises
        RequestProblem."""
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for each in lists:
            self.check_count(self.sequence(each, "parameters"), "an operation", "parameters")
            for item in self.sequence(each, "parameters"):
                parameter = self.mapping(self.resolved(item), "a parameter")
                name, place = self.text(parameter.get("name"), "name"), self.text(parameter.get("in"), "in")
                if not name or not place:
                    raise malformed("a parameter has no name or no `in`")
                found[name, place] = parameter
        yield from found.values()

    def check_count(
        self, members: Sized, whose: str, what: str, count_max: int = limits.OPENAPI_PARAMETERS_MAX
    ) -> None:
        """Raises RequestProblem where there is more of something than any service has."""
        if len(members) > count_max:
            raise malformed(f"{whose} has more than {count_max} {what}")

    def hint(self, value: Any) -> Mapping[str, Any]:
        """A schema, or whatever else a request can be made without; empty if it is elsewhere, or not what it should
        be."""
        try:
            found = self.resolved(value)
        except RequestProblem:
            return {}
        return found if isinstance(found, dict) else {}

    def properties(self, schema: Any) -> dict[str, Mapping[str, Any]]:
        """The properties that a schema names, its own and those of what it is made of, as far as a bound."""
        found: dict[str, Mapping[str, Any]] = {}
        pending = [schema]
        for _ in range(limits.OPENAPI_SCHEMAS_MAX):
            if not pending:
                break
            part = self.hint(pending.pop())
            properties = part.get("properties")
            for name, value in properties.items() if isinstance(properties, dict) else ():
                if len(found) < limits.OPENAPI_PARAMETERS_MAX:
                    found.setdefault(name, self.hint(value))
            for key in ("allOf", "anyOf", "oneOf"):
                parts = part.get(key)
                pending += parts[: limits.OPENAPI_SCHEMAS_MAX] if isinstance(parts, list) else ()
        return found


def shown(name: str) -> str:
    """A name as texts of problems have it."""
    return repr(name if len(name) <= _NAME_SIZE_CHARS_MAX else name[:_NAME_SIZE_CHARS_MAX] + "…")
