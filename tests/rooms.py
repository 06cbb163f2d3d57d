"""Support: reads the parts of the compiled core: what each defines, imports and uses, by names.

A part is text that Cython includes, so nothing but these rules keeps one from reaching into another. Strings and
comments do not count; what stands in the braces of an f-string does.
"""

import re
from functools import cached_property
from pathlib import Path

__all__ = ["CORE", "Part", "parts_of"]

CORE = Path(__file__).resolve().parent.parent / "src" / "fastrunner" / "core"

_TOP = (
    r"^cdef\s+(?:inline\s+)?(?:[\w.\[\], *()]+?\s+)?\**(\w+)\(",
    r"^def (\w+)\(",
    r"^(?:cdef )?class (\w+)",
    r"^([A-Za-z_]\w*)(?:\s*:\s*\w+)? = ",
    r"^cdef [\w.]+(?:\s+[\w.]+)* \**(\w+)(?: =|$)",
)
_LOCAL = (
    r"^\s+(?:cdef|def)\b[^\n(]*?(\w+)\(",
    r"[\w\]*]\s+\**(\w+)\s*(?:=[^=,()]*)?[,)]",
    r"^\s+cdef [\w.]+ ([\w, ]+)",
    r"^\s+([\w, ]+?) = ",
    r"\bfor ([\w, ]+) in\b",
)


def code_only(text: str) -> str:
    """Code without strings and comments, line numbers kept."""
    text = re.sub(r'("""|\'\'\')(.*?)\1', lambda found: "\n" * found.group(2).count("\n"), text, flags=re.DOTALL)
    text = re.sub(r'[frb]*"(?:[^"\\\n]|\\.)*"', lambda found: _braces(found.group(0)), text)
    return re.sub(r"#.*", "", text)


def _braces(string: str) -> str:
    return "0 " + " ".join(re.findall(r"{([^{}]*)}", string)) if string.startswith("f") else "0"


def _words(found: list[str]) -> set[str]:
    return {word for text in found for word in re.findall(r"[A-Za-z_]\w*", text)}


class Part:
    """One part of the core."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.code = code_only(text)

    @property
    def shown(self) -> str:
        return str(self.path)

    @property
    def room(self) -> str:
        """The folder it is in; a part beside the folders is a room of its own."""
        return self.path.parts[0].removesuffix(".pxi")

    @cached_property
    def defined(self) -> set[str]:
        """Functions, classes, variables and members of enums at its top level."""
        names = {name for pattern in _TOP for name in re.findall(pattern, self.code, flags=re.MULTILINE)}
        for body in re.findall(r"^cdef enum:\n((?:    .*\n|\n)+)", self.code, flags=re.MULTILINE):
            names |= set(re.findall(r"^\s+([A-Za-z_]\w*)", body, flags=re.MULTILINE))
        return names

    @cached_property
    def imported(self) -> set[str]:
        """Names it cimports, imports, or declares of C's."""
        joined = re.sub(r"\(\n(.*?)\)", lambda found: found.group(1).replace("\n", " "), self.code, flags=re.DOTALL)
        lists = re.findall(r"^(?:from [\w.]+ )?c?import (.+)$", joined, flags=re.MULTILINE)
        names = {name.split(" as ")[-1].strip(" ()") for text in lists for name in text.split(",")}
        for body in re.findall(r"^cdef extern from .*:\n((?:    .*\n)+)", self.code, flags=re.MULTILINE):
            names |= set(re.findall(r"(\w+)(?: 0)?\(", body))
        return names - {""}

    @cached_property
    def used(self) -> set[str]:
        """Words that are no attribute, and no name of the part's own functions."""
        body = re.sub(r"^(from|c?import) .*$", "", self.code, flags=re.MULTILINE)
        local = _words([name for pattern in _LOCAL for name in re.findall(pattern, body, flags=re.MULTILINE)])
        return set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", body)) - (local - self.classes - self.imported)

    @cached_property
    def classes(self) -> set[str]:
        """Words in the place of a type, which no local name hides."""
        return set(re.findall(r"\b([A-Z]\w+)\b", self.code))


def parts_of(texts: dict[str, str] | None = None) -> list[Part]:
    """The parts as they are, or as they would be with some texts replaced or added."""
    found = {str(path.relative_to(CORE)): path.read_text(encoding="utf-8") for path in CORE.rglob("*.pxi")}
    found |= texts or {}
    return [Part(Path(path), text) for path, text in sorted(found.items())]
