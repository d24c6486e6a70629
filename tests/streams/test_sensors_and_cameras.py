"""Sensors and cameras from their message to the incident, told as things that happen; and what they get wrong."""

from __future__ import annotations

import json

import pytest
from city_scenario import CATALOGUE_TOML, City, at_ms, make_pack

from streams.intake import SourceRecord
from streams.messages import TOPIC_OF_SOURCE
from streams.pack import PackError

RULES = """
[[rule]]
metric = "depth"
unit = "cm"
above = 15
clear = 10
for_s = 120
category = "manhole"

[[rule]]
metric = "gas"
above = 10
category = "other"
"""
PACK = make_pack(catalogue=CATALOGUE_TOML + RULES)
YEARS_MS = 73 * 366 * 86_400_000


@pytest.fixture
def city() -> City:
    return City(PACK)


# ---------------------------------------------------------------------------------------------------------- sensors


def test_water_that_stays_for_two_minutes_is_one_report_until_it_has_gone(city):
    """Trembling around the bound raises nothing more, and after it was dry the next flood is news of the same place."""
    depths = [4, 20, 20, 20, 14, 16, 14, 16, 9, 20, 20, 20]
    became = [city.read(at=f"00:{minute:02}:00", value=depth) for minute, depth in enumerate(depths)]
    assert became == ["quiet"] * 3 + ["opened"] + ["quiet"] * 7 + ["joined"]
    assert city.one().sources == {"iot": 2}


def test_a_rule_waits_on_over_a_restart_of_the_fold_and_of_intake(city):
    """It is 20 cm deep from the first minute on; the fold dies after the second, and intake as well after the third."""
    assert [city.read(at=f"0{minute}:00", value=20) for minute in (1, 2)] == ["quiet"] * 2
    city.restart()
    assert city.read(at="03:00", value=20) == "opened"
    city.restart(intake=True)
    assert city.read(at="04:00", value=20) == "quiet"
    assert city.read(at="05:00", value=4) == "quiet"
    city.restart(intake=True)
    assert [city.read(at=f"0{minute}:00", value=20) for minute in (6, 7, 8)] == ["quiet", "quiet", "joined"]


def test_an_edited_rule_judges_the_next_reading_and_a_restart_does_not_judge_the_old_ones_by_it(city):
    assert city.read(at="00:00", value=12, metric="gas") == "opened"
    city.change(make_pack(catalogue=CATALOGUE_TOML + RULES.replace("above = 10", "above = 30")))
    assert city.read(at="00:10", value=20, metric="gas") == "quiet"
    assert city.read(at="00:20", value=31, metric="gas") == "joined"
    before = city.shard.incidents()
    city.restart()
    assert city.shard.incidents() == before


def test_an_alarm_that_comes_through_two_platforms_counts_once(city):
    """Each platform gives it an id of its own; another alarm of the same device is another report."""
    for platform, number in (("a", 1), ("b", 70)):
        extra = {"platform": platform, "device_id": "cover-1"}
        city.report(at="00:00", source="iot", category="cover_open", report_id=f"{platform}{number}", **extra)
        city.report(at="05:00", source="iot", category="cover_open", report_id=f"{platform}{number + 1}", **extra)
    assert city.outcomes == ["opened", "joined", "repeat", "repeat"]
    assert (city.one().report_count, city.one().repeat_count, city.one().version) == (2, 2, 2)


def test_a_cleared_alarm_is_quiet_and_closes_nothing(city):
    city.report(at="00:00", source="iot", category="cover_open", device_id="cover-1")
    assert city.report(at="00:10", source="iot", category="cover_open", device_id="cover-1", state="cleared") == "quiet"
    assert (city.one().status, city.one().version) == ("open", 1)


def test_a_device_whose_alarm_flaps_for_a_night_is_one_incident(city):
    """Raised and cleared every ten minutes, each time under a new id."""
    for minute in range(0, 480, 10):
        for state in ("raised", "cleared"):
            at = f"{minute // 60:02}:{minute % 60:02}:0{int(state == 'cleared')}"
            city.report(at=at, source="iot", category="cover_open", device_id="cover-1", state=state)
    assert (city.one().report_count, city.one().repeat_count) == (48, 0)


def test_a_device_is_where_its_message_says_and_else_where_the_registry_does():
    """It is carried over the river, and then fifty kilometres off, from where it cannot be this city's."""
    city = City(make_pack(catalogue=CATALOGUE_TOML + RULES, devices="cover-1,gauge,-0.001,0.001,,3,,\n"))
    assert city.read(at="00:00", value=20, metric="gas") == "opened"
    assert city.read(at="00:10", value=0, metric="gas") == "quiet"
    assert city.read(at="00:20", value=20, metric="gas", lon=0.02, lat=-0.001) == "opened"
    assert city.read(at="00:30", value=0, metric="gas", lon=0.45, lat=0) == "outside_city"
    assert city.read(at="00:40", value=0, metric="gas", lon=0.02, lat=-0.001) == "quiet"
    assert city.read(at="00:50", value=20, metric="gas", lon=0.02, lat=-0.001) == "joined"
    codes = [one.grid_code for one in sorted(city.shard.incidents(), key=lambda one: one.opened_at)]
    assert codes == ["990101001001002", "990102"]
    assert city.dead_letters[-1].detail.startswith("0.450000, 0.000000 (WGS-84) lies in no cell of 试验市")


def test_what_is_known_to_be_one_asset_is_so_wherever_it_is_said_to_be(city):
    """Its gauge says that it is two kilometres off; nobody carries a manhole."""
    assert city.read(at="00:00", value=20, metric="gas") == "opened"
    assert city.read(at="00:10", value=0, metric="gas") == "quiet"
    assert city.read(at="00:20", value=20, metric="gas", lon=0.02, lat=-0.001) == "joined"


def test_a_registered_device_that_stands_outside_the_city_is_told_of_at_every_reading():
    """Of a calm reading as of an alarming one: nobody would look for what is counted as quiet."""
    pack = make_pack(catalogue=CATALOGUE_TOML + RULES, devices="far,gauge,0.45,0,,5,,\n")
    city = City(pack)
    assert [city.read(at=f"00:{i}0", value=i * 10, metric="gas", device="far") for i in range(3)] == [
        "outside_city"
    ] * 3


# ------------------------------------------------------------------------------------------------- what they get wrong


@pytest.mark.parametrize(
    ("written", "reason", "field"),
    [
        ('"value":NaN', "malformed_json", None),
        ('"value":Infinity', "malformed_json", None),
        ('"value":1e999', "out_of_range", "value"),
        ('"value":"20"', "wrong_type", "value"),
        ('"value":null', "missing_field", "value"),
        ('"value":20,"unit":"mm"', "out_of_range", "unit"),
    ],
)
def test_a_value_that_no_rule_can_judge_is_refused_and_the_next_is_judged(city, written, reason, field):
    def reading(number: int, rest: str) -> str:
        at = at_ms("00:00") + number * 120_000
        text = f'{{"id":"{number}","time":{at},"device_id":"cover-1","metric":"depth",{rest}}}'
        return city.send(SourceRecord(TOPIC_OF_SOURCE["iot"], 0, number, at, None, text.encode()))

    assert reading(0, '"value":20') == "quiet"
    assert reading(1, written) == reason
    assert city.dead_letters[-1].field == field
    assert reading(2, '"value":20,"unit":"cm"') == "opened"


def test_a_clock_that_jumps_by_years_and_returns_is_refused_and_harms_nothing_after_it(city):
    city.read(at="00:00", value=20)
    assert city.read(at=f"{73 * 365} 00:01:00", heard="00:01:00", value=0) == "future_time"
    assert city.read(at="-40 00:00:00", heard="00:01:30", value=0) == "too_old"
    assert city.read(at="02:00", value=20) == "opened"


def recorded(city: City, *lines: tuple[str, int, dict[str, object]]) -> list[str]:
    """Lines of a recording without timestamps: (source, time, fields); what became of each."""
    became = []
    for number, (source, time_ms, fields) in enumerate(lines):
        value = json.dumps({"id": f"l{number}", "time": time_ms, **fields}).encode()
        became.append(city.send(SourceRecord(TOPIC_OF_SOURCE[source], 0, number, None, None, value)))
    return became


def test_in_a_recording_without_timestamps_a_clock_years_ahead_harms_neither_rule_nor_copy_nor_watermark(city):
    """Such a line came when it says; its device's rule, other devices' copies and the watermark go on as before."""
    start = at_ms("00:00")
    depth = {"device_id": "cover-1", "metric": "depth"}
    alarm = {"device_id": "cover-1", "alarm": "cover_open"}
    ticket = {"category": "street-light", "lon": 0.001, "lat": 0.001}
    became = recorded(
        city,
        ("iot", start, {**depth, "value": 20}),
        ("iot", start + YEARS_MS, {**depth, "value": 20}),
        ("iot", start + YEARS_MS + 1, {**alarm, "device_id": "cam-1", "lon": 0.002, "lat": 0.002}),
        ("iot", start + 120_000, {**depth, "value": 20}),
        ("iot", start + 180_000, {**alarm, "platform": "a"}),
        ("iot", start + 180_000, {**alarm, "platform": "b"}),
        ("hotline", start + 240_000, ticket),
        ("hotline", start + 240_000 - 300_000, ticket),
    )
    assert became == ["quiet", "future_time", "opened", "opened", "joined", "repeat", "opened", "joined"]


def test_a_registry_with_an_id_twice_names_both_lines():
    with pytest.raises(PackError) as told:
        make_pack(devices="g1,gauge,0,0,,5,,\ng2,gauge,0,0,,5,,\ng1,gauge,0.001,0,,5,,\n")
    (fault,) = told.value.faults
    assert (fault.file, fault.line) == ("devices.csv", 4)
    assert "'g1'" in fault.message
    assert "line 2" in fault.message


# ---------------------------------------------------------------------------------------------------------- cameras


def camera(city: City, at: str, camera_id: str = "cam-1", where: tuple[float, float] | None = None, **extra) -> str:
    return city.report(at=at, source="video", category="manhole_open", where=where, camera_id=camera_id, **extra)


def test_what_a_camera_sees_is_where_the_registry_has_the_camera(city):
    """Unless its analytics say where; a camera that nobody has registered must say so itself."""
    camera(city, "00:00")
    assert (city.one().lon, city.one().lat) == (-0.002, 0.001)
    assert camera(city, "00:10", camera_id="unheard-of") == "unknown_device"
    assert camera(city, "00:20", camera_id="unheard-of", where=(-222, 110)) == "joined"


def test_a_camera_that_alarms_for_hours_about_one_scene_is_one_incident(city):
    """Every ten minutes a new alarm, and the analytics put the cover somewhere else each time."""
    jitter = [(0, 0), (12, -9), (-20, 15), (30, 5), (-4, -38)]
    outcomes = [
        camera(city, f"{minute // 60:02}:{minute % 60:02}:00", where=jitter[minute // 10 % 5])
        for minute in range(0, 360, 10)
    ]
    assert outcomes == ["opened"] + ["joined"] * 35
    assert city.one().last_report_at == "2026-03-01T05:50:00.000Z"


def test_an_alarm_after_the_scene_was_over_for_longer_than_the_window_is_another_incident(city):
    assert [camera(city, at) for at in ("00:00:00", "01:00:00", "02:00:01")] == ["opened", "joined", "opened"]


def test_two_cameras_that_look_at_one_scene_make_one_incident(city):
    for minute in range(5):
        camera(city, f"0{minute}:00", "left", where=(-15, 0))
        camera(city, f"0{minute}:30", "right", where=(15, 5))
    assert (city.one().report_count, city.one().sources) == (10, {"video": 10})


def test_one_event_that_two_platforms_pass_on_is_one_report(city):
    for platform in ("police", "city"):
        camera(city, "00:00", platform=platform, report_id=platform)
    assert city.outcomes == ["opened", "repeat"]


def test_a_confidence_travels_with_the_report_and_must_be_one(city):
    assert camera(city, "00:00", confidence=1.2) == "out_of_range"
    assert city.dead_letters[-1].field == "confidence"
    assert camera(city, "00:00", confidence=None) == "wrong_type"
    value = {"id": "v", "time": at_ms("00:00"), "camera_id": "cam-1", "event_type": "manhole", "confidence": 0.25}
    batch = city.intake.take([SourceRecord("video.events", 0, 9, at_ms("00:00"), None, json.dumps(value).encode())])
    assert batch.reports.confidence.tolist() == [0.25]
