"""Tickets without coordinates, from the message to the incident: placed by a name, or left for a person to place."""

from __future__ import annotations

import dataclasses
import json

import pytest
from city_scenario import CITY_TOML, KEY, City, at_ms, make_pack

from geo.grid import Grid
from geo.plane import distance_m
from streams import pack_tables
from streams.blocks import decode_block, encode_blocks
from streams.intake import Intake, IntakeBatch, SourceRecord
from streams.messages import TOPIC_OF_SOURCE
from streams.pack import CityPack, PackError

# 人民路 is a road in the west; there is a 文化宫 in either county; 外市车站 lies outside the city.
PLACES = """\
人民路,人民大街,-0.0300,0.0010,wgs84,800,
人民路12号,,-0.0302,0.0010,wgs84,15,
菜市场,,-0.0100,0.0100,wgs84,60,
文化宫,,-0.0200,0.0200,wgs84,70,
文化宫,,0.0200,0.0200,wgs84,70,
外市车站,,0.5000,0.5000,wgs84,70,
"""
AREAS = ("西城县", "沿河街道", "渡口社区", "990101001001001", "990101001001002", "东城县")


def named_pack(places: str = PLACES) -> CityPack:
    """The small city, whose areas have names."""
    pack = make_pack(places=places)
    return dataclasses.replace(pack, grid=dataclasses.replace(pack.grid, names=AREAS))


PACK = named_pack()


@pytest.fixture
def city() -> City:
    return City(PACK)


def call(city: City, at: str = "10:00", category: str = "井盖", **said: str) -> str:
    return city.report(at=at, source="hotline", category=category, where=None, **said)


def test_a_ticket_with_an_address_is_a_located_report(city):
    assert call(city, address="西城县人民路十二号门口", text="井盖没有了") == "opened"
    incident = city.one()
    assert (incident.lon, incident.lat, incident.accuracy_m) == (-0.0302, 0.001, 15)
    assert incident.grid_code == "990101001001002"
    assert (incident.community_code, incident.street_code, incident.county_code) == (
        "990101001001", "990101001", "990101",
    )  # fmt: skip


def test_the_text_is_asked_where_the_address_names_no_place(city):
    call(city, address="路口", text="菜市场附近的井盖没有了")
    incident = city.one()
    assert (incident.lon, incident.lat) == (-0.01, 0.01)
    assert incident.accuracy_m == pytest.approx((60**2 + 100**2) ** 0.5, abs=0.01)


def test_a_road_is_not_a_point(city):
    call(city, address="人民大街120号")
    assert city.one().accuracy_m == 800


def test_a_name_of_two_counties_is_told_apart_by_the_county_named(city):
    assert call(city, address="文化宫", text="东城县的") == "opened"
    assert (city.one().lon, city.one().county_code, city.one().grid_code) == (0.02, "990102", "990102")


def test_a_ticket_that_names_only_an_area_lies_in_it_as_vaguely_as_it_is_large(city):
    call(city, address="西城县渡口社区")
    incident = city.one()
    assert incident.community_code == "990101001001"
    assert 3_000 < incident.accuracy_m < 4_000


def test_a_call_and_a_camera_at_the_same_market_are_one_incident(city):
    assert call(city, at="10:00", address="菜市场") == "opened"
    metres = (-0.0100 * 111_319.491, 0.0100 * 110_574.276)
    assert city.report(at="10:05", source="video", category="manhole_open", where=metres) == "joined"
    assert city.report(at="10:06", source="patrol", category="manhole", where=metres) == "joined"
    assert city.one().sources == {"hotline": 1, "video": 1, "patrol": 1}


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({}, id="neither address nor text"),
        pytest.param({"address": "", "text": ""}, id="both empty"),
        pytest.param({"address": "无名巷", "text": "井盖没有了"}, id="no name that is known"),
        pytest.param({"address": "文化宫"}, id="a name of two places"),
        pytest.param({"address": "外市车站"}, id="a name outside the city"),
        pytest.param({"text": "拨打12345，我的电话13812345678"}, id="numbers"),
    ],
)
def test_what_cannot_be_placed_opens_an_incident_at_the_city_s_level_each_time(city, said):
    """Nobody knows whether two such tickets are about one thing: a person places them."""
    for at in ("10:00", "10:01"):
        assert call(city, at=at, **said) == "opened"
    assert len(city.incidents()) == 2
    for incident in city.shard.incidents():
        codes = (incident.grid_code, incident.community_code, incident.street_code, incident.county_code)
        assert (incident.lon, incident.lat, codes) == (None, None, (None,) * 4)
        assert incident.report_count == 1


def test_why_says_that_there_was_no_position(city):
    batch = city.intake.take([_record("hotline", address="无名巷")])
    (data,) = encode_blocks(city.intake.terms, batch.reports, batch.feedback)
    (assignment,) = city.shard.apply_block(decode_block(data, city.shard.terms)).assignments
    assert (assignment.outcome, assignment.why.rule, assignment.distance_m) == ("opened", "no_position", None)


def test_an_incident_without_a_point_attracts_nothing(city):
    call(city, address="无名巷")
    assert city.report(at="10:01", source="patrol", category="manhole", where=(0, 0)) == "opened"
    assert call(city, at="10:02", address="人民路12号") == "opened"


@pytest.mark.parametrize("said", [{}, {"address": "无名巷"}, {"address": "菜市场"}])
def test_a_question_is_no_event_wherever_it_comes_from(city, said):
    assert call(city, category="question", **said) == "not_an_event"
    assert city.incidents() == []


def test_a_ticket_sent_twice_is_a_repeat_though_it_has_no_place(city):
    assert call(city, address="无名巷", report_id="T1") == "opened"
    assert call(city, at="10:05", address="无名巷", report_id="T1") == "repeat"


# ------------------------------------------------------------------------------------------------------ intake


def _record(source: str, **fields: object) -> SourceRecord:
    at = at_ms("12:00:00")
    common: dict[str, object] = {
        "hotline": {"category": "井盖"},
        "patrol": {"worker_id": "w", "category": "manhole"},
        "video": {"camera_id": "cam-1", "event_type": "manhole_open", "confidence": 0.8},
        "iot": {"device_id": "cover-1", "alarm": "cover_open"},
    }[source]  # type: ignore[assignment]
    value = json.dumps({"id": "a", "time": at} | common | fields, ensure_ascii=False).encode()
    return SourceRecord(TOPIC_OF_SOURCE[source], 0, 0, at, None, value)


def take(*records: SourceRecord) -> IntakeBatch:
    return Intake(PACK, KEY).take(records)


def test_a_ticket_with_coordinates_does_not_ask_for_names():
    batch = take(_record("hotline", lon=-0.02, lat=-0.02, address="菜市场"))
    assert (batch.reports.lon_e7[0], batch.reports.lat_e7[0]) == (-200_000, -200_000)
    assert batch.reports.accuracy_cm[0] == 100 * 100  # the source's own
    assert (batch.placed_by_name, batch.unplaced) == (0, 0)


def test_what_a_ticket_says_of_its_accuracy_means_coordinates_that_it_does_not_have():
    assert take(_record("hotline", accuracy_m=5, address="菜市场")).reports.accuracy_cm[0] == 60 * 100


def test_the_datum_of_the_source_is_not_that_of_the_names():
    """Tickets' own coordinates are GCJ-02 here; a name's position is WGS-84 since the pack was read."""
    pack = make_pack(city=CITY_TOML.replace("[source.hotline]", '[source.hotline]\ncrs = "gcj02"'), places=PLACES)
    reports = Intake(pack, KEY).take([_record("hotline", address="菜市场")]).reports
    assert (reports.lon_e7[0], reports.lat_e7[0]) == (-100_000, 100_000)


@pytest.mark.parametrize(
    ("source", "reason"), [("patrol", "missing_field"), ("video", "unknown_device"), ("iot", "unknown_device")]
)
def test_only_tickets_are_placed_by_names(source, reason):
    """Whoever stands there, or what is mounted there, knows its position."""
    unknown = {"video": {"camera_id": "?"}, "iot": {"device_id": "?"}}.get(source, {})
    batch = take(_record(source, address="菜市场", text="菜市场", **unknown))
    assert [letter.reason.value for letter in batch.dead_letters] == [reason]
    assert (batch.placed_by_name, batch.unplaced) == (0, 0)


def test_the_middle_of_two_places_of_one_name_may_lie_outside_the_city():
    """On both banks of a river that belongs to nobody: nothing can be said, and nothing is refused."""
    banks = [("990101", -0.05, -0.001), ("990102", 0.001, 0.05)]
    features = [
        {
            "type": "Feature",
            "properties": {"code": code, "level": "county", "parent": None, "name": code},
            "geometry": {"type": "Polygon", "coordinates": [[[w, 0], [e, 0], [e, 1], [w, 1], [w, 0]]]},
        }
        for code, w, e in banks
    ]
    grid = Grid.from_geojson(json.dumps({"type": "FeatureCollection", "features": features}).encode(), PACK.levels)
    pack = make_pack(places="渡口,,-0.002,0.01,,60,\n渡口,,0.002,0.01,,60,\n")
    batch = Intake(dataclasses.replace(pack, grid=grid), KEY).take([_record("hotline", address="渡口")])
    assert (len(batch.reports), batch.placed_by_name, batch.unplaced) == (1, 0, 1)


def test_names_are_looked_for_before_texts_are_masked():
    """A number that the mask takes for a telephone's may be part of a name."""
    pack = named_pack("8001234567酒店,,-0.0100,0.0100,wgs84,60,\n")
    said = "8001234567酒店门口，我的电话13812345678"
    reports = Intake(pack, KEY).take([_record("hotline", address=said, text=said)]).reports
    assert reports.lon_e7[0] == -100_000
    assert reports.address[0] == reports.text[0] == "800****酒店门口，我的电话138****5678"


def test_tickets_without_coordinates_are_counted_by_what_became_of_them():
    refused = _record("hotline", category="??", address="菜市场")
    batch = take(
        _record("hotline", id="1", address="菜市场"),
        _record("hotline", id="2", address="人民路"),
        _record("hotline", id="3", address="无名巷"),
        _record("hotline", id="4", address="外市车站"),
        _record("hotline", id="5", lon=-0.01, lat=0.01),
        _record("iot"),
        refused,
    )
    assert len(batch.dead_letters) == 1
    assert (batch.placed_by_name, batch.unplaced) == (2, 2)


def test_places_are_those_of_the_pack_in_use(city):
    """A place that was moved is found where it is, from the next message on."""
    call(city, address="菜市场", report_id="1")
    city.change(named_pack("菜市场,,-0.0400,0.0400,wgs84,60,\n"))
    assert call(city, at="10:01", address="菜市场", report_id="2") == "opened"
    lons = sorted(incident.lon for incident in city.shard.incidents())
    assert lons == [-0.04, -0.01]


# -------------------------------------------------------------------------------------------------- many places


def _many(count: int) -> str:
    def name(n: int) -> str:
        return f"{chr(0x4E00 + n % 1009)}{chr(0x6000 + n // 1009)}路{n % 97 + 1}号"

    rows = "".join(f"{name(n)},,{-0.04 + n * 3e-7:.7f},0.01,wgs84,{n % 90 + 10},\n" for n in range(count))
    assert name(count - 1) in rows
    return rows


def test_a_hundred_thousand_places_are_all_found():
    """`python -m benchmarks.places` does it with a million."""
    pack = make_pack(places=_many(100_000))
    assert len(pack.places) == 100_000
    intake = Intake(pack, KEY)
    picked = range(0, 100_000, 9_973)
    names = [pack.places[n].name for n in picked]
    batch = intake.take([_record("hotline", id=name, address=f"请到{name}门口看看") for name in names])
    assert batch.placed_by_name == len(names)
    assert batch.reports.accuracy_cm.tolist() == [(n % 90 + 10) * 100 for n in picked]
    lon = [-0.04 + n * 3e-7 for n in picked]
    assert (distance_m(batch.reports.lon_e7 / 1e7, 0.01, lon, 0.01) < 0.02).all()


def test_more_places_than_are_taken_are_one_clear_line(monkeypatch):
    monkeypatch.setattr(pack_tables, "MAX_NAMES", 4)
    with pytest.raises(PackError, match=r"^places.csv:5: more than 4 names and aliases; no more are taken$"):
        make_pack(places=PLACES)


def test_warnings_of_one_kind_are_told_a_thousand_times_and_then_counted():
    rows = "菜市场,桥,-0.01,0.01,,,\n" * 1_500 + "菜场,,1,1,,,\n" * 1_200
    warnings = [str(warning) for warning in make_pack(places=rows).warnings]
    assert len(warnings) == 1_000 + 1 + 1 + 1_000 + 1
    assert warnings[:2] == [
        "places.csv: warning: 200 more positions that lie in no cell of the grid",
        "places.csv: warning: 3,197 more names that several places share",
    ]
    assert "places.csv:2: warning: place '桥' is never looked for: one character, or only a number" in warnings
