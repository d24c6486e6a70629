"""What a regression over labelled reports says each piece of evidence is worth."""

from __future__ import annotations

import math
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
from geo.plane import metres_per_degree
from streams import pair_odds
from streams.error_model import SCENARIOS, read_error_model, shipped_text
from streams.evaluation import NONE
from streams.fitting import figures, figures_before, fit
from streams.labels import LabelError
from streams.pack import load_pack
from streams.pair_odds import LONGEST_S, REACH_M, WINDOWS_S, pairs_of, regressed, rows_of_pairs
from streams.reports import NO_POSITION
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


def plain_pairs(labelled):
    """Every report beside every earlier event of its group that is near, by plain loops."""
    pack, reports = labelled.pack, labelled.reports
    rows = [row for row in range(len(labelled)) if labelled.cluster[row] != NONE and reports.lat_e7[row] != NO_POSITION]
    members, found = {}, []

    def at(row):
        m_lon, m_lat = (float(one) for one in metres_per_degree(reports.lat_e7[row] * 1e-7))
        return reports.lon_e7[row] * 1e-7 * m_lon, reports.lat_e7[row] * 1e-7 * m_lat

    def anchor(of):
        best = of[0]
        for row in of[1:]:
            if reports.accuracy_cm[best] > 0 and 2 * reports.accuracy_cm[row] <= reports.accuracy_cm[best]:
                best = row
        return best

    def places(row):
        keys = (reports.device_key, reports.asset_key, reports.address_key)
        return {int(column[row]) for column in keys} - {0}

    for row in rows:
        group = pack.categories[reports.category[row]].group
        for event, of in members.items():
            founding = pack.categories[reports.category[of[0]]]
            if founding.group != group:
                continue
            where = anchor(of)
            vague_cm = max(reports.accuracy_cm[row], reports.accuracy_cm[where])
            vague_m = min(founding.match.sigmas * vague_cm / 100, founding.accuracy_cap_m)
            away_m = math.dist(at(row), at(where))
            times = [int(reports.time_ms[other]) for other in of]
            if away_m > REACH_M + vague_m or reports.time_ms[row] - max(times) > 1000 * LONGEST_S:
                continue
            witness = (reports.source[row], reports.witness[row])
            gap_ms = max(0, reports.time_ms[row] - max(times), min(times) - reports.time_ms[row])
            found.append(
                (
                    round(away_m, 3),
                    gap_ms / 1000,
                    (max(times) - min(times)) / 1000,
                    min(len(of) - 1, 9),
                    int(reports.source[of[0]]),
                    int(reports.source[row]),
                    away_m <= 2 or any(places(row) & places(other) for other in of),
                    bool(witness[1]) and any(witness == (reports.source[o], reports.witness[o]) for o in of),
                    event == (group, labelled.cluster[row]),
                    round(max(0.0, away_m - vague_m), 3),
                )
            )
        members.setdefault((group, labelled.cluster[row]), []).append(row)
    return found


def test_each_report_stands_beside_each_earlier_event_of_its_group_that_is_near(another_week):
    """Against the same by plain loops: which pairs there are, and all but texts of what is told of them."""
    few = another_week.take(np.arange(500))
    pairs = pairs_of(few)
    columns = (
        np.round(np.sqrt(pairs.m2), 3), pairs.gap_s, pairs.span_s, pairs.further, pairs.founding, pairs.source,
        pairs.is_same_place, pairs.is_again, pairs.is_one, np.round(pairs.excess_m, 3),
    )  # fmt: skip
    found = sorted(zip(*(column.tolist() for column in columns), strict=True))
    expected = sorted(plain_pairs(few))
    assert np.array(found, float) == pytest.approx(np.array(expected, float), abs=0.002)
    assert len(found) > 300
    assert {one[-2] for one in found} == {one[6] for one in found} == {one[7] for one in found} == {True, False}


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
