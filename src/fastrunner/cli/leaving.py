"""Support: how a command ends that has used Temporal's library, or has a thread that may hang."""

import os
import sys
from typing import NoReturn

__all__ = ["leave"]


def leave(code: int) -> NoReturn:
    """Ends the process without ending the interpreter, to which a thread of Temporal's library may come back just then,
    and abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
