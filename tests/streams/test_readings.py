"""Readings judged by rules: the states of a rule, what intake may drop, and both together against the definition."""

import math
from itertools import cycle, islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.messages import Reason
from streams.pack import load_pack
from streams.readings import AlarmStates, ReadingFilter, ReadingRules, RuleTerms

FUTURE_S = 10
SAMPLE = Path(__file__).resolve().parents[2] / "packs" / "sample"


def rule(above=None, below=None, clear=None, for_s=0, category="90001", priority=3, metric="depth"):
    bound = above if above is not None else below
    return RuleTerms(metric, above, below, bound if clear is None else clear, for_s * 1000, category, priority)


FLOOD = rule(above=15, clear=10, for_s=120)
AT_ONCE = rule(above=15, clear=10)
BURST = rule(below=-0.5, clear=0, for_s=60)
RULES = ReadingRules(
    {
        "depth": (
            rule(above=2, clear=1, for_s=5, category="wet", priority=3),
            rule(above=3, clear=2, for_s=2, category="flood", priority=1),
            rule(above=3, clear=0, for_s=2, category="river", priority=1),
        ),
        # Two rules that look both ways; nothing lies in the clear zone of both.
        "pressure": (rule(below=1, clear=2, metric="pressure"), rule(above=2, clear=1, for_s=3, metric="pressure")),
        "gas": (rule(above=2, metric="gas"), rule(below=0, metric="gas", priority=2)),
    },
    {"depth": "cm"},
)


# ------------------------------------------------------------------------------------------------- the slow definition


def is_raised(rule, history):
    """Since the last value that clears it, was there a run of values beyond the bound that lasted for `for_ms`?"""
    cleared = [i for i, (_, value) in enumerate(history) if clears(rule, value)]
    run = history[cleared[-1] + 1 if cleared else 0 :]
    return any(
        run[j][0] - run[i][0] >= rule.for_ms and all(beyond(rule, value) for _, value in run[i : j + 1])
        for j in range(len(run))
        for i in range(j + 1)
    )


def clears(rule, value):
    return value <= rule.clear if rule.below is None else value >= rule.clear


def beyond(rule, value):
    return value > rule.above if rule.below is None else value < rule.below


def by_definition(rows, of_metric):
    """Row to index of the rule that it reports by: every reading looked at, and its whole past with it."""
    counted = {}
    found = {}
    for number, (device, metric, value, time_ms) in enumerate(rows):
        rules = of_metric.get(metric, ())
        history = counted.setdefault((device, metric), [])
        if history and time_ms <= max(time for time, _ in history):
            continue
        was = [is_raised(rule, history) for rule in rules]
        at_rest = not any(was) and not (history and any(beyond(rule, history[-1][1]) for rule in rules))
        if at_rest and all(clears(rule, value) for rule in rules):
            continue
        history.append((time_ms, value))
        new = [i for i, rule in enumerate(rules) if is_raised(rule, history) and not was[i]]
        if new:
            found[number] = min(new, key=lambda i: (rules[i].priority, i))
    return found


class Line:
    """A filter and the states behind it, as intake and a shard have them."""

    def __init__(self, rules=RULES, **filter_settings):
        self.rules = rules
        self.settings = filter_settings
        self.states = AlarmStates()
        self.restart()

    def restart(self):
        self.filter = ReadingFilter(self.rules, future_s=FUTURE_S, **self.settings)

    def passed(self, rows, marks_ms, partitions=None):
        device, metric, value, time_ms = zip(*rows, strict=True)
        return ~self.filter.quiet(partitions or [0] * len(rows), device, metric, value, time_ms, marks_ms)

    def take(self, rows, marks_ms, partitions=None):
        """Row to the rule it reports by."""
        passed = np.flatnonzero(self.passed(rows, marks_ms, partitions)).tolist()
        found = {
            row: self.states.judge(*rows[row], marks_ms[row], self.rules.of_metric[rows[row][1]]) for row in passed
        }
        self.states.check()
        return {row: rule for row, rule in found.items() if rule >= 0}


VALUES = st.sampled_from([0.0, 0.0, 4.0, 4.0, -1.0, 1.0, 1.5, 2.0, 2.5, 3.0])
METRICS = st.sampled_from(["gas", "depth", "pressure", "no rule"])


@st.composite
def streams(draw, in_order=False):
    """Rows of one source partition and its marks: ingestion goes on, device clocks run ahead, behind and back."""
    jumble_s = 0 if in_order else draw(st.sampled_from([0, 2, FUTURE_S]))
    metrics = draw(st.sampled_from([st.just("gas"), METRICS]))
    devices = draw(st.sampled_from([st.just("a"), st.sampled_from("ab")]))
    steps = st.tuples(devices, metrics, VALUES, st.sampled_from([0, 1, 2, 3, 12]), st.integers(-jumble_s, jumble_s))
    rows, marks, mark_s = [], [], 1_000
    for device, metric, value, step_s, ahead_s in draw(st.lists(steps, min_size=1, max_size=40)):
        mark_s += max(step_s, 1) if in_order else step_s
        rows.append((device, metric, value, (mark_s + ahead_s) * 1000))
        marks.append(mark_s * 1000)
    return rows, marks


def gauge(*readings):
    """A stream of gauges with two rules that report at once: when it came, its time, the value, and whose it is."""
    return (
        [(device[0] if device else "a", "gas", float(value), at_s * 1000) for _, at_s, value, *device in readings],
        [mark_s * 1000 for mark_s, *_ in readings],
    )


PLATFORMS = st.text("012", min_size=1, max_size=40)
"""The partitions that readings come through, over and over."""


def through(platforms, rows):
    return [int(platform) for platform in islice(cycle(platforms), len(rows))]


@settings(max_examples=500)
@given(
    streams(),
    PLATFORMS,
    st.sets(st.integers(1, 39)),
    st.sets(st.integers(1, 39)),
    st.sampled_from([2, 3, 1000]),
    st.sampled_from([0, 4, 3600]),
)
# The clear reading that the filter sees first after a restart is older than the alarm, so it did not end it.
@example(gauge((0, 5, 4), (0, 3, 1), (0, 6, 1), (0, 7, 4)), "0", set(), {1}, 1000, 3600)
# The same where what was known longest was forgotten.
@example(
    gauge((0, 0, 1), (15, 20, 4), (15, 0, 1, "b"), (15, 0, 1, "c"), (15, 12, 1), (15, 22, 1), (15, 23, 4)),
    "0",
    {4},
    set(),
    2,
    3600,
)
# Seen by one filter and dropped by another, a clear reading must not make older ones stale.
@example(gauge((0, 3, 1), (0, 6, 1), (0, 4, 4)), "0", set(), {1}, 1000, 3600)
# Older than a clear reading that did not count, a value raises an alarm, which a later clear one has to end.
@example(gauge((0, 0, 1), (20, 25, 1), (20, 20, 4), (20, 26, 1), (20, 27, 4)), "0", set(), set(), 1000, 3600)
# After that, one that is older still is stale and ends nothing.
@example(
    gauge((0, 0, 1), (20, 25, 4), (20, 20, 4), (20, 23, 1), (20, 26, 1), (20, 27, 4)), "0", set(), set(), 1000, 3600
)
# All is well through one platform; an alarm comes through the other and ends through the first.
@example(
    gauge((0, 0, 1), (0, 11, 1), (12, 12, 1), (13, 13, 4), (14, 30, 1), (15, 31, 4)),
    "000100",
    set(),
    set(),
    1000,
    3600,
)
def test_filter_and_states_report_what_the_definition_reports(stream, platforms, cuts, restarts, capacity, refresh_s):
    """However the rows are batched, through whichever partitions, and whenever the filter is emptied."""
    rows, marks = stream
    partitions = through(platforms, rows)
    line = Line(capacity=capacity, refresh_s=refresh_s)
    found = {}
    ends = sorted({0, len(rows), *(at for at in cuts | restarts if at < len(rows))})
    for start, end in pairwise(ends):
        if start in restarts:
            line.restart()
        got = line.take(rows[start:end], marks[start:end], partitions[start:end])
        found |= {start + row: rule for row, rule in got.items()}
    assert found == by_definition(rows, RULES.of_metric)


@settings(max_examples=150)
@given(streams(in_order=True), st.randoms(use_true_random=False))
def test_a_device_that_comes_through_two_platforms_counts_once(stream, random):
    """Each platform keeps the order; which of the two is ahead changes from reading to reading."""
    rows, marks = stream
    line, at, told = Line(), [0, 0], {}
    for _ in range(2 * len(rows)):
        platform = random.choice([p for p in (0, 1) if at[p] < len(rows)])
        row, at[platform] = at[platform], at[platform] + 1
        for rule in line.take(rows[row : row + 1], marks[row : row + 1], [platform]).values():
            assert row not in told, "told twice"
            told[row] = rule
    assert told == by_definition(rows, RULES.of_metric)


@settings(max_examples=150)
@given(streams(), PLATFORMS, st.integers(0, 38), st.booleans(), st.sampled_from([0, 4, 3600]))
def test_a_batch_that_is_read_again_passes_what_it_passed_before(stream, platforms, again, is_given_back, refresh_s):
    """The first time it did not reach the log; or its partitions went to another worker and came back."""
    rows, marks = stream
    partitions = through(platforms, rows)
    again = min(again, len(rows) - 1)
    batch = rows[again:], marks[again:], partitions[again:]
    line = Line(refresh_s=refresh_s)
    line.passed(rows[: again + 1], marks[: again + 1], partitions[: again + 1])
    first = line.passed(*batch)
    if is_given_back:
        for partition in set(batch[2]):
            line.filter.forget(partition)
    second = line.passed(*batch)
    assert not (first & ~second).any()


@settings(max_examples=150)
@given(streams(), st.integers(1, 39), st.permutations(RULES.of_metric["depth"]), st.integers(0, 3))
def test_rules_that_stay_keep_their_state_when_others_change(stream, change, shuffled, kept):
    """Judged with all rules at once or each alone, a rule is raised by the same readings as long as it is there."""
    rows, marks = [], []
    for row, mark in zip(*stream, strict=True):
        if row[1] == "depth":
            rows.append(row)
            marks.append(mark)
    before, after = RULES.of_metric["depth"], tuple(shuffled[:kept])
    states = AlarmStates()
    passes = Line()
    told = []
    for number, (row, mark) in enumerate(zip(rows, marks, strict=True)):
        rules = before if number < change else after
        passes.filter.rules = ReadingRules({"depth": rules} if rules else {}, {})
        if passes.passed([row], [mark])[0]:
            told.append(states.judge(*row, mark, rules))
            states.check()
    # Whether dropped by the filter or given to the states, a reading that is clear by all changes nothing.
    every = AlarmStates()
    expected = [
        every.judge(*row, mark, before if n < change else after)
        for n, (row, mark) in enumerate(zip(rows, marks, strict=True))
        if n < change or after
    ]
    assert [rule for rule in told if rule >= 0] == [rule for rule in expected if rule >= 0]


# ----------------------------------------------------------------------------------------------------- a rule's states


def told(rules, *readings):
    """The times, in seconds, of the readings that became reports, and the categories they report."""
    states = AlarmStates()
    rules = rules if isinstance(rules, tuple) else (rules,)
    found = []
    for at_s, value in readings:
        index = states.judge("d", "depth", value, at_s * 1000, at_s * 1000, rules)
        states.check()
        if index >= 0:
            found.append((at_s, rules[index].category_code))
    return found


@pytest.mark.parametrize(
    ("rules", "readings", "at_s"),
    [
        pytest.param(FLOOD, [(0, 20), (60, 20), (120, 20), (180, 20)], [120], id="the reading that completes for_s"),
        pytest.param(FLOOD, [(0, 20), (119, 20)], [], id="a second short of it"),
        pytest.param(FLOOD, [(0, 20), (300, 16)], [300], id="two readings are enough if the second is late"),
        pytest.param(FLOOD, [(0, 20), (60, 12), (120, 20), (200, 20)], [], id="in between ends the waiting"),
        pytest.param(FLOOD, [(0, 20), (60, 15), (120, 20), (240, 20)], [240], id="the bound itself is not beyond"),
        pytest.param(AT_ONCE, [(0, 15), (1, 15.1)], [1], id="no waiting without for_s"),
        pytest.param(AT_ONCE, [(0, 20), (1, 12), (2, 20), (3, 10.1), (4, 20)], [0], id="trembling raises one alarm"),
        pytest.param(AT_ONCE, [(0, 20), (1, 10), (2, 20)], [0, 2], id="clear itself ends it"),
        pytest.param(rule(above=0), [(0, 1), (1, 0), (2, 1)], [0, 2], id="without clear the bound ends it"),
        pytest.param(BURST, [(0, -0.6), (30, -1), (60, -0.6), (90, -0.2), (91, -9)], [60], id="a fall, half way back"),
        pytest.param(BURST, [(0, -1), (60, -1), (70, 0), (80, -1), (140, -1)], [60, 140], id="a fall after a recovery"),
        pytest.param(AT_ONCE, [(9, 20), (5, 0), (12, 20)], [9], id="a clock that jumped back ends nothing"),
        pytest.param(AT_ONCE, [(9, 20), (10, 0), (9, 20), (10, 20)], [9], id="nor raises it anything"),
        pytest.param(AT_ONCE, [(0, math.nan), (1, math.inf), (2, 20)], [2], id="what is no number changes nothing"),
        pytest.param(FLOOD, [(0, 20), (60, math.nan), (120, 20)], [120], id="not even the waiting"),
    ],
)  # fmt: skip
def test_a_rule_is_raised_by(rules, readings, at_s):
    assert [at for at, _ in told(rules, *readings)] == at_s


def test_of_rules_raised_at_once_the_highest_priority_reports_and_the_first_of_equals():
    low, high, equal = (
        rule(above=a, category=c, priority=p) for a, c, p in ((10, "low", 3), (12, "high", 1), (11, "equal", 1))
    )
    assert told((low, high, equal), (0, 20), (1, 20)) == [(0, "high")]
    assert told((low, equal, high), (0, 20), (1, 20)) == [(0, "equal")]
    # One after the other each has its say.
    assert told((low, high, equal), (0, 10.5), (1, 11.5), (2, 12.5)) == [(0, "low"), (1, "equal"), (2, "high")]


def test_a_changed_rule_starts_afresh_and_the_others_keep_their_state():
    """The catalogue is edited while a street is under water."""
    states = AlarmStates()
    assert states.judge("d", "depth", 20, 0, 0, (AT_ONCE, FLOOD)) == 0
    edited = rule(above=14, clear=10)
    assert states.judge("d", "depth", 20, 60_000, 0, (FLOOD, AT_ONCE)) == -1
    assert states.judge("d", "depth", 20, 61_000, 0, (FLOOD, edited)) == 1
    assert states.judge("d", "depth", 20, 120_000, 0, (FLOOD, edited)) == 0


def test_only_what_was_out_of_the_clear_zone_is_held():
    states = AlarmStates()
    states.judge("dry", "depth", 1, 5_000, 5_000, (AT_ONCE,))
    assert len(states) == 0
    states.judge("damp", "depth", 12, 5_000, 5_000, (AT_ONCE,))
    assert len(states) == 1


@pytest.mark.parametrize(("mark_ms", "again"), [(1_006_000, False), (1_006_001, True)], ids=["just", "no more"])
def test_a_device_that_was_silent_for_as_long_as_one_remembers_is_told_of_again(mark_ms, again):
    """However many others there are: that the table is swept now and then makes no difference."""
    for others in (0, 110_000):
        states = AlarmStates(remember_ms=1_000_000)
        assert states.judge("wet", "depth", 20, 6_000, 6_000, (AT_ONCE,)) == 0
        for number in range(others):
            states.judge(f"d{number}", "depth", 12, mark_ms, mark_ms, (AT_ONCE,))
        assert (states.judge("wet", "depth", 20, mark_ms, mark_ms, (AT_ONCE,)) == 0) == again


def test_devices_that_come_and_go_do_not_fill_the_memory():
    """A gateway that makes up names: a hundred thousand of them each month."""
    states = AlarmStates(remember_ms=1_000)
    for month in range(3):
        for number in range(100_000):
            states.judge(f"{month}-{number}", "depth", 20, month * 1_100, month * 1_100, (AT_ONCE,))
    assert len(states) <= 200_000


# -------------------------------------------------------------------------------------------------------- the filter


def depth(*values, device="a", start_s=FUTURE_S + 1):
    return [(device, "depth", value, (start_s + i) * 1000) for i, value in enumerate(values)]


def test_the_filter_passes_what_leaves_the_clear_zone_and_the_first_one_back():
    """0 is clear by all three rules of depth, 1 not by one of them, 2.5 and 4 are beyond."""
    rows = depth(0, 0, 0, 4, 4, 2, 0, 0, 1, 0, 0)
    passed = Line().passed(rows, [0] * len(rows)).tolist()
    assert passed == [True, False, False, True, True, True, True, False, True, True, False]


def test_what_no_rule_is_for_is_dropped_and_takes_no_room():
    line = Line()
    rows = [("a", f"metric {i}", 0.0, 99_000) for i in range(50)]
    assert not line.passed(rows, [0] * 50).any()
    assert len(line.filter) == 0


def test_until_a_device_is_past_what_may_have_come_before_its_clear_readings_pass():
    """Just started, the filter cannot know whether an alarm of the future is up; ten seconds on it can."""
    rows = depth(0, 0, 0, 0, 0, start_s=FUTURE_S - 2)
    assert Line().passed(rows, [0] * 5).tolist() == [True, True, True, True, False]


def at(times_s, value=0.0, device="a"):
    return [(device, "depth", value, time_s * 1000) for time_s in times_s]


def test_from_a_partition_first_heard_or_given_back_nothing_is_taken_for_granted():
    """Whichever partition a device came through here, an alarm of it may have come through that one elsewhere."""
    line = Line()
    assert line.passed(at([12, 13]), [1_000] * 2, [3] * 2).tolist() == [True, False]
    # Ten seconds after its first mark, what it passed before is behind.
    assert line.passed(at([13, 23, 25, 26]), [14_000] * 4, [4, 3, 3, 4]).tolist() == [True, True, True, False]
    line.filter.forget(4)
    line.filter.forget(99)
    assert line.passed(at([27]), [17_000], [3]).tolist() == [False]
    assert line.passed(at([28, 29, 30]), [18_000] * 3, [4, 3, 4]).tolist() == [True, True, False]


def test_a_device_that_is_well_is_passed_once_in_a_while():
    """Counted from the last that passed, by its own time."""
    line = Line(refresh_s=60)
    assert line.passed(at([11, 12, 70, 71, 72, 130, 131]), [0] * 7).tolist() == [1, 0, 0, 1, 0, 0, 1]


def test_the_filter_remembers_no_more_than_its_capacity():
    """A gateway that makes up device names costs passed readings, not memory; what was heard last is still known."""
    line = Line(capacity=100)
    for batch in range(40):
        rows = [("steady", "depth", 0.0, (batch + 30) * 1000)]
        rows += [(f"{batch}-{i}", "depth", 0.0, (batch + 30) * 1000) for i in range(30)]
        assert line.passed(rows, [batch * 1000] * 31)[1:].all()
        assert len(line.filter) <= 100
    again = [(f"39-{i}", "depth", 0.0, 100_000) for i in range(30)]
    assert not line.passed(again, [40_000] * 30).any()
    with pytest.raises(ValueError, match="capacity = 1: must be at least 2"):
        ReadingFilter(RULES, capacity=1)


def test_a_rule_that_comes_with_a_changed_pack_sees_the_next_reading():
    line = Line()
    rows = depth(0.0, 0.0)
    line.passed(rows, [0, 0])
    stricter = {"depth": (rule(above=-1, clear=-2),), "new": (rule(above=1, metric="new"),)}
    line.filter.rules = ReadingRules(stricter, {})
    after = [("a", "depth", 0.0, 60_000), ("a", "new", 5.0, 60_000), ("a", "gas", 9.0, 60_000)]
    assert line.passed(after, [0] * 3).tolist() == [True, True, False]


def test_an_empty_batch_is_no_batch():
    line = Line()
    assert line.filter.quiet([], [], [], [], [], []).tolist() == []


# ------------------------------------------------------------------------------------------------------------- units


def test_a_reading_in_a_unit_that_nobody_maps_is_refused():
    """Only where both say a unit can they differ."""
    metric = ["depth", "depth", "depth", "gas", "no rule", "depth"]
    unit = ["cm", "mm", None, "%LEL", "mm", ""]
    refused = RULES.refusals(metric, unit, np.zeros(6))
    assert refused == {
        1: (Reason.OUT_OF_RANGE, "unit", "nobody maps unit 'mm' of metric depth; its rules are in 'cm'")
    }  # fmt: skip


def test_a_value_that_is_no_number_is_refused():
    """JSON has none, but a platform's factor may make one."""
    refused = RULES.refusals(["depth"] * 3, ["mm", None, None], np.array([math.nan, 1.0, math.inf]))
    assert {row: refusal[:2] for row, refusal in refused.items()} == {
        0: (Reason.OUT_OF_RANGE, "value"),
        2: (Reason.OUT_OF_RANGE, "value"),
    }
    assert refused[2].detail == "inf is no finite number"


def test_somebodys_number_in_place_of_a_unit_is_masked():
    refusal = RULES.refusals(["depth"], ["13812345678"], np.zeros(1))[0]
    assert "13812345678" not in refusal.detail


def test_the_sample_pack_has_metrics_with_rules_of_several_priorities():
    rules = ReadingRules.from_pack(load_pack(SAMPLE))
    assert any(len({rule.priority for rule in of}) > 1 for of in rules.of_metric.values())
    assert rules.unit_of_metric.keys() == rules.of_metric.keys()
