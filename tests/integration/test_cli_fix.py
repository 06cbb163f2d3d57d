"""`fastrunner validate --fix` and `--diff`: what is rewritten, what stays, to the byte."""

import subprocess
import sys
from pathlib import Path

import pytest

from fastrunner._core import validate
from fastrunner.cli.fixes import fixed
from tests.core.documents import CONFORMANCE
from tests.integration.runner_process import ROOT

HEAD = "document: {dsl: 1.0.3, namespace: test, name: a, version: 1.0.0}\nuse: {secrets: [api]}\n"
CATCH = HEAD + "do:\n- first:\n    try: []\n    catch:\n"

FIXES = {
    "a secret": (
        HEAD + "do:  # all\n- a: {set: {x: '${ $secret.api + $secret.api }', y: \"$secret is text\"}} # $secret\n",
        HEAD + "do:  # all\n- a: {set: {x: '${ $secrets.api + $secrets.api }', y: \"$secret is text\"}} # $secret\n",
    ),
    "Zigflow's data": (
        HEAD + "do:\n- a:\n    set:\n      x: ${ $data.q | map($data.r) }   # why\n      y: \"${ $datas }\"\n",
        HEAD + "do:\n- a:\n    set:\n      x: ${ $input.q | map($input.r) }   # why\n      y: \"${ $datas }\"\n",
    ),
    "a filter in a block": (
        CATCH + "      errors:\n        # which\n        type: 'https://a.example/b'  # this one\n\n        # and\n"
        "        status: 400\n      # how often\n      retry: {}\n",
        CATCH + "      errors:\n        # which\n        with:\n          type: 'https://a.example/b'  # this one\n\n"
        "          # and\n          status: 400\n      # how often\n      retry: {}\n",
    ),
    "a filter at the end, with other line breaks": (
        (CATCH + "      errors:\n        title: >-\n          two\n          lines").replace("\n", "\r\n"),
        (CATCH + "      errors:\n        with:\n          title: >-\n            two\n            lines").replace(
            "\n", "\r\n"
        ),
    ),
    "a filter in flow style": (
        CATCH + "      errors: { type: \"a:b}\", title: don't, detail: '}''' } # }\n      retry: {}\n",
        CATCH + "      errors: { with: {type: \"a:b}\", title: don't, detail: '}'''} } # }\n      retry: {}\n",
    ),
    "a filter in flow style over lines": (
        CATCH + "      errors: {\n        type: a:b,\n        status: 400\n      }\n",
        CATCH + "      errors: {\n        with: {type: a:b,\n        status: 400}\n      }\n",
    ),
    "a backoff": (
        CATCH + "      retry:\n        backoff: exponential # slower\n        delay: PT1S\n",
        CATCH + "      retry:\n        backoff: {exponential: {}} # slower\n        delay: PT1S\n",
    ),
    "a backoff by its type": (
        CATCH + '      retry: {backoff: {type: "linear"}, delay: PT1S}\n',
        CATCH + '      retry: {backoff: {"linear": {}}, delay: PT1S}\n',
    ),
    "JSON, which stays JSON": (
        '{"document": {"dsl": "1.0.3", "namespace": "t", "name": "a", "version": "1.0.0"}, "do": [{"a": {"try": [],\n'
        ' "catch": {"errors": {"type": "a:b", "status": 400}, "retry": {"backoff": "constant"}}}},\n'
        ' {"b": {"try": [], "catch": {"retry": {"backoff": {"type": "linear"}}}}}]}',
        '{"document": {"dsl": "1.0.3", "namespace": "t", "name": "a", "version": "1.0.0"}, "do": [{"a": {"try": [],\n'
        ' "catch": {"errors": {"with": {"type": "a:b", "status": 400}}, "retry": {"backoff": {"constant": {}}}}}},\n'
        ' {"b": {"try": [], "catch": {"retry": {"backoff": {"linear": {}}}}}}]}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FIXES))
def test_fixes_keep_everything_else(name: str) -> None:
    before, after = FIXES[name]
    text, count = fixed(before.encode())
    assert (text.decode(), count > 0) == (after, True)
    assert fixed(text) == (text, 0)
    wrong = [problem.pointer for problem in validate(text)]
    # Nobody knows what was meant by that one.
    assert wrong == (["/do/0/a/set/y"] if "$datas" in before else [])


STAYS = {
    "a variable of that name": HEAD + "do:\n- a: {for: {each: data, in: '[1]'}, do: [{b: {set: {x: '${ $data }'}}}]}\n",
    "a condition, which has no $input": HEAD + "do:\n- a: {if: $data.x, set: {x: 1}}\n",
    "no secrets to read": HEAD.replace("use: {secrets: [api]}\n", "") + "do:\n- a: {set: {x: '${ $secret.api }'}}\n",
    "a backoff with something in it": CATCH + "      retry: {backoff: {exponential: {factor: 2}}}\n",
    "filters twice": CATCH + "      errors: {with: {status: 400}, type: a:b}\n",
    "no document": "just: [some\n",
    "text": HEAD + "do:\n- a: {set: {errors: {type: x}, backoff: exponential}}\n",
}


@pytest.mark.parametrize("name", list(STAYS))
def test_what_cannot_be_fixed_safely_stays(name: str) -> None:
    assert fixed(STAYS[name].encode()) == (STAYS[name].encode(), 0)
    assert fixed(b"\xff\xfe") == (b"\xff\xfe", 0)


def test_documents_without_problems_stay() -> None:
    paths = [*(ROOT / "examples").glob("*.yaml"), *(CONFORMANCE / "examples").glob("*.yaml")]
    assert len(paths) > 8
    for path in paths:
        assert fixed(path.read_bytes()) == (path.read_bytes(), 0), path


def _run(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fastrunner", "validate", *arguments],
        cwd=ROOT, input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_shows_then_fixes(tmp_path: Path) -> None:
    before, after = FIXES["a backoff"]
    file = tmp_path / "a.yaml"
    file.write_text(before)
    shown = _run("--diff", str(file))
    assert shown.returncode == 1
    assert [line for line in shown.stdout.splitlines() if line[:1] in "+-"][2:] == [
        "-        backoff: exponential # slower", "+        backoff: {exponential: {}} # slower",
    ]  # fmt: skip
    assert file.read_text() == before
    done = _run("--fix", str(file))
    assert (done.returncode, file.read_text()) == (0, after)
    assert done.stderr.splitlines() == [f"{file}: fixed 1 problems", "1 valid"]
    piped = _run("--fix", "-", text=before)
    assert (piped.returncode, piped.stdout) == (0, after)


def test_problems_name_the_right_spelling() -> None:
    said = [problem.message for before, _ in FIXES.values() for problem in validate(before.encode())]
    for part in (
        "did you mean '$secrets'?",
        "$data is Zigflow's; a task's input is $input",
        "it belongs under `with`: {with: {type: ...}}",
        "such as {exponential: {}}",
    ):
        assert any(part in message for message in said), part
