"""Support: what calls need libraries that are installed only for whoever wants them, and with which extra they come.

Rules: pure but for a look at what is installed, which imports nothing. The validator asks it of every document, the
performers once more: what a fetched document leads to is not known before. Every refusal names what to install.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Final

__all__ = [
    "EXTRAS",
    "Extra",
    "engine_refusal",
    "extra_refusal",
    "stigmer_refusal",
    "store_refusal",
    "tracing_refusal",
]


@dataclass(frozen=True, slots=True)
class Extra:
    """Libraries under one name in the project's optional dependencies."""

    name: str
    """As in `pip install 'fastrunner[NAME]'`."""
    module: str
    """The module that is there if the extra is."""


_TEMPORAL: Final = Extra("temporal", "temporalio")
_S3: Final = Extra("s3", "obstore")
_STIGMER: Final = Extra("stigmer", "pymongo")
_OTEL: Final = Extra("otel", "opentelemetry.proto")
_MQTT: Final = Extra("mqtt", "paho")

EXTRAS: Final = {
    "mcp": Extra("mcp", "mcp"),
    "a2a": Extra("a2a", "a2a"),
    "asyncapi:kafka": Extra("kafka", "aiokafka"),
    "asyncapi:amqp": Extra("amqp", "aiormq"),
    "asyncapi:mqtt": _MQTT,
    "asyncapi:mqtt5": _MQTT,
    "asyncapi:nats": Extra("nats", "nats"),
    "asyncapi:redis": Extra("redis", "redis"),
}
"""By what a document calls: a protocol, of `asyncapi` with the protocol of its server. What is not here needs none."""


def extra_refusal(call: str) -> str:
    """Why something cannot be called, by a key of `EXTRAS`; empty if it can."""
    extra = EXTRAS.get(call)
    if extra is None or _is_there(extra.module):
        return ""
    name, _, protocol = call.partition(":")
    what = f"call: {name} over {protocol}" if protocol else f"call: {name}"
    return f"{what} needs libraries that are not installed here: pip install 'fastrunner[{extra.name}]'"


def engine_refusal() -> str:
    """Why the distributed engine cannot be used; empty if it can."""
    if _is_there(_TEMPORAL.module):
        return ""
    return f"Temporal needs libraries that are not installed here: pip install 'fastrunner[{_TEMPORAL.name}]'"


def store_refusal() -> str:
    """Why blobs cannot lie in S3; empty if they can."""
    if _is_there(_S3.module):
        return ""
    return f"S3 needs libraries that are not installed here: pip install 'fastrunner[{_S3.name}]'"


def stigmer_refusal() -> str:
    """Why a Stigmer Service cannot use MongoDB and Redis; empty if it can."""
    if _is_there(_STIGMER.module) and _is_there(EXTRAS["asyncapi:redis"].module):
        return ""
    return f"it needs libraries that are not installed here: pip install 'fastrunner[{_STIGMER.name}]'"


def tracing_refusal() -> str:
    """Why nothing can be traced; empty if it can."""
    if _is_there(_OTEL.module):
        return ""
    return f"tracing needs libraries that are not installed here: pip install 'fastrunner[{_OTEL.name}]'"


@cache
def _is_there(module: str) -> bool:
    # What is installed later counts from the next start, like any other change of what a process is made of.
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # A package around it.
        return False
