"""Stages 2 to 5: `$secrets` and `$authorization`: who sees them, what is missing, and where they never come."""

import json
from typing import Any

import pytest

from fastrunner._core import (
    EffectFailure,
    EffectResult,
    Pause,
    PerformEffect,
    Plan,
    RenderFault,
    Resume,
    Walk,
    validate,
)
from fastrunner._core import compile as compile_document
from fastrunner.base import limits
from tests.core.walking import START_MS, document, error_type

CANARY = "canary-4f1d7c"
SECRETS = {"key": CANARY, "both": {"username": "ada", "password": CANARY}, "other": "nobody-declares-this"}
DECLARED = ["key", "both", "gone"]


def plan_of(tasks: Any, **sections: Any) -> Plan:
    return compile_document(document(tasks, use={"secrets": DECLARED, **sections.pop("use", {})}, **sections))


def ended(tasks: Any, secrets: Any = SECRETS, input_value: Any = None, **sections: Any) -> Walk:
    plan = plan_of(tasks, **sections)
    walk, _ = Walk.start(plan, "execution", input_value, START_MS, secrets=secrets)
    return walk


def evaluated(text: str, secrets: Any = SECRETS, input_value: Any = None) -> Walk:
    return ended([{"t": {"set": {"v": text}}}], secrets, input_value)


def calling(policy: Any, **members: Any) -> dict[str, Any]:
    endpoint = {"uri": "http://host.test/", "authentication": policy}
    task: dict[str, Any] = {key: members.pop(key) for key in ("output", "export") if key in members}
    return {"call": "http", "with": {"method": "get", "endpoint": endpoint, **members}, **task}


def asked(task: Any, **sections: Any) -> tuple[Walk, PerformEffect]:
    plan = plan_of([{"t": task}], **sections)
    walk, turn = Walk.start(plan, "execution", {"user": "ada"}, START_MS, secrets=SECRETS)
    [effect] = turn.actions
    assert isinstance(effect, PerformEffect)
    return walk, effect


def rendered(policy: Any, **sections: Any) -> Any:
    walk, effect = asked(calling(policy), **sections)
    return walk.plan.render(effect.capsule, SECRETS)["authentication"]


# --- $secrets ---


@pytest.mark.parametrize(
    "text",
    [
        "${ $secrets.key }",
        "${ $secrets | .key }",
        '${ $secrets["key"] }',
        "${ $secrets[.name] }",
        "${ $secrets.both.password }",
    ],
)
def test_declared_secrets_are_seen_everywhere(text: str) -> None:
    assert evaluated(text, input_value={"name": "key"}).output == {"v": CANARY}


def test_variables_of_the_name_of_a_secret_are_in_no_error() -> None:
    """They are data, and an error is for people."""
    plan = plan_of([{"t": {"set": {"v": "${ error($runtime.metadata.env | tostring) }"}}}])
    env = {"key": "variable-4f1d7c", "other": "variable-of-nobody"}
    walk, _ = Walk.start(plan, "execution", None, START_MS, secrets=SECRETS, env=env)
    assert walk.error is not None
    assert "variable-4f1d7c" not in str(walk.error)
    assert "variable-of-nobody" in str(walk.error)


def test_a_condition_and_a_switch_see_secrets() -> None:
    tasks = [
        {"a": {"if": "$secrets.key | length > 3", "set": {"a": 1}}},
        {"b": {"switch": [{"c": {"when": '$secrets.both.username == "ada"', "then": "exit"}}]}},
        {"c": {"set": {"never": 1}}},
    ]
    assert ended(tasks).output == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        "${ $secrets.gone }",
        "${ $secrets.gone? }",
        "${ $secrets.gone // 1 }",
        "${ try $secrets.gone catch 1 }",
        "${ $secrets | .gone }",
        "${ [$secrets | .key, .gone] }",
        "${ $secrets | to_entries | $secrets.gone }",
        '${ . as $n | $secrets["gone"] }',
        "${ reduce (1, 2) as $n (0; $secrets.gone) }",
    ],
)
def test_a_secret_without_a_value_is_forbidden(text: str) -> None:
    """No expression catches it: a default would hide what is wrong."""
    error = evaluated(text).error
    assert error is not None
    assert (error["type"], error["status"]) == (error_type("authorization"), 403)
    assert "'gone'" in error["detail"]


@pytest.mark.parametrize("text", ["${ $secrets.other }", "${ $secrets.never }", "${ $secrets[.name] }"])
def test_an_undeclared_secret_is_forbidden(text: str) -> None:
    error = evaluated(text, input_value={"name": "other"}).error
    assert error is not None
    assert (error["type"], error["status"]) == (error_type("authorization"), 403)
    assert "use.secrets does not name" in error["detail"]


def test_what_is_missing_within_a_secret_is_null() -> None:
    assert evaluated("${ $secrets.both.email }").output == {"v": None}
    assert evaluated('${ $secrets | has("gone") }').output == {"v": False}


def test_a_stored_document_without_declarations_goes_on() -> None:
    """Such a document was accepted before secrets were there."""
    plan = compile_document(document([{"t": {"set": {"v": "${ $secrets.x }"}}}]), stored=True)
    walk, _ = Walk.start(plan, "execution", None, START_MS)
    assert walk.output == {"v": None}


def test_a_forbidden_secret_can_be_caught_by_the_workflow() -> None:
    body = [{"a": {"set": {"v": "${ $secrets.gone }"}}}]
    catch = {"errors": {"with": {"status": 403}}, "do": [{"b": {"set": {"caught": "${ $error.type }"}}}]}
    assert ended([{"t": {"try": body, "catch": catch}}]).output == {"caught": error_type("authorization")}


@pytest.mark.parametrize(
    "text",
    ["${ $secrets.key + 1 }", "${ $secrets.key | tonumber }", "${ error($secrets.key) }", "${ $secrets | keys | .x }"],
)
def test_a_failing_expression_says_nothing_of_secrets(text: str) -> None:
    error = evaluated(text).error
    assert error is not None
    assert error["type"] == error_type("expression")
    assert "canary" not in error["detail"]
    assert "reads secrets" in error["detail"]


def test_raised_errors_show_no_secret() -> None:
    raising = {"raise": {"error": {"type": "https://a.test/e", "status": 400, "detail": '${ "of \\($secrets.key)!" }'}}}
    walk = ended([{"t": raising}])
    assert walk.error is not None
    assert walk.error["detail"] == "of ***!"


def test_short_values_are_not_looked_for() -> None:
    size_chars = limits.SECRET_HIDDEN_SIZE_CHARS_MIN
    for length, shown in ((size_chars - 1, "x" * (size_chars - 1)), (size_chars, "***")):
        raising = {"raise": {"error": {"type": "https://a.test/e", "status": 400, "detail": "${ $secrets.key }"}}}
        error = ended([{"t": raising}], {"key": "x" * length}).error
        assert error is not None
        assert error["detail"] == shown


def test_errors_of_effects_show_no_secret() -> None:
    walk, effect = asked(calling({"bearer": {"token": "${ $secrets.key }"}}))
    turn = walk.resume(EffectFailure(effect.effect_id, "communication", 500, CANARY, f"it said {CANARY}"), START_MS)
    assert walk.error is not None
    assert (walk.error["title"], walk.error["detail"]) == ("***", "it said ***")
    assert CANARY.encode() not in turn.events


def test_snapshots_and_capsules_hold_no_secret() -> None:
    walk, effect = asked(calling({"basic": {"use": "both"}}, headers={"X-Key": "${ $secrets.key }"}))
    assert walk.plan.render(effect.capsule, SECRETS)["headers"] == {"X-Key": CANARY}
    for data in (walk.snapshot(), walk.plan.dump_capsule(effect.capsule)):
        assert CANARY.encode() not in data
    again = Walk.restore(walk.plan, "execution", {"user": "ada"}, walk.snapshot(), secrets=SECRETS)
    [pending] = again.pending()
    assert isinstance(pending, PerformEffect)
    assert again.plan.render(pending.capsule, SECRETS)["headers"] == {"X-Key": CANARY}


# --- policies ---

INLINE = {"authority": "https://id.test/{user}", "grant": "client_credentials", "client": {"id": "${ .user }"}}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            {"basic": {"username": "${ .user }", "password": "${ $secrets.key }"}},
            {"username": "ada", "password": CANARY},
        ),
        ({"basic": {"use": "both"}}, SECRETS["both"]),
        ({"digest": {"use": "both"}}, SECRETS["both"]),
        ({"use": "named"}, {"token": "ada"}),
        ({"oauth2": INLINE}, {**INLINE, "authority": "https://id.test/ada", "client": {"id": "ada"}}),
    ],
)
def test_policies_are_rendered_with_the_effect(policy: Any, expected: Any) -> None:
    use = {"authentications": {"named": {"bearer": {"token": "${ .user }"}}}}
    assert list(rendered(policy, use=use).values()) == [expected]


def test_what_a_secret_holds_is_not_evaluated() -> None:
    walk, effect = asked(calling({"bearer": {"use": "key"}}))
    secrets = {"key": {"token": "${ .user }"}}
    assert walk.plan.render(effect.capsule, secrets)["authentication"] == {"bearer": {"token": "${ .user }"}}


@pytest.mark.parametrize(
    ("policy", "name", "status"),
    [
        ({"basic": {"use": "gone"}}, "authorization", 403),
        ({"basic": {"use": "key"}}, "configuration", 400),
        ({"bearer": {"token": "${ $secrets.gone }"}}, "authorization", 403),
    ],
)
def test_policies_without_their_secret(policy: Any, name: str, status: int) -> None:
    with pytest.raises(RenderFault) as caught:
        rendered(policy)
    assert (caught.value.error["type"], caught.value.error["status"]) == (error_type(name), status)
    assert CANARY not in json.dumps(caught.value.error)


@pytest.mark.parametrize("scheme", ["oauth2", "oidc"])
def test_a_grant_that_needs_a_browser_is_refused(scheme: str) -> None:
    policy = {scheme: {"authority": "https://id.test", "grant": "authorization_code", "client": {"id": "a"}}}
    [problem] = validate(document([{"t": calling(policy)}]))
    assert problem.code == "unsupported"
    assert problem.pointer.endswith(f"/{scheme}/grant")
    assert "browser" in problem.message


def test_named_policies_are_checked_where_they_are_used() -> None:
    use = {"authentications": {"named": {"bearer": {"token": "${ $item }"}}}}
    assert [problem.code for problem in validate(document([{"t": calling({"use": "named"})}], use=use))] == [
        "unknown-variable"
    ]
    loop = {"for": {"in": "${ [1] }"}, "do": [{"t": calling({"use": "named"})}]}
    assert validate(document([{"loop": loop}], use=use)) == ()


# --- $authorization ---

PROOF = {"scheme": "Bearer", "parameter": CANARY}


def test_arguments_see_what_the_policy_resolves_to() -> None:
    walk, effect = asked(calling({"bearer": {"token": "t"}}, headers={"X": "${ $authorization.parameter }"}))
    assert walk.plan.render_policy(effect.capsule, SECRETS) == {"authentication": {"bearer": {"token": "t"}}}
    assert walk.plan.render(effect.capsule, SECRETS, PROOF)["headers"] == {"X": CANARY}
    with pytest.raises(RenderFault) as caught:
        walk.plan.render(effect.capsule, SECRETS)
    assert caught.value.error["type"] == error_type("authorization")


def test_no_policy_is_asked_for_beforehand_where_no_argument_needs_it() -> None:
    walk, effect = asked(calling({"bearer": {"token": "t"}}, output={"as": "${ $authorization.scheme }"}))
    assert walk.plan.render_policy(effect.capsule, SECRETS) is None


def test_output_and_export_see_what_was_sent() -> None:
    task = calling(
        {"bearer": {"token": "t"}}, output={"as": "${ $authorization.scheme }"}, export={"as": "$authorization"}
    )
    plan = plan_of([{"t": task}, {"u": {"set": {"scheme": "${ $context.scheme }", "mine": "${ $authorization }"}}}])
    walk, turn = Walk.start(plan, "execution", None, START_MS)
    [effect] = turn.actions
    assert isinstance(effect, PerformEffect)
    walk.resume(EffectResult(effect.effect_id, {}, PROOF), START_MS)
    assert walk.output == {"scheme": "Bearer", "mine": None}


def test_authorization_waits_for_no_restart() -> None:
    """While the workflow is paused it lies in memory; a snapshot has none of it, so that it is said to be gone."""
    walk, effect = asked(calling({"bearer": {"token": "t"}}, output={"as": "${ $authorization.scheme }"}))
    walk.resume(Pause("rest"), START_MS)
    walk.resume(EffectResult(effect.effect_id, {}, PROOF), START_MS)
    snapshot = walk.snapshot()
    assert CANARY.encode() not in snapshot
    walk.resume(Resume(""), START_MS)
    assert walk.output == "Bearer"
    again = Walk.restore(walk.plan, "execution", {"user": "ada"}, snapshot)
    again.resume(Resume(""), START_MS)
    assert again.error is not None
    assert again.error["type"] == error_type("authorization")
