"""Support: which generations of a copy go, when another one is whole.

Rules: only those of the same data directory, and none that somebody may still be writing: after a restore elsewhere the
machine that was given up may be back. A generation is whole once it says until when it was written; that goes first.
"""

import re
from collections import defaultdict
from secrets import token_hex
from typing import Final

from fastrunner.base import limits
from fastrunner.blobs import BlobStore, Listed
from fastrunner.replica.parts import ALIVE, FOLDER
from fastrunner.replica.streams import Stream

__all__ = ["generations", "name_after", "tidy"]

_NAME: Final = re.compile(r"(\d{13})-[0-9a-f]{8}")


async def generations(store: BlobStore, directory: str = "") -> dict[tuple[str, str], list[Listed]]:
    """What there is by data directory and generation, in no order. Raises StorageFailed."""
    found: dict[tuple[str, str], list[Listed]] = defaultdict(list)
    async for listed in store.names(f"{FOLDER}/{directory}/" if directory else f"{FOLDER}/"):
        parts = listed.name.split("/")
        if len(parts) == 4:
            found[parts[1], parts[2]].append(listed)
    return dict(found)


async def name_after(store: BlobStore, directory: str, now_ms: int) -> str:
    """The name of a new generation. It sorts behind all that there are, whatever clocks have said meanwhile. Raises
    StorageFailed."""
    moments = [int(found[1]) for _, name in await generations(store, directory) if (found := _NAME.fullmatch(name))]
    return f"{max([now_ms, *(moment_ms + 1 for moment_ms in moments)]):013d}-{token_hex(4)}"


async def tidy(store: BlobStore, stream: Stream) -> None:
    """Deletes old generations of a data directory, now that this one is whole. Raises StorageFailed."""
    there = await generations(store, stream.directory)
    whole = sorted(key for key, names in there.items() if any(each.name.endswith(f"/{ALIVE}") for each in names))
    kept = whole[-limits.REPLICA_GENERATIONS_KEPT :]
    idle_ms = 1000 * limits.REPLICA_GENERATION_IDLE_S_MIN
    written_ms = {key: max(each.modified_ms for each in names) for key, names in there.items()}
    # By the store's own clock: this machine's may be ahead, and somebody may be writing.
    now_ms = max(written_ms.values(), default=0)
    for key, names in there.items():
        if key in kept or key[1] == stream.generation or now_ms - written_ms[key] < idle_ms:
            continue
        for each in sorted(names, key=lambda each: each.name, reverse=True):
            await store.delete(each.name)
