"""Support: values sealed with the keys of a file: what opens them, what does not, and what a key file may be."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fastrunner.access.sealing import (
    DataKeys,
    KeyFileRefused,
    NotOpened,
    Sealer,
    add_key,
    bytes_of_text,
    is_sealed,
    is_sealed_text,
    sealed_with,
)
from fastrunner.base import limits

OLD, NEW = "11" * 32, "22" * 32


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> DataKeys:
    return DataKeys.read(write(tmp_path / "keys", f"# the newer one first\nnew {NEW}\n\nold {OLD}\n"))


def test_what_is_sealed_opens_in_its_place_alone(keys: DataKeys) -> None:
    sealer = Sealer(keys)
    sealed = sealer.seal(b"value", b"input one")
    assert is_sealed(sealed)
    assert b"value" not in sealed
    assert sealed_with(sealed) == "new"
    assert sealer.open(sealed, b"input one") == b"value"
    for place in (b"input two", b"env one", b""):
        with pytest.raises(NotOpened, match="not what was written there"):
            sealer.open(sealed, place)
    text = sealer.seal_text('{"ä": 1}', b"output one")
    assert is_sealed_text(text)
    assert sealer.open_text(text, b"output one") == '{"ä": 1}'


def test_a_second_key_opens_and_the_first_seals(keys: DataKeys) -> None:
    old = Sealer(DataKeys({"old": bytes.fromhex(OLD)}))
    sealed = old.seal(b"value", b"place")
    both = Sealer(keys)
    assert both.open(sealed, b"place") == b"value"
    assert (both.is_current(sealed), both.is_current(both.seal(b"value", b"place"))) == (False, True)
    with pytest.raises(NotOpened, match="the key 'new', which FASTRUNNER_DATA_KEY_FILE has not"):
        old.open(both.seal(b"value", b"place"), b"place")
    with pytest.raises(NotOpened, match="does not open"):
        Sealer(DataKeys({"old": bytes.fromhex(NEW)})).open(sealed, b"place")


def test_every_flipped_bit_is_found(keys: DataKeys) -> None:
    sealer = Sealer(keys)
    sealed = sealer.seal(b"value", b"place")
    for at in range(4, len(sealed)):
        damaged = bytearray(sealed)
        damaged[at] ^= 1
        with pytest.raises(NotOpened, match="is damaged"):
            # Without the key.
            sealed_with(bytes(damaged))
        with pytest.raises(NotOpened):
            sealer.open(bytes(damaged), b"place")
    for size in range(4, len(sealed)):
        with pytest.raises(NotOpened):
            sealer.open(sealed[:size], b"place")
    with pytest.raises(NotOpened):
        bytes_of_text("~no base64")


def test_no_nonce_is_used_twice(keys: DataKeys) -> None:
    """Key and nonce follow from salt and number: the 24 bytes after the key's id."""
    begin = len(b"\xfeFR\x01") + 1 + len("new")
    sealers = [Sealer(keys) for _ in range(20)]
    used = [sealer.seal(b"", b"")[begin : begin + 24] for sealer in sealers for _ in range(50)]
    used += [sealers[0].seal_by_hash(b"", bytes([number]) * 32)[begin : begin + 24] for number in range(50)]
    assert len(set(used)) == len(used)


def test_what_is_stored_under_its_hash_is_the_same_bytes_again(keys: DataKeys) -> None:
    one, other = Sealer(keys), Sealer(keys)
    digest = bytes(32)
    assert one.seal_by_hash(b"large", digest) == other.seal_by_hash(b"large", digest)
    assert one.open(other.seal_by_hash(b"large", digest), digest) == b"large"


def test_keys_derived_are_bounded(keys: DataKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATA_KEYS_DERIVED_MAX", 3)
    reader = Sealer(keys)
    for number in range(10):
        assert reader.open(Sealer(keys).seal(b"%d" % number, b""), b"") == b"%d" % number
    assert len(reader._opening) == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "there is no key in it: `fastrunner data key` makes one"),
        ("# nothing\n", "there is no key in it"),
        (f"{NEW}\n", "line 1: expected an id, white space, and a key"),
        (f"a {NEW} b\n", "line 1: expected an id"),
        (f"\na b {NEW}\n", "line 2: expected an id"),
        (f"../a {NEW}\n", "line 1: expected an id"),
        (f"a {NEW[:-2]}\n", "line 1: the key a needs 64 hexadecimal digits"),
        (f"a {'x' * 64}\n", "line 1: the key a needs 64 hexadecimal digits"),
        (f"a {NEW}\na {OLD}\n", "line 2: the id a is there twice"),
        (f"a {NEW}\nb {NEW}\n", "line 2: the key b is another one again"),
        ("#" * (limits.DATA_KEY_FILE_SIZE_BYTES_MAX + 1), f"more than {limits.DATA_KEY_FILE_SIZE_BYTES_MAX} bytes"),
    ],
)
def test_files_that_hold_no_keys(tmp_path: Path, text: str, sentence: str) -> None:
    """The refusal names the file and the line, and shows nothing of a key."""
    path = write(tmp_path / "keys", text)
    with pytest.raises(KeyFileRefused) as caught:
        DataKeys.read(path)
    assert f"FASTRUNNER_DATA_KEY_FILE={path}: {sentence}" in str(caught.value)
    assert not any(part in str(caught.value) for part in (NEW[:16], OLD[:16], "x" * 16))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_files_that_others_may_use_are_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keys", f"a {NEW}\n", mode)
    with pytest.raises(KeyFileRefused, match=rf"\(mode {mode:04o}\).*chmod 600"):
        DataKeys.read(path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, why in (("fifo", "it is no file"), ("none", "cannot be read: No such file")):
        with pytest.raises(KeyFileRefused, match=why):
            DataKeys.read(tmp_path / name)


def test_a_new_key_comes_first_and_those_before_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    add_key(path, "one")
    one = DataKeys.read(path)
    add_key(path, "two")
    both = DataKeys.read(path)
    assert (one.first_id, both.first_id, list(both.by_id)) == ("one", "two", ["two", "one"])
    assert both.by_id["one"] == one.by_id["one"] != both.by_id["two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for key_id, why in (("two", "has a key two already"), ("a b", "is no id of a key"), ("", "is no id of a key")):
        with pytest.raises(KeyFileRefused, match=why):
            add_key(path, key_id)
    assert DataKeys.read(path).by_id == both.by_id
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


def test_nothing_is_loaded_without_a_key() -> None:
    """A worker without a key is as small as before."""
    code = "import sys, fastrunner.engine.embedded.engine; print('cryptography' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
