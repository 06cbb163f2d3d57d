"""Documents as pictures: every task and way is there, pictures are well-formed, and names stay in their labels."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import load, validate
from fastrunner.base import limits
from fastrunner.diagram.graph import Graph, graph_of, json_of
from fastrunner.diagram.layout import Way, laid_out
from fastrunner.diagram.mermaid import mermaid_of
from fastrunner.diagram.svg import svg_of
from tests.core.documents import CONFORMANCE, needs_conformance, workflow
from tests.core.drives import documents, drive
from tests.core.walking import Run, call, plan_of, raising

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((CONFORMANCE / "examples").glob("*.yaml"))
NO_DOCUMENTS = ("prices_asyncapi", ".test")
OURS = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if not path.stem.endswith(NO_DOCUMENTS))
SET = {"set": {"a": 1}}
HOSTILE = [
    '"]; click n1 "javascript:alert(1)',
    "</text><script>alert(1)</script>",
    "]]> <!-- & &lt; &#60; #quot; #34;",
    "%%{init: {}}%%\nsubgraph end",
    "end",
    "- `code` **bold** __b__ $$x$$",
    "1. one | two \\ three ~/",
    "\u0007\u001b[31m\ufffe\u202e name",
    "\u4e2d\u6587 \U0001f600",
    "n" * 500,
]

_TEXT = r'"(?:[^"\n<>&;|`]|#\d+;|<br/>)*"'
_MERMAID = re.compile(
    rf"(?P<list>subgraph (?P<held>n\d+) \[{_TEXT}\])|(?P<close>end)"
    rf"|(?P<node>[nse]\d+)(?:\[{_TEXT}\]|\(\({_TEXT}\)\)|\(\(\({_TEXT}\)\)\)|\{{{_TEXT}\}}|\[/{_TEXT}/\]|\(\[{_TEXT}\]\))"
    rf"|(?P<source>[nse]\d+) (?:-->|-\.->)(?:\|{_TEXT}\|)? (?P<target>[nse]\d+)"
)


def drawn(*tasks: Any, **root: Any) -> Graph:
    """The graph of a document that validates."""
    document = workflow(*tasks, **root)
    assert validate(json.dumps(document)) == ()
    return graph_of(document)


def ways(graph: Graph) -> set[tuple[str, str, str, str]]:
    return {(edge.source, edge.target, edge.kind, edge.label) for edge in graph.edges}


def tasks_of(document: Any, pointer: str = "") -> set[str]:
    """Pointers of everything in a document that is a task by its place, whatever the graph makes of it."""
    lists = re.compile(r"/(do|try|branches)$")
    found = set()
    if isinstance(document, list) and lists.search(pointer):
        for number, item in enumerate(document):
            ((name, task),) = item.items()
            place = f"{pointer}/{number}/{name.replace('~', '~0').replace('/', '~1')}"
            found |= {place} | tasks_of(task, place)
    elif isinstance(document, dict):
        for key, value in document.items():
            if key not in ("set", "with", "use", "schedule", "metadata", "input", "output"):
                found |= tasks_of(value, f"{pointer}/{key}")
    return found


def check(graph: Graph, title: str = "") -> None:
    """What holds of every graph and of its pictures."""
    references = [node.reference for node in graph.nodes]
    known = set(references)
    assert len(known) == len(references)
    assert {node.parent for node in graph.nodes} <= known | {""}
    for edge in graph.edges:
        assert edge.source in known or edge.source.removeprefix("start:") in known | {""}, edge
        assert edge.target in known or edge.target.removeprefix("end:") in known | {""}, edge
    check_mermaid(mermaid_of(graph), graph)
    check_svg(svg_of(graph, title), graph)


def check_mermaid(text: str, graph: Graph) -> None:
    first, *lines = text.splitlines()
    assert first == "flowchart TD"
    depth, defined, linked = 0, list[str](), set[str]()
    for line in lines:
        found = _MERMAID.fullmatch(line)
        assert found is not None, line
        depth += (found["list"] is not None) - (found["close"] is not None)
        defined += [each for each in (found["held"], found["node"]) if each]
        linked |= {each for each in (found["source"], found["target"]) if each}
    assert depth == 0
    assert len(defined) == len(set(defined))
    assert linked <= set(defined)
    assert sum(name.startswith("n") for name in defined) == len(graph.nodes)
    assert sum(" --> " in line or "-->|" in line or "-.->" in line for line in lines) == len(graph.edges)


def check_svg(text: str, graph: Graph) -> None:
    root = ET.fromstring(text)
    names = {element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in root.iter()}
    assert names <= {"svg", "title", "style", "defs", "marker", "path", "g", "rect", "text", "tspan", "circle"}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on") or "href" in name}
    boxes = [element for element in root.iter() if element.tag.endswith("}rect")]
    assert len(boxes) == len(graph.nodes)


@needs_conformance
def test_all_documents_of_the_specification_are_drawn_whole() -> None:
    for path in EXAMPLES:
        document = load(path.read_bytes())
        graph = graph_of(document)
        check(graph, path.stem)
        assert tasks_of(document) <= {node.reference for node in graph.nodes}, path.name


def test_our_examples_are_drawn_whole() -> None:
    assert len(OURS) > 15
    for path in OURS:
        document = load(path.read_bytes())
        graph = graph_of(document)
        check(graph, path.stem)
        assert tasks_of(document) <= {node.reference for node in graph.nodes}, path.name


def test_ways_of_directives() -> None:
    graph = drawn(
        {"na": {**SET, "then": "nc"}},
        {"nb": {**SET, "then": "exit", "if": ".x"}},
        {"nc": {"do": [{"nd": {**SET, "then": "end"}}, {"ne": {**SET, "then": "exit"}}, {"nf": SET}]}},
        {"ng": {**SET, "then": "continue", "if": ".x"}},
    )
    check(graph)
    held = "/do/2/nc"
    assert ways(graph) == {
        ("start:", "/do/0/na", "next", ""),
        ("/do/0/na", held, "then", ""),
        ("/do/1/nb", "end:", "then", "exit"),
        ("/do/1/nb", held, "next", "if not"),
        (f"start:{held}", f"{held}/do/0/nd", "next", ""),
        (f"{held}/do/0/nd", "end:", "then", "end"),
        (f"{held}/do/1/ne", f"end:{held}", "then", "exit"),
        (f"{held}/do/2/nf", f"end:{held}", "next", ""),
        (held, "/do/3/ng", "next", ""),
        ("/do/3/ng", "end:", "next", ""),
    }


def test_ways_of_a_switch() -> None:
    cases = [{"big": {"when": ".n > 9", "then": "nc"}}, {"none": {"when": ".n == 0", "then": "end"}}]
    graph = drawn({"na": {"switch": cases}}, {"nb": SET}, {"nc": {"switch": [*cases, {"other": {"then": "na"}}]}})
    assert {way for way in ways(graph) if way[2] == "case"} == {
        ("/do/0/na", "/do/2/nc", "case", "big: .n > 9"),
        ("/do/0/na", "end:", "case", "none: .n == 0 → end"),
        ("/do/0/na", "/do/1/nb", "case", "else"),
        ("/do/2/nc", "/do/2/nc", "case", "big: .n > 9"),
        ("/do/2/nc", "end:", "case", "none: .n == 0 → end"),
        ("/do/2/nc", "/do/0/na", "case", "other"),
    }
    check(graph)


def test_ways_of_branches_and_of_errors() -> None:
    section = {
        "errors": {"with": {"type": "https://host.test/errors/timeout", "status": 408}},
        "retry": {"delay": {"seconds": 2}, "limit": {"attempt": {"count": 3}}},
        "do": [{"mend": SET}],
        "then": "end",
    }
    graph = drawn(
        {"nf": {"fork": {"compete": True, "branches": [{"a": SET}, {"b": {"raise": raising()["raise"]}}]}}},
        {"nt": {"try": [{"ask": call()}], "catch": section}},
    )
    fork, attempt = "/do/0/nf", "/do/1/nt"
    assert {way for way in ways(graph) if way[2] in ("branch", "catch")} == {
        (f"start:{fork}", f"{fork}/fork/branches/0/a", "branch", ""),
        (f"start:{fork}", f"{fork}/fork/branches/1/b", "branch", ""),
        (f"start:{attempt}", f"{attempt}/catch/do/0/mend", "catch", "on timeout status 408"),
        (attempt, "end:", "catch", "caught: end"),
    }
    assert (f"{fork}/fork/branches/0/a", f"end:{fork}", "next", "") in ways(graph)
    assert not [edge for edge in graph.edges if edge.source.endswith("/b")], "nothing follows an error"
    labels = {node.name: node.label for node in graph.nodes}
    assert labels["nf"] == "race of 2: the first one counts"
    assert labels["nt"] == "retry 3× after 2 s"
    check(graph)


def test_ways_around_extended_tasks() -> None:
    """A box before the task and one after it; `exit` in the first leads past the task and what is within."""
    extensions = [
        {"out/er": {"extend": "all", "when": ".x", "before": [{"p": SET}], "after": [{"q": SET}]}},
        {"mock": {"extend": "set", "before": [{"r": {**SET, "then": "exit"}}], "after": [{"s": SET}]}},
        {"other": {"extend": "call", "before": [{"t": SET}]}},
    ]
    graph = drawn({"na": {**SET, "then": "nc"}}, {"nb": SET}, {"nc": SET}, use={"extensions": extensions})
    a, c = "/do/0/na", "/do/2/nc"
    outer, mock = "/use/extensions/0/out~1er", "/use/extensions/1/mock"
    assert ways(graph) >= {
        ("start:", f"{a}{outer}/before", "next", ""),
        (f"{a}{outer}/before", f"{a}{mock}/before", "next", ""),
        (f"{a}{mock}/before", a, "next", ""),
        (f"{a}{mock}/before", f"{a}{outer}/after", "then", "exit"),
        (a, f"{a}{mock}/after", "next", ""),
        (f"{a}{mock}/after", f"{a}{outer}/after", "next", ""),
        (f"{a}{outer}/after", f"{c}{outer}/before", "then", ""),
        (f"start:{a}{mock}/before", f"{a}{mock}/before/0/r", "next", ""),
        (f"{a}{mock}/before/0/r", f"end:{a}{mock}/before", "then", "exit"),
    }
    labels = {node.label for node in graph.nodes if node.kind == "extension"}
    assert labels == {"before", "after", "before, when .x", "after, when .x"}
    assert not [node for node in graph.nodes if "other" in node.reference]
    check(graph)


def test_a_function_is_drawn_at_each_of_its_calls() -> None:
    functions = {"twice": {"do": [{"x": SET}, {"y": {**SET, "then": "exit"}}]}}
    tasks = [{"a": {"call": "twice"}}, {"b": {"call": "twice", "then": "end"}}]
    run = Run(plan_of(tasks, use={"functions": functions})).finish()
    graph = graph_of(run.plan.document)
    check(graph)
    assert len(graph.nodes) == 8
    assert wrong_ways(graph, run) == []


def test_what_is_walked_is_drawn() -> None:
    """Of random documents, driven at random: events name nodes, and a task follows another one by a way."""
    starts = 0
    for case in documents(100, 7):
        graph = graph_of(case.plan.document)
        check(graph)
        run = drive(case)
        assert wrong_ways(graph, run) == [], case.plan.document
        starts += len(started(run))
    assert starts > 1_000


def started(run: Run) -> list[str]:
    return [event.task_reference for event in run.events if event.event_type == "task_started"]


def wrong_ways(graph: Graph, run: Run) -> list[tuple[str, str]]:
    """Tasks that began where no way leads: neither from the one before in their list nor from its start, over what
    starts no task by itself, which is what `if` leaves out, and the boxes of extensions."""
    nodes = {node.reference: node for node in graph.nodes}
    passed = {node.reference for node in graph.nodes if node.kind == "extension" or "if " in node.label}
    following: dict[str, set[str]] = {}
    for edge in graph.edges:
        following.setdefault(edge.source, set()).add(edge.target)
    wrong = []
    before: dict[str, str] = {}
    for reference in started(run):
        parent = nodes[reference].parent
        sources = {f"start:{parent}", before.get(parent, f"start:{parent}")}
        reached, pending = set[str](), list(sources)
        while pending:
            for target in following.get(pending.pop(), set()) - reached:
                reached.add(target)
                if target in passed:
                    pending.append(target)
        if reference not in reached:
            wrong.append((before.get(parent, ""), reference))
        before[parent] = reference
    return wrong


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_names_stay_in_their_labels(text: str) -> None:
    document = workflow(SET)
    document["do"] = [
        {text: {"do": [{text: {"set": "1", "if": json.dumps(text)}}]}},
        {"s": {"switch": [{text: {"when": json.dumps(text), "then": text}}]}},
        {"c": {"call": "http", "with": {"method": "get", "endpoint": "http://host.test/" + "x" * 300}}},
        {"e": {"emit": {"event": {"with": {"type": text, "source": "https://host.test"}}}}},
    ]
    graph = graph_of(document)
    check(graph, text)
    assert "$$" not in mermaid_of(graph).replace("#36;", "$"), "it would be a formula"
    for picture in (mermaid_of(graph), svg_of(graph, text)):
        assert all(line.isprintable() for line in picture.splitlines())
    assert all(len(node.label) <= limits.DIAGRAM_LABEL_SIZE_CHARS_MAX for node in graph.nodes)
    assert {node.name for node in graph.nodes} >= {text}


def test_boxes_do_not_lie_on_each_other() -> None:
    names = [f"b{number}" for number in range(40)]
    sizes = {name: (40.0 + number * 7 % 60, 20.0 + number * 11 % 50) for number, name in enumerate(names)}
    links = [Way(names[number], names[number + 1 + number % 3], "next", "") for number in range(36)]
    links += [Way(names[0], names[number], "case", f"case {number}") for number in range(5, 12)]
    links.append(Way(names[30], names[2], "case", "back"))
    picture = laid_out(sizes, links)
    boxes = [(*picture.places[name], *sizes[name]) for name in names]
    for number, (x1, y1, w1, h1) in enumerate(boxes):
        assert 0 <= x1 <= picture.width - w1
        assert 0 <= y1 <= picture.height - h1
        for x2, y2, w2, h2 in boxes[number + 1 :]:
            assert x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1
    assert [line.way for line in picture.lines] == links


def command(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "fastrunner", "graph", *arguments],
        input=text.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_command_draws_files_and_stdin() -> None:
    path = ROOT / "examples" / "saga.yaml"
    graph = graph_of(load(path.read_bytes()))
    done = command(str(path))
    assert (done.returncode, done.stdout.decode()) == (0, mermaid_of(graph))
    done = command("-", "--format", "svg", text=path.read_text())
    assert (done.returncode, done.stdout.decode()) == (0, svg_of(graph, "saga"))
    done = command("-", "--format", "json", text=path.read_text())
    assert done.stdout == json_of(graph) + b"\n"
    assert json.loads(done.stdout)["edges"][0] == {
        "source": "start:",
        "target": "/do/0/fulfil",
        "kind": "next",
        "label": "",
    }


def test_the_command_shows_what_is_wrong_with_a_document() -> None:
    broken = "document: {dsl: 1.0.3, namespace: a, name: b, version: 1.0.0}\ndo:\n- a: {set: {x: 1}, then: nowhere}\n"
    done = command("-", text=broken)
    assert (done.returncode, done.stdout) == (1, b"")
    place, line, caret = done.stderr.decode().splitlines()
    assert place.startswith("-:3:")
    assert "nowhere" in place
    assert (line.strip(), caret.strip()) == ("- a: {set: {x: 1}, then: nowhere}", "^")
