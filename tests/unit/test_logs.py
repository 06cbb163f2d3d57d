"""Support: log lines: readable in local, JSON in staging and prod."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from fastrunner.base.logs import configure_logs
from fastrunner.config import Environment, LogLevel


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("grpc", "aiohttp", "asyncio", "hpack")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)


def test_json_line_has_the_fields() -> None:
    """One object per line: time, level, logger, message, process, and the execution id where there is one."""
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "worker3", stream)
    logging.getLogger("fastrunner.engine").warning("late by %d s", 5, extra={"execution_id": "e-1"})
    logging.getLogger("fastrunner.engine").info("two\nlines")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warn",
        "logger": "fastrunner.engine",
        "message": "late by 5 s",
        "process": "worker3",
        "execution_id": "e-1",
    }
    assert second["message"] == "two\nlines"
    assert "execution_id" not in second


def test_exception_is_part_of_its_line() -> None:
    """A traceback does not break the one-object-per-line form."""
    stream = io.StringIO()
    configure_logs(Environment.STAGING, LogLevel.INFO, "web0", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("x").exception("failed")
    [record] = map(json.loads, stream.getvalue().splitlines())
    assert record["level"] == "error"
    assert record["error"].endswith("ValueError: broken")


def test_text_that_cannot_be_encoded_is_still_logged() -> None:
    """A lone surrogate, as broken input has it, does not make logging fail."""
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "web0", stream)
    logging.getLogger("x").error("bad \ud800", extra={"execution_id": "\udfff"})
    assert json.loads(stream.getvalue())["message"] == "bad ?"


def test_console_line_is_readable() -> None:
    """Local lines show time, level, process, message and execution id; no colour where nobody sees it."""
    stream = io.StringIO()
    configure_logs(Environment.LOCAL, LogLevel.DEBUG, "worker0", stream)
    logging.getLogger("x").debug("walked", extra={"execution_id": "e-1"})
    [line] = stream.getvalue().splitlines()
    assert line.split(maxsplit=1)[1] == "debug worker0    walked [e-1]"


def test_words_from_outside_start_no_line_and_drive_no_terminal() -> None:
    """Newlines, escape sequences and reversed text are shown as escapes; only a traceback has lines, indented."""
    stream = io.StringIO()
    configure_logs(Environment.LOCAL, LogLevel.DEBUG, "worker0", stream)
    logging.getLogger("x").warning(
        "refused: %s", "no\n12:00 info forged \x1b[2J\x9b\u202eé 👍", extra={"execution_id": "a\rb"}
    )
    try:
        raise ValueError("broken\nforged \x1b[31m")
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, second, *trace = stream.getvalue().splitlines()
    assert first.endswith(r"refused: no\n12:00 info forged \x1b[2J\x9b\u202eé 👍 [a\rb]")
    assert second.endswith("failed")
    assert all(line.startswith("  ") for line in trace)
    assert trace[-2:] == ["  ValueError: broken", r"  forged \x1b[31m"]


def test_colour_is_for_terminals_only() -> None:
    """A terminal gets colours."""
    stream = Terminal()
    configure_logs(Environment.LOCAL, LogLevel.INFO, "worker0", stream)
    logging.getLogger("x").error("failed")
    assert "\x1b[31merror" in stream.getvalue()


def test_levels_and_chatter_are_filtered() -> None:
    """What is below the level is not logged; libraries only from warnings on; Python's warnings are log lines."""
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "worker0", stream)
    logging.getLogger("x").debug("no")
    logging.getLogger("grpc").info("no")
    logging.getLogger("aiohttp.access").info("no")
    logging.getLogger("grpc").warning("yes")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages[0] == "yes"
    assert "old" in messages[1]
    assert len(messages) == 2
