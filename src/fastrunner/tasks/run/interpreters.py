"""Stage 5, tasks: the interpreters of script languages: which program of this machine runs one, and what its file is
called.

Rule: looked for when a script starts, so one that is installed later is found.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from fastrunner.config import Config
from fastrunner.tasks.run.arguments import RunProblem

__all__ = ["FILES", "interpreter"]

FILES: Final = {"js": "script.mjs", "javascript": "script.mjs", "python": "script.py"}
"""Names of the file by language: JavaScript is ECMAScript modules, as `import` needs."""


def interpreter(language: str, config: Config) -> bytes:
    """The path of the program. Raises RunProblem if there is none."""
    given: Path | None
    if language == "python":
        given = config.run_python
        # The one that the runner itself has, without the runner's packages.
        base = getattr(sys, "_base_executable", None)
        found = base if base and os.access(base, os.X_OK) else sys.executable
    else:
        given, found = config.run_node, shutil.which("node")
    path = str(given) if given is not None else found
    if not path:
        raise RunProblem.of_argument(
            "configuration",
            "JavaScript needs `node`, which is not on the runner's PATH: install Node.js, or set FASTRUNNER_RUN_NODE",
        )
    return os.fsencode(os.path.abspath(path))
