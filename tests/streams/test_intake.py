"""Intake: every element comes out once, as a report, a quiet reading or a dead letter with the right reason."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from city_scenario import CITY_TOML, DAY_MS, KEY, at_ms, make_pack
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geo.datum import from_wgs84
from geo.plane import distance_m
from streams.intake import Intake, IntakeBatch, IntakeLimits, SourceRecord
from streams.messages import MESSAGE_OF_SOURCE, SOURCE_OF_TOPIC, SOURCES, TOPIC_OF_SOURCE, Reason
from streams.refusal import explain_refusal
from streams.reports import NO_POSITION, LocatedReports

PACK = make_pack()
NOON_MS = at_ms("12:00:00")
DAY_S = 86_400
GOOD: dict[str, dict[str, Any]] = {
    "iot": {"id": "a", "time": NOON_MS, "device_id": "cover-1", "alarm": "cover_open"},
    "video": {"id": "a", "time": NOON_MS, "camera_id": "cam-1", "event_type": "manhole_open", "confidence": 0.8},
    "hotline": {"id": "a", "time": NOON_MS, "category": "井盖"},
    "patrol": {"id": "a", "time": NOON_MS, "worker_id": "w", "category": "manhole", "lon": -0.001, "lat": 0.001},
}


def record(value: bytes, source: str = "hotline", *, offset: int = 0, at: int | None = NOON_MS) -> SourceRecord:
    return SourceRecord(TOPIC_OF_SOURCE[source], 0, offset, at, None, value)


def message(source: str = "hotline", *without: str, **fields: Any) -> bytes:
    changed = {name: value for name, value in (GOOD[source] | fields).items() if name not in without}
    return json.dumps(changed, ensure_ascii=False).encode()


def take(*records: SourceRecord, intake: Intake | None = None) -> IntakeBatch:
    batch = (intake or Intake(PACK, KEY)).take(records)
    assert batch.elements == len(batch.reports) + len(batch.feedback) + len(batch.dead_letters) + batch.quiet_readings
    assert batch.elements == sum(batch.elements_by_source.values())
    return batch


def refusal_of(value: bytes, source: str = "hotline", **keywords: Any) -> tuple[str, str | None]:
    (letter,) = take(record(value, source, **keywords)).dead_letters
    assert letter.value == value
    return letter.reason.value, letter.field


@pytest.mark.parametrize("source", GOOD)
def test_a_good_message_of_each_source_is_a_report(source):
    batch = take(record(message(source), source))
    assert [SOURCES[number] for number in batch.reports.source] == [source]
    assert batch.reports.time_ms.tolist() == [NOON_MS]
    assert [PACK.categories[number].code for number in batch.reports.category] == ["manhole"]


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_cannot_be_written_dates_nothing_even_where_it_is_all_there_is(time):
    """A recording's first line without a timestamp, and one that has to go by its other elements."""
    intake = Intake(PACK, KEY, one_clock=True)
    batch = take(
        record(message(time=time), at=None),
        record(b"[" + message(time=time) + b"," + message(time=NOON_MS) + b"]", at=None),
        intake=intake,
    )
    assert [letter.reason.value for letter in batch.dead_letters] == ["invalid_time"] * 2
    assert [letter.ingested_ms for letter in batch.dead_letters] == [0, NOON_MS]
    assert batch.reports.ingested_ms.tolist() == [NOON_MS]
    assert intake.marks == {("", 0): NOON_MS}


def test_feedback_with_a_key_that_no_block_could_carry_is_too_large():
    said = json.dumps(
        {"id": "f", "time": NOON_MS, "action": "close", "incident_id": "990100-covers-" + "0" * 32}
    ).encode()
    limits = IntakeLimits(max_message_bytes=1_000)
    records = [SourceRecord("dispatch.feedback", 0, size, NOON_MS, b"k" * size, said) for size in (1_000, 1_001)]
    batch = take(*records, intake=Intake(PACK, KEY, limits))
    assert len(batch.feedback) == 1
    assert [(one.reason.value, one.detail) for one in batch.dead_letters] == [
        ("too_large", "a key of 1,001 bytes, at most 1,000")
    ]


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"duplicate_of": "990100-covers-" + "1" * 32}, None),
        ({"misjoined": [{"source": "video", "report_id": "E1"}]}, None),
        ({"duplicate_of": "990100-covers-" + "0" * 32}, ("out_of_range", "duplicate_of")),
        ({"duplicate_of": "880100-covers-" + "1" * 32}, ("unknown_incident", "duplicate_of")),
        ({"misjoined": [{"source": "radar", "report_id": "E1"}]}, ("wrong_type", "misjoined")),
        ({"misjoined": [{"source": "video", "report_id": "E1"}] * 1001}, ("out_of_range", "misjoined")),
        ({"misjoined": ["E1"]}, ("wrong_type", "misjoined")),
    ],
)
def test_feedback_that_names_a_duplicate_or_what_does_not_belong_names_another_and_a_source(fields, refused):
    said = {"id": "f", "time": NOON_MS, "action": "close", "incident_id": "990100-covers-" + "0" * 32, **fields}
    batch = take(SourceRecord("dispatch.feedback", 0, 0, NOON_MS, None, json.dumps(said).encode()))
    found = [(letter.reason.value, letter.field.split("[")[0]) for letter in batch.dead_letters]
    assert found == ([] if refused is None else [refused])
    assert len(batch.feedback) == (refused is None)


def _raw(fields: str) -> bytes:
    """A ticket with fields that json.dumps would not write."""
    return message()[:-1] + b"," + fields.encode() + b"}"


BAD = {
    # JSON
    "broken JSON": (b'{"id": "a", "time"', "hotline", "malformed_json", None),
    "nothing": (b"", "hotline", "malformed_json", None),
    "not even text": (b"\xff\xfe\x00\x01", "hotline", "malformed_json", None),
    "more after the object": (message() + b"x", "hotline", "malformed_json", None),
    "a byte order mark": (b"\xef\xbb\xbf" + message(), "hotline", "malformed_json", None),
    "invalid UTF-8 in a text": (_raw('"text":"?"').replace(b"?", b"\xff"), "hotline", "malformed_json", "text"),
    "half of a surrogate pair": (_raw('"text":"\\ud83d!"'), "hotline", "malformed_json", None),
    "NaN": (_raw('"lon":NaN,"lat":1'), "hotline", "malformed_json", None),
    "Infinity": (_raw('"lon":Infinity,"lat":1'), "hotline", "malformed_json", None),
    "deep nesting": (_raw('"x":' + "[" * 50_000 + "]" * 50_000), "hotline", "malformed_json", None),
    "deep nesting without an end": (b'{"x":' + b"[" * 50_000, "hotline", "malformed_json", None),
    "an array that breaks off": (b"[" + message() + b",", "hotline", "malformed_json", None),
    # not an object
    "a string": (b'"id"', "hotline", "not_an_object", None),
    "a number": (b"5", "hotline", "not_an_object", None),
    "null": (b"null", "hotline", "not_an_object", None),
    # fields
    "no id": (message("hotline", "id"), "hotline", "missing_field", "id"),
    "no time": (message("hotline", "time"), "hotline", "missing_field", "time"),
    "no time, and a field we do not know beyond all numbers": (
        message("hotline", "time")[:-1] + b',"x":1e999}', "hotline", "missing_field", "time",
    ),
    "no category": (message("hotline", "category"), "hotline", "missing_field", "category"),
    "no worker": (message("patrol", "worker_id"), "patrol", "missing_field", "worker_id"),
    "no position of a patrol": (message("patrol", "lon", "lat"), "patrol", "missing_field", "lon"),
    "no camera": (message("video", "camera_id"), "video", "missing_field", "camera_id"),
    "no confidence": (message("video", "confidence"), "video", "missing_field", "confidence"),
    "no device": (message("iot", "device_id"), "iot", "missing_field", "device_id"),
    "neither reading nor alarm": (message("iot", "alarm"), "iot", "missing_field", "alarm"),
    "a metric without value": (message("iot", "alarm", metric="level"), "iot", "missing_field", "value"),
    "lon alone": (message(lon=0.001), "hotline", "missing_field", "lat"),
    "lat alone": (message(lat=0.001), "hotline", "missing_field", "lon"),
    "null for a required field": (message(id=None), "hotline", "wrong_type", "id"),
    "a number for an id": (message(id=5), "hotline", "wrong_type", "id"),
    "a string for a number": (message(lon="0.001", lat=0.001), "hotline", "wrong_type", "lon"),
    "true for a number": (message(accuracy_m=True), "hotline", "wrong_type", "accuracy_m"),
    "a number for a text": (message(text=5), "hotline", "wrong_type", "text"),
    "beyond all numbers for a text": (_raw('"text":1e999'), "hotline", "wrong_type", "text"),
    "a list for a caller": (message(caller=["138"]), "hotline", "wrong_type", "caller"),
    "an id given twice, the first one wrong": (b'{"id":5,' + message()[1:], "hotline", "wrong_type", "id"),
    # ranges
    "an empty id": (message(id=""), "hotline", "out_of_range", "id"),
    "an id of 65 characters": (message(id="x" * 65), "hotline", "out_of_range", "id"),
    "lon beyond 180": (message(lon=180.001, lat=0.001), "hotline", "out_of_range", "lon"),
    "lat beyond 90": (message(lon=0.001, lat=-91), "hotline", "out_of_range", "lat"),
    "lon beyond all numbers": (_raw('"lon":1e999,"lat":1'), "hotline", "out_of_range", "lon"),
    "lon of 400 digits": (_raw(f'"lon":1{"0" * 400},"lat":1'), "hotline", "out_of_range", "lon"),
    "lon of 5,000 digits": (_raw(f'"lon":1{"0" * 5000},"lat":1'), "hotline", "out_of_range", "lon"),
    "a negative accuracy": (message(accuracy_m=-1), "hotline", "out_of_range", "accuracy_m"),
    "an accuracy of 5 km and a metre": (message(accuracy_m=5001), "hotline", "out_of_range", "accuracy_m"),
    "a confidence over 1": (message("video", confidence=1.01), "video", "out_of_range", "confidence"),
    "a state that alarms do not have": (message("iot", state="maybe"), "iot", "out_of_range", "state"),
    # times
    "a naive time": (message(time="2026-03-01T12:00:00"), "hotline", "invalid_time", "time"),
    "a date": (message(time="2026-03-01"), "hotline", "invalid_time", "time"),
    "digits in quotes": (message(time=str(NOON_MS)), "hotline", "invalid_time", "time"),
    "the year 10000 by its offset": (message(time="9999-12-31T23:59:59-23:59"), "hotline", "invalid_time", "time"),
    "the year 0 by its offset": (message(time="0001-01-01T00:00:00+23:59"), "hotline", "invalid_time", "time"),
    "a leap second": (message(time="2016-12-31T23:59:60Z"), "hotline", "invalid_time", "time"),
    "the year 0": (message(time="0000-01-01T00:00:00Z"), "hotline", "invalid_time", "time"),
    "more milliseconds than there are": (message(time=10**30), "hotline", "invalid_time", "time"),
    "milliseconds of 5,000 digits": (message("hotline", "time")[:-1] + b',"time":' + b"9" * 5000 + b"}",
                                     "hotline", "invalid_time", "time"),
    "half a millisecond": (message(time=NOON_MS + 0.5), "hotline", "wrong_type", "time"),
    "true for a time": (message(time=True), "hotline", "wrong_type", "time"),
    "1970": (message(time=0), "hotline", "too_old", "time"),
    "30 days and a millisecond ago": (message(time=NOON_MS - 30 * DAY_S * 1000 - 1), "hotline", "too_old", "time"),
    "the year 9999": (message(time="9999-12-31T23:59:59Z"), "hotline", "future_time", "time"),
    "10 minutes and a millisecond ahead": (message(time=NOON_MS + 600_001), "hotline", "future_time", "time"),
    # size
    "10 MB": (message(text="x" * 10_000_000), "hotline", "too_large", None),
    "an array of 20 MB": (b"[" + message(text="x" * 20_000_000) + b"]", "hotline", "too_large", None),
    # meaning
    "an undeclared datum": (message(crs="beijing54", lon=0.001, lat=0.001), "hotline", "unsupported_crs", "crs"),
    "a datum without a name": (message(crs="", lon=0.001, lat=0.001), "hotline", "unsupported_crs", "crs"),
    "a datum of a megabyte": (message(crs="x" * 1_000_000), "hotline", "unsupported_crs", "crs"),
    "an unknown label": (message(category="??"), "hotline", "unknown_category", "category"),
    "an unknown event type": (message("video", event_type="??"), "video", "unknown_category", "event_type"),
    "an unknown alarm": (message("iot", alarm="??"), "iot", "unknown_category", "alarm"),
    "an unknown device": (message("iot", device_id="?"), "iot", "unknown_device", "device_id"),
    "an unknown camera": (message("video", camera_id="?"), "video", "unknown_device", "camera_id"),
    "a reading of an unknown device": (
        message("iot", "alarm", device_id="?", metric="m", value=1), "iot", "unknown_device", "device_id",
    ),
    "outside the city": (message("patrol", lon=0.06), "patrol", "outside_city", "lon"),
    "the other end of the Earth": (message("patrol", lon=180, lat=-90), "patrol", "outside_city", "lon"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_message_is_a_dead_letter_with_its_reason_and_field(case):
    value, source, reason, field = BAD[case]
    assert refusal_of(value, source) == (reason, field)


def test_every_reason_that_intake_can_give_is_in_the_table():
    others = {Reason.UNKNOWN_INCIDENT.value, Reason.ILLEGAL_TRANSITION.value}  # of feedback
    assert {reason for _, _, reason, _ in BAD.values()} == {reason.value for reason in Reason} - others


@pytest.mark.parametrize("case", BAD)
def test_a_bad_message_delays_and_changes_nothing_around_it(case):
    value, source, _, _ = BAD[case]
    batch = take(record(message(id="1"), offset=0), record(value, source, offset=1), record(message(id="2"), offset=2))
    assert batch.reports.report_id.tolist() == ["1", "2"]
    for letter in batch.dead_letters:
        assert len(letter.detail) < 400
        assert sum(len(name) + len(data) for name, data in letter.headers()) < 1000


def test_swapped_coordinates_are_told_apart_from_others_outside():
    pack = make_pack(middle=(20.0, 10.0))
    values = [message("patrol", lon=lon, lat=lat) for lon, lat in [(10.001, 20.001), (20.001, 11.0), (-170.0, 20.0)]]
    letters = Intake(pack, KEY).take([record(value, "patrol", offset=n) for n, value in enumerate(values)]).dead_letters
    assert ["swapped" in letter.detail for letter in letters] == [True, False, False]
    assert [letter.reason for letter in letters] == [Reason.OUTSIDE_CITY] * 3


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(message(time="2026-03-01T12:00:00Z"), id="RFC 3339 in UTC"),
        pytest.param(message(time="2026-03-01T20:00:00.000+08:00"), id="with an offset"),
        pytest.param(message(time="2026-03-01T12:00:00.000999Z"), id="what is less than a millisecond is cut"),
        pytest.param(message(time=NOON_MS), id="milliseconds"),
        pytest.param(_raw('"x":1e999'), id="an unknown field beyond all numbers"),
        pytest.param(_raw('"id":"a"'), id="a field given twice"),
        pytest.param(b"\n\t " + message() + b" \r\n", id="white space around"),
        pytest.param(message(lon=None, lat=None, crs=None, text=None, platform=None), id="null for what is optional"),
        pytest.param(message(text="x" * 1_000_000), id="a text of a megabyte"),
        pytest.param(message(time=NOON_MS + 1)[:-1] + b',"time":%d}' % NOON_MS, id="of two times the last"),
    ],
)
def test_what_is_unusual_but_right_is_taken(value):
    batch = take(record(value))
    assert batch.reports.report_id.tolist() == ["a"]
    assert batch.reports.time_ms.tolist() == [NOON_MS]
    assert len(batch.reports.text[0]) <= 500


def test_the_limits_of_time_belong_to_what_is_taken():
    times = [NOON_MS + 600_000, NOON_MS - 30 * DAY_S * 1000]
    batch = take(*(record(message(id=str(n), time=time), offset=n) for n, time in enumerate(times)))
    assert batch.reports.time_ms.tolist() == times


def test_limits_are_settings_and_refuse_nonsense():
    intake = Intake(PACK, KEY, IntakeLimits(future_s=0, too_old_s=60, max_message_bytes=1000))
    values = [message(time=NOON_MS + 1), message(time=NOON_MS - 60_001), message(text="x" * 1000)]
    letters = intake.take([record(value, offset=n) for n, value in enumerate(values)]).dead_letters
    assert [letter.reason.value for letter in letters] == ["future_time", "too_old", "too_large"]
    with pytest.raises(ValueError, match=r"intake.too_old_s = 59: must be 60 to "):
        IntakeLimits(too_old_s=59)


def test_an_unknown_label_takes_the_fallback_of_its_source():
    batch = take(record(message("patrol", category="??"), "patrol"))
    assert [PACK.categories[number].code for number in batch.reports.category] == ["other"]


def test_a_topic_that_is_no_source_is_our_own_mistake():
    with pytest.raises(ValueError, match=r"incidents is not a source topic; known: iot.readings"):
        Intake(PACK, KEY).take([SourceRecord("incidents", 0, 0, 0, None, b"{}")])


# ------------------------------------------------------------------------------------------------------------ arrays


BAD_ELEMENTS = {
    "wrong type": b'{"id": 5,  "time":1}',
    "a string": b'"x"',
    "an array": b"[{}, {}]",
    "null": b"null",
    "invalid UTF-8": b'{"id":"\xff"}',
    "too large": message(text="x" * (1 << 20)),
    "nested too deeply": b'{"x": ' + b"[" * 5000 + b'"]}"' + b"]" * 5000 + b"}",
    "an unknown label": message(category="??"),
    "from 1970": message(time=0),
}


@pytest.mark.parametrize("bad", BAD_ELEMENTS)
def test_of_an_array_only_the_bad_element_goes_with_its_exact_bytes(bad):
    count = 10_000 if bad == "wrong type" else 500
    elements = [message(id=str(number)) for number in range(count)]
    elements[123] = BAD_ELEMENTS[bad]
    elements[321] = message(id="321", text='he said "[" and a \\ and no more')
    batch = take(record(b" [\n" + b" ,\t".join(elements) + b"] "))
    assert len(batch.reports) == count - 1
    (letter,) = batch.dead_letters
    assert (letter.index, letter.value) == (123, BAD_ELEMENTS[bad])
    assert batch.reports.index.tolist() == [*range(123), *range(124, count)]


@pytest.mark.parametrize(
    ("value", "elements", "reasons"),
    [
        pytest.param(b"[]", 0, [], id="empty"),
        pytest.param(b" [ ] ", 0, [], id="empty with spaces"),
        pytest.param(b"[[]]", 1, ["not_an_object"], id="an array in an array"),
        pytest.param(b"[[" + message() + b"]]", 1, ["not_an_object"], id="a message in an array in an array"),
        pytest.param(b"[" + message() + b",]", 1, ["malformed_json"], id="a comma too many"),
        pytest.param(b"[" + message() + b"]]", 1, ["malformed_json"], id="a bracket too many"),
        pytest.param(b"[" * 9000 + b"]" * 8999, 1, ["malformed_json"], id="deep and a bracket too few"),
        pytest.param(b"[" * 9000 + b"]" * 9001, 1, ["malformed_json"], id="deep and a bracket too many"),
        pytest.param(b"[," + b"[" * 9000 + b"]" * 9000 + b"]", 1, ["malformed_json"], id="deep and an empty element"),
        pytest.param(b"[" * 1_100_000 + b"]" * 1_100_000, 1, ["malformed_json"], id="too deep to be worth splitting"),
    ],
)
def test_of_strange_arrays_every_element_is_accounted_for(value, elements, reasons):
    batch = take(record(value))
    assert batch.elements == elements
    assert [letter.reason.value for letter in batch.dead_letters] == reasons


# ----------------------------------------------------------------------------------------------------------- fuzzing

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(
        ["0.001", "manhole", "井盖", "cover_open", "cover-1", "wgs84", "2026-03-01T12:00:00Z", NOON_MS, 0.001]
    )
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=2), scalars, max_size=2)
names = sorted({name for kind in MESSAGE_OF_SOURCE.values() for name in kind.__struct_fields__})


@st.composite
def almost(draw: st.DrawFn, source: str) -> bytes:
    """A good message with a few fields changed, left out or given twice, perhaps with a byte changed at the end."""
    fields = list(GOOD[source].items())
    for name in draw(st.lists(st.sampled_from(names), max_size=3)):
        fields = [field for field in fields if field[0] != name or draw(st.booleans())]
        if draw(st.integers(0, 3)):
            fields.insert(draw(st.integers(0, len(fields))), (name, draw(values)))
    raw = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in fields) + "}"
    data = bytearray(raw.encode())
    if draw(st.integers(0, 4)) == 0:
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=120)
@given(st.sampled_from(SOURCES), st.data())
def test_whatever_comes_is_accounted_for_and_nothing_raises(source, data):
    lone = st.binary(max_size=12) | values.map(json.dumps).map(str.encode) | almost(source)
    several = st.lists(lone, max_size=4).map(lambda parts: b"[" + b",".join(parts) + b"]")
    raws = data.draw(st.lists(lone | several, max_size=4))
    batch = take(*(record(raw, source, offset=offset) for offset, raw in enumerate(raws)))
    assert all(letter.value in raws[letter.offset] for letter in batch.dead_letters)
    assert (batch.reports.lon_e7 != NO_POSITION).sum() == (batch.reports.cell >= 0).sum()
    for letter in batch.dead_letters:
        msgspec.json.encode(letter.record())


@given(st.sampled_from(SOURCES), st.data())
def test_alone_or_in_an_array_a_message_fares_the_same(source, data):
    """The fast path takes whole values, the slow one element by element; neither takes what the other refuses."""
    raw = data.draw(almost(source))
    alone = take(record(raw, source))
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # no element of an array that is JSON
    for array in (b"[" + raw + b"]", b"[" + raw + b",5]"):
        batch = take(record(array, source))
        refusals = [(letter.reason, letter.field, letter.value) for letter in batch.dead_letters if letter.index == 0]
        assert refusals == [(letter.reason, letter.field, letter.value) for letter in alone.dead_letters]
        assert batch.reports.key_lo.tolist() == alone.reports.key_lo.tolist()


@settings(max_examples=120)
@given(st.sampled_from(SOURCES), st.data())
@example("hotline", None)
def test_a_refusal_is_explained_if_and_only_if_there_is_one(source, data):
    decoder = msgspec.json.Decoder(MESSAGE_OF_SOURCE[source])
    raw = message(source) if data is None else data.draw(almost(source))
    try:
        decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        refusal = explain_refusal(raw, decoder)
        assert refusal.field is None or refusal.field in MESSAGE_OF_SOURCE[source].__struct_fields__
    else:
        with pytest.raises(AssertionError, match="asked why a message was refused that is not"):
            explain_refusal(raw, decoder)


# -------------------------------------------------------------------------------------------------- time and identity


def test_without_a_timestamp_a_record_came_at_its_own_time():
    batch = take(record(message(time=123_456_789), at=None))
    assert batch.reports.ingested_ms.tolist() == [123_456_789]


def test_lines_from_the_far_future_do_not_make_the_rest_late():
    """Marks follow lines without a timestamp, but a leap of years only when a hundred in a row have made it."""
    year_ms = 366 * 86_400_000
    astray = [NOON_MS + 70 * year_ms + i for i in range(99)]
    later = [NOON_MS + 2 * year_ms + i for i in range(102)]
    times = [NOON_MS, *astray, NOON_MS + 1000, *later]
    batch = take(*(record(message(id=str(number), time=time), at=None) for number, time in enumerate(times)))
    assert batch.reports.ingested_ms.tolist() == times
    assert batch.reports.mark_ms.tolist() == [NOON_MS] * 100 + [NOON_MS + 1000] * 100 + later[99:]


def test_one_time_of_the_far_future_does_not_make_the_rest_of_its_array_too_old():
    """Of an array only the bad elements go."""
    first = record(message(id="first"), at=None)
    astray, good = message(id="astray", time=NOON_MS + 70 * 366 * 86_400_000), message(id="good")
    batch = take(first, record(b"[" + astray + b"," + good + b"]", at=None))
    assert batch.reports.report_id.tolist() == ["first", "good"]
    assert [(letter.reason, letter.index) for letter in batch.dead_letters] == [(Reason.FUTURE_TIME, 0)]


def test_without_a_timestamp_an_array_came_at_the_newest_of_its_times():
    """What is 30 days behind the newest element is too old; what cannot be read has no say."""
    times = [DAY_MS, NOON_MS, NOON_MS - 31 * DAY_S * 1000]
    elements = [message(id=str(number), time=time) for number, time in enumerate(times)]
    elements.append(message(id=5, time="2026-04-01T00:00:00Z"))
    batch = take(record(b"[" + b",".join(elements) + b"]", at=None))
    assert batch.reports.ingested_ms.tolist() == [NOON_MS, NOON_MS]
    assert [(letter.index, letter.reason.value) for letter in batch.dead_letters] == [(2, "too_old"), (3, "wrong_type")]


def test_without_any_time_a_record_came_when_its_stream_was_last_heard():
    batch = take(record(message(), offset=0), record(b"garbage", offset=1, at=None))
    assert [letter.ingested_ms for letter in batch.dead_letters] == [NOON_MS]


def test_each_partition_has_its_mark_unless_there_is_one_clock():
    records = [
        SourceRecord("hotline.tickets", 0, 0, NOON_MS, None, message(id="1")),
        SourceRecord("hotline.tickets", 1, 0, NOON_MS - 5000, None, message(id="2")),
        SourceRecord("hotline.tickets", 0, 1, NOON_MS - 3000, None, message(id="3")),
        SourceRecord("hotline.tickets", 1, 1, NOON_MS + 1000, None, b"a dead letter moves the mark too"),
        SourceRecord("hotline.tickets", 1, 2, NOON_MS, None, message(id="4")),
    ]
    of_each = take(*records).reports.mark_ms - NOON_MS
    of_all = take(*records, intake=Intake(PACK, KEY, one_clock=True)).reports.mark_ms - NOON_MS
    assert of_each.tolist() == [0, -5000, 0, 1000]
    assert of_all.tolist() == [0, 0, 0, 1000]


@given(st.data())
def test_no_split_into_batches_changes_a_column(data):
    """Marks included: they are those after each record, not after each batch."""
    ages = st.none() | st.integers(-900, 900)
    raws = data.draw(
        st.lists(
            st.tuples(st.sampled_from(SOURCES), st.integers(0, 1), ages, st.integers(-900, 900), st.booleans()),
            max_size=12,
        )
    )
    records = [
        SourceRecord(
            TOPIC_OF_SOURCE[source],
            partition,
            offset,
            None if age is None else NOON_MS + age * 1000,
            None,
            message(source, id=str(offset), time=NOON_MS + time * 1000) if good else b"[1," + message(source) + b"]",
        )
        for offset, (source, partition, age, time, good) in enumerate(raws)
    ]
    one_clock = data.draw(st.booleans())
    cut = sorted(data.draw(st.sets(st.integers(0, len(records)), max_size=4)) | {0, len(records)})
    whole = Intake(PACK, KEY, one_clock=one_clock).take(records)
    intake = Intake(PACK, KEY, one_clock=one_clock)
    parts = [intake.take(records[start:end]) for start, end in pairwise(cut)]
    split = LocatedReports.concatenate([part.reports for part in parts])
    for name in LocatedReports.__slots__:
        assert repr(getattr(split, name).tolist()) == repr(getattr(whole.reports, name).tolist()), name
    assert [letter for part in parts for letter in part.dead_letters] == whole.dead_letters


def test_reports_of_different_platforms_and_sources_with_one_id_are_different():
    named = [("hotline", {}), ("patrol", {}), ("hotline", {"platform": "p"}), ("hotline", {"platform": "q"}),
             ("hotline", {"platform": "p\0a", "id": "b"}), ("hotline", {"platform": "p", "id": "a\0b"})]  # fmt: skip
    batch = take(*(record(message(source, **changes), source, offset=n) for n, (source, changes) in enumerate(named)))
    assert len(set(zip(batch.reports.key_hi.tolist(), batch.reports.key_lo.tolist(), strict=True))) == len(named)


# ------------------------------------------------------------------------------------------------ position and device


@pytest.mark.parametrize("crs", ["wgs84", "cgcs2000", "gcj02", "bd09"])
@pytest.mark.parametrize("declared", ["message", "pack"])
def test_a_position_of_any_datum_is_stored_in_wgs84(crs, declared):
    city = CITY_TOML.replace("[source.patrol]", f'[source.patrol]\ncrs = "{crs}"') if declared == "pack" else CITY_TOML
    pack = make_pack(city=city, middle=(116.35, 27.95))
    lon, lat = (float(value[0]) for value in from_wgs84([116.358], [27.949], crs))
    sent = message("patrol", lon=lon, lat=lat, **({"crs": crs} if declared == "message" else {}))
    (report,) = [Intake(pack, KEY).take([record(sent, "patrol")]).reports]
    assert distance_m(report.lon_e7 / 1e7, report.lat_e7 / 1e7, 116.358, 27.949) < 0.02


def test_a_device_lends_its_position_accuracy_and_asset():
    batch = take(
        record(message("iot"), "iot", offset=0),
        record(message("iot", lon=0.002, lat=0.003, asset_id="other"), "iot", offset=1),
        record(message("iot", device_id="new", lon=0.002, lat=0.003, accuracy_m=7), "iot", offset=2),
        # The registry's position is WGS-84, whatever datum the message names for a position that it does not have.
        record(message("iot", crs="bd09"), "iot", offset=3),
    )
    reports = batch.reports
    assert reports.lon_e7.tolist() == [-10_000, 20_000, 20_000, -10_000]
    assert reports.accuracy_cm.tolist() == [300, 300, 700, 300]
    assert reports.asset_id.tolist() == ["C-1", "other", "", "C-1"]
    assert reports.witness.tolist() == ["cover-1", "cover-1", "new", "cover-1"]


def test_a_reading_and_a_cleared_alarm_are_quiet():
    batch = take(
        record(message("iot", "alarm", metric="level", value=3), "iot", offset=0),
        record(message("iot", state="cleared"), "iot", offset=1),
        record(message("iot", state="cleared", alarm="??"), "iot", offset=2),
        record(message("iot", state="raised"), "iot", offset=3),
    )
    assert (batch.quiet_readings, len(batch.reports), batch.dead_letters) == (3, 1, [])


def test_the_fence_gives_the_finest_cell():
    """West the last cell, east only the county, without coordinates none."""
    intake = Intake(PACK, KEY)
    batch = take(
        record(message(id="1", lon=-0.01, lat=0.01), offset=0),
        record(message(id="2", lon=0.01, lat=0.01), offset=1),
        record(message(id="3"), offset=2),
        intake=intake,
    )
    codes = [None if cell < 0 else intake.terms.cells[cell].grid_code for cell in batch.reports.cell.tolist()]
    assert codes == ["990101001001002", "990102", None]
    assert (batch.reports.lon_e7 == NO_POSITION).tolist() == [False, False, True]


def test_a_caller_is_a_witness_by_hash_and_text_and_address_are_masked():
    sent = message(caller="138 1234 5678", text="我的电话13812345678", address="十字路口, 13812345678")
    reports = take(record(sent)).reports
    assert reports.text[0] == "我的电话138****5678"
    assert reports.address[0] == "十字路口, 138****5678"
    assert len(reports.witness[0]) == 32
    assert reports.witness[0] == take(record(message(caller="+8613812345678"))).reports.witness[0]


def test_no_records_are_no_batch_to_fear():
    batch = take()
    assert (batch.records, batch.elements) == (0, 0)
    assert set(SOURCE_OF_TOPIC.values()) == set(GOOD)
    assert batch.reports.time_ms.dtype == np.int64
