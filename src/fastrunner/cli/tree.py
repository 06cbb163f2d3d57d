"""Support: one execution as a tree of its tasks, made of its progress events; and how that tree looks on a terminal.

Rules: a task of the document is one node, however often it runs, so a tree is bounded by its document; a task that
starts again shows its latest run, and what lies below it starts anew. Names and errors are other people's words
(`base/printable.py`). Nothing here writes.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.text import Text
from rich.tree import Tree

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2
from fastrunner.base.printable import printable
from fastrunner.cli.present import span
from fastrunner.progress.names import FINAL_STATUSES

__all__ = ["ExecutionTree", "Node"]

Event = messages_pb2.WorkflowProgressEvent

_MARKS = {
    "running": ("…", "blue"),
    "retrying": ("↻", "yellow"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "interrupted": ("–", "bright_black"),
    "paused": ("‖", "cyan"),
    "cancelled": ("–", "yellow"),
}
_STATES = {
    "task_started": "running",
    "task_retry": "retrying",
    "task_completed": "completed",
    "task_failed": "failed",
}
_OUTPUT_CHARS_MAX = 1000
"""Of an output beside its task: more than a line of a terminal shows."""


@dataclass(slots=True)
class Node:
    """A task of the document, in its latest run."""

    reference: str
    """JSON pointer of the task."""
    name: str
    """Its name."""
    parent: str
    """Reference of the task around it; empty if there is none."""
    state: str = "running"
    """running, retrying, completed, failed, or interrupted: by the end of a task around it."""
    begun_ms: int = 0
    """When this run began, in milliseconds since the epoch; 0: not known."""
    at_ms: int = 0
    """When it was heard of last."""
    attempt: int = 1
    """Attempt of the nearest `try`."""
    run: int = 1
    """How often it has started since the task around it did, in one iteration: jumps back with `then`."""
    iteration: tuple[int, ...] = ()
    """Index of every loop around it, from 0, the outermost first."""
    output_json: str = ""
    """Output of this run, once it has completed."""
    error: str = ""
    """Why it failed or is tried again."""
    children: list[str] = field(default_factory=list)
    """References of the tasks within it that have started, in that order."""

    @property
    def indices(self) -> str:
        """Its iteration as people write indices, `[2][0]`; empty outside of loops."""
        return "".join(f"[{index}]" for index in self.iteration)

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return self.state in ("running", "retrying")


class ExecutionTree:
    """What an execution has done, by its events in their order."""

    def __init__(self, begun_ms: int = 0) -> None:
        """`begun_ms`: when its first event happened, if that is not among those to come."""
        self.begun_ms = begun_ms
        self.workflow = ""
        self.execution_id = ""
        self.status = "pending"
        self.at_ms = 0
        """When the latest event happened."""
        self.nodes: dict[str, Node] = {}
        """Every task that has started, by reference."""
        self._top: list[str] = []
        self._touched: OrderedDict[str, None] = OrderedDict()

    @property
    def ended(self) -> bool:
        """Whether its terminal event has come."""
        return self.status in FINAL_STATUSES

    def take(self, event: Event) -> list[Node]:
        """Takes an event over; gives the tasks that it has interrupted, which send nothing themselves."""
        self.begun_ms = self.begun_ms or event.timestamp_ms
        self.at_ms = event.timestamp_ms
        self.workflow = event.workflow_name or self.workflow
        self.execution_id = event.workflow_execution_id or self.execution_id
        if event.task_reference:
            return self._take_task(event)
        self.status = event.status or self.status
        if not self.ended:
            return []
        return [node for reference in self._top for node in self._interrupt(reference)]

    def _take_task(self, event: Event) -> list[Node]:
        state = _STATES.get(event.event_type)
        if state is None:
            return []
        node = self.nodes.get(event.task_reference)
        if node is None:
            node = self._add(event)
        elif state == "running":
            # A retry counts on; what starts again in the same attempt is another run of the task.
            iteration = tuple(event.iteration)
            again = event.attempt <= node.attempt and iteration == node.iteration
            node.run = node.run + again if iteration == node.iteration else 1
            node.iteration = iteration
            self._forget_below(node)
            node.begun_ms, node.output_json, node.error = event.timestamp_ms, "", ""
        node.state, node.at_ms, node.attempt = state, event.timestamp_ms, max(event.attempt, 1)
        node.output_json = event.output_json or node.output_json
        node.error = event.error.message or node.error
        self._touched[node.reference] = None
        self._touched.move_to_end(node.reference)
        if node.open:
            return []
        return [other for child in node.children for other in self._interrupt(child)]

    def _add(self, event: Event) -> Node:
        reference = event.task_reference
        begun_ms = event.timestamp_ms if event.event_type == "task_started" else 0
        node = Node(
            reference,
            event.task_name,
            self._parent(reference),
            begun_ms=begun_ms,
            iteration=tuple(event.iteration),
        )
        self.nodes[reference] = node
        (self.nodes[node.parent].children if node.parent else self._top).append(reference)
        return node

    def _parent(self, reference: str) -> str:
        """The nearest task around it that has started."""
        while (end := reference.rfind("/")) > 0:
            reference = reference[:end]
            if reference in self.nodes:
                return reference
        return ""

    def _forget_below(self, node: Node) -> None:
        for reference in node.children:
            self._forget_below(self.nodes.pop(reference))
            self._touched.pop(reference, None)
        node.children.clear()

    def _interrupt(self, reference: str) -> Iterator[Node]:
        node = self.nodes[reference]
        if not node.open:
            return
        node.state = "interrupted"
        yield node
        for child in node.children:
            yield from self._interrupt(child)

    # --- on a terminal ---

    def shown(self, now_ms: int, lines_max: int, outputs: bool = False) -> Tree:
        """The tree in at most so many lines: what happened last, and the tasks around that."""
        shown = self._latest(lines_max - 1)
        tree = Tree(self._title(now_ms, len(self.nodes) - len(shown)), guide_style="bright_black")
        self._grow(tree, self._top, shown, now_ms, outputs)
        return tree

    def _latest(self, count_max: int) -> set[str]:
        if len(self.nodes) <= count_max:
            return set(self.nodes)
        shown: set[str] = set()
        for reference in reversed(self._touched):
            path = []
            while reference and reference not in shown:
                path.append(reference)
                reference = self.nodes[reference].parent
            if len(shown) + len(path) > count_max:
                break
            shown.update(path)
        return shown

    def _grow(self, tree: Tree, references: list[str], shown: set[str], now_ms: int, outputs: bool) -> None:
        for reference in references:
            if reference in shown:
                node = self.nodes[reference]
                branch = tree.add(_line(node, self.at_ms if self.ended else now_ms, outputs))
                self._grow(branch, node.children, shown, now_ms, outputs)

    def _title(self, now_ms: int, hidden: int) -> Text:
        mark, style = _MARKS.get(self.status, ("…", "blue"))
        text = _text(f"{mark} {printable(self.workflow)}", f"bold {style}")
        text.append(f"  {self.status}", style=style)
        if self.begun_ms:
            text.append(f"  {span((self.at_ms if self.ended else now_ms) - self.begun_ms)}", style="dim")
        text.append(f"  {printable(self.execution_id)}", style="dim")
        if hidden:
            text.append(f"  ({hidden} tasks more)", style="dim")
        return text


def _text(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _line(node: Node, now_ms: int, outputs: bool) -> Text:
    mark, style = _MARKS[node.state]
    text = _text(f"{mark} {printable(node.name)}", style)
    if node.begun_ms:
        text.append(f"  {span((now_ms if node.open else node.at_ms) - node.begun_ms)}", style="dim")
    if node.attempt > 1:
        text.append(f"  attempt {node.attempt}", style="yellow")
    if node.iteration:
        text.append(f"  {node.indices}", style="cyan")
    if node.run > 1:
        text.append(f"  run {node.run}", style="cyan")
    if node.error and node.state != "completed":
        text.append(f"  {printable(node.error)}", style="red")
    if outputs and node.output_json:
        text.append(f"  {printable(node.output_json[:_OUTPUT_CHARS_MAX])}", style="dim")
    return text
