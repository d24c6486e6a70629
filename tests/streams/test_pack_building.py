"""Building a pack: codes of 6, 9, 12 and 15 digits, from boundaries of any level, with or without names."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import shapely

from geo.datum import from_wgs84
from geo.plane import metres_per_degree
from streams.pack import parse_pack
from streams.pack_building import DEFAULT_CODE_PREFIX, BuildError, build_pack, read_boundaries, read_official_names
from streams.pack_check import check_pack

LON, LAT = 113.5, 37.8
M_LON, M_LAT = (float(m) for m in metres_per_degree(LAT))


def ring(west, south, east, north):
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    return [[round(LON + x / M_LON, 7), round(LAT + y / M_LAT, 7)] for x, y in corners]


def boundary(box, **properties):
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [ring(*box)]},
    }


def collection(*features):
    body = ",\n".join(json.dumps(feature) for feature in features)
    return f'{{"type": "FeatureCollection", "features": [\n{body}\n]}}'.encode()


def boundaries(*features, **options):
    return read_boundaries("b.geojson", collection(*features), **options)


def built(*features, cell_m=100.0, names=None, options=None, **settings):
    pack = build_pack(boundaries(*features, **(options or {})), cell_m=cell_m, name="城", names=names, **settings)
    assert check_pack(pack.files) == []
    return pack


def codes(pack, level):
    return [f["properties"]["code"] for f in cells(pack) if f["properties"]["level"] == level]


def named(pack, level):
    return {f["properties"]["code"]: f["properties"]["name"] for f in cells(pack) if f["properties"]["level"] == level}


def cells(pack):
    return json.loads(pack.files["grid.geojson"])["features"]


COUNTY = boundary((0, 0, 3000, 2000), adcode="140302", name="城区")


def test_a_county_becomes_streets_communities_and_cells():
    pack = built(COUNTY)
    assert pack.cells["county"] == 1
    assert pack.cells["grid"] == len(codes(pack, "grid")) >= 500
    assert named(pack, "county") == {"140302": "城区"}
    assert named(pack, "street") == {"140302001": "城区 001"}
    assert named(pack, "community")["140302001001"] == "城区 001 001"
    for level, digits in (("street", 9), ("community", 12), ("grid", 15)):
        assert {len(code) for code in codes(pack, level)} == {digits}
    per_community = Counter(code[:12] for code in codes(pack, "grid"))
    assert max(per_community.values()) <= 50


def test_cells_are_about_as_wide_as_asked():
    pack = built(COUNTY, cell_m=100.0)
    areas = [
        shapely.area(shapely.geometry.shape(f["geometry"])) * M_LON * M_LAT
        for f in cells(pack)
        if f["properties"]["level"] == "grid"
    ]
    assert np.median(areas) == pytest.approx(100**2, rel=0.01)
    assert min(areas) > 0.2 * 100**2


def test_the_pack_it_starts_is_loaded_and_locates():
    pack = parse_pack(built(COUNTY).files)
    assert (pack.name, pack.code, pack.levels) == ("城", "140300", ("county", "street", "community", "grid"))
    where = int(pack.grid.locate([LON + 1555 / M_LON], [LAT + 1333 / M_LAT])[0])
    assert [pack.grid.codes[i] for i in pack.grid.ancestors[where]] == [
        pack.grid.codes[where][:digits] for digits in (6, 9, 12, 15)
    ]
    assert pack.category_of("hotline", "道路积水") >= 0


def test_the_same_boundaries_make_the_same_bytes():
    features = [COUNTY, boundary((2500, 0, 5000, 2000), adcode="140303", name="矿区")]
    assert built(*features, jitter=0.3).files == built(*features, jitter=0.3).files


def test_where_two_overlap_the_smaller_code_has_it():
    """Listed the other way round, so that the order of the file cannot be what decides."""
    pack = built(boundary((2000, 0, 5000, 2000), adcode="140303", name="矿区"), COUNTY)
    area = {
        f["properties"]["code"]: shapely.area(shapely.geometry.shape(f["geometry"])) * M_LON * M_LAT
        for f in cells(pack)
        if f["properties"]["level"] == "county"
    }
    assert area == {"140302": pytest.approx(6e6, rel=1e-3), "140303": pytest.approx(4e6, rel=1e-3)}


def test_neighbourhoods_without_codes_are_numbered_under_the_prefix():
    features = [boundary((0, 0, 900, 900), name="North"), boundary((900, 0, 1800, 900), name="South")]
    assert named(built(*features), "street") == {
        f"{DEFAULT_CODE_PREFIX}001": "North",
        f"{DEFAULT_CODE_PREFIX}002": "South",
    }
    assert named(built(*features, code_prefix="361002"), "county") == {"361002": "城"}


def test_a_boundary_of_up_to_three_digits_keeps_its_number():
    features = [boundary((0, 0, 900, 900), name="A", id="15"), boundary((900, 0, 1800, 900), name="B", id=2)]
    pack = built(*features, options={"code_property": "id"})
    assert codes(pack, "street") == [f"{DEFAULT_CODE_PREFIX}002", f"{DEFAULT_CODE_PREFIX}015"]


def test_boundaries_of_several_levels_nest():
    """A street with its code, a street without, a community; the rest of the county gets a street of its own."""
    pack = built(
        COUNTY,
        boundary((0, 0, 1000, 1000), code="140302004", name="四街"),
        boundary((1000, 0, 2000, 1000), name="无名街"),
        boundary((0, 0, 500, 500), code="140302004007", name="七社区"),
        cell_m=150.0,
    )
    assert named(pack, "street") == {"140302001": "无名街", "140302002": "城区 002", "140302004": "四街"}
    communities = named(pack, "community")
    assert communities["140302004007"] == "七社区"
    assert communities["140302004001"] == "四街 001"
    seventh = next(f for f in cells(pack) if f["properties"]["code"] == "140302004007")
    assert shapely.area(shapely.geometry.shape(seventh["geometry"])) * M_LON * M_LAT == pytest.approx(250_000, rel=1e-3)


def test_the_level_property_says_what_a_boundary_is():
    features = [
        boundary((0, 0, 2000, 2000), name="县", kind="county"),
        boundary((0, 0, 1000, 2000), name="镇", kind="street"),
        boundary((0, 0, 1000, 1000), name="村", kind="community"),
    ]
    pack = built(*features, options={"level_property": "kind"}, code_prefix="361021")
    assert named(pack, "county") == {"361021": "县"}
    assert named(pack, "street")["361021001"] == "镇"
    assert named(pack, "community")["361021001001"] == "村"


def test_levels_that_the_settings_leave_out_are_left_out():
    pack = built(boundary((0, 0, 900, 900), name="North"), levels=("street", "grid"))
    assert set(pack.cells) == {"street", "grid"}
    assert {f["properties"]["parent"] for f in cells(pack)} == {None, f"{DEFAULT_CODE_PREFIX}001"}


def test_a_map_service_s_datum_is_taken_back():
    def shifted(feature):
        points = np.array(feature["geometry"]["coordinates"][0])
        lon, lat = from_wgs84(points[:, 0], points[:, 1], "gcj02")
        moved = {"type": "Polygon", "coordinates": [np.column_stack([lon, lat]).tolist()]}
        return {**feature, "geometry": moved}

    plain, again = boundaries(COUNTY)[0], boundaries(shifted(COUNTY), crs="gcj02")[0]
    assert shapely.hausdorff_distance(plain.geometry, again.geometry) * M_LAT < 1e-3


OFFICIAL = """\
village_code,village,township_code,township,county_code,county
140302001001,油娄沟社区居委会,140302001,上站街道,140302,城区
140302001002,窑坡社区居委会,140302001,上站街道,140302,城区
140302005201,某村,140302005,义井镇,140302,城区
140303001001,别处,140303001,别处街道,140303,矿区
"""


def test_official_names_decide_how_many_streets_and_communities_there_are():
    pack = built(COUNTY, names=read_official_names("n.csv", OFFICIAL.encode()))
    assert named(pack, "street") == {"140302001": "上站街道", "140302005": "义井镇"}
    assert named(pack, "community") == {
        "140302001001": "油娄沟社区居委会",
        "140302001002": "窑坡社区居委会",
        "140302005201": "某村",
    }
    assert pack.notes == ()


def test_a_community_never_has_more_cells_than_three_digits_count():
    """Three official communities would have 2,400 cells each: numbered ones are added."""
    pack = built(COUNTY, cell_m=29.0, names=read_official_names("n.csv", OFFICIAL.encode()))
    per_community = Counter(code[:12] for code in codes(pack, "grid"))
    assert 500 < max(per_community.values()) <= 999
    assert named(pack, "community")["140302001003"] == "上站街道 003"


def test_names_that_find_no_room_are_told():
    pack = built(
        boundary((0, 0, 150, 100), adcode="140302", name="城区"), names=read_official_names("n.csv", OFFICIAL.encode())
    )
    assert [note.split(":")[0] for note in pack.notes] == ["140302001 上站街道"]
    assert "room for 1 of 2 official names" in pack.notes[0]


def test_a_boundary_with_more_official_communities_than_cells_is_a_town_with_smaller_ones():
    """Its neighbour has room for its one community and keeps the large cells; without town_cell_m so does the town."""
    names = read_official_names("n.csv", OFFICIAL.encode())
    features = [
        boundary((0, 0, 900, 600), adcode="140302", name="城区"),
        boundary((900, 0, 2900, 1600), adcode="140303", name="矿区"),
    ]
    pack = built(*features, cell_m=500.0, town_cell_m=100.0, names=names)
    assert pack.notes == ("140302 城区: 3 official communities on 0.5 km²: a town, cells of 100 m",)
    assert set(named(pack, "community").values()) == {"油娄沟社区居委会", "窑坡社区居委会", "某村", "别处"}
    per_county = Counter(code[:6] for code in codes(pack, "grid"))
    assert per_county["140302"] >= 40
    assert per_county["140303"] <= 25
    plain = built(*features, cell_m=500.0, names=names)
    assert Counter(code[:6] for code in codes(plain, "grid"))["140302"] <= 6
    assert built(*features, cell_m=500.0, town_cell_m=700.0, names=names).files == plain.files


def test_communities_with_a_boundary_of_their_own_make_no_town():
    """The street's one other community has half a square kilometre: no town; alone it would have three on that."""
    names = read_official_names("n.csv", OFFICIAL.encode())
    street = boundary((0, 0, 800, 600), code="140302001", name="上站街道")
    community = boundary((0, 0, 400, 600), code="140302001001", name="油娄沟")
    assert built(street, community, cell_m=500.0, town_cell_m=100.0, names=names).notes == ()
    assert built(street, cell_m=500.0, town_cell_m=100.0, names=names).notes != ()


def test_a_boundary_under_others_is_told():
    pack = built(COUNTY, boundary((100, 100, 900, 900), adcode="140311", name="郊区"))
    assert pack.notes == ("140311 郊区: others cover it entirely; it gets no cell",)


@pytest.mark.parametrize(
    ("features", "options", "words"),
    [
        ([COUNTY, COUNTY], {}, r"b.geojson:3: code 140302 is already that of b.geojson:2"),
        (
            [boundary((0, 0, 9, 9), name="x")],
            {"level_property": "kind"},
            r"b.geojson:2: kind = None must be one of county",
        ),
        (
            [boundary((0, 0, 9, 9), id="x7")],
            {"code_property": "id"},
            r"b.geojson:2: id = 'x7' must have 1 to 3, 6, 9 or 12",
        ),
        ([boundary((0, 0, 9, 9), id="7")], {"name_property": "title"}, r"b.geojson:2: no property 'title'; it has id"),
        (
            [boundary((0, 0, 9, 9), code="140302", kind="street")],
            {"level_property": "kind"},
            r"b.geojson:2: code '140302' has 6 digits, a street's has 9",
        ),
        (
            [{"type": "Feature", "properties": {"name": "p"}, "geometry": None}],
            {},
            r"b.geojson:2: p: the feature has no geom",
        ),
        ([], {}, r"b.geojson: no boundary in it"),
    ],
)
def test_what_cannot_be_used_is_named_with_file_and_line(features, options, words):
    with pytest.raises(BuildError, match=words):
        built(*features, options=options)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cell_m": 0.1}, r"--cell-m 0.1: cells of 0.1 m make .* take \d+ m or more"),
        ({"code_prefix": "1403"}, "--code-prefix '1403' must have six digits"),
        ({"levels": ("county", "street")}, "the innermost must be grid"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, words):
    with pytest.raises(BuildError, match=words):
        built(COUNTY, **settings)


def test_a_community_with_too_many_cells_is_refused():
    with pytest.raises(
        BuildError, match=r"140302004007 七社区: \d+ cells, at most 999 can be numbered; raise --cell-m"
    ):
        built(boundary((0, 0, 3000, 2000), code="140302004007", name="七社区"), cell_m=50.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("village_code,village\n", "n.csv:1: column county, county_code, township, township_code is missing"),
        (
            OFFICIAL.replace("140302005,", "140303005,"),
            "n.csv:4: township_code = '140303005' must have 9 digits and start",
        ),
        (OFFICIAL.replace("某村", ""), "n.csv:4: village_code = '140302005201' must have 12 digits .* and a name"),
        (OFFICIAL.encode("gb18030"), "n.csv: not a CSV file in UTF-8"),
    ],
)
def test_a_list_of_names_that_cannot_be_used_is_refused(text, words):
    with pytest.raises(BuildError, match=words):
        read_official_names("n.csv", text if isinstance(text, bytes) else text.encode())
