"""Support: settings: defaults, refusals that name the variable, secrets, and the generated page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastrunner.config import Config, ConfigurationError, Environment, LogLevel, load_config, variable_of

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Config.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)


def test_defaults_are_the_contracts() -> None:
    """Without any variable the runner starts locally, on the given ports."""
    config = load_config()
    assert (config.grpc_port, config.http_port) == (9090, 8080)
    assert (config.env, config.log_level) == (Environment.LOCAL, LogLevel.INFO)
    assert config.stigmer_service_endpoint is None
    assert config.stigmer_service_use_tls is True
    assert 1 <= config.workers <= (os.cpu_count() or 1)


def test_environment_is_read_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable sets its field; an override by field name, as the flags give it, wins; an empty one is not set."""
    monkeypatch.setenv("GRPC_PORT", "1234")
    monkeypatch.setenv("LOG_LEVEL", "WARN")
    monkeypatch.setenv("FASTRUNNER_WORKERS", "")
    assert load_config().grpc_port == 1234
    assert load_config().log_level is LogLevel.WARN
    assert load_config(grpc_port="4321", http_port=None).grpc_port == 4321


def test_data_directory_follows_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default data directory is below $XDG_STATE_HOME."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert load_config().data_dir == tmp_path / "fastrunner"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("GRPC_PORT", "nine", "valid integer"),
        ("GRPC_PORT", "65536", "less than or equal to 65535"),
        ("FASTRUNNER_WORKERS", "0", "greater than or equal to 1"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warn' or 'error'"),
        ("ENV", "production", "'local', 'staging' or 'prod'"),
        ("STIGMER_SERVICE_USE_TLS", "maybe", "valid boolean"),
        ("STIGMER_SERVICE_ENDPOINT", "localhost", "host:port"),
        ("STIGMER_SERVICE_ENDPOINT", "localhost:0", "host:port"),
        ("FASTRUNNER_DRAIN_TIMEOUT_S", "inf", "finite"),
        ("FASTRUNNER_DRAIN_TIMEOUT_S", "-1", "greater than 0"),
    ],
)
def test_bad_value_names_variable_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    """A bad value refuses to start with one line."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as refused:
        load_config()
    [line] = str(refused.value).splitlines()
    assert line.startswith(f"{variable}={value}: ")
    assert allowed in line
    assert "Input" not in line
    assert "parse" not in line


def test_every_bad_value_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """All problems at once, one line each."""
    monkeypatch.setenv("GRPC_PORT", "x")
    monkeypatch.setenv("FASTRUNNER_HTTP_PORT", "y")
    with pytest.raises(ConfigurationError) as refused:
        load_config()
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_deployments_need_a_callback_endpoint(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    """Without STIGMER_SERVICE_ENDPOINT staging and prod refuse to start; with it they start."""
    monkeypatch.setenv("ENV", environment)
    with pytest.raises(ConfigurationError, match="STIGMER_SERVICE_ENDPOINT is required"):
        load_config()
    monkeypatch.setenv("STIGMER_SERVICE_ENDPOINT", "stigmer:443")
    assert load_config().stigmer_service_endpoint == "stigmer:443"


def test_temporal_engine_is_refused_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that this version cannot honour is no silent no-op."""
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "temporal:7233")
    with pytest.raises(ConfigurationError, match="TEMPORAL_SERVICE_ADDRESS"):
        load_config()


def test_crash_points_are_checked_and_refused_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's own setting takes only points there are, and never runs where it could do harm."""
    monkeypatch.setenv("FASTRUNNER_CRASH_POINT", "before-commit:3,after-lunch")
    with pytest.raises(ConfigurationError, match="before-journal-write"):
        load_config()
    monkeypatch.setenv("FASTRUNNER_CRASH_POINT", "before-commit:3,after-commit")
    assert load_config().crash_point == "before-commit:3,after-commit"
    monkeypatch.setenv("STIGMER_SERVICE_ENDPOINT", "stigmer:443")
    monkeypatch.setenv("ENV", "prod")
    with pytest.raises(ConfigurationError, match="FASTRUNNER_CRASH_POINT kills the runner"):
        load_config()


def test_deadly_turns_are_checked_and_refused_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    """As crash points are."""
    for wrong in ("segv", "segv:lunch:x", "tickle:turn:x"):
        monkeypatch.setenv("FASTRUNNER_CRASH_TURN", wrong)
        with pytest.raises(ConfigurationError, match="blows of segv"):
            load_config()
    monkeypatch.setenv("FASTRUNNER_CRASH_TURN", "segv:turn:a,hang:render:b")
    assert load_config().crash_turn == "segv:turn:a,hang:render:b"
    monkeypatch.setenv("STIGMER_SERVICE_ENDPOINT", "stigmer:443")
    monkeypatch.setenv("ENV", "prod")
    with pytest.raises(ConfigurationError, match="FASTRUNNER_CRASH_TURN kills the runner"):
        load_config()


def test_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API key is in no representation of the settings."""
    monkeypatch.setenv("STIGMER_SERVICE_API_KEY", "sesame")
    config = load_config()
    assert "sesame" not in repr(config) + str(config) + str(config.model_dump())
    assert config.stigmer_service_api_key is not None
    assert config.stigmer_service_api_key.get_secret_value() == "sesame"


def test_white_space_around_the_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mounted secret ends with a newline."""
    monkeypatch.setenv("STIGMER_SERVICE_API_KEY", " hush-hush\r\n")
    key = load_config().stigmer_service_api_key
    assert key is not None
    assert key.get_secret_value() == "hush-hush"


@pytest.mark.parametrize("key", ["hush\nhush", "hush\x1bhush", "hüsh-hush", " \n"])
def test_key_that_no_header_holds_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("STIGMER_SERVICE_API_KEY", key)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert str(caught.value).startswith("STIGMER_SERVICE_API_KEY: expected ")
    assert "sh" not in str(caught.value)


def test_configuration_page_is_current() -> None:
    """docs/configuration.md is what the settings say."""
    command = [sys.executable, str(ROOT / "tools" / "gen_docs.py"), "--check"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"GRPC_PORT": "ninety"}, "fastrunner: GRPC_PORT=ninety: "),
        ({"ENV": "prod"}, "fastrunner: STIGMER_SERVICE_ENDPOINT is required with ENV=prod"),
    ],
)
def test_command_refuses_a_bad_configuration(environment: dict[str, str], line: str, tmp_path: Path) -> None:
    """`fastrunner serve` says one clear line on stderr and exits with 2."""
    command = [sys.executable, "-m", "fastrunner", "serve"]
    inherited = {**os.environ, "FASTRUNNER_DATA_DIR": str(tmp_path), **environment}
    completed = subprocess.run(command, env=inherited, capture_output=True, text=True, check=False, timeout=60)
    assert completed.returncode == 2
    assert completed.stdout == ""
    [said] = completed.stderr.splitlines()
    assert said.startswith(line)
