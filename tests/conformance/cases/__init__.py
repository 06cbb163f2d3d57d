"""Support: how each of the specification's examples is executed, and what must come of it.

The documents are the shared ones, as they are. Where one does not do what its author means, `fault` says why, and what
is asserted is what it does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CLOSE", "HOUR", "Case", "Completed", "Failed", "Listening", "Outcome", "error_type", "event"]

HOUR = "an hour passes"
CLOSE = "the service closes the connection"
_SHOWN_CHARS_MAX = 110


@dataclass(frozen=True, slots=True)
class Completed:
    """It ends with this output."""

    output: Any
    made: frozenset[str] = frozenset()
    """Members of the output that the runner makes up, which `output` is without."""

    def __str__(self) -> str:
        return f"completes with {_shown(self.output)}"


@dataclass(frozen=True, slots=True)
class Failed:
    """It ends with an error that has at least these members."""

    error: Mapping[str, Any]

    def __str__(self) -> str:
        error = self.error
        return f"fails: `{error['type'].rpartition('/')[2]}` {error['status']} at `{error['instance']}`"


@dataclass(frozen=True, slots=True)
class Listening:
    """It has asked and published all that it is to, and goes on; somebody has to cancel it."""

    def __str__(self) -> str:
        return "goes on until it is cancelled"


Outcome = Completed | Failed | Listening


@dataclass(frozen=True, slots=True)
class Case:
    """One execution of one example."""

    example: str
    """Its file without the suffix."""
    outcome: Outcome
    """How it ends."""
    shows: str = ""
    """What this case is of; empty: the plain one."""
    fault: str = ""
    """Why the document does not do what its author means; empty: it does."""
    input: Any = field(default_factory=dict)
    """What it is given; unused where a schedule starts it."""
    events: Sequence[Mapping[str, Any]] = ()
    """CloudEvents that are sent once it listens, or once its schedule is added."""
    asked: Sequence[str] = ()
    """Every request to a host, in order (see `Hosts.asked`)."""
    is_asked_at_once: bool = False
    """Whether they come in any order."""
    emitted: Sequence[Mapping[str, Any]] = ()
    """CloudEvents it publishes, without `id` and `time`."""
    registered: Sequence[str] = ()
    """Definitions that it runs."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """See `Hosts.moved`."""
    busy_count: Mapping[str, int] = field(default_factory=dict)
    """See `Hosts.busy_count`."""
    notifications: Sequence[Any] = ()
    """Messages for whoever subscribes, with HOUR and CLOSE between them."""
    containers: Sequence[str] = ()
    """Names of the containers it leaves."""
    needs: str = ""
    """A program that it needs, or a stand-in that is no host: `podman`, `node`, `greeter`, `npx`."""

    def __str__(self) -> str:
        return f"{self.example}: {self.shows}" if self.shows else self.example


def error_type(name: str) -> str:
    """The normative type of a standard error."""
    return f"https://open-workflow-specification.org/spec/1.0.0/errors/{name}"


def event(number: int, type: str, data: Any, **attributes: Any) -> dict[str, Any]:
    """A CloudEvent."""
    return {"specversion": "1.0", "id": str(number), "source": "/tests", "type": type, "data": data, **attributes}


def _shown(value: Any) -> str:
    text = json.dumps(value, separators=(", ", ": "))
    return f"`{text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + ' ...'}`"
