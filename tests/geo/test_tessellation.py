"""Subdividing boundaries: whatever they are like, the cells share their edges and cover what they were cut from."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st

from geo.plane import metres_per_degree
from geo.tessellation import MAX_CELLS, PRECISION_DEG, TessellationError, bisect, join, repair, subdivide

LON, LAT = 113.5, 37.8
M_LON, M_LAT = (float(m) for m in metres_per_degree(LAT))


def metres(points):
    """A polygon from corners in metres around one place."""
    return shapely.Polygon([(LON + x / M_LON, LAT + y / M_LAT) for x, y in points])


def area_m2(geometries):
    return shapely.area(geometries) * M_LON * M_LAT


corner = st.tuples(st.floats(-700, 700), st.floats(-700, 700))
hulls = st.lists(corner, min_size=3, max_size=8).map(lambda points: metres(points).convex_hull)
regions = st.lists(
    hulls.filter(lambda hull: hull.geom_type == "Polygon" and area_m2(hull) > 20_000), min_size=1, max_size=4
)


@given(regions, st.sampled_from([60.0, 150.0]), st.sampled_from([0.0, 0.3]))
@example(
    [metres([(0, 0), (300, 0), (300, 300), (0, 300)]), metres([(300, 0), (600, 0), (600, 300), (300, 300)])], 150.0, 0.0
)
@example(
    [metres([(0, 0), (301, 0), (301, 300), (0, 300)]), metres([(300, 0), (600, 0), (600, 300), (300, 300)])], 150.0, 0.0
)
@example(
    [metres([(0, 0), (299.9, 0), (299.9, 300), (0, 300)]), metres([(300, 0), (600, 0), (600, 300), (300, 300)])],
    60.0,
    0.3,
)
@example([metres([(0, 0), (500, 0), (500, 3), (0, 3)])], 150.0, 0.0)
def test_cells_are_a_coverage_of_what_they_were_cut_from(shapes, cell_m, jitter):
    """No overlap, no gap, no edge that only one neighbour knows; each cell in the first region that covers it."""
    pieces = subdivide(shapes, cell_m=cell_m, jitter=jitter)
    assert shapely.is_valid(pieces.geometries).all()
    assert shapely.coverage_is_valid(pieces.geometries)
    # A centimetre of noding along every outline, and the small holes that are closed.
    outline_m = sum(shapely.length(shape) for shape in shapes) * M_LAT
    whole = shapely.union_all(shapes)
    united = shapely.coverage_union_all(pieces.geometries)
    assert area_m2(shapely.difference(whole, united)) < 0.02 * outline_m + 1
    added = shapely.difference(united, whole)
    holes_m2 = sum(area_m2(shapely.Polygon(r)) for p in shapely.get_parts(whole) for r in p.interiors)
    assert area_m2(added) < 0.02 * outline_m + holes_m2 + 1
    for index in range(len(shapes)):
        mine = pieces.geometries[pieces.region == index]
        if len(mine):
            foreign = shapely.difference(shapely.union_all(mine), shapes[index])
            # Slivers below a fiftieth of a cell may join a neighbouring region.
            assert area_m2(foreign) < 0.02 * cell_m**2 * 4 + 0.02 * outline_m + holes_m2
    # Nothing but the last bit of a float lies off the grid of coordinates.
    units = shapely.get_coordinates(pieces.geometries) / PRECISION_DEG
    assert np.abs(units - np.rint(units)).max() < 1e-3


@given(regions, st.randoms(use_true_random=False))
def test_cells_of_two_sizes_are_one_coverage_and_each_region_has_its_own(shapes, random):
    sides_m = [random.choice([60.0, 200.0]) for _ in shapes]
    pieces = subdivide(shapes, cell_m=sides_m)
    assert shapely.is_valid(pieces.geometries).all()
    assert shapely.coverage_is_valid(pieces.geometries)
    for index, side_m in enumerate(sides_m):
        # A full cell with the slivers that joined it.
        assert (area_m2(pieces.geometries[pieces.region == index]) < 3 * side_m**2).all()


def test_a_coarse_region_beside_a_fine_one_is_cut_by_its_own_lattice_only():
    west, east = metres([(0, 0), (1200, 0), (1200, 1200), (0, 1200)]), metres([(1200, 0), (1800, 0), (1200, 1200)])
    pieces = subdivide([west, east], cell_m=[200.0, 50.0])
    for index, (side_m, least, most) in enumerate([(200.0, 25, 49), (50.0, 100, 170)]):
        mine = area_m2(pieces.geometries[pieces.region == index])
        assert least <= np.isclose(mine, side_m**2, rtol=0.01).sum() <= len(mine) <= most


@given(regions)
def test_a_small_piece_has_no_neighbour_of_its_region_to_join(shapes):
    pieces = subdivide(shapes, cell_m=150.0)
    for i in np.flatnonzero(area_m2(pieces.geometries) < 0.25 * 150**2 * 0.98):
        others = pieces.geometries[(pieces.region == pieces.region[i]) & (np.arange(len(pieces)) != i)]
        shared = shapely.intersection(pieces.geometries[i], others)
        assert (shapely.length(shared) * M_LAT < 0.5).all()


def test_the_same_boundaries_make_the_same_cells():
    shapes = [metres([(0, 0), (700, 100), (400, 600)]), metres([(200, 0), (900, 0), (900, 500)])]
    first, second = (subdivide(shapes, cell_m=60.0, jitter=0.2, seed=5) for _ in range(2))
    assert [g.wkb for g in first.geometries] == [g.wkb for g in second.geometries]
    assert first.region.tolist() == second.region.tolist()
    other = subdivide(shapes, cell_m=60.0, jitter=0.2, seed=6)
    assert [g.wkb for g in first.geometries] != [g.wkb for g in other.geometries]


def test_an_overlap_goes_to_the_first():
    left, right = metres([(0, 0), (600, 0), (600, 600), (0, 600)]), metres([(300, 0), (900, 0), (900, 600), (300, 600)])
    pieces = subdivide([left, right], cell_m=150.0)
    owned = [area_m2(pieces.geometries[pieces.region == i]).sum() for i in range(2)]
    assert owned == pytest.approx([360_000, 180_000], rel=1e-3)
    swapped = subdivide([right, left], cell_m=150.0)
    assert area_m2(swapped.geometries[swapped.region == 0]).sum() == pytest.approx(360_000, rel=1e-3)


def test_a_region_that_others_cover_has_no_piece():
    big, small = metres([(0, 0), (600, 0), (600, 600), (0, 600)]), metres([(100, 100), (300, 100), (300, 300)])
    assert set(subdivide([big, small], cell_m=150.0).region.tolist()) == {0}


def test_a_small_hole_between_regions_is_closed_and_a_large_one_stays():
    def ring(inner):
        shell = [(0, 0), (900, 0), (900, 900), (0, 900)]
        hole = [(400, 400), (400 + inner, 400), (400 + inner, 400 + inner), (400, 400 + inner)]
        return shapely.difference(metres(shell), metres(hole))

    closed = subdivide([ring(20)], cell_m=150.0)
    assert area_m2(closed.geometries).sum() == pytest.approx(810_000, abs=20)
    kept = subdivide([ring(200)], cell_m=150.0)
    assert area_m2(kept.geometries).sum() == pytest.approx(770_000, abs=20)


def test_islands_far_apart_cost_what_they_cover():
    """A lattice over the whole box would have nine million squares."""
    islands = [metres([(0, 0), (500, 0), (500, 500)]), metres([(450_000, 0), (450_500, 0), (450_500, 500)])]
    assert 10 < len(subdivide(islands, cell_m=150.0)) < 60


def test_too_many_cells_are_refused_with_the_size_that_works():
    county = metres([(-50_000, -50_000), (50_000, -50_000), (50_000, 50_000), (-50_000, 50_000)])
    with pytest.raises(TessellationError, match=rf"at most {MAX_CELLS:,} are built at once; take 18\d m or more"):
        subdivide([county], cell_m=10.0)


@pytest.mark.parametrize(("cell_m", "jitter"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (100.0, 0.5)])
def test_a_cell_without_a_size_is_refused(cell_m, jitter):
    with pytest.raises(TessellationError, match="cell_m = "):
        subdivide([metres([(0, 0), (500, 0), (500, 500)])], cell_m=cell_m, jitter=jitter)


@pytest.mark.parametrize(
    ("wkt", "kind", "area"),
    [
        ("POLYGON((0 0, 2 2, 2 0, 0 2, 0 0))", "MultiPolygon", 2.0),
        ("POLYGON((0 0, 4 0, 4 4, 0 4, 0 0), (4 1, 5 1, 5 2, 4 2, 4 1))", "Polygon", 16.0),
        ("POLYGON((0 0, 4 0, 4 4, 4 6, 4 4, 0 4, 0 0))", "Polygon", 16.0),
        ("MULTIPOLYGON(((0 0, 2 0, 2 2, 0 2, 0 0)), ((1 0, 3 0, 3 2, 1 2, 1 0)))", "Polygon", 6.0),
        ("POLYGON((0 0, 1 0, 1 1, 0 1, 0 0))", "Polygon", 1.0),
    ],
    ids=["bow tie", "hole outside", "spike", "parts that overlap", "sound"],
)
def test_repairing_keeps_the_area_and_nothing_else(wkt, kind, area):
    mended = repair(shapely.from_wkt(wkt))
    assert shapely.is_valid(mended)
    assert (mended.geom_type, mended.area) == (kind, pytest.approx(area))


def test_a_boundary_without_area_is_refused():
    with pytest.raises(TessellationError, match="no area"):
        repair(shapely.from_wkt("POLYGON((0 0, 1 1, 2 2, 0 0))"))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=200), st.data())
def test_bisecting_makes_groups_of_nearly_one_size(points, data):
    x, y = np.array(points, dtype=float).T
    groups = data.draw(st.integers(1, len(points)))
    group = bisect(x, y, groups)
    sizes = np.bincount(group, minlength=groups)
    assert len(sizes) == groups
    assert sizes.min() >= 1
    # Three digits count 999: a size above the rounded-up mean would break that promise of the pack builder.
    assert sizes.max() <= -(-len(points) // groups)


def test_more_groups_than_points_are_refused():
    with pytest.raises(ValueError, match="groups = 3"):
        bisect(np.zeros(2), np.zeros(2), 3)


def test_joining_keeps_every_vertex_of_the_outline():
    """A vertex that only a neighbour outside needs must stay, or the two no longer share that edge."""
    a, b = (
        shapely.from_wkt("POLYGON((0 0, 1 0, 1 1, 0 1, 0 0))"),
        shapely.from_wkt("POLYGON((1 0, 2 0, 2 1, 1 1, 1 0))"),
    )
    united = join(np.array([a, b, a]), np.array([0, 0, 1]))
    assert len(united) == 2
    assert shapely.get_num_coordinates(united[0]) == 7
    assert united[1].equals(a)
