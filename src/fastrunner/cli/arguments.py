"""Support: what several commands read from their arguments, and the exit codes they share."""

import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from fastrunner.base.clock import wall_ms

EXIT_BY_STATUS = {"completed": 0, "failed": 1, "cancelled": 3}
"""Exit code of a command that waited for an execution to end."""

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""

EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE, as of a command that knows nothing of pipes."""


document_path = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
"""A workflow document's file; `-` is stdin."""

outputs_option = click.option("--outputs", is_flag=True, help="Show what each task has put out, cut.")
"""For commands that show progress."""

strict_option = click.option("--strict", is_flag=True, help="Refuse documents with warnings as well.")
"""For commands that take documents: what is allowed and hardly meant is as wrong as what is not allowed."""


class Number(click.FloatRange):
    """A number within bounds, which NaN is not, whatever it is compared with."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See ParamType."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not in the range {self._describe_range()}.", param, ctx)
        return number


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_document(file: Path) -> bytes:
    """The document's text, as it is."""
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()


def read_input(value: str | None, document: Path | None, option: str = "--input") -> str:
    """JSON text from `--input`, or an option like it: JSON itself, `@file` for a file of JSON, `@-` for stdin; empty if
    there is none."""
    if value is None:
        return ""
    if value == "@-" and str(document) == "-":
        raise click.BadParameter("stdin holds the document already; give a file", param_hint=option)
    import orjson

    try:
        text = read_document(Path(value[1:])) if value.startswith("@") else value.encode("utf-8", "surrogateescape")
        orjson.loads(text)
    except OSError as error:
        raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}", param_hint=option) from None
    except orjson.JSONDecodeError as error:
        raise click.BadParameter(
            f"not JSON: {error}; give JSON such as '{{\"id\": 1}}', @file, or @- for stdin", param_hint=option
        ) from None
    return text.decode()


class Since(click.ParamType[int]):
    """A time in the past as milliseconds since the epoch: so long ago (`10m`), or a date and time in UTC."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See ParamType."""
        number, unit = value[:-1], value[-1:]
        try:
            if unit in _UNITS:
                ago = timedelta(**{_UNITS[unit]: float(number)})
                if ago < timedelta():
                    raise ValueError("it is to come")
                return wall_ms() - int(ago.total_seconds() * 1000)
            when = datetime.fromisoformat(value)
            return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a time ago, such as 30s, 10m, 2h or 7d, nor one like 2026-11-29T08:00",
                param,
                ctx,
            )


class WorkflowName(click.ParamType[tuple[str, str, str]]):
    """A registered workflow: namespace, name and version, which is empty for the latest one."""

    name = "workflow"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str, str]:
        """See ParamType."""
        namespace, slash, rest = value.partition("/")
        name, _, version = rest.partition(":")
        if not (namespace and slash and name):
            self.fail(
                f"{value!r} is not NAMESPACE/NAME or NAMESPACE/NAME:VERSION, such as shop/order:1.2.0", param, ctx
            )
        return namespace, name, version


def read_pairs(values: tuple[str, ...], option: str = "--env", *, is_filter: bool = False) -> dict[str, str]:
    """`--env NAME=VALUE` options, or others like it, as a mapping. Of one that is given twice the last value counts; in
    a filter, where both would have to hold, that is refused."""
    pairs = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param_hint=option)
        if is_filter and name in pairs:
            raise click.BadParameter(f"{name!r} is given twice, and nothing has two values of it", param_hint=option)
        pairs[name] = text
    return pairs
