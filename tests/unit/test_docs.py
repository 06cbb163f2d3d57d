"""What the documentation shows: documents are valid, commands are what the command takes, every page is in the site.

Rule: an excerpt of a document is valid once the head is there that it leaves out. Commands are parsed here;
`tests/integration/test_pages.py` executes them.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fastrunner._core import InvalidWorkflow, ResourcesMissing
from fastrunner._core import compile as compile_workflow
from fastrunner.cli import main as fastrunner
from fastrunner.scenarios.files import read_scenarios
from tests.unit.test_links import PAGES, ROOT

BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HEAD = "document: {dsl: 1.0.3, namespace: docs, name: excerpt, version: 1.0.0}\n"
USE = (
    "use: {secrets: [scanner], authentications: {tools: {bearer: {token: t}}},"
    " functions: {payOrder: {set: {paid: true}}}}\n"
)
"""What excerpts of a task list use of it."""
SEPARATORS = {"&&", "||", "|", ";", "&", "(", ")"}
ASSIGNMENT = re.compile(r"^[A-Z_][A-Z0-9_]*=")
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*fastrunner [^`\n]+)`")
SHOWN = re.compile(r"(?<![\w./-])fastrunner ((?:[a-z][a-z|-]*(?: |$|(?=\W)))+)(.*)", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Its code blocks of a language."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, named, text in found if named == language]


DOCUMENTS = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "yaml"), 1)
]
COMMANDS = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "sh"), 1)
]
SOURCES = [
    *PAGES,
    *(path for folder in ("examples", "src", "deploy", "_kustomize") for path in sorted((ROOT / folder).rglob("*"))
      if path.suffix in (".py", ".yaml", ".yml", ".service") and "_pb" not in path.parts),
]  # fmt: skip


@pytest.mark.parametrize("text", DOCUMENTS)
def test_documents_are_valid(text: str, tmp_path: Path) -> None:
    if re.search(r"^scenarios:", text, re.MULTILINE):
        file = tmp_path / "shown.test.yaml"
        file.write_text(text)
        assert read_scenarios(file)
        return
    first = next(line for line in text.splitlines() if not line.startswith("#"))
    if first.startswith("- "):
        text = f"{HEAD}{USE}do:\n{text}"
    elif not re.search(r"^document:", text, re.MULTILINE):
        text = HEAD + text
    if not re.search(r"^do:", text, re.MULTILINE):
        text += "do: [{note: {set: {seen: true}}}]\n"
    try:
        compile_workflow(text)
    except InvalidWorkflow as error:
        pytest.fail("\n".join(f"{each.pointer}: {each.message}" for each in error.problems))
    except ResourcesMissing:
        pass  # It is valid but for what lies elsewhere.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_data_is_json(page: Path) -> None:
    for text in blocks(page, "json"):
        json.loads(text)


def called(text: str) -> Iterator[list[str]]:
    """The arguments of every `fastrunner` that a shell would call."""
    text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
    text = re.sub(r"(^|\s)#\s.*$", "", text, flags=re.MULTILINE)
    lexer = shlex.shlex(text.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.commenters = ""
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
            continue
        while words and ASSIGNMENT.match(words[0]):
            del words[0]
        if words and words[0] == "fastrunner":
            yield words[1:]
        words = []


def complaint(arguments: list[str], command: click.Command = fastrunner) -> str:
    """Why a command line is refused; empty if it is not. Nothing is executed, no file is looked for."""
    context = click.Context(command, info_name=command.name)
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(arguments))
        if isinstance(command, click.Group):
            if not rest:
                return ""
            found = command.get_command(context, rest[0])
            return f"no command {rest[0]}" if found is None else complaint(rest[1:], found)
        if rest:
            return f"too many arguments: {rest}"
        for parameter in command.params:
            value = values.get(parameter.name or "")
            is_given = isinstance(value, str | list | tuple | bool) and value != () and value != []
            if parameter.required and not is_given:
                return f"{parameter.name} is missing"
            if isinstance(value, str) and not isinstance(parameter.type, click.Path | click.File):
                parameter.type.convert(value, parameter, context)
    except click.UsageError as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("text", COMMANDS)
def test_commands_are_what_the_command_takes(text: str) -> None:
    assert {" ".join(each): complaint(each) for each in called(text) if complaint(each)} == {}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("fastrunner submit a.yaml --follow && fastrunner lst", "no command lst"),
        ("A=b fastrunner submit a.yaml --folow", "No such option"),
        ("true | fastrunner run a.yaml b.yaml", "too many"),
        ("fastrunner delete", "missing"),
        ("fastrunner bench --seconds many", "not a valid float"),
    ],
)
def test_a_wrong_command_line_is_found(line: str, wrong: str) -> None:
    assert wrong in " ".join(map(complaint, called(line)))


def shown(text: str) -> Iterator[tuple[click.Command, str]]:
    """Commands that a text names, each with the rest of its line."""
    for words, rest in SHOWN.findall(text):
        command: click.Command = fastrunner
        for word in words.split():
            names = word.split("|")
            if not isinstance(command, click.Group) or not all(name in command.commands for name in names):
                break
            command = command.commands[names[-1]]
        if command is not fastrunner:
            yield command, re.split(r"fastrunner |`|#|\||&|--help", rest)[0]


def test_options_that_are_named_are_there() -> None:
    """Wherever a command is named with options: in prose, synopses, comments of examples, advice of errors."""
    wrong, count = [], 0
    for path in SOURCES:
        for command, rest in shown(path.read_text(encoding="utf-8")):
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            named = re.findall(r"(?<!\w)--[a-z][\w-]+", rest)
            count += len(named)
            wrong += [(path.name, command.name, each) for each in named if each not in known]
    assert wrong == []
    assert count > 100


def test_commands_in_prose_are_there() -> None:
    """Inline code that begins with the command calls one that is there."""
    wrong = [
        (page.name, line)
        for page in PAGES
        for line in INLINE.findall(page.read_text(encoding="utf-8"))
        if (word := re.sub(r"^.*?fastrunner ", "", line).split()[0].split("|")[0]) not in fastrunner.commands
        and not word.startswith(("-", "<", "[", "."))
    ]
    assert wrong == []


def test_the_site_is_built_and_no_link_of_it_is_broken(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "quickstart" / "index.html").exists()


def test_the_page_of_commands_is_what_the_command_says() -> None:
    command = [sys.executable, str(ROOT / "tools" / "gen_cli.py"), "--check"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
