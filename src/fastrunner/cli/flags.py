"""Support: settings as flags of a command; a flag wins over its variable."""

import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from pydantic_settings import BaseSettings

from fastrunner.config import variable_of

__all__ = ["by_flag", "settings_flags"]


def settings_flags(
    settings: type[BaseSettings], fields: Sequence[str], *, switches: bool = False
) -> Callable[[Any], Any]:
    """Adds a flag for each of some settings to a command, which is given them by their fields' names: None if absent.

    What stands between commas in a variable is a flag that may be repeated; with `switches`, what is true or false
    is one without a value.
    """

    def add(command: Any) -> Any:
        for field in reversed(fields):
            form = _form(settings, field, switches)
            command = click.option(*_names(settings, field), default=None, **form)(command)
        return command

    return add


def by_flag(line: str, flags: Mapping[str, Any], settings: type[BaseSettings]) -> str:
    """A sentence about a variable's value, as one about the flag that gave it."""
    for field, value in flags.items():
        if value is not None:
            names = _names(settings, field)
            line = line.replace(f"{variable_of(field, settings)}={value}: ", f"{names[0]}={value}: ", 1)
    return line


def _names(settings: type[BaseSettings], field: str) -> tuple[str, str]:
    is_list = _is(settings, field, tuple)
    return f"--{field.removesuffix('s' if is_list else '').replace('_', '-')}", field


def _form(settings: type[BaseSettings], field: str, switches: bool) -> dict[str, Any]:
    text = f"{settings.model_fields[field].description}  [{variable_of(field, settings)}]"
    if _is(settings, field, tuple):
        return {"help": text, "metavar": "VALUE", "multiple": True, "callback": _none_if_empty}
    if switches and _is(settings, field, bool):
        return {"help": text, "is_flag": True}
    return {"help": text, "metavar": "VALUE"}


def _none_if_empty(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    return value or None


def _is(settings: type[BaseSettings], field: str, kind: type) -> bool:
    annotation = settings.model_fields[field].annotation
    return (typing.get_origin(annotation) or annotation) is kind
