"""From a position in any datum to the codes that a report carries: datum, geo-fence, levels and layers together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st

from geo.datum import CRS, from_wgs84, to_wgs84
from packs import make_sample
from streams.pack import load_pack, parse_pack, read_pack_files
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage
from streams.replay import Replay
from streams.terms import CellCodes, PackTerms

SAMPLE = Path(make_sample.__file__).parent / "sample"
PACK = load_pack(SAMPLE)
CELLS = np.flatnonzero(PACK.grid.level == 3)
# Every corner and bend of every cell: most belong to two cells, some to four; on coasts and round the hill to one.
CORNERS = np.unique(shapely.get_coordinates(PACK.grid.geometries[CELLS]), axis=0)
ENDS = np.concatenate(
    [np.stack([ring[:-1], ring[1:]], axis=1) for ring in map(shapely.get_coordinates, PACK.grid.geometries[CELLS])]
)


def codes_at(terms, lon, lat):
    number = int(terms.locate(np.array([lon]), np.array([lat]))[0])
    return None if number < 0 else terms.cells[number]


@given(st.integers(0, len(ENDS) - 1), st.sampled_from([0.0, 0.5, 1 / 3]), st.sampled_from(CRS))
@example(0, 0.0, "bd09")
def test_a_spot_on_a_border_said_in_any_datum_gets_a_cell_that_has_the_border_and_that_cell_s_levels(edge, share, crs):
    """A converted position lies a hair off the border, in either cell; one said exactly, in the smaller code's."""
    lon, lat = ENDS[edge, 0] + share * (ENDS[edge, 1] - ENDS[edge, 0])
    x, y = to_wgs84(*from_wgs84([lon], [lat], crs), crs)
    sharing = [
        PACK.grid.codes[i] for i in CELLS[shapely.dwithin(PACK.grid.geometries[CELLS], shapely.Point(lon, lat), 1e-8)]
    ]
    codes = codes_at(PackTerms(PACK), x[0], y[0])
    if codes is None or len(codes.grid_code) < 15:
        # Beside the coast, the hill or the quay a hair off may be outside the cell.
        outer = PACK.grid.geometries[CELLS]
        assert not shapely.contains_properly(shapely.union_all(outer), shapely.Point(lon, lat))
        return
    assert codes.grid_code in sharing
    if share == 0.0 and crs in ("wgs84", "cgcs2000"):
        assert codes.grid_code == min(sharing)
    # The sample's codes are national ones, so its levels are known without asking the grid.
    code = codes.grid_code
    assert (codes.community_code, codes.street_code, codes.county_code) == (code[:12], code[:9], code[:6])
    around = PACK.grid.ancestors[PACK.grid.index_of_code[code]]
    assert [PACK.grid.codes[i] for i in around] == [code[:6], code[:9], code[:12], code]


def test_on_every_corner_the_smallest_code_has_the_report():
    numbers = PackTerms(PACK)
    found = numbers.locate(*CORNERS.T)
    for (lon, lat), number in zip(CORNERS, found.tolist(), strict=True):
        covering = CELLS[shapely.intersects_xy(PACK.grid.geometries[CELLS], lon, lat)]
        assert numbers.cells[number].grid_code == min(PACK.grid.codes[i] for i in covering)


# ------------------------------------------------------------------------------------------------------------ layers


def square(west, south, side, **properties):
    ring = [[west, south], [west + side, south], [west + side, south + side], [west, south + side], [west, south]]
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def pack_with_layers():
    """A square of 6 by 6 cells; layers of larger squares over parts of it, one of them in two generations."""
    features = [square(110, 30, 6, code="990101", level="county", parent=None, name="c")]
    features += [
        square(110 + i, 30 + j, 1, code=f"990101001001{6 * i + j:03d}", level="grid", parent=None, name="g")
        for i in range(6)
        for j in range(6)
    ]
    features += [square(110.5 + 2 * i, 30.5, 2, code=f"w{i}", parent="990101", layer="wards") for i in range(3)]
    features += [square(109, 29, 4, code="out", parent=None, layer="zones")]
    features += [square(111.5, 31.5, 1, code="in", parent="out", layer="zones")]
    files = {**read_pack_files(SAMPLE), "grid.geojson": json.dumps({"type": "FeatureCollection", "features": features})}
    del files["devices.csv"], files["places.csv"]
    return parse_pack({name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()})


LAYERED = pack_with_layers()
axis = st.integers(-3, 15).map(lambda half: half / 2) | st.floats(-1, 7)


@given(st.lists(st.tuples(axis, axis), max_size=40), st.integers(1, 7))
def test_codes_of_layers_are_those_that_each_grid_says_by_itself(points, batch):
    """However the reports are batched; where the main grid has no cell, the report is outside whatever layers say."""
    lon, lat = 110 + np.array([p[0] for p in points]), 30 + np.array([p[1] for p in points])
    terms = PackTerms(LAYERED)
    found = [terms.locate(lon[i : i + batch], lat[i : i + batch]) for i in range(0, len(points), batch)]
    for x, y, number in zip(lon, lat, np.concatenate(found).tolist() if found else [], strict=True):
        cell = int(LAYERED.grid.locate([x], [y])[0])
        if cell < 0:
            assert number == -1
            continue
        layers = [(name, int(grid.locate([x], [y])[0]), grid) for name, grid in LAYERED.layers.items()]
        code = LAYERED.grid.codes[cell]
        assert terms.cells[number] == CellCodes(
            code, code[:12], code[:9], "990101", tuple((name, grid.codes[i]) for name, i, grid in layers if i >= 0)
        )
    assert len(terms.cells) == len(set(terms.cells))


def test_a_cell_without_a_parent_rolls_up_by_the_prefix_of_its_code():
    codes = codes_at(PackTerms(LAYERED), 111.25, 31.25)
    assert codes == CellCodes(
        "990101001001007", "990101001001", "990101001", "990101", (("wards", "w0"), ("zones", "out"))
    )


def test_levels_that_the_city_does_not_have_stay_empty():
    """A prefix may be of a level that city.toml leaves out: whoever left it out does not count by it."""
    files = read_pack_files(SAMPLE)
    files["city.toml"] = files["city.toml"].replace(b'"county", "street", "community", "grid"', b'"community", "grid"')
    lines = files["grid.geojson"].decode().splitlines(keepends=True)
    kept = [line for line in lines if '"level":"county"' not in line and '"level":"street"' not in line]
    files["grid.geojson"] = "".join(kept).replace('"parent":"990101001"', '"parent":null').encode()
    for street in ("990101002", "990101003", "990102001", "990102002"):
        files["grid.geojson"] = files["grid.geojson"].replace(f'"parent":"{street}"'.encode(), b'"parent":null')
    del files["devices.csv"], files["places.csv"]
    lon, lat = shapely.point_on_surface(PACK.grid.geometries[CELLS[0]]).coords[0]
    code = PACK.grid.codes[CELLS[0]]
    codes = codes_at(PackTerms(parse_pack(files)), lon, lat)
    assert (codes.grid_code, codes.community_code, codes.street_code, codes.county_code) == (
        code,
        code[:12],
        None,
        None,
    )


@pytest.mark.parametrize("covered", [True, False])
def test_an_incident_carries_the_code_of_the_other_layer_beside_the_grid_s(covered):
    layer = PACK.layers[make_sample.OTHER_LAYER]
    inner = shapely.point_on_surface(PACK.grid.geometries[CELLS])
    lon, lat = shapely.get_x(inner), shapely.get_y(inner)
    row = int(np.flatnonzero((layer.locate(lon, lat) >= 0) == covered)[0])
    report = {"id": "p1", "time": 0, "worker_id": "w", "category": "06013", "lon": lon[row], "lat": lat[row]}
    replay = Replay(PACK, TEST_KEY)
    replay.take([RecordedMessage("patrol.reports", json.dumps({**report, "crs": "wgs84"}).encode())])
    (incident,) = replay.incidents()
    assert incident.grid_code == PACK.grid.codes[CELLS[row]]
    expected = layer.codes[int(layer.locate([lon[row]], [lat[row]])[0])] if covered else None
    assert incident.layer_codes == ({make_sample.OTHER_LAYER: expected} if covered else {})
