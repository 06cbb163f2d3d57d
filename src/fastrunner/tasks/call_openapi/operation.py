"""Stage 5, tasks: an operation as it is called: what version of a document it came from makes no difference any more.

Rules: immutable and small, so that it is kept without its document.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastrunner.tasks.call_openapi.styles import Style

__all__ = ["Body", "Content", "Operation", "Parameter", "Part", "Requirement"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value of a request that is not its body."""

    name: str
    """As it is sent."""
    location: str
    """`path`, `query`, `header` or `cookie`."""
    style: Style
    """How it is written."""
    is_required: bool = False
    """Whether a request without it is none."""
    default: Any = None
    """What a required one is that is not given; None if it has to be."""
    media_type: str = ""
    """What its value is written as, whole, instead of in a style; empty in general."""
    given_as: tuple[str, ...] = ()
    """The names that a task gives it by, the first that is there counts."""
    is_key: bool = False
    """Whether it proves who calls: a security scheme, no parameter of the operation's own."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a form, as far as the document says."""

    style: Style | None = None
    """None: scalars as text, arrays item by item, the rest as JSON."""
    content_type: str = ""
    """Of a part of several; empty: what follows from its value."""
    is_binary: bool = False
    """Whether it is the content of a file."""
    is_required: bool = False
    """Whether a form without it is none."""
    default: Any = None
    """What a required one is that is not given; None if it has to be."""


@dataclass(frozen=True, slots=True)
class Content:
    """One of the forms a body may have."""

    media_type: str
    """As the document has it, perhaps a range."""
    parts: Mapping[str, Part]
    """What is said of parts of a form, by name."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request."""

    contents: tuple[Content, ...]
    """In the order of the document; at least one."""
    is_required: bool
    """Whether a request without it is none."""
    name: str
    """What a task gives the whole body by; empty if only by its members."""
    is_closed: bool = False
    """Whether it has no other members than its parts."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One security scheme that a request has to satisfy."""

    kind: str
    """`apiKey`, `http`, `oauth2`, `openIdConnect` or what else the document says."""
    key: Parameter | None
    """Where the key of an `apiKey` goes."""
    scopes: tuple[str, ...]
    """Those of `oauth2` and `openIdConnect`."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is called, and how."""

    name: str
    """Its `operationId`."""
    method: str
    """In lower case."""
    base: str
    """The URL of its server, without a slash at the end."""
    path: str
    """With `{name}` in it."""
    parameters: tuple[Parameter, ...]
    """Those of the operation, then the keys of its security schemes."""
    body: Body | None
    """None if it takes none."""
    accept: str
    """What it may answer with, JSON first; empty if the document does not say."""
    security: tuple[tuple[Requirement, ...], ...]
    """Alternatives, of each of which all are required; empty: nothing is."""
