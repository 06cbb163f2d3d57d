"""Support: what documents may have the runner run: `shell`, scripts by language, containers by image, MCP servers by
command.

Rules: pure; the validator asks it of every document, the performers once more of every effect, because an image or a
command may be an expression and a setting may have changed since. Every refusal names the variable to set.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["ALLOWED_VARIABLE", "RunPolicy"]

ALLOWED_VARIABLE = "FASTRUNNER_RUN_ALLOWED"

_LANGUAGES = {"js": "js", "javascript": "js", "python": "python"}
_PATTERN = re.compile(r"[A-Za-z0-9*?\[\]._/:@-]+")


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """What is allowed."""

    entries: tuple[str, ...] = ()
    """`shell`, `script`, `script:js`, `script:python`, `container`, `container:PATTERN`, `mcp`, `mcp:PATTERN`."""
    reason: str = ""
    """Why nothing is, whatever the variable says; empty if the variable decides."""

    @staticmethod
    def parse(text: str) -> "RunPolicy":
        """Entries with commas between them, or `none`. Raises ValueError, whose text says what is allowed."""
        words = [word.strip() for word in text.split(",") if word.strip()]
        if words == ["none"]:
            return RunPolicy()
        return RunPolicy(tuple(dict.fromkeys(_entry(word) for word in words)))

    def refusal(self, kind: str, what: str | None) -> str:
        """Why something is not run; empty if it is.

        `kind` is `shell`, `script`, `container` or `mcp`; `what` the language, the image or the command, None where it
        is not known yet: then anything of the kind will do.
        """
        if self.reason:
            named = "an MCP server over stdio" if kind == "mcp" else f"run: {kind}"
            return f"{named} is not allowed: {self.reason}"
        what = _LANGUAGES.get(what, what) if kind == "script" and what is not None else what
        if any(_covers(entry, kind, what) for entry in self.entries):
            return ""
        wanted = kind if what is None or not _PATTERN.fullmatch(what) else f"{kind}:{what}"
        now = ",".join(self.entries) or "none"
        remedy = ",".join((*self.entries, wanted))
        return (
            f"{wanted} may not be run here: {ALLOWED_VARIABLE} is {now}; to allow it, set {ALLOWED_VARIABLE}={remedy}"
        )


def _entry(word: str) -> str:
    kind, colon, what = word.partition(":")
    if not colon and kind in ("shell", "script", "container", "mcp"):
        return kind
    if kind == "script" and what in _LANGUAGES:
        return f"script:{_LANGUAGES[what]}"
    if kind in ("container", "mcp") and _PATTERN.fullmatch(what):
        return word
    raise ValueError(
        f"{word!r} is nothing that can be allowed: expected none, or a list of shell, script, script:js, "
        "script:python, container, container:PATTERN, mcp and mcp:PATTERN, as in "
        "shell,script:python,container:ghcr.io/acme/*,mcp:/opt/mcp/*"
    )


def _covers(entry: str, kind: str, what: str | None) -> bool:
    allowed, _, pattern = entry.partition(":")
    if allowed != kind:
        return False
    if not pattern or what is None:
        return True
    # The kernel follows `..`, out of what a pattern means.
    return what == pattern if kind == "script" else ".." not in what.split("/") and fnmatchcase(what, pattern)
