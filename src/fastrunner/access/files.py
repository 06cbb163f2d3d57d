"""Support: files that are read again when they have changed: certificates, tokens, keys.

Rule: whoever reads one compares its signature first and takes up nothing that does not prove usable: a file may be just
being written.
"""

import os
from pathlib import Path

__all__ = ["Signature", "signature_of"]

Signature = tuple[int, int, int, int]


def signature_of(*files: Path | None) -> tuple[Signature | None, ...]:
    """What tells whether files are still the same; None of one that is not there, or cannot be looked at.

    Links are followed: a mounted Kubernetes Secret changes by another link.
    """
    return tuple(None if file is None else _signature(file) for file in files)


def _signature(file: Path) -> Signature | None:
    try:
        facts = os.stat(file)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
