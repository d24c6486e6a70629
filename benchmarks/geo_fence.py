"""How many points a second the geo-fence places: `python -m benchmarks.geo_fence [--save]`.

Workload: invented cities of about 5,000 and 50,000 irregular cells of 150 m (seeded), and a million points: most in
crowded spots as reports are, some anywhere in the city's box, two in a hundred on a vertex or the middle of an edge.
The rival is shapely's STRtree over the same cells, asked in the same run; both must give every point the same cell.
Also told: what building either costs, and what a pack of that size takes from its files' bytes to its first answer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from benchmarks.results_file import tell
from geo.fence import Fence
from geo.plane import metres_per_degree
from streams.pack import CityPack, parse_pack
from streams.pack_building import Boundary, build_pack

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
CELLS = (5_000, 50_000)
CELL_M = 150.0
POINTS = 1_000_000
CHUNK = 65_536
WEST_DEG, SOUTH_DEG = 121.0, 38.0

Points = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
Answer = npt.NDArray[np.int64]


def files_of_city(cells: int) -> dict[str, bytes]:
    """A round city with a ragged edge and about so many cells; seed 1."""
    rng = np.random.Generator(np.random.PCG64(1))
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    outline = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(0.8, 1.2, 60)[:, None]
    radius_m = CELL_M * np.sqrt(cells / shapely.Polygon(outline).area)
    m_lon, m_lat = (float(metres) for metres in metres_per_degree(SOUTH_DEG))
    ring = outline * radius_m / (m_lon, m_lat) + (WEST_DEG, SOUTH_DEG)
    county = Boundary(0, "990101", "县", shapely.Polygon(np.round(ring, 7)), "benchmark")
    return build_pack([county], cell_m=CELL_M, name="市", jitter=0.3).files


def points_in(cells: npt.NDArray[np.object_]) -> Points:
    """Positions as the module's docstring says; seed 2."""
    rng = np.random.Generator(np.random.PCG64(2))
    west, south, east, north = shapely.total_bounds(cells)
    size = np.array([east - west, north - south])
    spots = rng.uniform(0.15, 0.85, (200, 2)) * size + (west, south)
    at = spots[rng.integers(0, len(spots), POINTS)] + rng.normal(0, 0.004, (POINTS, 2))
    anywhere = rng.random(POINTS) < 0.3
    at[anywhere] = rng.uniform((west, south), (east, north), (np.count_nonzero(anywhere), 2))
    at = np.round(at, 6)
    corners = shapely.get_coordinates(cells)
    hard = rng.permutation(POINTS)[: POINTS // 50]
    corner = rng.integers(0, len(corners) - 1, len(hard))
    middle = rng.random(len(hard)) < 0.5
    # Between the last corner of a cell and the first of the next it is a point like any other.
    at[hard] = np.where(middle[:, None], (corners[corner] + corners[corner + 1]) / 2, corners[corner])
    return np.ascontiguousarray(at[:, 0]), np.ascontiguousarray(at[:, 1])


def by_tree(tree: shapely.STRtree, points: Points) -> Answer:
    """The smallest index of a cell that shapely says meets the point, -1 for none."""
    x, y = points
    found = np.full(len(x), len(tree), dtype=np.int64)
    for start in range(0, len(x), CHUNK):
        part = shapely.points(x[start : start + CHUNK], y[start : start + CHUNK])
        point, cell = tree.query(part, predicate="intersects")
        np.minimum.at(found, start + point, cell)
    return np.where(found == len(tree), -1, found)


def seconds_of(run: Callable[[], object], runs: int = RUNS) -> float:
    """Median CPU time."""
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def first_answer(files: dict[str, bytes]) -> CityPack:
    """From the bytes of a pack's files to its first located point."""
    pack = parse_pack(files)
    pack.grid.locate([WEST_DEG], [SOUTH_DEG])
    return pack


def measure(cells: int) -> dict[str, object]:
    """Points a second of CPU time; raises AssertionError if a point gets two different cells."""
    files = files_of_city(cells)
    pack = first_answer(files)
    polygons = pack.grid.geometries[pack.grid.level == len(pack.levels) - 1]
    points = points_in(polygons)
    fence, tree = Fence(polygons), shapely.STRtree(polygons)
    expected = by_tree(tree, points)
    found = fence.first_covering(*points)
    wrong = np.count_nonzero(found != expected)
    assert wrong == 0, f"{wrong} points get another cell"
    rate = {
        "fence": round(POINTS / seconds_of(lambda: fence.first_covering(*points))),
        "rival": round(POINTS / seconds_of(lambda: by_tree(tree, points))),
    }
    return {
        "cells": len(polygons),
        "points": POINTS,
        "points_outside": int(np.count_nonzero(found < 0)),
        "points_per_cpu_second": rate,
        "ratio": round(rate["fence"] / rate["rival"], 1),
        "build_seconds": {
            "fence": round(seconds_of(lambda: Fence(polygons)), 3),
            "rival": round(seconds_of(lambda: shapely.STRtree(polygons).query(shapely.Point(0, 0))), 3),
        },
        "pack_seconds": round(seconds_of(lambda: first_answer(files), runs=3), 2),
        "pack_megabytes": round(sum(map(len, files.values())) / 1e6, 1),
    }


def main() -> None:
    result: dict[str, object] = {
        "runs": RUNS,
        "cities": [measure(cells) for cells in CELLS],
    }
    tell("geo_fence", result)


if __name__ == "__main__":
    main()
