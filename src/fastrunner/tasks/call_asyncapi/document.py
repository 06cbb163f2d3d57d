"""Stage 5, tasks: an AsyncAPI document, 2.x or 3.0, as far as calls need it: servers, channels, operations, messages.

Theory of operation: both versions become one form. What 2.x calls the `publish` of a channel is what others may publish
there, and so what a message is published by; `subscribe` is what messages are received by. Of 3.0 an operation is taken
as it is, whichever side its `action` speaks for, because documents are written from either. Local references are
followed where a value is looked at, so nothing of the document is copied, and none leads round in circles for long.

Rules: pure. Whatever is read may be of any type: what is not as the specification has it is a ConfigurationProblem that
names the place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastrunner._core import InvalidWorkflow, load
from fastrunner.base import limits
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["Application", "ConfigurationProblem", "Operation", "Server", "read_document"]

Section = Mapping[str, Any]
_NOTHING: Section = {}
_NAMES_SHOWN_MAX = 10


class ConfigurationProblem(CallProblem):
    """A document, or a choice from it, that leads to no call."""

    type = "configuration"

    def __init__(self, sentence: str, title: str = "Not As Described") -> None:
        super().__init__(title, sentence, 400)


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the document."""

    name: str
    """Its key."""
    protocol: str
    """In lower case."""
    location: str
    """Host, perhaps with port, and path; variables in braces. 2.x has a scheme, too."""
    section: Section
    """The rest as the document has it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a call performs: a channel, and what the document says of messages there."""

    channel: str
    """Its key."""
    address: str
    """Parameters in braces."""
    servers: tuple[str, ...]
    """Keys of those that have the channel, in the document's order."""
    sections: Mapping[str, Section] = field(default_factory=dict)
    """`channel`, `operation` and `message` as the document has them, traits applied."""
    content_type: str = "application/json"
    """Of the message, if nothing else says it."""


def read_document(text: str, url: str) -> "Application":
    """Raises ConfigurationProblem."""
    try:
        root = load(text)
    except InvalidWorkflow as refused:
        reason = refused.problems[0].message if refused.problems else "it cannot be read"
        raise ConfigurationProblem(f"{url} is neither YAML nor JSON: {reason}") from None
    version = root.get("asyncapi") if isinstance(root, dict) else None
    if not isinstance(version, str) or version.split(".")[0] not in ("2", "3"):
        raise ConfigurationProblem(
            f"{url} is no AsyncAPI document of version 2 or 3: its `asyncapi` is {version!r:.40}"
        )
    return Application(root, url, is_3=version.startswith("3"))


class Application:
    """A described application."""

    def __init__(self, root: Section, url: str, *, is_3: bool) -> None:
        self._root = root
        self._url = url
        self.is_3 = is_3

    # --- servers ---

    def servers(self) -> dict[str, Server]:
        """All by their keys. Raises ConfigurationProblem."""
        return {name: self._server(name, each) for name, each in self.members(self._root, "servers", "").items()}

    def _server(self, name: str, section: Section) -> Server:
        where = f"servers/{name}"
        protocol = self.text(section, "protocol", where)
        location = self.text(section, "host" if self.is_3 else "url", where)
        if self.is_3:
            location += self.text(section, "pathname", where, is_required=False)
        return Server(name, protocol.lower(), location, section)

    # --- operations ---

    def operation(self, name: str) -> Operation:
        """Of a 3.0 document, by its key. Raises ConfigurationProblem."""
        if not self.is_3:
            raise self.problem("", "has version 2, which has channels: name the `channel` instead of an operation")
        operation = self._chosen("operations", name, "operation")
        pointer = self._pointer(operation.get("channel"), f"operations/{name}/channel")
        if not pointer.startswith("#/channels/"):
            raise self.problem(f"operations/{name}/channel", "refers to none of the document's `channels`")
        key = _unescaped(pointer.removeprefix("#/channels/"))
        channel = self._chosen("channels", key, "channel")
        address = channel.get("address")
        if not isinstance(address, str):
            raise self.problem(f"channels/{key}/address", "has no text: where messages go is not known")
        messages = self.items(operation, "messages", f"operations/{name}")
        if not messages:
            messages = list(self.members(channel, "messages", f"channels/{key}").values())
        return self._made(key, address, channel, operation, messages)

    def channel(self, name: str, verb: str) -> Operation:
        """A channel's `publish` or `subscribe` in a 2.x document. Raises ConfigurationProblem."""
        if self.is_3:
            raise self.problem("", "has version 3, which has operations: name the `operation` instead of a channel")
        channel = self._chosen("channels", name, "channel")
        operation = self.member(channel, verb, f"channels/{name}")
        if operation is None:
            done = "published there" if verb == "publish" else "received from there"
            raise self.problem(f"channels/{name}", f"has no `{verb}`: nothing can be {done}")
        message = self.member(operation, "message", f"channels/{name}/{verb}")
        choices = self.items(message, "oneOf", f"channels/{name}/{verb}/message") if message else []
        return self._made(name, name, channel, operation, choices or ([message] if message else []))

    def _made(self, key: str, address: str, channel: Section, operation: Section, messages: list[Section]) -> Operation:
        message = self._with_traits(messages[0], "message") if messages else _NOTHING
        content_type = message.get("contentType") or self._root.get("defaultContentType") or "application/json"
        if not isinstance(content_type, str):
            raise self.problem(f"channels/{key}", "has a message whose contentType is no text")
        sections = {"channel": channel, "operation": self._with_traits(operation, "operation"), "message": message}
        return Operation(key, address, self._servers_of(channel, key), sections, content_type)

    def _servers_of(self, channel: Section, key: str) -> tuple[str, ...]:
        named = channel.get("servers")
        names = tuple(self.servers())
        if not named or not isinstance(named, list):
            return names
        if not self.is_3:
            chosen = {each for each in named if isinstance(each, str)}
        else:
            pointers = [self._pointer(each, f"channels/{key}/servers") for each in named]
            chosen = {_unescaped(pointer.removeprefix("#/servers/")) for pointer in pointers}
        return tuple(name for name in names if name in chosen)

    def _with_traits(self, section: Section, what: str) -> Section:
        """2.x: traits overrule; 3.0: they are overruled."""
        merged: dict[str, Any] = {}
        for trait in self.items(section, "traits", what):
            merged |= trait
        return {**merged, **section} if self.is_3 else {**section, **merged}

    def _chosen(self, kind: str, name: str, what: str) -> Section:
        choices = self.members(self._root, kind, "")
        if name not in choices:
            known = ", ".join(sorted(choices)[:_NAMES_SHOWN_MAX]) or "none"
            raise self.problem("", f"has no {what} {name!r:.100}; it has {known}")
        return choices[name]

    # --- values, whatever they are ---

    def problem(self, where: str, sentence: str) -> ConfigurationProblem:
        """What is wrong with a place of the document."""
        return ConfigurationProblem(f"{self._url}#/{where} {sentence}" if where else f"{self._url} {sentence}")

    def member(self, holder: Section, key: str, where: str) -> Section | None:
        """An object in it, references followed; None if there is none. Raises ConfigurationProblem."""
        value = holder.get(key)
        return None if value is None else self.section(value, f"{where}/{key}".lstrip("/"))

    def members(self, holder: Section, key: str, where: str) -> dict[str, Section]:
        """Objects in an object in it. Raises ConfigurationProblem."""
        found = self.member(holder, key, where) or _NOTHING
        return {name: self.section(each, f"{where}/{key}/{name}".lstrip("/")) for name, each in found.items()}

    def items(self, holder: Section, key: str, where: str) -> list[Section]:
        """Objects in an array in it. Raises ConfigurationProblem."""
        found = holder.get(key)
        if found is None:
            return []
        if not isinstance(found, list):
            raise self.problem(f"{where}/{key}".lstrip("/"), "is no array")
        return [self.section(each, f"{where}/{key}") for each in found]

    def text(self, holder: Section, key: str, where: str, *, is_required: bool = True) -> str:
        """Raises ConfigurationProblem."""
        value = holder.get(key)
        if value is None and not is_required:
            return ""
        if not isinstance(value, str) or (is_required and not value):
            raise self.problem(f"{where}/{key}", "is no text")
        return value

    def section(self, value: Any, where: str) -> Section:
        """An object, references followed. Raises ConfigurationProblem."""
        for _ in range(limits.ASYNCAPI_REFERENCES_MAX):
            if not isinstance(value, dict):
                raise self.problem(where, "is no object")
            if "$ref" not in value:
                return value
            value = self._at(self._pointer(value, where), where)
        raise self.problem(where, f"leads over more than {limits.ASYNCAPI_REFERENCES_MAX} references")

    def _pointer(self, value: Any, where: str) -> str:
        reference = value.get("$ref") if isinstance(value, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise self.problem(where, "is no reference within the document (`#/...`): no other one is followed")
        return reference

    def _at(self, pointer: str, where: str) -> Any:
        value: Any = self._root
        for part in pointer[2:].split("/"):
            value = value.get(_unescaped(part)) if isinstance(value, dict) else None
        if value is None:
            raise self.problem(where, f"refers to {pointer:.200}, where nothing is")
        return value

    # --- what else calls ask for ---

    def bindings(self, protocols: tuple[str, ...], sections: Mapping[str, Section]) -> dict[str, Section]:
        """Of each section what it says for a protocol, which may have several names. Raises ConfigurationProblem."""
        found: dict[str, Section] = {}
        for name, section in sections.items():
            each = self.member(section, "bindings", name) or _NOTHING
            of_protocol = [self.member(each, protocol, f"{name}/bindings") for protocol in protocols]
            found[name] = next((binding for binding in of_protocol if binding is not None), _NOTHING)
        return found

    def security(self, server: Server, operation: Operation) -> tuple[Section, ...]:
        """The security schemes in force; any of them suffices. Raises ConfigurationProblem."""
        for section in (operation.sections["operation"], server.section):
            required = section.get("security")
            if isinstance(required, list) and required:
                return tuple(self._schemes(required))
        return ()

    def _schemes(self, required: list[Any]) -> Iterator[Section]:
        components = self.member(self._root, "components", "") or _NOTHING
        known = self.members(components, "securitySchemes", "components")
        for each in required:
            if self.is_3:
                yield self.section(each, "security")
                continue
            for name in each if isinstance(each, dict) else ():
                if name not in known:
                    raise self.problem("security", f"names the scheme {name!r:.100}, which is not there")
                yield known[name]


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
