"""Support: which code runs, and whether the same is on disk still.

The supervisor has its modules from when it started, and a child imports most of its own when it is forked, which may be
weeks later. If the package was upgraded meanwhile, such a child would be made of two versions, beside siblings of the
older: so it refuses to start, and the runner goes on with what it has until somebody restarts it.

Rules: no grpc, no threads and no event loop here, because the supervisor uses it before every fork.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Final, Self

import fastrunner
from fastrunner.processes.link import ExitCode, StartError

_FOLDER: Final = Path(fastrunner.__file__).parent
_DISTRIBUTION: Final = "fastrunner"
_SOURCES: Final = frozenset({".c", ".pxd", ".pxi", ".pyi", ".pyx"})
"""What extensions are made from: it lies beside them in a checkout, is as large as they are, and nothing runs it."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the code on disk was made of at one moment."""

    states: dict[str, tuple[int, int]]
    """Size and time of change of every file of the package. As long as they are the same, nobody reads the files."""
    digests: dict[str, str]
    """Of what is in them."""
    versions: dict[str, str]
    """Of the packages that this one needs."""

    @classmethod
    def take(cls) -> Self:
        """Of the code on disk now."""
        return cls(_states(), _digests(), _versions())

    def refuse_other(self) -> None:
        """Raises StartError if other code is on disk now; the message says where it differs."""
        then = {**self.digests, **self.versions}
        # A file that was only touched is the same code.
        now = {**(self.digests if _states() == self.states else _digests()), **_versions()}
        names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise StartError(
                ExitCode.BOOT,
                f"the package on disk is another than the one running ({names[0]}{more}): restart the runner",
            )


def _files() -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(_FOLDER):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = Path(folder, name)
            # Editors and installers leave files beside ours that nobody imports.
            if not name.startswith(".") and path.suffix not in _SOURCES:
                yield str(path.relative_to(_FOLDER)), path


def _states() -> dict[str, tuple[int, int]]:
    found = {}
    for name, path in _files():
        # What vanishes meanwhile is missing, which is a difference.
        with contextlib.suppress(OSError):
            state = path.stat()
            found[name] = (state.st_size, state.st_mtime_ns)
    return found


def _digests() -> dict[str, str]:
    found = {}
    for name, path in _files():
        with contextlib.suppress(OSError):
            found[name] = blake2b(path.read_bytes()).hexdigest()
    return found


def _versions() -> dict[str, str]:
    """None where the package runs from its sources without being installed: nothing says what it needs."""
    found = {}
    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires(_DISTRIBUTION) or []:
            name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
    return found
