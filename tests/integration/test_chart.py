"""The chart of `deploy/helm`: valid for Kubernetes, and the same objects that kustomize makes for the same settings."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

import fastrunner
from fastrunner.config import shown_fields, variable_of
from tests.integration.kubernetes import CHART, OVERLAYS, Object, charted, helm, kustomized, normal, ran
from tests.outside import require_tool

FILES = {"local": "values-local.yaml", "prod": "values.yaml", "prod-temporal": "values-temporal.yaml"}
OLDEST, NEWEST = "1.29", "1.37"
SERVICE_MONITOR = ("--set", "monitoring.serviceMonitor.enabled=true")
# What a user may say beyond the overlays, everything at once.
MUCH: tuple[str, ...] = (
    *(
        "name=second",
        "image.digest=sha256:" + "0" * 64,
        "image.pullSecrets[0].name=registry",
        "image.pullPolicy=Always",
    ),
    *("config.FASTRUNNER_EXECUTIONS_MAX=2000000", "tls.secretName=certificate", "config.NO_PROXY=a.example"),
    *("secret.variables.HTTPS_PROXY=proxy", "secret.files.FASTRUNNER_DATA_KEY_FILE=data-key", "secret.name=mine"),
    *("drainTimeoutS=90.5", "preStopS=10", "persistence.storageClassName=fast", "serviceAccount.existing=somebody"),
    *("service.type=LoadBalancer", "service.annotations.a=b", "podLabels.team=flows", "podAnnotations.a=b"),
    *(
        "networkPolicy.callers[0].namespaceSelector.matchLabels.calls=yes",
        "nodeSelector.disk=ssd",
        "tolerations[0].key=x",
    ),
    *("networkPolicy.egress[0].to[0].ipBlock.cidr=10.1.0.0/16", "config.FASTRUNNER_WORKFLOWS_DIR=/flows"),
    *("extraVolumes[0].name=flows", "extraVolumes[0].configMap.name=flows", "httpPort=8081", "grpcPort=9091"),
    *(
        "extraVolumeMounts[0].name=flows",
        "extraVolumeMounts[0].mountPath=/flows",
        "config.FASTRUNNER_WORKFLOWS_DIR=/flows",
    ),
)


def namespace(name: str) -> str:
    return "stigmer-local" if name == "local" else "stigmer-prod"


def chart(name: str, *arguments: str) -> tuple[Object, ...]:
    """The objects of the chart with the values that are an overlay's."""
    return charted(namespace(name), "--values", str(CHART / FILES[name]), *arguments)


def much() -> tuple[Object, ...]:
    return charted("apart", *(part for each in MUCH for part in ("--set", each)))


def by_name(objects: tuple[Object, ...]) -> dict[tuple[str, str], Object]:
    found = [normal(each) for each in objects if each["kind"] != "Namespace"]
    assert found
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def refusal(*arguments: str) -> str:
    """What Helm says to values that cannot be used."""
    command = helm("template", "workflow-runner", "apart", *(part for each in arguments for part in ("--set", each)))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize("name", FILES)
def test_the_chart_makes_what_the_overlay_makes(name: str) -> None:
    assert by_name(chart(name)) == by_name(kustomized(OVERLAYS / name))


def test_every_overlay_has_its_values() -> None:
    assert set(FILES) == {folder.name for folder in OVERLAYS.iterdir()}
    assert {file.name for file in CHART.glob("values*.yaml")} == set(FILES.values())


@pytest.mark.parametrize(("name", "component"), [("prod", "monitoring-tls"), ("local", "monitoring")])
def test_monitoring_is_the_component(name: str, component: str, tmp_path: Path) -> None:
    links = {"resources": OVERLAYS / name, "components": OVERLAYS.parent / "components" / component}
    up = "../" * len(tmp_path.parts)
    lines = [f"{kind}: ['{up}{str(folder).lstrip('/')}']" for kind, folder in links.items()]
    (tmp_path / "kustomization.yaml").write_text("\n".join([f"namespace: {namespace(name)}", *lines, ""]))
    made = by_name(chart(name, *SERVICE_MONITOR))[("ServiceMonitor", "workflow-runner")]
    wanted = by_name(kustomized(tmp_path))[("ServiceMonitor", "workflow-runner")]
    assert made == wanted


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid(version: str) -> None:
    """Those of the three files of values are the overlays', which are held against the schemas, too."""
    for each in (*chart("prod-temporal", *SERVICE_MONITOR), *chart("local"), *much()):
        if each["kind"] != "ServiceMonitor":
            kubernetes_validate.validate(each, version, strict=True)


def test_lint_has_nothing_to_say() -> None:
    for file in FILES.values():
        ran(require_tool("helm"), "lint", "--strict", "--quiet", str(CHART), "--values", str(CHART / file))


def only(objects: tuple[Object, ...], kind: str) -> Any:
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def test_what_is_asked_for_is_there() -> None:
    made = much()
    assert {each["metadata"]["name"] for each in made} == {"second", "second-data"}
    assert "ServiceAccount" not in {each["kind"] for each in made}
    pod = only(made, "Deployment")["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 10 + 90.5 + 5
    assert pod["spec"]["serviceAccountName"] == "somebody"
    assert container["image"].endswith("fastrunner@sha256:" + "0" * 64)
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "proxy"}
    assert {container[f"{probe}Probe"]["httpGet"]["scheme"] for probe in ("startup", "liveness", "readiness")} == {
        "HTTPS"
    }
    assert {each["containerPort"] for each in container["ports"]} == {8081, 9091}
    data = only(made, "ConfigMap")["data"]
    # Helm's own text of such a number is 2e+06.
    assert (data["FASTRUNNER_EXECUTIONS_MAX"], data["FASTRUNNER_DRAIN_TIMEOUT_S"]) == ("2000000", "90.5")
    assert data["FASTRUNNER_DATA_KEY_FILE"] == "/etc/fastrunner/secret/data-key"
    assert set(data) <= {variable_of(field) for field in shown_fields()}


def schemes(objects: tuple[Object, ...]) -> list[str]:
    """How each of those that ask for something by HTTP asks, and what the service says of its ports."""
    deployment, service = only(objects, "Deployment")["spec"]["template"], only(objects, "Service")
    [container] = deployment["spec"]["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    return [
        *(each.get("scheme", "HTTP") for each in probes),
        deployment["metadata"]["annotations"].get("prometheus.io/scheme", "http"),
        only(objects, "ServiceMonitor")["spec"]["endpoints"][0].get("scheme", "http"),
        *(each["appProtocol"] for each in service["spec"]["ports"]),
        only(objects, "ConfigMap")["data"]["FASTRUNNER_HTTP_TLS"],
    ]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], ["HTTPS"] * 3 + ["https"] * 4 + ["true"]),
        (["tls.http=false"], ["HTTP"] * 3 + ["http"] * 2 + ["https", "http", "false"]),
        (["tls.secretName="], ["HTTP"] * 3 + ["http"] * 2 + ["kubernetes.io/h2c", "http", "false"]),
        (
            # A certificate of one's own.
            [
                "tls.secretName=",
                "secret.files.FASTRUNNER_TLS_CERTIFICATE_FILE=c",
                "secret.files.FASTRUNNER_TLS_KEY_FILE=k",
                "monitoring.serviceMonitor.tlsConfig.insecureSkipVerify=true",
            ],
            ["HTTPS"] * 3 + ["https"] * 4 + ["true"],
        ),
    ],
)
def test_everybody_asks_by_tls_where_there_is_tls(values: list[str], wanted: list[str]) -> None:
    arguments = [part for each in values for part in ("--set", each)]
    assert schemes(chart("prod", *SERVICE_MONITOR, *arguments)) == wanted


def test_changed_configuration_is_a_rollout() -> None:
    template = "Deployment"
    before = only(chart("prod"), template)["spec"]["template"]["metadata"]["annotations"]
    after = only(chart("prod", "--set", "logLevel=warn"), template)["spec"]["template"]["metadata"]["annotations"]
    assert {name for name in before if before[name] != after[name]} == {"checksum/config"}


def test_the_volume_outlives_the_release() -> None:
    claim = only(chart("prod"), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["secret.files.FASTRUNNER_CALLERS_FILE=null"], "nothing tells callers apart"),
        (["config.FASTRUNNER_DATA_DIR=/elsewhere"], "FASTRUNNER_DATA_DIR"),
        (["config.FASTRUNNER_HTTP_TLS=true"], "FASTRUNNER_HTTP_TLS"),
        (
            ["tls.secretName=", "config.FASTRUNNER_TLS_CERTIFICATE_FILE=/a", "monitoring.serviceMonitor.enabled=true"],
            "monitoring.serviceMonitor.tlsConfig says which authority",
        ),
        (["config.FASTRUNNER_EXECUTION_MAX=1"], "FASTRUNNER_EXECUTION_MAX"),
        (["config.STIGMER_SERVICE_API_KEY=k"], "STIGMER_SERVICE_API_KEY"),
        (["config.FASTRUNNER_CALLERS_FILE=/a"], "config.FASTRUNNER_CALLERS_FILE: the chart sets it from another value"),
        (["env=production"], "/env"),
        (["drainTimeotS=3"], "drainTimeotS"),
        (["persistence.accessModes[0]=ReadWriteMany"], "/persistence/accessModes/0"),
        (["stigmerService.endpoint=nowhere"], "/stigmerService/endpoint"),
    ],
)
def test_what_cannot_be_used_is_refused(values: list[str], words: str) -> None:
    assert words in refusal(*values)


def test_the_chart_has_the_runners_version() -> None:
    lines = (CHART / "Chart.yaml").read_text().splitlines()
    assert f"version: {fastrunner.__version__}" in lines
    assert f"appVersion: {fastrunner.__version__}" in lines
