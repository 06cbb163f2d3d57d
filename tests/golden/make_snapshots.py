"""Support: writes snapshots of a core's format, and what that core went on to say; once per format, never again.

    python -m tests.golden.make_snapshots FORMAT

Each execution is driven to its end; after every turn stands its snapshot, and what was handed in next. The core that
wrote format 1 gave effects their arguments; a later one renders them.
"""

import json
import sys
from pathlib import Path
from typing import Any

from fastrunner._core import (
    Cancel,
    EffectFailure,
    EffectResult,
    MoreSteps,
    Outcome,
    Pause,
    PerformEffect,
    Plan,
    Resume,
    TimerDue,
    Walk,
)
from fastrunner._core import compile as compile_document

START_MS = 1_700_000_000_000
HEAD = {"dsl": "1.0.3", "namespace": "test", "name": "golden", "version": "1.0.0"}
WAIT = {"w": {"wait": "PT1S"}}
AGAIN = {"w2": {"wait": "PT1S"}}
RAISE = {"r": {"raise": {"error": {"type": "urn:odd", "status": 404, "title": '${ "t" }'}}}}
CALL = {
    "c": {
        "call": "http",
        "with": {
            "method": "post",
            "endpoint": "http://host.test/{id}",
            "headers": {"h": "${ $context | tostring }"},
            "body": {"w": "${ $workflow.input }", "t": "${ $task.reference }", "v": "${ $runtime.version }"},
        },
        "input": {"from": "{id: 7}"},
    }
}
LOOP_CALL = {"c": {"call": "http", "with": {"method": "get", "endpoint": '${ "http://h/\\($item)/\\($index)" }'}}}
JITTER = {"delay": "PT1S", "jitter": {"from": "PT0S", "to": "PT2S"}, "backoff": {"linear": {}}}
RETRY = {**JITTER, "limit": {"attempt": {"count": 2, "duration": "PT30S"}}}
STEPS = [{f"s{number}": {"set": "${ .n += 1 }"}} for number in range(9)]

DOCUMENTS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "sets": ({"do": [*STEPS, WAIT, {"e": {"set": "[.]", "export": {"as": "{c: .}"}}}, AGAIN]}, {"n": 1}, ""),
    "slices": ({"do": [{"l": {"for": {"in": "[range(200)]"}, "do": [{"s": {"set": "$index"}}]}}]}, None, ""),
    "loop": ({"do": [{"l": {"for": {"in": ".items", "at": "i"}, "do": [WAIT, {"s": {"set": "[$item, $i]"}}]}}]},
             {"items": [{"text": "x" * 60}, {"text": "y" * 60}]}, ""),
    "nested loops": ({"do": [{"o": {"for": {"in": "[1, 2]", "each": "a"}, "do": [
        {"i": {"for": {"in": "[$a, 5]"}, "while": "$index < 2", "do": [LOOP_CALL]}}]}}]}, None, "rr"),
    "try body": ({"do": [{"t": {"try": [WAIT, RAISE], "catch": {"do": [{"s": {"set": "$error"}}]}}}]}, None, ""),
    "try delay": ({"do": [{"t": {"try": [RAISE], "catch": {"retry": RETRY, "do": [WAIT]}}}]}, None, ""),
    "try handler": ({"do": [{"t": {"try": [RAISE], "catch": {"as": "e", "do": [
        WAIT, {"s": {"set": "[$e.title, .]"}}, AGAIN], "then": "end"}}}, {"never": {"set": "1"}}]}, [1], ""),
    "try calls": ({"do": [{"t": {"try": [CALL], "catch": {"retry": RETRY, "do": [CALL]}}}]}, {"deep": [1]}, "ffr"),
    "attempts time out": ({"do": [{"t": {"try": [{"w": {"wait": "PT1H"}}], "catch": {"retry": RETRY}}}]}, None, ""),
    "fork": ({"do": [{"f": {"fork": {"branches": [CALL, WAIT, {"d": {"do": [WAIT, RAISE]}}]}}}]}, None, "r"),
    "fork joins": ({"do": [{"f": {"fork": {"branches": [
        {"c": {**CALL["c"], "export": {"as": "{c: .}"}}}, {"w": {**WAIT["w"], "export": {"as": "{w: .}"}}}]}}},
        {"s": {"set": "[., $context]"}}, WAIT]}, "in", "r"),
    "race": ({"do": [{"f": {"fork": {"compete": True, "branches": [CALL, {"g": {"fork": {"branches": [
        WAIT, {"c2": CALL["c"]}]}}}]}}}]}, None, "lr"),
    "effect in flight": ({"do": [CALL, {"c2": CALL["c"]}]}, {"big": "z" * 100}, "rr"),
    "effect fails": ({"do": [CALL]}, None, "f"),
    "held": ({"do": [{"f": {"fork": {"branches": [CALL, {"c2": CALL["c"]}, WAIT]}}}, CALL]}, 5, "prfgr"),
    "held in a try": ({"do": [{"t": {"try": [CALL], "catch": {"retry": RETRY}}}, WAIT]}, 5, "pfgr"),
    "paused waiting": ({"do": [{"d": {"do": [WAIT, AGAIN], "timeout": {"after": "PT3S"}}}]}, 5, "pg"),
    "cancelled within grace": ({"do": [{"f": {"fork": {"branches": [CALL, {"c2": CALL["c"]}]}}}]}, 5, "crr"),
    "grace ends": ({"do": [CALL]}, 5, "c"),
    "cancelled by force": ({"do": [WAIT]}, 5, "x"),
    "timeouts": ({"do": [{"t": {"try": [{"d": {"do": [CALL], "timeout": {"after": "PT5S"}}}], "catch": {
        "do": [WAIT]}}}], "timeout": {"after": "PT1H"}}, None, "l"),
    "workflow timeout": ({"do": [CALL], "timeout": {"after": "PT5S"}}, None, "l"),
    "data": ({"do": [{"s": {"set": {"k": "${ $input }", "c": "plain"}, "input": {"from": ".a"},
                            "output": {"as": "[., $output]"}, "export": {"as": "{x: .}"}}},
                     {**WAIT}, {"e": {"set": "[., $context]", "if": "$context.x != null"}}],
              "input": {"from": "{a: .}"}, "output": {"as": "{out: .}"}}, {"käse": ["🧀", 1.5, None]}, ""),
}  # fmt: skip
"""By name: the document's sections, its input, and what is handed in first: see `outcome_of`."""


def plan_of(sections: dict[str, Any]) -> tuple[str, Plan]:
    text = json.dumps({"document": HEAD, **sections}, ensure_ascii=False)
    return text, compile_document(text)


def open_effects(walk: Walk) -> list[PerformEffect]:
    return [action for action in walk.pending() if isinstance(action, PerformEffect)]


def outcome_of(letter: str, walk: Walk) -> Outcome:
    """r: result, f: failure (both of the effect asked for first), p: pause, g: go on, c and x: cancel, m: more steps,
    l and t: a timer."""
    effects = open_effects(walk) if letter in "rf" else []
    outcomes: dict[str, Outcome] = {
        "p": Pause("golden"),
        "g": Resume("golden"),
        "c": Cancel("golden", False, 2000),
        "x": Cancel("golden", True, 0),
        "m": MoreSteps(),
    }
    if letter == "r":
        return EffectResult(effects[0].effect_id, {"done": [1, "two"]})
    if letter == "f":
        return EffectFailure(effects[0].effect_id, "communication", 503, "Busy", "later")
    return outcomes.get(letter) or TimerDue()


def next_letter(walk: Walk, more: bool, letters: str) -> tuple[str, str]:
    """What is handed in now, and what later: time passes until there is an effect to answer."""
    if more:
        return "m", letters
    if letters and (letters[0] not in "rf" or open_effects(walk)):
        return letters[0], letters[1:]
    if walk.status == "paused":
        return "g", letters
    return "r" if open_effects(walk) else "t", letters


def asked(plan: Plan, walk: Walk) -> list[list[Any]]:
    """What each open effect is asked to do."""
    return [
        [
            effect.reference,
            effect.idempotency_key,
            plan.render(effect.capsule) if hasattr(effect, "capsule") else getattr(effect, "arguments", None),
        ]
        for effect in open_effects(walk)
    ]


def driven(name: str) -> dict[str, Any]:
    """One execution, turn by turn."""
    sections, input_, letters = DOCUMENTS[name]
    text, plan = plan_of(sections)
    now_ms = START_MS
    walk, turn = Walk.start(plan, name, input_, now_ms, seed=3, env={"E": "1"})
    turns: list[dict[str, Any]] = []
    while walk.status in ("running", "paused"):
        taken, letters = next_letter(walk, turn.more, letters)
        now_ms = max(now_ms + 300, walk.wake_at_ms) if taken in "lt" else now_ms + 100
        turns.append({"snapshot": walk.snapshot().hex(), "asked": asked(plan, walk), "next": taken, "now_ms": now_ms})
        turn = walk.resume(outcome_of(taken, walk), now_ms)
        turns[-1]["events"] = turn.events.hex()
    return {
        "document": text,
        "input": input_,
        "turns": turns,
        "ended": {"snapshot": walk.snapshot().hex(), "status": walk.status, "output": walk.output, "error": walk.error},
    }


def main(written_as: int) -> None:
    made = {name: driven(name) for name in DOCUMENTS}
    first = bytes.fromhex(made["sets"]["turns"][0]["snapshot"])
    assert first[0] == written_as, f"this core writes format {first[0]}"
    path = Path(__file__).parent / f"snapshots-v{written_as}.json"
    path.write_text(json.dumps(made, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(f"{path}: {len(made)} executions, {sum(len(one['turns']) for one in made.values())} turns")


if __name__ == "__main__":
    main(int(sys.argv[1]))
