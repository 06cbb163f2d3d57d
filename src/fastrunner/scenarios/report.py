"""Support: how verdicts are told: a line each for people, XML as JUnit has it for machines."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

__all__ = ["Verdict", "junit", "lines"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one scenario."""

    file: str
    """The scenario file."""
    name: str
    """The scenario's."""
    faults: Sequence[str]
    """What was not as expected; empty: passed."""
    lasted_ms: int
    """By the scenario's clock."""
    took_s: float
    """By ours."""


def lines(verdict: Verdict) -> list[str]:
    """One line, and one for each fault below it."""
    mark = "failed" if verdict.faults else "passed"
    return [f"{mark}  {verdict.file}  {verdict.name}", *(f"        {fault}" for fault in verdict.faults)]


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """All of them as an XML document; a suite for each file."""
    root = ElementTree.Element("testsuites")
    for file in dict.fromkeys(verdict.file for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.file == file]
        suite = ElementTree.SubElement(root, "testsuite", _totals(own), name=_text(file))
        for verdict in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=_text(file), name=_text(verdict.name), time=f"{verdict.took_s:.3f}"
            )
            if verdict.faults:
                failure = ElementTree.SubElement(case, "failure", message=_text(verdict.faults[0]))
                failure.text = _text("\n".join(verdict.faults))
    for name, value in _totals(verdicts).items():
        root.set(name, value)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _totals(verdicts: Sequence[Verdict]) -> dict[str, str]:
    failed = sum(bool(verdict.faults) for verdict in verdicts)
    took_s = sum(verdict.took_s for verdict in verdicts)
    return {"tests": str(len(verdicts)), "failures": str(failed), "errors": "0", "time": f"{took_s:.3f}"}


def _text(text: str) -> str:
    """Without the characters that XML has no way to write."""
    return "".join(each if each in "\t\n\r" or "\x20" <= each not in "\ufffe\uffff" else "\ufffd" for each in text)
