"""Support: what tests need that is no Python package: programs to drive, and suites to read.

Rule: a test whose need is absent is skipped, and fails with TESTS_REQUIRE_TOOLS=1, as in CI. `make tools` gets it all.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

__all__ = ["find_suite", "find_tool", "require", "require_tool"]

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = os.environ.get("TESTS_REQUIRE_TOOLS", "") not in ("", "0")
FOLDERS = [os.environ.get("PATH", ""), str(Path(sys.prefix, "bin")), str(ROOT / ".venv" / "bin"), "/usr/sbin"]
"""Where programs are looked for; `make tools` puts those that are no packages beside Python."""


def find_tool(name: str) -> str | None:
    """Where a program is; None if it is absent."""
    return shutil.which(name, path=os.pathsep.join(FOLDERS))


def find_suite(name: str) -> Path:
    """Where `make suites` has put a file or folder; it may be absent."""
    places = [Path(sys.prefix, "share", name), ROOT / ".venv" / "share" / name]
    return next((place for place in places if place.exists()), places[0])


def require(found: object, what: str, *, module: bool = False) -> None:
    """Ends the test (the whole file if `module`) unless `found` is something."""
    if found:
        return
    reason = f"{what} is absent: make tools"
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=module)


def require_tool(name: str) -> str:
    """Where a program is; ends the test if it is absent."""
    path = find_tool(name)
    require(path, name)
    assert path is not None
    return path
