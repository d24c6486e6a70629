"""The figures of `benchmarks.quality` and their intervals, against the slow way of drawing events again."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_city import SAMPLE, labelled_city

from benchmarks import unflagged_joins
from benchmarks.draw_quality import draw
from benchmarks.labelled_reports import simulated
from benchmarks.quality_figures import Resampled, Scored, at_joins, check, difference, figures, scored, sweep, together
from benchmarks.service import Replayed
from benchmarks.varied_errors import varied
from streams.error_model import read_error_model
from streams.evaluation import NONE, b_cubed, pairwise, read_truth
from streams.messages import SOURCES

HOUR = 3600.0
small = st.integers(0, 4)
labelled = st.lists(st.tuples(small, small), min_size=1, max_size=20)


def of(rows):
    """Scored reports of (incident, event); an event of -1 is unlabelled."""
    incident, event = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    nothing = np.full(len(rows), NONE, np.int64)
    no = np.zeros(len(rows), bool)
    return Scored(event, incident, nothing, no, no, nothing)


@given(labelled, st.integers(0, 9))
def test_an_event_drawn_twice_is_two_events_of_the_same_shape(rows, seed):
    """The slow way: copy the reports of every event as often as it was drawn, and ask each pair of reports.

    Two copies of one event are not asked about one another: no method could have mixed those up.
    """
    one = of(rows)
    resampled = Resampled(one.cluster, seed=seed, times=3)
    curves = resampled.curves(one)
    for number, weights in enumerate(resampled.weights):
        copies = [
            (incident, (event, copy))
            for event, weight in zip(resampled.clusters, weights, strict=True)
            for copy in range(int(weight))
            for incident, of_row in rows
            if of_row == event
        ]
        right = predicted = true = 0
        precision = recall = 0.0
        for i, (a, x) in enumerate(copies):
            mine = [(b, y) for b, y in copies if y == x or y[0] != x[0]]
            right_here = sum(b == a and y == x for b, y in mine)
            precision += right_here / sum(b == a for b, _ in mine)
            recall += right_here / sum(y == x for _, y in mine)
            for b, y in copies[i + 1 :]:
                if y == x or y[0] != x[0]:
                    right += a == b and x == y
                    predicted += a == b
                    true += x == y
        assert curves["b_cubed_precision"][number] == pytest.approx(precision / len(copies))
        assert curves["b_cubed_recall"][number] == pytest.approx(recall / len(copies))
        if predicted + true:
            assert curves["pair_f1"][number] == pytest.approx(2 * right / (predicted + true))


@given(labelled)
def test_the_first_draw_is_the_truth_as_evaluate_counts_it(rows):
    one = of(rows)
    curves = Resampled(one.cluster, times=2).curves(one)
    check(one, Resampled(one.cluster, times=2))
    incident, event = one.incident, one.cluster
    for kind, measured in (("pair", pairwise(incident, event)), ("b_cubed", b_cubed(incident, event))):
        for name, value in zip(("precision", "recall", "f1"), measured, strict=True):
            if value is not None:
                assert curves[f"{kind}_{name}"][0] == pytest.approx(value)


def test_of_an_event_that_straddles_the_border_only_its_reports_within_the_period_are_scored():
    """Two reports before midnight, two after, one incident: one pair is scored, and both reports after it join."""
    city = labelled_city([(0, 0, hour * HOUR, 0, 7, 0, -1) for hour in (22, 23, 25, 26)])
    one = scored(city, np.zeros(4, np.int64), city.time_s >= 24 * HOUR)
    found = figures(one, Resampled(one.cluster, times=10))
    assert found["pair_f1"] == [1.0, 1.0, 1.0]
    assert (found["reports"], found["joins"]) == (2, 2), "joins look back over the border, pairs do not"


def test_a_link_counts_for_the_report_that_has_the_parent():
    city = labelled_city([(0, 0, hour * HOUR, 0, 3, int(hour > 0), -1) for hour in range(3)], parents=[-1, 0, 0])
    one = scored(city, np.array([0, 0, 1]), np.array([False, True, True]))
    assert figures(one, Resampled(one.cluster, times=10))["link_recall"][0] == 0.5


def test_periods_scored_together_never_share_an_event_or_an_incident():
    one = of([(0, 0), (0, 0), (1, -1)])
    both = together([one, one])
    assert both.cluster.tolist() == [0, 0, -1, 1, 1, -1]
    assert both.incident.tolist() == [0, 0, 1, 2, 2, 3]


def joining(joins):
    """A prediction with so many joins that is the better the more of five true pairs it finds."""
    rows = [(event if event < joins else event + 10 * side, event) for event in range(5) for side in (0, 1)]
    one = of(rows)
    return Scored(one.cluster, one.incident, one.flag, np.arange(10) < joins, np.ones(10, bool), one.linked)


def test_two_methods_are_compared_where_they_make_equally_many_joins():
    stops = [joining(joins) for joins in (1, 3, 5)]
    resampled = Resampled(stops[0].cluster, times=50)
    ours, theirs = sweep(stops, resampled, where_flagged=False), sweep(stops[::2], resampled, where_flagged=True)
    assert difference(ours, ours, 4) == [0.0, 0.0, 0.0]
    between = at_joins(theirs, 3)
    assert between is not None
    assert between[0] == pytest.approx((theirs.pair_f1[0][0] + theirs.pair_f1[1][0]) / 2)
    assert difference(ours, theirs, 6) is None, "no dial reaches so far"


def test_what_is_fitted_on_sees_neither_a_message_nor_a_label_of_later():
    city = labelled_city([(0, 0, hour * HOUR, 0, 7, int(hour > 0), -1) for hour in range(4)], parents=[-1, 0, 3, -1])
    early = city.before(3 * HOUR)
    assert [message.offset for message in early.messages] == [0, 1, 2]
    truth = read_truth(early.truth_csv().splitlines())
    assert truth.report_ids == ["R0", "R1", "R2"]
    assert truth.parent.tolist() == [NONE, 0, NONE], "the third's parent came later"


@pytest.mark.parametrize("scenario", ["normal-week", "storm"])
def test_what_methods_see_of_a_simulation_is_what_the_service_made_of_it(scenario):
    """Every report of the truth stands once among them, where it is not refused, and a prediction covers them all."""
    city = simulated(SAMPLE, scenario, hours=10, seed=3, vary=True)
    names = [SOURCES[source] for source in city.source.tolist()]
    assert len(set(zip(names, city.reports.report_id.tolist(), strict=True))) == len(city)
    assert (city.cluster != NONE).mean() > 0.8
    incident = Replayed().predict(city)
    assert len(incident) == len(city)
    assert 0.2 < len(np.unique(incident)) / len(city) < 1


# ------------------------------------------------------------------------------------------------- joins to be read


def test_a_join_is_read_beside_the_nearest_earlier_report_of_its_incident():
    city = labelled_city(
        [
            (0, 0, 0, 0, -1, 0, -1),
            (50, 0, HOUR, 0, -1, 1, -1),  # flagged: no unflagged join
            (49, 0, 2 * HOUR, 0, -1, 0, -1),
            (500, 0, 3 * HOUR, 0, -1, 0, -1),  # alone
        ]
    )
    incident = np.array([0, 0, 0, 1])
    assert unflagged_joins.unflagged_joins(city, incident, 0.0) == [(2, 1)]
    assert unflagged_joins.unflagged_joins(city, incident, 3 * HOUR) == []


def test_the_draw_keeps_its_pairs_when_other_joins_come_and_go():
    city = labelled_city([(0, 0, hour * HOUR, 0, -1, 0, -1) for hour in range(200)])
    pairs = [(row, row - 1) for row in range(1, 200)]
    whole = unflagged_joins.drawn(city, pairs, 1, 50)
    fewer = unflagged_joins.drawn(city, [pair for pair in pairs if pair not in whole[:5]], 1, 50)
    assert fewer[:45] == whole[5:]
    assert unflagged_joins.drawn(city, pairs, 2, 50) != whole


def test_verdicts_are_counted_for_the_pairs_drawn():
    city = labelled_city([(0, 0, hour * HOUR, 0, -1, 0, -1) for hour in range(4)])
    verdicts = unflagged_joins.read_verdicts(
        ["report_id,joined_id,verdict,ground\n", "R1,R0,same,minutes\n", "R2,R1,other,repair\n", "R9,R8,same,address\n"]
    )
    found = unflagged_joins.summary(city, [(1, 0), (2, 1), (3, 2)], verdicts)
    assert (found["same"], found["other"], found["without_verdict"]) == (1, 1, 1)
    assert found["other_share"][0] == 0.5
    assert found["grounds"]["other"] == {"repair": 1}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("R1,R0,perhaps,minutes", "a verdict is one of same, other, unsure"),
        ("R1,R0,same,", "its ground one word"),
        ("R1,R0,same,the same minute", "its ground one word"),
        ("R2,R1,same,minutes", "R2, R1 has a verdict already"),
    ],
)
def test_a_verdict_that_is_none_is_refused_with_its_line(line, told):
    lines = ["report_id,joined_id,verdict,ground\n", "R2,R1,other,repair\n", f"{line}\n"]
    with pytest.raises(ValueError, match=told) as error:
        unflagged_joins.read_verdicts(lines)
    assert ":3:" in str(error.value)


# ------------------------------------------------------------------------------------------------ varied error models


@given(st.integers(0, 10_000))
def test_a_varied_error_model_is_legal_and_the_same_for_the_same_seed(seed):
    model = varied(read_error_model(), seed)
    assert model == varied(read_error_model(), seed)
    assert msgspec.convert(msgspec.to_builtins(model), type(model)) == model, "every figure is within its range"
    assert model.events == read_error_model().events, "what happens is not what sources do wrong"
    assert model.hotline != read_error_model().hotline


# ------------------------------------------------------------------------------------------------------- the picture


def test_the_picture_shows_every_method_and_is_the_same_for_the_same_results(tmp_path):
    curve = ["price joins pair_recall pair_precision pair_f1", "0.0 90 0.9 0.8 0.847", "0.1 50 0.7 0.95 0.806"]
    told = {"pair_recall": [0.9], "pair_precision": [0.8], "pair_f1": [0.847], "joins": 90, "curve": curve}
    methods = {"service, fitted": told, "plain rule": told, "Splink": told}
    results = {"stages": {"boston": {"clusters": 185, "methods": methods}}}
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for out in pictures:
        draw(results, out)
    one, two = (out.read_text() for out in pictures)
    assert one == two
    assert all(f"<!-- {name} -->" in one for name in methods)
