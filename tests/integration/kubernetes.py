"""Support: the objects that our overlays and our chart make, in the form in which they can be compared."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.outside import require_tool

__all__ = ["CHART", "OVERLAYS", "Object", "charted", "kustomized", "normal"]

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ROOT / "_kustomize" / "overlays"
CHART = ROOT / "deploy" / "helm" / "fastrunner"
Object = dict[str, Any]
HASH = re.compile(r"^(workflow-runner)-[a-z0-9]{10}$")
"""What kustomize appends to the name of a ConfigMap or Secret, so that a change is a rollout."""
OF_HELM = ("helm.sh/", "checksum/", "app.kubernetes.io/instance", "app.kubernetes.io/version")
"""What Helm's convention adds to labels and annotations; a checksum is what kustomize has a name's hash for."""


def ran(*command: str) -> bytes:
    """What a program says; an AssertionError with its errors if it fails."""
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def objects(text: bytes) -> tuple[Object, ...]:
    return tuple(each for each in YAML(typ="safe").load_all(text) if each)


@cache
def kustomized(folder: Path) -> tuple[Object, ...]:
    """The objects of an overlay."""
    return objects(ran(require_tool("kubectl"), "kustomize", str(folder)))


@cache
def charted(namespace: str, *arguments: str) -> tuple[Object, ...]:
    """The objects of the chart, with values as arguments of `helm template`."""
    return objects(ran(*helm("template", "workflow-runner", namespace, *arguments)))


def helm(verb: str, release: str, namespace: str, *arguments: str) -> list[str]:
    """A command of Helm on the chart; `template` for a Kubernetes of today, whichever its build believes in."""
    version = ["--kube-version", "1.34"] if verb == "template" else []
    return [require_tool("helm"), verb, release, str(CHART), "--namespace", namespace, *version, *arguments]


def normal(each: Object) -> Object:
    """Without what the two ways name differently; lists of named things by name, for their order means nothing."""
    return dict(json.loads(json.dumps(_normal(each)), object_hook=_without_empty))


def _normal(value: Any) -> Any:
    match value:
        case dict():
            kept = {name: _normal(part) for name, part in value.items() if not name.startswith(OF_HELM)}
            if kept.get("app.kubernetes.io/managed-by") == "Helm":
                del kept["app.kubernetes.io/managed-by"]
            return kept
        case [{"name": _}, *_]:
            return {part["name"]: _normal(part) for part in value}
        case list():
            return [_normal(part) for part in value]
        case str():
            return HASH.sub(r"\1", value)
    return value


def _without_empty(value: Object) -> Object:
    return {name: part for name, part in value.items() if not (name == "annotations" and not part)}
