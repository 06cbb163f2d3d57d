"""Stage 5, tasks: the charsets of the WHATWG Encoding Standard, which is what servers mean by the names they send.

Rules: pure, no I/O. Only the labels of the standard count, so no codec of Python's own (escapes, compression, domain
names) is ever reached by a header. Decoding goes in pieces and never fails: bytes that do not belong become U+FFFD.
A byte order mark wins over the label, as browsers have it.
"""

import codecs
from collections.abc import Generator
from functools import cache
from typing import Final

__all__ = ["UTF_8", "charset_of", "decode", "encode", "sniffed"]

UTF_8: Final = "utf-8"

_PIECE_SIZE_BYTES: Final = 32_768
"""Decoded at a time: at most some 2 ms, which codecs need for bytes that do not belong."""

_LABELS: Final = {
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "ibm866": "866 cp866 csibm866 ibm866",
    "iso-8859-2": "csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2",
    "iso-8859-3": "csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3",
    "iso-8859-4": "csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4",
    "iso-8859-5": "csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988",
    "iso-8859-6": "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e "
    "iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987",
    "iso-8859-7": "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 iso_8859-7 "
    "iso_8859-7:1987 sun_eu_greek",
    "iso-8859-8": "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 "
    "iso_8859-8 iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical",
    "iso-8859-10": "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6",
    "iso-8859-13": "iso-8859-13 iso8859-13 iso885913",
    "iso-8859-14": "iso-8859-14 iso8859-14 iso885914",
    "iso-8859-15": "csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9",
    "iso-8859-16": "iso-8859-16",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
    "koi8-u": "koi8-ru koi8-u",
    "macintosh": "csmacintosh mac macintosh x-mac-roman",
    "windows-874": "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874",
    "windows-1250": "cp1250 windows-1250 x-cp1250",
    "windows-1251": "cp1251 windows-1251 x-cp1251",
    "windows-1252": "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 "
    "iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252",
    "windows-1253": "cp1253 windows-1253 x-cp1253",
    "windows-1254": "cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 "
    "windows-1254 x-cp1254",
    "windows-1255": "cp1255 windows-1255 x-cp1255",
    "windows-1256": "cp1256 windows-1256 x-cp1256",
    "windows-1257": "cp1257 windows-1257 x-cp1257",
    "windows-1258": "cp1258 windows-1258 x-cp1258",
    "x-mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gbk": "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk",
    "gb18030": "gb18030",
    "big5": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc-jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "iso-2022-jp": "csiso2022jp iso-2022-jp",
    "shift_jis": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "euc-kr": "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 "
    "windows-949",
    "replacement": "csiso2022kr hz-gb-2312 iso-2022-cn iso-2022-cn-ext iso-2022-kr replacement",
    "utf-16be": "unicodefffe utf-16be",
    "utf-16le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
    "x-user-defined": "x-user-defined",
}
_CHARSETS: Final = {label: charset for charset, labels in _LABELS.items() for label in labels.split()}

_DECODERS: Final = {
    "utf-8": "utf-8",
    "utf-16be": "utf-16-be",
    "utf-16le": "utf-16-le",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "euc-jp": "euc_jp",
    "iso-2022-jp": "iso2022_jp",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
}
"""Python's codecs for charsets with more than a byte per character: all compiled, 10 to 60 ms per MiB at worst."""
_ENCODERS: Final = _DECODERS | {"gbk": "gbk", "big5": "big5", "replacement": "utf-8"}
_SINGLE_BYTE: Final = {
    "ibm866": "cp866",
    "macintosh": "mac-roman",
    "windows-874": "cp874",
    "x-mac-cyrillic": "mac-cyrillic",
}
"""Python's names for the others, where they differ. Their tables are used, not their codecs, which take half a second
for a megabyte of bytes that do not belong."""
_DIFFERENCES: Final = {"koi8-u": {0xAE: "\u045e", 0xBE: "\u040e"}, "windows-1255": {0xCA: "\u05ba"}}
"""Where the standard's tables are not Python's, beside the control characters of the Windows code pages."""

_MARKS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_BE, "utf-16be"), (codecs.BOM_UTF16_LE, "utf-16le"))


def charset_of(label: str) -> str:
    """The standard's name for a charset that a header names; UTF-8 for what the standard does not know."""
    return _CHARSETS.get(label.strip(" \t\r\n\f").lower(), UTF_8)


def sniffed(body: bytes, charset: str) -> tuple[str, int]:
    """The charset that a body's byte order mark tells, else the given one; and the size of the mark in bytes."""
    for mark, marked in _MARKS:
        if body.startswith(mark):
            return marked, len(mark)
    return charset, 0


def decode(body: bytes, charset: str) -> Generator[None, None, str]:
    """The text of a body, given a name that `charset_of` gave; yields between pieces."""
    charset, start = sniffed(body, charset)
    if charset == "replacement":
        return "\ufffd" if body else ""
    texts: list[str] = []
    table = _table(charset) if charset not in _DECODERS else ""
    decoder = None if table else codecs.getincrementaldecoder(_DECODERS[charset])("replace")
    for at in range(start, len(body), _PIECE_SIZE_BYTES):
        piece = body[at : at + _PIECE_SIZE_BYTES]
        if decoder is None:
            texts.append(codecs.charmap_decode(piece, "strict", table)[0])
        else:
            texts.append(decoder.decode(piece, at + _PIECE_SIZE_BYTES >= len(body)))
        yield
    return "".join(texts)


def encode(text: str, label: str) -> bytes:
    """Text in the charset a header names, UTF-8 for unknown ones. Raises UnicodeEncodeError."""
    charset = charset_of(label)
    if charset in _ENCODERS:
        # Without a byte order, the mark tells it.
        mark = codecs.BOM_UTF16_LE if charset == "utf-16le" and label.strip().lower() != "utf-16le" else b""
        return mark + text.encode(_ENCODERS[charset])
    return codecs.charmap_encode(text, "strict", codecs.charmap_build(_table(charset).replace("\ufffd", "\ufffe")))[0]


@cache
def _table(charset: str) -> str:
    """The 256 characters of a charset with one byte per character; U+FFFD where there is none."""
    if charset == "x-user-defined":
        return "".join(map(chr, [*range(0x80), *range(0xF780, 0xF800)]))
    characters = list(bytes(range(256)).decode(_SINGLE_BYTE.get(charset, charset), "replace"))
    for byte in range(0x80, 0xA0):
        if charset.startswith("windows-") and characters[byte] == "\ufffd":
            characters[byte] = chr(byte)
    for byte, character in _DIFFERENCES.get(charset, {}).items():
        characters[byte] = character
    return "".join(characters)
