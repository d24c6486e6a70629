"""Platforms that name their fields their own way: what is read, what is refused and why, and writing as the inverse."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from city_scenario import KEY
from hypothesis import example, given, settings
from hypothesis import strategies as st
from platform_scenario import NOON_MS, PACK, PLATFORMS, RULE, fields_of, pack_with, read

from streams.intake import Intake, IntakeBatch, IntakeLimits, SourceRecord
from streams.messages import SOURCES, platform_topic
from streams.pack import CityPack
from streams.platform_times import TimeFormat, is_time_format
from streams.platforms import EnvelopeReader, PlatformReader, exactly, undone
from streams.refusal import Refusal
from streams.reports import LocatedReports

# ----------------------------------------------------------------------------------------------------------- reading

HEAD = {"msg": 81, "ts": NOON_MS // 1000, "dev": {"code": "cover-1", "vendor": "x"}}
EYE = {"no": "v1", "at": "2026-03-01 20:00:00", "kind": "E17", "sure": 87}


def test_a_reading_comes_out_with_our_names_units_and_codes():
    message = read("things", {"head": HEAD, "data": {"item": "WL", "val": "150", "unit": "mm"}, "more": [1, {}]})
    assert fields_of(message) == {
        "id": "81", "platform": "things", "time": NOON_MS, "device_id": "cover-1",
        "metric": "depth", "value": 15.0, "unit": "cm",
    }  # fmt: skip


def test_an_alarm_of_the_same_platform_comes_out_as_an_alarm():
    head = HEAD | {"gps": "0.001, 0.002", "err": 350}
    message = read("things", {"head": head, "data": None, "alarm": {"code": 17, "status": 1}})
    assert fields_of(message) == {
        "id": "81", "platform": "things", "time": NOON_MS, "device_id": "cover-1", "alarm": "cover_open",
        "state": "raised", "lon": 0.001, "lat": 0.002, "accuracy_m": 3.5, "crs": "gcj02",
    }  # fmt: skip


def test_a_code_that_means_nothing_makes_no_alarm_of_a_reading():
    message = read("things", {"head": HEAD, "data": {"item": "WL", "val": 3, "unit": "cm"}, "alarm": {"code": 0}})
    assert fields_of(message).get("alarm") is None


def test_an_element_of_an_envelope_has_what_stands_around_it():
    element = EYE | {"x": "0.001", "y": 0.002, "pics": [{"url": "a.jpg"}, {"url": "b.jpg"}]}
    message = read("eyes", {"head": {"camera": "cam-1"}, "body": {"list": [element]}})
    assert fields_of(message) == {
        "id": "v1", "platform": "eyes", "time": NOON_MS, "camera_id": "cam-1", "event_type": "manhole_open",
        "confidence": 0.87, "lon": 0.001, "lat": 0.002, "crs": "bd09", "snapshot_url": "a.jpg",
    }  # fmt: skip


def test_one_word_for_a_unit_is_read_in_what_the_metrics_rules_are_in():
    """Millimetres of water on a road are centimetres, those of a sewer metres; of what has no rule the first."""
    rules = RULE + RULE.replace("depth", "sewer").replace('"cm"', '"m"')
    mm = 'mm = [{ unit = "cm", factor = 0.1 }, { unit = "m", factor = 0.001 }]'
    pack = pack_with(PLATFORMS.replace('mm = { unit = "cm", factor = 0.1 }', mm), rules=rules)
    record = changed(READING, "data.unit", "mm")
    for metric, value, unit in (("WL", 0.3, "cm"), ("sewer", 0.003, "m"), ("else", 0.3, "cm")):
        message = fields_of(read("things", changed(record, "data.item", metric), pack))
        assert (message["value"], message["unit"]) == (value, unit)


def test_an_id_may_be_made_of_several_values_and_constants_are_as_the_platform_would_say_them():
    message = read("counts", {"time": "2026-03-01T12:00:00Z", "dev": 5, "v": 31, "vendor": "a"})
    assert fields_of(message) == {
        "id": "5-2026-03-01T12:00:00Z", "platform": "a", "time": NOON_MS, "device_id": "5",
        "metric": "depth", "value": 3.1, "unit": "cm",
    }  # fmt: skip


def test_an_id_is_joined_in_the_mappings_order_also_where_its_first_part_stands_in_the_envelope():
    message = read("rows", {"sheet": 7, "rows": [{"n": 1, "t": NOON_MS, "c": "井盖"}]})
    assert fields_of(message)["id"] == "7-1"


def test_a_message_may_name_its_datum_by_a_code():
    ticket = {"单号": "T1", "time": NOON_MS, "诉求": {"类别": "井盖"}, "位置": [0.1, 0.2]}
    assert fields_of(read("calls", ticket | {"坐标系": 2}))["crs"] == "gcj02"
    assert "crs" not in fields_of(read("calls", ticket))


@pytest.mark.parametrize("nothing", [None, "", ...], ids=["null", "an empty text", "absent"])
def test_nothing_is_null_or_an_empty_text_or_not_there(nothing):
    element = {name: value for name, value in (EYE | {"x": nothing, "y": nothing}).items() if value is not ...}
    message = read("eyes", {"head": {"camera": "cam-1"}, "body": {"list": [element]}})
    assert not {"lon", "lat", "crs"} & set(fields_of(message))


@pytest.mark.parametrize(
    ("text", "value", "ms"),
    [
        ("unix_s", 1772366400, 0),
        ("unix_s", "1772366400", 0),
        ("unix_s", 1772366400.123, 123),
        ("unix_s", "1772366400.1239", 123),
        ("unix_s", " 1772366400 ", 0),
        ("unix_s", -0.0005, -1 - 1772366400000),
        ("unix_ms", 1772366400999, 999),
        ("unix_ms", "1772366400999.9", 999),
        ("unix_ms", 1.7723664e12, 0),
        ("%Y-%m-%d %H:%M:%S", "2026-03-01 20:00:00", 0),
        ("%Y/%m/%d %H:%M", "2026/3/1 20:00", 0),
        ("%Y%m%d%H%M%S", "20260301200000", 0),
        ("%Y%m%d%H%M%S", 20260301200000, 0),
        ("%d.%m.%Y %I:%M:%S.%f %p", "01.03.2026 08:00:00.250000 PM", 250),
        ("%Y-%m-%dT%H:%M:%S%z", "2026-03-01T12:00:00+0000", 0),
    ],
)
def test_times_are_read_in_the_platforms_own_format(text, value, ms):
    assert is_time_format(text)
    assert TimeFormat(text, "Asia/Shanghai").read(value) == 1772366400000 + ms


def test_a_local_time_that_comes_twice_is_the_first_of_the_two():
    berlin = TimeFormat("%Y-%m-%d %H:%M:%S", "Europe/Berlin")
    first = 1792890000000  # 2026-10-25T01:00:00Z less an hour
    assert berlin.read("2026-10-25 02:30:00") == first - 1_800_000 == berlin.read(berlin.write(first + 1_800_000))


@pytest.mark.parametrize(
    "text", ["", "%Y-%m-%d", "%H:%M:%S", "%Y-%m-%d %I:%M", "%Q", "%Y-%m-%d %H:%M %", "now", "a\0b"]
)
def test_what_does_not_say_all_of_a_time_is_no_format(text):
    assert not is_time_format(text)


@given(st.integers(-(10**6), 10**6), st.sampled_from([(0.1, 0.0), (0.01, 0.0), (1000.0, 0.0), (0.5, -16.0)]))
@example(150, (0.1, 0.0))
def test_units_are_converted_as_by_hand(thousandths, conversion):
    """The oracle reckons in whole numbers: value * factor + offset, all of them in thousandths."""
    factor, offset = conversion
    by_hand = (thousandths * round(factor * 1000) + round(offset * 1_000_000)) / 1_000_000
    assert exactly(thousandths / 1000, factor, offset) == by_hand
    assert exactly(undone(thousandths / 1000, factor, offset), factor, offset) == pytest.approx(thousandths / 1000)


def test_a_platform_reads_a_local_time_in_its_own_zone_or_the_citys():
    utc = pack_with(PLATFORMS.replace('elements = "body', 'time_zone = "UTC"\nelements = "body'))
    record = {"head": {"camera": "cam-1"}, "body": {"list": [EYE]}}
    assert fields_of(read("eyes", record, utc))["time"] - fields_of(read("eyes", record))["time"] == 8 * 3_600_000


# ---------------------------------------------------------------------------------------------------------- refusing

READING: dict[str, Any] = {"head": HEAD, "data": {"item": "WL", "val": 3, "unit": "cm"}}
ENVELOPE: dict[str, Any] = {"head": {"camera": "cam-1"}, "body": {"list": [EYE]}}


def changed(value: dict[str, Any], path: str, to: Any) -> dict[str, Any]:
    """A copy with something else, or nothing (``...``), at a path."""
    copy = json.loads(json.dumps(value))
    part = copy
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys:
        part = part[key]
    if to is ...:
        del part[last]
    else:
        part[last] = to
    return copy


REFUSED = {
    "not JSON": ("things", b"{", "malformed_json", None),
    "not text": ("things", b"\xff", "malformed_json", None),
    "NaN": ("things", b'{"head":NaN}', "malformed_json", None),
    "nested too deeply": ("things", b'{"head":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "malformed_json", None),
    "invalid UTF-8 in a text": ("walks", b'{"id":"\xff"}', "malformed_json", "id (id)"),
    "an array": ("things", b"[[]]", "not_an_object", None),
    "a text": ("things", b'"x"', "not_an_object", None),
    "nothing that a path of the mapping leads to": (
        "things", changed(READING, "head.dev.code", ...), "missing_field", "device_id (head.dev.code)",
    ),
    "no object on the way": ("things", changed(READING, "head.dev", ...), "missing_field", "device_id (head.dev.code)"),
    "null on the way": ("things", changed(READING, "head.dev", None), "missing_field", "device_id (head.dev.code)"),
    "null": ("things", changed(READING, "head.ts", None), "missing_field", "time (head.ts)"),
    "neither reading nor alarm": ("things", {"head": HEAD}, "missing_field", "alarm"),
    "a metric without value": ("things", changed(READING, "data.val", ...), "missing_field", "value"),
    "a text on the way": ("things", changed(READING, "head.dev", "x"), "wrong_type", "device_id (head.dev.code)"),
    "an object for an id": ("things", changed(READING, "head.msg", {}), "wrong_type", "id (head.msg)"),
    "half a number for an id": ("things", changed(READING, "head.msg", 0.5), "wrong_type", "id (head.msg)"),
    "words for a number": ("things", changed(READING, "data.val", "a lot"), "wrong_type", "value (data.val)"),
    "true for a number": ("things", changed(READING, "data.val", True), "wrong_type", "value (data.val)"),
    "nan as a text": ("things", changed(READING, "data.val", "nan"), "wrong_type", "value (data.val)"),
    "digits of another script": ("things", changed(READING, "data.val", "１２"), "wrong_type", "value (data.val)"),
    "a number with marks": ("things", changed(READING, "data.val", "1_000"), "wrong_type", "value (data.val)"),
    "a number of a megabyte": ("things", changed(READING, "data.val", "1" * 10**6), "wrong_type", "value (data.val)"),
    "beyond all numbers": ("things", changed(READING, "data.val", "1e999"), "out_of_range", "value (data.val)"),
    "beyond all numbers in JSON": (
        "things", json.dumps(changed(READING, "data.val", -7)).replace("-7", "1e999").encode(),
        "out_of_range", "value (data.val)",
    ),
    "a number of 400 digits": ("things", changed(READING, "data.val", 10**400), "out_of_range", "value (data.val)"),
    "an object for a position": ("things", changed(READING, "head.gps", {}), "wrong_type", "lon (head.gps[0])"),
    "half a position": ("things", changed(READING, "head.gps", "0.1"), "missing_field", "lat"),
    "lon beyond 180": ("things", changed(READING, "head.gps", [200, 0]), "out_of_range", "lon (head.gps[0])"),
    "one of 60 km": ("things", changed(READING, "head.err", 6_000_000), "out_of_range", "accuracy_m (head.err)"),
    "a time in words": ("things", changed(READING, "head.ts", "noon"), "invalid_time", "time (head.ts)"),
    "a time that is no text": ("things", changed(READING, "head.ts", [1]), "wrong_type", "time (head.ts)"),
    "a time beyond all calendars": ("things", changed(READING, "head.ts", 1e300), "invalid_time", "time (head.ts)"),
    "a time of 400 digits": ("things", changed(READING, "head.ts", 10**400), "invalid_time", "time (head.ts)"),
    "an id of 65 digits": ("things", changed(READING, "head.msg", 10**64), "out_of_range", "id (head.msg)"),
    "a state in words": ("things", changed(READING, "alarm", {"code": 17, "status": 3}), "out_of_range", "state"),
    "a local time of another format": (
        "eyes", changed(ENVELOPE, "body.list.0.at", "2026-03-01T20:00:00"), "invalid_time", "time (at)",
    ),
    "a local time of the year 0": (
        "eyes", changed(ENVELOPE, "body.list.0.at", "0001-01-01 00:00:00"), "invalid_time", "time (at)",
    ),
    "a naive RFC 3339": (
        "counts", {"time": "2026-03-01T12:00:00", "dev": "d", "v": 1}, "invalid_time", "time (time)",
    ),
    "a number for RFC 3339": ("counts", {"time": NOON_MS, "dev": "d", "v": 1}, "invalid_time", "time (time)"),
    "more than sure": ("eyes", changed(ENVELOPE, "body.list.0.sure", 101), "out_of_range", "confidence (sure)"),
    "no envelope": ("eyes", EYE, "missing_field", "elements (body.list)"),
    "an array for an envelope": ("eyes", [EYE], "not_an_object", None),
    "an object for the elements": ("eyes", changed(ENVELOPE, "body.list", {}), "wrong_type", "elements (body.list)"),
    "nothing in the envelope": ("eyes", changed(ENVELOPE, "head", ...), "missing_field", "camera_id (^head.camera)"),
    "an element that is none": ("eyes", changed(ENVELOPE, "body.list.0", 5), "not_an_object", None),
    "a position of a patrol that is missing": (
        "walks", {"id": "1", "time": "2026-03-01T12:00:00Z", "who": "w", "what": "other"}, "missing_field", "lon (lon)",
    ),
}  # fmt: skip


def test_a_good_reading_is_what_the_refused_ones_differ_from():
    assert fields_of(read("things", READING))["value"] == 3.0
    assert fields_of(read("eyes", ENVELOPE))["confidence"] == 0.87


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_message_is_refused_by_both_names_of_its_field(case):
    name, value, reason, field = REFUSED[case]
    batch = take(PACK, record(name, value))
    (letter,) = batch.dead_letters
    assert (letter.reason.value, letter.field) == (reason, field), letter.detail
    assert len(letter.detail) < 400
    assert letter.topic == platform_topic(PACK.platforms[name].source, name)


def test_numbers_of_people_do_not_show_in_a_refusal():
    for field in ("head.ts", "data.val"):
        refusal = read("things", changed(READING, field, "call 13812345678"))
        assert isinstance(refusal, Refusal)
        assert "13812345678" not in refusal.detail
    envelope = changed(ENVELOPE, "body.list.0.at", "13812345678")
    (letter,) = take(PACK, record("eyes", envelope)).dead_letters
    assert "13812345678" not in letter.detail


# -------------------------------------------------------------------------------------------------- through the intake


def record(name: str, value: Any, *, offset: int = 0, header: bool = False, pack: CityPack = PACK) -> SourceRecord:
    """A record on the platform's own topic or, with the header, on its source's."""
    raw = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    topic = platform_topic(pack.platforms[name].source, name)
    if header:
        return SourceRecord(topic.removesuffix(f".{name}"), 0, offset, NOON_MS, None, raw, name)
    return SourceRecord(topic, 0, offset, NOON_MS, None, raw)


def take(pack: CityPack, *records: SourceRecord, limits: IntakeLimits | None = None) -> IntakeBatch:
    batch = Intake(pack, KEY, limits).take(records)
    assert batch.elements == len(batch.reports) + len(batch.feedback) + len(batch.dead_letters) + batch.quiet_readings
    assert batch.elements == sum(batch.elements_by_source.values())
    return batch


def columns_of(reports: LocatedReports, *but: str) -> dict[str, str]:
    return {name: repr(getattr(reports, name).tolist()) for name in LocatedReports.__slots__ if name not in but}


@pytest.mark.parametrize("header", [False, True], ids=["its own topic", "the header"])
@pytest.mark.parametrize("name", ["things", "eyes"])
def test_the_topic_or_the_header_chooses_the_mapping(name, header):
    alarm = {"head": HEAD, "alarm": {"code": 17}}
    batch = take(PACK, record(name, alarm if name == "things" else ENVELOPE, header=header))
    source = PACK.platforms[name].source
    assert [SOURCES[number] for number in batch.reports.source] == [source]
    assert batch.reports.platform.tolist() == [name]
    assert batch.elements_by_source == {source: 1}


def test_a_header_without_a_mapping_changes_nothing():
    native = {"id": "1", "time": NOON_MS, "device_id": "cover-1", "alarm": "cover_open"}
    raw = json.dumps(native).encode()
    batches = [
        take(PACK, SourceRecord("iot.readings", 0, 0, NOON_MS, None, raw, platform))
        for platform in (None, "somebody", "eyes")
    ]
    assert len({str(columns_of(batch.reports)) for batch in batches}) == 1
    assert len(batches[0].reports) == 1


def test_a_topic_of_no_platform_is_our_own_mistake():
    with pytest.raises(ValueError, match=r"iot.readings.eyes is not a source topic; known: .*, video.events.eyes"):
        take(PACK, SourceRecord("iot.readings.eyes", 0, 0, NOON_MS, None, b"{}"))


def test_a_reading_in_a_unit_that_nobody_maps_is_a_dead_letter():
    """Neither of ours nor of the platform's words; in ours it is judged, and no rule minds."""
    units = ["cm", "mm", "dm"]
    batch = take(
        PACK, *(record("things", changed(READING, "data.unit", unit), offset=n) for n, unit in enumerate(units))
    )
    (letter,) = batch.dead_letters
    assert (letter.offset, letter.reason.value, letter.field) == (2, "out_of_range", "unit")
    assert letter.detail == "nobody maps unit 'dm' of metric depth; its rules are in 'cm'"


def test_a_misspelt_unit_of_the_pack_is_a_dead_letter_and_no_flood():
    pack = pack_with(PLATFORMS.replace('"data.unit?"', '"data.untis"'))
    (letter,) = take(pack, record("things", changed(READING, "data.val", 20))).dead_letters
    assert (letter.reason.value, letter.field) == ("missing_field", "unit (data.untis)")
    assert letter.detail == "nothing at data.untis, where the platform's mapping has unit"


BAD_ELEMENTS = {
    "an array": b"[{}, {}]",
    "a wrong type": b'{"no": {},  "at":1}',
    "invalid UTF-8": b'{"no":"\xff"}',
    "an unknown label": json.dumps(EYE | {"kind": "??"}).encode(),
    "too large": json.dumps(EYE | {"note": "x" * (1 << 20)}).encode(),
    "from 1970": json.dumps(EYE | {"at": "1970-01-01 08:00:00"}).encode(),
}


@pytest.mark.parametrize("bad", BAD_ELEMENTS)
def test_of_an_envelope_only_the_bad_element_goes_with_its_exact_bytes(bad):
    elements = [json.dumps(EYE | {"no": str(number)}).encode() for number in range(50)]
    elements[7] = BAD_ELEMENTS[bad]
    raw = b'{ "head":{"camera":"cam-1"},"body" : {"list": [ ' + b" ,\n".join(elements) + b' ] , "n":1}}'
    batch = take(PACK, record("eyes", raw))
    (letter,) = batch.dead_letters
    assert (letter.index, letter.value) == (7, BAD_ELEMENTS[bad])
    assert batch.reports.index.tolist() == [*range(7), *range(8, 50)]


def test_an_envelope_of_nothing_has_no_element_and_a_larger_one_than_may_be_is_refused_whole():
    assert take(PACK, record("eyes", changed(ENVELOPE, "body.list", []))).elements == 0
    raw = json.dumps(changed(ENVELOPE, "body.list", [EYE] * 50)).encode()
    limits = IntakeLimits(max_value_bytes=1000)
    (letter,) = take(PACK, record("eyes", raw), limits=limits).dead_letters
    assert (letter.reason.value, letter.value) == ("too_large", raw)


@pytest.mark.parametrize("header", [False, True])
def test_of_an_array_of_a_platform_only_the_bad_element_goes(header):
    elements = [json.dumps(changed(READING, "head.msg", n)).encode() for n in range(300)]
    elements[123] = b'{"head": {"msg":  {} } }'
    batch = take(PACK, record("things", b"[" + b", ".join(elements) + b"]", header=header))
    (letter,) = batch.dead_letters
    assert (letter.index, letter.value) == (123, elements[123])
    assert batch.quiet_readings + len(batch.reports) == 299


# ----------------------------------------------------------------------------------------------------------- fuzzing

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["0.001,0.002", "17", "cover-1", "12.5", "mm", "2026-03-01 20:00:00", NOON_MS, NOON_MS // 1000])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
GOOD = {
    "things": READING,
    "eyes": ENVELOPE,
    "counts": {"time": "2026-03-01T12:00:00Z", "dev": "cover-1", "v": 3},
    "calls": {"单号": "T1", "time": NOON_MS, "诉求": {"类别": "井盖", "内容": "x"}, "位置": [0.1, 0.2], "坐标系": "1"},
    "rows": {"sheet": 7, "rows": [{"n": 1, "t": NOON_MS, "c": "井盖", "lxr": "WX-1"}]},
    "walks": {"id": "1", "time": "2026-03-01T12:00:00Z", "who": "w", "what": "other", "lon": 0.001, "lat": "0.001"},
}


def paths_in(value: Any, path: str = "") -> list[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [
        below for key, one in inner for below in (f"{path}{key}", *paths_in(one, f"{path}{key}."))
    ]  # fmt: skip


@st.composite
def almost(draw: st.DrawFn, name: str) -> bytes:
    """A good record with something else at some paths, keys given twice, perhaps with a byte changed."""
    value = GOOD[name]
    for path in draw(st.lists(st.sampled_from(paths_in(value)), max_size=2, unique=True)):
        if path in paths_in(value):
            value = changed(value, path, draw(values | st.just(...)))
    raw = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 4)) == 0:
        raw = "{" + f"{json.dumps(draw(st.sampled_from(list(GOOD[name]))))}:{json.dumps(draw(values))}," + raw[1:]
    data = bytearray(raw.encode())
    if draw(st.integers(0, 4)) == 0:
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=150)
@given(st.sampled_from(list(GOOD)), st.data())
def test_whatever_a_platform_sends_is_accounted_for_and_nothing_raises(name, data):
    lone = st.binary(max_size=12) | values.map(json.dumps).map(str.encode) | almost(name)
    several = st.lists(lone, max_size=4).map(lambda parts: b"[" + b",".join(parts) + b"]")
    raws = data.draw(st.lists(lone | several, max_size=4))
    batch = take(PACK, *(record(name, raw, offset=offset) for offset, raw in enumerate(raws)))
    assert all(letter.value in raws[letter.offset] for letter in batch.dead_letters)
    for letter in batch.dead_letters:
        msgspec.json.encode(letter.record())


@given(st.sampled_from(["things", "counts", "calls", "walks"]), st.data())
def test_alone_or_in_an_array_a_platforms_message_fares_the_same(name, data):
    raw = data.draw(almost(name))
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # no element of an array that is JSON
    alone = take(PACK, record(name, raw))
    for array in (b"[" + raw + b"]", b"[" + raw + b",5]"):
        batch = take(PACK, record(name, array))
        refusals = [(letter.reason, letter.field, letter.value) for letter in batch.dead_letters if letter.index == 0]
        assert refusals == [(letter.reason, letter.field, letter.value) for letter in alone.dead_letters]
        assert columns_of(batch.reports) == columns_of(alone.reports)


def is_utf8(raw: bytes) -> bool:
    return raw.decode(errors="ignore").encode() == raw


@given(st.sampled_from(list(GOOD)), st.data())
def test_the_shape_is_only_a_shortcut(name, data):
    """Whatever is read by the typed decode is what the look field by field finds.

    What is not UTF-8 where nobody looks, the one skips as it does in messages of ours, and the other cannot.
    """
    raw = data.draw(almost(name).filter(is_utf8))
    mapping = PACK.platforms[name]
    reader = PlatformReader(mapping, "UTC", {}) if mapping.elements is None else EnvelopeReader(mapping, "UTC", {})
    shape = reader._shape if isinstance(reader, PlatformReader) else reader._around
    quick, slow = shape.read(raw), shape._look(raw)
    assert (quick if isinstance(quick, Refusal) else list(quick)) == slow
