"""Stage 4 of the data path, expressions: compiles and evaluates jq. The contract of the compiled engine.

The engine does no I/O and knows no clock: time (`now_ms`, milliseconds since the epoch) is an argument. JSON values are
Python objects as orjson gives them. No method modifies a value it was given. Equal calls have equal results and cost
equally many steps, whatever was evaluated before and whatever other threads do.
"""

from collections.abc import Sequence
from typing import Any, final

_Json = Any

class ExpressionProblem(ValueError):
    """An expression that does not compile; `offset` counts code points from 0, `line` and `column` from 1."""

    message: str
    offset: int
    line: int
    column: int

    def __init__(self, message: str, offset: int, text: str = "") -> None: ...

class ExpressionError(Exception):
    """An evaluation that failed; `value` is what jq's `catch` would see, the message is its text."""

    value: _Json

    def __init__(self, value: _Json) -> None: ...

class BudgetExceeded(ExpressionError):
    """The evaluation used up its budget; `try` does not catch it, so that no expression outlives its bound."""

class MissingMember(BudgetExceeded):
    """A member was asked for that a guarded object has not; `value` is its name. No `try` and no `//` catches it."""

@final
class Program:
    """A compiled jq expression; immutable, shared between executions. Comes from `compile_expression` alone."""

    text: str
    arguments: tuple[str, ...]
    """Free variables without `$`, in order of first use; evaluation takes their values in this order."""

    def first(self, input: _Json, arguments: Sequence[_Json] = (), now_ms: int = 0) -> _Json:
        """The expression's one value: no result gives None, one result itself, several results a list of them.

        Raises ExpressionError.
        """

    def outputs(self, input: _Json, arguments: Sequence[_Json] = (), now_ms: int = 0) -> list[_Json]:
        """All results in order. Raises ExpressionError; results before the error are lost."""

    def argument_offset(self, name: str) -> int:
        """Code point offset of the first use of a free variable, for problems."""

def compile_expression(text: str) -> Program:
    """Compiles jq text (without `${ }`). Raises ExpressionProblem."""
