"""Support: log lines: readable in local, JSON in staging and prod."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from fastrunner.base import limits
from fastrunner.base.logs import configure_logs, count_library_records
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
        logging.getLogger("fastrunner.x").exception("failed")
    [record] = map(json.loads, stream.getvalue().splitlines())
    assert record["level"] == "error"
    assert record["error"].endswith("ValueError: broken")


def test_text_that_cannot_be_encoded_is_still_logged() -> None:
    """A lone surrogate, as broken input has it, does not make logging fail."""
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "web0", stream)
    logging.getLogger("fastrunner.x").error("bad \ud800", extra={"execution_id": "\udfff"})
    assert json.loads(stream.getvalue())["message"] == "bad ?"


def test_console_line_is_readable() -> None:
    """Local lines show time, level, process, message and execution id; no colour where nobody sees it."""
    stream = io.StringIO()
    configure_logs(Environment.LOCAL, LogLevel.DEBUG, "worker0", stream)
    logging.getLogger("fastrunner.x").debug("walked", extra={"execution_id": "e-1"})
    [line] = stream.getvalue().splitlines()
    assert line.split(maxsplit=1)[1] == "debug worker0    walked [e-1]"


def test_words_from_outside_start_no_line_and_drive_no_terminal() -> None:
    """Newlines, escape sequences and reversed text are shown as escapes; only a traceback has lines, indented."""
    stream = io.StringIO()
    configure_logs(Environment.LOCAL, LogLevel.DEBUG, "worker0", stream)
    logging.getLogger("fastrunner.x").warning(
        "refused: %s", "no\n12:00 info forged \x1b[2J\x9b\u202eé 👍", extra={"execution_id": "a\rb"}
    )
    try:
        raise ValueError("broken\nforged \x1b[31m")
    except ValueError:
        logging.getLogger("fastrunner.x").exception("failed")
    first, second, *trace = stream.getvalue().splitlines()
    assert first.endswith(r"refused: no\n12:00 info forged \x1b[2J\x9b\u202eé 👍 [a\rb]")
    assert second.endswith("failed")
    assert all(line.startswith("  ") for line in trace)
    assert trace[-2:] == ["  ValueError: broken", r"  forged \x1b[31m"]


def test_colour_is_for_terminals_only() -> None:
    """A terminal gets colours."""
    stream = Terminal()
    configure_logs(Environment.LOCAL, LogLevel.INFO, "worker0", stream)
    logging.getLogger("fastrunner.x").error("failed")
    assert "\x1b[31merror" in stream.getvalue()


def test_levels_and_chatter_are_filtered() -> None:
    """What is below the level is not logged; libraries only from warnings on; Python's warnings are log lines."""
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "worker0", stream)
    logging.getLogger("fastrunner.x").debug("no")
    logging.getLogger("grpc").info("no")
    logging.getLogger("aiohttp.access").info("no")
    logging.getLogger("grpc").warning("yes, %s", "indeed")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages[0] == "yes, %s"
    assert "old" in messages[1]
    assert len(messages) == 2


def said(stream: io.StringIO) -> list[str]:
    """Messages of the lines."""
    return [json.loads(line)["message"] for line in stream.getvalue().splitlines()]


SECRET = "Bearer s3cret"


def test_library_says_nothing_of_what_it_was_about() -> None:
    """Arguments, texts put together beforehand and texts of exceptions may hold anything; where it was stays."""
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "worker0", stream)
    try:
        raise UnicodeDecodeError("utf-8", SECRET.encode() + b"\xff", 13, 14, SECRET)
    except ValueError:
        logging.getLogger("grpc._cython").exception("Invalid encoding on %s", SECRET)
        logging.getLogger("asyncio").exception(f"Exception in callback take({SECRET!r})\nhandle: {SECRET}")
        logging.getLogger("yarl").exception(f"{SECRET}", stack_info=True)
        logging.getLogger("aiohttp.server").exception(ValueError(SECRET))
    assert SECRET not in stream.getvalue()
    assert "s3cret" not in stream.getvalue()
    first, second, third, fourth = said(stream)
    here = "test_library_says_nothing_of_what_it_was_about"
    assert first.startswith("Invalid encoding on %s: UnicodeDecodeError < unit/test_logs.py:")
    assert first.endswith(f"({here})")
    assert second.startswith("Exception in callback take: UnicodeDecodeError")
    assert third.startswith("something at unit/test_logs.py:")
    assert fourth.startswith("something at unit/test_logs.py:")


def test_library_that_repeats_itself_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line now and then for each place of its code, however many records there are."""
    now_s = [1_000.0]
    monkeypatch.setattr("fastrunner.base.clock.monotonic_s", lambda: now_s[0])
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "worker0", stream)
    counted: list[str] = []
    count_library_records(counted.append)
    loggers = [logging.getLogger(name) for name in ("grpc", "aiohttp.web", "somebody")]
    for _ in range(3):
        for _ in range(1_000):
            for logger in loggers:
                logger.warning("again %d", 1)
        now_s[0] += limits.LIBRARY_LOG_INTERVAL_S
    count_library_records(len)
    assert said(stream) == ["again %d"] * 3 + ["again %d (999 more like it before)"] * 6
    assert {name: counted.count(name) for name in set(counted)} == dict.fromkeys(("grpc", "aiohttp", "other"), 3_000)


def test_places_of_a_library_that_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIBRARY_LOG_KINDS_MAX", 3)
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "worker0", stream)
    for line in (1, 2, 3, 3, 4, 4, 1):
        logging.getLogger("grpc").handle(logging.LogRecord("grpc", 40, "x.py", line, "line %d", (line,), None))
    assert len(said(stream)) == 5


def test_long_text_of_a_library() -> None:
    stream = io.StringIO()
    configure_logs(Environment.PROD, LogLevel.INFO, "worker0", stream)
    logging.getLogger("grpc").error("x" * 1_000 + "%s", 1)
    logging.getLogger("asyncio").error("y" * 1_000)
    assert said(stream) == ["x" * limits.LIBRARY_LOG_SIZE_CHARS_MAX, "y" * limits.LIBRARY_LOG_SIZE_CHARS_MAX]
