"""What deploys us, applied to a real API server: `make apply-check`. `api_server` says what it is without."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api_server import CERTIFICATE, Cluster, cluster, logs_of
from tests.integration.kubernetes import CHART, OVERLAYS
from tests.integration.runner_process import ROOT, SERVE, until
from tests.outside import require_tool

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

NAMES = sorted(folder.name for folder in OVERLAYS.iterdir())
RUNNER = "workflow-runner"
NODE = "node"
# Of the operator's own definition what we use of it.
ENDPOINT: dict[str, Any] = {name: {"type": "string"} for name in ("port", "path", "interval", "scheme")}
ENDPOINT["tlsConfig"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
SERVICE_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "selector": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    "endpoints": {
                                        "type": "array",
                                        "items": {"type": "object", "properties": ENDPOINT},
                                    },
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("kubernetes")) as made:
        yield made


def namespace(name: str) -> str:
    return "stigmer-local" if name == "local" else "stigmer-prod"


def pod_of(deployment: Any, name: str) -> Any:
    """What a controller would make of a Deployment."""
    template = json.loads(json.dumps(deployment["spec"]["template"]))
    place = {"name": name, "namespace": deployment["metadata"]["namespace"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], **place},
        "spec": {**template["spec"], "nodeName": NODE},
    }


def versions(kubernetes: Cluster, folder: str) -> dict[str, Any]:
    """Of every object of a folder: another one after each write but those of controllers."""
    found = json.loads(kubernetes.run("kubectl", "get", "-k", folder, "-o", "json"))["items"]
    assert len(found) > 6
    return {
        f"{each['kind']} {each['metadata']['name']}": each["metadata"].get("generation")
        or each["metadata"]["resourceVersion"]
        for each in found
    }


# In the order in which somebody goes on to Temporal, and comes back.
@pytest.mark.parametrize("name", [*NAMES, "prod"])
def test_an_overlay_is_applied_and_stays_as_it_is(kubernetes: Cluster, name: str) -> None:
    folder = f"_kustomize/overlays/{name}/"
    kubernetes.run("kubectl", "apply", "-k", folder)
    # What the server has is what the folder says, defaults aside; a second time nothing is written.
    kubernetes.run("kubectl", "diff", "-k", folder)
    before = versions(kubernetes, folder)
    kubernetes.run("kubectl", "apply", "-k", folder)
    assert versions(kubernetes, folder) == before
    spec = kubernetes.get("deployment", RUNNER, namespace(name))["spec"]
    [data] = [each for each in spec["template"]["spec"]["volumes"] if each["name"] == "data"]
    assert ("emptyDir" in data) == (name == "prod-temporal")
    assert spec["strategy"]["type"] == ("RollingUpdate" if name == "prod-temporal" else "Recreate")


def test_its_pods_are_let_in_where_only_restricted_ones_are(kubernetes: Cluster) -> None:
    """For both engines; one that asks for more is refused, so something does look."""
    for name in ("prod", "prod-temporal"):
        kubernetes.run("kubectl", "apply", "-k", f"_kustomize/overlays/{name}/")
        pod = pod_of(kubernetes.get("deployment", RUNNER, "stigmer-prod"), f"try-{name}")
        kubernetes.run("kubectl", "apply", "--dry-run=server", "-f", "-", text=json.dumps(pod))
        pod["spec"]["hostNetwork"] = True
        refused = kubernetes.tried("kubectl", "apply", "-f", "-", text=json.dumps(pod))
        assert 'violates PodSecurity "restricted' in refused.stderr


def pods(kubernetes: Cluster) -> list[Any]:
    """Those of the documented selector, in the documented namespace."""
    chosen = ("-l", "app=workflow-runner", "-n", "stigmer-prod")
    return list(json.loads(kubernetes.run("kubectl", "get", "pods", *chosen, "-o", "json"))["items"])


def the_pod(kubernetes: Cluster) -> Any:
    """The only one, once those of what was applied before have gone."""
    until(lambda: len(pods(kubernetes)) == 1, 60)
    [pod] = pods(kubernetes)
    return pod


def test_there_is_never_a_second_pod_on_the_volume(kubernetes: Cluster) -> None:
    """Through a rollout, as the controllers do it."""
    kubernetes.run("kubectl", "apply", "-k", "_kustomize/overlays/prod/")

    def only() -> Any:
        found = pods(kubernetes)
        assert len(found) <= 1
        return found[0]["metadata"]["name"] if found else ""

    before = the_pod(kubernetes)["metadata"]["name"]
    kubernetes.run("kubectl", "rollout", "restart", f"deployment/{RUNNER}", "-n", "stigmer-prod")
    until(lambda: only() not in ("", before), 60)


def test_a_node_with_the_only_pod_can_be_drained(kubernetes: Cluster) -> None:
    kubernetes.run("kubectl", "apply", "-k", "_kustomize/overlays/prod/")
    pod = the_pod(kubernetes)
    ready = json.dumps({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    place = (pod["metadata"]["name"], "-n", "stigmer-prod")
    kubernetes.run("kubectl", "patch", "pod", *place, "--subresource=status", "-p", ready)
    until(lambda: kubernetes.get("pdb", RUNNER, "stigmer-prod").get("status", {}).get("disruptionsAllowed") == 1, 60)


def test_the_documented_commands_show_a_running_runner(kubernetes: Cluster, tmp_path: Path) -> None:
    """A real one, with the environment that the server has for its pod, which nothing but the test puts on a node."""
    kubernetes.run("kubectl", "apply", "-k", "_kustomize/overlays/prod/")
    pod = the_pod(kubernetes)
    [container] = pod["spec"]["containers"]
    [source] = container["envFrom"]
    variables = kubernetes.get("configmap", source["configMapRef"]["name"], "stigmer-prod")["data"]
    callers, key = tmp_path / "callers", tmp_path / "stigmer-service-api-key"
    callers.write_text("name=ci roles=submit,read sha256=" + "0" * 64 + "\n")
    key.write_text("a-key\n")
    there = {f"/etc/fastrunner/secret/{file.name}": str(file) for file in (callers, key)}
    there |= {f"/etc/fastrunner/tls/tls.{part}": str(CERTIFICATE) for part in ("crt", "key")}
    variables = {name: there.get(value, value) for name, value in variables.items()}
    free = {"GRPC_PORT": "0", "FASTRUNNER_HTTP_PORT": "0", "FASTRUNNER_DATA_DIR": str(tmp_path / "data")}
    log = tmp_path / "log"
    with logs_of(log) as port, log.open("wb") as output:
        kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        name = pod["metadata"]["name"]
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"name": NODE}}
        url = f"/api/v1/namespaces/stigmer-prod/pods/{name}/binding"
        kubernetes.run("kubectl", "create", "--raw", url, "-f", "-", text=json.dumps(binding))
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        patch = json.dumps({"status": status})
        kubernetes.run("kubectl", "patch", "node", NODE, "--subresource=status", "-p", patch)
        runner = subprocess.Popen(
            [sys.executable, *SERVE], cwd=ROOT, env={**os.environ, **variables, **free}, stdout=output, stderr=output
        )
        try:
            until(lambda: "ready" in log.read_text() or runner.poll() is not None, 60)
            assert runner.poll() is None, log.read_text()
            listed = kubernetes.run("kubectl", "get", "pods", "-l", "app=workflow-runner", "-n", "stigmer-prod")
            assert [line.split()[0] for line in listed.splitlines()[1:]] == [name]
            followed = subprocess.Popen(
                [require_tool("kubectl"), *["logs", "-f", "deployment/workflow-runner", "-n", "stigmer-prod"]],
                env={**os.environ, **kubernetes.environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                assert followed.stdout is not None
                first = followed.stdout.readline()
                assert json.loads(first)["message"], first
                runner.terminate()
                runner.wait(60)
                # What is said after it was asked comes, too.
                rest = iter(followed.stdout.readline, "")
                assert any("worker 0 ended" in line for line in rest)
            finally:
                followed.kill()
                followed.communicate(timeout=30)
        finally:
            runner.kill()
            runner.wait(30)


def test_monitoring_is_taken_where_its_kind_is_known(kubernetes: Cluster, tmp_path: Path) -> None:
    kubernetes.apply(SERVICE_MONITORS)
    established = "--for=condition=Established"
    kubernetes.run("kubectl", "wait", established, "crd/servicemonitors.monitoring.coreos.com", "--timeout=60s")
    kubernetes.run("kubectl", "apply", "-k", "_kustomize/overlays/prod/")
    up = "../" * len(tmp_path.parts)
    parts = {"resources": "overlays/prod", "components": "components/monitoring-tls"}
    lines = [f"{kind}: ['{up}{str(ROOT).lstrip('/')}/_kustomize/{place}']" for kind, place in parts.items()]
    (tmp_path / "kustomization.yaml").write_text("\n".join(["namespace: stigmer-prod", *lines, ""]))
    kubernetes.run("kubectl", "apply", "-k", str(tmp_path))
    monitor = kubernetes.get("servicemonitor", RUNNER, "stigmer-prod")
    assert monitor["spec"]["endpoints"][0]["scheme"] == "https"
    chosen = monitor["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= kubernetes.get("service", RUNNER, "stigmer-prod")["metadata"]["labels"].items()


def test_the_chart_is_installed_upgraded_to_temporal_and_removed(kubernetes: Cluster) -> None:
    place = ("-n", "charted")
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "charted", "labels": restricted}})
    notes = kubernetes.run("helm", "install", RUNNER, str(CHART), *place)
    assert "kubectl logs -f deployment/workflow-runner -n charted" in notes
    assert "workflow-runner: callers, stigmer-service-api-key" in notes
    until(lambda: kubernetes.run("kubectl", "get", "pods", "-l", "app=workflow-runner", *place, "-o", "name"), 60)
    kubernetes.run("helm", "upgrade", RUNNER, str(CHART), *place, "--values", str(CHART / "values-temporal.yaml"))
    spec = kubernetes.get("deployment", RUNNER, "charted")["spec"]
    assert spec["strategy"]["type"] == "RollingUpdate"
    assert kubernetes.get("hpa", RUNNER, "charted")["spec"]["maxReplicas"] == 10
    # By `helm rollback` Helm 4 comes back, too; Helm 3 stumbles over the volume that has stayed.
    kubernetes.run("helm", "upgrade", RUNNER, str(CHART), *place, "--reset-values")
    assert kubernetes.get("deployment", RUNNER, "charted")["spec"]["strategy"] == {"type": "Recreate"}
    kubernetes.run("helm", "uninstall", RUNNER, *place)
    kinds = "deployment,service,configmap,pdb,networkpolicy,serviceaccount,pvc"
    left = kubernetes.run("kubectl", "get", kinds, "-l", "app=workflow-runner", *place, "-o", "name").split()
    assert left == ["persistentvolumeclaim/workflow-runner-data"]
