"""Real readings: a week of speeds at the loop detectors of Los Angeles' freeways, and the pack that judges them."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from benchmarks import readings
from packs.loops import make_recording
from streams.pack import load_pack
from streams.pack_building import build_pack, read_boundaries
from streams.readings import ReadingRules

SENSORS = "sensor_id,latitude,longitude\n7,34.10,-118.30\n8,34.11,-118.31\n9,34.12,-118.32\n"
SPEEDS = """\
created_utc,7,9,8
2012-03-01T08:00:00Z,64.38,0,60
2012-03-01T08:05:00Z,,12.5,60
2012-03-01T08:10:00Z,0.0,,61
"""


@pytest.fixture
def made(tmp_path):
    with gzip.open(tmp_path / "speeds.csv.gz", "wt") as file:
        file.write(SPEEDS)
    (tmp_path / "sensors.csv").write_text(SENSORS)
    told = make_recording.main(tmp_path / "speeds.csv.gz", tmp_path / "sensors.csv", tmp_path / "out")
    return told, tmp_path / "out"


def test_a_silent_detector_becomes_no_reading(made):
    """Neither an empty field nor a speed of 0 is a standstill."""
    told, out = made
    with gzip.open(out / "recording.jsonl.gz", "rt") as lines:
        records = [json.loads(line) for line in lines]
    assert [[(each["device_id"], each["value"]) for each in record["value"]] for record in records] == [
        [("7", 64.38), ("8", 60.0)],
        [("9", 12.5), ("8", 60.0)],
        [("8", 61.0)],
    ]
    assert told.startswith("5 readings of 3 detectors in 3 records; 4 missing; 0 on straight lines")
    assert all(record["timestamp"] == record["value"][0]["time"] + 300_000 for record in records)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        pytest.param([60, 61, 62, 63, 64, 65, 70], 6, id="six on a line"),
        pytest.param([60, 61, 62, 63, 64, 66, 70], 0, id="five are as likely measured"),
        pytest.param([60.0, 60.33, 60.67, 61.0, 61.33, 61.67], 6, id="rounded to two decimals"),
        pytest.param([60, 60, 60, None, 60, 60, 60], 0, id="a gap parts them"),
        pytest.param([50, 50, 50, 50, 50, 50, 50, 60, 59, 58, 57, 56, 55], 13, id="two lines"),
    ],
)
def test_what_lies_on_a_straight_line_is_counted(column, expected):
    assert make_recording.on_straight_lines([(0, [value]) for value in column]) == expected


def test_the_pack_is_whole_once_its_grid_is_built(made):
    _, out = made
    grid = build_pack(
        read_boundaries("boundary.geojson", (out / "boundary.geojson").read_bytes()), cell_m=1000, name="loops"
    ).files["grid.geojson"]
    (out / "pack" / "grid.geojson").write_bytes(grid)
    pack = load_pack(out / "pack")
    assert pack.warnings == ()
    assert (pack.devices["8"].lon, pack.devices["8"].lat) == (-118.31, 34.11)
    slow, standstill = ReadingRules.from_pack(pack).of_metric["speed_mph"]
    assert (slow.category_code, standstill.category_code) == ("slow-traffic", "standstill")
    assert standstill.priority < slow.priority


def test_a_week_of_real_readings_is_judged_as_one_by_one(city_data):
    """Rush hours and all, four of five change nothing; what is left is a report once in four hundred readings."""
    week = readings.loops(city_data / "traffic")
    found = readings.ours(week, *week.texts())
    assert found == readings.rival(week, *week.texts())
    passed = sum(len(rows) for rows in readings.passing(week, *week.texts()))
    assert (len(week.value), passed, len(found)) == (417_312, 84_409, 1_096)
    by_rule = np.bincount([rule for _, rule in found]).tolist()
    assert by_rule == [935, 161]
