"""What grid workers file of their own accord on their rounds: several things of one kind in a row along a street."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from streams.error_model import ErrorModel
from streams.pack import Category
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity, known, moved
from streams.simulated_events import Event, Span, lasting_ms


@dataclass(frozen=True, slots=True)
class Row:
    """Things of one kind that one worker files, one after the other."""

    category: Category
    start_ms: int
    """When the first is filed."""
    cases: tuple[tuple[float, float, int], ...]
    """Longitude and latitude in WGS-84, and how long after the first, ms."""


def rows(city: SimulatedCity, model: ErrorModel, chance: Chance, span: Span, rate: float) -> Iterator[Row]:
    """The rows of a stretch of time, in order; none begins while no worker is out."""
    rounds = model.patrol.rounds
    weights = {code: rounds.kinds[code] for code in known(rounds.kinds, city.by_code)}
    if not rounds.per_day or not any(weights.values()):
        return
    begin, end = model.patrol.hours
    on_duty = [float(begin <= hour < end) for hour in range(24)]
    for time_ms in span.times(chance, rounds.per_day * rate, on_duty) if any(on_duty) else ():
        category = city.by_code[chance.weighted(weights)]
        lon, lat = city.anywhere(chance)
        bearing, after_ms = chance.between(0, math.tau), 0
        cases = []
        for _ in range(chance.whole(*rounds.cases)):
            if not city.contains(lon, lat):
                break
            cases.append((lon, lat, after_ms))
            away_m = chance.between(*rounds.apart_m)
            lon, lat = moved(lon, lat, away_m * math.sin(bearing), away_m * math.cos(bearing))
            after_ms += round(chance.between(*rounds.apart_s) * 1000)
        yield Row(category, time_ms, tuple(cases))


def events(row: Row, model: ErrorModel, chance: Chance, first: int) -> list[Event]:
    """The events of a row, numbered from ``first`` on; each lasts as any other of its kind."""
    found = []
    for number, (lon, lat, after_ms) in enumerate(row.cases, first):
        start_ms = row.start_ms + after_ms
        end_ms = start_ms + lasting_ms(row.category, model, chance)
        found.append(Event(number, row.category, lon, lat, start_ms, end_ms, end_ms))
    return found
