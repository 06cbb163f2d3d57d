"""Stage 3, journal: the shards' SQL, read from `sql/*.sql`.

Rule: SQL text lives in those files only; code names a statement.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

__all__ = ["QUERIES", "SCHEMA_VERSION", "script"]

SCHEMA_VERSION: Final = 1
"""What `schema.sql` writes into user_version."""

_MARK: Final = "-- name: "


def script(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def _named(text: str) -> Mapping[str, str]:
    """Statements by name; comment lines around them are for readers only."""
    statements: dict[str, str] = {}
    for part in text.split(_MARK)[1:]:
        name, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if not line.startswith("--")]
        if name in statements:
            raise ValueError(f"queries.sql names {name!r} twice")
        statements[name] = "\n".join(lines).strip()
    return statements


QUERIES: Final = _named(script("queries"))
"""Every statement of `queries.sql` by name."""
