"""The geo-fence against shapely, polygon by polygon, where it is hardest: on borders and a float beside them."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

import geo.raster as raster_module
from geo.fence import Fence
from geo.raster import MAX_PIXELS, MAX_TOUCHES, NOWHERE, UNSURE, _orientation, rasterize

SIDE = 5


def slow_first(polygons, x, y):
    """The definition: ask shapely about every polygon and every point; the smallest index that says yes."""
    found = np.full(len(x), -1)
    for index in reversed(range(len(polygons))):
        shapely.prepare(polygons[index])
        found[shapely.intersects_xy(polygons[index], x, y)] = index
    return found


def assert_agrees(polygons, x, y):
    polygons = np.array(polygons, dtype=object)
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    found, expected = Fence(polygons).first_covering(x, y), slow_first(polygons, x, y)
    wrong = np.flatnonzero(found != expected)
    assert not len(wrong), [(x[i].hex(), y[i].hex(), found[i], expected[i]) for i in wrong[:3]]


def hard_points(polygons):
    """Every vertex, points on (or as near as floats come to) every edge, and their neighbours one float away."""
    ends = [
        np.stack([points[:-1], points[1:]], axis=1)
        for ring in shapely.get_rings(shapely.get_parts(np.array(polygons, dtype=object)))
        for points in [shapely.get_coordinates(ring)]
    ]
    a, b = np.moveaxis(np.concatenate(ends), 1, 0)
    at = np.concatenate([a, *(a + t * (b - a) for t in (0.5, 1 / 3, 0.9))])
    x, y = at.T
    aside = [
        at,
        *(np.column_stack([np.nextafter(x, to), y]) for to in (-np.inf, np.inf)),
        *(np.column_stack([x, np.nextafter(y, to)]) for to in (-np.inf, np.inf)),
    ]
    return np.concatenate(aside).T


places = st.sampled_from(
    [
        (113.1, 37.3, 0.1),
        (113.5, 37.8, 1.3e-7),
        (0.0, 0.0, 1.0),
        (-0.002, -0.001, 0.0007),
        (-71.06, 42.36, 0.001),
        (25.7, 78.2, 0.005),
        (-180.0, -90.0, 36.0),
    ]
)
seeds = st.integers(0, 2**32 - 1)


def lattice(place, seed, jitter):
    """Triangles of a lattice at a place; without jitter half of the edges are level or upright."""
    west, south, unit = place
    rng = np.random.default_rng(seed)
    node = np.stack(np.meshgrid(np.arange(SIDE + 1.0), np.arange(SIDE + 1.0), indexing="ij"), axis=-1)
    node = (node + rng.uniform(-jitter, jitter, node.shape)) * (unit, unit / 2) + (west, south)
    found = []
    for i in range(SIDE):
        for j in range(SIDE):
            a, b, c, d = node[i, j], node[i + 1, j], node[i + 1, j + 1], node[i, j + 1]
            found += [shapely.Polygon([a, b, c]), shapely.Polygon([a, c, d])]
    return np.array(found)


def polygons_of(place, seed, jitter):
    """Two sheets of cells that overlap each other, each cell any set of triangles, so with holes and in parts; and
    slivers across."""
    triangles = lattice(place, seed, jitter)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        owner = rng.integers(0, 5, len(triangles))
        found += [shapely.coverage_union_all(triangles[owner == k]) for k in range(1, 5) if (owner == k).any()]
    west, south, unit = place
    corners = np.round(rng.uniform(0, SIDE, (4, 3, 2)), 1) * (unit, unit / 2) + (west, south)
    corners[:2, 2] = corners[:2, :2].mean(axis=1) + unit * 1e-6
    found += [triangle for triangle in shapely.polygons(corners) if triangle.is_valid]
    assert all(shapely.is_valid(found))
    return [found[k] for k in rng.permutation(len(found))]


@settings(max_examples=30)
@given(places, seeds, st.sampled_from([0.0, 0.3]))
def test_the_fence_agrees_with_shapely_on_borders_and_a_float_beside_them(place, seed, jitter):
    polygons = polygons_of(place, seed, jitter)
    x, y = hard_points(polygons)
    free = np.random.default_rng(seed).uniform(-0.2, SIDE + 0.2, (500, 2)) * (place[2], place[2] / 2) + place[:2]
    assert_agrees(polygons, np.concatenate([x, free[:, 0]]), np.concatenate([y, free[:, 1]]))


@settings(max_examples=20)
@given(places, seeds)
def test_a_pixel_that_answers_by_itself_lies_wholly_in_its_polygon_or_in_none(place, seed):
    polygons = np.array(polygons_of(place, seed, 0.3), dtype=object)
    raster = rasterize(polygons)
    lattice = raster.lattice
    row, column = np.divmod(np.arange(len(raster.answer)), lattice.columns)
    west, east = (lattice.west + (column + d) / lattice.columns_a_deg for d in (0, 1))
    low, high = (lattice.south + (row + d) / lattice.rows_a_deg for d in (0, 1))
    pixel = shapely.box(west, low, east, high)
    whole, empty = raster.answer >= 0, raster.answer == NOWHERE
    assert shapely.covers(polygons[raster.answer[whole]], pixel[whole]).all()
    assert not shapely.STRtree(pixel[empty]).query(polygons, predicate="intersects").size
    # And no polygon before it has any part of the pixel.
    polygon, at = shapely.STRtree(pixel[whole]).query(polygons, predicate="intersects")
    assert (polygon >= raster.answer[whole][at]).all()


odd = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e-200, 1.0, 0.5])


@given(seeds, st.lists(st.tuples(odd, odd), min_size=1, max_size=40))
@example(0, [(5e-324, 1.0), (-5e-324, 0.25), (1e-200, 0.5), (0.5, 5e-324), (1e308, -1e308), (np.nan, 0.5)])
def test_any_number_may_be_a_coordinate(seed, points):
    """Around 0, 0, where floats are finest."""
    polygons = polygons_of((0.0, 0.0, 1.0), seed, 0.0)
    assert_agrees([*polygons, shapely.box(-2, -2, 0, 0)], *np.array(points).T)


def test_where_products_of_floats_underflow_shapely_decides():
    """A sloping border that passes through 0, 0, and points so near to it that no sum of floats can tell."""
    polygons = np.array([shapely.Polygon([(0, 0), (1, 1), (1, 3)]), shapely.Polygon([(0, 0), (1, 1), (0.5, -1)])])
    tiny = np.array([1e-150, 3e-160, 1e-300, 5e-324, 0.0])
    x, y = (each.ravel() for each in np.meshgrid(tiny, np.concatenate([tiny, -tiny])))
    raster = rasterize(polygons)
    assert UNSURE in raster_module.first_covering(raster, x, y)
    assert_agrees(polygons, x, y)


def test_yangquan_s_counties_are_told_apart_as_shapely_does(city_data):
    """Real borders, which overlap a little and leave slivers; 100,000 points and every vertex of every border."""
    counties = json.loads((city_data / "yangquan" / "counties.geojson").read_text(encoding="utf-8"))["features"]
    polygons = [shapely.geometry.shape(county["geometry"]) for county in counties]
    west, south, east, north = shapely.total_bounds(polygons)
    rng = np.random.default_rng(140300)
    x, y = hard_points(polygons)
    free_x, free_y = rng.uniform(west, east, 100_000), rng.uniform(south, north, 100_000)
    assert_agrees(polygons, np.concatenate([free_x, x]), np.concatenate([free_y, y]))


# --------------------------------------------------------------------------------------------------- exact arithmetic

degrees = st.floats(-180, 180)


@given(degrees, degrees, degrees, degrees, st.floats(0, 1), st.integers(-2, 2))
@example(0.0, 0.0, 0.1, 0.3, 1 / 3, 0)
@example(113.1, 37.3, 113.2, 37.4, 0.5, 1)
def test_on_which_side_of_an_edge_a_point_lies_is_exact(ax, ay, bx, by, share, beside):
    """Next to the edge, where a determinant in floats has any sign; the oracle counts in fractions."""
    x, y = ax + share * (bx - ax), ay + share * (by - ay)
    for _ in range(abs(beside)):
        x = np.nextafter(x, beside * np.inf)
    left = (Fraction(ax) - Fraction(x)) * (Fraction(by) - Fraction(y))
    right = (Fraction(ay) - Fraction(y)) * (Fraction(bx) - Fraction(x))
    side = _orientation(ax, ay, bx, by, x, y)
    if side == UNSURE:
        assert min(abs(v) for v in (ax, ay, bx, by, x, y) if v) < 2.0**-300
    else:
        assert side == (left > right) - (left < right)


def test_kernels_call_kernels_of_their_own_module_only():
    """numba's cache knows when this module has changed, and no other: a callee elsewhere would go on as it was."""
    kernels = {name: one for name, one in vars(raster_module).items() if hasattr(one, "py_func")}
    assert {"_find", "_covers", "_orientation", "_mark"} <= kernels.keys()
    assert {one.py_func.__module__ for one in kernels.values()} == {"geo.raster"}


# ------------------------------------------------------------------------------------------------------------- bounds


def squares(count, west, south, unit):
    i, j = np.divmod(np.arange(count), int(np.ceil(np.sqrt(count))))
    return shapely.box(west + i * unit, south + j * unit, west + (i + 1) * unit, south + (j + 1) * unit)


@pytest.mark.parametrize(
    "polygons",
    [
        pytest.param([shapely.box(113, 37, 114, 38)], id="one cell"),
        pytest.param([shapely.box(113, 37, 113 + 1e-12, 37 + 1e-13)], id="a cell below any pixel"),
        pytest.param(
            [shapely.box(-180, -90, -179.9999, -89.9999), shapely.box(179.9999, 89.9999, 180, 90)], id="poles"
        ),
        pytest.param([*squares(400, 113, 37, 0.001), shapely.box(13, -3.7, 13.001, -3.699)], id="a slip of the pen"),
        pytest.param([*squares(400, 113, 37, 0.001), shapely.box(-180, -90, 180, 90)], id="and the world"),
        pytest.param([shapely.box(113, 37, 114, 38)] * 500, id="one place 500 times"),
        pytest.param(
            [shapely.Polygon([(113, 37 + k), (114, 38 + k), (114, 38 + k + 1e-6)]) for k in np.linspace(0, 0.1, 500)],
            id="slivers whose boxes are all alike",
        ),
        pytest.param([shapely.Point(113, 37).buffer(1, quad_segs=5_000)], id="20,000 edges"),
        pytest.param(
            [shapely.difference(shapely.box(0, 0, 60, 60), shapely.union_all(squares(400, 0.1, 0.1, 2.9)))], id="a rim"
        ),
        pytest.param([shapely.Polygon(), shapely.box(113, 37, 114, 38), shapely.MultiPolygon()], id="empty ones"),
        pytest.param([shapely.Polygon([(0, 0, 7), (1, 0, 8), (0, 1, 9)])], id="with a height"),
    ],
)
def test_odd_polygons_stay_within_the_bounds_and_are_answered_alike(polygons):
    polygons = np.array(polygons, dtype=object)
    raster = rasterize(polygons)
    assert len(raster.answer) <= MAX_PIXELS
    assert len(raster.candidate) <= MAX_TOUCHES
    x, y = hard_points(polygons)
    keep = np.random.default_rng(1).permutation(len(x))[:2_000]
    west, south, east, north = shapely.total_bounds(polygons)
    free = np.random.default_rng(2).uniform((west, south), (east, north), (1_000, 2))
    assert_agrees(polygons, np.concatenate([x[keep], free[:, 0]]), np.concatenate([y[keep], free[:, 1]]))


def test_most_pixels_of_a_grid_answer_at_once_also_in_the_far_north():
    """A degree of longitude is a fifth of one of latitude there: pixels have the shape of the cells, not of degrees."""
    for cells in (
        squares(900, 113, 37, 0.001),
        shapely.transform(squares(900, 0, 0, 0.001), lambda p: p * (5, 1) + 78),
    ):
        answer = rasterize(cells).answer
        assert 50 < len(answer) / len(cells) < 150
        assert (answer >= 0).mean() > 0.6


def test_a_fence_far_from_any_degree_is_refused():
    with pytest.raises(ValueError, match="not finite or beyond ±1e"):
        Fence(np.array([shapely.Polygon([(0, 0), (1e7, 0), (0, 1)])]))


def test_positions_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="both must be"):
        Fence(np.array([shapely.box(0, 0, 1, 1)])).first_covering([0.0], [1.0, 2.0])
