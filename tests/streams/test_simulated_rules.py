"""The truth's own reading of the rules, against the service's: two texts of one contract."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.pack_entries import Rule
from streams.readings import AlarmStates, ReadingRules
from streams.simulated_rules import RuleBook


def rule(category, priority=2, **terms):
    return Rule(
        metric="depth", above=terms.get("above"), below=terms.get("below"), clear=terms.get("clear"),
        for_s=terms.get("for_s", 0), category=category, priority=priority,
    )  # fmt: skip


FLOOD = rule("flood", above=15, clear=10, for_s=120)
DEEP = rule("deep", priority=1, above=40, clear=30, for_s=60)
FAULT = rule("fault", below=-2, for_s=300)

readings = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([-5, -2, 0, 10, 12, 15, 16, 35, 41]), st.integers(0, 40)),
    max_size=40,
)


@given(readings, st.sampled_from([[FLOOD], [FLOOD, DEEP], [DEEP, FAULT, FLOOD], [FAULT]]))
def test_the_same_readings_are_reports_as_the_service_finds(rows, rules):
    terms = ReadingRules.from_rules(rules).of_metric["depth"]
    book, states = RuleBook(rules), AlarmStates()
    for device, value, minute in rows:
        at = states.judge(device, "depth", value, minute * 60_000, minute * 60_000, terms)
        expected = None if at < 0 else rules[at].category
        got = book.completed(device, "depth", value, minute * 60_000)
        assert (None if got is None else got.category) == expected


def test_a_metric_without_a_rule_makes_no_report():
    assert RuleBook([FLOOD]).completed("a", "noise", 1e6, 0) is None
