"""The gazetteer: where a spoken address lies, by the names of places in it.

What a name means is settled by the others beside it:

- **Areas are context.**  The grid's own counties, streets and communities are names, too.  Of the places of a name
  those count that lie in the finest areas named; if none does, those that lie in the street around, or may reach into
  it from another street of the county (twice their accuracy), for people do not see borders.  A place of another county
  is left out.  Of several areas of one name those count that lie in, or around, most of the other areas named.
- **A name that several places share** is told apart by the context.  Where that does not do and they lie close
  together, it means their middle, with an accuracy that covers them all; else it means nothing.
- **The first place named counts**, unless one named after it is more precise and lies where the first may be: of a
  road and a market on it the market, but not a bridge at the other end of the city that is named for comparison.
- **A text that names no place but areas** is placed in the finest of them, unless they contradict one another.

The address is asked first, the text only if the address names no place; an area named in the text is context for the
address if it agrees with those named there.

What cannot be known is not made up.  A road is not a point, and neither a house number nor a second road makes it one:
the accuracy is that of the name.  A crossing is found if it is a place of its own, whichever of its roads is named
first.  Words like 附近 and distances after a name widen its accuracy.  An area's accuracy is the root mean square of
the distances of its points from the point given, so at least three quarters of it lie within twice that.  What would be
vaguer than a message may be is not placed.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from geo.grid import Grid
from geo.place_names import Found, PlaceNames, normalised
from geo.plane import distance_m, metres_per_degree

MAX_NAMES = 2_000_000
"""Names and aliases in all; more are refused."""
MAX_ACCURACY_M = 5_000.0
"""What a message may state at most (one sigma, metres); a name that says less than that says nothing."""
LOOKED_AT = 2_000
"""Characters of an address and of a text that are looked at."""
MOST_NAMED = 32
"""Names in an address or a text that are looked at: the first ones, and at most as many short forms before them."""
SAME_PLACE_M = 250.0
"""Entries of one name that lie no further than this from their middle are one place: the gates of a park."""

_NEAR_M, _BESIDE_M = 100.0, 50.0
_NEAR = re.compile("附近|周边|周围|一带|不远")
_BESIDE = re.compile("旁|对面|斜对|隔壁|前面|后面|背后|边上")
_AWAY = re.compile(r"(\d+(?:\.\d+)?)(?:(米|m)|公里|千米|km)(?![a-z])")
# So many characters after a name, if no other name comes first: "以东大约1.5公里", "，就在马路对面".
_AFTERWARDS = 12

# A place whose name is that of two roads, and how two roads are said to cross.
_MEETING = "的?(?:交叉口|交叉路口|交汇处|交汇口|交口|十字路口|路口|口)"
_CROSSING = re.compile(f"(.+?)(?:[与和](.+?){_MEETING}|&(.+))")
_AND = re.compile("[与和跟同及]?")
_MEET = re.compile(_MEETING)

# Who manages an area is not part of its name: people say 南关村 for 南关村委会.
_OFFICES = (
    (re.compile("(?:社区)?居民?委(?:员)?会$"), "社区"),
    (re.compile("村民?委(?:员)?会$"), "村"),
    (re.compile("街道办(?:事处)?$"), "街道"),
)
_KIND_OF_AREA = re.compile("(?:街道|社区|[区县市旗镇乡村])$")


class Placed(NamedTuple):
    """A position found by a name: degrees WGS-84, one sigma in metres, and the name that gave it, normalised."""

    lon: float
    lat: float
    accuracy_m: float
    name: str


class _Named(NamedTuple):
    """A name found in a text: what it may mean, and what follows it."""

    name: str
    places: Sequence[int]
    """Ascending."""
    areas: Sequence[int]
    """Cells, ascending."""
    after: str


class Gazetteer:
    """Names of places and of the grid's areas, ready to be found in texts.

    Immutable once built, and may be shared by threads; `benchmarks/places.py` says what a million names cost.

    Parameters
    ----------
    grid : Grid
        Every cell whose name is not just its code is a named area.
    names : iterable of iterables of str
        Per place its name and aliases.  Names of one character and mere numbers are never looked for
        (`geo.place_names.is_findable`).
    lon_deg, lat_deg : float64 array_like, shape (n,)
        WGS-84, one a place.  A place outside the grid is known not to lie in the city: its name means nothing.
    accuracy_m : float64 array_like, shape (n,)
        One sigma.
    grid_codes : sequence of (str or None), length n, optional
        The cell that a place is said to lie in, which counts for the context; else the one around its position.

    Raises
    ------
    ValueError
        More than `MAX_NAMES` names of places, or a grid code that is no cell's.
    """

    def __init__(
        self,
        grid: Grid,
        names: Iterable[Iterable[str]],
        lon_deg: ArrayLike,
        lat_deg: ArrayLike,
        accuracy_m: ArrayLike,
        grid_codes: Sequence[str | None] | None = None,
    ) -> None:
        lon, lat = np.asarray(lon_deg, np.float64), np.asarray(lat_deg, np.float64)
        self._grid = grid
        self._around = grid.ancestors.tolist()
        self._county, self._street = (
            grid.levels.index(level) if level in grid.levels else -1 for level in ("county", "street")
        )
        # Places first, then every cell of the grid: a meaning is a number into these.
        self._places = len(lon)
        areas = np.array([cell for cell, name in enumerate(grid.names) if name != grid.codes[cell]], np.int64)
        area_lon, area_lat, area_m = (np.full(len(grid), np.nan) for _ in range(3))
        if len(areas):
            area_lon[areas], area_lat[areas], area_m[areas] = area_extents(grid.geometries[areas])
        self._lon, self._lat = np.concatenate([lon, area_lon]), np.concatenate([lat, area_lat])
        self._accuracy_m = np.concatenate([np.asarray(accuracy_m, np.float64), area_m])
        located = grid.locate(lon, lat)
        self._cell = np.concatenate([_stated(grid, located, grid_codes), np.arange(len(grid), dtype=np.int32)])

        self._index = PlaceNames()
        self._shorts: dict[str, list[int]] = {}
        self._crossings: dict[frozenset[str], list[int]] = {}
        numbers, meanings = array("i"), array("i")
        count = 0
        in_city = (located >= 0).tolist()
        for place, some in enumerate(names):
            for name in some:
                count += 1
                if count > MAX_NAMES:
                    raise ValueError(f"more than {MAX_NAMES:,} names of places")
                number = self._index.add(name)
                if number >= 0 and in_city[place]:
                    numbers.append(number)
                    meanings.append(place)
                    self._note_crossing(name, place)
        for cell in areas.tolist():
            plain, shorts = _names_of_area(grid.names[cell])
            for name in plain:
                number = self._index.add(name)
                if number >= 0:
                    numbers.append(number)
                    meanings.append(self._places + cell)
            for short in shorts:
                self._shorts.setdefault(short, []).append(cell)
        self._short_lengths = sorted({len(name) for name in self._shorts}, reverse=True)
        # By name: what it may mean stands from `_first[name]` to `_first[name + 1]`.
        pairs = np.unique(np.asarray(numbers, np.int64) * len(self._cell) + np.asarray(meanings, np.int64))
        number_of, meaning_of = np.divmod(pairs, max(len(self._cell), 1))
        self._meant = meaning_of.astype(np.int32)
        self._first = np.searchsorted(number_of, np.arange(len(self._index) + 1)).astype(np.int32)

    def _note_crossing(self, name: str, place: int) -> None:
        if "与" in name or "和" in name or "&" in name:
            crossing = _CROSSING.fullmatch(normalised(name))
            if crossing:
                roads = frozenset((crossing[1], crossing[2] or crossing[3]))
                places = self._crossings.setdefault(roads, [])
                if place not in places:
                    places.append(place)

    def __len__(self) -> int:
        """How many names are looked for."""
        return len(self._index)

    def place(self, address: str, text: str) -> Placed | None:
        """Where a ticket lies by its address, then by its text; None where they name nothing that can be placed.

        Looks at the first `LOOKED_AT` characters and `MOST_NAMED` names of each: about 0.1 ms for a ticket.
        """
        in_address, in_text = list(self._named(address)), list(self._named(text))
        if not in_address and not in_text:
            return None
        context = self._context(in_address, in_text)
        for named in (in_address, in_text):
            chosen: Placed | None = None
            for one in named:
                placed = self._place_meant(one, context)
                if placed is not None and (chosen is None or _is_finer(placed, chosen)):
                    chosen = placed
            if chosen is not None:
                return chosen
        return self._area_meant(context, [*in_address, *in_text])

    # --------------------------------------------------------------------------------------------- what is named

    def _named(self, text: str) -> Iterator[_Named]:
        """The names in a text, in order, and the short forms of areas directly before them."""
        plain = normalised(text[:LOOKED_AT])
        found = self._index.find(plain)
        if len(text) > LOOKED_AT:
            # A name at the cut may be the beginning of a longer one.
            found = [one for one in found if one.start + self._index.longest <= len(plain)]
        found = found[:MOST_NAMED]
        before, shorts_left = 0, MOST_NAMED
        for at, one in enumerate(found):
            start, end, number = one
            following = found[at + 1] if at + 1 < len(found) else None
            until = len(plain) if following is None else following.start
            meant = self._meant[self._first[number] : self._first[number + 1]]
            split = int(np.searchsorted(meant, self._places))
            shorts = self._shorts_before(plain, before, start, self._cell[meant], shorts_left)
            shorts_left -= len(shorts)
            yield from shorts
            if following is not None and self._crossings:
                yield from self._crossing(plain, one, following)
            after = plain[end : min(until, end + _AFTERWARDS)]
            yield _Named(plain[start:end], meant[:split].tolist(), (meant[split:] - self._places).tolist(), after)
            before = end

    def _crossing(self, plain: str, one: Found, other: Found) -> Iterator[_Named]:
        """The crossing of two roads named one after the other, if it is a place and that is how crossings are said."""
        between = plain[one.end : other.start]
        meet = _MEET.match(plain, other.end)
        if between == "&" or (meet and _AND.fullmatch(between)):
            places = self._crossings.get(frozenset((plain[one.start : one.end], plain[other.start : other.end])))
            if places:
                end = meet.end() if meet else other.end
                yield _Named(plain[one.start : end], places, [], plain[end : end + _AFTERWARDS])

    def _shorts_before(self, plain: str, low: int, end: int, cells: NDArray[np.int32], most: int) -> list[_Named]:
        """Short forms of areas, at most so many, that end where a name begins, if what the name means may lie in them.

        平定 is 平定县 in 平定冠山镇; alone it is a word like another, as 平坦 (平坦镇), 建设 and 新华 are.
        """
        shorts: list[_Named] = []
        while len(shorts) < most:
            short = self._short_before(plain, low, end, cells)
            if short is None:
                break
            shorts.append(short)
            end -= len(short.name)
            cells = np.array(short.areas, np.int32)
        return shorts

    def _short_before(self, plain: str, low: int, end: int, cells: NDArray[np.int32]) -> _Named | None:
        for length in self._short_lengths:
            if end - length < low:
                continue
            short = plain[end - length : end]
            areas = [area for area in self._shorts.get(short, ()) if self._lie_in(cells, area).any()]
            if areas:
                return _Named(short, [], areas, "")
        return None

    # --------------------------------------------------------------------------------------------------- context

    def _context(self, in_address: Sequence[_Named], in_text: Sequence[_Named]) -> list[int]:
        """The areas named, ascending; those of the text only if they agree with the address."""
        of_address = {area for one in in_address for area in self._agreeing(one.areas, in_address, in_text)}
        of_text = {area for one in in_text for area in self._agreeing(one.areas, in_text, in_address)}
        if not of_address:
            return sorted(of_text)
        return sorted(of_address | {area for area in of_text if any(self._nested(area, one) for one in of_address)})

    def _agreeing(self, areas: Sequence[int], *named: Sequence[_Named]) -> Sequence[int]:
        """Those of the areas of one name that agree with most names beside it, then with most elsewhere."""
        if len(areas) <= 1:
            return areas

        def agreement(area: int) -> list[int]:
            return [
                sum(one.areas != areas and any(self._nested(area, other) for other in one.areas) for one in some)
                for some in named
            ]

        most = max(map(agreement, areas))
        return [area for area in areas if agreement(area) == most]

    def _nested(self, a: int, b: int) -> bool:
        return a in self._around[b] or b in self._around[a]

    def _lie_in(self, cells: NDArray[np.int32], area: int) -> NDArray[np.bool_]:
        """Which of the cells lie in an area, itself among them."""
        lie: NDArray[np.bool_] = self._grid.ancestors[cells, self._grid.level[area]] == area
        return lie

    # -------------------------------------------------------------------------------------------- what is meant

    def _place_meant(self, named: _Named, context: Sequence[int]) -> Placed | None:
        """The place that a name means beside the areas named, if it means one."""
        if not named.places:
            return None
        places = np.array(named.places, np.int64)
        if context:
            places = self._in_context(places, context)
        if not len(places):
            return None
        if len(places) == 1:
            # Most names are one place's, and arithmetic on an array of one costs more than all else here.
            at = int(places[0])
            return _placed(float(self._lon[at]), float(self._lat[at]), float(self._accuracy_m[at]), named)
        lon, lat = float(self._lon[places].mean()), float(self._lat[places].mean())
        spread_m = float(distance_m(lon, lat, self._lon[places], self._lat[places]).max())
        if spread_m > SAME_PLACE_M:
            return None
        return _placed(lon, lat, math.hypot(float(self._accuracy_m[places].max()), spread_m), named)

    def _in_context(self, places: NDArray[np.int64], context: Sequence[int]) -> NDArray[np.int64]:
        """The places in the finest areas named; if there are none, those in the streets around, or reaching them."""
        cells = self._cell[places]
        finest = [area for area in context if not any(area in self._around[one] for one in context if one != area)]
        inside = np.logical_or.reduce([self._lie_in(cells, area) for area in finest])
        if not inside.any():
            inside = np.logical_or.reduce([self._lie_about(places, cells, area) for area in finest])
        return places[inside]

    def _lie_about(self, places: NDArray[np.int64], cells: NDArray[np.int32], area: int) -> NDArray[np.bool_]:
        """Which of the places lie in the street around an area, or reach into it from the same county."""
        if self._street >= 0 and self._around[area][self._street] >= 0:
            area = self._around[area][self._street]
        about = self._lie_in(cells, area)
        if self._grid.level[area] > self._county:
            beside = ~about
            if self._county >= 0:
                of_county = self._grid.ancestors[:, self._county]
                beside &= of_county[cells] == of_county[area]
            for at in np.flatnonzero(beside).tolist():
                about[at] = self._metres_outside(places[at], area) <= 2 * self._accuracy_m[places[at]]
        return about

    def _metres_outside(self, place: int, area: int) -> float:
        """How far a place lies from an area."""
        origin = np.array([self._lon[place], self._lat[place]])
        scale = np.array(metres_per_degree(origin[1]))
        around = shapely.transform(self._grid.geometries[area], lambda points: (points - origin) * scale)
        return float(shapely.distance(around, shapely.Point(0, 0)))

    def _area_meant(self, context: Sequence[int], named: Sequence[_Named]) -> Placed | None:
        """The finest area named that lies in or around all the others: two that lie apart say nothing finer."""
        agreeing = [area for area in context if all(self._nested(area, other) for other in context)]
        if not agreeing:
            return None
        area = max(agreeing, key=lambda area: self._grid.level[area])
        meaning = self._places + area
        one = next(one for one in named if area in one.areas)
        return _placed(float(self._lon[meaning]), float(self._lat[meaning]), float(self._accuracy_m[meaning]), one)


def area_extents(
    geometries: NDArray[np.object_],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A point within each area, and how far the area's points lie from it.

    Parameters
    ----------
    geometries : array of shapely Polygons and MultiPolygons, shape (n,)
        WGS-84, valid, not empty.

    Returns
    -------
    lon_deg, lat_deg, accuracy_m : float64 arrays, shape (n,)
        The centroid where it lies within, else some point that does; the root mean square of the distances of all
        points of the area from it.  By Chebyshev at least three quarters of the area lie within twice that.
    """
    points = shapely.centroid(geometries)
    away = ~shapely.contains(geometries, points)
    points[away] = shapely.point_on_surface(geometries[away])
    lon, lat = shapely.get_x(points), shapely.get_y(points)
    m_lon, m_lat = metres_per_degree(lat)
    # Normalised, the rings of polygons turn one way and those of holes the other: what holes add is subtracted.
    polygons, of_area = shapely.get_parts(shapely.normalize(geometries), return_index=True)
    rings, of_polygon = shapely.get_rings(polygons, return_index=True)
    corners, of_ring = shapely.get_coordinates(rings, return_index=True)
    area = of_area[of_polygon[of_ring]]
    x, y = (corners[:, 0] - lon[area]) * m_lon[area], (corners[:, 1] - lat[area]) * m_lat[area]
    # Over the triangles that the edges span with the point: twice the area, and twelve times the squared distances'
    # integral over it.
    first = np.flatnonzero(of_ring[1:] == of_ring[:-1])
    second = first + 1
    twice_m2 = x[first] * y[second] - x[second] * y[first]
    squares = sum(z[first] ** 2 + z[first] * z[second] + z[second] ** 2 for z in (x, y))
    count = len(geometries)
    integral = np.bincount(area[first], twice_m2 * squares / 12, count)
    accuracy_m: NDArray[np.float64] = np.sqrt(integral / (np.bincount(area[first], twice_m2, count) / 2))
    return lon, lat, accuracy_m


def _stated(grid: Grid, located: NDArray[np.int32], codes: Sequence[str | None] | None) -> NDArray[np.int32]:
    """The cell of each place: the one stated, or a finer one in it around the position."""
    if codes is None:
        return located
    try:
        stated = np.array([-1 if code is None else grid.index_of_code[code] for code in codes], np.int32)
    except KeyError as error:
        raise ValueError(f"grid code {error.args[0]!r} is no cell of the grid") from error
    lies_in = grid.ancestors[located, grid.level[stated]] == stated
    return np.where((stated < 0) | ((located >= 0) & lies_in), located, stated)


def _names_of_area(name: str) -> tuple[list[str], list[str]]:
    """What people call an area, normalised: what means it wherever it stands, and what only does before a name in it.

    A name that has lost its kind (平定, 建设) is too often another word, and so is one of two characters (城区, 东村).

    >>> _names_of_area("南关村民委员会"), _names_of_area("平定县"), _names_of_area("城区")
    ((['南关村民委员会', '南关村'], ['南关']), (['平定县'], ['平定']), ([], ['城区']))
    """
    forms = [name]
    for office, kind in _OFFICES:
        if office.search(name):
            forms.append(office.sub(kind, name))
            break
    whole = [normalised(form) for form in forms]
    plain = [form for form in whole if len(form) >= 3 or form.endswith("县")]
    shorts = [*whole, _KIND_OF_AREA.sub("", whole[-1])]
    return plain, [form for form in dict.fromkeys(shorts) if form not in plain and len(form) >= 2]


def _placed(lon: float, lat: float, accuracy_m: float, named: _Named) -> Placed | None:
    """A position as vague as what follows the name makes it; None if it is too vague to be stated."""
    accuracy_m = math.hypot(accuracy_m, _widening_m(named.after))
    return Placed(lon, lat, accuracy_m, named.name) if accuracy_m <= MAX_ACCURACY_M else None


def _widening_m(after: str) -> float:
    away = _AWAY.search(after)
    if away:
        return float(away[1]) * (1 if away[2] else 1000)
    if _NEAR.search(after):
        return _NEAR_M
    return _BESIDE_M if _BESIDE.search(after) else 0.0


def _is_finer(placed: Placed, than: Placed) -> bool:
    """Whether a place is more precise than another, and where that may be: within twice its accuracy."""
    if placed.accuracy_m >= than.accuracy_m:
        return False
    return float(distance_m(placed.lon, placed.lat, than.lon, than.lat)) <= 2 * than.accuracy_m
