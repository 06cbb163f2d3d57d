"""Support: whether a folder or file is still the one that it was: it may be moved, deleted or mounted over."""

import os
from pathlib import Path
from typing import Final

__all__ = ["GONE", "Identity", "identity_of"]

Identity = tuple[int, int]
GONE: Final = (
    "{} has been moved, deleted or replaced under the runner: put back what was there, or start the runner anew"
)
"""Of what, in the words for whoever has done it."""


def identity_of(path: Path) -> Identity | None:
    """Device and number of what a path leads to; None if that is nothing, or nothing that can be looked at."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
