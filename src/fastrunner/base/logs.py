"""Support: log records as lines on stderr: readable in local, one JSON object per line in staging and prod.

Rules: an execution's id travels as `extra={"execution_id": ...}`; a document, an input, an output or a secret is never
logged, and what is known to be secret is hidden wherever it appears. Every line is written at once, so that lines of
several processes do not mix. Words from outside start no line of their own and reach no terminal as commands: JSON
escapes them, and so does the form for people.
"""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson

from fastrunner.base.library_logs import LibraryFilter
from fastrunner.base.printable import printable
from fastrunner.base.redaction import redact
from fastrunner.config import Environment, LogLevel

_LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_NAMES: Final = {logging.WARNING: "warn", logging.CRITICAL: "error"}
_COLOURS: Final = {"debug": "\x1b[2m", "info": "\x1b[32m", "warn": "\x1b[33m", "error": "\x1b[31m"}
_RESET: Final = "\x1b[0m"
_CHATTY: Final = ("grpc", "aiohttp", "asyncio", "hpack")
"""Libraries whose chatter is of interest only from warnings on."""


_libraries: Final = LibraryFilter()
_traces: dict[str, Callable[[str], tuple[str, str] | None]] = {}
"""Empty where nothing is traced."""


def name_traces(ids_of: Callable[[str], tuple[str, str] | None]) -> None:
    """Has records about an execution say which trace it is in: `ids_of` gives trace and span by the execution's id."""
    _traces["ids"] = ids_of


def _trace_of(execution_id: object) -> tuple[str, str] | None:
    ids_of = _traces.get("ids")
    return None if ids_of is None else ids_of(str(execution_id))


def count_library_records(count: Callable[[str], object]) -> None:
    """Has every record of a library told to `count`, by the library's name; see `LIBRARIES`."""
    _libraries.count = count


def _level_of(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname.lower())


def _time_of(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _text(value: str) -> str:
    # Lone surrogates cannot be encoded, and a log line must never fail.
    return value.encode("utf-8", "replace").decode("utf-8")


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, process; execution_id, of one that is traced trace_id
    and span_id, and error where there is one."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        fields: dict[str, Any] = {
            "time": _time_of(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": _level_of(record),
            "logger": record.name,
            "message": redact(_text(record.getMessage())),
            "process": self._process,
        }
        execution_id = getattr(record, "execution_id", None)
        if execution_id is not None:
            fields["execution_id"] = _text(str(execution_id))
            ids = _trace_of(execution_id)
            if ids is not None:
                fields["trace_id"], fields["span_id"] = ids
        if record.exc_info:
            fields["error"] = redact(_text(self.formatException(record.exc_info)))
        return orjson.dumps(fields).decode("utf-8")


def json_line(process: str, logger: str, message: str) -> str:
    """What a line of the log would be that says something, for whoever says it elsewhere."""
    return JsonFormatter(process).format(logging.LogRecord(logger, logging.INFO, "", 0, message, None, None))


class ConsoleFormatter(logging.Formatter):
    """A line for people: time, level, process, message, execution id."""

    def __init__(self, process: str, *, colour: bool) -> None:
        super().__init__()
        self._process = process
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and a traceback below it, indented, if there is one."""
        level = _level_of(record)
        shown = f"{_COLOURS[level]}{level:<5}{_RESET}" if self._colour and level in _COLOURS else f"{level:<5}"
        time = _time_of(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        line = f"{time} {shown} {self._process:<10} {printable(redact(record.getMessage()))}"
        execution_id = getattr(record, "execution_id", None)
        if execution_id is not None:
            ids = _trace_of(execution_id)
            line += f" [{printable(str(execution_id))}{'' if ids is None else f' trace {ids[0]}'}]"
        if record.exc_info:
            trace = redact(self.formatException(record.exc_info)).split("\n")
            line += "".join(f"\n  {printable(each)}" for each in trace)
        return line


def configure_logs(environment: Environment, level: LogLevel, process: str, stream: TextIO | None = None) -> None:
    """Sends every record of this process to `stream` (default: stderr), replacing what was configured before."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    _libraries.forget()
    handler.addFilter(_libraries)
    if environment is Environment.LOCAL:
        handler.setFormatter(ConsoleFormatter(process, colour=stream.isatty()))
    else:
        handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    for previous in list(root.handlers):
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, _LEVELS[level]))
