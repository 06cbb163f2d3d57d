"""Support: where secrets are read from, what is none, and which texts show them."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrunner.access.secrets import Secrets
from fastrunner.base import limits, redaction
from fastrunner.base.logs import ConsoleFormatter, JsonFormatter
from fastrunner.base.redaction import hide, redact
from fastrunner.config import ConfigurationError, load_config, secret_variables


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    redaction._hidden.clear()


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("plain", "plain"),
        ("line\n", "line"),
        ("line\r\n", "line"),
        ("two\n\n", "two\n"),
        (" spaced ", " spaced "),
        ('{"user": "ada", "n": 1}\n', {"user": "ada", "n": 1}),
        ("{no json", "{no json"),
        ('["no", "object"]', '["no", "object"]'),
        ("ü", "ü"),
        ("", ""),
    ],
)
def test_a_file_is_a_value(tmp_path: Path, content: str, value: object) -> None:
    (tmp_path / "name").write_bytes(content.encode())
    assert Secrets(tmp_path).read(["name"]) == {"name": value}


def test_a_mounted_secret_is_followed_when_it_is_rotated(tmp_path: Path) -> None:
    """Kubernetes swaps a link to a folder under the links to the files."""
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "key").write_text(f"value-{version}\n")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    secrets = Secrets(tmp_path)
    assert secrets.read(["key", "key"]) == {"key": "value-1"}
    (tmp_path / "..next").symlink_to("..2")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    assert secrets.read(["key"]) == {"key": "value-2"}
    (tmp_path / "key").unlink()
    assert secrets.read(["key"]) == {}


def test_variables_are_values_where_there_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "both").write_text("file")
    secrets = Secrets(tmp_path, {"both": "variable", "API_KEY": "upper", "pair": '{"a": "b"}'})
    assert secrets.read(["both", "api-key", "API_KEY", "pair", "none"]) == {
        "both": "file",
        "api-key": "upper",
        "API_KEY": "upper",
        "pair": {"a": "b"},
    }


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "..", ".", "", "a/b", "a\0b", "..data", ".hidden", "n" * 300]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside").write_text("x")
    (folder / ".hidden").write_text("x")
    assert Secrets(folder, {name: "x"}).read([name]) == {}


def test_what_cannot_be_read_has_no_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "large").write_bytes(b"x" * (limits.SECRET_SIZE_BYTES_MAX + 1))
    (tmp_path / "largest").write_bytes(b"x" * limits.SECRET_SIZE_BYTES_MAX)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    secrets = Secrets(tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert list(secrets.read(["large", "largest", "binary", "folder", "fifo"])) == ["largest"]
    assert sorted(str(record.args[0]) for record in caplog.records if isinstance(record.args, tuple)) == [
        "binary",
        "fifo",
        "folder",
        "large",
    ]


def test_what_is_too_deep_is_text(tmp_path: Path) -> None:
    depth = limits.SECRET_DEPTH_MAX
    for count, kind in ((depth, dict), (depth + 1, str)):
        (tmp_path / "deep").write_text('{"a":' * (count - 1) + "{}" + "}" * (count - 1))
        assert isinstance(Secrets(tmp_path).read(["deep"])["deep"], kind)


# --- what texts show ---


def test_values_are_hidden_in_every_form() -> None:
    hide({"a": ["pass/word+ä1"], "b": "short"})
    for text in ("pass/word+ä1", "pass%2Fword%2B%C3%A41", json.dumps("pass/word+ä1"), "cGFzcy93b3JkK8OkMQ=="):
        assert redact(f"<{text}>") in ("<***>", '<"***">')
    assert redact("short") == "short"


def test_what_is_read_is_hidden_in_logs(tmp_path: Path) -> None:
    (tmp_path / "key").write_text('{"user": "ada", "password": "hunter-2-hunter"}')
    Secrets(tmp_path).read(["key"])
    try:
        raise ValueError("it was hunter-2-hunter")
    except ValueError as error:
        failure = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "said %s", ("hunter-2-hunter",), failure)
    for formatter in (JsonFormatter("test"), ConsoleFormatter("test", colour=False)):
        line = formatter.format(record)
        assert "hunter-2" not in line
        assert "said ***" in line


def test_the_latest_values_are_hidden() -> None:
    hide([f"value-{number:06}" for number in range(limits.SECRETS_HIDDEN_MAX + 1)])
    assert redact("value-000000 value-000001") == "value-000000 ***"


# --- configuration ---


def test_secrets_are_variables_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTRUNNER_SECRET_api_key", "v")
    monkeypatch.setenv("FASTRUNNER_SECRETS_DIR", str(tmp_path))
    assert load_config().secrets_dir == tmp_path
    assert secret_variables() == {"api_key": "v"}
    assert "'v'" not in repr(load_config())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FASTRUNNER_SECRET_", "v-v-v-v-v", "a secret needs a name"),
        ("FASTRUNNER_SECRET_DIR", "v-v-v-v-v", "FASTRUNNER_SECRETS_DIR is meant"),
        ("FASTRUNNER_SECRETS", "v-v-v-v-v", "there is no such variable"),
        ("FASTRUNNER_SECRETS_DIR", "/v-v-v-v-v", "the folder cannot be read"),
    ],
)
def test_misspelt_variables_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said):
        load_config()
