"""Reads how a catalogue weighs evidence: ``[match]`` for all categories, ``[category.match]`` over it for one.

What neither says holds as follows, for a pack that nobody has fitted yet: no ``prior`` (whatever lies within radius and
window is joined, the best first); ``spread_m`` three tenths of the radius; ``alike_km2`` one in a circle of that
radius; ``decay_s`` and ``same_place_window_s`` the window, ``same_place_decay_s`` that one; ``same_place_m`` 2,
``same_place`` 50; ``gap_percent``, ``text_percent`` and ``rival_percent`` 100, ``rhythm_percent`` and ``busy_percent``
0; ``unrelated`` 0.3; ``reopening`` 0; ``sigmas`` 1; ``rethink`` 50, ``rethink_s`` 0; no ``pairs``, a table of points by
founding and joining source, ``patrol-patrol = -300``, and no ``again``, one by source, ``hotline = 100``.
"""

from __future__ import annotations

import math

from streams.messages import SOURCES
from streams.pack_entries import ACCURACY_MAX_M, YEAR_S, Match
from streams.toml_tables import TomlTable, shown

POINTS_MAX = 3000
"""The most that points may be, either way."""


def read_match(common: TomlTable | None, own: TomlTable | None, radius_m: float, window_s: float) -> Match | None:
    """What holds for a category of that radius and window; None if its own table has a fault."""
    read = _Layered(common, own)
    # In a circle without a radius there is no other.
    alike_km2 = 1e6 / (math.pi * max(radius_m, 1.0) ** 2)
    same_place_window_s = read.number("same_place_window_s", window_s, 0, YEAR_S)
    match = Match(
        prior=read.points("prior", None),
        spread_m=read.number("spread_m", 0.3 * radius_m, 0, ACCURACY_MAX_M),
        alike_km2=read.number("alike_km2", alike_km2, 1e-6, 1e6),
        decay_s=read.number("decay_s", max(window_s, 1.0), 1, YEAR_S),
        same_place_m=read.number("same_place_m", 2.0, 0, ACCURACY_MAX_M),
        same_place=read.points("same_place", 50) or 0,
        same_place_window_s=same_place_window_s,
        same_place_decay_s=read.number("same_place_decay_s", max(same_place_window_s, 1.0), 1, YEAR_S),
        text_percent=read.percent("text_percent", 100),
        busy_percent=read.percent("busy_percent", 0),
        rival_percent=read.percent("rival_percent", 100),
        gap_percent=read.percent("gap_percent", 100),
        rhythm_percent=read.percent("rhythm_percent", 0),
        unrelated=read.number("unrelated", 0.3, 0, 1),
        reopening=read.points("reopening", 0) or 0,
        sigmas=read.whole("sigmas", 1, 1, 5),
        rethink=read.points("rethink", 50) or 0,
        rethink_s=read.number("rethink_s", 0, 0, YEAR_S),
        pairs=_read_pairs(common) | _read_pairs(own),
        again=_read_again(common) | _read_again(own),
    )
    if own is None:
        return match
    own.warn_of_unknown_keys()
    return match if own.sound else None


class _Layered:
    """Values of a table, or of the one beneath it."""

    def __init__(self, common: TomlTable | None, own: TomlTable | None) -> None:
        self._layers = [table for table in (common, own) if table is not None]

    def number(self, key: str, default: float, low: float, high: float) -> float:
        for table in self._layers:
            default = table.number(key, default, low, high) or 0.0 if key in table.values else default
        return default

    def points(self, key: str, default: int | None) -> int | None:
        for table in self._layers:
            if key in table.values:
                default = table.whole(key, default or 0, -POINTS_MAX, POINTS_MAX)
        return default

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        for table in self._layers:
            default = table.whole(key, default, low, high)
        return default

    def percent(self, key: str, default: int) -> int:
        return self.whole(key, default, 0, 1000)


def _read_pairs(table: TomlTable | None) -> dict[tuple[str, str], int]:
    pairs = None if table is None else table.table("pairs")
    if table is None or pairs is None:
        return {}
    found: dict[tuple[str, str], int] = {}
    for key in pairs.values:
        one, _, other = key.partition("-")
        if one not in SOURCES or other not in SOURCES:
            pairs.fault(key, f"{shown(key)} is no pair of sources as hotline-patrol")
            continue
        found[one, other] = pairs.whole(key, 0, -POINTS_MAX, POINTS_MAX)
    table.sound &= pairs.sound
    return found


def _read_again(table: TomlTable | None) -> dict[str, int]:
    again = None if table is None else table.table("again")
    if table is None or again is None:
        return {}
    found: dict[str, int] = {}
    for key in again.values:
        if key in SOURCES:
            found[key] = again.whole(key, 0, -POINTS_MAX, POINTS_MAX)
        else:
            again.fault(key, f"{shown(key)} is no source; one of {', '.join(SOURCES)}")
    table.sound &= again.sound
    return found
