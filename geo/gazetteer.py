"""The gazetteer: where a spoken address lies, by the names of places in it.

Names and texts are brought to one form (`normalised`), then every name in a text is found in one pass; where names
overlap the leftmost counts, and of those that begin together the longest, so that the crossing of two roads is not
taken for one of them.  What a name means is settled by the others beside it:

- the names of counties, streets and communities are context, and places outside of what they name are left out;
- a name that several places share is told apart by context; where that does not do, and they lie close together, it
  means their middle, with an accuracy that covers them; else it means nothing;
- of several places the most precise counts, then the first;
- of a text that names no place but an area, the finest area counts, unless it is coarser than a message may be.

The address is asked first, the text only if the address names no place; areas named in either are context for both.
A road is not a point, and neither a house number nor a shop beside it makes it one: the accuracy is that of the name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import ahocorasick
import numpy as np
import shapely
from numpy.typing import ArrayLike

from geo.grid import Grid
from geo.plane import distance_m, metres_per_degree

MAX_NAMES = 2_000_000
"""Names and aliases in all; more are refused, for each takes some 400 bytes."""
MAX_ACCURACY_M = 5_000.0
"""What a message may state at most (one sigma, metres); a name that says less than that says nothing."""
LOOKED_AT = 2_000
"""Characters of an address and of a text that are looked at."""
SAME_NEIGHBOURHOOD_M = 1_000.0
"""Places of one name that lie no further than this from their middle are one place seen from afar."""
BESIDE_M = 50.0
"""How much less is known of the place of what lies beside, opposite or near a name."""

_BESIDE = re.compile("附近|对面|旁|周边|一带|斜对|隔壁|前面|后面")
_BESIDE_WITHIN = 6
# Not a name's: what people put between names, and what they put into one without meaning it.
_BREAKS = re.compile(r"[，。；！？、：,.;!?:|/\\]+")
_FILLERS = re.compile(r"[\s·•\-—–_'\"“”‘’()（）\[\]【】《》<>]+")
_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_COUNTED = re.compile("([零〇一二两三四五六七八九十百]+)(?=号|弄|栋|幢|座|单元|楼|层|室|组|期|队|中|小)")


def normalised(text: str) -> str:
    """Names and texts in one form.

    Full-width forms as plain ones, Latin letters small, fillers left out, marks between names as a line end, and a
    number that counts houses, floors or the like in digits.

    >>> normalised("鼓楼路 十二号，（Ａ座）"), normalised("三里屯二〇三室")
    ('鼓楼路12号\\na座', '三里屯203室')
    """
    plain = _FILLERS.sub("", unicodedata.normalize("NFKC", text).lower())
    return _COUNTED.sub(lambda number: _number(number[1]), _BREAKS.sub("\n", plain)).strip("\n")


def _number(numeral: str) -> str:
    """A Chinese numeral below a thousand in digits; one that is spelt digit by digit, too."""
    if not re.search("[十百]", numeral):
        return "".join(str(_DIGITS[digit]) for digit in numeral)
    total, last = 0, 1 if numeral[0] in "十百" else 0
    for sign in numeral:
        if sign in _DIGITS:
            last = _DIGITS[sign]
        else:
            total, last = total + max(last, 1) * (10 if sign == "十" else 100), 0
    return str(total + last)


class Placed(NamedTuple):
    """A position found by a name: degrees WGS-84, one sigma in metres, and the name that gave it."""

    lon: float
    lat: float
    accuracy_m: float
    name: str


class _Named(NamedTuple):
    """A name found in a text: its number, and what follows it."""

    name: int
    after: str


class Gazetteer:
    """Names of places and of the grid's own counties, streets and communities, ready to be found in texts.

    Immutable once built, and may be shared by threads.  A million names take seconds and some 400 MB.

    Parameters
    ----------
    grid : Grid
        Its cells of all levels but the innermost are named areas.
    names : sequence of sequences of str
        Per place its name and aliases.
    lon_deg, lat_deg : float64 array_like, shape (n,)
        WGS-84, one a place.
    accuracy_m : float64 array_like, shape (n,)
        One sigma.

    Raises
    ------
    ValueError
        More than `MAX_NAMES` names.
    """

    def __init__(
        self, grid: Grid, names: Sequence[Sequence[str]], lon_deg: ArrayLike, lat_deg: ArrayLike, accuracy_m: ArrayLike
    ) -> None:
        count = sum(map(len, names))
        if count > MAX_NAMES:
            raise ValueError(f"{count:,} names of places; at most {MAX_NAMES:,} are taken")
        areas = [cell for cell in range(len(grid)) if grid.level[cell] < len(grid.levels) - 1 and grid.names[cell]]
        area_lon, area_lat, area_m = _extents(grid, areas)
        place_lon, place_lat = np.asarray(lon_deg, np.float64), np.asarray(lat_deg, np.float64)
        # Places first, then areas; a place or area is a number into these.
        self._lon = np.concatenate([place_lon, area_lon])
        self._lat = np.concatenate([place_lat, area_lat])
        self._accuracy_m = np.concatenate([np.asarray(accuracy_m, np.float64), area_m])
        self._places = len(place_lon)
        cells = np.concatenate([grid.locate(place_lon, place_lat), np.asarray(areas, np.int32)]).astype(np.int32)
        self._cell = cells
        self._within = grid.ancestors  # (cell, level): the cells around a cell, itself among them
        self._names: list[str] = []
        self._meant: list[list[int]] = []
        numbers: dict[str, int] = {}
        self._automaton: Any = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        of_area = [[grid.names[cell]] for cell in areas]
        for number, some in enumerate([*names, *of_area]):
            for name in some:
                plain = normalised(name)
                if not plain:
                    continue
                at = numbers.setdefault(plain, len(numbers))
                if at == len(self._names):
                    self._names.append(name)
                    self._meant.append([])
                    self._automaton.add_word(plain, at)
                if number not in self._meant[at]:
                    self._meant[at].append(number)
        if numbers:
            self._automaton.make_automaton()

    def place(self, address: str, text: str) -> Placed | None:
        """Where a ticket lies by its address, then by its text; None where they name no place that is known.

        Looks at the first `LOOKED_AT` characters of each: about ten microseconds for a short ticket.
        """
        if not self._names:
            return None
        named = [self._find(address), self._find(text)]
        areas = {meant for some in named for one in some for meant in self._meant[one.name] if meant >= self._places}
        context = {int(self._cell[area]) for area in areas}
        for some in named:
            found = [placed for one in some if (placed := self._meaning(one, context)) is not None]
            if found:
                return min(found, key=lambda placed: placed.accuracy_m)
        return self._finest(areas, context)

    def _find(self, text: str) -> list[_Named]:
        plain = normalised(text[:LOOKED_AT])
        return [
            _Named(name, plain[end + 1 : end + 1 + _BESIDE_WITHIN]) for end, name in self._automaton.iter_long(plain)
        ]

    def _meaning(self, named: _Named, context: set[int]) -> Placed | None:
        """The place that a name means beside the areas named, if it means one."""
        places = [
            place
            for place in self._meant[named.name]
            if place < self._places and (not context or self._is_within(place, context))
        ]
        if not places:
            return None
        lon, lat = float(self._lon[places].mean()), float(self._lat[places].mean())
        accuracy_m = float(self._accuracy_m[places].max())
        if len(places) > 1:
            spread_m = float(distance_m(lon, lat, self._lon[places], self._lat[places]).max())
            if spread_m > SAME_NEIGHBOURHOOD_M:
                return None
            accuracy_m = float(np.hypot(accuracy_m, spread_m))
        if _BESIDE.search(named.after):
            accuracy_m = float(np.hypot(accuracy_m, BESIDE_M))
        return Placed(lon, lat, min(accuracy_m, MAX_ACCURACY_M), self._names[named.name])

    def _is_within(self, place: int, context: set[int]) -> bool:
        """Whether a place lies in the finest of the areas named, or the areas named lie around it."""
        cell = self._cell[place]
        around = set(self._within[cell].tolist()) if cell >= 0 else set()
        finest = [area for area in context if not any(self._lies_in(other, area) for other in context - {area})]
        return any(area in around for area in finest)

    def _lies_in(self, cell: int, area: int) -> bool:
        return area in self._within[cell]

    def _finest(self, areas: set[int], context: set[int]) -> Placed | None:
        """The finest area named that lies in all the coarser ones, unless two say different things."""
        usable = [area for area in sorted(areas) if self._accuracy_m[area] <= MAX_ACCURACY_M]
        innermost = [
            area
            for area in usable
            if not any(self._lies_in(other, int(self._cell[area])) for other in context - {int(self._cell[area])})
        ]
        # Where areas of one name lie in different counties, the county named beside them decides.
        ranked = [(len(context & set(self._within[self._cell[area]].tolist())), area) for area in innermost]
        best = [area for rank, area in ranked if rank == max(rank for rank, _ in ranked)]
        if len(best) != 1:
            return None
        (area,) = best
        name = next(self._names[at] for at, meant in enumerate(self._meant) if area in meant)
        return Placed(float(self._lon[area]), float(self._lat[area]), float(self._accuracy_m[area]), name)


def _extents(grid: Grid, cells: Sequence[int]) -> tuple[Any, Any, Any]:
    """A point within each cell, and the radius of the circle as large as it."""
    geometries = grid.geometries[np.asarray(cells, np.int64)]
    points = shapely.point_on_surface(geometries)
    lon, lat = shapely.get_x(points), shapely.get_y(points)
    m_lon, m_lat = metres_per_degree(lat)
    return lon, lat, np.sqrt(shapely.area(geometries) * m_lon * m_lat / np.pi)
