"""`citybrain build-pack`, on real boundaries and on bad ones."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest
from click.testing import CliRunner

from agents.commands.build_pack import build_pack_command
from agents.commands.check_city import check_city
from streams.pack import load_pack


def run(*arguments):
    return CliRunner().invoke(build_pack_command, [str(a) for a in arguments])


def square(name="广场", **properties):
    ring = [[113.5, 37.8], [113.51, 37.8], [113.51, 37.81], [113.5, 37.81], [113.5, 37.8]]
    feature = {"type": "Feature", "properties": {"name": name, **properties}}
    feature["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


@pytest.fixture
def boundary(tmp_path):
    file = tmp_path / "boundary.geojson"
    file.write_text(square())
    return file


def test_boston_s_neighbourhoods_become_a_pack_without_a_fault(city_data, tmp_path):
    """Four of the 26 polygons are invalid and three pairs overlap; twice the same bytes."""
    out = [tmp_path / "one" / "boston", tmp_path / "two" / "boston"]
    for folder in out:
        result = run("--boundaries", city_data / "boston/neighborhoods.geojson.gz", "--cell-m", 150, "--out", folder)
        assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{out[1]}: 1 county, 26 street, ")
    files = sorted(path.name for path in out[0].iterdir())
    assert files == ["catalogue.toml", "city.toml", "devices.csv", "grid.geojson", "places.csv"]
    assert all((out[0] / name).read_bytes() == (out[1] / name).read_bytes() for name in files)
    strict = CliRunner().invoke(check_city, [str(out[0]), "--strict"])
    assert strict.output.endswith(": 0 faults, 0 warnings: good\n")
    pack = load_pack(out[0])
    assert pack.name == "boston"
    assert 5_500 < sum(pack.grid.level == 3) < 6_500
    assert max(Counter(code[:12] for code in pack.grid.codes if len(code) == 15).values()) <= 999
    # City Hall, Fenway Park, and a point in the harbour.
    where = pack.grid.locate([-71.0580, -71.0972, -71.0200], [42.3604, 42.3467, 42.3500])
    streets = [pack.grid.names[pack.grid.ancestors[i, 1]] if i >= 0 else None for i in where]
    assert streets == ["Downtown", "Fenway", None]


@pytest.mark.parametrize(
    ("city", "name", "code", "towns"), [("yangquan", "阳泉市", "140300", 2), ("fuzhou", "抚州市", "361000", 0)]
)
def test_a_city_s_counties_get_all_their_official_townships_and_communities(
    city_data, tmp_path, city, name, code, towns
):
    """Kilometre cells outside towns: Yangquan's two inner districts have 121 communities on 27 km²."""
    out = tmp_path / city
    folder = city_data / city
    result = run(
        "--boundaries", folder / "counties.geojson", "--names", folder / "townships_villages.csv.gz",
        "--cell-m", 1000, "--name", name, "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    *notes, last = result.output.splitlines()
    assert len(notes) == towns
    assert all(note.endswith(": a town, cells of 150 m") for note in notes)
    assert last.startswith(f"{out}: ")
    strict = CliRunner().invoke(check_city, [str(out), "--strict"])
    assert (strict.exit_code, strict.output) == (0, f"{out}: 0 faults, 0 warnings: good\n")
    pack = load_pack(out)
    assert (pack.name, pack.code) == (name, code)
    rows = [
        row.split(",")
        for row in gzip.decompress((folder / "townships_villages.csv.gz").read_bytes()).decode().splitlines()[1:]
    ]
    official = {row[2]: row[3] for row in rows} | {row[0]: row[1] for row in rows}
    assert {c: n for c, n in zip(pack.grid.codes, pack.grid.names, strict=True) if len(c) in (9, 12)} == official


def test_settings_that_are_there_stay_and_say_the_levels(boundary, tmp_path):
    out = tmp_path / "pack"
    out.mkdir()
    settings = 'name = "x"\ncode = "x"\ntimezone = "Asia/Shanghai"\nlevels = ["street", "grid"]\n'
    (out / "city.toml").write_text(settings)
    (out / "grid.geojson").write_text("an older grid")
    result = run("--boundaries", boundary, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert answer["written"] == ["grid.geojson", "catalogue.toml", "devices.csv", "places.csv"]
    assert list(answer["cells"]) == ["street", "grid"]
    assert (out / "city.toml").read_text() == settings
    assert load_pack(out).levels == ("street", "grid")


def test_several_files_may_follow_one_option(boundary, tmp_path):
    second = tmp_path / "second.geojson"
    second.write_text(square("另一个").replace("113.5", "113.6"))
    result = run("--boundaries", boundary, second, "--out", tmp_path / "pack", "--json")
    assert json.loads(result.output)["cells"]["street"] == 2


def test_what_is_wrong_with_other_files_of_the_pack_is_told(boundary, tmp_path):
    out = tmp_path / "pack"
    out.mkdir()
    (out / "devices.csv").write_text("id,kind\n")
    result = run("--boundaries", boundary, "--out", out)
    assert result.exit_code == 1
    assert f"{out}/devices.csv:1: column 'lon' is missing" in result.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not json", "boundary.geojson:1: a GeoJSON file must be one JSON object"),
        (b"\x1f\x8bnot gzip", "boundary.geojson: cannot be read"),
        (gzip.compress(square().encode())[:-20], "boundary.geojson: cannot be read"),
        (None, "boundary.geojson: cannot be read (No such file or directory); check the path and its permissions"),
        (square(code="77").encode(), None),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(boundary, tmp_path, content, words):
    if content is None:
        boundary.unlink()
    else:
        boundary.write_bytes(content)
    result = run("--boundaries", boundary, "--out", tmp_path / "pack")
    if words is None:
        assert result.exit_code == 0
    else:
        assert result.exit_code == 1
        assert words in result.output
        assert len(result.output.splitlines()) == 1
        assert not (tmp_path / "pack").exists()


def test_settings_that_cannot_be_read_are_named(boundary, tmp_path):
    out = tmp_path / "pack"
    out.mkdir()
    (out / "city.toml").write_text("levels = 3\n")
    assert "city.toml: levels = 3 must be a list of names" in run("--boundaries", boundary, "--out", out).output
    (out / "city.toml").write_text("levels = \n")
    assert (
        "city.toml: cannot be read, so the grid's levels are not known"
        in run("--boundaries", boundary, "--out", out).output
    )


def test_an_unwritable_folder_is_one_line(boundary, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run("--boundaries", boundary, "--out", tmp_path / "file" / "pack")
    assert result.exit_code == 1
    assert "cannot be" in result.output


def test_help_has_an_example_and_wrong_usage_exits_2(tmp_path):
    assert "citybrain build-pack --boundaries" in run("--help").output
    assert run("--out", tmp_path).exit_code == 2
    assert run("--boundaries", tmp_path / "nowhere", "--out", tmp_path, "--cell-m", "0").exit_code == 2
