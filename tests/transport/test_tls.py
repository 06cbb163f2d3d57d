"""TLS of the served port: a real runner with certificates, clients that trust it, do not, or have none to show."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from fastrunner.config import ConfigurationError, load_config
from fastrunner.service.methods import QUERY_SERVICE
from tests.integration.runner_process import ROOT, RunnerProcess, children, logged_until, running, until
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


def new_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    key, certificate = folder / f"{name}-key.pem", folder / f"{name}.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    names = ("-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-days", "1")
    openssl("req", "-x509", *curve, "-nodes", *names, "-keyout", key, "-out", certificate)
    return certificate, key


def dated_certificate(folder: Path, name: str, begins_days: int, ends_days: int) -> Path:
    """A certificate that vouches for itself, with its key; its dates are days from now."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now + timedelta(days=begins_days)).not_valid_after(now + timedelta(days=ends_days))
    whole = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    path = folder / f"{name}.pem"
    path.write_bytes(whole + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def shown_by(port: int) -> str:
    """The certificate that a new connection is shown."""
    return ssl.get_server_certificate(("localhost", port), timeout=10)


def put(source: Path, target: Path) -> None:
    """In one step, as mounted files change."""
    shutil.copy(source, target.with_suffix(".new"))
    target.with_suffix(".new").rename(target)


class Load:
    """Health checks, each on a connection of its own or on one of before, until it ends."""

    def __init__(self, runner: RunnerProcess, trusted: bytes) -> None:
        self._runner, self._trusted = runner, trusted
        self.failures: list[grpc.RpcError] = []
        self.count = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(kept,)) for kept in (True, False)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, kept: bool) -> None:
        target = f"localhost:{self._runner.ports['grpc_port']}"
        credentials = grpc.ssl_channel_credentials(self._trusted)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel: Any = grpc.secure_channel(target, credentials, options)
        while not self._stop.is_set():
            try:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)
                self.count += 1
            except grpc.RpcError as error:
                self.failures.append(error)
            if not kept:
                channel.close()
                channel = grpc.secure_channel(target, credentials, options)
        channel.close()


def test_certificate_rotated_under_load(tmp_path: Path) -> None:
    """Both ports show the new one to whoever connects; no call fails, on connections of before nor on new ones."""
    (old, old_key), (new, new_key) = new_certificate(tmp_path, "old"), new_certificate(tmp_path, "new")
    certificate, key = tmp_path / "served.pem", tmp_path / "served-key.pem"
    put(old, certificate)
    put(old_key, key)
    settings = {
        "FASTRUNNER_TLS_CERTIFICATE_FILE": str(certificate),
        "FASTRUNNER_TLS_KEY_FILE": str(key),
        "FASTRUNNER_HTTP_TLS": "true",
    }
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="2", **settings) as runner:
        runner.wait_ready()
        ports = (runner.ports["grpc_port"], runner.ports["http_port"])
        # Which worker a connection reaches is chance: of so many, some reach each.
        shown = [*(ports[0] for _ in range(10)), ports[1]]
        workers = set(children(runner.process.pid))
        with Load(runner, old.read_bytes() + new.read_bytes()) as load:
            assert {shown_by(port) for port in shown} == {old.read_text()}
            put(new_key, key)
            put(new, certificate)
            until(lambda: {shown_by(port) for port in shown} == {new.read_text()})
            begun = load.count
            until(lambda: load.count > begun + 100)
        assert load.failures == []
        # What does not fit together is told, and the one of before goes on.
        put(old, certificate)
        logged_until(runner, "the certificate of before stays")
        assert {shown_by(port) for port in shown} == {new.read_text()}
        assert set(children(runner.process.pid)) == workers
        assert runner.stop()[0] == 0


def test_dates_of_certificates_are_told(tmp_path: Path) -> None:
    """At start, when files change, and of whoever is started anew; they are used all the same."""
    ended, good = dated_certificate(tmp_path, "ended", -9, -2), dated_certificate(tmp_path, "good", -1, 9)
    to_come, served, authority = (
        dated_certificate(tmp_path, "to-come", 5, 9),
        tmp_path / "served.pem",
        tmp_path / "ca.pem",
    )
    put(ended, served)
    authority.write_bytes(ended.read_bytes())
    settings = {
        "FASTRUNNER_TLS_CERTIFICATE_FILE": str(served),
        "FASTRUNNER_TLS_KEY_FILE": str(served),
        "FASTRUNNER_TLS_CLIENT_CA_FILE": str(authority),
        "STIGMER_SERVICE_ENDPOINT": "localhost:1",
        "FASTRUNNER_CALLBACK_CA_FILE": str(ended),
    }
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1", **settings) as runner:
        begun = logged_until(runner, f"FASTRUNNER_CALLBACK_CA_FILE={ended}: a certificate has ended at ")
        end = datetime.now(UTC) - timedelta(days=2)
        assert f"FASTRUNNER_TLS_CERTIFICATE_FILE={served}: a certificate has ended at {end:%Y-%m-%d}" in begun
        assert "and whoever checks it refuses it; renew it: a changed file is taken up by itself" in begun
        assert f"FASTRUNNER_TLS_CLIENT_CA_FILE={authority}: a certificate has ended at {end:%Y-%m-%d}" in begun
        runner.wait_ready()
        authority.write_bytes(ended.read_bytes() + good.read_bytes())
        put(good, served)
        logged_until(runner, "serving with the certificate that is now in")
        put(to_come, served)
        told = logged_until(runner, "a certificate begins only at ")
        assert "a certificate has ended" not in told
        runner.signal(signal.SIGHUP)
        logged_until(runner, "restarting every process")
        assert "see to this machine's clock" in logged_until(runner, "a certificate begins only at ")
        assert runner.stop()[0] == 0


def test_file_that_is_taken_away_is_named_with_its_own_variable(tmp_path: Path) -> None:
    certificate, key = new_certificate(tmp_path, "served")
    authority = tmp_path / "ca.pem"
    shutil.copy(certificate, authority)
    settings = {
        "FASTRUNNER_TLS_CERTIFICATE_FILE": certificate,
        "FASTRUNNER_TLS_KEY_FILE": key,
        "FASTRUNNER_TLS_CLIENT_CA_FILE": authority,
    }
    given = {name: str(file) for name, file in settings.items()}
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1", **given) as runner:
        runner.wait_ready()
        for name, file in settings.items():
            kept = file.rename(tmp_path / "kept")
            logged_until(runner, f"{name}={file}: cannot be read (No such file or directory): put the file there")
            kept.rename(file)
        assert runner.stop()[0] == 0


def test_names_in_certificates(tmp_path: Path) -> None:
    """They are callers, on both ports, by a common name only where there is no other; an authority that is taken away
    vouches for nobody any more."""
    named, named_key = new_certificate(tmp_path, "named")
    key, common = tmp_path / "key.pem", tmp_path / "common.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    openssl("req", "-x509", *curve, "-nodes", "-subj", "/CN=client", "-days", "1", "-keyout", key, "-out", common)
    authorities, callers = tmp_path / "authorities.pem", tmp_path / "callers"
    authorities.write_bytes(named.read_bytes() + common.read_bytes())
    callers.write_text("name=probe roles=read certificate=client\nname=other roles=admin certificate=named\n")
    settings = {
        "FASTRUNNER_TLS_CLIENT_CA_FILE": str(authorities),
        "FASTRUNNER_CALLERS_FILE": str(callers),
        "FASTRUNNER_HTTP_TLS": "true",
        "FASTRUNNER_WORKERS": "1",
    }
    with running(tmp_path / "data", SERVE, **settings, **FILES) as runner:
        runner.wait_ready()

        def code(certificate: Path, key: Path, method: str) -> grpc.StatusCode:
            trusted = grpc.ssl_channel_credentials(AUTHORITY.read_bytes(), key.read_bytes(), certificate.read_bytes())
            with grpc.secure_channel(f"localhost:{runner.ports['grpc_port']}", trusted) as channel:
                served: Any = channel
                try:
                    served.unary_unary(f"/{QUERY_SERVICE}/{method}")(b"", timeout=10)
                except grpc.RpcError as error:
                    refusal: grpc.StatusCode = error.code()
                    return refusal
                return grpc.StatusCode.OK

        def metrics(shown: Path | None = None, key: Path | None = None) -> int:
            context = ssl.create_default_context(cafile=str(AUTHORITY))
            if shown is not None:
                context.load_cert_chain(shown, key)
            try:
                uri = f"https://localhost:{runner.ports['http_port']}/metrics"
                with urllib.request.urlopen(uri, timeout=10, context=context) as reply:
                    return int(reply.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        assert code(common, key, "ListExecutions") is grpc.StatusCode.OK
        assert code(common, key, "DeleteExecution") is grpc.StatusCode.PERMISSION_DENIED
        # Its name is `localhost`, whatever the common one is.
        assert code(named, named_key, "ListExecutions") is grpc.StatusCode.UNAUTHENTICATED
        assert (metrics(common, key), metrics(named, named_key), metrics()) == (200, 401, 401)
        authorities.write_bytes(named.read_bytes())
        until(lambda: code(common, key, "ListExecutions") is grpc.StatusCode.UNAVAILABLE)
        assert runner.stop()[0] == 0


def stranger(port: int, kind: int) -> None:
    """Speaks no TLS, not all of it, not the right protocol, or nonsense within."""
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.set_alpn_protocols((["http/1.1"], ["h2"])[kind % 2])
    with socket.create_connection(("localhost", port), timeout=10) as plain, suppress(OSError):
        if kind in (0, 1):
            plain.sendall((b"GET / HTTP/1.1\r\nAuthorization: Bearer very-secret\r\n\r\n", b"\x16\x03\x01" * 99)[kind])
        elif kind in (2, 3):
            with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
                encrypted.sendall(b"very-secret" * 99)
                encrypted.recv(1)
        else:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            hello = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with suppress(ssl.SSLWantReadError):
                hello.do_handshake()
            plain.sendall(outgoing.read()[: (50, -1)[kind % 2] or None])


def test_strangers_fill_no_log(tmp_path: Path) -> None:
    """Hundreds of them: whoever else comes is served, nothing stays open, and not a line is written."""
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1", **FILES) as runner:
        runner.wait_ready()
        [worker] = [each["pid"] for each in runner.workers()]
        before = len(os.listdir(f"/proc/{worker}/fd"))
        for number in range(300):
            stranger(runner.ports["grpc_port"], number % 6)
        trusting = grpc.ssl_channel_credentials(AUTHORITY.read_bytes())
        assert health(runner, trusting) == HealthCheckResponse.SERVING
        # Of hundreds; the worker opens a few files of its own after it is ready.
        until(lambda: len(os.listdir(f"/proc/{worker}/fd")) < before + 20)
        code, said, complained = runner.stop()
    assert code == 0
    assert "very-secret" not in said + complained
    assert len((said + complained).splitlines()) < 50, complained
