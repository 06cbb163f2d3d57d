"""Support: bodies become values: charsets as browsers read them, JSON in pieces, content codings undone."""

import gzip
import zlib
from collections.abc import Generator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner.base import limits
from fastrunner.tasks.call_http import charsets, json_text
from fastrunner.tasks.call_http.codings import BodyTooLarge, Decoding, MalformedCoding, UnknownCoding
from fastrunner.tasks.call_http.content import MalformedContent, decode
from tests.properties import examples


def done(steps: Generator[None, None, Any]) -> Any:
    """What work in pieces comes to."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def text_of(body: bytes, label: str) -> str:
    text: str = done(decode(body, f"text/plain; charset={label}"))
    return text


# --- charsets ---


@pytest.mark.parametrize(
    ("label", "body", "text"),
    [
        ("latin1", b"\x80\xfc\x81", "€ü\x81"),
        ("ISO-8859-9", b"\xfd\xfe", "ış"),
        ("iso-8859-11", b"\xa1\xdb", "ก\ufffd"),
        ("windows-1253", b"\xe1\xaa\x81", "α\ufffd\x81"),
        ("windows-1255", b"\xca\xe0\xd9", "\u05baא\ufffd"),
        ("koi8-u", b"\xc1\xae\xbe", "аўЎ"),
        ("x-mac-cyrillic", b"\x80\xff", "А€"),
        ("iso-8859-8-i", b"\xe0\xfd", "א\u200e"),
        ("macintosh", b"\x8a\xdb", "ä€"),
        ("866", b"\x80", "А"),
        ("gb2312", "中文€".encode("gb18030"), "中文€"),
        ("big5", "中文".encode("big5"), "中文"),
        ("x-sjis", "①あ".encode("cp932"), "①あ"),
        ("euc-jp", "日本".encode("euc-jp"), "日本"),
        ("iso-2022-jp", "日本".encode("iso2022_jp"), "日本"),
        ("ks_c_5601-1987", "똠한".encode("cp949"), "똠한"),
        ("utf-16", "aü".encode("utf-16-le"), "aü"),
        ("unicodefffe", "aü".encode("utf-16-be"), "aü"),
        ("utf-16be", b"\x00a\xd8\x00", "a\ufffd"),
        ("x-user-defined", b"a\x80\xff", "a\uf780\uf7ff"),
        ("hz-gb-2312", b"~{VPND~}", "\ufffd"),
        # A byte order mark wins.
        ("latin1", b"\xef\xbb\xbf\xc3\xbc", "ü"),
        ("utf-8", b"\xff\xfea\x00", "a"),
        ("utf-16le", b"\xfe\xff\x00a", "a"),
    ],
)
def test_charsets_of_the_standard(label: str, body: bytes, text: str) -> None:
    assert text_of(body, label) == text


@pytest.mark.parametrize(
    "codec",
    ["punycode", "idna", "unicode_escape", "raw_unicode_escape", "utf-7", "rot13", "zip", "hex", "cp037", "undefined"],
)
def test_other_codecs_are_never_used(codec: str) -> None:
    """What Python would make of the name is nothing to a server: the text is UTF-8."""
    body = r"MajiKoi5-783gue6qz075azm5e \u00fc ü".encode()
    assert text_of(body, codec) == body.decode()


def test_every_charset_decodes_any_byte_and_encodes_what_it_can() -> None:
    """No label leads to a codec that refuses, is slow in Python or makes what JSON cannot carry."""
    body = bytes(range(256)) * 300
    for charset in charsets._LABELS:
        text = text_of(b"x" + body, charset)
        orjson.dumps(text)
        assert text.encode("utf-8").decode() == text
        assert text_of(charsets.encode("plain", charset), charset) in ("plain", "\ufffd")


@pytest.mark.parametrize("charset", ["utf-8", "utf-16le", "gb18030", "euc-jp", "iso-2022-jp", "shift_jis", "euc-kr"])
def test_characters_across_pieces_stay_whole(charset: str) -> None:
    text = "a日本" * 40_000
    assert text_of(charsets.encode(text, charset), charset) == text


def test_characters_that_a_charset_lacks_are_refused() -> None:
    for label in ("latin1", "windows-1252", "koi8-r", "gbk", "shift_jis"):
        with pytest.raises(UnicodeEncodeError):
            charsets.encode("\U0001f600", label)
    with pytest.raises(UnicodeEncodeError):
        charsets.encode("\ufffd", "windows-1253")


# --- JSON ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=40,
)
STRINGS = st.text(alphabet='a\\",]', max_size=60)
VALUES = JSON | st.lists(STRINGS) | st.dictionaries(STRINGS, STRINGS)
EDITS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 2), st.sampled_from([bytes([byte]) for byte in b',[]{}":\\ 1n\n'])),
    max_size=2,
)


@examples(500)
@given(
    value=JSON | st.lists(STRINGS) | st.dictionaries(STRINGS, STRINGS),
    is_indented=st.booleans(),
    edits=EDITS,
    piece_size_bytes=st.sampled_from([1, 2, 5, 17, 60]),
)
def test_json_in_pieces_is_json_at_once(
    value: Any, is_indented: bool, edits: list[tuple[int, int, bytes]], piece_size_bytes: int
) -> None:
    """The same value, or refused as well, wherever it is cut."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if is_indented else 0)
    for at, removed, added in edits:
        at %= len(text) + 1
        text = text[:at] + added + text[at + removed :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_WHOLE_SIZE_BYTES_MAX", 0)
        patch.setattr(json_text, "_PIECE_SIZE_BYTES", piece_size_bytes)
        try:
            expected = orjson.loads(text)
        except orjson.JSONDecodeError:
            with pytest.raises(orjson.JSONDecodeError):
                done(json_text.parse(text))
        else:
            assert orjson.dumps(done(json_text.parse(text))) == orjson.dumps(expected)


@pytest.mark.parametrize(
    "value",
    [
        [1] * 200_000,
        ["x" * 300_000, {"a": "y" * 300_000}, 'z"\\' * 50_000, "\\" * 70_000, {'"' * 70_000: 1}],
        {str(number): number / 7 for number in range(20_000)},
        [{"id": number, "tags": ["a", "b"], "at": {"x": 'say "x, ]"'}} for number in range(10_000)],
        {"items": [[number, [number]] for number in range(20_000)], "next": None},
    ],
    ids=["scalars", "strings", "members", "records", "nested"],
)
def test_large_json_is_parsed_in_pieces(value: Any) -> None:
    text = orjson.dumps(value)
    steps = json_text.parse(text)
    # It comes back between them.
    next(steps)
    next(steps)
    assert done(steps) == value


@pytest.mark.parametrize("filler_count", [0, 50_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_of_json(filler_count: int, opening: bytes, closing: bytes) -> None:
    """In small text and in large."""
    filler = b"1," * filler_count
    for depth, is_allowed in ((127, True), (128, False)):
        text = b"[" + filler + opening * depth + b"1" + closing * depth + b"]"
        if is_allowed:
            assert len(done(decode(text, "application/json"))) == filler_count + 1
        else:
            with pytest.raises(MalformedContent, match="deeper than 128 levels"):
                done(decode(text, "application/json"))


def test_arrays_and_objects_of_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many it is refused before they take memory; scalars are not counted."""
    monkeypatch.setattr(limits, "HTTP_RESPONSE_CONTAINERS_MAX", 30_000)
    for item, is_allowed in ((b"1", True), (b"[]", False), (b'{"a":1}', False), (b'["x"]', False)):
        text = b"[" + b",".join([item] * 60_000) + b"]"
        if is_allowed:
            assert len(done(decode(text, "application/json"))) == 60_000
        else:
            with pytest.raises(MalformedContent, match="more than 30000 arrays and objects"):
                done(decode(text, "application/json"))


# --- content codings ---


def unpacked(body: bytes, *codings: str, piece_size_bytes: int = 1_000_000) -> bytes:
    decoding = Decoding(codings)
    pieces: list[bytes] = []
    for at in range(0, len(body), piece_size_bytes):
        pieces += decoding.feed(body[at : at + piece_size_bytes])
    decoding.end()
    return b"".join(pieces)


def raw_deflate(body: bytes) -> bytes:
    compressing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressing.compress(body) + compressing.flush()


BODY = bytes(range(256)) * 700 + b"end"
PACKED = {
    ("gzip",): gzip.compress(BODY),
    ("X-GZip",): gzip.compress(BODY),
    ("deflate",): zlib.compress(BODY),
    (" Deflate ",): raw_deflate(BODY),
    ("deflate, gzip",): gzip.compress(zlib.compress(BODY)),
    ("gzip", "identity", "deflate"): raw_deflate(gzip.compress(BODY)),
    ("gzip ",): gzip.compress(BODY[:1000]) + gzip.compress(b"") + gzip.compress(BODY[1000:]),
    ("identity",): BODY,
    (): BODY,
}


@pytest.mark.parametrize("codings", PACKED)
@pytest.mark.parametrize("piece_size_bytes", [1, 1_000_000])
def test_codings_are_undone(codings: tuple[str, ...], piece_size_bytes: int) -> None:
    assert unpacked(PACKED[codings], *codings, piece_size_bytes=piece_size_bytes) == BODY


@pytest.mark.parametrize("codings", [codings for codings in PACKED if codings not in ((), ("identity",))])
def test_a_body_cut_anywhere_is_refused(codings: tuple[str, ...]) -> None:
    body = PACKED[codings]
    assert unpacked(b"", *codings) == b""
    for size_bytes in {1, 2, 9, 12, len(body) // 2, len(body) - 9, len(body) - 1}:
        # Between members there is a place where a shorter body would be whole.
        if codings != ("gzip ",) or size_bytes not in (len(gzip.compress(BODY[:1000])),):
            with pytest.raises(MalformedCoding):
                unpacked(body[:size_bytes], *codings)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_follows_a_compressed_body_is_refused(coding: str) -> None:
    for garbage in (b"x", bytes(8), b"trailing garbage"):
        with pytest.raises(MalformedCoding):
            unpacked(PACKED[(coding,)] + garbage, coding)


def test_a_damaged_body_is_refused() -> None:
    damaged = bytearray(gzip.compress(BODY))
    damaged[-6] ^= 1
    with pytest.raises(MalformedCoding):
        unpacked(bytes(damaged), "gzip")


@pytest.mark.parametrize("codings", [("br",), ("gzip, br",), ("zstd",), ("compress",), ("aws-chunked",), ("gzip;q=1",)])
def test_codings_that_are_not_spoken_are_refused(codings: tuple[str, ...]) -> None:
    with pytest.raises(UnknownCoding):
        Decoding(codings)


def test_codings_of_one_body() -> None:
    body = b"x"
    for _ in range(limits.HTTP_CODINGS_COUNT_MAX):
        body = gzip.compress(body)
    assert unpacked(body, *["gzip"] * limits.HTTP_CODINGS_COUNT_MAX) == b"x"
    with pytest.raises(UnknownCoding):
        Decoding(["gzip"] * (limits.HTTP_CODINGS_COUNT_MAX + 1))


def test_members_of_a_gzip_body() -> None:
    member = gzip.compress(b"")
    assert unpacked(member * limits.HTTP_CODING_MEMBERS_MAX, "gzip") == b""
    with pytest.raises(MalformedCoding):
        unpacked(member * (limits.HTTP_CODING_MEMBERS_MAX + 1), "gzip")


def test_bombs_end_at_the_bound() -> None:
    """Also those whose inner layer comes to nothing."""
    zeros = bytes(limits.HTTP_RESPONSE_SIZE_BYTES_MAX + 1)
    for body, codings in (
        (gzip.compress(zeros), ("gzip",)),
        (gzip.compress(gzip.compress(zeros)), ("gzip", "gzip")),
        (gzip.compress(raw_deflate(b"") * 5_000_000), ("deflate", "gzip")),
        (zeros, ()),
    ):
        with pytest.raises((BodyTooLarge, MalformedCoding)):
            unpacked(body, *codings)
    assert len(unpacked(gzip.compress(zeros[1:]), "gzip")) == limits.HTTP_RESPONSE_SIZE_BYTES_MAX
