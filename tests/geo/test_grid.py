"""The grid: the geo-fence against a plain double loop, and every fault of a file with its line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geo.fence import Fence
from geo.grid import Grid, GridError, code_agrees, read_grid

LEVELS = ("county", "street", "grid")
SIDE = 4


def polygon(*points):
    return {"type": "Polygon", "coordinates": [[*map(list, points), list(points[0])]]}


def square(lon, lat, side=1.0):
    return polygon((lon, lat), (lon + side, lat), (lon + side, lat + side), (lon, lat + side))


def feature(code, level, parent, geometry, **more):
    properties = {"code": code, "level": level, "parent": parent, "name": f"name of {code}", **more}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def collection(*features):
    """A FeatureCollection with the n-th feature on line n + 1."""
    body = ",\n".join(json.dumps(f) for f in features)
    return f'{{"type": "FeatureCollection", "features": [\n{body}\n]}}'.encode()


def faults_of(*features, levels=LEVELS, gaps=False):
    return read_grid(collection(*features), levels, gaps=gaps)[1]


# ------------------------------------------------------------------------------------------------------ geo-fence


def triangles():
    """A square lattice, each square cut along its diagonal; coordinates are no dyadic fractions, as in real life."""
    at = [[(113.1 + 0.1 * i + 0.01 * j, 37.3 + 0.1 * j) for j in range(SIDE + 1)] for i in range(SIDE + 1)]
    found = []
    for i in range(SIDE):
        for j in range(SIDE):
            a, b, c, d = at[i][j], at[i + 1][j], at[i + 1][j + 1], at[i][j + 1]
            found += [shapely.Polygon([a, b, c]), shapely.Polygon([a, c, d])]
    return found


TRIANGLES = triangles()
owners = st.lists(st.integers(0, 5), min_size=len(TRIANGLES), max_size=len(TRIANGLES))


def cells_of(owner, level, prefix):
    """One cell per owner: whatever it owns, so polygons with holes and in several parts; owner 0 is nobody."""
    cells = []
    for number in sorted(set(owner) - {0}):
        geometry = shapely.union_all([t for t, o in zip(TRIANGLES, owner, strict=True) if o == number])
        # Codes run against the order of the file.
        cells.append(feature(f"{prefix}{9 - number}", level, None, json.loads(shapely.to_geojson(geometry))))
    return cells


def slow_locate(cells, levels, lon, lat):
    """The definition: innermost level first, then smallest code; shapely, one point and one polygon at a time."""
    for level in reversed(levels):
        covering = [
            cell["properties"]["code"]
            for cell in cells
            if cell["properties"]["level"] == level
            and shapely.geometry.shape(cell["geometry"]).covers(shapely.Point(lon, lat))
        ]
        if covering:
            return min(covering)
    return None


@given(owners, owners, owners, st.data())
def test_locate_agrees_with_the_double_loop(inner, middle, outer, data):
    """On vertices, on edges, in holes, in parts, and where inner levels have gaps."""
    cells = [*cells_of(inner, "grid", "g"), *cells_of(middle, "street", "s"), *cells_of(outer, "county", "c")]
    if not cells:
        return
    vertices = shapely.get_coordinates(TRIANGLES)
    starts = data.draw(st.lists(st.integers(0, len(vertices) - 2), min_size=8, max_size=8))
    shares = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1 / 3, 0.1, 0.7071]), min_size=8, max_size=8))
    on_edges = [vertices[s] + t * (vertices[s + 1] - vertices[s]) for s, t in zip(starts, shares, strict=True)]
    free = data.draw(st.lists(st.tuples(st.floats(113.0, 113.7), st.floats(37.2, 37.8)), min_size=4, max_size=4))
    points = np.array([*on_edges, *free])
    grid = Grid.from_geojson(collection(*cells), LEVELS)
    found = [None if i < 0 else grid.codes[i] for i in grid.locate(points[:, 0], points[:, 1])]
    assert found == [slow_locate(cells, LEVELS, *point) for point in points]


def test_a_point_on_a_shared_edge_gets_the_smallest_code():
    grid = Grid.from_geojson(
        collection(
            feature("c", "grid", None, square(113, 37)),
            feature("b", "grid", None, square(114, 37)),
            feature("a", "grid", None, square(114, 38)),
        ),
        LEVELS,
    )
    found = grid.locate([114.0, 114.0, 113.0, 113.5, 115.0], [37.5, 38.0, 37.0, 38.0, 39.0])
    assert [grid.codes[i] for i in found] == ["b", "a", "c", "c", "a"]


def test_a_point_in_no_inner_cell_falls_back_level_by_level():
    hole = {
        "type": "Polygon",
        "coordinates": [square(113, 37)["coordinates"][0], square(113.4, 37.4, 0.2)["coordinates"][0]],
    }
    grid = Grid.from_geojson(
        collection(
            feature("county", "county", None, square(112, 36, 3)),
            feature("street", "street", "county", square(113, 37)),
            feature("cell", "grid", "street", hole),
        ),
        LEVELS,
    )
    found = grid.locate([113.1, 113.5, 112.5, 116.0, np.nan, 113.5, np.inf], [37.1, 37.5, 36.5, 37.0, 37.1, 37.4, 37.0])
    assert [None if i < 0 else grid.codes[i] for i in found] == ["cell", "street", "county", None, None, "cell", None]


def test_ancestors_name_the_cell_of_every_level():
    grid = Grid.from_geojson(
        collection(
            feature("140302001", "street", "140302", square(113, 37, 0.5)),
            feature("140302", "county", None, square(113, 37)),
            feature("x", "grid", "140302", square(113.5, 37.5, 0.5)),
        ),
        LEVELS,
    )
    assert grid.codes == ("140302", "140302001", "x")
    assert grid.names[1] == "name of 140302001"
    assert grid.level.tolist() == [0, 1, 2]
    assert grid.parent.tolist() == [-1, 0, 0]
    # A cell right under the county has no street.
    assert grid.ancestors.tolist() == [[0, -1, -1], [0, 1, -1], [0, -1, 2]]
    assert grid.bounds == (113.0, 37.0, 114.0, 38.0)
    assert (grid.level.dtype, grid.parent.dtype, grid.ancestors.dtype) == (np.int8, np.int32, np.int32)
    assert grid.locate(np.empty(0), np.empty(0)).dtype == np.int32


def test_more_points_than_a_chunk_are_all_answered():
    fence = Fence(np.array([shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)]))
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(-1, 3, 150_000), rng.uniform(-1, 2, 150_000)
    lon[::7], lat[::11] = np.nan, np.inf
    inside = (lon >= 0) & (lon <= 2) & (lat >= 0) & (lat <= 1)
    assert (fence.first_covering(lon, lat) == np.where(inside, np.where(lon <= 1, 0, 1), -1)).all()


def test_an_empty_fence_covers_nothing():
    assert Fence(np.empty(0, dtype=object)).first_covering([1.0], [1.0]).tolist() == [-1]


# --------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("features", "line", "words"),
    [
        pytest.param(
            [feature("a", "grid", None, polygon((113, 37), (114, 38), (114, 37), (113, 38)))],
            2,
            "invalid polygon: Self-intersection",
            id="bow tie",
        ),
        pytest.param(
            [feature("a", "grid", None, square(113, 37)), feature("b", "grid", None, square(113.5, 37))],
            3,
            "cell 'b' overlaps cell 'a' of line 2 by 4,9",
            id="overlap",
        ),
        pytest.param(
            [feature("a", "grid", "nowhere", square(113, 37))],
            2,
            "orphan, no cell has its parent's code 'nowhere'",
            id="orphan",
        ),
        pytest.param(
            [
                feature("140302", "county", None, square(113, 37)),
                feature("140303001", "street", "140302", square(113, 37)),
            ],
            3,
            "code disagrees with its parent '140302'",
            id="code of another county",
        ),
        pytest.param(
            [feature("a", "grid", None, square(113, 37)), feature("a", "grid", None, square(114, 37))],
            3,
            "duplicate code 'a', already used in line 2",
            id="duplicate",
        ),
        pytest.param([feature("a", "gird", None, square(113, 37))], 2, "level 'gird' is not one of", id="level"),
        pytest.param([feature("", "grid", None, square(113, 37))], 2, "code '' must be", id="empty code"),
        pytest.param([feature(7, "grid", None, square(113, 37))], 2, "code 7 must be", id="number as code"),
        pytest.param([feature("a", ["grid"], None, square(113, 37))], 2, "level", id="list as level"),
        pytest.param([feature("a", "grid", 5, square(113, 37))], 2, "parent 5 must be", id="number as parent"),
        pytest.param([feature("a", "grid", None, None)], 2, "has no geometry", id="no geometry"),
        pytest.param(
            [feature("a", "grid", None, {"type": "Point", "coordinates": [1, 2]})], 2, "not 'Point'", id="point"
        ),
        pytest.param(
            [feature("a", "grid", None, square(370, 37))], 2, "outside lon ±180, lat ±90", id="coordinates out of range"
        ),
        pytest.param(
            [feature("a", "grid", None, {"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [5, 6]]]})],
            2,
            "must be closed",
            id="open ring",
        ),
        pytest.param(
            [feature("a", "grid", None, {"type": "Polygon", "coordinates": [[["x", 2]]]})],
            2,
            "a ring must be",
            id="text",
        ),
        pytest.param(
            [feature("a", "grid", None, {"type": "MultiPolygon", "coordinates": []})],
            2,
            "list of polygons",
            id="no parts",
        ),
        pytest.param(
            [feature("a", "grid", None, square(113, 37)), feature("b", "county", "a", square(113, 37))],
            3,
            "parent 'a' is not of an outer level",
            id="parent inside",
        ),
    ],
)
def test_a_fault_has_its_line(features, line, words):
    faults = faults_of(*features)
    assert [(f.line, f.severity) for f in faults] == [(line, "fault")]
    assert words in faults[0].message


def test_all_faults_are_told_at_once_and_none_twice():
    """A broken parent has one fault, its children none of their own."""
    with pytest.raises(GridError) as caught:
        Grid.from_geojson(
            collection(
                feature("p", "county", None, polygon((113, 37), (114, 38), (114, 37), (113, 38))),
                feature("a", "grid", "p", square(113, 37, 0.5)),
                feature("b", "grid", "q", square(113.5, 37, 0.5)),
                feature("b", "grid", "p", square(113.5, 37.5, 0.5)),
            ),
            LEVELS,
        )
    assert [fault.line for fault in caught.value.faults] == [2, 4, 5]
    assert "line 4: cell 'b': orphan" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (b"[]", 1),
        (b'{"type": "FeatureCollection"}', 1),
        (b'{"type": "Feature", "features": []}', 1),
        (b'{"type": "FeatureCollection",\n"features": [\n{"a": 1},\n{"b": }]}', 4),
        (b'{"type": "FeatureCollection",\n"features": [\n{"properties": {"x": NaN}}]}', 3),
        (b'{"type": "FeatureCollection",\n"features": [\n7]}', 3),
        (b'{"type": "FeatureCollection",\n"features": [\n{"properties": 7}]}', 3),
        (b'{"type": "FeatureCollection",\n"features": []} x', 2),
        (b'{"type": "FeatureCollection", "features": [],\n}', 2),
        (b'{"type": "FeatureCollection",\n"features": [\n{"properties": {"name": "\xff"}}]}', 3),
        (b'{"type": "FeatureCollection",\n"features": ' + b"[" * 100_000, 2),
        (b'{"type": "FeatureCollection", "features": []}', None),
    ],
)
def test_what_is_no_feature_collection_is_refused_with_a_line(data, line):
    grid, faults = read_grid(data, LEVELS)
    assert grid is None
    assert [fault.line for fault in faults] == [line]


def test_cells_that_all_lie_on_one_another_are_refused_without_listing_every_pair():
    """300 cells make 44,850 overlaps; nobody reads more than the first thousand, and no memory need hold them."""
    faults = faults_of(*(feature(f"c{i:03}", "grid", None, square(113, 37, 0.1)) for i in range(300)))
    assert 1000 < len(faults) < 3000
    assert faults[0].line is None
    assert "the rest are not looked for" in faults[0].message
    assert faults[1].line == 3


@pytest.mark.parametrize(("overlap_deg", "refused"), [(0.0, False), (0.9e-6, False), (1.3e-6, True)])
def test_a_square_metre_of_overlap_is_what_rounding_makes(overlap_deg, refused):
    """Two cells 1e-4 degrees (8.9 m) wide, one above the other: the strip they share is 0.9 m² or 1.3 m²."""
    faults = faults_of(
        feature("a", "grid", None, polygon((113, 37), (113.0001, 37), (113.0001, 37.01), (113, 37.01))),
        feature(
            "b",
            "grid",
            None,
            polygon((113, 37.01 - overlap_deg), (113.0001, 37.01 - overlap_deg), (113.0001, 37.02), (113, 37.02)),
        ),
    )
    assert [fault.line for fault in faults] == ([3] if refused else [])


def test_levels_may_overlap_one_another_but_not_themselves():
    cells = [feature(level, level, None, square(113, 37)) for level in LEVELS]
    assert faults_of(*cells) == []


def test_another_layer_may_overlap_and_is_left_alone():
    grid, faults = read_grid(
        collection(
            feature("a", "grid", None, square(113, 37)), feature("a", "综治", None, square(113, 37), layer="综治")
        ),
        LEVELS,
    )
    assert faults == []
    assert grid.codes == ("a",)


def test_gaps_and_overreach_are_warnings_with_their_area():
    half = polygon((113, 37), (113.5, 37), (113.5, 38), (113, 38))
    over = polygon((113.5, 37), (114.1, 37), (114.1, 37.9), (113.5, 37.9))
    faults = faults_of(
        feature("p", "county", None, square(113, 37)),
        feature("a", "street", "p", half),
        feature("b", "street", "p", over),
        gaps=True,
    )
    assert [(f.line, f.severity) for f in faults] == [(2, "warning"), (2, "warning")]
    assert faults[0].message.startswith("cell 'p': its children leave a gap of 487,")
    assert faults[1].message.startswith("cell 'p': its children reach 88")


def test_children_with_other_vertices_on_the_same_outline_leave_no_gap():
    three = polygon((113, 37), (113.5, 37), (114, 37), (114, 38), (113, 38))
    assert faults_of(feature("p", "county", None, square(113, 37)), feature("a", "grid", "p", three), gaps=True) == []


@pytest.mark.parametrize(
    ("code", "parent", "agrees"),
    [
        ("140302001", "140302", True),
        ("140302001", "140303", False),
        ("140302", "140300", True),
        ("140302", "360000", False),
        ("140302", "140000", True),
        ("140302001", "140300", True),
        ("140302001002", "140302001", True),
        ("140302002002", "140302001", False),
        ("140302001002", "140302", True),
        ("140302001", "140302001", False),
        ("140302", "140302001", False),
        ("block-7", "140302", True),
        ("1403020012", "140303", True),
        ("１４０３０２", "140303", True),
    ],
)
def test_only_codes_of_the_national_shape_promise_a_prefix(code, parent, agrees):
    assert code_agrees(code, parent) is agrees
