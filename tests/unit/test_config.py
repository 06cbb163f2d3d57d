"""Support: settings: defaults, refusals that name the variable, secrets, and the generated page."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastrunner.base import extras
from fastrunner.config import (
    Config,
    ConfigurationError,
    Environment,
    LogLevel,
    load_config,
    load_data_settings,
    misspelt,
    runner_target,
    variable_of,
)
from tests.integration.runner_process import ROOT, running


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
        ("STIGMER_SERVICE_ENDPOINT", "https://stigmer:443", "without a scheme"),
        ("STIGMER_SERVICE_ENDPOINT", "dns:///stigmer:443", "without a scheme"),
        ("STIGMER_SERVICE_ENDPOINT", "stigmer:443/path", "host:port"),
        ("STIGMER_SERVICE_ENDPOINT", "me@stigmer:443", "host:port"),
        ("STIGMER_SERVICE_ENDPOINT", "stigmer:50051:443", "host:port"),
        ("STIGMER_SERVICE_ENDPOINT", "stig mer:443", "host:port"),
        ("STIGMER_SERVICE_ENDPOINT", "::1:443", "[::1]:50051"),
        ("STIGMER_SERVICE_ENDPOINT", "[stigmer]:443", "[::1]:50051"),
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


@pytest.mark.parametrize(
    "endpoint", ["stigmer:443", "a.b-c_d.example.:1", "10.0.0.1:65535", "[::1]:443", "[fe80::1]:443"]
)
def test_endpoints_that_are_host_and_port(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("STIGMER_SERVICE_ENDPOINT", endpoint)
    assert load_config().stigmer_service_endpoint == endpoint


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FASTRUNNER_WORKER", "FASTRUNNER_WORKERS is meant, perhaps"),
        ("FASTRUNNER_DATADIR", "FASTRUNNER_DATA_DIR is meant, perhaps"),
        ("fastrunner_retention_sec", "FASTRUNNER_RETENTION_S is meant, perhaps"),
        ("FASTRUNNER_TRAGET", "FASTRUNNER_TARGET is meant, perhaps"),
        ("FASTRUNNER_ZZZ", "docs/configuration.md lists"),
        ("STIGMER_SERVICE_GRPC_ENDPONT", "STIGMER_SERVICE_ENDPOINT is meant, perhaps"),
        ("stigmer_service_apikey", "STIGMER_SERVICE_API_KEY is meant, perhaps"),
    ],
)
def test_name_that_nobody_reads_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    """With the nearest one; its value is not shown, which may be a secret. So do the commands that do not serve."""
    monkeypatch.setenv(name, "sesame")
    for load in (load_config, lambda: load_data_settings(None), runner_target):
        with pytest.raises(ConfigurationError) as refused:
            load()
        [line] = str(refused.value).splitlines()
        assert line.startswith(f"{name}: there is no such variable: {meant}")
        assert "sesame" not in line


def test_names_that_kubernetes_sets_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pod of a namespace with a service `fastrunner`, or `fastrunner-web`, gets these. Ours stay ours."""
    for name, value in {
        "FASTRUNNER_SERVICE_HOST": "10.0.0.1",
        "FASTRUNNER_SERVICE_PORT": "9090",
        "FASTRUNNER_SERVICE_PORT_GRPC": "9090",
        "FASTRUNNER_PORT": "tcp://10.0.0.1:9090",
        "FASTRUNNER_PORT_9090_TCP": "tcp://10.0.0.1:9090",
        "FASTRUNNER_PORT_9090_TCP_ADDR": "10.0.0.1",
        "FASTRUNNER_WEB_PORT": "tcp://10.0.0.2:8080",
        "FASTRUNNER_WEB_SERVICE_HOST": "10.0.0.2",
        "STIGMER_SERVICE_HOST": "10.0.0.3",
        "STIGMER_SERVICE_PORT": "443",
        "STIGMER_SERVICE_PORT_GRPC": "443",
        "STIGMER_SERVICE_SERVICE_HOST": "10.0.0.4",
        "STIGMER_SERVICE_PORT_443_TCP": "tcp://10.0.0.4:443",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_config().http_port == 8080
    monkeypatch.setenv("FASTRUNNER_HTTP_PORT", "tcp://10.0.0.1:8080")
    with pytest.raises(ConfigurationError, match=r"^FASTRUNNER_HTTP_PORT=tcp://10\.0\.0\.1:8080: "):
        load_config()


def test_every_variable_may_be_written_in_small_letters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame")
    monkeypatch.setenv("fastrunner_workers", "3")
    monkeypatch.setenv("stigmer_service_api_key_file", str(tmp_path / "key"))
    config = load_config()
    assert config.workers == 3
    assert config.stigmer_service_api_key is not None


def test_home_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run as users that nobody knows: the sentence names what to set."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    loads: tuple[Callable[[], object], ...] = (load_config, lambda: load_data_settings(None))
    for load in loads:
        with pytest.raises(ConfigurationError, match="FASTRUNNER_DATA_DIR is not set, and there is no home directory"):
            load()
    assert load_data_settings(Path("/somewhere")).data_dir == Path("/somewhere")
    assert load_config(data_dir=Path("/somewhere")).data_dir == Path("/somewhere")


def test_data_directory_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name goes into files and messages; what cannot is refused, given or by default."""
    monkeypatch.setenv("FASTRUNNER_DATA_DIR", os.fsdecode(b"/tmp/d\xff"))
    with pytest.raises(ConfigurationError, match=r"FASTRUNNER_DATA_DIR=/tmp/d.*: a path of UTF-8 text is needed"):
        load_config()
    monkeypatch.delenv("FASTRUNNER_DATA_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", os.fsdecode(b"/tmp/d\xff"))
    with pytest.raises(ConfigurationError, match=r"FASTRUNNER_DATA_DIR=/tmp/d.*: a path of UTF-8 text is needed"):
        load_data_settings(None)


def test_relative_data_directory_needs_a_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="FASTRUNNER_DATA_DIR=data: the current folder cannot be had"):
        load_data_settings(Path("data"))
    monkeypatch.chdir(tmp_path)


def test_commands_on_a_data_directory_need_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the runner's environment is, settings of what serves may be missing or wrong."""
    monkeypatch.setenv("ENV", "prod")
    monkeypatch.setenv("GRPC_PORT", "ninety")
    monkeypatch.setenv("FASTRUNNER_DATA_DIR", str(tmp_path))
    assert load_data_settings(None).data_dir == tmp_path


def test_key_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is what the file holds, in one line; from the environment or by the flag."""
    path = tmp_path / "key"
    path.write_text("sesame\n")
    config = load_config(stigmer_service_api_key_file=str(path))
    assert config.stigmer_service_api_key is not None
    assert config.stigmer_service_api_key.get_secret_value() == "sesame"
    assert "sesame" not in repr(config)
    monkeypatch.setenv("STIGMER_SERVICE_API_KEY_FILE", str(path))
    key = load_config().stigmer_service_api_key
    assert key is not None
    assert key.get_secret_value() == "sesame"
    monkeypatch.setenv("STIGMER_SERVICE_API_KEY", "other")
    with pytest.raises(ConfigurationError, match="are both set: unset one"):
        load_config()


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "it is empty"), (b"\xff", "no UTF-8"), (b"open\nsesame", "printable ASCII"), (None, "No such")],
)
def test_key_that_cannot_be_sent_is_refused(tmp_path: Path, content: bytes | None, why: str) -> None:
    """Without showing it."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=why) as refused:
        load_config(stigmer_service_api_key_file=path)
    assert str(refused.value).startswith("STIGMER_SERVICE_API_KEY")
    assert "sesame" not in str(refused.value)


def test_no_secret_is_a_flag() -> None:
    """Arguments of processes are everybody's to see."""
    shown = subprocess.run(
        [sys.executable, "-m", "fastrunner", "serve", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "--stigmer-service-api-key-file" in shown
    assert "--stigmer-service-api-key " not in shown


@pytest.mark.parametrize("name", ["FASTRUNNER_GRPC_HOST", "FASTRUNNER_HTTP_HOST"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "192.0.2.1", "0"])
def test_ports_open_to_others_need_authentication(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, host: str
) -> None:
    """Or somebody who says that there is to be none, but not both."""
    monkeypatch.setenv(name, host)
    with pytest.raises(ConfigurationError, match=f"{re.escape(name)}={re.escape(host)} .*FASTRUNNER_AUTH=none"):
        load_config()
    callers = tmp_path / "callers"
    callers.touch()
    assert load_config(callers_file=callers).tells_callers_apart
    assert load_config(jwt_issuer="https://id.example", jwt_audience="runner").tells_callers_apart
    assert not load_config(auth="none").tells_callers_apart
    with pytest.raises(ConfigurationError, match="FASTRUNNER_AUTH=none, but FASTRUNNER_CALLERS_FILE"):
        load_config(auth="none", callers_file=callers)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_authentication(host: str) -> None:
    assert not load_config(grpc_host=host, http_host=host).tells_callers_apart


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"jwt_issuer": "https://id.example"}, "FASTRUNNER_JWT_AUDIENCE belong together"),
        ({"jwt_audience": "runner"}, "FASTRUNNER_JWT_AUDIENCE belong together"),
        ({"jwt_namespaces_claim": "namespaces"}, "FASTRUNNER_JWT_NAMESPACES_CLAIM is set without"),
        ({"jwt_issuer": "http://id.example", "jwt_audience": "runner"}, "expected https"),
        ({"jwt_issuer": "id.example", "jwt_audience": "runner"}, "expected an https URI"),
        ({"jwt_issuer": "https://id.example?a=b", "jwt_audience": "runner"}, "expected an https URI"),
        ({"auth": "off"}, "FASTRUNNER_AUTH"),
    ],
)
def test_settings_of_callers_that_are_of_no_use(settings: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(why)):
        load_config(**settings)


def test_temporal_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that this installation cannot honour is no silent no-op."""
    monkeypatch.setattr(extras, "_is_there", lambda module: module != "temporalio")
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "temporal:7233")
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'fastrunner[temporal]'")):
        load_config()


def test_s3_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda module: module != "obstore")
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "temporal:7233")
    monkeypatch.setenv("FASTRUNNER_BLOB_URL", "s3://bucket/prefix")
    with pytest.raises(ConfigurationError, match=re.escape("FASTRUNNER_BLOB_URL")) as refused:
        load_config()
    assert "pip install 'fastrunner[s3]'" in str(refused.value)
    monkeypatch.setenv("FASTRUNNER_BLOB_URL", "file:///mnt/blobs")
    assert load_config().blob_url == "file:///mnt/blobs"


def test_a_copy_within_the_data_directory_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTRUNNER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FASTRUNNER_REPLICA_URL", (tmp_path / "copy").as_uri())
    with pytest.raises(ConfigurationError, match="would be lost with it"):
        load_config()
    monkeypatch.setenv("FASTRUNNER_REPLICA_URL", f"{tmp_path.parent.as_uri()}/other/../{tmp_path.name}/copy")
    with pytest.raises(ConfigurationError, match="would be lost with it"):
        load_config()
    monkeypatch.setenv("FASTRUNNER_REPLICA_URL", "file:///mnt/a%00b")
    with pytest.raises(ConfigurationError, match="U\\+0000"):
        load_config()
    monkeypatch.setenv("FASTRUNNER_REPLICA_URL", f"{tmp_path.as_uri()}-copy")
    assert load_config().replica_url == f"{tmp_path.as_uri()}-copy"


@pytest.mark.parametrize(
    ("name", "value"), [("FASTRUNNER_BLOB_URL", "file:///mnt/blobs"), ("FASTRUNNER_TEMPORAL_KEY_FILE", __file__)]
)
def test_settings_that_are_of_use_on_temporal_alone(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name} is of use only with TEMPORAL_SERVICE_ADDRESS"):
        load_config()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("TEMPORAL_DEPLOYMENT_NAME", "runner.example", "without dots"),
        ("FASTRUNNER_DATA_KEY_FILE", __file__, "FASTRUNNER_TEMPORAL_KEY_FILE"),
        ("FASTRUNNER_REPLICA_URL", "file:///mnt/copy", "FASTRUNNER_REPLICA_URL is of no use"),
    ],
)
def test_settings_that_are_of_no_use_on_temporal(
    name: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda _: True)
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "temporal:7233")
    assert load_config(workers=3).workers == 3
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=why):
        load_config()


CERTIFICATES = Path(__file__).parent.parent / "certificates"
PAIR = CERTIFICATES / "server.pem"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"TEMPORAL_TLS_CLIENT_CERT_PATH": PAIR}, "belong together"),
        ({"TEMPORAL_TLS_CLIENT_KEY_PATH": PAIR}, "belong together"),
        (
            {"TEMPORAL_TLS_CLIENT_CERT_PATH": CERTIFICATES / "ca.pem", "TEMPORAL_TLS_CLIENT_KEY_PATH": PAIR},
            "TEMPORAL_TLS_CLIENT_CERT_PATH=.*no certificate for the key in TEMPORAL_TLS_CLIENT_KEY_PATH=",
        ),
        ({"TEMPORAL_TLS_SERVER_CA_CERT_PATH": __file__}, "TEMPORAL_TLS_SERVER_CA_CERT_PATH=.*no certificates there"),
        ({"TEMPORAL_TLS_SERVER_CA_CERT_PATH": "/nowhere"}, "TEMPORAL_TLS_SERVER_CA_CERT_PATH=/nowhere: there is no"),
        ({"TEMPORAL_TLS": "false", "TEMPORAL_TLS_SERVER_NAME": "t.example"}, "TEMPORAL_TLS=false: unset one"),
        ({"TEMPORAL_TLS": "perhaps"}, "TEMPORAL_TLS=perhaps: "),
        ({"TEMPORAL_TLS_CLIENT_KEY_DATA": "sesame"}, "TEMPORAL_TLS_CLIENT_KEY_DATA is not read here"),
        ({"TEMPORAL_API_KEY": "open sesame\n\x07"}, "TEMPORAL_API_KEY: expected printable ASCII"),
        ({"TEMPORAL_API_KEY": "sesame", "TEMPORAL_API_KEY_FILE": __file__}, "are both set: unset one of them"),
        ({"TEMPORAL_SERVICE_ADDRESS": "http://t.example:7233"}, "whether TLS is used is set by TEMPORAL_TLS$"),
    ],
)
def test_a_connection_to_temporal_that_cannot_be_made(
    given: dict[str, object], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is said at start, by the name of the variable, and without a secret."""
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "temporal:7233")
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigurationError, match=why) as refused:
        load_config()
    assert "sesame" not in str(refused.value)


def test_when_temporal_is_reached_by_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a key, or anything of TLS, unless somebody says otherwise; where executions are kept here nothing counts."""
    monkeypatch.setenv("TEMPORAL_TLS_CLIENT_CERT_DATA", "of another client")
    assert not load_config().temporal_uses_tls
    monkeypatch.delenv("TEMPORAL_TLS_CLIENT_CERT_DATA")
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "temporal:7233")
    assert not load_config().temporal_uses_tls
    assert load_config(temporal_tls=True).temporal_uses_tls
    assert load_config(temporal_tls_server_ca_cert_path=str(CERTIFICATES / "ca.pem")).temporal_uses_tls
    key = tmp_path / "key"
    key.write_text("sesame\n")
    config = load_config(temporal_api_key_file=str(key))
    assert config.temporal_uses_tls
    assert config.temporal_api_key is not None
    assert config.temporal_api_key.get_secret_value() == "sesame"
    assert not load_config(temporal_api_key_file=str(key), temporal_tls=False).temporal_uses_tls


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


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    "uri",
    [
        *("socks5://u:hush-hush@p:1", "https://u:hush-hush@p:1", "http://u:hush-hush@", "http://u:hush-hush@p:99999"),
        *(
            "http://u:hush-hush@p:1/path",
            "http://u:hush-hush@p:1?q",
            "http://u:hüsh-hush@p:1",
            "http://u:hush-hush@p q:1",
        ),
    ],
)
def test_proxies_that_are_none_are_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, uri: str) -> None:
    monkeypatch.setenv(name, uri)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert str(caught.value).startswith(f"{name.upper()}: expected http://host:port of a proxy")
    assert "hush" not in str(caught.value)


def test_proxies_in_capitals_and_in_small_letters_are_the_same_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://u:hush-hush@a:1")
    monkeypatch.setenv("http_proxy", "http://u:hush-hush@a:1")
    proxy = load_config().http_proxy
    assert proxy is not None
    assert proxy.get_secret_value() == "http://u:hush-hush@a:1"
    monkeypatch.setenv("http_proxy", "http://u:hush-hush@b:1")
    with pytest.raises(ConfigurationError, match=r"^HTTP_PROXY and http_proxy are both set, and differ: ") as caught:
        load_config()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["FASTRUNNER_EGRESS_ALLOW", "FASTRUNNER_EGRESS_DENY", "NO_PROXY"])
def test_lists_of_destinations_are_read_whole_or_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A range with bits beyond its length is another one than somebody meant."""
    monkeypatch.setenv(name, "fine.example, 10.0.0.1/8")
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert str(caught.value).startswith(
        f"{name}=fine.example, 10.0.0.1/8: '10.0.0.1/8' is none of: an address, a range"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GRPC_PROT", "GRPC_PORT"),
        ("LOG_LEVL", "LOG_LEVEL"),
        ("log_levell", "LOG_LEVEL"),
        ("TEMPORAL_SERVCE_ADRESS", "TEMPORAL_SERVICE_ADDRESS"),
        ("TEMPORAL_NAMESPCAE", "TEMPORAL_NAMESPACE"),
        ("STIGMER_SERVCE_ENDPOINT", "STIGMER_SERVICE_ENDPOINT"),
        ("FASTRUNER_WORKERS", "FASTRUNNER_WORKERS"),
        ("OTEL_EXPORTER_OTLP_ENPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_names_like_ours_that_may_be_of_others(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(name, "sesame")
    assert load_config().grpc_port == 9090
    assert misspelt() == [f"{name} is not read here: {meant} is meant, perhaps; if so, rename it"]


def test_names_of_others_are_no_slips_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ["TEMPORAL_CLI_ADDRESS", "TEMPORAL_ADDRESS", "OTEL_METRICS_EXPORTER", "FTP_PROXY", "no_proxy", "ENVS"]
    for name in (*others, "GRPC_VERBOSITY", "LOG_FORMAT", "STIGMER_TOKEN", "HTTP_PORT", "grpc_port"):
        monkeypatch.setenv(name, "1")
    assert misspelt() == []


def test_runner_tells_of_names_like_its_own(tmp_path: Path) -> None:
    with running(tmp_path, ["-m", "fastrunner", "serve"], FASTRUNNER_WORKERS="1", LOG_LEVL="debug") as runner:
        runner.wait_ready()
        code, _, err = runner.stop()
    assert code == 0
    assert "LOG_LEVL is not read here: LOG_LEVEL is meant, perhaps; if so, rename it" in err


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
        ({"FASTRUNNER_WORKER": "1"}, "fastrunner: FASTRUNNER_WORKER: there is no such variable"),
        ({"FASTRUNNER_DATA_DIR": os.fsdecode(b"/tmp/\xff")}, "fastrunner: FASTRUNNER_DATA_DIR=/tmp/"),
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


THINGS = (
    *(("shell", None), ("script", "js"), ("script", "javascript"), ("script", "python")),
    *(("container", "ghcr.io/acme/tool:1"), ("container", "docker.io/library/busybox"), ("container", None)),
    *(("mcp", "/opt/mcp/notes"), ("mcp", "npx"), ("mcp", "/opt/mcp/../../bin/sh"), ("mcp", None)),
)
ACME = "shell,script:python,container:ghcr.io/acme/*"
PROD = {"env": "prod", "stigmer_service_endpoint": "localhost:50051"}
OPEN = {"auth": "none", "grpc_host": "0.0.0.0", "http_host": "127.0.0.1"}


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, (*THINGS[:4], *THINGS[7:])),
        ({"run_allowed": "none"}, ()),
        (PROD, ()),
        ({**PROD, "env": "staging"}, ()),
        # Of an image that is not known yet, one may be allowed.
        ({**PROD, "run_allowed": ACME}, (THINGS[0], THINGS[3], THINGS[4], THINGS[6])),
        ({"run_allowed": "script:javascript"}, THINGS[1:3]),
        ({**OPEN, "run_allowed": ACME}, ()),
        ({**OPEN, **PROD, "run_allowed": ACME}, ()),
        ({**OPEN, "grpc_host": "127.0.0.1", "http_host": "0.0.0.0"}, ()),
        ({**OPEN, "grpc_host": "127.0.0.1"}, (*THINGS[:4], *THINGS[7:])),
        ({"run_allowed": "mcp"}, THINGS[7:]),
        # The kernel follows `..`, so a pattern never fits one.
        ({"run_allowed": "mcp:/opt/mcp/*"}, (THINGS[7], THINGS[10])),
        ({"run_allowed": "mcp:npx"}, (THINGS[8], THINGS[10])),
    ],
)
def test_what_documents_may_run(settings: dict[str, str], allowed: tuple[tuple[str, str | None], ...]) -> None:
    refusals = {thing: load_config(**settings).runs.refusal(*thing) for thing in THINGS}
    assert tuple(thing for thing, refusal in refusals.items() if not refusal) == allowed
    assert all("FASTRUNNER_" in refusal for refusal in refusals.values() if refusal)


def test_what_may_be_run_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("shel", "script:ruby", "container:", "workflow", "none,shell", "mcp:a b"):
        monkeypatch.setenv("FASTRUNNER_RUN_ALLOWED", value)
        with pytest.raises(ConfigurationError, match=r"FASTRUNNER_RUN_ALLOWED=.* expected none, or a list of shell"):
            load_config()
