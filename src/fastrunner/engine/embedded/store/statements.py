"""Stage 3, journal: the shards' SQL, read from `sql/*.sql`.

Rules: SQL text lives in those files only; code names a statement. Files that begin with a number are the schema: each
takes a file from the version before to its own, in one transaction that ends by writing its number into user_version.
A file that has been released is never changed.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

__all__ = ["MIGRATIONS", "QUERIES", "SCHEMA_VERSION", "named", "script", "statements_in"]

_MARK: Final = "-- name: "
_MIGRATION: Final = re.compile(r"(\d{4})-[a-z-]+\.sql")


def script(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def _migrations() -> Sequence[str]:
    """Names of the schema's scripts, first to last."""
    names = sorted(path.name for path in files(__package__).joinpath("sql").iterdir())
    numbered = [match for name in names if (match := _MIGRATION.fullmatch(name))]
    if [int(match[1]) for match in numbered] != list(range(1, len(numbered) + 1)):
        raise ValueError("the schema's scripts are not numbered from 0001 without a gap")
    return [match[0].removesuffix(".sql") for match in numbered]


MIGRATIONS: Final = _migrations()
"""The schema's scripts; the n-th makes schema version n of version n - 1."""

SCHEMA_VERSION: Final = len(MIGRATIONS)
"""The version this runner reads and writes."""


def named(name: str) -> Mapping[str, str]:
    """The statements of `sql/<name>.sql` by name."""
    return statements_in(script(name))


def statements_in(text: str) -> Mapping[str, str]:
    """The statements of a text by name; comment lines around them are for readers only."""
    statements: dict[str, str] = {}
    for part in text.split(_MARK)[1:]:
        name, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if not line.startswith("--")]
        if name in statements:
            raise ValueError(f"a file of SQL names {name!r} twice")
        statements[name] = "\n".join(lines).strip()
    return statements


QUERIES: Final = named("queries")
"""Every statement of `queries.sql` by name."""
