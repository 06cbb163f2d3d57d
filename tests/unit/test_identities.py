"""Identities: the second copy of a shard's ids: what is appended is read again, torn, damaged and foreign files are
told apart, and no id is lost that was committed."""

import os
import resource
import signal
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner.base import limits
from fastrunner.engine.embedded.store import identities as module
from fastrunner.engine.embedded.store.identities import Contents, Identities
from tests.properties import examples

KEY = bytes(range(16))
HEADER_SIZE_BYTES = 56
BLOCK_SIZE_BYTES = 16 + 3 * 8
"""Of three hashes."""
BLOCKS = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def packed(hashes: Sequence[int]) -> bytes:
    return array("Q", hashes).tobytes()


def numbers(contents: Contents) -> list[int]:
    return array("Q", contents.hashes).tolist()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three blocks."""
    made = tmp_path / "shard-0000.ids"
    writer = Identities(made, KEY)
    writer.rewrite(b"")
    for hashes in BLOCKS:
        writer.append(hashes)
    writer.close()
    assert made.stat().st_size == HEADER_SIZE_BYTES + 3 * BLOCK_SIZE_BYTES
    return made


def read(path: Path, key: bytes = KEY) -> Contents:
    return Identities(path, key).read()


@pytest.fixture
def wide_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


# --- what is written is read ---


def test_new_file_wants_to_be_written(tmp_path: Path) -> None:
    opened = Identities(tmp_path / "shard-0000.ids", KEY)
    assert opened.open() == Contents(b"", "it is missing")
    with pytest.raises(ValueError, match=r"shard-0000\.ids is not open, or not whole"):
        opened.append([1])
    assert os.listdir(tmp_path) == []


def test_blocks_are_read_in_their_order(path: Path) -> None:
    """By another process, by whoever opens it next, and after that one appended."""
    assert numbers(read(path)) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    successor = Identities(path, KEY)
    contents = successor.open()
    assert contents.is_whole
    assert contents.hash_count == 9
    successor.append([(1 << 48) - 1])
    successor.append([])
    assert numbers(read(path))[9:] == [(1 << 48) - 1]
    successor.close()


def test_rewriting_leaves_what_it_was_given(path: Path) -> None:
    opened = Identities(path, KEY)
    opened.open()
    opened.rewrite(packed([5, 5, 6]))
    opened.append([7])
    assert numbers(read(path)) == [5, 5, 6, 7]
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.usefixtures("wide_umask")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Whatever the umask, and what lay there before."""
    (tmp_path / "shard-0000.ids.new").write_bytes(b"left behind")
    opened = Identities(tmp_path / "shard-0000.ids", KEY)
    opened.rewrite(b"")
    assert (tmp_path / "shard-0000.ids").stat().st_mode & 0o777 == 0o600
    os.umask(0o777)
    opened.rewrite(b"")
    assert (tmp_path / "shard-0000.ids").stat().st_mode & 0o777 == 0o600
    assert read(tmp_path / "shard-0000.ids").is_whole


def test_key_does_not_stand_in_it(path: Path) -> None:
    assert KEY not in path.read_bytes()


# --- what is torn ---


@pytest.mark.parametrize("left", range(BLOCK_SIZE_BYTES))
def test_torn_end_is_dropped_silently(path: Path, left: int) -> None:
    """And whoever goes on there overwrites it."""
    os.truncate(path, HEADER_SIZE_BYTES + 2 * BLOCK_SIZE_BYTES + left)
    assert read(path) == Contents(packed([1, 2, 3, 4, 5, 6]), "")
    successor = Identities(path, KEY)
    successor.open()
    successor.append([10])
    successor.close()
    assert read(path) == Contents(packed([1, 2, 3, 4, 5, 6, 10]), "")


def test_writer_killed_at_any_moment_leaves_all_that_it_committed(path: Path) -> None:
    """It tells after each append, as a commit would."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fastrunner.engine.embedded.store.identities import Identities\n"
        f"opened = Identities(Path(sys.argv[1]), {KEY!r})\n"
        "assert opened.open().is_whole\n"
        "for number in range(10**9):\n"
        "    opened.append(range(1000 * number, 1000 * number + 1000))\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if line == "20\n":
                writer.send_signal(signal.SIGKILL)
        written = int(line)
    contents = read(path)
    assert contents.is_whole
    assert numbers(contents)[9 : 9 + 1000 * (written + 1)] == list(range(1000 * (written + 1)))


def test_disk_that_takes_a_part_of_a_block(path: Path) -> None:
    """The append fails, and the next one does not follow from what it left."""
    opened = Identities(path, KEY)
    opened.open()
    size_bytes = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + 100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            opened.append(range(50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == size_bytes + 100
    assert read(path).hash_count == 9
    opened.append([10])
    assert numbers(read(path)) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert read(path).is_whole
    opened.close()


# --- what is damaged ---


@given(at=st.integers(HEADER_SIZE_BYTES, HEADER_SIZE_BYTES + 3 * BLOCK_SIZE_BYTES - 1), bit=st.integers(0, 7))
@examples(100)
def test_any_flipped_bit_is_told(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    """And costs one block."""
    path = tmp_path_factory.mktemp("ids") / "shard-0000.ids"
    writer = Identities(path, KEY)
    writer.rewrite(b"")
    for hashes in BLOCKS:
        writer.append(hashes)
    writer.close()
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)
    damaged = (at - HEADER_SIZE_BYTES) // BLOCK_SIZE_BYTES
    contents = read(path)
    assert contents.trouble == f"it is damaged at byte {HEADER_SIZE_BYTES + damaged * BLOCK_SIZE_BYTES}"
    assert numbers(contents) == [each for place, hashes in enumerate(BLOCKS) if place != damaged for each in hashes]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda content: content[: HEADER_SIZE_BYTES + 40] + content[HEADER_SIZE_BYTES + 80 :], [1, 2, 3]),
        (lambda content: content + bytes(40), [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (lambda content: content + bytes(3), [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (lambda content: content + content[HEADER_SIZE_BYTES:], [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (lambda content: content[:HEADER_SIZE_BYTES] + bytes(120), []),
    ],
    ids=["a block is missing", "zeros follow", "few zeros follow", "blocks of another place follow", "zeros"],
)
def test_other_damage_is_told(path: Path, change: Callable[[bytes], bytes], left: list[int]) -> None:
    path.write_bytes(change(path.read_bytes()))
    contents = read(path)
    assert contents.trouble.startswith("it is damaged at byte")
    assert numbers(contents) == left
    opened = Identities(path, KEY)
    assert opened.open() == contents
    with pytest.raises(ValueError, match="not whole"):
        opened.append([1])


def test_damage_costs_no_more_than_a_block(tmp_path: Path) -> None:
    """Of a file that was written anew, too."""
    path = tmp_path / "shard-0000.ids"
    count = 3 * limits.IDENTITIES_BLOCK_COUNT
    Identities(path, KEY).rewrite(packed(range(count)))
    assert read(path) == Contents(packed(range(count)), "")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert read(path).hash_count == count - limits.IDENTITIES_BLOCK_COUNT
    assert not read(path).is_whole


# --- what is foreign ---


def test_file_of_another_key(path: Path) -> None:
    assert read(path, bytes(16)) == Contents(b"", "it is of another runner's key")


@pytest.mark.parametrize("content", [b"", b"FRIDS", bytes(56), b"something else" * 10])
def test_what_is_no_file_of_ids(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read(path) == Contents(b"", "it is no file of ids, or its beginning is damaged")


@pytest.mark.parametrize("at", range(0, HEADER_SIZE_BYTES, 5))
def test_damaged_header(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)
    assert "its beginning is damaged" in read(path).trouble


def test_file_of_another_boot(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not synced, so its end may be missing; what is there is told."""
    boot = tmp_path / "boot_id"
    boot.write_text("12345678-1234-1234-1234-123456789012\n")
    monkeypatch.setattr(module, "_BOOT", boot)
    contents = read(path)
    assert "the machine was restarted" in contents.trouble
    assert contents.hash_count == 9
    opened = Identities(path, KEY)
    opened.open()
    opened.rewrite(contents.hashes)
    assert read(path).is_whole


def test_misuse_is_told(path: Path) -> None:
    opened = Identities(path, KEY)
    opened.open()
    for hashes in ([1 << 48], [1, -1]):
        with pytest.raises(ValueError, match="hashes have 48 bits"):
            opened.append(hashes)
    with pytest.raises(ValueError, match="hashes has 7 bytes"):
        opened.rewrite(bytes(7))
    assert read(path).hash_count == 9
    opened.close()
