"""Stage 3, journal: what has been folded out of journals (`-wal`) and is kept for the copy elsewhere.

    <data_dir>/replica/                                       there if the runner has a copy elsewhere (`replica/`)
    <data_dir>/replica/shard-0000.db.BOOT.SALTS.FRAMES        a copy of a journal, as far as it was folded

Rules: a name says how many frames are whole. What was kept before the machine was started last proves nothing, for
nobody waited for the disk; nor does what was kept before anybody else has owned the directory. No SQLite in here,
because the supervisor prepares the folder before it forks.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastrunner.engine.embedded.store.manifest import owner_facts

__all__ = ["FOLDER_NAME", "KeptJournal", "is_kept", "kept_journals", "name_of", "prepare"]

FOLDER_NAME: Final = "replica"
"""In the data directory: what the copy elsewhere needs here."""

_OWNER_NAME: Final = "owner"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class KeptJournal:
    """A round of a journal that has been folded, all of it or its beginning."""

    path: Path
    """Where; in the form of a journal."""
    salts: bytes
    """Which round."""
    frames: int
    """How many of its frames."""


def prepare(folder: Path, *, is_wanted: bool, owner_before: bytes) -> None:
    """Has the journals of a data directory kept from now on, or not. Call before its files are opened; raises OSError.

    `owner_before` is what `manifest.owner_facts` said before this process took the directory. If that was nobody who
    kept journals, files may have been written that nobody followed: what was kept before is of no use then.
    """
    place = folder / FOLDER_NAME
    owner = place / _OWNER_NAME
    if not is_wanted or not owner.exists() or owner.read_bytes() != owner_before:
        shutil.rmtree(place, ignore_errors=True)
    if not is_wanted:
        return
    place.mkdir(mode=0o700, exist_ok=True)
    owner.write_bytes(owner_facts(folder))
    for path in folder.glob("*.db"):
        ours = {kept.path for kept in kept_journals(path)}
        for other in place.glob(f"{path.name}.*"):
            if other not in ours:
                other.unlink(missing_ok=True)


def is_kept(path: Path) -> bool:
    """Whether the journal of a file is kept."""
    return (path.parent / FOLDER_NAME).is_dir()


def kept_journals(path: Path) -> list[KeptJournal]:
    """What is kept of a file's journal since the machine was started."""
    found = []
    for kept in (path.parent / FOLDER_NAME).glob(f"{path.name}.{_boot()}.*.*"):
        salts, _, frames = kept.name.removeprefix(f"{path.name}.{_boot()}.").partition(".")
        if frames.isdigit():
            found.append(KeptJournal(kept, bytes.fromhex(salts), int(frames)))
    return found


def name_of(path: Path, salts: bytes, frames: int) -> str:
    """What so many frames of a round of a file's journal are kept as."""
    return f"{path.name}.{_boot()}.{salts.hex()}.{frames}"


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii")[:8]
    except OSError:
        return "0"
