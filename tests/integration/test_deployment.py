"""The commands of docs/deployment.md and of the chart's page as they stand, without a cluster and without containers.

`kubectl create` and `helm install` are the real ones, told to change nothing; what an overlay makes is rendered by
`kubectl kustomize`. What asks a cluster is held against the rendered objects: namespaces, names, labels, secrets.
`make apply-check` runs the same against a real API server, `make image-check` the image.
"""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fastrunner.config import Config, shown_fields, variable_of
from tests.integration.kubernetes import Object, objects
from tests.integration.runner_process import ROOT, SERVE, running
from tests.integration.test_newcomer import commands
from tests.outside import require_tool
from tests.unit.test_docs import blocks

PAGE, CHART_PAGE = ROOT / "docs" / "deployment.md", ROOT / "deploy" / "helm" / "fastrunner" / "README.md"
CERTIFICATE = ROOT / "tests" / "certificates" / "server.pem"
IMAGE = "fastrunner"
"""As the overlays name it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands are typed, with the files that they name."""
    shutil.copytree(ROOT / "_kustomize", tmp_path / "_kustomize")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "key.txt").write_text("a-key\n")
    (tmp_path / "callers.txt").write_text("name=ci roles=submit,read sha256=" + "0" * 64 + "\n")
    for name in ("server.pem", "server.key"):
        shutil.copy(CERTIFICATE, tmp_path / name)
    return tmp_path


def block(page: Path, part: str) -> list[str]:
    """The commands of the block of a page that has `part`, a line each."""
    [text] = [each for each in blocks(page, "sh") if part in each]
    return [command.replace("\\\n", " ") for command in commands(text)]


def said(folder: Path, *command: str) -> str:
    environment = {**os.environ, "KUBECONFIG": str(folder / "no-cluster")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def options(words: list[str]) -> dict[str, str]:
    """Options of a command and what they are given: `-n x`, `--name=x`."""
    found = {}
    for at, word in enumerate(words):
        if word.startswith("-"):
            name, separator, value = word.partition("=")
            found[name] = value if separator else words[at + 1] if at + 1 < len(words) else ""
    return found


def edited(folder: Path, command: str) -> None:
    """`(cd FOLDER && kustomize edit set image OLD=NEW:TAG)`, which kubectl cannot: its entry in the list of images."""
    words = shlex.split(command.strip("()"))
    place, image = words[1], words[-1]
    assert words == ["cd", place, "&&", "kustomize", "edit", "set", "image", image]
    name, _, new = image.partition("=")
    new_name, _, tag = new.rpartition(":")
    file, yaml = folder / place / "kustomization.yaml", YAML()
    content = yaml.load(file.read_text())
    [entry] = [each for each in content["images"] if each["name"] == name]
    entry["newName"], entry["newTag"] = new_name, tag
    yaml.dump(content, file)


def one(made: "tuple[Object, ...] | list[Object]", kind: str) -> Object:
    [found] = [each for each in made if each["kind"] == kind]
    return found


def volumes(deployment: Object) -> dict[str, list[dict[str, Any]]]:
    """The secrets that its pod has as files."""
    return {
        each["secret"]["secretName"]: each["secret"].get("items", [])
        for each in deployment["spec"]["template"]["spec"]["volumes"]
        if "secret" in each
    }


def created(folder: Path, page: Path) -> list[Object]:
    """What the `kubectl create` of a page would make."""
    found = []
    for command in block(page, "kubectl create"):
        words = shlex.split(command)
        if words[:2] == ["kubectl", "create"]:
            whole = (require_tool("kubectl"), *words[1:], "--dry-run=client", "--output=json")
            found.append(json.loads(said(folder, *whole)))
    return found


def rendered(folder: Path, place: str) -> tuple[Object, ...]:
    return objects(said(folder, require_tool("kubectl"), "kustomize", place).encode())


@pytest.mark.parametrize("page", [PAGE, CHART_PAGE], ids=["overlay", "chart"])
def test_what_is_made_by_hand_is_what_the_pod_expects(page: Path, folder: Path) -> None:
    """The namespace; each secret that is mounted, under its name, with the files that the environment names."""
    made = created(folder, page)
    objects_ = rendered(folder, "_kustomize/overlays/prod")
    deployment = one(objects_, "Deployment")
    namespace = one(made, "Namespace")["metadata"]["name"]
    assert namespace == deployment["metadata"]["namespace"]
    secrets = {each["metadata"]["name"]: each for each in made if each["kind"] == "Secret"}
    assert set(secrets) == set(volumes(deployment))
    files = {each for secret in secrets.values() for each in secret["data"]}
    given = one(objects_, "ConfigMap")["data"]
    named = {value.rpartition("/")[2] for value in given.values() if value.startswith("/etc/fastrunner/")}
    assert named <= files
    for secret in secrets.values():
        assert secret["metadata"]["namespace"] == namespace
        wanted = {item["key"] for item in volumes(deployment)[secret["metadata"]["name"]]}
        assert wanted <= set(secret["data"])


def test_the_image_is_set_and_what_is_asked_of_the_cluster_is_there(folder: Path) -> None:
    kinds = set()
    objects_: tuple[Object, ...] = ()
    for command in block(PAGE, "kubectl apply"):
        words = shlex.split(command.strip("()"))
        given = options(words)
        if words[0] == "cd":
            edited(folder, command)
        elif words[1] == "apply":
            objects_ = rendered(folder, given["-k"])
            [container] = one(objects_, "Deployment")["spec"]["template"]["spec"]["containers"]
            assert container["image"] == "YOUR/fastrunner:0.1.0"
        elif words[1] != "create":
            deployment = one(objects_, "Deployment")
            assert given["-n"] == deployment["metadata"]["namespace"]
            label, _, value = given.get("-l", "app=workflow-runner").partition("=")
            assert deployment["spec"]["template"]["metadata"]["labels"][label] == value
            assert words[1] != "logs" or f"deployment/{deployment['metadata']['name']}" in words
        kinds.add(words[1])
    assert kinds == {"create", "_kustomize/overlays/prod", "apply", "get", "logs"}


@pytest.mark.parametrize("page", [PAGE, CHART_PAGE], ids=["deployment", "chart"])
def test_the_chart_is_installed_as_shown(page: Path, folder: Path) -> None:
    [command] = [each for each in block(page, "helm install") if each.startswith("helm")]
    words = shlex.split(command)
    said_ = said(folder, require_tool("helm"), *words[1:], "--dry-run=client", "--output=json")
    release = json.loads(said_)
    made = objects(release["manifest"].encode())
    assert release["namespace"] == "stigmer-prod"
    [container] = one(made, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("YOUR/fastrunner:")


def test_the_image_is_built_and_run_as_shown(tmp_path: Path) -> None:
    """The file that builds it is there; the run fits what that says, and its environment starts a runner."""
    build, run = (shlex.split(each) for each in block(PAGE, "podman build"))
    recipe = (ROOT / options(build)["-f"]).read_text()
    assert build[-1] == "."
    assert run[-1] == options(build)["-t"]
    published = [run[at + 1] for at, word in enumerate(run) if word == "-p"]
    ports = [each.partition(":")[2] for each in published]
    assert f"EXPOSE {' '.join(ports)}" in recipe
    _, place = options(run)["-v"].split(":")
    assert f"VOLUME {place}" in recipe
    assert f"FASTRUNNER_DATA_DIR={place}" in recipe
    given = dict(run[at + 1].split("=", 1) for at, word in enumerate(run) if word == "-e")
    assert set(given) <= {variable_of(field) for field in shown_fields()}
    defaults = {variable_of(name): str(field.default) for name, field in Config.model_fields.items()}
    assert ports == [defaults["GRPC_PORT"], defaults["FASTRUNNER_HTTP_PORT"]]
    with running(tmp_path / "data", SERVE, **given) as runner:
        assert runner.wait_ready().stop()[0] == 0
