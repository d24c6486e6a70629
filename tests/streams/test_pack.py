"""The city pack: what a good one becomes, and every fault of a bad one with file and line."""

from __future__ import annotations

import json
import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo.datum import from_wgs84
from geo.plane import distance_m
from streams.match_check import read_match
from streams.pack import (
    Category,
    Fault,
    PackError,
    Place,
    Related,
    Rule,
    Sla,
    SourceEntry,
    load_pack,
    parse_pack,
    read_pack_files,
)
from streams.pack_check import check_pack, pack_version
from streams.pack_entries import PACK_FILES
from streams.terms import PackTerms
from streams.toml_lines import TomlLines
from streams.witnesses import UNKNOWN_ODDS, odds_of

CITY = """\
name = "示范市"
code = "140300"
timezone = "Asia/Shanghai"
levels = ["county", "street"]

[source.hotline]
accuracy_m = 120
crs = "bd09"
fallback_category = "06010"
confidence = 0.6
witness = "none"
[source.video]
crs = "gcj02"
"""

CATALOGUE = """\
# Line 1 of the catalogue.
[[category]]
code = "90001"
name = "道路积水"
group = "water"
radius_m = 80
window_s = 7200
accuracy_cap_m = 25
reopen_s = 86400
priority = 1
department = "排水处"
[category.sla]
amount = 2
unit = "urgent_hour"
[category.labels]
hotline = ["积水", "淹水"]
video = ["flood"]

[[category]]
code = "06010"
name = "暴露垃圾"
group = "waste"
radius_m = 40
window_s = 3600.5
[category.labels]
# The same word from another source may mean something else.
video = ["积水"]

[[category]]
code = "ask"
name = "咨询"
group = "none"
event = false

[[rule]]
metric = "depth_cm"
above = 15
clear = 10
for_s = 120
category = "90001"

[[rule]]
metric = "pressure"
below = -0.5
category = "90001"
priority = 2

[[related]]
a = "90001"
b = "06010"
similarity = 0.25
"""

DEVICES = """\
# A comment, and below it an empty line.

id,kind,lon,lat,crs,accuracy_m,asset_id,expected_interval_s
wl-1,water_level,113.2,37.2,,5,pipe-7,300
cam-1,camera,113.2,37.2,,,,
"wl-2",water_level,113.3,37.3,bd09,,,
"""

PLACES = """\
name,aliases,lon,lat,crs,accuracy_m,grid_code
人民广场,广场|市民广场| ,113.5,37.5,,80,140302001
"老火车站",,113.6,37.6,wgs84,,
"""

HOLIDAYS = """\
date,kind
2026-10-01,holiday
2026-10-10,workday
"""


def cell(code, level, parent, west, east):
    ring = [[west, 37.0], [east, 37.0], [east, 38.0], [west, 38.0], [west, 37.0]]
    properties = {"code": code, "level": level, "parent": parent, "name": code}
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}


CELLS = [
    cell("140302", "county", None, 113.0, 114.0),
    cell("140302001", "street", "140302", 113.0, 113.5),
    cell("140302002", "street", "140302", 113.5, 114.0),
]


def grid(*cells):
    body = ",\n".join(json.dumps(c) for c in cells)
    return f'{{"type": "FeatureCollection", "features": [\n{body}\n]}}'


def pack_files(**changes):
    """A flawless pack; `city=`, `catalogue=` … replace a file's text, None leaves it out."""
    texts = {
        "city.toml": changes.get("city", CITY),
        "grid.geojson": changes.get("grid", grid(*CELLS)),
        "catalogue.toml": changes.get("catalogue", CATALOGUE),
        "devices.csv": changes.get("devices", DEVICES),
        "places.csv": changes.get("places", PLACES),
        "holidays.csv": changes.get("holidays", HOLIDAYS),
    }
    return {name: text.encode() if isinstance(text, str) else text for name, text in texts.items() if text is not None}


# ------------------------------------------------------------------------------------------------- a good pack


def test_a_flawless_pack_has_nothing_to_say():
    assert check_pack(pack_files()) == []


def test_every_entry_arrives_as_written():
    pack = parse_pack(pack_files())
    assert (pack.name, pack.code, pack.timezone, pack.levels) == (
        "示范市",
        "140300",
        "Asia/Shanghai",
        ("county", "street"),
    )
    assert pack.groups == ("none", "waste", "water")
    assert [category.code for category in pack.categories] == ["06010", "90001", "ask"]
    assert pack.categories[1] == Category(
        code="90001",
        name="道路积水",
        group="water",
        radius_m=80.0,
        window_s=7200.0,
        accuracy_cap_m=25.0,
        reopen_s=86400.0,
        event=True,
        priority=1,
        department="排水处",
        sla=Sla(2.0, "urgent_hour"),
        match=read_match(None, None, 80.0, 7200.0),
        labels={"hotline": ("积水", "淹水"), "video": ("flood",)},
    )
    assert pack.categories[0].accuracy_cap_m == 30.0
    assert not pack.categories[2].event
    assert pack.rules == (
        Rule("depth_cm", 15.0, None, 10.0, 120.0, "90001", 1, None),
        Rule("pressure", None, -0.5, None, 0.0, "90001", 2),
    )
    assert pack.related == (Related("90001", "06010", 0.25),)
    assert pack.holidays == {date(2026, 10, 1): "holiday", date(2026, 10, 10): "workday"}
    assert tuple(pack.places) == (
        Place("人民广场", ("广场", "市民广场"), 113.5, 37.5, 80.0, "140302001"),
        Place("老火车站", (), 113.6, 37.6, 100.0, None),
    )
    assert pack.warnings == ()


def test_sources_without_an_entry_have_the_documented_defaults():
    sources = parse_pack(pack_files()).sources
    assert sources["iot"] == SourceEntry("iot", 50.0, "wgs84", None, None, "device_id")
    assert sources["patrol"].witness == "worker_id"
    assert sources["hotline"] == SourceEntry("hotline", 120.0, "bd09", "06010", 0.6, None)
    assert sources["video"] == SourceEntry("video", 50.0, "gcj02", None, None, "camera_id")


def test_a_category_may_say_how_far_it_believes_whom_and_what_is_too_little():
    told = CATALOGUE.replace("priority = 1", "priority = 1\nconfirm_below = 0.65").replace(
        "[category.sla]", "[category.confidence]\nvideo = 0.6\nhotline = 1\n[category.sla]"
    )
    pack = parse_pack(pack_files(catalogue=told))
    waste, flood, _ = pack.categories
    assert (flood.confirm_below, flood.confidence) == (0.65, {"video": 0.6, "hotline": 1.0})
    assert (waste.confirm_below, waste.confidence) == (None, {})
    little, most, unknown = odds_of(0.6), odds_of(0.99), UNKNOWN_ODDS
    by_code = {category.code: category for category in PackTerms(pack).categories}
    assert by_code["90001"].odds == (unknown, little, most, unknown), "its own word before the source's"
    assert by_code["06010"].odds == (unknown, unknown, odds_of(0.6), unknown)
    assert (by_code["90001"].confirm_odds, by_code["06010"].confirm_odds) == (odds_of(0.65), unknown)


def test_devices_are_brought_to_wgs84_from_their_own_datum_or_their_sources():
    """A water gauge has the iot entry's datum, a camera the video entry's, a device that names one its own."""
    devices = parse_pack(pack_files()).devices
    gauge, camera, shifted = devices["wl-1"], devices["cam-1"], devices["wl-2"]
    assert (gauge.lon, gauge.lat, gauge.accuracy_m, gauge.asset_id, gauge.expected_interval_s) == (
        113.2,
        37.2,
        5.0,
        "pipe-7",
        300.0,
    )
    assert (camera.kind, camera.accuracy_m, camera.asset_id, camera.expected_interval_s) == ("camera", None, None, None)
    for device, crs, lon, lat in ((camera, "gcj02", 113.2, 37.2), (shifted, "bd09", 113.3, 37.3)):
        x, y = from_wgs84([device.lon], [device.lat], crs)
        assert distance_m(x[0], y[0], lon, lat) < 1e-3
        assert distance_m(device.lon, device.lat, lon, lat) > 500


def test_a_label_belongs_to_its_source_and_a_code_to_all():
    pack = parse_pack(pack_files())
    flood, waste = pack.category_index("90001"), pack.category_index("06010")
    assert (waste, flood, pack.category_index("ask"), pack.category_index("?")) == (0, 1, 2, -1)
    assert pack.category_of("hotline", "淹水") == flood
    assert pack.category_of("hotline", "积水") == flood
    assert pack.category_of("video", "积水") == waste
    assert pack.category_of("patrol", "积水") == -1
    assert pack.category_of("patrol", "90001") == flood
    # The fallback is the caller's decision.
    assert pack.category_of("hotline", "unheard of") == -1


def test_optional_files_may_be_missing():
    pack = parse_pack(pack_files(devices=None, places=None, holidays=None))
    assert (pack.devices, len(pack.places), pack.holidays) == ({}, 0, {})


def test_the_version_is_that_of_the_content():
    files = pack_files()
    version = parse_pack(files).version
    assert len(version) == 16
    assert int(version, 16) >= 0
    assert parse_pack(dict(reversed(files.items()))).version == version
    assert pack_version({**files, "README.md": b"not part of the pack"}) == version
    for name in files:
        assert pack_version({**files, name: files[name] + b"\n"}) != version
    without = {name: content for name, content in files.items() if name != "holidays.csv"}
    # Content may not wander from one file to the next unseen.
    assert len({pack_version(without), pack_version({**without, "holidays.csv": b""}), version}) == 3


def test_a_pack_is_read_from_its_folder(tmp_path):
    for name, content in pack_files(holidays=None).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").write_text("left alone")
    assert set(read_pack_files(tmp_path)) == set(PACK_FILES) - {"holidays.csv"}
    assert load_pack(tmp_path).version == parse_pack(pack_files(holidays=None)).version


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(PackError, match=r"nowhere: no such folder") as caught:
        load_pack(tmp_path / "nowhere")
    assert [fault.line for fault in caught.value.faults] == [None]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "city.toml").mkdir()
    with pytest.raises(PackError, match=r"city\.toml: cannot be read: Is a directory"):
        load_pack(tmp_path)


# -------------------------------------------------------------------------------------------------- bad packs


def edited(text, old, new):
    assert old in text
    return text.replace(old, new, 1)


CITY_ROWS = [
    ('name = "示范市"\n', "", None, "name is missing"),
    ('"140300"', '"14 03"', 2, "code = '14 03' must match"),
    ('"Asia/Shanghai"', '"Asia/Bejing"', 3, "timezone = 'Asia/Bejing' is not in the IANA"),
    ('"Asia/Shanghai"', '"../etc/passwd"', 3, "is not in the IANA"),
    ('["county", "street"]', "[]", 4, "levels = [] must be a list of names"),
    ('["county", "street"]', '["county", "county", "street"]', 4, "names a level twice"),
    ('["county", "street"]', '["street", "county"]', 4, "from outermost to innermost"),
    ("accuracy_m = 120", "accuracy_m = 5001", 7, "accuracy_m = 5001 must be a number, from 0 to 5000"),
    ("accuracy_m = 120", "accuracy_m = nan", 7, "accuracy_m = nan must be a number"),
    ("accuracy_m = 120", "accuracy_m = true", 7, "accuracy_m = True must be a number"),
    ('"bd09"', '"bd-09"', 8, "crs = 'bd-09' must be one of wgs84, cgcs2000, gcj02, bd09"),
    ('"06010"', '"06099"', 9, "fallback_category = '06099' is no category of catalogue.toml"),
    ("0.6", "1.5", 10, "confidence = 1.5 must be a number, from 0 to 1"),
    ('"none"', '"phone"', 11, "witness = 'phone' must be one of none, id,"),
    ("[source.video]", "[source.drone]", 12, "source 'drone' is not one of iot, video, hotline, patrol"),
    ("[source.video]", "[source.video", 12, "invalid TOML"),
    ('"示范市"', "示范市", 1, "invalid TOML"),
    ('"示范市"', "1" * 5_000, None, "invalid TOML: a whole number of more digits"),
]
CATALOGUE_ROWS = [
    ('group = "water"', 'group = "the water"', 5, "group = 'the water' must match"),
    ("radius_m = 80", "radius_m = -1", 6, "radius_m = -1 must be a number, from 0 to 5000"),
    ("radius_m = 80", 'radius_m = "80"', 6, "radius_m = '80' must be a number"),
    ("window_s = 7200\n", "", 2, "window_s is missing"),
    ("window_s = 7200", "window_s = -1", 7, "window_s = -1 must be a number"),
    ("accuracy_cap_m = 25", "accuracy_cap_m = inf", 8, "accuracy_cap_m = inf must be"),
    ("reopen_s = 86400", "reopen_s = 1e9", 9, "reopen_s = 1000000000.0 must be"),
    ("priority = 1", "priority = 5", 10, "priority = 5 must be a whole number from 1 to 4"),
    ("priority = 1", "priority = 1.5", 10, "priority = 1.5 must be a whole number"),
    ('"排水处"', '" "', 11, "department = ' ' must be a non-empty string"),
    ("amount = 2", "amount = 0", 13, "amount = 0 must be a number, above 0"),
    ('"urgent_hour"', '"fortnight"', 14, "unit = 'fortnight' must be one of urgent_hour, work_hour"),
    ('hotline = ["积水", "淹水"]', 'phone = ["积水"]', 16, "unknown label source 'phone'"),
    ('["flood"]', '"flood"', 17, "labels of video = 'flood' must be a list"),
    ('["flood"]', '["积水"]', 27, "duplicate label '积水': video already means category '90001' by it"),
    ('["flood"]', '["06010"]', 17, "label '06010' of video is the code of another category"),
    ('code = "ask"', 'code = "90001"', 30, "duplicate category '90001', already defined in line 3"),
    ("event = false", 'event = "no"\nradius_m = 0\nwindow_s = 0', 33, "event = 'no' must be true or false"),
    ("above = 15\n", "", 35, "either above or below, and not both"),
    ("above = 15", "above = 15\nbelow = 1", 35, "either above or below, and not both"),
    ("above = 15", "above = inf", 37, "above = inf must be a number, finite"),
    ("clear = 10", "clear = 16", 38, "clear = 16 must not be over above = 15"),
    ("for_s = 120", "for_s = -1", 39, "for_s = -1 must be"),
    ('category = "90001"', 'category = "9"', 40, "category = '9' is no category of this catalogue"),
    ("for_s = 120", 'for_s = 120\nunit = ""', 40, "unit = '' must be a non-empty string"),
    ("for_s = 120", f'for_s = 120\nunit = "{"m" * 33}"', 40, "unit = 'mmmmm"),
    ('metric = "pressure"', f'metric = "{"p" * 65}"', 43, "metric = 'ppppp"),
    ('b = "06010"', 'b = "6010"', 50, "b = '6010' is no category of this catalogue"),
    ('b = "06010"', 'b = "90001"', 50, "category '90001' is related to itself"),
    ("similarity = 0.25", "similarity = 2", 51, "similarity = 2 must be a number, from 0 to 1"),
    ("[category.sla]", "[[category.sla]]", 12, "sla = "),
    ("priority = 1", "priority = 1\nconfirm_below = 1", 11, "confirm_below = 1 must be a number, from 0 to 0.99"),
    (
        "[category.sla]",
        "[category.confidence]\nvideo = 2\n[category.sla]",
        13,
        "video = 2 must be a number, from 0 to 1",
    ),
    ("[category.sla]", "[category.confidence]\nphone = 0.5\n[category.sla]", 13, "unknown source 'phone'"),
    ("priority = 1", "priority = 1\nconfidence = 0.5", 11, "confidence = 0.5 must be a table"),
]
DEVICE_ROWS = [
    (
        "wl-1,water_level,113.2,37.2",
        "wl-1,water_level,213.2,37.2",
        4,
        "lon = '213.2' must be a number from -180 to 180",
    ),
    ("wl-1,water_level,113.2,37.2", "wl-1,water_level,,37.2", 4, "lon = '' must be a number"),
    ("wl-1,water_level,113.2,37.2", "wl-1,water_level,nan,37.2", 4, "lon = 'nan' must be a number"),
    ("wl-1,water_level", ",water_level", 4, "id = '' must have 1 to 64 characters"),
    ("cam-1", "wl-1", 5, "duplicate device 'wl-1', already in line 4"),
    ("bd09", "bd90", 6, "crs = 'bd90' must be one of"),
    ("pipe-7,300", "pipe-7,0", 4, "expected_interval_s = '0' must be"),
    ("pipe-7,300", "pipe-7", 4, "7 values where the header has 8 columns"),
    ('"wl-2",', '"wl-2,', 6, "broken CSV"),
    ('"wl-2",', '"wl-2"x,', 6, "broken CSV"),
    ("id,kind,lon", "id,sort,lon", 3, "column 'kind' is missing"),
    ("asset_id", "crs", 3, "column 'crs' is there twice"),
]
PLACE_ROWS = [
    ("140302001", "140302009", 2, "grid_code = '140302009' is no cell of grid.geojson"),
    ("80,", "-1,", 2, "accuracy_m = '-1' must be a number from 0 to 5000"),
    ("人民广场,", ",", 2, "name = '' must have"),
]
HOLIDAY_ROWS = [
    ("2026-10-01", "2026-13-01", 2, "date = '2026-13-01' must be a day"),
    ("workday", "shopping", 3, "kind = 'shopping' must be one of holiday, workday"),
    ("2026-10-10", "2026-10-01", 3, "date 2026-10-01 is there twice"),
]
ROWS = [
    (key, text, *row)
    for key, text, rows in (
        ("city", CITY, CITY_ROWS),
        ("catalogue", CATALOGUE, CATALOGUE_ROWS),
        ("devices", DEVICES, DEVICE_ROWS),
        ("places", PLACES, PLACE_ROWS),
        ("holidays", HOLIDAYS, HOLIDAY_ROWS),
    )
    for row in rows
]
FILE = dict(zip(("city", "grid", "catalogue", "devices", "places", "holidays"), PACK_FILES, strict=True))


@pytest.mark.parametrize(
    ("key", "text", "old", "new", "line", "words"), ROWS, ids=[f"{row[0]}: {row[-1]}" for row in ROWS]
)
def test_a_fault_has_its_file_and_line(key, text, old, new, line, words):
    """One slip, one fault: nothing else is blamed for it."""
    faults = [f for f in check_pack(pack_files(**{key: edited(text, old, new)})) if f.severity == "fault"]
    assert [(fault.file, fault.line) for fault in faults] == [(FILE[key], line)]
    assert words in faults[0].message
    assert str(faults[0]).startswith(FILE[key] if line is None else f"{FILE[key]}:{line}: ")


MATCH_ROWS = [
    ("prior = 3001", "fault", "prior = 3001 must be a whole number from -3000 to 3000"),
    ("prior = -0.5", "fault", "prior = -0.5 must be a whole number"),
    ("spread_m = -1", "fault", "spread_m = -1 must be a number, from 0 to 5000"),
    ("alike_km2 = 0", "fault", "alike_km2 = 0 must be a number, from 1e-06 to 1e+06"),
    ("decay_s = 0", "fault", "decay_s = 0 must be a number, from 1 to"),
    ("same_place_m = nan", "fault", "same_place_m = nan must be a number"),
    ("same_place = true", "fault", "same_place = True must be a whole number"),
    ('same_place_window_s = "a day"', "fault", "same_place_window_s = 'a day' must be a number"),
    ("same_place_decay_s = -1", "fault", "same_place_decay_s = -1 must be a number, from 1 to"),
    ("text_percent = 1001", "fault", "text_percent = 1001 must be a whole number from 0 to 1000"),
    ("busy_percent = -1", "fault", "busy_percent = -1 must be a whole number from 0 to 1000"),
    ("rival_percent = 1.5", "fault", "rival_percent = 1.5 must be a whole number"),
    ("gap_percent = -1", "fault", "gap_percent = -1 must be"),
    ("rhythm_percent = -1", "fault", "rhythm_percent = -1 must be"),
    ("unrelated = 2", "fault", "unrelated = 2 must be a number, from 0 to 1"),
    ("reopening = 9999", "fault", "reopening = 9999 must be"),
    ("sigmas = 0", "fault", "sigmas = 0 must be a whole number from 1 to 5"),
    ("rethink = 9999", "fault", "rethink = 9999 must be"),
    ("rethink_s = -1", "fault", "rethink_s = -1 must be a number, from 0 to"),
    ("pairs = 3", "fault", "pairs = 3 must be a table"),
    ('pairs = { "patrol-drone" = 1 }', "fault", "'patrol-drone' is no pair of sources"),
    ("pairs = { patrol-patrol = 0.5 }", "fault", "patrol-patrol = 0.5 must be a whole number"),
    ("again = 3", "fault", "again = 3 must be a table"),
    ("again = { drone = 1 }", "fault", "'drone' is no source; one of iot, video, hotline, patrol"),
    ("again = { patrol = 0.5 }", "fault", "patrol = 0.5 must be a whole number"),
    ("prio = 3", "warning", "prio is not a key that is known here"),
]


@pytest.mark.parametrize(("line", "severity", "words"), MATCH_ROWS, ids=[row[0] for row in MATCH_ROWS])
@pytest.mark.parametrize("of", ["all", "one"])
def test_a_fault_of_how_evidence_is_weighed_has_its_file_and_line(of, line, severity, words):
    """Once, also where it is said for all categories."""
    if of == "all":
        catalogue = f"{CATALOGUE}\n[match]\n{line}\n"
    else:
        catalogue = edited(CATALOGUE, "[category.sla]", f"[category.match]\n{line}\n[category.sla]")
    (fault,) = check_pack(pack_files(catalogue=catalogue))
    assert (fault.file, fault.line, fault.severity) == (
        "catalogue.toml",
        catalogue.split("\n").index(line) + 1,
        severity,
    )
    assert words in fault.message


def test_what_one_category_says_of_its_evidence_stands_over_what_all_say():
    common = "\n[match]\nprior = -50\nspread_m = 9\ngap_percent = 70\n[match.pairs]\nvideo-video = 5\niot-iot = 6\n"
    common += "[match.again]\nvideo = 7\niot = 8\n"
    own = (
        "[category.match]\nspread_m = 30\n[category.match.pairs]\niot-iot = 60\n[category.match.again]\niot = 80\n"
        "[category.sla]"
    )
    pack = parse_pack(pack_files(catalogue=edited(CATALOGUE, "[category.sla]", own) + common))
    first, second, _ = sorted((category for category in pack.categories), key=lambda one: one.code != "90001")
    assert (first.match.prior, first.match.spread_m, first.match.gap_percent) == (-50, 30.0, 70)
    assert (second.match.prior, second.match.spread_m, second.match.gap_percent) == (-50, 9.0, 70)
    assert first.match.pairs == {("video", "video"): 5, ("iot", "iot"): 60}
    assert second.match.pairs == {("video", "video"): 5, ("iot", "iot"): 6}
    assert (first.match.again, second.match.again) == ({"video": 7, "iot": 80}, {"video": 7, "iot": 8})


def test_of_what_nobody_says_radius_and_window_decide():
    match = parse_pack(pack_files()).categories[1].match
    assert (match.prior, match.spread_m, match.decay_s, match.same_place_window_s) == (None, 24.0, 7200.0, 7200.0)
    assert match.alike_km2 == pytest.approx(1e6 / (math.pi * 80**2))
    assert (match.sigmas, match.rethink_s, match.pairs, match.again) == (1, 0, {}, {})


@pytest.mark.parametrize(
    ("added", "severity", "line", "words"),
    [
        (
            "metric='depth_cm'\nabove=15\nclear=9\nfor_s=120\npriority=2\ncategory='90001'",
            "fault",
            52,
            "duplicate rule: line 35 has one for the same metric, bound, time and category",
        ),
        (
            "metric='new'\nabove=1\nunit='cm'\ncategory='90001'\n"
            "[[rule]]\nmetric='new'\nabove=2\ncategory='06010'\n"
            "[[rule]]\nmetric='new'\nabove=3\nunit='mm'\ncategory='06010'",
            "fault",
            64,
            "unit = 'mm': the rule in line 52 has new in 'cm'",
        ),
        (
            "metric='depth_cm'\nbelow=11\nclear=12\ncategory='06010'",
            "warning",
            52,
            "no value of depth_cm is clear by all its rules",
        ),
        ("metric='depth_cm'\nabove=90\ncategory='ask'", "warning", 55, "category = 'ask' is no event"),
    ],
    ids=lambda value: value if str(value)[:2] in ("du", "un", "no", "ca") else "",
)
def test_a_rule_that_disagrees_with_another_or_with_its_category(added, severity, line, words):
    faults = check_pack(pack_files(catalogue=f"{CATALOGUE}[[rule]]\n{added}\n"))
    assert [(fault.file, fault.line, fault.severity) for fault in faults] == [("catalogue.toml", line, severity)]
    assert words in faults[0].message


def test_rules_of_one_metric_may_differ_in_bound_time_or_category():
    """A higher bound may report at once, and the same bound something else."""
    added = "".join(
        f"[[rule]]\nmetric='depth_cm'\n{terms}\n"
        for terms in (
            "above=40\nclear=10\nfor_s=120\ncategory='90001'",
            "above=15\nclear=10\nfor_s=0\ncategory='90001'",
            "above=15\nclear=10\nfor_s=120\ncategory='06010'",
            "below=-15\nfor_s=120\ncategory='90001'\nunit='cm'",
        )
    )
    assert check_pack(pack_files(catalogue=CATALOGUE + added)) == []
    assert [rule.unit for rule in parse_pack(pack_files(catalogue=CATALOGUE + added)).rules] == [None] * 5 + ["cm"]


@pytest.mark.parametrize("name", ["city.toml", "grid.geojson", "catalogue.toml"])
def test_a_required_file_that_is_missing_is_named(name):
    files = pack_files()
    del files[name]
    faults = [fault for fault in check_pack(files) if fault.severity == "fault"]
    assert [(fault.file, fault.line) for fault in faults] == [(name, None)]
    assert "missing" in faults[0].message


def test_a_file_that_is_not_utf8_is_named_with_its_line():
    faults = check_pack(pack_files(devices=DEVICES.encode() + b"x,camera,\xff,2,,,,\n"))
    assert [(fault.file, fault.line, fault.message) for fault in faults] == [("devices.csv", 7, "not UTF-8: byte 0xff")]


def test_a_byte_order_mark_is_no_fault():
    """Spreadsheets write one."""
    files = {name: b"\xef\xbb\xbf" + content for name, content in pack_files().items()}
    assert check_pack(files) == []


def test_an_overlapping_pack_is_refused_with_the_same_lines_everywhere():
    overlapping = [CELLS[0], CELLS[1], cell("140302002", "street", "140302", 113.4, 114.0)]
    files = pack_files(grid=grid(*overlapping))
    with pytest.raises(PackError) as caught:
        parse_pack(files)
    assert caught.value.faults == [fault for fault in check_pack(files) if fault.severity == "fault"]
    assert str(caught.value).startswith("grid.geojson:4: cell '140302002' overlaps cell '140302001' of line 3 by 98")


def test_all_files_are_checked_at_once():
    files = pack_files(
        city=edited(CITY, "0.6", "6"), catalogue=edited(CATALOGUE, "priority = 1", "priority = 9"), holidays="date\n"
    )
    assert [(fault.file, fault.line) for fault in check_pack(files)] == [
        ("city.toml", 10),
        ("catalogue.toml", 10),
        ("holidays.csv", 1),
    ]


@pytest.mark.parametrize(
    ("changes", "line", "words"),
    [
        ({"city": edited(CITY, "confidence", "trust")}, 10, "trust is not a key"),
        ({"catalogue": edited(CATALOGUE, "metric = ", 'units = "cm"\nmetric = ')}, 36, "units is not a key"),
        ({"devices": edited(DEVICES, "113.2,37.2,,5", "13.2,37.2,,5")}, 4, "lies in no cell of the grid"),
        ({"devices": edited(DEVICES, "asset_id", "asset")}, 3, "column 'asset' is not known"),
        ({"places": edited(PLACES, "老火车站", "广场")}, 3, "place '广场' is already in line 2"),
        ({"grid": grid(CELLS[0], CELLS[1])}, 2, "its children leave a gap of 4,9"),
    ],
)
def test_what_may_be_meant_is_a_warning_and_the_pack_is_taken(changes, line, words):
    files = pack_files(**changes)
    faults = check_pack(files)
    assert [(fault.line, fault.severity) for fault in faults] == [(line, "warning")]
    assert words in faults[0].message
    assert ": warning: " in str(faults[0])
    parse_pack(files)


def test_a_level_without_an_output_column_is_a_warning():
    faults = check_pack(pack_files(city=edited(CITY, '["county",', '["region", "county",')))
    assert [(fault.file, fault.line, fault.severity) for fault in faults] == [("city.toml", 4, "warning")]


def test_hundreds_of_faults_are_counted_and_the_first_shown():
    cells = [cell(f"x{i}", "nowhere", None, 113.0, 114.0) for i in range(300)]
    with pytest.raises(PackError) as caught:
        parse_pack(pack_files(grid=grid(*cells), places=None))
    assert len(caught.value.faults) == 300
    assert str(caught.value).endswith("and 280 more; `citybrain check-city` lists them all")


def test_a_fault_is_shown_as_file_line_message():
    assert str(Fault("a.csv", 7, "m")) == "a.csv:7: m"
    assert str(Fault("a.csv", None, "m", "warning")) == "a.csv: warning: m"


@given(st.sampled_from(PACK_FILES), st.binary(max_size=40), st.integers(0, 200))
def test_no_bytes_whatever_break_the_check(name, junk, at):
    """Whatever is in a file, the answer is a list of faults, and the pack is refused exactly if one is a fault."""
    files = pack_files()
    files[name] = files[name][:at] + junk + files[name][at + len(junk) :]
    faults = check_pack(files)
    assert all(fault.file in PACK_FILES and (fault.line is None or fault.line >= 1) for fault in faults)
    if any(fault.severity == "fault" for fault in faults):
        with pytest.raises(PackError):
            parse_pack(files)
    else:
        parse_pack(files)


# --------------------------------------------------------------------------------------------- lines of TOML


def test_every_key_of_a_toml_text_has_its_line():
    text = '''\
a = 1
text = """
[not.a.table]
b = 2
"""
[t]
list = [
  "x",  # ]
  "]",
]
'quoted key' = 1
x.y = 2
[[t.rows]]
k = 1
[[t.rows]]
k = { c = 3 }
[t.rows.sub]
s = \'\'\'one line\'\'\'
z = 0
'''
    lines = TomlLines(text)
    expected = {
        ("a",): 1,
        ("text",): 2,
        ("t",): 6,
        ("t", "list"): 7,
        ("t", "list", 1): 7,
        ("t", "quoted key"): 11,
        ("t", "x", "y"): 12,
        ("t", "rows", 0, "k"): 14,
        ("t", "rows", 1): 15,
        ("t", "rows", 1, "k", "c"): 16,
        ("t", "rows", 1, "sub"): 17,
        ("t", "rows", 1, "sub", "z"): 19,
        ("t", "rows", 1, "missing"): 15,
        ("missing",): None,
    }
    assert {path: lines.line(path) for path in expected} == expected
