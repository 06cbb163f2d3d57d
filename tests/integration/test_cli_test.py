"""`fastrunner test`: the examples' scenarios, what a failed one tells, and what is no scenario."""

import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.integration.commands import fastrunner
from tests.integration.runner_process import ROOT

FOLDER = ROOT / "examples" / "scenarios"
DOCUMENT = """\
document: {dsl: 1.0.3, namespace: n, name: shop, version: 1.0.0}
do:
- ask: {call: http, with: {method: get, endpoint: 'https://shop.example/price'}, output: {as: '{price: .price}'}}
- tell: {emit: {event: {with: {type: com.example.priced, source: /shop, data: '${ . }'}}}, output: {as: $input}}
"""
FILES = sorted(FOLDER.glob("*.test.yaml"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(DOCUMENT)
    return tmp_path


def scenarios(folder: Path, text: str) -> str:
    """Writes a file of one scenario beside the document."""
    (folder / "shop.test.yaml").write_text(
        "scenarios:\n- name: it\n" + "".join(f"  {row}\n" for row in text.splitlines())
    )
    return str(folder / "shop.yaml")


def test_every_example_passes(tmp_path: Path) -> None:
    assert len(FILES) >= 10
    report = tmp_path / "report.xml"
    done = fastrunner("test", str(FOLDER), "--junit", str(report))
    assert done.returncode == 0, done.stdout
    root = ElementTree.parse(report).getroot()
    assert int(root.attrib["tests"]) == len(done.stdout.splitlines()) == len(root.findall(".//testcase"))
    assert root.attrib["failures"] == "0"
    assert len(root.findall("testsuite")) == len(FILES)


def test_thirty_days_pass_at_once() -> None:
    done = fastrunner("test", str(FOLDER / "approval.yaml"), "--only", "nobody answers")
    assert (done.returncode, done.stderr) == (0, "1 scenarios, none failed\n")


FAULTS = {
    "stubs: [{task: ask, returns: {price: 3}}], expect: {output: {price: 4}}": "output /price: expected 4, is 3",
    "stubs: [{task: ask, returns: {price: 3}}], expect: {output: {}}": "output /price: is 3, not expected",
    "stubs: [{task: ask, returns: {price: true}}], expect: {output: {price: 1}}": "output /price: expected 1, is true",
    "stubs: [{task: ask, returns: {}}], expect: {output: null}": "output /: expected null, is",
    "expect: {status: failed}": "and no stub answers: there is none for it",
    "stubs: [{task: ask, expect: {method: POST}}]": 'stub 0 expects something else: /method: expected "POST", is "GET"',
    "stubs: [{task: ask}, {task: other}]": "stub 1 (other) has answered 0 of 1 times",
    "stubs: [{task: ask, times: 2}]": "stub 0 (ask) has answered 1 of 2 times",
    "stubs: [{task: ask, fails: {type: runtime, status: 503}}]": "status: expected completed, is failed",
    "stubs: [{task: ask, fails: {type: runtime, status: 503}}], expect: {status: failed, error: {status: 404}}": (
        "error /status: expected 404, is 503"
    ),
    "stubs: [{task: ask}], expect: {tasks: [ask]}": 'tasks: expected ["ask"], are ["ask","tell"]',
    "stubs: [{task: ask}], expect: {tasks: [/do/0/ask, /do/0/tell]}": "/do/1/tell",
    "stubs: [{task: ask, takes: {seconds: 2}}], expect: {lasts: {seconds: 1}}": ("lasts: expected 1000 ms, is 2000 ms"),
    "stubs: [{task: ask}], expect: {emitted: []}": "emitted /: expected 0 items, has 1",
    "stubs: [{task: ask}], expect: {emitted: [{data: {price: 1}}]}": "emitted /0/data/price: expected 1, is null",
    "stubs: [{task: ask}], expect: {events: [{event_type: workflow_completed}, {task_name: ask}]}": "events: number 1",
    "stubs: [{task: ask}], during: [{after: {seconds: 0}, pause: {}}]": "waits for ever",
}


def test_what_is_not_as_expected_is_told(folder: Path) -> None:
    rows = "".join(f"- {{name: scenario {at}, {text}}}\n" for at, text in enumerate(FAULTS))
    (folder / "shop.test.yaml").write_text(f"scenarios:\n{rows}")
    done = fastrunner("test", str(folder / "shop.yaml"), "--junit", str(folder / "report.xml"))
    assert (done.returncode, done.stderr) == (1, f"{len(FAULTS)} scenarios, {len(FAULTS)} failed\n")
    told = [part.splitlines() for part in done.stdout.split("failed  ")[1:]]
    written = ElementTree.parse(folder / "report.xml").findall(".//failure")
    for fault, rows_told, failure in zip(FAULTS.values(), told, written, strict=True):
        assert any(fault in row for row in rows_told[1:]), rows_told
        assert fault in (failure.text or "")


def test_what_it_emits_and_when_is_compared(folder: Path) -> None:
    text = (
        "start: 2026-03-01T00:00:00Z\n"
        "stubs: [{task: /do/0/ask, takes: {minutes: 1}, returns: {price: 3.0}}]\n"
        "expect:\n"
        "  output: {price: 3}\n"
        "  lasts: {minutes: 1}\n"
        "  emitted: [{type: com.example.priced, time: '2026-03-01T00:01:00.000Z', data: {price: 3}}]\n"
        "  tasks: [/do/0/ask, tell]\n"
    )
    done = fastrunner("test", scenarios(folder, text))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("expects: {}", "/scenarios/0/expects: is not known"),
        ("expect: {outputs: {}}", "/scenarios/0/expect/outputs: is not known"),
        ("expect: {status: ended}", "/scenarios/0/expect/status:"),
        ("stubs: [{task: ask, returns: 1, fails: {type: x}}]", "/scenarios/0/stubs/0: has both `returns` and `fails`"),
        ("stubs: [{task: ask, times: 0}]", "/scenarios/0/stubs/0/times:"),
        ("during: [{after: {days: 1}}]", "/scenarios/0/during/0: needs one of"),
        ("during: [{after: {days: -1}, pause: {}}]", "/scenarios/0/during/0/after/days:"),
        ("during: [{after: {days: 1}, cancel: }]", "/scenarios/0/during/0: needs one of"),
        ("during: [{after: {days: 1}, event: {Type: a}}]", "/scenarios/0/during/0: event.type is missing"),
        ("stubs: [{task: ask, takes: {days: 1.0e+308}}]", "/scenarios/0/stubs/0/takes: is more than a thousand years"),
        ("expect: {error: {status: 404}}", "/scenarios/0/expect: has an `error`, and the status completed"),
        ("expect: {status: failed, output: {}}", "/scenarios/0/expect: has an `output`, and the status failed"),
        ("start: 1969-01-01T00:00:00Z", "/scenarios/0: `start` is not after 1970-01-01"),
        ("name: it", "shop.test.yaml:3:"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(folder: Path, text: str, sentence: str) -> None:
    done = fastrunner("test", scenarios(folder, text))
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


def test_other_refusals_are_sentences(folder: Path) -> None:
    document = str(folder / "shop.yaml")
    assert "write them to shop.test.yaml beside it" in fastrunner("test", document).stderr
    assert "has no file of scenarios" in fastrunner("test", str(folder)).stderr
    scenarios(folder, "stubs: [{task: ask}]")
    nothing = fastrunner("test", document, "--only", "else")
    assert (nothing.returncode, nothing.stderr) == (2, "fastrunner: no scenario's name contains 'else'\n")
    (folder / "shop.yaml").write_text(DOCUMENT.replace("emit:", "omit:"))
    broken = fastrunner("test", document)
    assert broken.returncode == 2
    assert "shop.yaml:4:" in broken.stderr
    (folder / "shop.test.yaml").write_text("scenarios: [{name: a}, {name: a}]")
    assert "two scenarios are called 'a'" in fastrunner("test", document).stderr


def test_a_secret_of_a_scenario_is_in_no_fault(folder: Path) -> None:
    (folder / "shop.yaml").write_text(
        "document: {dsl: 1.0.3, namespace: n, name: shop, version: 1.0.0}\n"
        "use: {secrets: [pass]}\n"
        "do:\n- ask:\n    call: http\n"
        "    with: {method: get, endpoint: 'https://shop.example', headers: {x: '${ $secrets.pass }'}}\n"
    )
    done = fastrunner("test", scenarios(folder, "secrets: {pass: hush-hush}"))
    assert done.returncode == 1
    assert "hush-hush" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ('workflow: "a\\0b"', "no file's name has the character U+0000"),
        ("resources: {'https://x.example': bytes}", "bytes: is not UTF-8 text"),
    ],
)
def test_files_that_no_text_is_in_are_refused(folder: Path, rows: str, sentence: str) -> None:
    (folder / "bytes").write_bytes(b"\xff")
    (folder / "shop.test.yaml").write_text(f"{rows}\nscenarios: [{{name: it}}]")
    done = fastrunner("test", str(folder / "shop.test.yaml"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert sentence in done.stderr


def test_a_report_that_cannot_be_written_is_a_sentence(folder: Path) -> None:
    done = fastrunner("test", scenarios(folder, "stubs: [{task: ask}]"), "--junit", str(folder / "no" / "report.xml"))
    assert (done.returncode, done.stdout.split()[0]) == (2, "passed")
    assert (len(done.stderr.splitlines()), "No such file" in done.stderr) == (1, True)


def test_the_clock_ends_with_the_year_9999(folder: Path) -> None:
    head = DOCUMENT.splitlines()[0]
    (folder / "shop.yaml").write_text(
        f"{head}\ndo:\n- rest: {{wait: {{days: 300000}}}}\n- again: {{set: {{x: 1}}, then: rest}}\n"
    )
    done = fastrunner("test", scenarios(folder, "expect: {status: cancelled}"))
    assert done.returncode == 1
    assert "the execution goes on beyond the year 9999" in done.stdout


def test_who_interrupts_or_reads_no_more_is_not_told_of_failures(folder: Path) -> None:
    head = DOCUMENT.splitlines()[0]
    (folder / "shop.yaml").write_text(f"{head}\ndo:\n- again: {{set: {{x: 1}}, then: again}}\n")
    (folder / "shop.test.yaml").write_text("scenarios: [{name: it}]")
    (folder / "other.yaml").write_text(f"{head}\ndo:\n- once: {{set: {{x: 1}}}}\n")
    (folder / "other.test.yaml").write_text("scenarios: [{name: it}]")
    command = [sys.executable, "-m", "fastrunner", "test", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        # The other file has been done, and the endless loop is under way.
        assert child.stdout.readline().startswith("passed")
        child.send_signal(signal.SIGINT)
        assert (child.wait(30), child.stderr and child.stderr.read()) == (130, "fastrunner: interrupted\n")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        done = subprocess.run([*command[:-1], str(folder / "other.yaml")], stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")
    with open("/dev/full", "w") as full:
        done = subprocess.run([*command[:-1], str(folder / "other.yaml")], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, b"fastrunner: [Errno 28] No space left on device\n")
