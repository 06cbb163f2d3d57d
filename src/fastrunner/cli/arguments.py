"""Support: what several commands read from their arguments, and the exit codes they share."""

from pathlib import Path

import click

EXIT_BY_STATUS = {"completed": 0, "failed": 1, "cancelled": 3}
"""Exit code of a command that waited for an execution to end."""

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""


def read_input(value: str | None) -> str:
    """JSON text from `--input`: JSON itself, or `@file` for a file of JSON; empty if there is none."""
    if value is None:
        return ""
    import orjson

    try:
        text = Path(value[1:]).read_text(encoding="utf-8") if value.startswith("@") else value
        orjson.loads(text)
    except OSError as error:
        raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}", param_hint="--input") from None
    except orjson.JSONDecodeError as error:
        raise click.BadParameter(
            f"not JSON: {error}; give JSON such as '{{\"id\": 1}}', or @file", param_hint="--input"
        ) from None
    return text


def read_pairs(values: tuple[str, ...]) -> dict[str, str]:
    """`--env NAME=VALUE` options as a mapping."""
    pairs = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param_hint="--env")
        pairs[name] = text
    return pairs
