"""What happens in a simulated city, whoever reports it: everyday events by hour and day, and rain storms."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, tzinfo

import numpy as np

from geo.plane import metres_per_degree
from streams.error_model import ErrorModel, StormModel
from streams.pack import Category, Device
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity, known, metres, moved, within

_TRIES = 50
_SHORTEST_S = 300.0
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Span:
    """The stretch of time that is simulated."""

    start_ms: int
    end_ms: int
    """Exclusive."""
    zone: tzinfo
    """Local time, which the hours of the day go by."""
    holidays: Mapping[date, str]

    @property
    def days(self) -> float:
        """How long it is, in days."""
        return (self.end_ms - self.start_ms) / 86_400_000

    def local(self, time_ms: int) -> datetime:
        """A moment in local time."""
        return datetime.fromtimestamp(time_ms / 1000, self.zone)

    def slots(self) -> list[tuple[int, int]]:
        """Its hours, the first and the last cut off: from, to, Unix ms."""
        slots: list[tuple[int, int]] = []
        at = self.start_ms
        while at < self.end_ms:
            until = min((at // _HOUR_MS + 1) * _HOUR_MS, self.end_ms)
            slots.append((at, until))
            at = until
        return slots

    def is_day_off(self, time_ms: int) -> bool:
        """Saturday, Sunday or a holiday, and no make-up working day."""
        day = self.local(time_ms).date()
        kind = self.holidays.get(day)
        return kind == "holiday" or (kind is None and day.weekday() >= 5)

    def times(self, chance: Chance, per_day: float, hours: Sequence[float]) -> list[int]:
        """Moments of a Poisson process that follows the hours of the day, ascending."""
        times: list[int] = []
        for begin, until in self.slots():
            share = hours[self.local(begin).hour] / sum(hours)
            times += _moments(chance, chance.count(per_day * share * (until - begin) / _HOUR_MS), begin, until)
        return times


def _moments(chance: Chance, count: int, begin_ms: int, until_ms: int) -> list[int]:
    moments: list[int] = np.sort(chance.rng.integers(begin_ms, until_ms, count)).tolist()
    return moments


@dataclass(frozen=True, slots=True)
class Storm:
    """Rain over a circle of the city."""

    start_ms: int
    end_ms: int
    """When the rain stops; after it the water drains."""
    dry_ms: int
    """When the last of it is gone."""
    lon: float
    lat: float
    radius_m: float

    def wetness(self, time_ms: int) -> float:
        """How much water stands where it rains, 0 (as always) to 1: rises for the first half, falls when it is over."""
        if not self.start_ms < time_ms < self.dry_ms:
            return 0.0
        rising = (time_ms - self.start_ms) / (self.end_ms - self.start_ms) * 2
        falling = (self.dry_ms - time_ms) / (self.dry_ms - self.end_ms)
        return min(1.0, rising, falling)

    def covers(self, lon: float, lat: float) -> bool:
        """Whether it rains there."""
        return metres(lon, lat, self.lon, self.lat) <= self.radius_m


@dataclass(slots=True, eq=False)
class Event:
    """Something that happens at a place for a while."""

    number: int
    category: Category
    lon: float
    lat: float
    start_ms: int
    end_ms: int
    holds_its_place_until_ms: int
    """Until then no other event of its group comes too near."""
    crowd: float = 1.0
    """How many times more people report it than usual."""
    extent_m: float = 0.0
    repaired_ms: int | None = None
    """Since when nobody can see it any more, for somebody has put it right."""

    @property
    def cluster_id(self) -> str:
        """Its name in the truth."""
        return f"e{self.number:06d}"

    def is_repaired(self, time_ms: int) -> bool:
        """Whether it has been put right before that moment."""
        return self.repaired_ms is not None and time_ms > self.repaired_ms


def lasting_ms(category: Category, model: ErrorModel, chance: Chance) -> int:
    """How long an everyday event of a category can be seen."""
    lasts_s = chance.wait_ms(model.events.lasting_windows * category.window_s) / 1000
    return round(min(max(lasts_s, _SHORTEST_S), model.events.lasting_max_s) * 1000)


@dataclass(frozen=True, slots=True)
class Planned:
    """Something that is to happen; its place is found when its time has come."""

    start_ms: int
    category: Category
    storm: Storm | None = None


def plan(
    city: SimulatedCity, model: ErrorModel, chance: Chance, span: Span, rate: float
) -> tuple[list[Planned], list[Storm]]:
    """When something of which category starts, in order of time, what storms bring among it; and the storms."""
    planned = _everyday(city, model, chance, span, rate)
    storms = _storms(city, model.storm, chance, span)
    weights = {code: model.storm.categories[code] for code in known(model.storm.categories, city.by_code)}
    for storm in storms:
        for _ in range(round(chance.whole(*model.storm.events) * rate)):
            category = city.by_code[chance.weighted(weights)]
            planned.append(Planned(round(chance.between(storm.start_ms, storm.end_ms)), category, storm))
    planned.sort(key=lambda one: one.start_ms)
    return planned, storms


def _everyday(city: SimulatedCity, model: ErrorModel, chance: Chance, span: Span, rate: float) -> list[Planned]:
    events = model.events
    categories = [category for category in city.pack.categories if category.event]
    weights = np.array([events.weights.get(category.code, 1.0) for category in categories])
    if not weights.sum() > 0:
        return []
    curves = [_curve(model, category) for category in categories]
    # Shape (categories, 24): how much of a working day's events are of a category in an hour.
    hourly = np.array([[hour / sum(curve) for hour in curve] for curve in curves]) * (weights / weights.sum())[:, None]
    off = np.array([events.day_off_of.get(category.code, events.day_off) for category in categories])
    planned: list[Planned] = []
    for begin, until in span.slots():
        expected = hourly[:, span.local(begin).hour] * events.per_day * rate * (until - begin) / _HOUR_MS
        counts = chance.rng.poisson(expected * off if span.is_day_off(begin) else expected)
        for at in np.flatnonzero(counts).tolist():
            planned += [Planned(time_ms, categories[at]) for time_ms in _moments(chance, int(counts[at]), begin, until)]
    return planned


def _curve(model: ErrorModel, category: Category) -> Sequence[float]:
    name = model.events.curve_of.get(category.code)
    return model.events.hours if name is None else model.events.curves[name]


def _storms(city: SimulatedCity, model: StormModel, chance: Chance, span: Span) -> list[Storm]:
    if not model.per_day or not any(model.categories[code] for code in known(model.categories, city.by_code)):
        return []
    count = max(1, round(model.per_day * span.days))
    each_ms = (span.end_ms - span.start_ms) / count
    storms: list[Storm] = []
    for number in range(count):
        # Early enough in its part of the time for most of it to be seen before the end.
        start_ms = span.start_ms + round((number + chance.between(0.05, 0.75)) * each_ms)
        end_ms = start_ms + round(model.lasts_s * 1000)
        dry_ms = end_ms + round(model.drains_s * 1000)
        storms.append(Storm(start_ms, end_ms, dry_ms, *city.anywhere(chance), chance.between(*model.radius_m)))
    return storms


class Sites:
    """Finds places for events: apart from those that still hold theirs."""

    def __init__(self, city: SimulatedCity, model: ErrorModel, chance: Chance) -> None:
        self._city = city
        self._model = model
        self._chance = chance
        self._standing: dict[str, _Standing] = {}
        self._spots: defaultdict[int, list[Event]] = defaultdict(list)
        self._widest_m: defaultdict[str, float] = defaultdict(float)
        for category in city.pack.categories:
            self._widest_m[category.group] = max(self._widest_m[category.group], category.radius_m)

    def settle(self, planned: Planned, number: int) -> Event | None:
        """The event, with a place and an end; None where the city is full of its kind."""
        category, storm = planned.category, planned.storm
        standing = self._standing_of(category)
        if storm is None:
            apart_m, crowd, extent_m = None, 1.0, 0.0
            end_ms = planned.start_ms + lasting_ms(category, self._model, self._chance)
        else:
            apart_m, crowd = self._model.storm.apart_m[0], self._model.storm.crowd
            extent_m = self._chance.between(*self._model.storm.extent_m)
            end_ms = storm.end_ms + round(self._chance.between(0.3, 1.0) * (storm.dry_ms - storm.end_ms))
            end_ms = max(end_ms, planned.start_ms + round(_SHORTEST_S * 1000))
        for _ in range(_TRIES):
            lon, lat = self._somewhere(category) if storm is None else self._somewhere_in(storm, category)
            if self._city.contains(lon, lat) and standing.is_apart(lon, lat, category, planned.start_ms, apart_m):
                until_ms = end_ms + round(self._model.events.apart_windows * category.window_s * 1000)
                event = Event(number, category, lon, lat, planned.start_ms, end_ms, until_ms, crowd, extent_m)
                standing.add(event)
                if storm is not None:
                    self._spots[storm.start_ms].append(event)
                return event
        return None

    def _standing_of(self, category: Category) -> _Standing:
        group = category.group
        if group not in self._standing:
            apart = self._model.events.apart_radii
            reach_m = max(self._widest_m[group] * apart, self._model.storm.apart_m[0])
            self._standing[group] = _Standing(apart, reach_m, self._city.pack.grid.bounds)
        return self._standing[group]

    def _somewhere(self, category: Category) -> tuple[float, float]:
        sensors = self._city.sensors_of.get(category.code)
        if sensors and self._chance.happens(self._model.iot.at_device):
            return self._at(self._chance.pick(sensors))
        events, places = self._model.events, self._city.pack.places
        if places and self._chance.happens(events.near_place):
            place = self._chance.pick(places)
            return moved(place.lon, place.lat, *self._chance.offset(events.near_place_m))
        return self._city.anywhere(self._chance)

    def _somewhere_in(self, storm: Storm, category: Category) -> tuple[float, float]:
        spots = self._spots[storm.start_ms]
        if spots and self._chance.happens(self._model.storm.beside):
            beside = self._chance.pick(spots)
            bearing, away_m = self._chance.between(0, math.tau), self._chance.between(*self._model.storm.apart_m)
            return moved(beside.lon, beside.lat, away_m * math.sin(bearing), away_m * math.cos(bearing))
        sensors = within(self._city.sensors_of.get(category.code, []), storm.lon, storm.lat, storm.radius_m)
        if sensors and self._chance.happens(self._model.iot.at_device):
            return self._at(self._chance.pick(sensors))
        bearing = self._chance.between(0, math.tau)
        away_m = storm.radius_m * math.sqrt(self._chance.between(0, 1))
        return moved(storm.lon, storm.lat, away_m * math.sin(bearing), away_m * math.cos(bearing))

    def _at(self, sensor: Device) -> tuple[float, float]:
        return moved(sensor.lon, sensor.lat, *self._chance.offset(4.0))


class _Standing:
    """The events of one group that hold their place, by square: a full city is searched as fast as an empty one."""

    def __init__(self, apart_radii: float, reach_m: float, bounds: tuple[float, float, float, float]) -> None:
        self._apart_radii = apart_radii
        _, south, _, north = bounds
        # Squares at least as wide as the largest distance that is asked for, wherever in the city.
        m_lon, m_lat = metres_per_degree(max(south, north, key=abs))
        self._width_deg = max(reach_m, 1.0) * 1.01 / float(m_lon)
        self._height_deg = max(reach_m, 1.0) * 1.01 / float(m_lat)
        self._events: defaultdict[tuple[int, int], list[Event]] = defaultdict(list)

    def _square(self, lon: float, lat: float) -> tuple[int, int]:
        return math.floor(lon / self._width_deg), math.floor(lat / self._height_deg)

    def add(self, event: Event) -> None:
        self._events[self._square(event.lon, event.lat)].append(event)

    def is_apart(self, lon: float, lat: float, category: Category, time_ms: int, apart_m: float | None) -> bool:
        """Whether no event holds a place too near: ``apart_m``, or the radii of both; forgets those that are gone."""
        column, row = self._square(lon, lat)
        for square in ((column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            if square not in self._events:
                continue
            here = [event for event in self._events[square] if event.holds_its_place_until_ms >= time_ms]
            self._events[square] = here
            for event in here:
                radius_m = max(category.radius_m, event.category.radius_m)
                least_m = self._apart_radii * radius_m if apart_m is None else apart_m
                if metres(lon, lat, event.lon, event.lat) <= least_m:
                    return False
        return True
