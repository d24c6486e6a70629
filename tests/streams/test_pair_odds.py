"""What a regression over labelled reports says each piece of evidence is worth."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_city import SAMPLE
from scipy.optimize import minimize

from benchmarks.labelled_reports import labelled
from benchmarks.service import labels_of
from streams import pair_odds
from streams.error_model import SCENARIOS, read_error_model, shipped_text
from streams.evaluation import NONE
from streams.fitting import figures, figures_before, fit
from streams.labels import LabelError
from streams.pack import load_pack
from streams.pair_odds import LONGEST_S, REACH_M, WINDOWS_S, pairs_of, regressed, rows_of_pairs
from streams.simulation import simulate, truth_csv

START = datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=8)))


def week(seed, hours=168):
    pack = load_pack(SAMPLE)
    model = read_error_model(shipped_text(SCENARIOS["normal-week"]))
    made = simulate(pack, model, seed=seed, start=START, hours=hours)
    return labels_of(labelled("week", pack, made.messages, truth_csv(made.truth).splitlines(keepends=True)))


@pytest.fixture(scope="module")
def two_weeks():
    return week(101, 336)


@pytest.fixture(scope="module")
def another_week():
    return week(1)


# --------------------------------------------------------------------------------------------------- regression


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 60))
def test_no_weights_are_likelier_than_those_found(seed, columns, rows):
    """Against a general minimiser on the definition, written down anew."""
    chance = np.random.default_rng(seed)
    x = chance.normal(0, 1, (rows, columns)) * chance.choice([1.0, 30.0], columns)
    full = chance.normal(0, 200, rows)
    is_one = chance.random(rows) < chance.random()
    middle, sigma = chance.normal(0, 50, columns), chance.uniform(0.5, 300, columns)

    def cost(weights):
        odds = np.log(10) / 100 * (x @ weights + full)
        chances = -np.logaddexp(0, np.where(is_one, -odds, odds))
        return -chances.sum() + 0.5 * (((weights - middle) / sigma) ** 2).sum()

    weights, likelihood = regressed(x, full, is_one, middle, sigma)
    assert likelihood == pytest.approx(-cost(weights), rel=1e-9, abs=1e-9)
    # In units of the prior, or the general one stops early in a long valley.
    other = minimize(lambda unit: cost(middle + sigma * unit), np.zeros(columns), method="BFGS")
    assert likelihood >= -other.fun - 0.01


def test_evidence_without_reports_stays_what_was_expected():
    x, nothing = np.zeros((5, 2)), np.zeros(5)
    weights, _ = regressed(x, nothing, np.ones(5, bool), np.array([7.0, -3.0]), np.array([1.0, 1.0]))
    assert weights.tolist() == [7.0, -3.0]


# -------------------------------------------------------------------------------------------------------- pairs


def test_each_report_stands_beside_each_earlier_event_of_its_group_that_is_near(another_week):
    """Counted by hand: one row for every earlier event of the group that is within reach and not too long ago."""
    few = another_week.take(np.arange(400))
    pairs = pairs_of(few)
    assert len(pairs.m2) > 100
    assert (np.sqrt(pairs.m2) - pairs.excess_m <= 300).all(), "no more than the cap is forgiven"
    assert (pairs.excess_m <= REACH_M).all()
    assert (pairs.gap_s <= LONGEST_S).all()
    group_of = np.array([few.pack.groups.index(one.group) for one in few.pack.categories])[few.reports.category]
    usable = (few.cluster != NONE) & (few.reports.lat_e7 != -(2**31))
    expected = 0
    for row in np.flatnonzero(usable).tolist():
        before = [other for other in range(row) if usable[other] and group_of[other] == group_of[row]]
        expected += few.cluster[row] in {few.cluster[other] for other in before}
    assert 0.8 * expected < np.count_nonzero(pairs.is_one) <= expected, "its own event is beside nearly every report"


def test_more_pairs_than_memory_is_meant_for_are_refused(another_week, monkeypatch):
    monkeypatch.setattr(pair_odds, "MOST_PAIRS", 500)
    with pytest.raises(LabelError, match=r"more than 500 pairs .* a shorter time"):
        pairs_of(another_week)


def test_reports_without_a_label_are_beside_nobody(another_week):
    hidden = another_week.hiding(np.arange(len(another_week)) % 2 == 0)
    kept = another_week.take(np.arange(len(another_week)) % 2 == 1)
    one, other = pairs_of(hidden), pairs_of(kept)
    assert one.m2.tolist() == other.m2.tolist()
    assert one.is_one.tolist() == other.is_one.tolist()


# ----------------------------------------------------------------------------------------------------- learning


def test_what_one_fortnight_teaches_is_better_than_the_pack_in_another_week(two_weeks, another_week):
    fitted = fit(two_weeks)
    before = figures_before(another_week)
    after = figures(replace(fitted, labelled=another_week).incidents(), another_week)
    assert after.pair_f1 > before.pair_f1 + 0.01
    assert after.pair_f1 > 0.93
    assert after.pair_precision > 0.95


def test_workers_who_file_again_have_come_to_the_next_thing_and_callers_to_the_same(two_weeks):
    common = fit(two_weeks).common
    assert common["again patrol"] < -100 < 0 < common["again hotline"]
    assert common["patrol-patrol"] < -100
    assert common["text_percent"] > 30


def test_the_same_labels_teach_the_same(two_weeks):
    assert fit(two_weeks).rows == fit(two_weeks).rows


def test_a_dearer_dial_joins_less(two_weeks, another_week):
    joins = [
        figures(replace(fit(two_weeks, dial=dial), labelled=another_week).incidents(), another_week).joins
        for dial in (0.01, 0.05, 0.5)
    ]
    assert joins[0] > joins[1] > joins[2] > 0


def test_a_group_of_few_pairs_is_near_what_holds_for_all(two_weeks):
    pairs = pairs_of(two_weeks)
    groups = two_weeks.pack.groups
    common, rows = rows_of_pairs(pairs, two_weeks.pack, 5.0)
    count = {name: np.count_nonzero(pairs.group == number) for number, name in enumerate(groups)}

    def apart(name):
        return abs(rows[name]["prior"] - common["prior"])

    few = [apart(name) for name in rows if count[name] < 20]
    many = [apart(name) for name in rows if count[name] > 300]
    assert len(few) > 5
    assert len(many) > 2
    assert np.median(few) < np.median(many)
    assert all(row["window_s"] in WINDOWS_S for row in rows.values())
