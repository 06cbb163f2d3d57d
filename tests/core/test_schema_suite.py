"""The JSON-Schema-Test-Suite for five drafts: its verdicts but for the exceptions listed here, each with its reason.

The suite comes with `make suites`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import InvalidSchema, compile_schema
from tests.outside import find_suite, require

SUITE = find_suite("json-schema-test-suite") / "tests"
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
ELSEWHERE = "http://localhost:1234/"
"""Where the suite keeps documents that an implementation is to fetch: such a schema is refused instead."""
ANNOTATION = "content keywords are annotations in every draft"
IDN = "the tables of IDNA 2008 are followed but for single characters and the joining types of scripts"
EXCEPTIONS = {
    ("draft7/optional/content.json", "an invalid JSON document"): ANNOTATION,
    ("draft7/optional/content.json", "an invalid base64 string (% is not a valid character)"): ANNOTATION,
    ("draft7/optional/content.json", "a validly-encoded invalid JSON document"): ANNOTATION,
    ("draft7/optional/content.json", "an invalid base64 string that is valid JSON"): ANNOTATION,
    (
        "draft7/optional/format/idn-hostname.json",
        "Arabic-Indic digits mixed with Extended Arabic-Indic digits",
    ): IDN,
    (
        "draft7/optional/format/idn-hostname.json",
        "ZERO WIDTH NON-JOINER not preceded by Virama but matches regexp",
    ): IDN,
}

require(SUITE.is_dir(), "the JSON Schema test suite", module=True)


@dataclass(frozen=True)
class Case:
    """One value of the suite, and its verdict."""

    file: str
    group: str
    name: str
    schema: Any
    value: Any
    valid: bool

    @property
    def reason(self) -> str | None:
        """Why it is an exception; None if it is none."""
        return EXCEPTIONS.get((self.file, self.name))


def asserts_formats(path: Path) -> bool:
    """`format` is an annotation from 2019-09 on, and the suite's optional part has it as an assertion."""
    return "format" not in path.parts or path.relative_to(SUITE).parts[0] in ("draft4", "draft6", "draft7")


@cache
def cases() -> tuple[Case, ...]:
    return tuple(_read())


def _read() -> Iterator[Case]:
    for draft, uri in DRAFTS.items():
        for path in sorted((SUITE / draft).rglob("*.json")):
            if not asserts_formats(path):
                continue
            for group in json.loads(path.read_text(encoding="utf-8")):
                schema = group["schema"]
                if isinstance(schema, dict):
                    schema = {"$schema": uri, **schema}
                for test in group["tests"]:
                    file = str(path.relative_to(SUITE))
                    yield Case(file, group["description"], test["description"], schema, test["data"], test["valid"])


def verdict(case: Case) -> bool | None:
    """None: the schema is refused."""
    try:
        return compile_schema(case.schema).check(case.value)[0] is None
    except InvalidSchema:
        return None


def needs_fetching(case: Case) -> bool:
    return ELSEWHERE in json.dumps(case.schema)


@pytest.mark.parametrize("draft", DRAFTS)
def test_verdicts_are_those_of_the_suite(draft: str) -> None:
    """Every value has the suite's verdict, is refused for what would have to be fetched, or is a listed exception."""
    wrong = []
    for case in cases():
        if not case.file.startswith(draft + "/"):
            continue
        found = verdict(case)
        explained = case.reason is not None or (found is None and needs_fetching(case))
        if (found is case.valid) is explained:
            wrong.append((case.file, case.group, case.name, found))
    assert wrong == []


def test_exceptions_name_cases() -> None:
    assert set(EXCEPTIONS) <= {(case.file, case.name) for case in cases()}


def test_share_of_the_suite(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """The share goes to the output."""
    here = [case for case in cases() if verdict(case) is not None or not needs_fetching(case)]
    passed = sum(verdict(case) is case.valid for case in here)
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        share = f"{passed} of {len(here)} values have the suite's verdict ({passed / len(here):.2%})"
        with capsys.disabled():
            reporter.write_line(f"\nJSON Schema: {share}, {len(cases()) - len(here)} need documents from elsewhere")
    assert len(here) - passed == len(EXCEPTIONS)
