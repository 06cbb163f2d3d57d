"""Stage 5, tasks: what describes a service that is called: OpenAPI and AsyncAPI documents, .proto files, agents' cards.

Rule: performers get them from here and nowhere else, so that one place judges, bounds and keeps them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Description", "Descriptions", "NoDescription"]


@dataclass(frozen=True, slots=True)
class Description:
    """A text that describes a service."""

    url: str
    """Where it is, after redirects: relative references in it start from here."""
    text: str
    """Its text, without a byte order mark."""
    digest: bytes
    """SHA-256 of its bytes: whatever is made of a description may be kept by it."""


class NoDescription(Exception):
    """A description that cannot be had; the message is a sentence that names its URL and says why."""

    def __init__(self, sentence: str, *, is_transient: bool, status: int = 0, type_: str = "communication") -> None:
        super().__init__(sentence)
        self.is_transient = is_transient
        """Whether it may be had later."""
        self.status = status
        """What a server answered, or that of the error where nobody was asked; 0 if there is none."""
        self.type = type_
        """The DSL error's short name: `communication` but where the runner may not ask, or cannot prove who does."""


class Descriptions(Protocol):
    """Where descriptions come from."""

    async def get(self, resource: Mapping[str, Any]) -> Description:
        """What a rendered resource, `uri` and perhaps `authentication`, leads to. Raises NoDescription."""
