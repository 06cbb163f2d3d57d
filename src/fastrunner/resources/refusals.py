"""Stage 2, compile: what there is at a URL, or why a text cannot be had."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Answer", "Unresolved"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is at a URL."""

    url: str
    """Where it is, after redirects."""
    body: bytes | None
    """Its bytes; None for what has not changed."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The server's, by names in any case; repeated ones joined by a comma."""


class Unresolved(Exception):
    """A text that cannot be had; the message is a clause that follows its URL."""

    def __init__(self, why: str, *, is_transient: bool = False, status: int = 0, type_: str = "communication") -> None:
        super().__init__(why)
        self.is_transient = is_transient
        """Whether it may be had later."""
        self.status = status
        """What a server answered; 0 if none did."""
        self.type = type_
        """The DSL error's short name, where a call needed the text."""
