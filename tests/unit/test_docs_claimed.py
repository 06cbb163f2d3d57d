"""Every command and document that a page shows is executed by a test, or a line here says by what else and why.

Documents of workflows and data are held by `test_docs.py` wherever they stand, and command lines of ours are parsed
there; here is who executes each of the others.

Rules: a block of a page belongs to exactly one line of its page, the one whose text it contains; a line names tests, or
a target of the Makefile with what holds the block meanwhile. What is named must be there.
"""

import re
import tomllib
from pathlib import Path

import pytest

from fastrunner.config import load_config
from tests.unit.test_docs import BLOCK
from tests.unit.test_links import PAGES, ROOT

CHART_PAGE = ROOT / "deploy" / "helm" / "fastrunner" / "README.md"
EVERYWHERE = {
    "yaml": "unit/test_docs.py::test_documents_are_valid",
    "json": "unit/test_docs.py::test_data_is_json",
}
"""Languages that a test holds on every page."""
README, TUTORIAL = "integration/test_newcomer.py::test_the_readme", "integration/test_newcomer.py::test_the_tutorial"
QUICKSTART, API = "integration/test_pages.py::test_the_quickstart", "integration/test_pages.py::test_calls_of_the_api"
ONE_RUNNER = "integration/test_pages.py::test_pages_on_one_runner"
TEMPORAL = "integration/test_pages.py::test_replicas_on_temporal"
PYTHON = "integration/test_clients.py::test_the_client_in_python"
LANGUAGES = "make languages: fetches packages of Maven, Go and npm; integration/test_clients.py::test_the_client_in"
RECEIVER = "integration/test_clients.py::test_the_receiver"
LOAD_TEST = "integration/test_newcomer.py::test_a_load_test_of_ones_own"
SYNOPSES = "synopses, not commands: unit/test_docs.py::test_options_that_are_named_are_there"
EXTRA = "make wheels-check installs; unit/test_docs_claimed.py::test_extras_that_are_installed_are_there"
CLAIMS: dict[str, dict[str, str]] = {
    "README.md": {
        "make demo": "make demo, integration/test_demo.py::test_the_demo_is_right_stays_and_ends",
        "make test": "make test: it is this",
        "make build": README,
        "fastrunner submit examples/routing.yaml": README,
        "grpcurl": README,
        "fastrunner receiver": README,
    },
    "docs/api.md": {
        "from fastrunner.api import": "unit/test_docs_claimed.py::test_what_is_imported_is_there",
        "localhost:9090 list": API,
        "ExecuteAsync": API,
        "workflow register": API,
        "CancelExecution": API,
        "GetExecution": API,
        "ValidateWorkflow": API,
    },
    "docs/callbacks.md": {
        "A receiver of progress": f"{RECEIVER}, integration/test_clients.py::test_the_pages_show_the_examples",
        "python receiver.py": RECEIVER,
        "fastrunner receiver": ONE_RUNNER,
    },
    "docs/clients.md": {
        "fastrunner protos": PYTHON,
        "from fastrunner import api": f"{PYTHON}, integration/test_clients.py::test_the_pages_show_the_examples",
        "python client.py": PYTHON,
        "grpc_tools.protoc": PYTHON,
        "grpc.insecure_channel": PYTHON,
        "<project": LANGUAGES,
        "io.grpc.Grpc": LANGUAGES,
        "mvn": LANGUAGES,
        "go install": LANGUAGES,
        "package main": LANGUAGES,
        "go mod edit": LANGUAGES,
        "npm install": LANGUAGES,
        "credentials.createInsecure": LANGUAGES,
        "npx tsc": LANGUAGES,
    },
    "docs/cloudevents.md": {
        "fastrunner send-event --type": ONE_RUNNER,
        "from cloudevents": ONE_RUNNER,
        "SendEvents (gRPC)": "a figure: unit/test_docs.py::test_options_that_are_named_are_there",
    },
    "docs/deployment.md": {
        "podman build": "make image-check, integration/test_deployment.py::test_the_image_is_built_and_run_as_shown",
        "kubectl apply": "make apply-check, "
        "integration/test_deployment.py::test_what_is_made_by_hand_is_what_the_pod_expects, "
        "integration/test_deployment.py::test_the_image_is_set_and_what_is_asked_of_the_cluster_is_there",
        "helm install": "make apply-check, integration/test_deployment.py::test_the_chart_is_installed_as_shown",
    },
    "docs/http-api.md": {"event: progress": "an answer: integration/test_http_api.py::"},
    "docs/operations.md": {
        "pause --where": ONE_RUNNER,
        "data backup": ONE_RUNNER,
        "FASTRUNNER_REPLICA_URL": "integration/test_pages.py::test_a_copy_elsewhere",
        "workflow register|get": SYNOPSES,
        "list --status paused": SYNOPSES,
        "[--data-dir DIR] [--json]": SYNOPSES,
        "data key KEYS": SYNOPSES,
    },
    "docs/performance.md": {"def test_accept": LOAD_TEST, "pytest": LOAD_TEST, "ghz": LOAD_TEST},
    "docs/quickstart.md": {"": QUICKSTART},
    "docs/schedules.md": {"schedule add": ONE_RUNNER},
    "docs/security.md": {
        "FASTRUNNER_EGRESS_ALLOW": "settings: unit/test_docs_claimed.py::test_settings_that_are_shown_are_taken",
        "data key": "integration/test_pages.py::test_sealed_data_and_traces",
    },
    "docs/stigmer.md": {
        "events/stream": "integration/test_pages.py::test_a_stigmer_service",
        "MONGODB_URL": f"{EXTRA}, integration/test_stigmer_shared.py::",
    },
    "docs/tasks.md": {"fastrunner submit approval.yaml": ONE_RUNNER},
    "docs/temporal.md": {
        "pip install": f"{TEMPORAL}, {EXTRA}",
        "data key": TEMPORAL,
        "codec-server": TEMPORAL,
        "temporal sweep": TEMPORAL,
        "set-current-version": TEMPORAL,
    },
    "docs/testing.md": {"": "integration/test_pages.py::test_scenarios"},
    "docs/tracing.md": {"pip install": f"integration/test_pages.py::test_sealed_data_and_traces, {EXTRA}"},
    "docs/tutorial.md": {"": TUTORIAL},
    "examples/README.md": {
        "orders_service": "integration/test_pages.py::test_an_example_by_hand",
        "FASTRUNNER_SECRET_PAYOUTS": "integration/test_pages.py::test_an_example_by_hand",
    },
    "deploy/helm/fastrunner/README.md": {
        "helm install": "make apply-check, "
        "integration/test_deployment.py::test_what_is_made_by_hand_is_what_the_pod_expects, "
        "integration/test_deployment.py::test_the_chart_is_installed_as_shown",
    },
}
PROGRAMS = re.compile(
    r"^export |^([A-Z_]+=\S+ )*"
    r"(fastrunner|grpcurl|curl|pip|python3?|make|kubectl|helm|podman|docker|systemctl|go|npm|npx)\b",
    re.MULTILINE,
)
"""A line that somebody would type."""
INDENTED = re.compile(r"(?<=\n\n)(?:(?: {4}.*)?\n)+")
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[str]:
    """What a page has that no test holds on every page: fenced blocks, and others with lines that one would type."""
    text = page.read_text(encoding="utf-8")
    found = [block for _, language, block in FENCE.findall(text) if language not in EVERYWHERE]
    plain = FENCE.sub("", text)
    indented = [re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in INDENTED.findall(plain)]
    # The page of commands is made of what the command says of itself.
    return found + [block for block in indented if PROGRAMS.search(block) and page.name != "commands.md"]


ALL = {str(page.relative_to(ROOT)): blocks_of(page) for page in (*PAGES, CHART_PAGE)}


@pytest.mark.parametrize("page", [page for page, found in ALL.items() if found])
def test_every_block_is_claimed_once(page: str) -> None:
    claims = CLAIMS.get(page, {})
    claimants = {block: [part for part in claims if part in block] for block in ALL[page]}
    assert {block: parts for block, parts in claimants.items() if len(parts) != 1} == {}
    assert set(claims) == {part for parts in claimants.values() for part in parts}


def test_no_page_is_claimed_that_shows_nothing() -> None:
    assert {page for page in CLAIMS if not ALL.get(page)} == set()


@pytest.mark.parametrize("claim", sorted({each for claims in CLAIMS.values() for each in claims.values()}))
def test_who_claims_is_there(claim: str) -> None:
    tests = re.findall(r"(\S+\.py)::(\w*)", claim)
    targets = re.findall(r"\bmake ([\w-]+)", claim)
    assert tests or targets
    for file, name in tests:
        assert re.search(rf"^(async )?def {name}\(" if name else "", (ROOT / "tests" / file).read_text(), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_fence_is_seen() -> None:
    """The tests of all pages find documents and data where a reader sees them."""
    for page in (*PAGES, CHART_PAGE):
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(FENCE.findall(text))
        held = [language for _, language, _ in FENCE.findall(text) if language in EVERYWHERE]
        assert len(held) == sum(language in EVERYWHERE for _, language, _ in BLOCK.findall(text))


def test_extras_that_are_installed_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    shown = [re.findall(r"fastrunner\[([\w,-]+)\]", page.read_text(encoding="utf-8")) for page in PAGES]
    named = {each for names in shown for found in names for each in found.split(",")}
    assert {"otel", "stigmer"} <= named <= set(extras)


def test_what_is_imported_is_there() -> None:
    [line] = [block for block in ALL["docs/api.md"] if block.startswith("from fastrunner.api import")]
    exec(line, {})


def test_settings_that_are_shown_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    [text] = [block for block in ALL["docs/security.md"] if "FASTRUNNER_EGRESS_ALLOW" in block]
    for line in text.splitlines():
        name, _, value = line.partition("=")
        with monkeypatch.context() as given:
            given.setenv(name, value)
            load_config()
