"""The invented city: generated, flawless, and with the gaps that it is meant to have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import shapely

from geo.plane import distance_m
from packs import make_sample
from streams.intake import IntakePack
from streams.pack import CityPack, load_pack, read_pack_files
from streams.pack_check import check_pack
from streams.readings import ReadingRules
from streams.recording import RecordedMessage
from streams.replay import Replay

FOLDER = Path(make_sample.__file__).parent / "sample"


@pytest.fixture(scope="module")
def pack() -> CityPack:
    return load_pack(FOLDER)


def test_the_generator_gives_the_committed_files_byte_for_byte():
    made = make_sample.files()
    assert {path.name for path in FOLDER.iterdir()} == set(made)
    for name, text in made.items():
        assert (FOLDER / name).read_bytes() == text.encode(), f"{name}: run python -m packs.make_sample"


def test_the_check_finds_nothing_but_the_gaps_and_the_shared_names_that_are_there_on_purpose():
    found = check_pack(read_pack_files(FOLDER))
    assert [(fault.severity, fault.message.split(":")[0]) for fault in found] == [
        ("warning", "cell '990101001'"),
        ("warning", "cell '990101003002'"),
        ("warning", "place '便民市场' is already in line 165"),
        ("warning", "place '工人文化宫' is already in line 167"),
    ]


def test_cells_are_as_wide_as_those_of_real_cities(pack):
    cells = pack.grid.geometries[pack.grid.level == 3]
    lon_m = make_sample.METERS_A_DEGREE_LON
    width_m = np.sqrt(shapely.area(cells) * lon_m * make_sample.METERS_A_DEGREE_LAT)
    assert 300 <= len(cells) <= 500
    assert 100 <= width_m.min() < 120 < 165 < width_m.max() <= 190


def test_neighbours_share_their_border_exactly(pack):
    """The area of the union is the sum of the areas: neither a sliver between two cells nor one in two."""
    for level in range(len(pack.levels)):
        cells = pack.grid.geometries[pack.grid.level == level]
        assert shapely.area(shapely.union_all(cells)) == pytest.approx(shapely.area(cells).sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("blocks", "level"), [(make_sample.HILL, "community"), (make_sample.QUAY, "street")], ids=["hill", "quay"]
)
def test_a_point_without_a_grid_cell_falls_back_to_the_level_around_it(pack, blocks, level):
    city = make_sample.City()
    for block in blocks:
        x, y = city.lattice.centre(block)
        cell = int(pack.grid.locate([x / 1e7], [y / 1e7])[0])
        assert pack.levels[pack.grid.level[cell]] == level


def test_the_other_layer_lies_across_communities_and_covers_about_half_the_city(pack):
    """Reports of one community have different codes of that layer, reports of one of its cells several communities."""
    assert list(pack.layers) == [make_sample.OTHER_LAYER]
    layer = pack.layers[make_sample.OTHER_LAYER]
    assert {len(code) for code in layer.codes} == {20}
    assert set(layer.codes) == {code for code in layer.codes if code[:12] in pack.grid.index_of_code}
    city = make_sample.City()
    x, y = np.array([city.lattice.centre(block) for block in city.community_of]).T / 1e7
    of_layer = layer.locate(x, y)
    assert 0.4 < (of_layer >= 0).mean() < 0.7
    community = np.array([10 * band + number for band, number in city.community_of.values()])
    assert max(len(set(community[of_layer == cell])) for cell in range(len(layer))) >= 2
    assert max(len(set(of_layer[community == c])) for c in set(community.tolist())) >= 3


def test_every_category_can_be_reported_by_some_source_and_each_source_has_labels(pack):
    for category in pack.categories:
        assert any(category.labels.values()), category.code
    for source in pack.sources:
        assert sum(source in category.labels for category in pack.categories) >= 15


def test_confusable_neighbours_share_a_group(pack):
    group = {category.code: category.group for category in pack.categories}
    for neighbours in (
        ["06010", "06011", "06042"],
        ["09005", "09006", "09001"],
        ["06036", "08006"],
        ["06012", "06014", "06013"],
        ["07001", "07003"],
        ["90001", "90006", "90003"],
        ["90007", "90008", "06020"],
    ):
        assert len({group[code] for code in neighbours}) == 1


def test_places_lie_where_they_say_and_devices_stand_in_the_city(pack):
    for place in pack.places:
        cell = int(pack.grid.locate([place.lon], [place.lat])[0])
        assert cell >= 0, place.name
        if place.grid_code and place.accuracy_m != 30:  # 30 m: crossings, which lie on an edge
            assert pack.grid.codes[cell] == place.grid_code
    devices = list(pack.devices.values())
    assert (pack.grid.locate([d.lon for d in devices], [d.lat for d in devices]) >= 0).all()
    assert sum(d.kind == "camera" for d in devices) == 80


def test_a_road_is_vaguer_than_what_stands_on_it_by_as_much_as_it_is_long(pack):
    """At least three quarters of the crossings of a road lie within twice its accuracy."""
    roads = {name for _, name in (*make_sample.EAST_WEST_ROADS, *make_sample.NORTH_SOUTH_ROADS)}
    others = [place.accuracy_m for place in pack.places if place.name not in roads]
    for place in pack.places:
        if place.name in roads:
            assert place.accuracy_m > 2 * max(others)
            crossings = [other for other in pack.places if other.name.endswith("交叉口") and place.name in other.name]
            near = [distance_m(place.lon, place.lat, c.lon, c.lat) <= 2 * place.accuracy_m for c in crossings]
            assert len(near) in (6, 5)
            assert sum(near) >= 0.75 * len(near)


def test_names_that_two_places_share_are_told_apart_by_county_or_street(pack):
    gazetteer = IntakePack(pack).gazetteer
    assert [gazetteer.place(name, "") for name in ("便民市场", "工人文化宫")] == [None] * 2
    assert gazetteer.place("临澜区工人文化宫", "").name == "临澜区"
    for said, code in {
        "临澜区便民市场": "990101001001",
        "望岫区便民市场": "990102002002",
        "石埠街道工人文化宫": "990101002002",
        "临澜区翠屏街道工人文化宫": "990101003001",
    }.items():
        placed = gazetteer.place(said, "")
        (cell,) = pack.grid.locate([placed.lon], [placed.lat])
        assert pack.grid.codes[cell].startswith(code)


def test_the_examples_of_the_platforms_in_the_packs_own_comments_are_taken(pack):
    """What a reader of city.toml sees there is what these platforms send: a reading of 15.3 cm of water, and a fire."""
    comments = re.findall(r"^#   (.*)\n#  +(.*)$", make_sample.PLATFORMS_TOML, re.MULTILINE)
    gauge, camera = [json.loads("".join(lines)) for lines in comments]
    readings = [
        gauge | {"alarm": {"code": 0}, "msgId": n, "head": gauge["head"] | {"ts": 1780273800 + 60 * n}}
        for n in range(3)
    ]
    city = Replay(pack, b"any key")
    records = [
        RecordedMessage("iot.readings.tingwu", json.dumps([gauge, *readings]).encode()),
        RecordedMessage("video.events", json.dumps(camera).encode(), headers=[("platform", b"tingshi")]),
    ]
    _, dead_letters = city.take(records)
    assert dead_letters == []
    # The alarm, and the reading that has been over 15 cm for two minutes then.
    assert {(one.category, tuple(one.sources.items())) for one in city.incidents()} == {
        ("90001", (("iot", 2),)),
        ("90007", (("video", 1),)),
    }


def test_the_platforms_units_lead_to_those_of_the_rules(pack):
    unit_of_metric = ReadingRules.from_pack(pack).unit_of_metric
    mapping = pack.platforms["tingwu"]
    assert set(mapping.codes["metric"].values()) == set(unit_of_metric)
    assert {one.unit for conversions in mapping.units.values() for one in conversions} <= set(unit_of_metric.values())
