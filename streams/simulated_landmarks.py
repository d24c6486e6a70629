"""What people name a place by, and no list of places knows: shop fronts, gates, bus stops, lamp-posts."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from geo.plane import metres_per_degree
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity
from streams.simulated_words import LandmarkKind

_STREAM = 0x1A4D
"""Sets the landmarks' chance apart from all other chance of the same seed."""
_REMEMBERED = 1 << 16
_MIDDLE = 1 << 31
"""Keeps squares west and south of zero over zero, as a seed must be."""


@dataclass(frozen=True, slots=True)
class Landmark:
    """Something with a name, at a point (degrees, WGS-84)."""

    forms: tuple[str, ...]
    """What it is called, as on its sign first; ``{n}`` stands for its number."""
    number: int | None
    at: tuple[str, ...]
    """What a place beside it is called."""
    lon: float
    lat: float


class Landmarks:
    """One landmark in each square of a lattice over the city, somewhere in it.

    Nothing is stored but the last squares asked for: a landmark is a function of the seed and its square, so a city of
    any size costs nothing, and the order of the questions changes no answer.
    """

    def __init__(
        self, city: SimulatedCity, kinds: Sequence[LandmarkKind], seed: int, *, spacing_m: float, jitter: float
    ) -> None:
        """Squares are ``spacing_m`` (over 0) wide; ``jitter`` (0 to 1) is how much of its square a landmark may use.

        Lattices of other spacings are other landmarks.
        """
        self._spacing_m = spacing_m
        self._jitter = jitter
        self._kinds = kinds
        self._weights = {str(number): kind.weight for number, kind in enumerate(kinds)}
        self._seed = seed, _STREAM, round(spacing_m * 1000)
        _, south, _, north = city.pack.grid.bounds
        m_lon, m_lat = metres_per_degree((south + north) / 2)
        self._m_lon, self._m_lat = float(m_lon), float(m_lat)
        self._in_square = functools.lru_cache(maxsize=_REMEMBERED)(self._drawn)

    def nearest(self, lon: float, lat: float, count: int) -> list[Landmark]:
        """The ``count`` (1 to 3) landmarks nearest to a point, the nearest first; degrees, WGS-84.

        Exact on the lattice's plane: the point's square and its two nearest neighbours hold three within 1.81 squares,
        and whatever is nearer than two squares lies in the 25 that are looked at.
        """
        east_m, north_m = lon * self._m_lon, lat * self._m_lat
        column, row = math.floor(east_m / self._spacing_m), math.floor(north_m / self._spacing_m)
        here = [self._in_square(column + i, row + j) for i in range(-2, 3) for j in range(-2, 3)]
        here.sort(key=lambda one: math.hypot(one.lon * self._m_lon - east_m, one.lat * self._m_lat - north_m))
        return here[:count]

    def _drawn(self, column: int, row: int) -> Landmark:
        chance = Chance(*self._seed, column + _MIDDLE, row + _MIDDLE)
        east = column + 0.5 + self._jitter * chance.between(-0.5, 0.5)
        north = row + 0.5 + self._jitter * chance.between(-0.5, 0.5)
        kind = self._kinds[int(chance.weighted(self._weights))]
        forms = chance.pick(kind.names)
        if kind.first:
            first = chance.pick(kind.first)
            forms = (first + forms[0], *forms, *(first + form for form in forms[1:]))
        number = None if kind.numbers is None else chance.whole(*kind.numbers)
        lon, lat = east * self._spacing_m / self._m_lon, north * self._spacing_m / self._m_lat
        return Landmark(forms, number, kind.at, lon, lat)
