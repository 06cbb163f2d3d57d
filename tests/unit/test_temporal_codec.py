"""The payload codec by itself: whose blobs are whose, what is written once, what cannot be read."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from fastrunner.access.sealing import DataKeys, Sealer
from fastrunner.base import clock, limits
from fastrunner.blobs.directory import Directory
from tests.outside import require

require(find_spec("temporalio"), "temporalio", module=True)

KEYS = DataKeys({"one": bytes(32)}, "FASTRUNNER_TEMPORAL_KEY_FILE")
LARGE = "x" * limits.TEMPORAL_INLINE_SIZE_BYTES_MAX


def damage(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")


def owners(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("execution_id", "owner"),
    [
        ("order-1", "order-1_"),
        ("order-1~3~1", "order-1_"),
        ("nightly~2026-11-29T03:00:00Z", "nightly_"),
        ("../a/b", "_2e_2e_2fa_2fb_"),
        ("a_b", "a_5fb_"),
        ("ö", "_c3_b6_"),
        ("", "shared"),
        ("~" + "0" * 64 + "~1", "shared"),
        ("x" * 255, "x" * 200 + "/" + "x" * 55 + "_"),
    ],
)
def test_whose_blobs_are_whose(execution_id: str, owner: str) -> None:
    """Children's are their first parent's; ids lead to no other folder, and no two to one."""
    from fastrunner.engine.temporal.codec import execution_of, owner_of

    assert owner_of(execution_id) == owner
    assert execution_of(owner) == (None if owner == "shared" else execution_id.partition("~")[0])


async def test_a_large_value_is_written_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed or not: an attempt that is made again makes the same blob; tomorrow's is another one."""
    from fastrunner.engine.temporal.codec import converter_of

    for sealer in (None, Sealer(KEYS)):
        folder = tmp_path / ("plain" if sealer is None else "sealed")
        for _ in range(2):
            converter = converter_of(sealer, Directory(folder))
            [payload] = await converter.encode([LARGE])
            assert payload.ByteSize() < 500
            assert await converter.decode([payload]) == [LARGE]
        assert len([path for path in folder.rglob("*") if path.is_file()]) == 1
        tomorrow_ms = clock.wall_ms() + 24 * 3_600_000
        with monkeypatch.context() as later:
            later.setattr(clock, "wall_ms", lambda at_ms=tomorrow_ms: at_ms)
            await converter.encode([LARGE])
        assert len([path for path in folder.rglob("*") if path.is_file()]) == 2


async def test_only_blobs_need_to_know_whose_they_are(tmp_path: Path) -> None:
    """Without a store nothing is made anew for each payload; with one, each execution's blobs are its own."""
    from temporalio.converter import WorkflowSerializationContext

    from fastrunner.engine.temporal.codec import converter_of

    contexts = [WorkflowSerializationContext("default", name) for name in ("order-1", "order-2", "order-2")]
    for sealer in (None, Sealer(KEYS)):
        converter = converter_of(sealer, None)
        assert all(converter.with_context(context).payload_codec is converter.payload_codec for context in contexts)
    converter = converter_of(None, None)
    assert all(converter.with_context(context) is converter for context in contexts)
    for context in contexts:
        await converter_of(None, Directory(tmp_path)).with_context(context).encode([LARGE])
    assert owners(tmp_path) == {"order-1_", "order-2_"}


async def test_what_a_worker_keeps_of_blobs_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastrunner.engine.temporal.codec import Codec, NotReadable, converter_of

    monkeypatch.setattr(limits, "TEMPORAL_BLOBS_CACHED_SIZE_BYTES_MAX", 3 * len(LARGE))
    converter = converter_of(None, Directory(tmp_path))
    payloads = [(await converter.encode([f"{number}{LARGE}"]))[0] for number in range(4)]
    codec = converter.payload_codec
    assert isinstance(codec, Codec)
    assert 0 < codec._recent.size_bytes <= limits.TEMPORAL_BLOBS_CACHED_SIZE_BYTES_MAX
    damage(tmp_path)
    assert await converter.decode(payloads[3:]) == [f"3{LARGE}"]
    with pytest.raises(NotReadable, match="is not what was written"):
        await converter.decode(payloads[:1])


async def test_what_cannot_be_read_says_what_is_missing(tmp_path: Path) -> None:
    from fastrunner.engine.temporal.codec import NotReadable, converter_of

    sealed = await converter_of(Sealer(KEYS), None).encode(["a"])
    claimed = await converter_of(None, Directory(tmp_path / "blobs")).encode([LARGE])
    with pytest.raises(NotReadable, match="FASTRUNNER_TEMPORAL_KEY_FILE"):
        await converter_of(None, None).decode(sealed)
    with pytest.raises(NotReadable, match="does not open with the key 'one'"):
        await converter_of(Sealer(DataKeys({"one": bytes([1] * 32)})), None).decode(sealed)
    with pytest.raises(NotReadable, match="FASTRUNNER_BLOB_URL"):
        await converter_of(None, None).decode(claimed)
    with pytest.raises(NotReadable, match="is FASTRUNNER_BLOB_URL the others'"):
        await converter_of(None, Directory(tmp_path / "other")).decode(claimed)
    assert await converter_of(Sealer(KEYS), Directory(tmp_path / "blobs")).decode(claimed) == [LARGE]
