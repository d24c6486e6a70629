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
    return read_grid(collection(*features), levels, gaps=gaps)[2]


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
    grid, layers, faults = read_grid(data, LEVELS)
    assert grid is None
    assert layers == {}
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


# --------------------------------------------------------------------------------------------------------- layers

MAIN = (feature("140302", "county", None, square(113, 37)), feature("c", "grid", "140302", square(113, 37, 0.5)))


def other(code, parent, geometry, layer="综治", **more):
    return feature(code, more.pop("level", None), parent, geometry, layer=layer, **more)


def test_another_layer_overlaps_the_main_one_and_has_its_own_codes_and_generations():
    """Codes may be those of other layers, a level is whatever the layer calls it, a parent may be in the main layer."""
    grid, layers, faults = read_grid(
        collection(
            other("140302", "c", square(113.2, 37.2)),
            *MAIN,
            other("14030200000000000002", "140302", square(113.7, 37.2, 0.5), level="三级"),
            other("14030200000000000001", "140302", square(113.2, 37.2, 0.5), level=3),
            other("c", None, square(112, 36, 9), layer="wards"),
        ),
        LEVELS,
    )
    assert faults == []
    assert grid.codes == ("140302", "c")
    assert list(layers) == ["wards", "综治"]
    cells = layers["综治"]
    assert cells.codes == ("140302", "14030200000000000001", "14030200000000000002")
    assert (cells.levels, cells.level.tolist(), cells.parent.tolist()) == (("1", "2"), [0, 1, 1], [-1, 0, 0])
    assert cells.ancestors.tolist() == [[0, -1], [0, 1], [0, 2]]
    # Both generations, a border between two cells, and what the layer does not cover.
    found = cells.locate([113.3, 113.7, 113.3, 113.1], [37.3, 37.3, 38.1, 37.3])
    assert [None if i < 0 else cells.codes[i] for i in found] == [cells.codes[1], cells.codes[1], "140302", None]
    assert layers["wards"].codes == ("c",)


@pytest.mark.parametrize(
    ("features", "line", "words"),
    [
        pytest.param(
            [other("a", None, square(113, 37)), other("a", None, square(114, 37))],
            5,
            "duplicate code 'a', already used in line 4",
            id="duplicate within the layer",
        ),
        pytest.param(
            [other("a", None, polygon((113, 37), (114, 38), (114, 37), (113, 38)))],
            4,
            "cell 'a' of layer '综治': invalid polygon: Self-intersection",
            id="bow tie",
        ),
        pytest.param(
            [other("a", "d", square(113, 37)), other("d", None, square(113, 37), layer="wards")],
            4,
            "cell 'a' of layer '综治': orphan, no cell of its layer or of the main one has its parent's code 'd'",
            id="a parent in a third layer",
        ),
        pytest.param(
            [other("a", None, square(113, 37)), other("b", "c", square(113.5, 37))],
            5,
            "cell 'b' of layer '综治' overlaps cell 'a' of line 4 by 4,9",
            id="overlap within a generation",
        ),
        pytest.param(
            [other("a", "a", square(113, 37))], 4, "cell 'a' of layer '综治': it has 8 parents", id="its own parent"
        ),
        pytest.param([other("a", None, square(113, 37), layer=" ")], 4, "layer ' ' must be", id="blank layer"),
        pytest.param([other("a", None, square(113, 37), layer=7)], 4, "layer 7 must be", id="number as layer"),
        pytest.param([other("a", 7, square(113, 37))], 4, "parent 7 must be", id="number as parent"),
        pytest.param(
            [other(f"{n}", None, square(113, 37), layer=f"layer {n}") for n in range(17)],
            None,
            "17 layers beside the main one; at most 16 are read",
            id="too many layers",
        ),
    ],
)
def test_a_fault_of_another_layer_has_its_line_and_names_the_layer(features, line, words):
    faults = faults_of(*MAIN, *features)
    assert [(f.line, f.severity) for f in faults] == [(line, "fault")]
    assert words in faults[0].message


def test_two_cells_of_a_layer_that_are_each_other_s_parent_are_both_faults():
    faults = faults_of(*MAIN, other("a", "b", square(113, 37)), other("b", "a", square(114, 37)))
    assert [f.line for f in faults if "lead back to it" in f.message] == [4, 5]


def test_a_broken_cell_of_a_layer_has_one_fault_and_its_children_none():
    bow_tie = polygon((113, 37), (114, 38), (114, 37), (113, 38))
    assert [f.line for f in faults_of(*MAIN, other("a", None, bow_tie), other("b", "a", square(113, 37)))] == [4]


def test_gaps_within_a_layer_are_warnings_as_in_the_main_one():
    outer, inner = other("a", None, square(113, 37)), other("b", "a", square(113, 37, 0.5))
    messages = [f.message for f in faults_of(*MAIN, outer, inner, gaps=True) if f.line == 4]
    assert [m.split(" of ")[:2] for m in messages] == [["cell 'a'", "layer '综治': its children leave a gap"]]


def test_a_grid_of_other_layers_alone_is_no_grid():
    assert [f.message for f in faults_of(other("a", None, square(113, 37)))] == ["the grid has no cell"]


# -------------------------------------------------------------------------------------------------- codes of levels


@pytest.mark.parametrize(
    ("cells", "codes"),
    [
        pytest.param([("140302001002003", "grid", None)], ["140302", "140302001", "140302001002"], id="no parent"),
        pytest.param([("140302001002", "community", None)], ["140302", "140302001", "140302001002"], id="its own"),
        pytest.param([("140302", "county", None)], ["140302", None, None], id="nothing inside it"),
        pytest.param([("block-7", "grid", None)], [None, None, None], id="a code of another shape"),
        pytest.param([("14030200100200300400", "grid", None)], [None, None, None], id="twenty digits"),
        pytest.param(
            [("block-7", "grid", "140302001"), ("140302001", "street", None)],
            ["140302", "140302001", None],
            id="a parent's prefix",
        ),
        pytest.param(
            [("140302001002003", "grid", "140302"), ("140302", "county", None)],
            ["140302", "140302001", "140302001002"],
            id="between the cell and its parent",
        ),
        pytest.param(
            [("140302001002003", "grid", "城北"), ("城北", "community", "桥西"), ("桥西", "street", None)],
            ["140302", "桥西", "城北"],
            id="parents first, then the prefix",
        ),
        pytest.param(
            [("block-7", "grid", "x"), ("x", "street", "140300"), ("140300", "county", None)],
            ["140300", "x", None],
            id="parents of any code",
        ),
        pytest.param([("140302001", "grid", None)], ["140302", None, None], id="shorter than its level's"),
    ],
)
def test_a_level_s_code_is_the_parent_s_or_else_a_prefix(cells, codes):
    levels = ("county", "street", "community", "grid")
    grid = Grid.from_geojson(collection(*(feature(*cell, square(113, 37)) for cell in cells)), levels)
    first = grid.index_of_code[cells[0][0]]
    assert [grid.code_at(first, level) for level in levels[:3]] == codes


@given(st.lists(st.integers(1, 999), min_size=3, max_size=3), st.sets(st.integers(0, 3), min_size=1))
def test_prefixes_and_parents_of_national_codes_say_the_same(numbers, kept):
    """Whichever cells of a chain are there, and linked: the codes of all levels are those of the whole chain."""
    levels = ("county", "street", "community", "grid")
    chain = ["140302"]
    for number in numbers:
        chain.append(f"{chain[-1]}{number:03d}")
    parent, cells = None, []
    for level in sorted(kept):
        cells.append(feature(chain[level], levels[level], parent, square(113, 37)))
        parent = chain[level]
    grid = Grid.from_geojson(collection(*cells), levels)
    innermost = grid.index_of_code[chain[max(kept)]]
    around = [grid.code_at(innermost, level) for level in levels]
    assert around == [code if level <= max(kept) else None for level, code in enumerate(chain)]


# ----------------------------------------------------------------------------------------------------------- gaps


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
