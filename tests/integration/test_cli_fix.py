"""`fastrunner validate --fix` and `--diff`: what is rewritten, what stays, to the byte."""

import subprocess
from pathlib import Path

import pytest

from fastrunner._core import validate
from fastrunner.cli.fixes import fixed
from fastrunner.cli.outdated import OUTDATED
from tests.core.documents import CONFORMANCE
from tests.integration.commands import fastrunner
from tests.integration.runner_process import ROOT

HEAD = "document: {dsl: 1.0.3, namespace: test, name: a, version: 1.0.0}\nuse: {secrets: [api]}\n"
CATCH = HEAD + "do:\n- first:\n    try: []\n    catch:\n"

RUN = HEAD + "do:\n- first:\n    run:\n      shell:\n        command: x\n"

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
    "arguments in a block": (
        RUN + "        arguments:   # of it\n          # whom\n          name: ${ .name // \"you\" }  # it's #1\n\n"
        "          'a key': \"it's # two\"\n          \"\\x41\": 2\n          yes: true # why\n"
        "          text: |-  # long\n"
        "            one\n\n            # two\n          plain: over\n            lines\n          last: don't\n"
        "          # the end\n        environment: {a: 1}\n",
        RUN + "        arguments:   # of it\n          # whom\n"
        "          - '${ \"name=\\(.name // \"you\")\" }'  # it's #1\n\n"
        "          - 'a key=it''s # two'\n          - 'A=2'\n          - 'yes=true' # why\n"
        "          - \"text=one\\n\\n# two\"  # long\n          - 'plain=over lines'\n          - 'last=don''t'\n"
        "          # the end\n        environment: {a: 1}\n",
    ),
    "arguments at the end, with other line breaks": (
        (RUN + "        arguments:\n          a: 1.50\n          b: ''").replace("\n", "\r\n"),
        (RUN + "        arguments:\n          - 'a=1.5'\n          - 'b='").replace("\n", "\r\n"),
    ),
    "arguments in flow style": (
        RUN + "        arguments: { a: 'x, y', \"b\": '${ {c: .d} }' , c: don't } # }\n",
        RUN + "        arguments: [ 'a=x, y', '${ \"b=\\({c: .d})\" }' , 'c=don''t' ] # }\n",
    ),
    "arguments over lines, and none": (
        RUN + "        arguments: {\n          a: 1,\n          b: '2'\n        }\n"
        "- b: {run: {shell: {command: x, arguments: {}}}}\n",
        RUN + "        arguments: [\n          'a=1',\n          'b=2'\n        ]\n"
        "- b: {run: {shell: {command: x, arguments: []}}}\n",
    ),
    "arguments in JSON": (
        '{"document": {"dsl": "1.0.3", "namespace": "t", "name": "a", "version": "1.0.0"}, "do": [{"a": {"run":\n'
        ' {"script":\n'
        ' {"language": "python", "code": "#", "arguments": {"#": "${ .a }",\n  "b/c": "it\'s"}}}}}]}',
        '{"document": {"dsl": "1.0.3", "namespace": "t", "name": "a", "version": "1.0.0"}, "do": [{"a": {"run":\n'
        ' {"script":\n'
        ' {"language": "python", "code": "#", "arguments": ["${ \\"#=\\\\(.a)\\" }",\n  "b/c=it\'s"]}}}}]}',
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
    wrong = [each.pointer for each in validate(text, True) if each.severity == "error" or each.code == OUTDATED]
    # Nobody knows what was meant by that one.
    assert wrong == (["/do/0/a/set/y"] if "$datas" in before else [])


STAYS = {
    "a variable of that name": HEAD + "do:\n- a: {for: {each: data, in: '[1]'}, do: [{b: {set: {x: '${ $data }'}}}]}\n",
    "a condition, which has no $input": HEAD + "do:\n- a: {if: $data.x, set: {x: 1}}\n",
    "no secrets to read": HEAD.replace("use: {secrets: [api]}\n", "") + "do:\n- a: {set: {x: '${ $secret.api }'}}\n",
    "a backoff with something in it": CATCH + "      retry: {backoff: {exponential: {factor: 2}}}\n",
    "filters twice": CATCH + "      errors: {with: {status: 400}, type: a:b}\n",
    "no document": "just: [some\n",
    "arguments that are no scalars": RUN + "        arguments: {a: [1], b: 2}\n",
    "an argument that is left out": RUN + "        arguments:\n          a:\n          b: 2\n",
    "arguments in loose mode": RUN + "        arguments: {a: .b}\nevaluate: {mode: loose}\n",
    "arguments of what is no document": RUN + "        arguments: {a: [1]}\nevaluate: [1]\n",
    "arguments of two": RUN + "        arguments: &k {a: 1}\n- b: {run: {shell: {command: x, arguments: *k}}}\n",
    "arguments with a comment among them": RUN + "        arguments: {a: 1, # one\n          b: 2}\n",
    "an expression that ends with a comment": RUN + "        arguments: {a: '${ .b # c }'}\n",
    "arguments that are a list": RUN + "        arguments: ['a=1']\n",
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
    return fastrunner("validate", *arguments, text=text)


def test_a_list_of_arguments_gives_a_process_the_same(tmp_path: Path) -> None:
    before = RUN.replace("command: x", 'command: "printf \'%s;\' \\"$@\\""') + (
        "        arguments:\n          a: 1.50\n          b: true\n          c: '${ .x }'\n          d: it's\n"
    )
    printed = []
    for text in (before, fixed(before.encode())[0].decode()):
        (tmp_path / "a.yaml").write_text(text)
        done = fastrunner("run", str(tmp_path / "a.yaml"), "--input", '{"x": "y z"}')
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert "a=1.5;b=true;c=y z;d=it's;" in printed[0]


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
