"""Support: no dump of a process's memory is written: it would hold secrets, tokens, and what callers have sent.

Rules: called in the supervisor before it forks, so that every process is covered from its first moment. No image means
none: a limit of 0 bytes keeps the kernel from writing a file, but not from feeding a program that takes dumps
(`systemd-coredump`, `apport`), which it does for every limit but 1.
"""

import ctypes
import resource
import sys
from typing import Final

from fastrunner.config import Config, Environment

__all__ = ["forbid_dumps"]

_PR_SET_DUMPABLE: Final = 4
_NO_DUMP_SIZE_BYTES: Final = 1


def forbid_dumps(config: Config) -> None:
    """No core dump of this process and its children from here on.

    Outside ENV=local, or with a key that seals the data directory, debuggers of the same user are kept out as well.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    enough = hard in (resource.RLIM_INFINITY, _NO_DUMP_SIZE_BYTES) or hard > _NO_DUMP_SIZE_BYTES
    bound = _NO_DUMP_SIZE_BYTES if enough else hard
    resource.setrlimit(resource.RLIMIT_CORE, (bound, bound))
    if config.env is not Environment.LOCAL or config.data_key_file is not None or not enough:
        _forbid_tracing()


def _forbid_tracing() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
