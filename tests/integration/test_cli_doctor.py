"""`fastrunner doctor`: beside a runner that is well, and where one would not be."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.commands import fastrunner
from tests.integration.runner_process import ROOT, SERVE, running, until

CERTIFICATE = ROOT / "tests" / "certificates" / "server.pem"


def doctor(folder: Path, **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by what was looked at."""
    given = {"FASTRUNNER_DATA_DIR": str(folder), "GRPC_PORT": "0", "FASTRUNNER_HTTP_PORT": "0", **variables}
    done = fastrunner("doctor", "--json", environment={**os.environ, **given})
    assert done.stderr == ""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {row["what"]: row for row in rows}


@contextmanager
def receiving(*flags: str, token: str = "") -> Iterator[str]:
    """The reference receiver; gives host:port."""
    command = [sys.executable, "-m", "fastrunner", "receiver", "--port", "0", "--json", *flags]
    environment = {**os.environ, "FASTRUNNER_RECEIVER_TOKEN": token}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{json.loads(process.stdout.readline())['listening'].rpartition(':')[2]}"
        finally:
            process.kill()


def test_beside_a_runner_that_is_well(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with running(folder, SERVE) as runner:
        runner.wait_ready()
        until(runner.ready, 60)
        before = {path.name for path in folder.iterdir()}
        code, findings = doctor(folder, GRPC_PORT="1", FASTRUNNER_HTTP_PORT="1")
        assert code == 0
        assert f"process {runner.process.pid}" in findings["data directory"]["text"]
        assert findings["gRPC port"]["text"].startswith(str(runner.ports["grpc_port"]))
        assert {row["what"] for row in findings.values() if row["state"] == "bad"} == set()
        # The runner itself makes files as it goes.
        made = {path.name for path in folder.iterdir()} - before
        assert {name for name in made if not name.startswith(("shard-", "events.db"))} == set()
        assert runner.stop()[0] == 0
    code, findings = doctor(folder)
    assert code == 0
    assert findings["data directory"]["text"] == f"{folder}, 2 shards"


def test_a_receiver_is_asked_and_told_nothing(tmp_path: Path) -> None:
    plain = {"STIGMER_SERVICE_USE_TLS": "false"}
    with receiving(token="right") as target:
        where = {"STIGMER_SERVICE_ENDPOINT": target, **plain}
        code, findings = doctor(tmp_path, STIGMER_SERVICE_API_KEY="right", **where)
        assert (code, findings["receiver"]["state"]) == (0, "good")
        code, findings = doctor(tmp_path, STIGMER_SERVICE_API_KEY="a-wrong-secret", **where)
        assert (code, findings["receiver"]["state"]) == (1, "bad")
        assert "STIGMER_SERVICE_API_KEY" in findings["receiver"]["remedy"]
        assert "a-wrong-secret" not in json.dumps(findings)
    with receiving("--no-batch") as target:
        code, findings = doctor(tmp_path, STIGMER_SERVICE_ENDPOINT=target, **plain)
        assert (code, findings["receiver"]["state"]) == (0, "good")
    code, findings = doctor(tmp_path, STIGMER_SERVICE_ENDPOINT="127.0.0.1:1", **plain)
    assert (code, findings["receiver"]["state"]) == (1, "bad")


def certificate(path: Path, days: int, begins_days: int = -400) -> Path:
    """A certificate that begins and ends so many days from now, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins_days))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_what_is_no_good_is_told_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        old = str(certificate(tmp_path / "old.pem", -1))
        code, findings = doctor(
            tmp_path / "data",
            FASTRUNNER_HTTP_PORT=port,
            FASTRUNNER_TLS_CERTIFICATE_FILE=old,
            FASTRUNNER_TLS_KEY_FILE=old,
            TEMPORAL_SERVICE_ADDRESS="127.0.0.1:1",
        )
    assert code == 1
    assert findings["HTTP port"]["state"] == "bad"
    assert port in findings["HTTP port"]["text"]
    assert (findings["certificate"]["state"], findings["certificate"]["remedy"]) == ("bad", "renew it")
    assert findings["Temporal"]["state"] == "bad"
    assert all(row["remedy"] for row in findings.values() if row["state"] != "good")
    assert not (tmp_path / "data").exists()
    soon = str(certificate(tmp_path / "soon.pem", 3))
    files = {"FASTRUNNER_TLS_CERTIFICATE_FILE": soon, "FASTRUNNER_TLS_KEY_FILE": soon}
    code, findings = doctor(tmp_path / "data", **files)
    assert (code, findings["certificate"]["state"]) == (0, "doubtful")
    early = str(certificate(tmp_path / "early.pem", 300, begins_days=1))
    files = {"FASTRUNNER_TLS_CERTIFICATE_FILE": early, "FASTRUNNER_TLS_KEY_FILE": early}
    code, findings = doctor(tmp_path / "data", **files, GRPC_PORT=port, FASTRUNNER_HTTP_PORT=port)
    assert (code, findings["certificate"]["state"], "begins" in findings["certificate"]["text"]) == (1, "bad", True)
    assert (findings["gRPC port"]["state"], findings["HTTP port"]["state"]) == ("good", "bad")


def test_folders_that_are_not_there_are_not_made(tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk" / "copy"
    code, findings = doctor(tmp_path / "data", FASTRUNNER_REPLICA_URL=f"file://{elsewhere}")
    assert (code, findings["copy elsewhere"]["state"]) == (0, "doubtful")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "disk").write_text("")
    (tmp_path / "data").symlink_to("nowhere")
    code, findings = doctor(tmp_path / "data", FASTRUNNER_REPLICA_URL=f"file://{elsewhere}")
    assert (code, findings["copy elsewhere"]["state"], findings["data directory"]["state"]) == (1, "bad", "bad")
    code, findings = doctor(tmp_path / "disk" / "data")
    assert (code, findings["data directory"]["text"]) == (1, f"{tmp_path / 'disk'} is no folder")
    code, findings = doctor(tmp_path / ("x" * 300))
    assert (code, "cannot be made" in findings["data directory"]["text"]) == (1, True)


def test_a_data_directory_that_no_runner_would_take(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    code, findings = doctor(folder)
    assert (code, findings["data directory"]["remedy"]) == (1, f"chmod 700 {folder}")
    folder.chmod(0o700)
    (folder / "manifest.json").write_text("{}")
    code, findings = doctor(folder)
    assert code == 1
    assert "is damaged" in findings["data directory"]["text"]
    (folder / "manifest.json").unlink()
    for name in ("manifest.json", "lock"):
        # Nobody ever writes into it: whoever reads waits for ever.
        os.mkfifo(folder / name)
        code, findings = doctor(folder)
        assert (code, name in findings["data directory"]["text"]) == (1, True)
        if name == "manifest.json":
            command = [sys.executable, "-m", "fastrunner", "data", "check", "--data-dir", str(folder)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            assert (done.returncode, "manifest.json is no file" in done.stderr) == (2, True)
        (folder / name).unlink()


def test_a_configuration_that_cannot_be_used_is_told_as_serve_does(tmp_path: Path) -> None:
    environment = {**os.environ, "GRPC_PORT": "many", "FASTRUNNER_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "fastrunner", "doctor"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "GRPC_PORT=many" in done.stderr
