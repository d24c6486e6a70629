"""What happens in a simulated city: by hour, by day, by category, and when it rains."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from packs import make_sample
from streams.error_model import read_error_model
from streams.pack import load_pack
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity, metres
from streams.simulated_events import Sites, Span, Storm, plan

MONDAY = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
NO_RAIN = "[storm]\nper_day = 0\n"


@pytest.fixture(scope="module")
def city():
    return SimulatedCity(load_pack(Path(make_sample.__file__).parent / "sample"), {})


def span(hours=24, start=MONDAY, holidays=()):
    start_ms = round(start.timestamp() * 1000)
    return Span(start_ms, start_ms + round(hours * 3_600_000), start.tzinfo, dict(holidays))


def planned(city, text, when, rate=1.0, seed=1):
    return plan(city, read_error_model(text), Chance(seed), when, rate)


def settled(city, text, when, seed=1):
    model = read_error_model(text)
    chance = Chance(seed)
    what, storms = plan(city, model, chance, when, 1.0)
    sites = Sites(city, model, chance)
    found = [sites.settle(one, number) for number, one in enumerate(what)]
    return [event for event in found if event is not None], storms


# ------------------------------------------------------------------------------------------- hours and days


def test_noise_is_of_the_night_and_stalls_are_of_the_day(city):
    week = span(7 * 24)
    what, _ = planned(city, NO_RAIN, week)
    hours = {code: Counter(week.local(one.start_ms).hour for one in what if one.category.code == code)
             for code in ("06028", "09005", "09009")}  # fmt: skip
    assert sum(hours["06028"][hour] for hour in (19, 20, 21, 22, 23, 0, 1, 2)) > 0.5 * hours["06028"].total() > 100
    assert not any(hours["09005"][hour] for hour in (0, 1, 2, 3)), "nobody sells at night"
    assert hours["09009"][8] > 5 * hours["09009"][2]


def test_a_curve_moves_events_within_the_day_and_makes_no_more_of_them(city):
    flat = NO_RAIN + "[events.curve_of]\n" + "".join(f'"{c.code}" = "even"\n' for c in city.pack.categories)
    shaped, even = (len(planned(city, text, span(7 * 24))[0]) for text in (NO_RAIN, flat))
    assert shaped == pytest.approx(even, rel=0.03)


@pytest.mark.parametrize(
    ("holidays", "off"),
    [({}, {5, 6}), ({date(2026, 6, 3): "holiday"}, {2, 5, 6}), ({date(2026, 6, 6): "workday"}, {6})],
    ids=["weekend", "holiday", "make-up working day"],
)
def test_less_happens_on_days_off(city, holidays, off):
    text = NO_RAIN + "[events]\nday_off = 0.25\n[events.day_off_of]\n'06029' = 4\n"
    week = span(7 * 24, holidays=holidays)
    what, _ = planned(city, text, week)
    per_day = Counter((one.start_ms - week.start_ms) // 86_400_000 for one in what)
    low = max(per_day[day] for day in off)
    high = min(per_day[day] for day in range(7) if day not in off)
    assert low < 0.5 * high
    barbecues = Counter((one.start_ms - week.start_ms) // 86_400_000 for one in what if one.category.code == "06029")
    assert sum(barbecues[day] for day in off) / len(off) > sum(
        barbecues[day] for day in range(7) if day not in off
    ) / (7 - len(off))  # fmt: skip


def test_a_span_that_starts_between_hours_is_cut_into_them():
    when = span(2, MONDAY + timedelta(minutes=20))
    assert [round((until - begin) / 60_000) for begin, until in when.slots()] == [40, 60, 20]


# ----------------------------------------------------------------------------------------------------- rain


def test_every_day_of_a_week_has_its_storm_over_a_part_of_the_city(city):
    week = span(7 * 24)
    _, storms = planned(city, "", week)
    days = [(storm.start_ms - week.start_ms) // 86_400_000 for storm in storms]
    assert days == [0, 1, 2, 3, 4, 5, 6]
    assert all(city.contains(storm.lon, storm.lat) and 900 <= storm.radius_m <= 1600 for storm in storms)


def test_a_storm_floods_spots_near_one_another_while_it_rains(city):
    model = read_error_model()
    events, storms = settled(city, "[events]\nper_day = 0\n", span(7 * 24))
    assert {event.category.code for event in events} <= set(model.storm.categories)
    beside = 0
    for storm in storms:
        spots = [event for event in events if storm.start_ms <= event.start_ms <= storm.end_ms]
        assert len(spots) >= 0.7 * model.storm.events[0]
        for spot in spots:
            assert metres(spot.lon, spot.lat, storm.lon, storm.lat) < storm.radius_m + 8 * model.storm.apart_m[1]
            assert storm.end_ms < spot.end_ms <= storm.dry_ms
        for one, other in itertools.combinations(spots, 2):
            away_m = metres(one.lon, one.lat, other.lon, other.lat)
            same_group = one.category.group == other.category.group
            assert away_m > model.storm.apart_m[0] or not same_group
            beside += same_group and away_m <= model.storm.apart_m[1]
    assert beside > 20, "neighbours of one group within the distance that the model says"


def test_water_rises_with_the_rain_and_is_gone_when_all_has_drained():
    storm = Storm(1000, 3000, 7000, 0.0, 0.0, 1.0)
    assert [storm.wetness(at) for at in (500, 1000, 1500, 2000, 3000, 5000, 7000, 8000)] == [
        0, 0, 0.5, 1, 1, 0.5, 0, 0,
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("apart", [1.0, 0.3])
def test_events_of_one_group_keep_as_many_radii_apart_as_the_model_says(city, apart):
    text = f"{NO_RAIN}[events]\nper_day = 4000\napart_radii = {apart}\n"
    events, _ = settled(city, text, span(6, MONDAY + timedelta(hours=9)))
    nearest = 9.0
    by_group = itertools.groupby(sorted(events, key=lambda event: event.category.group), lambda e: e.category.group)
    for _, group in by_group:
        for one, other in itertools.combinations(group, 2):
            if min(one.end_ms, other.end_ms) > max(one.start_ms, other.start_ms):
                radius_m = max(one.category.radius_m, other.category.radius_m)
                nearest = min(nearest, metres(one.lon, one.lat, other.lon, other.lat) / radius_m)
    assert apart < nearest < apart + 0.2


def test_a_model_without_weights_has_no_everyday_events(city):
    none = "[events.weights]\n" + "".join(f'"{c.code}" = 0\n' for c in city.pack.categories)
    assert planned(city, NO_RAIN + none, span()) == ([], [])


def test_a_pack_without_what_storms_bring_has_no_storms(city):
    dry = replace(city.pack, categories=tuple(c for c in city.pack.categories if not c.code.startswith("90")))
    _, storms = planned(SimulatedCity(dry, {}), "", span())
    assert storms == []
