"""Support: whether a folder is still the one that it was: it may be moved, deleted or mounted over while it is used."""

import os
from pathlib import Path
from typing import Final

__all__ = ["GONE", "FolderIdentity", "identity_of"]

FolderIdentity = tuple[int, int]
GONE: Final = (
    "the data directory {} has been moved, deleted or replaced under the runner: put back what was there, or start the "
    "runner anew"
)
"""Of a path, in the words for whoever has done it."""


def identity_of(folder: Path) -> FolderIdentity | None:
    """Device and number of what a path leads to; None if that is nothing, or nothing that can be looked at."""
    try:
        facts = os.stat(folder)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
