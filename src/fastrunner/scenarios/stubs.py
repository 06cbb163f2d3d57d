"""Support: what answers in the place of calls, runs and subflows.

Rules: stubs of a task answer in their order; the last one answers whatever else comes, unless it says how many times.
A call that none answers, and a stub that answers none, are faults of the scenario.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastrunner.scenarios.files import Stub
from fastrunner.scenarios.verdict import differences

__all__ = ["NoStub", "Stubs"]


class NoStub(Exception):
    """Nothing answers a call; the message says which, and with what arguments."""


class Stubs:
    """The stubs of one execution."""

    def __init__(self, stubs: Sequence[Stub]) -> None:
        self._stubs = stubs
        self._left = [self._times(index) for index in range(len(stubs))]
        self._used = [0] * len(stubs)

    def _times(self, index: int) -> float:
        stub = self._stubs[index]
        if stub.times is not None:
            return stub.times
        has_successor = any(later.task == stub.task for later in self._stubs[index + 1 :])
        return 1 if has_successor else float("inf")

    def answer(self, reference: str, arguments: Mapping[str, Any]) -> Stub:
        """The stub for one call. Raises NoStub."""
        reasons = []
        for index, stub in enumerate(self._stubs):
            if not _is_of(stub, reference):
                continue
            if not self._left[index]:
                reasons.append(f"stub {index} has answered {self._used[index]} times")
                continue
            wrong = [] if stub.expect is None else list(differences(stub.expect, arguments, subset=True))
            if wrong:
                reasons.append(f"stub {index} expects something else: {wrong[0]}")
                continue
            self._left[index] -= 1
            self._used[index] += 1
            return stub
        why = "; ".join(reasons) or "there is none for it"
        raise NoStub(f"task {reference} was performed with {_shown(arguments)}, and no stub answers: {why}")

    def unused(self) -> list[str]:
        """Sentences about those that have answered fewer times than they say, or never."""
        found = []
        for index, stub in enumerate(self._stubs):
            wanted = stub.times or 1
            if self._used[index] < wanted:
                found.append(f"stub {index} ({stub.task}) has answered {self._used[index]} of {wanted} times")
        return found


def _is_of(stub: Stub, reference: str) -> bool:
    return stub.task == reference or (not stub.task.startswith("/") and stub.task == name_of(reference))


def name_of(reference: str) -> str:
    """The name of a task, by its JSON pointer."""
    return reference.rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def _shown(arguments: Mapping[str, Any]) -> str:
    import orjson

    text = orjson.dumps(arguments, default=str).decode()
    return text if len(text) <= 500 else f"{text[:500]}..."
