"""Support: examples that run containers, scripts, shells and other workflows."""

from collections.abc import Sequence
from typing import Any

from tests.conformance.cases import Case, Completed
from tests.conformance.hub import HELLO

__all__ = ["CASES"]


def _container(name: str, output: Any = HELLO, **fields: Any) -> Case:
    return Case(name, Completed(output), needs="podman", **fields)


_STDIN = "STDIN was: Hello World\nARGS are Foo Bar\n"
_CHILD = """\
document: {dsl: 1.0.3, namespace: test, name: register-customer, version: 0.1.0}
do:
- register: {set: {registered: '${ .customer }'}}
"""

CASES: Sequence[Case] = (
    _container("run-container"),
    _container("run-container-cleanup-always"),
    _container("run-container-cleanup-eventually"),
    _container("run-container-with-pull-policy"),
    _container(
        "run-container-with-name",
        fault="it reads `.workflow` and `.task` of its input, not `$workflow` and `$task`: the container is called "
        "`hello-null-null-null`",
        containers=["hello-null-null-null"],
    ),
    _container("run-container-stdin-and-arguments", _STDIN),
    _container("run-return-all", {"code": 0, "stdout": HELLO, "stderr": ""}),
    _container("run-return-code", 0),
    _container("run-return-none", None),
    _container("run-return-stderr", ""),
    Case(
        "run-script-with-stdin-and-arguments",
        Completed("stdin >  Hello Workflow\narg >  hello\nenv >  bar\n"),
        needs="node",
    ),
    Case("run-shell-stdin-and-arguments", Completed(_STDIN)),
    Case(
        "run-subflow",
        Completed({"registered": ".user"}),
        fault="`.user` in its input is text: in `strict` mode a value is an expression in `${ }` alone",
        input={"user": {"name": "Ann"}},
        registered=[_CHILD],
    ),
)
