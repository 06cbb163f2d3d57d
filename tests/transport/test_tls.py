"""TLS of the served port: a real runner with certificates, clients that trust it, do not, or have none to show."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from fastrunner.config import ConfigurationError, load_config
from tests.integration.runner_process import ROOT, RunnerProcess, running
from tests.outside import require_tool

CERTIFICATES = Path(__file__).parent.parent / "certificates"
SERVER, AUTHORITY = CERTIFICATES / "server.pem", CERTIFICATES / "ca.pem"
FILES = {"FASTRUNNER_TLS_CERTIFICATE_FILE": str(SERVER), "FASTRUNNER_TLS_KEY_FILE": str(SERVER)}
SERVE = ("-m", "fastrunner", "serve")


def health(runner: RunnerProcess, credentials: grpc.ChannelCredentials | None) -> int:
    """What Check says; raises RpcError."""
    target = f"localhost:{runner.ports['grpc_port']}"
    with grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target) as channel:
        served: Any = channel
        check = served.unary_unary("/grpc.health.v1.Health/Check")
        return int(HealthCheckResponse.FromString(check(HealthCheckRequest().SerializeToString(), timeout=10)).status)


def refused(runner: RunnerProcess, credentials: grpc.ChannelCredentials | None) -> bool:
    with pytest.raises(grpc.RpcError) as caught:
        health(runner, credentials)
    code: grpc.StatusCode = caught.value.code()
    return code is grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    folder = tmp_path_factory.mktemp("tls")
    with running(folder / "data", SERVE, FASTRUNNER_WORKERS="1", **FILES) as runner:
        yield runner.wait_ready()
        assert runner.stop()[0] == 0


def test_only_clients_that_speak_tls_and_trust_it_are_served(runner: RunnerProcess) -> None:
    trusting = grpc.ssl_channel_credentials(AUTHORITY.read_bytes())
    assert health(runner, trusting) == HealthCheckResponse.SERVING
    assert refused(runner, None)
    assert refused(runner, grpc.ssl_channel_credentials())
    assert health(runner, trusting) == HealthCheckResponse.SERVING


def test_command_connects_with_tls(runner: RunnerProcess) -> None:
    command = [
        sys.executable,
        "-m",
        "fastrunner",
        "list",
        "--target",
        f"localhost:{runner.ports['grpc_port']}",
        "--tls",
    ]
    trusting = {**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(AUTHORITY)}
    done = subprocess.run(command, cwd=ROOT, env=trusting, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def openssl(*arguments: str | Path) -> None:
    subprocess.run([require_tool("openssl"), *arguments], check=True, capture_output=True)


def test_clients_must_show_a_certificate(tmp_path: Path) -> None:
    """One that the authority has signed: here it is its own."""
    key, certificate = tmp_path / "key.pem", tmp_path / "client.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    openssl("req", "-x509", *curve, "-nodes", "-subj", "/CN=client", "-keyout", key, "-out", certificate)
    authority = {"FASTRUNNER_TLS_CLIENT_CA_FILE": str(certificate)}
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1", **authority, **FILES) as runner:
        runner.wait_ready()
        trusted = AUTHORITY.read_bytes()
        assert refused(runner, grpc.ssl_channel_credentials(trusted))
        assert refused(runner, grpc.ssl_channel_credentials(trusted, SERVER.read_bytes(), SERVER.read_bytes()))
        known = grpc.ssl_channel_credentials(trusted, key.read_bytes(), certificate.read_bytes())
        assert health(runner, known) == HealthCheckResponse.SERVING
        assert runner.stop()[0] == 0


def encrypted(folder: Path) -> Path:
    made = folder / "encrypted.pem"
    openssl("pkey", "-in", SERVER, "-out", made, "-aes256", "-passout", "pass:sesame")
    return made


def test_files_that_cannot_be_used_refuse_to_start(tmp_path: Path) -> None:
    """One sentence that names the variable; nothing is asked for on a terminal."""
    (tmp_path / "empty.pem").write_text("nothing\n")
    empty = tmp_path / "empty.pem"
    for settings, said in (
        ({"tls_certificate_file": SERVER}, "FASTRUNNER_TLS_KEY_FILE belong together"),
        ({"tls_client_ca_file": AUTHORITY}, "needs both"),
        ({"tls_certificate_file": SERVER, "tls_key_file": empty}, f"FASTRUNNER_TLS_KEY_FILE={empty}: "),
        ({"tls_certificate_file": AUTHORITY, "tls_key_file": SERVER}, f"FASTRUNNER_TLS_CERTIFICATE_FILE={AUTHORITY}: "),
        ({"tls_certificate_file": SERVER, "tls_key_file": encrypted(tmp_path)}, "the key is encrypted"),
        (
            {"tls_certificate_file": SERVER, "tls_key_file": SERVER, "tls_client_ca_file": empty},
            f"FASTRUNNER_TLS_CLIENT_CA_FILE={empty}: ",
        ),
        ({"tls_certificate_file": tmp_path / "absent.pem"}, "FASTRUNNER_TLS_CERTIFICATE_FILE="),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load_config(**settings)
        assert said in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
