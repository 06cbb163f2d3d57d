"""Support: a real API server of Kubernetes with its etcd and the controllers of Deployments and disruption budgets, and
the one thing of a kubelet that `kubectl logs` needs.

Nothing schedules and runs pods, binds volumes or scales. Whatever admission, validation, defaults, selectors, patches,
Pod Security and those controllers do is real.
"""

import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.integration.runner_process import ROOT, until
from tests.outside import require, require_tool
from tests.ports import free_port

__all__ = ["Cluster", "cluster", "logs_of"]

PROGRAMS = ROOT / "build" / "kubernetes"
CONTROLLERS = "deployment-controller,replicaset-controller,disruption-controller"
"""Where `make apply-check` builds them."""
CERTIFICATE = ROOT / "tests" / "certificates" / "server.pem"
TOKEN = "token-of-the-tests"


class Cluster:
    """What kubectl and helm are told of the server."""

    def __init__(self, folder: Path, url: str) -> None:
        config = folder / "kubeconfig"
        self.environment = {"HOME": str(folder), "KUBECONFIG": str(config)}
        """What kubectl and helm find the server by."""
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "tests",
                    "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
                    "clusters": [{"name": "tests", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
                    "users": [{"name": "tests", "user": {"token": TOKEN}}],
                }
            )
        )
        config.chmod(0o600)

    def tried(self, tool: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """A command of kubectl or helm, from the checkout's folder, as users type it."""
        environment = {**os.environ, **self.environment}
        command = [require_tool(tool), *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, input=text, capture_output=True, text=True, check=False, timeout=120
        )

    def run(self, tool: str, *arguments: str, text: str = "") -> str:
        """The same, which has to succeed and has nothing to complain of."""
        done = self.tried(tool, *arguments, text=text)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr, done.stderr
        return done.stdout

    def apply(self, *objects: Any) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.run("kubectl", "apply", "-f", "-", text=text)

    def get(self, kind: str, name: str, namespace: str = "default") -> Any:
        return json.loads(self.run("kubectl", "get", kind, name, "-n", namespace, "-o", "json"))


@contextmanager
def started(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A server without anything in it, gone afterwards."""
    etcd, server, controllers = (PROGRAMS / name for name in ("etcd", "kube-apiserver", "kube-controller-manager"))
    require(etcd.exists() and server.exists() and controllers.exists(), "kube-apiserver (make apply-check builds it)")
    client, peer, port = (free_port() for _ in range(3))
    key = folder / "accounts.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True, timeout=60)
    tokens = folder / "tokens.csv"
    tokens.write_text(f"{TOKEN},tests,tests,system:masters\n")
    store = [f"--data-dir={folder / 'etcd'}", f"--initial-cluster=default=http://127.0.0.1:{peer}"]
    for kind, number in (("client", client), ("peer", peer)):
        initial = "initial-advertise-peer" if kind == "peer" else "advertise-client"
        store += [f"--listen-{kind}-urls=http://127.0.0.1:{number}", f"--{initial}-urls=http://127.0.0.1:{number}"]
    told = [
        *(f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1", f"--secure-port={port}"),
        *(f"--cert-dir={folder / 'certificates'}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC"),
        *("--service-account-issuer=https://tests", f"--service-account-key-file={key}"),
        *(f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.96.0.0/16"),
        *("--endpoint-reconciler-type=none", "--kubelet-preferred-address-types=InternalIP"),
    ]
    with ExitStack() as stack:
        stack.enter_context(started(folder / "etcd.log", str(etcd), *store))
        process = stack.enter_context(started(folder / "apiserver.log", str(server), *told))
        made = Cluster(folder, f"https://127.0.0.1:{port}")

        def ready() -> bool:
            assert process.poll() is None, (folder / "apiserver.log").read_text()[-2000:]
            time.sleep(0.3)
            return made.tried("kubectl", "get", "--raw", "/readyz").stdout == "ok"

        until(ready, 120)
        config = made.environment["KUBECONFIG"]
        asked = [f"--kubeconfig={config}", f"--controllers={CONTROLLERS}", "--leader-elect=false", "--secure-port=0"]
        stack.enter_context(started(folder / "controllers.log", str(controllers), *asked))
        yield made


@contextmanager
def logs_of(file: Path) -> Iterator[int]:
    """The port of something that answers an API server's question for a container's log with a file, and goes on
    with it while it is followed."""

    class Kubelet(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith("/containerLogs/"):
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            with file.open("rb") as log:
                while not ended.is_set():
                    self.wfile.write(log.read())
                    self.wfile.flush()
                    if "follow=true" not in self.path or ended.wait(0.1):
                        break

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is not its place."""

    ended = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with ThreadingHTTPServer(("127.0.0.1", 0), Kubelet) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            ended.set()
            server.shutdown()
            thread.join(30)
