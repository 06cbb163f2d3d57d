"""What filters ask of events, what an index may look them up by, and strategies of schedules."""

import json
from typing import Any

import pytest

from fastrunner._core import EventMatcher, EventStrategy, compile_strategy, extract_probe
from fastrunner.base import limits

EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "https://host.test/a",
    "type": "order.paid",
    "orderid": "17",
    "urgent": True,
    "rank": 5,
    "data": {"amount": 12, "items": [1, 2.0]},
}


def matches(filter_: dict[str, Any], event: dict[str, Any] | None = None) -> bool:
    """Whether a filter as documents have it matches, alone in a strategy."""
    strategy = compile_strategy({"one": filter_})
    took = strategy.take(None, EVENT if event is None else event)[1] is not None
    assert EventMatcher(strategy.filter(None)).matches(EVENT if event is None else event) == took
    return took


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "order.paid"}, True),
        ({"type": "order"}, False),
        ({"type": "order.paid", "source": "https://host.test/b"}, False),
        # A point alone makes no pattern.
        ({"type": "order.pai."}, False),
        ({"type": "order[.]pai."}, True),
        ({"type": "order.*"}, True),
        ({"type": "rder.*"}, False),
        ({"type": "order|paid"}, False),
        ({"type": "order.paid|other"}, True),
        ({"type": "(?i)ORDER.PAID"}, True),
        # Attributes are text in headers.
        ({"rank": 5, "urgent": True}, True),
        ({"rank": "5", "urgent": "true"}, True),
        ({"rank": 6}, False),
        ({"absent": "x"}, False),
        ({"absent": None}, False),
        ({"subject": ".*"}, False),
        ({"type": "${ .rank == 5 }"}, True),
        ({"type": "${ .rank == 6 }"}, False),
        ({"type": '${ "order" + ".paid" }'}, True),
        ({"rank": "${ 5 }"}, True),
        ({"absent": "${ null }"}, False),
        ({"type": "${ error }"}, False),
        ({"data": "${ .amount > 10 }"}, True),
        ({"data": "${ .amount > 12 }"}, False),
        ({"data": "${ .amount }"}, True),
        ({"data": "${ .absent }"}, False),
        ({"data": "${ .amount | explode }"}, False),
        ({"data": {"items": [1, 2], "amount": 12.0}}, True),
        ({"data": {"amount": 12}}, False),
        ({"data": {"amount": "${ 6 + 6 }", "items": ["${ 1 }", "${ .items[1] }"]}}, True),
        ({"data": {"amount": "${ true }", "items": [1, 2]}}, False),
    ],
    ids=str,
)
def test_what_a_filter_asks(wanted: dict[str, Any], expected: bool) -> None:
    assert matches({"with": wanted}) is expected


def test_text_that_is_no_pattern_is_itself() -> None:
    event = {**EVENT, "source": "https://host.test/a(b?c=1"}
    assert matches({"with": {"source": "https://host.test/a(b?c=1"}}, event)
    assert not matches({"with": {"source": "https://host.test/a(b?c=1"}})
    assert matches({"with": {"source": "https://host.test/a?c=[1"}}, {**EVENT, "source": "https://host.test/a?c=[1"})


def test_data_equality_is_that_of_json() -> None:
    for wanted, data, expected in ((1, True, False), (1, 1.0, True), (None, None, True), ("1", 1, False)):
        assert matches({"with": {"data": wanted}}, {**EVENT, "data": data}) is expected
    # An event without data has null; bytes are the text that stands for them.
    assert matches({"with": {"data": None}}, {"type": "a"})
    assert matches({"with": {"data": '${ . == "AAE=" }'}}, {"type": "a", "data_base64": "AAE="})


def test_probes_are_constants_in_order_of_what_tells_most() -> None:
    strategy = compile_strategy(
        {
            "any": [
                {
                    "with": {"subject": "s", "type": "t", "source": "u", "data": "${ .a }", "app": 1, "zone": "a|b"},
                    "correlate": {"k": {"from": " ${ .orderid }", "expect": "17"}, "l": {"from": ".l"}},
                },
                {"with": {"data": {"a": 1}}},
            ]
        }
    )
    matcher = EventMatcher(strategy.filter(None))
    names = ("type", "source", "app", "subject", "from:.orderid")
    assert matcher.probes == ((names, ('"t"', '"u"', '"1"', '"s"', '"17"')), ((), ()))
    event = {"type": "t", "source": "u", "app": "1", "subject": "s", "orderid": "17", "zone": "b", "l": "x"}
    assert extract_probe(event, names) == matcher.probes[0][1]
    assert not matcher.matches(event)
    assert matcher.matches({**event, "data": {"a": 1}})


def test_probe_of_an_event_that_lacks_something() -> None:
    assert extract_probe(EVENT, ("type", "rank", "urgent")) == ('"order.paid"', '"5"', '"true"')
    assert extract_probe(EVENT, ("type", "absent")) is None
    assert extract_probe(EVENT, ("from:.data.items", "from:{b: 1.0, a: 2}")) == ("[1,2]", '{"a":2,"b":1}')
    assert extract_probe(EVENT, ("from:.absent",)) is None
    assert extract_probe(EVENT, ("from:.data | explode",)) is None


@pytest.mark.parametrize("filter_", [None, [], {}, {"any": [1]}, {"any": [{"with": {"a": {"expression": "1 +"}}}]}])
def test_what_is_no_filter_is_refused(filter_: Any) -> None:
    with pytest.raises(ValueError, match="filter"):
        EventMatcher(filter_)


def test_time_an_index_has_for_an_expression() -> None:
    """What takes longer matches, so that the walk is asked, which has more."""
    filter_ = {"with": {"data": f"${{ [range({limits.EVENT_MATCH_STEPS_MAX})] | length < 0 }}"}}
    strategy = compile_strategy({"one": filter_})
    assert EventMatcher(strategy.filter(None)).matches(EVENT)
    assert strategy.take(None, EVENT) == (None, None)


def test_compiled_expressions_that_are_kept() -> None:
    """Those that are dropped are compiled again."""
    count = limits.EVENT_PROGRAMS_KEPT_MAX + 10
    filters = [{"any": [{"with": {"rank": {"expression": f". != {number}"}}}]} for number in range(count)]
    matchers = [EventMatcher(filter_) for filter_ in filters]
    assert all(matcher.matches(EVENT) for matcher in matchers)
    assert EventMatcher(filters[0]).matches(EVENT)


# --- strategies of schedules ---


def taken(strategy: EventStrategy, *events: dict[str, Any]) -> list[Any]:
    """What each event brings; the state goes through JSON, and an index would have handed over what changes it."""
    state, brought = None, []
    for event in events:
        expected = EventMatcher(strategy.filter(state)).matches(event)
        before = json.dumps(state)
        state, satisfied = strategy.take(json.loads(before), event)
        assert expected or (json.dumps(state) == before and satisfied is None)
        brought.append(satisfied)
    return brought


def event(type_: str, data: Any = None, **attributes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "/s", "type": type_, "data": data, **attributes}


def test_one_and_any_are_satisfied_by_each_event() -> None:
    one = compile_strategy({"one": {"with": {"type": "a"}}})
    assert taken(one, event("a", 1), event("b", 2), event("a", 3)) == [[1], None, [3]]
    both = compile_strategy({"any": [{"with": {"type": "a"}}, {"with": {"type": "b"}}]})
    assert taken(both, event("a", 1), event("b", 2), event("c", 3)) == [[1], [2], None]
    assert taken(compile_strategy({"any": []}), event("x", 1), event("y", 2)) == [[1], [2]]


def test_all_takes_the_first_of_each_in_order_of_arrival() -> None:
    strategy = compile_strategy({"all": [{"with": {"type": "a"}}, {"with": {"type": "b"}}]})
    events = [event("b", 1), event("b", 2), event("a", 3), event("a", 4), event("b", 5)]
    assert taken(strategy, *events) == [None, None, [1, 3], None, [4, 5]]


def test_events_of_all_share_a_key() -> None:
    parts = [{"with": {"type": name}, "correlate": {"room": {"from": ".roomid"}}} for name in ("a", "b")]
    strategy = compile_strategy({"all": parts})
    events = [event("a", 1, roomid="x"), event("b", 2, roomid="y"), event("b", 3), event("b", 4, roomid="x")]
    # The next one begins anew.
    events += [event("a", 5, roomid="y"), event("b", 6, roomid="y")]
    assert taken(strategy, *events) == [None, None, None, [1, 4], None, [5, 6]]


def test_until_collects_events() -> None:
    strategy = compile_strategy({"any": [{"with": {"type": "a"}}], "until": "length == 2"})
    assert taken(strategy, event("a", 1), event("b", 2), event("a", 3), event("a", 4)) == [None, None, [1, 3], None]
    strategy = compile_strategy({"any": [{"with": {"type": "a"}}], "until": {"one": {"with": {"type": "end"}}}})
    assert taken(strategy, event("a", 1), event("end"), event("end"), event("a", 2)) == [None, [1], [], None]


def test_event_may_serve_a_strategy_and_what_ends_it() -> None:
    strategy = compile_strategy({"any": [], "until": {"one": {"with": {"type": "end"}}}})
    assert taken(strategy, event("a", 1), event("end", 2)) == [None, [1, 2]]


def test_forms_of_reading() -> None:
    one = {"one": {"with": {"type": "a"}}}
    told = {**event("a", {"x": [1, 2.5]}), "datacontenttype": "application/json; charset=utf-8"}
    assert taken(compile_strategy(one, "envelope"), told) == [[told]]
    assert taken(compile_strategy(one, "raw"), told) == [['{"x":[1,2.5]}']]
    assert taken(compile_strategy(one, "raw"), event("a", "text")) == [['"text"']]
    assert taken(compile_strategy(one, "raw"), event("a", "text", datacontenttype="text/plain")) == [["text"]]
    binary = {"type": "a", "data_base64": "AAE=", "datacontenttype": "application/octet-stream"}
    assert taken(compile_strategy(one, "raw"), binary) == [["AAE="]]
    assert taken(compile_strategy(one), binary) == [["AAE="]]
    assert taken(compile_strategy(one, "raw"), {"type": "a"}) == [[None]]


def test_variables_of_a_schedule() -> None:
    filter_ = {"with": {"type": "${ $workflow.name }"}, "correlate": {"k": {"from": ".k", "expect": "${ $runtime }"}}}
    strategy = compile_strategy({"one": filter_}, variables={"workflow": {"name": "a"}, "runtime": "r"})
    assert taken(strategy, event("a", 1, k="r"), event("a", 2, k="s"), event("b", 3, k="r")) == [[1], None, None]


@pytest.mark.parametrize("definition", [{}, {"one": {}}, {"any": [{"with": {"a": "${ 1 + }"}}]}, {"all": 1}])
def test_what_is_no_strategy_is_refused(definition: Any) -> None:
    with pytest.raises(ValueError, match="strategy"):
        compile_strategy(definition)
