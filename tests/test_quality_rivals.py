"""The rivals of `benchmarks.quality` against their definitions, told the slow way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from labelled_city import labelled_city

from benchmarks.rivals.choice import GroupChoice
from benchmarks.rivals.method import Tally, fixed_point, tally, true_pairs
from benchmarks.rivals.neighbours import SAME_M, neighbours
from benchmarks.rivals.st_dbscan import Pairs
from benchmarks.rivals.tiers import FittedTable, Follower, Grid, PlainRule, Settings
from streams.evaluation import NONE

HOUR = 3600.0
DAY = 24 * HOUR
rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 10.0, 11.0, 30.0, 60.0]),
        st.sampled_from([0.0, 10.0, 40.0]),
        st.integers(0, 30).map(lambda hour: hour * HOUR),
        st.just(0),
        st.integers(-1, 3),
        st.sampled_from([-1, 0, 1]),
        st.sampled_from([-1, -1, 5, 6]),
    ),
    min_size=1,
    max_size=14,
)
setting = st.tuples(
    st.sampled_from([-1.0, 10.0, 30.0, 50.0]),
    st.sampled_from([-1.0, 2 * HOUR, DAY]),
    st.sampled_from([-1.0, HOUR, DAY]),
    st.just(0.0),
)


def same_place(city, a, b):
    near = math.hypot(city.x_m[a] - city.x_m[b], city.y_m[a] - city.y_m[b]) <= SAME_M
    return near or (city.place[a] == city.place[b] != NONE)


def followed(city, radius_m, window_s, same_s):
    """The two tiers as their docstring says it."""
    incident, last_s = [], {}
    for row in range(len(city)):
        candidates = []
        for founder, seen_s in last_s.items():
            gap_s = abs(city.time_s[row] - seen_s)
            distance_m = math.hypot(city.x_m[row] - city.x_m[founder], city.y_m[row] - city.y_m[founder])
            if same_place(city, row, founder) and gap_s <= same_s:
                candidates.append((0, distance_m, founder))
            elif gap_s <= window_s and distance_m <= radius_m:
                candidates.append((1, distance_m, founder))
        founder = min(candidates)[2] if candidates else row
        incident.append(founder)
        last_s[founder] = max(last_s.get(founder, -math.inf), city.time_s[row])
    return incident


@given(rows, setting)
@example([(0, 0, 0, 0, 0, 0, -1), (10.0, 0, 0, 0, 0, 1, -1)], (10.0, DAY, -1.0, 0.0))  # exactly on the radius
@example([(0, 0, 0, 0, 0, 0, 5), (60.0, 40.0, HOUR, 0, 0, 1, 5)], (-1.0, -1.0, HOUR, 0.0))  # one address, far apart
def test_the_tiers_agree_with_the_plain_loop(city_rows, row):
    city = labelled_city(city_rows)
    follower = Follower(city)
    counts = follower.run(np.zeros(len(city), np.int64), Settings.off(1).with_row(0, row)).tolist()
    assert follower.incident.tolist() == followed(city, *row[:3])
    of_incident = tally(follower.incident, city)
    assert counts == [of_incident.found, of_incident.paired, of_incident.unflagged, of_incident.joins]


@given(rows)
def test_a_tally_agrees_with_asking_every_pair(city_rows):
    city = labelled_city(city_rows)
    incident = np.array(followed(city, 50.0, DAY, HOUR))
    known = [row for row in range(len(city)) if city.cluster[row] != NONE]
    pairs = list(itertools.combinations(known, 2))
    counted = tally(incident, city)
    assert counted.paired == sum(incident[a] == incident[b] for a, b in pairs)
    assert counted.found == sum(incident[a] == incident[b] and city.cluster[a] == city.cluster[b] for a, b in pairs)
    assert true_pairs(city) == sum(city.cluster[a] == city.cluster[b] for a, b in pairs)
    assert counted.joins == len(city) - len(set(incident.tolist()))


@given(rows, st.sampled_from([2.0, 10.0, 45.0]), st.sampled_from([HOUR, DAY]), st.sampled_from([2, 3, 4]))
def test_st_dbscan_agrees_with_growing_each_cluster_from_its_cores(city_rows, eps_m, eps_s, min_pts):
    city = labelled_city(city_rows)

    def near(row):
        return {
            other
            for other in range(len(city))
            if math.hypot(city.x_m[row] - city.x_m[other], city.y_m[row] - city.y_m[other]) <= eps_m
            and abs(city.time_s[row] - city.time_s[other]) <= eps_s
        }

    cores = [row for row in range(len(city)) if len(near(row)) >= min_pts]
    label = {}
    for core in cores:
        if core in label:
            continue
        grown = [core]
        for row in grown:  # grows while it is gone through
            grown += [other for other in cores if other in near(row) and other not in grown]
        label.update(dict.fromkeys(grown, core))
    clusters = Pairs.of(city, eps_m, eps_s).clusters((eps_m, eps_s, min_pts))
    of_core = clusters[cores].tolist()
    assert [[a == b for b in of_core] for a in of_core] == [[label[a] == label[b] for b in cores] for a in cores]
    for row in set(range(len(city))) - set(cores):
        beside = [core for core in cores if core in near(row)]
        if beside:
            assert clusters[row] in {clusters[core] for core in beside}, "a border report goes with a core beside it"
        else:
            assert (clusters == clusters[row]).sum() == 1, "what is near no core is alone"


@given(rows, st.sampled_from([5.0, 12.0, 100.0]))
def test_neighbours_are_the_pairs_within_reach(city_rows, reach_m):
    city = labelled_city(city_rows)
    near = neighbours(city, reach_m)
    expected = [
        (earlier, later)
        for later in range(len(city))
        for earlier in range(later)
        if math.hypot(city.x_m[earlier] - city.x_m[later], city.y_m[earlier] - city.y_m[later]) <= reach_m
    ]
    assert list(zip(near.earlier.tolist(), near.later.tolist(), strict=True)) == expected
    assert near.same.tolist() == [same_place(city, a, b) for a, b in expected]


SMALL = Grid(radius_m=(10, 30), window_d=(0.1, 1.0), same_d=(0.1, 1.0))


def twins(days, *, apart_m, hours, cluster_from=0, flag=1):
    """A pair of reports each day, far from every other day's."""
    return [
        (1000.0 * day + side * apart_m, 0.0, day * DAY + side * hours * HOUR, 0, cluster_from + day, side * flag, -1)
        for day in days
        for side in (0, 1)
    ]


def test_the_fitted_table_finds_the_radius_that_its_labels_ask_for():
    city = labelled_city(twins(range(12), apart_m=25.0, hours=2))
    fitted = FittedTable(grid=SMALL, bounds_m=(30,)).train(city).at(0.0)
    assert true_pairs(city) == tally(fitted.predict(city), city).found == 12
    code = city.pack.categories[0].code
    assert fitted.settings()[code]["radius_m"] == 30


def test_a_table_with_a_pack_goes_by_it_where_labels_are_few():
    city = labelled_city([(0, 0, 0, 0, 1, 0, -1), (25, 0, 60, 0, 1, 1, -1), (26, 0, HOUR, 0, 1, 1, -1)])
    fitted = FittedTable(grid=Grid(radius_m=(5.0, 30.0)), start=city.pack).train(city).at(0.05)
    category = city.pack.categories[0]
    assert fitted.table.row(0)[:2] == (category.radius_m, category.window_s)


def test_a_dear_join_is_made_only_where_labels_pay_for_it():
    """Flagged pairs lie 5 m apart, and five times as many that nobody flagged 25 m."""
    flagged = twins(range(6), apart_m=5.0, hours=1)
    others = [(*row[:4], -1, 0, -1) for row in twins(range(20, 50), apart_m=25.0, hours=1)]
    city = labelled_city(flagged + others)
    cheap, dear = (PlainRule(grid=SMALL).train(city).at(price) for price in (0.0, 0.5))
    assert tally(dear.predict(city), city).unflagged == 0
    assert tally(dear.predict(city), city).found == 6
    assert cheap.settings() != {} != dear.settings()


@settings(max_examples=20)
@given(st.integers(0, 100))
def test_settings_by_group_are_settled_without_the_reports_that_are_scored(day):
    """Whatever comes after the border, what was fitted before it is the same."""
    before = twins(range(8), apart_m=8.0, hours=1)
    later = twins([200 + day], apart_m=28.0, hours=20, cluster_from=50)
    whole = labelled_city(before + later)
    fitted = FittedTable(grid=SMALL, bounds_m=(30,)).train(whole.before(100 * DAY)).at(0.05)
    alone = FittedTable(grid=SMALL, bounds_m=(30,)).train(labelled_city(before)).at(0.05)
    assert fitted.settings() == alone.settings()


def test_a_bound_keeps_out_what_labels_do_not_forbid():
    """Row 1 reaches far and is right in the first half alone; row 2 is near and right in both."""
    city = labelled_city(twins(range(10), apart_m=5.0, hours=1))

    def tally_rows(part):
        early = float(len(part) > 0 and part.time_s.max() < 5 * DAY)
        zeros = np.zeros(3)
        return Tally(np.array([0.0, 6.0 * early, 5.0]), np.array([0.0, 6.0, 5.0]), zeros, zeros)

    choice = GroupChoice(city, tally_rows, np.array([0.0, 100.0, 10.0]), (50.0, 150.0))
    chosen, _, _ = choice.rows(0.0)
    assert list(chosen.values()) == [2]


def test_the_fixed_point_is_the_best_f1_that_a_choice_can_have():
    settings_found = [(0, 0), (5, 5), (8, 10), (9, 20)]

    def choose(f1):
        return max(settings_found, key=lambda one: 2 * one[0] - f1 * one[1])

    best = max(2 * found / (paired + 10) for found, paired in settings_found)
    assert fixed_point(choose, 10) == pytest.approx(best)
