"""Stage 5, tasks: policies as rendered, and the problems they have.

Rules: a policy comes from a document, from data or from a secret, so every field is checked here, where it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["Authorization", "CredentialsProblem", "malformed", "names", "section", "text"]


class CredentialsProblem(CallProblem):
    """A call that could not be authenticated."""

    def __init__(self, type_: str, status: int, title: str, sentence: str) -> None:
        super().__init__(title, sentence, status)
        self.type = type_


@dataclass(frozen=True, slots=True)
class Authorization:
    """What an Authorization header says."""

    scheme: str
    """`Basic`, `Bearer` or `Digest`."""
    parameter: str | None
    """What follows it; None where a challenge of the server decides on it."""

    @property
    def header(self) -> str:
        """The header's value."""
        return f"{self.scheme} {self.parameter}"


def malformed(scheme: str, sentence: str) -> CredentialsProblem:
    """The problem of a policy that says too little, or what it cannot."""
    return CredentialsProblem("configuration", 400, "Invalid Authentication", f"{scheme}: {sentence}")


def text(scheme: str, fields: Mapping[str, Any], name: str, *, is_required: bool = True) -> str:
    """A field's text, empty if it is not given and need not be. Raises CredentialsProblem."""
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        # `password: "123"` of a document in loose mode, or of a structured secret.
        return str(value)
    if value is None or value == "":
        if is_required:
            raise malformed(scheme, f"{name} is missing or empty")
        return ""
    if not isinstance(value, str):
        raise malformed(scheme, f"{name} is not a string")
    if any(ord(character) < 32 or ord(character) == 127 for character in value) and name in ("token", "username"):
        raise malformed(scheme, f"{name} has a control character")
    return value


def names(scheme: str, fields: Mapping[str, Any], name: str) -> list[str]:
    """A field's list of texts, empty if it is not given. Raises CredentialsProblem."""
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise malformed(scheme, f"{name} is not a list of strings")
    return value


def section(scheme: str, fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A field's object, empty if it is not given. Raises CredentialsProblem."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed(scheme, f"{name} is not an object")
    return value
