"""Support: the tasks of a document and the ways between them, as nodes and edges.

Theory of operation: each list of tasks is drawn within the task that holds it, its parent, from `start:<parent>` to
`end:<parent>`; the document's own list has the parent "". The lists of one task (the branches of a fork, what a `try`
tries and what its `catch` does) lie side by side between the two. A way leads from a task to one of the same list, to
the end of the list (`exit`, or nothing follows) or to `end:`, where the workflow ends.

An extension is a box of its own kind before or after each task that it extends, in the list of that task; ways to the
task lead to what comes before it, and ways from it leave what comes after it.

Rules: a reference is the task's `task_reference` in progress events, copies of functions and extensions included; the
document has been validated. Functions from elsewhere are not looked into. What a way means is what the walk does there:
`if` that does not hold goes to the next task, whatever `then` says; in a branch, and in a function, nothing follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Literal

import orjson

from fastrunner.diagram.labels import label_of, shortened

__all__ = ["Edge", "Graph", "Node", "graph_of", "json_of"]

EdgeKind = Literal["next", "then", "case", "branch", "catch"]

_KINDS: Final = ("call", "emit", "for", "fork", "listen", "raise", "run", "set", "switch", "try", "wait", "do")
"""`do` is the last one: the `do` of a loop is its body."""


@dataclass(frozen=True, slots=True)
class Node:
    """One task, or the tasks that an extension puts before or after one."""

    reference: str
    """JSON pointer, as events have it."""
    name: str
    """As the document calls it."""
    kind: str
    """The key that says what it does, such as `call`; `extension` for an extension's tasks."""
    parent: str
    """Reference of what it lies in; empty for the document's own list."""
    label: str
    """What it does, in short: one line of text, or nothing."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A way that an execution may take."""

    source: str
    """Reference of a node, or `start:<parent>`."""
    target: str
    """Reference of a node, or `end:<parent>`."""
    kind: EdgeKind
    """next: nothing is said; then: the document says so; case: of a switch; branch: of a fork; catch: after an
    error."""
    label: str
    """When it is taken, or nothing."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes and edges in the order of the document."""

    nodes: tuple[Node, ...]
    """What holds others comes before them."""
    edges: tuple[Edge, ...]
    """Both ends of each are there."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a list of tasks stands."""

    parent: str
    pointer: str
    is_extended: bool
    is_function: bool = False


@dataclass(frozen=True, slots=True)
class _Around:
    """A task with what extensions put around it."""

    entry: str
    exit: str
    before: tuple[tuple[int, str, bool], ...]
    """Number and box of extensions in their order, and whether their tasks may take the task's place."""
    after: tuple[tuple[int, str], ...]
    """The same, innermost first."""


def graph_of(document: Mapping[str, Any]) -> Graph:
    """Nodes and edges of a validated document, as `load` gives it."""
    builder = _Builder(document)
    builder.add_list(document["do"], _Place("", "/do", is_extended=True))
    return Graph(tuple(builder.nodes), tuple(builder.edges))


def json_of(graph: Graph) -> bytes:
    """The graph as JSON: `nodes` and `edges` with the fields that they have here."""
    return orjson.dumps(graph)


class _Builder:
    """Collects the nodes and edges of one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        use = document.get("use") or {}
        self._functions: Mapping[str, Any] = use.get("functions") or {}
        self._extensions = [next(iter(item.items())) for item in use.get("extensions") or ()]
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []

    def add_list(
        self, items: Sequence[Mapping[str, Any]], place: _Place, kind: EdgeKind = "next", label: str = ""
    ) -> None:
        """A list of tasks that one way leads into; nothing in it is a way past it."""
        start, end = f"start:{place.parent}", f"end:{place.parent}"
        tasks = [next(iter(item.items())) for item in items]
        references = [
            f"{place.pointer}{'' if place.is_function else f'/{number}'}/{_escaped(name)}"
            for number, (name, _) in enumerate(tasks)
        ]
        around = [self._around(reference, task, place) for reference, (_, task) in zip(references, tasks, strict=True)]
        self._link(start, around[0].entry if around else end, kind, label)
        entries = {name: each.entry for (name, _), each in zip(tasks, around, strict=True)}
        for number, (name, task) in enumerate(tasks):
            following = around[number + 1].entry if number + 1 < len(tasks) else end
            self._add_task(name, task, references[number], place, around[number], _Ways(entries, following, end))

    def _add_branch(self, item: Mapping[str, Any], number: int, place: _Place, kind: EdgeKind, label: str) -> None:
        """One task without any to follow it."""
        ((name, task),) = item.items()
        pointer = place.pointer if place.is_function else f"{place.pointer}/{number}"
        reference = f"{pointer}/{_escaped(name)}"
        end = f"end:{place.parent}"
        around = self._around(reference, task, place)
        self._link(f"start:{place.parent}", around.entry, kind, label)
        self._add_task(name, task, reference, place, around, _Ways({}, end, end))

    def _add_task(
        self, name: str, task: Mapping[str, Any], reference: str, place: _Place, around: _Around, ways: "_Ways"
    ) -> None:
        kind = kind_of(task)
        ahead, behind = [box for _, box, _ in around.before], [box for _, box in around.after]
        self._add_extensions(task, reference, place, "before")
        self.nodes.append(Node(reference, name, kind, place.parent, label_of(kind, task)))
        for source, target in pairwise((*ahead, reference)):
            self._link(source, target)
        for number, box, replaces in around.before:
            if replaces:
                # What extensions within would do is left out, too.
                outside = [each for other, each in around.after if other < number]
                self._link(box, outside[0] if outside else ways.target(task.get("then"))[0], "then", "exit")
        self._add_inside(kind, task, reference, place.is_extended)
        for source, target in pairwise((reference, *behind)):
            self._link(source, target)
        self._add_ways(kind, task, around, ways)
        self._add_extensions(task, reference, place, "after")

    def _add_ways(self, kind: str, task: Mapping[str, Any], around: _Around, ways: "_Ways") -> None:
        """Where a task leads on."""
        source = around.exit
        is_conditional = task.get("if") is not None
        if kind == "switch":
            self._add_cases(task, source, ways)
        elif kind != "raise":
            target, directive = ways.target(task.get("then"))
            self._link(source, target, "next" if task.get("then") in (None, "continue") else "then", directive)
            is_conditional = is_conditional and target != ways.following
        if is_conditional:
            self._link(source, ways.following, "next", "if not")
        caught = (task.get("catch") or {}).get("then") if kind == "try" else None
        if caught is not None:
            target, directive = ways.target(caught)
            self._link(source, target, "catch", f"caught: {directive}" if directive else "caught")

    def _add_cases(self, task: Mapping[str, Any], source: str, ways: "_Ways") -> None:
        has_default = False
        for item in task["switch"]:
            ((name, case),) = item.items()
            target, directive = ways.target(case["then"])
            when = case.get("when")
            has_default = has_default or when is None
            says = f"{name}: {when}" if when is not None else name
            self._link(source, target, "case", f"{says} → {directive}" if directive else says)
        if not has_default:
            target, directive = ways.target(task.get("then"))
            self._link(source, target, "case", f"else → {directive}" if directive else "else")

    def _add_inside(self, kind: str, task: Mapping[str, Any], reference: str, is_extended: bool) -> None:
        """The lists of tasks that a task holds."""
        place = _Place(reference, reference, is_extended)
        if kind in ("do", "for"):
            self.add_list(task["do"], replace(place, pointer=f"{reference}/do"))
        elif kind == "fork":
            branches = task["fork"]["branches"]
            for number, item in enumerate(branches):
                self._add_branch(item, number, replace(place, pointer=f"{reference}/fork/branches"), "branch", "")
            if not branches:
                self._link(f"start:{reference}", f"end:{reference}")
        elif kind == "try":
            self.add_list(task["try"], replace(place, pointer=f"{reference}/try"))
            handler = task["catch"].get("do") or ()
            self.add_list(handler, replace(place, pointer=f"{reference}/catch/do"), "catch", _caught(task["catch"]))
        elif kind == "listen" and "do" in (task.get("foreach") or {}):
            self.add_list(task["foreach"]["do"], replace(place, pointer=f"{reference}/foreach/do"))
        elif kind == "call":
            self._add_called(task, place)

    def _add_called(self, task: Mapping[str, Any], place: _Place) -> None:
        """The copy of a function, or what is done with each message of a subscription."""
        called = task["call"]
        if called in self._functions:
            function = {called: self._functions[called]}
            self._add_branch(function, 0, replace(place, pointer=f"{place.parent}/call", is_function=True), "next", "")
        elif called == "asyncapi":
            each = (task["with"].get("subscription") or {}).get("foreach") or {}
            if "do" in each:
                self.add_list(each["do"], replace(place, pointer=f"{place.parent}/with/subscription/foreach/do"))

    # --- extensions ---

    def _extending(self, task: Mapping[str, Any]) -> list[tuple[int, str, Mapping[str, Any]]]:
        """The extensions of a task, outermost first."""
        kind = kind_of(task)
        words = ("all", "composite" if kind in ("do", "fork") else kind)
        return [
            (number, name, extension)
            for number, (name, extension) in enumerate(self._extensions)
            if extension.get("extend") in words
        ]

    def _around(self, reference: str, task: Mapping[str, Any], place: _Place) -> _Around:
        if not (place.is_extended and self._extensions):
            return _Around(reference, reference, (), ())
        extending = self._extending(task)
        before = tuple(
            (number, _box(reference, number, name, "before"), _may_exit(extension["before"]))
            for number, name, extension in extending
            if extension.get("before")
        )
        after = tuple(
            (number, _box(reference, number, name, "after"))
            for number, name, extension in reversed(extending)
            if extension.get("after")
        )
        return _Around(before[0][1] if before else reference, after[-1][1] if after else reference, before, after)

    def _add_extensions(self, task: Mapping[str, Any], reference: str, place: _Place, side: str) -> None:
        if not (place.is_extended and self._extensions):
            return
        extending = self._extending(task)
        for number, name, extension in extending if side == "before" else reversed(extending):
            if not extension.get(side):
                continue
            box = _box(reference, number, name, side)
            when = extension.get("when")
            says = side if when is None else f"{side}, when {when}"
            self.nodes.append(Node(box, name, "extension", place.parent, shortened(says)))
            self.add_list(extension[side], _Place(box, box, is_extended=False))

    def _link(self, source: str, target: str, kind: EdgeKind = "next", label: str = "") -> None:
        self.edges.append(Edge(source, target, kind, shortened(label)))


@dataclass(frozen=True, slots=True)
class _Ways:
    """Where tasks of a list may lead."""

    entries: Mapping[str, str]
    following: str
    end: str

    def target(self, then: str | None) -> tuple[str, str]:
        """Where a directive leads, and what to say of it if it is no name."""
        if then is None or then == "continue":
            return self.following, ""
        if then == "exit":
            return self.end, "exit"
        if then == "end":
            return "end:", "end"
        return self.entries[then], ""


def kind_of(task: Mapping[str, Any]) -> str:
    """The key that says what a validated task does."""
    return next(kind for kind in _KINDS if kind in task)


def _box(reference: str, number: int, name: str, side: str) -> str:
    return f"{reference}/use/extensions/{number}/{_escaped(name)}/{side}"


def _may_exit(items: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the tasks before a task may leave it out."""
    for item in items:
        (task,) = item.values()
        cases = [case["then"] for each in task.get("switch") or () for case in each.values()]
        if "exit" in (task.get("then"), *cases):
            return True
    return False


def _caught(section: Mapping[str, Any]) -> str:
    """Which errors a `catch` is for."""
    wanted = (section.get("errors") or {}).get("with") or {}
    parts = [str(value).rsplit("/", 1)[-1] if key == "type" else f"{key} {value}" for key, value in wanted.items()]
    parts += [f"{word} {section[key]}" for key, word in (("when", "when"), ("exceptWhen", "not")) if key in section]
    return " ".join(["on", *(parts or ["any error"])])


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
