"""How well addresses of Boston are placed: `python -m benchmarks.places_boston BOSTON-DATA PACK [--save]`.

BOSTON-DATA is the folder of the recorded 311 reports, PACK the one that `make packs` makes of Boston's neighbourhoods.
A gazetteer is made of the reports of July and August 2011 that have an address and a position; then the position of
each report of September with an address is hidden, and the address placed by its names.

The gazetteer's places, each in the neighbourhood that its address ends with: every address or crossing as it stands, at
the middle of its reports; and every street, at the middle of what is known on it, as vague as that is scattered (with
what is usual for streets where little is known).

What is left out: house numbers between two known ones are not interpolated, and the positions that the answers are
measured by are themselves rounded to 11 m.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.results_file import tell
from geo.gazetteer import MAX_ACCURACY_M, Gazetteer
from geo.plane import distance_m
from streams.pack import load_pack

ROOT = Path(__file__).resolve().parent.parent
HIDDEN_FROM = "2011-09-01"
POSITION_M = 11.0
"""To which positions are rounded."""

# "38-40 Raldne Rd Hyde Park MA 02136", "INTERSECTION of Atlantic Ave & Congress St Boston MA"
_ADDRESS = re.compile(r"(?:INTERSECTION of )?(.+?) MA(?: \d{5})?")
_HOUSE = re.compile(r"[\d-]+ (.+)")

Spots = dict[tuple[str, str], list[tuple[float, float]]]
"""Positions by name and neighbourhood."""
_UNSEEN = 2
"""A street of which little is known counts as if so many more positions were, as far off as is usual."""


def addressed(folder: Path) -> Iterator[tuple[str, str, float, float]]:
    """Day, address and position of each report that has all three."""
    with gzip.open(folder / "recording-2011q3.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            report = json.loads(line)["value"]
            address = report.get("address") or report.get("text") or ""
            if "lon" in report and _ADDRESS.fullmatch(address):
                yield report["time"][:10], address, report["lon"], report["lat"]


def spots(known: list[tuple[str, str, float, float]], neighbourhoods: list[str]) -> tuple[Spots, Spots]:
    """What addresses name, by neighbourhood (their last words): houses and crossings, and streets."""
    exact: Spots = defaultdict(list)
    streets: Spots = defaultdict(list)
    for _, address, lon, lat in known:
        match = _ADDRESS.fullmatch(address)
        assert match
        place = match[1]
        area = next((one for one in neighbourhoods if place.endswith(f" {one}")), "")
        place = place.removesuffix(f" {area}")
        house = _HOUSE.fullmatch(place)
        if house or " & " in place:
            exact[place, area].append((lon, lat))
        for street in [house[1]] if house else place.split(" & "):
            streets[street, area].append((lon, lat))
    return exact, streets


def middle(positions: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Middle of some positions, and the sum of the squares of their distances from it."""
    lon, lat = np.array(positions).mean(axis=0).tolist()
    return lon, lat, float((distance_m(lon, lat, *np.array(positions).T) ** 2).sum())


def gazetteer(pack: Path, known: list[tuple[str, str, float, float]]) -> tuple[Gazetteer, int]:
    """The gazetteer, and how many places it has."""
    grid = load_pack(pack).grid
    street = grid.levels.index("street")
    cells = {grid.names[cell]: grid.codes[cell] for cell in range(len(grid)) if grid.level[cell] == street}
    # Longest first: South Boston is not Boston.  "Boston" itself is no neighbourhood of the grid.
    exact, streets = spots(known, sorted([*cells, "Boston"], key=len, reverse=True))
    usual_m2 = statistics.median(middle(p)[2] / (len(p) - 1) for p in streets.values() if len(p) >= 5)
    places: list[tuple[str, str, float, float, float]] = []
    for (name, area), positions in exact.items():
        lon, lat, squares = middle(positions)
        places.append((name, area, lon, lat, math.hypot(POSITION_M, math.sqrt(squares / len(positions)))))
    for (name, area), positions in streets.items():
        lon, lat, squares = middle(positions)
        scatter_m2 = (squares + _UNSEEN * usual_m2) / (len(positions) - 1 + _UNSEEN)
        # The middle itself is known only so well.
        places.append((name, area, lon, lat, math.sqrt(scatter_m2 * (1 + 1 / len(positions)))))
    places = [place for place in places if place[4] <= MAX_ACCURACY_M]
    names, areas, lons, lats, accuracies_m = zip(*places, strict=True)
    codes = [cells.get(area) for area in areas]
    return Gazetteer(grid, [(name,) for name in names], lons, lats, accuracies_m, codes), len(places)


def measure(folder: Path, pack: Path) -> dict[str, object]:
    """What is placed, how precisely, and how far from the truth."""
    reports = list(addressed(folder))
    city, places = gazetteer(pack, [report for report in reports if report[0] < HIDDEN_FROM])
    hidden = [report for report in reports if report[0] >= HIDDEN_FROM]
    error_m, accuracy_m = [], []
    for _, address, lon, lat in hidden:
        placed = city.place(address, "")
        if placed is not None:
            error_m.append(float(distance_m(placed.lon, placed.lat, lon, lat)))
            accuracy_m.append(placed.accuracy_m)
    errors, accuracies = np.array(error_m), np.array(accuracy_m)
    precise = accuracies <= 200
    return {
        "places": places,
        "hidden": len(hidden),
        "placed_share": round(len(errors) / len(hidden), 3),
        "within_200_m": {
            "placed_share": round(int(precise.sum()) / len(hidden), 3),
            "median_error_m": round(statistics.median(errors[precise].tolist()), 1),
            "true_within_twice_accuracy": round(float((errors <= 2 * accuracies)[precise].mean()), 3),
        },
        "all": {
            "median_error_m": round(statistics.median(error_m), 1),
            "true_within_twice_accuracy": round(float((errors <= 2 * accuracies).mean()), 3),
        },
    }


def main() -> None:
    folder, pack = (Path(argument) for argument in sys.argv[1:3])
    result: dict[str, object] = {
        **measure(folder, pack),
    }
    tell("places_boston", result)


if __name__ == "__main__":
    main()
