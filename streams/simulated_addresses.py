"""Addresses as callers say them: by names of places, with all that people put around, into and in place of them."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from geo.plane import distance_m
from streams.error_model import SpokenModel
from streams.pack_entries import Place, Places
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity

_ROAD = re.compile("(路|街|大道|巷|道)$")
_BESIDE = ("附近", "对面", "旁边", "门口", "斜对面", "隔壁", "后面", "前面一点")
_NOWHERE_KNOWN = ("老供销社后面", "以前的粮站那里", "我家楼下", "大槐树底下", "三号院那个路口", "新开的超市门口")
_NUMERALS = "零一二三四五六七八九"
_FULL_WIDTH = {ord(sign): ord(sign) + 0xFEE0 for sign in map(chr, range(0x21, 0x7F))}
_MOST_SAID = 3
"""People name one of the few nearest places."""


class SpokenAddresses:
    """Says where something is, by the pack's places and the grid's names."""

    def __init__(self, city: SimulatedCity, model: SpokenModel) -> None:
        self._city = city
        self._model = model
        places = city.pack.places
        is_road = np.array([bool(_ROAD.search(name)) for name in places.names], np.bool_)
        self._roads = _Nearest(places, np.flatnonzero(is_road))
        self._spots = _Nearest(places, np.flatnonzero(~is_road))

    def address(self, lon: float, lat: float, chance: Chance) -> tuple[str, tuple[str, ...]]:
        """An address for a point (degrees, WGS-84), empty where the pack names nothing; and what is wrong with it."""
        model = self._model
        if not len(self._roads) and not len(self._spots):
            return "", ()
        if chance.happens(model.unknown):
            return chance.pick(_NOWHERE_KNOWN), ("unknown_place",)
        name, errors = self._name(lon, lat, chance)
        if chance.happens(model.misheard):
            name, errors = _misheard(name, chance), (*errors, "misheard")
        if chance.happens(model.area_first):
            name = self._areas(lon, lat, chance) + name
        if chance.happens(model.beside):
            name += chance.pick(_BESIDE)
        if chance.happens(model.full_width):
            name = name.translate(_FULL_WIDTH)
        return name, errors

    def _name(self, lon: float, lat: float, chance: Chance) -> tuple[str, tuple[str, ...]]:
        model, roads = self._model, self._roads
        if len(roads) and chance.happens(model.road_only):
            return roads.to(lon, lat, 1)[0].name, ("road_only",)
        if len(roads) and chance.happens(model.house_number):
            number = chance.whole(1, 199)
            written = numeral(number) if chance.happens(model.in_numerals) else str(number)
            return f"{roads.to(lon, lat, 1)[0].name}{written}号", ("road_only",)
        place = chance.pick((self._spots if len(self._spots) else roads).to(lon, lat, _MOST_SAID))
        if place.aliases and chance.happens(model.alias):
            return chance.pick(place.aliases), ()
        return place.name, ()

    def _areas(self, lon: float, lat: float, chance: Chance) -> str:
        """The county, the street, or both, as far as they have names."""
        grid = self._city.pack.grid
        outer = [grid.names[cell] or "" for cell in reversed(self._city.cells_around(lon, lat))][:2]
        return "".join(outer) if chance.happens(0.3) else chance.pick(outer) if outer else ""


class _Nearest:
    """Finds the nearest of some places."""

    def __init__(self, places: Places, of: npt.NDArray[np.int64]) -> None:
        self._places = places
        self._of = of
        self._lon, self._lat = places.lon[of], places.lat[of]

    def __len__(self) -> int:
        return len(self._of)

    def to(self, lon: float, lat: float, count: int) -> list[Place]:
        away_m = distance_m(lon, lat, self._lon, self._lat)
        return [self._places[at] for at in self._of[np.argsort(away_m, kind="stable")[:count]].tolist()]


def numeral(number: int) -> str:
    """A number of 1 to 199 as it is said.

    >>> numeral(7), numeral(10), numeral(12), numeral(40), numeral(105), numeral(118)
    ('七', '十', '十二', '四十', '一百零五', '一百一十八')
    """
    hundreds, rest = divmod(number, 100)
    tens, ones = divmod(rest, 10)
    text = f"{_NUMERALS[hundreds]}百" if hundreds else ""
    if tens:
        text += ("" if tens == 1 and not hundreds else _NUMERALS[tens]) + "十"
    elif hundreds and ones:
        text += "零"
    return text + (_NUMERALS[ones] if ones else "")


def _misheard(name: str, chance: Chance) -> str:
    """Two signs the wrong way round, the way names are mistyped."""
    at = chance.whole(0, max(len(name) - 2, 0))
    return name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
