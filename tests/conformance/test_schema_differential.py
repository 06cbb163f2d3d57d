"""The validator against the official schema: the same verdict on mutated examples, but for the rules listed here."""

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner._core import Problem, ResourcesMissing, load, validate
from fastrunner._core import compile as compile_workflow
from tests.conformance.full_documents import FULL_DOCUMENTS
from tests.conformance.mutations import Mutator
from tests.core.documents import CONFORMANCE, in_steps, needs_conformance
from tests.properties import examples

MUTATIONS_COUNT = 30_000
COMPILED_MUTATIONS_COUNT = 4_000
STEPPED_MUTATIONS_COUNT = 4_000


@dataclass(frozen=True)
class Stricter:
    """A rule of ours that the schema does not have: problems of this code, at pointers and with messages that match."""

    code: str
    reason: str
    pointer: str = r".*"
    message: str = r".*"
    call: str = ""
    """The protocol of the call whose `with` the pointer leads into."""

    def explains(self, problem: Problem, document: Any) -> bool:
        """Whether the problem comes from this rule."""
        if problem.code != self.code or not re.match(self.message, problem.message):
            return False
        match = re.fullmatch(self.pointer, problem.pointer, re.DOTALL)
        if match is None:
            return False
        return not self.call or bool(value_at(document, match["task"]).get("call") == self.call)


def value_at(document: Any, pointer: str) -> Any:
    """The value at a JSON pointer."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


OPEN_OBJECTS = "the schema leaves the object open; a key nobody reads is a mistake of its author"
STRICTER = [
    Stricter("duplicate-task", "the schema cannot compare names; `then` would be ambiguous (checklist 1.10)"),
    Stricter("duplicate-default", "the schema cannot count cases without `when` (checklist 8.16.3)"),
    Stricter("unknown-target", "the schema knows no task names (checklist 5.6, T12)"),
    Stricter("unresolved-resource", "the schema takes any URI, and what is fetched has to be a constant URL"),
    Stricter("too-many-resources", "a bound"),
    Stricter("unknown-reference", "the schema knows no names of `use` (checklist 10.2)"),
    Stricter("invalid-expression", "the schema compiles no jq, and its pattern takes `${ .a } and ${ .b }` (T3)"),
    Stricter("unknown-variable", "an unbound variable could only fail (checklist 6.10, T8)"),
    Stricter("unavailable-variable", "a variable without value here could only fail (checklist 6.10)"),
    Stricter("invalid-schema", "the schema accepts any value as inline schema (checklist 4.10)"),
    Stricter("unsupported-dsl", "the schema accepts any version; other languages would run wrongly (checklist 1.3)"),
    Stricter("recursive-function", "each call is a copy of its function, so none may come to itself (checklist T31)"),
    Stricter("unsupported-template", "operators of RFC 6570 would never be expanded (checklist 14.2, T34)"),
    Stricter("reserved-name", "a loop variable named `input` would hide `$input`; `then` could name no task `end`"),
    Stricter("unprovided-variable", "a variable that nothing in the document gives a value could only be null"),
    Stricter("several-results", "a loop over results one by one is none over a list", r".*/for/in"),
    Stricter("never-matches", "the text of a filter is compared as it stands", r".*/catch/errors/with/[^/]*"),
    Stricter("never-matches", "no event has such an attribute", r".*/(one|any/\d+|all/\d+)/with/[^/]*"),
    Stricter(
        "wrong-type", "CloudEvents has no such attribute", r".*/emit/event/with/[^/]*", r"an attribute of an event"
    ),
    Stricter("invalid-format", "CloudEvents has no such attribute", r".*/emit/event/with/[^/]*", r"attributes of"),
    Stricter("empty-value", "attributes of events are not empty", r".*/with/[^/]*", r"an attribute of an event"),
    Stricter("invalid-value", "there is one version of CloudEvents", r".*/emit/event/with/specversion"),
    Stricter("document-too-costly", "the schema does not count what compiling costs"),
    Stricter("foreign-dialect", "documents of DSL 0.x are named as what they are (checklist 0.8)"),
    Stricter("unknown-key", OPEN_OBJECTS, r"/[^/]*"),
    Stricter("unknown-key", OPEN_OBJECTS, r".*/catch/errors/[^/]*(/[^/]*)?"),
    Stricter("unknown-key", OPEN_OBJECTS, r"(?P<task>.*)/with(/transport(/http|/stdio)?|/client)?/[^/]*", call="mcp"),
    Stricter("unknown-key", OPEN_OBJECTS, r".*/oauth2/endpoints/[^/]*"),
    Stricter("unknown-key", OPEN_OBJECTS, r".*/(oauth2|oidc)/request/[^/]*"),
    Stricter("unknown-key", OPEN_OBJECTS, r".*/correlate/[^/]*/[^/]*"),
    Stricter("unknown-key", OPEN_OBJECTS, r".*/emit/event/[^/]*"),
    Stricter("unknown-key", OPEN_OBJECTS, r"/use/authentications/[^/]*/[^/]*"),
    Stricter("unknown-key", OPEN_OBJECTS, r".*/backoff/(constant|exponential|linear)/[^/]*"),
    Stricter("missing-key", "an event without `with` has no type (checklist 8.9.1)", r".*/emit/event", r".*'with'"),
    Stricter(
        "missing-key", "an A2A call needs somewhere to go (checklist 8.6.2)", r".*/with", r".*agentCard and server"
    ),
    Stricter("missing-key", "a schedule that starts nothing (checklist 16.1)", r"/schedule"),
    Stricter("missing-key", "a client is its id, or an assertion (checklist 9.9)", r".*/(oauth2|oidc)/client"),
    Stricter("invalid-format", "a cron expression has five fields (checklist 16.3)", r"/schedule/cron"),
    Stricter("invalid-format", "jq could not bind the variable", r".*/(each|at|item|as)"),
    Stricter("invalid-format", "the method could not be sent", r".*/with/method"),
    Stricter(
        "invalid-format",
        "HTTP goes to a host, and no document has a base",
        r".*/with/endpoint(/uri)?",
        r"an HTTP endpoint",
    ),
    Stricter(
        "invalid-format", "a source is fetched over HTTP", r".*/script/source/endpoint(/uri)?", r"an HTTP endpoint"
    ),
    Stricter("conflicting-keys", "one key under both its names", r".*/catch/errors/with/details?"),
    Stricter("out-of-range", "a thousand years of waiting are a mistake", message=r"a duration is at most"),
    Stricter("invalid-value", "only js and python can run (checklist 8.14.7)", r".*/script/language"),
]


def published_schema() -> Any:
    """The schema as published."""
    return load((CONFORMANCE / "schema" / "workflow.yaml").read_bytes())


def widened_schema() -> Any:
    """The schema with what other releases of the language have: DSL 1.1's `for.in`, 1.0's `details` of an error."""
    schema = published_schema()
    branches = schema["$defs"]["forTask"]["allOf"][1]["properties"]["for"]["properties"]["in"]["oneOf"]
    (inline,) = [branch for branch in branches if branch["type"] == "array"]
    del inline["items"]
    filters = schema["$defs"]["errorFilter"]["properties"]
    filters["details"] = filters["detail"]
    return schema


@dataclass(frozen=True)
class Dialect:
    """A schema to agree with, and what is particular to it."""

    schema: Callable[[], Any]
    stricter: tuple[Stricter, ...] = ()
    has_any_items: bool = True

    def validator(self) -> Any:
        """The schema with formats."""
        return jsonschema_rs.Draft202012Validator(self.schema(), validate_formats=True)

    def without_laxer(self, document: Any) -> Any:
        """The document without what we accept and this schema does not."""
        return with_argument_lists(without_description(document if self.has_any_items else with_objects_only(document)))

    def unexplained(self, problems: tuple[Problem, ...], document: Any) -> list[Problem]:
        """Problems that the schema must find as well."""
        rules = (*STRICTER, *self.stricter)
        return [
            p for p in problems if p.code != "unsupported" and not any(rule.explains(p, document) for rule in rules)
        ]


DIALECTS = {
    "published": Dialect(
        published_schema,
        (Stricter("wrong-type", OPEN_OBJECTS, r".*/catch/errors/with/details"),),
        has_any_items=False,
    ),
    "widened": Dialect(widened_schema),
}


def corpus() -> list[Any]:
    """The examples, and documents of our own for what they leave out."""
    paths = sorted((CONFORMANCE / "examples").iterdir())
    return [load(path.read_bytes()) for path in paths] + [load(text) for text in FULL_DOCUMENTS]


def without_description(document: Any) -> Any:
    """The document without `document.description`, which no schema has and real documents carry."""
    header = document.get("document") if isinstance(document, dict) else None
    if not isinstance(header, dict) or not isinstance(header.get("description"), str):
        return document
    return {**document, "document": {key: value for key, value in header.items() if key != "description"}}


def with_argument_lists(value: Any) -> Any:
    """The document without `arguments` of processes as maps, which they were up to DSL 1.0.2."""
    if isinstance(value, list):
        return [with_argument_lists(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: with_argument_lists(member) for key, member in value.items()}
    if isinstance(process := changed.get("run"), dict):
        for kind in ("container", "script", "shell"):
            if isinstance(process.get(kind), dict) and isinstance(process[kind].get("arguments"), dict):
                process[kind]["arguments"] = []
    return changed


def with_objects_only(value: Any) -> Any:
    """The document with objects for all other items that a `for.in` lists."""
    if isinstance(value, list):
        return [with_objects_only(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: with_objects_only(member) for key, member in value.items()}
    loop = changed.get("for")
    if isinstance(loop, dict) and isinstance(loop.get("in"), list):
        loop["in"] = [item if isinstance(item, dict) else {} for item in loop["in"]]
    return changed


def has_mixed_policy(document: Any) -> bool:
    """Whether a policy in `use` has two schemes. We refuse it; the schema does only if both are valid."""
    use = document.get("use") if isinstance(document, dict) else None
    policies = use.get("authentications") if isinstance(use, dict) else None
    return isinstance(policies, dict) and any(
        isinstance(policy, dict) and len(policy.keys() & {"basic", "bearer", "digest", "oauth2", "oidc"}) > 1
        for policy in policies.values()
    )


@needs_conformance
@pytest.mark.parametrize("name", DIALECTS)
def test_verdicts_equal_those_of_the_official_schema(name: str) -> None:
    seed = secrets.randbits(32)
    dialect = DIALECTS[name]
    schema = dialect.validator()
    mutator = Mutator(corpus(), Random(seed))
    refused = 0
    for number in range(MUTATIONS_COUNT):
        document = mutator.document()
        problems = dialect.unexplained(validate(json.dumps(document)), document)
        if has_mixed_policy(document):
            assert validate(json.dumps(document))
            continue
        accepted = schema.is_valid(dialect.without_laxer(document))
        refused += not accepted
        if accepted == bool(problems):
            pytest.fail(
                f"seed {seed}, document {number}: the schema {'accepts' if accepted else 'refuses'} it, we "
                f"{problems or 'find nothing'}; all ours: {validate(json.dumps(document))}\n{json.dumps(document)}"
            )
    assert MUTATIONS_COUNT // 10 < refused < MUTATIONS_COUNT * 19 // 20, "the mutations test one verdict only"


@needs_conformance
def test_documents_without_problems_compile() -> None:
    seed = secrets.randbits(32)
    mutator = Mutator(corpus(), Random(seed))
    compiled = 0
    for number in range(COMPILED_MUTATIONS_COUNT):
        text = json.dumps(mutator.document())
        if validate(text):
            continue
        try:
            compile_workflow(text)
        except ResourcesMissing:
            continue
        except Exception as error:
            pytest.fail(f"seed {seed}, document {number}: {error!r}\n{text}")
        compiled += 1
    assert compiled > COMPILED_MUTATIONS_COUNT // 50


def in_header(key: str) -> Callable[[str], Any]:
    return lambda text: {**SAMPLE, "document": {**SAMPLE["document"], key: text}}


def in_task(task: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: {**SAMPLE, "do": [{"task": task(text)}]}


SAMPLE: dict[str, Any] = {"document": {"dsl": "1.0.3", "namespace": "a", "name": "b", "version": "1.0.0"}, "do": []}
NEAR_FORMATS = {
    "version": (in_header("version"), r"0?[0-9]{1,2}\.[01]\.0?[0-9](-[a0.+-]{0,4})?(\+[a0.-]{0,4})?"),
    "name": (in_header("name"), r"[a-zA-Z0-9._-]{0,5}|[a-]{61,65}"),
    "duration": (
        in_task(lambda text: {"wait": text}),
        r"-?P?([0-9]?(\.[0-9])?[YMWDdS]){0,4}(T([0-9]?(\.[0-9])?[HMSs]){0,3})?[ \n]?",
    ),
    "wrapped": (in_task(lambda text: {"wait": text}), r"[ \n]?\$?\{[ .a\n}{]{0,3}\}?[ \n]?"),
    "endpoint": (
        in_task(lambda text: {"call": "http", "with": {"method": "get", "endpoint": text}}),
        r"(http:)?(//)?[a/:?#%41@!$'()*+;=\[\]é .\"<>\\^`|{}_~,-]{0,8}",
    ),
    "type": (
        in_task(lambda text: {"raise": {"error": {"type": text, "status": 400}}}),
        r"[ \n]?[a:/?#.${}% ]{0,6}",
    ),
    "instance": (
        in_task(lambda text: {"raise": {"error": {"type": "a", "status": 400, "instance": text}}}),
        r"/?[a~01/${} .-]{0,6}",
    ),
    "time": (
        in_task(lambda text: {"emit": {"event": {"with": {"type": "a", "time": text}}}}),
        r"(2024|2023|1900|2000)-(02|0[0-9]|1[0-3])-(28|29|3[0-2]|0[01])[Tt ]"
        r"(23|2[0-4]):(59|60|00):(59|60|61)(\.[0-9]{0,2})?([zZ]|[+-](00|01|24):(00|59|60))?",
    ),
    "host": (
        in_task(
            lambda text: {
                "call": "grpc",
                "with": {"proto": {"endpoint": "a"}, "service": {"name": "a", "host": text}, "method": "a"},
            }
        ),
        r"[a-z0-9._:-]{0,6}",
    ),
    "path": (
        in_task(
            lambda text: {
                "call": "openapi",
                "with": {
                    "document": {"endpoint": "a"},
                    "operationId": "a",
                    "authentication": {
                        "oauth2": {"authority": "a", "grant": "password", "endpoints": {"token": text}},
                    },
                },
            }
        ),
        r"[ \n]?[a:/?#.${}% ,+]{0,6}",
    ),
}


@needs_conformance
@pytest.mark.parametrize("name", NEAR_FORMATS)
def test_formats_equal_those_of_the_official_schema(name: str) -> None:
    build, pattern = NEAR_FORMATS[name]
    dialect = DIALECTS["published"]
    schema = dialect.validator()

    @given(st.from_regex(pattern, fullmatch=True))
    @examples(400)
    def verdicts_are_equal(text: str) -> None:
        document = build(text)
        assert schema.is_valid(document) == (not dialect.unexplained(validate(json.dumps(document)), document))

    verdicts_are_equal()


@needs_conformance
@pytest.mark.parametrize("text", FULL_DOCUMENTS)
def test_documents_that_use_everything_are_valid_for_both(text: str) -> None:
    document = load(text)
    assert DIALECTS["widened"].validator().is_valid(document)
    assert DIALECTS["published"].validator().is_valid(with_objects_only(document))
    assert {problem.code for problem in validate(text)} <= {"unsupported"}


@needs_conformance
def test_steps_find_what_one_pass_finds() -> None:
    """However small the steps are."""
    seed = secrets.randbits(32)
    mutator = Mutator(corpus(), Random(seed))
    for number in range(STEPPED_MUTATIONS_COUNT):
        text = json.dumps(mutator.document())
        assert in_steps(text) == validate(text), f"seed {seed}, document {number}\n{text}"


def test_description_is_the_one_thing_we_accept_beyond_the_schema() -> None:
    header = {"dsl": "1.0.3", "namespace": "a", "name": "b", "version": "1.0.0", "description": "text"}
    assert validate(json.dumps({"document": header, "do": []})) == ()
