"""Stage 5, tasks: the descriptions that a worker keeps, by where they are and who asked.

Rules: pure, no I/O. Bounded in number and in bytes, the least recently used goes first. Equal texts are kept once,
wherever they came from. Who asked is a hash of the policy, with a key that no other process has: nothing is kept that
proves anything.
"""

import hashlib
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastrunner.base import limits
from fastrunner.resources.freshness import Freshness
from fastrunner.tasks.descriptions import Description

__all__ = ["Kept", "KeptDescriptions"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A description that was fetched."""

    description: Description
    """What it is."""
    freshness: Freshness
    """What the server said of it."""
    fresh_until_s: float
    """Until when it is good without asking, on the monotonic clock."""


class KeptDescriptions:
    """What one worker keeps."""

    def __init__(self) -> None:
        self._hash_key = os.urandom(32)
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._texts: dict[bytes, str] = {}
        self._uses: dict[bytes, int] = {}
        self.size_bytes = 0
        """Memory that the texts take."""

    def __len__(self) -> int:
        return len(self._kept)

    def key_of(self, url: str, policy: Mapping[str, Any] | None) -> bytes:
        """What a description is kept by: the same for equal policies, whatever the order of their fields."""
        asked = json.dumps([url, policy], sort_keys=True).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(asked, key=self._hash_key, digest_size=32).digest()

    def find(self, key: bytes) -> Kept | None:
        """What is kept, fresh or not."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, key: bytes, kept: Kept) -> None:
        """Keeps one in place of what there was; others go where there is no room."""
        self.drop(key)
        description = kept.description
        text = self._texts.setdefault(description.digest, description.text)
        if description.digest not in self._uses:
            self.size_bytes += sys.getsizeof(text)
        self._uses[description.digest] = self._uses.get(description.digest, 0) + 1
        shared = Description(description.url, text, description.digest)
        self._kept[key] = Kept(shared, kept.freshness, kept.fresh_until_s)
        while (
            len(self._kept) > limits.DESCRIPTIONS_KEPT_MAX or self.size_bytes > limits.DESCRIPTIONS_KEPT_SIZE_BYTES_MAX
        ):
            self.drop(next(iter(self._kept)))

    def drop(self, key: bytes) -> None:
        """Keeps one no longer."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        digest = kept.description.digest
        self._uses[digest] -= 1
        if not self._uses[digest]:
            del self._uses[digest]
            self.size_bytes -= sys.getsizeof(self._texts.pop(digest))
