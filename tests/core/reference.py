"""Support: a slow, plain walker, written from the specification, as an oracle for the compiled one.

It shares nothing with the core but its expressions. Control flow is Python's own: lists are loops, faults are
exceptions, branches are generators that yield the time they sleep until. Of branches that wake at the same moment each
ends its wait, in their order, before the first of them goes on. Events are (type, reference, attempt, output or error,
indices of the loops around it); what is not in them (texts, times, sequence numbers) is tested elsewhere.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from fastrunner._jq import ExpressionError, compile_expression

__all__ = ["Event", "Reference"]

EXPRESSION = "https://open-workflow-specification.org/spec/1.0.0/errors/expression"

Event = tuple[str, str, int, Any, tuple[int, ...]]
Flow = Generator[int, None, Any]


class FaultError(Exception):
    """A DSL error on its way outwards."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["type"])
        self.error = error


class EndError(Exception):
    """`then: end`."""

    def __init__(self, output: Any) -> None:
        super().__init__("end")
        self.output = output


def word_of(task: dict[str, Any]) -> str:
    """What `extend` calls a task's kind."""
    (kind,) = {"set", "raise", "switch", "wait", "fork", "try"} & set(task) or {"for" if "for" in task else "do"}
    return "composite" if kind in ("do", "fork") else kind


@dataclass
class Place:
    """Where a task list runs: its pointer, the variables, the attempt, and the context its tasks share."""

    pointer: str
    variables: dict[str, Any]
    attempt: int
    context: dict[str, Any]
    iteration: tuple[int, ...] = ()


@dataclass
class Reference:
    """Runs one list of tasks to the end."""

    tasks: list[dict[str, Any]]
    input: Any
    extensions: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    now_ms: int = 0
    status: str = "running"
    output: Any = None
    error: dict[str, Any] | None = None

    def run(self) -> "Reference":
        flow = self.run_list(self.tasks, self.input, Place("/do", {}, 1, {}))
        try:
            while True:
                self.now_ms = max(self.now_ms, next(flow))
        except StopIteration as stop:
            self.status, self.output = "completed", stop.value[0]
        except EndError as end:
            self.status, self.output = "completed", end.output
        except FaultError as fault:
            self.status, self.error = "failed", fault.error
        return self

    # --- values ---

    def evaluate(self, text: str, dot: Any, reference: str, variables: dict[str, Any]) -> Any:
        program = compile_expression(text)
        try:
            return program.first(dot, [variables[name] for name in program.arguments])
        except ExpressionError as error:
            detail = f"{error} (in {text})"
            raise FaultError(
                {
                    "type": EXPRESSION,
                    "status": 400,
                    "title": "Expression Error",
                    "detail": detail,
                    "instance": reference,
                }
            ) from None

    def render(self, template: Any, dot: Any, reference: str, variables: dict[str, Any]) -> Any:
        if isinstance(template, dict):
            return {key: self.render(value, dot, reference, variables) for key, value in template.items()}
        if isinstance(template, list):
            return [self.render(value, dot, reference, variables) for value in template]
        if isinstance(template, str) and template.startswith("${"):
            return self.evaluate(template[2:-1].strip(), dot, reference, variables)
        return template

    def slot(self, value: Any, dot: Any, reference: str, variables: dict[str, Any]) -> Any:
        if isinstance(value, str):
            return self.evaluate(value.removeprefix("${").removesuffix(" }").strip(), dot, reference, variables)
        return self.render(value, dot, reference, variables)

    # --- lists and tasks ---

    def run_list(self, tasks: list[dict[str, Any]], data: Any, place: Place) -> Flow:
        """Gives (output, whether the list was left by `exit`)."""
        names = [next(iter(item)) for item in tasks]
        position = 0
        while position < len(tasks):
            yield from self.let_others_wake(place)
            name = names[position]
            data, then = yield from self.run_task(
                f"{place.pointer}/{position}/{name}", tasks[position][name], data, place
            )
            if then == "end":
                raise EndError(data)
            if then == "exit":
                yield from self.let_others_wake(place)
                return data, True
            position = position + 1 if then == "continue" else names.index(then)
        yield from self.let_others_wake(place)
        return data, False

    def sleep(self, duration_ms: int, place: Place) -> Flow:
        yield self.now_ms + duration_ms
        place.context["woken"] = True

    def let_others_wake(self, place: Place) -> Flow:
        """Ends a branch's turn if it has just woken."""
        if place.context.pop("woken", False):
            yield self.now_ms

    def run_task(self, reference: str, task: dict[str, Any], raw: Any, place: Place) -> Flow:
        """Gives (output, directive)."""
        kind = "try" if "try" in task else "other"
        attempt = [1 if kind == "try" else place.attempt]
        variables = {**place.variables, "context": place.context.get("value")}
        started = False
        try:
            if "if" in task and self.slot(task["if"], raw, reference, variables) in (None, False):
                return raw, "continue"
            self.events.append(("task_started", reference, attempt[0], None, place.iteration))
            started = True
            data = raw
            entered, mocked = yield from self.run_before(reference, task, raw, place)
            variables["context"] = place.context.get("value")
            if "input" in task and not mocked:
                data = self.slot(task["input"]["from"], raw, reference, variables)
            variables["input"] = data
            if mocked:
                output, then = mocked[0], task.get("then", "continue")
            else:
                output, then = yield from self.run_kind(reference, task, data, place, variables, attempt)
            variables["context"] = place.context.get("value")
            raw_output = variables["output"] = output
            if "output" in task:
                output = self.slot(task["output"]["as"], output, reference, variables)
            variables["output"] = output
            if "export" in task:
                place.context["value"] = self.slot(task["export"]["as"], output, reference, variables)
                place.context["exported"] = True
            self.events.append(("task_completed", reference, attempt[0], output, place.iteration))
        except FaultError as fault:
            if not started:
                self.events.append(("task_started", reference, attempt[0], None, place.iteration))
            self.events.append(("task_failed", reference, attempt[0], fault.error, place.iteration))
            raise
        for number in reversed(entered):
            place_after = self.place_in(number, "after", reference, task, raw, raw_output, place)
            yield from self.run_list(self.extensions[number].get("after", []), output, place_after)
        return output, then

    def run_before(self, reference: str, task: dict[str, Any], raw: Any, place: Place) -> Flow:
        """Gives (numbers of the extensions around it, a list with the output that one has put in its place)."""
        entered: list[int] = []
        for number, extension in enumerate(self.extensions):
            # Within an extension there is a variable of this name.
            if "task" in place.variables or extension["extend"] not in ("all", word_of(task)):
                continue
            inside = self.place_in(number, "before", reference, task, raw, None, place)
            seen = {**inside.variables, "context": place.context.get("value")}
            if "when" in extension and self.slot(extension["when"], raw, reference, seen) in (None, False):
                continue
            data, left = yield from self.run_list(extension.get("before", []), raw, inside)
            if left:
                return entered, [data]
            entered.append(number)
        return entered, []

    def place_in(
        self, number: int, part: str, reference: str, task: dict[str, Any], raw: Any, output: Any, place: Place
    ) -> Place:
        facts = {**task, "name": reference.rpartition("/")[2], "input": raw, "output": output}
        pointer = f"{reference}/use/extensions/{number}/e{number}/{part}"
        return Place(pointer, {"task": facts}, place.attempt, place.context, place.iteration)

    def run_kind(
        self,
        reference: str,
        task: dict[str, Any],
        data: Any,
        place: Place,
        variables: dict[str, Any],
        attempt: list[int],
    ) -> Flow:
        then = task.get("then", "continue")
        if "set" in task:
            return self.slot(task["set"], data, reference, variables), then
        if "raise" in task:
            error = self.render(task["raise"]["error"], data, reference, variables)
            raise FaultError({**error, "instance": error.get("instance", reference)})
        if "switch" in task:
            return data, self.choose(reference, task, data, variables)
        if "wait" in task:
            yield from self.sleep(task["wait"]["milliseconds"], place)
            return data, then
        if "for" in task:
            return (yield from self.run_for(reference, task, data, place)), then
        if "fork" in task:
            return (yield from self.run_fork(reference, task, data, place)), then
        if "try" in task:
            return (yield from self.run_try(reference, task, data, place, attempt))
        inner = Place(f"{reference}/do", place.variables, place.attempt, place.context, place.iteration)
        output, _ = yield from self.run_list(task["do"], data, inner)
        return output, then

    def choose(self, reference: str, task: dict[str, Any], data: Any, variables: dict[str, Any]) -> str:
        default = task.get("then", "continue")
        for item in task["switch"]:
            (case,) = item.values()
            if "when" not in case:
                default = case["then"]
        for item in task["switch"]:
            (case,) = item.values()
            if "when" in case and self.slot(case["when"], data, reference, variables) not in (None, False):
                return str(case["then"])
        return str(default)

    def run_for(self, reference: str, task: dict[str, Any], data: Any, place: Place) -> Flow:
        own = {**place.variables, "context": place.context.get("value"), "input": data}
        items = self.slot(task["for"]["in"], data, reference, own)
        if items is not None and not isinstance(items, list):
            detail = "the collection of `for.in` is neither an array nor null"
            raise FaultError(
                {
                    "type": EXPRESSION,
                    "status": 400,
                    "title": "Expression Error",
                    "detail": detail,
                    "instance": reference,
                }
            )
        flowing = data
        for index, item in enumerate(items or []):
            variables = {**place.variables, task["for"].get("each", "item"): item, "index": index}
            if "while" in task:
                seen = {**variables, "context": place.context.get("value"), "input": data}
                if self.slot(task["while"], flowing, reference, seen) in (None, False):
                    break
            inner = Place(f"{reference}/do", variables, place.attempt, place.context, (*place.iteration, index))
            flowing, left = yield from self.run_list(task["do"], flowing, inner)
            if left:
                break
        return flowing

    def run_try(self, reference: str, task: dict[str, Any], data: Any, place: Place, attempt: list[int]) -> Flow:
        catch = task["catch"]
        then = task.get("then", "continue")
        while True:
            try:
                body = Place(f"{reference}/try", place.variables, attempt[0], place.context, place.iteration)
                output, _ = yield from self.run_list(task["try"], data, body)
                return output, then
            except FaultError as fault:
                error = fault.error
            variables = {
                **place.variables,
                catch.get("as", "error"): error,
                "context": place.context.get("value"),
                "input": data,
            }
            wanted = catch.get("errors", {}).get("with", {})
            if any(error.get(key) != value for key, value in wanted.items()):
                raise FaultError(error)
            if "when" in catch and self.slot(catch["when"], error, reference, variables) in (None, False):
                raise FaultError(error)
            if "retry" in catch:
                if attempt[0] <= catch["retry"]["limit"]["attempt"]["count"]:
                    delay_ms = catch["retry"].get("delay", {}).get("milliseconds", 0)
                    attempt[0] += 1
                    self.events.append(("task_retry", reference, attempt[0], error, place.iteration))
                    if delay_ms:
                        yield from self.sleep(delay_ms, place)
                    continue
                if "do" not in catch and "then" not in catch:
                    raise FaultError(error)
            handler = Place(
                f"{reference}/catch/do",
                {**place.variables, catch.get("as", "error"): error},
                place.attempt,
                place.context,
                place.iteration,
            )
            output, _ = yield from self.run_list(catch.get("do", []), data, handler)
            return output, catch.get("then", then)

    def run_fork(self, reference: str, task: dict[str, Any], data: Any, place: Place) -> Flow:
        """Branches go on one after the other, each until it sleeps."""
        branches: dict[int, Flow] = {}
        contexts = []
        outputs = [None] * len(task["fork"]["branches"])
        wakes: dict[int, int] = {}
        before = place.context.get("value")
        for number, item in enumerate(task["fork"]["branches"]):
            contexts.append({"value": before})
            (name,) = item
            own = Place("", place.variables, place.attempt, contexts[number], place.iteration)
            branches[number] = self.run_task(f"{reference}/fork/branches/{number}/{name}", item[name], data, own)
            wakes[number] = self.now_ms
        while branches:
            earliest = min(wakes.values())
            if earliest > self.now_ms:
                yield earliest
            for number in [number for number in branches if wakes[number] <= self.now_ms]:
                try:
                    wakes[number] = next(branches[number])
                except StopIteration as stop:
                    outputs[number], then = stop.value
                    del branches[number], wakes[number]
                    if then == "end":
                        raise EndError(outputs[number]) from None
        for context in contexts:
            if "exported" in context:
                place.context.update(value=context["value"], exported=True)
        return outputs
