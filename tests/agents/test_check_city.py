"""`citybrain check-city`: what it prints and how it exits."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from agents.commands.check_city import check_city

CITY = 'name = "x"\ncode = "x"\ntimezone = "Asia/Shanghai"\nlevels = ["street", "grid"]\n'
CATALOGUE = '[[category]]\ncode = "a"\nname = "A"\ngroup = "a"\nradius_m = 10\nwindow_s = 60\n'


def cell(code, level, parent, west, east):
    ring = [[west, 37], [east, 37], [east, 38], [west, 38], [west, 37]]
    properties = {"code": code, "level": level, "parent": parent, "name": code}
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}


@pytest.fixture
def pack(tmp_path):
    def write(*cells):
        body = ",\n".join(json.dumps(c) for c in cells)
        (tmp_path / "city.toml").write_text(CITY)
        (tmp_path / "catalogue.toml").write_text(CATALOGUE)
        (tmp_path / "grid.geojson").write_text(f'{{"type": "FeatureCollection", "features": [\n{body}\n]}}')
        return tmp_path

    return write


STREET = cell("s", "street", None, 113, 114)
WEST, EAST = cell("w", "grid", "s", 113, 113.5), cell("e", "grid", "s", 113.5, 114)


def run(*arguments):
    return CliRunner().invoke(check_city, [str(a) for a in arguments])


def test_a_good_pack_exits_0(pack):
    result = run(pack(STREET, WEST, EAST))
    assert result.exit_code == 0
    assert result.output.endswith(": 0 faults, 0 warnings: good\n")


def test_a_fault_is_a_line_with_file_and_line_and_exits_1(pack):
    folder = pack(STREET, WEST, cell("e", "grid", "s", 113.4, 114))
    result = run(folder)
    assert result.exit_code == 1
    first, last = result.output.splitlines()
    assert first.startswith(f"{folder}/grid.geojson:4: cell 'e' overlaps cell 'w' of line 3 by ")
    assert last == f"{folder}: 1 fault, 0 warnings: refused"


def test_a_gap_is_a_warning_unless_strict(pack):
    folder = pack(STREET, WEST)
    assert run(folder).exit_code == 0
    assert "grid.geojson:2: warning: cell 's': its children leave a gap of 4,9" in run(folder).output
    assert run(folder, "--strict").exit_code == 1


def test_json_says_the_same(pack):
    result = run(pack(STREET, WEST), "--json")
    answer = json.loads(result.output)
    assert result.exit_code == 0
    assert answer["ok"]
    assert len(answer["version"]) == 16
    assert [(f["file"], f["line"], f["severity"]) for f in answer["faults"]] == [("grid.geojson", 2, "warning")]
    assert not json.loads(run(pack(STREET, WEST), "--json", "--strict").output)["ok"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    result = run(tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "no such folder; a city pack is a folder with city.toml in it" in result.output
    assert json.loads(run(tmp_path / "nowhere", "--json").output)["version"] is None


def test_an_empty_folder_lists_what_is_missing(tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 1
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in result.output.splitlines()[:3]] == [
        "city.toml",
        "grid.geojson",
        "catalogue.toml",
    ]


def test_help_has_an_example_and_wrong_usage_exits_2():
    assert "citybrain check-city packs/sample" in run("--help").output
    assert run().exit_code == 2
