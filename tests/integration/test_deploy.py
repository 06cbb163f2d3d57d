"""What `deploy/` and `_kustomize/` say: valid for Kubernetes, true for the runner, and the same as its own policies."""

import asyncio
import ipaddress
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import kubernetes_validate
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import command_pb2, query_pb2, registry_pb2
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner.access.egress import Egress, Refused
from fastrunner.config import Config, Environment, shown_fields, variable_of
from tests.integration.kubernetes import OVERLAYS, kustomized
from tests.integration.runner_process import ROOT, SERVE, running, until
from tests.integration.wire import path
from tests.outside import require_tool

NAMES = sorted(folder.name for folder in OVERLAYS.iterdir())
OLDEST, NEWEST = "1.29", "1.37"
"""Kubernetes: volumes of one pod are stable since the first."""
MARGIN_S = 5
GIVEN = {"GRPC_PORT", "STIGMER_SERVICE_ENDPOINT", "STIGMER_SERVICE_USE_TLS", "LOG_LEVEL", "ENV"}
DOCUMENT = "document: {dsl: 1.0.3, namespace: try, name: hello, version: 1.0.0}\ndo:\n- greet: {set: {text: hello}}\n"
# An address of each kind that a policy may tell from others.
ADDRESSES = (
    *("8.8.8.8", "1.1.1.1", "10.1.2.3", "172.16.0.1", "172.32.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200"),
    *("169.254.169.254", "169.254.170.2", "168.63.129.16", "127.0.0.1", "0.0.0.0", "192.0.0.192", "192.0.2.1"),
    *("198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.1.2.3"),
    *("2606:4700::1111", "2001:4860:4860::8888", "fd00:ec2::254", "fc00::1", "fe80::1", "::1", "2001:db8::1"),
    *("3fff::1", "ff02::1", "2001:0:0:1::1", "2a00:1450::1"),
)


def built(name: str) -> tuple[dict[str, Any], ...]:
    """The objects of an overlay."""
    return kustomized(OVERLAYS / name)


def only(name: str, kind: str) -> dict[str, Any]:
    [found] = [each for each in built(name) if each["kind"] == kind]
    return found


def container(name: str) -> dict[str, Any]:
    [found] = only(name, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(name: str) -> dict[str, str]:
    """What the container has in its environment."""
    return dict(only(name, "ConfigMap")["data"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid(name: str, version: str) -> None:
    for each in built(name):
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_where_the_documented_commands_look(name: str) -> None:
    namespace = "stigmer-local" if name == "local" else "stigmer-prod"
    for each in built(name):
        assert each["metadata"].get("namespace", namespace if each["kind"] == "Namespace" else "") == namespace
    deployment = only(name, "Deployment")
    assert deployment["metadata"]["name"] == "workflow-runner"
    assert deployment["spec"]["template"]["metadata"]["labels"]["app"] == "workflow-runner"
    chosen = deployment["spec"]["selector"]["matchLabels"]
    for kind in ("Service", "PodDisruptionBudget"):
        selector = only(name, kind)["spec"]["selector"]
        assert selector.get("matchLabels", selector) == chosen
    assert only(name, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_one_of_the_runner_and_all_given_ones_are_there(name: str) -> None:
    known = {variable_of(field) for field in shown_fields()}
    assert set(variables(name)) <= known
    assert set(variables(name)) >= GIVEN
    assert ("TEMPORAL_SERVICE_ADDRESS" in variables(name)) == (name == "prod-temporal")


@pytest.mark.parametrize("name", NAMES)
def test_a_pod_has_the_time_that_a_drain_takes(name: str) -> None:
    pod = only(name, "Deployment")["spec"]["template"]["spec"]
    *_, delay_s = container(name)["lifecycle"]["preStop"]["exec"]["command"]
    needed_s = int(delay_s) + float(variables(name)["FASTRUNNER_DRAIN_TIMEOUT_S"]) + MARGIN_S
    assert pod["terminationGracePeriodSeconds"] >= needed_s


@pytest.mark.parametrize("name", NAMES)
def test_one_machine_has_one_pod_and_many_have_no_volume(name: str) -> None:
    spec = only(name, "Deployment")["spec"]
    kinds = {each["kind"] for each in built(name)}
    if name == "prod-temporal":
        assert "replicas" not in spec
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        assert "HorizontalPodAutoscaler" in kinds
        assert "PersistentVolumeClaim" not in kinds
        assert only(name, "HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2
    else:
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        assert only(name, "PersistentVolumeClaim")["spec"]["accessModes"] != ["ReadWriteMany"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pod_may_do_little(name: str) -> None:
    pod = only(name, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    rights = container(name)["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    mounts = {each["mountPath"] for each in container(name)["volumeMounts"]}
    assert {"/tmp", "/var/lib/fastrunner"} <= mounts


def permits(policy: Mapping[str, Any], text: str) -> bool:
    """Whether a network policy lets a pod reach an address that is none of a pod."""
    address = ipaddress.ip_address(text)
    for rule in policy["spec"]["egress"]:
        for block in (each["ipBlock"] for each in rule["to"] if "ipBlock" in each):
            excepted = any(address in ipaddress.ip_network(part) for part in block.get("except", ()))
            if address in ipaddress.ip_network(block["cidr"]) and not excepted:
                return True
    return False


@pytest.mark.parametrize("text", ADDRESSES)
def test_the_network_policy_is_the_runners_own(text: str) -> None:
    try:
        Egress(environment=Environment.PROD).permitted("host.example", 443, [text])
        allowed = True
    except Refused:
        allowed = False
    assert permits(only("prod", "NetworkPolicy"), text) == allowed


@pytest.mark.parametrize("name", NAMES)
def test_selectors_are_what_is_written(name: str) -> None:
    """Kustomize would add the runner's labels to those of its peers: then no resolver of names would be one."""
    policy = only(name, "NetworkPolicy")["spec"]
    assert policy["podSelector"] == only(name, "Deployment")["spec"]["selector"]
    names, namespace, _ = (rule["to"] for rule in policy["egress"])
    assert [each["podSelector"]["matchLabels"] for each in names] == [{"k8s-app": "kube-dns"}]
    assert namespace == [{"podSelector": {}}]
    callers, _ = (rule["from"] for rule in policy["ingress"])
    assert callers == [{"podSelector": {}}]


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, Path]:
    """What the secrets of the production overlay hold, by the path that a pod has it at."""
    certificate = ROOT / "tests" / "certificates" / "server.pem"
    callers = tmp_path / "callers"
    callers.write_text("name=ci roles=submit,read sha256=" + "0" * 64 + "\n")
    key = tmp_path / "key"
    key.write_text("a-key\n")
    return {
        "/etc/fastrunner/tls/tls.crt": certificate,
        "/etc/fastrunner/tls/tls.key": certificate,
        "/etc/fastrunner/secret/callers": callers,
        "/etc/fastrunner/secret/stigmer-service-api-key": key,
    }


@pytest.mark.parametrize("name", ["local", "prod"])
def test_a_runner_starts_with_what_a_pod_has(name: str, secrets: dict[str, Path], tmp_path: Path) -> None:
    """And its probes answer what the pod's ask for."""
    here = {each: str(secrets.get(value, value)) for each, value in variables(name).items()}
    here |= {"GRPC_PORT": "0", "FASTRUNNER_HTTP_PORT": "0", "FASTRUNNER_DATA_DIR": str(tmp_path / "data")}
    probes = container(name)
    with running(tmp_path / "data", SERVE, **here) as runner:
        runner.scheme = "https" if name == "prod" else "http"
        runner.wait_ready()
        until(runner.ready, 60)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = probes[probe]["httpGet"]
            assert asked.get("scheme", "HTTP") == runner.scheme.upper()
            assert runner.get(asked["path"])[0] == 200
        # A second one on the same volume says why it does not start.
        with running(tmp_path / "data", SERVE, **here) as second:
            code, _, err = second.end(60)
        assert code == 5
        assert "is in use by another runner" in err
        assert runner.stop()[0] == 0


def test_a_document_can_be_run_in_a_pod(tmp_path: Path) -> None:
    """By `kubectl exec`, with the environment of the runner beside it, which listens where others call."""
    document = tmp_path / "hello.yaml"
    document.write_text(DOCUMENT)
    here = {name: value for name, value in variables("local").items() if not name.startswith("STIGMER")}
    command = [sys.executable, "-m", "fastrunner", "run", "--quiet", str(document)]
    for each in ({}, {"FASTRUNNER_AUTH": ""}):
        environment = {**os.environ, **here, **each}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=60)
        assert (done.returncode, json.loads(done.stdout or b"{}")) == (0, {"text": "hello"}), done.stderr


def pairs() -> Iterator[tuple[str, str]]:
    config = json.loads((ROOT / "deploy" / "grpc" / "service-config.json").read_text())
    for part in config["methodConfig"]:
        for name in part["name"]:
            yield name["service"], name["method"]


def test_the_shipped_client_configuration_names_methods_that_are_there() -> None:
    services = {
        service.full_name: service.methods_by_name
        for module in (command_pb2, query_pb2, registry_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    for service, method in pairs():
        assert method in services[service]


async def test_a_client_with_the_shipped_configuration_bridges_a_rollout(tmp_path: Path) -> None:
    """As `Recreate` does it: the old pod drains and goes, then the new one comes, on the same address and volume."""
    text = (ROOT / "deploy" / "grpc" / "service-config.json").read_text()
    channel_options = [("grpc.service_config", text), ("grpc.enable_retries", 1)]
    with running(tmp_path / "data", SERVE) as old:
        old.wait_ready()
        until(old.ready, 60)
        port = str(old.ports["grpc_port"])
        async with grpc.aio.insecure_channel(old.target, channel_options) as channel:
            call = channel.unary_unary(
                path("ExecuteAsync"),
                request_serializer=m.WorkflowExecuteInput.SerializeToString,
                response_deserializer=m.WorkflowExecuteResponse.FromString,
            )

            async def submit(number: int) -> str:
                request = m.WorkflowExecuteInput(workflow_execution_id=f"x{number}", workflow_yaml=DOCUMENT)
                return str((await call(request)).workflow_execution_id)

            assert await submit(0) == "x0"
            assert old.stop()[0] == 0
            waiting = [submit(number) for number in range(1, 20)]
            asked = asyncio.gather(*waiting)
            await asyncio.sleep(0)
            with running(tmp_path / "data", SERVE, GRPC_PORT=port) as new:
                assert await asked == [f"x{number}" for number in range(1, 20)]
                assert await submit(0) == "x0"
                assert new.stop()[0] == 0


def test_the_unit_of_systemd_has_the_time_that_a_drain_takes() -> None:
    unit = (ROOT / "deploy" / "systemd" / "fastrunner.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert float(settings["TimeoutStopSec"]) >= float(Config.model_fields["drain_timeout_s"].default) + MARGIN_S
    assert settings["RestartPreventExitStatus"] == "2"


def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    """But for the program, which is not where an installation has it. Exposure is from 0 to 10, here in tenths."""
    unit = tmp_path / "fastrunner.service"
    text = (ROOT / "deploy" / "systemd" / "fastrunner.service").read_text()
    assert "/opt/fastrunner/bin/fastrunner" in text
    unit.write_text(text.replace("/opt/fastrunner/bin/fastrunner", sys.executable))
    for command in (("verify", "--man=no"), ("security", "--offline=true", "--threshold=25")):
        done = subprocess.run(
            [require_tool("systemd-analyze"), *command, str(unit)], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_the_image_pins_every_dependency() -> None:
    """Extras included; `uv pip compile --generate-hashes --extra all` writes the lock anew."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for name, extra in project["optional-dependencies"].items() if name != "all" for each in extra]
    wanted = {re.split(r"[\[<>=~!;]", each)[0].lower() for each in (*project["dependencies"], *extras)}
    lock = (ROOT / "deploy" / "container" / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==", lock, re.MULTILINE))
    assert wanted <= pinned
    assert lock.count("==") <= lock.count("--hash=sha256:")
