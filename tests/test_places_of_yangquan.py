"""Addresses made of the official names of 阳泉's townships and villages fall where those lie, or are not placed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest
from click.testing import CliRunner

from agents.commands.build_pack import build_pack_command
from geo.gazetteer import area_extents
from streams.intake import IntakePack
from streams.pack import load_pack

COUNTY, STREET, COMMUNITY = 0, 1, 2


@pytest.fixture(scope="module")
def city(city_data, tmp_path_factory):
    """Grid and gazetteer of a pack as `citybrain build-pack` makes it of the counties and the official names."""
    folder, out = city_data / "yangquan", tmp_path_factory.mktemp("yangquan") / "pack"
    arguments = ["--boundaries", folder / "counties.geojson", "--names", folder / "townships_villages.csv.gz",
                 "--cell-m", "1000", "--name", "阳泉市", "--out", out]  # fmt: skip
    result = CliRunner().invoke(build_pack_command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    made = IntakePack(load_pack(out))
    return made.pack.grid, made.gazetteer


def cells_of(grid, level):
    return [cell for cell in range(len(grid)) if grid.level[cell] == level and grid.names[cell] != grid.codes[cell]]


def is_too_coarse(grid, cell):
    return area_extents(grid.geometries[[cell]])[2][0] > 5_000


def said(name):
    """As people say it: 南关村 for 南关村委会, 晋东一社区 for 晋东一社区居委会."""
    return re.sub("社区居民?委(?:员)?会$", "社区", re.sub("村民?委(?:员)?会$", "村", name))


def where(city, address):
    """The cells around the point of an address, outermost first; None if it is not placed."""
    grid, gazetteer = city
    placed = gazetteer.place(address, "")
    if placed is None:
        return None
    assert 0 < placed.accuracy_m <= 5_000
    (cell,) = grid.locate([placed.lon], [placed.lat])
    return grid.ancestors[cell].tolist()


def test_every_village_is_found_in_its_township(city):
    grid, _ = city
    communities = cells_of(grid, COMMUNITY)
    assert len(communities) > 600
    shared_in_street = Counter((int(grid.parent[cell]), said(grid.names[cell])) for cell in communities)
    coarse = [cell for cell in communities if is_too_coarse(grid, cell)]
    assert len(coarse) <= 2
    for cell in communities:
        county, street, _, _ = grid.ancestors[cell].tolist()
        name = said(grid.names[cell])
        for address in (
            f"阳泉市{grid.names[county]}{grid.names[street]}{name}附近漏水",
            f"{grid.names[street]}{grid.names[cell]}3号楼",
            f"{grid.names[county].removesuffix('县')}{grid.names[street]}，{name}",
        ):
            around = where(city, address)
            if cell in coarse:
                assert around is None, address
            elif shared_in_street[street, name] > 1:
                assert around is None or around[STREET] == street, address
            else:
                assert around is not None, address
                assert around[COMMUNITY] == cell, address


def test_a_township_alone_is_placed_in_itself_unless_it_is_larger_than_a_message_may_be_vague(city):
    grid, _ = city
    streets = cells_of(grid, STREET)
    placed = 0
    for street in streets:
        county = int(grid.parent[street])
        around = where(city, f"{grid.names[county]}{grid.names[street]}")
        assert (around is None) == is_too_coarse(grid, street)
        assert around is None or around[STREET] == street
        placed += around is not None
    assert 0 < placed < len(streets)


def test_a_village_name_of_several_townships_is_placed_only_with_context(city):
    grid, _ = city
    of_name = defaultdict(list)
    for cell in cells_of(grid, COMMUNITY):
        of_name[said(grid.names[cell])].append(cell)
    shared = {name: cells for name, cells in of_name.items() if len(cells) > 1}
    assert len(shared) > 20
    for name, cells in shared.items():
        assert where(city, f"{name}附近漏水") is None
        counties = Counter(int(grid.ancestors[cell, COUNTY]) for cell in cells)
        for cell in cells:
            county = int(grid.ancestors[cell, COUNTY])
            around = where(city, f"{grid.names[county]}的{name}附近漏水")
            if counties[county] == 1 and len(grid.names[county]) > 2:
                assert around is not None
                assert around[COMMUNITY] == cell


def test_what_people_write_without_a_name_is_not_placed(city):
    for text in (
        "路面不平坦，希望平定群众情绪",  # 平坦镇, 平定县
        "小区南山路口桥头的井盖没有了",  # 南山路街道, 桥头街道
        "电话13812345678，身份证140303199001011234",
        "城区和郊区的路灯都不亮，矿区也是",
    ):
        assert where(city, text) is None, text


def test_counties_are_too_coarse_to_be_a_place(city):
    grid, _ = city
    counties = {grid.names[county] for county in cells_of(grid, COUNTY)}
    assert counties == {"城区", "矿区", "郊区", "平定县", "盂县"}
    assert [where(city, county) for county in counties] == [None] * 5
